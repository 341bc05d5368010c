# temper embed, temper classify, and SDD's --embedder, with the encoders of the golden fixtures.
sentence="$TEMPER_SOURCE/tests/golden/encoders/bert-sentence"
harm="$TEMPER_SOURCE/tests/golden/encoders/deberta-v3"
loud="$TEMPER_SOURCE/tests/golden/encoders/bert-classifier"

printf 'the fox\nhow do you bake?\r\n\nthe fox\n' >texts
temper embed --model "$sentence" texts >out
same "$(wc -l <out)" 4 "lines of embeddings"
json_check <out || fail "embeddings are not JSON Lines"
same "$(sed -n 1p out)" "$(sed -n 4p out)" "the same text beside others"
grep -q '"text": "how do you bake?", "embedding": \[' out || fail "the text is not in its line"
same "$(head -1 out | tr -cd , | wc -c)" 12 "numbers in an embedding"
temper embed --model "$sentence" --quiet <texts >again
cmp out again || fail "standard input gives another result"
printf 'the fox\n' | temper embed --model "$sentence" --device ref >ref
same "$(cut -c1-42 ref)" "$(head -1 out | cut -c1-42)" "ref and cpu"

printf 'a b c d e f g h i j k l m n o p q r s t u v w x y z\n' | temper embed --model "$sentence" >long 2>note
grep -q '1 of 1 texts were cut to 20 tokens' note || fail "no word about a text that was cut"

printf 'the fox\tyou bake\nthe fox\n' >pairs
temper classify --model "$harm" pairs >table
same "$(wc -l <table)" 2 "lines of labels"
grep -Eq '^(safe|harmful) +[01]\.[0-9]{4}  the fox$' table || fail "no label, score and text"
temper classify --model "$harm" --json pairs >out
json_check <out || fail "labels are not JSON Lines"
grep -q '"pair": "you bake"' out || fail "the pair is not shown"
grep -Eq '"scores": \{"safe": [0-9.e-]+, "harmful": [0-9.e-]+\}, "logits": \[' out || fail "no scores"

expect 2 temper embed texts 2>error
expect 2 temper classify --model "$sentence" texts 2>error
grep -q 'BertModel has no classifier' error || fail "not told: $(cat error)"
expect 5 temper embed --model nowhere texts 2>error
expect 5 temper embed --model "$sentence" nowhere 2>error
expect 5 temper classify --model "$loud" texts 2>error
grep -q 'there is no tokenizer' error || fail "not told: $(cat error)"
expect 7 temper embed --model "$TINY/model" texts 2>error
grep -q 'supported: BertModel, .*DebertaV2ForSequenceClassification' error || fail "supported ones are not named"
expect 2 temper embed --model "$sentence" /dev/null 2>error
printf 'a\0b\n' >nul
expect 6 temper embed --model "$sentence" nul 2>error
same "$(wc -l <error)" 1 "lines of an error"

# SDD pairs by the sentence encoder; the model itself pairs otherwise.
printf '{"prompt": "the fox"}\n{"prompt": "a lazy dog"}\n{"prompt": "you bake a cake"}\n' >harmful.jsonl
for word in dog cake fox token brown lazy over jumps how bake; do
    printf '{"prompt": "%s", "completion": "the %s, the %s"}\n' "$word" "$word" "$word"
done >benign.jsonl
sdd() {
    temper defend sdd --model "$TINY/model" --harmful harmful.jsonl --benign benign.jsonl --steps 1 --batch 1 \
        --quiet --overwrite --out defended "$@"
}
sdd --pairs by-model
sdd --pairs by-encoder --embedder "$sentence" --tau 0.2 --tau-is-cosine
same "$(wc -l <by-encoder)" 3 "pairs"
json_check <by-encoder || fail "pairs are not JSON Lines"
same "$(grep -c cosine_sim by-model)" 3 "pairs by the model"
cut -d, -f3 by-model >a
cut -d, -f3 by-encoder >b
if cmp -s a b; then fail "the encoder did not decide the cosines"; fi
expect 5 sdd --embedder nowhere 2>error
grep -q nowhere error || fail "the embedder is not named: $(cat error)"
