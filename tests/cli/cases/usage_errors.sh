# Every usage error: one line that names the option, exit code 2 (5 for a name that is none).
expect 5 temper evla
expect 5 temper frobnicate
expect 2 temper --frob
expect 5 temper help frob
expect 2 temper finetune --modle x
expect 2 temper finetune --xyzzy
expect 2 temper finetune --model
expect 2 temper finetune --model --data x
expect 2 temper finetune --lora 4
expect 2 temper generate --prompt --hello
expect 2 temper finetune -m x
expect 2 temper finetune x
expect 2 temper finetune --data x
expect 2 temper finetune --model m --data x
expect 2 temper finetune --lr 0
expect 2 temper finetune --lr 1e999
expect 2 temper finetune --lr nan
expect 2 temper finetune --lr fast
expect 2 temper finetune --batch 0
expect 2 temper finetune --batch 1.5
expect 2 temper finetune --batch 99999999999999999999
expect 2 temper finetune --schedule cosign
expect 2 temper finetune --packed=maybe
expect 2 temper finetune --no-lr
expect 2 temper finetune --no-packed=true
expect 2 temper finetune --model m --data d --out o --merge
expect 2 temper finetune --model m --data d --out o --adapter a --lora-rank 4
expect 2 temper defend
expect 5 temper defend harmful-sft
expect 5 temper attack sdd
expect 2 temper defend --model m
expect 2 temper defend sdd --model m --out o
expect 2 temper eval --model m
expect 2 temper eval --model m --data d --world
expect 2 temper eval advbench --model m --data
expect 2 temper eval advbench --model m --data --limit 3
expect 2 temper eval --model m --world 1 --split tst
expect 2 temper generate --model m --prompt a --data b
expect 2 temper generate --model m --raw --data b
expect 2 temper generate --prompt a
expect 2 temper inspect
expect 2 temper inspect a --model b
expect 2 temper inspect a b
expect 2 temper tokenize hello
expect 2 temper tokenize --model "$TINY/model" --decode "1 x 2"
expect 2 temper tokenize --model "$TINY/model" --decode "1" text
expect 2 temper tokenize --model "$TINY/model" --decode "-1"
expect 5 temper methods frob
