/* Base layer: errors, memory, arena, strings, map, random numbers, UTF-8, SHA-256. Files, JSON and options have
 * programs of their own. */
#include "base/sha256.h"
#include "support.h"

#include <pthread.h>

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void error_line(void **state) {
    (void)state;
    assert_int_equal(tm__fail(TM_FORMAT, "a.json", "head_dim", "see docs", "must be %d", 4), TM_FORMAT);
    assert_string_equal(tm_error_last()->line, "a.json: head_dim: must be 4 (see docs)");
    tm__fail(TM_IO, NULL, NULL, NULL, "plain");
    assert_string_equal(tm_error_last()->line, "plain");
    assert_int_equal(tm__error_within("file", "field"), TM_IO);
    assert_string_equal(tm_error_last()->line, "file: field: plain");
    tm__error_within("other", "other");
    assert_string_equal(tm_error_last()->line, "file: field: plain");
    tm__fail(TM_IO, "a\nb\x1b[31m", "\xc2\x9b\xff", NULL, "\xe2\x82\xac \x7f");
    assert_string_equal(tm_error_last()->line, "a?b?[31m: ??: \xe2\x82\xac ?");
    assert_string_equal(tm_error_last()->file, "a\nb\x1b[31m");
    tm__fail(TM_IO, tm_error_last()->file, tm_error_last()->message, NULL, "of itself: %s", tm_error_last()->field);
    assert_string_equal(tm_error_last()->field, "\xe2\x82\xac \x7f");
    assert_string_equal(tm_error_last()->message, "of itself: \xc2\x9b\xff");
    tm_error_clear();
    assert_int_equal(tm_error_last()->status, TM_OK);
    assert_string_equal(tm_error_last()->line, "");
}

static void error_truncation(void **state) {
    (void)state;
    char path[600], text[1200];
    memset(path, 'd', sizeof path);
    memcpy(path + sizeof path - 8, "/x.json", 8); /* the end of a path is what tells it apart */
    for (size_t i = 0; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 3);
    tm__fail(TM_IO, path, text, text, "%s", text);
    const tm_error *e = tm_error_last();
    assert_memory_equal(e->file, "...ddd", 6);
    assert_string_equal(e->file + strlen(e->file) - 7, "/x.json");
    assert_true(strlen(e->file) < sizeof e->file);
    assert_true(tm__utf8_valid(e->field, strlen(e->field)) && strlen(e->field) >= sizeof e->field - 3);
    assert_true(tm__utf8_valid(e->message, strlen(e->message)) && strlen(e->message) >= sizeof e->message - 3);
    assert_true(tm__utf8_valid(e->line, strlen(e->line)));
    assert_null(strchr(e->line, '?'));
    assert_int_equal(e->line[strlen(e->line) - 1], ')');
}

static void error_status(void **state) {
    (void)state;
    assert_string_equal(tm_status_name(TM_FORMAT), "FORMAT");
    assert_string_equal(tm_status_text(TM_OK), "ok");
    assert_int_equal(tm_status_exit_code(TM_INTERRUPTED), 130);
    assert_int_equal(tm_status_exit_code(TM_INVALID), 2);
    assert_string_equal(tm_status_name((tm_status)99), "UNKNOWN");
    assert_int_equal(tm_status_exit_code((tm_status)-1), 1);
}

static void *fail_in_thread(void *arg) {
    tm__fail(TM_IO, NULL, NULL, NULL, "of the thread");
    *(bool *)arg = strcmp(tm_error_last()->line, "of the thread") == 0;
    return NULL;
}

static void error_is_per_thread(void **state) {
    (void)state;
    pthread_t thread;
    bool seen = false;
    tm__fail(TM_FORMAT, NULL, NULL, NULL, "of main");
    assert_int_equal(pthread_create(&thread, NULL, fail_in_thread, &seen), 0);
    pthread_join(thread, NULL);
    assert_true(seen);
    assert_string_equal(tm_error_last()->line, "of main");
}

static void keep_note(void *user, const char *line) {
    snprintf(user, 64, "%s", line);
}
static bool always(void *user) {
    return user != NULL;
}

static void monitor(void **state) {
    (void)state;
    char seen[64] = "";
    const tm_monitor quiet = {0}, loud = {.note = keep_note, .stop = always, .user = seen};
    tm__note(NULL, "x");
    tm__note(&quiet, "x");
    assert_false(tm__stop(NULL) || tm__stop(&quiet));
    assert_true(tm__stop(&loud));
    tm__note(&loud, "step %d\nof two", 1);
    assert_string_equal(seen, "step 1?of two");
    double before = tm__now();
    assert_true(tm__now() >= before && before > 0);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void allocation(void **state) {
    (void)state;
    assert_null(tm__alloc(SIZE_MAX / 2, 3));
    assert_null(tm__zalloc(SIZE_MAX, SIZE_MAX));
    assert_null(tm__alloc_aligned(SIZE_MAX));
    char *old = tm__strdup("old");
    assert_null(tm__realloc(old, SIZE_MAX / 2, 4));
    assert_string_equal(old, "old");
    free(old);
    void *empty = tm__alloc(0, 8), *aligned = tm__alloc_aligned(0), *more = tm__alloc_aligned(100);
    assert_true(empty && aligned && more);
    assert_int_equal((uintptr_t)aligned % 64, 0);
    assert_int_equal((uintptr_t)more % 64, 0);
    memset(more, 1, 100);
    free(empty);
    free(aligned);
    free(more);
    char *text = tm__format("%d-%s", 7, "x");
    assert_string_equal(text, "7-x");
    free(text);
}

static void allocation_failure(void **state) {
    (void)state;
    tm__alloc_fail_at(2, false);
    void *a = tm__alloc(1, 1), *b = tm__alloc(1, 1), *c = tm__alloc(1, 1);
    tm__alloc_fail_at(0, false);
    assert_true(a && !b && c);
    free(a);
    free(c);
    tm__alloc_fail_at(2, true);
    a = tm__zalloc(1, 1), b = tm__strdup("x"), c = tm__alloc_aligned(1);
    tm__alloc_fail_at(0, false);
    assert_true(a && !b && !c);
    free(a);
    assert_int_equal(tm__fail_memory(), TM_NO_MEMORY);
    assert_non_null(strstr(tm_error_last()->line, "out of memory"));
}

static void growing(void **state) {
    (void)state;
    int *array = NULL;
    size_t cap = 0;
    for (int i = 0; i < 1000; i++) {
        assert_true(tm__grow((void **)&array, &cap, (size_t)i + 1, sizeof *array));
        array[i] = i;
    }
    assert_true(cap >= 1000 && cap < 4000 && array[999] == 999);
    assert_false(tm__grow((void **)&array, &cap, SIZE_MAX, sizeof *array));
    assert_int_equal(array[500], 500);
    free(array);
}

static void arena(void **state) {
    (void)state;
    tm__arena a = {0};
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        uint8_t *p = tm__arena_alloc(&a, 1, size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < size; i++) assert_int_equal(p[i], 0);
        memset(p, 0xff, size);
    }
    assert_string_equal(tm__arena_strdup(&a, "hello world", 5), "hello");
    tm__arena_reset(&a);
    tm__alloc_fail_at(1, true); /* the kept block is enough: nothing is allocated */
    uint8_t *p = tm__arena_alloc(&a, 100000, 1);
    tm__alloc_fail_at(0, false);
    assert_non_null(p);
    assert_int_equal(p[0] | p[99999], 0);
    assert_null(tm__arena_alloc(&a, SIZE_MAX, 2));
    tm__arena_release(&a);
    assert_non_null(tm__arena_alloc(&a, 1, 1));
    tm__arena_release(&a);
}

static void string(void **state) {
    (void)state;
    tm__string s = {0};
    assert_true(tm__string_append(&s, "", 0));
    assert_string_equal(s.data, "");
    for (int i = 0; i < 100; i++) assert_true(tm__string_printf(&s, "%d,", i));
    assert_true(tm__string_append(&s, "\0z", 2));
    assert_int_equal(s.len, strlen(s.data) + 2);
    assert_memory_equal(s.data, "0,1,2,", 6);
    tm__string_free(&s);
    assert_null(s.data);
}

static void map(void **state) {
    (void)state;
    tm__map m = {0};
    char key[16];
    int32_t value = -1;
    assert_false(tm__map_get(&m, "x", 1, &value));
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key%d", i);
        assert_true(tm__map_put(&m, key, strlen(key), i));
    }
    assert_true(tm__map_put(&m, "key5", 4, -5));
    assert_true(tm__map_put(&m, "", 0, 77));
    assert_true(tm__map_put(&m, "a\0b", 3, 78));
    assert_int_equal(m.len, 20002);
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key%d", i);
        assert_true(tm__map_get(&m, key, strlen(key), &value));
        assert_int_equal(value, i == 5 ? -5 : i);
    }
    assert_true(tm__map_get(&m, "", 0, &value) && value == 77);
    assert_true(tm__map_get(&m, "a\0b", 3, &value) && value == 78);
    assert_false(tm__map_get(&m, "a", 1, &value));
    assert_false(tm__map_get(&m, "key20000", 8, NULL));
    tm__map_free(&m);
    for (long n = 1; n < 10; n++) { /* every allocation may fail; the map stays usable */
        tm__alloc_fail_at(n, false);
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "%d", i);
            if (!tm__map_put(&m, key, strlen(key), i)) assert_true(tm__map_put(&m, key, strlen(key), i));
        }
        tm__alloc_fail_at(0, false);
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "%d", i);
            assert_true(tm__map_get(&m, key, strlen(key), &value) && value == i);
        }
        tm__map_free(&m);
    }
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* Random123's published known-answer vectors (kat_vectors, philox4x32 10). */
static void philox_known_answers(void **state) {
    (void)state;
    static const uint32_t cases[3][10] = {{0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                          {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff,
                                           0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                          {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0,
                                           0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        tm__philox(cases[i], cases[i] + 4, out);
        assert_memory_equal(out, cases[i] + 6, sizeof out);
    }
}

static void rng_streams(void **state) {
    (void)state;
    tm__rng a = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 0)), b = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 1));
    tm__rng c = tm__rng_make(2, tm__stream(TM__STREAM_TEST, 0)), a2 = a;
    int equal_b = 0, equal_c = 0;
    for (int i = 0; i < 100; i++) {
        uint32_t x = tm__rng_u32(&a);
        assert_int_equal(x, tm__rng_u32(&a2));
        equal_b += x == tm__rng_u32(&b);
        equal_c += x == tm__rng_u32(&c);
    }
    assert_true(equal_b <= 1 && equal_c <= 1);
    /* The documented layout: counter low half = block number, high half = stream, key = seed. */
    tm__rng r = tm__rng_make(0x0123456789abcdef, 0x1122334455667788);
    for (int i = 0; i < 4; i++) tm__rng_u32(&r);
    uint32_t counter[4] = {1, 0, 0x55667788, 0x11223344}, key[2] = {0x89abcdef, 0x01234567}, out[4];
    tm__philox(counter, key, out);
    for (int i = 0; i < 4; i++) assert_int_equal(tm__rng_u32(&r), out[i]);
}

static void rng_distributions(void **state) {
    (void)state;
    enum { N = 200000 };
    tm__rng r = tm__rng_make(3, tm__stream(TM__STREAM_TEST, 2));
    double sum = 0, squares = 0, cubes = 0, fourths = 0, uniform = 0;
    for (int i = 0; i < N; i++) {
        double x = tm__rng_normal(&r), u = tm__rng_uniform(&r);
        assert_true(u >= 0 && u < 1 && isfinite(x));
        sum += x, squares += x * x, cubes += x * x * x, fourths += x * x * x * x, uniform += u;
    }
    /* five standard errors each: variances of the summands are 1, 2, 15, 96 and 1/12 */
    assert_true(fabs(sum / N) < 5 * sqrt(1.0 / N));
    assert_true(fabs(squares / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(cubes / N) < 5 * sqrt(15.0 / N));
    assert_true(fabs(fourths / N - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(uniform / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    int counts[7] = {0};
    for (int i = 0; i < N; i++) counts[tm__rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++) assert_true(abs(counts[i] - N / 7) < 5 * sqrt(N / 7.0));
    assert_int_equal(tm__rng_below(&r, 1), 0);
    bool high = false; /* 3 * 2^62 of 2^64: a plain remainder would favour the low values */
    for (int i = 0; i < 100; i++) high |= tm__rng_below(&r, UINT64_C(3) << 62) >= UINT64_C(1) << 63;
    assert_true(high);
}

static void rng_shuffle(void **state) {
    (void)state;
    enum { N = 5, ROUNDS = 20000 };
    int counts[N][N] = {{0}};
    tm__rng r = tm__rng_make(4, tm__stream(TM__STREAM_TEST, 3));
    for (int round = 0; round < ROUNDS; round++) {
        size_t order[N];
        unsigned seen = 0;
        for (size_t i = 0; i < N; i++) order[i] = i;
        tm__rng_shuffle(&r, order, N);
        for (size_t i = 0; i < N; i++) {
            seen |= 1u << order[i];
            counts[i][order[i]]++;
        }
        assert_int_equal(seen, (1u << N) - 1);
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) assert_true(abs(counts[i][j] - ROUNDS / N) < 5 * sqrt((double)ROUNDS / N));
    tm__rng_shuffle(&r, NULL, 0);
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------- */

static void utf8_all_code_points(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        if (code >= 0xd800 && code < 0xe000) continue;
        char bytes[4];
        uint32_t back = 0;
        int n = tm__utf8_encode(code, bytes);
        if (tm__utf8_decode(bytes, (size_t)n, &back) != n || back != code) fail_msg("U+%04X", code);
        if (n > 1 && tm__utf8_decode(bytes, (size_t)n - 1, &back) != 0) fail_msg("U+%04X truncated", code);
    }
}

static void utf8_invalid(void **state) {
    (void)state;
    static const char *const bad[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x80\x80",     "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff",         "\xc3(",        "\xe2\x82("};
    uint32_t code;
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_int_equal(tm__utf8_decode(bad[i], strlen(bad[i]), &code), 0);
        assert_false(tm__utf8_valid(bad[i], strlen(bad[i])));
    }
    assert_int_equal(tm__utf8_decode("", 0, &code), 0);
    assert_true(tm__utf8_valid("", 0));
    assert_true(tm__utf8_valid("a\0\xf0\x9f\x98\x80", 6));
}

/* ---- SHA-256 ----------------------------------------------------------------------------------------------------- */

static void sha256_of(const char *text, size_t len, size_t step, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    for (size_t i = 0; i < len; i += step) tm__sha256_update(&hash, text + i, TM__MIN(step, len - i));
    tm__sha256_hex(&hash, hex);
}

/* FIPS 180-4's examples; then every length around a block in every cut gives the same digest. */
static void sha256(void **state) {
    (void)state;
    char hex[65], other[65];
    sha256_of("", 0, 1, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of("abc", 3, 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = tm__alloc(1000000, 1);
    memset(million, 'a', 1000000);
    sha256_of(million, 1000000, 997, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t len = 50; len < 140; len++) {
        sha256_of(million, len, len, hex);
        for (size_t step = 1; step < len; step += 7) {
            sha256_of(million, len, step, other);
            assert_string_equal(hex, other);
        }
    }
    free(million);
}

/* The processor's own instructions and plain C take the same steps. */
static void sha256_native(void **state) {
    (void)state;
    tm__sha256_compress *native = tm__sha256_compress_native();
    if (!native) skip();
    tm__rng r = tm__rng_make(10, tm__stream(TM__STREAM_TEST, 8));
    uint8_t blocks[5 * 64];
    uint32_t a[8], b[8];
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof blocks; i++) blocks[i] = (uint8_t)tm__rng_u32(&r);
        for (int i = 0; i < 8; i++) a[i] = b[i] = tm__rng_u32(&r);
        native(a, blocks, (size_t)round % 6);
        tm__sha256_compress_c(b, blocks, (size_t)round % 6);
        assert_memory_equal(a, b, sizeof a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_line),
        cmocka_unit_test(error_truncation),
        cmocka_unit_test(error_status),
        cmocka_unit_test(error_is_per_thread),
        cmocka_unit_test(monitor),
        cmocka_unit_test(allocation),
        cmocka_unit_test(allocation_failure),
        cmocka_unit_test(growing),
        cmocka_unit_test(arena),
        cmocka_unit_test(string),
        cmocka_unit_test(map),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(rng_streams),
        cmocka_unit_test(rng_distributions),
        cmocka_unit_test(rng_shuffle),
        cmocka_unit_test(utf8_all_code_points),
        cmocka_unit_test(utf8_invalid),
        cmocka_unit_test(sha256),
        cmocka_unit_test(sha256_native),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
