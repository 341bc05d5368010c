/* load_json.c: tokenizer.json (Hugging Face `tokenizers`) and vocab.json with merges.txt.
 *
 * The sections "truncation" and "padding" are not read: nothing here cuts or fills what it was not asked to.
 */
#include "tokenizer/load.h"

#include <stdlib.h>
#include <utf8proc.h>

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

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
    TM__TRY(tm__load_model(tok, path, json_object_get(root, "model")));
    TM__TRY(load_added(tok, path, json_object_get(root, "added_tokens")));
    TM__TRY(tm__vocab_check(&tok->vocab, path));
    TM__TRY(tm__load_steps(tok, path, root));
    if (tok->model == TM__MODEL_BPE) tok->kind = tok->bpe.byte_level ? "byte-level BPE" : "BPE";
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
        status = tm__load_merge_line(tok, path, text + start, line, index++);
    }
    free(text);
    return status;
}

tm_status tm__load_vocab_merges(tm_tokenizer *tok, const char *vocab, const char *merges, bool qwen2) {
    static const char end_of_text[] = "<|endoftext|>";
    json_t *root = NULL;
    TM__TRY(tm__json_load(vocab, &root));
    tm_status status = tm__load_vocab(tok, vocab, root, "vocab");
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
