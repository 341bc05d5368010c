/* transport.h: what ranks.c needs of a way for processes to reach each other. There are two of them, of which the build
 * takes one: mpi/mpi.c and alone/alone.c, which reaches nobody. All calls but abort are collective. */
#ifndef TM_RANKS_TRANSPORT_H
#define TM_RANKS_TRANSPORT_H

#include "base/base.h"

/* Joins the others; `launched`: how many the environment promises. */
tm_status tm__transport_open(int launched, int *rank, int *count);
/* `all` (count, bytes) gets every rank's `mine` (bytes). Waits at most `patience` seconds, < 0: for ever; *met: all
 * came. If they did not, nothing more may be called but abort. */
tm_status tm__transport_gather(const void *mine, void *all, size_t bytes, double patience, bool *met);
/* from (count, bytes): piece r goes to rank r; to (count, bytes): piece r comes from rank r. */
tm_status tm__transport_swap(const void *from, void *to, size_t bytes);
/* all (count, bytes), whose piece of this rank is filled in: gets the others'. */
tm_status tm__transport_spread(void *all, size_t bytes);
void tm__transport_close(void);
/* Ends every rank, at once. */
void tm__transport_abort(int code);

#endif
