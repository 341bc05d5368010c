/* texts.c: what is read off whole texts: the score of one, embeddings and labels of many.
 *
 * Shapes: D hidden, L labels.
 */
#include "model/weights.h"

#include <stdlib.h>

/* Documents laid end to end, each at positions 0... */
typedef struct documents {
    int32_t *ids, *position; /* (tokens) */
    int64_t *start, *length; /* (segments) */
    int64_t tokens, segments;
} documents;

static void documents_release(documents *d) {
    free(d->ids);
    free(d->position);
    free(d->start);
    free(d->length);
}

static tm_status documents_make(const tm_ids *texts, size_t n, documents *d) {
    size_t tokens = 0;
    for (size_t i = 0; i < n; i++) tokens += texts[i].len;
    d->ids = tm__alloc(tokens, sizeof *d->ids);
    d->position = tm__alloc(tokens, sizeof *d->position);
    d->start = tm__alloc(n, sizeof *d->start);
    d->length = tm__alloc(n, sizeof *d->length);
    if (!d->ids || !d->position || !d->start || !d->length) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        d->start[i] = d->tokens;
        d->length[i] = (int64_t)texts[i].len;
        for (size_t t = 0; t < texts[i].len; t++) {
            d->ids[d->tokens] = texts[i].data[t];
            d->position[d->tokens++] = (int32_t)t;
        }
    }
    d->segments = (int64_t)n;
    return TM_OK;
}

static tm__batch documents_batch(const documents *d) {
    return (tm__batch){.tokens = d->tokens,
                       .ids = d->ids,
                       .position = d->position,
                       .segments = d->segments,
                       .start = d->start,
                       .length = d->length};
}

/* Position t predicts the id at t + 1. */
static tm_status score_documents(tm_model *model, tm__tape *tape, const documents *d, double *sum) {
    int64_t count = d->tokens - 1;
    int32_t *row = tm__alloc((size_t)count, sizeof *row);
    double *weight = tm__alloc((size_t)count, sizeof *weight), *loss = tm__alloc((size_t)count, sizeof *loss);
    tm_status status = row && weight && loss ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        for (int64_t i = 0; i < count; i++) {
            row[i] = (int32_t)i;
            weight[i] = 1;
        }
        tm__batch batch = documents_batch(d);
        tm__var *total;
        batch.targets = (tm__head_targets){count, row, d->ids + 1, weight};
        status = tm__model_loss(model, tape, &batch, NULL, loss, &total);
    }
    if (status == TM_OK) {
        *sum = 0;
        for (int64_t i = 0; i < count; i++) *sum -= loss[i];
    }
    free(row);
    free(weight);
    free(loss);
    return status;
}

tm_status tm_model_score(tm_model *model, const int32_t *ids, size_t n, double *sum_log_prob) {
    const tm_ids text = {(int32_t *)ids, n, n};
    documents d = {0};
    tm__tape *tape = NULL;
    double sum = 0;
    if (n < 2) {
        *sum_log_prob = 0; /* nothing is predicted */
        return TM_OK;
    }
    tm_status status = documents_make(&text, 1, &d);
    if (status == TM_OK) status = tm__tape_create(model->dev, &tape);
    if (status == TM_OK) {
        tape->recording = false;
        status = score_documents(model, tape, &d, &sum);
    }
    if (status == TM_OK && !isfinite(sum))
        status = tm__fail(TM_NUMERIC, model->directory, "score", "the training that made this model diverged",
                          "is not finite");
    if (status == TM_OK) *sum_log_prob = sum;
    tm__tape_free(tape);
    documents_release(&d);
    return status;
}

/* Mean over each document's rows of `hidden`, scaled to length 1: out (segments, D). */
static tm_status pool(tm_model *model, const documents *d, const tm__var *hidden, double *out) {
    tm_device *dev = model->dev;
    size_t width = (size_t)model->config.hidden, bytes = (size_t)d->tokens * width * tm__dtype_size(dev->act);
    void *raw = tm__alloc_aligned(bytes);
    double *row = tm__alloc(width, sizeof *row);
    tm_status status = raw && row ? dev->download(dev, raw, hidden->value.data, bytes) : tm__fail_memory();
    for (int64_t s = 0; status == TM_OK && s < d->segments; s++) {
        double *mean = out + (size_t)s * width, norm = 0;
        memset(mean, 0, width * sizeof *mean);
        for (int64_t t = d->start[s]; t < d->start[s] + d->length[s]; t++) {
            const char *from = (const char *)raw + (size_t)t * width * tm__dtype_size(dev->act);
            tm__convert(row, TM_F64, from, dev->act, width);
            for (size_t i = 0; i < width; i++) mean[i] += row[i];
        }
        for (size_t i = 0; i < width; i++) norm += mean[i] * mean[i];
        norm = sqrt(norm);
        if (!isfinite(norm))
            status = tm__fail(TM_NUMERIC, model->directory, "hidden state",
                              "the training that made this model diverged", "is not finite");
        for (size_t i = 0; norm > 0 && i < width; i++) mean[i] /= norm;
    }
    free(raw);
    free(row);
    return status;
}

static tm_status embed_group(tm_model *model, tm__tape *tape, const tm_ids *texts, size_t n, double *out) {
    documents d = {0};
    tm__var *hidden;
    tm_status status = documents_make(texts, n, &d);
    if (status == TM_OK) {
        const tm__batch batch = documents_batch(&d);
        status = tm__model_forward(model, tape, &batch, NULL, &hidden);
    }
    if (status == TM_OK) status = pool(model, &d, hidden, out);
    tm__tape_reset(tape);
    documents_release(&d);
    return status;
}

/* Calls `group` for texts that fit one batch; each leaves `width` numbers per text. Products are row-invariant, so that
 * what is said of a text does not depend on its neighbours. */
static tm_status in_groups(tm_model *model, const tm_ids *texts, size_t n, size_t width, const char *what,
                           tm_status (*group)(tm_model *, tm__tape *, const tm_ids *, size_t, double *), double *out) {
    enum { GROUP_TOKENS = 2048 };
    tm__tape *tape;
    for (size_t i = 0; i < n; i++)
        if (texts[i].len == 0) return tm__fail(TM_INVALID, NULL, NULL, NULL, "text %zu has no tokens to %s", i, what);
    TM__TRY(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    tape->row_invariant = true;
    tm_status status = TM_OK;
    for (size_t first = 0, end; status == TM_OK && first < n; first = end) {
        size_t tokens = texts[first].len;
        for (end = first + 1; end < n && tokens + texts[end].len <= GROUP_TOKENS; end++) tokens += texts[end].len;
        status = group(model, tape, texts + first, end - first, out + first * width);
    }
    tm__tape_free(tape);
    return status;
}

tm_status tm__model_embed_texts(tm_model *model, const tm_ids *texts, size_t n, double *out) {
    return in_groups(model, texts, n, (size_t)model->config.hidden, "embed", embed_group, out);
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */

/* As transformers' GenericForSequenceClassification. */
void tm__model_deciding_rows(const tm_model *model, const tm__batch *batch, int32_t *row) {
    int32_t pad = model->config.pad;
    for (int64_t s = 0; s < batch->segments; s++) {
        int64_t first = batch->start[s], t = first + batch->length[s] - 1;
        while (pad >= 0 && t > first && batch->ids[t] == pad) t--;
        row[s] = (int32_t)t;
    }
}

static tm_status classify_group(tm_model *model, tm__tape *tape, const tm_ids *texts, size_t n, double *out) {
    documents d = {0};
    tm__var *hidden;
    int32_t *row = tm__alloc(n, sizeof *row);
    size_t count = n * (size_t)model->config.labels;
    void *raw = tm__alloc(count, tm__dtype_size(model->dev->act));
    tm_status status = row && raw ? documents_make(texts, n, &d) : tm__fail_memory();
    if (status == TM_OK) {
        const tm__batch batch = documents_batch(&d);
        tm__model_deciding_rows(model, &batch, row);
        status = tm__model_forward(model, tape, &batch, NULL, &hidden);
    }
    if (status == TM_OK) status = tm__model_label_scores(model, tape, hidden, row, (int64_t)n, raw);
    if (status == TM_OK) tm__convert(out, TM_F64, raw, model->dev->act, count);
    tm__tape_reset(tape);
    documents_release(&d);
    free(row);
    free(raw);
    return status;
}

tm_status tm_model_classify(tm_model *model, const tm_ids *texts, size_t n, double *logits) {
    if (!model->config.labels)
        return tm__fail(TM_UNSUPPORTED, model->directory, "architectures", "use a ForSequenceClassification checkpoint",
                        "%s has no labels", model->config.family->causal);
    return in_groups(model, texts, n, (size_t)model->config.labels, "classify", classify_group, logits);
}
