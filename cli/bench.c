/* bench.c: temper bench step: what a training step of each method costs beside one of plain fine-tuning. temper bench
 * generate is in bench_generate.c. */
#include "cli.h"

#include <math.h>
#include <string.h>

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

static void print_head(const tm_device *device, const tm_bench_options *o, const tm_bench_report *report) {
    static const char *const shapes[] = {"smollm-135m", "world", "tiny"};
    const tm_model_info *m = &report->model;
    int64_t answer = o->answer ? o->answer : o->length / 2;
    printf("shape      %s: %lld wide, %lld layers, %lld/%lld heads, FFN %lld, vocabulary %s; %s parameters\n",
           o->config ? o->config : shapes[o->shape], (long long)m->hidden_size, (long long)m->layers,
           (long long)m->heads, (long long)m->kv_heads, (long long)m->intermediate_size, cli_thousands(m->vocab_size),
           cli_thousands(m->parameters));
    printf("step       %lld rows of %lld tokens, %lld of them trained on; ", (long long)o->batch, (long long)o->length,
           (long long)answer);
    if (o->lora_rank)
        printf("LoRA of rank %lld\n", (long long)o->lora_rank);
    else
        puts("all weights, AdamW");
    printf("pass       %.1f GFLOP forward and back, %.0f%% of it in the output layer\n",
           (o->lora_rank ? 4 : 6) * report->pass / 1e9, 100 * report->head);
    printf("device     %s, %s, %s, %d threads; %lld runs each, in turns with SFT, %lld measured step%s a run\n\n",
           tm_device_name(device), tm_device_instruction_set(device), tm_device_precision(device),
           tm_device_threads(device), (long long)o->repeats, (long long)o->steps, o->steps > 1 ? "s" : "");
}

static void print_row(const tm_bench_row *row) {
    char s[10][32];
    double mib = 1024.0 * 1024;
    if (row->failure[0]) {
        printf("%-20s not measured: %s\n", row->method->name, row->failure);
        return;
    }
    printf("%-20s %8s %5s %8s %5s %6s %6s %6s %7s %7s %7s %6s\n", row->method->name,
           cli_bench_number(row->trains ? row->step.median : NAN, 3, s[0]),
           cli_bench_number(cli_bench_spread(&row->step), 0, s[1]),
           cli_bench_number(row->trains ? row->sft.median : NAN, 3, s[2]),
           cli_bench_number(cli_bench_spread(&row->sft), 0, s[3]), cli_bench_number(row->ratio, 2, s[4]),
           cli_bench_number(row->passes, 2, s[5]), cli_bench_number(row->ratio / row->passes, 2, s[6]),
           cli_bench_number(row->tokens, 0, s[7]), cli_bench_number(row->peak ? (double)row->peak / mib : NAN, 0, s[8]),
           cli_bench_number(row->once, 2, s[9]), cli_bench_number(row->foreign, 1, (char[32]){0}));
}

static void print_report(const tm_device *device, const tm_bench_options *o, const tm_bench_report *report) {
    int64_t peak = 0;
    print_head(device, o, report);
    printf("%-20s %8s %5s %8s %5s %6s %6s %6s %7s %7s %7s %6s\n", "method", "s/step", "+-%", "SFT s", "+-%", "ratio",
           "passes", "excess", "tok/s", "MiB", "apart", "others");
    for (size_t i = 0; i < report->count; i++) print_row(&report->list[i]);
    puts("\nPasses that the mathematics needs, forward and back, in SFT's:");
    for (size_t i = 0; i < report->count; i++) {
        const tm_bench_row *row = &report->list[i];
        if (row->sft_peak > peak) peak = row->sft_peak;
        if (row->trains)
            printf("  %-20s %s\n", row->method->name, row->why);
        else
            printf("  %-20s none, it trains nothing: %s\n", row->method->name, row->why);
    }
    puts("\ns/step, SFT s: medians, with half of the range. ratio: of the two. excess: ratio / passes. tok/s: tokens "
         "that\n"
         "the method counts. MiB: peak resident memory. apart: seconds outside of steps beyond SFT's, or in all.\n"
         "others: processors that other programs kept busy meanwhile.");
    if (peak) printf("SFT's peak resident memory: %s MiB.\n", cli_thousands(peak >> 20));
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

static void json_row(cli_json *json, const tm_bench_row *row) {
    cli_json_open(json, NULL, '{');
    cli_json_text(json, "method", row->method->name);
    cli_json_text(json, "failure", row->failure[0] ? row->failure : NULL);
    cli_json_bool(json, "trains", row->trains);
    cli_bench_json_times(json, "step", &row->step);
    cli_bench_json_times(json, "sft", &row->sft);
    cli_json_real(json, "ratio", row->trains ? row->ratio : NAN);
    cli_json_real(json, "passes", row->passes);
    cli_json_text(json, "why", row->why);
    cli_json_real(json, "excess", row->trains ? row->ratio / row->passes : NAN);
    cli_json_real(json, "tokens_per_second", row->tokens);
    cli_json_real(json, "seconds_apart", row->once);
    cli_json_int(json, "peak_bytes", row->peak);
    cli_json_int(json, "sft_peak_bytes", row->sft_peak);
    cli_json_real(json, "foreign_processors", row->foreign);
    cli_json_close(json, '}');
}

static void print_json(const tm_device *device, const tm_bench_options *o, const tm_bench_report *report) {
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "config", o->config);
    cli_json_int(&json, "hidden_size", report->model.hidden_size);
    cli_json_int(&json, "layers", report->model.layers);
    cli_json_int(&json, "vocab_size", report->model.vocab_size);
    cli_json_int(&json, "parameters", report->model.parameters);
    cli_json_int(&json, "batch", o->batch);
    cli_json_int(&json, "length", o->length);
    cli_json_int(&json, "answer", o->answer ? o->answer : o->length / 2);
    cli_json_int(&json, "lora_rank", o->lora_rank);
    cli_json_bool(&json, "recompute", o->recompute);
    cli_json_int(&json, "memory", o->memory);
    cli_json_int(&json, "repeats", o->repeats);
    cli_json_int(&json, "steps", o->steps);
    cli_json_int(&json, "rows_per_set", report->rows);
    cli_json_real(&json, "forward_multiply_adds", report->pass);
    cli_json_real(&json, "head_share", report->head);
    cli_json_text(&json, "device", tm_device_name(device));
    cli_json_text(&json, "instruction_set", tm_device_instruction_set(device));
    cli_json_text(&json, "precision", tm_device_precision(device));
    cli_json_int(&json, "threads", tm_device_threads(device));
    cli_json_open(&json, "methods", '[');
    for (size_t i = 0; i < report->count; i++) json_row(&json, &report->list[i]);
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int measure(const tm_bench_options *options, const tm_device_options *where, const cli_output *output) {
    tm_bench_report report = {0};
    tm_device *device = NULL;
    const tm_monitor *monitor = cli_monitor(output);
    tm_status status = tm_device_open(where, &device);
    if (status == TM_OK) status = tm_bench_step(device, options, monitor, &report);
    cli_monitor_end();
    int code = status == TM_OK ? 0 : cli_fail(status);
    if (status == TM_OK) {
        if (output->json)
            print_json(device, options, &report);
        else
            print_report(device, options, &report);
    }
    for (size_t i = 0; i < report.count; i++)
        if (report.list[i].failure[0])
            code = cli_error(TM_UNSUPPORTED, report.list[i].method->name, NULL, "was not measured");
    tm_bench_report_release(&report);
    tm_device_close(device);
    return code;
}

static int run(int argc, char **argv) {
    tm_bench_options options;
    tm_device_options where;
    cli_output output;
    cli_args args;
    int code;
    if (argc > 0 && strcmp(argv[0], "generate") == 0) return cli_bench_generate(argc - 1, argv + 1);
    cli_args_begin(&args, &cli_bench, 1);
    cli_args_group(&args, "Measurement", tm_bench_option_table, &options);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count == 0)
        code = cli_error(TM_INVALID, NULL, "temper bench step, or temper bench generate", "what is to be measured?");
    else if (strcmp(args.words[0], "step") != 0)
        code = cli_error(TM_INVALID, args.words[0], "step or generate", "cannot be measured");
    else
        code = measure(&options, &where, &output);
    cli_args_end(&args);
    return code;
}

const cli_command cli_bench = {
    .name = "bench",
    .words = "step|generate",
    .summary = "measure what training steps cost and how fast text is generated",
    .about =
        "temper bench step times training steps of every method beside steps of plain fine-tuning (SFT) on the same "
        "shape: random "
        "weights, made-up rows of exact length, the methods' own code. Prints seconds per step, how many times SFT's "
        "that is, and how many forward and backward passes the mathematics needs. Methods that train nothing are timed "
        "as a whole. Nothing is kept; safe-lora and backdoor-align need room in the temporary directory meanwhile. "
        "temper help bench generate explains the other measurement.",
    .examples = "temper bench step --shape tiny\n"
                "temper bench step --shape world --methods vaccine,booster --lora-rank 8\n"
                "temper bench step --shape tiny --methods repnoise --batch 2 --length 32 --answer 8 --json\n"
                "temper bench generate --shape tiny",
    .run = run,
};
