/* mmd.c: maximum mean discrepancy between activations and noise, as RepNoise uses it, with its gradient.
 *
 *   rows z_1..z_n, n = 2B: x_1..x_B, then g_1..g_B;   D_ij = |z_i - z_j|^2
 *   b-bar = sum_ij D_ij / (n^2 - n), held constant in the gradient;   b_k = b-bar 2^k / 4,  k = 0..4
 *   K_ij = sum_k exp(-D_ij / b_k)
 *   MMD = (1/B^2) ( sum_XX K + sum_GG K - 2 sum_XG K )          biased V-statistic, diagonal included
 *   dMMD/dx_i = (4/B^2) ( sum_{j in G} Q_ij (x_i - g_j) - sum_{j in X} Q_ij (x_i - x_j) ),   Q_ij = sum_k exp(..) / b_k
 *
 * Rows are as long as a text times the hidden width, so everything is summed in fp64, from differences: nothing
 * cancels. Threads share the columns out: slices of a width that the shapes alone decide, their sums added in order, so
 * that bytes do not depend on the number of threads. If all rows are equal, b-bar is 0 and the published code divides
 * by it; here any b-bar does then (K is 5 everywhere, the gradient 0), and 1 is taken. Pinned by tests/unit/test_mmd.c
 * (golden rows A2 and A3, invariants).
 */
#include "method/repnoise.h"

#include <stdlib.h>

enum { KERNELS = 5, LANES = 8 };
enum {
    SLICES = 64,
    COLUMNS = 1024
}; /* slices at most; columns at a time, so that a block of all rows stays in cache */

/* x and g (rows, width), cut into slices of `slice` columns. */
typedef struct mmd_input {
    const double *x, *g;
    size_t rows, width, slice, slices;
    int threads;
} mmd_input;

static double squared_distance(const double *a, const double *b, size_t n) {
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += (a[i + l] - b[i + l]) * (a[i + l] - b[i + l]);
    for (; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    for (size_t l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

static void add_difference(double *to, double factor, const double *a, const double *b, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] += factor * (a[i] - b[i]);
}

/* Row i of X and G laid end to end. */
static const double *row_of(const mmd_input *in, size_t i) {
    return i < in->rows ? in->x + i * in->width : in->g + (i - in->rows) * in->width;
}

/* sums (n (n - 1) / 2): the squared distance of every pair j < i, over the columns of one slice. */
static void slice_distances(const mmd_input *in, size_t slice, double *sums) {
    size_t end = TM__MIN(in->width, (slice + 1) * in->slice), n = 2 * in->rows;
    memset(sums, 0, n * (n - 1) / 2 * sizeof *sums);
    for (size_t c = slice * in->slice; c < end; c += COLUMNS) {
        double *sum = sums;
        for (size_t i = 1; i < n; i++)
            for (size_t j = 0; j < i; j++, sum++)
                *sum += squared_distance(row_of(in, i) + c, row_of(in, j) + c, TM__MIN((size_t)COLUMNS, end - c));
    }
}

/* distance (n,n), n = 2 rows; returns b-bar. */
static double distances(const mmd_input *in, double *partial, double *distance) {
    size_t n = 2 * in->rows, pairs = n * (n - 1) / 2, pair = 0;
    double sum = 0;
#pragma omp parallel for schedule(static) num_threads(in->threads)
    for (size_t s = 0; s < in->slices; s++) slice_distances(in, s, partial + s * pairs);
    for (size_t i = 0; i < n; i++) {
        distance[i * n + i] = 0;
        for (size_t j = 0; j < i; j++, pair++) {
            double d = 0;
            for (size_t s = 0; s < in->slices; s++) d += partial[s * pairs + pair];
            distance[i * n + j] = distance[j * n + i] = d;
            sum += 2 * d;
        }
    }
    return sum > 0 ? sum / ((double)n * (double)(n - 1)) : 1;
}

/* K of a distance; *slope gets Q. */
static double kernel(double distance, double bandwidth, double *slope) {
    double sum = 0, b = bandwidth / 4;
    *slope = 0;
    for (int k = 0; k < KERNELS; k++, b *= 2) {
        double term = exp(-distance / b);
        sum += term;
        *slope += term / b;
    }
    return sum;
}

/* The value; entry (i,j) of `distance` becomes the factor of z_i - z_j in row i's gradient. */
static double compare(size_t rows, double bandwidth, double *distance) {
    size_t n = 2 * rows;
    double sum = 0, area = (double)rows * (double)rows;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            bool same = (i < rows) == (j < rows);
            double slope, k = kernel(distance[i * n + j], bandwidth, &slope);
            sum += same ? k : -k;
            distance[i * n + j] = (same ? -4 : 4) * slope / area;
        }
    return sum / area;
}

/* gradient (rows, width), the columns of one slice. */
static void slice_gradient(const mmd_input *in, size_t slice, const double *factor, double *gradient) {
    size_t end = TM__MIN(in->width, (slice + 1) * in->slice), n = 2 * in->rows;
    for (size_t c = slice * in->slice; c < end; c += COLUMNS) {
        size_t columns = TM__MIN((size_t)COLUMNS, end - c);
        for (size_t i = 0; i < in->rows; i++) {
            double *to = gradient + i * in->width + c;
            memset(to, 0, columns * sizeof *to);
            for (size_t j = 0; j < n; j++)
                if (i != j) add_difference(to, factor[i * n + j], row_of(in, i) + c, row_of(in, j) + c, columns);
        }
    }
}

static mmd_input cut(const double *x, const double *g, size_t rows, size_t width, int threads) {
    mmd_input in = {.x = x, .g = g, .rows = rows, .width = width, .threads = threads};
    in.slice = (width / SLICES / COLUMNS + 1) * COLUMNS;
    in.slices = (width + in.slice - 1) / in.slice;
    return in;
}

tm_status tm__mmd(const double *x, const double *g, size_t rows, size_t width, int threads, double *value,
                  double *gradient, double *bandwidth) {
    const mmd_input in = cut(x, g, rows, width, threads);
    size_t n = 2 * rows;
    double *distance = tm__alloc(n * n, sizeof *distance);
    double *partial = tm__alloc(in.slices * (n * (n - 1) / 2), sizeof *partial);
    tm_status status = distance && partial ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        double given = bandwidth ? *bandwidth : 0, own = distances(&in, partial, distance);
        double mean = given > 0 ? given : own;
        *value = compare(rows, mean, distance);
        if (bandwidth) *bandwidth = mean;
    }
    if (status == TM_OK && gradient) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t s = 0; s < in.slices; s++) slice_gradient(&in, s, distance, gradient);
    }
    free(distance);
    free(partial);
    return status;
}
