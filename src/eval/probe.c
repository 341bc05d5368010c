/* probe.c: a linear probe: logistic regression with an L2 penalty on standardised features.
 *
 *   min over w, b:  c * sum_i log(1 + exp(-s_i (w z_i + b))) + |w|^2 / 2        s_i = +1 (true) or -1
 *
 * as scikit-learn's StandardScaler and LogisticRegression(C=c) state it; the bias is not penalised. The best w is a
 * combination of the rows, so where there are fewer rows than features it is sought in coordinates of the rows' span:
 * R = U sqrt(S) of Z Z^T = U S U^T has the same products, hence the same minimum. Newton's method with halved steps
 * where the objective would rise; it is convex, and ends where the gradient has vanished. One thread, fp64.
 * Pinned by tests/golden/test_represent_golden.c.
 */
#include "eval/represent.h"

#include <float.h>
#include <stdlib.h>

enum { STEPS = 200, HALVINGS = 60 };

/* ---- features ---------------------------------------------------------------------------------------------------- */

/* Constant features keep the scale 1, told from rounding as scikit-learn does. */
static void standardise(const tm__points *rows, tm__probe *p) {
    double n = (double)p->n;
    for (int64_t j = 0; j < p->d; j++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < p->n; i++) mean += (double)rows->x[i][j];
        mean /= n;
        for (int64_t i = 0; i < p->n; i++) {
            double off = (double)rows->x[i][j] - mean;
            variance += off * off / n;
        }
        double rounding = n * mean * DBL_EPSILON;
        p->mean[j] = mean;
        p->scale[j] = variance <= n * DBL_EPSILON * variance + rounding * rounding ? 1 : sqrt(variance);
        for (int64_t i = 0; i < p->n; i++) p->z[i * p->d + j] = ((double)rows->x[i][j] - mean) / p->scale[j];
    }
}

/* R and what leads back from its weights to those of the features. */
static tm_status reduce(tm__probe *p) {
    const int64_t n = p->n, d = p->d;
    double *a = tm__alloc((size_t)(n * n), sizeof *a), *values = tm__alloc((size_t)n, sizeof *values);
    tm_status status = a && values ? TM_OK : TM_NO_MEMORY;
    for (int64_t i = 0; status == TM_OK && i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < d; k++) sum += p->z[i * d + k] * p->z[j * d + k];
            a[i * n + j] = a[j * n + i] = sum;
        }
    if (status == TM_OK) status = tm__symmetric_eigen(a, n, values);
    p->q = 0;
    while (status == TM_OK && p->q < n && values[p->q] > 1e-12 * values[0]) p->q++;
    if (status == TM_OK) {
        p->reduced = tm__alloc((size_t)(n * p->q) + 1, sizeof *p->reduced);
        if (!p->reduced) status = TM_NO_MEMORY;
    }
    for (int64_t q = 0; status == TM_OK && q < p->q; q++)
        for (int64_t i = 0; i < n; i++) {
            p->reduced[i * p->q + q] = a[q * n + i] * sqrt(values[q]);
            a[q * n + i] /= sqrt(values[q]);
        }
    p->back = a;
    free(values);
    return status;
}

tm_status tm__probe_prepare(const tm__points *rows, tm__probe *p) {
    *p = (tm__probe){.n = rows->n, .d = rows->d, .q = rows->d};
    p->mean = tm__alloc((size_t)p->d, sizeof *p->mean);
    p->scale = tm__alloc((size_t)p->d, sizeof *p->scale);
    p->z = tm__alloc((size_t)(p->n * p->d), sizeof *p->z);
    if (!p->mean || !p->scale || !p->z) return TM_NO_MEMORY;
    standardise(rows, p);
    return p->n < p->d ? reduce(p) : TM_OK;
}

void tm__probe_release(tm__probe *p) {
    free(p->mean);
    free(p->scale);
    free(p->z);
    free(p->reduced);
    free(p->back);
    *p = (tm__probe){0};
}

/* ---- Newton's method --------------------------------------------------------------------------------------------- */

typedef struct problem {
    int64_t n, m;    /* rows; unknowns, the bias last */
    const double *x; /* (n, m - 1) */
    const bool *labels;
    double c;
    double *u, *next, *step, *gradient; /* (m) */
    double *hessian;                    /* (m, m) */
} problem;

static double value_at(const problem *p, const double *u, int64_t row) {
    double f = u[p->m - 1];
    for (int64_t j = 0; j + 1 < p->m; j++) f += u[j] * p->x[row * (p->m - 1) + j];
    return f;
}

static double objective(const problem *p, const double *u) {
    double loss = 0, square = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double f = p->labels[i] ? value_at(p, u, i) : -value_at(p, u, i);
        loss += f > 0 ? log1p(exp(-f)) : log1p(exp(f)) - f;
    }
    for (int64_t j = 0; j + 1 < p->m; j++) square += u[j] * u[j];
    return p->c * loss + square / 2;
}

/* Gradient, and the lower half of the Hessian. Returns the largest entry of the gradient. */
static double differentiate(problem *p) {
    const int64_t m = p->m;
    double largest = 0;
    memset(p->hessian, 0, (size_t)(m * m) * sizeof *p->hessian);
    for (int64_t j = 0; j < m; j++) {
        p->gradient[j] = j + 1 < m ? p->u[j] : 0;
        p->hessian[j * m + j] = j + 1 < m ? 1 : 0;
    }
    for (int64_t i = 0; i < p->n; i++) {
        const double *x = p->x + i * (m - 1);
        double f = value_at(p, p->u, i), e = exp(-fabs(f)), share = (f > 0 ? 1 : e) / (1 + e);
        double slope = p->c * (share - (p->labels[i] ? 1 : 0)), bend = p->c * e / ((1 + e) * (1 + e));
        for (int64_t j = 0; j < m; j++) {
            double xj = j + 1 < m ? x[j] : 1;
            p->gradient[j] += slope * xj;
            for (int64_t k = 0; k <= j; k++) p->hessian[j * m + k] += bend * xj * (k + 1 < m ? x[k] : 1);
        }
    }
    for (int64_t j = 0; j < m; j++) largest = fmax(largest, fabs(p->gradient[j]));
    return largest;
}

/* step = -H^-1 gradient by Cholesky's factors, which replace H. */
static bool solve(problem *p) {
    const int64_t m = p->m;
    double *h = p->hessian, *s = p->step;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = h[i * m + j];
            for (int64_t k = 0; k < j; k++) sum -= h[i * m + k] * h[j * m + k];
            if (i == j && !(sum > 0)) return false;
            h[i * m + j] = i == j ? sqrt(sum) : sum / h[j * m + j];
        }
    for (int64_t i = 0; i < m; i++) {
        s[i] = -p->gradient[i];
        for (int64_t k = 0; k < i; k++) s[i] -= h[i * m + k] * s[k];
        s[i] /= h[i * m + i];
    }
    for (int64_t i = m - 1; i >= 0; i--) {
        for (int64_t k = i + 1; k < m; k++) s[i] -= h[k * m + i] * s[k];
        s[i] /= h[i * m + i];
    }
    return true;
}

/* Moves u along the step; false: no part of it lowers the objective. Where all that is to be gained drowns in the
 * objective's rounding, Newton's whole step is right. */
static bool descend(problem *p, double *now) {
    double slope = 0, length = 1;
    for (int64_t j = 0; j < p->m; j++) slope += p->gradient[j] * p->step[j];
    for (int i = 0; i < HALVINGS; i++, length /= 2) {
        for (int64_t j = 0; j < p->m; j++) p->next[j] = p->u[j] + length * p->step[j];
        double then = objective(p, p->next);
        if (-slope > 1e-11 * *now && !(then <= *now + 1e-4 * length * slope)) continue;
        memcpy(p->u, p->next, (size_t)p->m * sizeof *p->u);
        *now = then;
        return true;
    }
    return false;
}

static tm_status minimise(problem *p) {
    double now = objective(p, p->u), size = 1 + p->c * (double)p->n;
    for (int step = 0; step < STEPS; step++) {
        double gradient = differentiate(p);
        if (gradient <= 1e-11 * size) return TM_OK;
        if (!solve(p) || !descend(p, &now)) return TM_NUMERIC;
    }
    return TM_NUMERIC;
}

/* ---- probes ------------------------------------------------------------------------------------------------------ */

/* Weights of the features from those of the coordinates. */
static void lead_back(const tm__probe *p, const double *u, double *w) {
    if (!p->back) {
        memcpy(w, u, (size_t)p->d * sizeof *w);
        return;
    }
    memset(w, 0, (size_t)p->d * sizeof *w);
    for (int64_t i = 0; i < p->n; i++) {
        double share = 0;
        for (int64_t q = 0; q < p->q; q++) share += u[q] * p->back[q * p->n + i];
        for (int64_t j = 0; j < p->d; j++) w[j] += share * p->z[i * p->d + j];
    }
}

tm_status tm__probe_fit(const tm__probe *probe, const bool *labels, double c, double *w, double *bias) {
    const size_t m = (size_t)probe->q + 1;
    double *room = tm__zalloc(m * (m + 4), sizeof *room);
    if (!room) return TM_NO_MEMORY;
    problem p = {.n = probe->n,
                 .m = (int64_t)m,
                 .x = probe->back ? probe->reduced : probe->z,
                 .labels = labels,
                 .c = c,
                 .u = room,
                 .next = room + m,
                 .step = room + 2 * m,
                 .gradient = room + 3 * m,
                 .hessian = room + 4 * m};
    tm_status status = minimise(&p);
    if (status == TM_OK) {
        lead_back(probe, p.u, w);
        *bias = p.u[m - 1];
    }
    free(room);
    return status;
}

void tm__probe_apply(const tm__probe *p, const double *w, double bias, const tm__points *rows, double *f) {
    for (int64_t i = 0; i < rows->n; i++) {
        f[i] = bias;
        for (int64_t j = 0; j < p->d; j++) f[i] += w[j] * ((double)rows->x[i][j] - p->mean[j]) / p->scale[j];
    }
}

double tm__probe_auc(const double *f, const bool *labels, int64_t n) {
    double won = 0, pairs = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; labels[i] && j < n; j++) {
            if (labels[j]) continue;
            won += f[i] > f[j] ? 1 : f[i] == f[j] ? 0.5 : 0;
            pairs++;
        }
    return pairs > 0 ? won / pairs : NAN;
}
