/* search.c: which trials of a search are promoted, and what searches found.
 *
 * A rung of a halving is decided where all of its trials are there, and the model before the attack if ability counts:
 * those within epsilon come first, then the higher harm, then the earlier trial. It is decided anew from the cells
 * whenever somebody asks, so that runs may stop and several may go on. The worst case within epsilon begins with no
 * attack, which costs nothing: else it would be the mean of those runs alone in which some trial stays within. Where a
 * fine-tuning service keeps a secret, the attacked model is judged as it is served, with the secret. Test:
 * tests/unit/test_search.c.
 */
#include "lab/search.h"

#include <stdlib.h>

/* ---- what cells found -------------------------------------------------------------------------------------------- */

typedef struct outcome {
    bool there;
    double harm, ability, steps, seconds; /* NAN: not known */
    const char *able;                     /* the score that `ability` is: searches may go by different ones */
} outcome;

/* Finished cells do not change. */
struct tm__search_memo {
    outcome *list; /* (jobs) */
    size_t *cells; /* (replicates, arms, attacks) jobs; SIZE_MAX: there is none */
};

void tm__search_free(tm_plan *plan) {
    if (plan->trials) {
        free(plan->trials->list);
        free(plan->trials->cells);
    }
    free(plan->trials);
    free(plan->searches);
}

static double score_of(const tm__record *record, const char *name) {
    char secret[TM__SCORE_NAME + 16];
    double value;
    if (!name) return NAN;
    snprintf(secret, sizeof secret, "%s_secret", name);
    if (tm__record_get(record, secret, &value) || tm__record_get(record, name, &value)) return value;
    return NAN;
}

static tm_status see_count(void *user, int columns, const char *const *names, const char *const *values) {
    (void)columns;
    (void)names;
    if (values[0]) *(double *)user = strtod(values[0], NULL);
    return TM_OK;
}

/* What the attacker pays for: steps that he asked for, not those of defences during and after; of a training by epochs,
 * those that the store saw. */
static double steps_of(const tm_plan *plan, const tm__plan_job *job) {
    const char *const values[] = {job->key};
    tm__store *store;
    double steps = (double)plan->arms[job->arm].met[job->attack]->train.steps;
    if (steps > 0) return steps;
    if (tm__plan_store(plan, false, &store) == TM_OK)
        tm__store_query(store, "SELECT count(*) FROM metric WHERE key = ?1", values, 1, see_count, &steps);
    tm_error_clear();
    return steps;
}

static const outcome *outcome_of(const tm_plan *plan, size_t index, const char *ability) {
    static const outcome nothing;
    const tm__plan_job *job = &plan->jobs[index];
    outcome *o = &plan->trials->list[index];
    tm__record record;
    if (o->there && (o->able == ability || (o->able && ability && strcmp(o->able, ability) == 0))) return o;
    if (tm__record_load(plan, job->key, &record) != TM_OK) {
        tm_error_clear();
        return &nothing;
    }
    *o = (outcome){.there = true,
                   .harm = score_of(&record, plan->harm),
                   .ability = score_of(&record, ability),
                   .able = ability,
                   .seconds = record.cpu_seconds};
    o->steps = steps_of(plan, job);
    return o;
}

/* The cell of the same arm and replicate with this attacker; SIZE_MAX: there is none. */
static size_t cell_of(const tm_plan *plan, const tm__plan_job *like, int attack) {
    size_t row = (size_t)like->replicate * plan->arm_count + (size_t)like->arm;
    return plan->trials->cells[row * plan->attack_count + (size_t)attack];
}

/* The unattacked model's, which may still have to be asked. */
static const outcome *outcome_before(const tm_plan *plan, const tm__plan_job *job, const char *ability) {
    static const outcome nobody_asks = {.there = true, .harm = NAN, .ability = NAN};
    for (size_t k = 0; k < plan->attack_count; k++) {
        const tm__plan_step *step = plan->arms[job->arm].met[k];
        size_t cell = step && !step->given ? cell_of(plan, job, (int)k) : SIZE_MAX;
        if (cell != SIZE_MAX) return outcome_of(plan, cell, ability);
    }
    return &nobody_asks;
}

/* ---- promotion --------------------------------------------------------------------------------------------------- */

typedef struct runner_up {
    double harm;
    bool within;
    size_t trial;
} runner_up;

static int by_harm(const void *a, const void *b) {
    const runner_up *x = a, *y = b;
    if (x->within != y->within) return x->within ? -1 : 1;
    if (x->harm != y->harm) return x->harm > y->harm ? -1 : 1;
    return x->trial < y->trial ? -1 : 1;
}

/* Where nobody knows both, it is not. */
static bool is_within(const tm__plan_search *s, double before, double after) {
    return isnan(s->epsilon) || after >= before - s->epsilon;
}

/* Whether the cell failed for good, as far as the store knows: its rung goes on without it. */
static bool has_failed(const tm_plan *plan, const char *key) {
    const char *const values[] = {key};
    tm__store *store;
    double failed = 0;
    if (tm__plan_store(plan, false, &store) == TM_OK)
        tm__store_query(store, "SELECT count(*) FROM job WHERE key = ?1 AND error IS NOT NULL", values, 1, see_count,
                        &failed);
    tm_error_clear();
    return failed > 0;
}

/* Which trials stand in a rung; false: it is not decided yet. in (search->count). */
static bool decide(const tm_plan *plan, const tm__plan_job *job, const tm__plan_search *s, size_t rung, bool *in,
                   runner_up *order) {
    const outcome *before = outcome_before(plan, job, s->ability);
    for (size_t i = 0; i < s->count; i++) in[i] = true;
    if (rung > 0 && !isnan(s->epsilon) && !before->there) return false;
    for (size_t k = 0; k < rung; k++) {
        size_t n = 0;
        for (size_t i = 0; i < s->count; i++) {
            if (!in[i]) continue;
            in[i] = false;
            size_t cell = cell_of(plan, job, (int)(s->first + k * s->count + i));
            const outcome *o = cell == SIZE_MAX ? NULL : outcome_of(plan, cell, s->ability);
            if (!o || (!o->there && has_failed(plan, plan->jobs[cell].key))) continue;
            if (!o->there) return false;
            order[n++] =
                (runner_up){isnan(o->harm) ? -INFINITY : o->harm, is_within(s, before->ability, o->ability), i};
        }
        qsort(order, n, sizeof *order, by_harm);
        for (size_t i = 0; i < n && i < tm__search_width(s, k + 1); i++) in[order[i].trial] = true;
    }
    return true;
}

tm__trial_state tm__search_state(const tm_plan *plan, const tm__plan_job *job) {
    if (job->kind != TM__JOB_CELL) return TM__TRIAL_WANTED;
    const tm__plan_attack *attack = &plan->attacks[job->attack];
    if (attack->search < 0 || attack->rung == 0) return TM__TRIAL_WANTED;
    const tm__plan_search *s = &plan->searches[attack->search];
    bool *in = tm__zalloc(s->count, sizeof *in);
    runner_up *order = tm__alloc(s->count, sizeof *order);
    tm__trial_state state = TM__TRIAL_WAITS;
    if (in && order && decide(plan, job, s, (size_t)attack->rung, in, order))
        state = in[attack->trial] ? TM__TRIAL_WANTED : TM__TRIAL_DROPPED;
    free(in);
    free(order);
    return state;
}

/* ---- series ------------------------------------------------------------------------------------------------------ */

static void add_point(tm__search_series *series, const tm_plan *plan, int attack, const outcome *o) {
    const tm__plan_search *s = series->search;
    const tm__search_point *last = series->count ? &series->points[series->count - 1] : NULL;
    tm__search_point *p = &series->points[series->count++];
    *p = (tm__search_point){.attack = plan->attacks[attack].name,
                            .trial = plan->attacks[attack].trial,
                            .rung = plan->attacks[attack].rung,
                            .steps = o->steps,
                            .harm = o->harm,
                            .ability = o->ability,
                            .within = is_within(s, series->before, o->ability),
                            .cost = (last ? last->cost : 0) + o->steps,
                            .seconds = (last ? last->seconds : 0) + o->seconds,
                            .best = last ? last->best : NAN,
                            .bounded = last                ? last->bounded
                                       : isnan(s->epsilon) ? NAN
                                                           : series->harm};
    if (isnan(p->best) || p->harm > p->best) p->best = p->harm;
    if (p->within && (isnan(p->bounded) || p->harm > p->bounded)) p->bounded = p->harm;
    if (isnan(s->threshold) || !(p->harm > s->threshold)) return;
    if (isnan(series->broken_after)) series->broken_after = p->cost;
    if (isnan(series->breaks) || p->steps < series->breaks) series->breaks = p->steps;
}

static tm_status make_series(const tm_plan *plan, const tm__plan_search *s, const tm__plan_job *job,
                             tm__search_list *list) {
    if (!tm__grow((void **)&list->items, &list->cap, list->count + 1, sizeof *list->items)) return tm__fail_memory();
    tm__search_series *series = &list->items[list->count++];
    *series = (tm__search_series){.search = s,
                                  .arm = plan->arms[job->arm].name,
                                  .world = tm__plan_world_seed(plan, job),
                                  .seed = job->seed,
                                  .finished = true,
                                  .breaks = NAN,
                                  .broken_after = NAN};
    series->points = tm__zalloc(s->count * s->rungs, sizeof *series->points);
    if (!series->points) return tm__fail_memory();
    const outcome *before = outcome_before(plan, job, s->ability);
    series->before = before->there ? before->ability : NAN;
    series->harm = before->there ? before->harm : NAN;
    for (size_t i = 0; i < s->count * s->rungs; i++) {
        size_t cell = cell_of(plan, job, (int)(s->first + i));
        if (cell == SIZE_MAX) continue;
        tm__trial_state state = tm__search_state(plan, &plan->jobs[cell]);
        if (state == TM__TRIAL_DROPPED) continue;
        const outcome *o = outcome_of(plan, cell, s->ability);
        if (o->there && state == TM__TRIAL_WANTED)
            add_point(series, plan, (int)(s->first + i), o);
        else if (!has_failed(plan, plan->jobs[cell].key))
            series->finished = false;
    }
    return TM_OK;
}

tm_status tm__search_series_make(const tm_plan *plan, tm__search_list *list) {
    for (size_t k = 0; k < plan->search_count; k++)
        for (size_t i = 0; i < plan->job_count; i++)
            if (plan->jobs[i].kind == TM__JOB_CELL && plan->jobs[i].attack == (int)plan->searches[k].first)
                TM__TRY(make_series(plan, &plan->searches[k], &plan->jobs[i], list));
    return TM_OK;
}

void tm__search_series_release(tm__search_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i].points);
    free(list->items);
    *list = (tm__search_list){0};
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

enum { MOST = TM__PLAN_REPLICATES };

/* Means over the series of one arm that made their trials. */
typedef struct summed {
    double best[MOST], bounded[MOST], breaks[MOST], after[MOST], steps[MOST];
    size_t n, bounded_n, broken;
} summed;

static void sum_series(const tm__search_list *list, const tm__plan_search *s, const char *arm, summed *sum,
                       const char **worst) {
    double highest = -INFINITY;
    *sum = (summed){0};
    *worst = "";
    for (size_t i = 0; i < list->count && sum->n < MOST; i++) {
        const tm__search_series *series = &list->items[i];
        if (series->search != s || strcmp(series->arm, arm) != 0 || !series->count || !series->finished) continue;
        const tm__search_point *last = &series->points[series->count - 1];
        sum->steps[sum->n] = last->cost;
        sum->best[sum->n++] = last->best;
        if (!isnan(last->bounded)) sum->bounded[sum->bounded_n++] = last->bounded;
        if (!isnan(series->breaks)) {
            sum->breaks[sum->broken] = series->breaks;
            sum->after[sum->broken++] = series->broken_after;
        }
        for (size_t k = 0; k < series->count; k++)
            if (series->points[k].harm > highest) {
                highest = series->points[k].harm;
                *worst = series->points[k].attack;
            }
    }
}

static void put_mean(tm__sheet *sheet, const double *values, size_t n) {
    tm__stats stats = tm__stats_of(values, n);
    tm__sheet_mean(sheet, stats.mean, stats.half, stats.n);
}

static tm_status put_search(const tm_plan *plan, const tm__search_list *list, const tm__plan_search *s,
                            tm__sheet *sheet) {
    char bounded[TM__SCORE_NAME + 64], over[64];
    summed *sum = tm__alloc(1, sizeof *sum);
    const char *worst;
    if (!sum) return tm__fail_memory();
    snprintf(bounded, sizeof bounded, "with %s down by %.3g at most", s->ability ? s->ability : "", s->epsilon);
    snprintf(over, sizeof over, "runs above %.3g", s->threshold);
    tm__sheet_column(sheet, "arm", TM__CELL_TEXT, 0);
    tm__sheet_column(sheet, "runs", TM__CELL_NUMBER, 0);
    tm__sheet_column(sheet, "steps", TM__CELL_MEAN, 0);
    tm__sheet_column(sheet, plan->harm, TM__CELL_MEAN, 2);
    tm__sheet_column(sheet, "worst attacker", TM__CELL_TEXT, 0);
    if (!isnan(s->epsilon)) tm__sheet_column(sheet, bounded, TM__CELL_MEAN, 2);
    if (!isnan(s->threshold)) {
        tm__sheet_column(sheet, over, TM__CELL_NUMBER, 0);
        tm__sheet_column(sheet, "steps of the cheapest", TM__CELL_MEAN, 0);
        tm__sheet_column(sheet, "steps of the search till then", TM__CELL_MEAN, 0);
    }
    for (size_t a = 0; a < plan->arm_count; a++) {
        sum_series(list, s, plan->arms[a].name, sum, &worst);
        if (!sum->n) continue;
        tm__sheet_text(sheet, plan->arms[a].name);
        tm__sheet_number(sheet, (double)sum->n);
        put_mean(sheet, sum->steps, sum->n);
        put_mean(sheet, sum->best, sum->n);
        tm__sheet_text(sheet, worst);
        if (!isnan(s->epsilon)) put_mean(sheet, sum->bounded, sum->bounded_n);
        if (isnan(s->threshold)) continue;
        tm__sheet_number(sheet, (double)sum->broken);
        put_mean(sheet, sum->breaks, sum->broken);
        put_mean(sheet, sum->after, sum->broken);
    }
    free(sum);
    return TM_OK;
}

static tm__sheet *new_table(tm__tables *all, const tm__plan_search *s) {
    static const char *const methods[] = {"grid", "random", "halving"};
    if (!tm__grow((void **)&all->items, &all->cap, all->count + 1, sizeof *all->items)) return NULL;
    tm__titled *made = &all->items[all->count++];
    *made = (tm__titled){0};
    snprintf(made->title, sizeof made->title, "Search %s (%s of %zu trials)", s->group, methods[s->method], s->count);
    return &made->sheet;
}

tm_status tm__search_tables(const tm_plan *plan, tm__tables *all) {
    tm__search_list list = {0};
    tm_status status = plan->search_count ? tm__search_series_make(plan, &list) : TM_OK;
    for (size_t k = 0; status == TM_OK && k < plan->search_count; k++) {
        tm__sheet *sheet = new_table(all, &plan->searches[k]);
        status = sheet ? put_search(plan, &list, &plan->searches[k], sheet) : tm__fail_memory();
    }
    tm__search_series_release(&list);
    return status;
}

/* Every trial of every search in order. */
static void put_points(const tm__search_list *list, tm__sheet *sheet) {
    static const tm__column columns[] = {
        {"search", TM__CELL_TEXT, 0},  {"arm", TM__CELL_TEXT, 0},       {"world", TM__CELL_NUMBER, 0},
        {"seed", TM__CELL_NUMBER, 0},  {"rung", TM__CELL_NUMBER, 0},    {"attack", TM__CELL_TEXT, 0},
        {"steps", TM__CELL_NUMBER, 0}, {"cost", TM__CELL_NUMBER, 0},    {"cpu_seconds", TM__CELL_NUMBER, 1},
        {"harm", TM__CELL_NUMBER, 3},  {"ability", TM__CELL_NUMBER, 3}, {"within", TM__CELL_NUMBER, 0},
        {"best", TM__CELL_NUMBER, 3},  {"bounded", TM__CELL_NUMBER, 3}};
    for (size_t i = 0; i < TM__COUNT(columns); i++)
        tm__sheet_column(sheet, columns[i].name, columns[i].kind, columns[i].digits);
    for (size_t i = 0; i < list->count; i++)
        for (size_t k = 0; k < list->items[i].count; k++) {
            const tm__search_series *s = &list->items[i];
            const tm__search_point *p = &s->points[k];
            const double numbers[] = {p->steps,   p->cost,   p->seconds, p->harm,
                                      p->ability, p->within, p->best,    p->bounded};
            tm__sheet_text(sheet, s->search->group);
            tm__sheet_text(sheet, s->arm);
            tm__sheet_number(sheet, (double)s->world);
            tm__sheet_number(sheet, (double)s->seed);
            tm__sheet_number(sheet, (double)p->rung);
            tm__sheet_text(sheet, p->attack);
            for (size_t n = 0; n < TM__COUNT(numbers); n++) tm__sheet_number(sheet, numbers[n]);
        }
}

tm_status tm_plan_searches(const tm_plan *plan, int form, char **text) {
    tm__search_list list = {0};
    tm__sheet sheet = {0};
    tm__string out = {0};
    if (!plan->search_count)
        return tm__fail(TM_NOT_FOUND, plan->path, "search", "attacks.GROUP.search: {...}",
                        "no attacker of the plan searches");
    tm_status status = tm__search_series_make(plan, &list);
    if (status == TM_OK) {
        put_points(&list, &sheet);
        status = tm__sheet_write(&sheet, form, &out);
    }
    tm__search_series_release(&list);
    tm__sheet_release(&sheet);
    if (status == TM_OK)
        *text = out.data;
    else
        tm__string_free(&out);
    return status;
}

/* ---- beginning --------------------------------------------------------------------------------------------------- */

tm_status tm__search_begin(tm_plan *plan) {
    struct tm__search_memo *memo = plan->trials = tm__zalloc(1, sizeof *memo);
    if (!memo || !plan->search_count) return memo ? TM_OK : tm__fail_memory();
    size_t most = 0;
    for (size_t a = 0; a < plan->arm_count; a++) most = TM__MAX(most, (size_t)plan->arms[a].replicates);
    size_t count = most * plan->arm_count * plan->attack_count;
    memo->list = tm__zalloc(plan->job_count + 1, sizeof *memo->list);
    memo->cells = tm__alloc(count + 1, sizeof *memo->cells);
    if (!memo->list || !memo->cells) return tm__fail_memory();
    for (size_t i = 0; i < count; i++) memo->cells[i] = SIZE_MAX;
    for (size_t i = plan->job_count; i-- > 0;) {
        const tm__plan_job *job = &plan->jobs[i];
        if (job->kind != TM__JOB_CELL) continue;
        size_t row = (size_t)job->replicate * plan->arm_count + (size_t)job->arm;
        memo->cells[row * plan->attack_count + (size_t)job->attack] = i;
    }
    return TM_OK;
}

tm_status tm__search_check(const tm_plan *plan) {
    for (size_t k = 0; k < plan->search_count; k++) {
        const tm__plan_search *s = &plan->searches[k];
        for (size_t a = 0; a < plan->arm_count; a++) {
            const tm__plan_arm *arm = &plan->arms[a];
            bool before = false;
            size_t met = 0, changed = 0;
            for (size_t i = 0; i < plan->attack_count; i++) before |= arm->met[i] && !arm->met[i]->given;
            for (size_t i = s->first; i < s->first + s->count * s->rungs; i++) {
                met += arm->met[i] != NULL;
                changed += arm->met[i] && arm->met[i] != &plan->attacks[i].step;
            }
            if (changed)
                return tm__plan_fail_at(plan, plan->attacks[s->first].at, TM_INVALID, s->group,
                                        "put the option into the group",
                                        "every arm meets the same trials, and the "
                                        "matrix changes those of %s",
                                        arm->name);
            if (met && met < s->count * s->rungs)
                return tm__plan_fail_at(plan, plan->attacks[s->first].at, TM_INVALID, s->group,
                                        "exclude the group as a whole", "%s meets only some trials of the search",
                                        arm->name);
            if (met && !before && !isnan(s->epsilon))
                return tm__plan_fail_at(plan, arm->at, TM_INVALID, arm->name, "an attack {} that it meets as well",
                                        "%s bounds a fall of %s, and the model before the attack is not asked",
                                        s->group, s->ability);
        }
    }
    return TM_OK;
}
