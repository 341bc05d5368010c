/* tile.c: see tile.h. MR x NR sums stay in registers: 8 x 48 of AVX-512's 32 registers, 6 x 16 of AVX2's 16, 4 x 8 of
 * SSE's 16. A row of sums shares one broadcast element of A: the wider the tile, the fewer instructions there are
 * besides the multiply-adds, which shows where a core is shared with somebody else's thread (on such a core 8 x 48
 * without a loop around every step ran 1.15 times as fast as 12 x 32 with one). C's lines are asked for while the sums
 * are formed.
 */
#include "device/cpu/isa/tile.h"

enum { STEPS = 4, MOST = TM__TILE_VECTORS }; /* of k between two looks at the end; vectors of a row of sums */

TM__INLINE void add_step(int vectors, vf sum[MR][MOST], const float *a, const float *b) {
    vf row[MOST];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) row[j] = load(b + j * VL);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        vf factor = splat(a[i]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) sum[i][j] += factor * row[j];
    }
}

TM__INLINE void tile_of(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step,
                        float *c, int64_t ldc, float alpha, bool add) {
    vf sum[MR][MOST];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = splat(0);
            __builtin_prefetch(c + i * ldc + j * VL, 1, 3);
        }
    for (; k >= STEPS; k -= STEPS) {
#pragma GCC unroll 4
        for (int p = 0; p < STEPS; p++) add_step(vectors, sum, a + p * a_step, b + p * b_step);
        a += STEPS * a_step;
        b += STEPS * b_step;
    }
    for (; k > 0; k--) {
        add_step(vectors, sum, a, b);
        a += a_step;
        b += b_step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            float *to = c + i * ldc + j * VL;
            store(to, add ? load(to) + sum[i][j] * splat(alpha) : sum[i][j] * splat(alpha));
        }
}

/* Packed panels have steps that are known here. */
TM__INLINE void tile_by_steps(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step,
                              float *c, int64_t ldc, float alpha, bool add) {
    if (a_step == MR && b_step == vectors * VL)
        tile_of(vectors, k, a, MR, b, vectors * VL, c, ldc, alpha, add);
    else
        tile_of(vectors, k, a, a_step, b, b_step, c, ldc, alpha, add);
}

void TM__ISA(tile)(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step, float *c,
                   int64_t ldc, float alpha, bool add) {
    if (vectors == 1)
        tile_by_steps(1, k, a, a_step, b, b_step, c, ldc, alpha, add);
    else if (vectors == 2)
        tile_by_steps(2, k, a, a_step, b, b_step, c, ldc, alpha, add);
#if TM__TILE_VECTORS == 3
    else
        tile_by_steps(3, k, a, a_step, b, b_step, c, ldc, alpha, add);
#endif
}
