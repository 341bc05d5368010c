/* test_eval_numbers.c: intervals: Wilson's against published values, coverage of both on draws whose truth is known,
 * and how scores become numbers. */
#include "support.h"

#include "eval/suite.h"

#include <math.h>

static void test_wilson(void **state) {
    double low, high;
    (void)state;
    tm__wilson(8, 10, &low, &high); /* Newcombe 1998 has such tables; computed with z = 1.959964 */
    assert_true(fabs(low - 0.4901625) < 1e-6 && fabs(high - 0.9433178) < 1e-6);
    tm__wilson(0, 20, &low, &high);
    assert_true(low == 0 && fabs(high - 0.1611252) < 1e-6);
    tm__wilson(20, 20, &low, &high);
    assert_true(high == 1 && fabs(low - 0.8388748) < 1e-6);
}

/* Of 400 samples of 60 from a coin of 0.3, the interval holds 0.3 in about 95 %. */
static void test_wilson_covers(void **state) {
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, 0));
    int holds = 0;
    (void)state;
    for (int i = 0; i < 400; i++) {
        double hits = 0, low, high;
        for (int k = 0; k < 60; k++) hits += tm__rng_uniform(&rng) < 0.3;
        tm__wilson(hits, 60, &low, &high);
        holds += low <= 0.3 && 0.3 <= high;
    }
    assert_in_range(holds, 368, 396);
}

enum { ITEMS = 40 };
static const tm__measure measures[] = {
    {.name = "share", .kind = TM__MEASURE_SHARE, .score = 0, .by_group = true},
    {.name = "mean", .kind = TM__MEASURE_MEAN, .score = 1},
    {.name = "macro", .kind = TM__MEASURE_MACRO, .score = 0},
    {.name = "perplexity", .kind = TM__MEASURE_PERPLEXITY, .score = 2, .over = 3},
    {.name = "bits", .kind = TM__MEASURE_BITS, .score = 2, .over = 3},
    {.name = "loss", .kind = TM__MEASURE_LOSS, .score = 2, .over = 3},
    {.name = "nothing", .kind = TM__MEASURE_MEAN, .score = 4},
    {0},
};
static const struct tm__suite_calls calls = {.measures = measures};
static const tm_suite suite = {.name = "made", .calls = &calls};

static const tm_number *find(const tm_evaluation *e, const char *name, const char *group) {
    for (size_t i = 0; i < e->numbers.count; i++) {
        const tm_number *n = &e->numbers.list[i];
        bool same = group ? n->group && strcmp(n->group, group) == 0 : !n->group;
        if (same && strcmp(n->name, name) == 0) return n;
    }
    return NULL;
}

/* Thirty items of group a, of which 24 are right; ten of b, 2 right; one of them has no score. */
static void test_numbers(void **state) {
    tm__item items[ITEMS] = {0};
    tm_evaluation e = {.suite = &suite, .items = items, .count = ITEMS};
    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        bool a = i < 30;
        items[i].group = a ? "a" : "b";
        items[i].scores[0] = a ? i < 24 : i < 32;
        items[i].scores[1] = i;
        items[i].scores[2] = -2.0 * (i + 1);
        items[i].scores[3] = i + 1;
        items[i].scores[4] = NAN;
    }
    items[39].scores[1] = NAN;
    assert_ok(tm__numbers_make(&e));
    const tm_number *share = find(&e, "share", NULL), *mean = find(&e, "mean", NULL);
    assert_true(share->value == 26.0 / 40 && share->n == 40);
    assert_string_equal(share->interval, "wilson");
    assert_true(find(&e, "share", "a")->value == 0.8 && find(&e, "share", "b")->value == 0.2);
    assert_true(mean->n == 39 && mean->value == 19);
    assert_string_equal(mean->interval, "bootstrap");
    double error = sqrt((39.0 * 39 - 1) / 12 / 39); /* of the mean of 0 .. 38 */
    assert_true(fabs((mean->high - mean->low) - 2 * 1.96 * error) < 0.25 * 4 * error);
    const tm_number *macro = find(&e, "macro", NULL);
    double la, ha, lb, hb; /* of 24 of 30 and 2 of 10 */
    tm__wilson(24, 30, &la, &ha);
    tm__wilson(2, 10, &lb, &hb);
    assert_true(fabs(macro->value - 0.5) < 1e-15);
    assert_string_equal(macro->interval, "wilson");
    assert_true(fabs(macro->low - (0.5 - hypot(0.8 - la, 0.2 - lb) / 2)) < 1e-12);
    assert_true(fabs(macro->high - (0.5 + hypot(ha - 0.8, hb - 0.2) / 2)) < 1e-12);
    assert_true(find(&e, "share", "b")->low == lb && find(&e, "share", "b")->high == hb);
    assert_true(fabs(find(&e, "perplexity", NULL)->value - exp(2)) < 1e-12);
    assert_true(find(&e, "perplexity", NULL)->low <= exp(2) + 1e-12); /* every item says the same */
    assert_true(fabs(find(&e, "bits", NULL)->value - 2 / log(2)) < 1e-12);
    assert_true(fabs(find(&e, "loss", NULL)->value - 2) < 1e-12);
    assert_null(find(&e, "nothing", NULL));
    double low = mean->low;
    assert_ok(tm__numbers_make(&e)); /* the seed is fixed */
    assert_true(find(&e, "mean", NULL)->low == low);
    tm__numbers_free(&e.numbers);
    tm__arena_release(&e.arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_wilson_covers),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
