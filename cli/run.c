/* run.c: temper run PLAN: arms against attackers, every cell done once, in several processes. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct run_options {
    cli_plan plan;
    const char *compare, *scores, *csv, *known;
    int64_t workers;
    bool dry_run, counts, table;
    int search;
} run_options;

static const tm_option table[] = {
    {.name = "workers",
     .type = TM_OPTION_INT,
     .offset = offsetof(run_options, workers),
     .max = 1024,
     .unit = "processes",
     .help = "jobs done at a time, one thread each (a job that all others wait for gets as many threads as there are "
             "workers, and where memory lets fewer run they share these); 0: as many as there are cores"},
    {.name = "dry-run",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(run_options, dry_run),
     .min = 1,
     .help = "say how much is there, what the rest would take in steps, time, memory and disk, and do none of it"},
    {.name = "counts",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(run_options, counts),
     .min = 1,
     .help = "with --dry-run: count the jobs alone, without rehearsing them"},
    {.name = "table",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(run_options, table),
     .min = 1,
     .help = "do nothing but print the tables of what is done already"},
    {.name = "search",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(run_options, search),
     .initial = "no",
     .min = 1,
     .choices = "no|text|markdown|csv|json|latex",
     .help = "do nothing but print every trial of the plan's attacker searches that is done, with the highest harm so "
             "far against the cost so far"},
    {.name = "compare",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(run_options, compare),
     .min = 1,
     .unit = "ARM,ARM",
     .help = "print the second arm minus the first, paired cell by cell, instead of the tables"},
    {.name = "scores",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(run_options, scores),
     .min = 1,
     .unit = "NAMES",
     .help = "scores to print for every attacker, separated by commas: leak, comply, refuse, withheld_leak, "
             "withheld_comply, skills, dishes, facts, arithmetic, sentiment, downstream (leak,comply,skills if not "
             "given), or "
             "of a plan with evaluations, EVALUATION.NUMBER"},
    {.name = "csv",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(run_options, csv),
     .min = 1,
     .unit = "FILE",
     .help = "write every score here as well: a line per cell, a column per score"},
    {.name = "known",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(run_options, known),
     .min = 1,
     .unit = "FILE",
     .help = "take cells that this file holds (written by --csv) as done; their keys say whether they still are"},
    {0},
};

/* LOCKED: another runner is at it. SPARE: nothing that is still to be done needs it. */
typedef enum state { WAITING, RUNNING, DONE, FAILED, LOCKED, SPARE } state;

typedef struct runner {
    const tm_plan *plan;
    const run_options *options;
    size_t jobs;
    state *states;
    pid_t *workers; /* (options->workers), 0: idle */
    size_t *at;     /* what each is at */
    size_t running, cells, cells_done, failed, begun_with, waiting, models;
    tm_plan_budget budget;
    int64_t memory;        /* that jobs may take together; 0: nobody knows */
    tm_plan_needs *taken;  /* (options->workers) what each takes */
    int64_t in_use, steps; /* bytes of memory of those that run; steps of those begun */
    int64_t promised;      /* bytes of disk that those that run will take */
    const char *exhausted; /* what there is no more of */
    int failure;           /* exit code of the first job that failed */
    double start;
} runner;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A process of its own per job: what fails, fails alone, and memory and time are the job's. It ends with the runner. */
static int work(const runner *r, size_t job, int64_t threads) {
    tm_device *device = NULL;
    tm_device_options where = {.name = "cpu", .threads = threads, .precision = TM_PRECISION_F32};
    tm_plan_job_info info;
    char line[1100];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = tm_plan_run(r->plan, job, device, NULL);
    snprintf(line, sizeof line, "%s", tm_error_last()->line);
    tm_device_close(device);
    if (status != TM_OK && status != TM_EXISTS && tm_plan_job(r->plan, job, &info))
        cli_error(status, info.name, NULL, "%s", line[0] ? line : tm_status_text(status));
    return tm_status_exit_code(status);
}

static bool ready(const runner *r, const tm_plan_job_info *info, bool *broken) {
    bool all = true;
    *broken = false;
    for (size_t i = 0; i < info->need_count; i++) {
        all &= r->states[info->needs[i]] == DONE;
        *broken |= r->states[info->needs[i]] == FAILED;
    }
    return all;
}

static void finish_job(runner *r, size_t job, state how) {
    tm_plan_job_info info;
    r->states[job] = how;
    if (how == FAILED) r->failed++;
    if (tm_plan_job(r->plan, job, &info) && info.cell && how == DONE) r->cells_done++;
}

/* A model that only finished cells start from is not made again. */
static void spare_models(runner *r) {
    bool *wanted = calloc(r->jobs + 1, sizeof *wanted);
    tm_plan_job_info info;
    for (size_t i = r->jobs; wanted && i-- > 0;) {
        if (!tm_plan_job(r->plan, i, &info)) continue;
        wanted[i] = !info.done && !info.dropped && (info.cell || wanted[i]);
        for (size_t k = 0; wanted[i] && k < info.need_count; k++) wanted[info.needs[k]] = true;
        if (!wanted[i] && !info.done) r->states[i] = SPARE;
    }
    free(wanted);
}

static size_t unlock(runner *r) {
    size_t locked = 0;
    for (size_t i = 0; i < r->jobs; i++)
        if (r->states[i] == LOCKED) {
            r->states[i] = WAITING;
            locked++;
        }
    return locked;
}

/* The next job that can begin; those whose models failed fail with them. */
static bool next_job(runner *r, size_t *job) {
    for (size_t i = 0; i < r->jobs; i++) {
        tm_plan_job_info info;
        bool broken;
        if (r->states[i] != WAITING || !tm_plan_job(r->plan, i, &info)) continue;
        if (info.done) {
            finish_job(r, i, DONE);
            continue;
        }
        if (info.dropped) {
            r->states[i] = SPARE;
            r->cells--;
        }
        if (info.dropped || info.waits) continue;
        bool can = ready(r, &info, &broken);
        if (broken) finish_job(r, i, FAILED);
        if (!can) continue;
        *job = i;
        return true;
    }
    return false;
}

/* ---- budgets ----------------------------------------------------------------------------------------------------- */

/* MemAvailable; 0: not known. */
static int64_t memory_available(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    char line[256];
    long long kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lld", &kib) == 1) break;
    if (file) fclose(file);
    return (int64_t)kib * 1024;
}

/* Whether a job may begin now. Alone, it may take more than there seems to be; more than the budget it may never. */
typedef enum verdict { BEGIN, WAIT, REFUSE, STOP } verdict;

static verdict judge(runner *r, size_t job, tm_plan_needs *needs) {
    tm_plan_job_info info;
    *needs = (tm_plan_needs){0};
    if (r->budget.seconds > 0 && now() - r->start > r->budget.seconds) {
        r->exhausted = "seconds";
        return STOP;
    }
    bool asked = (r->budget.large && r->options->workers > 1) || r->budget.memory || r->budget.steps || r->budget.disk;
    if (!asked || tm_plan_job_needs(r->plan, job, needs) != TM_OK || !tm_plan_job(r->plan, job, &info)) return BEGIN;
    if (r->budget.memory && needs->memory > r->budget.memory) {
        cli_error(TM_INVALID, info.name, "a smaller micro-batch, recompute: true, or a larger budget",
                  "takes %.0f MiB, and the budget allows %.0f", (double)needs->memory / 0x1p20,
                  (double)r->budget.memory / 0x1p20);
        return REFUSE;
    }
    if (r->budget.steps && r->steps + needs->steps > r->budget.steps) r->exhausted = "steps";
    if (r->budget.disk && needs->disk && tm_plan_disk(r->plan) + r->promised + needs->disk > r->budget.disk) {
        if (r->promised) return WAIT; /* what runs may be counted twice now: half written, and promised */
        r->exhausted = "disk";
    }
    if (r->exhausted) return STOP;
    return r->running && r->memory && r->in_use + needs->memory > r->memory ? WAIT : BEGIN;
}

static bool begin_job(runner *r, size_t job, int64_t threads, const tm_plan_needs *needs) {
    size_t slot = 0;
    while (r->workers[slot]) slot++;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) return false;
    if (pid == 0) _exit(work(r, job, threads));
    r->workers[slot] = pid;
    r->at[slot] = job;
    r->taken[slot] = *needs;
    r->in_use += needs->memory;
    r->promised += needs->disk;
    r->steps += needs->steps;
    r->running++;
    return true;
}

/* A job that could not say itself why it ended: for want of memory, most of the time. */
static void tell_signal(const runner *r, size_t job, int signal_number) {
    tm_plan_job_info info;
    if (signal_number == SIGTERM || !tm_plan_job(r->plan, job, &info)) return;
    cli_error(TM_INTERRUPTED, info.name,
              signal_number == SIGKILL ? "where memory is short: fewer --workers, or budget: {memory: ...}" : NULL,
              "was ended by signal %d (%s)", signal_number, strsignal(signal_number));
}

/* Waits for one job to end. What another runner is at goes back to the queue. */
static void end_job(runner *r) {
    int how;
    pid_t pid = wait(&how);
    if (pid < 0) return;
    for (size_t slot = 0; slot < (size_t)r->options->workers; slot++) {
        if (r->workers[slot] != pid) continue;
        size_t job = r->at[slot];
        r->workers[slot] = 0;
        r->in_use -= r->taken[slot].memory;
        r->promised -= r->taken[slot].disk;
        r->running--;
        if (WIFEXITED(how) && WEXITSTATUS(how) == 0) {
            finish_job(r, job, DONE);
        } else if (WIFEXITED(how) && WEXITSTATUS(how) == tm_status_exit_code(TM_EXISTS)) {
            r->states[job] = LOCKED; /* others first */
        } else {
            if (WIFSIGNALED(how)) tell_signal(r, job, WTERMSIG(how));
            if (!r->failure) r->failure = WIFEXITED(how) ? WEXITSTATUS(how) : tm_status_exit_code(TM_INTERRUPTED);
            finish_job(r, job, FAILED);
        }
    }
}

static void show(const runner *r, const tm_monitor *monitor) {
    const tm_progress p = {.phase = "cells",
                           .done = (int64_t)r->cells_done,
                           .total = (int64_t)r->cells,
                           .unit = "cell",
                           .loss = strtod("nan", NULL),
                           .lr = strtod("nan", NULL),
                           .seconds = now() - r->start};
    if (monitor && monitor->progress) monitor->progress(monitor->user, &p);
}

/* Where memory lets fewer jobs like this one run than there are workers, they share the cores. */
static int64_t share_of_threads(const runner *r, const tm_plan_needs *needs) {
    int64_t workers = r->options->workers;
    int64_t fit = needs->memory && r->memory ? r->memory / needs->memory : workers;
    return workers / (fit < 1 ? 1 : fit > workers ? workers : fit);
}

/* Begins what can be begun. false: no process can be. */
static bool begin_jobs(runner *r) {
    size_t job;
    while (r->running < (size_t)r->options->workers && next_job(r, &job)) {
        size_t other;
        tm_plan_needs needs;
        switch (judge(r, job, &needs)) {
        case STOP:
        case WAIT:
            return true;
        case REFUSE:
            if (!r->failure) r->failure = tm_status_exit_code(TM_INVALID);
            finish_job(r, job, FAILED);
            continue;
        default:
            break;
        }
        r->states[job] = RUNNING;
        /* A job that all others wait for gets every core; results do not depend on it. */
        bool alone = r->running == 0 && !next_job(r, &other);
        if (begin_job(r, job, alone ? r->options->workers : share_of_threads(r, &needs), &needs)) continue;
        r->states[job] = WAITING;
        return r->running > 0;
    }
    return true;
}

static tm_status run_jobs(runner *r, const tm_monitor *monitor) {
    bool stopped = false;
    tm_plan_limits(r->plan, &r->budget);
    r->memory = r->budget.memory ? r->budget.memory : memory_available();
    while (true) {
        stopped = stopped || (monitor && monitor->stop && monitor->stop(monitor->user));
        if (!stopped && !begin_jobs(r)) return TM_NO_MEMORY;
        stopped = stopped || r->exhausted;
        show(r, monitor);
        if (r->running) {
            end_job(r);
        } else if (stopped || unlock(r) == 0) {
            return stopped ? TM_INTERRUPTED : TM_OK;
        } else { /* another runner is at all that is left */
            nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        }
    }
}

/* Written aside and renamed: a table that a later run reads with --known is whole. */
static int write_csv(const tm_plan *plan, const char *path) {
    char *text = NULL, aside[4200];
    tm_status status = tm_plan_summary(plan, &(tm_plan_summary_options){.form = TM_PLAN_CSV}, &text);
    if (status != TM_OK) return cli_fail(status);
    snprintf(aside, sizeof aside, "%.4000s.%ld", path, (long)getpid());
    FILE *file = fopen(aside, "w");
    bool ok = file && fputs(text, file) >= 0;
    if (file && fclose(file) != 0) ok = false;
    ok = ok && rename(aside, path) == 0;
    free(text);
    if (ok) return 0;
    int code = cli_error(TM_IO, path, NULL, "cannot be written: %s", strerror(errno));
    unlink(aside);
    return code;
}

static int print_summary(const runner *r, bool json) {
    char *text = NULL;
    const tm_plan_summary_options how = {
        .form = json ? TM_PLAN_JSON : TM_PLAN_MARKDOWN, .compare = r->options->compare, .scores = r->options->scores};
    tm_status status = tm_plan_summary(r->plan, &how, &text);
    if (status != TM_OK) return cli_fail(status);
    fputs(text, stdout);
    free(text);
    return r->options->csv ? write_csv(r->plan, r->options->csv) : 0;
}

static int print_searches(const runner *r) {
    char *text = NULL;
    tm_status status = tm_plan_searches(r->plan, r->options->search - 1, &text);
    if (status != TM_OK) return cli_fail(status);
    fputs(text, stdout);
    free(text);
    return 0;
}

static void count_jobs(runner *r) {
    tm_plan_job_info info;
    for (; tm_plan_job(r->plan, r->jobs, &info); r->jobs++) {
        r->cells += info.cell && !info.dropped;
        r->models += !info.cell;
        r->waiting += info.waits;
        r->begun_with += info.cell && info.done;
    }
}

static int run_plan(runner *r, const cli_output *output) {
    const tm_monitor *monitor = cli_monitor(output);
    count_jobs(r);
    const cli_plan_counts counts = {r->cells, r->models, r->begun_with, r->waiting, r->options->workers};
    if (r->options->dry_run) return cli_estimate(r->plan, &counts, r->options->counts, output);
    if (r->options->search) return print_searches(r);
    if (r->options->table && r->begun_with < r->cells)
        cli_note("%zu of %zu cells are done in %s", r->begun_with, r->cells, r->options->plan.directory);
    if (r->options->table) return print_summary(r, output->json);
    r->states = calloc(r->jobs + 1, sizeof *r->states);
    r->workers = calloc((size_t)r->options->workers, sizeof *r->workers);
    r->at = calloc((size_t)r->options->workers, sizeof *r->at);
    r->taken = calloc((size_t)r->options->workers, sizeof *r->taken);
    int code = 0;
    r->start = now();
    cli_note("%zu cells, of which %zu are done; %lld at a time", r->cells, r->begun_with,
             (long long)r->options->workers);
    if (r->states) spare_models(r);
    tm_status status = r->states && r->workers && r->at && r->taken ? run_jobs(r, monitor) : TM_NO_MEMORY;
    cli_monitor_end();
    if (status == TM_INTERRUPTED && r->exhausted)
        code = cli_error(status, "budget", "a larger one, and the same command goes on from there",
                         "%s are used up, with %zu of %zu cells done", r->exhausted, r->cells_done, r->cells);
    else if (status == TM_INTERRUPTED)
        code = cli_error(status, NULL, "the same command goes on from there", "%zu of %zu cells are done",
                         r->cells_done, r->cells);
    else if (status != TM_OK)
        code = cli_error(status, NULL, NULL, "no process can be started");
    else
        code = print_summary(r, output->json);
    if (r->failed && code == 0) {
        cli_error(TM_INVALID, NULL, "the same command tries them again", "%zu jobs failed", r->failed);
        code = r->failure ? r->failure : 1;
    }
    free(r->states);
    free(r->workers);
    free(r->at);
    free(r->taken);
    return code;
}

static int open_and_run(const char *path, run_options *options, const cli_output *output) {
    tm_device *device = NULL;
    tm_plan *plan = NULL;
    /* One thread: a device that has used more cannot be carried over a fork. It is opened for its name only. */
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    if (options->workers == 0) options->workers = (int64_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (options->workers < 1) options->workers = 1;
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = cli_plan_open(&options->plan, path, device, &plan);
    bool idle = options->dry_run || options->table || options->search;
    if (status == TM_OK && (!idle || options->known)) status = tm_plan_begin(plan);
    if (status == TM_OK && options->known) status = tm_plan_import(plan, options->known);
    int code = status == TM_OK ? 0 : cli_fail(status);
    runner r = {.plan = plan, .options = options};
    if (code == 0) code = run_plan(&r, output);
    tm_plan_free(plan);
    tm_device_close(device);
    return code;
}

static int run(int argc, char **argv) {
    run_options options;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_run, 1);
    cli_plan_args(&args, &options.plan);
    cli_args_group(&args, "Run", table, &options);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count == 0)
        code = cli_error(TM_INVALID, "PLAN", "plans/ holds some", "temper run needs a plan");
    else
        code = open_and_run(args.words[0], &options, &output);
    cli_args_end(&args);
    return code;
}

const cli_command cli_run = {
    .name = "run",
    .words = "PLAN",
    .summary = "run an experiment: defences against attackers",
    .about =
        "Runs what a plan (a YAML file) describes: every defence against every attacker, on models of the built-in "
        "world or on your own checkpoints and data, with several seeds. Every cell is done once and kept under a hash "
        "of everything that decides it: "
        "a changed option repeats only what depends on it, a killed run goes on where it was, and two runs on one "
        "directory share the work. Ends with tables of means and 95% intervals in Markdown. "
        "docs/experiments.md describes plans.",
    .examples = "temper run plans/world-panacea.yaml --dry-run\n"
                "temper run plans/world.yaml --directory runs --csv scores.csv\n"
                "temper run mine.yaml --set bases.llama.path=/models/llama --workers 1\n"
                "temper run plans/world.yaml --table --compare \"undefended,panacea\"",
    .run = run,
};
