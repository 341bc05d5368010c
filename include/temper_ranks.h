/* temper_ranks.h: the part of temper.h about training by several processes; included by it.
 *
 * `mpirun -n 4 program` starts four processes, which call themselves ranks 0 to 3. Each runs the same program on the
 * same inputs. tm_train and the methods that say so (tm_method.divides) give each rank a part of every batch's rows and
 * add the gradients up, so that all ranks take the step that one process would take, to the rounding of a sum, and all
 * hold the same bytes after it. What is written is rank 0's business: `if (tm_ranks_rank() == 0) tm_model_save(...)`.
 *
 *     tm_status status = tm_ranks_open();
 *     if (status == TM_OK) status = train();      // the same calls in every process
 *     if (tm_ranks_fail(status, NULL)) fprintf(stderr, "%s\n", tm_error_last()->line);
 *     return tm_ranks_close(tm_status_exit_code(status));
 */
#ifndef TEMPER_RANKS_H
#define TEMPER_RANKS_H

#include "temper_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Joins the processes that a launcher of MPI started with this one; alone, does nothing. From then on a device opened
 * with threads = 0 takes this process's share of the cores. TM_UNSUPPORTED where there are several and the library was
 * built without MPI, or with another one than the launcher's: they would all do the same and overwrite each other. */
TM_API tm_status tm_ranks_open(void);
/* Processes that train together, and which of them this one is; before tm_ranks_open 1 and 0. */
TM_API int tm_ranks_count(void);
TM_API int tm_ranks_rank(void);
/* Processes that were started together, and which of them this one is, by what the launcher says in the environment. */
TM_API int tm_ranks_launched(int *rank);
/* All ranks call it, each with a status of its own. TM_OK where all came with that; else the status of the first that
 * did not, with its message. Waits for all. */
TM_API tm_status tm_ranks_agree(tm_status status);
/* This rank ends with `status`; unless that is TM_OK, the others are told, with `line` (NULL: tm_error_last). Whether
 * this rank is to print the message: rank 0 is, for all; another one if rank 0 is not to be had. */
TM_API bool tm_ranks_fail(tm_status status, const char *line);
/* Last call of every rank. The exit code to end with: the first rank's that failed. */
TM_API int tm_ranks_close(int code);

#ifdef __cplusplus
}
#endif
#endif
