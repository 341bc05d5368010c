/* stepcheck.h: the gradient that a method's step leaves, by central differences of a loss in fp64: each tensor along a
 * direction of its own.
 */
#ifndef TM_TEST_STEPCHECK_H
#define TM_TEST_STEPCHECK_H

#include "tiny.h"

/* The loss at the weights as they are, with whatever the step held fixed. May spoil the gradients. */
typedef double (*stepcheck_loss)(tm__trainer *trainer, void *user);

typedef struct stepcheck {
    double worst; /* relative error of a slope */
    int checked;  /* tensors */
} stepcheck;

/* An even step of `h` to both sides, along the gradient, bent. */
static inline void stepcheck_tensor(tm__trainer *t, stepcheck_loss loss, void *user, size_t k, const double *gradient,
                                    stepcheck *found) {
    const double h = 1e-4;
    double *w = t->set.items[k]->value.data, want = 0, square = 0;
    int64_t n = tm__tensor_count(&t->set.items[k]->value);
    double *kept = malloc((size_t)n * sizeof *kept), *d = malloc((size_t)n * sizeof *d), side[2];
    memcpy(kept, w, (size_t)n * sizeof *kept);
    for (int64_t i = 0; i < n; i++) {
        d[i] = gradient[i] * (1 + 0.5 * sin((double)i + (double)k));
        square += d[i] * d[i];
    }
    assert_true(square > 0);
    for (int64_t i = 0; i < n; i++) {
        d[i] /= sqrt(square);
        want += gradient[i] * d[i];
    }
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < n; i++) w[i] = kept[i] + (s ? h : -h) * d[i];
        side[s] = loss(t, user);
    }
    memcpy(w, kept, (size_t)n * sizeof *kept);
    double got = (side[1] - side[0]) / (2 * h), error = fabs(got / want - 1);
    if (!(error < 1e-6)) fail_msg("%s: %.12g, by differences %.12g", t->set.items[k]->name, want, got);
    found->worst = fmax(found->worst, error);
    found->checked++;
    free(kept);
    free(d);
}

/* The gradients that are there now, of all tensors. They are spoilt. */
static inline void stepcheck_run(tm__trainer *t, stepcheck_loss loss, void *user, stepcheck *found) {
    double **gradient = malloc(t->set.count * sizeof *gradient);
    for (size_t k = 0; k < t->set.count; k++) {
        size_t bytes = (size_t)tm__tensor_count(&t->set.items[k]->value) * sizeof(double);
        gradient[k] = malloc(bytes);
        memcpy(gradient[k], t->set.items[k]->grad, bytes);
    }
    for (size_t k = 0; k < t->set.count; k++) stepcheck_tensor(t, loss, user, k, gradient[k], found);
    for (size_t k = 0; k < t->set.count; k++) free(gradient[k]);
    free(gradient);
}

#endif
