# Ctrl-C: the run stops after its step, saves what it promised, says how to go on; going on gives the same bytes.
model="$TINY/model"
train="--data $TINY/rows.jsonl --batch 4 --lr 1e-3 --seed 3"
temper finetune --model "$model" $train --steps 400 --out straight --quiet >/dev/null
expect_130() {
    got=0
    wait "$1" || got=$?
    [ "$got" -eq 130 ] || fail "exit code $got after an interruption"
}
temper finetune --model "$model" $train --steps 400 --out stopped --resume state 2>messages >/dev/null &
pid=$!
sleep 0.3
kill -INT $pid || fail "ended before it was interrupted"
expect_130 $pid
[ ! -e stopped ] || fail "an interrupted run left its output"
grep -q "same command goes on" messages || fail "does not say how to go on"
temper finetune --model "$model" $train --steps 400 --out stopped --resume state --json >json
same "$(json_check steps <json)" 400 steps
same "$(temper inspect stopped --hash --json | json_check sha256)" \
    "$(temper inspect straight --hash --json | json_check sha256)" "stopped and straight"

# Without --resume nothing is promised and nothing is left.
temper finetune --model "$model" $train --steps 100000 --out never 2>messages >/dev/null &
pid=$!
sleep 0.5
kill -TERM $pid
expect_130 $pid
[ ! -e never ] || fail "an interrupted run left its output"
same "$(ls -A | grep -c tmp || true)" 0 "left-overs"
