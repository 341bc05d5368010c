/* info.c: what a model is: description, visiting, hash, and what a 16-bit save would lose. */
#include "model/weights.h"

#include <stdlib.h>

/* ---- description ------------------------------------------------------------------------------------------------- */

static tm_status count_scalars(void *user, tm__param *param, bool is_adapter) {
    if (!is_adapter) *(int64_t *)user += tm__tensor_count(&param->value);
    return TM_OK;
}

static void describe_positions(const tm__config *c, tm_model_info *info) {
    static const char *const types[] = {[TM__ROPE_DEFAULT] = "default",
                                        [TM__ROPE_LINEAR] = "linear",
                                        [TM__ROPE_LLAMA3] = "llama3",
                                        [TM__ROPE_DYNAMIC] = "dynamic",
                                        [TM__ROPE_YARN] = "yarn"};
    bool from = c->rope_type == TM__ROPE_LLAMA3 || c->rope_type == TM__ROPE_YARN;
    info->rope_type = types[c->rope_type];
    info->rope_theta = c->rope_theta;
    info->rope_factor = c->rope_type == TM__ROPE_DEFAULT ? 1 : c->rope_factor;
    info->rope_original_positions = from ? c->rope_original_positions : 0;
    info->rotary = c->rotary;
    info->attention_cap = c->attention_cap;
    info->final_cap = c->final_cap;
    for (int64_t l = 0; c->window && l < c->layers; l++) {
        info->window = TM__MAX(info->window, c->window[l]);
        info->window_layers += c->window[l] > 0;
    }
}

void tm_model_describe(const tm_model *model, tm_model_info *info) {
    const tm__config *c = &model->config;
    *info = (tm_model_info){
        .architecture = c->labels ? c->family->classifier : c->family->causal,
        .labels = c->labels,
        .hidden_size = c->hidden,
        .intermediate_size = c->intermediate,
        .layers = c->layers,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab,
        .max_positions = c->max_positions,
        .tied_embeddings = c->tied,
        .adapters = (int64_t)model->adapter_count,
        .dtype = tm__dtype_name(model->blocks[0].q.weight.stored),
    };
    describe_positions(c, info);
    tm__model_params((tm_model *)model, count_scalars, &info->parameters);
}

tm_device *tm_model_device(const tm_model *model) {
    return model->dev;
}

/* ---- reading values in chunks ------------------------------------------------------------------------------------ */

enum { CHUNK = 1 << 15 };

/* Elements first..first+n-1 of a parameter on the host: `raw` is a buffer for n act elements. A mapped value is host
 * memory already. */
static tm_status read_chunk(const tm_model *model, const tm__param *param, size_t first, size_t n, void *raw,
                            const void **out) {
    size_t size = tm__dtype_size(param->value.dtype);
    const char *from = (const char *)param->value.data + first * size;
    *out = from;
    if (!param->owned) return TM_OK;
    *out = raw;
    return model->dev->download(model->dev, raw, from, n * size);
}

typedef struct chunk_buffers {
    void *raw, *converted;
} chunk_buffers;

static tm_status open_buffers(chunk_buffers *buffers) {
    buffers->raw = tm__alloc(CHUNK, sizeof(double));
    buffers->converted = tm__alloc(CHUNK, sizeof(double));
    return buffers->raw && buffers->converted ? TM_OK : tm__fail_memory();
}

static void close_buffers(chunk_buffers *buffers) {
    free(buffers->raw);
    free(buffers->converted);
}

/* ---- visiting ---------------------------------------------------------------------------------------------------- */

static tm_status norm_of(const tm_model *model, const tm__param *param, const chunk_buffers *buffers, double *norm) {
    size_t n = (size_t)tm__tensor_count(&param->value);
    double sum = 0;
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        const void *chunk;
        TM__TRY(read_chunk(model, param, first, count, buffers->raw, &chunk));
        double *values = buffers->converted;
        tm__convert(values, TM_F64, chunk, param->value.dtype, count);
        for (size_t i = 0; i < count; i++) sum += values[i] * values[i];
    }
    *norm = sqrt(sum);
    return TM_OK;
}

tm_status tm_model_visit(const tm_model *model, bool norms, tm_status (*visit)(void *, const tm_weight_info *),
                         void *user) {
    tm__param_item *items;
    size_t count;
    chunk_buffers buffers = {0};
    TM__TRY(tm__model_sorted(model, true, &items, &count));
    tm_status status = norms ? open_buffers(&buffers) : TM_OK;
    for (size_t i = 0; status == TM_OK && i < count; i++) {
        const tm__param *param = items[i].param;
        tm_weight_info info = {.name = param->name,
                               .dtype = tm__dtype_name(param->stored),
                               .ndim = param->value.ndim,
                               .shape = param->value.shape,
                               .trainable = param->trainable,
                               .adapter = items[i].adapter};
        if (norms) status = norm_of(model, param, &buffers, &info.norm);
        if (status == TM_OK) status = visit(user, &info);
    }
    close_buffers(&buffers);
    free(items);
    return status;
}

/* ---- hash -------------------------------------------------------------------------------------------------------- */

/* Values count as a save with TM_SAVE_KEEP would write them, so that a model and its saved and loaded copy agree, on
 * every device. */
static tm_status hash_param(const tm_model *model, const tm__param *param, const chunk_buffers *buffers,
                            tm__sha256 *hash) {
    size_t n = (size_t)tm__tensor_count(&param->value), size = tm__dtype_size(param->stored);
    char line[64];
    tm__sha256_update(hash, param->name, strlen(param->name) + 1);
    tm__sha256_update(hash, tm__dtype_safetensors(param->stored), strlen(tm__dtype_safetensors(param->stored)) + 1);
    for (int i = 0; i < param->value.ndim; i++) {
        int len = snprintf(line, sizeof line, "%lld,", (long long)param->value.shape[i]);
        tm__sha256_update(hash, line, (size_t)len);
    }
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        const void *chunk;
        TM__TRY(read_chunk(model, param, first, count, buffers->raw, &chunk));
        if (param->value.dtype != param->stored) {
            tm__convert(buffers->converted, param->stored, chunk, param->value.dtype, count);
            chunk = buffers->converted;
        }
        tm__sha256_update(hash, chunk, count * size);
    }
    return TM_OK;
}

tm_status tm_model_hash(const tm_model *model, char hex[65]) {
    tm__param_item *items;
    size_t count;
    chunk_buffers buffers = {0};
    tm__sha256 hash;
    TM__TRY(tm__model_sorted(model, true, &items, &count));
    tm_status status = open_buffers(&buffers);
    tm__sha256_init(&hash);
    for (size_t i = 0; status == TM_OK && i < count; i++) status = hash_param(model, items[i].param, &buffers, &hash);
    if (status == TM_OK) tm__sha256_hex(&hash, hex);
    close_buffers(&buffers);
    free(items);
    return status;
}

/* ---- rounding ---------------------------------------------------------------------------------------------------- */

typedef struct rounding {
    int64_t changed, lost;
    uint16_t *now, *before; /* chunk in the 16-bit type */
    double *was;            /* chunk of the checkpoint in fp64 */
} rounding;

static tm_status compare_param(const tm_model *model, const tm__param *param, tm_dtype dtype,
                               const chunk_buffers *buffers, rounding *r) {
    tm_tensor original;
    size_t n = (size_t)tm__tensor_count(&param->value);
    TM__TRY(tm__checkpoint_find(model->files, param->name, &original));
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        const char *old = (const char *)original.data + first * tm__dtype_size(original.dtype);
        const void *chunk;
        const double *is = buffers->converted;
        TM__TRY(read_chunk(model, param, first, count, buffers->raw, &chunk));
        tm__convert(buffers->converted, TM_F64, chunk, param->value.dtype, count);
        tm__convert(r->was, TM_F64, old, original.dtype, count);
        tm__convert(r->now, dtype, is, TM_F64, count);
        tm__convert(r->before, dtype, r->was, TM_F64, count);
        for (size_t i = 0; i < count; i++) {
            bool changed = is[i] != r->was[i];
            r->changed += changed;
            r->lost += changed && r->now[i] == r->before[i];
        }
    }
    return TM_OK;
}

tm_status tm__model_rounding_loss(const tm_model *model, tm_dtype dtype, double *share) {
    tm__param_item *items;
    size_t count;
    chunk_buffers buffers = {0};
    rounding r = {0};
    if (!model->files || (dtype != TM_BF16 && dtype != TM_F16)) {
        *share = 0;
        return TM_OK;
    }
    TM__TRY(tm__model_sorted(model, false, &items, &count));
    tm_status status = open_buffers(&buffers);
    r.now = tm__alloc(CHUNK, sizeof *r.now);
    r.before = tm__alloc(CHUNK, sizeof *r.before);
    r.was = tm__alloc(CHUNK, sizeof *r.was);
    if (status == TM_OK && !(r.now && r.before && r.was)) status = tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < count; i++)
        if (items[i].param->owned) status = compare_param(model, items[i].param, dtype, &buffers, &r);
    if (status == TM_OK) *share = r.changed ? (double)r.lost / (double)r.changed : 0;
    free(r.now);
    free(r.before);
    free(r.was);
    close_buffers(&buffers);
    free(items);
    return status;
}
