/* tasks.h: how the threads of a call share its tasks 0 .. count - 1.
 *
 * Tasks are claimed in runs, each a share of those that are left: few claims, each of which waits for the other
 * threads' caches, and short runs at the end. No run is so long that a thread whose processor somebody else takes keeps
 * the others waiting. Where runs begin depends on the counts alone, so a claim is one addition.
 * (tests/unit/test_tasks.c)
 */
#ifndef TM_CPU_TASKS_H
#define TM_CPU_TASKS_H

#include "base/base.h"

#include <stdatomic.h>

enum { TM__LONGEST_RUN = 16 };

typedef struct tm__all_tasks {
    int64_t count, threads;
    _Atomic int64_t claimed; /* runs */
} tm__all_tasks;

/* One thread's view of them; begins as {.all = ...}. */
typedef struct tm__tasks {
    tm__all_tasks *all;
    int64_t runs, first, length; /* how many runs were looked at; where the last of them begins */
    int64_t next, end;           /* of this thread's own run */
} tm__tasks;

/* The thread's next task; `count` or more: there are none left. */
static inline int64_t tm__next_task(tm__tasks *t) {
    if (t->next == t->end) {
        int64_t claimed = atomic_fetch_add_explicit(&t->all->claimed, 1, memory_order_relaxed);
        for (; t->runs <= claimed; t->runs++) {
            t->first += t->length;
            int64_t share = (t->all->count - t->first) / (2 * t->all->threads);
            t->length = TM__MAX(TM__MIN(share, (int64_t)TM__LONGEST_RUN), (int64_t)1);
        }
        t->next = t->first;
        t->end = t->first + t->length;
    }
    return t->next++;
}

#endif
