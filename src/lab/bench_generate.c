/* bench_generate.c: tm_bench_generate: tokens a second of batched generation, and how near a lone row comes to the
 * speed at which memory can be read.
 *
 * Generation is run as any user runs it, through tm_generate, greedy and without a stop token. A step of a lone row
 * reads every weight once; after each step as many bytes of other memory are read by as many threads, so that both meet
 * the same load of the machine, and neither finds its bytes in a cache. Medians are compared.
 * (tests/unit/test_bench_generate.c)
 */
#include "lab/bench.h"

#include "model/weights.h"
#include "train/train.h"

#include <stdlib.h>

#define FIELD(name) offsetof(tm_bench_generate_options, name)
const tm_option tm_bench_generate_option_table[] = {
    TM__BENCH_MODEL_OPTIONS(tm_bench_generate_options),
    {"prompts", TM_OPTION_INT, FIELD(prompts), "300", 1, 1e6, NULL, NULL, "prompts, of random tokens"},
    {"length", TM_OPTION_INT, FIELD(length), "32", 1, 1e6, NULL, "tokens", "length of each prompt"},
    {"shared", TM_OPTION_INT, FIELD(shared), "0", 0, 1e6, NULL, "tokens",
     "how many of them all prompts begin with, as with a system prompt"},
    {"new", TM_OPTION_INT, FIELD(new_tokens), "128", 1, 1e6, NULL, "tokens", "length of each answer"},
    {"batch", TM_OPTION_INT, FIELD(batch), "32", 1, 4096, NULL, "rows", "rows generated at a time"},
    {"alone", TM_OPTION_INT, FIELD(alone), "32", 0, 1e6, NULL, "tokens",
     "tokens of a lone row, each timed beside a reading of memory; 0: none"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "3", 1, 1000, NULL, "runs", "runs of both, in turns"},
    {0},
};

typedef struct bench {
    tm_device *device;
    tm_bench_generate_options options;
    const tm_monitor *outer;
    tm_model *model;
    int32_t *ids; /* (prompts, length) */
    tm_ids *prompts, *answers;
    uint64_t *memory; /* what is read beside a lone row, while there is one */
    size_t memory_bytes;
    tm__products products;
    tm_bench_generate_report report;
} bench;

/* ---- model and prompts ------------------------------------------------------------------------------------------- */

static tm_status make_prompts(bench *b) {
    const tm_bench_generate_options *o = &b->options;
    size_t n = (size_t)o->prompts, length = (size_t)o->length;
    uint32_t vocab = (uint32_t)b->model->config.vocab;
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 0));
    b->ids = tm__alloc(n * length, sizeof *b->ids);
    b->prompts = tm__zalloc(n, sizeof *b->prompts);
    b->answers = tm__zalloc(n, sizeof *b->answers);
    if (!b->ids || !b->prompts || !b->answers) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        int32_t *row = b->ids + i * length;
        for (size_t t = 0; t < length; t++) row[t] = (int32_t)(tm__rng_u32(&rng) % vocab);
        memcpy(row, b->ids, (size_t)o->shared * sizeof *row);
        b->prompts[i] = (tm_ids){row, length, length};
    }
    return TM_OK;
}

static tm_status add_bytes(void *user, tm__param *param, bool is_adapter) {
    bench *b = user;
    if (param == &b->model->embed && b->model->head.name) return TM_OK; /* of a table of its own one row is read */
    if (is_adapter) return TM_OK;
    if (b->device->int8_weights && param->value.ndim == 2)
        b->report.weight_bytes += (int64_t)b->device->k->int8_bytes(param->value.shape[0], param->value.shape[1]);
    else
        b->report.weight_bytes +=
            (int64_t)((size_t)tm__tensor_count(&param->value) * tm__dtype_size(param->value.dtype));
    return TM_OK;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static void forget_answers(bench *b, size_t n) {
    for (size_t i = 0; b->answers && i < n; i++) tm_ids_free(&b->answers[i]);
}

static tm_generate_options generate_options(int64_t batch, int64_t tokens) {
    tm_generate_options o;
    tm_options_default(tm_generate_option_table, &o);
    o.batch = batch;
    o.max_new_tokens = tokens;
    o.ignore_stop = true;
    return o;
}

static tm_status run_batched(bench *b, double *seconds) {
    const tm_generate_options o = generate_options(b->options.batch, b->options.new_tokens);
    size_t n = (size_t)b->options.prompts;
    tm__sha256 hash;
    double began = tm__now();
    TM__TRY(tm_generate(b->model, b->prompts, n, NULL, 0, &o, b->outer, b->answers));
    *seconds = tm__now() - began;
    tm__sha256_init(&hash);
    for (size_t i = 0; i < n; i++)
        tm__sha256_update(&hash, b->answers[i].data, b->answers[i].len * sizeof *b->answers[i].data);
    tm__sha256_hex(&hash, b->report.digest);
    forget_answers(b, n);
    return TM_OK;
}

typedef struct lone_run {
    bench *b;
    tm_bench_times *steps, *reads;
    double last;   /* when the next step began */
    uint64_t seen; /* what was read, so that it has to be */
} lone_run;

static void on_step(void *user, const tm_progress *p) {
    lone_run *run = user;
    double now = tm__now();
    if (p->tokens > 1) { /* the first step fed the prompt */
        run->steps->seconds[run->steps->count++] = now - run->last;
        now = tm__now();
        run->seen += tm__read_memory(run->b->memory, run->b->memory_bytes, run->b->device->threads);
        run->reads->seconds[run->reads->count++] = tm__now() - now;
    }
    run->last = tm__now();
}

static bool on_stop(void *user) {
    return tm__stop(((const lone_run *)user)->b->outer);
}

static tm_status run_alone(bench *b) {
    const tm_generate_options o = generate_options(1, b->options.alone + 1);
    lone_run run = {.b = b, .steps = &b->report.alone, .reads = &b->report.read};
    const tm_monitor monitor = {.progress = on_step, .stop = on_stop, .user = &run};
    b->memory_bytes = (size_t)b->report.weight_bytes / sizeof *b->memory * sizeof *b->memory;
    b->memory = tm__zalloc(b->memory_bytes / sizeof *b->memory, sizeof *b->memory);
    if (!b->memory) return tm__fail_memory();
    memset(b->memory, 1, b->memory_bytes); /* pages that were never written are all the same one */
    tm_status status = tm_generate(b->model, b->prompts, 1, NULL, 0, &o, &monitor, b->answers);
    forget_answers(b, 1);
    free(b->memory);
    b->memory = NULL;
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* Every token but the last new one passes the blocks, what prompts share once; every new one is a look through the
 * output layer. */
static double operations(const bench *b) {
    const tm_bench_generate_options *o = &b->options;
    double n = (double)o->prompts, shared = (double)o->shared, fresh = (double)(o->length - o->shared);
    double length = (double)(o->length + o->new_tokens);
    const tm__bench_size size = {.model = b->report.frame.model, .length = length};
    return 2 * tm__bench_pass(&size, shared + n * (fresh + (double)o->new_tokens - 1), n * (double)o->new_tokens);
}

static tm_status repeat(bench *b, double *foreign, double *room) {
    tm_bench_generate_report *r = &b->report;
    for (int64_t i = 0; i < b->options.repeats; i++) {
        bool peak = tm__peak_reset();
        tm__meter from = tm__meter_read();
        TM__TRY(run_batched(b, &r->batched.seconds[r->batched.count]));
        tm__meter to = tm__meter_read();
        r->batched.count++;
        foreign[i] = tm__meter_foreign(&from, &to);
        if (peak) r->figures.peak = TM__MAX(r->figures.peak, tm__peak_bytes());
        tm__pool_trim(b->device);
        if (b->options.alone) TM__TRY(run_alone(b));
        TM__TRY(tm__bench_products(&b->products, &r->frame));
    }
    tm__bench_summarise(&r->batched, room);
    tm__bench_summarise(&r->alone, room);
    tm__bench_summarise(&r->read, room);
    tm__bench_frame_finish(&b->products, &r->frame, room);
    r->figures.foreign = tm__bench_median(foreign, (size_t)b->options.repeats, room);
    r->figures.tokens = (double)(b->options.prompts * b->options.new_tokens) / r->batched.median;
    r->figures.flops = operations(b) / r->batched.median;
    r->figures.share = r->figures.flops / r->frame.product_flops;
    r->bandwidth = (double)b->report.weight_bytes / r->read.median;
    r->bound_share = r->read.median / r->alone.median;
    return TM_OK;
}

static tm_status measure(bench *b) {
    size_t runs = (size_t)b->options.repeats, steps = runs * (size_t)b->options.alone;
    tm_bench_generate_report *r = &b->report;
    double *room = tm__zalloc(2 * runs + steps, sizeof *room);
    r->batched.seconds = tm__zalloc(runs, sizeof(double));
    r->alone.seconds = tm__zalloc(steps, sizeof(double));
    r->read.seconds = tm__zalloc(steps, sizeof(double));
    r->frame.products.seconds = tm__zalloc(runs, sizeof(double));
    tm_status status = room && r->frame.products.seconds && r->batched.seconds && r->alone.seconds && r->read.seconds
                           ? TM_OK
                           : tm__fail_memory();
    if (status == TM_OK) status = repeat(b, room, room + runs);
    free(room);
    return status;
}

static tm_status open_model(bench *b) {
    const tm_bench_generate_options *o = &b->options;
    const tm__bench_source source = {o->shape, o->config, o->model, o->weights};
    if (o->shared > o->length)
        return tm__fail(TM_INVALID, NULL, "shared", NULL, "%lld tokens are more than a prompt's %lld",
                        (long long)o->shared, (long long)o->length);
    TM__TRY(tm__bench_open(&source, b->device, &b->model));
    tm__bench_described(b->model, &b->report.frame.model, b->report.dtype);
    int64_t rows = TM__MIN(o->batch, o->prompts);
    b->products =
        (tm__products){.device = b->device, .weights = b->model->embed.value.dtype, .passes = 1, .row_invariant = true};
    tm__products_layers(&b->products, &b->report.frame.model, rows, rows);
    return tm__model_params(b->model, add_bytes, b);
}

tm_status tm_bench_generate(tm_device *device, const tm_bench_generate_options *options, const tm_monitor *monitor,
                            tm_bench_generate_report *report) {
    bench b = {.device = device, .outer = monitor};
    TM__TRY(tm__options_check(tm_bench_generate_option_table, options, &b.options));
    if (options) b.options = *options;
    tm_status status = open_model(&b);
    if (status == TM_OK) status = make_prompts(&b);
    if (status == TM_OK) status = measure(&b);
    free(b.ids);
    free(b.prompts);
    free(b.answers);
    tm_model_free(b.model);
    if (status == TM_OK)
        *report = b.report;
    else
        tm_bench_generate_report_release(&b.report);
    return status;
}

void tm_bench_generate_report_release(tm_bench_generate_report *report) {
    free(report->batched.seconds);
    free(report->alone.seconds);
    free(report->read.seconds);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_generate_report){0};
}
