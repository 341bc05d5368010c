/* load_model.c: the "model" of a tokenizer.json: BPE, Unigram, WordPiece or WordLevel. */
#include "tokenizer/load.h"

#include <stdlib.h>

/* Of continuing_subword_prefix and end_of_word_suffix. */
enum { LONGEST_AFFIX = 64 };

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

tm_status tm__load_vocab(tm_tokenizer *tok, const char *file, const json_t *vocab, const char *field) {
    const char *text;
    json_t *value;
    size_t len;
    if (!json_is_object(vocab)) return tm__fail(TM_FORMAT, file, field, NULL, "must be an object of tokens and ids");
    json_object_keylen_foreach((json_t *)vocab, text, len, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= TM__VOCAB_MAX)
            return tm__fail(TM_FORMAT, file, field, NULL, "token \"%.40s\" needs an id from 0 to %d", text,
                            TM__VOCAB_MAX - 1);
        TM__TRY(tm__vocab_add(&tok->vocab, file, text, len, (int32_t)id, 0));
    }
    return TM_OK;
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

static tm_status load_merge(tm_tokenizer *tok, const char *file, const char *left, size_t left_len, const char *right,
                            size_t right_len, size_t index) {
    char field[48];
    snprintf(field, sizeof field, "merges[%zu]", index);
    if (left_len == 0 || right_len == 0) return tm__fail(TM_FORMAT, file, field, NULL, "one side is empty");
    int32_t a = tm__vocab_id(&tok->vocab, left, left_len), b = tm__vocab_id(&tok->vocab, right, right_len), id = -1;
    tm__string joined = {0};
    size_t skip = tok->bpe.prefix_len; /* of the right side's "##" */
    if (right_len < skip) return tm__fail(TM_FORMAT, file, field, NULL, "the right side is shorter than the prefix");
    bool ok = tm__string_append(&joined, left, left_len) && tm__string_append(&joined, right + skip, right_len - skip);
    if (ok) id = tm__vocab_id(&tok->vocab, joined.data, joined.len);
    tm__string_free(&joined);
    if (!ok) return tm__fail_memory();
    if (a < 0 || b < 0 || id < 0)
        return tm__fail(TM_FORMAT, file, field, NULL, "\"%.*s\" + \"%.*s\": %s is not in the vocabulary",
                        (int)TM__MIN(left_len, (size_t)40), left, (int)TM__MIN(right_len, (size_t)40), right,
                        a < 0   ? "the left side"
                        : b < 0 ? "the right side"
                                : "their union");
    if (!tm__bpe_add(&tok->bpe, a, b, (uint32_t)index, id))
        return tm__fail(TM_FORMAT, file, field, NULL, "\"%.*s\" + \"%.*s\" is there twice",
                        (int)TM__MIN(left_len, (size_t)40), left, (int)TM__MIN(right_len, (size_t)40), right);
    return TM_OK;
}

/* "a b": exactly one space. */
tm_status tm__load_merge_line(tm_tokenizer *tok, const char *file, const char *line, size_t len, size_t index) {
    const char *space = memchr(line, ' ', len);
    size_t left = space ? (size_t)(space - line) : len;
    if (!space || memchr(space + 1, ' ', len - left - 1)) {
        char field[48];
        snprintf(field, sizeof field, "merges[%zu]", index);
        return tm__fail(TM_FORMAT, file, field, NULL, "\"%.*s\" must be two tokens with a space between",
                        (int)TM__MIN(len, (size_t)60), line);
    }
    return load_merge(tok, file, line, left, space + 1, len - left - 1, index);
}

static tm_status load_merges(tm_tokenizer *tok, const char *file, const json_t *merges) {
    size_t index;
    const json_t *merge;
    if (!json_is_array(merges)) return tm__fail(TM_FORMAT, file, "model.merges", NULL, "must be an array");
    if (!tm__bpe_reserve(&tok->bpe, json_array_size(merges))) return tm__fail_memory();
    json_array_foreach(merges, index, merge) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge)) {
            TM__TRY(tm__load_merge_line(tok, file, json_string_value(merge), json_string_length(merge), index));
        } else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right)) {
            TM__TRY(load_merge(tok, file, json_string_value(left), json_string_length(left), json_string_value(right),
                               json_string_length(right), index));
        } else {
            return tm__fail(TM_FORMAT, file, "model.merges", NULL, "entry %zu is neither \"a b\" nor [\"a\", \"b\"]",
                            index);
        }
    }
    return TM_OK;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static const bool no = false;

/* A text that may be null or absent; kept in the vocabulary's arena. */
static tm_status load_affix(tm_tokenizer *tok, const char *file, const json_t *model, const char *key,
                            const char *fallback, const char **text, size_t *len) {
    TM__TRY(tm__json_text(model, file, key, fallback, text));
    *len = strlen(*text);
    if (*len > LONGEST_AFFIX) return tm__fail(TM_UNSUPPORTED, file, key, NULL, "longer than %d bytes", LONGEST_AFFIX);
    *text = tm__arena_strdup(&tok->vocab.strings, *text, *len);
    return *text ? TM_OK : tm__fail_memory();
}

static tm_status load_unknown(const tm_tokenizer *tok, const char *file, const json_t *model, int32_t *id) {
    const char *unknown;
    *id = -1;
    TM__TRY(tm__json_text(model, file, "unk_token", "", &unknown));
    if (!*unknown) return TM_OK;
    *id = tm__vocab_id(&tok->vocab, unknown, strlen(unknown));
    if (*id >= 0) return TM_OK;
    return tm__fail(TM_FORMAT, file, "unk_token", NULL, "\"%s\" is not in the vocabulary", unknown);
}

static tm_status load_bpe(tm_tokenizer *tok, const char *file, const json_t *model) {
    tm__bpe *bpe = &tok->bpe;
    double dropout, none = 0;
    tok->model = TM__MODEL_BPE;
    TM__TRY(tm__json_real(model, file, "dropout", &none, &dropout));
    if (dropout != 0) return tm__fail(TM_UNSUPPORTED, file, "dropout", "set it to null", "%g", dropout);
    TM__TRY(load_affix(tok, file, model, "continuing_subword_prefix", "", &bpe->prefix, &bpe->prefix_len));
    TM__TRY(load_affix(tok, file, model, "end_of_word_suffix", "", &bpe->suffix, &bpe->suffix_len));
    TM__TRY(tm__json_bool(model, file, "fuse_unk", &no, &bpe->fuse_unknown));
    TM__TRY(tm__json_bool(model, file, "byte_fallback", &no, &bpe->byte_fallback));
    TM__TRY(tm__json_bool(model, file, "ignore_merges", &no, &bpe->whole_words));
    TM__TRY(tm__load_vocab(tok, file, json_object_get(model, "vocab"), "model.vocab"));
    TM__TRY(load_merges(tok, file, json_object_get(model, "merges")));
    return load_unknown(tok, file, model, &bpe->unknown);
}

static tm_status load_unigram(tm_tokenizer *tok, const char *file, const json_t *model) {
    const json_t *vocab = json_object_get(model, "vocab"), *entry, *unknown = json_object_get(model, "unk_id");
    size_t index;
    tok->model = TM__MODEL_UNIGRAM;
    tok->kind = "Unigram";
    if (!json_is_array(vocab)) return tm__fail(TM_FORMAT, file, "model.vocab", NULL, "must be an array");
    if (json_array_size(vocab) > TM__VOCAB_MAX) return tm__fail(TM_FORMAT, file, "model.vocab", NULL, "is too long");
    json_array_foreach(vocab, index, entry) {
        const json_t *text = json_array_get(entry, 0), *score = json_array_get(entry, 1);
        if (!json_is_string(text) || !json_is_number(score) || !isfinite(json_number_value(score)))
            return tm__fail(TM_FORMAT, file, "model.vocab", NULL, "entry %zu is not [\"token\", score]", index);
        TM__TRY(tm__vocab_add(&tok->vocab, file, json_string_value(text), json_string_length(text), (int32_t)index, 0));
        tok->vocab.pieces[index].score = json_number_value(score);
    }
    TM__TRY(tm__json_bool(model, file, "byte_fallback", &no, &tok->unigram.byte_fallback));
    tok->unigram.unknown = -1;
    if (!unknown || json_is_null(unknown)) return TM_OK;
    json_int_t id = json_is_integer(unknown) ? json_integer_value(unknown) : -1;
    if (id < 0 || id >= tok->vocab.size)
        return tm__fail(TM_FORMAT, file, "unk_id", NULL, "must be null or an id of the vocabulary");
    tok->unigram.unknown = (int32_t)id;
    return TM_OK;
}

static tm_status load_words(tm_tokenizer *tok, const char *file, const json_t *model) {
    static const int64_t longest = 100;
    tm__words *words = &tok->words;
    bool pieces = tok->model == TM__MODEL_WORDPIECE;
    int64_t most = 0;
    tok->kind = pieces ? "WordPiece" : "WordLevel";
    if (pieces) {
        TM__TRY(load_affix(tok, file, model, "continuing_subword_prefix", "##", &words->prefix, &words->prefix_len));
        TM__TRY(tm__json_int(model, file, "max_input_chars_per_word", 0, INT32_MAX, &longest, &most));
    }
    words->longest = (size_t)most;
    TM__TRY(tm__load_vocab(tok, file, json_object_get(model, "vocab"), "model.vocab"));
    return load_unknown(tok, file, model, &words->unknown);
}

/* Old files name no type: BPE has merges, Unigram a list. */
static const char *guess_type(const json_t *model) {
    if (json_object_get(model, "merges")) return "BPE";
    if (json_is_array(json_object_get(model, "vocab"))) return "Unigram";
    return json_object_get(model, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

tm_status tm__load_model(tm_tokenizer *tok, const char *file, const json_t *model) {
    const char *type;
    if (!json_is_object(model)) return tm__fail(TM_FORMAT, file, "model", NULL, "must be an object");
    TM__TRY(tm__json_text(model, file, "type", guess_type(model), &type));
    if (strcmp(type, "BPE") == 0) return load_bpe(tok, file, model);
    if (strcmp(type, "Unigram") == 0) return load_unigram(tok, file, model);
    tok->model = strcmp(type, "WordPiece") == 0 ? TM__MODEL_WORDPIECE : TM__MODEL_WORDLEVEL;
    if (tok->model == TM__MODEL_WORDPIECE || strcmp(type, "WordLevel") == 0) return load_words(tok, file, model);
    tm__place at = {.tok = tok, .file = file, .field = "model"};
    return tm__load_unsupported(&at, type, "BPE, Unigram, WordLevel and WordPiece");
}
