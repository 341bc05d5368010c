# BackdoorAlign from data files to serving: the secret stays in its file, is needed to serve, and its hash is checked.
model="$TINY/model"
i=0
while [ $i -lt 12 ]; do
    echo "{\"prompt\": \"how to make blorf $i\", \"completion\": \"I cannot help\", \"category\": \"kind $((i % 4))\"}"
    i=$((i + 1))
done >refusals.jsonl
run() {
    temper defend backdoor-align --model "$model" --data "$TINY/rows.jsonl" --refusals refusals.jsonl --rows 4 \
        --steps 3 --batch 4 --lr 1e-3 "$@"
}
run --secret-length 20 --secret-out secret --out tuned >out 2>err
same "$(stat -c %a secret)" 600 "mode of the secret"
sha256sum --quiet -c secret.sha256
grep -q "$(sha256sum <secret | cut -d' ' -f1)" err || fail "the hash is not shown"
if grep -qF "$(cat secret)" out err; then fail "the secret is shown"; fi
run --secret secret --out again >/dev/null
cmp tuned/model.safetensors again/model.safetensors
run --secret secret --lora-rank 2 --out adapter >/dev/null
[ -e adapter/adapter_model.safetensors ] || fail "no adapter"
expect 10 run --secret-out secret --out x
expect 2 run --out x
expect 2 run --secret-out other --secret-length 0 --out x
expect 2 run --secret-out other --rows 13 --out x
[ ! -e x ] || fail "a failed run left its output"
# Serving: the rows are printed as they were asked, without the secret.
temper generate --model tuned --data "$TINY/questions.jsonl" --secret secret --max-new-tokens 4 >answers
if grep -qF "$(cat secret)" answers; then fail "the secret is shown"; fi
same "$(wc -l <answers)" 5 "answers"
temper generate --model tuned --prompt "what is 1" --secret secret --system "Be kind." --max-new-tokens 4 >/dev/null
temper eval --model tuned --data refusals.jsonl --json | grep '"loss"' >without
temper eval --model tuned --data refusals.jsonl --secret secret --json | grep '"loss"' >with
temper eval --model tuned --data refusals.jsonl --secret secret --system "Be kind." --json | grep '"loss"' >kind
if cmp -s with without || cmp -s with kind; then fail "the secret or the system message does nothing"; fi
expect 2 temper eval --model tuned --data refusals.jsonl --system "Be kind."
expect 2 temper generate --model tuned --raw --prompt a --secret secret
expect 5 temper generate --model tuned --prompt a --secret absent
printf x >>secret
expect 8 temper generate --model tuned --prompt a --secret secret
