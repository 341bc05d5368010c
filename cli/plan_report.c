/* plan_report.c: temper report PLAN: what an experiment found, as a page with pictures. */
#include "cli.h"

#include <stdlib.h>

typedef struct report_options {
    cli_plan plan;
    const char *out, *known;
    bool overwrite;
} report_options;

static const tm_option table[] = {
    {.name = "known",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(report_options, known),
     .min = 1,
     .unit = "FILE",
     .help = "take cells that this file holds (written by temper run --csv) as done"},
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(report_options, out),
     .initial = "report",
     .min = 1,
     .unit = "DIR",
     .help = "where report.html, tables and pictures go"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(report_options, overwrite),
     .min = 1,
     .help = "replace --out if it is there"},
    {0},
};

static tm_status write_report(const char *path, const report_options *o, const tm_monitor *monitor) {
    tm_device *device = NULL;
    tm_plan *plan = NULL;
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = cli_plan_open(&o->plan, path, device, &plan);
    if (status == TM_OK && o->known) status = tm_plan_begin(plan);
    if (status == TM_OK && o->known) status = tm_plan_import(plan, o->known);
    if (status == TM_OK) status = tm_plan_report(plan, o->out, o->overwrite, monitor);
    tm_plan_free(plan);
    tm_device_close(device);
    return status;
}

static void print_place(const char *directory, bool json) {
    char path[4200];
    cli_json out = {.out = stdout};
    if (!json) {
        printf("%s/report.html\n", directory);
        return;
    }
    snprintf(path, sizeof path, "%.4100s/report.html", directory);
    cli_json_open(&out, NULL, '{');
    cli_json_text(&out, "report", path);
    cli_json_close(&out, '}');
}

static int run(int argc, char **argv) {
    report_options options;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_report, 1);
    cli_plan_args(&args, &options.plan);
    cli_args_group(&args, "Report", table, &options);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count == 0) {
        code = cli_error(TM_INVALID, "PLAN", "plans/ holds some", "temper report needs a plan");
    } else {
        tm_status status = write_report(args.words[0], &options, cli_monitor(&output));
        code = status == TM_OK ? 0 : cli_fail(status);
        if (code == 0) print_place(options.out, output.json);
    }
    cli_args_end(&args);
    return code;
}

const cli_command cli_report = {
    .name = "report",
    .words = "PLAN",
    .summary = "what an experiment found, as a page with pictures",
    .about =
        "Writes the results of a plan as one HTML page that opens offline (light, dark and in print): harm against "
        "ability and against the attacker's cost, paired tests, every table, losses, and what is needed to repeat "
        "it. Beside it every table as CSV and LaTeX, every picture as SVG, PNG and gnuplot script.",
    .examples = "temper report plans/world-repnoise.yaml --directory runs\n"
                "temper report plans/world.yaml --known docs/results/world.csv --out world-report",
    .run = run,
};
