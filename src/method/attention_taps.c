/* attention_taps.c: one buffer behind the attention of every block (after o_proj, before the residual sum), which a
 * backward pass fills with gradients and a forward pass adds as a perturbation. Vaccine and its relatives use it.
 */
#include "method/method.h"

#include <stdlib.h>

static size_t bytes(const tm__attention_taps *taps) {
    return (size_t)taps->scalars * tm__dtype_size(taps->dev->act);
}

tm_status tm__attention_taps_create(const tm_model *model, int64_t tokens, tm__attention_taps *taps) {
    tm__attention_taps made = {.dev = model->dev, .scalars = tokens * model->config.hidden};
    size_t layers = (size_t)model->config.layers;
    made.taps = tm__zalloc(layers, sizeof *made.taps);
    made.buffers = tm__zalloc(layers, sizeof *made.buffers);
    tm_status status = made.taps && made.buffers ? TM_OK : tm__fail_memory();
    for (size_t l = 0; l < layers && status == TM_OK; l++) {
        made.taps[l] = (tm__tap){.layer = (int)l, .site = TM__TAP_ATTENTION_OUT};
        status = made.dev->alloc(made.dev, bytes(&made), &made.buffers[l]);
        if (status == TM_OK) made.layers = l + 1;
    }
    if (status == TM_OK)
        *taps = made;
    else
        tm__attention_taps_release(&made);
    return status;
}

void tm__attention_taps_release(tm__attention_taps *taps) {
    for (size_t l = 0; l < taps->layers; l++) taps->dev->release(taps->dev, taps->buffers[l], bytes(taps));
    free(taps->buffers);
    free(taps->taps);
    *taps = (tm__attention_taps){0};
}

tm_status tm__attention_taps_direction(const tm__attention_taps *taps, double rho, double *norm) {
    tm_device *dev = taps->dev;
    double sum = 0;
    for (size_t l = 0; l < taps->layers; l++) {
        double part;
        TM__TRY(dev->k->dot(dev, &part, taps->buffers[l], taps->buffers[l], taps->scalars));
        sum += part;
    }
    *norm = sqrt(sum);
    double factor = rho / (*norm + TM__NORM_FLOOR);
    for (size_t l = 0; l < taps->layers; l++)
        TM__TRY(dev->k->scale(dev, taps->buffers[l], factor, taps->buffers[l], taps->scalars));
    return TM_OK;
}

tm_status tm__attention_taps_pass(tm__trainer *t, const tm__batch *batch, const tm__attention_taps *taps,
                                  double *loss) {
    const tm__forward_options forward = {
        .taps = taps->taps, .tap_count = taps->layers, .recompute = t->options->recompute};
    tm__var *mean;
    double *terms = tm__alloc((size_t)batch->targets.count, sizeof *terms), sum = 0;
    tm_status status = terms ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__model_loss(t->model, t->tape, batch, &forward, terms, &mean);
    if (status == TM_OK) status = tm__tape_backward(t->tape, 1, &mean, NULL);
    for (int64_t i = 0; status == TM_OK && i < batch->targets.count; i++) sum += terms[i];
    tm__tape_reset(t->tape);
    free(terms);
    *loss = sum / (double)batch->targets.count;
    return status;
}
