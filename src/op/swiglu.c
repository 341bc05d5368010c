/* swiglu.c: y = silu(gate) * up, silu(g) = g sigmoid(g)   (Shazeer 2020).
 *
 *   dup = dy silu(gate);   dgate = dy up (s + g s (1 - s)),  s = sigmoid(g)
 */
#include "op/common.h"

typedef struct swiglu_node {
    tm__node base;
    tm__var *gate, *up;
} swiglu_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    swiglu_node *node = (swiglu_node *)base;
    tm__grad_slot gate = {0}, up = {0};
    tm_status status;
    TM__TRY_GOTO(status, tm__grad_open(tape, node->gate, node->gate->needs_grad, &gate), done);
    TM__TRY_GOTO(status, tm__grad_open(tape, node->up, node->up->needs_grad, &up), done);
    TM__TRY_GOTO(status,
                 tape->dev->k->swiglu_grad(tape->dev, gate.data, up.data, base->out->grad, node->gate->value.data,
                                           node->up->value.data, tm__tensor_count(&node->gate->value)),
                 done);
    TM__TRY_GOTO(status, tm__grad_close(tape, &gate), done);
    status = tm__grad_close(tape, &up);
done:
    tm__grad_discard(tape, &gate);
    tm__grad_discard(tape, &up);
    return status;
}

tm_status tm__op_swiglu(tm__tape *tape, tm__var *gate, tm__var *up, tm__var **y) {
    TM__NEEDS(tape, swiglu);
    TM__NEEDS_BACKWARD(tape, swiglu_grad);
    int64_t count = tm__tensor_count(&gate->value);
    if (count != tm__tensor_count(&up->value)) return TM__SHAPE_ERROR("swiglu", "gate and up differ in size");
    bool needs_grad = gate->needs_grad || up->needs_grad;
    TM__TRY(tm__tape_output(tape, gate->value.ndim, gate->value.shape, needs_grad, y));
    TM__TRY(tape->dev->k->swiglu(tape->dev, (*y)->value.data, gate->value.data, up->value.data, count));
    if (!tape->recording || !needs_grad) return TM_OK;
    swiglu_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "swiglu", *y, backward, NULL, &node));
    node->gate = gate;
    node->up = up;
    return TM_OK;
}
