/* matrix.c: reading and writing weights as fp64 numbers; normal noise. (tests/unit/test_mmd.c: tm__normal_fill) */
#include "method/matrix.h"

#include <stdlib.h>

tm_status tm__param_read(tm_device *dev, const tm__param *param, int64_t first, int64_t count, double *out) {
    size_t size = tm__dtype_size(param->value.dtype), n = (size_t)count;
    const char *from = (const char *)param->value.data + (size_t)first * size;
    if (!param->owned) {
        tm__convert(out, TM_F64, from, param->value.dtype, n);
        return TM_OK;
    }
    void *host = tm__alloc(n, size);
    if (!host) return tm__fail_memory();
    tm_status status = dev->download(dev, host, from, n * size);
    if (status == TM_OK) tm__convert(out, TM_F64, host, param->value.dtype, n);
    free(host);
    return status;
}

tm_status tm__param_write(tm_device *dev, tm__param *param, int64_t first, int64_t count, const double *values) {
    size_t size = tm__dtype_size(param->value.dtype), n = (size_t)count;
    assert(param->owned);
    void *host = tm__alloc(n, size);
    if (!host) return tm__fail_memory();
    tm__convert(host, param->value.dtype, values, TM_F64, n);
    tm_status status = dev->upload(dev, (char *)param->value.data + (size_t)first * size, host, n * size);
    free(host);
    return status;
}

tm_status tm__param_read_all(tm_device *dev, const tm__param *param, double **out) {
    int64_t count = tm__tensor_count(&param->value);
    double *values = tm__alloc((size_t)count, sizeof *values);
    if (!values) return tm__fail_memory();
    tm_status status = tm__param_read(dev, param, 0, count, values);
    if (status == TM_OK)
        *out = values;
    else
        free(values);
    return status;
}

/* A normal number takes one block of Philox, whose counter is therefore the number's index. */
static void fill_part(double *to, size_t count, uint64_t seed, uint64_t stream, size_t first) {
    tm__rng rng = tm__rng_make(seed, stream);
    rng.counter = first;
    for (size_t i = 0; i < count; i++) to[i] = tm__rng_normal(&rng);
}

void tm__normal_fill(double *to, size_t count, uint64_t seed, uint64_t stream, size_t first, int threads) {
    enum { PART = 4096 };
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t at = 0; at < count; at += PART)
        fill_part(to + at, TM__MIN((size_t)PART, count - at), seed, stream, first + at);
}
