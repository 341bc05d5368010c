/* load_json.c: byte-pair encoders from tokenizer.json (Hugging Face `tokenizers`) and from vocab.json with merges.txt.
 */
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <utf8proc.h>

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

static tm_status load_vocab(tm_tokenizer *tok, const char *file, const json_t *vocab, const char *field) {
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
    bool ok = tm__string_append(&joined, left, left_len) && tm__string_append(&joined, right, right_len);
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
static tm_status load_merge_line(tm_tokenizer *tok, const char *file, const char *line, size_t len, size_t index) {
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
            TM__TRY(load_merge_line(tok, file, json_string_value(merge), json_string_length(merge), index));
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

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

/* Parts of the model that would change ids and are not implemented. */
static tm_status refuse_extras(const char *file, const json_t *model) {
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *text;
    double dropout, none = 0;
    for (size_t i = 0; i < TM__COUNT(texts); i++) {
        TM__TRY(tm__json_text(model, file, texts[i], "", &text));
        if (*text) return tm__fail(TM_UNSUPPORTED, file, texts[i], NULL, "\"%s\"", text);
    }
    TM__TRY(tm__json_real(model, file, "dropout", &none, &dropout));
    if (dropout != 0) return tm__fail(TM_UNSUPPORTED, file, "dropout", "set it to null", "%g", dropout);
    return TM_OK;
}

static tm_status load_model(tm_tokenizer *tok, const char *file, const json_t *model) {
    static const bool no = false;
    const char *type, *unknown;
    tm__bpe *bpe = &tok->bpe;
    if (!json_is_object(model)) return tm__fail(TM_FORMAT, file, "model", NULL, "must be an object");
    TM__TRY(tm__json_text(model, file, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0) return tm__fail(TM_UNSUPPORTED, file, "model", NULL, "type \"%s\"", type);
    TM__TRY(refuse_extras(file, model));
    TM__TRY(tm__json_bool(model, file, "fuse_unk", &no, &bpe->fuse_unknown));
    TM__TRY(tm__json_bool(model, file, "byte_fallback", &no, &bpe->byte_fallback));
    TM__TRY(tm__json_bool(model, file, "ignore_merges", &no, &bpe->whole_words));
    TM__TRY(load_vocab(tok, file, json_object_get(model, "vocab"), "model.vocab"));
    TM__TRY(load_merges(tok, file, json_object_get(model, "merges")));
    TM__TRY(tm__json_text(model, file, "unk_token", "", &unknown));
    if (!*unknown) return TM_OK;
    bpe->unknown = tm__vocab_id(&tok->vocab, unknown, strlen(unknown));
    if (bpe->unknown < 0)
        return tm__fail(TM_FORMAT, file, "unk_token", NULL, "\"%s\" is not in the vocabulary", unknown);
    return TM_OK;
}

static tm_status load_added(tm_tokenizer *tok, const char *file, const json_t *list) {
    size_t index;
    const json_t *entry;
    if (!list || json_is_null(list)) return TM_OK;
    if (!json_is_array(list)) return tm__fail(TM_FORMAT, file, "added_tokens", NULL, "must be an array");
    json_array_foreach(list, index, entry) {
        static const bool no = false;
        tm__added added = {0};
        bool normalized;
        int64_t id;
        const json_t *content = json_object_get(entry, "content");
        if (!json_is_string(content))
            return tm__fail(TM_FORMAT, file, "added_tokens", NULL, "entry %zu has no content", index);
        tm_status status = tm__json_int(entry, file, "id", 0, TM__VOCAB_MAX - 1, NULL, &id);
        if (status == TM_OK) status = tm__json_bool(entry, file, "special", &no, &added.special);
        bool otherwise = !added.special;
        if (status == TM_OK) status = tm__json_bool(entry, file, "normalized", &otherwise, &normalized);
        if (status == TM_OK) status = tm__json_bool(entry, file, "lstrip", &no, &added.lstrip);
        if (status == TM_OK) status = tm__json_bool(entry, file, "rstrip", &no, &added.rstrip);
        if (status == TM_OK) status = tm__json_bool(entry, file, "single_word", &no, &added.single_word);
        if (status != TM_OK) return status;
        added.normalized = normalized;
        TM__TRY(tm__added_put(tok, file, json_string_value(content), json_string_length(content), (int32_t)id, &added));
    }
    return TM_OK;
}

static tm_status load_root(tm_tokenizer *tok, const char *path, const json_t *root) {
    if (!json_is_object(root)) return tm__fail(TM_FORMAT, path, NULL, NULL, "must hold an object");
    TM__TRY(load_model(tok, path, json_object_get(root, "model")));
    TM__TRY(load_added(tok, path, json_object_get(root, "added_tokens")));
    TM__TRY(tm__vocab_check(&tok->vocab, path));
    TM__TRY(tm__load_steps(tok, path, root));
    tok->kind = tok->bpe.byte_level ? "byte-level BPE" : "BPE";
    return TM_OK;
}

tm_status tm__load_json(tm_tokenizer *tok, const char *path, const char *data, size_t len) {
    json_t *root = NULL;
    TM__TRY(tm__json_parse(data, len, path, &root));
    tm_status status = load_root(tok, path, root);
    json_decref(root);
    return status;
}

/* ---- vocab.json and merges.txt ----------------------------------------------------------------------------------- */

static size_t count_lines(const char *text, size_t len) {
    size_t lines = 1;
    for (size_t i = 0; i < len; i++) lines += text[i] == '\n';
    return lines;
}

/* A first line "#version" is a remark; empty lines are skipped. */
static tm_status load_merges_txt(tm_tokenizer *tok, const char *path) {
    char *text;
    size_t len, index = 0;
    TM__TRY(tm__file_read(path, (size_t)1 << 30, &text, &len));
    tm_status status = tm__bpe_reserve(&tok->bpe, count_lines(text, len)) ? TM_OK : tm__fail_memory();
    for (size_t start = 0, end; start < len && status == TM_OK; start = end + 1) {
        const char *newline = memchr(text + start, '\n', len - start);
        end = newline ? (size_t)(newline - text) : len;
        size_t line = end - start;
        if (line && text[start + line - 1] == '\r') line--;
        if (line == 0 || (start == 0 && line >= 8 && memcmp(text, "#version", 8) == 0)) continue;
        status = load_merge_line(tok, path, text + start, line, index++);
    }
    free(text);
    return status;
}

tm_status tm__load_vocab_merges(tm_tokenizer *tok, const char *vocab, const char *merges, bool qwen2) {
    static const char end_of_text[] = "<|endoftext|>";
    json_t *root = NULL;
    TM__TRY(tm__json_load(vocab, &root));
    tm_status status = load_vocab(tok, vocab, root, "vocab");
    json_decref(root);
    if (status != TM_OK) return status;
    TM__TRY(tm__vocab_check(&tok->vocab, vocab));
    TM__TRY(load_merges_txt(tok, merges));
    int32_t id = tm__vocab_id(&tok->vocab, end_of_text, strlen(end_of_text));
    if (id >= 0)
        TM__TRY(tm__added_put(tok, vocab, end_of_text, strlen(end_of_text), id, &(tm__added){.special = true}));
    tok->bos = qwen2 ? -1 : id;
    tok->eos = id;
    tok->kind = "byte-level BPE";
    if (qwen2) {
        tm__step *step = tm__steps_add(&tok->normalizers, TM__NORM_UNICODE);
        if (!step) return tm__fail_memory();
        step->options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    }
    return tm__load_byte_level(tok, vocab, qwen2 ? tm__pattern_qwen2 : tm__pattern_gpt2);
}
