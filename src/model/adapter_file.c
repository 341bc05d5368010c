/* adapter_file.c: LoRA adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors with tensors named
 * base_model.model.<module>.lora_A.weight (rank, in) and .lora_B.weight (out, rank).
 *
 * What PEFT can do and this program does not is refused by the key that asks for it.
 */
#include "data/data.h"
#include "model/weights.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <stdlib.h>

/* ---- which modules an adapter targets ---------------------------------------------------------------------------- */

/* PEFT: a list entry is a module's whole path or its end behind a dot; a string is a regular expression for the whole
 * path. */
typedef struct target {
    const json_t *list; /* or */
    bool all;           /* or */
    pcre2_code *pattern;
    pcre2_match_data *match;
    pcre2_match_context *limits;
} target;

static void target_release(target *t) {
    pcre2_code_free(t->pattern);
    pcre2_match_data_free(t->match);
    pcre2_match_context_free(t->limits);
}

static tm_status compile(const char *text, const char *file, target *t) {
    int error;
    PCRE2_SIZE offset;
    t->pattern = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF,
                               &error, &offset, NULL);
    if (!t->pattern) {
        PCRE2_UCHAR message[120];
        pcre2_get_error_message(error, message, sizeof message);
        return tm__fail(TM_FORMAT, file, "target_modules", NULL, "the regular expression fails at %zu: %s",
                        (size_t)offset, (const char *)message);
    }
    t->match = pcre2_match_data_create_from_pattern(t->pattern, NULL);
    t->limits = pcre2_match_context_create(NULL);
    if (!t->match || !t->limits) return tm__fail_memory();
    pcre2_set_match_limit(t->limits, 1000000); /* the pattern comes from a file: no endless backtracking */
    return TM_OK;
}

static tm_status parse_target(const json_t *config, const char *file, target *t) {
    const json_t *value = json_object_get(config, "target_modules"), *item;
    size_t i;
    if (json_is_string(value) && strcmp(json_string_value(value), "all-linear") == 0) {
        t->all = true;
        return TM_OK;
    }
    if (json_is_string(value)) return compile(json_string_value(value), file, t);
    if (!json_is_array(value)) return tm__fail(TM_FORMAT, file, "target_modules", NULL, "must be a list or a string");
    json_array_foreach(value, i, item) {
        if (!json_is_string(item)) return tm__fail(TM_FORMAT, file, "target_modules", NULL, "must hold strings");
    }
    t->list = value;
    return TM_OK;
}

static bool list_matches(const json_t *list, const char *path) {
    size_t i, len = strlen(path);
    const json_t *item;
    json_array_foreach(list, i, item) {
        size_t n = json_string_length(item);
        if (n == 0 || n > len || strcmp(path + len - n, json_string_value(item)) != 0) continue;
        if (n == len || path[len - n - 1] == '.') return true;
    }
    return false;
}

static tm_status matches(const target *t, const char *path, const char *file, bool *yes) {
    *yes = t->all || (t->list && list_matches(t->list, path));
    if (!t->pattern) return TM_OK;
    int found = pcre2_match(t->pattern, (PCRE2_SPTR)path, strlen(path), 0, 0, t->match, t->limits);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return tm__fail(TM_FORMAT, file, "target_modules", NULL, "the regular expression takes too long to match");
    *yes = found >= 0;
    return TM_OK;
}

/* ---- adapter_config.json ----------------------------------------------------------------------------------------- */

typedef struct description {
    int64_t rank;
    double alpha, scale, dropout;
} description;

/* Keys that must be absent, null, false or empty. */
static const char *const refused[] = {
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "exclude_modules",
    "layers_to_transform",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
    "alora_invocation_tokens",
    "arrow_config",
    "megatron_config",
};

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) || (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value));
}

static tm_status parse_description(const json_t *config, const char *file, description *d) {
    static const int64_t rank = 8;
    static const double alpha = 8, dropout = 0;
    static const bool no = false;
    const char *type, *bias, *task;
    bool rslora;
    if (!json_is_object(config)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    TM__TRY(tm__json_text(config, file, "peft_type", NULL, &type));
    if (strcmp(type, "LORA") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "peft_type", "supported: LORA", "'%.60s' is not supported", type);
    TM__TRY(tm__json_text(config, file, "task_type", "CAUSAL_LM", &task));
    if (strcmp(task, "CAUSAL_LM") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "task_type", "supported: CAUSAL_LM", "'%.60s' is not supported", task);
    TM__TRY(tm__json_text(config, file, "bias", "none", &bias));
    if (strcmp(bias, "none") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "bias", "supported: none", "'%.60s' is not supported", bias);
    for (size_t i = 0; i < TM__COUNT(refused); i++)
        if (!is_empty(json_object_get(config, refused[i])))
            return tm__fail(TM_UNSUPPORTED, file, refused[i], NULL, "this kind of adapter is not supported");
    TM__TRY(tm__json_int(config, file, "r", 1, 65536, &rank, &d->rank));
    TM__TRY(tm__json_real(config, file, "lora_alpha", &alpha, &d->alpha));
    TM__TRY(tm__json_real(config, file, "lora_dropout", &dropout, &d->dropout));
    if (!isfinite(d->alpha)) return tm__fail(TM_FORMAT, file, "lora_alpha", NULL, "is not finite");
    if (!(d->dropout >= 0 && d->dropout < 1))
        return tm__fail(TM_FORMAT, file, "lora_dropout", NULL, "%g is outside 0 to 1", d->dropout);
    TM__TRY(tm__json_bool(config, file, "use_rslora", &no, &rslora));
    d->scale = d->alpha / (rslora ? sqrt((double)d->rank) : (double)d->rank);
    return TM_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    tm_model *model;
    const char *directory, *file;
    description description;
    target target;
    tm__checkpoint *weights;
    size_t parts; /* linears that have one */
} reader;

static tm_status read_tensor(reader *r, const char *path, const char *which, tm__param *param) {
    char *name = tm__format("base_model.model.%s.%s.weight", path, which);
    tm_status status = name ? TM_OK : tm__fail_memory();
    int64_t index = name ? tm__checkpoint_index(r->weights, name) : -1;
    tm_tensor found;
    if (status == TM_OK && index < 0)
        status = tm__fail(TM_NOT_FOUND, r->directory, name, "the adapter may belong to another model",
                          "the tensor is missing");
    const char *file = index >= 0 ? tm__checkpoint_file(r->weights, (size_t)index) : NULL;
    if (status == TM_OK) status = tm__checkpoint_at(r->weights, (size_t)index, &found);
    if (status == TM_OK && !tm__tensor_same_shape(&found, &param->value))
        status = tm__fail(TM_MISMATCH, file, name, "the adapter belongs to another model or rank",
                          "the shape does not fit; this model needs (%lld, %lld)", (long long)param->value.shape[0],
                          (long long)param->value.shape[1]);
    if (status == TM_OK && !tm__dtype_is_float(found.dtype))
        status = tm__fail(TM_UNSUPPORTED, file, name, NULL, "weights of type %s are not supported",
                          tm__dtype_safetensors(found.dtype));
    if (status == TM_OK) status = tm__tensor_check_finite(&found, file, name);
    if (status == TM_OK) {
        tm_device *dev = r->model->dev;
        param->stored = found.dtype;
        status = dev->k->convert(dev, param->value.data, dev->act, found.data, found.dtype, tm__tensor_count(&found));
    }
    free(name);
    return status;
}

static tm_status read_part(reader *r, int64_t layer, int index) {
    char *path = tm__linear_path(layer, index);
    bool wanted = false;
    tm__adapter *adapter;
    const description *d = &r->description;
    tm_status status = path ? matches(&r->target, path, r->file, &wanted) : tm__fail_memory();
    if (status == TM_OK && wanted) {
        r->parts++;
        status = tm__adapter_add(r->model, layer, index, d->rank, d->alpha, d->scale, d->dropout, &adapter);
        if (status == TM_OK) status = read_tensor(r, path, "lora_A", &adapter->a);
        if (status == TM_OK) status = read_tensor(r, path, "lora_B", &adapter->b);
    }
    free(path);
    return status;
}

/* Every part read two tensors; where the file has more, one belongs to a module this model does not have. */
static tm_status name_unexpected(reader *r) {
    for (size_t i = 0; i < tm__checkpoint_count(r->weights); i++) {
        const char *name = tm__checkpoint_name(r->weights, i);
        bool known = false;
        for (int64_t layer = 0; !known && layer < r->model->config.layers; layer++)
            for (int k = 0; !known && k < TM__LINEARS; k++) {
                tm__linear *linear = tm__block_linear(&r->model->blocks[layer], k);
                if (!tm__adapter_find(linear, r->model->adapter_count)) continue;
                char *path = tm__linear_path(layer, k);
                if (!path) return tm__fail_memory();
                size_t len = strlen(path);
                known =
                    strncmp(name, "base_model.model.", 17) == 0 && strncmp(name + 17, path, len) == 0 &&
                    (strcmp(name + 17 + len, ".lora_A.weight") == 0 || strcmp(name + 17 + len, ".lora_B.weight") == 0);
                free(path);
            }
        if (!known)
            return tm__fail(TM_MISMATCH, tm__checkpoint_file(r->weights, i), name,
                            "the adapter may belong to another model",
                            "no targeted layer of this model has this tensor");
    }
    return TM_OK;
}

static tm_status read_all(reader *r) {
    TM__TRY(tm__checkpoint_open(r->directory, "adapter_model", &r->weights));
    for (int64_t i = 0; i < r->model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) TM__TRY(read_part(r, i, k));
    if (r->parts == 0)
        return tm__fail(TM_MISMATCH, r->file, "target_modules", "the adapter may belong to another model",
                        "names no linear layer of this model");
    return tm__checkpoint_count(r->weights) == 2 * r->parts ? TM_OK : name_unexpected(r);
}

tm_status tm__adapter_load(tm_model *model, const char *directory) {
    json_t *config = NULL;
    char *path = tm__path_join(directory, "adapter_config.json");
    reader r = {.model = model, .directory = directory, .file = path};
    tm_status status = path ? tm__json_load(path, &config) : tm__fail_memory();
    if (status == TM_OK) status = parse_description(config, path, &r.description);
    if (status == TM_OK) status = parse_target(config, path, &r.target);
    if (status == TM_OK) status = read_all(&r);
    if (status == TM_OK) {
        json_decref(model->adapter_config);
        model->adapter_config = json_incref(config);
        model->adapter_count++;
    } else {
        tm__adapters_drop(model, model->adapter_count);
    }
    target_release(&r.target);
    tm__checkpoint_close(r.weights);
    json_decref(config);
    free(path);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct writer {
    const tm_model *model;
    int dtype;
    tm__safetensors_entry *entries;
    size_t len, cap;
    tm__arena names;
} writer;

static tm_status add_entry(writer *w, const char *path, const char *which, tm__param *param) {
    char *name = tm__format("base_model.model.%s.%s.weight", path, which);
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
    char *path = tm__linear_path(layer, index);
    tm_status status = path ? add_entry(w, path, "lora_A", &adapter->a) : tm__fail_memory();
    if (status == TM_OK) status = add_entry(w, path, "lora_B", &adapter->b);
    free(path);
    return status;
}

static tm_status write_weights(const tm_model *model, const char *directory, int dtype) {
    writer w = {.model = model, .dtype = dtype};
    tm_status status = TM_OK;
    for (int64_t i = 0; status == TM_OK && i < model->config.layers; i++)
        for (int k = 0; status == TM_OK && k < TM__LINEARS; k++) status = add_part(&w, i, k);
    if (status == TM_OK) status = tm__checkpoint_write(directory, "adapter_model", w.entries, w.len, 0);
    free(w.entries);
    tm__arena_release(&w.names);
    return status;
}

static tm_status write_config(const tm_model *model, const char *directory) {
    json_t *config = json_deep_copy(model->adapter_config);
    bool ok = config && json_object_set_new(config, "inference_mode", json_true()) == 0;
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
