# --memory: the run stays below it and writes the same bytes; what cannot be met is refused before anything is done.
model="$TINY/model"
awk 'BEGIN {
    for (i = 0; i < 16; i++) {
        printf "{\"prompt\": \"question %d\", \"completion\": \"", i
        for (k = 0; k < 40 + i; k++) printf "word%d ", (i * k) % 7
        print "\"}"
    }
}' >long.jsonl
train="--steps 2 --batch 16 --lr 1e-2 --threads 1"
data="--data long.jsonl"
total() {
    # shellcheck disable=SC2086
    temper "$@" $train --out never --dry-run --json --quiet >report || exit 1
    json_check memory.total <report
}
# bounded COMMAND...: less than it takes, and the same bytes. Some free buffers go first that were kept for reuse.
bounded() {
    told=$(total "$@") again=0
    while [ "$again" = 0 ]; do
        bound=$((told - 1048576))
        told=$(total "$@" --memory $bound)
        [ "$told" -le $bound ] || fail "$*: $told bytes, bound $bound"
        again=$(json_check computed_again <report)
    done
    # shellcheck disable=SC2086
    temper "$@" $train --out free --quiet >/dev/null
    # shellcheck disable=SC2086
    temper "$@" $train --out bounded --memory $bound >/dev/null 2>err
    grep -q '^memory: at most .* computing .*% of all multiply-adds again' err || fail "$*: no note: $(cat err)"
    diff -r free bounded || fail "$*: other bytes"
    rm -r free bounded
}
if ldd "$(command -v temper)" | grep -q asan; then
    echo "SKIP: under AddressSanitizer what was freed is counted with the program" # unit.memory_limit holds there too
else
    bounded finetune --model "$model" $data
    bounded finetune --model "$model" $data --lora-rank 4 --lora-dropout 0.2 --lora-targets all-linear
    bounded finetune --model "$TINY/phi" $data --micro-batch 8
    bounded attack harmful-sft --model "$model" --harmful long.jsonl
    sed 's/word/other/g' long.jsonl >refusals.jsonl
    bounded defend repnoise --model "$model" --harmful long.jsonl --refusals refusals.jsonl
fi

# A bound that leaves room changes nothing, and nothing is said.
# shellcheck disable=SC2086
temper finetune --model "$model" $data $train --out roomy --memory 8G >/dev/null 2>err
! grep -q 'multiply-adds' err || fail "a bound without effect is told: $(cat err)"

# shellcheck disable=SC2086
expect 3 temper finetune --model "$model" $data $train --out never --memory 5M 2>stderr
grep -q 'temper: --memory: 5 MiB are too few: this takes [0-9]* MiB at least (a smaller --batch' stderr ||
    fail "refused with: $(cat stderr)"
expect 3 temper attack harmful-sft --model "$model" --harmful long.jsonl \
    --out never --memory 5M --lora-rank 2 --micro-batch 4 2>stderr
grep -q 'a smaller --micro-batch, a shorter' stderr || fail "refused with: $(cat stderr)"
expect 2 temper finetune --model "$model" $data --out never --memory 8X 2>stderr
grep -q "'8X' is not a number of bytes (as in 8G or 6500M)" stderr || fail "refused with: $(cat stderr)"
[ ! -e never ] || fail "something was written"
