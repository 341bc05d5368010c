/* rehearsal.c: a device that computes nothing and counts the memory that another would take.
 *
 * The program runs on it as it would on the real one: the same buffers are asked for in the same order and sizes, but
 * no kernel touches them, so that they cost address space only and a step takes no time. Numbers read back are zero.
 *
 * What a buffer is for is said when it is taken (tm__alloc_for) and stands in the pool's description of it. Buffers
 * come from the same pool as those of the real devices, so that what the pool keeps for reuse counts too. Parts have
 * their peaks at different times: gradients come as activations go. So the peak of all is counted by itself.
 * (tests/unit/test_rehearsal.c)
 */
#include "device/device.h"

#include <stdlib.h>

typedef struct tm__rehearsal {
    size_t in_use[TM__PURPOSES], peak[TM__PURPOSES]; /* bytes */
    size_t held_peak;                                /* handed out, and kept for reuse */
    size_t kernels;                                  /* most working memory of a kernel */
    size_t stepped; /* gradients that the optimiser had in its last step: other loops of a run may train more */
    int64_t tokens; /* most in one forward pass */
} rehearsal;

static rehearsal *of(const tm_device *dev) {
    return dev->state;
}

static tm_status take(tm_device *dev, size_t bytes, void **buffer) {
    rehearsal *r = of(dev);
    TM__TRY(tm__pool_alloc(dev, bytes, buffer));
    tm__pooled_of(*buffer)->purpose = (short)dev->purpose;
    size_t *in_use = &r->in_use[dev->purpose], *peak = &r->peak[dev->purpose];
    *in_use += bytes;
    *peak = TM__MAX(*peak, *in_use);
    r->held_peak = TM__MAX(r->held_peak, dev->pool.held);
    return TM_OK;
}

static void give(tm_device *dev, void *buffer, size_t bytes) {
    if (!buffer) return;
    of(dev)->in_use[tm__pooled_of(buffer)->purpose] -= bytes;
    tm__pool_release(dev, buffer, bytes);
}

static void works_with(tm_device *dev, double floats) {
    rehearsal *r = of(dev);
    r->kernels = TM__MAX(r->kernels, (size_t)(floats * 4));
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

#pragma GCC diagnostic ignored "-Wunused-parameter"

/* The cpu's product packs the smaller operand for all threads, and a few panels of the larger one for each. */
static tm_status gemm(tm_device *dev, const tm__gemm *g) {
    enum { DEPTH = 384, SHARED = 2 << 20, PANELS = 8 * 48 };
    double small = (double)TM__MIN(g->m, g->n) + 48, depth = (double)TM__MIN(g->k, (int64_t)DEPTH);
    double shared = fmin(small * (double)g->k, fmax(SHARED, small * depth));
    works_with(dev, shared + (double)dev->threads * PANELS * depth);
    dev->worked += (double)g->m * (double)g->n * (double)g->k;
    return TM_OK;
}

static tm_status gemms(tm_device *dev, const tm__gemm *list, int64_t count) {
    for (int64_t i = 0; i < count; i++) TM__TRY(dev->k->gemm(dev, &list[i]));
    return TM_OK;
}

/* As the cpu packs them, nearly: a byte each, and eight for every group of a column. */
static size_t int8_bytes(int64_t n, int64_t k) {
    int64_t groups = (k + TM__INT8_GROUP - 1) / TM__INT8_GROUP;
    return (size_t)((n + 31) / 32 * 32 * groups) * (TM__INT8_GROUP + 8);
}

static tm_status int8_pack(tm_device *dev, void *packed, const void *w, tm_dtype type, int64_t n, int64_t k,
                           int64_t ld) {
    return TM_OK;
}

static tm_status embedding(tm_device *dev, void *y, const void *table, tm_dtype type, const int32_t *ids, int64_t n,
                           int64_t d) {
    of(dev)->tokens = TM__MAX(of(dev)->tokens, n);
    return TM_OK;
}

static tm_status embedding_grad(tm_device *dev, void *dtable, const void *dy, const int32_t *ids, int64_t n,
                                int64_t d) {
    return TM_OK;
}

static tm_status rmsnorm(tm_device *dev, void *y, void *rstd, const void *x, const void *w, tm_dtype type, double shift,
                         int64_t n, int64_t d, double eps) {
    return TM_OK;
}

static tm_status rmsnorm_grad(tm_device *dev, void *dx, bool accumulate, void *dw, const void *dy, const void *x,
                              const void *w, tm_dtype type, double shift, const void *rstd, int64_t n, int64_t d) {
    return TM_OK;
}

static tm_status layernorm(tm_device *dev, void *y, void *mean, void *rstd, const void *x, const void *w,
                           tm_dtype w_type, const void *b, tm_dtype b_type, int64_t n, int64_t d, double eps) {
    return TM_OK;
}

static tm_status layernorm_grad(tm_device *dev, void *dx, bool accumulate, void *dw, void *db, const void *dy,
                                const void *x, const void *w, tm_dtype w_type, const void *mean, const void *rstd,
                                int64_t n, int64_t d) {
    return TM_OK;
}

static tm_status rope(tm_device *dev, void *y, bool accumulate, const void *x, const void *cos_table,
                      const void *sin_table, const int32_t *position, int64_t n, int64_t heads, int64_t head_dim,
                      int64_t rotary, int sign) {
    return TM_OK;
}

static double pairs(const tm__attention *a) {
    double sum = 0;
    for (int64_t i = 0; i < a->segments; i++) sum += (double)a->length[i] * (double)a->length[i] / 2;
    return sum * (double)(a->heads * a->head_dim);
}

/* Keys and values are packed for all threads. */
static tm_status attention(tm_device *dev, void *out, void *lse, const void *q, const void *k, const void *v,
                           const tm__attention *a) {
    works_with(dev, 2.0 * (double)(a->tokens * a->kv_heads * a->head_dim));
    dev->worked += 2 * pairs(a);
    return TM_OK;
}

static tm_status attention_grad(tm_device *dev, void *dq, void *dk, void *dv, const void *dout, const void *out,
                                const void *lse, const void *q, const void *k, const void *v, const tm__attention *a) {
    works_with(dev, 3.0 * (double)(a->tokens * a->kv_heads * a->head_dim));
    dev->worked += 5 * pairs(a);
    return TM_OK;
}

static tm_status attention_cached(tm_device *dev, void *out, const void *q, const void *cache_k, const void *cache_v,
                                  const tm__attention_cached *a) {
    return TM_OK;
}

static tm_status gated(tm_device *dev, void *y, tm__activation act, const void *gate, const void *up, int64_t n) {
    return TM_OK;
}

static tm_status gated_grad(tm_device *dev, void *dgate, void *dup, const void *dy, tm__activation act,
                            const void *gate, const void *up, int64_t n) {
    return TM_OK;
}

static tm_status soft_cap(tm_device *dev, void *x, double cap, int64_t n) {
    return TM_OK;
}

static tm_status activation(tm_device *dev, void *y, tm__activation act, const void *x, int64_t n) {
    return TM_OK;
}

static tm_status add(tm_device *dev, void *y, const void *a, const void *b, int64_t n) {
    return TM_OK;
}

static tm_status scaled(tm_device *dev, void *y, double alpha, const void *x, int64_t n) {
    return TM_OK;
}

static tm_status fill(tm_device *dev, void *y, double value, int64_t n) {
    return TM_OK;
}

static tm_status dot(tm_device *dev, double *result, const void *x, const void *y, int64_t n) {
    *result = 0;
    return TM_OK;
}

static tm_status convert(tm_device *dev, void *y, tm_dtype to, const void *x, tm_dtype from, int64_t n) {
    return TM_OK;
}

static tm_status add_bias(tm_device *dev, void *y, const void *bias, tm_dtype type, int64_t n, int64_t d) {
    return TM_OK;
}

static tm_status bias_grad(tm_device *dev, void *dbias, const void *dy, int64_t n, int64_t d) {
    return TM_OK;
}

static tm_status dropout(tm_device *dev, void *y, bool accumulate, const void *x, int64_t n, double p, uint64_t seed,
                         uint64_t stream) {
    return TM_OK;
}

static tm_status move_rows(tm_device *dev, void *y, const void *x, const int32_t *rows, int64_t m, int64_t d) {
    return TM_OK;
}

static tm_status largest(tm_device *dev, int32_t *index, const void *x, int64_t n, int64_t d) {
    memset(index, 0, (size_t)n * sizeof *index);
    return TM_OK;
}

static tm_status cross_entropy(tm_device *dev, void *loss, void *lse, const void *logits, const int32_t *targets,
                               int64_t n, int64_t vocab) {
    return TM_OK;
}

static tm_status cross_entropy_grad(tm_device *dev, void *logits, const void *lse, const int32_t *targets,
                                    const void *weight, int64_t n, int64_t vocab, double cap) {
    return TM_OK;
}

static tm_status adamw(tm_device *dev, void *w, void *m, void *v, const void *g, int64_t n, const tm__adamw *o) {
    of(dev)->stepped = of(dev)->in_use[TM__FOR_GRADIENTS];
    return TM_OK;
}

static tm_status sgd(tm_device *dev, void *w, void *velocity, const void *g, int64_t n, double lr, double momentum,
                     double weight_decay, double grad_scale) {
    of(dev)->stepped = of(dev)->in_use[TM__FOR_GRADIENTS];
    return TM_OK;
}

static const tm__kernels kernels = {
    .gemm = gemm,
    .gemms = gemms,
    .int8_bytes = int8_bytes,
    .int8_pack = int8_pack,
    .embedding = embedding,
    .embedding_grad = embedding_grad,
    .rmsnorm = rmsnorm,
    .rmsnorm_grad = rmsnorm_grad,
    .layernorm = layernorm,
    .layernorm_grad = layernorm_grad,
    .rope = rope,
    .attention = attention,
    .attention_grad = attention_grad,
    .attention_cached = attention_cached,
    .gated = gated,
    .gated_grad = gated_grad,
    .soft_cap = soft_cap,
    .activation = activation,
    .add = add,
    .axpy = scaled,
    .scale = scaled,
    .fill = fill,
    .dot = dot,
    .convert = convert,
    .add_bias = add_bias,
    .bias_grad = bias_grad,
    .dropout = dropout,
    .gather_rows = move_rows,
    .scatter_rows = move_rows,
    .largest = largest,
    .cross_entropy = cross_entropy,
    .cross_entropy_grad = cross_entropy_grad,
    .adamw = adamw,
    .sgd = sgd,
};

/* ---- the device -------------------------------------------------------------------------------------------------- */

static tm_status upload(tm_device *dev, void *to, const void *from, size_t bytes) {
    return TM_OK;
}

static tm_status download(tm_device *dev, void *to, const void *from, size_t bytes) {
    if (bytes) memset(to, 0, bytes);
    return TM_OK;
}

static tm_status sync_nothing(tm_device *dev) {
    return TM_OK;
}

static void close_rehearsal(tm_device *dev) {
    tm__pool_trim(dev);
    free(dev->state);
    free(dev);
}

tm_status tm_device_open_rehearsal(const tm_device_options *options, tm_device **device) {
    tm_device *real;
    TM__TRY(tm_device_open(options, &real));
    tm_device *dev = tm__zalloc(1, sizeof *dev);
    rehearsal *r = tm__zalloc(1, sizeof *r);
    if (!dev || !r) {
        free(dev);
        free(r);
        tm_device_close(real);
        return tm__fail_memory();
    }
    *dev = (tm_device){
        .name = real->name,
        .isa = real->isa,
        .act = real->act,
        .bf16_products = real->bf16_products,
        .threads = real->threads,
        .k = &kernels,
        .alloc = take,
        .release = give,
        .upload = upload,
        .download = download,
        .sync = sync_nothing,
        .close = close_rehearsal,
        .rehearses = true,
        .state = r,
    };
    tm_device_close(real);
    *device = dev;
    return TM_OK;
}

void tm__rehearsal_memory(const tm_device *dev, tm_memory *memory) {
    const rehearsal *r = of(dev);
    memory->gradients = (int64_t)r->peak[TM__FOR_GRADIENTS];
    memory->weights = (int64_t)r->peak[TM__FOR_WEIGHTS];
    memory->moments = (int64_t)r->peak[TM__FOR_MOMENTS];
    memory->vectors = (int64_t)r->peak[TM__FOR_VECTORS];
    memory->logits = (int64_t)r->peak[TM__FOR_LOGITS];
    memory->cache = (int64_t)r->peak[TM__FOR_CACHE];
    memory->activations = (int64_t)r->peak[TM__FOR_ACTIVATIONS];
    memory->overlap = (int64_t)r->held_peak - memory->weights - memory->gradients - memory->moments - memory->vectors -
                      memory->logits - memory->cache - memory->activations;
    memory->kernels = (int64_t)r->kernels;
    memory->tokens = r->tokens;
    memory->again = dev->worked > 0 ? dev->worked_again / dev->worked : 0;
    memory->trained = (int64_t)(r->stepped / tm__dtype_size(dev->act));
}
