/* bench_gemm.c: temper bench gemm: how fast the matrix products of a model's linear layers are. */
#include "cli.h"

#include <math.h>

static const char *const passes[] = {"forward", "dX", "dW"};

static void print_type(const tm_bench_gemm_report *r, const tm_bench_gemm_type *type) {
    char s[2][32];
    if (type->refused[0]) {
        printf("%s: not measured: %s\n\n", type->name, type->refused);
        return;
    }
    printf("%s, %s: GFLOP/s, and half of the range in %%\n", type->name, type->instruction_set);
    for (size_t i = 0; i < r->layer_count; i++) {
        const tm_bench_layer *l = &r->layers[i];
        printf("  %-10s %6lld x %5lld -> %6lld", l->name, (long long)l->rows, (long long)l->in, (long long)l->out);
        for (int pass = 0; pass < TM_BENCH_PASSES; pass++)
            if (type->times[i][pass].count)
                printf("   %-7s %8s +-%2s", passes[pass], cli_bench_number(type->flops[i][pass] / 1e9, 1, s[0]),
                       cli_bench_number(cli_bench_spread(&type->times[i][pass]), 0, s[1]));
        puts("");
    }
    printf("  %-33s", "all of the model");
    for (int pass = 0; pass < TM_BENCH_PASSES; pass++)
        if (type->times[0][pass].count)
            printf("   %-7s %8s     ", passes[pass], cli_bench_number(type->pass_flops[pass] / 1e9, 1, s[0]));
    printf("\n  together %.1f GFLOP/s, %.0f%% of the fastest product's; %.3f s, which allows %.0f tokens/s%s\n",
           type->figures.flops / 1e9, 100 * type->figures.share, type->seconds, type->figures.tokens,
           type->times[0][1].count ? " of training" : " forward");
    printf("  at most %s MiB; others kept %s processors busy meanwhile\n\n",
           type->figures.peak ? cli_thousands(type->figures.peak >> 20) : "unknown",
           cli_bench_number(type->figures.foreign, 1, s[0]));
}

static void print(const cli_bench_work *work) {
    const tm_bench_gemm_options *o = work->options;
    const tm_bench_gemm_report *r = work->report;
    cli_bench_print_model(&r->frame, o->shape, o->config, NULL, NULL);
    printf("work       %lld rows; the output layer so many at a time as training gives it\n", (long long)o->rows);
    printf("device     %s, %d thread%s; %lld run%s of each type, in turns\n\n", tm_device_name(work->device),
           tm_device_threads(work->device), tm_device_threads(work->device) > 1 ? "s" : "", (long long)o->repeats,
           o->repeats > 1 ? "s" : "");
    for (size_t t = 0; t < r->type_count; t++) print_type(r, &r->types[t]);
}

static void json_type(cli_json *json, const tm_bench_gemm_report *r, const tm_bench_gemm_type *type) {
    cli_json_open(json, NULL, '{');
    cli_json_text(json, "type", type->name);
    cli_json_text(json, "refused", type->refused[0] ? type->refused : NULL);
    cli_json_text(json, "instruction_set", type->instruction_set);
    cli_json_real(json, "seconds", type->refused[0] ? NAN : type->seconds);
    cli_bench_json_figures(json, &type->figures);
    cli_json_open(json, "products", '[');
    for (size_t i = 0; !type->refused[0] && i < r->layer_count; i++)
        for (int pass = 0; pass < TM_BENCH_PASSES; pass++) {
            const tm_bench_layer *l = &r->layers[i];
            if (!type->times[i][pass].count) continue;
            cli_json_open(json, NULL, '{');
            cli_json_text(json, "layer", l->name);
            cli_json_text(json, "pass", passes[pass]);
            cli_json_int(json, "rows", l->rows);
            cli_json_int(json, "in", l->in);
            cli_json_int(json, "out", l->out);
            cli_json_real(json, "times_in_model", l->times);
            cli_json_real(json, "flops_per_second", type->flops[i][pass]);
            cli_bench_json_times(json, "times", &type->times[i][pass]);
            cli_json_close(json, '}');
        }
    cli_json_close(json, ']');
    cli_json_close(json, '}');
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_gemm_report *r = work->report;
    cli_json_open(json, "types", '[');
    for (size_t t = 0; t < r->type_count; t++) json_type(json, r, &r->types[t]);
    cli_json_close(json, ']');
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_gemm(work->where, work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_gemm_report_release(report);
}

const cli_bench_kind cli_bench_gemm = {
    .name = "gemm",
    .about = "Times every matrix product of a model's linear layers alone, forward and both gradients, in fp32, in "
             "bf16 (weights stored and operands rounded so) and forward with weights of 8 bits; --precision measures "
             "one of them. A rate over all layers counts each as often as it stands in the model.",
    .examples = "temper bench gemm --shape tiny\n"
                "temper bench gemm --shape world --rows 512 --precision fp32 --repeats 1\n"
                "temper bench gemm --shape tiny --rows 64 --json",
    .table = tm_bench_gemm_option_table,
    .options_size = sizeof(tm_bench_gemm_options),
    .report_size = sizeof(tm_bench_gemm_report),
    .measure = measure,
    .print = print,
    .json = json,
    .release = release,
};
