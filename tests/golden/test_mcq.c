/* test_mcq.c: likelihood suites against lm-evaluation-harness: every log-likelihood of every item in its published
 * layout, with and without worked examples, and the numbers made of them. tools/golden/mcq.py wrote the expectations.
 * The model's window is short, so that contexts are cut and texts are read in several windows. */
#include "support.h"

#include "eval/suite.h"
#include "tensor/tensor.h"

#include <jansson.h>
#include <math.h>

static tm_device *device;
static tm_model *model;
static tm_tokenizer *tokenizer;
static json_t *expected;

static int setup(void **state) {
    const tm_device_options options = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    (void)state;
    assert_ok(tm_device_open(&options, &device));
    assert_ok(tm_model_load(device, test_path("golden/mcq/model"), NULL, &model));
    assert_ok(tm_tokenizer_load(test_path("golden/mcq/model"), &tokenizer));
    assert_ok(tm__json_load(test_path("golden/mcq/expected.json"), &expected));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    json_decref(expected);
    tm_tokenizer_free(tokenizer);
    tm_model_free(model);
    tm_device_close(device);
    return 0;
}

static tm_evaluation *run(const char *suite, int64_t shots, int64_t batch) {
    tm_evaluation *e = NULL;
    tm_eval_options options;
    options = (tm_eval_options){0};
    tm_options_default(tm_eval_option_table, &options);
    options.data_dir = test_path("golden/mcq/data");
    options.shots = shots;
    options.batch = batch;
    assert_ok(tm_evaluation_open(tm_suite_find(suite), NULL, &options, &e));
    assert_ok(tm_evaluation_run(e, model, tokenizer, NULL, NULL));
    return e;
}

static double number(const tm_evaluation *e, const char *name, const char *group) {
    tm_number found;
    for (size_t i = 0; tm_evaluation_number(e, i, &found); i++) {
        bool same = group ? found.group && strcmp(found.group, group) == 0 : !found.group;
        if (same && strcmp(found.name, name) == 0) return found.value;
    }
    fail_msg("%s has no number %s of %s", e->suite->name, name, group ? group : "all");
    return NAN;
}

static void close_to(double value, double wanted, double most, const char *suite, size_t item) {
    if (!(fabs(value - wanted) <= most)) fail_msg("%s, item %zu: %.9g instead of %.9g", suite, item, value, wanted);
}

/* Items of the evaluation's group, in order. */
static void compare(const tm_evaluation *e, const json_t *one) {
    const char *suite = json_string_value(json_object_get(one, "suite"));
    const char *group = json_string_value(json_object_get(one, "group")), *name;
    const json_t *items = json_object_get(one, "items");
    json_t *value;
    size_t at = 0;
    for (size_t i = 0; i < e->count; i++) {
        const tm__item *item = &e->items[i];
        if (group && strcmp(item->group, group) != 0) continue;
        const json_t *lls = json_array_get(items, at++);
        if (!item->choice_count) close_to(item->ll, json_number_value(json_array_get(lls, 0)), 1e-4, suite, i);
        if (item->choice_count) assert_int_equal(item->choice_count, json_array_size(lls));
        for (size_t k = 0; k < item->choice_count; k++)
            close_to(item->choices[k].ll, json_number_value(json_array_get(lls, k)), 1e-4, suite, i);
    }
    assert_int_equal(at, json_array_size(items));
    json_object_foreach(json_object_get(one, "numbers"), name, value) {
        bool mc2 = strcmp(suite, "truthfulqa_mc2") == 0;
        double wanted = json_number_value(value);
        close_to(number(e, mc2 ? "mc2" : name, group), wanted, 1e-5 * fmax(1, fabs(wanted)), suite, 0);
    }
}

static void test_harness(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    assert_int_equal(json_array_size(expected), 21);
    json_array_foreach(expected, i, one) {
        tm_evaluation *e = run(json_string_value(json_object_get(one, "suite")),
                               json_integer_value(json_object_get(one, "shots")), 64);
        compare(e, one);
        tm_evaluation_free(e);
    }
}

/* One sequence at a time, a few, many: the same numbers to the bit. */
static void test_batch_changes_nothing(void **state) {
    static const struct {
        const char *suite;
        int64_t shots;
    } cases[] = {{"hellaswag", 2}, {"mmlu", 2}, {"truthfulqa_mc2", 0}, {"winogrande", 0}, {"wikitext", 0}};
    (void)state;
    for (size_t c = 0; c < TM__COUNT(cases); c++) {
        tm_evaluation *many = run(cases[c].suite, cases[c].shots, 64);
        for (int64_t batch = 1; batch <= 7; batch += 3) {
            tm_evaluation *few = run(cases[c].suite, cases[c].shots, batch);
            for (size_t i = 0; i < many->count; i++) {
                assert_memory_equal(&many->items[i].ll, &few->items[i].ll, sizeof(double));
                for (size_t k = 0; k < many->items[i].choice_count; k++)
                    assert_memory_equal(&many->items[i].choices[k].ll, &few->items[i].choices[k].ll, sizeof(double));
            }
            tm_evaluation_free(few);
        }
        tm_evaluation_free(many);
    }
}

static void test_cut_is_noted(void **state) {
    (void)state;
    tm_evaluation *e = run("mmlu", 2, 64);
    const char *note = tm_evaluation_note(e, 0);
    assert_non_null(note);
    assert_non_null(strstr(note, "lost their beginning"));
    tm_evaluation_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_harness),
        cmocka_unit_test(test_batch_changes_nothing),
        cmocka_unit_test(test_cut_is_noted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
