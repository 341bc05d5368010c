/* linear.c: y = x W^T + b + sum over active adapters of s * dropout(x) A^T B^T   (LoRA: Hu et al. 2021).
 *
 *   dx = dy W;   dW += dy^T x;   db += column sums of dy
 *   adapter, with x' = dropout(x), u = x' A^T:   dB += s dy^T u;   du = s dy B;   dA += du^T x';   dx += mask(du A)
 *
 * A frozen weight computes no dW. u (n,rank) is kept for dB, unless the tape is lean; x' is computed again from the
 * dropout stream's position, since it is as large as x. Adapter products are always exact (fp32): an update of theirs
 * is smaller than bf16's spacing.
 */
#include "op/common.h"

typedef struct adapter_use {
    size_t index; /* into linear->adapters: the array may have moved since */
    bool drops;
    uint64_t stream; /* of its dropout */
    tm__scratch u;   /* (n,rank); kept only if B is trained and the tape not lean */
} adapter_use;

typedef struct linear_node {
    tm__node base;
    tm__var *x;
    tm__linear *linear;
    int64_t n;
    uint64_t seed;
    adapter_use *uses;
    size_t use_count;
} linear_node;

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* `*masked` is x itself without dropout, else scratch memory. */
static tm_status masked_input(tm__tape *tape, const tm__var *x, const tm__adapter *adapter, const adapter_use *use,
                              uint64_t seed, tm__scratch *scratch, const void **masked) {
    tm_device *dev = tape->dev;
    int64_t count = tm__tensor_count(&x->value);
    *masked = x->value.data;
    if (!use->drops) return TM_OK;
    TM__NEEDS(tape, dropout);
    TM__TRY(tm__scratch_alloc(dev, count, scratch));
    *masked = scratch->data;
    return dev->k->dropout(dev, scratch->data, false, x->value.data, count, adapter->dropout, seed, use->stream);
}

/* u = x' A^T, unless `use` has it. */
static tm_status narrow(tm__tape *tape, const tm__var *x, const tm__adapter *adapter, adapter_use *use, int64_t n,
                        uint64_t seed) {
    tm__scratch dropped = {0};
    const void *masked;
    tm_status status;
    if (use->u.data) return TM_OK;
    TM__TRY_GOTO(status, masked_input(tape, x, adapter, use, seed, &dropped, &masked), done);
    TM__TRY_GOTO(status, tm__scratch_alloc(tape->dev, n * adapter->rank, &use->u), done);
    status = tm__product(tape, n, adapter->rank, adapter->a.value.shape[1], tm__plain(tape, masked),
                         tm__weight_transposed(&adapter->a), use->u.data, 1, TM__PRODUCT_EXACT | TM__PRODUCT_FORWARD);
done:
    tm__scratch_free(tape->dev, &dropped);
    return status;
}

/* y += s x' A^T B^T; leaves u in `use`. */
static tm_status adapter_forward(tm__tape *tape, const tm__var *x, const tm__adapter *adapter, adapter_use *use,
                                 int64_t n, uint64_t seed, void *y) {
    TM__TRY(narrow(tape, x, adapter, use, n, seed));
    return tm__product(tape, n, adapter->b.value.shape[0], adapter->rank, tm__plain(tape, use->u.data),
                       tm__weight_transposed(&adapter->b), y, adapter->scale,
                       TM__PRODUCT_ADD | TM__PRODUCT_EXACT | TM__PRODUCT_FORWARD);
}

/* dA (rank,in) += du^T x' */
static tm_status adapter_grad_a(tm__tape *tape, const linear_node *node, tm__adapter *adapter, const adapter_use *use,
                                const void *du, int64_t in) {
    tm__scratch dropped = {0};
    const void *masked;
    void *da;
    TM__TRY(tm__param_grad(tape->dev, &adapter->a, &da));
    tm_status status = masked_input(tape, node->x, adapter, use, node->seed, &dropped, &masked);
    if (status == TM_OK)
        status = tm__product(tape, adapter->rank, in, node->n, tm__transposed(tape, du), tm__plain(tape, masked), da, 1,
                             TM__PRODUCT_ADD | TM__PRODUCT_EXACT);
    tm__scratch_free(tape->dev, &dropped);
    return status;
}

/* dx (n,in) += mask(du A); dx holds the weight's share already. */
static tm_status adapter_grad_x(tm__tape *tape, const linear_node *node, const tm__adapter *adapter,
                                const adapter_use *use, const void *du, int64_t in) {
    tm_device *dev = tape->dev;
    tm__scratch dense = {0};
    tm_status status = TM_OK;
    if (use->drops) TM__TRY(tm__scratch_alloc(dev, node->n * in, &dense));
    status =
        tm__product(tape, node->n, in, adapter->rank, tm__plain(tape, du), tm__weight(&adapter->a),
                    use->drops ? dense.data : node->x->grad, 1, (use->drops ? 0 : TM__PRODUCT_ADD) | TM__PRODUCT_EXACT);
    if (status == TM_OK && use->drops)
        status = dev->k->dropout(dev, node->x->grad, true, dense.data, node->n * in, adapter->dropout, node->seed,
                                 use->stream);
    tm__scratch_free(dev, &dense);
    return status;
}

static tm_status adapter_backward(tm__tape *tape, const linear_node *node, adapter_use *use, const void *dy, int64_t in,
                                  int64_t out) {
    tm_device *dev = tape->dev;
    tm__adapter *adapter = &node->linear->adapters[use->index];
    void *db;
    TM__TRY(tm__param_grad(dev, &adapter->b, &db));
    if (db) TM__TRY(narrow(tape, node->x, adapter, use, node->n, node->seed));
    if (db)
        TM__TRY(tm__product(tape, out, adapter->rank, node->n, tm__transposed(tape, dy), tm__plain(tape, use->u.data),
                            db, adapter->scale, TM__PRODUCT_ADD | TM__PRODUCT_EXACT));
    if (!adapter->a.trainable && !node->x->needs_grad) return TM_OK;
    tm__scratch du = {0};
    TM__TRY(tm__scratch_alloc(dev, node->n * adapter->rank, &du));
    tm_status status = tm__product(tape, node->n, adapter->rank, out, tm__plain(tape, dy), tm__weight(&adapter->b),
                                   du.data, adapter->scale, TM__PRODUCT_EXACT);
    if (status == TM_OK && adapter->a.trainable) status = adapter_grad_a(tape, node, adapter, use, du.data, in);
    if (status == TM_OK && node->x->needs_grad) status = adapter_grad_x(tape, node, adapter, use, du.data, in);
    tm__scratch_free(dev, &du);
    return status;
}

/* ---- the op ------------------------------------------------------------------------------------------------------ */

static tm_status backward(tm__tape *tape, tm__node *base) {
    linear_node *node = (linear_node *)base;
    tm_device *dev = tape->dev;
    tm__linear *linear = node->linear;
    int64_t out = linear->weight.value.shape[0], in = linear->weight.value.shape[1];
    const void *dy = base->out->grad, *x;
    void *dw, *db;
    if (node->x->saved) TM__TRY(tm__tape_value(tape, node->x, &x));
    if (node->x->needs_grad) {
        void *dx;
        bool fresh;
        TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
        TM__TRY(tm__product(tape, node->n, in, out, tm__plain(tape, dy), tm__weight(&linear->weight), dx, 1,
                            (fresh ? 0 : TM__PRODUCT_ADD)));
    }
    TM__TRY(tm__param_grad(dev, &linear->weight, &dw));
    TM__TRY(tm__param_grad(dev, &linear->bias, &db));
    if (dw)
        TM__TRY(tm__product(tape, out, in, node->n, tm__transposed(tape, dy), tm__plain(tape, node->x->value.data), dw,
                            1, TM__PRODUCT_ADD));
    if (db) TM__TRY(dev->k->bias_grad(dev, db, dy, node->n, out));
    for (size_t i = 0; i < node->use_count; i++) TM__TRY(adapter_backward(tape, node, &node->uses[i], dy, in, out));
    return TM_OK;
}

static tm_status product(tm__tape *tape, const tm__var *x, tm__linear *linear, void *y, tm__gemm *g) {
    const tm_tensor *w = &linear->weight.value;
    *g = tm__product_of(tape, x->value.shape[0], w->shape[0], w->shape[1], tm__plain(tape, x->value.data),
                        tm__weight_transposed(&linear->weight), y, 1, TM__PRODUCT_FORWARD);
    return tm__param_int8(tape, &linear->weight, &g->b_int8);
}

static tm_status add_bias(tm__tape *tape, const tm__linear *linear, int64_t n, void *y) {
    const tm_tensor *bias = &linear->bias.value;
    if (!bias->data) return TM_OK;
    return tape->dev->k->add_bias(tape->dev, y, bias->data, bias->dtype, n, linear->weight.value.shape[0]);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    linear_node *node = (linear_node *)base;
    void *y = base->out->value.data;
    tm__gemm g;
    TM__TRY(product(tape, node->x, node->linear, y, &g));
    TM__TRY(tape->dev->k->gemm(tape->dev, &g));
    TM__TRY(add_bias(tape, node->linear, node->n, y));
    for (size_t i = 0; i < node->use_count; i++) {
        adapter_use *use = &node->uses[i], passing = *use;
        const tm__adapter *adapter = &node->linear->adapters[use->index];
        tm_status status = adapter_forward(tape, node->x, adapter, &passing, node->n, node->seed, y);
        if (!use->u.data) tm__scratch_free(tape->dev, &passing.u);
        TM__TRY(status);
    }
    return TM_OK;
}

static void release(tm__tape *tape, tm__node *base) {
    linear_node *node = (linear_node *)base;
    for (size_t i = 0; i < node->use_count; i++) tm__scratch_free(tape->dev, &node->uses[i].u);
}

static tm_status check_adapter(const tm__tape *tape, const tm__adapter *adapter, int64_t in, int64_t out) {
    const tm_tensor *a = &adapter->a.value, *b = &adapter->b.value;
    TM__TRY(tm__param_check(tape, &adapter->a, "linear"));
    TM__TRY(tm__param_check(tape, &adapter->b, "linear"));
    if (a->ndim != 2 || b->ndim != 2 || a->shape[0] != adapter->rank || b->shape[1] != adapter->rank ||
        a->shape[1] != in || b->shape[0] != out)
        return TM__SHAPE_ERROR("linear", "adapter %s does not fit a weight of %lld x %lld", adapter->a.name,
                               (long long)out, (long long)in);
    if (!(adapter->dropout >= 0 && adapter->dropout < 1))
        return TM__SHAPE_ERROR("linear", "adapter %s: a dropout of %g", adapter->a.name, adapter->dropout);
    return TM_OK;
}

/* Checks shapes; counts active adapters; tells whether anything needs a gradient. */
static tm_status check(const tm__tape *tape, const tm__var *x, const tm__linear *linear, size_t *active, bool *grad) {
    const tm_tensor *w = &linear->weight.value;
    TM__TRY(tm__param_check(tape, &linear->weight, "linear"));
    if (w->ndim != 2 || x->value.ndim < 1 || tm__tensor_count(&x->value) != x->value.shape[0] * w->shape[1])
        return TM__SHAPE_ERROR("linear", "the input does not fit weight %s", linear->weight.name);
    *active = 0;
    *grad = x->needs_grad || linear->weight.trainable;
    if (linear->bias.value.data) {
        TM__TRY(tm__param_check(tape, &linear->bias, "linear"));
        if (tm__tensor_count(&linear->bias.value) != w->shape[0])
            return TM__SHAPE_ERROR("linear", "bias %s does not fit its weight", linear->bias.name);
        *grad |= linear->bias.trainable;
    }
    for (size_t i = 0; i < linear->adapter_count; i++) {
        const tm__adapter *adapter = &linear->adapters[i];
        if (!adapter->active) continue;
        TM__TRY(check_adapter(tape, adapter, w->shape[1], w->shape[0]));
        *grad |= adapter->a.trainable || adapter->b.trainable;
        ++*active;
    }
    return TM_OK;
}

/* `node` NULL: nothing is kept. */
static tm_status run_adapters(tm__tape *tape, tm__var *x, tm__linear *linear, linear_node *node, int64_t n, void *y) {
    for (size_t i = 0; i < linear->adapter_count; i++) {
        const tm__adapter *adapter = &linear->adapters[i];
        if (!adapter->active) continue;
        adapter_use use = {.index = i, .drops = tape->training && adapter->dropout > 0};
        if (use.drops) use.stream = tape->dropout_stream++;
        tm_status status = adapter_forward(tape, x, adapter, &use, n, tape->dropout_seed, y);
        if (status != TM_OK || !node || !adapter->b.trainable || tape->lean) tm__scratch_free(tape->dev, &use.u);
        TM__TRY(status);
        if (node) node->uses[node->use_count++] = use;
    }
    return TM_OK;
}

/* Checks one of several linears; y (n, out) and the product that fills it. */
static tm_status begin(tm__tape *tape, tm__var *x, tm__linear *linear, size_t *active, bool *needs_grad, tm__var **y,
                       tm__gemm *g) {
    TM__TRY(check(tape, x, linear, active, needs_grad));
    const tm_tensor *w = &linear->weight.value;
    int64_t n = x->value.shape[0];
    if (linear->watch) TM__TRY(linear->watch(linear->watch_user, x->value.data, n));
    TM__TRY(tm__tape_output(tape, 2, (int64_t[]){n, w->shape[0]}, *needs_grad, y));
    return product(tape, x, linear, (*y)->value.data, g);
}

/* What follows the product: bias, node, adapters. */
static tm_status complete(tm__tape *tape, tm__var *x, tm__linear *linear, size_t active, bool needs_grad, tm__var *y) {
    int64_t n = x->value.shape[0];
    if (linear->bias.value.data) {
        TM__NEEDS(tape, add_bias);
        TM__NEEDS_BACKWARD(tape, bias_grad);
    }
    TM__TRY(add_bias(tape, linear, n, y->value.data));
    linear_node *node = NULL;
    if (tape->recording && needs_grad) {
        TM__TRY(tm__tape_node(tape, sizeof *node, "linear", y, backward, release, &node));
        x->saved |= linear->weight.trainable || active > 0;
        node->x = x;
        node->linear = linear;
        node->n = n;
        node->seed = tape->dropout_seed;
        tm__node_remakes(&node->base, remake, (double)n * (double)tm__tensor_count(&linear->weight.value),
                         (tm__var *[TM__NODE_INPUTS]){x});
        if (active > 0 && !(node->uses = tm__arena_alloc(&tape->host, active, sizeof *node->uses)))
            return tm__fail_memory();
    }
    return run_adapters(tape, x, linear, node, n, y->value.data);
}

tm_status tm__op_linears(tm__tape *tape, tm__var *x, tm__linear *const *linears, int64_t count, tm__var **const *y) {
    tm_device *dev = tape->dev;
    size_t active[TM__LINEARS_TOGETHER] = {0};
    bool needs_grad[TM__LINEARS_TOGETHER] = {false};
    tm__gemm products[TM__LINEARS_TOGETHER];
    assert(count > 0 && count <= TM__LINEARS_TOGETHER);
    TM__NEEDS(tape, gemm);
    TM__NEEDS(tape, gemms);
    for (int64_t i = 0; i < count; i++)
        TM__TRY(begin(tape, x, linears[i], &active[i], &needs_grad[i], y[i], &products[i]));
    TM__TRY(count == 1 ? dev->k->gemm(dev, products) : dev->k->gemms(dev, products, count));
    for (int64_t i = 0; i < count; i++) TM__TRY(complete(tape, x, linears[i], active[i], needs_grad[i], *y[i]));
    return TM_OK;
}

tm_status tm__op_linear(tm__tape *tape, tm__var *x, tm__linear *linear, tm__var **y) {
    return tm__op_linears(tape, x, (tm__linear *const[]){linear}, 1, (tm__var * *const[]){y});
}
