/* Any bytes as a tokenizer.json: what is refused says where; what is accepted encodes text to ids of its vocabulary and
 * decodes each of them, the same way twice, and makes no special token of untrusted text. */
#include "fuzz.h"
#include "tokenizer/tokenizer.h"

static const char text[] = "hello  World 123\n\n it's<s> <|end|>\xc3\xa9\xe2\x96\x81 \xff ab abab aaaa";

/* A pattern of the file may give up on a text: that is TM_INVALID. */
static bool encodes(const tm_tokenizer *tok, unsigned flags, tm_ids *ids) {
    tm_status status = tm_tokenizer_encode(tok, text, sizeof text - 1, flags, ids);
    FUZZ_CHECK(status == TM_OK || status == TM_INVALID);
    return status == TM_OK;
}

static void check_untrusted(const tm_tokenizer *tok, const tm_ids *ids) {
    for (size_t i = 0; i < ids->len; i++) {
        FUZZ_CHECK(ids->data[i] >= 0 && ids->data[i] < tm_tokenizer_vocab_size(tok));
        bool special = tok->vocab.pieces[ids->data[i]].flags & TM__PIECE_SPECIAL;
        FUZZ_CHECK(!special || ids->data[i] == tok->bpe.unknown || ids->data[i] == tok->unigram.unknown ||
                   ids->data[i] == tok->words.unknown);
    }
}

static void use(const tm_tokenizer *tok) {
    tm_ids ids = {0}, again = {0}, trusted = {0};
    char *back = NULL;
    if (encodes(tok, 0, &ids) && encodes(tok, 0, &again)) {
        FUZZ_CHECK(ids.len == again.len && (!ids.len || !memcmp(ids.data, again.data, ids.len * sizeof *ids.data)));
        check_untrusted(tok, &ids);
    }
    if (encodes(tok, TM_ENCODE_BOS_EOS | TM_ENCODE_PARSE_SPECIAL, &trusted)) {
        size_t len;
        tm_status status = tm_tokenizer_decode(tok, trusted.data, trusted.len, 0, &back, &len);
        FUZZ_CHECK(status == TM_OK || status == TM_INVALID);
        if (status == TM_OK) FUZZ_CHECK(tm__utf8_valid(back, len) && back[len] == 0);
        free(back);
    }
    tm_ids_free(&ids);
    tm_ids_free(&again);
    tm_ids_free(&trusted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tm_tokenizer *tok = NULL;
    tm_error_clear();
    tm_status status = tm__tokenizer_load_memory("tokenizer.json", (const char *)data, size, &tok);
    FUZZ_CHECK((status == TM_OK) == (tok != NULL));
    if (tok)
        use(tok);
    else
        FUZZ_CHECK(tm_error_last()->status == status && !strchr(tm_error_last()->line, '\n'));
    tm_tokenizer_free(tok);
    return 0;
}
