/* One decoder block with head on every device: cpu and ref in fp32 agree with ref in fp64, thread counts and activation
 * checkpointing change no byte.
 *
 * Tolerance 2e-5 on ||difference|| / ||gradient||: fp32 rounds at 6e-8, and about ten operations with sums over up to a
 * hundred terms lie between the loss and the embedding. A wrong formula or mask is off by 1e-2 and more.
 */
#include "support.h"

#include "op/op.h"

enum {
    TOKENS = 37,
    WIDTH = 32,
    HEADS = 4,
    KV = 2,
    DIM = 8,
    INNER = 48,
    VOCAB = 50,
    RANK = 4,
    PARAMS = 12,
    LARGEST = 1600
};
#define TOLERANCE 2e-5

typedef struct network {
    tm_device *dev;
    tm__param embed, norm1, norm2;
    tm__linear q, k, v, o, gate, up, down;
    tm__adapter lora;
    tm__rope_table rope;
    tm__param *params[PARAMS];
    size_t count;
    bool lean;
    double loss, *grads[PARAMS];
} network;

static void *in_device_type(const network *net, const double *data, size_t n) {
    void *copy = calloc(n, tm__dtype_size(net->dev->act));
    assert_non_null(copy);
    tm__convert(copy, net->dev->act, data, TM_F64, n);
    return copy;
}

/* The same numbers on every device: multiples of 2^-10, which fp32 holds exactly. */
static void give(network *net, tm__param *param, char *name, int64_t rows, int64_t columns, double spread) {
    double data[LARGEST];
    tm__rng rng = tm__rng_make(5, tm__stream(TM__STREAM_TEST, (uint32_t)net->count));
    size_t n = (size_t)(rows * TM__MAX(columns, 1));
    assert_true(n <= LARGEST);
    for (size_t i = 0; i < n; i++) data[i] = round(spread * 1024 * tm__rng_normal(&rng)) / 1024 + (columns == 0);
    *param = (tm__param){.name = name, .trainable = true};
    param->value = (tm_tensor){net->dev->act, columns ? 2 : 1, {rows, columns}, in_device_type(net, data, n)};
    net->params[net->count++] = param;
}

static void give_rope(network *net) {
    double cosine[TOKENS * DIM / 2], sine[TOKENS * DIM / 2];
    for (int i = 0; i < TOKENS * DIM / 2; i++) {
        double angle = i / (DIM / 2) * pow(10000, -(i % (DIM / 2)) / (DIM / 2.0));
        cosine[i] = cos(angle);
        sine[i] = sin(angle);
    }
    net->rope = (tm__rope_table){in_device_type(net, cosine, TOKENS * DIM / 2),
                                 in_device_type(net, sine, TOKENS * DIM / 2), TOKENS, DIM};
}

static void create(network *net, const char *device, int precision, int threads) {
    const tm_device_options options = {.name = device, .precision = precision, .threads = threads};
    memset(net, 0, sizeof *net);
    assert_ok(tm_device_open(&options, &net->dev));
    give(net, &net->embed, "embed", VOCAB, WIDTH, 0.5);
    give(net, &net->norm1, "norm1", WIDTH, 0, 0.1);
    give(net, &net->norm2, "norm2", WIDTH, 0, 0.1);
    give(net, &net->q.weight, "q", HEADS * DIM, WIDTH, 0.2);
    give(net, &net->k.weight, "k", KV * DIM, WIDTH, 0.2);
    give(net, &net->v.weight, "v", KV * DIM, WIDTH, 0.2);
    give(net, &net->o.weight, "o", WIDTH, HEADS * DIM, 0.2);
    give(net, &net->gate.weight, "gate", INNER, WIDTH, 0.2);
    give(net, &net->up.weight, "up", INNER, WIDTH, 0.2);
    give(net, &net->down.weight, "down", WIDTH, INNER, 0.2);
    give(net, &net->lora.a, "lora A", RANK, WIDTH, 0.2);
    give(net, &net->lora.b, "lora B", HEADS * DIM, RANK, 0.2);
    give_rope(net);
    net->lora.rank = RANK;
    net->lora.scale = 0.5;
    net->lora.dropout = 0.3;
    net->lora.active = true;
    net->q.adapters = &net->lora;
    net->q.adapter_count = 1;
}

static void destroy(network *net) {
    for (size_t i = 0; i < net->count; i++) {
        free(net->params[i]->value.data);
        tm__param_grad_zero(net->dev, net->params[i]);
        free(net->grads[i]);
    }
    free(net->rope.cos);
    free(net->rope.sin);
    assert_int_equal(net->dev->bytes_in_use, 0);
    tm_device_close(net->dev);
}

/* Two documents, one token of padding between them. */
static tm_status attend(tm__tape *tape, network *net, tm__var *x, tm__var **y) {
    static const int64_t start[] = {0, 21}, length[] = {20, 16};
    const tm__attention shape = {.tokens = TOKENS,
                                 .heads = HEADS,
                                 .kv_heads = KV,
                                 .head_dim = DIM,
                                 .segments = 2,
                                 .start = start,
                                 .length = length,
                                 .scale = 0.35};
    int32_t position[TOKENS];
    tm__var *q, *k, *q_turned, *k_turned, *v, *mixed;
    for (int i = 0; i < TOKENS; i++) position[i] = i < 21 ? i : i - 21;
    TM__TRY(tm__op_linear(tape, x, &net->q, &q));
    TM__TRY(tm__op_linear(tape, x, &net->k, &k));
    TM__TRY(tm__op_linear(tape, x, &net->v, &v));
    TM__TRY(tm__var_reshape(q, 3, (int64_t[]){TOKENS, HEADS, DIM}));
    TM__TRY(tm__var_reshape(k, 3, (int64_t[]){TOKENS, KV, DIM}));
    TM__TRY(tm__op_rope(tape, q, &net->rope, position, &q_turned));
    TM__TRY(tm__op_rope(tape, k, &net->rope, position, &k_turned));
    TM__TRY(tm__op_attention(tape, q_turned, k_turned, v, &shape, &mixed));
    TM__TRY(tm__op_linear(tape, mixed, &net->o, y));
    tm__var *const done[] = {q, k, q_turned, k_turned, v, mixed};
    for (size_t i = 0; i < TM__COUNT(done); i++) tm__tape_drop(tape, done[i]);
    return TM_OK;
}

static tm_status block(tm__tape *tape, network *net, tm__var *x, tm__var **y) {
    tm__var *first, *second, *mixed, *moved, *middle, *gate, *up, *gated;
    TM__TRY(tm__op_rmsnorm(tape, x, &net->norm1, 0, 1e-5, &first));
    TM__TRY(attend(tape, net, first, &mixed));
    TM__TRY(tm__op_add(tape, x, mixed, &middle));
    TM__TRY(tm__op_rmsnorm(tape, middle, &net->norm2, 0, 1e-5, &second));
    TM__TRY(tm__op_linear(tape, second, &net->gate, &gate));
    TM__TRY(tm__op_linear(tape, second, &net->up, &up));
    TM__TRY(tm__op_gated(tape, TM__SILU, gate, up, &gated));
    TM__TRY(tm__op_linear(tape, gated, &net->down, &moved));
    TM__TRY(tm__op_add(tape, middle, moved, y));
    tm__var *const done[] = {first, mixed, middle, second, gate, up, gated, moved};
    for (size_t i = 0; i < TM__COUNT(done); i++) tm__tape_drop(tape, done[i]);
    return TM_OK;
}

static void run(network *net) {
    int32_t ids[TOKENS], rows[TOKENS / 2], targets[TOKENS / 2];
    double weight[TOKENS / 2], each[TOKENS / 2];
    const tm__head_targets labels = {TOKENS / 2, rows, targets, weight};
    tm__tape *tape;
    tm__var *x, *y, *loss;
    for (int i = 0; i < TOKENS; i++) ids[i] = i * 7 % VOCAB;
    for (int i = 0; i < TOKENS / 2; i++) {
        rows[i] = 2 * i + 1;
        targets[i] = i * 11 % VOCAB;
        weight[i] = 1.0 / (TOKENS / 2);
    }
    assert_ok(tm__tape_create(net->dev, &tape));
    tape->training = true;
    tape->dropout_seed = 3;
    tape->head_chunk_bytes = 5 * VOCAB * tm__dtype_size(net->dev->act);
    assert_ok(tm__op_embedding(tape, &net->embed, ids, TOKENS, &x));
    tape->lean = net->lean;
    assert_ok(block(tape, net, x, &y));
    assert_ok(tm__op_head_loss(tape, y, &(const tm__head){.weight = &net->embed}, &labels, each, &loss));
    net->loss = 0;
    for (int i = 0; i < TOKENS / 2; i++) net->loss += weight[i] * each[i];
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    tm__tape_free(tape);
    for (size_t i = 0; i < net->count; i++) {
        size_t n = (size_t)tm__tensor_count(&net->params[i]->value);
        net->grads[i] = calloc(n, sizeof(double));
        tm__convert(net->grads[i], TM_F64, net->params[i]->grad, net->dev->act, n);
    }
}

static void expect_agreement(const char *device, int precision, double tolerance) {
    static network exact, tested;
    create(&exact, "ref", TM_PRECISION_F64, 1);
    create(&tested, device, precision, 2);
    run(&exact);
    run(&tested);
    assert_true(fabs(tested.loss - exact.loss) < tolerance * exact.loss);
    for (size_t i = 0; i < exact.count; i++) {
        size_t n = (size_t)tm__tensor_count(&exact.params[i]->value);
        double error = test_relative_error(tested.grads[i], exact.grads[i], n);
        if (!(error < tolerance)) fail_msg("%s: gradient of %s is off by %g", device, exact.params[i]->name, error);
    }
    destroy(&exact);
    destroy(&tested);
}

static void test_ref_fp32(void **state) {
    (void)state;
    expect_agreement("ref", TM_PRECISION_F32, TOLERANCE);
}

static void test_cpu_fp32(void **state) {
    (void)state;
    expect_agreement("cpu", TM_PRECISION_F32, TOLERANCE);
}

static void expect_same_bytes(network *a, network *b) {
    run(a);
    run(b);
    assert_true(a->loss == b->loss);
    for (size_t i = 0; i < a->count; i++)
        assert_memory_equal(a->params[i]->grad, b->params[i]->grad, tm__tensor_bytes(&a->params[i]->value));
    destroy(a);
    destroy(b);
}

static void test_thread_count_changes_nothing(void **state) {
    (void)state;
    static network one, two;
    for (int precision = TM_PRECISION_F32; precision <= TM_PRECISION_BF16; precision++) {
        create(&one, "cpu", precision, 1);
        create(&two, "cpu", precision, 2);
        expect_same_bytes(&one, &two);
    }
}

static void test_making_values_again_changes_nothing(void **state) {
    (void)state;
    static network plain, lean;
    create(&plain, "cpu", TM_PRECISION_F32, 2);
    create(&lean, "cpu", TM_PRECISION_F32, 2);
    lean.lean = true;
    expect_same_bytes(&plain, &lean);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_fp32),
        cmocka_unit_test(test_cpu_fp32),
        cmocka_unit_test(test_thread_count_changes_nothing),
        cmocka_unit_test(test_making_values_again_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
