/* Gradients of the small ops against central differences, and proof that the checker can fail. */
#include "gradcheck.h"

static gradcheck check;

static int begin(void **state) {
    (void)state;
    grad_begin(&check, 1);
    return 0;
}

static int end(void **state) {
    (void)state;
    grad_end(&check);
    return 0;
}

/* ---- embedding: id 2 occurs twice, id 3 never ---- */

static tm_status build_embedding(tm__tape *tape, gradcheck *c, tm__var **y) {
    const int32_t ids[] = {2, 0, 4, 2, 1};
    return tm__op_embedding(tape, c->ctx, ids, 5, y);
}

static void test_embedding(void **state) {
    (void)state;
    tm__param table;
    grad_param(&check, &table, "table", 2, (int64_t[]){5, 3});
    check.ctx = &table;
    check.build = build_embedding;
    assert_true(grad_agrees(&check));
    for (int j = 0; j < 3; j++) assert_true(check.slots[0].grad[3 * 3 + j] == 0);
}

/* ---- rmsnorm ---- */

static tm_status build_rmsnorm(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x;
    TM__TRY(grad_var(tape, c, 0, &x));
    return tm__op_rmsnorm(tape, x, c->ctx, 0, 1e-3, y);
}

static void test_rmsnorm(void **state) {
    (void)state;
    tm__param weight;
    grad_input(&check, "x", 2, (int64_t[]){4, 7});
    grad_param(&check, &weight, "weight", 1, (int64_t[]){7});
    check.ctx = &weight;
    check.build = build_rmsnorm;
    assert_true(grad_agrees(&check));
}

static void test_rmsnorm_frozen_bf16_weight(void **state) {
    (void)state;
    uint16_t bits[7];
    for (int i = 0; i < 7; i++) bits[i] = tm__bf16_from_f32(0.25f * (float)(i + 1));
    tm__param weight = {.name = "weight", .value = {.dtype = TM_BF16, .ndim = 1, .shape = {7}, .data = bits}};
    grad_input(&check, "x", 2, (int64_t[]){4, 7});
    check.ctx = &weight;
    check.build = build_rmsnorm;
    assert_true(grad_agrees(&check));
}

static tm_status build_shifted(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x;
    TM__TRY(grad_var(tape, c, 0, &x));
    return tm__op_rmsnorm(tape, x, c->ctx, 1, 1e-3, y);
}

/* Gemma's norm, and a norm over the last dimension of (tokens, heads, head_dim), as of queries and keys. */
static void test_rmsnorm_shifted_by_heads(void **state) {
    (void)state;
    tm__param weight;
    grad_input(&check, "x", 3, (int64_t[]){3, 2, 5});
    grad_param(&check, &weight, "weight", 1, (int64_t[]){5});
    check.ctx = &weight;
    check.build = build_shifted;
    assert_true(grad_agrees(&check));
}

/* ---- layernorm ---- */

static tm_status build_layernorm(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__param *params = c->ctx;
    tm__var *x;
    TM__TRY(grad_var(tape, c, 0, &x));
    return tm__op_layernorm(tape, x, &params[0], &params[1], 1e-3, y);
}

static void test_layernorm(void **state) {
    (void)state;
    tm__param params[2];
    grad_input(&check, "x", 2, (int64_t[]){4, 7});
    grad_param(&check, &params[0], "weight", 1, (int64_t[]){7});
    grad_param(&check, &params[1], "bias", 1, (int64_t[]){7});
    check.ctx = params;
    check.build = build_layernorm;
    assert_true(grad_agrees(&check));
    params[0].trainable = false;
    params[0].grad = NULL;
    check.slots[1].n = 0;
    assert_true(grad_agrees(&check));
}

/* ---- rope: whole and partial rotation, positions out of order ---- */

static tm_status build_rope(tm__tape *tape, gradcheck *c, tm__var **y) {
    const int32_t position[] = {3, 0, 1};
    tm__var *x;
    TM__TRY(grad_var(tape, c, 0, &x));
    return tm__op_rope(tape, x, c->ctx, position, y);
}

static void check_rope(int64_t rotary) {
    double cosine[4 * 3], sine[4 * 3];
    for (int i = 0; i < 4 * 3; i++) {
        cosine[i] = cos(0.3 * i);
        sine[i] = sin(0.3 * i);
    }
    tm__rope_table table = {.cos = cosine, .sin = sine, .positions = 4, .rotary = rotary};
    grad_input(&check, "x", 3, (int64_t[]){3, 2, 6});
    check.ctx = &table;
    check.build = build_rope;
    assert_true(grad_agrees(&check));
}

static void test_rope(void **state) {
    (void)state;
    check_rope(6);
}

static void test_rope_partial(void **state) {
    (void)state;
    check_rope(4);
}

/* ---- swiglu, add, scale; also with one var in both places ---- */

static tm_status build_swiglu(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *gate, *up;
    TM__TRY(grad_var(tape, c, 0, &gate));
    TM__TRY(grad_var(tape, c, 1, &up));
    return tm__op_gated(tape, TM__SILU, gate, up, y);
}

static void test_swiglu(void **state) {
    (void)state;
    grad_input(&check, "gate", 2, (int64_t[]){3, 5});
    grad_input(&check, "up", 2, (int64_t[]){3, 5});
    check.build = build_swiglu;
    assert_true(grad_agrees(&check));
}

static tm_status build_gelu(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *gate, *up, *product, *alone;
    TM__TRY(grad_var(tape, c, 0, &gate));
    TM__TRY(grad_var(tape, c, 1, &up));
    TM__TRY(tm__op_gated(tape, TM__GELU_TANH, gate, up, &product));
    TM__TRY(tm__op_gated(tape, TM__GELU_TANH, up, NULL, &alone));
    return tm__op_add(tape, product, alone, y);
}

static void test_gelu(void **state) {
    (void)state;
    grad_input(&check, "gate", 2, (int64_t[]){3, 5});
    grad_input(&check, "up", 2, (int64_t[]){3, 5});
    check.build = build_gelu;
    assert_true(grad_agrees(&check));
}

/* ---- dropout: the same mask whenever the tape counts the same ---- */

static tm_status build_dropout(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *once, *twice;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__op_dropout(tape, x, 0.4, &once));
    TM__TRY(tm__op_dropout(tape, x, 0.2, &twice));
    return tm__op_gated(tape, TM__SILU, once, twice, y);
}

static void test_dropout(void **state) {
    (void)state;
    grad_input(&check, "x", 2, (int64_t[]){6, 9});
    check.build = build_dropout;
    double plain = grad_value(&check); /* not training: y = x */
    assert_true(grad_agrees(&check));
    check.training = true;
    assert_true(grad_value(&check) != plain);
    assert_true(grad_agrees(&check));
}

/* y = 0.5 * (swiglu(x, x) + x) + (x + x) */
static tm_status build_same(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *gated, *sum, *half, *twice;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__op_gated(tape, TM__SILU, x, x, &gated));
    TM__TRY(tm__op_add(tape, gated, x, &sum));
    TM__TRY(tm__op_scale(tape, sum, 0.5, &half));
    TM__TRY(tm__op_add(tape, x, x, &twice));
    return tm__op_add(tape, half, twice, y);
}

static void test_one_var_in_many_places(void **state) {
    (void)state;
    grad_input(&check, "x", 2, (int64_t[]){3, 5});
    check.build = build_same;
    assert_true(grad_agrees(&check));
}

/* y = x0 * const sum + x0: the weighted sum is read twice, once through a scale */
static tm_status build_sums(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *a, *b, *b3;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__op_weighted_sum(tape, x, c->weight + 100, &a));
    TM__TRY(tm__op_weighted_sum(tape, x, c->weight + 200, &b));
    TM__TRY(tm__op_scale(tape, b, -3, &b3));
    return tm__op_add(tape, a, b3, y);
}

static void test_weighted_sum(void **state) {
    (void)state;
    grad_input(&check, "x", 1, (int64_t[]){9});
    check.build = build_sums;
    assert_true(grad_agrees(&check));
}

/* ---- tap with a perturbation: the function is that of x + perturb ---- */

static tm_status build_tap(tm__tape *tape, gradcheck *c, tm__var **y) {
    const tm__tap tap = {.perturb = c->weight + 300};
    tm__var *x, *tapped;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__op_tap(tape, x, &tap, &tapped));
    return tm__op_gated(tape, TM__SILU, tapped, x, y);
}

static void test_tap(void **state) {
    (void)state;
    grad_input(&check, "x", 2, (int64_t[]){2, 4});
    check.build = build_tap;
    assert_true(grad_agrees(&check));
}

/* ---- the checker itself ---- */

static void test_checker_reports_a_wrong_gradient(void **state) {
    (void)state;
    grad_input(&check, "gate", 2, (int64_t[]){3, 5});
    grad_input(&check, "up", 2, (int64_t[]){3, 5});
    check.build = build_swiglu;
    check.corrupt = 1e-3;
    assert_false(grad_agrees(&check));
    check.corrupt = 0;
    assert_true(grad_agrees(&check));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_embedding, begin, end),
        cmocka_unit_test_setup_teardown(test_rmsnorm, begin, end),
        cmocka_unit_test_setup_teardown(test_rmsnorm_frozen_bf16_weight, begin, end),
        cmocka_unit_test_setup_teardown(test_rmsnorm_shifted_by_heads, begin, end),
        cmocka_unit_test_setup_teardown(test_layernorm, begin, end),
        cmocka_unit_test_setup_teardown(test_gelu, begin, end),
        cmocka_unit_test_setup_teardown(test_dropout, begin, end),
        cmocka_unit_test_setup_teardown(test_rope, begin, end),
        cmocka_unit_test_setup_teardown(test_rope_partial, begin, end),
        cmocka_unit_test_setup_teardown(test_swiglu, begin, end),
        cmocka_unit_test_setup_teardown(test_one_var_in_many_places, begin, end),
        cmocka_unit_test_setup_teardown(test_weighted_sum, begin, end),
        cmocka_unit_test_setup_teardown(test_tap, begin, end),
        cmocka_unit_test_setup_teardown(test_checker_reports_a_wrong_gradient, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
