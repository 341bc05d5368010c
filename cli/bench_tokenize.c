/* bench_tokenize.c: temper bench tokenize: text to ids. */
#include "cli.h"

static void print(const cli_bench_work *work) {
    const tm_bench_tokenize_options *o = work->options;
    const tm_bench_tokenize_report *r = work->report;
    printf("tokenizer  %s, %s\n", o->model, r->kind);
    printf("work       %s: %.1f MB, %s tokens\n", o->file, (double)r->bytes / 1e6, cli_thousands(r->tokens));
    printf("runs       %lld on one thread, each with a tokenizer just loaded\n\n", (long long)o->repeats);
    printf("rate       %.1f MB a second of processor time, %.0f tokens/s by the clock\n", r->byte_rate / 1e6,
           r->figures.tokens);
    cli_bench_print_times("encode", &r->encode, "");
    cli_bench_print_times("load", &r->load, ": reading the tokenizer");
    cli_bench_print_figures(&r->frame, &r->figures);
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_tokenize_report *r = work->report;
    cli_json_text(json, "kind", r->kind);
    cli_json_int(json, "bytes", r->bytes);
    cli_json_int(json, "tokens", r->tokens);
    cli_json_real(json, "bytes_per_processor_second", r->byte_rate);
    cli_json_real(json, "load_share", r->load_share);
    cli_bench_json_figures(json, &r->figures);
    cli_bench_json_times(json, "load", &r->load);
    cli_bench_json_times(json, "encode", &r->encode);
    cli_bench_json_times(json, "processor", &r->processor);
}

static int check(cli_bench_work *work) {
    const tm_bench_tokenize_options *o = work->options;
    int code = cli_check_required("--model", o->model);
    return code ? code : cli_check_required("--file", o->file);
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_tokenize(work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_tokenize_report_release(report);
}

const cli_bench_kind cli_bench_tokenize = {
    .name = "tokenize",
    .about = "Times how a file becomes token ids, as one text and on one thread, with a model's own tokenizer. The "
             "rate is of processor time. bench/tokenizers_speed.py does the same beside Hugging Face's tokenizers.",
    .examples = "temper bench tokenize --model my-model --file text.txt\n"
                "temper bench tokenize --model my-model --file text.txt --repeats 1 --json",
    .table = tm_bench_tokenize_option_table,
    .options_size = sizeof(tm_bench_tokenize_options),
    .report_size = sizeof(tm_bench_tokenize_report),
    .check = check,
    .measure = measure,
    .print = print,
    .json = json,
    .release = release,
};
