/* cache.c: the key-value cache and the forward pass over it.
 *
 * Each layer holds keys (already rotated) and values for `slots` independent sequences of up to `capacity` tokens
 * beyond what all of them begin with, which another cache holds once. A call feeds any number of tokens of any slots:
 * whole prompts, or one token each. Every kernel used is row-invariant, so what a slot computes does not depend on
 * which other slots are in the call.
 */
#include "model/block.h"
#include "model/weights.h"

#include <stdlib.h>

static size_t row_elements(const tm_model *model) {
    return (size_t)(model->config.kv_heads * model->config.head_dim);
}

/* Where weights have 8 bits, keys and values have 16. */
static tm_dtype type_of(const tm_model *model) {
    return model->dev->int8_weights && model->dev->act == TM_F32 ? TM_BF16 : model->dev->act;
}

static size_t layer_bytes(const tm_model *model, int64_t slots, int64_t capacity) {
    return (size_t)slots * (size_t)capacity * row_elements(model) * tm__dtype_size(type_of(model));
}

void tm__cache_free(tm_model *model, tm__cache *cache) {
    if (!cache) return;
    size_t bytes = layer_bytes(model, cache->slots, cache->capacity);
    for (int64_t i = 0; i < model->config.layers; i++) {
        if (cache->k && cache->k[i]) model->dev->release(model->dev, cache->k[i], bytes);
        if (cache->v && cache->v[i]) model->dev->release(model->dev, cache->v[i], bytes);
    }
    free(cache->k);
    free(cache->v);
    free(cache);
}

tm_status tm__cache_create(tm_model *model, int64_t slots, int64_t capacity, const tm__cache *prefix, int64_t shared,
                           tm__cache **cache) {
    assert(prefix ? shared <= prefix->capacity && !prefix->shared : !shared);
    size_t layers = (size_t)model->config.layers, bytes = layer_bytes(model, slots, capacity);
    tm__cache *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    *made = (tm__cache){.slots = slots, .capacity = capacity, .prefix = prefix, .shared = shared};
    made->k = tm__zalloc(layers, sizeof *made->k);
    made->v = tm__zalloc(layers, sizeof *made->v);
    tm_status status = made->k && made->v ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < layers; i++) {
        status = tm__alloc_for(model->dev, TM__FOR_CACHE, bytes, &made->k[i]);
        if (status == TM_OK) status = tm__alloc_for(model->dev, TM__FOR_CACHE, bytes, &made->v[i]);
    }
    if (status != TM_OK) {
        tm__cache_free(model, made);
        return status;
    }
    *cache = made;
    return TM_OK;
}

/* n elements into a cache, of another or (y = 1 x, or bit by bit) of the same type. */
static tm_status copy(const tm_model *model, void *to, size_t to_at, const void *from, tm_dtype from_type,
                      size_t from_at, size_t n) {
    tm_device *dev = model->dev;
    tm_dtype type = type_of(model);
    char *target = (char *)to + to_at * tm__dtype_size(type);
    const char *source = (const char *)from + from_at * tm__dtype_size(from_type);
    if (type == dev->act) return dev->k->scale(dev, target, 1, source, (int64_t)n);
    return dev->k->convert(dev, target, type, source, from_type, (int64_t)n);
}

tm_status tm__cache_grow(tm_model *model, tm__cache *cache, int64_t capacity) {
    tm__cache *grown;
    if (capacity <= cache->capacity) return TM_OK;
    TM__TRY(tm__cache_create(model, cache->slots, capacity, cache->prefix, cache->shared, &grown));
    tm_status status = TM_OK;
    size_t row = row_elements(model), n = (size_t)cache->capacity * row, wide = (size_t)capacity * row;
    for (int64_t i = 0; i < model->config.layers; i++)
        for (size_t s = 0; status == TM_OK && s < (size_t)cache->slots; s++) {
            status = copy(model, grown->k[i], s * wide, cache->k[i], type_of(model), s * n, n);
            if (status == TM_OK) status = copy(model, grown->v[i], s * wide, cache->v[i], type_of(model), s * n, n);
        }
    if (status == TM_OK) { /* the old buffers leave with `grown` */
        tm__cache old = *cache;
        *cache = *grown;
        *grown = old;
    }
    tm__cache_free(model, grown);
    return status;
}

void tm__cache_share(tm__cache *cache, const tm__cache *prefix, int64_t shared) {
    assert(prefix ? shared <= prefix->capacity && !prefix->shared : !shared);
    cache->prefix = prefix;
    cache->shared = shared;
}

tm_status tm__cache_copy(tm_model *model, tm__cache *cache, int64_t from, int64_t to, int64_t count) {
    size_t row = row_elements(model), n = (size_t)count * row, wide = (size_t)cache->capacity * row;
    size_t source = (size_t)from * wide, target = (size_t)to * wide;
    for (int64_t i = 0; i < model->config.layers; i++) {
        TM__TRY(copy(model, cache->k[i], target, cache->k[i], type_of(model), source, n));
        TM__TRY(copy(model, cache->v[i], target, cache->v[i], type_of(model), source, n));
    }
    return TM_OK;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Writes rows (tokens, kv_heads * head_dim) into a layer's cache; runs of one slot's successive positions are one copy.
 */
static tm_status store(const tm__block_run *run, void *cache, const void *rows) {
    const tm__attention_cached *a = &run->cached;
    size_t row = row_elements(run->model);
    for (int64_t i = 0, n; i < a->tokens; i += n) {
        for (n = 1; i + n < a->tokens && a->slot[i + n] == a->slot[i]; n++)
            if (a->position[i + n] != a->position[i] + n) break;
        size_t at = ((size_t)a->slot[i] * (size_t)a->capacity + (size_t)(a->position[i] - a->prefix)) * row;
        TM__TRY(copy(run->model, cache, at, rows, run->model->dev->act, (size_t)i * row, (size_t)n * row));
    }
    return TM_OK;
}

tm_status tm__cache_attend(tm__tape *tape, const tm__block_run *run, tm__var *q, tm__var *k, tm__var *v,
                           tm__var **out) {
    tm_device *dev = run->model->dev;
    const tm__attention_cached *a = &run->cached;
    const tm__rope_table *rope = run->rope;
    void *cache_k = run->cache->k[run->layer], *cache_v = run->cache->v[run->layer];
    TM__TRY(dev->k->rope(dev, q->value.data, false, q->value.data, rope->cos, rope->sin, run->position, a->tokens,
                         a->heads, a->head_dim, rope->rotary, 1));
    TM__TRY(dev->k->rope(dev, k->value.data, false, k->value.data, rope->cos, rope->sin, run->position, a->tokens,
                         a->kv_heads, a->head_dim, rope->rotary, 1));
    TM__TRY(store(run, cache_k, k->value.data));
    TM__TRY(store(run, cache_v, v->value.data));
    tm__tape_drop(tape, k);
    tm__tape_drop(tape, v);
    const int64_t shape[] = {a->tokens, a->heads * a->head_dim};
    TM__TRY(tm__tape_output(tape, 2, shape, false, out));
    TM__TRY(dev->k->attention_cached(dev, (*out)->value.data, q->value.data, cache_k, cache_v, a));
    tm__tape_drop(tape, q);
    return TM_OK;
}

static tm_status check_tokens(const tm_model *model, const tm__cache *cache, int64_t tokens, const int32_t *ids,
                              const int32_t *slot, const int32_t *position) {
    for (int64_t i = 0; i < tokens; i++) {
        int64_t at = position[i] - cache->shared;
        TM__TRY(tm__model_check_id(model, ids[i]));
        if (slot[i] < 0 || slot[i] >= cache->slots || at < 0 || at >= cache->capacity)
            return tm__fail(TM_INVALID, NULL, NULL, NULL, "slot %d, position %d lies outside the cache", slot[i],
                            position[i]);
    }
    return TM_OK;
}

/* The rotary table and its rows, as in forward.c. length NULL: a slot's sequence ends with its last token here. */
static tm_status find_rope(tm_model *model, tm__tape *tape, int64_t slots, int64_t tokens, const int32_t *slot,
                           const int32_t *position, const int32_t *length, tm__block_run *run) {
    int64_t positions = 0;
    for (int64_t i = 0; i < tokens; i++)
        positions = TM__MAX(positions, (int64_t)(length ? length[i] : position[i] + 1));
    run->rope = &model->rope;
    run->position = position;
    if (!tm__rope_depends(&model->config, positions)) return tm__rope_reserve(model, positions);
    if (length) return tm__rope_rows(model, tape, tokens, position, length, &run->rope, &run->position);
    int32_t *end = tm__zalloc((size_t)slots, sizeof *end), *known = tm__alloc((size_t)tokens, sizeof *known);
    tm_status status = end && known ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        for (int64_t i = 0; i < tokens; i++) end[slot[i]] = TM__MAX(end[slot[i]], position[i] + 1);
        for (int64_t i = 0; i < tokens; i++) known[i] = end[slot[i]];
        status = tm__rope_rows(model, tape, tokens, position, known, &run->rope, &run->position);
    }
    free(end);
    free(known);
    return status;
}

tm_status tm__model_decode(tm_model *model, tm__tape *tape, tm__cache *cache, int64_t tokens, const int32_t *ids,
                           const int32_t *slot, const int32_t *position, const int32_t *length, tm__var **hidden) {
    const tm__config *c = &model->config;
    const tm__kernels *kernels = model->dev->k;
    tm__var *x, *y;
    assert(!tape->recording && tape->row_invariant);
    if (!kernels->attention_cached) return tm__device_lacks(model->dev, "attention_cached");
    if (!kernels->rope) return tm__device_lacks(model->dev, "rope");
    TM__TRY(check_tokens(model, cache, tokens, ids, slot, position));
    tm__block_run run = {.model = model,
                         .cache = cache,
                         .cached = {.tokens = tokens,
                                    .bf16 = type_of(model) == TM_BF16,
                                    .heads = c->heads,
                                    .kv_heads = c->kv_heads,
                                    .head_dim = c->head_dim,
                                    .capacity = cache->capacity,
                                    .prefix = cache->shared,
                                    .slot = slot,
                                    .position = position,
                                    .scale = c->attention_scale,
                                    .soft_cap = c->attention_cap}};
    TM__TRY(find_rope(model, tape, cache->slots, tokens, slot, position, length, &run));
    TM__TRY(tm__model_embed(model, tape, ids, tokens, &x));
    for (run.layer = 0; run.layer < c->layers; run.layer++) {
        run.cached.window = c->window ? c->window[run.layer] : 0;
        run.cached.prefix_k = cache->prefix ? cache->prefix->k[run.layer] : NULL;
        run.cached.prefix_v = cache->prefix ? cache->prefix->v[run.layer] : NULL;
        TM__TRY(tm__block_forward(tape, &run, x, &y));
        tm__tape_drop(tape, x);
        x = y;
    }
    TM__TRY(tm__model_norm(model, tape, x, &model->final_norm, hidden));
    tm__tape_drop(tape, x);
    return TM_OK;
}
