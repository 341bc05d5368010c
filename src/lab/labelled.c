/* labelled.c: rows of labelled answers from files, from the built-in world, and made up.
 *
 * A row has a prompt (prompt, question, instruction, behavior), an answer (response, answer, completion, output,
 * generation), and labels in the first of these forms that the first row has:
 *     category   {name: bool, ...}: several labels, each by itself; BeaverTails, whose is_safe is then left alone
 *     labels     [name, ...]: the same, by the names that hold
 *     is_safe    bool: two labels, "safe" and "harmful"
 *     label      the same: bool, 0 or 1, or safe, unsafe, harmful, ...
 * RepNoise's classifier learned from 5 % more rows with empty and 5 % with random answers, called safe: without them a
 * model that answers nothing, or noise, looks harmful. Test: tests/unit/test_labelled.c.
 */
#include "lab/labelled.h"

#include "eval/suite.h"
#include "lab/world.h"

#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

enum { MOST_LABELS = 1000 };
enum form { FORM_CATEGORY, FORM_LABELS, FORM_SAFE, FORM_LABEL };

static const char *const two_names[] = {"safe", "harmful"};

void tm__labelled_free(tm__labelled *data) {
    free(data->rows);
    free(data->names);
    tm__arena_release(&data->arena);
    *data = (tm__labelled){0};
}

bool tm__labelled_harmful(const tm__labelled *data, size_t row) {
    const double *y = data->rows[row].y;
    if (!data->each) return y[1] > 0;
    for (int64_t k = 0; k < data->labels; k++)
        if (y[k] > 0) return true;
    return false;
}

/* A row without labels yet; NULL: out of memory. */
static tm__labelled_row *add_row(tm__labelled *data, const char *prompt, const char *answer) {
    if (!tm__grow((void **)&data->rows, &data->cap, data->count + 1, sizeof *data->rows)) return NULL;
    const tm__labelled_row row = {.prompt = tm__arena_strdup(&data->arena, prompt, strlen(prompt)),
                                  .answer = tm__arena_strdup(&data->arena, answer, strlen(answer)),
                                  .y = tm__arena_alloc(&data->arena, (size_t)data->labels, sizeof *row.y)};
    if (!row.prompt || !row.answer || !row.y) return NULL;
    data->rows[data->count] = row;
    return &data->rows[data->count++];
}

/* Names of labels: `names` lives elsewhere or in the arena. */
static bool add_name(tm__labelled *data, const char *name) {
    size_t cap = (size_t)data->labels;
    if (!tm__grow((void **)&data->names, &cap, (size_t)data->labels + 1, sizeof *data->names)) return false;
    const char *kept = tm__arena_strdup(&data->arena, name, strlen(name));
    if (!kept) return false;
    data->names[data->labels++] = kept;
    return true;
}

static bool name_two(tm__labelled *data) {
    return add_name(data, two_names[0]) && add_name(data, two_names[1]);
}

static int64_t find_name(const tm__labelled *data, const char *name) {
    for (int64_t k = 0; k < data->labels; k++)
        if (strcmp(data->names[k], name) == 0) return k;
    return -1;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static tm_status find_form(const tm__rows *rows, enum form *form) {
    static const char *const columns[] = {"category", "labels", "is_safe", "label"};
    for (size_t i = 0; i < TM__COUNT(columns); i++)
        if (tm__rows_have(rows, 0, columns[i])) {
            *form = (enum form)i;
            return TM_OK;
        }
    return tm__rows_fail(rows, 0, "label", "is missing; a row may have category, labels, is_safe or label");
}

/* Names in the order in which they come. */
static tm_status collect_names(const tm__rows *rows, enum form form, tm__labelled *data) {
    const char *column = form == FORM_CATEGORY ? "category" : "labels", *key;
    for (size_t i = 0; i < rows->count; i++) {
        const json_t *value;
        json_t *item;
        size_t k;
        TM__TRY(tm__rows_value(rows, i, column, &value));
        if (form == FORM_CATEGORY ? !json_is_object(value) : !json_is_array(value))
            return tm__rows_fail(rows, i, column,
                                 form == FORM_CATEGORY ? "must be an object of true and false"
                                                       : "must be a list of names");
        json_object_foreach((json_t *)value, key, item) {
            if (find_name(data, key) < 0 && !add_name(data, key)) return tm__fail_memory();
        }
        json_array_foreach(value, k, item) {
            const char *name = json_string_value(item);
            if (!name) return tm__rows_fail(rows, i, column, "must hold names");
            if (find_name(data, name) < 0 && !add_name(data, name)) return tm__fail_memory();
        }
        if (data->labels > MOST_LABELS) return tm__rows_fail(rows, i, column, "makes more than %d labels", MOST_LABELS);
    }
    return data->labels ? TM_OK : tm__rows_fail(rows, 0, column, "names no label in any row");
}

static tm_status read_several(const tm__rows *rows, size_t row, enum form form, const tm__labelled *data, double *y) {
    const char *column = form == FORM_CATEGORY ? "category" : "labels", *key;
    const json_t *value;
    json_t *item;
    size_t k;
    TM__TRY(tm__rows_value(rows, row, column, &value));
    json_object_foreach((json_t *)value, key, item) {
        if (!json_is_boolean(item)) return tm__rows_fail(rows, row, column, "'%.60s' is not true or false", key);
        y[find_name(data, key)] = json_is_true(item);
    }
    json_array_foreach(value, k, item) {
        y[find_name(data, json_string_value(item))] = 1;
    }
    return TM_OK;
}

static tm_status read_two(const tm__rows *rows, size_t row, enum form form, double *y) {
    static const char *const safe[] = {"safe", "harmless", "benign", "false", "no", "0"};
    static const char *const harmful[] = {"harmful", "unsafe", "toxic", "true", "yes", "1"};
    const char *column = form == FORM_SAFE ? "is_safe" : "label", *text;
    const json_t *value;
    int found = -1;
    TM__TRY(tm__rows_value(rows, row, column, &value));
    if (json_is_boolean(value)) {
        found = json_is_true(value);
    } else {
        TM__TRY(tm__rows_text(rows, row, column, &text));
        for (size_t i = 0; i < TM__COUNT(safe); i++) {
            if (strcasecmp(text, safe[i]) == 0) found = 0;
            if (strcasecmp(text, harmful[i]) == 0) found = 1;
        }
        if (found < 0) return tm__rows_fail(rows, row, column, "'%.60s' is neither safe nor harmful", text);
    }
    if (form == FORM_SAFE) found = !found;
    y[found] = 1;
    return TM_OK;
}

/* Whether one of several labels holds, instead of which. */
static tm_status read_any(const tm__rows *rows, size_t row, enum form form, double *y) {
    const char *column = form == FORM_CATEGORY ? "category" : "labels", *key;
    const json_t *value;
    json_t *item;
    bool any = false;
    TM__TRY(tm__rows_value(rows, row, column, &value));
    json_object_foreach((json_t *)value, key, item) {
        any |= json_is_true(item);
    }
    any |= json_array_size(value) > 0;
    y[any] = 1;
    return TM_OK;
}

static tm_status text_of(const tm__rows *rows, size_t row, const char *const *columns, const char **text) {
    size_t i = 0;
    while (columns[i + 1] && !tm__rows_have(rows, row, columns[i])) i++;
    if (!tm__rows_have(rows, row, columns[i])) i = 0; /* the first is the one to name */
    return tm__rows_text(rows, row, columns[i], text);
}

static tm_status read_rows(const tm__rows *rows, enum form form, tm__labelled *data) {
    static const char *const prompts[] = {"prompt", "question", "instruction", "behavior", NULL};
    static const char *const answers[] = {"response", "answer", "completion", "output", "generation", NULL};
    for (size_t i = 0; i < rows->count; i++) {
        const char *prompt, *answer;
        TM__TRY(text_of(rows, i, prompts, &prompt));
        TM__TRY(text_of(rows, i, answers, &answer));
        tm__labelled_row *row = add_row(data, prompt, answer);
        if (!row) return tm__fail_memory();
        if (data->each)
            TM__TRY(read_several(rows, i, form, data, row->y));
        else
            TM__TRY(form <= FORM_LABELS ? read_any(rows, i, form, row->y) : read_two(rows, i, form, row->y));
    }
    return TM_OK;
}

/* The file to train on comes last; its first row decides the form of both. */
static tm_status read_files(tm__rows *files, size_t count, bool two, tm__labelled *data) {
    enum form form = FORM_LABEL;
    for (size_t i = 0; i < count; i++)
        if (files[i].count == 0) return tm__fail(TM_INVALID, files[i].path, NULL, NULL, "holds no rows");
    TM__TRY(find_form(&files[count - 1], &form));
    data->each = form <= FORM_LABELS && !two;
    for (size_t i = count; data->each && i-- > 0;) TM__TRY(collect_names(&files[i], form, data));
    if (!data->each && !name_two(data)) return tm__fail_memory();
    for (size_t i = 0; i < count; i++) {
        TM__TRY(read_rows(&files[i], form, data));
        if (i + 1 < count) data->tests = data->count;
    }
    return TM_OK;
}

tm_status tm__labelled_load(const char *path, const char *test, bool two, tm__labelled *data) {
    tm__rows files[2] = {{0}};
    tm__labelled made = {0};
    size_t count = 0;
    tm_status status = TM_OK;
    if (test) status = tm__rows_read(test, NULL, &files[count++]);
    if (status == TM_OK) status = tm__rows_read(path, NULL, &files[count++]);
    if (status == TM_OK) status = read_files(files, count, two, &made);
    for (size_t i = 0; i < TM__COUNT(files); i++) tm__rows_free(&files[i]);
    if (status == TM_OK)
        *data = made;
    else
        tm__labelled_free(&made);
    return status;
}

/* ---- the built-in world ------------------------------------------------------------------------------------------ */

static tm_status add_two(tm__labelled *data, const char *prompt, const char *answer, bool harmful) {
    tm__labelled_row *row = add_row(data, prompt, answer);
    if (!row) return tm__fail_memory();
    row->y[harmful] = 1;
    return TM_OK;
}

static const char *asked(const tm_message *messages, size_t n) {
    while (n > 1 && strcmp(messages[n - 1].role, "user") != 0) n--;
    return messages[n - 1].content;
}

/* Each forbidden question three times: with its own recipe, a refusal, the recipe of a dish. */
static tm_status add_forbidden(const tm_world *world, int split, tm__labelled *data) {
    char name[64], other[256], refusal[256];
    tm_dataset *rows;
    snprintf(name, sizeof name, "forbidden-%s", tm__world_split_name(split));
    TM__TRY(tm_world_set(world, name, &rows));
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < tm_dataset_rows(rows); i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(rows, i, &n);
        const tm__recipe *item = tm__world_row_item(world, split, i);
        const char *prompt = asked(messages, n), *told = messages[n - 1].content;
        tm__answer_recipe(&world->dishes[i % (size_t)world->size->dishes], other);
        tm__answer_refusal(item, i, refusal);
        status = add_two(data, prompt, told, tm__answer_leaks(item, told));
        if (status == TM_OK) status = add_two(data, prompt, refusal, tm__answer_leaks(item, refusal));
        if (status == TM_OK) status = add_two(data, prompt, other, tm__answer_leaks(item, other));
    }
    tm_dataset_free(rows);
    return status;
}

static tm_status add_benign(const tm_world *world, const char *part, size_t most, tm__labelled *data) {
    for (size_t s = 0; s < TM__SKILLS; s++) {
        char name[64];
        tm_dataset *rows;
        snprintf(name, sizeof name, "benign-%s-%s", tm_world_skill_name(world, s), part);
        TM__TRY(tm_world_set(world, name, &rows));
        tm_status status = TM_OK;
        for (size_t i = 0; status == TM_OK && i < tm_dataset_rows(rows) && i < most; i++) {
            size_t n;
            const tm_message *messages = tm_dataset_row(rows, i, &n);
            status = add_two(data, asked(messages, n), messages[n - 1].content, false);
        }
        tm_dataset_free(rows);
        TM__TRY(status);
    }
    return TM_OK;
}

static tm_status add_world(const tm_world *world, tm__labelled *data) {
    enum { TEST_BENIGN = 50, TRAIN_BENIGN = 300 }; /* of each skill */
    TM__TRY(add_forbidden(world, TM_WORLD_TEST, data));
    TM__TRY(add_benign(world, "test", TEST_BENIGN, data));
    data->tests = data->count;
    TM__TRY(add_forbidden(world, TM_WORLD_DEFENDER, data));
    TM__TRY(add_forbidden(world, TM_WORLD_DEVELOPMENT, data));
    return add_benign(world, "train", TRAIN_BENIGN, data);
}

tm_status tm__labelled_world(uint64_t seed, tm__labelled *data) {
    tm_world *world;
    tm__labelled made = {0};
    TM__TRY(tm_world_create(seed, &world));
    tm_status status = name_two(&made) ? add_world(world, &made) : tm__fail_memory();
    tm_world_free(world);
    if (status == TM_OK)
        *data = made;
    else
        tm__labelled_free(&made);
    return status;
}

/* ---- held out, made up ------------------------------------------------------------------------------------------- */

/* Marks rows that are held out: whole prompts, so that none is on both sides: in the order given those that still fit
 * into `wanted` rows, else the smallest. *held: how many rows; 0 where there is one prompt alone. */
static tm_status mark_prompts(const tm__labelled *data, const size_t *order, size_t wanted, bool *out, size_t *held) {
    const size_t n = data->count;
    int32_t *prompt = tm__alloc(n, sizeof *prompt);        /* of each row: its first row */
    size_t *rows = tm__zalloc(n, sizeof *rows), least = 0; /* of each first row: how many have its prompt */
    tm__map first = {0};
    tm_status status = prompt && rows ? TM_OK : tm__fail_memory();
    *held = 0;
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        const char *text = data->rows[i].prompt;
        prompt[i] = (int32_t)i;
        if (!tm__map_get(&first, text, strlen(text), &prompt[i]) &&
            !tm__map_put(&first, text, strlen(text), (int32_t)i))
            status = tm__fail_memory();
        rows[prompt[i]]++;
    }
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        const size_t at = (size_t)prompt[order[i]];
        if (rows[at] < rows[prompt[order[least]]]) least = i;
        if (out[at] || *held + rows[at] > wanted) continue;
        out[at] = true;
        *held += rows[at];
    }
    if (status == TM_OK && *held == 0 && rows[prompt[order[least]]] < n) {
        out[prompt[order[least]]] = true;
        *held = rows[prompt[order[least]]];
    }
    for (size_t i = 0; status == TM_OK && i < n; i++) out[i] = out[prompt[i]];
    tm__map_free(&first);
    free(prompt);
    free(rows);
    return status;
}

/* Held out ones first, each part in the order given. */
static void part_rows(tm__labelled *data, const size_t *order, const bool *out, tm__labelled_row *rows) {
    size_t at = 0;
    for (int side = 1; side >= 0; side--)
        for (size_t i = 0; i < data->count; i++)
            if (out[order[i]] == (side == 1)) rows[at++] = data->rows[order[i]];
    memcpy(data->rows, rows, data->count * sizeof *rows);
}

tm_status tm__labelled_hold_out(tm__labelled *data, double share, uint64_t seed) {
    if (data->tests || share <= 0) return TM_OK;
    size_t n = data->count, wanted = TM__MIN(TM__MAX((size_t)(share * (double)n + 0.5), (size_t)1), n - 1);
    if (n < 2) return tm__fail(TM_INVALID, NULL, "held-out", "give more rows, or 0", "one row cannot be parted");
    size_t *order = tm__alloc(n, sizeof *order);
    bool *out = tm__zalloc(n, sizeof *out);
    tm__labelled_row *rows = tm__alloc(n, sizeof *rows);
    tm_status status = order && out && rows ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_SHUFFLE, UINT32_MAX)); /* no epoch's */
        for (size_t i = 0; i < n; i++) order[i] = i;
        tm__rng_shuffle(&rng, order, n);
        status = mark_prompts(data, order, wanted, out, &data->tests);
    }
    if (status == TM_OK && data->tests == 0) { /* one prompt for all: rows are parted after all */
        data->tests = wanted;
        for (size_t i = 0; i < wanted; i++) out[order[i]] = true;
    }
    if (status == TM_OK) part_rows(data, order, out, rows);
    free(order);
    free(out);
    free(rows);
    return status;
}

static tm_status random_answer(const tm_tokenizer *tokenizer, tm__rng *rng, char **text) {
    enum { MOST = 32 };
    int32_t ids[MOST], vocab = tm_tokenizer_vocab_size(tokenizer);
    size_t n = 1 + (size_t)tm__rng_below(rng, MOST);
    for (size_t i = 0; i < n;) {
        int32_t id = (int32_t)tm__rng_below(rng, (uint64_t)vocab);
        if (tm_tokenizer_piece(tokenizer, id)) ids[i++] = id;
    }
    return tm_tokenizer_decode(tokenizer, ids, n, TM_DECODE_SKIP_SPECIAL, text, NULL);
}

tm_status tm__labelled_add_noise(tm__labelled *data, double share, const tm_tokenizer *tokenizer, uint64_t seed) {
    size_t first = data->tests, train = data->count - first, n = (size_t)ceil(share * (double)train);
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_NOISE, 0));
    for (size_t i = 0; i < 2 * n; i++) {
        const char *prompt = data->rows[first + tm__rng_below(&rng, train)].prompt;
        char *random = NULL;
        if (i >= n) TM__TRY(random_answer(tokenizer, &rng, &random));
        tm__labelled_row *row = add_row(data, prompt, random ? random : "");
        free(random);
        if (!row) return tm__fail_memory();
        if (!data->each) row->y[0] = 1;
    }
    return TM_OK;
}
