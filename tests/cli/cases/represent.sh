# temper represent: models side by side, an adapter beside its model, the built-in world, what is written, wrong inputs.
model="$TEMPER_SOURCE/tests/golden/mcq/model"
after="$TEMPER_SOURCE/tests/golden/represent/after"
cp -r "$model" before
cp -r "$after" after
cp before/tokenizer* after/
for i in 0 1 2 3 4 5 6 7 8 9; do
    printf '{"prompt": "Spoil the %s ale", "completion": "pour %s"}\n' "$i$i" "$i" >>bad.jsonl
    printf 'Brew the %s ale\n' "$i$i" >>good.txt
done
ask="--harmful bad.jsonl --harmless good.txt --chat plain --quiet"

temper represent --model before --compare changed=after $ask --out states >printed
grep -q '^changed  *2 ' printed || fail "no line for the second model: $(cat printed)"
same "$(wc -l <states/layers.csv)" 7 "layers"
same "$(wc -l <states/points.csv)" 121 "points"
tr '\n' ' ' <states/representation.json | json_check models.1.name >name
same "$(cat name)" changed "the second model's name"
if command -v gnuplot >/dev/null; then
    for picture in components probe; do
        grep -q '</svg>' states/$picture.svg || fail "no $picture.svg"
        same "$(head -c 4 states/$picture.png | tail -c 3)" PNG "$picture.png"
    done
fi
temper represent --model before --compare changed=after $ask --threads 1 --out alone >/dev/null
diff -r states alone || fail "threads change bytes"
temper represent --model before --compare changed=after $ask --seed 1 --json >other
json_check <other
same "$(wc -l <other)" 1 "lines of JSON"
temper represent --model before $ask --layers 2 --position prompt --components 3 --fit union --json >one
same "$(json_check models.0.layers.0.layer <one)" 2 "the layer"

# An adapter that changes nothing yet, beside its model; the world's own prompts on the world's tokenizer.
temper finetune --model "$TINY/model" --data "$TINY/rows.jsonl" --steps 1 --batch 2 --lr 1e-9 --lora-rank 2 --out lora \
    --quiet >/dev/null
temper represent --model "$TINY/model" --compare lora --world --limit 8 --max-length 4096 --quiet --json >pair
same "$(json_check models.1.name <pair)" lora "an adapter is put on --model"
same "$(json_check models.1.layers.1.probe.accuracy <pair)" "$(json_check models.0.layers.1.probe.accuracy <pair)" probe

wrong() {
    wanted=$1 text=$2
    shift 2
    expect "$wanted" "$@" >printed 2>err
    same "$(wc -l <err)" 1 "lines of error: $(cat err)"
    grep -q -- "$text" err || fail "no '$text' in: $(cat err)"
    [ ! -s printed ] || fail "a result in spite of: $(cat err)"
}
wrong 2 'give both files of prompts' temper represent --model before --harmful bad.jsonl
wrong 2 'give both files of prompts' temper represent --model before $ask --world
wrong 2 '--model' temper represent $ask
wrong 2 'two models have this name' temper represent --model before --compare before $ask
wrong 2 'two models have this name' temper represent --model before --compare x=y --compare x=z $ask # before any is read
wrong 10 'already exists' temper represent --model before $ask --out states
mkdir mine
echo kept >mine/file
wrong 10 'holds no representation.json' temper represent --model before $ask --out mine --overwrite
same "$(cat mine/file)" kept "somebody's directory"
wrong 8 'are the same to the model' temper represent --model before --harmful good.txt --harmless good.txt --chat plain \
    --quiet
head -3 good.txt >few.txt
wrong 2 '3 different harmful rows can be used; the probe needs 8' temper represent --model before --harmful few.txt \
    --harmless good.txt --quiet
wrong 2 'has no answer' temper represent --model before $ask --position answer
wrong 8 'has width' temper represent --model before --compare "$TINY/model" $ask
wrong 2 'layers' temper represent --model before $ask --layers 0-3
wrong 2 'at least 2\|between 2\|2 to 64' temper represent --model before $ask --components 1
