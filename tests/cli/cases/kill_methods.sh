# kill -9 and Ctrl-C in every method that trains: the same command goes on from the last checkpoint, never from before
# it, and ends with the bytes of a run in one piece. Whole models are killed and adapters interrupted; with
# TEMPER_KILLS=N both are done with both, N times over.
. "$TEMPER_SOURCE/tests/cli/recipes.sh"
steps=10
rounds=${TEMPER_KILLS:-0}

hash_of() {
    cat "$1"/*.safetensors | sha256sum | cut -d' ' -f1
}

# The step of a checkpoint; 0 where there is none.
step_of() {
    [ ! -e "$1/state.json" ] || tr -d '\n' <"$1/state.json" | json_check step
    [ -e "$1/state.json" ] || echo 0
}

milliseconds() {
    echo $(($(date +%s%N) / 1000000))
}

# Runs the method once; $1: --out, the rest is added.
once() {
    to=$1
    shift
    # shellcheck disable=SC2086
    temper $command $name --model "$from" $what $train $mode --out "$to" "$@" >/dev/null 2>$out.said
}

# A moment in the first half of what a run takes; later, the oftener it has been hit: where other work came to the
# machine after the run in one piece was timed, that half may no longer reach the first step.
random_moment() {
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    awk -v all="$alone" -v hits=$hits -v r=$((seed / 65536)) \
        'BEGIN { printf "%.3f", all / 1000 * (0.05 + 0.45 * r / 32768) * (1 + hits / 8) }'
}

# Neither stage's checkpoint has gone back; what an interrupted run says it kept is there.
check_state() {
    for part in "" .vectors; do
        is=$(step_of $state$part)
        [ "$is" -ge "$(cat $out.was$part)" ] || fail "$name: the checkpoint went back to step $is"
        echo "$is" >$out.was$part
    done
    said=$(sed -n 's/^temper: \([^:]*\): stopped after step \([0-9]*\) of.*/\1 \2/p' $out.said)
    [ -z "$said" ] || same "$(step_of "${said% *}")" "${said#* }" "$name: the step that was kept"
}

# Until the first checkpoint is there, or the run is at its end: the rest of the run is yet to come.
wait_for_checkpoint() {
    until [ -e $state/state.json ] || [ -e $state.vectors/state.json ] || ! kill -s 0 $pid 2>/dev/null; do :; done
}

# hurt SIGNAL CODE: starts, signals, starts again until a run gets to its end. What the shell starts aside ignores SIGINT
# until it catches it, so one that comes too soon is lost, and so is any that comes too late: a second attempt waits.
hurt() {
    hits=0 code=1
    echo 0 | tee $out.was >$out.was.vectors
    while [ $code -ne 0 ]; do
        [ $hits -lt 100 ] || fail "$name never gets to its end: $(cat $out.said)"
        # shellcheck disable=SC2086
        temper $command $name --model "$from" $what $drawn $train $mode --out $out --resume $state --save-every 1 \
            >/dev/null 2>$out.said &
        pid=$!
        if [ $attempt -gt 1 ] && [ $hits -eq 0 ]; then wait_for_checkpoint; else sleep "$(random_moment)"; fi
        kill -s "$1" $pid 2>/dev/null || true
        code=0
        wait $pid 2>/dev/null || code=$?
        [ $code -eq 0 ] || [ $code -eq "$2" ] || fail "$name: exit code $code after SIG$1: $(cat $out.said)"
        check_state
        [ $code -eq 0 ] || hits=$((hits + 1))
        [ ! -e $out ] || code=0 # killed between the result, which appears whole, and the end
    done
    echo "$name $mode: SIG$1 $hits times, $alone ms alone"
}

try() {
    command=$1 name=$2 mode=$3
    recipe $name "$TINY/model" tiny
    [ $kind = train ] || return 0
    out=o-$name-$4-$5 state=s-$name-$4-$5 drawn='' given=''
    [ $name != backdoor-align ] || { drawn="--secret-out $out.secret" given="--secret $out.secret"; }
    train="--steps $steps --batch 4 --lr 1e-2 --schedule cosine"
    began=$(milliseconds)
    # shellcheck disable=SC2086
    once $out-alone --resume $state-alone --save-every 1 $drawn || fail "$name: $(cat $out.said)"
    alone=$(($(milliseconds) - began))
    rm -rf $out-alone $state-alone* $out.secret*
    for attempt in 1 2 3 4 5 6 7 8; do
        hurt $4 $5
        [ $hits -eq 0 ] || break
        rm -rf $out $state* $out.secret*
    done
    [ $hits -gt 0 ] || fail "$name: no run was stopped"
    # shellcheck disable=SC2086
    once $out-whole $given || fail "$name: $(cat $out.said)"
    same "$(hash_of $out)" "$(hash_of $out-whole)" "$name $mode: SIG$4 and whole"
    rm -rf $out $out-whole $state* $out.secret*
}

make_rows
make_models "$TINY/model" tiny
seed=7
all_methods >list
while read -r command name; do
    if [ "$rounds" -eq 0 ]; then
        try $command $name "" KILL 137
        try $command $name "--lora-rank 2 --lora-dropout 0.25" INT 130
    fi
    for round in $(seq "$rounds"); do
        for mode in "" "--lora-rank 2 --lora-dropout 0.25"; do
            try $command $name "$mode" KILL 137
            try $command $name "$mode" INT 130
        done
    done
done <list
same "$(ls -A | grep -c tmp || true)" 0 "left-overs: $(ls -A | grep tmp)"
