/* tensor.h: element types, shapes, views, and conversion between floating-point formats.
 *
 * A tensor is a view: contiguous, row-major, at most four dimensions; it does not own its data.
 */
#ifndef TM_TENSOR_H
#define TM_TENSOR_H

#include "base/base.h"

typedef enum tm_dtype { TM_F64, TM_F32, TM_BF16, TM_F16, TM_I32, TM_U8, TM_I64 } tm_dtype;

enum { TM__MAX_DIMS = 4 };

typedef struct tm_tensor {
    tm_dtype dtype;
    int ndim; /* 0: a scalar */
    int64_t shape[TM__MAX_DIMS];
    void *data;
} tm_tensor;

size_t tm__dtype_size(tm_dtype dtype);                              /* bytes of an element */
const char *tm__dtype_name(tm_dtype dtype);                         /* "fp32", "bf16", "int32" */
const char *tm__dtype_safetensors(tm_dtype dtype);                  /* "F32", "BF16", "I32" */
bool tm__dtype_from_safetensors(const char *name, tm_dtype *dtype); /* false: unknown */
bool tm__dtype_is_float(tm_dtype dtype);

/* false: a negative size, or a product that int64_t cannot hold. A shape with a 0 in it has no elements. */
bool tm__shape_count(const int64_t *shape, int ndim, int64_t *count);
int64_t tm__tensor_count(const tm_tensor *tensor); /* elements; the shape must be valid */
size_t tm__tensor_bytes(const tm_tensor *tensor);
bool tm__tensor_same_shape(const tm_tensor *a, const tm_tensor *b);
void tm__tensor_shape_text(const tm_tensor *tensor, char *out, size_t size); /* "(3, 4)" */

/* Rounding is to nearest, ties to even. NaN stays NaN, made quiet, its sign and leading payload bits kept. Overflow
 * gives infinity. Widening is exact. */
uint16_t tm__bf16_from_f32(float value);
uint16_t tm__bf16_from_f64(double value); /* rounds once, not by way of fp32 */
float tm__bf16_to_f32(uint16_t bits);
uint16_t tm__f16_from_f32(float value);
uint16_t tm__f16_from_f64(double value);
float tm__f16_to_f32(uint16_t bits);

/* n elements between F64, F32, BF16 and F16. Buffers are aligned for their types and do not overlap, unless dst == src
 * and the types are equal. */
void tm__convert(void *dst, tm_dtype to, const void *src, tm_dtype from, size_t n);

/* TM_NUMERIC if an element is NaN or infinite; the error names `file`, `name` and the index. Integers always pass. */
tm_status tm__tensor_check_finite(const tm_tensor *tensor, const char *file, const char *name);

#endif
