# temper results: means, cells, answers, steps and failures of a store, in every form, filtered.
cat >plan.yaml <<'END'
name: tiny
worlds: [1]
replicates: 2
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  none: {}
  grid: {harmful: forbidden-attacker, rows: 8, steps: 2, axes: {lr: [1e-4, 1e-3]}}
arms:
  undefended: {from: base, attacks: "none,grid"}
  backdoor-align: {from: base, during: {method: backdoor-align, refusals: refusals-defender, secret-length: 5}, attacks: grid}
END
expect 5 temper results --directory nowhere 2>stderr
same "$(cat stderr)" "temper: nowhere/store.db: there is no result store (temper run PLAN --directory DIR makes it)" "no store"
temper run plan.yaml --directory runs --quiet >table
# Means: one row per arm and attacker; the unattacked model counts once.
temper results --directory runs --form csv --scores leak,skills,leak_secret >means
same "$(head -n 1 means)" "plan,arm,attack,leak,leak_half,leak_n,skills,skills_half,skills_n,leak_secret,leak_secret_half,leak_secret_n" columns
same "$(sed 1d means | wc -l)" 5 "rows of means"
same "$(sed -n 's/^tiny,undefended,none,//p' means | cut -d, -f2,3,9)" ",1,0" "an unattacked model"
same "$(grep -c '^tiny,backdoor-align,.*,2$' means)" 2 "arms with a secret"
# Cells, filtered.
same "$(temper results --directory runs --show cells --form csv | sed 1d | wc -l)" 10 cells
same "$(temper results --directory runs --show cells --arm 'back*' --attack '*1e-4' --seed 2 --form csv | sed 1d | cut -d, -f1-6)" \
    "tiny,backdoor-align,grid,lr=1e-4,1,2" "one cell"
same "$(temper results --directory runs --show cells --group grid --arm undefended --json | json_check 0.attack)" "lr=1e-4" json
# Answers: 3 + 2 + 4 x 2 + 2 prompts, twice where there is a secret.
same "$(temper results --directory runs --show answers --arm undefended --attack none --seed 1 --form csv | grep -c '^tiny,undefended,none,none,1,1,')" 15 answers
temper results --directory runs --show answers --arm backdoor-align --attack '*1e-4' --seed 1 --json >answers.json
json_check 29.prompt <answers.json >/dev/null || fail "answers with the secret"
# Steps of the attack's training, with their losses.
temper results --directory runs --show steps --arm undefended --attack 'lr=1e-4' --seed 1 --form csv >steps
same "$(sed 1d steps | cut -d, -f1-9)" "tiny,undefended,grid,lr=1e-4,1,1,train,0,1
tiny,undefended,grid,lr=1e-4,1,1,train,0,2" steps
sed 1d steps | cut -d, -f10 | grep -qv '^[0-9.]*$' && fail "a loss is no number: $(cat steps)"
# Forms for readers.
temper results --directory runs --scores leak --form markdown | sed -n 2p | grep -qx '|---|---|---|---:|' || fail markdown
temper results --directory runs --scores leak,leak_secret --form latex >latex
grep -qF 'plan & arm & attack & leak & leak\_secret \\' latex || fail "latex: $(cat latex)"
grep -qF 'tiny & undefended & none & $' latex || fail "latex: $(cat latex)"
temper results --directory runs | head -n 1 | grep -q '^plan  arm' || fail text
same "$(temper results --directory runs --show failed --form csv)" "plan,arm,group,attack,world,seed,error,ended" "no failures"
expect 5 temper results --directory runs --arm nobody 2>/dev/null
for show in means cells failed answers steps; do
    expect 5 temper results --directory runs --show $show --arm nobody 2>stderr
    same "$(cat stderr)" "temper: cells: none is called so (--show cells without a filter lists all)" "$show of nobody"
done
expect 5 temper results --directory runs --scores nothing 2>/dev/null
expect 2 temper results --directory runs --json --form csv 2>/dev/null
expect 2 temper results --directory runs --show everything 2>/dev/null
# TensorBoard: a run per cell that trained, nothing for the model that was not attacked.
same "$(temper results --directory runs --group grid --tensorboard curves)" "8 runs" "runs"
same "$(find curves -name 'events.out.tfevents.*' | wc -l)" 8 "event files"
[ -s "curves/backdoor-align/lr=1e-4/world-1-seed-2/events.out.tfevents.0.temper" ] || fail "$(find curves)"
expect 10 temper results --directory runs --tensorboard curves 2>/dev/null
expect 5 temper results --directory runs --attack none --tensorboard none 2>/dev/null
# Two plans in one store have curves apart, and no name leads out of the directory.
sed -e 's/^name: .*/name: ../' -e 's/^  undefended:/  ..:/' plan.yaml >dots.yaml
temper run dots.yaml --directory runs --quiet >/dev/null
same "$(temper results --directory runs --group grid --tensorboard both)" "16 runs" "runs of two plans"
same "$(cd both && echo */*)" "-./-. -./backdoor-align tiny/backdoor-align tiny/undefended" "plans and arms"
