/* ranks.c: meetings of processes that train together, sums over them, and how they end.
 *
 * A meeting is one gather of a card from every rank. Sums are a swap and a spread: rank r gets every rank's r-th piece,
 * adds them in the order of the ranks, and hands the sum out. So the bytes depend on the number of ranks and on nothing
 * else, and no rank adds more than its part. (tests/cli/cases/ranks.sh)
 *
 * The end: a rank that fails meets the others with its status and its message, wherever they are, and all end with
 * that. If they do not come (they are at work for minutes yet, or hang) it says so itself and ends them.
 */
#include "ranks/ranks.h"
#include "ranks/transport.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static const double PATIENCE = 10; /* seconds that a failed rank waits for the others */

typedef struct card {
    int32_t status, stop;
    double sum;
    int64_t most;
    uint8_t mark[32];
    char line[360];
} card;

static struct {
    int rank, count;
    bool open;   /* others can be reached */
    bool failed; /* a meeting ended badly: there are no more */
    bool lost;   /* the others did not come */
    int threads, used, there;
    card *cards; /* (count) */
} ranks = {.count = 1};

/* ---- who was started --------------------------------------------------------------------------------------------- */

static int number_in(const char *name, int otherwise) {
    const char *text = getenv(name);
    char *end;
    long value = text ? strtol(text, &end, 10) : otherwise;
    return text && (end == text || *end || value < 0 || value > 1000000) ? otherwise : (int)value;
}

/* What launchers tell their processes: Open MPI; MPICH, Intel MPI and Slurm's PMI; MVAPICH; Slurm's PMIx. */
int tm_ranks_launched(int *rank) {
    static const char *const names[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                           {"PMI_SIZE", "PMI_RANK"},
                                           {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
                                           {"SLURM_STEP_NUM_TASKS", "PMIX_RANK"}};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        if (!getenv(names[i][0]) || !getenv(names[i][1])) continue;
        *rank = number_in(names[i][1], 0);
        return TM__MAX(number_in(names[i][0], 1), 1);
    }
    *rank = 0;
    return 1;
}

int tm_ranks_count(void) {
    return ranks.count;
}

int tm_ranks_rank(void) {
    return ranks.rank;
}

/* ---- cores ------------------------------------------------------------------------------------------------------- */

typedef struct place {
    char host[64];
    cpu_set_t cores;
} place;

/* Of every core that this rank may use, its part: ranks on the same host may share it. */
static void count_cores(const place *all, const place *mine) {
    double share = 0;
    cpu_set_t together, above;
    CPU_ZERO(&together);
    for (int core = 0; core < CPU_SETSIZE; core++) {
        int sharers = 0;
        for (int r = 0; r < ranks.count; r++)
            sharers += strncmp(all[r].host, mine->host, sizeof mine->host) == 0 && CPU_ISSET(core, &all[r].cores);
        if (sharers) CPU_SET(core, &together);
        if (sharers && CPU_ISSET(core, &mine->cores)) share += 1.0 / sharers;
    }
    ranks.threads = TM__MAX((int)(share + 1e-9), 1);
    ranks.used = ranks.there = CPU_COUNT(&together);
    if (sched_getaffinity(getppid(), sizeof above, &above) == 0) /* the launcher is not bound */
        ranks.there = TM__MAX(ranks.used, CPU_COUNT(&above));
}

static tm_status share_cores(void) {
    place mine = {0}, *all = tm__zalloc((size_t)ranks.count, sizeof *all);
    bool met = false;
    gethostname(mine.host, sizeof mine.host - 1);
    if (sched_getaffinity(0, sizeof mine.cores, &mine.cores) != 0) CPU_SET(0, &mine.cores);
    if (!all) return tm__fail_memory();
    tm_status status = tm__transport_gather(&mine, all, sizeof mine, -1, &met);
    if (status == TM_OK) count_cores(all, &mine);
    free(all);
    return status;
}

int tm__ranks_threads(void) {
    return ranks.threads;
}

void tm__ranks_note_cores(const tm_monitor *monitor) {
    if (ranks.rank == 0 && ranks.used < ranks.there)
        tm__note(monitor, "the ranks on this host may use %d of its %d cores: mpirun --bind-to none gives them all",
                 ranks.used, ranks.there);
}

/* ---- beginning --------------------------------------------------------------------------------------------------- */

tm_status tm_ranks_open(void) {
    if (ranks.open) return TM_OK;
    int rank, count, promised = tm_ranks_launched(&rank);
    TM__TRY(tm__transport_open(promised, &rank, &count));
    if (count == 1) return TM_OK;
    ranks.cards = tm__zalloc((size_t)count, sizeof *ranks.cards);
    if (!ranks.cards) return tm__fail_memory();
    ranks.open = true;
    ranks.rank = rank;
    ranks.count = count;
    return share_cores();
}

/* ---- meetings ---------------------------------------------------------------------------------------------------- */

static int first_failed(void) {
    for (int r = 0; r < ranks.count; r++)
        if (ranks.cards[r].status != TM_OK) return r;
    return -1;
}

/* The status that all go on with. */
static tm_status verdict(tm_status own) {
    int culprit = first_failed();
    if (culprit < 0) return TM_OK;
    ranks.failed = true;
    if (own != TM_OK) return own;
    const card *told = &ranks.cards[culprit];
    return tm__fail((tm_status)told->status, NULL, NULL, NULL, "rank %d: %.*s", culprit, (int)sizeof told->line - 1,
                    told->line);
}

static tm_status compare(const tm__meeting *m) {
    for (int r = 1; r < ranks.count; r++)
        if (memcmp(ranks.cards[r].mark, ranks.cards[0].mark, sizeof m->mark) != 0) {
            ranks.failed = true; /* all see it */
            return tm__fail(TM_MISMATCH, NULL, NULL, m->hint, "rank %d has another %s than rank 0", r, m->what);
        }
    return TM_OK;
}

tm_status tm__ranks_meet(tm__meeting *m) {
    if (ranks.failed && m->status == TM_OK) return tm__fail(TM_INVALID, NULL, NULL, NULL, "the ranks have parted");
    if (!ranks.open || ranks.failed) return m->status;
    card mine = {.status = m->status, .stop = m->stop, .sum = m->sum, .most = m->most};
    bool met;
    memcpy(mine.mark, m->mark, sizeof mine.mark);
    if (m->status != TM_OK) snprintf(mine.line, sizeof mine.line, "%.359s", tm_error_last()->line);
    tm_status status = tm__transport_gather(&mine, ranks.cards, sizeof mine, -1, &met);
    if (status != TM_OK) {
        ranks.failed = ranks.lost = true;
        return m->status != TM_OK ? m->status : status;
    }
    TM__TRY(verdict(m->status));
    if (m->what) TM__TRY(compare(m));
    m->stop = false;
    m->sum = 0;
    m->most = INT64_MIN;
    for (int r = 0; r < ranks.count; r++) {
        m->stop = m->stop || ranks.cards[r].stop;
        m->sum += ranks.cards[r].sum;
        m->most = TM__MAX(m->most, ranks.cards[r].most);
    }
    return TM_OK;
}

tm_status tm_ranks_agree(tm_status status) {
    tm__meeting m = {.status = status};
    return tm__ranks_meet(&m);
}

tm_status tm__ranks_same(const char *text, const char *what, const char *hint) {
    tm__meeting m = {.what = what, .hint = hint};
    char hex[65];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, text, strlen(text));
    tm__sha256_hex(&hash, hex);
    memcpy(m.mark, hex, sizeof m.mark); /* half of it is enough to tell two texts apart */
    return tm__ranks_meet(&m);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

enum { EXCHANGED = 1 << 20 }; /* elements at a time, about */

tm_status tm__adder_create(tm_dtype type, tm__adder *adder) {
    size_t count = (size_t)ranks.count, elements = (EXCHANGED + count - 1) / count * count;
    size_t size = type == TM_F64 ? sizeof(double) : sizeof(float);
    assert(type == TM_F32 || type == TM_F64);
    *adder = (tm__adder){.mine = tm__alloc_aligned(elements * size),
                         .theirs = tm__alloc_aligned(elements * size),
                         .elements = elements,
                         .type = type};
    if (adder->mine && adder->theirs) return TM_OK;
    tm__adder_release(adder);
    return tm__fail_memory();
}

void tm__adder_release(tm__adder *adder) {
    free(adder->mine);
    free(adder->theirs);
    *adder = (tm__adder){0};
}

#define ADD_PIECES(type)                                                      \
    do {                                                                      \
        type *restrict sum = (type *)mine + piece * (size_t)ranks.rank;       \
        const type *restrict part = theirs;                                   \
        memcpy(sum, part, piece * sizeof *sum);                               \
        for (size_t r = 1; r < (size_t)ranks.count; r++)                      \
            for (size_t i = 0; i < piece; i++) sum[i] += part[r * piece + i]; \
    } while (0)

static void add_pieces(void *mine, const void *theirs, size_t piece, tm_dtype type) {
    if (type == TM_F64)
        ADD_PIECES(double);
    else
        ADD_PIECES(float);
}

tm_status tm__adder_sum(tm__adder *adder, size_t n) {
    size_t count = (size_t)ranks.count, piece = (n + count - 1) / count;
    size_t size = adder->type == TM_F64 ? sizeof(double) : sizeof(float);
    assert(n <= adder->elements);
    if (!ranks.open || n == 0) return TM_OK;
    memset((char *)adder->mine + n * size, 0, (piece * count - n) * size); /* a last piece may be short */
    tm_status status = tm__transport_swap(adder->mine, adder->theirs, piece * size);
    if (status == TM_OK) {
        add_pieces(adder->mine, adder->theirs, piece, adder->type);
        status = tm__transport_spread(adder->mine, piece * size);
    }
    if (status != TM_OK) ranks.failed = ranks.lost = true; /* the others are in the midst of it */
    return status;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

bool tm_ranks_fail(tm_status status, const char *line) {
    if (status == TM_OK) return false;
    if (ranks.open && !ranks.failed) {
        card mine = {.status = status};
        bool met = false;
        snprintf(mine.line, sizeof mine.line, "%.359s", line ? line : tm_error_last()->line);
        ranks.lost = tm__transport_gather(&mine, ranks.cards, sizeof mine, PATIENCE, &met) != TM_OK || !met;
        ranks.failed = true;
    }
    int rank = ranks.rank;
    if (!ranks.open) tm_ranks_launched(&rank);
    return rank == 0 || ranks.lost;
}

int tm_ranks_close(int code) {
    if (ranks.open && !ranks.failed && code == 0 && tm_ranks_agree(TM_OK) != TM_OK)
        code = tm_status_exit_code(tm_error_last()->status);
    if (ranks.open && !ranks.failed && code != 0) tm_ranks_fail(TM_IO, "ended early");
    if (ranks.lost)
        tm__transport_abort(code ? code : 1);
    else
        tm__transport_close();
    free(ranks.cards);
    memset(&ranks, 0, sizeof ranks);
    ranks.count = 1;
    return code;
}
