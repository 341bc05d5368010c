# Every method of the registry, whole models and adapters, on Phi: a parallel block without a gate, LayerNorm, biases everywhere, dropout of the residual stream.
. "$TEMPER_SOURCE/tests/cli/try_methods.sh"
make_rows
try_all "$TINY/phi" phi 4 false
