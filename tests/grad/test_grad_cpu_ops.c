/* test_grad_cpu_ops.c: every op on device cpu against ref in fp64: value and every gradient, with products in fp32 and
 * in bf16, weights stored as fp32, bf16 and fp16, odd sizes, sums of over 4096 terms; under every instruction set.
 *
 * Bounds on ||difference|| / ||reference||:
 *   FP32   2e-6   chains of at most 384 fp32 additions and their sums, at 6e-8 each (test_gemm.c); exp to about 1 ulp
 *   BF16   4e-3   both operands of a product rounded to 8 bits: an error of 2^-9 at most and 1.2e-3 in the mean square
 *                 of each, so 1.7e-3 for their product; two such products lie behind one another in the loss
 * On a bf16 device only products of weights may be off by the second bound. Norms, rotation, attention, gate, loss over
 * given logits and adapters stay within the first (design, rule 5), and must not be less exact than it says.
 */
#include "support.h"

#include "op/op.h"

static const double FP32 = 2e-6, BF16 = 4e-3;

enum { INPUTS = 3, PARAMS = 4, WEIGHTS = 1 << 17 };

typedef struct bench {
    tm_device *dev;
    tm__tape *tape;
    tm__var *input[INPUTS];
    tm__param param[PARAMS];
    tm__linear linear;
    tm__adapter adapter;
    size_t inputs, params, draws;
    tm_dtype stored; /* of frozen weights; TM_F64 stands for trainable ones of the device's type */
} bench;

typedef struct result {
    double *data[1 + INPUTS + PARAMS];
    size_t n[1 + INPUTS + PARAMS];
    size_t count;
} result;

/* Normal numbers rounded to bf16, so that every device and every storage type holds exactly the same. */
static double *numbers(bench *b, size_t n, double spread) {
    double *x = malloc(n * sizeof *x);
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, (uint32_t)++b->draws));
    for (size_t i = 0; i < n; i++)
        x[i] = (double)tm__bf16_to_f32(tm__bf16_from_f64(spread * tm__rng_normal(&rng) + 0x1p-6));
    return x;
}

/* The same with 24 bits: what fp32 holds and bf16 does not. */
static double *fine_numbers(bench *b, size_t n, double spread) {
    double *x = malloc(n * sizeof *x);
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, (uint32_t)++b->draws));
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)(spread * tm__rng_normal(&rng));
    return x;
}

static void *stored_as(const double *x, size_t n, tm_dtype type) {
    void *data = malloc(n * tm__dtype_size(type));
    tm__convert(data, type, x, TM_F64, n);
    return data;
}

static tm__var *input(bench *b, int ndim, int64_t d0, int64_t d1, int64_t d2) {
    tm_tensor value = {.dtype = b->dev->act, .ndim = ndim, .shape = {d0, d1, d2}};
    size_t n = (size_t)tm__tensor_count(&value);
    double *x = fine_numbers(b, n, 1);
    value.data = stored_as(x, n, b->dev->act);
    free(x);
    assert_ok(tm__tape_input(b->tape, value, true, &b->input[b->inputs]));
    return b->input[b->inputs++];
}

static tm__param *fill_param(bench *b, tm__param *param, int ndim, int64_t rows, int64_t columns, double spread,
                             bool trained) {
    tm_dtype type = trained ? b->dev->act : b->stored;
    *param = (tm__param){
        .name = "w", .value = {.dtype = type, .ndim = ndim, .shape = {rows, columns}}, .trainable = trained};
    size_t n = (size_t)tm__tensor_count(&param->value);
    double *x = trained ? fine_numbers(b, n, spread) : numbers(b, n, spread);
    param->value.data = stored_as(x, n, type);
    free(x);
    void *grad;
    assert_ok(tm__param_grad(b->dev, param, &grad));
    return param;
}

static tm__param *weight(bench *b, int ndim, int64_t rows, int64_t columns) {
    double spread = ndim == 2 ? 1 / sqrt((double)columns) : 1;
    return fill_param(b, &b->param[b->params++], ndim, rows, columns, spread, b->stored == TM_F64);
}

/* ---- the ops ----------------------------------------------------------------------------------------------------- */

typedef void (*builder)(bench *b, tm__var **y);

static void embedding(bench *b, tm__var **y) {
    const int32_t ids[] = {4, 0, 36, 4, 7, 19, 4};
    assert_ok(tm__op_embedding(b->tape, weight(b, 2, 37, 333), ids, 7, y));
}

static void linear_of(bench *b, int64_t n, int64_t in, int64_t out, bool bias, tm__var **y) {
    tm__var *x = input(b, 2, n, in, 0);
    b->linear.weight = *weight(b, 2, out, in);
    if (bias) b->linear.bias = *weight(b, 1, out, 1);
    assert_ok(tm__op_linear(b->tape, x, &b->linear, y));
}

static void linear_odd(bench *b, tm__var **y) {
    linear_of(b, 37, 131, 77, true, y);
}

static void linear_one_row(bench *b, tm__var **y) {
    linear_of(b, 1, 63, 65, true, y);
}

static void linear_long_in(bench *b, tm__var **y) { /* y sums 4133 terms */
    linear_of(b, 9, 4133, 33, false, y);
}

static void linear_long_out(bench *b, tm__var **y) { /* dx sums 4099 terms */
    linear_of(b, 9, 33, 4099, false, y);
}

static void linear_long_rows(bench *b, tm__var **y) { /* dW and db sum 4101 terms */
    linear_of(b, 4101, 33, 15, true, y);
}

/* A weight of zeros leaves the adapter alone: its products are fp32 on every device. */
static void adapter_of(bench *b, int64_t n, int64_t in, int64_t out, double dropout, tm__var **y) {
    tm__var *x = input(b, 2, n, in, 0);
    tm__param *w = weight(b, 2, out, in);
    memset(w->value.data, 0, tm__tensor_bytes(&w->value));
    w->trainable = false;
    b->linear.weight = *w;
    b->adapter = (tm__adapter){.rank = 5, .scale = 0.7, .dropout = dropout, .active = true};
    b->adapter.a = *fill_param(b, &b->param[b->params++], 2, 5, in, 1 / sqrt((double)in), true);
    b->adapter.b = *fill_param(b, &b->param[b->params++], 2, out, 5, 0.5, true);
    b->linear.adapters = &b->adapter;
    b->linear.adapter_count = 1;
    assert_ok(tm__op_linear(b->tape, x, &b->linear, y));
}

static void adapter_odd(bench *b, tm__var **y) {
    adapter_of(b, 37, 131, 77, 0.3, y);
}

static void adapter_long(bench *b, tm__var **y) {
    adapter_of(b, 19, 4133, 35, 0, y);
}

static void adapter_long_rows(bench *b, tm__var **y) {
    adapter_of(b, 4111, 21, 19, 0, y);
}

static void rmsnorm_odd(bench *b, tm__var **y) {
    tm__var *x = input(b, 2, 131, 77, 0);
    assert_ok(tm__op_rmsnorm(b->tape, x, weight(b, 1, 77, 1), 0, 1e-5, y));
}

static void rmsnorm_long(bench *b, tm__var **y) {
    tm__var *x = input(b, 2, 3, 4133, 0);
    assert_ok(tm__op_rmsnorm(b->tape, x, weight(b, 1, 4133, 1), 0, 1e-5, y));
}

static void rmsnorm_many_rows(bench *b, tm__var **y) {
    tm__var *x = input(b, 2, 4111, 13, 0);
    assert_ok(tm__op_rmsnorm(b->tape, x, weight(b, 1, 13, 1), 0, 1e-5, y));
}

enum { POSITIONS = 50 };

static void rope(bench *b, tm__var **y) {
    static double cosine[POSITIONS * 9], sine[POSITIONS * 9];
    static float cosine32[POSITIONS * 9], sine32[POSITIONS * 9];
    int32_t position[23];
    for (int i = 0; i < POSITIONS * 9; i++) { /* fp32's numbers on both sides */
        cosine[i] = (double)(cosine32[i] = (float)cos(0.37 * i));
        sine[i] = (double)(sine32[i] = (float)sin(0.37 * i));
    }
    for (int i = 0; i < 23; i++) position[i] = i * 7 % POSITIONS;
    static tm__rope_table wide = {cosine, sine, POSITIONS, 18}, narrow = {cosine32, sine32, POSITIONS, 18};
    tm__var *x = input(b, 3, 23, 3, 22); /* 4 of 22 dimensions stay as they are */
    assert_ok(tm__op_rope(b->tape, x, b->dev->act == TM_F64 ? &wide : &narrow, position, y));
}

static void attention_of(bench *b, int64_t tokens, int64_t heads, int64_t kv, int64_t d, int64_t window, double cap,
                         tm__var **y) {
    const int64_t start[] = {0, tokens / 3 + 1}, length[] = {tokens / 3, tokens - tokens / 3 - 3};
    const tm__attention shape = {.tokens = tokens,
                                 .heads = heads,
                                 .kv_heads = kv,
                                 .head_dim = d,
                                 .segments = 2,
                                 .start = start,
                                 .length = length,
                                 .window = window,
                                 .scale = 1 / sqrt((double)d),
                                 .soft_cap = cap};
    tm__var *q = input(b, 3, tokens, heads, d), *k = input(b, 3, tokens, kv, d), *v = input(b, 3, tokens, kv, d);
    assert_ok(tm__op_attention(b->tape, q, k, v, &shape, y));
}

static void attention_odd(bench *b, tm__var **y) {
    attention_of(b, 67, 6, 2, 14, 0, 0, y);
}

static void attention_window_cap(bench *b, tm__var **y) {
    attention_of(b, 101, 3, 3, 10, 17, 2, y);
}

static void attention_long(bench *b, tm__var **y) { /* the second document's softmax sums up to 4113 terms */
    attention_of(b, 6173, 1, 1, 6, 0, 0, y);
}

static void swiglu(bench *b, tm__var **y) {
    tm__var *gate = input(b, 2, 31, 133, 0), *up = input(b, 2, 31, 133, 0);
    assert_ok(tm__op_gated(b->tape, TM__SILU, gate, up, y));
}

static void add_and_scale(bench *b, tm__var **y) {
    tm__var *x = input(b, 2, 31, 133, 0), *z = input(b, 2, 31, 133, 0), *sum;
    assert_ok(tm__op_add(b->tape, x, z, &sum));
    assert_ok(tm__op_scale(b->tape, sum, -0.3, y));
}

static double random_weights[WEIGHTS];
static float random_weights32[WEIGHTS];

static const void *weights_for(const bench *b) {
    return b->dev->act == TM_F64 ? (const void *)random_weights : (const void *)random_weights32;
}

static void weighted_sum(bench *b, tm__var **y) {
    tm__var *x = input(b, 1, 9001, 0, 0);
    assert_ok(tm__op_weighted_sum(b->tape, x, weights_for(b), y));
}

static void tap(bench *b, tm__var **y) {
    tm__var *x = input(b, 2, 31, 133, 0);
    const tm__tap perturbed = {.perturb = weights_for(b), .extra_grad = weights_for(b)};
    assert_ok(tm__op_tap(b->tape, x, &perturbed, y));
}

/* begun: the weight's gradient is there before forward comes, which then leaves it alone. */
static void head_of(bench *b, int64_t tokens, int64_t d, int64_t vocab, int64_t chunk, bool begun, tm__var **y) {
    tm__var *hidden = input(b, 2, tokens, d, 0);
    tm__param *head = weight(b, 2, vocab, d);
    int64_t count = tokens - 2;
    int32_t *row = malloc((size_t)count * sizeof *row), *id = malloc((size_t)count * sizeof *id);
    double *each = malloc((size_t)count * sizeof *each);
    for (int64_t i = 0; i < count; i++) {
        row[i] = (int32_t)(tokens - 1 - i);
        id[i] = (int32_t)(i * 7919 % vocab);
        each[i] = 1.0 / (double)count;
    }
    const tm__head_targets targets = {count, row, id, each};
    b->tape->head_chunk_bytes = (size_t)(chunk * vocab) * tm__dtype_size(b->dev->act);
    if (!begun) tm__param_grad_zero(b->dev, head);
    assert_ok(tm__op_head_loss(b->tape, hidden, &(const tm__head){.weight = head}, &targets, NULL, y));
    free(row);
    free(id);
    free(each);
}

static void head_odd(bench *b, tm__var **y) {
    head_of(b, 39, 77, 131, 7, false, y);
}

static void head_begun(bench *b, tm__var **y) {
    head_of(b, 39, 77, 131, 7, true, y);
}

static void head_large_vocabulary(bench *b, tm__var **y) { /* dhidden sums 4133 terms, as does every softmax */
    head_of(b, 21, 35, 4133, 100, true, y);
}

static void head_many_targets(bench *b, tm__var **y) { /* dW sums 4109 terms */
    head_of(b, 4111, 17, 33, 10000, true, y);
}

static void head_long_rows(bench *b, tm__var **y) { /* logits sum 4133 terms */
    head_of(b, 13, 4133, 35, 100, true, y);
}

static const struct {
    const char *name;
    builder build;
    bool stored;   /* has weights, which may be frozen in another type */
    bool products; /* of weights: bf16 on a bf16 device */
} ops[] = {
    {"embedding", embedding, true, false},
    {"linear, odd", linear_odd, true, true},
    {"linear, one row", linear_one_row, true, true},
    {"linear, long in", linear_long_in, true, true},
    {"linear, long out", linear_long_out, true, true},
    {"linear, many rows", linear_long_rows, true, true},
    {"adapter, odd, dropout", adapter_odd, false, false},
    {"adapter, long in", adapter_long, false, false},
    {"adapter, many rows", adapter_long_rows, false, false},
    {"rmsnorm, odd", rmsnorm_odd, true, false},
    {"rmsnorm, long", rmsnorm_long, true, false},
    {"rmsnorm, many rows", rmsnorm_many_rows, true, false},
    {"rope", rope, false, false},
    {"attention, odd", attention_odd, false, false},
    {"attention, window and cap", attention_window_cap, false, false},
    {"attention, long", attention_long, false, false},
    {"swiglu", swiglu, false, false},
    {"add and scale", add_and_scale, false, false},
    {"weighted sum", weighted_sum, false, false},
    {"tap", tap, false, false},
    {"head loss, odd", head_odd, true, true},
    {"head loss, begun", head_begun, true, true},
    {"head loss, large vocabulary", head_large_vocabulary, true, true},
    {"head loss, many targets", head_many_targets, true, true},
    {"head loss, long rows", head_long_rows, true, true},
};

/* ---- running one on a device ------------------------------------------------------------------------------------- */

static void take(result *r, const bench *b, const void *data, const tm_tensor *shape) {
    size_t n = (size_t)tm__tensor_count(shape);
    double *x = malloc(n * sizeof *x);
    assert_non_null(data);
    tm__convert(x, TM_F64, data, b->dev->act, n);
    r->data[r->count] = x;
    r->n[r->count++] = n;
}

static result run(builder build, const char *device, int precision, tm_dtype stored) {
    const tm_device_options options = {.name = device, .threads = 2, .precision = precision};
    bench b = {.stored = stored};
    result r = {0};
    tm__var *y, *seeded;
    assert_ok(tm_device_open(&options, &b.dev));
    assert_ok(tm__tape_create(b.dev, &b.tape));
    b.tape->training = true;
    b.tape->dropout_seed = 9;
    build(&b, &y);
    take(&r, &b, y->value.data, &y->value);
    if (y->needs_grad) {
        tm_tensor shape = y->value;
        int64_t n = tm__tensor_count(&shape);
        void *seed = stored_as(random_weights, (size_t)TM__MIN(n, (int64_t)WEIGHTS), b.dev->act);
        assert_true(n <= WEIGHTS);
        seeded = y;
        assert_ok(tm__tape_backward(b.tape, 1, &seeded, (const void *const[]){seed}));
        free(seed);
    }
    for (size_t i = 0; i < b.inputs; i++) take(&r, &b, b.input[i]->grad, &b.input[i]->value);
    for (size_t i = 0; i < b.params; i++)
        if (b.param[i].trainable) take(&r, &b, b.param[i].grad, &b.param[i].value);
    for (size_t i = 0; i < b.inputs; i++) free(b.input[i]->value.data);
    for (size_t i = 0; i < b.params; i++) {
        free(b.param[i].value.data);
        tm__param_grad_zero(b.dev, &b.param[i]);
    }
    tm__tape_free(b.tape);
    assert_int_equal(b.dev->bytes_in_use, 0);
    tm_device_close(b.dev);
    return r;
}

static void release(result *r) {
    for (size_t i = 0; i < r->count; i++) free(r->data[i]);
    r->count = 0;
}

static const char *const isas[] = {"avx512", "avx2", "sse"};
static bool present[TM__COUNT(isas)];

static void find_instruction_sets(void) {
    for (size_t i = 0; i < TM__COUNT(isas); i++) {
        tm_device *dev = NULL;
        setenv("TEMPER_ISA", isas[i], 1);
        present[i] = tm_device_open(NULL, &dev) == TM_OK;
        if (!present[i]) printf("SKIP: %s\n", tm_error_last()->line);
        tm_device_close(dev);
    }
    unsetenv("TEMPER_ISA");
}

static void compare(size_t op, const char *isa, int precision, tm_dtype stored, const result *wanted) {
    setenv("TEMPER_ISA", isa, 1);
    result got = run(ops[op].build, "cpu", precision, stored);
    unsetenv("TEMPER_ISA");
    bool rounds = precision == TM_PRECISION_BF16 && ops[op].products;
    assert_int_equal(got.count, wanted->count);
    double worst = 0;
    for (size_t i = 0; i < got.count; i++) {
        double error = test_relative_error(got.data[i], wanted->data[i], got.n[i]), bound = rounds ? BF16 : FP32;
        if (!(error < bound))
            fail_msg("%s, %s, precision %d, weights %s: result %zu is off by %.3g", ops[op].name, isa, precision,
                     tm__dtype_name(stored), i, error);
        worst = TM__MAX(worst, error);
    }
    /* A bf16 product that is as exact as fp32 was not made of bf16 operands. */
    if (rounds && !(worst > 1e-4)) fail_msg("%s, %s: off by %.3g only", ops[op].name, isa, worst);
    release(&got);
}

static void check_ops(int precision) {
    static const tm_dtype types[] = {TM_F64, TM_F32, TM_BF16, TM_F16};
    for (size_t op = 0; op < TM__COUNT(ops); op++)
        for (size_t t = 0; t < (ops[op].stored ? TM__COUNT(types) : 1); t++) {
            result wanted = run(ops[op].build, "ref", TM_PRECISION_F64, types[t]);
            for (size_t i = 0; i < TM__COUNT(isas); i++)
                if (present[i]) compare(op, isas[i], precision, types[t], &wanted);
            release(&wanted);
        }
}

static void test_fp32(void **state) {
    (void)state;
    check_ops(TM_PRECISION_F32);
}

static void test_bf16(void **state) {
    (void)state;
    check_ops(TM_PRECISION_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_bf16)};
    tm__rng rng = tm__rng_make(8, tm__stream(TM__STREAM_TEST, 0));
    find_instruction_sets();
    for (size_t i = 0; i < WEIGHTS; i++) {
        random_weights32[i] = (float)tm__rng_normal(&rng);
        random_weights[i] = (double)random_weights32[i];
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
