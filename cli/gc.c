/* gc.c: temper gc PLAN...: removes from a directory of temper run what no plan needs. */
#include "cli.h"

enum { PLANS = 32 };

static void print_report(const tm_gc_report *r, const tm_gc_options *how, bool json) {
    if (json) {
        cli_json out = {.out = stdout};
        cli_json_open(&out, NULL, '{');
        cli_json_bool(&out, "dry_run", how->dry_run);
        cli_json_int(&out, "models", (int64_t)r->models);
        cli_json_int(&out, "worlds", (int64_t)r->worlds);
        cli_json_int(&out, "results", (int64_t)r->results);
        cli_json_int(&out, "others", (int64_t)r->others);
        cli_json_int(&out, "bytes", r->bytes);
        cli_json_close(&out, '}');
        return;
    }
    printf("%s\n", how->dry_run ? "would be removed:" : "removed:");
    printf("models     %zu\n", r->models);
    printf("worlds     %zu\n", r->worlds);
    printf("results    %zu\n", r->results);
    printf("others     %zu\n", r->others);
    printf("disk       %.1f MiB\n", (double)r->bytes / 1048576);
}

static int collect(const cli_args *args, const cli_plan *o, const tm_gc_options *how, bool json) {
    tm_device *device = NULL;
    tm_plan *plans[PLANS] = {0};
    tm_gc_report report;
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_status status = tm_device_open(&where, &device);
    for (size_t i = 0; i < args->word_count && status == TM_OK; i++)
        status = cli_plan_open(o, args->words[i], device, &plans[i]);
    if (status == TM_OK) status = tm_gc(o->directory, plans, args->word_count, how, &report);
    int code = status == TM_OK ? 0 : cli_fail(status);
    if (code == 0) print_report(&report, how, json);
    for (size_t i = 0; i < PLANS; i++) tm_plan_free(plans[i]);
    tm_device_close(device);
    return code;
}

static int run(int argc, char **argv) {
    cli_plan options;
    tm_gc_options how;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_gc, PLANS);
    cli_plan_args(&args, &options);
    cli_args_group(&args, "What goes", tm_gc_option_table, &how);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count == 0)
        code = cli_error(TM_INVALID, "PLAN", "name every plan whose models and results stay", "temper gc needs a plan");
    else
        code = collect(&args, &options, &how, output.json);
    cli_args_end(&args);
    return code;
}

const cli_command cli_gc = {
    .name = "gc",
    .words = "PLAN...",
    .summary = "remove what no experiment needs any more",
    .about =
        "Removes from a directory of temper run the models, worlds, results and leftovers of killed processes that "
        "none of the named plans needs: of plans that were changed or are not named. Results of the named plans "
        "stay, and so do their models, unless --finished says that those may go that nothing to be done starts "
        "from; a later run makes again what it needs. Refuses while a run is at work there, and where nothing is of "
        "the "
        "named plans.",
    .examples = "temper gc plans/demo.yaml --directory temper-demo --dry-run\n"
                "temper gc plans/world.yaml plans/world-sdd.yaml --directory runs\n"
                "temper gc plans/world.yaml --directory runs --finished --keep-results",
    .run = run,
};
