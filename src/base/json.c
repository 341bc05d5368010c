/* json.c: JSON text to jansson values with errors that name file, line and column; typed access to fields.
 *
 * A scan before parsing does what jansson cannot: it bounds the nesting (jansson and json_decref recurse), and it gives
 * integers beyond 64 bits a ".0", so that they are read as reals. Real checkpoints hold such numbers: transformers
 * writes an unlimited model_max_length as 1000000000000000019884624838656.
 *
 * jansson 2.14 ignores some failed allocations and then lacks a character (lex_save, when reading; also when writing),
 * so its allocator is watched: a call during which one failed is out of memory, whatever it returned. When it is a
 * string's closing quote that it lacks, it reads on past the end; so while it parses, a failed allocation is tried once
 * more before jansson hears of it, and the call fails all the same.
 */
#include "base/base.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

enum { MAX_DEPTH = 200 };
static const size_t max_file = (size_t)1 << 30;

static _Thread_local bool allocation_failed, parsing;

static void *watched_malloc(size_t size) {
    void *memory = tm__alloc(1, size);
    if (memory) return memory;
    allocation_failed = true;
    return parsing ? malloc(size) : NULL;
}

/* A program that has given jansson an allocator of its own keeps it. */
static void watch(void) {
    json_malloc_t allocate;
    json_free_t release;
    json_get_alloc_funcs(&allocate, &release);
    if (allocate == malloc && release == free) json_set_alloc_funcs(watched_malloc, free);
}

void tm__json_watch(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
}

static tm_status fail_at(const char *text, size_t at, const char *file, const char *what) {
    char where[64];
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column = text[i] == '\n' ? 1 : column + 1;
        line += text[i] == '\n';
    }
    snprintf(where, sizeof where, "line %zu, column %zu", line, column);
    return tm__fail(TM_FORMAT, file, where, NULL, "%s", what);
}

/* End of the string that opens at `at`; jansson reports what is wrong in it. */
static size_t skip_string(const char *text, size_t len, size_t at) {
    for (at++; at < len && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
    return at < len ? at + 1 : len;
}

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* Whether the number text[at..end) is an integer that int64_t cannot hold. */
static bool oversized(const char *text, size_t at, size_t end) {
    size_t first = text[at] == '-' ? at + 1 : at, n = end - first;
    if (n < 19 || text[first] == '0') return false;
    for (size_t i = first; i < end; i++)
        if (!digit(text[i])) return false;
    return n > 19 || memcmp(text + first, "9223372036854775807", 19) > 0;
}

/* Checks the depth; `rewritten` stays empty unless a number had to be changed. */
static tm_status scan(const char *text, size_t len, const char *file, tm__string *rewritten) {
    size_t copied = 0;
    int depth = 0;
    for (size_t i = 0; i < len;) {
        char c = text[i];
        if (c == '"') {
            i = skip_string(text, len, i);
        } else if (digit(c) || c == '-') {
            size_t end = i + 1;
            while (end < len && (digit(text[end]) || strchr("+-.eE", text[end])) && text[end]) end++;
            if (oversized(text, i, end)) {
                if (!tm__string_append(rewritten, text + copied, end - copied)) return tm__fail_memory();
                if (!tm__string_append(rewritten, ".0", 2)) return tm__fail_memory();
                copied = end;
            }
            i = end;
        } else {
            if ((c == '[' || c == '{') && ++depth > MAX_DEPTH) return fail_at(text, i, file, "nested too deeply");
            if (c == ']' || c == '}') depth--;
            i++;
        }
    }
    if (rewritten->len && !tm__string_append(rewritten, text + copied, len - copied)) return tm__fail_memory();
    return TM_OK;
}

static tm_status parse(const char *text, size_t len, const char *file, json_t **value) {
    json_error_t error;
    tm__json_watch();
    allocation_failed = false;
    parsing = true;
    json_t *parsed = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    parsing = false;
    if (allocation_failed || (!parsed && json_error_code(&error) == json_error_out_of_memory)) {
        json_decref(parsed);
        return tm__fail_memory();
    }
    if (!parsed) {
        char where[64];
        snprintf(where, sizeof where, "line %d, column %d", error.line, error.column);
        return tm__fail(TM_FORMAT, file, where, NULL, "%s", error.text);
    }
    *value = parsed;
    return TM_OK;
}

tm_status tm__json_parse(const char *text, size_t len, const char *file, struct json_t **value) {
    tm__string rewritten = {0};
    tm_status status = scan(text, len, file, &rewritten);
    if (status == TM_OK && rewritten.len)
        status = parse(rewritten.data, rewritten.len, file, value);
    else if (status == TM_OK)
        status = parse(text, len, file, value);
    tm__string_free(&rewritten);
    return status;
}

tm_status tm__json_load(const char *path, struct json_t **value) {
    char *text;
    size_t len;
    TM__TRY(tm__file_read(path, max_file, &text, &len));
    tm_status status = tm__json_parse(text, len, path, value);
    free(text);
    return status;
}

typedef struct sink {
    tm__string text;
    bool failed;
} sink;

static int append_dumped(const char *bytes, size_t len, void *user) {
    sink *to = user;
    to->failed |= !tm__string_append(&to->text, bytes, len);
    return to->failed ? -1 : 0;
}

tm_status tm__json_dump(const struct json_t *value, size_t flags, char **text, size_t *len) {
    sink to = {0};
    tm__json_watch();
    allocation_failed = false;
    if (json_dump_callback(value, append_dumped, &to, flags) != 0 || to.failed || allocation_failed) {
        tm__string_free(&to.text);
        return tm__fail_memory();
    }
    *text = to.text.data;
    if (len) *len = to.text.len;
    return TM_OK;
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

static const char *kind_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static tm_status wrong_kind(const json_t *found, const char *file, const char *key, const char *wanted) {
    return tm__fail(TM_FORMAT, file, key, NULL, "must be %s, is %s", wanted, kind_of(found));
}

static tm_status missing(const char *file, const char *key) {
    return tm__fail(TM_FORMAT, file, key, NULL, "is missing");
}

/* NULL: absent. A null counts as absent: configs write "head_dim": null for "the default". */
static const json_t *field(const json_t *object, const char *key) {
    const json_t *found = json_object_get(object, key);
    return json_is_null(found) ? NULL : found;
}

tm_status tm__json_int(const struct json_t *object, const char *file, const char *key, int64_t min, int64_t max,
                       const int64_t *fallback, int64_t *value) {
    const json_t *found = field(object, key);
    if (!found && !fallback) return missing(file, key);
    if (found && !json_is_integer(found)) return wrong_kind(found, file, key, "an integer");
    int64_t number = found ? (int64_t)json_integer_value(found) : *fallback;
    if (found && (number < min || number > max))
        return tm__fail(TM_FORMAT, file, key, NULL, "%lld is outside %lld to %lld", (long long)number, (long long)min,
                        (long long)max);
    *value = number;
    return TM_OK;
}

tm_status tm__json_real(const struct json_t *object, const char *file, const char *key, const double *fallback,
                        double *value) {
    const json_t *found = field(object, key);
    if (!found && !fallback) return missing(file, key);
    if (found && !json_is_number(found)) return wrong_kind(found, file, key, "a number");
    *value = found ? json_number_value(found) : *fallback;
    return TM_OK;
}

tm_status tm__json_bool(const struct json_t *object, const char *file, const char *key, const bool *fallback,
                        bool *value) {
    const json_t *found = field(object, key);
    if (!found && !fallback) return missing(file, key);
    if (found && !json_is_boolean(found)) return wrong_kind(found, file, key, "true or false");
    *value = found ? json_is_true(found) : *fallback;
    return TM_OK;
}

tm_status tm__json_text(const struct json_t *object, const char *file, const char *key, const char *fallback,
                        const char **value) {
    const json_t *found = field(object, key);
    if (!found && !fallback) return missing(file, key);
    if (found && !json_is_string(found)) return wrong_kind(found, file, key, "a string");
    if (found && strlen(json_string_value(found)) != json_string_length(found))
        return tm__fail(TM_FORMAT, file, key, NULL, "holds a NUL character");
    *value = found ? json_string_value(found) : fallback;
    return TM_OK;
}
