/* stats.c: mean +- t s / sqrt(n), t being Student's 97.5% quantile with n - 1 degrees of freedom: from a table up to
 * 30, above it 1.96 + 2.4 / degrees, which is right to 0.002.
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
