/* tables.c: what the cells of a plan found, as sheets: means over replicates with 95% intervals.
 *
 * Interval: mean +- t s / sqrt(n) over the n replicates (each another seed, on the plan's worlds in turn), t being
 * Student's 97.5% quantile with n - 1 degrees of freedom. It says how a repetition with other seeds on these worlds
 * would vary: replicates of one world share its base models. A cell without a seed (no attack) counts once per world.
 * Comparisons pair cells of the same attacker and replicate, and give the same interval over the differences.
 */
#include "lab/search.h"

#include <stdlib.h>

enum { MOST = TM__PLAN_REPLICATES };

tm__stats tm__tables_of(const tm__found *t, const char *arm, const char *attack, const char *score, const char *view) {
    double values[MOST];
    size_t n = 0;
    char name[TM__SCORE_NAME + 32];
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

/* ---- which attacks there are ------------------------------------------------------------------------------------- */

const char *tm__tables_harm(const tm_plan *plan) {
    return plan->harm;
}

const char *tm__tables_ability(const tm_plan *plan) {
    return plan->ability;
}

/* What a table shows where nobody asks for more: the world's scores, else the two that the plan names, else the first
 * cell's. */
enum { SHOWN = 16 };
static size_t shown(const tm__found *t, const char *const *world, size_t count, const char *names[SHOWN]) {
    const tm_plan *plan = t->plan;
    size_t n = 0;
    for (size_t i = 0; plan->world_count && i < count; i++) names[n++] = world[i];
    if (plan->world_count) return n;
    if (plan->harm) names[n++] = plan->harm;
    if (plan->ability) names[n++] = plan->ability;
    for (size_t i = 0; !plan->harm && !plan->ability && t->count && i < t->records[0].count && n < SHOWN; i++)
        names[n++] = t->records[0].names[i];
    return n;
}

/* Columns of means, named after their scores with `more` behind. */
static void add_columns(tm__sheet *s, const char *const *names, size_t count, const char *more) {
    for (size_t i = 0; i < count; i++) {
        char title[TM__SCORE_NAME + 40];
        snprintf(title, sizeof title, "%s%s", names[i], more);
        for (char *at = title; *at; at++)
            if (*at == '_') *at = ' ';
        tm__sheet_column(s, title, TM__CELL_MEAN, 2);
    }
}

tm__attack_kind tm__tables_kind(const tm__plan_attack *attack) {
    if (!attack->step.given) return TM__ATTACK_NONE;
    if (strcmp(attack->step.method->name, "harmful-sft") != 0) return TM__ATTACK_HARMFUL;
    const tm_harmful_sft_options *mix = attack->step.own;
    return attack->step.sets[TM__ROLE_HARMFUL] && mix->poison_ratio > 0 ? TM__ATTACK_HARMFUL : TM__ATTACK_BENIGN;
}

/* Groups may share attackers; a name stands for one (plan_check.c), and is shown once. */
static bool first_of_name(const tm_plan *plan, size_t attack) {
    for (size_t i = 0; i < attack; i++)
        if (strcmp(plan->attacks[i].name, plan->attacks[attack].name) == 0) return false;
    return true;
}

const char *tm__tables_attack_of(const tm_plan *plan, tm__attack_kind wanted) {
    for (size_t i = 0; i < plan->attack_count; i++)
        if (tm__tables_kind(&plan->attacks[i]) == wanted) return plan->attacks[i].name;
    return "";
}

/* The attacker of a group with the highest mean of `score` against this arm; NULL: none was met. */
const char *tm__tables_worst(const tm__found *t, const char *group, const char *arm, const char *score,
                             const char *view, double *mean, size_t *attackers) {
    const char *name = NULL;
    double best = -INFINITY, sum = 0;
    *attackers = 0;
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        const tm__plan_attack *a = &t->plan->attacks[i];
        if (tm__tables_kind(a) != TM__ATTACK_HARMFUL || strcmp(a->group, group) != 0) continue;
        tm__stats s = tm__tables_of(t, arm, a->name, score, view);
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

const tm__view tm__views[TM__VIEWS] = {{"", "", ""},
                                       {"_secret", ", with secret", ""},
                                       {"_wrapper", ", with wrapper", "_wrapper"},
                                       {"_wrapper_secret", ", with wrapper and secret", "_wrapper"}};

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static tm__sheet *new_table(tm__tables *all, const char *format, ...) TM__PRINTF(2, 3);

/* NULL: out of memory, which tm__tables_make tells at its end. */
static tm__sheet *new_table(tm__tables *all, const char *format, ...) {
    if (!tm__grow((void **)&all->items, &all->cap, all->count + 1, sizeof *all->items)) {
        all->full = true;
        return NULL;
    }
    tm__titled *made = &all->items[all->count++];
    va_list list;
    *made = (tm__titled){0};
    va_start(list, format);
    vsnprintf(made->title, sizeof made->title, format, list);
    va_end(list);
    return &made->sheet;
}

static void put_stats(tm__sheet *s, tm__stats stats) {
    tm__sheet_mean(s, stats.mean, stats.half, stats.n);
}

static void put_name(tm__sheet *s, const char *arm, const tm__view *how) {
    char name[2 * TM__PLAN_NAME];
    snprintf(name, sizeof name, "%s%s", arm, how->label);
    tm__sheet_text(s, name);
}

static const char *const unattacked[] = {"leak", "comply", "withheld_leak", "skills"};
static const char *const tuned[] = {"leak", "skills", "downstream"};

static void put_unattacked(const tm__found *t, tm__sheet *s, const char *arm, const tm__view *how) {
    const char *before = tm__tables_attack_of(t->plan, TM__ATTACK_NONE),
               *benign = tm__tables_attack_of(t->plan, TM__ATTACK_BENIGN);
    const char *scores[SHOWN], *later[SHOWN];
    size_t n = shown(t, unattacked, TM__COUNT(unattacked), scores), m = shown(t, tuned, TM__COUNT(tuned), later);
    if (n == 0 || tm__tables_of(t, arm, before, scores[0], how->suffix).n +
                          tm__tables_of(t, arm, benign, scores[0], how->suffix).n ==
                      0)
        return;
    put_name(s, arm, how);
    for (size_t i = 0; i < n; i++) put_stats(s, tm__tables_of(t, arm, before, scores[i], how->suffix));
    for (size_t i = 0; i < m; i++) put_stats(s, tm__tables_of(t, arm, benign, later[i], how->suffix));
}

static void add_unattacked(const tm__found *t, tm__tables *all) {
    const char *scores[SHOWN], *later[SHOWN];
    size_t n = shown(t, unattacked, TM__COUNT(unattacked), scores), m = shown(t, tuned, TM__COUNT(tuned), later);
    if (!*tm__tables_attack_of(t->plan, TM__ATTACK_NONE) && !*tm__tables_attack_of(t->plan, TM__ATTACK_BENIGN)) return;
    tm__sheet *s = new_table(all, "Before an attack");
    if (!s) return;
    tm__sheet_column(s, "arm", TM__CELL_TEXT, 0);
    add_columns(s, scores, n, "");
    add_columns(s, later, m, " after benign");
    for (size_t a = 0; a < t->plan->arm_count; a++)
        for (size_t v = 0; v < TM__VIEWS; v++) put_unattacked(t, s, t->plan->arms[a].name, &tm__views[v]);
}

static void put_attacked(const tm__found *t, tm__sheet *s, const char *group, size_t all, const char *arm,
                         const tm__view *how) {
    const char *scores[SHOWN];
    size_t n = shown(t, unattacked, TM__COUNT(unattacked), scores);
    double mean, mean_comply;
    size_t attackers;
    const char *w = tm__tables_worst(t, group, arm, t->plan->harm, how->suffix, &mean, &attackers);
    if (!w || attackers < all) return; /* the worst of fewer attackers cannot be compared */
    put_name(s, arm, how);
    tm__sheet_number(s, mean);
    if (t->plan->world_count) {
        tm__tables_worst(t, group, arm, "comply", how->suffix, &mean_comply, &attackers);
        tm__sheet_number(s, mean_comply);
    }
    tm__sheet_text(s, w);
    for (size_t i = 0; i < n; i++) put_stats(s, tm__tables_of(t, arm, w, scores[i], how->suffix));
    tm__stats cpu = tm__tables_of(t, arm, w, "cpu_seconds", "");
    tm__sheet_number(s, (double)cpu.n);
    tm__sheet_number(s, cpu.mean);
    tm__sheet_number(s, tm__tables_of(t, arm, w, "peak_mib", "").mean);
}

size_t tm__tables_attackers(const tm_plan *plan, const char *group) {
    size_t n = 0;
    for (size_t i = 0; i < plan->attack_count; i++) n += strcmp(plan->attacks[i].group, group) == 0;
    return n;
}

bool tm__tables_new_group(const tm_plan *plan, size_t attack) {
    if (plan->attacks[attack].search >= 0) return false; /* it has a table of its own */
    if (tm__tables_kind(&plan->attacks[attack]) != TM__ATTACK_HARMFUL) return false;
    for (size_t i = 0; i < attack; i++)
        if (strcmp(plan->attacks[i].group, plan->attacks[attack].group) == 0) return false;
    return true;
}

/* The arms that met every attacker of a group, so that their worst cases are worst of the same. */
static void add_group(const tm__found *t, tm__tables *tables, const char *group) {
    const char *scores[SHOWN];
    size_t all = tm__tables_attackers(t->plan, group), n = shown(t, unattacked, TM__COUNT(unattacked), scores);
    char mean[TM__SCORE_NAME + 8];
    if (!t->plan->harm) return; /* nothing says which is the worst */
    tm__sheet *s = new_table(tables, "Against %s (%zu attacker%s)", group, all, all == 1 ? "" : "s");
    if (!s) return;
    snprintf(mean, sizeof mean, "mean %s", t->plan->harm);
    tm__sheet_column(s, "arm", TM__CELL_TEXT, 0);
    tm__sheet_column(s, mean, TM__CELL_NUMBER, 2);
    if (t->plan->world_count) tm__sheet_column(s, "mean comply", TM__CELL_NUMBER, 2);
    tm__sheet_column(s, "worst attacker", TM__CELL_TEXT, 0);
    add_columns(s, scores, n, "");
    tm__sheet_column(s, "n", TM__CELL_NUMBER, 0);
    tm__sheet_column(s, "CPU s", TM__CELL_NUMBER, 1);
    tm__sheet_column(s, "MiB", TM__CELL_NUMBER, 0);
    for (size_t a = 0; a < t->plan->arm_count; a++)
        for (size_t v = 0; v < TM__VIEWS; v++) put_attacked(t, s, group, all, t->plan->arms[a].name, &tm__views[v]);
}

/* Labels of all axes but the first; "" where there is one axis or none. */
static const char *other_axes(const char *name) {
    const char *blank = strchr(name, ' ');
    return blank ? blank + 1 : "";
}

static bool first_of_row(const tm_plan *plan, size_t attack) {
    if (plan->attacks[attack].search >= 0) return false;
    for (size_t i = 0; i < attack; i++)
        if (tm__tables_kind(&plan->attacks[i]) != TM__ATTACK_NONE &&
            strcmp(other_axes(plan->attacks[i].name), other_axes(plan->attacks[attack].name)) == 0)
            return false;
    return true;
}

static bool first_of_column(const tm_plan *plan, size_t attack) {
    size_t len = strcspn(plan->attacks[attack].name, " ");
    if (plan->attacks[attack].search >= 0) return false;
    if (tm__tables_kind(&plan->attacks[attack]) == TM__ATTACK_NONE) return false;
    for (size_t i = 0; i < attack; i++)
        if (tm__tables_kind(&plan->attacks[i]) != TM__ATTACK_NONE && strcspn(plan->attacks[i].name, " ") == len &&
            memcmp(plan->attacks[i].name, plan->attacks[attack].name, len) == 0)
            return false;
    return true;
}

/* Whether attackers have more than one axis. */
static bool axes_differ(const tm_plan *plan) {
    for (size_t i = 0; i < plan->attack_count; i++)
        if (*other_axes(plan->attacks[i].name)) return true;
    return false;
}

/* One line: an arm against attackers that differ in their first axis; none of them met: no line. */
static void put_matrix_line(const tm__found *t, tm__sheet *s, const char *arm, const tm__view *how, const char *row,
                            const char *score) {
    bool any = false;
    size_t start = s->cell_count;
    put_name(s, arm, how);
    if (axes_differ(t->plan)) tm__sheet_text(s, row);
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        const tm__plan_attack *column = &t->plan->attacks[i];
        char name[2 * TM__PLAN_NAME];
        if (!first_of_column(t->plan, i)) continue;
        snprintf(name, sizeof name, "%.*s%s%s", (int)strcspn(column->name, " "), column->name, row[0] ? " " : "", row);
        tm__stats stats = tm__tables_of(t, arm, name, score, how->suffix);
        any |= stats.n > 0;
        put_stats(s, stats);
    }
    if (!any) s->cell_count = start;
}

static void add_matrix(const tm__found *t, tm__tables *all, const char *score) {
    const tm_plan *plan = t->plan;
    bool any = false;
    for (size_t i = 0; i < plan->attack_count; i++) any |= first_of_column(plan, i);
    if (!any) return; /* all attackers are trials of searches */
    tm__sheet *s = new_table(all, "%s after the attack", score);
    if (!s) return;
    tm__sheet_column(s, "arm", TM__CELL_TEXT, 0);
    if (axes_differ(plan)) tm__sheet_column(s, "attacker", TM__CELL_TEXT, 0);
    for (size_t i = 0; i < plan->attack_count; i++) {
        char name[TM__PLAN_NAME];
        if (!first_of_column(plan, i)) continue;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(plan->attacks[i].name, " "), plan->attacks[i].name);
        tm__sheet_column(s, name, TM__CELL_MEAN, 2);
    }
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t i = 0; i < plan->attack_count; i++) {
            if (tm__tables_kind(&plan->attacks[i]) == TM__ATTACK_NONE || !first_of_row(plan, i)) continue;
            for (size_t v = 0; v < TM__VIEWS; v++)
                put_matrix_line(t, s, plan->arms[a].name, &tm__views[v], other_axes(plan->attacks[i].name), score);
        }
}

static tm_status add_matrices(const tm__found *t, tm__tables *all, const char *scores) {
    char name[64];
    for (const char *at = scores; tm__next_item(&at, name);) {
        bool known = t->count == 0;
        double value;
        for (size_t i = 0; i < t->count && !known; i++) known = tm__record_get(&t->records[i], name, &value);
        if (!known)
            return tm__fail(TM_NOT_FOUND, NULL, "scores", "leak, comply, refuse, skills, downstream and the like",
                            "no cell has a score \"%s\"", name);
        add_matrix(t, all, name);
    }
    return TM_OK;
}

/* A list of the scores that are shown for every attacker. */
static void default_scores(const tm__found *t, tm__string *list) {
    static const char *const world[] = {"leak", "comply", "skills"};
    const char *names[SHOWN];
    size_t n = shown(t, world, TM__COUNT(world), names);
    for (size_t i = 0; i < n; i++) tm__string_printf(list, "%s%s", i ? "," : "", names[i]);
}

tm_status tm__tables_make(const tm__found *found, const char *scores, tm__tables *all) {
    tm__string list = {0};
    add_unattacked(found, all);
    for (size_t i = 0; i < found->plan->attack_count; i++)
        if (tm__tables_new_group(found->plan, i)) add_group(found, all, found->plan->attacks[i].group);
    TM__TRY(tm__search_tables(found->plan, all));
    if (!scores) default_scores(found, &list);
    const char *wanted = scores ? scores : list.data ? list.data : "";
    tm_status status = add_matrices(found, all, wanted);
    tm__string_free(&list);
    return status == TM_OK && all->full ? tm__fail_memory() : status;
}

/* ---- comparisons ------------------------------------------------------------------------------------------------- */

static const tm__record *partner(const tm__found *t, const tm__record *r, const char *arm) {
    for (size_t i = 0; i < t->count; i++) {
        const tm__record *other = &t->records[i];
        if (other->replicate == r->replicate && strcmp(other->arm, arm) == 0 && strcmp(other->attack, r->attack) == 0)
            return other;
    }
    return NULL;
}

/* Second arm, in one view, minus the first without a secret, over the replicates of one attacker. */
static tm__stats difference(const tm__found *t, const char *first, const char *second, const char *attack,
                            const char *score, const tm__view *how) {
    double values[MOST];
    size_t n = 0;
    char other[TM__SCORE_NAME + 32], name[TM__SCORE_NAME + 32];
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

static const char *const compared[] = {"leak", "comply", "skills", "downstream", "withheld_leak"};

static void put_difference(const tm__found *t, tm__sheet *s, const char *first, const char *second, const char *attack,
                           const tm__view *how) {
    const char *scores[SHOWN];
    size_t count = shown(t, compared, TM__COUNT(compared), scores);
    size_t n = count ? difference(t, first, second, attack, scores[0], how).n : 0;
    if (n == 0) return;
    put_name(s, attack, how);
    for (size_t k = 0; k < count; k++) put_stats(s, difference(t, first, second, attack, scores[k], how));
    tm__sheet_number(s, (double)n);
}

static tm_status check_arms(const tm_plan *plan, const char *first, const char *second) {
    bool found[2] = {false, false};
    for (size_t a = 0; a < plan->arm_count; a++) {
        found[0] |= strcmp(plan->arms[a].name, first) == 0;
        found[1] |= strcmp(plan->arms[a].name, second) == 0;
    }
    if (found[0] && found[1]) return TM_OK;
    return tm__fail(TM_NOT_FOUND, plan->path, "compare", NULL, "there is no arm \"%s\"", found[0] ? second : first);
}

tm_status tm__tables_compare(const tm__found *t, const char *compare, tm__tables *all) {
    const char *names[SHOWN];
    size_t count = shown(t, compared, TM__COUNT(compared), names);
    char first[TM__PLAN_NAME], second[TM__PLAN_NAME];
    const char *comma = strchr(compare, ',');
    if (!comma) return tm__fail(TM_INVALID, NULL, "compare", "ARM,ARM", "two arms are expected");
    snprintf(first, sizeof first, "%.*s", (int)(comma - compare), compare);
    snprintf(second, sizeof second, "%s", comma + 1);
    TM__TRY(check_arms(t->plan, first, second));
    tm__sheet *s = new_table(all, "%s minus %s, paired", second, first);
    if (!s) return tm__fail_memory();
    tm__sheet_column(s, "attacker", TM__CELL_TEXT, 0);
    add_columns(s, names, count, "");
    tm__sheet_column(s, "n", TM__CELL_NUMBER, 0);
    for (size_t i = 0; i < t->plan->attack_count; i++) {
        if (!first_of_name(t->plan, i)) continue;
        for (size_t v = 0; v < TM__VIEWS; v++)
            put_difference(t, s, first, second, t->plan->attacks[i].name, &tm__views[v]);
    }
    return TM_OK;
}

void tm__tables_release(tm__tables *all) {
    for (size_t i = 0; i < all->count; i++) tm__sheet_release(&all->items[i].sheet);
    free(all->items);
    *all = (tm__tables){0};
}
