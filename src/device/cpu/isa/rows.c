/* rows.c: rows of tables, and the loss over rows of logits. */
#include "device/cpu/isa/simd.h"

enum { COLUMNS = 64 }; /* of an embedding gradient per task: all tokens in order, so that every sum has one order */

tm_status TM__ISA(embedding)(tm_device *dev, void *y, const void *table, tm_dtype table_type, const int32_t *ids,
                             int64_t n, int64_t d) {
    int team = tm__cpu_team(dev, (double)n * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j += VL)
            store_part((float *)y + i * d + j, load_as(table, table_type, ids[i] * d + j, d - j), d - j);
    return TM_OK;
}

tm_status TM__ISA(embedding_grad)(tm_device *dev, void *dtable, const void *dy, const int32_t *ids, int64_t n,
                                  int64_t d) {
    int team = tm__cpu_team(dev, (double)n * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < d; lo += COLUMNS) {
        int64_t hi = TM__MIN(d, lo + COLUMNS);
        for (int64_t i = 0; i < n; i++) {
            float *to = (float *)dtable + ids[i] * d;
            const float *from = (const float *)dy + i * d;
            for (int64_t j = lo; j < hi; j++) to[j] += from[j];
        }
    }
    return TM_OK;
}

tm_status TM__ISA(gather_rows)(tm_device *dev, void *y, const void *x, const int32_t *rows, int64_t m, int64_t d) {
    int team = tm__cpu_team(dev, (double)m * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < m; i++) memcpy((float *)y + i * d, (const float *)x + rows[i] * d, (size_t)d * 4);
    return TM_OK;
}

tm_status TM__ISA(scatter_rows)(tm_device *dev, void *x, const void *y, const int32_t *rows, int64_t m, int64_t d) {
    int team = tm__cpu_team(dev, (double)m * (double)d / 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < m; i++) {
        float *to = (float *)x + rows[i] * d;
        const float *from = (const float *)y + i * d;
        for (int64_t j = 0; j < d; j++) to[j] += from[j];
    }
    return TM_OK;
}

/* log sum exp of a row; four vectors of sums keep the error of long rows small and the adders busy. */
static double row_lse(const float *row, int64_t n) {
    vf max[4], sum[4];
    for (int j = 0; j < 4; j++) {
        max[j] = splat(-INFINITY);
        sum[j] = splat(0);
    }
    for (int64_t i = 0; i < n; i += 4 * VL)
        for (int j = 0; j < 4; j++)
            if (n - i > j * VL) max[j] = larger(load_part(row + i + j * VL, n - i - j * VL, -INFINITY), max[j]);
    float top = lanes_max(larger(larger(max[0], max[1]), larger(max[2], max[3])));
    for (int64_t i = 0; i < n; i += 4 * VL)
        for (int j = 0; j < 4; j++)
            if (n - i > j * VL)
                sum[j] += exp_lanes(load_part(row + i + j * VL, n - i - j * VL, -INFINITY) - splat(top));
    return (double)top + log((double)lanes_sum((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

tm_status TM__ISA(cross_entropy)(tm_device *dev, void *loss, void *lse, const void *logits, const int32_t *targets,
                                 int64_t n, int64_t vocab) {
    int team = tm__cpu_team(dev, (double)n * (double)vocab * 2);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++) {
        const float *row = (const float *)logits + i * vocab;
        double sum = row_lse(row, vocab);
        ((float *)lse)[i] = (float)sum;
        ((float *)loss)[i] = (float)(sum - (double)row[targets[i]]);
    }
    return TM_OK;
}

tm_status TM__ISA(cross_entropy_grad)(tm_device *dev, void *logits, const void *lse, const int32_t *targets,
                                      const void *weight, int64_t n, int64_t vocab, double cap) {
    int team = tm__cpu_team(dev, (double)n * (double)vocab);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++) {
        float *row = (float *)logits + i * vocab, sum = ((const float *)lse)[i], w = ((const float *)weight)[i];
        float target = row[targets[i]], back = cap > 0 ? (float)(1 / cap) : 0;
        for (int64_t j = 0; j < vocab; j += VL) {
            vf z = load_part(row + j, vocab - j, 0), dz = exp_lanes(z - splat(sum)) * splat(w);
            if (cap > 0) dz *= splat(1) - z * splat(back) * (z * splat(back));
            store_part(row + j, dz, vocab - j);
        }
        row[targets[i]] -= cap > 0 ? w * (1 - target * back * (target * back)) : w;
    }
    return TM_OK;
}
