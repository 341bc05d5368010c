/* dropout.c: y = x mask / (1 - p) while training, else y = x   (Srivastava et al. 2014);   dx += dy mask / (1 - p).
 *
 * The mask is drawn again in backward from the stream's number, so nothing is kept.
 */
#include "op/common.h"

typedef struct dropout_node {
    tm__node base;
    tm__var *x;
    double p;
    uint64_t seed, stream;
} dropout_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    dropout_node *node = (dropout_node *)base;
    void *dx;
    bool fresh;
    TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return tape->dev->k->dropout(tape->dev, dx, !fresh, base->out->grad, tm__tensor_count(&node->x->value), node->p,
                                 node->seed, node->stream);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    const dropout_node *node = (const dropout_node *)base;
    const tm_tensor *y = &base->out->value;
    return tape->dev->k->dropout(tape->dev, y->data, false, node->x->value.data, tm__tensor_count(y), node->p,
                                 node->seed, node->stream);
}

tm_status tm__op_dropout(tm__tape *tape, tm__var *x, double p, tm__var **y) {
    if (!tape->training || p == 0) {
        *y = x;
        return TM_OK;
    }
    TM__NEEDS(tape, dropout);
    if (!(p > 0 && p < 1)) return TM__SHAPE_ERROR("dropout", "a probability of %g", p);
    const uint64_t seed = tape->dropout_seed, stream = tape->dropout_stream++;
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, x->needs_grad, y));
    TM__TRY(tape->dev->k->dropout(tape->dev, (*y)->value.data, false, x->value.data, tm__tensor_count(&x->value), p,
                                  seed, stream));
    if (!tape->recording || !x->needs_grad) return TM_OK;
    dropout_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "dropout", *y, backward, NULL, &node));
    node->x = x;
    node->p = p;
    node->seed = seed;
    node->stream = stream;
    tm__node_remakes(&node->base, remake, (double)tm__tensor_count(&x->value), (tm__var *[TM__NODE_INPUTS]){x});
    return TM_OK;
}
