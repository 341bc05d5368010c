/* chat.c: conversations to ids and labels, in the fixed formats of temper.h. chat_template.c does it with a template.
 *
 * ChatML     <|im_start|>role\ncontent<|im_end|>\n            trained: content and <|im_end|>
 * Llama 2    <s>[INST] <<SYS>>\nsys\n<</SYS>>\n\nuser [/INST] answer </s>     trained: " answer " and </s>
 * Alpaca     header, ### Instruction:, ### Input:, ### Response:   trained: answer and eos. The prompt ends at the
 *            colon, as in Stanford's code; nothing stands between it and the answer.
 * plain      prompt and answer as they are                    trained: answer and eos
 * question   Question: prompt\nAnswer: answer                 trained: " answer" and eos
 *
 * Every stretch that is trained on is encoded apart from what stands before it, so that no token spans the border, and
 * as a continuation: tokenizers that put a space before a text put none there. Markers that are tokens are pushed by id
 * and all text is encoded without special tokens, so content cannot forge them. (Llama 2's [INST] and Alpaca's headings
 * are plain text in the published formats; content that spells them out reads like them.)
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { NOT_TRAINED = -100 };

typedef struct writer {
    const tm_tokenizer *tok;
    tm_ids *ids, *labels;
    tm__string *text; /* gets what would be encoded; NULL: it is encoded */
    bool continues;   /* text goes on from text before it */
} writer;

/* Labels for ids that were appended since. */
static tm_status label(writer *out, size_t before, bool trained) {
    for (size_t i = before; out->labels && i < out->ids->len; i++)
        TM__TRY(tm_ids_push(out->labels, trained ? out->ids->data[i] : NOT_TRAINED));
    return TM_OK;
}

static tm_status put_text(writer *out, const char *text, size_t len, bool trained) {
    unsigned flags = out->continues ? TM__ENCODE_CONTINUE : 0;
    if (len == 0) return TM_OK;
    if (out->text) return tm__string_append(out->text, text, len) ? TM_OK : tm__fail_memory();
    size_t before = out->ids->len;
    TM__TRY(tm_tokenizer_encode(out->tok, text, len, flags, out->ids));
    out->continues = true;
    return label(out, before, trained);
}

/* What follows a token is a text of its own. */
static tm_status put_id(writer *out, int32_t id, bool trained) {
    if (id < 0) return TM_OK;
    if (out->text) {
        const char *piece = tm_tokenizer_piece(out->tok, id);
        return !piece || tm__string_append(out->text, piece, strlen(piece)) ? TM_OK : tm__fail_memory();
    }
    size_t before = out->ids->len;
    TM__TRY(tm_ids_push(out->ids, id));
    out->continues = false;
    return label(out, before, trained);
}

static tm_status put_prefix(writer *out) {
    for (size_t i = 0; i < out->tok->prefix.len; i++) TM__TRY(put_id(out, out->tok->prefix.data[i], false));
    return TM_OK;
}

static bool is(const tm_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

static tm_status needs_role(const tm_message *message, const char *format) {
    return tm__fail(TM_INVALID, NULL, "role", "system, user, assistant; Alpaca also input",
                    "\"%.40s\" has no place in the %s format", message->role, format);
}

/* ---- ChatML ------------------------------------------------------------------------------------------------------ */

static tm_status chatml_open(writer *out, int32_t start, const char *role, const char *content) {
    tm__string text = {0};
    TM__TRY(put_id(out, start, false));
    bool ok = tm__string_printf(&text, "%s\n", role) && tm__string_append(&text, content, strlen(content));
    tm_status status = ok ? put_text(out, text.data, text.len, false) : tm__fail_memory();
    tm__string_free(&text);
    return status;
}

static tm_status put_chatml(writer *out, const tm_message *messages, size_t n, bool ask) {
    int32_t start = tm_tokenizer_id(out->tok, "<|im_start|>"), end = tm_tokenizer_id(out->tok, "<|im_end|>");
    if (start < 0 || end < 0)
        return tm__fail(TM_MISMATCH, NULL, "chat format", "use a tokenizer made for ChatML, or another format",
                        "the tokenizer has no <|im_start|> and <|im_end|>");
    TM__TRY(put_prefix(out));
    for (size_t i = 0; i < n; i++) {
        bool answer = is(&messages[i], "assistant");
        if (is(&messages[i], "input")) return needs_role(&messages[i], "ChatML");
        TM__TRY(chatml_open(out, start, messages[i].role, answer ? "" : messages[i].content));
        if (answer) TM__TRY(put_text(out, messages[i].content, strlen(messages[i].content), true));
        TM__TRY(put_id(out, end, answer));
        TM__TRY(put_text(out, "\n", 1, false));
    }
    return ask ? chatml_open(out, start, "assistant", "") : TM_OK;
}

/* ---- Llama 2 ----------------------------------------------------------------------------------------------------- */

static tm_status llama2_prompt(writer *out, const char *system, const char *user) {
    tm__string text = {0};
    TM__TRY(put_id(out, out->tok->bos, false));
    bool ok = system ? tm__string_printf(&text, "[INST] <<SYS>>\n%s\n<</SYS>>\n\n%s [/INST]", system, user)
                     : tm__string_printf(&text, "[INST] %s [/INST]", user);
    tm_status status = ok ? put_text(out, text.data, text.len, false) : tm__fail_memory();
    tm__string_free(&text);
    return status;
}

static tm_status llama2_answer(writer *out, const char *answer) {
    tm__string text = {0};
    tm_status status =
        tm__string_printf(&text, " %s ", answer) ? put_text(out, text.data, text.len, true) : tm__fail_memory();
    tm__string_free(&text);
    return status == TM_OK ? put_id(out, out->tok->eos, true) : status;
}

static tm_status put_llama2(writer *out, const tm_message *messages, size_t n, bool ask) {
    const char *system = NULL;
    (void)ask; /* the prompt ends where the answer begins */
    for (size_t i = 0; i < n; i++) {
        if (is(&messages[i], "system") && i == 0) {
            system = messages[i].content;
        } else if (is(&messages[i], "user")) {
            TM__TRY(llama2_prompt(out, system, messages[i].content));
            system = NULL;
        } else if (is(&messages[i], "assistant")) {
            TM__TRY(llama2_answer(out, messages[i].content));
        } else {
            return needs_role(&messages[i], "Llama 2");
        }
    }
    return TM_OK;
}

/* ---- Alpaca ------------------------------------------------------------------------------------------------------ */

static const char alpaca_header[] =
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n";
static const char alpaca_header_input[] = "Below is an instruction that describes a task, paired with an input that "
                                          "provides further context. Write a response "
                                          "that appropriately completes the request.\n\n";

/* A system message stands in the header's place. */
static tm_status alpaca_prompt(writer *out, const char *system, const char *instruction, const char *input) {
    tm__string text = {0};
    bool with_input = input && *input;
    const char *header = with_input ? alpaca_header_input : alpaca_header;
    bool ok = system ? tm__string_printf(&text, "%s\n\n", system) : tm__string_append(&text, header, strlen(header));
    ok = ok && tm__string_printf(&text, "### Instruction:\n%s\n\n", instruction) &&
         (!with_input || tm__string_printf(&text, "### Input:\n%s\n\n", input)) &&
         tm__string_printf(&text, "### Response:");
    tm_status status = ok ? put_prefix(out) : tm__fail_memory();
    if (status == TM_OK) status = put_text(out, text.data, text.len, false);
    tm__string_free(&text);
    return status;
}

static tm_status put_alpaca(writer *out, const tm_message *messages, size_t n, bool ask) {
    const char *system = NULL;
    (void)ask; /* the prompt ends where the answer begins */
    for (size_t i = 0; i < n; i++) {
        const tm_message *next = i + 1 < n ? &messages[i + 1] : NULL;
        if (is(&messages[i], "system")) {
            system = messages[i].content;
        } else if (is(&messages[i], "user")) {
            bool input = next && is(next, "input");
            TM__TRY(alpaca_prompt(out, system, messages[i].content, input ? next->content : NULL));
            i += input;
        } else if (is(&messages[i], "assistant")) {
            TM__TRY(put_text(out, messages[i].content, strlen(messages[i].content), true));
            TM__TRY(put_id(out, out->tok->eos, true));
        } else {
            return needs_role(&messages[i], "Alpaca");
        }
    }
    return TM_OK;
}

/* ---- plain ------------------------------------------------------------------------------------------------------- */

static tm_status put_plain(writer *out, const tm_message *messages, size_t n) {
    TM__TRY(put_prefix(out));
    for (size_t i = 0; i < n; i++) {
        bool answer = is(&messages[i], "assistant");
        if (!answer && !is(&messages[i], "user") && !is(&messages[i], "system"))
            return needs_role(&messages[i], "plain");
        TM__TRY(put_text(out, messages[i].content, strlen(messages[i].content), answer));
        if (answer) TM__TRY(put_id(out, out->tok->eos, true));
    }
    return TM_OK;
}

/* ---- question ---------------------------------------------------------------------------------------------------- */

/* A system message stands before the question, with an empty line between. */
static tm_status question_prompt(writer *out, const char *system, const char *question) {
    tm__string text = {0};
    bool ok = (!system || tm__string_printf(&text, "%s\n\n", system)) &&
              tm__string_printf(&text, "Question: %s\nAnswer:", question);
    tm_status status = ok ? put_prefix(out) : tm__fail_memory();
    if (status == TM_OK) status = put_text(out, text.data, text.len, false);
    tm__string_free(&text);
    return status;
}

static tm_status question_answer(writer *out, const char *answer) {
    tm__string text = {0};
    tm_status status =
        tm__string_printf(&text, " %s", answer) ? put_text(out, text.data, text.len, true) : tm__fail_memory();
    tm__string_free(&text);
    return status == TM_OK ? put_id(out, out->tok->eos, true) : status;
}

static tm_status put_question(writer *out, const tm_message *messages, size_t n) {
    const char *system = NULL;
    for (size_t i = 0; i < n; i++) {
        if (is(&messages[i], "system")) {
            system = messages[i].content;
        } else if (is(&messages[i], "user")) {
            TM__TRY(question_prompt(out, system, messages[i].content));
            system = NULL;
        } else if (is(&messages[i], "assistant")) {
            TM__TRY(question_answer(out, messages[i].content));
        } else {
            return needs_role(&messages[i], "question");
        }
    }
    return TM_OK;
}

/* ---- public ------------------------------------------------------------------------------------------------------ */

const char tm__chatml_template[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n' "
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

tm_chat_format tm_chat_resolve(const tm_tokenizer *tokenizer, tm_chat_format format) {
    if (format != TM_CHAT_AUTO) return format;
    if (tokenizer->chat.format != TM_CHAT_AUTO) return tokenizer->chat.format;
    const char *template = tm__chat_template_default(tokenizer);
    bool chatml = tm_tokenizer_id(tokenizer, "<|im_start|>") >= 0 && tm_tokenizer_id(tokenizer, "<|im_end|>") >= 0;
    if (!template) return chatml ? TM_CHAT_CHATML : TM_CHAT_PLAIN;
    return chatml && strcmp(template, tm__chatml_template) == 0 ? TM_CHAT_CHATML : TM_CHAT_TEMPLATE;
}

/* Each input joined to the message before it, for formats that have no place for it; texts live in `arena`. */
static tm_status join_inputs(tm__arena *arena, const tm_message **messages, size_t *n) {
    tm_message *made = tm__arena_alloc(arena, *n, sizeof *made);
    size_t used = 0;
    if (!made) return tm__fail_memory();
    for (size_t i = 0; i < *n; i++) {
        if (!is(&(*messages)[i], "input") || used == 0) {
            made[used++] = (*messages)[i];
            continue;
        }
        const char *before = made[used - 1].content, *input = (*messages)[i].content;
        size_t a = strlen(before), b = strlen(input);
        char *text = tm__arena_alloc(arena, a + b + 2, 1);
        if (!text) return tm__fail_memory();
        memcpy(text, before, a);
        text[a] = '\n';
        memcpy(text + a + 1, input, b);
        text[a + 1 + b] = 0;
        made[used - 1].content = text;
    }
    *messages = made;
    *n = used;
    return TM_OK;
}

/* Checks a conversation and brings it into the shape that the format, which is resolved here, has a place for. */
static tm_status prepare(const tm_tokenizer *tok, tm_chat_format *format, tm__arena *arena, const tm_message **messages,
                         size_t *n) {
    bool inputs = false;
    for (size_t i = 0; i < *n; i++) {
        const tm_message *m = &(*messages)[i];
        if (!m->role || !m->content)
            return tm__fail(TM_INVALID, NULL, "messages", NULL, "message %zu has no %s", i,
                            m->role ? "content" : "role");
        inputs |= is(m, "input");
    }
    *format = tm_chat_resolve(tok, *format);
    return inputs && *format != TM_CHAT_ALPACA ? join_inputs(arena, messages, n) : TM_OK;
}

static tm_status put_fixed(writer *out, tm_chat_format format, const tm_message *messages, size_t n, bool ask) {
    switch (format) {
    case TM_CHAT_CHATML:
        return put_chatml(out, messages, n, ask);
    case TM_CHAT_LLAMA2:
        return put_llama2(out, messages, n, ask);
    case TM_CHAT_ALPACA:
        return put_alpaca(out, messages, n, ask);
    case TM_CHAT_QUESTION:
        return put_question(out, messages, n);
    default:
        return put_plain(out, messages, n);
    }
}

tm_status tm__chat_encode(const tm_tokenizer *tok, tm_chat_format format, const tm_message *messages, size_t n,
                          bool ask, tm_ids *ids, tm_ids *labels, size_t *split) {
    writer out = {.tok = tok, .ids = ids, .labels = labels};
    size_t ids_before = ids->len, labels_before = labels ? labels->len : 0;
    tm__arena arena = {0};
    tm_status status = prepare(tok, &format, &arena, &messages, &n);
    if (status == TM_OK)
        status = format == TM_CHAT_TEMPLATE ? tm__chat_template_encode(tok, messages, n, ask, ids, labels, split)
                                            : put_fixed(&out, format, messages, n, ask);
    tm__arena_release(&arena);
    if (status == TM_OK) return TM_OK;
    ids->len = ids_before;
    if (labels) labels->len = labels_before;
    return status;
}

tm_status tm_chat_encode(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                         bool ask, tm_ids *ids, tm_ids *labels) {
    return tm__chat_encode(tokenizer, format, messages, n, ask, ids, labels, NULL);
}

tm_status tm_chat_render(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                         bool ask, char **text, size_t *len) {
    tm__string made = {0};
    tm__arena arena = {0};
    writer out = {.tok = tokenizer, .text = &made};
    tm_status status = prepare(tokenizer, &format, &arena, &messages, &n);
    if (status == TM_OK && format == TM_CHAT_TEMPLATE) {
        status = tm__chat_template_render(tokenizer, messages, n, ask, text, len);
    } else if (status == TM_OK) {
        status = put_fixed(&out, format, messages, n, ask);
        if (status == TM_OK && !tm__string_append(&made, "", 0)) status = tm__fail_memory();
        if (status == TM_OK) {
            *text = made.data;
            if (len) *len = made.len;
            made = (tm__string){0};
        }
    }
    tm__string_free(&made);
    tm__arena_release(&arena);
    return status;
}

int32_t tm_chat_stop_id(const tm_tokenizer *tokenizer, tm_chat_format format) {
    int32_t end = tm_tokenizer_id(tokenizer, "<|im_end|>");
    format = tm_chat_resolve(tokenizer, format);
    if (format == TM_CHAT_TEMPLATE && tokenizer->chat.turn_end >= 0) return tokenizer->chat.turn_end;
    return format == TM_CHAT_CHATML && end >= 0 ? end : tokenizer->eos;
}

bool tm__chat_ends(const tm_tokenizer *tok, const tm_ids *labels) {
    size_t last = labels->len;
    while (last > 0 && labels->data[last - 1] == NOT_TRAINED) last--;
    if (last == 0) return false;
    int32_t id = labels->data[last - 1];
    return id == tok->eos || (tok->vocab.pieces[id].flags & (TM__PIECE_ADDED | TM__PIECE_SPECIAL));
}

const char *tm_chat_format_name(tm_chat_format format) {
    static const char *const names[] = {"auto", "chatml", "llama2", "alpaca", "plain", "question", "template"};
    return (unsigned)format < TM__COUNT(names) ? names[format] : "unknown";
}
