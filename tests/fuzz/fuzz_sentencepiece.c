/* Any bytes as a SentencePiece model, and as llama2.c's export of one: what is accepted encodes and decodes, and can be
 * written as a tokenizer.json that loads. */
#include "fuzz.h"
#include "tokenizer/tokenizer.h"

#include <unistd.h>

static const char text[] = "  ab abc  aaa\xc3\xa9\xe2\x96\x81 \xff<s>A";

static void use(const tm_tokenizer *tok) {
    tm_ids ids = {0};
    char *back = NULL;
    size_t len;
    for (unsigned flags = 0; flags < 4; flags++) {
        ids.len = 0;
        FUZZ_CHECK(tm_tokenizer_encode(tok, text, sizeof text - 1, flags, &ids) == TM_OK);
        for (size_t i = 0; i < ids.len; i++) FUZZ_CHECK(ids.data[i] >= 0 && ids.data[i] < tm_tokenizer_vocab_size(tok));
        FUZZ_CHECK(tm_tokenizer_decode(tok, ids.data, ids.len, 0, &back, &len) == TM_OK);
        FUZZ_CHECK(tm__utf8_valid(back, len));
        free(back);
    }
    tm_ids_free(&ids);
}

static void check_written(const tm_tokenizer *tok) {
    char path[64];
    tm_tokenizer *written = NULL;
    snprintf(path, sizeof path, "/tmp/temper-fuzz-%d.json", (int)getpid());
    tm_status status = tm__tokenizer_write_json(tok, path);
    FUZZ_CHECK(status == TM_OK || status == TM_UNSUPPORTED);
    if (status == TM_OK) FUZZ_CHECK(tm_tokenizer_load(path, &written) == TM_OK);
    tm_tokenizer_free(written);
    unlink(path);
}

static void load(const char *name, const uint8_t *data, size_t size) {
    tm_tokenizer *tok = NULL;
    tm_error_clear();
    tm_status status = tm__tokenizer_load_memory(name, (const char *)data, size, &tok);
    FUZZ_CHECK((status == TM_OK) == (tok != NULL));
    if (tok) {
        use(tok);
        if (tok->sentencepiece) check_written(tok);
    } else {
        FUZZ_CHECK(tm_error_last()->status == status && !strchr(tm_error_last()->line, '\n'));
    }
    tm_tokenizer_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    load("tokenizer.model", data, size);
    load("tokenizer.bin", data, size);
    return 0;
}
