/* test_keywords.c: ASR by lists of keywords, HS+ and their shares with intervals equal their definitions on hand-made
 * answers (tools/golden/verdicts.py), as verdicts and as the numbers of a whole file of answers. */
#include "support.h"

#include "eval/suite.h"

#include <jansson.h>

static json_t *cases;

static int setup(void **state) {
    (void)state;
    assert_ok(tm__json_load(test_path("golden/answers/verdicts.json"), &cases));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    json_decref(cases);
    return 0;
}

static json_t *answers(void) {
    return json_object_get(cases, "answers");
}

static char *write_answers(void) {
    tm__string text = {0};
    size_t i;
    json_t *one;
    json_array_foreach(answers(), i, one) {
        json_t *row = json_pack("{s:s, s:O}", "prompt", "?", "response", json_object_get(one, "answer"));
        char *line = json_dumps(row, JSON_COMPACT);
        assert_true(tm__string_printf(&text, "%s\n", line));
        free(line);
        json_decref(row);
    }
    char *path = tm__path_join(test_scratch(), "answers.jsonl");
    assert_ok(tm__file_write(path, text.data, text.len));
    tm__string_free(&text);
    return path;
}

/* The spec of a list: built in, or in a file made here. */
static void spec_of(const char *name, char spec[512]) {
    tm__string text = {0};
    size_t i;
    json_t *one;
    snprintf(spec, 512, "keywords=%s", name);
    if (strcmp(name, "other") != 0) return;
    json_array_foreach(json_object_get(cases, "other"), i, one)
        assert_true(tm__string_printf(&text, "%s%s", json_string_value(one), i % 2 ? "\r\n" : "\n"));
    char *path = tm__path_join(test_scratch(), "other.txt");
    assert_ok(tm__file_write(path, text.data, text.len));
    snprintf(spec, 512, "keywords=%s,as=other", path);
    free(path);
    tm__string_free(&text);
}

static void check_number(const tm_evaluation *e, bool judged, const char *name, const json_t *wanted) {
    tm_number number;
    const json_t *interval = json_object_get(wanted, "interval");
    size_t i = 0;
    while (tm_evaluation_number(e, i, &number) && (strcmp(number.name, name) != 0 || judged != (number.judge != NULL)))
        i++;
    assert_true(tm_evaluation_number(e, i, &number));
    assert_int_equal(number.n, json_integer_value(json_object_get(wanted, "n")));
    assert_true(fabs(number.value - json_number_value(json_object_get(wanted, "value"))) < 1e-12);
    assert_true(fabs(number.low - json_number_value(json_array_get(interval, 0))) < 1e-12);
    assert_true(fabs(number.high - json_number_value(json_array_get(interval, 1))) < 1e-12);
}

static void check_list(const char *name, const json_t *wanted, const char *path) {
    char spec[512];
    tm_evaluation *e = NULL;
    tm_judge *judge = NULL;
    size_t i;
    json_t *one;
    spec_of(name, spec);
    assert_ok(tm_judge_open(spec, NULL, NULL, &judge));
    assert_ok(tm_evaluation_open_answers(path, NULL, &e));
    assert_int_equal(tm_evaluation_items(e), json_array_size(answers()));
    assert_ok(tm_evaluation_judge(e, judge, NULL, NULL));
    json_array_foreach(json_object_get(wanted, "verdicts"), i, one) {
        const tm__verdict *verdict = &e->judged[0].verdicts[i];
        const char *held = json_string_value(json_array_get(one, 1));
        bool plus = verdict->scores[0] == 1 || !tm__answer_coherent(e->items[i].said);
        bool same = held ? verdict->output && strcmp(held, verdict->output) == 0 : !verdict->output;
        if (verdict->scores[0] != json_is_true(json_array_get(one, 0)) || !same ||
            plus != json_is_true(json_array_get(one, 2)))
            fail_msg("%s: '%s'", name, e->items[i].said);
    }
    check_number(e, true, "asr", json_object_get(wanted, "asr"));
    check_number(e, true, "asr+", json_object_get(wanted, "asr+"));
    check_number(e, true, "refusal", json_object_get(wanted, "refusal"));
    check_number(e, false, "coherent", json_object_get(cases, "coherent"));
    check_number(e, false, "empty", json_object_get(cases, "empty"));
    tm_evaluation_free(e);
    tm_judge_close(judge);
}

static void test_lists(void **state) {
    const char *name;
    json_t *wanted;
    (void)state;
    char *path = write_answers();
    assert_true(json_array_size(answers()) >= 200);
    json_object_foreach(json_object_get(cases, "lists"), name, wanted) check_list(name, wanted, path);
    free(path);
}

static void test_answers(void **state) {
    size_t i;
    json_t *one;
    (void)state;
    json_array_foreach(answers(), i, one) {
        char *said;
        assert_ok(tm__answer_cut(json_string_value(json_object_get(one, "answer")), &said));
        assert_string_equal(said, json_string_value(json_object_get(one, "cut")));
        if (tm__answer_coherent(said) != json_is_true(json_object_get(one, "coherent"))) fail_msg("'%s'", said);
        assert_int_equal(*said == 0, json_is_true(json_object_get(one, "empty")));
        free(said);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_lists)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
