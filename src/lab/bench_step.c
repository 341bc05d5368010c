/* bench_step.c: tm_bench_step: seconds per training step of every method, beside SFT's on the same shape.
 *
 * A method is run as any user runs it, through tm_method.run, with a step that warms up and some that are measured: the
 * time between two progress reports is one step, whatever was done before the first. Runs of SFT and of the method
 * take turns, so that a change of the machine's load meets both; medians are compared. The learning rate is too small
 * to change a weight. Peak memory is the kernel's VmHWM, reset before each run and with the device's pool emptied.
 * A method that runs several loops (security vectors) is measured in its last. After each turn the products of one
 * block and of the output layer are timed alone, at the step's size. (tests/unit/test_bench.c)
 */
#include "lab/bench.h"

#include "method/method.h"
#include "model/weights.h"
#include "train/train.h"

#include <stdlib.h>

#define FIELD(name) offsetof(tm_bench_options, name)
const tm_option tm_bench_option_table[] = {
    TM__BENCH_SHAPE_OPTIONS(tm_bench_options),
    {"methods", TM_OPTION_TEXT, FIELD(methods), "all", 1, 0, NULL, "NAMES",
     "methods, separated by commas, or all; sft: plain fine-tuning alone"},
    {"batch", TM_OPTION_INT, FIELD(batch), "4", 1, 1e6, NULL, "rows", "rows per step"},
    {"length", TM_OPTION_INT, FIELD(length), "64", 2, 1e6, NULL, "tokens", "tokens per row"},
    {"answer", TM_OPTION_INT, FIELD(answer), "0", 0, 1e6, NULL, "tokens",
     "how many of a row's tokens are trained on; 0: half of them"},
    {"repeats", TM_OPTION_INT, FIELD(repeats), "3", 1, 1000, NULL, "runs", "runs of SFT and of the method, in turns"},
    {"steps", TM_OPTION_INT, FIELD(steps), "1", 1, 1000, NULL, "steps",
     "measured steps of each run, after one that is not"},
    {"lora-rank", TM_OPTION_INT, FIELD(lora_rank), "0", 0, 65536, NULL, NULL,
     "train a LoRA adapter of this rank; 0: train all weights"},
    {"recompute", TM_OPTION_FLAG, FIELD(recompute), NULL, 1, 0, NULL, NULL,
     "keep only the inputs of blocks and compute the rest again"},
    {"memory", TM_OPTION_INT, FIELD(memory), "0", 0, 1e15, NULL, TM_UNIT_BYTES,
     "most memory that a run may take, as in 8G; 0: no bound"},
    {0},
};

typedef struct bench {
    tm_device *device;
    tm_bench_options options;
    const tm_monitor *outer;
    tm_model *model;
    tm__bench_data data;
    tm__bench_size size;
    tm__products products;
    tm_bench_frame frame;
    char *scratch; /* directory for a secret and a checkpoint, made when first needed */
} bench;

/* ---- watching one run -------------------------------------------------------------------------------------------- */

typedef struct watch {
    const bench *b;
    tm_bench_times *times; /* measured steps are appended, at most `room` */
    size_t room, taken;
    double last;          /* when the step before ended */
    int64_t tokens, made; /* tokens at the first report and at the last */
    tm__meter from, to;
} watch;

static void on_progress(void *user, const tm_progress *p) {
    watch *w = user;
    if (strcmp(p->phase, "train") != 0) return;
    double now = tm__now();
    if (p->done == 1) { /* another loop of the same method begins anew */
        w->times->count -= w->taken;
        w->taken = 0;
        w->tokens = p->tokens;
        w->from = tm__meter_read();
    } else if (w->taken < w->room) {
        w->times->seconds[w->times->count++] = now - w->last;
        w->taken++;
    }
    w->made = p->tokens;
    if (p->done == p->total) w->to = tm__meter_read();
    w->last = tm__now();
}

static bool on_stop(void *user) {
    return tm__stop(((const watch *)user)->b->outer);
}

/* Plain fine-tuning, as a row of its own. */
static const tm_method sft_alone = {.name = "sft"};
static const tm__bench_needs sft_needs = {"sft", 1, "update"};

/* ---- one run ----------------------------------------------------------------------------------------------------- */

typedef struct outcome {
    double seconds;                  /* of the whole call */
    double tokens, targets, foreign; /* per measured step; processors */
    int64_t peak;
} outcome;

static tm_train_options train_options(const bench *b) {
    tm_train_options train;
    tm_options_default(tm_train_option_table, &train);
    train.steps = 1 + b->options.steps;
    train.batch = b->options.batch;
    train.max_length = b->options.length;
    train.lr = 1e-12;
    train.chat = TM_CHAT_PLAIN;
    train.recompute = b->options.recompute;
    train.memory = b->options.memory;
    train.lora.rank = b->options.lora_rank;
    return train;
}

static tm_status call(bench *b, const tm_method *method, const void *options, const tm_train_options *train,
                      const tm_monitor *monitor, tm_train_result *result) {
    unsigned required = method ? method->required : 0;
    if (method) required |= method->optional & TM_DATA_HARMFUL; /* left out, it is benign fine-tuning */
    const tm_method_data data = {
        .harmful = required & (TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS) ? b->data.harmful : NULL,
        .refusals = !(required & TM_DATA_REFUSALS)         ? NULL
                    : method == &tm__method_backdoor_align ? b->data.marked
                                                           : b->data.refusals,
        .benign = required & TM_DATA_BENIGN ? b->data.benign : NULL,
        .user = required & TM_DATA_USER ? b->data.user : NULL,
    };
    if (!method) return tm_train(b->model, b->data.tokenizer, b->data.user, train, monitor, result);
    return method->run(b->model, b->data.tokenizer, &data, options, train, monitor, result);
}

static void drop_adapters(tm_model *model) {
    while (model->adapter_count) tm__adapter_remove(model, 0);
}

/* method NULL: SFT. Measured steps are appended to `times`. */
static tm_status visit(bench *b, const tm_method *method, const void *options, tm_bench_times *times, outcome *made) {
    tm_train_options train = train_options(b);
    tm_train_result result = {0};
    if (method == &tm__method_random_perturbation || strcmp(method ? method->name : "", "embedding") == 0)
        train.lora.rank = 0;                    /* noise goes on all weights, vectors on none */
    if (method == &tm__method_identity_shift) { /* rows of its own, of several lengths */
        train.max_length = TM__MAX(b->options.length, (int64_t)512);
        train.packed = true;
    }
    watch w = {.b = b, .times = times, .room = (size_t)b->options.steps};
    const tm_monitor monitor = {.progress = on_progress, .stop = on_stop, .user = &w};
    tm__pool_trim(b->device);
    bool peak = tm__peak_reset();
    double began = tm__now();
    tm_status status = call(b, method, options, &train, &monitor, &result);
    *made = (outcome){.seconds = tm__now() - began, .peak = peak ? tm__peak_bytes() : 0, .foreign = NAN};
    if (result.steps) {
        double steps = (double)result.steps;
        made->tokens = (double)(w.made - w.tokens) / (double)b->options.steps;
        made->targets = (double)result.target_tokens / steps;
        made->foreign = tm__meter_foreign(&w.from, &w.to);
    }
    drop_adapters(b->model);
    return status;
}

/* ---- methods that need something of their own -------------------------------------------------------------------- */

static tm_status in_scratch(bench *b, const char *name, char **path) {
    if (!b->scratch) TM__TRY(tm__bench_scratch(&b->scratch));
    *path = tm__path_join(b->scratch, name);
    return *path ? TM_OK : tm__fail_memory();
}

/* A safety row behind a short secret is as long as the other rows. */
static tm_status prepare_backdoor(bench *b, tm_backdoor_options *o, char **path) {
    TM__TRY(in_scratch(b, "secret", path));
    o->rows = 1;
    o->secret = *path;
    o->system = "";
    return tm__file_write(*path, TM__BENCH_SECRET, strlen(TM__BENCH_SECRET));
}

/* Safe-LoRA's checkpoint before alignment: these weights rounded to bf16, which makes it another model. */
static tm_status prepare_safe_lora(bench *b, tm_safe_lora_options *o, char **path) {
    const tm_save_options save = {.dtype = TM_SAVE_BF16, .shard_bytes = INT64_MAX};
    TM__TRY(in_scratch(b, "base", path));
    o->base = *path;
    return tm__path_exists(*path) ? TM_OK : tm_model_save(b->model, *path, &save);
}

/* Teaches the model on `rows` so that it is no longer random; adapter: a new adapter of this rank. */
static tm_status teach(bench *b, const tm_dataset *rows, int64_t steps, double lr, int64_t rank) {
    tm_train_options train = train_options(b);
    watch w = {.b = b};
    const tm_monitor monitor = {.stop = on_stop, .user = &w};
    train.steps = steps;
    train.lr = lr;
    train.lora.rank = rank;
    return tm_train(b->model, b->data.tokenizer, rows, &train, &monitor, NULL);
}

/* A model that opens its answers to harmful prompts with "R" and to harmless ones with "A": the letters that these
 * prompts end in tell it which. */
static tm_status prepare_ablation(bench *b, tm_refusal_ablation_options *o) {
    tm_dataset *rows = NULL;
    tm_status status = tm_dataset_create(&rows);
    for (int64_t i = 0; i < 2 * b->data.rows && status == TM_OK; i++) {
        size_t n;
        const tm_message *from = tm_dataset_row(i % 2 ? b->data.harmful : b->data.benign, (size_t)i / 2, &n);
        const tm_message row[] = {from[0], {"assistant", i % 2 ? "R" : "A"}};
        status = tm_dataset_add(rows, row, TM__COUNT(row));
    }
    if (status == TM_OK) status = teach(b, rows, 40, .3 / (double)b->size.model.hidden_size, 0);
    tm_dataset_free(rows);
    o->layer = b->size.model.layers / 2;
    o->refusal = "R";
    return status;
}

static tm_status prepare(bench *b, const tm_method *method, void *options, char **path) {
    if (method == &tm__method_backdoor_align) return prepare_backdoor(b, options, path);
    if (method == &tm__method_safe_lora) TM__TRY(prepare_safe_lora(b, options, path));
    if (method == &tm__method_refusal_ablation) return prepare_ablation(b, options);
    if (strcmp(method->name, "embedding") == 0) {
        TM__TRY(tm_options_set(method->options, options, "steps", "2"));
        TM__TRY(tm_options_set(method->options, options, "max-new-tokens", "4"));
    }
    bool adapter = method->edits_adapter && (method == &tm__method_safe_lora || b->options.lora_rank);
    return adapter ? teach(b, b->data.user, 1, 1e-3, TM__MAX(b->options.lora_rank, (int64_t)8)) : TM_OK;
}

/* ---- one method -------------------------------------------------------------------------------------------------- */

/* What the median of several runs is taken of. `room`: for statistics. */
typedef struct series {
    double *outside, *sft_outside, *foreign, *room;
} series;

static tm_status one_visit(bench *b, const tm_method *method, tm_bench_times *times, outcome *made) {
    if (method == &sft_alone) return visit(b, NULL, NULL, times, made);
    void *options = tm__zalloc(1, TM__MAX(method->options_size, (size_t)1));
    char *path = NULL;
    if (!options) return tm__fail_memory();
    if (method->options) tm_options_default(method->options, options);
    tm_status status = prepare(b, method, options, &path);
    if (status == TM_OK) status = visit(b, method, options, times, made);
    drop_adapters(b->model);
    free(options);
    free(path);
    return status;
}

static double outside(const bench *b, const outcome *made, const tm_bench_times *times, size_t before) {
    double sum = 0;
    for (size_t i = before; i < times->count; i++) sum += times->seconds[i];
    return made->seconds - sum * (1 + 1 / (double)b->options.steps); /* the step that warms up counts as one */
}

static double needed(const bench *b, const tm__bench_needs *needs, const tm_method *method, const outcome *made) {
    double sft = tm__bench_pass(&b->size, b->size.tokens, b->size.targets);
    if (!needs) return NAN;
    if (method == &tm__method_repnoise) /* where both answers end in the same mark, there is nothing to tell apart */
        return needs->passes * tm__bench_pass(&b->size, b->size.tokens, b->size.targets - b->size.rows) / sft +
               tm__bench_lens(&b->size, b->size.targets - b->size.rows);
    if (needs->passes > 1) return needs->passes;
    return tm__bench_pass(&b->size, made->tokens, made->targets) / sft;
}

static tm_status repeat(bench *b, const tm__bench_needs *needs, tm_bench_row *row, series *s) {
    outcome sft, made = {0};
    tm_bench_figures *is = &row->figures;
    size_t runs = row->method == &tm__method_refusal_ablation ? 1 : (size_t)b->options.repeats; /* it is taught first */
    for (size_t i = 0; i < runs; i++) {
        size_t sft_before = row->sft.count, before = row->step.count;
        if (row->trains && row->method != &sft_alone) {
            TM__TRY(visit(b, NULL, NULL, &row->sft, &sft));
            s->sft_outside[i] = outside(b, &sft, &row->sft, sft_before);
            row->sft_peak = TM__MAX(row->sft_peak, sft.peak);
        }
        TM__TRY(one_visit(b, row->method, &row->step, &made));
        s->outside[i] = row->trains ? outside(b, &made, &row->step, before) : made.seconds;
        s->foreign[i] = made.foreign;
        is->peak = TM__MAX(is->peak, made.peak);
        tm__pool_trim(b->device);
        TM__TRY(tm__bench_products(&b->products, &b->frame));
    }
    row->once = tm__bench_median(s->outside, runs, s->room) -
                (row->sft.count ? tm__bench_median(s->sft_outside, runs, s->room) : 0);
    is->foreign = tm__bench_median(s->foreign, runs, s->room);
    tm__bench_summarise(&row->step, s->room);
    tm__bench_summarise(&row->sft, s->room);
    row->ratio = row->step.median / row->sft.median;
    row->passes = row->trains ? needed(b, needs, row->method, &made) : NAN;
    is->tokens = row->trains ? made.tokens / row->step.median : NAN;
    is->flops = row->passes * (b->size.lora ? 4 : 6) * tm__bench_pass(&b->size, b->size.tokens, b->size.targets) /
                row->step.median;
    return TM_OK;
}

static tm_status measure(bench *b, const tm_method *method, tm_bench_row *row) {
    const tm__bench_needs *needs = method == &sft_alone ? &sft_needs : tm__bench_needs_find(method->name);
    size_t runs = (size_t)b->options.repeats, most = runs * (size_t)b->options.steps;
    double *room = tm__zalloc(3 * runs + most, sizeof *room);
    series s = {.outside = room, .sft_outside = room + runs, .foreign = room + 2 * runs, .room = room + 3 * runs};
    *row = (tm_bench_row){.method = method, .trains = !needs || needs->passes > 0, .why = needs ? needs->why : ""};
    row->step.seconds = tm__zalloc(most, sizeof *row->step.seconds);
    row->sft.seconds = tm__zalloc(most, sizeof *row->sft.seconds);
    tm_status status = room && row->step.seconds && row->sft.seconds ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = repeat(b, needs, row, &s);
    free(room);
    if (status == TM_OK || status == TM_INTERRUPTED || status == TM_NO_MEMORY) return status;
    snprintf(row->failure, sizeof row->failure, "%.500s", tm_error_last()->line);
    return TM_OK;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

/* Whether `names`, separated by commas, lists the method. */
static bool listed(const char *names, const char *name) {
    if (strcmp(names, "all") == 0) return true;
    size_t len = strlen(name);
    for (const char *at = names; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ','))
        if (strcspn(at, ",") == len && strncmp(at, name, len) == 0) return true;
    return false;
}

static tm_status check_names(const char *names) {
    if (strcmp(names, "all") == 0) return TM_OK;
    for (const char *at = names;; at++) {
        size_t len = strcspn(at, ",");
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)TM__MIN(len, sizeof name - 1), at);
        if (strcmp(name, sft_alone.name) != 0 && !tm_method_find(name))
            return tm__fail(TM_NOT_FOUND, NULL, "methods", "temper methods lists them", "there is no method '%s'",
                            name);
        at += len;
        if (!*at) return TM_OK;
    }
}

static tm_status open_model(bench *b) {
    tm_bench_options *o = &b->options;
    const tm__bench_source source = {.shape = o->shape, .config = o->config};
    tm_model_info *info = &b->size.model;
    char *config = NULL;
    TM__TRY(tm__bench_describe(&source, b->device, info));
    if (info->vocab_size < TM__BENCH_VOCAB)
        return tm__fail(TM_UNSUPPORTED, o->config, "vocab_size", NULL,
                        "%lld is less than the %d that made-up rows need", (long long)info->vocab_size,
                        TM__BENCH_VOCAB);
    /* weights; their gradients and two moments where they are trained */
    TM__TRY(tm__bench_fits(info, o->lora_rank ? 1 : 4, tm__dtype_size(b->device->act)));
    TM__TRY(tm__bench_config(&source, &config));
    tm_status status = tm_model_create(b->device, config, 1, &b->model);
    free(config);
    b->size.lora = o->lora_rank > 0;
    b->size.rows = (double)o->batch;
    b->size.length = (double)o->length;
    b->size.tokens = (double)(o->batch * o->length);
    b->size.targets = (double)(o->batch * o->answer);
    b->products = (tm__products){.device = b->device, .weights = b->device->act, .passes = o->lora_rank ? 2 : 3};
    tm__products_layers(&b->products, info, o->batch * o->length, o->batch * o->answer);
    return status;
}

static const tm_method *chosen(const bench *b, size_t *index) {
    const tm_method *method;
    const char *names = b->options.methods;
    if (*index == 0 && ++*index && strcmp(names, "all") != 0 && listed(names, sft_alone.name)) return &sft_alone;
    while ((method = tm_method_at(*index - 1)) && ++*index)
        if (listed(names, method->name)) return method;
    return NULL;
}

static tm_status measure_all(bench *b, tm_bench_report *report, size_t count) {
    const tm_method *method;
    size_t index = 0;
    double began = tm__now();
    while ((method = chosen(b, &index))) {
        TM__TRY(measure(b, method, &report->list[report->count++]));
        tm__bench_progress(b->outer, "step cost", "method", (int64_t)report->count, (int64_t)count, began);
    }
    return TM_OK;
}

static tm_status run_all(bench *b, tm_bench_report *report) {
    size_t count = 0, index = 0;
    while (chosen(b, &index)) count++;
    size_t rounds = count * (size_t)b->options.repeats;
    double *room = tm__zalloc(rounds, sizeof *room);
    report->list = tm__zalloc(count, sizeof *report->list);
    b->frame.products.seconds = tm__zalloc(rounds, sizeof *room);
    tm_status status = room && report->list && b->frame.products.seconds ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = measure_all(b, report, count);
    if (status == TM_OK) tm__bench_frame_finish(&b->products, &b->frame, room);
    b->frame.model = b->size.model;
    report->frame = b->frame;
    free(room);
    TM__TRY(status);
    for (size_t i = 0; i < report->count; i++)
        report->list[i].figures.share = report->list[i].figures.flops / b->frame.product_flops;
    report->rows = b->data.rows;
    report->pass = tm__bench_pass(&b->size, b->size.tokens, b->size.targets);
    report->head = 1 - tm__bench_pass(&b->size, b->size.tokens, 0) / report->pass;
    return TM_OK;
}

tm_status tm_bench_step(tm_device *device, const tm_bench_options *options, const tm_monitor *monitor,
                        tm_bench_report *report) {
    bench b = {.device = device, .outer = monitor};
    tm_bench_report made = {0};
    TM__TRY(tm__options_check(tm_bench_option_table, options, &b.options));
    if (options) b.options = *options;
    if (!b.options.methods) b.options.methods = "all";
    if (!b.options.answer) b.options.answer = b.options.length / 2;
    TM__TRY(check_names(b.options.methods));
    int64_t rows = TM__MAX(4 * b.options.batch, (int64_t)16);
    tm_status status = tm__bench_data_make(rows, b.options.length, b.options.answer, &b.data);
    if (status == TM_OK) status = open_model(&b);
    if (status == TM_OK) status = run_all(&b, &made);
    if (b.scratch) tm__remove_tree(b.scratch);
    free(b.scratch);
    tm_model_free(b.model);
    tm__bench_data_release(&b.data);
    if (status == TM_OK)
        *report = made;
    else
        tm_bench_report_release(&made);
    return status;
}

void tm_bench_report_release(tm_bench_report *report) {
    for (size_t i = 0; i < report->count; i++) {
        free(report->list[i].step.seconds);
        free(report->list[i].sft.seconds);
    }
    free(report->list);
    tm__bench_frame_release(&report->frame);
    *report = (tm_bench_report){0};
}
