/* norm.c: RMS and layer normalisation. A row is one thread's; column sums are partial sums over TM__CPU_ROWS rows,
 * added in order. */
#include "device/cpu/isa/simd.h"

enum { ROWS = TM__CPU_ROWS };

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
                           double shift, int64_t n, int64_t d, double eps) {
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)d * 4, 0, &scratch));
    const float *weight = widened(w, w_type, (float)shift, d, (float *)scratch.shared);
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
                                const void *w, tm_dtype w_type, double shift, const void *rstd, int64_t n, int64_t d) {
    int64_t parts = (n + ROWS - 1) / ROWS;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(d + (dw ? parts * d : 0)) * 4, 0, &scratch));
    const float *weight = widened(w, w_type, (float)shift, d, (float *)scratch.shared);
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

/* ---- layer normalisation ----------------------------------------------------------------------------------------- */

static void layernorm_row(float *y, float *mean, float *rstd, const float *x, const float *w, const float *b, int64_t d,
                          double eps) {
    vf sum = splat(0), squares = splat(0);
    for (int64_t j = 0; j < d; j += VL) sum += load_part(x + j, d - j, 0);
    *mean = (float)((double)lanes_sum(sum) / (double)d);
    for (int64_t j = 0; j < d; j += VL) {
        vf v = load_part(x + j, d - j, *mean) - splat(*mean);
        squares += v * v;
    }
    *rstd = (float)(1 / sqrt((double)lanes_sum(squares) / (double)d + eps));
    for (int64_t j = 0; j < d; j += VL) {
        vf v = (load_part(x + j, d - j, 0) - splat(*mean)) * splat(*rstd);
        store_part(y + j, v * load_part(w + j, d - j, 0) + load_part(b + j, d - j, 0), d - j);
    }
}

tm_status TM__ISA(layernorm)(tm_device *dev, void *y, void *mean, void *rstd, const void *x, const void *w,
                             tm_dtype w_type, const void *b, tm_dtype b_type, int64_t n, int64_t d, double eps) {
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(2 * d) * 4, 0, &scratch));
    const float *weight = widened(w, w_type, 0, d, (float *)scratch.shared);
    const float *bias = widened(b, b_type, 0, d, (float *)scratch.shared + d);
    int team = tm__cpu_team(dev, (double)n * (double)d / 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        layernorm_row((float *)y + i * d, (float *)mean + i, (float *)rstd + i, (const float *)x + i * d, weight, bias,
                      d, eps);
    return TM_OK;
}

/* With h = (x - mean) r and g = w dy:  dw += dy h;  db += dy;  dx = r (g - mean(g) - h mean(g h)). Each may be NULL. */
static void layernorm_grad_row(float *dx, bool accumulate, float *dw, float *db, const float *dy, const float *x,
                               const float *w, float mean, float r, int64_t d) {
    vf plain = splat(0), inner = splat(0);
    for (int64_t j = 0; j < d; j += VL) {
        vf out = load_part(dy + j, d - j, 0), h = (load_part(x + j, d - j, 0) - splat(mean)) * splat(r);
        vf g = load_part(w + j, d - j, 0) * out;
        plain += g;
        inner += g * h;
        if (dw) store_part(dw + j, load_part(dw + j, d - j, 0) + out * h, d - j);
        if (db) store_part(db + j, load_part(db + j, d - j, 0) + out, d - j);
    }
    if (!dx) return;
    float mean_g = (float)((double)lanes_sum(plain) / (double)d),
          mean_gh = (float)((double)lanes_sum(inner) / (double)d);
    for (int64_t j = 0; j < d; j += VL) {
        vf h = (load_part(x + j, d - j, 0) - splat(mean)) * splat(r);
        vf g = load_part(w + j, d - j, 0) * load_part(dy + j, d - j, 0);
        vf value = splat(r) * (g - splat(mean_g) - h * splat(mean_gh));
        if (accumulate) value += load_part(dx + j, d - j, 0);
        store_part(dx + j, value, d - j);
    }
}

/* sums: per part, d of dw and d of db. */
tm_status TM__ISA(layernorm_grad)(tm_device *dev, void *dx, bool accumulate, void *dw, void *db, const void *dy,
                                  const void *x, const void *w, tm_dtype w_type, const void *mean, const void *rstd,
                                  int64_t n, int64_t d) {
    int64_t parts = (n + ROWS - 1) / ROWS;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(d + 2 * parts * d) * 4, 0, &scratch));
    const float *weight = widened(w, w_type, 0, d, (float *)scratch.shared);
    float *sums = (float *)scratch.shared + d;
    int team = tm__cpu_team(dev, (double)n * (double)d);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t part = 0; part < parts; part++) {
        float *sum = sums + 2 * part * d;
        memset(sum, 0, (size_t)(2 * d) * 4);
        for (int64_t i = part * ROWS; i < TM__MIN(n, (part + 1) * ROWS); i++)
            layernorm_grad_row(dx ? (float *)dx + i * d : NULL, accumulate, dw ? sum : NULL, db ? sum + d : NULL,
                               (const float *)dy + i * d, (const float *)x + i * d, weight, ((const float *)mean)[i],
                               ((const float *)rstd)[i], d);
    }
    for (int64_t part = 0; part < parts; part++)
        for (int64_t j = 0; j < d; j++) {
            if (dw) ((float *)dw)[j] += sums[2 * part * d + j];
            if (db) ((float *)db)[j] += sums[(2 * part + 1) * d + j];
        }
    return TM_OK;
}
