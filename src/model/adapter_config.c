/* adapter_config.c: which parts an adapter has, of which rank and scale: PEFT's rules over adapter_config.json.
 *
 *   a linear layer of path P has a part iff target_modules matches P, exclude_modules does not, no module of
 *   modules_to_save stands around it, and its layer is one of layers_to_transform (lists only)
 *   rank = rank_pattern[first key that matches P] or r;   alpha likewise;   scale = alpha / rank, or / sqrt(rank)
 *
 * A list of names matches a whole path or its end behind a dot; a string is a regular expression for the whole path;
 * "all-linear" is every linear layer but the output. Keys of patterns are regular expressions for a path's end. What
 * changes the mathematics beyond this is refused by the key that asks for it (PEFT 0.21; tests/golden/test_peft.c,
 * tests/unit/test_adapter_config.c).
 */
#include "model/adapter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <stdlib.h>
#include <strings.h>

/* ---- regular expressions ----------------------------------------------------------------------------------------- */

typedef struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
} pattern;

static void pattern_release(pattern *p) {
    pcre2_code_free(p->code);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
}

static tm_status pattern_compile(const char *text, bool whole, const char *file, const char *key, pattern *p) {
    int error;
    PCRE2_SIZE offset;
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                            PCRE2_ANCHORED | (whole ? PCRE2_ENDANCHORED : 0) | PCRE2_UTF, &error, &offset, NULL);
    if (!p->code) {
        PCRE2_UCHAR message[120];
        pcre2_get_error_message(error, message, sizeof message);
        return tm__fail(TM_FORMAT, file, key, NULL, "the regular expression fails at %zu: %s", (size_t)offset,
                        (const char *)message);
    }
    p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (!p->match || !p->limits) return tm__fail_memory();
    pcre2_set_match_limit(p->limits, 1000000); /* the pattern comes from a file: no endless backtracking */
    return TM_OK;
}

/* *end: where the match ends; 0 where there is none. */
static tm_status pattern_match(const pattern *p, const char *path, const char *file, const char *key, bool *yes,
                               size_t *end) {
    int found = pcre2_match(p->code, (PCRE2_SPTR)path, strlen(path), 0, 0, p->match, p->limits);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return tm__fail(TM_FORMAT, file, key, NULL, "the regular expression takes too long to match");
    *yes = found >= 0;
    if (end) *end = *yes ? pcre2_get_ovector_pointer(p->match)[1] : 0;
    return TM_OK;
}

/* ---- names of modules -------------------------------------------------------------------------------------------- */

typedef struct names {
    const char *key;
    const json_t *list; /* or */
    bool all;           /* or */
    pattern pattern;    /* code NULL: none */
} names;

static tm_status check_strings(const json_t *list, const char *file, const char *key) {
    const json_t *item;
    size_t i;
    json_array_foreach((json_t *)list, i, item) {
        if (!json_is_string(item)) return tm__fail(TM_FORMAT, file, key, NULL, "must hold strings");
    }
    return TM_OK;
}

static tm_status names_parse(const json_t *config, const char *file, const char *key, bool all_linear, names *out) {
    const json_t *value = json_object_get(config, key);
    out->key = key;
    if (json_is_string(value) && all_linear && strcasecmp(json_string_value(value), "all-linear") == 0) {
        out->all = true;
        return TM_OK;
    }
    if (json_is_string(value)) return pattern_compile(json_string_value(value), true, file, key, &out->pattern);
    if (!json_is_array(value)) return tm__fail(TM_FORMAT, file, key, NULL, "must be a list or a string");
    out->list = value;
    return check_strings(value, file, key);
}

static bool list_matches(const json_t *list, const char *path) {
    size_t i, len = strlen(path);
    const json_t *item;
    json_array_foreach((json_t *)list, i, item) {
        size_t n = json_string_length(item);
        if (n == 0 || n > len || strcmp(path + len - n, json_string_value(item)) != 0) continue;
        if (n == len || path[len - n - 1] == '.') return true;
    }
    return false;
}

/* A whole path of the list: layers_to_transform does not ask about it. */
static bool list_holds(const json_t *list, const char *path) {
    size_t i;
    const json_t *item;
    json_array_foreach((json_t *)list, i, item) {
        if (strcmp(json_string_value(item), path) == 0) return true;
    }
    return false;
}

static tm_status names_match(const names *n, const char *path, const char *file, bool *yes) {
    *yes = n->all || (n->list && list_matches(n->list, path));
    return n->pattern.code ? pattern_match(&n->pattern, path, file, n->key, yes, NULL) : TM_OK;
}

/* ---- values by pattern ------------------------------------------------------------------------------------------- */

typedef struct table {
    const char *key;
    struct entry {
        pattern pattern;
        double value;
    } * entries;
    size_t count;
} table;

static void table_release(table *t) {
    for (size_t i = 0; i < t->count; i++) pattern_release(&t->entries[i].pattern);
    free(t->entries);
}

static tm_status table_parse(const json_t *config, const char *file, const char *key, table *t) {
    const json_t *object = json_object_get(config, key), *value;
    const char *name;
    t->key = key;
    if (!object || json_is_null(object)) return TM_OK;
    if (!json_is_object(object)) return tm__fail(TM_FORMAT, file, key, NULL, "must be an object");
    t->entries = tm__zalloc(json_object_size(object), sizeof *t->entries);
    if (!t->entries) return tm__fail_memory();
    json_object_foreach((json_t *)object, name, value) {
        if (!json_is_number(value)) return tm__fail(TM_FORMAT, file, key, NULL, "'%.100s' must be a number", name);
        struct entry *e = &t->entries[t->count++];
        e->value = json_number_value(value);
        char *text = tm__format("(.*\\.)?(%s)$", name);
        if (!text) return tm__fail_memory();
        tm_status status = pattern_compile(text, false, file, key, &e->pattern);
        free(text);
        TM__TRY(status);
    }
    return TM_OK;
}

/* The value of the first key that matches; where none does, *value stays. */
static tm_status table_find(const table *t, const char *path, const char *file, double *value) {
    for (size_t i = 0; i < t->count; i++) {
        bool yes = false;
        TM__TRY(pattern_match(&t->entries[i].pattern, path, file, t->key, &yes, NULL));
        if (!yes) continue;
        *value = t->entries[i].value;
        return TM_OK;
    }
    return TM_OK;
}

/* ---- which layers ------------------------------------------------------------------------------------------------ */

typedef struct layers {
    const json_t *wanted; /* a number or a list of them; NULL: all */
    pattern *patterns;    /* what stands up to a layer's number */
    size_t count;
} layers;

static void layers_release(layers *l) {
    for (size_t i = 0; i < l->count; i++) pattern_release(&l->patterns[i]);
    free(l->patterns);
}

static tm_status add_layer_pattern(layers *l, const char *name, const char *file) {
    char *text = name ? tm__format("(?:^|.*?\\.)%s\\.(?=[0-9]+\\.)", name) : tm__strdup(".*?\\.[^.]*\\.(?=[0-9]+\\.)");
    if (!text) return tm__fail_memory();
    tm_status status = pattern_compile(text, false, file, "layers_pattern", &l->patterns[l->count++]);
    free(text);
    return status;
}

static tm_status layers_parse(const json_t *config, const char *file, layers *l) {
    const json_t *wanted = json_object_get(config, "layers_to_transform"), *stems, *item;
    size_t i;
    if (!wanted || json_is_null(wanted) || (json_is_array(wanted) && json_array_size(wanted) == 0)) return TM_OK;
    if (!json_is_array(wanted) && !json_is_integer(wanted))
        return tm__fail(TM_FORMAT, file, "layers_to_transform", NULL, "must be a number or a list of numbers");
    json_array_foreach((json_t *)wanted, i, item) {
        if (!json_is_integer(item))
            return tm__fail(TM_FORMAT, file, "layers_to_transform", NULL, "must hold whole numbers");
    }
    if (!json_is_array(json_object_get(config, "target_modules")))
        return tm__fail(TM_FORMAT, file, "layers_to_transform", NULL, "goes with a list of target_modules only");
    l->wanted = wanted;
    stems = json_object_get(config, "layers_pattern");
    bool text = json_is_string(stems) && json_string_length(stems) > 0;
    if (stems && !json_is_null(stems) && !json_is_string(stems) && !json_is_array(stems))
        return tm__fail(TM_FORMAT, file, "layers_pattern", NULL, "must be a list or a string");
    if (json_is_array(stems)) TM__TRY(check_strings(stems, file, "layers_pattern"));
    size_t count = json_is_array(stems) ? json_array_size(stems) : 0;
    l->patterns = tm__zalloc(count ? count : 1, sizeof *l->patterns);
    if (!l->patterns) return tm__fail_memory();
    for (i = 0; i < count; i++) TM__TRY(add_layer_pattern(l, json_string_value(json_array_get(stems, i)), file));
    return count ? TM_OK : add_layer_pattern(l, text ? json_string_value(stems) : NULL, file);
}

static bool is_wanted(const json_t *wanted, int64_t layer) {
    const json_t *item;
    size_t i;
    if (json_is_integer(wanted)) return json_integer_value(wanted) == layer;
    json_array_foreach((json_t *)wanted, i, item) {
        if (json_integer_value(item) == layer) return true;
    }
    return false;
}

static tm_status layers_match(const layers *l, const char *path, const char *file, bool *yes) {
    *yes = !l->wanted;
    for (size_t i = 0; i < l->count; i++) {
        bool found;
        size_t end;
        TM__TRY(pattern_match(&l->patterns[i], path, file, "layers_pattern", &found, &end));
        if (!found) continue;
        *yes = is_wanted(l->wanted, strtoll(path + end, NULL, 10));
        return TM_OK;
    }
    return TM_OK;
}

/* ---- modules_to_save --------------------------------------------------------------------------------------------- */

/* A module of that name stands around `path`, or is it. */
static bool within(const char *path, const char *name) {
    size_t n = strlen(name);
    for (const char *at = strstr(path, name); n && at; at = strstr(at + 1, name))
        if ((at == path || at[-1] == '.') && (at[n] == 0 || at[n] == '.')) return true;
    return false;
}

static bool within_saved(const json_t *saved, const char *path) {
    const json_t *item;
    size_t i;
    json_array_foreach((json_t *)saved, i, item) {
        if (within(path, json_string_value(item))) return true;
    }
    return false;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

struct tm__adapter_rules {
    const char *file;
    int64_t rank;
    double alpha, dropout;
    bool rslora, tie;
    names target, exclude;
    table ranks, alphas;
    layers layers;
    const json_t *saved; /* list, or NULL */
};

/* As PEFT looks for them: modules whose path ends in the name, wherever that begins ("norm" is every norm). */
bool tm__adapter_rules_saves(const tm__adapter_rules *rules, const char *parameter) {
    const json_t *item;
    size_t i;
    json_array_foreach((json_t *)rules->saved, i, item) {
        size_t n = json_string_length(item);
        /* Every dot of the parameter's name ends a module's path. */
        for (const char *dot = strchr(parameter, '.'); n && dot; dot = strchr(dot + 1, '.'))
            if ((size_t)(dot - parameter) >= n && memcmp(dot - n, json_string_value(item), n) == 0) return true;
    }
    return false;
}

bool tm__adapter_rules_tie(const tm__adapter_rules *rules) {
    return rules->tie;
}

/* Keys that must be absent, null, false or empty. */
static const struct {
    const char *key, *why;
} refused[] = {
    {"use_dora", "DoRA also scales every row of the weight"},
    {"lora_bias", "the adapter has biases of its own"},
    {"fan_in_fan_out", "weights stored transposed (GPT-2's Conv1D) are not supported"},
    {"layer_replication", "it repeats layers of the model"},
    {"trainable_token_indices", "single rows of the embedding are not supported"},
    {"target_parameters", "parameters outside linear layers are not supported"},
    {"use_qalora", "QALoRA pools its input"},
    {"use_bdlora", "block-diagonal adapters are not supported"},
    {"alora_invocation_tokens", "an adapter that begins at a token is not supported"},
    {"arrow_config", "routing between adapters is not supported"},
    {"kasa_config", "KaSA changes the base weights"},
    {"monteclora_config", "MonteCLoRA samples its weights"},
    {"velora_config", "VeLoRA is not supported"},
    {"megatron_config", "Megatron's layers are not supported"},
};

/* Ways to begin that leave the model's weights as they are; others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) subtract what
 * the adapter begins with from them, so that the adapter fits no published model. */
static const char *const harmless_inits[] = {"gaussian", "eva", "orthogonal", "mica"};

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) || (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value));
}

static tm_status check_init(const json_t *config, const char *file) {
    const json_t *init = json_object_get(config, "init_lora_weights");
    if (!init || json_is_null(init) || json_is_boolean(init)) return TM_OK;
    if (!json_is_string(init))
        return tm__fail(TM_FORMAT, file, "init_lora_weights", NULL, "must be true, false or a string");
    for (size_t i = 0; i < TM__COUNT(harmless_inits); i++)
        if (strcmp(json_string_value(init), harmless_inits[i]) == 0) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, file, "init_lora_weights", "save it as plain LoRA: PEFT converts it on saving",
                    "'%.60s' changes the base weights, so the adapter does not fit the model by itself",
                    json_string_value(init));
}

/* Of keys this program does not know, one that turns a kind of adapter on. */
static tm_status check_unknown(const json_t *config, const char *file) {
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        if (strncmp(key, "use_", 4) == 0 && strcmp(key, "use_rslora") != 0 && !is_empty(value))
            return tm__fail(TM_UNSUPPORTED, file, key, NULL, "this kind of adapter is not supported");
    }
    return TM_OK;
}

static tm_status check_kind(const json_t *config, const char *file) {
    static const struct {
        const char *key, *fallback, *supported;
    } texts[] = {
        {"peft_type", NULL, "LORA"},
        {"task_type", "CAUSAL_LM", "CAUSAL_LM"},
        {"bias", "none", "none"},
    };
    if (!json_is_object(config)) return tm__fail(TM_FORMAT, file, NULL, NULL, "must be a JSON object");
    for (size_t i = 0; i < TM__COUNT(texts); i++) {
        const char *found;
        char hint[64];
        if (texts[i].fallback && json_is_null(json_object_get(config, texts[i].key))) continue;
        TM__TRY(tm__json_text(config, file, texts[i].key, texts[i].fallback, &found));
        snprintf(hint, sizeof hint, "supported: %s", texts[i].supported);
        if (strcmp(found, texts[i].supported) != 0)
            return tm__fail(TM_UNSUPPORTED, file, texts[i].key, hint, "'%.60s' is not supported", found);
    }
    for (size_t i = 0; i < TM__COUNT(refused); i++)
        if (!is_empty(json_object_get(config, refused[i].key)))
            return tm__fail(TM_UNSUPPORTED, file, refused[i].key, "only plain LoRA is", "is not supported: %s",
                            refused[i].why);
    TM__TRY(check_unknown(config, file));
    return check_init(config, file);
}

static tm_status parse_numbers(const json_t *config, const char *file, tm__adapter_rules *rules) {
    static const int64_t rank = 8;
    static const double alpha = 8, dropout = 0;
    static const bool no = false;
    TM__TRY(tm__json_int(config, file, "r", 1, 65536, &rank, &rules->rank));
    TM__TRY(tm__json_real(config, file, "lora_alpha", &alpha, &rules->alpha));
    TM__TRY(tm__json_real(config, file, "lora_dropout", &dropout, &rules->dropout));
    if (!isfinite(rules->alpha)) return tm__fail(TM_FORMAT, file, "lora_alpha", NULL, "is not finite");
    if (!(rules->dropout >= 0 && rules->dropout < 1))
        return tm__fail(TM_FORMAT, file, "lora_dropout", NULL, "%g is outside 0 to 1", rules->dropout);
    TM__TRY(tm__json_bool(config, file, "use_rslora", &no, &rules->rslora));
    return tm__json_bool(config, file, "ensure_weight_tying", &no, &rules->tie);
}

static tm_status check_tables(const tm__adapter_rules *rules) {
    for (size_t i = 0; i < rules->ranks.count; i++) {
        double rank = rules->ranks.entries[i].value;
        if (!(rank >= 1 && rank <= 65536 && rank == floor(rank)))
            return tm__fail(TM_FORMAT, rules->file, "rank_pattern", NULL, "%g is no rank", rank);
    }
    for (size_t i = 0; i < rules->alphas.count; i++)
        if (!isfinite(rules->alphas.entries[i].value))
            return tm__fail(TM_FORMAT, rules->file, "alpha_pattern", NULL, "holds a number that is not finite");
    return TM_OK;
}

static tm_status parse(const json_t *config, const char *file, tm__adapter_rules *rules) {
    const json_t *saved = json_object_get(config, "modules_to_save");
    TM__TRY(check_kind(config, file));
    TM__TRY(parse_numbers(config, file, rules));
    TM__TRY(table_parse(config, file, "rank_pattern", &rules->ranks));
    TM__TRY(table_parse(config, file, "alpha_pattern", &rules->alphas));
    TM__TRY(check_tables(rules));
    if (!is_empty(saved)) {
        if (!json_is_array(saved)) return tm__fail(TM_FORMAT, file, "modules_to_save", NULL, "must be a list");
        TM__TRY(check_strings(saved, file, "modules_to_save"));
        rules->saved = saved;
    }
    if (!is_empty(json_object_get(config, "exclude_modules")))
        TM__TRY(names_parse(config, file, "exclude_modules", false, &rules->exclude));
    TM__TRY(names_parse(config, file, "target_modules", true, &rules->target));
    return layers_parse(config, file, &rules->layers);
}

tm_status tm__adapter_rules_make(const struct json_t *config, const char *file, tm__adapter_rules **rules) {
    tm__adapter_rules *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->file = file;
    tm_status status = parse(config, file, made);
    if (status == TM_OK)
        *rules = made;
    else
        tm__adapter_rules_free(made);
    return status;
}

void tm__adapter_rules_free(tm__adapter_rules *rules) {
    if (!rules) return;
    pattern_release(&rules->target.pattern);
    pattern_release(&rules->exclude.pattern);
    table_release(&rules->ranks);
    table_release(&rules->alphas);
    layers_release(&rules->layers);
    free(rules);
}

tm_status tm__adapter_rules_part(const tm__adapter_rules *rules, const char *path, bool *wanted,
                                 tm__adapter_shape *shape) {
    bool excluded;
    double rank = (double)rules->rank, alpha = rules->alpha;
    *wanted = false;
    if (within_saved(rules->saved, path)) return TM_OK;
    TM__TRY(names_match(&rules->exclude, path, rules->file, &excluded));
    if (excluded) return TM_OK;
    TM__TRY(names_match(&rules->target, path, rules->file, wanted));
    if (*wanted && !list_holds(rules->target.list, path))
        TM__TRY(layers_match(&rules->layers, path, rules->file, wanted));
    if (!*wanted) return TM_OK;
    TM__TRY(table_find(&rules->ranks, path, rules->file, &rank));
    TM__TRY(table_find(&rules->alphas, path, rules->file, &alpha));
    *shape = (tm__adapter_shape){(int64_t)rank, alpha, alpha / (rules->rslora ? sqrt(rank) : rank), rules->dropout};
    return TM_OK;
}
