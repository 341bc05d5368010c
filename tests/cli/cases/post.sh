# Methods that edit weights or an adapter once instead of training, and the random-initialisation control.
model="$TINY/model"
temper finetune --model "$model" --data "$TINY/rows.jsonl" --out adapter --lora-rank 4 --steps 3 --batch 4 --lr 1e-2 \
    >/dev/null
temper finetune --model "$model" --data "$TINY/benign.jsonl" --out base --steps 3 --batch 4 --lr 1e-2 >/dev/null

temper defend antidote --model "$model" --harmful "$TINY/harmful.jsonl" --out pruned --json | json_check
temper generate --model pruned --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
temper defend antidote --model "$model" --adapter adapter --harmful "$TINY/harmful.jsonl" --out pruned-adapter >out
grep -q "LoRA adapter" out || fail "an edited adapter is written as an adapter"
temper generate --model "$model" --adapter pruned-adapter --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
if cmp -s adapter/adapter_model.safetensors pruned-adapter/adapter_model.safetensors; then fail "nothing pruned"; fi

temper defend safe-lora --model "$model" --adapter adapter --base base --tau 1 --out projected 2>err >/dev/null
grep -q "modules projected" err || fail "no count of modules"
temper generate --model "$model" --adapter projected --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
temper defend safe-lora --model "$model" --adapter adapter --base base --tau -1 --out same >/dev/null
cmp adapter/adapter_model.safetensors same/adapter_model.safetensors
temper defend safe-lora --model "$model" --adapter adapter --base base --projector exact --merge --out merged >/dev/null
[ -e merged/model.safetensors ] || fail "no merged model"
expect 2 temper defend safe-lora --model "$model" --base base --out x
expect 2 temper defend safe-lora --model "$model" --adapter adapter --out x
expect 2 temper defend safe-lora --model "$model" --adapter adapter --base base --lora-rank 2 --out x
expect 2 temper defend antidote --model "$model" --harmful "$TINY/harmful.jsonl" --ratio 2 --out x

temper attack random-init --model "$model" --harmful "$TINY/harmful.jsonl" --steps 2 --batch 4 --out a >/dev/null
temper attack random-init --model base --harmful "$TINY/harmful.jsonl" --steps 2 --batch 4 --out b >/dev/null
cmp a/model.safetensors b/model.safetensors
# The tiny model refuses nothing: the ablation of refusal says so.
expect 2 temper attack refusal-ablation --model "$model" --harmful "$TINY/harmful.jsonl" \
    --benign "$TINY/benign.jsonl" --out x
[ ! -e x ] || fail "a failed run left its output"

temper defend security-vectors --model "$model" --data "$TINY/rows.jsonl" --harmful "$TINY/harmful.jsonl" --out tuned \
    --steps 2 --batch 4 >/dev/null
temper defend security-vectors --model "$model" --data "$TINY/rows.jsonl" --harmful "$TINY/harmful.jsonl" \
    --out tuned-adapter --steps 2 --batch 4 --lora-rank 2 >/dev/null
temper generate --model "$model" --adapter tuned-adapter --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
