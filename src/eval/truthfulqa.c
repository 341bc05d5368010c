/* truthfulqa.c: TruthfulQA (Lin et al. 2022), multiple choice: mc1 and mc2 as lm-evaluation-harness scores them.
 *
 * Six fixed question-answer pairs, read from a file, stand before every question. mc1: the best true answer is the
 * likeliest. mc2: the share of probability on true answers, sum over true of e^ll over sum of e^ll; the largest is
 * taken out first, which the harness does not do and which keeps long answers from vanishing.
 * Tests: tests/golden/test_mcq.c; appendix A13 in tests/golden/test_answers.c.
 */
#include "eval/mcq.h"

#include <jansson.h>
#include <stdlib.h>

double tm__mc2(const double *ll, const bool *right, size_t n) {
    double most = -INFINITY, all = 0, good = 0;
    for (size_t i = 0; i < n; i++) most = TM__MAX(most, ll[i]);
    for (size_t i = 0; i < n; i++) {
        double p = exp(ll[i] - most);
        all += p;
        if (right[i]) good += p;
    }
    return good / all;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

/* The file that was named, or by its usual name beside the data, in the data directory or in ../assets from there. */
static tm_status find_preamble(const tm_evaluation *e, char **path) {
    static const char name[] = "truthfulqa_preamble.txt";
    const char *slash = strrchr(e->path, '/');
    int dir = slash ? (int)(slash - e->path) : 1;
    const char *beside = slash ? e->path : ".", *data = e->options.data_dir;
    if (e->options.preamble) {
        *path = tm__strdup(e->options.preamble);
        return *path ? TM_OK : tm__fail_memory();
    }
    for (int i = 0; i < 3; i++) {
        if (i > 0 && !data) continue;
        *path = i == 0   ? tm__format("%.*s/%s", dir, beside, name)
                : i == 1 ? tm__format("%s/%s", data, name)
                         : tm__format("%s/../assets/%s", data, name);
        if (!*path) return tm__fail_memory();
        if (tm__path_exists(*path)) return TM_OK;
        free(*path);
    }
    *path = NULL;
    return tm__fail(TM_NOT_FOUND, e->path, "preamble", "name its six question-answer pairs: --preamble FILE",
                    "no %s beside it", name);
}

static tm_status read_preamble(tm_evaluation *e, char **text) {
    char *path;
    size_t len;
    TM__TRY(find_preamble(e, &path));
    tm_status status = tm__file_read(path, (size_t)1 << 20, text, &len);
    if (status == TM_OK && !tm__utf8_valid(*text, len)) {
        free(*text);
        *text = NULL;
        status = tm__fail(TM_FORMAT, path, NULL, NULL, "is not UTF-8");
    }
    free(path);
    if (status == TM_OK) (*text)[tm__py_rstrip(*text, len)] = 0;
    return status;
}

static tm_status add_target(const tm__rows *rows, size_t row, const char *column, const char *text, const json_t *label,
                            tm__question *q) {
    if (q->count == TM__MOST_CHOICES)
        return tm__rows_fail(rows, row, column, "holds more than %d choices", TM__MOST_CHOICES);
    if (!text || !json_is_integer(label)) return tm__rows_fail(rows, row, column, "holds no texts with labels 0 and 1");
    q->right[q->count] = json_integer_value(label) == 1;
    q->choices[q->count++] = text;
    return TM_OK;
}

/* {"choices": [...], "labels": [...]} (Hugging Face) or {text: label, ...} (as published). */
static tm_status read_targets(tm_evaluation *e, const tm__rows *rows, size_t row, const char *column, tm__question *q) {
    const json_t *targets, *texts;
    const char *key;
    json_t *value;
    TM__TRY(tm__rows_value(rows, row, column, &targets));
    texts = json_object_get(targets, "choices");
    if (json_is_array(texts)) {
        const json_t *labels = json_object_get(targets, "labels");
        e->layout = "Hugging Face";
        for (size_t i = 0; i < json_array_size(texts); i++)
            TM__TRY(add_target(rows, row, column, json_string_value(json_array_get(texts, i)),
                               json_array_get(labels, i), q));
    } else {
        e->layout = "as published";
        json_object_foreach((json_t *)targets, key, value) TM__TRY(add_target(rows, row, column, key, value, q));
    }
    size_t right = 0;
    for (size_t i = 0; i < q->count; i++) right += q->right[i];
    return right ? TM_OK : tm__rows_fail(rows, row, column, "has no true answer");
}

static tm_status add_question(tm_evaluation *e, const tm__rows *rows, size_t row, const char *preamble) {
    tm__question q = {.gold = -1};
    const char *question;
    TM__TRY(tm__rows_text(rows, row, "question", &question));
    TM__TRY(read_targets(e, rows, row, e->suite->calls->own, &q));
    q.prompt = tm__keep(e, "%s\n\nQ: %s\nA:", preamble, question);
    return q.prompt ? tm__mcq_add(e, (int64_t)row, NULL, "", &q) : tm__fail_memory();
}

static tm_status prepare(tm_evaluation *e) {
    tm__rows rows;
    char *preamble = NULL;
    TM__TRY(tm__rows_read(e->path, NULL, &rows));
    tm_status status = read_preamble(e, &preamble);
    for (size_t i = 0; status == TM_OK && i < rows.count && !tm__item_enough(e, (int64_t)i); i++)
        status = add_question(e, &rows, i, preamble);
    free(preamble);
    tm__rows_free(&rows);
    return status;
}

static tm_status score_mc2(tm_evaluation *e, tm__item *item) {
    double ll[TM__MOST_CHOICES];
    bool right[TM__MOST_CHOICES];
    (void)e;
    for (size_t i = 0; i < item->choice_count; i++) {
        ll[i] = item->choices[i].ll;
        right[i] = item->choices[i].right;
    }
    item->scores[0] = tm__mc2(ll, right, item->choice_count);
    return TM_OK;
}

/* ---- suites ------------------------------------------------------------------------------------------------------ */

static const char *const mc2_names[] = {"mc2", NULL}, *const mc1_names[] = {"acc", NULL};
static const tm__measure mc2_measures[] = {{.name = "mc2", .kind = TM__MEASURE_MEAN, .score = 0}, {0}};
static tm_status score_mc1(tm_evaluation *e, tm__item *item) {
    TM__TRY(tm__mcq_score(e, item));
    item->scores[1] = NAN;
    return TM_OK;
}

static const struct tm__suite_calls mc1_calls = {
    .prepare = prepare, .score = score_mc1, .score_names = mc1_names, .measures = tm__mcq_acc, .own = "mc1_targets"};
static const struct tm__suite_calls mc2_calls = {
    .prepare = prepare, .score = score_mc2, .score_names = mc2_names, .measures = mc2_measures, .own = "mc2_targets"};

#define LAYOUT(targets)                                                                                     \
    "question, " targets " {choices, labels} (Hugging Face) or {text: label} (mc_task.json as published); " \
    "and the six question-answer pairs before a question, from a file"

const tm_suite tm__suite_truthfulqa_mc1 = {
    .name = "truthfulqa_mc1",
    .measures = "whether the likeliest answer to a leading question is the true one",
    .layout = LAYOUT("mc1_targets"),
    .folders = "truthfulqa",
    .files = "validation.jsonl|mc_task.json",
    .numbers = "acc",
    .compare = "lm-evaluation-harness 0.4 and papers that name MC1",
    .calls = &mc1_calls,
};

const tm_suite tm__suite_truthfulqa_mc2 = {
    .name = "truthfulqa_mc2",
    .measures = "share of probability on the true answers to a leading question",
    .layout = LAYOUT("mc2_targets"),
    .folders = "truthfulqa",
    .files = "validation.jsonl|mc_task.json",
    .numbers = "mc2",
    .compare = "lm-evaluation-harness 0.4 (its acc of truthfulqa_mc2) and papers that name MC2",
    .calls = &mc2_calls,
};
