/* norm.c: layer normalisation. A row is one thread's. */
#include "device/cpu/isa/simd.h"

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
    const float *weight = widened(w, w_type, d, (float *)scratch.shared);
    const float *bias = widened(b, b_type, d, (float *)scratch.shared + d);
    int team = tm__cpu_team(dev, (double)n * (double)d / 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        layernorm_row((float *)y + i * d, (float *)mean + i, (float *)rstd + i, (const float *)x + i * d, weight, bias,
                      d, eps);
    return TM_OK;
}
