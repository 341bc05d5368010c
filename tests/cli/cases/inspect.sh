# Shape and tensors of the tiny model; the hash changes with any weight and survives copying.
cp -r "$TINY/model" model
temper inspect model
temper inspect model --tensors
temper inspect "$TINY/gemma2" | tail -4
temper inspect "$TINY/phi" | tail -1
sed 's/"hidden_act"/"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,\
    "original_max_position_embeddings": 64}, "hidden_act"/' model/config.json >scaled
cp -r model longer
cp scaled longer/config.json
temper inspect longer | tail -1
temper inspect longer --json >json
same "$(json_check rope.type <json) $(json_check rope.factor <json) $(json_check rope.original_positions <json)" \
    "llama3 8 64" "rope of JSON"
temper inspect "$TINY/gemma2" --json >json
same "$(json_check window <json) $(json_check window_layers <json) $(json_check logit_soft_cap <json)" "24 1 10" caps
temper inspect --model model --json --tensors --norms --hash >json
json_check <json
same "$(json_check layers <json)" 2 "layers"
same "$(json_check tensors.0.name <json)" model.embed_tokens.weight "first tensor"
hash=$(json_check sha256 <json)
same "${#hash}" 64 "length of the hash"
cp -r model copy
same "$(temper inspect copy --hash --json | json_check sha256)" "$hash" "hash of a copy"
other=$(temper inspect "$TINY/other" --hash --json | json_check sha256)
[ "$other" != "$hash" ] || fail "two models, one hash"
expect 7 temper inspect "$TEMPER_SOURCE/tests/golden/encoders/bert-sentence" 2>err
grep -q 'temper embed and temper classify' err || fail "an encoder is not sent on: $(cat err)"
expect 5 temper inspect nowhere
mkdir empty
expect 5 temper inspect empty
