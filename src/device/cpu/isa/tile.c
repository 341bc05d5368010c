/* tile.c: see tile.h. MR x NR sums stay in registers: 12 x 32 of AVX-512's 32 registers, 6 x 16 of AVX2's 16, 4 x 8 of
 * SSE's 16. C's lines are asked for while the sums are formed. */
#include "device/cpu/isa/tile.h"

TM__INLINE void tile_of(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step,
                        float *c, int64_t ldc, float alpha, bool add) {
    vf sum[MR][2];
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = splat(0);
            __builtin_prefetch(c + i * ldc + j * VL, 1, 3);
        }
    for (int64_t p = 0; p < k; p++) {
        vf row[2];
        for (int j = 0; j < vectors; j++) row[j] = load(b + j * VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            vf factor = splat(a[i]);
            for (int j = 0; j < vectors; j++) sum[i][j] += factor * row[j];
        }
        a += a_step;
        b += b_step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < vectors; j++) {
            float *to = c + i * ldc + j * VL;
            store(to, add ? load(to) + sum[i][j] * splat(alpha) : sum[i][j] * splat(alpha));
        }
}

void TM__ISA(tile)(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step, float *c,
                   int64_t ldc, float alpha, bool add) {
    if (vectors == 2)
        tile_of(2, k, a, a_step, b, b_step, c, ldc, alpha, add);
    else
        tile_of(1, k, a, a_step, b, b_step, c, ldc, alpha, add);
}
