/* cpu_fixture.h: opening the cpu and ref devices and filling arrays, for the tests of the cpu kernels. */
#ifndef TM_CPU_FIXTURE_H
#define TM_CPU_FIXTURE_H

#include "device/device.h"
#include "support.h"

static const char *const isa_names[] = {"avx512", "avx2", "sse"};

/* NULL where this processor has no such instruction set (said on stdout). */
static inline tm_device *open_cpu(const char *isa, int64_t threads, int precision) {
    tm_device_options options = {.name = "cpu", .threads = threads, .precision = precision};
    tm_device *dev = NULL;
    setenv("TEMPER_ISA", isa, 1);
    tm_status status = tm_device_open(&options, &dev);
    unsetenv("TEMPER_ISA");
    if (status == TM_UNSUPPORTED) {
        printf("SKIP: %s\n", tm_error_last()->line);
        return NULL;
    }
    assert_ok(status);
    return dev;
}

static inline tm_device *open_ref(void) {
    tm_device_options options = {.name = "ref", .precision = TM_PRECISION_F64};
    tm_device *dev = NULL;
    assert_ok(tm_device_open(&options, &dev));
    return dev;
}

/* Exactly n elements from the heap, so that AddressSanitizer sees every access beyond them. */
static inline void *room(size_t n, size_t size) {
    void *p = malloc(n * size + (n * size == 0));
    assert_non_null(p);
    return p;
}

/* Uniform, variance 1. */
static inline float *random_floats(size_t n, uint64_t stream) {
    float *x = room(n, sizeof *x);
    tm__rng rng = tm__rng_make(7, tm__stream(TM__STREAM_TEST, (uint32_t)stream));
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)tm__rng_u32(&rng) * 0x1p-31 - 1) * 1.7320508f;
    return x;
}

static inline void *as_type(const float *x, tm_dtype type, size_t n) {
    void *y = room(n, tm__dtype_size(type));
    tm__convert(y, type, x, TM_F32, n);
    return y;
}

static inline double *as_doubles(const void *x, tm_dtype type, size_t n) {
    double *y = room(n, sizeof *y);
    tm__convert(y, TM_F64, x, type, n);
    return y;
}

#endif
