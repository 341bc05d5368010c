/* plot.c: pictures by gnuplot.
 *
 * gnuplot knows no light and dark: it draws with the colours of a light page, which nothing else in a picture has, and
 * a page replaces each by the variable that it stands for (ink, paper, the i-th series).
 * Pinned by tests/unit/test_report.c.
 */
#include "lab/plot.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { COLOURS = 8, SHADES = 21, INK = 0x1a1a1a, PAPER = 0xfefefe };
static const long series_colours[COLOURS] = {0x0b62a4, 0xc2410c, 0x2f7d32, 0x7b3fa0,
                                             0xa16207, 0x0f766e, 0xbe185d, 0x4b5563};

/* ---- the script -------------------------------------------------------------------------------------------------- */

/* In single quotes nothing has a meaning but the quote itself. */
bool tm__plot_quote(tm__string *out, const char *text) {
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
    ok = ok && tm__plot_quote(out, p->x) && tm__string_printf(out, " tc rgb ink\nset ylabel ");
    ok = ok && tm__plot_quote(out, p->y) && tm__string_printf(out, " tc rgb ink\n");
    if (p->from_zero) ok = ok && tm__string_printf(out, "set yrange [0:*]\n");
    if (p->whole_x) ok = ok && tm__string_printf(out, "set xtics 1\n");
    if (p->log_y) ok = ok && tm__string_printf(out, "set logscale y\nset format y '%%g'\n");
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
        ok = ok && tm__plot_quote(out, series->label);
    }
    return ok && tm__string_printf(out, "\n");
}

/* ---- heat maps --------------------------------------------------------------------------------------------------- */

/* Share of the page's --heat in a shade. */
static double strength(int shade) {
    return .6 * shade / (SHADES - 1);
}

/* On a light page. */
static long shade_colour(int shade) {
    static const int heat[3] = {194, 65, 12};
    long value = 0;
    for (int i = 0; i < 3; i++) value = value << 8 | lround(254 + strength(shade) * (heat[i] - 254));
    return value;
}

/* Texts of tics are formats: a percent sign stands twice. */
static bool put_tic(tm__string *out, const char *name) {
    char text[512];
    size_t n = 0;
    for (; *name && n + 2 < sizeof text; name++) {
        if (*name == '%') text[n++] = '%';
        text[n++] = *name;
    }
    text[n] = 0;
    return tm__plot_quote(out, text);
}

static bool put_names(const char *axis, const char *more, const char *const *names, size_t count, tm__string *out) {
    bool ok = tm__string_printf(out, "set %s %s scale 0 (", axis, more);
    for (size_t i = 0; i < count && ok; i++)
        ok = tm__string_append(out, ", ", i ? 2 : 0) && put_tic(out, names[i]) && tm__string_printf(out, " %zu", i);
    return ok && tm__string_printf(out, ")\n");
}

/* A rectangle per field with its value on it, where there is room for one. Nothing is drawn for what is white. The
 * strongest colour stands for 1, or for the largest value where that is more. */
static bool put_fields(const tm__heat *h, tm__string *out) {
    bool ok = true;
    double most = 1;
    for (size_t i = 0; i < h->rows * h->columns; i++)
        if (isfinite(h->values[i])) most = fmax(most, h->values[i]);
    for (size_t i = 0; i < h->rows * h->columns && ok; i++) {
        size_t x = i % h->columns, y = i / h->columns;
        if (!isfinite(h->values[i])) continue;
        int shade = (int)lround(fmax(0, h->values[i]) / most * (SHADES - 1));
        if (shade)
            ok = tm__string_printf(
                out, "set object rect from %g,%g to %g,%g fc rgb '#%06lx' fs solid noborder behind\n", (double)x - .48,
                (double)y - .46, (double)x + .48, (double)y + .46, shade_colour(shade));
        if (h->columns <= 14)
            ok = ok && tm__string_printf(out, "set label '%.2f' at %zu,%zu center tc rgb ink\n", h->values[i], x, y);
    }
    return ok;
}

static bool put_heat(const tm__heat *h, tm__string *out) {
    bool ok = tm__string_printf(out, "unset border\nunset key\nset tics nomirror tc rgb ink\n");
    ok = ok && put_names("xtics", h->columns > 5 ? "rotate by 35 right" : "", h->column_names, h->columns, out);
    ok = ok && put_names("ytics", "", h->row_names, h->rows, out) && put_fields(h, out);
    return ok && tm__string_printf(out, "plot [-0.5:%g] [%g:-0.5] NaN notitle\n", (double)h->columns - .5,
                                   (double)h->rows - .5);
}

/* Colours under names, with which a body draws. */
static bool put_head(tm__string *out) {
    bool ok = tm__string_printf(out,
                                "# gnuplot FILE shows it; -e \"set terminal svg; set output 'x.svg'\" writes it\n"
                                "ink = '#%06x'\n",
                                INK);
    for (int i = 0; i < COLOURS && ok; i++) ok = tm__string_printf(out, "c%d = '#%06lx'\n", i, series_colours[i]);
    return ok;
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

static tm_status draw(const char *script, const char *path, const char *ending, const char *terminal, int width,
                      int height) {
    tm__string s = {0};
    char *file = tm__format("%s%s", path, ending);
    bool ok = file &&
              tm__string_printf(&s, "set terminal %s noenhanced size %d,%d; set output ", terminal, width, height) &&
              tm__plot_quote(&s, file);
    tm_status status = ok ? run_gnuplot(script, s.data) : tm__fail_memory();
    free(file);
    tm__string_free(&s);
    return status;
}

tm_status tm__plot_script(const char *body, int width, int height, const char *path) {
    tm__string text = {0};
    char *script = tm__format("%s.gp", path);
    bool ok = script && put_head(&text) && tm__string_append(&text, body, strlen(body));
    tm_status status = ok ? tm__file_write(script, text.data, text.len) : tm__fail_memory();
    if (status == TM_OK)
        status = draw(script, path, ".svg", "svg dynamic font 'sans-serif,14' background '#fefefe'", width, height);
    if (status == TM_OK) status = draw(script, path, ".png", "pngcairo font 'sans,15'", width * 3 / 2, height * 3 / 2);
    tm__string_free(&text);
    free(script);
    return status;
}

tm_status tm__plot_draw(const tm__plot *plot, const char *path) {
    tm__string body = {0};
    const tm__heat *heat = plot->heat;
    int height = heat ? 90 + 26 * (int)heat->rows + (heat->columns > 5 ? 90 : 0) : 460;
    bool ok = heat ? put_heat(heat, &body) : put_axes(plot, &body) && put_data(plot, &body) && put_series(plot, &body);
    tm_status status = ok ? tm__plot_script(body.data, 860, height, path) : tm__fail_memory();
    tm__string_free(&body);
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
    for (int i = 0; i < COLOURS; i++)
        if (value == series_colours[i]) return tm__string_printf(out, "var(--c%d)", i);
    for (int i = 1; i < SHADES; i++)
        if (value == shade_colour(i)) return tm__string_printf(out, "rgba(var(--heat),%.2f)", strength(i));
    return tm__string_append(out, text, len);
}

tm_status tm__plot_inline(const char *path, const char *label, tm__string *out) {
    char *file = tm__format("%s.svg", path), *text = NULL;
    size_t len;
    tm_status status = file ? tm__file_read(file, (size_t)1 << 26, &text, &len) : tm__fail_memory();
    const char *at = status == TM_OK ? strstr(text, "<svg") : NULL;
    if (status == TM_OK && !at) status = tm__fail(TM_FORMAT, file, NULL, NULL, "is no SVG");
    bool ok = status != TM_OK || tm__string_printf(out, "<svg role=\"img\" aria-label=\"");
    for (const char *c = label; status == TM_OK && ok && *c; c++)
        ok = strchr("<>&\"", *c) ? tm__string_printf(out, "&#%d;", *c) : tm__string_append(out, c, 1);
    ok = ok && (status != TM_OK || tm__string_append(out, "\"", 1));
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
