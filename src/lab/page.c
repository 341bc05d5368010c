/* page.c: HTML that opens offline, in light, dark and print, on narrow screens too: what is wide scrolls by itself.
 *
 * Pinned by tests/cli/cases/report.sh.
 */
#include "lab/page.h"

#include <stdlib.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */

void tm__page_put(tm__page *p, const char *text) {
    p->ok = p->ok && tm__string_append(&p->text, text, strlen(text));
}

void tm__page_escaped(tm__page *p, const char *text) {
    for (; *text && p->ok; text++) {
        const char *instead = *text == '<'   ? "&lt;"
                              : *text == '>' ? "&gt;"
                              : *text == '&' ? "&amp;"
                              : *text == '"' ? "&quot;"
                                             : NULL;
        p->ok = instead ? tm__string_append(&p->text, instead, strlen(instead)) : tm__string_append(&p->text, text, 1);
    }
}

void tm__page_printf(tm__page *p, const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    tm__page_put(p, text);
}

static void put_element(tm__page *p, const char *element, const char *text) {
    tm__page_printf(p, "<%s>", element);
    tm__page_escaped(p, text);
    tm__page_printf(p, "</%s>\n", element);
}

void tm__page_heading(tm__page *p, const char *title) {
    put_element(p, "h2", title);
}

void tm__page_paragraph(tm__page *p, const char *text) {
    put_element(p, "p", text);
}

void tm__page_fact(tm__page *p, const char *name, const char *text) {
    put_element(p, "dt", name);
    put_element(p, "dd", text);
}

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
    "th[scope]:first-child,thead th.text:first-child{position:sticky;left:0;background:var(--paper)}\n"
    "small,.files,dt{color:var(--soft)}.files{font-size:.85rem}a{color:var(--c0)}code{font-size:.85rem;"
    "overflow-wrap:anywhere}\ndl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem "
    "1rem;margin:.6rem 0}dd{margin:0;overflow-wrap:anywhere}\n"
    "@media (max-width:34rem){thead th{white-space:normal;vertical-align:bottom;min-width:3.2rem}"
    "th[scope]:first-child{white-space:normal;max-width:8rem}dl{display:block}dd{margin:0 0 .4rem}}\n";

void tm__page_begin(tm__page *p, const char *title) {
    tm__page_put(p, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
                    "content=\"width=device-width,initial-scale=1\">\n<title>");
    tm__page_escaped(p, title);
    tm__page_put(p, " · Temper</title>\n<style>\n");
    tm__page_put(p, style);
    for (int i = 0; i <= 10; i++) tm__page_printf(p, "td.h%d{background:rgba(var(--heat),%.2f)}", i, .06 * i);
    tm__page_put(p, "\n</style>\n</head>\n<body>\n");
    put_element(p, "h1", title);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* What the strongest shade stands for: 1, or the largest mean where that is more. */
static double strongest(const tm__sheet *s) {
    double most = 1;
    for (size_t i = 0; i < s->cell_count; i++)
        if (s->columns[i % s->column_count].kind == TM__CELL_MEAN && isfinite(s->cells[i].value))
            most = fmax(most, s->cells[i].value);
    return most;
}

/* 0 (white) to 10; -1: no shade. most: 0 for none. */
static int shade_of(const tm__column *column, const tm__cell *cell, double most) {
    if (most == 0 || column->kind != TM__CELL_MEAN || !isfinite(cell->value)) return -1;
    return (int)lround(fmax(0, cell->value) / most * 10);
}

static void put_cell(tm__page *p, const tm__column *column, const tm__cell *cell, double most) {
    char text[TM__CELL_ROOM];
    bool name = column->kind == TM__CELL_TEXT;
    int shade = shade_of(column, cell, most);
    tm__cell alone = *cell;
    alone.half = NAN;
    tm__cell_read(column, &alone, "", text);
    if (shade >= 0)
        tm__page_printf(p, "<td class=\"h%d\">", shade);
    else
        tm__page_put(p, name ? "<th scope=\"row\">" : "<td>");
    tm__page_escaped(p, text);
    if (column->kind == TM__CELL_MEAN && isfinite(cell->value) && isfinite(cell->half))
        tm__page_printf(p, " <small>± %.*f</small>", column->digits, cell->half);
    tm__page_put(p, name ? "</th>" : "</td>");
}

static void put_sheet(tm__page *p, const tm__sheet *s, bool shaded) {
    double most = shaded ? strongest(s) : 0;
    tm__page_put(p, "<div class=\"wide\"><table>\n<thead><tr>");
    for (size_t c = 0; c < s->column_count; c++) {
        tm__page_put(p, s->columns[c].kind == TM__CELL_TEXT ? "<th class=\"text\">" : "<th>");
        tm__page_escaped(p, s->columns[c].name);
        tm__page_put(p, "</th>");
    }
    tm__page_put(p, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < s->cell_count; i++) {
        size_t c = i % s->column_count;
        if (c == 0) tm__page_put(p, "<tr>");
        put_cell(p, &s->columns[c], &s->cells[i], most);
        if (c + 1 == s->column_count) tm__page_put(p, "</tr>\n");
    }
    tm__page_put(p, "</tbody></table></div>\n");
}

static tm_status write_form(const tm__page *p, const tm__sheet *s, int form, const char *name, const char *ending) {
    tm__string text = {0};
    char *path = tm__format("%s/%s.%s", p->directory, name, ending);
    tm_status status = path ? tm__sheet_write(s, form, &text) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text.data, text.len);
    tm__string_free(&text);
    free(path);
    return status;
}

tm_status tm__page_table(tm__page *p, const char *title, const char *about, const tm__sheet *s, bool shaded,
                         const char *name) {
    if (s->full) return tm__fail_memory();
    if (tm__sheet_rows(s) == 0) return TM_OK;
    tm__page_heading(p, title);
    if (about) tm__page_paragraph(p, about);
    put_sheet(p, s, shaded);
    tm__page_printf(p, "<p class=\"files\"><a href=\"%s.csv\">CSV</a> <a href=\"%s.tex\">LaTeX</a></p>\n", name, name);
    TM__TRY(write_form(p, s, TM_RESULTS_CSV, name, "csv"));
    return write_form(p, s, TM_RESULTS_LATEX, name, "tex");
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

tm_status tm__page_picture(tm__page *p, const char *title, const char *about, tm__page_draw *draw, const void *user,
                           const char *name) {
    if (!p->pictures) return TM_OK;
    char *path = tm__format("%s/%s", p->directory, name);
    tm_status status = path ? draw(user, path) : tm__fail_memory();
    if (status == TM_UNSUPPORTED) {
        tm__note(p->monitor, "no pictures: %s", tm_error_last()->line);
        tm_error_clear();
        p->pictures = false;
        free(path);
        tm__page_paragraph(p, "gnuplot was not there when this page was made: it has no pictures.");
        return TM_OK;
    }
    if (status == TM_OK) {
        tm__page_heading(p, title);
        tm__page_paragraph(p, about);
        tm__page_put(p, "<figure class=\"wide\">");
        status = tm__plot_inline(path, title, &p->text);
        tm__page_put(p, "</figure>\n");
        tm__page_printf(p,
                        "<p class=\"files\"><a href=\"%s.svg\">SVG</a> <a href=\"%s.png\">PNG</a> "
                        "<a href=\"%s.gp\">gnuplot</a></p>\n",
                        name, name, name);
    }
    free(path);
    return status;
}

static tm_status draw_plot(const void *user, const char *path) {
    return tm__plot_draw(user, path);
}

tm_status tm__page_plot(tm__page *p, const char *title, const char *about, const tm__plot *plot, const char *name) {
    return tm__page_picture(p, title, about, draw_plot, plot, name);
}

void tm__page_file_name(const char *kind, const char *group, char name[96]) {
    size_t at = (size_t)snprintf(name, 96, "%s-", kind);
    for (; *group && at + 1 < 96; group++) {
        bool plain =
            (*group >= 'a' && *group <= 'z') || (*group >= 'A' && *group <= 'Z') || (*group >= '0' && *group <= '9');
        name[at++] = plain ? *group : '-';
    }
    name[at] = 0;
}
