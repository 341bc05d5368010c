/* ref.c: the reference device: one thread, plain loops, fp32 or fp64. It is slow and easy to read: the oracle. */
#include "device/ref/ref.h"

#include <stdlib.h>

static tm_status copy(tm_device *dev, void *to, const void *from, size_t bytes) {
    (void)dev;
    if (bytes) memcpy(to, from, bytes);
    return TM_OK;
}

static tm_status sync_nothing(tm_device *dev) {
    (void)dev;
    return TM_OK;
}

static void close_ref(tm_device *dev) {
    tm__pool_trim(dev);
    free(dev);
}

tm_status tm__ref_open(const tm_device_options *options, tm_device **device) {
    tm_device *dev = tm__zalloc(1, sizeof *dev);
    if (!dev) return tm__fail_memory();
    bool wide = options->precision == TM_PRECISION_F64;
    dev->name = "ref";
    dev->isa = "c";
    dev->act = wide ? TM_F64 : TM_F32;
    dev->int8_weights = options->precision == TM_PRECISION_INT8;
    dev->threads = 1;
    dev->k = wide ? &tm__ref_kernels_f64 : &tm__ref_kernels_f32;
    dev->alloc = tm__pool_alloc;
    dev->release = tm__pool_release;
    dev->upload = copy;
    dev->download = copy;
    dev->sync = sync_nothing;
    dev->close = close_ref;
    *device = dev;
    return TM_OK;
}
