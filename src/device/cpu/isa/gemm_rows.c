/* gemm_rows.c: products for generation: rows of A (m, k) times a weight stored (n, k).
 *
 * An element of C is the inner product of two contiguous rows: lane l of one vector sums k = l, l + VL, ... in order,
 * then the lanes are added pairwise. That does not depend on m, nor on how the work is cut. A weight is read once where
 * it lies if A has few rows: then memory sets the pace. Blocks of ROWS x COLUMNS inner products share their loads;
 * where A has many rows, GROUP rows of the weight stay in the first-level cache while a CHUNK of A passes by.
 */
#include "device/cpu/isa/gemm.h"

#include <omp.h>

enum {
    COLUMNS = 4,              /* of C in a block */
    ROWS = VL == 16 ? 6 : 3,  /* of C in a block: the sums fill the registers */
    GROUP = 2 * COLUMNS,      /* columns that a block of A meets in turn */
    TASK = 2 * GROUP,         /* columns of a task */
    FEW = 3,                  /* rows of A that meet a weight of any type where it lies */
    AHEAD = 2 * COLUMNS,      /* rows of the weight fetched before their turn */
    CHUNK_FLOATS = 128 << 10, /* of A that pass a group: a part of the second-level cache */
};

/* Sums of one block: a holds rows of `depth` floats, a multiple of VL, padded with zeros beyond k. b holds rows of
 * `type`, ldb apart, which are widened as they are read; `whole`: they may be read in whole vectors. The arguments
 * before `a` are constants where this is inlined. */
TM__INLINE void inner_products(int rows, tm_dtype type, bool whole, const float *a, const void *b, int64_t ldb,
                               int64_t k, int64_t depth, f4 result[ROWS]) {
    vf sum[ROWS][COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = splat(0);
    for (int64_t p = 0; p < depth; p += VL) {
        vf left[ROWS];
        for (int i = 0; i < rows; i++) left[i] = load(a + i * depth + p);
        for (int j = 0; j < COLUMNS; j++) {
            vf right = load_as(b, type, j * ldb + p, whole ? VL : k - p);
            if (rows == 1) __builtin_prefetch((const uint8_t *)b + ((AHEAD + j) * ldb + p) * (type == TM_F32 ? 4 : 2));
            for (int i = 0; i < rows; i++) sum[i][j] += left[i] * right;
        }
    }
    for (int i = 0; i < rows; i++) result[i] = four_sums(sum[i]);
}

/* Rows of the weight as they lie there or in a block of fp32. */
typedef struct columns {
    const void *data;
    tm_dtype type;
    int64_t ld;
    bool whole; /* rows may be read in whole vectors: their length is a multiple, or they are padded with zeros */
} columns;

#define BLOCK_CASE(rows, type, whole) inner_products(rows, type, whole, a, b->data, b->ld, k, depth, result)

/* A block where the weight lies as fp32 in whole vectors; most do. */
static void block_of_floats(int64_t rows, const float *a, const columns *b, int64_t k, int64_t depth, f4 result[ROWS]) {
    switch (rows) {
    case 1:
        BLOCK_CASE(1, TM_F32, true);
        break;
    case 2:
        BLOCK_CASE(2, TM_F32, true);
        break;
    case 3:
        BLOCK_CASE(3, TM_F32, true);
        break;
#if TM__LANES == 16
    case 4:
        BLOCK_CASE(4, TM_F32, true);
        break;
    case 5:
        BLOCK_CASE(5, TM_F32, true);
        break;
    default:
        BLOCK_CASE(6, TM_F32, true);
#endif
    }
}

/* Any other weight where it lies. */
static void block_in_place(int64_t rows, const float *a, const columns *b, int64_t k, int64_t depth, f4 result[ROWS]) {
    if (rows == 1 && b->type == TM_BF16 && b->whole)
        BLOCK_CASE(1, TM_BF16, true);
    else if (rows == 1)
        BLOCK_CASE(1, b->type, false);
    else if (rows == 2)
        BLOCK_CASE(2, b->type, false);
    else
        BLOCK_CASE(3, b->type, false);
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
    for (int64_t i = 0; i < rows; i++) {
        float *c = (float *)g->c + (row + i) * g->ldc + first;
        size_t bytes = (size_t)count * sizeof *c;
        f4 old = {0};
        if (g->accumulate) memcpy(&old, c, bytes);
        f4 sums = g->accumulate ? old + alpha * result[i] : alpha * result[i];
        memcpy(c, &sums, bytes);
    }
}

/* Rows [from, to) of C, columns [first, first + count), count <= GROUP; b begins at `first`. */
static void multiply_group(const tm__gemm *g, const float *a, int64_t from, int64_t to, const columns *b, int64_t first,
                           int64_t count, int64_t depth) {
    bool floats = b->type == TM_F32 && b->whole;
    int64_t most = floats ? ROWS : FEW;
    size_t size = tm__dtype_size(b->type);
    for (int64_t i = from; i < to; i += most)
        for (int64_t j = 0; j < count; j += COLUMNS) {
            f4 result[ROWS];
            int64_t rows = TM__MIN(to - i, most);
            columns part = *b;
            part.data = (const uint8_t *)b->data + (size_t)(j * b->ld) * size;
            (floats ? block_of_floats : block_in_place)(rows, a + i * depth, &part, g->k, depth, result);
            store_block(g, i, rows, first + j, TM__MIN(count - j, (int64_t)COLUMNS), result);
        }
}

/* Columns [first, first + count) of rows [from, to). own: room for a group widened. */
static void multiply_columns(const tm__gemm *g, const float *a, int64_t from, int64_t to, int64_t first, int64_t count,
                             int64_t depth, bool round, bool in_place, float *own) {
    size_t size = tm__dtype_size(g->b_type);
    if (in_place && count % COLUMNS == 0) {
        columns b = {(const uint8_t *)g->b + (size_t)(first * g->ldb) * size, g->b_type, g->ldb, g->k == depth};
        multiply_group(g, a, from, to, &b, first, count, depth);
    } else {
        int64_t total = round_up(count, COLUMNS);
        widen_rows(own, g->b, g->b_type, g->ldb, first, count, total, g->k, depth, round);
        multiply_group(g, a, from, to, &(columns){own, TM_F32, depth, true}, first, count, depth);
    }
}

tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *g) {
    int64_t depth = round_up(g->k, VL), tasks = (g->n + TASK - 1) / TASK;
    int64_t chunk = TM__MAX(CHUNK_FLOATS / depth / ROWS, (int64_t)1) * ROWS, chunks = (g->m + chunk - 1) / chunk;
    bool round = dev->bf16_products && !g->exact;
    /* Rows of the weight are widened beside it where several blocks of A would do it again. */
    bool in_place = g->m <= FEW ? !round || g->b_type == TM_BF16 : g->b_type == TM_F32 && !round && g->k == depth;
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(g->m * depth) * 4, (size_t)(GROUP * depth) * 4, &scratch));
    float *a = (float *)scratch.shared;
    int team = tm__cpu_team(dev, (double)g->n * (double)g->k * ((double)g->m + 4) / 16);
#pragma omp parallel num_threads(team)
    {
        float *own = (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num());
#pragma omp for schedule(static)
        for (int64_t i = 0; i < g->m; i++)
            widen_rows(a + i * depth, g->a, g->a_type, g->lda, i, 1, 1, g->k, depth, round);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < chunks * tasks; t++) {
            int64_t from = t / tasks * chunk, to = TM__MIN(from + chunk, g->m);
            int64_t j = t % tasks * TASK, end = TM__MIN(j + TASK, g->n);
            for (; j < end; j += GROUP)
                multiply_columns(g, a, from, to, j, TM__MIN(end - j, (int64_t)GROUP), depth, round, in_place, own);
        }
    }
    return TM_OK;
}
