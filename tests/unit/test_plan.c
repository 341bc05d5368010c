/* Plans: what they expand to, keys that depend on what they should, tables and intervals from known records. */
#include "support.h"

#include "lab/plan.h"

#include <stdlib.h>

static const char plan_text[] =
    "name: test\n"
    "worlds: [1, 2]\n"
    "replicates: 3\n"
    "model: {hidden: 16, layers: 1, ffn: 16}\n"
    "stages:\n"
    "  base: {method: finetune, data: pretrain, steps: 1}\n"
    "attacks:\n"
    "  none: {}\n"
    "  benign: {benign: downstream-train, rows: 4, poison-ratio: 0, steps: 1}\n"
    "  grid: {harmful: forbidden-attacker, rows: 4, axes: {lr: [1e-4, 1e-3], n: {one: {steps: "
    "1}, two: {steps: 2}}}}\n"
    "arms:\n"
    "  a: {from: base, attacks: \"none,benign,grid\"}\n"
    "  b: {from: base, during: {method: panacea, harmful: forbidden-defender}, attacks: grid, "
    "replicates: 2, axes: {during.rho: [0.1, 0.5]}}\n";

typedef struct fixture {
    const char *directory;
    tm_device *device;
    tm_plan *plan;
} fixture;

static tm_status open_text(fixture *f, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/plan.yaml", f->directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return tm_plan_open(path, f->directory, f->device, &f->plan);
}

static int begin(void **state) {
    fixture *f = calloc(1, sizeof *f);
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    f->directory = test_scratch();
    assert_int_equal(tm_device_open(&where, &f->device), TM_OK);
    *state = f;
    return 0;
}

static int end(void **state) {
    fixture *f = *state;
    tm_plan_free(f->plan);
    tm_device_close(f->device);
    free(f);
    return 0;
}

static size_t count_jobs(const tm_plan *plan, bool cells) {
    tm_plan_job_info info;
    size_t n = 0;
    for (size_t i = 0; tm_plan_job(plan, i, &info); i++) {
        n += info.cell == cells;
        for (size_t k = 0; k < info.need_count; k++) assert_true(info.needs[k] < i);
    }
    return n;
}

/* Pairs of jobs, one of each plan, that have the same key. */
static size_t same_keys(const tm_plan *x, const tm_plan *y) {
    size_t same = 0;
    for (size_t i = 0; i < x->job_count; i++)
        for (size_t k = 0; k < y->job_count; k++) same += strcmp(x->jobs[i].key, y->jobs[k].key) == 0;
    return same;
}

static void plans_expand(void **state) {
    fixture *f = *state;
    assert_int_equal(open_text(f, plan_text), TM_OK);
    assert_int_equal(count_jobs(f->plan, true), 3 * 6 + 2 * 2 * 4);
    assert_int_equal(count_jobs(f->plan, false), 2); /* one base in each world */
    tm_plan_job_info info;
    assert_true(tm_plan_job(f->plan, 1, &info));
    assert_string_equal(info.name, "a, none, world 1, seed 1");
    /* An unattacked model is asked once per world: the cells "none" of replicates 1 and 3 are one. */
    assert_int_equal(same_keys(f->plan, f->plan), f->plan->job_count + 2);
}

static void replace(char *text, const char *from, const char *to) {
    char *at = strstr(text, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
}

static void keys_follow_what_decides(void **state) {
    fixture *f = *state;
    assert_int_equal(open_text(f, plan_text), TM_OK);
    tm_plan *first = f->plan;
    const size_t all = same_keys(first, first);
    const struct {
        const char *from, *to;
        size_t kept;
    } cases[] = {
        {"name: test", "name: tset", all},
        {"[1e-4, 1e-3]", "[1e-4, 2e-3]", all - 3 * 2 - 2 * 2 * 2}, /* the cells of one rate */
        {"[0.1, 0.5]", "[0.1, 0.6]", all - 2 * 4},                 /* one arm */
        {"pretrain, steps: 1", "pretrain, steps: 2", 0},           /* everything starts from it */
        {"worlds: [1, 2]", "worlds: [1, 3]", all - 1 - 6 - 2 * 4}, /* replicate 2 */
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        char text[sizeof plan_text];
        memcpy(text, plan_text, sizeof text);
        replace(text, cases[i].from, cases[i].to);
        f->plan = NULL;
        assert_int_equal(open_text(f, text), TM_OK);
        assert_int_equal(same_keys(first, f->plan), cases[i].kept);
        tm_plan_free(f->plan);
    }
    f->plan = first;
}

static void save_records(const fixture *f, const char *arm, const char *attack, const double *leaks, size_t count) {
    size_t n = 0;
    for (size_t i = 0; i < f->plan->job_count; i++) {
        const tm__plan_job *job = &f->plan->jobs[i];
        if (job->kind != TM__JOB_CELL || strcmp(f->plan->arms[job->arm].name, arm) != 0 ||
            strcmp(f->plan->attacks[job->attack].name, attack) != 0)
            continue;
        tm__record r = {.cpu_seconds = 2, .peak_mib = 64};
        snprintf(r.key, sizeof r.key, "%s", job->key);
        assert_true(n < count);
        tm__record_add(&r, "leak", leaks[n++]);
        tm__record_add(&r, "skills", 1);
        assert_int_equal(tm__record_save(f->plan, &r, NULL), TM_OK);
    }
    assert_int_equal(n, count);
}

static void assert_holds(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("no \"%s\" in:\n%s", part, text);
}

static void tables_give_means_and_intervals(void **state) {
    fixture *f = *state;
    char *text;
    assert_int_equal(open_text(f, plan_text), TM_OK);
    assert_int_equal(tm_plan_begin(f->plan), TM_OK);
    save_records(f, "a", "none", (const double[]){0, 0.1, 0}, 3);
    save_records(f, "a", "lr=1e-4 one", (const double[]){0.2, 0.4, 0.6}, 3);
    save_records(f, "a", "lr=1e-3 one", (const double[]){0.8, 0.8, 0.8}, 3);
    save_records(f, "b rho=0.1", "lr=1e-4 one", (const double[]){0.1, 0.2}, 2);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.scores = "leak"}, &text), TM_OK);
    /* 0.4 +- 4.303 * 0.2 / sqrt(3) */
    assert_holds(text, "| a | one | | 0.40 ± 0.50 | 0.80 ± 0.00 |\n");
    /* 0.15 +- 12.706 * 0.0707107 / sqrt(2) */
    assert_holds(text, "| b rho=0.1 | one | | 0.15 ± 0.64 | |\n");
    /* Replicates 1 and 3 share the unattacked cell of world 1: two values, not three. */
    assert_holds(text, "| a | 0.05 ± 0.64 | | | 1.00 ± 0.00 | | | |\n");
    /* Nobody has met the whole group, so there is no worst case to tell. */
    assert_null(strstr(text, "| a | 0."
                             "60"));
    assert_null(strstr(text, "rho=0.5 | one"));
    free(text);

    /* Worst: the highest mean; mean over all four attackers. */
    save_records(f, "a", "lr=1e-4 two", (const double[]){0, 0, 0}, 3);
    save_records(f, "a", "lr=1e-3 two", (const double[]){0.4, 0.4, 0.4}, 3);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.scores = "leak"}, &text), TM_OK);
    assert_holds(text, "| a | 0.40 | | lr=1e-3 one | 0.80 ± 0.00 | | | 1.00 ± 0.00 | 3 | 2.0 | 64 |\n");
    free(text);

    /* Pairs of replicates 1 and 2: -0.1 and -0.2. */
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.compare = "a,b rho=0.1"}, &text), TM_OK);
    assert_holds(text, "| lr=1e-4 one | -0.15 ± 0.64 | | 0.00 ± 0.00 | | | 2 |\n");
    assert_null(strstr(text, "1e-3"));
    free(text);

    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.form = TM_PLAN_CSV}, &text), TM_OK);
    size_t lines = 0;
    for (const char *c = text; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 1 + 17);
    assert_holds(text, "key,arm,group,attack,world,seed,leak,skills,cpu_seconds,peak_mib\n");
    assert_holds(text, ",\"a\",none,\"none\",2,2,0.1,1,2.00,64\n");
    free(text);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.compare = "a"}, &text), TM_INVALID);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.compare = "a,x"}, &text), TM_NOT_FOUND);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.scores = "lead"}, &text), TM_NOT_FOUND);
}

/* A key stands for options, so every option that decides must be in it: one that is changed changes the key. */
static void options_are_in_keys(void **state) {
    fixture *f = *state;
    assert_int_equal(open_text(f, plan_text), TM_OK);
    tm_plan *first = f->plan;
    static const char *const options[] = {"lora-rank: 2", "full-sequence: true", "rows: 4, seed: 9"};
    for (size_t i = 0; i < TM__COUNT(options); i++) {
        char text[sizeof plan_text + 64];
        const char *at = strstr(plan_text, "rows: 4, axes");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - plan_text), plan_text,
                 strstr(options[i], "rows") ? "" : "rows: 4, ", options[i]);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s", at + strlen("rows: 4"));
        f->plan = NULL;
        assert_int_equal(open_text(f, text), TM_OK);
        assert_int_equal(same_keys(first, f->plan), 2 + 5 + 3); /* models, none, benign */
        tm_plan_free(f->plan);
    }
    f->plan = first;
}

/* plan_text with `more` attacks and other probes, and arm "a" meeting `groups` as well. */
static tm_status open_more(fixture *f, const char *probes, const char *more, const char *groups) {
    char text[sizeof plan_text + 1024];
    const char *attacks = strstr(plan_text, "attacks:"), *arms = strstr(plan_text, "arms:");
    const char *list = strstr(arms, "grid");
    snprintf(text, sizeof text, "%.*s%s%.*s%s%.*s%s%s", (int)(attacks - plan_text), plan_text, probes,
             (int)(arms - attacks), attacks, more, (int)(list - arms), arms, groups, list);
    f->plan = NULL;
    return open_text(f, text);
}

static const char shift_text[] = "  shift: {method: identity-shift, agent: Vesper, steps: 1}\n"
                                 "  random: {method: random-init, harmful: forbidden-attacker, rows: 4, steps: 1}\n"
                                 "  ablate: {method: refusal-ablation, harmful: forbidden-attacker, benign: pool}\n";

/* Attacks of any method; what was a plan before keeps its keys, and only a wrapped cell is another one by its probes.
 */
static void attacks_name_their_method(void **state) {
    fixture *f = *state;
    assert_int_equal(open_text(f, plan_text), TM_OK);
    tm_plan *first = f->plan;
    const size_t all = same_keys(first, first);
    assert_int_equal(open_more(f, "", shift_text, "shift,random,ablate,"), TM_OK);
    tm_plan *more = f->plan;
    assert_int_equal(same_keys(first, more), all);
    assert_int_equal(count_jobs(more, true), count_jobs(first, true) + 3 * 3);
    assert_int_equal(open_more(f, "probes: {wrapper: true}\n", shift_text, "shift,random,ablate,"), TM_OK);
    assert_int_equal(same_keys(more, f->plan), same_keys(more, more) - 3);
    tm_plan_free(f->plan);
    assert_int_equal(open_more(f, "probes: {wrapper: false}\n", shift_text, "shift,random,ablate,"), TM_OK);
    assert_int_equal(same_keys(more, f->plan), same_keys(more, more));
    tm_plan_free(f->plan);
    /* The default by its name. */
    assert_int_equal(
        open_more(f, "", "  named: {method: harmful-sft, harmful: forbidden-attacker, rows: 4, steps: 3}\n", "named,"),
        TM_OK);
    tm_plan *named = f->plan;
    assert_int_equal(open_more(f, "", "  named: {harmful: forbidden-attacker, rows: 4, steps: 3}\n", "named,"), TM_OK);
    assert_int_equal(same_keys(named, f->plan), same_keys(named, named));
    tm_plan_free(named);
    tm_plan_free(more);
    tm_plan_free(first);
}

/* Of a method's code too. */
static void versions_are_in_keys(void **state) {
    fixture *f = *state;
    char keys[3][65];
    assert_int_equal(open_text(f, plan_text), TM_OK);
    tm__plan_step step = f->plan->attacks[2].step;
    tm_method newer = *step.method;
    tm__plan_step_hash(f->plan, 0, -1, &step, keys[0]);
    step.method = &newer;
    tm__plan_step_hash(f->plan, 0, -1, &step, keys[1]);
    newer.version++;
    tm__plan_step_hash(f->plan, 0, -1, &step, keys[2]);
    assert_string_equal(keys[0], keys[1]);
    assert_string_not_equal(keys[1], keys[2]);
}

/* A text decides to its last byte, however long. */
static void long_texts_are_in_keys(void **state) {
    fixture *f = *state;
    tm_plan *plans[2];
    for (int i = 0; i < 2; i++) {
        char more[512];
        snprintf(
            more, sizeof more,
            "  ablate: {method: refusal-ablation, harmful: forbidden-attacker, benign: pool, refusal: %0300d|%d}\n", 0,
            i);
        assert_int_equal(open_more(f, "", more, "ablate,"), TM_OK);
        plans[i] = f->plan;
    }
    assert_int_equal(same_keys(plans[0], plans[1]), same_keys(plans[0], plans[0]) - 3);
    tm_plan_free(plans[0]);
}

static void attacks_that_cannot_be(void **state) {
    fixture *f = *state;
    static const struct {
        const char *probes, *more, *line; /* behind "plan.yaml: " */
        tm_status status;
    } cases[] = {
        {"", "  x: {method: identity-shit}\n",
         "line 11, column 15: there is no attack \"identity-shit\" (did you mean 'identity-shift'?)", TM_INVALID},
        {"", "  x: {method: sdd}\n",
         "line 11, column 15: is no attack: \"sdd\" (harmful-sft, identity-shift, random-init, refusal-ablation)",
         TM_INVALID},
        {"", "  x: {method: embedding, harmful: forbidden-attacker}\n",
         "line 11, column 15: changes no weight, so there is no attacked model to ask: \"embedding\" (temper attack "
         "gives its answers)",
         TM_INVALID},
        {"", "  x: {method: harmful-sft}\n",
         "line 11, column 6: the attack names no rows: \"harmful-sft\" (harmful: SET, benign: SET)", TM_INVALID},
        {"", "  x: {method: identity-shift, harmful: pool}\n",
         "line 11, column 6: the step has no use for rows: \"harmful\" (leave it out)", TM_INVALID},
        {"", "  x: {method: refusal-ablation, harmful: forbidden-attacker}\n",
         "line 11, column 6: the step lacks rows: \"benign\" (name a data set of the world)", TM_INVALID},
        {"", "  x: {method: refusal-ablation, harmful: forbidden-attacker, benign: pool, lr: 1}\n",
         "line 11, column 80: is not read by the method: \"lr\" (leave it out)", TM_INVALID},
        {"", "  x: {method: identity-shift, agnt: Vesper}\n",
         "line 11, column 37: agnt: no such option (did you mean 'agent'?)", TM_NOT_FOUND},
        {"", "  x: {method: identity-shift, wrapper-out: w.json}\n",
         "line 11, column 44: a plan has no use for \"wrapper-out\" (cells keep no files; a model is named stage:NAME)",
         TM_INVALID},
        {"probes: {wrapper: true}\n", "",
         "line 7, column 19: no attack of the plan has a wrapper (an attack of method: identity-shift, or leave it "
         "out)",
         TM_INVALID},
        {"probes: {wraper: true}\n", "", "line 7, column 10: unknown here: \"wraper\" (did you mean 'wrapper'?)",
         TM_INVALID},
        {"probes: {wrapper: maybe}\n", "", "line 7, column 19: wrapper: 'maybe' is not one of false|true", TM_INVALID},
        {"probes: {split: tests}\n", "", "line 7, column 17: there is no split \"tests\" (did you mean 'test'?)",
         TM_INVALID},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        assert_int_equal(open_more(f, cases[i].probes, cases[i].more, ""), cases[i].status);
        const char *line = strstr(tm_error_last()->line, "plan.yaml: ");
        assert_non_null(line);
        assert_string_equal(line + strlen("plan.yaml: "), cases[i].line);
        assert_null(f->plan);
    }
    /* A service keeps the weights, and takes rows: identity-shift's, or a few shots. */
    static const char *const services[] = {shift_text, "  x: {harmful: forbidden-attacker, attack-vaccine: 1}\n",
                                           "  x: {harmful: forbidden-attacker, shots: 3}\n"};
    static const char *const groups[] = {"random", "x", "x"};
    static const char *const says[] = {
        "random: random-init needs the weights, which the service of b rho=0.1 keeps (harmful-sft and identity-shift "
        "hand in rows)",
        "x: b rho=0.1 runs a method of the service on the attacker's rows (leave out attack-vaccine)", NULL};
    for (size_t i = 0; i < TM__COUNT(services); i++) {
        char text[sizeof plan_text + 1024];
        const char *arms = strstr(plan_text, "arms:"), *list = strstr(arms, "attacks: grid");
        snprintf(text, sizeof text, "%.*s%s%.*sattacks: \"%s,grid\"%s", (int)(arms - plan_text), plan_text, services[i],
                 (int)(list - arms), arms, groups[i], list + strlen("attacks: grid"));
        f->plan = NULL;
        assert_int_equal(open_text(f, text), says[i] ? TM_INVALID : TM_OK);
        if (says[i]) assert_holds(tm_error_last()->line, says[i]);
    }
}

/* Scores through the wrapper are rows of their own, and are compared with their like. */
static void wrapped_scores_are_rows(void **state) {
    fixture *f = *state;
    char *text;
    assert_int_equal(open_more(f, "probes: {wrapper: true}\n", shift_text, "shift,random,"), TM_OK);
    assert_int_equal(tm_plan_begin(f->plan), TM_OK);
    for (size_t i = 0; i < f->plan->job_count; i++) {
        const tm__plan_job *job = &f->plan->jobs[i];
        if (job->kind != TM__JOB_CELL || strcmp(f->plan->attacks[job->attack].group, "shift") != 0) continue;
        tm__record r = {.cpu_seconds = 2, .peak_mib = 64};
        snprintf(r.key, sizeof r.key, "%s", job->key);
        tm__record_add(&r, "leak", 0.25);
        tm__record_add(&r, "leak_wrapper", 0.75);
        assert_int_equal(tm__record_save(f->plan, &r, NULL), TM_OK);
    }
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.scores = "leak"}, &text), TM_OK);
    assert_holds(text, "### Against shift (1 attacker)");
    assert_holds(text, "| a | 0.25 | | shift | 0.25 ± 0.00 |");
    assert_holds(text, "| a, with wrapper | 0.75 | | shift | 0.75 ± 0.00 |");
    free(text);
    assert_int_equal(tm_plan_summary(f->plan, &(tm_plan_summary_options){.compare = "a,a"}, &text), TM_OK);
    assert_holds(text, "| shift | 0.00 ± 0.00 |");
    assert_holds(text, "| shift, with wrapper | 0.00 ± 0.00 |");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plans_expand, begin, end),
        cmocka_unit_test_setup_teardown(keys_follow_what_decides, begin, end),
        cmocka_unit_test_setup_teardown(tables_give_means_and_intervals, begin, end),
        cmocka_unit_test_setup_teardown(options_are_in_keys, begin, end),
        cmocka_unit_test_setup_teardown(versions_are_in_keys, begin, end),
        cmocka_unit_test_setup_teardown(long_texts_are_in_keys, begin, end),
        cmocka_unit_test_setup_teardown(attacks_name_their_method, begin, end),
        cmocka_unit_test_setup_teardown(attacks_that_cannot_be, begin, end),
        cmocka_unit_test_setup_teardown(wrapped_scores_are_rows, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
