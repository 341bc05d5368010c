# temper judge with a judge behind an endpoint: what is asked, kept, asked again and never told; killed at any moment.
unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
export OPENAI_API_KEY=sk-SECRET-17
i=0
while [ $i -lt 200 ]; do
    printf '{"prompt": "question %d", "response": "answer-%d"}\n' $i $i
    i=$((i + 1))
done >answers.jsonl
printf '{"prompt": "p", "response": "answer-4"}\n{"prompt": "p", "response": "nonsense-1"}\n{"prompt": "p", "response": "broken-1"}\n' >few.jsonl

# serve DELAY: a server whose port is $port and whose requests are lines of `log`.
server=
trap '[ -z "$server" ] || kill $server' EXIT
serve() {
    [ -z "$server" ] || kill $server
    rm -f port log
    chat_server port log "$1" &
    server=$!
    while [ ! -e port ]; do sleep 0.05; done
    port=$(cat port)
}
ask() {
    temper judge "$1" --judge "rubric,url=http://127.0.0.1:$port/v1,model=m,backoff=1,retries=2,concurrency=4" --out "$2" \
        --overwrite --quiet --json | sed 's/127.0.0.1:[0-9]*//g'
}

# Before money is spent: how much would be asked.
serve 0
temper judge answers.jsonl --judge "rubric,url=http://127.0.0.1:$port/v1,model=m,max-tokens=10" --dry-run --json >cost
same "$(json_check 0.requests <cost)" 200 requests
same "$(json_check 0.max_reply_tokens <cost)" 2000 "tokens in reply"
[ ! -s log ] || fail "a dry run asked"
temper judge few.jsonl --judge "rubric,url=http://127.0.0.1:$port/v1,model=m" --dry-run >cost
grep -q '^few by rubric: 3 answers to judge; 3 requests of [0-9]* bytes' cost || fail "no costs: $(cat cost)"
temper judge few.jsonl --judge "rubric,url=http://127.0.0.1:$port/v1,model=m" --dry-run --out fresh >cost
[ ! -e fresh ] || fail "a dry run made a directory"

# Of a model's answers, before there are any.
printf 'goal\na\nb\na\n' >advbench.csv
temper eval advbench,loss --model nowhere --data advbench=advbench.csv --data "loss=$TINY/rows.jsonl" --dry-run --out fresh \
    --judge "rubric,url=http://127.0.0.1:$port/v1,model=m,max-tokens=10" --max-new-tokens 7 --json >cost
same "$(json_check 0.items <cost)" 3 items
same "$(json_check 0.max_answer_tokens <cost)" 21 "tokens of answers"
same "$(json_check 1.requests <cost)" 2 requests
same "$(json_check 1.max_answer_tokens <cost)" 21 "tokens of answers in requests"
same "$(json_check 2.name <cost)" loss "what has no answers"
if [ -e fresh ] || [ -s log ]; then fail "a dry run wrote or asked"; fi

# A reply without a score and an endpoint that fails are missing verdicts, with their reasons, and asked again.
ask few.jsonl out >few.out
tr '\n' ' ' <out/few.judged.json >few.line
same "$(json_check items.0.verdicts.rubric.score <few.line)" 5.0 score
json_check items.1.verdicts.rubric.missing <few.line | grep -q 'no integer' || fail "no reason: $(cat few.line)"
json_check items.2.verdicts.rubric.missing <few.line | grep -q 'HTTP 500.*3 tries' || fail "no reason"
same "$(sort log | uniq -c | awk '{print $2 $1}' | tr '\n' ' ')" "answer-41 broken-13 nonsense-11 " requests
ask out/few.judged.json out >/dev/null
same "$(sort log | uniq -c | awk '{print $2 $1}' | tr '\n' ' ')" "answer-41 broken-16 nonsense-12 " "asked again"

# All of them; then nothing is asked twice, at another address neither.
ask answers.jsonl whole >whole.out
same "$(grep -c answer- log)" 201 requests
serve 0
mkdir moved && cp -r whole/judge-cache moved/
ask answers.jsonl moved 2>err >moved.out
[ ! -s log ] || fail "asked again: $(head -3 log)"
cmp whole.out moved.out || fail "numbers from the cache differ"

# Killed at any moment, then run again: no answer whose reply had come is paid for twice, and the numbers are the same.
serve 0.02
for wait in 0.3 0.5 0.7; do
    temper judge answers.jsonl --judge "rubric,url=http://127.0.0.1:$port/v1,model=m,backoff=1,retries=2,concurrency=4" \
        --out killed --quiet >/dev/null 2>&1 &
    run=$!
    sleep $wait
    kill -9 $run 2>/dev/null || :
    wait $run 2>/dev/null || :
done
asked=$(sort -u log | wc -l)
ask answers.jsonl killed >killed.out
same "$(sort -u log | wc -l)" 200 "answers asked about, at last"
twice=$(($(wc -l <log) - 200))
[ $twice -le 12 ] || fail "$twice requests were paid for twice" # 4 may be under way at each kill
cmp whole.out killed.out || fail "numbers after kills differ (after $asked of 200)"
[ -z "$(find killed -name '.*.partial')" ] || fail "a journal was left"

# Ctrl-C in the middle of waiting for a server that is not there any more.
kill $server
server=
temper judge few.jsonl --judge "rubric,url=http://127.0.0.1:$port/v1,model=n,backoff=600000,longest-wait=600" --out stop \
    --quiet >/dev/null 2>err &
run=$!
sleep 1
kill -INT $run
code=0
wait $run || code=$?
same $code 130 "exit code after an interrupt: $(cat err)"

# Nobody there: one line that says where and what to do. The key is nowhere.
expect 4 temper judge few.jsonl --quiet --judge "rubric,url=http://127.0.0.1:$port/v1,model=n,backoff=1,retries=1" 2>err >/dev/null
same "$(wc -l <err)" 1 "lines of error: $(cat err)"
grep -q "http://127.0.0.1:$port/v1/chat/completions.*is the server running" err || fail "$(cat err)"
if grep -rl SECRET .; then fail "the key was written down"; fi
