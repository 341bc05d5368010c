/* Head and cross-entropy: gradients, chunking, tied weights, golden values. */
#include "gradcheck.h"

enum { TOKENS = 7, WIDTH = 4, VOCAB = 9, TARGETS = 5 };

static gradcheck check;
static tm__param head, head_bias;

static const int32_t rows[TARGETS] = {5, 0, 2, 6, 3}, ids[TARGETS] = {8, 0, 4, 4, 1};
static const double weights[TARGETS] = {0.2, 0.3, -0.1, 0.5, 1};
static const tm__head_targets targets = {TARGETS, rows, ids, weights};

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

/* Row 3 of the gradient of hidden also gets something from elsewhere: dhidden must be added to, not overwritten. */
static tm_status build(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *hidden, *half, *loss, *other;
    TM__TRY(grad_var(tape, c, 0, &hidden));
    TM__TRY(tm__op_scale(tape, hidden, 0.5, &half));
    TM__TRY(tm__op_head_loss(tape, half, &(const tm__head){.weight = &head}, &targets, NULL, &loss));
    TM__TRY(tm__op_weighted_sum(tape, half, c->weight + 100, &other));
    return tm__op_add(tape, loss, other, y);
}

static void make_slots(void) {
    grad_input(&check, "hidden", 2, (int64_t[]){TOKENS, WIDTH});
    grad_param(&check, &head, "head", 2, (int64_t[]){VOCAB, WIDTH});
    check.build = build;
}

static void test_one_chunk(void **state) {
    (void)state;
    make_slots();
    assert_true(grad_agrees(&check));
}

static void test_many_chunks(void **state) {
    (void)state;
    make_slots();
    grad_analytic(&check);
    double value = grad_value(&check), whole[2][VOCAB * WIDTH];
    for (int i = 0; i < 2; i++) memcpy(whole[i], check.slots[i].grad, check.slots[i].n * sizeof(double));
    for (size_t fitting = 1; fitting < 2 * TARGETS; fitting++) {
        check.begun = fitting > TARGETS; /* then the logits are computed again */
        check.head_chunk_bytes = (1 + fitting % TARGETS) * VOCAB * sizeof(double);
        assert_true(grad_agrees(&check));
        assert_true(grad_value(&check) == value);
        for (int i = 0; i < 2; i++)
            assert_true(test_relative_error(check.slots[i].grad, whole[i], check.slots[i].n) < 1e-14);
    }
    check.head_chunk_bytes = 1; /* less than a row: one row at a time */
    for (int begun = 0; begun < 2; begun++) {
        check.begun = begun;
        assert_true(grad_agrees(&check));
    }
}

/* Two losses on one tape through one head, of different weight: what the second has made is added to the first's. */
static tm_status build_twice(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *hidden, *loss, *some, *half;
    const tm__head shared = {.weight = &head, .bias = &head_bias};
    const tm__head_targets fewer = {3, rows + 1, ids, weights};
    TM__TRY(grad_var(tape, c, 0, &hidden));
    TM__TRY(tm__op_head_loss(tape, hidden, &shared, &targets, NULL, &loss));
    TM__TRY(tm__op_head_loss(tape, hidden, &shared, &fewer, NULL, &half));
    TM__TRY(tm__op_scale(tape, half, -0.3, &some));
    return tm__op_add(tape, loss, some, y);
}

static void test_two_losses(void **state) {
    (void)state;
    make_slots();
    grad_param(&check, &head_bias, "bias", 1, (int64_t[]){VOCAB});
    check.build = build_twice;
    for (int begun = 0; begun < 2; begun++)
        for (size_t fitting = 1; fitting <= TARGETS; fitting++) {
            check.begun = begun;
            check.head_chunk_bytes = fitting * VOCAB * sizeof(double);
            assert_true(grad_agrees(&check));
        }
}

/* A bias, and a soft cap that the logits are well inside, near and beyond. */
static tm_status build_capped(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *hidden;
    TM__TRY(grad_var(tape, c, 0, &hidden));
    const tm__head capped = {.weight = &head, .bias = &head_bias, .soft_cap = 1.5};
    return tm__op_head_loss(tape, hidden, &capped, &targets, NULL, y);
}

/* What lies in the device's memory behind forward; nobody asks for gradients, and all of it goes with the tape. */
static size_t bytes_behind_forward(tm_status (*how)(tm__tape *, gradcheck *, tm__var **), double *grad,
                                   double *bias_grad) {
    head.grad = grad;
    head_bias.grad = bias_grad;
    tm__tape *tape = grad_tape(&check);
    tm__var *y;
    assert_ok(how(tape, &check, &y));
    size_t bytes = check.dev->bytes_in_use;
    tm__tape_free(tape);
    assert_int_equal(check.dev->bytes_in_use, 0);
    assert_ptr_equal(head.grad, grad);
    assert_ptr_equal(head_bias.grad, bias_grad);
    return bytes;
}

/* Forward of several chunks has made the gradients of the hidden rows and of every parameter, unless one has begun. */
static void test_no_backward(void **state) {
    (void)state;
    enum { ROWS = TARGETS * WIDTH, ONE = VOCAB * WIDTH };
    make_slots();
    size_t bias = grad_param(&check, &head_bias, "bias", 1, (int64_t[]){VOCAB});
    double *begun = check.slots[1].grad, *bias_begun = check.slots[bias].grad;
    check.head_chunk_bytes = 2 * VOCAB * sizeof(double);
    size_t least = bytes_behind_forward(build, begun, bias_begun);
    assert_int_equal(bytes_behind_forward(build, NULL, bias_begun) - least, sizeof(double) * (ROWS + ONE));
    size_t with_bias = bytes_behind_forward(build_capped, begun, bias_begun);
    assert_int_equal(bytes_behind_forward(build_capped, NULL, NULL) - with_bias, sizeof(double) * (ROWS + ONE + VOCAB));
    assert_int_equal(bytes_behind_forward(build_capped, NULL, bias_begun), with_bias);
    assert_int_equal(bytes_behind_forward(build_capped, begun, NULL), with_bias);
    head.trainable = head_bias.trainable = false;
    assert_int_equal(bytes_behind_forward(build_capped, NULL, NULL) - with_bias, sizeof(double) * ROWS);
}

/* The hidden state may go behind forward if its gradients are made: else it has to stay. */
static tm_status build_dropped(tm__tape *tape, gradcheck *c, tm__var **y) {
    tm__var *hidden, *half;
    TM__TRY(grad_var(tape, c, 0, &hidden));
    TM__TRY(tm__op_scale(tape, hidden, 0.5, &half));
    TM__TRY(tm__op_head_loss(tape, half, &(const tm__head){.weight = &head}, &targets, NULL, y));
    tm__tape_drop(tape, half);
    return TM_OK;
}

static void test_dropped_hidden(void **state) {
    (void)state;
    make_slots();
    check.build = build_dropped;
    for (int chunks = 0; chunks < 2; chunks++) {
        check.head_chunk_bytes = chunks ? 2 * VOCAB * sizeof(double) : 0;
        for (int begun = 0; begun < 2; begun++) {
            check.begun = begun;
            assert_true(grad_agrees(&check));
        }
    }
    size_t kept = bytes_behind_forward(build_dropped, check.slots[1].grad, NULL);
    size_t gone = bytes_behind_forward(build_dropped, NULL, NULL);
    assert_int_equal(gone + sizeof(double) * TOKENS * WIDTH, kept + sizeof(double) * (TARGETS + VOCAB) * WIDTH);
}

static void test_frozen_head(void **state) {
    (void)state;
    make_slots();
    head.trainable = false;
    head.grad = NULL;
    check.slots[1].n = 0;
    assert_true(grad_agrees(&check));
}

static void test_bias_and_soft_cap(void **state) {
    (void)state;
    make_slots();
    grad_param(&check, &head_bias, "bias", 1, (int64_t[]){VOCAB});
    check.build = build_capped;
    assert_true(grad_agrees(&check));
    check.head_chunk_bytes = 2 * VOCAB * sizeof(double);
    for (int begun = 0; begun < 2; begun++) {
        check.begun = begun;
        assert_true(grad_agrees(&check));
    }
}

/* The embedding is the head as well: its gradient is the sum of both uses. */
static tm_status build_tied(tm__tape *tape, gradcheck *c, tm__var **y) {
    const int32_t text[TOKENS] = {3, 8, 0, 3, 2, 7, 1};
    tm__var *embedded, *gated;
    (void)c;
    TM__TRY(tm__op_embedding(tape, &head, text, TOKENS, &embedded));
    TM__TRY(tm__op_gated(tape, TM__SILU, embedded, embedded, &gated));
    return tm__op_head_loss(tape, gated, &(const tm__head){.weight = &head}, &targets, NULL, y);
}

static void test_tied(void **state) {
    (void)state;
    grad_param(&check, &head, "head", 2, (int64_t[]){VOCAB, WIDTH});
    check.build = build_tied;
    assert_true(grad_agrees(&check));
    check.head_chunk_bytes = 2 * VOCAB * sizeof(double);
    for (int begun = 0; begun < 2; begun++) {
        check.begun = begun;
        assert_true(grad_agrees(&check));
    }
}

static void test_row_losses(void **state) {
    (void)state;
    make_slots();
    double each[TARGETS], sum = 0;
    tm__tape *tape = grad_tape(&check);
    tm__var *hidden, *loss;
    tape->recording = false;
    tape->head_chunk_bytes = 2 * VOCAB * sizeof(double);
    assert_ok(grad_var(tape, &check, 0, &hidden));
    assert_ok(tm__op_head_loss(tape, hidden, &(const tm__head){.weight = &head}, &targets, each, &loss));
    for (int i = 0; i < TARGETS; i++) {
        double z[VOCAB], total = 0;
        for (int j = 0; j < VOCAB; j++) {
            z[j] = 0;
            for (int d = 0; d < WIDTH; d++)
                z[j] += check.slots[0].value[rows[i] * WIDTH + d] * check.slots[1].value[j * WIDTH + d];
            total += exp(z[j]);
        }
        assert_true(fabs(each[i] - (log(total) - z[ids[i]])) < 1e-13);
        sum += weights[i] * each[i];
    }
    assert_true(*(double *)loss->value.data == sum);
    tm__tape_free(tape);
}

static void test_no_targets(void **state) {
    (void)state;
    make_slots();
    const tm__head_targets none = {0};
    tm__tape *tape = grad_tape(&check);
    tm__var *hidden, *loss;
    assert_ok(grad_var(tape, &check, 0, &hidden));
    assert_ok(tm__op_head_loss(tape, hidden, &(const tm__head){.weight = &head}, &none, NULL, &loss));
    assert_true(*(double *)loss->value.data == 0);
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    for (int i = 0; i < TOKENS * WIDTH; i++) assert_true(((double *)hidden->grad)[i] == 0);
    tm__tape_free(tape);
}

static void test_bad_targets(void **state) {
    (void)state;
    make_slots();
    const int32_t good = 1, twice[2] = {1, 1}, two_ids[2] = {0, 1}, past_row = TOKENS, past_id = VOCAB, below = -1;
    const double one[2] = {1, 1};
    const tm__head_targets bad[] = {
        {1, &past_row, &good, one}, {1, &below, &good, one},  {1, &good, &past_id, one},
        {1, &good, &below, one},    {2, twice, two_ids, one},
    };
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        tm__tape *tape = grad_tape(&check);
        tm__var *hidden, *loss;
        assert_ok(grad_var(tape, &check, 0, &hidden));
        assert_int_equal(tm__op_head_loss(tape, hidden, &(const tm__head){.weight = &head}, &bad[i], NULL, &loss),
                         TM_INVALID);
        tm__tape_free(tape);
    }
}

/* ---- golden values: methods specification, appendix A ---- */

/* A1: logits (1,2,3), target 2. */
static void test_golden_cross_entropy(void **state) {
    (void)state;
    double logits[] = {1, 2, 3}, loss, lse, one = 1;
    const double softmax[] = {0.0900305732, 0.2447284711, 0.6652409558 - 1};
    const int32_t target = 2;
    assert_ok(check.dev->k->cross_entropy(check.dev, &loss, &lse, logits, &target, 1, 3));
    assert_true(fabs(loss - 0.4076059644) < 5e-11);
    assert_ok(check.dev->k->cross_entropy_grad(check.dev, logits, &lse, &target, &one, 1, 3, 0));
    for (int i = 0; i < 3; i++) assert_true(fabs(logits[i] - softmax[i]) < 6e-11);
}

/* A15: equal logits give the logarithm of the vocabulary, however large the logits. */
static void test_golden_uniform(void **state) {
    (void)state;
    const struct {
        int64_t vocab;
        double loss;
    } golden[] = {{32000, 10.3734911818}, {128256, 11.7617835456}};
    for (size_t i = 0; i < 2; i++) {
        double *logits = malloc((size_t)golden[i].vocab * sizeof *logits), loss, lse;
        const int32_t target = 17;
        for (int64_t j = 0; j < golden[i].vocab; j++) logits[j] = 800;
        assert_ok(check.dev->k->cross_entropy(check.dev, &loss, &lse, logits, &target, 1, golden[i].vocab));
        assert_true(fabs(loss - golden[i].loss) < 1e-9);
        free(logits);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_chunk, begin, end),
        cmocka_unit_test_setup_teardown(test_many_chunks, begin, end),
        cmocka_unit_test_setup_teardown(test_two_losses, begin, end),
        cmocka_unit_test_setup_teardown(test_no_backward, begin, end),
        cmocka_unit_test_setup_teardown(test_dropped_hidden, begin, end),
        cmocka_unit_test_setup_teardown(test_frozen_head, begin, end),
        cmocka_unit_test_setup_teardown(test_bias_and_soft_cap, begin, end),
        cmocka_unit_test_setup_teardown(test_tied, begin, end),
        cmocka_unit_test_setup_teardown(test_row_losses, begin, end),
        cmocka_unit_test_setup_teardown(test_no_targets, begin, end),
        cmocka_unit_test_setup_teardown(test_bad_targets, begin, end),
        cmocka_unit_test_setup_teardown(test_golden_cross_entropy, begin, end),
        cmocka_unit_test_setup_teardown(test_golden_uniform, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
