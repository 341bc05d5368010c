/* label_loss.c: the loss of a sequence classifier's labels, read at chosen rows of the hidden state.
 *
 *   z_i = W h_{row_i};  one label is right:    l_i = lse(z_i) - sum_k y_ik z_ik,   dl_i/dz_i = softmax(z_i) - y_i
 *                       each label by itself:  l_i = mean_k (softplus(z_ik) - y_ik z_ik),   (sigmoid(z_i) - y_i) / L
 *   loss = sum_i w_i l_i;   dz_i = dloss w_i dl_i/dz_i;   dh_{row_i} += dz_i W;   dW += sum_i dz_i h_{row_i}^T
 *
 * PyTorch's CrossEntropyLoss and BCEWithLogitsLoss. There are few labels, so what is done to logits is done on the host
 * in fp64. Tests: tests/grad/test_grad_label_loss.c, tests/golden/test_train_judge.c.
 */
#include "op/common.h"

#include <stdlib.h>

typedef struct label_node {
    tm__node base;
    tm__var *hidden;
    tm__param *weight;
    int64_t count;
    tm__scratch row;  /* (count) int32 */
    tm__scratch rows; /* (count, D) hidden rows */
    double *dz;       /* (count, L) before the gradient that reaches the loss */
} label_node;

static void release(tm__tape *tape, tm__node *base) {
    label_node *node = (label_node *)base;
    tm__scratch_free(tape->dev, &node->row);
    tm__scratch_free(tape->dev, &node->rows);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* dz times `upstream`, on the device. */
static tm_status upload_scaled(tm_device *dev, const double *dz, int64_t n, double upstream, tm__scratch *scratch) {
    double *scaled = tm__alloc((size_t)n, sizeof *scaled);
    void *narrow = tm__alloc((size_t)n, tm__dtype_size(dev->act));
    tm_status status = scaled && narrow ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        for (int64_t i = 0; i < n; i++) scaled[i] = upstream * dz[i];
        tm__convert(narrow, dev->act, scaled, TM_F64, (size_t)n);
        status = tm__scratch_upload(dev, narrow, (size_t)n * tm__dtype_size(dev->act), scratch);
    }
    free(scaled);
    free(narrow);
    return status;
}

static tm_status spread(tm__tape *tape, label_node *node, const void *dz) {
    tm_device *dev = tape->dev;
    int64_t labels = node->weight->value.shape[0], d = node->weight->value.shape[1];
    void *dhidden, *dw;
    bool fresh;
    TM__TRY(tm__param_grad(dev, node->weight, &dw));
    if (dw)
        TM__TRY(tm__product(tape, labels, d, node->count, tm__transposed(tape, dz), tm__plain(tape, node->rows.data),
                            dw, 1, TM__PRODUCT_ADD));
    if (!node->hidden->needs_grad) return TM_OK;
    TM__TRY(tm__tape_grad(tape, node->hidden, &dhidden, &fresh));
    if (fresh) TM__TRY(dev->k->fill(dev, dhidden, 0, tm__tensor_count(&node->hidden->value)));
    TM__TRY(tm__product(tape, node->count, d, labels, tm__plain(tape, dz), tm__weight(node->weight), node->rows.data, 1,
                        0));
    return dev->k->scatter_rows(dev, dhidden, node->rows.data, node->row.data, node->count, d);
}

static tm_status backward(tm__tape *tape, tm__node *base) {
    label_node *node = (label_node *)base;
    tm__scratch dz = {0};
    double upstream;
    TM__TRY(tm__scalar_get(tape->dev, base->out->grad, &upstream));
    tm_status status = upload_scaled(tape->dev, node->dz, node->count * node->weight->value.shape[0], upstream, &dz);
    if (status == TM_OK) status = spread(tape, node, dz.data);
    tm__scratch_free(tape->dev, &dz);
    return status;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

static tm_status check(tm__tape *tape, const tm__var *hidden, const tm__param *weight,
                       const tm__label_targets *targets) {
    const tm_tensor *w = &weight->value;
    TM__NEEDS(tape, gather_rows);
    TM__NEEDS_BACKWARD(tape, fill);
    TM__NEEDS_BACKWARD(tape, scatter_rows);
    TM__TRY(tm__param_check(tape, weight, "label_loss"));
    if (w->ndim != 2 || hidden->value.ndim != 2 || hidden->value.shape[1] != w->shape[1])
        return TM__SHAPE_ERROR("label_loss", "the hidden state does not fit head %s", weight->name);
    if (targets->count < 1) return TM__SHAPE_ERROR("label_loss", "there are no rows");
    for (int64_t i = 0; i < targets->count; i++)
        if (targets->row[i] < 0 || targets->row[i] >= hidden->value.shape[0])
            return TM__SHAPE_ERROR("label_loss", "row %d is out of range", targets->row[i]);
    return TM_OK;
}

/* Loss of one row; dz gets its gradient. */
static double row_of(const double *z, const double *y, int64_t labels, bool each, double *dz) {
    double most = z[0], sum = 0, loss = 0;
    for (int64_t k = 1; k < labels; k++) most = TM__MAX(most, z[k]);
    for (int64_t k = 0; k < labels; k++) sum += exp(z[k] - most);
    for (int64_t k = 0; k < labels; k++) {
        double softplus = TM__MAX(z[k], 0) + log1p(exp(-fabs(z[k])));
        loss += each ? (softplus - y[k] * z[k]) / (double)labels : y[k] * (most + log(sum) - z[k]);
        dz[k] = each ? (1 / (1 + exp(-z[k])) - y[k]) / (double)labels : exp(z[k] - most) / sum - y[k];
    }
    return loss;
}

/* z (count, L) on the host, overwritten by dz. */
static void losses(const label_node *node, const tm__label_targets *targets, double *z, double *row_loss,
                   double *total) {
    int64_t labels = node->weight->value.shape[0];
    *total = 0;
    for (int64_t i = 0; i < targets->count; i++) {
        double *dz = z + i * labels;
        double loss = row_of(dz, targets->y + i * labels, labels, targets->each, dz);
        for (int64_t k = 0; k < labels; k++) dz[k] *= targets->weight[i];
        if (row_loss) row_loss[i] = loss;
        *total += targets->weight[i] * loss;
    }
}

static tm_status run(tm__tape *tape, label_node *node, const tm__label_targets *targets, double *row_loss,
                     double *total) {
    tm_device *dev = tape->dev;
    int64_t labels = node->weight->value.shape[0], d = node->weight->value.shape[1], n = targets->count;
    tm__scratch logits = {0};
    size_t bytes = (size_t)(n * labels) * tm__dtype_size(dev->act);
    void *host = tm__zalloc(bytes, 1);
    node->dz = tm__arena_alloc(&tape->host, (size_t)(n * labels), sizeof *node->dz);
    tm_status status = host && node->dz ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__scratch_upload(dev, targets->row, (size_t)n * sizeof *targets->row, &node->row);
    if (status == TM_OK) status = tm__scratch_alloc(dev, n * d, &node->rows);
    if (status == TM_OK) status = tm__scratch_alloc(dev, n * labels, &logits);
    if (status == TM_OK)
        status = dev->k->gather_rows(dev, node->rows.data, node->hidden->value.data, node->row.data, n, d);
    if (status == TM_OK)
        status = tm__product(tape, n, labels, d, tm__plain(tape, node->rows.data), tm__weight_transposed(node->weight),
                             logits.data, 1, TM__PRODUCT_FORWARD);
    if (status == TM_OK) status = dev->download(dev, host, logits.data, bytes);
    if (status == TM_OK) {
        tm__convert(node->dz, TM_F64, host, dev->act, (size_t)(n * labels));
        losses(node, targets, node->dz, row_loss, total);
    }
    tm__scratch_free(dev, &logits);
    free(host);
    return status;
}

tm_status tm__op_label_loss(tm__tape *tape, tm__var *hidden, tm__param *weight, const tm__label_targets *targets,
                            double *row_loss, tm__var **loss) {
    double total = 0;
    TM__TRY(check(tape, hidden, weight, targets));
    bool needs_grad = hidden->needs_grad || weight->trainable;
    TM__TRY(tm__tape_output(tape, 1, (int64_t[]){1}, needs_grad, loss));
    label_node unrecorded = {0}, *node = &unrecorded;
    if (tape->recording && needs_grad)
        TM__TRY(tm__tape_node(tape, sizeof *node, "label_loss", *loss, backward, release, &node));
    node->hidden = hidden;
    node->weight = weight;
    node->count = targets->count;
    tm_status status = run(tape, node, targets, row_loss, &total);
    if (status == TM_OK) status = tm__scalar_set(tape->dev, (*loss)->value.data, total);
    release(tape, &unrecorded.base);
    return status;
}
