/* journal.c: what an evaluation has been answered so far, so that an interrupted run goes on where it stopped.
 *
 * JSON Lines: {"journal": KEY}, then one line per item in order, with the log-likelihoods of its choices, of its text,
 * or its answer. KEY is the SHA-256 of everything that decides them; a journal of another key is begun anew, and a line
 * that a kill cut short ends what is taken from it. Numbers are written with 17 digits, so they come back as they were.
 * Test: tests/unit/test_evaluation.c.
 */
#include "eval/suite.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static bool take_real(const json_t *value, double *to) {
    if (!json_is_number(value)) return false;
    *to = json_number_value(value);
    return true;
}

/* One line into its item; false: it does not fit. */
static bool take_line(tm_evaluation *e, size_t index, const json_t *line) {
    tm__item *item = &e->items[index];
    const json_t *ll = json_object_get(line, "ll"), *answer = json_object_get(line, "answer");
    if (json_integer_value(json_object_get(line, "item")) != (json_int_t)index) return false;
    switch (e->suite->kind) {
    case TM_SUITE_CHOICES:
        if (json_array_size(ll) != item->choice_count) return false;
        for (size_t i = 0; i < item->choice_count; i++)
            if (!take_real(json_array_get(ll, i), &item->choices[i].ll)) return false;
        return true;
    case TM_SUITE_ANSWERS:
        if (!json_is_string(answer)) return false;
        item->answer = tm__keep(e, "%s", json_string_value(answer));
        return item->answer != NULL;
    default:
        return take_real(ll, &item->ll);
    }
}

/* Takes lines as far as they go; *end: behind the last that was taken. */
static void take_lines(tm_evaluation *e, const char *text, size_t len, const char *key, size_t *done, size_t *end) {
    bool headed = false;
    for (size_t at = 0; at < len && *done <= e->count;) {
        const char *newline = memchr(text + at, '\n', len - at);
        if (!newline) break;
        json_t *line = json_loadb(text + at, (size_t)(newline - text) - at, 0, NULL);
        const char *named = json_string_value(json_object_get(line, "journal"));
        bool fits = headed ? *done < e->count && take_line(e, *done, line) : named && strcmp(named, key) == 0;
        json_decref(line);
        if (!fits) break;
        at = (size_t)(newline - text) + 1;
        *end = at;
        *done += headed;
        headed = true;
    }
}

tm_status tm__journal_read(tm_evaluation *e, const char *path, const char *key, size_t *done) {
    char *text;
    size_t len, end = 0;
    *done = 0;
    if (!tm__path_exists(path)) return TM_OK;
    TM__TRY(tm__file_read(path, 0, &text, &len));
    take_lines(e, text, len, key, done, &end);
    tm_status status = TM_OK;
    if (end == 0 && unlink(path) != 0)
        status = tm__fail_errno(path, "cannot be removed");
    else if (end > 0 && end < len)
        status = tm__file_write(path, text, end);
    free(text);
    return status;
}

static json_t *make_line(const tm_evaluation *e, size_t index) {
    const tm__item *item = &e->items[index];
    if (e->suite->kind == TM_SUITE_ANSWERS)
        return json_pack("{s:I, s:s}", "item", (json_int_t)index, "answer", item->answer);
    if (e->suite->kind != TM_SUITE_CHOICES) return json_pack("{s:I, s:f}", "item", (json_int_t)index, "ll", item->ll);
    json_t *ll = json_array();
    for (size_t i = 0; ll && i < item->choice_count; i++)
        if (json_array_append_new(ll, json_real(item->choices[i].ll))) {
            json_decref(ll);
            return NULL;
        }
    return json_pack("{s:I, s:o}", "item", (json_int_t)index, "ll", ll);
}

static tm_status append_line(tm__string *out, json_t *line) {
    char *text;
    size_t len;
    if (!line) return tm__fail_memory();
    tm_status status = tm__json_dump(line, JSON_COMPACT, &text, &len);
    json_decref(line);
    if (status != TM_OK) return status;
    bool ok = tm__string_append(out, text, len) && tm__string_append(out, "\n", 1);
    free(text);
    return ok ? TM_OK : tm__fail_memory();
}

static tm_status append_bytes(const char *path, const char *data, size_t len) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return tm__fail_errno(path, "cannot be opened");
    tm_status status = TM_OK;
    while (status == TM_OK && len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR) status = tm__fail_errno(path, "cannot be written");
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    if (close(fd) != 0 && status == TM_OK) status = tm__fail_errno(path, "cannot be written");
    return status;
}

tm_status tm__journal_append(const tm_evaluation *e, const char *path, const char *key, size_t first, size_t count) {
    tm__string out = {0};
    tm_status status = TM_OK;
    if (!tm__path_exists(path)) status = append_line(&out, json_pack("{s:s}", "journal", key));
    for (size_t i = first; status == TM_OK && i < first + count; i++) status = append_line(&out, make_line(e, i));
    if (status == TM_OK) status = append_bytes(path, out.data ? out.data : "", out.len);
    tm__string_free(&out);
    return status;
}
