/* tensor.c: element types, shapes, the finiteness check. */
#include "tensor/tensor.h"

static const struct {
    const char *name, *safetensors;
    uint8_t size;
    bool is_float;
} dtypes[] = {
    [TM_F64] = {"fp64", "F64", 8, true},   [TM_F32] = {"fp32", "F32", 4, true},   [TM_BF16] = {"bf16", "BF16", 2, true},
    [TM_F16] = {"fp16", "F16", 2, true},   [TM_I32] = {"int32", "I32", 4, false}, [TM_U8] = {"uint8", "U8", 1, false},
    [TM_I64] = {"int64", "I64", 8, false},
};

size_t tm__dtype_size(tm_dtype dtype) {
    return dtypes[dtype].size;
}
const char *tm__dtype_name(tm_dtype dtype) {
    return dtypes[dtype].name;
}
const char *tm__dtype_safetensors(tm_dtype dtype) {
    return dtypes[dtype].safetensors;
}
bool tm__dtype_is_float(tm_dtype dtype) {
    return dtypes[dtype].is_float;
}

bool tm__dtype_from_safetensors(const char *name, tm_dtype *dtype) {
    for (size_t i = 0; i < TM__COUNT(dtypes); i++)
        if (strcmp(dtypes[i].safetensors, name) == 0) {
            *dtype = (tm_dtype)i;
            return true;
        }
    return false;
}

bool tm__shape_count(const int64_t *shape, int ndim, int64_t *count) {
    int64_t product = 1;
    bool overflow = false, empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else
            overflow |= __builtin_mul_overflow(product, shape[i], &product);
    }
    *count = empty ? 0 : product;
    return !overflow;
}

int64_t tm__tensor_count(const tm_tensor *tensor) {
    int64_t count = 0;
    bool valid = tm__shape_count(tensor->shape, tensor->ndim, &count);
    assert(valid);
    (void)valid;
    return count;
}

size_t tm__tensor_bytes(const tm_tensor *tensor) {
    return (size_t)tm__tensor_count(tensor) * tm__dtype_size(tensor->dtype);
}

bool tm__tensor_same_shape(const tm_tensor *a, const tm_tensor *b) {
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

void tm__tensor_shape_text(const tm_tensor *tensor, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < tensor->ndim && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
    if (used < size) snprintf(out + used, size - used, ")");
}

/* ---- finiteness -------------------------------------------------------------------------------------------------- */

/* An IEEE number is finite unless its exponent bits are all ones. Each loop is branchless inside a chunk, so that the
 * compiler can vectorise it; only a chunk with a hit is searched. */
enum { CHUNK = 4096 };

#define DEFINE_FIND(name, type, exponent)                                                              \
    static int64_t name(const type *bits, int64_t n) {                                                 \
        for (int64_t start = 0; start < n; start += CHUNK) {                                           \
            int64_t end = TM__MIN(n, start + CHUNK);                                                   \
            type hit = 0;                                                                              \
            for (int64_t i = start; i < end; i++) hit |= (type)((bits[i] & (exponent)) == (exponent)); \
            if (!hit) continue;                                                                        \
            for (int64_t i = start; i < end; i++)                                                      \
                if ((bits[i] & (exponent)) == (exponent)) return i;                                    \
        }                                                                                              \
        return -1;                                                                                     \
    }

DEFINE_FIND(find_64, uint64_t, UINT64_C(0x7ff0000000000000))
DEFINE_FIND(find_32, uint32_t, UINT32_C(0x7f800000))
DEFINE_FIND(find_bf16, uint16_t, 0x7f80)
DEFINE_FIND(find_f16, uint16_t, 0x7c00)

tm_status tm__tensor_check_finite(const tm_tensor *tensor, const char *file, const char *name) {
    int64_t n = tm__tensor_count(tensor), at = -1;
    switch (tensor->dtype) {
    case TM_F64:
        at = find_64(tensor->data, n);
        break;
    case TM_F32:
        at = find_32(tensor->data, n);
        break;
    case TM_BF16:
        at = find_bf16(tensor->data, n);
        break;
    case TM_F16:
        at = find_f16(tensor->data, n);
        break;
    case TM_I32:
    case TM_U8:
    case TM_I64:
        break;
    }
    if (at < 0) return TM_OK;
    return tm__fail(TM_NUMERIC, file, name, "the checkpoint is damaged, or its training diverged",
                    "element %lld is NaN or infinite", (long long)at);
}
