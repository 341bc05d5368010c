/* attention_cached.c: attention of new tokens over the key-value cache.
 *
 * The cache is read where it lies, once per query head: inner products of contiguous rows, softmax, mix of values. A
 * task is one token and one key-value head; nothing in it depends on the other tokens of the call.
 */
#include "device/cpu/isa/simd.h"

#include <omp.h>

enum { TOGETHER = 4 }; /* vectors of the output that are summed at once */

/* Scores of one query against n keys, `stride` floats apart; returns the maximum. */
static float score_keys(float *score, const float *q, const float *keys, int64_t n, int64_t stride, int64_t d,
                        float factor, float cap) {
    float top = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        vf sum = splat(0);
        for (int64_t c = 0; c < d; c += VL)
            sum += load_part(q + c, d - c, 0) * load_part(keys + j * stride + c, d - c, 0);
        float s = lanes_sum(sum) * factor;
        score[j] = s;
        top = s > top ? s : top;
    }
    if (cap > 0) { /* tanh is monotone: the largest stays the largest */
        cap_values(score, n, cap);
        cap_values(&top, 1, cap);
    }
    return top;
}

static float softmax_sum(float *score, int64_t n, float top) {
    vf sum = splat(0);
    for (int64_t j = 0; j < n; j += VL) {
        vf p = exp_lanes(load_part(score + j, n - j, -INFINITY) - splat(top));
        sum += p;
        store_part(score + j, p, n - j);
    }
    return lanes_sum(sum);
}

/* out (d) = sum_j p_j values_j / total */
static void mix_values(float *out, const float *p, const float *values, int64_t n, int64_t stride, int64_t d,
                       float total) {
    for (int64_t c = 0; c < d; c += TOGETHER * VL) {
        int64_t vectors = TM__MIN((d - c + VL - 1) / VL, (int64_t)TOGETHER);
        vf sum[TOGETHER];
        for (int x = 0; x < TOGETHER; x++) sum[x] = splat(0);
        for (int64_t j = 0; j < n; j++)
            for (int64_t x = 0; x < vectors; x++) {
                int64_t at = c + x * VL;
                sum[x] += splat(p[j]) * load_part(values + j * stride + at, d - at, 0);
            }
        for (int64_t x = 0; x < vectors; x++) {
            int64_t at = c + x * VL;
            store_part(out + at, sum[x] * splat(1 / total), d - at);
        }
    }
}

tm_status TM__ISA(attention_cached)(tm_device *dev, void *out, const void *q, const void *cache_k, const void *cache_v,
                                    const tm__attention_cached *a) {
    int64_t d = a->head_dim, stride = a->kv_heads * d, group = a->heads / a->kv_heads;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, 0, (size_t)a->capacity * 4, &scratch));
    double keys = 0;
    for (int64_t i = 0; i < a->tokens; i++) keys += a->position[i] + 1;
    int team = tm__cpu_team(dev, keys * (double)(a->heads * d) / 4);
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (int64_t task = 0; task < a->tokens * a->kv_heads; task++) {
        float *score = (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num());
        int64_t i = task / a->kv_heads, head = task % a->kv_heads, n = a->position[i] + 1, first = 0;
        if (a->window > 0 && n > a->window) first = n - a->window;
        int64_t at = ((a->slot[i] * a->capacity + first) * a->kv_heads + head) * d;
        for (int64_t g = 0; g < group; g++) {
            int64_t row = (i * a->heads + head * group + g) * d;
            float top = score_keys(score, (const float *)q + row, (const float *)cache_k + at, n - first, stride, d,
                                   (float)a->scale, (float)a->soft_cap);
            float total = softmax_sum(score, n - first, top);
            mix_values((float *)out + row, score, (const float *)cache_v + at, n - first, stride, d, total);
        }
    }
    return TM_OK;
}
