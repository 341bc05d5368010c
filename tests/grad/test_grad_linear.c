/* Gradients of the linear op: weight, bias, several adapters, dropout, frozen parts. */
#include "gradcheck.h"

enum { N = 4, IN = 6, OUT = 5, RANK = 2 };

static gradcheck check;
static tm__linear linear;
static tm__adapter adapters[3];

static int begin(void **state) {
    (void)state;
    grad_begin(&check, 2);
    memset(&linear, 0, sizeof linear);
    memset(adapters, 0, sizeof adapters);
    linear.adapters = adapters;
    grad_input(&check, "x", 2, (int64_t[]){N, IN});
    grad_param(&check, &linear.weight, "weight", 2, (int64_t[]){OUT, IN});
    return 0;
}

static int end(void **state) {
    (void)state;
    grad_end(&check);
    return 0;
}

static void give_bias(void) {
    grad_param(&check, &linear.bias, "bias", 1, (int64_t[]){OUT});
}

static tm__adapter *give_adapter(double scale, double dropout, bool active) {
    tm__adapter *adapter = &adapters[linear.adapter_count++];
    *adapter = (tm__adapter){.rank = RANK, .alpha = 1, .scale = scale, .dropout = dropout, .active = active};
    grad_param(&check, &adapter->a, "A", 2, (int64_t[]){RANK, IN});
    grad_param(&check, &adapter->b, "B", 2, (int64_t[]){OUT, RANK});
    return adapter;
}

/* The input passes through a scale first, so that dx has a node to go to, and is read twice. */
static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *scaled, *first, *second;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__op_scale(tape, x, 1.5, &scaled));
    TM__TRY(tm__op_linear(tape, scaled, &linear, &first));
    TM__TRY(tm__op_linear(tape, scaled, &linear, &second)); /* the weight is shared: its gradient adds up */
    TM__TRY(tm__op_gated(tape, TM__SILU, first, second, y));
    return TM_OK;
}

/* A slot whose parameter is frozen must see no gradient; differences of it are left out. */
static void freeze(tm__param *param) {
    for (size_t i = 0; i < check.count; i++) {
        if (check.slots[i].param != param) continue;
        param->trainable = false;
        param->grad = NULL;
        check.slots[i].n = 0;
    }
}

static void agrees(void) {
    check.build = build;
    assert_true(grad_agrees(&check));
}

static void test_plain(void **state) {
    (void)state;
    agrees();
}

static void test_bias(void **state) {
    (void)state;
    give_bias();
    agrees();
}

static void test_frozen_weight(void **state) {
    (void)state;
    give_bias();
    freeze(&linear.weight);
    freeze(&linear.bias);
    agrees();
}

static void test_two_adapters(void **state) {
    (void)state;
    give_bias();
    give_adapter(0.7, 0, true);
    give_adapter(-1.3, 0, true);
    agrees();
}

static void test_lora_on_a_frozen_weight(void **state) {
    (void)state;
    give_adapter(0.7, 0, true);
    freeze(&linear.weight);
    agrees();
}

static void test_inactive_adapter(void **state) {
    (void)state;
    give_adapter(0.7, 0, true);
    tm__adapter *idle = give_adapter(0.9, 0.5, false);
    agrees();                  /* central differences find its influence to be zero, too */
    assert_null(idle->a.grad); /* nothing was ever added */
    assert_null(idle->b.grad);
}

static void test_frozen_active_adapter(void **state) {
    (void)state;
    tm__adapter *stacked = give_adapter(0.7, 0.25, true);
    give_adapter(0.4, 0, true);
    freeze(&stacked->a);
    freeze(&stacked->b);
    freeze(&linear.weight);
    check.training = true;
    agrees();
}

static void test_dropout(void **state) {
    (void)state;
    give_bias();
    give_adapter(0.7, 0.4, true);
    give_adapter(0.5, 0.2, true);
    check.training = true;
    agrees();
    double trained = grad_value(&check);
    check.training = false;
    assert_true(grad_value(&check) != trained);
}

static void test_frozen_16_bit_weights(void **state) {
    (void)state;
    uint16_t bits[OUT * IN];
    give_adapter(0.7, 0, true);
    freeze(&linear.weight);
    for (int type = TM_BF16; type <= TM_F16; type++) {
        for (int i = 0; i < OUT * IN; i++) {
            float value = 0.1f * (float)(i % 7) - 0.3f;
            bits[i] = type == TM_BF16 ? tm__bf16_from_f32(value) : tm__f16_from_f32(value);
        }
        linear.weight.value.dtype = (tm_dtype)type;
        linear.weight.value.data = bits;
        agrees();
    }
}

/* By hand: x = (1,2), W = (3,4), A = (1,1), B = (2), s = 0.5: y = 11 + 0.5 * 3 * 2 = 14;
 * dy = 1: dW = x, dB = 0.5 * 3, dA = 0.5 * 2 * x, dx = W + 0.5 * 2 * A. */
static void test_values_by_hand(void **state) {
    (void)state;
    double x[] = {1, 2}, w[] = {3, 4}, a[] = {1, 1}, b[] = {2}, dw[2] = {0}, da[2] = {0}, db[1] = {0};
    tm__adapter lora = {.a = {"a", {TM_F64, 2, {1, 2}, a}, da, true, false, TM_F64},
                        .b = {"b", {TM_F64, 2, {1, 1}, b}, db, true, false, TM_F64},
                        .rank = 1,
                        .scale = 0.5,
                        .active = true};
    tm__linear one = {
        .weight = {"w", {TM_F64, 2, {1, 2}, w}, dw, true, false, TM_F64}, .adapters = &lora, .adapter_count = 1};
    tm__tape *tape = grad_tape(&check);
    tm__var *in, *y;
    assert_ok(tm__tape_input(tape, (tm_tensor){TM_F64, 2, {1, 2}, x}, true, &in));
    assert_ok(tm__op_linear(tape, in, &one, &y));
    assert_true(*(double *)y->value.data == 14);
    assert_ok(tm__tape_backward(tape, 1, &y, NULL));
    assert_true(dw[0] == 1 && dw[1] == 2 && db[0] == 1.5 && da[0] == 1 && da[1] == 2);
    assert_true(((double *)in->grad)[0] == 4 && ((double *)in->grad)[1] == 5);
    tm__tape_free(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain, begin, end),
        cmocka_unit_test_setup_teardown(test_bias, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_weight, begin, end),
        cmocka_unit_test_setup_teardown(test_two_adapters, begin, end),
        cmocka_unit_test_setup_teardown(test_lora_on_a_frozen_weight, begin, end),
        cmocka_unit_test_setup_teardown(test_inactive_adapter, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_active_adapter, begin, end),
        cmocka_unit_test_setup_teardown(test_dropout, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_16_bit_weights, begin, end),
        cmocka_unit_test_setup_teardown(test_values_by_hand, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
