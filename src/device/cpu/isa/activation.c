/* activation.c: element-wise activations. A chunk of the flat array is one thread's. */
#include "device/cpu/isa/simd.h"

enum { CHUNK = TM__CPU_CHUNK };

TM__INLINE vf sigmoid(vf x) {
    return splat(1) / (splat(1) + exp_lanes(-x));
}

/* erfc(x) for x >= 0, to about 2 ulp, after Cephes' erfcf: 1 - x T(x^2) up to 1, then e^(-x^2) / x times a polynomial
 * in 1 / x^2, one up to 2 and another beyond. */
TM__INLINE vf erfc_lanes(vf x) {
    static const float near[] = {7.853861353153693e-5f,  -8.010193625184903e-4f, 5.188327685732524e-3f,
                                 -2.685381193529856e-2f, 1.128358514861418e-1f,  -3.761262582423300e-1f,
                                 1.128379165726710f};
    static const float middle[] = {2.326819970068386e-2f,  -1.387039388740657e-1f, 3.687424674597105e-1f,
                                   -5.824733027278666e-1f, 6.210004621745983e-1f,  -4.944515323274145e-1f,
                                   3.404879937665872e-1f,  -2.741127028184656e-1f, 5.638259427386472e-1f};
    static const float far[] = {-1.047766399936249e+1f, 1.297719955372516e+1f, -7.495518717768503f,
                                2.921019019210786f,     -1.015265279202700f,   4.218463358204948e-1f,
                                -2.820767439740514e-1f, 5.641895067754075e-1f};
    vf square = x * x, inverse = splat(1) / choose(x > splat(0.5f), x, splat(0.5f)), z = inverse * inverse;
    vf a = splat(near[0]), b = splat(middle[0]), c = splat(far[0]);
    for (size_t i = 1; i < TM__COUNT(near); i++) a = a * square + splat(near[i]);
    for (size_t i = 1; i < TM__COUNT(middle); i++) b = b * z + splat(middle[i]);
    for (size_t i = 1; i < TM__COUNT(far); i++) c = c * z + splat(far[i]);
    /* x^2 in two parts: its rounding error alone would cost e^(-x^2) its last digits. */
    vf high = (vf)((vu)x & 0xfffff000u), low = x - high;
    vf tail = exp_lanes(-high * high) * exp_lanes(-(high + x) * low) * inverse * choose(x < splat(2), b, c);
    return choose(x < splat(1), splat(1) - x * a, tail);
}

/* The activation that a chunk is given is a constant where this is called. */
TM__INLINE vf activated(tm__activation act, vf x) {
    switch (act) {
    case TM__SILU:
        return x * sigmoid(x);
    case TM__GELU_TANH:
        return x * sigmoid(splat(1.5957691216057308f) * (x + splat(0.044715f) * x * x * x)); /* 2 sqrt(2 / pi) */
    case TM__GELU: {
        vf size = choose(x < splat(0), -x, x), tail = splat(0.5f) * erfc_lanes(size * splat(0.70710678118654752f));
        return x * choose(x < splat(0), tail, splat(1) - tail);
    }
    case TM__RELU:
        return choose(x > splat(0), x, splat(0));
    case TM__TANH:
        break;
    }
    for (int i = 0; i < VL; i++) x[i] = tanhf(x[i]);
    return x;
}

TM__INLINE void chunk(tm__activation act, float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += VL) store_part(y + i, activated(act, load_part(x + i, n - i, 0)), n - i);
}

tm_status TM__ISA(activation)(tm_device *dev, void *y, tm__activation act, const void *x, int64_t n) {
    int team = tm__cpu_team(dev, (double)n * 4);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t lo = 0; lo < n; lo += CHUNK) {
        int64_t count = TM__MIN(n - lo, (int64_t)CHUNK);
        float *to = (float *)y + lo;
        const float *from = (const float *)x + lo;
        switch (act) {
        case TM__SILU:
            chunk(TM__SILU, to, from, count);
            break;
        case TM__GELU_TANH:
            chunk(TM__GELU_TANH, to, from, count);
            break;
        case TM__GELU:
            chunk(TM__GELU, to, from, count);
            break;
        case TM__RELU:
            chunk(TM__RELU, to, from, count);
            break;
        case TM__TANH:
            chunk(TM__TANH, to, from, count);
            break;
        }
    }
    return TM_OK;
}
