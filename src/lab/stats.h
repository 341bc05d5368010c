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

#endif
