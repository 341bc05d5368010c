/* bench_tokenize.c: tm_bench_tokenize: how fast a file becomes ids, on one thread.
 *
 * Each run loads the tokenizer afresh, so that its table of words starts empty, and encodes the whole file as one text.
 * A rate per thread is of processor time, which other work on the machine stretches less than the clock's.
 * bench/tokenizers_speed.py compares with Hugging Face's `tokenizers`. (tests/unit/test_bench_tokenize.c)
 */
#include "lab/bench.h"

#include "train/train.h"

#include <stdlib.h>
#include <time.h>

#define FIELD(name) offsetof(tm_bench_tokenize_options, name)
const tm_option tm_bench_tokenize_option_table[] = {
    {"model", TM_OPTION_TEXT, FIELD(model), NULL, 1, 0, NULL, "DIR|FILE",
     "checkpoint directory, tokenizer.json or tokenizer.model"},
    {"file", TM_OPTION_TEXT, FIELD(file), NULL, 1, 0, NULL, "FILE", "text to encode, as one"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "3", 1, 1000, NULL, "runs", "runs, each with a tokenizer just loaded"},
    {0},
};

static double processor_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return NAN;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void put(tm_bench_times *times, double seconds) {
    times->seconds[times->count++] = seconds;
}

static tm_status run(const tm_bench_tokenize_options *o, const char *text, size_t len, tm_bench_tokenize_report *r) {
    tm_tokenizer *tokenizer = NULL;
    tm_ids ids = {0};
    double began = tm__now();
    TM__TRY(tm_tokenizer_load(o->model, &tokenizer));
    double loaded = tm__now(), processor = processor_seconds();
    tm_status status = tm_tokenizer_encode(tokenizer, text, len, 0, &ids);
    put(&r->load, loaded - began);
    put(&r->encode, tm__now() - loaded);
    put(&r->processor, processor_seconds() - processor);
    r->tokens = (int64_t)ids.len;
    snprintf(r->kind, sizeof r->kind, "%s", tm_tokenizer_kind(tokenizer));
    tm_ids_free(&ids);
    tm_tokenizer_free(tokenizer);
    return status;
}

static tm_status repeat(const tm_bench_tokenize_options *o, const tm_monitor *monitor, const char *text, size_t len,
                        double *foreign, double *room, tm_bench_tokenize_report *r) {
    double began = tm__now();
    r->bytes = (int64_t)len;
    for (int64_t i = 0; i < o->repeats; i++) {
        if (tm__stop(monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "measuring was interrupted");
        bool peak = tm__peak_reset();
        tm__meter from = tm__meter_read();
        TM__TRY(run(o, text, len, r));
        tm__meter to = tm__meter_read();
        foreign[i] = tm__meter_foreign(&from, &to);
        if (peak) r->figures.peak = TM__MAX(r->figures.peak, tm__peak_bytes());
        tm__bench_progress(monitor, "tokenize", "run", i + 1, o->repeats, began);
    }
    tm__bench_summarise(&r->load, room);
    tm__bench_summarise(&r->encode, room);
    tm__bench_summarise(&r->processor, room);
    r->figures.tokens = (double)r->tokens / r->encode.median;
    r->figures.flops = r->figures.share = NAN;
    r->figures.foreign = tm__bench_median(foreign, (size_t)o->repeats, room);
    r->byte_rate = (double)r->bytes / r->processor.median;
    r->load_share = r->load.median / (r->load.median + r->encode.median);
    return TM_OK;
}

tm_status tm_bench_tokenize(const tm_bench_tokenize_options *options, const tm_monitor *monitor,
                            tm_bench_tokenize_report *report) {
    tm_bench_tokenize_options o;
    tm_bench_tokenize_report made = {.frame.product_flops = NAN};
    char *text = NULL;
    size_t len;
    TM__TRY(tm__options_check(tm_bench_tokenize_option_table, options, &o));
    if (options) o = *options;
    if (!o.model) return tm__fail(TM_INVALID, NULL, "model", NULL, "must be given");
    if (!o.file) return tm__fail(TM_INVALID, NULL, "file", NULL, "must be given");
    TM__TRY(tm__file_read(o.file, INT32_MAX, &text, &len));
    size_t n = (size_t)o.repeats;
    double *room = tm__zalloc(2 * n, sizeof *room);
    made.load.seconds = tm__zalloc(n, sizeof(double));
    made.encode.seconds = tm__zalloc(n, sizeof(double));
    made.processor.seconds = tm__zalloc(n, sizeof(double));
    bool ok = room && made.load.seconds && made.encode.seconds && made.processor.seconds;
    tm_status status = ok ? repeat(&o, monitor, text, len, room, room + n, &made) : tm__fail_memory();
    free(room);
    free(text);
    if (status == TM_OK)
        *report = made;
    else
        tm_bench_tokenize_report_release(&made);
    return status;
}

void tm_bench_tokenize_report_release(tm_bench_tokenize_report *report) {
    free(report->load.seconds);
    free(report->encode.seconds);
    free(report->processor.seconds);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_tokenize_report){0};
}
