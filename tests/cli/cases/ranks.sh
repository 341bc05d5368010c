# Several processes: one of them speaks and writes, what goes wrong in one ends all, and without MPI nobody overwrites
# anybody. That they train what one process trains is tests/ranks'.
model="$TINY/model"
train="--data $TINY/rows.jsonl --batch 5 --lr 1e-3 --seed 3"
launch() { "$TEMPER_SOURCE/tests/ranks/launch" "$@"; }
# Without a launcher's MPI behind it, its environment alone: refused, and told once.
several="env OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK="
for rank in 0 1; do
    expect 7 $several$rank temper eval --model "$model" --data "$TINY/rows.jsonl" 2>told$rank >/dev/null
done
grep -q "eval: is not shared by several processes, and 2 were started" told0 || fail "does not say that eval is not shared"
[ ! -s told1 ] || fail "both ranks say so"
launch 2 true || { [ $? -eq 77 ] && exit 77; fail "mpirun does not work"; }

# One result, told once.
launch 2 temper finetune --model "$model" $train --steps 6 --out tuned --json >json 2>messages
json_check <json
same "$(grep -c steps json)" 1 results
same "$(grep -c '6/6 steps' messages)" 1 "lines of progress"
launch 3 temper finetune --model "$model" $train --steps 6 --out tuned3 --quiet >/dev/null
for out in tuned tuned3; do
    same "$(temper eval --model $out --data "$TINY/rows.jsonl" --json | json_check loss | cut -c 1-7)" \
        "$(temper finetune --model "$model" $train --steps 6 --out one --overwrite --quiet >/dev/null
        temper eval --model one --data "$TINY/rows.jsonl" --json | json_check loss | cut -c 1-7)" "loss of $out"
done
launch 2 temper finetune --model "$model" $train --steps 3 --lora-rank 4 --out adapter --quiet >/dev/null
[ -e adapter/adapter_config.json ] || fail "no adapter"
launch 2 temper attack harmful-sft --model "$model" --harmful "$TINY/harmful.jsonl" --steps 3 --batch 3 --out attacked --quiet >/dev/null
launch 2 temper defend sdd --model "$model" --harmful "$TINY/harmful.jsonl" --benign "$TINY/benign.jsonl" --steps 3 --batch 3 \
    --pairs pairs.jsonl --out defended --quiet >/dev/null
[ -s pairs.jsonl ] || fail "no pairs"
launch 2 temper finetune --model "$model" $train --steps 3 --out never --dry-run >dry
same "$(grep -c '^steps' dry)" 1 "dry runs told"

# Methods whose steps are no sums over rows say so; so do all commands that are not shared.
expect 7 launch 2 temper defend repnoise --model "$model" --harmful "$TINY/harmful.jsonl" --refusals "$TINY/harmful.jsonl" \
    --benign "$TINY/benign.jsonl" --allow-overlap all --out never 2>messages
same "$(grep -c 'temper: repnoise: its work cannot be divided' messages)" 1 "refusals of repnoise"
expect 7 launch 2 temper attack harmful-sft --model "$model" --harmful "$TINY/harmful.jsonl" --steps 3 --attack-vaccine 1 \
    --out never 2>messages
same "$(grep -c 'temper: what this method computes of a batch cannot be divided' messages)" 1 "refusals of vaccine"
expect 7 launch 2 temper finetune --model "$model" $train --steps 3 --lora-rank 2 --lora-dropout 0.1 --out never 2>messages
same "$(grep -c 'temper: dropout: its masks would not be those of one process' messages)" 1 "refusals of dropout"
expect 7 launch 2 temper inspect "$model" 2>messages
same "$(grep -c 'temper: inspect: is not shared' messages)" 1 "refusals of inspect"

# All fail alike: told once.
expect 5 launch 2 temper finetune --model nowhere $train --out never 2>messages
same "$(grep -c '^temper:' messages)" 1 "errors"
expect 2 launch 2 temper finetune --model "$model" $train --out never --steps x 2>messages
same "$(grep -c '^temper:' messages)" 1 "errors of usage"
expect 10 launch 2 temper finetune --model "$model" $train --steps 3 --out tuned 2>messages
# One rank fails: rank 0 tells it, whichever it was, and all end.
cat >by_rank <<'SH'
#!/bin/sh
# by_rank RANK WORD OTHER COMMAND...: the word @ becomes WORD on that rank, OTHER elsewhere
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}} wanted=$1 here=$2 there=$3
shift 3
[ "$rank" = "$wanted" ] && there=$here
for word; do
    shift
    [ "$word" = @ ] && word=$there
    set -- "$@" "$word"
done
exec "$@"
SH
chmod +x by_rank
for rank in 0 1; do
    expect 5 launch 2 ./by_rank $rank nowhere "$model" temper finetune --model @ $train --out never 2>messages
    same "$(grep -c '^temper:.*nowhere' messages)" 1 "errors of rank $rank"
done
grep -q '^temper: rank 1: nowhere' messages || fail "does not say which rank failed"
expect 2 launch 3 ./by_rank 2 x 3 temper finetune --model "$model" $train --steps @ --out never 2>messages
grep -q '^temper: rank 2: --steps' messages || fail "does not tell a wrong option of rank 2"
head -n 20 "$TINY/rows.jsonl" >fewer.jsonl
expect 8 launch 2 ./by_rank 1 fewer.jsonl "$TINY/rows.jsonl" temper finetune --model "$model" --data @ --steps 3 --out never 2>messages
grep -q '^temper: rank 1 has another model, data, options' messages || fail "does not notice that the data differ"
expect 8 launch 2 ./by_rank 1 2e-3 1e-3 temper finetune --model "$model" --data "$TINY/rows.jsonl" --steps 3 --lr @ --out never 2>messages

# Now with a run that lasts; the first checkpoint tells that it is under way.
begin() {
    out=$1
    shift
    rm -rf state pid.*
    "$TEMPER_SOURCE/tests/ranks/launch" 2 ./with_pid temper finetune --model "$model" $train "$@" --resume state \
        --save-every 5 --out "$out" 2>messages >/dev/null &
    launcher=$!
    until [ -e state ]; do
        kill -0 $launcher || { cat messages >&2; fail "ended before its first checkpoint"; }
        sleep 0.05
    done
}
ends() {
    got=0
    wait $launcher || got=$?
    [ "$got" -eq "$1" ] || [ "$1" = any -a "$got" -ne 0 ] || { cat messages >&2; fail "exit code $got, not $1"; }
    [ ! -e never ] || fail "a failed run left its output"
}
cat >with_pid <<'SH'
#!/bin/sh
echo $$ >"pid.${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}"
exec "$@"
SH
chmod +x with_pid
# The result cannot be written: rank 0 finds it out when all is done.
begin never/tuned --steps 200
touch never.file
mv never.file never
wait $launcher && fail "wrote to a place that is a file"
same "$(grep -c '^temper: never' messages)" 1 "errors of writing"
rm never
# One rank is asked to stop: all do, and another number of processes goes on.
begin never --steps 1000000
kill -INT "$(cat pid.1)"
ends 130
grep -q "same command goes on" messages || fail "does not say how to go on"
begin never --steps 1000000
kill -USR1 "$launcher" # mpirun passes it on
got=0
wait $launcher || got=$?
grep -q "stopped after step" messages || fail "mpirun's signal did not stop the run: $got"
begin stopped --steps 400
kill -INT "$(cat pid.1)"
ends 130
temper finetune --model "$model" $train --steps 400 --resume state --save-every 5 --out stopped --json 2>/dev/null >json
same "$(json_check resumed <json)" true resumed
same "$(ls -A | grep -c tmp || true)" 0 "left-overs"
# One rank is killed: nobody waits for it for ever.
begin never --steps 1000000
kill -KILL "$(cat pid.1)"
ends any
