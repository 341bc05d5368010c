/* test_determinism.c: every kernel of the cpu device gives the same bytes with 1, 2 and 3 threads, under every
 * instruction set.
 *
 * A kernel's result for one thread count is a digest over all of its outputs. The last test shows why products are cut
 * into tiles by us: oneDNN left to itself changes bytes with the number of threads.
 */
#include "cpu_fixture.h"

#include "device/cpu/cpu.h"

#include <dnnl.h>
#include <omp.h>

typedef struct digest {
    char hex[65];
} digest;

static digest digest_of(const void *data, size_t bytes) {
    digest d;
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, data, bytes);
    tm__sha256_hex(&hash, d.hex);
    return d;
}

enum { MOST = 3 };

static void same_for_all(const char *what, const char *isa, const digest d[MOST]) {
    for (int i = 1; i < MOST; i++)
        if (strcmp(d[0].hex, d[i].hex) != 0) fail_msg("%s on %s: %d threads differ from 1", what, isa, i + 1);
}

/* ---- products ---- */

typedef struct product {
    const char *name;
    int64_t m, n, k;
    bool trans_a, trans_b, row_invariant;
    tm_dtype b_type;
} product;

static const product products[] = {
    {"forward 500x384x128", 500, 384, 128, false, true, false, TM_F32},
    {"forward, bf16 weight", 300, 1000, 128, false, true, false, TM_BF16},
    {"dX 500x128x384", 500, 128, 384, false, false, false, TM_F32},
    {"dW 576x576x2048", 576, 576, 2048, true, false, false, TM_F32},
    {"dW 1000x128x700", 1000, 128, 700, true, false, false, TM_F32},
    {"long k", 30, 40, 70001, false, true, false, TM_F32},
    {"LoRA down", 700, 8, 576, false, true, false, TM_F32},
    {"LoRA up", 700, 576, 8, false, true, false, TM_F32},
    {"decode", 5, 1536, 576, false, true, true, TM_BF16},
    {"decode, odd", 33, 1001, 577, false, true, true, TM_F32},
};

static digest product_digest(tm_device *dev, const product *p) {
    size_t a_count = (size_t)(p->m * p->k), b_count = (size_t)(p->n * p->k), c_count = (size_t)(p->m * p->n);
    float *a = random_floats(a_count, 1), *b = random_floats(b_count, 2), *c = random_floats(c_count, 3);
    void *b_typed = as_type(b, p->b_type, b_count);
    tm__gemm g = {.trans_a = p->trans_a,
                  .trans_b = p->trans_b,
                  .m = p->m,
                  .n = p->n,
                  .k = p->k,
                  .a = a,
                  .a_type = TM_F32,
                  .lda = p->trans_a ? p->m : p->k,
                  .b = b_typed,
                  .b_type = p->b_type,
                  .ldb = p->trans_b ? p->k : p->n,
                  .c = c,
                  .ldc = p->n,
                  .alpha = 0.7,
                  .accumulate = true,
                  .row_invariant = p->row_invariant};
    assert_ok(dev->k->gemm(dev, &g));
    digest d = digest_of(c, c_count * 4);
    free(a);
    free(b);
    free(c);
    free(b_typed);
    return d;
}

static void check_products(const char *isa, int precision, bool onednn) {
    for (size_t i = 0; i < TM__COUNT(products); i++) {
        digest d[MOST];
        for (int threads = 1; threads <= MOST; threads++) {
            tm_device *dev = open_cpu(isa, threads, precision);
            if (!dev) return;
            assert_int_equal(tm_device_threads(dev), threads);
            tm__cpu *cpu = dev->state;
            if (onednn && !cpu->amx) assert_ok(tm__amx_open(cpu));
            d[threads - 1] = product_digest(dev, &products[i]);
            tm_device_close(dev);
        }
        same_for_all(products[i].name, isa, d);
    }
}

static void test_products(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(isa_names); i++) {
        check_products(isa_names[i], TM_PRECISION_F32, false);
        check_products(isa_names[i], TM_PRECISION_BF16, false);
    }
}

/* The path that processors with a matrix unit take, on whatever oneDNN has here for bf16. */
static void test_products_through_onednn(void **state) {
    (void)state;
    check_products("avx512", TM_PRECISION_BF16, true);
}

/* ---- other kernels ---- */

enum { N = 700, D = 300, COUNT = N * D };

/* Three inputs, two that are changed, and rows: what a kernel is called with below. */
typedef struct arrays {
    float *x, *y, *z, *out, *more;
    int32_t *rows;
} arrays;

typedef tm_status (*runner)(tm_device *dev, arrays *a);

static tm_status run_add(tm_device *dev, arrays *a) {
    return dev->k->add(dev, a->out, a->x, a->y, COUNT);
}
static tm_status run_axpy(tm_device *dev, arrays *a) {
    return dev->k->axpy(dev, a->out, 0.3, a->x, COUNT);
}
static tm_status run_scale(tm_device *dev, arrays *a) {
    return dev->k->scale(dev, a->out, 0.3, a->x, COUNT);
}
static tm_status run_fill(tm_device *dev, arrays *a) {
    return dev->k->fill(dev, a->out, 0.3, COUNT);
}
static tm_status run_dot(tm_device *dev, arrays *a) {
    double sum;
    tm_status status = dev->k->dot(dev, &sum, a->x, a->y, COUNT);
    memcpy(a->out, &sum, sizeof sum);
    return status;
}
static tm_status run_convert(tm_device *dev, arrays *a) {
    return dev->k->convert(dev, a->out, TM_BF16, a->x, TM_F32, COUNT);
}
static tm_status run_dropout(tm_device *dev, arrays *a) {
    return dev->k->dropout(dev, a->out, true, a->x, COUNT, 0.1, 3, 4);
}
static tm_status run_embedding(tm_device *dev, arrays *a) {
    return dev->k->embedding(dev, a->out, a->x, TM_F32, a->rows, N, D);
}
static tm_status run_embedding_grad(tm_device *dev, arrays *a) {
    for (int i = 0; i < N; i++) a->rows[i] %= 5;
    return dev->k->embedding_grad(dev, a->out, a->x, a->rows, N, D);
}
static tm_status run_gather(tm_device *dev, arrays *a) {
    return dev->k->gather_rows(dev, a->out, a->x, a->rows, N, D);
}
static tm_status run_scatter(tm_device *dev, arrays *a) {
    return dev->k->scatter_rows(dev, a->out, a->x, a->rows, N, D);
}
static tm_status run_rmsnorm(tm_device *dev, arrays *a) {
    return dev->k->rmsnorm(dev, a->out, a->more, a->x, a->y, TM_F32, 0, N, D, 1e-5);
}
static tm_status run_rmsnorm_grad(tm_device *dev, arrays *a) {
    return dev->k->rmsnorm_grad(dev, a->out, true, a->more, a->x, a->y, a->z, TM_F32, 0, a->z + D, N, D);
}
static tm_status run_rope(tm_device *dev, arrays *a) {
    return dev->k->rope(dev, a->out, true, a->x, a->y, a->z, a->rows, N, 5, D / 5, 40, 1);
}
static tm_status run_gated(tm_device *dev, arrays *a) {
    return dev->k->gated(dev, a->out, TM__SILU, a->x, a->y, COUNT);
}
static tm_status run_gated_grad(tm_device *dev, arrays *a) {
    return dev->k->gated_grad(dev, a->out, a->more, a->x, TM__SILU, a->y, a->z, COUNT);
}
static tm_status run_add_bias(tm_device *dev, arrays *a) {
    return dev->k->add_bias(dev, a->out, a->x, TM_F32, N, D);
}
static tm_status run_bias_grad(tm_device *dev, arrays *a) {
    return dev->k->bias_grad(dev, a->out, a->x, N, D);
}
static tm_status run_cross_entropy(tm_device *dev, arrays *a) {
    for (int i = 0; i < N; i++) a->rows[i] %= D;
    return dev->k->cross_entropy(dev, a->out, a->more, a->x, a->rows, N, D);
}
static tm_status run_cross_entropy_grad(tm_device *dev, arrays *a) {
    for (int i = 0; i < N; i++) a->rows[i] %= D;
    return dev->k->cross_entropy_grad(dev, a->out, a->x, a->rows, a->y, N, D, 0);
}
static tm_status run_adamw(tm_device *dev, arrays *a) {
    tm__adamw o = {1e-3, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, 1};
    dev->k->gated(dev, a->z, TM__SILU, a->x, a->x, COUNT); /* a second moment is not negative: x^2 sigmoid(x) */
    return dev->k->adamw(dev, a->out, a->more, a->z, a->x, COUNT, &o);
}
static tm_status run_sgd(tm_device *dev, arrays *a) {
    return dev->k->sgd(dev, a->out, a->more, a->x, COUNT, 0.1, 0.9, 0.01, 1);
}
static const int64_t starts[] = {0, 30, 40}, lengths[] = {30, 7, 650};
static const tm__attention documents = {.tokens = N,
                                        .heads = 6,
                                        .kv_heads = 3,
                                        .head_dim = 50,
                                        .segments = 3,
                                        .start = starts,
                                        .length = lengths,
                                        .scale = 0.14};
static tm_status run_attention(tm_device *dev, arrays *a) {
    return dev->k->attention(dev, a->out, a->more, a->x, a->y, a->z, &documents);
}
static tm_status run_attention_grad(tm_device *dev, arrays *a) {
    /* Any lse well above the scores will do. */
    for (int i = 0; i < N * 6; i++) a->more[i] = 9;
    float *dkv = room((size_t)(2 * N * 150), 4);
    tm_status status =
        dev->k->attention_grad(dev, a->out, dkv, dkv + N * 150, a->x, a->y, a->more, a->z, a->x, a->y, &documents);
    memcpy(a->more, dkv, (size_t)(2 * N * 150) * 4);
    free(dkv);
    return status;
}
static tm_status run_attention_cached(tm_device *dev, arrays *a) {
    int32_t slot[20], position[20];
    for (int i = 0; i < 20; i++) {
        slot[i] = i % 5;
        position[i] = i * 7 % 100;
    }
    tm__attention_cached c = {.tokens = 20,
                              .heads = 6,
                              .kv_heads = 3,
                              .head_dim = 50,
                              .capacity = 100,
                              .slot = slot,
                              .position = position,
                              .scale = 0.14};
    return dev->k->attention_cached(dev, a->out, a->x, a->y, a->z, &c);
}

static tm_status run_largest(tm_device *dev, arrays *a) {
    return dev->k->largest(dev, (int32_t *)a->out, a->x, N, D);
}

static const struct {
    const char *name;
    runner run;
} kernels[] = {{"add", run_add},
               {"axpy", run_axpy},
               {"scale", run_scale},
               {"fill", run_fill},
               {"dot", run_dot},
               {"convert", run_convert},
               {"dropout", run_dropout},
               {"embedding", run_embedding},
               {"embedding_grad", run_embedding_grad},
               {"gather_rows", run_gather},
               {"scatter_rows", run_scatter},
               {"rmsnorm", run_rmsnorm},
               {"rmsnorm_grad", run_rmsnorm_grad},
               {"rope", run_rope},
               {"gated", run_gated},
               {"gated_grad", run_gated_grad},
               {"add_bias", run_add_bias},
               {"bias_grad", run_bias_grad},
               {"largest", run_largest},
               {"cross_entropy", run_cross_entropy},
               {"cross_entropy_grad", run_cross_entropy_grad},
               {"adamw", run_adamw},
               {"sgd", run_sgd},
               {"attention", run_attention},
               {"attention_grad", run_attention_grad},
               {"attention_cached", run_attention_cached}};

static digest kernel_digest(tm_device *dev, runner run) {
    arrays a = {
        random_floats(COUNT, 1), random_floats(COUNT, 2), random_floats(COUNT, 3), random_floats(2 * COUNT, 4), NULL,
        room(N, sizeof(int32_t))};
    a.more = a.out + COUNT;
    for (int i = 0; i < N; i++) a.rows[i] = (int32_t)(i * 11 % N);
    assert_ok(run(dev, &a));
    digest d = digest_of(a.out, (size_t)(2 * COUNT) * 4);
    free(a.x);
    free(a.y);
    free(a.z);
    free(a.out);
    free(a.rows);
    return d;
}

static void test_kernels(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(isa_names); i++)
        for (size_t k = 0; k < TM__COUNT(kernels); k++) {
            digest d[MOST];
            bool present = true;
            for (int threads = 1; present && threads <= MOST; threads++) {
                tm_device *dev = open_cpu(isa_names[i], threads, TM_PRECISION_F32);
                if (dev) d[threads - 1] = kernel_digest(dev, kernels[k].run);
                present = dev != NULL;
                tm_device_close(dev);
            }
            if (present) same_for_all(kernels[k].name, isa_names[i], d);
        }
}

/* The comparison above would notice one bit. */
static void test_one_bit_is_seen(void **state) {
    (void)state;
    uint32_t x[100] = {0};
    digest before = digest_of(x, sizeof x);
    x[57] ^= 1;
    assert_string_not_equal(before.hex, digest_of(x, sizeof x).hex);
}

/* ---- oneDNN by itself ---- */

/* C (m,n) = A^T B, A stored (k,m) and B (k,n), as one oneDNN product over all of `threads` threads. False where oneDNN
 * has no such product for this processor. */
static bool plain_onednn(float *c, const void *a, const void *b, dnnl_data_type_t type, int64_t m, int64_t n, int64_t k,
                         int threads) {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_memory_desc_t a_md, b_md, c_md;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    assert_int_equal(dnnl_engine_create(&engine, dnnl_cpu, 0), dnnl_success);
    assert_int_equal(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), dnnl_success);
    dnnl_memory_desc_init_by_strides(&a_md, 2, (dnnl_dims_t){m, k}, type, (dnnl_dims_t){1, m});
    dnnl_memory_desc_init_by_strides(&b_md, 2, (dnnl_dims_t){k, n}, type, (dnnl_dims_t){n, 1});
    dnnl_memory_desc_init_by_strides(&c_md, 2, (dnnl_dims_t){m, n}, dnnl_f32, (dnnl_dims_t){n, 1});
    assert_int_equal(dnnl_matmul_desc_init(&desc, &a_md, &b_md, NULL, &c_md), dnnl_success);
    dnnl_status_t made = dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL);
    if (made == dnnl_unimplemented) {
        dnnl_stream_destroy(stream);
        dnnl_engine_destroy(engine);
        omp_set_num_threads(before);
        return false;
    }
    assert_int_equal(made, dnnl_success);
    assert_int_equal(dnnl_primitive_create(&primitive, pd), dnnl_success);
    assert_int_equal(dnnl_memory_create(&memory[0], &a_md, engine, (void *)(uintptr_t)a), dnnl_success);
    assert_int_equal(dnnl_memory_create(&memory[1], &b_md, engine, (void *)(uintptr_t)b), dnnl_success);
    assert_int_equal(dnnl_memory_create(&memory[2], &c_md, engine, c), dnnl_success);
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
    assert_int_equal(dnnl_primitive_execute(primitive, stream, 3, args), dnnl_success);
    dnnl_stream_wait(stream);
    for (int i = 0; i < 3; i++) dnnl_memory_destroy(memory[i]);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    omp_set_num_threads(before);
    return true;
}

/* The same through oneDNN's BLAS interface, fp32. */
static void plain_sgemm(float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k, int threads) {
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    assert_int_equal(dnnl_sgemm('T', 'N', m, n, k, 1, a, m, b, n, 0, c, n), dnnl_success);
    omp_set_num_threads(before);
}

/* Share of elements, in percent, whose bytes are not those of one thread; -1 where there is no such product. */
static double share_that_differs(int kind, int64_t m, int64_t n, int64_t k, int threads) {
    int64_t differ = 0;
    bool there = true;
    float *a = random_floats((size_t)(m * k), 1), *b = random_floats((size_t)(n * k), 2);
    float *c[2] = {room((size_t)(m * n), 4), room((size_t)(m * n), 4)};
    tm_dtype type = kind == 2 ? TM_BF16 : TM_F32;
    void *a_typed = as_type(a, type, (size_t)(m * k)), *b_typed = as_type(b, type, (size_t)(n * k));
    for (int i = 0; i < 2 && there; i++) {
        int count = i ? threads : 1;
        if (kind == 0)
            plain_sgemm(c[i], a, b, m, n, k, count);
        else
            there = plain_onednn(c[i], a_typed, b_typed, kind == 2 ? dnnl_bf16 : dnnl_f32, m, n, k, count);
    }
    for (int64_t i = 0; there && i < m * n; i++) differ += memcmp(&c[0][i], &c[1][i], 4) != 0;
    free(a);
    free(b);
    free(a_typed);
    free(b_typed);
    free(c[0]);
    free(c[1]);
    return there ? 100 * (double)differ / (double)(m * n) : -1;
}

/* Whether it differs depends on the processor: it is shown, not required. */
static void test_onednn_by_itself(void **state) {
    (void)state;
    static const char *const kinds[] = {"dnnl_sgemm", "matmul fp32", "matmul bf16"};
    static const int64_t shapes[][3] = {{576, 576, 2048}, {128, 128, 4096}, {8, 576, 4096}};
    double most = 0;
    for (size_t s = 0; s < TM__COUNT(shapes); s++)
        for (int kind = 0; kind < 3; kind++)
            for (int threads = 2; threads <= 4; threads += 2) {
                int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
                double share = share_that_differs(kind, m, n, k, threads);
                most = TM__MAX(most, share);
                if (share < 0) printf("SKIP: oneDNN has no %s for this processor\n", kinds[kind]);
                if (share > 0)
                    printf("oneDNN by itself, %s %lldx%lldx%lld: %.1f%% of elements differ between 1 and %d threads\n",
                           kinds[kind], (long long)m, (long long)n, (long long)k, share, threads);
            }
    if (most <= 0) printf("NOTE: on this machine oneDNN by itself gave the same bytes for 1, 2 and 4 threads\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),         cmocka_unit_test(test_products_through_onednn),
        cmocka_unit_test(test_kernels),          cmocka_unit_test(test_one_bit_is_seen),
        cmocka_unit_test(test_onednn_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
