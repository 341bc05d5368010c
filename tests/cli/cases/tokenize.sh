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
