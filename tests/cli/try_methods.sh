# try_methods.sh: runs every method of the registry on a checkpoint, whole and as an adapter, and looks at what it wrote.
. "$TEMPER_SOURCE/tests/cli/recipes.sh"

hash_of() {
    temper inspect "$@" --hash --json | json_check sha256
}

# loads METHOD --model DIR [--adapter DIR]: a model of the same shape that says something.
loads() {
    name=$1
    shift
    same "$(temper inspect "$@" --json | json_check heads)" "$heads" "$name: heads"
    temper generate "$@" --prompt "how to make blorf 1" --max-new-tokens 1 --ignore-stop --quiet >/dev/null ||
        fail "$name: what it wrote generates nothing"
}

# report METHOD STEPS: the JSON report in the file `json` names seconds and steps.
report() {
    same "$(json_check steps <json)" "$2" "$1: steps"
    json_check seconds <json | grep -q '^[0-9]' || fail "$1: no seconds"
    json_check out <json >/dev/null
}

whole() {
    secret=
    [ "$name" != backdoor-align ] || secret="--secret-out $out.secret"
    # shellcheck disable=SC2086
    temper $command $name --model "$from" $what $secret $train --out $out --json --quiet >json
    report $name $steps
    loads $name --model $out
    [ "$(hash_of $out)" != "$(hash_of "$from")" ] || fail "$name changed nothing"
}

as_adapter() {
    secret=
    [ "$name" != backdoor-align ] || secret="--secret $out.secret"
    # shellcheck disable=SC2086
    temper $command $name --model "$from" $what $secret $train $adapter --out $out-adapter --quiet >said
    grep -q '^time  *[0-9.]* s$' said || fail "$name: the report names no seconds"
    [ $steps -eq 0 ] || grep -q "^steps  *$steps\$" said || fail "$name: the report names no steps"
    [ -e $out-adapter/adapter_model.safetensors ] || fail "$name: no adapter"
    loads $name --model "$from" --adapter $out-adapter
}

# A method that changes no model: files with the answers to every prompt.
files() {
    # shellcheck disable=SC2086
    temper $command $name --model "$from" $what --steps 3 --batch 4 --lr 1e-2 --answers-out $out.jsonl --json --quiet >json
    json_check seconds <json | grep -q '^[0-9]' || fail "$name: no seconds"
    same "$(wc -l <$out.jsonl)" "$(wc -l <harmful.jsonl)" "$name: answers"
    json_check messages <$out.jsonl >/dev/null
}

try() {
    command=$1 name=$2
    recipe $name "$model" $label
    out=$label-$name train="--steps 3 --batch 4 --lr 1e-2" adapter="--lora-rank 2" steps=3
    if [ $kind = files ]; then
        files
        return 0
    fi
    case $kind in weights | adapter | either) train= steps=0 adapter="--adapter $edits" ;; esac
    [ $kind = adapter ] || whole
    [ $kind = weights ] || as_adapter
    if [ $steps -eq 0 ] && [ $kind != weights ]; then
        if cmp -s $edits/adapter_model.safetensors $out-adapter/adapter_model.safetensors; then fail "$name did nothing"; fi
    fi
}

# try_all MODEL LABEL [KV_HEADS TIED]: grouped queries and tied embeddings unless it says otherwise.
try_all() {
    model=$1 label=$2
    heads=$(temper inspect "$model" --json | json_check heads)
    same "$(temper inspect "$model" --json | json_check tied_embeddings)" "${4:-true}" "tied embeddings of $label"
    kv_heads=$(temper inspect "$model" --json | json_check kv_heads)
    [ "${3:-}" = "$kv_heads" ] || [ "$kv_heads" -lt "$heads" ] || fail "$label: no grouped queries"
    make_models "$model" $label
    all_methods >list
    [ "$(wc -l <list)" -ge 19 ] || fail "temper methods lists too few"
    while read -r command name; do
        echo "$label: $command $name"
        try $command $name </dev/null
    done <list
}
