/* adapter_file.c: LoRA adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors with tensors named
 * base_model.model.<module>.lora_A.weight (rank, in) and .lora_B.weight (out, rank), and base_model.model.<parameter>
 * for parameters that the adapter brings whole (modules_to_save).
 *
 * Which tensors there must be follows from the config and the model (adapter_config.c); nothing else may be there, so
 * that an adapter of another shape is never taken for one of this. (One of another model of the same shape cannot be
 * told from its tensors.) Where the model ties its output layer to its
 * embedding, an adapter that brings either must bring the same values for both.
 */
#include "data/data.h"
#include "model/adapter.h"

#include <jansson.h>
#include <stdlib.h>

#define PREFIX "base_model.model."

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    tm_model *model;
    const char *directory, *file;
    double weight; /* of the adapter's share: multiplies B */
    tm__adapter_rules *rules;
    tm__checkpoint *weights;
    tm__map known; /* names of tensors that belong to the adapter */
    size_t parts;  /* linears and parameters that it changes */
} reader;

static tm_status missing(const reader *r, const char *name) {
    return tm__fail(TM_NOT_FOUND, r->directory, name, "the adapter may belong to another model",
                    "the tensor is missing");
}

/* The tensor of that name, checked against the shape that the model asks for. */
static tm_status find_tensor(reader *r, const char *name, const tm_tensor *like, tm_tensor *found) {
    char has[96], wants[96];
    int64_t index = tm__checkpoint_index(r->weights, name);
    if (index < 0) return missing(r, name);
    const char *file = tm__checkpoint_file(r->weights, (size_t)index);
    if (!tm__map_put(&r->known, name, strlen(name), 0)) return tm__fail_memory();
    TM__TRY(tm__checkpoint_at(r->weights, (size_t)index, found));
    tm__tensor_shape_text(found, has, sizeof has);
    tm__tensor_shape_text(like, wants, sizeof wants);
    if (!tm__tensor_same_shape(found, like))
        return tm__fail(TM_MISMATCH, file, name, "the adapter belongs to another model or rank",
                        "the shape is %s, this model needs %s", has, wants);
    if (!tm__dtype_is_float(found->dtype))
        return tm__fail(TM_UNSUPPORTED, file, name, NULL, "weights of type %s are not supported",
                        tm__dtype_safetensors(found->dtype));
    return tm__tensor_check_finite(found, file, name);
}

static tm_status read_matrix(reader *r, const char *path, const char *which, tm__param *param) {
    tm_device *dev = r->model->dev;
    char *name = tm__format(PREFIX "%s.%s.weight", path, which);
    tm_tensor found;
    tm_status status = name ? find_tensor(r, name, &param->value, &found) : tm__fail_memory();
    free(name);
    TM__TRY(status);
    param->stored = found.dtype;
    return dev->k->convert(dev, param->value.data, dev->act, found.data, found.dtype, tm__tensor_count(&found));
}

static tm_status read_part(reader *r, int64_t layer, int index) {
    tm_device *dev = r->model->dev;
    bool wanted = false;
    if (!tm__linear_exists(tm__block_linear(&r->model->blocks[layer], index))) return TM_OK;
    char *path = tm__linear_path(r->model, layer, index);
    tm__adapter *adapter;
    tm__adapter_shape s;
    tm_status status = path ? tm__adapter_rules_part(r->rules, path, &wanted, &s) : tm__fail_memory();
    if (status == TM_OK && wanted) {
        r->parts++;
        status = tm__adapter_add(r->model, layer, index, s.rank, s.alpha, s.scale, s.dropout, &adapter);
        if (status == TM_OK) status = read_matrix(r, path, "lora_A", &adapter->a);
        if (status == TM_OK) status = read_matrix(r, path, "lora_B", &adapter->b);
        if (status == TM_OK && r->weight != 1)
            status = dev->k->scale(dev, adapter->b.value.data, r->weight, adapter->b.value.data,
                                   tm__tensor_count(&adapter->b.value));
    }
    free(path);
    return status;
}

/* ---- parameters that the adapter brings whole -------------------------------------------------------------------- */

static tm_status replace(reader *r, tm__param *param, const char *name) {
    tm_device *dev = r->model->dev;
    tm_tensor found;
    void *buffer;
    TM__TRY(find_tensor(r, name, &param->value, &found));
    if (r->weight != 1)
        return tm__fail(TM_UNSUPPORTED, r->file, "modules_to_save", "give it weight 1",
                        "brings %.100s whole, which cannot be weighed", param->name);
    int64_t count = tm__tensor_count(&found);
    size_t bytes = (size_t)count * tm__dtype_size(dev->act);
    TM__TRY(tm__alloc_for(dev, TM__FOR_WEIGHTS, bytes, &buffer));
    tm_status status = dev->k->convert(dev, buffer, dev->act, found.data, found.dtype, count);
    if (status != TM_OK) {
        dev->release(dev, buffer, bytes);
        return status;
    }
    r->parts++;
    return tm__param_replace(r->model, param, buffer, found.dtype, r->model->adapter_count);
}

static tm_status read_saved(void *user, tm__param *param, bool is_adapter) {
    reader *r = user;
    if (is_adapter || param == &r->model->embed || !tm__adapter_rules_saves(r->rules, param->name)) return TM_OK;
    char *name = tm__format(PREFIX "%s", param->name);
    tm_status status = name ? replace(r, param, name) : tm__fail_memory();
    free(name);
    return status;
}

/* Output layer and embedding are one: the adapter must bring the same for both, or say that they stay one. */
static tm_status check_tied(reader *r, const char *embedding) {
    static const char head[] = PREFIX "lm_head.weight";
    tm_tensor one, other;
    int64_t e = tm__checkpoint_index(r->weights, embedding), h = tm__checkpoint_index(r->weights, head);
    if (h >= 0 && !tm__map_put(&r->known, head, strlen(head), 0)) return tm__fail_memory();
    bool same = e >= 0 && h < 0 && tm__adapter_rules_tie(r->rules);
    if (e >= 0 && h >= 0) {
        TM__TRY(tm__checkpoint_at(r->weights, (size_t)e, &one));
        TM__TRY(tm__checkpoint_at(r->weights, (size_t)h, &other));
        same = one.dtype == other.dtype && tm__tensor_same_shape(&one, &other) &&
               memcmp(one.data, other.data, tm__tensor_bytes(&one)) == 0;
    }
    if (same) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, r->file, "modules_to_save", "PEFT keeps them one with ensure_weight_tying",
                    "the model ties lm_head to its embedding, and the adapter parts them");
}

static tm_status read_embedding(reader *r) {
    tm__param *embed = &r->model->embed;
    bool tied = !r->model->head.name, saved = tm__adapter_rules_saves(r->rules, embed->name);
    if (!saved && !(tied && tm__adapter_rules_saves(r->rules, "lm_head.weight"))) return TM_OK;
    char *name = tm__format(PREFIX "%s", embed->name);
    tm_status status = name ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tied) status = check_tied(r, name);
    if (status == TM_OK) status = replace(r, embed, name);
    free(name);
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* The embedding and the output layer are no linear layers of a block. */
static tm_status refuse_outside_blocks(reader *r) {
    const char *names[] = {r->model->embed.name, r->model->head.name ? r->model->head.name : "lm_head.weight"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char path[128];
        bool wanted;
        tm__adapter_shape shape;
        char *name = tm__format(PREFIX "%.*s.lora_%sA%s", (int)(strlen(names[i]) - strlen(".weight")), names[i],
                                i ? "" : "embedding_", i ? ".weight" : "");
        if (!name) return tm__fail_memory();
        bool there = tm__checkpoint_index(r->weights, name) >= 0;
        free(name);
        snprintf(path, sizeof path, "%.*s", (int)(strlen(names[i]) - strlen(".weight")), names[i]);
        TM__TRY(tm__adapter_rules_part(r->rules, path, &wanted, &shape));
        if (wanted && there)
            return tm__fail(TM_UNSUPPORTED, r->file, "target_modules", "modules_to_save can hold it",
                            "LoRA on %.100s is not supported", path);
    }
    return TM_OK;
}

static tm_status check_unexpected(reader *r) {
    for (size_t i = 0; i < tm__checkpoint_count(r->weights); i++) {
        const char *name = tm__checkpoint_name(r->weights, i);
        int32_t ignored;
        if (!tm__map_get(&r->known, name, strlen(name), &ignored))
            return tm__fail(TM_MISMATCH, tm__checkpoint_file(r->weights, i), name,
                            "the adapter may belong to another model",
                            "no targeted layer of this model has this tensor");
    }
    return TM_OK;
}

static tm_status read_all(reader *r) {
    TM__TRY(tm__checkpoint_open(r->directory, "adapter_model", &r->weights));
    TM__TRY(refuse_outside_blocks(r));
    for (int64_t i = 0; i < r->model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) TM__TRY(read_part(r, i, k));
    TM__TRY(read_embedding(r));
    TM__TRY(tm__model_params(r->model, read_saved, r));
    if (r->parts == 0)
        return tm__fail(TM_MISMATCH, r->file, "target_modules", "the adapter may belong to another model",
                        "names no linear layer of this model");
    return check_unexpected(r);
}

tm_status tm_model_add_adapter(tm_model *model, const char *directory, double weight) {
    json_t *config = NULL;
    if (!isfinite(weight))
        return tm__fail(TM_INVALID, directory, "adapter", NULL, "a weight of %g is not finite", weight);
    char *path = tm__path_join(directory, "adapter_config.json");
    reader r = {.model = model, .directory = directory, .file = path, .weight = weight};
    tm_status status = path ? tm__json_load(path, &config) : tm__fail_memory();
    if (status == TM_OK) status = tm__adapter_rules_make(config, path, &r.rules);
    if (status == TM_OK) status = read_all(&r);
    if (status == TM_OK) {
        json_decref(model->adapter_config);
        model->adapter_config = json_incref(config);
        model->adapter_count++;
    } else {
        tm__adapters_drop(model, model->adapter_count);
    }
    tm__adapter_rules_free(r.rules);
    tm__checkpoint_close(r.weights);
    tm__map_free(&r.known);
    json_decref(config);
    free(path);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct writer {
    const tm_model *model;
    int dtype; /* tm_save_dtype */
    tm__safetensors_entry *entries;
    size_t len, cap;
    tm__arena names;
} writer;

static tm_status add_entry(writer *w, char *name, tm__param *param) {
    const char *kept = name ? tm__arena_strdup(&w->names, name, strlen(name)) : NULL;
    free(name);
    if (!kept || !tm__grow((void **)&w->entries, &w->cap, w->len + 1, sizeof *w->entries)) return tm__fail_memory();
    w->entries[w->len++] = tm__param_entry(param, kept, tm__save_dtype(param, w->dtype));
    return TM_OK;
}

static tm_status add_part(writer *w, int64_t layer, int index) {
    tm__linear *linear = tm__block_linear(&w->model->blocks[layer], index);
    tm__adapter *adapter = tm__adapter_find(linear, w->model->adapter_count - 1);
    if (!adapter) return TM_OK;
    char *path = tm__linear_path(w->model, layer, index);
    tm_status status = path ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = add_entry(w, tm__format(PREFIX "%s.lora_A.weight", path), &adapter->a);
    if (status == TM_OK) status = add_entry(w, tm__format(PREFIX "%s.lora_B.weight", path), &adapter->b);
    free(path);
    return status;
}

/* A tied embedding is written for the output layer too, as PEFT does. */
static tm_status add_replaced(void *user, tm__param *param, bool is_adapter) {
    writer *w = user;
    if (is_adapter || !tm__param_is_replaced(w->model, param, w->model->adapter_count - 1)) return TM_OK;
    TM__TRY(add_entry(w, tm__format(PREFIX "%s", param->name), param));
    if (param != &w->model->embed || w->model->head.name) return TM_OK;
    return add_entry(w, tm__strdup(PREFIX "lm_head.weight"), param);
}

static tm_status write_weights(const tm_model *model, const char *directory, int dtype) {
    writer w = {.model = model, .dtype = dtype};
    tm_status status = TM_OK;
    for (int64_t i = 0; status == TM_OK && i < model->config.layers; i++)
        for (int k = 0; status == TM_OK && k < TM__LINEARS; k++) status = add_part(&w, i, k);
    if (status == TM_OK) status = tm__model_params((tm_model *)model, add_replaced, &w);
    if (status == TM_OK) status = tm__checkpoint_write(directory, "adapter_model", w.entries, w.len, 0);
    free(w.entries);
    tm__arena_release(&w.names);
    return status;
}

static tm_status write_config(const tm_model *model, const char *directory) {
    json_t *config = json_deep_copy(model->adapter_config);
    bool ok = config && (json_object_get(config, "inference_mode") ||
                         json_object_set_new(config, "inference_mode", json_true()) == 0);
    tm_status status = ok ? tm__json_save(config, directory, "adapter_config.json") : tm__fail_memory();
    json_decref(config);
    return status;
}

tm_status tm_model_save_adapter(const tm_model *model, const char *directory, const tm_save_options *options) {
    static const tm_save_options defaults = {.dtype = TM_SAVE_KEEP};
    tm__outdir out = {0};
    if (!options) options = &defaults;
    if (model->adapter_count == 0)
        return tm__fail(TM_INVALID, directory, NULL, NULL, "the model has no adapter to save");
    TM__TRY(tm__model_check_finite(model, directory));
    TM__TRY(tm__model_check_target(directory, options->overwrite));
    tm_status status = tm__outdir_begin(&out, directory, options->overwrite);
    if (status == TM_OK) status = write_config(model, out.aside);
    if (status == TM_OK) status = write_weights(model, out.aside, options->dtype);
    if (status == TM_OK) status = tm__provenance_write(options->provenance, out.aside);
    if (status == TM_OK) status = tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    return status;
}
