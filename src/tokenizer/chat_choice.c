/* chat_choice.c: which chat template counts: those that come with a tokenizer, and another one that is named.
 *
 * A template that says what the ChatML format writes anyway is not executed: pieces that are encoded apart cannot be
 * forged, and their borders are exact. One that does not parse is told when a conversation needs it, so that it harms
 * nobody who names another format. Pinned by tests/unit/test_chat_template.c.
 */
#include "template/template.h"
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- what comes with the tokenizer ------------------------------------------------------------------------------- */

tm_status tm__chat_template_add(tm_tokenizer *tok, const char *name, const char *source, size_t len, const char *from) {
    if (!tm__utf8_valid(source, len) || memchr(source, 0, len))
        return tm__fail(TM_FORMAT, from, NULL, NULL, "is not a text in UTF-8");
    tm__json_watch();
    if (!tok->templates) tok->templates = json_object();
    if (!tm__utf8_valid(from, strlen(from))) from = name;
    json_t *entry = json_pack("{s:s%, s:s}", "source", source, len, "from", from);
    return json_object_set_new(tok->templates, name, entry) ? tm__fail_memory() : TM_OK;
}

static const char *said(const tm_tokenizer *tok, const char *name, const char *key) {
    return json_string_value(json_object_get(json_object_get(tok->templates, name), key));
}

const char *tm__chat_template_default(const tm_tokenizer *tok) {
    return said(tok, "default", "source");
}

static tm_status parse_own(const tm_tokenizer *tok, const char *name, tm_template **template) {
    const char *source = said(tok, name, "source");
    return tm_template_parse(said(tok, name, "from"), source, strlen(source), template);
}

tm_status tm__chat_template_need(const tm_tokenizer *tok) {
    tm_template *again = NULL;
    if (tok->chat.template) return TM_OK;
    if (!tm__chat_template_default(tok))
        return tm__fail(TM_NOT_FOUND, NULL, "template", "name a format or a file with --template",
                        "the tokenizer has no chat template");
    tm_status status = parse_own(tok, "default", &again);
    tm_template_free(again);
    return status;
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

/* Frees what another choice does not hold as well. */
static void release(const tm__chat_choice *choice, const tm__chat_choice *kept) {
    if (choice->template != kept->template) tm_template_free(choice->template);
    if (choice->source != kept->source) free(choice->source);
    if (choice->variables != kept->variables) json_decref(choice->variables);
}

void tm__chat_choice_free(tm__chat_choice *choice) {
    release(choice, &(tm__chat_choice){0});
    *choice = (tm__chat_choice){.turn_end = -1};
}

/* What ends a turn: the added token that is trained on last in an answer. A template that refuses the probe has no
 * end of its own. */
static tm_status find_turn_end(const tm_tokenizer *tok, int32_t *turn_end) {
    static const tm_message talk[] = {{"user", "a"}, {"assistant", "b"}};
    tm_ids ids = {0}, labels = {0};
    tm_status status = tm__chat_template_encode(tok, talk, TM__COUNT(talk), false, &ids, &labels, NULL);
    *turn_end = -1;
    size_t last = labels.len;
    while (status == TM_OK && last > 0 && labels.data[last - 1] < 0) last--;
    if (status == TM_OK && last > 0) {
        unsigned flags = tok->vocab.pieces[labels.data[last - 1]].flags;
        if (flags & (TM__PIECE_ADDED | TM__PIECE_SPECIAL)) *turn_end = labels.data[last - 1];
    }
    tm_ids_free(&ids);
    tm_ids_free(&labels);
    return status == TM_NO_MEMORY ? status : TM_OK;
}

tm_status tm__chat_template_prepare(tm_tokenizer *tok) {
    if (!tm__chat_template_default(tok)) return TM_OK;
    tm_status status = parse_own(tok, "default", &tok->chat.template);
    if (status != TM_OK) return status == TM_NO_MEMORY ? status : TM_OK;
    return find_turn_end(tok, &tok->chat.turn_end);
}

static bool format_named(const char *name, tm_chat_format *format) {
    for (int f = TM_CHAT_CHATML; f <= TM_CHAT_QUESTION; f++) {
        if (strcmp(tm_chat_format_name((tm_chat_format)f), name) != 0) continue;
        *format = (tm_chat_format)f;
        return true;
    }
    return false;
}

static tm_status read_source(const tm_tokenizer *tok, const char *name, char **source, size_t *len) {
    const char *own = said(tok, name, "source");
    if (own) {
        *source = tm__strdup(own);
        *len = strlen(own);
        return *source ? TM_OK : tm__fail_memory();
    }
    if (tm__path_exists(name)) return tm__file_read(name, (size_t)16 << 20, source, len);
    return tm__fail(TM_NOT_FOUND, NULL, "template",
                    "chatml, llama2, alpaca, plain, question, or a file with a Jinja template",
                    "there is no chat format, no template of the tokenizer and no file '%.200s'", name);
}

static tm_status choose(const tm_tokenizer *tok, const char *name, tm__chat_choice *next) {
    size_t len;
    next->source = NULL;
    if (format_named(name, &next->format)) return TM_OK;
    TM__TRY(read_source(tok, name, &next->source, &len));
    next->template = NULL;
    next->format = TM_CHAT_TEMPLATE;
    const char *from = said(tok, name, "from");
    return tm_template_parse(from ? from : name, next->source, len, &next->template);
}

static tm_status add_variables(const char *text, tm__chat_choice *next) {
    json_t *more = NULL;
    TM__TRY(tm__json_parse(text, strlen(text), "template variables", &more));
    tm_status status = TM_OK;
    if (!json_is_object(more)) status = tm__fail(TM_FORMAT, "template variables", NULL, NULL, "must be a JSON object");
    next->variables = status == TM_OK ? next->variables ? json_copy(next->variables) : json_object() : next->variables;
    if (status == TM_OK && (!next->variables || json_object_update(next->variables, more))) status = tm__fail_memory();
    json_decref(more);
    return status;
}

tm_status tm_tokenizer_use_template(tm_tokenizer *tokenizer, const char *name, const char *variables) {
    tm__chat_choice before = tokenizer->chat, next = before;
    tm_status status = name ? choose(tokenizer, name, &next) : TM_OK;
    if (status == TM_OK && variables) status = add_variables(variables, &next);
    if (status == TM_OK && next.template) {
        tokenizer->chat = next;
        status = find_turn_end(tokenizer, &next.turn_end);
    }
    tokenizer->chat = status == TM_OK ? next : before;
    release(status == TM_OK ? &before : &next, &tokenizer->chat);
    return status;
}

const char *tm_tokenizer_template(const tm_tokenizer *tokenizer) {
    return tokenizer->chat.template ? tm__template_name(tokenizer->chat.template) : said(tokenizer, "default", "from");
}

const char *tm__chat_template_source(const tm_tokenizer *tok) {
    return tok->chat.source ? tok->chat.source : said(tok, "default", "source");
}

tm_status tm__chat_template_write(const tm_tokenizer *tok, const char *directory) {
    if (!tok->chat.source) return TM_OK;
    char *path = tm__path_join(directory, "chat_template.jinja");
    tm_status status = path ? tm__file_write(path, tok->chat.source, strlen(tok->chat.source)) : tm__fail_memory();
    free(path);
    return status;
}
