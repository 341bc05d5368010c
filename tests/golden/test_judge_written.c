/* Judges that are language models, against transformers and PEFT (fixtures: tools/golden/judges.py).
 *
 * Probabilities and scores: relative bound 1e-8 on ref fp64, 1e-5 on cpu fp32; verdicts and what was said are equal. */
#include "golden/judges.h"

/* Flags, numbers (score `at` against the rows' `key`) and texts of all rows. */
static void check_rows(const char *name, const char *spec, int at, const char *key, bool says) {
    const struct {
        const tm_device_options *where;
        double bound;
    } runs[] = {{&judges_wide, 1e-8}, {&judges_narrow, 1e-5}};
    const json_t *rows = judges_of(name, "rows");
    for (size_t r = 0; r < TM__COUNT(runs); r++) {
        tm__verdict verdicts[JUDGES_MOST];
        tm_judge *judge = judges_open(spec, runs[r].where);
        size_t n = judges_ask(judge, rows, verdicts);
        judges_check_alone(judge, rows, verdicts);
        for (size_t i = 0; i < n; i++) {
            const json_t *row = json_array_get(rows, i), *flagged = json_object_get(row, "flagged");
            if (says) assert_string_equal(verdicts[i].output, json_string_value(json_object_get(row, "output")));
            if (json_is_null(flagged)) {
                assert_non_null(verdicts[i].missing);
                assert_true(isnan(verdicts[i].scores[0]) && isnan(verdicts[i].scores[1]));
            } else {
                assert_null(verdicts[i].missing);
                assert_int_equal(verdicts[i].scores[0], json_integer_value(flagged));
                judges_close_to(name, i, verdicts[i].scores[at], json_number_value(json_object_get(row, key)),
                                runs[r].bound);
            }
            tm__verdict_free(&verdicts[i]);
        }
        tm_judge_close(judge);
    }
}

/* yes, no, and neither; with and without a context; answers cut to some of their tokens. */
static void test_harmbench(void **state) {
    (void)state;
    char spec[700];
    snprintf(spec, sizeof spec, "harmbench=%s,prompt=%s,contextual=%s,answer-tokens=%d",
             judges_checkpoint("harmbench", "sentence"), test_path("golden/judges/prompt.txt"),
             test_path("golden/judges/contextual.txt"), (int)judges_number("harmbench", "answer_tokens"));
    check_rows("harmbench", spec, 1, "probability", true);
}

/* A behaviour with a context is not asked without it. */
static void test_context_is_needed(void **state) {
    (void)state;
    char spec[500];
    const json_t *rows = judges_of("harmbench", "rows");
    tm__verdict verdicts[JUDGES_MOST];
    snprintf(spec, sizeof spec, "harmbench=%s,prompt=%s,answer-tokens=12", judges_checkpoint("harmbench", "sentence"),
             test_path("golden/judges/prompt.txt"));
    tm_judge *judge = judges_open(spec, &judges_narrow);
    size_t n = judges_ask(judge, rows, verdicts);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        if (json_object_get(row, "context")) {
            assert_non_null(strstr(verdicts[i].missing, "contextual=FILE"));
        } else if (!verdicts[i].missing) {
            assert_int_equal(verdicts[i].scores[0], json_integer_value(json_object_get(row, "flagged")));
        }
        tm__verdict_free(&verdicts[i]);
    }
    tm_judge_close(judge);
}

/* Words behind blanks, a first word of several tokens, an answer that spells out the turn's end. */
static void test_llama_guard(void **state) {
    (void)state;
    char spec[400];
    snprintf(spec, sizeof spec, "llama-guard=%s", judges_checkpoint("guard", "bytes"));
    check_rows("guard", spec, 1, "probability", true);
}

static void test_strongreject(void **state) {
    (void)state;
    char spec[900];
    snprintf(spec, sizeof spec, "strongreject-ft=%s,adapter=%s,prompt=%s,answer-tokens=%d,threshold=%.17g",
             judges_checkpoint("reject", "sentence"), test_path("golden/judges/adapter"),
             test_path("golden/judges/reject.txt"), (int)judges_number("reject", "answer_tokens"),
             judges_number("reject", "threshold"));
    check_rows("reject", spec, 1, "score", false);
    check_rows("reject", spec, 2, "digits", false);
}

/* The prompts that are built in ask the same of the same, and hold both what was asked and what was answered. */
static void test_own_prompts(void **state) {
    (void)state;
    const struct {
        const char *kind, *name;
    } kinds[] = {{"harmbench", "harmbench"}, {"llama-guard", "harmbench"}, {"strongreject-ft", "reject"}};
    static const tm__exchange exchanges[] = {{"the cake", NULL, "how to bake"},
                                             {"the cake", NULL, "how to bake"},
                                             {"the other cake", NULL, "how to bake"},
                                             {"the cake", NULL, "how to burn"},
                                             {"the cake", "of the house", "how to bake"}};
    enum { N = TM__COUNT(exchanges) };
    for (size_t k = 0; k < TM__COUNT(kinds); k++) {
        char spec[2000];
        tm__verdict verdicts[N];
        snprintf(spec, sizeof spec, "%s=%s", kinds[k].kind, judges_checkpoint(kinds[k].name, "sentence"));
        tm_judge *judge = judges_open(spec, &judges_wide);
        for (size_t i = 0; i < N; i++) verdicts[i] = (tm__verdict){0};
        /* past tm__judge_answers, which would take away the probability where the word is neither */
        assert_ok(judge->kind->judge(judge->own, exchanges, N, verdicts, NULL));
        for (size_t i = 0; i < N; i++) {
            assert_non_null(verdicts[i].output);
            assert_true(isfinite(verdicts[i].scores[1]));
            if ((verdicts[i].scores[1] == verdicts[0].scores[1]) != (i < 2)) fail_msg("%s, %zu", kinds[k].kind, i);
        }
        for (size_t i = 0; i < N; i++) tm__verdict_free(&verdicts[i]);
        tm_judge_close(judge);
    }
}

static void test_refusals(void **state) {
    (void)state;
    char spec[700];
    const char *directory = judges_checkpoint("harmbench", "sentence");
    const struct {
        const char *kind, *options;
        tm_status status;
        const char *said;
    } cases[] = {
        {"harmbench", "prompt=/nowhere", TM_NOT_FOUND, "/nowhere"},
        {"harmbench", "adapter=/nowhere", TM_NOT_FOUND, "/nowhere"},
        {"harmbench", "answer-tokens=-1", TM_INVALID, "answer-tokens"},
        {"harmbench", "contextual=/nowhere", TM_INVALID, "give prompt=FILE too"},
        {"strongreject-ft", "threshold=2", TM_INVALID, "threshold"},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_judge *judge = NULL;
        snprintf(spec, sizeof spec, "%s=%s,%s", cases[i].kind, directory, cases[i].options);
        assert_int_equal(tm_judge_open(spec, &judges_wide, NULL, &judge), cases[i].status);
        if (!strstr(tm_error_last()->line, cases[i].said)) fail_msg("'%s'", tm_error_last()->line);
    }
    tm_judge *judge = NULL;
    snprintf(spec, sizeof spec, "harmbench=%s,prompt=%s,contextual=%s", directory,
             test_path("golden/judges/prompt.txt"), test_path("golden/judges/prompt.txt"));
    assert_int_equal(tm_judge_open(spec, &judges_wide, NULL, &judge), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "no place for the context"));
    snprintf(spec, sizeof spec, "harmbench=%s", judges_checkpoint("beaver", "sentence"));
    assert_int_equal(tm_judge_open(spec, &judges_wide, NULL, &judge), TM_UNSUPPORTED);
}

/* All that decides a verdict is in the hash. */
static void test_identity(void **state) {
    (void)state;
    char specs[5][500], hashes[5][65];
    const char *directory = judges_checkpoint("harmbench", "sentence");
    snprintf(specs[0], sizeof specs[0], "harmbench=%s", directory);
    snprintf(specs[1], sizeof specs[0], "harmbench=%s,answer-tokens=511", directory);
    snprintf(specs[2], sizeof specs[0], "harmbench=%s,prompt=%s", directory, test_path("golden/judges/prompt.txt"));
    snprintf(specs[3], sizeof specs[0], "harmbench=%s,prompt=%s,contextual=%s", directory,
             test_path("golden/judges/prompt.txt"), test_path("golden/judges/contextual.txt"));
    snprintf(specs[4], sizeof specs[0], "llama-guard=%s", directory);
    for (size_t i = 0; i < TM__COUNT(specs); i++) {
        tm_judge *judge = judges_open(specs[i], &judges_narrow);
        snprintf(hashes[i], sizeof hashes[i], "%s", tm_judge_hash(judge));
        tm_judge_close(judge);
        for (size_t k = 0; k < i; k++) assert_string_not_equal(hashes[i], hashes[k]);
    }
}

static void test_memory(void **state) {
    (void)state;
    char spec[400];
    snprintf(spec, sizeof spec, "llama-guard=%s", judges_checkpoint("guard", "bytes"));
    judges_lack_memory(spec, judges_of("guard", "rows"));
    snprintf(spec, sizeof spec, "strongreject-ft=%s,adapter=%s", judges_checkpoint("reject", "sentence"),
             test_path("golden/judges/adapter"));
    judges_lack_memory(spec, judges_of("reject", "rows"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_harmbench),   cmocka_unit_test(test_context_is_needed),
        cmocka_unit_test(test_llama_guard), cmocka_unit_test(test_strongreject),
        cmocka_unit_test(test_own_prompts), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_memory),
    };
    return judges_run("judge_written", tests, TM__COUNT(tests));
}
