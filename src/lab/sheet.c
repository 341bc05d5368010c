/* sheet.c: tables as aligned text, Markdown, CSV (RFC 4180), JSON and LaTeX (booktabs).
 *
 * Pinned by tests/unit/test_report.c and tests/cli/cases/schema.sh.
 */
#include "lab/sheet.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- filling ----------------------------------------------------------------------------------------------------- */

void tm__sheet_column(tm__sheet *s, const char *name, tm__cell_kind kind, int digits) {
    char *kept = tm__arena_strdup(&s->arena, name, strlen(name));
    if (!kept || !tm__grow((void **)&s->columns, &s->column_cap, s->column_count + 1, sizeof *s->columns))
        s->full = true;
    else
        s->columns[s->column_count++] = (tm__column){kept, kind, digits};
}

static void put(tm__sheet *s, tm__cell cell) {
    if (!tm__grow((void **)&s->cells, &s->cell_cap, s->cell_count + 1, sizeof *s->cells))
        s->full = true;
    else
        s->cells[s->cell_count++] = cell;
}

void tm__sheet_text(tm__sheet *s, const char *text) {
    char *kept = text ? tm__arena_strdup(&s->arena, text, strlen(text)) : NULL;
    if (text && !kept) s->full = true;
    put(s, (tm__cell){.text = kept, .value = NAN, .half = NAN});
}

void tm__sheet_number(tm__sheet *s, double value) {
    put(s, (tm__cell){.value = value, .half = NAN});
}

void tm__sheet_mean(tm__sheet *s, double mean, double half, size_t n) {
    put(s, (tm__cell){.value = n ? mean : NAN, .half = half, .n = n});
}

size_t tm__sheet_rows(const tm__sheet *s) {
    return s->column_count ? s->cell_count / s->column_count : 0;
}

void tm__sheet_release(tm__sheet *s) {
    free(s->columns);
    free(s->cells);
    tm__arena_release(&s->arena);
    *s = (tm__sheet){0};
}

/* ---- for readers ------------------------------------------------------------------------------------------------- */

enum { CELL = TM__CELL_ROOM };

void tm__cell_read(const tm__column *column, const tm__cell *cell, const char *plus_minus, char text[CELL]) {
    double least = pow(10, -column->digits);
    if (column->kind == TM__CELL_TEXT)
        snprintf(text, CELL, "%s", cell->text ? cell->text : "");
    else if (!isfinite(cell->value))
        text[0] = 0;
    else if (column->kind == TM__CELL_P && cell->value < least)
        snprintf(text, CELL, "< %.*f", column->digits, least);
    else if (column->kind == TM__CELL_MEAN && isfinite(cell->half))
        snprintf(text, CELL, "%.*f%s%.*f", column->digits, cell->value, plus_minus, column->digits, cell->half);
    else
        snprintf(text, CELL, "%.*f", column->digits, cell->value);
}

/* Characters on the screen, as far as these tables hold any: one per code point. */
static size_t width_of(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static bool pad(tm__string *out, size_t n) {
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) ok = tm__string_append(out, " ", 1);
    return ok;
}

static bool add(tm__string *out, const char *text) {
    return tm__string_append(out, text, strlen(text));
}

/* Texts to the left, numbers to the right; no blanks at the end of a line. */
static bool aligned(const tm__sheet *s, tm__string *out, const char *const *texts, const size_t *widths) {
    bool ok = true;
    for (size_t c = 0; c < s->column_count && ok; c++) {
        size_t room = widths[c] - width_of(texts[c]);
        bool right = s->columns[c].kind != TM__CELL_TEXT;
        ok = pad(out, (c ? 2 : 0) + (right ? room : 0)) && add(out, texts[c]) && pad(out, right ? 0 : room);
    }
    while (ok && out->len && out->data[out->len - 1] == ' ') out->data[--out->len] = 0;
    return ok && add(out, "\n");
}

static bool write_text(const tm__sheet *s, tm__string *out) {
    size_t columns = s->column_count, rows = tm__sheet_rows(s);
    size_t *widths = tm__alloc(columns, sizeof *widths);
    char(*texts)[CELL] = tm__alloc(columns, sizeof *texts);
    const char **line = tm__alloc(columns, sizeof *line);
    bool ok = widths && texts && line;
    for (size_t c = 0; c < columns && ok; c++) {
        widths[c] = width_of(s->columns[c].name);
        line[c] = s->columns[c].name;
        for (size_t r = 0; r < rows; r++) {
            tm__cell_read(&s->columns[c], &s->cells[r * columns + c], " ± ", texts[c]);
            widths[c] = TM__MAX(widths[c], width_of(texts[c]));
        }
    }
    ok = ok && aligned(s, out, line, widths);
    for (size_t r = 0; r < rows && ok; r++) {
        for (size_t c = 0; c < columns; c++) {
            tm__cell_read(&s->columns[c], &s->cells[r * columns + c], " ± ", texts[c]);
            line[c] = texts[c];
        }
        ok = aligned(s, out, line, widths);
    }
    free(widths);
    free(texts);
    free((void *)line);
    return ok;
}

/* Text with every character of `special` replaced by its partner in `instead`. */
static bool add_escaped(tm__string *out, const char *text, const char *special, const char *const *instead) {
    bool ok = true;
    for (; *text && ok; text++) {
        const char *at = strchr(special, *text);
        ok = at ? add(out, instead[at - special]) : tm__string_append(out, text, 1);
    }
    return ok;
}

static bool write_markdown(const tm__sheet *s, tm__string *out) {
    static const char *const instead[] = {"\\|"};
    char text[CELL];
    bool ok = true;
    for (size_t c = 0; c < s->column_count && ok; c++)
        ok = add(out, "| ") && add_escaped(out, s->columns[c].name, "|", instead) && add(out, " ");
    ok = ok && add(out, "|\n");
    for (size_t c = 0; c < s->column_count && ok; c++)
        ok = add(out, s->columns[c].kind == TM__CELL_TEXT ? "|---" : "|---:");
    ok = ok && add(out, "|\n");
    for (size_t i = 0; i < s->cell_count && ok; i++) {
        size_t c = i % s->column_count;
        tm__cell_read(&s->columns[c], &s->cells[i], " ± ", text);
        ok = add(out, "| ") && add_escaped(out, text, "|", instead) && add(out, text[0] ? " " : "");
        if (c + 1 == s->column_count) ok = ok && add(out, "|\n");
    }
    return ok;
}

static bool write_latex(const tm__sheet *s, tm__string *out) {
    static const char special[] = "&%$#_{}~^\\";
    static const char *const instead[] = {"\\&",
                                          "\\%",
                                          "\\$",
                                          "\\#",
                                          "\\_",
                                          "\\{",
                                          "\\}",
                                          "\\textasciitilde{}",
                                          "\\textasciicircum{}",
                                          "\\textbackslash{}"};
    char text[CELL];
    bool ok = add(out, "% needs \\usepackage{booktabs}\n\\begin{tabular}{");
    for (size_t c = 0; c < s->column_count && ok; c++) ok = add(out, s->columns[c].kind == TM__CELL_TEXT ? "l" : "r");
    ok = ok && add(out, "}\n\\toprule\n");
    for (size_t c = 0; c < s->column_count && ok; c++)
        ok = add(out, c ? " & " : "") && add_escaped(out, s->columns[c].name, special, instead);
    ok = ok && add(out, " \\\\\n\\midrule\n");
    for (size_t i = 0; i < s->cell_count && ok; i++) {
        size_t c = i % s->column_count;
        bool plain = s->columns[c].kind == TM__CELL_TEXT;
        tm__cell_read(&s->columns[c], &s->cells[i], " \\pm ", text);
        ok = add(out, c ? " & " : "");
        if (plain)
            ok = ok && add_escaped(out, text, special, instead);
        else if (text[0])
            ok = ok && tm__string_printf(out, "$%s$", text);
        if (c + 1 == s->column_count) ok = ok && add(out, " \\\\\n");
    }
    return ok && add(out, "\\bottomrule\n\\end{tabular}\n");
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static bool csv_text(tm__string *out, const char *text) {
    static const char *const instead[] = {"\"\""};
    if (!strpbrk(text, ",\"\r\n")) return add(out, text);
    return add(out, "\"") && add_escaped(out, text, "\"", instead) && add(out, "\"");
}

static bool csv_number(tm__string *out, double value) {
    return !isfinite(value) || tm__string_printf(out, "%.17g", value);
}

static bool csv_cell(tm__string *out, const tm__column *column, const tm__cell *cell) {
    if (column->kind == TM__CELL_TEXT) return csv_text(out, cell->text ? cell->text : "");
    bool ok = csv_number(out, cell->value);
    if (column->kind == TM__CELL_MEAN)
        ok = ok && add(out, ",") && csv_number(out, cell->half) && tm__string_printf(out, ",%zu", cell->n);
    return ok;
}

static bool write_csv(const tm__sheet *s, tm__string *out) {
    bool ok = true;
    char name[128];
    for (size_t c = 0; c < s->column_count && ok; c++) {
        ok = add(out, c ? "," : "") && csv_text(out, s->columns[c].name);
        if (s->columns[c].kind != TM__CELL_MEAN) continue;
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%s_%s", s->columns[c].name, i ? "n" : "half");
            ok = ok && add(out, ",") && csv_text(out, name);
        }
    }
    ok = ok && add(out, "\n");
    for (size_t i = 0; i < s->cell_count && ok; i++) {
        size_t c = i % s->column_count;
        ok = add(out, c ? "," : "") && csv_cell(out, &s->columns[c], &s->cells[i]);
        if (c + 1 == s->column_count) ok = ok && add(out, "\n");
    }
    return ok;
}

static json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static bool json_cell(json_t *row, const tm__column *column, const tm__cell *cell) {
    char name[128];
    if (column->kind == TM__CELL_TEXT)
        return json_object_set_new(row, column->name, cell->text ? json_string(cell->text) : json_null()) == 0;
    bool ok = json_object_set_new(row, column->name, json_number(cell->value)) == 0;
    if (column->kind != TM__CELL_MEAN) return ok;
    snprintf(name, sizeof name, "%s_half", column->name);
    ok = ok && json_object_set_new(row, name, json_number(cell->half)) == 0;
    snprintf(name, sizeof name, "%s_n", column->name);
    return ok && json_object_set_new(row, name, json_integer((json_int_t)cell->n)) == 0;
}

static bool write_json(const tm__sheet *s, tm__string *out) {
    json_t *rows = json_array();
    char *text = NULL;
    bool ok = rows != NULL;
    for (size_t r = 0; r < tm__sheet_rows(s) && ok; r++) {
        json_t *row = json_object();
        for (size_t c = 0; c < s->column_count && ok; c++)
            ok = row && json_cell(row, &s->columns[c], &s->cells[r * s->column_count + c]);
        ok = json_array_append_new(rows, row) == 0 && ok;
    }
    ok = ok && tm__json_dump(rows, JSON_COMPACT, &text, NULL) == TM_OK && add(out, text) && add(out, "\n");
    free(text);
    json_decref(rows);
    return ok;
}

tm_status tm__sheet_write(const tm__sheet *sheet, int form, tm__string *out) {
    static bool (*const forms[])(const tm__sheet *, tm__string *) = {
        [TM_RESULTS_TEXT] = write_text, [TM_RESULTS_MARKDOWN] = write_markdown, [TM_RESULTS_CSV] = write_csv,
        [TM_RESULTS_JSON] = write_json, [TM_RESULTS_LATEX] = write_latex,
    };
    if (sheet->full) return tm__fail_memory();
    assert(sheet->column_count && sheet->cell_count % sheet->column_count == 0);
    if ((unsigned)form >= TM__COUNT(forms))
        return tm__fail(TM_INVALID, NULL, "form", NULL, "there is no form %d", form);
    return forms[form](sheet, out) ? TM_OK : tm__fail_memory();
}
