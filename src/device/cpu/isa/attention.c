/* attention.c: attention over documents.
 *
 * MR query rows at a time: scores against the keys they see, softmax with the row's maximum, then the mix of values. A
 * row's sums run over its own keys in order, so the result does not depend on how rows are dealt to threads.
 */
#include "device/cpu/isa/attend.h"

#include <omp.h>

enum { SPAN_ROWS = 8 * MR };

/* What one thread works in, all of `ld` columns or head_dim rounded up to WIDE. */
typedef struct room {
    float *query;  /* MR rows, then packed */
    float *packed; /* (head_dim, MR) */
    float *score;  /* (MR, ld) */
    float *weight; /* (ld, MR): scores packed along the keys */
    float *mixed;  /* (MR, features) */
    int64_t ld, features;
} room;

static size_t room_floats(const attention_plan *plan) {
    int64_t d = plan->a->head_dim, ld = round_up(plan->longest, WIDE) + WIDE;
    return (size_t)(2 * MR * d + 2 * MR * ld + MR * round_up(d, WIDE));
}

static room room_at(const attention_plan *plan, float *at) {
    int64_t d = plan->a->head_dim;
    room r = {.ld = round_up(plan->longest, WIDE) + WIDE, .features = round_up(d, WIDE)};
    r.query = at;
    r.packed = r.query + MR * d;
    r.score = r.packed + MR * d;
    r.weight = r.score + MR * r.ld;
    r.mixed = r.weight + MR * r.ld;
    return r;
}

/* exp(score - max) over [low, high), zero elsewhere in [0, n). Returns the sum; *top gets the maximum. */
static float softmax_row(float *score, int64_t n, int64_t low, int64_t high, float cap, float *top) {
    if (cap > 0) cap_values(score + low, high - low, cap);
    vf max = splat(-INFINITY), sum = splat(0);
    for (int64_t j = low; j < high; j += VL) max = larger(load_part(score + j, high - j, -INFINITY), max);
    *top = lanes_max(max);
    for (int64_t j = low; j < high; j += VL) {
        vf p = exp_lanes(load_part(score + j, high - j, -INFINITY) - splat(*top));
        sum += p;
        store_part(score + j, p, high - j);
    }
    for (int64_t j = 0; j < low; j++) score[j] = 0;
    for (int64_t j = high; j < n; j++) score[j] = 0;
    return lanes_sum(sum);
}

/* Adds the relative terms of row token `at` to its scores (doc->length). */
static void add_relative(const attention_plan *plan, const document *doc, int64_t at, float *score) {
    const tm__relative *r = plan->a->relative;
    const int32_t *bucket = r->bucket + at + r->longest - 1;
    int64_t head = doc->kv_head * plan->a->tokens + doc->start;
    float factor = (float)plan->a->scale;
    if (r->content) {
        const float *terms = (const float *)r->content + (head + at) * r->buckets;
        for (int64_t j = 0; j < doc->length; j++) score[j] += factor * terms[bucket[-j]];
    }
    if (r->position) {
        const float *terms = (const float *)r->position + head * r->buckets;
        for (int64_t j = 0; j < doc->length; j++) score[j] += factor * terms[j * r->buckets + bucket[-j]];
    }
}

/* Rows [r0, r0 + rows) of a span, rows <= MR. */
static void attend_rows(const attention_plan *plan, const span *sp, int64_t r0, int64_t rows, const float *q,
                        const float *keys, const float *values, float *out, float *lse, room *m) {
    const tm__attention *a = plan->a;
    const document *doc = &plan->documents[sp->document];
    int64_t d = a->head_dim, low, high, unused;
    seen_keys(a, doc, sp->first + r0 / plan->group, &low, &unused);
    seen_keys(a, doc, sp->first + (r0 + rows - 1) / plan->group, &unused, &high);
    low = low / WIDE * WIDE;
    for (int64_t r = 0; r < rows; r++)
        memcpy(m->query + r * d, q + row_head(plan, doc, sp->first, r0 + r) * d, (size_t)d * 4);
    TM__ISA(pack)(m->packed, MR, rows, d, m->query, TM_F32, d, true, false);
    score_panels(plan, doc, m->packed, keys + doc->keys_at, low, high, m->score, m->ld, (float)a->scale);
    float sum[MR];
    for (int64_t r = 0; r < rows; r++) {
        int64_t from, to;
        float top;
        if (a->relative) add_relative(plan, doc, sp->first + r0 + r, m->score + r * m->ld);
        seen_keys(a, doc, sp->first + (r0 + r) / plan->group, &from, &to);
        sum[r] = softmax_row(m->score + r * m->ld, high - low, from - low, to - low, (float)a->soft_cap, &top);
        lse[row_head(plan, doc, sp->first, r0 + r)] = (float)((double)top + log((double)sum[r]));
    }
    TM__ISA(pack)(m->weight, MR, rows, high - low, m->score, TM_F32, m->ld, true, false);
    for (int64_t j = 0; j * WIDE < d; j++) {
        int vectors = panel_vectors(d, j, WIDE);
        const float *panel = values + doc->values_at + j * WIDE * doc->length + low * vectors * VL;
        TM__ISA(tile)
        (vectors, high - low, m->weight, MR, panel, vectors * VL, m->mixed + j * WIDE, m->features, 1, false);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *to = out + row_head(plan, doc, sp->first, r0 + r) * d, share = 1 / sum[r];
        for (int64_t c = 0; c < d; c++) to[c] = m->mixed[r * m->features + c] * share;
    }
}

static void attend_all(const attention_plan *plan, int team, const tm__scratch *scratch, float *out, float *lse,
                       const float *q, const float *k, const float *v) {
    float *keys = (float *)scratch->shared, *values = keys + plan->keys_floats;
#pragma omp parallel num_threads(team)
    {
        room own = room_at(plan, (float *)(scratch->threads + scratch->thread_bytes * (size_t)omp_get_thread_num()));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < plan->document_count; i++) {
            TM__ISA(pack_tokens)(plan, &plan->documents[i], keys + plan->documents[i].keys_at, k);
            TM__ISA(pack_features)(plan, &plan->documents[i], values + plan->documents[i].values_at, v);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < plan->span_count; i++) {
            const span *sp = &plan->spans[i];
            int64_t rows = (sp->last - sp->first) * plan->group;
            for (int64_t r = 0; r < rows; r += MR)
                attend_rows(plan, sp, r, TM__MIN(rows - r, (int64_t)MR), q, keys, values, out, lse, &own);
        }
    }
}

tm_status TM__ISA(attention)(tm_device *dev, void *out, void *lse, const void *q, const void *k, const void *v,
                             const tm__attention *a) {
    attention_plan plan;
    tm__scratch scratch;
    int64_t group = a->heads / a->kv_heads;
    TM__TRY(TM__ISA(attention_plan)(&plan, a, TM__MAX(SPAN_ROWS / group, (int64_t)1), 0));
    tm_status status =
        tm__cpu_scratch(dev, (size_t)(plan.keys_floats + plan.values_floats) * 4, room_floats(&plan) * 4, &scratch);
    if (status == TM_OK) {
        if (!plan.covers_all) {
            memset(out, 0, (size_t)(a->tokens * a->heads * a->head_dim) * 4);
            memset(lse, 0, (size_t)(a->tokens * a->heads) * 4);
        }
        int team = tm__cpu_team(dev, (double)plan.span_count * SPAN_ROWS * (double)(plan.longest * a->head_dim) / 16);
        attend_all(&plan, team, &scratch, out, lse, q, k, v);
    }
    TM__ISA(attention_plan_free)(&plan);
    return status;
}
