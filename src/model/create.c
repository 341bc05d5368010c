/* create.c: a new model from the text of a config.json: matrices from N(0, initializer_range), norms 1 (0 where
 * the family adds 1), biases 0; in memory, or straight to files.
 *
 * Parameter i of the fixed order draws from the Philox stream (seed, INIT, i): its values depend on nothing else, so
 * that a checkpoint written tensor by tensor holds what saving the model in memory would have written
 * (tests/unit/test_init.c).
 */
#include "model/weights.h"

#include <stdlib.h>

enum { CHUNK = 1 << 15 };

/* One parameter's values, drawn in order. */
typedef struct values {
    tm__rng rng;
    double deviation; /* 0: every value is `constant` */
    double constant;
} values;

static values values_of(const tm_model *model, const tm__param *param, uint64_t seed, uint32_t index) {
    values v = {.rng = tm__rng_make(seed, tm__stream(TM__STREAM_INIT, index))};
    size_t len = strlen(param->name);
    bool bias = len > 5 && strcmp(param->name + len - 5, ".bias") == 0;
    if (param->value.ndim == 2)
        v.deviation = model->config.initializer_range;
    else
        v.constant = bias ? 0 : 1 - model->config.family->norm_shift;
    return v;
}

static void draw(values *v, double *numbers, size_t n) {
    for (size_t i = 0; i < n; i++) numbers[i] = v->deviation > 0 ? v->deviation * tm__rng_normal(&v->rng) : v->constant;
}

/* ---- in memory --------------------------------------------------------------------------------------------------- */

typedef struct initialisation {
    tm_model *model;
    uint64_t seed;
    uint32_t index;
    double *numbers; /* chunk in fp64 */
    void *chunk;     /* the same in act type */
} initialisation;

static tm_status initialise(void *user, tm__param *param, bool is_adapter) {
    initialisation *in = user;
    tm_device *dev = in->model->dev;
    (void)is_adapter;
    if (!param->owned) TM__TRY(tm__param_alloc(in->model, param));
    param->changed = true;
    values v = values_of(in->model, param, in->seed, ++in->index);
    size_t n = (size_t)tm__tensor_count(&param->value), size = tm__dtype_size(dev->act);
    if (v.deviation == 0) return dev->k->fill(dev, param->value.data, v.constant, (int64_t)n);
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        draw(&v, in->numbers, count);
        tm__convert(in->chunk, dev->act, in->numbers, TM_F64, count);
        TM__TRY(dev->upload(dev, (char *)param->value.data + first * size, in->chunk, count * size));
    }
    return TM_OK;
}

tm_status tm__model_redraw(tm_model *model, uint64_t seed) {
    initialisation in = {.model = model, .seed = seed};
    if (model->adapter_count)
        return tm__fail(TM_INVALID, NULL, "adapter", "merge it first", "weights under an adapter are not drawn anew");
    in.numbers = tm__alloc(CHUNK, sizeof *in.numbers);
    in.chunk = tm__alloc(CHUNK, sizeof(double));
    tm_status status = in.numbers && in.chunk ? tm__model_params(model, initialise, &in) : tm__fail_memory();
    free(in.numbers);
    free(in.chunk);
    return status;
}

tm_status tm_model_create(tm_device *device, const char *config_json, uint64_t seed, tm_model **model) {
    tm__config config;
    tm_model *made;
    TM__TRY(tm__config_parse(config_json, strlen(config_json), NULL, &config));
    TM__TRY(tm__model_skeleton(device, &config, &made));
    tm_status status = tm__model_redraw(made, seed);
    if (status != TM_OK) {
        tm_model_free(made);
        return status;
    }
    *model = made;
    return TM_OK;
}

/* ---- straight to files ------------------------------------------------------------------------------------------- */

typedef struct drawing {
    tm_model *model;
    uint64_t seed;
    const tm_monitor *monitor;
    double began;
    int64_t done, total; /* values */
    struct stream {
        struct drawing *drawing;
        values values;
    } * streams; /* one per parameter */
    uint32_t index;
    double numbers[CHUNK];
} drawing;

static void report(const drawing *d) {
    const tm_progress progress = {
        .phase = "write",
        .done = d->done,
        .total = d->total,
        .unit = "value",
        .loss = NAN,
        .lr = NAN,
        .seconds = tm__now() - d->began,
    };
    if (d->monitor && d->monitor->progress) d->monitor->progress(d->monitor->user, &progress);
}

/* Asked for a tensor's elements in order. They pass through fp32, as a model in memory would hold them. */
static tm_status produce(void *user, size_t first, size_t n, void *out) {
    struct stream *s = user;
    drawing *d = s->drawing;
    (void)first;
    for (size_t at = 0; at < n; at += CHUNK) {
        size_t count = TM__MIN(n - at, (size_t)CHUNK);
        draw(&s->values, d->numbers, count);
        tm__convert((float *)out + at, TM_F32, d->numbers, TM_F64, count);
    }
    d->done += (int64_t)n;
    report(d);
    if (tm__stop(d->monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped; nothing was written");
    return TM_OK;
}

static tm_status draw_entry(void *user, const tm__param *param, tm__safetensors_entry *entry) {
    drawing *d = user;
    struct stream *s = &d->streams[d->index++];
    *s = (struct stream){d, values_of(d->model, param, d->seed, d->index)};
    entry->source.dtype = TM_F32;
    entry->source.data = NULL;
    entry->produce = produce;
    entry->user = s;
    d->total += tm__tensor_count(&param->value);
    return TM_OK;
}

/* The tokenizer's ids must all have an embedding. */
static tm_status check_tokenizer(const tm_model *model, const char *directory) {
    tm_tokenizer *tokenizer;
    if (!directory) return TM_OK;
    TM__TRY(tm_tokenizer_load(directory, &tokenizer));
    int64_t size = tm_tokenizer_vocab_size(tokenizer);
    tm_tokenizer_free(tokenizer);
    if (size <= model->config.vocab) return TM_OK;
    return tm__fail(TM_MISMATCH, directory, "vocab_size", "raise vocab_size in the config",
                    "the tokenizer has %lld ids, the config says %lld", (long long)size,
                    (long long)model->config.vocab);
}

static tm_status count_param(void *user, tm__param *param, bool is_adapter) {
    (void)param;
    *(size_t *)user += !is_adapter;
    return TM_OK;
}

tm_status tm_model_write_new(const char *config_json, uint64_t seed, const char *directory,
                             const tm_save_options *options, const tm_monitor *monitor) {
    tm__config config;
    tm_model *model = NULL;
    size_t count = 0;
    drawing *d = tm__zalloc(1, sizeof *d);
    if (!d) return tm__fail_memory();
    tm_status status = tm__config_parse(config_json, strlen(config_json), NULL, &config);
    if (status == TM_OK) status = tm__model_skeleton(NULL, &config, &model);
    if (status == TM_OK) status = check_tokenizer(model, options ? options->tokenizer_dir : NULL);
    if (status == TM_OK) status = tm__model_params(model, count_param, &count);
    if (status == TM_OK && !(d->streams = tm__zalloc(count, sizeof *d->streams))) status = tm__fail_memory();
    if (status == TM_OK) {
        d->model = model;
        d->seed = seed;
        d->monitor = monitor;
        d->began = tm__now();
        status = tm__model_write(model, directory, options, &(tm__weight_source){draw_entry, d});
    }
    tm_model_free(model);
    free(d->streams);
    free(d);
    return status;
}
