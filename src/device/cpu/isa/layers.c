/* layers.c: biases, rotation and gate. A row, or a chunk of the flat gate, is one thread's; column sums are partial
 * sums over TM__CPU_ROWS rows, added in order. */
#include "device/cpu/isa/simd.h"

enum { ROWS = TM__CPU_ROWS, CHUNK = TM__CPU_CHUNK };

tm_status TM__ISA(bias_grad)(tm_device *dev, void *dbias, const void *dy, int64_t n, int64_t d) {
    int64_t parts = (n + ROWS - 1) / ROWS;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(parts * d) * 4, 0, &scratch));
    float *sums = (float *)scratch.shared;
    const float *from = dy;
    int team = tm__cpu_team(dev, (double)n * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t part = 0; part < parts; part++) {
        memset(sums + part * d, 0, (size_t)d * 4);
        for (int64_t i = part * ROWS; i < TM__MIN(n, (part + 1) * ROWS); i++)
            for (int64_t j = 0; j < d; j++) sums[part * d + j] += from[i * d + j];
    }
    for (int64_t part = 0; part < parts; part++)
        for (int64_t j = 0; j < d; j++) ((float *)dbias)[j] += sums[part * d + j];
    return TM_OK;
}

tm_status TM__ISA(add_bias)(tm_device *dev, void *y, const void *bias, tm_dtype bias_type, int64_t n, int64_t d) {
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)d * 4, 0, &scratch));
    const float *b = widened(bias, bias_type, 0, d, (float *)scratch.shared);
    int team = tm__cpu_team(dev, (double)n * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) ((float *)y)[i * d + j] += b[j];
    return TM_OK;
}

/* One head. y may be x: both halves are read before either is written. */
static void rotate(float *y, bool accumulate, const float *x, const float *cosine, const float *sine, int64_t half,
                   int64_t head_dim, float sign) {
    for (int64_t i = 0; i < half; i += VL) {
        int64_t n = half - i;
        vf a = load_part(x + i, n, 0), b = load_part(x + half + i, n, 0);
        vf c = load_part(cosine + i, n, 0), s = load_part(sine + i, n, 0) * splat(sign);
        vf first = a * c - b * s, second = b * c + a * s;
        if (accumulate) {
            first += load_part(y + i, n, 0);
            second += load_part(y + half + i, n, 0);
        }
        store_part(y + i, first, n);
        store_part(y + half + i, second, n);
    }
    for (int64_t i = 2 * half; i < head_dim; i++) y[i] = accumulate ? y[i] + x[i] : x[i];
}

tm_status TM__ISA(rope)(tm_device *dev, void *y, bool accumulate, const void *x, const void *cos, const void *sin,
                        const int32_t *position, int64_t n, int64_t heads, int64_t head_dim, int64_t rotary, int sign) {
    int64_t half = rotary / 2;
    int team = tm__cpu_team(dev, (double)n * (double)(heads * head_dim) / 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        for (int64_t h = 0; h < heads; h++) {
            int64_t at = (i * heads + h) * head_dim;
            rotate((float *)y + at, accumulate, (const float *)x + at, (const float *)cos + position[i] * half,
                   (const float *)sin + position[i] * half, half, head_dim, (float)sign);
        }
    return TM_OK;
}

TM__INLINE vf sigmoid(vf x) {
    return splat(1) / (splat(1) + exp_lanes(-x));
}

static const float gelu_twice = 1.5957691216057308f, gelu_cube = 0.044715f; /* 2 sqrt(2 / pi) */

/* What act(x) = x s multiplies x by. */
TM__INLINE vf share_of(tm__activation act, vf x) {
    if (act == TM__SILU) return sigmoid(x);
    return sigmoid(splat(gelu_twice) * (x + splat(gelu_cube) * x * x * x));
}

/* act'(x), with s = share_of(act, x) = sigmoid(k(x)): s + x s (1 - s) k'(x) */
TM__INLINE vf slope_of(tm__activation act, vf x, vf s) {
    if (act == TM__SILU) return s + x * s * (splat(1) - s);
    return s + x * s * (splat(1) - s) * (splat(gelu_twice) * (splat(1) + splat(3 * gelu_cube) * x * x));
}

/* Elements [lo, hi); `act` is a constant where these two are called. */
TM__INLINE void gated_chunk(float *y, tm__activation act, const float *gate, const float *up, int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; i += VL) {
        vf g = load_part(gate + i, hi - i, 0), value = g * share_of(act, g);
        if (up) value *= load_part(up + i, hi - i, 0);
        store_part(y + i, value, hi - i);
    }
}

TM__INLINE void gated_grad_chunk(float *dgate, float *dup, const float *dy, tm__activation act, const float *gate,
                                 const float *up, int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; i += VL) {
        vf g = load_part(gate + i, hi - i, 0), out = load_part(dy + i, hi - i, 0), s = share_of(act, g);
        if (dgate) {
            vf scaled = out;
            if (up) scaled *= load_part(up + i, hi - i, 0);
            store_part(dgate + i, scaled * slope_of(act, g, s), hi - i);
        }
        if (dup) store_part(dup + i, out * g * s, hi - i);
    }
}

tm_status TM__ISA(gated)(tm_device *dev, void *y, tm__activation act, const void *gate, const void *up, int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        if (act == TM__SILU)
            gated_chunk(y, TM__SILU, gate, up, lo, TM__MIN(n, lo + CHUNK));
        else
            gated_chunk(y, TM__GELU_TANH, gate, up, lo, TM__MIN(n, lo + CHUNK));
    return TM_OK;
}

tm_status TM__ISA(gated_grad)(tm_device *dev, void *dgate, void *dup, const void *dy, tm__activation act,
                              const void *gate, const void *up, int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        if (act == TM__SILU)
            gated_grad_chunk(dgate, dup, dy, TM__SILU, gate, up, lo, TM__MIN(n, lo + CHUNK));
        else
            gated_grad_chunk(dgate, dup, dy, TM__GELU_TANH, gate, up, lo, TM__MIN(n, lo + CHUNK));
    return TM_OK;
}

tm_status TM__ISA(soft_cap)(tm_device *dev, void *x, double cap, int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK) cap_values((float *)x + lo, TM__MIN(n - lo, (int64_t)CHUNK), (float)cap);
    return TM_OK;
}
