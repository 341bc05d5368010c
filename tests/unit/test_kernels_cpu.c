/* test_kernels_cpu.c: every kernel of the cpu device, under every instruction set of this machine, against the
 * reference in fp64.
 *
 * Inputs are fp32 and the same for both. The error is ||got - wanted|| / ||wanted||; see the table of tolerances.
 */
#include "cpu_fixture.h"

/* fp32 rounds to 6e-8 of a value. */
static const double rounding = 2e-7, /* a few roundings per element, no sum */
    summed = 5e-7,   /* sums of some hundred terms in lanes, or exp to about 1 ulp behind a few roundings */
    attended = 1e-6, /* scores of head_dim terms pass through exp: their absolute error becomes a relative one */
    graded = 3e-6;   /* differences dp - delta of such sums */

typedef struct devices {
    tm_device *cpu, *ref;
} devices;

/* An array that both devices see: x for cpu (exactly n floats), d for ref. */
typedef struct pair {
    float *x;
    double *d;
    size_t n;
} pair;

static pair pair_random(size_t n, uint64_t stream) {
    float *x = random_floats(n, stream);
    return (pair){x, as_doubles(x, TM_F32, n), n};
}

static void pair_free(pair *p) {
    free(p->x);
    free(p->d);
}

static void check_pair(const char *what, const devices *dev, const pair *p, double tolerance) {
    double *got = as_doubles(p->x, TM_F32, p->n), error = test_relative_error(got, p->d, p->n);
    free(got);
    if (!(error < tolerance))
        fail_msg("%s on %s, %zu elements: error %.2e, allowed %.1e", what, dev->cpu->isa, p->n, error, tolerance);
}

#define ON_CPU(kernel, ...) assert_ok(dev->cpu->k->kernel(dev->cpu, __VA_ARGS__))
#define ON_REF(kernel, ...) assert_ok(dev->ref->k->kernel(dev->ref, __VA_ARGS__))

static const int64_t sizes[] = {1, 3, 17, 63, 65, 1000, 8192, 20001};

static void vector_kernels(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(sizes); s++) {
        int64_t n = sizes[s];
        pair a = pair_random((size_t)n, 1), b = pair_random((size_t)n, 2), y = pair_random((size_t)n, 3);
        ON_CPU(add, y.x, a.x, b.x, n);
        ON_REF(add, y.d, a.d, b.d, n);
        check_pair("add", dev, &y, rounding);
        ON_CPU(axpy, y.x, -0.3, a.x, n);
        ON_REF(axpy, y.d, -0.3, a.d, n);
        check_pair("axpy", dev, &y, rounding);
        ON_CPU(scale, y.x, 1.7, y.x, n);
        ON_REF(scale, y.d, 1.7, y.d, n);
        check_pair("scale", dev, &y, rounding);
        double got, wanted;
        ON_CPU(dot, &got, a.x, a.x, n);
        ON_REF(dot, &wanted, a.d, a.d, n);
        assert_true(fabs(got - wanted) <= 1e-13 * wanted);
        ON_CPU(fill, y.x, 0.1, n);
        ON_REF(fill, y.d, 0.1, n);
        check_pair("fill", dev, &y, rounding);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            ON_CPU(dropout, y.x, accumulate, a.x, n, 0.3, 11, 0x500000007u);
            ON_REF(dropout, y.d, accumulate, a.d, n, 0.3, 11, 0x500000007u);
            check_pair("dropout", dev, &y, rounding);
        }
        pair_free(&a);
        pair_free(&b);
        pair_free(&y);
    }
}

static void convert_kernel(const devices *dev) {
    static const tm_dtype types[] = {TM_F32, TM_BF16, TM_F16, TM_F64};
    for (size_t s = 0; s < TM__COUNT(sizes); s++)
        for (size_t i = 0; i < TM__COUNT(types); i++)
            for (size_t j = 0; j < TM__COUNT(types); j++) {
                size_t n = (size_t)sizes[s], bytes = n * tm__dtype_size(types[j]);
                float *x = random_floats(n, 4);
                if (n > 16) {
                    const float odd[] = {0, -0.0f, INFINITY, -INFINITY, 1e-40f, 70000, 1e-7f, 3.4e38f, 65519};
                    memcpy(x, odd, sizeof odd);
                }
                void *from = as_type(x, types[i], n), *got = room(n, tm__dtype_size(types[j]));
                void *wanted = room(n, tm__dtype_size(types[j]));
                ON_CPU(convert, got, types[j], from, types[i], (int64_t)n);
                tm__convert(wanted, types[j], from, types[i], n);
                assert_memory_equal(got, wanted, bytes);
                free(x);
                free(from);
                free(got);
                free(wanted);
            }
    float nan[40];
    uint16_t half[40];
    for (int i = 0; i < 40; i++) nan[i] = NAN;
    ON_CPU(convert, half, TM_BF16, nan, TM_F32, 40);
    for (int i = 0; i < 40; i++) assert_true(isnan(tm__bf16_to_f32(half[i])));
}

static void optimisers(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(sizes); s++) {
        int64_t n = sizes[s];
        pair w = pair_random((size_t)n, 5), m = pair_random((size_t)n, 6), v = pair_random((size_t)n, 7);
        pair g = pair_random((size_t)n, 8);
        for (int64_t i = 0; i < n; i++) {
            v.x[i] = v.x[i] * v.x[i];
            v.d[i] = (double)v.x[i];
        }
        tm__adamw o = {.lr = 1e-2,
                       .beta1 = 0.9,
                       .beta2 = 0.999,
                       .epsilon = 1e-8,
                       .weight_decay = 0.1,
                       .correction1 = 1 - 0.9,
                       .correction2 = 1 - 0.999,
                       .grad_scale = 0.5};
        ON_CPU(adamw, w.x, m.x, v.x, g.x, n, &o);
        ON_REF(adamw, w.d, m.d, v.d, g.d, n, &o);
        check_pair("adamw w", dev, &w, rounding);
        check_pair("adamw m", dev, &m, rounding);
        check_pair("adamw v", dev, &v, rounding);
        ON_CPU(sgd, w.x, NULL, g.x, n, 0.1, 0, 0.01, 2);
        ON_REF(sgd, w.d, NULL, g.d, n, 0.1, 0, 0.01, 2);
        check_pair("sgd", dev, &w, rounding);
        ON_CPU(sgd, w.x, m.x, g.x, n, 0.1, 0.9, 0.01, 2);
        ON_REF(sgd, w.d, m.d, g.d, n, 0.1, 0.9, 0.01, 2);
        check_pair("sgd with momentum", dev, &w, rounding);
        check_pair("sgd's velocity", dev, &m, rounding);
        pair_free(&w);
        pair_free(&m);
        pair_free(&v);
        pair_free(&g);
    }
}

/* A decay of lr * weight_decay = 1e-8 per step is below fp32's spacing at 1, but not once it is 5e-8 of a weight: it
 * must not vanish inside a factor. */
static void small_decay(const devices *dev) {
    float w = 1, m = 0, v = 0, g = 0;
    tm__adamw o = {.lr = 9e-7,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .epsilon = 1e-8,
                   .weight_decay = 0.04,
                   .correction1 = 0.1,
                   .correction2 = 0.001,
                   .grad_scale = 1};
    ON_CPU(adamw, &w, &m, &v, &g, 1, &o);
    assert_true(w < 1);
}

static const int64_t widths[] = {1, 3, 17, 63, 65, 576, 1000};
static const tm_dtype weight_types[] = {TM_F32, TM_BF16, TM_F16};

static void norm_and_bias(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(widths); s++) {
        int64_t d = widths[s], n = s % 2 ? 130 : 3;
        tm_dtype type = weight_types[s % 3];
        pair x = pair_random((size_t)(n * d), 1), dy = pair_random((size_t)(n * d), 2),
             y = pair_random((size_t)(n * d), 3);
        pair rstd = pair_random((size_t)n, 4), dw = pair_random((size_t)d, 5), dx = pair_random((size_t)(n * d), 6);
        float *w_floats = random_floats((size_t)d, 7);
        void *w = as_type(w_floats, type, (size_t)d);
        ON_CPU(rmsnorm, y.x, rstd.x, x.x, w, type, 0, n, d, 1e-5);
        ON_REF(rmsnorm, y.d, rstd.d, x.d, w, type, 0, n, d, 1e-5);
        check_pair("rmsnorm", dev, &y, summed);
        check_pair("rmsnorm's rstd", dev, &rstd, summed);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            ON_CPU(rmsnorm_grad, dx.x, accumulate, accumulate ? NULL : dw.x, dy.x, x.x, w, type, 0, rstd.x, n, d);
            ON_REF(rmsnorm_grad, dx.d, accumulate, accumulate ? NULL : dw.d, dy.d, x.d, w, type, 0, rstd.d, n, d);
            /* d = 1: dx is 0 but for rounding */
            if (d > 1) check_pair("rmsnorm_grad dx", dev, &dx, summed);
        }
        ON_CPU(rmsnorm_grad, NULL, false, dw.x, dy.x, x.x, w, type, 0, rstd.x, n, d);
        ON_REF(rmsnorm_grad, NULL, false, dw.d, dy.d, x.d, w, type, 0, rstd.d, n, d);
        check_pair("rmsnorm_grad dw", dev, &dw, summed);
        ON_CPU(add_bias, y.x, w, type, n, d);
        ON_REF(add_bias, y.d, w, type, n, d);
        check_pair("add_bias", dev, &y, summed);
        ON_CPU(bias_grad, dw.x, dy.x, n, d);
        ON_REF(bias_grad, dw.d, dy.d, n, d);
        check_pair("bias_grad", dev, &dw, summed);
        pair_free(&x);
        pair_free(&dy);
        pair_free(&y);
        pair_free(&rstd);
        pair_free(&dw);
        pair_free(&dx);
        free(w_floats);
        free(w);
    }
}

static void shifted_and_layer_norm(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(widths); s++) {
        int64_t d = widths[s], n = s % 2 ? 130 : 3;
        tm_dtype type = weight_types[s % 3];
        size_t count = (size_t)(n * d);
        pair x = pair_random(count, 1), dy = pair_random(count, 2), y = pair_random(count, 3),
             dx = pair_random(count, 6);
        pair mean = pair_random((size_t)n, 4), rstd = pair_random((size_t)n, 8);
        pair dw = pair_random((size_t)d, 5), db = pair_random((size_t)d, 9);
        float *w_floats = random_floats((size_t)d, 7), *b_floats = random_floats((size_t)d, 10);
        void *w = as_type(w_floats, type, (size_t)d), *b = as_type(b_floats, type, (size_t)d);
        ON_CPU(rmsnorm, y.x, rstd.x, x.x, w, type, 1, n, d, 1e-5);
        ON_REF(rmsnorm, y.d, rstd.d, x.d, w, type, 1, n, d, 1e-5);
        check_pair("rmsnorm, shifted", dev, &y, summed);
        ON_CPU(rmsnorm_grad, dx.x, false, dw.x, dy.x, x.x, w, type, 1, rstd.x, n, d);
        ON_REF(rmsnorm_grad, dx.d, false, dw.d, dy.d, x.d, w, type, 1, rstd.d, n, d);
        if (d > 1) check_pair("rmsnorm_grad dx, shifted", dev, &dx, summed);
        check_pair("rmsnorm_grad dw, shifted", dev, &dw, summed);
        for (int64_t i = 0; i < n * d; i++)
            x.d[i] = (double)(x.x[i] = x.x[i] + (s % 2 ? 3 : 0)); /* a mean to take off */
        ON_CPU(layernorm, y.x, mean.x, rstd.x, x.x, w, type, b, type, n, d, 1e-5);
        ON_REF(layernorm, y.d, mean.d, rstd.d, x.d, w, type, b, type, n, d, 1e-5);
        if (d > 1) { /* d = 1: x - mean is 0 but for rounding */
            check_pair("layernorm", dev, &y, graded);
            check_pair("layernorm's mean", dev, &mean, summed);
            check_pair("layernorm's rstd", dev, &rstd, graded);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                ON_CPU(layernorm_grad, dx.x, accumulate, dw.x, accumulate ? NULL : db.x, dy.x, x.x, w, type, mean.x,
                       rstd.x, n, d);
                ON_REF(layernorm_grad, dx.d, accumulate, dw.d, accumulate ? NULL : db.d, dy.d, x.d, w, type, mean.d,
                       rstd.d, n, d);
                check_pair("layernorm_grad dx", dev, &dx, graded);
            }
            ON_CPU(layernorm_grad, NULL, false, NULL, db.x, dy.x, x.x, w, type, mean.x, rstd.x, n, d);
            ON_REF(layernorm_grad, NULL, false, NULL, db.d, dy.d, x.d, w, type, mean.d, rstd.d, n, d);
            check_pair("layernorm_grad dw", dev, &dw, graded);
            check_pair("layernorm_grad db", dev, &db, graded);
        }
        pair *all[] = {&x, &dy, &y, &dx, &mean, &rstd, &dw, &db};
        for (size_t i = 0; i < TM__COUNT(all); i++) pair_free(all[i]);
        free(w_floats);
        free(b_floats);
        free(w);
        free(b);
    }
}

static void soft_caps(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(sizes); s++) {
        int64_t n = sizes[s];
        pair x = pair_random((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) x.d[i] = (double)(x.x[i] *= i % 3 ? 20 : 0.01f);
        if (n > 16) {
            const float far[] = {0, -0.0f, 1e-30f, 19, -19, 500, -500, 1e6f, -1e6f};
            for (size_t i = 0; i < TM__COUNT(far); i++) x.d[i] = (double)(x.x[i] = far[i]);
        }
        ON_CPU(soft_cap, x.x, 30, n);
        ON_REF(soft_cap, x.d, 30, n);
        for (int64_t i = 0; i < n; i++) /* each by itself: near 0 as well */
            assert_true(fabs((double)x.x[i] - x.d[i]) <= 5e-7 * fabs(x.d[i]) + 1e-37);
        pair_free(&x);
    }
}

static void rows_of_tables(const devices *dev) {
    enum { VOCAB = 50, N = 77 };
    int32_t ids[N], distinct[N];
    for (int i = 0; i < N; i++) {
        ids[i] = i * i % VOCAB;
        distinct[i] = i * 3 % 80;
    }
    for (size_t s = 0; s < TM__COUNT(widths); s++) {
        int64_t d = widths[s];
        pair table = pair_random((size_t)(80 * d), 1), y = pair_random((size_t)(N * d), 2);
        for (size_t t = 0; t < TM__COUNT(weight_types); t++) {
            void *typed = as_type(table.x, weight_types[t], (size_t)(80 * d));
            ON_CPU(embedding, y.x, typed, weight_types[t], ids, N, d);
            ON_REF(embedding, y.d, typed, weight_types[t], ids, N, d);
            check_pair("embedding", dev, &y, 1e-300);
            free(typed);
        }
        ON_CPU(embedding_grad, table.x, y.x, ids, N, d);
        ON_REF(embedding_grad, table.d, y.d, ids, N, d);
        check_pair("embedding_grad", dev, &table, rounding);
        ON_CPU(scatter_rows, table.x, y.x, distinct, N, d);
        ON_REF(scatter_rows, table.d, y.d, distinct, N, d);
        check_pair("scatter_rows", dev, &table, rounding);
        ON_CPU(gather_rows, y.x, table.x, distinct, N, d);
        ON_REF(gather_rows, y.d, table.d, distinct, N, d);
        check_pair("gather_rows", dev, &y, rounding);
        pair_free(&table);
        pair_free(&y);
    }
}

static void rope_kernel(const devices *dev) {
    static const int64_t dims[][3] = {
        {2, 2, 1}, {32, 32, 4}, {80, 32, 2}, {64, 64, 9}, {6, 4, 3}}; /* head_dim, rotary, heads */
    enum { N = 40, POSITIONS = 100 };
    int32_t position[N];
    for (int i = 0; i < N; i++) position[i] = i * 37 % POSITIONS;
    for (size_t s = 0; s < TM__COUNT(dims); s++)
        for (int sign = -1; sign < 2; sign += 2) {
            int64_t hd = dims[s][0], rotary = dims[s][1], heads = dims[s][2];
            pair x = pair_random((size_t)(N * heads * hd), 1), y = pair_random((size_t)(N * heads * hd), 2);
            pair c = pair_random((size_t)(POSITIONS * rotary / 2), 3),
                 sine = pair_random((size_t)(POSITIONS * rotary / 2), 4);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                ON_CPU(rope, y.x, accumulate, x.x, c.x, sine.x, position, N, heads, hd, rotary, sign);
                ON_REF(rope, y.d, accumulate, x.d, c.d, sine.d, position, N, heads, hd, rotary, sign);
                check_pair("rope", dev, &y, rounding);
            }
            ON_CPU(rope, x.x, false, x.x, c.x, sine.x, position, N, heads, hd, rotary, sign);
            ON_REF(rope, x.d, false, x.d, c.d, sine.d, position, N, heads, hd, rotary, sign);
            check_pair("rope in place", dev, &x, rounding);
            pair_free(&x);
            pair_free(&y);
            pair_free(&c);
            pair_free(&sine);
        }
}

static void gate_of(const devices *dev, tm__activation act) {
    for (size_t s = 0; s < TM__COUNT(sizes); s++) {
        int64_t n = sizes[s];
        pair g = pair_random((size_t)n, 1), up = pair_random((size_t)n, 2), dy = pair_random((size_t)n, 3);
        pair y = pair_random((size_t)n, 4), dup = pair_random((size_t)n, 5);
        if (n > 16) {
            const float far[] = {0, 30, -30, 89, -89, 200, -200, 1000, -1000};
            for (size_t i = 0; i < TM__COUNT(far); i++) g.d[i] = (double)(g.x[i] = far[i]);
        }
        ON_CPU(gated, y.x, act, g.x, up.x, n);
        ON_REF(gated, y.d, act, g.d, up.d, n);
        check_pair("gated", dev, &y, summed);
        ON_CPU(gated_grad, y.x, dup.x, dy.x, act, g.x, up.x, n);
        ON_REF(gated_grad, y.d, dup.d, dy.d, act, g.d, up.d, n);
        check_pair("gated_grad dgate", dev, &y, summed);
        check_pair("gated_grad dup", dev, &dup, summed);
        ON_CPU(gated_grad, NULL, dup.x, dy.x, act, g.x, up.x, n);
        ON_CPU(gated_grad, y.x, NULL, dy.x, act, g.x, up.x, n);
        check_pair("gated_grad dgate alone", dev, &y, summed);
        ON_CPU(gated, y.x, act, g.x, NULL, n);
        ON_REF(gated, y.d, act, g.d, NULL, n);
        check_pair("activation alone", dev, &y, summed);
        ON_CPU(gated_grad, y.x, NULL, dy.x, act, g.x, NULL, n);
        ON_REF(gated_grad, y.d, NULL, dy.d, act, g.d, NULL, n);
        check_pair("gradient of an activation alone", dev, &y, summed);
        pair_free(&g);
        pair_free(&up);
        pair_free(&dy);
        pair_free(&y);
        pair_free(&dup);
    }
}

static void gate(const devices *dev) {
    gate_of(dev, TM__SILU);
    gate_of(dev, TM__GELU_TANH);
}

/* An element's bytes do not depend on its place: generation relies on it. */
static void gate_is_position_free(const devices *dev) {
    float x[64], y[64], z[64];
    for (int i = 0; i < 64; i++) x[i] = (float)(i * 37 % 64) / 9 - 3;
    ON_CPU(gated, y, TM__SILU, x, x, 64);
    for (int at = 0; at < 64; at++)
        for (int n = 1; at + n <= 64; n += 5) {
            ON_CPU(gated, z, TM__SILU, x + at, x + at, n);
            assert_memory_equal(z, y + at, (size_t)n * 4);
        }
}

static void loss(const devices *dev) {
    static const int64_t vocab[] = {1, 2, 17, 65, 1000, 49152};
    for (size_t s = 0; s < TM__COUNT(vocab); s++)
        for (int shift = 0; shift < 2; shift++) {
            enum { N = 9 };
            size_t n = (size_t)(N * vocab[s]);
            pair x = pair_random(n, 1), value = pair_random(N, 2), lse = pair_random(N, 3), weight = pair_random(N, 4);
            int32_t targets[N];
            for (int i = 0; i < N; i++) targets[i] = (int32_t)(i * 997 % vocab[s]);
            for (size_t i = 0; i < n; i++) x.d[i] = (double)(x.x[i] = x.x[i] * 5 + (shift ? 300 : -40));
            ON_CPU(cross_entropy, value.x, lse.x, x.x, targets, N, vocab[s]);
            ON_REF(cross_entropy, value.d, lse.d, x.d, targets, N, vocab[s]);
            if (vocab[s] > 1) check_pair("cross_entropy", dev, &value, summed);
            check_pair("cross_entropy's lse", dev, &lse, summed);
            for (int i = 0; i < N; i++)
                lse.d[i] = (double)lse.x[i]; /* rounding lse at 300 to fp32 is not the kernel's error */
            ON_CPU(cross_entropy_grad, x.x, lse.x, targets, weight.x, N, vocab[s], 0);
            ON_REF(cross_entropy_grad, x.d, lse.d, targets, weight.d, N, vocab[s], 0);
            if (vocab[s] > 1) check_pair("cross_entropy_grad", dev, &x, graded);
            for (size_t i = 0; i < n; i++)
                x.d[i] = (double)(x.x[i] = (float)(i * 7919 % 400) / 10 - 20); /* in the cap */
            ON_CPU(cross_entropy, value.x, lse.x, x.x, targets, N, vocab[s]);
            for (int i = 0; i < N; i++) lse.d[i] = (double)lse.x[i];
            ON_CPU(cross_entropy_grad, x.x, lse.x, targets, weight.x, N, vocab[s], 25);
            ON_REF(cross_entropy_grad, x.d, lse.d, targets, weight.d, N, vocab[s], 25);
            if (vocab[s] > 1) check_pair("cross_entropy_grad, capped", dev, &x, graded);
            pair_free(&x);
            pair_free(&value);
            pair_free(&lse);
            pair_free(&weight);
        }
    float row[3] = {1, NAN, 2}, value, lse;
    int32_t target = 0;
    ON_CPU(cross_entropy, &value, &lse, row, &target, 1, 3);
    assert_true(isnan(value)); /* a NaN is seen, not skipped */
    float masked[40];
    for (int i = 0; i < 40; i++) masked[i] = i == 7 ? 0 : -INFINITY;
    target = 7;
    ON_CPU(cross_entropy, &value, &lse, masked, &target, 1, 40);
    assert_true(value == 0);
}

typedef struct attention_case {
    int64_t tokens, heads, kv_heads, head_dim, window;
    double soft_cap;
    int64_t segments, start[4], length[4];
} attention_case;

static const attention_case attention_cases[] = {
    {1, 1, 1, 4, 0, 0, 1, {0}, {1}},
    {20, 4, 4, 32, 0, 0, 1, {0}, {20}},
    {100, 4, 2, 32, 0, 0, 3, {0, 37, 60}, {37, 23, 40}}, /* packed, grouped */
    {100, 6, 2, 20, 0, 0, 3, {3, 40, 80}, {30, 1, 17}},  /* padded, head_dim of no round number */
    {130, 9, 3, 64, 0, 0, 2, {0, 65}, {65, 65}},
    {90, 4, 1, 32, 7, 0, 2, {0, 50}, {50, 33}}, /* window */
    {90, 2, 2, 32, 0, 3, 2, {0, 45}, {45, 45}}, /* soft cap */
    {150, 4, 2, 48, 40, 5, 1, {10}, {140}},
    {50, 2, 2, 16, 0, 0, 0, {0}, {0}},    /* padding alone */
    {700, 2, 1, 16, 0, 0, 1, {0}, {700}}, /* long: several partial sums */
    {1100, 2, 2, 8, 130, 0, 2, {0, 600}, {600, 500}},
};

static void largest_of_rows(const devices *dev) {
    enum { N = 7 };
    static const int64_t lengths[] = {1, 5, 16, 17, 100, 1364, 49152};
    for (size_t s = 0; s < TM__COUNT(lengths); s++) {
        int64_t d = lengths[s];
        pair x = pair_random((size_t)(N * d), 1);
        for (size_t i = 0; i < x.n; i++) x.d[i] = (double)(x.x[i] = roundf(x.x[i] * 8)); /* many are equal */
        const float odd[] = {NAN, INFINITY, -INFINITY};
        for (int i = 0; i < 3; i++) x.d[i * d + d / 2] = (double)(x.x[i * d + d / 2] = odd[i]);
        for (int64_t j = 0; j < d; j++) x.d[3 * d + j] = (double)(x.x[3 * d + j] = -3e38f);
        int32_t got[N], wanted[N];
        ON_CPU(largest, got, x.x, N, d);
        ON_REF(largest, wanted, x.d, N, d);
        assert_memory_equal(got, wanted, sizeof got);
        for (int i = 0; i < N; i++) assert_true(i < 3 ? got[i] == -1 : got[i] >= 0 && got[i] < d);
        assert_int_equal(got[3], 0);
        pair_free(&x);
    }
}

static void attention_kernels(const devices *dev) {
    for (size_t s = 0; s < TM__COUNT(attention_cases); s++) {
        const attention_case *c = &attention_cases[s];
        tm__attention a = {.tokens = c->tokens,
                           .heads = c->heads,
                           .kv_heads = c->kv_heads,
                           .head_dim = c->head_dim,
                           .segments = c->segments,
                           .start = c->start,
                           .length = c->length,
                           .window = c->window,
                           .scale = 1 / sqrt((double)c->head_dim),
                           .soft_cap = c->soft_cap};
        size_t nq = (size_t)(c->tokens * c->heads * c->head_dim), nk = (size_t)(c->tokens * c->kv_heads * c->head_dim);
        pair q = pair_random(nq, 1), k = pair_random(nk, 2), v = pair_random(nk, 3), dout = pair_random(nq, 4);
        pair out = pair_random(nq, 5), lse = pair_random((size_t)(c->tokens * c->heads), 6);
        pair dq = pair_random(nq, 7), dk = pair_random(nk, 8), dv = pair_random(nk, 9);
        ON_CPU(attention, out.x, lse.x, q.x, k.x, v.x, &a);
        ON_REF(attention, out.d, lse.d, q.d, k.d, v.d, &a);
        check_pair("attention", dev, &out, attended);
        check_pair("attention's lse", dev, &lse, attended);
        ON_CPU(attention_grad, dq.x, dk.x, dv.x, dout.x, out.x, lse.x, q.x, k.x, v.x, &a);
        ON_REF(attention_grad, dq.d, dk.d, dv.d, dout.d, out.d, lse.d, q.d, k.d, v.d, &a);
        if (c->tokens > 1) { /* one token: dq and dk are 0 but for rounding */
            check_pair("attention_grad dq", dev, &dq, graded);
            check_pair("attention_grad dk", dev, &dk, graded);
        }
        check_pair("attention_grad dv", dev, &dv, graded);
        pair *all[] = {&q, &k, &v, &dout, &out, &lse, &dq, &dk, &dv};
        for (size_t i = 0; i < TM__COUNT(all); i++) pair_free(all[i]);
    }
}

/* The first `shared` rows of slot 0 of a cache become those of all slots: as a part of each, or apart from them. */
static void split_cache(const pair *all, int64_t slots, int64_t capacity, int64_t shared, int64_t line, pair *prefix,
                        pair *rest) {
    *prefix = pair_random((size_t)(shared * line), 1);
    *rest = pair_random((size_t)(slots * (capacity - shared) * line), 1);
    memcpy(prefix->x, all->x, prefix->n * 4);
    for (int64_t s = 0; s < slots; s++) {
        if (s) memcpy(all->x + s * capacity * line, all->x, prefix->n * 4);
        memcpy(rest->x + s * (capacity - shared) * line, all->x + (s * capacity + shared) * line,
               (size_t)((capacity - shared) * line) * 4);
    }
    for (size_t i = 0; i < prefix->n; i++) prefix->d[i] = (double)prefix->x[i];
    for (size_t i = 0; i < rest->n; i++) rest->d[i] = (double)rest->x[i];
}

/* What all slots begin with gives the same bytes in a prefix of any length as in every slot. */
static void behind_prefix(const devices *dev, const tm__attention_cached *whole, const pair *q, const pair *k,
                          const pair *v) {
    static const int64_t lengths[] = {1, 6, 16, 33, 40};
    int64_t line = whole->kv_heads * whole->head_dim, slots = (int64_t)k->n / line / whole->capacity;
    pair got = pair_random(q->n, 5), wanted = pair_random(q->n, 6);
    for (size_t s = 0; s < TM__COUNT(lengths); s++) {
        tm__attention_cached a = *whole;
        pair prefix_k, prefix_v, rest_k, rest_v;
        split_cache(k, slots, whole->capacity, lengths[s], line, &prefix_k, &rest_k);
        split_cache(v, slots, whole->capacity, lengths[s], line, &prefix_v, &rest_v);
        a.prefix = lengths[s];
        a.capacity -= lengths[s];
        a.prefix_k = prefix_k.x;
        a.prefix_v = prefix_v.x;
        ON_CPU(attention_cached, wanted.x, q->x, k->x, v->x, whole);
        ON_CPU(attention_cached, got.x, q->x, rest_k.x, rest_v.x, &a);
        assert_memory_equal(got.x, wanted.x, got.n * 4);
        a.prefix_k = prefix_k.d;
        a.prefix_v = prefix_v.d;
        ON_REF(attention_cached, got.d, q->d, rest_k.d, rest_v.d, &a);
        check_pair("attention_cached behind a prefix", dev, &got, attended);
        pair *all[] = {&prefix_k, &prefix_v, &rest_k, &rest_v};
        for (size_t i = 0; i < TM__COUNT(all); i++) pair_free(all[i]);
    }
    pair_free(&got);
    pair_free(&wanted);
}

/* Keys and values as bf16, with and without a prefix, give what the same numbers give in act type: on the cpu to the
 * byte. */
static void in_16_bits(const devices *dev, const tm__attention_cached *whole, const pair *q, const pair *k,
                       const pair *v, pair *out) {
    tm__attention_cached a = *whole;
    uint16_t *k16 = as_type(k->x, TM_BF16, k->n), *v16 = as_type(v->x, TM_BF16, v->n);
    float *k32 = room(k->n, 4), *v32 = room(v->n, 4), *wanted = room(out->n, 4);
    tm__convert(k32, TM_F32, k16, TM_BF16, k->n);
    tm__convert(v32, TM_F32, v16, TM_BF16, v->n);
    ON_CPU(attention_cached, wanted, q->x, k32, v32, whole);
    a.bf16 = true;
    ON_CPU(attention_cached, out->x, q->x, k16, v16, &a);
    assert_memory_equal(out->x, wanted, out->n * 4);
    ON_REF(attention_cached, out->d, q->d, k16, v16, &a);
    check_pair("attention_cached in 16 bits", dev, out, attended);
    free(k16), free(v16), free(k32), free(v32), free(wanted);
}

static void cached_attention(const devices *dev) {
    enum { SLOTS = 3, CAPACITY = 70, N = 5 };
    static const int32_t slot[N] = {2, 0, 0, 1, 2}, position[N] = {0, 33, 34, 69, 16};
    static const int64_t dims[][3] = {{4, 4, 32}, {6, 2, 20}, {9, 3, 64}, {2, 1, 128}, {1, 1, 3}};
    for (size_t s = 0; s < TM__COUNT(dims); s++)
        for (int kind = 0; kind < 3; kind++) {
            tm__attention_cached a = {.tokens = N,
                                      .heads = dims[s][0],
                                      .kv_heads = dims[s][1],
                                      .head_dim = dims[s][2],
                                      .capacity = CAPACITY,
                                      .slot = slot,
                                      .position = position,
                                      .window = kind == 1 ? 9 : 0,
                                      .scale = 0.3,
                                      .soft_cap = kind == 2 ? 4 : 0};
            size_t nq = (size_t)(N * a.heads * a.head_dim), nk = (size_t)(SLOTS * CAPACITY * a.kv_heads * a.head_dim);
            pair q = pair_random(nq, 1), k = pair_random(nk, 2), v = pair_random(nk, 3), out = pair_random(nq, 4);
            ON_CPU(attention_cached, out.x, q.x, k.x, v.x, &a);
            ON_REF(attention_cached, out.d, q.d, k.d, v.d, &a);
            check_pair("attention_cached", dev, &out, attended);
            /* A token alone gives the same bytes as among others. */
            float *alone = room((size_t)(a.heads * a.head_dim), 4);
            for (int i = 0; i < N; i++) {
                int64_t at = i * a.heads * a.head_dim;
                a.tokens = 1;
                a.slot = slot + i;
                a.position = position + i;
                ON_CPU(attention_cached, alone, q.x + at, k.x, v.x, &a);
                assert_memory_equal(alone, out.x + at, (size_t)(a.heads * a.head_dim) * 4);
            }
            free(alone);
            a.tokens = N;
            a.slot = slot;
            a.position = position;
            behind_prefix(dev, &a, &q, &k, &v);
            in_16_bits(dev, &a, &q, &k, &v, &out);
            pair_free(&q);
            pair_free(&k);
            pair_free(&v);
            pair_free(&out);
        }
}

/* Every kernel that takes memory reports when there is none, and works once there is. */
static void out_of_memory(const devices *dev) {
    const int64_t start[] = {0}, length[] = {700};
    tm__attention a = {.tokens = 700,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .segments = 1,
                       .start = start,
                       .length = length,
                       .scale = 1};
    float *x = random_floats(700 * 8, 1), *y = room(700 * 8, 4), *z = room(700 * 8, 4), *w = room(700 * 8, 4),
          *lse = room(700, 4);
    for (long n = 1;; n++) {
        tm_device *fresh = open_cpu(dev->cpu->isa, 2, TM_PRECISION_F32);
        tm__alloc_fail_at(n, false);
        tm_status forward = fresh->k->attention(fresh, y, lse, x, x, x, &a);
        tm_status back = forward == TM_OK ? fresh->k->attention_grad(fresh, z, w, w, x, y, lse, x, x, x, &a) : forward;
        tm__alloc_fail_at(0, false);
        tm_device_close(fresh);
        if (back == TM_OK) {
            assert_true(n > 6);
            break;
        }
        assert_int_equal(back, TM_NO_MEMORY);
    }
    free(x);
    free(y);
    free(z);
    free(w);
    free(lse);
}

static void each_isa(void (*test)(const devices *dev)) {
    devices dev = {.ref = open_ref()};
    for (size_t i = 0; i < TM__COUNT(isa_names); i++) {
        dev.cpu = open_cpu(isa_names[i], 2, TM_PRECISION_F32);
        if (dev.cpu) test(&dev);
        tm_device_close(dev.cpu);
    }
    tm_device_close(dev.ref);
}

#define KERNEL_TEST(name)                   \
    static void test_##name(void **state) { \
        (void)state;                        \
        each_isa(name);                     \
    }
KERNEL_TEST(vector_kernels)
KERNEL_TEST(convert_kernel)
KERNEL_TEST(optimisers)
KERNEL_TEST(small_decay)
KERNEL_TEST(norm_and_bias)
KERNEL_TEST(shifted_and_layer_norm)
KERNEL_TEST(soft_caps)
KERNEL_TEST(rows_of_tables)
KERNEL_TEST(rope_kernel)
KERNEL_TEST(gate)
KERNEL_TEST(gate_is_position_free)
KERNEL_TEST(loss)
KERNEL_TEST(largest_of_rows)
KERNEL_TEST(attention_kernels)
KERNEL_TEST(cached_attention)
KERNEL_TEST(out_of_memory)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector_kernels),
        cmocka_unit_test(test_convert_kernel),
        cmocka_unit_test(test_optimisers),
        cmocka_unit_test(test_small_decay),
        cmocka_unit_test(test_norm_and_bias),
        cmocka_unit_test(test_shifted_and_layer_norm),
        cmocka_unit_test(test_soft_caps),
        cmocka_unit_test(test_rows_of_tables),
        cmocka_unit_test(test_rope_kernel),
        cmocka_unit_test(test_gate),
        cmocka_unit_test(test_gate_is_position_free),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_largest_of_rows),
        cmocka_unit_test(test_attention_kernels),
        cmocka_unit_test(test_cached_attention),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
