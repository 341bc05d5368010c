/* attend.h: what attention and its gradient share.
 *
 * The query heads that read one key-value head stand together: row r of a work unit is token first + r / group, head r
 * % group of that key-value head. Scores of a few rows against all keys they see are held at once, never those of a
 * whole document.
 */
#ifndef TM_ATTEND_H
#define TM_ATTEND_H

#include "device/cpu/isa/tile.h"

enum { WIDE = 2 * VL }; /* columns of a panel of keys or values: few heads are no multiple of it */

/* One document and key-value head. Tokens below count from the document's start. */
typedef struct document {
    int64_t start, length, kv_head;
    int64_t keys_at;   /* floats: where its packed keys (panels over tokens, k = head_dim) begin; values alike in the
                          gradient */
    int64_t values_at; /* floats: panels over head_dim, k = tokens */
    int64_t spans;
} document;

/* Query tokens [first, last) of a document: one task. */
typedef struct span {
    int64_t document, first, last;
    int64_t number; /* within the document */
} span;

typedef struct attention_plan {
    const tm__attention *a;
    int64_t group, query_stride, kv_stride; /* floats from token to token */
    int64_t longest;                        /* document */
    int64_t keys_floats, values_floats;     /* packed, all documents */
    bool covers_all;                        /* no token is padding */
    document *documents;
    span *spans;
    int64_t document_count, span_count;
} attention_plan;

/* span_tokens: query tokens per task; more where a document would have over `most` tasks (0: no limit). */
tm_status TM__ISA(attention_plan)(attention_plan *plan, const tm__attention *a, int64_t span_tokens, int64_t most);
void TM__ISA(attention_plan_free)(attention_plan *plan);

/* Packs a document's rows of x (tokens, kv_heads, head_dim): panels over tokens, or over head_dim. */
void TM__ISA(pack_tokens)(const attention_plan *plan, const document *doc, float *to, const float *x);
void TM__ISA(pack_features)(const attention_plan *plan, const document *doc, float *to, const float *x);

/* Keys [*low, *high) of a document that row token `at` sees. */
TM__INLINE void seen_keys(const tm__attention *a, const document *doc, int64_t at, int64_t *low, int64_t *high) {
    *low = a->window > 0 ? TM__MAX(at - a->window + 1, (int64_t)0) : 0;
    *high = a->whole ? doc->length : at + 1;
}

/* Offset of row r of a span in a (tokens, heads, ...) array, in heads. */
TM__INLINE int64_t row_head(const attention_plan *plan, const document *doc, int64_t first, int64_t r) {
    return (doc->start + first + r / plan->group) * plan->a->heads + doc->kv_head * plan->group + r % plan->group;
}

/* Scores of MR rows (packed along head_dim) against panels of keys that cover [low, high), low a multiple of WIDE: into
 * columns 0.. of s (MR, ld). */
TM__INLINE void score_panels(const attention_plan *plan, const document *doc, const float *rows, const float *packed,
                             int64_t low, int64_t high, float *s, int64_t ld, float factor) {
    int64_t d = plan->a->head_dim;
    for (int64_t j = low / WIDE; j * WIDE < high; j++) {
        int vectors = panel_vectors(doc->length, j, WIDE);
        TM__ISA(tile)(vectors, d, rows, MR, packed + j * WIDE * d, vectors * VL, s + j * WIDE - low, ld, factor, false);
    }
}

#endif
