/* Plans over checkpoints: products with exclude and include, keys that follow contents and not paths, paths. */
#include "plan_fixture.h"

#include <unistd.h>

static const char text[] =
    "name: test\n"
    "replicates: 2\n"
    "bases: {one: MODEL, two: {path: MODEL, chat: alpaca}}\n"
    "data: {attack: {path: harmful.jsonl, rows: 8}, defence: {path: harmful.jsonl, first: 8}, pool: benign.jsonl}\n"
    "evaluations: [{suite: perplexity, data: text.txt}]\n"
    "train: {batch: 4}\n"
    "attacks:\n"
    "  none: {}\n"
    "  open: {harmful: attack, steps: 1, axes: {lr: [1e-4, 1e-3]}}\n"
    "  lora: {harmful: attack, steps: 1, lora-rank: 2}\n"
    "arms:\n"
    "  plain: {}\n"
    "  sdd: {before: {method: sdd, harmful: defence, benign: pool, steps: 1}, axes: {before.lr: [1e-5, 1e-4]}}\n";

static const tm__plan_arm *arm_of(const tm_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->arm_count; i++)
        if (strcmp(plan->arms[i].name, name) == 0) return &plan->arms[i];
    fail_msg("no arm is called %s", name);
    return NULL;
}

/* "none lr=1e-4" */
static void met(const tm_plan *plan, const char *arm, char *out) {
    const tm__plan_arm *a = arm_of(plan, arm);
    *out = 0;
    for (size_t k = 0; k < plan->attack_count; k++)
        if (a->met[k]) snprintf(out + strlen(out), 512 - strlen(out), "%s%s", *out ? " " : "", plan->attacks[k].name);
}

static void assert_met(const tm_plan *plan, const char *arm, const char *wanted) {
    char found[512];
    met(plan, arm, found);
    assert_string_equal(found, wanted);
}

static void open_with(plan_fixture *f, const char *matrix) {
    char whole[sizeof text + 1024];
    snprintf(whole, sizeof whole, "%smatrix:\n%s", text, matrix);
    assert_ok(open_plan(f, whole, NULL, 0));
}

static void products(void **state) {
    plan_fixture *f = *state;
    open_with(f, "  {}\n");
    assert_int_equal(f->plan->arm_count, 6);
    assert_int_equal(count_cells(f->plan), 6 * 4 * 2);
    tm_plan_free(f->plan);
    open_with(f, "  arms: [plain, \"*1e-5*\"]\n  attacks: [none, \"lr=1e-?\"]\n  bases: [two]\n");
    assert_met(f->plan, "plain two", "none lr=1e-4 lr=1e-3");
    assert_met(f->plan, "sdd lr=1e-5 two", "none lr=1e-4 lr=1e-3");
    assert_met(f->plan, "sdd lr=1e-4 two", "");
    assert_met(f->plan, "plain one", "");
    assert_int_equal(count_cells(f->plan), 2 * 3 * 2);
    /* Arms that meet nothing are not made: two defences of one seed each, no other models. */
    assert_int_equal(f->plan->job_count - count_cells(f->plan), 2);
    tm_plan_free(f->plan);
    /* Excluded in all that is named; what comes later adds, and sets options where combinations are there. */
    open_with(f,
              "  exclude: [{arm: sdd, attack: open}, {base: one, attack: lora}]\n"
              "  include: [{arm: \"sdd lr=1e-5*\", attack: \"lr=1e-3\"}, {base: two, attack: lora, attack.lr: 1e-2},\n"
              "            {arm: sdd, base: two, before.steps: 3, replicates: 1}]\n");
    assert_met(f->plan, "plain one", "none lr=1e-4 lr=1e-3");
    assert_met(f->plan, "plain two", "none lr=1e-4 lr=1e-3 lora");
    assert_met(f->plan, "sdd lr=1e-5 one", "none lr=1e-3");
    assert_met(f->plan, "sdd lr=1e-4 one", "none");
    assert_met(f->plan, "sdd lr=1e-4 two", "none lora");
    assert_float_equal(arm_of(f->plan, "plain two")->met[3]->train.lr, 1e-2, 0);
    assert_ptr_equal(arm_of(f->plan, "plain one")->met[1], &f->plan->attacks[1].step);
    assert_int_equal(arm_of(f->plan, "sdd lr=1e-4 two")->before[0].train.steps, 3);
    assert_int_equal(arm_of(f->plan, "sdd lr=1e-4 one")->before[0].train.steps, 1);
    assert_int_equal(arm_of(f->plan, "sdd lr=1e-4 two")->replicates, 1);
    tm_plan_free(f->plan);
    f->plan = NULL;
}

static size_t same_keys(const tm_plan *x, const tm_plan *y) {
    size_t same = 0;
    for (size_t i = 0; i < x->job_count; i++)
        for (size_t k = 0; k < y->job_count; k++)
            if (strcmp(x->jobs[i].key, y->jobs[k].key) == 0) {
                same++;
                break;
            }
    return same;
}

/* Cells of a plan whose text has `from` replaced, that have a key of the plan as it was. */
static size_t kept(plan_fixture *f, const tm_plan *first, const char *from, const char *to) {
    char whole[sizeof text + 256];
    const char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(whole, sizeof whole, "%.*s%s%smatrix: {}\n", (int)(at - text), text, to, at + strlen(from));
    assert_ok(open_plan(f, whole, NULL, 0));
    size_t same = same_keys(f->plan, first);
    tm_plan_free(f->plan);
    f->plan = NULL;
    return same;
}

static void keys_follow_contents(void **state) {
    plan_fixture *f = *state;
    open_with(f, "  {}\n");
    tm_plan *first = f->plan;
    const size_t all = first->job_count;
    write_rows(f->directory, "copy.jsonl", "how to blorf", 24);
    write_rows(f->directory, "other.jsonl", "how to zib", 24);
    write_file(f->directory, "more.txt", "Hello moon.\n");
    assert_int_equal(kept(f, first, "name: test", "name: tset"), all);
    assert_int_equal(kept(f, first, "{one: MODEL, two", "{eins: MODEL, two"), all);
    assert_int_equal(kept(f, first, "attack: {path: harmful", "attack: {path: copy"), all);
    assert_int_equal(kept(f, first, "pool: benign", "pool: other"), 2 * 4 * 2); /* the arm that has no pool */
    /* Models and unattacked cells. */
    assert_int_equal(kept(f, first, "rows: 8}", "rows: 7}"), 8 + 6 * 2);
    assert_int_equal(kept(f, first, "data: text.txt", "data: more.txt"), 8); /* models alone */
    assert_int_equal(kept(f, first, "chat: alpaca", "chat: plain"), all / 2);
    assert_int_equal(kept(f, first, "[1e-4, 1e-3]", "[1e-4, 2e-3]"), all - 6 * 2);
    /* A changed file is another one, also where its hash is remembered. */
    assert_ok(tm_plan_begin(first));
    assert_int_equal(kept(f, first, "name: test", "name: tset"), all);
    write_rows(f->directory, "harmful.jsonl", "how to glorf", 24);
    assert_int_equal(kept(f, first, "name: test", "name: tset"), 2 * 2);
    f->plan = first;
}

static void hashes_are_remembered(void **state) {
    plan_fixture *f = *state;
    char path[512], *note = NULL;
    size_t len;
    open_with(f, "  {}\n");
    assert_ok(tm_plan_begin(f->plan));
    snprintf(path, sizeof path, "%s/hashes", f->directory);
    assert_ok(tm__file_read(path, 0, &note, &len));
    assert_int_equal(len, 130);
    assert_memory_equal(note + 65, f->plan->bases[0].hash, 64);
    tm_plan_free(f->plan);
    /* What it says is believed, as long as it is a hash; a damaged file is not. */
    memset(note + 65, 'a', 64);
    write_file(f->directory, "hashes", note);
    open_with(f, "  {}\n");
    assert_int_equal(f->plan->bases[0].hash[10], 'a');
    tm_plan_free(f->plan);
    memset(note + 65, 'x', 64);
    write_file(f->directory, "hashes", note);
    open_with(f, "  {}\n");
    assert_int_not_equal(f->plan->bases[0].hash[10], 'a');
    free(note);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(products, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(keys_follow_contents, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(hashes_are_remembered, begin_plan, end_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
