valid() { # valid FILE
    json_check --schema "$TEMPER_SOURCE/docs/schema/bench.json" <"$1" >/dev/null || fail "$(cat "$1")"
}

# What a step of every method costs, on a shape that takes no time; wrong use is one clear line.
temper bench step --shape tiny --batch 2 --length 32 --repeats 1 --quiet >table
temper methods --json >registry
for name in $(sed -n 's/^ *"name": "\([a-z-]*\)",$/\1/p' registry); do
    grep -q "^$name  *[0-9-]" table || [ "$(grep -c "^    *\"name\": \"$name\"" registry)" -gt 0 ] || fail "no row of $name"
done
grep -q "not measured" table && fail "$(grep 'not measured' table)"
for name in sdd panacea backdoor-align antidote safe-lora security-vectors booster vaccine random-vaccine t-vaccine lisa \
    gradient-ascent safety-training random-perturbation repnoise adversarial harmful-sft random-init refusal-ablation; do
    grep -q "^$name  *[0-9-]" table || fail "no row of $name"
done
temper bench step --shape tiny --batch 2 --length 32 --repeats 1 --methods vaccine,antidote --lora-rank 2 --json >json
json_check <json
valid json
same "$(json_check layers <json)" 2 layers
same "$(json_check methods.0.method <json) $(json_check options.batch <json)" "antidote 2" "the first method"
temper bench step --shape tiny --methods sft --length 32 --repeats 1 --json --quiet >json
valid json
same "$(json_check methods.0.method <json) $(json_check methods.0.passes <json)" "sft 1" "fine-tuning alone"
temper bench step --config "$TEMPER_SOURCE/tests/golden/repnoise/config.json" 2>message && fail "29 tokens were enough"
grep -q 'config.json: vocab_size: 29 is less' message || fail "$(cat message)"

expect 2 temper bench 2>message
grep -q 'what is to be measured? (temper bench step' message || fail "$(cat message)"
expect 2 temper bench stride 2>message
grep -q 'stride: cannot be measured (gemm, step, generate, eval, tokenize or load)' message || fail "$(cat message)"
expect 5 temper bench step --shape tiny --methods vacine 2>message
grep -q "there is no method 'vacine' (temper methods lists them)" message || fail "$(cat message)"
expect 2 temper bench step --shape tiny --length 8 2>message
[ "$(wc -l <message)" -eq 1 ] || fail "$(cat message)"
expect 2 temper bench step --shape huge 2>message
expect 5 temper bench step --config nowhere.json 2>message

# Generation: its speed as a table and as JSON, from random weights and from a checkpoint.
temper bench generate --shape tiny --prompts 4 --length 6 --new 5 --alone 3 --repeats 2 --quiet >table
for word in model work device runs batched alone reading products memory others tokens; do grep -q "^$word  *[^ ]" table || fail "no line of $word"; done
temper bench generate --model "$TINY/model" --prompts 3 --length 6 --shared 6 --new 2 --repeats 1 --quiet --json >json
json_check <json
valid json
same "$(json_check options.prompts <json)" 3 prompts
expect 2 temper bench generate --shape tiny --length 4 --shared 5 2>message
grep -q 'shared: 5 tokens are more than' message || fail "$(cat message)"
expect 2 temper bench generate more 2>message
expect 5 temper bench generate --model nowhere 2>message
temper help bench generate | grep -q -- '--alone N' || fail "no help"

# Products: every layer in every type, one type alone, shapes by name and by file.
temper bench gemm --shape tiny --rows 16 --repeats 2 --quiet >table
for word in q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head; do
    same "$(grep -c "^  $word  *[0-9].* forward  *[0-9]" table)" 3 "$word"
    same "$(grep -c "^  $word .* dW  *[0-9]" table)" 2 "$word's gradients"
done
for type in fp32 bf16 int8; do grep -q "^$type, .*GFLOP/s" table || fail "no $type"; done
temper bench gemm --shape tiny --rows 16 --repeats 2 --quiet --json >json
valid json
same "$(json_check types.2.type <json) $(json_check types.2.products.7.layer <json)" "int8 lm_head" "types"
temper bench gemm --config "$TINY/model/config.json" --rows 4 --repeats 1 --precision fp32 --quiet --json >json
valid json
expect 0 json_check types.0.seconds <json >/dev/null
expect 1 json_check types.1 <json >/dev/null 2>&1
expect 7 temper bench gemm --shape tiny --device ref --precision fp64 2>message
grep -q 'precision: products are measured in fp32, bf16 and int8' message || fail "$(cat message)"
expect 2 temper bench gemm --shape tiny --rows 0 2>message
expect 2 temper bench gemm more 2>message
expect 2 temper bench gemm --shape huge 2>message
grep -q 'smollm-135m|qwen2-0.5b|llama-7b|world|tiny\|one of' message || fail "$(cat message)"
echo '{"model_type": "gpt2"}' >odd.json
expect 7 temper bench gemm --config odd.json 2>message
grep -q '^temper: odd.json: ' message || fail "$(cat message)"

# Evaluation.
temper bench eval --shape tiny --items 3 --question 30 --choices 2 --answer 4 --repeats 2 --quiet >table
for word in model work device rate all '  read' '  encode' '  score' computed products memory others; do
    grep -q "^$word  *[^ ]" table || fail "no line of $word"
done
temper bench eval --shape tiny --weights bf16 --items 3 --question 30 --choices 2 --answer 4 --repeats 2 --quiet --json >json
valid json
same "$(json_check tokens <json) $(json_check computed_tokens <json) $(json_check weights <json)" "204 108 bf16" "tokens"
expect 2 temper bench eval --shape tiny --question 23 2>message
expect 2 temper bench eval --model nowhere --config nowhere.json 2>message
expect 5 temper bench eval --model nowhere 2>message
expect 7 temper bench eval --config "$TEMPER_SOURCE/tests/golden/repnoise/config.json" 2>message

# Tokenizing.
yes 'one two three, four' | head -500 >text.txt
temper bench tokenize --model "$TINY/model" --file text.txt --repeats 2 --quiet >table
for word in tokenizer work runs rate encode load memory others; do grep -q "^$word  *[^ ]" table || fail "no line of $word"; done
temper bench tokenize --model "$TINY/model" --file text.txt --repeats 2 --quiet --json >json
valid json
same "$(json_check bytes <json) $(json_check tokens <json)" "10000 $(temper tokenize --model "$TINY/model" --file text.txt --count)" "text"
expect 2 temper bench tokenize --file text.txt 2>message
grep -q -- '--model' message || fail "$(cat message)"
expect 2 temper bench tokenize --model "$TINY/model" 2>message
expect 5 temper bench tokenize --model "$TINY/model" --file nowhere.txt 2>message
expect 5 temper bench tokenize --model nowhere --file text.txt 2>message

# Loading: processes of its own, made-up files and given ones, nothing left behind.
mkdir scratch
TMPDIR=$PWD/scratch temper bench load --shape tiny --rows 5 --length 64 --repeats 2 --quiet >table
for word in model work device runs step '  process' '  data' '  model' '  tokenizer' '  prepare' token memory others; do
    grep -q "^$word  *[^ ]" table || fail "no line of $word"
done
TMPDIR=$PWD/scratch temper bench load --model "$TINY/model" --data "$TINY/rows.jsonl" --repeats 1 --lora-rank 2 --quiet --json >json
valid json
awk -v step="$(json_check first_step.median <json)" -v token="$(json_check first_token.median <json)" \
    'BEGIN { exit !(step > 0 && step < 60 && token > 0 && token < 60) }' || fail "$(cat json)"
temper bench load --model "$TINY/model" --first token --repeats 1 --quiet --json >json
valid json
same "$(json_check first_step.median <json)" null "no step was asked for"
[ -z "$(ls scratch)" ] || fail "left behind: $(ls scratch)"
expect 5 temper bench load --model nowhere --quiet 2>message
expect 2 temper bench load --model "$TINY/model" --data nowhere.jsonl --quiet 2>message
grep -q 'nowhere.jsonl: ' message && grep -q 'a process that was to be measured failed' message || fail "$(cat message)"
expect 2 temper bench load --since 1 2>message
grep -q 'since: takes model' message || fail "$(cat message)"
for name in gemm step eval tokenize load; do temper help bench $name | grep -q -- '--repeats N' || fail "no help of $name"; done
