/* load.c: a Hugging Face checkpoint directory to a model.
 *
 * Weights stay in the mapped files; loading reads each once, to refuse NaN and infinity, and copies none. Every tensor
 * that the config asks for must be there in its shape, and nothing else may be, so that a checkpoint of another
 * architecture or with a part left out is never taken for a smaller model.
 */
#include "model/weights.h"

#include <jansson.h>
#include <stdlib.h>

static const size_t max_config = (size_t)16 << 20;

tm_status tm__param_take(tm__checkpoint *files, const char *directory, const char *name, tm__param *param) {
    int64_t index = tm__checkpoint_index(files, name);
    if (index < 0) return tm__fail(TM_NOT_FOUND, directory, name, "is the download complete?", "the tensor is missing");
    const char *file = tm__checkpoint_file(files, (size_t)index);
    tm_tensor found;
    TM__TRY(tm__checkpoint_at(files, (size_t)index, &found));
    if (!tm__tensor_same_shape(&found, &param->value)) {
        char has[96], wants[96];
        tm__tensor_shape_text(&found, has, sizeof has);
        tm__tensor_shape_text(&param->value, wants, sizeof wants);
        return tm__fail(TM_MISMATCH, file, name, NULL, "the shape is %s, config.json says %s", has, wants);
    }
    if (!tm__dtype_is_float(found.dtype))
        return tm__fail(TM_UNSUPPORTED, file, name, "supported: F32, BF16, F16, F64",
                        "weights of type %s are not supported", tm__dtype_safetensors(found.dtype));
    param->value = found;
    param->stored = found.dtype;
    return TM_OK;
}

static tm_status take_param(void *user, tm__param *param, bool is_adapter) {
    tm_model *model = user;
    (void)is_adapter;
    return tm__param_take(model->files, model->directory, param->name, param);
}

/* ---- tensors beyond the model's ---------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A tied checkpoint may hold the head again, but then it must be the embedding. */
static tm_status check_tied_head(tm_model *model, size_t index) {
    tm_tensor head;
    TM__TRY(tm__checkpoint_at(model->files, index, &head));
    const tm_tensor *embed = &model->embed.value;
    if (head.dtype == embed->dtype && tm__tensor_same_shape(&head, embed) &&
        memcmp(head.data, embed->data, tm__tensor_bytes(embed)) == 0)
        return TM_OK;
    return tm__fail(TM_MISMATCH, tm__checkpoint_file(model->files, index), "lm_head.weight",
                    "set tie_word_embeddings to false to use it",
                    "differs from model.embed_tokens.weight, though config.json ties them");
}

static tm_status check_unexpected(tm_model *model) {
    tm__param_item *items;
    size_t count, at = 0;
    tm_status status = tm__model_sorted(model, false, &items, &count);
    if (status != TM_OK) return status;
    for (size_t i = 0; status == TM_OK && i < tm__checkpoint_count(model->files); i++) {
        const char *name = tm__checkpoint_name(model->files, i);
        while (at < count && strcmp(items[at].param->name, name) < 0) at++; /* both lists are in name order */
        if (at < count && strcmp(items[at].param->name, name) == 0) continue;
        if (ends_with(name, ".rotary_emb.inv_freq")) continue; /* a buffer that old versions saved */
        if (model->config.tied && !model->config.labels && strcmp(name, "lm_head.weight") == 0)
            status = check_tied_head(model, i);
        else
            status = tm__fail(TM_MISMATCH, tm__checkpoint_file(model->files, i), name, NULL,
                              "the tensor is not one of the model that config.json describes");
    }
    free(items);
    return status;
}

/* ---- NaN and infinity -------------------------------------------------------------------------------------------- */

/* Error details belong to a thread, so workers only find which tensors are bad; the first is checked again here. */
static tm_status check_finite(tm_model *model) {
    tm__param_item *items;
    size_t n;
    TM__TRY(tm__model_sorted(model, false, &items, &n));
    int64_t count = (int64_t)n, first_bad = count;
#pragma omp parallel for schedule(dynamic) num_threads(model->dev->threads) reduction(min : first_bad)
    for (int64_t i = 0; i < count; i++)
        if (tm__tensor_check_finite(&items[i].param->value, NULL, NULL) != TM_OK) first_bad = TM__MIN(first_bad, i);
    tm_error_clear();
    tm_status status = TM_OK;
    if (first_bad < count) {
        const tm__param *bad = items[first_bad].param;
        int64_t index = tm__checkpoint_index(model->files, bad->name);
        status = tm__tensor_check_finite(&bad->value, tm__checkpoint_file(model->files, (size_t)index), bad->name);
    }
    free(items);
    return status;
}

/* Kernels read the act type, fp32 and the 16-bit types in place; fp64 on an fp32 device is converted once. */
static tm_status take_in(void *user, tm__param *param, bool is_adapter) {
    tm_model *model = user;
    (void)is_adapter;
    bool direct = param->value.dtype != TM_F64 || model->dev->act == TM_F64;
    return direct ? TM_OK : tm__param_own(model, param);
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static tm_status read_config(const char *directory, tm__config *config) {
    char *path = tm__path_join(directory, "config.json"), *text = NULL;
    size_t len = 0;
    tm_status status = path ? tm__file_read(path, max_config, &text, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__config_parse(text, len, path, config);
    free(text);
    free(path);
    return status;
}

/* Chat models list the ids that end a turn only here. */
static tm_status read_generation_config(const char *directory, tm__config *config) {
    char *path = tm__path_join(directory, "generation_config.json");
    struct json_t *value = NULL;
    tm_status status = path ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(path)) {
        status = tm__json_load(path, &value);
        if (status == TM_OK) status = tm__config_eos(value, path, config);
        json_decref(value);
    }
    free(path);
    return status;
}

static tm_status load_weights(tm_model *model) {
    TM__TRY(tm__checkpoint_open(model->directory, "model", &model->files));
    TM__TRY(tm__model_params(model, take_param, model));
    TM__TRY(check_unexpected(model));
    if (!model->dev->rehearses) TM__TRY(check_finite(model));
    return tm__model_params(model, take_in, model);
}

tm_status tm_model_load(tm_device *device, const char *directory, const char *adapter, tm_model **model) {
    tm__config config;
    tm_model *made;
    if (!tm__path_exists(directory))
        return tm__fail(TM_NOT_FOUND, directory, NULL, "check the path", "no such directory");
    if (!tm__path_is_directory(directory)) return tm__fail(TM_NOT_FOUND, directory, NULL, NULL, "is not a directory");
    TM__TRY(read_config(directory, &config));
    TM__TRY(tm__model_skeleton(device, &config, &made));
    tm_status status = read_generation_config(directory, &made->config);
    if (status == TM_OK && !(made->directory = tm__strdup(directory))) status = tm__fail_memory();
    if (status == TM_OK) status = load_weights(made);
    if (status == TM_OK && adapter) status = tm_model_add_adapter(made, adapter, 1);
    if (status != TM_OK) {
        tm_model_free(made);
        return status;
    }
    *model = made;
    return TM_OK;
}
