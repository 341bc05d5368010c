/* The term that Panacea and Booster share, on a quadratic whose every value is known (methods' golden rows A5, A6). */
#include "support.h"

#include "method/method.h"

/* h(w) = 1/2 w' diag(1, 3) w at w = (3, 4). */
typedef struct quadratic {
    tm__paramset set;
    tm__param param, *items[1];
    double w[2];
    double flat; /* 1: h is constant */
    bool sphere; /* h = 1/2 |w - sphere_centre|^2 instead */
    int calls, fail_at;
} quadratic;

static const double sphere_centre[2] = {.5, -1.25};
static tm_device *device;

static int setup(void **state) {
    (void)state;
    const tm_device_options options = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    return tm_device_open(&options, &device) != TM_OK;
}

static int teardown(void **state) {
    (void)state;
    tm_device_close(device);
    return 0;
}

/* Whoever prepares it lets it go. */
static void finish(quadratic *q) {
    tm__param_grad_zero(device, &q->param);
}

static void prepare(quadratic *q) {
    *q = (quadratic){.w = {3, 4}, .fail_at = -1};
    q->param = (tm__param){.name = "w",
                           .value = {.dtype = TM_F64, .ndim = 1, .shape = {2}, .data = q->w},
                           .trainable = true,
                           .owned = true};
    q->items[0] = &q->param;
    q->set = (tm__paramset){.dev = device, .items = q->items, .count = 1, .scalars = 2};
}

static double *grad_of(quadratic *q) {
    void *grad = NULL;
    assert_ok(tm__param_grad(device, &q->param, &grad));
    return grad;
}

static tm_status gradient(void *user, double *loss) {
    quadratic *q = user;
    double *grad = grad_of(q);
    if (q->calls++ == q->fail_at) return tm__fail(TM_NUMERIC, NULL, NULL, NULL, "planted");
    if (q->sphere) {
        double x = q->w[0] - sphere_centre[0], y = q->w[1] - sphere_centre[1];
        grad[0] += x;
        grad[1] += y;
        *loss = (x * x + y * y) / 2;
        return TM_OK;
    }
    if (!q->flat) {
        grad[0] += q->w[0];
        grad[1] += 3 * q->w[1];
    }
    *loss = q->flat ? 2 : (q->w[0] * q->w[0] + 3 * q->w[1] * q->w[1]) / 2;
    return TM_OK;
}

static void close_to(double got, double want) {
    if (!(fabs(got - want) <= 1e-10 * fmax(1, fabs(want)))) fail_msg("%.12g, want %.12g", got, want);
}

/* Leaves in the gradient base + the term; the weights must not have moved by a bit. */
static void add(quadratic *q, tm__contrast *c, double base) {
    const double before[2] = {q->w[0], q->w[1]};
    grad_of(q)[0] = grad_of(q)[1] = base;
    assert_ok(tm__contrast_create(&q->set, c));
    assert_ok(tm__contrast_add(&q->set, c, gradient, q));
    assert_memory_equal(before, q->w, sizeof before);
}

static void test_a5_direction(void **state) {
    (void)state;
    quadratic q;
    tm__vector epsilon;
    prepare(&q);
    assert_ok(tm__vector_create(&q.set, &epsilon));
    grad_of(&q)[0] = 3;
    grad_of(&q)[1] = 12;
    assert_ok(tm__grads_direction(&q.set, 1, &epsilon));
    /* The floor of 1e-7 in the norm shortens the published unit vector by 8e-9. */
    assert_true(fabs(((double *)epsilon.data[0])[0] - 0.2425356250) < 1e-8);
    assert_true(fabs(((double *)epsilon.data[0])[1] - 0.9701425001) < 1e-8);
    tm__vector_release(&q.set, &epsilon);
    finish(&q);
}

/* Panacea: G = grad g - lambda (grad h(w + e) - grad h(w)). */
static void test_a5_panacea(void **state) {
    (void)state;
    quadratic q;
    tm__contrast c = {.lambda = 2, .length = 1};
    double shorter = 1 / (1 + TM__NORM_FLOOR / sqrt(153));
    prepare(&q);
    add(&q, &c, 10);
    const double *epsilon = c.shift.data[0];
    close_to(epsilon[0], 0.24253562503633297 * shorter);
    close_to(epsilon[1], 0.97014250014533188 * shorter);
    close_to(grad_of(&q)[0], 10 - 2 * 0.24253562503633297 * shorter);
    close_to(grad_of(&q)[1], 10 - 2 * 2.9104275004359956 * shorter);
    assert_true(fabs(c.shifted_loss - c.loss - 13.8104933474) < 2e-7);
    tm__contrast_release(&q.set, &c);
    finish(&q);
}

/* h = 1/2 |w - a|^2 at w - a = (3, 4): Gp - Gh is e itself, so G = grad g - lambda e; Booster's is + lambda alpha d. */
static void test_on_a_sphere(void **state) {
    (void)state;
    static const double lengths[] = {1, .25, -.1};
    for (size_t i = 0; i < TM__COUNT(lengths); i++) {
        quadratic q;
        tm__contrast c = {.lambda = 2, .length = lengths[i]};
        prepare(&q);
        q.sphere = true;
        q.w[0] = 3 + sphere_centre[0];
        q.w[1] = 4 + sphere_centre[1];
        add(&q, &c, 10);
        const double *shift = c.shift.data[0];
        double norm = 5 + TM__NORM_FLOOR;
        close_to(shift[0], lengths[i] * 3 / norm);
        close_to(shift[1], lengths[i] * 4 / norm);
        for (int k = 0; k < 2; k++) /* exact but for the rounding of w + e */
            assert_true(fabs(grad_of(&q)[k] - (10 - 2 * shift[k])) < 1e-14);
        tm__contrast_release(&q.set, &c);
        finish(&q);
    }
}

/* Booster: G = grad f + lambda (grad h(w) - grad h(w - alpha d)). The same sum, the other sign. */
static void test_a6_booster(void **state) {
    (void)state;
    quadratic q;
    tm__contrast c = {.lambda = 2, .length = -.1};
    double shorter = 1 / (1 + TM__NORM_FLOOR / sqrt(153));
    prepare(&q);
    add(&q, &c, 10);
    close_to(grad_of(&q)[0], 10 + 2 * 0.024253562503633297 * shorter);
    close_to(grad_of(&q)[1], 10 + 2 * 0.29104275004359956 * shorter);
    assert_true(fabs(c.loss - c.shifted_loss - 1.2225199229) < 2e-8);
    tm__contrast_release(&q.set, &c);
    finish(&q);
}

/* Above the clamp the perturbed loss is constant: what is left, + lambda grad h(w), lowers h. Below it nothing changes.
 */
static void test_clamp(void **state) {
    (void)state;
    quadratic q, plain;
    tm__contrast c = {.lambda = 2, .length = 1, .clamp = 5}, high = {.lambda = 2, .length = 1, .clamp = 50},
                 none = {.lambda = 2, .length = 1};
    prepare(&q);
    add(&q, &c, 10);
    assert_true(c.shifted_loss > 5);
    close_to(grad_of(&q)[0], 10 + 2 * 3);
    close_to(grad_of(&q)[1], 10 + 2 * 12);
    tm__contrast_release(&q.set, &c);
    finish(&q);
    prepare(&q);
    prepare(&plain);
    add(&q, &high, 10);
    add(&plain, &none, 10);
    assert_true(high.shifted_loss < 50);
    assert_memory_equal(grad_of(&q), grad_of(&plain), sizeof q.w);
    tm__contrast_release(&q.set, &high);
    finish(&q);
    assert_true(none.loss < none.shifted_loss); /* it is the perturbed loss that is looked at */
    tm__contrast between = {.lambda = 2, .length = 1, .clamp = (none.loss + none.shifted_loss) / 2};
    prepare(&q);
    add(&q, &between, 10);
    close_to(grad_of(&q)[0], 10 + 2 * 3);
    close_to(grad_of(&q)[1], 10 + 2 * 12);
    tm__contrast_release(&q.set, &between);
    finish(&q);
    tm__contrast_release(&plain.set, &none);
    finish(&plain);
}

static void test_zeros(void **state) {
    (void)state;
    static const struct { double lambda, length, flat; } cases[] = {{0, 1, 0}, {2, 0, 0}, {2, 1, 1}, {2, -1, 1}};
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        quadratic q;
        tm__contrast c = {.lambda = cases[i].lambda, .length = cases[i].length};
        prepare(&q);
        q.flat = cases[i].flat;
        add(&q, &c, 1.0 / 3);
        const double *shift = c.shift.data[0];
        assert_true(grad_of(&q)[0] == 1.0 / 3 && grad_of(&q)[1] == 1.0 / 3);
        if (q.flat != 0 || cases[i].length == 0) assert_true(shift[0] == 0 && shift[1] == 0);
        tm__contrast_release(&q.set, &c);
        finish(&q);
    }
}

/* A pass that fails leaves the weights where they were. */
static void test_failure_restores(void **state) {
    (void)state;
    for (int at = 0; at < 2; at++) {
        quadratic q;
        tm__contrast c = {.lambda = 2, .length = 1};
        prepare(&q);
        q.fail_at = at;
        assert_ok(tm__contrast_create(&q.set, &c));
        assert_int_equal(tm__contrast_add(&q.set, &c, gradient, &q), TM_NUMERIC);
        assert_true(q.w[0] == 3 && q.w[1] == 4);
        tm__contrast_release(&q.set, &c);
        finish(&q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a5_direction),     cmocka_unit_test(test_a5_panacea), cmocka_unit_test(test_a6_booster),
        cmocka_unit_test(test_on_a_sphere),      cmocka_unit_test(test_clamp),      cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_failure_restores),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
