/* error.c: status names, the thread's last error, notes to the monitor, the clock.
 *
 * The last error is one fixed-size struct per thread, so reporting a failure never allocates: also "out of memory" can
 * be told in full. `line` is made once, when the error is set.
 */
#include "base/base.h"

#include <errno.h>
#include <time.h>

static _Thread_local tm_error last;

static const struct {
    const char *name, *text;
    int code;
} statuses[] = {
#define STATUS_ROW(name, text, code) {#name, text, code},
    TM_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

static bool known(tm_status status) {
    return (unsigned)status < TM__COUNT(statuses);
}
const char *tm_status_name(tm_status status) {
    return known(status) ? statuses[status].name : "UNKNOWN";
}
const char *tm_status_text(tm_status status) {
    return known(status) ? statuses[status].text : "unknown status";
}
int tm_status_exit_code(tm_status status) {
    return known(status) ? statuses[status].code : 1;
}
const tm_error *tm_error_last(void) {
    return &last;
}
void tm_error_clear(void) {
    last = (tm_error){0};
}

/* Copies at most size - 1 bytes and never cuts a UTF-8 sequence in two. */
static void copy_text(char *to, size_t size, const char *from) {
    size_t len = from ? strlen(from) : 0;
    if (len >= size) {
        len = size - 1;
        while (len > 0 && ((unsigned char)from[len] & 0xc0) == 0x80) len--;
    }
    if (len) memmove(to, from, len);
    to[len] = 0;
}

/* The end of a long path says more than its beginning. */
static void copy_path(char *to, size_t size, const char *from) {
    size_t len = from ? strlen(from) : 0;
    if (len < size) {
        copy_text(to, size, from);
        return;
    }
    const char *tail = from + len - (size - 4);
    while (((unsigned char)*tail & 0xc0) == 0x80) tail++;
    memcpy(to, "...", 3);
    copy_text(to + 3, size - 3, tail);
}

/* Appends `text` to the line with everything that could disturb a terminal or a log shown as '?'. */
static size_t append_clean(char *line, size_t at, size_t size, const char *text) {
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t code = 0;
        int n = tm__utf8_decode(text + i, len - i, &code);
        bool clean = n > 0 && code >= 0x20 && !(code >= 0x7f && code < 0xa0) && code != 0x2028 && code != 0x2029;
        size_t width = clean ? (size_t)n : 1;
        if (at + width >= size) break;
        if (clean)
            memcpy(line + at, text + i, width);
        else
            line[at] = '?';
        at += width;
        i += n > 0 ? (size_t)n : 1;
    }
    line[at] = 0;
    return at;
}

static void make_line(tm_error *error) {
    size_t at = 0, size = sizeof error->line;
    error->line[0] = 0;
    if (error->file[0]) {
        at = append_clean(error->line, at, size, error->file);
        at = append_clean(error->line, at, size, ": ");
    }
    if (error->field[0]) {
        at = append_clean(error->line, at, size, error->field);
        at = append_clean(error->line, at, size, ": ");
    }
    at = append_clean(error->line, at, size, error->message);
    if (error->hint[0]) {
        at = append_clean(error->line, at, size, " (");
        at = append_clean(error->line, at, size, error->hint);
        append_clean(error->line, at, size, ")");
    }
}

tm_status tm__fail(tm_status status, const char *file, const char *field, const char *hint, const char *format, ...) {
    tm_error error = {.status = status}; /* built aside: the arguments may point into the last error */
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    copy_path(error.file, sizeof error.file, file);
    copy_text(error.field, sizeof error.field, field);
    copy_text(error.message, sizeof error.message, message);
    copy_text(error.hint, sizeof error.hint, hint);
    make_line(&error);
    last = error;
    return status;
}

tm_status tm__fail_errno(const char *file, const char *format, ...) {
    int code = errno;
    char message[512], buffer[128];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return tm__fail(TM_IO, file, NULL, NULL, "%.230s: %s", message, strerror_r(code, buffer, sizeof buffer));
}

tm_status tm__fail_memory(void) {
    return tm__fail(TM_NO_MEMORY, NULL, NULL, "use smaller batches or a machine with more memory", "out of memory");
}

tm_status tm__error_within(const char *file, const char *field) {
    if (!last.file[0]) copy_path(last.file, sizeof last.file, file);
    if (!last.field[0]) copy_text(last.field, sizeof last.field, field);
    make_line(&last);
    return last.status;
}

void tm__note(const tm_monitor *monitor, const char *format, ...) {
    if (!monitor || !monitor->note) return;
    char text[1024], line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    append_clean(line, 0, sizeof line, text);
    monitor->note(monitor->user, line);
}

bool tm__stop(const tm_monitor *monitor) {
    return monitor && monitor->stop && monitor->stop(monitor->user);
}

double tm__now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
