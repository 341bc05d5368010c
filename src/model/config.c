/* config.c: a config.json of one of the supported families to tm__config.
 *
 * Defaults are those of transformers' config classes (family.c). A key that would change the mathematics in a way this
 * program does not do, or that its family does not read, is refused by name unless it has its neutral value; keys that
 * change nothing here are kept in `raw` and written back by a save. config_rope.c reads the rotary settings.
 */
#include "model/config.h"

#include <jansson.h>
#include <stdlib.h>

static const int64_t max_dimension = 1 << 24; /* of every size, so that a matrix's bytes fit int64_t by far */

/* ---- what is refused --------------------------------------------------------------------------------------------- */

/* Keys that change what a model computes, with the one value that leaves the block as it is. null is neutral. A family
 * that reads a key (family.c) takes any value. */
static const struct {
    const char *key;
    double neutral; /* a number or a boolean of this value; NAN: only null */
} refused[] = {
    {"pretraining_tp", 1},
    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},
    {"rope_interleaved", 0},
    {"attention_bias", 0},
    {"mlp_bias", 0},
    {"attention_dropout", 0},
    {"embd_pdrop", 0},
    {"resid_pdrop", 0},
    {"attn_pdrop", 0},
    {"hidden_dropout", 0},
    {"residual_dropout", 0},
    {"quantization_config", NAN},
    {"num_local_experts", NAN},
    {"num_experts", NAN},
    {"n_routed_experts", NAN},
    {"attn_logit_softcapping", NAN},
    {"final_logit_softcapping", NAN},
    {"query_pre_attn_scalar", NAN},
    {"clip_qkv", NAN},
    {"alibi", 0},
    {"no_rope_layers", NAN},
    {"attention_chunk_size", NAN},
    {"attn_temperature_tuning", 0},
    {"use_bidirectional_attention", 0},
    {"use_parallel_residual", 0},
    {"use_mrope", 0},
    {"use_qk_norm", 0},
    {"qk_layernorm", 0},
    {"use_sliding_window", 0},
    {"embedding_multiplier", 1},
    {"attention_multiplier", NAN},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", NAN},
    {"is_encoder_decoder", 0},
    {"add_cross_attention", 0},
};

bool tm__config_neutral(const json_t *value, double neutral) {
    if (!value || json_is_null(value)) return true;
    if (json_is_boolean(value)) return (json_is_true(value) ? 1 : 0) == neutral;
    return json_is_number(value) && json_number_value(value) == neutral;
}

tm_status tm__config_refuse(const char *file, const char *key, const char *why) {
    return tm__fail(TM_UNSUPPORTED, file, key, NULL, "%s", why);
}

tm_status tm__config_positive(const json_t *object, const char *file, const char *key, const double *fallback,
                              double *value) {
    TM__TRY(tm__json_real(object, file, key, fallback, value));
    if (!(*value > 0) || isinf(*value)) return tm__fail(TM_FORMAT, file, key, NULL, "%g is not above 0", *value);
    return TM_OK;
}

static bool reads(const tm__family *family, const char *key) {
    for (size_t i = 0; i < TM__COUNT(family->reads) && family->reads[i]; i++)
        if (strcmp(family->reads[i], key) == 0) return true;
    return false;
}

static tm_status check_refused(const json_t *raw, const char *file, const tm__family *family) {
    for (size_t i = 0; i < TM__COUNT(refused); i++) {
        const char *key = refused[i].key;
        const json_t *value = json_object_get(raw, key);
        if (reads(family, key) || tm__config_neutral(value, refused[i].neutral)) continue;
        char hint[64] = "supported: null";
        if (!isnan(refused[i].neutral)) snprintf(hint, sizeof hint, "supported: %g", refused[i].neutral);
        if (json_is_true(value) && refused[i].neutral == 0) snprintf(hint, sizeof hint, "supported: false");
        return tm__fail(TM_UNSUPPORTED, file, key, hint,
                        "changes the mathematics of the model in a way that is not supported");
    }
    return TM_OK;
}

/* ---- architecture ------------------------------------------------------------------------------------------------ */

static tm_status parse_architecture(const json_t *raw, const char *file, tm__config *c) {
    const json_t *list = json_object_get(raw, "architectures");
    const char *name = NULL, *type;
    if (list && !json_is_null(list)) {
        if (!json_is_array(list)) return tm__fail(TM_FORMAT, file, "architectures", NULL, "must be an array");
        name = json_string_value(json_array_get(list, 0));
        if (!name || json_array_size(list) != 1)
            return tm__fail(TM_FORMAT, file, "architectures", tm__family_list(), "must hold one name");
        c->family = tm__family_find(name, NULL);
        bool encoder = strncmp(name, "Bert", 4) == 0 || strncmp(name, "DebertaV2", 9) == 0;
        if (!c->family && encoder)
            return tm__fail(TM_UNSUPPORTED, file, "architectures", "temper embed and temper classify read encoders",
                            "'%.80s' is an encoder, no language model", name);
        if (!c->family)
            return tm__fail(TM_UNSUPPORTED, file, "architectures", tm__family_list(), "'%.80s' is not supported", name);
    }
    TM__TRY(tm__json_text(raw, file, "model_type", name ? c->family->model_type : NULL, &type));
    if (!name) c->family = tm__family_find(NULL, type);
    if (!c->family)
        return tm__fail(TM_UNSUPPORTED, file, "model_type", tm__family_list(), "'%.80s' is not supported", type);
    if (strcmp(type, c->family->model_type) != 0)
        return tm__fail(TM_UNSUPPORTED, file, "model_type", tm__family_list(), "'%.80s' is no %s", type, name);
    if (!name || strcmp(name, c->family->classifier) != 0) return TM_OK;
    static const int64_t two = 2;
    const json_t *labels = json_object_get(raw, "id2label");
    if (!json_is_object(labels)) return tm__json_int(raw, file, "num_labels", 1, max_dimension, &two, &c->labels);
    c->labels = (int64_t)json_object_size(labels);
    return c->labels ? TM_OK : tm__fail(TM_FORMAT, file, "id2label", NULL, "holds no label");
}

/* ---- sliding windows --------------------------------------------------------------------------------------------- */

/* Whether block i has a window, in the family's own way or as layer_types says. */
static tm_status slides(const json_t *raw, const char *file, const tm__config *c, int64_t window, int64_t i,
                        bool *yes) {
    static const int64_t last_default = 28;
    const json_t *types = json_object_get(raw, "layer_types");
    int64_t from = 0;
    TM__TRY(tm__json_int(raw, file, "max_window_layers", 0, INT32_MAX, &last_default, &from));
    *yes =
        window > 0 && (c->family->windows == TM__WINDOW_ALL || (c->family->windows == TM__WINDOW_LAST && i >= from) ||
                       (c->family->windows == TM__WINDOW_ALTERNATE && i % 2 == 0));
    if (!types || json_is_null(types)) return TM_OK;
    if (!json_is_array(types)) return tm__fail(TM_FORMAT, file, "layer_types", NULL, "must be an array");
    const char *type = json_string_value(json_array_get(types, (size_t)i));
    if ((int64_t)json_array_size(types) != c->layers || !type)
        return tm__fail(TM_FORMAT, file, "layer_types", NULL, "must name a type for each of %lld blocks",
                        (long long)c->layers);
    bool sliding = strcmp(type, "sliding_attention") == 0;
    if (!sliding && strcmp(type, "full_attention") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "layer_types", "supported: full_attention, sliding_attention",
                        "'%.60s' is not supported", type);
    if (sliding && window == 0)
        return tm__fail(TM_UNSUPPORTED, file, "layer_types", NULL, "names sliding_attention, but there is no window");
    if (c->family->windows == TM__WINDOW_ALL && sliding != *yes)
        return tm__config_refuse(file, "layer_types", "the architecture has one window for every block");
    *yes = sliding;
    return TM_OK;
}

static tm_status parse_windows(const json_t *raw, const char *file, tm__config *c) {
    static const int64_t usual = 4096;
    static const bool no = false;
    const json_t *given = json_object_get(raw, "sliding_window");
    int64_t window = 0;
    bool use = true, any = false;
    if (c->family->windows == TM__WINDOW_LAST) TM__TRY(tm__json_bool(raw, file, "use_sliding_window", &no, &use));
    if (c->family->windows == TM__WINDOW_NONE) {
        if (given && !json_is_null(given) && !json_is_false(json_object_get(raw, "use_sliding_window")))
            return tm__config_refuse(file, "sliding_window", "this architecture has no sliding-window attention");
    } else if (use && !json_is_null(given)) {
        TM__TRY(tm__json_int(raw, file, "sliding_window", 1, INT32_MAX, &usual, &window));
    }
    if (c->family->windows == TM__WINDOW_ALTERNATE && window == 0)
        return tm__fail(TM_FORMAT, file, "sliding_window", NULL, "this architecture needs a window");
    c->window = tm__zalloc((size_t)c->layers, sizeof *c->window);
    if (!c->window) return tm__fail_memory();
    for (int64_t i = 0; i < c->layers; i++) {
        bool yes;
        TM__TRY(slides(raw, file, c, window, i, &yes));
        c->window[i] = yes ? window : 0;
        any |= yes;
    }
    if (any) return TM_OK;
    free(c->window);
    c->window = NULL;
    return TM_OK;
}

/* ---- the block --------------------------------------------------------------------------------------------------- */

static tm_status parse_activation(const json_t *raw, const char *file, tm__config *c) {
    static const struct {
        const char *name;
        tm__activation activation;
    } names[] = {
        {"silu", TM__SILU}, {"swish", TM__SILU}, {"gelu_pytorch_tanh", TM__GELU_TANH}, {"gelu_new", TM__GELU_TANH}};
    const char *name;
    TM__TRY(tm__json_text(raw, file, c->family->act_key, c->family->act, &name));
    if (c->family->gelu_is_tanh && strcmp(name, "gelu") == 0) name = "gelu_pytorch_tanh";
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(name, names[i].name) == 0) {
            c->activation = names[i].activation;
            return TM_OK;
        }
    return tm__fail(TM_UNSUPPORTED, file, c->family->act_key, "supported: silu, gelu_pytorch_tanh, gelu_new",
                    "'%.60s' is not supported", name);
}

static tm_status parse_bias(const json_t *raw, const char *file, const char *key, tm__bias kind, bool *bias) {
    static const bool no = false;
    *bias = kind == TM__BIAS_ALWAYS;
    return kind == TM__BIAS_KEY ? tm__json_bool(raw, file, key, &no, bias) : TM_OK;
}

/* A soft cap: absent means transformers' default, null none. */
static tm_status parse_cap(const json_t *raw, const char *file, const char *key, double usual, double *cap) {
    if (json_is_null(json_object_get(raw, key))) return TM_OK;
    return tm__config_positive(raw, file, key, &usual, cap);
}

static tm_status parse_share(const json_t *raw, const char *file, const char *key, double *share) {
    static const double none = 0;
    TM__TRY(tm__json_real(raw, file, key, &none, share));
    if (!(*share >= 0 && *share < 1)) return tm__fail(TM_FORMAT, file, key, NULL, "%g is outside 0 to 1", *share);
    return TM_OK;
}

static tm_status parse_block(const json_t *raw, const char *file, tm__config *c) {
    static const double rms_eps = 1e-6, layer_eps = 1e-5, scalar = 256;
    static const bool no = false;
    const tm__family *f = c->family;
    TM__TRY(tm__config_positive(raw, file, f->layer_norm ? "layer_norm_eps" : "rms_norm_eps",
                                f->layer_norm ? &layer_eps : &rms_eps, &c->norm_eps));
    TM__TRY(parse_activation(raw, file, c));
    TM__TRY(parse_bias(raw, file, "attention_bias", f->qkv_bias, &c->qkv_bias));
    TM__TRY(parse_bias(raw, file, "attention_bias", f->o_bias, &c->o_bias));
    TM__TRY(parse_bias(raw, file, "mlp_bias", f->mlp_bias, &c->mlp_bias));
    c->qk_norm = f->norm[TM__NORM_Q] != NULL;
    if (f->qk_norm_key) TM__TRY(tm__json_bool(raw, file, "qk_layernorm", &no, &c->qk_norm));
    c->embed_scale = f->scales_embedding ? sqrt((double)c->hidden) : 1;
    c->attention_scale = 1 / sqrt((double)c->head_dim);
    if (f->caps) {
        double given;
        TM__TRY(tm__config_positive(raw, file, "query_pre_attn_scalar", &scalar, &given));
        c->attention_scale = 1 / sqrt(given);
        TM__TRY(parse_cap(raw, file, "attn_logit_softcapping", 50, &c->attention_cap));
        TM__TRY(parse_cap(raw, file, "final_logit_softcapping", 30, &c->final_cap));
    }
    if (reads(f, "resid_pdrop")) {
        TM__TRY(parse_share(raw, file, "resid_pdrop", &c->residual_dropout));
        TM__TRY(parse_share(raw, file, "embd_pdrop", &c->embed_dropout));
    }
    return parse_windows(raw, file, c);
}

/* ---- sizes, ids, type -------------------------------------------------------------------------------------------- */

static tm_status parse_sizes(const json_t *raw, const char *file, tm__config *c) {
    TM__TRY(tm__json_int(raw, file, "hidden_size", 1, max_dimension, NULL, &c->hidden));
    TM__TRY(tm__json_int(raw, file, "intermediate_size", 1, max_dimension, NULL, &c->intermediate));
    TM__TRY(tm__json_int(raw, file, "num_hidden_layers", 1, 4096, NULL, &c->layers));
    TM__TRY(tm__json_int(raw, file, "num_attention_heads", 1, 65536, NULL, &c->heads));
    bool null = json_is_null(json_object_get(raw, "num_key_value_heads"));
    int64_t kv_heads = c->family->kv_heads && !null ? c->family->kv_heads : c->heads;
    TM__TRY(tm__json_int(raw, file, "num_key_value_heads", 1, 65536, &kv_heads, &c->kv_heads));
    TM__TRY(tm__json_int(raw, file, "vocab_size", 1, max_dimension, NULL, &c->vocab));
    TM__TRY(
        tm__json_int(raw, file, "max_position_embeddings", 1, INT32_MAX, &c->family->max_positions, &c->max_positions));
    if (c->heads % c->kv_heads != 0)
        return tm__fail(TM_FORMAT, file, "num_key_value_heads", NULL, "%lld heads are not a multiple of %lld",
                        (long long)c->heads, (long long)c->kv_heads);
    const json_t *dim = json_object_get(raw, "head_dim");
    if (!c->family->head_dim && (!dim || json_is_null(dim)) && c->hidden % c->heads != 0)
        return tm__fail(TM_FORMAT, file, "num_attention_heads", "or give head_dim",
                        "hidden_size %lld is not a multiple of %lld", (long long)c->hidden, (long long)c->heads);
    int64_t head_dim = c->family->head_dim ? c->family->head_dim : c->hidden / c->heads;
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

static tm_status parse_all(const json_t *raw, const char *file, tm__config *c) {
    static const double range = 0.02;
    if (!json_is_object(raw)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    TM__TRY(parse_architecture(raw, file, c));
    TM__TRY(check_refused(raw, file, c->family));
    TM__TRY(parse_sizes(raw, file, c));
    TM__TRY(tm__config_rope(raw, file, c));
    TM__TRY(parse_block(raw, file, c));
    TM__TRY(tm__json_real(raw, file, "initializer_range", &range, &c->initializer_range));
    if (!(c->initializer_range >= 0 && c->initializer_range <= 1000))
        return tm__fail(TM_FORMAT, file, "initializer_range", NULL, "%g is outside 0 to 1000", c->initializer_range);
    TM__TRY(tm__json_bool(raw, file, "tie_word_embeddings", &c->family->tied, &c->tied));
    TM__TRY(parse_dtype(raw, file, c));
    TM__TRY(parse_id(raw, file, "bos_token_id", c, &c->bos));
    TM__TRY(parse_id(raw, file, "pad_token_id", c, &c->pad));
    return tm__config_eos(raw, file, c);
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
    free(config->window);
    json_decref(config->raw);
    *config = (tm__config){0};
}
