/* journal.c: what has been answered or judged so far, so that an interrupted run goes on where it stopped.
 *
 * JSON Lines: {"journal": KEY}, then what its owner makes of each item. KEY is the SHA-256 of everything that decides
 * the lines; a journal of another key is begun anew, and a line that a kill cut short ends what is taken from it.
 * Numbers are written with 17 digits, so they come back as they were.
 * Tests: tests/unit/test_evaluation.c, tests/unit/test_judging.c.
 */
#include "eval/suite.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/* Behind the last line that was taken. */
static size_t take_lines(const tm__journal *j, const char *text, size_t len) {
    size_t end = 0;
    while (end < len) {
        const char *newline = memchr(text + end, '\n', len - end);
        if (!newline) break;
        json_t *line = json_loadb(text + end, (size_t)(newline - text) - end, 0, NULL);
        const char *named = json_string_value(json_object_get(line, "journal"));
        bool fits = line && (end ? j->take(j->user, line) : named && strcmp(named, j->key) == 0);
        json_decref(line);
        if (!fits) break;
        end = (size_t)(newline - text) + 1;
    }
    return end;
}

tm_status tm__journal_read(const tm__journal *j) {
    char *text;
    size_t len;
    if (!tm__path_exists(j->path)) return TM_OK;
    TM__TRY(tm__file_read(j->path, 0, &text, &len));
    size_t end = take_lines(j, text, len);
    tm_status status = TM_OK;
    if (end == 0 && unlink(j->path) != 0)
        status = tm__fail_errno(j->path, "cannot be removed");
    else if (end > 0 && end < len)
        status = tm__file_write(j->path, text, end);
    free(text);
    return status;
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

tm_status tm__journal_append(const tm__journal *j, size_t first, size_t count, const bool *chosen) {
    tm__string out = {0};
    tm_status status = TM_OK;
    tm__json_watch();
    if (!tm__path_exists(j->path)) status = append_line(&out, json_pack("{s:s}", "journal", j->key));
    for (size_t i = first; status == TM_OK && i < first + count; i++)
        if (!chosen || chosen[i]) status = append_line(&out, j->make(j->user, i));
    if (status == TM_OK && out.len) status = append_bytes(j->path, out.data, out.len);
    tm__string_free(&out);
    return status;
}
