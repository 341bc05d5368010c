/* device.h: the table of kernels that every device fills.
 *
 * `ref` (plain C, fp32 or fp64) is the oracle; `cpu` (oneDNN products, OpenMP, instruction set chosen at run time) is
 * compared with it kernel by kernel (tests/unit/test_kernels_cpu.c). A NULL entry means "not supported": the op that
 * needs it fails when recorded, it never falls back to another device.
 *
 * Types: `act` is the device's type of activations, gradients and optimiser state: fp32, or fp64 on ref. A `void *`
 * below is of that type unless a tm_dtype stands beside it. Weights may be stored as act, fp32, bf16 or fp16.
 * Shapes are row-major and contiguous unless a leading dimension is given.
 *
 * `accumulate`: add to the output instead of overwriting it.
 *
 * Determinism: every kernel gives the same bytes for every thread count. Reductions split into chunks of a fixed size,
 * independent of the number of threads, and add the partial sums in order.
 */
#ifndef TM_DEVICE_H
#define TM_DEVICE_H

#include "base/base.h"
#include "tensor/tensor.h"

/* C (m,n) = [C +] alpha * op(A) (m,k) * op(B) (k,n);  op transposes when trans_* is set, so that A is stored (k,m)
 * then. C is of type act. a_type and b_type: act, fp32, bf16 or fp16 (16-bit ones are converted by tile where the
 * processor does not multiply them natively). */
typedef struct tm__gemm {
    bool trans_a, trans_b;
    int64_t m, n, k;
    const void *a;
    tm_dtype a_type;
    int64_t lda;
    const void *b;
    tm_dtype b_type;
    int64_t ldb;
    void *c;
    int64_t ldc;
    double alpha;
    bool accumulate;
    bool exact;         /* fp32 operands are never rounded to bf16, whatever the device's precision (adapters) */
    bool row_invariant; /* row i of C depends bitwise on row i of A and on B alone, not on m (generation) */
    /* B (n,k, that is trans_b) as the same device's int8_pack has made it: then b itself is not read. A is of type act
     * and not transposed; the product is row-invariant. NULL: none. */
    const void *b_int8;
} tm__gemm;

/* Products with weights of 8 bits. Rows of both operands are cut into groups of so many k (the last may be shorter); in
 * each group  scale = max|x| / 127,  q = round(x * (127 / max|x|)), ties to even, in fp32, and
 *   C[i,j] = alpha * sum over groups of scale_A[i,g] scale_B[j,g] * (sum over the group of q_A[i,k] q_B[j,k])
 * where the inner sum is exact. A value errs by at most max|x| / 254 of its own group. */
enum { TM__INT8_GROUP = 64 };

/* Terms that a score gets beside scale * q_i . k_j, by how far token j stands from token i (DeBERTa's disentangled
 * attention): scale * (content[h, i, b] + position[h, j, b]),  b = bucket[i - j + longest - 1]. Act type. */
typedef struct tm__relative {
    int64_t longest, buckets;       /* no segment is longer */
    const int32_t *bucket;          /* (2 longest - 1), each below `buckets` */
    const void *content, *position; /* (heads, tokens, buckets); either may be NULL */
} tm__relative;

/* Self-attention over documents laid end to end or padded. Token i of a segment sees tokens start..i of that segment,
 * at most `window` of them (0: all). Tokens outside every segment (padding) get zero output and zero gradient. */
typedef struct tm__attention {
    int64_t tokens, heads, kv_heads, head_dim;
    int64_t segments;
    const int64_t *start, *length; /* (segments) */
    int64_t window;
    double scale;    /* 1/sqrt(head_dim) as a rule */
    double soft_cap; /* 0: none; else cap * tanh(score / cap) */
    /* Encoders; without a gradient, window or soft cap: */
    bool whole;                   /* every token sees the whole of its segment */
    const tm__relative *relative; /* with `whole`; NULL: none */
} tm__attention;

/* Attention of new tokens over a key-value cache. Token i belongs to slot[i] and stands at position[i] of its sequence;
 * its keys and values were already written. What all sequences begin with is held once: prefix_k, prefix_v (prefix,
 * kv_heads, head_dim); cache_k, cache_v (slots, capacity, kv_heads, head_dim) hold positions `prefix` and on. The
 * result for a token depends on its sequence alone, and on no byte does it matter how much of it is prefix. */
typedef struct tm__attention_cached {
    int64_t tokens, heads, kv_heads, head_dim, capacity;
    bool bf16;      /* the cache and the prefix are of this type instead of act */
    int64_t prefix; /* 0: none */
    const void *prefix_k, *prefix_v;
    const int32_t *slot, *position; /* (tokens) */
    int64_t window;
    double scale, soft_cap;
} tm__attention_cached;

/* Activations: SILU x sigmoid(x); GELU x Phi(x), exact or by its tanh formula (Hendrycks & Gimpel 2016). */
typedef enum tm__activation { TM__SILU, TM__GELU_TANH, TM__GELU, TM__RELU, TM__TANH } tm__activation;

typedef struct tm__adamw {
    double lr, beta1, beta2, epsilon, weight_decay; /* decoupled decay: w -= lr * weight_decay * w */
    double correction1, correction2;                /* 1 - beta^t */
    double grad_scale;                              /* gradients are multiplied by this first (clipping) */
} tm__adamw;

typedef struct tm__kernels {
    tm_status (*gemm)(tm_device *dev, const tm__gemm *g);
    /* Each as gemm does it; none reads what another one writes. */
    tm_status (*gemms)(tm_device *dev, const tm__gemm *list, int64_t count);
    /* A weight (n,k), element (j,p) at j * ld + p, as groups of integers with their scales, in a form of the device's
     * own: `packed` has int8_bytes(n, k). Both NULL: the device has no such products. */
    size_t (*int8_bytes)(int64_t n, int64_t k);
    tm_status (*int8_pack)(tm_device *dev, void *packed, const void *w, tm_dtype type, int64_t n, int64_t k,
                           int64_t ld);

    /* y (n,d) = table[ids];  dtable[ids] += dy, in token order. */
    tm_status (*embedding)(tm_device *dev, void *y, const void *table, tm_dtype table_type, const int32_t *ids,
                           int64_t n, int64_t d);
    tm_status (*embedding_grad)(tm_device *dev, void *dtable, const void *dy, const int32_t *ids, int64_t n, int64_t d);

    /* y = x * rstd * (shift + w), rstd (n) = 1/sqrt(mean(x^2) + eps).  dw (d, act) is always added to; NULL: not
     * wanted. dx may be NULL. */
    tm_status (*rmsnorm)(tm_device *dev, void *y, void *rstd, const void *x, const void *w, tm_dtype w_type,
                         double shift, int64_t n, int64_t d, double eps);
    tm_status (*rmsnorm_grad)(tm_device *dev, void *dx, bool accumulate, void *dw, const void *dy, const void *x,
                              const void *w, tm_dtype w_type, double shift, const void *rstd, int64_t n, int64_t d);
    /* y = (x - mean) * rstd * w + b, mean (n), rstd (n) = 1/sqrt(mean((x - mean)^2) + eps).  dw, db and dx as above. */
    tm_status (*layernorm)(tm_device *dev, void *y, void *mean, void *rstd, const void *x, const void *w,
                           tm_dtype w_type, const void *b, tm_dtype b_type, int64_t n, int64_t d, double eps);
    tm_status (*layernorm_grad)(tm_device *dev, void *dx, bool accumulate, void *dw, void *db, const void *dy,
                                const void *x, const void *w, tm_dtype w_type, const void *mean, const void *rstd,
                                int64_t n, int64_t d);

    /* Rotates halves: pairs (i, i + rotary/2) of each head, as Hugging Face stores them; dims past `rotary` are copied.
     * x, y (n, heads, head_dim), y may be x; cos, sin (positions, rotary/2) of type act; sign -1 gives the gradient. */
    tm_status (*rope)(tm_device *dev, void *y, bool accumulate, const void *x, const void *cos, const void *sin,
                      const int32_t *position, int64_t n, int64_t heads, int64_t head_dim, int64_t rotary, int sign);

    /* q, out (tokens, heads, head_dim); k, v (tokens, kv_heads, head_dim); lse (tokens, heads). Gradients overwrite. */
    tm_status (*attention)(tm_device *dev, void *out, void *lse, const void *q, const void *k, const void *v,
                           const tm__attention *a);
    tm_status (*attention_grad)(tm_device *dev, void *dq, void *dk, void *dv, const void *dout, const void *out,
                                const void *lse, const void *q, const void *k, const void *v, const tm__attention *a);
    tm_status (*attention_cached)(tm_device *dev, void *out, const void *q, const void *cache_k, const void *cache_v,
                                  const tm__attention_cached *a);

    /* y = act(gate) * up, n elements; up NULL: y = act(gate). Gradients overwrite; either may be NULL. */
    tm_status (*gated)(tm_device *dev, void *y, tm__activation act, const void *gate, const void *up, int64_t n);
    tm_status (*gated_grad)(tm_device *dev, void *dgate, void *dup, const void *dy, tm__activation act,
                            const void *gate, const void *up, int64_t n);
    /* In place: x <- cap * tanh(x / cap). */
    tm_status (*soft_cap)(tm_device *dev, void *x, double cap, int64_t n);

    /* y = act(x), n elements; y may be x. Has no gradient. */
    tm_status (*activation)(tm_device *dev, void *y, tm__activation act, const void *x, int64_t n);

    /* Vector work on n elements of type act. */
    tm_status (*add)(tm_device *dev, void *y, const void *a, const void *b, int64_t n);  /* y = a + b */
    tm_status (*axpy)(tm_device *dev, void *y, double alpha, const void *x, int64_t n);  /* y += alpha x */
    tm_status (*scale)(tm_device *dev, void *y, double alpha, const void *x, int64_t n); /* y = alpha x */
    tm_status (*fill)(tm_device *dev, void *y, double value, int64_t n);
    tm_status (*dot)(tm_device *dev, double *result, const void *x, const void *y, int64_t n); /* fp64 sums */
    tm_status (*convert)(tm_device *dev, void *y, tm_dtype to, const void *x, tm_dtype from, int64_t n);
    /* y (n,d) += bias (d);  dbias (d) += column sums of dy (n,d) */
    tm_status (*add_bias)(tm_device *dev, void *y, const void *bias, tm_dtype bias_type, int64_t n, int64_t d);
    tm_status (*bias_grad)(tm_device *dev, void *dbias, const void *dy, int64_t n, int64_t d);
    /* Inverted dropout: y = x * mask / (1 - p). Element i is dropped when the i-th tm__rng_u32 of the stream (seed,
     * stream), word i % 4 of Philox block i / 4, is below p * 2^32. The same call serves both directions. */
    tm_status (*dropout)(tm_device *dev, void *y, bool accumulate, const void *x, int64_t n, double p, uint64_t seed,
                         uint64_t stream);
    /* y (m,d) = x[rows];  x[rows] += y (rows distinct) */
    tm_status (*gather_rows)(tm_device *dev, void *y, const void *x, const int32_t *rows, int64_t m, int64_t d);
    tm_status (*scatter_rows)(tm_device *dev, void *x, const void *y, const int32_t *rows, int64_t m, int64_t d);

    /* index[i], on the host: of the largest number in row i of x (n,d), of equals the first; -1 where one of the row is
     * not finite. */
    tm_status (*largest)(tm_device *dev, int32_t *index, const void *x, int64_t n, int64_t d);

    /* loss (n) = lse - logits[target], lse (n) = log sum exp of a row of logits (n, vocab). */
    tm_status (*cross_entropy)(tm_device *dev, void *loss, void *lse, const void *logits, const int32_t *targets,
                               int64_t n, int64_t vocab);
    /* In place: logits <- (softmax - onehot(target)) * weight[i], and, where the logits z went through a soft cap,
     * times 1 - (z / cap)^2. weight (n) of type act; cap 0: none. */
    tm_status (*cross_entropy_grad)(tm_device *dev, void *logits, const void *lse, const int32_t *targets,
                                    const void *weight, int64_t n, int64_t vocab, double cap);

    /* One optimiser step on n elements. w, m, v and g of type act. */
    tm_status (*adamw)(tm_device *dev, void *w, void *m, void *v, const void *g, int64_t n, const tm__adamw *o);
    /* As PyTorch's SGD: g' = grad_scale g + weight_decay w;  v = momentum v + g';  w -= lr v. velocity (n) starts at
     * zero; NULL when momentum is 0. */
    tm_status (*sgd)(tm_device *dev, void *w, void *velocity, const void *g, int64_t n, double lr, double momentum,
                     double weight_decay, double grad_scale);
} tm__kernels;

/* Buffers are cut from a few large maps and reused: alloc and release in a training step cost nothing after the first
 * step. (pool.c) */
enum { TM__POOL_CLASSES = 448 };
typedef struct tm__pool_map {
    struct tm__pool_map *next;
    size_t bytes;
} tm__pool_map; /* blocks follow */
typedef struct tm__pool {
    struct tm__pooled *free[TM__POOL_CLASSES];
    tm__pool_map *maps;
    size_t mapped;              /* address space */
    size_t listed;              /* free blocks */
    size_t held;                /* memory, with what free blocks hold; all with descriptions */
    size_t needed, needed_peak; /* handed out */
} tm__pool;

/* Somebody who holds buffers that can be done without. Frees one of them; false: has none. */
typedef struct tm__reclaimer {
    bool (*reclaim)(struct tm__reclaimer *self);
    struct tm__reclaimer *next;
} tm__reclaimer;

/* What stands in front of every buffer, aligned to 64 bytes. */
typedef struct tm__pooled {
    _Alignas(64) struct tm__pooled *before; /* the block that ends here; NULL: the map's first */
    struct tm__pooled *next, *prev;         /* of its list, while it is free */
    size_t size;                            /* to the end of the block, with this */
    size_t dirty;       /* bytes, with this, behind which all is zero and untouched; as of when it was free */
    size_t bytes;       /* that were asked for */
    bool is_free, last; /* the map's last block */
    short purpose;      /* of a buffer: tm__purpose, for a rehearsal */
} tm__pooled;

static inline tm__pooled *tm__pooled_of(const void *buffer) {
    return (tm__pooled *)((char *)buffer - sizeof(tm__pooled));
}

/* What a buffer is for; said by those who take what stays, for a rehearsal to tell. */
enum tm__purpose {
    TM__FOR_ACTIVATIONS, /* or anything that comes and goes */
    TM__FOR_WEIGHTS,
    TM__FOR_GRADIENTS,
    TM__FOR_MOMENTS,
    TM__FOR_VECTORS, /* as long as what is trained */
    TM__FOR_LOGITS,
    TM__FOR_CACHE,
    TM__PURPOSES
};

struct tm_device {
    const char *name, *isa;
    tm_dtype act;       /* TM_F32 or TM_F64 */
    bool bf16_products; /* round operands of products to bf16 unless gemm.exact */
    bool int8_weights;  /* row-invariant products take weights as int8_pack makes them; nothing is trained */
    int threads;
    const tm__kernels *k;
    tm_status (*alloc)(tm_device *dev, size_t bytes, void **buffer); /* 64-byte aligned, contents undefined */
    void (*release)(tm_device *dev, void *buffer, size_t bytes);     /* the same bytes as in alloc */
    tm_status (*upload)(tm_device *dev, void *to, const void *from_host, size_t bytes);
    tm_status (*download)(tm_device *dev, void *to_host, const void *from, size_t bytes);
    tm_status (*sync)(tm_device *dev);
    void (*close)(tm_device *dev);
    size_t bytes_in_use, bytes_peak; /* handed out by alloc */
    tm__pool pool;                   /* starts zeroed; pool.c only */
    size_t limit;                    /* of what the pool holds, as far as reclaimers can help; 0: none */
    tm__reclaimer *reclaimers;
    double worked, worked_again; /* multiply-adds: in all (a rehearsal counts them); to make values again */
    void *state;                 /* the device's own */
    int purpose;                 /* tm__purpose of the next buffers */
    bool rehearses;              /* computes nothing, counts memory (rehearsal.c): weights are not read */
};

/* alloc for a purpose. */
static inline tm_status tm__alloc_for(tm_device *dev, int purpose, size_t bytes, void **buffer) {
    int before = dev->purpose;
    dev->purpose = purpose;
    tm_status status = dev->alloc(dev, bytes, buffer);
    dev->purpose = before;
    return status;
}

/* The same, elements of act type that are 0. Pages that the system has just handed out are so already: they are not
 * touched before they are used, which is when they begin to take memory and time. (pool.c) */
tm_status tm__alloc_zeroed(tm_device *dev, int purpose, size_t bytes, void **buffer);

/* What device/rehearsal.c knows: all of *memory but the mapping and the program. */
void tm__rehearsal_memory(const tm_device *dev, tm_memory *memory);

/* device/pool.c: the pool in host memory that ref and cpu share. A device's close calls trim. */
tm_status tm__pool_alloc(tm_device *dev, size_t bytes, void **buffer);
void tm__pool_release(tm_device *dev, void *buffer, size_t bytes); /* buffer NULL: nothing */
void tm__pool_trim(tm_device *dev);                                /* gives unused buffers back to the system */
size_t tm__pool_resident(const tm_device *dev); /* memory that its maps take, as the system counts it */

/* Each device folder offers one constructor; device/device.c lists them. */
tm_status tm__ref_open(const tm_device_options *options, tm_device **device);
tm_status tm__cpu_open(const tm_device_options *options, tm_device **device);

/* For an op whose kernel is missing: TM_UNSUPPORTED naming device and kernel. */
tm_status tm__device_lacks(const tm_device *dev, const char *kernel);

#endif
