/* plot.c: pictures by gnuplot.
 *
 * gnuplot knows no light and dark, so it draws with colours that mean something (ink, paper, the i-th series) and a
 * page replaces them by its variables; the PNG, and the SVG by itself, are drawn with those of a light page.
 * Pinned by tests/unit/test_report.c.
 */
#include "lab/plot.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { COLOURS = 8, INK = 0x010101, PAPER = 0xfefefe, SERIES = 0x020100 };

/* ---- the script -------------------------------------------------------------------------------------------------- */

/* In single quotes nothing has a meaning but the quote itself. */
static bool quote(tm__string *out, const char *text) {
    bool ok = tm__string_append(out, "'", 1);
    for (; *text && ok; text++) {
        char c = *text == '\n' ? ' ' : *text;
        ok = tm__string_append(out, &c, 1) && (c != '\'' || tm__string_append(out, "'", 1));
    }
    return ok && tm__string_append(out, "'", 1);
}

static bool put_axes(const tm__plot *p, tm__string *out) {
    bool ok = tm__string_printf(out, "set border 3 lc rgb ink\nset tics nomirror tc rgb ink\nset key outside right top "
                                     "reverse Left tc rgb ink samplen 1.5\nset xlabel ");
    ok = ok && quote(out, p->x) && tm__string_printf(out, " tc rgb ink\nset ylabel ");
    ok = ok && quote(out, p->y) && tm__string_printf(out, " tc rgb ink\n");
    if (p->log_x) ok = ok && tm__string_printf(out, "set logscale x\n");
    if (p->share_x) ok = ok && tm__string_printf(out, "set xrange [-0.03:1.03]\n");
    if (p->share_y) ok = ok && tm__string_printf(out, "set yrange [-0.03:1.03]\n");
    return ok;
}

static bool put_data(const tm__plot *p, tm__string *out) {
    bool ok = true;
    for (size_t s = 0; s < p->count && ok; s++) {
        const tm__series *series = &p->series[s];
        ok = tm__string_printf(out, "$d%zu << EOD\n", s);
        for (size_t i = 0; i < series->n && ok; i++)
            if (isfinite(series->x[i]) && isfinite(series->y[i]))
                ok = tm__string_printf(out, "%.9g %.9g\n", series->x[i], series->y[i]);
        ok = ok && tm__string_printf(out, "EOD\n");
    }
    return ok;
}

static bool put_series(const tm__plot *p, tm__string *out) {
    static const char *const marks[] = {"points ps 1.4 lw 2", "lines lw 2", "steps lw 2", "lines lw 1 dt 2"};
    bool ok = tm__string_printf(out, "plot ");
    for (size_t s = 0; s < p->count && ok; s++) {
        const tm__series *series = &p->series[s];
        ok = tm__string_printf(out, "%s$d%zu using 1:2 with %s", s ? ", \\\n     " : "", s, marks[series->mark]);
        if (series->mark == TM__MARK_POINT) ok = ok && tm__string_printf(out, " pt %zu", 1 + s % 13);
        if (series->mark == TM__MARK_LINE || series->mark == TM__MARK_STEP)
            ok = ok && tm__string_printf(out, " dt %zu", 1 + s / COLOURS % 5);
        if (series->mark == TM__MARK_FRONT)
            ok = ok && tm__string_printf(out, " lc rgb ink title ");
        else
            ok = ok && tm__string_printf(out, " lc rgb c%zu title ", s % COLOURS);
        ok = ok && quote(out, series->label);
    }
    return ok && tm__string_printf(out, "\n");
}

/* The script draws what `terminal` says into the file that `to` names: gnuplot -e "to='x.svg'; ..." SCRIPT. */
static bool put_script(const tm__plot *p, tm__string *out) {
    static const char *const light[COLOURS] = {"#0b62a4", "#c2410c", "#2f7d32", "#7b3fa0",
                                               "#a16207", "#0f766e", "#be185d", "#4b5563"};
    bool ok = tm__string_printf(out, "# gnuplot %s\nif (!exists('ink')) {\n    ink = '#1a1a1a'\n",
                                "FILE shows it; -e \"set terminal svg; set output 'x.svg'\" writes it");
    for (size_t i = 0; i < COLOURS && ok; i++) ok = tm__string_printf(out, "    c%zu = '%s'\n", i, light[i]);
    return ok && tm__string_printf(out, "}\n") && put_axes(p, out) && put_data(p, out) && put_series(p, out);
}

/* ---- running it -------------------------------------------------------------------------------------------------- */

static tm_status run_gnuplot(const char *script, const char *settings) {
    char *const argv[] = {"gnuplot", "-e", (char *)settings, (char *)script, NULL};
    posix_spawn_file_actions_t files;
    pid_t pid;
    int how = 0;
    if (posix_spawn_file_actions_init(&files) != 0) return tm__fail_memory();
    int code = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", 1, 0);
    if (code == 0) code = posix_spawnp(&pid, "gnuplot", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (code == ENOENT)
        return tm__fail(TM_UNSUPPORTED, NULL, "gnuplot", "install the package gnuplot-nox", "is not installed");
    if (code != 0) return tm__fail(TM_IO, NULL, "gnuplot", NULL, "cannot be started: %s", strerror(code));
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0) return TM_OK;
    if (WIFEXITED(how) && WEXITSTATUS(how) == 127)
        return tm__fail(TM_UNSUPPORTED, NULL, "gnuplot", "install the package gnuplot-nox", "is not installed");
    return tm__fail(TM_IO, script, NULL, NULL, "gnuplot could not draw it");
}

static tm_status draw(const char *script, const char *path, const char *ending, const char *terminal, bool sentinels) {
    tm__string s = {0};
    char *file = tm__format("%s%s", path, ending);
    bool ok = file && tm__string_printf(&s, "set terminal %s; set output ", terminal) && quote(&s, file);
    for (int i = 0; i < COLOURS && ok && sentinels; i++)
        ok = tm__string_printf(&s, "; %sc%d='#%06x'", i ? "" : "ink='#010101'; ", i, SERIES + i);
    tm_status status = ok ? run_gnuplot(script, s.data) : tm__fail_memory();
    free(file);
    tm__string_free(&s);
    return status;
}

tm_status tm__plot_draw(const tm__plot *plot, const char *path) {
    tm__string text = {0};
    char *script = tm__format("%s.gp", path);
    tm_status status = script && put_script(plot, &text) ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(script, text.data, text.len);
    if (status == TM_OK)
        status = draw(script, path, ".svg",
                      "svg size 860,460 dynamic font 'sans-serif,14' background '#fefefe' noenhanced", true);
    if (status == TM_OK) status = draw(script, path, ".png", "pngcairo size 1290,690 font 'sans,15' noenhanced", false);
    tm__string_free(&text);
    free(script);
    return status;
}

/* ---- into a page ------------------------------------------------------------------------------------------------- */

/* A colour as gnuplot writes it, "#020103" or "rgb(  2,   1,   3)": its length and value; 0: it is none. */
static size_t read_colour(const char *at, long *value) {
    char *end;
    if (*at == '#') {
        *value = strtol(at + 1, &end, 16);
        return end - at == 7 ? 7 : 0;
    }
    if (strncmp(at, "rgb(", 4) != 0) return 0;
    long part[3];
    const char *from = at + 4;
    for (int i = 0; i < 3; i++) {
        part[i] = strtol(from, &end, 10);
        if (end == from || *end != (i < 2 ? ',' : ')')) return 0;
        from = end + 1;
    }
    *value = part[0] << 16 | part[1] << 8 | part[2];
    return (size_t)(from - at);
}

static bool put_colour(tm__string *out, const char *text, size_t len, long value) {
    if (value == INK) return tm__string_printf(out, "var(--ink)");
    if (value == PAPER) return tm__string_printf(out, "var(--paper)");
    if (value >= SERIES && value < SERIES + COLOURS) return tm__string_printf(out, "var(--c%ld)", value - SERIES);
    return tm__string_append(out, text, len);
}

tm_status tm__plot_inline(const char *path, const char *label, tm__string *out) {
    char *file = tm__format("%s.svg", path), *text = NULL;
    size_t len;
    tm_status status = file ? tm__file_read(file, (size_t)1 << 26, &text, &len) : tm__fail_memory();
    const char *at = status == TM_OK ? strstr(text, "<svg") : NULL;
    if (status == TM_OK && !at) status = tm__fail(TM_FORMAT, file, NULL, NULL, "is no SVG");
    bool ok = status != TM_OK || tm__string_printf(out, "<svg role=\"img\" aria-label=\"%s\"", label);
    if (status == TM_OK) at += 4;
    while (status == TM_OK && ok && *at) {
        long value;
        size_t plain = strcspn(at, "#r"), n;
        ok = tm__string_append(out, at, plain);
        at += plain;
        if (!*at || !ok) break;
        n = read_colour(at, &value);
        ok = n ? put_colour(out, at, n, value) : tm__string_append(out, at, 1);
        at += n ? n : 1;
    }
    if (status == TM_OK && !ok) status = tm__fail_memory();
    free(file);
    free(text);
    return status;
}
