/* tape.h: records ops as they run and differentiates them in reverse.
 *
 *     tm__tape *tape; tm__tape_create(device, &tape);
 *     tm__var *x, *y, *loss;
 *     tm__tape_input(tape, tensor, true, &x);
 *     tm__op_linear(tape, x, &linear, &y);  ...
 *     tm__tape_backward(tape, 1, &loss, NULL);         // adds into param->grad of every trainable parameter met
 *     tm__tape_reset(tape);                            // buffers return to the device's pool
 *
 * - A var is owned by its tape and dies at the next reset. Its gradient is allocated when something is first added.
 * - Backward releases each node's value, saved buffers and gradient as soon as they are no longer needed, unless the
 *   var is kept.
 * - A value that was dropped after its last use is gone at once where no backward reads it, or where making it again
 *   costs next to nothing (norms, the middle of a feed-forward layer). Any other is kept for backward while memory
 *   lasts: where the device has a limit, those go that cost the fewest multiply-adds per byte to make again, and of
 *   equals those that backward comes to last. With `lean` all go that can be made again. What is made again is the same
 *   to the byte, so neither changes a result.
 * - Backward may start from several vars with given seeds. It runs once per recording.
 * - With recording off (tm__tape.recording = false) ops only compute; `row_invariant` asks products for results that do
 *   not depend on the number of rows (generation).
 */
#ifndef TM_TAPE_H
#define TM_TAPE_H

#include "device/device.h"

typedef struct tm__tape tm__tape;
typedef struct tm__node tm__node;

/* A weight. Frozen: `value` points into the mapped checkpoint (any dtype). Trainable: `value` is an owned master copy
 * of the device's act type, and `grad` has its shape and type. */
typedef struct tm__param {
    char *name; /* as in the checkpoint */
    tm_tensor value;
    void *grad; /* NULL: zero, or frozen */
    bool trainable, owned;
    bool changed;    /* somebody may have written to it since the model was loaded */
    tm_dtype stored; /* dtype in the checkpoint: what a save with TM_SAVE_KEEP writes */
    void *int8;      /* a weight as the device's int8_pack makes it; NULL: has not been asked for */
    size_t int8_bytes;
} tm__param;

/* The gradient, to be added to; NULL while frozen. */
static inline tm_status tm__param_grad(tm_device *dev, tm__param *param, void **grad) {
    if (param->trainable && !param->grad)
        TM__TRY(tm__alloc_zeroed(dev, TM__FOR_GRADIENTS, tm__tensor_bytes(&param->value), &param->grad));
    *grad = param->trainable ? param->grad : NULL;
    return TM_OK;
}

/* From now on the gradient is zero and takes no memory. */
static inline void tm__param_grad_zero(tm_device *dev, tm__param *param) {
    if (param->grad) dev->release(dev, param->grad, tm__tensor_bytes(&param->value));
    param->grad = NULL;
}

typedef struct tm__var {
    tm_tensor value; /* act type, device memory */
    void *grad;      /* NULL: nothing added yet, means zero */
    bool needs_grad; /* a gradient is wanted here or in front of it; set with recording off as well */
    bool keep;       /* backward must not release value and grad */
    bool saved;      /* somebody reads the value later: an op's backward, or the caller */
    bool borrowed;   /* value belongs to the caller */
    bool spare;      /* dropped, and can be made again: goes where memory is short */
    bool again;      /* was made again for this backward */
    int64_t node;    /* index of the node that made it; -1: input */
    uint64_t turn;   /* tm__tape.turn in which an op asked for the value: it stays so long */
    double price;    /* of a spare value: multiply-adds per byte */
} tm__var;

enum { TM__NODE_INPUTS = 3 };

/* An op derives its node from this: struct { tm__node base; ... saved pointers ... }. */
struct tm__node {
    const char *op;
    /* Reads out->grad (never NULL when called), adds to the gradients of inputs and parameters. */
    tm_status (*backward)(tm__tape *tape, tm__node *node);
    /* Frees saved buffers; NULL: none. Called once, also on reset. */
    void (*release)(tm__tape *tape, tm__node *node);
    /* Computes out->value once more, to the byte, from the values of `in`, which are there; NULL: cannot. */
    tm_status (*remake)(tm__tape *tape, tm__node *node);
    tm__var *in[TM__NODE_INPUTS]; /* what it was computed from; NULL where fewer. For nodes with `remake` only */
    double work;                  /* multiply-adds of that; 0: so few that the value is never kept */
    tm__var *out;
    bool reads_value; /* backward reads out->value; else it is gone by then */
    bool source;      /* backward runs even when no gradient reached `out` (it is then zero): taps */
};

struct tm__tape {
    tm__reclaimer reclaimer; /* the device's way to spare values */
    tm_device *dev;
    bool recording;
    bool row_invariant;
    bool lean;                             /* keeps no value that can be made again, however long that takes */
    uint64_t dropout_seed, dropout_stream; /* stream counts up per dropout op */
    bool training;                         /* dropout is active */
    size_t head_chunk_bytes;               /* 0: TM__HEAD_CHUNK_BYTES */
    uint64_t turn;                         /* counts the nodes that ran backward */
    tm__arena host;                        /* nodes and vars */
    tm__node **nodes;
    size_t count, cap;
    tm__var **vars;
    size_t var_count, var_cap;
    bool spent; /* backward has run */
    void *room; /* see tm__tape_room */
    size_t room_bytes;
};

/* Recording on, training off, dropout seed and stream 0. reset keeps these settings (the stream goes on counting). */
tm_status tm__tape_create(tm_device *dev, tm__tape **tape);
void tm__tape_reset(tm__tape *tape);
void tm__tape_free(tm__tape *tape);

/* Device memory for what an op computes and forgets, contents undefined, the same every time until more is asked for: a
 * large block that each step took from the system and gave back would cost a page fault for every 4 KiB. */
tm_status tm__tape_room(tm__tape *tape, int purpose, size_t bytes, void **room);

/* A var over the caller's tensor (device memory, act type, must outlive the recording). */
tm_status tm__tape_input(tm__tape *tape, tm_tensor value, bool needs_grad, tm__var **var);
/* For ops: a fresh output var; contents undefined. */
tm_status tm__tape_output(tm__tape *tape, int ndim, const int64_t *shape, bool needs_grad, tm__var **var);
/* As tm__tape_output, but takes over `buffer` (pool memory of exactly that shape, act type), also on failure. */
tm_status tm__tape_adopt(tm__tape *tape, int ndim, const int64_t *shape, void *buffer, bool needs_grad, tm__var **var);
/* Another shape for the same elements; value and gradient stay where they are. */
tm_status tm__var_reshape(tm__var *var, int ndim, const int64_t *shape);
/* For ops: appends a zeroed node of `size` bytes that made `out`. Only when recording and out->needs_grad. */
tm_status tm__tape_node(tm__tape *tape, size_t size, const char *op, tm__var *out,
                        tm_status (*backward)(tm__tape *, tm__node *), void (*release)(tm__tape *, tm__node *),
                        void *node);
/* For ops in backward: gradient buffer of a var. *fresh: just allocated, contents undefined, so overwrite; else add. */
tm_status tm__tape_grad(tm__tape *tape, tm__var *var, void **grad, bool *fresh);
/* Adds `from` (act, same size) into var's gradient. */
tm_status tm__tape_grad_add(tm__tape *tape, tm__var *var, const void *from);
/* No op will read the value any more: it is freed at once, or made again later, or kept, as described above. */
void tm__tape_drop(tm__tape *tape, tm__var *var);
/* The same, but a value that backward needs is kept: what is made again begins here. */
void tm__tape_anchor(tm__tape *tape, tm__var *var);
/* For ops in backward: the value of a saved var, made again where it is gone. */
tm_status tm__tape_value(tm__tape *tape, tm__var *var, const void **value);

/* seeds[i]: device buffer of var i's shape and act type; NULL (or seeds == NULL): one. Backward of tapped or kept vars
 * leaves their gradients readable until reset. TM_INVALID if it already ran, or if a var was not recorded or needs no
 * gradient. Values of vars that are not kept are gone afterwards, the loss included. n == 0: gradient comes from taps
 * alone. */
tm_status tm__tape_backward(tm__tape *tape, size_t n, tm__var *const *vars, const void *const *seeds);

#endif
