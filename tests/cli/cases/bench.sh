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
same "$(json_check layers <json)" 2 layers
temper bench step --config "$TEMPER_SOURCE/tests/golden/repnoise/config.json" 2>message && fail "29 tokens were enough"
grep -q 'config.json: vocab_size: 29 is less' message || fail "$(cat message)"

expect 2 temper bench 2>message
grep -q 'temper bench step' message || fail "$(cat message)"
expect 2 temper bench stride 2>message
grep -q 'stride: cannot be measured (step or generate)' message || fail "$(cat message)"
expect 5 temper bench step --shape tiny --methods vacine 2>message
grep -q "there is no method 'vacine' (temper methods lists them)" message || fail "$(cat message)"
expect 2 temper bench step --shape tiny --length 8 2>message
[ "$(wc -l <message)" -eq 1 ] || fail "$(cat message)"
expect 2 temper bench step --shape huge 2>message
expect 5 temper bench step --config nowhere.json 2>message

# Generation: its speed as a table and as JSON, from random weights and from a checkpoint.
temper bench generate --shape tiny --prompts 4 --length 6 --new 5 --alone 3 --repeats 2 --quiet >table
for word in model work device batched alone memory tokens; do grep -q "^$word  *[^ ]" table || fail "no line of $word"; done
temper bench generate --model "$TINY/model" --prompts 3 --length 6 --shared 6 --new 2 --repeats 1 --quiet --json >json
json_check <json
same "$(json_check prompts <json)" 3 prompts
expect 2 temper bench generate --shape tiny --length 4 --shared 5 2>message
grep -q 'shared: 5 tokens are more than' message || fail "$(cat message)"
expect 2 temper bench generate more 2>message
expect 5 temper bench generate --model nowhere 2>message
temper help bench generate | grep -q -- '--alone N' || fail "no help"
