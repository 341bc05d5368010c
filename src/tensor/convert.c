/* convert.c: fp64, fp32, bf16 and fp16 into each other, by integer arithmetic on their bits.
 *
 * IEEE 754: round to nearest, ties to even. A value is narrowed in one step: fp64 to bf16 by way of fp32 would round
 * twice and be off by one unit where the first rounding makes a tie.
 */
#include "tensor/tensor.h"

static uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t bits_of_f64(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float tm__bf16_to_f32(uint16_t bits) {
    return f32_of_bits((uint32_t)bits << 16);
}

/* bf16 is the upper half of an fp32: adding half a unit (minus one at an even result) carries into it as needed,
 * through subnormals and up to infinity. */
uint16_t tm__bf16_from_f32(float value) {
    uint32_t bits = bits_of_f32(value);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

/* Narrows fp64 bits to a format of `fraction` fraction bits and exponent bias `bias`, whose exponent field ends at
 * `top` (all ones: infinity). */
static uint16_t narrow_64(uint64_t bits, int fraction, int bias, int top) {
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t mantissa = bits & ((UINT64_C(1) << 52) - 1);
    if (exponent == 0x7ff) {
        unsigned payload = mantissa ? (unsigned)(mantissa >> (52 - fraction)) | 1u << (fraction - 1) : 0;
        return (uint16_t)(sign | (unsigned)top << fraction | payload);
    }
    if (exponent == 0) return sign; /* zero, or an fp64 subnormal: far below half of the least subnormal */
    int shift = 52 - fraction, field = exponent - 1023 + bias;
    mantissa |= UINT64_C(1) << 52;
    if (field < 1) { /* subnormal result: the fraction moves right, the exponent field is 0 */
        shift += 1 - field;
        if (shift > 54) return sign;
        field = 1;
    }
    uint64_t kept = mantissa >> shift, rest = mantissa & ((UINT64_C(1) << shift) - 1),
             half = UINT64_C(1) << (shift - 1);
    kept += rest > half || (rest == half && (kept & 1));
    /* The hidden bit of a normal number adds 1 to the field; so does a carry out of the fraction. */
    uint64_t result = ((uint64_t)(field - 1) << fraction) + kept;
    uint64_t infinity = (uint64_t)top << fraction;
    return (uint16_t)(sign | TM__MIN(result, infinity));
}

uint16_t tm__bf16_from_f64(double value) {
    return narrow_64(bits_of_f64(value), 7, 127, 255);
}
uint16_t tm__f16_from_f64(double value) {
    return narrow_64(bits_of_f64(value), 10, 15, 31);
}

/* Every fp16 is a normal fp32: rebias the exponent; a subnormal is its fraction times 2^-24, exactly. */
float tm__f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 31) return f32_of_bits(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000 : 0));
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t tm__f16_from_f32(float value) {
    uint32_t bits = bits_of_f32(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00); /* 2^16 and above */
    if (magnitude < 0x38800000) {                                  /* below 2^-14: subnormal or zero */
        /* Adding 0.5 aligns the unit of fp32 with fp16's least subnormal 2^-24, and the addition rounds. */
        return (uint16_t)(sign | (bits_of_f32(f32_of_bits(magnitude) + 0.5f) - 0x3f000000));
    }
    uint32_t rebiased = magnitude - (112u << 23);
    return (uint16_t)(sign | (rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
}

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

#define LOOP(to_type, from_type, expression)                \
    do {                                                    \
        to_type *d = dst;                                   \
        const from_type *s = src;                           \
        for (size_t i = 0; i < n; i++) d[i] = (expression); \
    } while (0)

static void to_f64(void *dst, const void *src, tm_dtype from, size_t n) {
    if (from == TM_F32)
        LOOP(double, float, (double)s[i]);
    else if (from == TM_BF16)
        LOOP(double, uint16_t, (double)tm__bf16_to_f32(s[i]));
    else
        LOOP(double, uint16_t, (double)tm__f16_to_f32(s[i]));
}

static void to_f32(void *dst, const void *src, tm_dtype from, size_t n) {
    if (from == TM_F64)
        LOOP(float, double, (float)s[i]);
    else if (from == TM_BF16)
        LOOP(float, uint16_t, tm__bf16_to_f32(s[i]));
    else
        LOOP(float, uint16_t, tm__f16_to_f32(s[i]));
}

static void to_bf16(void *dst, const void *src, tm_dtype from, size_t n) {
    if (from == TM_F64)
        LOOP(uint16_t, double, tm__bf16_from_f64(s[i]));
    else if (from == TM_F32)
        LOOP(uint16_t, float, tm__bf16_from_f32(s[i]));
    else
        LOOP(uint16_t, uint16_t, tm__bf16_from_f32(tm__f16_to_f32(s[i]))); /* the first step is exact */
}

static void to_f16(void *dst, const void *src, tm_dtype from, size_t n) {
    if (from == TM_F64)
        LOOP(uint16_t, double, tm__f16_from_f64(s[i]));
    else if (from == TM_F32)
        LOOP(uint16_t, float, tm__f16_from_f32(s[i]));
    else
        LOOP(uint16_t, uint16_t, tm__f16_from_f32(tm__bf16_to_f32(s[i])));
}

void tm__convert(void *dst, tm_dtype to, const void *src, tm_dtype from, size_t n) {
    assert(tm__dtype_is_float(to) && tm__dtype_is_float(from));
    if (n == 0) return;
    if (to == from)
        memmove(dst, src, n * tm__dtype_size(to));
    else if (to == TM_F64)
        to_f64(dst, src, from, n);
    else if (to == TM_F32)
        to_f32(dst, src, from, n);
    else if (to == TM_BF16)
        to_bf16(dst, src, from, n);
    else
        to_f16(dst, src, from, n);
}
