/* layernorm.c: y = h * w + b with h = (x - mean) r, r = 1/sqrt(mean((x - mean)^2) + eps) per row   (Ba et al. 2016).
 *
 *   dw_j += sum_i dy_ij h_ij;   db_j += sum_i dy_ij
 *   with g = w dy:   dx_ij = r_i (g_ij - mean_k g_ik - h_ij mean_k(g_ik h_ik))
 */
#include "op/common.h"

typedef struct layernorm_node {
    tm__node base;
    tm__var *x;
    tm__param *weight, *bias;
    tm__scratch mean, rstd; /* (n) */
    int64_t n, d;
    double eps;
} layernorm_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    layernorm_node *node = (layernorm_node *)base;
    tm__param *w = node->weight, *b = node->bias;
    const void *x;
    void *dx = NULL, *dw, *db;
    bool fresh = true;
    TM__TRY(tm__tape_value(tape, node->x, &x));
    TM__TRY(tm__param_grad(tape->dev, w, &dw));
    TM__TRY(tm__param_grad(tape->dev, b, &db));
    if (node->x->needs_grad) TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return tape->dev->k->layernorm_grad(tape->dev, dx, !fresh, dw, db, base->out->grad, x, w->value.data,
                                        w->value.dtype, node->mean.data, node->rstd.data, node->n, node->d);
}

static void release(tm__tape *tape, tm__node *base) {
    layernorm_node *node = (layernorm_node *)base;
    tm__scratch_free(tape->dev, &node->mean);
    tm__scratch_free(tape->dev, &node->rstd);
}

static tm_status norm(tm__tape *tape, const layernorm_node *node, tm__var *y) {
    const tm_tensor *w = &node->weight->value, *b = &node->bias->value;
    return tape->dev->k->layernorm(tape->dev, y->value.data, node->mean.data, node->rstd.data, node->x->value.data,
                                   w->data, w->dtype, b->data, b->dtype, node->n, node->d, node->eps);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    return norm(tape, (layernorm_node *)base, base->out);
}

static tm_status run(tm__tape *tape, layernorm_node *node, tm__var *y) {
    TM__TRY(tm__scratch_alloc(tape->dev, node->n, &node->mean));
    TM__TRY(tm__scratch_alloc(tape->dev, node->n, &node->rstd));
    return norm(tape, node, y);
}

tm_status tm__op_layernorm(tm__tape *tape, tm__var *x, tm__param *weight, tm__param *bias, double eps, tm__var **y) {
    TM__NEEDS(tape, layernorm);
    TM__NEEDS_BACKWARD(tape, layernorm_grad);
    TM__TRY(tm__param_check(tape, weight, "layernorm"));
    TM__TRY(tm__param_check(tape, bias, "layernorm"));
    int64_t count = tm__tensor_count(&x->value), d = tm__tensor_count(&weight->value);
    if (d == 0 || count % d != 0 || tm__tensor_count(&bias->value) != d)
        return TM__SHAPE_ERROR("layernorm", "the input does not fit weight %s", weight->name);
    bool needs_grad = x->needs_grad || weight->trainable || bias->trainable;
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, needs_grad, y));
    layernorm_node unrecorded = {0}, *node = &unrecorded;
    if (tape->recording && needs_grad)
        TM__TRY(tm__tape_node(tape, sizeof *node, "layernorm", *y, backward, release, &node));
    x->saved |= node != &unrecorded;
    tm__node_remakes(&node->base, remake, 0, (tm__var *[TM__NODE_INPUTS]){x});
    node->x = x;
    node->weight = weight;
    node->bias = bias;
    node->n = count / d;
    node->d = d;
    node->eps = eps;
    tm_status status = run(tape, node, *y);
    release(tape, &unrecorded.base);
    return status;
}
