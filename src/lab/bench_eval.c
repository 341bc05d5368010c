/* bench_eval.c: tm_bench_eval: how fast multiple-choice questions are answered by likelihood.
 *
 * An evaluation is run as any user runs it: a file in ARC's layout is read by the suite arc_easy and asked through
 * tm_evaluation_run. Items are made of random letters, one token a byte, so that their lengths are exact. The time is
 * split where the run first asks whether to stop, which it does when all prompts are ids.
 * (tests/unit/test_bench_eval.c)
 */
#include "lab/bench.h"

#include "eval/suite.h"
#include "model/model.h"
#include "train/train.h"

#include <stdlib.h>

#define FIELD(name) offsetof(tm_bench_eval_options, name)
const tm_option tm_bench_eval_option_table[] = {
    TM__BENCH_MODEL_OPTIONS(tm_bench_eval_options),
    {"items", TM_OPTION_INT, FIELD(items), "32", 1, 1e6, NULL, NULL, "questions"},
    {"question", TM_OPTION_INT, FIELD(question), "128", 24, 1e5, NULL, "tokens", "length of each question"},
    {"choices", TM_OPTION_INT, FIELD(choices), "4", 2, 26, NULL, NULL, "answers to choose from"},
    {"answer", TM_OPTION_INT, FIELD(answer), "8", 2, 1e5, NULL, "tokens", "length of each of these"},
    {"batch", TM_OPTION_INT, FIELD(batch), "32", 1, 4096, NULL, "rows", "sequences at a time"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "3", 1, 1000, NULL, "runs", NULL},
    {0},
};

typedef struct bench {
    tm_device *device;
    tm_bench_eval_options options;
    const tm_monitor *outer;
    tm_model *model;
    tm_tokenizer *tokenizer;
    char *scratch, *data;
    tm__products products;
    tm_bench_eval_report report;
} bench;

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* What the suite puts around a question, behind the token that begins a text. */
#define BEFORE "Question: "
#define BEHIND "\nAnswer:"

static bool letters(tm__string *out, int64_t count, tm__rng *rng) {
    bool ok = true;
    for (int64_t i = 0; i < count && ok; i++) {
        char letter = (char)('a' + tm__rng_below(rng, 26));
        ok = tm__string_append(out, &letter, 1);
    }
    return ok;
}

static bool put_item(tm__string *out, const tm_bench_eval_options *o, tm__rng *rng) {
    bool ok = tm__string_printf(out, "{\"question\": \"") &&
              letters(out, o->question - (int64_t)strlen(BEFORE BEHIND) - 1, rng) &&
              tm__string_printf(out, "\", \"choices\": {\"label\": [\"A\"");
    for (int64_t i = 1; i < o->choices; i++) ok = ok && tm__string_printf(out, ", \"%c\"", (int)('A' + i));
    ok = ok && tm__string_printf(out, "], \"text\": [");
    for (int64_t i = 0; i < o->choices; i++) {
        ok = ok && tm__string_printf(out, i ? ", \"" : "\"");
        ok = ok && letters(out, o->answer - 1, rng) && tm__string_printf(out, "\""); /* and a blank before */
    }
    return ok && tm__string_printf(out, "]}, \"answerKey\": \"A\"}\n");
}

static tm_status write_data(bench *b) {
    tm__string text = {0};
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 0));
    bool ok = true;
    TM__TRY(tm__bench_scratch(&b->scratch));
    b->data = tm__path_join(b->scratch, "test.jsonl");
    for (int64_t i = 0; i < b->options.items && ok; i++) ok = put_item(&text, &b->options, &rng);
    tm_status status = ok && b->data ? tm__file_write(b->data, text.data, text.len) : tm__fail_memory();
    tm__string_free(&text);
    return status;
}

/* ---- one evaluation ---------------------------------------------------------------------------------------------- */

typedef struct watch {
    const bench *b;
    double encoded; /* when all prompts were ids; 0: not yet */
    int64_t fed;
} watch;

static bool on_stop(void *user) {
    watch *w = user;
    if (w->encoded == 0) w->encoded = tm__now();
    return tm__stop(w->b->outer);
}

static void on_progress(void *user, const tm_progress *p) {
    ((watch *)user)->fed = p->tokens;
}

static tm_status run(bench *b) {
    tm_bench_eval_report *r = &b->report;
    tm_eval_options o = {0}; /* the table has not all of them */
    tm_evaluation *evaluation = NULL;
    watch w = {.b = b};
    const tm_monitor monitor = {.stop = on_stop, .progress = on_progress, .user = &w};
    tm_options_default(tm_eval_option_table, &o);
    o.batch = b->options.batch;
    double began = tm__now();
    TM__TRY(tm_evaluation_open(&tm__suite_arc_easy, b->data, &o, &evaluation));
    double read = tm__now();
    tm_status status = tm_evaluation_run(evaluation, b->model, b->tokenizer, NULL, &monitor);
    double ended = tm__now();
    tm_evaluation_free(evaluation);
    TM__TRY(status);
    r->read.seconds[r->read.count++] = read - began;
    r->encode.seconds[r->encode.count++] = w.encoded - read;
    r->score.seconds[r->score.count++] = ended - w.encoded;
    r->run.seconds[r->run.count++] = ended - began;
    r->fed = w.fed;
    return TM_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* Each token that is fed passes the blocks; the first token of all answers is one look through the output layer, and
 * each later one a look of its own. */
static double operations(const bench *b) {
    const tm_bench_eval_options *o = &b->options;
    const tm__bench_size size = {.model = b->report.frame.model, .length = (double)(o->question + o->answer)};
    return 2 * tm__bench_pass(&size, (double)b->report.fed, (double)(o->items * (1 + o->choices * (o->answer - 1))));
}

static tm_status repeat(bench *b, double *foreign, double *room) {
    tm_bench_eval_report *r = &b->report;
    double began = tm__now();
    for (int64_t i = 0; i < b->options.repeats; i++) {
        bool peak = tm__peak_reset();
        tm__meter from = tm__meter_read();
        TM__TRY(run(b));
        tm__meter to = tm__meter_read();
        foreign[i] = tm__meter_foreign(&from, &to);
        if (peak) r->figures.peak = TM__MAX(r->figures.peak, tm__peak_bytes());
        tm__pool_trim(b->device);
        TM__TRY(tm__bench_products(&b->products, &r->frame));
        tm__bench_progress(b->outer, "evaluate", "run", i + 1, b->options.repeats, began);
    }
    tm_bench_times *times[] = {&r->run, &r->read, &r->encode, &r->score};
    for (size_t i = 0; i < TM__COUNT(times); i++) tm__bench_summarise(times[i], room);
    tm__bench_frame_finish(&b->products, &r->frame, room);
    r->tokens = b->options.items * b->options.choices * (b->options.question + b->options.answer);
    r->items = (double)b->options.items / r->run.median;
    r->figures.tokens = (double)r->tokens / r->run.median;
    r->figures.flops = operations(b) / r->run.median;
    r->figures.share = r->figures.flops / r->frame.product_flops;
    r->figures.foreign = tm__bench_median(foreign, (size_t)b->options.repeats, room);
    return TM_OK;
}

static tm_status measure(bench *b) {
    tm_bench_eval_report *r = &b->report;
    tm_bench_times *times[] = {&r->run, &r->read, &r->encode, &r->score, &r->frame.products};
    size_t n = (size_t)b->options.repeats;
    double *room = tm__zalloc(2 * n, sizeof *room);
    tm_status status = room ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < TM__COUNT(times) && status == TM_OK; i++) {
        times[i]->seconds = tm__zalloc(n, sizeof(double));
        if (!times[i]->seconds) status = tm__fail_memory();
    }
    if (status == TM_OK) status = repeat(b, room, room + n);
    free(room);
    return status;
}

static tm_status open_model(bench *b) {
    const tm_bench_eval_options *o = &b->options;
    const tm__bench_source source = {o->shape, o->config, o->model, o->weights};
    tm_model_info *info = &b->report.frame.model;
    TM__TRY(tm__bench_open(&source, b->device, &b->model));
    tm__bench_described(b->model, info, b->report.dtype);
    if (info->vocab_size < TM__BENCH_VOCAB)
        return tm__fail(TM_UNSUPPORTED, o->config, "vocab_size", NULL,
                        "%lld is less than the %d that made-up rows need", (long long)info->vocab_size,
                        TM__BENCH_VOCAB);
    /* as many rows as a call of likelihood.c has, if there are so many */
    int64_t fresh = o->question + o->choices * (o->answer - 1);
    int64_t rows = TM__MIN(o->items * fresh, (int64_t)2048), looks = rows * (1 + o->choices * (o->answer - 1)) / fresh;
    b->products =
        (tm__products){.device = b->device, .weights = b->model->embed.value.dtype, .passes = 1, .row_invariant = true};
    tm__products_layers(&b->products, info, rows, TM__MAX(looks, (int64_t)1));
    return tm__bench_tokenizer(&b->tokenizer);
}

tm_status tm_bench_eval(tm_device *device, const tm_bench_eval_options *options, const tm_monitor *monitor,
                        tm_bench_eval_report *report) {
    bench b = {.device = device, .outer = monitor};
    TM__TRY(tm__options_check(tm_bench_eval_option_table, options, &b.options));
    if (options) b.options = *options;
    tm_status status = open_model(&b);
    if (status == TM_OK) status = write_data(&b);
    if (status == TM_OK) status = measure(&b);
    if (b.scratch) tm__remove_tree(b.scratch);
    free(b.scratch);
    free(b.data);
    tm_tokenizer_free(b.tokenizer);
    tm_model_free(b.model);
    if (status == TM_OK)
        *report = b.report;
    else
        tm_bench_eval_report_release(&b.report);
    return status;
}

void tm_bench_eval_report_release(tm_bench_eval_report *report) {
    free(report->run.seconds);
    free(report->read.seconds);
    free(report->encode.seconds);
    free(report->score.seconds);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_eval_report){0};
}
