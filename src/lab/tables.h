/* tables.h: what a plan found, as titled sheets: for the summary on the terminal and for the report. */
#ifndef TM_LAB_TABLES_H
#define TM_LAB_TABLES_H

#include "lab/plan.h"
#include "lab/sheet.h"
#include "lab/stats.h"

/* The cells of a plan that are done. */
typedef struct tm__found {
    const tm_plan *plan;
    const tm__record *records;
    size_t count;
} tm__found;

typedef enum tm__attack_kind { TM__ATTACK_NONE, TM__ATTACK_BENIGN, TM__ATTACK_HARMFUL } tm__attack_kind;

/* How a model was asked: what its scores' names end with, and its rows' names. */
typedef struct tm__view {
    const char *suffix, *label, *other; /* other: the view that a comparison has on the other side */
} tm__view;
enum { TM__VIEWS = 4 };
extern const tm__view tm__views[TM__VIEWS];

typedef struct tm__titled {
    char title[256];
    tm__sheet sheet;
} tm__titled;

/* Starts as {0}. */
typedef struct tm__tables {
    tm__titled *items;
    size_t count, cap;
    bool full; /* out of memory */
} tm__tables;

/* The scores that tell how harmful and how able a model is; NULL: the plan does not say. */
const char *tm__tables_harm(const tm_plan *plan);
const char *tm__tables_ability(const tm_plan *plan);
tm__attack_kind tm__tables_kind(const tm__plan_attack *attack);
/* Mean of a score, of "cpu_seconds" or of "peak_mib" over the replicates of a cell. */
tm__stats tm__tables_of(const tm__found *found, const char *arm, const char *attack, const char *score,
                        const char *view);
/* The attackers of one kind; of the first of them the name, "" where there is none. */
const char *tm__tables_attack_of(const tm_plan *plan, tm__attack_kind kind);
/* The attacker of a group with the highest mean of `score` against this arm; NULL: none was met. mean: over all of the
 * attackers that were met. */
const char *tm__tables_worst(const tm__found *found, const char *group, const char *arm, const char *score,
                             const char *view, double *mean, size_t *attackers);
size_t tm__tables_attackers(const tm_plan *plan, const char *group);
/* Whether this attacker is the first of a group that does harm. */
bool tm__tables_new_group(const tm_plan *plan, size_t attack);

/* Adds: models before an attack, the worst case of every group, and a matrix of attackers for each of `scores`. */
tm_status tm__tables_make(const tm__found *found, const char *scores, tm__tables *all);
/* Adds: the second arm of "ARM,ARM" minus the first, paired. */
tm_status tm__tables_compare(const tm__found *found, const char *compare, tm__tables *all);
void tm__tables_release(tm__tables *all);

#endif
