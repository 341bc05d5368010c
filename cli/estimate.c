/* estimate.c: temper run PLAN --dry-run: how much of a plan is there, and what the rest takes. */
#include "cli.h"

#include <stdlib.h>

/* What the rest takes and may take. */
typedef struct forecast {
    const cli_plan_counts *counts;
    tm_plan_estimate e;
    tm_plan_budget budget;
    double seconds; /* with all workers */
    int64_t disk;   /* with what is there */
} forecast;

static void print_time(double seconds) {
    if (!(seconds >= 0))
        printf("not known");
    else if (seconds < 120)
        printf("%.0f s", seconds);
    else if (seconds < 7200)
        printf("%.0f min", seconds / 60);
    else
        printf("%.1f h", seconds / 3600);
}

static void print_over(const char *what, double wanted, double allowed, const char *unit) {
    if (allowed > 0 && wanted > allowed)
        printf("budget     %s: %.6g%s wanted, %.6g%s allowed\n", what, wanted, unit, allowed, unit);
}

static void print_counts(const cli_plan_counts *n) {
    printf("jobs       %zu: %zu cells, %zu models\n", n->cells + n->models, n->cells, n->models);
    printf("done       %zu cells\n", n->done);
    if (n->waiting) printf("searching  %zu of the cells are trials that an earlier rung decides about\n", n->waiting);
    fflush(stdout);
}

static void print_forecast(const forecast *f) {
    const tm_plan_estimate *e = &f->e;
    const tm_plan_budget *b = &f->budget;
    printf("left       %zu jobs, %lld steps of training\n", e->jobs, (long long)e->steps);
    printf("time       ");
    print_time(e->seconds);
    printf(" one after another; ");
    print_time(f->seconds);
    printf(" with %lld at a time, if nothing waits (from %s)\n", (long long)f->counts->workers, e->basis);
    printf("memory     %.0f MiB for the largest job (rehearsed; what is mapped from files included)\n",
           (double)e->memory / 0x1p20);
    printf("disk       %.0f MiB of models\n", (double)e->disk / 0x1p20);
    if (e->unknown) printf("unknown    %zu jobs could not be rehearsed: %s\n", e->unknown, e->why);
    print_over("seconds", f->seconds, b->seconds, "");
    print_over("steps", (double)e->steps, (double)b->steps, "");
    print_over("memory", (double)e->memory / 0x1p20, (double)b->memory / 0x1p20, " MiB");
    print_over("disk", (double)f->disk / 0x1p20, (double)b->disk / 0x1p20, " MiB");
}

/* `f`: NULL where nothing is left, or only counts are wanted. */
static void print_json(const cli_plan_counts *n, const forecast *f) {
    cli_json out = {.out = stdout};
    cli_json_open(&out, NULL, '{');
    cli_json_int(&out, "cells", (int64_t)n->cells);
    cli_json_int(&out, "models", (int64_t)n->models);
    cli_json_int(&out, "done", (int64_t)n->done);
    cli_json_int(&out, "waiting", (int64_t)n->waiting);
    if (f) {
        cli_json_open(&out, "left", '{');
        cli_json_int(&out, "jobs", (int64_t)f->e.jobs);
        cli_json_int(&out, "steps", f->e.steps);
        cli_json_real(&out, "seconds", f->e.seconds);
        cli_json_int(&out, "workers", n->workers);
        cli_json_real(&out, "seconds_with_workers", f->seconds);
        cli_json_text(&out, "basis", f->e.basis);
        cli_json_int(&out, "memory", f->e.memory);
        cli_json_int(&out, "disk", f->e.disk);
        cli_json_int(&out, "unknown", (int64_t)f->e.unknown);
        cli_json_text(&out, "why", f->e.unknown ? f->e.why : NULL);
        cli_json_close(&out, '}');
    }
    cli_json_close(&out, '}');
}

int cli_estimate(const tm_plan *plan, const cli_plan_counts *counts, bool alone, const cli_output *output) {
    forecast f = {.counts = counts};
    tm_device *device = NULL;
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_monitor quiet = *cli_monitor(output); /* it can be stopped, and says nothing of probes */
    quiet.progress = NULL;
    quiet.note = NULL;
    if (!output->json) print_counts(counts);
    if (alone || counts->done == counts->cells) {
        if (output->json) print_json(counts, NULL);
        return 0;
    }
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = tm_plan_estimate_left(plan, device, &quiet, &f.e);
    tm_device_close(device);
    if (status != TM_OK) return cli_fail(status);
    tm_plan_limits(plan, &f.budget);
    f.seconds = f.e.seconds / (double)counts->workers;
    f.disk = f.e.disk + tm_plan_disk(plan);
    if (output->json)
        print_json(counts, &f);
    else
        print_forecast(&f);
    return 0;
}
