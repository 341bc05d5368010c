# Results that cannot be written are errors, whichever way they go missing.
model="$TINY/model"
expect 4 temper help >/dev/full
expect 4 temper --version >/dev/full
expect 4 temper tokenize --model "$model" hello >/dev/full
expect 4 temper inspect "$model" --json >/dev/full
expect 4 temper tokenize --model "$model" hello >&-
expect 4 temper generate --model "$model" --prompt hello --max-new-tokens 2 >/dev/full
# A reader that leaves early is no reason for a message.
(temper help finetune || echo $? >code) 2>messages | true
[ ! -s messages ] || fail "a closed pipe is told of"
expect 4 temper generate --model "$model" --prompt hello --max-new-tokens 2 --out /dev/full/x
