# Results on standard output, everything else on standard error; no control characters in a log.
model="$TINY/model"
temper finetune --model "$model" --data "$TINY/rows.jsonl" --steps 5 --batch 2 --out tuned >out 2>log
grep -q '^written' out || fail "no result"
grep -q '5/5' log || fail "no progress"
if tr -d '\n' <log | LC_ALL=C grep -q '[[:cntrl:]]'; then fail "control characters in a log"; fi
