/* bench.c: temper bench: what all measurements share: arguments, the device, what is told of every one of them. Each
 * has a file of its own. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_bench_kind *const kinds[] = {&cli_bench_gemm, &cli_bench_step,     &cli_bench_generate,
                                              &cli_bench_eval, &cli_bench_tokenize, &cli_bench_load};

/* ---- as text ----------------------------------------------------------------------------------------------------- */

const char *cli_bench_number(double value, int digits, char out[32]) {
    if (isfinite(value))
        snprintf(out, 32, "%.*f", digits, value);
    else
        snprintf(out, 32, "-");
    return out;
}

double cli_bench_spread(const tm_bench_times *times) {
    return 100 * (times->most - times->least) / 2 / times->median;
}

void cli_bench_print_model(const tm_bench_frame *frame, int shape, const char *config, const char *model,
                           const char *dtype) {
    const tm_model_info *m = &frame->model;
    printf("model      %s: %lld wide, %lld layers, %lld/%lld heads, FFN %lld, vocabulary %s; %s parameters",
           model    ? model
           : config ? config
                    : tm_bench_shape_name(shape),
           (long long)m->hidden_size, (long long)m->layers, (long long)m->heads, (long long)m->kv_heads,
           (long long)m->intermediate_size, cli_thousands(m->vocab_size), cli_thousands(m->parameters));
    printf(dtype ? " as %s\n" : "\n", dtype);
}

void cli_bench_print_device(const cli_bench_work *work) {
    printf("device     %s, %s, %s, %d thread%s\n", tm_device_name(work->device),
           tm_device_instruction_set(work->device), tm_device_precision(work->device), tm_device_threads(work->device),
           tm_device_threads(work->device) > 1 ? "s" : "");
}

void cli_bench_print_times(const char *name, const tm_bench_times *times, const char *what) {
    printf("%-10s %.3f s +-%.0f%%%s\n", name, times->median, cli_bench_spread(times), what);
}

void cli_bench_print_figures(const tm_bench_frame *frame, const tm_bench_figures *is) {
    char s[32];
    if (isfinite(is->flops))
        printf("products   %.1f GFLOP/s, %.0f%% of the %.1f that the matrix products reach alone in this process\n",
               is->flops / 1e9, 100 * is->share, frame->product_flops / 1e9);
    printf("memory     at most %s MiB\n", is->peak ? cli_thousands(is->peak >> 20) : "unknown");
    printf("others     kept %s processors busy meanwhile\n", cli_bench_number(is->foreign, 1, s));
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

void cli_bench_json_times(cli_json *json, const char *key, const tm_bench_times *times) {
    cli_json_open(json, key, '{');
    cli_json_real(json, "median", times->count ? times->median : NAN);
    cli_json_real(json, "least", times->count ? times->least : NAN);
    cli_json_real(json, "most", times->count ? times->most : NAN);
    cli_json_open(json, "seconds", '[');
    for (size_t i = 0; i < times->count; i++) cli_json_real(json, NULL, times->seconds[i]);
    cli_json_close(json, ']');
    cli_json_close(json, '}');
}

void cli_bench_json_figures(cli_json *json, const tm_bench_figures *is) {
    cli_json_real(json, "tokens_per_second", is->tokens);
    cli_json_real(json, "flops_per_second", is->flops);
    cli_json_real(json, "share_of_products", is->share);
    cli_json_int(json, "peak_bytes", is->peak);
    cli_json_real(json, "foreign_processors", is->foreign);
}

/* What was asked for, under the options' names. */
static void json_options(cli_json *json, const tm_option *table, const void *options) {
    cli_json_open(json, "options", '{');
    for (const tm_option *o = table; o->name; o++) {
        const char *at = (const char *)options + o->offset;
        char key[64], text[64];
        snprintf(key, sizeof key, "%s", o->name);
        for (char *c = key; *c; c++)
            if (*c == '-') *c = '_';
        switch (o->type) {
        case TM_OPTION_FLAG:
            cli_json_bool(json, key, *(const bool *)(const void *)at);
            break;
        case TM_OPTION_INT:
            cli_json_int(json, key, *(const int64_t *)(const void *)at);
            break;
        case TM_OPTION_REAL:
            cli_json_real(json, key, *(const double *)(const void *)at);
            break;
        case TM_OPTION_TEXT:
            cli_json_text(json, key, *(const char *const *)(const void *)at);
            break;
        case TM_OPTION_CHOICE:
            tm_options_text(o, options, text, sizeof text);
            cli_json_text(json, key, text);
            break;
        }
    }
    cli_json_close(json, '}');
}

static void print_json(const cli_bench_kind *kind, const cli_bench_work *work) {
    const tm_bench_frame *frame = work->report;
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "measurement", kind->name);
    json_options(&json, kind->table, work->options);
    if (frame->model.layers) {
        cli_json_int(&json, "hidden_size", frame->model.hidden_size);
        cli_json_int(&json, "intermediate_size", frame->model.intermediate_size);
        cli_json_int(&json, "layers", frame->model.layers);
        cli_json_int(&json, "heads", frame->model.heads);
        cli_json_int(&json, "kv_heads", frame->model.kv_heads);
        cli_json_int(&json, "vocab_size", frame->model.vocab_size);
        cli_json_int(&json, "parameters", frame->model.parameters);
    }
    cli_json_text(&json, "device", tm_device_name(work->device));
    cli_json_text(&json, "instruction_set", tm_device_instruction_set(work->device));
    cli_json_text(&json, "precision", tm_device_precision(work->device));
    cli_json_int(&json, "threads", tm_device_threads(work->device));
    cli_json_real(&json, "product_flops_per_second", frame->product_flops);
    kind->json(work, &json);
    cli_json_close(&json, '}');
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int measure(const cli_bench_kind *kind, cli_bench_work *work, const cli_output *output) {
    int code = kind->check ? kind->check(work) : 0;
    if (code) return code;
    work->monitor = cli_monitor(output);
    tm_status status = tm_device_open(work->where, &work->device);
    if (status == TM_OK) status = kind->measure(work);
    cli_monitor_end();
    if (status == TM_OK) {
        if (output->json)
            print_json(kind, work);
        else
            kind->print(work);
        code = kind->missed ? kind->missed(work) : 0;
        kind->release(work->report);
    } else {
        code = cli_fail(status);
    }
    tm_device_close(work->device);
    return code;
}

static int run_kind(const cli_bench_kind *kind, int argc, char **argv) {
    tm_device_options where;
    cli_output output;
    cli_args args;
    cli_bench_work work = {.where = &where};
    int code = 0;
    work.options = calloc(1, kind->options_size);
    work.report = calloc(1, kind->report_size);
    if (!work.options || !work.report) {
        code = cli_no_memory();
    } else {
        cli_args_begin(&args, &cli_bench, 0);
        args.subject = kind->name;
        args.about = kind->about;
        args.examples = kind->examples;
        cli_args_group(&args, "Measurement", kind->table, work.options);
        cli_args_group(&args, "Device", tm_device_option_table, &where);
        cli_args_group(&args, "Output", cli_quiet_table, &output);
        if (cli_args_parse(&args, argc, argv, &code)) {
            code = measure(kind, &work, &output);
            cli_args_end(&args);
        }
    }
    free(work.options);
    free(work.report);
    return code;
}

static int run(int argc, char **argv) {
    cli_args args;
    int code;
    for (size_t i = 0; argc > 0 && i < CLI_COUNT(kinds); i++)
        if (strcmp(argv[0], kinds[i]->name) == 0) return run_kind(kinds[i], argc - 1, argv + 1);
    if (argc > 0 && argv[0][0] != '-')
        return cli_error(TM_INVALID, argv[0], "gemm, step, generate, eval, tokenize or load", "cannot be measured");
    cli_args_begin(&args, &cli_bench, 0);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    cli_args_end(&args);
    return cli_error(TM_INVALID, NULL, "temper bench step, or temper help bench", "what is to be measured?");
}

const cli_command cli_bench = {
    .name = "bench",
    .words = "gemm|step|generate|eval|tokenize|load",
    .summary = "measure how fast this machine trains, generates, evaluates, loads",
    .about =
        "Each measurement says what it did, medians and half of the range, the rate in tokens and in operations, which "
        "share that is of the rate that the matrix products of the same model reach alone in the same process, peak "
        "memory, the instruction set, and how many processors other programs kept busy meanwhile. gemm: matrix "
        "products of a model's linear layers. step: training steps of every method beside plain fine-tuning. generate: "
        "text, in batches and of a row alone. eval: multiple-choice questions. tokenize: text to ids. load: from the "
        "start of a process to the first training step and the first token. temper help bench NAME explains each.",
    .examples = "temper bench gemm --shape world\n"
                "temper bench step --shape tiny\n"
                "temper bench generate --shape tiny\n"
                "temper bench eval --shape tiny\n"
                "temper bench tokenize --model my-model --file text.txt\n"
                "temper bench load --shape tiny --json",
    .run = run,
};
