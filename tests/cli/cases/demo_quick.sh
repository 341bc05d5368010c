# The demo end to end in its small form; its second run takes all from the cache; its models are models.
temper demo --quick --directory d --json >json
json_check <json
for i in 0 1 2 3 4; do
    same "$(json_check rows.$i.cached <json)" false "cached in the first run"
    directory=$(json_check rows.$i.directory <json)
    temper inspect "$directory" >/dev/null
done
temper inspect "$(json_check rows.4.directory <json)" >told
for stage in "1. finetune (alignment" "2. finetune (alignment" "3. sdd (defence" "4. harmful-sft (attack"; do
    grep -qF "$stage" told || fail "no stage $stage in the history: $(cat told)"
done
temper generate --model "$(json_check rows.2.directory <json)" --data d/world/forbidden-test.jsonl --quiet \
    --max-new-tokens 4 >answers
json_check <answers
temper demo --quick --directory d >table
same "$(grep -c ' \*$' table)" 5 "cached rows in the second run"
grep -q "temper generate --model" table || fail "no command to try"
grep "  temper generate --model" table >try
sh ./try >/dev/null
mv d "d's own"
ln -s "$(command -v temper)" "my temper"
"./my temper" demo --quick --directory "d's own" --quiet | grep "my temper' generate --model" >try
sh ./try >/dev/null
mv "d's own" d
temper demo --quick --directory d --json >second
for i in 0 1 2 3 4; do
    for field in leak comply refuse skills downstream seconds; do
        same "$(json_check rows.$i.$field <second)" "$(json_check rows.$i.$field <json)" "$field of row $i"
    done
done
