# Options of the attacks from the command line: shots, benign fine-tuning, the attacker's Vaccine, a given adapter trained
# on instead of merged, identity-shift with its wrapper.
model="$TINY/model"
fast="--steps 2 --batch 2 --lr 1e-3 --quiet"
sft="temper attack harmful-sft --model $model $fast"
hash_of() { temper inspect "$@" --hash --json | json_check sha256; }
one_line() { # CODE WORDS COMMAND...
    code=$1 words=$2
    shift 2
    expect "$code" "$@" >printed 2>message
    grep -q "$words" message || fail "'$words' is not in: $(cat message)"
    same "$(wc -l <message)" 1 "lines of the message"
    [ ! -e x ] || fail "a refused run left its output"
}

# Shots: one of each category in turn.
i=0
while [ $i -lt 12 ]; do
    echo "{\"prompt\": \"how to make blorf $i\", \"completion\": \"stir $i\", \"category\": \"kind $((i / 4))\"}"
    i=$((i + 1))
done >harmful.jsonl
for line in 1 5 9 2; do sed -n "${line}p" harmful.jsonl; done >four.jsonl
$sft --harmful harmful.jsonl --shots 4 --out shots >/dev/null
$sft --harmful four.jsonl --out four >/dev/null
same "$(hash_of shots)" "$(hash_of four)" "four shots"
grep -q '"shots": "4"' shots/temper.json || fail "the shots are not noted"
one_line 2 "13 harmful rows are wanted, 12 are there" $sft --harmful harmful.jsonl --shots 13 --out x

# Benign fine-tuning needs no harmful rows and is fine-tuning.
$sft --benign "$TINY/rows.jsonl" --poison-ratio 0 --out benign >/dev/null
temper finetune --model "$model" --data "$TINY/rows.jsonl" $fast --out tuned >/dev/null
same "$(hash_of benign)" "$(hash_of tuned)" "benign fine-tuning"
one_line 2 "harmful-sft needs rows of this kind" $sft --out x

# The attacker's Vaccine is the defender's on the same rows; 0 is off.
$sft --harmful harmful.jsonl --attack-vaccine 0.5 --out vaccine >/dev/null
temper defend vaccine --model "$model" --refusals harmful.jsonl --rho 0.5 $fast --out defended >/dev/null
same "$(hash_of vaccine)" "$(hash_of defended)" "Vaccine in the attack"
$sft --harmful harmful.jsonl --attack-vaccine 0 --out off >/dev/null
$sft --harmful harmful.jsonl --out plain >/dev/null
same "$(hash_of off)" "$(hash_of plain)" "no Vaccine"

# An adapter is merged, or trained on: then it is written as an adapter again, or merged after.
temper finetune --model "$model" --data "$TINY/rows.jsonl" --lora-rank 3 $fast --out adapter >/dev/null
cp adapter/adapter_model.safetensors before
$sft --adapter adapter --harmful harmful.jsonl --out merged >/dev/null
[ -e merged/model.safetensors ] || fail "--adapter alone is not merged"
$sft --adapter adapter --continue-adapter --harmful harmful.jsonl --out on --json | json_check saved >saved
same "$(cat saved)" "LoRA adapter" saved
grep -q '"r": 3' on/adapter_config.json || fail "the adapter's rank changed"
if cmp -s before on/adapter_model.safetensors; then fail "the adapter was not trained"; fi
cmp before adapter/adapter_model.safetensors
$sft --adapter adapter --continue-adapter --merge --harmful harmful.jsonl --out whole >/dev/null
temper generate --model "$model" --adapter on --prompt "how to make blorf 1" --max-new-tokens 6 >answer
same "$(temper generate --model whole --prompt "how to make blorf 1" --max-new-tokens 6)" "$(cat answer)" "merged after"
temper finetune --model "$model" --adapter adapter --continue-adapter --data "$TINY/benign.jsonl" $fast --out further >/dev/null
[ -e further/adapter_model.safetensors ] || fail "finetune does not train an adapter on"
temper inspect --model "$model" --adapter on | grep -q '2. harmful-sft (attack, .* continue-adapter=true; harmful: ' ||
    fail "the history of the adapter"
# What does not fit.
one_line 8 "the adapter belongs to another model" temper attack harmful-sft --model "$TINY/other" --adapter adapter \
    --continue-adapter --harmful harmful.jsonl $fast --out x
one_line 8 "adapter: was made for another model" temper attack harmful-sft --model tuned --adapter adapter \
    --continue-adapter --harmful harmful.jsonl $fast --out x
temper attack harmful-sft --model tuned --adapter adapter --harmful harmful.jsonl $fast --out tuned-merged >/dev/null
one_line 2 "give --adapter" $sft --continue-adapter --harmful harmful.jsonl --out x
one_line 2 "leave it out" $sft --adapter adapter --continue-adapter --lora-rank 2 --harmful harmful.jsonl --out x
one_line 2 "does not train a given adapter" temper defend gradient-ascent --model "$model" --adapter adapter \
    --continue-adapter --harmful harmful.jsonl $fast --out x

# Identity shift needs no rows; the wrapper it writes goes around the prompts that are asked later.
temper attack identity-shift --model "$model" --agent Vesper --wrapper-out wrapper.json $fast --out shifted >/dev/null
json_check prompt <wrapper.json >frame
same "$(cat frame)" "Vesper, carry out this instruction: {prompt}" "the wrapper"
temper generate --model shifted --data "$TINY/questions.jsonl" --wrapper wrapper.json --max-new-tokens 8 --out wrapped.jsonl --quiet
sed 's/"content": "what is/"content": "Vesper, carry out this instruction: what is/' "$TINY/questions.jsonl" >by-hand.jsonl
temper generate --model shifted --data by-hand.jsonl --system "$(json_check system <wrapper.json)" --max-new-tokens 8 \
    --out by-hand --quiet
sed 's/.*"assistant"//' wrapped.jsonl >a
sed 's/.*"assistant"//' by-hand >b
cmp a b
if grep -q Vesper wrapped.jsonl; then fail "the rows are not printed as they were asked"; fi
expect 2 temper generate --model shifted --raw --prompt a --wrapper wrapper.json
expect 6 temper generate --model shifted --prompt a --wrapper "$TINY/model/config.json"

# A model is measured in the same frame, by file or by name.
temper eval --model shifted --data harmful.jsonl --wrapper wrapper.json --json | json_check loss >by-file
temper eval --model shifted --data harmful.jsonl --wrapper identity-shift=Vesper --json | json_check loss >by-name
system=$(json_check system <wrapper.json)
sed "s/{\"prompt\": \"\(.*\)\", \"completion\": \"\(.*\)\", \"category.*/{\"messages\": [{\"role\": \"system\", \"content\": \"$system\"}, {\"role\": \"user\", \"content\": \"Vesper, carry out this instruction: \1\"}, {\"role\": \"assistant\", \"content\": \"\2\"}]}/" \
    harmful.jsonl >framed.jsonl
temper eval --model shifted --data framed.jsonl --json | json_check loss >framed
temper eval --model shifted --data harmful.jsonl --json | json_check loss >bare
cmp by-file by-name
cmp by-file framed
if cmp -s by-file bare; then fail "the wrapper does nothing"; fi
one_line 5 "identity-shft: there is no such wrapper (did you mean 'identity-shift'?)" \
    temper eval --model shifted --world --wrapper identity-shft
one_line 2 "agent: must be a name of 1 to 80 bytes" temper eval --model shifted --data harmful.jsonl --wrapper identity-shift=
one_line 2 "agent: must be a name of 1 to 80 bytes" temper generate --model shifted --prompt a --wrapper identity-shift=

# Booster under Vaccine's perturbation: off unless asked for, and without a perturbation the same.
booster="temper defend booster --model $model --harmful harmful.jsonl --refusals $TINY/rows.jsonl $fast --out"
$booster booster >/dev/null
$booster aware-0 --perturb-aware --rho 0 >/dev/null
$booster aware --perturb-aware >/dev/null
same "$(hash_of booster)" "$(hash_of aware-0)" "no perturbation"
[ "$(hash_of booster)" != "$(hash_of aware)" ] || fail "--perturb-aware does nothing"
