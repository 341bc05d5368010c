/* summary.c: what a plan found, on the terminal (Markdown), for programs (JSON) and for the next run (CSV).
 */
#include "lab/tables.h"

#include <jansson.h>
#include <stdlib.h>

typedef struct table {
    const tm_plan *plan;
    const tm__record *records;
    size_t count;
    tm__string *out;
    bool ok;
} table;

static void put(table *t, const char *text) {
    t->ok = t->ok && tm__string_append(t->out, text, strlen(text));
}

/* Names of all scores there are, in the order in which they first stand; the caller's array. */
static bool score_names(const table *t, const char ***names, size_t *count) {
    size_t cap = 0;
    *names = NULL;
    *count = 0;
    for (size_t i = 0; i < t->count; i++)
        for (size_t k = 0; k < t->records[i].count; k++) {
            const char *name = t->records[i].names[k];
            size_t at = 0;
            while (at < *count && strcmp((*names)[at], name) != 0) at++;
            if (at < *count) continue;
            if (!tm__grow((void **)names, &cap, *count + 1, sizeof **names)) return false;
            (*names)[(*count)++] = name;
        }
    return true;
}

static void put_csv_line(table *t, const tm__record *r, const char *const *names, size_t count) {
    t->ok = t->ok && tm__string_printf(t->out, "%.*s,\"%s\",%s,\"%s\",%llu,%llu", TM__CSV_KEY, r->key, r->arm, r->group,
                                       r->attack, (unsigned long long)r->world, (unsigned long long)r->seed);
    for (size_t k = 0; k < count; k++) {
        double value;
        put(t, ",");
        if (tm__record_get(r, names[k], &value)) t->ok = t->ok && tm__string_printf(t->out, "%.6g", value);
    }
    t->ok = t->ok && tm__string_printf(t->out, ",%.2f,%.0f\n", r->cpu_seconds, r->peak_mib);
}

static void put_csv(table *t) {
    const char **names;
    size_t count;
    t->ok = score_names(t, &names, &count);
    for (size_t k = 0; k < TM__CSV_FIRST; k++) {
        put(t, k ? "," : "");
        put(t, tm__csv_first[k]);
    }
    for (size_t k = 0; k < count && t->ok; k++) {
        put(t, ",");
        put(t, names[k]);
    }
    for (size_t k = 0; k < TM__CSV_LAST; k++) {
        put(t, ",");
        put(t, tm__csv_last[k]);
    }
    put(t, "\n");
    for (size_t i = 0; i < t->count && t->ok; i++) put_csv_line(t, &t->records[i], names, count);
    free((void *)names);
}

static json_t *cell_json(const tm__record *r) {
    json_t *scores = tm__record_scores(r);
    json_t *cell =
        scores ? json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:O}", "key", r->key, "arm", r->arm, "group",
                           r->group, "attack", r->attack, "world", (json_int_t)r->world, "seed", (json_int_t)r->seed,
                           "cpu_seconds", r->cpu_seconds, "peak_mib", r->peak_mib, "scores", scores)
               : NULL;
    json_decref(scores);
    return cell;
}

static tm_status put_json(table *t) {
    json_t *cells = json_array(), *all = json_object();
    char *text = NULL;
    bool ok = cells && all;
    for (size_t i = 0; i < t->count && ok; i++) ok = json_array_append_new(cells, cell_json(&t->records[i])) == 0;
    ok = ok && json_object_set_new(all, "plan", json_string(t->plan->name)) == 0 &&
         json_object_set(all, "cells", cells) == 0;
    tm_status status = ok ? tm__json_dump(all, JSON_COMPACT, &text, NULL) : tm__fail_memory();
    if (status == TM_OK) put(t, text);
    put(t, "\n");
    free(text);
    json_decref(cells);
    json_decref(all);
    return status;
}

static tm_status put_tables(table *t, const tm_plan_summary_options *o) {
    const tm__found found = {t->plan, t->records, t->count};
    tm__tables all = {0};
    tm_status status =
        o->compare ? tm__tables_compare(&found, o->compare, &all) : tm__tables_make(&found, o->scores, &all);
    for (size_t i = 0; i < all.count && status == TM_OK; i++) {
        t->ok = t->ok && tm__string_printf(t->out, "%s### %s\n\n", i || o->compare ? "\n" : "", all.items[i].title);
        status = tm__sheet_write(&all.items[i].sheet, TM_RESULTS_MARKDOWN, t->out);
    }
    tm__tables_release(&all);
    return status;
}

tm_status tm_plan_summary(const tm_plan *plan, const tm_plan_summary_options *options, char **text) {
    static const tm_plan_summary_options plain = {0};
    const tm_plan_summary_options *o = options ? options : &plain;
    tm__string out = {0};
    table t = {.plan = plan, .out = &out, .ok = true};
    tm__record *records = NULL;
    tm_status status = TM_OK;
    TM__TRY(tm__records_load(plan, &records, &t.count));
    t.records = records;
    if (o->form == TM_PLAN_CSV) {
        put_csv(&t);
    } else if (o->form == TM_PLAN_JSON) {
        status = put_json(&t);
    } else {
        status = put_tables(&t, o);
    }
    free(records);
    if (status == TM_OK && !t.ok) status = tm__fail_memory();
    if (status == TM_OK)
        *text = out.data;
    else
        tm__string_free(&out);
    return status;
}
