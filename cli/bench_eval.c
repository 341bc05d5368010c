/* bench_eval.c: temper bench eval: multiple-choice questions by likelihood. */
#include "cli.h"

static void print(const cli_bench_work *work) {
    const tm_bench_eval_options *o = work->options;
    const tm_bench_eval_report *r = work->report;
    cli_bench_print_model(&r->frame, o->shape, o->config, o->model, r->dtype);
    printf("work       %lld questions of %lld tokens with %lld answers of %lld, %lld sequences at a time\n",
           (long long)o->items, (long long)o->question, (long long)o->choices, (long long)o->answer,
           (long long)o->batch);
    cli_bench_print_device(work);
    printf("runs       %lld\n\n", (long long)o->repeats);
    printf("rate       %.1f items/s, %.1f tokens/s of questions and answers\n", r->items, r->figures.tokens);
    cli_bench_print_times("all", &r->run, "");
    cli_bench_print_times("  read", &r->read, ": data to prompts");
    cli_bench_print_times("  encode", &r->encode, ": prompts to ids");
    cli_bench_print_times("  score", &r->score, ": ids to likelihoods and numbers");
    printf("computed   %s tokens of %s: what answers share is computed once\n", cli_thousands(r->fed),
           cli_thousands(r->tokens));
    cli_bench_print_figures(&r->frame, &r->figures);
}

static void json(const cli_bench_work *work, cli_json *json) {
    const tm_bench_eval_report *r = work->report;
    cli_json_text(json, "weights", r->dtype);
    cli_json_int(json, "tokens", r->tokens);
    cli_json_int(json, "computed_tokens", r->fed);
    cli_json_real(json, "items_per_second", r->items);
    cli_bench_json_figures(json, &r->figures);
    cli_bench_json_times(json, "products", &r->frame.products);
    cli_bench_json_times(json, "run", &r->run);
    cli_bench_json_times(json, "read", &r->read);
    cli_bench_json_times(json, "encode", &r->encode);
    cli_bench_json_times(json, "score", &r->score);
}

static tm_status measure(cli_bench_work *work) {
    return tm_bench_eval(work->device, work->options, work->monitor, work->report);
}

static void release(void *report) {
    tm_bench_eval_report_release(report);
}

const cli_bench_kind cli_bench_eval = {
    .name = "eval",
    .about = "Times a whole evaluation of made-up multiple-choice questions by likelihood, as temper eval arc_easy "
             "does it: reading the data, encoding it, scoring every answer. One letter is one token, so that lengths "
             "are exact. Random weights are kept in the temporary directory meanwhile.",
    .examples = "temper bench eval --shape tiny\n"
                "temper bench eval --shape world --items 100 --question 64 --choices 2 --repeats 1\n"
                "temper bench eval --shape tiny --items 8 --json",
    .table = tm_bench_eval_option_table,
    .options_size = sizeof(tm_bench_eval_options),
    .report_size = sizeof(tm_bench_eval_report),
    .measure = measure,
    .print = print,
    .json = json,
    .release = release,
};
