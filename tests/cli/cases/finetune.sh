# Whole model and adapter; what is written loads again; nothing is replaced unasked.
model="$TINY/model"
train="--data $TINY/rows.jsonl --steps 6 --batch 4 --lr 1e-2"
temper finetune --model "$model" $train --out tuned --json >json
json_check <json
same "$(json_check steps <json)" 6 steps
same "$(json_check saved <json)" model saved
temper inspect tuned --hash --json | json_check sha256 >hash
[ "$(cat hash)" != "$(temper inspect "$model" --hash --json | json_check sha256)" ] || fail "training changed nothing"
temper finetune --model "$model" $train --out again --quiet 2>noise >/dev/null
[ ! -s noise ] || fail "--quiet is not quiet"
same "$(temper inspect again --hash --json | json_check sha256)" "$(cat hash)" "two runs"
temper generate --model tuned --prompt "say the word 1" --max-new-tokens 4 >/dev/null
temper eval --model tuned --data "$TINY/rows.jsonl" --json | json_check loss >after
temper eval --model "$model" --data "$TINY/rows.jsonl" --json | json_check loss >before
[ "$(printf '%s\n%s\n' "$(cat after)" "$(cat before)" | sort -g | head -n 1)" = "$(cat after)" ] || fail "loss did not fall"

expect 10 temper finetune --model "$model" $train --out tuned
temper finetune --model "$model" $train --out tuned --overwrite --save-dtype bf16 >/dev/null
same "$(temper inspect tuned --json | json_check dtype)" bf16 dtype

temper finetune --model "$model" $train --lora-rank 4 --out adapter --json | json_check saved >saved
same "$(cat saved)" "LoRA adapter" saved
[ -e adapter/adapter_config.json ] || fail "no adapter_config.json"
temper inspect --model "$model" --adapter adapter --json | json_check adapters >/dev/null
expect 2 temper inspect adapter
temper generate --model "$model" --adapter adapter --prompt "hello" --max-new-tokens 4 >with
temper finetune --model "$model" $train --lora-rank 4 --merge --out merged >/dev/null
same "$(temper inspect merged --json | json_check adapters)" "[]" "adapters after merging"
temper finetune --model "$model" --adapter adapter $train --out further >/dev/null
expect 8 temper inspect --model "$TINY/other" --adapter adapter

expect 5 temper finetune --model nowhere --data "$TINY/rows.jsonl" --out never
expect 5 temper finetune --model "$model" --data nowhere --out never
[ ! -e never ] || fail "a failed run left its output"
touch file
expect 4 temper finetune --model "$model" $train --out file/never
