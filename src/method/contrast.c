/* contrast.c: the term that Panacea and Booster share: how a loss h changes along its own normalised gradient.
 *
 *   s = length grad h(w) / (|grad h(w)| + 1e-7)          norm over all trainable tensors together
 *   G = G0 + lambda ( grad h(w) - grad h(w + s) )         first order: s is held fixed
 *
 * Panacea climbs (length = rho): minus the rise of h within reach. Booster descends (length = -alpha): plus what a
 * harmful step would gain. Weights are restored from a copy, never by subtraction. (tests/unit/test_contrast.c)
 */
#include "method/method.h"

tm_status tm__contrast_create(const tm__paramset *set, tm__contrast *c) {
    TM__TRY(tm__vector_create(set, &c->weights));
    TM__TRY(tm__vector_create(set, &c->base));
    TM__TRY(tm__vector_create(set, &c->harm));
    return tm__vector_create(set, &c->shift);
}

void tm__contrast_release(const tm__paramset *set, tm__contrast *c) {
    tm__vector_release(set, &c->weights);
    tm__vector_release(set, &c->base);
    tm__vector_release(set, &c->harm);
    tm__vector_release(set, &c->shift);
}

/* grad h(w + shift) is left in the gradients; w comes back bit by bit, also when the pass fails. */
static tm_status shifted_gradient(const tm__paramset *set, tm__contrast *c, tm__gradient harm, void *user) {
    TM__TRY(tm__paramset_save(set, &c->weights));
    TM__TRY(tm__paramset_axpy(set, 1, &c->shift));
    tm__grads_zero(set);
    tm_status status = harm(user, &c->shifted_loss);
    tm_status restored = tm__paramset_restore(set, &c->weights);
    return status != TM_OK ? status : restored;
}

tm_status tm__contrast_add(const tm__paramset *set, tm__contrast *c, tm__gradient harm, void *user) {
    bool moves = c->lambda > 0 && c->length != 0;
    TM__TRY(tm__grads_save(set, &c->base));
    tm__grads_zero(set);
    TM__TRY(harm(user, &c->loss));
    TM__TRY(tm__grads_direction(set, c->length, &c->shift));
    if (moves) {
        TM__TRY(tm__grads_save(set, &c->harm));
        TM__TRY(shifted_gradient(set, c, harm, user));
        bool clamped = c->clamp > 0 && c->shifted_loss > c->clamp;
        TM__TRY(tm__grads_scale(set, clamped ? 0 : -c->lambda));
        TM__TRY(tm__grads_axpy(set, c->lambda, &c->harm));
    } else {
        tm__grads_zero(set);
    }
    return tm__grads_axpy(set, 1, &c->base);
}
