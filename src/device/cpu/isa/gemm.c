/* gemm.c: matrix products in fp32 by packed panels (Goto and van de Geijn, "Anatomy of high-performance matrix
 * multiplication", 2008).
 *
 * The smaller operand is packed whole, the larger one strip by strip; a task is one strip. k is cut into blocks by a
 * rule that looks at k alone, and their sums are added to C in order. So an element of C is the same for every number
 * of threads, and for every m. oneDNN's fp32 products were measured beside this: 122 to 146 GFLOP/s on one core against
 * about 150 for the tile here, and their bytes depend on the number of threads, on m and on oneDNN's own choice of
 * instruction set.
 */
#include "device/cpu/isa/gemm.h"

#include <omp.h>

enum {
    DEPTH = 384,               /* most of k in one block: what C is read and written for once */
    SHARED_FLOATS = 256 << 10, /* of the smaller operand packed at a time: half of a second-level cache */
    STRIP_FLOATS = 96 << 10,   /* of the larger one: with the above still in that cache */
    STRIPS = 24,               /* wanted at least, so that threads share the work evenly */
};

/* An operand as rows of length k. */
typedef struct side {
    const void *data;
    tm_dtype type;
    int64_t ld, rows, panels;
    int width; /* of a panel */
    bool k_contiguous;
} side;

typedef struct plan {
    const tm__gemm *g;
    side a, b;
    bool strips_of_b, round;
    int64_t depth;         /* of a block of k */
    int64_t span;          /* of k packed at a time: a multiple of depth */
    int64_t strip, strips; /* panels per strip, number of strips */
} plan;

static side side_of(const void *data, tm_dtype type, int64_t ld, int64_t rows, int width, bool k_contiguous) {
    return (side){data, type, ld, rows, (rows + width - 1) / width, width, k_contiguous};
}

static plan plan_of(const tm_device *dev, const tm__gemm *g) {
    plan p = {.g = g, .round = dev->bf16_products && !g->exact};
    p.a = side_of(g->a, g->a_type, g->lda, g->m, MR, !g->trans_a);
    p.b = side_of(g->b, g->b_type, g->ldb, g->n, NR, g->trans_b);
    p.strips_of_b = g->n > g->m;
    int64_t blocks = (g->k + DEPTH - 1) / DEPTH;
    p.depth = round_up((g->k + blocks - 1) / blocks, 4);
    const side *small = p.strips_of_b ? &p.a : &p.b, *large = p.strips_of_b ? &p.b : &p.a;
    int64_t at_once = SHARED_FLOATS / (small->panels * small->width * p.depth);
    p.span = p.depth * TM__MAX(1, at_once);
    int64_t most = TM__MAX(STRIP_FLOATS / (large->width * p.depth), 1);
    p.strip = TM__MIN(TM__MAX(large->panels / STRIPS, 1), most);
    p.strips = (large->panels + p.strip - 1) / p.strip;
    return p;
}

/* Packs panel i of an operand, k from `first` on. */
static void pack_panel(float *to, const plan *p, const side *s, int64_t i, int64_t first, int64_t depth) {
    int64_t row = i * s->width, at = s->k_contiguous ? row * s->ld + first : first * s->ld + row;
    int width = s == &p->b ? panel_vectors(s->rows, i, NR) * VL : s->width;
    TM__ISA(pack)
    (to, width, TM__MIN(s->rows - row, width), depth, (const uint8_t *)s->data + (size_t)at * tm__dtype_size(s->type),
     s->type, s->ld, s->k_contiguous, p->round);
}

/* A tile that reaches over C's edge is computed beside it, by the same code. */
static void tile_at_edge(const plan *p, int64_t rows, int64_t columns, int vectors, int64_t depth, const float *a,
                         const float *b, float *c, bool add) {
    float beside[MR * NR] = {0};
    for (int64_t i = 0; add && i < rows; i++) memcpy(beside + i * NR, c + i * p->g->ldc, (size_t)columns * 4);
    TM__ISA(tile)(vectors, depth, a, MR, b, vectors * VL, beside, NR, (float)p->g->alpha, add);
    for (int64_t i = 0; i < rows; i++) memcpy(c + i * p->g->ldc, beside + i * NR, (size_t)columns * 4);
}

/* Panels i of A in [i0, i1) times panels j of B in [j0, j1); a and b point at the first ones. */
static void multiply_panels(const plan *p, const float *a, int64_t i0, int64_t i1, const float *b, int64_t j0,
                            int64_t j1, int64_t depth, bool add) {
    const tm__gemm *g = p->g;
    for (int64_t j = j0; j < j1; j++) {
        int vectors = panel_vectors(g->n, j, NR);
        int64_t columns = TM__MIN(g->n - j * NR, (int64_t)NR);
        const float *bj = b + (j - j0) * NR * depth;
        for (int64_t i = i0; i < i1; i++) {
            int64_t rows = TM__MIN(g->m - i * MR, (int64_t)MR);
            const float *ai = a + (i - i0) * MR * depth;
            float *c = (float *)g->c + i * MR * g->ldc + j * NR;
            if (rows == MR && columns == vectors * VL)
                TM__ISA(tile)(vectors, depth, ai, MR, bj, vectors * VL, c, g->ldc, (float)g->alpha, add);
            else
                tile_at_edge(p, rows, columns, vectors, depth, ai, bj, c, add);
        }
    }
}

/* One strip over k in [first, end); shared holds the small operand's panels of that span. */
static void multiply_strip(const plan *p, int64_t s, const float *shared, float *own, int64_t first, int64_t end) {
    const side *small = p->strips_of_b ? &p->a : &p->b, *large = p->strips_of_b ? &p->b : &p->a;
    int64_t x0 = s * p->strip, x1 = TM__MIN(x0 + p->strip, large->panels);
    for (int64_t at = first; at < end; at += p->depth) {
        int64_t depth = TM__MIN(p->depth, end - at);
        const float *whole = shared + (at - first) * small->panels * small->width;
        for (int64_t x = x0; x < x1; x++) pack_panel(own + (x - x0) * large->width * depth, p, large, x, at, depth);
        bool add = p->g->accumulate || at > 0;
        if (p->strips_of_b)
            multiply_panels(p, whole, 0, small->panels, own, x0, x1, depth, add);
        else
            multiply_panels(p, own, x0, x1, whole, 0, small->panels, depth, add);
    }
}

static tm_status multiply(tm_device *dev, const tm__gemm *g) {
    plan p = plan_of(dev, g);
    const side *small = p.strips_of_b ? &p.a : &p.b, *large = p.strips_of_b ? &p.b : &p.a;
    tm__scratch scratch;
    int64_t span = TM__MIN(p.span, round_up(g->k, 4));
    TM__TRY(tm__cpu_scratch(dev, (size_t)(small->panels * small->width * span) * 4,
                            (size_t)(p.strip * large->width * p.depth) * 4, &scratch));
    float *shared = (float *)scratch.shared;
    int team = tm__cpu_team(dev, (double)g->m * (double)g->n * (double)g->k / 32);
#pragma omp parallel num_threads(team)
    {
        float *own = (float *)(scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num());
        for (int64_t first = 0; first < g->k; first += p.span) {
            int64_t end = TM__MIN(first + p.span, g->k), blocks = (end - first + p.depth - 1) / p.depth;
#pragma omp for schedule(static)
            for (int64_t x = 0; x < blocks * small->panels; x++) {
                int64_t at = first + x / small->panels * p.depth, i = x % small->panels;
                int64_t depth = TM__MIN(p.depth, end - at);
                float *to = shared + (at - first) * small->panels * small->width + i * small->width * depth;
                pack_panel(to, &p, small, i, at, depth);
            }
#pragma omp for schedule(dynamic)
            for (int64_t s = 0; s < p.strips; s++) multiply_strip(&p, s, shared, own, first, end);
        }
    }
    return TM_OK;
}

static bool is_operand(tm_dtype type) {
    return type == TM_F32 || type == TM_BF16 || type == TM_F16;
}

/* Whether it is for gemm_rows. */
static bool by_rows(const tm__gemm *g) {
    return g->row_invariant && !g->trans_a && g->trans_b && g->m > 0 && g->n > 0 && g->k > 0 && is_operand(g->a_type) &&
           is_operand(g->b_type);
}

tm_status TM__ISA(gemm)(tm_device *dev, const tm__gemm *g) {
    if (g->b_int8 && g->m > 0 && g->n > 0 && g->k > 0) return TM__ISA(gemm_int8)(dev, g, 1);
    if (!is_operand(g->a_type) || !is_operand(g->b_type))
        return tm__fail(TM_UNSUPPORTED, NULL, "gemm", "store it as fp32, bf16 or fp16",
                        "device cpu cannot multiply %s by %s", tm__dtype_name(g->a_type), tm__dtype_name(g->b_type));
    if (g->m == 0 || g->n == 0) return TM_OK;
    if (g->k == 0) {
        for (int64_t i = 0; !g->accumulate && i < g->m; i++)
            memset((float *)g->c + i * g->ldc, 0, (size_t)g->n * sizeof(float));
        return TM_OK;
    }
    if (by_rows(g)) return TM__ISA(gemm_rows)(dev, g, 1);
    if (((tm__cpu *)dev->state)->amx && !g->exact && !g->row_invariant) return tm__amx_gemm(dev, g);
    return multiply(dev, g);
}

tm_status TM__ISA(gemms)(tm_device *dev, const tm__gemm *list, int64_t count) {
    bool together = true, int8 = true;
    for (int64_t i = 0; i < count; i++) {
        bool empty = list[i].m == 0 || list[i].n == 0 || list[i].k == 0;
        int8 = int8 && list[i].b_int8 && !empty;
        together = together && !list[i].b_int8 && by_rows(&list[i]);
    }
    if (int8) return TM__ISA(gemm_int8)(dev, list, count);
    if (together) return TM__ISA(gemm_rows)(dev, list, count);
    for (int64_t i = 0; i < count; i++) TM__TRY(TM__ISA(gemm)(dev, &list[i]));
    return TM_OK;
}
