/* config_rope.c: the rotary settings of config.json, in both spellings: `rope_scaling` beside `rope_theta`, and
 * `rope_parameters` (transformers 5), of which the former wins as it does there.
 *
 * Every key in that object decides the mathematics, so one that is not known is refused.
 */
#include "model/config.h"

#include <jansson.h>

static const char *const known[] = {
    "rope_theta",
    "rope_type",
    "type",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "finetuned" /* a note of some published models; nothing reads it */
};

static tm_status check_known(const json_t *rope, const char *file) {
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)rope, key, value) {
        bool found = json_is_null(value);
        for (size_t i = 0; i < TM__COUNT(known); i++) found |= strcmp(known[i], key) == 0;
        if (!found) return tm__config_refuse(file, key, "is not a rotary setting that is supported");
    }
    return TM_OK;
}

/* A number, or `fallback` where it is absent, null or 0. */
static tm_status number_or(const json_t *rope, const char *file, const char *key, double fallback, double *value) {
    double none = 0;
    TM__TRY(tm__json_real(rope, file, key, &none, value));
    if (*value == 0) *value = fallback;
    return *value > 0 && isfinite(*value) ? TM_OK : tm__fail(TM_FORMAT, file, key, NULL, "%g is not above 0", *value);
}

static double mscale_of(double scale, double mscale) {
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

static tm_status parse_yarn(const json_t *rope, const char *file, tm__config *c) {
    static const bool yes = true;
    static const double none = 0;
    double mscale, mscale_all, ratio = (double)c->max_positions / (double)c->rope_original_positions;
    bool null = json_is_null(json_object_get(rope, "factor")); /* the ratio of the lengths then */
    TM__TRY(tm__config_positive(rope, file, "factor", null ? &ratio : NULL, &c->rope_factor));
    TM__TRY(number_or(rope, file, "beta_fast", 32, &c->rope_beta_fast));
    TM__TRY(number_or(rope, file, "beta_slow", 1, &c->rope_beta_slow));
    TM__TRY(tm__json_bool(rope, file, "truncate", &yes, &c->rope_truncate));
    TM__TRY(tm__json_real(rope, file, "mscale", &none, &mscale));
    TM__TRY(tm__json_real(rope, file, "mscale_all_dim", &none, &mscale_all));
    double usual = mscale_of(c->rope_factor, 1);
    if (mscale != 0 && mscale_all != 0)
        usual = mscale_of(c->rope_factor, mscale) / mscale_of(c->rope_factor, mscale_all);
    return tm__config_positive(rope, file, "attention_factor", &usual, &c->rope_attention_factor);
}

/* The length a scaled model was trained with first; beside the object it wins, as in transformers. */
static tm_status parse_original(const json_t *raw, const json_t *rope, const char *file, tm__config *c) {
    static const char key[] = "original_max_position_embeddings";
    TM__TRY(tm__json_int(rope, file, key, 1, INT32_MAX, &c->max_positions, &c->rope_original_positions));
    return tm__json_int(raw, file, key, 1, INT32_MAX, &c->rope_original_positions, &c->rope_original_positions);
}

static tm_status parse_scaling(const json_t *raw, const json_t *rope, const char *file, tm__config *c) {
    static const struct {
        const char *name;
        tm__rope_type type;
    } types[] = {{"default", TM__ROPE_DEFAULT},
                 {"linear", TM__ROPE_LINEAR},
                 {"llama3", TM__ROPE_LLAMA3},
                 {"dynamic", TM__ROPE_DYNAMIC},
                 {"yarn", TM__ROPE_YARN}};
    const char *type, *old;
    size_t at = 0;
    TM__TRY(tm__json_text(rope, file, "type", "default", &old));
    TM__TRY(tm__json_text(rope, file, "rope_type", old, &type));
    while (at < TM__COUNT(types) && strcmp(types[at].name, type) != 0) at++;
    if (at == TM__COUNT(types))
        return tm__fail(TM_UNSUPPORTED, file, "rope_type", "supported: default, linear, llama3, dynamic, yarn",
                        "'%.60s' is not supported", type);
    TM__TRY(check_known(rope, file));
    c->rope_type = types[at].type;
    if (c->rope_type == TM__ROPE_DEFAULT) return TM_OK;
    if (c->rope_type == TM__ROPE_LLAMA3 || c->rope_type == TM__ROPE_YARN) TM__TRY(parse_original(raw, rope, file, c));
    if (c->rope_type == TM__ROPE_YARN) return parse_yarn(rope, file, c);
    TM__TRY(tm__config_positive(rope, file, "factor", NULL, &c->rope_factor));
    if (c->rope_type == TM__ROPE_DYNAMIC && (c->rope_factor < 1 || c->rotary < 4))
        return tm__fail(TM_FORMAT, file, "factor", NULL, "%g is below 1, or less than 4 dimensions are rotated",
                        c->rope_factor);
    if (c->rope_type != TM__ROPE_LLAMA3) return TM_OK;
    TM__TRY(tm__config_positive(rope, file, "low_freq_factor", NULL, &c->rope_low_freq));
    TM__TRY(tm__config_positive(rope, file, "high_freq_factor", NULL, &c->rope_high_freq));
    if (c->rope_high_freq <= c->rope_low_freq)
        return tm__fail(TM_FORMAT, file, "high_freq_factor", NULL, "must be above low_freq_factor");
    return TM_OK;
}

/* transformers: the first int(head_dim * share) dimensions of a head. */
static tm_status parse_rotary(const json_t *raw, const json_t *rope, const char *file, tm__config *c) {
    static const char key[] = "partial_rotary_factor";
    double share = c->family->rotary_share;
    c->rotary = c->head_dim;
    if (share == 0) {
        if (tm__config_neutral(json_object_get(rope, key), 1)) return TM_OK;
        return tm__config_refuse(file, key, "this architecture rotates whole heads");
    }
    TM__TRY(tm__config_positive(raw, file, key, &share, &share));
    TM__TRY(tm__config_positive(rope, file, key, &share, &share));
    c->rotary = (int64_t)((double)c->head_dim * share);
    if (c->rotary < 2 || c->rotary > c->head_dim || c->rotary % 2 != 0)
        return tm__fail(TM_FORMAT, file, key, NULL, "%g of %lld dimensions is no even number of them", share,
                        (long long)c->head_dim);
    return TM_OK;
}

tm_status tm__config_rope(const json_t *raw, const char *file, tm__config *c) {
    static const double theta = 10000.0;
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    const json_t *rope = NULL;
    TM__TRY(tm__config_positive(raw, file, "rope_theta", &theta, &c->rope_theta));
    c->rope_factor = c->rope_attention_factor = 1;
    for (size_t i = 0; i < TM__COUNT(keys) && !rope; i++) {
        const json_t *given = json_object_get(raw, keys[i]);
        if (!given || json_is_null(given)) continue;
        if (!json_is_object(given)) return tm__fail(TM_FORMAT, file, keys[i], NULL, "must be an object");
        if (json_object_size(given) > 0) rope = given;
    }
    TM__TRY(parse_rotary(raw, rope, file, c));
    if (!rope) return TM_OK;
    TM__TRY(tm__config_positive(rope, file, "rope_theta", &c->rope_theta, &c->rope_theta));
    return parse_scaling(raw, rope, file, c);
}
