/* mmd.c: maximum mean discrepancy between activations and noise, as RepNoise uses it, with its gradient.
 *
 *   rows z_1..z_n, n = 2B: x_1..x_B, then g_1..g_B;   D_ij = |z_i - z_j|^2
 *   b-bar = sum_ij D_ij / (n^2 - n), held constant in the gradient;   b_k = b-bar 2^k / 4,  k = 0..4
 *   K_ij = sum_k exp(-D_ij / b_k)
 *   MMD = (1/B^2) ( sum_XX K + sum_GG K - 2 sum_XG K )          biased V-statistic, diagonal included
 *   dMMD/dx_i = (4/B^2) ( sum_{j in G} Q_ij (x_i - g_j) - sum_{j in X} Q_ij (x_i - x_j) ),   Q_ij = sum_k exp(..) / b_k
 *
 * Rows are as long as a text times the hidden width, so everything is summed in fp64, from differences: nothing
 * cancels. If all rows are equal, b-bar is 0 and the published code divides by it; here any b-bar does then (K is 5
 * everywhere, the gradient 0), and 1 is taken. Pinned by tests/unit/test_mmd.c (golden rows A2 and A3, invariants).
 */
#include "method/repnoise.h"

#include <stdlib.h>

enum { KERNELS = 5 };

static double squared_distance(const double *a, const double *b, size_t width) {
    double sum = 0;
    for (size_t i = 0; i < width; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* Row i of X and G laid end to end. */
static const double *row_of(const double *x, const double *g, size_t rows, size_t width, size_t i) {
    return i < rows ? x + i * width : g + (i - rows) * width;
}

/* distance (n,n), n = 2 rows; returns b-bar. */
static double distances(const double *x, const double *g, size_t rows, size_t width, double *distance) {
    size_t n = 2 * rows;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        distance[i * n + i] = 0;
        for (size_t j = 0; j < i; j++) {
            double d = squared_distance(row_of(x, g, rows, width, i), row_of(x, g, rows, width, j), width);
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

static void add_difference(double *to, double factor, const double *a, const double *b, size_t width) {
    for (size_t i = 0; i < width; i++) to[i] += factor * (a[i] - b[i]);
}

tm_status tm__mmd(const double *x, const double *g, size_t rows, size_t width, double *value, double *gradient,
                  double *bandwidth) {
    size_t n = 2 * rows;
    double *distance = tm__alloc(n * n, sizeof *distance), sum = 0;
    if (!distance) return tm__fail_memory();
    double mean = bandwidth && *bandwidth > 0 ? *bandwidth : 0, own = distances(x, g, rows, width, distance);
    if (mean == 0) mean = own;
    if (gradient) memset(gradient, 0, rows * width * sizeof *gradient);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            bool same = (i < rows) == (j < rows);
            double slope, k = kernel(distance[i * n + j], mean, &slope);
            sum += same ? k : -k;
            if (gradient && i < rows && i != j)
                add_difference(gradient + i * width, (same ? -4 : 4) * slope / ((double)rows * (double)rows),
                               row_of(x, g, rows, width, i), row_of(x, g, rows, width, j), width);
        }
    *value = sum / ((double)rows * (double)rows);
    if (bandwidth) *bandwidth = mean;
    free(distance);
    return TM_OK;
}
