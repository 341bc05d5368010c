# The same on trained weights: stories260K, grouped-query attention, tied embeddings, a SentencePiece tokenizer.
. "$TEMPER_SOURCE/tests/cli/try_methods.sh"
shared=$TEMPER_SHARED/models/stories260K/stories260K.bin
if [ ! -e "$shared" ]; then
    echo "SKIP: shared input stories260K is absent"
    exit 77
fi
make_rows
"$TEMPER_BIN_DIR/tools/llama2c_to_hf" "$shared" "$TEMPER_SHARED/tokenizers/tok512/tok512.model" stories >/dev/null
try_all stories stories
