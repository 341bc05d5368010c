/* gemm.h: the ways of multiplying beside packed panels. */
#ifndef TM_CPU_GEMM_H
#define TM_CPU_GEMM_H

#include "device/cpu/isa/tile.h"

/* gemm_rows.c: rows of A times a weight stored (n, k), at the speed of memory; `count` such products, none empty. */
tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *list, int64_t count);

/* int8.c: rows of A times weights that int8_pack has made. */
tm_status TM__ISA(gemm_int8)(tm_device *dev, const tm__gemm *list, int64_t count);

/* Tasks that threads claim in runs, each a share of those that are left: few claims, each of which waits for the other
 * threads' caches, and short runs at the end. No run is so long that a thread whose processor somebody else takes keeps
 * the others waiting. A thread's tasks begin with {.all = ...}. */
enum { LONGEST_RUN = 16 };
typedef struct all_tasks {
    int64_t count, threads, claimed; /* claimed: runs */
} all_tasks;
typedef struct tasks {
    all_tasks *all;
    int64_t runs, first, length; /* how many runs were looked at; where the last of them begins */
    int64_t next, end;           /* of this thread's own run */
} tasks;

/* The thread's next task, or a number that is no task: there are no more. */
static inline int64_t next_task(tasks *t) {
    if (t->next == t->end) {
        int64_t claimed;
#pragma omp atomic capture
        claimed = t->all->claimed++;
        for (; t->runs <= claimed; t->runs++) {
            t->first += t->length;
            int64_t share = (t->all->count - t->first) / (2 * t->all->threads);
            t->length = TM__MAX(TM__MIN(share, (int64_t)LONGEST_RUN), (int64_t)1);
        }
        t->next = t->first;
        t->end = t->first + t->length;
    }
    return t->next++;
}

#endif
