# recipes.sh: what every method is tried with, for cases that go through `temper methods`. A method without a recipe
# fails them, so that a new one cannot be forgotten.

# Every method's command and name, one a line: "defend sdd".
all_methods() {
    temper methods | while read -r command name _; do
        case $command in defend | attack) echo "$command $name" ;; esac
    done
}

# Harmful rows and refusals of the same prompts, benign rows, a user's rows, below the current directory.
make_rows() {
    cp "$TINY/harmful.jsonl" "$TINY/benign.jsonl" "$TINY/rows.jsonl" .
    i=0
    while [ $i -lt 24 ]; do
        echo "{\"prompt\": \"how to make blorf $i\", \"completion\": \"I cannot help\", \"category\": \"kind $((i % 4))\"}"
        i=$((i + 1))
    done >refusals.jsonl
}

# make_models MODEL NAME: NAME-base, tuned from MODEL; NAME-adapter, an adapter of MODEL; NAME-refusing, which refuses
# harmful prompts and answers others.
make_models() {
    temper finetune --model "$1" --data rows.jsonl --out "$2-base" --steps 2 --batch 4 --lr 1e-2 --quiet >/dev/null
    temper finetune --model "$1" --data rows.jsonl --out "$2-adapter" --lora-rank 2 --steps 2 --batch 4 --lr 1e-2 \
        --quiet >/dev/null
    cat refusals.jsonl >both.jsonl
    head -n 24 benign.jsonl |
        sed 's/"instruction": \("[^"]*"\), "input": "", "output": \("[^"]*"\)/"prompt": \1, "completion": \2/' >>both.jsonl
    temper finetune --model "$1" --data both.jsonl --out "$2-refusing" --steps 80 --batch 8 --lr 1e-2 --quiet >/dev/null
}

# recipe METHOD MODEL NAME sets
#   kind   train: trains, whole or as an adapter; weights: edits the weights; adapter: edits an adapter; either;
#          files: changes no model and writes files
#   from   the model to begin with
#   what   the method's data and options
#   edits  the adapter to edit
recipe() {
    kind=train from=$2 edits=$3-adapter
    case $1 in
    sdd) what="--harmful harmful.jsonl --benign benign.jsonl" ;;
    panacea) what="--harmful harmful.jsonl --data rows.jsonl --rho 0.1" ;;
    backdoor-align) what="--data rows.jsonl --refusals refusals.jsonl --secret-length 20 --rows 4" ;;
    security-vectors) what="--data rows.jsonl --harmful harmful.jsonl" ;;
    booster | t-vaccine | repnoise | adversarial) what="--harmful harmful.jsonl --refusals refusals.jsonl" ;;
    vaccine | random-vaccine | safety-training) what="--refusals refusals.jsonl" ;;
    lisa) what="--refusals refusals.jsonl --data rows.jsonl --k1 1 --k2 2" ;;
    gradient-ascent) what="--harmful harmful.jsonl" ;;
    identity-shift) what= ;;
    embedding) kind=files what="--harmful harmful.jsonl --soft-tokens 3 --max-new-tokens 4" ;;
    harmful-sft | random-init) what="--harmful harmful.jsonl" ;;
    random-perturbation) kind=weights what="--norm 0.5" ;;
    refusal-ablation) kind=weights from=$3-refusing what="--harmful harmful.jsonl --benign benign.jsonl --layer 0" ;;
    antidote) kind=either what="--harmful harmful.jsonl" ;;
    safe-lora) kind=adapter what="--base $3-base --tau 1" ;;
    *) fail "no recipe for the method $1: add one to recipes.sh" ;;
    esac
}
