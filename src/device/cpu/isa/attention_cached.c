/* attention_cached.c: attention of new tokens over the key-value cache.
 *
 * The cache is read where it lies, once for all query heads that share a key-value head: inner products of contiguous
 * rows, softmax, mix of values. A task is one token and one key-value head; nothing in it depends on the other tokens
 * of the call. Every score and every sum over keys is formed in one order, whether its keys lie in the prefix that all
 * slots share or in the slot's own rows, and however many heads go together.
 */
#include "device/cpu/isa/simd.h"

#include <omp.h>

enum {
    KEYS = 4,                 /* scored together */
    HEADS = VL == 16 ? 4 : 2, /* go together: as many sums as the registers hold */
    TOGETHER = 4,             /* vectors of the output that are summed at once */
    CHUNK = 4,                /* tasks handed out at a time, where there are MANY such for each thread */
    MANY = 4,
    AHEAD = 12,            /* rows that are asked for in advance: those of one head are not contiguous */
    NEAR_BYTES = 256 << 10 /* of a token's keys or values that stay in a second-level cache for its other heads */
};

/* Keys or values of a token's context: `shared` rows of the prefix, then the slot's own. Rows are `stride` apart; of
 * each, `ask` elements are asked for in advance. */
typedef struct context {
    const void *shared, *own;
    int64_t shared_rows, rows; /* of the prefix; of both */
    int64_t stride, ask;
} context;

/* sum (heads, KEYS) += products of the first n <= VL elements from c on. */
TM__INLINE void add_products(int heads, tm_dtype type, vf sum[HEADS][KEYS], const float *q, int64_t d, const void *keys,
                             const int64_t row[KEYS], int64_t c, int64_t n) {
    vf key[KEYS];
    for (int x = 0; x < KEYS; x++) key[x] = load_as(keys, type, row[x] + c, n);
    for (int h = 0; h < heads; h++) {
        vf query = load_part(q + c + h * d, n, 0);
        for (int x = 0; x < KEYS; x++) sum[h][x] += query * key[x];
    }
}

/* Scores of `heads` queries (heads, d) against n rows of keys; score rows are `room` apart. `heads` and `type` are
 * constants where this is inlined. */
TM__INLINE void score_rows(int heads, tm_dtype type, float *score, int64_t room, const float *q, const void *keys,
                           int64_t n, int64_t stride, int64_t ask, int64_t d, float factor) {
    for (int64_t j = 0; j < n; j += KEYS) {
        vf sum[HEADS][KEYS];
        int64_t row[KEYS];
        int64_t count = TM__MIN(n - j, (int64_t)KEYS);
        for (int x = 0; x < KEYS; x++) row[x] = TM__MIN(j + x, n - 1) * stride;
        for (int64_t x = j + AHEAD; x < TM__MIN(j + AHEAD + KEYS, n); x++) ask_for(keys, type, x * stride, ask, 2);
        for (int h = 0; h < heads; h++)
            for (int x = 0; x < KEYS; x++) sum[h][x] = splat(0);
        int64_t c = 0;
        for (; c + VL <= d; c += VL) add_products(heads, type, sum, q, d, keys, row, c, VL);
        if (c < d) add_products(heads, type, sum, q, d, keys, row, c, d - c);
        for (int h = 0; h < heads; h++) {
            f4 s = four_sums(sum[h]) * (factor - (f4){0});
            if (count == KEYS)
                *(f4 *)(score + h * room + j) = s;
            else
                memcpy(score + h * room + j, &s, (size_t)count * sizeof *score);
        }
    }
}

#define SCORE_HEADS(heads)                                                           \
    if (type == TM_F32)                                                              \
        score_rows(heads, TM_F32, score, room, q, keys, n, stride, ask, d, factor);  \
    else                                                                             \
        score_rows(heads, TM_BF16, score, room, q, keys, n, stride, ask, d, factor); \
    break;

static void score_keys(int64_t heads, tm_dtype type, float *score, int64_t room, const float *q, const void *keys,
                       int64_t n, int64_t stride, int64_t ask, int64_t d, float factor) {
    switch (heads) {
    case 1:
        SCORE_HEADS(1)
    case 2:
        SCORE_HEADS(2)
#if TM__LANES == 16
    case 3:
        SCORE_HEADS(3)
    case 4:
        SCORE_HEADS(4)
#endif
    }
}

/* Scores of one head become weights; returns their sum. */
static float weigh(float *score, int64_t n, float cap) {
    vf most = splat(-INFINITY), sum = splat(0);
    for (int64_t j = 0; j < n; j += VL) most = larger(most, load_part(score + j, n - j, -INFINITY));
    float top = lanes_max(most);
    if (cap > 0) { /* tanh is monotone: the largest stays the largest */
        cap_values(score, n, cap);
        cap_values(&top, 1, cap);
    }
    for (int64_t j = 0; j < n; j += VL) {
        vf p = exp_lanes(load_part(score + j, n - j, -INFINITY) - splat(top));
        sum += p;
        store_part(score + j, p, n - j);
    }
    return lanes_sum(sum);
}

/* sum (heads, vectors) += p_j values_j over n rows, from column c on. Constants: heads, type, vectors, whole. */
TM__INLINE void mix_rows(int heads, tm_dtype type, int vectors, bool whole, vf sum[HEADS][TOGETHER], const float *p,
                         int64_t room, const void *values, int64_t n, int64_t stride, int64_t ask, int64_t d,
                         int64_t c) {
    for (int64_t j = 0; j < n; j++) {
        vf value[TOGETHER];
        if (j + AHEAD < n) ask_for(values, type, (j + AHEAD) * stride, ask, 2);
        for (int x = 0; x < vectors; x++) {
            int64_t at = c + x * VL;
            value[x] = load_as(values, type, j * stride + at, whole ? VL : d - at);
        }
        for (int h = 0; h < heads; h++)
            for (int x = 0; x < vectors; x++) sum[h][x] += splat(p[h * room + j]) * value[x];
    }
}

/* out (heads, d) = sum_j p_j values_j / total, columns c and on. */
TM__INLINE void mix_columns(int heads, tm_dtype type, int vectors, bool whole, float *out, const float *p, int64_t room,
                            const context *v, int64_t d, int64_t c, const float *total) {
    vf sum[HEADS][TOGETHER];
    int64_t ask = c == 0 ? v->ask : 0;
    for (int h = 0; h < heads; h++)
        for (int x = 0; x < vectors; x++) sum[h][x] = splat(0);
    mix_rows(heads, type, vectors, whole, sum, p, room, v->shared, v->shared_rows, v->stride, ask, d, c);
    mix_rows(heads, type, vectors, whole, sum, p + v->shared_rows, room, v->own, v->rows - v->shared_rows, v->stride,
             ask, d, c);
    for (int h = 0; h < heads; h++)
        for (int x = 0; x < vectors; x++) {
            int64_t at = c + x * VL;
            store_part(out + h * d + at, sum[h][x] * splat(1 / total[h]), whole ? VL : d - at);
        }
}

TM__INLINE void mix_heads(int heads, tm_dtype type, float *out, const float *p, int64_t room, const context *v,
                          int64_t d, const float *total) {
    int64_t c = 0;
    for (; c + TOGETHER * VL <= d; c += TOGETHER * VL)
        mix_columns(heads, type, TOGETHER, true, out, p, room, v, d, c, total);
    for (; c < d; c += VL) mix_columns(heads, type, 1, false, out, p, room, v, d, c, total);
}

#define MIX_HEADS(heads)                                      \
    if (type == TM_F32)                                       \
        mix_heads(heads, TM_F32, out, p, room, v, d, total);  \
    else                                                      \
        mix_heads(heads, TM_BF16, out, p, room, v, d, total); \
    break;

static void mix_values(int64_t heads, tm_dtype type, float *out, const float *p, int64_t room, const context *v,
                       int64_t d, const float *total) {
    switch (heads) {
    case 1:
        MIX_HEADS(1)
    case 2:
        MIX_HEADS(2)
#if TM__LANES == 16
    case 3:
        MIX_HEADS(3)
    case 4:
        MIX_HEADS(4)
#endif
    }
}

/* Rows [first, last) of a slot's keys or values. Where a token's heads follow each other the first asks for all. */
static context context_of(const tm__attention_cached *a, const void *cache, const void *prefix, int64_t slot,
                          int64_t head, int64_t first, int64_t last, bool together) {
    int64_t d = a->head_dim, stride = a->kv_heads * d, shared = TM__MAX(a->prefix - first, (int64_t)0);
    int64_t size = a->bf16 ? 2 : 4, own = slot * a->capacity + first + shared - a->prefix;
    bool near = together && (last - first) * stride * size <= NEAR_BYTES;
    return (context){.shared = shared ? (const char *)prefix + (first * stride + head * d) * size : NULL,
                     .own = (const char *)cache + (own * stride + head * d) * size,
                     .shared_rows = TM__MIN(shared, last - first),
                     .rows = last - first,
                     .stride = stride,
                     .ask = near ? (head == 0 ? stride : 0) : d};
}

/* One token and key-value head. score: (HEADS, room) */
static void attend(float *out, const float *q, const void *cache_k, const void *cache_v, const tm__attention_cached *a,
                   int64_t token, int64_t head, bool together, float *score, int64_t room) {
    int64_t d = a->head_dim, group = a->heads / a->kv_heads, last = a->position[token] + 1;
    int64_t first = a->window > 0 && last > a->window ? last - a->window : 0;
    context k = context_of(a, cache_k, a->prefix_k, a->slot[token], head, first, last, together);
    context v = context_of(a, cache_v, a->prefix_v, a->slot[token], head, first, last, together);
    tm_dtype type = a->bf16 ? TM_BF16 : TM_F32;
    for (int64_t g = 0; g < group; g += HEADS) {
        int64_t heads = TM__MIN(group - g, (int64_t)HEADS), row = (token * a->heads + head * group + g) * d;
        float total[HEADS];
        score_keys(heads, type, score, room, q + row, k.shared, k.shared_rows, k.stride, k.ask, d, (float)a->scale);
        score_keys(heads, type, score + k.shared_rows, room, q + row, k.own, k.rows - k.shared_rows, k.stride, k.ask, d,
                   (float)a->scale);
        for (int64_t h = 0; h < heads; h++) total[h] = weigh(score + h * room, k.rows, (float)a->soft_cap);
        mix_values(heads, type, out + row, score, room, &v, d, total);
    }
}

/* Where a prefix is shared, tasks of one head follow each other, so that its rows stay in the cache. */
tm_status TM__ISA(attention_cached)(tm_device *dev, void *out, const void *q, const void *cache_k, const void *cache_v,
                                    const tm__attention_cached *a) {
    int64_t room = (a->prefix + a->capacity + VL - 1) / VL * VL;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, 0, (size_t)(HEADS * room) * 4, &scratch));
    double keys = 0;
    for (int64_t i = 0; i < a->tokens; i++) keys += a->position[i] + 1;
    int team = tm__cpu_team(dev, keys * (double)(a->heads * a->head_dim) / 4);
    int64_t tasks = a->tokens * a->kv_heads;
    bool together = !a->prefix && a->tokens >= MANY * team;
    int64_t chunk = together ? a->kv_heads : tasks >= MANY * CHUNK * team ? CHUNK : 1;
#pragma omp parallel for schedule(dynamic, chunk) num_threads(team)
    for (int64_t task = 0; task < tasks; task++) {
        float *score = (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num());
        int64_t token = a->prefix ? task % a->tokens : task / a->kv_heads;
        int64_t head = a->prefix ? task / a->tokens : task % a->kv_heads;
        attend(out, q, cache_k, cache_v, a, token, head, together, score, room);
    }
    return TM_OK;
}
