/* common.c: see common.h. */
#include "op/common.h"

static tm_status take(tm_device *dev, size_t bytes, tm__scratch *scratch) {
    TM__TRY(dev->alloc(dev, bytes, &scratch->data));
    scratch->bytes = bytes;
    return TM_OK;
}

tm_status tm__scratch_alloc(tm_device *dev, int64_t count, tm__scratch *scratch) {
    return take(dev, (size_t)count * tm__dtype_size(dev->act), scratch);
}

tm_status tm__scratch_upload(tm_device *dev, const void *host, size_t bytes, tm__scratch *scratch) {
    TM__TRY(take(dev, bytes, scratch));
    tm_status status = dev->upload(dev, scratch->data, host, bytes);
    if (status != TM_OK) tm__scratch_free(dev, scratch);
    return status;
}

void tm__scratch_free(tm_device *dev, tm__scratch *scratch) {
    if (scratch->data) dev->release(dev, scratch->data, scratch->bytes);
    *scratch = (tm__scratch){0};
}

tm_status tm__grad_open(tm__tape *tape, tm__var *var, bool wanted, tm__grad_slot *slot) {
    *slot = (tm__grad_slot){.var = var};
    if (!wanted) return TM_OK;
    if (var->grad) {
        TM__TRY(tm__scratch_alloc(tape->dev, tm__tensor_count(&var->value), &slot->scratch));
        slot->data = slot->scratch.data;
        return TM_OK;
    }
    bool fresh;
    return tm__tape_grad(tape, var, &slot->data, &fresh);
}

tm_status tm__grad_close(tm__tape *tape, tm__grad_slot *slot) {
    tm_status status = slot->scratch.data ? tm__tape_grad_add(tape, slot->var, slot->scratch.data) : TM_OK;
    tm__grad_discard(tape, slot);
    return status;
}

void tm__grad_discard(tm__tape *tape, tm__grad_slot *slot) {
    tm__scratch_free(tape->dev, &slot->scratch);
}

tm_status tm__scalar_get(tm_device *dev, const void *from, double *value) {
    float narrow = 0;
    if (dev->act == TM_F64) return dev->download(dev, value, from, sizeof *value);
    TM__TRY(dev->download(dev, &narrow, from, sizeof narrow));
    *value = (double)narrow;
    return TM_OK;
}

tm_status tm__scalar_set(tm_device *dev, void *to, double value) {
    float narrow = (float)value;
    return dev->act == TM_F64 ? dev->upload(dev, to, &value, sizeof value)
                              : dev->upload(dev, to, &narrow, sizeof narrow);
}

tm_status tm__param_check(const tm__tape *tape, const tm__param *param, const char *op) {
    if (!param->value.data) return tm__fail(TM_INVALID, NULL, op, NULL, "parameter %s has no value", param->name);
    if (!param->trainable) return TM_OK;
    if (param->value.dtype != tape->dev->act)
        return tm__fail(TM_INVALID, NULL, op, NULL, "trainable parameter %s needs type %s", param->name,
                        tm__dtype_name(tape->dev->act));
    return TM_OK;
}

tm_status tm__param_int8(const tm__tape *tape, tm__param *param, const void **packed) {
    tm_device *dev = tape->dev;
    const tm_tensor *w = &param->value;
    *packed = NULL;
    if (!dev->int8_weights || !tape->row_invariant) return TM_OK;
    TM__NEEDS(tape, int8_pack);
    if (!param->int8) {
        void *made;
        size_t bytes = dev->k->int8_bytes(w->shape[0], w->shape[1]);
        TM__TRY(tm__alloc_for(dev, TM__FOR_WEIGHTS, bytes, &made));
        tm_status status = dev->k->int8_pack(dev, made, w->data, w->dtype, w->shape[0], w->shape[1], w->shape[1]);
        if (status != TM_OK) {
            dev->release(dev, made, bytes);
            return status;
        }
        param->int8 = made;
        param->int8_bytes = bytes;
    }
    *packed = param->int8;
    return TM_OK;
}

tm__factor tm__plain(const tm__tape *tape, const void *data) {
    return (tm__factor){data, tape->dev->act, false};
}

tm__factor tm__transposed(const tm__tape *tape, const void *data) {
    return (tm__factor){data, tape->dev->act, true};
}

tm__factor tm__weight(const tm__param *param) {
    return (tm__factor){param->value.data, param->value.dtype, false};
}

tm__factor tm__weight_transposed(const tm__param *param) {
    return (tm__factor){param->value.data, param->value.dtype, true};
}

tm__gemm tm__product_of(const tm__tape *tape, int64_t m, int64_t n, int64_t k, tm__factor a, tm__factor b, void *c,
                        double alpha, unsigned flags) {
    return (tm__gemm){.trans_a = a.transposed,
                      .trans_b = b.transposed,
                      .m = m,
                      .n = n,
                      .k = k,
                      .a = a.data,
                      .a_type = a.type,
                      .lda = a.transposed ? m : k,
                      .b = b.data,
                      .b_type = b.type,
                      .ldb = b.transposed ? k : n,
                      .c = c,
                      .ldc = n,
                      .alpha = alpha,
                      .accumulate = flags & TM__PRODUCT_ADD,
                      .exact = flags & TM__PRODUCT_EXACT,
                      .row_invariant = (flags & TM__PRODUCT_FORWARD) && tape->row_invariant};
}

tm_status tm__product(tm__tape *tape, int64_t m, int64_t n, int64_t k, tm__factor a, tm__factor b, void *c,
                      double alpha, unsigned flags) {
    TM__NEEDS(tape, gemm);
    const tm__gemm g = tm__product_of(tape, m, n, k, a, b, c, alpha, flags);
    return tape->dev->k->gemm(tape->dev, &g);
}
