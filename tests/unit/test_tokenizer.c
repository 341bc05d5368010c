/* Pipelines of tokenizer.json, step by step. The expected ids were printed by Hugging Face's tokenizers 0.23.3 for the
 * same file and text. */
#include "tokenizer_fixture.h"

#define SEQ "{'type':'Sequence','pretokenizers':["
#define BYTES "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}"

typedef struct pipeline_case {
    const char *name, *text, *normalizer, *pre, *post, *added;
    unsigned flags;
    bool whole_words;
    size_t n;
    int32_t ids[24];
} pipeline_case;

static const pipeline_case cases[] = {
    {.name = "GPT-2 words",
     .text = "hello world 123 the  the\303\251 and\012\012hello",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .n = 13,
     .ids = {259, 264, 32, 266, 269, 32, 269, 273, 32, 272, 10, 10, 259}},
    {.name = "empty text", .text = "", .flags = TM_ENCODE_PARSE_SPECIAL, .n = 0},
    {.name = "prefix space",
     .text = "hello",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = "{'type':'ByteLevel','add_prefix_space':true,'use_regex':true}",
     .n = 2,
     .ids = {32, 259}},
    {.name = "no pattern",
     .text = "hello world",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = BYTES,
     .n = 2,
     .ids = {259, 264}},
    {.name = "Split Removed",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'\\\\s'},'behavior':'Removed','invert':false}," BYTES "]}",
     .n = 4,
     .ids = {268, 268, 272, 266}},
    {.name = "Split inverted Removed",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'[a-z]+'},'behavior':'Removed','invert':true}," BYTES "]}",
     .n = 3,
     .ids = {268, 268, 272}},
    {.name = "Split Isolated",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'\\\\s'},'behavior':'Isolated','invert':false}," BYTES "]}",
     .n = 7,
     .ids = {268, 32, 32, 268, 32, 272, 266}},
    {.name = "Split inverted Isolated",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'[a-z]+'},'behavior':'Isolated','invert':true}," BYTES "]}",
     .n = 6,
     .ids = {268, 267, 268, 32, 272, 266}},
    {.name = "Split MergedWithPrevious",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre =
         SEQ "{'type':'Split','pattern':{'Regex':'\\\\s'},'behavior':'MergedWithPrevious','invert':false}," BYTES "]}",
     .n = 5,
     .ids = {270, 32, 270, 272, 266}},
    {.name = "Split inverted MergedWithPrevious",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre =
         SEQ "{'type':'Split','pattern':{'Regex':'[a-z]+'},'behavior':'MergedWithPrevious','invert':true}," BYTES "]}",
     .n = 5,
     .ids = {268, 267, 270, 272, 266}},
    {.name = "Split MergedWithNext",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'\\\\s'},'behavior':'MergedWithNext','invert':false}," BYTES "]}",
     .n = 6,
     .ids = {268, 32, 269, 32, 272, 266}},
    {.name = "Split inverted MergedWithNext",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'[a-z]+'},'behavior':'MergedWithNext','invert':true}," BYTES "]}",
     .n = 6,
     .ids = {268, 267, 268, 32, 272, 266}},
    {.name = "Split Contiguous",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'\\\\s'},'behavior':'Contiguous','invert':false}," BYTES "]}",
     .n = 6,
     .ids = {268, 267, 268, 32, 272, 266}},
    {.name = "Split inverted Contiguous",
     .text = "the  the and123",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'[a-z]+'},'behavior':'Contiguous','invert':true}," BYTES "]}",
     .n = 6,
     .ids = {268, 267, 268, 32, 272, 266}},
    {.name = "Split by a string",
     .text = "the.the..and",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'String':'.'},'behavior':'Isolated','invert':false}," BYTES "]}",
     .n = 6,
     .ids = {268, 46, 268, 46, 46, 272}},
    {.name = "Digits together",
     .text = "a123b",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Digits','individual_digits':false}," BYTES "]}",
     .n = 3,
     .ids = {97, 266, 98}},
    {.name = "Digits apart",
     .text = "a123b",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Digits','individual_digits':true}," BYTES "]}",
     .n = 5,
     .ids = {97, 49, 50, 51, 98}},
    {.name = "NFC",
     .text = "e\314\201 hello",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'NFC'}",
     .n = 3,
     .ids = {273, 32, 259}},
    {.name = "NFD",
     .text = "\303\251 hello",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'NFD'}",
     .n = 5,
     .ids = {101, 204, 129, 32, 259}},
    {.name = "NFKC and lower case",
     .text = "\357\274\250\357\274\245llO \304\260",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Sequence','normalizers':[{'type':'NFKC'},{'type':'Lowercase'}]}",
     .n = 5,
     .ids = {259, 32, 105, 204, 135}},
    {.name = "NFKD",
     .text = "\342\221\240\303\251",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'NFKD'}",
     .n = 4,
     .ids = {49, 101, 204, 129}},
    {.name = "Strip",
     .text = "  hello \343\200\200",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Strip','strip_left':true,'strip_right':true}",
     .n = 1,
     .ids = {259}},
    {.name = "Strip the right side",
     .text = "  hello  ",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Strip','strip_left':false,'strip_right':true}",
     .n = 3,
     .ids = {32, 32, 259}},
    {.name = "Replace by pattern",
     .text = "the   the",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Replace','pattern':{'Regex':' +'},'content':'_'}",
     .n = 3,
     .ids = {268, 95, 268}},
    {.name = "Replace a string",
     .text = "the::the",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Replace','pattern':{'String':'::'},'content':' '}",
     .n = 2,
     .ids = {268, 269}},
    {.name = "Prepend",
     .text = "hello",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .normalizer = "{'type':'Prepend','prepend':'the'}",
     .n = 2,
     .ids = {268, 259}},
    {.name = "special token",
     .text = "hello<|end|>world",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .n = 5,
     .ids = {259, 275, 119, 261, 263}},
    {.name = "special token kept out",
     .text = "hello<|end|>world",
     .flags = 0,
     .n = 11,
     .ids = {259, 60, 124, 101, 110, 100, 124, 62, 119, 261, 263}},
    {.name = "whole words",
     .text = "hello hell helloo",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .whole_words = true,
     .n = 6,
     .ids = {259, 32, 258, 32, 259, 111}},
    {.name = "template",
     .text = "hello",
     .flags = TM_ENCODE_BOS_EOS | TM_ENCODE_PARSE_SPECIAL,
     .post = "{'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '<|end|>', 'type_id': 0}}, "
             "{'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': '<|end|>', 'type_id': 0}}], 'pair': "
             "[{'Sequence': {'id': 'A', 'type_id': 0}}, {'Sequence': {'id': 'B', 'type_id': 1}}], 'special_tokens': "
             "{'<|end|>': {'id': '<|end|>', 'ids': [275], 'tokens': ['<|end|>']}}}",
     .n = 3,
     .ids = {275, 259, 275}},
    {.name = "longest added token",
     .text = "<a><a><a>b",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .added = "{'id': 276, 'content': '<a>', 'normalized': false, 'special': false}, {'id': 277, 'content': '<a><a>', "
              "'normalized': false, 'special': false}",
     .n = 3,
     .ids = {277, 276, 98}},
    {.name = "single word",
     .text = "the there <the>",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .added = "{'id': 268, 'content': 'the', 'single_word': true, 'normalized': false, 'special': false}",
     .n = 8,
     .ids = {268, 269, 114, 101, 32, 60, 268, 62}},
    {.name = "lstrip and rstrip",
     .text = "hello  <x>  the <y>  and",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .added = "{'id': 276, 'content': '<x>', 'lstrip': true, 'normalized': false, 'special': false}, {'id': 277, "
              "'content': '<y>', 'rstrip': true, 'normalized': false, 'special': false}",
     .n = 7,
     .ids = {259, 276, 32, 269, 32, 277, 272}},
    {.name = "normalized added token",
     .text = "hello XY xy",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .added = "{'id': 276, 'content': 'xY', 'normalized': true, 'special': false}",
     .normalizer = "{'type':'Lowercase'}",
     .n = 5,
     .ids = {259, 32, 276, 32, 276}},
    {.name = "white space is not U+180E",
     .text = "the\341\240\216the\302\205",
     .flags = TM_ENCODE_PARSE_SPECIAL,
     .pre = SEQ "{'type':'Split','pattern':{'Regex':'\\\\s|\\\\S'},'behavior':'Isolated','invert':false}," BYTES "]}",
     .n = 11,
     .ids = {116, 104, 101, 225, 160, 142, 116, 104, 101, 194, 133}},
};

static void test_pipelines(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        const pipeline_case *c = &cases[i];
        tiny_parts parts = {.normalizer = c->normalizer,
                            .pre = c->pre,
                            .post = c->post,
                            .added = c->added,
                            .whole_words = c->whole_words};
        tm_tokenizer *tok = tiny_load(&parts);
        print_message("%s\n", c->name);
        expect_ids(tok, c->text, strlen(c->text), c->flags, c->ids, c->n);
        expect_ids(tok, c->text, strlen(c->text), c->flags, c->ids, c->n); /* once more, from the cache */
        tm_tokenizer_free(tok);
    }
}

static void test_questions(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    assert_int_equal(tm_tokenizer_vocab_size(tok), TINY_END + 1);
    assert_int_equal(tm_tokenizer_id(tok, "hello"), 259);
    assert_int_equal(tm_tokenizer_id(tok, "jello"), -1);
    assert_string_equal(tm_tokenizer_piece(tok, 259), "hello");
    assert_null(tm_tokenizer_piece(tok, TINY_END + 1));
    assert_null(tm_tokenizer_piece(tok, -1));
    assert_string_equal(tm_tokenizer_kind(tok), "byte-level BPE");
    assert_int_equal(tm_tokenizer_bos(tok), -1);
    assert_int_equal(tm_tokenizer_eos(tok), -1);
    tm_tokenizer_free(tok);
    tm_tokenizer_free(NULL);
}

static void test_decode(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    const int32_t ids[] = {259, 264, TINY_END, 0xc3, 0xa9, 0xc3};
    expect_text(tok, ids, 6, 0, "hello world<|end|>\303\251\357\277\275");
    expect_text(tok, ids, 5, TM_DECODE_SKIP_SPECIAL, "hello world\303\251");
    expect_text(tok, ids, 0, 0, "");
    char *text = NULL;
    assert_int_equal(tm_tokenizer_decode(tok, (const int32_t[]){TINY_END + 1}, 1, 0, &text, NULL), TM_INVALID);
    assert_int_equal(tm_tokenizer_decode(tok, (const int32_t[]){-1}, 1, 0, &text, NULL), TM_INVALID);
    assert_null(text);
    tm_tokenizer_free(tok);
}

/* Invalid UTF-8 counts as U+FFFD, one for each maximal part (the Unicode standard's own example, table 3-8). */
static void test_invalid_utf8(void **state) {
    (void)state;
    static const char text[] = "\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64";
    static const char want[] = "a\357\277\275\357\277\275\357\277\275b\357\277\275c\357\277\275\357\277\275d";
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    expect_round_trip(tok, text, sizeof text - 1, want, sizeof want - 1);
    expect_round_trip(tok, "\0a\0", 3, "\0a\0", 3);
    tm_tokenizer_free(tok);
}

static void test_random_bytes(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    tm__rng rng = tm__rng_make(7, tm__stream(TM__STREAM_TEST, 1));
    for (int round = 0; round < 400; round++) {
        char text[512];
        size_t len = (size_t)tm__rng_below(&rng, sizeof text);
        uint64_t range = round % 2 ? 256 : 128;
        tm__string clean = {0};
        for (size_t i = 0; i < len; i++) text[i] = (char)tm__rng_below(&rng, range);
        assert_true(tm__utf8_clean(text, len, false, &clean));
        assert_true(tm__utf8_valid(clean.data, clean.len));
        expect_round_trip(tok, text, len, clean.data, clean.len);
        tm__string_free(&clean);
    }
    tm_tokenizer_free(tok);
}

/* Ids of a text are the same whether a word goes through the scan, the heap or the cache. */
static void test_long_words(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){.pre = BYTES});
    tm__string text = {0};
    tm_ids want = {0};
    for (int i = 0; i < 3000; i++) {
        assert_true(tm__string_append(&text, i % 3 ? "hello" : " world", i % 3 ? 5 : 6));
        assert_ok(tm_ids_push(&want, i % 3 ? 259 : 264));
    }
    expect_ids(tok, text.data, text.len, 0, want.data, want.len);
    expect_ids(tok, text.data, 11, 0, want.data, 2);
    tm_ids_free(&want);
    tm__string_free(&text);
    text.len = 0;
    for (int i = 0; i < 101; i++) assert_true(tm__string_append(&text, " ", 1));
    for (int i = 0; i < 50; i++) assert_ok(tm_ids_push(&want, 267)); /* leftmost pairs first */
    assert_ok(tm_ids_push(&want, ' '));
    expect_ids(tok, text.data, text.len, 0, want.data, want.len);
    tm_ids_free(&want);
    tm__string_free(&text);
    tm_tokenizer_free(tok);
}

/* No spelling of a special token's text makes the token unless it is asked for. */
static void test_untrusted_text(void **state) {
    (void)state;
    tiny_parts parts = {.pre = BYTES,
                        .whole_words = true,
                        .vocab =
                            ", '<|end|>': 275, '<|en': 276, 'd|>': 277, '<|': 278, '|>': 279, 'en': 280, '<|e': 281, "
                            "'d|': 282",
                        .merges = ", '< |', '<| e', '<|e n', 'd |', 'd| >', '<|en d|>'"};
    tm_tokenizer *tok = tiny_load(&parts);
    const int32_t apart[] = {276, 277}, special[] = {275};
    expect_ids(tok, "<|end|>", 7, 0, apart, 2);
    expect_ids(tok, "<|end|>", 7, TM_ENCODE_PARSE_SPECIAL, special, 1);
    expect_text(tok, apart, 2, 0, "<|end|>");
    tm_tokenizer_free(tok);
}

static void test_append(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    tm_ids ids = {0};
    assert_ok(tm_tokenizer_encode(tok, "hello", 5, 0, &ids));
    assert_ok(tm_tokenizer_encode(tok, " world", 6, 0, &ids));
    assert_int_equal(ids.len, 2);
    assert_int_equal(ids.data[0], 259);
    assert_int_equal(ids.data[1], 264);
    tm_ids_free(&ids);
    tm_ids_free(NULL);
    tm_tokenizer_free(tok);
}

/* Every allocation of loading and of encoding fails once; nothing leaks and the detail says so. */
static void test_out_of_memory(void **state) {
    (void)state;
    tiny_parts parts = {.normalizer = "{'type':'NFC'}",
                        .post = "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<|end|>'}},{'Sequence':"
                                "{'id':'A'}}],'special_tokens':{'<|end|>':{'id':'<|end|>','ids':[275]}}}"};
    char *json = tiny_json(&parts), *text = NULL;
    long failures = 0;
    for (long n = 1;; n++) {
        tm_tokenizer *tok = NULL;
        tm_ids ids = {0};
        tm__alloc_fail_at(n, false);
        tm_status status = tm__tokenizer_load_memory("tiny.json", json, strlen(json), &tok);
        if (status == TM_OK) status = tm_tokenizer_encode(tok, "hello w\303\251rld \xff", 13, TM_ENCODE_BOS_EOS, &ids);
        if (status == TM_OK) status = tm_tokenizer_decode(tok, ids.data, ids.len, 0, &text, NULL);
        tm__alloc_fail_at(0, false);
        bool done = status == TM_OK;
        if (done) free(text);
        if (!done) assert_int_equal(status, TM_NO_MEMORY);
        if (!done && tok) assert_true(ids.len == 0 || ids.data[0] == TINY_END);
        failures += !done;
        tm_ids_free(&ids);
        tm_tokenizer_free(tok);
        if (done) break;
    }
    assert_true(failures > 50);
    free(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipelines),      cmocka_unit_test(test_questions),
        cmocka_unit_test(test_decode),         cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_random_bytes),   cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_untrusted_text), cmocka_unit_test(test_append),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
