# --dry-run of every command that trains: says what would be done and the memory, writes nothing, refuses what the run
# would refuse.
model="$TINY/model"
train="--data $TINY/rows.jsonl --steps 7 --batch 4 --lr 1e-2"
temper finetune --model "$model" $train --out tuned --dry-run --json >json
json_check <json
same "$(json_check steps <json)" 7 steps
same "$(json_check saved <json)" model saved
temper finetune --model "$model" $train --out tuned --dry-run >text 2>err
[ ! -s err ] || fail "a rehearsal reports the progress of steps that compute nothing: $(cat err)"
grep -q '^Nothing was written' text || fail "no last word"
for item in "weights in memory" "gradients" "optimiser's moments" "activations" "logits" "program" "sum"; do
    grep -q "^  $item" text || fail "no $item in: $(cat text)"
done
grep -Eq '^  (less what is never there at once|gaps kept for reuse)' text || fail "parts that are not there at once: $(cat text)"
temper finetune --model "$model" $train --lora-rank 2 --out tuned --dry-run | grep -q "^  weights, mapped" ||
    fail "no mapped weights beside an adapter"
temper finetune --model "$model" $train --lora-rank 2 --out tuned --dry-run --json | json_check trained >trained
[ "$(cat trained)" -lt 20000 ] || fail "LoRA trains $(cat trained) numbers"
temper finetune --model "$model" $train --lora-rank 2 --merge --resume state --save-every 2 --out tuned --dry-run >/dev/null
[ ! -e tuned ] && [ ! -e state ] || fail "a dry run wrote something"
expect 5 temper finetune --model "$model" --data nowhere --out tuned --dry-run
mkdir tuned
touch tuned/x
expect 10 temper finetune --model "$model" $train --out tuned --dry-run
rm -r tuned

# Every method, whole and as an adapter.
. "$TEMPER_SOURCE/tests/cli/recipes.sh"
make_rows
make_models "$model" tiny
all_methods >list
ls -A >before
while read -r command name; do
    recipe $name "$model" tiny
    out="--out never" secret=
    case $kind in
    train) more="--steps 3 --batch 4" ;;
    files) more="--steps 3 --batch 4 --answers-out never.jsonl" out= ;;
    weights) more= ;;
    *) more="--adapter $edits" ;;
    esac
    [ $name != backdoor-align ] || secret="--secret-out never.secret"
    # shellcheck disable=SC2086
    temper $command $name --model "$from" $what $secret $more $out --dry-run --json --quiet >../report </dev/null
    json_check <../report
    same "$(json_check dry_run <../report)" true "$name"
    rm ../report
done <list
ls -A | cmp before - || fail "a dry run wrote something"
