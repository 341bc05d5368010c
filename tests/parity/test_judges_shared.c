/* HarmBench's published prompts, as files, against transformers on a tiny checkpoint (tools/golden/judges.py): the
 * probability of yes, relative bound 1e-8 on ref fp64. */
#include "golden/judges.h"

static void test_published(void **state) {
    (void)state;
    char spec[3000], prompt[1024], contextual[1024];
    const json_t *rows = judges_of("harmbench", "rows");
    tm__verdict verdicts[JUDGES_MOST];
    snprintf(prompt, sizeof prompt, "%s", test_shared("assets/harmbench_classifier.txt"));
    snprintf(contextual, sizeof contextual, "%s", test_shared("assets/harmbench_classifier_contextual.txt"));
    snprintf(spec, sizeof spec, "harmbench=%s,prompt=%s,contextual=%s", judges_checkpoint("harmbench", "sentence"),
             prompt, contextual);
    tm_judge *judge = judges_open(spec, &judges_wide);
    tm__exchange exchanges[JUDGES_MOST];
    static const size_t chosen[] = {0, 3, 6}; /* the last has a context */
    size_t n = TM__COUNT(chosen);
    assert_non_null(json_object_get(json_array_get(rows, chosen[n - 1]), "context"));
    for (size_t i = 0; i < n; i++) {
        exchanges[i] = judges_exchange(json_array_get(rows, chosen[i]));
        verdicts[i] = (tm__verdict){0};
    }
    /* past tm__judge_answers, which would take away the probability where the word is neither */
    assert_ok(judge->kind->judge(judge->own, exchanges, n, verdicts, NULL));
    for (size_t i = 0; i < n; i++) {
        double want = json_number_value(json_object_get(json_array_get(rows, chosen[i]), "published"));
        judges_close_to("published", i, verdicts[i].scores[1], want, 1e-8);
        tm__verdict_free(&verdicts[i]);
    }
    tm_judge_close(judge);
}

int main(void) {
    TEST_NEEDS_SHARED("assets/harmbench_classifier_contextual.txt");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_published)};
    return judges_run("judges_shared", tests, TM__COUNT(tests));
}
