/* cli.h: what the commands share: arguments, help, errors, progress, JSON and tables.
 *
 * The command line is a user of the library like any other: it includes temper.h and the C library, nothing else.
 * Results go to standard output, everything said on the way to standard error. A command returns its exit code.
 */
#ifndef TEMPER_CLI_H
#define TEMPER_CLI_H

#include "temper.h"

#include <stdio.h>

#define CLI_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CLI_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* ---- commands (main.c) ------------------------------------------------------------------------------------------- */

typedef struct cli_command {
    const char *name;
    const char *words;                 /* what follows the name in the usage line: "NAME", "[TEXT...]", "" */
    const char *summary;               /* one line of the overview */
    const char *about;                 /* one paragraph */
    const char *examples;              /* one command per line */
    int (*run)(int argc, char **argv); /* arguments after the command's name */
    bool divides;                      /* several processes may run it together (mpirun) */
} cli_command;

extern const cli_command cli_finetune, cli_defend, cli_attack, cli_eval, cli_generate, cli_inspect, cli_merge, cli_init,
    cli_tokenize, cli_embed, cli_classify, cli_methods, cli_judge, cli_train_judge, cli_run, cli_results, cli_report,
    cli_gc, cli_represent, cli_bench, cli_help;
/* NULL past the end. */
const cli_command *cli_command_at(size_t index);
const cli_command *cli_command_find(const char *name);
/* Tells that there is no such command, and which one is near. Returns the exit code. */
int cli_no_command(const char *name);

/* ---- arguments (args.c) ------------------------------------------------------------------------------------------ */

/* Values of an option that may be given several times. */
typedef struct cli_list {
    const char **items;
    size_t count;
} cli_list;

typedef struct cli_group {
    const char *title;
    const tm_option *table;
    void *values;
    const char *hidden; /* options that help leaves out, separated by blanks; NULL: none */
} cli_group;

enum { CLI_GROUPS = 8, CLI_PICKED = 24, CLI_GIVEN = 96, CLI_LISTS = 3 };

/* One command's option tables and what was given for them. Starts with cli_args_begin, ends with cli_args_end. */
typedef struct cli_args {
    const cli_command *command;
    const char *subject;          /* method name in "temper defend NAME", or NULL */
    const char *about, *examples; /* instead of the command's; NULL: those */
    cli_group groups[CLI_GROUPS];
    size_t group_count;
    tm_option picked[CLI_PICKED]; /* storage of cli_args_pick */
    size_t picked_count;
    const tm_option *given[CLI_GIVEN];
    size_t given_count;
    const char *list_names[CLI_LISTS]; /* options that may be repeated */
    cli_list *lists[CLI_LISTS];
    size_t list_count;
    const char **words; /* arguments that are no options */
    size_t word_count, max_words;
} cli_args;

void cli_args_begin(cli_args *args, const cli_command *command, size_t max_words);
/* Adds a table and sets its defaults in `values`. */
void cli_args_group(cli_args *args, const char *title, const tm_option *table, void *values);
/* Adds those options of a library table that `names` (separated by blanks) lists. All fields get their defaults. */
void cli_args_pick(cli_args *args, const char *title, const tm_option *table, void *values, const char *names);
/* Says in other words what the picked option `name` means to this command. */
void cli_args_reword(cli_args *args, const char *name, const char *help);
/* Leaves options of the last group out of help: given all the same, they are refused with a reason. */
void cli_args_hide(cli_args *args, const char *names);
/* Whether `names`, separated by blanks, hold `name`. */
bool cli_listed(const char *names, const char *name);
/* Makes the text option `name` repeatable: its values go to `list` as well. */
void cli_args_repeat(cli_args *args, const char *name, cli_list *list);
/* A number's unit written "[SEED=1]" makes its value optional, and says what it then means. */
bool cli_value_optional(const tm_option *option);
/* true: go on. false: end with *code (--help was answered, or an error was told). */
bool cli_args_parse(cli_args *args, int argc, char **argv, int *code);
bool cli_args_given(const cli_args *args, const char *name);
void cli_args_end(cli_args *args);
int cli_distance(const char *a, const char *b); /* edit distance of two names */

/* ---- help (help.c) ----------------------------------------------------------------------------------------------- */

void cli_help_command(const cli_args *args, FILE *out);
void cli_help_options(const cli_group *group, size_t before, const cli_group *groups, FILE *out);
void cli_help_overview(FILE *out);
void cli_wrap(FILE *out, const char *text, int indent, int column); /* wraps at 80 columns; cursor is at `column` */

/* ---- errors and notes (report.c) --------------------------------------------------------------------------------- */

/* One line on standard error, "temper: FIELD: MESSAGE (HINT)"; field and hint may be NULL. Returns the exit code. */
int cli_error(tm_status status, const char *field, const char *hint, const char *format, ...) CLI_PRINTF(4, 5);
/* The same from tm_error_last(). */
int cli_fail(tm_status status);
int cli_no_memory(void);
/* A remark on standard error; nothing with --quiet. */
void cli_note(const char *format, ...) CLI_PRINTF(1, 2);
/* Checked before the work begins: `path` is given, is absent or may be replaced, and can be written. 0, or exit code.
 */
int cli_check_output(const char *option, const char *path, bool directory, bool overwrite);
/* The resumable checkpoint and the result need a place each. */
int cli_check_resume(const char *resume, const char *out);
int cli_check_required(const char *option, const char *value);
/* Flushes standard output; a result that could not be written is an error. */
int cli_finish(int code);

/* ---- progress and interruption (report.c) ------------------------------------------------------------------------ */

extern const tm_option cli_quiet_table[]; /* --quiet, --json */
typedef struct cli_output {
    bool quiet, json;
} cli_output;

/* The first SIGINT, SIGTERM or SIGUSR1 asks the run to stop after the step, the second ends the process. */
const tm_monitor *cli_monitor(const cli_output *output);
void cli_monitor_end(void); /* completes a redrawn line */

/* ---- JSON and text (json.c) -------------------------------------------------------------------------------------- */

typedef struct cli_json {
    FILE *out;
    int depth;
    bool filled[16]; /* something stands at this depth already */
} cli_json;

/* `key` NULL: an element of an array, or the outermost value. Numbers that are not finite are written as null; text
 * that is not UTF-8 has its stray bytes replaced by U+FFFD. */
void cli_json_open(cli_json *json, const char *key, char bracket);     /* '{' or '[' */
void cli_json_close(cli_json *json, char bracket);                     /* '}' or ']' */
void cli_json_text(cli_json *json, const char *key, const char *text); /* NULL: null */
void cli_json_bytes(cli_json *json, const char *key, const char *text, size_t len);
void cli_json_int(cli_json *json, const char *key, int64_t value);
void cli_json_real(cli_json *json, const char *key, double value);
void cli_json_bool(cli_json *json, const char *key, bool value);

/* Length of the UTF-8 sequence at `s`, 0 if it is not valid. */
size_t cli_utf8_length(const char *s, size_t len);
/* All of a stream, NUL-terminated. */
tm_status cli_read_all(FILE *stream, char **text, size_t *len);
/* 1,234,567 in a static buffer of its own (four in turn). */
const char *cli_thousands(int64_t value);

/* ---- models (model.c) -------------------------------------------------------------------------------------------- */

/* ---- conversations as the model gets them (chat.c) ---- */

/* How conversations become text: shared by all commands that read them. */
extern const tm_option cli_template_table[]; /* --template --template-vars */
typedef struct cli_template {
    const char *name, *variables; /* NULL: what the tokenizer says */
} cli_template;
/* --chat and --template must not say two things. 0, or an exit code. */
int cli_check_template(const cli_template *chosen, const tm_train_options *train);

typedef struct cli_chat {
    char *text;
    tm_ids ids, labels; /* labels: -100 where nothing is trained on */
    int64_t trained;
    bool asks; /* it has no answer: the opening of one is appended */
} cli_chat;
/* `whole`: all of it is trained on, not answers alone. Release the result. */
tm_status cli_chat_make(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                        bool whole, cli_chat *chat);
void cli_chat_free(cli_chat *chat);
/* "template my-model/chat_template.jinja" */
void cli_chat_print_format(const tm_tokenizer *tokenizer, tm_chat_format format);
/* A table: id, piece, text, and where there are labels a mark for what is trained on. */
void cli_print_pieces(const tm_tokenizer *tokenizer, const tm_ids *ids, const tm_ids *labels);
/* Members of an object: format, template, text, ids, labels. */
void cli_chat_json(cli_json *json, const tm_tokenizer *tokenizer, tm_chat_format format, const cli_chat *chat);

/* ---- adapters (adapters.c) ---- */

typedef struct cli_adapter {
    char *directory;
    double weight;
} cli_adapter;
typedef struct cli_adapters {
    cli_adapter *items;
    size_t count;
} cli_adapters;
/* From what --adapter was given: DIR or DIR=WEIGHT. 0, or an exit code; then nothing is held. */
int cli_adapters_read(const cli_list *given, cli_adapters *adapters);
void cli_adapters_free(cli_adapters *adapters);
/* Refuses several adapters, and weights, with the reason. */
int cli_check_one_adapter(const cli_adapters *adapters, const char *why);

/* Where results of training go: shared by finetune, defend and attack. */
typedef struct cli_save {
    const char *out;
    bool overwrite, merge, dry;
    int dtype; /* tm_save_dtype */
} cli_save;
extern const tm_option cli_save_table[]; /* --out --overwrite --merge --save-dtype --dry-run */

typedef struct cli_model {
    tm_device *device;
    tm_model *model;
    tm_tokenizer *tokenizer;
} cli_model;
/* Opens the device, loads model and tokenizer. On failure nothing is held. `adapters` may be NULL. `rehearse`: on a
 * device that only counts memory. */
tm_status cli_model_open(cli_model *model, const tm_device_options *where, const char *directory,
                         const cli_adapters *adapters, bool rehearse, const cli_template *chosen);
void cli_model_close(cli_model *model);
/* Saves the model, or with `adapter` its last adapter (--merge: the model with it), and prints what happened. Returns
 * the exit code. */
int cli_model_finish(cli_model *model, const char *directory, bool adapter, const cli_save *save,
                     const tm_provenance *provenance, const tm_train_result *result, const cli_output *output);
typedef struct cli_rows {
    const char *role, *path; /* "harmful" */
    const tm_dataset *rows;  /* NULL: none */
    tm_party party;
} cli_rows;
/* Instead of cli_model_finish after a rehearsal: what the run would do and hold in memory, and the first row of each
 * kind as the model would get it. `method` NULL: fine-tuning. `adapter` as there. Returns the exit code. */
typedef struct cli_rehearsal {
    const char *directory, *method;
    bool adapter;
    const cli_save *save;
    const tm_train_options *train;
    const tm_train_result *result;
    const cli_rows *rows;
    size_t count;
} cli_rehearsal;
int cli_model_rehearsed(cli_model *model, const cli_rehearsal *run, const cli_output *output);
/* `saved` says what was written to save->out; NULL: no model was. */
void cli_print_result(const char *directory, const char *saved, const cli_save *save, const tm_train_result *result,
                      bool as_json);
/* What to tell when tm_train or a method failed; with how to go on after an interruption. Returns the exit code. */
int cli_train_failed(tm_status status, const tm_train_options *train);
/* After a rehearsal: what the run would hold at its peak, the adapter merged where it is asked for. An exit code. */
int cli_model_measure(cli_model *model, bool adapter, const cli_save *save, tm_memory *memory);
/* Rehearses the job with these options (nothing is resumed or saved) and tells its memory. An exit code. */
typedef int cli_measure(void *user, const tm_train_options *train, tm_memory *memory);
/* Where options->memory bounds the run: finds with rehearsals which bound to give the run so that it stays below, tells
 * what that costs, and refuses what cannot be met. 0, or an exit code. */
int cli_fit_memory(tm_train_options *options, cli_measure *measure, void *user);
/* Takes out of the options what would read or write a resumable checkpoint. */
void cli_train_rehearsed(tm_train_options *train);
/* --adapter, --continue-adapter, --merge and --lora-rank must fit each other. 0, or an exit code. */
int cli_check_adapter(const cli_adapters *adapters, bool continued, const tm_train_options *train,
                      const cli_save *save);

/* ---- suites (suites.c) ------------------------------------------------------------------------------------------- */

enum { CLI_SUITES = 32 };
typedef struct cli_suite_list {
    const tm_suite *items[CLI_SUITES];
    const char *data[CLI_SUITES]; /* NULL: not named */
    size_t count;
} cli_suite_list;
/* Suites by name, several in a word separated by commas. 0, or an exit code. */
int cli_suites_choose(const char *const *words, size_t count, cli_suite_list *list);
/* Takes what --data was given. */
int cli_suites_data(const cli_list *given, cli_suite_list *list);
/* All suites in a line each, or those that were chosen in full. */
int cli_suites_list(const cli_suite_list *chosen, bool as_json);

/* ---- judges (judge.c) ---- */

enum { CLI_JUDGES = 8 };
typedef struct cli_judges {
    tm_judge *items[CLI_JUDGES];
    size_t count;
} cli_judges;
/* Opens what --judge named. 0, or an exit code; then nothing is held. */
int cli_judges_open(const cli_list *specs, const tm_device_options *where, const cli_output *output,
                    cli_judges *judges);
void cli_judges_close(cli_judges *judges);
/* Lets all of them judge. Journals are called JOURNAL.JUDGE.partial; NULL: there are none. */
tm_status cli_judges_run(const cli_judges *judges, tm_evaluation *evaluation, const char *journal,
                         const cli_output *output);
/* Says what they would ask of others; adds to `json` where that is not NULL. */
tm_status cli_judges_cost(const cli_judges *judges, tm_evaluation *evaluation, const char *name, const char *beside,
                          cli_json *json);

/* ---- */

/* The directory of results is there and can be written. 0, or an exit code. */
int cli_check_results(const char *out);
/* Notes, then the numbers: a line of JSON, or a table with a head where `first`. Returns the exit code. */
int cli_evaluation_print(const char *name, const tm_evaluation *evaluation, bool first, const cli_output *output);

typedef struct cli_suite_run {
    const cli_suite_list *suites;
    const cli_list *judges; /* what --judge named */
    const tm_eval_options *options;
    const cli_template *chosen;
    const char *out; /* directory of results; NULL: none are kept */
    bool overwrite, dry;
    const char *generator; /* what the model is called where its answers are written out */
    const cli_output *output;
} cli_suite_run;
/* The whole of `temper eval SUITE...`. Returns the exit code. */
int cli_suites_run(const cli_suite_run *run, const char *directory, const tm_device_options *where,
                   const cli_adapters *adapters);

/* ---- whose rows (history.c) -------------------------------------------------------------------------------------- */

typedef struct cli_history {
    const char *model;
    const cli_adapters *adapters;
    const char *allowed;        /* --allow-overlap, or NULL */
    bool continued;             /* --continue-adapter */
    bool forgets;               /* the weights are discarded: what earlier stages saw does not matter */
    const char *kind, *method;  /* of the new stage */
    const tm_option *own_table; /* the method's options */
    const void *own;            /* NULL: none */
    const tm_train_options *train;
    const cli_template *chosen;
    const cli_rows *rows;
    size_t count;
} cli_history;
/* The model's past and those of its adapters behind it. *extends (may be NULL): the model's is the beginning of theirs.
 */
tm_status cli_history_load(const char *model, const cli_adapters *adapters, tm_provenance **past, bool *extends);
/* Refuses prompts that two parties share, here or with an earlier stage of the model; else what will be written beside
 * the result. Returns the exit code. */
int cli_history_begin(const cli_history *history, tm_provenance **provenance);

/* ---- plans (plan_options.c) ---------------------------------------------------------------------------------------
 */

typedef struct cli_plan {
    const char *directory, *set;
    cli_list sets;
} cli_plan;
/* Adds --directory and --set. */
void cli_plan_args(cli_args *args, cli_plan *plan);
tm_status cli_plan_open(const cli_plan *how, const char *path, const tm_device *device, tm_plan **plan);

/* ---- what a plan takes (estimate.c) ------------------------------------------------------------------------------ */

typedef struct cli_plan_counts {
    size_t cells, models, done, waiting; /* done: cells; waiting: trials that an earlier rung decides about */
    int64_t workers;
} cli_plan_counts;
/* temper run --dry-run; alone: nothing but the counts. Returns the exit code. */
int cli_estimate(const tm_plan *plan, const cli_plan_counts *counts, bool alone, const cli_output *output);

/* ---- measuring (bench.c) ----------------------------------------------------------------------------------------- */

/* One measurement under way. `report` begins with a tm_bench_frame. */
typedef struct cli_bench_work {
    const tm_device_options *where;
    tm_device *device;
    const tm_monitor *monitor;
    void *options, *report;
} cli_bench_work;

/* `temper bench NAME`. */
typedef struct cli_bench_kind {
    const char *name, *about, *examples;
    const tm_option *table;
    size_t options_size, report_size;
    int (*check)(cli_bench_work *work); /* before the device is opened; NULL: nothing to check. 0, or an exit code */
    tm_status (*measure)(cli_bench_work *work);
    void (*print)(const cli_bench_work *work);
    void (*json)(const cli_bench_work *work, cli_json *json); /* further members of the object */
    int (*missed)(const cli_bench_work *work);                /* tells what was not measured; NULL: all was */
    void (*release)(void *report);
} cli_bench_kind;

extern const cli_bench_kind cli_bench_gemm, cli_bench_step, cli_bench_generate, cli_bench_eval, cli_bench_tokenize,
    cli_bench_load;

const char *cli_bench_number(double value, int digits, char out[32]); /* "-" where it is not finite */
double cli_bench_spread(const tm_bench_times *times);                 /* half of the range over the median, percent */
void cli_bench_json_times(cli_json *json, const char *key, const tm_bench_times *times);
void cli_bench_json_figures(cli_json *json, const tm_bench_figures *figures);
/* Lines of text. dtype NULL: weights are not stored. */
void cli_bench_print_model(const tm_bench_frame *frame, int shape, const char *config, const char *model,
                           const char *dtype);
void cli_bench_print_device(const cli_bench_work *work);
void cli_bench_print_times(const char *name, const tm_bench_times *times, const char *what);
void cli_bench_print_figures(const tm_bench_frame *frame, const tm_bench_figures *figures);

/* Runs a defence or an attack: the whole of `temper defend` and `temper attack`. */
int cli_method_run(const cli_command *command, bool attack, int argc, char **argv);

#endif
