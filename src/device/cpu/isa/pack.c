/* pack.c: panels for tile.h. Where k is contiguous in memory, squares of VL x VL elements are transposed in registers.
 * Weights of 16 bits are widened here, so a wide copy never exists beyond a panel. Rows lie far apart, where no
 * processor guesses what comes next: what is needed soon is asked for. */
#include "device/cpu/isa/tile.h"

enum {
    AHEAD_ROWS = 16, /* that are asked for in advance, where k is not contiguous */
    AHEAD_LINES = 4, /* likewise along a row, where it is */
};

/* The halves of two vectors, element by element in turns. */
#if TM__LANES == 16
#define LOW_TURNS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_TURNS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
enum { STAGES = 4 };
#elif TM__LANES == 8
#define LOW_TURNS 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_TURNS 4, 12, 5, 13, 6, 14, 7, 15
enum { STAGES = 3 };
#else
#define LOW_TURNS 0, 4, 1, 5
#define HIGH_TURNS 2, 6, 3, 7
enum { STAGES = 2 };
#endif

TM__INLINE void transpose(vf square[VL]) {
#pragma GCC unroll 4
    for (int stage = 0; stage < STAGES; stage++) {
        vf next[VL];
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = __builtin_shufflevector(square[i], square[i + VL / 2], LOW_TURNS);
            next[2 * i + 1] = __builtin_shufflevector(square[i], square[i + VL / 2], HIGH_TURNS);
        }
        memcpy(square, next, sizeof next);
    }
}

/* Element `at` and on of a row, n of them, the others 0. type and round are constants where this is inlined. */
TM__INLINE vf load_rounded(const void *row, tm_dtype type, int64_t at, int64_t n, bool round) {
    if (n <= 0) return splat(0);
    vf x = load_as(row, type, at, n);
    return round ? round_to_bf16(x) : x;
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
#pragma GCC unroll 16
        for (int x = 0; x < VL; x++) {
            square[x] = i + x < rows ? load_rounded(from, type, (i + x) * ld + p, left, round) : splat(0);
            if (i + x < rows) ask_for(from, type, (i + x) * ld + p + AHEAD_LINES * LINE / 4, 1, 3);
        }
        transpose(square);
#pragma GCC unroll 16
        for (int x = 0; x < VL; x++)
            if (x < left) store_columns(to + (p + x) * width + i, square[x], width, left - x);
    }
}

TM__INLINE void pack_as(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                        bool k_contiguous, bool round) {
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
    else if (width == VL)
        pack_width(to, VL, rows, k, from, type, ld, k_contiguous, round);
    else
        pack_width(to, MR, rows, k, from, type, ld, k_contiguous, round);
}
