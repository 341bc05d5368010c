/* load_steps.c: normalizer and pre_tokenizer of a tokenizer.json.
 *
 * Field names and defaults are those of Hugging Face's `tokenizers` (its serde attributes). What is not listed here is
 * refused by name: a tokenizer that silently left a step out would give wrong ids.
 */
#include "tokenizer/load.h"

#include <utf8proc.h>

tm_status tm__load_unsupported(const tm__place *at, const char *type, const char *known) {
    char hint[320];
    snprintf(hint, sizeof hint, "known are %s", known);
    return tm__fail(TM_UNSUPPORTED, at->file, at->field, hint, "type \"%s\"", type);
}

tm_status tm__load_bad(const tm__place *at, const char *what) {
    return tm__fail(TM_FORMAT, at->file, at->field, NULL, "%s", what);
}

/* The object, or the objects of a Sequence whose list stands under `list`; null is an empty sequence. */
tm_status tm__load_each(const tm__place *at, const json_t *value, const char *list, tm__load_one load) {
    const char *type;
    if (!value || json_is_null(value)) return TM_OK;
    if (!json_is_object(value)) return tm__load_bad(at, "must be an object");
    if (tm__json_text(value, at->file, "type", NULL, &type) != TM_OK) return tm__error_within(at->file, at->field);
    if (strcmp(type, "Sequence") != 0) return load(at, value, type);
    const json_t *members = json_object_get(value, list);
    if (!json_is_array(members)) return tm__load_bad(at, "Sequence without its list");
    size_t index;
    const json_t *member;
    json_array_foreach(members, index, member) TM__TRY(tm__load_each(at, member, list, load));
    return TM_OK;
}

tm__step *tm__load_step(tm__steps *steps, tm__step_kind kind, tm_status *status) {
    tm__step *step = tm__steps_add(steps, kind);
    *status = step ? TM_OK : tm__fail_memory();
    return step;
}

/* Strings are kept in the vocabulary's arena. */
tm_status tm__load_text(const tm__place *at, const json_t *object, const char *key, const char **text, size_t *len) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return tm__fail(TM_FORMAT, at->file, at->field, NULL, "\"%s\" must be a string", key);
    *len = json_string_length(value);
    *text = tm__arena_strdup(&at->tok->vocab.strings, json_string_value(value), *len);
    return *text ? TM_OK : tm__fail_memory();
}

/* {"Regex": "..."} or {"String": "..."} */
tm_status tm__load_pattern(const tm__place *at, const json_t *object, tm__step *step) {
    const json_t *pattern = json_object_get(object, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    const json_t *text = regex ? regex : literal;
    if (!json_is_string(text)) return tm__load_bad(at, "\"pattern\" must hold a Regex or a String");
    if (!regex && json_string_length(text) == 0) return tm__load_bad(at, "\"pattern\" is empty");
    if (!regex) TM__TRY(tm__load_text(at, pattern, "String", &step->literal, &step->literal_len));
    return tm__regex_compile(&step->regex, json_string_value(text), json_string_length(text), !regex, at->file,
                             at->field);
}

tm_status tm__load_flag(const tm__place *at, const json_t *object, const char *key, bool fallback, bool *value) {
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

static tm_status load_charsmap(const tm__place *at, const json_t *object, tm__step *step) {
    const char *text = "";
    size_t len = 0, raw_len = 0;
    TM__TRY(tm__load_text(at, object, "precompiled_charsmap", &text, &len));
    char *raw = tm__arena_alloc(&at->tok->vocab.strings, len + 1, 1);
    step->map = tm__arena_alloc(&at->tok->vocab.strings, 1, sizeof *step->map);
    if (!raw || !step->map) return tm__fail_memory();
    if (len && !tm__base64_decode(text, len, raw, &raw_len)) return tm__load_bad(at, "charsmap is not base64");
    return tm__charsmap_load(step->map, at->tok, raw, raw_len, at->file, at->field);
}

/* As its parts, in the reference's order. */
static tm_status load_bert(const tm__place *at, const json_t *object) {
    tm__steps *steps = &at->tok->normalizers;
    bool clean, chinese, lowercase, accents;
    tm_status status = TM_OK;
    TM__TRY(tm__load_flag(at, object, "clean_text", true, &clean));
    TM__TRY(tm__load_flag(at, object, "handle_chinese_chars", true, &chinese));
    TM__TRY(tm__load_flag(at, object, "lowercase", true, &lowercase));
    TM__TRY(tm__load_flag(at, object, "strip_accents", lowercase, &accents));
    tm__step *step = clean ? tm__load_step(steps, TM__NORM_MAP, &status) : NULL;
    if (step) step->map_character = tm__bert_clean;
    if (status == TM_OK && chinese) tm__load_step(steps, TM__NORM_CHINESE, &status);
    step = status == TM_OK && accents ? tm__load_step(steps, TM__NORM_UNICODE, &status) : NULL;
    if (step) step->options = unicode_form("NFD");
    step = status == TM_OK && accents ? tm__load_step(steps, TM__NORM_MAP, &status) : NULL;
    if (step) step->map_character = tm__drop_nonspacing;
    if (status == TM_OK && lowercase) tm__load_step(steps, TM__NORM_LOWERCASE, &status);
    return status;
}

static tm_status load_normalizer(const tm__place *at, const json_t *object, const char *type) {
    tm__steps *steps = &at->tok->normalizers;
    tm_status status;
    tm__step *step;
    if (unicode_form(type)) {
        step = tm__load_step(steps, TM__NORM_UNICODE, &status);
        if (step) step->options = unicode_form(type);
    } else if (strcmp(type, "Lowercase") == 0) {
        tm__load_step(steps, TM__NORM_LOWERCASE, &status);
    } else if (strcmp(type, "Prepend") == 0) {
        step = tm__load_step(steps, TM__NORM_PREPEND, &status);
        if (step) status = tm__load_text(at, object, "prepend", &step->content, &step->content_len);
    } else if (strcmp(type, "Replace") == 0) {
        step = tm__load_step(steps, TM__NORM_REPLACE, &status);
        if (step) status = tm__load_text(at, object, "content", &step->content, &step->content_len);
        if (status == TM_OK) status = tm__load_pattern(at, object, step);
    } else if (strcmp(type, "Strip") == 0) {
        bool left = true, right = true;
        step = tm__load_step(steps, TM__NORM_STRIP, &status);
        if (step) status = tm__load_flag(at, object, "strip_left", true, &left);
        if (status == TM_OK) status = tm__load_flag(at, object, "strip_right", true, &right);
        if (step) step->start = left, step->stop = right;
    } else if (strcmp(type, "StripAccents") == 0) {
        step = tm__load_step(steps, TM__NORM_MAP, &status);
        if (step) step->map_character = tm__drop_marks;
    } else if (strcmp(type, "Nmt") == 0) {
        step = tm__load_step(steps, TM__NORM_MAP, &status);
        if (step) step->map_character = tm__nmt_clean;
    } else if (strcmp(type, "BertNormalizer") == 0) {
        status = load_bert(at, object);
    } else if (strcmp(type, "Precompiled") == 0) {
        step = tm__load_step(steps, TM__NORM_CHARSMAP, &status);
        if (step) status = load_charsmap(at, object, step);
    } else if (strcmp(type, "ByteLevel") == 0) {
        tm__load_step(steps, TM__NORM_BYTE_LEVEL, &status);
    } else {
        return tm__load_unsupported(at, type,
                                    "BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, "
                                    "Prepend, Replace, Sequence, Strip and StripAccents");
    }
    return status;
}

/* ---- pre-tokenizers ---------------------------------------------------------------------------------------------- */

static tm_status load_behavior(const tm__place *at, const json_t *object, const char *fallback, tm__step *step) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    if (tm__json_text(object, at->file, "behavior", fallback, &name) != TM_OK)
        return tm__error_within(at->file, at->field);
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        step->behavior = (tm__behavior)i;
        return TM_OK;
    }
    return tm__fail(TM_FORMAT, at->file, at->field, NULL, "unknown behavior \"%s\"", name);
}

/* "prepend_scheme", or the older "add_prefix_space". */
tm_status tm__load_metaspace(const tm__place *at, const json_t *object, tm__step *step) {
    static const char *const schemes[] = {"always", "first", "never"};
    const char *scheme;
    bool prefix_space, split;
    uint32_t code;
    TM__TRY(tm__load_text(at, object, "replacement", &step->content, &step->content_len));
    if (!step->content_len || (size_t)tm__utf8_decode(step->content, step->content_len, &code) != step->content_len)
        return tm__load_bad(at, "\"replacement\" must be one character");
    TM__TRY(tm__load_flag(at, object, "add_prefix_space", true, &prefix_space));
    TM__TRY(tm__load_flag(at, object, "split", true, &split));
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

static tm_status load_byte_level(const tm__place *at, const json_t *object, tm__step *step) {
    bool prefix_space, regex;
    TM__TRY(tm__load_flag(at, object, "add_prefix_space", true, &prefix_space));
    TM__TRY(tm__load_flag(at, object, "use_regex", true, &regex));
    step->prepend = prefix_space ? TM__PREPEND_ALWAYS : TM__PREPEND_NEVER;
    if (!regex) return TM_OK;
    return tm__regex_compile(&step->regex, tm__pattern_gpt2, strlen(tm__pattern_gpt2), false, at->file, at->field);
}

static tm_status load_split(const tm__place *at, const json_t *object, tm__step *step) {
    TM__TRY(tm__load_pattern(at, object, step));
    TM__TRY(load_behavior(at, object, NULL, step));
    return tm__load_flag(at, object, "invert", false, &step->invert);
}

static tm_status load_digits(const tm__place *at, const json_t *object, tm__step *step) {
    bool individual;
    TM__TRY(tm__load_flag(at, object, "individual_digits", false, &individual));
    step->behavior = individual ? TM__BEHAVIOR_ISOLATED : TM__BEHAVIOR_CONTIGUOUS;
    step->is_match = tm__is_numeric;
    return TM_OK;
}

static tm_status load_punctuation(const tm__place *at, const json_t *object, tm__step *step) {
    step->is_match = tm__is_punctuation;
    return load_behavior(at, object, "Isolated", step);
}

/* Words and runs of other characters, without blanks. */
static tm_status load_whitespace(const tm__place *at, const json_t *object, tm__step *step) {
#define WORD                                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-" \
    "\\x{1f169}\\x{1f170}-\\x{1f189}"
    static const char pattern[] = "[" WORD "]+|[^" WORD "\\s]+"; /* \w of Rust's regex, which is not Oniguruma's */
#undef WORD
    (void)object;
    step->behavior = TM__BEHAVIOR_REMOVED;
    step->invert = true;
    return tm__regex_compile(&step->regex, pattern, strlen(pattern), false, at->file, at->field);
}

static tm_status load_whitespace_split(const tm__place *at, const json_t *object, tm__step *step) {
    (void)at, (void)object;
    step->behavior = TM__BEHAVIOR_REMOVED;
    step->is_match = tm__is_space;
    return TM_OK;
}

/* Blanks go, then every punctuation mark stands alone. */
static tm_status load_bert_words(const tm__place *at, const json_t *object, tm__step *step) {
    tm_status status;
    TM__TRY(load_whitespace_split(at, object, step));
    tm__step *second = tm__load_step(&at->tok->splitters, TM__SPLIT_CLASS, &status);
    if (second) second->is_match = tm__is_punctuation;
    return status;
}

static tm_status load_delimiter(const tm__place *at, const json_t *object, tm__step *step) {
    TM__TRY(tm__load_text(at, object, "delimiter", &step->literal, &step->literal_len));
    if (step->literal_len == 0) return tm__load_bad(at, "\"delimiter\" is empty");
    step->behavior = TM__BEHAVIOR_REMOVED;
    return tm__regex_compile(&step->regex, step->literal, step->literal_len, true, at->file, at->field);
}

static tm_status load_pre_tokenizer(const tm__place *at, const json_t *object, const char *type) {
    static const struct {
        const char *type;
        tm__step_kind kind;
        tm_status (*load)(const tm__place *at, const json_t *object, tm__step *step);
    } known[] = {{"BertPreTokenizer", TM__SPLIT_CLASS, load_bert_words},
                 {"ByteLevel", TM__SPLIT_BYTE_LEVEL, load_byte_level},
                 {"CharDelimiterSplit", TM__SPLIT_REGEX, load_delimiter},
                 {"Digits", TM__SPLIT_CLASS, load_digits},
                 {"Metaspace", TM__SPLIT_METASPACE, tm__load_metaspace},
                 {"Punctuation", TM__SPLIT_CLASS, load_punctuation},
                 {"Split", TM__SPLIT_REGEX, load_split},
                 {"Whitespace", TM__SPLIT_REGEX, load_whitespace},
                 {"WhitespaceSplit", TM__SPLIT_CLASS, load_whitespace_split}};
    for (size_t i = 0; i < TM__COUNT(known); i++) {
        tm_status status;
        if (strcmp(type, known[i].type) != 0) continue;
        tm__step *step = tm__load_step(&at->tok->splitters, known[i].kind, &status);
        return step ? known[i].load(at, object, step) : status;
    }
    return tm__load_unsupported(at, type,
                                "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, Metaspace, Punctuation, "
                                "Sequence, Split, Whitespace and WhitespaceSplit");
}

/* A byte-level BPE takes bytes as they are where every byte is a piece and nothing follows ByteLevel; elsewhere
 * ByteLevel spells them as letters. */
static bool takes_bytes(const tm_tokenizer *tok) {
    const tm__bpe *bpe = &tok->bpe;
    size_t n = tok->splitters.len;
    if (n == 0 || tok->splitters.data[n - 1].kind != TM__SPLIT_BYTE_LEVEL) return false;
    if (tok->model != TM__MODEL_BPE || bpe->byte_fallback || bpe->prefix_len || bpe->suffix_len) return false;
    for (int byte = 0; byte < 256; byte++) {
        char letter[4];
        int32_t id = tm__vocab_id(&tok->vocab, letter, (size_t)tm__utf8_encode(tm__code_of_byte(byte), letter));
        if (id < 0 || tok->vocab.pieces[id].flags & TM__PIECE_OUTSIDE) return false;
    }
    return true;
}

static void settle(tm_tokenizer *tok) {
    tm__steps *steps = &tok->splitters;
    bool rewritten = tok->normalizers.len > 0;
    tok->bpe.byte_level = takes_bytes(tok);
    for (size_t i = 0; i < steps->len; i++) {
        tm__step *step = &steps->data[i];
        bool last = i + 1 == steps->len;
        if (step->kind == TM__SPLIT_BYTE_LEVEL) step->split = !(last && tok->bpe.byte_level);
        tok->track = tok->track || (step->prepend == TM__PREPEND_FIRST && rewritten);
        rewritten = rewritten || step->prepend != TM__PREPEND_NEVER || step->split;
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

tm_status tm__load_steps(tm_tokenizer *tok, const char *file, const struct json_t *root) {
    static const struct {
        const char *field, *list;
        tm__load_one load;
    } parts[] = {{"normalizer", "normalizers", load_normalizer},
                 {"pre_tokenizer", "pretokenizers", load_pre_tokenizer},
                 {"post_processor", "processors", tm__load_post_processor},
                 {"decoder", "decoders", tm__load_decoder}};
    for (size_t i = 0; i < TM__COUNT(parts); i++) {
        tm__place at = {.tok = tok, .file = file, .field = parts[i].field};
        TM__TRY(tm__load_each(&at, json_object_get(root, parts[i].field), parts[i].list, parts[i].load));
    }
    settle(tok);
    return TM_OK;
}

tm_status tm__load_byte_level(tm_tokenizer *tok, const char *file, const char *pattern) {
    tm__step *step = tm__steps_add(&tok->splitters, TM__SPLIT_REGEX);
    if (!step || !tm__steps_add(&tok->splitters, TM__SPLIT_BYTE_LEVEL) ||
        !tm__steps_add(&tok->decoders, TM__DECODE_BYTE_LEVEL))
        return tm__fail_memory();
    settle(tok);
    return tm__regex_compile(&tok->splitters.data[0].regex, pattern, strlen(pattern), false, file, "pre-tokenizer");
}
