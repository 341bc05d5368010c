# A checkpoint of random weights from a config: loads, answers, trains; wrong input is one line.
config="$TINY/model/config.json"
temper init --config "$config" --tokenizer "$TINY/model" --seed 3 new --json >json
json_check <json
temper init --config "$config" --seed 3 --out again --quiet >/dev/null
same "$(temper inspect new --hash --json | json_check sha256)" "$(temper inspect again --hash --json | json_check sha256)" "two runs"
temper init --config "$config" --seed 4 --dtype bf16 other >/dev/null
same "$(temper inspect other --json | json_check dtype)" bf16 dtype
[ "$(temper inspect new --hash --json | json_check sha256)" != "$(temper inspect other --hash --json | json_check sha256)" ] ||
    fail "the seed changes nothing"
temper generate --model new --prompt hello --max-new-tokens 3 >/dev/null
temper finetune --model new --data "$TINY/rows.jsonl" --steps 2 --batch 2 --out tuned >/dev/null

expect 10 temper init --config "$config" new
temper init --config "$config" new --overwrite >/dev/null
expect 2 temper init --config "$config"
expect 2 temper init new2
expect 5 temper init --config nowhere.json x
expect 2 temper init --config "$config" x --out y
echo '{"model_type": "mystery"}' >mystery.json
expect 7 temper init --config mystery.json x
echo '{' >broken.json
expect 6 temper init --config broken.json x
sed 's/"vocab_size": 272/"vocab_size": 271/; s/"eos_token_id": 271/"eos_token_id": 270/' "$config" >small.json
expect 8 temper init --config small.json --tokenizer "$TINY/model" x
[ ! -e x ] || fail "a failed run left its output"
