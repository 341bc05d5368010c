/* load_decoders.c: post_processor and decoder of a tokenizer.json, fields and defaults as in load_steps.c. */
#include "tokenizer/load.h"

/* ---- post-processors --------------------------------------------------------------------------------------------- */

static tm_status push_special(const tm__place *at, const json_t *root, const json_t *special, tm_ids *to) {
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
static tm_status load_template(const tm__place *at, const json_t *object) {
    const json_t *parts = json_object_get(object, "single"), *part;
    size_t index;
    bool seen_text = false;
    if (!json_is_array(parts)) return tm__load_bad(at, "\"single\" must be an array");
    json_array_foreach(parts, index, part) {
        const json_t *special = json_object_get(part, "SpecialToken");
        if (special) {
            TM__TRY(push_special(at, object, special, seen_text ? &at->tok->suffix : &at->tok->prefix));
        } else if (json_object_get(part, "Sequence") && !seen_text) {
            seen_text = true;
        } else {
            return tm__load_bad(at, "\"single\" must hold SpecialToken entries and one Sequence");
        }
    }
    return seen_text ? TM_OK : tm__load_bad(at, "\"single\" holds no Sequence");
}

/* Moves offsets only. */
static tm_status load_trim(const tm__place *at, const json_t *object) {
    tm__trim *trim = &at->tok->trim;
    bool on;
    TM__TRY(tm__load_flag(at, object, "trim_offsets", true, &on));
    if (on && trim->on) return tm__fail(TM_UNSUPPORTED, at->file, at->field, NULL, "trims offsets twice");
    if (!on) return TM_OK;
    trim->on = true;
    trim->after_template = at->tok->prefix.len > 0;
    return tm__load_flag(at, object, "add_prefix_space", true, &trim->prefix_space);
}

/* ["[SEP]", 102] */
static tm_status push_pair(const tm__place *at, const json_t *object, const char *key, tm_ids *to) {
    const json_t *id = json_array_get(json_object_get(object, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= at->tok->vocab.size)
        return tm__fail(TM_FORMAT, at->file, at->field, NULL, "\"%s\" must be a token and its id", key);
    return tm_ids_push(to, (int32_t)json_integer_value(id));
}

static tm_status load_sep_and_cls(const tm__place *at, const json_t *object) {
    TM__TRY(push_pair(at, object, "cls", &at->tok->prefix));
    return push_pair(at, object, "sep", &at->tok->suffix);
}

tm_status tm__load_post_processor(const tm__place *at, const json_t *object, const char *type) {
    bool template = strcmp(type, "TemplateProcessing") == 0, roberta = strcmp(type, "RobertaProcessing") == 0;
    bool adds = template || roberta || strcmp(type, "BertProcessing") == 0;
    if (adds && (at->tok->prefix.len || at->tok->suffix.len))
        return tm__fail(TM_UNSUPPORTED, at->file, at->field, NULL, "\"%s\" after another one that adds tokens", type);
    if (strcmp(type, "ByteLevel") == 0) return load_trim(at, object);
    if (roberta) TM__TRY(load_trim(at, object));
    if (template) return load_template(at, object);
    if (adds) return load_sep_and_cls(at, object);
    return tm__load_unsupported(at, type,
                                "BertProcessing, ByteLevel, RobertaProcessing, Sequence and TemplateProcessing");
}

/* ---- decoders ---------------------------------------------------------------------------------------------------- */

static tm_status load_strip(const tm__place *at, const json_t *object, tm__step *step) {
    int64_t start, stop;
    TM__TRY(tm__load_text(at, object, "content", &step->content, &step->content_len));
    if (step->content_len == 0) return tm__load_bad(at, "\"content\" is empty");
    if (tm__json_int(object, at->file, "start", 0, 1 << 20, NULL, &start) != TM_OK ||
        tm__json_int(object, at->file, "stop", 0, 1 << 20, NULL, &stop) != TM_OK)
        return tm__error_within(at->file, at->field);
    step->start = (int)start;
    step->stop = (int)stop;
    return TM_OK;
}

static tm_status load_nothing(const tm__place *at, const json_t *object, tm__step *step) {
    (void)at, (void)object, (void)step;
    return TM_OK;
}

static tm_status load_replace(const tm__place *at, const json_t *object, tm__step *step) {
    TM__TRY(tm__load_text(at, object, "content", &step->content, &step->content_len));
    return tm__load_pattern(at, object, step);
}

static tm_status load_wordpiece(const tm__place *at, const json_t *object, tm__step *step) {
    TM__TRY(tm__load_text(at, object, "prefix", &step->content, &step->content_len));
    return tm__load_flag(at, object, "cleanup", true, &step->split);
}

static tm_status load_suffix(const tm__place *at, const json_t *object, tm__step *step) {
    TM__TRY(tm__load_text(at, object, "suffix", &step->content, &step->content_len));
    return step->content_len ? TM_OK : tm__load_bad(at, "\"suffix\" is empty");
}

tm_status tm__load_decoder(const tm__place *at, const json_t *object, const char *type) {
    static const struct {
        const char *type;
        tm__step_kind kind;
        tm_status (*load)(const tm__place *at, const json_t *object, tm__step *step);
    } known[] = {{"BPEDecoder", TM__DECODE_SUFFIX, load_suffix},
                 {"ByteFallback", TM__DECODE_BYTE_FALLBACK, load_nothing},
                 {"ByteLevel", TM__DECODE_BYTE_LEVEL, load_nothing},
                 {"Fuse", TM__DECODE_FUSE, load_nothing},
                 {"Metaspace", TM__DECODE_METASPACE, tm__load_metaspace},
                 {"Replace", TM__DECODE_REPLACE, load_replace},
                 {"Strip", TM__DECODE_STRIP, load_strip},
                 {"WordPiece", TM__DECODE_WORDPIECE, load_wordpiece}};
    for (size_t i = 0; i < TM__COUNT(known); i++) {
        tm_status status;
        if (strcmp(type, known[i].type) != 0) continue;
        tm__step *step = tm__load_step(&at->tok->decoders, known[i].kind, &status);
        return step ? known[i].load(at, object, step) : status;
    }
    return tm__load_unsupported(
        at, type, "BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip and WordPiece");
}
