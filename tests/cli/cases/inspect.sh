# Shape and tensors of the tiny model; the hash changes with any weight and survives copying.
cp -r "$TINY/model" model
temper inspect model
temper inspect model --tensors
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
expect 5 temper inspect nowhere
mkdir empty
expect 5 temper inspect empty
