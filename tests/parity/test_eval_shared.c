/* test_eval_shared.c: the shared data sets load by name and by path, with as many items as their README counts. */
#include "support.h"

#include "eval/suite.h"

static const struct {
    const char *suite, *path;
    size_t items;
} sets[] = {
    {"mmlu", "data/mmlu", 14042},
    {"arc_easy", "data/commonsense/ARC-Easy/test.json", 2376},
    {"arc_challenge", "data/commonsense/ARC-Challenge", 1172},
    {"openbookqa", "data/commonsense/openbookqa", 500},
    {"boolq", "data/commonsense/boolq", 3270},
    {"truthfulqa_mc1", "data/truthfulqa/mc_task.json", 817},
    {"truthfulqa_mc2", "data/truthfulqa", 817},
    {"sst2", "data/sst2/test.tsv", 872},
    {"agnews", "data/agnews/test.tsv", 7600},
    {"gsm8k", "data/gsm8k", 1319},
    {"samsum", "data/samsum", 200},
};

static void test_counts(void **state) {
    char directory[4096], path[4096], preamble[4096];
    (void)state;
    snprintf(directory, sizeof directory, "%s", test_shared("data"));
    snprintf(preamble, sizeof preamble, "%s", test_shared("assets/truthfulqa_preamble.txt"));
    for (size_t i = 0; i < TM__COUNT(sets); i++) {
        tm_eval_options options = {0};
        tm_evaluation *e = NULL;
        tm_options_default(tm_eval_option_table, &options);
        snprintf(path, sizeof path, "%s", test_shared(sets[i].path));
        options.preamble = preamble;
        options.limit = strcmp(sets[i].suite, "mmlu") == 0 ? 0 : 1000000;
        assert_ok(tm_evaluation_open(tm_suite_find(sets[i].suite), path, &options, &e));
        assert_int_equal(tm_evaluation_items(e), sets[i].items);
        tm_evaluation_free(e);
        options.data_dir = directory;
        options.limit = 5;
        assert_ok(tm_evaluation_open(tm_suite_find(sets[i].suite), NULL, &options, &e));
        assert_int_equal(tm_evaluation_items(e), i == 0 ? 57 * 5 : 5);
        tm_evaluation_free(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts)};
    TEST_NEEDS_SHARED("data/mmlu");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
