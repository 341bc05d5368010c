/* bench_generate.c: temper bench generate: tokens a second, in batches and of a row alone. */
#include "cli.h"

static void print_report(const tm_device *device, const tm_bench_generate_options *o,
                         const tm_bench_generate_report *r) {
    const tm_model_info *m = &r->model;
    double gb = (double)r->weight_bytes / 1e9;
    char s[3][32];
    printf("model      %lld wide, %lld layers, %lld/%lld heads, FFN %lld, vocabulary %s; %s parameters as %s\n",
           (long long)m->hidden_size, (long long)m->layers, (long long)m->heads, (long long)m->kv_heads,
           (long long)m->intermediate_size, cli_thousands(m->vocab_size), cli_thousands(m->parameters), r->dtype);
    printf("work       %lld prompts of %lld tokens (%lld in common), %lld new ones each, %lld rows at a time\n",
           (long long)o->prompts, (long long)o->length, (long long)o->shared, (long long)o->new_tokens,
           (long long)o->batch);
    printf("device     %s, %s, %s, %d threads; %lld run%s\n\n", tm_device_name(device),
           tm_device_instruction_set(device), tm_device_precision(device), tm_device_threads(device),
           (long long)o->repeats, o->repeats > 1 ? "s, in turns" : "");
    printf("batched    %.1f tokens/s: %.2f s +-%.0f%%; at most %s MiB; others kept %s processors busy\n", r->tokens,
           r->batched.median, cli_bench_spread(&r->batched), r->peak ? cli_thousands(r->peak >> 20) : "unknown",
           cli_bench_number(r->foreign, 1, s[0]));
    if (o->alone) {
        printf("alone      %.1f tokens/s: %.2f ms +-%.0f%% each, %.1f GB/s of weights\n", 1 / r->alone.median,
               1e3 * r->alone.median, cli_bench_spread(&r->alone), gb / r->alone.median);
        printf("memory     %.2f ms +-%.0f%% for reading as much, %.1f GB/s: alone reaches %.0f%% of it\n",
               1e3 * r->read.median, cli_bench_spread(&r->read), r->bandwidth / 1e9, 100 * r->bound_share);
    }
    printf("tokens     SHA-256 %s\n", r->digest);
}

static void print_json(const tm_device *device, const tm_bench_generate_options *o, const tm_bench_generate_report *r) {
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "config", o->config);
    cli_json_text(&json, "model", o->model);
    cli_json_int(&json, "hidden_size", r->model.hidden_size);
    cli_json_int(&json, "layers", r->model.layers);
    cli_json_int(&json, "vocab_size", r->model.vocab_size);
    cli_json_int(&json, "parameters", r->model.parameters);
    cli_json_text(&json, "weights", r->dtype);
    cli_json_int(&json, "weight_bytes", r->weight_bytes);
    cli_json_int(&json, "prompts", o->prompts);
    cli_json_int(&json, "length", o->length);
    cli_json_int(&json, "shared", o->shared);
    cli_json_int(&json, "new", o->new_tokens);
    cli_json_int(&json, "batch", o->batch);
    cli_json_int(&json, "repeats", o->repeats);
    cli_json_text(&json, "device", tm_device_name(device));
    cli_json_text(&json, "instruction_set", tm_device_instruction_set(device));
    cli_json_text(&json, "precision", tm_device_precision(device));
    cli_json_int(&json, "threads", tm_device_threads(device));
    cli_json_real(&json, "tokens_per_second", r->tokens);
    cli_bench_json_times(&json, "batched", &r->batched);
    cli_json_int(&json, "peak_bytes", r->peak);
    cli_json_real(&json, "foreign_processors", r->foreign);
    if (o->alone) {
        cli_bench_json_times(&json, "alone", &r->alone);
        cli_bench_json_times(&json, "read", &r->read);
        cli_json_real(&json, "read_bytes_per_second", r->bandwidth);
        cli_json_real(&json, "share_of_read_bound", r->bound_share);
    }
    cli_json_text(&json, "digest", r->digest);
    cli_json_close(&json, '}');
}

static int measure(const tm_bench_generate_options *options, const tm_device_options *where, const cli_output *output) {
    tm_bench_generate_report report = {0};
    tm_device *device = NULL;
    const tm_monitor *monitor = cli_monitor(output);
    tm_status status = tm_device_open(where, &device);
    if (status == TM_OK) status = tm_bench_generate(device, options, monitor, &report);
    cli_monitor_end();
    int code = status == TM_OK ? 0 : cli_fail(status);
    if (status == TM_OK) (output->json ? print_json : print_report)(device, options, &report);
    tm_bench_generate_report_release(&report);
    tm_device_close(device);
    return code;
}

int cli_bench_generate(int argc, char **argv) {
    tm_bench_generate_options options;
    tm_device_options where;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_bench, 0);
    args.subject = "generate";
    args.about =
        "Times greedy generation of many prompts in batches, from random tokens and without a stop token, and of one "
        "row alone: a token of it costs at least one reading of the weights, so after each as many bytes of other "
        "memory are read by as many threads, and the two are compared. Random weights are kept in the temporary "
        "directory meanwhile. bench/generate_speed.py does the same beside transformers.";
    args.examples = "temper bench generate --shape tiny\n"
                    "temper bench generate --shape world --prompts 64 --new 32 --weights bf16 --repeats 1\n"
                    "temper bench generate --model my-model --batch 8 --shared 20 --length 24 --new 8 --json";
    cli_args_group(&args, "Measurement", tm_bench_generate_option_table, &options);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    code = measure(&options, &where, &output);
    cli_args_end(&args);
    return code;
}
