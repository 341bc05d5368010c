# What --json prints is as docs/schema says; LaTeX compiles where it can be; CSV as spreadsheets read it.
schema=$TEMPER_SOURCE/docs/schema
valid() { # valid SCHEMA FILE: JSON Lines
    json_check --schema "$schema/$1.json" <"$2" 2>why || fail "$1: $(cat why)"
}
# The check can fail: a wrong type, a member too many, one that is missing, an unknown keyword.
echo '{"report": 1}' >bad
expect 1 json_check --schema "$schema/report.json" <bad 2>/dev/null
echo '{"report": "a", "more": 1}' >bad
expect 1 json_check --schema "$schema/report.json" <bad 2>/dev/null
echo '{}' >bad
expect 1 json_check --schema "$schema/report.json" <bad 2>/dev/null
echo '{"enum": ["a", 2]}' >odd.json
echo '2' | json_check --schema odd.json >/dev/null
expect 1 json_check --schema odd.json <bad 2>/dev/null
echo '{"pattern": "a"}' >odd.json
echo '"a"' >bad
expect 1 json_check --schema odd.json <bad 2>/dev/null

cat >plan.yaml <<'END'
name: tiny, "quoted"
worlds: [1]
replicates: 2
model: {hidden: 16, layers: 2, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  none: {}
  benign: {benign: downstream-train, rows: 8, poison-ratio: 0, steps: 1}
  grid: {harmful: forbidden-attacker, rows: 8, steps: 2, axes: {lr: [1e-4, 1e-3]}}
arms:
  undefended_&_100%: {from: base, attacks: "none,benign,grid"}
  panacea: {from: base, during: {method: panacea, harmful: forbidden-defender, rho: 0.3}, attacks: "benign,grid"}
  broken: {from: base, during: {method: backdoor-align, refusals: refusals-defender, rows: 100000}, attacks: benign}
END
temper run plan.yaml --directory runs --quiet >/dev/null 2>&1 || true
temper run plan.yaml --directory runs --table --json --quiet >lines
valid run lines
for show in means cells failed answers steps; do
    temper results --directory runs --show $show --json >lines
    [ "$(wc -c <lines)" -gt 20 ] || fail "nothing to check: $show"
    valid results lines
done
temper report plan.yaml --directory runs --out page --json --quiet >lines
valid report lines
temper report plan.yaml --directory runs --out 'page "2"' --json --quiet >lines
valid report lines
temper results --directory runs --tensorboard events --json --quiet >lines
valid results lines
temper run plan.yaml --directory runs --dry-run --json >lines
valid dry-run lines
same "$(json_check cells <lines) $(json_check done <lines) $(json_check left.jobs <lines)" "16 14 2" "a dry run in JSON"
temper run plan.yaml --directory none --dry-run --counts --json >lines
valid dry-run lines
! grep -q left lines || fail "--counts says what is left"
temper gc plan.yaml --directory runs --dry-run --json >lines
valid gc lines
temper eval loss --model "$TINY/model" --data "$TINY/rows.jsonl" --out out --json --quiet >lines
valid eval lines
for file in out/*.json; do tr '\n' ' ' <"$file" >lines && echo >>lines && valid eval lines; done
temper eval --model "$TINY/model" --data "$TINY/rows.jsonl" --json --quiet >lines
valid eval lines
# Panacea's perturbation: shares of blocks, whose squares add up to 1 with what lies outside.
temper results --directory runs --arm panacea --show cells --seed 1 --attack 'lr=1e-4' --json >lines
awk -v a="$(json_check 0.epsilon_block_0 <lines)" -v b="$(json_check 0.epsilon_block_1 <lines)" -v o="$(json_check 0.epsilon_outside <lines)" \
    'BEGIN { s = a * a + b * b + o * o; exit !(s > .9999 && s < 1.0001) }' || fail "shares of epsilon"
if gnuplot --version >/dev/null 2>&1; then [ -s page/affinity.svg ] || fail "no picture of epsilon"; fi

# CSV: a header, the same number of fields in every line once what is quoted is taken out, numbers as programs write them.
for file in page/*.csv; do
    sed 's/"\([^"]\|""\)*"/q/g' "$file" | awk -F, 'NR == 1 { n = NF } NF != n { exit 1 }' || fail "$file: fields"
    grep -qE '(^|,)-?[0-9]{1,3}([ .,][0-9]{3})+ ' "$file" && fail "$file: separators"
done
temper results --directory runs --show cells --form csv | sed 1q | grep -q '^plan,arm,group' || fail "no header"
temper results --directory runs --show cells --form csv | grep -q '^"tiny, ""quoted"""' || fail "quotes"

# LaTeX: special characters in names, every table of the report.
grep -qF 'undefended\_\&\_100\%' page/table-Before-an-attack.tex || fail "LaTeX: special characters"
compiler=$(command -v pdflatex || command -v tectonic || true)
if [ -z "$compiler" ]; then
    echo "SKIPPED: neither pdflatex nor tectonic is installed; all but the compilation of LaTeX was checked"
    exit 77
fi
{
    printf '%s\n' '\documentclass{article}\usepackage{booktabs}\usepackage[utf8]{inputenc}\begin{document}'
    for table in page/*.tex; do printf '\\begin{table}\\input{%s}\\end{table}\\clearpage\n' "$table"; done
    printf '%s\n' '\end{document}'
} >all.tex
case $compiler in
*pdflatex) "$compiler" -interaction=nonstopmode -halt-on-error all.tex >log || fail "$(tail -20 log)" ;;
*) "$compiler" all.tex >log 2>&1 || fail "$(tail -20 log)" ;;
esac
[ -s all.pdf ] || fail "no pages"
