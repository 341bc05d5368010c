/* test_eval_memory.c: reading a suite's data and running it when the n-th allocation fails: TM_NO_MEMORY, no crash, no
 * leak (the sanitizer build looks), and the next try works. */
#include "support.h"

#include "eval/suite.h"

#include <unistd.h>

static const struct {
    const char *suite, *data;
    int64_t shots;
    int least; /* allocations that must have failed */
} cases[] = {
    {"hellaswag", "golden/mcq/data/hellaswag", 2, 21},
    {"winogrande", "golden/mcq/data/winogrande", 2, 21},
    {"arc_easy", "golden/mcq/data/arc_easy", 0, 21},
    {"mmlu", "golden/mcq/data/mmlu", 1, 21},
    {"truthfulqa_mc2", "golden/mcq/data/truthfulqa", 0, 21},
    {"wikitext", "golden/mcq/data/wikitext", 0, 21},
    {"beavertails", "golden/harm/beavertails.jsonl", 0, 10},
    {"harmbench", "golden/harm/harmbench.csv", 0, 10},
    {"hex_phi", "golden/harm/hex_phi", 0, 10},
    {"self_instruct", "golden/harm/self_instruct.jsonl", 0, 10},
};

static tm_status open_once(size_t which, tm_evaluation **e) {
    tm_eval_options options = {0};
    tm_options_default(tm_eval_option_table, &options);
    options.shots = cases[which].shots;
    options.limit = 2;
    return tm_evaluation_open(tm_suite_find(cases[which].suite), test_path(cases[which].data), &options, e);
}

/* Steps grow, so that early and late allocations are all met within seconds. */
static void test_open(void **state) {
    (void)state;
    for (size_t c = 0; c < TM__COUNT(cases); c++) {
        tm_evaluation *e = NULL;
        int failures = 0;
        for (long n = 1;; n += 1 + n / 40) {
            tm__alloc_fail_at(n, true);
            tm_status status = open_once(c, &e);
            bool failed = tm__alloc_has_failed();
            tm__alloc_fail_at(0, false);
            if (!failed) {
                assert_ok(status);
                break;
            }
            if (status != TM_NO_MEMORY) fail_msg("%s, allocation %ld: %s", cases[c].suite, n, tm_error_last()->line);
            failures++;
        }
        assert_true(failures >= cases[c].least);
        tm_evaluation_free(e);
    }
}

static void test_run(void **state) {
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_device *device = NULL;
    tm_model *model = NULL;
    tm_tokenizer *tokenizer = NULL;
    tm_evaluation *e = NULL;
    char *text;
    int failures = 0;
    (void)state;
    assert_ok(tm_device_open(&where, &device));
    assert_ok(tm_model_load(device, test_path("golden/mcq/model"), NULL, &model));
    assert_ok(tm_tokenizer_load(test_path("golden/mcq/model"), &tokenizer));
    assert_ok(open_once(0, &e));
    char *journal = tm__path_join(test_scratch(), "journal");
    for (long n = 1;; n += 1 + n / 25) {
        unlink(journal);
        tm__alloc_fail_at(n, true);
        tm_status status = tm_evaluation_run(e, model, tokenizer, journal, NULL);
        if (status == TM_OK) status = tm_evaluation_json(e, true, &text);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (!failed) {
            assert_ok(status);
            free(journal);
            free(text);
            break;
        }
        if (status != TM_NO_MEMORY) fail_msg("allocation %ld: %s", n, tm_error_last()->line);
        failures++;
    }
    assert_true(failures > 20);
    tm_evaluation_free(e);
    tm_tokenizer_free(tokenizer);
    tm_model_free(model);
    tm_device_close(device);
}

/* Answers are read, judged by two lists, one of them with its journal, and written out. */
static tm_status judge_once(const char *path, const char *journal) {
    tm_evaluation *e = NULL;
    tm_judge *judges[2] = {0};
    char *text = NULL;
    tm_status status = tm_evaluation_open_answers(path, NULL, &e);
    if (status == TM_OK) status = tm_judge_open("keywords", NULL, NULL, &judges[0]);
    if (status == TM_OK) status = tm_judge_open("keywords=backdooralign,as=again", NULL, NULL, &judges[1]);
    if (status == TM_OK) status = tm_evaluation_judge(e, judges[0], journal, NULL);
    if (status == TM_OK) status = tm_evaluation_judge(e, judges[1], NULL, NULL);
    if (status == TM_OK) status = tm_evaluation_json(e, true, &text);
    free(text);
    tm_judge_close(judges[0]);
    tm_judge_close(judges[1]);
    tm_evaluation_free(e);
    return status;
}

static void fail_judging(const char *path) {
    char *journal = tm__path_join(test_scratch(), "judge.partial");
    int failures = 0;
    for (long n = 1;; n += 1 + n / 40) {
        unlink(journal);
        tm__alloc_fail_at(n, true);
        tm_status status = judge_once(path, journal);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (!failed) {
            assert_ok(status);
            break;
        }
        if (status != TM_NO_MEMORY) fail_msg("%s, allocation %ld: %s", path, n, tm_error_last()->line);
        failures++;
    }
    assert_true(failures > 40);
    assert_ok(judge_once(path, journal)); /* from the journal */
    free(journal);
}

static void test_judge(void **state) {
    static const char rows[] = "{\"goal\": \"g\", \"response\": \"I cannot\", \"category\": \"a\"}\n"
                               "{\"goal\": \"h\", \"response\": \"Sure\", \"category\": \"b\", \"context\": \"c\"}\n";
    char *path = tm__path_join(test_scratch(), "answers.jsonl"), *result = tm__path_join(test_scratch(), "result.json");
    tm_evaluation *e = NULL;
    tm_judge *judge = NULL;
    (void)state;
    assert_ok(tm__file_write(path, rows, sizeof rows - 1));
    fail_judging(path);
    assert_ok(tm_evaluation_open_answers(path, NULL, &e));
    assert_ok(tm_judge_open("keywords", NULL, NULL, &judge));
    assert_ok(tm_evaluation_judge(e, judge, NULL, NULL));
    assert_ok(tm_evaluation_save(e, result));
    tm_judge_close(judge);
    tm_evaluation_free(e);
    fail_judging(result);
    free(path);
    free(result);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_open), cmocka_unit_test(test_run),
                                       cmocka_unit_test(test_judge)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
