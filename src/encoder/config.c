/* config.c: config.json of an encoder to tm__encoder_config.
 *
 * Defaults are those of transformers' BertConfig and DebertaV2Config. A key that would change the mathematics in a way
 * this program does not do is refused by name; all others change nothing in a forward pass.
 */
#include "encoder/encoder.h"

#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

static const char supported[] =
    "supported: BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, DebertaV2Model, "
    "DebertaV2ForMaskedLM, DebertaV2ForSequenceClassification";

static const struct {
    const char *name, *type;
    tm__encoder_family family;
    bool classifier;
} architectures[] = {
    {"BertModel", "bert", TM__FAMILY_BERT, false},
    {"BertForMaskedLM", "bert", TM__FAMILY_BERT, false},
    {"BertForPreTraining", "bert", TM__FAMILY_BERT, false},
    {"BertForSequenceClassification", "bert", TM__FAMILY_BERT, true},
    {"DebertaV2Model", "deberta-v2", TM__FAMILY_DEBERTA, false},
    {"DebertaV2ForMaskedLM", "deberta-v2", TM__FAMILY_DEBERTA, false},
    {"DebertaV2ForSequenceClassification", "deberta-v2", TM__FAMILY_DEBERTA, true},
};

static const int64_t max_dimension = 1 << 24; /* of every size, so that a matrix's bytes fit int64_t by far */

/* ---- what is refused --------------------------------------------------------------------------------------------- */

/* Keys that change what the model computes, with the one value that leaves it as it is. null is neutral. */
static const struct {
    const char *key;
    double neutral; /* a number or a boolean of this value; NAN: only null */
    int families;   /* 1 BERT, 2 DeBERTa */
} refused[] = {
    {"is_decoder", 0, 3},         {"add_cross_attention", 0, 3},
    {"is_encoder_decoder", 0, 3}, {"quantization_config", NAN, 3},
    {"auto_map", NAN, 3},         {"num_experts", NAN, 3},
    {"rope_theta", NAN, 3},       {"use_qk_norm", 0, 3},
    {"conv_kernel_size", 0, 2},
};

static bool is_neutral(const json_t *value, double neutral) {
    if (!value || json_is_null(value)) return true;
    if (json_is_boolean(value)) return (json_is_true(value) ? 1 : 0) == neutral;
    return json_is_number(value) && json_number_value(value) == neutral;
}

static tm_status refuse(const char *file, const char *key) {
    return tm__fail(TM_UNSUPPORTED, file, key, NULL,
                    "changes the mathematics of the encoder in a way that is not supported");
}

static tm_status check_refused(const json_t *raw, const char *file, const tm__encoder_config *c) {
    const char *type;
    for (size_t i = 0; i < TM__COUNT(refused); i++)
        if ((refused[i].families & (c->family == TM__FAMILY_BERT ? 1 : 2)) &&
            !is_neutral(json_object_get(raw, refused[i].key), refused[i].neutral))
            return refuse(file, refused[i].key);
    const json_t *pruned = json_object_get(raw, "pruned_heads");
    if (pruned && !json_is_null(pruned) && json_object_size(pruned) > 0) return refuse(file, "pruned_heads");
    TM__TRY(tm__json_text(raw, file, "position_embedding_type", "absolute", &type));
    if (strcmp(type, "absolute") != 0)
        return tm__fail(TM_UNSUPPORTED, file, "position_embedding_type", "supported: absolute",
                        "'%.60s' is not supported", type);
    if (!is_neutral(json_object_get(raw, "attention_head_size"), (double)c->head_dim))
        return refuse(file, "attention_head_size");
    if (c->family == TM__FAMILY_BERT && c->embedding != c->hidden) return refuse(file, "embedding_size");
    if (!is_neutral(json_object_get(raw, "pooler_hidden_size"), (double)c->hidden))
        return refuse(file, "pooler_hidden_size");
    return TM_OK;
}

/* ---- architecture ------------------------------------------------------------------------------------------------ */

/* Without a list of architectures the type says which bare encoder it is. */
static tm_status parse_architecture(const json_t *raw, const char *file, tm__encoder_config *c) {
    const json_t *list = json_object_get(raw, "architectures");
    const char *name = NULL, *type;
    size_t at = 0;
    if (list && !json_is_null(list)) {
        name = json_string_value(json_array_get(list, 0));
        if (!name || json_array_size(list) != 1)
            return tm__fail(TM_FORMAT, file, "architectures", supported, "must hold one name");
        while (at < TM__COUNT(architectures) && strcmp(architectures[at].name, name) != 0) at++;
        if (at == TM__COUNT(architectures))
            return tm__fail(TM_UNSUPPORTED, file, "architectures", supported, "'%.80s' is not a supported encoder",
                            name);
    }
    TM__TRY(tm__json_text(raw, file, "model_type", name ? architectures[at].type : NULL, &type));
    if (!name)
        while (at < TM__COUNT(architectures) && strcmp(architectures[at].type, type) != 0) at++;
    if (at == TM__COUNT(architectures) || strcmp(architectures[at].type, type) != 0)
        return tm__fail(TM_UNSUPPORTED, file, "model_type", "supported: bert, deberta-v2",
                        "'%.80s' is not a supported encoder", type);
    c->architecture = architectures[at].name;
    c->family = architectures[at].family;
    c->classifier = architectures[at].classifier;
    return TM_OK;
}

/* ---- sizes and functions ----------------------------------------------------------------------------------------- */

static tm_status parse_sizes(const json_t *raw, const char *file, tm__encoder_config *c) {
    static const int64_t positions = 512;
    const int64_t types = c->family == TM__FAMILY_BERT ? 2 : 0, least = c->family == TM__FAMILY_BERT ? 1 : 0;
    TM__TRY(tm__json_int(raw, file, "hidden_size", 1, max_dimension, NULL, &c->hidden));
    TM__TRY(tm__json_int(raw, file, "embedding_size", 1, max_dimension, &c->hidden, &c->embedding));
    TM__TRY(tm__json_int(raw, file, "intermediate_size", 1, max_dimension, NULL, &c->intermediate));
    TM__TRY(tm__json_int(raw, file, "num_hidden_layers", 1, 4096, NULL, &c->layers));
    TM__TRY(tm__json_int(raw, file, "num_attention_heads", 1, 65536, NULL, &c->heads));
    TM__TRY(tm__json_int(raw, file, "vocab_size", 1, max_dimension, NULL, &c->vocab));
    TM__TRY(tm__json_int(raw, file, "max_position_embeddings", 1, max_dimension, &positions, &c->max_positions));
    TM__TRY(tm__json_int(raw, file, "type_vocab_size", least, max_dimension, &types, &c->types));
    if (c->hidden % c->heads != 0)
        return tm__fail(TM_FORMAT, file, "num_attention_heads", NULL, "hidden_size %lld is not a multiple of %lld",
                        (long long)c->hidden, (long long)c->heads);
    c->head_dim = c->hidden / c->heads;
    c->max_tokens = c->max_positions;
    return TM_OK;
}

static tm_status parse_activation(const json_t *raw, const char *file, const char *key, tm__activation *act) {
    static const struct {
        const char *name;
        tm__activation act;
    } names[] = {{"gelu", TM__GELU},           {"gelu_new", TM__GELU_TANH}, {"gelu_pytorch_tanh", TM__GELU_TANH},
                 {"gelu_fast", TM__GELU_TANH}, {"relu", TM__RELU},          {"silu", TM__SILU},
                 {"swish", TM__SILU},          {"tanh", TM__TANH}};
    const char *name;
    TM__TRY(tm__json_text(raw, file, key, "gelu", &name));
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(name, names[i].name) == 0) {
            *act = names[i].act;
            return TM_OK;
        }
    return tm__fail(TM_UNSUPPORTED, file, key, "supported: gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh",
                    "'%.60s' is not supported", name);
}

/* ---- DeBERTa's relative positions -------------------------------------------------------------------------------- */

static tm_status note_term(const char *name, size_t len, const char *file, tm__encoder_config *c) {
    while (len && name[0] == ' ') name++, len--;
    while (len && name[len - 1] == ' ') len--;
    if (len == 3 && strncasecmp(name, "c2p", 3) == 0)
        c->content_to_position = true;
    else if (len == 3 && strncasecmp(name, "p2c", 3) == 0)
        c->position_to_content = true;
    else if (len)
        return tm__fail(TM_UNSUPPORTED, file, "pos_att_type", "supported: c2p, p2c", "'%.*s' is not supported",
                        (int)TM__MIN(len, (size_t)60), name);
    return TM_OK;
}

/* "c2p|p2c", or a list. */
static tm_status parse_terms(const json_t *raw, const char *file, tm__encoder_config *c) {
    const json_t *terms = json_object_get(raw, "pos_att_type"), *item;
    size_t i;
    if (!terms || json_is_null(terms)) return TM_OK;
    if (json_is_string(terms)) {
        for (const char *at = json_string_value(terms);; at++) {
            size_t len = strcspn(at, "|");
            TM__TRY(note_term(at, len, file, c));
            at += len;
            if (!*at) return TM_OK;
        }
    }
    if (!json_is_array(terms)) return tm__fail(TM_FORMAT, file, "pos_att_type", NULL, "must be a text or a list");
    json_array_foreach(terms, i, item) {
        if (!json_is_string(item)) return tm__fail(TM_FORMAT, file, "pos_att_type", NULL, "must hold texts");
        TM__TRY(note_term(json_string_value(item), json_string_length(item), file, c));
    }
    return TM_OK;
}

static tm_status parse_norm_of_relative(const json_t *raw, const char *file, tm__encoder_config *c) {
    const char *kinds;
    TM__TRY(tm__json_text(raw, file, "norm_rel_ebd", "none", &kinds));
    for (const char *at = kinds;; at++) {
        while (*at == ' ') at++;
        size_t len = strcspn(at, "|"), trimmed = len;
        while (trimmed && at[trimmed - 1] == ' ') trimmed--;
        if (trimmed == 10 && strncasecmp(at, "layer_norm", 10) == 0)
            c->norm_relative = true;
        else if (trimmed != 4 || strncasecmp(at, "none", 4) != 0)
            return tm__fail(TM_UNSUPPORTED, file, "norm_rel_ebd", "supported: layer_norm, none",
                            "'%.60s' is not supported", kinds);
        at += len;
        if (!*at) return TM_OK;
    }
}

static tm_status parse_relative(const json_t *raw, const char *file, tm__encoder_config *c) {
    static const bool no = false;
    static const int64_t none = -1;
    TM__TRY(tm__json_bool(raw, file, "relative_attention", &no, &c->relative));
    TM__TRY(tm__json_bool(raw, file, "share_att_key", &no, &c->share_key));
    TM__TRY(tm__json_int(raw, file, "position_buckets", -1, max_dimension, &none, &c->buckets));
    TM__TRY(tm__json_int(raw, file, "max_relative_positions", -1, max_dimension, &none, &c->max_relative));
    TM__TRY(parse_norm_of_relative(raw, file, c));
    TM__TRY(parse_terms(raw, file, c));
    if (c->max_relative < 1) c->max_relative = c->max_positions;
    c->buckets = TM__MAX(c->buckets, (int64_t)0);
    c->span = c->buckets > 0 ? c->buckets : c->max_relative;
    if (c->relative && c->buckets > 0 && (c->buckets < 2 || c->max_relative - 1 <= c->buckets / 2))
        return tm__fail(TM_FORMAT, file, "position_buckets", NULL,
                        "%lld buckets for %lld positions leave no room for logarithms", (long long)c->buckets,
                        (long long)c->max_relative);
    return TM_OK;
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */

static tm_status parse_labels(const json_t *raw, const char *file, tm__encoder_config *c) {
    static const char *const problems[] = {"single_label_classification", "multi_label_classification", "regression"};
    static const int64_t two = 2;
    const json_t *names = json_object_get(raw, "id2label");
    const char *problem;
    TM__TRY(tm__json_int(raw, file, "num_labels", 1, 1 << 20, &two, &c->labels));
    if (names && !json_is_null(names)) {
        c->labels = (int64_t)json_object_size(names);
        for (int64_t i = 0; i < c->labels; i++) {
            char key[24];
            snprintf(key, sizeof key, "%lld", (long long)i);
            if (!json_is_string(json_object_get(names, key)))
                return tm__fail(TM_FORMAT, file, "id2label", NULL, "has no name for label %lld", (long long)i);
        }
        if (c->labels == 0) return tm__fail(TM_FORMAT, file, "id2label", NULL, "names no label");
    }
    TM__TRY(tm__json_text(raw, file, "problem_type", c->labels == 1 ? problems[1] : problems[0], &problem));
    for (size_t i = 0; i < TM__COUNT(problems); i++)
        if (strcmp(problem, problems[i]) == 0) {
            c->problem = (int)i;
            return TM_OK;
        }
    return tm__fail(TM_UNSUPPORTED, file, "problem_type",
                    "supported: single_label_classification, multi_label_classification, regression",
                    "'%.60s' is not supported", problem);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static tm_status parse_all(const json_t *raw, const char *file, tm__encoder_config *c) {
    static const bool yes = true;
    if (!json_is_object(raw)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    TM__TRY(parse_architecture(raw, file, c));
    const bool bert = c->family == TM__FAMILY_BERT;
    const double eps = bert ? 1e-12 : 1e-7;
    TM__TRY(parse_sizes(raw, file, c));
    TM__TRY(check_refused(raw, file, c));
    TM__TRY(parse_activation(raw, file, "hidden_act", &c->act));
    TM__TRY(tm__json_real(raw, file, "layer_norm_eps", &eps, &c->norm_eps));
    if (!(c->norm_eps >= 0) || isinf(c->norm_eps))
        return tm__fail(TM_FORMAT, file, "layer_norm_eps", NULL, "%g is not 0 or above", c->norm_eps);
    c->positions = true;
    c->pooler_act = TM__TANH;
    if (!bert) {
        TM__TRY(tm__json_bool(raw, file, "position_biased_input", &yes, &c->positions));
        TM__TRY(parse_activation(raw, file, "pooler_hidden_act", &c->pooler_act));
        TM__TRY(parse_relative(raw, file, c));
    }
    return c->classifier ? parse_labels(raw, file, c) : TM_OK;
}

tm_status tm__encoder_config_parse(const char *text, size_t len, const char *file, tm__encoder_config *config) {
    tm__encoder_config parsed = {.pooling = {TM__POOL_MEAN}, .pooling_count = 1};
    TM__TRY(tm__json_parse(text, len, file, &parsed.raw));
    tm_status status = parse_all(parsed.raw, file, &parsed);
    if (status != TM_OK) {
        tm__encoder_config_release(&parsed);
        return status;
    }
    *config = parsed;
    return TM_OK;
}

void tm__encoder_config_release(tm__encoder_config *config) {
    json_decref(config->raw);
    *config = (tm__encoder_config){0};
}
