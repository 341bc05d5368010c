/* RepNoise's MMD: golden rows A2 and A3 of the methods' specification, invariants, its gradient. */
#include "support.h"

#include "method/matrix.h"
#include "method/repnoise.h"

enum { ROWS = 3, WIDTH = 7, SIZE = ROWS * WIDTH };

static void assert_near(double got, double want, double most) {
    if (!(fabs(got - want) <= most)) fail_msg("%.12g, want %.12g", got, want);
}

static double value_of(const double *x, const double *g, size_t rows, size_t width) {
    double value;
    assert_ok(tm__mmd(x, g, rows, width, 1, &value, NULL, NULL));
    return value;
}

static void fill(double *to, size_t n, uint32_t stream) {
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, stream));
    for (size_t i = 0; i < n; i++) to[i] = tm__rng_normal(&rng);
}

static void golden_row_a2(void **state) {
    (void)state;
    const double x[] = {1, 0, 0, 2}, g[] = {.5, -1, -1, .5};
    const double want[] = {0.7665189632, 1.1911448261, 0.5699713762, 0.4318784902};
    double value, gradient[4], bandwidth = 0, moved[2][4];
    assert_ok(tm__mmd(x, g, 2, 2, 1, &value, gradient, &bandwidth));
    assert_near(bandwidth, 4.5833333333, 1e-10);
    assert_near(value, 2.3990895430, 1e-10);
    for (int i = 0; i < 4; i++) assert_near(gradient[i], want[i], 1e-10);
    for (int i = 0; i < 4; i++) {
        moved[0][i] = 3 * x[i] + 1;
        moved[1][i] = 3 * g[i] + 1;
    }
    assert_near(value_of(moved[0], moved[1], 2, 2), value, 1e-12);
}

/* One row each: 10 - 2 (e^-4 + e^-2 + e^-1 + e^-0.5 + e^-0.25), whatever they are. */
static void golden_row_a3(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        double x[WIDTH], g[WIDTH];
        fill(x, WIDTH, 2 * i);
        fill(g, WIDTH, 2 * i + 1);
        for (int j = 0; j < WIDTH; j++) g[j] *= pow(10, (double)i - 10);
        assert_near(value_of(x, g, 1, WIDTH), 6.1862763878, 1e-10);
    }
}

static void invariants(void **state) {
    (void)state;
    for (uint32_t trial = 0; trial < 50; trial++) {
        double x[SIZE], g[SIZE], y[SIZE], h[SIZE];
        fill(x, SIZE, 2 * trial);
        fill(g, SIZE, 2 * trial + 1);
        double value = value_of(x, g, ROWS, WIDTH);
        assert_true(value >= -1e-6);
        assert_near(value_of(g, x, ROWS, WIDTH), value, 1e-12);
        assert_near(value_of(x, x, ROWS, WIDTH), 0, 1e-12);
        for (int i = 0; i < SIZE; i++) { /* rows in another order, moved and scaled together */
            y[(i + WIDTH) % SIZE] = 5 * x[i] - 2;
            h[(i + 2 * WIDTH) % SIZE] = 5 * g[i] - 2;
        }
        assert_near(value_of(y, h, ROWS, WIDTH), value, 1e-10);
        assert_true(fabs(value_of(y, g, ROWS, WIDTH) - value) > 1e-6); /* moved apart: another value */
    }
}

static void equal_rows_are_no_nan(void **state) {
    (void)state;
    double x[SIZE], gradient[SIZE], value;
    for (int i = 0; i < SIZE; i++) x[i] = 0.25;
    assert_ok(tm__mmd(x, x, ROWS, WIDTH, 1, &value, gradient, NULL));
    assert_near(value, 0, 0);
    for (int i = 0; i < SIZE; i++) assert_near(gradient[i], 0, 0);
}

/* Largest relative error of the gradient against central differences. `held`: with b-bar held constant, or not. */
static double gradient_error(bool held) {
    double x[SIZE], g[SIZE], gradient[SIZE], numeric[SIZE], value, bandwidth = 0;
    fill(x, SIZE, 1);
    fill(g, SIZE, 2);
    assert_ok(tm__mmd(x, g, ROWS, WIDTH, 1, &value, gradient, &bandwidth));
    for (int i = 0; i < SIZE; i++) {
        double side[2], kept = x[i], h = 1e-5;
        for (int s = 0; s < 2; s++) {
            double b = held ? bandwidth : 0;
            x[i] = kept + (s ? -h : h);
            assert_ok(tm__mmd(x, g, ROWS, WIDTH, 1, &side[s], NULL, &b));
        }
        x[i] = kept;
        numeric[i] = (side[0] - side[1]) / (2 * h);
    }
    return test_relative_error(gradient, numeric, SIZE);
}

static void gradient_holds_the_bandwidth(void **state) {
    (void)state;
    assert_true(gradient_error(true) < 1e-8);
    assert_true(gradient_error(false) > 1e-3); /* the check can fail, and b-bar is indeed held */
}

/* Wide rows, so that there are several slices of several blocks; against the plain formula. */
static void threads_change_nothing(void **state) {
    (void)state;
    enum { LONG_ROWS = 3, LONG = 70001, COUNT = LONG_ROWS * LONG };
    double *x = malloc(COUNT * sizeof *x), *g = malloc(COUNT * sizeof *g), *again = malloc(COUNT * sizeof *again);
    double *gradient[2], value[2], bandwidth = 0, sum = 0;
    fill(x, COUNT, 1);
    fill(g, COUNT, 2);
    for (int i = 0; i < 2; i++) {
        gradient[i] = malloc(COUNT * sizeof *gradient[i]);
        assert_ok(tm__mmd(x, g, LONG_ROWS, LONG, i ? 5 : 1, &value[i], gradient[i], i ? NULL : &bandwidth));
    }
    assert_true(value[0] == value[1]);
    assert_memory_equal(gradient[0], gradient[1], COUNT * sizeof *gradient[0]);
    for (int i = 0; i < 2 * LONG_ROWS; i++)
        for (int j = 0; j < 2 * LONG_ROWS; j++) {
            const double *a = i < LONG_ROWS ? x + (size_t)i * LONG : g + (size_t)(i - LONG_ROWS) * LONG;
            const double *b = j < LONG_ROWS ? x + (size_t)j * LONG : g + (size_t)(j - LONG_ROWS) * LONG;
            for (int c = 0; c < LONG; c++) sum += (a[c] - b[c]) * (a[c] - b[c]);
        }
    assert_near(bandwidth / (sum / (2 * LONG_ROWS * (2 * LONG_ROWS - 1))), 1, 1e-12);
    fill(again, COUNT, 1);
    for (int i = 0; i < 3; i++) { /* any part of the normal sequence, by any number of threads */
        memset(gradient[0], 0, COUNT * sizeof *gradient[0]);
        tm__normal_fill(gradient[0], 9001, 3, tm__stream(TM__STREAM_TEST, 1), (size_t)i * 7777, 1 + 2 * i);
        assert_memory_equal(gradient[0], again + i * 7777, 9001 * sizeof *again);
    }
    free(x);
    free(g);
    free(again);
    free(gradient[0]);
    free(gradient[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_row_a2),
        cmocka_unit_test(golden_row_a3),
        cmocka_unit_test(invariants),
        cmocka_unit_test(equal_rows_are_no_nan),
        cmocka_unit_test(gradient_holds_the_bandwidth),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
