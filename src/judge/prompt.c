/* prompt.c: prompts of local judges: files with places to fill, and how the result becomes tokens.
 *
 * transformers parses the whole of such a text for special tokens, so an answer that spells them out could end the
 * judge's turn and begin one of its own. Here such spellings in an answer, a prompt or a context get a blank behind
 * their first character; texts without them give the same tokens as in transformers.
 * Test: tests/golden/test_judge_written.c.
 */
#include "judge/prompt.h"

#include "tokenizer/tokenizer.h"

#include <stdlib.h>

/* ---- places ------------------------------------------------------------------------------------------------------ */

enum place { PLACE_NONE, PLACE_PROMPT, PLACE_ANSWER, PLACE_CONTEXT };

static const struct {
    const char *name;
    enum place place;
} places[] = {
    {"{prompt}", PLACE_PROMPT},      {"{behavior}", PLACE_PROMPT},         {"{question}", PLACE_PROMPT},
    {"{instruction}", PLACE_PROMPT}, {"{forbidden_prompt}", PLACE_PROMPT}, {"{answer}", PLACE_ANSWER},
    {"{generation}", PLACE_ANSWER},  {"{response}", PLACE_ANSWER},         {"{context}", PLACE_CONTEXT},
};

static enum place place_at(const char *text, size_t *len) {
    for (size_t i = 0; i < TM__COUNT(places); i++) {
        *len = strlen(places[i].name);
        if (strncmp(text, places[i].name, *len) == 0) return places[i].place;
    }
    return PLACE_NONE;
}

static bool has_place(const char *text, enum place place) {
    size_t len;
    for (const char *at = strchr(text, '{'); at; at = strchr(at + 1, '{'))
        if (place_at(at, &len) == place) return true;
    return false;
}

tm_status tm__prompt_text(const char *path, char **text) {
    size_t len;
    TM__TRY(tm__file_read(path, (size_t)1 << 20, text, &len));
    if (strlen(*text) == len && tm__utf8_valid(*text, len)) return TM_OK;
    free(*text);
    *text = NULL;
    return tm__fail(TM_FORMAT, path, NULL, "save it as UTF-8", "is not a text");
}

void tm__prompt_end_line(char *text) {
    size_t len = strlen(text);
    if (len == 0 || text[len - 1] != '\n') return;
    text[--len] = 0;
    if (len && text[len - 1] == '\r') text[len - 1] = 0;
}

tm_status tm__prompt_load(const char *path, const char *text, tm__judge_prompt *prompt) {
    tm__judge_prompt made = {0};
    if (path) {
        TM__TRY(tm__prompt_text(path, &made.text));
        tm__prompt_end_line(made.text);
    } else if (!(made.text = tm__strdup(text))) {
        return tm__fail_memory();
    }
    if (!has_place(made.text, PLACE_ANSWER)) {
        free(made.text);
        return tm__fail(TM_FORMAT, path, NULL, "write {answer} where it goes, {prompt} for what was asked",
                        "has no place for the answer");
    }
    made.context = has_place(made.text, PLACE_CONTEXT);
    *prompt = made;
    return TM_OK;
}

void tm__prompt_free(tm__judge_prompt *prompt) {
    free(prompt->text);
    *prompt = (tm__judge_prompt){0};
}

tm_status tm__prompt_fill(const tm__judge_prompt *prompt, const tm__exchange *exchange, tm__string *out) {
    const char *const fill[] = {NULL, exchange->prompt, exchange->answer, exchange->context ? exchange->context : ""};
    bool ok = tm__string_append(out, "", 0);
    for (const char *at = prompt->text; ok && *at;) {
        size_t len = strcspn(at, "{"), name = 0;
        ok = tm__string_append(out, at, len);
        at += len;
        if (!ok || !*at) break;
        enum place place = place_at(at, &name);
        if (place == PLACE_NONE) name = 1;
        const char *text = place == PLACE_NONE ? at : fill[place];
        ok = tm__string_append(out, text, place == PLACE_NONE ? 1 : strlen(text));
        at += name;
    }
    return ok ? TM_OK : tm__fail_memory();
}

/* ---- texts of others --------------------------------------------------------------------------------------------- */

/* Where a token's own characters begin: blanks before it may be counted in. */
static size_t first_character(const char *text, tm_offset offset) {
    size_t at = offset.start;
    while (at < offset.end && strchr(" \t\r\n", text[at])) at++;
    return at;
}

/* A copy of the text in which every special token that it spells has a blank behind its first character. */
static tm_status break_up(const tm_tokenizer *tok, const char *text, char **out, bool *found) {
    tm_ids ids = {0};
    tm_offsets offsets = {0};
    tm__string made = {0};
    size_t done = 0;
    *found = false;
    tm_status status = tm_tokenizer_encode_offsets(tok, text, strlen(text), TM_ENCODE_PARSE_SPECIAL, &ids, &offsets);
    for (size_t i = 0; status == TM_OK && i < ids.len; i++) {
        size_t at = first_character(text, offsets.data[i]);
        const tm__piece *piece = &tok->vocab.pieces[ids.data[i]];
        bool spelled = offsets.data[i].end - at >= piece->len && memcmp(text + at, piece->text, piece->len) == 0;
        if (!(piece->flags & TM__PIECE_SPECIAL) || !spelled) continue; /* what is unknown spells no <unk> */
        for (at++; ((unsigned char)text[at] & 0xc0) == 0x80;) at++;
        if (!tm__string_append(&made, text + done, at - done) || !tm__string_append(&made, " ", 1))
            status = tm__fail_memory();
        done = at;
        *found = true;
    }
    if (status == TM_OK && !tm__string_append(&made, text + done, strlen(text + done))) status = tm__fail_memory();
    tm_ids_free(&ids);
    tm_offsets_free(&offsets);
    if (status != TM_OK) {
        tm__string_free(&made);
        return status;
    }
    *out = made.data;
    return TM_OK;
}

/* A blank may make another token of what it parts; a few rounds settle that. */
static tm_status disarm(const tm_tokenizer *tok, const char *text, char **out) {
    enum { ROUNDS = 8 };
    bool found;
    char *now, *next;
    TM__TRY(break_up(tok, text, &now, &found));
    for (int i = 0; found && i < ROUNDS; i++) {
        tm_status status = break_up(tok, now, &next, &found);
        free(now);
        TM__TRY(status);
        now = next;
    }
    *out = now;
    return TM_OK;
}

static tm_status cut(const tm_tokenizer *tok, const char *text, int64_t tokens, char **out) {
    tm_ids ids = {0};
    tm_offsets offsets = {0};
    size_t len = strlen(text);
    tm_status status = TM_OK;
    if (tokens > 0) status = tm_tokenizer_encode_offsets(tok, text, len, 0, &ids, &offsets);
    if (status == TM_OK && tokens > 0 && ids.len > (size_t)tokens) len = offsets.data[tokens - 1].end;
    if (status == TM_OK && !(*out = tm__strndup(text, len))) status = tm__fail_memory();
    tm_ids_free(&ids);
    tm_offsets_free(&offsets);
    return status;
}

char *tm__exchange_asked(const tm__exchange *exchange, bool with_context) {
    if (!with_context || !exchange->context) return tm__strdup(exchange->prompt);
    return tm__format("%s\n\n---\n\n%s", exchange->context, exchange->prompt);
}

tm_status tm__ready_make(const tm__judge_prompt *prompt, const tm_tokenizer *tokenizer, const tm__exchange *exchange,
                         int64_t answer_tokens, tm__ready *ready) {
    bool apart = prompt && prompt->context;
    char *whole = NULL, *asked = tm__exchange_asked(exchange, !apart);
    tm__ready made = {0};
    tm_status status = asked ? cut(tokenizer, exchange->answer, answer_tokens, &whole) : tm__fail_memory();
    if (status == TM_OK) status = disarm(tokenizer, whole, &made.answer);
    if (status == TM_OK) status = disarm(tokenizer, asked, &made.prompt);
    if (status == TM_OK && apart && exchange->context) status = disarm(tokenizer, exchange->context, &made.context);
    free(whole);
    free(asked);
    if (status == TM_OK)
        *ready = made;
    else
        tm__ready_free(&made);
    return status;
}

void tm__ready_free(tm__ready *ready) {
    free(ready->prompt);
    free(ready->context);
    free(ready->answer);
    *ready = (tm__ready){0};
}

tm__exchange tm__ready_exchange(const tm__ready *ready) {
    return (tm__exchange){.prompt = ready->prompt, .context = ready->context, .answer = ready->answer};
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

/* A text that spells out what the tokenizer would put first does not get it twice. */
static tm_status encode_behind_prefix(const tm_tokenizer *tok, const char *text, size_t len, tm_ids *ids) {
    const char *piece = tok->prefix.len ? tm_tokenizer_piece(tok, tok->prefix.data[0]) : NULL;
    bool spelled = piece && *piece && strncmp(text, piece, strlen(piece)) == 0;
    for (size_t i = 0; !spelled && i < tok->prefix.len; i++) TM__TRY(tm_ids_push(ids, tok->prefix.data[i]));
    return tm_tokenizer_encode(tok, text, len, TM_ENCODE_PARSE_SPECIAL, ids);
}

tm_status tm__prompt_encode(const tm__judge_prompt *prompt, const tm_tokenizer *tokenizer, const tm__exchange *ready,
                            tm_ids *ids) {
    tm__string text = {0};
    tm_status status = tm__prompt_fill(prompt, ready, &text);
    if (status == TM_OK) status = encode_behind_prefix(tokenizer, text.data, text.len, ids);
    tm__string_free(&text);
    return status;
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

void tm__identity_text(tm__sha256 *hash, const char *text) {
    tm__sha256_update(hash, text ? "1" : "0", 1);
    if (text) tm__sha256_update(hash, text, strlen(text) + 1);
}

tm_status tm__identity_files(const char *directory, tm__sha256 *hash) {
    static const char *const names[] = {"config.json",           "tokenizer.json",          "tokenizer.model",
                                        "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *path = tm__path_join(directory, names[i]), *data = NULL;
        size_t len = 0;
        tm_status status = path ? TM_OK : tm__fail_memory();
        if (status == TM_OK && tm__path_exists(path)) status = tm__file_read(path, 0, &data, &len);
        if (status == TM_OK && data) {
            tm__identity_text(hash, names[i]);
            tm__sha256_update(hash, &len, sizeof len);
            tm__sha256_update(hash, data, len);
        }
        free(data);
        free(path);
        TM__TRY(status);
    }
    return TM_OK;
}
