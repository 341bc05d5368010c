/* store.h: what the jobs of plans found: one SQLite file per directory, DIR/store.db.
 *
 *   job     a line per job that ended: its key, what it is called, how it ended, what it cost, which program did it
 *   score   key, name, value: what a cell found
 *   metric  key, part, step: loss and rate of every step of a job's trainings; part counts them
 *   answer  key, probe, item: every prompt with its answer and the verdict on it
 *   cell    plan, arm, attack, world, seed -> key: the names that plans give to cells (two names may share a key)
 *
 * A job is written in one transaction, so it is there whole or not at all (after a loss of power the last ones may not
 * be there: they are done again), and several processes may write at a time (write-ahead log; a writer waits for
 * another). A line of `job` holds the SHA-256 of its scores: one whose scores do not add up to it is not there. The
 * schema's version is the file's user_version; a file of an older version is brought up to date when it is opened, a
 * newer one is refused.
 */
#ifndef TM_LAB_STORE_H
#define TM_LAB_STORE_H

#include "base/base.h"

typedef struct tm__store tm__store;

enum { TM__RECORD_SCORES = 192, TM__SCORE_NAME = 64 /* with the 0 at its end */ };

/* One step of training. */
typedef struct tm__metric {
    int64_t part, step, tokens;
    char phase[24];
    double loss, lr, seconds; /* lr: NAN where there is none */
} tm__metric;

typedef struct tm__answer {
    const char *probe, *prompt, *answer, *verdict;
    int64_t item;
} tm__answer;

/* What went on while a job ran; texts live in the arena. */
typedef struct tm__trace {
    tm__metric *metrics;
    tm__answer *answers;
    size_t metric_count, metric_cap, answer_count, answer_cap;
    int64_t part;
    tm__arena arena;
    bool full; /* out of memory: what was kept is not all */
} tm__trace;

void tm__trace_progress(tm__trace *trace, const tm_progress *progress);
void tm__trace_answer(tm__trace *trace, const char *probe, int64_t item, const char *prompt, const char *answer,
                      const char *verdict);
void tm__trace_release(tm__trace *trace);

/* How a job ended. */
typedef struct tm__job_end {
    const char *key, *kind, *name; /* kind: "cell" or "model" */
    const char *error;             /* NULL: it is done */
    double seconds, cpu_seconds, peak_mib;
    const char *setup; /* version, device, instruction set, precision */
} tm__job_end;

typedef struct tm__scores {
    size_t count;
    char (*names)[TM__SCORE_NAME];
    double *values;
} tm__scores;

/* Opens DIR/store.db; makes it if `make`. Without, a missing file is TM_NOT_FOUND, and one that may not be written can
 * be read all the same, unless a killed run left a log beside it. A connection belongs to the process
 * that opened it: a child opens its own. */
tm_status tm__store_open(const char *directory, bool make, tm__store **store);
void tm__store_close(tm__store *store); /* NULL is fine */

/* Writes the job, in place of what was there. scores and trace may be NULL. */
tm_status tm__store_put(tm__store *store, const tm__job_end *end, const tm__scores *scores, const tm__trace *trace);
/* A job that is done, with its scores (at most TM__RECORD_SCORES, in the order in which they were put): texts of `end`
 * are not set. TM_NOT_FOUND: it is not there, failed, or was damaged. */
tm_status tm__store_get(tm__store *store, const char *key, tm__job_end *end, tm__scores *scores);

/* The names of a plan's cells; what the plan had before is forgotten. */
typedef struct tm__cell_name {
    const char *arm, *group, *attack, *key;
    uint64_t world, seed;
} tm__cell_name;
tm_status tm__store_name_cells(tm__store *store, const char *plan, const tm__cell_name *cells, size_t count);

/* Forgets jobs whose keys are not among these and names of other plans' cells; *removed: how many jobs. dry: counts
 * only.
 */
tm_status tm__store_keep(tm__store *store, const char *const *keys, size_t key_count, const char *const *plans,
                         size_t plan_count, bool dry, size_t *removed);

/* One row of a query as texts, NULL where a column is empty. */
typedef tm_status tm__store_row(void *user, int columns, const char *const *names, const char *const *values);
/* values (count): what stands for ?1, ?2, ... */
tm_status tm__store_query(tm__store *store, const char *sql, const char *const *values, size_t count,
                          tm__store_row *row, void *user);

#endif
