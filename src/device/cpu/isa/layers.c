/* layers.c: normalisation, rotation and gate. A row, or a chunk of the flat gate, is one thread's; column sums are
 * partial sums over TM__CPU_ROWS rows, added in order. */
#include "device/cpu/isa/simd.h"

enum { ROWS = TM__CPU_ROWS, CHUNK = TM__CPU_CHUNK };

static void rmsnorm_row(float *y, float *rstd, const float *x, const float *w, int64_t d, double eps) {
    vf squares = splat(0);
    for (int64_t j = 0; j < d; j += VL) {
        vf v = load_part(x + j, d - j, 0);
        squares += v * v;
    }
    *rstd = (float)(1 / sqrt((double)lanes_sum(squares) / (double)d + eps));
    for (int64_t j = 0; j < d; j += VL)
        store_part(y + j, load_part(x + j, d - j, 0) * splat(*rstd) * load_part(w + j, d - j, 0), d - j);
}

tm_status TM__ISA(rmsnorm)(tm_device *dev, void *y, void *rstd, const void *x, const void *w, tm_dtype w_type,
                           int64_t n, int64_t d, double eps) {
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)d * 4, 0, &scratch));
    const float *weight = widened(w, w_type, d, (float *)scratch.shared);
    int team = tm__cpu_team(dev, (double)n * (double)d / 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        rmsnorm_row((float *)y + i * d, (float *)rstd + i, (const float *)x + i * d, weight, d, eps);
    return TM_OK;
}

/* dx_j = r w_j dy_j - x_j r^3 / d * sum_k w_k dy_k x_k;   dw_j += dy_j x_j r. Either may be NULL. */
static void rmsnorm_grad_row(float *dx, bool accumulate, float *dw, const float *dy, const float *x, const float *w,
                             float r, int64_t d) {
    vf inner = splat(0);
    for (int64_t j = 0; j < d; j += VL) {
        vf g = load_part(dy + j, d - j, 0), v = load_part(x + j, d - j, 0);
        inner += load_part(w + j, d - j, 0) * g * v;
        if (dw) store_part(dw + j, load_part(dw + j, d - j, 0) + g * v * splat(r), d - j);
    }
    if (!dx) return;
    float back = (float)((double)lanes_sum(inner) * (double)r * (double)r * (double)r / (double)d);
    for (int64_t j = 0; j < d; j += VL) {
        vf value = splat(r) * load_part(w + j, d - j, 0) * load_part(dy + j, d - j, 0) -
                   load_part(x + j, d - j, 0) * splat(back);
        if (accumulate) value += load_part(dx + j, d - j, 0);
        store_part(dx + j, value, d - j);
    }
}

tm_status TM__ISA(rmsnorm_grad)(tm_device *dev, void *dx, bool accumulate, void *dw, const void *dy, const void *x,
                                const void *w, tm_dtype w_type, const void *rstd, int64_t n, int64_t d) {
    int64_t parts = (n + ROWS - 1) / ROWS;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(d + (dw ? parts * d : 0)) * 4, 0, &scratch));
    const float *weight = widened(w, w_type, d, (float *)scratch.shared);
    float *sums = (float *)scratch.shared + d;
    int team = tm__cpu_team(dev, (double)n * (double)d);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t part = 0; part < parts; part++) {
        float *sum = dw ? sums + part * d : NULL;
        if (sum) memset(sum, 0, (size_t)d * 4);
        for (int64_t i = part * ROWS; i < TM__MIN(n, (part + 1) * ROWS); i++)
            rmsnorm_grad_row(dx ? (float *)dx + i * d : NULL, accumulate, sum, (const float *)dy + i * d,
                             (const float *)x + i * d, weight, ((const float *)rstd)[i], d);
    }
    for (int64_t part = 0; dw && part < parts; part++)
        for (int64_t j = 0; j < d; j++) ((float *)dw)[j] += sums[part * d + j];
    return TM_OK;
}

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
    const float *b = widened(bias, bias_type, d, (float *)scratch.shared);
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

tm_status TM__ISA(swiglu)(tm_device *dev, void *y, const void *gate, const void *up, int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < TM__MIN(n, lo + CHUNK); i += VL) {
            vf g = load_part((const float *)gate + i, n - i, 0), u = load_part((const float *)up + i, n - i, 0);
            store_part((float *)y + i, g * sigmoid(g) * u, n - i);
        }
    return TM_OK;
}

/* silu'(g) = s + g s (1 - s) with s = sigmoid(g) */
tm_status TM__ISA(swiglu_grad)(tm_device *dev, void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                               int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK)
        for (int64_t i = lo; i < TM__MIN(n, lo + CHUNK); i += VL) {
            vf g = load_part((const float *)gate + i, n - i, 0), u = load_part((const float *)up + i, n - i, 0);
            vf out = load_part((const float *)dy + i, n - i, 0), s = sigmoid(g);
            if (dgate) store_part((float *)dgate + i, out * u * (s + g * s * (splat(1) - s)), n - i);
            if (dup) store_part((float *)dup + i, out * g * s, n - i);
        }
    return TM_OK;
}
