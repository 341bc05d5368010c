/* chat.c: conversations to ids and labels, in the four formats of temper.h.
 *
 * ChatML     <|im_start|>role\ncontent<|im_end|>\n            trained: content and <|im_end|>
 * Llama 2    <s>[INST] <<SYS>>\nsys\n<</SYS>>\n\nuser [/INST] answer </s>     trained: " answer " and </s>
 * Alpaca     header, ### Instruction:, ### Input:, ### Response:   trained: answer and eos. The prompt ends at the
 *            colon, as in Stanford's code; nothing stands between it and the answer.
 * plain      prompt and answer as they are                    trained: answer and eos
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
    bool continues; /* text goes on from text before it */
} writer;

/* Labels for ids that were appended since. */
static tm_status label(writer *out, size_t before, bool trained) {
    for (size_t i = before; out->labels && i < out->ids->len; i++)
        TM__TRY(tm_ids_push(out->labels, trained ? out->ids->data[i] : NOT_TRAINED));
    return TM_OK;
}

static tm_status put_text(writer *out, const char *text, size_t len, bool trained) {
    size_t before = out->ids->len;
    unsigned flags = out->continues ? TM__ENCODE_CONTINUE : 0;
    if (len == 0) return TM_OK;
    TM__TRY(tm_tokenizer_encode(out->tok, text, len, flags, out->ids));
    out->continues = true;
    return label(out, before, trained);
}

/* What follows a token is a text of its own. */
static tm_status put_id(writer *out, int32_t id, bool trained) {
    size_t before = out->ids->len;
    if (id < 0) return TM_OK;
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

/* ---- public ------------------------------------------------------------------------------------------------------ */

static tm_chat_format resolve(const tm_tokenizer *tok, tm_chat_format format) {
    if (format != TM_CHAT_AUTO) return format;
    if (tm_tokenizer_id(tok, "<|im_start|>") >= 0) return TM_CHAT_CHATML;
    return tok->chat_template && strstr(tok->chat_template, "[INST]") ? TM_CHAT_LLAMA2 : TM_CHAT_PLAIN;
}

tm_status tm_chat_encode(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                         bool ask, tm_ids *ids, tm_ids *labels) {
    writer out = {.tok = tokenizer, .ids = ids, .labels = labels};
    size_t ids_before = ids->len, labels_before = labels ? labels->len : 0;
    tm_status status;
    for (size_t i = 0; i < n; i++)
        if (!messages[i].role || !messages[i].content)
            return tm__fail(TM_INVALID, NULL, "messages", NULL, "message %zu has no %s", i,
                            messages[i].role ? "content" : "role");
    switch (resolve(tokenizer, format)) {
    case TM_CHAT_CHATML:
        status = put_chatml(&out, messages, n, ask);
        break;
    case TM_CHAT_LLAMA2:
        status = put_llama2(&out, messages, n, ask);
        break;
    case TM_CHAT_ALPACA:
        status = put_alpaca(&out, messages, n, ask);
        break;
    default:
        status = put_plain(&out, messages, n);
    }
    if (status == TM_OK) return TM_OK;
    ids->len = ids_before;
    if (labels) labels->len = labels_before;
    return status;
}

int32_t tm_chat_stop_id(const tm_tokenizer *tokenizer, tm_chat_format format) {
    int32_t end = tm_tokenizer_id(tokenizer, "<|im_end|>");
    return resolve(tokenizer, format) == TM_CHAT_CHATML && end >= 0 ? end : tokenizer->eos;
}

const char *tm_chat_format_name(tm_chat_format format) {
    static const char *const names[] = {"auto", "chatml", "llama2", "alpaca", "plain"};
    return (unsigned)format < TM__COUNT(names) ? names[format] : "unknown";
}
