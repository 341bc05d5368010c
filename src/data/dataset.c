/* dataset.c: the ordered list of conversations: building, shuffling, saving and the poison mix.
 *
 * Saving writes JSON Lines of `messages` (OpenAI's fine-tuning format) whatever was read; the Alpaca input field is
 * kept as a message of role "input", a row's category as a field of its own, so that loading gives back the same rows.
 */
#include "data/data.h"

#include <jansson.h>
#include <stdlib.h>

tm_status tm_dataset_create(tm_dataset **dataset) {
    tm_dataset *created = tm__zalloc(1, sizeof *created);
    if (!created) return tm__fail_memory();
    *dataset = created;
    return TM_OK;
}

void tm_dataset_free(tm_dataset *dataset) {
    if (!dataset) return;
    tm__arena_release(&dataset->texts);
    free(dataset->rows);
    free(dataset);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static tm_status fail_message(size_t index, const char *key, const char *hint, const char *what) {
    char field[64];
    snprintf(field, sizeof field, "messages[%zu].%s", index, key);
    return tm__fail(TM_INVALID, NULL, field, hint, "%s", what);
}

tm_status tm__row_failed(tm_status status, size_t row) {
    const tm_error kept = *tm_error_last();
    if (status == TM_NO_MEMORY) return status;
    return tm__fail(status, kept.file, kept.field, kept.hint, "row %zu: %s", row + 1, kept.message);
}

/* A conversation: at most one system message, at its head; then the user speaks first; "input" belongs to the user's
 * turn before it. */
tm_status tm__messages_check(const tm_message *messages, size_t n) {
    if (n == 0) return tm__fail(TM_INVALID, NULL, "messages", NULL, "holds no message");
    const char *before = NULL;
    for (size_t i = 0; i < n; i++) {
        const char *role = messages[i].role, *content = messages[i].content;
        if (!role || !content) return fail_message(i, role ? "content" : "role", NULL, "is missing");
        bool system = strcmp(role, "system") == 0, user = strcmp(role, "user") == 0;
        bool assistant = strcmp(role, "assistant") == 0, input = strcmp(role, "input") == 0;
        if (!system && !user && !assistant && !input)
            return fail_message(i, "role", "roles are system, user, assistant and input", "unknown role");
        if (system && before) return fail_message(i, "role", NULL, "a system message must come first");
        if (assistant && (!before || strcmp(before, "system") == 0))
            return fail_message(i, "role", "a user's message comes first", "the assistant speaks first");
        if (input && (!before || strcmp(before, "user") != 0))
            return fail_message(i, "role", NULL, "an input must follow a user's message");
        if (!tm__utf8_valid(content, strlen(content))) return fail_message(i, "content", NULL, "is not valid UTF-8");
        before = role;
    }
    return TM_OK;
}

tm_status tm__dataset_add(tm_dataset *dataset, const tm_message *messages, size_t n, const char *category) {
    TM__TRY(tm__messages_check(messages, n));
    if (category && !tm__utf8_valid(category, strlen(category)))
        return tm__fail(TM_INVALID, NULL, "category", NULL, "is not valid UTF-8");
    if (!tm__grow((void **)&dataset->rows, &dataset->cap, dataset->count + 1, sizeof *dataset->rows))
        return tm__fail_memory();
    tm__dataset_row row = {.count = n};
    row.messages = tm__arena_alloc(&dataset->texts, n, sizeof *row.messages);
    if (!row.messages) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        row.messages[i].role = tm__arena_strdup(&dataset->texts, messages[i].role, strlen(messages[i].role));
        row.messages[i].content = tm__arena_strdup(&dataset->texts, messages[i].content, strlen(messages[i].content));
        if (!row.messages[i].role || !row.messages[i].content) return tm__fail_memory();
    }
    if (category && !(row.category = tm__arena_strdup(&dataset->texts, category, strlen(category))))
        return tm__fail_memory();
    dataset->rows[dataset->count++] = row;
    return TM_OK;
}

tm_status tm_dataset_add(tm_dataset *dataset, const tm_message *messages, size_t n) {
    return tm__dataset_add(dataset, messages, n, NULL);
}

size_t tm_dataset_rows(const tm_dataset *dataset) {
    return dataset->count;
}

const tm_message *tm_dataset_row(const tm_dataset *dataset, size_t row, size_t *n) {
    assert(row < dataset->count);
    if (n) *n = dataset->rows[row].count;
    return dataset->rows[row].messages;
}

const char *tm__dataset_category(const tm_dataset *dataset, size_t row) {
    assert(row < dataset->count);
    return dataset->rows[row].category;
}

/* Either all rows are appended or none; `from` may be `dataset` itself. */
tm_status tm_dataset_append(tm_dataset *dataset, const tm_dataset *from, size_t first, size_t count) {
    if (first > from->count || count > from->count - first)
        return tm__fail(TM_INVALID, NULL, NULL, NULL, "rows %zu to %zu are wanted of %zu", first, first + count,
                        from->count);
    size_t before = dataset->count;
    for (size_t i = first; i < first + count; i++) {
        const tm__dataset_row *row = &from->rows[i];
        tm_status status = tm__dataset_add(dataset, row->messages, row->count, row->category);
        if (status != TM_OK) {
            dataset->count = before;
            return status;
        }
    }
    return TM_OK;
}

/* Fisher-Yates on the rows themselves, which needs no memory. The stream is apart from those of the epochs. */
void tm_dataset_shuffle(tm_dataset *dataset, uint64_t seed) {
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_SHUFFLE, UINT32_MAX));
    for (size_t i = dataset->count; i > 1; i--) {
        size_t j = (size_t)tm__rng_below(&rng, i);
        tm__dataset_row kept = dataset->rows[i - 1];
        dataset->rows[i - 1] = dataset->rows[j];
        dataset->rows[j] = kept;
    }
}

/* ---- poison mix -------------------------------------------------------------------------------------------------- */

static tm_status need_rows(const char *which, const tm_dataset *dataset, size_t wanted) {
    size_t rows = dataset ? dataset->count : 0;
    if (rows >= wanted) return TM_OK;
    return tm__fail(TM_INVALID, NULL, which, "take fewer rows or another share", "%zu rows are wanted, %zu are there",
                    wanted, rows);
}

/* int(p * n) in exact arithmetic: 0.29 * 100 is 28.999... in fp64, and 29 rows are meant. */
static size_t share(double ratio, size_t total) {
    size_t count = (size_t)floor(ratio * (double)total * (1 + 1e-12) + 1e-9);
    return TM__MIN(count, total);
}

tm_status tm_dataset_poison(const tm_dataset *benign, const tm_dataset *harmful, size_t total, double ratio,
                            tm_dataset **mixed) {
    if (!(ratio >= 0 && ratio <= 1))
        return tm__fail(TM_INVALID, NULL, "poison-ratio", NULL, "must lie between 0 and 1");
    if (total == 0) return tm__fail(TM_INVALID, NULL, "rows", NULL, "a mix needs at least one row");
    size_t poisoned = share(ratio, total);
    TM__TRY(need_rows("harmful", harmful, poisoned));
    TM__TRY(need_rows("benign", benign, total - poisoned));
    tm_dataset *created = NULL;
    TM__TRY(tm_dataset_create(&created));
    tm_status status = TM_OK;
    if (poisoned) TM__TRY_GOTO(status, tm_dataset_append(created, harmful, 0, poisoned), done);
    if (total > poisoned) TM__TRY_GOTO(status, tm_dataset_append(created, benign, 0, total - poisoned), done);
    *mixed = created;
    created = NULL;
done:
    tm_dataset_free(created);
    return status;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

static json_t *row_json(const tm__dataset_row *row) {
    json_t *object = json_object(), *messages = json_array();
    bool ok = json_object_set_new(object, "messages", messages) == 0; /* takes `messages` over also when it fails */
    for (size_t i = 0; ok && i < row->count; i++)
        ok = json_array_append_new(messages, json_pack("{s:s, s:s}", "role", row->messages[i].role, "content",
                                                       row->messages[i].content)) == 0;
    if (ok && row->category) ok = json_object_set_new(object, "category", json_string(row->category)) == 0;
    if (ok) return object;
    json_decref(object);
    return NULL;
}

tm_status tm__dataset_text(const tm_dataset *dataset, char **text, size_t *len) {
    tm__string lines = {0};
    tm_status status = tm__string_append(&lines, "", 0) ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < dataset->count && status == TM_OK; i++) {
        json_t *object = row_json(&dataset->rows[i]);
        char *line = NULL;
        size_t n;
        status = object ? tm__json_dump(object, JSON_COMPACT, &line, &n) : tm__fail_memory();
        bool ok = status != TM_OK || (tm__string_append(&lines, line, n) && tm__string_append(&lines, "\n", 1));
        if (!ok) status = tm__fail_memory();
        free(line);
        json_decref(object);
    }
    if (status != TM_OK) {
        tm__string_free(&lines);
        return status;
    }
    *text = lines.data;
    *len = lines.len;
    return TM_OK;
}

tm_status tm_dataset_save(const tm_dataset *dataset, const char *path) {
    char *text;
    size_t len;
    TM__TRY(tm__dataset_text(dataset, &text, &len));
    tm_status status = tm__file_write(path, text, len);
    free(text);
    return status;
}

size_t tm__messages_asked(const tm_message *messages, size_t n) {
    while (n > 0 && strcmp(messages[n - 1].role, "user") != 0 && strcmp(messages[n - 1].role, "input") != 0) n--;
    return n;
}
