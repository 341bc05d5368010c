/* symmetric.c: all eigenvalues and eigenvectors of a real symmetric matrix: Householder's reduction to a tridiagonal
 * one, then QL with implicit shifts (EISPACK's tred2 and tql2; Martin, Reinsch, Wilkinson 1968). Both work on columns;
 * here these are rows of the array, so that every inner loop runs along memory. One thread, fp64, always the same
 * bytes. Pinned by tests/unit/test_represent_numbers.c.
 */
#include "eval/represent.h"

#include <float.h>
#include <stdlib.h>

/* Takes u (i) from d and puts what remains of the leading i x i block into v. */
static void reflect(double *v, int64_t n, int64_t i, double *d, double *e) {
    double scale = 0, h = 0;
    for (int64_t k = 0; k < i; k++) scale += fabs(d[k]);
    if (scale == 0) {
        e[i] = d[i - 1];
        for (int64_t j = 0; j < i; j++) {
            d[j] = v[j * n + i - 1];
            v[j * n + i] = v[i * n + j] = 0;
        }
        d[i] = 0;
        return;
    }
    for (int64_t k = 0; k < i; k++) {
        d[k] /= scale;
        h += d[k] * d[k];
    }
    double f = d[i - 1], g = f > 0 ? -sqrt(h) : sqrt(h);
    e[i] = scale * g;
    h -= f * g;
    d[i - 1] = f - g;
    for (int64_t j = 0; j < i; j++) e[j] = 0;
    for (int64_t j = 0; j < i; j++) {
        double *column = v + j * n;
        v[i * n + j] = f = d[j];
        g = e[j] + column[j] * f;
        for (int64_t k = j + 1; k < i; k++) {
            g += column[k] * d[k];
            e[k] += column[k] * f;
        }
        e[j] = g;
    }
    f = 0;
    for (int64_t j = 0; j < i; j++) f += (e[j] /= h) * d[j];
    for (int64_t j = 0; j < i; j++) e[j] -= f / (h + h) * d[j];
    for (int64_t j = 0; j < i; j++) {
        double *column = v + j * n;
        for (int64_t k = j; k < i; k++) column[k] -= d[j] * e[k] + e[j] * d[k];
        d[j] = column[i - 1];
        column[i] = 0;
    }
    d[i] = h;
}

/* On return d is the diagonal, e[1..] what stands beside it, and the columns of v the reflections multiplied out. */
static void tridiagonal(double *v, int64_t n, double *d, double *e) {
    for (int64_t j = 0; j < n; j++) d[j] = v[j * n + n - 1];
    for (int64_t i = n - 1; i > 0; i--) reflect(v, n, i, d, e);
    d[0] = 0;
    for (int64_t i = 0; i < n - 1; i++) {
        double h = d[i + 1], *next = v + (i + 1) * n;
        v[i * n + n - 1] = v[i * n + i];
        v[i * n + i] = 1;
        for (int64_t k = 0; k <= i && h != 0; k++) d[k] = next[k] / h;
        for (int64_t j = 0; j <= i && h != 0; j++) {
            double g = 0, *column = v + j * n;
            for (int64_t k = 0; k <= i; k++) g += next[k] * column[k];
            for (int64_t k = 0; k <= i; k++) column[k] -= g * d[k];
        }
        for (int64_t k = 0; k <= i; k++) next[k] = 0;
    }
    for (int64_t j = 0; j < n; j++) {
        d[j] = v[j * n + n - 1];
        v[j * n + n - 1] = 0;
    }
    v[(n - 1) * n + n - 1] = 1;
    e[0] = 0;
}

/* One implicit QL step on rows l .. m; `f`: the sum of shifts so far. */
static void ql_step(double *v, int64_t n, int64_t l, int64_t m, double *d, double *e, double *f) {
    double g = d[l], p = (d[l + 1] - g) / (2 * e[l]), r = hypot(p, 1);
    if (p < 0) r = -r;
    d[l] = e[l] / (p + r);
    d[l + 1] = e[l] * (p + r);
    double second = d[l + 1], shift = g - d[l], beside = e[l + 1];
    for (int64_t i = l + 2; i < n; i++) d[i] -= shift;
    *f += shift;
    p = d[m];
    double c = 1, c2 = 1, c3 = 1, s = 0, s2 = 0;
    for (int64_t i = m - 1; i >= l; i--) {
        double *low = v + i * n, *high = low + n;
        c3 = c2;
        c2 = c;
        s2 = s;
        g = c * e[i];
        double h = c * p;
        r = hypot(p, e[i]);
        e[i + 1] = s * r;
        s = e[i] / r;
        c = p / r;
        p = c * d[i] - s * g;
        d[i + 1] = h + s * (c * g + s * d[i]);
        for (int64_t k = 0; k < n; k++) {
            double was = high[k];
            high[k] = s * low[k] + c * was;
            low[k] = c * low[k] - s * was;
        }
    }
    p = -s * s2 * c3 * beside * e[l] / second;
    e[l] = s * p;
    d[l] = c * p;
}

static bool diagonal(double *v, int64_t n, double *d, double *e) {
    enum { MOST = 100 }; /* steps for one eigenvalue; two or three are usual */
    double f = 0, largest = 0;
    for (int64_t i = 1; i < n; i++) e[i - 1] = e[i];
    e[n - 1] = 0;
    for (int64_t l = 0; l < n; l++) {
        int64_t m = l;
        largest = fmax(largest, fabs(d[l]) + fabs(e[l]));
        while (m < n - 1 && fabs(e[m]) > DBL_EPSILON * largest) m++;
        for (int step = 0; m > l && fabs(e[l]) > DBL_EPSILON * largest; step++) {
            if (step == MOST) return false;
            ql_step(v, n, l, m, d, e, &f);
        }
        d[l] += f;
        e[l] = 0;
    }
    return true;
}

/* Largest first. */
static void sort(double *v, int64_t n, double *d) {
    for (int64_t i = 0; i < n; i++) {
        int64_t best = i;
        for (int64_t j = i + 1; j < n; j++)
            if (d[j] > d[best]) best = j;
        if (best == i) continue;
        double was = d[i];
        d[i] = d[best];
        d[best] = was;
        for (int64_t k = 0; k < n; k++) {
            was = v[i * n + k];
            v[i * n + k] = v[best * n + k];
            v[best * n + k] = was;
        }
    }
}

tm_status tm__symmetric_eigen(double *v, int64_t n, double *values) {
    double *beside = tm__zalloc((size_t)n, sizeof *beside);
    if (!beside) return TM_NO_MEMORY;
    tridiagonal(v, n, values, beside);
    bool ok = diagonal(v, n, values, beside);
    if (ok) sort(v, n, values);
    free(beside);
    return ok ? TM_OK : TM_NUMERIC;
}
