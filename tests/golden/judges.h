/* judges.h: the fixtures of tools/golden/judges.py: checkpoints with the weights of families.h's formula, exchanges. */
#ifndef TM_TEST_JUDGES_H
#define TM_TEST_JUDGES_H

#include "golden/families.h"
#include "judge/judge.h"

static json_t *judges_case;

static const tm_device_options judges_wide = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64},
                               judges_narrow = {.name = "cpu", .threads = 2, .precision = TM_PRECISION_F32};

static inline int judges_run(const char *group, const struct CMUnitTest *tests, size_t count) {
    if (tm__json_load(test_path("golden/judges/case.json"), (struct json_t **)&judges_case) != TM_OK) {
        fprintf(stderr, "%s\n", tm_error_last()->line);
        return 1;
    }
    int failed = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
    json_decref(judges_case);
    return failed;
}

static inline const json_t *judges_of(const char *judge, const char *key) {
    const json_t *value = json_object_get(json_object_get(judges_case, judge), key);
    if (!value) fail_msg("%s.%s is not in the fixture", judge, key);
    return value;
}

static inline double judges_number(const char *judge, const char *key) {
    return json_number_value(judges_of(judge, key));
}

/* A checkpoint of judge.config with the tokenizer in golden/judges/TOKENIZER; once per name. Static text. */
static inline const char *judges_checkpoint(const char *judge, const char *tokenizer) {
    static char made[8][160];
    static size_t count;
    char from[64];
    for (size_t i = 0; i < count; i++)
        if (strcmp(strrchr(made[i], '/') + 1, judge) == 0) return made[i];
    assert_true(count < TM__COUNT(made));
    snprintf(made[count], sizeof made[0], "%s/%s", test_scratch(), judge);
    snprintf(from, sizeof from, "golden/judges/%s", tokenizer);
    tm_device *device = open_device("ref", TM_PRECISION_F64);
    char *text = json_dumps(judges_of(judge, "config"), 0);
    tm_model *model;
    assert_ok(tm_model_create(device, text, 1, &model));
    assert_ok(tm__model_params(model, fill_param, model));
    const tm_save_options how = {.tokenizer_dir = test_path(from)};
    assert_ok(tm_model_save(model, made[count], &how));
    tm_model_free(model);
    tm_device_close(device);
    free(text);
    return made[count++];
}

static inline tm_judge *judges_open(const char *spec, const tm_device_options *where) {
    tm_judge *judge = NULL;
    if (tm_judge_open(spec, where, NULL, &judge) != TM_OK) fail_msg("%s: %s", spec, tm_error_last()->line);
    return judge;
}

static inline tm__exchange judges_exchange(const json_t *row) {
    return (tm__exchange){.prompt = json_string_value(json_object_get(row, "prompt")),
                          .context = json_string_value(json_object_get(row, "context")),
                          .answer = json_string_value(json_object_get(row, "answer"))};
}

enum { JUDGES_MOST = 64 };

/* Verdicts of all rows in one call; each is the caller's to free. */
static inline size_t judges_ask(tm_judge *judge, const json_t *rows, tm__verdict *verdicts) {
    tm__exchange exchanges[JUDGES_MOST];
    size_t n = json_array_size(rows);
    assert_in_range(n, 1, JUDGES_MOST);
    for (size_t i = 0; i < n; i++) exchanges[i] = judges_exchange(json_array_get(rows, i));
    assert_ok(tm__judge_answers(judge, exchanges, n, verdicts, NULL));
    return n;
}

/* A row alone gets the very verdict that it gets among others. */
static inline void judges_check_alone(tm_judge *judge, const json_t *rows, const tm__verdict *all) {
    for (size_t i = 0; i < json_array_size(rows); i++) {
        tm__verdict alone;
        const tm__exchange exchange = judges_exchange(json_array_get(rows, i));
        assert_ok(tm__judge_answers(judge, &exchange, 1, &alone, NULL));
        assert_memory_equal(alone.scores, all[i].scores, sizeof alone.scores);
        tm__verdict_free(&alone);
    }
}

static inline void judges_close_to(const char *what, size_t row, double got, double want, double bound) {
    if (!(fabs(got - want) <= bound * fmax(fabs(want), 1e-3)))
        fail_msg("%s, row %zu: %.12g instead of %.12g", what, row, got, want);
}

/* Opening and judging with an allocation that fails, one after the other: it is said, or done without, and nothing is
 * left behind. */
static inline void judges_lack_memory(const char *spec, const json_t *rows) {
    long reported = 0;
    bool failed = true;
    for (long n = 0; failed; n += 1 + n / 40) {
        tm_judge *judge = NULL;
        tm__verdict verdict = {0};
        const tm__exchange exchange = judges_exchange(json_array_get(rows, 0));
        tm__alloc_fail_at(n + 1, false);
        tm_status status = tm_judge_open(spec, &judges_narrow, NULL, &judge);
        if (status == TM_OK) status = tm__judge_answers(judge, &exchange, 1, &verdict, NULL);
        failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        tm__verdict_free(&verdict);
        tm_judge_close(judge);
        reported += status == TM_NO_MEMORY;
        if (status != TM_OK && (status != TM_NO_MEMORY || !failed))
            fail_msg("%s, allocation %ld: %s", spec, n + 1, tm_status_name(status));
    }
    assert_true(reported > 50);
}

#endif
