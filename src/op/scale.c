/* scale.c: y = alpha x for a constant alpha;   dx += alpha dy. */
#include "op/common.h"

typedef struct scale_node {
    tm__node base;
    tm__var *x;
    double alpha;
} scale_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    scale_node *node = (scale_node *)base;
    tm_device *dev = tape->dev;
    int64_t count = tm__tensor_count(&node->x->value);
    void *dx;
    bool fresh;
    TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return fresh ? dev->k->scale(dev, dx, node->alpha, base->out->grad, count)
                 : dev->k->axpy(dev, dx, node->alpha, base->out->grad, count);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    const scale_node *node = (const scale_node *)base;
    const tm_tensor *y = &base->out->value;
    return tape->dev->k->scale(tape->dev, y->data, node->alpha, node->x->value.data, tm__tensor_count(y));
}

tm_status tm__op_scale(tm__tape *tape, tm__var *x, double alpha, tm__var **y) {
    TM__NEEDS(tape, scale);
    TM__NEEDS_BACKWARD(tape, axpy);
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, x->needs_grad, y));
    TM__TRY(tape->dev->k->scale(tape->dev, (*y)->value.data, alpha, x->value.data, tm__tensor_count(&x->value)));
    if (!tape->recording || !x->needs_grad) return TM_OK;
    scale_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "scale", *y, backward, NULL, &node));
    node->x = x;
    node->alpha = alpha;
    tm__node_remakes(&node->base, remake, (double)tm__tensor_count(&x->value), (tm__var *[TM__NODE_INPUTS]){x});
    return TM_OK;
}
