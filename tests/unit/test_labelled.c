/* Labelled answers: forms of rows and their errors, what is held out and made up; accuracy, F1 and AUC by hand. */
#include "lab/labelled.h"
#include "support.h"

static char path[160], other[160];

static const char *write_rows(char out[160], const char *name, const char *text) {
    static const char *scratch;
    if (!scratch) scratch = test_scratch();
    snprintf(out, 160, "%s/%s", scratch, name);
    assert_ok(tm__file_write(out, text, strlen(text)));
    return out;
}

static void test_beavertails(void **state) {
    (void)state;
    tm__labelled data;
    write_rows(
        path, "beaver.jsonl",
        "{\"prompt\": \"p\", \"response\": \"r\", \"is_safe\": false, \"category\": {\"a,b\": false, \"c\": true}}\n"
        "{\"prompt\": \"q\", \"response\": \"\", \"is_safe\": true, \"category\": {\"c\": false, \"d\": false}}\n");
    assert_ok(tm__labelled_load(path, NULL, false, &data));
    assert_true(data.each && data.labels == 3 && data.count == 2 && data.tests == 0);
    assert_string_equal(data.names[0], "a,b");
    assert_string_equal(data.names[2], "d");
    assert_true(data.rows[0].y[1] == 1 && data.rows[0].y[0] == 0 && data.rows[0].y[2] == 0);
    assert_true(tm__labelled_harmful(&data, 0) && !tm__labelled_harmful(&data, 1));
    tm__labelled_free(&data);
    assert_ok(tm__labelled_load(path, NULL, true, &data));
    assert_true(!data.each && data.labels == 2);
    assert_string_equal(data.names[1], "harmful");
    assert_true(data.rows[0].y[1] == 1 && data.rows[1].y[0] == 1 && data.rows[1].y[1] == 0);
    tm__labelled_free(&data);
}

/* Labels of the rows to train on come first, those that only rows to measure with have after them. */
static void test_lists(void **state) {
    (void)state;
    tm__labelled data;
    write_rows(path, "train.jsonl",
               "{\"question\": \"p\", \"answer\": \"r\", \"labels\": [\"theft\"]}\n"
               "{\"question\": \"p\", \"answer\": \"s\", \"labels\": []}\n");
    write_rows(other, "test.jsonl", "{\"question\": \"t\", \"answer\": \"u\", \"labels\": [\"fraud\", \"theft\"]}\n");
    assert_ok(tm__labelled_load(path, other, false, &data));
    assert_int_equal(data.labels, 2);
    assert_string_equal(data.names[0], "theft");
    assert_int_equal(data.tests, 1);
    assert_string_equal(data.rows[0].answer, "u");
    assert_true(data.rows[0].y[0] == 1 && data.rows[0].y[1] == 1 && data.rows[1].y[0] == 1 && data.rows[2].y[0] == 0);
    tm__labelled_free(&data);
}

static void test_labels(void **state) {
    (void)state;
    tm__labelled data;
    write_rows(path, "label.jsonl",
               "{\"prompt\": \"p\", \"completion\": \"r\", \"label\": 1}\n"
               "{\"prompt\": \"p\", \"completion\": \"r\", \"label\": \"Safe\"}\n"
               "{\"prompt\": \"p\", \"completion\": \"r\", \"label\": \"UNSAFE\"}\n"
               "{\"prompt\": \"p\", \"completion\": \"r\", \"label\": false}\n");
    assert_ok(tm__labelled_load(path, NULL, false, &data));
    const bool want[] = {true, false, true, false};
    for (size_t i = 0; i < 4; i++) assert_true(tm__labelled_harmful(&data, i) == want[i]);
    tm__labelled_free(&data);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"{\"prompt\": \"p\", \"response\": \"r\"}\n", "label"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"label\": \"maybe\"}\n", "'maybe' is neither"},
        {"{\"prompt\": \"p\", \"label\": 1}\n", "response"},
        {"{\"response\": \"p\", \"label\": 1}\n", "prompt"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"labels\": [1]}\n", "must hold names"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"labels\": []}\n", "names no label"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"category\": \"x\"}\n", "object of true and false"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"category\": {\"a\": 1}}\n", "not true or false"},
        {"{\"prompt\": \"p\", \"response\": \"r\", \"label\": 1}\n{\"prompt\": \"p\", \"response\": \"r\"}\n", "label"},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm__labelled data = {0};
        write_rows(path, "bad.jsonl", cases[i].text);
        assert_int_equal(tm__labelled_load(path, NULL, false, &data), TM_FORMAT);
        if (!strstr(tm_error_last()->line, cases[i].said)) fail_msg("%zu: '%s'", i, tm_error_last()->line);
        assert_null(data.rows);
    }
}

static void test_hold_out(void **state) {
    (void)state;
    tm__labelled data, again;
    tm__string text = {0};
    for (int i = 0; i < 40; i++)
        assert_true(tm__string_printf(&text, "{\"prompt\": \"%d\", \"response\": \"r\", \"label\": %d}\n", i, i % 2));
    write_rows(path, "many.jsonl", text.data);
    tm__string_free(&text);
    assert_ok(tm__labelled_load(path, NULL, false, &data));
    assert_ok(tm__labelled_load(path, NULL, false, &again));
    assert_ok(tm__labelled_hold_out(&data, 0.25, 3));
    assert_int_equal(data.tests, 10);
    assert_ok(tm__labelled_hold_out(&again, 0.25, 3));
    bool seen[40] = {false}, moved = false;
    for (size_t i = 0; i < 40; i++) {
        int prompt = (int)strtol(data.rows[i].prompt, NULL, 10);
        assert_false(seen[prompt]);
        seen[prompt] = true;
        moved |= prompt != (int)i;
        assert_string_equal(data.rows[i].prompt, again.rows[i].prompt);
        assert_true(tm__labelled_harmful(&data, i) == (prompt % 2 == 1));
    }
    assert_true(moved);
    tm__labelled_free(&data);
    tm__labelled_free(&again);
}

/* Rows of one prompt stay on one side, unless there is no other. */
static void test_hold_out_prompts(void **state) {
    (void)state;
    enum { ROWS = 90 };
    static const struct {
        int prompts;
        size_t least, most;                                            /* rows held out, of which 18 are wanted */
    } cases[] = {{1, 18, 18}, {2, 45, 45}, {3, 30, 30}, {30, 12, 18}}; /* of prompts too large the smallest is taken */
    for (size_t c = 0; c < TM__COUNT(cases); c++) {
        const int prompts = cases[c].prompts;
        tm__labelled data;
        tm__string text = {0};
        for (int i = 0; i < ROWS; i++)
            assert_true(tm__string_printf(&text, "{\"prompt\": \"%d\", \"response\": \"r%d\", \"label\": %d}\n",
                                          i * i % prompts, i, i % 2));
        write_rows(path, "prompts.jsonl", text.data);
        tm__string_free(&text);
        assert_ok(tm__labelled_load(path, NULL, false, &data));
        assert_ok(tm__labelled_hold_out(&data, 0.2, 1));
        assert_in_range(data.tests, cases[c].least, cases[c].most);
        size_t both = 0;
        bool seen[ROWS] = {false};
        for (size_t i = 0; i < ROWS; i++) {
            seen[strtol(data.rows[i].answer + 1, NULL, 10)] = true;
            for (size_t k = data.tests; i < data.tests && k < ROWS; k++)
                both += strcmp(data.rows[i].prompt, data.rows[k].prompt) == 0;
        }
        for (size_t i = 0; i < ROWS; i++) assert_true(seen[i]);
        assert_true(prompts == 1 ? both == 18 * 72 : both == 0);
        tm__labelled_free(&data);
    }
}

static void test_noise(void **state) {
    (void)state;
    tm__labelled data;
    tm_tokenizer *tokenizer;
    size_t empty = 0;
    write_rows(path, "two.jsonl",
               "{\"prompt\": \"a\", \"response\": \"r\", \"label\": 1}\n"
               "{\"prompt\": \"b\", \"response\": \"r\", \"label\": 1}\n"
               "{\"prompt\": \"c\", \"response\": \"r\", \"label\": 1}\n");
    assert_ok(tm_tokenizer_load(test_path("golden/judges/sentence"), &tokenizer));
    assert_ok(tm__labelled_load(path, NULL, false, &data));
    assert_ok(tm__labelled_hold_out(&data, 0.3, 1));
    const char *held = data.rows[0].prompt;
    assert_ok(tm__labelled_add_noise(&data, 1, tokenizer, 1));
    assert_int_equal(data.count, 7); /* 3, and 2 empty and 2 random ones for the 2 that are trained on */
    for (size_t i = 3; i < 7; i++) {
        assert_false(tm__labelled_harmful(&data, i));
        assert_string_not_equal(data.rows[i].prompt, held);
        empty += !*data.rows[i].answer;
    }
    assert_int_equal(empty, 2);
    tm__labelled_free(&data);
    tm_tokenizer_free(tokenizer);
}

/* Of 3 harmful and 3 other rows, with one tie: 6.5 of 9 pairs won. */
static void test_quality(void **state) {
    (void)state;
    const double p[] = {0.9, 0.6, 0.4, 0.4, 0.7, 0.1};
    const bool harmful[] = {true, true, true, false, false, false};
    tm_judge_quality q;
    assert_ok(tm__quality(p, harmful, 6, &q));
    assert_int_equal(q.harmful, 3);
    assert_float_equal(q.accuracy.value, 4.0 / 6, 1e-15);
    assert_float_equal(q.f1.value, 4.0 / 6, 1e-15); /* 2 right, 1 missed, 1 wrong */
    assert_float_equal(q.auc.value, 6.5 / 9, 1e-15);
    assert_true(q.accuracy.low < q.accuracy.value && q.accuracy.value < q.accuracy.high);
    assert_true(q.f1.low < q.f1.value && q.f1.value < q.f1.high && q.f1.high <= 1);
    assert_ok(tm__quality(p, harmful, 3, &q)); /* harmful ones alone */
    assert_true(isnan(q.auc.value) && isnan(q.auc.low));
    assert_ok(tm__quality(p, harmful, 0, &q));
    assert_int_equal(q.rows, 0);
}

static void test_world(void **state) {
    (void)state;
    tm__labelled data;
    size_t harmful[2] = {0, 0};
    assert_ok(tm__labelled_world(1, &data));
    assert_true(data.tests > 100 && data.count - data.tests > 1000 && !data.each);
    for (size_t i = 0; i < data.count; i++) harmful[i >= data.tests] += tm__labelled_harmful(&data, i);
    assert_true(harmful[0] > 30 && harmful[1] > 200);
    assert_true(harmful[1] < (data.count - data.tests) / 2);
    tm__labelled_free(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beavertails),      cmocka_unit_test(test_lists),    cmocka_unit_test(test_labels),
        cmocka_unit_test(test_errors),           cmocka_unit_test(test_hold_out), cmocka_unit_test(test_noise),
        cmocka_unit_test(test_hold_out_prompts), cmocka_unit_test(test_quality),  cmocka_unit_test(test_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
