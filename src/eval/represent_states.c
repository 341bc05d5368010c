/* represent_states.c: hidden states of rows, numbered as transformers' output_hidden_states lists them: 0 the embedding
 * (scaled where the family scales it), l the residual stream after block l, and the last after the final norm. One row
 * at a time, so that a row's states do not depend on the others. Pinned by tests/golden/test_represent_golden.c.
 */
#include "eval/represent.h"

#include <stdlib.h>

typedef struct reader {
    const tm_representation *r;
    tm_model *model;
    tm__tape *tape;
    tm__tap *taps; /* one per layer but the last, which needs none */
    size_t tap_count;
    int64_t longest;
    char *buffer; /* device: (taps, longest, width) */
    size_t bytes;
    void *host;     /* (longest, width) act type */
    double *values; /* the same */
    int32_t *position;
} reader;

static bool is_last(const reader *s, int64_t layer) {
    return layer == s->model->config.layers;
}

static tm_status prepare(reader *s) {
    const tm_representation *r = s->r;
    tm_device *dev = s->model->dev;
    size_t size = tm__dtype_size(dev->act), row;
    for (size_t i = 0; i < r->count; i++) s->longest = TM__MAX(s->longest, (int64_t)r->rows[i].ids.len);
    row = (size_t)(s->longest * r->width);
    s->taps = tm__zalloc((size_t)r->layer_count + 1, sizeof *s->taps);
    s->host = tm__alloc(row, size);
    s->values = tm__alloc(row, sizeof *s->values);
    s->position = tm__alloc((size_t)s->longest, sizeof *s->position);
    if (!s->taps || !s->host || !s->values || !s->position) return tm__fail_memory();
    for (int64_t t = 0; t < s->longest; t++) s->position[t] = (int32_t)t;
    for (int64_t l = 0; l < r->layer_count; l++) {
        if (is_last(s, r->layers[l])) continue;
        bool embedding = r->layers[l] == 0;
        s->taps[s->tap_count++] = (tm__tap){.layer = embedding ? 0 : (int)r->layers[l] - 1,
                                            .site = embedding ? TM__TAP_EMBEDDING : TM__TAP_HIDDEN};
    }
    s->bytes = s->tap_count * row * size;
    if (s->bytes) TM__TRY(dev->alloc(dev, s->bytes, (void **)&s->buffer));
    for (size_t i = 0; i < s->tap_count; i++) s->taps[i].value = s->buffer + i * row * size;
    TM__TRY(tm__tape_create(dev, &s->tape));
    s->tape->recording = false;
    return TM_OK;
}

static void release(reader *s) {
    tm_device *dev = s->model->dev;
    if (s->buffer) dev->release(dev, s->buffer, s->bytes);
    tm__tape_free(s->tape);
    free(s->taps);
    free(s->host);
    free(s->values);
    free(s->position);
}

/* out (width): the state of the last token, or the mean over those that are read. */
static tm_status condense(reader *s, const tm__represent_row *row, const void *from, float *out) {
    const int64_t d = s->r->width, n = (int64_t)row->ids.len;
    const int position = s->r->options.position;
    tm_device *dev = s->model->dev;
    size_t size = tm__dtype_size(dev->act);
    int64_t first = position == TM_REPRESENT_LAST ? n - 1 : 0, read = 0;
    TM__TRY(
        dev->download(dev, s->host, (const char *)from + (size_t)(first * d) * size, (size_t)((n - first) * d) * size));
    tm__convert(s->values + first * d, TM_F64, s->host, dev->act, (size_t)((n - first) * d));
    double *sum = s->values + first * d; /* the first row takes up the others */
    for (int64_t t = first; t < n; t++) {
        if (position == TM_REPRESENT_ANSWER && row->labels.data[t] == -100) continue;
        for (int64_t j = 0; j < d; j++) sum[j] = read ? sum[j] + s->values[t * d + j] : s->values[t * d + j];
        read++;
    }
    for (int64_t j = 0; j < d; j++) {
        out[j] = (float)(sum[j] / (double)read);
        if (!isfinite(out[j])) return TM_NUMERIC;
    }
    return TM_OK;
}

/* states: of this row in the first layer; layers lie `stride` apart. */
static tm_status read_row(reader *s, const tm__represent_row *row, float *states, size_t stride) {
    const int64_t start = 0, n = (int64_t)row->ids.len;
    const tm__batch batch = {
        .tokens = n, .ids = row->ids.data, .position = s->position, .segments = 1, .start = &start, .length = &n};
    const tm__forward_options options = {.taps = s->taps, .tap_count = s->tap_count};
    tm__var *hidden;
    size_t tap = 0;
    tm_status status = tm__model_forward(s->model, s->tape, &batch, &options, &hidden);
    for (int64_t l = 0; l < s->r->layer_count && status == TM_OK; l++) {
        const void *from = is_last(s, s->r->layers[l]) ? hidden->value.data : s->taps[tap++].value;
        status = condense(s, row, from, states + (size_t)l * stride);
        if (status == TM_NUMERIC)
            status = tm__fail(TM_NUMERIC, NULL, NULL, NULL, "states of layer %lld are not finite (%s row %zu)",
                              (long long)s->r->layers[l], row->harmful ? "harmful" : "harmless", row->row + 1);
    }
    tm__tape_reset(s->tape);
    return status;
}

tm_status tm__represent_read(const tm_representation *r, tm_model *model, const char *name, const tm_monitor *monitor,
                             float *states) {
    reader s = {.r = r, .model = model};
    tm_progress progress = {.phase = name, .total = (int64_t)r->count, .unit = "row", .loss = NAN, .lr = NAN};
    double begin = tm__now();
    tm_status status = prepare(&s);
    if (status == TM_OK) tm__rope_note(model, s.longest, monitor);
    for (size_t i = 0; i < r->count && status == TM_OK; i++) {
        status = tm__stop(monitor)
                     ? tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped while reading states")
                     : read_row(&s, &r->rows[i], states + i * (size_t)r->width, r->count * (size_t)r->width);
        progress.done = (int64_t)i + 1;
        progress.tokens += (int64_t)r->rows[i].ids.len;
        progress.seconds = tm__now() - begin;
        if (status == TM_OK && monitor && monitor->progress) monitor->progress(monitor->user, &progress);
    }
    release(&s);
    return status == TM_OK ? TM_OK : tm__error_within(name, NULL);
}
