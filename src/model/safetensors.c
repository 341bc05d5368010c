/* safetensors.c: opens a safetensors file. See safetensors.h for the format.
 *
 * The header is parsed once into an array sorted by name; after that nothing of the JSON but the metadata is kept. The
 * checks are those of the reference implementation (huggingface/safetensors, tensor.rs: validate): offsets in order
 * without gaps, the last one at the end of the file, every size equal to shape times element size.
 */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>

enum { MAX_HEADER = 100000000 }; /* bytes; the reference's limit */

typedef struct entry {
    const char *name;
    const char *dtype_name; /* as in the file */
    int dtype;              /* tm_dtype, or -1: valid in the format but not in tm_tensor */
    size_t element;         /* bytes */
    int ndim;
    int64_t shape[TM__MAX_DIMS]; /* of the first dimensions, where there are more */
    size_t begin, end;           /* bytes from the start of the data */
    void *copy;                  /* aligned copy, NULL until needed */
} entry;

struct tm__safetensors {
    char *path;
    tm__mapping mapping;
    const uint8_t *data;
    size_t data_len;
    entry *entries; /* by name */
    size_t count;
    json_t *metadata; /* NULL: none */
    tm__arena arena;  /* names */
};

/* The format's types that tm_tensor cannot show; files that hold one beside the weights still open. */
static const struct {
    const char *name;
    size_t size;
} other_types[] = {{"BOOL", 1}, {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
                   {"I16", 2},  {"U16", 2}, {"U32", 4},     {"U64", 8},     {"C64", 8}};

static const char damaged[] = "the file is damaged; fetch it again";

/* A tensor's name as an error shows it; the format allows the empty one. */
static const char *shown(const char *name) {
    return name[0] ? name : "(empty name)";
}

static tm_status bad(const tm__safetensors *file, const char *name, const char *what) {
    return tm__fail(TM_FORMAT, file->path, shown(name), damaged, "%s", what);
}

/* ---- one entry --------------------------------------------------------------------------------------------------- */

static tm_status read_dtype(const tm__safetensors *file, const json_t *spec, entry *e) {
    const char *name = json_string_value(json_object_get(spec, "dtype"));
    tm_dtype dtype;
    if (!name) return bad(file, e->name, "dtype must be a string");
    e->dtype = -1;
    if (tm__dtype_from_safetensors(name, &dtype)) {
        e->dtype = (int)dtype;
        e->element = tm__dtype_size(dtype);
        e->dtype_name = tm__dtype_safetensors(dtype);
        return TM_OK;
    }
    for (size_t i = 0; i < TM__COUNT(other_types); i++)
        if (strcmp(other_types[i].name, name) == 0) {
            e->element = other_types[i].size;
            e->dtype_name = other_types[i].name;
            return TM_OK;
        }
    return tm__fail(TM_FORMAT, file->path, shown(e->name), NULL, "dtype '%.40s' is unknown", name);
}

/* `*bytes`: of the whole tensor, from its shape. */
static tm_status read_shape(const tm__safetensors *file, const json_t *spec, entry *e, size_t *bytes) {
    const json_t *shape = json_object_get(spec, "shape");
    if (!json_is_array(shape)) return bad(file, e->name, "shape must be an array");
    size_t n = json_array_size(shape), product = e->element;
    bool overflow = n > 64, empty = false;
    for (size_t i = 0; i < n; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return bad(file, e->name, "shape must hold integers of at least 0");
        if (i < TM__MAX_DIMS) e->shape[i] = json_integer_value(size);
        if (json_integer_value(size) == 0)
            empty = true;
        else
            overflow |= __builtin_mul_overflow(product, (size_t)json_integer_value(size), &product);
    }
    if (overflow) return bad(file, e->name, "shape is too large");
    e->ndim = (int)n;
    *bytes = empty ? 0 : product;
    return TM_OK;
}

static tm_status read_entry(tm__safetensors *file, const char *name, const json_t *spec, entry *e) {
    size_t bytes = 0;
    e->name = tm__arena_strdup(&file->arena, name, strlen(name));
    if (!e->name) return tm__fail_memory();
    if (!json_is_object(spec)) return bad(file, name, "must be an object of dtype, shape and data_offsets");
    TM__TRY(read_dtype(file, spec, e));
    TM__TRY(read_shape(file, spec, e, &bytes));
    const json_t *offsets = json_object_get(spec, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bad(file, name, "data_offsets must be two integers");
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from) return bad(file, name, "data_offsets are not in order");
    if ((uint64_t)to > file->data_len) return bad(file, name, "data_offsets reach past the end of the file");
    e->begin = (size_t)from;
    e->end = (size_t)to;
    if (e->end - e->begin != bytes)
        return tm__fail(TM_FORMAT, file->path, shown(name), damaged,
                        "data_offsets span %zu bytes, shape and dtype need %zu", e->end - e->begin, bytes);
    return TM_OK;
}

/* ---- the whole header -------------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* Together the tensors must cover the data exactly: a gap could hide anything, an overlap makes one write two. */
static tm_status check_coverage(tm__safetensors *file) {
    size_t at = 0;
    qsort(file->entries, file->count, sizeof *file->entries, by_offset);
    for (size_t i = 0; i < file->count; i++) {
        const entry *e = &file->entries[i];
        if (e->begin < at) return bad(file, e->name, "data_offsets overlap another tensor");
        if (e->begin > at) return bad(file, e->name, "data_offsets leave a hole before this tensor");
        at = e->end;
    }
    if (at != file->data_len)
        return tm__fail(TM_FORMAT, file->path, "data_offsets", damaged, "%zu bytes at the end belong to no tensor",
                        file->data_len - at);
    qsort(file->entries, file->count, sizeof *file->entries, by_name);
    return TM_OK;
}

static tm_status keep_metadata(tm__safetensors *file, json_t *metadata) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return bad(file, "__metadata__", "must be an object");
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value)) return bad(file, "__metadata__", "must hold strings only");
    }
    file->metadata = json_incref(metadata);
    return TM_OK;
}

static tm_status read_header(tm__safetensors *file, json_t *header) {
    const char *name;
    json_t *spec;
    file->entries = tm__zalloc(json_object_size(header), sizeof *file->entries);
    if (!file->entries) return tm__fail_memory();
    json_object_foreach(header, name, spec) {
        if (strcmp(name, "__metadata__") == 0)
            TM__TRY(keep_metadata(file, spec));
        else
            TM__TRY(read_entry(file, name, spec, &file->entries[file->count++]));
    }
    return check_coverage(file);
}

/* Finds the header in the mapping and parses it. */
static tm_status parse_header(tm__safetensors *file, json_t **header) {
    const uint8_t *bytes = file->mapping.data;
    size_t len = file->mapping.len;
    uint64_t header_len = 0;
    if (len < 8) return bad(file, "header length", "the file is shorter than 8 bytes");
    for (int i = 7; i >= 0; i--) header_len = header_len << 8 | bytes[i];
    if (header_len > MAX_HEADER)
        return tm__fail(TM_FORMAT, file->path, "header length", "is it a safetensors file?",
                        "%llu is above the format's limit of %d bytes", (unsigned long long)header_len, MAX_HEADER);
    if (header_len > len - 8)
        return tm__fail(TM_FORMAT, file->path, "header length", "the file is cut off; fetch it again",
                        "%llu bytes are more than the file has", (unsigned long long)header_len);
    if (header_len == 0 || bytes[8] != '{') return bad(file, "header", "must begin with '{'");
    file->data = bytes + 8 + header_len;
    file->data_len = len - 8 - (size_t)header_len;
    return tm__json_parse((const char *)bytes + 8, (size_t)header_len, file->path, header);
}

tm_status tm__safetensors_open(const char *path, tm__safetensors **file) {
    tm_status status = TM_OK;
    json_t *header = NULL;
    tm__safetensors *opened = tm__zalloc(1, sizeof *opened);
    if (!opened) return tm__fail_memory();
    opened->path = tm__strdup(path);
    if (!opened->path) TM__TRY_GOTO(status, tm__fail_memory(), done);
    TM__TRY_GOTO(status, tm__file_map(path, &opened->mapping), done);
    TM__TRY_GOTO(status, parse_header(opened, &header), done);
    TM__TRY_GOTO(status, read_header(opened, header), done);
    *file = opened;
    opened = NULL;
done:
    json_decref(header);
    tm__safetensors_close(opened);
    return status;
}

void tm__safetensors_unneeded(const tm__safetensors *file, const tm_tensor *tensor) {
    tm__file_unneeded(&file->mapping, tensor->data, tm__tensor_bytes(tensor));
}

void tm__safetensors_close(tm__safetensors *file) {
    if (!file) return;
    for (size_t i = 0; i < file->count; i++) free(file->entries[i].copy);
    free(file->entries);
    free(file->path);
    json_decref(file->metadata);
    tm__arena_release(&file->arena);
    tm__file_unmap(&file->mapping);
    free(file);
}

/* ---- access ------------------------------------------------------------------------------------------------------ */

const char *tm__safetensors_path(const tm__safetensors *file) {
    return file->path;
}
size_t tm__safetensors_count(const tm__safetensors *file) {
    return file->count;
}
const char *tm__safetensors_name(const tm__safetensors *file, size_t index) {
    return file->entries[index].name;
}

int64_t tm__safetensors_index(const tm__safetensors *file, const char *name) {
    const entry wanted = {.name = name};
    const entry *found = bsearch(&wanted, file->entries, file->count, sizeof wanted, by_name);
    return found ? found - file->entries : -1;
}

tm_status tm__safetensors_at(tm__safetensors *file, size_t index, tm_tensor *tensor) {
    entry *e = &file->entries[index];
    if (e->dtype < 0)
        return tm__fail(TM_UNSUPPORTED, file->path, shown(e->name), NULL, "element type %s is not supported",
                        e->dtype_name);
    if (e->ndim > TM__MAX_DIMS)
        return tm__fail(TM_UNSUPPORTED, file->path, shown(e->name), NULL, "%d dimensions are more than %d", e->ndim,
                        TM__MAX_DIMS);
    const uint8_t *data = file->data + e->begin;
    if ((uintptr_t)data % e->element != 0) {
        if (!e->copy) {
            e->copy = tm__alloc_aligned(e->end - e->begin);
            if (!e->copy) return tm__fail_memory();
            memcpy(e->copy, data, e->end - e->begin);
        }
        data = e->copy;
    }
    *tensor = (tm_tensor){.dtype = (tm_dtype)e->dtype, .ndim = e->ndim, .data = (void *)data};
    memcpy(tensor->shape, e->shape, sizeof tensor->shape);
    return TM_OK;
}

tm_status tm__safetensors_find(tm__safetensors *file, const char *name, tm_tensor *tensor) {
    int64_t index = tm__safetensors_index(file, name);
    if (index < 0) return tm__fail(TM_NOT_FOUND, file->path, shown(name), NULL, "no such tensor");
    return tm__safetensors_at(file, (size_t)index, tensor);
}

const char *tm__safetensors_metadata(const tm__safetensors *file, const char *key) {
    return json_string_value(json_object_get(file->metadata, key));
}
