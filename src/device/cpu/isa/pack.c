/* pack.c: panels for tile.h, by 4 x 4 blocks that are transposed in registers where k is contiguous in memory. Weights
 * of 16 bits are widened here, so a wide copy never exists beyond a panel. */
#include "device/cpu/isa/tile.h"

typedef uint32_t u4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint16_t h4 __attribute__((vector_size(8), aligned(2), may_alias));

TM__INLINE f4 f4_round(f4 x) {
    u4 bits = (u4)x;
    u4 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    u4 nan = (u4)((bits & 0x7fffffff) > 0x7f800000);
    return (f4)((nan & (bits | 0x400000) & 0xffff0000u) | (~nan & rounded));
}

TM__INLINE f4 f4_from_f16(h4 bits) {
    u4 wide = __builtin_convertvector(bits, u4);
    u4 magnitude = (wide & 0x7fff) << 13;
    u4 scaled = (u4)((f4)magnitude * 0x1p112f);
    u4 special = (u4)(magnitude >= 0x0f800000) & 0x7f800000;
    return (f4)(scaled | special | (wide & 0x8000) << 16);
}

/* n <= 4 elements from `at` on, the others 0. type and round are constants where this is inlined. */
TM__INLINE f4 f4_load(const void *from, int64_t at, int64_t n, tm_dtype type, bool round) {
    f4 x = {0};
    if (n <= 0) return x;
    if (type == TM_F32) {
        if (n >= 4)
            x = *(const f4 *)((const float *)from + at);
        else
            memcpy(&x, (const float *)from + at, (size_t)n * 4);
        return round ? f4_round(x) : x;
    }
    h4 bits = {0};
    if (n >= 4)
        bits = *(const h4 *)((const uint16_t *)from + at);
    else
        memcpy(&bits, (const uint16_t *)from + at, (size_t)n * 2);
    if (type == TM_BF16) return (f4)(__builtin_convertvector(bits, u4) << 16);
    x = f4_from_f16(bits);
    return round ? f4_round(x) : x;
}

TM__INLINE void f4_store(float *to, f4 x, int lanes) {
    if (lanes == 4)
        *(f4 *)to = x;
    else
        memcpy(to, &x, (size_t)lanes * 4);
}

/* Four rows from i on, along k: to (k, width) gets `lanes` columns of them. */
TM__INLINE void pack_transposed(float *to, int width, int lanes, int64_t rows, int64_t k, const void *from,
                                tm_dtype type, int64_t i, int64_t ld, bool round) {
    for (int64_t p = 0; p < k; p += 4) {
        f4 r[4], t[4];
        int64_t left = k - p;
        for (int64_t x = 0; x < 4; x++) r[x] = f4_load(from, (i + x) * ld + p, i + x < rows ? left : 0, type, round);
        t[0] = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
        t[1] = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
        t[2] = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
        t[3] = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
        float *at = to + p * width;
        f4_store(at, __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5), lanes);
        if (left > 1) f4_store(at + width, __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7), lanes);
        if (left > 2) f4_store(at + 2 * width, __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5), lanes);
        if (left > 3) f4_store(at + 3 * width, __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7), lanes);
    }
}

TM__INLINE void pack_as(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
                        bool k_contiguous, bool round) {
    int whole = width / 4 * 4;
    if (k_contiguous) {
        for (int i = 0; i < whole; i += 4) pack_transposed(to + i, width, 4, rows, k, from, type, i, ld, round);
        if (whole < width) pack_transposed(to + whole, width, 2, rows, k, from, type, whole, ld, round);
        return;
    }
    for (int64_t p = 0; p < k; p++, to += width) {
        for (int i = 0; i < whole; i += 4) *(f4 *)(to + i) = f4_load(from, p * ld + i, rows - i, type, round);
        if (whole < width) f4_store(to + whole, f4_load(from, p * ld + whole, rows - whole, type, round), 2);
    }
}

void TM__ISA(pack)(float *to, int width, int64_t rows, int64_t k, const void *from, tm_dtype type, int64_t ld,
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
