/* Files that are no tokenizers: each ends in one line that names the file and the field. JSON in C strings is written
 * with single quotes. */
#include "tokenizer_fixture.h"

typedef struct bad_case {
    const char *json;
    tm_status status;
    const char *says; /* part of the line */
} bad_case;

#define MODEL(fields) "{'model': {'type': 'BPE', 'vocab': {'a': 0, 'b': 1, 'ab': 2}, " fields "}"
#define VOCAB(tokens) "{'model': {'type': 'BPE', 'vocab': " tokens ", 'merges': []}}"
#define MERGES(list) MODEL("'merges': " list "}")
#define WITH(fields) "{'model': {'type': 'BPE', 'vocab': {'a': 0, 'b': 1, 'ab': 2}, 'merges': ['a b']}, " fields

static const bad_case cases[] = {
    {"", TM_FORMAT, "is empty"},
    {"{", TM_FORMAT, "line 1"},
    {"{'model': {}} x", TM_FORMAT, "line 1"},
    {"{'model': {'type': 'BPE', 'type': 'BPE'}}", TM_FORMAT, "duplicate"},
    {"{}", TM_FORMAT, "model: must be an object"},
    {"{'model': {'type': 7}}", TM_FORMAT, "type: must be a string"},
    {"{'model': {'type': 'Letters'}}", TM_UNSUPPORTED, "model: type \"Letters\""},
    {"{'model': {'type': 'WordPiece'}}", TM_FORMAT, "model.vocab: must be an object"},
    {"{'model': {'type': 'Unigram', 'vocab': {}}}", TM_FORMAT, "model.vocab: must be an array"},
    {"{'model': {'type': 'Unigram', 'vocab': [['a']]}}", TM_FORMAT, "model.vocab: entry 0 is not"},
    {"{'model': {'type': 'Unigram', 'vocab': [['a', 1], ['a', 2]]}}", TM_FORMAT, "repeats a token"},
    {"{'model': {'type': 'Unigram', 'vocab': [['a', 1]], 'unk_id': 1}}", TM_FORMAT, "unk_id: must be null or an id"},
    {"{'model': {'type': 'BPE'}}", TM_FORMAT, "model.vocab: must be an object"},
    {VOCAB("[]"), TM_FORMAT, "model.vocab"},
    {VOCAB("{}"), TM_FORMAT, "vocab: is empty"},
    {VOCAB("{'a': '0'}"), TM_FORMAT, "token \"a\" needs an id"},
    {VOCAB("{'a': 1.5}"), TM_FORMAT, "token \"a\" needs an id"},
    {VOCAB("{'a': -1}"), TM_FORMAT, "token \"a\" needs an id"},
    {VOCAB("{'a': 4194304}"), TM_FORMAT, "token \"a\" needs an id"},
    {VOCAB("{'a': 99999999999999999999999999}"), TM_FORMAT, "token \"a\" needs an id"},
    {VOCAB("{'a': 0, 'b': 0}"), TM_FORMAT, "token \"b\": id 0 belongs to another token"},
    {VOCAB("{'a': 0, 'a': 1}"), TM_FORMAT, "duplicate"},
    {VOCAB("{'a': 0, 'b': 70000}"), TM_FORMAT, "2 tokens, but the highest id is 70000"},
    {MODEL("'x': 0}"), TM_FORMAT, "model.merges: must be an array"},
    {MERGES("['c b']"), TM_FORMAT, "merges[0]: \"c\" + \"b\": the left side is not"},
    {MERGES("['a c']"), TM_FORMAT, "merges[0]: \"a\" + \"c\": the right side is not"},
    {MERGES("['a b', 'b a']"), TM_FORMAT, "merges[1]: \"b\" + \"a\": their union is not"},
    {MERGES("['a b', ['a', 'b']]"), TM_FORMAT, "merges[1]: \"a\" + \"b\" is there twice"},
    {MERGES("['ab']"), TM_FORMAT, "merges[0]: \"ab\" must be two tokens"},
    {MERGES("['a b a']"), TM_FORMAT, "merges[0]: \"a b a\" must be two tokens"},
    {MERGES("[' ab']"), TM_FORMAT, "merges[0]: one side is empty"},
    {MERGES("['']"), TM_FORMAT, "merges[0]: \"\" must be two tokens"},
    {MERGES("[['a', '']]"), TM_FORMAT, "merges[0]: one side is empty"},
    {MERGES("[['a', 'b', 'a']]"), TM_FORMAT, "model.merges: entry 0"},
    {MERGES("[7]"), TM_FORMAT, "model.merges: entry 0"},
    {MERGES("{}"), TM_FORMAT, "model.merges: must be an array"},
    {MODEL("'merges': [], 'unk_token': '?'}"), TM_FORMAT, "unk_token: \"?\" is not in the vocabulary"},
    {MODEL("'merges': [], 'dropout': 0.1}"), TM_UNSUPPORTED, "dropout: 0.1"},
    {MODEL("'merges': [], 'end_of_word_suffix': "
           "'0123456789012345678901234567890123456789012345678901234567890123456789'}"),
     TM_UNSUPPORTED, "end_of_word_suffix: longer than 64 bytes"},
    {MODEL("'merges': ['a b'], 'continuing_subword_prefix': '##'}"), TM_FORMAT, "the right side is shorter"},
    {MODEL("'merges': [], 'byte_fallback': 'yes'}"), TM_FORMAT, "byte_fallback: must be true or false"},
    {WITH("'added_tokens': {}}"), TM_FORMAT, "added_tokens: must be an array"},
    {WITH("'added_tokens': [7]}"), TM_FORMAT, "added_tokens: entry 0 has no content"},
    {WITH("'added_tokens': [{'content': 'x'}]}"), TM_FORMAT, "id: is missing"},
    {WITH("'added_tokens': [{'content': '', 'id': 3}]}"), TM_FORMAT, "token 3 is empty"},
    {WITH("'added_tokens': [{'content': 'a', 'id': 3}]}"), TM_FORMAT, "has id 3 here and 0 in the vocabulary"},
    {WITH("'added_tokens': [{'content': 'x', 'id': 0}]}"), TM_FORMAT, "id 0 belongs to another token"},
    {WITH("'added_tokens': [{'content': 'x', 'id': 3, 'special': 1}]}"), TM_FORMAT, "special: must be true or false"},
    {WITH("'added_tokens': [{'content': 'x', 'id': 999999}]}"), TM_FORMAT, "but the highest id is 999999"},
    {WITH("'normalizer': 'NFC'}"), TM_FORMAT, "normalizer: must be an object"},
    {WITH("'normalizer': {}}"), TM_FORMAT, "type: is missing"},
    {WITH("'normalizer': {'type': 'Uppercase'}}"), TM_UNSUPPORTED, "normalizer: type \"Uppercase\""},
    {WITH("'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': '?'}}"), TM_FORMAT, "is not base64"},
    {WITH("'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': 'AQAA'}}"), TM_FORMAT, "is cut off"},
    {WITH("'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': 'AQAAAA=='}}"), TM_FORMAT,
     "size does not fit"},
    {WITH("'normalizer': {'type': 'Sequence'}}"), TM_FORMAT, "normalizer: Sequence without its list"},
    {WITH("'normalizer': {'type': 'Prepend'}}"), TM_FORMAT, "normalizer: \"prepend\" must be a string"},
    {WITH("'normalizer': {'type': 'Replace', 'content': ''}}"), TM_FORMAT, "normalizer: \"pattern\" must hold"},
    {WITH("'normalizer': {'type': 'Replace', 'content': '', 'pattern': {'String': ''}}}"), TM_FORMAT, "is empty"},
    {WITH("'pre_tokenizer': {'type': 'UnicodeScripts'}}"), TM_UNSUPPORTED, "pre_tokenizer: type"},
    {WITH("'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': '(a'}, 'behavior': 'Isolated'}}"), TM_FORMAT,
     "pre_tokenizer: pattern does not compile"},
    {WITH("'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': 'a\\\\C'}, 'behavior': 'Isolated'}}"), TM_FORMAT,
     "pre_tokenizer: pattern does not compile"},
    {WITH("'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': 'a'}, 'behavior': 'Kept'}}"), TM_FORMAT,
     "pre_tokenizer: unknown behavior \"Kept\""},
    {WITH("'pre_tokenizer': {'type': 'Metaspace', 'replacement': '__'}}"), TM_FORMAT, "must be one character"},
    {WITH("'pre_tokenizer': {'type': 'Metaspace', 'replacement': '_', 'prepend_scheme': 'last'}}"), TM_FORMAT,
     "unknown scheme \"last\""},
    {WITH("'post_processor': {'type': 'Other'}}"), TM_UNSUPPORTED, "post_processor: type \"Other\""},
    {WITH("'post_processor': {'type': 'BertProcessing', 'sep': ['b', 9], 'cls': ['a', 0]}}"), TM_FORMAT,
     "post_processor: \"sep\" must be a token and its id"},
    {WITH("'post_processor': {'type': 'Sequence', 'processors': [{'type': 'ByteLevel'}, {'type': 'ByteLevel'}]}}"),
     TM_UNSUPPORTED, "trims offsets twice"},
    {WITH("'post_processor': {'type': 'Sequence', 'processors': [{'type': 'BertProcessing', 'sep': ['b', 1], 'cls': "
          "['a', 0]}, {'type': 'BertProcessing', 'sep': ['b', 1], 'cls': ['a', 0]}]}}"),
     TM_UNSUPPORTED, "after another one that adds tokens"},
    {WITH("'post_processor': {'type': 'TemplateProcessing'}}"), TM_FORMAT, "\"single\" must be an array"},
    {WITH("'post_processor': {'type': 'TemplateProcessing', 'single': []}}"), TM_FORMAT, "holds no Sequence"},
    {WITH("'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': 'x'}}]}}"), TM_FORMAT,
     "special token \"x\" has no ids"},
    {WITH("'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': 'x'}}], "
          "'special_tokens': {'x': {'ids': [9]}}}}"),
     TM_FORMAT, "id outside the vocabulary"},
    {WITH("'decoder': {'type': 'CTC'}}"), TM_UNSUPPORTED, "decoder: type \"CTC\""},
    {WITH("'decoder': {'type': 'WordPiece'}}"), TM_FORMAT, "decoder: \"prefix\" must be a string"},
    {WITH("'decoder': {'type': 'BPEDecoder', 'suffix': ''}}"), TM_FORMAT, "\"suffix\" is empty"},
    {WITH("'decoder': {'type': 'Strip', 'start': 1, 'stop': 0}}"), TM_FORMAT, "\"content\" must be a string"},
    {WITH("'decoder': {'type': 'Strip', 'content': ' ', 'start': -1, 'stop': 0}}"), TM_FORMAT, "start: -1 is outside"},
};

static void expect_refused(const char *name, const char *data, size_t len, tm_status status, const char *says) {
    tm_tokenizer *tok = NULL;
    tm_error_clear();
    tm_status got = tm__tokenizer_load_memory(name, data, len, &tok);
    const tm_error *error = tm_error_last();
    if (got != status || tok) fail_msg("%.200s: status %s, line %s", data, tm_status_name(got), error->line);
    if (!strstr(error->line, says)) fail_msg("\"%s\" does not say \"%s\"", error->line, says);
    assert_non_null(strstr(error->file, name));
    assert_null(strchr(error->line, '\n'));
}

static void test_json(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm__string json = {0};
        assert_true(tm__string_append(&json, "", 0));
        tiny_put(&json, cases[i].json);
        expect_refused("bad.json", json.data, json.len, cases[i].status, cases[i].says);
        tm__string_free(&json);
    }
}

/* The frame that the cases above are spoiled from is itself sound. */
static void test_frame_loads(void **state) {
    (void)state;
    tm__string json = {0};
    tm_tokenizer *tok = NULL;
    tiny_put(&json, WITH("'added_tokens': [{'content': 'x', 'id': 3}]}"));
    assert_ok(tm__tokenizer_load_memory("good.json", json.data, json.len, &tok));
    expect_ids(tok, "xab", 3, 0, (const int32_t[]){3, 2}, 2);
    tm_tokenizer_free(tok);
    tm__string_free(&json);
}

static void test_bytes(void **state) {
    (void)state;
    tm__string deep = {0};
    tiny_put(&deep, "{'model': ");
    for (int i = 0; i < 100000; i++) tiny_put(&deep, "[");
    expect_refused("deep.json", deep.data, deep.len, TM_FORMAT, "nested too deeply");
    tm__string_free(&deep);
    static const char invalid[] = "{\"model\": {\"vocab\": {\"\xff\": 0}}}";
    expect_refused("bytes.json", invalid, sizeof invalid - 1, TM_FORMAT, "line 1");
    static const char other[] = "no tokenizer at all\n";
    expect_refused("notes.txt", other, sizeof other - 1, TM_FORMAT, "line 1: must begin with a token in base64");
}

/* A real file cut short anywhere is refused. */
static void test_cut_short(void **state) {
    (void)state;
    char *json = tiny_json(&(tiny_parts){0});
    size_t len = strlen(json);
    for (size_t part = 0; part < len; part += part < len - 50 ? 97 : 1) {
        tm_tokenizer *tok = NULL;
        assert_int_equal(tm__tokenizer_load_memory("cut.json", json, part, &tok), TM_FORMAT);
    }
    free(json);
}

static void test_paths(void **state) {
    (void)state;
    tm_tokenizer *tok = NULL;
    assert_int_equal(tm_tokenizer_load("/nonexistent/tokenizer.json", &tok), TM_NOT_FOUND);
    const char *empty = test_scratch();
    assert_int_equal(tm_tokenizer_load(empty, &tok), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->file, empty);
    assert_int_equal(tm_tokenizer_copy_files(empty, test_scratch()), TM_NOT_FOUND);
    assert_null(tok);
}

/* A pattern that backtracks without end gives up with an error instead. */
static void test_backtracking(void **state) {
    (void)state;
    tm_tokenizer *tok = tiny_load(&(tiny_parts){
        .pre = "{'type':'Split','pattern':{'Regex':'(a+)+(a+)+(a+)+[bc]'},'behavior':'Isolated','invert':false}"});
    char text[400];
    tm_ids ids = {0};
    memset(text, 'a', sizeof text);
    assert_int_equal(tm_tokenizer_encode(tok, text, sizeof text, 0, &ids), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "limit"));
    assert_int_equal(ids.len, 0);
    tm_tokenizer_free(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),      cmocka_unit_test(test_frame_loads), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_cut_short), cmocka_unit_test(test_paths),       cmocka_unit_test(test_backtracking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
