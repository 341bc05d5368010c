/* bench_load.c: temper bench load: from the start of a process to the first training step and the first token. */
#include "cli.h"

static void print(const cli_bench_work *work) {
    const tm_bench_load_options *o = work->options;
    const tm_bench_load_report *r = work->report;
    cli_bench_print_model(&r->frame, o->shape, o->config, o->model, r->dtype);
    printf("work       %.1f MB of weights and tokenizer; ", (double)r->file_bytes / 1e6);
    if (o->data)
        printf("rows of %s; ", o->data);
    else
        printf("%s rows; ", cli_thousands(o->rows));
    if (o->lora_rank)
        printf("LoRA of rank %lld\n", (long long)o->lora_rank);
    else
        puts("all weights are trained");
    cli_bench_print_device(work);
    printf("runs       %lld processes of each kind, files in the system's cache\n\n", (long long)o->repeats);
    if (r->first_step.count) {
        cli_bench_print_times("step", &r->first_step,
                              " from the start of a process until its first training step begins");
        for (int i = 0; i < TM_BENCH_PHASES; i++)
            printf("  %-10s %8.1f ms +-%.0f%%\n", tm_bench_phase_name(i), 1e3 * r->phases[i].median,
                   cli_bench_spread(&r->phases[i]));
    }
    if (r->first_token.count)
        cli_bench_print_times("token", &r->first_token, " from the start of a process until an answer's first token");
    cli_bench_print_figures(&r->frame, &r->figures);
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_load_report *r = work->report;
    cli_json_text(json, "weights", r->dtype);
    cli_json_int(json, "file_bytes", r->file_bytes);
    cli_bench_json_figures(json, &r->figures);
    cli_bench_json_times(json, "first_step", &r->first_step);
    cli_bench_json_times(json, "first_token", &r->first_token);
    cli_json_open(json, "phases", '{');
    for (int i = 0; i < TM_BENCH_PHASES; i++) cli_bench_json_times(json, tm_bench_phase_name(i), &r->phases[i]);
    cli_json_close(json, '}');
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_load("/proc/self/exe", work->where, work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_load_report_release(report);
}

const cli_bench_kind cli_bench_load = {
    .name = "load",
    .about = "Times whole processes, from their start until the first training step begins (what happens meanwhile is "
             "timed apart: starting the program, reading the rows, the device, weights, the tokenizer, and preparing: "
             "rows to ids, room for masters and moments) and until an answer's first token is there. Random weights "
             "and a tokenizer of as many tokens are kept in the temporary directory meanwhile. Files are in the "
             "system's cache: a first process of each kind is not counted.",
    .examples = "temper bench load --shape tiny\n"
                "temper bench load --model my-model --data rows.jsonl --lora-rank 8\n"
                "temper bench load --shape tiny --first token --repeats 1 --json",
    .table = tm_bench_load_option_table,
    .options_size = sizeof(tm_bench_load_options),
    .report_size = sizeof(tm_bench_load_report),
    .measure = measure,
    .print = print,
    .json = json,
    .release = release,
};
