/* gemm_rows.c: products for generation: rows of A (m, k) times a weight stored (n, k).
 *
 * An element of C is the inner product of two contiguous rows: lane l of one vector sums k = l, l + VL, ... in order,
 * then the lanes are added pairwise. That does not depend on m, and a weight is read once, where it lies. Blocks of 4 x
 * 4 inner products share their loads.
 */
#include "device/cpu/isa/gemm.h"

#include <omp.h>

enum {
    BLOCK = 4,
    TASK_ROWS = 16,
    AHEAD = 2 * BLOCK, /* rows of the weight fetched before their turn: a lone row of A is slowed by memory alone */
};

/* Sums of one block. a holds rows of `depth` floats, a multiple of VL, padded with zeros beyond k. b holds rows of
 * `type`, ldb apart, which are widened as they are read; `whole`: they may be read in whole vectors. The arguments
 * before `a` are constants where this is inlined. */
TM__INLINE void inner_products(int rows, tm_dtype type, bool whole, const float *a, const void *b, int64_t ldb,
                               int64_t k, int64_t depth, float result[BLOCK][BLOCK]) {
    vf sum[BLOCK][BLOCK];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < BLOCK; j++) sum[i][j] = splat(0);
    for (int64_t p = 0; p < depth; p += VL) {
        vf right[BLOCK];
        for (int j = 0; j < BLOCK; j++) right[j] = load_as(b, type, j * ldb + p, whole ? VL : k - p);
        if (rows == 1)
            for (int j = 0; j < BLOCK; j++)
                __builtin_prefetch((const uint8_t *)b + ((AHEAD + j) * ldb + p) * (type == TM_F32 ? 4 : 2));
        for (int i = 0; i < rows; i++) {
            vf left = load(a + i * depth + p);
            for (int j = 0; j < BLOCK; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < rows; i++) {
        f4 sums = four_sums(sum[i]);
        memcpy(result[i], &sums, sizeof sums);
    }
}

/* Columns of the weight as they lie there or in a block of fp32. */
typedef struct columns {
    const void *data;
    tm_dtype type;
    int64_t ld;
    bool padded; /* with zeros to whole vectors: an own block */
} columns;

static void block_products(int64_t rows, const float *a, const columns *b, int64_t k, int64_t depth,
                           float result[BLOCK][BLOCK]) {
    bool wide = b->type == TM_F32, whole = k == depth || b->padded;
    if (rows == BLOCK && wide && whole)
        inner_products(4, TM_F32, true, a, b->data, b->ld, k, depth, result);
    else if (rows == 1 && wide && whole)
        inner_products(1, TM_F32, true, a, b->data, b->ld, k, depth, result);
    else if (rows == 1 && b->type == TM_BF16 && whole)
        inner_products(1, TM_BF16, true, a, b->data, b->ld, k, depth, result);
    else if (rows == 1)
        inner_products(1, b->type, false, a, b->data, b->ld, k, depth, result);
    else if (rows == 2)
        inner_products(2, b->type, false, a, b->data, b->ld, k, depth, result);
    else if (rows == 3)
        inner_products(3, b->type, false, a, b->data, b->ld, k, depth, result);
    else
        inner_products(4, b->type, false, a, b->data, b->ld, k, depth, result);
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

/* Columns [first, first + count) of C, count <= BLOCK. */
static void multiply_block(const tm__gemm *g, const float *a, const columns *b, int64_t first, int64_t count,
                           int64_t depth) {
    float alpha = (float)g->alpha;
    for (int64_t i = 0; i < g->m; i += BLOCK) {
        float result[BLOCK][BLOCK];
        int64_t rows = TM__MIN(g->m - i, (int64_t)BLOCK);
        block_products(rows, a + i * depth, b, g->k, depth, result);
        for (int64_t x = 0; x < rows; x++)
            for (int64_t y = 0; y < count; y++) {
                float *c = (float *)g->c + (i + x) * g->ldc + first + y;
                *c = g->accumulate ? *c + alpha * result[x][y] : alpha * result[x][y];
            }
    }
}

tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *g) {
    int64_t depth = round_up(g->k, VL), tasks = (g->n + TASK_ROWS - 1) / TASK_ROWS;
    bool round = dev->bf16_products && !g->exact;
    /* Rows of the weight are widened beside it where several blocks of A would do it again. */
    bool in_place = g->m <= BLOCK ? !round || g->b_type == TM_BF16 : g->b_type == TM_F32 && !round && g->k == depth;
    size_t size = tm__dtype_size(g->b_type);
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(g->m * depth) * 4, (size_t)(BLOCK * depth) * 4, &scratch));
    float *a = (float *)scratch.shared;
    int team = tm__cpu_team(dev, (double)g->n * (double)g->k * ((double)g->m + 4) / 16);
#pragma omp parallel num_threads(team)
    {
        float *own = (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num());
#pragma omp for schedule(static)
        for (int64_t i = 0; i < g->m; i++)
            widen_rows(a + i * depth, g->a, g->a_type, g->lda, i, 1, 1, g->k, depth, round);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tasks; t++)
            for (int64_t j = t * TASK_ROWS; j < TM__MIN(g->n, (t + 1) * TASK_ROWS); j += BLOCK) {
                int64_t count = TM__MIN(g->n - j, (int64_t)BLOCK);
                columns b = {(const uint8_t *)g->b + (size_t)(j * g->ldb) * size, g->b_type, g->ldb, false};
                if (!in_place || count < BLOCK) {
                    widen_rows(own, g->b, g->b_type, g->ldb, j, count, BLOCK, g->k, depth, round);
                    b = (columns){own, TM_F32, depth, true};
                }
                multiply_block(g, a, &b, j, count, depth);
            }
    }
    return TM_OK;
}
