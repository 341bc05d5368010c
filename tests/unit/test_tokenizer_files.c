/* Directories: vocab.json with merges.txt, tiktoken files, and what the configurations beside a tokenizer add. JSON in
 * C strings is written with single quotes. */
#include "tokenizer_fixture.h"

static void write_raw(const char *directory, const char *name, const char *text) {
    char *path = tm__path_join(directory, name);
    assert_non_null(path);
    assert_ok(tm__file_write(path, text, strlen(text)));
    free(path);
}

static void write_text(const char *directory, const char *name, const char *text) {
    tm__string json = {0};
    tiny_put(&json, text);
    write_raw(directory, name, json.data);
    tm__string_free(&json);
}

static const char *tiny_directory(const char *added) {
    const char *directory = test_scratch();
    char *json = tiny_json(&(tiny_parts){.added = added});
    write_raw(directory, "tokenizer.json", json);
    free(json);
    return directory;
}

static tm_tokenizer *load(const char *path) {
    tm_tokenizer *tok = NULL;
    assert_ok(tm_tokenizer_load(path, &tok));
    return tok;
}

static void expect_refused(const char *path, tm_status status, const char *says) {
    tm_tokenizer *tok = NULL;
    tm_status got = tm_tokenizer_load(path, &tok);
    if (got != status || !strstr(tm_error_last()->line, says))
        fail_msg("%s, not %s \"%s\": %s", tm_status_name(got), tm_status_name(status), says, tm_error_last()->line);
    assert_null(tok);
}

/* ---- bos, eos, pad -------------------------------------------------------------------------------------------------
 */

static void expect_marks(const char *directory, int32_t bos, int32_t eos, int32_t pad) {
    tm_tokenizer *tok = load(directory);
    assert_int_equal(tm_tokenizer_bos(tok), bos);
    assert_int_equal(tm_tokenizer_eos(tok), eos);
    assert_int_equal(tm_tokenizer_pad(tok), pad);
    tm_tokenizer_free(tok);
}

static void test_marks(void **state) {
    (void)state;
    const char *directory = tiny_directory("{'id': 276, 'content': '<|pad|>', 'special': true}");
    expect_marks(directory, -1, -1, -1);
    write_text(directory, "config.json", "{'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 999999}");
    expect_marks(directory, 1, 2, -1);
    write_text(directory, "generation_config.json", "{'eos_token_id': [275, 3], 'pad_token_id': 4}");
    expect_marks(directory, 1, 275, 4);
    write_text(directory, "special_tokens_map.json", "{'pad_token': {'content': '<|pad|>'}, 'eos_token': 'a'}");
    expect_marks(directory, 1, 97, 276);
    write_text(directory, "tokenizer_config.json",
               "{'eos_token': {'content': '<|end|>'}, 'bos_token': null, 'pad_token': '[PAD]', "
               "'model_max_length': 1000000000000000019884624838656}");
    expect_marks(directory, -1, 275, -1);
    write_text(directory, "tokenizer_config.json", "{'eos_token': '</nowhere>'}");
    expect_refused(directory, TM_FORMAT, "tokenizer_config.json: eos_token: \"</nowhere>\" is not in the vocabulary");
    write_text(directory, "tokenizer_config.json", "[]");
    expect_refused(directory, TM_FORMAT, "tokenizer_config.json: must hold an object");
    write_text(directory, "tokenizer_config.json", "{'added_tokens_decoder': {'x': {'content': 'y'}}}");
    expect_refused(directory, TM_FORMAT, "added_tokens_decoder: \"x\" is no id");
}

/* A token that a configuration names as eos can no longer be written in text. */
static void test_named_tokens_are_special(void **state) {
    (void)state;
    const char *directory = tiny_directory("{'id': 276, 'content': '<eos>', 'normalized': false, 'special': false}");
    tm_tokenizer *tok = load(directory);
    expect_ids(tok, "<eos>", 5, 0, (const int32_t[]){276}, 1);
    tm_tokenizer_free(tok);
    write_text(directory, "tokenizer_config.json", "{'eos_token': '<eos>'}");
    tok = load(directory);
    expect_ids(tok, "<eos>", 5, 0, (const int32_t[]){'<', 'e', 'o', 's', '>'}, 5);
    expect_ids(tok, "<eos>", 5, TM_ENCODE_PARSE_SPECIAL, (const int32_t[]){276}, 1);
    tm_tokenizer_free(tok);
}

/* Llama's class puts bos before a text if its configuration says so, whatever the template holds. */
static void test_llama_flags(void **state) {
    (void)state;
    const char *directory = tiny_directory(NULL);
    write_text(directory, "tokenizer_config.json",
               "{'tokenizer_class': 'LlamaTokenizerFast', 'bos_token': '<|end|>', 'add_bos_token': true, 'eos_token': "
               "'<|end|>', 'add_eos_token': true}");
    tm_tokenizer *tok = load(directory);
    expect_ids(tok, "a", 1, TM_ENCODE_BOS_EOS, (const int32_t[]){275, 'a', 275}, 3);
    tm_tokenizer_free(tok);
    write_text(directory, "tokenizer_config.json", "{'tokenizer_class': 'GPT2Tokenizer', 'add_bos_token': true}");
    tok = load(directory);
    expect_ids(tok, "a", 1, TM_ENCODE_BOS_EOS, (const int32_t[]){'a'}, 1);
    tm_tokenizer_free(tok);
}

/* ---- vocab.json and merges.txt ----------------------------------------------------------------------------------- */

/* The tiny vocabulary, its last merge spoiled by `line` if that is not NULL. */
static const char *split_directory(const char *line) {
    const char *directory = test_scratch();
    tm__string vocab = {0}, merges = {0};
    tiny_put(&vocab, "{");
    for (int byte = 0; byte < 256; byte++) tiny_put_byte(&vocab, byte);
    assert_true(tm__string_printf(&merges, "#version: 0.2\n"));
    for (size_t i = 0; i < TM__COUNT(tiny_merges); i++) {
        const char *space = strchr(tiny_merges[i], ' ');
        assert_true(tm__string_printf(&vocab, ", \"%.*s%s\": %zu", (int)(space - tiny_merges[i]), tiny_merges[i],
                                      space + 1, 256 + i));
        assert_true(tm__string_printf(&merges, "%s\r\n", tiny_merges[i]));
    }
    tiny_put(&vocab, ", '<|endoftext|>': 275}");
    if (line) tiny_put(&merges, line);
    write_raw(directory, "vocab.json", vocab.data);
    write_raw(directory, "merges.txt", merges.data);
    tm__string_free(&vocab);
    tm__string_free(&merges);
    return directory;
}

static void test_vocab_and_merges(void **state) {
    (void)state;
    static const char text[] = "hello world1234 e\314\201";
    const char *directory = split_directory(NULL);
    tm_tokenizer *tok = load(directory);
    expect_ids(tok, text, strlen(text), 0, (const int32_t[]){259, 264, 266, '4', ' ', 'e', 0xcc, 0x81}, 8);
    expect_round_trip(tok, text, strlen(text), text, strlen(text));
    assert_int_equal(tm_tokenizer_bos(tok), 275);
    assert_int_equal(tm_tokenizer_eos(tok), 275);
    expect_ids(tok, "<|endoftext|>", 13, TM_ENCODE_PARSE_SPECIAL, (const int32_t[]){275}, 1);
    tm_tokenizer_free(tok);

    write_text(directory, "tokenizer_config.json",
               "{'tokenizer_class': 'Qwen2Tokenizer', 'added_tokens_decoder': {'276': {'content': '<|im_start|>', "
               "'special': true}}}");
    write_text(directory, "added_tokens.json", "{'<|im_start|>': 276, '<|im_end|>': 277, 'plain': 278}");
    tok = load(directory);
    expect_ids(tok, text, strlen(text), 0, (const int32_t[]){259, 264, '1', '2', '3', '4', ' ', 273}, 8);
    expect_ids(tok, "<|im_end|>", 10, TM_ENCODE_PARSE_SPECIAL, (const int32_t[]){277}, 1);
    expect_ids(tok, "plain", 5, 0, (const int32_t[]){278}, 1);
    assert_int_equal(tm_tokenizer_vocab_size(tok), 279);
    assert_int_equal(tm_tokenizer_bos(tok), -1);
    tm_tokenizer_free(tok);

    write_text(directory, "added_tokens.json", "{'<|im_end|>': 259}");
    expect_refused(directory, TM_FORMAT, "id 259 belongs to another token");
    write_text(directory, "added_tokens.json", "{'<|im_end|>': 'x'}");
    expect_refused(directory, TM_FORMAT, "added_tokens.json: <|im_end|>: must be an id");
    expect_refused(split_directory("q q\n"), TM_FORMAT, "merges.txt: merges[19]: \"q\" + \"q\": their union");
    expect_refused(split_directory("qq\n"), TM_FORMAT, "merges.txt: merges[19]: \"qq\" must be two tokens");
}

static void test_copy_files(void **state) {
    (void)state;
    const char *from = split_directory(NULL), *to = test_scratch();
    write_text(from, "tokenizer_config.json", "{}");
    write_text(from, "unrelated.txt", "x");
    assert_ok(tm_tokenizer_copy_files(from, to));
    char path[128];
    snprintf(path, sizeof path, "%s/unrelated.txt", to);
    assert_false(tm__path_exists(path));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", to);
    assert_true(tm__path_exists(path));
    tm_tokenizer *tok = load(to);
    expect_ids(tok, "hello", 5, 0, (const int32_t[]){259}, 1);
    tm_tokenizer_free(tok);
}

/* ---- tiktoken ------------------------------------------------------------------------------------------------------
 */

static void put_line(tm__string *out, const char *bytes, size_t len, int rank) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = (uint32_t)(uint8_t)bytes[i] << 16;
        if (i + 1 < len) bits |= (uint32_t)(uint8_t)bytes[i + 1] << 8;
        if (i + 2 < len) bits |= (uint8_t)bytes[i + 2];
        char group[4] = {digits[bits >> 18], digits[bits >> 12 & 63], i + 1 < len ? digits[bits >> 6 & 63] : '=',
                         i + 2 < len ? digits[bits & 63] : '='};
        assert_true(tm__string_append(out, group, 4));
    }
    assert_true(tm__string_printf(out, " %d\n", rank));
}

static tm__string tiktoken_file(void) {
    static const char *const words[] = {"he", "ll", "llo", "hello", " w", "lo"};
    tm__string out = {0};
    for (int byte = 0; byte < 256; byte++) put_line(&out, &(char){(char)byte}, 1, byte);
    for (int i = 0; i < (int)TM__COUNT(words); i++) put_line(&out, words[i], strlen(words[i]), 256 + i);
    return out;
}

static void test_tiktoken(void **state) {
    (void)state;
    tm__string file = tiktoken_file();
    tm_tokenizer *tok = NULL;
    assert_ok(tm__tokenizer_load_memory("tokenizer.model", file.data, file.len, &tok));
    expect_ids(tok, "hello wo", 8, 0, (const int32_t[]){259, 260, 'o'}, 3);
    expect_ids(tok, "hellos", 6, 0, (const int32_t[]){259, 's'}, 2);
    expect_ids(tok, "xllo", 4, TM_ENCODE_BOS_EOS, (const int32_t[]){262, 'x', 258}, 3);
    expect_ids(tok, "1234", 4, 0, (const int32_t[]){'1', '2', '3', '4'}, 4);
    assert_int_equal(tm_tokenizer_vocab_size(tok), 262 + 256);
    assert_int_equal(tm_tokenizer_bos(tok), 262);
    assert_int_equal(tm_tokenizer_id(tok, "<|begin_of_text|>"), 262);
    assert_int_equal(tm_tokenizer_id(tok, "<|end_of_text|>"), 263);
    assert_int_equal(tm_tokenizer_id(tok, "<|reserved_special_token_0|>"), 264);
    assert_int_equal(tm_tokenizer_id(tok, "<|finetune_right_pad_id|>"), 266);
    assert_int_equal(tm_tokenizer_id(tok, "<|start_header_id|>"), 268);
    assert_int_equal(tm_tokenizer_id(tok, "<|eot_id|>"), 271);
    assert_int_equal(tm_tokenizer_id(tok, "<|reserved_special_token_247|>"), 517);
    expect_ids(tok, "<|eot_id|>", 10, TM_ENCODE_PARSE_SPECIAL, (const int32_t[]){271}, 1);
    expect_round_trip(tok, "hello <|eot_id|> \303\251", 20, "hello <|eot_id|> \303\251", 20);
    tm_tokenizer_free(tok);
    tok = NULL;
    static const char *const bad[] = {"aGU= 1\naGU 2\n",  "aGU=\n",           "aGU= x\n", "aGU= 99999999999\n",
                                      "aGU= 1\naGU= 2\n", "aGU= 1\nbGw= 1\n", "a*U= 1\n"};
    for (size_t i = 0; i < TM__COUNT(bad); i++)
        assert_int_equal(tm__tokenizer_load_memory("bad.model", bad[i], strlen(bad[i]), &tok), TM_FORMAT);
    tm__string_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks),       cmocka_unit_test(test_named_tokens_are_special),
        cmocka_unit_test(test_llama_flags), cmocka_unit_test(test_vocab_and_merges),
        cmocka_unit_test(test_copy_files),  cmocka_unit_test(test_tiktoken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
