/* encoder.c: the public face of encoders: loading a directory, texts to ids, embeddings, logits and scores.
 *
 * A text longer than the encoder reads loses its end, a pair the end of the longer one (transformers' longest_first);
 * what the tokenizer's post-processor puts around a text is kept. A pair is written as the post-processors of both
 * families do it: what opens a text, the first, what closes one, the second, what closes one.
 */
#include "encoder/encoder.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static const size_t max_config = (size_t)16 << 20;

static tm_status read_config(const char *directory, tm__encoder_config *config) {
    char *path = tm__path_join(directory, "config.json"), *text = NULL;
    size_t len = 0;
    tm_status status = path ? tm__file_read(path, max_config, &text, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__encoder_config_parse(text, len, path, config);
    free(text);
    free(path);
    return status;
}

/* An encoder without a tokenizer takes ids. */
static tm_status load_tokenizer(tm_encoder *e) {
    static const char *const files[] = {"tokenizer.json", "tokenizer.model"};
    for (size_t i = 0; i < TM__COUNT(files); i++) {
        char *path = tm__path_join(e->directory, files[i]);
        bool there = path && tm__path_exists(path);
        if (!path) return tm__fail_memory();
        free(path);
        if (there) return tm_tokenizer_load(e->directory, &e->tokenizer);
    }
    return TM_OK;
}

static tm_status load(tm_encoder *e, const tm__modules *modules) {
    TM__TRY(read_config(e->directory, &e->config));
    TM__TRY(tm__modules_pooling(modules, &e->config));
    TM__TRY(tm__modules_max_tokens(modules, &e->config));
    TM__TRY(tm__encoder_weights_load(e));
    return load_tokenizer(e);
}

tm_status tm_encoder_load(tm_device *device, const char *directory, tm_encoder **encoder) {
    tm__modules modules;
    if (!tm__path_is_directory(directory))
        return tm__fail(TM_NOT_FOUND, directory, NULL, "check the path", "no such directory");
    TM__TRY(tm__modules_load(directory, &modules));
    tm_encoder *made = tm__zalloc(1, sizeof *made);
    tm_status status = made ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        made->dev = device;
        made->directory = tm__strdup(modules.transformer);
        status = made->directory ? load(made, &modules) : tm__fail_memory();
    }
    tm__modules_release(&modules);
    if (status == TM_OK)
        *encoder = made;
    else
        tm_encoder_free(made);
    return status;
}

void tm_encoder_free(tm_encoder *encoder) {
    if (!encoder) return;
    tm__encoder_weights_release(encoder);
    tm__encoder_config_release(&encoder->config);
    tm_tokenizer_free(encoder->tokenizer);
    free(encoder->directory);
    free(encoder);
}

void tm_encoder_describe(const tm_encoder *encoder, tm_encoder_info *info) {
    const tm__encoder_config *c = &encoder->config;
    *info = (tm_encoder_info){.architecture = c->architecture,
                              .hidden_size = c->hidden,
                              .layers = c->layers,
                              .heads = c->heads,
                              .vocab_size = c->vocab,
                              .max_tokens = c->max_tokens,
                              .dimensions = tm__encoder_dimensions(encoder),
                              .normalised = c->normalise,
                              .labels = c->classifier ? c->labels : 0,
                              .problem = c->problem,
                              .dtype = tm__dtype_name(encoder->words.stored)};
    for (size_t i = 0; i < encoder->param_count; i++) info->parameters += tm__tensor_count(&encoder->params[i]->value);
}

const char *tm_encoder_label(const tm_encoder *encoder, int64_t index) {
    char key[24];
    if (!encoder->config.classifier || index < 0 || index >= encoder->config.labels) return NULL;
    snprintf(key, sizeof key, "%lld", (long long)index);
    const char *name = json_string_value(json_object_get(json_object_get(encoder->config.raw, "id2label"), key));
    return name ? name : "";
}

/* ---- texts to ids ------------------------------------------------------------------------------------------------ */

/* Ids of a text alone, and what the post-processor puts before and behind them. */
typedef struct pieces {
    tm_ids plain, whole; /* whole: before + plain + behind */
    size_t before, behind;
} pieces;

static void pieces_release(pieces *p) {
    tm_ids_free(&p->plain);
    tm_ids_free(&p->whole);
}

static tm_status encode(const tm_encoder *e, const char *text, pieces *p) {
    if (!e->tokenizer)
        return tm__fail(TM_NOT_FOUND, e->directory, "tokenizer.json", "put the encoder's tokenizer beside its weights",
                        "there is no tokenizer");
    TM__TRY(tm_tokenizer_encode(e->tokenizer, text, strlen(text), 0, &p->plain));
    TM__TRY(tm_tokenizer_encode(e->tokenizer, text, strlen(text), TM_ENCODE_BOS_EOS, &p->whole));
    size_t extra = p->whole.len - p->plain.len;
    if (p->plain.len == 0) p->before = extra > 0; /* which of the marks opens cannot be seen: BERT's do both */
    while (p->plain.len && p->before < extra &&
           memcmp(p->whole.data + p->before, p->plain.data, p->plain.len * sizeof *p->plain.data) != 0)
        p->before++;
    p->behind = extra - p->before;
    return TM_OK;
}

static tm_status append(tm_ids *to, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) TM__TRY(tm_ids_push(to, ids[i]));
    return TM_OK;
}

/* A text, or a pair where `b` is not NULL, of at most `limit` ids. *second: where the second text begins. */
static tm_status assemble(const pieces *a, const pieces *b, size_t limit, tm_ids *ids, size_t *second) {
    size_t marks = a->before + a->behind + (b ? b->behind : 0), n = a->plain.len, m = b ? b->plain.len : 0;
    if (marks >= limit)
        return tm__fail(TM_INVALID, NULL, NULL, NULL, "special tokens alone fill the %zu tokens that are read", limit);
    if (n + m + marks > limit) { /* halves; the longer text gets the odd token, and what the shorter one leaves */
        size_t room = limit - marks, shorter = TM__MIN(TM__MIN(n, m), room / 2);
        bool first_longer = n > m;
        n = first_longer ? room - shorter : shorter;
        m = room - n;
    }
    TM__TRY(append(ids, a->whole.data, a->before));
    TM__TRY(append(ids, a->plain.data, n));
    TM__TRY(append(ids, a->whole.data + a->whole.len - a->behind, a->behind));
    *second = ids->len;
    if (!b) return TM_OK;
    TM__TRY(append(ids, b->plain.data, m));
    return append(ids, b->whole.data + b->whole.len - b->behind, b->behind);
}

static tm_status encode_text(const tm_encoder *e, const char *text, const char *pair, tm_ids *ids, size_t *second,
                             bool *cut) {
    pieces a = {0}, b = {0};
    tm_status status = encode(e, text, &a);
    if (status == TM_OK && pair) status = encode(e, pair, &b);
    if (status == TM_OK) status = assemble(&a, pair ? &b : NULL, (size_t)e->config.max_tokens, ids, second);
    *cut = ids->len < a.whole.len + (pair ? b.plain.len + b.behind : 0);
    pieces_release(&a);
    pieces_release(&b);
    return status;
}

/* ---- many texts -------------------------------------------------------------------------------------------------- */

enum { CHUNK = 64 };

typedef struct job {
    tm_encoder *encoder;
    const char *const *texts, *const *pairs; /* pairs NULL: none */
    tm_status (*run)(tm_encoder *encoder, const tm__encoder_text *texts, size_t n, double *out);
    size_t width;
    const tm_monitor *monitor;
    const char *phase;
    size_t cut; /* texts that were too long */
} job;

static tm_status run_chunk(job *j, size_t first, size_t n, double *out) {
    tm_ids ids[CHUNK] = {{0}};
    tm__encoder_text texts[CHUNK];
    tm_status status = TM_OK;
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        bool cut = false;
        const char *pair = j->pairs ? j->pairs[first + i] : NULL;
        status = encode_text(j->encoder, j->texts[first + i], pair, &ids[i], &texts[i].second, &cut);
        texts[i].ids = ids[i].data;
        texts[i].len = ids[i].len;
        j->cut += cut;
    }
    if (status == TM_OK) status = j->run(j->encoder, texts, n, out);
    for (size_t i = 0; i < n; i++) tm_ids_free(&ids[i]);
    return status;
}

static void show(const job *j, size_t done, size_t n, double began) {
    if (!j->monitor || !j->monitor->progress) return;
    const tm_progress progress = {.phase = j->phase,
                                  .done = (int64_t)done,
                                  .total = (int64_t)n,
                                  .unit = "text",
                                  .loss = NAN,
                                  .lr = NAN,
                                  .seconds = tm__now() - began};
    j->monitor->progress(j->monitor->user, &progress);
}

static tm_status run_job(job *j, size_t n, double *out) {
    double began = tm__now();
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        if (tm__stop(j->monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped between texts");
        TM__TRY(run_chunk(j, first, count, out + first * j->width));
        show(j, first + count, n, began);
    }
    if (j->cut)
        tm__note(j->monitor, "%zu of %zu texts were cut to %lld tokens", j->cut, n,
                 (long long)j->encoder->config.max_tokens);
    return TM_OK;
}

tm_status tm__encoder_embed(tm_encoder *encoder, const char *const *texts, size_t n, const tm_monitor *monitor,
                            double *out) {
    job j = {encoder, texts, NULL, tm__encoder_embed_ids, (size_t)tm__encoder_dimensions(encoder), monitor, "embed", 0};
    return run_job(&j, n, out);
}

/* Runs a job into fp32. */
static tm_status run_narrow(job *j, size_t n, float *out) {
    double *wide = tm__alloc(n * j->width, sizeof *wide);
    tm_status status = wide ? run_job(j, n, wide) : tm__fail_memory();
    if (status == TM_OK) tm__convert(out, TM_F32, wide, TM_F64, n * j->width);
    free(wide);
    return status;
}

tm_status tm_encoder_embed(tm_encoder *encoder, const char *const *texts, size_t n, const tm_monitor *monitor,
                           float *out) {
    job j = {encoder, texts, NULL, tm__encoder_embed_ids, (size_t)tm__encoder_dimensions(encoder), monitor, "embed", 0};
    return run_narrow(&j, n, out);
}

tm_status tm_encoder_classify(tm_encoder *encoder, const char *const *texts, const char *const *pairs, size_t n,
                              const tm_monitor *monitor, float *logits) {
    job j = {encoder, texts, pairs, tm__encoder_classify_ids, (size_t)encoder->config.labels, monitor, "classify", 0};
    return run_narrow(&j, n, logits);
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

static void softmax(const float *z, size_t n, float *p) {
    double max = (double)z[0], sum = 0;
    for (size_t i = 1; i < n; i++) max = TM__MAX(max, (double)z[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)z[i] - max);
    for (size_t i = 0; i < n; i++) p[i] = (float)(exp((double)z[i] - max) / sum);
}

void tm_encoder_scores(const tm_encoder *encoder, const float *logits, size_t n, float *scores) {
    size_t labels = (size_t)encoder->config.labels;
    for (size_t i = 0; i < n * labels; i += labels) {
        if (encoder->config.problem == TM_PROBLEM_SINGLE_LABEL) {
            softmax(logits + i, labels, scores + i);
            continue;
        }
        for (size_t k = i; k < i + labels; k++)
            scores[k] = encoder->config.problem == TM_PROBLEM_REGRESSION ? logits[k]
                                                                         : (float)(1 / (1 + exp(-(double)logits[k])));
    }
}
