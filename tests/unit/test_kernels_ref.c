/* The reference kernels against values worked out by hand or by a second, independent formula. */
#include "support.h"

#include "device/device.h"

static tm_device *wide, *narrow; /* fp64, fp32 */

static int begin(void **state) {
    (void)state;
    const tm_device_options f64 = {.name = "ref", .precision = TM_PRECISION_F64}, f32 = {.name = "ref"};
    assert_ok(tm__ref_open(&f64, &wide));
    assert_ok(tm__ref_open(&f32, &narrow));
    return 0;
}

static int end(void **state) {
    (void)state;
    tm_device_close(wide);
    tm_device_close(narrow);
    return 0;
}

static void random_fill(double *data, size_t n, uint32_t index) {
    tm__rng rng = tm__rng_make(7, tm__stream(TM__STREAM_TEST, index));
    for (size_t i = 0; i < n; i++) data[i] = tm__rng_normal(&rng);
}

#define assert_near(a, b) assert_true(fabs((a) - (b)) <= 1e-14 * TM__MAX(1.0, fabs(b)))

/* ---- product ---- */

/* A = [1 2 3; 4 5 6], B = [1 2; 3 4; 5 6]: A B = [22 28; 49 64]. Every storage order, rows longer than the matrix. */
static void test_gemm_by_hand(void **state) {
    (void)state;
    const double a[2][4] = {{1, 2, 3, 99}, {4, 5, 6, 99}}, at[3][3] = {{1, 4, 99}, {2, 5, 99}, {3, 6, 99}};
    const double b[3][3] = {{1, 2, 99}, {3, 4, 99}, {5, 6, 99}}, bt[2][4] = {{1, 3, 5, 99}, {2, 4, 6, 99}};
    for (int form = 0; form < 4; form++) {
        double c[2][3] = {{-1, -1, -7}, {-1, -1, -7}};
        tm__gemm g = {.trans_a = form & 1, .trans_b = form >> 1, .m = 2, .n = 2, .k = 3};
        g.a = g.trans_a ? (const void *)at : (const void *)a;
        g.lda = g.trans_a ? 3 : 4;
        g.b = g.trans_b ? (const void *)bt : (const void *)b;
        g.ldb = g.trans_b ? 4 : 3;
        g.a_type = g.b_type = TM_F64;
        g.c = c;
        g.ldc = 3;
        g.alpha = 1;
        assert_ok(wide->k->gemm(wide, &g));
        assert_true(c[0][0] == 22 && c[0][1] == 28 && c[1][0] == 49 && c[1][1] == 64);
        g.alpha = -0.5;
        g.accumulate = true;
        assert_ok(wide->k->gemm(wide, &g));
        assert_true(c[0][0] == 11 && c[0][1] == 14 && c[1][0] == 24.5 && c[1][1] == 32);
        assert_true(c[0][2] == -7 && c[1][2] == -7); /* past the width: untouched */
    }
}

/* More columns than are unpacked at a time, weights of every type, against a plain triple loop. */
static void test_gemm_types(void **state) {
    (void)state;
    enum { M = 3, N = 131, K = 5 };
    double a[M * K], b[N * K], c[M * N], as64[N * K];
    uint64_t stored[N * K];
    random_fill(a, M * K, 1);
    random_fill(b, N * K, 2);
    const tm_dtype types[] = {TM_F64, TM_F32, TM_BF16, TM_F16};
    for (size_t t = 0; t < TM__COUNT(types); t++) {
        tm__convert(stored, types[t], b, TM_F64, N * K);
        tm__convert(as64, TM_F64, stored, types[t], N * K);
        tm__gemm g = {.trans_b = true, .m = M, .n = N, .k = K, .a = a, .a_type = TM_F64, .lda = K, .b = stored};
        g.b_type = types[t];
        g.ldb = K;
        g.c = c;
        g.ldc = N;
        g.alpha = 1;
        assert_ok(wide->k->gemm(wide, &g));
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int p = 0; p < K; p++) sum += a[i * K + p] * as64[j * K + p];
                assert_near(c[i * N + j], sum);
            }
    }
}

static void test_gemm_empty(void **state) {
    (void)state;
    double c[2] = {3, 4}, none = 0;
    tm__gemm g = {.m = 1, .n = 2, .k = 0, .a = &none, .b = &none, .c = c, .a_type = TM_F64, .b_type = TM_F64};
    g.alpha = 1;
    g.accumulate = true;
    assert_ok(wide->k->gemm(wide, &g));
    assert_true(c[0] == 3 && c[1] == 4);
    g.accumulate = false;
    assert_ok(wide->k->gemm(wide, &g));
    assert_true(c[0] == 0 && c[1] == 0);
    g.m = 0;
    assert_ok(wide->k->gemm(wide, &g));
}

/* Terms of 2^-26 beside a 1: each of them alone is lost in fp32. */
static void test_fp32_sums_are_double(void **state) {
    (void)state;
    enum { K = 4096 };
    static float a[K], b[K];
    float c;
    double result;
    for (int i = 0; i < K; i++) {
        a[i] = i ? 0x1p-20f : 1;
        b[i] = i ? 0x1p-6f : 1;
    }
    tm__gemm g = {.trans_b = true, .m = 1, .n = 1, .k = K, .a = a, .a_type = TM_F32, .lda = K, .b = b};
    g.b_type = TM_F32;
    g.ldb = K;
    g.c = &c;
    g.ldc = 1;
    g.alpha = 1;
    assert_ok(narrow->k->gemm(narrow, &g));
    double exact = 1 + (K - 1) * 0x1p-26;
    assert_true(c == (float)exact && c > 1);
    assert_ok(narrow->k->dot(narrow, &result, a, b, K));
    assert_true(result == exact);
}

/* ---- rows of tables ---- */

static void test_embedding(void **state) {
    (void)state;
    const float table[3][2] = {{1, 2}, {3, 4}, {5, 6}};
    const int32_t ids[] = {2, 0, 2, 2};
    double y[4][2], dtable[3][2] = {{10, 10}, {10, 10}, {10, 10}};
    const double dy[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
    assert_ok(wide->k->embedding(wide, y, table, TM_F32, ids, 4, 2));
    assert_true(y[0][0] == 5 && y[0][1] == 6 && y[1][0] == 1 && y[1][1] == 2 && y[3][1] == 6);
    assert_ok(wide->k->embedding_grad(wide, dtable, dy, ids, 4, 2));
    assert_true(dtable[0][0] == 13 && dtable[0][1] == 14);
    assert_true(dtable[1][0] == 10 && dtable[1][1] == 10);
    assert_true(dtable[2][0] == 10 + 1 + 5 + 7 && dtable[2][1] == 10 + 2 + 6 + 8);
}

static void test_rows_and_bias(void **state) {
    (void)state;
    double x[3][2] = {{1, 2}, {3, 4}, {5, 6}}, y[2][2], dbias[2] = {1, 1};
    const int32_t rows[] = {2, 0};
    const double bias[] = {0.5, -0.5};
    assert_ok(wide->k->gather_rows(wide, y, x, rows, 2, 2));
    assert_true(y[0][0] == 5 && y[0][1] == 6 && y[1][0] == 1 && y[1][1] == 2);
    assert_ok(wide->k->scatter_rows(wide, x, y, rows, 2, 2));
    assert_true(x[0][0] == 2 && x[0][1] == 4 && x[1][0] == 3 && x[2][0] == 10 && x[2][1] == 12);
    assert_ok(wide->k->add_bias(wide, x, bias, TM_F64, 3, 2));
    assert_true(x[0][0] == 2.5 && x[0][1] == 3.5 && x[2][1] == 11.5);
    assert_ok(wide->k->bias_grad(wide, dbias, x, 3, 2));
    assert_true(dbias[0] == 1 + 2.5 + 3.5 + 10.5 && dbias[1] == 1 + 3.5 + 3.5 + 11.5);
}

/* ---- layers ---- */

/* x = (3, 4): mean square 12.5. */
static void test_rmsnorm(void **state) {
    (void)state;
    const double x[] = {3, 4}, w[] = {2, -1};
    double y[2], rstd;
    assert_ok(wide->k->rmsnorm(wide, y, &rstd, x, w, TM_F64, 0, 1, 2, 0));
    assert_near(rstd, 1 / sqrt(12.5));
    assert_near(y[0], 6 / sqrt(12.5));
    assert_near(y[1], -4 / sqrt(12.5));
    assert_ok(wide->k->rmsnorm(wide, y, &rstd, x, w, TM_F64, 0, 1, 2, 3.5));
    assert_near(y[0], 1.5);
    double dw[2] = {1, 1};
    const double dy[] = {1, 1};
    assert_ok(wide->k->rmsnorm_grad(wide, NULL, false, dw, dy, x, w, TM_F64, 0, &rstd, 1, 2)); /* rstd = 1/4 */
    assert_near(dw[0], 1.75);
    assert_near(dw[1], 2.0);
}

/* Each pair (i, i + rotary/2) as a complex number times e^{i angle}. */
static void test_rope(void **state) {
    (void)state;
    enum { N = 3, HEADS = 2, DIM = 6, ROTARY = 4, POSITIONS = 5 };
    double x[N * HEADS * DIM], y[N * HEADS * DIM], back[N * HEADS * DIM], c[POSITIONS * 2], s[POSITIONS * 2];
    const int32_t position[] = {4, 0, 2};
    random_fill(x, TM__COUNT(x), 3);
    for (int p = 0; p < POSITIONS; p++)
        for (int i = 0; i < 2; i++) {
            c[p * 2 + i] = cos(p * pow(10000, -i / 2.0));
            s[p * 2 + i] = sin(p * pow(10000, -i / 2.0));
        }
    assert_ok(wide->k->rope(wide, y, false, x, c, s, position, N, HEADS, DIM, ROTARY, 1));
    for (int row = 0; row < N * HEADS; row++) {
        const double *from = x + row * DIM, *to = y + row * DIM;
        for (int i = 0; i < 2; i++) {
            double angle = position[row / HEADS] * pow(10000, -i / 2.0);
            double length = hypot(from[i], from[i + 2]), turned = atan2(from[i + 2], from[i]) + angle;
            assert_near(to[i], length * cos(turned));
            assert_near(to[i + 2], length * sin(turned));
        }
        assert_true(to[4] == from[4] && to[5] == from[5]);
    }
    memcpy(back, x, sizeof back);
    assert_ok(wide->k->rope(wide, back, true, y, c, s, position, N, HEADS, DIM, ROTARY, -1)); /* x + x */
    for (size_t i = 0; i < TM__COUNT(x); i++) assert_near(back[i], i % DIM < 4 ? 2 * x[i] : x[i] + y[i]);
    assert_ok(wide->k->rope(wide, y, false, y, c, s, position, N, HEADS, DIM, ROTARY, -1)); /* in place */
    for (size_t i = 0; i < TM__COUNT(x); i++) assert_near(y[i], x[i]);
}

static void test_swiglu(void **state) {
    (void)state;
    const double gate[] = {0, 1, -800, 800}, up[] = {3, 2, 5, 0.5}, dy[] = {1, 1, 1, 1};
    double y[4], dgate[4], dup[4];
    assert_ok(wide->k->gated(wide, y, TM__SILU, gate, up, 4));
    assert_true(y[0] == 0 && fabs(y[2]) < 1e-300 && y[3] == 400);
    assert_near(y[1], 2 / (1 + exp(-1.0)));
    assert_ok(wide->k->gated_grad(wide, dgate, dup, dy, TM__SILU, gate, up, 4));
    assert_true(dgate[0] == 1.5 && dup[0] == 0 && dgate[3] == 0.5 && dup[3] == 800);
    assert_ok(wide->k->gated_grad(wide, NULL, dup, dy, TM__SILU, gate, up, 4));
    assert_ok(wide->k->gated_grad(wide, dgate, NULL, dy, TM__SILU, gate, up, 4));
}

/* Two keys with equal scores, then one with the other's mass: softmax by hand. */
static void test_attention(void **state) {
    (void)state;
    const double q[] = {1, 1}, k[] = {0, log(3.0)}, v[] = {10, 20};
    const int64_t start[] = {0}, length[] = {2};
    tm__attention shape = {.tokens = 2,
                           .heads = 1,
                           .kv_heads = 1,
                           .head_dim = 1,
                           .segments = 1,
                           .start = start,
                           .length = length,
                           .scale = 1};
    double out[2], lse[2];
    assert_ok(wide->k->attention(wide, out, lse, q, k, v, &shape));
    assert_true(out[0] == 10 && lse[0] == 0);
    assert_near(out[1], 0.25 * 10 + 0.75 * 20);
    assert_near(lse[1], log(4.0));
    shape.window = 1;
    assert_ok(wide->k->attention(wide, out, lse, q, k, v, &shape));
    assert_true(out[1] == 20);
    shape.window = 0;
    shape.soft_cap = 0.5;
    assert_ok(wide->k->attention(wide, out, lse, q, k, v, &shape));
    double e = exp(0.5 * tanh(2 * log(3.0)));
    assert_near(out[1], (10 + 20 * e) / (1 + e));
}

/* The last token of each slot against whole-sequence attention over the same keys. */
static void test_attention_cached(void **state) {
    (void)state;
    enum { SLOTS = 2, CAPACITY = 6, HEADS = 4, KV = 2, DIM = 3, LINE = KV * DIM };
    double cache_k[SLOTS * CAPACITY * LINE], cache_v[SLOTS * CAPACITY * LINE], q[3 * HEADS * DIM], out[3 * HEADS * DIM];
    const int32_t slot[] = {1, 0, 1}, position[] = {4, 2, 5};
    random_fill(cache_k, TM__COUNT(cache_k), 4);
    random_fill(cache_v, TM__COUNT(cache_v), 5);
    random_fill(q, TM__COUNT(q), 6);
    for (int window = 0; window <= 3; window += 3) {
        const tm__attention_cached cached = {.tokens = 3,
                                             .heads = HEADS,
                                             .kv_heads = KV,
                                             .head_dim = DIM,
                                             .capacity = CAPACITY,
                                             .slot = slot,
                                             .position = position,
                                             .window = window,
                                             .scale = 0.6,
                                             .soft_cap = 2};
        assert_ok(wide->k->attention_cached(wide, out, q, cache_k, cache_v, &cached));
        for (int i = 0; i < 3; i++) {
            double all_q[CAPACITY * HEADS * DIM] = {0}, all_out[CAPACITY * HEADS * DIM], lse[CAPACITY * HEADS];
            const int64_t start[] = {0}, length[] = {position[i] + 1};
            const tm__attention shape = {.tokens = CAPACITY,
                                         .heads = HEADS,
                                         .kv_heads = KV,
                                         .head_dim = DIM,
                                         .segments = 1,
                                         .start = start,
                                         .length = length,
                                         .window = window,
                                         .scale = 0.6,
                                         .soft_cap = 2};
            memcpy(all_q + position[i] * HEADS * DIM, q + i * HEADS * DIM, HEADS * DIM * sizeof(double));
            assert_ok(wide->k->attention(wide, all_out, lse, all_q, cache_k + slot[i] * CAPACITY * LINE,
                                         cache_v + slot[i] * CAPACITY * LINE, &shape));
            assert_memory_equal(out + i * HEADS * DIM, all_out + position[i] * HEADS * DIM,
                                HEADS * DIM * sizeof(double));
        }
    }
}

/* ---- vectors ---- */

static void test_vectors(void **state) {
    (void)state;
    double x[] = {1, 2, 3}, y[] = {10, 20, 30}, z[3], result;
    float f[3];
    assert_ok(wide->k->add(wide, z, x, y, 3));
    assert_true(z[0] == 11 && z[1] == 22 && z[2] == 33);
    assert_ok(wide->k->axpy(wide, z, -2, x, 3));
    assert_true(z[0] == 9 && z[1] == 18 && z[2] == 27);
    assert_ok(wide->k->scale(wide, z, 0.5, y, 3));
    assert_true(z[0] == 5 && z[2] == 15);
    assert_ok(wide->k->dot(wide, &result, x, y, 3));
    assert_true(result == 140);
    assert_ok(wide->k->fill(wide, z, 7, 2));
    assert_true(z[0] == 7 && z[1] == 7 && z[2] == 15);
    z[0] = 1 + 0x1p-30;
    assert_ok(wide->k->convert(wide, f, TM_F32, z, TM_F64, 3));
    assert_true(f[0] == 1 && f[1] == 7 && f[2] == 15);
    uint16_t bits[3];
    assert_ok(wide->k->convert(wide, bits, TM_BF16, y, TM_F64, 3));
    assert_ok(wide->k->convert(wide, z, TM_F64, bits, TM_BF16, 3));
    assert_memory_equal(z, y, sizeof y);
}

/* Which elements survive is pinned by the random numbers' definition; survivors are scaled by 1 / (1 - p). */
static void test_dropout(void **state) {
    (void)state;
    enum { COUNT = 10001 };
    static double x[COUNT], y[COUNT], sum[COUNT];
    for (int i = 0; i < COUNT; i++) {
        x[i] = i + 1;
        sum[i] = 1;
    }
    assert_ok(wide->k->dropout(wide, y, false, x, COUNT, 0.25, 3, 9));
    assert_ok(wide->k->dropout(wide, sum, true, x, COUNT, 0.25, 3, 9));
    int dropped = 0;
    for (int i = 0; i < COUNT; i++) {
        const uint32_t counter[4] = {(uint32_t)i / 4, 0, 9, 0}, key[2] = {3, 0};
        uint32_t block[4];
        tm__philox(counter, key, block);
        double expected = block[i % 4] < 0x40000000u ? 0 : x[i] / 0.75;
        assert_true(y[i] == expected && sum[i] == 1 + expected);
        dropped += expected == 0;
    }
    assert_true(abs(dropped - COUNT / 4) < 200); /* 4.6 standard deviations */
}

static void test_cross_entropy_row_maximum(void **state) {
    (void)state;
    double logits[] = {1000, 998, -1000, 5, 5, 5}, loss[2], lse[2];
    const double weight[] = {2, 0};
    const int32_t targets[] = {1, 2};
    assert_ok(wide->k->cross_entropy(wide, loss, lse, logits, targets, 2, 3));
    assert_near(loss[0], 2 + log1p(exp(-2.0)));
    assert_near(loss[1], log(3.0));
    assert_ok(wide->k->cross_entropy_grad(wide, logits, lse, targets, weight, 2, 3, 0));
    double p = 1 / (1 + exp(-2.0));
    assert_true(fabs(logits[0] - 2 * p) < 1e-12 && fabs(logits[1] + 2 * p) < 1e-12 && logits[2] == 0);
    assert_true(logits[3] == 0 && logits[4] == 0 && logits[5] == 0);
}

/* ---- optimisers: three steps written out ---- */

static void test_adamw(void **state) {
    (void)state;
    const double lr = 0.1, b1 = 0.9, b2 = 0.99, eps = 1e-3, decay = 0.05, clip = 0.5, g[3] = {2, -1, 4};
    double w = 1.5, m = 0, v = 0;
    for (int t = 1; t <= 3; t++) {
        const tm__adamw o = {lr, b1, b2, eps, decay, 1 - pow(b1, t), 1 - pow(b2, t), clip};
        assert_ok(wide->k->adamw(wide, &w, &m, &v, &g[t - 1], 1, &o));
    }
    /* gradients after clipping 1, -0.5, 2 */
    double m1 = 0.1, m2 = 0.09 - 0.05, m3 = 0.036 + 0.2;
    double v1 = 0.01, v2 = 0.0099 + 0.0025, v3 = 0.99 * 0.0124 + 0.04;
    double w1 = 1.5 * (1 - 0.005) - 0.1 * (m1 / 0.1) / (sqrt(v1 / 0.01) + eps);
    double w2 = w1 * (1 - 0.005) - 0.1 * (m2 / (1 - 0.81)) / (sqrt(v2 / (1 - 0.9801)) + eps);
    double w3 = w2 * (1 - 0.005) - 0.1 * (m3 / (1 - 0.729)) / (sqrt(v3 / (1 - 0.970299)) + eps);
    assert_near(m, m3);
    assert_near(v, v3);
    assert_true(fabs(w - w3) < 1e-13);
}

static void test_sgd(void **state) {
    (void)state;
    const double g[3] = {2, -1, 4};
    double w = 1.5, velocity = 0, plain = 1.5;
    for (int t = 0; t < 3; t++) {
        assert_ok(wide->k->sgd(wide, &w, &velocity, &g[t], 1, 0.1, 0.9, 0.2, 0.5));
        assert_ok(wide->k->sgd(wide, &plain, NULL, &g[t], 1, 0.1, 0, 0, 1));
    }
    double v1 = 1 + 0.2 * 1.5, w1 = 1.5 - 0.1 * v1;
    double v2 = 0.9 * v1 - 0.5 + 0.2 * w1, w2 = w1 - 0.1 * v2;
    double v3 = 0.9 * v2 + 2 + 0.2 * w2, w3 = w2 - 0.1 * v3;
    assert_near(velocity, v3);
    assert_near(w, w3);
    assert_near(plain, 1.5 - 0.2 + 0.1 - 0.4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_by_hand),
        cmocka_unit_test(test_gemm_types),
        cmocka_unit_test(test_gemm_empty),
        cmocka_unit_test(test_fp32_sums_are_double),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_rows_and_bias),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_cached),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_cross_entropy_row_maximum),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_sgd),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
