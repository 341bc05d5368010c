/* Offsets: which bytes of the text a token stands for. The expected ones were printed by Hugging Face's tokenizers
 * 0.23.3 for the same file and text, in characters, and written here in bytes. */
#include "tokenizer_fixture.h"

#define REGEX_BYTES "{'type':'ByteLevel','add_prefix_space':true,'use_regex':true}"
#define TEMPLATE                                                                                                  \
    "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<|end|>','type_id':0}},{'Sequence':{'id':'A'," \
    "'type_id':0}}],'pair':[],'special_tokens':{'<|end|>':{'id':'<|end|>','ids':[275],'tokens':['<|end|>']}}}"

typedef struct offsets_case {
    const char *name, *text, *normalizer, *pre, *post;
    unsigned flags;
    size_t n;
    tm_offset offsets[12];
} offsets_case;

static const offsets_case cases[] = {
    {.name = "words", .text = "hello world", .n = 2, .offsets = {{0, 5}, {5, 11}}},
    {.name = "blanks trimmed",
     .text = "hello world  ",
     .post = "{'type':'ByteLevel','add_prefix_space':false,'trim_offsets':true}",
     .n = 3,
     .offsets = {{0, 5}, {6, 11}, {13, 13}}},
    {.name = "bytes of one character",
     .text = "a\342\202\254b",
     .n = 5,
     .offsets = {{0, 1}, {1, 4}, {1, 4}, {1, 4}, {4, 5}}},
    {.name = "prefix blank", .text = "world", .pre = REGEX_BYTES, .n = 1, .offsets = {{0, 5}}},
    {.name = "NFC joins",
     .text = "e\314\201 hello",
     .normalizer = "{'type':'NFC'}",
     .n = 3,
     .offsets = {{0, 1}, {3, 4}, {4, 9}}},
    {.name = "Prepend belongs to the first character",
     .text = "hello",
     .normalizer = "{'type':'Prepend','prepend':'the'}",
     .n = 2,
     .offsets = {{0, 1}, {0, 5}}},
    {.name = "Replace",
     .text = "the::the",
     .normalizer = "{'type':'Replace','pattern':{'String':'::'},'content':' '}",
     .n = 2,
     .offsets = {{0, 3}, {4, 8}}},
    {.name = "template and special token",
     .text = "hello<|end|>hello",
     .post = TEMPLATE,
     .flags = TM_ENCODE_BOS_EOS | TM_ENCODE_PARSE_SPECIAL,
     .n = 4,
     .offsets = {{0, 0}, {0, 5}, {5, 12}, {12, 17}}},
    {.name = "invalid byte",
     .text = "hello\377 hello",
     .n = 6,
     .offsets = {{0, 5}, {5, 6}, {5, 6}, {5, 6}, {6, 7}, {7, 12}}},
};

static void check(const offsets_case *c) {
    tiny_parts parts = {.normalizer = c->normalizer, .pre = c->pre, .post = c->post};
    tm_tokenizer *tok = tiny_load(&parts);
    tm_ids ids = {0}, plain = {0};
    tm_offsets offsets = {0};
    size_t len = strlen(c->text);
    assert_ok(tm_tokenizer_encode_offsets(tok, c->text, len, c->flags, &ids, &offsets));
    assert_ok(tm_tokenizer_encode(tok, c->text, len, c->flags, &plain));
    assert_int_equal(ids.len, plain.len);
    assert_memory_equal(ids.data, plain.data, ids.len * sizeof *ids.data);
    assert_int_equal(offsets.len, ids.len);
    if (offsets.len != c->n) fail_msg("%s: %zu tokens", c->name, offsets.len);
    for (size_t i = 0; i < c->n && i < offsets.len; i++)
        if (offsets.data[i].start != c->offsets[i].start || offsets.data[i].end != c->offsets[i].end)
            fail_msg("%s: token %zu is %zu to %zu", c->name, i, offsets.data[i].start, offsets.data[i].end);
    tm_ids_free(&ids);
    tm_ids_free(&plain);
    tm_offsets_free(&offsets);
    tm_tokenizer_free(tok);
}

static void test_offsets(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(cases); i++) check(&cases[i]);
}

/* What is there already stays; a failed call leaves both lists as they were. */
static void test_append(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){0});
    tm_ids ids = {0};
    tm_offsets offsets = {0};
    assert_ok(tm_tokenizer_encode_offsets(tok, "hello", 5, 0, &ids, &offsets));
    assert_ok(tm_tokenizer_encode_offsets(tok, " world", 6, 0, &ids, &offsets));
    assert_int_equal(offsets.len, 2);
    assert_int_equal(offsets.data[1].start, 0);
    assert_int_equal(offsets.data[1].end, 6);
    assert_int_equal(tm_tokenizer_encode_offsets(tok, "x", (size_t)1 << 40, 0, &ids, &offsets), TM_INVALID);
    assert_int_equal(ids.len, 2);
    assert_int_equal(offsets.len, 2);
    tm_ids_free(&ids);
    tm_offsets_free(&offsets);
    tm_offsets_free(NULL);
    tm_tokenizer_free(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_offsets), cmocka_unit_test(test_append)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
