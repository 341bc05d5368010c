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
    {"advbench", "data/advbench", 520},
    {"harmbench", "data/harmbench/harmbench_test.csv", 320},
    {"harmful", "data/refusal_direction_splits/harmful_test.json", 572},
    {"harmless", "data/refusal_direction_splits/harmless_test.json", 6266},
    {"mt_bench", "data/mt_bench", 80},
    {"self_instruct", "data/self_instruct", 252},
};

/* The other files of the same data. */
static const struct {
    const char *suite, *path;
    size_t items;
} more[] = {
    {"harmbench", "data/harmbench/harmbench_val.csv", 80},
    {"harmful", "data/refusal_direction_splits/harmful_train.json", 260},
    {"harmful", "data/refusal_direction_splits/harmful_val.json", 39},
    {"harmless", "data/refusal_direction_splits/harmless_train.json", 18793},
    {"harmless", "data/refusal_direction_splits/harmless_val.json", 6264},
    {"self_instruct", "data/self_instruct/seed_tasks.jsonl", 175},
    {"prompts", "data/refusal_direction_splits/harmful_val.json", 39},
    {"prompts", "data/advbench/harmful_behaviors.csv", 520},
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

static tm_evaluation *open_at(const char *suite, const char *where) {
    tm_evaluation *e = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s", test_shared(where));
    assert_ok(tm_evaluation_open(tm_suite_find(suite), path, NULL, &e));
    return e;
}

static void test_more(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(more); i++) {
        tm_evaluation *e = open_at(more[i].suite, more[i].path);
        assert_int_equal(tm_evaluation_items(e), more[i].items);
        tm_evaluation_free(e);
    }
}

/* Contextual behaviours come with what they are about, and no others. */
static void test_contexts(void **state) {
    size_t contexts = 0;
    (void)state;
    tm_evaluation *e = open_at("harmbench", "data/harmbench/harmbench_test.csv");
    for (size_t i = 0; i < e->count; i++) {
        const tm__item *item = &e->items[i];
        assert_int_equal(item->context != NULL, strncmp(item->group, "contextual", 10) == 0);
        if (!item->context) continue;
        contexts++;
        assert_true(strstr(item->messages[0].content, item->context) == item->messages[0].content);
        assert_non_null(strstr(item->messages[0].content, item->subject));
    }
    assert_true(contexts > 50);
    tm_evaluation_free(e);
}

/* The list that is built in is the published one, and any list of the assets is read. */
static void test_keywords(void **state) {
    char *text, spec[4200];
    size_t len;
    tm_keyword_list list;
    tm_judge *judge;
    (void)state;
    assert_ok(tm__file_read(test_shared("assets/keywords_qi29.txt"), 0, &text, &len));
    assert_true(tm_keyword_list_at(0, &list));
    assert_string_equal(list.name, "backdooralign");
    assert_string_equal(list.text, text);
    free(text);
    snprintf(spec, sizeof spec, "keywords=%s,as=twelve", test_shared("assets/keywords_jailbreakbench12.txt"));
    assert_ok(tm_judge_open(spec, NULL, NULL, &judge));
    tm_judge_close(judge);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts), cmocka_unit_test(test_more),
                                       cmocka_unit_test(test_contexts), cmocka_unit_test(test_keywords)};
    TEST_NEEDS_SHARED("data/mmlu");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
