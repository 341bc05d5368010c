/* attention.c: self-attention over segments, with grouped heads (Ainslie et al. 2023).
 *
 *   s_ij = cap(scale q_i . k_j);   p_i = softmax over the keys that i sees;   y_i = sum_j p_ij v_j
 *   dv_j = sum_i p_ij dy_i;   ds_ij = p_ij (dy_i . v_j - dy_i . y_i) cap'(s_ij) scale
 *   dq_i = sum_j ds_ij k_j;   dk_j = sum_i ds_ij q_i
 * Kept: log sum exp per row and head. Probabilities are computed again from it, so that no (tokens, tokens) matrix
 * exists.
 */
#include "op/common.h"

typedef struct attention_node {
    tm__node base;
    tm__var *q, *k, *v;
    tm__attention shape;
    tm__scratch lse; /* (tokens, heads) */
} attention_node;

/* The kernel wants all three outputs: what nobody needs goes into scratch memory that is thrown away. */
static tm_status open_grad(tm__tape *tape, tm__var *var, tm__grad_slot *slot) {
    TM__TRY(tm__grad_open(tape, var, var->needs_grad, slot));
    if (var->needs_grad) return TM_OK;
    TM__TRY(tm__scratch_alloc(tape->dev, tm__tensor_count(&var->value), &slot->scratch));
    slot->data = slot->scratch.data;
    return TM_OK;
}

static tm_status backward(tm__tape *tape, tm__node *base) {
    attention_node *node = (attention_node *)base;
    tm__var *vars[3] = {node->q, node->k, node->v};
    tm__grad_slot slots[3] = {{0}};
    const void *values[3], *out;
    tm_status status;
    for (int i = 0; i < 3; i++) TM__TRY(tm__tape_value(tape, vars[i], &values[i]));
    TM__TRY(tm__tape_value(tape, base->out, &out));
    for (int i = 0; i < 3; i++) TM__TRY_GOTO(status, open_grad(tape, vars[i], &slots[i]), done);
    status = tape->dev->k->attention_grad(tape->dev, slots[0].data, slots[1].data, slots[2].data, base->out->grad, out,
                                          node->lse.data, values[0], values[1], values[2], &node->shape);
    for (int i = 0; i < 3 && status == TM_OK; i++)
        if (vars[i]->needs_grad) status = tm__grad_close(tape, &slots[i]);
done:
    for (int i = 0; i < 3; i++) tm__grad_discard(tape, &slots[i]);
    return status;
}

static tm_status remake(tm__tape *tape, tm__node *base) {
    attention_node *node = (attention_node *)base;
    return tape->dev->k->attention(tape->dev, base->out->value.data, node->lse.data, node->q->value.data,
                                   node->k->value.data, node->v->value.data, &node->shape);
}

/* Multiply-adds of scores and of what they weigh. */
static double work(const tm__attention *a) {
    double pairs = 0;
    for (int64_t i = 0; i < a->segments; i++) {
        double length = (double)a->length[i], seen = a->window ? fmin((double)a->window, length) : length;
        pairs += seen * (length - seen / 2);
    }
    return 2 * pairs * (double)(a->heads * a->head_dim);
}

static void release(tm__tape *tape, tm__node *base) {
    tm__scratch_free(tape->dev, &((attention_node *)base)->lse);
}

static tm_status check(const tm__var *q, const tm__var *k, const tm__var *v, const tm__attention *a) {
    if (a->kv_heads <= 0 || a->heads % a->kv_heads != 0)
        return TM__SHAPE_ERROR("attention", "%lld heads share %lld key heads", (long long)a->heads,
                               (long long)a->kv_heads);
    if (a->relative && (!a->whole || a->kv_heads != a->heads))
        return TM__SHAPE_ERROR("attention", "relative terms are those of an encoder");
    int64_t wide = a->tokens * a->heads * a->head_dim, narrow = a->tokens * a->kv_heads * a->head_dim;
    if (tm__tensor_count(&q->value) != wide || tm__tensor_count(&k->value) != narrow ||
        tm__tensor_count(&v->value) != narrow)
        return TM__SHAPE_ERROR("attention", "queries, keys or values have another size than described");
    int64_t end = 0;
    for (int64_t i = 0; i < a->segments; i++) {
        if (a->start[i] < end || a->length[i] < 0 || a->length[i] > a->tokens - a->start[i])
            return TM__SHAPE_ERROR("attention", "segment %lld overlaps the one before or ends past the tokens",
                                   (long long)i);
        end = a->start[i] + a->length[i];
    }
    return TM_OK;
}

static tm_status copy_segments(tm__tape *tape, tm__attention *a) {
    size_t n = (size_t)a->segments;
    int64_t *copy = tm__arena_alloc(&tape->host, 2 * n + 1, sizeof *copy);
    if (!copy) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        copy[i] = a->start[i];
        copy[n + i] = a->length[i];
    }
    a->start = copy;
    a->length = copy + n;
    return TM_OK;
}

static tm_status record(tm__tape *tape, tm__var *q, tm__var *k, tm__var *v, const tm__attention *shape, tm__var *y,
                        tm__scratch lse) {
    tm__attention copy = *shape;
    attention_node *node;
    TM__TRY(copy_segments(tape, &copy));
    TM__TRY(tm__tape_node(tape, sizeof *node, "attention", y, backward, release, &node));
    q->saved = k->saved = v->saved = y->saved = true;
    node->q = q;
    node->k = k;
    node->v = v;
    node->shape = copy;
    node->lse = lse;
    node->base.reads_value = true;
    tm__node_remakes(&node->base, remake, work(shape), (tm__var *[TM__NODE_INPUTS]){q, k, v});
    return TM_OK;
}

tm_status tm__op_attention(tm__tape *tape, tm__var *q, tm__var *k, tm__var *v, const tm__attention *shape,
                           tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, attention);
    TM__NEEDS_BACKWARD(tape, attention_grad);
    TM__TRY(check(q, k, v, shape));
    bool needs_grad = q->needs_grad || k->needs_grad || v->needs_grad;
    if (shape->whole && tape->recording && needs_grad)
        return TM__SHAPE_ERROR("attention", "attention to a whole segment has no gradient");
    TM__TRY(tm__tape_output(tape, 2, (int64_t[]){shape->tokens, shape->heads * shape->head_dim}, needs_grad, y));
    tm__scratch lse = {0};
    TM__TRY(tm__scratch_alloc(dev, shape->tokens * shape->heads, &lse));
    tm_status status =
        dev->k->attention(dev, (*y)->value.data, lse.data, q->value.data, k->value.data, v->value.data, shape);
    bool keep = status == TM_OK && tape->recording && needs_grad;
    if (keep) status = record(tape, q, k, v, shape, *y, lse);
    if (!keep || status != TM_OK) tm__scratch_free(dev, &lse);
    return status;
}
