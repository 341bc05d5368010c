/* Tokenizers with every component of tokenizer.json against Hugging Face's tokenizers 0.23.3: ids, offsets and decoded
 * text (fixtures: tools/golden/tokenizers_fixtures.py). */
#include "support.h"
#include "tokenizer/tokenizer.h"

#include <jansson.h>

static json_t *read_json(const char *name) {
    char relative[64];
    json_t *value = NULL;
    snprintf(relative, sizeof relative, "golden/tokenizers/%s.json", name);
    assert_ok(tm__json_load(test_path(relative), &value));
    return value;
}

static tm_tokenizer *load(json_t *parts, const json_t *models) {
    tm_tokenizer *tok = NULL;
    json_t *model = json_object_get(models, json_string_value(json_object_get(parts, "model")));
    assert_non_null(model);
    assert_int_equal(json_object_set(parts, "model", model), 0);
    char *text = json_dumps(parts, 0);
    assert_non_null(text);
    assert_ok(tm__tokenizer_load_memory("tokenizer.json", text, strlen(text), &tok));
    free(text);
    return tok;
}

static void expect_numbers(const char *name, const char *what, const char *text, const json_t *want, size_t i,
                           int64_t got) {
    int64_t number = json_integer_value(json_array_get(want, i));
    if (got != number)
        fail_msg("%s, \"%s\": %s %zu is %lld, not %lld", name, text, what, i, (long long)got, (long long)number);
}

static void expect_decoded(const char *name, const tm_tokenizer *tok, const tm_ids *ids, unsigned flags,
                           const json_t *want) {
    char *text;
    size_t len;
    assert_ok(tm_tokenizer_decode(tok, ids->data, ids->len, flags, &text, &len));
    if (len != json_string_length(want) || memcmp(text, json_string_value(want), len) != 0)
        fail_msg("%s: decoded \"%s\", not \"%s\"", name, text, json_string_value(want));
    free(text);
}

/* The pieces of a stream are whole characters and make the decoded text. */
static void expect_streamed(const char *name, const tm_tokenizer *tok, const tm_ids *ids, const json_t *want) {
    tm_stream *stream = NULL;
    tm__string whole = {0};
    const char *text;
    size_t len;
    assert_ok(tm_stream_open(tok, 0, &stream));
    for (size_t i = 0; i <= ids->len; i++) {
        assert_ok(tm_stream_put(stream, i < ids->len ? ids->data[i] : -1, &text, &len));
        assert_true(tm__utf8_valid(text, len));
        assert_true(tm__string_append(&whole, text, len));
    }
    if (whole.len != json_string_length(want) || memcmp(whole.data, json_string_value(want), whole.len) != 0)
        fail_msg("%s: streamed \"%s\", not \"%s\"", name, whole.data, json_string_value(want));
    tm__string_free(&whole);
    tm_stream_close(stream);
}

static void check_text(const char *name, const tm_tokenizer *tok, const json_t *row) {
    const json_t *input = json_array_get(row, 0), *want_ids = json_array_get(row, 1);
    const json_t *want_offsets = json_array_get(row, 2);
    const char *text = json_string_value(input);
    unsigned flags = TM_ENCODE_BOS_EOS | TM_ENCODE_PARSE_SPECIAL;
    tm_ids ids = {0}, plain = {0};
    tm_offsets offsets = {0};
    assert_ok(tm_tokenizer_encode_offsets(tok, text, json_string_length(input), flags, &ids, &offsets));
    if (ids.len != json_array_size(want_ids))
        fail_msg("%s, \"%s\": %zu ids, not %zu", name, text, ids.len, json_array_size(want_ids));
    assert_int_equal(offsets.len, ids.len);
    for (size_t i = 0; i < ids.len; i++) {
        expect_numbers(name, "id", text, want_ids, i, ids.data[i]);
        expect_numbers(name, "offset", text, want_offsets, 2 * i, (int64_t)offsets.data[i].start);
        expect_numbers(name, "offset", text, want_offsets, 2 * i + 1, (int64_t)offsets.data[i].end);
    }
    for (int again = 0; again < 2; again++, plain.len = 0) { /* the second time from the cache */
        assert_ok(tm_tokenizer_encode(tok, text, json_string_length(input), flags, &plain));
        assert_int_equal(plain.len, ids.len);
        if (ids.len) assert_memory_equal(plain.data, ids.data, ids.len * sizeof *ids.data);
    }
    expect_decoded(name, tok, &ids, 0, json_array_get(row, 3));
    expect_decoded(name, tok, &ids, TM_DECODE_SKIP_SPECIAL, json_array_get(row, 4));
    expect_streamed(name, tok, &ids, json_array_get(row, 3));
    tm_ids_free(&ids);
    tm_ids_free(&plain);
    tm_offsets_free(&offsets);
}

static void check_group(int number) {
    char name[32];
    size_t i, k, texts = 0;
    json_t *entry, *row;
    snprintf(name, sizeof name, "cases-%d", number);
    json_t *models = read_json("models"), *cases = read_json(name);
    json_array_foreach(cases, i, entry) {
        const char *case_name = json_string_value(json_object_get(entry, "name"));
        tm_tokenizer *tok = load(json_object_get(entry, "tokenizer"), models);
        json_array_foreach(json_object_get(entry, "texts"), k, row) {
            check_text(case_name, tok, row);
            texts++;
        }
        tm_tokenizer_free(tok);
    }
    assert_true(texts > 80);
    json_decref(cases);
    json_decref(models);
}

static void test_group_0(void **state) {
    (void)state, check_group(0);
}
static void test_group_1(void **state) {
    (void)state, check_group(1);
}
static void test_group_2(void **state) {
    (void)state, check_group(2);
}
static void test_group_3(void **state) {
    (void)state, check_group(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_group_0), cmocka_unit_test(test_group_1),
                                       cmocka_unit_test(test_group_2), cmocka_unit_test(test_group_3)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
