/* weights.h: making and walking a model's parameters; shared by the files of src/model/ that load, create and save. */
#ifndef TM_MODEL_WEIGHTS_H
#define TM_MODEL_WEIGHTS_H

#include "model/model.h"
#include "model/safetensors.h"

/* A model of `config` (taken over, also on failure) whose parameters have names and shapes but no data yet. */
tm_status tm__model_skeleton(tm_device *dev, tm__config *config, tm_model **model);
/* Points a described parameter at the checkpoint's tensor `name`, whose shape must be the described one. */
tm_status tm__param_take(tm__checkpoint *files, const char *directory, const char *name, tm__param *param);
/* Gives a parameter an owned buffer of the device's act type; contents undefined. */
tm_status tm__param_alloc(tm_model *model, tm__param *param);
/* Turns a mapped parameter into an owned copy of act type; nothing to do where it is owned. */
tm_status tm__param_own(tm_model *model, tm__param *param);
void tm__param_release(tm_device *dev, tm__param *param);

/* TM_INVALID for an id that the model has no embedding of. */
tm_status tm__model_check_id(const tm_model *model, int32_t id);

/* All parameters in name order; adapters only where asked for. Array to be freed by the caller. */
typedef struct tm__param_item {
    tm__param *param;
    bool adapter;
} tm__param_item;
tm_status tm__model_sorted(const tm_model *model, bool adapters, tm__param_item **items, size_t *count);

/* dtype that a save writes a parameter in: `dtype` a tm_save_dtype. */
tm_dtype tm__save_dtype(const tm__param *param, int dtype);
/* A safetensors entry over a parameter's value, stored as `dtype`. */
tm__safetensors_entry tm__param_entry(const tm__param *param, const char *name, tm_dtype dtype);
/* TM_NUMERIC, naming the weight, if one that was trained or made here is not finite: such a model is not saved. */
tm_status tm__model_check_finite(const tm_model *model, const char *directory);
/* Where the values of weights come from that are not in memory: fills in the entry's source. */
typedef struct tm__weight_source {
    tm_status (*entry)(void *user, const tm__param *param, tm__safetensors_entry *entry);
    void *user;
} tm__weight_source;
/* Writes the model's directory; `source` NULL: the weights are the model's. Nothing is checked. */
tm_status tm__model_write(const tm_model *model, const char *directory, const tm_save_options *options,
                          const tm__weight_source *source);
/* TM_EXISTS if a save with `overwrite` would replace a directory that holds neither a model nor nothing. */
tm_status tm__model_check_target(const char *directory, bool overwrite);

/* ---- adapters (adapter.c, adapter_file.c) ---- */

/* Adds adapter parts {A, B} of number model->adapter_count to a linear: zeroed description, buffers allocated. */
tm_status tm__adapter_add(tm_model *model, int64_t layer, int index, int64_t rank, double alpha, double scale,
                          double dropout, tm__adapter **adapter);
/* Whether a list of names for tm_lora_options.targets names linears only. */
tm_status tm__adapter_check_targets(const char *targets);
/* Removes every part with this number or a higher one. */
void tm__adapters_drop(tm_model *model, size_t from);
/* Removes the adapter of this number; those after it move down by one. The last one's description stays. */
void tm__adapter_remove(tm_model *model, size_t number);
void tm__adapter_release(tm_device *dev, tm__adapter *adapter);
/* The part of a linear with this number, or NULL. */
tm__adapter *tm__adapter_find(const tm__linear *linear, size_t number);
/* "model.layers.3.self_attn.q_proj"; NULL: out of memory. */
char *tm__linear_path(const tm_model *model, int64_t layer, int index);
/* The parameter that a save of the model writes for `param`: the model's own where an adapter replaces it. */
/* Bytes of memory that the process takes beside what the device holds and its kernels work with: weights that are read
 * from mapped files, the program. */
tm_status tm__model_memory_beside(const tm_model *model, int64_t *bytes);
const tm__param *tm__param_base(const tm_model *model, const tm__param *param);

/* ---- JSON text (json_write.c) ---- */

/* Indented text of a JSON value, keys in their order, real numbers with the fewest digits that read back the same. */
tm_status tm__json_write(const struct json_t *value, tm__string *out);
/* The same into directory/name. */
tm_status tm__json_save(const struct json_t *value, const char *directory, const char *name);

#endif
