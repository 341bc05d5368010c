/* Keys of cells that are judged: by everything that the judge is made of. */
#include "plan_fixture.h"

#include "golden/judges.h"

/* Of the first evaluation, with the judge asking what the file says. */
static void judged_by(plan_fixture *f, const char *asked, char hash[65]) {
    char whole[2048];
    if (asked) write_file(f->directory, "prompt.txt", asked);
    snprintf(whole, sizeof whole,
             "name: judged\nreplicates: 1\nbases: {one: MODEL}\n"
             "evaluations: [{suite: advbench, data: %s, judges: [\"harmbench=%s,prompt=%s/prompt.txt\"]}]\n"
             "attacks: {none: {}}\narms: {plain: {attacks: none}}\n",
             test_path("golden/harm/advbench.csv"), judges_checkpoint("harmbench", "sentence"), f->directory);
    assert_ok(open_plan(f, whole, NULL, 0));
    assert_ok(tm_plan_begin(f->plan));
    snprintf(hash, 65, "%s", f->plan->evaluations[0].hash);
    tm_plan_free(f->plan);
    f->plan = NULL;
}

/* A judge is all the files that it is made of, also where its hash is remembered. */
static void judges_follow_their_files(void **state) {
    plan_fixture *f = *state;
    char first[65], again[65], other[65];
    judged_by(f, "[INST] B: {behavior} G: {generation} [/INST]", first);
    judged_by(f, NULL, again);
    judged_by(f, "[INST] G: {generation} B: {behavior} [/INST]", other);
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(judges_follow_their_files, begin_plan, end_plan)};
    return judges_run("plan_judges", tests, TM__COUNT(tests));
}
