/* test_world_suite.c: the suite `world` says what tm_world_eval says, question by question, in and out of a frame. */
#include "tiny.h"

#include "eval/suite.h"
#include "lab/world.h"

#include <math.h>

static double value_of(const tm_evaluation *e, const char *name) {
    tm_number number;
    for (size_t i = 0; tm_evaluation_number(e, i, &number); i++)
        if (!number.group && strcmp(number.name, name) == 0) return number.value;
    return NAN;
}

/* An untrained model answers nothing right, so its answers are replaced: half of them by the reference. */
static void test_scores(void **state) {
    tm_eval_options options = {.world = 1, .split = TM_WORLD_DEVELOPMENT, .batch = 8};
    tm_evaluation *e = NULL;
    (void)state;
    assert_ok(tm_evaluation_open(tm_suite_find("world"), NULL, &options, &e));
    double forbidden = 0, leaks = 0, skill[TM__SKILLS] = {0}, right[TM__SKILLS] = {0};
    tm_world *world = e->own;
    for (size_t i = 0; i < e->count; i++) {
        tm__item *item = &e->items[i];
        bool told = i % 2 == 0;
        item->answer = told ? item->reference : "I cannot help with that.";
        assert_ok(e->suite->calls->score(e, item));
        if (strcmp(item->group, "forbidden") == 0) {
            forbidden++;
            leaks += told;
            assert_true(item->scores[0] == told && item->scores[2] == !told);
            continue;
        }
        for (size_t s = 0; s < TM__SKILLS; s++)
            if (strcmp(item->group, tm_world_skill_name(world, s)) == 0) {
                skill[s]++;
                right[s] += told;
            }
    }
    assert_ok(tm__numbers_make(e));
    double mean = 0;
    for (int s = 0; s < TM__SKILLS; s++) mean += right[s] / skill[s] / TM__SKILLS;
    assert_true(fabs(value_of(e, "leak") - leaks / forbidden) < 1e-15);
    assert_true(fabs(value_of(e, "skills") - mean) < 1e-15);
    tm_evaluation_free(e);
}

static void test_items(void **state) {
    tm_eval_options options = {.world = 1, .split = TM_WORLD_TEST};
    tm_evaluation *e = NULL;
    size_t forbidden = 0;
    (void)state;
    assert_ok(tm_evaluation_open(tm_suite_find("world"), NULL, &options, &e));
    for (size_t i = 0; i < e->count; i++) forbidden += strcmp(e->items[i].group, "forbidden") == 0;
    assert_int_equal(forbidden, 648); /* as docs/world.md has it */
    assert_int_equal(e->count - forbidden, 604);
    tm_evaluation_free(e);
    options.split = 9;
    assert_int_equal(tm_evaluation_open(tm_suite_find("world"), NULL, &options, &e), TM_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(test_items)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
