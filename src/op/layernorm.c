/* layernorm.c: y = h * w + b with h = (x - mean) r, r = 1/sqrt(mean((x - mean)^2) + eps) per row   (Ba et al. 2016).
 *
 * Forward only: what needs a gradient is refused when recorded.
 */
#include "op/common.h"

tm_status tm__op_layernorm(tm__tape *tape, tm__var *x, tm__param *weight, tm__param *bias, double eps, tm__var **y) {
    tm_device *dev = tape->dev;
    TM__NEEDS(tape, layernorm);
    TM__TRY(tm__param_check(tape, weight, "layernorm"));
    TM__TRY(tm__param_check(tape, bias, "layernorm"));
    const tm_tensor *w = &weight->value, *b = &bias->value;
    int64_t count = tm__tensor_count(&x->value), d = tm__tensor_count(w);
    if (d == 0 || count % d != 0 || tm__tensor_count(b) != d)
        return TM__SHAPE_ERROR("layernorm", "the input does not fit weight %s", weight->name);
    bool needs_grad = x->needs_grad || weight->trainable || bias->trainable;
    if (tape->recording && needs_grad) return TM__SHAPE_ERROR("layernorm", "%s has no gradient", weight->name);
    TM__TRY(tm__tape_output(tape, x->value.ndim, x->value.shape, needs_grad, y));
    tm__scratch mean = {0}, rstd = {0};
    tm_status status = tm__scratch_alloc(dev, count / d, &mean);
    if (status == TM_OK) status = tm__scratch_alloc(dev, count / d, &rstd);
    if (status == TM_OK)
        status = dev->k->layernorm(dev, (*y)->value.data, mean.data, rstd.data, x->value.data, w->data, w->dtype,
                                   b->data, b->dtype, count / d, d, eps);
    tm__scratch_free(dev, &mean);
    tm__scratch_free(dev, &rstd);
    return status;
}
