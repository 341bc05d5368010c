/* simd.h: vectors of one instruction set, written with the compiler's vector types so that one source serves all.
 *
 * TM__LANES floats make a vector. Tails go through the same vector code as full vectors (load_part, store_part), so an
 * element's bytes do not depend on where in a row it stands.
 */
#ifndef TM_SIMD_H
#define TM_SIMD_H

#include "device/cpu/cpu.h"

#if TM__LANES == 16
#include <immintrin.h>
#endif

#define TM__JOIN3_(a, b, c) a##b##c
#define TM__JOIN3(a, b, c) TM__JOIN3_(a, b, c)
#define TM__ISA(name) TM__JOIN3(tm__, TM__ISA_NAME, _##name) /* tm__avx2_gemm */
#define TM__INLINE static inline __attribute__((always_inline, unused))

enum { VL = TM__LANES };

/* Rows of any alignment, and memory that is also read as other types. */
typedef float vf __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(VL * 2), aligned(2), may_alias));

TM__INLINE vf splat(float x) {
    return x - (vf){0};
}

TM__INLINE vf load(const float *p) {
    return *(const vf *)p;
}

TM__INLINE void store(float *p, vf v) {
    *(vf *)p = v;
}

/* The first n lanes, 0 < n <= VL; the others are `rest`. */
TM__INLINE vf load_part(const float *p, int64_t n, float rest) {
    if (n >= VL) return load(p);
#if TM__LANES == 16
    return (vf)_mm512_mask_loadu_ps((__m512)splat(rest), (__mmask16)((1u << n) - 1), p);
#else
    vf v = splat(rest);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
#endif
}

TM__INLINE void store_part(float *p, vf v, int64_t n) {
    if (n >= VL)
        store(p, v);
    else
#if TM__LANES == 16
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
        memcpy(p, &v, (size_t)n * sizeof *p);
#endif
}

TM__INLINE vf choose(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

TM__INLINE vf larger(vf a, vf b) {
    return choose(a > b, a, b);
}

/* Pairwise, in a fixed order. */
TM__INLINE float lanes_sum(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof lane);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));

/* Folds the upper half of the lanes onto the lower one until four are left. */
TM__INLINE f4 folded(vf v) {
#if TM__LANES == 16
    typedef float f8 __attribute__((vector_size(32)));
    f8 half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif TM__LANES == 8
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    return v;
#endif
}

/* The sums over the lanes of each of four vectors, in the order of lanes_sum. */
TM__INLINE f4 four_sums(const vf v[4]) {
    f4 a = folded(v[0]), b = folded(v[1]), c = folded(v[2]), d = folded(v[3]);
    f4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    f4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

#if TM__LANES == 16
/* four_sums of each of four rows: they go through the same additions together. */
TM__INLINE void sixteen_sums(const vf v[4][4], f4 sums[4]) {
    vf half[4];
    for (int j = 0; j < 4; j++) {
        vf ab = __builtin_shufflevector(v[0][j], v[1][j], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                __builtin_shufflevector(v[0][j], v[1][j], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
        vf cd = __builtin_shufflevector(v[2][j], v[3][j], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                __builtin_shufflevector(v[2][j], v[3][j], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
        half[j] = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                  __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    vf pair[2];
    for (int j = 0; j < 2; j++) {
        vf a = half[2 * j], b = half[2 * j + 1];
        pair[j] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                  __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    vf a = pair[0], b = pair[1];
    vf all = __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
             __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
    memcpy(sums, &all, sizeof all);
}
#endif

TM__INLINE float lanes_max(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof lane);
    for (int i = 1; i < VL; i++) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    return lane[0];
}

/* exp to about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, then the polynomial of Cephes' expf in r. Below -87.3 it
 * gives 0, above 88.3 it saturates near 2.4e38; NaN stays NaN. */
TM__INLINE vf exp_lanes(vf x) {
    const vf to_integer = splat(0x1.8p23f);
    vf limited = choose(x > splat(88.3f), splat(88.3f), x);
    limited = choose(limited < splat(-87.3f), splat(-87.3f), limited);
    vf shifted = limited * splat(1.44269504088896341f) + to_integer;
    vf n = shifted - to_integer;
    vf r = limited - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    vf p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * (r * r) + r + splat(1);
    vf power = (vf)(((vu)shifted - (vu)to_integer + 127) << 23);
    return choose(x < splat(-87.3f), splat(0), p * power);
}

/* tanh to about 1 ulp, after Cephes' tanhf: a polynomial near 0, where 1 - e^-2x would cancel. Odd by construction. */
TM__INLINE vf tanh_lanes(vf x) {
    vf z = x * x, size = choose(x < splat(0), -x, x);
    vf p = splat(-5.70498872745e-3f);
    p = p * z + splat(2.06390887954e-2f);
    p = p * z + splat(-5.37397155531e-2f);
    p = p * z + splat(1.33314422036e-1f);
    p = p * z + splat(-3.33332819422e-1f);
    vf near = p * z * x + x, far = splat(1) - splat(2) / (exp_lanes(size + size) + splat(1));
    far = choose(x < splat(0), -far, far);
    return choose(size < splat(0.625f), near, far);
}

/* n elements <- cap * tanh(x / cap) */
TM__INLINE void cap_values(float *x, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i += VL)
        store_part(x + i, splat(cap) * tanh_lanes(load_part(x + i, n - i, 0) * splat(1 / cap)), n - i);
}

/* Round to nearest even bf16, kept as fp32; NaN stays NaN. */
TM__INLINE vf round_to_bf16(vf x) {
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    vi nan = (vi)((bits & 0x7fffffff) > 0x7f800000);
    return choose(nan, (vf)((bits | 0x400000) & 0xffff0000u), (vf)rounded);
}

TM__INLINE vf from_bf16(vh bits) {
#if TM__LANES == 16 /* gcc 12 widens 16 of them by halves */
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#else
    return (vf)(__builtin_convertvector(bits, vu) << 16);
#endif
}

/* Exponent and fraction move into place and are scaled by 2^112, which is exact also for subnormals. */
TM__INLINE vf from_f16(vh bits) {
    vu wide = __builtin_convertvector(bits, vu);
    vu magnitude = (wide & 0x7fff) << 13;
    vu scaled = (vu)((vf)magnitude * splat(0x1p112f));
    vu special = (vu)(magnitude >= 0x0f800000) & 0x7f800000;
    return (vf)(scaled | special | (wide & 0x8000) << 16);
}

/* n lanes from element i of a row of fp32, bf16 or fp16, the others 0. */
TM__INLINE vf load_as(const void *row, tm_dtype type, int64_t i, int64_t n) {
    if (type == TM_F32) return load_part((const float *)row + i, n, 0);
    vh bits = {0};
    if (n >= VL)
        bits = *(const vh *)((const uint16_t *)row + i);
    else
        memcpy(&bits, (const uint16_t *)row + i, (size_t)n * 2);
    return type == TM_BF16 ? from_bf16(bits) : from_f16(bits);
}

enum { LINE = 64 }; /* bytes of the processor's caches */

/* n elements from `at` on will be needed soon, in the first-level cache (level 3) or the second (2). They need not be
 * there: it is no access. */
TM__INLINE void ask_for(const void *row, tm_dtype type, int64_t at, int64_t n, const int level) {
    uintptr_t size = type == TM_F32 ? 4 : 2, first = (uintptr_t)row + (uintptr_t)at * size;
    for (uintptr_t byte = 0; byte < (uintptr_t)n * size; byte += LINE)
        __builtin_prefetch((void *)(first + byte), 0, level);
}

/* shift + a weight vector (d) as fp32: itself, or made in `room` (d). */
TM__INLINE const float *widened(const void *w, tm_dtype type, float shift, int64_t d, float *room) {
    if (type == TM_F32 && shift == 0) return w;
    for (int64_t i = 0; i < d; i += VL) {
        vf wide = load_as(w, type, i, d - i);
        if (shift != 0) wide += splat(shift);
        store_part(room + i, wide, d - i);
    }
    return room;
}

/* The kernels of this instruction set, by the types of the device's table. */
#define TM__CPU_KERNELS(X) \
    X(gemm)                \
    X(gemms)               \
    X(int8_bytes)          \
    X(int8_pack)           \
    X(embedding)           \
    X(embedding_grad)      \
    X(rmsnorm)             \
    X(rmsnorm_grad)        \
    X(rope)                \
    X(attention)           \
    X(attention_grad)      \
    X(attention_cached)    \
    X(layernorm)           \
    X(layernorm_grad)      \
    X(gated)               \
    X(gated_grad)          \
    X(soft_cap)            \
    X(activation)          \
    X(add)                 \
    X(axpy)                \
    X(scale)               \
    X(fill)                \
    X(dot)                 \
    X(convert)             \
    X(add_bias)            \
    X(bias_grad)           \
    X(dropout)             \
    X(gather_rows)         \
    X(scatter_rows)        \
    X(largest)             \
    X(cross_entropy)       \
    X(cross_entropy_grad)  \
    X(adamw)               \
    X(sgd)
#define TM__CPU_DECLARE(kernel) __typeof__(*((tm__kernels *)0)->kernel) TM__ISA(kernel);
TM__CPU_KERNELS(TM__CPU_DECLARE)
#undef TM__CPU_DECLARE

#endif
