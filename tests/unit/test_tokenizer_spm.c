/* SentencePiece models, written here piece by piece, and llama2.c's export. Ids follow from the scores by hand; the
 * models that follow real training are compared in parity.tokenizer_vectors. */
#include "tokenizer_fixture.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum { UNIGRAM = 1, BPE, WORD };
#define MARK "\342\226\201"

/* ---- protobuf writer --------------------------------------------------------------------------------------------- */

static void put_varint(tm__string *out, uint64_t value) {
    do {
        char byte = (char)(value & 0x7f);
        value >>= 7;
        if (value) byte = (char)(byte | (char)0x80);
        assert_true(tm__string_append(out, &byte, 1));
    } while (value);
}

static void put_number(tm__string *out, int number, uint64_t value) {
    put_varint(out, (uint64_t)number << 3);
    put_varint(out, value);
}

static void put_bytes(tm__string *out, int number, const char *bytes, size_t len) {
    put_varint(out, (uint64_t)number << 3 | 2);
    put_varint(out, len);
    assert_true(tm__string_append(out, bytes, len));
}

static void put_message(tm__string *out, int number, tm__string *message) {
    put_bytes(out, number, message->data ? message->data : "", message->len);
    tm__string_free(message);
}

static void put_float(tm__string *out, int number, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put_varint(out, (uint64_t)number << 3 | 5);
    for (int i = 0; i < 4; i++) assert_true(tm__string_append(out, &(char){(char)(bits >> (8 * i))}, 1));
}

static void put_piece(tm__string *out, const char *text, float score, int type) {
    tm__string piece = {0};
    put_bytes(&piece, 1, text, strlen(text));
    put_float(&piece, 2, score);
    if (type != NORMAL) put_number(&piece, 3, (uint64_t)type);
    put_message(out, 1, &piece);
}

static void put_byte_pieces(tm__string *out) {
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        put_piece(out, text, 0, BYTE);
    }
}

static void put_trainer(tm__string *out, int model, bool byte_fallback) {
    tm__string trainer = {0};
    put_number(&trainer, 3, (uint64_t)model);
    put_number(&trainer, 35, byte_fallback);
    put_number(&trainer, 43, UINT64_MAX); /* pad_id -1 */
    put_message(out, 2, &trainer);
}

static void put_normalizer(tm__string *out, bool dummy, bool remove, const char *map, size_t map_len) {
    tm__string normalizer = {0};
    put_bytes(&normalizer, 2, map, map_len);
    put_number(&normalizer, 3, dummy);
    put_number(&normalizer, 4, remove);
    put_message(out, 3, &normalizer);
}

static tm_tokenizer *load(tm__string *model) {
    tm_tokenizer *tok = NULL;
    assert_ok(tm__tokenizer_load_memory("tiny.model", model->data, model->len, &tok));
    tm__string_free(model);
    return tok;
}

static void start(tm__string *out) {
    put_piece(out, "<unk>", 0, UNKNOWN);
    put_piece(out, "<s>", 0, CONTROL);
    put_piece(out, "</s>", 0, CONTROL);
}

/* Ids: 3 to 258 bytes, then the pieces below from 259. */
enum { P = 259, A, B, C, AB, BC, PAB, ABC, AA, XY, TAB };
static tm__string bpe_model(bool remove) {
    tm__string out = {0};
    start(&out);
    put_byte_pieces(&out);
    put_piece(&out, MARK, -100, NORMAL);
    put_piece(&out, "a", -101, NORMAL);
    put_piece(&out, "b", -102, NORMAL);
    put_piece(&out, "c", -103, NORMAL);
    put_piece(&out, "ab", -1, NORMAL);
    put_piece(&out, "bc", -2, NORMAL);
    put_piece(&out, MARK "ab", -3, NORMAL);
    put_piece(&out, "abc", -4, NORMAL);
    put_piece(&out, "aa", -5, NORMAL);
    put_piece(&out, "xy", -6, NORMAL); /* x and y are no pieces */
    put_piece(&out, "\t<tab>", 0, USER);
    put_trainer(&out, BPE, true);
    put_normalizer(&out, true, remove, "", 0);
    return out;
}

#define EXPECT(tok, text, flags, ...)                                        \
    do {                                                                     \
        const int32_t want_[] = {__VA_ARGS__};                               \
        expect_ids(tok, text, strlen(text), flags, want_, TM__COUNT(want_)); \
    } while (0)

static void check_bpe(const tm_tokenizer *tok) {
    EXPECT(tok, "abc", 0, PAB, C);
    EXPECT(tok, "bc", 0, P, BC);
    EXPECT(tok, "aaa", 0, P, AA, A); /* the leftmost of equals */
    EXPECT(tok, "cab c", 0, P, C, AB, P, C);
    EXPECT(tok, "a  b", 0, P, A, P, P, B);
    EXPECT(tok, "\303\251", 0, P, 3 + 0xc3, 3 + 0xa9);
    EXPECT(tok, "a", TM_ENCODE_BOS_EOS, 1, P, A);
    EXPECT(tok, "<s>a", TM_ENCODE_PARSE_SPECIAL, 1, P, A);
    EXPECT(tok, "abc", TM__ENCODE_CONTINUE, ABC);
    EXPECT(tok, " a ", TM__ENCODE_CONTINUE, P, A, P);
    EXPECT(tok, "\xff", 0, P, 3 + 0xef, 3 + 0xbf, 3 + 0xbd);
    expect_ids(tok, "", 0, 0, NULL, 0);
}

static void test_bpe(void **state) {
    (void)state;
    tm__string model = bpe_model(false);
    tm_tokenizer *tok = load(&model);
    assert_string_equal(tm_tokenizer_kind(tok), "SentencePiece BPE");
    assert_int_equal(tm_tokenizer_bos(tok), 1);
    assert_int_equal(tm_tokenizer_eos(tok), 2);
    assert_int_equal(tm_tokenizer_pad(tok), -1);
    check_bpe(tok);
    EXPECT(tok, "xyx", 0, P, XY, 3 + 'x');
    EXPECT(tok, "a\t<tab>b", 0, P, A, TAB, B);
    EXPECT(tok, "<s>", 0, P, 3 + '<', 3 + 's', 3 + '>');
    expect_text(tok, (const int32_t[]){1, PAB, C, P, A, 2}, 6, 0, "<s>abc a</s>");
    expect_text(tok, (const int32_t[]){1, PAB, C, P, A, 2}, 6, TM_DECODE_SKIP_SPECIAL, "abc a");
    expect_text(tok, (const int32_t[]){P, 3 + 0xc3, 3 + 0xa9, 3 + 0xc3, 3 + 0xff, A}, 6, 0,
                "\303\251\357\277\275\357\277\275a");
    expect_text(tok, (const int32_t[]){0, A}, 2, 0, " \342\201\207 a");
    expect_round_trip(tok, "  a\nb  ", 7, "  a\nb  ", 7);
    tm_tokenizer_free(tok);
}

static void test_extra_spaces(void **state) {
    (void)state;
    tm__string model = bpe_model(true);
    tm_tokenizer *tok = load(&model);
    EXPECT(tok, "  a   b  ", 0, P, A, P, B);
    expect_ids(tok, "   ", 3, 0, NULL, 0);
    tm_tokenizer_free(tok);
}

/* The JSON that is written encodes to the same ids, where the pieces allow it (xy needs string merges). */
static void test_write_json(void **state) {
    (void)state;
    char path[128];
    for (int remove = 0; remove < 2; remove++) {
        tm__string model = bpe_model(remove);
        tm_tokenizer *source = load(&model), *written = NULL;
        const char *directory = test_scratch();
        snprintf(path, sizeof path, "%s/tokenizer.json", directory);
        assert_ok(tm__tokenizer_write_json(source, path));
        assert_ok(tm_tokenizer_load(directory, &written));
        if (!remove) check_bpe(written);
        if (remove) EXPECT(written, "  a   b  \342\226\201", 0, P, A, P, B);
        EXPECT(written, "a\t<tab>b", 0, P, A, TAB, P, B); /* the one difference; see write_json.c */
        expect_text(written, (const int32_t[]){PAB, C, P, A}, 4, 0, "abc a");
        assert_int_equal(tm_tokenizer_bos(written), 1);
        assert_int_equal(tm_tokenizer_eos(written), 2);
        tm_tokenizer_free(source);
        tm_tokenizer_free(written);
    }
    tm_tokenizer *tiny = tiny_load(&(tiny_parts){0});
    assert_int_equal(tm__tokenizer_write_json(tiny, path), TM_UNSUPPORTED);
    tm_tokenizer_free(tiny);
}

/* A double array for the one entry "A" -> "bb": units as in Darts-clone, see spm_normalize.c. */
static void test_character_map(void **state) {
    (void)state;
    enum { ROOT = 256, NODE = ROOT ^ 'A', LEAF = 400, UNITS = 512 };
    uint32_t units[UNITS] = {0};
    units[0] = (uint32_t)ROOT << 10;
    units[NODE] = 'A' | 1u << 8 | (uint32_t)(NODE ^ LEAF) << 10;
    units[LEAF] = 1u << 31 | 0;
    tm__string map = {0}, model = {0};
    assert_true(tm__string_append(&map, "\0\x08\0\0", 4)); /* 2048 bytes */
    assert_true(tm__string_append(&map, (const char *)units, sizeof units));
    assert_true(tm__string_append(&map, "bb", 3));
    start(&model);
    put_piece(&model, MARK, -1, NORMAL);
    put_piece(&model, "b", -2, NORMAL);
    put_piece(&model, "bb", -3, NORMAL);
    put_trainer(&model, BPE, false);
    put_normalizer(&model, true, false, map.data, map.len);
    tm_tokenizer *tok = load(&model);
    EXPECT(tok, "Ab", 0, 3, 5, 4);
    EXPECT(tok, "BB!b", 0, 3, 0, 4); /* unknown characters in a row are one */
    tm_tokenizer_free(tok);
    put_piece(&model, "x", 0, NORMAL);
    map.data[1] = 0x7f;
    put_normalizer(&model, true, false, map.data, map.len);
    assert_int_equal(tm__tokenizer_load_memory("map.model", model.data, model.len, &tok), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "precompiled_charsmap"));
    tm__string_free(&model);
    tm__string_free(&map);
}

static void test_unigram(void **state) {
    (void)state;
    tm__string model = {0};
    start(&model);
    put_piece(&model, MARK, -2, NORMAL);     /* 3 */
    put_piece(&model, "a", -3, NORMAL);      /* 4 */
    put_piece(&model, "b", -3.5f, NORMAL);   /* 5 */
    put_piece(&model, "ab", -5, NORMAL);     /* 6 */
    put_piece(&model, MARK "a", -6, NORMAL); /* 7 */
    put_piece(&model, "ba", -6.5f, NORMAL);  /* 8: as good as b and a, which come first */
    put_piece(&model, "zz", -1, UNUSED);
    put_trainer(&model, UNIGRAM, false);
    put_normalizer(&model, true, true, "", 0);
    tm_tokenizer *tok = load(&model);
    assert_string_equal(tm_tokenizer_kind(tok), "SentencePiece Unigram");
    EXPECT(tok, "ab", 0, 3, 6); /* -2 - 5 beats -6 - 3.5 and -2 - 3 - 3.5 */
    EXPECT(tok, "aab a", 0, 3, 4, 6, 3, 4);
    EXPECT(tok, "ba", 0, 3, 8);
    EXPECT(tok, "zzz!a", 0, 3, 0, 4); /* unused pieces are not taken, unknown ones fuse */
    tm_tokenizer_free(tok);
}

/* ---- malformed --------------------------------------------------------------------------------------------------- */

static void expect_refused(tm__string *model, tm_status status, const char *says) {
    tm_tokenizer *tok = NULL;
    tm_status got = tm__tokenizer_load_memory("bad.model", model->data, model->len, &tok);
    if (got != status || !strstr(tm_error_last()->line, says))
        fail_msg("%s, not %s \"%s\": %s", tm_status_name(got), tm_status_name(status), says, tm_error_last()->line);
    assert_string_equal(tm_error_last()->file, "bad.model");
    tm__string_free(model);
}

static void expect_piece_refused(const char *text, float score, int type, tm_status status, const char *says) {
    tm__string model = {0};
    start(&model);
    put_piece(&model, text, score, type);
    put_trainer(&model, BPE, false);
    expect_refused(&model, status, says);
}

static void test_malformed(void **state) {
    (void)state;
    tm__string model = {0};
    expect_piece_refused("", 0, NORMAL, TM_FORMAT, "piece 3: is empty");
    expect_piece_refused("a", NAN, NORMAL, TM_FORMAT, "piece 3: score is not finite");
    expect_piece_refused("a", -INFINITY, NORMAL, TM_FORMAT, "piece 3: score is not finite");
    expect_piece_refused("a", 0, 9, TM_FORMAT, "piece 3: unknown type");
    expect_piece_refused("\xff", 0, NORMAL, TM_FORMAT, "is not valid UTF-8");
    expect_piece_refused("<s>", 0, NORMAL, TM_FORMAT, "repeats a token");
    expect_piece_refused("<0xZZ>", 0, BYTE, TM_FORMAT, "piece 3: is of type byte");
    expect_piece_refused("a", 0, UNUSED, TM_UNSUPPORTED, "piece 3 is of type unused");
    expect_piece_refused("?", 0, UNKNOWN, TM_FORMAT, "two of type unknown");
    put_piece(&model, "a", 0, NORMAL);
    put_trainer(&model, BPE, false);
    expect_refused(&model, TM_FORMAT, "none of type unknown");
    start(&model);
    put_trainer(&model, BPE, true);
    expect_refused(&model, TM_FORMAT, "byte_fallback needs 256 byte pieces, 0 are there");
    start(&model);
    put_trainer(&model, WORD, false);
    expect_refused(&model, TM_UNSUPPORTED, "trainer_spec.model_type: 3");
    start(&model);
    assert_true(tm__string_append(&model, "\x0b", 1)); /* wire type 3 */
    expect_refused(&model, TM_FORMAT, "protobuf: unknown wire type");
    start(&model);
    assert_true(tm__string_append(&model, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11));
    expect_refused(&model, TM_FORMAT, "protobuf: text runs past the end");
    start(&model);
    assert_true(tm__string_append(&model, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12));
    expect_refused(&model, TM_FORMAT, "protobuf: number longer than 64 bits");
}

/* Cut anywhere: refused, or (between two messages) a smaller model. */
static void test_cut_short(void **state) {
    (void)state;
    tm__string model = bpe_model(false);
    for (size_t part = 0; part < model.len; part += part < model.len - 200 ? 31 : 1) {
        char *copy = tm__strndup(model.data, part);
        tm_tokenizer *tok = NULL;
        assert_non_null(copy);
        tm_status status = tm__tokenizer_load_memory("cut.model", copy, part, &tok);
        assert_int_equal(status == TM_OK, tok != NULL);
        tm_tokenizer_free(tok);
        free(copy);
    }
    tm__string_free(&model);
}

static void test_out_of_memory(void **state) {
    (void)state;
    tm__string model = bpe_model(true);
    for (long n = 1;; n++) {
        tm_tokenizer *tok = NULL;
        tm_ids ids = {0};
        tm__alloc_fail_at(n, false);
        tm_status status = tm__tokenizer_load_memory("tiny.model", model.data, model.len, &tok);
        if (status == TM_OK) status = tm_tokenizer_encode(tok, "abc xyx \303\251", 10, 0, &ids);
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
        if (status != TM_OK) assert_int_equal(ids.len, 0);
        tm_ids_free(&ids);
        tm_tokenizer_free(tok);
        if (status == TM_OK) break;
    }
    tm__string_free(&model);
}

/* ---- llama2.c ---------------------------------------------------------------------------------------------------- */

static void put_exported(tm__string *out, const char *text, float score) {
    uint32_t len = (uint32_t)strlen(text);
    assert_true(tm__string_append(out, (const char *)&score, 4) && tm__string_append(out, (const char *)&len, 4) &&
                tm__string_append(out, text, len));
}

static void test_llama2c(void **state) {
    (void)state;
    static const char *const pieces[] = {" ", "a", "b", "c", "ab", "bc", " ab", "abc", "aa"};
    static const float scores[] = {-100, -101, -102, -103, -1, -2, -3, -4, -5};
    tm__string out = {0};
    tm_tokenizer *tok = NULL;
    assert_true(tm__string_append(&out, "\x06\0\0\0", 4));
    put_exported(&out, "<unk>", 0);
    put_exported(&out, "\n<s>\n", 0);
    put_exported(&out, "\n</s>\n", 0);
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        put_exported(&out, text, 0);
    }
    for (size_t i = 0; i < TM__COUNT(pieces); i++) put_exported(&out, pieces[i], scores[i]);
    assert_ok(tm__tokenizer_load_memory("tok.bin", out.data, out.len, &tok));
    check_bpe(tok);
    assert_string_equal(tm_tokenizer_piece(tok, 1), "<s>");
    assert_string_equal(tm_tokenizer_piece(tok, P), MARK);
    expect_round_trip(tok, " ab  c ", 7, " ab  c ", 7);
    tm_tokenizer_free(tok);
    tok = NULL;
    for (size_t part = 0; part < out.len; part += part < 100 ? 1 : 37)
        assert_int_equal(tm__tokenizer_load_memory("tok.bin", out.data, TM__MIN(part, (size_t)3000), &tok), TM_FORMAT);
    out.data[8] = 0x7f;
    assert_int_equal(tm__tokenizer_load_memory("tok.bin", out.data, out.len, &tok), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "tok.bin: piece 0: length does not fit"));
    tm__string_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe),       cmocka_unit_test(test_extra_spaces),  cmocka_unit_test(test_write_json),
        cmocka_unit_test(test_unigram),   cmocka_unit_test(test_character_map), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_cut_short), cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_llama2c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
