/* kernels.inc.h: the reference kernels for activations of type REAL, included once per type.
 *
 * Each is the formula of device.h written down: one thread, one loop per index, every sum in fp64, results rounded to
 * REAL once. Nothing here is fast, except that the matrix product keeps its innermost loop over columns.
 */
#include "device/ref/ref.h"

#include <stdlib.h>

#include "device/ref/int8.inc.h"

#include "device/ref/attention.inc.h"
#include "device/ref/dense.inc.h" /* uses int8.inc.h */
#include "device/ref/layers.inc.h"
#include "device/ref/vector.inc.h"

const tm__kernels REF_TABLE = {
    .gemm = gemm,
    .gemms = gemms,
    .int8_bytes = int8_bytes,
    .int8_pack = int8_pack,
    .embedding = embedding,
    .embedding_grad = embedding_grad,
    .rmsnorm = rmsnorm,
    .rmsnorm_grad = rmsnorm_grad,
    .rope = rope,
    .attention = attention,
    .attention_grad = attention_grad,
    .attention_cached = attention_cached,
    .layernorm = layernorm,
    .layernorm_grad = layernorm_grad,
    .gated = gated,
    .gated_grad = gated_grad,
    .soft_cap = soft_cap,
    .activation = activation,
    .add = add,
    .axpy = axpy,
    .scale = scale,
    .fill = fill,
    .dot = dot,
    .convert = convert,
    .add_bias = add_bias,
    .bias_grad = bias_grad,
    .dropout = dropout,
    .gather_rows = gather_rows,
    .scatter_rows = scatter_rows,
    .largest = largest,
    .cross_entropy = cross_entropy,
    .cross_entropy_grad = cross_entropy_grad,
    .adamw = adamw,
    .sgd = sgd,
};
