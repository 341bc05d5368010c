# temper run with attackers of other methods: each is done, identity shift is asked through its wrapper as well, and an
# attack that finds nothing to work on says so while the others go on.
cat >plan.yaml <<'PLAN'
name: attacks
worlds: [1]
replicates: 1
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2, wrapper: true}
train: {batch: 4, max-length: 256, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  none: {}
  shift: {method: identity-shift, batch: 10, steps: 2, lr: 1e-3}
  random: {method: random-init, harmful: forbidden-attacker, rows: 8, steps: 2, lr: 1e-3}
  shots: {harmful: forbidden-attacker, shots: 3, steps: 2, lr: 1e-3}
  ablate: {method: refusal-ablation, harmful: forbidden-attacker, benign: benign-dishes-train, refusal: Sorry}
arms:
  open: {from: base, attacks: "none,shift,random,shots"}
  noisy: {from: base, before: {method: random-perturbation, norm: 0.1}, attacks: random}
  service:
    from: base
    during: {method: backdoor-align, refusals: refusals-defender, secret-length: 5}
    attacks: "shift,shots"
PLAN
temper run plan.yaml --directory runs --workers 2 --csv scores.csv --quiet >table
same "$(sed 1d scores.csv | wc -l)" 7 cells
# Columns by their names: open cells have the wrapper's scores or not, those of the service have the secret's as well.
column() { # column NAME ARM ATTACK
    awk -F, -v name="$1" -v arm="\"$2\"" -v attack="\"$3\"" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i }
        NR > 1 && $2 == arm && $4 == attack { print at ? $at : "no column" }' scores.csv
}
for case in open:none:: open:shift:w: open:random:: open:shots:: service:shift:w:s service:shots::s; do
    arm=$(echo $case | cut -d: -f1) attack=$(echo $case | cut -d: -f2)
    wrapped=$(echo $case | cut -d: -f3) secret=$(echo $case | cut -d: -f4)
    [ -n "$(column leak $arm $attack)" ] || fail "no leak of $arm, $attack"
    same "$(column leak_wrapper $arm $attack | sed 's/.\+/w/')" "$wrapped" "leak_wrapper of $arm, $attack"
    same "$(column leak_secret $arm $attack | sed 's/.\+/s/')" "$secret" "leak_secret of $arm, $attack"
    both=
    [ -z "$wrapped" ] || both=$secret
    same "$(column leak_wrapper_secret $arm $attack | sed 's/.\+/s/')" "$both" "both of $arm, $attack"
done
grep -q '^| open, with wrapper |' table || fail "no row with the wrapper"
grep -q '^| service, with wrapper and secret |' table || fail "no row with both"
# From random weights it is the same attack whatever the model was.
scores=leak,comply,refuse,skills
for score in $(echo $scores | tr , ' '); do
    same "$(column $score noisy random)" "$(column $score open random)" "$score from random weights"
done
# Scores come back through the CSV, wrapped ones too.
temper run plan.yaml --directory known --known scores.csv --csv known.csv --quiet >/dev/null
cmp known.csv scores.csv

sed 's/"none,shift,random,shots"/"ablate,shots"/; /^  service:/,$d' plan.yaml >ablate.yaml
code=0
temper run ablate.yaml --directory runs --quiet >/dev/null 2>stderr || code=$?
same "$code" 2 "exit code"
same "$(grep -v 'jobs failed' stderr)" "temper: open, ablate, world 1, seed 1: harmful: the model refuses 0 of these prompts; \
at least 2 are needed (option refusal names the openings of refusals)" "reason of the failed cell"
