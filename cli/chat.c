/* chat.c: how conversations become text, and showing what became of one: text, ids, what is trained on. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

const tm_option cli_template_table[] = {
    {.name = "template",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(cli_template, name),
     .unit = "NAME|FILE",
     .help = "how conversations become text: chatml, llama2, alpaca, plain, question, a template that "
             "tokenizer_config.json names, or a Jinja file, which then goes with a written model; default: the "
             "tokenizer's own template. In an executed template, special tokens that a row spells out count as such, "
             "as in transformers"},
    {.name = "template-vars",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(cli_template, variables),
     .unit = "JSON",
     .help = "further names that the template sees: {\"enable_thinking\": false}"},
    {0},
};

int cli_check_template(const cli_template *chosen, const tm_train_options *train) {
    if (!chosen->name || train->chat == TM_CHAT_AUTO) return 0;
    return cli_error(TM_INVALID, "--template", "give one of them", "--chat %s says how conversations become text too",
                     tm_chat_format_name((tm_chat_format)train->chat));
}

tm_status cli_chat_make(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                        bool whole, cli_chat *chat) {
    *chat = (cli_chat){.asks = n == 0 || strcmp(messages[n - 1].role, "assistant") != 0};
    tm_status status = tm_chat_render(tokenizer, format, messages, n, chat->asks, &chat->text, NULL);
    if (status == TM_OK) status = tm_chat_encode(tokenizer, format, messages, n, chat->asks, &chat->ids, &chat->labels);
    for (size_t i = 0; status == TM_OK && i < chat->labels.len; i++) {
        if (whole) chat->labels.data[i] = chat->ids.data[i];
        chat->trained += chat->labels.data[i] >= 0;
    }
    if (status != TM_OK) cli_chat_free(chat);
    return status;
}

void cli_chat_free(cli_chat *chat) {
    free(chat->text);
    tm_ids_free(&chat->ids);
    tm_ids_free(&chat->labels);
    *chat = (cli_chat){0};
}

void cli_chat_print_format(const tm_tokenizer *tokenizer, tm_chat_format format) {
    format = tm_chat_resolve(tokenizer, format);
    printf("%s", tm_chat_format_name(format));
    if (format == TM_CHAT_TEMPLATE) printf(" %s", tm_tokenizer_template(tokenizer));
}

/* What an id adds to the text of the one before it: alone, a piece loses the blank that it begins with. The caller's;
 * NULL: it has none. */
static char *text_of(const tm_tokenizer *tokenizer, const tm_ids *ids, size_t i) {
    char *alone = NULL, *before = NULL, *both = NULL, *added = NULL;
    size_t n = 0, len = 0;
    if (tm_tokenizer_decode(tokenizer, ids->data + i, 1, 0, &alone, NULL) != TM_OK) return NULL;
    if (i > 0 && tm_tokenizer_decode(tokenizer, ids->data + i - 1, 1, 0, &before, &n) == TM_OK &&
        tm_tokenizer_decode(tokenizer, ids->data + i - 1, 2, 0, &both, &len) == TM_OK && len >= n &&
        memcmp(both, before, n) == 0)
        added = strdup(both + n);
    free(before);
    free(both);
    if (!added) return alone;
    free(alone);
    return added;
}

/* In a column of 20 characters, which may have several bytes. */
static void print_piece(const char *piece) {
    int width = 0;
    for (const char *at = piece; *at; at++) width += (*at & 0xc0) != 0x80;
    printf("%s%*s  ", piece, width < 20 ? 20 - width : 0, "");
}

void cli_print_pieces(const tm_tokenizer *tokenizer, const tm_ids *ids, const tm_ids *labels) {
    printf("%8s  %s%-20s  %s\n", "id", labels ? "trained  " : "", "piece", "text");
    for (size_t i = 0; i < ids->len; i++) {
        char *text = text_of(tokenizer, ids, i);
        const char *piece = tm_tokenizer_piece(tokenizer, ids->data[i]);
        cli_json json = {.out = stdout};
        printf("%8d  ", (int)ids->data[i]);
        if (labels) printf("%-7s  ", labels->data[i] >= 0 ? "yes" : "");
        print_piece(piece ? piece : "");
        cli_json_text(&json, NULL, text);
        putchar('\n');
        free(text);
    }
}

static void json_ids(cli_json *json, const char *key, const tm_ids *ids) {
    cli_json_open(json, key, '[');
    for (size_t i = 0; i < ids->len; i++) cli_json_int(json, NULL, ids->data[i]);
    cli_json_close(json, ']');
}

void cli_chat_json(cli_json *json, const tm_tokenizer *tokenizer, tm_chat_format format, const cli_chat *chat) {
    format = tm_chat_resolve(tokenizer, format);
    cli_json_text(json, "format", tm_chat_format_name(format));
    cli_json_text(json, "template", format == TM_CHAT_TEMPLATE ? tm_tokenizer_template(tokenizer) : NULL);
    cli_json_text(json, "text", chat->text);
    cli_json_int(json, "count", (int64_t)chat->ids.len);
    cli_json_int(json, "trained", chat->trained);
    json_ids(json, "ids", &chat->ids);
    json_ids(json, "labels", &chat->labels);
}
