/* rope.c: rotary position embedding (Su et al. 2021), halves as Hugging Face stores them.
 *
 *   y_i = x_i cos - x_{i+h} sin;   y_{i+h} = x_{i+h} cos + x_i sin;   h = rotary/2
 * A rotation is orthogonal: the gradient is dy rotated by the opposite angle.
 */
#include "op/common.h"

typedef struct rope_node {
    tm__node base;
    tm__var *x;
    const tm__rope_table *table;
    tm__scratch position; /* (n) int32 */
    int64_t n, heads, head_dim;
} rope_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    rope_node *node = (rope_node *)base;
    void *dx;
    bool fresh;
    TM__TRY(tm__tape_grad(tape, node->x, &dx, &fresh));
    return tape->dev->k->rope(tape->dev, dx, !fresh, base->out->grad, node->table->cos, node->table->sin,
                              node->position.data, node->n, node->heads, node->head_dim, node->table->rotary, -1);
}

static tm_status turn(tm__tape *tape, const rope_node *node, void *y) {
    return tape->dev->k->rope(tape->dev, y, false, node->x->value.data, node->table->cos, node->table->sin,
                              node->position.data, node->n, node->heads, node->head_dim, node->table->rotary, 1);
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    return turn(tape, (const rope_node *)base, base->out->value.data);
}

static void release(tm__tape *tape, tm__node *base) {
    tm__scratch_free(tape->dev, &((rope_node *)base)->position);
}

static tm_status check(const tm__var *x, const tm__rope_table *table, const int32_t *position) {
    if (x->value.ndim != 3 || table->rotary > x->value.shape[2] || table->rotary % 2 != 0)
        return TM__SHAPE_ERROR("rope", "an input of %d dimensions for %lld rotary ones", x->value.ndim,
                               (long long)table->rotary);
    for (int64_t i = 0; i < x->value.shape[0]; i++)
        if (position[i] < 0 || position[i] >= table->positions)
            return TM__SHAPE_ERROR("rope", "position %d of token %lld is outside 0 to %lld", position[i], (long long)i,
                                   (long long)table->positions - 1);
    return TM_OK;
}

tm_status tm__op_rope(tm__tape *tape, tm__var *x, const tm__rope_table *table, const int32_t *position, tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, rope);
    TM__TRY(check(x, table, position));
    int64_t n = x->value.shape[0], heads = x->value.shape[1], head_dim = x->value.shape[2];
    TM__TRY(tm__tape_output(tape, 3, x->value.shape, x->needs_grad, y));
    rope_node unrecorded = {0}, *node = &unrecorded;
    if (tape->recording && x->needs_grad) {
        TM__TRY(tm__tape_node(tape, sizeof *node, "rope", *y, backward, release, &node));
        tm__node_remakes(&node->base, remake, (double)tm__tensor_count(&x->value), (tm__var *[TM__NODE_INPUTS]){x});
    }
    node->x = x;
    node->table = table;
    node->n = n;
    node->heads = heads;
    node->head_dim = head_dim;
    tm_status status = tm__scratch_upload(dev, position, (size_t)n * sizeof *position, &node->position);
    if (status == TM_OK) status = turn(tape, node, (*y)->value.data);
    release(tape, &unrecorded.base);
    return status;
}
