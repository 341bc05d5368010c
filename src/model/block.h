/* block.h: one decoder block, over whole documents or over the cache. */
#ifndef TM_MODEL_BLOCK_H
#define TM_MODEL_BLOCK_H

#include "model/model.h"

/* What a block needs beside x. */
typedef struct tm__block_run {
    tm_model *model;
    int64_t layer;
    const tm__rope_table *rope;
    const int32_t *position;            /* (tokens) rows of `rope` */
    const tm__forward_options *options; /* NULL: no taps */
    tm__attention documents;            /* used without a cache */
    tm__cache *cache;                   /* NULL: whole documents */
    tm__attention_cached cached;
} tm__block_run;

/* x, y (tokens, hidden). */
tm_status tm__block_forward(tm__tape *tape, const tm__block_run *run, tm__var *x, tm__var **y);
/* Replaces *x by its value with the taps of a place applied. */
tm_status tm__apply_taps(tm__tape *tape, const tm__forward_options *options, int site, int64_t layer, tm__var **x);
/* out (tokens, heads * head_dim): attention of queries over the cache, keys and values of these tokens stored first.
 * q, k are rotated in place. */
tm_status tm__cache_attend(tm__tape *tape, const tm__block_run *run, tm__var *q, tm__var *k, tm__var *v, tm__var **out);

#endif
