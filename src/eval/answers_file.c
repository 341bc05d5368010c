/* answers_file.c: answers that are there already, to be judged: an evaluation's JSON, or rows of prompt and answer.
 *
 * Rows are read as all rows are (JSON Lines, a JSON array, CSV, TSV). Which columns hold prompt and answer is what the
 * first row has of the names that tools use, so that outputs of HarmBench, JailbreakBench, AlpacaEval and others are
 * read as they are: the behaviour goes before the prompt that was made of it, which is what judges are to see.
 * Tests: tests/unit/test_judging.c, tests/cli/cases/judge.sh.
 */
#include "eval/suite.h"

#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

const tm_option tm_answers_option_table[] = {
    {"prompt-column", TM_OPTION_TEXT, offsetof(tm_answers_options, prompt), NULL, 1, 0, NULL, "NAME",
     "column of rows that holds what was asked; default: the first of goal, behavior, Behavior, forbidden_prompt, "
     "prompt, instruction, question that the first row has"},
    {"answer-column", TM_OPTION_TEXT, offsetof(tm_answers_options, answer), NULL, 1, 0, NULL, "NAME",
     "column that holds the answer; default: response, generation, output, completion or answer"},
    {"context-column", TM_OPTION_TEXT, offsetof(tm_answers_options, context), NULL, 1, 0, NULL, "NAME",
     "column of the text that a prompt is about; default: context or ContextString, where there is one"},
    {"category-column", TM_OPTION_TEXT, offsetof(tm_answers_options, category), NULL, 1, 0, NULL, "NAME",
     "column that names the prompt's group; default: category, where there is one"},
    {"limit", TM_OPTION_INT, offsetof(tm_answers_options, limit), "0", 0, 1e9, NULL, "answers",
     "first answers alone; 0: all"},
    {0},
};

static const tm_suite answers = {
    .name = "answers",
    .kind = TM_SUITE_ANSWERS,
    .measures = "answers that were there already",
    .layout = "rows of prompt and answer",
    .folders = "",
    .numbers = "coherent, empty, and each judge's",
    .compare = "what the judges compare with, where prompts and answers were made as there",
    .judged = true,
    .calls = &tm__calls_prompts,
};

/* ---- rows -------------------------------------------------------------------------------------------------------- */

typedef struct columns {
    const char *prompt, *answer, *context, *category;
} columns;

/* The column that was named, else the first that the first row has. */
static tm_status choose_column(const tm__rows *rows, const char *named, const char *const *usual, const char *what,
                               const char *option, const char **column) {
    char hint[96];
    *column = named ? named : tm__rows_which(rows, 0, usual);
    if (*column && tm__rows_have(rows, 0, *column)) return TM_OK;
    if (*column) return tm__rows_value(rows, 0, *column, &(const json_t *){NULL});
    snprintf(hint, sizeof hint, "name it with --%s", option);
    const char *first = NULL, *key;
    json_t *value;
    json_object_foreach((json_t *)tm__rows_at(rows, 0), key, value) if (!first) first = key;
    return tm__fail(TM_FORMAT, rows->path, "row 1", hint, "no column that holds the %s; the first is '%.60s'", what,
                    first ? first : "");
}

static tm_status choose_columns(tm_evaluation *e, const tm__rows *rows, const tm_answers_options *options,
                                columns *chosen) {
    static const char *const prompts[] = {"goal",   "behavior",    "Behavior", "forbidden_prompt",
                                          "prompt", "instruction", "question", NULL};
    static const char *const said[] = {"response", "generation", "output", "completion", "answer", NULL};
    static const char *const contexts[] = {"context", "ContextString", NULL};
    static const char *const categories[] = {"category", NULL};
    TM__TRY(choose_column(rows, options->prompt, prompts, "prompt", "prompt-column", &chosen->prompt));
    TM__TRY(choose_column(rows, options->answer, said, "answer", "answer-column", &chosen->answer));
    chosen->context = options->context ? options->context : tm__rows_which(rows, 0, contexts);
    chosen->category = options->category ? options->category : tm__rows_which(rows, 0, categories);
    e->layout = tm__keep(e, "%s, %s%s%s%s%s", chosen->prompt, chosen->answer, chosen->context ? ", " : "",
                         chosen->context ? chosen->context : "", chosen->category ? ", " : "",
                         chosen->category ? chosen->category : "");
    return e->layout ? TM_OK : tm__fail_memory();
}

/* The last item's answer and what it is about. */
static tm_status set_answer(tm_evaluation *e, const char *answer, const char *context) {
    tm__item *item = &e->items[e->count - 1];
    item->answer = tm__keep(e, "%s", answer);
    item->context = context && *context ? tm__keep(e, "%s", context) : NULL;
    return item->answer && (item->context || !context || !*context) ? TM_OK : tm__fail_memory();
}

/* Whether the prompt should be answered; tables have words for it. */
static tm_status read_benign(const tm__rows *rows, size_t row, bool *benign) {
    static const char *const words[] = {"false", "0", "", "true", "1"};
    enum { FIRST_TRUE = 3 };
    const json_t *value = json_object_get(tm__rows_at(rows, row), "benign");
    const char *text;
    *benign = json_is_true(value);
    if (!value || json_is_boolean(value) || json_is_null(value)) return TM_OK;
    TM__TRY(tm__rows_text(rows, row, "benign", &text));
    for (size_t i = 0; i < TM__COUNT(words); i++)
        if (strcasecmp(text, words[i]) == 0) {
            *benign = i >= FIRST_TRUE;
            return TM_OK;
        }
    return tm__rows_fail(rows, row, "benign", "'%.40s' is neither true nor false", text);
}

static tm_status add_row(tm_evaluation *e, const tm__rows *rows, size_t row, const columns *c,
                         const tm_answers_options *named) {
    const char *prompt, *answer, *context = NULL;
    const json_t *there;
    TM__TRY(tm__rows_text(rows, row, c->prompt, &prompt));
    TM__TRY(tm__rows_text(rows, row, c->answer, &answer));
    if (named->context) TM__TRY(tm__rows_text(rows, row, c->context, &context));
    if (named->category) TM__TRY(tm__rows_value(rows, row, c->category, &there));
    if (!context && c->context) context = tm__rows_optional(rows, row, c->context);
    const char *input = strcmp(c->prompt, "instruction") == 0 ? tm__rows_optional(rows, row, "input") : NULL;
    const tm_message messages[] = {{"user", prompt}, {input && *input ? "input" : NULL, input}, {0}};
    TM__TRY(tm__item_ask(e, row, NULL, messages));
    TM__TRY(set_answer(e, answer, context));
    TM__TRY(read_benign(rows, row, &e->items[e->count - 1].benign));
    return c->category ? tm__item_group(e, tm__rows_optional(rows, row, c->category)) : TM_OK;
}

static tm_status read_rows(tm_evaluation *e, const tm_answers_options *options) {
    columns chosen;
    tm__rows rows;
    TM__TRY(tm__rows_read(e->path, NULL, &rows));
    tm_status status = choose_columns(e, &rows, options, &chosen);
    for (size_t i = 0; status == TM_OK && i < rows.count && !tm__item_enough(e, (int64_t)i); i++)
        status = add_row(e, &rows, i, &chosen, options);
    tm__rows_free(&rows);
    return status;
}

/* ---- an evaluation's JSON ---------------------------------------------------------------------------------------- */

static tm_status fail_item(const tm_evaluation *e, size_t index, const char *what, const char *message) {
    char field[64];
    snprintf(field, sizeof field, "items[%zu].%s", index, what);
    return tm__fail(TM_FORMAT, e->path, field, NULL, "%s", message);
}

static tm_status take_messages(tm_evaluation *e, size_t index, const json_t *list) {
    size_t n = json_array_size(list);
    tm_message *messages = tm__zalloc(n + 1, sizeof *messages);
    if (!messages) return tm__fail_memory();
    tm_status status = n ? TM_OK : fail_item(e, index, "prompt", "is no list of messages");
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        const json_t *one = json_array_get(list, i);
        messages[i].role = json_string_value(json_object_get(one, "role"));
        messages[i].content = json_string_value(json_object_get(one, "content"));
        if (!messages[i].role || !messages[i].content)
            status = fail_item(e, index, "prompt", "holds a message without role or content");
    }
    if (status == TM_OK) status = tm__item_ask(e, index, NULL, messages);
    free(messages);
    return status;
}

static tm_status take_groups(tm_evaluation *e, const json_t *value) {
    const json_t *groups = json_object_get(value, "groups"), *one;
    size_t i;
    TM__TRY(tm__item_group(e, json_string_value(json_object_get(value, "group"))));
    json_array_foreach(groups, i, one) TM__TRY(tm__item_group(e, json_string_value(one)));
    return TM_OK;
}

static tm_status take_item(tm_evaluation *e, size_t index, const json_t *value) {
    const char *answer = json_string_value(json_object_get(value, "answer"));
    const char *subject = json_string_value(json_object_get(value, "subject"));
    if (!answer) return fail_item(e, index, "answer", "is missing: this suite's answers are not written out");
    TM__TRY(take_messages(e, index, json_object_get(value, "prompt")));
    TM__TRY(set_answer(e, answer, json_string_value(json_object_get(value, "context"))));
    tm__item *item = &e->items[e->count - 1];
    if (json_is_integer(json_object_get(value, "row")))
        item->row = (int64_t)json_integer_value(json_object_get(value, "row"));
    item->benign = json_is_true(json_object_get(value, "benign"));
    item->subject = subject ? tm__keep(e, "%s", subject) : NULL;
    return subject && !item->subject ? tm__fail_memory() : take_groups(e, value);
}

/* The suite under the name that its result has. */
static tm_status name_suite(tm_evaluation *e) {
    const char *name = json_string_value(json_object_get(e->source, "suite"));
    const char *hash = json_string_value(json_object_get(e->source, "asked_sha256"));
    tm_suite *suite = tm__arena_alloc(&e->arena, 1, sizeof *suite);
    if (!suite) return tm__fail_memory();
    *suite = answers;
    suite->name = name ? tm__keep(e, "%s", name) : answers.name;
    e->suite = suite;
    e->layout = "an evaluation of temper";
    if (hash && strlen(hash) == 64) memcpy(e->asked_hash, hash, 65);
    return suite->name ? TM_OK : tm__fail_memory();
}

static tm_status read_evaluation(tm_evaluation *e) {
    const json_t *items = json_object_get(e->source, "items"), *one;
    size_t i;
    TM__TRY(name_suite(e));
    json_array_foreach(items, i, one) {
        if (tm__item_enough(e, (int64_t)i)) break;
        TM__TRY(take_item(e, i, one));
    }
    return TM_OK;
}

/* The file as an evaluation's JSON; NULL: it is something else. */
static tm_status find_evaluation(const char *path, json_t **source) {
    char *text;
    size_t len;
    *source = NULL;
    TM__TRY(tm__file_read(path, 0, &text, &len));
    json_t *value = NULL;
    size_t first = strspn(text, "\xef\xbb\xbf \t\r\n"); /* a byte order mark too */
    tm_status status = text[first] == '{' ? tm__json_parse(text + first, len - first, path, &value) : TM_OK;
    free(text);
    if (status == TM_NO_MEMORY) return status;
    if (status == TM_OK && json_is_array(json_object_get(value, "items")) &&
        json_is_string(json_object_get(value, "suite")))
        *source = value;
    else
        json_decref(value);
    return TM_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static tm_status read_answers(tm_evaluation *e, const char *path, const tm_answers_options *options) {
    e->path = tm__strdup(path);
    if (!e->path) return tm__fail_memory();
    if (tm__path_is_directory(path)) return tm__fail(TM_INVALID, path, NULL, "name the file", "is a directory");
    TM__TRY(tm__place_hash(path, e->data_hash));
    size_t len = strlen(path);
    bool table = len > 4 && (strcmp(path + len - 4, ".csv") == 0 || strcmp(path + len - 4, ".tsv") == 0);
    if (!table) TM__TRY(find_evaluation(path, &e->source));
    TM__TRY(e->source ? read_evaluation(e) : read_rows(e, options));
    if (e->count == 0) return tm__fail(TM_FORMAT, path, NULL, NULL, "holds no answers");
    for (size_t i = 0; i < e->count; i++) TM__TRY(e->suite->calls->score(e, &e->items[i]));
    return tm__numbers_make(e);
}

tm_status tm_evaluation_open_answers(const char *path, const tm_answers_options *options, tm_evaluation **evaluation) {
    static const tm_answers_options usual = {0};
    tm_evaluation *e = tm__zalloc(1, sizeof *e);
    if (!e) return tm__fail_memory();
    if (!options) options = &usual;
    tm__json_watch();
    e->suite = &answers;
    e->options.limit = options->limit;
    tm_status status = read_answers(e, path, options);
    if (status != TM_OK) {
        tm_evaluation_free(e);
        return status;
    }
    e->asked = true;
    *evaluation = e;
    return TM_OK;
}
