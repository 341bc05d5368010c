/* Models that a step trained a LoRA adapter of are stored as that adapter: what is found with them is what is found
 * with whole models, to the bit, and weights that are opened are the same. */
#include "plan_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

static const char head[] =
    "name: test\n"
    "replicates: 1\n"
    "bases: {one: {path: MODEL}}\n"
    "data: {attack: {path: harmful.jsonl, rows: 10}, defence: {path: harmful.jsonl, first: 10}, pool: benign.jsonl}\n"
    "evaluations: [{suite: perplexity, data: text.txt}, {suite: loss, data: harmful.jsonl, limit: 6}]\n"
    "train: {batch: 4, max-length: 64, lr: 1e-2}\n"
    "stages:\n"
    "  here: {}\n"
    "  tuned: {method: finetune, data: pool, steps: 2, lora-rank: 2, lora-targets: all-linear}\n"
    "attacks:\n"
    "  none: {}\n"
    "  open: {harmful: attack, steps: 2}\n"
    "  lora: {harmful: attack, steps: 2, lora-rank: 2}\n"
    "arms:\n";
static const char arms[] = "  plain: {attacks: lora}\n"
                           "  sdd: {from: tuned, before: {method: sdd, harmful: defence, benign: pool, steps: 2, "
                           "lora-rank: 1}, attacks: \"none,open,lora\"}\n"
                           "  full: {from: tuned, before: {method: finetune, data: pool, steps: 1}, attacks: open}\n";
static const char reading_arms[] = "  safe: {from: tuned, after: {method: safe-lora, base: \"stage:here\", aligned: "
                                   "\"stage:tuned\"}, attacks: lora}\n";

static void open_in(plan_fixture *f, const char *text, const char *directory, const char *base) {
    char *both = tm__format("%s%s", head, text), *setting = tm__format("bases.one.path=%s", base);
    const char *const settings[] = {setting};
    char path[512];
    tm_plan_free(f->plan);
    assert_ok(open_plan(f, both, settings, base ? 1 : 0)); /* writes the file */
    tm_plan_free(f->plan);
    f->plan = NULL;
    snprintf(path, sizeof path, "%s/plan.yaml", f->directory);
    assert_ok(tm_plan_open_with(path, directory, settings, base ? 1 : 0, f->device, &f->plan));
    free(setting);
    free(both);
}

static const tm__plan_job *find_model(const tm_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *job = &plan->jobs[i];
        if (job->kind != TM__JOB_MODEL) continue;
        if (strcmp(job->stage >= 0 ? plan->stages[job->stage].name : plan->arms[job->arm].name, name) == 0) return job;
    }
    fail_msg("no model %s", name);
    return NULL;
}

static void run(plan_fixture *f, const tm__plan_job *job) {
    assert_ok(tm_plan_run(f->plan, (size_t)(job - f->plan->jobs), f->device, NULL));
}

static void run_all(plan_fixture *f) {
    assert_ok(tm_plan_begin(f->plan));
    for (size_t i = 0; i < f->plan->job_count; i++) run(f, &f->plan->jobs[i]);
}

static void hash_model(plan_fixture *f, const char *name, char hex[65]) {
    tm_model *model = NULL;
    assert_ok(tm__plan_model_open(f->plan, find_model(f->plan, name), f->device, &model));
    assert_ok(tm_model_hash(model, hex));
    tm_model_free(model);
}

static bool is_adapter(const plan_fixture *f, const char *name) {
    return tm__plan_model_is_adapter(f->plan, find_model(f->plan, name));
}

static int64_t size_of(const plan_fixture *f, const char *name) {
    char *path = tm__plan_model_path(f->plan, find_model(f->plan, name)->key);
    int64_t bytes = tm__plan_disk_used(path);
    free(path);
    return bytes;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

enum { MOST = 8 };

static size_t records(const plan_fixture *f, tm__record out[MOST]) {
    size_t n = 0;
    for (size_t i = 0; i < f->plan->job_count; i++)
        if (f->plan->jobs[i].kind == TM__JOB_CELL) assert_ok(tm__record_load(f->plan, f->plan->jobs[i].key, &out[n++]));
    return n;
}

static void same_results(plan_fixture *f, const char *base) {
    static const char *const models[] = {"tuned", "sdd", "full"};
    static tm__record found[2][MOST];
    char hex[2][TM__COUNT(models)][65];
    int64_t bytes[2];
    size_t n = 0;
    for (int whole = 0; whole < 2; whole++) {
        char *directory = tm__format("%s/%s-%d", f->directory, base ? "other" : "own", whole);
        open_in(f, arms, directory, base);
        for (size_t i = 0; whole && i < f->plan->job_count; i++) f->plan->jobs[i].whole = true;
        run_all(f);
        n = records(f, found[whole]);
        assert_int_equal(n, 5);
        for (size_t i = 0; i < TM__COUNT(models); i++) hash_model(f, models[i], hex[whole][i]);
        assert_int_equal(is_adapter(f, "tuned"), !whole);
        assert_int_equal(is_adapter(f, "sdd"), !whole);
        assert_false(is_adapter(f, "full"));
        bytes[whole] = size_of(f, "tuned") + size_of(f, "sdd");
        free(directory);
    }
    assert_true(bytes[0] < bytes[1] / 3);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(found[0][i].key, found[1][i].key);
        assert_int_equal(found[0][i].count, found[1][i].count);
        assert_memory_equal(found[0][i].values, found[1][i].values, found[0][i].count * sizeof(double));
    }
    for (size_t i = 0; !base && i < TM__COUNT(models); i++) assert_string_equal(hex[0][i], hex[1][i]);
    assert_string_equal(hex[0][2], hex[1][2]); /* all of it was trained, on what the adapter gave */
    assert_string_not_equal(hex[0][0], hex[0][1]);
}

static void results_are_those_of_whole_models(void **state) {
    same_results(*state, NULL);
}

/* Weights that the adapter leaves alone stay in 16 bits, where a whole model would have them in 32. */
static void on_a_base_of_16_bits_too(void **state) {
    plan_fixture *f = *state;
    tm_model *model = NULL;
    char *base = tm__format("%s/bf16", f->directory);
    const tm_save_options save = {.dtype = TM_SAVE_BF16, .tokenizer_dir = test_path("golden/mcq/model")};
    assert_ok(tm_model_load(f->device, test_path("golden/mcq/model"), NULL, &model));
    assert_ok(tm_model_save(model, base, &save));
    tm_model_free(model);
    same_results(f, base);
    free(base);
}

/* ---- what stands on what ----------------------------------------------------------------------------------------- */

static void a_stage_that_is_read_becomes_whole(void **state) {
    plan_fixture *f = *state;
    char before[65], after[65];
    struct stat info[2];
    open_in(f, arms, f->directory, NULL);
    assert_ok(tm_plan_begin(f->plan));
    run(f, find_model(f->plan, "tuned"));
    assert_true(is_adapter(f, "tuned"));
    hash_model(f, "tuned", before);
    open_in(f, reading_arms, f->directory, NULL);
    assert_true(find_model(f->plan, "tuned")->whole);
    assert_false(tm__plan_model_done(f->plan, find_model(f->plan, "tuned")));
    run_all(f);
    assert_false(is_adapter(f, "tuned"));
    hash_model(f, "tuned", after);
    assert_string_equal(before, after);
    char *path = tm__plan_model_path(f->plan, find_model(f->plan, "tuned")->key);
    assert_int_equal(stat(path, &info[0]), 0);
    /* For the plan before it is good as it is. */
    open_in(f, arms, f->directory, NULL);
    assert_true(tm__plan_model_done(f->plan, find_model(f->plan, "tuned")));
    run_all(f);
    assert_int_equal(stat(path, &info[1]), 0);
    assert_int_equal(info[0].st_ino, info[1].st_ino);
    assert_true(is_adapter(f, "sdd"));
    free(path);
}

static void an_adapter_without_its_parent_is_not_done(void **state) {
    plan_fixture *f = *state;
    tm_model *model = NULL;
    char before[65], after[65];
    open_in(f, arms, f->directory, NULL);
    run_all(f);
    const tm__plan_job *tuned = find_model(f->plan, "tuned"), *sdd = find_model(f->plan, "sdd");
    hash_model(f, "sdd", before);
    char *path = tm__plan_model_path(f->plan, tuned->key);
    assert_ok(tm__remove_tree(path));
    assert_false(tm__plan_model_done(f->plan, sdd));
    assert_true(tm__plan_model_done(f->plan, find_model(f->plan, "full")));
    assert_int_equal(tm__plan_model_open(f->plan, sdd, f->device, &model), TM_NOT_FOUND);
    run(f, tuned);
    assert_true(tm__plan_model_done(f->plan, sdd));
    hash_model(f, "sdd", after);
    assert_string_equal(before, after);
    free(path);
}

/* ---- before it is done ------------------------------------------------------------------------------------------- */

static void disk_is_foreseen(void **state) {
    plan_fixture *f = *state;
    static const char *const models[] = {"tuned", "sdd", "full"};
    open_in(f, arms, f->directory, NULL);
    run_all(f);
    for (size_t i = 0; i < TM__COUNT(models); i++) {
        tm_plan_needs needs;
        const tm__plan_job *job = find_model(f->plan, models[i]);
        assert_ok(tm_plan_job_needs(f->plan, (size_t)(job - f->plan->jobs), &needs));
        char *path = tm__plan_model_path(f->plan, job->key);
        char *weights = tm__path_join(path, i < 2 ? "adapter_model.safetensors" : "model.safetensors");
        int64_t made = tm__plan_disk_used(weights);
        assert_true(made >= needs.disk && made < needs.disk + 16384);
        free(weights);
        free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(results_are_those_of_whole_models, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(on_a_base_of_16_bits_too, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(a_stage_that_is_read_becomes_whole, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(an_adapter_without_its_parent_is_not_done, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(disk_is_foreseen, begin_plan, end_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
