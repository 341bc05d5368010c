/* vector.c: element-wise kernels and the optimisers. Tasks are chunks of TM__CPU_CHUNK elements, whatever the number of
 * threads. The loops are left to the compiler to vectorise. */
#include "device/cpu/isa/simd.h"

#include <stdlib.h>

enum { CHUNK = TM__CPU_CHUNK };

#define END(n) TM__MIN(n, lo + CHUNK)

tm_status TM__ISA(add)(tm_device *dev, void *y, const void *a, const void *b, int64_t n) {
    float *to = y;
    const float *x1 = a, *x2 = b;
    int team = tm__cpu_team(dev, (double)n / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < END(n); i++) to[i] = x1[i] + x2[i];
    return TM_OK;
}

tm_status TM__ISA(axpy)(tm_device *dev, void *y, double alpha, const void *x, int64_t n) {
    float *to = y, factor = (float)alpha;
    const float *from = x;
    int team = tm__cpu_team(dev, (double)n / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < END(n); i++) to[i] += factor * from[i];
    return TM_OK;
}

tm_status TM__ISA(scale)(tm_device *dev, void *y, double alpha, const void *x, int64_t n) {
    float *to = y, factor = (float)alpha;
    const float *from = x;
    int team = tm__cpu_team(dev, (double)n / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < END(n); i++) to[i] = factor * from[i];
    return TM_OK;
}

tm_status TM__ISA(fill)(tm_device *dev, void *y, double value, int64_t n) {
    float *to = y, constant = (float)value;
    int team = tm__cpu_team(dev, (double)n / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < END(n); i++) to[i] = constant;
    return TM_OK;
}

/* fp64 sum of one chunk: VL lanes, then pairwise. */
static double dot_chunk(const float *x, const float *y, int64_t n) {
    double lane[VL] = {0};
    int64_t whole = n / VL * VL;
    for (int64_t i = 0; i < whole; i += VL)
        for (int j = 0; j < VL; j++) lane[j] += (double)x[i + j] * (double)y[i + j];
    for (int64_t i = whole; i < n; i++) lane[i - whole] += (double)x[i] * (double)y[i];
    for (int half = VL / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

tm_status TM__ISA(dot)(tm_device *dev, double *result, const void *x, const void *y, int64_t n) {
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)chunks * sizeof(double), 0, &scratch));
    double *partial = (double *)scratch.shared, sum = 0;
    const float *a = x, *b = y;
    int team = tm__cpu_team(dev, (double)n / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t c = 0; c < chunks; c++)
        partial[c] = dot_chunk(a + c * CHUNK, b + c * CHUNK, TM__MIN(n - c * CHUNK, (int64_t)CHUNK));
    for (int64_t c = 0; c < chunks; c++) sum += partial[c];
    *result = sum;
    return TM_OK;
}

static void convert_chunk(uint8_t *to, tm_dtype to_type, const uint8_t *from, tm_dtype from_type, int64_t n) {
    if (to_type == TM_F32 && (from_type == TM_BF16 || from_type == TM_F16)) {
        for (int64_t i = 0; i < n; i += VL) store_part((float *)to + i, load_as(from, from_type, i, n - i), n - i);
        return;
    }
    int64_t done = 0;
    if (to_type == TM_BF16 && from_type == TM_F32)
        for (; done + VL <= n; done += VL) {
            vf rounded = round_to_bf16(load((const float *)from + done));
            *(vh *)((uint16_t *)to + done) = __builtin_convertvector((vu)rounded >> 16, vh);
        }
    tm__convert(to + (size_t)done * tm__dtype_size(to_type), to_type, from + (size_t)done * tm__dtype_size(from_type),
                from_type, (size_t)(n - done));
}

tm_status TM__ISA(convert)(tm_device *dev, void *y, tm_dtype to, const void *x, tm_dtype from, int64_t n) {
    size_t to_size = tm__dtype_size(to), from_size = tm__dtype_size(from);
    if (x == y && to == from) return TM_OK;
    int team = tm__cpu_team(dev, (double)n);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        convert_chunk((uint8_t *)y + (size_t)lo * to_size, to, (const uint8_t *)x + (size_t)lo * from_size, from,
                      END(n) - lo);
    return TM_OK;
}

enum { BLOCKS = 64 };

/* BLOCKS blocks of tm__philox from `first` on, word i of each in word[i]: the same rounds, side by side. */
static void philox_blocks(uint32_t word[4][BLOCKS], uint64_t first, uint64_t seed, uint64_t stream) {
    for (int b = 0; b < BLOCKS; b++) {
        uint64_t counter = first + (uint64_t)b;
        word[0][b] = (uint32_t)counter;
        word[1][b] = (uint32_t)(counter >> 32);
        word[2][b] = (uint32_t)stream;
        word[3][b] = (uint32_t)(stream >> 32);
    }
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        for (int b = 0; b < BLOCKS; b++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * word[0][b], p1 = (uint64_t)0xCD9E8D57u * word[2][b];
            word[0][b] = (uint32_t)(p1 >> 32) ^ word[1][b] ^ k0;
            word[1][b] = (uint32_t)p1;
            word[2][b] = (uint32_t)(p0 >> 32) ^ word[3][b] ^ k1;
            word[3][b] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* Elements [lo, hi), lo a multiple of 4: four per Philox block. An element is kept where its word is `least` or more.
 */
static void dropout_chunk(float *y, bool accumulate, const float *x, int64_t lo, int64_t hi, double p, uint64_t seed,
                          uint64_t stream) {
    uint32_t word[4][BLOCKS], flat[4 * BLOCKS];
    uint64_t least = (uint64_t)ceil(p * 0x1p32);
    float kept = (float)(1 / (1 - p));
    for (int64_t i = lo; i < hi; i += 4 * BLOCKS) {
        philox_blocks(word, (uint64_t)i / 4, seed, stream);
        for (int b = 0; b < BLOCKS; b++)
            for (int w = 0; w < 4; w++) flat[4 * b + w] = word[w][b];
        int64_t n = TM__MIN((int64_t)(4 * BLOCKS), hi - i);
        for (int64_t j = 0; j < n; j++) {
            float value = flat[j] < least ? 0 : x[i + j] * kept;
            y[i + j] = accumulate ? y[i + j] + value : value;
        }
    }
}

tm_status TM__ISA(dropout)(tm_device *dev, void *y, bool accumulate, const void *x, int64_t n, double p, uint64_t seed,
                           uint64_t stream) {
    int team = tm__cpu_team(dev, (double)n * 8);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK) dropout_chunk(y, accumulate, x, lo, END(n), p, seed, stream);
    return TM_OK;
}

/* The decay is part of the step, not of a factor 1 - lr * decay: that would round to 1 in fp32 for small rates. */
static void adamw_chunk(float *restrict w, float *restrict m, float *restrict v, const float *restrict g, int64_t n,
                        const tm__adamw *o) {
    float beta1 = (float)o->beta1, beta2 = (float)o->beta2, rest1 = (float)(1 - o->beta1),
          rest2 = (float)(1 - o->beta2);
    float rate = (float)(o->lr / o->correction1), decay = (float)(o->lr * o->weight_decay);
    float spread = (float)(1 / o->correction2), epsilon = (float)o->epsilon, clip = (float)o->grad_scale;
    for (int64_t i = 0; i < n; i++) {
        float grad = g[i] * clip;
        m[i] = beta1 * m[i] + rest1 * grad;
        v[i] = beta2 * v[i] + rest2 * grad * grad;
        w[i] -= rate * m[i] / (__builtin_sqrtf(v[i] * spread) + epsilon) + decay * w[i];
    }
}

tm_status TM__ISA(adamw)(tm_device *dev, void *w, void *m, void *v, const void *g, int64_t n, const tm__adamw *o) {
    int team = tm__cpu_team(dev, (double)n);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        adamw_chunk((float *)w + lo, (float *)m + lo, (float *)v + lo, (const float *)g + lo, END(n) - lo, o);
    return TM_OK;
}

static void sgd_chunk(float *restrict w, float *restrict velocity, const float *restrict g, int64_t n, float lr,
                      float momentum, float decay, float clip) {
    if (!velocity) {
        for (int64_t i = 0; i < n; i++) w[i] -= lr * (g[i] * clip + decay * w[i]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        velocity[i] = momentum * velocity[i] + (g[i] * clip + decay * w[i]);
        w[i] -= lr * velocity[i];
    }
}

tm_status TM__ISA(sgd)(tm_device *dev, void *w, void *velocity, const void *g, int64_t n, double lr, double momentum,
                       double weight_decay, double grad_scale) {
    int team = tm__cpu_team(dev, (double)n / 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        sgd_chunk((float *)w + lo, velocity ? (float *)velocity + lo : NULL, (const float *)g + lo, END(n) - lo,
                  (float)lr, (float)momentum, (float)weight_decay, (float)grad_scale);
    return TM_OK;
}
