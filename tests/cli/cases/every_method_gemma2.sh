# Every method of the registry, whole models and adapters, on Gemma 2: four norms in a block, soft caps, every other block a sliding window, a scaled embedding.
. "$TEMPER_SOURCE/tests/cli/try_methods.sh"
make_rows
try_all "$TINY/gemma2" gemma2
