/* gemm_rows.c: products for generation: rows of A (m, k) times a weight stored (n, k).
 *
 * An element of C is the inner product of two contiguous rows: lane l of one vector sums k = l, l + VL, ... in order,
 * then the lanes are added pairwise. That does not depend on m, nor on how the work is cut. Memory sets the pace where
 * A has few rows, so a weight is read once, where it lies, and a thread asks for the rows that it will need next while
 * it multiplies by those it has. Blocks of ROWS x COLUMNS inner products share their loads; where A has many rows,
 * GROUP rows of the weight stay in the nearer caches while a chunk of A passes by, and a block of A stays for all of
 * them, so that a line of C is complete before it leaves.
 */
#include "device/cpu/isa/gemm.h"

#include <omp.h>

enum {
    COLUMNS = 4,                      /* of C in a block */
    ROWS = VL == 16 ? 6 : 3,          /* of C in a block: the sums fill the registers */
    FEW = 3,                          /* rows of A that meet a weight of any type where it lies */
    GROUP = 4 * COLUMNS,              /* columns that a block of A meets in turn, a line of C; a task */
    FETCHED_16 = VL < 8 ? 1 : VL / 8, /* the same of 16 bits */
    FETCHED = VL / 4,                 /* lines asked for per vector of A: as many as a block of an fp32 weight has */
    ALONE = 8,                        /* rows of A that one thread copies faster than all would */
    TOGETHER = 4,                     /* products that are done as one */
    CHUNK_FLOATS = 256 << 10,         /* of A that pass a group: half of a second-level cache */
};

/* Rows of the weight as they lie there or in a block of fp32, and what is to be fetched meanwhile. */
typedef struct columns {
    const void *data;
    tm_dtype type;
    int64_t ld;
    bool whole;           /* rows may be read in whole vectors: their length is a multiple, or they are padded */
    const uint8_t *ahead; /* `runs` runs of lines, as long as a row of A has vectors; NULL: nothing to fetch */
    int64_t runs;
} columns;

/* Rows of A as fp32, padded with zeros to `depth` elements, a multiple of VL, beyond k. */
typedef struct rows {
    const float *data;
    int64_t ld, k, depth;
} rows;

/* Sums of one block of n rows of A; `fetch` runs at b->ahead are asked for. The arguments before `a` are constants
 * where this is inlined. */
TM__INLINE void inner_products(int n, tm_dtype type, bool whole, int fetch, const rows *a, const columns *b,
                               f4 result[ROWS]) {
    const float *left_rows = a->data;
    const void *data = b->data;
    const uint8_t *ahead = b->ahead;
    int64_t ld = b->ld, a_ld = a->ld, k = a->k, depth = a->depth, run = depth / VL * LINE;
    vf sum[ROWS][COLUMNS];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = splat(0);
    for (int64_t p = 0; p < depth; p += VL) {
        vf left[ROWS];
        for (int i = 0; i < n; i++) left[i] = load(left_rows + i * a_ld + p);
        for (int j = 0; j < COLUMNS; j++) {
            vf right = load_as(data, type, j * ld + p, whole ? VL : k - p);
            for (int i = 0; i < n; i++) sum[i][j] += left[i] * right;
        }
        for (int f = 0; f < fetch; f++) __builtin_prefetch(ahead + f * run, 0, 2);
        if (fetch) ahead += LINE;
    }
#if TM__LANES == 16
    if (n >= 4) sixteen_sums(sum, result);
#pragma GCC unroll 8
    for (int i = n < 4 ? 0 : 4; i < n; i++) result[i] = four_sums(sum[i]);
#else
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) result[i] = four_sums(sum[i]);
#endif
}

#define BLOCK(n, type, whole, fetch) inner_products(n, type, whole, fetch, a, b, result)

/* A block of all ROWS, the weight as fp32 in whole vectors. fetch: 0, 1, 2 or 4. */
static void full_block(int fetch, const rows *a, const columns *b, f4 result[ROWS]) {
    if (fetch == 0)
        BLOCK(ROWS, TM_F32, true, 0);
    else if (fetch == 1)
        BLOCK(ROWS, TM_F32, true, 1);
    else if (fetch == 2)
        BLOCK(ROWS, TM_F32, true, 2);
    else
        BLOCK(ROWS, TM_F32, true, 4);
}

#define PART_CASE(n)                   \
    case n:                            \
        if (fetch == 0)                \
            BLOCK(n, TM_F32, true, 0); \
        else if (fetch == 1)           \
            BLOCK(n, TM_F32, true, 1); \
        else if (fetch == 2)           \
            BLOCK(n, TM_F32, true, 2); \
        else                           \
            BLOCK(n, TM_F32, true, 4); \
        break;

/* Fewer rows of such a weight. fetch: 0, 1, 2 or 4. */
static void part_block(int64_t n, int fetch, const rows *a, const columns *b, f4 result[ROWS]) {
    switch (n) {
        PART_CASE(1)
        PART_CASE(2)
#if TM__LANES == 16
        PART_CASE(3)
        PART_CASE(4)
        PART_CASE(5)
#endif
    }
}

/* At most FEW rows of any other weight; what is at b->ahead is asked for in any case. */
static void block_in_place(int64_t n, const rows *a, const columns *b, f4 result[ROWS]) {
    bool whole_bf16 = b->type == TM_BF16 && b->whole;
    if (whole_bf16 && n == 1)
        BLOCK(1, TM_BF16, true, FETCHED_16);
    else if (whole_bf16 && n == 2)
        BLOCK(2, TM_BF16, true, FETCHED_16);
    else if (whole_bf16)
        BLOCK(3, TM_BF16, true, FETCHED_16);
    else if (n == 1)
        BLOCK(1, b->type, false, FETCHED);
    else if (n == 2)
        BLOCK(2, b->type, false, FETCHED);
    else
        BLOCK(3, b->type, false, FETCHED);
}

/* n rows as fp32, padded with zeros to (total, depth). */
static void widen_rows(float *to, const void *from, tm_dtype type, int64_t ld, int64_t first, int64_t n, int64_t total,
                       int64_t k, int64_t depth, bool round) {
    for (int64_t i = 0; i < total; i++)
        for (int64_t p = 0; p < depth; p += VL) {
            vf x = i < n ? load_as(from, type, (first + i) * ld + p, k - p) : splat(0);
            store(to + i * depth + p, round ? round_to_bf16(x) : x);
        }
}

/* C's columns [first, first + count), count <= COLUMNS, of n rows from `row` on. */
static void store_block(const tm__gemm *g, int64_t row, int64_t n, int64_t first, int64_t count,
                        const f4 result[ROWS]) {
    const f4 alpha = (float)g->alpha - (f4){0};
    float *c = (float *)g->c + row * g->ldc + first;
    for (int64_t i = 0; i < n; i++, c += g->ldc) {
        f4 sums = {0};
        if (g->accumulate && count == COLUMNS)
            sums = *(const f4 *)c;
        else if (g->accumulate)
            memcpy(&sums, c, (size_t)count * sizeof *c);
        sums = g->accumulate ? sums + alpha * result[i] : alpha * result[i];
        if (count == COLUMNS)
            *(f4 *)c = sums;
        else
            memcpy(c, &sums, (size_t)count * sizeof *c);
    }
}

/* How many runs a block asks for, so that all are asked for by the first few of a group's blocks. */
static int runs_to_fetch(const columns *b, int64_t m, int64_t block) {
    int fetch = (int)b->runs / (m < 2 * ROWS ? 4 : m < 4 * ROWS ? 8 : 16);
    fetch = TM__MAX(fetch, 1);
    return b->ahead && block * fetch < b->runs ? fetch : 0;
}

/* `count` <= GROUP columns of C, from `first` on, of rows [from, to); b begins at `first`. */
static void multiply_group(const tm__gemm *g, const rows *a, int64_t from, int64_t to, const columns *b, int64_t first,
                           int64_t count) {
    bool floats = b->type == TM_F32 && b->whole;
    int64_t most = floats ? ROWS : FEW, block = 0;
    size_t size = tm__dtype_size(b->type);
    rows left = *a;
    columns right = *b;
    for (int64_t i = from; i < to; i += most)
        for (int64_t j = 0; j < count; j += COLUMNS, block++) {
            f4 result[ROWS];
            int64_t n = TM__MIN(to - i, most);
            int fetch = runs_to_fetch(b, to - from, block);
            left.data = a->data + i * a->ld;
            right.data = (const uint8_t *)b->data + (size_t)(j * b->ld) * size;
            right.ahead = fetch ? b->ahead + block * fetch * (a->depth / VL * LINE) : right.data;
            if (!floats)
                block_in_place(n, &left, &right, result);
            else if (n == ROWS)
                full_block(fetch, &left, &right, result);
            else
                part_block(n, fetch, &left, &right, result);
            store_block(g, i, n, first + j, TM__MIN(count - j, (int64_t)COLUMNS), result);
        }
}

/* One product of a call. A task is GROUP columns of a chunk of rows. */
typedef struct job {
    const tm__gemm *g;
    rows a;
    float *widened;       /* where A has to be copied to; NULL: it is read where it lies */
    int64_t chunk, tasks; /* rows; tasks per chunk */
    int64_t first, end;   /* of its tasks, among those of all jobs */
    bool round, in_place;
} job;

typedef struct work {
    job jobs[TOGETHER];
    int64_t count;
    tm__all_tasks tasks;
} work;

static const uint8_t *weight_row(const job *j, int64_t row) {
    return (const uint8_t *)j->g->b + (size_t)(row * j->g->ldb) * tm__dtype_size(j->g->b_type);
}

/* `count` columns from `first` on, of rows [from, to). ahead: the weight's rows that come next. own: (GROUP, depth) */
static void multiply_columns(const job *j, int64_t from, int64_t to, int64_t first, int64_t count, const uint8_t *ahead,
                             float *own) {
    const tm__gemm *g = j->g;
    int64_t size = (int64_t)tm__dtype_size(g->b_type);
    columns b = {.ahead = ahead, .runs = GROUP / COLUMNS * FETCHED * size / 4};
    if (j->in_place && count % COLUMNS == 0) {
        b.data = weight_row(j, first);
        b.type = g->b_type;
        b.ld = g->ldb;
        b.whole = g->k == j->a.depth;
    } else {
        widen_rows(own, g->b, g->b_type, g->ldb, first, count, round_up(count, COLUMNS), g->k, j->a.depth, j->round);
        b.data = own;
        b.type = TM_F32;
        b.ld = j->a.depth;
        b.whole = true;
    }
    multiply_group(g, &j->a, from, to, &b, first, count);
}

static const job *job_of(const work *w, int64_t t) {
    for (int64_t i = 0; i < w->count; i++)
        if (t < w->jobs[i].end) return &w->jobs[i];
    return NULL;
}

/* The weight's rows of a group that begins a task; NULL: there is none, or it is no whole one. */
static const uint8_t *task_rows(const work *w, int64_t t) {
    const job *j = job_of(w, t);
    int64_t row = j ? (t - j->first) % j->tasks * GROUP : 0;
    return j && row + GROUP <= j->g->n ? weight_row(j, row) : NULL;
}

/* A thread knows its next task while it does one. */
static void multiply_tasks(work *w, float *own) {
    tm__tasks mine = {.all = &w->tasks};
    const job *j;
    for (int64_t t = tm__next_task(&mine), next; (j = job_of(w, t)); t = next) {
        next = tm__next_task(&mine);
        int64_t from = (t - j->first) / j->tasks * j->chunk, to = TM__MIN(from + j->chunk, j->g->m);
        int64_t column = (t - j->first) % j->tasks * GROUP;
        multiply_columns(j, from, to, column, TM__MIN(j->g->n - column, (int64_t)GROUP), task_rows(w, next), own);
    }
}

static void widen_a(const job *j, int64_t row) {
    const tm__gemm *g = j->g;
    widen_rows(j->widened + row * j->a.depth, g->a, g->a_type, g->lda, row, 1, 1, g->k, j->a.depth, j->round);
}

/* `shared` floats of the call's memory are taken for A where it cannot be read as it lies. */
static job job_for(const tm_device *dev, const tm__gemm *g, int64_t *shared) {
    int64_t depth = round_up(g->k, VL);
    job j = {.g = g, .tasks = (g->n + GROUP - 1) / GROUP, .round = dev->bf16_products && !g->exact};
    j.chunk = TM__MAX(CHUNK_FLOATS / depth / ROWS, (int64_t)1) * ROWS;
    /* Rows of the weight are widened beside it where several blocks of A would do it again. */
    j.in_place = g->m <= FEW ? !j.round || g->b_type == TM_BF16 : g->b_type == TM_F32 && !j.round && g->k == depth;
    j.a = (rows){.data = g->a, .ld = g->lda, .k = g->k, .depth = depth};
    if (g->a_type != TM_F32 || j.round || g->k != depth) {
        j.a.data = NULL;
        j.a.ld = depth;
        *shared += g->m * depth;
    }
    return j;
}

/* count <= TOGETHER */
static tm_status multiply_list(tm_device *dev, const tm__gemm *list, int64_t count) {
    work w = {.count = count};
    int64_t shared = 0, deepest = 0, end = 0, widens = 0;
    double operations = 0;
    for (int64_t i = 0; i < count; i++) {
        const tm__gemm *g = &list[i];
        job *j = &w.jobs[i];
        *j = job_for(dev, g, &shared);
        j->first = end;
        j->end = end += j->tasks * ((g->m + j->chunk - 1) / j->chunk);
        deepest = TM__MAX(deepest, j->a.depth);
        operations += (double)g->n * (double)g->k * ((double)g->m + 4) / 16;
    }
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)shared * 4, (size_t)(GROUP * deepest) * 4, &scratch));
    float *room = (float *)scratch.shared;
    for (int64_t i = 0; i < count; i++) {
        job *j = &w.jobs[i];
        if (j->a.data) continue;
        j->a.data = j->widened = room;
        room += j->g->m * j->a.depth;
        if (j->g->m > ALONE) {
            widens++;
            continue;
        }
        for (int64_t row = 0; row < j->g->m; row++) widen_a(j, row);
    }
    int team = tm__cpu_team(dev, operations);
    w.tasks = (tm__all_tasks){.count = end, .threads = team};
#pragma omp parallel num_threads(team)
    {
        for (int64_t i = 0; widens && i < count; i++) {
            const job *j = &w.jobs[i];
            if (!j->widened || j->g->m <= ALONE) continue;
#pragma omp for schedule(static)
            for (int64_t row = 0; row < j->g->m; row++) widen_a(j, row);
        }
        multiply_tasks(&w, (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num()));
    }
    return TM_OK;
}

tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *list, int64_t count) {
    for (int64_t i = 0; i < count; i += TOGETHER)
        TM__TRY(multiply_list(dev, list + i, TM__MIN(count - i, (int64_t)TOGETHER)));
    return TM_OK;
}
