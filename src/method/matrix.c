/* matrix.c: reading and writing weights as fp64 numbers. */
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
