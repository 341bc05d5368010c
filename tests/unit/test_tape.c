/* The tape: releasing, reset, seeds, taps, misuse, allocation failures. Opening devices. */
#include "support.h"

#include "op/op.h"

enum { N = 3, D = 4, SIZE = N * D };

static tm_device *dev;
static double x_data[SIZE], w_data[D * D], w_grad[D * D], seed_a[SIZE], seed_b[SIZE];
static tm__linear linear;

static int begin(void **state) {
    (void)state;
    const tm_device_options options = {.name = "ref", .precision = TM_PRECISION_F64};
    assert_ok(tm__ref_open(&options, &dev));
    for (int i = 0; i < SIZE; i++) {
        x_data[i] = sin(i + 1);
        seed_a[i] = cos(2 * i);
        seed_b[i] = sin(3 * i);
    }
    for (int i = 0; i < D * D; i++) {
        w_data[i] = cos(i);
        w_grad[i] = 0;
    }
    linear = (tm__linear){.weight = {"w", {TM_F64, 2, {D, D}, w_data}, w_grad, true, false, TM_F64}};
    return 0;
}

static int end(void **state) {
    (void)state;
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
    return 0;
}

static tm__tape *make_tape(void) {
    tm__tape *tape;
    assert_ok(tm__tape_create(dev, &tape));
    return tape;
}

static tm_tensor x_tensor(void) {
    return (tm_tensor){TM_F64, 2, {N, D}, x_data};
}

/* first = linear(x), second = swiglu(first, x) */
static tm_status record(tm__tape *tape, bool x_grad, tm__var **x, tm__var **first, tm__var **second) {
    TM__TRY(tm__tape_input(tape, x_tensor(), x_grad, x));
    TM__TRY(tm__op_linear(tape, *x, &linear, first));
    return tm__op_gated(tape, TM__SILU, *first, *x, second);
}

/* ---- seeds ---- */

static void gradients(size_t n, bool use_first, bool use_second, double *out) {
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second, *vars[2];
    const void *seeds[2];
    assert_ok(record(tape, true, &x, &first, &second));
    size_t count = 0;
    if (use_first) {
        vars[count] = first;
        seeds[count++] = seed_a;
    }
    if (use_second) {
        vars[count] = second;
        seeds[count++] = seed_b;
    }
    assert_int_equal(count, n);
    memset(w_grad, 0, sizeof w_grad);
    assert_ok(tm__tape_backward(tape, n, vars, seeds));
    memcpy(out, x->grad, sizeof x_data);
    memcpy(out + SIZE, w_grad, sizeof w_grad);
    tm__tape_free(tape);
}

static void test_several_seeds_add_up(void **state) {
    (void)state;
    double both[SIZE + D * D], a[SIZE + D * D], b[SIZE + D * D];
    gradients(2, true, true, both);
    gradients(1, true, false, a);
    gradients(1, false, true, b);
    for (int i = 0; i < SIZE + D * D; i++) a[i] += b[i];
    assert_true(test_relative_error(both, a, SIZE + D * D) < 1e-15);
}

static void test_one_var_seeded_twice(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *y;
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    assert_ok(tm__op_scale(tape, x, 2, &y));
    tm__var *vars[] = {y, y, x};
    const void *seeds[] = {seed_a, NULL, seed_b}; /* NULL: one */
    assert_ok(tm__tape_backward(tape, 3, vars, seeds));
    for (int i = 0; i < SIZE; i++)
        assert_true(fabs(((double *)x->grad)[i] - (2 * (seed_a[i] + 1) + seed_b[i])) < 1e-15);
    tm__tape_free(tape);
}

static void test_parameter_gradients_accumulate(void **state) {
    (void)state;
    double once[D * D];
    tm__tape *tape = make_tape();
    for (int run = 0; run < 2; run++) {
        tm__var *x, *first, *second;
        assert_ok(record(tape, false, &x, &first, &second));
        assert_ok(tm__tape_backward(tape, 1, &second, NULL));
        if (run == 0) memcpy(once, w_grad, sizeof once);
        tm__tape_reset(tape);
    }
    for (int i = 0; i < D * D; i++) assert_true(w_grad[i] == 2 * once[i]);
    tm__tape_free(tape);
}

/* ---- misuse ---- */

static void test_backward_runs_once(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second, *more;
    assert_ok(record(tape, true, &x, &first, &second));
    x->keep = true;
    assert_ok(tm__tape_backward(tape, 1, &second, NULL));
    assert_int_equal(tm__tape_backward(tape, 1, &second, NULL), TM_INVALID);
    assert_int_equal(tm__op_scale(tape, x, 2, &more), TM_INVALID);
    tm__tape_reset(tape);
    assert_ok(record(tape, true, &x, &first, &second));
    assert_ok(tm__tape_backward(tape, 1, &second, NULL));
    tm__tape_free(tape);
}

static void test_nothing_to_differentiate(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second;
    linear.weight.trainable = false;
    linear.weight.grad = NULL;
    assert_ok(record(tape, false, &x, &first, &second));
    assert_false(second->needs_grad);
    assert_int_equal(tape->count, 0);
    assert_int_equal(tm__tape_backward(tape, 1, &second, NULL), TM_INVALID);
    tm__tape_reset(tape);
    tape->recording = false;
    assert_ok(record(tape, true, &x, &first, &second));
    assert_int_equal(tape->count, 0);
    assert_int_equal(tm__tape_backward(tape, 1, &second, NULL), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "recording off"));
    tm__tape_free(tape);
}

static void test_shapes_are_checked(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    double cosine[2] = {1, 1};
    const int32_t ids[] = {0, D}, below[] = {-1}, positions[] = {0, 0, 1};
    const int64_t start[] = {0, 1}, length[] = {2, 2};
    const tm__rope_table table = {.cos = cosine, .sin = cosine, .positions = 1, .rotary = 4};
    const tm__attention overlap = {
        .tokens = 3, .heads = 2, .kv_heads = 2, .head_dim = 2, .segments = 2, .start = start, .length = length};
    const tm__attention uneven = {.tokens = 3, .heads = 3, .kv_heads = 2, .head_dim = 2};
    const tm__head_targets none = {0};
    tm__var *x, *narrow, *y;
    tm_tensor cut = x_tensor(), wrong = x_tensor();
    cut.shape[1] = D - 1;
    wrong.dtype = TM_F32;
    assert_int_equal(tm__tape_input(tape, wrong, false, &x), TM_INVALID);
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    assert_ok(tm__tape_input(tape, cut, true, &narrow));
    assert_int_equal(tm__op_linear(tape, narrow, &linear, &y), TM_INVALID);
    assert_int_equal(tm__op_add(tape, x, narrow, &y), TM_INVALID);
    assert_int_equal(tm__op_gated(tape, TM__SILU, x, narrow, &y), TM_INVALID);
    assert_int_equal(tm__op_rmsnorm(tape, narrow, &linear.weight, 0, 0, &y), TM_INVALID);
    assert_int_equal(tm__op_embedding(tape, &linear.weight, ids, 2, &y), TM_INVALID);
    assert_int_equal(tm__op_embedding(tape, &linear.weight, below, 1, &y), TM_INVALID);
    assert_int_equal(tm__op_head_loss(tape, narrow, &(const tm__head){.weight = &linear.weight}, &none, NULL, &y),
                     TM_INVALID);
    assert_int_equal(tm__op_attention(tape, x, x, x, &overlap, &y), TM_INVALID);
    assert_int_equal(tm__op_attention(tape, x, x, x, &uneven, &y), TM_INVALID);
    assert_int_equal(tm__op_rope(tape, x, &table, positions, &y), TM_INVALID); /* two dimensions */
    assert_int_equal(tm__var_reshape(x, 2, (int64_t[]){N, D + 1}), TM_INVALID);
    assert_ok(tm__var_reshape(x, 3, (int64_t[]){N, 1, D}));
    assert_int_equal(tm__op_rope(tape, x, &table, positions, &y), TM_INVALID); /* position 1 of 1 */
    assert_non_null(strstr(tm_error_last()->line, "position 1"));
    linear.weight.value.dtype = TM_F32; /* trainable, but not of the device's type */
    assert_int_equal(tm__op_linear(tape, x, &linear, &y), TM_INVALID);
    tm__tape_free(tape);
}

static void test_missing_kernel_is_an_error(void **state) {
    (void)state;
    tm__kernels partial = *dev->k;
    const tm__kernels *whole = dev->k;
    tm__tape *tape = make_tape();
    tm__var *x, *y;
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    partial.gated_grad = NULL;
    dev->k = &partial;
    assert_int_equal(tm__op_gated(tape, TM__SILU, x, x, &y), TM_UNSUPPORTED);
    assert_non_null(strstr(tm_error_last()->line, "gated_grad"));
    tape->recording = false; /* forward alone does without */
    assert_ok(tm__op_gated(tape, TM__SILU, x, x, &y));
    partial.gemm = NULL;
    assert_int_equal(tm__op_linear(tape, x, &linear, &y), TM_UNSUPPORTED);
    dev->k = whole;
    tm__tape_free(tape);
}

/* ---- memory ---- */

static void test_backward_releases_what_it_passed(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second;
    assert_ok(record(tape, true, &x, &first, &second));
    assert_int_equal(dev->bytes_in_use, 2 * sizeof x_data);
    assert_ok(tm__tape_backward(tape, 1, &second, NULL));
    assert_int_equal(dev->bytes_in_use, sizeof x_data); /* the input's gradient */
    assert_null(first->value.data);
    assert_null(first->grad);
    tm__tape_reset(tape);
    assert_int_equal(dev->bytes_in_use, 0);
    assert_ok(record(tape, true, &x, &first, &second)); /* reset without backward */
    tm__tape_reset(tape);
    assert_int_equal(dev->bytes_in_use, 0);
    tm__tape_free(tape);
}

static void test_kept_vars_stay_readable(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second;
    assert_ok(record(tape, true, &x, &first, &second));
    first->keep = true;
    assert_ok(tm__tape_backward(tape, 1, &second, NULL));
    assert_non_null(first->value.data);
    for (int i = 0; i < SIZE; i++) { /* d swiglu / d gate by hand */
        double g = ((double *)first->value.data)[i], s = 1 / (1 + exp(-g));
        assert_true(fabs(((double *)first->grad)[i] - x_data[i] * s * (1 + g * (1 - s))) < 1e-15);
    }
    tm__tape_free(tape);
}

static void test_inference_holds_outputs_only(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    tm__var *x, *first, *second;
    tape->recording = false;
    assert_ok(record(tape, true, &x, &first, &second));
    assert_int_equal(dev->bytes_in_use, 2 * sizeof x_data);
    tm__tape_drop(tape, first);
    tm__tape_drop(tape, first);
    tm__tape_drop(tape, x); /* the caller's: stays */
    assert_non_null(x->value.data);
    assert_int_equal(dev->bytes_in_use, sizeof x_data);
    tape->recording = true;
    second->saved = true; /* as an op does whose backward reads it */
    tm__tape_drop(tape, second);
    assert_non_null(second->value.data);
    tm__tape_free(tape);
}

/* first = linear(x), middle = act(first), last = linear(middle), sum = last + middle; each dropped after its last use
 * or not at all. `out`: gradients of x and of the weight. */
static void drop_and_go_back(bool drops, double *out) {
    tm__tape *tape = make_tape();
    tm__var *x, *first, *middle, *last, *sum;
    const void *seed = seed_a;
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    assert_ok(tm__op_linear(tape, x, &linear, &first));
    assert_ok(tm__op_gated(tape, TM__SILU, first, NULL, &middle));
    if (drops) tm__tape_drop(tape, first);
    assert_ok(tm__op_linear(tape, middle, &linear, &last));
    assert_ok(tm__op_add(tape, last, middle, &sum));
    if (drops) {
        tm__tape_drop(tape, middle);
        tm__tape_drop(tape, last);
        assert_non_null(first->value.data); /* the activation's backward reads it */
        assert_null(middle->value.data);    /* the second weight's does too, but it can be made again */
        assert_null(last->value.data);      /* nobody does */
    }
    memset(w_grad, 0, sizeof w_grad);
    assert_ok(tm__tape_backward(tape, 1, &sum, &seed));
    memcpy(out, x->grad, sizeof x_data);
    memcpy(out + SIZE, w_grad, sizeof w_grad);
    tm__tape_free(tape);
}

static void test_dropped_values_come_again(void **state) {
    (void)state;
    double kept[SIZE + D * D], dropped[SIZE + D * D];
    drop_and_go_back(false, kept);
    drop_and_go_back(true, dropped);
    assert_memory_equal(kept, dropped, sizeof kept);
}

/* A repeated step takes every device buffer from the pool. The tape's own arena holds on to its block as well, so with
 * ops whose kernels need no memory of their own nothing at all is allocated. */
static void test_second_step_allocates_nothing(void **state) {
    (void)state;
    tm__tape *tape = make_tape();
    for (int step = 0; step < 3; step++) {
        tm__var *x, *gated, *sum, *loss;
        if (step > 0) tm__alloc_fail_at(1, true);
        assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
        assert_ok(tm__op_gated(tape, TM__SILU, x, x, &gated));
        assert_ok(tm__op_add(tape, gated, x, &sum));
        assert_ok(tm__op_weighted_sum(tape, sum, seed_a, &loss));
        assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
        tm__tape_reset(tape);
        tm__alloc_fail_at(0, false);
    }
    tm__tape_free(tape);
}

/* ---- taps ---- */

static void test_tap(void **state) {
    (void)state;
    double value[SIZE], grad[SIZE], plain[SIZE];
    const tm__tap tap = {.perturb = seed_a, .extra_grad = seed_b, .value = value, .grad = grad};
    tm__tape *tape = make_tape();
    tm__var *x, *y, *z;
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    assert_ok(tm__op_tap(tape, x, &tap, &y));
    assert_ok(tm__op_scale(tape, y, 3, &z));
    for (int i = 0; i < SIZE; i++) assert_true(value[i] == x_data[i] + seed_a[i]);
    assert_memory_equal(y->value.data, value, sizeof value);
    assert_ok(tm__tape_backward(tape, 1, &z, NULL));
    for (int i = 0; i < SIZE; i++) {
        assert_true(grad[i] == 3);
        plain[i] = 3 + seed_b[i];
    }
    assert_memory_equal(x->grad, plain, sizeof plain);
    tm__tape_free(tape);
}

static void test_tap_without_gradient_from_behind(void **state) {
    (void)state;
    double grad[SIZE], zero[SIZE] = {0};
    memset(grad, 1, sizeof grad);
    const tm__tap tap = {.extra_grad = seed_b, .grad = grad};
    tm__tape *tape = make_tape();
    tm__var *x, *y;
    assert_ok(tm__tape_input(tape, x_tensor(), true, &x));
    assert_ok(tm__op_tap(tape, x, &tap, &y));
    assert_ok(tm__tape_backward(tape, 0, NULL, NULL));
    assert_memory_equal(grad, zero, sizeof zero);
    assert_memory_equal(x->grad, seed_b, sizeof seed_b);
    tm__tape_free(tape);
}

/* A gradient can be read at a tap although nothing before it is trained. */
static void test_tap_behind_a_frozen_input(void **state) {
    (void)state;
    double grad[SIZE];
    const tm__tap tap = {.grad = grad};
    tm__tape *tape = make_tape();
    tm__var *x, *y, *z;
    assert_ok(tm__tape_input(tape, x_tensor(), false, &x));
    assert_ok(tm__op_tap(tape, x, &tap, &y));
    assert_ok(tm__op_scale(tape, y, 3, &z));
    assert_ok(tm__tape_backward(tape, 1, &z, NULL));
    for (int i = 0; i < SIZE; i++) assert_true(grad[i] == 3);
    assert_null(x->grad);
    tm__tape_free(tape);
}

/* ---- allocation failures ---- */

typedef struct graph {
    tm__param embed, norm;
    tm__linear proj;
    tm__adapter lora;
} graph;

static tm_status block(tm__tape *tape, graph *g, tm__var *x, tm__var **y) {
    static const int64_t start[] = {0}, length[] = {N};
    const tm__attention shape = {.tokens = N,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = 2,
                                 .segments = 1,
                                 .start = start,
                                 .length = length,
                                 .scale = 1};
    const tm__tap tap = {.perturb = seed_a};
    const int32_t position[] = {0, 1, 2};
    static double angles[N] = {0.1, 0.2, 0.3};
    static const tm__rope_table table = {.cos = angles, .sin = angles, .positions = N, .rotary = 2};
    tm__var *normed, *p, *turned, *mixed, *tapped;
    TM__TRY(tm__op_rmsnorm(tape, x, &g->norm, 0, 1e-5, &normed));
    TM__TRY(tm__op_linear(tape, normed, &g->proj, &p));
    TM__TRY(tm__var_reshape(p, 3, (int64_t[]){N, 2, 2}));
    TM__TRY(tm__op_rope(tape, p, &table, position, &turned));
    TM__TRY(tm__op_attention(tape, turned, p, p, &shape, &mixed));
    TM__TRY(tm__op_tap(tape, mixed, &tap, &tapped));
    TM__TRY(tm__op_add(tape, tapped, x, y));
    tm__var *const done[] = {normed, p, turned, mixed, tapped};
    for (size_t i = 0; i < TM__COUNT(done); i++) tm__tape_drop(tape, done[i]);
    return TM_OK;
}

static tm_status whole_step(graph *g, int *backward_failures) {
    const int32_t ids[] = {1, 0, 1}, rows[] = {0, 2}, targets[] = {1, 3};
    const double weight[] = {0.5, 0.5};
    const tm__head_targets labels = {2, rows, targets, weight};
    tm__tape *tape = NULL;
    tm__var *x, *y, *gated, *loss;
    tm_status status;
    TM__TRY(tm__tape_create(dev, &tape));
    tape->training = tape->lean = true;
    tape->head_chunk_bytes = D * sizeof(double);
    TM__TRY_GOTO(status, tm__op_embedding(tape, &g->embed, ids, N, &x), done);
    TM__TRY_GOTO(status, block(tape, g, x, &y), done);
    TM__TRY_GOTO(status, tm__op_gated(tape, TM__SILU, y, x, &gated), done);
    TM__TRY_GOTO(status, tm__op_head_loss(tape, gated, &(const tm__head){.weight = &g->embed}, &labels, NULL, &loss),
                 done);
    status = tm__tape_backward(tape, 1, &loss, NULL);
    if (status != TM_OK) ++*backward_failures;
done:
    tm__tape_free(tape);
    tm__param_grad_zero(dev, &g->embed);
    return status;
}

static tm_status step_failing_at(graph *g, long n, bool sticky, int *backward_failures) {
    tm__pool_trim(dev);
    tm__alloc_fail_at(n, sticky);
    tm_status status = whole_step(g, backward_failures);
    tm__alloc_fail_at(0, false);
    assert_true(n < 2000 && (status == TM_OK || status == TM_NO_MEMORY));
    assert_int_equal(dev->bytes_in_use, 0);
    return status;
}

static void test_every_allocation_may_fail(void **state) {
    (void)state;
    double grads[5][D * D] = {{0}};
    graph g = {
        .embed = {"embed", {TM_F64, 2, {D, D}, w_data}, NULL, true, false, TM_F64},
        .norm = {"norm", {TM_F64, 1, {D}, w_data}, grads[1], true, false, TM_F64},
        .proj = {.weight = {"proj", {TM_F64, 2, {D, D}, w_data}, grads[2], true, false, TM_F64},
                 .adapters = &g.lora,
                 .adapter_count = 1},
        .lora = {.a = {"a", {TM_F64, 2, {1, D}, w_data}, grads[3], true, false, TM_F64},
                 .b = {"b", {TM_F64, 2, {D, 1}, w_data}, grads[4], true, false, TM_F64},
                 .rank = 1,
                 .scale = 1,
                 .dropout = 0.5,
                 .active = true},
    };
    /* All allocations from the n-th on fail, until none is left to fail; then each of them alone. */
    long total = 0;
    int backward_failures = 0;
    while (step_failing_at(&g, total + 1, true, &backward_failures) != TM_OK) total++;
    assert_true(total > 30 && backward_failures > 5);
    for (long n = 1; n <= total; n++) step_failing_at(&g, n, false, &backward_failures);
}

/* ---- opening devices ---- */

static void test_device_options(void **state) {
    (void)state;
    tm_device *opened = NULL;
    const tm_device_options unknown = {.name = "tpu"}, wide_cpu = {.name = "cpu", .precision = TM_PRECISION_F64};
    const tm_device_options bf16_ref = {.name = "ref", .precision = TM_PRECISION_BF16};
    const tm_device_options threads = {.name = "ref", .threads = 1025}, precision = {.name = "ref", .precision = 9};
    assert_int_equal(tm_device_open(&unknown, &opened), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "tpu"));
    assert_int_equal(tm_device_open(&wide_cpu, &opened), TM_UNSUPPORTED);
    assert_int_equal(tm_device_open(&bf16_ref, &opened), TM_UNSUPPORTED);
    assert_int_equal(tm_device_open(&threads, &opened), TM_INVALID);
    assert_int_equal(tm_device_open(&precision, &opened), TM_INVALID);
    assert_null(opened);
    tm_device_options parsed;
    tm_options_default(tm_device_option_table, &parsed);
    assert_string_equal(parsed.name, "cpu");
    assert_true(parsed.threads == 0 && parsed.precision == TM_PRECISION_AUTO);
    assert_ok(tm_options_set(tm_device_option_table, &parsed, "device", "ref"));
    assert_ok(tm_options_set(tm_device_option_table, &parsed, "precision", "fp64"));
    assert_ok(tm_device_open(&parsed, &opened));
    assert_string_equal(tm_device_name(opened), "ref");
    assert_string_equal(tm_device_precision(opened), "fp64");
    assert_string_equal(tm_device_instruction_set(opened), "c");
    assert_int_equal(tm_device_threads(opened), 1);
    tm_device_close(opened);
    const tm_device_options narrow = {.name = "ref"};
    assert_ok(tm_device_open(&narrow, &opened));
    assert_string_equal(tm_device_precision(opened), "fp32");
    tm_device_close(opened);
    tm_device_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_several_seeds_add_up, begin, end),
        cmocka_unit_test_setup_teardown(test_one_var_seeded_twice, begin, end),
        cmocka_unit_test_setup_teardown(test_parameter_gradients_accumulate, begin, end),
        cmocka_unit_test_setup_teardown(test_backward_runs_once, begin, end),
        cmocka_unit_test_setup_teardown(test_nothing_to_differentiate, begin, end),
        cmocka_unit_test_setup_teardown(test_shapes_are_checked, begin, end),
        cmocka_unit_test_setup_teardown(test_missing_kernel_is_an_error, begin, end),
        cmocka_unit_test_setup_teardown(test_backward_releases_what_it_passed, begin, end),
        cmocka_unit_test_setup_teardown(test_kept_vars_stay_readable, begin, end),
        cmocka_unit_test_setup_teardown(test_inference_holds_outputs_only, begin, end),
        cmocka_unit_test_setup_teardown(test_dropped_values_come_again, begin, end),
        cmocka_unit_test_setup_teardown(test_second_step_allocates_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_tap, begin, end),
        cmocka_unit_test_setup_teardown(test_tap_without_gradient_from_behind, begin, end),
        cmocka_unit_test_setup_teardown(test_tap_behind_a_frozen_input, begin, end),
        cmocka_unit_test_setup_teardown(test_every_allocation_may_fail, begin, end),
        cmocka_unit_test_setup_teardown(test_device_options, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
