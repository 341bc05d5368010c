/* pack.c: panels for tile.h. Where k is contiguous in memory, blocks of VL elements of VL rows (of VL / 2 where a panel
 * is that narrow) are transposed in registers. Weights of 16 bits are widened here, so a wide copy never exists beyond
 * a panel. Rows lie far apart, where no processor guesses what comes next: what is needed soon is asked for. */
#include "device/cpu/isa/tile.h"

enum {
    AHEAD_ROWS = 16, /* that are asked for in advance, where k is not contiguous */
    AHEAD_LINES = 4, /* likewise along a row, where it is */
};

/* The halves of two vectors, element by element in turns. */
#if TM__LANES == 16
#define LOW_TURNS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_TURNS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif TM__LANES == 8
#define LOW_TURNS 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_TURNS 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_TURNS 0, 4, 1, 5
#define HIGH_TURNS 2, 6, 3, 7
#endif

/* `n` rows, VL or half as many, of VL elements, one after the other: the same elements column by column. Each stage
 * deals the rows of the upper half between those of the lower one, which moves one bit of the row's number behind those
 * of the column's. */
TM__INLINE void transpose(int n, vf block[VL]) {
#pragma GCC unroll 4
    for (int stage = n; stage > 1; stage /= 2) {
        vf next[VL];
#pragma GCC unroll 8
        for (int i = 0; i < n / 2; i++) {
            next[2 * i] = __builtin_shufflevector(block[i], block[i + n / 2], LOW_TURNS);
            next[2 * i + 1] = __builtin_shufflevector(block[i], block[i + n / 2], HIGH_TURNS);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) block[i] = next[i];
    }
}

/* Element `at` and on of a row, n of them, the others 0. type and round are constants where this is inlined. */
TM__INLINE vf load_rounded(const void *row, tm_dtype type, int64_t at, int64_t n, bool round) {
    if (n <= 0) return splat(0);
    vf x = load_as(row, type, at, n);
    return round ? round_to_bf16(x) : x;
}

/* A block: up to n rows of VL elements from `at` on, the first `rows` of which there are. */
TM__INLINE void load_block(int n, vf block[VL], int64_t rows, const void *from, tm_dtype type, int64_t at, int64_t ld,
                           int64_t left, bool round) {
#pragma GCC unroll 16
    for (int x = 0; x < n; x++) {
        block[x] = x < rows ? load_rounded(from, type, x * ld + at, left, round) : splat(0);
        if (x < rows) ask_for(from, type, x * ld + at + AHEAD_LINES * LINE / 4, 1, 3);
    }
    transpose(n, block);
}

/* Columns [i, i + VL) of one of `left` rows of a panel that are still to be written. A panel's width is VL or more, or
 * less: then a whole vector reaches into the next row, which is written later, and the last row is cut. */
TM__INLINE void store_columns(float *to, vf x, int width, int64_t left) {
    if (width % VL == 0 || left > 1)
        store(to, x);
    else
        memcpy(to, &x, (size_t)(width % VL) * sizeof *to);
}

/* Rows [i, i + VL) of those there are, along k, into columns i and on of the panel. */
TM__INLINE void pack_squares(float *to, int width, int64_t i, int64_t rows, int64_t k, const void *from, tm_dtype type,
                             int64_t ld, bool round) {
    for (int64_t p = 0; p < k; p += VL) {
        vf square[VL];
        int64_t left = k - p;
        load_block(VL, square, rows - i, from, type, i * ld + p, ld, left, round);
#pragma GCC unroll 16
        for (int x = 0; x < VL; x++)
            if (x < left) store_columns(to + (p + x) * width + i, square[x], width, left - x);
    }
}

/* A panel VL / 2 wide: a vector holds two of its rows. */
TM__INLINE void pack_halves(float *to, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                            bool round) {
    for (int64_t p = 0; p < k; p += VL) {
        vf block[VL];
        int64_t left = k - p;
        load_block(VL / 2, block, rows, from, type, p, ld, left, round);
#pragma GCC unroll 8
        for (int x = 0; x < VL / 2; x++)
            if (2 * x < left) store_part(to + (p + 2 * x) * (VL / 2), block[x], (left - 2 * x) * (VL / 2));
    }
}

/* Rows of a panel that lie in memory as they are wanted. */
TM__INLINE void copy_rows(float *to, int width, int64_t k, const float *from, int64_t ld) {
    for (int64_t p = 0; p < k; p++) {
        ask_for(from, TM_F32, (p + AHEAD_ROWS) * ld, width, 3);
        memcpy(to + p * width, from + p * ld, (size_t)width * sizeof *to);
    }
}

TM__INLINE void pack_as(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                        bool k_contiguous, bool round) {
    if (k_contiguous && 2 * width == VL) {
        pack_halves(to, rows, k, from, type, ld, round);
        return;
    }
    if (!k_contiguous && rows == width && type == TM_F32 && !round) {
        copy_rows(to, width, k, from, ld);
        return;
    }
    if (k_contiguous) {
        for (int64_t i = 0; i < width; i += VL) pack_squares(to, width, i, rows, k, from, type, ld, round);
        return;
    }
    for (int64_t p = 0; p < k; p++) {
        ask_for(from, type, (p + AHEAD_ROWS) * ld, width, 3);
        for (int64_t i = 0; i < width; i += VL)
            store_columns(to + p * width + i, load_rounded(from, type, p * ld + i, rows - i, round), width, k - p);
    }
}

TM__INLINE void pack_width(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                           bool k_contiguous, bool round) {
    if (type == TM_BF16)
        pack_as(to, width, rows, k, from, TM_BF16, ld, k_contiguous, false);
    else if (type == TM_F16)
        pack_as(to, width, rows, k, from, TM_F16, ld, k_contiguous, round);
    else if (round)
        pack_as(to, width, rows, k, from, TM_F32, ld, k_contiguous, true);
    else
        pack_as(to, width, rows, k, from, TM_F32, ld, k_contiguous, false);
}

void TM__ISA(pack)(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                   bool k_contiguous, bool round) {
    if (width == NR)
        pack_width(to, NR, rows, k, from, type, ld, k_contiguous, round);
    else if (width == 2 * VL)
        pack_width(to, 2 * VL, rows, k, from, type, ld, k_contiguous, round);
    else if (width == VL)
        pack_width(to, VL, rows, k, from, type, ld, k_contiguous, round);
    else
        pack_width(to, MR, rows, k, from, type, ld, k_contiguous, round);
}
