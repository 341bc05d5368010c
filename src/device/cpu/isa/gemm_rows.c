/* gemm_rows.c: products for generation: rows of A (m, k) times a weight stored (n, k).
 *
 * An element of C is the inner product of two contiguous rows: lane l of one vector sums k = l, l + VL, ... in order,
 * then the lanes are added pairwise. That does not depend on m, nor on how the work is cut. Memory sets the pace where
 * A has few rows, so a weight is read once, where it lies, and a thread asks for the rows that it will need next while
 * it multiplies by those it has. Blocks of ROWS x COLUMNS inner products share their loads; where A has many rows,
 * GROUP rows of the weight stay in the first-level cache while a chunk of A passes by.
 */
#include "device/cpu/isa/gemm.h"

#include <omp.h>

enum {
    COLUMNS = 4,              /* of C in a block */
    ROWS = VL == 16 ? 6 : 3,  /* of C in a block: the sums fill the registers */
    FEW = 3,                  /* rows of A that meet a weight of any type where it lies */
    GROUP = 2 * COLUMNS,      /* columns of C that a block of A meets in turn */
    TASK = 2 * GROUP,         /* columns of a task */
    CHUNK_FLOATS = 256 << 10, /* of A that pass a group: half of a second-level cache */
};

/* Rows of the weight as they lie there or in a block of fp32, and those to be fetched meanwhile. */
typedef struct columns {
    const void *data;
    tm_dtype type;
    int64_t ld;
    bool whole;           /* rows may be read in whole vectors: their length is a multiple, or they are padded */
    const uint8_t *ahead; /* NULL: nothing to fetch */
    int64_t ahead_step;   /* bytes from row to row there */
    int64_t ahead_vector; /* bytes that VL numbers take there */
} columns;

/* Sums of one block: a holds rows of `depth` floats, a multiple of VL, padded with zeros beyond k. `fetch` rows at
 * b->ahead are asked for. The arguments before `a` are constants where this is inlined. */
TM__INLINE void inner_products(int rows, tm_dtype type, bool whole, int fetch, const float *a, const columns *b,
                               int64_t k, int64_t depth, f4 result[ROWS]) {
    const void *data = b->data;
    const uint8_t *ahead = b->ahead;
    int64_t ld = b->ld, ahead_step = b->ahead_step, ahead_vector = b->ahead_vector;
    vf sum[ROWS][COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = splat(0);
    for (int64_t p = 0; p < depth; p += VL) {
        vf left[ROWS];
        for (int i = 0; i < rows; i++) left[i] = load(a + i * depth + p);
        for (int j = 0; j < COLUMNS; j++) {
            vf right = load_as(data, type, j * ld + p, whole ? VL : k - p);
            for (int i = 0; i < rows; i++) sum[i][j] += left[i] * right;
        }
        for (int f = 0; f < fetch; f++) __builtin_prefetch(ahead + f * ahead_step);
        if (fetch) ahead += ahead_vector;
    }
#if TM__LANES == 16
    if (rows >= 4) sixteen_sums(sum, result);
#endif
#pragma GCC unroll 8
    for (int i = rows < 4 ? 0 : 4; i < rows; i++) result[i] = four_sums(sum[i]);
}

#define BLOCK_CASE(rows, type, whole, fetch) inner_products(rows, type, whole, fetch, a, b, k, depth, result)

/* A block of all ROWS, the weight as fp32 in whole vectors. fetch: 0, 1, 2 or COLUMNS. */
static void full_block(int fetch, const float *a, const columns *b, int64_t k, int64_t depth, f4 result[ROWS]) {
    if (fetch == 0)
        BLOCK_CASE(ROWS, TM_F32, true, 0);
    else if (fetch == 1)
        BLOCK_CASE(ROWS, TM_F32, true, 1);
    else if (fetch == 2)
        BLOCK_CASE(ROWS, TM_F32, true, 2);
    else
        BLOCK_CASE(ROWS, TM_F32, true, COLUMNS);
}

#define ROWS_CASE(rows)                              \
    case rows:                                       \
        if (fetch)                                   \
            BLOCK_CASE(rows, TM_F32, true, COLUMNS); \
        else                                         \
            BLOCK_CASE(rows, TM_F32, true, 0);       \
        break;

/* Fewer rows of such a weight. fetch: 0 or COLUMNS. */
static void part_block(int64_t rows, int fetch, const float *a, const columns *b, int64_t k, int64_t depth,
                       f4 result[ROWS]) {
    switch (rows) {
        ROWS_CASE(1)
        ROWS_CASE(2)
#if TM__LANES == 16
        ROWS_CASE(3)
        ROWS_CASE(4)
        ROWS_CASE(5)
#endif
    }
}

/* At most FEW rows of any other weight; what is at b->ahead is asked for in any case. */
static void block_in_place(int64_t rows, const float *a, const columns *b, int64_t k, int64_t depth, f4 result[ROWS]) {
    if (rows == 1 && b->type == TM_BF16 && b->whole)
        BLOCK_CASE(1, TM_BF16, true, COLUMNS);
    else if (rows == 1)
        BLOCK_CASE(1, b->type, false, COLUMNS);
    else if (rows == 2)
        BLOCK_CASE(2, b->type, false, COLUMNS);
    else
        BLOCK_CASE(3, b->type, false, COLUMNS);
}

/* `rows` rows as fp32, padded with zeros to (total, depth). */
static void widen_rows(float *to, const void *from, tm_dtype type, int64_t ld, int64_t first, int64_t rows,
                       int64_t total, int64_t k, int64_t depth, bool round) {
    for (int64_t i = 0; i < total; i++)
        for (int64_t p = 0; p < depth; p += VL) {
            vf x = i < rows ? load_as(from, type, (first + i) * ld + p, k - p) : splat(0);
            store(to + i * depth + p, round ? round_to_bf16(x) : x);
        }
}

/* C's columns [first, first + count), count <= COLUMNS, of `rows` rows from `row` on. */
static void store_block(const tm__gemm *g, int64_t row, int64_t rows, int64_t first, int64_t count,
                        const f4 result[ROWS]) {
    const f4 alpha = (float)g->alpha - (f4){0};
    float *c = (float *)g->c + row * g->ldc + first;
    for (int64_t i = 0; i < rows; i++, c += g->ldc) {
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

/* Rows of the weight that the block number `block` of a group asks for, so that all GROUP are asked for early on. */
static int rows_to_fetch(int64_t m, int64_t block, const uint8_t *ahead) {
    int fetch = m < 2 * ROWS ? COLUMNS : m < 4 * ROWS ? 2 : 1;
    return ahead && block < GROUP / fetch ? fetch : 0;
}

/* Rows [from, to) of C, columns [first, first + count), count <= GROUP; b begins at `first`. */
static void multiply_group(const tm__gemm *g, const float *a, int64_t from, int64_t to, const columns *b, int64_t first,
                           int64_t count, int64_t depth) {
    bool floats = b->type == TM_F32 && b->whole;
    int64_t most = floats ? ROWS : FEW, block = 0;
    size_t size = tm__dtype_size(b->type);
    for (int64_t i = from; i < to; i += most)
        for (int64_t j = 0; j < count; j += COLUMNS, block++) {
            f4 result[ROWS];
            int64_t rows = TM__MIN(to - i, most);
            int fetch = rows_to_fetch(to - from, block, b->ahead);
            columns part = *b;
            part.data = (const uint8_t *)b->data + (size_t)(j * b->ld) * size;
            part.ahead = fetch ? b->ahead + block * fetch * b->ahead_step : part.data;
            if (!floats)
                block_in_place(rows, a + i * depth, &part, g->k, depth, result);
            else if (rows == ROWS)
                full_block(fetch, a + i * depth, &part, g->k, depth, result);
            else
                part_block(rows, fetch, a + i * depth, &part, g->k, depth, result);
            store_block(g, i, rows, first + j, TM__MIN(count - j, (int64_t)COLUMNS), result);
        }
}

/* What all threads share, and one task: TASK columns of a chunk of rows. */
typedef struct work {
    const tm__gemm *g;
    const float *a;
    int64_t depth, chunk, tasks, all; /* tasks per chunk; of all chunks */
    int64_t claimed;
    bool round, in_place;
} work;

static const uint8_t *weight_row(const work *w, int64_t row) {
    return (const uint8_t *)w->g->b + (size_t)(row * w->g->ldb) * tm__dtype_size(w->g->b_type);
}

/* Columns [first, first + count) of rows [from, to). ahead: the weight's rows that come next. own: (GROUP, depth) */
static void multiply_columns(const work *w, int64_t from, int64_t to, int64_t first, int64_t count,
                             const uint8_t *ahead, float *own) {
    const tm__gemm *g = w->g;
    int64_t size = (int64_t)tm__dtype_size(g->b_type);
    columns b = {.ahead = ahead, .ahead_step = g->ldb * size, .ahead_vector = VL * size};
    if (w->in_place && count % COLUMNS == 0) {
        b.data = weight_row(w, first);
        b.type = g->b_type;
        b.ld = g->ldb;
        b.whole = g->k == w->depth;
    } else {
        widen_rows(own, g->b, g->b_type, g->ldb, first, count, round_up(count, COLUMNS), g->k, w->depth, w->round);
        b.data = own;
        b.type = TM_F32;
        b.ld = w->depth;
        b.whole = true;
    }
    multiply_group(g, w->a, from, to, &b, first, count, w->depth);
}

static int64_t claim(work *w) {
    int64_t t;
#pragma omp atomic capture
    t = w->claimed++;
    return t;
}

/* A thread knows its next task while it does one. */
static void multiply_tasks(work *w, float *own) {
    const tm__gemm *g = w->g;
    for (int64_t t = claim(w), next; t < w->all; t = next) {
        next = claim(w);
        int64_t from = t / w->tasks * w->chunk, to = TM__MIN(from + w->chunk, g->m);
        int64_t first = t % w->tasks * TASK, end = TM__MIN(first + TASK, g->n);
        for (int64_t j = first; j < end; j += GROUP) {
            int64_t after = j + GROUP < end ? j + GROUP : next < w->all ? next % w->tasks * TASK : -1;
            const uint8_t *ahead = after >= 0 && after + GROUP <= g->n ? weight_row(w, after) : NULL;
            multiply_columns(w, from, to, j, TM__MIN(end - j, (int64_t)GROUP), ahead, own);
        }
    }
}

tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *g) {
    work w = {.g = g, .depth = round_up(g->k, VL), .tasks = (g->n + TASK - 1) / TASK};
    w.chunk = TM__MAX(CHUNK_FLOATS / w.depth / ROWS, (int64_t)1) * ROWS;
    w.all = w.tasks * ((g->m + w.chunk - 1) / w.chunk);
    w.round = dev->bf16_products && !g->exact;
    /* Rows of the weight are widened beside it where several blocks of A would do it again. */
    w.in_place = g->m <= FEW ? !w.round || g->b_type == TM_BF16 : g->b_type == TM_F32 && !w.round && g->k == w.depth;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(g->m * w.depth) * 4, (size_t)(GROUP * w.depth) * 4, &scratch));
    float *a = (float *)scratch.shared;
    w.a = a;
    int team = tm__cpu_team(dev, (double)g->n * (double)g->k * ((double)g->m + 4) / 16);
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < g->m; i++)
            widen_rows(a + i * w.depth, g->a, g->a_type, g->lda, i, 1, 1, g->k, w.depth, w.round);
        multiply_tasks(&w, (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num()));
    }
    return TM_OK;
}
