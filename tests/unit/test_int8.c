/* test_int8.c: products with weights of 8 bits (device/cpu/isa/int8.c) against the reference's, under every instruction
 * set of this machine, and what a model does with them.
 *
 * Tolerances are on ||c - reference|| / ||reference||. Integers are equal on both sides, so that only the fp32 sums
 * over groups differ: about 6e-8 for each rounding on the way. Against the exact product, values uniform in +-1.73 are
 * cut into steps of 1.73 / 127, which errs by 0.0039 on either side: 0.0056 of the product, whatever k.
 */
#include "cpu_fixture.h"
#include "model_fixture.h"

#include "device/cpu/cpu.h"

enum { TWO_WAYS = 4 }; /* instruction sets, the first with and without VNNI */

static tm_device *open_way(int way, int64_t threads) {
    tm_device *dev = open_cpu(isa_names[way ? way - 1 : 0], threads, TM_PRECISION_INT8);
    if (!dev || way > 1) return dev;
    tm__cpu *cpu = dev->state;
    if (way == 0 && !cpu->quads) {
        printf("SKIP: this processor has no AVX-512 VNNI\n");
        tm_device_close(dev);
        return NULL;
    }
    if (way == 1) cpu->quads = false;
    return dev;
}

static void *packed(tm_device *dev, const void *w, tm_dtype type, int64_t n, int64_t k, int64_t ld) {
    void *to = NULL;
    assert_ok(dev->alloc(dev, dev->k->int8_bytes(n, k), &to));
    assert_ok(dev->k->int8_pack(dev, to, w, type, n, k, ld));
    return to;
}

static void unpack(tm_device *dev, void *p, int64_t n, int64_t k) {
    dev->release(dev, p, dev->k->int8_bytes(n, k));
}

typedef struct shape {
    int64_t m, n, k, extra;
    tm_dtype type;
    double alpha;
    bool accumulate;
} shape;

static tm__gemm product(const shape *s, const float *a, const void *p, float *c) {
    return (tm__gemm){.trans_b = true,
                      .m = s->m,
                      .n = s->n,
                      .k = s->k,
                      .a = a,
                      .a_type = TM_F32,
                      .lda = s->k + s->extra,
                      .b_int8 = p,
                      .c = c,
                      .ldc = s->n + s->extra,
                      .alpha = s->alpha,
                      .accumulate = s->accumulate,
                      .row_invariant = true};
}

static void compare(tm_device *dev, tm_device *ref, const shape *s) {
    size_t a_count = (size_t)(s->m * (s->k + s->extra)), c_count = (size_t)(s->m * (s->n + s->extra));
    float *a = random_floats(a_count, 1), *b = random_floats((size_t)(s->n * (s->k + s->extra)), 2);
    float *got = random_floats(c_count, 3), *wanted = random_floats(c_count, 3), *before = random_floats(c_count, 3);
    void *typed = as_type(b, s->type, (size_t)(s->n * (s->k + s->extra)));
    void *one = packed(dev, typed, s->type, s->n, s->k, s->k + s->extra);
    void *two = packed(ref, typed, s->type, s->n, s->k, s->k + s->extra);
    const tm__gemm left = product(s, a, one, got), right = product(s, a, two, wanted);
    assert_ok(dev->k->gemm(dev, &left));
    assert_ok(ref->k->gemm(ref, &right));
    double *x = as_doubles(got, TM_F32, c_count), *y = as_doubles(wanted, TM_F32, c_count);
    double error = test_relative_error(x, y, c_count), limit = 6e-8 * (3 + sqrt((double)s->k / TM__INT8_GROUP));
    if (!(error <= limit))
        fail_msg("%s: %lld x %lld x %lld: %.3g", dev->isa, (long long)s->m, (long long)s->n, (long long)s->k, error);
    for (int64_t i = 0; i < s->m; i++)
        assert_memory_equal(got + i * (s->n + s->extra) + s->n, before + i * (s->n + s->extra) + s->n,
                            (size_t)s->extra * 4);
    unpack(dev, one, s->n, s->k);
    unpack(ref, two, s->n, s->k);
    free(a), free(b), free(got), free(wanted), free(before), free(typed), free(x), free(y);
}

static void test_against_reference(void **state) {
    static const shape shapes[] = {
        {1, 1, 1, 0, TM_F32, 1, false},       {1, 33, 64, 0, TM_F32, 1, false},    {2, 32, 65, 1, TM_F32, 1, true},
        {3, 100, 63, 0, TM_BF16, 1, false},   {4, 31, 128, 3, TM_F16, 0.5, true},  {5, 8, 200, 0, TM_F32, 1, false},
        {6, 64, 576, 0, TM_BF16, 1, false},   {7, 48, 1000, 2, TM_F32, -2, false}, {13, 17, 300, 0, TM_F32, 1, true},
        {64, 130, 190, 0, TM_F32, 1, false},  {200, 40, 1536, 0, TM_F32, 1, true}, {3, 9, 4100, 0, TM_F32, 1, false},
        {700, 33, 1536, 0, TM_F32, 1, false},
    };
    const tm_device_options plain = {.name = "ref", .precision = TM_PRECISION_INT8};
    tm_device *ref;
    (void)state;
    assert_ok(tm_device_open(&plain, &ref));
    for (int way = 0; way < TWO_WAYS; way++) {
        tm_device *dev = open_way(way, 2);
        if (!dev) continue;
        for (size_t i = 0; i < TM__COUNT(shapes); i++) compare(dev, ref, &shapes[i]);
        tm_device_close(dev);
    }
    tm_device_close(ref);
}

static void test_error_of_8_bits(void **state) {
    enum { M = 20, N = 50, K = 960 };
    (void)state;
    for (int way = 0; way < TWO_WAYS; way++) {
        tm_device *dev = open_way(way, 1), *ref = open_ref();
        if (dev) {
            float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2), *c = random_floats(M * N, 3);
            double *exact = room(M * N, sizeof *exact);
            void *p = packed(dev, b, TM_F32, N, K, K);
            const shape s = {M, N, K, 0, TM_F32, 1, false};
            const tm__gemm g = product(&s, a, p, c);
            tm__gemm full = g;
            full.b_int8 = NULL;
            full.b = b;
            full.b_type = TM_F32;
            full.ldb = K;
            full.c = exact;
            assert_ok(dev->k->gemm(dev, &g));
            assert_ok(ref->k->gemm(ref, &full));
            double *got = as_doubles(c, TM_F32, M * N), error = test_relative_error(got, exact, M * N);
            if (!(error > 0.0045 && error < 0.0066)) fail_msg("%s: %.4g", dev->isa, error);
            unpack(dev, p, N, K);
            free(a), free(b), free(c), free(exact), free(got);
            tm_device_close(dev);
        }
        tm_device_close(ref);
    }
}

/* A row's bytes are the same alone and in company, in one call and in several. */
static void test_row_invariance(void **state) {
    enum { M = 41, N = 70, K = 200 };
    (void)state;
    for (int way = 0; way < TWO_WAYS; way++) {
        tm_device *dev = open_way(way, 1), *more = open_way(way, 3);
        if (!dev) continue;
        float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2);
        float *all = room(M * N, 4), *one = room(N, 4), *list = room(2 * M * N, 4);
        void *p = packed(dev, b, TM_F32, N, K, K), *q = packed(dev, b, TM_F32, N / 2, K, K);
        const shape s = {M, N, K, 0, TM_F32, 1, false}, half = {M, N / 2, K, 0, TM_F32, 1, false};
        tm__gemm g = product(&s, a, p, all), both[2] = {product(&s, a, p, list), product(&half, a, q, list + M * N)};
        assert_ok(dev->k->gemm(dev, &g));
        assert_ok(more->k->gemms(more, both, 2));
        assert_memory_equal(list, all, M * N * 4);
        for (int64_t i = 0; i < M; i++) {
            assert_memory_equal(list + M * N + i * (N / 2), all + i * N, N / 2 * 4);
            tm__gemm alone = product(&s, a + i * K, p, one);
            alone.m = 1;
            assert_ok(more->k->gemm(more, &alone));
            assert_memory_equal(one, all + i * N, N * 4);
        }
        unpack(dev, p, N, K);
        unpack(dev, q, N / 2, K);
        free(a), free(b), free(all), free(one), free(list);
        tm_device_close(dev);
        tm_device_close(more);
    }
}

/* Products large enough for several threads, more than are done as one: no task is left out or done twice. */
static void test_several_threads(void **state) {
    enum { M = 5, N = 1100, K = 260, COUNT = 5 };
    (void)state;
    for (int way = 0; way < TWO_WAYS; way++)
        for (int threads = 2; threads <= 3; threads++) {
            tm_device *dev = open_way(way, 1), *more = open_way(way, threads);
            if (!dev) continue;
            const double work = (double)N * K * (M + 4) / 32; /* as int8.c counts it */
            assert_int_equal(tm__cpu_team(more, work), threads);
            float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2);
            void *p = packed(more, b, TM_F32, N, K, K);
            const shape s = {M, N, K, 0, TM_F32, 1, true};
            tm__gemm list[COUNT];
            for (int i = 0; i < COUNT; i++) list[i] = product(&s, a, p, random_floats(M * N, 10 + i));
            assert_ok(more->k->gemms(more, list, COUNT));
            for (int i = 0; i < COUNT; i++) {
                float *alone = random_floats(M * N, 10 + i);
                const tm__gemm g = product(&s, a, p, alone);
                assert_ok(dev->k->gemm(dev, &g));
                assert_memory_equal(list[i].c, alone, M * N * 4);
                free(alone), free(list[i].c);
            }
            unpack(more, p, N, K);
            free(a), free(b);
            tm_device_close(dev);
            tm_device_close(more);
        }
}

/* What is not finite must not turn into a number; zeros give zeros. */
static void test_special_values(void **state) {
    enum { M = 4, N = 40, K = 130 };
    (void)state;
    for (int way = 0; way < TWO_WAYS; way++) {
        tm_device *dev = open_way(way, 1);
        if (!dev) continue;
        float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2), *c = room(M * N, 4);
        const shape s = {M, N, K, 0, TM_F32, 1, false};
        a[1 * K + 129] = NAN;
        a[2 * K] = -INFINITY;
        for (int64_t i = 0; i < K; i++) a[3 * K + i] = 0;
        void *p = packed(dev, b, TM_F32, N, K, K);
        tm__gemm g = product(&s, a, p, c);
        assert_ok(dev->k->gemm(dev, &g));
        for (int64_t j = 0; j < N; j++) {
            assert_true(isfinite(c[j]));
            assert_true(isnan(c[N + j]));
            assert_true(isnan(c[2 * N + j]));
            assert_true(c[3 * N + j] == 0);
        }
        unpack(dev, p, N, K);
        free(a), free(b), free(c);
        tm_device_close(dev);
    }
}

/* Answers do not depend on the batch; nothing can be trained or edited. */
static void test_model(void **state) {
    enum { ROWS = 7 };
    static const char *const devices[] = {"cpu", "ref"};
    static const int32_t prompts[ROWS][3] = {{1, 5, 6},  {1, 7, 9}, {1, 3, 3}, {1, 20, 4},
                                             {1, 36, 2}, {1, 8, 8}, {1, 9, 30}};
    (void)state;
    for (int d = 0; d < 2; d++) {
        tm_device *dev = fixture_device(devices[d], TM_PRECISION_INT8);
        tm_model *model = fixture_model(dev, FIXTURE_CONFIG(""), 3);
        tm_ids rows[ROWS], alone[ROWS] = {{0}}, together[ROWS] = {{0}};
        for (int i = 0; i < ROWS; i++) rows[i] = (tm_ids){(int32_t *)(uintptr_t)prompts[i], 3, 3};
        const tm_generate_options one = {.max_new_tokens = 12, .batch = 1, .ignore_stop = true},
                                  many = {.max_new_tokens = 12, .batch = 5, .ignore_stop = true};
        assert_string_equal(tm_device_precision(dev), "int8");
        assert_ok(tm_generate(model, rows, ROWS, NULL, 0, &one, NULL, alone));
        assert_ok(tm_generate(model, rows, ROWS, NULL, 0, &many, NULL, together));
        for (int i = 0; i < ROWS; i++) {
            assert_int_equal(alone[i].len, 12);
            assert_memory_equal(alone[i].data, together[i].data, 12 * sizeof(int32_t));
            tm_ids_free(&alone[i]);
            tm_ids_free(&together[i]);
        }
        assert_non_null(model->blocks[0].q.weight.int8);
        assert_int_equal(tm__model_train_full(model), TM_UNSUPPORTED);
        tm_model_free(model);
        tm_device_close(dev);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference), cmocka_unit_test(test_error_of_8_bits),
        cmocka_unit_test(test_row_invariance),    cmocka_unit_test(test_several_threads),
        cmocka_unit_test(test_special_values),    cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
