/* chat_template.c: conversations to ids and labels by executing the tokenizer's chat template.
 *
 * The template's text is encoded as one string, special tokens recognised and none added, as transformers'
 * apply_chat_template does it. What is trained on are stretches of that text:
 *
 *     with {% generation %}   what the tag encloses, as in transformers' assistant mask
 *     without                 for every assistant message: from the end of the generation prompt (the rendering of the
 *                             messages before it with add_generation_prompt, where the text begins with that; else from
 *                             its content) to the end of its content, and the added token that follows, blanks before
 *                             it included: the end of the turn
 *
 * Where a content lies is found by rendering once more with another text in its place: what differs is it. That holds
 * for templates that trim contents or drop parts of them (reasoning of earlier turns), and where the rendering of a
 * beginning is no beginning of the rendering. Assistant turns that overlap so are refused.
 *
 * A token is trained on if all its bytes lie in such a stretch; one that a border cuts in two is left out and counted.
 * Pinned by tests/unit/test_chat_template.c and tests/parity/test_templates_shared.c.
 */
#include "template/template.h"
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>

enum { NOT_TRAINED = -100 };

/* ---- rendering --------------------------------------------------------------------------------------------------- */

static tm_status render(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, char **text,
                        size_t *len, tm__stretches *stretches) {
    char *variables = NULL;
    size_t variables_len = 0;
    TM__TRY(tm__chat_template_need(tok));
    if (tok->chat.variables) TM__TRY(tm__json_dump(tok->chat.variables, 0, &variables, &variables_len));
    const tm__render_options options = {.variables = variables, .variables_len = variables_len, .now = -1};
    tm_status status = tm__template_render(tok->chat.template, messages, n, ask, &options, text, len, stretches);
    free(variables);
    return status;
}

tm_status tm__chat_template_render(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, char **text,
                                   size_t *len) {
    return render(tok, messages, n, ask, text, len, NULL);
}

/* ---- where answers lie ------------------------------------------------------------------------------------------- */

static bool add_stretch(tm__stretches *list, size_t start, size_t end) {
    if (!tm__grow((void **)&list->data, &list->cap, list->len + 1, sizeof *list->data)) return false;
    list->data[list->len++] = (tm__stretch){start, end};
    return true;
}

/* A character for private use that the text does not hold. */
static bool stand_in(const char *text, size_t len, char out[5]) {
    for (uint32_t code = 0xe000; code < 0xe100; code++) {
        int n = tm__utf8_encode(code, out);
        out[n] = 0;
        if (!memmem(text, len, out, (size_t)n)) return true;
    }
    return false;
}

static bool inside_character(const char *text, size_t len, size_t at) {
    return at < len && ((unsigned char)text[at] & 0xc0) == 0x80;
}

/* What differs between two texts, in whole characters of the first. */
static tm__stretch difference(const char *text, size_t len, const char *other, size_t other_len) {
    size_t start = 0, tail = 0, least = TM__MIN(len, other_len);
    while (start < least && text[start] == other[start]) start++;
    while (tail < least - start && text[len - 1 - tail] == other[other_len - 1 - tail]) tail++;
    size_t end = len - tail;
    while (start > 0 && inside_character(text, len, start)) start--;
    while (inside_character(text, len, end)) end++;
    return (tm__stretch){start, end};
}

/* Where the content of message `index` lies in the rendering `text` of all. start == end == len + 1: nowhere. */
static tm_status find_content(const tm_tokenizer *tok, const tm_message *messages, size_t n, size_t index, bool ask,
                              const char *text, size_t len, tm__stretch *content) {
    char mark[5], *other = NULL;
    size_t other_len = 0;
    if (!stand_in(text, len, mark))
        return tm__fail(TM_UNSUPPORTED, NULL, "messages", NULL, "hold too many characters for private use");
    tm_message *changed = tm__alloc(n, sizeof *changed);
    if (!changed) return tm__fail_memory();
    memcpy(changed, messages, n * sizeof *changed);
    changed[index].content = mark;
    tm_status status = render(tok, changed, n, ask, &other, &other_len, NULL);
    free(changed);
    if (status != TM_OK) return status;
    *content = (tm__stretch){len + 1, len + 1};
    if (memmem(other, other_len, mark, strlen(mark))) *content = difference(text, len, other, other_len);
    free(other);
    return TM_OK;
}

/* Length of the prompt before message `index`, or 0 where the text does not begin with it. */
static tm_status find_prompt(const tm_tokenizer *tok, const tm_message *messages, size_t index, const char *text,
                             size_t len, size_t *prompt_len) {
    char *prompt = NULL;
    size_t n = 0;
    *prompt_len = 0;
    tm_status status = render(tok, messages, index, true, &prompt, &n, NULL);
    if (status == TM_NO_MEMORY) return status;
    if (status == TM_OK && n <= len && memcmp(prompt, text, n) == 0) *prompt_len = n;
    free(prompt); /* a template may refuse a beginning that asks nothing */
    return TM_OK;
}

static tm_status find_answers(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, const char *text,
                              size_t len, tm__stretches *answers) {
    size_t before = 0;
    for (size_t i = 0; i < n; i++) {
        tm__stretch content = {0, 0};
        size_t prompt = 0;
        if (strcmp(messages[i].role, "assistant") != 0) continue;
        TM__TRY(find_content(tok, messages, n, i, ask, text, len, &content));
        if (content.start > len) continue; /* the template leaves it out */
        TM__TRY(find_prompt(tok, messages, i, text, len, &prompt));
        if (prompt >= before && prompt > 0 && prompt <= content.start) content.start = prompt;
        if (content.start < before)
            return tm__fail(TM_UNSUPPORTED, NULL, "template", "mark what is trained on by {% generation %}",
                            "the answers of the conversation overlap in the template's text");
        if (!add_stretch(answers, content.start, content.end)) return tm__fail_memory();
        before = content.end;
    }
    return TM_OK;
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */

typedef struct encoded {
    const tm_tokenizer *tok;
    const char *text;
    const int32_t *ids;
    const tm_offset *offsets;
    size_t count;
} encoded;

static bool is_blank(const encoded *e, size_t token) {
    for (size_t i = e->offsets[token].start; i < e->offsets[token].end; i++)
        if (!strchr(" \t\r\n", e->text[i]) || !e->text[i]) return false;
    return true;
}

/* Not all that end a turn are called special. */
static bool is_marker(const encoded *e, size_t token) {
    int32_t id = e->ids[token];
    bool added = e->tok->vocab.pieces[id].flags & (TM__PIECE_ADDED | TM__PIECE_SPECIAL);
    return added && (id != e->tok->bos || id == e->tok->eos);
}

/* The end of an answer that ends at `end`: behind the added token that follows, if one does. */
static size_t turn_end(const encoded *e, size_t end) {
    for (size_t i = 0; i < e->count; i++) {
        if (e->offsets[i].start < end || e->offsets[i].end <= e->offsets[i].start) continue;
        if (!is_blank(e, i)) return is_marker(e, i) ? e->offsets[i].end : end;
    }
    return end;
}

/* An empty range belongs to what ends with it: blanks that are left out of a token's range lie before it. */
static bool lies_in(const tm_offset *token, const tm__stretch *answer) {
    if (token->start == token->end) return answer->start < token->start && token->end <= answer->end;
    return answer->start <= token->start && token->end <= answer->end;
}

static bool crosses(const tm_offset *token, size_t border) {
    return token->start < border && border < token->end;
}

static tm_status put_labels(const encoded *e, const tm__stretches *answers, tm_ids *labels, size_t *split) {
    size_t next = 0;
    for (size_t i = 0; i < e->count; i++) {
        const tm_offset *token = &e->offsets[i];
        while (next + 1 < answers->len && answers->data[next].end <= token->start &&
               answers->data[next].end < token->end)
            next++;
        const tm__stretch *answer = next < answers->len ? &answers->data[next] : NULL;
        bool trained = answer && lies_in(token, answer);
        if (split && answer && (crosses(token, answer->start) || crosses(token, answer->end))) ++*split;
        TM__TRY(tm_ids_push(labels, trained ? e->ids[i] : NOT_TRAINED));
    }
    return TM_OK;
}

static tm_status encode_labelled(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask,
                                 const char *text, size_t len, tm__stretches *answers, tm_ids *ids, tm_ids *labels,
                                 size_t *split) {
    tm_offsets offsets = {0};
    size_t before = ids->len;
    tm_status status = tm_tokenizer_encode_offsets(tok, text, len, TM_ENCODE_PARSE_SPECIAL, ids, &offsets);
    if (status == TM_OK && !tm__template_marks(tok->chat.template))
        status = find_answers(tok, messages, n, ask, text, len, answers);
    const encoded e = {tok, text, ids->data + before, offsets.data, ids->len - before};
    for (size_t i = 0; i < answers->len && status == TM_OK && !tm__template_marks(tok->chat.template); i++)
        answers->data[i].end = turn_end(&e, answers->data[i].end);
    if (status == TM_OK) status = put_labels(&e, answers, labels, split);
    tm_offsets_free(&offsets);
    return status;
}

tm_status tm__chat_template_encode(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, tm_ids *ids,
                                   tm_ids *labels, size_t *split) {
    char *text = NULL;
    size_t len = 0;
    tm__stretches answers = {0};
    TM__TRY(tm__chat_template_need(tok));
    bool marked = labels && tm__template_marks(tok->chat.template);
    TM__TRY(render(tok, messages, n, ask, &text, &len, marked ? &answers : NULL));
    tm_status status = labels ? encode_labelled(tok, messages, n, ask, text, len, &answers, ids, labels, split)
                              : tm_tokenizer_encode(tok, text, len, TM_ENCODE_PARSE_SPECIAL, ids);
    free(answers.data);
    free(text);
    return status;
}
