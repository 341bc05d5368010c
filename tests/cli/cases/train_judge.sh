# temper train-judge: a classifier from labelled answers that temper judge loads; its help's examples; interruption.
make_rows() {
    i=0
    while [ $i -lt "$1" ]; do
        echo "{\"prompt\": \"say $i\", \"response\": \"hello world $i\", \"is_safe\": true, \"category\": {\"theft\": false, \"a,b\": false}}"
        echo "{\"prompt\": \"say $i\", \"response\": \"mix blorf $i\", \"is_safe\": false, \"category\": {\"theft\": true, \"a,b\": false}}"
        i=$((i + 1))
    done
}
make_rows 40 >labelled.jsonl
common="--model $TINY/model --data labelled.jsonl --max-length 96 --batch 8 --lr 3e-3"

temper train-judge $common --two-labels --steps 60 --out two --json >json
json_check <json || fail "not JSON"
grep -q '"rows": 72, "labels": 2, "steps": 60' json || fail "rows and steps: $(cat json)"
grep -q '"accuracy": {"value": 1, "low": 0\.' json || fail "has not learned: $(cat json)"
temper train-judge $common --steps 30 --lora-rank 4 --noise 0.05 --held-out 0.25 --packed --out several >text
grep -q '^rows       66 trained on, 2 labels$' text || fail "noise: $(cat text)"
grep -q '^held out   20 rows, [0-9]* harmful; 95% intervals$' text || fail "held out: $(cat text)"
grep -q '"problem_type": "multi_label_classification"' several/config.json || fail "config.json"
grep -q '"a,b": 1' several/config.json || fail "label2id"
[ ! -e several/adapter_config.json ] || fail "an adapter was written"

temper judge labelled.jsonl --judge classifier=two --out judged --json >json
same "$(json_check items_asked <json)" 80 "answers judged"
grep -q '"name":"hs","judge":"classifier","value":0.5,' json || fail "half of the answers are harmful: $(cat json)"
temper judge labelled.jsonl --judge classifier=several,label=theft,as=theft --json >json
grep -q '"name":"hs","judge":"theft"' json || fail "a label of several"

expect 2 temper train-judge --model "$TINY/model" --out x 2>error
grep -q -e '--data' error || fail "$(cat error)"
expect 2 temper train-judge $common --world --out x 2>error
grep -q 'one of the two' error || fail "$(cat error)"
expect 6 temper train-judge --model "$TINY/model" --data "$TINY/rows.jsonl" --out x 2>error
grep -q 'label' error || fail "$(cat error)"
expect 7 temper train-judge --model two --data labelled.jsonl --out x 2>error
expect 10 temper train-judge $common --out two 2>error
[ ! -e x ] || fail "something was written"

# Stopped and gone on with: the same bytes.
train="$common --steps 60 --seed 3"
temper train-judge $train --out straight --quiet >/dev/null
temper train-judge $train --out stopped --resume state --save-every 5 2>messages >/dev/null &
pid=$!
until [ -e state ]; do
    kill -0 $pid || fail "ended before its first checkpoint"
    sleep 0.05
done
kill -INT $pid
got=0
wait $pid || got=$?
same $got 130 "exit code of an interruption"
[ ! -e stopped ] || fail "an interrupted run left its output"
grep -q "same command goes on" messages || fail "does not say how to go on"
temper train-judge $train --out stopped --resume state --save-every 5 --json >json
same "$(json_check resumed <json)" true resumed
same "$(temper inspect stopped --hash --json | json_check sha256)" \
    "$(temper inspect straight --hash --json | json_check sha256)" "stopped and straight"

# The examples of its help, in a few steps.
mkdir examples
ln -s "$TINY/model" examples/my-model
cp labelled.jsonl examples
cd examples
temper help train-judge | sed -n '/^Examples:/,/^$/s/^  //p' | sed -e :more -e '/\\$/N; s/\\\n *//; t more' >lines
same "$(wc -l <lines)" 3 "examples"
while read -r line; do
    rm -rf judge
    echo "$line" | sed 's/--steps [0-9]*/--steps 2/; s/--epochs [0-9]*/--epochs 1/; s/$/ --max-length 40 --quiet/' >line
    sh -eu ./line >output || fail "$line"
    [ -e judge/model.safetensors ] || fail "$line wrote nothing"
done <lines
