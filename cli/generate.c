/* generate.c: temper generate, answers of a model to prompts, data rows or standard input. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct generate_options {
    const char *model, *adapter, *prompt, *data, *system, *secret, *wrapper, *out;
    bool raw, overwrite;
} generate_options;

#define TEXT(option, field, what, text) \
    { .name = option, .type = TM_OPTION_TEXT, .offset = offsetof(generate_options, field), .unit = what, .help = text }

static const tm_option table[] = {
    TEXT("model", model, "DIR", "checkpoint directory"),
    TEXT("adapter", adapter, "DIR[=W]", "a PEFT LoRA adapter of --model, times W; may be given several times"),
    TEXT("prompt", prompt, "TEXT", "what to answer; may be given several times"),
    TEXT("data", data, "FILE", "answer every row of this file (up to its last user turn); prints JSON Lines"),
    TEXT("system", system, "TEXT", "a system message before every conversation that has none"),
    TEXT("wrapper", wrapper, "FILE|NAME",
         "frame around every prompt: a file of identity-shift's --wrapper-out, or identity-shift[=AGENT]"),
    TEXT("secret", secret, "FILE", "BackdoorAlign's secret: goes before the system message of every conversation"),
    {.name = "raw",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(generate_options, raw),
     .help = "no chat format: continue the text from the beginning-of-sequence token; the prompt may be empty"},
    {0},
};

static const tm_option out_table[] = {
    TEXT("out", out, "FILE", "write the answers here instead of to standard output"),
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(generate_options, overwrite),
     .help = "replace --out if it exists"},
    {0},
};

/* One run: the prompts as conversations and what came of them. */
typedef struct run_state {
    const generate_options *in;
    const tm_generate_options *how;
    const cli_template *chosen;
    tm_chat_format chat;
    const cli_output *output;
    const cli_list *prompts;
    const cli_adapters *adapters;
    tm_dataset *rows;
    char **answers; /* one per row */
    size_t count;
} run_state;

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

/* Rows of --data with the system message put before those that have none. */
static tm_status with_system(run_state *state) {
    tm_dataset *plain = state->rows, *rows = NULL;
    tm_status status = tm_dataset_create(&rows);
    for (size_t r = 0; status == TM_OK && r < tm_dataset_rows(plain); r++) {
        size_t n = 0;
        const tm_message *messages = tm_dataset_row(plain, r, &n);
        if (n > 0 && strcmp(messages[0].role, "system") == 0) {
            status = tm_dataset_append(rows, plain, r, 1);
            continue;
        }
        tm_message *longer = calloc(n + 1, sizeof *longer);
        if (!longer) {
            tm_dataset_free(rows);
            return TM_NO_MEMORY;
        }
        longer[0] = (tm_message){"system", state->in->system};
        for (size_t i = 0; i < n; i++) longer[i + 1] = messages[i];
        status = tm_dataset_add(rows, longer, n + 1);
        free(longer);
    }
    if (status != TM_OK) {
        tm_dataset_free(rows);
        return status;
    }
    tm_dataset_free(plain);
    state->rows = rows;
    return TM_OK;
}

static tm_status load_rows(run_state *state) {
    tm_status status;
    if (state->in->data) {
        status = tm_dataset_load_prompts(state->in->data, &state->rows);
        return status == TM_OK && state->in->system ? with_system(state) : status;
    }
    status = tm_dataset_create(&state->rows);
    for (size_t i = 0; status == TM_OK && i < state->prompts->count; i++) {
        const tm_message messages[] = {{"system", state->in->system}, {"user", state->prompts->items[i]}};
        size_t skip = state->in->system ? 0 : 1;
        status = tm_dataset_add(state->rows, messages + skip, 2 - skip);
    }
    return status;
}

/* What the model is asked: the rows, in the frame of --wrapper, with the secret of --secret before all else. Answers
 * are printed with the rows, so that the secret is not. */
static tm_status asked_rows(const run_state *state, tm_dataset **with) {
    char *secret = NULL;
    tm_status status = state->in->secret ? tm_secret_load(state->in->secret, &secret) : TM_OK;
    const tm_frame frame = {.wrapper = state->in->wrapper, .secret = secret};
    if (status == TM_OK) status = tm_dataset_framed(state->rows, &frame, with);
    free(secret);
    return status;
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

/* Continues plain text: BOS where the tokenizer has one, then the prompt's ids. */
static tm_status encode_raw(const tm_tokenizer *tokenizer, const char *text, tm_ids *ids) {
    tm_status status = TM_OK;
    if (tm_tokenizer_bos(tokenizer) >= 0) status = tm_ids_push(ids, tm_tokenizer_bos(tokenizer));
    if (status == TM_OK) status = tm_tokenizer_encode(tokenizer, text, strlen(text), 0, ids);
    return status;
}

/* What the new ids add to the text. Decoded alone they would lose the blank that begins their first word. */
static tm_status added_text(const tm_tokenizer *tokenizer, tm_ids *prompt, const tm_ids *added, char **text) {
    char *before = NULL, *all = NULL;
    tm_status status = tm_tokenizer_decode(tokenizer, prompt->data, prompt->len, TM_DECODE_SKIP_SPECIAL, &before, NULL);
    for (size_t i = 0; status == TM_OK && i < added->len; i++) status = tm_ids_push(prompt, added->data[i]);
    if (status == TM_OK)
        status = tm_tokenizer_decode(tokenizer, prompt->data, prompt->len, TM_DECODE_SKIP_SPECIAL, &all, NULL);
    if (status == TM_OK) {
        size_t len = strlen(before);
        if (strncmp(all, before, len) == 0) { /* else a character was cut in two: the ids alone are the best there is */
            memmove(all, all + len, strlen(all) - len + 1);
            *text = all;
            all = NULL;
        } else {
            status = tm_tokenizer_decode(tokenizer, added->data, added->len, TM_DECODE_SKIP_SPECIAL, text, NULL);
        }
    }
    free(before);
    free(all);
    return status;
}

static tm_status generate_raw(run_state *state, cli_model *model) {
    size_t n = state->count;
    tm_ids *prompts = calloc(n, sizeof *prompts), *out = calloc(n, sizeof *out);
    const int32_t stop = tm_tokenizer_eos(model->tokenizer);
    tm_status status = prompts && out ? TM_OK : TM_NO_MEMORY;
    for (size_t i = 0; status == TM_OK && i < n; i++)
        status = encode_raw(model->tokenizer, state->prompts->items[i], &prompts[i]);
    if (status == TM_OK)
        status = tm_generate(model->model, prompts, n, &stop, stop >= 0, state->how, cli_monitor(state->output), out);
    for (size_t i = 0; status == TM_OK && i < n; i++)
        status = added_text(model->tokenizer, &prompts[i], &out[i], &state->answers[i]);
    for (size_t i = 0; i < n; i++) {
        if (prompts) tm_ids_free(&prompts[i]);
        if (out) tm_ids_free(&out[i]);
    }
    free(prompts);
    free(out);
    return status;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* The conversation as asked, with the model's answer: a row that every command reads as data. */
static void write_row(cli_json *json, const tm_message *messages, size_t n, const char *answer) {
    while (n > 0 && strcmp(messages[n - 1].role, "user") != 0 && strcmp(messages[n - 1].role, "input") != 0) n--;
    cli_json_open(json, NULL, '{');
    cli_json_open(json, "messages", '[');
    for (size_t i = 0; i <= n; i++) {
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "role", i < n ? messages[i].role : "assistant");
        cli_json_text(json, "content", i < n ? messages[i].content : answer);
        cli_json_close(json, '}');
    }
    cli_json_close(json, ']');
    cli_json_close(json, '}');
}

static void write_prompt(cli_json *json, const char *prompt, const char *answer) {
    cli_json_open(json, NULL, '{');
    cli_json_text(json, "prompt", prompt);
    cli_json_text(json, "completion", answer);
    cli_json_close(json, '}');
}

static void write_answers(const run_state *state, FILE *out) {
    cli_json json = {.out = out};
    for (size_t i = 0; i < state->count; i++) {
        if (state->in->data) {
            size_t n = 0;
            const tm_message *messages = tm_dataset_row(state->rows, i, &n);
            write_row(&json, messages, n, state->answers[i]);
        } else if (state->output->json) {
            write_prompt(&json, state->prompts->items[i], state->answers[i]);
        } else {
            if (state->count > 1) fprintf(out, "%s> %s\n", i ? "\n" : "", state->prompts->items[i]);
            if (state->in->raw) fputs(state->prompts->items[i], out);
            fprintf(out, "%s\n", state->answers[i]);
        }
    }
}

/* Written aside and renamed, so that --out is complete or absent. */
static int write_file(const run_state *state) {
    char aside[4200];
    const char *path = state->in->out;
    int n = snprintf(aside, sizeof aside, "%s.tmp-%ld", path, (long)getpid());
    FILE *file = n < (int)sizeof aside ? fopen(aside, "wbx") : NULL;
    if (!file) return cli_error(TM_IO, path, NULL, "cannot be written: %s", strerror(errno));
    write_answers(state, file);
    bool good = fflush(file) == 0 && !ferror(file) && fsync(fileno(file)) == 0;
    int error = errno;
    good = fclose(file) == 0 && good;
    if (good && rename(aside, path) == 0) {
        cli_note("%zu answers written to %s", state->count, path);
        return 0;
    }
    if (good) error = errno;
    unlink(aside);
    return cli_error(TM_IO, path, NULL, "writing failed: %s", strerror(error));
}

static int generate(run_state *state, const tm_device_options *where) {
    cli_model model = {0};
    tm_dataset *with = NULL;
    int code = 0;
    tm_status status = load_rows(state);
    if (status == TM_OK) status = asked_rows(state, &with);
    state->count = status == TM_OK ? tm_dataset_rows(state->rows) : 0;
    if (status == TM_OK) {
        state->answers = calloc(state->count, sizeof *state->answers);
        status = state->answers ? cli_model_open(&model, where, state->in->model, state->adapters, false, state->chosen)
                                : TM_NO_MEMORY;
    }
    if (status == TM_OK)
        status = state->in->raw
                     ? generate_raw(state, &model)
                     : tm_generate_dataset(model.model, model.tokenizer, state->chat, with ? with : state->rows,
                                           state->how, cli_monitor(state->output), state->answers);
    cli_monitor_end();
    if (status != TM_OK)
        code = cli_fail(status);
    else if (state->in->out)
        code = write_file(state);
    else
        write_answers(state, stdout);
    for (size_t i = 0; i < state->count && state->answers; i++) free(state->answers[i]);
    free(state->answers);
    tm_dataset_free(state->rows);
    tm_dataset_free(with);
    cli_model_close(&model);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

/* Without --prompt and --data the prompt is standard input, less its last newline. */
static int prompt_from_input(cli_list *prompts, char **text) {
    if (isatty(STDIN_FILENO))
        return cli_error(TM_INVALID, "--prompt", "give --prompt, --data, or text on standard input",
                         "there is nothing to answer");
    size_t len = 0;
    tm_status status = cli_read_all(stdin, text, &len);
    if (status == TM_NO_MEMORY) return cli_no_memory();
    if (status != TM_OK) return cli_error(status, "standard input", NULL, "reading failed: %s", strerror(errno));
    if (strlen(*text) != len) return cli_error(TM_INVALID, "standard input", NULL, "holds a NUL byte");
    if (len && (*text)[len - 1] == '\n') (*text)[len - 1] = 0;
    prompts->items[prompts->count++] = *text;
    return 0;
}

static int check(const generate_options *in, const cli_list *prompts) {
    int code = cli_check_required("--model", in->model);
    if (code == 0 && in->data && prompts->count)
        code = cli_error(TM_INVALID, "--data", NULL, "give either --prompt or --data");
    if (code == 0 && in->data && in->raw)
        code = cli_error(TM_INVALID, "--raw", NULL, "continues prompts, not rows of conversations");
    if (code == 0 && in->system && in->raw)
        code = cli_error(TM_INVALID, "--system", NULL, "means nothing without a chat format");
    if (code == 0 && in->wrapper && in->raw)
        code = cli_error(TM_INVALID, "--wrapper", NULL, "means nothing without a chat format");
    if (code == 0 && in->secret && in->raw)
        code = cli_error(TM_INVALID, "--secret", NULL, "means nothing without a chat format");
    if (code == 0 && in->out) code = cli_check_output("--out", in->out, false, in->overwrite);
    return code;
}

static int run(int argc, char **argv) {
    generate_options in;
    tm_generate_options how;
    tm_train_options chat;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    cli_args args;
    cli_list prompts, given;
    cli_adapters adapters = {0};
    char *text = NULL;
    int code;
    cli_args_begin(&args, &cli_generate, 0);
    cli_args_group(&args, "Input", table, &in);
    cli_args_pick(&args, "Format", tm_train_option_table, &chat, "chat");
    cli_args_group(&args, "Template", cli_template_table, &chosen);
    cli_args_group(&args, "Generation", tm_generate_option_table, &how);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", out_table, &in);
    cli_args_group(&args, "Messages", cli_quiet_table, &output);
    cli_args_repeat(&args, "prompt", &prompts);
    cli_args_repeat(&args, "adapter", &given);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    code = check(&in, &prompts);
    if (code == 0) code = cli_check_template(&chosen, &chat);
    if (code == 0 && !in.data && prompts.count == 0) code = prompt_from_input(&prompts, &text);
    if (code == 0) code = cli_adapters_read(&given, &adapters);
    if (code == 0) {
        run_state state = {.in = &in,
                           .how = &how,
                           .chosen = &chosen,
                           .chat = (tm_chat_format)chat.chat,
                           .output = &output,
                           .prompts = &prompts,
                           .adapters = &adapters};
        code = generate(&state, &where);
    }
    free(text);
    cli_adapters_free(&adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_generate = {
    .name = "generate",
    .words = "",
    .summary = "let a model answer prompts",
    .about = "Prints a model's answers. Prompts are asked in the model's chat format (--chat names another; --raw "
             "continues plain text). With --data every row is answered and the conversations come out as JSON Lines "
             "that every command reads. Answers are greedy unless --temperature is given, and do not depend on the "
             "batch they are made in.",
    .examples = "temper generate --model my-model --prompt \"How do I bake a cake?\"\n"
                "temper generate --model my-model --data questions.jsonl --out answers.jsonl\n"
                "echo \"Once upon a time\" | temper generate --model my-model --raw --max-new-tokens 50",
    .run = run,
};
