/* tokenizer_fixture.h: a byte-level tokenizer.json small enough to know by heart: the 256 bytes by value, then 19
 * merges, then <|end|>. JSON in C strings is written with single quotes. */
#ifndef TM_TEST_TOKENIZER_FIXTURE_H
#define TM_TEST_TOKENIZER_FIXTURE_H

#include "support.h"
#include "tokenizer/tokenizer.h"

enum { TINY_END = 275 }; /* <|end|>; added tokens of a case follow */

/* Parts of the file; NULL: GPT-2's pre-tokenizer, the byte decoder, nothing else. */
typedef struct tiny_parts {
    const char *normalizer, *pre, *post, *decoder, *added;
    const char *vocab, *merges; /* put at the end of these lists */
    bool whole_words;
} tiny_parts;

static const char *const tiny_merges[] = {"h e",
                                          "l l",
                                          "he ll",
                                          "hell o",
                                          "\304\240 w",
                                          "o r",
                                          "\304\240w or",
                                          "l d",
                                          "\304\240wor ld",
                                          "1 2",
                                          "12 3",
                                          "\304\240 \304\240",
                                          "t he",
                                          "\304\240 the",
                                          "the \304\240",
                                          "a n",
                                          "an d",
                                          "\303\203 \302\251",
                                          "\304\212 \304\212"};

static inline void tiny_put(tm__string *out, const char *text) {
    for (; *text; text++) assert_true(tm__string_append(out, *text == '\'' ? "\"" : text, 1));
}

/* A token of the byte alphabet, quoted: only '"' and '\' need care. */
static inline void tiny_put_byte(tm__string *out, int byte) {
    char utf8[5] = {0};
    tm__utf8_encode(tm__code_of_byte(byte), utf8);
    bool escape = byte == '"' || byte == '\\';
    assert_true(tm__string_printf(out, "%s\"%s%s\": %d", byte ? ", " : "", escape ? "\\" : "", utf8, byte));
}

static inline char *tiny_json(const tiny_parts *parts) {
    static const char gpt2[] = "{'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': true}";
    tm__string out = {0};
    tiny_put(&out, "{'version': '1.0', 'added_tokens': [{'id': 275, 'content': '<|end|>', 'normalized': false, "
                   "'special': true}");
    if (parts->added) tiny_put(&out, ", "), tiny_put(&out, parts->added);
    tiny_put(&out, "], 'normalizer': "), tiny_put(&out, parts->normalizer ? parts->normalizer : "null");
    tiny_put(&out, ", 'pre_tokenizer': "), tiny_put(&out, parts->pre ? parts->pre : gpt2);
    tiny_put(&out, ", 'post_processor': "), tiny_put(&out, parts->post ? parts->post : "null");
    tiny_put(&out, ", 'decoder': "), tiny_put(&out, parts->decoder ? parts->decoder : gpt2);
    tiny_put(&out, ", 'model': {'type': 'BPE', 'ignore_merges': ");
    tiny_put(&out, parts->whole_words ? "true, 'vocab': {" : "false, 'vocab': {");
    for (int byte = 0; byte < 256; byte++) tiny_put_byte(&out, byte);
    for (size_t i = 0; i < TM__COUNT(tiny_merges); i++) {
        const char *space = strchr(tiny_merges[i], ' ');
        assert_true(tm__string_printf(&out, ", \"%.*s%s\": %zu", (int)(space - tiny_merges[i]), tiny_merges[i],
                                      space + 1, 256 + i));
    }
    if (parts->vocab) tiny_put(&out, parts->vocab);
    tiny_put(&out, "}, 'merges': [");
    for (size_t i = 0; i < TM__COUNT(tiny_merges); i++)
        assert_true(tm__string_printf(&out, "%s\"%s\"", i ? ", " : "", tiny_merges[i]));
    if (parts->merges) tiny_put(&out, parts->merges);
    tiny_put(&out, "]}}");
    return out.data;
}

static inline tm_tokenizer *tiny_load(const tiny_parts *parts) {
    tm_tokenizer *tok = NULL;
    char *json = tiny_json(parts);
    assert_ok(tm__tokenizer_load_memory("tiny.json", json, strlen(json), &tok));
    free(json);
    return tok;
}

static inline void expect_ids(const tm_tokenizer *tok, const char *text, size_t len, unsigned flags,
                              const int32_t *want, size_t n) {
    tm_ids ids = {0};
    assert_ok(tm_tokenizer_encode(tok, text, len, flags, &ids));
    for (size_t i = 0; i < n && i < ids.len; i++)
        if (ids.data[i] != want[i]) fail_msg("\"%s\": id %zu is %d, not %d", text, i, (int)ids.data[i], (int)want[i]);
    if (ids.len != n) fail_msg("\"%s\": %zu ids, not %zu", text, ids.len, n);
    tm_ids_free(&ids);
}

static inline void expect_text(const tm_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags,
                               const char *want) {
    char *text;
    assert_ok(tm_tokenizer_decode(tok, ids, n, flags, &text, NULL));
    assert_string_equal(text, want);
    free(text);
}

/* Encode and decode give the text back. */
static inline void expect_round_trip(const tm_tokenizer *tok, const char *text, size_t len, const char *want,
                                     size_t want_len) {
    tm_ids ids = {0};
    char *back;
    size_t back_len;
    assert_ok(tm_tokenizer_encode(tok, text, len, 0, &ids));
    assert_ok(tm_tokenizer_decode(tok, ids.data, ids.len, 0, &back, &back_len));
    assert_int_equal(back_len, want_len);
    assert_memory_equal(back, want, want_len);
    free(back);
    tm_ids_free(&ids);
}

#endif
