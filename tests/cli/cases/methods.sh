# The registry, a defence and an attack from data files to a checkpoint that loads.
temper methods --json | json_check >/dev/null
temper methods sdd --json | json_check name
temper methods sdd >told
sed -n '/^Published settings:/,$p' told | tr '\n' ' ' | grep -q -- '--lr 5e-7 --steps 500 --batch 24' || fail "$(cat told)"
temper methods sdd --json | json_check settings | grep -q TamperBench
model="$TINY/model"
temper defend sdd --model "$model" --harmful "$TINY/harmful.jsonl" --benign "$TINY/benign.jsonl" --out defended \
    --steps 3 --batch 4 --lr 1e-3 --json >json
json_check <json
temper attack harmful-sft --model defended --harmful "$TINY/harmful.jsonl" --out attacked --steps 3 --batch 4 --lr 1e-3 \
    --allow-overlap harmful
temper attack harmful-sft --model defended --harmful "$TINY/harmful.jsonl" --benign "$TINY/benign.jsonl" \
    --allow-overlap harmful,benign --poison-ratio 0.25 --rows 40 --out poisoned --steps 3 --batch 4 --lora-rank 2 --lr 1e-3 >/dev/null
[ -e poisoned/adapter_model.safetensors ] || fail "no adapter"
temper generate --model attacked --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
expect 10 temper defend sdd --model "$model" --harmful "$TINY/harmful.jsonl" --benign "$TINY/benign.jsonl" --out defended
expect 2 temper attack harmful-sft --model "$model" --harmful "$TINY/harmful.jsonl" --poison-ratio 0.5 --rows 40 --out x
expect 2 temper defend sdd --model "$model" --harmful "$TINY/harmful.jsonl" --out x
[ ! -e x ] || fail "a failed run left its output"
