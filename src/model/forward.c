/* forward.c: the decoder's forward pass over whole documents, its loss, logits, and what is read off them.
 *
 * Shapes: T tokens, D hidden, H heads, K key-value heads, C head_dim, F intermediate, V vocabulary.
 */
#include "model/weights.h"

#include <stdlib.h>

/* ---- taps -------------------------------------------------------------------------------------------------------- */

static tm_status apply_taps(tm__tape *tape, const tm__forward_options *options, int site, int64_t layer, tm__var **x) {
    for (size_t i = 0; options && i < options->tap_count; i++) {
        const tm__tap *tap = &options->taps[i];
        if (tap->site != site || (site != TM__TAP_EMBEDDING && tap->layer != layer)) continue;
        TM__TRY(tm__op_tap(tape, *x, tap, x));
    }
    return TM_OK;
}

/* ---- one block --------------------------------------------------------------------------------------------------- */

/* What a block needs beside x; lives in the tape's arena, because a checkpointed block runs again in backward. */
typedef struct block_run {
    tm_model *model;
    tm__block *block;
    int64_t layer;
    tm__attention attention;
    const int32_t *position; /* (T) */
    const tm__forward_options *options;
} block_run;

/* The same elements seen as (T, heads, C). */
static tm_status split_heads(tm__var *x, int64_t heads, int64_t head_dim) {
    return tm__var_reshape(x, 3, (int64_t[]){x->value.shape[0], heads, head_dim});
}

static tm_status attention(tm__tape *tape, const block_run *run, tm__var *x, tm__var **y) {
    const tm__attention *a = &run->attention;
    tm__var *normed, *q, *k, *v, *mixed;
    TM__TRY(tm__op_rmsnorm(tape, x, &run->block->input_norm, run->model->config.rms_eps, &normed));
    TM__TRY(tm__op_linear(tape, normed, &run->block->q, &q)); /* (T, H C) */
    TM__TRY(tm__op_linear(tape, normed, &run->block->k, &k)); /* (T, K C) */
    TM__TRY(tm__op_linear(tape, normed, &run->block->v, &v));
    tm__tape_drop(tape, normed);
    TM__TRY(split_heads(q, a->heads, a->head_dim));
    TM__TRY(split_heads(k, a->kv_heads, a->head_dim));
    TM__TRY(split_heads(v, a->kv_heads, a->head_dim));
    tm__var *q_turned, *k_turned;
    TM__TRY(tm__op_rope(tape, q, &run->model->rope, run->position, &q_turned));
    TM__TRY(tm__op_rope(tape, k, &run->model->rope, run->position, &k_turned));
    tm__tape_drop(tape, q);
    tm__tape_drop(tape, k);
    TM__TRY(tm__op_attention(tape, q_turned, k_turned, v, a, &mixed)); /* (T, H C) */
    tm__tape_drop(tape, q_turned);
    tm__tape_drop(tape, k_turned);
    tm__tape_drop(tape, v);
    TM__TRY(tm__op_linear(tape, mixed, &run->block->o, y)); /* (T, D) */
    tm__tape_drop(tape, mixed);
    return apply_taps(tape, run->options, TM__TAP_ATTENTION_OUT, run->layer, y);
}

static tm_status mlp(tm__tape *tape, const block_run *run, tm__var *x, tm__var **y) {
    tm__var *normed, *gate, *up, *gated;
    TM__TRY(tm__op_rmsnorm(tape, x, &run->block->post_norm, run->model->config.rms_eps, &normed));
    TM__TRY(tm__op_linear(tape, normed, &run->block->gate, &gate)); /* (T, F) */
    TM__TRY(tm__op_linear(tape, normed, &run->block->up, &up));
    tm__tape_drop(tape, normed);
    TM__TRY(tm__op_swiglu(tape, gate, up, &gated));
    tm__tape_drop(tape, gate);
    tm__tape_drop(tape, up);
    TM__TRY(tm__op_linear(tape, gated, &run->block->down, y)); /* (T, D) */
    tm__tape_drop(tape, gated);
    return apply_taps(tape, run->options, TM__TAP_MLP_OUT, run->layer, y);
}

static tm_status block_body(tm__tape *tape, void *ctx, tm__var *x, tm__var **y) {
    const block_run *run = ctx;
    tm__var *mixed, *middle, *moved;
    TM__TRY(attention(tape, run, x, &mixed));
    TM__TRY(tm__op_add(tape, x, mixed, &middle));
    tm__tape_drop(tape, mixed);
    TM__TRY(mlp(tape, run, middle, &moved));
    TM__TRY(tm__op_add(tape, middle, moved, y));
    tm__tape_drop(tape, middle);
    tm__tape_drop(tape, moved);
    return apply_taps(tape, run->options, TM__TAP_HIDDEN, run->layer, y);
}

/* ---- the whole model --------------------------------------------------------------------------------------------- */

tm_status tm__model_check_id(const tm_model *model, int32_t id) {
    if (id >= 0 && id < model->config.vocab) return TM_OK;
    return tm__fail(TM_INVALID, model->directory, NULL, "does the tokenizer belong to this model?",
                    "token id %d is outside the model's vocabulary of %lld", id, (long long)model->config.vocab);
}

static tm_status check_ids(const tm_model *model, const int32_t *ids, const int32_t *position, int64_t tokens,
                           int64_t *positions) {
    *positions = 0;
    for (int64_t i = 0; i < tokens; i++) {
        TM__TRY(tm__model_check_id(model, ids[i]));
        if (position[i] < 0) return tm__fail(TM_INVALID, NULL, "position", NULL, "%d is negative", position[i]);
        *positions = TM__MAX(*positions, (int64_t)position[i] + 1);
    }
    return TM_OK;
}

static tm__attention attention_shape(const tm_model *model, const tm__batch *batch) {
    const tm__config *c = &model->config;
    return (tm__attention){.tokens = batch->tokens,
                           .heads = c->heads,
                           .kv_heads = c->kv_heads,
                           .head_dim = c->head_dim,
                           .segments = batch->segments,
                           .start = batch->start,
                           .length = batch->length,
                           .scale = 1 / sqrt((double)c->head_dim)};
}

tm_status tm__model_forward(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                            tm__var **hidden) {
    int64_t positions;
    tm__var *x, *y;
    TM__TRY(check_ids(model, batch->ids, batch->position, batch->tokens, &positions));
    TM__TRY(tm__rope_reserve(model, positions));
    TM__TRY(tm__op_embedding(tape, &model->embed, batch->ids, batch->tokens, &x)); /* (T, D) */
    TM__TRY(apply_taps(tape, options, TM__TAP_EMBEDDING, 0, &x));
    if (options && options->states) options->states[0] = x;
    for (int64_t i = 0; i < model->config.layers; i++) {
        block_run *run = tm__arena_alloc(&tape->host, 1, sizeof *run);
        if (!run) return tm__fail_memory();
        *run = (block_run){model, &model->blocks[i], i, attention_shape(model, batch), batch->position, options};
        if (options && options->recompute && tape->recording)
            TM__TRY(tm__tape_checkpoint(tape, block_body, run, x, &y));
        else
            TM__TRY(block_body(tape, run, x, &y));
        tm__tape_drop(tape, x);
        x = y;
        if (options && options->states) options->states[i + 1] = x;
    }
    TM__TRY(tm__op_rmsnorm(tape, x, &model->final_norm, model->config.rms_eps, hidden));
    tm__tape_drop(tape, x);
    return TM_OK;
}

tm_status tm__model_loss(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                         double *row_loss, tm__var **loss) {
    tm__var *hidden;
    TM__TRY(tm__model_forward(model, tape, batch, options, &hidden));
    return tm__op_head_loss(tape, hidden, tm__model_head(model), &batch->targets, row_loss, loss);
}

/* ---- logits ------------------------------------------------------------------------------------------------------ */

/* One chunk: rows (n) of hidden times the head, to the host. `picked` (n, D) and `scores` (n, V) are device buffers. */
static tm_status logits_chunk(tm_model *model, const tm__tape *tape, const tm__var *hidden, const int32_t *rows,
                              int64_t n, void *picked, void *scores, void *out) {
    tm_device *dev = model->dev;
    const tm__param *head = tm__model_head(model);
    int64_t d = model->config.hidden, v = model->config.vocab;
    const tm__gemm product = {.trans_b = true,
                              .m = n,
                              .n = v,
                              .k = d,
                              .a = picked,
                              .a_type = dev->act,
                              .lda = d,
                              .b = head->value.data,
                              .b_type = head->value.dtype,
                              .ldb = d,
                              .c = scores,
                              .ldc = v,
                              .alpha = 1,
                              .row_invariant = tape->row_invariant};
    TM__TRY(dev->k->gather_rows(dev, picked, hidden->value.data, rows, n, d));
    TM__TRY(dev->k->gemm(dev, &product));
    return dev->download(dev, out, scores, (size_t)(n * v) * tm__dtype_size(dev->act));
}

tm_status tm__model_logits(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                           void *logits) {
    tm_device *dev = model->dev;
    size_t size = tm__dtype_size(dev->act);
    int64_t d = model->config.hidden, v = model->config.vocab;
    int64_t fit = (int64_t)(TM__HEAD_CHUNK_BYTES / size) / v;
    int64_t chunk = TM__MAX((int64_t)1, TM__MIN(count, fit));
    size_t picked_bytes = (size_t)(chunk * d) * size, score_bytes = (size_t)(chunk * v) * size;
    void *picked = NULL, *scores = NULL;
    if (!dev->k->gather_rows) return tm__device_lacks(dev, "gather_rows");
    tm_status status = dev->alloc(dev, picked_bytes, &picked);
    if (status == TM_OK) status = dev->alloc(dev, score_bytes, &scores);
    for (int64_t first = 0; status == TM_OK && first < count; first += chunk) {
        int64_t n = TM__MIN(chunk, count - first);
        char *out = (char *)logits + (size_t)(first * v) * size;
        status = logits_chunk(model, tape, hidden, rows + first, n, picked, scores, out);
    }
    if (picked) dev->release(dev, picked, picked_bytes);
    if (scores) dev->release(dev, scores, score_bytes);
    return status;
}

/* ---- one text: score; many texts: embeddings --------------------------------------------------------------------- */

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

/* Products are row-invariant, so that a text's embedding does not depend on its neighbours in the batch. */
tm_status tm__model_embed_texts(tm_model *model, const tm_ids *texts, size_t n, double *out) {
    enum { GROUP_TOKENS = 2048 };
    tm__tape *tape;
    for (size_t i = 0; i < n; i++)
        if (texts[i].len == 0) return tm__fail(TM_INVALID, NULL, NULL, NULL, "text %zu has no tokens to embed", i);
    TM__TRY(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    tape->row_invariant = true;
    tm_status status = TM_OK;
    for (size_t first = 0, end; status == TM_OK && first < n; first = end) {
        size_t tokens = texts[first].len;
        for (end = first + 1; end < n && tokens + texts[end].len <= GROUP_TOKENS; end++) tokens += texts[end].len;
        status = embed_group(model, tape, texts + first, end - first, out + first * (size_t)model->config.hidden);
    }
    tm__tape_free(tape);
    return status;
}
