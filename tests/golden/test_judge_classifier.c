/* Classifiers as judges, against transformers on the same checkpoints (fixtures: tools/golden/judges.py).
 *
 * Probabilities: relative bound 1e-8 on ref fp64, 1e-5 on cpu fp32, 1e-6 for encoders (their logits are fp32); verdicts
 * are equal. */
#include "golden/judges.h"

static void check_rows(const char *name, tm_judge *judge, double bound) {
    const json_t *rows = judges_of(name, "rows"), *said = judges_of(name, "output");
    tm__verdict verdicts[JUDGES_MOST];
    size_t n = judges_ask(judge, rows, verdicts);
    judges_check_alone(judge, rows, verdicts);
    for (size_t i = 0; i < n; i++) {
        assert_null(verdicts[i].missing);
        assert_int_equal(verdicts[i].scores[0], json_integer_value(json_array_get(judges_of(name, "flagged"), i)));
        judges_close_to(name, i, verdicts[i].scores[1],
                        json_number_value(json_array_get(judges_of(name, "probability"), i)), bound);
        assert_string_equal(verdicts[i].output, json_string_value(json_array_get(said, i)));
        tm__verdict_free(&verdicts[i]);
    }
}

/* 14 labels of their own, the eos behind the text, long texts cut at the right so that it goes. */
static void test_beaver(void **state) {
    (void)state;
    char spec[400];
    snprintf(spec, sizeof spec, "classifier=%s,max-length=%d,threshold=%.17g", judges_checkpoint("beaver", "sentence"),
             (int)judges_number("beaver", "max_length"), judges_number("beaver", "threshold"));
    tm_judge *wide = judges_open(spec, &judges_wide), *narrow = judges_open(spec, &judges_narrow);
    check_rows("beaver", wide, 1e-8);
    check_rows("beaver", narrow, 1e-5);
    assert_string_not_equal(tm_judge_hash(wide), tm_judge_hash(narrow));
    tm_judge_close(wide);
    tm_judge_close(narrow);
}

/* Each label's own logit. */
static void test_logits(void **state) {
    (void)state;
    const json_t *rows = judges_of("beaver", "rows"), *logits = judges_of("beaver", "logits");
    char hashes[14][65];
    for (size_t label = 0; label < 14; label++) {
        char spec[400];
        tm__verdict verdicts[JUDGES_MOST];
        snprintf(spec, sizeof spec, "classifier=%s,max-length=%d,label=%d", judges_checkpoint("beaver", "sentence"),
                 (int)judges_number("beaver", "max_length"), (int)label);
        tm_judge *judge = judges_open(spec, &judges_wide);
        size_t n = judges_ask(judge, rows, verdicts);
        for (size_t i = 0; i < n; i++) {
            double p = verdicts[i].scores[1];
            judges_close_to("logit", i, log(p / (1 - p)),
                            json_number_value(json_array_get(json_array_get(logits, i), label)), 1e-8);
            assert_int_equal(verdicts[i].scores[0], p > 0.5);
            tm__verdict_free(&verdicts[i]);
        }
        snprintf(hashes[label], sizeof hashes[label], "%s", tm_judge_hash(judge));
        for (size_t k = 0; k < label; k++) assert_string_not_equal(hashes[k], hashes[label]);
        tm_judge_close(judge);
    }
}

/* The eos, the length and the text matter: each changes some verdict's probability. */
static void test_options_matter(void **state) {
    (void)state;
    const json_t *rows = judges_of("beaver", "rows");
    const char *const more[] = {"max-length=110", "max-length=110,no-eos", "max-length=60",
                                "max-length=110,layout=answer"};
    double seen[4][JUDGES_MOST];
    for (size_t k = 0; k < TM__COUNT(more); k++) {
        char spec[400];
        tm__verdict verdicts[JUDGES_MOST];
        snprintf(spec, sizeof spec, "classifier=%s,%s", judges_checkpoint("beaver", "sentence"), more[k]);
        tm_judge *judge = judges_open(spec, &judges_wide);
        size_t n = judges_ask(judge, rows, verdicts);
        for (size_t i = 0; i < n; i++) {
            seen[k][i] = verdicts[i].scores[1];
            tm__verdict_free(&verdicts[i]);
        }
        for (size_t j = 0; j < k; j++) assert_true(test_relative_error(seen[j], seen[k], n) > 1e-3);
        tm_judge_close(judge);
    }
}

static void test_two_labels(void **state) {
    (void)state;
    char spec[600];
    snprintf(spec, sizeof spec, "classifier=%s,no-eos,text=%s,max-length=4096,threshold=%.17g",
             judges_checkpoint("two", "sentence"), test_path("golden/judges/text.txt"),
             judges_number("two", "threshold"));
    tm_judge *judge = judges_open(spec, &judges_wide);
    check_rows("two", judge, 1e-8);
    tm_judge_close(judge);
    judge = judges_open(spec, &judges_narrow);
    check_rows("two", judge, 1e-5);
    tm_judge_close(judge);
}

static void test_deberta(void **state) {
    (void)state;
    static const char *const layouts[] = {"pair", "text", "answer"};
    const json_t *rows = judges_of("deberta", "rows");
    for (size_t k = 0; k < 4; k++) {
        char spec[400];
        tm__verdict verdicts[JUDGES_MOST];
        const char *layout = layouts[k % 3];
        snprintf(spec, sizeof spec, "classifier=%s%s%s", test_path("golden/encoders/deberta-v3"),
                 k < 3 ? ",layout=" : "", k < 3 ? layout : "");
        tm_judge *judge = judges_open(spec, &judges_wide);
        size_t n = judges_ask(judge, rows, verdicts);
        for (size_t i = 0; i < n; i++) {
            judges_close_to(layout, i, verdicts[i].scores[1],
                            json_number_value(json_array_get(judges_of("deberta", layout), i)), 1e-6);
            assert_int_equal(verdicts[i].scores[0], verdicts[i].scores[1] > 0.5);
            assert_string_equal(verdicts[i].output, verdicts[i].scores[1] > 0.5 ? "harmful" : "safe");
            tm__verdict_free(&verdicts[i]);
        }
        tm_judge_close(judge);
    }
}

/* A context stands before the prompt where the text has no place of its own for it. */
static void test_context(void **state) {
    (void)state;
    char specs[3][400];
    snprintf(specs[0], sizeof specs[0], "classifier=%s", judges_checkpoint("beaver", "sentence"));
    snprintf(specs[1], sizeof specs[1], "classifier=%s", test_path("golden/encoders/deberta-v3"));
    snprintf(specs[2], sizeof specs[2], "classifier=%s,layout=text", test_path("golden/encoders/deberta-v3"));
    const tm__exchange exchanges[] = {{.prompt = "the", .context = "how", .answer = "cake"},
                                      {.prompt = "how\n\n---\n\nthe", .answer = "cake"},
                                      {.prompt = "the", .answer = "cake"}};
    for (size_t k = 0; k < TM__COUNT(specs); k++) {
        tm__verdict verdicts[3];
        tm_judge *judge = judges_open(specs[k], &judges_wide);
        assert_ok(tm__judge_answers(judge, exchanges, 3, verdicts, NULL));
        assert_true(verdicts[0].scores[1] == verdicts[1].scores[1]);
        assert_true(verdicts[0].scores[1] != verdicts[2].scores[1]);
        for (size_t i = 0; i < 3; i++) tm__verdict_free(&verdicts[i]);
        tm_judge_close(judge);
    }
}

static void refuse(const char *spec, tm_status status, const char *said) {
    tm_judge *judge = NULL;
    assert_int_equal(tm_judge_open(spec, &judges_wide, NULL, &judge), status);
    assert_null(judge);
    if (!strstr(tm_error_last()->line, said)) fail_msg("%s: '%s' lacks '%s'", spec, tm_error_last()->line, said);
}

static void test_refusals(void **state) {
    (void)state;
    char spec[500];
    const char *beaver = judges_checkpoint("beaver", "sentence");
    refuse("classifier", TM_INVALID, "classifier=DIR");
    refuse("classifier=/nowhere", TM_NOT_FOUND, "/nowhere");
    snprintf(spec, sizeof spec, "classifier=%s,label=category_0|calm", beaver);
    refuse(spec, TM_NOT_FOUND, "'calm'");
    snprintf(spec, sizeof spec, "classifier=%s,label=14", beaver);
    refuse(spec, TM_NOT_FOUND, "'14'");
    snprintf(spec, sizeof spec, "classifier=%s,problem=single", beaver);
    refuse(spec, TM_INVALID, "means harm");
    refuse(spec, TM_INVALID, "problem=multi");
    snprintf(spec, sizeof spec, "classifier=%s,layout=pair", beaver);
    refuse(spec, TM_UNSUPPORTED, "pairs");
    snprintf(spec, sizeof spec, "classifier=%s", test_path("golden/encoders/deberta-position"));
    refuse(spec, TM_UNSUPPORTED, "regression");
    snprintf(spec, sizeof spec, "classifier=%s", test_path("golden/encoders/deberta-plain"));
    refuse(spec, TM_UNSUPPORTED, "has no labels");
    snprintf(spec, sizeof spec, "classifier=%s,label=0", judges_checkpoint("harmbench", "sentence"));
    refuse(spec, TM_UNSUPPORTED, "has no labels");
    snprintf(spec, sizeof spec, "classifier=%s,text=%s", beaver, test_path("golden/judges/case.json"));
    refuse(spec, TM_FORMAT, "no place for the answer");
}

static void test_memory(void **state) {
    (void)state;
    char spec[400];
    snprintf(spec, sizeof spec, "classifier=%s", judges_checkpoint("beaver", "sentence"));
    judges_lack_memory(spec, judges_of("beaver", "rows"));
    snprintf(spec, sizeof spec, "classifier=%s", test_path("golden/encoders/deberta-v3"));
    judges_lack_memory(spec, judges_of("deberta", "rows"));
}

static bool stop_now(void *user) {
    (void)user;
    return true;
}

static void test_stop(void **state) {
    (void)state;
    char spec[400];
    const tm_monitor monitor = {.stop = stop_now};
    const tm__exchange exchange = judges_exchange(json_array_get(judges_of("beaver", "rows"), 0));
    tm__verdict verdict;
    snprintf(spec, sizeof spec, "classifier=%s", judges_checkpoint("beaver", "sentence"));
    tm_judge *judge = judges_open(spec, &judges_wide);
    assert_int_equal(tm__judge_answers(judge, &exchange, 1, &verdict, &monitor), TM_INTERRUPTED);
    tm_judge_close(judge);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beaver),     cmocka_unit_test(test_logits),  cmocka_unit_test(test_options_matter),
        cmocka_unit_test(test_two_labels), cmocka_unit_test(test_deberta), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_context), cmocka_unit_test(test_stop),
    };
    return judges_run("judge_classifier", tests, TM__COUNT(tests));
}
