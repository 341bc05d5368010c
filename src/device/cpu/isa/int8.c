/* int8.c: products of activations with weights held as 8-bit integers, for generation and evaluation.
 *
 * Both sides are cut into groups of TM__INT8_GROUP along k, each with a scale of its own (device.h has the formula; the
 * same idea as "block quantisation" in Dettmers et al. 2022 and the 8-bit type of llama.cpp). Inside a group products
 * are summed as integers, which is exact; groups are added in fp32 in their order. So an element of C depends on its
 * row of A and on the weight alone, and on nothing that is done in parallel.
 *
 * A weight is held as panels of 2 VL columns, group after group: the scales, then for every few k the bytes of each
 * column. In vectors of 16 lanes they are four, and activations are bytes with 128 added, as the processor's
 * instruction for four products at once (VPDPBUSD) wants them; where it lacks that, signs move from one factor to the
 * other and pairs are summed in 16 bits, which cannot overflow because -128 does not occur. In shorter vectors they are
 * two, which are widened to 16 bits when they are read, and activations are held so (PMADDWD): twice as many products
 * at once as in fp32. All ways give the same integers. Test: tests/unit/test_int8.c.
 */
#include "device/cpu/isa/gemm.h"

#include <immintrin.h>
#include <omp.h>

enum {
    PANEL = 2 * VL,           /* columns */
    TAKEN = VL == 16 ? 4 : 2, /* k that one instruction sums */
    STEPS = TM__INT8_GROUP / TAKEN,
    ROWS = VL == 16 ? 6 : 4, /* of C in a block: the sums fill the registers */
    CHUNK_BYTES = 512 << 10, /* of A that pass a panel: part of a second-level cache */
    FEW = VL == 16 ? 4 : 0,  /* fewer rows ask for a weight in advance; shorter vectors are served well without */
    ALONE = 8,               /* rows of A that one thread converts faster than all would */
    TOGETHER = 4,            /* products that are done as one */
    AHEAD = 2048,            /* bytes that are asked for in advance */
};

#if TM__LANES == 16
enum { OFFSET = 128 }; /* added to activations */
typedef uint8_t activation;
#else
enum { OFFSET = 0 };
typedef int16_t activation;
#endif

typedef struct group {
#if TM__LANES == 16
    int32_t excess[PANEL]; /* -OFFSET times the sum of the column's integers */
#endif
    float scale[PANEL];
    int8_t weight[STEPS][PANEL][TAKEN];
} group;

static int64_t groups_of(int64_t k) {
    return (k + TM__INT8_GROUP - 1) / TM__INT8_GROUP;
}

static int64_t panels_of(int64_t n) {
    return (n + PANEL - 1) / PANEL;
}

size_t TM__ISA(int8_bytes)(int64_t n, int64_t k) {
    return (size_t)(panels_of(n) * groups_of(k)) * sizeof(group);
}

/* ---- from floats ------------------------------------------------------------------------------------------------- */

enum { VECTORS = TM__INT8_GROUP / VL };
typedef activation va __attribute__((vector_size(VL * sizeof(activation)), aligned(2), may_alias));

/* Integers of the first n values, at most a group; the rest of it is 0. Returns the scale, which is NaN where a value
 * is not finite. */
TM__INLINE float quantise(const float *x, int64_t n, vi q[VECTORS]) {
    vf value[VECTORS];
    vu most = {0};
    for (int i = 0; i < VECTORS; i++) {
        value[i] = n >= TM__INT8_GROUP ? load(x + i * VL)
                   : i * VL < n        ? load_part(x + i * VL, n - i * VL, 0)
                                       : splat(0);
        vu size = (vu)value[i] & 0x7fffffff; /* orders as the numbers do, and NaN last */
        vu above = (vu)(size > most);
        most = (above & size) | (~above & most);
    }
    uint32_t largest = 0;
    for (int i = 0; i < VL; i++) largest = TM__MAX(largest, most[i]);
    float limit, by = 0;
    memcpy(&limit, &largest, sizeof limit);
    if (!(limit < INFINITY))
        limit = NAN;
    else if (limit > 0)
        by = 127 / limit;
    for (int i = 0; i < VECTORS; i++) {
        vf scaled = value[i] * splat(by);
        __asm__("" : "+x"(scaled)); /* rounded before the sum, whatever the instruction set */
        q[i] = (vi)(scaled + splat(0x1.8p23f)) - 0x4b400000;
    }
    return limit / 127;
}

/* One column of one group. */
static void pack_column(group *to, int column, const float *x, int64_t n) {
    vi vectors[VECTORS];
    int32_t q[TM__INT8_GROUP];
    to->scale[column] = quantise(x, n, vectors);
    memcpy(q, vectors, sizeof q);
    for (int p = 0; p < TM__INT8_GROUP; p++) to->weight[p / TAKEN][column][p % TAKEN] = (int8_t)q[p];
#if TM__LANES == 16
    to->excess[column] = 0;
    for (int p = 0; p < TM__INT8_GROUP; p++) to->excess[column] -= OFFSET * q[p];
#endif
}

static void pack_panel(group *to, const void *w, tm_dtype type, int64_t first, int64_t n, int64_t k, int64_t ld) {
    float x[TM__INT8_GROUP];
    for (int column = 0; column < PANEL; column++)
        for (int64_t g = 0; g < groups_of(k); g++) {
            int64_t at = g * TM__INT8_GROUP, count = first + column < n ? TM__MIN(k - at, TM__INT8_GROUP) : 0;
            for (int64_t i = 0; i < count; i += VL)
                store_part(x + i, load_as(w, type, (first + column) * ld + at + i, count - i), count - i);
            pack_column(&to[g], column, x, count);
        }
}

tm_status TM__ISA(int8_pack)(tm_device *dev, void *packed, const void *w, tm_dtype type, int64_t n, int64_t k,
                             int64_t ld) {
    group *to = packed;
#pragma omp parallel for num_threads(tm__cpu_team(dev, (double)n *(double)k)) schedule(static)
    for (int64_t j = 0; j < panels_of(n); j++) pack_panel(to + j * groups_of(k), w, type, j * PANEL, n, k, ld);
    return TM_OK;
}

/* Rows of A as integers with OFFSET added, padded to whole groups, and their scales. */
typedef struct rows8 {
    activation *data;
    float *scale; /* (m, groups) */
    int64_t ld, groups;
} rows8;

static void convert_row(const rows8 *to, const float *a, int64_t row, int64_t k) {
    for (int64_t g = 0; g < to->groups; g++) {
        vi q[VECTORS];
        int64_t at = g * TM__INT8_GROUP;
        va *made = (va *)(to->data + row * to->ld + at);
        to->scale[row * to->groups + g] = quantise(a + at, k - at, q);
        for (int i = 0; i < VECTORS; i++) made[i] = __builtin_convertvector(q[i] + OFFSET, va);
    }
}

/* ---- a few products in each lane --------------------------------------------------------------------------------- */

/* sum += a b of TAKEN k: `b` as `weights` reads it, `a` for all columns. `quads`: the processor has VPDPBUSD. */
#if TM__LANES == 16
TM__INLINE vi weights(const int8_t *at) {
    return *(const vi *)at;
}
TM__INLINE vi dot(vi sum, int32_t a, vi b, bool quads) {
    __m512i left = _mm512_set1_epi32(a), right = (__m512i)b;
    if (quads) { /* as text, so that the rest of the file needs no more than the level's instructions */
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(left), "v"(b));
        return sum;
    }
    left = _mm512_xor_si512(left, _mm512_set1_epi8(-128));
    __m512i turned = _mm512_mask_sub_epi8(right, _mm512_movepi8_mask(left), _mm512_setzero_si512(), right);
    __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(left), turned);
    return sum + (vi)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
TM__INLINE vi sum_before(const group *b, int j, bool quads) {
    return quads ? *(const vi *)(b->excess + j * VL) : (vi){0};
}
#else
#if TM__LANES == 8
TM__INLINE vi weights(const int8_t *at) {
    return (vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)at));
}
TM__INLINE vi dot(vi sum, int32_t a, vi b, bool quads) {
    (void)quads;
    return sum + (vi)_mm256_madd_epi16(_mm256_set1_epi32(a), (__m256i)b);
}
#else
TM__INLINE vi weights(const int8_t *at) {
    __m128i bytes = _mm_loadl_epi64((const __m128i *)at);
    return (vi)_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
}
TM__INLINE vi dot(vi sum, int32_t a, vi b, bool quads) {
    (void)quads;
    return sum + (vi)_mm_madd_epi16(_mm_set1_epi32(a), (__m128i)b);
}
#endif
TM__INLINE vi sum_before(const group *b, int j, bool quads) {
    (void)b, (void)j, (void)quads;
    return (vi){0};
}
#endif

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* n rows of C, from `row` on, for a panel of columns from `column` on. `n` and the flags are constants where this is
 * inlined; `whole`: all of the panel's columns are C's. Rows of C are asked for while the sums are formed. */
TM__INLINE void block(int n, bool quads, bool whole, const tm__gemm *to, const rows8 *a, int64_t row,
                      const group *panel, int64_t column) {
    vf total[ROWS][2];
    float *c = (float *)to->c + row * to->ldc + column;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 2; j++) {
            total[i][j] = splat(0);
            if (whole) __builtin_prefetch(c + i * to->ldc + j * VL, 1, 3);
        }
    for (int64_t g = 0; g < a->groups; g++) {
        const group *b = &panel[g];
        const activation *left = a->data + row * a->ld + g * TM__INT8_GROUP;
        vi sum[ROWS][2];
        for (int i = 0; i < n; i++)
            for (int j = 0; j < 2; j++) sum[i][j] = sum_before(b, j, quads);
        for (int s = 0; s < STEPS; s++, left += TAKEN) {
            const int8_t *at = b->weight[s][0];
            const vi w[2] = {weights(at), weights(at + VL * TAKEN)};
            for (int line = 0; n < FEW && line < PANEL * TAKEN; line += LINE)
                __builtin_prefetch(at + AHEAD + line, 0, 2);
            for (int i = 0; i < n; i++) {
                int32_t few;
                memcpy(&few, left + i * a->ld, sizeof few);
                for (int j = 0; j < 2; j++) sum[i][j] = dot(sum[i][j], few, w[j], quads);
            }
        }
        for (int i = 0; i < n; i++) {
            vf scale = splat(a->scale[(row + i) * a->groups + g]);
            for (int j = 0; j < 2; j++)
                total[i][j] += __builtin_convertvector(sum[i][j], vf) * (scale * load(b->scale + j * VL));
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 2; j++) {
            int64_t count = whole ? VL : to->n - column - j * VL;
            if (count <= 0) break;
            float *element = c + i * to->ldc + j * VL;
            vf value = splat((float)to->alpha) * total[i][j];
            if (to->accumulate) value += load_part(element, count, 0);
            store_part(element, value, count);
        }
}

TM__INLINE void few_rows(int n, bool quads, const tm__gemm *to, const rows8 *a, int64_t row, const group *panel,
                         int64_t column) {
    if (column + PANEL <= to->n)
        block(n, quads, true, to, a, row, panel, column);
    else
        block(n, quads, false, to, a, row, panel, column);
}

#define ROWS_CASE(n)                                       \
    case n:                                                \
        if (TAKEN == 4 && quads)                           \
            few_rows(n, true, to, a, row, panel, column);  \
        else                                               \
            few_rows(n, false, to, a, row, panel, column); \
        break;

static void multiply_rows(int64_t n, bool quads, const tm__gemm *to, const rows8 *a, int64_t row, const group *panel,
                          int64_t column) {
    switch (n) {
        ROWS_CASE(1)
        ROWS_CASE(2)
        ROWS_CASE(3)
        ROWS_CASE(4)
#if TM__LANES == 16
        ROWS_CASE(5)
        ROWS_CASE(6)
#endif
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* One product of a call. A task is a panel for a chunk of rows. */
typedef struct job {
    const tm__gemm *g;
    rows8 a;
    bool converts;              /* false: an earlier product has the same rows */
    int64_t chunk, panels, end; /* rows; tasks of a chunk; end of its tasks among those of all */
    int64_t first;
} job;

static void multiply_task(const job *j, int64_t task, bool quads) {
    const tm__gemm *g = j->g;
    int64_t from = task / j->panels * j->chunk, to = TM__MIN(from + j->chunk, g->m), x = task % j->panels;
    const group *panel = (const group *)g->b_int8 + x * j->a.groups;
    for (int64_t i = from; i < to; i += ROWS)
        multiply_rows(TM__MIN(to - i, (int64_t)ROWS), quads, g, &j->a, i, panel, x * PANEL);
}

/* Describes the products, and where in the call's memory their rows go; NULL: only how much there has to be. */
static size_t lay_out(job *jobs, const tm__gemm *list, int64_t count, uint8_t *memory) {
    size_t used = 0;
    int64_t end = 0;
    for (int64_t i = 0; i < count; i++) {
        const tm__gemm *g = &list[i];
        job *j = &jobs[i];
        *j = (job){.g = g, .converts = true, .panels = panels_of(g->n), .first = end};
        j->a.groups = groups_of(g->k);
        j->a.ld = j->a.groups * TM__INT8_GROUP;
        for (int64_t e = 0; e < i && j->converts; e++)
            if (list[e].a == g->a && list[e].m == g->m && list[e].k == g->k && list[e].lda == g->lda) {
                j->a = jobs[e].a;
                j->converts = false;
            }
        if (j->converts) {
            j->a.scale = memory ? (float *)(memory + used) : NULL;
            used += (size_t)round_up(g->m * j->a.groups * 4, 64);
            j->a.data = memory ? (activation *)(memory + used) : NULL;
            used += (size_t)(g->m * j->a.ld) * sizeof(activation);
        }
        j->chunk = TM__MAX(CHUNK_BYTES / (j->a.ld * (int64_t)sizeof(activation)) / ROWS, (int64_t)1) * ROWS;
        j->end = end += j->panels * ((g->m + j->chunk - 1) / j->chunk);
    }
    return used;
}

static void multiply_tasks(const job *jobs, int64_t count, tm__all_tasks *all, bool quads) {
    tm__tasks mine = {.all = all};
    for (int64_t i = 0;;) {
        int64_t t = tm__next_task(&mine);
        while (i < count && t >= jobs[i].end) i++;
        if (i == count) return;
        multiply_task(&jobs[i], t - jobs[i].first, quads);
    }
}

static tm_status multiply_list(tm_device *dev, const tm__gemm *list, int64_t count) {
    job jobs[TOGETHER];
    tm__scratch scratch;
    double operations = 0;
    TM__TRY(tm__cpu_scratch(dev, lay_out(jobs, list, count, NULL), 0, &scratch));
    lay_out(jobs, list, count, scratch.shared);
    for (int64_t i = 0; i < count; i++)
        operations += (double)list[i].n * (double)list[i].k * ((double)list[i].m + 4) / 32;
    bool alone = list[0].m <= ALONE;
    for (int64_t i = 0; alone && i < count; i++)
        for (int64_t row = 0; jobs[i].converts && row < list[i].m; row++)
            convert_row(&jobs[i].a, (const float *)list[i].a + row * list[i].lda, row, list[i].k);
    int team = tm__cpu_team(dev, operations);
    tm__all_tasks all = {.count = jobs[count - 1].end, .threads = team};
#pragma omp parallel num_threads(team)
    {
        for (int64_t i = 0; !alone && i < count; i++) {
            if (!jobs[i].converts) continue;
#pragma omp for schedule(static)
            for (int64_t row = 0; row < list[i].m; row++)
                convert_row(&jobs[i].a, (const float *)list[i].a + row * list[i].lda, row, list[i].k);
        }
        multiply_tasks(jobs, count, &all, ((tm__cpu *)dev->state)->quads);
    }
    return TM_OK;
}

tm_status TM__ISA(gemm_int8)(tm_device *dev, const tm__gemm *list, int64_t count) {
    for (int64_t i = 0; i < count; i += TOGETHER)
        TM__TRY(multiply_list(dev, list + i, TM__MIN(count - i, (int64_t)TOGETHER)));
    return TM_OK;
}
