/* demo.c: the whole story on the built-in world: base model, alignment, attack, defence, attack on the defended model.
 *
 * Every row is a function of its parent's model, the world and its options; its key is the SHA-256 of all of these. A
 * row whose key is in the cache, and whose model directory still has the hash that the cache names, is not made again.
 * DIR/world holds the data sets and the tokenizer, DIR/models/ROW the models, DIR/cache/KEY.json the figures. Models
 * and records appear whole or not at all, models first: a run that was killed goes on at the row where it stopped.
 */
#include "lab/demo.h"

#include <stdlib.h>

/* Part of every key: to be raised when code changes a row's model or figures without changing anything else in the key.
 */
#define DEMO_VERSION "1"

const tm_option tm_demo_option_table[] = {
    {"directory", TM_OPTION_TEXT, offsetof(tm_demo_options, directory), "temper-demo", 1, 0, NULL, "DIR",
     "where models, data sets and cache are kept"},
    {"seed", TM_OPTION_INT, offsetof(tm_demo_options, seed), "1", 0, 9e15, NULL, NULL,
     "seed of the world and of everything made in it; 101 to 103 are kept for final tables"},
    {"fresh", TM_OPTION_FLAG, offsetof(tm_demo_options, fresh), NULL, 1, 0, NULL, NULL, "ignore the cache"},
    {"quick", TM_OPTION_FLAG, offsetof(tm_demo_options, quick), NULL, 1, 0, NULL, NULL,
     "a tiny world and a few steps, to see it run: the figures mean nothing"},
    {0},
};

typedef struct demo_run {
    tm_device *device;
    tm_demo_options options;
    const tm_monitor *outer;
    tm_monitor inner; /* passes on to `outer` with the row's name put in front */
    char label[96];   /* what `inner` is busy with: "base: training" */
    tm_world *world;
    tm_tokenizer *tokenizer;
    char *config; /* config.json of the base model */
    char *world_dir;
    char world_hash[65]; /* over every data set and the tokenizer */
    tm__demo_step steps[TM_DEMO_ROWS];
    tm_train_options downstream;
    char keys[TM_DEMO_ROWS][65];
} demo_run;

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static tm_train_options train_options(const demo_run *demo, int64_t steps, int64_t batch, double lr) {
    tm_train_options train;
    tm_options_default(tm_train_option_table, &train);
    train.steps = demo->options.quick ? TM__MAX(steps / 50, 2) : steps;
    train.batch = batch;
    train.lr = lr;
    train.max_length = 128;
    train.packed = true;
    train.seed = demo->options.seed;
    return train;
}

/* Base training and alignment: cosine with a short warm-up, and a memory of squared gradients that fits so few steps.
 */
static tm_train_options long_options(const demo_run *demo, int64_t steps, int64_t batch, double lr) {
    tm_train_options train = train_options(demo, steps, batch, lr);
    train.schedule = 2;
    train.warmup = 0.05;
    train.beta2 = 0.99;
    return train;
}

static void make_plan(demo_run *demo) {
    tm__demo_step *steps = demo->steps;
    tm_train_options attack = train_options(demo, 60, 16, 1e-4);
    steps[TM__DEMO_BASE] = (tm__demo_step){.name = "base",
                                           .folder = "base",
                                           .parent = -1,
                                           .rows = "pretrain",
                                           .train = long_options(demo, 1300, 32, 3e-3)};
    steps[TM__DEMO_ALIGNED] = (tm__demo_step){.name = "aligned",
                                              .folder = "aligned",
                                              .parent = TM__DEMO_BASE,
                                              .rows = "align",
                                              .train = long_options(demo, 200, 32, 3e-4)};
    steps[TM__DEMO_ATTACKED] = (tm__demo_step){.name = "aligned + attack",
                                               .folder = "aligned-attack",
                                               .parent = TM__DEMO_ALIGNED,
                                               .method = "harmful-sft",
                                               .rows = "forbidden-attacker",
                                               .train = attack};
    steps[TM__DEMO_SDD] = (tm__demo_step){.name = "SDD",
                                          .folder = "sdd",
                                          .parent = TM__DEMO_ALIGNED,
                                          .method = "sdd",
                                          .rows = "forbidden-defender",
                                          .benign = "pool",
                                          .train = train_options(demo, 150, 24, 1e-4)};
    steps[TM__DEMO_SDD_ATTACKED] = steps[TM__DEMO_ATTACKED];
    steps[TM__DEMO_SDD_ATTACKED].name = "SDD + attack";
    steps[TM__DEMO_SDD_ATTACKED].folder = "sdd-attack";
    steps[TM__DEMO_SDD_ATTACKED].parent = TM__DEMO_SDD;
    demo->downstream = train_options(demo, 100, 16, 3e-4);
}

/* Rows of the attack: two paraphrases of every item of the attacker's split, 96 in the full world. */
static int64_t attack_rows(const demo_run *demo) {
    return 2 * (demo->world->size->categories - 1) * demo->world->size->split[TM_WORLD_ATTACKER];
}

static tm_status make_config(demo_run *demo) {
    bool quick = demo->options.quick;
    demo->config = tm__world_model_config(demo->tokenizer, quick ? 32 : 128, quick ? 64 : 384, quick ? 2 : 4);
    return demo->config ? TM_OK : tm__fail_memory();
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* The method's own options: defaults but for the attack's number of rows and the seed. */
static void method_options(const demo_run *demo, const tm_method *method, void *options) {
    tm_options_default(method->options, options);
    if (strcmp(method->name, "harmful-sft") == 0) ((tm_harmful_sft_options *)options)->rows = attack_rows(demo);
    if (strcmp(method->name, "sdd") == 0) ((tm_sdd_options *)options)->seed = demo->options.seed;
}

typedef union any_options {
    tm_sdd_options sdd;
    tm_harmful_sft_options harmful_sft;
} any_options;

static void make_key(demo_run *demo, int row) {
    const tm__demo_step *step = &demo->steps[row];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__key_text(&hash, "demo", DEMO_VERSION);
    tm__key_text(&hash, "temper", TM_VERSION);
    tm__key_text(&hash, "device", tm_device_name(demo->device));
    tm__key_text(&hash, "instruction set", tm_device_instruction_set(demo->device));
    tm__key_text(&hash, "precision", tm_device_precision(demo->device));
    tm__key_text(&hash, "world", demo->world_hash);
    tm__key_text(&hash, "parent", step->parent < 0 ? demo->config : demo->keys[step->parent]);
    tm__key_text(&hash, "rows", step->rows);
    tm__key_text(&hash, "benign", step->benign ? step->benign : "");
    tm__key_text(&hash, "method", step->method ? step->method : "");
    if (step->method) {
        any_options options;
        const tm_method *method = tm_method_find(step->method);
        method_options(demo, method, &options);
        tm__key_options(&hash, method->options, &options);
    }
    tm__key_options(&hash, tm_train_option_table, &step->train);
    tm__key_options(&hash, tm_train_option_table, &demo->downstream);
    tm__sha256_hex(&hash, demo->keys[row]);
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static void pass_progress(void *user, const tm_progress *progress) {
    const demo_run *demo = user;
    tm_progress named = *progress;
    named.phase = demo->label;
    demo->outer->progress(demo->outer->user, &named);
}

static void pass_note(void *user, const char *line) {
    const demo_run *demo = user;
    tm__note(demo->outer, "%s: %s", demo->label, line);
}

static bool pass_stop(void *user) {
    const demo_run *demo = user;
    return tm__stop(demo->outer);
}

static void watch(demo_run *demo, const tm_monitor *monitor) {
    demo->outer = monitor;
    demo->inner = (tm_monitor){.note = pass_note, .stop = pass_stop, .user = demo};
    if (monitor && monitor->progress) demo->inner.progress = pass_progress;
}

static void busy(demo_run *demo, const tm_demo_row *row, const char *what) {
    snprintf(demo->label, sizeof demo->label, "%.63s: %s", row->name, what);
}

/* ---- making and measuring one row -------------------------------------------------------------------------------- */

static tm_status run_step(demo_run *demo, const tm__demo_step *step, tm_model *model) {
    tm_dataset *rows = NULL, *benign = NULL;
    tm_train_result result;
    tm_status status;
    TM__TRY_GOTO(status, tm_world_set(demo->world, step->rows, &rows), done);
    if (step->benign) TM__TRY_GOTO(status, tm_world_set(demo->world, step->benign, &benign), done);
    if (!step->method) {
        status = tm_train(model, demo->tokenizer, rows, &step->train, &demo->inner, &result);
        goto done;
    }
    any_options options;
    const tm_method *method = tm_method_find(step->method);
    const tm_method_data data = {.harmful = rows, .benign = benign};
    method_options(demo, method, &options);
    status = method->run(model, demo->tokenizer, &data, &options, &step->train, &demo->inner, &result);
done:
    tm_dataset_free(benign);
    tm_dataset_free(rows);
    return status;
}

static tm_status note_rows(const demo_run *demo, tm_provenance *history, const char *role, tm_party party,
                           const char *name) {
    tm_dataset *rows = NULL;
    if (!name) return TM_OK;
    TM__TRY(tm_world_set(demo->world, name, &rows));
    tm_status status = tm_provenance_rows(history, role, party, NULL, rows);
    tm_dataset_free(rows);
    return status;
}

/* The parent's stages and this one's. Base training and alignment ask about every item, whoever's it is later, so of
 * their rows only the set's name is kept. */
static tm_status add_stage(const demo_run *demo, const tm__demo_step *step, tm_provenance *history) {
    const tm_method *method = step->method ? tm_method_find(step->method) : NULL;
    bool attack = method && method->stage == TM_STAGE_ATTACK;
    tm_party party = attack ? TM_PARTY_USER : TM_PARTY_DEFENDER;
    TM__TRY(tm_provenance_begin(history,
                                attack   ? "attack"
                                : method ? "defence"
                                         : "alignment",
                                method ? method->name : "finetune", step->train.seed));
    TM__TRY(tm_provenance_options(history, tm_train_option_table, &step->train));
    TM__TRY(tm_provenance_note(history, "set", step->rows));
    if (!method) return TM_OK;
    any_options options;
    method_options(demo, method, &options);
    TM__TRY(tm_provenance_options(history, method->options, &options));
    TM__TRY(note_rows(demo, history, "harmful", party, step->rows));
    return note_rows(demo, history, "benign", party, step->benign);
}

static tm_status save_row(const demo_run *demo, const tm__demo_step *step, const tm_demo_row *parent,
                          const tm_demo_row *row, tm_model *model) {
    tm_provenance *history = NULL;
    TM__TRY(parent ? tm_provenance_load(parent->directory, &history) : tm_provenance_create(&history));
    tm_status status = add_stage(demo, step, history);
    const tm_save_options save = {
        .dtype = TM_SAVE_F32, .tokenizer_dir = demo->world_dir, .overwrite = true, .provenance = history};
    if (status == TM_OK) status = tm_model_save(model, row->directory, &save);
    tm_provenance_free(history);
    return status;
}

static tm_status make_row(demo_run *demo, const tm__demo_step *step, const tm_demo_row *parent, tm_demo_row *row,
                          tm__demo_record *record) {
    double start = tm__now();
    tm_model *model = NULL;
    busy(demo, row, "training");
    if (parent)
        TM__TRY(tm_model_load(demo->device, parent->directory, NULL, &model));
    else
        TM__TRY(tm_model_create(demo->device, demo->config, (uint64_t)demo->options.seed, &model));
    tm_status status = run_step(demo, step, model);
    if (status == TM_OK) status = save_row(demo, step, parent, row, model);
    tm_model_free(model);
    *record = (tm__demo_record){.seconds = tm__now() - start};
    return status;
}

static tm_status hash_directory(demo_run *demo, const char *directory, char hex[65]) {
    tm_model *model = NULL;
    TM__TRY(tm_model_load(demo->device, directory, NULL, &model));
    tm_status status = tm_model_hash(model, hex);
    tm_model_free(model);
    return status;
}

/* A benign fine-tune of a copy of the row's model on an unseen task, then exact match on its unseen prompts. */
static tm_status measure_downstream(demo_run *demo, const char *directory, double *share) {
    tm_dataset *train = NULL, *test = NULL;
    tm_model *model = NULL;
    tm_train_result result;
    tm_status status;
    TM__TRY_GOTO(status, tm_world_set(demo->world, "downstream-train", &train), done);
    TM__TRY_GOTO(status, tm_world_set(demo->world, "downstream-test", &test), done);
    TM__TRY_GOTO(status, tm_model_load(demo->device, directory, NULL, &model), done);
    TM__TRY_GOTO(status, tm_train(model, demo->tokenizer, train, &demo->downstream, &demo->inner, &result), done);
    status = tm__world_exact(model, demo->tokenizer, test, &demo->inner, share);
done:
    tm_model_free(model);
    tm_dataset_free(test);
    tm_dataset_free(train);
    return status;
}

static tm_status measure_row(demo_run *demo, const tm_demo_row *row, tm__demo_record *record) {
    tm_model *model = NULL;
    busy(demo, row, "asking");
    TM__TRY(tm_model_load(demo->device, row->directory, NULL, &model));
    tm_status status = tm_world_eval(demo->world, TM_WORLD_TEST, model, demo->tokenizer, &demo->inner, &record->scores);
    tm_model_free(model);
    TM__TRY(status);
    busy(demo, row, "downstream task");
    TM__TRY(measure_downstream(demo, row->directory, &record->downstream));
    record->measured = true;
    return TM_OK;
}

/* ---- rows and cache ---------------------------------------------------------------------------------------------- */

/* A record counts only while its model is there and unchanged. */
static tm_status look_up(demo_run *demo, const char *key, const tm_demo_row *row, bool *found,
                         tm__demo_record *record) {
    char hash[65];
    *found = false;
    if (demo->options.fresh) return TM_OK;
    TM__TRY(tm__demo_record_load(demo->options.directory, key, found, record));
    if (!*found) return TM_OK;
    tm_status status = hash_directory(demo, row->directory, hash);
    if (status == TM_NO_MEMORY) return status;
    if (status == TM_OK && strcmp(hash, record->model_hash) == 0) return TM_OK;
    tm_error_clear();
    tm__note(demo->outer, "%s: the model in %s is not the one that the cache knows; it is made again", row->name,
             row->directory);
    *found = false;
    return TM_OK;
}

static tm_status do_row(demo_run *demo, int index, tm_demo_row rows[TM_DEMO_ROWS]) {
    const tm__demo_step *step = &demo->steps[index];
    tm_demo_row *row = &rows[index];
    tm__demo_record record = {0};
    snprintf(row->name, sizeof row->name, "%s", step->name);
    int len = snprintf(row->directory, sizeof row->directory, "%s/models/%s", demo->options.directory, step->folder);
    if (len >= (int)sizeof row->directory)
        return tm__fail(TM_INVALID, NULL, "directory", NULL, "the path is longer than 230 bytes");
    make_key(demo, index);
    TM__TRY(look_up(demo, demo->keys[index], row, &row->cached, &record));
    if (row->cached)
        tm__note(demo->outer, "%s: from the cache (took %.1f s when it was made)", row->name, record.seconds);
    if (!row->cached) {
        TM__TRY(make_row(demo, step, step->parent < 0 ? NULL : &rows[step->parent], row, &record));
        TM__TRY(hash_directory(demo, row->directory, record.model_hash));
        TM__TRY(tm__demo_record_save(demo->options.directory, demo->keys[index], row->name, &record));
    }
    if (!record.measured) {
        TM__TRY(measure_row(demo, row, &record));
        TM__TRY(tm__demo_record_save(demo->options.directory, demo->keys[index], row->name, &record));
    }
    row->scores = record.scores;
    row->downstream = record.downstream;
    row->seconds = record.seconds;
    return TM_OK;
}

static tm_status make_folders(const char *directory) {
    static const char *const names[] = {"models", "cache"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *path = tm__path_join(directory, names[i]);
        tm_status status = path ? tm__make_directories(path) : tm__fail_memory();
        free(path);
        TM__TRY(status);
    }
    return TM_OK;
}

static bool holds(const char *directory, const char *name, bool *exists) {
    char *path = tm__path_join(directory, name);
    if (path) *exists = tm__path_exists(path);
    free(path);
    return path != NULL;
}

/* Models and data sets of an earlier demo are replaced without asking. They are known by the world, which is written
 * before anything else; without it, folders of these names are somebody's own. */
static tm_status check_directory(const char *directory) {
    bool ours = false, world = false, models = false;
    if (!holds(directory, "world/pretrain.jsonl", &ours) || !holds(directory, "world", &world) ||
        !holds(directory, "models", &models))
        return tm__fail_memory();
    if (ours || (!world && !models)) return TM_OK;
    return tm__fail(TM_EXISTS, directory, world ? "world" : "models", "name another directory",
                    "is already there, and no demo made it");
}

static tm_status prepare(demo_run *demo) {
    TM__TRY(check_directory(demo->options.directory));
    TM__TRY(tm__world_create_sized((uint64_t)demo->options.seed,
                                   demo->options.quick ? &tm__world_quick : &tm__world_full, &demo->world));
    demo->world_dir = tm__path_join(demo->options.directory, "world");
    if (!demo->world_dir) return tm__fail_memory();
    TM__TRY(tm_world_write(demo->world, demo->world_dir));
    TM__TRY(make_folders(demo->options.directory));
    TM__TRY(tm_tokenizer_load(demo->world_dir, &demo->tokenizer));
    TM__TRY(make_config(demo));
    make_plan(demo);
    return tm__world_hash(demo->world, demo->world_hash);
}

tm_status tm_demo(tm_device *device, const tm_demo_options *options, const tm_monitor *monitor,
                  tm_demo_row rows[TM_DEMO_ROWS]) {
    demo_run demo = {.device = device};
    tm_demo_row made[TM_DEMO_ROWS] = {0};
    tm_options_default(tm_demo_option_table, &demo.options);
    if (options) demo.options = *options;
    if (!demo.options.directory) demo.options.directory = tm_demo_option_table[0].initial;
    watch(&demo, monitor);
    tm_status status = prepare(&demo);
    for (int i = 0; i < TM_DEMO_ROWS && status == TM_OK; i++) status = do_row(&demo, i, made);
    if (status == TM_OK) memcpy(rows, made, sizeof made);
    tm_tokenizer_free(demo.tokenizer);
    tm_world_free(demo.world);
    free(demo.world_dir);
    free(demo.config);
    return status;
}
