/* base.h: what every other layer stands on: errors, memory, arenas, strings, random numbers, files, SHA-256.
 *
 * Internal (tm__ names may cross files, never the public API). Failure behaviour is stated with each call.
 */
#ifndef TM_BASE_H
#define TM_BASE_H

#include "temper.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TM__COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define TM__MIN(a, b) ((a) < (b) ? (a) : (b))
#define TM__MAX(a, b) ((a) > (b) ? (a) : (b))
#define TM__PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Returns from the enclosing function on failure. For clean-up, use TM__TRY_GOTO with a label `done`. */
#define TM__TRY(call)                           \
    do {                                        \
        tm_status tm__try_ = (call);            \
        if (tm__try_ != TM_OK) return tm__try_; \
    } while (0)
#define TM__TRY_GOTO(status, call, label)  \
    do {                                   \
        (status) = (call);                 \
        if ((status) != TM_OK) goto label; \
    } while (0)

/* ---- errors (error.c) ------------------------------------------------------------------------------------------ */

/* Sets tm_error_last() and returns `status`. file, field and hint may be NULL. */
tm_status tm__fail(tm_status status, const char *file, const char *field, const char *hint, const char *format, ...)
    TM__PRINTF(5, 6);
/* tm__fail(TM_IO) with strerror(errno) appended to the message. */
tm_status tm__fail_errno(const char *file, const char *format, ...) TM__PRINTF(2, 3);
/* The one message for a failed allocation. */
tm_status tm__fail_memory(void);
/* Puts `file` (and `field`, if not NULL) into the last error where these are still empty; returns its status. */
tm_status tm__error_within(const char *file, const char *field);
/* Sends a line to the monitor's note (monitor or note may be NULL). */
void tm__note(const tm_monitor *monitor, const char *format, ...) TM__PRINTF(2, 3);
bool tm__stop(const tm_monitor *monitor);
double tm__now(void); /* monotonic seconds */

/* ---- memory (memory.c) ----------------------------------------------------------------------------------------- */

/* All heap memory of the library comes from here, so that tests can make the n-th allocation fail.
 * NULL on failure or overflow of count * size; the caller reports tm__fail_memory(). Freed by free(). */
void *tm__alloc(size_t count, size_t size);
void *tm__zalloc(size_t count, size_t size);
void *tm__realloc(void *old, size_t count, size_t size); /* old stays valid on failure */
char *tm__strndup(const char *text, size_t len);
char *tm__strdup(const char *text);
char *tm__format(const char *format, ...) TM__PRINTF(1, 2);
/* 64-byte aligned; freed by free(). Not cleared. */
void *tm__alloc_aligned(size_t bytes);
/* Zeros, aligned to a page, that take memory when they are first touched; NULL: no address space, or more than the
 * system would promise. `unused`: most of them never will be touched, and nothing need be promised (which a system that
 * counts strictly does not take). */
void *tm__pages_map(size_t bytes, bool unused);
void tm__pages_unmap(void *pages, size_t bytes);
/* Sets bytes to zero by giving whole pages back to the system. Without `edges` the rest is left alone. */
void tm__pages_clear(void *from, size_t bytes, bool edges);
size_t tm__pages_resident(void *pages, size_t bytes); /* how many of them take memory */
/* Counts as an allocation: whether it must fail. */
bool tm__alloc_fails(void);
/* Tests only: the n-th allocation from now (1 = next) fails, and all after it if `sticky`; 0: never. */
void tm__alloc_fail_at(long n, bool sticky);
bool tm__alloc_has_failed(void); /* tests only: whether one did since the last call that made one fail */
/* Makes room for `need` elements in a growing array (doubles). false: out of memory, array unchanged. */
bool tm__grow(void **array, size_t *cap, size_t need, size_t element);

/* Arena: blocks freed together. init cannot fail; alloc gives zeroed, 16-byte aligned memory or NULL. */
typedef struct tm__arena {
    struct tm__arena_block *blocks;
} tm__arena;
void *tm__arena_alloc(tm__arena *arena, size_t count, size_t size);
char *tm__arena_strdup(tm__arena *arena, const char *text, size_t len);
void tm__arena_reset(tm__arena *arena);   /* keeps the largest block for reuse */
void tm__arena_release(tm__arena *arena); /* frees everything; usable again */

/* Growing byte string; `data` is always NUL-terminated once anything was appended. false: out of memory. */
typedef struct tm__string {
    char *data;
    size_t len, cap;
} tm__string;
bool tm__string_append(tm__string *string, const char *bytes, size_t len);
bool tm__string_printf(tm__string *string, const char *format, ...) TM__PRINTF(2, 3);
void tm__string_free(tm__string *string);

/* Hash map from byte string to int32 (open addressing, keys copied into its arena). Starts as {0}. */
typedef struct tm__map {
    struct tm__map_slot *slots;
    size_t cap, len;
    tm__arena keys;
} tm__map;
bool tm__map_put(tm__map *map, const char *key, size_t len, int32_t value); /* false: out of memory */
bool tm__map_get(const tm__map *map, const char *key, size_t len, int32_t *value);
void tm__map_free(tm__map *map);

/* ---- random numbers (rng.c): Philox 4x32-10, Salmon et al. 2011 -------------------------------------------------- */

/* A stream is named by (seed, stream); numbers depend on these and the counter alone. Copy it freely. */
typedef struct tm__rng {
    uint64_t seed, stream, counter;
    uint32_t block[4];
    int left;
} tm__rng;
/* Streams: one per purpose, so that adding a consumer never shifts another. Combine with tm__stream(purpose, index). */
enum {
    TM__STREAM_INIT = 1,
    TM__STREAM_SHUFFLE,
    TM__STREAM_DROPOUT,
    TM__STREAM_LORA,
    TM__STREAM_SAMPLE,
    TM__STREAM_WORLD,
    TM__STREAM_PAIRING,
    TM__STREAM_TEST,
    TM__STREAM_NOISE,
    TM__STREAM_BLOCKS,
    TM__STREAM_BOOTSTRAP,
    TM__STREAM_PROBE,
    TM__STREAM_RETRY,
    TM__STREAM_SEARCH
};
uint64_t tm__stream(uint32_t purpose, uint32_t index);
void tm__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
tm__rng tm__rng_make(uint64_t seed, uint64_t stream);
uint32_t tm__rng_u32(tm__rng *rng);
uint64_t tm__rng_below(tm__rng *rng, uint64_t n); /* uniform in [0, n), unbiased; n > 0 */
double tm__rng_uniform(tm__rng *rng);             /* [0, 1), 53 bits */
double tm__rng_normal(tm__rng *rng);              /* Box-Muller */
void tm__rng_shuffle(tm__rng *rng, size_t *order, size_t n);

/* ---- options (options.c) ----------------------------------------------------------------------------------------- */

bool tm__option_is_path(const tm_option *option); /* its text names a file or a directory */
/* The name nearest to `wanted` of those considered; begin with {0}. */
typedef struct tm__nearest {
    const char *name;
    size_t len;
    int distance;
} tm__nearest;
void tm__nearest_consider(tm__nearest *best, const char *wanted, const char *name, size_t len);
/* "did you mean 'NAME'?" where that is likely what was meant, else false and "". */
bool tm__nearest_hint(const tm__nearest *best, const char *wanted, char hint[96]);

/* ---- text (text.c) ----------------------------------------------------------------------------------------------- */

/* Length of the valid UTF-8 sequence at s (1..4), or 0 if invalid or truncated. `*code` gets the code point. */
int tm__utf8_decode(const char *s, size_t len, uint32_t *code);
int tm__utf8_encode(uint32_t code, char out[4]); /* bytes written */
bool tm__utf8_valid(const char *s, size_t len);

/* ---- files (file.c) ---------------------------------------------------------------------------------------------- */

char *tm__path_join(const char *directory, const char *name); /* NULL: out of memory */
bool tm__path_exists(const char *path);
bool tm__path_is_directory(const char *path);
bool tm__path_is_empty_directory(const char *path); /* false too where it cannot be read */
/* Whole file, NUL-terminated. TM_NOT_FOUND, TM_IO, TM_NO_MEMORY; TM_FORMAT if larger than max_bytes (0: no limit). */
tm_status tm__file_read(const char *path, size_t max_bytes, char **data, size_t *len);

/* Read-only private mapping of a regular file. Empty files give data == NULL, len == 0. */
typedef struct tm__mapping {
    const uint8_t *data;
    size_t len;
} tm__mapping;
tm_status tm__file_map(const char *path, tm__mapping *mapping);
void tm__file_unmap(tm__mapping *mapping);
/* These bytes of the mapping will hardly be read again: they stop counting as the process's memory. */
void tm__file_unneeded(const tm__mapping *mapping, const void *data, size_t len);

/* Writes aside, fsyncs, renames: the file appears whole or not at all. */
tm_status tm__file_write(const char *path, const void *data, size_t len);
/* The temporary name beside `target`, "<parent>/.<name>.tmp", for a file that appears whole: an empty file, made with
 * `mode`, that is locked (flock) by its owner; whoever else writes the same target waits. What a killed process left
 * under the name is used again, so that it never outlives the next write. Failures name the target. */
typedef struct tm__aside {
    char *path;
    int fd;
} tm__aside;
tm_status tm__aside_begin(tm__aside *aside, const char *target, unsigned mode);
tm_status tm__aside_fill(const tm__aside *aside, const char *target, const void *data, size_t len); /* and fsyncs */
void tm__aside_end(tm__aside *aside, bool remove); /* !remove: it has been renamed; safe on {0} */

/* A directory that appears whole or not at all, also under kill -9: filled as "<parent>/.<name>.tmp-<pid>-<n>", every
 * file and directory fsynced, then renamed; an existing target is swapped in one step (renameat2 RENAME_EXCHANGE) and
 * removed after. Left-overs of dead processes beside the target are removed at begin. */
typedef struct tm__outdir {
    char *target, *aside; /* write below `aside` */
    bool overwrite;
    int lock; /* descriptor of `aside`, locked while its owner lives */
} tm__outdir;
/* TM_EXISTS if target exists and !overwrite; creates missing parents. */
tm_status tm__outdir_begin(tm__outdir *out, const char *target, bool overwrite);
tm_status tm__outdir_commit(tm__outdir *out); /* on failure everything written is removed, as by abandon */
void tm__outdir_abandon(tm__outdir *out);     /* safe after commit and on {0} */
/* Removes what dead processes left beside the target, as tm__outdir_begin does. */
tm_status tm__outdir_clear(const char *target);
/* Sequential writer for one file inside (or anywhere): sticky error, reported by close. */
typedef struct tm__writer {
    int fd;
    char *path;
    uint8_t *buffer;
    size_t used;
    int error; /* errno of the first failure */
} tm__writer;
tm_status tm__writer_open(tm__writer *writer, const char *path);
void tm__writer_put(tm__writer *writer, const void *data, size_t len);
tm_status tm__writer_close(tm__writer *writer); /* flush, fsync, close; a short write or full disk is TM_IO */
void tm__writer_abandon(tm__writer *writer);    /* close after a failure elsewhere; the caller removes the file */
/* Makes directory and parents. */
tm_status tm__make_directories(const char *path);
tm_status tm__remove_tree(const char *path);

/* ---- SHA-256 (sha256.c; FIPS 180-4) ------------------------------------------------------------------------------ */

typedef struct tm__sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} tm__sha256;
void tm__sha256_init(tm__sha256 *hash);
void tm__sha256_update(tm__sha256 *hash, const void *data, size_t len);
void tm__sha256_hex(tm__sha256 *hash, char hex[65]); /* finishes */

/* ---- JSON (json.c, over jansson) --------------------------------------------------------------------------------- */

/* Parses with a depth limit, duplicate keys and trailing bytes refused. Errors name file, line and column. The result
 * is a json_t * (jansson.h), released with json_decref. */
struct json_t;
tm_status tm__json_parse(const char *text, size_t len, const char *file, struct json_t **value);
tm_status tm__json_load(const char *path, struct json_t **value);
/* Text of an object or array, `flags` as for json_dumps; a failed allocation is always noticed (json_dumps may drop
 * characters then). The text belongs to the caller; `len` may be NULL. */
tm_status tm__json_dump(const struct json_t *value, size_t flags, char **text, size_t *len);
/* Lets jansson allocate through tm__alloc, once, unless the program has set an allocator of its own. Parsing does it.
 */
void tm__json_watch(void);
/* Field access with typed errors that name file and field. `fallback` NULL: the field is required. */
tm_status tm__json_int(const struct json_t *object, const char *file, const char *key, int64_t min, int64_t max,
                       const int64_t *fallback, int64_t *value);
tm_status tm__json_real(const struct json_t *object, const char *file, const char *key, const double *fallback,
                        double *value);
tm_status tm__json_bool(const struct json_t *object, const char *file, const char *key, const bool *fallback,
                        bool *value);
/* `*value` belongs to the JSON object. */
tm_status tm__json_text(const struct json_t *object, const char *file, const char *key, const char *fallback,
                        const char **value);

#endif
