/* plan.h: an experiment: arms (defences) against attackers, on several models and seeds.
 *
 * A model is made in the built-in world from random weights, or it is a base: a checkpoint of the user's, with data
 * from files. plan.c reads the file (plan_read.h), plan_data.c finds its rows, plan_jobs.c expands it into jobs that
 * have a key each (SHA-256 of everything that decides their result), cell.c runs one job and cell_measure.c asks what
 * came of it, records.c keeps that (store.h), models.c keeps models, summary.c makes the tables. docs/experiments.md
 * describes the format.
 */
#ifndef TM_LAB_PLAN_H
#define TM_LAB_PLAN_H

#include "lab/store.h"
#include "lab/world.h"

enum {
    TM__PLAN_AXES = 6,
    TM__PLAN_STEPS = 4,
    TM__PLAN_REFS = 4,
    TM__PLAN_WORLDS = 16,
    TM__PLAN_NAME = 96,
    TM__PLAN_SETS = 16,
    TM__PLAN_JUDGES = 8,
    TM__PLAN_BASES = 32,
    TM__PLAN_PRODUCT = 4096,    /* combinations of axes, trials of a search */
    TM__PLAN_REPLICATES = 1000, /* and as many values go into a mean */
    TM__PLAN_CELLS = 1000000
};

/* What a file or directory that an option names holds. */
typedef struct tm__plan_place {
    const char *path;
    char hash[65];
} tm__plan_place;

/* Where something stands in the file, from 0. */
typedef struct tm__plan_mark {
    size_t line, column;
} tm__plan_mark;

/* A checkpoint of the user's. */
typedef struct tm__plan_base {
    const char *name, *path;
    const char *template, *variables; /* as tm_tokenizer_use_template takes them; NULL: the tokenizer's own */
    int chat, save;                   /* tm_chat_format of steps that name none; tm_save_dtype of models made of it */
    tm__plan_mark at;
    tm_train_options train;            /* of evaluations by likelihood of rows */
    char hash[65], tokenizer_hash[65]; /* of weights and config; of the tokenizer's files, template and format */
} tm__plan_base;

/* Rows of a file: `rows` of them (0: all) from `first` on, after a shuffle where `shuffle` is not negative. */
typedef struct tm__plan_data {
    const char *name, *path;
    int64_t first, rows, shuffle;
    bool may_overlap; /* may share prompts with an attacker's rows */
    tm__plan_mark at;
    char hash[65];       /* of the file, and which rows */
    tm_dataset *read[2]; /* with answers; as prompts alone. NULL: nobody wants them so */
} tm__plan_data;

/* A suite that every cell is measured by. */
typedef struct tm__plan_evaluation {
    const char *name; /* its numbers are scores "NAME.NUMBER" */
    const tm_suite *suite;
    const char *data; /* NULL: looked for below options.data_dir */
    tm_eval_options options;
    bool chat_of_base;                   /* prompts are in the base's format instead of the suite's */
    const char *judges[TM__PLAN_JUDGES]; /* specs, as tm_judge_open takes them */
    size_t judge_count;
    tm__plan_mark at;
    char hash[65]; /* of the suite, its options, its data and its judges */
} tm__plan_evaluation;

/* Roles in the order of tm__recipe_sets: harmful, refusals, benign, data. */
enum { TM__ROLE_HARMFUL, TM__ROLE_REFUSALS, TM__ROLE_BENIGN, TM__ROLE_USER, TM__ROLES };

/* One training or edit: a method with its options and the world's sets that it is given. */
typedef struct tm__plan_step {
    bool given;              /* false: nothing is done */
    bool service;            /* trains on the attacker's rows with the attacker's options */
    const tm_method *method; /* NULL: plain fine-tuning on the user role */
    void *own;               /* (method->options_size), NULL without a method */
    tm_train_options train;
    const char *sets[TM__ROLES]; /* expressions: names of world sets, interleaved where separated by commas */
} tm__plan_step;

/* A named model that arms start from: `from` (-1: random weights), then the step. Made once per world. */
typedef struct tm__plan_stage {
    const char *name;
    int from;
    uint64_t seed;
    tm__plan_step step;
} tm__plan_stage;

/* A defence: steps before the attack, the method that carries out the attacker's fine-tuning (NULL: plain), steps
 * after it. */
typedef struct tm__plan_arm {
    char name[TM__PLAN_NAME];
    const char *group; /* its name in the file: without labels of axes and of the base */
    int from;          /* -1: the base itself */
    int base;          /* -1: the plan has none */
    tm__plan_mark at;
    size_t before_count, after_count;
    tm__plan_step before[TM__PLAN_STEPS], during, after[TM__PLAN_STEPS];
    int64_t replicates;
    const char *attacks;       /* names of attack groups, separated by commas; NULL: the matrix says */
    const tm__plan_step **met; /* (attacks) each as this arm meets it; NULL: it does not */
} tm__plan_arm;

/* One attacker: a method of stage attack, rows, options. harmful-sft without rows is no attack: step.given is false. */
typedef struct tm__plan_attack {
    const char *group;
    char name[TM__PLAN_NAME]; /* labels of its axes */
    tm__plan_step step;
    tm__plan_mark at;
    int search, trial, rung; /* search: -1: it is no trial of one */
} tm__plan_attack;

typedef struct tm__plan_search tm__plan_search; /* search.h */

typedef enum tm__job_kind { TM__JOB_MODEL, TM__JOB_CELL } tm__job_kind;

/* Something to be made: a model (a stage, or a stage with an arm's first steps), or a cell: attack it and measure. */
typedef struct tm__plan_job {
    tm__job_kind kind;
    int stage;       /* MODEL of a stage; else -1 */
    int arm, attack; /* MODEL of an arm: attack is -1 */
    int step;        /* MODEL of an arm: index into `before` */
    int world, base; /* indices; -1: none */
    int64_t replicate;
    uint64_t seed;
    int needs[TM__PLAN_REFS];  /* jobs that have to be done before, the model first; -1: none, or the base itself */
    int stages[TM__PLAN_REFS]; /* the stage that a need was named as ("stage:NAME"); -1: not by name */
    bool whole;                /* MODEL that an option names: it is read as a checkpoint */
    char key[65];
} tm__plan_job;

struct tm_plan {
    char *path, *directory;
    char *text;      /* the file */
    tm__arena arena; /* names and options */
    char *name;
    uint64_t worlds[TM__PLAN_WORLDS];
    size_t world_count;
    int64_t replicates;
    tm__probes probes;
    bool wrapper;                /* ask what identity-shift attacked through its wrapper as well */
    int64_t hidden, layers, ffn; /* shape of the model */
    tm__plan_base *bases;
    size_t base_count, base_cap;
    tm__plan_data *data;
    size_t data_count, data_cap;
    tm__plan_evaluation *evaluations;
    size_t evaluation_count, evaluation_cap;
    tm__plan_place *places; /* that options name */
    size_t place_count, place_cap;
    struct tm__plan_memo *memo; /* hashes of unchanged files */
    const char *harm, *ability; /* the scores that tell how harmful and how able a model is; NULL: not said */
    tm_train_options train;     /* what `train` says: of evaluations by likelihood of rows */
    tm__plan_stage *stages;
    size_t stage_count, stage_cap;
    tm__plan_arm *arms;
    size_t arm_count, arm_cap;
    tm__plan_attack *attacks;
    size_t attack_count, attack_cap;
    tm__plan_search *searches;
    size_t search_count, search_cap;
    struct tm__search_memo *trials; /* what finished cells found, as far as searches asked */
    tm__plan_job *jobs;
    size_t job_count, job_cap;
    tm_world *made[TM__PLAN_WORLDS];
    char *world_dirs[TM__PLAN_WORLDS];
    char tokenizer_hash[TM__PLAN_WORLDS][65];
    char (*set_hash)[65]; /* (worlds, sets): of the data sets */
    size_t set_count;
    char setup[160]; /* device, instruction set, precision: part of every key */
    struct tm__results *results;
    struct tm__plan_loads *loads; /* what jobs take, as far as it is known */
    tm_plan_budget budget;
    const char **overrides; /* "PATH=VALUE", in the arena */
    size_t override_count;
};

/* What a cell found. A name stands once; values are finite. */
typedef struct tm__record {
    char key[65], arm[TM__PLAN_NAME], attack[TM__PLAN_NAME], group[32];
    uint64_t world, seed;
    int64_t replicate;
    double seconds, cpu_seconds, peak_mib; /* measured, not part of the result */
    size_t count;
    bool repeats; /* the same cell stands before it under this arm and attacker: an unattacked model has no seed */
    char names[TM__RECORD_SCORES][TM__SCORE_NAME];
    double values[TM__RECORD_SCORES];
} tm__record;

/* Goes through a list separated by commas: true while there is an item, which is copied to `item`. Starts with *at at
 * the list. */
bool tm__next_item(const char **at, char item[64]);
extern const char *const tm__role_names[TM__ROLES]; /* "harmful", "refusals", "benign", "data" */

/* ---- plan.c ---- */
tm_status tm__plan_read(tm_plan *plan);
int tm__plan_find_stage(const tm_plan *plan, const char *name);
/* A stage without a step is the base itself, where the plan has bases. */
bool tm__plan_is_base(const tm_plan *plan, int stage);
/* TM_INVALID at a place of the file: WHAT "NAME" (HINT). */
tm_status tm__plan_fail_at(const tm_plan *plan, tm__plan_mark at, tm_status status, const char *field, const char *hint,
                           const char *format, ...) TM__PRINTF(6, 7);
/* tm_error_last() again, with the place in front. */
tm_status tm__plan_failed_at(const tm_plan *plan, tm__plan_mark at);

/* ---- plan_data.c: rows by name, and what bases and evaluations hash to ---- */
const tm__plan_data *tm__plan_find_data(const tm_plan *plan, const char *name);
/* Reads and hashes the files that the plan names. */
tm_status tm__plan_sources_open(tm_plan *plan);
void tm__plan_sources_free(tm_plan *plan);
/* Remembers hashes of large files in the plan's directory, for as long as the files do not change. */
tm_status tm__plan_sources_note(const tm_plan *plan);
/* The rows that a step's role names, interleaved; NULL where it names none. The caller's. */
tm_status tm__plan_rows(const tm_plan *plan, int world, const tm__plan_step *step, int role, tm_dataset **rows);
/* One set by its name; the caller's. */
tm_status tm__plan_set(const tm_plan *plan, int world, const char *name, bool prompts, tm_dataset **rows);
/* What a file or directory that an option names is in keys. */
const char *tm__plan_place_hash(const tm_plan *plan, const char *path);
/* What a set is in keys. */
const char *tm__plan_set_hash(const tm_plan *plan, int world, const char *name);
/* The tokenizer of a base, with its template. */
tm_status tm__plan_tokenizer(const tm_plan *plan, int base, tm_tokenizer **tokenizer);
/* An evaluation as a cell of this world and base begins it. `train` is what `options` points to. */
tm_status tm__plan_evaluation_open(const tm_plan *plan, size_t index, int world, int base, const tm_frame *frame,
                                   tm_evaluation **evaluation);
/* Options of training as they hold on this base. */
tm_train_options tm__plan_train(const tm_plan *plan, int base, const tm_train_options *train);

/* ---- plan_override.c ---- */
struct yaml_document_s;
tm_status tm__plan_override(const tm_plan *plan, struct yaml_document_s *document, const char *text);

/* ---- plan_jobs.c ---- */
tm_status tm__plan_expand(tm_plan *plan, const tm_device *device);
/* SHA-256 of what a step does in world `world`. */
void tm__plan_step_hash(const tm_plan *plan, int world, int base, const tm__plan_step *step, char hex[65]);
/* Whether cells of this attacker are asked through its own wrapper as well. */
bool tm__plan_asks_wrapped(const tm_plan *plan, const tm__plan_attack *attack);
/* The seed of a job's world; 0: it has none. */
uint64_t tm__plan_world_seed(const tm_plan *plan, const tm__plan_job *job);

/* ---- plan_check.c: what a plan may not say, found before anything is made ---- */
tm_status tm__plan_check(tm_plan *plan);

/* ---- cell.c ---- */
tm_status tm__cell_model(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor);
/* Answers go into the trace. */
tm_status tm__cell_run(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                       tm__record *record, tm__trace *trace);
/* A model that is there, with what a cell does to it. */
typedef struct tm__bench {
    const tm_plan *plan;
    const tm__plan_job *job;
    const tm_world *world; /* NULL: none */
    const tm_monitor *monitor;
    tm_model *model;
    tm_tokenizer *tokenizer;
    char *secret, *secret_path; /* BackdoorAlign's */
    tm_plan_needs *needs;       /* of a rehearsal; else NULL */
    int64_t steps;              /* of a probe: so many at most; else 0 */
    char *affinity_path;        /* what Panacea tells of its perturbation; NULL: nothing */
    tm__trace *trace;
} tm__bench;
/* Runs the job's training on a rehearsal device, on the model that the plan begins with; `measured`: asks the
 * evaluations a batch each instead. */
tm_status tm__cell_rehearse(const tm_plan *plan, const tm__plan_job *job, tm_device *device, bool measured,
                            tm_plan_needs *needs);
/* Seconds of a unit of the cell's work, and of measuring a cell. */
tm_status tm__cell_probe(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                         double *work, double *measure);

/* ---- models.c: DIR/models/KEY, whole or an adapter ---- */
/* The directory; the caller's. NULL: out of memory. */
char *tm__plan_model_path(const tm_plan *plan, const char *key);
bool tm__plan_model_is_adapter(const tm_plan *plan, const tm__plan_job *job);
/* Whether it is there, with all that it stands on, and whole where it must be. */
bool tm__plan_model_done(const tm_plan *plan, const tm__plan_job *job);
/* Merged: without adapters. */
tm_status tm__plan_model_open(const tm_plan *plan, const tm__plan_job *job, tm_device *device, tm_model **model);
/* The model as the job's step left it since tm__model_settle; it may be merged on the way. */
tm_status tm__plan_model_save(const tm_plan *plan, const tm__plan_job *job, tm_model *model,
                              const tm_tokenizer *tokenizer);
/* Whether that leaves its adapter alone. */
tm_status tm__plan_model_alone(const tm_plan *plan, const tm__plan_job *job, tm_model *model, bool *alone);
const tm__plan_step *tm__plan_model_step(const tm_plan *plan, const tm__plan_job *job);
/* Whether the model will be an adapter as far as the plan tells, and which. */
bool tm__plan_model_trains_adapter(const tm_plan *plan, const tm__plan_job *job, tm_lora_options *lora);

/* ---- cell_measure.c ---- */
tm_status tm__cell_measure(const tm__bench *bench, tm__record *record);
/* Asks `items` of everything that a cell is asked, and says what share that is. */
tm_status tm__cell_sample(const tm__bench *bench, int64_t items, double *share);

/* ---- plan_needs.c ---- */
struct tm__plan_loads *tm__plan_needs_create(void); /* NULL: out of memory */
void tm__plan_needs_free(tm_plan *plan);
int64_t tm__plan_disk_used(const char *path); /* bytes of all files below */

/* ---- names.c: models and worlds by name, as links in DIR/by-name/PLAN ---- */
char *tm__plan_names_path(const tm_plan *plan);
/* false: the job makes nothing that has a name. */
bool tm__plan_job_name(const tm_plan *plan, const tm__plan_job *job, char *name, size_t size);
tm_status tm__plan_link_model(const tm_plan *plan, const tm__plan_job *job);
tm_status tm__plan_link_worlds(const tm_plan *plan);

/* ---- records.c ---- */
typedef struct tm__results tm__results;
tm_status tm__results_create(tm__results **results);
void tm__results_free(tm__results *results);
/* flock() on DIR/lock: runs share it until the last process of theirs has ended, and whoever removes things
 * has it alone. TM_EXISTS with LOCK_NB: somebody else has it. */
tm_status tm__directory_lock(const char *directory, int how, int *lock);
/* Shares it until the plan is freed; waits for somebody who removes things. */
tm_status tm__plan_use_directory(const tm_plan *plan);
/* The plan's result store as this process has it open. */
tm_status tm__plan_store(const tm_plan *plan, bool make, tm__store **store);
/* Writes down which cells the plan has, so that they can be looked up without it. */
tm_status tm__plan_name_cells(const tm_plan *plan);
tm_status tm__record_save(const tm_plan *plan, const tm__record *record, const tm__trace *trace);
tm_status tm__record_load(const tm_plan *plan, const char *key, tm__record *record);
bool tm__record_add(tm__record *record, const char *name, double value); /* false: there is no room for more */
struct json_t;
struct json_t *tm__record_scores(const tm__record *record); /* {name: value}; NULL: out of memory */
/* Arm, attacker, world, seed of a cell: they are its job's, since arms may share a cell. */
void tm__record_name(const tm_plan *plan, const tm__plan_job *job, tm__record *record);
bool tm__record_get(const tm__record *record, const char *name, double *value);
/* Columns of a table of scores before and after the scores; the key is cut to so many digits. */
enum { TM__CSV_FIRST = 6, TM__CSV_LAST = 2, TM__CSV_KEY = 16 };
extern const char *const tm__csv_first[TM__CSV_FIRST], *const tm__csv_last[TM__CSV_LAST];
/* Every record of the plan that is there, in the order of its jobs. */
tm_status tm__records_load(const tm_plan *plan, tm__record **records, size_t *count);

#endif
