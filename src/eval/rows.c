/* rows.c: data of suites as rows of named columns, whatever their file is.
 *
 * .jsonl: an object a line; .json: an array of objects (or lines of them); .csv: RFC 4180 with quotes and line breaks
 * in them; .tsv: columns between tabs as they stand, as GLUE's files are. A byte order mark before any of them is
 * passed over. A column that is missing is an error that names the file, the row, the column and those that are there.
 * Test: tests/unit/test_eval_data.c.
 */
#include "eval/suite.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static tm_status add_object(const char *path, json_t *array, json_t *value, size_t line) {
    if (!json_is_object(value)) {
        json_decref(value);
        return tm__fail(TM_FORMAT, path, "row", NULL, "row %zu is not a JSON object", line);
    }
    return json_array_append_new(array, value) == 0 ? TM_OK : tm__fail_memory();
}

/* The last error, which speaks of one line as if it were the whole, at its place in the file. */
static tm_status at_line(const char *path, size_t line) {
    const tm_error error = *tm_error_last();
    size_t within, column;
    char field[64];
    if (error.status == TM_NO_MEMORY) return error.status;
    if (sscanf(error.field, "line %zu, column %zu", &within, &column) == 2)
        snprintf(field, sizeof field, "line %zu, column %zu", line, column);
    else
        snprintf(field, sizeof field, "line %zu", line);
    return tm__fail(error.status, path, field, error.hint, "%s", error.message);
}

static tm_status read_lines(const char *path, const char *text, size_t len, json_t *array) {
    size_t line = 1;
    for (size_t at = 0; at < len; line++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at, from = at;
        at += n + 1;
        if (tm__py_rstrip(text + from, n) == 0) continue;
        json_t *value;
        tm_status status = tm__json_parse(text + from, n, NULL, &value);
        if (status != TM_OK) return at_line(path, line);
        TM__TRY(add_object(path, array, value, line));
    }
    return TM_OK;
}

static tm_status read_array(const char *path, const char *text, size_t len, json_t *array) {
    json_t *value, *row;
    size_t i;
    TM__TRY(tm__json_parse(text, len, path, &value));
    tm_status status = TM_OK;
    json_array_foreach(value, i, row) {
        if (status == TM_OK) status = add_object(path, array, json_incref(row), i + 1);
    }
    json_decref(value);
    return status;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

typedef struct table {
    const char *path, *text;
    size_t at, len, line;
    bool quotes;
    char separator;
    tm__string field;
} table;

static bool at_end_of_row(const table *t) {
    return t->at >= t->len || t->text[t->at] == '\n' || (t->text[t->at] == '\r' && t->text[t->at + 1] == '\n');
}

static tm_status read_quoted(table *t) {
    size_t opened = t->line;
    t->at++;
    for (;;) {
        const char *end = memchr(t->text + t->at, '"', t->len - t->at);
        if (!end) return tm__fail(TM_FORMAT, t->path, "line", NULL, "the quote opened in line %zu never ends", opened);
        size_t n = (size_t)(end - t->text) - t->at;
        for (size_t i = 0; i < n; i++) t->line += t->text[t->at + i] == '\n';
        bool doubled = t->text[t->at + n + 1] == '"';
        if (!tm__string_append(&t->field, t->text + t->at, n + doubled)) return tm__fail_memory();
        t->at += n + 1 + doubled;
        if (!doubled) return TM_OK;
    }
}

/* One field into t->field; *last: the row ends behind it. */
static tm_status read_field(table *t, bool *last) {
    t->field.len = 0;
    if (!tm__string_append(&t->field, "", 0)) return tm__fail_memory();
    if (t->quotes && t->at < t->len && t->text[t->at] == '"') TM__TRY(read_quoted(t));
    while (!at_end_of_row(t) && t->text[t->at] != t->separator)
        if (!tm__string_append(&t->field, &t->text[t->at++], 1)) return tm__fail_memory();
    *last = at_end_of_row(t);
    if (*last) t->at += t->at < t->len && t->text[t->at] == '\r';
    t->line += *last;
    t->at++;
    if (!tm__utf8_valid(t->field.data, t->field.len))
        return tm__fail(TM_FORMAT, t->path, "line", "save it as UTF-8", "line %zu is not UTF-8", t->line - *last);
    return TM_OK;
}

static tm_status read_record(table *t, json_t *record) {
    bool last = false;
    while (!last) {
        TM__TRY(read_field(t, &last));
        json_t *value = json_stringn(t->field.data, t->field.len);
        if (!value || json_array_append_new(record, value)) return tm__fail_memory();
    }
    return TM_OK;
}

/* The record's fields under their columns' names. */
static tm_status add_record(const table *t, const json_t *names, json_t *record, json_t *array) {
    size_t n = json_array_size(names), i;
    json_t *value, *row = json_object();
    if (!row) return tm__fail_memory();
    if (json_array_size(record) != n) {
        json_decref(row);
        return tm__fail(TM_FORMAT, t->path, "line", t->quotes ? "quote fields that hold commas" : NULL,
                        "line %zu has %zu columns instead of %zu", t->line - 1, json_array_size(record), n);
    }
    json_array_foreach(record, i, value) {
        if (json_object_set(row, json_string_value(json_array_get(names, i)), value)) {
            json_decref(row);
            return tm__fail_memory();
        }
    }
    return json_array_append_new(array, row) == 0 ? TM_OK : tm__fail_memory();
}

/* Names of columns: the first record, or the list of as many names as it has fields. */
static tm_status name_columns(const table *t, const char *const *const *columns, const json_t *record, json_t **names) {
    size_t n = json_array_size(record);
    if (!columns) {
        *names = json_incref((json_t *)record);
        return TM_OK;
    }
    for (; *columns; columns++) {
        size_t count = 0;
        while ((*columns)[count]) count++;
        if (count != n) continue;
        *names = json_array();
        for (size_t i = 0; *names && i < n; i++)
            if (json_array_append_new(*names, json_string((*columns)[i]))) {
                json_decref(*names);
                *names = NULL;
            }
        return *names ? TM_OK : tm__fail_memory();
    }
    return tm__fail(TM_FORMAT, t->path, "line", "see the layout that temper eval --list names",
                    "line 1 has %zu columns: this table is not known", n);
}

static tm_status read_table(const char *path, const char *text, size_t len, const char *const *const *columns,
                            json_t *array) {
    bool tabs = ends_with(path, ".tsv");
    table t = {.path = path, .text = text, .len = len, .line = 1, .quotes = !tabs, .separator = tabs ? '\t' : ','};
    json_t *names = NULL;
    tm_status status = TM_OK;
    while (status == TM_OK && t.at < len) {
        if (at_end_of_row(&t)) { /* an empty line */
            t.at += t.text[t.at] == '\r';
            t.at++;
            t.line++;
            continue;
        }
        json_t *record = json_array();
        status = record ? read_record(&t, record) : tm__fail_memory();
        bool header = !names;
        if (status == TM_OK && header) status = name_columns(&t, columns, record, &names);
        if (status == TM_OK && !(header && !columns)) status = add_record(&t, names, record, array);
        json_decref(record);
    }
    json_decref(names);
    tm__string_free(&t.field);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

tm_status tm__rows_read(const char *path, const char *const *const *columns, tm__rows *rows) {
    char *text;
    size_t len, first = 0, mark = 0;
    if (ends_with(path, ".parquet"))
        return tm__fail(TM_UNSUPPORTED, path, NULL,
                        "python -c \"import pandas as p; p.read_parquet('X.parquet')"
                        ".to_json('X.jsonl', orient='records', lines=True)\"",
                        "Parquet is not read: convert it to JSON Lines");
    TM__TRY(tm__file_read(path, 0, &text, &len));
    json_t *array = json_array();
    tm_status status = array ? TM_OK : tm__fail_memory();
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) mark = first = 3; /* a byte order mark */
    while (first < len && strchr(" \t\r\n", text[first])) first++;
    if (status == TM_OK) {
        if (ends_with(path, ".csv") || ends_with(path, ".tsv"))
            status = read_table(path, text + mark, len - mark, columns, array);
        else if (first < len && text[first] == '[')
            status = read_array(path, text + mark, len - mark, array);
        else
            status = read_lines(path, text + mark, len - mark, array);
    }
    free(text);
    if (status == TM_OK && json_array_size(array) == 0) status = tm__fail(TM_FORMAT, path, NULL, NULL, "holds no rows");
    if (status != TM_OK) {
        json_decref(array);
        return status;
    }
    *rows = (tm__rows){path, array, json_array_size(array)};
    return TM_OK;
}

void tm__rows_free(tm__rows *rows) {
    json_decref(rows->array);
    *rows = (tm__rows){0};
}

const json_t *tm__rows_at(const tm__rows *rows, size_t row) {
    return json_array_get(rows->array, row);
}

bool tm__rows_have(const tm__rows *rows, size_t row, const char *column) {
    return json_object_get(tm__rows_at(rows, row), column) != NULL;
}

tm_status tm__rows_fail(const tm__rows *rows, size_t row, const char *column, const char *format, ...) {
    char message[256], field[128];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(field, sizeof field, "row %zu, column '%.60s'", row + 1, column);
    return tm__fail(TM_FORMAT, rows->path, field, NULL, "%s", message);
}

static tm_status missing(const tm__rows *rows, size_t row, const char *column) {
    char field[128], there[200] = "";
    const char *key;
    json_t *value;
    size_t at = 0;
    json_object_foreach((json_t *)tm__rows_at(rows, row), key, value) {
        if (at + 8 < sizeof there)
            at += (size_t)snprintf(there + at, sizeof there - at, "%s%.40s", at ? ", " : "", key);
    }
    snprintf(field, sizeof field, "row %zu, column '%.60s'", row + 1, column);
    return tm__fail(TM_FORMAT, rows->path, field, NULL, "is missing; the row has: %s", there);
}

tm_status tm__rows_value(const tm__rows *rows, size_t row, const char *column, const json_t **value) {
    *value = json_object_get(tm__rows_at(rows, row), column);
    return *value ? TM_OK : missing(rows, row, column);
}

tm_status tm__rows_text(const tm__rows *rows, size_t row, const char *column, const char **value) {
    const json_t *found;
    TM__TRY(tm__rows_value(rows, row, column, &found));
    if (json_is_integer(found)) { /* an id or a label; the row keeps the text from now on */
        char digits[32];
        snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(found));
        if (json_object_set_new((json_t *)tm__rows_at(rows, row), column, json_string(digits)))
            return tm__fail_memory();
        found = json_object_get(tm__rows_at(rows, row), column);
    }
    if (!json_is_string(found)) return tm__rows_fail(rows, row, column, "is no text");
    *value = json_string_value(found);
    return TM_OK;
}

const char *tm__rows_optional(const tm__rows *rows, size_t row, const char *column) {
    return json_string_value(json_object_get(tm__rows_at(rows, row), column));
}

const char *tm__rows_which(const tm__rows *rows, size_t row, const char *const *columns) {
    while (*columns && !tm__rows_have(rows, row, *columns)) columns++;
    return *columns;
}

tm_status tm__rows_int(const tm__rows *rows, size_t row, const char *column, int64_t *value) {
    const json_t *found;
    TM__TRY(tm__rows_value(rows, row, column, &found));
    if (json_is_boolean(found)) {
        *value = json_is_true(found);
    } else if (json_is_integer(found)) {
        *value = json_integer_value(found);
    } else if (json_is_string(found)) {
        char *end;
        const char *text = json_string_value(found);
        errno = 0;
        *value = strtoll(text, &end, 10);
        if (end == text || *end || errno) return tm__rows_fail(rows, row, column, "'%.40s' is no whole number", text);
    } else {
        return tm__rows_fail(rows, row, column, "is no whole number");
    }
    return TM_OK;
}
