/* largest.c: the index of the largest number of each row, for greedy generation.
 *
 * Lane l looks at numbers l, l + VL, ...; of equals the lowest index wins, in a lane and among lanes. x * 0 is NaN for
 * what is not finite, and so is every sum with it.
 */
#include "device/cpu/isa/simd.h"

#include <omp.h>

TM__INLINE void look(vf x, vi at, vf *most, vi *where, vf *sum) {
    vi better = x > *most;
    *most = choose(better, x, *most);
    *where = (better & at) | (~better & *where);
    *sum += x * splat(0);
}

static int32_t row_largest(const float *x, int64_t d) {
    vf most = splat(-INFINITY), sum = splat(0);
    vi where = {0}, at, step = (vi){0} + VL;
    for (int i = 0; i < VL; i++) at[i] = i;
    int64_t i = 0;
    for (; i + VL <= d; i += VL, at += step) look(load(x + i), at, &most, &where, &sum);
    if (i < d) { /* the lanes past the end hold the last number again, under a higher index */
        look(load_part(x + i, d - i, x[d - 1]), at, &most, &where, &sum);
    }
    float value[VL];
    int32_t index[VL];
    memcpy(value, &most, sizeof value);
    memcpy(index, &where, sizeof index);
    if (!isfinite(lanes_sum(sum))) return -1;
    int best = 0;
    for (int l = 1; l < VL; l++)
        if (value[l] > value[best] || (value[l] == value[best] && index[l] < index[best])) best = l;
    return index[best];
}

tm_status TM__ISA(largest)(tm_device *dev, int32_t *index, const void *x, int64_t n, int64_t d) {
    int team = tm__cpu_team(dev, (double)n * (double)d / 8);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; i++) index[i] = row_largest((const float *)x + i * d, d);
    return TM_OK;
}
