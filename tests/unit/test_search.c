/* Attackers that search: the same trials for every defence, promotion of the most harmful within epsilon, series of the
 * best so far, wrong searches. Records are written by hand: nothing is trained. */
#include "plan_fixture.h"

#include "lab/search.h"

#include <unistd.h>

static const char head[] =
    "name: test\n"
    "replicates: 1\n"
    "bases: {one: MODEL}\n"
    "data: {attack: {path: harmful.jsonl, rows: 8}, defence: {path: harmful.jsonl, first: 8}, pool: benign.jsonl}\n"
    "evaluations: [{suite: loss, name: harm, data: harmful.jsonl, limit: 2}, {suite: loss, name: able, data: "
    "benign.jsonl, limit: 2}]\n"
    "scores: {harm: harm.loss, ability: able.loss}\n"
    "train: {batch: 4}\n"
    "arms:\n"
    "  plain: {attacks: \"none,worst\"}\n"
    "  sdd: {before: {method: sdd, harmful: defence, benign: pool, steps: 1}, attacks: \"none,worst\"}\n"
    "attacks:\n"
    "  none: {}\n"
    "  worst:\n"
    "    harmful: attack\n"
    "    steps: 8\n";

static void open_search(plan_fixture *f, const char *search) {
    char text[sizeof head + 512];
    tm_plan_free(f->plan);
    snprintf(text, sizeof text, "%s    search: %s\n", head, search);
    assert_ok(open_plan(f, text, NULL, 0));
}

/* Names of the trials, without the group's. */
static const char *trial(const tm_plan *plan, size_t index) {
    return plan->attacks[plan->searches[0].first + index].name + strlen("worst ");
}

static void spaces_make_trials(void **state) {
    plan_fixture *f = *state;
    open_search(f, "{method: grid, space: {lr: [1e-4, 1e-3], rows: [2, 4, 8]}, budget: {trials: 6}}");
    assert_int_equal(f->plan->attack_count, 1 + 6);
    assert_string_equal(trial(f->plan, 1), "t02 lr=1e-4 rows=4");
    assert_string_equal(trial(f->plan, 5), "t06 lr=1e-3 rows=8");
    assert_float_equal(f->plan->attacks[6].step.train.lr, 1e-3, 0);

    /* A larger budget begins with the trials of the smaller; steps are a budget too; another seed draws others. */
    char first[96], second[96];
    open_search(f, "{method: random, space: {lr: {log: [1e-5, 1e-3]}, batch: \"int(2, 5)\"}, budget: {trials: 3}}");
    snprintf(first, sizeof first, "%s", trial(f->plan, 1));
    for (size_t i = 0; i < 3; i++) {
        const tm_train_options *train = &f->plan->attacks[1 + i].step.train;
        assert_true(train->lr >= 0.99e-5 && train->lr <= 1.01e-3 && train->batch >= 2 && train->batch <= 5);
    }
    open_search(f, "{method: random, space: {lr: {log: [1e-5, 1e-3]}, batch: \"int(2, 5)\"}, budget: {steps: 47}}");
    assert_int_equal(f->plan->searches[0].count, 5); /* of 8 steps each */
    assert_int_equal(f->plan->attack_count, 1 + 5);
    assert_string_equal(trial(f->plan, 1), first);
    open_search(f, "{method: random, space: {lr: {log: [1e-5, 1e-3]}, batch: \"int(2, 5)\"}, budget: {steps: 47}, "
                   "seed: 2}");
    snprintf(second, sizeof second, "%s", trial(f->plan, 1));
    assert_string_not_equal(first, second);

    /* 9 trials of 2 steps, 4 of 4 and 2 of 8, 1 of 16 would be too many rungs for eta 3: 9, 3, 1. */
    open_search(f, "{method: halving, eta: 2, space: {lr: {log: [1e-5, 1e-3]}}, budget: {trials: 4}}");
    assert_int_equal(f->plan->searches[0].rungs, 3);
    assert_int_equal(tm__search_width(&f->plan->searches[0], 1), 2);
    assert_int_equal(f->plan->attacks[1].step.train.steps, 2);
    assert_int_equal(f->plan->attacks[1 + 4].step.train.steps, 4);
    assert_int_equal(f->plan->attacks[1 + 8].step.train.steps, 8);
    /* Budgets of steps pay for whole halvings: 4 x 2 + 2 x 4 + 8 = 24; one more trial begins with 10. */
    open_search(f, "{method: halving, eta: 2, space: {lr: {log: [1e-5, 1e-3]}}, budget: {steps: 25}}");
    assert_int_equal(f->plan->searches[0].count, 4);
}

static size_t cell_of(const tm_plan *plan, const char *arm, size_t attack) {
    for (size_t i = 0; i < plan->job_count; i++)
        if (plan->jobs[i].kind == TM__JOB_CELL && plan->jobs[i].attack == (int)attack &&
            strcmp(plan->arms[plan->jobs[i].arm].name, arm) == 0)
            return i;
    fail_msg("no cell");
    return 0;
}

static void save(const tm_plan *plan, const char *arm, size_t attack, double harm, double ability) {
    tm__record r = {.cpu_seconds = 2};
    snprintf(r.key, sizeof r.key, "%s", plan->jobs[cell_of(plan, arm, attack)].key);
    tm__record_add(&r, "harm.loss", harm);
    tm__record_add(&r, "able.loss", ability);
    assert_ok(tm__record_save(plan, &r, NULL));
}

/* 'w'anted, 'W'aits or 'd'ropped, 'D'one: of the trials of an arm. */
static void assert_states(const tm_plan *plan, const char *arm, const char *wanted) {
    const tm__plan_search *s = &plan->searches[0];
    char found[64];
    for (size_t i = 0; i < s->count * s->rungs; i++) {
        tm_plan_job_info info;
        assert_true(tm_plan_job(plan, cell_of(plan, arm, s->first + i), &info));
        found[i] = info.done ? 'D' : info.waits ? 'W' : info.dropped ? 'd' : 'w';
    }
    found[s->count * s->rungs] = 0;
    assert_string_equal(found, wanted);
}

/* What a fall is measured against is not there yet: nobody can say of a trial that it is within. Then it is, and no
 * attack is the least harm that there is. Steps of a repair after the attack are not the attacker's. */
static void bounds_need_the_model_before(void **state) {
    plan_fixture *f = *state;
    open_search(f, "{method: grid, space: {lr: [1e-4, 1e-3]}, budget: {trials: 2}, epsilon: 0.1}");
    assert_ok(tm_plan_begin(f->plan));
    const size_t first = f->plan->searches[0].first;
    tm__trace trace = {0};
    for (int64_t step = 1; step <= 11; step++)
        tm__trace_progress(&trace, &(tm_progress){.phase = "train", .unit = "step", .done = step, .loss = 1});
    tm__record r = {0};
    snprintf(r.key, sizeof r.key, "%s", f->plan->jobs[cell_of(f->plan, "plain", first)].key);
    tm__record_add(&r, "harm.loss", 0.9);
    tm__record_add(&r, "able.loss", 0.5);
    assert_ok(tm__record_save(f->plan, &r, &trace));
    tm__trace_release(&trace);
    save(f->plan, "plain", first + 1, 0.1, 0.5);
    for (int asked = 0; asked < 2; asked++) {
        tm__search_list list = {0};
        if (asked) save(f->plan, "plain", 0, 0.2, 0.9);
        assert_ok(tm__search_series_make(f->plan, &list));
        const tm__search_series *s = &list.items[0];
        assert_int_equal(s->count, 2);
        assert_float_equal(s->points[0].steps, 8, 0);
        for (size_t i = 0; i < 2; i++) {
            assert_false(s->points[i].within);
            if (asked)
                assert_float_equal(s->points[i].bounded, 0.2, 0);
            else
                assert_true(isnan(s->points[i].bounded));
        }
        tm__search_series_release(&list);
    }
}

/* Each search goes by its own score, of the model before the attack as well. */
static void searches_have_their_own_ability(void **state) {
    plan_fixture *f = *state;
    static const char searches[] =
        "    search: {method: grid, space: {lr: [1e-4]}, budget: {trials: 1}, epsilon: 0.1}\n"
        "  other:\n"
        "    harmful: attack\n"
        "    steps: 4\n"
        "    search: {method: grid, space: {lr: [1e-3]}, budget: {trials: 1}, epsilon: 0.1, ability: harm.loss}\n";
    const char *const settings[] = {"arms.plain.attacks=none,worst,other"};
    char text[sizeof head + sizeof searches];
    snprintf(text, sizeof text, "%s%s", head, searches);
    assert_ok(open_plan(f, text, settings, 1));
    assert_ok(tm_plan_begin(f->plan));
    save(f->plan, "plain", 0, 0.3, 0.9);
    save(f->plan, "plain", 1, 0.8, 0.5);
    save(f->plan, "plain", 2, 0.8, 0.5);
    tm__search_list list = {0};
    assert_ok(tm__search_series_make(f->plan, &list));
    size_t seen = 0;
    for (size_t i = 0; i < list.count; i++) {
        const tm__search_series *s = &list.items[i];
        if (strcmp(s->arm, "plain") != 0) continue;
        bool other = s->search == &f->plan->searches[1];
        assert_float_equal(s->before, other ? 0.3 : 0.9, 0);
        assert_int_equal(s->count, 1);
        assert_true(s->points[0].within == other); /* what it is called for the other rose */
        seen++;
    }
    assert_int_equal(seen, 2);
    tm__search_series_release(&list);
}

static const char halving[] = "{method: halving, eta: 2, space: {lr: {log: [1e-5, 1e-3]}}, budget: {trials: 4}, "
                              "epsilon: 0.1, threshold: 0.7}";

static void the_most_harmful_go_on(void **state) {
    plan_fixture *f = *state;
    open_search(f, halving);
    tm_plan *plan = f->plan;
    assert_ok(tm_plan_begin(plan));
    const size_t first = plan->searches[0].first;
    assert_states(plan, "plain", "wwwwWWWWWWWW");
    save(plan, "plain", first + 0, 0.2, 0.9);
    save(plan, "plain", first + 1, 0.9, 0.5); /* the most harmful, and it costs too much ability */
    save(plan, "plain", first + 2, 0.3, 0.8);
    assert_states(plan, "plain", "DDDwWWWWWWWW");
    save(plan, "plain", first + 3, 0.1, 0.9);
    assert_states(plan, "plain", "DDDDWWWWWWWW"); /* the model before the attack is not asked yet */
    save(plan, "plain", 0, 0, 0.9);
    assert_states(plan, "plain", "DDDDwdwdWWWW");
    /* Equal harm: the earlier one. */
    save(plan, "plain", first + 4, 0.4, 0.85);
    save(plan, "plain", first + 6, 0.4, 0.85);
    assert_states(plan, "plain", "DDDDDdDdwddd");
    /* Another arm has its own. */
    assert_states(plan, "sdd", "wwwwWWWWWWWW");
    save(plan, "plain", first + 8, 0.8, 0.7);

    tm__search_list list = {0};
    assert_ok(tm__search_series_make(plan, &list));
    assert_int_equal(list.count, 2);
    const tm__search_series *s = &list.items[0];
    assert_true(s->finished);
    assert_false(list.items[1].finished);
    assert_int_equal(s->count, 4 + 2 + 1);
    static const double cost[] = {2, 4, 6, 8, 12, 16, 24}, best[] = {0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9},
                        bounded[] = {0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.4};
    for (size_t i = 0; i < s->count; i++) {
        assert_float_equal(s->points[i].cost, cost[i], 0);
        assert_float_equal(s->points[i].best, best[i], 0);
        assert_float_equal(s->points[i].bounded, bounded[i], 0);
        assert_float_equal(s->points[i].seconds, 2.0 * (double)(i + 1), 1e-9);
    }
    assert_float_equal(s->breaks, 2, 0);
    assert_float_equal(s->broken_after, 4, 0);
    tm__search_series_release(&list);

    char *text;
    assert_ok(tm_plan_summary(plan, NULL, &text));
    if (!strstr(text, "### Search worst (halving of 4 trials)")) fail_msg("no table in:\n%s", text);
    if (!strstr(text, "| plain | 1 | 24 | 0.90 | worst t02 ") || !strstr(text, " | 0.40 | 1 | 2 | 4 |"))
        fail_msg("no line of the arm in:\n%s", text);
    free(text);
    assert_ok(tm_plan_searches(plan, TM_RESULTS_CSV, &text));
    assert_non_null(strstr(text, "search,arm,world,seed,rung,attack,steps,cost,cpu_seconds,harm,ability,within,best"));
    free(text);
}

static void fail_cell(const tm_plan *plan, const char *arm, size_t attack) {
    const tm__job_end end = {.key = plan->jobs[cell_of(plan, arm, attack)].key,
                             .kind = "cell",
                             .name = "a trial",
                             .error = "it diverged",
                             .setup = "test"};
    tm__store *store;
    assert_ok(tm__plan_store(plan, true, &store));
    assert_ok(tm__store_put(store, &end, NULL, NULL));
}

/* The others of its rung go on, and what they found stands in the tables. */
static void trials_may_fail(void **state) {
    plan_fixture *f = *state;
    open_search(f, "{method: halving, eta: 2, space: {lr: {log: [1e-5, 1e-3]}}, budget: {trials: 2}}");
    assert_ok(tm_plan_begin(f->plan));
    const size_t first = f->plan->searches[0].first;
    fail_cell(f->plan, "plain", first);
    assert_states(f->plan, "plain", "wwWW");
    save(f->plan, "plain", first + 1, 0.3, 0.8);
    assert_states(f->plan, "plain", "wDdw");
    save(f->plan, "plain", first + 3, 0.6, 0.8);
    tm__search_list list = {0};
    assert_ok(tm__search_series_make(f->plan, &list));
    assert_true(list.items[0].finished);
    assert_int_equal(list.items[0].count, 2);
    assert_float_equal(list.items[0].points[1].best, 0.6, 0);
    assert_false(list.items[1].finished);
    tm__search_series_release(&list);
}

/* Where a secret is kept, the served model counts. */
static void secrets_count(void **state) {
    plan_fixture *f = *state;
    open_search(f, "{method: grid, space: {lr: [1e-4]}, budget: {trials: 1}}");
    assert_ok(tm_plan_begin(f->plan));
    tm__record r = {0};
    snprintf(r.key, sizeof r.key, "%s", f->plan->jobs[cell_of(f->plan, "plain", 1)].key);
    tm__record_add(&r, "harm.loss", 0.9);
    tm__record_add(&r, "harm.loss_secret", 0.1);
    assert_ok(tm__record_save(f->plan, &r, NULL));
    tm__search_list list = {0};
    assert_ok(tm__search_series_make(f->plan, &list));
    assert_float_equal(list.items[0].points[0].harm, 0.1, 0);
    tm__search_series_release(&list);
}

static void wrong_searches_are_told(void **state) {
    plan_fixture *f = *state;
    static const struct {
        const char *search, *says;
    } cases[] = {
        {"{method: halvin, space: {lr: [1]}, budget: {trials: 3}}",
         "line 16, column 22: there is no search \"halvin\" (did you mean 'halving'?)"},
        {"{method: grid, spac: {lr: [1]}, budget: {trials: 3}}",
         "line 16, column 28: a search has no \"spac\" (did you mean 'space'?)"},
        {"{method: grid, space: {lr: [1]}}", "line 16, column 13: the search has no budget"},
        {"{method: grid, space: {lr: [1]}, budget: {trials: 3, steps: 3}}",
         "line 16, column 54: either trials or steps are given"},
        {"{method: grid, space: {lr: [1, 2, 3, 4]}, budget: {trials: 3}}",
         "line 16, column 63: the grid has more trials than the budget of \"worst\""},
        {"{method: grid, space: {lr: {log: [1, 2]}}, budget: {trials: 3}}",
         "line 16, column 40: a grid needs values, not a range: \"lr\" (a list)"},
        {"{method: random, space: {lr: {lug: [1, 2]}}, budget: {trials: 3}}",
         "line 16, column 42: there is no range \"lug\" (did you mean 'log'?)"},
        {"{method: random, space: {lr: {log: [0, 2]}}, budget: {trials: 3}}",
         "line 16, column 42: is no range of \"lr\" ([LOW, HIGH], of log above 0)"},
        {"{method: random, space: {lr: log(1e-5, 1e-3)}, budget: {trials: 3}}",
         "line 16, column 42: is no list of values"},
        {"{method: random, space: {lq: [1, 2]}, budget: {trials: 3}}",
         "line 16, column 43: lq: no such option (did you mean 'lr'?)"},
        {"{method: random, space: {lr: [fast, 1]}, budget: {trials: 3}}", "line 16, column 43: lr: 'fast'"},
        {"{method: halving, space: {lr: [1, 2]}, budget: {trials: 2}}",
         "line 16, column 60: the budget pays for too few trials of \"worst\""},
        {"{method: halving, space: {lr: {log: [1e-5, 1e-3]}}, budget: {trials: 27}}",
         "line 16, column 73: two rungs of the halving would have the same steps, of \"worst\" (more steps of the "
         "group, or "
         "a smaller budget)"},
        {"{method: halving, space: {steps: [1, 2]}, budget: {trials: 9}}",
         "line 16, column 13: a halving sets the steps itself, of \"worst\""},
        {"{method: grid, space: {lr: [1]}, budget: {trials: 3}, epsilon: -1}",
         "line 16, column 76: no number that is possible here: \"-1\""},
        {"{method: grid, space: {lr: [1]}, budget: {trials: 3}, ability: able.los}",
         "line 16, column 76: no cell will have a score \"able.los\" (did you mean 'able.loss'?)"},
        {"{method: grid, space: {lr: [1]}, budget: {trials: 3}}\n    axes: {lr: [1, 2]}",
         "line 17, column 11: a group has no search and \"axes\" (put them into the space)"},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        char text[sizeof head + 512];
        snprintf(text, sizeof text, "%s    search: %s\n", head, cases[i].search);
        if (open_plan(f, text, NULL, 0) == TM_OK) fail_msg("%s is taken", cases[i].search);
        const char *line = strstr(tm_error_last()->line, "plan.yaml: ");
        assert_non_null(line);
        line += strlen("plan.yaml: ");
        if (strncmp(line, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("%s is told as\n%s\ninstead of\n%s", cases[i].search, line, cases[i].says);
    }
    /* A bound on what is not measured before the attack. */
    char text[sizeof head + 512];
    snprintf(text, sizeof text, "%s    search: %s\n", head, halving);
    char *at = strstr(text, "\"none,worst\"");
    memcpy(at, "\"worst\"     ", strlen("\"none,worst\""));
    assert_int_equal(open_plan(f, text, NULL, 0), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "line 9, column 10: plain: worst bounds a fall of able.loss"));
    /* Trials of one arm alone. */
    snprintf(text, sizeof text, "%s    search: %s\nmatrix: {include: [{arm: sdd, attack: worst, attack.steps: 2}]}\n",
             head, halving);
    assert_int_equal(open_plan(f, text, NULL, 0), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line,
                           "worst: every arm meets the same trials, and the matrix changes those "
                           "of sdd (put the option into the group)"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(spaces_make_trials, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(the_most_harmful_go_on, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(trials_may_fail, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(secrets_count, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(bounds_need_the_model_before, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(searches_have_their_own_ability, begin_plan, end_plan),
        cmocka_unit_test_setup_teardown(wrong_searches_are_told, begin_plan, end_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
