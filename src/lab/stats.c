/* stats.c: mean +- t s / sqrt(n), t being Student's 97.5% quantile with n - 1 degrees of freedom: from a table up to
 * 30, above it 1.96 + 2.4 / degrees, which is right to 0.002. Tests: p of t by the incomplete beta function, Holm's
 * step-down correction (S. Holm 1979). Pinned by tests/unit/test_report.c.
 */
#include "lab/stats.h"

#include "base/base.h"

static double student(size_t degrees) {
    static const double q[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    return degrees <= TM__COUNT(q) ? q[degrees - 1] : 1.96 + 2.4 / (double)degrees;
}

tm__stats tm__stats_of(const double *x, size_t n) {
    tm__stats s = {.n = n, .mean = NAN, .half = NAN};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    if (n) s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - s.mean) * (x[i] - s.mean);
    if (n > 1) s.half = student(n - 1) * sqrt(squares / (double)(n - 1) / (double)n);
    return s;
}

/* Continued fraction of the incomplete beta function I_x(a, b), by Lentz's method; for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x) {
    const double least = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1), value;
    d = 1 / (fabs(d) < least ? least : d);
    value = d;
    for (int m = 1; m < 500; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double term = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                              : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < least ? least : d);
            if (fabs(c) < least) c = least;
            value *= c * d;
        }
        if (fabs(c * d - 1) < 1e-15) break;
    }
    return value;
}

static double incomplete_beta(double a, double b, double x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double tm__student_p(double t, double degrees) {
    return incomplete_beta(degrees / 2, .5, degrees / (degrees + t * t));
}

double tm__paired_p(const double *differences, size_t n) {
    double mean = 0, squares = 0;
    if (n < 2) return NAN;
    for (size_t i = 0; i < n; i++) mean += differences[i] / (double)n;
    for (size_t i = 0; i < n; i++) squares += (differences[i] - mean) * (differences[i] - mean);
    double error = sqrt(squares / (double)(n - 1) / (double)n);
    if (error <= 1e-12 * fabs(mean)) return mean == 0 ? 1 : NAN;
    return tm__student_p(mean / error, (double)(n - 1));
}

/* The k-th smallest of m times (m - k), never below the one before it. */
void tm__holm(double *p, size_t n) {
    size_t left = 0;
    double least = 0;
    for (size_t i = 0; i < n; i++) left += !isnan(p[i]);
    /* Corrected values are marked by a negative sign until all are done. */
    for (; left; left--) {
        size_t at = n;
        for (size_t i = 0; i < n; i++)
            if (!isnan(p[i]) && !signbit(p[i]) && (at == n || p[i] < p[at])) at = i;
        least = fmax(least, fmin(1, p[at] * (double)left));
        p[at] = -least;
    }
    for (size_t i = 0; i < n; i++) p[i] = isnan(p[i]) ? p[i] : fabs(p[i]);
}
