/* The pool of device buffers: no two overlap, what is released is joined and used again, what is new is zero, and
 * little is held beyond what was needed at once, or a limit. */
#include "support.h"

#include "device/device.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static tm_device *dev;

static int begin(void **state) {
    (void)state;
    const tm_device_options options = {.name = "ref", .precision = TM_PRECISION_F64};
    assert_ok(tm__ref_open(&options, &dev));
    return 0;
}

static int end(void **state) {
    (void)state;
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
    return 0;
}

/* ---- one buffer at a time ---- */

static void test_reuse(void **state) {
    (void)state;
    void *first, *again, *other;
    for (size_t bytes = 1; bytes < 5000; bytes += 37) {
        assert_ok(dev->alloc(dev, bytes, &first));
        assert_int_equal((uintptr_t)first % 64, 0);
        memset(first, 1, bytes);
        dev->release(dev, first, bytes);
        assert_ok(dev->alloc(dev, bytes, &again)); /* the same size comes from the same place */
        assert_ptr_equal(first, again);
        dev->release(dev, again, bytes);
    }
    assert_int_equal(dev->bytes_in_use, 0);
    assert_ok(dev->alloc(dev, 1000, &first));
    dev->release(dev, first, 1000);
    assert_ok(dev->alloc(dev, 1020, &again)); /* both take 1024 */
    assert_ptr_equal(first, again);
    assert_ok(dev->alloc(dev, 1020, &other));
    assert_ptr_not_equal(again, other);
    assert_int_equal(dev->bytes_in_use, 2040);
    dev->release(dev, again, 1020);
    dev->release(dev, other, 1020);
    dev->release(dev, NULL, 1);
    assert_int_equal(dev->bytes_in_use, 0);
    assert_int_equal(tm__pool_alloc(dev, SIZE_MAX / 2, &first), TM_NO_MEMORY);
    assert_int_equal(tm__pool_alloc(dev, (size_t)1 << 60, &first), TM_NO_MEMORY); /* no such address space */
}

static bool is_bounded(const tm_device *device) {
    const tm__pool *pool = &device->pool;
    return pool->held <= pool->needed_peak + TM__MAX(pool->needed_peak / 32, (size_t)4 << 20) &&
           pool->held >= pool->needed;
}

/* Sizes that never come again do not pile up: little is held beyond what was needed at once. */
static void test_sizes_that_never_come_again(void **state) {
    (void)state;
    for (size_t bytes = 1000; bytes < 300000000; bytes += bytes / 8) {
        void *buffer;
        assert_ok(dev->alloc(dev, bytes, &buffer));
        dev->release(dev, buffer, bytes);
        assert_true(is_bounded(dev));
    }
    tm__pool_trim(dev);
    assert_int_equal(dev->pool.held, 0);
}

/* Steps of batches of n tokens with buffers of several widths take the memory of the largest. */
static void test_batches_of_any_length(void **state) {
    static const size_t widths[] = {64, 192, 576, 576, 1536, 192, 1536, 64},
                        tokens[] = {30000, 12000, 50000, 21000, 48000, 9000, 33300, 50000};
    (void)state;
    for (size_t t = 0; t < TM__COUNT(tokens); t++) {
        void *buffers[TM__COUNT(widths)];
        for (size_t i = 0; i < TM__COUNT(widths); i++) {
            assert_ok(dev->alloc(dev, widths[i] * tokens[t], &buffers[i]));
            assert_int_equal((uintptr_t)buffers[i] % 64, 0);
            assert_true(is_bounded(dev));
        }
        for (size_t i = 0; i < TM__COUNT(widths); i++) dev->release(dev, buffers[i], widths[i] * tokens[t]);
        assert_int_equal(dev->bytes_in_use, 0);
        assert_int_equal(dev->pool.needed, 0);
    }
    assert_true(dev->pool.held < (size_t)4736 * 50000 + (8 << 20));
}

/* ---- many buffers ---- */

/* Walks every map from block to block; counts must be what the pool says, and no two free blocks that could be one may
 * lie side by side. */
static void check_blocks(void) {
    const tm__pool *pool = &dev->pool;
    size_t needed = 0, bytes_free = 0, mapped = 0, in_use = 0, listed = 0, found = 0;
    for (const tm__pool_map *map = pool->maps; map; map = map->next) {
        const tm__pooled *before = NULL;
        const char *at = (const char *)map + 64, *stop = (const char *)map + map->bytes;
        mapped += map->bytes;
        while (at < stop) {
            const tm__pooled *block = (const tm__pooled *)at;
            assert_ptr_equal(block->before, before);
            assert_true(block->size >= 128 && block->size % 64 == 0);
            assert_int_equal(block->last, at + block->size == stop);
            if (block->is_free) {
                assert_true(block->dirty >= 64 && block->dirty <= block->size);
                bytes_free += block->dirty;
                found++;
                if (before && before->is_free) assert_true(before->dirty < before->size && block->dirty > 64);
            } else {
                needed += block->size;
                in_use += block->bytes;
            }
            before = block;
            at += block->size;
        }
        assert_ptr_equal(at, stop);
    }
    for (int i = 0; i < TM__POOL_CLASSES; i++)
        for (const tm__pooled *block = pool->free[i]; block; block = block->next) {
            assert_true(block->is_free);
            listed++;
        }
    assert_int_equal(found, listed);
    assert_int_equal(found, pool->listed);
    assert_int_equal(mapped, pool->mapped);
    assert_int_equal(needed + bytes_free, pool->held);
    assert_int_equal(needed, pool->needed);
    assert_int_equal(in_use, dev->bytes_in_use);
}

typedef struct held {
    unsigned char *data;
    size_t bytes;
    unsigned char mark;
} held;

/* Ends of the buffer only: they are where a neighbour would write. */
static size_t next_end(const held *h, size_t i) {
    return i == 255 && h->bytes > 512 ? h->bytes - 256 : i + 1;
}

static void sign(const held *h) {
    for (size_t i = 0; i < h->bytes; i = next_end(h, i)) h->data[i] = h->mark;
}

static void check_sign(const held *h) {
    for (size_t i = 0; i < h->bytes; i = next_end(h, i)) assert_int_equal(h->data[i], h->mark);
}

static size_t any_size(tm__rng *rng) {
    uint32_t kind = tm__rng_u32(rng) % 8;
    size_t most = kind < 3 ? 700 : kind < 6 ? 60000 : kind == 6 ? 3 << 20 : 9 << 20;
    return 8 * (tm__rng_u32(rng) % (most / 8) + 1);
}

static void take_and_give(size_t limit, uint64_t seed) {
    enum { MOST = 60, TURNS = 4000 };
    held all[MOST] = {0};
    size_t count = 0, peak = dev->pool.needed_peak;
    tm__rng rng = tm__rng_make(seed, 1);
    dev->limit = limit;
    for (int turn = 0; turn < TURNS; turn++) {
        bool growing = turn / 500 % 2 == 0;
        if (count < MOST && (count == 0 || tm__rng_u32(&rng) % 16 < (growing ? 10 : 6))) {
            held *h = &all[count];
            bool zeroed = tm__rng_u32(&rng) % 4 == 0;
            size_t before = dev->pool.held, listed = dev->pool.listed;
            void *buffer;
            h->bytes = any_size(&rng);
            h->mark = (unsigned char)(1 + turn % 255);
            assert_ok(zeroed ? tm__alloc_zeroed(dev, TM__FOR_GRADIENTS, h->bytes, &buffer)
                             : dev->alloc(dev, h->bytes, &buffer));
            assert_int_equal((uintptr_t)buffer % 64, 0);
            h->data = buffer;
            for (size_t i = 0; i < h->bytes && zeroed; i++) assert_int_equal(h->data[i], 0);
            memset(h->data, 0xff, h->bytes);
            sign(h);
            count++;
            size_t least = dev->pool.needed + (listed + 2) * 64; /* free blocks have descriptions too */
            peak = TM__MAX(peak, least);
            size_t most = peak + TM__MAX(peak / 32, (size_t)4 << 20);
            if (limit) most = TM__MAX(TM__MIN(most, limit), least);
            if (dev->pool.held > before && dev->pool.held > most) /* what is new is paid for */
                fail_msg("%zu bytes held, %zu before, at most %zu", dev->pool.held, before, most);
        } else {
            size_t i = tm__rng_u32(&rng) % count;
            check_sign(&all[i]);
            dev->release(dev, all[i].data, all[i].bytes);
            all[i] = all[--count];
        }
        if (turn % 50 == 0) check_blocks();
    }
    for (size_t i = 0; i < count; i++) {
        check_sign(&all[i]);
        dev->release(dev, all[i].data, all[i].bytes);
    }
    check_blocks();
    assert_int_equal(dev->pool.needed, 0);
    dev->limit = 0;
    tm__pool_trim(dev);
    assert_int_equal(dev->pool.mapped, 0);
}

static void test_any_order(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        take_and_give(0, seed);
        take_and_give((size_t)30 << 20, seed);
    }
}

/* What was given back to the system is zero again, and buffers across it and what was not are whole. */
static void test_pages_given_back(void **state) {
    (void)state;
    enum { COUNT = 16, BYTES = 1 << 20 };
    void *buffers[COUNT], *large;
    dev->limit = (size_t)COUNT * (BYTES + 256);
    for (int i = 0; i < COUNT; i++) {
        assert_ok(dev->alloc(dev, BYTES, &buffers[i]));
        memset(buffers[i], 1, BYTES);
    }
    for (int i = 0; i < COUNT; i += 2) dev->release(dev, buffers[i], BYTES);
    assert_ok(tm__alloc_zeroed(dev, TM__FOR_GRADIENTS, 7 * BYTES, &large)); /* fits no hole: holes must pay for it */
    assert_true(dev->pool.held <= dev->limit);
    for (size_t i = 0; i < (size_t)7 * BYTES; i++) assert_int_equal(((char *)large)[i], 0);
    for (int i = 0; i < COUNT; i += 2) {
        assert_ok(tm__alloc_zeroed(dev, TM__FOR_GRADIENTS, BYTES, &buffers[i]));
        for (size_t k = 0; k < BYTES; k++) assert_int_equal(((char *)buffers[i])[k], 0);
        dev->release(dev, buffers[i], BYTES);
    }
    dev->release(dev, large, 7 * BYTES);
    for (int i = 1; i < COUNT; i += 2) {
        for (size_t k = 0; k < BYTES; k++) assert_int_equal(((char *)buffers[i])[k], 1);
        dev->release(dev, buffers[i], BYTES);
    }
    check_blocks();
    dev->limit = 0;
}

/* New memory can be refused; what is there already cannot. */
static void test_refused(void **state) {
    (void)state;
    void *first, *second;
    assert_ok(dev->alloc(dev, 1 << 20, &first));
    tm__alloc_fail_at(1, true);
    assert_int_equal(dev->alloc(dev, 1 << 20, &second), TM_NO_MEMORY);
    dev->release(dev, first, 1 << 20);
    assert_ok(dev->alloc(dev, 1 << 19, &first));
    assert_ok(dev->alloc(dev, 1 << 18, &second));
    tm__alloc_fail_at(0, false);
    dev->release(dev, first, 1 << 19);
    dev->release(dev, second, 1 << 18);
    check_blocks();
}

/* alloc where the process may take no more than `more` bytes of address space. */
static tm_status alloc_in_tight_space(size_t more, size_t bytes, void **buffer) {
    struct rlimit before, tight;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = pages * (unsigned long)sysconf(_SC_PAGESIZE) + more;
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    tm_status status = dev->alloc(dev, bytes, buffer);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    return status;
}

/* Address space runs out while a map that nobody uses lies about in several blocks: it makes room. */
static void test_unused_maps_make_room(void **state) {
    (void)state;
    enum { PART = 8 << 20, MAP = 64 << 20, LARGE = 100 << 20 };
    void *parts[4], *large;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it takes all address space itself */
#endif
    for (size_t i = 0; i < TM__COUNT(parts); i++) assert_ok(dev->alloc(dev, PART, &parts[i]));
    assert_int_equal(dev->pool.mapped, MAP);
    dev->release(dev, parts[0], PART);
    dev->limit = 1;
    assert_ok(dev->alloc(dev, PART * 2, &large)); /* the first part's pages go back */
    dev->limit = 0;
    dev->release(dev, large, PART * 2);
    for (size_t i = 1; i < TM__COUNT(parts); i++) dev->release(dev, parts[i], PART);
    assert_int_equal(dev->pool.listed, 2);
    assert_ok(alloc_in_tight_space(LARGE - MAP / 2, LARGE, &large));
    dev->release(dev, large, LARGE);
}

/* The same in a map that is in use: free blocks beside each other, one clean and one not, become one that fits. */
static void test_parts_of_a_used_map_make_room(void **state) {
    (void)state;
    enum { PART = 8 << 20, LARGE = 44 << 20 };
    void *parts[7], *large;
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
    for (size_t i = 0; i < TM__COUNT(parts); i++) assert_ok(dev->alloc(dev, PART, &parts[i]));
    dev->release(dev, parts[0], PART);
    tm__pool_trim(dev);
    for (size_t i = 1; i < TM__COUNT(parts) - 1; i++) dev->release(dev, parts[i], PART);
    assert_int_equal(dev->pool.listed, 3);
    assert_ok(alloc_in_tight_space(1 << 20, LARGE, &large));
    dev->release(dev, large, LARGE);
    dev->release(dev, parts[TM__COUNT(parts) - 1], PART);
    check_blocks();
}

static bool can_map(size_t bytes, int flags) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (pages == MAP_FAILED) return false;
    munmap(pages, bytes);
    return true;
}

/* What the system would not promise is refused at once, instead of the process being ended when it uses it. A rehearsal
 * uses nothing. */
static void test_more_than_there_is(void **state) {
    (void)state;
    struct sysinfo there;
    const tm_device_options where = {.name = "cpu", .threads = 1};
    tm_device *rehearsal;
    void *buffer;
    assert_int_equal(sysinfo(&there), 0);
    size_t bytes = 2 * ((size_t)there.totalram + (size_t)there.totalswap) * there.mem_unit;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it would mark each byte of them */
#endif
    if (can_map(bytes, 0) || !can_map(bytes, MAP_NORESERVE))
        skip(); /* a system that promises anything, or counts all */
    assert_int_equal(dev->alloc(dev, bytes, &buffer), TM_NO_MEMORY);
    assert_ok(tm_device_open_rehearsal(&where, &rehearsal));
    assert_ok(rehearsal->alloc(rehearsal, bytes, &buffer));
    rehearsal->release(rehearsal, buffer, bytes);
    tm_device_close(rehearsal);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reuse, begin, end),
        cmocka_unit_test_setup_teardown(test_sizes_that_never_come_again, begin, end),
        cmocka_unit_test_setup_teardown(test_batches_of_any_length, begin, end),
        cmocka_unit_test_setup_teardown(test_any_order, begin, end),
        cmocka_unit_test_setup_teardown(test_pages_given_back, begin, end),
        cmocka_unit_test_setup_teardown(test_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_unused_maps_make_room, begin, end),
        cmocka_unit_test_setup_teardown(test_parts_of_a_used_map_make_room, begin, end),
        cmocka_unit_test_setup_teardown(test_more_than_there_is, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
