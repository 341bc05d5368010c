/* op.h: the differentiable operations, one file each in src/op/. Shapes in comments; n tokens, d features.
 *
 * Every op computes its output at once and, when the tape records and an input or parameter needs a gradient, appends a
 * node whose backward is written by hand. Gradients add up. Wrong shapes are TM_INVALID (our own bug, but named).
 */
#ifndef TM_OP_H
#define TM_OP_H

#include "tape/tape.h"

/* LoRA: y += scale * B A dropout(x).  A (rank,in), B (out,rank), act type, fp32 products always (gemm.exact). */
typedef struct tm__adapter {
    tm__param a, b;
    int64_t rank;
    double alpha, scale, dropout;
    bool active;   /* inactive adapters contribute nothing and get no gradient */
    size_t number; /* which of the model's adapters this is a part of */
} tm__adapter;

/* Sees a linear's input x (n,in), device memory, in every forward pass. */
typedef tm_status (*tm__linear_watch)(void *user, const void *x, int64_t n);

typedef struct tm__linear {
    tm__param weight;      /* (out,in) */
    tm__param bias;        /* (out), value.data NULL: none */
    tm__adapter *adapters; /* several may be active at once */
    size_t adapter_count, adapter_cap;
    tm__linear_watch watch; /* NULL: nobody */
    void *watch_user;
} tm__linear;

/* y (n,d) = table[ids]. ids are copied. */
tm_status tm__op_embedding(tm__tape *tape, tm__param *table, const int32_t *ids, int64_t n, tm__var **y);
/* y (n,out) = x (n,in) W^T + bias + adapters. A frozen weight computes no dW. */
tm_status tm__op_linear(tm__tape *tape, tm__var *x, tm__linear *linear, tm__var **y);
/* The same of several linears with one input, whose products are made together: at most TM__LINEARS_TOGETHER. */
enum { TM__LINEARS_TOGETHER = 4 };
tm_status tm__op_linears(tm__tape *tape, tm__var *x, tm__linear *const *linears, int64_t count, tm__var **const *y);
/* x (..., d), weight and bias (d): y = x / rms(x) * (shift + weight), y = (x - mean) / deviation * weight + bias. */
tm_status tm__op_rmsnorm(tm__tape *tape, tm__var *x, tm__param *weight, double shift, double eps, tm__var **y);
tm_status tm__op_layernorm(tm__tape *tape, tm__var *x, tm__param *weight, tm__param *bias, double eps, tm__var **y);

/* cos, sin (positions, rotary/2) on the device, act type; position (n) is copied; x (n, heads, head_dim) */
typedef struct tm__rope_table {
    void *cos, *sin;
    int64_t positions, rotary;
} tm__rope_table;
tm_status tm__op_rope(tm__tape *tape, tm__var *x, const tm__rope_table *table, const int32_t *position, tm__var **y);

/* q (n,heads,head_dim), k, v (n,kv_heads,head_dim) -> y (n, heads*head_dim). `shape` and its arrays are copied. */
tm_status tm__op_attention(tm__tape *tape, tm__var *q, tm__var *k, tm__var *v, const tm__attention *shape, tm__var **y);
/* y = act(gate) * up;  up NULL: y = act(gate) */
tm_status tm__op_gated(tm__tape *tape, tm__activation act, tm__var *gate, tm__var *up, tm__var **y);
/* y = x with a share p of its elements zeroed and the others divided by 1 - p, where the tape trains; else *y = x. */
tm_status tm__op_dropout(tm__tape *tape, tm__var *x, double p, tm__var **y);
tm_status tm__op_add(tm__tape *tape, tm__var *a, tm__var *b, tm__var **y);
tm_status tm__op_scale(tm__tape *tape, tm__var *x, double alpha, tm__var **y);
/* Sum over i of weight[i] * x[i] for a constant weight buffer (act, device); y is a scalar of shape {1}. Used to
 * compose losses. */
tm_status tm__op_weighted_sum(tm__tape *tape, tm__var *x, const void *weight, tm__var **y);

/* A named activation: read, perturbed and given extra gradient. Every pointer is a device buffer of x's size and act
 * type, or NULL. The struct is copied; the buffers are read and written when their turn comes, so extra_grad may be
 * filled between forward and backward, and perturb must stay as it is until the tape is reset. `grad` receives zeros
 * where no gradient arrives, and is served even if nothing before the tap needs a gradient. */
typedef struct tm__tap {
    int layer;              /* block index; for site EMBEDDING ignored */
    int site;               /* tm__tap_site */
    const void *perturb;    /* forward: y = x + perturb */
    const void *extra_grad; /* backward: dx = dy + extra_grad */
    void *value;            /* receives y */
    void *grad;             /* receives dy (before extra_grad is added) */
} tm__tap;
enum tm__tap_site { TM__TAP_EMBEDDING, TM__TAP_ATTENTION_OUT, TM__TAP_MLP_OUT, TM__TAP_HIDDEN };
tm_status tm__op_tap(tm__tape *tape, tm__var *x, const tm__tap *tap, tm__var **y);

/* A weight (n,k) as the device's int8_pack makes it, which happens at the first call; NULL where the device or the tape
 * asks for no such products. Its value may not change afterwards. */
tm_status tm__param_int8(const tm__tape *tape, tm__param *param, const void **packed);

/* Head and cross-entropy over labelled positions only, in chunks: no (n, vocab) tensor exists for a whole batch.
 *
 *   loss {1} = sum_i weight[i] * ( lse(z_i) - z_i[target_i] ),   z_i = cap(W hidden[row_i] + b)
 *
 * weight: 1/N for the mean over N targets. row_loss (count, host, fp64; may be NULL) receives each unweighted term at
 * once. Logits are kept for backward when all of them fit into TM__HEAD_CHUNK_BYTES. Else forward makes the gradients,
 * each loss recorded its own (vocab, d), unless backward has added to one of W or b already: then backward computes the
 * logits again.
 */
#define TM__HEAD_CHUNK_BYTES ((size_t)64 << 20)
typedef struct tm__head {
    tm__param *weight, *bias; /* (vocab, d), (vocab); bias NULL: none */
    double soft_cap;          /* 0: none */
} tm__head;
typedef struct tm__head_targets {
    int64_t count;
    const int32_t *row, *id; /* (count) copied; rows distinct */
    const double *weight;    /* (count) copied */
} tm__head_targets;
tm_status tm__op_head_loss(tm__tape *tape, tm__var *hidden, const tm__head *head, const tm__head_targets *targets,
                           double *row_loss, tm__var **loss);

/* Labels of a sequence classifier, read at rows of the hidden state by weight (L, D); see label_loss.c.
 *
 *   loss {1} = sum_i weight[i] * l_i,  l_i = cross-entropy of softmax(W h_i), or the mean over labels of each one's */
typedef struct tm__label_targets {
    int64_t count;
    const int32_t *row;   /* (count) copied; rows distinct */
    const double *y;      /* (count, L): 1 where the label holds, else 0; exactly one does unless `each` */
    const double *weight; /* (count): 1/N for the mean over N rows */
    bool each;            /* each label by itself */
} tm__label_targets;
tm_status tm__op_label_loss(tm__tape *tape, tm__var *hidden, tm__param *weight, const tm__label_targets *targets,
                            double *row_loss, tm__var **loss);

#endif
