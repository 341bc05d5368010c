# Ctrl-C: the run stops after its step, saves what it promised, says how to go on; going on gives the same bytes.
model="$TINY/model"
train="--data $TINY/rows.jsonl --batch 4 --lr 1e-3 --seed 3"
interrupted() {
    got=0
    wait "$1" || got=$?
    [ "$got" -eq 130 ] || fail "exit code $got after an interruption"
}
temper finetune --model "$model" $train --steps 200 --out straight --quiet >/dev/null

# The first checkpoint tells that training is under way.
temper finetune --model "$model" $train --steps 200 --out stopped --resume state --save-every 5 2>messages >/dev/null &
pid=$!
until [ -e state ]; do
    kill -0 $pid || fail "ended before its first checkpoint"
    sleep 0.05
done
kill -INT $pid
interrupted $pid
[ ! -e stopped ] || fail "an interrupted run left its output"
grep -q "same command goes on" messages || fail "does not say how to go on"
temper finetune --model "$model" $train --steps 200 --out stopped --resume state --save-every 5 --json >json
same "$(json_check resumed <json)" true resumed
same "$(temper inspect stopped --hash --json | json_check sha256)" \
    "$(temper inspect straight --hash --json | json_check sha256)" "stopped and straight"

# Without --resume nothing is promised and nothing is left. The process catches signals once SIGTERM, bit 14 of the
# mask, is set.
temper finetune --model "$model" $train --steps 1000000 --out never 2>messages >/dev/null &
pid=$!
until grep -q '^SigCgt:.*[4567c-f]...$' /proc/$pid/status; do sleep 0.05; done
kill -TERM $pid
interrupted $pid
[ ! -e never ] || fail "an interrupted run left its output"
grep -q "Nothing was written" messages || fail "does not say that nothing was written"
same "$(ls -A | grep -c tmp || true)" 0 "left-overs"
