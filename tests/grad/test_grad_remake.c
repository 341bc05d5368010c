/* Values made again for backward, all that can be (a lean tape) or those for which there is no room (a device's limit):
 * values and gradients equal those of the plain recording bit by bit, whatever is inside. */
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

typedef enum policy { KEEPING, LEAN, LIMITED, POLICIES } policy;

typedef struct network {
    block blocks[BLOCKS];
    policy way;
    bool chained; /* inputs of blocks are dropped too: a block is made again by way of those before it */
    bool outside_reader;
} network;

static gradcheck check;
static network net;

static tm_status run_block(tm__tape *tape, block *b, tm__var *x, tm__var **y) {
    tm__var *normed, *gate, *gated, *out, *tapped;
    TM__TRY(tm__op_rmsnorm(tape, x, &b->norm, 0, 1e-5, &normed));
    TM__TRY(tm__op_linear(tape, x, &b->gate, &gate));
    TM__TRY(tm__op_gated(tape, TM__SILU, gate, normed, &gated));
    tm__tape_drop(tape, normed);
    tm__tape_drop(tape, gate);
    TM__TRY(tm__op_linear(tape, gated, &b->down, &out));
    tm__tape_drop(tape, gated);
    TM__TRY(tm__op_tap(tape, out, &b->tap, &tapped));
    tm__tape_drop(tape, out);
    TM__TRY(tm__op_add(tape, x, tapped, y));
    tm__tape_drop(tape, tapped);
    if (net.chained)
        tm__tape_drop(tape, x);
    else
        tm__tape_anchor(tape, x);
    return TM_OK;
}

static void go(tm__tape *tape, policy way) {
    tape->lean = way == LEAN;
    check.dev->limit = way == LIMITED; /* a byte: whatever can go goes */
}

static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *first, *second;
    go(tape, net.way);
    TM__TRY(grad_var(tape, c, 0, &x));
    TM__TRY(run_block(tape, &net.blocks[0], x, &first));
    TM__TRY(run_block(tape, &net.blocks[1], first, &second));
    TM__TRY(run_block(tape, &net.blocks[2], second, y));
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
    check.dev->limit = 0;
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

static void expect_same(bool chained) {
    static outcome plain, again;
    net.way = KEEPING;
    net.chained = chained;
    observe(&plain);
    assert_int_equal(plain.dropout_stream, BLOCKS);
    for (net.way = LEAN; net.way < POLICIES; net.way++) {
        observe(&again);
        assert_true(plain.value == again.value);
        assert_int_equal(again.dropout_stream, BLOCKS);
        assert_memory_equal(plain.taps, again.taps, sizeof plain.taps);
        for (size_t i = 0; i < check.count; i++) {
            assert_memory_equal(plain.grads[i], again.grads[i], check.slots[i].n * sizeof(double));
            free(again.grads[i]);
        }
    }
    for (size_t i = 0; i < check.count; i++) free(plain.grads[i]);
}

static void test_equal_bitwise(void **state) {
    (void)state;
    expect_same(false);
}

static void test_chains_equal_bitwise(void **state) {
    (void)state;
    expect_same(true);
}

/* A block's input has another reader: additions to its gradient must keep their order. */
static void test_input_read_outside(void **state) {
    (void)state;
    net.outside_reader = true;
    expect_same(false);
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
    net.way = LEAN;
    net.chained = true;
    assert_true(grad_agrees(&check));
}

/* A frozen input: gradients of the block's parameters only. */
static tm_status build_frozen_input(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *x, *fixed;
    go(tape, LIMITED);
    TM__TRY(grad_var(tape, c, 0, &x)); /* not used: its gradient is zero */
    TM__TRY(tm__tape_input(tape, (tm_tensor){TM_F64, 2, {N, WIDTH}, c->weight + 600}, false, &fixed));
    return run_block(tape, &net.blocks[0], fixed, y);
}

static void test_frozen_input(void **state) {
    (void)state;
    check.build = build_frozen_input;
    assert_true(grad_agrees(&check));
}

/* Extra gradient inside a block whose output nobody uses still arrives. */
static void test_source_inside_an_unused_block(void **state) {
    (void)state;
    net.blocks[0].tap.extra_grad = check.weight;
    tm__tape *tape = grad_tape(&check);
    tm__var *x, *y;
    go(tape, LEAN);
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(run_block(tape, &net.blocks[0], x, &y));
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

static size_t held_after_forward(policy way, bool recording, double *worked_again) {
    tm__tape *tape = grad_tape(&check);
    tm__var *x, *y;
    check.dev->worked_again = 0;
    go(tape, way);
    tape->recording = recording;
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(run_block(tape, &net.blocks[0], x, &y));
    size_t held = check.dev->bytes_in_use;
    assert_true(tape->dev->worked_again == 0);
    if (recording) assert_ok(tm__tape_backward(tape, 1, &y, NULL));
    *worked_again = tape->dev->worked_again;
    tm__tape_reset(tape);
    assert_int_equal(check.dev->bytes_in_use, 0);
    tm__tape_free(tape);
    check.dev->limit = 0;
    return held;
}

/* Between forward and backward: the result, what the norm keeps, and the gate or not, whose product is made again (and
 * its adapter's). u of the adapters is kept unless the tape is lean. */
static void test_what_is_held_and_what_that_costs(void **state) {
    (void)state;
    const size_t one = sizeof(double), u = 2 * N * RANK * one, least = (SIZE + N) * one;
    double work;
    assert_int_equal(held_after_forward(KEEPING, true, &work), least + u + SIZE * one);
    assert_true(work == 0);
    assert_int_equal(held_after_forward(LIMITED, true, &work), least + u);
    assert_true(work == SIZE * WIDTH);
    assert_int_equal(held_after_forward(LEAN, true, &work), least);
    assert_true(work == SIZE * WIDTH);
    assert_int_equal(held_after_forward(LEAN, false, &work), SIZE * one);
}

/* Where one value has to go it is the cheapest per byte, and of equals the one that backward comes to last. */
static void test_the_cheapest_goes_first(void **state) {
    (void)state;
    tm__tape *tape = grad_tape(&check);
    tm__var *x, *narrow, *wide, *first, *second, *third, *y;
    tm__linear slim = {.weight = net.blocks[0].down_lora.a}; /* (RANK, WIDTH), then (WIDTH, RANK) */
    tm__linear back = {.weight = net.blocks[0].down_lora.b};
    net.blocks[0].down.adapter_count = net.blocks[0].gate.adapter_count = 0;
    assert_ok(grad_var(tape, &check, 0, &x));
    assert_ok(tm__op_linear(tape, x, &net.blocks[0].gate, &first)); /* WIDTH multiply-adds per element */
    assert_ok(tm__op_linear(tape, x, &net.blocks[0].down, &second));
    assert_ok(tm__op_linear(tape, x, &slim, &narrow));
    assert_ok(tm__op_linear(tape, narrow, &back, &wide)); /* RANK of them */
    assert_ok(tm__op_gated(tape, TM__SILU, first, second, &third));
    assert_ok(tm__op_gated(tape, TM__SILU, third, wide, &y));
    tm__var *const all[] = {first, second, wide};
    for (int i = 0; i < 3; i++) tm__tape_drop(tape, all[i]);
    static const int order[] = {2, 0, 1};
    void *taken[3];
    check.dev->limit = check.dev->pool.needed + (check.dev->pool.listed + 2) * sizeof(tm__pooled); /* no room */
    for (int i = 0; i < 3; i++) {
        assert_ok(check.dev->alloc(check.dev, SIZE * sizeof(double), &taken[i]));
        for (int k = 0; k < 3; k++) {
            bool gone = false;
            for (int n = 0; n <= i; n++) gone |= order[n] == k;
            assert_true((all[k]->value.data == NULL) == gone);
        }
    }
    for (int i = 0; i < 3; i++) check.dev->release(check.dev, taken[i], SIZE * sizeof(double));
    check.dev->limit = 0;
    tm__tape_free(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_equal_bitwise, begin, end),
        cmocka_unit_test_setup_teardown(test_chains_equal_bitwise, begin, end),
        cmocka_unit_test_setup_teardown(test_input_read_outside, begin, end),
        cmocka_unit_test_setup_teardown(test_perturbed_taps, begin, end),
        cmocka_unit_test_setup_teardown(test_central_differences, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_input, begin, end),
        cmocka_unit_test_setup_teardown(test_source_inside_an_unused_block, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_held_and_what_that_costs, begin, end),
        cmocka_unit_test_setup_teardown(test_the_cheapest_goes_first, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
