/* bench_step.c: temper bench step: what a training step of each method costs beside one of plain fine-tuning. */
#include "cli.h"

#include <math.h>

static void print_head(const cli_bench_work *work) {
    const tm_bench_options *o = work->options;
    const tm_bench_report *report = work->report;
    cli_bench_print_model(&report->frame, o->shape, o->config, NULL, NULL);
    printf("step       %lld rows of %lld tokens, %lld of them trained on; ", (long long)o->batch, (long long)o->length,
           (long long)o->answer);
    if (o->lora_rank)
        printf("LoRA of rank %lld\n", (long long)o->lora_rank);
    else
        puts("all weights, AdamW");
    printf("pass       %.1f GFLOP forward and back, %.0f%% of it in the output layer\n",
           (o->lora_rank ? 4 : 6) * report->pass / 1e9, 100 * report->head);
    cli_bench_print_device(work);
    printf("runs       %lld each, in turns with SFT, %lld measured step%s a run\n", (long long)o->repeats,
           (long long)o->steps, o->steps > 1 ? "s" : "");
    printf("products   %.1f GFLOP/s: the matrix products of such a step, alone in this process\n\n",
           report->frame.product_flops / 1e9);
}

static void print_row(const tm_bench_row *row) {
    char s[13][32];
    double mib = 1024.0 * 1024;
    const tm_bench_figures *is = &row->figures;
    if (row->failure[0]) {
        printf("%-20s not measured: %s\n", row->method->name, row->failure);
        return;
    }
    printf("%-20s %8s %5s %8s %5s %6s %6s %6s %7s %7s %6s %7s %7s %6s\n", row->method->name,
           cli_bench_number(row->trains ? row->step.median : NAN, 3, s[0]),
           cli_bench_number(cli_bench_spread(&row->step), 0, s[1]),
           cli_bench_number(row->trains ? row->sft.median : NAN, 3, s[2]),
           cli_bench_number(cli_bench_spread(&row->sft), 0, s[3]), cli_bench_number(row->ratio, 2, s[4]),
           cli_bench_number(row->passes, 2, s[5]), cli_bench_number(row->ratio / row->passes, 2, s[6]),
           cli_bench_number(is->tokens, 0, s[7]), cli_bench_number(is->flops / 1e9, 1, s[8]),
           cli_bench_number(100 * is->share, 0, s[9]),
           cli_bench_number(is->peak ? (double)is->peak / mib : NAN, 0, s[10]), cli_bench_number(row->once, 2, s[11]),
           cli_bench_number(is->foreign, 1, s[12]));
}

static void print(const cli_bench_work *work) {
    const tm_bench_report *report = work->report;
    int64_t peak = 0;
    print_head(work);
    printf("%-20s %8s %5s %8s %5s %6s %6s %6s %7s %7s %6s %7s %7s %6s\n", "method", "s/step", "+-%", "SFT s", "+-%",
           "ratio", "passes", "excess", "tok/s", "GFLOP/s", "% prod", "MiB", "apart", "others");
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
    puts(
        "\ns/step, SFT s: medians, with half of the range. ratio: of the two. excess: ratio / passes. tok/s: tokens "
        "that\n"
        "the method counts. GFLOP/s: what the mathematics needs, by the time a step takes. % prod: of the rate of the\n"
        "products alone. MiB: peak resident memory. apart: seconds outside of steps beyond SFT's, or in all.\n"
        "others: processors that other programs kept busy meanwhile.");
    if (peak) printf("SFT's peak resident memory: %s MiB.\n", cli_thousands(peak >> 20));
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
    cli_json_real(json, "seconds_apart", row->once);
    cli_json_int(json, "sft_peak_bytes", row->sft_peak);
    cli_bench_json_figures(json, &row->figures);
    cli_json_close(json, '}');
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_report *report = work->report;
    cli_json_int(json, "rows_per_set", report->rows);
    cli_json_real(json, "forward_multiply_adds", report->pass);
    cli_json_real(json, "head_share", report->head);
    cli_bench_json_times(json, "products", &report->frame.products);
    cli_json_open(json, "methods", '[');
    for (size_t i = 0; i < report->count; i++) json_row(json, &report->list[i]);
    cli_json_close(json, ']');
}

static int check(cli_bench_work *work) {
    tm_bench_options *o = work->options;
    if (!o->answer) o->answer = o->length / 2;
    return 0;
}

static int missed(const cli_bench_work *work) {
    const tm_bench_report *report = work->report;
    int code = 0;
    for (size_t i = 0; i < report->count; i++)
        if (report->list[i].failure[0])
            code = cli_error(TM_UNSUPPORTED, report->list[i].method->name, NULL, "was not measured");
    return code;
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_step(work->device, work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_report_release(report);
}

const cli_bench_kind cli_bench_step = {
    .name = "step",
    .about =
        "Times training steps of every method beside steps of plain fine-tuning (SFT) on the same shape: random "
        "weights, made-up rows of exact length, the methods' own code. Prints seconds per step, how many times SFT's "
        "that is, and how many forward and backward passes the mathematics needs. Methods that train nothing are timed "
        "as a whole. --methods sft measures plain fine-tuning alone. Nothing is kept; safe-lora and backdoor-align "
        "need room in the temporary directory meanwhile.",
    .examples = "temper bench step --shape tiny\n"
                "temper bench step --shape world --methods vaccine,booster --lora-rank 8\n"
                "temper bench step --shape tiny --methods repnoise --batch 2 --length 32 --answer 8 --json",
    .table = tm_bench_option_table,
    .options_size = sizeof(tm_bench_options),
    .report_size = sizeof(tm_bench_report),
    .check = check,
    .measure = measure,
    .print = print,
    .json = json,
    .missed = missed,
    .release = release,
};
