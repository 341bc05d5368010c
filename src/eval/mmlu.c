/* mmlu.c: MMLU (Hendrycks et al. 2021), as lm-evaluation-harness asks it.
 *
 * A header names the subject, the first rows of the subject's dev set follow with their answers, then the question with
 * its choices by letter; the letters are scored. The overall number weighs every question alike, which is the same as
 * weighing subjects by their size. Layouts: SUBJECT/{test,dev}.jsonl; test/SUBJECT_test.csv and dev/SUBJECT_dev.csv as
 * published; test.jsonl and dev.jsonl with a column `subject`. Test: tests/golden/test_mcq.c.
 */
#include "eval/mcq.h"

#include <jansson.h>
#include <stdlib.h>

static const char letters[] = "ABCD";
static const char *const csv_names[] = {"question", "A", "B", "C", "D", "answer", NULL};
static const char *const *const csv_columns[] = {csv_names, NULL};

/* ---- a row ------------------------------------------------------------------------------------------------------- */

static tm_status choice_texts(const tm__rows *rows, size_t row, const char *text[4]) {
    const json_t *choices = json_object_get(tm__rows_at(rows, row), "choices");
    for (int i = 0; i < 4; i++) {
        const char name[] = {letters[i], 0};
        if (!choices) {
            TM__TRY(tm__rows_text(rows, row, tm__rows_have(rows, row, "A") ? name : "choices", &text[i]));
            continue;
        }
        const json_t *one =
            json_is_array(choices) ? json_array_get(choices, (size_t)i) : json_object_get(choices, name);
        text[i] = json_string_value(one);
        if (!text[i]) return tm__rows_fail(rows, row, "choices", "has no text for %s", name);
    }
    return TM_OK;
}

static tm_status parse(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    static const char *const names[] = {"A", "B", "C", "D"};
    const char *question, *answer, *text[4];
    size_t len;
    TM__TRY(tm__rows_text(rows, row, "question", &question));
    TM__TRY(tm__rows_text(rows, row, "answer", &answer));
    TM__TRY(choice_texts(rows, row, text));
    question = tm__py_strip(question, &len);
    q->prompt = tm__keep(e, "%.*s\nA. %s\nB. %s\nC. %s\nD. %s\nAnswer:", (int)len, question, text[0], text[1], text[2],
                         text[3]);
    if (!q->prompt) return tm__fail_memory();
    for (q->count = 0; q->count < 4; q->count++) q->choices[q->count] = names[q->count];
    const char *letter = answer[0] && !answer[1] ? strchr(letters, answer[0]) : NULL;
    q->gold = letter ? letter - letters : answer[0] >= '0' && answer[0] <= '3' && !answer[1] ? answer[0] - '0' : -1;
    return tm__mcq_check(rows, row, "answer", q);
}

/* ---- a subject --------------------------------------------------------------------------------------------------- */

/* Subject of a row: its own column, or that of the file. */
static const char *subject_of(const tm__rows *rows, size_t row, const char *fixed) {
    const char *own = json_string_value(json_object_get(tm__rows_at(rows, row), "subject"));
    return own ? own : fixed;
}

static tm_status make_header(tm_evaluation *e, const tm__rows *dev, const char *subject, const char *fixed,
                             tm__string *header) {
    int64_t taken = 0;
    char spaced[256];
    snprintf(spaced, sizeof spaced, "%s", subject);
    for (char *at = spaced; *at; at++)
        if (*at == '_') *at = ' ';
    header->len = 0;
    if (!tm__string_printf(header, "The following are multiple choice questions (with answers) about %s.\n\n", spaced))
        return tm__fail_memory();
    for (size_t i = 0; dev && i < dev->count && taken < e->shots; i++) {
        tm__question q = {0};
        if (strcmp(subject_of(dev, i, fixed), subject) != 0) continue;
        TM__TRY(parse(e, dev, i, &q));
        if (!tm__mcq_example(header, &q)) return tm__fail_memory();
        taken++;
    }
    if (taken == e->shots) return TM_OK;
    return tm__fail(TM_INVALID, dev ? dev->path : e->path, "shots", NULL,
                    "%lld worked examples of %s asked for, there are %lld", (long long)e->shots, subject,
                    (long long)taken);
}

/* How many items of each subject there are. */
static tm_status count_up(tm__map *counts, const char *subject, int32_t *before) {
    *before = 0;
    tm__map_get(counts, subject, strlen(subject), before);
    return tm__map_put(counts, subject, strlen(subject), *before + 1) ? TM_OK : tm__fail_memory();
}

static tm_status add_rows(tm_evaluation *e, const tm__rows *rows, const tm__rows *dev, const char *fixed) {
    tm__string header = {0};
    tm__map counts = {0};
    const char *current = NULL;
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < rows->count; i++) {
        const char *subject = subject_of(rows, i, fixed);
        tm__question q = {0};
        int32_t before;
        status = count_up(&counts, subject, &before);
        if (status != TM_OK || tm__item_enough(e, before)) continue;
        if (!current || strcmp(current, subject) != 0) {
            status = make_header(e, dev, subject, fixed, &header);
            if (status == TM_OK && !(current = tm__keep(e, "%s", subject))) status = tm__fail_memory();
        }
        if (status == TM_OK) status = parse(e, rows, i, &q);
        if (status == TM_OK) status = tm__mcq_add(e, (int64_t)i, current, header.data, &q);
    }
    tm__map_free(&counts);
    tm__string_free(&header);
    return status;
}

/* `dev` may be absent where no examples are asked for. */
static tm_status add_file(tm_evaluation *e, const char *path, const char *dev_path, const char *subject) {
    tm__rows rows, dev = {0};
    TM__TRY(tm__rows_read(path, csv_columns, &rows));
    tm_status status = TM_OK;
    if (e->shots) status = tm__rows_read(dev_path, csv_columns, &dev);
    if (status == TM_OK) status = add_rows(e, &rows, e->shots ? &dev : NULL, subject);
    if (dev.array) tm__rows_free(&dev);
    tm__rows_free(&rows);
    return status;
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

static tm_status add_folder(void *user, const char *name, const char *path) {
    tm_evaluation *e = user;
    char *test = tm__path_join(path, "test.jsonl"), *dev = tm__path_join(path, "dev.jsonl");
    tm_status status = test && dev ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(test)) status = add_file(e, test, dev, name);
    free(test);
    free(dev);
    return status;
}

static tm_status add_csv(void *user, const char *name, const char *path) {
    static const char end[] = "_test.csv";
    tm_evaluation *e = user;
    size_t len = strlen(name);
    if (len < sizeof end || strcmp(name + len - (sizeof end - 1), end) != 0) return TM_OK;
    char *subject = tm__strndup(name, len - (sizeof end - 1));
    char *dev = subject ? tm__format("%s/dev/%s_dev.csv", e->path, subject) : NULL;
    tm_status status = dev ? add_file(e, path, dev, subject) : tm__fail_memory();
    free(subject);
    free(dev);
    return status;
}

/* One file for all subjects, or of the one subject that its directory is called. */
static tm_status add_single(tm_evaluation *e, const char *path) {
    const char *slash = strrchr(path, '/');
    char *directory = slash ? tm__strndup(path, (size_t)(slash - path)) : tm__strdup(".");
    char *dev = directory ? tm__path_join(directory, "dev.jsonl") : NULL;
    const char *name = directory ? strrchr(directory, '/') : NULL;
    tm_status status = dev ? add_file(e, path, dev, name ? name + 1 : directory) : tm__fail_memory();
    free(directory);
    free(dev);
    return status;
}

static tm_status prepare(tm_evaluation *e) {
    if (!tm__path_is_directory(e->path)) {
        e->layout = "one file";
        return add_single(e, e->path);
    }
    char *file = tm__path_join(e->path, "test.jsonl"), *tables = tm__path_join(e->path, "test");
    tm_status status = file && tables ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(file)) {
        e->layout = "one file";
        status = add_single(e, file);
    } else if (status == TM_OK && tm__path_is_directory(tables)) {
        e->layout = "as published";
        status = tm__place_list(tables, add_csv, e);
    } else if (status == TM_OK) {
        e->layout = "a directory per subject";
        status = tm__place_list(e->path, add_folder, e);
    }
    free(file);
    free(tables);
    if (status == TM_OK && e->count == 0)
        status = tm__fail(TM_NOT_FOUND, e->path, "mmlu", "SUBJECT/test.jsonl, test/SUBJECT_test.csv or test.jsonl",
                          "holds no subjects");
    return status;
}

static const struct tm__suite_calls calls = {
    .prepare = prepare,
    .score = tm__mcq_score,
    .score_names = tm__mcq_score_names,
    .measures = tm__mcq_acc_by_group,
};

const tm_suite tm__suite_mmlu = {
    .name = "mmlu",
    .measures = "57 subjects from school to profession, four choices",
    .layout =
        "a directory: SUBJECT/test.jsonl and dev.jsonl; test/SUBJECT_test.csv and dev/SUBJECT_dev.csv (as "
        "published); or test.jsonl and dev.jsonl with subject; columns question, choices (list or A to D), answer",
    .folders = "mmlu|MMLU",
    .shot_file = "dev",
    .numbers = "acc, also of each subject",
    .compare = "lm-evaluation-harness 0.4 (mmlu) and papers that give 5-shot accuracy by letters",
    .shots = 5,
    .calls = &calls,
};
