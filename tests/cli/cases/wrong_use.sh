# Wrong use of every method: one line that says what is wrong and where, an exit code that says of which kind, no output.
# The golden holds what all methods say alike once, the method's name being NAME, and then what single methods say.
. "$TEMPER_SOURCE/tests/cli/recipes.sh"

# refused CODE ARGUMENTS...
refused() {
    wanted=$1 got=0
    shift
    temper "$@" >out 2>err || got=$?
    [ "$got" -eq "$wanted" ] || fail "exit code $got instead of $wanted: temper $*: $(cat err)"
    same "$(grep -c '' <err)" 1 "lines of error: temper $*: $(cat err)"
    [ ! -s out ] || fail "printed a result: temper $*"
    [ ! -e x ] || fail "left an output: temper $*"
}

wrong() {
    refused "$@"
    shift
    echo "\$ temper $*"
    cat err
}

# wrong_alike CODE ARGUMENTS...: of the method `name`.
wrong_alike() {
    refused "$@"
    sed "s/$name/NAME/g" err >>alike
}

ln -s "$TINY/model" model
ln -s "$TINY/other" other
make_rows
make_models model tiny
: >empty.jsonl
: >blank
echo '{"prompt": "a", "completion": "b"}' >broken.jsonl
echo '{"prompt": "a"' >>broken.jsonl
echo '{"prompt": "a"}' >silent.jsonl
head -n 20 refusals.jsonl >fewer.jsonl
temper finetune --model other --data rows.jsonl --lora-rank 2 --steps 1 --batch 2 --out other-adapter --quiet >/dev/null
cp -r tiny-adapter bent-adapter
sed -i 's/"r": *2/"r": 3/' bent-adapter/adapter_config.json
printf 'one two three' | tee secret >wrong
sha256sum blank >wrong.sha256

# without ROLE OPTIONS...: the options without one role and its file.
without() {
    role=$1
    shift
    rest=
    while [ $# -gt 0 ]; do
        if [ "$1" = "$role" ]; then shift; else rest="$rest $1"; fi
        shift
    done
}

# Each role of a method's data left out, absent, empty and broken; a role that it does not read.
roles_of() {
    for role in --harmful --refusals --benign --data; do
        # shellcheck disable=SC2086
        without $role $what
        case " $what " in
        *" $role "*)
            wrong_alike 2 $command $name --model "$from" $rest $to x
            wrong_alike 2 $command $name --model "$from" $rest $role "" $to x
            wrong_alike 5 $command $name --model "$from" $rest $role absent.jsonl $to x
            wrong_alike 6 $command $name --model "$from" $rest $role broken.jsonl $to x
            wrong_alike 6 $command $name --model "$from" $rest $role empty.jsonl $to x
            ;;
        *)
            case $name$role in harmful-sft--benign | random-init--benign | repnoise--benign | backdoor-align--benign) continue ;; esac
            wrong_alike 2 $command $name --model "$from" $what $role rows.jsonl $to x
            ;;
        esac
    done
}

# shellcheck disable=SC2086
every() {
    command=$1 name=$2
    recipe $name model tiny
    [ $name != backdoor-align ] || what="--data rows.jsonl --refusals refusals.jsonl --secret-out new --rows 4"
    [ $name != safe-lora ] || what="$what --adapter tiny-adapter"
    to=--out
    [ $kind != files ] || to=--answers-out
    roles_of
    [ ! -e new ] || fail "$name: a secret was drawn for a run that could not begin"
    wrong_alike 2 $command $name $what $to x
    wrong_alike 5 $command $name --model absent $what $to x
    [ $kind = files ] || wrong_alike 2 $command $name --model "$from" $what
    wrong_alike 10 $command $name --model "$from" $what $to tiny-base
    wrong_alike 2 $command $name --model "$from" $what $to x --no-such-option 1
    case $name in safe-lora) what="--base tiny-base" ;; esac
    wrong_alike 8 $command $name --model "$from" $what $to x --adapter other-adapter
    wrong_alike 8 $command $name --model "$from" $what $to x --adapter bent-adapter
    wrong_alike 5 $command $name --model "$from" $what $to x --adapter absent
    rm -f new new.sha256
    [ $kind = train ] || return 0
    [ $name != backdoor-align ] || what="--data rows.jsonl --refusals refusals.jsonl --secret secret --rows 4"
    wrong_alike 2 $command $name --model "$from" $what --out x --lr 0
    wrong_alike 2 $command $name --model "$from" $what --out x --lora-rank 2 --lora-targets nothing --quiet
    wrong_alike 2 $command $name --model "$from" $what --out x --save-every 5
    wrong_alike 2 $command $name --model "$from" $what --out x --resume x
    temper $command $name --model "$from" $what --out y --resume state --save-every 1 --steps 1 --batch 2 --quiet >/dev/null
    wrong_alike 8 $command $name --model "$from" $what --out x --resume state --steps 2 --batch 2 --quiet
    wrong_alike 10 $command $name --model "$from" $what --out x --resume model --steps 2 --batch 2 --quiet
    rm -rf y state*
}

all_methods >list
while read -r command name; do
    every $command $name </dev/null
done <list
sort -u alike

# Options of single methods.
pairs="--model model --harmful harmful.jsonl --benign benign.jsonl --out x"
for tau in -0.1 1.5 nan; do wrong 2 defend sdd $pairs --tau $tau; done
wrong 2 defend sdd $pairs --tau -1.5 --tau-is-cosine
wrong 2 defend sdd $pairs --max-tries 0
wrong 2 defend sdd $pairs --prompts 25 --quiet
adapter="--model model --adapter tiny-adapter --base tiny-base --out x"
wrong 2 defend safe-lora $adapter --tau 1.5
wrong 2 defend safe-lora --model model --adapter tiny-adapter --out x
wrong 5 defend safe-lora --model model --adapter tiny-adapter --base absent --out x
wrong 8 defend safe-lora --model model --adapter tiny-adapter --base other --out x
wrong 8 defend safe-lora $adapter --aligned other
wrong 2 defend safe-lora $adapter --lora-rank 2
wrong 2 defend safe-lora --model model --base tiny-base --out x
for ratio in -0.1 1.1; do wrong 2 defend antidote --model model --harmful harmful.jsonl --out x --ratio $ratio; done
wrong 2 defend antidote --model model --harmful harmful.jsonl --out x --lora-rank 2
wrong 2 defend random-perturbation --model model --out x --sigma -1
wrong 2 defend random-perturbation --model model --out x --lora-rank 2
secret="--model model --data rows.jsonl --refusals refusals.jsonl --rows 4 --out x"
for length in 0 -1 4097; do wrong 2 defend backdoor-align $secret --secret-out new --secret-length $length; done
wrong 2 defend backdoor-align $secret
wrong 2 defend backdoor-align $secret --secret secret --secret-out new
wrong 10 defend backdoor-align $secret --secret-out secret
wrong 4 defend backdoor-align $secret --secret-out absent/new --quiet
wrong 5 defend backdoor-align $secret --secret absent
wrong 6 defend backdoor-align $secret --secret blank
wrong 8 defend backdoor-align $secret --secret wrong
wrong 2 defend backdoor-align $secret --secret secret --rows 25 --quiet
wrong 2 defend backdoor-align $secret --secret secret --rows 0
wrong 2 defend backdoor-align $secret --secret secret --selection any
for name in repnoise adversarial; do
    wrong 2 defend $name --model model --harmful harmful.jsonl --refusals fewer.jsonl --out x
    wrong 2 defend $name --model model --harmful fewer.jsonl --refusals refusals.jsonl --out x
    wrong 2 defend $name --model model --harmful harmful.jsonl --refusals rows.jsonl --out x
    wrong 2 defend $name --model model --harmful harmful.jsonl --refusals harmful.jsonl --out x
    wrong 6 defend $name --model model --harmful silent.jsonl --refusals refusals.jsonl --out x
    wrong 2 defend $name --model model --harmful harmful.jsonl --refusals refusals.jsonl --out x --mode best
    wrong 2 defend $name --model model --harmful harmful.jsonl --refusals refusals.jsonl --out x --full-sequence
done
wrong 2 defend repnoise --model model --harmful harmful.jsonl --refusals refusals.jsonl --out x --alpha -1
wrong 2 defend repnoise --model model --harmful harmful.jsonl --refusals refusals.jsonl --out x --beta -1
wrong 2 defend adversarial --model model --harmful harmful.jsonl --refusals refusals.jsonl --out x --coefficient -1
for name in vaccine random-vaccine; do
    wrong 2 defend $name --model model --refusals refusals.jsonl --out x --rho -1
done
both="--model model --harmful harmful.jsonl --refusals refusals.jsonl --out x"
for name in vaccine random-vaccine; do
    wrong 2 defend $name --model model --refusals refusals.jsonl --out x --batch 4 --micro-batch 2
done
for name in t-vaccine repnoise; do wrong 2 defend $name $both --batch 4 --micro-batch 2; done
wrong 2 defend t-vaccine $both --blocks 0
wrong 2 defend t-vaccine $both --redraw 0
wrong 2 defend booster $both --lambda -1
wrong 2 defend booster $both --alpha -1
mine="--model model --refusals refusals.jsonl --data rows.jsonl --out x"
wrong 2 defend lisa $mine --k1 0 --k2 0
wrong 2 defend lisa $mine --rho -1
service="--model model --harmful harmful.jsonl --data rows.jsonl --out x"
wrong 2 defend panacea $service --rho -1
wrong 2 defend panacea $service --lambda -1
wrong 2 defend security-vectors $service --vectors-rank 0
wrong 2 defend security-vectors $service --vectors-targets nothing --quiet
wrong 2 defend security-vectors $service --vectors-dropout 1
wrong 2 defend gradient-ascent --model model --harmful harmful.jsonl --out x --cap -1
for name in harmful-sft random-init; do
    wrong 2 attack $name --model model --harmful harmful.jsonl --out x --poison-ratio 1.5
    wrong 2 attack $name --model model --harmful harmful.jsonl --out x --poison-ratio 0.5
    wrong 2 attack $name --model model --harmful harmful.jsonl --out x --rows 25
done
soft="--model model --harmful harmful.jsonl"
wrong 2 attack embedding $soft --out x
wrong 2 attack embedding $soft --lora-rank 2
wrong 2 attack embedding $soft --resume x
wrong 2 attack embedding $soft --lr -1
wrong 2 attack embedding $soft --soft-tokens 0
wrong 2 attack embedding $soft --target " " --answers-out x --quiet
wrong 10 attack embedding $soft --soft-prompt-out rows.jsonl
wrong 4 attack embedding $soft --answers-out rows.jsonl/x
probe="--model tiny-refusing --harmful harmful.jsonl --benign benign.jsonl --out x"
wrong 2 attack refusal-ablation --model model --harmful harmful.jsonl --benign benign.jsonl --out x
wrong 2 attack refusal-ablation $probe --layer 2
wrong 2 attack refusal-ablation $probe --layer 0 --position 9
wrong 2 attack refusal-ablation $probe --max-kl -1
wrong 7 attack refusal-ablation $probe --max-kl 0
wrong 2 attack refusal-ablation $probe --refusal ""

# What methods write beside their result is not replaced unasked, and options that a method has no use for are none.
echo mine >mine.jsonl
wrong 10 defend sdd $pairs --pairs mine.jsonl
wrong 10 defend panacea $service --affinity mine.jsonl
wrong 10 defend panacea $service --tuned tiny-base
wrong 4 defend sdd $pairs --pairs mine.jsonl/pairs
wrong 9 defend sdd $pairs --pairs new.jsonl --steps 20 --optimiser sgd --lr 100 --clip 0 --batch 24 --quiet
[ ! -e new.jsonl ] || fail "a failed run left its pairs"
same "$(cat mine.jsonl)" mine "a file that was there"
wrong 2 defend random-perturbation --model model --out x --lr 1
wrong 2 defend safe-lora $adapter --seed 1
wrong 2 defend antidote --model model --harmful harmful.jsonl --out x --resume state
wrong 2 attack refusal-ablation $probe --steps 1
temper defend sdd $pairs --pairs mine.jsonl --overwrite --steps 1 --batch 2 --quiet >/dev/null
same "$(json_check prompt <mine.jsonl | wc -l)" 24 "pairs"
for read in "defend antidote --max-length" "defend antidote --chat" "defend random-perturbation --seed" "attack refusal-ablation --chat"; do
    # shellcheck disable=SC2086
    temper help ${read% *} | grep -q -e "^  ${read##* } " || fail "no ${read##* } in the help of ${read% *}"
done
