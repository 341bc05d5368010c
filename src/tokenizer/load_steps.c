/* load_steps.c: normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json.
 *
 * Field names and defaults are those of Hugging Face's `tokenizers` (its serde attributes). What is not listed here is
 * refused by name: a tokenizer that silently left a step out would give wrong ids.
 */
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <utf8proc.h>

/* Where we are: names the file and the field in errors. */
typedef struct place {
    tm_tokenizer *tok;
    const char *file, *field;
} place;

typedef tm_status (*one_step)(const place *at, const json_t *object, const char *type);

static tm_status unsupported(const place *at, const char *type) {
    return tm__fail(TM_UNSUPPORTED, at->file, at->field, NULL, "type \"%s\"", type);
}

static tm_status bad(const place *at, const char *what) {
    return tm__fail(TM_FORMAT, at->file, at->field, NULL, "%s", what);
}

/* The object, or the objects of a Sequence whose list stands under `list`; null is an empty sequence. */
static tm_status each_step(const place *at, const json_t *value, const char *list, one_step load) {
    const char *type;
    if (!value || json_is_null(value)) return TM_OK;
    if (!json_is_object(value)) return bad(at, "must be an object");
    if (tm__json_text(value, at->file, "type", NULL, &type) != TM_OK) return tm__error_within(at->file, at->field);
    if (strcmp(type, "Sequence") != 0) return load(at, value, type);
    const json_t *members = json_object_get(value, list);
    if (!json_is_array(members)) return bad(at, "Sequence without its list");
    size_t index;
    const json_t *member;
    json_array_foreach(members, index, member) TM__TRY(each_step(at, member, list, load));
    return TM_OK;
}

static tm__step *add(tm__steps *steps, tm__step_kind kind, tm_status *status) {
    tm__step *step = tm__steps_add(steps, kind);
    *status = step ? TM_OK : tm__fail_memory();
    return step;
}

/* Strings are kept in the vocabulary's arena. */
static tm_status keep_text(const place *at, const json_t *object, const char *key, const char **text, size_t *len) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return tm__fail(TM_FORMAT, at->file, at->field, NULL, "\"%s\" must be a string", key);
    *len = json_string_length(value);
    *text = tm__arena_strdup(&at->tok->vocab.strings, json_string_value(value), *len);
    return *text ? TM_OK : tm__fail_memory();
}

/* {"Regex": "..."} or {"String": "..."} */
static tm_status load_pattern(const place *at, const json_t *object, tm__step *step) {
    const json_t *pattern = json_object_get(object, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    const json_t *text = regex ? regex : literal;
    if (!json_is_string(text)) return bad(at, "\"pattern\" must hold a Regex or a String");
    if (!regex && json_string_length(text) == 0) return bad(at, "\"pattern\" is empty");
    if (!regex) TM__TRY(keep_text(at, pattern, "String", &step->literal, &step->literal_len));
    return tm__regex_compile(&step->regex, json_string_value(text), json_string_length(text), !regex, at->file,
                             at->field);
}

static tm_status flag(const place *at, const json_t *object, const char *key, bool fallback, bool *value) {
    tm_status status = tm__json_bool(object, at->file, key, &fallback, value);
    return status == TM_OK ? TM_OK : tm__error_within(at->file, at->field);
}

/* ---- normalizers ------------------------------------------------------------------------------------------------- */

static int unicode_form(const char *type) {
    if (strcmp(type, "NFC") == 0) return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    if (strcmp(type, "NFD") == 0) return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (strcmp(type, "NFKC") == 0) return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    if (strcmp(type, "NFKD") == 0) return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
    return 0;
}

static tm_status load_normalizer(const place *at, const json_t *object, const char *type) {
    tm__steps *steps = &at->tok->normalizers;
    tm_status status;
    tm__step *step;
    if (unicode_form(type)) {
        step = add(steps, TM__NORM_UNICODE, &status);
        if (step) step->options = unicode_form(type);
    } else if (strcmp(type, "Lowercase") == 0) {
        add(steps, TM__NORM_LOWERCASE, &status);
    } else if (strcmp(type, "Prepend") == 0) {
        step = add(steps, TM__NORM_PREPEND, &status);
        if (step) status = keep_text(at, object, "prepend", &step->content, &step->content_len);
    } else if (strcmp(type, "Replace") == 0) {
        step = add(steps, TM__NORM_REPLACE, &status);
        if (step) status = keep_text(at, object, "content", &step->content, &step->content_len);
        if (status == TM_OK) status = load_pattern(at, object, step);
    } else if (strcmp(type, "Strip") == 0) {
        bool left = true, right = true;
        step = add(steps, TM__NORM_STRIP, &status);
        if (step) status = flag(at, object, "strip_left", true, &left);
        if (status == TM_OK) status = flag(at, object, "strip_right", true, &right);
        if (step) step->start = left, step->stop = right;
    } else {
        return unsupported(at, type);
    }
    return status;
}

/* ---- pre-tokenizers ---------------------------------------------------------------------------------------------- */

static tm_status load_behavior(const place *at, const json_t *object, tm__step *step) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    if (tm__json_text(object, at->file, "behavior", NULL, &name) != TM_OK) return tm__error_within(at->file, at->field);
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        step->behavior = (tm__behavior)i;
        return TM_OK;
    }
    return tm__fail(TM_FORMAT, at->file, at->field, NULL, "unknown behavior \"%s\"", name);
}

/* "prepend_scheme", or the older "add_prefix_space". */
static tm_status load_metaspace(const place *at, const json_t *object, tm__step *step) {
    static const char *const schemes[] = {"always", "first", "never"};
    const char *scheme;
    bool prefix_space, split;
    uint32_t code;
    TM__TRY(keep_text(at, object, "replacement", &step->content, &step->content_len));
    if (!step->content_len || (size_t)tm__utf8_decode(step->content, step->content_len, &code) != step->content_len)
        return bad(at, "\"replacement\" must be one character");
    TM__TRY(flag(at, object, "add_prefix_space", true, &prefix_space));
    TM__TRY(flag(at, object, "split", true, &split));
    const char *fallback = prefix_space ? "always" : "never";
    if (tm__json_text(object, at->file, "prepend_scheme", fallback, &scheme) != TM_OK)
        return tm__error_within(at->file, at->field);
    size_t i = 0;
    while (i < TM__COUNT(schemes) && strcmp(scheme, schemes[i]) != 0) i++;
    if (i == TM__COUNT(schemes)) return tm__fail(TM_FORMAT, at->file, at->field, NULL, "unknown scheme \"%s\"", scheme);
    step->prepend = (tm__prepend)i;
    step->split = split;
    step->behavior = TM__BEHAVIOR_MERGED_NEXT;
    return TM_OK;
}

static tm_status load_byte_level(const place *at, const json_t *object, tm__step *step) {
    bool prefix_space, regex;
    TM__TRY(flag(at, object, "add_prefix_space", true, &prefix_space));
    TM__TRY(flag(at, object, "use_regex", true, &regex));
    step->prepend = prefix_space ? TM__PREPEND_ALWAYS : TM__PREPEND_NEVER;
    at->tok->bpe.byte_level = true;
    if (!regex) return TM_OK;
    return tm__regex_compile(&step->regex, tm__pattern_gpt2, strlen(tm__pattern_gpt2), false, at->file, at->field);
}

static tm_status load_pre_tokenizer(const place *at, const json_t *object, const char *type) {
    tm__steps *steps = &at->tok->splitters;
    tm_status status;
    tm__step *step;
    if (at->tok->bpe.byte_level)
        return tm__fail(TM_UNSUPPORTED, at->file, at->field, NULL, "\"%s\" after ByteLevel", type);
    if (strcmp(type, "ByteLevel") == 0) {
        step = add(steps, TM__SPLIT_BYTE_LEVEL, &status);
        return step ? load_byte_level(at, object, step) : status;
    }
    if (strcmp(type, "Split") == 0) {
        step = add(steps, TM__SPLIT_REGEX, &status);
        if (step) status = load_pattern(at, object, step);
        if (status == TM_OK) status = load_behavior(at, object, step);
        return status == TM_OK ? flag(at, object, "invert", false, &step->invert) : status;
    }
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        step = add(steps, TM__SPLIT_DIGITS, &status);
        if (step) status = flag(at, object, "individual_digits", false, &individual);
        if (step) step->behavior = individual ? TM__BEHAVIOR_ISOLATED : TM__BEHAVIOR_CONTIGUOUS;
        return status;
    }
    if (strcmp(type, "Metaspace") == 0) {
        step = add(steps, TM__SPLIT_METASPACE, &status);
        return step ? load_metaspace(at, object, step) : status;
    }
    return unsupported(at, type);
}

/* ---- post-processors --------------------------------------------------------------------------------------------- */

static tm_status push_special(const place *at, const json_t *root, const json_t *special, tm_ids *to) {
    const char *name;
    if (tm__json_text(special, at->file, "id", NULL, &name) != TM_OK) return tm__error_within(at->file, at->field);
    const json_t *entry = json_object_get(json_object_get(root, "special_tokens"), name);
    const json_t *ids = json_object_get(entry, "ids"), *value;
    size_t index;
    if (!json_is_array(ids) || json_array_size(ids) == 0)
        return tm__fail(TM_FORMAT, at->file, at->field, NULL, "special token \"%s\" has no ids", name);
    json_array_foreach(ids, index, value) {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= at->tok->vocab.size)
            return tm__fail(TM_FORMAT, at->file, at->field, NULL, "special token \"%s\": id outside the vocabulary",
                            name);
        TM__TRY(tm_ids_push(to, (int32_t)json_integer_value(value)));
    }
    return TM_OK;
}

/* Only the template of a single text is used. */
static tm_status load_template(const place *at, const json_t *object) {
    const json_t *parts = json_object_get(object, "single"), *part;
    size_t index;
    bool seen_text = false;
    if (!json_is_array(parts)) return bad(at, "\"single\" must be an array");
    json_array_foreach(parts, index, part) {
        const json_t *special = json_object_get(part, "SpecialToken");
        if (special) {
            TM__TRY(push_special(at, object, special, seen_text ? &at->tok->suffix : &at->tok->prefix));
        } else if (json_object_get(part, "Sequence") && !seen_text) {
            seen_text = true;
        } else {
            return bad(at, "\"single\" must hold SpecialToken entries and one Sequence");
        }
    }
    return seen_text ? TM_OK : bad(at, "\"single\" holds no Sequence");
}

/* Moves offsets only. */
static tm_status load_trim(const place *at, const json_t *object) {
    tm__trim *trim = &at->tok->trim;
    TM__TRY(flag(at, object, "trim_offsets", true, &trim->on));
    TM__TRY(flag(at, object, "add_prefix_space", true, &trim->prefix_space));
    trim->after_template = at->tok->prefix.len > 0;
    return TM_OK;
}

static tm_status load_post_processor(const place *at, const json_t *object, const char *type) {
    if (strcmp(type, "ByteLevel") == 0) return load_trim(at, object);
    if (strcmp(type, "TemplateProcessing") == 0) return load_template(at, object);
    return unsupported(at, type);
}

/* ---- decoders ---------------------------------------------------------------------------------------------------- */

static tm_status load_strip(const place *at, const json_t *object, tm__step *step) {
    int64_t start, stop;
    TM__TRY(keep_text(at, object, "content", &step->content, &step->content_len));
    if (step->content_len == 0) return bad(at, "\"content\" is empty");
    if (tm__json_int(object, at->file, "start", 0, 1 << 20, NULL, &start) != TM_OK ||
        tm__json_int(object, at->file, "stop", 0, 1 << 20, NULL, &stop) != TM_OK)
        return tm__error_within(at->file, at->field);
    step->start = (int)start;
    step->stop = (int)stop;
    return TM_OK;
}

static tm_status load_decoder(const place *at, const json_t *object, const char *type) {
    tm__steps *steps = &at->tok->decoders;
    tm_status status;
    tm__step *step;
    bool after_bytes = steps->len && steps->data[0].kind == TM__DECODE_BYTE_LEVEL;
    if (after_bytes || (strcmp(type, "ByteLevel") == 0 && steps->len))
        return tm__fail(TM_UNSUPPORTED, at->file, at->field, NULL, "ByteLevel beside another decoder");
    if (strcmp(type, "ByteLevel") == 0) {
        add(steps, TM__DECODE_BYTE_LEVEL, &status);
    } else if (strcmp(type, "ByteFallback") == 0) {
        add(steps, TM__DECODE_BYTE_FALLBACK, &status);
    } else if (strcmp(type, "Fuse") == 0) {
        add(steps, TM__DECODE_FUSE, &status);
    } else if (strcmp(type, "Strip") == 0) {
        step = add(steps, TM__DECODE_STRIP, &status);
        if (step) status = load_strip(at, object, step);
    } else if (strcmp(type, "Replace") == 0) {
        step = add(steps, TM__DECODE_REPLACE, &status);
        if (step) status = keep_text(at, object, "content", &step->content, &step->content_len);
        if (status == TM_OK) status = load_pattern(at, object, step);
    } else if (strcmp(type, "Metaspace") == 0) {
        step = add(steps, TM__DECODE_METASPACE, &status);
        if (step) status = load_metaspace(at, object, step);
    } else {
        return unsupported(at, type);
    }
    return status;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

tm_status tm__load_steps(tm_tokenizer *tok, const char *file, const struct json_t *root) {
    static const struct {
        const char *field, *list;
        one_step load;
    } parts[] = {{"normalizer", "normalizers", load_normalizer},
                 {"pre_tokenizer", "pretokenizers", load_pre_tokenizer},
                 {"post_processor", "processors", load_post_processor},
                 {"decoder", "decoders", load_decoder}};
    for (size_t i = 0; i < TM__COUNT(parts); i++) {
        place at = {.tok = tok, .file = file, .field = parts[i].field};
        TM__TRY(each_step(&at, json_object_get(root, parts[i].field), parts[i].list, parts[i].load));
    }
    return TM_OK;
}

tm_status tm__load_byte_level(tm_tokenizer *tok, const char *file, const char *pattern) {
    tm__step *step = tm__steps_add(&tok->splitters, TM__SPLIT_REGEX);
    if (!step || !tm__steps_add(&tok->splitters, TM__SPLIT_BYTE_LEVEL) ||
        !tm__steps_add(&tok->decoders, TM__DECODE_BYTE_LEVEL))
        return tm__fail_memory();
    tok->bpe.byte_level = true;
    return tm__regex_compile(&tok->splitters.data[0].regex, pattern, strlen(pattern), false, file, "pre-tokenizer");
}
