/* mcq.c: questions with answers to choose from, scored by likelihood as lm-evaluation-harness (0.4) does.
 *
 *   ll_k = ln p(" " + choice_k | context);  acc: argmax ll_k is the answer;
 *   acc_norm: argmax ll_k / (characters of choice_k, without the space);  of equals the first counts
 *
 * Worked examples are drawn anew for every question from the file of training rows (shots.c, draw) and stand before it
 * with their answers, separated by blank lines. Test: tests/golden/test_mcq.c; live: tools/parity/mcq.py.
 */
#include "eval/mcq.h"

#include <jansson.h>
#include <stdlib.h>

const char *const tm__mcq_score_names[] = {"acc", "acc_norm", NULL};
const tm__measure tm__mcq_acc[] = {{.name = "acc", .kind = TM__MEASURE_SHARE, .score = 0}, {0}};
const tm__measure tm__mcq_acc_by_group[] = {{.name = "acc", .kind = TM__MEASURE_SHARE, .score = 0, .by_group = true},
                                            {0}};
const tm__measure tm__mcq_acc_norm[] = {{.name = "acc", .kind = TM__MEASURE_SHARE, .score = 0},
                                        {.name = "acc_norm", .kind = TM__MEASURE_SHARE, .score = 1},
                                        {0}};

/* ---- items ------------------------------------------------------------------------------------------------------- */

tm_status tm__mcq_add(tm_evaluation *e, int64_t row, const char *group, const char *header, const tm__question *q) {
    tm__item *item = tm__item_add(e, row);
    if (!item) return tm__fail_memory();
    item->group = group;
    item->choices = tm__arena_alloc(&e->arena, q->count, sizeof *item->choices);
    const char *context = q->rest ? NULL : tm__keep(e, "%s%s", header, q->prompt);
    if (!item->choices || (!q->rest && !context)) return tm__fail_memory();
    for (size_t i = 0; i < q->count; i++) {
        tm__choice *choice = &item->choices[i];
        choice->text = tm__keep(e, "%s", q->choices[i]);
        choice->context = q->rest ? tm__keep(e, "%s%s", header, q->choices[i]) : context;
        choice->next = tm__keep(e, " %s", q->rest ? q->rest : q->choices[i]);
        choice->right = q->right[i] || (int64_t)i == q->gold;
        if (!choice->text || !choice->context || !choice->next) return tm__fail_memory();
    }
    item->choice_count = q->count;
    return TM_OK;
}

bool tm__mcq_example(tm__string *out, const tm__question *q) {
    return tm__string_printf(out, "%s %s\n\n", q->rest ? q->choices[q->gold] : q->prompt,
                             q->rest ? q->rest : q->choices[q->gold]);
}

tm_status tm__mcq_check(const tm__rows *rows, size_t row, const char *column, const tm__question *q) {
    if (q->gold >= 0 && q->gold < (int64_t)q->count) return TM_OK;
    return tm__rows_fail(rows, row, column, "names none of the %zu choices", q->count);
}

tm_status tm__mcq_score(tm_evaluation *e, tm__item *item) {
    size_t best = 0, best_norm = 0;
    double most = -INFINITY, most_norm = -INFINITY;
    (void)e;
    for (size_t i = 0; i < item->choice_count; i++) {
        const tm__choice *c = &item->choices[i];
        double norm = c->ll / (double)tm__py_length(c->text);
        if (c->ll > most) most = c->ll, best = i;
        if (norm > most_norm) most_norm = norm, best_norm = i;
    }
    item->scores[0] = item->choices[best].right;
    item->scores[1] = item->choices[best_norm].right;
    return TM_OK;
}

/* ---- questions of rows ------------------------------------------------------------------------------------------- */

typedef tm_status parse_row(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q);

static tm_status set_layout(tm_evaluation *e, const char *layout) {
    if (!e->layout) e->layout = layout;
    return TM_OK;
}

static tm_status add_text(const tm__rows *rows, size_t row, const char *column, const json_t *text, tm__question *q) {
    if (!json_is_string(text)) return tm__rows_fail(rows, row, column, "choice %zu is no text", q->count + 1);
    if (q->count == TM__MOST_CHOICES)
        return tm__rows_fail(rows, row, column, "holds more than %d choices", TM__MOST_CHOICES);
    q->choices[q->count++] = json_string_value(text);
    return TM_OK;
}

/* choices as {"text": [...], "label": [...]} (Hugging Face) or [{"text": ..., "label": ...}, ...] (as published). */
static tm_status labelled_choices(const tm__rows *rows, size_t row, const json_t *choices, const char *key,
                                  tm__question *q) {
    const json_t *texts = json_object_get(choices, "text"), *labels = json_object_get(choices, "label");
    size_t n = json_is_array(choices) ? json_array_size(choices) : json_array_size(texts);
    size_t len;
    key = tm__py_strip(key, &len);
    q->gold = -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(choices, i);
        const json_t *text = one ? json_object_get(one, "text") : json_array_get(texts, i);
        const char *label = json_string_value(one ? json_object_get(one, "label") : json_array_get(labels, i));
        TM__TRY(add_text(rows, row, "choices", text, q));
        if (!label) return tm__rows_fail(rows, row, "choices", "choice %zu has no label", i + 1);
        if (q->gold < 0 && strlen(label) == len && strncmp(label, key, len) == 0) q->gold = (int64_t)i;
    }
    return tm__mcq_check(rows, row, "answerKey", q);
}

/* "...question: Q\n\nAnswer1: a Answer2: b\n\nAnswer format: ..." with an `answer` column, as in commonsense
 * collections. *question and choices are the evaluation's. */
static tm_status flattened(tm_evaluation *e, const tm__rows *rows, size_t row, const char **question, tm__question *q) {
    static const char asks[] = "question: ", ends[] = "\n\nAnswer format:";
    const char *text, *answer;
    TM__TRY(tm__rows_text(rows, row, "instruction", &text));
    TM__TRY(tm__rows_text(rows, row, "answer", &answer));
    const char *from = strstr(text, asks), *end = strstr(text, ends), *list = strstr(text, "\n\nAnswer1: ");
    if (!from || !end) return tm__rows_fail(rows, row, "instruction", "is not of the flattened layout");
    from += sizeof asks - 1;
    const char *stop = list && list < end ? list : end;
    *question = tm__keep(e, "%.*s", (int)(stop - from), from);
    if (!*question) return tm__fail_memory();
    const char *at = list ? list + 2 : end;
    for (int number = 1; at < end; number++) {
        char next[32];
        at += strcspn(at, ":") + 2;
        snprintf(next, sizeof next, " Answer%d: ", number + 1);
        const char *behind = strstr(at, next);
        if (!behind || behind > end) behind = end;
        const char *choice = tm__keep(e, "%.*s", (int)(behind - at), at);
        if (!choice) return tm__fail_memory();
        if (q->count == TM__MOST_CHOICES) return tm__rows_fail(rows, row, "instruction", "holds too many choices");
        q->choices[q->count++] = choice;
        at = behind == end ? end : behind + 1;
    }
    q->gold = strncmp(answer, "answer", 6) == 0 ? strtol(answer + 6, NULL, 10) - 1 : -1;
    if (!e->layout)
        TM__TRY(tm__evaluation_note(e, "the data is flattened (question and choices in one text): "
                                       "not comparable with published figures"));
    return set_layout(e, "flattened");
}

/* Question text and choices of ARC and OpenBookQA in any of their layouts. */
static tm_status science(tm_evaluation *e, const tm__rows *rows, size_t row, const char *column, const char **question,
                         tm__question *q) {
    const json_t *asked, *choices;
    const char *key;
    if (tm__rows_have(rows, row, "instruction")) {
        TM__TRY(flattened(e, rows, row, question, q));
        return tm__mcq_check(rows, row, "answer", q);
    }
    TM__TRY(tm__rows_text(rows, row, "answerKey", &key));
    if (json_is_object(json_object_get(tm__rows_at(rows, row), "question"))) {
        TM__TRY(tm__rows_value(rows, row, "question", &asked));
        *question = json_string_value(json_object_get(asked, "stem"));
        if (!*question) return tm__rows_fail(rows, row, "question", "has no stem");
        TM__TRY(set_layout(e, "as published"));
        return labelled_choices(rows, row, json_object_get(asked, "choices"), key, q);
    }
    TM__TRY(tm__rows_text(rows, row, column, question));
    TM__TRY(tm__rows_value(rows, row, "choices", &choices));
    TM__TRY(set_layout(e, "Hugging Face"));
    return labelled_choices(rows, row, choices, key, q);
}

static tm_status arc(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    const char *question;
    TM__TRY(science(e, rows, row, "question", &question, q));
    q->prompt = tm__keep(e, "Question: %s\nAnswer:", question);
    return q->prompt ? TM_OK : tm__fail_memory();
}

static tm_status openbookqa(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    return science(e, rows, row, "question_stem", &q->prompt, q);
}

/* "[...]" without line breaks in it, shortest first. */
static void drop_bracketed(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        size_t n = *from == '[' ? strcspn(from, "]\n") : 0;
        if (n && from[n] == ']')
            from += n + 1;
        else
            *to++ = *from++;
    }
    *to = 0;
}

/* strip; " [title]" to ". "; bracketed tags away; double spaces to single ones, once. */
static const char *hellaswag_clean(tm_evaluation *e, const char *text) {
    size_t len;
    const char *from = tm__py_strip(text, &len), *kept = NULL;
    char *stripped = tm__strndup(from, len);
    char *titled = stripped ? tm__py_replace(stripped, " [title]", ". ") : NULL;
    if (titled) drop_bracketed(titled);
    char *single = titled ? tm__py_replace(titled, "  ", " ") : NULL;
    if (single) kept = tm__keep(e, "%s", single);
    free(stripped);
    free(titled);
    free(single);
    return kept;
}

static tm_status hellaswag(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    const char *label, *a, *b;
    const json_t *endings, *ending;
    size_t i;
    TM__TRY(tm__rows_text(rows, row, "activity_label", &label));
    TM__TRY(tm__rows_text(rows, row, "ctx_a", &a));
    TM__TRY(tm__rows_text(rows, row, "ctx_b", &b));
    TM__TRY(tm__rows_value(rows, row, "endings", &endings));
    TM__TRY(tm__rows_int(rows, row, "label", &q->gold));
    char *capital = tm__py_capitalize(b);
    const char *whole = capital ? tm__keep(e, "%s: %s %s", label, a, capital) : NULL;
    free(capital);
    q->prompt = whole ? hellaswag_clean(e, whole) : NULL;
    if (!q->prompt) return tm__fail_memory();
    json_array_foreach((json_t *)endings, i, ending) {
        TM__TRY(add_text(rows, row, "endings", ending, q));
        q->choices[i] = hellaswag_clean(e, q->choices[i]);
        if (!q->choices[i]) return tm__fail_memory();
    }
    TM__TRY(set_layout(e, "as published"));
    return tm__mcq_check(rows, row, "label", q);
}

/* PIQA's labels were published in a file of their own beside the rows: "valid-labels.lst". */
static tm_status piqa_label(const tm__rows *rows, size_t row, int64_t *label) {
    char *text, *path;
    size_t len, stem = strlen(rows->path), line = 0;
    while (stem && rows->path[stem] != '.' && rows->path[stem] != '/') stem--;
    path = tm__format("%.*s-labels.lst", (int)stem, rows->path);
    if (!path) return tm__fail_memory();
    bool there = tm__path_exists(path);
    tm_status status = there ? tm__file_read(path, 0, &text, &len) : TM_OK;
    free(path);
    if (!there) return tm__rows_int(rows, row, "label", label);
    TM__TRY(status);
    const char *at = text;
    for (; at && line < row; line++) {
        at = strchr(at, '\n');
        if (at) at++;
    }
    bool digit = at && (*at == '0' || *at == '1');
    if (digit) *label = *at - '0';
    free(text);
    return digit ? TM_OK : tm__rows_fail(rows, row, "label", "has no line in the file of labels");
}

static tm_status piqa(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    const char *goal;
    TM__TRY(tm__rows_text(rows, row, "goal", &goal));
    TM__TRY(tm__rows_text(rows, row, "sol1", &q->choices[0]));
    TM__TRY(tm__rows_text(rows, row, "sol2", &q->choices[1]));
    q->count = 2;
    bool own = tm__rows_have(rows, row, "label");
    TM__TRY(own ? tm__rows_int(rows, row, "label", &q->gold) : piqa_label(rows, row, &q->gold));
    q->prompt = tm__keep(e, "Question: %s\nAnswer:", goal);
    if (!q->prompt) return tm__fail_memory();
    TM__TRY(set_layout(e, own ? "Hugging Face" : "as published"));
    return tm__mcq_check(rows, row, "label", q);
}

static tm_status winogrande(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    static const char *const options[] = {"option1", "option2"};
    const char *sentence, *option;
    size_t len;
    TM__TRY(tm__rows_text(rows, row, "sentence", &sentence));
    TM__TRY(tm__rows_int(rows, row, "answer", &q->gold));
    const char *blank = strchr(sentence, '_'), *rest;
    if (!blank) return tm__rows_fail(rows, row, "sentence", "has no blank (\"_\")");
    for (int i = 0; i < 2; i++) {
        TM__TRY(tm__rows_text(rows, row, options[i], &option));
        q->choices[i] = tm__keep(e, "%.*s%s", (int)(blank - sentence), sentence, option);
        if (!q->choices[i]) return tm__fail_memory();
    }
    rest = tm__py_strip(blank + 1, &len);
    q->rest = tm__keep(e, "%.*s", (int)len, rest);
    q->count = 2;
    q->gold--;
    if (!q->rest) return tm__fail_memory();
    TM__TRY(set_layout(e, "as published"));
    return tm__mcq_check(rows, row, "answer", q);
}

static tm_status boolq(tm_evaluation *e, const tm__rows *rows, size_t row, tm__question *q) {
    const char *question, *passage;
    if (tm__rows_have(rows, row, "instruction")) {
        const char *answer;
        TM__TRY(flattened(e, rows, row, &question, q));
        TM__TRY(tm__rows_text(rows, row, "answer", &answer));
        q->gold = strcmp(answer, "true") == 0 ? 1 : strcmp(answer, "false") == 0 ? 0 : -1;
        size_t len = strlen(question);
        q->prompt =
            tm__keep(e, "Question: %.*s?\nAnswer:", (int)(len && question[len - 1] == '?' ? len - 1 : len), question);
    } else {
        bool glue = tm__rows_have(rows, row, "label");
        TM__TRY(tm__rows_text(rows, row, "passage", &passage));
        TM__TRY(tm__rows_text(rows, row, "question", &question));
        TM__TRY(tm__rows_int(rows, row, glue ? "label" : "answer", &q->gold));
        q->prompt = tm__keep(e, "%s\nQuestion: %s?\nAnswer:", passage, question);
        TM__TRY(set_layout(e, glue ? "SuperGLUE" : "as published"));
    }
    q->choices[0] = "no";
    q->choices[1] = "yes";
    q->count = 2;
    if (!q->prompt) return tm__fail_memory();
    return tm__mcq_check(rows, row, "answer", q);
}

/* ---- preparing --------------------------------------------------------------------------------------------------- */

enum { MOST_SHOTS = 64 };

typedef struct task {
    parse_row *parse;
    bool guarded; /* the harness draws its examples from a validation set: see draw */
} task;

typedef struct pool {
    tm__rows rows;
    char **examples; /* (rows) */
    tm__py_random random;
} pool;

static void pool_free(pool *p) {
    for (size_t i = 0; p->examples && i < p->rows.count; i++) free(p->examples[i]);
    free(p->examples);
    if (p->rows.array) tm__rows_free(&p->rows);
}

static tm_status pool_open(tm_evaluation *e, const task *t, pool *p) {
    size_t least = (size_t)e->shots + t->guarded;
    tm__py_random_seed(&p->random, (uint64_t)e->options.seed);
    if (e->shots == 0) return TM_OK;
    TM__TRY(tm__rows_read(e->shot_path, NULL, &p->rows));
    if (p->rows.count < least)
        return tm__fail(TM_INVALID, e->shot_path, "shots", NULL,
                        "%lld worked examples are drawn from %zu rows, not %zu", (long long)e->shots, least,
                        p->rows.count);
    p->examples = tm__zalloc(p->rows.count, sizeof *p->examples);
    if (!p->examples) return tm__fail_memory();
    for (size_t i = 0; i < p->rows.count; i++) {
        tm__question q = {0};
        tm__string text = {0};
        TM__TRY(t->parse(e, &p->rows, i, &q));
        if (!tm__mcq_example(&text, &q)) {
            tm__string_free(&text);
            return tm__fail_memory();
        }
        p->examples[i] = text.data;
    }
    return TM_OK;
}

/* Draws from the rows that are not the question itself. */
static tm_status draw_others(const tm_evaluation *e, pool *p, const json_t *asked, size_t *chosen) {
    size_t *others = tm__alloc(p->rows.count, sizeof *others), n = 0, k = (size_t)e->shots;
    if (!others) return tm__fail_memory();
    for (size_t i = 0; i < p->rows.count; i++)
        if (!json_equal(tm__rows_at(&p->rows, i), asked)) others[n++] = i;
    tm_status status = n < k ? tm__fail(TM_INVALID, e->shot_path, "shots", NULL, "holds too few rows")
                             : tm__py_random_sample(&p->random, n, k, chosen);
    for (size_t i = 0; status == TM_OK && i < k; i++) chosen[i] = others[chosen[i]];
    free(others);
    return status;
}

/* Where the harness knows of no test split it takes the examples' rows for the question's own: it draws one more than
 * it needs, drops the question if it is among them, and draws again only where too few are left. */
static tm_status draw(const tm_evaluation *e, pool *p, bool guarded, const json_t *asked, size_t *chosen) {
    size_t k = (size_t)e->shots, kept = 0;
    if (!guarded || k == 0) return k ? tm__py_random_sample(&p->random, p->rows.count, k, chosen) : TM_OK;
    TM__TRY(tm__py_random_sample(&p->random, p->rows.count, k + 1, chosen));
    for (size_t i = 0; i <= k; i++)
        if (!json_equal(tm__rows_at(&p->rows, chosen[i]), asked)) chosen[kept++] = chosen[i];
    return kept < k ? draw_others(e, p, asked, chosen) : TM_OK;
}

/* The examples before a question, one behind another. */
static tm_status pool_header(const tm_evaluation *e, pool *p, bool guarded, const json_t *asked, tm__string *header) {
    size_t chosen[MOST_SHOTS + 1];
    TM__TRY(draw(e, p, guarded, asked, chosen));
    header->len = 0;
    bool ok = tm__string_append(header, "", 0);
    for (int64_t i = 0; ok && i < e->shots; i++)
        ok = tm__string_append(header, p->examples[chosen[i]], strlen(p->examples[chosen[i]]));
    return ok ? TM_OK : tm__fail_memory();
}

static tm_status prepare(tm_evaluation *e) {
    const task *const t = e->suite->calls->own;
    pool p = {0};
    tm__rows rows;
    tm__string header = {0};
    TM__TRY(tm__rows_read(e->path, NULL, &rows));
    tm_status status = pool_open(e, t, &p);
    for (size_t i = 0; status == TM_OK && i < rows.count && !tm__item_enough(e, (int64_t)i); i++) {
        tm__question q = {0};
        status = t->parse(e, &rows, i, &q);
        if (status == TM_OK) status = pool_header(e, &p, t->guarded, tm__rows_at(&rows, i), &header);
        if (status == TM_OK) status = tm__mcq_add(e, (int64_t)i, NULL, header.data, &q);
    }
    tm__string_free(&header);
    pool_free(&p);
    tm__rows_free(&rows);
    return status;
}

/* ---- suites ------------------------------------------------------------------------------------------------------ */

#define SCIENCE_LAYOUT(question)                                                                                       \
    question ", choices {text, label}, answerKey (Hugging Face); question {stem, choices [{text, label}]}, answerKey " \
             "(as published); instruction, answer (flattened: not comparable)"
#define HARNESS "lm-evaluation-harness 0.4 on the same data, number of worked examples and seed"
#define CALLS(suite, is_guarded, numbers)                                                    \
    static const task suite##_task = {.parse = suite, .guarded = is_guarded};                \
    static const struct tm__suite_calls suite##_calls = {.prepare = prepare,                 \
                                                         .score = tm__mcq_score,             \
                                                         .score_names = tm__mcq_score_names, \
                                                         .measures = numbers,                \
                                                         .own = &suite##_task};

CALLS(arc, false, tm__mcq_acc_norm)
CALLS(openbookqa, false, tm__mcq_acc_norm)
CALLS(hellaswag, true, tm__mcq_acc_norm)
CALLS(piqa, true, tm__mcq_acc_norm)
CALLS(winogrande, true, tm__mcq_acc)
CALLS(boolq, true, tm__mcq_acc)

const tm_suite tm__suite_arc_easy = {
    .name = "arc_easy",
    .measures = "school science questions, the easy set",
    .layout = SCIENCE_LAYOUT("question"),
    .folders = "arc_easy|ARC-Easy|ai2_arc/ARC-Easy|ARC-V1-Feb2018-2/ARC-Easy|commonsense/ARC-Easy",
    .files = "test.jsonl|ARC-Easy-Test.jsonl|test.json",
    .shot_file = "train.jsonl|ARC-Easy-Train.jsonl|train.json",
    .numbers = "acc, acc_norm",
    .compare = HARNESS "; leaderboards use 0 or 25 examples and acc_norm",
    .calls = &arc_calls,
};

const tm_suite tm__suite_arc_challenge = {
    .name = "arc_challenge",
    .measures = "school science questions, the hard set",
    .layout = SCIENCE_LAYOUT("question"),
    .folders = "arc_challenge|ARC-Challenge|ai2_arc/ARC-Challenge|ARC-V1-Feb2018-2/ARC-Challenge|"
               "commonsense/ARC-Challenge",
    .files = "test.jsonl|ARC-Challenge-Test.jsonl|test.json",
    .shot_file = "train.jsonl|ARC-Challenge-Train.jsonl|train.json",
    .numbers = "acc, acc_norm",
    .compare = HARNESS "; leaderboards use 25 examples and acc_norm",
    .calls = &arc_calls,
};

const tm_suite tm__suite_openbookqa = {
    .name = "openbookqa",
    .measures = "elementary science with a fact to be known",
    .layout = SCIENCE_LAYOUT("question_stem"),
    .folders = "openbookqa|OpenBookQA-V1-Sep2018/Data/Main|commonsense/openbookqa",
    .files = "test.jsonl|test.json",
    .shot_file = "train.jsonl|train.json",
    .numbers = "acc, acc_norm",
    .compare = HARNESS "; papers mostly give acc_norm, 0 examples",
    .calls = &openbookqa_calls,
};

const tm_suite tm__suite_hellaswag = {
    .name = "hellaswag",
    .measures = "which ending a described scene has",
    .layout = "activity_label, ctx_a, ctx_b, endings, label",
    .folders = "hellaswag",
    .files = "validation.jsonl|val.jsonl|hellaswag_val.jsonl",
    .shot_file = "train.jsonl|hellaswag_train.jsonl",
    .numbers = "acc, acc_norm",
    .compare = HARNESS "; leaderboards use 10 examples and acc_norm",
    .calls = &hellaswag_calls,
};

const tm_suite tm__suite_piqa = {
    .name = "piqa",
    .measures = "which of two ways of doing something works",
    .layout = "goal, sol1, sol2, label; or without label and FILE-labels.lst beside the file",
    .folders = "piqa",
    .files = "validation.jsonl|valid.jsonl|val.jsonl",
    .shot_file = "train.jsonl",
    .numbers = "acc, acc_norm",
    .compare = HARNESS "; papers mostly give acc, 0 examples",
    .calls = &piqa_calls,
};

const tm_suite tm__suite_winogrande = {
    .name = "winogrande",
    .measures = "whom or what a pronoun-like blank means, by the likelihood of what follows",
    .layout = "sentence with _, option1, option2, answer (1 or 2)",
    .folders = "winogrande|winogrande_xl|winogrande_1.1",
    .files = "validation.jsonl|dev.jsonl|val.jsonl",
    .shot_file = "train.jsonl|train_xl.jsonl",
    .numbers = "acc",
    .compare = HARNESS "; leaderboards use 5 examples",
    .calls = &winogrande_calls,
};

const tm_suite tm__suite_boolq = {
    .name = "boolq",
    .measures = "yes or no, after a passage",
    .layout = "passage, question, label 0 or 1 (SuperGLUE) or answer true or false (as published); instruction, answer "
              "(flattened, without passage: not comparable)",
    .folders = "boolq|BoolQ|super_glue/boolq|commonsense/boolq",
    .files = "validation.jsonl|val.jsonl|dev.jsonl|test.json",
    .shot_file = "train.jsonl|train.json",
    .numbers = "acc",
    .compare = HARNESS ", SuperGLUE's validation set",
    .calls = &boolq_calls,
};
