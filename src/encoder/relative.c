/* relative.c: attention of an encoder's block, with DeBERTa's disentangled terms   (He et al. 2021, arXiv 2006.03654
 * and, for the buckets, 2111.09543).
 *
 *   score_ij = s (q_i . k_j + q_i . K_b + k_j . Q_b),   b = clamp(bucket(i - j) + span, 0, 2 span - 1)
 *
 * K and Q are key and query projections of the relative embeddings, s = 1 / sqrt(terms C). The products with all
 * buckets that the longest text reaches are made at once; the kernel picks from them.
 *
 * transformers computes buckets and s in fp32 whatever the model's type, and so does this file: in fp64 a bucket's edge
 * could fall elsewhere. tests/golden/test_encoders.c compares the bucket of every distance.
 */
#include "encoder/encoder.h"

#include "op/common.h"

#include <stdlib.h>

int64_t tm__relative_bucket(int64_t distance, int64_t buckets, int64_t max_relative) {
    int64_t middle = buckets / 2, size = distance < 0 ? -distance : distance;
    if (buckets == 0 || size <= middle) return distance;
    float ratio = logf((float)size / (float)middle) / logf((float)((double)(max_relative - 1) / (double)middle));
    int64_t bucket = (int64_t)ceilf(ratio * (float)(middle - 1)) + middle;
    return distance < 0 ? -bucket : bucket;
}

/* Which buckets texts of at most `longest` tokens reach, and the bucket of every distance counted from the first. */
typedef struct reach {
    int64_t first, count;
    int32_t *bucket; /* (2 longest - 1) */
} reach;

static int64_t row_of(const tm__encoder_config *c, int64_t distance) {
    int64_t row = tm__relative_bucket(distance, c->buckets, c->max_relative) + c->span;
    return TM__MAX((int64_t)0, TM__MIN(row, 2 * c->span - 1));
}

static tm_status find_reach(const tm__encoder_config *c, int64_t longest, reach *r) {
    r->first = row_of(c, 1 - longest);
    r->count = row_of(c, longest - 1) - r->first + 1;
    r->bucket = tm__alloc((size_t)longest * 2, sizeof *r->bucket);
    if (!r->bucket) return tm__fail_memory();
    for (int64_t distance = 1 - longest; distance < longest; distance++)
        r->bucket[distance + longest - 1] = (int32_t)(row_of(c, distance) - r->first);
    return TM_OK;
}

/* terms (H, T, B): rows of x (T, H C) times the reached rows of the projected relative embeddings. */
static tm_status make_terms(tm_encoder *e, tm__tape *tape, const reach *r, tm__var *relative, tm__linear *projection,
                            const tm__var *x, tm__var **terms) {
    const tm__encoder_config *c = &e->config;
    tm_device *dev = tape->dev;
    size_t size = tm__dtype_size(dev->act);
    int64_t tokens = x->value.shape[0];
    tm__var *rows, *projected;
    tm_tensor reached = {.dtype = dev->act, .ndim = 2, .shape = {r->count, c->hidden}};
    reached.data = (char *)relative->value.data + (size_t)(r->first * c->hidden) * size;
    TM__TRY(tm__tape_input(tape, reached, false, &rows));
    TM__TRY(tm__op_linear(tape, rows, projection, &projected)); /* (B, H C) */
    TM__TRY(tm__tape_output(tape, 3, (int64_t[]){c->heads, tokens, r->count}, false, terms));
    for (int64_t h = 0; h < c->heads; h++) {
        const tm__gemm product = {.trans_b = true,
                                  .m = tokens,
                                  .n = r->count,
                                  .k = c->head_dim,
                                  .a = (const char *)x->value.data + (size_t)(h * c->head_dim) * size,
                                  .a_type = dev->act,
                                  .lda = c->hidden,
                                  .b = (const char *)projected->value.data + (size_t)(h * c->head_dim) * size,
                                  .b_type = dev->act,
                                  .ldb = c->hidden,
                                  .c = (char *)(*terms)->value.data + (size_t)(h * tokens * r->count) * size,
                                  .ldc = r->count,
                                  .alpha = 1,
                                  .row_invariant = tape->row_invariant};
        TM__TRY(dev->k->gemm(dev, &product));
    }
    tm__tape_drop(tape, projected);
    return TM_OK;
}

static tm__attention shape_of(const tm__encoder_config *c, const tm__encoder_batch *batch) {
    int terms = 1 + c->content_to_position + c->position_to_content;
    double root =
        c->family == TM__FAMILY_BERT ? sqrt((double)c->head_dim) : (double)sqrtf((float)c->head_dim * (float)terms);
    return (tm__attention){.tokens = batch->tokens,
                           .heads = c->heads,
                           .kv_heads = c->heads,
                           .head_dim = c->head_dim,
                           .segments = batch->segments,
                           .start = batch->start,
                           .length = batch->length,
                           .scale = 1 / root,
                           .whole = true};
}

static tm_status attend_relative(tm_encoder *e, tm__tape *tape, tm__encoder_block *b, const tm__encoder_batch *batch,
                                 tm__var *relative, tm__var *const qkv[3], tm__var **y) {
    const tm__encoder_config *c = &e->config;
    tm__attention shape = shape_of(c, batch);
    tm__var *content = NULL, *position = NULL;
    reach r = {0};
    TM__TRY(find_reach(c, batch->longest, &r));
    tm_status status = TM_OK;
    if (c->content_to_position)
        status = make_terms(e, tape, &r, relative, c->share_key ? &b->k : &b->position_key, qkv[0], &content);
    if (status == TM_OK && c->position_to_content)
        status = make_terms(e, tape, &r, relative, c->share_key ? &b->q : &b->position_query, qkv[1], &position);
    if (status == TM_OK) {
        const tm__relative terms = {batch->longest, r.count, r.bucket, content ? content->value.data : NULL,
                                    position ? position->value.data : NULL};
        shape.relative = content || position ? &terms : NULL;
        status = tm__op_attention(tape, qkv[0], qkv[1], qkv[2], &shape, y);
    }
    if (content) tm__tape_drop(tape, content);
    if (position) tm__tape_drop(tape, position);
    free(r.bucket);
    return status;
}

tm_status tm__encoder_attention(tm_encoder *e, tm__tape *tape, tm__encoder_block *b, const tm__encoder_batch *batch,
                                tm__var *relative, tm__var *x, tm__var **y) {
    const tm__attention shape = shape_of(&e->config, batch);
    tm__var *qkv[3];
    TM__TRY(tm__op_linear(tape, x, &b->q, &qkv[0])); /* (T, H C) */
    TM__TRY(tm__op_linear(tape, x, &b->k, &qkv[1]));
    TM__TRY(tm__op_linear(tape, x, &b->v, &qkv[2]));
    if (relative)
        TM__TRY(attend_relative(e, tape, b, batch, relative, qkv, y));
    else
        TM__TRY(tm__op_attention(tape, qkv[0], qkv[1], qkv[2], &shape, y));
    for (int i = 0; i < 3; i++) tm__tape_drop(tape, qkv[i]);
    return TM_OK;
}
