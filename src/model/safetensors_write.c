/* safetensors_write.c: writes safetensors files. The header is made in memory, the data streams through one chunk. */
#include "model/safetensors.h"

#include <stdlib.h>

enum { CHUNK = 1 << 16 }; /* elements converted at a time */

static int64_t entry_bytes(const tm__safetensors_entry *entry) {
    return tm__tensor_count(&entry->source) * (int64_t)tm__dtype_size(entry->dtype);
}

/* Falling element size, so that 8-byte elements start at multiples of 8 and so on; then by name. */
static int by_layout(const void *a, const void *b) {
    const tm__safetensors_entry *x = *(const tm__safetensors_entry *const *)a;
    const tm__safetensors_entry *y = *(const tm__safetensors_entry *const *)b;
    size_t x_size = tm__dtype_size(x->dtype), y_size = tm__dtype_size(y->dtype);
    if (x_size != y_size) return x_size > y_size ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* ---- header ------------------------------------------------------------------------------------------------------ */

static bool append_quoted(tm__string *out, const char *text) {
    bool ok = tm__string_append(out, "\"", 1);
    for (; ok && *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20)
            ok = tm__string_printf(out, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            ok = tm__string_printf(out, "\\%c", c);
        else
            ok = tm__string_append(out, text, 1);
    }
    return ok && tm__string_append(out, "\"", 1);
}

static bool append_entry(tm__string *out, const tm__safetensors_entry *entry, int64_t begin) {
    const tm_tensor *t = &entry->source;
    bool ok = tm__string_append(out, ",", 1) && append_quoted(out, entry->name) &&
              tm__string_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", tm__dtype_safetensors(entry->dtype));
    for (int i = 0; ok && i < t->ndim; i++) ok = tm__string_printf(out, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    return ok && tm__string_printf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)begin,
                                   (long long)(begin + entry_bytes(entry)));
}

static tm_status make_header(tm__string *out, const tm__safetensors_entry *const *order, size_t n, const char *path) {
    int64_t at = 0;
    bool ok = tm__string_append(out, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
    for (size_t i = 0; ok && i < n; i++) {
        const tm__safetensors_entry *entry = order[i];
        if (!tm__utf8_valid(entry->name, strlen(entry->name)))
            return tm__fail(TM_INVALID, path, entry->name, NULL, "the tensor's name is not UTF-8");
        if (entry->dtype != entry->source.dtype &&
            !(tm__dtype_is_float(entry->dtype) && tm__dtype_is_float(entry->source.dtype)))
            return tm__fail(TM_INVALID, path, entry->name, NULL, "cannot store %s as %s",
                            tm__dtype_name(entry->source.dtype), tm__dtype_name(entry->dtype));
        ok = append_entry(out, entry, at);
        at += entry_bytes(entry);
    }
    ok = ok && tm__string_append(out, "}", 1);
    while (ok && out->len % 8 != 0) ok = tm__string_append(out, " ", 1);
    return ok ? TM_OK : tm__fail_memory();
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

typedef struct chunk_buffers {
    void *produced, *converted; /* CHUNK elements of at most 8 bytes each */
} chunk_buffers;

/* A finite number that the narrower type shows as infinite is lost for good; so it is said, not stored. */
static tm_status check_overflow(const tm__safetensors_entry *entry, const void *from, const void *to, size_t n,
                                const char *path) {
    const tm_tensor before = {entry->source.dtype, 1, {(int64_t)n}, (void *)from};
    const tm_tensor after = {entry->dtype, 1, {(int64_t)n}, (void *)to};
    if (tm__tensor_check_finite(&after, path, entry->name) == TM_OK) return TM_OK;
    if (tm__tensor_check_finite(&before, path, entry->name) != TM_OK) return TM_OK;
    return tm__fail(TM_NUMERIC, path, entry->name, "save as bf16 or fp32", "a value is too large for %s",
                    tm__dtype_name(entry->dtype));
}

static tm_status put_data(tm__writer *writer, const tm__safetensors_entry *entry, const chunk_buffers *buffers,
                          const char *path) {
    const tm_tensor *t = &entry->source;
    size_t total = (size_t)tm__tensor_count(t), from_size = tm__dtype_size(t->dtype);
    for (size_t first = 0; first < total; first += CHUNK) {
        size_t n = TM__MIN(total - first, (size_t)CHUNK);
        const void *chunk = t->data ? (const char *)t->data + first * from_size : buffers->produced;
        if (!t->data) TM__TRY(entry->produce(entry->user, first, n, buffers->produced));
        if (entry->dtype != t->dtype) {
            tm__convert(buffers->converted, entry->dtype, chunk, t->dtype, n);
            TM__TRY(check_overflow(entry, chunk, buffers->converted, n, path));
            chunk = buffers->converted;
        }
        tm__writer_put(writer, chunk, n * tm__dtype_size(entry->dtype));
        if (writer->error) break; /* close reports it */
    }
    return TM_OK;
}

static tm_status put_file(tm__writer *writer, const tm__string *header, const tm__safetensors_entry *const *order,
                          size_t n, const char *path) {
    tm_status status = TM_OK;
    uint8_t length[8];
    chunk_buffers buffers = {tm__alloc_aligned(CHUNK * 8), tm__alloc_aligned(CHUNK * 8)};
    if (!buffers.produced || !buffers.converted) TM__TRY_GOTO(status, tm__fail_memory(), done);
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header->len >> (8 * i));
    tm__writer_put(writer, length, 8);
    tm__writer_put(writer, header->data, header->len);
    for (size_t i = 0; i < n && !writer->error; i++)
        TM__TRY_GOTO(status, put_data(writer, order[i], &buffers, path), done);
done:
    free(buffers.produced);
    free(buffers.converted);
    return status;
}

tm_status tm__safetensors_write(const char *directory, const char *name, const tm__safetensors_entry *entries,
                                size_t n) {
    tm_status status = TM_OK;
    tm__string header = {0};
    tm__writer writer;
    char *path = tm__path_join(directory, name);
    const tm__safetensors_entry **order = tm__alloc(n, sizeof *order);
    if (!path || !order) TM__TRY_GOTO(status, tm__fail_memory(), done);
    for (size_t i = 0; i < n; i++) order[i] = &entries[i];
    qsort(order, n, sizeof *order, by_layout);
    TM__TRY_GOTO(status, make_header(&header, order, n, path), done);
    TM__TRY_GOTO(status, tm__writer_open(&writer, path), done);
    status = put_file(&writer, &header, order, n, path);
    if (status == TM_OK)
        status = tm__writer_close(&writer);
    else
        tm__writer_abandon(&writer);
done:
    tm__string_free(&header);
    free(order);
    free(path);
    return status;
}
