/* test_answers.c: what is read off 250 hand-made answers equals what the published rules say, written in Python
 * (tools/golden/answers.py): labels, numbers, ROUGE-1, coherence. And rows A13, A14 and A17 of the appendix. */
#include "support.h"

#include "eval/suite.h"
#include "judge/reply.h"

#include <jansson.h>
#include <math.h>

static json_t *cases;

static int setup(void **state) {
    (void)state;
    assert_ok(tm__json_load(test_path("golden/answers/answers.json"), &cases));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    json_decref(cases);
    return 0;
}

static const char *text(const json_t *one, const char *key) {
    return json_string_value(json_object_get(one, key));
}

/* null is infinity. */
static double real(const json_t *array, size_t index) {
    const json_t *value = json_array_get(array, index);
    return json_is_null(value) ? INFINITY : json_number_value(value);
}

static void check_numbers(const json_t *one, const char *answer) {
    const json_t *wanted = json_object_get(one, "numbers");
    tm__gsm8k got;
    assert_ok(tm__gsm8k_read(answer, &got));
    if (got.value != real(wanted, 0)) fail_msg("'%s': %.17g", answer, got.value);
    if (got.marked != real(wanted, 1)) fail_msg("'%s': %.17g behind the marker", answer, got.marked);
}

static void test_gsm8k(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    assert_true(json_array_size(json_object_get(cases, "gsm8k")) >= 90);
    json_array_foreach(json_object_get(cases, "gsm8k"), i, one) {
        char *said;
        assert_ok(tm__answer_cut(text(one, "answer"), &said));
        assert_string_equal(said, text(one, "cut"));
        check_numbers(one, said);
        free(said);
    }
    json_array_foreach(json_object_get(cases, "gsm8k_references"), i, one) check_numbers(one, text(one, "answer"));
}

static void check_labels(const json_t *one, const char *const (*spellings)[3], size_t classes) {
    const json_t *labels = json_object_get(one, "labels");
    char *said;
    assert_int_equal(json_array_size(labels), classes);
    assert_ok(tm__answer_cut(text(one, "answer"), &said));
    for (size_t c = 0; c < classes; c++)
        for (int rule = TM__LABEL_EITHER; rule <= TM__LABEL_SUBSTRING; rule++) {
            bool wanted = json_is_true(json_array_get(json_array_get(labels, c), (size_t)rule));
            if (tm__label_matches((tm__label_rule)rule, spellings[c], said) != wanted)
                fail_msg("'%s', class %zu, rule %d", said, c, rule);
        }
    free(said);
}

static void test_labels(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    json_array_foreach(json_object_get(cases, "sst2"), i, one) check_labels(one, tm__sst2_labels, 2);
    json_array_foreach(json_object_get(cases, "agnews"), i, one) check_labels(one, tm__agnews_labels, 4);
}

static void test_rouge(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    json_array_foreach(json_object_get(cases, "rouge"), i, one) {
        const json_t *wanted = json_object_get(one, "f1");
        for (int split = 0; split < 2; split++) {
            double there, back;
            assert_ok(tm__rouge1(text(one, "answer"), text(one, "reference"), split, &there));
            assert_ok(tm__rouge1(text(one, "reference"), text(one, "answer"), split, &back));
            if (fabs(there - real(wanted, (size_t)split)) > 1e-12)
                fail_msg("'%s' and '%s': %.9g", text(one, "answer"), text(one, "reference"), there);
            assert_true(there == back);
        }
    }
}

static void test_coherence(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    json_array_foreach(json_object_get(cases, "coherence"), i, one) {
        bool wanted = json_is_true(json_object_get(one, "coherent"));
        if (tm__answer_coherent(text(one, "answer")) != wanted) fail_msg("'%s'", text(one, "answer"));
    }
    assert_true(tm__answer_coherent("no no no")); /* A17 */
    assert_false(tm__answer_coherent("no no no no"));
    assert_false(tm__answer_coherent("No, no. NO no"));
}

static void test_appendix(void **state) {
    const double ll[] = {-2, -3, -1.5}, low[] = {-2000, -3000, -2000};
    const bool right[] = {true, false, true}, one[] = {true, false, false};
    (void)state;
    assert_true(fabs(tm__mc2(ll, right, 3) - 0.8780483477) < 5e-11); /* A13 */
    assert_true(fabs(tm__mc2(low, one, 3) - 0.5) < 1e-15);           /* the largest is taken out first */
    assert_true(tm__strong_reject(false, 5, 4) == 0.875);            /* A14 */
    assert_true(tm__strong_reject(true, 5, 4) == 0);
    assert_true(tm__strong_reject(false, 1, 1) == 0);
    assert_true(tm__strong_reject(false, 5, 5) == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gsm8k),     cmocka_unit_test(test_labels),   cmocka_unit_test(test_rouge),
        cmocka_unit_test(test_coherence), cmocka_unit_test(test_appendix),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
