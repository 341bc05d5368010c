/* gemm_amx.c: products of bf16 operands on the processor's matrix unit (AMX), through oneDNN's matmul.
 *
 * C is cut into tiles of at most TILE_ROWS x TILE_COLUMNS, a rule of the shape alone; k is never split. Each tile is
 * one oneDNN primitive made for one thread and run inside our own parallel loop with a scratchpad of the thread's own:
 * oneDNN's own threading would make the bytes depend on the number of threads. Operands are copied tile by tile into
 * dense bf16 blocks (oneDNN's fast kernels want unpadded leading dimensions): the smaller operand once for the call,
 * the larger one strip by strip. Edges are padded with zeros to a multiple of PAD, so that batches of varying length
 * share primitives; making one takes up to 17 ms, running one a few microseconds. What is padded over C's edge is
 * computed beside it.
 */
#include "device/cpu/cpu.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>

enum { TILE_ROWS = 128, TILE_COLUMNS = 256, PAD = 32, BUCKETS = 256, MOST_PRIMITIVES = 2048 };

/* What a tile's primitive depends on. */
typedef struct key {
    int64_t rows, columns, k, ldc;
    float alpha;
    bool a_contiguous, b_contiguous, accumulate; /* contiguous along k */
} key;

typedef struct entry {
    key key;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t a, b, c, scratchpad;
    size_t scratchpad_bytes;
    struct entry *next;
} entry;

struct tm__amx {
    dnnl_engine_t engine;
    entry *buckets[BUCKETS];
    int64_t count;
};

/* An operand as rows of length k, cut into tiles of `tile` rows. */
typedef struct side {
    const void *data;
    tm_dtype type;
    int64_t ld, rows, tile, tiles;
    bool k_contiguous;
} side;

static tm_status fail(dnnl_status_t status, const char *call) {
    if (status == dnnl_out_of_memory) return tm__fail_memory();
    return tm__fail(TM_UNSUPPORTED, NULL, "gemm", "open the device with precision fp32",
                    "oneDNN's %s failed with status %d", call, (int)status);
}

#define DNNL_TRY(call, name)                                               \
    do {                                                                   \
        dnnl_status_t dnnl_status_ = (call);                               \
        if (dnnl_status_ != dnnl_success) return fail(dnnl_status_, name); \
    } while (0)

bool tm__amx_present(void) {
    return dnnl_get_effective_cpu_isa() == dnnl_cpu_isa_avx512_core_amx;
}

tm_status tm__amx_open(tm__cpu *cpu) {
    struct tm__amx *amx = tm__zalloc(1, sizeof *amx);
    if (!amx) return tm__fail_memory();
    dnnl_status_t status = dnnl_engine_create(&amx->engine, dnnl_cpu, 0);
    if (status != dnnl_success) {
        free(amx);
        return fail(status, "dnnl_engine_create");
    }
    cpu->amx = amx;
    return TM_OK;
}

static void forget_primitives(struct tm__amx *amx) {
    for (int i = 0; i < BUCKETS; i++)
        while (amx->buckets[i]) {
            entry *e = amx->buckets[i];
            amx->buckets[i] = e->next;
            dnnl_primitive_destroy(e->primitive);
            free(e);
        }
    amx->count = 0;
}

void tm__amx_close(tm__cpu *cpu) {
    if (!cpu->amx) return;
    forget_primitives(cpu->amx);
    dnnl_engine_destroy(cpu->amx->engine);
    free(cpu->amx);
    cpu->amx = NULL;
}

/* ---- primitives ---- */

static bool same(const key *a, const key *b) {
    return a->rows == b->rows && a->columns == b->columns && a->k == b->k && a->ldc == b->ldc && a->alpha == b->alpha &&
           a->a_contiguous == b->a_contiguous && a->b_contiguous == b->b_contiguous && a->accumulate == b->accumulate;
}

static unsigned bucket_of(const key *k) {
    uint64_t x = (uint64_t)k->rows * 31 + (uint64_t)k->columns;
    x = x * 1000003 + (uint64_t)k->k;
    x = x * 1000003 + (uint64_t)k->ldc * 8 + k->a_contiguous * 4u + k->b_contiguous * 2u + k->accumulate;
    return (unsigned)((x * 0x9E3779B97F4A7C15u) >> 56);
}

static dnnl_status_t describe(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns, dnnl_data_type_t type,
                              int64_t row_step, int64_t column_step) {
    const dnnl_dims_t dims = {rows, columns}, strides = {row_step, column_step};
    return dnnl_memory_desc_init_by_strides(desc, 2, dims, type, strides);
}

/* Attributes: scratchpad from the caller, alpha, and the sum with C. */
static dnnl_status_t set_attributes(dnnl_primitive_attr_t attr, const key *k) {
    dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && k->alpha != 1) status = dnnl_primitive_attr_set_output_scales(attr, 1, 0, &k->alpha);
    if (status != dnnl_success || !k->accumulate) return status;
    dnnl_post_ops_t ops = NULL;
    status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success) status = dnnl_post_ops_append_sum(ops, 1);
    if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
    return status;
}

static dnnl_status_t make_primitive(struct tm__amx *amx, entry *e) {
    const key *k = &e->key;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status =
        describe(&e->a, k->rows, k->k, dnnl_bf16, k->a_contiguous ? k->k : 1, k->a_contiguous ? 1 : k->rows);
    if (status == dnnl_success)
        status =
            describe(&e->b, k->k, k->columns, dnnl_bf16, k->b_contiguous ? 1 : k->columns, k->b_contiguous ? k->k : 1);
    if (status == dnnl_success) status = describe(&e->c, k->rows, k->columns, dnnl_f32, k->ldc, 1);
    if (status == dnnl_success) status = dnnl_matmul_desc_init(&desc, &e->a, &e->b, NULL, &e->c);
    if (status == dnnl_success) status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success) status = set_attributes(attr, k);
    if (status == dnnl_success) status = dnnl_primitive_desc_create(&pd, &desc, attr, amx->engine, NULL);
    if (status == dnnl_success) status = dnnl_primitive_create(&e->primitive, pd);
    if (status == dnnl_success) {
        e->scratchpad = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        e->scratchpad_bytes = dnnl_memory_desc_get_size(&e->scratchpad);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return status;
}

static tm_status find_primitive(struct tm__amx *amx, const key *wanted, entry **found) {
    entry **bucket = &amx->buckets[bucket_of(wanted)];
    for (entry *e = *bucket; e; e = e->next)
        if (same(&e->key, wanted)) {
            *found = e;
            return TM_OK;
        }
    entry *e = tm__zalloc(1, sizeof *e);
    if (!e) return tm__fail_memory();
    e->key = *wanted;
    dnnl_status_t status = make_primitive(amx, e);
    if (status != dnnl_success) {
        free(e);
        return fail(status, "matmul");
    }
    e->next = *bucket;
    *bucket = e;
    amx->count++;
    *found = e;
    return TM_OK;
}

/* ---- operands ---- */

static int64_t padded(int64_t x) {
    return (x + PAD - 1) / PAD * PAD;
}

static int64_t tile_rows(const side *s, int64_t tile) {
    return padded(TM__MIN(s->rows - tile * s->tile, s->tile));
}

/* n elements as bf16, the rest of `total` zero. */
__attribute__((target("arch=x86-64-v4"))) static void copy_as_bf16(uint16_t *to, const void *from, tm_dtype type,
                                                                   int64_t n, int64_t total) {
    if (type == TM_F32) {
        const uint32_t *bits = from;
        for (int64_t i = 0; i < n; i++) {
            uint32_t x = bits[i], rounded = (x + 0x7fff + (x >> 16 & 1)) >> 16;
            to[i] = (uint16_t)((x & 0x7fffffff) > 0x7f800000 ? x >> 16 | 0x40 : rounded);
        }
    } else if (type == TM_BF16) {
        memcpy(to, from, (size_t)n * 2);
    } else {
        for (int64_t i = 0; i < n; i++) to[i] = tm__bf16_from_f32(tm__f16_to_f32(((const uint16_t *)from)[i]));
    }
    memset(to + n, 0, (size_t)(total - n) * 2);
}

/* One tile of an operand as a dense block (rows, k) or (k, rows), both padded. */
static void copy_tile(uint16_t *to, const side *s, int64_t tile, int64_t k) {
    int64_t row = tile * s->tile, rows = TM__MIN(s->rows - row, s->tile), wide = padded(rows), deep = padded(k);
    size_t size = tm__dtype_size(s->type);
    int64_t lines = s->k_contiguous ? rows : k, all_lines = s->k_contiguous ? wide : deep;
    int64_t n = s->k_contiguous ? k : rows, total = s->k_contiguous ? deep : wide;
    for (int64_t i = 0; i < lines; i++) {
        int64_t at = s->k_contiguous ? (row + i) * s->ld : i * s->ld + row;
        copy_as_bf16(to + i * total, (const uint8_t *)s->data + (size_t)at * size, s->type, n, total);
    }
    memset(to + lines * total, 0, (size_t)((all_lines - lines) * total) * 2);
}

/* ---- the product ---- */

typedef struct job {
    const tm__gemm *g;
    struct tm__amx *amx;
    side a, b;
    bool strips_of_b;
    int64_t deep;
    entry *primitive[2][2]; /* by: last tile of rows, last tile of columns */
} job;

/* A tile that is padded over C's edge goes through a block of its own. */
static bool over_edge(const job *j, int64_t row_tile, int64_t column_tile) {
    const tm__gemm *g = j->g;
    return (row_tile == j->a.tiles - 1 && g->m % PAD != 0) || (column_tile == j->b.tiles - 1 && g->n % PAD != 0);
}

static tm_status prepare(job *j) {
    const tm__gemm *g = j->g;
    if (j->amx->count + 4 > MOST_PRIMITIVES) forget_primitives(j->amx);
    for (int last_row = 0; last_row < 2; last_row++)
        for (int last_column = 0; last_column < 2; last_column++) {
            int64_t i = last_row ? j->a.tiles - 1 : 0, c = last_column ? j->b.tiles - 1 : 0;
            bool beside = over_edge(j, i, c);
            key k = {.rows = tile_rows(&j->a, i),
                     .columns = tile_rows(&j->b, c),
                     .k = j->deep,
                     .ldc = beside ? TILE_COLUMNS : g->ldc,
                     .alpha = (float)g->alpha,
                     .a_contiguous = j->a.k_contiguous,
                     .b_contiguous = j->b.k_contiguous,
                     .accumulate = g->accumulate};
            TM__TRY(find_primitive(j->amx, &k, &j->primitive[last_row][last_column]));
        }
    return TM_OK;
}

static dnnl_status_t execute(const job *j, const entry *e, const uint16_t *a, const uint16_t *b, float *c,
                             void *scratchpad) {
    dnnl_memory_t memory[4] = {NULL};
    dnnl_stream_t stream = NULL;
    const dnnl_memory_desc_t *descs[4] = {&e->a, &e->b, &e->c, &e->scratchpad};
    void *data[4] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratchpad};
    static const int names[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t args[4];
    dnnl_status_t status = dnnl_stream_create(&stream, j->amx->engine, dnnl_stream_default_flags);
    for (int i = 0; status == dnnl_success && i < 4; i++) {
        status = dnnl_memory_create(&memory[i], descs[i], j->amx->engine, data[i]);
        args[i] = (dnnl_exec_arg_t){names[i], memory[i]};
    }
    if (status == dnnl_success) status = dnnl_primitive_execute(e->primitive, stream, 4, args);
    for (int i = 0; i < 4; i++)
        if (memory[i]) dnnl_memory_destroy(memory[i]);
    if (stream) dnnl_stream_destroy(stream);
    return status;
}

static dnnl_status_t multiply_tile(const job *j, int64_t row_tile, int64_t column_tile, const uint16_t *a,
                                   const uint16_t *b, float *beside, void *scratchpad) {
    const tm__gemm *g = j->g;
    const entry *e = j->primitive[row_tile == j->a.tiles - 1][column_tile == j->b.tiles - 1];
    float *c = (float *)g->c + row_tile * TILE_ROWS * g->ldc + column_tile * TILE_COLUMNS;
    if (!over_edge(j, row_tile, column_tile)) return execute(j, e, a, b, c, scratchpad);
    int64_t rows = TM__MIN(g->m - row_tile * TILE_ROWS, (int64_t)TILE_ROWS);
    size_t bytes = (size_t)TM__MIN(g->n - column_tile * TILE_COLUMNS, (int64_t)TILE_COLUMNS) * sizeof(float);
    memset(beside, 0, TILE_ROWS * TILE_COLUMNS * sizeof(float));
    for (int64_t i = 0; g->accumulate && i < rows; i++) memcpy(beside + i * TILE_COLUMNS, c + i * g->ldc, bytes);
    dnnl_status_t status = execute(j, e, a, b, beside, scratchpad);
    for (int64_t i = 0; i < rows; i++) memcpy(c + i * g->ldc, beside + i * TILE_COLUMNS, bytes);
    return status;
}

/* Memory of one thread: a strip's block, a tile beside C, the scratchpad. */
typedef struct room {
    uint16_t *block;
    float *beside;
    void *scratchpad;
} room;

static dnnl_status_t multiply_strip(const job *j, int64_t strip, const uint16_t *shared, const room *own) {
    const side *small = j->strips_of_b ? &j->a : &j->b;
    copy_tile(own->block, j->strips_of_b ? &j->b : &j->a, strip, j->g->k);
    for (int64_t t = 0; t < small->tiles; t++) {
        const uint16_t *whole = shared + t * small->tile * j->deep;
        dnnl_status_t status = j->strips_of_b
                                   ? multiply_tile(j, t, strip, whole, own->block, own->beside, own->scratchpad)
                                   : multiply_tile(j, strip, t, own->block, whole, own->beside, own->scratchpad);
        if (status != dnnl_success) return status;
    }
    return dnnl_success;
}

static tm_status run(tm_device *dev, job *j) {
    const side *small = j->strips_of_b ? &j->a : &j->b, *large = j->strips_of_b ? &j->b : &j->a;
    size_t block_bytes = (size_t)(large->tile * j->deep) * 2, beside_bytes = TILE_ROWS * TILE_COLUMNS * sizeof(float);
    size_t pad_bytes = 0;
    for (int i = 0; i < 4; i++) pad_bytes = TM__MAX(pad_bytes, j->primitive[i / 2][i % 2]->scratchpad_bytes);
    tm__scratch scratch;
    TM__TRY(tm__cpu_scratch(dev, (size_t)(small->tiles * small->tile * j->deep) * 2,
                            (block_bytes + 63) / 64 * 64 + beside_bytes + pad_bytes, &scratch));
    uint16_t *shared = (uint16_t *)scratch.shared;
    dnnl_status_t worst = dnnl_success;
    int team = tm__cpu_team(dev, (double)j->g->m * (double)j->g->n * (double)j->g->k / 128);
#pragma omp parallel num_threads(team)
    {
        uint8_t *mine = scratch.threads + scratch.thread_bytes * (size_t)omp_get_thread_num();
        room own = {(uint16_t *)mine, (float *)(mine + (block_bytes + 63) / 64 * 64), NULL};
        own.scratchpad = (uint8_t *)own.beside + beside_bytes;
#pragma omp for schedule(static)
        for (int64_t t = 0; t < small->tiles; t++) copy_tile(shared + t * small->tile * j->deep, small, t, j->g->k);
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < large->tiles; s++) {
            dnnl_status_t status = multiply_strip(j, s, shared, &own);
            if (status != dnnl_success) {
#pragma omp critical(tm_amx_status)
                worst = status;
            }
        }
    }
    return worst == dnnl_success ? TM_OK : fail(worst, "dnnl_primitive_execute");
}

tm_status tm__amx_gemm(tm_device *dev, const tm__gemm *g) {
    job j = {.g = g, .amx = ((tm__cpu *)dev->state)->amx, .deep = padded(g->k), .strips_of_b = g->n > g->m};
    j.a = (side){g->a, g->a_type, g->lda, g->m, TILE_ROWS, (g->m + TILE_ROWS - 1) / TILE_ROWS, !g->trans_a};
    j.b = (side){g->b, g->b_type, g->ldb, g->n, TILE_COLUMNS, (g->n + TILE_COLUMNS - 1) / TILE_COLUMNS, g->trans_b};
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* primitives are made and run for one thread each */
    tm_status status = prepare(&j);
    if (status == TM_OK) status = run(dev, &j);
    omp_set_num_threads(threads);
    return status;
}
