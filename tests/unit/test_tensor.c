/* Element types and conversions: all 65,536 values of both 16-bit formats, and narrowing against a reference that
 * rounds by choosing the nearest of two neighbours in long double. */
#include "support.h"
#include "tensor/tensor.h"

static const tm_dtype floats[] = {TM_F64, TM_F32, TM_BF16, TM_F16};

static void dtypes(void **state) {
    (void)state;
    tm_dtype back;
    for (int i = TM_F64; i <= TM_I64; i++) {
        tm_dtype dtype = (tm_dtype)i;
        assert_true(tm__dtype_from_safetensors(tm__dtype_safetensors(dtype), &back));
        assert_int_equal(back, dtype);
    }
    assert_string_equal(tm__dtype_name(TM_F32), "fp32");
    assert_string_equal(tm__dtype_safetensors(TM_BF16), "BF16");
    assert_int_equal(tm__dtype_size(TM_BF16), 2);
    assert_int_equal(tm__dtype_size(TM_I64), 8);
    assert_true(tm__dtype_is_float(TM_F16) && !tm__dtype_is_float(TM_U8));
    assert_false(tm__dtype_from_safetensors("F8", &back));
    assert_false(tm__dtype_from_safetensors("", &back));
}

static void shapes(void **state) {
    (void)state;
    int64_t count;
    const int64_t plain[] = {2, 3, 4}, empty[] = {2, 0, 4}, negative[] = {2, -3}, huge[] = {INT64_MAX, 2};
    assert_true(tm__shape_count(plain, 3, &count) && count == 24);
    assert_true(tm__shape_count(plain, 0, &count) && count == 1);
    assert_true(tm__shape_count(empty, 3, &count) && count == 0);
    assert_false(tm__shape_count(negative, 2, &count));
    assert_false(tm__shape_count(huge, 2, &count));
    const tm_tensor a = {TM_BF16, 2, {3, 5}, NULL}, b = {TM_F32, 2, {3, 5}, NULL}, c = {TM_F32, 2, {5, 3}, NULL};
    assert_int_equal(tm__tensor_count(&a), 15);
    assert_int_equal(tm__tensor_bytes(&a), 30);
    assert_true(tm__tensor_same_shape(&a, &b) && !tm__tensor_same_shape(&a, &c));
}

/* ---- a reference for narrow formats ------------------------------------------------------------------------------ */

typedef struct format {
    int fraction, bias, top;
} format;
static const format bf16 = {7, 127, 255}, f16 = {10, 15, 31};

/* Value of a finite pattern without sign, from its definition. */
static long double value_of(format f, unsigned bits) {
    int exponent = (int)(bits >> f.fraction);
    long double fraction = bits & ((1u << f.fraction) - 1);
    if (exponent == 0) return ldexpl(fraction, 1 - f.bias - f.fraction);
    return ldexpl(fraction + (1u << f.fraction), exponent - f.bias - f.fraction);
}

/* Nearest pattern, ties to the even one, found by bisection over the patterns; infinity stands where the next number
 * after the largest would. */
static unsigned nearest(format f, double value) {
    long double x = fabsl((long double)value);
    unsigned sign = signbit(value) ? 0x8000 : 0, infinity = (unsigned)f.top << f.fraction, low = 0, high = infinity;
    if (x >= value_of(f, high)) return sign | infinity;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (value_of(f, middle) <= x)
            low = middle;
        else
            high = middle;
    }
    long double below = x - value_of(f, low), above = value_of(f, high) - x;
    return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

/* ---- conversions ------------------------------------------------------------------------------------------------- */

static bool is_nan_16(format f, unsigned bits) {
    return (bits & 0x7fff) > (unsigned)f.top << f.fraction;
}

static void all_16_bit_values(void **state) {
    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        float b = tm__bf16_to_f32(bits), h = tm__f16_to_f32(bits);
        if (is_nan_16(bf16, i)) {
            assert_true(isnan(b));
            assert_int_equal(tm__bf16_from_f32(b), i | 0x40);
            assert_int_equal(tm__bf16_from_f64((double)b), i | 0x40);
        } else {
            assert_int_equal(tm__bf16_from_f32(b), i);
            assert_int_equal(tm__bf16_from_f64((double)b), i);
            if (!isinf(b)) assert_true(fabsl((long double)b) == value_of(bf16, i & 0x7fff));
            assert_int_equal(signbit(b) != 0, i >> 15);
        }
        if (is_nan_16(f16, i)) {
            assert_true(isnan(h));
            assert_int_equal(tm__f16_from_f32(h), i | 0x200);
            assert_int_equal(tm__f16_from_f64((double)h), i | 0x200);
        } else {
            assert_int_equal(tm__f16_from_f32(h), i);
            assert_int_equal(tm__f16_from_f64((double)h), i);
            if (!isinf(h)) assert_true(fabsl((long double)h) == value_of(f16, i & 0x7fff));
            assert_int_equal(signbit(h) != 0, i >> 15);
        }
    }
}

static void check_narrow(double value) {
    float single = (float)value;
    if (tm__bf16_from_f64(value) != nearest(bf16, value)) fail_msg("bf16 of %a", value);
    if (tm__f16_from_f64(value) != nearest(f16, value)) fail_msg("fp16 of %a", value);
    if (isinf(single)) return;
    if (tm__bf16_from_f32(single) != nearest(bf16, (double)single)) fail_msg("bf16 of %a", (double)single);
    if (tm__f16_from_f32(single) != nearest(f16, (double)single)) fail_msg("fp16 of %a", (double)single);
}

/* Every midpoint between neighbours and the doubles and floats just beside it: where rounding is decided. */
static void narrow_midpoints(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        format f = which ? f16 : bf16;
        for (unsigned i = 0; i < (unsigned)f.top << f.fraction; i++) {
            double middle = (double)((value_of(f, i) + value_of(f, i + 1)) / 2);
            const double around[] = {middle,
                                     nextafter(middle, 0),
                                     nextafter(middle, INFINITY),
                                     (double)nextafterf((float)middle, 0),
                                     (double)nextafterf((float)middle, INFINITY),
                                     (double)value_of(f, i)};
            for (size_t k = 0; k < TM__COUNT(around); k++) {
                check_narrow(around[k]);
                check_narrow(-around[k]);
            }
        }
    }
}

static void narrow_random(void **state) {
    (void)state;
    tm__rng r = tm__rng_make(8, tm__stream(TM__STREAM_TEST, 6));
    for (int i = 0; i < 300000; i++) {
        double value = (tm__rng_uniform(&r) - 0.5) * pow(2, 300 * (tm__rng_uniform(&r) - 0.5));
        check_narrow(value);
        check_narrow(value * 0x1p-40);
    }
    const double special[] = {0.0,      -0.0,      5e-324, -5e-324,  0x1p-1022, 1.7e308,
                              INFINITY, -INFINITY, 65504,  65519.99, 65520};
    for (size_t i = 0; i < TM__COUNT(special); i++) {
        check_narrow(special[i]);
        check_narrow(-special[i]);
    }
    assert_int_equal(tm__f16_from_f32(INFINITY), 0x7c00);
    assert_int_equal(tm__bf16_from_f32(-INFINITY), 0xff80);
}

/* A tie for bf16 that fp32 cannot see: by way of fp32 the result would be the wrong neighbour. */
static void fp64_rounds_once(void **state) {
    (void)state;
    double value = 1 + 0x1p-8 + 0x1p-40; /* just above the middle of 1 and 1 + 2^-7 */
    assert_int_equal(tm__bf16_from_f64(value), 0x3f81);
    assert_int_equal(tm__bf16_from_f32((float)value), 0x3f80); /* what rounding twice gives */
}

static void arrays(void **state) {
    (void)state;
    enum { N = 1000 };
    double source[N], wide[N];
    tm__rng r = tm__rng_make(9, tm__stream(TM__STREAM_TEST, 7));
    for (int i = 0; i < N; i++) source[i] = (double)tm__bf16_to_f32(tm__bf16_from_f64(tm__rng_normal(&r)));
    source[0] = 0.5, source[1] = -2, source[2] = 0;
    for (int i = 0; i < N; i++) /* bf16 values that fp16 holds too, so that every path is exact */
        if (fabs(source[i]) < 0.0625) source[i] = 0.0625;
    for (size_t a = 0; a < TM__COUNT(floats); a++)
        for (size_t b = 0; b < TM__COUNT(floats); b++) {
            uint64_t first[N], second[N];
            tm__convert(first, floats[a], source, TM_F64, N);
            tm__convert(second, floats[b], first, floats[a], N);
            memset(wide, 0xff, sizeof wide);
            tm__convert(wide, TM_F64, second, floats[b], N);
            assert_memory_equal(wide, source, sizeof wide);
        }
    tm__convert(source, TM_F64, source, TM_F64, N);
    tm__convert(NULL, TM_F32, NULL, TM_BF16, 0);
}

static void finiteness(void **state) {
    (void)state;
    enum { N = 10000 };
    float values[N];
    for (int i = 0; i < N; i++) values[i] = 3e38f * (i % 2 ? 1.0f : -1.0f);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t d = 0; d < TM__COUNT(floats); d++) {
        uint64_t stored[N];
        const tm_tensor t = {floats[d], 2, {N / 10, 10}, stored};
        for (int i = 0; i < N; i++) values[i] = floats[d] == TM_F16 ? 65504 : 3e38f;
        tm__convert(stored, floats[d], values, TM_F32, N);
        assert_ok(tm__tensor_check_finite(&t, "f", "w"));
        for (int at = 0; at < N; at += 1249)
            for (size_t k = 0; k < TM__COUNT(bad); k++) {
                float kept = values[at];
                char says[64];
                values[at] = bad[k];
                tm__convert(stored, floats[d], values, TM_F32, N);
                assert_int_equal(tm__tensor_check_finite(&t, "f", "w"), TM_NUMERIC);
                snprintf(says, sizeof says, "f: w: element %d is NaN or infinite", at);
                assert_non_null(strstr(tm_error_last()->line, says));
                values[at] = kept;
            }
    }
    const int32_t integers[2] = {-1, 0x7f800000};
    const tm_tensor t = {TM_I32, 1, {2}, (void *)integers};
    assert_ok(tm__tensor_check_finite(&t, "f", "w"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes),           cmocka_unit_test(shapes),        cmocka_unit_test(all_16_bit_values),
        cmocka_unit_test(narrow_midpoints), cmocka_unit_test(narrow_random), cmocka_unit_test(fp64_rounds_once),
        cmocka_unit_test(arrays),           cmocka_unit_test(finiteness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
