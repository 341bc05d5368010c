/* common.h: what the ops share: scratch buffers, gradients that a kernel overwrites, scalars, shape errors. */
#ifndef TM_OP_COMMON_H
#define TM_OP_COMMON_H

#include "op/op.h"

/* Fails with TM_UNSUPPORTED if the tape's device lacks the kernel. */
#define TM__NEEDS(tape, kernel)                                                     \
    do {                                                                            \
        if (!(tape)->dev->k->kernel) return tm__device_lacks((tape)->dev, #kernel); \
    } while (0)

#define TM__NEEDS_BACKWARD(tape, kernel)                \
    do {                                                \
        if ((tape)->recording) TM__NEEDS(tape, kernel); \
    } while (0)

/* Says how the node's value is made again, from what and with how many multiply-adds (tm__node.work). */
typedef tm_status tm__remake(tm__tape *tape, tm__node *node);
static inline void tm__node_remakes(tm__node *node, tm__remake *remake, double work,
                                    tm__var *const in[TM__NODE_INPUTS]) {
    node->remake = remake;
    node->work = work;
    for (int i = 0; i < TM__NODE_INPUTS; i++) node->in[i] = in[i];
}

/* Our own mistake, but named: TM_INVALID with the op as field. */
#define TM__SHAPE_ERROR(op, ...) tm__fail(TM_INVALID, NULL, op, NULL, __VA_ARGS__)

/* Device memory of an op. Starts as {0}; freeing twice is allowed. */
typedef struct tm__scratch {
    void *data;
    size_t bytes;
} tm__scratch;
tm_status tm__scratch_alloc(tm_device *dev, int64_t count, tm__scratch *scratch); /* elements of type act */
tm_status tm__scratch_upload(tm_device *dev, const void *host, size_t bytes, tm__scratch *scratch);
void tm__scratch_free(tm_device *dev, tm__scratch *scratch);

/* A place for a kernel that overwrites gradients: the var's own buffer if it has no gradient yet, else scratch memory,
 * which close adds. `wanted` false: data is NULL and close does nothing. */
typedef struct tm__grad_slot {
    tm__var *var;
    void *data;
    tm__scratch scratch;
} tm__grad_slot;
tm_status tm__grad_open(tm__tape *tape, tm__var *var, bool wanted, tm__grad_slot *slot);
tm_status tm__grad_close(tm__tape *tape, tm__grad_slot *slot); /* after the kernel succeeded */
void tm__grad_discard(tm__tape *tape, tm__grad_slot *slot);    /* frees what close has not */

/* One element of type act on the device. */
tm_status tm__scalar_get(tm_device *dev, const void *from, double *value);
tm_status tm__scalar_set(tm_device *dev, void *to, double value);

/* TM_INVALID for a parameter without a value, or a trainable one of another type than act. */
tm_status tm__param_check(const tm__tape *tape, const tm__param *param, const char *op);

/* C (m,n) = [C +] alpha * A (m,k) * B (k,n), everything contiguous. A transposed factor is stored the other way round.
 */
typedef struct tm__factor {
    const void *data;
    tm_dtype type;
    bool transposed;
} tm__factor;
enum {
    TM__PRODUCT_ADD = 1,    /* accumulate */
    TM__PRODUCT_EXACT = 2,  /* never rounded to bf16 */
    TM__PRODUCT_FORWARD = 4 /* row_invariant where the tape asks for it */
};
tm__factor tm__plain(const tm__tape *tape, const void *data);      /* activations or gradients */
tm__factor tm__transposed(const tm__tape *tape, const void *data); /* the same, transposed */
tm__factor tm__weight(const tm__param *param);
tm__factor tm__weight_transposed(const tm__param *param);
tm__gemm tm__product_of(const tm__tape *tape, int64_t m, int64_t n, int64_t k, tm__factor a, tm__factor b, void *c,
                        double alpha, unsigned flags);
tm_status tm__product(tm__tape *tape, int64_t m, int64_t n, int64_t k, tm__factor a, tm__factor b, void *c,
                      double alpha, unsigned flags);

#endif
