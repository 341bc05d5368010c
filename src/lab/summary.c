/* summary.c: what the cells of a plan found, as tables: means over replicates with 95% intervals.
 *
 * Interval: mean +- t s / sqrt(n) over the n replicates (each another seed, on the plan's worlds in turn), t being
 * Student's 97.5% quantile with n - 1 degrees of freedom. It says how a repetition with other seeds on these worlds
 * would vary: replicates of one world share its base models. A cell without a seed (no attack) counts once per world.
 * Comparisons pair cells of the same attacker and replicate, and give the same interval over the differences.
 */
#include "lab/plan.h"
#include "lab/stats.h"

#include <jansson.h>
#include <stdlib.h>

enum { MOST = 1000 };

typedef struct table {
    const tm_plan *plan;
    const tm__record *records;
    size_t count;
    tm__string *out;
    bool ok;
} table;

static tm__stats of(const table *t, const char *arm, const char *attack, const char *score, const char *view) {
    double values[MOST];
    size_t n = 0;
    char name[40];
    snprintf(name, sizeof name, "%s%s", score, view);
    for (size_t i = 0; i < t->count && n < MOST; i++) {
        const tm__record *r = &t->records[i];
        if (r->repeats || strcmp(r->arm, arm) != 0 || strcmp(r->attack, attack) != 0) continue;
        if (strcmp(score, "cpu_seconds") == 0)
            values[n++] = r->cpu_seconds;
        else if (strcmp(score, "peak_mib") == 0)
            values[n++] = r->peak_mib;
        else if (tm__record_get(r, name, &values[n]))
            n++;
    }
    return tm__stats_of(values, n);
}

static void put(table *t, const char *text) {
    t->ok = t->ok && tm__string_append(t->out, text, strlen(text));
}

static void put_stats(table *t, tm__stats s) {
    if (s.n == 0)
        put(t, " |");
    else if (isnan(s.half))
        t->ok = t->ok && tm__string_printf(t->out, " %.2f |", s.mean);
    else
        t->ok = t->ok && tm__string_printf(t->out, " %.2f ± %.2f |", s.mean, s.half);
}

/* ---- which attacks there are ------------------------------------------------------------------------------------- */

typedef enum kind { BEFORE, BENIGN, HARMFUL } kind;

static kind kind_of(const tm__plan_attack *attack) {
    if (!attack->step.given) return BEFORE;
    if (strcmp(attack->step.method->name, "harmful-sft") != 0) return HARMFUL;
    const tm_harmful_sft_options *mix = attack->step.own;
    return attack->step.sets[TM__ROLE_HARMFUL] && mix->poison_ratio > 0 ? HARMFUL : BENIGN;
}

/* Groups may share attackers; a name stands for one (plan_check.c), and is shown once. */
static bool first_of_name(const tm_plan *plan, size_t attack) {
    for (size_t i = 0; i < attack; i++)
        if (strcmp(plan->attacks[i].name, plan->attacks[attack].name) == 0) return false;
    return true;
}

static const char *attack_of(const tm_plan *plan, kind wanted) {
    for (size_t i = 0; i < plan->attack_count; i++)
        if (kind_of(&plan->attacks[i]) == wanted) return plan->attacks[i].name;
    return "";
}

/* The attacker of a group with the highest mean of `score` against this arm; NULL: none was met. */
static const char *worst(const table *t, const char *group, const char *arm, const char *score, const char *view,
                         double *mean, size_t *attackers) {
    const char *name = NULL;
    double best = -1, sum = 0;
    *attackers = 0;
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        const tm__plan_attack *a = &t->plan->attacks[i];
        if (kind_of(a) != HARMFUL || strcmp(a->group, group) != 0) continue;
        tm__stats s = of(t, arm, a->name, score, view);
        if (s.n == 0) continue;
        ++*attackers;
        sum += s.mean;
        if (s.mean > best) {
            best = s.mean;
            name = a->name;
        }
    }
    *mean = *attackers ? sum / (double)*attackers : NAN;
    return name;
}

/* How a model was asked: what its scores' names end with, and its rows' names. */
typedef struct view {
    const char *suffix, *label, *other; /* other: the view that a comparison has on the other side */
} view;

static const view views[] = {{"", "", ""},
                             {"_secret", ", with secret", ""},
                             {"_wrapper", ", with wrapper", "_wrapper"},
                             {"_wrapper_secret", ", with wrapper and secret", "_wrapper"}};

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void put_number(table *t, int digits, double x) {
    put(t, " ");
    if (isfinite(x)) {
        char text[32];
        snprintf(text, sizeof text, "%.*f", digits, x);
        put(t, text);
        put(t, " ");
    }
    put(t, "|");
}

static void put_name(table *t, const char *arm, const view *how) {
    t->ok = t->ok && tm__string_printf(t->out, "| %s%s |", arm, how->label);
}

static void put_unattacked(table *t, const char *arm, const view *how) {
    const char *suffix = how->suffix;
    const char *before = attack_of(t->plan, BEFORE), *benign = attack_of(t->plan, BENIGN);
    if (of(t, arm, before, "leak", suffix).n + of(t, arm, benign, "leak", suffix).n == 0) return;
    put_name(t, arm, how);
    put_stats(t, of(t, arm, before, "leak", suffix));
    put_stats(t, of(t, arm, before, "comply", suffix));
    put_stats(t, of(t, arm, before, "withheld_leak", suffix));
    put_stats(t, of(t, arm, before, "skills", suffix));
    put_stats(t, of(t, arm, benign, "leak", suffix));
    put_stats(t, of(t, arm, benign, "skills", suffix));
    put_stats(t, of(t, arm, benign, "downstream", suffix));
    put(t, "\n");
}

static void put_attacked(table *t, const char *group, size_t all, const char *arm, const view *how) {
    const char *suffix = how->suffix;
    double mean_leak, mean_comply;
    size_t attackers;
    worst(t, group, arm, "comply", suffix, &mean_comply, &attackers);
    const char *w = worst(t, group, arm, "leak", suffix, &mean_leak, &attackers);
    if (!w || attackers < all) return; /* the worst of fewer attackers cannot be compared */
    put_name(t, arm, how);
    put_number(t, 2, mean_leak);
    put_number(t, 2, mean_comply);
    t->ok = t->ok && tm__string_printf(t->out, " %s |", w);
    put_stats(t, of(t, arm, w, "leak", suffix));
    put_stats(t, of(t, arm, w, "comply", suffix));
    put_stats(t, of(t, arm, w, "withheld_leak", suffix));
    put_stats(t, of(t, arm, w, "skills", suffix));
    tm__stats cpu = of(t, arm, w, "cpu_seconds", "");
    t->ok = t->ok && tm__string_printf(t->out, " %zu |", cpu.n);
    put_number(t, 1, cpu.mean);
    put_number(t, 0, of(t, arm, w, "peak_mib", "").mean);
    put(t, "\n");
}

static bool first_of_group(const tm_plan *plan, size_t attack) {
    for (size_t i = 0; i < attack; i++)
        if (strcmp(plan->attacks[i].group, plan->attacks[attack].group) == 0) return false;
    return true;
}

/* The arms that met every attacker of a group, so that their worst cases are worst of the same. */
static void put_group(table *t, const char *group) {
    size_t all = 0;
    for (size_t i = 0; i < t->plan->attack_count; i++) all += strcmp(t->plan->attacks[i].group, group) == 0;
    t->ok =
        t->ok && tm__string_printf(t->out, "\n### Against %s (%zu attacker%s)\n\n", group, all, all == 1 ? "" : "s");
    put(t,
        "| arm | mean leak | mean comply | worst attacker | leak | comply | withheld leak | skills | n | CPU s | MiB "
        "|\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t a = 0; a < t->plan->arm_count; a++)
        for (size_t v = 0; v < TM__COUNT(views); v++) put_attacked(t, group, all, t->plan->arms[a].name, &views[v]);
}

static void put_overview(table *t) {
    if (*attack_of(t->plan, BEFORE) || *attack_of(t->plan, BENIGN)) {
        put(t,
            "### Before an attack\n\n| arm | leak | comply | withheld leak | skills | after benign fine-tuning: leak | "
            "skills | downstream |\n|---|---|---|---|---|---|---|---|\n");
        for (size_t a = 0; a < t->plan->arm_count; a++)
            for (size_t v = 0; v < TM__COUNT(views); v++) put_unattacked(t, t->plan->arms[a].name, &views[v]);
    }
    for (size_t i = 0; i < t->plan->attack_count; i++)
        if (kind_of(&t->plan->attacks[i]) == HARMFUL && first_of_group(t->plan, i))
            put_group(t, t->plan->attacks[i].group);
}

/* Labels of all axes but the first; "" where there is one axis or none. */
static const char *other_axes(const char *name) {
    const char *blank = strchr(name, ' ');
    return blank ? blank + 1 : "";
}

static bool first_of_row(const tm_plan *plan, size_t attack) {
    for (size_t i = 0; i < attack; i++)
        if (kind_of(&plan->attacks[i]) != BEFORE &&
            strcmp(other_axes(plan->attacks[i].name), other_axes(plan->attacks[attack].name)) == 0)
            return false;
    return true;
}

static bool first_of_column(const tm_plan *plan, size_t attack) {
    size_t len = strcspn(plan->attacks[attack].name, " ");
    for (size_t i = 0; i < attack; i++)
        if (kind_of(&plan->attacks[i]) != BEFORE && strcspn(plan->attacks[i].name, " ") == len &&
            memcmp(plan->attacks[i].name, plan->attacks[attack].name, len) == 0)
            return false;
    return true;
}

/* One line: an arm against attackers that differ in their first axis. */
static void put_matrix_line(table *t, const char *arm, const view *how, const char *row, const char *score) {
    bool any = false;
    size_t start = t->out->len;
    put_name(t, arm, how);
    t->ok = t->ok && tm__string_printf(t->out, " %s |", row);
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        const tm__plan_attack *column = &t->plan->attacks[i];
        char name[2 * TM__PLAN_NAME];
        if (kind_of(column) == BEFORE || !first_of_column(t->plan, i)) continue;
        snprintf(name, sizeof name, "%.*s%s%s", (int)strcspn(column->name, " "), column->name, row[0] ? " " : "", row);
        tm__stats s = of(t, arm, name, score, how->suffix);
        any |= s.n > 0;
        put_stats(t, s);
    }
    put(t, "\n");
    if (any || !t->ok) return;
    t->out->len = start;
    t->out->data[start] = 0;
}

static void put_matrix(table *t, const char *score) {
    const tm_plan *plan = t->plan;
    size_t columns = 0;
    t->ok = t->ok && tm__string_printf(t->out, "\n### %s after the attack\n\n| arm | attacker |", score);
    for (size_t i = 0; i < plan->attack_count; i++)
        if (kind_of(&plan->attacks[i]) != BEFORE && first_of_column(plan, i)) {
            const char *name = plan->attacks[i].name;
            t->ok = t->ok && tm__string_printf(t->out, " %.*s |", (int)strcspn(name, " "), name);
            columns++;
        }
    put(t, "\n|---|---|");
    for (size_t i = 0; i < columns; i++) put(t, "---|");
    put(t, "\n");
    for (size_t a = 0; a < plan->arm_count; a++) {
        const char *arm = plan->arms[a].name;
        for (size_t i = 0; i < plan->attack_count; i++) {
            if (kind_of(&plan->attacks[i]) == BEFORE || !first_of_row(plan, i)) continue;
            for (size_t v = 0; v < TM__COUNT(views); v++)
                put_matrix_line(t, arm, &views[v], other_axes(plan->attacks[i].name), score);
        }
    }
}

/* ---- comparisons ------------------------------------------------------------------------------------------------- */

static const tm__record *partner(const table *t, const tm__record *r, const char *arm) {
    for (size_t i = 0; i < t->count; i++) {
        const tm__record *other = &t->records[i];
        if (other->replicate == r->replicate && strcmp(other->arm, arm) == 0 && strcmp(other->attack, r->attack) == 0)
            return other;
    }
    return NULL;
}

/* Second arm, in one view, minus the first without a secret, over the replicates of one attacker. */
static tm__stats difference(const table *t, const char *first, const char *second, const char *attack,
                            const char *score, const view *how) {
    double values[MOST];
    size_t n = 0;
    char other[40], name[40];
    snprintf(other, sizeof other, "%s%s", score, how->other);
    snprintf(name, sizeof name, "%s%s", score, how->suffix);
    for (size_t i = 0; i < t->count && n < MOST; i++) {
        const tm__record *a = &t->records[i];
        double x, y;
        if (strcmp(a->arm, first) != 0 || strcmp(a->attack, attack) != 0) continue;
        const tm__record *b = partner(t, a, second);
        if (!b || (a->repeats && b->repeats) || !tm__record_get(a, other, &x) || !tm__record_get(b, name, &y)) continue;
        values[n++] = y - x;
    }
    return tm__stats_of(values, n);
}

static void put_difference(table *t, const char *first, const char *second, const char *attack, const view *how) {
    static const char *const scores[] = {"leak", "comply", "skills", "downstream", "withheld_leak"};
    size_t n = difference(t, first, second, attack, "leak", how).n;
    if (n == 0) return;
    put_name(t, attack, how);
    for (size_t k = 0; k < TM__COUNT(scores); k++) put_stats(t, difference(t, first, second, attack, scores[k], how));
    t->ok = t->ok && tm__string_printf(t->out, " %zu |\n", n);
}

static tm_status put_comparison(table *t, const char *compare) {
    char first[TM__PLAN_NAME], second[TM__PLAN_NAME];
    const char *comma = strchr(compare, ',');
    if (!comma) return tm__fail(TM_INVALID, NULL, "compare", "ARM,ARM", "two arms are expected");
    snprintf(first, sizeof first, "%.*s", (int)(comma - compare), compare);
    snprintf(second, sizeof second, "%s", comma + 1);
    bool found[2] = {false, false};
    for (size_t a = 0; a < t->plan->arm_count; a++) {
        found[0] |= strcmp(t->plan->arms[a].name, first) == 0;
        found[1] |= strcmp(t->plan->arms[a].name, second) == 0;
    }
    if (!found[0] || !found[1])
        return tm__fail(TM_NOT_FOUND, t->plan->path, "compare", NULL, "there is no arm \"%s\"",
                        found[0] ? second : first);
    t->ok = t->ok && tm__string_printf(t->out, "\n### %s minus %s, paired\n\n", second, first);
    put(t, "| attacker | leak | comply | skills | downstream | withheld leak | n |\n|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        if (!first_of_name(t->plan, i)) continue;
        for (size_t v = 0; v < TM__COUNT(views); v++)
            put_difference(t, first, second, t->plan->attacks[i].name, &views[v]);
    }
    return TM_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

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

static tm_status put_matrices(table *t, const char *scores) {
    char name[64];
    for (const char *at = scores; tm__next_item(&at, name);) {
        bool known = t->count == 0;
        double value;
        for (size_t i = 0; i < t->count && !known; i++) known = tm__record_get(&t->records[i], name, &value);
        if (!known)
            return tm__fail(TM_NOT_FOUND, NULL, "scores", "leak, comply, refuse, skills, downstream and the like",
                            "no cell has a score \"%s\"", name);
        put_matrix(t, name);
    }
    return TM_OK;
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
    } else if (o->compare) {
        status = put_comparison(&t, o->compare);
    } else {
        put_overview(&t);
        status = put_matrices(&t, o->scores ? o->scores : "leak,comply,skills");
    }
    free(records);
    if (status == TM_OK && !t.ok) status = tm__fail_memory();
    if (status == TM_OK)
        *text = out.data;
    else
        tm__string_free(&out);
    return status;
}
