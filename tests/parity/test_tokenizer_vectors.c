/* Real tokenizers against the published test vectors: texts and the ids that the reference implementations give
 * (gpt-2, qwen2: transformers; llama-bpe: tiktoken; llama-spm: sentencepiece). */
#include "support.h"
#include "tokenizer/tokenizer.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"

typedef struct vectors {
    char *texts, *ids;
    size_t texts_len, ids_len;
} vectors;

static vectors read_vectors(const char *name) {
    vectors v;
    char path[128];
    snprintf(path, sizeof path, "tokenizers/vectors/ggml-vocab-%s.gguf.inp", name);
    assert_ok(tm__file_read(test_shared(path), 0, &v.texts, &v.texts_len));
    snprintf(path, sizeof path, "tokenizers/vectors/ggml-vocab-%s.gguf.out", name);
    assert_ok(tm__file_read(test_shared(path), 0, &v.ids, &v.ids_len));
    return v;
}

static void free_vectors(vectors *v) {
    free(v->texts);
    free(v->ids);
}

static tm_tokenizer *load(const char *path) {
    char full[256];
    tm_tokenizer *tok = NULL;
    snprintf(full, sizeof full, "tokenizers/%s", path);
    assert_ok(tm_tokenizer_load(test_shared(full), &tok));
    return tok;
}

/* The ids of one line; returns the start of the next. */
static const char *parse_line(const char *line, tm_ids *ids) {
    ids->len = 0;
    while (*line && *line != '\n') {
        char *end;
        long id = strtol(line, &end, 10);
        if (end == line) break;
        assert_ok(tm_ids_push(ids, (int32_t)id));
        line = end;
    }
    while (*line && *line != '\n') line++;
    return *line ? line + 1 : line;
}

static void compare(const tm_ids *got, const tm_ids *want, int number, const char *text, size_t len) {
    if (got->len == want->len && (!got->len || memcmp(got->data, want->data, got->len * sizeof *got->data) == 0))
        return;
    fail_msg("vector %d \"%.*s\": %zu ids, not %zu, or other ones", number, (int)len, text, got->len, want->len);
}

static void check_round_trip(const tm_tokenizer *tok, const tm_ids *ids, const char *text, size_t len) {
    char *back;
    size_t back_len;
    assert_ok(tm_tokenizer_decode(tok, ids->data, ids->len, 0, &back, &back_len));
    assert_int_equal(back_len, len);
    assert_memory_equal(back, text, len);
    free(back);
}

/* All vectors, and each once more with everything warm. */
static void check_vectors(const char *name, const char *path) {
    vectors v = read_vectors(name);
    tm_tokenizer *tok = load(path);
    tm_ids want = {0}, got = {0};
    int number = 0;
    const char *line = v.ids, *text = v.texts;
    for (const char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR), number++) {
        size_t len = (size_t)(end - text);
        line = parse_line(line, &want);
        for (int again = 0; again < 2; again++) {
            got.len = 0;
            assert_ok(tm_tokenizer_encode(tok, text, len, 0, &got));
            compare(&got, &want, number, text, len);
        }
        check_round_trip(tok, &got, text, len);
    }
    assert_int_equal(number, 46);
    tm_ids_free(&want);
    tm_ids_free(&got);
    tm_tokenizer_free(tok);
    free_vectors(&v);
}

static void test_gpt2(void **state) {
    (void)state, check_vectors("gpt-2", "gpt2");
}
static void test_qwen2(void **state) {
    (void)state, check_vectors("qwen2", "qwen2");
}
static void test_llama3(void **state) {
    (void)state, check_vectors("llama-bpe", "llama3");
}
static void test_llama2(void **state) {
    (void)state, check_vectors("llama-spm", "llama2/tokenizer.model");
}
static void test_llama2_exported(void **state) {
    (void)state, check_vectors("llama-spm", "llama2/tokenizer.bin");
}
/* Phi-3's first 32,000 ids are Llama 2's, out of a tokenizer.json. */
static void test_phi3(void **state) {
    (void)state, check_vectors("llama-spm", "phi-3-mini/tokenizer.json");
}

/* The same ids from two tokenizers for all vectors' texts, with what stands around a text. */
static void check_same(const tm_tokenizer *a, const tm_tokenizer *b) {
    vectors v = read_vectors("llama-spm");
    tm_ids from_a = {0}, from_b = {0};
    int number = 0;
    const char *text = v.texts;
    for (const char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR), number++) {
        size_t len = (size_t)(end - text);
        from_a.len = from_b.len = 0;
        assert_ok(tm_tokenizer_encode(a, text, len, TM_ENCODE_BOS_EOS, &from_a));
        assert_ok(tm_tokenizer_encode(b, text, len, TM_ENCODE_BOS_EOS, &from_b));
        compare(&from_a, &from_b, number, text, len);
    }
    tm_ids_free(&from_a);
    tm_ids_free(&from_b);
    free_vectors(&v);
}

/* A tokenizer.json written from a SentencePiece file. */
static void check_written(const char *source_path) {
    const char *directory = test_scratch();
    char path[128];
    tm_tokenizer *source = load(source_path), *written = NULL;
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    assert_ok(tm__tokenizer_write_json(source, path));
    assert_ok(tm_tokenizer_load(directory, &written));
    check_same(source, written);
    assert_int_equal(tm_tokenizer_vocab_size(source), tm_tokenizer_vocab_size(written));
    tm_tokenizer_free(source);
    tm_tokenizer_free(written);
}

static void test_written(void **state) {
    (void)state;
    check_written("llama2/tokenizer.model");
    check_written("tok512/tok512.model");
    check_written("tok512/tok512.bin");
}

static void test_marks(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int32_t size, bos, eos, pad;
    } cases[] = {{"llama2", 32000, 1, 2, -1},           {"llama3", 128256, 128000, 128001, 128004},
                 {"qwen2", 151646, -1, 151645, 151643}, {"gpt2", 50257, 50256, 50256, -1},
                 {"phi-2", 50295, 50256, 50256, -1},    {"phi-3-mini", 32011, 1, 32000, 32000},
                 {"tok512/tok512.model", 512, 1, 2, -1}};
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        /* llama2's directory holds no tokenizer.json */
        tm_tokenizer *tok = load(cases[i].path);
        assert_int_equal(tm_tokenizer_vocab_size(tok), cases[i].size);
        assert_int_equal(tm_tokenizer_bos(tok), cases[i].bos);
        assert_int_equal(tm_tokenizer_eos(tok), cases[i].eos);
        assert_int_equal(tm_tokenizer_pad(tok), cases[i].pad);
        tm_tokenizer_free(tok);
    }
}

/* Phi-2 keeps runs of blanks as added tokens that are not special. */
static void test_phi2(void **state) {
    (void)state;
    tm_tokenizer *tok = load("phi-2");
    tm_ids ids = {0};
    assert_ok(tm_tokenizer_encode(tok, "if x:\n    y\t\tz", 14, 0, &ids));
    const int32_t want[] = {361, 2124, 25, 198, 50284, 88, 50294, 89};
    assert_int_equal(ids.len, TM__COUNT(want));
    assert_memory_equal(ids.data, want, sizeof want);
    tm_ids_free(&ids);
    tm_tokenizer_free(tok);
}

/* A broken export: in four entries a no-break space became a space. */
static void test_defect(void **state) {
    (void)state;
    tm_tokenizer *tok = NULL;
    const char *path = test_shared("tokenizers/llama2/tokenizer.json.nbsp_defect");
    assert_non_null(path);
    assert_int_equal(tm_tokenizer_load(path, &tok), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "merges[18917]: \"   \" must be two tokens with a space between"));
    assert_null(tok);
}

int main(void) {
    TEST_NEEDS_SHARED("tokenizers/vectors/ggml-vocab-gpt-2.gguf.inp");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),    cmocka_unit_test(test_qwen2),           cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_llama2),  cmocka_unit_test(test_llama2_exported), cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_written), cmocka_unit_test(test_marks),           cmocka_unit_test(test_phi2),
        cmocka_unit_test(test_defect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
