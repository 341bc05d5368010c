# Every method of the registry, whole models and adapters, on Qwen 2: biases on queries, keys and values, a sliding window in the last block.
. "$TEMPER_SOURCE/tests/cli/try_methods.sh"
make_rows
try_all "$TINY/qwen2" qwen2
