/* Decoding id by id: whole characters each time, and together the decoded text, over more ids than a stream keeps. */
#include "tokenizer_fixture.h"

static const char llama[] =
    "{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\304\240'},'content':' '},"
    "{'type':'Fuse'},{'type':'Strip','content':' ','start':1,'stop':0}]}";

static void put(tm__string *whole, const char *text, size_t len) {
    assert_true(tm__utf8_valid(text, len));
    assert_int_equal(text[len], 0);
    assert_true(tm__string_append(whole, text, len));
}

static void check(const tm_tokenizer *tok, const int32_t *ids, size_t n) {
    tm_stream *stream = NULL;
    tm__string whole = {0};
    const char *text;
    char *want;
    size_t len;
    assert_ok(tm_stream_open(tok, 0, &stream));
    for (int round = 0; round < 2; round++) { /* after its end a stream is as new */
        whole.len = 0;
        for (size_t i = 0; i < n; i++) {
            assert_ok(tm_stream_put(stream, ids[i], &text, &len));
            put(&whole, text, len);
        }
        assert_ok(tm_stream_put(stream, -1, &text, &len));
        put(&whole, text, len);
        assert_ok(tm_tokenizer_decode(tok, ids, n, 0, &want, &len));
        assert_int_equal(whole.len, len);
        assert_memory_equal(whole.data, want, len);
        free(want);
    }
    tm__string_free(&whole);
    tm_stream_close(stream);
}

static void test_text(void **state) {
    (void)state;
    const char *const decoders[] = {NULL, llama};
    for (size_t k = 0; k < TM__COUNT(decoders); k++) {
        tm_tokenizer *tok = tiny_load(&(tiny_parts){.decoder = decoders[k]});
        tm__string text = {0};
        tm_ids ids = {0};
        for (int i = 0; i < 60; i++) assert_true(tm__string_printf(&text, " hello w\303\251rld \342\202\254 %d", i));
        assert_ok(tm_tokenizer_encode(tok, text.data, text.len, 0, &ids));
        assert_true(ids.len > 400);
        check(tok, ids.data, ids.len);
        check(tok, ids.data, 0);
        tm__string_free(&text);
        tm_ids_free(&ids);
        tm_tokenizer_free(tok);
    }
}

/* Bytes in any order, most of them no text. */
static void test_random_bytes(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    tm__rng rng = tm__rng_make(11, tm__stream(TM__STREAM_TEST, 2));
    for (int round = 0; round < 50; round++) {
        int32_t ids[200];
        for (size_t i = 0; i < TM__COUNT(ids); i++)
            ids[i] = (int32_t)(round % 2 ? 0xc0 - 64 * tm__rng_below(&rng, 2) : tm__rng_below(&rng, TINY_END));
        check(tok, ids, TM__COUNT(ids));
    }
    tm_tokenizer_free(tok);
}

/* A character comes with its last byte; an id outside the vocabulary changes nothing. */
static void test_held_back(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    tm_stream *stream = NULL;
    const char *text;
    size_t len;
    assert_ok(tm_stream_open(tok, TM_DECODE_SKIP_SPECIAL, &stream));
    assert_ok(tm_stream_put(stream, 0xe2, &text, &len));
    assert_int_equal(len, 0);
    assert_int_equal(tm_stream_put(stream, TINY_END + 1, &text, &len), TM_INVALID);
    assert_ok(tm_stream_put(stream, TINY_END, &text, &len));
    assert_ok(tm_stream_put(stream, 0x82, &text, &len));
    assert_int_equal(len, 0);
    assert_ok(tm_stream_put(stream, 0xac, &text, &len));
    assert_string_equal(text, "\342\202\254");
    assert_ok(tm_stream_put(stream, 0xe2, &text, &len));
    assert_ok(tm_stream_put(stream, -1, &text, &len));
    assert_string_equal(text, "\357\277\275");
    tm_stream_close(stream);
    tm_stream_close(NULL);
    tm_tokenizer_free(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_random_bytes),
                                       cmocka_unit_test(test_held_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
