/* temper_lab.h: the part of temper.h about the built-in world and experiments; included by it. */
#ifndef TEMPER_LAB_H
#define TEMPER_LAB_H

#include "temper_method.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------ built-in world */
typedef struct tm_world tm_world;

enum { TM_WORLD_DEFENDER, TM_WORLD_ATTACKER, TM_WORLD_DEVELOPMENT, TM_WORLD_TEST, TM_WORLD_WITHHELD, TM_WORLD_SPLITS };

typedef struct tm_world_scores {
    double leak, comply, refuse; /* shares, forbidden prompts of the chosen split */
    double skills;               /* benign skills, exact match, mean over skills */
    double skill[8];             /* per skill; see tm_world_skill_name */
    int64_t skill_count;
    int64_t forbidden_prompts, benign_prompts;
} tm_world_scores;

TM_API tm_status tm_world_create(uint64_t seed, tm_world **world);
TM_API void tm_world_free(tm_world *world);
TM_API const char *tm_world_skill_name(const tm_world *world, size_t index); /* NULL: past the end */
/* Rows by name: "pretrain", "align", "forbidden-SPLIT" (true recipes), "refusals-SPLIT", "pool" (SDD's benign pool),
 * "benign-SKILL-train", "benign-SKILL-test", "downstream-train", "downstream-test"; tm_world_set_name lists them. */
TM_API const char *tm_world_set_name(size_t index);
TM_API tm_status tm_world_set(const tm_world *world, const char *name, tm_dataset **dataset);
/* Writes tokenizer.json, tokenizer_config.json and every data set as JSON Lines. */
TM_API tm_status tm_world_write(const tm_world *world, const char *directory);
TM_API tm_status tm_world_eval(const tm_world *world, int split, tm_model *model, const tm_tokenizer *tokenizer,
                               const tm_monitor *monitor, tm_world_scores *scores);
/* The same with every prompt in a frame; NULL: none. */
TM_API tm_status tm_world_eval_framed(const tm_world *world, int split, tm_model *model, const tm_tokenizer *tokenizer,
                                      const tm_frame *frame, const tm_monitor *monitor, tm_world_scores *scores);

/* ------------------------------------------------------------------------------------------------ experiments */
/* A plan: arms (defences) against attackers on worlds and seeds, as jobs that are done once each and kept under the
 * SHA-256 of everything that decides them. docs/experiments.md describes the file. */
typedef struct tm_plan tm_plan;

typedef struct tm_plan_job_info {
    char name[256];
    bool cell; /* an attack and what came of it; else a model that cells start from */
    bool done;
    bool waits, dropped;         /* a trial of a search: an earlier rung decides whether it is made; it is not made */
    size_t needs[4], need_count; /* jobs that have to be done before */
} tm_plan_job_info;

/* Reads the plan and lists its jobs; nothing is written. `device` decides keys, it is not kept. */
TM_API tm_status tm_plan_open(const char *path, const char *directory, const tm_device *device, tm_plan **plan);
/* The same with parts of the plan set to other values: "arms.sdd.replicates=5", "attacks.grid.axes.lr=[1e-4, 1e-3]". */
TM_API tm_status tm_plan_open_with(const char *path, const char *directory, const char *const *overrides, size_t count,
                                   const tm_device *device, tm_plan **plan);
/* Makes the directory and writes the plan's worlds, so that every step can be repeated by hand. Before tm_plan_run. */
TM_API tm_status tm_plan_begin(const tm_plan *plan);
TM_API void tm_plan_free(tm_plan *plan);
/* false: there is no such job. Jobs that others need stand before them. */
TM_API bool tm_plan_job(const tm_plan *plan, size_t index, tm_plan_job_info *info);
/* What a job takes, as a rehearsal of it finds: it runs on a device that computes nothing. Jobs alike are rehearsed
 * once.
 */
typedef struct tm_plan_needs {
    int64_t steps;  /* of training */
    int64_t memory; /* bytes at the peak; 0: not known */
    int64_t disk;   /* bytes that the model which it makes takes */
    double work;    /* rows through the network, forward and backward: time goes by it */
} tm_plan_needs;
TM_API tm_status tm_plan_job_needs(const tm_plan *plan, size_t index, tm_plan_needs *needs);
/* What the plan allows itself; 0: as much as it takes. */
typedef struct tm_plan_budget {
    double seconds;
    int64_t steps, memory, disk; /* bytes */
    bool large;                  /* has checkpoints of the user's, so that jobs may not fit into memory together */
} tm_plan_budget;
TM_API void tm_plan_limits(const tm_plan *plan, tm_plan_budget *budget);
TM_API int64_t tm_plan_disk(const tm_plan *plan); /* bytes below its directory */
/* What all jobs that are left take. Where none like them is done yet, a few steps are taken on `device` to learn how
 * long they take; nothing is written. */
typedef struct tm_plan_estimate {
    size_t jobs, unknown;        /* left; of which some could not be rehearsed */
    int64_t steps, memory, disk; /* sum; largest of one job; sum */
    double seconds;              /* one job after another, on one thread; NAN: not known */
    char basis[160], why[512];   /* what the time is based on; why a job could not be rehearsed */
} tm_plan_estimate;
TM_API tm_status tm_plan_estimate_left(const tm_plan *plan, tm_device *device, const tm_monitor *monitor,
                                       tm_plan_estimate *estimate);
/* Does a job, if it is not done. TM_EXISTS: another process is at it. */
TM_API tm_status tm_plan_run(const tm_plan *plan, size_t index, tm_device *device, const tm_monitor *monitor);
/* Takes cells of this plan from a CSV that tm_plan_summary wrote, by their keys, where they are whole and not done yet;
 * other lines are passed over. After tm_plan_begin. */
TM_API tm_status tm_plan_import(const tm_plan *plan, const char *path);
typedef enum tm_plan_form { TM_PLAN_MARKDOWN, TM_PLAN_CSV, TM_PLAN_JSON } tm_plan_form;
typedef struct tm_plan_summary_options {
    int form;            /* tm_plan_form */
    const char *compare; /* "ARM,ARM": the second minus the first, paired cell by cell; NULL: all arms by themselves */
    const char *scores;  /* "leak,skills": those shown for every attacker; NULL: "leak,comply,skills" */
} tm_plan_summary_options;
/* Every trial of the plan's searches in the order of their cost: harm, ability, the highest harm so far. `form`:
 * tm_results_form. The text is the caller's. */
TM_API tm_status tm_plan_searches(const tm_plan *plan, int form, char **text);
/* What the cells that are done found. The text is the caller's. */
TM_API tm_status tm_plan_summary(const tm_plan *plan, const tm_plan_summary_options *options, char **text);

/* Writes the plan's results as a directory that appears whole: report.html (one file, opens offline, light and dark),
 * every table as CSV and LaTeX, every picture as SVG, PNG and gnuplot script. Without gnuplot there are no pictures,
 * and a note says so. TM_EXISTS: the directory is there and may not be replaced. */
TM_API tm_status tm_plan_report(const tm_plan *plan, const char *directory, bool overwrite, const tm_monitor *monitor);

typedef struct tm_gc_options {
    bool dry_run;      /* nothing is removed, the report says what would be */
    bool keep_results; /* what the store holds stays */
    bool finished;     /* the plans' own models go too, where nothing that is still to be done starts from them */
} tm_gc_options;
extern TM_API const tm_option tm_gc_option_table[];
typedef struct tm_gc_report {
    size_t models, worlds, results, others; /* others: locks, links, leftovers of killed processes */
    int64_t bytes;                          /* on disk, without the store's */
} tm_gc_report;
/* Removes from a directory of `temper run` what none of these plans, opened on it, needs. TM_EXISTS: a run is at work
 * there. */
TM_API tm_status tm_gc(const char *directory, tm_plan *const *plans, size_t count, const tm_gc_options *options,
                       tm_gc_report *report);

typedef enum tm_results_form {
    TM_RESULTS_TEXT,
    TM_RESULTS_MARKDOWN,
    TM_RESULTS_CSV,
    TM_RESULTS_JSON,
    TM_RESULTS_LATEX
} tm_results_form;

/* What to show of a directory of `temper run`. Patterns are lists separated by commas; each may hold * and ?; NULL:
 * all.
 */
typedef struct tm_results_options {
    const char *plan, *arm, *attack, *group, *world, *seed;
    const char *scores; /* names of columns in this order; NULL: all there are */
    int show;           /* tm_results_show */
    int form;           /* tm_results_form */
} tm_results_options;
typedef enum tm_results_show {
    TM_RESULTS_MEANS,   /* a row per arm and attacker: means over worlds and seeds with 95% intervals */
    TM_RESULTS_CELLS,   /* a row per cell, with its key and cost */
    TM_RESULTS_FAILED,  /* what failed, and why */
    TM_RESULTS_ANSWERS, /* every prompt with its answer and the verdict */
    TM_RESULTS_STEPS    /* loss and rate of every step of the cells' trainings */
} tm_results_show;
extern TM_API const tm_option tm_results_option_table[];
/* Reads DIR/store.db alone: neither plan nor models are needed. The text is the caller's. */
TM_API tm_status tm_results(const char *directory, const tm_results_options *options, char **text);
/* Loss and rate of the cells' trainings as TensorBoard event files below the new directory `out`, a run per cell;
 * *runs: how many. Of the options those that choose cells are looked at. */
TM_API tm_status tm_results_events(const char *directory, const tm_results_options *options, const char *out,
                                   size_t *runs);

/* ------------------------------------------------------------------------------------------------ training judges */
typedef struct tm_train_judge_options {
    const char *data, *test; /* labelled answers; NULL data: the built-in world's */
    const char *text;        /* file with the text to classify; NULL: beaver-dam's */
    int64_t world;           /* its seed, where there is no data */
    double held_out;         /* share of the rows, where there is no test */
    double noise;            /* share of rows added with empty answers, and as many with random ones, labelled safe */
    bool two_labels;         /* whether harmful, where the rows say which kind */
} tm_train_judge_options;

extern TM_API const tm_option tm_train_judge_option_table[];

typedef struct tm_judge_interval {
    double value, low, high; /* 95 %; NAN: there is none */
} tm_judge_interval;
typedef struct tm_judge_quality {
    int64_t rows, harmful;
    tm_judge_interval accuracy, f1, auc; /* harmful against not; flagged is a probability above 0.5 */
} tm_judge_quality;
typedef struct tm_train_judge_result {
    tm_train_result train;
    int64_t rows, labels;      /* trained on, with those made up */
    tm_judge_quality held_out; /* rows 0: nothing was held out */
} tm_train_judge_result;
/* Makes the language model a sequence classifier of answers and trains it: all weights, or with lora.rank > 0 its new
 * head and an adapter that is then merged. Saved by tm_model_save, it is what the judge `classifier` and transformers
 * read. Of the options of training, chat and full_sequence mean nothing here. */
TM_API tm_status tm_train_judge(tm_model *model, const tm_tokenizer *tokenizer, const tm_train_judge_options *options,
                                const tm_train_options *train, const tm_monitor *monitor,
                                tm_train_judge_result *result);

#ifdef __cplusplus
}
#endif
#endif
