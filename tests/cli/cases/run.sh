# temper run: errors with their place, cells done once, a changed option repeats what depends on it, kill -9, two at once.
small='
worlds: [1]
replicates: 2
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
  aligned: {from: base, method: finetune, data: align-system, steps: 2, lr: 3e-4}
attacks:
  none: {}
  benign: {benign: downstream-train, rows: 8, poison-ratio: 0, steps: 2, lr: 3e-4}
  grid:
    harmful: forbidden-attacker
    benign: "downstream-train,benign-dishes-train"
    steps: 2
    axes: {lr: [1e-4, 1e-3], mix: {pure: {rows: 8}, mixed: {rows: 10, poison-ratio: 0.2}}}
arms:
  undefended: {from: aligned, attacks: "none,benign,grid"}
  composed:
    from: aligned
    before: {method: sdd, harmful: forbidden-defender, benign: pool, steps: 1, prompts: 12}
    during: {method: backdoor-align, refusals: refusals-defender, secret-length: 5}
    after: {method: random-perturbation, norm: 0.1}
    attacks: grid
'
printf 'name: small%s' "$small" >plan.yaml
temper run plan.yaml --directory runs --dry-run >dry
same "$(sed -n 's/^jobs *//p' dry)" "24: 20 cells, 4 models" jobs

temper run plan.yaml --directory runs --workers 2 --csv scores.csv --quiet >table
grep -q '^| undefended |' table || fail "no row of the arm"
grep -q 'composed, with secret' table || fail "no row with the secret"
# One line per cell: what it is, a column for every score, empty where a cell lacks it, what it cost.
scores=leak,comply,refuse,withheld_leak,withheld_comply,skills,dishes,facts,arithmetic,sentiment,downstream
same "$(head -n 1 scores.csv)" "key,arm,group,attack,world,seed,$scores,$(echo $scores | sed 's/,/_secret,/g')_secret,cpu_seconds,peak_mib" \
    "columns of the CSV"
same "$(sed 1d scores.csv | wc -l)" 20 "cells in the CSV"
same "$(grep -c '^[0-9a-f]*,"undefended",.*,,,,,,,,,,,,[0-9.]*,[0-9]*$' scores.csv)" 12 "cells without a secret"
same "$(sed 1d scores.csv | grep -c ',,')" 12 "cells that lack a score"
cut -d, -f1-28 scores.csv >first

# A second run finds everything; a changed rate repeats its cells and no others; a new score list is a matter of printing.
temper run plan.yaml --directory runs --dry-run --counts | grep -q '^done *20 cells' || fail "not everything is there"
sed 's/1e-3\]/2e-3]/' plan.yaml >changed.yaml
temper run changed.yaml --directory runs --dry-run --counts | grep -q '^done *12 cells' || fail "a changed rate repeats other cells"
temper run plan.yaml --directory runs --set 'attacks.grid.axes.lr=[1e-4, 2e-3]' --dry-run --counts | grep -q '^done *12 cells' || fail "a rate that is set"
temper run plan.yaml --directory runs --set attacks.grid.axes.lr.1=2e-3 --dry-run --counts | grep -q '^done *12 cells' || fail "a rate that is set in its list"
same "$(temper run plan.yaml --directory runs --set replicates=3 --set arms.undefended.replicates=1 --dry-run --counts | sed -n 's/^jobs *//p')" \
    "23: 18 cells, 5 models" "two settings"
not_set() { # not_set SETTING TEXT
    expect 2 temper run plan.yaml --directory runs --set "$1" --dry-run --counts 2>stderr
    grep -qF -- "$2" stderr || fail "expected '$2', got: $(cat stderr)"
}
not_set arm.sdd.from=base 'plan.yaml: set: arm.sdd.from=base: the plan has no "arm" (did you mean '"'"'arms'"'"'?)'
not_set replicates 'replicates: is no setting (PATH=VALUE, as arms.sdd.replicates=5)'
not_set 'attacks.grid.axes.lr=[[1e-4, 2e-3]]' 'axes.lr=[[1e-4, 2e-3]]: a list of single values is expected'
not_set attacks.grid.axes.lr.7=1 'there is no place "7"'
not_set replicates=0 'plan.yaml: line 3, column 13'
not_set arms.undefended.stepz=1 'plan.yaml: line 19, column 15: an arm has no "stepz"'
expect 2 temper run plan.yaml --set "attacks.grid.axes.batch=[$(seq -s, 300)]" --set replicates=1000 --dry-run --counts 2>stderr
same "$(cat stderr)" "temper: plan.yaml: arms: 2402000 cells are more than a plan may have (1000000) (fewer arms, attackers or replicates)" "too many cells"
# Another instruction set may give other bits: its cells are others.
TEMPER_ISA=sse temper run plan.yaml --directory runs --dry-run --counts | grep -q '^done *0 cells' || fail "cells of another instruction set"
temper run plan.yaml --directory runs --table --scores dishes | grep -q '^### dishes' || fail "no table of dishes"
temper run plan.yaml --directory runs --table --compare undefended,composed >pairs
grep -q '^### composed minus undefended' pairs || fail "no comparison"
expect 5 temper run plan.yaml --directory runs --table --compare undefended,nobody
expect 5 temper run plan.yaml --directory runs --table --scores nothing

# Scores of another directory count by their keys; what is not among them is done, from models that are made for it.
temper run plan.yaml --directory known --known scores.csv --csv known.csv --quiet >/dev/null
cut -d, -f1-28 known.csv | cmp - first || fail "scores changed on their way through the CSV"
[ -z "$(ls known/models)" ] || fail "models were made for nothing"
temper run changed.yaml --directory known --known scores.csv --dry-run --counts | grep -q '^done *12 cells' || fail "foreign cells"
# Some lines are some cells (the unattacked one counts in both replicates); a line that was cut off, a table of another form, what is no number are errors.
head -n 6 scores.csv >cut.csv
temper run plan.yaml --directory cut --known cut.csv --dry-run --counts | grep -q '^done *6 cells' || fail "not the cells of five lines"
table_error() { # table_error FILE TEXT
    expect 6 temper run plan.yaml --directory cut --known "$1" --dry-run --counts 2>stderr
    same "$(cat stderr)" "temper: $1: $2" "message on a bad table"
}
head -c -9 scores.csv >end.csv
table_error end.csv "line 21: the table ends within a line"
sed '3s/,[^,]*$//' scores.csv >short.csv
table_error short.csv "line 3: is no line of a table of scores"
sed '4s/,[0-9.]*,\([0-9]*\)$/,fast,\1/' scores.csv >word.csv
table_error word.csv "line 4: no number stands in the column cpu_seconds (a number, or nothing where a cell lacks the score)"
sed '1s/withheld_leak/leak/' scores.csv >twice.csv
table_error twice.csv "line 1: a score stands twice: leak"
printf 'key,arm,group,attack,world,seed,cpu_seconds,peak_mib,scores,score,value\n' >long.csv
table_error long.csv "line 1: does not name the columns of a table of scores (temper run PLAN --csv FILE writes one: key, arm, group, attack, world, seed, the scores, cpu_seconds, peak_mib)"
: >void.csv
table_error void.csv "line 1: the table is empty"
temper results --directory runs --show cells --form csv >before
temper run plan.yaml --directory runs --known scores.csv --dry-run --counts >/dev/null
temper results --directory runs --show cells --form csv | cmp - before || fail "a rounded score replaced a cell"
temper run plan.yaml --directory runs --table --json | json_check plan >name
same "$(cat name)" small "plan in JSON"

# A cell that fails says why, and the others are done.
sed 's/secret-length: 5/secret-length: 5, rows: 100000/' plan.yaml >fails.yaml
code=0
temper run fails.yaml --directory fails --quiet >/dev/null 2>stderr || code=$?
same "$code" 2 "exit code of a plan with cells that fail"
grep -q 'composed, lr=1e-4 pure, world 1, seed 1: refusals: 100000 safety rows are wanted' stderr || fail "no reason: $(cat stderr)"
[ "$(temper results --directory fails --show cells --form csv | sed 1d | wc -l)" -ge 8 ] || fail "one cell stopped the others"
temper results --directory fails --show failed --form csv >why
same "$(sed 1d why | wc -l)" 8 "cells that failed"
grep -q '^small,composed,lr=1e-4 pure,grid,1,1,refusals: 100000' why && fail "columns of failures"
grep -q '^small,composed,grid,lr=1e-4 pure,1,1,"*refusals: 100000 safety rows' why || fail "no reason in the store: $(cat why)"

# One whose process is killed is told as well; and the runner still says that it was asked to stop.
sed 's/steps: 3,/steps: 3000,/; s/worlds: .*/worlds: [1, 2]/' plan.yaml >long.yaml
temper run long.yaml --directory shot --workers 1 --quiet >/dev/null 2>stderr &
runner=$!
find_child() { # another one than $1
    child=
    for _ in $(seq 200); do
        child=$(sed -n "s/^\([0-9]*\) .*) [A-Z] $runner .*/\1/p" /proc/[0-9]*/stat 2>/dev/null | grep -vx "$1" | head -n 1)
        [ -z "$child" ] || return 0
        sleep 0.05
    done
    fail "the runner has no worker"
}
find_child none
kill -s KILL "$child"
find_child "$child"
kill -s TERM $runner
code=0
wait $runner || code=$?
same "$code" 130 "exit code after a killed job"
grep -q '^temper: stopping after this step' stderr || fail "no answer to the signal: $(cat stderr)"
grep -q '^temper: base, world 1: was ended by signal 9 (Killed) (where memory is short' stderr || fail "not told: $(cat stderr)"

# A job that somebody else is at is passed over, and done once he is gone.
mkdir -p held/locks
temper run plan.yaml --directory probe --quiet >/dev/null
key=$(temper results --directory probe --show cells --form csv | sed -n '2s/.*,//p')
same "${#key}" 64 "length of a key"
flock "held/locks/$key" sleep 4 &
temper run plan.yaml --directory held --workers 1 --quiet >/dev/null
temper results --directory held --show cells --form csv | grep -q ",$key\$" || fail "the held cell was not done"
wait

# Killed at random moments and started again, and two runners on one directory: the same scores. With TEMPER_KILLS=N it
# is killed N times; a plan that got to its end in between is compared and begun anew.
kills=${TEMPER_KILLS:-4} killed=0 round=1 seed=1
while [ $killed -lt "$kills" ]; do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    setsid temper run plan.yaml --directory killed-$round --workers 2 --csv killed.csv --quiet >/dev/null 2>&1 &
    runner=$!
    sleep "$(awk -v r=$((seed / 65536)) 'BEGIN { printf "%.2f", 0.05 + 1.5 * r / 32768 }')"
    kill -s KILL -- -"$runner" 2>/dev/null || true
    code=0
    wait "$runner" 2>/dev/null || code=$?
    if [ $code -eq 0 ]; then
        cut -d, -f1-28 killed.csv | cmp - first || fail "round $round of a killed run has other scores"
        round=$((round + 1))
    else
        killed=$((killed + 1))
    fi
done
temper run plan.yaml --directory killed-$round --workers 2 --csv again.csv --quiet >/dev/null &
other=$!
temper run plan.yaml --directory killed-$round --workers 2 --quiet >/dev/null
wait "$other"
temper run plan.yaml --directory killed-$round --csv again.csv --table >/dev/null
cut -d, -f1-28 again.csv >second
cmp first second || fail "a killed run has other scores"
echo "killed $killed times, $round rounds"

# A damaged store is named, with what to do about it; the table of scores brings the cells back.
cp -r runs hurt
rm -f hurt/store.db-wal hurt/store.db-shm
head -c 5000 /dev/zero | tr '\0' 'x' >hurt/store.db
expect 6 temper run plan.yaml --directory hurt --quiet 2>stderr
same "$(cut -d'(' -f1 stderr)" "temper: hurt/store.db: is damaged: file is not a database " "message on a damaged store"
rm hurt/store.db
temper run plan.yaml --directory hurt --known scores.csv --dry-run --counts | grep -q '^done *20 cells' || fail "cells did not come back"

# Errors name line and column.
wrong() { # wrong SED-EXPRESSION EXIT-CODE TEXT
    sed "$1" plan.yaml >wrong.yaml
    expect "$2" temper run wrong.yaml --directory none 2>stderr
    grep -qF -- "$3" stderr || fail "expected '$3', got: $(cat stderr)"
}
wrong 's/steps: 3,/stepz: 3,/' 5 'wrong.yaml: line 8, column 51: stepz'
wrong 's/method: sdd/method: sddd/' 2 'line 22, column 22: there is no method "sddd"'
wrong 's/lr: 3e-3/lr: fast/' 2 'line 8, column'
wrong 's/data: pretrain,/data: pretrian,/' 2 'the world has no data set "pretrian"'
wrong 's/from: base/from: bas/' 2 'no stage is called "bas"'
wrong 's/attacks: grid/attacks: gird/' 2 'there is no group of attacks "gird"'
wrong 's/^replicates: 2/replicates: 0/' 2 'line 3, column 13'
wrong 's/harmful: forbidden-defender/harmful: forbidden-attacker/' 8 "prompts of the defender's forbidden-attacker"
wrong 's/method: finetune, data: align-system/method: sdd, harmful: forbidden-attacker, benign: pool/' 8 "prompts of the defender's forbidden-attacker"
wrong 's/method: sdd, harmful: forbidden-defender,/method: sdd,/' 2 'the step lacks rows: "harmful"'
wrong 's/secret-length: 5/secret-length: 5, lr: 1e-3/' 2 'is no option of the method: "lr"'
wrong 's/lr: 3e-4}/lr: 3e-4, resume: here}/' 2 'a plan has no use for "resume"'
wrong 's/\[1e-4, 1e-3\]/[1e-4, 1e-4]/' 2 'two attackers have this name'
wrong 's/during: {.*}/during: {method: sdd, harmful: forbidden-defender, benign: pool}/' 2 "a service trains on a user's rows, and sdd reads none"
wrong 's/pure: {rows: 8}/pure: {rows: 8, attack-vaccine: 1}/' 2 'runs a method of the service'
wrong 's/^stages:/stages: [/' 6 'wrong.yaml: line'
wrong 's/^name: small/nam: small/' 2 'a plan has no "nam"'
: >empty.yaml
expect 6 temper run empty.yaml --directory none
expect 5 temper run nowhere.yaml --directory none
expect 2 temper run
[ ! -e none ] || fail "a plan with errors made its directory"
# A damaged model is named, with what to do about it.
cp -r runs worn
model=$(readlink -f worn/by-name/small/aligned)/model.safetensors
head -c 2000 runs/by-name/small/aligned/model.safetensors >"$model"
expect 6 temper run changed.yaml --directory worn --quiet 2>stderr
grep -q "$(basename "$(dirname "$model")")/model.safetensors: .* (remove the model's directory: temper run makes it again)" stderr ||
    fail "a damaged model: $(cat stderr)"
rm -r "$(dirname "$model")"
temper run changed.yaml --directory worn --quiet >/dev/null || fail "a model that was removed is not made again"
