# temper run keeps the adapters that steps train instead of whole models: the same results, less disk; temper gc keeps
# what they stand on; a killed run comes to the same.
cp "$TINY/harmful.jsonl" "$TINY/benign.jsonl" .
cat >plan.yaml <<PLAN
name: adapters
replicates: 2
bases: {small: {path: $TINY/model}}
data: {attack: {path: harmful.jsonl, rows: 8}, defence: {path: harmful.jsonl, first: 8, rows: 8}, pool: benign.jsonl}
evaluations: [{suite: loss, name: harm, data: harmful.jsonl, limit: 6}]
train: {batch: 4, max-length: 128, lr: 1e-2}
stages:
  tuned: {method: finetune, data: pool, steps: 2, lora-rank: 1}
attacks:
  none: {}
  open: {harmful: attack, steps: 2}
  lora: {harmful: attack, steps: 2, lora-rank: 2, lora-targets: all-linear}
arms:
  plain: {attacks: "none,open,lora"}
  tuned: {from: tuned, attacks: "none,open,lora"}
  sdd: {from: tuned, before: {method: sdd, harmful: defence, benign: pool, steps: 2, lora-rank: 1}, attacks: "none,open,lora"}
PLAN
temper run plan.yaml --directory runs --csv few.csv --quiet >/dev/null
temper run plan.yaml --directory whole --set bases.small.save=keep --csv whole.csv --quiet >/dev/null
scores() { cut -d, -f2- "$1" | sed 's/,[^,]*,[^,]*$//'; } # without keys and cost
scores few.csv >a
scores whole.csv | cmp a - || fail "results depend on how models are stored"
same "$(ls runs/models | wc -l) $(ls whole/models | wc -l)" "3 3" "models"
same "$(ls runs/models/*/model.safetensors 2>/dev/null | wc -l)" 0 "whole models"
few=$(du -sb runs/models | cut -f1)
all=$(du -sb whole/models | cut -f1)
[ $((few * 3)) -lt "$all" ] || fail "$few bytes of adapters, $all of models"

# What an adapter stands on: the base by its path, another by its key.
tuned=$(basename "$(readlink runs/by-name/adapters/tuned)")
stands_on() { sed -n 's/.*"base_model_name_or_path": "\(.*\)",\{0,1\}$/\1/p' "$1/adapter_config.json"; }
same "$(stands_on runs/by-name/adapters/tuned)" "$TINY/model" "the base"
same "$(stands_on runs/by-name/adapters/sdd-seed-1)" "$tuned" "its parent"
temper eval loss --model "$TINY/model" --adapter runs/by-name/adapters/tuned --data harmful.jsonl --limit 6 --max-length 128 \
    --json --quiet | json_check numbers.0.value >by_hand
in_table=$(temper results --directory runs --arm tuned --attack none --seed 1 --show cells --scores harm.loss --form csv | sed 1d | cut -d, -f7)
awk -v a="$(cat by_hand)" -v b="$in_table" 'BEGIN { exit !(a - b < 1e-6 && b - a < 1e-6) }' || fail "$in_table in the table, $(cat by_hand) by hand"

# gc: a changed attack on the arm with the longest chain alone; its parent stays.
temper gc plan.yaml --directory runs --json | json_check models | grep -qx 0 || fail "a needed model goes"
sed '/^  plain: /d; /^  tuned: {from/d; s/^replicates: 2/replicates: 1/' plan.yaml >chain.yaml
temper gc chain.yaml --directory runs --keep-results >told
grep -qx 'models     1' told || fail "of the chain: $(cat told)"
temper run chain.yaml --directory runs --set attacks.open.lr=2e-2 --quiet >/dev/null
same "$(ls runs/models | wc -l)" 2 "models of the chain"

# A parent that somebody removed is made again before what stands on it is used.
rm -r "runs/models/$tuned"
temper run chain.yaml --directory runs --set attacks.open.lr=3e-2 --quiet >/dev/null
same "$(ls runs/models | wc -l)" 2 "models made again"

for wait in 0.05 0.1 0.2 0.3; do
    setsid temper run plan.yaml --directory killed --workers 2 --quiet >/dev/null 2>&1 &
    runner=$!
    sleep $wait
    kill -s KILL -- -"$runner" 2>/dev/null || true
    wait "$runner" 2>/dev/null || true
done
temper run plan.yaml --directory killed --csv again.csv --quiet >/dev/null
scores again.csv | cmp a - || fail "a killed run found something else"
same "$(ls killed/models/*/adapter_config.json | wc -l)" 3 "adapters after a killed run"
