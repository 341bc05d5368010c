# Every method of the registry, whole models and adapters, on a checkpoint that is not the built-in one: grouped-query
# attention, tied embeddings, random weights.
. "$TEMPER_SOURCE/tests/cli/try_methods.sh"
make_rows
# A method that is not known has no recipe, and that is noticed.
if (recipe frobnicate m n) 2>/dev/null; then fail "a method without a recipe passes"; fi
try_all "$TINY/model" tiny
