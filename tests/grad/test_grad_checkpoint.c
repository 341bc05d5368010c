/* Checkpointed segments: values and gradients equal those of the plain recording bit by bit, whatever is inside. */
#include "gradcheck.h"

enum { N = 5, WIDTH = 4, RANK = 2, BLOCKS = 3, SIZE = N * WIDTH };

/* A small residual block: x + tap(linear(swiglu(norm(x), linear(x)))), with LoRA dropout and a tap. */
typedef struct block {
    tm__param norm;
    tm__linear gate, down;
    tm__adapter gate_lora, down_lora;
    tm__tap tap;
    double value[SIZE], grad[SIZE];
} block;

typedef struct network {
    block blocks[BLOCKS];
    bool checkpointed, nested, outside_reader;
} network;

static gradcheck check;
static network net;

static tm_status run_block(tm__tape *tape, void *ctx, tm__var *x, tm__var **y) {
    block *b = ctx;
    tm__var *normed, *gate, *gated, *out, *tapped;
    TM__TRY(tm__op_rmsnorm(tape, x, &b->norm, 0, 1e-5, &normed));
    TM__TRY(tm__op_linear(tape, x, &b->gate, &gate));
    TM__TRY(tm__op_gated(tape, TM__SILU, gate, normed, &gated));
    TM__TRY(tm__op_linear(tape, gated, &b->down, &out));
    tm__tape_drop(tape, gated);
    TM__TRY(tm__op_tap(tape, out, &b->tap, &tapped));
    return tm__op_add(tape, x, tapped, y);
}

/* The last two blocks as one segment that holds another. */
static tm_status run_pair(tm__tape *tape, void *ctx, tm__var *x, tm__var **y) {
    block *pair = ctx;
    tm__var *middle;
    TM__TRY(tm__tape_checkpoint(tape, run_block, &pair[0], x, &middle));
    return run_block(tape, &pair[1], middle, y);
}

static tm_status run_one(tm__tape *tape, block *b, tm__var *x, tm__var **y) {
    return net.checkpointed ? tm__tape_checkpoint(tape, run_block, b, x, y) : run_block(tape, b, x, y);
}

static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *first, *second;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(run_one(tape, &net.blocks[0], x, &first));
    if (net.nested) {
        TM__TRY(tm__tape_checkpoint(tape, run_pair, &net.blocks[1], first, y));
    } else {
        TM__TRY(run_one(tape, &net.blocks[1], first, &second));
        TM__TRY(run_one(tape, &net.blocks[2], second, y));
    }
    return net.outside_reader ? tm__op_gated(tape, TM__SILU, *y, first, y) : TM_OK;
}

static void give_lora(tm__linear *linear, tm__adapter *adapter, double dropout) {
    *adapter = (tm__adapter){.rank = RANK, .scale = 0.5, .dropout = dropout, .active = true};
    grad_param(&check, &adapter->a, "A", 2, (int64_t[]){RANK, WIDTH});
    grad_param(&check, &adapter->b, "B", 2, (int64_t[]){WIDTH, RANK});
    linear->adapters = adapter;
    linear->adapter_count = 1;
}

static int begin(void **state) {
    (void)state;
    grad_begin(&check, 5);
    memset(&net, 0, sizeof net);
    grad_input(&check, "x", 2, (int64_t[]){N, WIDTH});
    for (int i = 0; i < BLOCKS; i++) {
        block *b = &net.blocks[i];
        grad_param(&check, &b->norm, "norm", 1, (int64_t[]){WIDTH});
        grad_param(&check, &b->gate.weight, "gate", 2, (int64_t[]){WIDTH, WIDTH});
        grad_param(&check, &b->down.weight, "down", 2, (int64_t[]){WIDTH, WIDTH});
        give_lora(&b->gate, &b->gate_lora, 0.3);
        give_lora(&b->down, &b->down_lora, 0);
        b->tap = (tm__tap){.layer = i, .site = TM__TAP_MLP_OUT, .value = b->value, .grad = b->grad};
    }
    check.training = true;
    check.build = build;
    return 0;
}

static int end(void **state) {
    (void)state;
    grad_end(&check);
    return 0;
}

typedef struct outcome {
    double value, *grads[GRAD_SLOTS], taps[BLOCKS][2][SIZE];
    uint64_t dropout_stream;
} outcome;

static void observe(outcome *o) {
    for (int i = 0; i < BLOCKS; i++) {
        memset(net.blocks[i].value, 0, sizeof net.blocks[i].value);
        memset(net.blocks[i].grad, 0, sizeof net.blocks[i].grad);
    }
    o->value = grad_value(&check);
    grad_analytic(&check);
    for (size_t i = 0; i < check.count; i++) {
        o->grads[i] = malloc(check.slots[i].n * sizeof(double));
        memcpy(o->grads[i], check.slots[i].grad, check.slots[i].n * sizeof(double));
    }
    for (int i = 0; i < BLOCKS; i++) {
        memcpy(o->taps[i][0], net.blocks[i].value, sizeof o->taps[i][0]);
        memcpy(o->taps[i][1], net.blocks[i].grad, sizeof o->taps[i][1]);
    }
    tm__tape *tape = grad_tape(&check);
    tm__var *y;
    assert_ok(build(tape, &check, &y));
    o->dropout_stream = tape->dropout_stream;
    tm__tape_free(tape);
}

static void expect_same(bool nested) {
    static outcome plain, segmented;
    net.checkpointed = net.nested = false;
    observe(&plain);
    net.checkpointed = true;
    net.nested = nested;
    observe(&segmented);
    assert_true(plain.value == segmented.value);
    assert_int_equal(plain.dropout_stream, BLOCKS);
    assert_int_equal(segmented.dropout_stream, BLOCKS);
    assert_memory_equal(plain.taps, segmented.taps, sizeof plain.taps);
    for (size_t i = 0; i < check.count; i++) {
        assert_memory_equal(plain.grads[i], segmented.grads[i], check.slots[i].n * sizeof(double));
        free(plain.grads[i]);
        free(segmented.grads[i]);
    }
}

static void test_equal_bitwise(void **state) {
    (void)state;
    expect_same(false);
}

static void test_nested_equal_bitwise(void **state) {
    (void)state;
    expect_same(true);
}

/* The segment's input has another reader: additions to its gradient must keep their order. */
static void test_input_read_outside(void **state) {
    (void)state;
    net.outside_reader = true;
    expect_same(false);
    expect_same(true);
}

static void test_perturbed_taps(void **state) {
    (void)state;
    for (int i = 0; i < BLOCKS; i++) {
        net.blocks[i].tap.perturb = check.weight + 200 + SIZE * i;
        net.blocks[i].tap.extra_grad = check.weight + 400 + SIZE * i;
    }
    expect_same(false);
    expect_same(true);
}

static void test_central_differences(void **state) {
    (void)state;
    net.checkpointed = true;
    assert_true(grad_agrees(&check));
}

/* A frozen input: gradients of parameters inside the segment only. */
static tm_status build_frozen_input(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *fixed;
    TM__TRY(grad_var(tape, c, 0, &x)); /* not used: its gradient is zero */
    TM__TRY(tm__tape_input(tape, (tm_tensor){TM_F64, 2, {N, WIDTH}, c->weight + 600}, false, &fixed));
    return tm__tape_checkpoint(tape, run_block, &net.blocks[0], fixed, y);
}

static void test_frozen_input(void **state) {
    (void)state;
    check.build = build_frozen_input;
    assert_true(grad_agrees(&check));
}

static tm_status return_input(tm__tape *tape, void *ctx, tm__var *x, tm__var **y) {
    (void)tape;
    (void)ctx;
    *y = x;
    return TM_OK;
}

static tm_status build_identity(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *same;
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(tm__tape_checkpoint(tape, return_input, NULL, x, &same));
    return tm__op_gated(tape, TM__SILU, same, x, y);
}

static void test_segment_that_returns_its_input(void **state) {
    (void)state;
    size_t all = check.count;
    check.build = build_identity;
    check.count = 1; /* no parameter is in it */
    bool close = grad_agrees(&check);
    check.count = all;
    assert_true(close);
}

/* Extra gradient inside a segment whose output nobody uses still arrives. */
static void test_source_inside_an_unused_segment(void **state) {
    (void)state;
    net.blocks[0].tap.extra_grad = check.weight;
    tm__tape *tape = grad_tape(&check);
    tm__var *x, *y;
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(tm__tape_checkpoint(tape, run_block, &net.blocks[0], x, &y));
    assert_ok(tm__tape_backward(tape, 0, NULL, NULL));
    assert_non_null(x->grad);
    double sum = 0;
    for (int i = 0; i < SIZE; i++) {
        sum += fabs(((double *)x->grad)[i]);
        assert_true(net.blocks[0].grad[i] == 0); /* before extra_grad is added */
    }
    assert_true(sum > 0);
    tm__tape_free(tape);
}

/* Between forward and backward only the segment's result is held. */
static void test_only_the_result_is_held(void **state) {
    (void)state;
    tm__tape *tape = grad_tape(&check);
    tm__var *x, *y;
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(tm__tape_checkpoint(tape, run_block, &net.blocks[0], x, &y));
    assert_int_equal(check.dev->bytes_in_use, SIZE * sizeof(double));
    tm__tape_reset(tape);
    assert_int_equal(check.dev->bytes_in_use, 0);
    tape->recording = false;
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(tm__tape_checkpoint(tape, run_block, &net.blocks[0], x, &y));
    assert_int_equal(check.dev->bytes_in_use, SIZE * sizeof(double));
    tm__tape_free(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_equal_bitwise, begin, end),
        cmocka_unit_test_setup_teardown(test_nested_equal_bitwise, begin, end),
        cmocka_unit_test_setup_teardown(test_input_read_outside, begin, end),
        cmocka_unit_test_setup_teardown(test_perturbed_taps, begin, end),
        cmocka_unit_test_setup_teardown(test_central_differences, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_input, begin, end),
        cmocka_unit_test_setup_teardown(test_segment_that_returns_its_input, begin, end),
        cmocka_unit_test_setup_teardown(test_source_inside_an_unused_segment, begin, end),
        cmocka_unit_test_setup_teardown(test_only_the_result_is_held, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
