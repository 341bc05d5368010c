/* modules.c: what a sentence-transformers directory says beside the transformer: modules.json, the pooling's
 * config.json, sentence_bert_config.json, config_sentence_transformers.json. A directory without modules.json is read
 * as sentence-transformers reads it: the mean of the last hidden states, not normalised.
 */
#include "encoder/encoder.h"

#include <jansson.h>
#include <stdlib.h>

/* directory/name, or NULL in *value where there is no such file. */
static tm_status load_optional(const char *directory, const char *name, char **path, json_t **value) {
    *value = NULL;
    *path = tm__path_join(directory, name);
    if (!*path) return tm__fail_memory();
    return tm__path_exists(*path) ? tm__json_load(*path, (struct json_t **)value) : TM_OK;
}

/* ---- modules.json ------------------------------------------------------------------------------------------------ */

/* "sentence_transformers.models.Pooling" -> "Pooling" */
static const char *last_part(const char *type) {
    const char *dot = strrchr(type, '.');
    return dot ? dot + 1 : type;
}

static tm_status module_directory(const char *top, const char *file, const char *path, char **directory) {
    if (path[0] == '/' || strstr(path, ".."))
        return tm__fail(TM_FORMAT, file, "path", NULL, "'%.100s' leads out of the directory", path);
    *directory = path[0] ? tm__path_join(top, path) : tm__strdup(top);
    return *directory ? TM_OK : tm__fail_memory();
}

/* The modules have to be a transformer, a pooling, and at most a normalisation, in this order. */
static tm_status take_module(const char *top, const char *file, size_t index, const json_t *module,
                             tm__modules *modules) {
    static const char *const order[] = {"Transformer", "Pooling", "Normalize"};
    const char *type, *path;
    if (!json_is_object(module)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must hold objects");
    TM__TRY(tm__json_text(module, file, "type", NULL, &type));
    TM__TRY(tm__json_text(module, file, "path", "", &path));
    if (index >= TM__COUNT(order) || strcmp(last_part(type), order[index]) != 0)
        return tm__fail(TM_UNSUPPORTED, file, "type", "supported: Transformer, Pooling, Normalize, in this order",
                        "module %zu, '%.100s', is not supported", index, type);
    if (index == 0) {
        free(modules->transformer);
        modules->transformer = NULL;
        return module_directory(top, file, path, &modules->transformer);
    }
    if (index == 1) return module_directory(top, file, path, &modules->pooling);
    modules->normalise = true;
    return TM_OK;
}

static tm_status read_modules(const char *top, tm__modules *modules) {
    json_t *list, *module;
    char *path;
    size_t i;
    tm_status status = load_optional(top, "modules.json", &path, &list);
    if (status == TM_OK && list) {
        if (!json_is_array(list) || json_array_size(list) == 0)
            status = tm__fail(TM_FORMAT, path, NULL, NULL, "must be a list of modules");
        json_array_foreach(list, i, module) {
            if (status == TM_OK) status = take_module(top, path, i, module, modules);
        }
    }
    json_decref(list);
    free(path);
    return status;
}

/* Texts that begin with a prompt by default are other texts. */
static tm_status check_prompts(const char *top) {
    json_t *settings;
    char *path;
    tm_status status = load_optional(top, "config_sentence_transformers.json", &path, &settings);
    const json_t *name = json_object_get(settings, "default_prompt_name");
    if (status == TM_OK && name && !json_is_null(name))
        status =
            tm__fail(TM_UNSUPPORTED, path, "default_prompt_name", "put the prompt into the texts and set it to null",
                     "prompts before every text are not supported");
    json_decref(settings);
    free(path);
    return status;
}

tm_status tm__modules_load(const char *top, tm__modules *modules) {
    tm__modules found = {.transformer = tm__strdup(top)};
    tm_status status = found.transformer ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = read_modules(top, &found);
    if (status == TM_OK) status = check_prompts(top);
    if (status == TM_OK)
        *modules = found;
    else
        tm__modules_release(&found);
    return status;
}

void tm__modules_release(tm__modules *modules) {
    free(modules->transformer);
    free(modules->pooling);
    *modules = (tm__modules){0};
}

/* ---- pooling ----------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *flag; /* as sentence-transformers 6 and its forerunners write it */
} kinds[TM__POOL_KINDS] = {
    [TM__POOL_CLS] = {"cls", "pooling_mode_cls_token"},
    [TM__POOL_MAX] = {"max", "pooling_mode_max_tokens"},
    [TM__POOL_MEAN] = {"mean", "pooling_mode_mean_tokens"},
    [TM__POOL_MEAN_SQRT] = {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"},
    [TM__POOL_WEIGHTED] = {"weightedmean", "pooling_mode_weightedmean_tokens"},
    [TM__POOL_LAST] = {"lasttoken", "pooling_mode_lasttoken"},
};

static tm_status add_kind(const char *file, const json_t *mode, tm__encoder_config *c) {
    const char *name = json_string_value(mode);
    for (int i = 0; name && i < TM__POOL_KINDS; i++)
        if (strcmp(name, kinds[i].name) == 0 && c->pooling_count < TM__POOL_KINDS) {
            c->pooling[c->pooling_count++] = i;
            return TM_OK;
        }
    return tm__fail(TM_UNSUPPORTED, file, "pooling_mode",
                    "supported: cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken",
                    "'%.60s' is not supported", name ? name : "");
}

static tm_status parse_pooling(const json_t *value, const char *file, tm__encoder_config *c) {
    static const bool no = false;
    const json_t *modes = json_object_get(value, "pooling_mode"), *mode;
    int64_t width;
    size_t i;
    if (!json_is_object(value)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    TM__TRY(tm__json_int(value, file, "embedding_dimension", 1, INT32_MAX, &c->hidden, &width));
    TM__TRY(tm__json_int(value, file, "word_embedding_dimension", 1, INT32_MAX, &width, &width));
    if (width != c->hidden)
        return tm__fail(TM_MISMATCH, file, "word_embedding_dimension", NULL, "is %lld, hidden_size is %lld",
                        (long long)width, (long long)c->hidden);
    c->pooling_count = 0;
    if (json_is_string(modes)) return add_kind(file, modes, c);
    json_array_foreach(modes, i, mode) TM__TRY(add_kind(file, mode, c));
    for (int kind = 0; !modes && kind < TM__POOL_KINDS; kind++) {
        bool on;
        TM__TRY(tm__json_bool(value, file, kinds[kind].flag, &no, &on));
        if (on) c->pooling[c->pooling_count++] = kind;
    }
    if (c->pooling_count == 0) c->pooling[c->pooling_count++] = TM__POOL_MEAN;
    return TM_OK;
}

tm_status tm__modules_pooling(const tm__modules *modules, tm__encoder_config *config) {
    if (!modules->pooling) return TM_OK;
    char *path = tm__path_join(modules->pooling, "config.json");
    json_t *value = NULL;
    tm_status status = path ? tm__json_load(path, (struct json_t **)&value) : tm__fail_memory();
    if (status == TM_OK) status = parse_pooling(value, path, config);
    config->normalise = modules->normalise;
    json_decref(value);
    free(path);
    return status;
}

/* ---- longest text ------------------------------------------------------------------------------------------------ */

/* The key's whole number, if it is one and below *limit, becomes the limit. Tokenizers write 1e30 for "none". */
static void lower(const json_t *object, const char *key, int64_t *limit) {
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value) && json_integer_value(value) > 0 && json_integer_value(value) < *limit)
        *limit = (int64_t)json_integer_value(value);
}

tm_status tm__modules_max_tokens(const tm__modules *modules, tm__encoder_config *config) {
    json_t *settings = NULL, *tokenizer = NULL;
    char *path = NULL, *tokenizer_path = NULL;
    tm_status status = load_optional(modules->transformer, "sentence_bert_config.json", &path, &settings);
    if (status == TM_OK && json_is_true(json_object_get(settings, "do_lower_case")))
        status = tm__fail(TM_UNSUPPORTED, path, "do_lower_case", "let the tokenizer's normalizer do it",
                          "lower case before the tokenizer is not supported");
    if (status == TM_OK)
        status = load_optional(modules->transformer, "tokenizer_config.json", &tokenizer_path, &tokenizer);
    if (status == TM_OK) {
        bool own = json_is_integer(json_object_get(settings, "max_seq_length"));
        lower(own ? settings : tokenizer, own ? "max_seq_length" : "model_max_length", &config->max_tokens);
    }
    json_decref(settings);
    json_decref(tokenizer);
    free(path);
    free(tokenizer_path);
    return status;
}
