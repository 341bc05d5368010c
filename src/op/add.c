/* add.c: y = a + b;   da += dy, db += dy. */
#include "op/common.h"

typedef struct add_node {
    tm__node base;
    tm__var *a, *b;
} add_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    add_node *node = (add_node *)base;
    if (node->a->needs_grad) TM__TRY(tm__tape_grad_add(tape, node->a, base->out->grad));
    if (node->b->needs_grad) TM__TRY(tm__tape_grad_add(tape, node->b, base->out->grad));
    return TM_OK;
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    const add_node *node = (const add_node *)base;
    const tm_tensor *y = &base->out->value;
    return tape->dev->k->add(tape->dev, y->data, node->a->value.data, node->b->value.data, tm__tensor_count(y));
}

tm_status tm__op_add(tm__tape *tape, tm__var *a, tm__var *b, tm__var **y) {
    TM__NEEDS(tape, add);
    int64_t count = tm__tensor_count(&a->value);
    if (count != tm__tensor_count(&b->value)) return TM__SHAPE_ERROR("add", "the terms differ in size");
    bool needs_grad = a->needs_grad || b->needs_grad;
    TM__TRY(tm__tape_output(tape, a->value.ndim, a->value.shape, needs_grad, y));
    TM__TRY(tape->dev->k->add(tape->dev, (*y)->value.data, a->value.data, b->value.data, count));
    if (!tape->recording || !needs_grad) return TM_OK;
    add_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "add", *y, backward, NULL, &node));
    node->a = a;
    node->b = b;
    tm__node_remakes(&node->base, remake, (double)count, (tm__var *[TM__NODE_INPUTS]){a, b});
    return TM_OK;
}
