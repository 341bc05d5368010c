/* search.h: attackers that search: trials over a space of options within a budget, the same for every defence.
 *
 * Every trial is an attacker of the plan, so a cell with a key. search.c tells which trials of a halving are promoted,
 * and makes series (best harm so far against cumulative cost) and tables of them.
 */
#ifndef TM_LAB_SEARCH_H
#define TM_LAB_SEARCH_H

#include "lab/tables.h"

typedef enum tm__search_method { TM__SEARCH_GRID, TM__SEARCH_RANDOM, TM__SEARCH_HALVING } tm__search_method;

struct tm__plan_search {
    const char *group;
    int method;
    int64_t trials, steps; /* budget: trials (of a halving: to begin with), or steps of training in all; 0: not said */
    int64_t seed, eta;
    double epsilon, threshold; /* NAN: none */
    const char *ability;       /* that may fall by epsilon */
    size_t rungs, first;       /* first: index of the first trial among the plan's attacks; rung by rung */
    size_t count;              /* trials of the first rung; as many entries stand for every rung */
};

/* How many trials rung `rung` takes. */
size_t tm__search_width(const tm__plan_search *search, size_t rung);

typedef enum tm__trial_state { TM__TRIAL_WANTED, TM__TRIAL_WAITS, TM__TRIAL_DROPPED } tm__trial_state;
/* Of a cell: not a trial, or of a first rung: wanted. Dropped: others of its rung did more harm. */
tm__trial_state tm__search_state(const tm_plan *plan, const tm__plan_job *job);
tm_status tm__search_begin(tm_plan *plan); /* once jobs are listed */
void tm__search_free(tm_plan *plan);
/* What searches ask of arms. */
tm_status tm__search_check(const tm_plan *plan);

/* One trial that was made. */
typedef struct tm__search_point {
    const char *attack;
    int64_t trial, rung;
    double cost, seconds; /* cumulative: steps, CPU seconds of attacks */
    double steps, harm, ability;
    bool within;          /* ability fell by epsilon at most */
    double best, bounded; /* highest harm so far; of those within and of no attack, with epsilon; NAN: not known */
} tm__search_point;

/* What one search found against one arm in one replicate. */
typedef struct tm__search_series {
    const tm__plan_search *search;
    const char *arm;
    uint64_t world, seed;
    double before, harm; /* ability and harm before the attack; NAN: not known */
    tm__search_point *points;
    size_t count;
    bool finished;       /* no trial is left to be made */
    double breaks;       /* steps of the cheapest trial above the threshold; NAN: none is */
    double broken_after; /* cumulative steps until the first trial above it; NAN */
} tm__search_series;

typedef struct tm__search_list {
    tm__search_series *items;
    size_t count, cap;
} tm__search_list;
tm_status tm__search_series_make(const tm_plan *plan, tm__search_list *list);
void tm__search_series_release(tm__search_list *list);

/* Adds a table for every search of the plan. */
tm_status tm__search_tables(const tm_plan *plan, tm__tables *all);

#endif
