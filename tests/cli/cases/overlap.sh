# Rows of two parties: a shared prompt is refused, within one command and against what the model has seen before, and
# allowed only by name; temper.json tells the model's past and nothing about a secret.
model="$TINY/model"
fast="--steps 1 --batch 2 --lr 1e-3 --quiet"
refuse() { # WORDS COMMAND...
    words=$1
    shift
    expect 8 "$@" >printed 2>message
    grep -q "$words" message || fail "'$words' is not in: $(cat message)"
    same "$(wc -l <message)" 1 "lines of the message"
    [ ! -e x ] || fail "a refused run left its output"
}
head -n 10 "$TINY/harmful.jsonl" >ours.jsonl
tail -n 12 "$TINY/harmful.jsonl" >theirs.jsonl
cat "$TINY/rows.jsonl" >user.jsonl
sed -n '3,4s/how to make/ how  to make/p' ours.jsonl >>user.jsonl

# Within one command: the user's rows and the defender's.
panacea="temper defend panacea --model $model --harmful ours.jsonl --rho 0.1 $fast --out"
refuse "2 of its prompts stand in ours.jsonl too; row 25 is row 3 there" $panacea x --data user.jsonl
$panacea panacea --data user.jsonl --allow-overlap harmful >/dev/null
grep -q '"allow-overlap": "harmful"' panacea/temper.json || fail "the permission is not noted"
$panacea panacea-2 --data user.jsonl --allow-overlap data >/dev/null
$panacea panacea-3 --data user.jsonl --allow-overlap benign,all >/dev/null
refuse "stand in ours.jsonl" $panacea x --data user.jsonl --allow-overlap benign
expect 2 $panacea x --data user.jsonl --allow-overlap nobody
expect 2 $panacea x --data user.jsonl --allow-overlap ""
refuse "stand in ours.jsonl too" temper defend sdd --model "$model" --harmful ours.jsonl --benign ours.jsonl $fast --out x

# Across commands, through a fine-tune in between, an adapter and a merge.
temper defend sdd --model "$model" --harmful ours.jsonl --benign "$TINY/benign.jsonl" $fast --out defended >/dev/null
temper finetune --model defended --data "$TINY/rows.jsonl" $fast --out tuned >/dev/null
temper finetune --model defended --data "$TINY/rows.jsonl" --lora-rank 2 $fast --out adapter >/dev/null
for from in "defended" "tuned" "defended --adapter adapter" "$model --adapter adapter"; do
    refuse "harmful: 10 of its prompts stand in the harmful rows of stage 1 (sdd, defence); row 1 is one" \
        temper attack harmful-sft --model $from --harmful "$TINY/harmful.jsonl" $fast --out x
    refuse "data: 2 of its prompts stand in the harmful rows of stage 1" \
        temper finetune --model $from --data user.jsonl $fast --out x
done
temper attack harmful-sft --model tuned --harmful theirs.jsonl $fast --out attacked >/dev/null
temper attack harmful-sft --model defended --harmful ours.jsonl $fast --out ours --allow-overlap harmful >/dev/null
refuse "stage 3 (harmful-sft, attack)" temper defend antidote --model attacked --harmful theirs.jsonl --out x
temper defend antidote --model attacked --harmful ours.jsonl --out repaired --quiet >/dev/null
# A fine-tune counts as the defender's only where it is said to be alignment.
temper finetune --model "$model" --data ours.jsonl $fast --out plain >/dev/null
temper attack harmful-sft --model plain --harmful ours.jsonl $fast --out plain-attacked >/dev/null
temper finetune --model "$model" --data ours.jsonl --alignment $fast --out aligned >/dev/null
refuse "data rows of stage 1 (sft, alignment)" temper attack harmful-sft --model aligned --harmful ours.jsonl $fast --out x
# A developer who aligned without saying so is told how; with it, the same rows are the developer's in both stages.
sdd="temper defend sdd --benign $TINY/benign.jsonl --harmful ours.jsonl $fast --out"
refuse "alignment of your own is made with temper finetune --alignment; else .*--allow-overlap harmful" \
    $sdd x --model plain
$sdd aligned-defended --model aligned >/dev/null
refuse "(give rows that the model has not seen there" temper attack harmful-sft --model aligned --harmful ours.jsonl $fast --out x
# What random-init throws away is no reason to refuse; its own rows are looked at all the same.
temper attack random-init --model aligned --harmful ours.jsonl $fast --out random >/dev/null
refuse "stand in ours.jsonl" temper attack random-init --model aligned --harmful ours.jsonl --benign ours.jsonl \
    --poison-ratio 0.5 $fast --out x

# What inspect tells, and the same run again.
temper inspect repaired >told
grep -q '^history        1. sdd (defence, seed 42) .*; harmful: ours.jsonl, 10 rows; benign: benign.jsonl, 120 rows$' told ||
    fail "$(cat told)"
grep -q '^               4. antidote (defence, ' told || fail "$(cat told)"
temper inspect tuned --json | json_check history.1 | grep -q 'sft (fine-tuning'
temper inspect --model defended --adapter adapter --json | json_check history.1 | grep -q 'lora-rank=2'
temper defend sdd --model "$model" --harmful ours.jsonl --benign "$TINY/benign.jsonl" $fast --out again >/dev/null
cmp defended/temper.json again/temper.json
if grep -q "$PWD\|blorf" defended/temper.json; then fail "a place or a prompt in temper.json"; fi
[ ! -e "$model/temper.json" ] || fail "the parent was touched"

# A damaged file is refused by name by whoever reads it; removed, the model is one without a past.
cp -r defended damaged
sed -i '0,/"rows": 10/s//"rows": 3/' damaged/temper.json
for command in "inspect damaged" "attack harmful-sft --model damaged --harmful theirs.jsonl --out x"; do
    expect 6 temper $command 2>message >printed
    grep -q 'damaged/temper.json: stages\[0\].prompts: is longer' message || fail "$(cat message)"
done
rm damaged/temper.json
temper attack harmful-sft --model damaged --harmful ours.jsonl $fast --out undamaged >/dev/null

# BackdoorAlign: rows are hashed before the secret stands in front, and nothing about it is written.
sed 's/"completion": "[^"]*"/"completion": "I cannot help"/' ours.jsonl >refusals.jsonl
temper defend backdoor-align --model "$model" --data "$TINY/rows.jsonl" --refusals refusals.jsonl --rows 4 \
    --secret-length 20 --secret-out hidden-words $fast --out backdoor >/dev/null 2>&1
if grep -q "secret\|hidden-words" backdoor/temper.json; then fail "the secret's file is told"; fi
if grep -qF "$(cat hidden-words)" backdoor/temper.json; then fail "the secret is told"; fi
refuse "10 of its prompts stand in the refusals rows of stage 1 (backdoor-align" \
    temper attack harmful-sft --model backdoor --harmful ours.jsonl $fast --out x
