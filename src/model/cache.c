/* cache.c: the key-value cache and the forward pass over it.
 *
 * Each layer holds keys (already rotated) and values for `slots` independent sequences of up to `capacity` tokens. A
 * call feeds any number of tokens of any slots: whole prompts, or one token each. Every kernel used is row-invariant,
 * so what a slot computes does not depend on which other slots are in the call.
 */
#include "model/weights.h"

#include <stdlib.h>

static size_t row_elements(const tm_model *model) {
    return (size_t)(model->config.kv_heads * model->config.head_dim);
}

static size_t layer_bytes(const tm_model *model, int64_t slots, int64_t capacity) {
    return (size_t)slots * (size_t)capacity * row_elements(model) * tm__dtype_size(model->dev->act);
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

tm_status tm__cache_create(tm_model *model, int64_t slots, int64_t capacity, tm__cache **cache) {
    size_t layers = (size_t)model->config.layers, bytes = layer_bytes(model, slots, capacity);
    tm__cache *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    *made = (tm__cache){.slots = slots, .capacity = capacity};
    made->k = tm__zalloc(layers, sizeof *made->k);
    made->v = tm__zalloc(layers, sizeof *made->v);
    tm_status status = made->k && made->v ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < layers; i++) {
        status = model->dev->alloc(model->dev, bytes, &made->k[i]);
        if (status == TM_OK) status = model->dev->alloc(model->dev, bytes, &made->v[i]);
    }
    if (status != TM_OK) {
        tm__cache_free(model, made);
        return status;
    }
    *cache = made;
    return TM_OK;
}

/* y = 1 x: how device memory is copied through the kernel table. */
static tm_status copy(tm_device *dev, void *to, size_t to_at, const void *from, size_t from_at, size_t n) {
    size_t size = tm__dtype_size(dev->act);
    return dev->k->scale(dev, (char *)to + to_at * size, 1, (const char *)from + from_at * size, (int64_t)n);
}

tm_status tm__cache_grow(tm_model *model, tm__cache *cache, int64_t capacity) {
    tm__cache *grown;
    if (capacity <= cache->capacity) return TM_OK;
    TM__TRY(tm__cache_create(model, cache->slots, capacity, &grown));
    tm_status status = TM_OK;
    size_t row = row_elements(model), n = (size_t)cache->capacity * row, wide = (size_t)capacity * row;
    for (int64_t i = 0; i < model->config.layers; i++)
        for (size_t s = 0; status == TM_OK && s < (size_t)cache->slots; s++) {
            status = copy(model->dev, grown->k[i], s * wide, cache->k[i], s * n, n);
            if (status == TM_OK) status = copy(model->dev, grown->v[i], s * wide, cache->v[i], s * n, n);
        }
    if (status == TM_OK) { /* the old buffers leave with `grown` */
        tm__cache old = *cache;
        *cache = *grown;
        *grown = old;
    }
    tm__cache_free(model, grown);
    return status;
}

tm_status tm__cache_spread(tm_model *model, tm__cache *cache, int64_t count) {
    size_t row = row_elements(model), n = (size_t)count * row, wide = (size_t)cache->capacity * row;
    for (int64_t i = 0; i < model->config.layers; i++)
        for (size_t s = 1; s < (size_t)cache->slots; s++) {
            TM__TRY(copy(model->dev, cache->k[i], s * wide, cache->k[i], 0, n));
            TM__TRY(copy(model->dev, cache->v[i], s * wide, cache->v[i], 0, n));
        }
    return TM_OK;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

typedef struct decode_run {
    tm_model *model;
    tm__cache *cache;
    tm__attention_cached shape;
} decode_run;

/* Writes rows (tokens, kv_heads * head_dim) into a layer's cache; runs of one slot's successive positions are one copy.
 */
static tm_status store(const decode_run *run, void *cache, const void *rows) {
    const tm__attention_cached *a = &run->shape;
    size_t row = row_elements(run->model);
    for (int64_t i = 0, n; i < a->tokens; i += n) {
        for (n = 1; i + n < a->tokens && a->slot[i + n] == a->slot[i]; n++)
            if (a->position[i + n] != a->position[i] + n) break;
        size_t at = ((size_t)a->slot[i] * (size_t)a->capacity + (size_t)a->position[i]) * row;
        TM__TRY(copy(run->model->dev, cache, at, rows, (size_t)i * row, (size_t)n * row));
    }
    return TM_OK;
}

static tm_status attend(tm__tape *tape, const decode_run *run, int64_t layer, tm__var *x, tm__var **y) {
    tm_device *dev = run->model->dev;
    tm__block *block = &run->model->blocks[layer];
    const tm__attention_cached *a = &run->shape;
    const tm__rope_table *rope = &run->model->rope;
    void *cache_k = run->cache->k[layer], *cache_v = run->cache->v[layer];
    tm__var *normed, *q, *k, *v, *mixed;
    TM__TRY(tm__op_rmsnorm(tape, x, &block->input_norm, run->model->config.rms_eps, &normed));
    TM__TRY(tm__op_linear(tape, normed, &block->q, &q));
    TM__TRY(tm__op_linear(tape, normed, &block->k, &k));
    TM__TRY(tm__op_linear(tape, normed, &block->v, &v));
    tm__tape_drop(tape, normed);
    TM__TRY(dev->k->rope(dev, q->value.data, false, q->value.data, rope->cos, rope->sin, a->position, a->tokens,
                         a->heads, a->head_dim, rope->rotary, 1));
    TM__TRY(dev->k->rope(dev, k->value.data, false, k->value.data, rope->cos, rope->sin, a->position, a->tokens,
                         a->kv_heads, a->head_dim, rope->rotary, 1));
    TM__TRY(store(run, cache_k, k->value.data));
    TM__TRY(store(run, cache_v, v->value.data));
    tm__tape_drop(tape, k);
    tm__tape_drop(tape, v);
    const int64_t shape[] = {a->tokens, a->heads * a->head_dim};
    TM__TRY(tm__tape_output(tape, 2, shape, false, &mixed));
    TM__TRY(dev->k->attention_cached(dev, mixed->value.data, q->value.data, cache_k, cache_v, a));
    tm__tape_drop(tape, q);
    TM__TRY(tm__op_linear(tape, mixed, &block->o, y));
    tm__tape_drop(tape, mixed);
    return TM_OK;
}

static tm_status decode_block(tm__tape *tape, const decode_run *run, int64_t layer, tm__var *x, tm__var **y) {
    tm__block *block = &run->model->blocks[layer];
    tm__var *mixed, *middle, *normed, *gate, *up, *gated, *moved;
    TM__TRY(attend(tape, run, layer, x, &mixed));
    TM__TRY(tm__op_add(tape, x, mixed, &middle));
    tm__tape_drop(tape, mixed);
    TM__TRY(tm__op_rmsnorm(tape, middle, &block->post_norm, run->model->config.rms_eps, &normed));
    TM__TRY(tm__op_linear(tape, normed, &block->gate, &gate));
    TM__TRY(tm__op_linear(tape, normed, &block->up, &up));
    tm__tape_drop(tape, normed);
    TM__TRY(tm__op_swiglu(tape, gate, up, &gated));
    tm__tape_drop(tape, gate);
    tm__tape_drop(tape, up);
    TM__TRY(tm__op_linear(tape, gated, &block->down, &moved));
    tm__tape_drop(tape, gated);
    TM__TRY(tm__op_add(tape, middle, moved, y));
    tm__tape_drop(tape, middle);
    tm__tape_drop(tape, moved);
    return TM_OK;
}

static tm_status check_tokens(const tm_model *model, const tm__cache *cache, int64_t tokens, const int32_t *ids,
                              const int32_t *slot, const int32_t *position, int64_t *positions) {
    *positions = 0;
    for (int64_t i = 0; i < tokens; i++) {
        TM__TRY(tm__model_check_id(model, ids[i]));
        if (slot[i] < 0 || slot[i] >= cache->slots || position[i] < 0 || position[i] >= cache->capacity)
            return tm__fail(TM_INVALID, NULL, NULL, NULL, "slot %d, position %d lies outside the cache", slot[i],
                            position[i]);
        *positions = TM__MAX(*positions, (int64_t)position[i] + 1);
    }
    return TM_OK;
}

tm_status tm__model_decode(tm_model *model, tm__tape *tape, tm__cache *cache, int64_t tokens, const int32_t *ids,
                           const int32_t *slot, const int32_t *position, tm__var **hidden) {
    const tm__config *c = &model->config;
    const tm__kernels *kernels = model->dev->k;
    int64_t positions;
    tm__var *x, *y;
    assert(!tape->recording && tape->row_invariant);
    if (!kernels->attention_cached) return tm__device_lacks(model->dev, "attention_cached");
    if (!kernels->rope) return tm__device_lacks(model->dev, "rope");
    TM__TRY(check_tokens(model, cache, tokens, ids, slot, position, &positions));
    TM__TRY(tm__rope_reserve(model, positions));
    const decode_run run = {.model = model,
                            .cache = cache,
                            .shape = {.tokens = tokens,
                                      .heads = c->heads,
                                      .kv_heads = c->kv_heads,
                                      .head_dim = c->head_dim,
                                      .capacity = cache->capacity,
                                      .slot = slot,
                                      .position = position,
                                      .scale = 1 / sqrt((double)c->head_dim)}};
    TM__TRY(tm__op_embedding(tape, &model->embed, ids, tokens, &x));
    for (int64_t i = 0; i < c->layers; i++) {
        TM__TRY(decode_block(tape, &run, i, x, &y));
        tm__tape_drop(tape, x);
        x = y;
    }
    TM__TRY(tm__op_rmsnorm(tape, x, &model->final_norm, c->rms_eps, hidden));
    tm__tape_drop(tape, x);
    return TM_OK;
}
