/* shards.c: the weights of a checkpoint directory as one list, whether they lie in one file or in shards with an index
 * ("weight_map": tensor name to file name), as transformers writes them.
 */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>

typedef struct located {
    const char *name; /* belongs to its file */
    tm__safetensors *file;
    size_t index;
} located;

struct tm__checkpoint {
    char *directory;
    tm__safetensors **files;
    size_t file_count, file_cap;
    located *tensors; /* by name */
    size_t count;
};

static int by_name(const void *a, const void *b) {
    return strcmp(((const located *)a)->name, ((const located *)b)->name);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static tm_status add_file(tm__checkpoint *checkpoint, const char *path) {
    if (!tm__grow((void **)&checkpoint->files, &checkpoint->file_cap, checkpoint->file_count + 1,
                  sizeof *checkpoint->files))
        return tm__fail_memory();
    TM__TRY(tm__safetensors_open(path, &checkpoint->files[checkpoint->file_count]));
    checkpoint->file_count++;
    return TM_OK;
}

static tm_status open_single(tm__checkpoint *checkpoint, const char *path) {
    TM__TRY(add_file(checkpoint, path));
    tm__safetensors *file = checkpoint->files[0];
    size_t n = tm__safetensors_count(file);
    checkpoint->tensors = tm__alloc(n, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) checkpoint->tensors[i] = (located){tm__safetensors_name(file, i), file, i};
    checkpoint->count = n;
    return TM_OK;
}

/* A shard lies beside its index; a name that leads elsewhere is refused before anything is opened. */
static tm_status open_shard(tm__checkpoint *checkpoint, const char *index_path, const char *tensor, const char *shard) {
    if (!shard[0] || strchr(shard, '/') || strstr(shard, ".."))
        return tm__fail(TM_FORMAT, index_path, tensor, NULL, "'%.100s' is no file name", shard);
    char *path = tm__path_join(checkpoint->directory, shard);
    if (!path) return tm__fail_memory();
    tm_status status = TM_OK;
    if (!tm__path_exists(path))
        status =
            tm__fail(TM_NOT_FOUND, path, tensor, "fetch the missing file", "the index names a file that is absent");
    else
        status = add_file(checkpoint, path);
    free(path);
    return status;
}

static tm_status add_weights(tm__checkpoint *checkpoint, const char *index_path, const json_t *weight_map,
                             tm__map *opened) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)weight_map, name, value) {
        const char *shard = json_string_value(value);
        int32_t number = (int32_t)checkpoint->file_count;
        if (!shard || strlen(shard) != json_string_length(value))
            return tm__fail(TM_FORMAT, index_path, name, NULL, "must be a file name");
        if (!tm__map_get(opened, shard, strlen(shard), &number)) {
            TM__TRY(open_shard(checkpoint, index_path, name, shard));
            if (!tm__map_put(opened, shard, strlen(shard), number)) return tm__fail_memory();
        }
        tm__safetensors *file = checkpoint->files[number];
        int64_t index = tm__safetensors_index(file, name);
        if (index < 0)
            return tm__fail(TM_NOT_FOUND, tm__safetensors_path(file), name, "index and shard do not belong together",
                            "the index says that this file holds the tensor");
        checkpoint->tensors[checkpoint->count++] =
            (located){tm__safetensors_name(file, (size_t)index), file, (size_t)index};
    }
    qsort(checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors, by_name);
    return TM_OK;
}

static tm_status open_sharded(tm__checkpoint *checkpoint, const char *index_path) {
    json_t *index;
    tm__map opened = {0};
    TM__TRY(tm__json_load(index_path, &index));
    tm_status status = TM_OK;
    const json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map))
        TM__TRY_GOTO(status, tm__fail(TM_FORMAT, index_path, "weight_map", NULL, "must be an object"), done);
    checkpoint->tensors = tm__alloc(json_object_size(weight_map), sizeof *checkpoint->tensors);
    if (!checkpoint->tensors) TM__TRY_GOTO(status, tm__fail_memory(), done);
    status = add_weights(checkpoint, index_path, weight_map, &opened);
done:
    json_decref(index);
    tm__map_free(&opened);
    return status;
}

static tm_status no_weights(const char *directory, const char *stem) {
    if (!tm__path_is_directory(directory))
        return tm__fail(TM_NOT_FOUND, directory, NULL, "check the path", "no such directory");
    char *pickled = tm__path_join(directory, "pytorch_model.bin");
    bool found = pickled && tm__path_exists(pickled);
    free(pickled);
    return tm__fail(TM_NOT_FOUND, directory, NULL, found ? "convert pytorch_model.bin to safetensors first" : NULL,
                    "holds neither %s.safetensors nor %s.safetensors.index.json", stem, stem);
}

tm_status tm__checkpoint_open(const char *directory, const char *stem, tm__checkpoint **checkpoint) {
    tm_status status = TM_OK;
    tm__checkpoint *opened = tm__zalloc(1, sizeof *opened);
    char *single = tm__format("%s/%s.safetensors", directory, stem);
    char *index = tm__format("%s/%s.safetensors.index.json", directory, stem);
    if (opened) opened->directory = tm__strdup(directory);
    if (!opened || !single || !index || !opened->directory) TM__TRY_GOTO(status, tm__fail_memory(), done);
    if (tm__path_exists(single))
        status = open_single(opened, single);
    else if (tm__path_exists(index))
        status = open_sharded(opened, index);
    else
        status = no_weights(directory, stem);
    if (status == TM_OK) {
        *checkpoint = opened;
        opened = NULL;
    }
done:
    free(single);
    free(index);
    tm__checkpoint_close(opened);
    return status;
}

void tm__checkpoint_close(tm__checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (size_t i = 0; i < checkpoint->file_count; i++) tm__safetensors_close(checkpoint->files[i]);
    free(checkpoint->files);
    free(checkpoint->tensors);
    free(checkpoint->directory);
    free(checkpoint);
}

void tm__checkpoint_unneeded(const tm__checkpoint *checkpoint, const tm_tensor *tensor) {
    for (size_t i = 0; i < checkpoint->file_count; i++) tm__safetensors_unneeded(checkpoint->files[i], tensor);
}

/* ---- access ------------------------------------------------------------------------------------------------------ */

size_t tm__checkpoint_count(const tm__checkpoint *checkpoint) {
    return checkpoint->count;
}

const char *tm__checkpoint_name(const tm__checkpoint *checkpoint, size_t index) {
    return checkpoint->tensors[index].name;
}

const char *tm__checkpoint_file(const tm__checkpoint *checkpoint, size_t index) {
    return tm__safetensors_path(checkpoint->tensors[index].file);
}

int64_t tm__checkpoint_index(const tm__checkpoint *checkpoint, const char *name) {
    const located wanted = {.name = name};
    const located *found = bsearch(&wanted, checkpoint->tensors, checkpoint->count, sizeof wanted, by_name);
    return found ? found - checkpoint->tensors : -1;
}

tm_status tm__checkpoint_at(tm__checkpoint *checkpoint, size_t index, tm_tensor *tensor) {
    const located *found = &checkpoint->tensors[index];
    return tm__safetensors_at(found->file, found->index, tensor);
}

tm_status tm__checkpoint_find(tm__checkpoint *checkpoint, const char *name, tm_tensor *tensor) {
    int64_t index = tm__checkpoint_index(checkpoint, name);
    if (index < 0) return tm__fail(TM_NOT_FOUND, checkpoint->directory, name, NULL, "no such tensor");
    return tm__checkpoint_at(checkpoint, (size_t)index, tensor);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int64_t stored_bytes(const tm__safetensors_entry *entry) {
    return tm__tensor_count(&entry->source) * (int64_t)tm__dtype_size(entry->dtype);
}

/* How many entries from the first on fit into a shard; at least one. */
static size_t shard_length(const tm__safetensors_entry *entries, size_t n, int64_t shard_bytes) {
    int64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += stored_bytes(&entries[i]);
        if (i > 0 && shard_bytes > 0 && bytes > shard_bytes) return i;
    }
    return n;
}

static tm_status write_index(const char *directory, const char *stem, json_t *weight_map, int64_t total) {
    tm_status status = TM_OK;
    size_t len;
    char *text = NULL, *path = tm__format("%s/%s.safetensors.index.json", directory, stem);
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", weight_map);
    if (!path || !index) TM__TRY_GOTO(status, tm__fail_memory(), done);
    TM__TRY_GOTO(status, tm__json_dump(index, JSON_INDENT(2) | JSON_SORT_KEYS, &text, &len), done);
    status = tm__file_write(path, text, len);
done:
    free(text);
    free(path);
    json_decref(index);
    return status;
}

/* Writes one shard and notes its tensors in the map. */
static tm_status write_shard(const char *directory, const char *file, const tm__safetensors_entry *entries, size_t n,
                             json_t *weight_map) {
    for (size_t i = 0; i < n; i++)
        if (json_object_set_new(weight_map, entries[i].name, json_string(file)) != 0) return tm__fail_memory();
    return tm__safetensors_write(directory, file, entries, n);
}

static tm_status write_sharded(const char *directory, const char *stem, const tm__safetensors_entry *entries, size_t n,
                               int64_t shard_bytes, size_t shards) {
    json_t *weight_map = json_object();
    if (!weight_map) return tm__fail_memory();
    tm_status status = TM_OK;
    int64_t total = 0;
    for (size_t i = 0; i < n; i++) total += stored_bytes(&entries[i]);
    for (size_t first = 0, shard = 1; first < n && status == TM_OK; shard++) {
        size_t length = shard_length(entries + first, n - first, shard_bytes);
        char *file = tm__format("%s-%05zu-of-%05zu.safetensors", stem, shard, shards);
        if (!file)
            status = tm__fail_memory();
        else
            status = write_shard(directory, file, entries + first, length, weight_map);
        free(file);
        first += length;
    }
    if (status == TM_OK) status = write_index(directory, stem, weight_map, total);
    json_decref(weight_map);
    return status;
}

tm_status tm__checkpoint_write(const char *directory, const char *stem, const tm__safetensors_entry *entries, size_t n,
                               int64_t shard_bytes) {
    size_t shards = 0;
    for (size_t first = 0; first < n; shards++) first += shard_length(entries + first, n - first, shard_bytes);
    if (shards > 1) return write_sharded(directory, stem, entries, n, shard_bytes, shards);
    char *file = tm__format("%s.safetensors", stem);
    if (!file) return tm__fail_memory();
    tm_status status = tm__safetensors_write(directory, file, entries, n);
    free(file);
    return status;
}
