/* ranks.h: what several processes that train together say to each other.
 *
 * All of it is collective: every rank makes the same calls in the same order. A rank that fails leaves that order; it
 * goes to its end, where it meets the others once more (tm_ranks_fail). So everything begins with a meeting, whose form
 * is always the same: whoever arrives at whichever meeting learns that a rank has failed, and why, instead of waiting
 * for it. Data is exchanged only between ranks that have just met.
 */
#ifndef TM_RANKS_H
#define TM_RANKS_H

#include "base/base.h"
#include "temper_ranks.h"
#include "tensor/tensor.h"

typedef struct tm__meeting {
    tm_status status; /* of this rank */
    bool stop;        /* in: this rank is to stop; out: some rank is */
    double sum;       /* in: this rank's; out: of all ranks', added in their order */
    int64_t most;     /* in: this rank's; out: the greatest */
    uint8_t mark[32]; /* must be the same on all ranks; `what` says of what it is the mark, for the error */
    const char *what; /* NULL: nothing is compared */
    const char *hint;
} tm__meeting;
/* TM_OK where every rank came with that; else as tm_ranks_agree. TM_MISMATCH if the marks differ. */
tm_status tm__ranks_meet(tm__meeting *meeting);
/* A meeting that compares this text (of any length). */
tm_status tm__ranks_same(const char *text, const char *what, const char *hint);

/* A buffer for sums; the same `elements` on every rank. */
typedef struct tm__adder {
    void *mine, *theirs;
    size_t elements; /* that fit into `mine`: a multiple of the number of ranks */
    tm_dtype type;   /* TM_F32 or TM_F64 */
} tm__adder;
tm_status tm__adder_create(tm_dtype type, tm__adder *adder);
void tm__adder_release(tm__adder *adder);
/* The first n elements of `mine`, n <= elements, become the sums over all ranks, added in the order of the ranks:
 * the same bytes everywhere and in every run. Only after a meeting that ended well. */
tm_status tm__adder_sum(tm__adder *adder, size_t n);

/* Threads for this process: of the cores it may use, those that it shares with other ranks in parts. */
int tm__ranks_threads(void);
/* Says if the launcher has left cores of this host to nobody. */
void tm__ranks_note_cores(const tm_monitor *monitor);

#endif
