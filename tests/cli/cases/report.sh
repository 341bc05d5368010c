# temper report: a page that stands by itself, tables and pictures beside it, whole or not at all.
cat >plan.yaml <<'END'
name: small <one>
worlds: [1]
replicates: 2
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  none: {}
  grid: {harmful: forbidden-attacker, rows: 8, steps: 3, axes: {lr: [1e-4, 1e-3]}}
arms:
  undefended: {from: base, attacks: "none,grid"}
  backdoor-align: {from: base, during: {method: backdoor-align, refusals: refusals-defender, secret-length: 5}, attacks: grid}
END
expect 5 temper report plan.yaml --directory runs --out page 2>stderr
same "$(cat stderr)" "temper: runs: no cell of plan.yaml is done (temper run does cells)" "nothing to report"
[ ! -e page ] || fail "an empty report"
temper run plan.yaml --directory runs --csv scores.csv --quiet >/dev/null
same "$(temper report plan.yaml --directory runs --out page --quiet)" "page/report.html" "where it is"
grep -q '<h1>small &lt;one&gt;</h1>' page/report.html || fail "the name is not escaped"
for part in 'Before an attack' 'Against grid (2 attackers)' 'leak after the attack' 'Harm by harmful rows and learning rate' 'Without and with the secret' 'General ability (skills)' 'What it costs' 'a replicate has a seed of its own' '2 attackers, no attack, 2 replicates: 10 cells' 'difference from undefended' 'To repeat it' 'temper run plan.yaml --directory runs'; do
    grep -qF "$part" page/report.html || fail "no $part"
done
# Nothing is fetched: no address but the name of SVG's language.
grep -oE '(https?:)?//[a-z][a-z0-9.]*[a-z]' page/report.html | grep -v www.w3.org && fail "the page names an address"
grep -q '^arm,leak,leak_half,leak_n,' page/table-Before-an-attack.csv || fail "a table as CSV"
grep -q 'begin{tabular}' page/table-leak-after-the-attack.tex || fail "a table as LaTeX"
same "$(grep -c '[0-9a-f]\{64\} .*, lr=1e-[34], world 1, seed [12]$' page/report.html)" 8 "keys of attacked cells"
same "$(grep -c '[0-9a-f]\{64\} world 1: ' page/report.html)" "$((1 + $(ls runs/worlds/1-*/*.jsonl | wc -l)))" "hashes of data sets"

if gnuplot --version >/dev/null 2>&1; then
    for picture in heat harm-ability-grid harm-cost-grid loss; do
        [ -s page/$picture.svg ] && [ -s page/$picture.png ] && [ -s page/$picture.gp ] || fail "no picture $picture"
    done
    same "$(grep -c '<svg role="img"' page/report.html)" 4 "pictures in the page"
    grep -q 'rgba(var(--heat)' page/report.html || fail "no colours of the page in the heat map"
fi
expect 10 temper report plan.yaml --directory runs --out page 2>/dev/null
mkdir mine && echo letter >mine/letter
expect 10 temper report plan.yaml --directory runs --out mine --overwrite 2>stderr
grep -q 'holds no report' stderr && [ -e mine/letter ] || fail "a directory of somebody's: $(cat stderr)"
temper report plan.yaml --directory other --known scores.csv --out page --overwrite --json --quiet >where
same "$(json_check report <where)" "page/report.html" "json"
# Without gnuplot: a page without pictures.
mkdir path && ln -s "$(command -v temper)" path/temper
PATH=$PWD/path temper report plan.yaml --directory runs --out plain 2>stderr
grep -q 'no pictures: gnuplot: is not installed' stderr || fail "nothing about gnuplot: $(cat stderr)"
grep -q '<svg' plain/report.html && fail "a picture from nowhere"
grep -q 'it has no pictures' plain/report.html || fail "the page does not say so"
# Hidden states: where the plan keeps a model before a defence and one after, and no longer once they are gone.
if gnuplot --version >/dev/null 2>&1; then
    [ ! -e page/states.svg ] || fail "states of models that are not there"
    sed '/^  backdoor-align:/d' plan.yaml >kept.yaml
    echo '  sdd: {from: base, before: {method: sdd, harmful: forbidden-defender, benign: pool, steps: 1, prompts: 12}, attacks: grid}' >>kept.yaml
    temper run kept.yaml --directory kept --quiet >/dev/null
    temper report kept.yaml --directory kept --out states --quiet >/dev/null
    grep -q 'Hidden states of harmful and harmless prompts' states/report.html && [ -s states/states.png ] || fail "no states"
    temper gc kept.yaml --directory kept --finished >/dev/null
    temper report kept.yaml --directory kept --out gone --quiet >/dev/null
    [ ! -e gone/states.svg ] || fail "states of models that are gone"
fi
# Harm against cost begins with the model before an attack, from which the attackers that get less take nothing away.
awk -F, -v OFS=, 'NR > 1 && $2 == "\"undefended\"" { $7 = $4 == "\"none\"" ? .5 : $4 == "\"lr=1e-3\"" ? .75 : .25; $(NF - 1) = NR } 1' \
    scores.csv >harm.csv
temper report plan.yaml --directory harm --known harm.csv --out harms --quiet >/dev/null
same "$(sed -n '/^\$d0 <</,/^EOD/p' harms/harm-cost-grid.gp | sed '1d;$d' | cut -d' ' -f2 | tr '\n' ' ')" "0.5 0.5 0.75 " "a curve of harm and cost"
