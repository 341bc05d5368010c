/* What jobs take before they are done: steps as they are taken then, memory of the real run, disk of the real model. */
#include "plan_fixture.h"

static const char text[] =
    "name: test\n"
    "replicates: 1\n"
    "bases: {one: {path: MODEL, save: bf16}}\n"
    "data: {attack: {path: harmful.jsonl, rows: 10}, defence: {path: harmful.jsonl, first: 10}, pool: benign.jsonl}\n"
    "evaluations: [{suite: perplexity, data: text.txt}]\n"
    "train: {batch: 4, max-length: 64}\n"
    "attacks:\n"
    "  none: {}\n"
    "  open: {harmful: attack, epochs: 2, axes: {lr: [1e-4, 1e-3]}}\n"
    "  long: {harmful: attack, steps: 7}\n"
    "arms:\n"
    "  plain: {attacks: \"none,open,long\"}\n"
    "  panacea: {during: {method: panacea, harmful: defence, rho: 0.1}, attacks: long}\n"
    "  sdd: {before: {method: sdd, harmful: defence, benign: pool, steps: 3}, attacks: none}\n";

static void jobs_are_rehearsed(void **state) {
    plan_fixture *f = *state;
    static const int64_t steps[] = {0, 5, 5, 7, 7, 3, 0};
    tm_plan_needs needs[TM__COUNT(steps)];
    int64_t sum = 0;
    assert_ok(open_plan(f, text, NULL, 0));
    assert_int_equal(f->plan->job_count, TM__COUNT(steps));
    for (size_t i = 0; i < TM__COUNT(steps); i++) {
        assert_ok(tm_plan_job_needs(f->plan, i, &needs[i]));
        assert_int_equal(needs[i].steps, steps[i]);
        assert_true(needs[i].memory > 1 << 20);
        assert_int_equal(needs[i].disk > 0, i == 5);
        sum += steps[i];
    }
    /* Panacea's steps take three passes. */
    assert_float_equal(needs[4].work, 3 * needs[3].work, 0);
    assert_float_equal(needs[3].work, 7 * 4, 0);
    assert_int_equal(tm_plan_job_needs(f->plan, TM__COUNT(steps), &needs[0]), TM_INVALID);
    tm_plan_estimate e;
    assert_ok(tm_plan_estimate_left(f->plan, f->device, NULL, &e));
    assert_int_equal(e.jobs, TM__COUNT(steps));
    assert_int_equal(e.steps, sum);
    assert_int_equal(e.disk, needs[5].disk);
    assert_true(e.seconds > 0 && e.seconds < 3600);
    assert_non_null(strstr(e.basis, "probe"));
    /* What was done tells of the rest. */
    assert_ok(tm_plan_begin(f->plan));
    for (size_t i = 0; i < 4; i++) assert_ok(tm_plan_run(f->plan, i, f->device, NULL));
    assert_ok(tm_plan_estimate_left(f->plan, f->device, NULL, &e));
    assert_int_equal(e.jobs, 3);
    assert_int_equal(e.steps, 7 + 3);
    assert_non_null(strstr(e.basis, "done"));
    /* The model that is made takes what was said. */
    assert_ok(tm_plan_run(f->plan, 5, f->device, NULL));
    char *path = tm__plan_model_path(f->plan, f->plan->jobs[5].key),
         *weights = tm__path_join(path, "model.safetensors");
    int64_t made = tm__plan_disk_used(weights);
    assert_true(made >= needs[5].disk && made < needs[5].disk + 65536);
    free(weights);
    free(path);
}

/* A cell that would fail says so before. */
static void failures_are_foreseen(void **state) {
    plan_fixture *f = *state;
    static const char *const settings[] = {"data.attack.rows=2", "attacks.long.rows=9"};
    tm_plan_needs needs;
    tm_plan_estimate e;
    assert_ok(open_plan(f, text, settings, TM__COUNT(settings)));
    assert_int_not_equal(tm_plan_job_needs(f->plan, 3, &needs), TM_OK);
    assert_ok(tm_plan_estimate_left(f->plan, f->device, NULL, &e));
    assert_int_equal(e.unknown, 2);
    assert_non_null(strstr(e.why, "9"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(jobs_are_rehearsed, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(failures_are_foreseen, begin_plan, end_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
