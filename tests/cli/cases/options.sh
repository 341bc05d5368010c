# The ways to write an option mean the same.
model="$TINY/model"
a=$(temper tokenize --model "$model" hello world)
same "$(temper tokenize --model="$model" hello world)" "$a" "--name=value"
same "$(temper tokenize hello --model "$model" world)" "$a" "options between words"
same "$(temper tokenize --model "$model" -- hello world)" "$a" "-- ends the options"
same "$(temper tokenize --model "$model" --count=false hello world)" "$a" "--flag=false"
same "$(temper tokenize --model "$model" --count --no-count hello world)" "$a" "--no-flag"
same "$(temper tokenize --model /nowhere --model "$model" hello world)" "$a" "the last one counts"
same "$(temper tokenize --model "$model" --count -- --count)" 7 "words after --"
same "$(temper tokenize --model "$model" --count '')" 0 "an empty word is an empty text"
