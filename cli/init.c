/* init.c: temper init, a checkpoint of random weights in the shape of a config.json. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct init_options {
    const char *config, *tokenizer, *out;
    int64_t seed;
    int dtype;
    bool overwrite;
} init_options;

static const tm_option table[] = {
    {.name = "config",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(init_options, config),
     .unit = "FILE",
     .help = "config.json of the shape: any architecture that Temper loads"},
    {.name = "tokenizer",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(init_options, tokenizer),
     .unit = "DIR",
     .help = "copy the tokenizer's files from this directory; its ids must fit the shape's vocabulary"},
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(init_options, out),
     .unit = "DIR",
     .help = "write the checkpoint here; the same as the word DIR"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(init_options, overwrite),
     .help = "replace the directory if it holds a model"},
    {.name = "seed",
     .type = TM_OPTION_INT,
     .offset = offsetof(init_options, seed),
     .initial = "0",
     .min = 0,
     .max = 9007199254740992.0,
     .help = "seed of the weights: the same seed gives the same bytes"},
    {.name = "dtype",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(init_options, dtype),
     .initial = "keep",
     .choices = "keep|fp32|bf16|fp16",
     .help = "number format of the weights; keep: what the config says"},
    {0},
};

static int read_config(const char *path, char **text) {
    size_t len = 0;
    FILE *file = fopen(path, "r");
    if (!file) return cli_error(errno == ENOENT ? TM_NOT_FOUND : TM_IO, path, "check the path", "%s", strerror(errno));
    tm_status status = cli_read_all(file, text, &len);
    fclose(file);
    if (status == TM_NO_MEMORY) return cli_no_memory();
    if (status != TM_OK) return cli_error(status, path, NULL, "reading failed: %s", strerror(errno));
    if (strlen(*text) == len) return 0;
    free(*text);
    *text = NULL;
    return cli_error(TM_FORMAT, path, NULL, "holds a NUL byte");
}

static int init(const init_options *in, const cli_output *output) {
    const tm_save_options how = {.dtype = in->dtype, .tokenizer_dir = in->tokenizer, .overwrite = in->overwrite};
    char *text = NULL;
    int code = read_config(in->config, &text);
    if (code) return code;
    tm_status status = tm_model_write_new(text, (uint64_t)in->seed, in->out, &how, cli_monitor(output));
    free(text);
    cli_monitor_end();
    if (status != TM_OK) {
        const tm_error *error = tm_error_last(); /* what is wrong with the config has no file: it came as text */
        if (error->file[0] || status == TM_INTERRUPTED || status == TM_NO_MEMORY) return cli_fail(status);
        return cli_error(status, in->config, error->hint, "%s%s%s", error->field, error->field[0] ? ": " : "",
                         error->message);
    }
    if (output->json) {
        cli_json json = {.out = stdout};
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "config", in->config);
        cli_json_int(&json, "seed", in->seed);
        cli_json_text(&json, "out", in->out);
        cli_json_close(&json, '}');
    } else {
        printf("written    %s (random weights, seed %lld)\n", in->out, (long long)in->seed);
    }
    return 0;
}

static int run(int argc, char **argv) {
    init_options in;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_init, 1);
    cli_args_group(&args, "Options", table, &in);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count && in.out)
        code = cli_error(TM_INVALID, "DIR", NULL, "'%.80s' and --out name two directories", args.words[0]);
    if (args.word_count) in.out = args.words[0];
    if (code == 0) code = cli_check_required("--config", in.config);
    if (code == 0) code = cli_check_output("--out", in.out, true, in.overwrite);
    if (code == 0) code = init(&in, &output);
    cli_args_end(&args);
    return code;
}

const cli_command cli_init = {
    .name = "init",
    .words = "[DIR]",
    .summary = "make a checkpoint of random weights",
    .about =
        "Writes a checkpoint in the shape of a config.json: matrices from N(0, initializer_range), norms 1, biases "
        "0. It is written tensor by tensor in files of at most 5 GB, so that a model larger than memory can be "
        "made, for tests of size and speed, or to train from nothing.",
    .examples = "temper init --config config.json --dtype bf16 new-model\n"
                "temper init --config config.json --tokenizer my-model --seed 7 new-model",
    .run = run,
};
