/* attention_grad.c: gradient of causal attention, probabilities recomputed from the log sum exp (Dao et al.,
 * "FlashAttention", 2022, algorithm 4).
 *
 * With p = exp(s - lse), dp = dout V^T and delta = dout . out:  ds = p (dp - delta) scale (1 - (s / cap)^2),
 *   dq = ds K,   dk = ds^T q,   dv = p^T dout.
 * A task is a part of a document's queries; dk and dv of each part are summed apart and added in order. A document has
 * one part up to PART_TOKENS, at most PARTS beyond: a rule of its length alone.
 */
#include "device/cpu/isa/attend.h"

#include <omp.h>
#include <stdlib.h>

enum {
    PART_TOKENS = 512,
    PARTS = 4,
    BLOCK_ROWS =
        VL == 16 ? 48 : 4 * MR, /* queries whose gradients of keys and values are summed at once: bytes depend on it */
};
_Static_assert(BLOCK_ROWS % MR == 0, "blocks are whole tiles");

typedef struct grad_plan {
    attention_plan base;
    int64_t features; /* head_dim rounded up to VL */
    int64_t *sums_at; /* (documents) floats: where its partial sums (spans, 2, padded keys, features) begin */
    int64_t sums_floats;
} grad_plan;

/* Working memory of one thread. */
typedef struct room {
    float *query, *dout; /* (BLOCK_ROWS, features), zero-padded */
    float *packed;       /* (head_dim or ld, MR) */
    float *p, *ds;       /* (BLOCK_ROWS, ld) */
    float *mixed;        /* (MR, features) */
    int64_t ld;
} room;

static int64_t room_ld(const grad_plan *g) {
    return round_up(g->base.longest, WIDE) + WIDE + MR;
}

static size_t room_floats(const grad_plan *g) {
    int64_t ld = room_ld(g), d = g->base.a->head_dim;
    return (size_t)(2 * BLOCK_ROWS * g->features + MR * TM__MAX(ld, d) + 2 * BLOCK_ROWS * ld + MR * round_up(d, WIDE));
}

static room room_at(const grad_plan *g, float *at) {
    room r = {.ld = room_ld(g)};
    r.query = at;
    r.dout = r.query + BLOCK_ROWS * g->features;
    r.packed = r.dout + BLOCK_ROWS * g->features;
    r.p = r.packed + MR * TM__MAX(r.ld, g->base.a->head_dim);
    r.ds = r.p + BLOCK_ROWS * r.ld;
    r.mixed = r.ds + BLOCK_ROWS * r.ld;
    return r;
}

static int64_t padded_keys(int64_t length) {
    return round_up(length, WIDE) + MR;
}

/* Turns scores into probabilities and dp into ds, over keys [low, high) of one row; the rest of [0, n) becomes 0. */
static void softmax_grad_row(float *score, float *dp, int64_t n, int64_t low, int64_t high, float lse, float delta,
                             float factor, float cap) {
    if (cap > 0) cap_values(score + low, high - low, cap);
    for (int64_t j = low; j < high; j += VL) {
        int64_t left = high - j;
        vf s = load_part(score + j, left, -INFINITY), p = exp_lanes(s - splat(lse));
        vf ds = p * (load_part(dp + j, left, 0) - splat(delta)) * splat(factor);
        if (cap > 0) ds *= splat(1) - s * splat(1 / cap) * (s * splat(1 / cap));
        store_part(score + j, p, left);
        store_part(dp + j, ds, left);
    }
    memset(score, 0, (size_t)low * 4);
    memset(dp, 0, (size_t)low * 4);
    memset(score + high, 0, (size_t)(n - high) * 4);
    memset(dp + high, 0, (size_t)(n - high) * 4);
}

static float inner(const float *a, const float *b, int64_t d) {
    vf sum = splat(0);
    for (int64_t i = 0; i < d; i += VL) sum += load_part(a + i, d - i, 0) * load_part(b + i, d - i, 0);
    return lanes_sum(sum);
}

typedef struct arrays {
    const float *q, *out, *dout, *lse;
    const float *keys, *values, *features; /* packed: K and V over tokens, K over head_dim */
    float *dq, *sums;
} arrays;

/* p and ds of MR rows of the span; rows beyond it become 0. */
static void weights_of(const grad_plan *g, const span *sp, int64_t r0, int64_t rows, int64_t block, int64_t low,
                       int64_t high, const arrays *x, room *m) {
    const attention_plan *plan = &g->base;
    const tm__attention *a = plan->a;
    const document *doc = &plan->documents[sp->document];
    int64_t d = a->head_dim, live = TM__MIN(rows - block * MR, (int64_t)MR), n = round_up(high - low, WIDE) + MR;
    float *p = m->p + block * MR * m->ld, *ds = m->ds + block * MR * m->ld;
    TM__ISA(pack)(m->packed, MR, MR, d, m->query + block * MR * g->features, TM_F32, g->features, true, false);
    score_panels(plan, doc, m->packed, x->keys + doc->keys_at, low, high, p, m->ld, (float)a->scale);
    TM__ISA(pack)(m->packed, MR, MR, d, m->dout + block * MR * g->features, TM_F32, g->features, true, false);
    score_panels(plan, doc, m->packed, x->values + doc->keys_at, low, high, ds, m->ld, 1);
    for (int64_t r = 0; r < MR; r++) {
        if (r >= live) {
            memset(p + r * m->ld, 0, (size_t)n * 4);
            memset(ds + r * m->ld, 0, (size_t)n * 4);
            continue;
        }
        int64_t from, to, at = r0 + block * MR + r, head = row_head(plan, doc, sp->first, at);
        seen_keys(a, doc, sp->first + at / plan->group, &from, &to);
        float delta = inner(x->dout + head * d, x->out + head * d, d);
        softmax_grad_row(p + r * m->ld, ds + r * m->ld, n, from - low, to - low, x->lse[head], delta, (float)a->scale,
                         (float)a->soft_cap);
    }
}

/* dq of MR rows = ds K. */
static void query_grad(const grad_plan *g, const span *sp, int64_t r0, int64_t rows, int64_t block, int64_t low,
                       int64_t high, const arrays *x, room *m) {
    const attention_plan *plan = &g->base;
    const document *doc = &plan->documents[sp->document];
    int64_t d = plan->a->head_dim, ld = round_up(d, WIDE);
    TM__ISA(pack)(m->packed, MR, MR, high - low, m->ds + block * MR * m->ld, TM_F32, m->ld, true, false);
    for (int64_t j = 0; j * WIDE < d; j++) {
        int vectors = panel_vectors(d, j, WIDE);
        const float *panel = x->features + doc->values_at + j * WIDE * doc->length + low * vectors * VL;
        TM__ISA(tile)(vectors, high - low, m->packed, MR, panel, vectors * VL, m->mixed + j * WIDE, ld, 1, false);
    }
    for (int64_t r = block * MR; r < TM__MIN(rows, (block + 1) * MR); r++)
        memcpy(x->dq + row_head(plan, doc, sp->first, r0 + r) * d, m->mixed + (r - block * MR) * ld, (size_t)d * 4);
}

/* dk += ds^T q and dv += p^T dout over `rows` rows. */
static void key_grads(const grad_plan *g, int64_t rows, int64_t low, int64_t high, float *dk, float *dv, room *m) {
    for (int64_t key = low; key < high; key += MR)
        for (int64_t c = 0; c < g->features; c += WIDE) {
            int vectors = panel_vectors(g->features, c / WIDE, WIDE);
            TM__ISA(tile)
            (vectors, rows, m->ds + key - low, m->ld, m->query + c, g->features, dk + key * g->features + c,
             g->features, 1, true);
            TM__ISA(tile)
            (vectors, rows, m->p + key - low, m->ld, m->dout + c, g->features, dv + key * g->features + c, g->features,
             1, true);
        }
}

static void grad_rows(const grad_plan *g, const span *sp, int64_t r0, int64_t rows, const arrays *x, float *dk,
                      float *dv, room *m) {
    const attention_plan *plan = &g->base;
    const document *doc = &plan->documents[sp->document];
    int64_t d = plan->a->head_dim, low, high, unused;
    seen_keys(plan->a, doc, sp->first + r0 / plan->group, &low, &unused);
    seen_keys(plan->a, doc, sp->first + (r0 + rows - 1) / plan->group, &unused, &high);
    low = low / WIDE * WIDE;
    memset(m->query, 0, (size_t)(2 * BLOCK_ROWS * g->features) * 4);
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = row_head(plan, doc, sp->first, r0 + r);
        memcpy(m->query + r * g->features, x->q + head * d, (size_t)d * 4);
        memcpy(m->dout + r * g->features, x->dout + head * d, (size_t)d * 4);
    }
    int64_t blocks = (rows + MR - 1) / MR;
    for (int64_t block = 0; block < blocks; block++) {
        weights_of(g, sp, r0, rows, block, low, high, x, m);
        query_grad(g, sp, r0, rows, block, low, high, x, m);
    }
    key_grads(g, blocks * MR, low, high, dk, dv, m);
}

static void grad_span(const grad_plan *g, const span *sp, const arrays *x, room *m) {
    const document *doc = &g->base.documents[sp->document];
    int64_t size = padded_keys(doc->length) * g->features, rows = (sp->last - sp->first) * g->base.group;
    float *dk = x->sums + g->sums_at[sp->document] + sp->number * 2 * size, *dv = dk + size;
    memset(dk, 0, (size_t)(2 * size) * 4);
    for (int64_t r = 0; r < rows; r += BLOCK_ROWS)
        grad_rows(g, sp, r, TM__MIN(rows - r, (int64_t)BLOCK_ROWS), x, dk, dv, m);
}

/* Token by token, the document's partial sums in order. */
static void add_parts(const grad_plan *g, int64_t index, const float *sums, float *dk, float *dv) {
    const document *doc = &g->base.documents[index];
    int64_t d = g->base.a->head_dim, size = padded_keys(doc->length) * g->features;
    for (int64_t t = 0; t < doc->length; t++) {
        int64_t at = (doc->start + t) * g->base.kv_stride + doc->kv_head * d;
        const float *from = sums + g->sums_at[index] + t * g->features;
        memcpy(dk + at, from, (size_t)d * 4);
        memcpy(dv + at, from + size, (size_t)d * 4);
        for (int64_t part = 1; part < doc->spans; part++) {
            from += 2 * size;
            for (int64_t c = 0; c < d; c++) dk[at + c] += from[c];
            for (int64_t c = 0; c < d; c++) dv[at + c] += from[size + c];
        }
    }
}

static void grad_all(const grad_plan *g, int team, const tm__scratch *scratch, arrays x, const float *k, const float *v,
                     float *dk, float *dv) {
    const attention_plan *plan = &g->base;
    float *keys = (float *)scratch->shared, *values = keys + plan->keys_floats;
    float *features = values + plan->keys_floats;
    x.keys = keys;
    x.values = values;
    x.features = features;
    x.sums = features + plan->values_floats;
#pragma omp parallel num_threads(team)
    {
        room own = room_at(g, (float *)(scratch->threads + scratch->thread_bytes * (size_t)omp_get_thread_num()));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < plan->document_count; i++) {
            const document *doc = &plan->documents[i];
            TM__ISA(pack_tokens)(plan, doc, keys + doc->keys_at, k);
            TM__ISA(pack_tokens)(plan, doc, values + doc->keys_at, v);
            TM__ISA(pack_features)(plan, doc, features + doc->values_at, k);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < plan->span_count; i++) grad_span(g, &plan->spans[i], &x, &own);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < plan->document_count; i++) add_parts(g, i, x.sums, dk, dv);
    }
}

tm_status TM__ISA(attention_grad)(tm_device *dev, void *dq, void *dk, void *dv, const void *dout, const void *out,
                                  const void *lse, const void *q, const void *k, const void *v,
                                  const tm__attention *a) {
    grad_plan g = {.features = round_up(a->head_dim, VL)};
    tm__scratch scratch;
    TM__TRY(TM__ISA(attention_plan)(&g.base, a, PART_TOKENS, PARTS));
    g.sums_at = tm__alloc((size_t)TM__MAX(g.base.document_count, (int64_t)1), sizeof *g.sums_at);
    tm_status status = g.sums_at ? TM_OK : tm__fail_memory();
    for (int64_t i = 0; status == TM_OK && i < g.base.document_count; i++) {
        const document *doc = &g.base.documents[i];
        g.sums_at[i] = g.sums_floats;
        g.sums_floats += doc->spans * 2 * padded_keys(doc->length) * g.features;
    }
    if (status == TM_OK)
        status = tm__cpu_scratch(dev, (size_t)(2 * g.base.keys_floats + g.base.values_floats + g.sums_floats) * 4,
                                 room_floats(&g) * 4, &scratch);
    if (status == TM_OK) {
        if (!g.base.covers_all) {
            memset(dq, 0, (size_t)(a->tokens * g.base.query_stride) * 4);
            memset(dk, 0, (size_t)(a->tokens * g.base.kv_stride) * 4);
            memset(dv, 0, (size_t)(a->tokens * g.base.kv_stride) * 4);
        }
        arrays x = {.q = q, .out = out, .dout = dout, .lse = lse, .dq = dq};
        int team = tm__cpu_team(dev, (double)(a->tokens * a->heads) * (double)(g.base.longest * a->head_dim) / 16);
        grad_all(&g, team, &scratch, x, k, v, dk, dv);
    }
    free(g.sums_at);
    TM__ISA(attention_plan_free)(&g.base);
    return status;
}
