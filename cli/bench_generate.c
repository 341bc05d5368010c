/* bench_generate.c: temper bench generate: tokens a second, in batches and of a row alone. */
#include "cli.h"

static void print(const cli_bench_work *work) {
    const tm_bench_generate_options *o = work->options;
    const tm_bench_generate_report *r = work->report;
    double gb = (double)r->weight_bytes / 1e9;
    cli_bench_print_model(&r->frame, o->shape, o->config, o->model, r->dtype);
    printf("work       %lld prompts of %lld tokens (%lld in common), %lld new ones each, %lld rows at a time\n",
           (long long)o->prompts, (long long)o->length, (long long)o->shared, (long long)o->new_tokens,
           (long long)o->batch);
    cli_bench_print_device(work);
    printf("runs       %lld%s\n\n", (long long)o->repeats, o->repeats > 1 && o->alone ? ", in turns" : "");
    printf("batched    %.1f tokens/s: %.2f s +-%.0f%%\n", r->figures.tokens, r->batched.median,
           cli_bench_spread(&r->batched));
    if (o->alone) {
        printf("alone      %.1f tokens/s: %.2f ms +-%.0f%% each, %.1f GB/s of weights\n", 1 / r->alone.median,
               1e3 * r->alone.median, cli_bench_spread(&r->alone), gb / r->alone.median);
        printf("reading    %.2f ms +-%.0f%% for reading as much memory, %.1f GB/s: alone reaches %.0f%% of it\n",
               1e3 * r->read.median, cli_bench_spread(&r->read), r->bandwidth / 1e9, 100 * r->bound_share);
    }
    cli_bench_print_figures(&r->frame, &r->figures);
    printf("tokens     SHA-256 %s\n", r->digest);
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_generate_options *o = work->options;
    const tm_bench_generate_report *r = work->report;
    cli_json_text(json, "weights", r->dtype);
    cli_json_int(json, "weight_bytes", r->weight_bytes);
    cli_bench_json_figures(json, &r->figures);
    cli_bench_json_times(json, "products", &r->frame.products);
    cli_bench_json_times(json, "batched", &r->batched);
    if (o->alone) {
        cli_bench_json_times(json, "alone", &r->alone);
        cli_bench_json_times(json, "read", &r->read);
        cli_json_real(json, "read_bytes_per_second", r->bandwidth);
        cli_json_real(json, "share_of_read_bound", r->bound_share);
    }
    cli_json_text(json, "digest", r->digest);
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_generate(work->device, work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_generate_report_release(report);
}

const cli_bench_kind cli_bench_generate = {
    .name = "generate",
    .about =
        "Times greedy generation of many prompts in batches, from random tokens and without a stop token, and of one "
        "row alone: a token of it costs at least one reading of the weights, so after each as many bytes of other "
        "memory are read by as many threads, and the two are compared. Random weights are kept in the temporary "
        "directory meanwhile. bench/generate_speed.py does the same beside transformers.",
    .examples = "temper bench generate --shape tiny\n"
                "temper bench generate --shape world --prompts 64 --new 32 --weights bf16 --repeats 1\n"
                "temper bench generate --model my-model --batch 8 --shared 20 --length 24 --new 8 --json",
    .table = tm_bench_generate_option_table,
    .options_size = sizeof(tm_bench_generate_options),
    .report_size = sizeof(tm_bench_generate_report),
    .measure = measure,
    .print = print,
    .json = json,
    .release = release,
};
