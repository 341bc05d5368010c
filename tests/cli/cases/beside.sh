# What a method writes beside its result is not replaced unasked: refused before any work, replaced with --overwrite.
model="$TINY/model"
fast="--steps 1 --batch 2 --lr 1e-3 --quiet"
kept() { # OPTION PATH COMMAND...
    option=$1 path=$2
    shift 2
    expect 10 "$@" "$option" "$path" --out x >printed 2>message
    grep -q "^temper: $path: already exists" message || fail "$option: $(cat message)"
    same "$(wc -l <message)" 1 "lines of the message"
    [ ! -e x ] || fail "a refused run left its output"
}
printf 'my notes' >notes
mkdir full
printf 'my notes' >full/notes
panacea="temper defend panacea --model $model --data $TINY/rows.jsonl --harmful $TINY/harmful.jsonl --rho 0.1 $fast"
shift_id="temper attack identity-shift --model $model $fast"
sdd="temper defend sdd --model $model --harmful $TINY/harmful.jsonl --benign $TINY/benign.jsonl $fast"
kept --wrapper-out notes $shift_id
kept --affinity notes $panacea
kept --tuned full $panacea
kept --pairs notes $sdd
same "$(cat notes full/notes)" "my notesmy notes" "what was in the way"
$shift_id --wrapper-out notes --out shifted --overwrite >/dev/null
json_check prompt <notes >/dev/null
expect 10 $shift_id --wrapper-out notes --out again

# Every option of a method that names something to be written bears the mark by which these checks find it. A secret is
# never replaced, which the method itself sees to.
for name in $(temper methods | sed -n 's/^\(defend\|attack\)  *\([^ ]*\) .*/\1:\2/p'); do
    temper help "${name%:*}" "${name#*:}" | sed '/^Input:/,/^$/d; /^Result:/,/^$/d' >options
    if grep -E -A1 '^  --[a-z-]+ (FILE|DIR)( |$)' options | grep -v -- --secret-out | grep -E ' (also )?(write|save) '; then
        fail "$name: not marked as written"
    fi
done
