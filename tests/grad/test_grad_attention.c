/* Gradients and values of attention: grouped heads, packed and padded segments, window, soft cap. */
#include "gradcheck.h"

static gradcheck check;

static int begin(void **state) {
    (void)state;
    grad_begin(&check, 3);
    return 0;
}

static int end(void **state) {
    (void)state;
    grad_end(&check);
    return 0;
}

static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *q, *k, *v;
    TM__TRY(grad_var(tape, c, 0, &q));
    TM__TRY(grad_var(tape, c, 1, &k));
    TM__TRY(grad_var(tape, c, 2, &v));
    return tm__op_attention(tape, q, k, v, c->ctx, y);
}

static void agrees(tm__attention *shape) {
    shape->scale = 0.8;
    grad_input(&check, "q", 3, (int64_t[]){shape->tokens, shape->heads, shape->head_dim});
    grad_input(&check, "k", 3, (int64_t[]){shape->tokens, shape->kv_heads, shape->head_dim});
    grad_input(&check, "v", 3, (int64_t[]){shape->tokens, shape->kv_heads, shape->head_dim});
    check.ctx = shape;
    check.build = build;
    assert_true(grad_agrees(&check));
}

#define SHAPE(t, h, g, n, s, l) \
    { .tokens = (t), .heads = (h), .kv_heads = (g), .head_dim = 3, .segments = (n), .start = (s), .length = (l) }

static void test_one_segment(void **state) {
    (void)state;
    const int64_t start[] = {0}, length[] = {5};
    agrees(&(tm__attention)SHAPE(5, 2, 2, 1, start, length));
}

static void test_grouped_heads(void **state) {
    (void)state;
    const int64_t start[] = {0}, length[] = {5};
    agrees(&(tm__attention)SHAPE(5, 4, 2, 1, start, length));
}

static void test_packed(void **state) {
    (void)state;
    const int64_t start[] = {0, 3, 4}, length[] = {3, 1, 4};
    agrees(&(tm__attention)SHAPE(8, 2, 1, 3, start, length));
}

/* Tokens 0, 4, 5 and 8 belong to no segment: zero output, zero gradient. */
static void test_padding(void **state) {
    (void)state;
    const int64_t start[] = {1, 6}, length[] = {3, 2};
    agrees(&(tm__attention)SHAPE(9, 2, 1, 2, start, length));
    const int padding[] = {0, 4, 5, 8};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 6; j++) {
            assert_true(check.slots[0].grad[padding[i] * 6 + j] == 0);
            if (j < 3) assert_true(check.slots[1].grad[padding[i] * 3 + j] == 0);
            if (j < 3) assert_true(check.slots[2].grad[padding[i] * 3 + j] == 0);
        }
    tm__tape *tape = grad_tape(&check);
    tm__var *y;
    assert_ok(build(tape, &check, &y));
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 6; j++) assert_true(((double *)y->value.data)[padding[i] * 6 + j] == 0);
    tm__tape_free(tape);
}

static void test_window(void **state) {
    (void)state;
    const int64_t start[] = {0, 6}, length[] = {6, 2};
    tm__attention shape = SHAPE(8, 2, 1, 2, start, length);
    shape.window = 3;
    agrees(&shape);
}

static void test_soft_cap(void **state) {
    (void)state;
    const int64_t start[] = {0}, length[] = {5};
    tm__attention shape = SHAPE(5, 2, 1, 1, start, length);
    shape.soft_cap = 1.5;
    agrees(&shape);
}

/* One var as query, key and value; another run where only the keys want a gradient. */
static tm_status build_same(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x;
    TM__TRY(grad_var(tape, c, 0, &x));
    return tm__op_attention(tape, x, x, x, c->ctx, y);
}

static void test_one_var_as_all_three(void **state) {
    (void)state;
    const int64_t start[] = {0}, length[] = {4};
    tm__attention shape = SHAPE(4, 2, 2, 1, start, length);
    shape.scale = 0.8;
    grad_input(&check, "x", 3, (int64_t[]){4, 2, 3});
    check.ctx = &shape;
    check.build = build_same;
    assert_true(grad_agrees(&check));
}

static tm_status build_keys_only(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm_tensor fixed = c->slots[0].shape;
    tm__var *k, *rest;
    fixed.data = c->weight;
    TM__TRY(tm__tape_input(tape, fixed, false, &rest));
    TM__TRY(grad_var(tape, c, 0, &k));
    return tm__op_attention(tape, rest, k, rest, c->ctx, y);
}

static void test_keys_only(void **state) {
    (void)state;
    const int64_t start[] = {0}, length[] = {4};
    tm__attention shape = SHAPE(4, 2, 2, 1, start, length);
    shape.scale = 0.8;
    grad_input(&check, "k", 3, (int64_t[]){4, 2, 3});
    check.ctx = &shape;
    check.build = build_keys_only;
    assert_true(grad_agrees(&check));
}

/* A document gives the same result alone as packed behind another. */
static void test_packing_changes_nothing(void **state) {
    (void)state;
    enum { T = 7, WIDTH = 6 };
    double *q = grad_random(&check.rng, T * WIDTH), *k = grad_random(&check.rng, T * WIDTH);
    double *v = grad_random(&check.rng, T * WIDTH), packed[T * WIDTH], alone[T * WIDTH], lse[T * 2];
    const int64_t both_start[] = {0, 3}, both_length[] = {3, 4}, one_start[] = {0}, one_length[] = {4};
    tm__attention both = SHAPE(T, 2, 2, 2, both_start, both_length), one = SHAPE(4, 2, 2, 1, one_start, one_length);
    both.scale = one.scale = 0.7;
    assert_ok(check.dev->k->attention(check.dev, packed, lse, q, k, v, &both));
    assert_ok(check.dev->k->attention(check.dev, alone, lse, q + 3 * WIDTH, k + 3 * WIDTH, v + 3 * WIDTH, &one));
    assert_memory_equal(packed + 3 * WIDTH, alone, 4 * WIDTH * sizeof(double));
    assert_true(memcmp(packed, v, 6 * sizeof(double)) == 0); /* the first token of a document sees itself alone */
    free(q);
    free(k);
    free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_segment, begin, end),
        cmocka_unit_test_setup_teardown(test_grouped_heads, begin, end),
        cmocka_unit_test_setup_teardown(test_packed, begin, end),
        cmocka_unit_test_setup_teardown(test_padding, begin, end),
        cmocka_unit_test_setup_teardown(test_window, begin, end),
        cmocka_unit_test_setup_teardown(test_soft_cap, begin, end),
        cmocka_unit_test_setup_teardown(test_one_var_as_all_three, begin, end),
        cmocka_unit_test_setup_teardown(test_keys_only, begin, end),
        cmocka_unit_test_setup_teardown(test_packing_changes_nothing, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
