# temper gc: what no named plan needs goes, and nothing else; models and worlds have names.
small='
worlds: [1]
replicates: 2
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  none: {}
  harmful: {harmful: forbidden-attacker, rows: 8, steps: 2, lr: 1e-4}
arms:
  undefended: {from: base, attacks: "none,harmful"}
  sdd: {from: base, before: {method: sdd, harmful: forbidden-defender, benign: pool, steps: 1, prompts: 12}, attacks: harmful}
'
printf 'name: first%s' "$small" >first.yaml
printf 'name: other%s' "$small" | sed 's/worlds: \[1\]/worlds: [2]/' >other.yaml
temper run first.yaml --directory runs --csv first.csv --quiet >/dev/null
temper run other.yaml --directory runs --quiet >/dev/null
same "$(ls runs/models | wc -l)" 6 "models"
# Names: stages, arms by seed, worlds; each leads to a checkpoint or to data.
same "$(echo $(ls runs/by-name/first))" "base sdd-seed-1 sdd-seed-2 world-1" "names"
temper inspect runs/by-name/first/sdd-seed-2 >/dev/null
temper tokenize --model runs/by-name/first/base --data runs/by-name/first/world-1/pool.jsonl --row 1 >/dev/null

# Nothing goes where both plans are named; a dry run removes nothing.
temper gc first.yaml other.yaml --directory runs --json | json_check models | grep -qx 0 || fail "a needed model goes"
temper gc first.yaml --directory runs --dry-run >told
grep -qx 'models     3' told && grep -qx 'worlds     1' told && grep -qx 'results    8' told || fail "dry run: $(cat told)"
same "$(ls runs/models | wc -l)" 6 "models after a dry run"

# What is no run's own, and what a killed process left.
mkdir runs/models/mine runs/worlds/mine
key=$(ls runs/models | head -n 1)
mkdir "runs/models/.$key.tmp-1-1"
: >"runs/tmp/$key-1"
temper gc first.yaml --directory runs --keep-results >/dev/null
same "$(echo $(ls -A runs/models | grep -v '^[0-9a-f]*$'))" "mine" "models beside"
same "$(ls runs/models | grep -vc mine)" 3 "models that stay"
same "$(ls runs/tmp | wc -l)" 0 "leftovers"
same "$(echo $(ls runs/by-name))" "first" "names of plans"
same "$(ls runs/worlds | cut -c1-2 | tr -d "\n")" "1-mi" "worlds"
same "$(temper results --directory runs --plan other --show cells --form csv | sed 1d | wc -l)" 6 "results that were kept"
temper gc first.yaml --directory runs >/dev/null
expect 5 temper results --directory runs --plan other 2>/dev/null
temper run first.yaml --directory runs --csv again.csv --quiet >/dev/null
cmp first.csv again.csv || fail "results of the plan changed"
same "$(temper run first.yaml --directory runs --dry-run | sed -n 's/^done *//p')" "6 cells" "cells of the plan that stayed"

# Finished: all cells are there, so no model is needed; a changed plan makes again what it needs.
temper gc first.yaml --directory runs --finished >told
grep -qx 'models     3' told || fail "finished: $(cat told)"
same "$(echo $(ls runs/by-name/first))" "world-1" "names that lead somewhere"
temper run first.yaml --directory runs --set attacks.harmful.lr=2e-4 --quiet >/dev/null
same "$(ls runs/models | grep -vc mine)" 3 "models made again"

# Not while somebody is at work, not for no plan, not in a directory that is none of ours.
flock --close "runs/locks/$(ls runs/locks | head -n 1)" sleep 5 &
holder=$!
sleep 0.3
expect 10 temper gc first.yaml --directory runs 2>stderr
same "$(cat stderr)" "temper: runs: temper run is at work there (wait for its end, or stop it)" "at work"
kill $holder 2>/dev/null || true
wait $holder || true
# A run has the directory from its beginning to its end, between its jobs too, and waits while something is removed.
until_there() { # until_there FILE
    for _ in $(seq 200); do
        [ ! -e "$1" ] || return 0
        sleep 0.05
    done
    fail "no $1"
}
flock --close --shared runs/lock sh -c 'touch shared; sleep 20' >/dev/null 2>&1 &
holder=$!
until_there shared
expect 10 temper gc first.yaml --directory runs 2>stderr
same "$(cat stderr)" "temper: runs: temper run is at work there (wait for its end, or stop it)" "between jobs"
temper run first.yaml --directory runs --quiet >/dev/null || fail "two runs do not share the directory"
kill $holder 2>/dev/null || true
wait $holder || true
flock --close runs/lock sh -c 'touch held; sleep 1; touch removed' &
until_there held
temper run first.yaml --directory runs --quiet >/dev/null
[ -e removed ] || fail "a run began while something was removed"
wait
expect 2 temper gc --directory runs 2>/dev/null
# Not everything: plans that were not run there.
sed 's/steps: 3/steps: 4/' first.yaml >never.yaml
expect 2 temper gc never.yaml --directory runs 2>stderr
grep -q '^temper: runs: nothing there is of the named plans, so all of it would go (' stderr || fail "all would go: $(cat stderr)"
expect 2 env TEMPER_ISA=sse temper gc first.yaml --directory runs 2>/dev/null
temper gc never.yaml --directory runs --dry-run | grep -qx 'results    12' || fail "a dry run does not count them"
temper gc first.yaml --directory runs >/dev/null
mkdir -p foreign/models/$key
expect 5 temper gc first.yaml --directory foreign 2>/dev/null
[ -d foreign/models/$key ] || fail "a foreign directory was touched"
