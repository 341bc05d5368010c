/* pca.c: principal components through the smaller of the two matrices of products: of rows (n, n) or of features (d,
 * d).
 *
 *   X the centred rows;  X X^T u = l u  gives the axis X^T u / sqrt(l), with l / (n - 1) the variance along it
 *
 * Signs as scikit-learn's PCA sets them: the entry of largest magnitude is positive. Pinned by
 * tests/golden/test_represent_golden.c.
 */
#include "eval/represent.h"

#include <float.h>
#include <stdlib.h>

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* x (n, d); the caller's. */
static double *centred(const tm__points *p, double *centre) {
    double *x = tm__alloc((size_t)(p->n * p->d), sizeof *x);
    if (!x) return NULL;
    for (int64_t j = 0; j < p->d; j++) centre[j] = 0;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->d; j++) centre[j] += (double)p->x[i][j];
    for (int64_t j = 0; j < p->d; j++) centre[j] /= (double)p->n;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->d; j++) x[i * p->d + j] = (double)p->x[i][j] - centre[j];
    return x;
}

/* a (m, m): products of rows (m == n) or of features (m == d). */
static void products(const double *x, int64_t n, int64_t d, double *a, bool of_rows) {
    if (of_rows) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = dot(x + i * d, x + j * d, d);
        return;
    }
    memset(a, 0, (size_t)(d * d) * sizeof *a);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            for (int64_t k = 0; k < d; k++) a[j * d + k] += x[i * d + j] * x[i * d + k];
}

static void orient(double *axis, int64_t d) {
    double most = 0, length = sqrt(dot(axis, axis, d));
    for (int64_t j = 0; j < d; j++)
        if (fabs(axis[j]) > fabs(most)) most = axis[j];
    for (int64_t j = 0; j < d && length > 0; j++) axis[j] /= most < 0 ? -length : length;
}

tm_status tm__pca_fit(const tm__points *p, int64_t k, double *centre, double *axes, double *explained) {
    const int64_t n = p->n, d = p->d, m = TM__MIN(n, d);
    double *x = centred(p, centre), *a = tm__alloc((size_t)(m * m), sizeof *a);
    double *values = tm__alloc((size_t)m, sizeof *values), total = 0, magnitude = 0;
    tm_status status = x && a && values ? TM_OK : TM_NO_MEMORY;
    for (int64_t i = 0; status == TM_OK && i < n * d; i++) total += x[i] * x[i];
    for (int64_t j = 0; status == TM_OK && j < d; j++) magnitude += centre[j] * centre[j];
    if (status == TM_OK) {
        products(x, n, d, a, n <= d);
        status = tm__symmetric_eigen(a, m, values);
    }
    /* What is left where all rows are equal is the rounding of their mean. */
    double least = (double)n * DBL_EPSILON * fmax(total, (double)n * DBL_EPSILON * magnitude);
    for (int64_t c = 0; status == TM_OK && c < k; c++) {
        double *axis = axes + c * d;
        bool there = c < m && values[c] > least;
        memset(axis, 0, (size_t)d * sizeof *axis);
        explained[c] = there ? values[c] / total : 0;
        for (int64_t i = 0; there && n <= d && i < n; i++)
            for (int64_t j = 0; j < d; j++) axis[j] += a[c * n + i] * x[i * d + j];
        if (there && n > d) memcpy(axis, a + c * d, (size_t)d * sizeof *axis);
        orient(axis, d);
    }
    free(x);
    free(a);
    free(values);
    return status;
}

void tm__pca_project(const tm__points *p, int64_t k, const double *centre, const double *axes, double *out,
                     double *own) {
    double total = 0;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t c = 0; c < k; c++) {
            double sum = 0;
            for (int64_t j = 0; j < p->d; j++) sum += ((double)p->x[i][j] - centre[j]) * axes[c * p->d + j];
            out[i * k + c] = sum;
        }
    for (int64_t j = 0; j < p->d; j++) {
        double mean = 0;
        for (int64_t i = 0; i < p->n; i++) mean += (double)p->x[i][j] / (double)p->n;
        for (int64_t i = 0; i < p->n; i++) total += ((double)p->x[i][j] - mean) * ((double)p->x[i][j] - mean);
    }
    for (int64_t c = 0; c < k; c++) {
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < p->n; i++) mean += out[i * k + c] / (double)p->n;
        for (int64_t i = 0; i < p->n; i++) squares += (out[i * k + c] - mean) * (out[i * k + c] - mean);
        own[c] = squares > 0 ? squares / total : 0;
    }
}
