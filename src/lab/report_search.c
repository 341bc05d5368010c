/* report_search.c: a report's pictures of attackers that search: the highest harm so far against the cost so far.
 *
 * Pinned by tests/cli/cases/run_models.sh.
 */
#include "lab/report.h"
#include "lab/search.h"

#include <stdlib.h>

/* Means over the finished runs of one arm: every run has as many trials, of as many steps. x, y: one more than trials.
 */
static size_t mean_best(const tm__search_list *list, const tm__plan_search *s, const char *arm, double *x, double *y) {
    size_t runs = 0, n = 0;
    for (size_t i = 0; i < list->count; i++) {
        const tm__search_series *run = &list->items[i];
        if (run->search != s || strcmp(run->arm, arm) != 0 || !run->finished || !run->count) continue;
        n = runs ? TM__MIN(n, run->count) : run->count;
        for (size_t k = 0; k < n; k++) {
            x[k] = (runs ? x[k] : 0) + run->points[k].cost;
            y[k] = (runs ? y[k] : 0) + run->points[k].best;
        }
        runs++;
    }
    for (size_t k = 0; k < n; k++) {
        x[k] /= (double)runs;
        y[k] /= (double)runs;
    }
    return n;
}

static tm_status draw(tm__report *r, const tm__search_list *list, const tm__plan_search *s) {
    const tm_plan *plan = r->found.plan;
    size_t room = s->count * s->rungs, count = 0;
    tm__series *series = tm__zalloc(plan->arm_count + 1, sizeof *series);
    double *xy = tm__alloc(2 * (plan->arm_count * room + 1), sizeof *xy);
    tm_status status = series && xy ? TM_OK : tm__fail_memory();
    for (size_t a = 0; status == TM_OK && a < plan->arm_count; a++) {
        double *x = xy + 2 * a * room, *y = x + room;
        size_t n = mean_best(list, s, plan->arms[a].name, x, y);
        if (n > 1) series[count++] = (tm__series){plan->arms[a].name, TM__MARK_STEP, x, y, n};
    }
    if (status == TM_OK && count) {
        char title[128], name[96], most[TM__SCORE_NAME + 16];
        snprintf(title, sizeof title, "Harm found and steps of searching, %s", s->group);
        snprintf(most, sizeof most, "highest %s", plan->harm);
        tm__page_file_name("search", s->group, name);
        const tm__plot plot = {
            .x = "steps of all trials so far", .y = most, .log_x = true, .series = series, .count = count};
        status = tm__page_plot(&r->page, title,
                               "The highest harm that a search has found once it has spent so many steps, mean over "
                               "runs; every defence meets the same trials.",
                               &plot, name);
    }
    free(series);
    free(xy);
    return status;
}

tm_status tm__report_searches(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    tm__search_list list = {0};
    tm_status status = plan->search_count ? tm__search_series_make(plan, &list) : TM_OK;
    for (size_t k = 0; status == TM_OK && k < plan->search_count; k++) status = draw(r, &list, &plan->searches[k]);
    tm__search_series_release(&list);
    return status;
}
