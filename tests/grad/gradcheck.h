/* gradcheck.h: compares the gradients of a recorded function with central differences, on device ref in fp64.
 *
 * A check owns named slots of numbers (inputs and parameters) and a function that records y from them. The scalar that
 * is differentiated is sum(y * weight) with random weights. Every element of every slot is moved by +-h, and all of
 * them together along one random direction.
 *
 * h = 1e-5 leaves a truncation error near h^2 = 1e-10 and a rounding error near 1e-16 / h = 1e-11, relative to values
 * of order one: both far below the tolerance of 1e-6, while a wrong formula is off by far more.
 */
#ifndef TM_GRADCHECK_H
#define TM_GRADCHECK_H

#include "support.h"

#include "op/op.h"

enum { GRAD_SLOTS = 24, GRAD_MAX = 4096 };
#define GRAD_STEP 1e-5
#define GRAD_TOLERANCE 1e-6

typedef struct gradcheck gradcheck;

typedef struct grad_slot {
    const char *name;
    double *value, *grad; /* grad: analytic */
    size_t n;
    tm_tensor shape;  /* data is `value` */
    tm__param *param; /* NULL: an input */
    tm__var *var;     /* of an input: in the current recording */
} grad_slot;

struct gradcheck {
    tm_device *dev;
    tm__rng rng;
    grad_slot slots[GRAD_SLOTS];
    size_t count;
    tm_status (*build)(tm__tape *tape, gradcheck *check, tm__var **y);
    void *ctx;
    bool training;
    bool begun; /* the parameters' gradients are there, and zero, before forward; else they do not exist yet */
    size_t head_chunk_bytes;
    double corrupt; /* relative error put into one analytic element: the check must then fail */
    double weight[GRAD_MAX];
};

static inline tm_device *grad_device(void) {
    tm_device *dev;
    const tm_device_options options = {.name = "ref", .precision = TM_PRECISION_F64};
    assert_ok(tm__ref_open(&options, &dev));
    return dev;
}

static inline void grad_begin(gradcheck *check, uint64_t seed) {
    memset(check, 0, sizeof *check);
    check->dev = grad_device();
    check->rng = tm__rng_make(seed, tm__stream(TM__STREAM_TEST, 0));
    for (size_t i = 0; i < GRAD_MAX; i++) check->weight[i] = tm__rng_normal(&check->rng);
}

static inline void grad_end(gradcheck *check) {
    for (size_t i = 0; i < check->count; i++) {
        free(check->slots[i].value);
        free(check->slots[i].grad);
    }
    assert_int_equal(check->dev->bytes_in_use, 0);
    tm_device_close(check->dev);
}

static inline double *grad_random(tm__rng *rng, size_t n) {
    double *data = malloc((n + 1) * sizeof *data);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++) data[i] = tm__rng_normal(rng);
    return data;
}

/* A new slot of random numbers; returns its index. */
static inline size_t grad_input(gradcheck *check, const char *name, int ndim, const int64_t *shape) {
    grad_slot *slot = &check->slots[check->count];
    assert_true(check->count < GRAD_SLOTS);
    slot->name = name;
    slot->shape = (tm_tensor){.dtype = TM_F64, .ndim = ndim};
    for (int i = 0; i < ndim; i++) slot->shape.shape[i] = shape[i];
    slot->n = (size_t)tm__tensor_count(&slot->shape);
    slot->value = grad_random(&check->rng, slot->n);
    slot->grad = calloc(slot->n + 1, sizeof *slot->grad);
    slot->shape.data = slot->value;
    return check->count++;
}

/* Fills `param`, trainable, and makes a slot of it. */
static inline size_t grad_param(gradcheck *check, tm__param *param, char *name, int ndim, const int64_t *shape) {
    size_t index = grad_input(check, name, ndim, shape);
    grad_slot *slot = &check->slots[index];
    *param = (tm__param){.name = name, .value = slot->shape, .grad = slot->grad, .trainable = true};
    slot->param = param;
    return index;
}

/* For build: the var of an input slot in this recording. */
static inline tm_status grad_var(tm__tape *tape, gradcheck *check, size_t index, tm__var **var) {
    TM__TRY(tm__tape_input(tape, check->slots[index].shape, true, var));
    check->slots[index].var = *var;
    return TM_OK;
}

static inline tm__tape *grad_tape(const gradcheck *check) {
    tm__tape *tape;
    assert_ok(tm__tape_create(check->dev, &tape));
    tape->training = check->training;
    tape->dropout_seed = 11;
    tape->head_chunk_bytes = check->head_chunk_bytes;
    return tape;
}

static inline double grad_value(gradcheck *check) {
    tm__tape *tape = grad_tape(check);
    tm__var *y, *loss;
    tape->recording = false;
    assert_ok(check->build(tape, check, &y));
    assert_ok(tm__op_weighted_sum(tape, y, check->weight, &loss));
    double value = *(double *)loss->value.data;
    tm__tape_free(tape);
    return value;
}

static inline void grad_analytic(gradcheck *check) {
    tm__tape *tape = grad_tape(check);
    tm__var *y, *loss;
    for (size_t i = 0; i < check->count; i++) {
        grad_slot *slot = &check->slots[i];
        memset(slot->grad, 0, slot->n * sizeof(double));
        if (slot->param) slot->param->grad = check->begun && slot->param->trainable ? slot->grad : NULL;
    }
    assert_ok(check->build(tape, check, &y));
    assert_true(tm__tensor_count(&y->value) <= GRAD_MAX);
    assert_ok(tm__op_weighted_sum(tape, y, check->weight, &loss));
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    for (size_t i = 0; i < check->count; i++) {
        grad_slot *slot = &check->slots[i];
        const void *grad = slot->param ? slot->param->grad : slot->var->grad;
        if (grad && grad != slot->grad) memcpy(slot->grad, grad, slot->n * sizeof(double));
        if (slot->param && grad != slot->grad) tm__param_grad_zero(check->dev, slot->param);
    }
    tm__tape_free(tape);
    if (check->corrupt != 0) check->slots[0].grad[0] *= 1 + check->corrupt;
}

static inline bool grad_close_to(const char *what, const double *analytic, const double *numeric, size_t n) {
    double largest = 0, off = 0, error = test_relative_error(analytic, numeric, n);
    for (size_t i = 0; i < n; i++) {
        largest = TM__MAX(largest, fabs(numeric[i]));
        off = TM__MAX(off, fabs(analytic[i] - numeric[i]));
    }
    bool close = error < GRAD_TOLERANCE && off <= GRAD_TOLERANCE * largest;
    if (!close) printf("gradient of %s: relative error %.3g, largest difference %.3g\n", what, error, off);
    return close;
}

static inline bool grad_elements(gradcheck *check, grad_slot *slot) {
    double *numeric = calloc(slot->n + 1, sizeof *numeric);
    for (size_t i = 0; i < slot->n; i++) {
        double kept = slot->value[i];
        slot->value[i] = kept + GRAD_STEP;
        double above = grad_value(check);
        slot->value[i] = kept - GRAD_STEP;
        double below = grad_value(check);
        slot->value[i] = kept;
        numeric[i] = (above - below) / (2 * GRAD_STEP);
    }
    bool close = grad_close_to(slot->name, slot->grad, numeric, slot->n);
    free(numeric);
    return close;
}

/* Values are computed from the kept ones, so that they come back exactly as they were. */
static inline void grad_move(gradcheck *check, double *const *kept, double *const *direction, double step) {
    for (size_t i = 0; i < check->count; i++)
        for (size_t j = 0; j < check->slots[i].n; j++) check->slots[i].value[j] = kept[i][j] + step * direction[i][j];
}

static inline bool grad_direction(gradcheck *check) {
    double *direction[GRAD_SLOTS], *kept[GRAD_SLOTS], analytic = 0, numeric;
    for (size_t i = 0; i < check->count; i++) {
        size_t n = check->slots[i].n;
        direction[i] = grad_random(&check->rng, n);
        kept[i] = grad_random(&check->rng, n);
        memcpy(kept[i], check->slots[i].value, n * sizeof(double));
        for (size_t j = 0; j < n; j++) analytic += check->slots[i].grad[j] * direction[i][j];
    }
    grad_move(check, kept, direction, GRAD_STEP);
    numeric = grad_value(check);
    grad_move(check, kept, direction, -GRAD_STEP);
    numeric = (numeric - grad_value(check)) / (2 * GRAD_STEP);
    grad_move(check, kept, direction, 0);
    for (size_t i = 0; i < check->count; i++) {
        free(direction[i]);
        free(kept[i]);
    }
    return grad_close_to("a random direction", &analytic, &numeric, 1);
}

static inline bool grad_agrees(gradcheck *check) {
    grad_analytic(check);
    bool close = true;
    for (size_t i = 0; i < check->count; i++) close &= grad_elements(check, &check->slots[i]);
    return grad_direction(check) && close;
}

#endif
