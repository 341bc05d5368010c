/* embedding.c: y_i = table[id_i];   dtable[id_i] += dy_i. */
#include "op/common.h"

typedef struct embedding_node {
    tm__node base;
    tm__param *table;
    tm__scratch ids; /* (n) int32 */
    int64_t n;
} embedding_node;

static tm_status backward(tm__tape *tape, tm__node *base) {
    embedding_node *node = (embedding_node *)base;
    void *grad;
    TM__TRY(tm__param_grad(tape->dev, node->table, &grad));
    return tape->dev->k->embedding_grad(tape->dev, grad, base->out->grad, node->ids.data, node->n,
                                        node->table->value.shape[1]);
}

static void release(tm__tape *tape, tm__node *base) {
    tm__scratch_free(tape->dev, &((embedding_node *)base)->ids);
}

static tm_status check(const tm__tape *tape, const tm__param *table, const int32_t *ids, int64_t n) {
    TM__TRY(tm__param_check(tape, table, "embedding"));
    if (table->value.ndim != 2) return TM__SHAPE_ERROR("embedding", "the table %s is not a matrix", table->name);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= table->value.shape[0])
            return TM__SHAPE_ERROR("embedding", "id %d of token %lld is outside 0 to %lld", ids[i], (long long)i,
                                   (long long)table->value.shape[0] - 1);
    return TM_OK;
}

tm_status tm__op_embedding(tm__tape *tape, tm__param *table, const int32_t *ids, int64_t n, tm__var **y) {
    TM__NEEDS(tape, embedding);
    TM__NEEDS_BACKWARD(tape, embedding_grad);
    TM__TRY(check(tape, table, ids, n));
    tm_device *dev = tape->dev;
    int64_t d = table->value.shape[1];
    TM__TRY(tm__tape_output(tape, 2, (int64_t[]){n, d}, table->trainable, y));
    tm__scratch copy = {0};
    TM__TRY(tm__scratch_upload(dev, ids, (size_t)n * sizeof *ids, &copy));
    tm_status status = dev->k->embedding(dev, (*y)->value.data, table->value.data, table->value.dtype, copy.data, n, d);
    if (status == TM_OK && tape->recording && table->trainable) {
        embedding_node *node;
        status = tm__tape_node(tape, sizeof *node, "embedding", *y, backward, release, &node);
        if (status == TM_OK) {
            node->table = table;
            node->ids = copy;
            node->n = n;
            return TM_OK;
        }
    }
    tm__scratch_free(dev, &copy);
    return status;
}
