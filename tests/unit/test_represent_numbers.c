/* test_represent_numbers.c: the eigen-solver, principal components and linear probes at their edges. What scikit-learn
 * makes of ordinary inputs is in tests/golden/test_represent_golden.c. */
#include "support.h"

#include "eval/represent.h"

enum { MOST = 60 };

/* A v = l v, and V V^T = 1. */
static void check_eigen(const double *a, int64_t n) {
    double *v = malloc((size_t)(n * n) * sizeof *v), *values = malloc((size_t)n * sizeof *values), scale = 1e-300;
    memcpy(v, a, (size_t)(n * n) * sizeof *v);
    assert_ok(tm__symmetric_eigen(v, n, values));
    for (int64_t i = 0; i < n * n; i++) scale = fmax(scale, fabs(a[i]));
    for (int64_t i = 0; i < n; i++) {
        assert_true(i == 0 || values[i] <= values[i - 1]);
        for (int64_t j = 0; j < n; j++) {
            double image = 0, product = 0;
            for (int64_t k = 0; k < n; k++) {
                image += a[j * n + k] * v[i * n + k];
                product += v[i * n + k] * v[j * n + k];
            }
            assert_true(fabs(image - values[i] * v[i * n + j]) <= 1e-12 * scale * (double)n);
            assert_true(fabs(product - (i == j)) <= 1e-12);
        }
    }
    free(v);
    free(values);
}

static void test_eigen(void **state) {
    double a[MOST * MOST];
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 0));
    (void)state;
    for (int64_t n = 1; n <= MOST; n += n < 5 ? 1 : 11) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = tm__rng_normal(&rng);
        check_eigen(a, n);
    }
    /* all equal (rank one, the rest degenerate), diagonal, zero, far apart */
    for (int64_t i = 0; i < 49; i++) a[i] = 3;
    check_eigen(a, 7);
    for (int64_t i = 0; i < 49; i++) a[i] = i % 8 == 0 ? (double)(i % 3) : 0;
    check_eigen(a, 7);
    memset(a, 0, sizeof a);
    check_eigen(a, 7);
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < 4; j++) a[i * 4 + j] = pow(10, -4.0 * (double)(i + j));
    check_eigen(a, 4);
}

static void rows_of(const float *x, int64_t n, int64_t d, const float **rows, tm__points *points) {
    for (int64_t i = 0; i < n; i++) rows[i] = x + i * d;
    *points = (tm__points){.x = rows, .n = n, .d = d};
}

/* Points on a line through (1, 2, 3): one component along it, others are zero, as is everything of equal points. */
static void test_line(void **state) {
    float x[6 * 3];
    const float *rows[6];
    double centre[3], axes[3 * 3], explained[3], out[6 * 3], own[3];
    tm__points points;
    (void)state;
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 3; j++) x[i * 3 + j] = (float)((j + 1) * (1 + 2 * i * (j == 2 ? -1 : 1)));
    rows_of(x, 6, 3, rows, &points);
    assert_ok(tm__pca_fit(&points, 3, centre, axes, explained));
    assert_true(fabs(explained[0] - 1) < 1e-12);
    assert_true(explained[1] == 0 && explained[2] == 0 && axes[3] == 0 && axes[8] == 0);
    assert_true(axes[2] > 0 && axes[0] < 0); /* the largest entry is the third: it is positive */
    tm__pca_project(&points, 3, centre, axes, out, own);
    assert_true(fabs(own[0] - 1) < 1e-12);
    assert_true(fabs(out[0] - out[15]) > 1 && fabs(out[0] + out[15]) < 1e-12);
    for (int i = 0; i < 18; i++) x[i] = 0.1f * (float)(i % 3 + 1);
    assert_ok(tm__pca_fit(&points, 3, centre, axes, explained));
    assert_true(explained[0] == 0 && axes[0] == 0);
    tm__pca_project(&points, 3, centre, axes, out, own);
    assert_true(out[0] == 0 && own[0] == 0);
}

/* Fewer and more rows than features give the same probe: features that repeat others change what they share only. */
static void test_ways(void **state) {
    enum { N = 10, D = 4, TIMES = 5 };
    float narrow[N * D], wide[N * D * TIMES];
    const float *rows[N];
    bool labels[N];
    double w[D], many[D * TIMES], bias, other;
    tm__points points;
    tm__probe probe;
    tm__rng rng = tm__rng_make(2, tm__stream(TM__STREAM_TEST, 0));
    (void)state;
    for (int i = 0; i < N * D; i++) narrow[i] = (float)tm__rng_normal(&rng);
    for (int i = 0; i < N; i++) {
        labels[i] = i % 3 == 0;
        for (int j = 0; j < D * TIMES; j++) wide[i * D * TIMES + j] = narrow[i * D + j % D];
    }
    rows_of(narrow, N, D, rows, &points);
    assert_ok(tm__probe_prepare(&points, &probe));
    assert_null(probe.back);
    assert_ok(tm__probe_fit(&probe, labels, TIMES, w, &bias)); /* five copies bear a fifth of the penalty each */
    tm__probe_release(&probe);
    rows_of(wide, N, D * TIMES, rows, &points);
    assert_ok(tm__probe_prepare(&points, &probe));
    assert_non_null(probe.back);
    assert_int_equal(probe.q, D);
    assert_ok(tm__probe_fit(&probe, labels, 1, many, &other));
    tm__probe_release(&probe);
    assert_true(fabs(bias - other) < 1e-9);
    for (int j = 0; j < D * TIMES; j++) assert_true(fabs(many[j] * TIMES - w[j % D]) < 1e-9);
}

/* It converges where a line parts the labels and nearly no penalty holds the weights; and where nothing varies. */
static void test_extremes(void **state) {
    enum { N = 12, D = 2 };
    float x[N * D];
    const float *rows[N];
    bool labels[N];
    double w[D], bias, f[N];
    tm__points points;
    tm__probe probe;
    (void)state;
    for (int i = 0; i < N; i++) {
        labels[i] = i >= 8;
        x[i * D] = (float)i;
        x[i * D + 1] = (float)(i % 4) * 1e6f;
    }
    rows_of(x, N, D, rows, &points);
    assert_ok(tm__probe_prepare(&points, &probe));
    for (double c = 1e-9; c <= 1e9; c *= 1e3) {
        assert_ok(tm__probe_fit(&probe, labels, c, w, &bias));
        tm__probe_apply(&probe, w, bias, &points, f);
        for (int i = 0; i < N; i++) assert_true(c < 1e3 || (f[i] > 0) == labels[i]);
        assert_true(c < 1 || tm__probe_auc(f, labels, N) == 1);
    }
    tm__probe_release(&probe);
    for (int i = 0; i < N * D; i++) x[i] = 0.3f;
    assert_ok(tm__probe_prepare(&points, &probe));
    assert_ok(tm__probe_fit(&probe, labels, 1, w, &bias));
    assert_true(fabs(w[0]) < 1e-12 && fabs(bias - log(4.0 / 8)) < 1e-9);
    tm__probe_apply(&probe, w, bias, &points, f);
    assert_true(tm__probe_auc(f, labels, N) == 0.5);
    tm__probe_release(&probe);
}

static void test_auc(void **state) {
    const double f[] = {3, 1, 2, 2, 0};
    const bool labels[] = {true, false, true, false, false}, one[] = {true, true, true, true, true};
    (void)state;
    assert_true(fabs(tm__probe_auc(f, labels, 5) - 5.5 / 6) < 1e-15);
    assert_true(isnan(tm__probe_auc(f, one, 5)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_eigen), cmocka_unit_test(test_line),
                                       cmocka_unit_test(test_ways), cmocka_unit_test(test_extremes),
                                       cmocka_unit_test(test_auc)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
