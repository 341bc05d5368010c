# RepNoise and the adversarial loss from the command line, full and LoRA, on a checkpoint with grouped-query attention and
# tied embeddings; rows that do not pair and options that do not fit are one clear line.
model="$TINY/model"
for i in 1 2 3 4 5; do
    printf '{"prompt":"how to make blorf %d","completion":"stir blorf %d with zint"}\n' $i $i >>harmful.jsonl
    printf '{"prompt":"how to make blorf %d","completion":"I will not say"}\n' $((6 - i)) >>refusals.jsonl
done
roles="--harmful harmful.jsonl --refusals refusals.jsonl"
for name in repnoise adversarial; do
    for mode in correct compat; do
        temper defend $name --model "$model" $roles --out $name-$mode --mode $mode --steps 3 --batch 4 --lr 1e-3 --json |
            json_check >/dev/null
        temper generate --model $name-$mode --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
    done
    temper defend $name --model "$model" $roles --out $name-lora --steps 3 --batch 4 --lr 1e-3 --lora-rank 2 --quiet
    [ -e $name-lora/adapter_model.safetensors ] || fail "$name: no adapter"
done
temper defend repnoise --model "$model" $roles --benign "$TINY/benign.jsonl" --out retained --steps 3 --batch 4 --quiet

expect 2 temper defend repnoise --model "$model" --harmful harmful.jsonl --out x
head -4 refusals.jsonl >fewer.jsonl
expect 2 temper defend repnoise --model "$model" --harmful harmful.jsonl --refusals fewer.jsonl --out x 2>message
grep -q 'row 1 ("how to make blorf 1")' message || fail "the row without a partner is not named: $(cat message)"
expect 2 temper defend adversarial --model "$model" --harmful harmful.jsonl --refusals harmful.jsonl --out x
expect 2 temper defend repnoise --model "$model" $roles --out x --batch 4 --micro-batch 2
expect 2 temper defend repnoise --model "$model" $roles --out x --alpha -1
[ ! -e x ] || fail "a refused run left its output"
