/* tokenizer.c: loading whatever format a path holds, and the small questions a tokenizer answers. */
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>

static const size_t largest_file = (size_t)1 << 30;

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* JSON opens with a brace, a SentencePiece model with field 1 of its message, llama2.c's export goes by its name. */
static tm_status load_content(tm_tokenizer *tok, const char *path, const char *data, size_t len) {
    size_t at = 0;
    if (len == 0) return tm__fail(TM_FORMAT, path, NULL, NULL, "is empty");
    if (ends_with(path, ".bin")) return tm__load_llama2c(tok, path, data, len);
    while (at < len && data[at] && strchr(" \t\r\n", data[at])) at++;
    if ((at < len && data[at] == '{') || ends_with(path, ".json")) return tm__load_json(tok, path, data, len);
    if (data[0] == '\n') return tm__load_spm(tok, path, data, len);
    return tm__load_tiktoken(tok, path, data, len);
}

static tm_status load_file(tm_tokenizer *tok, const tm__token_config *config, const char *directory, const char *path) {
    if (ends_with(path, "vocab.json")) {
        char *merges = tm__path_join(directory, "merges.txt");
        tm_status status =
            merges ? tm__load_vocab_merges(tok, path, merges, tm__token_config_is_qwen2(config)) : tm__fail_memory();
        free(merges);
        return status;
    }
    char *data;
    size_t len;
    TM__TRY(tm__file_read(path, largest_file, &data, &len));
    tm_status status = load_content(tok, path, data, len);
    free(data);
    return status;
}

/* The tables that encoding needs, once all pieces and flags are known. */
static tm_status prepare(tm_tokenizer *tok) {
    bool bytes = tok->decoders.len && tok->decoders.data[0].kind == TM__DECODE_BYTE_LEVEL;
    if (tok->bpe.byte_level || bytes) TM__TRY(tm__vocab_decode_bytes(&tok->vocab));
    if (tok->model == TM__MODEL_BPE)
        TM__TRY(tm__bpe_prepare(tok));
    else if (tok->model == TM__MODEL_UNIGRAM ? !tm__unigram_prepare(tok) : !tm__words_prepare(tok))
        return tm__fail_memory();
    return tm__added_build(tok);
}

static tm_status load_in(tm_tokenizer *tok, const char *directory, const char *path) {
    tm__token_config config;
    TM__TRY(tm__token_config_read(&config, directory));
    tm_status status = load_file(tok, &config, directory, path);
    if (status == TM_OK) status = tm__token_config_apply(&config, tok);
    if (status == TM_OK) status = prepare(tok);
    if (status == TM_OK) status = tm__chat_template_prepare(tok);
    tm__token_config_free(&config);
    return status;
}

static tm_status load_directory(tm_tokenizer *tok, const char *directory) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *path = tm__path_join(directory, names[i]);
        if (!path) return tm__fail_memory();
        bool there = tm__path_exists(path);
        tm_status status = there ? load_in(tok, directory, path) : TM_OK;
        free(path);
        if (there) return status;
    }
    return tm__fail(TM_NOT_FOUND, directory, NULL, "it needs tokenizer.json, tokenizer.model or vocab.json",
                    "no tokenizer in this directory");
}

static tm_status load_beside(tm_tokenizer *tok, const char *path) {
    const char *slash = strrchr(path, '/');
    char *directory = slash ? tm__strndup(path, slash == path ? 1 : (size_t)(slash - path)) : tm__strdup(".");
    if (!directory) return tm__fail_memory();
    tm_status status = load_in(tok, directory, path);
    free(directory);
    return status;
}

static tm_tokenizer *new_tokenizer(void) {
    tm_tokenizer *tok = tm__zalloc(1, sizeof *tok);
    if (!tok) return NULL;
    tm__bpe_init(&tok->bpe);
    tok->bos = tok->eos = tok->pad = tok->chat.turn_end = tok->words.unknown = tok->unigram.unknown = -1;
    return tok;
}

static tm_status hand_out(tm_tokenizer *tok, tm_status status, tm_tokenizer **tokenizer) {
    if (status == TM_OK)
        *tokenizer = tok;
    else
        tm_tokenizer_free(tok);
    return status;
}

tm_status tm_tokenizer_load(const char *path, tm_tokenizer **tokenizer) {
    tm_tokenizer *tok = new_tokenizer();
    if (!tok) return tm__fail_memory();
    return hand_out(tok, tm__path_is_directory(path) ? load_directory(tok, path) : load_beside(tok, path), tokenizer);
}

tm_status tm__tokenizer_load_memory(const char *name, const char *data, size_t len, tm_tokenizer **tokenizer) {
    static const tm__token_config nothing;
    tm_tokenizer *tok = new_tokenizer();
    if (!tok) return tm__fail_memory();
    tm_status status = load_content(tok, name, data, len);
    if (status == TM_OK) status = tm__token_config_apply(&nothing, tok);
    if (status == TM_OK) status = prepare(tok);
    return hand_out(tok, status, tokenizer);
}

void tm_tokenizer_free(tm_tokenizer *tokenizer) {
    if (!tokenizer) return;
    json_decref(tokenizer->templates);
    tm__chat_choice_free(&tokenizer->chat);
    free(tokenizer->vocab.pieces);
    tm__map_free(&tokenizer->vocab.ids);
    tm__bpe_free(&tokenizer->bpe);
    tm__unigram_free(&tokenizer->unigram);
    tm__trie_free(&tokenizer->words.first);
    tm__trie_free(&tokenizer->words.rest);
    tm__trie_free(&tokenizer->spm.user);
    tm__steps_free(&tokenizer->normalizers);
    tm__steps_free(&tokenizer->splitters);
    tm__steps_free(&tokenizer->decoders);
    free(tokenizer->added);
    tm__trie_free(&tokenizer->added_set.raw);
    tm__trie_free(&tokenizer->added_set.normalized);
    tm_ids_free(&tokenizer->prefix);
    tm_ids_free(&tokenizer->suffix);
    tm__encode_scratch_free(atomic_load(&tokenizer->spare));
    tm__arena_release(&tokenizer->vocab.strings);
    free(tokenizer);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

int32_t tm_tokenizer_vocab_size(const tm_tokenizer *tokenizer) {
    return tokenizer->vocab.size;
}

int32_t tm_tokenizer_id(const tm_tokenizer *tokenizer, const char *piece) {
    return tm__vocab_id(&tokenizer->vocab, piece, strlen(piece));
}

const char *tm_tokenizer_piece(const tm_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocab.size ? tokenizer->vocab.pieces[id].text : NULL;
}

int32_t tm_tokenizer_bos(const tm_tokenizer *tokenizer) {
    return tokenizer->bos;
}
int32_t tm_tokenizer_eos(const tm_tokenizer *tokenizer) {
    return tokenizer->eos;
}
int32_t tm_tokenizer_pad(const tm_tokenizer *tokenizer) {
    return tokenizer->pad;
}
const char *tm_tokenizer_kind(const tm_tokenizer *tokenizer) {
    return tokenizer->kind;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static tm_status copy_file(const char *from, const char *to) {
    char *data;
    size_t len;
    TM__TRY(tm__file_read(from, largest_file, &data, &len));
    tm_status status = tm__file_write(to, data, len);
    free(data);
    return status;
}

tm_status tm_tokenizer_copy_files(const char *from_directory, const char *to_directory) {
    static const char *const names[] = {"tokenizer.json",    "tokenizer.model",       "vocab.json",
                                        "merges.txt",        "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.jinja",   "chat_template.json"};
    int copied = 0;
    TM__TRY(tm__make_directories(to_directory));
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *from = tm__path_join(from_directory, names[i]), *to = tm__path_join(to_directory, names[i]);
        bool there = from && to && tm__path_exists(from);
        tm_status status = !from || !to ? tm__fail_memory() : there ? copy_file(from, to) : TM_OK;
        copied += there;
        free(from);
        free(to);
        if (status != TM_OK) return status;
    }
    if (copied) return TM_OK;
    return tm__fail(TM_NOT_FOUND, from_directory, NULL, NULL, "no tokenizer in this directory");
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

void tm_offsets_free(tm_offsets *offsets) {
    if (!offsets) return;
    free(offsets->data);
    *offsets = (tm_offsets){0};
}

void tm_ids_free(tm_ids *ids) {
    if (!ids) return;
    free(ids->data);
    *ids = (tm_ids){0};
}

tm_status tm_ids_push(tm_ids *ids, int32_t id) {
    if (ids->len == ids->cap && !tm__grow((void **)&ids->data, &ids->cap, ids->len + 1, sizeof *ids->data))
        return tm__fail_memory();
    ids->data[ids->len++] = id;
    return TM_OK;
}
