/* pool.c: device buffers in host memory: taken from a few large maps, split, joined again, and reused.
 *
 * A map is a row of blocks, each behind a description of 64 bytes (tm__pooled). A released block joins its free
 * neighbours; a request takes the smallest free block that holds it, and what is too much stays free. So buffers of any
 * sizes share one memory: batches of varying length, and gradients that come as activations go. A step takes what it
 * needs at once and hardly more (docs/performance/memory.md), and after the first one nothing from the system.
 *
 * Of a free block only the first `dirty` bytes count as memory that is held: the end of a map has not been touched yet.
 * A request that would have to touch more gives the largest free blocks' pages back first, until all that is held fits
 * what was ever needed at once and a little more, or the limit.
 *
 * Free blocks lie in lists by the class of their dirty bytes: a multiple of 64 up to 512, then eight per power of two.
 *
 * Under AddressSanitizer released bytes are poisoned, and so are some behind every buffer. (tests/unit/test_pool.c)
 */
#include "device/device.h"

#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(from, bytes) ASAN_POISON_MEMORY_REGION(from, bytes)
#define UNPOISON(from, bytes) ASAN_UNPOISON_MEMORY_REGION(from, bytes)
enum { GUARD = 64 };
#else
#define POISON(from, bytes) ((void)(from), (void)(bytes))
#define UNPOISON(from, bytes) ((void)(from), (void)(bytes))
enum { GUARD = 0 };
#endif

enum { HEAD = sizeof(tm__pooled), MAP_STEP = 1 << 16, MAP_BYTES = 64 << 20, SLACK_SHARE = 32, SLACK_BYTES = 4 << 20 };
_Static_assert(HEAD == 64 && sizeof(tm__pool_map) <= HEAD, "buffers are aligned to 64 bytes");

static tm__pooled *behind(tm__pooled *block) {
    return block->last ? NULL : (tm__pooled *)((char *)block + block->size);
}

/* ---- free blocks ------------------------------------------------------------------------------------------------- */

static int class_of(size_t bytes) {
    if (bytes <= 512) return (int)((bytes + 63) / 64) - 1;
    int octave = 63 - __builtin_clzll((unsigned long long)(bytes - 1)); /* 2^octave < bytes <= 2^(octave + 1) */
    size_t step = (size_t)1 << (octave - 3);
    size_t steps = (bytes - ((size_t)1 << octave) + step - 1) / step; /* 1..8 */
    return 8 + (octave - 9) * 8 + (int)steps - 1;
}

static void list(tm__pool *pool, tm__pooled *block) {
    tm__pooled **first = &pool->free[class_of(block->dirty)];
    block->is_free = true;
    block->prev = NULL;
    block->next = *first;
    if (*first) (*first)->prev = block;
    *first = block;
    pool->listed++;
    pool->held += block->dirty;
}

static void unlist(tm__pool *pool, tm__pooled *block) {
    if (block->next) block->next->prev = block->prev;
    if (block->prev)
        block->prev->next = block->next;
    else
        pool->free[class_of(block->dirty)] = block->next;
    block->is_free = false;
    pool->listed--;
    pool->held -= block->dirty;
}

/* Describes memory that has none yet, or another description that no longer counts. */
static tm__pooled *describe(void *at, tm__pooled *before, size_t size, size_t dirty, bool last) {
    UNPOISON(at, HEAD);
    tm__pooled *block = at;
    *block = (tm__pooled){.before = before, .size = size, .dirty = dirty, .last = last};
    if (!last) behind(block)->before = block;
    return block;
}

/* Two free blocks are one if its dirty bytes come first. */
static bool can_join(const tm__pooled *front, const tm__pooled *next) {
    return front && next && front->is_free && next->is_free && (front->dirty == front->size || next->dirty == HEAD);
}

static tm__pooled *join(tm__pool *pool, tm__pooled *front, tm__pooled *next) {
    unlist(pool, front);
    unlist(pool, next);
    size_t dirty = front->dirty == front->size ? front->size + next->dirty : front->dirty;
    size_t size = front->size + next->size;
    bool last = next->last;
    memset(next, 0, HEAD);
    POISON(next, HEAD);
    list(pool, describe(front, front->before, size, dirty, last));
    return front;
}

static void let_go(tm__pool *pool, tm__pooled *block) {
    list(pool, block);
    if (can_join(block, behind(block))) block = join(pool, block, behind(block));
    if (can_join(block->before, block)) join(pool, block->before, block);
}

/* The block gives back what of its memory is whole pages, and is zero. The pages at its ends, two at most, are not
 * counted although they stay. */
static void clear(tm_device *dev, tm__pooled *block) {
    unlist(&dev->pool, block);
    UNPOISON(block + 1, block->dirty - HEAD);
    tm__pages_clear(block + 1, block->dirty - HEAD, !dev->rehearses);
    POISON(block + 1, block->dirty - HEAD);
    block->dirty = HEAD;
    let_go(&dev->pool, block);
}

/* The largest free blocks, until no more than `most` bytes are held. */
static void give_back(tm_device *dev, size_t most) {
    tm__pool *pool = &dev->pool;
    for (int i = TM__POOL_CLASSES - 1; i > class_of(HEAD) && pool->held > most; i--)
        while (pool->free[i] && pool->held > most) clear(dev, pool->free[i]);
}

/* ---- maps -------------------------------------------------------------------------------------------------------- */

/* Address space for `size` bytes, and as a rule for more: what is not touched costs nothing. */
static tm__pooled *make_map(tm_device *dev, size_t size) {
    tm__pool *pool = &dev->pool;
    size_t exact = (HEAD + size + MAP_STEP - 1) / MAP_STEP * MAP_STEP; /* pages, however large they are */
    size_t bytes = TM__MAX(TM__MAX(exact, (size_t)MAP_BYTES), pool->mapped / 4 / MAP_STEP * MAP_STEP);
    tm__pool_map *map = tm__pages_map(bytes, dev->rehearses);
    if (!map && bytes > exact) map = tm__pages_map(bytes = exact, dev->rehearses);
    if (!map) return NULL;
    *map = (tm__pool_map){.next = pool->maps, .bytes = bytes};
    pool->maps = map;
    pool->mapped += bytes;
    tm__pooled *block = describe((char *)map + HEAD, NULL, bytes - HEAD, HEAD, true);
    list(pool, block);
    return block;
}

static void free_maps(tm__pool *pool) {
    for (tm__pool_map **link = &pool->maps; *link;) {
        tm__pool_map *map = *link;
        tm__pooled *block = (tm__pooled *)((char *)map + HEAD);
        if (!block->is_free || !block->last) {
            link = &map->next;
            continue;
        }
        unlist(pool, block);
        UNPOISON(map, map->bytes);
        *link = map->next;
        pool->mapped -= map->bytes;
        tm__pages_unmap(map, map->bytes);
    }
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

static bool fits_better(const tm__pooled *a, const tm__pooled *b) {
    if (!b) return true;
    return a->dirty != b->dirty ? a->dirty < b->dirty : (uintptr_t)a < (uintptr_t)b;
}

/* Whether `size` bytes of a free block, and the description of what is left, have been touched already. */
static bool has_dirty(const tm__pooled *block, size_t size) {
    return block->dirty >= (block->size - size < 2 * HEAD ? block->size : size + HEAD);
}

/* The smallest such block. */
static tm__pooled *find_dirty(const tm__pool *pool, size_t size) {
    tm__pooled *best = NULL;
    for (int i = class_of(size); i < TM__POOL_CLASSES && !best; i++)
        for (tm__pooled *block = pool->free[i]; block; block = block->next)
            if (block->size >= size && has_dirty(block, size) && fits_better(block, best)) best = block;
    return best;
}

/* The free block that holds `size` bytes with the fewest new ones, and of equals the smallest. */
static tm__pooled *find_any(const tm__pool *pool, size_t size) {
    tm__pooled *best = NULL;
    for (int i = TM__POOL_CLASSES - 1; i >= 0; i--)
        for (tm__pooled *block = pool->free[i]; block; block = block->next) {
            bool better = !best || block->dirty > best->dirty ||
                          (block->dirty == best->dirty &&
                           (block->size != best->size ? block->size < best->size : (uintptr_t)block < (uintptr_t)best));
            if (block->size >= size && better) best = block;
        }
    return best;
}

/* The most to hold where so much is needed at once. */
static size_t bound(size_t needed) {
    return needed + TM__MAX(needed / SLACK_SHARE, (size_t)SLACK_BYTES);
}

/* What is held at least where `size` more are needed: free blocks keep their descriptions, there may be one more. */
static size_t least(const tm__pool *pool, size_t size) {
    return pool->needed + size + (pool->listed + 1) * HEAD;
}

/* What may be held then. */
static size_t may_hold(const tm_device *dev, size_t size) {
    size_t needed = least(&dev->pool, size), most = bound(TM__MAX(dev->pool.needed_peak, needed));
    return dev->limit ? TM__MAX(TM__MIN(most, dev->limit), needed) : most;
}

/* Asks for buffers back until `size` more fit below the limit, or nobody has any. */
static void make_room(tm_device *dev, size_t size) {
    while (dev->limit && least(&dev->pool, size) > dev->limit) {
        tm__reclaimer *r = dev->reclaimers;
        while (r && !r->reclaim(r)) r = r->next;
        if (!r) return;
    }
}

/* Takes the first `size` bytes of a free block; what is too little to be one stays with them. */
static void take(tm__pool *pool, tm__pooled *block, size_t size) {
    size_t whole = block->size, dirty = block->dirty;
    unlist(pool, block);
    if (whole - size < 2 * HEAD) return;
    bool last = block->last;
    block->size = size;
    block->last = false;
    list(pool, describe((char *)block + size, block, whole - size, TM__MAX(dirty, size + HEAD) - size, last));
}

/* A free block of `size` bytes, or more, that is in no list; NULL: there is no memory. */
static tm__pooled *find(tm_device *dev, size_t size) {
    tm__pool *pool = &dev->pool;
    tm__pooled *block = find_dirty(pool, size);
    if (block) {
        take(pool, block, size);
        return block;
    }
    if (tm__alloc_fails()) return NULL;
    block = find_any(pool, size);
    if (!block) block = make_map(dev, size);
    if (!block) { /* maps that nobody uses may be in the way; and what gave its pages back joins its neighbours */
        tm__pool_trim(dev);
        block = find_any(pool, size);
        if (!block) block = make_map(dev, size);
    }
    if (!block) return NULL;
    take(pool, block, size);
    give_back(dev, may_hold(dev, block->size) - block->size);
    return block;
}

tm_status tm__pool_alloc(tm_device *dev, size_t bytes, void **buffer) {
    tm__pool *pool = &dev->pool;
    if (bytes > PTRDIFF_MAX / 4) return tm__fail_memory();
    size_t size = HEAD + (TM__MAX(bytes, (size_t)1) + 63) / 64 * 64 + GUARD;
    make_room(dev, size);
    tm__pooled *block = find(dev, size);
    if (!block) return tm__fail_memory();
    block->bytes = bytes;
    pool->held += block->size;
    pool->needed += block->size;
    pool->needed_peak = TM__MAX(pool->needed_peak, pool->needed);
    dev->bytes_in_use += bytes;
    dev->bytes_peak = TM__MAX(dev->bytes_peak, dev->bytes_in_use);
    POISON(block + 1, block->size - HEAD);
    UNPOISON(block + 1, bytes);
    *buffer = block + 1;
    return TM_OK;
}

tm_status tm__alloc_zeroed(tm_device *dev, int purpose, size_t bytes, void **buffer) {
    void *taken;
    TM__TRY(tm__alloc_for(dev, purpose, bytes, &taken));
    size_t used = TM__MIN(tm__pooled_of(taken)->dirty - HEAD, bytes), element = tm__dtype_size(dev->act);
    tm_status status = used ? dev->k->fill(dev, taken, 0, (int64_t)((used + element - 1) / element)) : TM_OK;
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
    assert(block->bytes == bytes && !block->is_free && dev->bytes_in_use >= bytes &&
           "released with another size than it was allocated with");
    pool->held -= block->size;
    pool->needed -= block->size;
    dev->bytes_in_use -= bytes;
    block->dirty = block->size;
    POISON(buffer, block->size - HEAD);
    let_go(pool, block);
}

void tm__pool_trim(tm_device *dev) {
    give_back(dev, 0);
    free_maps(&dev->pool);
}

size_t tm__pool_resident(const tm_device *dev) {
    size_t bytes = 0;
    for (tm__pool_map *map = dev->pool.maps; map; map = map->next) bytes += tm__pages_resident(map, map->bytes);
    return bytes;
}

tm_status tm__device_lacks(const tm_device *dev, const char *kernel) {
    return tm__fail(TM_UNSUPPORTED, NULL, kernel, "choose another device", "device %s has no such kernel", dev->name);
}
