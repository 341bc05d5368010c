/* ablate.c: taking one direction out of everything that writes to the residual stream (A. Arditi et al., "Refusal in
 * language models is mediated by a single direction", arXiv 2406.11717).
 *
 *   W <- W - r (r^T W)   for o_proj and down_proj, W (d, in);   b <- b - r (r^T b);   E <- E - (E r) r^T   for E (V, d)
 *
 * Every state is a sum of these outputs, so none has a part along r afterwards: editing weights is ablating
 * activations. A tied head is the embedding and loses the direction with it. Where a norm of weights g stands between
 * an output y and the sum (Gemma 2), y g / rms(y) has no part along r if y has none along r g, which is what is taken
 * out. Pinned by tests/golden/test_post.c and tests/unit/test_refusal_ablation.c (golden row A12).
 */
#include "method/matrix.h"

#include <stdlib.h>

enum { ROWS = 256 }; /* read and written at a time */

/* t = r^T W, W (rows, columns) */
static tm_status along(tm_device *dev, const tm__param *weight, const double *r, int64_t rows, int64_t columns,
                       double *chunk, double *t) {
    for (int64_t first = 0; first < rows; first += ROWS) {
        int64_t n = TM__MIN(rows - first, (int64_t)ROWS);
        TM__TRY(tm__param_read(dev, weight, first * columns, n * columns, chunk));
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < columns; j++) t[j] += r[first + i] * chunk[i * columns + j];
    }
    return TM_OK;
}

tm_status tm__ablate_output(tm_model *model, tm__param *weight, const double *r) {
    int64_t rows = weight->value.shape[0], columns = tm__tensor_count(&weight->value) / rows;
    double *t = tm__zalloc((size_t)columns, sizeof *t), *chunk = tm__alloc((size_t)(columns * ROWS), sizeof *chunk);
    tm_status status = t && chunk ? tm__param_own(model, weight) : tm__fail_memory();
    if (status == TM_OK) status = along(model->dev, weight, r, rows, columns, chunk, t);
    for (int64_t first = 0; first < rows && status == TM_OK; first += ROWS) {
        int64_t n = TM__MIN(rows - first, (int64_t)ROWS);
        status = tm__param_read(model->dev, weight, first * columns, n * columns, chunk);
        for (int64_t i = 0; i < n && status == TM_OK; i++)
            for (int64_t j = 0; j < columns; j++) chunk[i * columns + j] -= r[first + i] * t[j];
        if (status == TM_OK) status = tm__param_write(model->dev, weight, first * columns, n * columns, chunk);
    }
    free(t);
    free(chunk);
    return status;
}

tm_status tm__ablate_rows(tm_model *model, tm__param *table, const double *r) {
    int64_t rows = table->value.shape[0], d = table->value.shape[1];
    double *chunk = tm__alloc((size_t)(d * ROWS), sizeof *chunk);
    tm_status status = chunk ? tm__param_own(model, table) : tm__fail_memory();
    for (int64_t first = 0; first < rows && status == TM_OK; first += ROWS) {
        int64_t n = TM__MIN(rows - first, (int64_t)ROWS);
        status = tm__param_read(model->dev, table, first * d, n * d, chunk);
        for (int64_t i = 0; i < n && status == TM_OK; i++) {
            double dot = 0;
            for (int64_t j = 0; j < d; j++) dot += chunk[i * d + j] * r[j];
            for (int64_t j = 0; j < d; j++) chunk[i * d + j] -= dot * r[j];
        }
        if (status == TM_OK) status = tm__param_write(model->dev, table, first * d, n * d, chunk);
    }
    free(chunk);
    return status;
}

/* The direction that an output must lack for its norm to lack r: r g of length 1, or r itself without a norm. */
static tm_status before_norm(const tm_model *model, const tm__norm *norm, const double *r, double *out) {
    int64_t d = model->config.hidden;
    double length = 0;
    memcpy(out, r, (size_t)d * sizeof *out);
    if (!norm->weight.name) return TM_OK;
    TM__TRY(tm__param_read(model->dev, &norm->weight, 0, d, out));
    for (int64_t j = 0; j < d; j++) {
        out[j] = r[j] * (model->config.family->norm_shift + out[j]);
        length += out[j] * out[j];
    }
    for (int64_t j = 0; j < d && length > 0; j++) out[j] /= sqrt(length);
    return TM_OK;
}

static tm_status ablate_writer(tm_model *model, tm__linear *writer, const tm__norm *norm, const double *r,
                               double *room) {
    TM__TRY(before_norm(model, norm, r, room));
    TM__TRY(tm__ablate_output(model, &writer->weight, room));
    return writer->bias.value.data ? tm__ablate_output(model, &writer->bias, room) : TM_OK;
}

tm_status tm__ablate_model(tm_model *model, const double *r) {
    TM__TRY(tm__ablate_rows(model, &model->embed, r));
    double *room = tm__alloc((size_t)model->config.hidden, sizeof *room);
    tm_status status = room ? TM_OK : tm__fail_memory();
    for (int64_t layer = 0; layer < model->config.layers && status == TM_OK; layer++) {
        tm__block *block = &model->blocks[layer];
        status = ablate_writer(model, &block->o, &block->norm[TM__NORM_ATTENTION_POST], r, room);
        if (status == TM_OK) status = ablate_writer(model, &block->down, &block->norm[TM__NORM_MLP_POST], r, room);
    }
    free(room);
    return status;
}
