/* rmsnorm.c: y = x * r * w with r = 1/sqrt(mean(x^2) + eps) per row   (Zhang & Sennrich 2019); w = shift + weight.
 *
 *   dw_j += sum_i dy_ij x_ij r_i;   dx_ij = r_i w_j dy_ij - x_ij r_i^3 / d * sum_k w_k dy_ik x_ik
 */
#include "op/common.h"

typedef struct rmsnorm_node {
    tm__node base;
    tm__var *x;
    tm__param *weight;
    tm__scratch rstd; /* (n) */
    int64_t n, d;
    double shift, eps;
} rmsnorm_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    rmsnorm_node *node = (rmsnorm_node *)base;
    tm__param *w = node->weight;
    const void *x;
    void *dx = NULL, *dw;
    bool fresh = true;
    TM__TRY(tm__tape_value(tape, node->x, &x));
    TM__TRY(tm__param_grad(tape->dev, w, &dw));
    if (node->x->needs_grad) TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return tape->dev->k->rmsnorm_grad(tape->dev, dx, !fresh, dw, base->out->grad, x, w->value.data, w->value.dtype,
                                      node->shift, node->rstd.data, node->n, node->d);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    rmsnorm_node *node = (rmsnorm_node *)base;
    const tm_tensor *w = &node->weight->value;
    return tape->dev->k->rmsnorm(tape->dev, base->out->value.data, node->rstd.data, node->x->value.data, w->data,
                                 w->dtype, node->shift, node->n, node->d, node->eps);
}

static void release(tm__tape *tape, tm__node *base) {
    tm__scratch_free(tape->dev, &((rmsnorm_node *)base)->rstd);
}

tm_status tm__op_rmsnorm(tm__tape *tape, tm__var *x, tm__param *weight, double shift, double eps, tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, rmsnorm);
    TM__NEEDS_BACKWARD(tape, rmsnorm_grad);
    TM__TRY(tm__param_check(tape, weight, "rmsnorm"));
    int64_t count = tm__tensor_count(&x->value), d = tm__tensor_count(&weight->value);
    if (d == 0 || count % d != 0) return TM__SHAPE_ERROR("rmsnorm", "the input does not fit weight %s", weight->name);
    int64_t n = count / d;
    bool needs_grad = x->needs_grad || weight->trainable;
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, needs_grad, y));
    tm__scratch rstd = {0};
    TM__TRY(tm__scratch_alloc(dev, n, &rstd));
    tm_status status = dev->k->rmsnorm(dev, (*y)->value.data, rstd.data, x->value.data, weight->value.data,
                                       weight->value.dtype, shift, n, d, eps);
    if (status == TM_OK && tape->recording && needs_grad) {
        rmsnorm_node *node;
        status = tm__tape_node(tape, sizeof *node, "rmsnorm", *y, backward, release, &node);
        if (status == TM_OK) {
            tm__node_remakes(&node->base, remake, 0, (tm__var *[TM__NODE_INPUTS]){x});
            node->x = x;
            x->saved = true;
            node->weight = weight;
            node->rstd = rstd;
            node->n = n;
            node->d = d;
            node->shift = shift;
            node->eps = eps;
            return TM_OK;
        }
    }
    tm__scratch_free(dev, &rstd);
    return status;
}
