/* test_gemm.c: matrix products of the cpu device against the fp64 reference, under every instruction set of this
 * machine.
 *
 * Tolerances are on ||c - reference|| / ||reference|| for random operands. A chain of k fp32 additions errs by about
 * 6e-8 sqrt(k / 6); k is cut into blocks of at most 384, whose sums are added in a chain of their own. Rounding alpha
 * and the result adds about 6e-8 each.
 */
#include "cpu_fixture.h"

#include "device/cpu/cpu.h"

static double tolerance(int64_t k) {
    return 6e-8 * (2 + sqrt((double)TM__MIN(k, (int64_t)384) / 6) + sqrt((double)k / 384 / 6));
}

typedef struct shape {
    int64_t m, n, k;
} shape;

typedef struct variant {
    bool trans_a, trans_b, accumulate, exact, row_invariant;
    tm_dtype a_type, b_type;
    double alpha;
    int64_t extra; /* ld beyond the width */
} variant;

/* What the product must be, by ref in fp64 on operands rounded as the device rounds them. */
static double *reference(tm_device *ref, const tm__gemm *g, size_t a_count, size_t b_count, size_t c_count,
                         const float *c, bool rounded) {
    tm__gemm wide = *g;
    void *a = NULL, *b = NULL;
    if (rounded) {
        float *x = room(a_count, 4), *y = room(b_count, 4);
        tm__convert(x, TM_F32, g->a, g->a_type, a_count);
        tm__convert(y, TM_F32, g->b, g->b_type, b_count);
        wide.a = a = as_type(x, TM_BF16, a_count);
        wide.b = b = as_type(y, TM_BF16, b_count);
        wide.a_type = wide.b_type = TM_BF16;
        free(x);
        free(y);
    }
    double *result = as_doubles(c, TM_F32, c_count);
    wide.c = result;
    assert_ok(ref->k->gemm(ref, &wide));
    free(a);
    free(b);
    return result;
}

static double product_error(tm_device *dev, tm_device *ref, shape s, const variant *v) {
    int64_t lda = (v->trans_a ? s.m : s.k) + v->extra, ldb = (v->trans_b ? s.k : s.n) + v->extra, ldc = s.n + v->extra;
    size_t a_count = (size_t)((v->trans_a ? s.k : s.m) * lda), b_count = (size_t)((v->trans_b ? s.n : s.k) * ldb);
    size_t c_count = (size_t)(s.m * ldc);
    float *a = random_floats(a_count, 1), *b = random_floats(b_count, 2), *c = random_floats(c_count, 3);
    void *a_typed = as_type(a, v->a_type, a_count), *b_typed = as_type(b, v->b_type, b_count);
    tm__gemm g = {.trans_a = v->trans_a,
                  .trans_b = v->trans_b,
                  .m = s.m,
                  .n = s.n,
                  .k = s.k,
                  .a = a_typed,
                  .a_type = v->a_type,
                  .lda = lda,
                  .b = b_typed,
                  .b_type = v->b_type,
                  .ldb = ldb,
                  .c = c,
                  .ldc = ldc,
                  .alpha = v->alpha,
                  .accumulate = v->accumulate,
                  .exact = v->exact,
                  .row_invariant = v->row_invariant};
    double *wanted = reference(ref, &g, a_count, b_count, c_count, c, dev->bf16_products && !v->exact);
    /* What is beyond C's columns must stay; without accumulate, what is in them must not be read. */
    for (int64_t i = 0; !v->accumulate && i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++) c[i * ldc + j] = NAN;
    assert_ok(dev->k->gemm(dev, &g));
    double *got = as_doubles(c, TM_F32, c_count);
    double error = test_relative_error(got, wanted, c_count);
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = s.n; j < ldc; j++) assert_true(got[i * ldc + j] == wanted[i * ldc + j]);
    free(a);
    free(b);
    free(c);
    free(a_typed);
    free(b_typed);
    free(wanted);
    free(got);
    return error;
}

static void check(tm_device *dev, tm_device *ref, shape s, variant v) {
    double error = product_error(dev, ref, s, &v);
    if (!(error < tolerance(s.k)))
        fail_msg("%s: %lldx%lldx%lld ta %d tb %d types %s %s alpha %g accumulate %d exact %d rows %d: error %.2e",
                 dev->isa, (long long)s.m, (long long)s.n, (long long)s.k, v.trans_a, v.trans_b,
                 tm__dtype_name(v.a_type), tm__dtype_name(v.b_type), v.alpha, v.accumulate, v.exact, v.row_invariant,
                 error);
}

static const shape shapes[] = {{1, 1, 1},    {3, 17, 5},    {17, 3, 63},  {12, 32, 384}, {13, 33, 385}, {65, 63, 17},
                               {128, 8, 65}, {8, 128, 100}, {1, 200, 64}, {200, 1, 64},  {31, 40, 1000}};

/* All transposes, types, accumulate, alpha and leading dimensions. */
static void check_variants(tm_device *dev, tm_device *ref, bool exact, bool rows) {
    static const tm_dtype types[][2] = {{TM_F32, TM_F32},  {TM_F32, TM_BF16}, {TM_F32, TM_F16},
                                        {TM_BF16, TM_F32}, {TM_F16, TM_BF16}, {TM_BF16, TM_BF16}};
    for (size_t i = 0; i < TM__COUNT(shapes); i++)
        for (int bits = 0; bits < 8; bits++)
            for (size_t t = (i + (size_t)bits) % 2; t < TM__COUNT(types); t += 2) {
                variant v = {.trans_a = bits & 1,
                             .trans_b = bits & 2,
                             .accumulate = bits & 4,
                             .exact = exact,
                             .row_invariant = rows,
                             .a_type = types[t][0],
                             .b_type = types[t][1],
                             .alpha = t % 2 ? 1 : 0.25 + (double)i,
                             .extra = (int64_t)(i + t) % 3};
                check(dev, ref, shapes[i], v);
            }
}

/* k of several blocks, and more of it than is packed at once (SHARED_FLOATS / 36 rows). */
static void check_long(tm_device *dev, tm_device *ref) {
    check(dev, ref, (shape){31, 40, 4101}, (variant){.trans_b = true, .b_type = TM_BF16, .a_type = TM_F32, .alpha = 1});
    check(dev, ref, (shape){5, 40, 4097}, (variant){.trans_a = true, .a_type = TM_F32, .b_type = TM_F32, .alpha = -1});
    check(dev, ref, (shape){2, 3, 300000},
          (variant){.a_type = TM_F32, .b_type = TM_F32, .alpha = 2, .accumulate = true});
}

static void each_isa(void (*test)(const char *isa)) {
    for (size_t i = 0; i < TM__COUNT(isa_names); i++) test(isa_names[i]);
}

static void fp32_products(const char *isa) {
    tm_device *dev = open_cpu(isa, 2, TM_PRECISION_F32), *ref = open_ref();
    if (dev) {
        assert_false(dev->bf16_products);
        check_variants(dev, ref, false, false);
        check_variants(dev, ref, false, true);
        check_long(dev, ref);
    }
    tm_device_close(dev);
    tm_device_close(ref);
}

static void bf16_products(const char *isa) {
    tm_device *dev = open_cpu(isa, 2, TM_PRECISION_BF16), *ref = open_ref();
    if (dev) {
        assert_true(dev->bf16_products);
        check_variants(dev, ref, false, false);
        check_variants(dev, ref, false, true);
        check_variants(dev, ref, true, false);
        check_long(dev, ref);
    }
    tm_device_close(dev);
    tm_device_close(ref);
}

static void test_fp32(void **state) {
    (void)state;
    each_isa(fp32_products);
}

static void test_bf16(void **state) {
    (void)state;
    each_isa(bf16_products);
}

/* The path of the matrix unit, by whatever oneDNN has here for bf16: its structure is the same. */
static void test_onednn_path(void **state) {
    (void)state;
    tm_device *dev = open_cpu("avx512", 2, TM_PRECISION_BF16), *ref = open_ref();
    if (dev) {
        tm__cpu *cpu = dev->state;
        if (!cpu->amx) assert_ok(tm__amx_open(cpu));
        static const shape few[] = {{1, 1, 1}, {65, 300, 100}, {300, 65, 33}, {128, 256, 64}, {257, 31, 640}};
        for (size_t i = 0; i < TM__COUNT(few); i++)
            for (int bits = 0; bits < 8; bits++)
                check(dev, ref, few[i],
                      (variant){.trans_a = bits & 1,
                                .trans_b = bits & 2,
                                .accumulate = bits & 4,
                                .a_type = TM_F32,
                                .b_type = i % 2 ? TM_BF16 : TM_F32,
                                .alpha = i == 1 ? 0.5 : 1,
                                .extra = (int64_t)i % 3});
        check(dev, ref, few[1], (variant){.a_type = TM_F16, .b_type = TM_BF16, .alpha = 1});
        check(dev, ref, (shape){33, 300, 4101},
              (variant){.trans_b = true, .a_type = TM_F32, .b_type = TM_BF16, .alpha = 1});
        check(dev, ref, (shape){31, 40, 4099},
              (variant){.trans_a = true, .a_type = TM_F32, .b_type = TM_F32, .alpha = 1, .accumulate = true});
    }
    tm_device_close(dev);
    tm_device_close(ref);
}

/* A comparison that passes whatever is wrong would be worthless. */
static void test_a_wrong_product_is_seen(void **state) {
    (void)state;
    double right[4] = {1, 2, 3, 4}, wrong[4] = {1, 2, 3, 4.00001};
    assert_true(test_relative_error(wrong, right, 4) > tolerance(384));
}

/* A row alone, in batches, and at other places gives the same bytes. */
static void rows_alone(const char *isa, int precision, tm_dtype b_type, bool trans_b, int64_t n, int64_t k) {
    enum { MOST = 300 };
    tm_device *dev = open_cpu(isa, 2, precision);
    if (!dev) return;
    float *a = random_floats((size_t)(MOST * k), 1), *b = random_floats((size_t)(n * k), 2);
    float *all = room((size_t)(MOST * n), 4), *part = room((size_t)(MOST * n), 4);
    void *b_typed = as_type(b, b_type, (size_t)(n * k));
    tm__gemm g = {.trans_b = trans_b,
                  .n = n,
                  .k = k,
                  .a = a,
                  .a_type = TM_F32,
                  .lda = k,
                  .b = b_typed,
                  .b_type = b_type,
                  .ldb = trans_b ? k : n,
                  .c = all,
                  .ldc = n,
                  .alpha = 1,
                  .row_invariant = true,
                  .m = MOST};
    assert_ok(dev->k->gemm(dev, &g));
    static const int64_t batches[] = {1, 2, 3, 4, 5, 6, 7, 12, 23, 32, 33, 299};
    for (size_t i = 0; i < TM__COUNT(batches); i++)
        for (int64_t first = 0; first + batches[i] <= MOST; first += 61) {
            g.m = batches[i];
            g.a = a + first * k;
            g.c = part;
            assert_ok(dev->k->gemm(dev, &g));
            assert_memory_equal(part, all + first * n, (size_t)(batches[i] * n) * 4);
        }
    float *turned = room((size_t)(MOST * k), 4);
    for (int64_t i = 0; i < MOST; i++) memcpy(turned + i * k, a + (i * 7 % MOST) * k, (size_t)k * 4);
    g.m = MOST;
    g.a = turned;
    assert_ok(dev->k->gemm(dev, &g));
    for (int64_t i = 0; i < MOST; i++) assert_memory_equal(part + i * n, all + (i * 7 % MOST) * n, (size_t)n * 4);
    free(a);
    free(b);
    free(all);
    free(part);
    free(turned);
    free(b_typed);
    tm_device_close(dev);
}

static void row_invariance(const char *isa) {
    rows_alone(isa, TM_PRECISION_F32, TM_F32, true, 128, 128);
    rows_alone(isa, TM_PRECISION_F32, TM_BF16, true, 101, 576);
    rows_alone(isa, TM_PRECISION_F32, TM_F32, true, 33, 1003);
    rows_alone(isa, TM_PRECISION_BF16, TM_F32, true, 50, 100);
    rows_alone(isa, TM_PRECISION_F32, TM_F32, false, 65, 200);
    rows_alone(isa, TM_PRECISION_BF16, TM_BF16, false, 40, 400);
}

static void test_row_invariance(void **state) {
    (void)state;
    each_isa(row_invariance);
}

/* Several products in one call give what each gives alone: of unlike shapes and types, on any number of threads, with
 * rows further apart than they are long; also where one of them is empty, or not for the kernel of the others. */
static void several_at_once(const char *isa) {
    enum { COUNT = 6, MOST = 72000 };
    static const struct {
        int64_t m, n, k;
        tm_dtype b_type;
        bool accumulate, exact;
    } cases[COUNT] = {{9, 40, 960, TM_F32, false, false},  {9, 12, 960, TM_BF16, false, false},
                      {9, 203, 960, TM_F32, true, false},  {2, 300, 330, TM_F16, false, true},
                      {40, 17, 5000, TM_BF16, true, true}, {1, 64, 640, TM_BF16, false, false}};
    for (int way = 0; way < 6; way++) {
        tm_device *dev = open_cpu(isa, 1 + way % 3, way < 3 ? TM_PRECISION_F32 : TM_PRECISION_BF16);
        if (!dev) return;
        float *a = random_floats(MOST * 3, 1), *b = random_floats(MOST * 3, 2);
        float *together[COUNT], *alone[COUNT];
        void *typed[COUNT];
        tm__gemm list[COUNT];
        for (int i = 0; i < COUNT; i++) {
            int64_t m = cases[i].m, n = cases[i].n, k = cases[i].k, size = m * n;
            typed[i] = as_type(b, cases[i].b_type, (size_t)(n * k));
            together[i] = random_floats((size_t)size, 3);
            alone[i] = random_floats((size_t)size, 3);
            list[i] = (tm__gemm){.trans_b = true, .m = m, .n = n, .k = k, .a = a, .a_type = TM_F32, .lda = k + 3};
            list[i].b = typed[i];
            list[i].b_type = cases[i].b_type;
            list[i].ldb = k;
            list[i].ldc = n;
            list[i].alpha = i % 2 ? 0.7 : 1;
            list[i].accumulate = cases[i].accumulate;
            list[i].exact = cases[i].exact;
            list[i].row_invariant = true;
        }
        if (way == 1) list[2].m = 0;
        if (way == 4) list[0].row_invariant = false;
        for (int i = 0; i < COUNT; i++) {
            list[i].c = alone[i];
            assert_ok(dev->k->gemm(dev, &list[i]));
            list[i].c = together[i];
        }
        assert_ok(dev->k->gemms(dev, list, COUNT));
        for (int i = 0; i < COUNT; i++) {
            assert_memory_equal(together[i], alone[i], (size_t)(cases[i].m * cases[i].n) * 4);
            free(together[i]);
            free(alone[i]);
            free(typed[i]);
        }
        free(a);
        free(b);
        tm_device_close(dev);
    }
}

static void test_several_at_once(void **state) {
    (void)state;
    each_isa(several_at_once);
}

/* What lies between a row of the weight and the next one, up to a whole vector, is never read: it may be NaN. */
static void padding_is_not_read(const char *isa) {
    enum { ROWS = 9, LD = 32 };
    for (int64_t k = LD - 15; k <= LD; k++)
        for (int64_t m = 1; m <= 5; m++) {
            tm_device *dev = open_cpu(isa, 1, TM_PRECISION_F32);
            if (!dev) return;
            float *a = random_floats((size_t)(m * k), 1), *b = random_floats(ROWS * LD, 2), c[5 * ROWS];
            for (int64_t i = 0; i < ROWS * LD; i++)
                if (i % LD >= k) b[i] = NAN;
            tm__gemm g = {.trans_b = true, .m = m, .n = ROWS, .k = k, .a = a, .a_type = TM_F32, .lda = k, .b = b};
            g.b_type = TM_F32;
            g.ldb = LD;
            g.c = c;
            g.ldc = ROWS;
            g.alpha = 1;
            g.row_invariant = true;
            assert_ok(dev->k->gemm(dev, &g));
            for (int64_t i = 0; i < m * ROWS; i++) assert_true(isfinite(c[i]));
            free(a);
            free(b);
            tm_device_close(dev);
        }
}

static void test_padding_is_not_read(void **state) {
    (void)state;
    each_isa(padding_is_not_read);
}

static void test_nothing_to_do(void **state) {
    (void)state;
    tm_device *dev = open_cpu("sse", 1, TM_PRECISION_F32);
    float c[6] = {1, 2, 3, 4, 5, 6}, zero[6] = {0};
    tm__gemm g = {.m = 2,
                  .n = 3,
                  .k = 0,
                  .a_type = TM_F32,
                  .b_type = TM_F32,
                  .lda = 1,
                  .ldb = 3,
                  .c = c,
                  .ldc = 3,
                  .alpha = 1,
                  .accumulate = true};
    assert_ok(dev->k->gemm(dev, &g));
    assert_true(c[5] == 6);
    g.accumulate = false;
    assert_ok(dev->k->gemm(dev, &g));
    assert_memory_equal(c, zero, sizeof c);
    g.m = 0;
    assert_ok(dev->k->gemm(dev, &g));
    g = (tm__gemm){.m = 1, .n = 1, .k = 1, .a_type = TM_F64, .b_type = TM_F32};
    assert_int_equal(dev->k->gemm(dev, &g), TM_UNSUPPORTED);
    tm_device_close(dev);
}

static void test_instruction_set_choice(void **state) {
    (void)state;
    tm_device *dev = NULL;
    setenv("TEMPER_ISA", "mmx", 1);
    assert_int_equal(tm_device_open(NULL, &dev), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "mmx"));
    setenv("TEMPER_ISA", "sse", 1);
    assert_ok(tm_device_open(NULL, &dev));
    assert_string_equal(tm_device_instruction_set(dev), "sse");
    assert_true(tm_device_threads(dev) >= 1);
    tm_device_close(dev);
    unsetenv("TEMPER_ISA");
}

/* The scratch memory of a product is the only thing it allocates; without it nothing is written. */
static void test_out_of_memory(void **state) {
    (void)state;
    tm_device_options options = {.name = "cpu", .threads = 2};
    for (long n = 1; n <= 2; n++) {
        tm_device *dev = NULL;
        tm__alloc_fail_at(n, false);
        assert_int_equal(tm_device_open(&options, &dev), TM_NO_MEMORY);
        assert_null(dev);
        tm__alloc_fail_at(0, false);
    }
    tm_device *dev = open_cpu("sse", 2, TM_PRECISION_F32);
    float a[4] = {1, 2, 3, 4}, b[4] = {1, 0, 0, 1}, c[4] = {9, 9, 9, 9};
    tm__gemm g = {.m = 2,
                  .n = 2,
                  .k = 2,
                  .a = a,
                  .a_type = TM_F32,
                  .lda = 2,
                  .b = b,
                  .b_type = TM_F32,
                  .ldb = 2,
                  .c = c,
                  .ldc = 2,
                  .alpha = 1};
    tm__alloc_fail_at(1, false);
    assert_int_equal(dev->k->gemm(dev, &g), TM_NO_MEMORY);
    tm__alloc_fail_at(0, false);
    assert_true(c[0] == 9);
    assert_ok(dev->k->gemm(dev, &g));
    assert_memory_equal(c, a, sizeof a);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_onednn_path),
        cmocka_unit_test(test_a_wrong_product_is_seen),
        cmocka_unit_test(test_row_invariance),
        cmocka_unit_test(test_several_at_once),
        cmocka_unit_test(test_padding_is_not_read),
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_instruction_set_choice),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
