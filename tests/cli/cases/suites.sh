# temper eval SUITE...: several suites at one load, their files, going on after an interruption, and wrong inputs.
data="$TEMPER_SOURCE/tests/golden/mcq/data"
model="$TEMPER_SOURCE/tests/golden/mcq/model"
likelihood=mmlu,arc_easy,arc_challenge,hellaswag,openbookqa,piqa,winogrande,boolq,truthfulqa_mc1,truthfulqa_mc2,wikitext
temper eval "$likelihood" --model "$model" --data-dir "$data" --shots 0 --out out --json --quiet >lines
json_check <lines
same "$(wc -l <lines)" 11 "a line for each suite"
for file in out/*.json; do tr '\n' ' ' <"$file" | json_check items_asked >/dev/null; done
[ -z "$(find out -name '.*.partial')" ] || fail "a journal was left"
expect 10 temper eval boolq --model "$model" --data-dir "$data" --out out --quiet

# Tasks whose answers are written; rows of each in the layout of its repository.
mkdir -p tasks/sst2 tasks/agnews tasks/gsm8k tasks/samsum tasks/sql tasks/alpaca_eval
printf 'sentence\tlabel\na fine film\t1\na dull one\t0\n' >tasks/sst2/test.tsv
printf 'Shares fell again\tBusiness\nThe cup was won\tSports\n' >tasks/agnews/test.tsv
printf '{"question": "One and one?", "answer": "1 + 1 = 2\\n#### 2"}\n' >tasks/gsm8k/test.jsonl
printf '[{"id": "1", "summary": "Ann is late.", "dialogue": "Ann: late!\\nBo: ok"}]' >tasks/samsum/test200.json
printf '[{"question": "All names?", "context": "CREATE TABLE t (name TEXT)", "answer": "SELECT name FROM t"}]' \
    >tasks/sql/test.jsonl
printf '[{"instruction": "Name a colour."}, {"instruction": "Name a tree."}]' >tasks/alpaca_eval/alpaca_eval.json
temper eval sst2,agnews,gsm8k samsum,sql,alpaca_eval --model "$TINY/model" --data-dir tasks --max-new-tokens 4 \
    --out written --json --quiet >lines
json_check <lines
same "$(json_check items_asked <lines | tr '\n' ' ')" "2 2 1 1 1 2 " "rows"
tr '\n' ' ' <written/alpaca_eval.outputs.json | json_check 1.instruction | grep -qx 'Name a tree.' || fail "no outputs"
temper eval perplexity,loss --model "$TINY/model" --data perplexity="$TINY/rows.jsonl" --data loss="$TINY/rows.jsonl" \
    --json --quiet >/dev/null 2>err && fail "rows of messages are no texts"
grep -q "column 'text': is missing; the row has: prompt, completion" err || fail "the column is not named: $(cat err)"
same "$(temper eval loss --model "$TINY/model" --data "$TINY/rows.jsonl" --json --quiet | json_check numbers.0.value |
    cut -c1-8)" "$(temper eval --model "$TINY/model" --data "$TINY/rows.jsonl" --json | json_check loss | cut -c1-8)" loss

# Wrong inputs, each told in a line.
wrong() {
    wanted=$1 text=$2
    shift 2
    expect "$wanted" "$@" >/dev/null 2>err
    same "$(wc -l <err)" 1 "lines of error: $(cat err)"
    grep -q -- "$text" err || fail "no '$text' in: $(cat err)"
}
wrong 5 'did you mean hellaswag?' temper eval helaswag --model "$model"
wrong 2 'named twice' temper eval boolq,boolq --model "$model"
wrong 2 'needs data' temper eval boolq --model "$model"
wrong 2 'does not say which suite' temper eval boolq,piqa --model "$model" --data x
wrong 5 'there is no such data' temper eval boolq --model "$model" --data nowhere.jsonl
wrong 5 'looked for sst2' temper eval sst2 --model "$model" --data-dir "$data"
temper eval truthfulqa_mc1 --model "$model" --data-dir "$data" --shots 2 >/dev/null 2>err
grep -q 'takes no worked examples' err || fail "shots that do not count are not told"
wrong 2 'asks for no answers' temper eval boolq --model "$model" --data-dir "$data" --wrapper identity-shift
printf '{"passage": "p", "query": "q", "label": 1}\n' >renamed.jsonl
wrong 6 "column 'question': is missing; the row has: passage, query, label" temper eval boolq --model "$model" \
    --data renamed.jsonl
printf 'not json\n' >broken.jsonl
wrong 6 'line 1' temper eval boolq --model "$model" --data broken.jsonl
cp renamed.jsonl x.parquet
wrong 7 'JSON Lines' temper eval boolq --model "$model" --data x.parquet
printf '{"passage": "p", "question": "q", "label": 7}\n' >label.jsonl
wrong 6 'names none of the 2 choices' temper eval boolq --model "$model" --data label.jsonl
temper eval boolq --list | grep -q SuperGLUE || fail "no layout"
temper eval --list --json | json_check 0.name >/dev/null
