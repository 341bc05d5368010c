/* config.c: what the files beside a tokenizer say: added tokens, bos, eos and pad, the chat template.
 *
 * The order in which a token is looked up is that of transformers: tokenizer_config.json, special_tokens_map.json, then
 * the ids of generation_config.json and config.json (the first of a list), then what the tokenizer's own file says.
 */
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>

static tm_status read_one(const char *directory, const char *name, json_t **value, char **path) {
    *path = tm__path_join(directory, name);
    if (!*path) return tm__fail_memory();
    if (!tm__path_exists(*path) || tm__path_is_directory(*path)) return TM_OK;
    TM__TRY(tm__json_load(*path, value));
    return json_is_object(*value) ? TM_OK : tm__fail(TM_FORMAT, *path, NULL, NULL, "must hold an object");
}

tm_status tm__token_config_read(tm__token_config *config, const char *directory) {
    *config = (tm__token_config){0};
    tm_status status = read_one(directory, "tokenizer_config.json", &config->tokenizer, &config->tokenizer_path);
    if (status == TM_OK)
        status = read_one(directory, "special_tokens_map.json", &config->special, &config->special_path);
    if (status == TM_OK) status = read_one(directory, "added_tokens.json", &config->added, &config->added_path);
    if (status == TM_OK)
        status = read_one(directory, "generation_config.json", &config->generation, &config->generation_path);
    if (status == TM_OK) status = read_one(directory, "config.json", &config->model, &config->model_path);
    if (status == TM_OK && !(config->template_path = tm__path_join(directory, "chat_template.jinja")))
        status = tm__fail_memory();
    if (status != TM_OK) tm__token_config_free(config);
    return status;
}

void tm__token_config_free(tm__token_config *config) {
    json_decref(config->tokenizer);
    json_decref(config->special);
    json_decref(config->added);
    json_decref(config->generation);
    json_decref(config->model);
    free(config->tokenizer_path);
    free(config->special_path);
    free(config->added_path);
    free(config->generation_path);
    free(config->model_path);
    free(config->template_path);
    *config = (tm__token_config){0};
}

static bool class_begins(const tm__token_config *config, const char *name) {
    const char *class = json_string_value(json_object_get(config->tokenizer, "tokenizer_class"));
    return class && strncmp(class, name, strlen(name)) == 0;
}

bool tm__token_config_is_qwen2(const tm__token_config *config) {
    return class_begins(config, "Qwen2");
}

/* ---- added tokens ------------------------------------------------------------------------------------------------ */

static bool is_added(const tm_tokenizer *tok, int32_t id) {
    return id >= 0 && id < tok->vocab.size && tok->vocab.pieces[id].flags & TM__PIECE_ADDED;
}

/* "added_tokens_decoder": {"32000": {"content": ..., "special": ...}} */
static tm_status add_described(tm_tokenizer *tok, const char *file, const char *key, const json_t *entry) {
    static const bool no = false;
    const char *content;
    char *end;
    tm__added added = {0};
    bool normalized;
    long id = strtol(key, &end, 10);
    if (*key < '0' || *key > '9' || *end || id >= TM__VOCAB_MAX)
        return tm__fail(TM_FORMAT, file, "added_tokens_decoder", NULL, "\"%.40s\" is no id", key);
    TM__TRY(tm__json_text(entry, file, "content", NULL, &content));
    TM__TRY(tm__json_bool(entry, file, "special", &no, &added.special));
    TM__TRY(tm__json_bool(entry, file, "normalized", &no, &normalized));
    TM__TRY(tm__json_bool(entry, file, "lstrip", &no, &added.lstrip));
    TM__TRY(tm__json_bool(entry, file, "rstrip", &no, &added.rstrip));
    TM__TRY(tm__json_bool(entry, file, "single_word", &no, &added.single_word));
    if (is_added(tok, (int32_t)id) && tm__vocab_id(&tok->vocab, content, strlen(content)) == (int32_t)id) return TM_OK;
    added.normalized = normalized && !tok->sentencepiece;
    return tm__added_put(tok, file, content, strlen(content), (int32_t)id, &added);
}

static tm_status add_decoder_tokens(const tm__token_config *config, tm_tokenizer *tok) {
    const json_t *tokens = json_object_get(config->tokenizer, "added_tokens_decoder");
    const char *key;
    json_t *entry;
    if (!tokens || json_is_null(tokens)) return TM_OK;
    if (!json_is_object(tokens))
        return tm__fail(TM_FORMAT, config->tokenizer_path, "added_tokens_decoder", NULL, "must be an object");
    json_object_foreach((json_t *)tokens, key, entry) TM__TRY(add_described(tok, config->tokenizer_path, key, entry));
    return TM_OK;
}

/* added_tokens.json gives ids only. What is written like a tag counts as special: text must not be able to forge it. */
static tm_status add_listed_tokens(const tm__token_config *config, tm_tokenizer *tok) {
    const char *content;
    json_t *value;
    if (!config->added) return TM_OK;
    json_object_foreach(config->added, content, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        size_t len = strlen(content);
        if (id < 0 || id >= TM__VOCAB_MAX)
            return tm__fail(TM_FORMAT, config->added_path, content, NULL, "must be an id");
        if (is_added(tok, (int32_t)id)) continue;
        tm__added added = {.special = len > 1 && content[0] == '<' && content[len - 1] == '>'};
        TM__TRY(tm__added_put(tok, config->added_path, content, len, (int32_t)id, &added));
    }
    return TM_OK;
}

/* ---- bos, eos, pad -------------------------------------------------------------------------------------------------
 */

/* A token is written as its text or as {"content": text}. `*text` NULL: not said. */
static tm_status token_text(const json_t *object, const char *file, const char *key, const char **text) {
    const json_t *value = json_object_get(object, key);
    bool wrapped = json_is_object(value);
    if (wrapped) value = json_object_get(value, "content");
    *text = json_string_value(value);
    if (*text || (!wrapped && (!value || json_is_null(value)))) return TM_OK;
    return tm__fail(TM_FORMAT, file, key, NULL, "must be a token's text or an object with its content");
}

static tm_status take_text(tm_tokenizer *tok, const char *file, const char *key, const char *text, int32_t *id) {
    int32_t found = tm__vocab_id(&tok->vocab, text, strlen(text));
    if (found < 0 && id == &tok->pad) return TM_OK; /* transformers would add it; nothing here needs a pad token */
    if (found < 0) return tm__fail(TM_FORMAT, file, key, NULL, "\"%.40s\" is not in the vocabulary", text);
    *id = found;
    for (size_t i = 0; i < tok->added_len; i++) {
        if (tok->added[i].id != found) continue;
        tok->added[i].special = true;
        tok->vocab.pieces[found].flags |= TM__PIECE_SPECIAL;
        return TM_OK;
    }
    return tm__added_put(tok, file, text, strlen(text), found, &(tm__added){.special = true});
}

/* A number, or the first of a list. */
static bool take_id(const tm_tokenizer *tok, const json_t *object, const char *key, int32_t *id) {
    const json_t *value = json_object_get(object, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (!json_is_integer(value)) return false;
    json_int_t number = json_integer_value(value);
    if (number < 0 || number >= tok->vocab.size) return false;
    *id = (int32_t)number;
    return true;
}

/* A null for bos or eos in tokenizer_config.json means that there is none. */
static tm_status find_token(const tm__token_config *config, tm_tokenizer *tok, const char *name, int32_t *id) {
    char text_key[32], id_key[32];
    snprintf(text_key, sizeof text_key, "%s_token", name);
    snprintf(id_key, sizeof id_key, "%s_token_id", name);
    const char *text;
    TM__TRY(token_text(config->tokenizer, config->tokenizer_path, text_key, &text));
    if (text) return take_text(tok, config->tokenizer_path, text_key, text, id);
    TM__TRY(token_text(config->special, config->special_path, text_key, &text));
    if (text) return take_text(tok, config->special_path, text_key, text, id);
    if (id != &tok->pad && json_is_null(json_object_get(config->tokenizer, text_key))) {
        *id = -1;
        return TM_OK;
    }
    if (!take_id(tok, config->generation, id_key, id)) take_id(tok, config->model, id_key, id);
    return TM_OK;
}

/* A tokenizer.json by itself names no eos: the usual names, where they are special. */
static void guess_missing(tm_tokenizer *tok) {
    static const char *const names[] = {"</s>", "<|endoftext|>", "<|end_of_text|>"};
    if (tok->bos < 0 && tok->prefix.len) tok->bos = tok->prefix.data[0];
    for (size_t i = 0; i < TM__COUNT(names) && tok->eos < 0; i++) {
        int32_t id = tm__vocab_id(&tok->vocab, names[i], strlen(names[i]));
        if (id >= 0 && tok->vocab.pieces[id].flags & TM__PIECE_SPECIAL) tok->eos = id;
    }
}

/* ---- around a text ----------------------------------------------------------------------------------------------- */

static tm_status around(const tm__token_config *config, tm_tokenizer *tok, const char *key, bool fallback, int32_t id,
                        tm_ids *ids) {
    const json_t *said = json_object_get(config->tokenizer, key);
    bool llama = class_begins(config, "Llama") || class_begins(config, "CodeLlama") || class_begins(config, "Gemma");
    if (!tok->sentencepiece && !(llama && json_is_boolean(said))) return TM_OK; /* the template counts */
    ids->len = 0;
    bool wanted = json_is_boolean(said) ? json_is_true(said) : fallback;
    return wanted && id >= 0 ? tm_ids_push(ids, id) : TM_OK;
}

/* ---- chat templates ---------------------------------------------------------------------------------------------- */

static tm_status said_template(const tm__token_config *config, tm_tokenizer *tok, const char *name,
                               const json_t *text) {
    char from[512];
    bool plain = json_is_string(json_object_get(config->tokenizer, "chat_template"));
    snprintf(from, sizeof from, plain ? "%s, chat_template" : "%s, chat_template \"%s\"", config->tokenizer_path, name);
    return tm__chat_template_add(tok, name, json_string_value(text), json_string_length(text), from);
}

/* A text, or a list of named ones. */
static tm_status said_templates(const tm__token_config *config, tm_tokenizer *tok) {
    const json_t *said = json_object_get(config->tokenizer, "chat_template"), *entry;
    size_t index;
    if (!said || json_is_null(said)) return TM_OK;
    if (json_is_string(said)) return said_template(config, tok, "default", said);
    if (!json_is_array(said))
        return tm__fail(TM_FORMAT, config->tokenizer_path, "chat_template", NULL, "must be a text or a list of them");
    json_array_foreach(said, index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *text = json_object_get(entry, "template");
        if (name && json_is_string(text)) TM__TRY(said_template(config, tok, name, text));
    }
    return TM_OK;
}

/* The file counts where both are there, as in transformers. */
static tm_status template_file(const tm__token_config *config, tm_tokenizer *tok) {
    char *text;
    size_t len;
    if (!config->template_path || !tm__path_exists(config->template_path)) return TM_OK;
    TM__TRY(tm__file_read(config->template_path, (size_t)16 << 20, &text, &len));
    tm_status status = tm__chat_template_add(tok, "default", text, len, config->template_path);
    free(text);
    return status;
}

/* What a template sees as bos_token and its like: texts of the files, and of the ids where the files say nothing. */
static tm_status take_variables(const tm__token_config *config, tm_tokenizer *tok) {
    static const char *const names[] = {"bos_token", "eos_token", "pad_token",  "unk_token",
                                        "sep_token", "cls_token", "mask_token", "additional_special_tokens"};
    const int32_t ids[] = {tok->bos, tok->eos, tok->pad};
    tm__json_watch();
    tok->chat.variables = json_object();
    if (!tok->chat.variables) return tm__fail_memory();
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        json_t *value = json_object_get(config->tokenizer, names[i]);
        bool said = value != NULL;
        if (!value) value = json_object_get(config->special, names[i]);
        if (json_is_object(value)) value = json_object_get(value, "content");
        bool fits = json_is_string(value) || (json_is_array(value) && i == TM__COUNT(names) - 1);
        const char *piece = i < TM__COUNT(ids) && !said ? tm_tokenizer_piece(tok, ids[i]) : NULL;
        json_t *new = fits ? json_incref(value) : piece ? json_string(piece) : NULL;
        if (fits || (piece && tm__utf8_valid(piece, strlen(piece))))
            if (json_object_set_new(tok->chat.variables, names[i], new)) return tm__fail_memory();
    }
    return TM_OK;
}

tm_status tm__token_config_apply(const tm__token_config *config, tm_tokenizer *tok) {
    TM__TRY(add_decoder_tokens(config, tok));
    TM__TRY(add_listed_tokens(config, tok));
    TM__TRY(find_token(config, tok, "bos", &tok->bos));
    TM__TRY(find_token(config, tok, "eos", &tok->eos));
    TM__TRY(find_token(config, tok, "pad", &tok->pad));
    TM__TRY(around(config, tok, "add_bos_token", tok->model == TM__MODEL_BPE, tok->bos, &tok->prefix));
    TM__TRY(around(config, tok, "add_eos_token", false, tok->eos, &tok->suffix));
    guess_missing(tok);
    TM__TRY(take_variables(config, tok));
    TM__TRY(said_templates(config, tok));
    return template_file(config, tok);
}
