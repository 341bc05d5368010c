/* pool.c: device buffers in host memory, reused through size classes.
 *
 * A class is a multiple of 64 bytes up to 512, then eight steps per power of two, so that a buffer is at most 12.5%
 * larger than asked for. Released buffers form one list per class, linked through their own first bytes: taking and
 * giving cost a few instructions. Shapes come and go (batches of varying length) and would make the lists grow: on a
 * miss the largest unused buffers go back to the system until all that is held fits what was ever needed at once, and a
 * little more, in which what a backward pass alone needs waits for the next one. So memory is that of the largest step
 * whatever the others are, and a workload that repeats itself misses little or never (tests/unit/test_tape.c).
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

_Static_assert(sizeof(tm__pooled) == 64, "buffers are aligned to 64 bytes");

enum { SLACK_SHARE = 32, SLACK_BYTES = 4 << 20 };

/* The most to hold where so much is needed at once. */
static size_t bound(size_t needed) {
    return needed + TM__MAX(needed / SLACK_SHARE, (size_t)SLACK_BYTES);
}

static void *pop(tm__pool *pool, int index) {
    void *buffer = pool->free[index];
    UNPOISON(buffer, sizeof buffer);
    memcpy(&pool->free[index], buffer, sizeof buffer);
    pool->bytes_free -= tm__pooled_of(buffer)->size;
    return buffer;
}

/* The largest unused buffers, until no more than `most` bytes are held. */
static void give_back(tm__pool *pool, size_t most) {
    for (int i = TM__POOL_CLASSES - 1; i >= 0 && pool->bytes_free > 0 && pool->held > most; i--)
        while (pool->free[i] && pool->held > most) {
            tm__pooled *block = tm__pooled_of(pop(pool, i));
            pool->held -= block->size;
            UNPOISON(block + 1, block->size);
            tm__pages_free(block + 1, sizeof *block, block->size);
        }
}

static void *make(tm_device *dev, int index, size_t size) {
    void *made = tm__pages_alloc(sizeof(tm__pooled), size);
    if (!made) return NULL;
    *tm__pooled_of(made) = (tm__pooled){.size = size, .index = index, .clear = tm__pages_are_clear(size)};
    dev->pool.held += size;
    return made;
}

/* Asks for buffers back until `size` more fit below the limit, or nobody has any. */
static void make_room(tm_device *dev, size_t size) {
    while (dev->limit && dev->pool.needed + size > dev->limit) {
        tm__reclaimer *r = dev->reclaimers;
        while (r && !r->reclaim(r)) r = r->next;
        if (!r) return;
    }
}

/* What may be held where `size` more are needed. */
static size_t may_hold(const tm_device *dev, size_t size) {
    size_t needed = dev->pool.needed + size, most = bound(TM__MAX(dev->pool.needed_peak, needed));
    return dev->limit ? TM__MAX(TM__MIN(most, dev->limit), needed) : most;
}

static void count_in(tm_device *dev, size_t size, size_t bytes) {
    dev->pool.needed += size;
    dev->pool.needed_peak = TM__MAX(dev->pool.needed_peak, dev->pool.needed);
    dev->bytes_in_use += bytes;
    dev->bytes_peak = TM__MAX(dev->bytes_peak, dev->bytes_in_use);
}

static void count_out(tm_device *dev, size_t size, size_t bytes) {
    dev->pool.needed -= size;
    dev->bytes_in_use -= bytes;
}

tm_status tm__pool_alloc(tm_device *dev, size_t bytes, void **buffer) {
    tm__pool *pool = &dev->pool;
    size_t size;
    int index = class_of(bytes, &size);
    if (index < 0) return tm__fail_memory();
    make_room(dev, size);
    void *taken = pool->free[index] ? pop(pool, index) : NULL;
    if (taken) tm__pooled_of(taken)->clear = false;
    if (!taken) {
        give_back(pool, may_hold(dev, size) - size);
        taken = make(dev, index, size);
    }
    if (!taken && pool->bytes_free > 0) {
        tm__pool_trim(dev);
        taken = make(dev, index, size);
    }
    if (!taken) return tm__fail_memory();
    UNPOISON(taken, size);
    count_in(dev, size, bytes);
    *buffer = taken;
    return TM_OK;
}

tm_status tm__alloc_zeroed(tm_device *dev, int purpose, size_t bytes, void **buffer) {
    void *taken;
    TM__TRY(tm__alloc_for(dev, purpose, bytes, &taken));
    tm_status status = TM_OK;
    if (!tm__pooled_of(taken)->clear) status = dev->k->fill(dev, taken, 0, (int64_t)(bytes / tm__dtype_size(dev->act)));
    if (status == TM_OK)
        *buffer = taken;
    else
        dev->release(dev, taken, bytes);
    return status;
}

void tm__pool_release(tm_device *dev, void *buffer, size_t bytes) {
    if (!buffer) return;
    tm__pool *pool = &dev->pool;
    tm__pooled *block = tm__pooled_of(buffer);
    size_t size;
    int index = class_of(bytes, &size);
    (void)index;
    assert(index == block->index && (block->idle || dev->bytes_in_use >= bytes) &&
           "released with another size than it was allocated with");
    if (block->idle) { /* there is nothing to reuse */
        tm__pages_free(buffer, sizeof *block, block->size);
        return;
    }
    memcpy(buffer, &pool->free[block->index], sizeof buffer);
    pool->free[block->index] = buffer;
    pool->bytes_free += block->size;
    count_out(dev, block->size, bytes);
    POISON(buffer, block->size);
}

/* Memory that goes to the system and comes back costs more than its faults where the system is a guest: its host takes
 * the pages too. So buffers sleep only where memory is bounded (docs/performance/memory.md). */
tm_status tm__pool_idle(tm_device *dev, void *buffer, size_t bytes) {
    tm__pooled *block = tm__pooled_of(buffer);
    if (!block->idle && (!dev->limit || !tm__pages_clear(buffer, block->size)))
        return dev->k->fill(dev, buffer, 0, (int64_t)(bytes / tm__dtype_size(dev->act)));
    if (!block->idle) {
        block->idle = true;
        dev->pool.held -= block->size;
        count_out(dev, block->size, bytes);
    }
    return TM_OK;
}

void tm__pool_wake(tm_device *dev, void *buffer, size_t bytes) {
    tm__pooled *block = tm__pooled_of(buffer);
    if (!block->idle) return;
    make_room(dev, block->size);
    give_back(&dev->pool, may_hold(dev, block->size) - block->size);
    block->idle = false;
    dev->pool.held += block->size;
    count_in(dev, block->size, bytes);
    if (!dev->rehearses) tm__pages_fill(buffer, bytes);
}

void tm__pool_trim(tm_device *dev) {
    give_back(&dev->pool, 0);
}

tm_status tm__device_lacks(const tm_device *dev, const char *kernel) {
    return tm__fail(TM_UNSUPPORTED, NULL, kernel, "choose another device", "device %s has no such kernel", dev->name);
}
