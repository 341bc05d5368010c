/* matrix.h: weights as fp64 rows on the host, for methods that edit them once instead of training; normal noise. */
#ifndef TM_METHOD_MATRIX_H
#define TM_METHOD_MATRIX_H

#include "model/weights.h"

/* Elements [first, first + count) of a parameter, whatever it is stored as and wherever it lies. */
tm_status tm__param_read(tm_device *dev, const tm__param *param, int64_t first, int64_t count, double *out);
/* Writes them back, rounded to the device's type; the parameter must be owned. */
tm_status tm__param_write(tm_device *dev, tm__param *param, int64_t first, int64_t count, const double *values);
/* A whole parameter; the array is the caller's. */
tm_status tm__param_read_all(tm_device *dev, const tm__param *param, double **out);

/* Numbers [first, first + count) of the standard normal sequence of (seed, stream): what tm__rng_normal gives. The same
 * bytes for every number of threads. */
void tm__normal_fill(double *to, size_t count, uint64_t seed, uint64_t stream, size_t first, int threads);

/* ---- Antidote (antidote.c) ---- */

/* sums[j] += sum over t of x[t][j]^2, x (n, columns) */
void tm__squares_add(double *sums, const double *x, int64_t n, int64_t columns);
/* Wanda's score of a weight whose input has this mean (over sequences) of sums of squares. */
double tm__wanda_score(double weight, double mean_square);
/* Entries of a row to be zeroed: columns - int(columns (1 - ratio)). */
int64_t tm__wanda_count(int64_t columns, double ratio);
/* Zeroes the `count` entries of highest score; of equal ones those further right. TM_NO_MEMORY. */
tm_status tm__wanda_prune(double *row, const double *mean_square, int64_t columns, int64_t count);

/* ---- SafeLoRA (safe_lora.c) ---- */

enum { TM__PROJECT_CODE, TM__PROJECT_EXACT };
/* pb (out, rank) = P B for the P that V (out, in) makes, and the cosine of P B A and B A; A (rank, in). NAN where V or
 * B A is zero: there is nothing to compare. V is overwritten by the exact projector. */
tm_status tm__safe_lora_project(double *v, int64_t out, int64_t in, const double *b, const double *a, int64_t rank,
                                int projector, double *pb, double *cosine);

/* ---- taking a direction out of weights (ablate.c) ---- */

/* W <- W - r (r^T W) for W (rows, columns) whose rows write to the residual stream; r (rows) of length 1. */
tm_status tm__ablate_output(tm_model *model, tm__param *weight, const double *r);
/* E <- E - (E r) r^T for the rows of an embedding table; r (columns) of length 1. */
tm_status tm__ablate_rows(tm_model *model, tm__param *table, const double *r);
/* Both for everything that writes to the residual stream: embedding, o_proj, down_proj and their biases. */
tm_status tm__ablate_model(tm_model *model, const double *r);

#endif
