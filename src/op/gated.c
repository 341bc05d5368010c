/* gated.c: y = act(gate) * up, or act(gate) alone: the middle of a feed-forward layer   (Shazeer 2020).
 *
 *   dup = dy act(gate);   dgate = dy up act'(gate)
 */
#include "op/common.h"

typedef struct gated_node {
    tm__node base;
    tm__activation act;
    tm__var *gate, *up; /* up NULL: not there */
} gated_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    gated_node *node = (gated_node *)base;
    tm__grad_slot gate = {0}, up = {0};
    const void *gate_value, *up_value = NULL;
    tm_status status;
    TM__TRY(tm__tape_value(tape, node->gate, &gate_value));
    if (node->up) TM__TRY(tm__tape_value(tape, node->up, &up_value));
    TM__TRY_GOTO(status, tm__grad_open(tape, node->gate, node->gate->needs_grad, &gate), done);
    if (node->up) TM__TRY_GOTO(status, tm__grad_open(tape, node->up, node->up->needs_grad, &up), done);
    TM__TRY_GOTO(status,
                 tape->dev->k->gated_grad(tape->dev, gate.data, up.data, base->out->grad, node->act, gate_value,
                                          up_value, tm__tensor_count(&node->gate->value)),
                 done);
    TM__TRY_GOTO(status, tm__grad_close(tape, &gate), done);
    if (node->up) status = tm__grad_close(tape, &up);
done:
    tm__grad_discard(tape, &gate);
    tm__grad_discard(tape, &up);
    return status;
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    const gated_node *node = (const gated_node *)base;
    const void *up = node->up ? node->up->value.data : NULL;
    return tape->dev->k->gated(tape->dev, base->out->value.data, node->act, node->gate->value.data, up,
                               tm__tensor_count(&node->gate->value));
}

tm_status tm__op_gated(tm__tape *tape, tm__activation act, tm__var *gate, tm__var *up, tm__var **y) {
    TM__NEEDS(tape, gated);
    TM__NEEDS_BACKWARD(tape, gated_grad);
    int64_t count = tm__tensor_count(&gate->value);
    if (act != TM__SILU && act != TM__GELU_TANH) return TM__SHAPE_ERROR("gated", "activation %d has no gradient", act);
    if (up && count != tm__tensor_count(&up->value)) return TM__SHAPE_ERROR("gated", "gate and up differ in size");
    bool needs_grad = gate->needs_grad || (up && up->needs_grad);
    TM__TRY(tm__tape_output(tape, gate->value.ndim, gate->value.shape, needs_grad, y));
    TM__TRY(tape->dev->k->gated(tape->dev, (*y)->value.data, act, gate->value.data, up ? up->value.data : NULL, count));
    if (!tape->recording || !needs_grad) return TM_OK;
    gated_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "gated", *y, backward, NULL, &node));
    node->act = act;
    tm__node_remakes(&node->base, remake, 0, (tm__var *[TM__NODE_INPUTS]){gate, up});
    node->gate = gate;
    node->up = up;
    gate->saved = true;
    if (up) up->saved = true;
    return TM_OK;
}
