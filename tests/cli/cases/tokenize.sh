# Ids are those of the tiny tokenizer: bytes 0..255, merges from 256, <|endoftext|> 269, <|im_start|> 270, <|im_end|> 271.
model="$TINY/model"
temper tokenize --model "$model" "hello world"
temper tokenize --model "$model/tokenizer.json" "hello world"
printf 'hello\n' | temper tokenize --model "$model"
printf 'hello world' >text
temper tokenize --model "$model" --file text
temper tokenize --model "$model" --pieces "the wörld"
temper tokenize --model "$model" --count "hello world, hello"
temper tokenize --model "$model" "<|im_start|>"
temper tokenize --model "$model" --special "<|im_start|>hello<|im_end|>"
temper tokenize --model "$model" --decode "259 264"
temper tokenize --model "$model" --decode "[270, 259, 271]"
temper tokenize --model "$model" --decode "270,259,271" --special
temper tokenize --model "$model" --json "hello \"w\""
temper tokenize --model "$model" --decode "259" --json
printf '' | temper tokenize --model "$model"
expect 2 temper tokenize --model "$model" --decode "272"
expect 5 temper tokenize --model "$model" --file nowhere

# A table shows the blanks that SentencePiece's pieces begin with, but for the one that it puts before a text.
cat >pieces.json <<'JSON'
{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
 "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
 "post_processor": null,
 "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
 "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
           "vocab": [["<unk>", 0], ["▁big", -1], ["▁blue", -1], ["s", -1], ["▁", -3]]}}
JSON
temper tokenize --model pieces.json --pieces "big blues  big"
