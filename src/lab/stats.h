/* stats.h: means with intervals. */
#ifndef TM_LAB_STATS_H
#define TM_LAB_STATS_H

#include <stddef.h>

/* mean +- half is the 95% interval of Student's t over n values; NAN where there is none. */
typedef struct tm__stats {
    size_t n;
    double mean, half;
} tm__stats;

tm__stats tm__stats_of(const double *values, size_t n);

/* Two-sided p of a Student's t with so many degrees of freedom; of the mean of n differences being 0 (1 where all are
 * 0; NAN for n < 2, and where all are the same and not 0: scores at their ends have no spread to judge by). */
double tm__student_p(double t, double degrees);
double tm__paired_p(const double *differences, size_t n);
/* Holm's correction for n comparisons, in place: p[i] becomes the smallest level at which the i-th is rejected. NANs
 * stay and do not count. */
void tm__holm(double *p, size_t n);

#endif
