/* ref.h: the two instances of the reference kernels, and how they read weights of another type. */
#ifndef TM_REF_H
#define TM_REF_H

#include "device/device.h"

extern const tm__kernels tm__ref_kernels_f32, tm__ref_kernels_f64;

static inline double ref_load(const void *data, tm_dtype type, int64_t i) {
    switch (type) {
    case TM_F64:
        return ((const double *)data)[i];
    case TM_F32:
        return (double)((const float *)data)[i];
    case TM_BF16:
        return (double)tm__bf16_to_f32(((const uint16_t *)data)[i]);
    case TM_F16:
        return (double)tm__f16_to_f32(((const uint16_t *)data)[i]);
    default:
        assert(!"a weight is of a floating-point type");
        return 0;
    }
}

#endif
