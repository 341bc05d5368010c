# An untrained model is as unsure as the size of its vocabulary says: about ln 272.
model="$TINY/model"
temper eval --model "$model" --data "$TINY/rows.jsonl"
temper eval --model "$model" --data "$TINY/rows.jsonl" --json >json
json_check <json
same "$(json_check rows <json)" 24 rows
loss=$(json_check loss <json)
awk "BEGIN { exit !($loss > 5.0 && $loss < 6.3) }" || fail "loss $loss"
same "$(temper eval --model "$model" --data "$TINY/rows.jsonl" --json --batch 3 --packed | json_check targets)" \
    "$(json_check targets <json)" targets
