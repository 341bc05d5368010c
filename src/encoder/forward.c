/* forward.c: the forward pass of an encoder over texts laid end to end, and what is read off it: embeddings, logits.
 *
 * Pooling is sentence-transformers', in fp64: cls and lasttoken take a token's state, max the largest entry, mean the
 * mean, mean_sqrt_len_tokens the sum over the square root of the length, weightedmean weighs token i by i + 1.
 */
#include "encoder/encoder.h"

#include "op/common.h"

#include <stdlib.h>

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static tm_status apply_norm(const tm_encoder *e, tm__tape *tape, tm__var *x, tm__encoder_norm *norm, tm__var **y) {
    TM__TRY(tm__op_layernorm(tape, x, &norm->weight, &norm->bias, e->config.norm_eps, y));
    tm__tape_drop(tape, x);
    return TM_OK;
}

/* a + b; both are dropped. */
static tm_status sum(tm__tape *tape, tm__var *a, tm__var *b, tm__var **y) {
    TM__TRY(tm__op_add(tape, a, b, y));
    tm__tape_drop(tape, a);
    tm__tape_drop(tape, b);
    return TM_OK;
}

static tm_status activate(tm__tape *tape, tm__activation act, tm__var *x) {
    TM__NEEDS(tape, activation);
    return tape->dev->k->activation(tape->dev, x->value.data, act, x->value.data, tm__tensor_count(&x->value));
}

static tm_status embed(tm_encoder *e, tm__tape *tape, const tm__encoder_batch *batch, tm__var **y) {
    tm__var *x, *more;
    TM__TRY(tm__op_embedding(tape, &e->words, batch->ids, batch->tokens, &x));
    if (e->config.types) {
        TM__TRY(tm__op_embedding(tape, &e->types, batch->types, batch->tokens, &more));
        TM__TRY(sum(tape, x, more, &x));
    }
    if (e->config.positions) {
        TM__TRY(tm__op_embedding(tape, &e->positions, batch->position, batch->tokens, &more));
        TM__TRY(sum(tape, x, more, &x));
    }
    if (e->project.weight.name) {
        tm__var *narrow = x;
        TM__TRY(tm__op_linear(tape, narrow, &e->project, &x));
        tm__tape_drop(tape, narrow);
    }
    return apply_norm(e, tape, x, &e->norm, y); /* (T, D) */
}

/* The relative embeddings as every block reads them, act type; NULL: there are none. */
static tm_status relative_rows(tm_encoder *e, tm__tape *tape, tm__var **rows) {
    const tm__encoder_config *c = &e->config;
    *rows = NULL;
    if (!c->relative) return TM_OK;
    TM__NEEDS(tape, convert);
    TM__TRY(tm__tape_output(tape, 2, (int64_t[]){2 * c->span, c->hidden}, false, rows));
    TM__TRY(tape->dev->k->convert(tape->dev, (*rows)->value.data, tape->dev->act, e->relative.value.data,
                                  e->relative.value.dtype, 2 * c->span * c->hidden));
    return c->norm_relative ? apply_norm(e, tape, *rows, &e->relative_norm, rows) : TM_OK;
}

static tm_status run_block(tm_encoder *e, tm__tape *tape, tm__encoder_block *b, const tm__encoder_batch *batch,
                           tm__var *relative, tm__var *x, tm__var **y) {
    tm__var *mixed, *out, *wide;
    TM__TRY(tm__encoder_attention(e, tape, b, batch, relative, x, &mixed));
    TM__TRY(tm__op_linear(tape, mixed, &b->o, &out));
    tm__tape_drop(tape, mixed);
    TM__TRY(sum(tape, out, x, &x));
    TM__TRY(apply_norm(e, tape, x, &b->attention_norm, &x));
    TM__TRY(tm__op_linear(tape, x, &b->up, &wide)); /* (T, F) */
    TM__TRY(activate(tape, e->config.act, wide));
    TM__TRY(tm__op_linear(tape, wide, &b->down, &out));
    tm__tape_drop(tape, wide);
    TM__TRY(sum(tape, out, x, &x));
    return apply_norm(e, tape, x, &b->output_norm, y);
}

tm_status tm__encoder_forward(tm_encoder *e, tm__tape *tape, const tm__encoder_batch *batch, tm__var **hidden) {
    tm__var *x, *relative;
    TM__TRY(embed(e, tape, batch, &x));
    TM__TRY(relative_rows(e, tape, &relative));
    for (int64_t i = 0; i < e->config.layers; i++) TM__TRY(run_block(e, tape, &e->blocks[i], batch, relative, x, &x));
    *hidden = x;
    return TM_OK;
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static void batch_release(tm__encoder_batch *batch) {
    free(batch->ids);
    free(batch->types);
    free(batch->position);
    free(batch->start);
    free(batch->length);
}

static tm_status batch_make(const tm__encoder_text *texts, size_t n, tm__encoder_batch *b) {
    size_t tokens = 0;
    for (size_t i = 0; i < n; i++) tokens += texts[i].len;
    b->ids = tm__alloc(tokens, sizeof *b->ids);
    b->types = tm__alloc(tokens, sizeof *b->types);
    b->position = tm__alloc(tokens, sizeof *b->position);
    b->start = tm__alloc(n, sizeof *b->start);
    b->length = tm__alloc(n, sizeof *b->length);
    if (!b->ids || !b->types || !b->position || !b->start || !b->length) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        b->start[i] = b->tokens;
        b->length[i] = (int64_t)texts[i].len;
        b->longest = TM__MAX(b->longest, b->length[i]);
        for (size_t t = 0; t < texts[i].len; t++, b->tokens++) {
            b->ids[b->tokens] = texts[i].ids[t];
            b->types[b->tokens] = t >= texts[i].second;
            b->position[b->tokens] = (int32_t)t;
        }
    }
    b->segments = (int64_t)n;
    return TM_OK;
}

static tm_status check_text(const tm_encoder *e, const tm__encoder_text *text) {
    const tm__encoder_config *c = &e->config;
    if (text->len == 0) return tm__fail(TM_INVALID, NULL, NULL, NULL, "a text has no tokens");
    if (c->positions && (int64_t)text->len > c->max_positions)
        return tm__fail(TM_INVALID, NULL, NULL, "shorten it", "a text of %zu tokens; the encoder reads %lld", text->len,
                        (long long)c->max_positions);
    for (size_t t = 0; t < text->len; t++)
        if (text->ids[t] < 0 || text->ids[t] >= c->vocab)
            return tm__fail(TM_MISMATCH, e->directory, "tokenizer", "use the tokenizer that belongs to the encoder",
                            "token id %d lies outside the encoder's vocabulary", text->ids[t]);
    if (text->second < text->len && c->types == 1)
        return tm__fail(TM_UNSUPPORTED, e->directory, "type_vocab_size", NULL, "the encoder does not read pairs");
    return TM_OK;
}

/* What a group of texts becomes: out (n, width). */
typedef tm_status (*read_out)(tm_encoder *e, tm__tape *tape, const tm__encoder_batch *batch, tm__var *hidden,
                              double *out);

static tm_status run_group(tm_encoder *e, tm__tape *tape, const tm__encoder_text *texts, size_t n, read_out read,
                           double *out) {
    tm__encoder_batch batch = {0};
    tm__var *hidden;
    tm_status status = batch_make(texts, n, &batch);
    if (status == TM_OK) status = tm__encoder_forward(e, tape, &batch, &hidden);
    if (status == TM_OK) status = read(e, tape, &batch, hidden, out);
    tm__tape_reset(tape);
    batch_release(&batch);
    return status;
}

static tm_status run_all(tm_encoder *e, const tm__encoder_text *texts, size_t n, read_out read, size_t width,
                         double *out) {
    enum { GROUP_TOKENS = 1024 };
    tm__tape *tape;
    for (size_t i = 0; i < n; i++) TM__TRY(check_text(e, &texts[i]));
    TM__TRY(tm__tape_create(e->dev, &tape));
    tape->recording = false;
    tape->row_invariant = true;
    tm_status status = TM_OK;
    for (size_t first = 0, end; status == TM_OK && first < n; first = end) {
        size_t tokens = texts[first].len;
        for (end = first + 1; end < n && tokens + texts[end].len <= GROUP_TOKENS; end++) tokens += texts[end].len;
        status = run_group(e, tape, texts + first, end - first, read, out + first * width);
    }
    tm__tape_free(tape);
    for (size_t i = 0; status == TM_OK && i < n * width; i++)
        if (!isfinite(out[i]))
            status = tm__fail(TM_NUMERIC, e->directory, NULL, "are the weights damaged?", "a result is not finite");
    return status;
}

/* A var as doubles; the caller's. */
static tm_status to_host(tm_device *dev, const tm__var *x, double **values) {
    size_t n = (size_t)tm__tensor_count(&x->value), bytes = n * tm__dtype_size(dev->act);
    void *raw = tm__alloc_aligned(bytes);
    double *wide = tm__alloc(n, sizeof *wide);
    tm_status status = raw && wide ? dev->download(dev, raw, x->value.data, bytes) : tm__fail_memory();
    if (status == TM_OK) tm__convert(wide, TM_F64, raw, dev->act, n);
    free(raw);
    if (status == TM_OK)
        *values = wide;
    else
        free(wide);
    return status;
}

/* ---- embeddings -------------------------------------------------------------------------------------------------- */

/* One kind of pooling over rows (n, d). */
static void pool(int kind, const double *rows, int64_t n, size_t d, double *out) {
    const double *one = kind == TM__POOL_LAST ? rows + (size_t)(n - 1) * d : rows;
    memcpy(out, one, d * sizeof *out);
    if (kind == TM__POOL_CLS || kind == TM__POOL_LAST) return;
    double total = 1;
    for (int64_t t = 1; t < n; t++) {
        double weight = kind == TM__POOL_WEIGHTED ? (double)(t + 1) : 1;
        total += weight;
        for (size_t i = 0; i < d; i++) {
            double x = rows[(size_t)t * d + i];
            out[i] = kind == TM__POOL_MAX ? TM__MAX(out[i], x) : out[i] + weight * x;
        }
    }
    if (kind == TM__POOL_MAX) return;
    if (kind == TM__POOL_MEAN_SQRT) total = sqrt(total);
    for (size_t i = 0; i < d; i++) out[i] /= total;
}

int64_t tm__encoder_dimensions(const tm_encoder *e) {
    return e->config.hidden * e->config.pooling_count;
}

static tm_status read_embeddings(tm_encoder *e, tm__tape *tape, const tm__encoder_batch *batch, tm__var *hidden,
                                 double *out) {
    size_t d = (size_t)e->config.hidden, width = (size_t)tm__encoder_dimensions(e);
    double *states;
    TM__TRY(to_host(tape->dev, hidden, &states));
    for (int64_t s = 0; s < batch->segments; s++, out += width) {
        double norm = 0;
        for (int k = 0; k < e->config.pooling_count; k++)
            pool(e->config.pooling[k], states + (size_t)batch->start[s] * d, batch->length[s], d, out + (size_t)k * d);
        for (size_t i = 0; i < width; i++) norm += out[i] * out[i];
        norm = TM__MAX(sqrt(norm), 1e-12);
        for (size_t i = 0; e->config.normalise && i < width; i++) out[i] /= norm;
    }
    free(states);
    return TM_OK;
}

tm_status tm__encoder_embed_ids(tm_encoder *e, const tm__encoder_text *texts, size_t n, double *out) {
    return run_all(e, texts, n, read_embeddings, (size_t)tm__encoder_dimensions(e), out);
}

/* ---- logits ------------------------------------------------------------------------------------------------------ */

static tm_status read_logits(tm_encoder *e, tm__tape *tape, const tm__encoder_batch *batch, tm__var *hidden,
                             double *out) {
    tm_device *dev = tape->dev;
    int64_t n = batch->segments, d = e->config.hidden;
    tm__var *first, *pooled, *logits;
    double *values;
    TM__NEEDS(tape, gather_rows);
    int32_t *rows = tm__alloc((size_t)n, sizeof *rows);
    if (!rows) return tm__fail_memory();
    for (int64_t s = 0; s < n; s++) rows[s] = (int32_t)batch->start[s];
    tm_status status = tm__tape_output(tape, 2, (int64_t[]){n, d}, false, &first);
    if (status == TM_OK) status = dev->k->gather_rows(dev, first->value.data, hidden->value.data, rows, n, d);
    free(rows);
    TM__TRY(status);
    TM__TRY(tm__op_linear(tape, first, &e->pooler, &pooled));
    TM__TRY(activate(tape, e->config.pooler_act, pooled));
    TM__TRY(tm__op_linear(tape, pooled, &e->classifier, &logits)); /* (n, labels) */
    TM__TRY(to_host(dev, logits, &values));
    memcpy(out, values, (size_t)(n * e->config.labels) * sizeof *out);
    free(values);
    return TM_OK;
}

tm_status tm__encoder_classify_ids(tm_encoder *e, const tm__encoder_text *texts, size_t n, double *out) {
    if (!e->config.classifier)
        return tm__fail(TM_INVALID, e->directory, "architectures", "it can embed texts", "%s has no classifier",
                        e->config.architecture);
    return run_all(e, texts, n, read_logits, (size_t)e->config.labels, out);
}
