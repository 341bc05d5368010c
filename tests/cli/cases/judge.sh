# temper eval with judges and temper judge: harm suites, files of answers, going on, and wrong inputs.
harm="$TEMPER_SOURCE/tests/golden/harm"
temper judge --list >list
grep -q '^keywords: ' list || fail "no keywords"
grep -q "backdooralign 29 $(sha256sum "$TEMPER_SOURCE/data/keywords/backdooralign.txt" | cut -d' ' -f1)" list ||
    fail "the list's hash is not its file's"
same "$(temper judge --list --json | json_check keyword_lists.0.strings)" 29 strings
temper judge --list --json | json_check judges.0.numbers.0 | grep -qx asr || fail "no numbers"

# Suites of prompts are judged by keywords where no judge is named; the result says by which list and template.
temper eval beavertails,harmbench,hex_phi,self_instruct --model "$TINY/model" --data beavertails="$harm/beavertails.jsonl" \
    --data harmbench="$harm/harmbench.csv" --data hex_phi="$harm/hex_phi" \
    --data self_instruct="$harm/self_instruct.jsonl" --max-new-tokens 4 --out out --json --quiet >lines
same "$(json_check items_asked <lines | tr '\n' ' ')" "2 2 3 2 " items
same "$(json_check judges.0.name <lines | sort -u)" keywords "the usual judge"
same "$(json_check judges.0.missing <lines | tr '\n' ' ')" "0 0 0 0 " missing
same "$(json_check judges.0.sha256 <lines | sort -u | wc -l)" 1 "one hash"
same "$(json_check template.name <lines | tr '\n' ' ')" "alpaca template template alpaca " templates
json_check template.sha256 <lines | grep -c '^[0-9a-f]\{64\}$' | grep -qx 4 || fail "no hash of the template"
for name in coherent empty asr asr+ refusal missing; do
    grep harmbench lines | grep -q "\"name\":\"$name\"" || fail "harmbench has no $name"
done
grep self_instruct lines | grep -q '"name":"over_refusal"' || fail "no over_refusal"
grep self_instruct lines | grep -q '"name":"asr' && fail "asr of prompts that should be answered"
same "$(tr '\n' ' ' <out/self_instruct.outputs.json | json_check 1.instruction | tr '\n' ' ')" "Shorten it. A long day " \
    "instruction and input for another judge"
tr '\n' ' ' <out/harmbench.json | json_check items.1.subject | grep -q '^Say how' || fail "no subject"
tr '\n' ' ' <out/beavertails.json | json_check items.1.groups.1 | grep -qx noise || fail "no groups"
[ -z "$(find out -name '.*.partial')" ] || fail "a journal was left"

# Several judges, any suite of answers; the same answers judged again by themselves give the same numbers.
printf 'the\r\n\nof\n' >list.txt
temper eval world,advbench --judge keywords --judge keywords=list.txt,as=mine --model "$TINY/model" --limit 3 \
    --data advbench="$harm/advbench.csv" --max-new-tokens 4 --out two --quiet >table
grep -q '^  mine  *asr ' table || fail "no second judge: $(cat table)"
temper judge two/world.json --judge keywords --judge keywords=list.txt,as=mine --out two --quiet >again
for name in asr refusal over_refusal missing; do
    same "$(grep "  $name  " again | head -1)" "$(grep "  $name  " table | head -1)" "$name judged again"
done
expect 10 temper judge two/world.json --out two --quiet
temper judge two/world.judged.json two/advbench.json --judge keywords=list.txt,as=x --out two --overwrite --quiet 2>err >/dev/null
temper judge two/world.judged.json --judge keywords=list.txt --json 2>err >/dev/null
grep -q 'verdicts of keywords are there already' err || fail "verdicts are not taken over: $(cat err)"

# Answers of another tool.
printf '{"behavior": "b", "generation": "I cannot"}\n{"behavior": "c", "generation": ""}\n' >generations.jsonl
printf 'Behavior,ask,reply\nb,p,"Sure, ""so"""\n' >table.csv
same "$(temper judge generations.jsonl --json --quiet | json_check numbers.2.value)" 0.5 asr
same "$(temper judge table.csv --prompt-column ask --answer-column reply --json --quiet | json_check data.layout)" \
    "ask, reply" layout

# Wrong inputs, each told in a line.
wrong() {
    wanted=$1 text=$2
    shift 2
    expect "$wanted" "$@" >/dev/null 2>err
    same "$(wc -l <err)" 1 "lines of error: $(cat err)"
    grep -q -- "$text" err || fail "no '$text' in: $(cat err)"
}
wrong 2 'name a file of answers' temper judge
wrong 5 'nowhere.jsonl' temper judge nowhere.jsonl
wrong 6 'table.csv: row 1: no column that holds the answer' temper judge table.csv
wrong 6 "row 1, column 'said': is missing; the row has: Behavior, ask, reply" temper judge table.csv --answer-column said
wrong 6 'items\[0\].answer' temper judge "$(printf '{"suite":"x","items":[{}]}' >bad.json && echo bad.json)"
wrong 5 "did you mean 'keywords'" temper judge table.csv --answer-column reply --judge keyword
wrong 5 'threshold' temper judge table.csv --answer-column reply --judge keywords,threshold=1
wrong 5 'no built-in list and no file' temper judge table.csv --answer-column reply --judge keywords=advbench
wrong 6 'holds no keyword' temper judge table.csv --answer-column reply --judge keywords=/dev/null
wrong 2 'two judges are called keywords' temper judge generations.jsonl --judge keywords --judge keywords
wrong 2 'two files are called generations' temper judge generations.jsonl ./generations.jsonl
wrong 2 'has answers to judge' temper eval perplexity --judge keywords --model "$TINY/model" --data list.txt
wrong 2 'goes with a suite' temper eval --judge keywords --model "$TINY/model" --world
wrong 5 'there is no judge' temper eval advbench --judge gpt --model nowhere --data "$harm/advbench.csv"
wrong 6 "column 'goal': is missing; the row has: prompt" temper eval advbench --model "$TINY/model" \
    --data "$(printf 'prompt\nx\n' >renamed.csv && echo renamed.csv)"
