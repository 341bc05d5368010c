/* tile.h: the product of two packed panels, on which matrix products and attention are built.
 *
 * A panel of A is k x MR floats, a panel of B is k x NR (or fewer vectors: a narrow last one), the index along k
 * outermost. Attention's panels of B are two vectors wide, as the widths of heads want it.
 * Every element of the product is one chain of multiply-adds in the order of k, whatever its place in the tile: so an
 * element depends on its row of A and its column of B alone.
 */
#ifndef TM_TILE_H
#define TM_TILE_H

#include "device/cpu/isa/simd.h"

enum { MR = TM__TILE_ROWS, NR = TM__TILE_VECTORS * VL };

/* C (MR, vectors * VL; leading dimension ldc) = [C +] alpha * A B. Steps are the distances along k, MR and vectors * VL
 * for packed panels. */
void TM__ISA(tile)(int vectors, int64_t k, const float *a, int64_t a_step, const float *b, int64_t b_step, float *c,
                   int64_t ldc, float alpha, bool add);

/* Packs `rows` <= width rows of length k into a panel (k, width), zero-padded. Element (row, p) stands at row * ld + p
 * if k_contiguous, else at p * ld + row. round: to bf16's precision. width: MR, or 1 to NR / VL vectors. */
void TM__ISA(pack)(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                   bool k_contiguous, bool round);

/* Vectors in panel j of n columns, in panels `width` wide. */
TM__INLINE int panel_vectors(int64_t n, int64_t j, int width) {
    int64_t left = n - j * width;
    return left >= width ? width / VL : (int)((left + VL - 1) / VL);
}

TM__INLINE int64_t round_up(int64_t x, int64_t unit) {
    return (x + unit - 1) / unit * unit;
}

#endif
