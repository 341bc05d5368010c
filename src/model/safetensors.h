/* safetensors.h: reading and writing weights in the safetensors format, one file or sharded with an index.
 *
 * Format (huggingface/safetensors): 8 bytes, little-endian: length of the header; the header, a JSON object
 * {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}};
 * then the data, which the tensors cover without overlap and without holes. A file comes from anywhere, so everything
 * in the header is checked when it is opened; errors name the file and the tensor or field.
 */
#ifndef TM_SAFETENSORS_H
#define TM_SAFETENSORS_H

#include "tensor/tensor.h"

/* ---- one file ---------------------------------------------------------------------------------------------------- */

typedef struct tm__safetensors tm__safetensors;

/* Maps the file read-only. TM_NOT_FOUND, TM_IO, TM_FORMAT, TM_NO_MEMORY. */
tm_status tm__safetensors_open(const char *path, tm__safetensors **file);
void tm__safetensors_close(tm__safetensors *file);
const char *tm__safetensors_path(const tm__safetensors *file);
size_t tm__safetensors_count(const tm__safetensors *file);
const char *tm__safetensors_name(const tm__safetensors *file, size_t index); /* index below count; in name order */
/* -1: no such tensor. */
int64_t tm__safetensors_index(const tm__safetensors *file, const char *name);
/* A view into the mapping, or into a copy that the file object owns where the mapping is misaligned for the type; valid
 * until close. TM_UNSUPPORTED: an element type or a number of dimensions that tm_tensor does not have. */
tm_status tm__safetensors_at(tm__safetensors *file, size_t index, tm_tensor *tensor);
tm_status tm__safetensors_find(tm__safetensors *file, const char *name, tm_tensor *tensor); /* or TM_NOT_FOUND */
/* See tm__file_unneeded; nothing for what is no view into the mapping. */
void tm__safetensors_unneeded(const tm__safetensors *file, const tm_tensor *tensor);
const char *tm__safetensors_metadata(const tm__safetensors *file, const char *key); /* NULL: none */

/* A tensor to write. Its elements come from `source.data`, or, where that is NULL, from `produce`, which stores
 * elements first..first+n-1 at `out` in source.dtype. They are converted to `dtype` chunk by chunk: no second copy is
 * held. */
typedef struct tm__safetensors_entry {
    const char *name; /* valid UTF-8, unique in its list */
    tm_dtype dtype;   /* as stored; integers cannot be converted */
    tm_tensor source; /* shape, and the type that the elements come in */
    tm_status (*produce)(void *user, size_t first, size_t n, void *out);
    void *user;
} tm__safetensors_entry;

/* Writes <directory>/<name>, metadata {"format": "pt"}. TM_NUMERIC where a finite value overflows `dtype`. Tensors are
 * laid out by falling element size, then by name, so that every one is aligned and the file depends on contents alone.
 */
tm_status tm__safetensors_write(const char *directory, const char *name, const tm__safetensors_entry *entries,
                                size_t n);

/* ---- a directory ------------------------------------------------------------------------------------------------- */

/* <stem>.safetensors, or the shards that <stem>.safetensors.index.json names. Stems: "model", "adapter_model". */
typedef struct tm__checkpoint tm__checkpoint;

tm_status tm__checkpoint_open(const char *directory, const char *stem, tm__checkpoint **checkpoint);
void tm__checkpoint_close(tm__checkpoint *checkpoint);
size_t tm__checkpoint_count(const tm__checkpoint *checkpoint);
const char *tm__checkpoint_name(const tm__checkpoint *checkpoint, size_t index);  /* in name order */
const char *tm__checkpoint_file(const tm__checkpoint *checkpoint, size_t index);  /* path of the file that holds it */
int64_t tm__checkpoint_index(const tm__checkpoint *checkpoint, const char *name); /* -1: no such tensor */
tm_status tm__checkpoint_at(tm__checkpoint *checkpoint, size_t index, tm_tensor *tensor);
tm_status tm__checkpoint_find(tm__checkpoint *checkpoint, const char *name, tm_tensor *tensor); /* or TM_NOT_FOUND */
void tm__checkpoint_unneeded(const tm__checkpoint *checkpoint, const tm_tensor *tensor);

/* Writes <stem>.safetensors, or, above `shard_bytes` (of tensor data; 0: no limit), <stem>-00001-of-00003.safetensors
 * and so on with their index. Shards follow the order of the entries. */
tm_status tm__checkpoint_write(const char *directory, const char *stem, const tm__safetensors_entry *entries, size_t n,
                               int64_t shard_bytes);

#endif
