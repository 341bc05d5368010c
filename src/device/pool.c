/* pool.c: device buffers in host memory, reused through size classes.
 *
 * A class is a multiple of 64 bytes up to 512, then eight steps per power of two, so that a buffer is at most 12.5%
 * larger than asked for. Released buffers form one list per class, linked through their own first bytes: taking and
 * giving cost a few instructions and no bookkeeping memory. Shapes that come and go (packed batches of varying length)
 * would make the lists grow without end, so a miss first empties them when they hold more than twice the peak of what
 * was ever in use; a workload that repeats itself never misses and never pays for that.
 *
 * Under AddressSanitizer the released bytes are poisoned: use after release is reported although nothing was freed.
 */
#include "device/device.h"

#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(buffer, bytes) ASAN_POISON_MEMORY_REGION(buffer, bytes)
#define UNPOISON(buffer, bytes) ASAN_UNPOISON_MEMORY_REGION(buffer, bytes)
#else
#define POISON(buffer, bytes) ((void)(buffer), (void)(bytes))
#define UNPOISON(buffer, bytes) ((void)(buffer), (void)(bytes))
#endif

/* Class index of a request and the bytes of that class. Index -1: larger than any class. */
static int class_of(size_t bytes, size_t *rounded) {
    if (bytes <= 512) {
        size_t units = bytes ? (bytes + 63) / 64 : 1;
        *rounded = units * 64;
        return (int)units - 1;
    }
    int octave = 63 - __builtin_clzll((unsigned long long)(bytes - 1)); /* 2^octave < bytes <= 2^(octave + 1) */
    size_t step = (size_t)1 << (octave - 3);
    size_t steps = (bytes - ((size_t)1 << octave) + step - 1) / step; /* 1..8 */
    int index = 8 + (octave - 9) * 8 + (int)steps - 1;
    *rounded = ((size_t)1 << octave) + steps * step;
    return index < TM__POOL_CLASSES ? index : -1;
}

static void *take(tm__pool *pool, int index, size_t rounded) {
    void *buffer = pool->free[index];
    if (!buffer) return NULL;
    UNPOISON(buffer, rounded);
    memcpy(&pool->free[index], buffer, sizeof buffer);
    pool->bytes_free -= rounded;
    return buffer;
}

tm_status tm__pool_alloc(tm_device *dev, size_t bytes, void **buffer) {
    size_t rounded;
    int index = class_of(bytes, &rounded);
    if (index < 0) return tm__fail_memory();
    void *taken = take(&dev->pool, index, rounded);
    if (!taken) {
        if (dev->pool.bytes_free / 2 > dev->bytes_peak) tm__pool_trim(dev);
        taken = tm__alloc_aligned(rounded);
    }
    if (!taken && dev->pool.bytes_free > 0) {
        tm__pool_trim(dev);
        taken = tm__alloc_aligned(rounded);
    }
    if (!taken) return tm__fail_memory();
    dev->bytes_in_use += bytes;
    if (dev->bytes_in_use > dev->bytes_peak) dev->bytes_peak = dev->bytes_in_use;
    *buffer = taken;
    return TM_OK;
}

void tm__pool_release(tm_device *dev, void *buffer, size_t bytes) {
    if (!buffer) return;
    size_t rounded;
    int index = class_of(bytes, &rounded);
    assert(index >= 0 && dev->bytes_in_use >= bytes && "released with another size than it was allocated with");
    memcpy(buffer, &dev->pool.free[index], sizeof buffer);
    dev->pool.free[index] = buffer;
    dev->pool.bytes_free += rounded;
    dev->bytes_in_use -= bytes;
    POISON(buffer, rounded);
}

void tm__pool_trim(tm_device *dev) {
    for (int i = 0; i < TM__POOL_CLASSES; i++) {
        while (dev->pool.free[i]) {
            void *buffer = dev->pool.free[i];
            UNPOISON(buffer, sizeof buffer);
            memcpy(&dev->pool.free[i], buffer, sizeof buffer);
            free(buffer);
        }
    }
    dev->pool.bytes_free = 0;
}

tm_status tm__device_lacks(const tm_device *dev, const char *kernel) {
    return tm__fail(TM_UNSUPPORTED, NULL, kernel, "choose another device", "device %s has no such kernel", dev->name);
}
