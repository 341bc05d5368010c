/* forward.c: the decoder's forward pass over whole documents, its loss, logits, and what is read off them.
 *
 * Shapes: T tokens, D hidden, H heads, K key-value heads, C head_dim, F intermediate, V vocabulary.
 */
#include "model/block.h"
#include "model/weights.h"

#include <stdlib.h>

/* ---- the whole model --------------------------------------------------------------------------------------------- */

tm_status tm__model_check_id(const tm_model *model, int32_t id) {
    if (id >= 0 && id < model->config.vocab) return TM_OK;
    return tm__fail(TM_INVALID, model->directory, NULL, "does the tokenizer belong to this model?",
                    "token id %d is outside the model's vocabulary of %lld", id, (long long)model->config.vocab);
}

static tm_status check_ids(const tm_model *model, const int32_t *ids, const int32_t *position, int64_t tokens,
                           int64_t *positions) {
    *positions = 0;
    for (int64_t i = 0; i < tokens; i++) {
        TM__TRY(tm__model_check_id(model, ids[i]));
        if (position[i] < 0) return tm__fail(TM_INVALID, NULL, "position", NULL, "%d is negative", position[i]);
        *positions = TM__MAX(*positions, (int64_t)position[i] + 1);
    }
    return TM_OK;
}

static tm__attention attention_shape(const tm_model *model, const tm__batch *batch, int64_t layer) {
    const tm__config *c = &model->config;
    return (tm__attention){.tokens = batch->tokens,
                           .heads = c->heads,
                           .kv_heads = c->kv_heads,
                           .head_dim = c->head_dim,
                           .segments = batch->segments,
                           .start = batch->start,
                           .length = batch->length,
                           .window = c->window ? c->window[layer] : 0,
                           .scale = c->attention_scale,
                           .soft_cap = c->attention_cap};
}

/* The rotary table and its rows: the model's, or one for these documents where frequencies depend on their lengths. */
static tm_status find_rope(tm_model *model, tm__tape *tape, const tm__batch *batch, int64_t positions,
                           const tm__rope_table **table, const int32_t **rows) {
    *table = &model->rope;
    *rows = batch->position;
    if (!tm__rope_depends(&model->config, positions)) return tm__rope_reserve(model, positions);
    int32_t *length = tm__zalloc((size_t)batch->tokens, sizeof *length);
    if (!length) return tm__fail_memory();
    for (int64_t s = 0; s < batch->segments; s++) {
        int64_t first = batch->start[s], end = first + batch->length[s];
        int32_t longest = 0;
        for (int64_t t = first; t < end; t++) longest = TM__MAX(longest, batch->position[t] + 1);
        for (int64_t t = first; t < end; t++) length[t] = longest;
    }
    tm_status status = tm__rope_rows(model, tape, batch->tokens, batch->position, length, table, rows);
    free(length);
    return status;
}

tm_status tm__model_embed(tm_model *model, tm__tape *tape, const int32_t *ids, int64_t tokens, tm__var **x) {
    const tm__config *c = &model->config;
    tm__var *rows;
    TM__TRY(tm__op_embedding(tape, &model->embed, ids, tokens, x)); /* (T, D) */
    if (c->embed_scale != 1) {
        rows = *x;
        TM__TRY(tm__op_scale(tape, rows, c->embed_scale, x));
        tm__tape_drop(tape, rows);
    }
    return tm__op_dropout(tape, *x, c->embed_dropout, x);
}

static void keep_state(const tm__forward_options *options, int64_t index, tm__var *x) {
    x->saved = true;
    options->states[index] = x;
}

tm_status tm__model_forward(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                            tm__var **hidden) {
    int64_t positions;
    tm__var *x, *y;
    tm__block_run run = {.model = model, .options = options};
    tape->lean = options && options->recompute;
    TM__TRY(check_ids(model, batch->ids, batch->position, batch->tokens, &positions));
    TM__TRY(find_rope(model, tape, batch, positions, &run.rope, &run.position));
    TM__TRY(tm__model_embed(model, tape, batch->ids, batch->tokens, &x));
    TM__TRY(tm__apply_taps(tape, options, TM__TAP_EMBEDDING, 0, &x));
    if (options && options->states) keep_state(options, 0, x);
    for (int64_t i = 0; i < model->config.layers; i++) {
        run.layer = i;
        run.documents = attention_shape(model, batch, i);
        TM__TRY(tm__block_forward(tape, &run, x, &y));
        tm__tape_anchor(tape, x);
        x = y;
        if (options && options->states) keep_state(options, i + 1, x);
    }
    TM__TRY(tm__model_norm(model, tape, x, &model->final_norm, hidden));
    tm__tape_anchor(tape, x);
    return TM_OK;
}

tm_status tm__model_loss(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                         double *row_loss, tm__var **loss) {
    tm__var *hidden;
    const tm__head head = tm__model_head(model);
    TM__TRY(tm__model_check_language(model));
    TM__TRY(tm__model_forward(model, tape, batch, options, &hidden));
    return tm__op_head_loss(tape, hidden, &head, &batch->targets, row_loss, loss);
}
