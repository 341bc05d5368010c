/* represent.h: hidden states of prompts, their principal components and linear probes: what its files share. */
#ifndef TM_EVAL_REPRESENT_H
#define TM_EVAL_REPRESENT_H

#include "model/model.h"

/* Functions of this part run beside each other in threads: they return a status without a detail, and the caller says
 * what it was about. TM_NO_MEMORY; TM_NUMERIC: not found within as many steps as are sane. */

/* a (n, n) symmetric, replaced by its eigenvectors, a row each, of length 1; values (n) largest first. */
tm_status tm__symmetric_eigen(double *a, int64_t n, double *values);

/* Rows of states that lie in different places: x[i] (d). */
typedef struct tm__points {
    const float *const *x;
    int64_t n, d;
} tm__points;

/* Axes of largest variance: centre (d), axes (k, d) of length 1 each, its entry of largest magnitude positive,
 * explained (k) shares of all variance; all the caller's. Where fewer than k dimensions vary an axis is zero. */
tm_status tm__pca_fit(const tm__points *points, int64_t k, double *centre, double *axes, double *explained);
/* out (n, k); own (k): share of the points' own variance along each axis. */
void tm__pca_project(const tm__points *points, int64_t k, const double *centre, const double *axes, double *out,
                     double *own);

/* What a probe is fitted on: rows standardised by their own means and deviations (z, (n, d)), and the same in
 * coordinates (n, q) that keep every product of rows, q <= min(n, d), in which fitting is cheap and gives the same. */
typedef struct tm__probe {
    int64_t n, d, q;
    double *mean, *scale; /* (d) */
    double *z, *reduced;
    double *back; /* (q, n): weights (d) = sum over q, n of weight[q] back[q][n] z[n]; NULL: they are the same */
} tm__probe;
tm_status tm__probe_prepare(const tm__points *rows, tm__probe *probe);
void tm__probe_release(tm__probe *probe);
/* Minimises c * sum of log(1 + exp(-+ f)) + |w|^2 / 2 over w (d) and the bias, f = w z + bias, labels (n). */
tm_status tm__probe_fit(const tm__probe *probe, const bool *labels, double c, double *w, double *bias);
/* f of other rows (n): above 0 says true. */
void tm__probe_apply(const tm__probe *probe, const double *w, double bias, const tm__points *rows, double *f);
/* Probability that a true row has a larger f than a false one, equal ones counting half. */
double tm__probe_auc(const double *f, const bool *labels, int64_t n);

/* ---- a comparison (represent.c) ---------------------------------------------------------------------------------- */

typedef struct tm__represent_row {
    bool harmful, train;
    size_t row;
    tm_ids ids, labels; /* labels: -100 outside the answer; only where answers are read */
} tm__represent_row;

typedef struct tm__represent_model {
    char *name, hash[65];
    float *states; /* (layers, rows, width) */
    double *points, *explained, *own;
    tm_represent_layer *layers; /* (layers) */
} tm__represent_model;

struct tm_representation {
    const tm_dataset *data[2]; /* harmless, harmful */
    tm_represent_options options;
    tm__represent_row *rows;
    size_t count, of[2], train; /* rows, of each kind, in the half that is fitted on */
    int64_t *layers, layer_count, depth, width;
    tm__represent_model *models;
    size_t model_count, model_cap;
    char *format; /* what the chat format came to */
    bool finished;
};

/* Chooses rows and halves by the first model's tokenizer (represent_rows.c). */
tm_status tm__represent_choose(tm_representation *r, const tm_tokenizer *tokenizer, const tm_monitor *monitor);
/* TM_MISMATCH where another tokenizer or template gives other ids. */
tm_status tm__represent_compare(const tm_representation *r, const tm_tokenizer *tokenizer, const char *name);
/* states (layers, rows, width) of the chosen rows and layers (represent_states.c). */
tm_status tm__represent_read(const tm_representation *r, tm_model *model, const char *name, const tm_monitor *monitor,
                             float *states);
/* tm_representation_json with jansson's flags. */
tm_status tm__represent_json(const tm_representation *r, size_t flags, char **text);

#endif
