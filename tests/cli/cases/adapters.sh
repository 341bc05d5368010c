# Several adapters with weights: generate, eval, inspect, merge; what does not fit is one line.
model="$TINY/model"
train="--data $TINY/rows.jsonl --steps 4 --batch 4 --lr 2e-2 --quiet"
temper finetune --model "$model" $train --lora-rank 3 --lora-targets all-linear --out one >/dev/null
temper finetune --model "$model" $train --lora-rank 2 --seed 5 --out two >/dev/null
temper finetune --model "$model" $train --out tuned >/dev/null

loss() {
    temper eval "$@" --data "$TINY/rows.jsonl" --json | json_check loss
}
near() {
    awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d < 1e-5 * (a < 0 ? -a : a)) }' || fail "$1 and $2: $3"
}
loss --model "$model" >plain
loss --model "$model" --adapter one >with-one
loss --model "$model" --adapter one --adapter two=0.5 >with-both
[ "$(cat plain)" != "$(cat with-one)" ] || fail "the adapter does nothing"
[ "$(cat with-one)" != "$(cat with-both)" ] || fail "the second adapter does nothing"
same "$(loss --model "$model" --adapter one=0)" "$(cat plain)" "weight 0"
near "$(loss --model "$model" --adapter one=0.5 --adapter one=0.5)" "$(cat with-one)" "two halves"

temper merge --model "$model" --adapter one --adapter two=0.5 --out mixed >said
grep -q 'two, times 0.5' said || fail "merge does not say what it merged"
near "$(loss --model mixed)" "$(cat with-both)" "merged and attached"
same "$(temper inspect mixed --json | json_check adapters)" "[]" "adapters after merging"
temper inspect mixed | grep -q '2. sft (fine-tuning' || fail "the merged model forgot what its adapters were made with"
temper merge --model "$model" --adapter one --out mixed --overwrite --save-dtype bf16 --json >json
json_check <json
same "$(temper inspect mixed --json | json_check dtype)" bf16 dtype
temper inspect --model "$model" --adapter one --adapter two=0.5 --json >both
same "$(json_check adapters.0.directory <both) $(json_check adapters.1.directory <both)" "one two" "adapters"
same "$(json_check adapters.1.weight <both)" 0.5 "an adapter's weight"
temper inspect --model "$model" --adapter one --adapter two=0.5 >said
grep -q '^adapters *one, times 1$' said && grep -q '^ *two, times 0.5$' said || fail "not every adapter is shown: $(cat said)"
temper generate --model "$model" --adapter one --adapter two=-1 --prompt hello --max-new-tokens 3 >/dev/null
temper finetune --model "$model" --adapter one --adapter two=0.5 $train --out on-both >/dev/null
cp -r one one=2
same "$(loss --model "$model" --adapter one=2)" "$(cat with-one)" "a directory with an equals sign in its name"

one_line() {
    code=$1 text=$2
    shift 2
    expect "$code" "$@" 2>err
    [ "$(wc -l <err)" -eq 1 ] || fail "not one line: $(cat err)"
    grep -qF -- "$text" err || fail "no '$text' in: $(cat err)"
}
one_line 8 "this model needs" temper merge --model "$TINY/other" --adapter one --out x
one_line 2 "is no weight" temper generate --model "$model" --adapter one --adapter two=nan --prompt x
one_line 5 "nowhere" temper merge --model "$model" --adapter nowhere --out x
one_line 2 "--adapter" temper merge --model "$model" --out x
one_line 10 "mixed" temper merge --model "$model" --adapter one --out mixed
one_line 2 "give one" temper finetune --model "$model" --adapter one --adapter two --continue-adapter $train --out x
one_line 2 "leave its weight out" temper finetune --model "$model" --adapter one=0.5 --continue-adapter $train --out x
sed 's/"use_dora": false/"use_dora": true/' one/adapter_config.json >dora.json
cp dora.json two/adapter_config.json
one_line 7 "use_dora" temper generate --model "$model" --adapter two --prompt x
[ ! -e x ] || fail "a failed run left its output"
