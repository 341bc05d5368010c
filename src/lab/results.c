/* results.c: what a result store holds, filtered and as a table; neither plan nor models are needed for it. */
#include "lab/results.h"

#include "lab/plan.h"
#include "lab/sheet.h"
#include "lab/stats.h"

#include <fnmatch.h>
#include <stdlib.h>

const tm_option tm_results_option_table[] = {
    {"plan", TM_OPTION_TEXT, offsetof(tm_results_options, plan), NULL, 1, 0, NULL, "NAMES", "cells of these plans"},
    {"arm", TM_OPTION_TEXT, offsetof(tm_results_options, arm), NULL, 1, 0, NULL, "NAMES",
     "these defences; a list separated by commas, each name may hold * and ?"},
    {"attack", TM_OPTION_TEXT, offsetof(tm_results_options, attack), NULL, 1, 0, NULL, "NAMES", "these attackers"},
    {"group", TM_OPTION_TEXT, offsetof(tm_results_options, group), NULL, 1, 0, NULL, "NAMES",
     "these groups of attackers"},
    {"world", TM_OPTION_TEXT, offsetof(tm_results_options, world), NULL, 1, 0, NULL, "NUMBERS", "these worlds"},
    {"seed", TM_OPTION_TEXT, offsetof(tm_results_options, seed), NULL, 1, 0, NULL, "NUMBERS", "these seeds"},
    {"scores", TM_OPTION_TEXT, offsetof(tm_results_options, scores), NULL, 1, 0, NULL, "NAMES",
     "these scores, in this order; all there are if not given"},
    {"show", TM_OPTION_CHOICE, offsetof(tm_results_options, show), "means", 1, 0, "means|cells|failed|answers|steps",
     NULL,
     "means: over worlds and seeds, with 95% intervals; cells: one by one, with key and cost; failed: what failed and "
     "why; answers: every prompt, answer and verdict; steps: loss and rate of every training step"},
    {"form", TM_OPTION_CHOICE, offsetof(tm_results_options, form), "text", 1, 0, "text|markdown|csv|json|latex", NULL,
     "how to write it"},
    {0},
};

/* One cell of a plan that is done. */
typedef struct found {
    const char *plan, *arm, *group, *attack, *world, *seed, *key;
    double cpu_seconds, peak_mib;
    bool counts; /* false: the same cell stands before it under this arm and attacker */
    size_t count;
    const char *names[TM__RECORD_SCORES];
    double values[TM__RECORD_SCORES];
} found;

typedef struct search {
    tm__store *store;
    const tm_results_options *o;
    tm__arena texts;
    found *cells;
    size_t count, cap, asked; /* asked: that match, done or not */
    const char *scores[4 * TM__RECORD_SCORES];
    size_t score_count;
} search;

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static bool matches(const char *patterns, const char *text) {
    char item[TM__PLAN_NAME];
    if (!patterns) return true;
    for (const char *at = patterns; *at;) {
        size_t len = strcspn(at, ",");
        snprintf(item, sizeof item, "%.*s", (int)TM__MIN(len, sizeof item - 1), at);
        if (fnmatch(item, text, 0) == 0) return true;
        at += len + (at[len] == ',');
    }
    return false;
}

bool tm__results_wanted(const tm_results_options *o, const char *const *v) {
    return matches(o->plan, v[0]) && matches(o->arm, v[1]) && matches(o->group, v[2]) && matches(o->attack, v[3]) &&
           matches(o->world, v[4]) && matches(o->seed, v[5]);
}

static const char *keep(search *s, const char *text) {
    return tm__arena_strdup(&s->texts, text, strlen(text));
}

/* A score's name once for all cells; NULL: out of memory, or there are too many. */
static const char *score_name(search *s, const char *name) {
    for (size_t i = 0; i < s->score_count; i++)
        if (strcmp(s->scores[i], name) == 0) return s->scores[i];
    if (s->score_count == TM__COUNT(s->scores)) return NULL;
    return s->scores[s->score_count++] = keep(s, name);
}

static tm_status add_scores(search *s, found *cell) {
    char names[TM__RECORD_SCORES][TM__SCORE_NAME];
    tm__job_end end;
    tm__scores scores = {.names = names, .values = cell->values};
    TM__TRY(tm__store_get(s->store, cell->key, &end, &scores));
    cell->cpu_seconds = end.cpu_seconds;
    cell->peak_mib = end.peak_mib;
    cell->count = scores.count;
    for (size_t i = 0; i < scores.count; i++)
        if (!(cell->names[i] = score_name(s, names[i]))) return tm__fail_memory();
    return TM_OK;
}

static tm_status add_cell(void *user, int columns, const char *const *names, const char *const *v) {
    search *s = user;
    (void)columns;
    (void)names;
    if (!tm__results_wanted(s->o, v)) return TM_OK;
    s->asked++;
    if (!tm__grow((void **)&s->cells, &s->cap, s->count + 1, sizeof *s->cells)) return tm__fail_memory();
    found *cell = &s->cells[s->count];
    *cell = (found){.plan = keep(s, v[0]),
                    .arm = keep(s, v[1]),
                    .group = keep(s, v[2]),
                    .attack = keep(s, v[3]),
                    .world = keep(s, v[4]),
                    .seed = keep(s, v[5]),
                    .key = keep(s, v[6]),
                    .counts = true};
    if (!cell->plan || !cell->arm || !cell->group || !cell->attack || !cell->world || !cell->seed || !cell->key)
        return tm__fail_memory();
    tm_status status = add_scores(s, cell);
    if (status == TM_NOT_FOUND) {
        tm_error_clear();
        return TM_OK;
    }
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->cells[i].key, cell->key) == 0 && strcmp(s->cells[i].arm, cell->arm) == 0 &&
            strcmp(s->cells[i].attack, cell->attack) == 0 && strcmp(s->cells[i].plan, cell->plan) == 0)
            cell->counts = false;
    s->count += status == TM_OK;
    return status;
}

static const char cells_sql[] = "SELECT plan, arm, grp, attack, world, seed, key FROM cell ORDER BY plan, place";

/* Names that are asked for, in that order. */
static tm_status choose_scores(search *s) {
    const char *chosen[TM__COUNT(s->scores)];
    char name[64];
    size_t n = 0;
    if (!s->o->scores) return TM_OK;
    for (const char *at = s->o->scores; tm__next_item(&at, name);) {
        size_t i = 0;
        while (i < s->score_count && strcmp(s->scores[i], name) != 0) i++;
        if (i == s->score_count)
            return tm__fail(TM_NOT_FOUND, NULL, "scores", "--show cells lists them all", "no cell has a score \"%s\"",
                            name);
        if (n == TM__COUNT(chosen)) return tm__fail(TM_INVALID, NULL, "scores", NULL, "too many");
        chosen[n++] = s->scores[i];
    }
    memcpy(s->scores, chosen, n * sizeof *chosen);
    s->score_count = n;
    return TM_OK;
}

static tm_status count_cell(void *user, int columns, const char *const *names, const char *const *v) {
    search *s = user;
    (void)columns;
    (void)names;
    s->asked += tm__results_wanted(s->o, v);
    return TM_OK;
}

/* All that match are seen, whether they are done or not. */
static tm_status each_cell(search *s, tm__store_row *see) {
    s->asked = 0;
    TM__TRY(tm__store_query(s->store, cells_sql, NULL, 0, see, s));
    return s->asked
               ? TM_OK
               : tm__fail(TM_NOT_FOUND, NULL, "cells", "--show cells without a filter lists all", "none is called so");
}

static tm_status find_cells(search *s) {
    TM__TRY(each_cell(s, add_cell));
    return choose_scores(s);
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

static double value_of(const found *cell, const char *name) {
    for (size_t i = 0; i < cell->count; i++)
        if (cell->names[i] == name) return cell->values[i];
    return NAN;
}

static tm_status show_cells(search *s, tm__sheet *sheet) {
    static const char *const first[] = {"plan", "arm", "group", "attack", "world", "seed"};
    TM__TRY(find_cells(s));
    for (size_t i = 0; i < TM__COUNT(first); i++) tm__sheet_column(sheet, first[i], TM__CELL_TEXT, 0);
    for (size_t i = 0; i < s->score_count; i++) tm__sheet_column(sheet, s->scores[i], TM__CELL_NUMBER, 2);
    tm__sheet_column(sheet, "cpu_seconds", TM__CELL_NUMBER, 1);
    tm__sheet_column(sheet, "peak_mib", TM__CELL_NUMBER, 0);
    tm__sheet_column(sheet, "key", TM__CELL_TEXT, 0);
    for (size_t c = 0; c < s->count; c++) {
        const found *f = &s->cells[c];
        const char *const texts[] = {f->plan, f->arm, f->group, f->attack, f->world, f->seed};
        for (size_t i = 0; i < TM__COUNT(texts); i++) tm__sheet_text(sheet, texts[i]);
        for (size_t i = 0; i < s->score_count; i++) tm__sheet_number(sheet, value_of(f, s->scores[i]));
        tm__sheet_number(sheet, f->cpu_seconds);
        tm__sheet_number(sheet, f->peak_mib);
        tm__sheet_text(sheet, f->key);
    }
    return TM_OK;
}

static bool same_row(const found *a, const found *b) {
    return strcmp(a->plan, b->plan) == 0 && strcmp(a->arm, b->arm) == 0 && strcmp(a->attack, b->attack) == 0;
}

static tm_status put_means(const search *s, size_t first, tm__sheet *sheet) {
    const found *row = &s->cells[first];
    double *values = tm__alloc(s->count, sizeof *values);
    if (!values) return tm__fail_memory();
    tm__sheet_text(sheet, row->plan);
    tm__sheet_text(sheet, row->arm);
    tm__sheet_text(sheet, row->attack);
    for (size_t k = 0; k < s->score_count; k++) {
        size_t n = 0;
        for (size_t c = first; c < s->count; c++)
            if (s->cells[c].counts && same_row(row, &s->cells[c]) && isfinite(value_of(&s->cells[c], s->scores[k])))
                values[n++] = value_of(&s->cells[c], s->scores[k]);
        tm__stats stats = tm__stats_of(values, n);
        tm__sheet_mean(sheet, stats.mean, stats.half, n);
    }
    free(values);
    return TM_OK;
}

static tm_status show_means(search *s, tm__sheet *sheet) {
    TM__TRY(find_cells(s));
    tm__sheet_column(sheet, "plan", TM__CELL_TEXT, 0);
    tm__sheet_column(sheet, "arm", TM__CELL_TEXT, 0);
    tm__sheet_column(sheet, "attack", TM__CELL_TEXT, 0);
    for (size_t i = 0; i < s->score_count; i++) tm__sheet_column(sheet, s->scores[i], TM__CELL_MEAN, 2);
    for (size_t c = 0; c < s->count; c++) {
        size_t before = 0;
        while (before < c && !same_row(&s->cells[before], &s->cells[c])) before++;
        if (before == c) TM__TRY(put_means(s, c, sheet));
    }
    return TM_OK;
}

/* What stands behind the six names of a cell in a query, column by column. */
typedef struct listing {
    const tm_results_options *o;
    tm__sheet *sheet;
} listing;

static tm_status list_row(void *user, int columns, const char *const *names, const char *const *v) {
    listing *l = user;
    (void)names;
    if (!tm__results_wanted(l->o, v)) return TM_OK;
    for (int i = 0; i < columns; i++) {
        if (l->sheet->columns[i].kind == TM__CELL_TEXT)
            tm__sheet_text(l->sheet, v[i]);
        else
            tm__sheet_number(l->sheet, v[i] ? strtod(v[i], NULL) : NAN);
    }
    return TM_OK;
}

static tm_status show_list(search *s, tm__sheet *sheet) {
    static const char names[] = "SELECT plan, arm, grp AS \"group\", attack, world, seed, ";
    static const struct {
        const char *columns[6], *from;
        int numbers; /* columns from here on are numbers */
    } lists[] = {
        [TM_RESULTS_FAILED] =
            {{"error", "ended"},
             "error, ended FROM cell JOIN job USING (key) WHERE error IS NOT NULL ORDER BY plan, place",
             6},
        [TM_RESULTS_ANSWERS] = {{"probe", "item", "verdict", "prompt", "answer"},
                                "probe, item, verdict, prompt, answer FROM cell JOIN answer USING (key) ORDER BY plan, "
                                "place, probe, item",
                                6},
        [TM_RESULTS_STEPS] = {{"phase", "part", "step", "loss", "lr", "seconds"},
                              "phase, part, step, loss, lr, metric.seconds FROM cell JOIN metric USING (key) ORDER BY "
                              "plan, place, part, step",
                              3},
    };
    static const char *const first[] = {"plan", "arm", "group", "attack", "world", "seed"};
    listing l = {s->o, sheet};
    tm__string sql = {0};
    int show = s->o->show;
    TM__TRY(each_cell(s, count_cell));
    for (size_t i = 0; i < TM__COUNT(first); i++) tm__sheet_column(sheet, first[i], TM__CELL_TEXT, 0);
    for (int i = 0; i < 6 && lists[show].columns[i]; i++)
        tm__sheet_column(sheet, lists[show].columns[i], i < lists[show].numbers ? TM__CELL_TEXT : TM__CELL_NUMBER, 6);
    if (!tm__string_printf(&sql, "%s%s", names, lists[show].from)) return tm__fail_memory();
    tm_status status = sheet->full ? tm__fail_memory() : tm__store_query(s->store, sql.data, NULL, 0, list_row, &l);
    tm__string_free(&sql);
    return status;
}

tm_status tm_results(const char *directory, const tm_results_options *options, char **text) {
    tm_results_options plain;
    tm_options_default(tm_results_option_table, &plain);
    search s = {.o = options ? options : &plain};
    tm__sheet sheet = {0};
    tm__string out = {0};
    TM__TRY(tm__store_open(directory, false, &s.store));
    tm_status status = s.o->show == TM_RESULTS_MEANS   ? show_means(&s, &sheet)
                       : s.o->show == TM_RESULTS_CELLS ? show_cells(&s, &sheet)
                                                       : show_list(&s, &sheet);
    if (status == TM_OK) status = tm__sheet_write(&sheet, s.o->form, &out);
    tm__sheet_release(&sheet);
    tm__arena_release(&s.texts);
    free(s.cells);
    tm__store_close(s.store);
    if (status == TM_OK)
        *text = out.data;
    else
        tm__string_free(&out);
    return status;
}
