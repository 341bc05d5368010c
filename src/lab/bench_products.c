/* bench_products.c: products of the sizes of a model's linear layers, alone (bench_gemm.c) or beside other work, as
 * training (src/op/linear.c, head_loss.c) and generation ask the device for them.
 *
 *   forward  Y (rows,out) = X W^T;   gradient of x  dX (rows,in) = dY W;   gradient of W  dW (out,in) += dY^T X
 *
 * The output layer goes through as many rows at a time as training gives it (TM__HEAD_CHUNK_BYTES). A product's time is
 * that of the call alone: operands are in memory, 8-bit weights packed. (tests/unit/test_bench_gemm.c)
 */
#include "lab/bench.h"

#include "op/op.h"

#include <stdlib.h>

/* ---- layers ------------------------------------------------------------------------------------------------------ */

void tm__products_layers(tm__products *p, const tm_model_info *m, int64_t rows, int64_t head_rows) {
    int64_t d = m->hidden_size, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim, f = m->intermediate_size;
    int64_t chunk = (int64_t)(TM__HEAD_CHUNK_BYTES / tm__dtype_size(p->device->act)) / m->vocab_size;
    double blocks = (double)m->layers;
    chunk = TM__MAX(TM__MIN(chunk, head_rows), (int64_t)1);
    const tm_bench_layer layers[] = {
        {"q_proj", d, q, rows, blocks},    {"k_proj", d, kv, rows, blocks},
        {"v_proj", d, kv, rows, blocks},   {"o_proj", q, d, rows, blocks},
        {"gate_proj", d, f, rows, blocks}, {"up_proj", d, f, rows, blocks},
        {"down_proj", f, d, rows, blocks}, {"lm_head", d, m->vocab_size, chunk, (double)head_rows / (double)chunk},
    };
    p->count = TM__COUNT(layers);
    memcpy(p->layers, layers, sizeof layers);
}

double tm__products_operations(const tm_bench_layer *layer) {
    return 2 * (double)layer->rows * (double)layer->in * (double)layer->out;
}

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

/* Numbers from -1 to 1 of little precision; a product takes as long whatever they are, but for denormal ones. */
static tm_status fill(tm_device *dev, void *to, tm_dtype type, size_t bytes) {
    enum { CHUNK = 1 << 14 };
    float *numbers = tm__alloc(CHUNK, sizeof *numbers);
    void *chunk = tm__alloc(CHUNK, sizeof(double));
    size_t size = tm__dtype_size(type), count = bytes / size;
    uint32_t state = 1;
    tm_status status = numbers && chunk ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < CHUNK; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = (float)((int32_t)(state >> 16) - 32768) / 32768;
    }
    if (status == TM_OK) tm__convert(chunk, type, numbers, TM_F32, CHUNK);
    for (size_t at = 0; status == TM_OK && at < count; at += CHUNK)
        status = dev->upload(dev, (char *)to + at * size, chunk, TM__MIN((size_t)CHUNK, count - at) * size);
    free(numbers);
    free(chunk);
    return status;
}

static tm_status take(tm__products *p, size_t bytes, tm_dtype type, void **buffer, size_t *held) {
    TM__TRY(p->device->alloc(p->device, bytes, buffer));
    *held = bytes; /* filled, or its first use would be timed with the mapping of its pages */
    return fill(p->device, *buffer, type, bytes);
}

static size_t largest(size_t a, int64_t b, int64_t c, size_t size) {
    return TM__MAX(a, (size_t)b * (size_t)c * size);
}

tm_status tm__products_open(tm__products *p) {
    size_t act = tm__dtype_size(p->device->act), x = 0, y = 0, w = 0, c = 0, packed = 0;
    const tm__kernels *k = p->device->k;
    bool int8 = p->device->int8_weights;
    if (int8 && !k->int8_pack) return tm__device_lacks(p->device, "int8_pack");
    for (size_t i = 0; i < p->count; i++) {
        const tm_bench_layer *l = &p->layers[i];
        x = largest(x, l->rows, l->in, act);
        y = largest(y, l->rows, l->out, act);
        w = largest(w, l->in, l->out, tm__dtype_size(p->weights));
        if (p->passes > TM__PASS_W) c = largest(c, l->in, l->out, act);
        if (int8) packed = TM__MAX(packed, k->int8_bytes(l->out, l->in));
    }
    c = TM__MAX(c, TM__MAX(x, y));
    tm_status status = take(p, x, p->device->act, &p->x, &p->x_bytes);
    if (status == TM_OK) status = take(p, y, p->device->act, &p->y, &p->y_bytes);
    if (status == TM_OK) status = take(p, w, p->weights, &p->w, &p->w_bytes);
    if (status == TM_OK) status = take(p, c, p->device->act, &p->c, &p->c_bytes);
    if (status == TM_OK && int8) {
        status = p->device->alloc(p->device, packed, &p->packed);
        if (status == TM_OK) p->packed_bytes = packed;
    }
    if (status != TM_OK) tm__products_close(p);
    return status;
}

void tm__products_close(tm__products *p) {
    tm_device *dev = p->device;
    void **buffers[] = {&p->x, &p->y, &p->w, &p->c, &p->packed};
    const size_t bytes[] = {p->x_bytes, p->y_bytes, p->w_bytes, p->c_bytes, p->packed_bytes};
    for (size_t i = 0; i < TM__COUNT(buffers); i++) {
        dev->release(dev, *buffers[i], bytes[i]);
        *buffers[i] = NULL;
    }
}

/* ---- one product ------------------------------------------------------------------------------------------------- */

static tm__gemm product(const tm__products *p, const tm_bench_layer *l, int pass) {
    tm_dtype act = p->device->act;
    if (pass == TM__PASS_FORWARD)
        return (tm__gemm){.trans_b = true,
                          .m = l->rows,
                          .n = l->out,
                          .k = l->in,
                          .a = p->x,
                          .a_type = act,
                          .lda = l->in,
                          .b = p->w,
                          .b_type = p->weights,
                          .ldb = l->in,
                          .c = p->c,
                          .ldc = l->out,
                          .alpha = 1,
                          .row_invariant = p->row_invariant,
                          .b_int8 = p->packed};
    if (pass == TM__PASS_X)
        return (tm__gemm){.m = l->rows,
                          .n = l->in,
                          .k = l->out,
                          .a = p->y,
                          .a_type = act,
                          .lda = l->out,
                          .b = p->w,
                          .b_type = p->weights,
                          .ldb = l->in,
                          .c = p->c,
                          .ldc = l->in,
                          .alpha = 1};
    return (tm__gemm){.trans_a = true,
                      .m = l->out,
                      .n = l->in,
                      .k = l->rows,
                      .a = p->y,
                      .a_type = act,
                      .lda = l->out,
                      .b = p->x,
                      .b_type = act,
                      .ldb = l->in,
                      .c = p->c,
                      .ldc = l->in,
                      .alpha = 1,
                      .accumulate = true};
}

tm_status tm__products_run(tm__products *p, size_t layer, int pass, double *seconds) {
    const tm_bench_layer *l = &p->layers[layer];
    tm_device *dev = p->device;
    if (p->packed) TM__TRY(dev->k->int8_pack(dev, p->packed, p->w, p->weights, l->out, l->in, l->in));
    const tm__gemm g = product(p, l, pass);
    double began = tm__now();
    TM__TRY(dev->k->gemm(dev, &g));
    TM__TRY(dev->sync(dev));
    *seconds = tm__now() - began;
    return TM_OK;
}

/* ---- beside other work ------------------------------------------------------------------------------------------- */

static double operations(const tm__products *p) {
    double sum = 0;
    for (size_t i = 0; i < p->count; i++) sum += p->layers[i].times * tm__products_operations(&p->layers[i]);
    return sum * p->passes;
}

tm_status tm__bench_products(tm__products *p, tm_bench_frame *frame) {
    double sum = 0, seconds = 0;
    TM__TRY(tm__products_open(p));
    tm_status status = TM_OK;
    for (size_t i = 0; i < p->count; i++)
        for (int pass = 0; pass < p->passes && status == TM_OK; pass++) {
            status = tm__products_run(p, i, pass, &seconds);
            sum += p->layers[i].times * seconds;
        }
    tm__products_close(p);
    tm__pool_trim(p->device);
    if (status == TM_OK) frame->products.seconds[frame->products.count++] = sum;
    return status;
}

void tm__bench_frame_finish(const tm__products *p, tm_bench_frame *frame, double *room) {
    tm__bench_summarise(&frame->products, room);
    frame->product_flops = operations(p) / frame->products.median;
}

void tm__bench_frame_release(tm_bench_frame *frame) {
    free(frame->products.seconds);
    *frame = (tm_bench_frame){0};
}
