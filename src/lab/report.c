/* report.c: a plan's results as one page and its parts: tables in the layout of the field's papers, harm against
 * ability, harm against the attacker's cost, losses, tests, costs, and what is needed to repeat it.
 *
 * Pinned by tests/unit/test_report.c and tests/cli/cases/report.sh.
 */
#include "lab/plot.h"
#include "lab/tables.h"

#include <stdlib.h>

/* One arm in one view: a point, a curve or a row. */
typedef struct arm_view {
    const char *arm;
    const tm__view *view;
    char label[2 * TM__PLAN_NAME];
} arm_view;

typedef struct report {
    tm__found found;
    const char *directory;
    const tm_monitor *monitor;
    tm__string page;
    arm_view *arms;
    size_t arm_count;
    bool ok, pictures; /* ok: memory has sufficed; pictures: gnuplot is there */
} report;

/* ---- HTML -------------------------------------------------------------------------------------------------------- */

static void put(report *r, const char *text) {
    r->ok = r->ok && tm__string_append(&r->page, text, strlen(text));
}

static void put_escaped(report *r, const char *text) {
    for (; *text && r->ok; text++) {
        const char *instead = *text == '<'   ? "&lt;"
                              : *text == '>' ? "&gt;"
                              : *text == '&' ? "&amp;"
                              : *text == '"' ? "&quot;"
                                             : NULL;
        r->ok = instead ? tm__string_append(&r->page, instead, strlen(instead)) : tm__string_append(&r->page, text, 1);
    }
}

static void put_heading(report *r, const char *title) {
    put(r, "<h2>");
    put_escaped(r, title);
    put(r, "</h2>\n");
}

static void put_paragraph(report *r, const char *text) {
    put(r, "<p>");
    put_escaped(r, text);
    put(r, "</p>\n");
}

/* 0 (white) to 10 of a share; -1: no shade. */
static int shade_of(const tm__column *column, const tm__cell *cell, bool shaded) {
    if (!shaded || column->kind == TM__CELL_TEXT || !isfinite(cell->value)) return -1;
    return (int)lround(fmin(1, fmax(0, cell->value)) * 10);
}

static void put_cell(report *r, const tm__column *column, const tm__cell *cell, bool shaded) {
    char text[64] = "";
    int shade = shade_of(column, cell, shaded);
    if (shade >= 0)
        r->ok = r->ok && tm__string_printf(&r->page, "<td class=\"h%d\">", shade);
    else
        put(r, column->kind == TM__CELL_TEXT ? "<th scope=\"row\">" : "<td>");
    if (column->kind != TM__CELL_TEXT && isfinite(cell->value))
        snprintf(text, sizeof text, "%.*f", column->digits, cell->value);
    put_escaped(r, column->kind == TM__CELL_TEXT ? (cell->text ? cell->text : "") : text);
    if (column->kind == TM__CELL_MEAN && isfinite(cell->value) && isfinite(cell->half))
        r->ok = r->ok && tm__string_printf(&r->page, " <small>± %.*f</small>", column->digits, cell->half);
    put(r, column->kind == TM__CELL_TEXT ? "</th>" : "</td>");
}

static void put_sheet(report *r, const tm__sheet *s, bool shaded) {
    put(r, "<div class=\"wide\"><table>\n<thead><tr>");
    for (size_t c = 0; c < s->column_count; c++) {
        put(r, s->columns[c].kind == TM__CELL_TEXT ? "<th class=\"text\">" : "<th>");
        put_escaped(r, s->columns[c].name);
        put(r, "</th>");
    }
    put(r, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < s->cell_count; i++) {
        size_t c = i % s->column_count;
        if (c == 0) put(r, "<tr>");
        put_cell(r, &s->columns[c], &s->cells[i], shaded);
        if (c + 1 == s->column_count) put(r, "</tr>\n");
    }
    put(r, "</tbody></table></div>\n");
}

/* ---- files beside the page --------------------------------------------------------------------------------------- */

static tm_status write_form(const report *r, const tm__sheet *s, int form, const char *name, const char *ending) {
    tm__string text = {0};
    char *path = tm__format("%s/%s.%s", r->directory, name, ending);
    tm_status status = path ? tm__sheet_write(s, form, &text) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text.data, text.len);
    tm__string_free(&text);
    free(path);
    return status;
}

/* The table in the page, and as CSV and LaTeX; `name` is the files'. */
static tm_status add_table(report *r, const char *title, const char *about, const tm__sheet *s, bool shaded,
                           const char *name) {
    if (tm__sheet_rows(s) == 0) return TM_OK;
    put_heading(r, title);
    if (about) put_paragraph(r, about);
    put_sheet(r, s, shaded);
    r->ok = r->ok && tm__string_printf(
                         &r->page, "<p class=\"files\"><a href=\"%s.csv\">CSV</a> <a href=\"%s.tex\">LaTeX</a></p>\n",
                         name, name);
    TM__TRY(write_form(r, s, TM_RESULTS_CSV, name, "csv"));
    return write_form(r, s, TM_RESULTS_LATEX, name, "tex");
}

static tm_status add_plot(report *r, const char *title, const char *about, const tm__plot *plot, const char *name) {
    if (!r->pictures) return TM_OK;
    char *path = tm__format("%s/%s", r->directory, name);
    tm_status status = path ? tm__plot_draw(plot, path) : tm__fail_memory();
    if (status == TM_UNSUPPORTED) {
        tm__note(r->monitor, "no pictures: %s", tm_error_last()->line);
        tm_error_clear();
        r->pictures = false;
        free(path);
        put_paragraph(r, "gnuplot was not there when this page was made: it has no pictures.");
        return TM_OK;
    }
    if (status == TM_OK) {
        put_heading(r, title);
        put_paragraph(r, about);
        put(r, "<figure class=\"wide\">");
        status = tm__plot_inline(path, title, &r->page);
        put(r, "</figure>\n");
        r->ok = r->ok && tm__string_printf(&r->page,
                                           "<p class=\"files\"><a href=\"%s.svg\">SVG</a> <a href=\"%s.png\">PNG</a> "
                                           "<a href=\"%s.gp\">gnuplot</a></p>\n",
                                           name, name, name);
    }
    free(path);
    return status;
}

/* ---- arms -------------------------------------------------------------------------------------------------------- */

static bool seen_in(const report *r, const char *arm, const tm__view *view) {
    char name[40];
    double value;
    snprintf(name, sizeof name, "leak%s", view->suffix);
    for (size_t i = 0; i < r->found.count; i++)
        if (strcmp(r->found.records[i].arm, arm) == 0 && tm__record_get(&r->found.records[i], name, &value))
            return true;
    return false;
}

static tm_status list_arms(report *r) {
    const tm_plan *plan = r->found.plan;
    r->arms = tm__alloc(plan->arm_count * TM__VIEWS + 1, sizeof *r->arms);
    if (!r->arms) return tm__fail_memory();
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t v = 0; v < TM__VIEWS; v++) {
            if (!seen_in(r, plan->arms[a].name, &tm__views[v])) continue;
            arm_view *made = &r->arms[r->arm_count++];
            *made = (arm_view){.arm = plan->arms[a].name, .view = &tm__views[v]};
            snprintf(made->label, sizeof made->label, "%s%s", made->arm, made->view->label);
        }
    return TM_OK;
}

/* Files of a group: letters and digits of its name. */
static void file_name(const char *kind, const char *group, char name[96]) {
    size_t at = (size_t)snprintf(name, 96, "%s-", kind);
    for (; *group && at + 1 < 96; group++) {
        bool plain =
            (*group >= 'a' && *group <= 'z') || (*group >= 'A' && *group <= 'Z') || (*group >= '0' && *group <= '9');
        name[at++] = plain ? *group : '-';
    }
    name[at] = 0;
}

/* ---- harm against ability ---------------------------------------------------------------------------------------- */

typedef struct points {
    tm__series *series; /* one per arm, and the front */
    double *x, *y;      /* a point per arm; the front's behind them */
    size_t count;
} points;

static void points_free(points *p) {
    free(p->series);
    free(p->x);
    free(p->y);
}

/* Whether no other arm keeps more skills with less leak. */
static bool on_front(const points *p, size_t i) {
    for (size_t k = 0; k < p->count; k++)
        if (p->x[k] >= p->x[i] && p->y[k] <= p->y[i] && (p->x[k] > p->x[i] || p->y[k] < p->y[i])) return false;
    return true;
}

static size_t find_front(const points *p, size_t room, double *x, double *y) {
    size_t n = 0;
    for (size_t i = 0; i < p->count && n < room; i++) {
        if (!on_front(p, i)) continue;
        size_t at = n++;
        for (; at > 0 && x[at - 1] > p->x[i]; at--) {
            x[at] = x[at - 1];
            y[at] = y[at - 1];
        }
        x[at] = p->x[i];
        y[at] = p->y[i];
    }
    return n;
}

static tm_status add_scatter(report *r, const char *group) {
    size_t all = tm__tables_attackers(r->found.plan, group), room = r->arm_count + 1;
    points p = {.series = tm__zalloc(room, sizeof *p.series),
                .x = tm__alloc(2 * room, sizeof *p.x),
                .y = tm__alloc(2 * room, sizeof *p.y)};
    tm_status status = p.series && p.x && p.y ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < r->arm_count && status == TM_OK; i++) {
        const arm_view *a = &r->arms[i];
        double mean;
        size_t met;
        const char *w = tm__tables_worst(&r->found, group, a->arm, "leak", a->view->suffix, &mean, &met);
        if (!w || met < all) continue;
        p.x[p.count] = tm__tables_of(&r->found, a->arm, w, "skills", a->view->suffix).mean;
        p.y[p.count] = tm__tables_of(&r->found, a->arm, w, "leak", a->view->suffix).mean;
        p.series[p.count] = (tm__series){a->label, TM__MARK_POINT, &p.x[p.count], &p.y[p.count], 1};
        p.count++;
    }
    if (status == TM_OK && p.count > 1) {
        char title[128], name[96];
        size_t front = find_front(&p, room, p.x + room, p.y + room);
        p.series[p.count] = (tm__series){"front", TM__MARK_FRONT, p.x + room, p.y + room, front};
        snprintf(title, sizeof title, "Harm and ability after the worst attacker of %s", group);
        file_name("harm-ability", group, name);
        const tm__plot plot = {.x = "benign skills kept",
                               .y = "forbidden knowledge leaked",
                               .share_x = true,
                               .share_y = true,
                               .series = p.series,
                               .count = p.count + 1};
        status = add_plot(r, title,
                          "Each defence after the attacker of this group that gets most out of it. Low and to the "
                          "right is better; the broken line joins those that no other beats in both.",
                          &plot, name);
    }
    points_free(&p);
    return status;
}

/* ---- harm against the attacker's cost ---------------------------------------------------------------------------- */

typedef struct price {
    double cost, leak;
} price;

static int cheaper(const void *a, const void *b) {
    double x = ((const price *)a)->cost, y = ((const price *)b)->cost;
    return (x > y) - (x < y);
}

/* The most that any attacker up to each cost gets; x, y: as many as the group has attackers. */
static size_t cost_curve(const report *r, const char *group, const arm_view *a, price *prices, double *x, double *y) {
    size_t n = 0;
    double most = 0;
    for (size_t i = 0; i < r->found.plan->attack_count; i++) {
        const tm__plan_attack *k = &r->found.plan->attacks[i];
        if (strcmp(k->group, group) != 0) continue;
        tm__stats leak = tm__tables_of(&r->found, a->arm, k->name, "leak", a->view->suffix);
        if (leak.n) prices[n++] = (price){tm__tables_of(&r->found, a->arm, k->name, "cpu_seconds", "").mean, leak.mean};
    }
    qsort(prices, n, sizeof *prices, cheaper);
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, prices[i].leak);
        x[i] = fmax(prices[i].cost, .01);
        y[i] = most;
    }
    return n;
}

static tm_status add_costs(report *r, const char *group) {
    size_t all = tm__tables_attackers(r->found.plan, group), count = 0;
    tm__series *series = tm__zalloc(r->arm_count + 1, sizeof *series);
    double *x = tm__alloc(r->arm_count * all + 1, sizeof *x), *y = tm__alloc(r->arm_count * all + 1, sizeof *y);
    price *prices = tm__alloc(all + 1, sizeof *prices);
    tm_status status = series && x && y && prices ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < r->arm_count && status == TM_OK && all > 1; i++) {
        size_t n = cost_curve(r, group, &r->arms[i], prices, x + i * all, y + i * all);
        if (n < all) continue;
        series[count++] = (tm__series){r->arms[i].label, TM__MARK_STEP, x + i * all, y + i * all, n};
    }
    if (status == TM_OK && count) {
        char title[128], name[96];
        snprintf(title, sizeof title, "Harm and the attacker's cost, %s", group);
        file_name("harm-cost", group, name);
        const tm__plot plot = {.x = "CPU seconds of the attack",
                               .y = "most leaked for at most that cost",
                               .log_x = true,
                               .share_y = true,
                               .series = series,
                               .count = count};
        status = add_plot(r, title,
                          "What the best attacker of this group gets who spends at most so much. Where a curve begins "
                          "to rise is the smallest budget that breaks the defence.",
                          &plot, name);
    }
    free(series);
    free(x);
    free(y);
    free(prices);
    return status;
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

enum { STEPS = 20000 };

typedef struct curve {
    double *x, *y;
    size_t n;
} curve;

static tm_status add_step(void *user, int columns, const char *const *names, const char *const *v) {
    curve *c = user;
    (void)columns;
    (void)names;
    if (c->n == STEPS || !v[0] || !v[1]) return TM_OK;
    c->x[c->n] = strtod(v[0], NULL);
    c->y[c->n++] = strtod(v[1], NULL);
    return TM_OK;
}

/* The loss of the first harmful attacker's training against every arm, mean over the cells that have it. */
static tm_status add_losses(report *r) {
    static const char sql[] =
        "SELECT step, avg(loss) FROM cell JOIN metric USING (key) WHERE plan = ?1 AND arm = ?2 AND "
        "attack = ?3 AND part = 0 GROUP BY step ORDER BY step";
    const tm_plan *plan = r->found.plan;
    size_t attack = 0, count = 0;
    tm__store *store;
    while (attack < plan->attack_count && tm__tables_kind(&plan->attacks[attack]) != TM__ATTACK_HARMFUL) attack++;
    if (attack == plan->attack_count) return TM_OK;
    TM__TRY(tm__plan_store(plan, false, &store));
    tm__series *series = tm__zalloc(plan->arm_count + 1, sizeof *series);
    curve *curves = tm__zalloc(plan->arm_count + 1, sizeof *curves);
    tm_status status = series && curves ? TM_OK : tm__fail_memory();
    for (size_t a = 0; a < plan->arm_count && status == TM_OK; a++) {
        const char *const values[] = {plan->name, plan->arms[a].name, plan->attacks[attack].name};
        curve *c = &curves[a];
        *c = (curve){tm__alloc(STEPS, sizeof *c->x), tm__alloc(STEPS, sizeof *c->y), 0};
        status = c->x && c->y ? tm__store_query(store, sql, values, 3, add_step, c) : tm__fail_memory();
        if (status == TM_OK && c->n > 1)
            series[count++] = (tm__series){plan->arms[a].name, TM__MARK_LINE, c->x, c->y, c->n};
    }
    if (status == TM_OK && count) {
        char title[256];
        snprintf(title, sizeof title, "Loss of the attacker %s", plan->attacks[attack].name);
        const tm__plot plot = {.x = "step", .y = "loss", .series = series, .count = count};
        status = add_plot(r, title,
                          "Cross-entropy of the attacker's rows while he trains, mean over worlds and seeds. A defence "
                          "that keeps it high makes the rows hard to learn.",
                          &plot, "loss");
    }
    for (size_t a = 0; curves && a < plan->arm_count; a++) {
        free(curves[a].x);
        free(curves[a].y);
    }
    free(curves);
    free(series);
    return status;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

enum { MOST = 256 };

static const tm__record *record_of(const report *r, const char *arm, const char *attack, int64_t replicate) {
    for (size_t i = 0; i < r->found.count; i++) {
        const tm__record *x = &r->found.records[i];
        if (x->replicate == replicate && strcmp(x->arm, arm) == 0 && strcmp(x->attack, attack) == 0) return x;
    }
    return NULL;
}

/* Arm minus the first arm, of one replicate: mean over the attackers of a group that both met. NAN: none. */
static double difference(const report *r, const char *group, const arm_view *a, const char *score, int64_t replicate) {
    const tm_plan *plan = r->found.plan;
    double sum = 0, x, y;
    size_t n = 0;
    char name[40];
    snprintf(name, sizeof name, "%s%s", score, a->view->suffix);
    for (size_t i = 0; i < plan->attack_count; i++) {
        if (strcmp(plan->attacks[i].group, group) != 0) continue;
        const tm__record *mine = record_of(r, a->arm, plan->attacks[i].name, replicate);
        const tm__record *base = record_of(r, plan->arms[0].name, plan->attacks[i].name, replicate);
        if (!mine || !base || !tm__record_get(mine, name, &y) || !tm__record_get(base, score, &x)) continue;
        sum += y - x;
        n++;
    }
    return n ? sum / (double)n : NAN;
}

static size_t differences(const report *r, const char *group, const arm_view *a, const char *score,
                          double values[MOST]) {
    size_t n = 0;
    for (int64_t k = 0; k < TM__MIN(r->found.plan->replicates, (int64_t)MOST); k++) {
        double d = difference(r, group, a, score, k);
        if (isfinite(d)) values[n++] = d;
    }
    return n;
}

/* Each difference is looked up once: its mean and interval are kept for the row, its p for the correction. */
static tm_status put_tests(const report *r, const char *group, tm__sheet *s) {
    static const char *const scores[] = {"leak", "skills"};
    size_t most = 2 * r->arm_count;
    double values[MOST], *p = tm__alloc(most + 1, sizeof *p);
    tm__stats *d = tm__alloc(most + 1, sizeof *d);
    tm_status status = p && d ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < most && status == TM_OK; i++) {
        size_t n = differences(r, group, &r->arms[i / 2], scores[i % 2], values);
        /* The first arm against itself is no comparison. */
        bool itself = i / 2 == 0 && !r->arms[0].view->suffix[0];
        p[i] = itself ? NAN : tm__paired_p(values, n);
        d[i] = tm__stats_of(values, n);
    }
    if (status == TM_OK) tm__holm(p, most);
    for (size_t i = 0; i < most && status == TM_OK; i += 2) {
        if (isnan(p[i]) && isnan(p[i + 1])) continue;
        tm__sheet_text(s, r->arms[i / 2].label);
        for (size_t k = i; k < i + 2; k++) {
            tm__sheet_mean(s, d[k].mean, d[k].half, d[k].n);
            tm__sheet_number(s, p[k]);
        }
        tm__sheet_number(s, (double)d[i].n);
    }
    free(p);
    free(d);
    return status;
}

static tm_status add_tests(report *r, const char *group) {
    static const tm__column columns[] = {{"arm", TM__CELL_TEXT, 0},         {"leak", TM__CELL_MEAN, 2},
                                         {"p, leak", TM__CELL_NUMBER, 3},   {"skills", TM__CELL_MEAN, 2},
                                         {"p, skills", TM__CELL_NUMBER, 3}, {"n", TM__CELL_NUMBER, 0}};
    char title[192], name[96];
    tm__sheet s = {0};
    for (size_t i = 0; i < TM__COUNT(columns); i++)
        tm__sheet_column(&s, columns[i].name, columns[i].kind, columns[i].digits);
    tm_status status = put_tests(r, group, &s);
    snprintf(title, sizeof title, "Against %s: difference from %s", group, r->found.plan->arms[0].name);
    file_name("tests", group, name);
    if (status == TM_OK)
        status =
            add_table(r, title,
                      "Mean over the attackers that both met, paired by replicate; p of a two-sided paired t test, "
                      "corrected for all comparisons of this table (Holm). Replicates of one world share its base "
                      "model, so p speaks of these worlds.",
                      &s, false, name);
    tm__sheet_release(&s);
    return status;
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{color-scheme:light "
    "dark;--paper:#fefefe;--ink:#1a1a1a;--soft:#5b6470;--line:#d9dde3;--c0:#0b62a4;--c1:#c2410c;"
    "--c2:#2f7d32;--c3:#7b3fa0;--c4:#a16207;--c5:#0f766e;--c6:#be185d;--c7:#4b5563;--heat:194,65,12}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e6e8eb;--soft:#9aa4b1;--line:#333a44;--c0:#6cb4ee;"
    "--c1:#fb923c;--c2:#7ccf80;--c3:#c79be8;--c4:#e3b341;--c5:#5eead4;--c6:#f472b6;--c7:#b6bec9;--heat:234,100,30}}\n"
    "@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb}.wide{overflow:visible}h2{break-after:avoid}"
    "figure,tr{break-inside:avoid}}\n"
    "body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;"
    "padding:1rem}\n"
    "h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .4rem}p{margin:.3rem 0;max-width:46rem}\n"
    ".wide{overflow-x:auto;margin:.6rem 0}figure svg{min-width:36rem;width:100%;height:auto;display:block}\n"
    "table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.2rem .55rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\n"
    "th[scope],th.text{text-align:left;font-weight:400}thead th{font-weight:600;border-bottom:2px solid var(--soft)}\n"
    "small,.files,dt{color:var(--soft)}.files{font-size:.85rem}a{color:var(--c0)}code{font-size:.85rem;"
    "overflow-wrap:anywhere}\ndl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem "
    "1rem;margin:.6rem "
    "0}dd{margin:0;overflow-wrap:anywhere}\n";

static void put_style(report *r) {
    put(r, "<style>\n");
    put(r, style);
    for (int i = 0; i <= 10; i++)
        r->ok = r->ok && tm__string_printf(&r->page, "td.h%d{background:rgba(var(--heat),%.2f)}", i, .06 * i);
    put(r, "\n</style>\n");
}

static size_t count_cells(const tm_plan *plan) {
    size_t n = 0;
    for (size_t i = 0; i < plan->job_count; i++) n += plan->jobs[i].kind == TM__JOB_CELL;
    return n;
}

static void put_fact(report *r, const char *name, const char *text) {
    put(r, "<dt>");
    put(r, name);
    put(r, "</dt><dd>");
    put_escaped(r, text);
    put(r, "</dd>\n");
}

static tm_status put_head(report *r) {
    const tm_plan *plan = r->found.plan;
    char text[512], *file = NULL, hex[65];
    size_t len, cells = count_cells(plan), at = 0;
    put(r, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
           "content=\"width=device-width,initial-scale=1\">\n<title>");
    put_escaped(r, plan->name);
    put(r, " · Temper</title>\n");
    put_style(r);
    put(r, "</head>\n<body>\n<h1>");
    put_escaped(r, plan->name);
    put(r, "</h1>\n");
    if (r->found.count < cells) {
        snprintf(text, sizeof text, "Part of the plan only: %zu of %zu cells are done.", r->found.count, cells);
        put_paragraph(r, text);
    }
    put(r, "<dl>\n");
    snprintf(text, sizeof text, "%zu defences, %zu attackers, %lld replicates: %zu cells", plan->arm_count,
             plan->attack_count, (long long)plan->replicates, r->found.count);
    put_fact(r, "what", text);
    for (size_t i = 0; i < plan->world_count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu", i ? ", " : "worlds ",
                               (unsigned long long)plan->worlds[i]);
    snprintf(text + at, sizeof text - at,
             "; a replicate has one seed for defence and attack; replicates of one world "
             "share its base model");
    put_fact(r, "seeds", text);
    put_fact(r, "intervals", "mean ± half of a 95% interval of Student's t over replicates");
    put_fact(r, "made by", plan->setup);
    TM__TRY(tm__file_read(plan->path, (size_t)1 << 26, &file, &len));
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, file, len);
    tm__sha256_hex(&hash, hex);
    free(file);
    snprintf(text, sizeof text, "SHA-256 %s", hex);
    put_fact(r, "plan", text);
    put(r, "</dl>\n");
    return TM_OK;
}

/* What is needed to repeat it: the command, the plan word for word, the key of every cell. */
static void put_appendix(report *r) {
    const tm_plan *plan = r->found.plan;
    put_heading(r, "To repeat it");
    put(r, "<p><code>temper run ");
    put_escaped(r, plan->path);
    put(r, " --directory ");
    put_escaped(r, plan->directory);
    for (size_t i = 0; i < plan->override_count; i++) {
        put(r, " --set '");
        put_escaped(r, plan->overrides[i]);
        put(r, "'");
    }
    put(r, "</code></p>\n<details><summary>The plan</summary><pre class=\"wide\"><code>");
    put_escaped(r, plan->text);
    put(r, "</code></pre></details>\n<details><summary>Key of every cell</summary>\n<pre class=\"wide\"><code>");
    for (size_t i = 0; i < r->found.count; i++) {
        const tm__record *x = &r->found.records[i];
        char line[64];
        put(r, x->key);
        snprintf(line, sizeof line, " world %llu, seed %llu: ", (unsigned long long)x->world,
                 (unsigned long long)x->seed);
        put(r, line);
        put_escaped(r, x->arm);
        put(r, ", ");
        put_escaped(r, x->attack);
        put(r, "\n");
    }
    put(r, "</code></pre></details>\n</body>\n</html>\n");
}

static tm_status add_tables(report *r) {
    tm__tables all = {0};
    tm_status status = tm__tables_make(&r->found, NULL, &all);
    for (size_t i = 0; i < all.count && status == TM_OK; i++) {
        char name[96];
        bool matrix = strstr(all.items[i].title, "after the attack") != NULL;
        file_name("table", all.items[i].title, name);
        status =
            add_table(r, all.items[i].title,
                      matrix ? "Darker is more. One column for each value of the first axis of the attackers." : NULL,
                      &all.items[i].sheet, matrix, name);
    }
    tm__tables_release(&all);
    return status;
}

static tm_status fill(report *r) {
    const tm_plan *plan = r->found.plan;
    TM__TRY(list_arms(r));
    TM__TRY(put_head(r));
    for (size_t i = 0; i < plan->attack_count; i++) {
        if (!tm__tables_new_group(plan, i)) continue;
        TM__TRY(add_scatter(r, plan->attacks[i].group));
        TM__TRY(add_costs(r, plan->attacks[i].group));
        TM__TRY(add_tests(r, plan->attacks[i].group));
    }
    TM__TRY(add_tables(r));
    TM__TRY(add_losses(r));
    put_appendix(r);
    if (!r->ok) return tm__fail_memory();
    char *path = tm__path_join(r->directory, "report.html");
    tm_status status = path ? tm__file_write(path, r->page.data, r->page.len) : tm__fail_memory();
    free(path);
    return status;
}

/* What is replaced is a report, and no directory of somebody's. */
static tm_status check_replaced(const char *directory) {
    char *page = tm__path_join(directory, "report.html");
    if (!page) return tm__fail_memory();
    bool may = !tm__path_is_directory(directory) || tm__path_is_empty_directory(directory) || tm__path_exists(page);
    free(page);
    return may ? TM_OK
               : tm__fail(TM_EXISTS, directory, NULL, "choose another name, or remove it yourself",
                          "holds no report, so it is not replaced by one");
}

tm_status tm_plan_report(const tm_plan *plan, const char *directory, bool overwrite, const tm_monitor *monitor) {
    tm__outdir out = {0};
    tm__record *records = NULL;
    report r = {.found = {.plan = plan}, .monitor = monitor, .ok = true, .pictures = true};
    TM__TRY(tm__records_load(plan, &records, &r.found.count));
    r.found.records = records;
    tm_status status = overwrite ? check_replaced(directory) : TM_OK;
    if (status == TM_OK)
        status = r.found.count ? tm__outdir_begin(&out, directory, overwrite)
                               : tm__fail(TM_NOT_FOUND, plan->directory, NULL, "temper run does cells",
                                          "no cell of %s is done", plan->path);
    r.directory = out.aside;
    if (status == TM_OK) status = fill(&r);
    if (status == TM_OK)
        status = tm__outdir_commit(&out);
    else
        tm__outdir_abandon(&out);
    tm__string_free(&r.page);
    free(r.arms);
    free(records);
    return status;
}
