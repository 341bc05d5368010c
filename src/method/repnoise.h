/* repnoise.h: what RepNoise and the adversarial loss share: harmful answers beside refusals of the same prompts. */
#ifndef TM_METHOD_REPNOISE_H
#define TM_METHOD_REPNOISE_H

#include "method/method.h"

/* ---- maximum mean discrepancy (mmd.c) ---- */

/* *value of x and g (rows, width), and its gradient in x (rows, width; may be NULL). *bandwidth (may be NULL): b-bar to
 * use if it is above 0; receives the one used. The same bytes for every number of threads. */
tm_status tm__mmd(const double *x, const double *g, size_t rows, size_t width, int threads, double *value,
                  double *gradient, double *bandwidth);

/* ---- pairs and their masks (pairs.c) ---- */

/* Values of the options named "mode". */
enum { TM__PAIRS_CORRECT, TM__PAIRS_COMPAT };
enum { TM__HARMFUL, TM__REFUSAL, TM__SIDES };

/* Row i of both sides answers the same prompt. Labels: -100 where nothing is predicted with a gradient. */
typedef struct tm__pairs {
    int mode;
    int32_t pad;
    tm__examples side[TM__SIDES];
    int64_t *blind[TM__SIDES]; /* per row: targets scored from logits of zero (compat): ln V each, no gradient */
    uint8_t **mask;            /* per row, as long as the harmful side: 1 where noise is compared */
    size_t most, dropped;      /* room, and pairs without any target on one of the sides */
} tm__pairs;
tm_status tm__pairs_create(tm__pairs *pairs, size_t most, int mode, int32_t pad);
void tm__pairs_release(tm__pairs *pairs);
/* Takes over the ids, also on failure; pairs of which a side has no target are dropped and counted. */
tm_status tm__pairs_add(tm__pairs *pairs, tm_ids *harmful, tm_ids *refusal);
/* Pairs the job's data by prompt and lays them out. TM_INVALID names a row that finds no partner, or says that no pair
 * has a target. */
tm_status tm__pairs_encode(const tm__job *job, int mode, tm__pairs *pairs);
/* Targets of rows of a side, blind ones included: what a mean over them divides by. */
int64_t tm__pairs_targets(const tm__pairs *pairs, int side, const size_t *rows, size_t n);
/* Adds factor * gradient of CE_m over the rows of a side, micro-batch by micro-batch. result->loss is CE_m. */
tm_status tm__pairs_pass(tm__trainer *trainer, const tm__pairs *pairs, int side, const size_t *rows, size_t n,
                         double factor, tm__pass_result *result);

/* ---- steps, for tests ---- */

typedef struct tm__repnoise {
    const tm_repnoise_options *options;
    const tm__pairs *pairs;
    const tm__examples *benign; /* rows to retain, or NULL */
} tm__repnoise;
tm_status tm__repnoise_step(tm__trainer *trainer, void *repnoise, double *loss, int64_t *tokens, int64_t *targets);
/* -alpha ln(S/(L+1) + 1) and its derivative with respect to S. */
double tm__repnoise_ascent(double alpha, double s, int64_t layers, double *slope);
/* MMD of x (rows, positions, width), zeroed where mask (rows, positions) is 0, and noise of the same shape drawn where
 * it is not: as many normal numbers of (seed, stream) in that order. noise and gradient: room for rows * positions *
 * width each; the gradient is zero where the mask is. */
tm_status tm__repnoise_noise(const uint8_t *mask, size_t rows, size_t positions, size_t width, uint64_t seed,
                             uint64_t stream, int threads, double *x, double *noise, double *gradient, double *value);

typedef struct tm__adversarial {
    const tm_adversarial_options *options;
    const tm__pairs *pairs;
} tm__adversarial;
tm_status tm__adversarial_step(tm__trainer *trainer, void *adversarial, double *loss, int64_t *tokens,
                               int64_t *targets);

#endif
