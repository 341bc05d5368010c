/* Labels of a classifier: gradients of both losses, and values by hand. */
#include "gradcheck.h"

enum { TOKENS = 7, WIDTH = 4, LABELS = 5, ROWS = 3 };

static gradcheck check;
static tm__param head;
static bool each;

static const int32_t rows[ROWS] = {5, 0, 6};
static const double weights[ROWS] = {0.2, 0.7, -0.1};
static const double one[ROWS * LABELS] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1};
static const double several[ROWS * LABELS] = {1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1};

static int begin(void **state) {
    (void)state;
    grad_begin(&check, 4);
    return 0;
}

static int end(void **state) {
    (void)state;
    grad_end(&check);
    return 0;
}

static tm__label_targets targets(void) {
    return (tm__label_targets){ROWS, rows, each ? several : one, weights, each};
}

/* The gradient of hidden also gets something from elsewhere, and the loss is not the end. */
static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *hidden, *half, *loss, *twice, *other;
    const tm__label_targets t = targets();
    TM__TRY(grad_var(tape, c, 0, &hidden));
    TM__TRY(tm__op_scale(tape, hidden, 0.5, &half));
    TM__TRY(tm__op_label_loss(tape, half, &head, &t, NULL, &loss));
    TM__TRY(tm__op_scale(tape, loss, 3, &twice));
    TM__TRY(tm__op_weighted_sum(tape, half, c->weight + 100, &other));
    return tm__op_add(tape, twice, other, y);
}

static void check_kind(bool by_itself) {
    each = by_itself;
    grad_input(&check, "hidden", 2, (int64_t[]){TOKENS, WIDTH});
    grad_param(&check, &head, "head", 2, (int64_t[]){LABELS, WIDTH});
    check.build = build;
    assert_true(grad_agrees(&check));
}

static void test_one_is_right(void **state) {
    (void)state;
    check_kind(false);
}

static void test_each_by_itself(void **state) {
    (void)state;
    check_kind(true);
}

/* z = (1, -2), (0, 40) and y = (1, 0): ln(1 + e^-3), 40; by themselves (softplus(-1) + softplus(-2)) / 2 and
 * (ln 2 + 40) / 2. Weights .5 each. */
static void test_values(void **state) {
    (void)state;
    double hidden[4] = {1, -2, 0, 40}, weight[4] = {1, 0, 0, 1}, terms[2];
    static const int32_t both[2] = {0, 1};
    static const double y[4] = {1, 0, 1, 0}, half[2] = {0.5, 0.5};
    tm__param identity = {.name = (char *)"identity",
                          .value = {.dtype = TM_F64, .ndim = 2, .shape = {2, 2}, .data = weight}};
    const tm_tensor input = {.dtype = TM_F64, .ndim = 2, .shape = {2, 2}, .data = hidden};
    const double want[2][2] = {{log1p(exp(-3)), 40}, {(log1p(exp(-1)) + log1p(exp(-2))) / 2, (log(2) + 40) / 2}};
    for (int kind = 0; kind < 2; kind++) {
        tm__tape *tape;
        tm__var *x, *loss;
        const tm__label_targets t = {2, both, y, half, kind == 1};
        assert_ok(tm__tape_create(check.dev, &tape));
        assert_ok(tm__tape_input(tape, input, false, &x));
        assert_ok(tm__op_label_loss(tape, x, &identity, &t, terms, &loss));
        for (int i = 0; i < 2; i++) assert_true(fabs(terms[i] - want[kind][i]) < 1e-12);
        assert_true(fabs(*(double *)loss->value.data - (want[kind][0] + want[kind][1]) / 2) < 1e-12);
        tm__tape_free(tape);
    }
}

static void test_wrong(void **state) {
    (void)state;
    double hidden[4] = {0}, weight[4] = {0};
    static const int32_t outside[1] = {2};
    static const double y[2] = {1, 0}, all[1] = {1};
    tm__param square = {.name = (char *)"square",
                        .value = {.dtype = TM_F64, .ndim = 2, .shape = {2, 2}, .data = weight}};
    const tm_tensor input = {.dtype = TM_F64, .ndim = 2, .shape = {2, 2}, .data = hidden};
    tm__tape *tape;
    tm__var *x, *loss;
    assert_ok(tm__tape_create(check.dev, &tape));
    assert_ok(tm__tape_input(tape, input, false, &x));
    assert_int_equal(tm__op_label_loss(tape, x, &square, &(tm__label_targets){1, outside, y, all, false}, NULL, &loss),
                     TM_INVALID);
    assert_int_equal(tm__op_label_loss(tape, x, &square, &(tm__label_targets){0, outside, y, all, false}, NULL, &loss),
                     TM_INVALID);
    square.value.shape[1] = 1;
    assert_int_equal(tm__op_label_loss(tape, x, &square, &(tm__label_targets){1, outside, y, all, false}, NULL, &loss),
                     TM_INVALID);
    tm__tape_free(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_is_right, begin, end),
        cmocka_unit_test_setup_teardown(test_each_by_itself, begin, end),
        cmocka_unit_test_setup_teardown(test_values, begin, end),
        cmocka_unit_test_setup_teardown(test_wrong, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
