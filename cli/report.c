/* report.c: what is said on standard error: errors, notes, progress; and how a run is interrupted.
 *
 * On a terminal progress is one line that is redrawn; elsewhere it is a plain line now and then, fit for a log.
 * No colours are used. Errors are always one line.
 */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    bool quiet, terminal, open; /* open: a redrawn line waits for its newline */
    char phase[64];
    int64_t first_done, last_done;
    double first_seconds, last_seconds; /* where this phase was first seen; when a line was last printed */
} watch;

static volatile sig_atomic_t stop_asked, error_told; /* told: one of several processes ends, and so do all */
static bool leads = true;                            /* of several processes only the first says what all would say */

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Writes one line; what could disturb a terminal or a log is shown as '?'. */
static void say(const char *text) {
    char line[1400];
    size_t at = 0, len = strlen(text);
    for (size_t i = 0; i < len && at + 5 < sizeof line;) {
        size_t n = cli_utf8_length(text + i, len - i);
        bool c1 = n == 2 && (unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0;
        bool clean = n > 1 ? !c1 : n == 1 && (unsigned char)text[i] >= 0x20 && text[i] != 0x7f;
        if (clean)
            memcpy(line + at, text + i, n);
        else
            line[at] = '?';
        at += clean ? n : 1;
        i += n ? n : 1;
    }
    line[at++] = '\n';
    cli_monitor_end();
    fwrite(line, 1, at, stderr);
}

/* Tells an error: this process itself, or by rank 0. Returns the exit code. */
static int tell(tm_status status, const char *text) {
    char line[1200];
    int rank = tm_ranks_rank();
    if (tm_ranks_count() > 1) error_told = 1; /* a launcher then ends its other processes by a signal */
    if (!tm_ranks_fail(status, text)) return tm_status_exit_code(status);
    if (rank == 0)
        snprintf(line, sizeof line, "temper: %.1150s", text);
    else
        snprintf(line, sizeof line, "temper: rank %d: %.1150s", rank, text);
    say(line);
    return tm_status_exit_code(status);
}

int cli_error(tm_status status, const char *field, const char *hint, const char *format, ...) {
    char message[512], line[1200];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    bool has_field = field && field[0], has_hint = hint && hint[0];
    snprintf(line, sizeof line, "%.300s%s%s%s%.300s%s", has_field ? field : "", has_field ? ": " : "", message,
             has_hint ? " (" : "", has_hint ? hint : "", has_hint ? ")" : "");
    return tell(status, line);
}

int cli_fail(tm_status status) {
    const tm_error *error = tm_error_last();
    return tell(status, error->line[0] ? error->line : tm_status_text(status));
}

int cli_no_memory(void) {
    return cli_error(TM_NO_MEMORY, NULL, NULL, "%s", tm_status_text(TM_NO_MEMORY));
}

void cli_note(const char *format, ...) {
    char line[1200];
    if (watch.quiet || !leads) return;
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    say(line);
}

int cli_check_required(const char *option, const char *value) {
    if (value && value[0]) return 0;
    return cli_error(TM_INVALID, option, NULL, value ? "is empty" : "is required");
}

/* The directory a path lies in: "a" for "a/b/", "." for "b", "/" for "/b". */
static void parent(const char *path, char *out, size_t size) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    while (len > 0 && path[len - 1] != '/') len--;
    while (len > 1 && path[len - 1] == '/') len--;
    snprintf(out, size, "%.*s", len ? (int)len : 1, len ? path : ".");
}

static bool is_empty(const char *path) {
    DIR *directory = opendir(path);
    int names = 0;
    while (directory && readdir(directory)) names++;
    if (directory) closedir(directory);
    return names == 2; /* itself and its parent */
}

/* "/", ".", "x/..": they have no name of their own that a finished directory could take. */
static bool is_nameless(const char *path) {
    size_t len = strlen(path), at;
    while (len > 0 && path[len - 1] == '/') len--;
    for (at = len; at > 0 && path[at - 1] != '/';) at--;
    len -= at;
    return len == 0 || (len <= 2 && strncmp(path + at, "..", len) == 0);
}

static bool holds(const char *directory, const char *name) {
    char path[4200];
    return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path && access(path, F_OK) == 0;
}

/* Whether an output may take the place of what is at `path` already. */
static int check_present(const char *path, mode_t mode, bool directory, bool overwrite) {
    struct statx info;
    if (directory && !S_ISDIR(mode))
        return cli_error(TM_EXISTS, path, "choose another name", "exists and is no directory");
    if (directory && is_nameless(path))
        return cli_error(TM_INVALID, path, "name the directory to make", "cannot be an output");
    if (!directory && !S_ISREG(mode)) return cli_error(TM_EXISTS, path, "choose another name", "exists and is no file");
    if (!overwrite && !(directory && is_empty(path)))
        return cli_error(TM_EXISTS, path, "choose another name or give --overwrite", "already exists");
    if (directory && statx(AT_FDCWD, path, 0, STATX_TYPE, &info) == 0 && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return cli_error(TM_UNSUPPORTED, path, "name a directory in it", "is a mount point");
    if (directory && !is_empty(path) && !holds(path, "config.json") && !holds(path, "adapter_config.json"))
        return cli_error(TM_EXISTS, path, "choose another name, or remove it yourself",
                         "holds no model, so it is not replaced by one");
    return 0;
}

/* Asked before any work is done, so that a run of hours does not end at a name that cannot be written. */
int cli_check_output(const char *option, const char *path, bool directory, bool overwrite) {
    int code = cli_check_required(option, path);
    if (code) return code;
    char above[4096];
    struct stat info;
    if (stat(path, &info) == 0)
        code = check_present(path, info.st_mode, directory, overwrite);
    else if (lstat(path, &info) == 0)
        code = cli_error(TM_EXISTS, path, "choose another name", "is a link that leads nowhere");
    if (code) return code;
    char *real = directory ? realpath(path, NULL) : NULL; /* a link stands for the directory it names */
    int n = snprintf(above, sizeof above, "%s", real ? real : path);
    free(real);
    if (n >= (int)sizeof above) return cli_error(TM_INVALID, option, NULL, "the path is too long");
    do {
        char below[4096];
        snprintf(below, sizeof below, "%s", above);
        parent(below, above, sizeof above);
    } while (stat(above, &info) != 0 && errno == ENOENT && strcmp(above, ".") != 0 && strcmp(above, "/") != 0);
    if (stat(above, &info) != 0) return cli_error(TM_IO, above, NULL, "cannot be reached: %s", strerror(errno));
    if (!S_ISDIR(info.st_mode)) return cli_error(TM_IO, above, NULL, "is not a directory");
    if (access(above, W_OK | X_OK) != 0) return cli_error(TM_IO, above, NULL, "cannot be written: %s", strerror(errno));
    return 0;
}

static size_t bare_length(const char *path) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    return len;
}

int cli_check_resume(const char *resume, const char *out) {
    struct stat a, b;
    if (!resume || !out) return 0;
    size_t len = bare_length(resume);
    bool same = len == bare_length(out) && strncmp(resume, out, len) == 0;
    if (stat(resume, &a) == 0 && stat(out, &b) == 0) same = same || (a.st_dev == b.st_dev && a.st_ino == b.st_ino);
    return same ? cli_error(TM_INVALID, "--resume", "name a directory of its own", "is the same directory as --out")
                : 0;
}

int cli_finish(int code) {
    cli_monitor_end();
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    int failed = tm_status_exit_code(TM_IO);
    if (errno != EPIPE) cli_error(TM_IO, "standard output", NULL, "writing failed: %s", strerror(errno));
    return code ? code : failed; /* a reader that has left needs no message */
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static void put_duration(char *out, size_t size, double seconds) {
    long s = seconds < 359999 ? lround(seconds) : 359999;
    if (s < 3600)
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

static void put_rate(char *out, size_t size, double rate, const char *unit) {
    if (rate >= 10000)
        snprintf(out, size, "%.1fk %s/s", rate / 1000, unit);
    else
        snprintf(out, size, "%.*f %s/s", rate < 10 ? 2 : 0, rate, unit);
}

/* "412/1000 steps  3.20 step/s  6.6k token/s  loss 1.2345  ETA 3:04" */
static void put_figures(char *out, size_t size, const tm_progress *p) {
    double elapsed = p->seconds - watch.first_seconds;
    int64_t done = p->done - watch.first_done;
    double rate = elapsed > 0 && done > 0 ? (double)done / elapsed : p->seconds > 0 ? (double)p->done / p->seconds : 0;
    const char *unit = p->unit ? p->unit : "step";
    char text[64];
    int at = snprintf(out, size, "%lld/%lld %ss", (long long)p->done, (long long)p->total, unit);
    if (rate > 0) {
        put_rate(text, sizeof text, rate, unit);
        at += snprintf(out + at, size - (size_t)at, "  %s", text);
    }
    if (p->tokens > 0 && p->seconds > 0) {
        put_rate(text, sizeof text, (double)p->tokens / p->seconds, "token");
        at += snprintf(out + at, size - (size_t)at, "  %s", text);
    }
    if (isfinite(p->loss)) at += snprintf(out + at, size - (size_t)at, "  loss %.4f", p->loss);
    if (rate > 0 && p->done < p->total) {
        put_duration(text, sizeof text, (double)(p->total - p->done) / rate);
        at += snprintf(out + at, size - (size_t)at, "  ETA %s", text);
    } else {
        put_duration(text, sizeof text, p->seconds);
        at += snprintf(out + at, size - (size_t)at, "  in %s", text);
    }
}

static void draw_bar(const tm_progress *p, const char *figures) {
    struct winsize window = {0};
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 20 ? window.ws_col : 80;
    int room = width - 1 - (int)strlen(watch.phase) - (int)strlen(figures) - 6;
    char line[512];
    if (room >= 8) {
        int cells = room < 24 ? room : 24;
        int full = p->total > 0 ? (int)((double)cells * (double)p->done / (double)p->total) : 0;
        char bar[32];
        for (int i = 0; i < cells; i++) bar[i] = i < full ? '#' : '.';
        snprintf(line, sizeof line, "%s  [%.*s]  %s", watch.phase, cells, bar, figures);
    } else {
        snprintf(line, sizeof line, "%s  %s", watch.phase, figures);
    }
    fprintf(stderr, "\r%.*s\033[K", width - 1, line);
    fflush(stderr);
    watch.open = true;
}

static void begin_phase(const tm_progress *p) {
    cli_monitor_end();
    snprintf(watch.phase, sizeof watch.phase, "%s", p->phase ? p->phase : "");
    watch.first_done = watch.last_done = p->done;
    watch.first_seconds = p->seconds;
    watch.last_seconds = watch.terminal ? -1 : p->seconds;
}

static void on_progress(void *user, const tm_progress *p) {
    (void)user;
    bool same = strncmp(watch.phase, p->phase ? p->phase : "", sizeof watch.phase - 1) == 0;
    if (!same || p->done < watch.last_done || p->seconds < watch.last_seconds) begin_phase(p);
    bool ends = p->done >= p->total;
    double since = p->seconds - watch.last_seconds;
    bool due = watch.terminal
                   ? since >= 0.1
                   : since >= 10 || (since >= 1 && (double)(p->done - watch.last_done) >= 0.1 * (double)p->total);
    if (!due && !ends) return;
    char figures[256];
    put_figures(figures, sizeof figures, p);
    if (watch.terminal)
        draw_bar(p, figures);
    else
        fprintf(stderr, "%s  %s\n", watch.phase, figures);
    watch.last_seconds = p->seconds;
    watch.last_done = p->done;
    if (ends) cli_monitor_end();
}

static void on_note(void *user, const char *line) {
    (void)user;
    cli_note("%s", line);
}

static bool on_stop(void *user) {
    (void)user;
    return stop_asked != 0;
}

void cli_monitor_end(void) {
    if (watch.open) fputc('\n', stderr);
    watch.open = false;
}

/* The handler is reset on entry: a second signal ends the process at once. */
static void on_signal(int signal_number) {
    static const char text[] = "\ntemper: stopping after this step (once more to stop at once)\n";
    (void)signal_number;
    stop_asked = 1;
    if (!leads || error_told) return;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
}

const tm_monitor *cli_monitor(const cli_output *output) {
    static tm_monitor monitor;
    const char *terminal = getenv("TERM");
    leads = tm_ranks_rank() == 0;
    watch.quiet = output->quiet;
    watch.terminal = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    monitor = (tm_monitor){.progress = output->quiet ? NULL : on_progress, .note = on_note, .stop = on_stop};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* what launchers of several processes pass on */
    return &monitor;
}

const tm_option cli_quiet_table[] = {
    {.name = "json", .type = TM_OPTION_FLAG, .offset = offsetof(cli_output, json), .help = "print the result as JSON"},
    {.name = "quiet", .type = TM_OPTION_FLAG, .offset = offsetof(cli_output, quiet), .help = "no progress, no notes"},
    {0},
};
