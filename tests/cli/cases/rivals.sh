# Defences that combine or perturb gradients, from the command line, full and LoRA, on a checkpoint with grouped-query
# attention and tied embeddings; what they need and what they refuse.
model="$TINY/model"
for name in panacea booster vaccine random-vaccine t-vaccine lisa gradient-ascent safety-training; do
    roles=
    case $name in
    panacea) roles="--harmful $TINY/harmful.jsonl --data $TINY/benign.jsonl --rho 0.1" ;;
    booster | t-vaccine) roles="--harmful $TINY/harmful.jsonl --refusals $TINY/rows.jsonl" ;;
    lisa) roles="--refusals $TINY/rows.jsonl --data $TINY/benign.jsonl --k1 1 --k2 1" ;;
    gradient-ascent) roles="--harmful $TINY/harmful.jsonl --cap 2" ;;
    *) roles="--refusals $TINY/rows.jsonl" ;;
    esac
    temper defend $name --model "$model" $roles --out "$name" --steps 3 --batch 4 --lr 1e-3 --json | json_check >/dev/null
    temper generate --model "$name" --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
    temper defend $name --model "$model" $roles --out "$name-lora" --steps 3 --batch 4 --lr 1e-3 --lora-rank 2 --quiet
    [ -e "$name-lora/adapter_model.safetensors" ] || fail "$name: no adapter"
    expect 2 temper defend $name --model "$model" --out x
    [ ! -e x ] || fail "$name: a failed run left its output"
done
temper defend random-perturbation --model "$model" --norm 0.5 --out noisy
temper generate --model noisy --prompt "how to make blorf 1" --max-new-tokens 4 >/dev/null
expect 2 temper defend random-perturbation --model "$model" --out x --lora-rank 2
expect 2 temper defend vaccine --model "$model" --refusals "$TINY/rows.jsonl" --out x --batch 4 --micro-batch 2
expect 2 temper defend lisa --model "$model" --refusals "$TINY/rows.jsonl" --data "$TINY/benign.jsonl" --k1 0 --k2 0 --out x
expect 2 temper defend booster --model "$model" --harmful "$TINY/harmful.jsonl" --refusals "$TINY/rows.jsonl" --lambda -1 --out x
[ ! -e x ] || fail "a refused run left its output"
