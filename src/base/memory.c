/* memory.c: the allocator all layers share, arenas, growing arrays and strings, and the hash map.
 *
 * One counter stands in front of malloc so that a test can make the n-th allocation fail; outside tests it costs one
 * relaxed load.
 */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- allocation -------------------------------------------------------------------------------------------------- */

static atomic_long fail_countdown; /* 0: off; n: the n-th allocation from now fails */
static atomic_bool fail_sticky, has_failed;

bool tm__alloc_fails(void) {
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0) return false;
    long left = atomic_fetch_sub(&fail_countdown, 1);
    if (left > 1) return false;
    bool sticky = atomic_load(&fail_sticky);
    atomic_store(&has_failed, true);
    atomic_store(&fail_countdown, sticky ? 1 : 0);
    return true;
}

void tm__alloc_fail_at(long n, bool sticky) {
    tm__json_watch();
    atomic_store(&fail_sticky, sticky);
    if (n > 0) atomic_store(&has_failed, false);
    atomic_store(&fail_countdown, n > 0 ? n : 0);
}

bool tm__alloc_has_failed(void) {
    return atomic_load(&has_failed);
}

/* An empty request still gets a block of its own, so that NULL always means failure. */
static bool total_size(size_t count, size_t size, size_t *total) {
    if (__builtin_mul_overflow(count, size, total) || *total > PTRDIFF_MAX) return false;
    if (*total == 0) *total = 1;
    return true;
}

void *tm__alloc(size_t count, size_t size) {
    size_t total;
    return total_size(count, size, &total) && !tm__alloc_fails() ? malloc(total) : NULL;
}

void *tm__zalloc(size_t count, size_t size) {
    size_t total;
    return total_size(count, size, &total) && !tm__alloc_fails() ? calloc(1, total) : NULL;
}

void *tm__realloc(void *old, size_t count, size_t size) {
    size_t total;
    return total_size(count, size, &total) && !tm__alloc_fails() ? realloc(old, total) : NULL;
}

void *tm__alloc_aligned(size_t bytes) {
    if (bytes > PTRDIFF_MAX - 64 || tm__alloc_fails()) return NULL;
    size_t rounded = (bytes + 63) / 64 * 64;
    return aligned_alloc(64, rounded ? rounded : 64);
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Small pages, where the system would choose large ones: the descriptions of the pool's buffers (device/pool.c) would
 * each take a large one, and steps were measured to be no faster. */
void *tm__pages_map(size_t bytes, bool unused) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (unused ? MAP_NORESERVE : 0);
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (pages == MAP_FAILED) return NULL;
#ifdef MADV_NOHUGEPAGE
    (void)madvise(pages, bytes, MADV_NOHUGEPAGE); /* fails where there are none */
#endif
    return pages;
}

void tm__pages_unmap(void *pages, size_t bytes) {
    munmap(pages, bytes);
}

void tm__pages_clear(void *from, size_t bytes, bool edges) {
    const size_t page = page_size();
    char *end = (char *)from + bytes, *first = (char *)(((uintptr_t)from + page - 1) / page * page),
         *last = (char *)((uintptr_t)end / page * page);
    if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED) != 0) first = last = end;
    if (!edges) return;
    memset(from, 0, (size_t)(first - (char *)from));
    memset(last, 0, (size_t)(end - last));
}

size_t tm__pages_resident(void *pages, size_t bytes) {
    enum { AT_ONCE = 4096 };
    unsigned char there[AT_ONCE];
    const size_t page = page_size();
    size_t count = 0;
    for (size_t at = 0; at < bytes; at += AT_ONCE * page) {
        size_t some = TM__MIN(bytes - at, AT_ONCE * page);
        if (mincore((char *)pages + at, some, there) != 0) return 0;
        for (size_t i = 0; i < (some + page - 1) / page; i++) count += there[i] & 1;
    }
    return count * page;
}

char *tm__strndup(const char *text, size_t len) {
    char *copy = len < SIZE_MAX ? tm__alloc(len + 1, 1) : NULL;
    if (!copy) return NULL;
    if (len) memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

char *tm__strdup(const char *text) {
    return tm__strndup(text, strlen(text));
}

char *tm__format(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    char *text = len >= 0 ? tm__alloc((size_t)len + 1, 1) : NULL;
    if (text) vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}

bool tm__grow(void **array, size_t *cap, size_t need, size_t element) {
    if (need <= *cap) return true;
    size_t wanted = *cap > SIZE_MAX / 2 ? need : TM__MAX(*cap * 2, TM__MAX(need, (size_t)8));
    void *larger = tm__realloc(*array, wanted, element);
    if (!larger) return false;
    *array = larger;
    *cap = wanted;
    return true;
}

/* ---- arena ------------------------------------------------------------------------------------------------------- */

enum { ARENA_BLOCK = 1 << 16 };

/* The newest block is at the head; `size` and `used` count bytes of `data`, which is 16-byte aligned. */
struct tm__arena_block {
    struct tm__arena_block *next;
    size_t size, used;
    uint64_t pad;
    uint8_t data[];
};
_Static_assert(sizeof(struct tm__arena_block) % 16 == 0, "arena data is 16-byte aligned");

void *tm__arena_alloc(tm__arena *arena, size_t count, size_t size) {
    size_t total;
    if (!total_size(count, size, &total) || total > PTRDIFF_MAX - 4096) return NULL;
    total = (total + 15) / 16 * 16;
    struct tm__arena_block *block = arena->blocks;
    if (!block || block->size - block->used < total) {
        size_t bytes = TM__MAX(total, (size_t)ARENA_BLOCK - sizeof *block);
        block = tm__alloc(1, sizeof *block + bytes);
        if (!block) return NULL;
        *block = (struct tm__arena_block){.next = arena->blocks, .size = bytes};
        arena->blocks = block;
    }
    void *memory = block->data + block->used;
    block->used += total;
    return memset(memory, 0, total);
}

char *tm__arena_strdup(tm__arena *arena, const char *text, size_t len) {
    char *copy = len < SIZE_MAX ? tm__arena_alloc(arena, len + 1, 1) : NULL;
    if (copy && len) memcpy(copy, text, len);
    return copy;
}

void tm__arena_reset(tm__arena *arena) {
    struct tm__arena_block *largest = NULL, *next;
    for (struct tm__arena_block *block = arena->blocks; block; block = block->next)
        if (!largest || block->size > largest->size) largest = block;
    for (struct tm__arena_block *block = arena->blocks; block; block = next) {
        next = block->next;
        if (block != largest) free(block);
    }
    if (largest) {
        largest->next = NULL;
        largest->used = 0;
    }
    arena->blocks = largest;
}

void tm__arena_release(tm__arena *arena) {
    struct tm__arena_block *next;
    for (struct tm__arena_block *block = arena->blocks; block; block = next) {
        next = block->next;
        free(block);
    }
    arena->blocks = NULL;
}

/* ---- string ------------------------------------------------------------------------------------------------------ */

static bool string_room(tm__string *string, size_t more) {
    if (more >= SIZE_MAX - string->len) return false;
    return tm__grow((void **)&string->data, &string->cap, string->len + more + 1, 1);
}

bool tm__string_append(tm__string *string, const char *bytes, size_t len) {
    if (!string_room(string, len)) return false;
    if (len) memcpy(string->data + string->len, bytes, len);
    string->len += len;
    string->data[string->len] = 0;
    return true;
}

bool tm__string_printf(tm__string *string, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    bool ok = len >= 0 && string_room(string, (size_t)len);
    if (ok) {
        vsnprintf(string->data + string->len, (size_t)len + 1, format, again);
        string->len += (size_t)len;
    }
    va_end(again);
    va_end(args);
    return ok;
}

void tm__string_free(tm__string *string) {
    free(string->data);
    *string = (tm__string){0};
}

/* ---- map --------------------------------------------------------------------------------------------------------- */

/* key NULL: free. The table's size is a power of two and at most 3/4 full; probing is linear. */
struct tm__map_slot {
    const char *key;
    size_t len;
    uint32_t hash;
    int32_t value;
};

/* FNV-1a with a final mix: its low bits alone are weak for keys that differ in the last byte. */
static uint32_t hash_bytes(const char *key, size_t len) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    hash *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 32);
}

/* The slot that holds the key, or the free one where it belongs. */
static struct tm__map_slot *find_slot(const tm__map *map, const char *key, size_t len, uint32_t hash) {
    size_t mask = map->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct tm__map_slot *slot = &map->slots[i];
        if (!slot->key) return slot;
        if (slot->hash == hash && slot->len == len && memcmp(slot->key, key, len) == 0) return slot;
    }
}

static bool map_enlarge(tm__map *map) {
    tm__map larger = {.cap = map->cap ? map->cap * 2 : 16};
    larger.slots = tm__zalloc(larger.cap, sizeof *larger.slots);
    if (!larger.slots) return false;
    for (size_t i = 0; i < map->cap; i++) {
        const struct tm__map_slot *slot = &map->slots[i];
        if (slot->key) *find_slot(&larger, slot->key, slot->len, slot->hash) = *slot;
    }
    free(map->slots);
    map->slots = larger.slots;
    map->cap = larger.cap;
    return true;
}

bool tm__map_put(tm__map *map, const char *key, size_t len, int32_t value) {
    if (map->len >= map->cap / 4 * 3 && !map_enlarge(map)) return false;
    uint32_t hash = hash_bytes(key, len);
    struct tm__map_slot *slot = find_slot(map, key, len, hash);
    if (!slot->key) {
        const char *copy = tm__arena_strdup(&map->keys, key, len);
        if (!copy) return false;
        *slot = (struct tm__map_slot){.key = copy, .len = len, .hash = hash};
        map->len++;
    }
    slot->value = value;
    return true;
}

bool tm__map_get(const tm__map *map, const char *key, size_t len, int32_t *value) {
    if (!map->len) return false;
    const struct tm__map_slot *slot = find_slot(map, key, len, hash_bytes(key, len));
    if (!slot->key) return false;
    if (value) *value = slot->value;
    return true;
}

void tm__map_free(tm__map *map) {
    free(map->slots);
    tm__arena_release(&map->keys);
    *map = (tm__map){0};
}
