/* tap.c: y = x + perturb, read on the way;   dx += dy + extra_grad, dy read on the way.
 *
 * The value is read in forward only: when it is made again, the caller may already use that buffer for something else.
 * A tap that reads or adds a gradient is a source: it is served even when no gradient arrives from behind.
 */
#include "op/common.h"

typedef struct tap_node {
    tm__node base;
    tm__var *x;
    tm__tap tap;
} tap_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    tap_node *node = (tap_node *)base;
    tm_device *dev = tape->dev;
    int64_t count = tm__tensor_count(&node->x->value);
    if (node->tap.grad) TM__TRY(dev->k->scale(dev, node->tap.grad, 1, base->out->grad, count));
    if (!node->x->needs_grad) return TM_OK;
    TM__TRY(tm__tape_grad_add(tape, node->x, base->out->grad));
    return node->tap.extra_grad ? tm__tape_grad_add(tape, node->x, node->tap.extra_grad) : TM_OK;
}

static tm_status shift(tm_device *dev, const tm__var *x, const tm__tap *tap, void *y) {
    int64_t count = tm__tensor_count(&x->value);
    return tap->perturb ? dev->k->add(dev, y, x->value.data, tap->perturb, count)
                        : dev->k->scale(dev, y, 1, x->value.data, count);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    const tap_node *node = (const tap_node *)base;
    return shift(tape->dev, node->x, &node->tap, base->out->value.data);
}

tm_status tm__op_tap(tm__tape *tape, tm__var *x, const tm__tap *tap, tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, add);
    TM__NEEDS(tape, scale);
    int64_t count = tm__tensor_count(&x->value);
    bool needs_grad = x->needs_grad || tap->grad;
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, needs_grad, y));
    void *to = (*y)->value.data;
    TM__TRY(shift(dev, x, tap, to));
    if (tap->value) TM__TRY(dev->k->scale(dev, tap->value, 1, to, count));
    bool source = needs_grad && (tap->extra_grad || tap->grad);
    if (!tape->recording || !needs_grad) return TM_OK;
    tap_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "tap", *y, backward, NULL, &node));
    node->base.source = source;
    node->x = x;
    node->tap = *tap;
    tm__node_remakes(&node->base, remake, (double)count, (tm__var *[TM__NODE_INPUTS]){x});
    return TM_OK;
}
