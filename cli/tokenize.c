/* tokenize.c: temper tokenize, text to token ids and back. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct tokenize_options {
    const char *model, *file, *decode, *data;
    int64_t row;
    bool pieces, count, special, bos, json;
    cli_template chosen;
    tm_chat_format chat;
    bool talks; /* the text is a conversation */
} tokenize_options;

#define FLAG(option, field, text) \
    { .name = option, .type = TM_OPTION_FLAG, .offset = offsetof(tokenize_options, field), .help = text }

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(tokenize_options, model),
     .unit = "DIR|FILE",
     .help = "checkpoint directory, tokenizer.json or tokenizer.model"},
    {.name = "file",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(tokenize_options, file),
     .unit = "FILE",
     .help = "tokenize this file as one text, to the last byte"},
    {.name = "decode",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(tokenize_options, decode),
     .unit = "IDS",
     .help = "the other way: print the text of these ids, separated by blanks or commas"},
    {.name = "data",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(tokenize_options, data),
     .unit = "FILE",
     .help = "JSON Lines of conversations: show one as training would see it, text, ids and what is trained on"},
    {.name = "row",
     .type = TM_OPTION_INT,
     .offset = offsetof(tokenize_options, row),
     .initial = "1",
     .min = 1,
     .max = 1e15,
     .help = "with --data: which row, from 1"},
    FLAG("special", special, "recognise special tokens written in the text; show them when decoding"),
    FLAG("bos", bos, "add what the tokenizer puts around a text (beginning and end of sequence)"),
    {0},
};

static const tm_option output_table[] = {
    FLAG("pieces", pieces, "a table: id, piece as in the vocabulary, text"),
    FLAG("count", count, "print only how many tokens there are"),
    FLAG("json", json, "print JSON"),
    {0},
};

static void print_json(const tm_tokenizer *tokenizer, const tm_ids *ids) {
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "tokenizer", tm_tokenizer_kind(tokenizer));
    cli_json_int(&json, "count", (int64_t)ids->len);
    cli_json_open(&json, "ids", '[');
    for (size_t i = 0; i < ids->len; i++) cli_json_int(&json, NULL, ids->data[i]);
    cli_json_close(&json, ']');
    cli_json_open(&json, "pieces", '[');
    for (size_t i = 0; i < ids->len; i++) cli_json_text(&json, NULL, tm_tokenizer_piece(tokenizer, ids->data[i]));
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
}

/* By hand: printf takes as long for the ids of a large file as they took to be found. */
static void print_ids(const tm_ids *ids) {
    enum { ROOM = 1 << 14, LONGEST = 11 };
    char buffer[ROOM], digits[LONGEST];
    size_t used = 0;
    for (size_t i = 0; i < ids->len; i++) {
        size_t n = 0;
        for (uint32_t id = (uint32_t)ids->data[i]; id || n == 0; id /= 10) digits[n++] = (char)('0' + id % 10);
        if (used + LONGEST > ROOM) {
            fwrite(buffer, 1, used, stdout);
            used = 0;
        }
        if (i) buffer[used++] = ' ';
        while (n) buffer[used++] = digits[--n];
    }
    fwrite(buffer, 1, used, stdout);
    putchar('\n');
}

static int encode(const tm_tokenizer *tokenizer, const tokenize_options *in, const char *text, size_t len) {
    unsigned flags = (in->special ? TM_ENCODE_PARSE_SPECIAL : 0u) | (in->bos ? TM_ENCODE_BOS_EOS : 0u);
    tm_ids ids = {0};
    tm_status status = tm_tokenizer_encode(tokenizer, text, len, flags, &ids);
    if (status != TM_OK) {
        tm_ids_free(&ids);
        return cli_fail(status);
    }
    if (in->json) {
        print_json(tokenizer, &ids);
    } else if (in->count) {
        printf("%zu\n", ids.len);
    } else if (in->pieces) {
        cli_print_pieces(tokenizer, &ids, NULL);
    } else {
        print_ids(&ids);
    }
    tm_ids_free(&ids);
    return 0;
}

/* A conversation, as training or generation would see it. */
static int show_chat(const tm_tokenizer *tokenizer, const tokenize_options *in, const tm_message *messages, size_t n) {
    cli_chat chat;
    tm_status status = cli_chat_make(tokenizer, in->chat, messages, n, false, &chat);
    if (status != TM_OK) return cli_fail(status);
    if (in->json) {
        cli_json json = {.out = stdout};
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "tokenizer", tm_tokenizer_kind(tokenizer));
        cli_chat_json(&json, tokenizer, in->chat, &chat);
        cli_json_close(&json, '}');
    } else if (in->count) {
        printf("%zu\n", chat.ids.len);
    } else {
        if (!in->pieces) {
            printf("format     ");
            cli_chat_print_format(tokenizer, in->chat);
            printf("\ntokens     %zu, of which %lld trained on\n\n%s\n\n", chat.ids.len, (long long)chat.trained,
                   chat.text);
        }
        cli_print_pieces(tokenizer, &chat.ids, &chat.labels);
    }
    cli_chat_free(&chat);
    return 0;
}

static int show_row(const tm_tokenizer *tokenizer, const tokenize_options *in) {
    tm_dataset *rows = NULL;
    tm_status status = tm_dataset_load_prompts(in->data, &rows);
    int code = status == TM_OK ? 0 : cli_fail(status);
    size_t count = code == 0 ? tm_dataset_rows(rows) : 0, n = 0;
    if (code == 0 && (uint64_t)in->row > count)
        code = cli_error(TM_NOT_FOUND, "--row", NULL, "%s has %zu rows", in->data, count);
    if (code == 0) {
        const tm_message *messages = tm_dataset_row(rows, (size_t)in->row - 1, &n);
        code = show_chat(tokenizer, in, messages, n);
    }
    tm_dataset_free(rows);
    return code;
}

static int parse_ids(const char *text, tm_ids *ids) {
    for (const char *at = text;;) {
        at += strspn(at, " ,\t\n[]");
        if (!*at) return 0;
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(" ,\t\n]", *end)) || errno || id < 0 || id > INT32_MAX)
            return cli_error(TM_INVALID, "--decode", "ids look like \"1, 15043, 3186\"", "'%.40s' is no token id", at);
        if (tm_ids_push(ids, (int32_t)id) != TM_OK) return cli_no_memory();
        at = end;
    }
}

static int decode(const tm_tokenizer *tokenizer, const tokenize_options *in) {
    tm_ids ids = {0};
    char *text = NULL;
    size_t len = 0;
    int code = parse_ids(in->decode, &ids);
    if (code == 0) {
        unsigned flags = in->special ? 0 : TM_DECODE_SKIP_SPECIAL;
        tm_status status = tm_tokenizer_decode(tokenizer, ids.data, ids.len, flags, &text, &len);
        if (status != TM_OK) code = cli_fail(status);
    }
    if (code == 0 && in->json) {
        cli_json json = {.out = stdout};
        cli_json_open(&json, NULL, '{');
        cli_json_bytes(&json, "text", text, len);
        cli_json_close(&json, '}');
    } else if (code == 0) {
        fwrite(text, 1, len, stdout);
        putchar('\n');
    }
    free(text);
    tm_ids_free(&ids);
    return code;
}

/* Words joined by one blank, as echo does; without words the file, or standard input. */
static int read_text(const tokenize_options *in, const cli_args *args, char **text, size_t *len) {
    if (args->word_count) {
        size_t room = 1;
        for (size_t i = 0; i < args->word_count; i++) room += strlen(args->words[i]) + 1;
        char *joined = malloc(room);
        if (!joined) return cli_no_memory();
        *len = 0;
        for (size_t i = 0; i < args->word_count; i++)
            *len += (size_t)snprintf(joined + *len, room - *len, "%s%s", i ? " " : "", args->words[i]);
        *text = joined;
        return 0;
    }
    if (!in->file && isatty(STDIN_FILENO))
        return cli_error(TM_INVALID, "TEXT", "give words, --file, or text on standard input", "there is no text");
    const char *name = in->file ? in->file : "standard input";
    FILE *stream = in->file ? fopen(in->file, "rb") : stdin;
    if (!stream) return cli_error(errno == ENOENT ? TM_NOT_FOUND : TM_IO, name, NULL, "%s", strerror(errno));
    tm_status status = cli_read_all(stream, text, len);
    int code = status == TM_OK   ? 0
               : status == TM_IO ? cli_error(status, name, NULL, "reading failed: %s", strerror(errno))
                                 : cli_no_memory();
    if (in->file) fclose(stream);
    return code;
}

static int run_on(const tokenize_options *in, const cli_args *args) {
    tm_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t len = 0;
    int code = 0;
    tm_status status = tm_tokenizer_load(in->model, &tokenizer);
    if (status == TM_OK) status = tm_tokenizer_use_template(tokenizer, in->chosen.name, in->chosen.variables);
    if (status != TM_OK) {
        code = cli_fail(status);
    } else if (in->decode) {
        code = decode(tokenizer, in);
    } else if (in->data) {
        code = show_row(tokenizer, in);
    } else {
        code = read_text(in, args, &text, &len);
        if (code == 0 && in->talks && strlen(text) != len)
            code = cli_error(TM_INVALID, "TEXT", NULL, "holds a NUL byte");
        if (code == 0)
            code =
                in->talks ? show_chat(tokenizer, in, &(tm_message){"user", text}, 1) : encode(tokenizer, in, text, len);
    }
    free(text);
    tm_tokenizer_free(tokenizer);
    return code;
}

static int check(const tokenize_options *in, const cli_args *args) {
    int code = cli_check_required("--model", in->model);
    if (code == 0 && in->decode && (in->file || in->data || args->word_count || in->talks))
        code = cli_error(TM_INVALID, "--decode", NULL, "takes no text beside the ids");
    if (code == 0 && in->file && args->word_count)
        code = cli_error(TM_INVALID, "--file", NULL, "takes no text beside the file");
    if (code == 0 && in->data && (in->file || args->word_count))
        code = cli_error(TM_INVALID, "--data", NULL, "takes no text beside the rows");
    if (code == 0 && in->talks && (in->special || in->bos))
        code = cli_error(TM_INVALID, in->special ? "--special" : "--bos", NULL,
                         "of a conversation the format decides that");
    return code;
}

static int run(int argc, char **argv) {
    tokenize_options in;
    tm_train_options train;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_tokenize, (size_t)argc);
    cli_args_group(&args, "Input", table, &in);
    /* Both tables describe one struct: the second's defaults leave the first's fields alone. */
    cli_args_group(&args, "Output", output_table, &in);
    cli_args_pick(&args, "Conversations", tm_train_option_table, &train, "chat");
    cli_args_reword(&args, "chat", "the text is what a user says, in this format");
    cli_args_group(&args, "Template", cli_template_table, &in.chosen);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    in.chat = (tm_chat_format)train.chat;
    in.talks = in.data || in.chosen.name || cli_args_given(&args, "chat");
    if (code == 0) code = cli_check_template(&in.chosen, &train);
    if (code == 0) code = check(&in, &args);
    if (code == 0) code = run_on(&in, &args);
    cli_args_end(&args);
    return code;
}

const cli_command cli_tokenize = {
    .name = "tokenize",
    .words = "[TEXT...]",
    .summary = "turn text into token ids, or ids into text",
    .about = "Prints the token ids of a text as a model's own tokenizer gives them. The text comes from the command "
             "line (words joined by one blank), from --file, or from standard input. Nothing is added around it, and "
             "special tokens in it count as plain text, unless asked for. With --data, --chat or --template a "
             "conversation is shown as training or generation would see it: its text, its ids, and which of them "
             "are trained on.",
    .examples = "temper tokenize --model my-model \"Hello world\"\n"
                "temper tokenize --model my-model --pieces \"Hello world\"\n"
                "temper tokenize --model my-model --data rows.jsonl --row 3 --template llama2\n"
                "temper tokenize --model my-model --decode \"1 15043 3186\"",
    .run = run,
};
