/* optimiser.c: AdamW and SGD over a parameter set, with clipping by the global gradient norm.
 *
 *   AdamW (Loshchilov and Hutter, arXiv 1711.05101): m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2,
 *     w -= lr * decay * w, then w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 *   SGD as in PyTorch: g += decay * w, v = momentum v + g, w -= lr v
 *   clipping as torch.nn.utils.clip_grad_norm_: g *= c / (||g|| + 1e-6) where that is below 1
 *
 * Weight decay acts on matrices only: Hugging Face's Trainer, whose defaults the papers inherit, spares norms and
 * biases too.
 */
#include "train/train.h"

enum { ADAMW, SGD };

tm_status tm__optimiser_create(const tm__paramset *set, const tm_train_options *options, tm__optimiser *optimiser) {
    tm__optimiser made = {.kind = options->optimiser};
    tm_status status = TM_OK;
    if (made.kind == ADAMW || options->momentum > 0) status = tm__vector_create_for(set, TM__FOR_MOMENTS, &made.m);
    if (status == TM_OK && made.kind == ADAMW) status = tm__vector_create_for(set, TM__FOR_MOMENTS, &made.v);
    if (status == TM_OK)
        *optimiser = made;
    else
        tm__optimiser_release(set, &made);
    return status;
}

void tm__optimiser_release(const tm__paramset *set, tm__optimiser *optimiser) {
    tm__vector_release(set, &optimiser->m);
    tm__vector_release(set, &optimiser->v);
    *optimiser = (tm__optimiser){0};
}

static tm_status step_param(const tm__paramset *set, const tm__optimiser *optimiser, size_t i,
                            const tm_train_options *options, double lr, double grad_scale) {
    tm_device *dev = set->dev;
    tm__param *param = set->items[i];
    const void *grad = param->grad;
    int64_t n = tm__tensor_count(&param->value);
    double decay = param->value.ndim >= 2 ? options->weight_decay : 0;
    if (optimiser->kind == SGD)
        return dev->k->sgd(dev, param->value.data, optimiser->m.data ? optimiser->m.data[i] : NULL, grad, n, lr,
                           options->momentum, decay, grad_scale);
    const tm__adamw adamw = {
        .lr = lr,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .epsilon = options->epsilon,
        .weight_decay = decay,
        .correction1 = 1 - pow(options->beta1, (double)optimiser->step),
        .correction2 = 1 - pow(options->beta2, (double)optimiser->step),
        .grad_scale = grad_scale,
    };
    return dev->k->adamw(dev, param->value.data, optimiser->m.data[i], optimiser->v.data[i], grad, n, &adamw);
}

tm_status tm__optimiser_step(const tm__paramset *set, tm__optimiser *optimiser, const tm_train_options *options,
                             double lr, double *grad_norm) {
    double norm, scale = 1;
    TM__TRY(tm__grads_norm(set, &norm));
    if (!isfinite(norm)) {
        char field[48];
        snprintf(field, sizeof field, "step %lld", (long long)optimiser->step + 1);
        return tm__fail(TM_NUMERIC, NULL, field, "lower the learning rate; no weight was changed in this step",
                        "the gradient is not finite");
    }
    if (options->clip > 0) scale = fmin(1, options->clip / (norm + 1e-6));
    for (size_t i = 0; i < set->count; i++) {
        void *grad; /* all or none: no step is half done for want of memory */
        if (!set->still || !set->still[i]) TM__TRY(tm__param_grad(set->dev, set->items[i], &grad));
    }
    optimiser->step++;
    for (size_t i = 0; i < set->count; i++)
        if (!set->still || !set->still[i]) TM__TRY(step_param(set, optimiser, i, options, lr, scale));
    if (grad_norm) *grad_norm = norm;
    return TM_OK;
}
