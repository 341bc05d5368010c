/* mpi.c: processes reach each other by MPI (any implementation of MPI 3.0; MPI: A Message-Passing Interface Standard).
 *
 * Waiting: an MPI library spins, which takes the core from the very rank that is waited for wherever there are more
 * threads than cores. So every operation is started, and then asked after: at first at once, as fits an exchange
 * between ranks that are all there, then giving the core away, then in naps that grow with the time waited to a
 * sixteenth of it and at most 2 ms. A rank that waits for another's checkpoint costs nothing, and no meeting costs more
 * than 6% of what its last rank took longer.
 *
 * What is added up is added by us (ranks.c), in the order of the ranks: MPI_Allreduce leaves the order to the library.
 */
#include "ranks/transport.h"

#include <mpi.h>
#include <sched.h>
#include <time.h>

static MPI_Comm comm = MPI_COMM_NULL;
static bool ours; /* MPI was begun here, and ends here */

static tm_status failed(int code) {
    char text[MPI_MAX_ERROR_STRING];
    int len = 0;
    if (MPI_Error_string(code, text, &len) != MPI_SUCCESS) len = 0;
    return tm__fail(TM_IO, NULL, "MPI", NULL, "%.*s", len, text);
}

#define MPI_TRY(call)                                   \
    do {                                                \
        int code_ = (call);                             \
        if (code_ != MPI_SUCCESS) return failed(code_); \
    } while (0)

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void nap(double seconds) {
    struct timespec time = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&time, NULL);
}

static tm_status wait_for(MPI_Request *request, double patience, bool *met) {
    double began = tm__now();
    int done = 0;
    for (;;) {
        MPI_TRY(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) break;
        double waited = tm__now() - began;
        if (patience >= 0 && waited > patience) break;
        if (waited > 1e-3)
            nap(fmin(waited / 16, 2e-3));
        else if (waited > 50e-6)
            sched_yield();
    }
    *met = done != 0;
    return TM_OK;
}

static tm_status wait_forever(MPI_Request *request) {
    bool met;
    return wait_for(request, -1, &met);
}

/* ---- the transport ----------------------------------------------------------------------------------------------- */

tm_status tm__transport_open(int launched, int *rank, int *count) {
    int begun = 0, level;
    *rank = 0;
    *count = 1;
    MPI_TRY(MPI_Initialized(&begun));
    if (!begun && launched <= 1) return TM_OK;
    if (!begun) MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level));
    ours = !begun;
    MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &comm)); /* our messages are not the host program's */
    MPI_TRY(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(comm, rank));
    MPI_TRY(MPI_Comm_size(comm, count));
    if (*count == 1 && launched > 1)
        return tm__fail(TM_UNSUPPORTED, NULL, NULL, "use the mpirun of the MPI that temper was built with",
                        "%d processes were started together, and do not see each other", launched);
    return TM_OK;
}

tm_status tm__transport_gather(const void *mine, void *all, size_t bytes, double patience, bool *met) {
    MPI_Request request;
    MPI_TRY(MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, comm, &request));
    return wait_for(&request, patience, met);
}

tm_status tm__transport_swap(const void *from, void *to, size_t bytes) {
    MPI_Request request;
    MPI_TRY(MPI_Ialltoall(from, (int)bytes, MPI_BYTE, to, (int)bytes, MPI_BYTE, comm, &request));
    return wait_forever(&request);
}

tm_status tm__transport_spread(void *all, size_t bytes) {
    MPI_Request request;
    MPI_TRY(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, (int)bytes, MPI_BYTE, comm, &request));
    return wait_forever(&request);
}

void tm__transport_close(void) {
    if (comm != MPI_COMM_NULL) MPI_Comm_free(&comm);
    if (ours) MPI_Finalize();
    ours = false;
}

void tm__transport_abort(int code) {
    MPI_Abort(comm == MPI_COMM_NULL ? MPI_COMM_WORLD : comm, code);
}
