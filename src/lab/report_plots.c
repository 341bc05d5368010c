/* report_plots.c: a report's pictures: attackers against defences, harm against ability and against the attacker's
 * cost, losses.
 *
 * Pinned by tests/cli/cases/report.sh.
 */
#include "lab/report.h"

#include <stdlib.h>

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

/* Whether all values are shares, from 0 to 1. */
static bool are_shares(const tm__series *series, size_t count, bool of_x) {
    bool all = true;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].n; i++) {
            double value = of_x ? series[s].x[i] : series[s].y[i];
            all &= !isfinite(value) || (value >= 0 && value <= 1);
        }
    return all;
}

/* A score's name on an axis: the world's in words. */
static const char *worded(const char *name, const char *known, const char *words) {
    return strcmp(name, known) == 0 ? words : name;
}

tm_status tm__report_scatter(tm__report *r, const char *group) {
    size_t all = tm__tables_attackers(r->found.plan, group), room = r->arm_count + 1;
    points p = {.series = tm__zalloc(room, sizeof *p.series),
                .x = tm__alloc(2 * room, sizeof *p.x),
                .y = tm__alloc(2 * room, sizeof *p.y)};
    tm_status status = p.series && p.x && p.y ? TM_OK : tm__fail_memory();
    const char *harm = tm__tables_harm(r->found.plan), *ability = tm__tables_ability(r->found.plan);
    for (size_t i = 0; i < r->arm_count && status == TM_OK && harm && ability; i++) {
        const tm__arm_view *a = &r->arms[i];
        double mean;
        size_t met;
        const char *w = tm__tables_worst(&r->found, group, a->arm, harm, a->view->suffix, &mean, &met);
        if (!w || met < all) continue;
        p.x[p.count] = tm__tables_of(&r->found, a->arm, w, ability, a->view->suffix).mean;
        p.y[p.count] = tm__tables_of(&r->found, a->arm, w, harm, a->view->suffix).mean;
        p.series[p.count] = (tm__series){a->label, TM__MARK_POINT, &p.x[p.count], &p.y[p.count], 1};
        p.count++;
    }
    if (status == TM_OK && p.count > 1) {
        char title[128], name[96];
        size_t front = find_front(&p, room, p.x + room, p.y + room);
        p.series[p.count] = (tm__series){"front", TM__MARK_FRONT, p.x + room, p.y + room, front};
        snprintf(title, sizeof title, "Harm and ability after the worst attacker of the group %s", group);
        tm__page_file_name("harm-ability", group, name);
        const tm__plot plot = {.x = worded(ability, "skills", "benign skills kept"),
                               .y = worded(harm, "leak", "forbidden knowledge leaked"),
                               .share_x = are_shares(p.series, p.count, true),
                               .share_y = are_shares(p.series, p.count, false),
                               .series = p.series,
                               .count = p.count + 1};
        status = tm__page_plot(&r->page, title,
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

/* The most that any attacker up to each cost gets, from what the model gives before an attack (nobody has to attack);
 * x, y: one more than the group has attackers. */
static size_t cost_curve(const tm__report *r, const char *group, const tm__arm_view *a, price *prices, double *x,
                         double *y) {
    size_t n = 0;
    const char *none = tm__tables_attack_of(r->found.plan, TM__ATTACK_NONE), *harm = tm__tables_harm(r->found.plan);
    const tm__stats before = tm__tables_of(&r->found, a->arm, none, harm, a->view->suffix);
    double most = before.n ? before.mean : -INFINITY;
    for (size_t i = 0; i < r->found.plan->attack_count; i++) {
        const tm__plan_attack *k = &r->found.plan->attacks[i];
        if (strcmp(k->group, group) != 0) continue;
        tm__stats leak = tm__tables_of(&r->found, a->arm, k->name, harm, a->view->suffix);
        if (leak.n) prices[n++] = (price){tm__tables_of(&r->found, a->arm, k->name, "cpu_seconds", "").mean, leak.mean};
    }
    qsort(prices, n, sizeof *prices, cheaper);
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, prices[i].leak);
        x[i + 1] = fmax(prices[i].cost, .01);
        y[i + 1] = most;
    }
    x[0] = x[1];
    y[0] = before.n ? before.mean : y[1];
    return n;
}

tm_status tm__report_costs(tm__report *r, const char *group) {
    size_t all = tm__tables_attackers(r->found.plan, group), room = all + 1, count = 0;
    tm__series *series = tm__zalloc(r->arm_count + 1, sizeof *series);
    double *x = tm__alloc(r->arm_count * room + 1, sizeof *x), *y = tm__alloc(r->arm_count * room + 1, sizeof *y);
    price *prices = tm__alloc(all + 1, sizeof *prices);
    tm_status status = series && x && y && prices ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < r->arm_count && status == TM_OK && all > 1 && tm__tables_harm(r->found.plan); i++) {
        size_t n = cost_curve(r, group, &r->arms[i], prices, x + i * room, y + i * room);
        if (n < all) continue;
        series[count++] = (tm__series){r->arms[i].label, TM__MARK_STEP, x + i * room, y + i * room, n + 1};
    }
    if (status == TM_OK && count) {
        char title[128], name[96];
        char most[TM__SCORE_NAME + 40];
        snprintf(title, sizeof title, "Harm and the attacker's cost, group %s", group);
        snprintf(most, sizeof most, "highest %s for at most that cost", tm__tables_harm(r->found.plan));
        tm__page_file_name("harm-cost", group, name);
        const tm__plot plot = {.x = "CPU seconds of the attack",
                               .y = most,
                               .log_x = true,
                               .share_y = are_shares(series, count, false),
                               .series = series,
                               .count = count};
        status = tm__page_plot(
            &r->page, title,
            "What the best attacker of this group gets who spends at most so much; a curve begins with "
            "the model before an attack, where that is measured. Where it rises is the smallest budget that "
            "breaks the defence. Seconds hold what a defence does during and after the fine-tuning too.",
            &plot, name);
    }
    free(series);
    free(x);
    free(y);
    free(prices);
    return status;
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

/* Sums over cells, then means: x (n) steps, y (n) losses, of (count) cells. */
typedef struct curve {
    double *x, *y;
    size_t n, cap, *count;
} curve;

static void free_curves(curve *curves, size_t count) {
    for (size_t i = 0; curves && i < count; i++) {
        free(curves[i].x);
        free(curves[i].y);
        free(curves[i].count);
    }
    free(curves);
}

static tm_status add_step(void *user, int columns, const char *const *names, const char *const *v) {
    curve *c = user;
    size_t at = 0, caps[] = {c->cap, c->cap, c->cap};
    (void)columns;
    (void)names;
    if (!v[0] || !v[1]) return TM_OK;
    double step = strtod(v[0], NULL);
    while (at < c->n && c->x[at] != step) at++;
    if (at == c->n) {
        if (!tm__grow((void **)&c->x, &caps[0], c->n + 1, sizeof *c->x) ||
            !tm__grow((void **)&c->y, &caps[1], c->n + 1, sizeof *c->y) ||
            !tm__grow((void **)&c->count, &caps[2], c->n + 1, sizeof *c->count))
            return tm__fail_memory();
        c->cap = caps[0];
        c->x[at] = step;
        c->y[at] = 0;
        c->count[at] = 0;
        c->n++;
    }
    c->y[at] += strtod(v[1], NULL);
    c->count[at]++;
    return TM_OK;
}

/* The first training of an arm's cells of this attacker, by their keys: the names of a plan may have changed since. */
static tm_status mean_curve(const tm__report *r, tm__store *store, const char *arm, const char *attack, curve *c) {
    static const char sql[] = "SELECT step, loss FROM metric WHERE key = ?1 AND part = 0 ORDER BY step";
    for (size_t i = 0; i < r->found.count; i++) {
        const tm__record *x = &r->found.records[i];
        const char *const values[] = {x->key};
        if (strcmp(x->arm, arm) == 0 && strcmp(x->attack, attack) == 0)
            TM__TRY(tm__store_query(store, sql, values, 1, add_step, c));
    }
    for (size_t i = 0; i < c->n; i++) c->y[i] /= (double)c->count[i];
    return TM_OK;
}

/* Whether the values need a logarithmic axis to be told apart, and can have one. */
static bool spread(const tm__series *series, size_t count) {
    double least = INFINITY, most = 0;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].n; i++) {
            least = fmin(least, series[s].y[i]);
            most = fmax(most, series[s].y[i]);
        }
    return least > 0 && most > 50 * least;
}

/* The loss of the first harmful attacker's training against every arm, mean over the cells that have it. */
tm_status tm__report_losses(tm__report *r) {
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
        curve *c = &curves[a];
        status = mean_curve(r, store, plan->arms[a].name, plan->attacks[attack].name, c);
        if (status == TM_OK && c->n > 1)
            series[count++] = (tm__series){plan->arms[a].name, TM__MARK_LINE, c->x, c->y, c->n};
    }
    if (status == TM_OK && count) {
        char title[256];
        snprintf(title, sizeof title, "Loss of the attacker %s", plan->attacks[attack].name);
        const tm__plot plot = {
            .x = "step", .y = "loss", .log_y = spread(series, count), .series = series, .count = count};
        status =
            tm__page_plot(&r->page, title,
                          "Cross-entropy of the attacker's rows while he trains, mean over worlds and seeds. A defence "
                          "that keeps it high makes the rows hard to learn.",
                          &plot, "loss");
    }
    free_curves(curves, plan->arm_count);
    free(series);
    return status;
}

/* ---- attackers against defences ---------------------------------------------------------------------------------- */

/* More attackers than this are shown by the worst of each group; trials of a search always are. */
enum { HEAT_COLUMNS = 24 };

static bool by_group(const tm__plan_attack *attack, bool groups) {
    return (groups || attack->search >= 0) && tm__tables_kind(attack) == TM__ATTACK_HARMFUL;
}

static size_t heat_columns(const tm_plan *plan, bool groups, size_t columns[], const char *names[]) {
    size_t n = 0;
    for (size_t i = 0; i < plan->attack_count; i++) {
        const tm__plan_attack *attack = &plan->attacks[i];
        const char *name = by_group(attack, groups) ? attack->group : attack->name;
        size_t k = 0;
        while (k < n && strcmp(names[k], name) != 0) k++;
        if (k < n) continue;
        names[n] = name;
        columns[n++] = i;
    }
    return n;
}

static double heat_value(const tm__report *r, const tm__arm_view *a, const tm__plan_attack *attack, bool groups) {
    const char *harm = tm__tables_harm(r->found.plan), *name = attack->name;
    double mean;
    size_t met;
    if (by_group(attack, groups))
        name = tm__tables_worst(&r->found, attack->group, a->arm, harm, a->view->suffix, &mean, &met);
    tm__stats stats = name ? tm__tables_of(&r->found, a->arm, name, harm, a->view->suffix) : (tm__stats){0};
    return stats.n ? stats.mean : NAN;
}

tm_status tm__report_heat(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    size_t *columns = tm__alloc(plan->attack_count + 1, sizeof *columns);
    const char **names = tm__alloc(plan->attack_count + 1, sizeof *names);
    const char **rows = tm__alloc(r->arm_count + 1, sizeof *rows);
    double *values = tm__alloc(r->arm_count * plan->attack_count + 1, sizeof *values);
    const char *harm = tm__tables_harm(plan);
    tm_status status = columns && names && rows && values ? TM_OK : tm__fail_memory();
    if (status == TM_OK && harm) {
        size_t n = heat_columns(plan, false, columns, names);
        bool groups = n > HEAT_COLUMNS, searched = plan->search_count > 0;
        if (groups) n = heat_columns(plan, true, columns, names);
        for (size_t a = 0; a < r->arm_count; a++) {
            rows[a] = r->arms[a].label;
            for (size_t i = 0; i < n; i++)
                values[a * n + i] = heat_value(r, &r->arms[a], &plan->attacks[columns[i]], groups);
        }
        const tm__heat heat = {.row_names = rows, .column_names = names, .values = values, r->arm_count, n};
        const tm__plot plot = {.heat = &heat};
        char title[TM__SCORE_NAME + 40];
        snprintf(title, sizeof title, "Harm (%s) by defence and attacker", harm);
        status = tm__page_plot(
            &r->page, title,
            groups     ? "Mean over replicates after the worst attacker of each group; stronger colour is more."
            : searched ? "Mean over replicates after each attacker, of a search after its worst trial; stronger colour "
                         "is more."
                       : "Mean over replicates after each attacker; stronger colour is more.",
            &plot, "heat");
    }
    free(columns);
    free((void *)names);
    free((void *)rows);
    free(values);
    return status;
}

/* ---- Panacea's epsilon ------------------------------------------------------------------------------------------- */

enum { BLOCKS = 128 };

/* The share of a cell's norm that each block has, mean over replicates. */
static size_t affinity_curve(const tm__report *r, const char *arm, const char *attack, double x[BLOCKS],
                             double y[BLOCKS]) {
    size_t n = 0;
    for (int layer = 0; layer < BLOCKS; layer++) {
        char name[40];
        snprintf(name, sizeof name, "epsilon_block_%d", layer);
        tm__stats stats = tm__tables_of(&r->found, arm, attack, name, "");
        if (stats.n == 0) break;
        x[n] = layer + 1;
        y[n++] = stats.mean;
    }
    return n;
}

tm_status tm__report_affinity(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    size_t most = plan->arm_count * plan->attack_count, count = 0;
    tm__series *series = tm__zalloc(most + 1, sizeof *series);
    double(*xy)[2][BLOCKS] = tm__alloc(most + 1, sizeof *xy);
    char(*labels)[2 * TM__PLAN_NAME + 4] = tm__alloc(most + 1, sizeof *labels);
    tm_status status = series && xy && labels ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < most && status == TM_OK; i++) {
        const char *arm = plan->arms[i / plan->attack_count].name, *attack = plan->attacks[i % plan->attack_count].name;
        size_t n = affinity_curve(r, arm, attack, xy[count][0], xy[count][1]);
        if (n == 0) continue;
        snprintf(labels[count], sizeof *labels, "%s, %s", arm, attack);
        series[count] = (tm__series){labels[count], TM__MARK_LINE, xy[count][0], xy[count][1], n};
        count++;
    }
    if (status == TM_OK && count) {
        const tm__plot plot = {.x = "block",
                               .y = "share of the norm of epsilon",
                               .from_zero = true,
                               .whole_x = true,
                               .series = series,
                               .count = count};
        status = tm__page_plot(&r->page, "Layer-wise safety affinity",
                               "Panacea's perturbation, block by block: the norm of its part in a block as a share of "
                               "the whole norm (their squares add up to 1 with those of embedding and final norm).",
                               &plot, "affinity");
    }
    free(series);
    free(xy);
    free(labels);
    return status;
}
