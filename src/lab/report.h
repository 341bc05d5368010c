/* report.h: the parts of a report: report.c puts them together. */
#ifndef TM_LAB_REPORT_H
#define TM_LAB_REPORT_H

#include "lab/page.h"
#include "lab/tables.h"

/* One arm in one view: a point, a curve or a row. */
typedef struct tm__arm_view {
    const char *arm;
    const tm__view *view;
    char label[2 * TM__PLAN_NAME];
} tm__arm_view;

typedef struct tm__report {
    tm__found found;
    tm__page page;
    tm__arm_view *arms;
    size_t arm_count;
} tm__report;

/* ---- report_tables.c ---- */
tm_status tm__report_tests(tm__report *report, const char *group);
tm_status tm__report_ratios(tm__report *report);    /* share of harmful rows x {harm, downstream} */
tm_status tm__report_budgets(tm__report *report);   /* learning rate x rows */
tm_status tm__report_secrets(tm__report *report);   /* without and with the secret */
tm_status tm__report_abilities(tm__report *report); /* before and after an attack */
tm_status tm__report_prices(tm__report *report);    /* seconds, memory, passes */

/* ---- report_plots.c ---- */
tm_status tm__report_heat(tm__report *report);
tm_status tm__report_scatter(tm__report *report, const char *group);
tm_status tm__report_costs(tm__report *report, const char *group);
tm_status tm__report_losses(tm__report *report);
tm_status tm__report_affinity(tm__report *report); /* Panacea's epsilon, block by block */

/* ---- report_search.c ---- */
tm_status tm__report_searches(tm__report *report);
/* ---- report_states.c ---- */
tm_status tm__report_states(tm__report *report); /* principal components of hidden states */

#endif
