/* bench_gemm.c: tm_bench_gemm: how fast each linear layer of a shape is multiplied, in each type that the device has.
 *
 * Types take turns, so that a change of the machine's load meets all of them. One run goes through all layers and
 * passes; before the first, one that is not counted. (tests/unit/test_bench_gemm.c)
 */
#include "lab/bench.h"

#include "train/train.h"

#include <stdlib.h>

#define FIELD(name) offsetof(tm_bench_gemm_options, name)
const tm_option tm_bench_gemm_option_table[] = {
    TM__BENCH_SHAPE_OPTIONS(tm_bench_gemm_options),
    {"rows", TM_OPTION_INT, FIELD(rows), "2048", 1, 1e6, NULL, "tokens", "rows of activations: batch times length"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "5", 1, 1000, NULL, "runs",
     "runs of all products, after one that is not counted"},
    {0},
};

static const struct {
    const char *name;
    int precision;
    tm_dtype weights;
    int passes;
} types[TM_BENCH_TYPES] = {
    {"fp32", TM_PRECISION_F32, TM_F32, 3},
    {"bf16", TM_PRECISION_BF16, TM_BF16, 3},
    {"int8", TM_PRECISION_INT8, TM_F32, 1},
};

typedef struct bench {
    tm_bench_gemm_options options;
    const tm_monitor *outer;
    tm_device *devices[TM_BENCH_TYPES];
    tm__products products[TM_BENCH_TYPES];
    double *foreign[TM_BENCH_TYPES], *room; /* (repeats) */
    tm_bench_gemm_report report;
} bench;

/* ---- one type ---------------------------------------------------------------------------------------------------- */

static int passes_of(const bench *b, size_t type) {
    return b->report.types[type].refused[0] ? 0 : b->products[type].passes;
}

/* A type that the device does not multiply is told, and is no error unless it was asked for by name. */
static tm_status open_type(bench *b, const tm_device_options *where, int kind, const tm_model_info *model) {
    size_t at = b->report.type_count++;
    tm_bench_gemm_type *type = &b->report.types[at];
    tm_device_options how = *where;
    how.precision = types[kind].precision;
    type->name = types[kind].name;
    tm_status status = tm_device_open(&how, &b->devices[at]);
    if (status == TM_UNSUPPORTED && where->precision == TM_PRECISION_AUTO) {
        snprintf(type->refused, sizeof type->refused, "%.250s", tm_error_last()->message);
        tm_error_clear();
        return TM_OK;
    }
    TM__TRY(status);
    type->instruction_set = tm_device_instruction_set(b->devices[at]);
    tm__products *p = &b->products[at];
    *p = (tm__products){.device = b->devices[at],
                        .weights = types[kind].weights == TM_F32 ? b->devices[at]->act : types[kind].weights,
                        .passes = types[kind].passes,
                        .row_invariant = types[kind].passes == 1};
    tm__products_layers(p, model, b->options.rows, b->options.rows);
    for (size_t i = 0; i < p->count; i++)
        for (int pass = 0; pass < p->passes; pass++) {
            type->times[i][pass].seconds = tm__zalloc((size_t)b->options.repeats, sizeof(double));
            if (!type->times[i][pass].seconds) return tm__fail_memory();
        }
    memcpy(b->report.layers, p->layers, sizeof p->layers);
    b->report.layer_count = p->count;
    return TM_OK;
}

static tm_status run(bench *b, size_t at, int64_t round) {
    tm_bench_gemm_type *type = &b->report.types[at];
    tm__products *p = &b->products[at];
    bool peak = tm__peak_reset();
    tm_status status = tm__products_open(p);
    tm__meter from = tm__meter_read();
    for (size_t i = 0; i < p->count; i++)
        for (int pass = 0; pass < p->passes && status == TM_OK; pass++) {
            double seconds;
            if (tm__stop(b->outer)) status = tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "measuring was interrupted");
            if (status == TM_OK) status = tm__products_run(p, i, pass, &seconds);
            if (status == TM_OK && round > 0) type->times[i][pass].seconds[type->times[i][pass].count++] = seconds;
        }
    tm__meter to = tm__meter_read();
    if (round > 0) b->foreign[at][round - 1] = tm__meter_foreign(&from, &to);
    if (peak) type->figures.peak = TM__MAX(type->figures.peak, tm__peak_bytes());
    tm__products_close(p);
    tm__pool_trim(p->device);
    return status;
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static void finish(bench *b, size_t at) {
    tm_bench_gemm_type *type = &b->report.types[at];
    double operations = 0;
    for (int pass = 0; pass < TM_BENCH_PASSES; pass++) {
        double done = 0, seconds = 0;
        for (size_t i = 0; i < b->report.layer_count; i++) {
            const tm_bench_layer *l = &b->report.layers[i];
            tm_bench_times *times = &type->times[i][pass];
            tm__bench_summarise(times, b->room);
            type->flops[i][pass] = tm__products_operations(l) / times->median;
            done += l->times * tm__products_operations(l);
            seconds += l->times * times->median;
            if (times->count) b->report.frame.product_flops = fmax(b->report.frame.product_flops, type->flops[i][pass]);
        }
        type->pass_flops[pass] = done / seconds;
        if (pass < passes_of(b, at)) type->seconds += seconds, operations += done;
    }
    type->figures.flops = operations / type->seconds;
    type->figures.tokens = (double)b->options.rows / type->seconds;
    type->figures.foreign = tm__bench_median(b->foreign[at], (size_t)b->options.repeats, b->room);
}

static tm_status measure(bench *b) {
    size_t repeats = (size_t)b->options.repeats;
    b->room = tm__zalloc((1 + TM_BENCH_TYPES) * repeats, sizeof *b->room);
    if (!b->room) return tm__fail_memory();
    for (size_t t = 0; t < TM_BENCH_TYPES; t++) b->foreign[t] = b->room + (t + 1) * repeats;
    double began = tm__now();
    for (int64_t round = 0; round <= b->options.repeats; round++) {
        for (size_t t = 0; t < b->report.type_count; t++)
            if (passes_of(b, t)) TM__TRY(run(b, t, round));
        tm__bench_progress(b->outer, "products", "run", round, b->options.repeats, began);
    }
    for (size_t t = 0; t < b->report.type_count; t++)
        if (passes_of(b, t)) finish(b, t);
    for (size_t t = 0; t < b->report.type_count; t++)
        b->report.types[t].figures.share = b->report.types[t].figures.flops / b->report.frame.product_flops;
    return TM_OK;
}

static tm_status open_types(bench *b, const tm_device_options *where) {
    const tm__bench_source source = {.shape = b->options.shape, .config = b->options.config};
    tm_model_info *model = &b->report.frame.model;
    for (int kind = 0; kind < TM_BENCH_TYPES; kind++) {
        if (where->precision != TM_PRECISION_AUTO && where->precision != types[kind].precision) continue;
        tm_device_options plain = {.name = where->name, .threads = 1};
        tm_device *device = NULL;
        if (!model->layers) {
            TM__TRY(tm_device_open(&plain, &device));
            tm_status status = tm__bench_describe(&source, device, model);
            tm_device_close(device);
            TM__TRY(status);
        }
        TM__TRY(open_type(b, where, kind, model));
    }
    if (b->report.type_count) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, NULL, "precision", NULL, "products are measured in fp32, bf16 and int8");
}

tm_status tm_bench_gemm(const tm_device_options *where, const tm_bench_gemm_options *options, const tm_monitor *monitor,
                        tm_bench_gemm_report *report) {
    bench b = {.outer = monitor};
    TM__TRY(tm__options_check(tm_bench_gemm_option_table, options, &b.options));
    if (options) b.options = *options;
    tm_status status = open_types(&b, where);
    if (status == TM_OK) status = measure(&b);
    for (size_t t = 0; t < TM_BENCH_TYPES; t++) tm_device_close(b.devices[t]);
    free(b.room);
    if (status == TM_OK)
        *report = b.report;
    else
        tm_bench_gemm_report_release(&b.report);
    return status;
}

void tm_bench_gemm_report_release(tm_bench_gemm_report *report) {
    for (size_t t = 0; t < TM_BENCH_TYPES; t++)
        for (size_t i = 0; i < TM_BENCH_LAYERS; i++)
            for (int pass = 0; pass < TM_BENCH_PASSES; pass++) free(report->types[t].times[i][pass].seconds);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_gemm_report){0};
}
