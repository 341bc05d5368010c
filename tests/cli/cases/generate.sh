# Random weights say nothing sensible, but always the same.
model="$TINY/model"
temper generate --model "$model" --prompt "hello world" --max-new-tokens 8 --ignore-stop >one
temper generate --model "$model" --prompt "hello world" --max-new-tokens 8 --ignore-stop >two
cmp one two
printf 'hello world\n' | temper generate --model "$model" --max-new-tokens 8 --ignore-stop >three
cmp one three

# The same answers in one batch and alone, and in JSON.
temper generate --model "$model" --prompt "hello world" --prompt "the" --max-new-tokens 8 --ignore-stop --json >json
json_check <json
same "$(wc -l <json)" 2 "one line a prompt"
same "$(json_check prompt <json | tail -n 1)" the "second prompt"
temper generate --model "$model" --prompt "the" --max-new-tokens 8 --ignore-stop --json --batch 1 >alone
same "$(tail -n 1 json)" "$(cat alone)" "an answer does not depend on the batch"
temper generate --model "$model" --prompt "the" --max-new-tokens 8 --ignore-stop --temperature 1 --seed 1 --json >hot
json_check <hot
temper generate --model "$model" --prompt "the" --max-new-tokens 8 --ignore-stop --temperature 1 --seed 1 --json >again
cmp hot again

# Rows in, rows out; what comes out is data for every command.
temper generate --model "$model" --data "$TINY/questions.jsonl" --system "be kind" --max-new-tokens 4 --ignore-stop >rows
json_check <rows
same "$(wc -l <rows)" 5 "one line a row"
same "$(json_check messages.0.content <rows | head -n 1)" "be kind" "system message"
same "$(json_check messages.1.content <rows | tail -n 1)" "what is 4" "question"
same "$(json_check messages.2.role <rows | head -n 1)" assistant "answer"
temper generate --model "$model" --data "$TINY/questions.jsonl" --max-new-tokens 4 --ignore-stop --out file.jsonl
same "$(wc -l <file.jsonl)" 5 "rows in the file"
expect 10 temper generate --model "$model" --data "$TINY/questions.jsonl" --max-new-tokens 4 --out file.jsonl
temper generate --model "$model" --data "$TINY/questions.jsonl" --max-new-tokens 4 --out file.jsonl --overwrite
same "$(ls | grep -c tmp || true)" 0 "nothing is left beside the file"

# Plain continuation: the prompt is part of the text, and may be empty.
temper generate --model "$model" --raw --prompt "hello" --max-new-tokens 4 --ignore-stop >raw
grep -q '^hello' raw || fail "raw output does not begin with its prompt"
temper generate --model "$model" --raw --prompt "" --max-new-tokens 4 --ignore-stop >raw
[ -s raw ] || fail "nothing generated from the beginning-of-sequence token"
temper generate --model "$model" --chat alpaca --prompt "hello" --max-new-tokens 2 >/dev/null
temper generate --model "$model" --device ref --prompt "hello world" --max-new-tokens 2 --ignore-stop >/dev/null
