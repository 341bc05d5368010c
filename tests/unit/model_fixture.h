/* model_fixture.h: small models for tests of src/model/. */
#ifndef TM_TEST_MODEL_FIXTURE_H
#define TM_TEST_MODEL_FIXTURE_H

#include "model/weights.h"
#include "support.h"

/* Config text; arguments are extra keys (each ending in a comma) and the tail of the object. Grouped-query, 2 layers.
 */
#define FIXTURE_CONFIG(extra)                                                                                      \
    "{" extra "\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 24,"         \
    "\"intermediate_size\": 40, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2," \
    "\"vocab_size\": 37, \"initializer_range\": 0.3, \"bos_token_id\": 1, \"eos_token_id\": 2}"

static inline tm_device *fixture_device(const char *name, int precision) {
    tm_device *dev = NULL;
    const tm_device_options options = {.name = name, .threads = 2, .precision = precision};
    assert_ok(tm_device_open(&options, &dev));
    return dev;
}

static inline tm_model *fixture_model(tm_device *dev, const char *config, uint64_t seed) {
    tm_model *model = NULL;
    assert_ok(tm_model_create(dev, config, seed, &model));
    return model;
}

/* Elements of a var in fp64. */
static inline double *fixture_values(tm_device *dev, const void *data, size_t n) {
    double *out = malloc((n + 1) * sizeof *out);
    void *raw = malloc((n + 1) * 8);
    assert_ok(dev->download(dev, raw, data, n * tm__dtype_size(dev->act)));
    tm__convert(out, TM_F64, raw, dev->act, n);
    free(raw);
    return out;
}

/* Documents for a forward pass: `lengths` (n) documents of pseudo-random ids, end to end, or padded to the longest. */
typedef struct fixture_batch {
    int32_t ids[256], position[256], row[256], target[256];
    int64_t start[8], length[8];
    double weight[256];
    tm__batch batch;
} fixture_batch;

static inline void fixture_fill(fixture_batch *f, const int64_t *lengths, int n, bool padded, int32_t filler) {
    int64_t longest = 0, at = 0, count = 0;
    memset(f, 0, sizeof *f);
    for (int d = 0; d < n; d++) longest = TM__MAX(longest, lengths[d]);
    for (int d = 0; d < n; d++) {
        f->start[d] = at;
        f->length[d] = lengths[d];
        for (int64_t t = 0; t < (padded ? longest : lengths[d]); t++, at++) {
            bool real = t < lengths[d];
            f->ids[at] = real ? (int32_t)((7 * d + 5 * t + t * t) % 37) : filler;
            f->position[at] = (int32_t)t;
            if (!real || t + 1 >= lengths[d]) continue;
            f->row[count] = (int32_t)at;
            f->target[count++] = (int32_t)((7 * d + 5 * (t + 1) + (t + 1) * (t + 1)) % 37);
        }
    }
    for (int64_t i = 0; i < count; i++) f->weight[i] = 1.0 / (double)count;
    f->batch = (tm__batch){.tokens = at,
                           .ids = f->ids,
                           .position = f->position,
                           .segments = n,
                           .start = f->start,
                           .length = f->length,
                           .targets = {count, f->row, f->target, f->weight},
                           .rows = padded ? n : 0,
                           .row_length = padded ? longest : 0};
}

#endif
