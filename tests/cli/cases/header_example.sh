# The example that opens temper.h was built as it stands; here it runs: an answer, or one line of what is wrong.
expect 5 header_example >out 2>err
[ ! -s out ] || fail "an answer without a model"
same "$(wc -l <err)" 1 "one line of error"
grep -q '^my-model: ' err || fail "the error does not name my-model: $(cat err)"
ln -s "$TINY/model" my-model
header_example >out 2>err
[ -s out ] || fail "no answer"
[ ! -s err ] || fail "an error beside the answer: $(cat err)"
