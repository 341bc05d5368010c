/* results.c: temper results: what a directory of `temper run` holds. */
#include "cli.h"

#include <stdlib.h>

typedef struct results_options {
    const char *directory, *tensorboard;
} results_options;

static const tm_option table[] = {
    {.name = "directory",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(results_options, directory),
     .initial = "temper-runs",
     .min = 1,
     .unit = "DIR",
     .help = "the directory of temper run"},
    {.name = "tensorboard",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(results_options, tensorboard),
     .min = 1,
     .unit = TM_UNIT_OUT_DIR,
     .help = "write the training curves of the cells here, as TensorBoard event files, instead of a table"},
    {0},
};

static int write_events(const results_options *o, const tm_results_options *what, bool json) {
    size_t runs = 0;
    tm_status status = tm_results_events(o->directory, what, o->tensorboard, &runs);
    if (status != TM_OK) return cli_fail(status);
    printf(json ? "{\"runs\":%zu}\n" : "%zu runs\n", runs);
    return 0;
}

static int run(int argc, char **argv) {
    results_options options;
    tm_results_options what;
    cli_output output;
    cli_args args;
    char *text = NULL;
    int code;
    cli_args_begin(&args, &cli_results, 0);
    cli_args_group(&args, "Input", table, &options);
    cli_args_group(&args, "What to show", tm_results_option_table, &what);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (output.json && cli_args_given(&args, "form") && what.form != TM_RESULTS_JSON) {
        code = cli_error(TM_INVALID, "--json", "leave one out", "is --form json");
    } else if (options.tensorboard) {
        code = write_events(&options, &what, output.json);
    } else {
        if (output.json) what.form = TM_RESULTS_JSON;
        tm_status status = tm_results(options.directory, &what, &text);
        code = status == TM_OK ? 0 : cli_fail(status);
        if (code == 0) fputs(text, stdout);
    }
    free(text);
    cli_args_end(&args);
    return code;
}

const cli_command cli_results = {
    .name = "results",
    .words = "",
    .summary = "what experiments found: tables, answers, training steps",
    .about = "Shows what temper run found in a directory, filtered, as text, Markdown, CSV, JSON or LaTeX. Reads the "
             "result store alone, while a run is going on too. Means are over worlds and seeds, with 95% intervals "
             "of Student's t.",
    .examples = "temper results --directory runs --scores leak,skills\n"
                "temper results --directory runs --arm \"sdd*\" --show cells --form csv\n"
                "temper results --directory runs --show failed\n"
                "temper results --directory runs --group grid --tensorboard curves\n"
                "temper results --directory runs --arm undefended --seed 1 --show answers --json",
    .run = run,
};
