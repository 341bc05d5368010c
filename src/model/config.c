/* config.c: a Llama config.json to tm__config.
 *
 * Defaults are transformers' LlamaConfig's. A key that would change the mathematics in a way this program does not do
 * is refused by name; keys that change nothing here are kept in `raw` and written back by a save. Both spellings of the
 * rotary settings are read: `rope_scaling` beside `rope_theta`, and `rope_parameters` (transformers 5).
 */
#include "model/model.h"

#include <jansson.h>
#include <stdlib.h>

static const char supported_architectures[] = "supported: LlamaForCausalLM";

static const int64_t max_dimension = 1 << 24; /* of every size, so that a matrix's bytes fit int64_t by far */

/* ---- what is refused --------------------------------------------------------------------------------------------- */

/* Keys that change what the model computes, with the one value that leaves the Llama block as it is. null is neutral.
 */
static const struct {
    const char *key;
    double neutral; /* a number or a boolean of this value; NAN: only null */
} refused[] = {
    {"pretraining_tp", 1},
    {"partial_rotary_factor", 1},
    {"attention_dropout", 0},
    {"embd_pdrop", 0},
    {"resid_pdrop", 0},
    {"hidden_dropout", 0},
    {"quantization_config", NAN},
    {"num_local_experts", NAN},
    {"num_experts", NAN},
    {"attn_logit_softcapping", NAN},
    {"final_logit_softcapping", NAN},
    {"use_qk_norm", 0},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"is_encoder_decoder", 0},
    {"add_cross_attention", 0},
};

static bool is_neutral(const json_t *value, double neutral) {
    if (!value || json_is_null(value)) return true;
    if (json_is_boolean(value)) return (json_is_true(value) ? 1 : 0) == neutral;
    return json_is_number(value) && json_number_value(value) == neutral;
}

static tm_status refuse(const char *file, const char *key, const char *why) {
    return tm__fail(TM_UNSUPPORTED, file, key, NULL, "%s", why);
}

static tm_status check_refused(const json_t *raw, const char *file) {
    for (size_t i = 0; i < TM__COUNT(refused); i++)
        if (!is_neutral(json_object_get(raw, refused[i].key), refused[i].neutral))
            return refuse(file, refused[i].key, "changes the mathematics of the model in a way that is not supported");
    const json_t *window = json_object_get(raw, "sliding_window"), *use = json_object_get(raw, "use_sliding_window");
    if (window && !json_is_null(window) && !json_is_false(use))
        return refuse(file, "sliding_window", "sliding-window attention is not supported in a Llama model");
    const json_t *layers = json_object_get(raw, "layer_types"), *type;
    size_t i;
    json_array_foreach(layers, i, type) {
        if (!json_is_string(type) || strcmp(json_string_value(type), "full_attention") != 0)
            return refuse(file, "layer_types", "only full_attention is supported");
    }
    const char *act;
    TM__TRY(tm__json_text(raw, file, "hidden_act", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "hidden_act", "supported: silu", "'%.60s' is not supported", act);
    return TM_OK;
}

static tm_status check_architecture(const json_t *raw, const char *file) {
    const json_t *list = json_object_get(raw, "architectures");
    if (list && !json_is_null(list)) {
        if (!json_is_array(list)) return tm__fail(TM_FORMAT, file, "architectures", NULL, "must be an array");
        const char *name = json_string_value(json_array_get(list, 0));
        if (!name || json_array_size(list) != 1)
            return tm__fail(TM_FORMAT, file, "architectures", supported_architectures, "must hold one name");
        if (strcmp(name, "LlamaForCausalLM") != 0)
            return tm__fail(TM_UNSUPPORTED, file, "architectures", supported_architectures, "'%.80s' is not supported",
                            name);
    }
    const char *type;
    TM__TRY(tm__json_text(raw, file, "model_type", list && !json_is_null(list) ? "llama" : NULL, &type));
    if (strcmp(type, "llama") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "model_type", "supported: llama", "'%.80s' is not supported", type);
    return TM_OK;
}

/* ---- rotary embedding -------------------------------------------------------------------------------------------- */

static tm_status positive(const json_t *object, const char *file, const char *key, const double *fallback,
                          double *value) {
    TM__TRY(tm__json_real(object, file, key, fallback, value));
    if (!(*value > 0) || isinf(*value)) return tm__fail(TM_FORMAT, file, key, NULL, "%g is not above 0", *value);
    return TM_OK;
}

/* `rope`: the object under rope_scaling or rope_parameters. */
static tm_status parse_scaling(const json_t *rope, const char *file, tm__config *config) {
    const char *type, *old;
    TM__TRY(tm__json_text(rope, file, "type", "default", &old));
    TM__TRY(tm__json_text(rope, file, "rope_type", old, &type));
    if (!is_neutral(json_object_get(rope, "partial_rotary_factor"), 1))
        return refuse(file, "partial_rotary_factor", "rotating a part of the head is not supported in a Llama model");
    if (strcmp(type, "default") == 0) return TM_OK;
    if (strcmp(type, "linear") != 0 && strcmp(type, "llama3") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "rope_type", "supported: default, linear, llama3",
                        "'%.60s' is not supported", type);
    TM__TRY(positive(rope, file, "factor", NULL, &config->rope_factor));
    config->rope_type = 1;
    if (strcmp(type, "linear") == 0) return TM_OK;
    config->rope_type = 2;
    TM__TRY(positive(rope, file, "low_freq_factor", NULL, &config->rope_low_freq));
    TM__TRY(positive(rope, file, "high_freq_factor", NULL, &config->rope_high_freq));
    if (config->rope_high_freq <= config->rope_low_freq)
        return tm__fail(TM_FORMAT, file, "high_freq_factor", NULL, "must be above low_freq_factor");
    return tm__json_int(rope, file, "original_max_position_embeddings", 1, INT32_MAX, &config->max_positions,
                        &config->rope_original_positions);
}

static tm_status parse_rope(const json_t *raw, const char *file, tm__config *config) {
    static const double theta = 10000.0;
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    TM__TRY(positive(raw, file, "rope_theta", &theta, &config->rope_theta));
    config->rope_factor = 1;
    for (size_t i = 0; i < TM__COUNT(keys); i++) {
        const json_t *rope = json_object_get(raw, keys[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope)) return tm__fail(TM_FORMAT, file, keys[i], NULL, "must be an object");
        TM__TRY(positive(rope, file, "rope_theta", &config->rope_theta, &config->rope_theta));
        TM__TRY(parse_scaling(rope, file, config));
    }
    return TM_OK;
}

/* ---- sizes, ids, type -------------------------------------------------------------------------------------------- */

static tm_status parse_sizes(const json_t *raw, const char *file, tm__config *c) {
    static const int64_t positions = 2048;
    TM__TRY(tm__json_int(raw, file, "hidden_size", 1, max_dimension, NULL, &c->hidden));
    TM__TRY(tm__json_int(raw, file, "intermediate_size", 1, max_dimension, NULL, &c->intermediate));
    TM__TRY(tm__json_int(raw, file, "num_hidden_layers", 1, 4096, NULL, &c->layers));
    TM__TRY(tm__json_int(raw, file, "num_attention_heads", 1, 65536, NULL, &c->heads));
    TM__TRY(tm__json_int(raw, file, "num_key_value_heads", 1, 65536, &c->heads, &c->kv_heads));
    TM__TRY(tm__json_int(raw, file, "vocab_size", 1, max_dimension, NULL, &c->vocab));
    TM__TRY(tm__json_int(raw, file, "max_position_embeddings", 1, INT32_MAX, &positions, &c->max_positions));
    if (c->heads % c->kv_heads != 0)
        return tm__fail(TM_FORMAT, file, "num_key_value_heads", NULL, "%lld heads are not a multiple of %lld",
                        (long long)c->heads, (long long)c->kv_heads);
    const json_t *dim = json_object_get(raw, "head_dim");
    if ((!dim || json_is_null(dim)) && c->hidden % c->heads != 0)
        return tm__fail(TM_FORMAT, file, "num_attention_heads", "or give head_dim",
                        "hidden_size %lld is not a multiple of %lld", (long long)c->hidden, (long long)c->heads);
    int64_t head_dim = c->hidden / c->heads;
    TM__TRY(tm__json_int(raw, file, "head_dim", 2, 65536, &head_dim, &c->head_dim));
    if (c->head_dim % 2 != 0 || c->head_dim == 0)
        return tm__fail(TM_FORMAT, file, "head_dim", NULL, "%lld is not even", (long long)c->head_dim);
    if (c->heads * c->head_dim > max_dimension)
        return tm__fail(TM_FORMAT, file, "head_dim", NULL, "%lld heads of %lld are too large", (long long)c->heads,
                        (long long)c->head_dim);
    return TM_OK;
}

static tm_status parse_dtype(const json_t *raw, const char *file, tm__config *config) {
    static const struct {
        const char *name;
        tm_dtype dtype;
    } names[] = {{"float32", TM_F32}, {"bfloat16", TM_BF16}, {"float16", TM_F16}, {"float64", TM_F64}};
    const char *old, *name;
    TM__TRY(tm__json_text(raw, file, "torch_dtype", "float32", &old));
    TM__TRY(tm__json_text(raw, file, "dtype", old, &name));
    const char *key = name == old ? "torch_dtype" : "dtype";
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(name, names[i].name) == 0) {
            config->dtype = names[i].dtype;
            return TM_OK;
        }
    return tm__fail(TM_UNSUPPORTED, file, key, "supported: float32, bfloat16, float16", "'%.60s' is not supported",
                    name);
}

/* An id, or -1 where there is none. Configs in the wild write -1 for "none" as well. */
static tm_status parse_id(const json_t *raw, const char *file, const char *key, const tm__config *config, int32_t *id) {
    static const int64_t none = -1;
    int64_t value;
    TM__TRY(tm__json_int(raw, file, key, -1, config->vocab - 1, &none, &value));
    *id = (int32_t)value;
    return TM_OK;
}

tm_status tm__config_eos(const struct json_t *object, const char *file, tm__config *config) {
    const json_t *eos = json_object_get(object, "eos_token_id");
    int64_t count = json_is_array(eos) ? (int64_t)json_array_size(eos) : 1;
    for (int64_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(eos) ? json_array_get(eos, (size_t)i) : eos;
        if (!item || json_is_null(item)) continue;
        if (!json_is_integer(item)) return tm__fail(TM_FORMAT, file, "eos_token_id", NULL, "must hold integers");
        int64_t id = (int64_t)json_integer_value(item);
        if (id == -1) continue;
        if (id < 0 || id >= config->vocab)
            return tm__fail(TM_FORMAT, file, "eos_token_id", NULL, "%lld is outside the vocabulary of %lld",
                            (long long)id, (long long)config->vocab);
        bool known = false;
        for (int k = 0; k < config->eos_count; k++) known = known || config->eos[k] == id;
        if (known) continue;
        if (config->eos_count == (int)TM__COUNT(config->eos))
            return tm__fail(TM_UNSUPPORTED, file, "eos_token_id", NULL, "more than %d ids", config->eos_count);
        config->eos[config->eos_count++] = (int32_t)id;
    }
    return TM_OK;
}

static tm_status parse_all(const json_t *raw, const char *file, tm__config *config) {
    static const double rms_eps = 1e-6, range = 0.02;
    static const bool no = false;
    if (!json_is_object(raw)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    TM__TRY(check_architecture(raw, file));
    TM__TRY(check_refused(raw, file));
    TM__TRY(parse_sizes(raw, file, config));
    TM__TRY(parse_rope(raw, file, config));
    TM__TRY(positive(raw, file, "rms_norm_eps", &rms_eps, &config->rms_eps));
    TM__TRY(tm__json_real(raw, file, "initializer_range", &range, &config->initializer_range));
    if (!(config->initializer_range >= 0 && config->initializer_range <= 1000))
        return tm__fail(TM_FORMAT, file, "initializer_range", NULL, "%g is outside 0 to 1000",
                        config->initializer_range);
    TM__TRY(tm__json_bool(raw, file, "tie_word_embeddings", &no, &config->tied));
    TM__TRY(tm__json_bool(raw, file, "attention_bias", &no, &config->attention_bias));
    TM__TRY(tm__json_bool(raw, file, "mlp_bias", &no, &config->mlp_bias));
    TM__TRY(parse_dtype(raw, file, config));
    TM__TRY(parse_id(raw, file, "bos_token_id", config, &config->bos));
    TM__TRY(parse_id(raw, file, "pad_token_id", config, &config->pad));
    return tm__config_eos(raw, file, config);
}

tm_status tm__config_parse(const char *text, size_t len, const char *file, tm__config *config) {
    tm__config parsed = {0};
    TM__TRY(tm__json_parse(text, len, file, &parsed.raw));
    tm_status status = parse_all(parsed.raw, file, &parsed);
    if (status != TM_OK) {
        tm__config_release(&parsed);
        return status;
    }
    *config = parsed;
    return TM_OK;
}

void tm__config_release(tm__config *config) {
    json_decref(config->raw);
    *config = (tm__config){0};
}
