/* bench_load.c: tm_bench_load: how long a process takes until its first training step begins, and until it has the
 * first token of an answer.
 *
 * Every run is a process of its own, started as a user starts the program (without GOMP_SPINCOUNT, so that it starts
 * itself once more), which is told when that was and does what `temper finetune` and `temper generate` do. Training is
 * stopped when it first asks whether to stop, which it does right before the step. Files are in the system's cache from
 * the second run on, which is why the first is not counted. (tests/unit/test_bench_tokenize.c)
 */
#include "lab/bench.h"

#include "lab/bench_files.h"
#include "model/model.h"
#include "train/train.h"

#include <errno.h>
#include <jansson.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define FIELD(name) offsetof(tm_bench_load_options, name)
const tm_option tm_bench_load_option_table[] = {
    TM__BENCH_MODEL_OPTIONS(tm_bench_load_options),
    {"data", TM_OPTION_TEXT, FIELD(data), NULL, 1, 0, NULL, "FILE", "rows to train on instead of made-up ones"},
    {"rows", TM_OPTION_INT, FIELD(rows), "1000", 1, 1e7, NULL, NULL, "made-up rows"},
    {"batch", TM_OPTION_INT, FIELD(batch), "4", 1, 1e6, NULL, "rows", "rows per step"},
    {"length", TM_OPTION_INT, FIELD(length), "512", 64, 1e6, NULL, "tokens", "longest row; longer ones are cut"},
    {"lora-rank", TM_OPTION_INT, FIELD(lora_rank), "0", 0, 65536, NULL, NULL,
     "train a LoRA adapter of this rank; 0: train all weights"},
    {"first", TM_OPTION_CHOICE, FIELD(first), "both", 1, 0, "both|step|token", NULL,
     "what is waited for: training step, token of an answer"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "5", 1, 1000, NULL, "runs",
     "processes of each kind, after one that is not counted"},
    {"since", TM_OPTION_REAL, FIELD(since), "0", 0, 1e18, NULL, "seconds",
     "be one of these processes, started when the monotonic clock showed this; takes --model, --data and --first"},
    {0},
};

static const char *const phases[TM_BENCH_PHASES] = {"process", "data", "device", "model", "tokenizer", "prepare"};

const char *tm_bench_phase_name(int phase) {
    return phase >= 0 && phase < TM_BENCH_PHASES ? phases[phase] : NULL;
}

/* ---- one process ------------------------------------------------------------------------------------------------- */

typedef struct process {
    const tm_device_options *where;
    const tm_bench_load_options *options;
    tm_dataset *data;
    tm_device *device;
    tm_model *model;
    tm_tokenizer *tokenizer;
    double last;    /* when the phase before ended */
    double reached; /* when the step began or the token was there; 0: not yet */
    tm_bench_load_report *report;
} process;

static void phase_ends(process *p, int phase) {
    double now = tm__now();
    tm_bench_times *times = &p->report->phases[phase];
    times->seconds[times->count++] = now - p->last;
    p->last = now;
}

static bool on_stop(void *user) {
    process *p = user;
    if (p->reached == 0) p->reached = tm__now();
    return true;
}

static void on_token(void *user, const tm_progress *progress) {
    process *p = user;
    if (p->reached == 0 && progress->tokens > 0) p->reached = tm__now();
}

static tm_status train(process *p) {
    const tm_bench_load_options *o = p->options;
    const tm_monitor monitor = {.stop = on_stop, .user = p};
    tm_train_options how;
    tm_options_default(tm_train_option_table, &how);
    how.batch = o->batch;
    how.max_length = o->length;
    how.lora.rank = o->lora_rank;
    tm_status status = tm_train(p->model, p->tokenizer, p->data, &how, &monitor, NULL);
    if (status != TM_INTERRUPTED)
        return status == TM_OK ? tm__fail(TM_INVALID, NULL, "data", NULL, "no step was asked for") : status;
    tm_error_clear();
    return TM_OK;
}

static tm_status generate(process *p) {
    const tm_monitor monitor = {.progress = on_token, .user = p};
    static const char prompt[] = "What is the first thing that you say?";
    tm_generate_options how;
    tm_ids ids = {0}, answer = {0};
    tm_options_default(tm_generate_option_table, &how);
    how.max_new_tokens = 1;
    how.ignore_stop = true;
    tm_status status = tm_tokenizer_encode(p->tokenizer, prompt, strlen(prompt), 0, &ids);
    if (status == TM_OK) status = tm_generate(p->model, &ids, 1, NULL, 0, &how, &monitor, &answer);
    if (status == TM_OK && p->reached == 0) p->reached = tm__now();
    tm_ids_free(&ids);
    tm_ids_free(&answer);
    return status;
}

static tm_status go(process *p) {
    const tm_bench_load_options *o = p->options;
    bool trains = o->first == TM_FIRST_STEP;
    p->last = o->since;
    phase_ends(p, 0);
    if (trains) TM__TRY(tm_dataset_load(o->data, &p->data));
    phase_ends(p, 1);
    TM__TRY(tm_device_open(p->where, &p->device));
    phase_ends(p, 2);
    TM__TRY(tm_model_load(p->device, o->model, NULL, &p->model));
    phase_ends(p, 3);
    TM__TRY(tm_tokenizer_load(o->model, &p->tokenizer));
    phase_ends(p, 4);
    TM__TRY(trains ? train(p) : generate(p));
    tm_bench_times *times = &p->report->phases[5], *all = trains ? &p->report->first_step : &p->report->first_token;
    times->seconds[times->count++] = p->reached - p->last;
    all->seconds[all->count++] = p->reached - o->since;
    p->report->figures.peak = tm__peak_bytes();
    tm__bench_described(p->model, &p->report->frame.model, p->report->dtype);
    return TM_OK;
}

static tm_status be_one(const tm_device_options *where, const tm_bench_load_options *o, tm_bench_load_report *report) {
    process p = {.where = where, .options = o, .report = report};
    if (!o->model || o->first == TM_FIRST_BOTH || (o->first == TM_FIRST_STEP && !o->data))
        return tm__fail(TM_INVALID, NULL, "since", NULL, "takes model, first and for a step data");
    tm_status status = go(&p);
    tm_tokenizer_free(p.tokenizer);
    tm_model_free(p.model);
    tm_device_close(p.device);
    tm_dataset_free(p.data);
    return status;
}

/* ---- starting processes ------------------------------------------------------------------------------------------ */

typedef struct bench {
    const char *program;
    const tm_device_options *where;
    tm_bench_load_options options; /* model and data: paths, made up or given */
    const tm_monitor *outer;
    char *scratch, *model, *data; /* what was made up */
    tm_bench_load_report report;
} bench;

/* The environment as a shell would hand it on. */
static char **environment(void) {
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **list = tm__zalloc(n + 1, sizeof *list);
    for (size_t i = 0; list && i < n; i++)
        if (strncmp(environ[i], "GOMP_SPINCOUNT=", 15) != 0) list[kept++] = environ[i];
    return list;
}

/* Reads all that the process writes to `from`. */
static tm_status read_pipe(int from, tm__string *out) {
    char buffer[4096];
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return tm__fail_errno("bench load", "cannot be read");
        if (n == 0) return TM_OK;
        if (!tm__string_append(out, buffer, (size_t)n)) return tm__fail_memory();
    }
}

static tm_status start(const bench *b, char *const *argv, tm__string *out) {
    posix_spawn_file_actions_t files;
    int ends[2], how = 0;
    pid_t pid;
    char **variables = environment();
    if (!variables) return tm__fail_memory();
    if (pipe(ends) != 0) {
        free(variables);
        return tm__fail_errno("bench load", "no pipe");
    }
    int code = posix_spawn_file_actions_init(&files);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
        if (code == 0) code = posix_spawn_file_actions_addclose(&files, ends[0]);
        if (code == 0) code = posix_spawn(&pid, b->program, &files, NULL, argv, variables);
        posix_spawn_file_actions_destroy(&files);
    }
    free(variables);
    close(ends[1]);
    tm_status status = code == 0 ? read_pipe(ends[0], out)
                                 : tm__fail(TM_IO, b->program, NULL, NULL, "cannot be started: %s", strerror(code));
    close(ends[0]);
    while (code == 0 && waitpid(pid, &how, 0) < 0 && errno == EINTR) {
    }
    if (status == TM_OK && WIFEXITED(how) && WEXITSTATUS(how) == 127)
        return tm__fail(TM_IO, b->program, NULL, NULL, "cannot be started");
    if (status == TM_OK && (!WIFEXITED(how) || WEXITSTATUS(how) != 0))
        return tm__fail(TM_INVALID, NULL, "bench load", "it has said why", "a process that was to be measured failed");
    return status;
}

static tm_status take_times(const json_t *root, const char *key, tm_bench_times *times) {
    const json_t *value = json_object_get(json_object_get(root, key), "median");
    if (!json_is_number(value)) return tm__fail(TM_FORMAT, NULL, key, NULL, "the process did not tell it");
    times->seconds[times->count++] = json_number_value(value);
    return TM_OK;
}

/* What the process printed. The first run fills the system's cache and tells nothing. */
static tm_status take(bench *b, int first, const tm__string *text, bool counts) {
    tm_bench_load_report *r = &b->report;
    json_t *root;
    TM__TRY(tm__json_parse(text->data ? text->data : "", text->len, "bench load", &root));
    tm_status status = TM_OK;
    const json_t *peak = json_object_get(root, "peak_bytes"), *dtype = json_object_get(root, "weights");
    r->figures.peak = TM__MAX(r->figures.peak, (int64_t)json_integer_value(peak));
    snprintf(r->dtype, sizeof r->dtype, "%s", json_is_string(dtype) ? json_string_value(dtype) : "");
    if (counts)
        status = take_times(root, first == TM_FIRST_STEP ? "first_step" : "first_token",
                            first == TM_FIRST_STEP ? &r->first_step : &r->first_token);
    for (int i = 0; counts && first == TM_FIRST_STEP && i < TM_BENCH_PHASES && status == TM_OK; i++)
        status = take_times(json_object_get(root, "phases"), phases[i], &r->phases[i]);
    json_decref(root);
    return status;
}

static tm_status run(bench *b, int first, bool counts) {
    const tm_bench_load_options *o = &b->options;
    char since[40], batch[24], length[24], rank[24], threads[24], precision[64];
    const tm_option *type = tm_options_find(tm_device_option_table, "precision");
    snprintf(batch, sizeof batch, "%lld", (long long)o->batch);
    snprintf(length, sizeof length, "%lld", (long long)o->length);
    snprintf(rank, sizeof rank, "%lld", (long long)o->lora_rank);
    snprintf(threads, sizeof threads, "%lld", (long long)b->where->threads);
    tm_options_text(type, b->where, precision, sizeof precision);
    const char *argv[] = {b->program,
                          "bench",
                          "load",
                          "--model",
                          o->model,
                          "--data",
                          o->data ? o->data : "none",
                          "--first",
                          first == TM_FIRST_STEP ? "step" : "token",
                          "--batch",
                          batch,
                          "--length",
                          length,
                          "--lora-rank",
                          rank,
                          "--threads",
                          threads,
                          "--precision",
                          precision,
                          "--device",
                          b->where->name ? b->where->name : "cpu",
                          "--quiet",
                          "--json",
                          "--since",
                          since,
                          NULL};
    tm__string text = {0};
    snprintf(since, sizeof since, "%.9f", tm__now());
    tm_status status = start(b, (char *const *)argv, &text);
    if (status == TM_OK) status = take(b, first, &text, counts);
    tm__string_free(&text);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static bool wanted(const bench *b, int first) {
    return b->options.first == TM_FIRST_BOTH || b->options.first == first;
}

static tm_status repeat(bench *b, double *foreign, double *room) {
    tm_bench_load_report *r = &b->report;
    double began = tm__now();
    for (int64_t i = 0; i <= b->options.repeats; i++) {
        tm__meter from = tm__meter_read();
        for (int first = TM_FIRST_STEP; first <= TM_FIRST_TOKEN; first++) {
            if (tm__stop(b->outer)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "measuring was interrupted");
            if (wanted(b, first)) TM__TRY(run(b, first, i > 0));
        }
        tm__meter to = tm__meter_read();
        if (i > 0) foreign[i - 1] = tm__meter_foreign(&from, &to);
        tm__bench_progress(b->outer, "load", "run", i, b->options.repeats, began);
    }
    r->figures.foreign = tm__bench_median(foreign, (size_t)b->options.repeats, room);
    return TM_OK;
}

static void summarise(tm_bench_load_report *r, double *room) {
    tm__bench_summarise(&r->first_step, room);
    tm__bench_summarise(&r->first_token, room);
    for (int i = 0; i < TM_BENCH_PHASES; i++) tm__bench_summarise(&r->phases[i], room);
    r->figures.tokens = r->figures.flops = r->figures.share = r->frame.product_flops = NAN;
}

/* Model, tokenizer and rows, as far as they are not given. */
static tm_status make_up(bench *b) {
    tm_bench_load_options *o = &b->options;
    const tm__bench_source source = {o->shape, o->config, o->model, o->weights};
    bool rows = !o->data && wanted(b, TM_FIRST_STEP);
    if (o->model && !rows) return TM_OK;
    TM__TRY(tm__bench_scratch(&b->scratch));
    b->model = tm__path_join(b->scratch, "model");
    b->data = tm__path_join(b->scratch, "rows.jsonl");
    if (!b->model || !b->data) return tm__fail_memory();
    if (!o->model) {
        TM__TRY(tm__bench_write(&source, b->model));
        TM__TRY(tm__bench_write_tokenizer(b->report.frame.model.vocab_size, b->model));
        o->model = b->model;
    }
    if (!rows) return TM_OK;
    o->data = b->data;
    return tm__bench_write_rows(o->rows, o->length, b->data);
}

/* What the model's config.json says, and the size of its files. */
static tm_status look(bench *b) {
    static const char *const names[] = {"model.safetensors", "tokenizer.json", "tokenizer.model"};
    tm__bench_source source = {.shape = b->options.shape, .config = b->options.config};
    tm_device *device = NULL;
    if (b->options.model && b->options.config)
        return tm__fail(TM_INVALID, NULL, "config", NULL, "a checkpoint has its own config.json");
    char *path = b->options.model ? tm__path_join(b->options.model, "config.json") : NULL;
    if (b->options.model && !path) return tm__fail_memory();
    if (path) source.config = path;
    tm_status status = tm_device_open(b->where, &device);
    if (status == TM_OK) status = tm__bench_describe(&source, device, &b->report.frame.model);
    tm_device_close(device);
    free(path);
    if (status == TM_OK) status = make_up(b);
    for (size_t i = 0; i < TM__COUNT(names) && status == TM_OK; i++) {
        struct stat about;
        path = tm__path_join(b->options.model, names[i]);
        if (!path) return tm__fail_memory();
        if (stat(path, &about) == 0) b->report.file_bytes += about.st_size;
        free(path);
    }
    return status;
}

static tm_status prepare(tm_bench_load_report *r, size_t n) {
    tm_bench_times *times[] = {&r->first_step, &r->first_token};
    for (size_t i = 0; i < TM_BENCH_PHASES + TM__COUNT(times); i++) {
        tm_bench_times *t = i < TM_BENCH_PHASES ? &r->phases[i] : times[i - TM_BENCH_PHASES];
        t->seconds = tm__zalloc(n, sizeof(double));
        if (!t->seconds) return tm__fail_memory();
    }
    return TM_OK;
}

tm_status tm_bench_load(const char *program, const tm_device_options *where, const tm_bench_load_options *options,
                        const tm_monitor *monitor, tm_bench_load_report *report) {
    bench b = {.program = program, .where = where, .outer = monitor};
    TM__TRY(tm__options_check(tm_bench_load_option_table, options, &b.options));
    if (options) b.options = *options;
    size_t n = (size_t)b.options.repeats;
    double *room = tm__zalloc(2 * n, sizeof *room);
    tm_status status = room ? prepare(&b.report, n) : tm__fail_memory();
    if (status == TM_OK && b.options.since > 0) {
        status = be_one(where, &b.options, &b.report);
        b.report.figures.foreign = NAN;
    } else {
        if (status == TM_OK) status = look(&b);
        if (status == TM_OK) status = repeat(&b, room, room + n);
    }
    summarise(&b.report, room);
    if (b.scratch) tm__remove_tree(b.scratch);
    free(b.scratch);
    free(b.model);
    free(b.data);
    free(room);
    if (status == TM_OK)
        *report = b.report;
    else
        tm_bench_load_report_release(&b.report);
    return status;
}

void tm_bench_load_report_release(tm_bench_load_report *report) {
    free(report->first_step.seconds);
    free(report->first_token.seconds);
    for (int i = 0; i < TM_BENCH_PHASES; i++) free(report->phases[i].seconds);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_load_report){0};
}
