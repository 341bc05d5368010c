/* save.c: a model to a Hugging Face checkpoint directory.
 *
 * config.json is the one that was read, with the type of the weights brought up to date; keys this program does not
 * know stay as they were. Weights stream from masters or mapping into the files, converted on the way.
 */
#include "data/data.h"
#include "model/weights.h"
#include "tokenizer/chat.h"

#include <jansson.h>
#include <stdlib.h>

static const int64_t default_shard_bytes = 5000000000;

tm_dtype tm__save_dtype(const tm__param *param, int dtype) {
    switch ((tm_save_dtype)dtype) {
    case TM_SAVE_F32:
        return TM_F32;
    case TM_SAVE_BF16:
        return TM_BF16;
    case TM_SAVE_F16:
        return TM_F16;
    case TM_SAVE_KEEP:
        break;
    }
    return param->stored;
}

/* Masters are read in place: the memory of every device is the host's. */
tm__safetensors_entry tm__param_entry(const tm__param *param, const char *name, tm_dtype dtype) {
    return (tm__safetensors_entry){.name = name, .dtype = dtype, .source = param->value};
}

static tm_status check_owned(void *user, tm__param *param, bool is_adapter) {
    (void)is_adapter;
    return param->owned ? tm__tensor_check_finite(&param->value, user, param->name) : TM_OK;
}

/* The mapping was checked when it was loaded. */
tm_status tm__model_check_finite(const tm_model *model, const char *directory) {
    return tm__model_params((tm_model *)model, check_owned, (void *)directory);
}

/* Replacing is for models: a directory of anything else is somebody's, whatever the caller asked for. */
tm_status tm__model_check_target(const char *directory, bool overwrite) {
    bool model = false;
    static const char *const marks[] = {"config.json", "adapter_config.json"};
    if (!overwrite || !tm__path_is_directory(directory) || tm__path_is_empty_directory(directory)) return TM_OK;
    for (size_t i = 0; i < TM__COUNT(marks); i++) {
        char *path = tm__path_join(directory, marks[i]);
        if (!path) return tm__fail_memory();
        model = model || tm__path_exists(path);
        free(path);
    }
    if (model) return TM_OK;
    return tm__fail(TM_EXISTS, directory, NULL, "choose another name, or remove it yourself",
                    "holds no model, so it is not replaced by one");
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

static const char *torch_name(tm_dtype dtype) {
    return dtype == TM_BF16 ? "bfloat16" : dtype == TM_F16 ? "float16" : dtype == TM_F64 ? "float64" : "float32";
}

static bool set_text(json_t *object, const char *key, const char *text) {
    return json_object_set_new(object, key, json_string(text)) == 0;
}

static bool update_config(json_t *config, const tm__config *c, tm_dtype dtype) {
    const char *name = torch_name(dtype);
    bool ok = true;
    if (json_object_get(config, "dtype")) ok = set_text(config, "dtype", name);
    if (ok && (json_object_get(config, "torch_dtype") || !json_object_get(config, "dtype")))
        ok = set_text(config, "torch_dtype", name);
    if (ok && !json_is_array(json_object_get(config, "architectures")))
        ok = json_object_set_new(config, "architectures",
                                 json_pack("[s]", c->labels ? c->family->classifier : c->family->causal)) == 0;
    if (ok && !json_object_get(config, "model_type")) ok = set_text(config, "model_type", c->family->model_type);
    return ok;
}

static tm_status save_config(const tm_model *model, const char *directory, int dtype) {
    json_t *config = json_deep_copy(model->config.raw);
    tm_status status = TM_OK;
    if (!config || !update_config(config, &model->config, tm__save_dtype(&model->blocks[0].q.weight, dtype)))
        status = tm__fail_memory();
    if (status == TM_OK) status = tm__json_save(config, directory, "config.json");
    json_decref(config);
    return status;
}

/* ---- generation_config.json -------------------------------------------------------------------------------------- */

static bool set_id(json_t *object, const char *key, int32_t id) {
    return id < 0 || json_object_set_new(object, key, json_integer(id)) == 0;
}

static tm_status make_generation_config(const tm__config *config, const char *directory) {
    json_t *made = json_object(), *eos = json_array();
    bool ok = made && eos && json_object_set_new(made, "_from_model_config", json_true()) == 0;
    ok = ok && set_id(made, "bos_token_id", config->bos);
    for (int i = 0; ok && i < config->eos_count; i++)
        ok = json_array_append_new(eos, json_integer(config->eos[i])) == 0;
    if (config->eos_count == 1)
        ok = ok && set_id(made, "eos_token_id", config->eos[0]);
    else if (config->eos_count > 1)
        ok = ok && json_object_set(made, "eos_token_id", eos) == 0;
    ok = ok && set_id(made, "pad_token_id", config->pad);
    tm_status status = ok ? tm__json_save(made, directory, "generation_config.json") : tm__fail_memory();
    json_decref(made);
    json_decref(eos);
    return status;
}

static tm_status copy_file(const char *from, const char *to) {
    char *data;
    size_t len;
    TM__TRY(tm__file_read(from, 0, &data, &len));
    tm_status status = tm__file_write(to, data, len);
    free(data);
    return status;
}

static tm_status save_generation_config(const tm_model *model, const char *directory) {
    char *from = tm__path_join(model->directory ? model->directory : "", "generation_config.json");
    char *to = tm__path_join(directory, "generation_config.json");
    tm_status status = TM_OK;
    if (!from || !to)
        status = tm__fail_memory();
    else if (model->directory && tm__path_exists(from))
        status = copy_file(from, to);
    else
        status = make_generation_config(&model->config, directory);
    free(from);
    free(to);
    return status;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

typedef struct entries {
    const tm_model *model;
    int dtype;
    const tm__weight_source *source;
    tm__safetensors_entry *data;
    size_t len, cap;
} entries;

static tm_status add_entry(void *user, tm__param *param, bool is_adapter) {
    entries *e = user;
    if (is_adapter) return TM_OK;
    if (!tm__grow((void **)&e->data, &e->cap, e->len + 1, sizeof *e->data)) return tm__fail_memory();
    const tm__param *own = tm__param_base(e->model, param);
    tm__safetensors_entry *entry = &e->data[e->len++];
    *entry = tm__param_entry(own, param->name, tm__save_dtype(own, e->dtype));
    return e->source ? e->source->entry(e->source->user, own, entry) : TM_OK;
}

static tm_status save_weights(const tm_model *model, const char *directory, const tm_save_options *options,
                              const tm__weight_source *source) {
    entries e = {.model = model, .dtype = options->dtype, .source = source};
    int64_t shard = options->shard_bytes > 0 ? options->shard_bytes : default_shard_bytes;
    tm_status status = tm__model_params((tm_model *)model, add_entry, &e);
    if (status == TM_OK) status = tm__checkpoint_write(directory, "model", e.data, e.len, shard);
    free(e.data);
    return status;
}

tm_status tm__model_write(const tm_model *model, const char *directory, const tm_save_options *options,
                          const tm__weight_source *source) {
    static const tm_save_options defaults = {.dtype = TM_SAVE_KEEP};
    tm__outdir out = {0};
    if (!options) options = &defaults;
    TM__TRY(tm__model_check_target(directory, options->overwrite));
    tm_status status = tm__outdir_begin(&out, directory, options->overwrite);
    if (status == TM_OK) status = save_config(model, out.aside, options->dtype);
    if (status == TM_OK) status = save_generation_config(model, out.aside);
    if (status == TM_OK) status = save_weights(model, out.aside, options, source);
    if (status == TM_OK && options->tokenizer_dir) status = tm_tokenizer_copy_files(options->tokenizer_dir, out.aside);
    if (status == TM_OK && options->tokenizer) status = tm__chat_template_write(options->tokenizer, out.aside);
    if (status == TM_OK) status = tm__provenance_write(options->provenance, out.aside);
    if (status == TM_OK) status = tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    return status;
}

tm_status tm_model_save(const tm_model *model, const char *directory, const tm_save_options *options) {
    TM__TRY(tm__model_check_finite(model, directory));
    return tm__model_write(model, directory, options, NULL);
}
