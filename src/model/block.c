/* block.c: the decoder block of every family; what a family lacks has no name and is passed over.
 *
 * Shapes: T tokens, D hidden, H heads, K key-value heads, C head_dim, F intermediate. Values are dropped as soon as
 * nothing needs them, backward included.
 */
#include "model/block.h"

tm_status tm__apply_taps(tm__tape *tape, const tm__forward_options *options, int site, int64_t layer, tm__var **x) {
    for (size_t i = 0; options && i < options->tap_count; i++) {
        const tm__tap *tap = &options->taps[i];
        if (tap->site != site || (site != TM__TAP_EMBEDDING && tap->layer != layer)) continue;
        tm__var *before = *x;
        TM__TRY(tm__op_tap(tape, before, tap, x));
        tm__tape_drop(tape, before);
    }
    return TM_OK;
}

tm_status tm__model_norm(const tm_model *model, tm__tape *tape, tm__var *x, tm__norm *norm, tm__var **y) {
    const tm__config *c = &model->config;
    if (c->family->layer_norm) return tm__op_layernorm(tape, x, &norm->weight, &norm->bias, c->norm_eps, y);
    return tm__op_rmsnorm(tape, x, &norm->weight, c->family->norm_shift, c->norm_eps, y);
}

/* Replaces *x by its norm, where the family has it. */
static tm_status norm_in_place(tm__tape *tape, const tm__block_run *run, int index, tm__var **x) {
    tm__norm *norm = &run->model->blocks[run->layer].norm[index];
    tm__var *y;
    if (!norm->weight.name) return TM_OK;
    TM__TRY(tm__model_norm(run->model, tape, *x, norm, &y));
    tm__tape_drop(tape, *x);
    *x = y;
    return TM_OK;
}

/* The same elements seen as (T, heads, C). */
static tm_status split_heads(tm__var *x, int64_t heads, int64_t head_dim) {
    return tm__var_reshape(x, 3, (int64_t[]){x->value.shape[0], heads, head_dim});
}

/* Attention over whole documents. q, k and v are dropped. */
static tm_status attend(tm__tape *tape, const tm__block_run *run, tm__var *q, tm__var *k, tm__var *v, tm__var **mixed) {
    const tm__attention *a = &run->documents;
    tm__var *q_turned, *k_turned;
    TM__TRY(split_heads(v, a->kv_heads, a->head_dim));
    TM__TRY(tm__op_rope(tape, q, run->rope, run->position, &q_turned));
    TM__TRY(tm__op_rope(tape, k, run->rope, run->position, &k_turned));
    tm__tape_drop(tape, q);
    tm__tape_drop(tape, k);
    TM__TRY(tm__op_attention(tape, q_turned, k_turned, v, a, mixed)); /* (T, H C) */
    tm__tape_drop(tape, q_turned);
    tm__tape_drop(tape, k_turned);
    tm__tape_drop(tape, v);
    return TM_OK;
}

/* `last`: nothing needs `normed` afterwards. */
static tm_status attention(tm__tape *tape, const tm__block_run *run, tm__var *normed, bool last, tm__var **y) {
    const tm__config *c = &run->model->config;
    tm__block *block = &run->model->blocks[run->layer];
    tm__var *q, *k, *v, *mixed;
    TM__TRY(tm__op_linears(tape, normed, (tm__linear *const[]){&block->q, &block->k, &block->v}, 3,
                           (tm__var * *const[]){&q, &k, &v})); /* (T, H C), (T, K C), (T, K C) */
    if (last) tm__tape_drop(tape, normed);
    TM__TRY(split_heads(q, c->heads, c->head_dim));
    TM__TRY(split_heads(k, c->kv_heads, c->head_dim));
    TM__TRY(norm_in_place(tape, run, TM__NORM_Q, &q));
    TM__TRY(norm_in_place(tape, run, TM__NORM_K, &k));
    TM__TRY(run->cache ? tm__cache_attend(tape, run, q, k, v, &mixed) : attend(tape, run, q, k, v, &mixed));
    TM__TRY(tm__op_linear(tape, mixed, &block->o, y)); /* (T, D) */
    tm__tape_drop(tape, mixed);
    return tm__apply_taps(tape, run->options, TM__TAP_ATTENTION_OUT, run->layer, y);
}

/* Drops `normed`. */
static tm_status mlp(tm__tape *tape, const tm__block_run *run, tm__var *normed, tm__var **y) {
    tm__block *block = &run->model->blocks[run->layer];
    bool has_gate = tm__linear_exists(&block->gate);
    tm__var *gate, *up = NULL, *active;
    if (has_gate) /* (T, F) both */
        TM__TRY(tm__op_linears(tape, normed, (tm__linear *const[]){&block->gate, &block->up}, 2,
                               (tm__var * *const[]){&gate, &up}));
    else
        TM__TRY(tm__op_linear(tape, normed, &block->up, &gate));
    tm__tape_drop(tape, normed);
    TM__TRY(tm__op_gated(tape, run->model->config.activation, gate, up, &active));
    tm__tape_drop(tape, gate);
    if (up) tm__tape_drop(tape, up);
    TM__TRY(tm__op_linear(tape, active, &block->down, y)); /* (T, D) */
    tm__tape_drop(tape, active);
    return tm__apply_taps(tape, run->options, TM__TAP_MLP_OUT, run->layer, y);
}

/* *sum = a + b; b is dropped. */
static tm_status add(tm__tape *tape, tm__var *a, tm__var *b, tm__var **sum) {
    TM__TRY(tm__op_add(tape, a, b, sum));
    tm__tape_drop(tape, b);
    return TM_OK;
}

static tm_status drop_out(tm__tape *tape, const tm__block_run *run, tm__var **x) {
    tm__var *before = *x;
    TM__TRY(tm__op_dropout(tape, before, run->model->config.residual_dropout, x));
    if (*x != before) tm__tape_drop(tape, before);
    return TM_OK;
}

static tm_status parallel(tm__tape *tape, const tm__block_run *run, tm__var *x, tm__var **y) {
    tm__var *normed, *mixed, *moved, *both;
    TM__TRY(tm__model_norm(run->model, tape, x, &run->model->blocks[run->layer].norm[TM__NORM_INPUT], &normed));
    TM__TRY(attention(tape, run, normed, false, &mixed));
    TM__TRY(drop_out(tape, run, &mixed));
    TM__TRY(mlp(tape, run, normed, &moved));
    TM__TRY(drop_out(tape, run, &moved));
    TM__TRY(add(tape, mixed, moved, &both));
    tm__tape_drop(tape, mixed);
    return add(tape, x, both, y);
}

static tm_status sequential(tm__tape *tape, const tm__block_run *run, tm__var *x, tm__var **y) {
    tm__block *block = &run->model->blocks[run->layer];
    tm__var *normed, *mixed, *middle, *moved;
    TM__TRY(tm__model_norm(run->model, tape, x, &block->norm[TM__NORM_INPUT], &normed));
    TM__TRY(attention(tape, run, normed, true, &mixed));
    TM__TRY(norm_in_place(tape, run, TM__NORM_ATTENTION_POST, &mixed));
    TM__TRY(drop_out(tape, run, &mixed));
    TM__TRY(add(tape, x, mixed, &middle));
    TM__TRY(tm__model_norm(run->model, tape, middle, &block->norm[TM__NORM_MLP], &normed));
    TM__TRY(mlp(tape, run, normed, &moved));
    TM__TRY(norm_in_place(tape, run, TM__NORM_MLP_POST, &moved));
    TM__TRY(drop_out(tape, run, &moved));
    TM__TRY(tm__op_add(tape, middle, moved, y));
    tm__tape_drop(tape, middle);
    tm__tape_drop(tape, moved);
    return TM_OK;
}

tm_status tm__block_forward(tm__tape *tape, const tm__block_run *run, tm__var *x, tm__var **y) {
    TM__TRY(run->model->config.family->parallel ? parallel(tape, run, x, y) : sequential(tape, run, x, y));
    return tm__apply_taps(tape, run->options, TM__TAP_HIDDEN, run->layer, y);
}
