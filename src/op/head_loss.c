/* head_loss.c: language-model head and cross-entropy over labelled positions only.
 *
 *   z_i = cap(W h_{row_i} + b);   loss = sum_i w_i (lse(z_i) - z_i[t_i])
 *   dz_i = dloss w_i (softmax(z_i) - onehot(t_i)) cap';   dh_{row_i} += dz_i W;   dW += sum_i dz_i h_{row_i}^T
 *   db += sum_i dz_i;   cap(x) = c tanh(x / c), cap' = 1 - (z / c)^2
 *
 * Rows are worked through in chunks whose logits fit into a fixed number of bytes, so memory does not grow with the
 * batch. If one chunk is enough, its logits stay for backward and become dz in place. If not, forward goes on from each
 * chunk's logits to the gradients at dloss = 1, which backward multiplies by dloss: the largest product of a small
 * model is not done twice (a LoRA step on the 135M shape ran 8% shorter). Where dW or db has begun already when forward
 * comes, what forward makes would need room beside it: then the logits are computed again. Of several losses recorded
 * before backward each makes a dW.
 */
#include "op/common.h"

#include <stdlib.h>

typedef struct head_node {
    tm__node base;
    tm__var *hidden;
    tm__head head;
    int64_t count, chunk; /* targets, and of these at a time */
    const double *weight; /* (count) */
    tm__scratch row, id;  /* (count) int32 */
    tm__scratch lse;      /* (count) */
    tm__scratch logits;   /* (count, vocab), one chunk only */
    bool ahead;           /* forward makes the gradients, at dloss = 1: */
    tm__scratch drows;    /* (count, d) */
    void *dw, *db;        /* as large as their parameters; NULL while nothing was added, or frozen */
} head_node;

static void *element(const tm_device *dev, const tm__scratch *scratch, int64_t index) {
    return (char *)scratch->data + (size_t)index * tm__dtype_size(dev->act);
}

static const int32_t *integer(const tm__scratch *scratch, int64_t index) {
    return (const int32_t *)scratch->data + index;
}

/* Those of a chunk. */
static tm_status alloc_logits(tm_device *dev, const head_node *node, tm__scratch *logits) {
    logits->bytes = (size_t)(node->chunk * node->head.weight->value.shape[0]) * tm__dtype_size(dev->act);
    return tm__alloc_for(dev, TM__FOR_LOGITS, logits->bytes, &logits->data);
}

static void free_made(tm_device *dev, const tm__param *param, void **made) {
    if (*made) dev->release(dev, *made, tm__tensor_bytes(&param->value));
    *made = NULL;
}

static void free_buffers(tm_device *dev, head_node *node) {
    tm__scratch_free(dev, &node->row);
    tm__scratch_free(dev, &node->id);
    tm__scratch_free(dev, &node->lse);
    tm__scratch_free(dev, &node->logits);
    tm__scratch_free(dev, &node->drows);
    free_made(dev, node->head.weight, &node->dw);
    if (node->head.bias) free_made(dev, node->head.bias, &node->db);
}

static void release(tm__tape *tape, tm__node *base) {
    free_buffers(tape->dev, (head_node *)base);
}

/* rows (m,d) = hidden rows of targets first .. first+m; logits (m,vocab) of them, if wanted. */
static tm_status project(tm__tape *tape, const head_node *node, int64_t first, int64_t m, void *rows, void *logits) {
    tm_device *dev = tape->dev;
    const tm_tensor *w = &node->head.weight->value;
    const tm__param *bias = node->head.bias;
    TM__TRY(dev->k->gather_rows(dev, rows, node->hidden->value.data, integer(&node->row, first), m, w->shape[1]));
    if (!logits) return TM_OK;
    TM__TRY(tm__product(tape, m, w->shape[0], w->shape[1], tm__plain(tape, rows),
                        tm__weight_transposed(node->head.weight), logits, 1, TM__PRODUCT_FORWARD));
    if (bias) TM__TRY(dev->k->add_bias(dev, logits, bias->value.data, bias->value.dtype, m, w->shape[0]));
    return node->head.soft_cap > 0 ? dev->k->soft_cap(dev, logits, node->head.soft_cap, m * w->shape[0]) : TM_OK;
}

/* ---- gradients of a chunk ---------------------------------------------------------------------------------------- */

/* Turns a chunk's logits into dz: weights of the loss times the gradient that reached it. */
static tm_status logits_grad(tm__tape *tape, const head_node *node, int64_t first, int64_t m, double upstream,
                             void *logits) {
    tm_device *dev = tape->dev;
    tm__scratch weight = {0};
    TM__TRY(tm__scratch_alloc(dev, m, &weight));
    tm_status status = TM_OK;
    for (int64_t i = 0; i < m && status == TM_OK; i++)
        status = tm__scalar_set(dev, element(dev, &weight, i), upstream * node->weight[first + i]);
    if (status == TM_OK)
        status = dev->k->cross_entropy_grad(dev, logits, element(dev, &node->lse, first), integer(&node->id, first),
                                            weight.data, m, node->head.weight->value.shape[0], node->head.soft_cap);
    tm__scratch_free(dev, &weight);
    return status;
}

/* dw and db, unless NULL, get their sums, rows (m,d) are the hidden rows; drows (m,d), unless NULL, becomes their
 * gradient, and may be `rows`. */
static tm_status spread(tm__tape *tape, const head_node *node, int64_t m, const void *dz, const void *rows, void *dw,
                        void *db, void *drows) {
    tm_device *dev = tape->dev;
    tm__param *weight = node->head.weight;
    int64_t vocab = weight->value.shape[0], d = weight->value.shape[1];
    if (dw)
        TM__TRY(
            tm__product(tape, vocab, d, m, tm__transposed(tape, dz), tm__plain(tape, rows), dw, 1, TM__PRODUCT_ADD));
    if (db) TM__TRY(dev->k->bias_grad(dev, db, dz, m, vocab));
    if (!drows) return TM_OK;
    return tm__product(tape, m, d, vocab, tm__plain(tape, dz), tm__weight(weight), drows, 1, 0);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

static tm_status backward_chunks(tm__tape *tape, const head_node *node, double upstream, void *dhidden) {
    tm_device *dev = tape->dev;
    tm__scratch rows = {0}, again = {0};
    bool kept = node->logits.data != NULL;
    void *dw, *db = NULL;
    tm_status status;
    TM__TRY(tm__param_grad(dev, node->head.weight, &dw));
    if (node->head.bias) TM__TRY(tm__param_grad(dev, node->head.bias, &db));
    TM__TRY_GOTO(status, tm__scratch_alloc(dev, node->chunk * node->head.weight->value.shape[1], &rows), done);
    if (!kept) TM__TRY_GOTO(status, alloc_logits(dev, node, &again), done);
    void *logits = kept ? node->logits.data : again.data;
    for (int64_t first = 0; first < node->count; first += node->chunk) {
        int64_t m = TM__MIN(node->chunk, node->count - first);
        TM__TRY_GOTO(status, project(tape, node, first, m, rows.data, kept ? NULL : logits), done);
        TM__TRY_GOTO(status, logits_grad(tape, node, first, m, upstream, logits), done);
        TM__TRY_GOTO(status, spread(tape, node, m, logits, rows.data, dw, db, dhidden ? rows.data : NULL), done);
        if (dhidden)
            TM__TRY_GOTO(status,
                         dev->k->scatter_rows(dev, dhidden, rows.data, integer(&node->row, first), m,
                                              node->head.weight->value.shape[1]),
                         done);
    }
done:
    tm__scratch_free(dev, &rows);
    tm__scratch_free(dev, &again);
    return status;
}

/* What forward made of a parameter's gradient becomes it, or is added to it. */
static tm_status hand_over(tm_device *dev, tm__param *param, double upstream, void **made) {
    if (!*made) return TM_OK;
    int64_t n = tm__tensor_count(&param->value);
    if (param->grad) {
        TM__TRY(dev->k->axpy(dev, param->grad, upstream, *made, n));
        free_made(dev, param, made);
        return TM_OK;
    }
    if (upstream != 1) TM__TRY(dev->k->scale(dev, *made, upstream, *made, n));
    param->grad = *made;
    *made = NULL;
    return TM_OK;
}

static tm_status backward_ahead(tm__tape *tape, head_node *node, double upstream, void *dhidden) {
    tm_device *dev = tape->dev;
    int64_t d = node->head.weight->value.shape[1];
    TM__TRY(hand_over(dev, node->head.weight, upstream, &node->dw));
    if (node->head.bias) TM__TRY(hand_over(dev, node->head.bias, upstream, &node->db));
    if (!dhidden) return TM_OK;
    if (upstream != 1) TM__TRY(dev->k->scale(dev, node->drows.data, upstream, node->drows.data, node->count * d));
    return dev->k->scatter_rows(dev, dhidden, node->drows.data, integer(&node->row, 0), node->count, d);
}

static tm_status backward(tm__tape *tape, tm__node *base) {
    head_node *node = (head_node *)base;
    tm_device *dev = tape->dev;
    void *dhidden = NULL;
    if (node->hidden->needs_grad) {
        bool fresh;
        TM__TRY(tm__tape_grad(tape, node->hidden, &dhidden, &fresh));
        if (fresh) TM__TRY(dev->k->fill(dev, dhidden, 0, tm__tensor_count(&node->hidden->value)));
    }
    double upstream;
    TM__TRY(tm__scalar_get(dev, base->out->grad, &upstream));
    if (node->count == 0) return TM_OK;
    return node->ahead ? backward_ahead(tape, node, upstream, dhidden) : backward_chunks(tape, node, upstream, dhidden);
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

static tm_status check_rows(const tm__head_targets *targets, int64_t tokens, int64_t vocab) {
    uint8_t *seen = tm__zalloc((size_t)tokens, 1);
    if (!seen) return tm__fail_memory();
    int64_t i = 0;
    for (; i < targets->count; i++) {
        int32_t row = targets->row[i], id = targets->id[i];
        if (row < 0 || row >= tokens || id < 0 || id >= vocab || seen[row]) break;
        seen[row] = 1;
    }
    free(seen);
    if (i == targets->count) return TM_OK;
    return TM__SHAPE_ERROR("head_loss", "target %lld: row %d or id %d is out of range, or the row came before",
                           (long long)i, targets->row[i], targets->id[i]);
}

static tm_status check(tm__tape *tape, const tm__var *hidden, const tm__head *head, const tm__head_targets *targets) {
    const tm_tensor *w = &head->weight->value;
    TM__NEEDS(tape, gather_rows);
    TM__NEEDS(tape, cross_entropy);
    TM__NEEDS_BACKWARD(tape, fill);
    TM__NEEDS_BACKWARD(tape, scatter_rows);
    TM__NEEDS_BACKWARD(tape, cross_entropy_grad);
    TM__NEEDS_BACKWARD(tape, axpy);
    TM__NEEDS_BACKWARD(tape, scale);
    if (head->soft_cap > 0) TM__NEEDS(tape, soft_cap);
    TM__TRY(tm__param_check(tape, head->weight, "head_loss"));
    if (w->ndim != 2 || hidden->value.ndim != 2 || hidden->value.shape[1] != w->shape[1])
        return TM__SHAPE_ERROR("head_loss", "the hidden state does not fit head %s", head->weight->name);
    if (head->bias) {
        TM__NEEDS(tape, add_bias);
        TM__NEEDS_BACKWARD(tape, bias_grad);
        TM__TRY(tm__param_check(tape, head->bias, "head_loss"));
        if (tm__tensor_count(&head->bias->value) != w->shape[0])
            return TM__SHAPE_ERROR("head_loss", "bias %s does not fit its weight", head->bias->name);
    }
    return check_rows(targets, hidden->value.shape[0], w->shape[0]);
}

static bool has_begun(const tm__param *param) {
    return param && param->trainable && param->grad;
}

/* Copies the targets and takes buffers; on failure the caller frees what was taken. */
static tm_status prepare(tm__tape *tape, head_node *node, const tm__head_targets *targets) {
    tm_device *dev = tape->dev;
    size_t n = (size_t)targets->count, limit = tape->head_chunk_bytes ? tape->head_chunk_bytes : TM__HEAD_CHUNK_BYTES;
    size_t fitting = limit / ((size_t)node->head.weight->value.shape[0] * tm__dtype_size(dev->act));
    node->count = targets->count;
    node->chunk = (int64_t)TM__MIN(TM__MAX(fitting, (size_t)1), n);
    double *weight = tm__arena_alloc(&tape->host, n, sizeof *weight);
    if (!weight) return tm__fail_memory();
    memcpy(weight, targets->weight, n * sizeof *weight);
    node->weight = weight;
    TM__TRY(tm__scratch_upload(dev, targets->row, n * sizeof *targets->row, &node->row));
    TM__TRY(tm__scratch_upload(dev, targets->id, n * sizeof *targets->id, &node->id));
    TM__TRY(tm__scratch_alloc(dev, node->count, &node->lse));
    return alloc_logits(dev, node, &node->logits);
}

static tm_status make_grad(tm_device *dev, const tm__param *param, void **made) {
    if (!param || !param->trainable) return TM_OK;
    return tm__alloc_zeroed(dev, TM__FOR_GRADIENTS, tm__tensor_bytes(&param->value), made);
}

static tm_status prepare_ahead(tm_device *dev, head_node *node) {
    TM__TRY(make_grad(dev, node->head.weight, &node->dw));
    TM__TRY(make_grad(dev, node->head.bias, &node->db));
    if (!node->hidden->needs_grad) return TM_OK;
    return tm__scratch_alloc(dev, node->count * node->head.weight->value.shape[1], &node->drows);
}

/* From a chunk's logits, which are lost, to its part of the gradients. */
static tm_status go_ahead(tm__tape *tape, const head_node *node, int64_t first, int64_t m, const void *rows) {
    int64_t d = node->head.weight->value.shape[1];
    void *dz = node->logits.data, *drows = node->drows.data ? element(tape->dev, &node->drows, first * d) : NULL;
    TM__TRY(logits_grad(tape, node, first, m, 1, dz));
    return spread(tape, node, m, dz, rows, node->dw, node->db, drows);
}

static tm_status forward(tm__tape *tape, const head_node *node, double *row_loss, double *total) {
    tm_device *dev = tape->dev;
    tm__scratch rows = {0}, losses = {0};
    tm_status status;
    TM__TRY_GOTO(status, tm__scratch_alloc(dev, node->chunk * node->head.weight->value.shape[1], &rows), done);
    TM__TRY_GOTO(status, tm__scratch_alloc(dev, node->chunk, &losses), done);
    for (int64_t first = 0; first < node->count; first += node->chunk) {
        int64_t m = TM__MIN(node->chunk, node->count - first);
        TM__TRY_GOTO(status, project(tape, node, first, m, rows.data, node->logits.data), done);
        TM__TRY_GOTO(status,
                     dev->k->cross_entropy(dev, losses.data, element(dev, &node->lse, first), node->logits.data,
                                           integer(&node->id, first), m, node->head.weight->value.shape[0]),
                     done);
        for (int64_t i = 0; i < m; i++) {
            double loss;
            TM__TRY_GOTO(status, tm__scalar_get(dev, element(dev, &losses, i), &loss), done);
            if (row_loss) row_loss[first + i] = loss;
            *total += node->weight[first + i] * loss;
        }
        if (node->ahead) TM__TRY_GOTO(status, go_ahead(tape, node, first, m, rows.data), done);
    }
done:
    tm__scratch_free(dev, &rows);
    tm__scratch_free(dev, &losses);
    return status;
}

static tm_status run(tm__tape *tape, head_node *node, bool recorded, const tm__head_targets *targets, double *row_loss,
                     tm__var *y) {
    double total = 0;
    if (targets->count > 0) {
        TM__TRY(prepare(tape, node, targets));
        node->ahead =
            recorded && node->chunk < node->count && !has_begun(node->head.weight) && !has_begun(node->head.bias);
        if (node->ahead) TM__TRY(prepare_ahead(tape->dev, node));
        TM__TRY(forward(tape, node, row_loss, &total));
        if (node->chunk < node->count) tm__scratch_free(tape->dev, &node->logits);
        if (recorded && !node->ahead) node->hidden->saved = true;
    }
    return tm__scalar_set(tape->dev, y->value.data, total);
}

tm_status tm__op_head_loss(tm__tape *tape, tm__var *hidden, const tm__head *head, const tm__head_targets *targets,
                           double *row_loss, tm__var **loss) {
    TM__TRY(check(tape, hidden, head, targets));
    bool needs_grad = hidden->needs_grad || head->weight->trainable || (head->bias && head->bias->trainable);
    TM__TRY(tm__tape_output(tape, 1, (int64_t[]){1}, needs_grad, loss));
    head_node unrecorded = {0}, *node = &unrecorded;
    if (tape->recording && needs_grad)
        TM__TRY(tm__tape_node(tape, sizeof *node, "head_loss", *loss, backward, release, &node));
    node->hidden = hidden;
    node->head = *head;
    tm_status status = run(tape, node, node != &unrecorded, targets, row_loss, *loss);
    free_buffers(tape->dev, &unrecorded);
    return status;
}
