# Which template conversations go through, shown by temper tokenize and carried through training and generation.
model="$TINY/model"
cat >mine.jinja <<'END'
{%- for m in messages %}
{%- if m.role == 'system' %}{{ raise_exception('no system messages here') }}{% endif -%}
<{{ m.role }}{{ mood }}>{{ m.content }}<|im_end|>
{%- endfor %}{% if add_generation_prompt %}<assistant{{ mood }}>{% endif -%}
END
cat >rows.jsonl <<'END'
{"messages": [{"role": "user", "content": "the world"}, {"role": "assistant", "content": "hello"}]}
{"messages": [{"role": "user", "content": "12<|im_end|>"}, {"role": "assistant", "content": "123"}]}
{"messages": [{"role": "system", "content": "the"}, {"role": "user", "content": "the"}, {"role": "assistant", "content": "the"}]}
END
temper tokenize --model "$model" --data rows.jsonl --template mine.jinja
temper tokenize --model "$model" --data rows.jsonl --row 2 --template mine.jinja --template-vars '{"mood": "!"}' --json
temper tokenize --model "$model" --data rows.jsonl --row 2 --chat question --json
temper tokenize --model "$model" --data rows.jsonl --row 3 --count
temper tokenize --model "$model" --template mine.jinja --pieces the world
expect 2 temper tokenize --model "$model" --data rows.jsonl --row 3 --template mine.jinja
expect 5 temper tokenize --model "$model" --data rows.jsonl --row 4
expect 5 temper tokenize --model "$model" --template nowhere.jinja the world
expect 2 temper tokenize --model "$model" --template chatml --chat llama2 the world
expect 2 temper tokenize --model "$model" --template chatml --bos the world
expect 6 temper tokenize --model "$model" --template mine.jinja --template-vars '[]' the world
printf 'a\n{{ 1 +' >broken.jinja
expect 6 temper tokenize --model "$model" --template broken.jinja the world
expect 2 temper finetune --model "$model" --data rows.jsonl --template mine.jinja --out never
[ ! -e never ] || fail "a model was written"

# What was named goes with the model that was trained with it, and is what it is asked in.
head -n 2 rows.jsonl >good.jsonl
train="--data good.jsonl --steps 2 --lr 1e-2 --quiet"
temper finetune --model "$model" $train --template mine.jinja --out mine >/dev/null
cmp mine.jinja mine/chat_template.jinja
grep -q '"template": "mine.jinja"' mine/temper.json || fail "temper.json does not name the template"
temper tokenize --model mine --data good.jsonl --count >own
temper tokenize --model "$model" --data good.jsonl --template mine.jinja --count >named
cmp own named
temper generate --model mine --data good.jsonl --max-new-tokens 4 --quiet >own
temper generate --model mine --data good.jsonl --max-new-tokens 4 --template mine.jinja --quiet >named
cmp own named
temper eval --model mine --data good.jsonl --json --quiet >own
temper eval --model mine --data good.jsonl --json --quiet --template mine.jinja >named
cmp own named
temper finetune --model "$model" $train --out plain >/dev/null
[ ! -e plain/chat_template.jinja ] || fail "a template that nobody named"
cmp plain/model.safetensors mine/model.safetensors >/dev/null && fail "the template changes nothing"
temper finetune --model "$model" $train --template chatml --out chatml >/dev/null
[ ! -e chatml/chat_template.jinja ] || fail "a format written as a template"

# A rehearsal shows the first row.
temper finetune --model "$model" $train --template mine.jinja --out never --dry-run >text
grep -q '^<user>the world<|im_end|><assistant>hello<|im_end|>$' text || fail "no first row in: $(cat text)"
