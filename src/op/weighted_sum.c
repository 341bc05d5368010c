/* weighted_sum.c: y = sum_i w_i x_i for a constant w;   dx += dy w. */
#include "op/common.h"

typedef struct weighted_sum_node {
    tm__node base;
    tm__var *x;
    const void *weight;
} weighted_sum_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    weighted_sum_node *node = (weighted_sum_node *)base;
    tm_device *dev = tape->dev;
    int64_t count = tm__tensor_count(&node->x->value);
    double upstream;
    void *dx;
    bool fresh;
    TM__TRY(tm__scalar_get(dev, base->out->grad, &upstream));
    TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return fresh ? dev->k->scale(dev, dx, upstream, node->weight, count)
                 : dev->k->axpy(dev, dx, upstream, node->weight, count);
}

tm_status tm__op_weighted_sum(tm__tape *tape, tm__var *x, const void *weight, tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, dot);
    TM__NEEDS_BACKWARD(tape, scale);
    TM__NEEDS_BACKWARD(tape, axpy);
    double sum;
    TM__TRY(tm__tape_output(tape, 1, (int64_t[]){1}, x->needs_grad, y));
    TM__TRY(dev->k->dot(dev, &sum, weight, x->value.data, tm__tensor_count(&x->value)));
    TM__TRY(tm__scalar_set(dev, (*y)->value.data, sum));
    if (!tape->recording || !x->needs_grad) return TM_OK;
    weighted_sum_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "weighted_sum", *y, backward, NULL, &node));
    node->x = x;
    node->weight = weight;
    return TM_OK;
}
