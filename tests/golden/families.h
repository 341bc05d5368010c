/* families.h: the fixtures of tools/golden/families.py, models with the weights of its formula, and their logits. */
#ifndef TM_TEST_FAMILIES_H
#define TM_TEST_FAMILIES_H

#include "support.h"

#include <jansson.h>

#include "model/model.h"
#include "model/safetensors.h"
#include "train/train.h"

#define FP64_BOUND 1e-8

static const char *const names[] = {"mistral",      "qwen2",  "qwen3",   "gemma2", "gemma", "phi",        "phi-qk",
                                    "qwen3-layers", "linear", "dynamic", "llama3", "yarn",  "yarn-factor"};
enum { CASES = TM__COUNT(names), FULL = 6 }; /* the first six have states, gradients, an adapter and a classifier */

typedef struct fixture {
    const char *name;
    json_t *json;
    tm__safetensors *expected;
} fixture;

static fixture fixtures[CASES];

static inline void load_fixtures(void) {
    for (int i = 0; i < CASES; i++) {
        char path[96];
        fixtures[i].name = names[i];
        snprintf(path, sizeof path, "golden/families/%s.json", names[i]);
        assert_ok(tm__json_load(test_path(path), (struct json_t **)&fixtures[i].json));
        snprintf(path, sizeof path, "golden/families/%s.safetensors", names[i]);
        assert_ok(tm__safetensors_open(test_path(path), &fixtures[i].expected));
    }
}

static inline const fixture *fixture_of(const char *name) {
    for (int i = 0; i < CASES; i++)
        if (strcmp(names[i], name) == 0) return &fixtures[i];
    fail_msg("no fixture %s", name);
    return NULL;
}

static inline tm_device *open_device(const char *name, int precision) {
    tm_device *dev = NULL;
    tm_device_options options = {.name = name, .threads = 2, .precision = precision};
    assert_ok(tm_device_open(&options, &dev));
    return dev;
}

/* ---- weights by formula ---- */

static inline uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline double weight_value(const char *name, const tm_tensor *shape, double centre, double u) {
    size_t len = strlen(name);
    if (shape->ndim == 2) {
        bool sharp = strstr(name, "q_proj.weight") || strstr(name, "k_proj.weight");
        return (sharp ? 4.0 : 1.7) * sqrt(1 / (double)shape->shape[1]) * u;
    }
    if (strcmp(name + len - 4, "bias") == 0) return 0.4 * u;
    return strstr(name, ".q_") || strstr(name, ".k_") ? 2.2 + 0.5 * u : centre + 0.4 * u;
}

/* An adapter's parameter is named with its number here (lora_A.0.weight) and without it there. */
static inline const char *plain_name(const char *name) {
    static char out[160];
    const char *number = strstr(name, ".0.weight");
    if (!strstr(name, ".lora_") || !number) return name;
    snprintf(out, sizeof out, "%.*s.weight", (int)(number - name), name);
    return out;
}

static inline tm_status fill_param(void *user, tm__param *param, bool is_adapter) {
    tm_model *model = user;
    const char *name = plain_name(param->name);
    size_t n = (size_t)tm__tensor_count(&param->value), size = tm__dtype_size(model->dev->act);
    uint64_t seed = 14695981039346656037u;
    if (!is_adapter && model->adapter_count) return TM_OK;
    for (const char *at = name; *at; at++) seed = (seed ^ (uint8_t)*at) * 1099511628211u;
    float *values = malloc(n * sizeof *values);
    void *raw = malloc(n * size);
    for (size_t i = 0; i < n; i++) {
        double u = (double)(mix(seed + (i + 1) * 0x9E3779B97F4A7C15u) >> 11) / 0x1p52 - 1;
        values[i] = (float)weight_value(name, &param->value, 1 - model->config.family->norm_shift, u);
    }
    tm__convert(raw, model->dev->act, values, TM_F32, n);
    assert_ok(model->dev->upload(model->dev, param->value.data, raw, n * size));
    free(values);
    free(raw);
    return TM_OK;
}

/* A model of this config with the weights of the formula, by way of a directory. */
static inline tm_model *make_model(tm_device *dev, const json_t *config) {
    static const char *scratch;
    static int count;
    char name[16], *text = json_dumps(config, 0), *directory;
    tm_model *made = NULL, *loaded = NULL;
    if (!scratch) scratch = test_scratch();
    snprintf(name, sizeof name, "%d", count++);
    directory = tm__path_join(scratch, name);
    assert_ok(tm_model_create(dev, text, 1, &made));
    assert_ok(tm__model_params(made, fill_param, made));
    assert_ok(tm_model_save(made, directory, NULL));
    assert_ok(tm_model_load(dev, directory, NULL, &loaded));
    tm_model_free(made);
    free(directory);
    free(text);
    return loaded;
}

static inline tm_model *fixture_model(tm_device *dev, const fixture *f) {
    return make_model(dev, json_object_get(f->json, "config"));
}

/* ---- batches ---- */

static inline tm_ids ids_of(const json_t *list) {
    tm_ids ids = {0};
    for (size_t t = 0; t < json_array_size(list); t++)
        assert_ok(tm_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, t))));
    return ids;
}

static inline tm__examples step_examples(const fixture *f, size_t step) {
    json_t *rows = json_array_get(json_object_get(f->json, "batches"), step);
    tm__examples e = {.count = json_array_size(rows)};
    e.ids = calloc(e.count, sizeof *e.ids);
    e.labels = calloc(e.count, sizeof *e.labels);
    for (size_t r = 0; r < e.count; r++) {
        e.ids[r] = ids_of(json_object_get(json_array_get(rows, r), "ids"));
        e.labels[r] = ids_of(json_object_get(json_array_get(rows, r), "labels"));
    }
    return e;
}

static inline void free_all(tm_ids *ids, size_t n) {
    for (size_t i = 0; i < n; i++) tm_ids_free(&ids[i]);
}

typedef struct batch {
    tm__examples examples;
    tm__batch_store *store;
    const tm__batch *batch;
    int32_t rows[256]; /* tokens of the documents, end to end */
    int64_t count;
} batch;

static inline void batch_make(const fixture *f, size_t step, bool packed, batch *b) {
    size_t order[2] = {0, 1};
    int64_t targets = 0;
    *b = (batch){.examples = step_examples(f, step)};
    for (size_t r = 0; r < b->examples.count; r++)
        for (size_t t = 1; t < b->examples.labels[r].len; t++) targets += b->examples.labels[r].data[t] != -100;
    assert_ok(tm__batch_build(&b->examples, order, 2, packed, 0, targets, &b->store, &b->batch));
    for (int64_t s = 0; s < b->batch->segments; s++)
        for (int64_t t = 0; t < b->batch->length[s]; t++) b->rows[b->count++] = (int32_t)(b->batch->start[s] + t);
}

static inline void batch_release(batch *b) {
    tm__batch_free(b->store);
    tm__examples_release(&b->examples);
}

/* ---- comparing ---- */

static inline double *as_double(tm_device *dev, const void *data, size_t n) {
    double *out = malloc(n * sizeof *out);
    void *host = malloc(n * tm__dtype_size(dev->act));
    assert_ok(dev->download(dev, host, data, n * tm__dtype_size(dev->act)));
    tm__convert(out, TM_F64, host, dev->act, n);
    free(host);
    return out;
}

static inline void compare(const fixture *f, const char *kind, const char *name, const double *got, size_t n,
                           double bound) {
    char key[256];
    tm_tensor want;
    snprintf(key, sizeof key, "%s%s", kind, name);
    assert_ok(tm__safetensors_find(f->expected, key, &want));
    assert_int_equal(tm__tensor_count(&want), n);
    double error = test_relative_error(got, want.data, n);
    if (!(error <= bound)) fail_msg("%s, %s: error %.3g > %.3g", f->name, key, error, bound);
}

/* Logits (count, vocab) of all documents' tokens; states too where wanted. */
static inline double *logits_of(tm_model *model, const fixture *f, bool packed, bool states) {
    batch b;
    tm__tape *tape;
    tm__var *hidden, *state[8] = {0};
    tm__forward_options options = {.states = states ? state : NULL};
    batch_make(f, 0, packed, &b);
    assert_ok(tm__model_train_full(model)); /* states are kept only where something is recorded */
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = states;
    assert_ok(tm__model_forward(model, tape, b.batch, &options, &hidden));
    size_t n = (size_t)(b.count * model->config.vocab), d = (size_t)model->config.hidden;
    void *raw = malloc(n * tm__dtype_size(model->dev->act));
    double *wide = malloc(n * sizeof *wide);
    assert_ok(tm__model_logits(model, tape, hidden, b.rows, b.count, raw));
    tm__convert(wide, TM_F64, raw, model->dev->act, n);
    for (int64_t i = 0; states && i <= model->config.layers; i++) {
        char key[16];
        double *all = as_double(model->dev, state[i]->value.data, (size_t)b.batch->tokens * d);
        double *real = malloc((size_t)b.count * d * sizeof *real);
        for (int64_t r = 0; r < b.count; r++)
            memcpy(real + (size_t)r * d, all + (size_t)b.rows[r] * d, d * sizeof *real);
        snprintf(key, sizeof key, "state.%d", (int)i);
        if (i < model->config.layers) compare(f, key, "", real, (size_t)b.count * d, FP64_BOUND);
        free(all);
        free(real);
    }
    free(raw);
    tm__tape_free(tape);
    batch_release(&b);
    return wide;
}

static inline size_t logits_count(const tm_model *model, const fixture *f) {
    batch b;
    batch_make(f, 0, true, &b);
    size_t n = (size_t)(b.count * model->config.vocab);
    batch_release(&b);
    return n;
}

/* How far the logits of a case lie from the fixture's under another config or device. */
static inline double moved(tm_device *dev, const fixture *f, const json_t *config) {
    tm_model *model = make_model(dev, config);
    size_t n = logits_count(model, f);
    double *got = logits_of(model, f, true, false);
    tm_tensor want;
    assert_ok(tm__safetensors_find(f->expected, "logits", &want));
    double error = test_relative_error(got, want.data, n);
    free(got);
    tm_model_free(model);
    return error;
}

static inline int run_families(const char *what, const struct CMUnitTest *tests, size_t count) {
    load_fixtures();
    int failed = _cmocka_run_group_tests(what, tests, count, NULL, NULL);
    for (int i = 0; i < CASES; i++) {
        json_decref(fixtures[i].json);
        tm__safetensors_close(fixtures[i].expected);
    }
    return failed;
}

#endif
