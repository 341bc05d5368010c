# temper help defend NAME shows the options that the method takes, and no others, and an example that works.
. "$TEMPER_SOURCE/tests/cli/recipes.sh"
make_rows
make_models "$TINY/model" tiny
cp -r "$TINY/model" my-model
mv tiny-base before-alignment
mv tiny-adapter tuned
cp rows.jsonl user.jsonl
all_methods >list
while read -r command name; do
    temper help $command $name >told
    sed -n '/^Input:/,/^$/s/^  --\([a-z-]*\).*/\1/p' told >shown
    place=--out
    [ $name != embedding ] || place=--answers-out
    for role in harmful refusals data benign; do
        expect_refusal=true
        if grep -qx $role shown; then expect_refusal=false; fi
        code=0
        temper $command $name --model my-model --$role rows.jsonl $place my-model/config.json/x >printed 2>message || code=$?
        [ $code -ne 0 ] || fail "$name --$role: no error"
        refused=false
        if grep -q "^temper: --$role: $name reads no such rows" message; then refused=true; fi
        same $refused $expect_refusal "$name --$role is refused, and so it should be"
    done
    case $name in harmful-sft | identity-shift) grep -qx continue-adapter shown || fail "$name --continue-adapter" ;; *)
        if grep -qx continue-adapter shown; then fail "$name --continue-adapter is shown"; fi ;;
    esac
    tr '\n' ' ' <told | grep -q "temper methods $name tells" || fail "$name: no word of temper methods"
    sed -n '/^Examples:/,/^$/s/^  //p' told | sed -e :more -e '/\\$/N; s/\\\n *//; t more' >line
    same "$(wc -l <line)" 1 "$name: examples"
    grep -q "^temper $command $name --model my-model" line || fail "$name: $(cat line)"
    recipe $name my-model tiny
    extra=
    [ $kind != train ] || extra="--steps 1 --batch 2"
    case $name in
    backdoor-align) extra="$extra --rows 4 --secret-length 20" ;;
    embedding) extra="--steps 1 --batch 2 --soft-tokens 2 --max-new-tokens 2" ;;
    refusal-ablation) extra="--layer 0" && sed -i 's/my-model/tiny-refusing/' line ;;
    esac
    rm -rf defended attacked
    echo "$(cat line) $extra --quiet" >run
    sh -eu ./run >output 2>&1 </dev/null || fail "$(cat run): $(cat output)"
done <list
