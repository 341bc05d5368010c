/* test_kernels_encoder.c: the kernels that only encoders use, on the cpu device under every instruction set of this
 * machine, against the reference in fp64: activations, layer normalisation, attention to whole segments with relative
 * terms. The reference itself is held by tests/golden/test_encoders.c.
 */
#include "cpu_fixture.h"

static const double summed = 5e-7, attended = 1e-6; /* as in test_kernels_cpu.c */

static void check(const char *what, const tm_device *cpu, const float *got, const double *wanted, size_t n,
                  double tolerance) {
    double *wide = as_doubles(got, TM_F32, n), error = test_relative_error(wide, wanted, n);
    free(wide);
    if (!(error < tolerance))
        fail_msg("%s on %s, %zu elements: error %.2e, allowed %.1e", what, cpu->isa, n, error, tolerance);
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static const char *const names[] = {"silu", "gelu_tanh", "gelu", "relu", "tanh"};

static void activations(tm_device *cpu, tm_device *ref) {
    enum { N = 20001 };
    float *x = random_floats(N, 1), *y = room(N, sizeof *y);
    for (int i = 0; i < N; i++) x[i] *= i % 3 == 0 ? 5 : 1;
    const float far[] = {0, 30, -30, 89, -89, 1000, -1000, 1e-20f, -1e-20f, 1.41421356f, 2.8284271f, -2.8284271f};
    memcpy(x, far, sizeof far);
    double *wide = as_doubles(x, TM_F32, N), *want = room(N, sizeof *want);
    for (int act = TM__SILU; act <= TM__TANH; act++) {
        assert_ok(cpu->k->activation(cpu, y, (tm__activation)act, x, N));
        assert_ok(ref->k->activation(ref, want, (tm__activation)act, wide, N));
        check(names[act], cpu, y, want, N, summed);
        for (int i = 0; i < N; i++) /* every element by itself; a tail e^-x^2 magnifies rounding of its exponent */
            if (!(fabs((double)y[i] - want[i]) <= 1e-6 * (1 + wide[i] * wide[i]) * fabs(want[i]) + 1e-33))
                fail_msg("%s(%.9g) on %s: %.9g instead of %.9g", names[act], wide[i], cpu->isa, (double)y[i], want[i]);
        for (int at = 0; at < 64; at++) { /* bytes do not depend on the place */
            float z[7];
            assert_ok(cpu->k->activation(cpu, z, (tm__activation)act, x + at, 7));
            assert_memory_equal(z, y + at, sizeof z);
        }
        float odd[3] = {NAN, 1, NAN};
        assert_ok(cpu->k->activation(cpu, odd, (tm__activation)act, odd, 3));
        assert_true(isnan(odd[0]) == (act != TM__RELU) && isfinite(odd[1]));
    }
    free(x);
    free(y);
    free(wide);
    free(want);
}

/* ---- layer normalisation ----------------------------------------------------------------------------------------- */

static void layernorm(tm_device *cpu, tm_device *ref) {
    static const int64_t widths[] = {1, 3, 17, 64, 100, 384};
    enum { N = 9 };
    for (size_t s = 0; s < TM__COUNT(widths); s++) {
        size_t d = (size_t)widths[s], n = N * d;
        float *x = random_floats(n, 1), *w = random_floats(d, 2), *b = random_floats(d, 3);
        float *y = room(n, sizeof *y), mean[N], rstd[N];
        for (size_t i = 0; i < n; i++) x[i] += 3;
        double *wide = as_doubles(x, TM_F32, n), *want = room(n, sizeof *want), m[N], r[N];
        for (int type = 0; type < 2; type++) {
            tm_dtype stored = type ? TM_BF16 : TM_F32;
            void *weight = as_type(w, stored, d), *bias = as_type(b, stored, d);
            assert_ok(cpu->k->layernorm(cpu, y, mean, rstd, x, weight, stored, bias, stored, N, widths[s], 1e-5));
            assert_ok(ref->k->layernorm(ref, want, m, r, wide, weight, stored, bias, stored, N, widths[s], 1e-5));
            check("layernorm", cpu, y, want, n, 2e-6); /* entries stand 3 away from 0 */
            for (int i = 0; i < N; i++) assert_true(fabs((double)mean[i] - m[i]) <= 1e-6 * fabs(m[i]));
            free(weight);
            free(bias);
        }
        free(x);
        free(w);
        free(b);
        free(y);
        free(wide);
        free(want);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef struct attention_case {
    int64_t tokens, heads, head_dim, buckets, segments, start[4], length[4];
    bool content, position;
} attention_case;

static const attention_case cases[] = {
    {1, 1, 4, 0, 1, {0}, {1}, false, false},
    {100, 3, 20, 0, 3, {0, 37, 60}, {37, 23, 40}, false, false},
    {100, 3, 20, 5, 3, {0, 37, 60}, {37, 23, 40}, true, true},
    {130, 2, 64, 31, 2, {0, 65}, {65, 65}, true, false},
    {130, 2, 64, 31, 2, {0, 65}, {65, 65}, false, true},
    {100, 6, 20, 9, 3, {3, 40, 80}, {30, 1, 17}, true, true}, /* tokens outside segments */
    {700, 2, 16, 64, 1, {0}, {700}, true, true},
};

typedef struct inputs {
    float *q, *k, *v, *content, *position;
    int32_t *bucket;
    int64_t longest;
} inputs;

static inputs make_inputs(const attention_case *c) {
    size_t n = (size_t)(c->tokens * c->heads * c->head_dim), terms = (size_t)(c->tokens * c->heads * c->buckets);
    inputs in = {random_floats(n, 1),
                 random_floats(n, 2),
                 random_floats(n, 3),
                 random_floats(terms, 4),
                 random_floats(terms, 5),
                 NULL,
                 0};
    for (int64_t s = 0; s < c->segments; s++) in.longest = TM__MAX(in.longest, c->length[s]);
    in.bucket = room((size_t)in.longest * 2, sizeof *in.bucket);
    for (int64_t i = 0; i < 2 * in.longest - 1; i++) in.bucket[i] = c->buckets ? (int32_t)(i * i % c->buckets) : 0;
    return in;
}

static void inputs_free(inputs *in) {
    free(in->q);
    free(in->k);
    free(in->v);
    free(in->content);
    free(in->position);
    free(in->bucket);
}

static tm__attention shape_of(const attention_case *c, const tm__relative *relative) {
    return (tm__attention){.tokens = c->tokens,
                           .heads = c->heads,
                           .kv_heads = c->heads,
                           .head_dim = c->head_dim,
                           .segments = c->segments,
                           .start = c->start,
                           .length = c->length,
                           .scale = 1 / sqrt((double)c->head_dim),
                           .whole = true,
                           .relative = c->buckets ? relative : NULL};
}

static void check_attention(tm_device *cpu, tm_device *ref, const attention_case *c) {
    inputs in = make_inputs(c);
    size_t n = (size_t)(c->tokens * c->heads * c->head_dim), rows = (size_t)(c->tokens * c->heads);
    size_t terms = rows * (size_t)c->buckets;
    float *out = room(n, sizeof *out), *lse = room(rows, sizeof *lse);
    double *want = room(n, sizeof *want), *want_lse = room(rows, sizeof *want_lse);
    double *wide[5] = {as_doubles(in.q, TM_F32, n), as_doubles(in.k, TM_F32, n), as_doubles(in.v, TM_F32, n),
                       as_doubles(in.content, TM_F32, terms), as_doubles(in.position, TM_F32, terms)};
    tm__relative relative = {in.longest, c->buckets, in.bucket, c->content ? in.content : NULL,
                             c->position ? in.position : NULL};
    tm__attention a = shape_of(c, &relative);
    assert_ok(cpu->k->attention(cpu, out, lse, in.q, in.k, in.v, &a));
    relative.content = c->content ? wide[3] : NULL;
    relative.position = c->position ? wide[4] : NULL;
    assert_ok(ref->k->attention(ref, want, want_lse, wide[0], wide[1], wide[2], &a));
    check("attention", cpu, out, want, n, attended);
    check("attention's lse", cpu, lse, want_lse, rows, attended);
    for (int i = 0; i < 5; i++) free(wide[i]);
    free(out);
    free(lse);
    free(want);
    free(want_lse);
    inputs_free(&in);
}

/* A segment gives the same bytes beside others, on other numbers of threads, and with room for longer ones. */
static void check_alone(tm_device *cpu, const attention_case *c) {
    inputs in = make_inputs(c);
    size_t n = (size_t)(c->tokens * c->heads * c->head_dim);
    float *out = room(n, sizeof *out), *alone = room(n, sizeof *alone);
    float *lse = room((size_t)(c->tokens * c->heads), sizeof *lse);
    const tm__relative relative = {in.longest, c->buckets, in.bucket, in.content, in.position};
    tm__attention a = shape_of(c, &relative);
    tm_device *single = open_cpu(cpu->isa, 1, TM_PRECISION_F32);
    assert_ok(cpu->k->attention(cpu, out, lse, in.q, in.k, in.v, &a));
    for (int64_t s = 0; s < c->segments; s++) {
        int64_t from = c->start[s] * c->heads * c->head_dim, width = c->length[s] * c->heads * c->head_dim;
        a.segments = 1;
        a.start = c->start + s;
        a.length = c->length + s;
        assert_ok(single->k->attention(single, alone, lse, in.q, in.k, in.v, &a));
        assert_memory_equal(alone + from, out + from, (size_t)width * sizeof *out);
    }
    tm_device_close(single);
    free(out);
    free(alone);
    free(lse);
    inputs_free(&in);
}

static void attention(tm_device *cpu, tm_device *ref) {
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        check_attention(cpu, ref, &cases[i]);
        check_alone(cpu, &cases[i]);
    }
}

static void each_isa(void (*test)(tm_device *cpu, tm_device *ref)) {
    tm_device *ref = open_ref();
    for (size_t i = 0; i < TM__COUNT(isa_names); i++) {
        tm_device *cpu = open_cpu(isa_names[i], 2, TM_PRECISION_F32);
        if (cpu) test(cpu, ref);
        tm_device_close(cpu);
    }
    tm_device_close(ref);
}

static void test_activations(void **state) {
    (void)state;
    each_isa(activations);
}

static void test_layernorm(void **state) {
    (void)state;
    each_isa(layernorm);
}

static void test_attention(void **state) {
    (void)state;
    each_isa(attention);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
