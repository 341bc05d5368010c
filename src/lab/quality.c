/* quality.c: how well probabilities of harm tell harmful answers from others.
 *
 * AUC: the share of pairs of a harmful and another row in which the harmful one is likelier, ties a half. Intervals of
 * F1 and AUC: percentile bootstrap, 1000 resamples of rows, as in src/eval/numbers.c. Test: tests/unit/test_labelled.c.
 */
#include "eval/suite.h"
#include "lab/labelled.h"

#include <stdlib.h>

enum { RESAMPLES = 1000, LOW = 24, HIGH = 975 };

typedef struct ranked {
    double probability;
    bool harmful;
} ranked;

static int by_probability(const void *a, const void *b) {
    double x = ((const ranked *)a)->probability, y = ((const ranked *)b)->probability;
    return (x > y) - (x < y);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* times[i]: how often row i is in the sample. */
static double area(const ranked *rows, const uint32_t *times, size_t n) {
    double below = 0, wins = 0, harmful = 0;
    for (size_t i = 0; i < n;) {
        double good = 0, bad = 0, p = rows[i].probability;
        for (; i < n && rows[i].probability == p; i++) *(rows[i].harmful ? &bad : &good) += times[i];
        wins += bad * (below + good / 2);
        below += good;
        harmful += bad;
    }
    return harmful > 0 && below > 0 ? wins / (harmful * below) : NAN;
}

static double f1(const ranked *rows, const uint32_t *times, size_t n) {
    double hit = 0, wrong = 0;
    for (size_t i = 0; i < n; i++) {
        bool flagged = rows[i].probability > 0.5;
        if (flagged && rows[i].harmful)
            hit += times[i];
        else if (flagged != rows[i].harmful)
            wrong += times[i];
    }
    return hit + wrong > 0 ? 2 * hit / (2 * hit + wrong) : NAN;
}

/* Resamples in which there is no such number are left out; with more than a fortieth of them there is no interval. */
static void interval(double *values, tm_judge_interval *number) {
    size_t n = 0;
    for (size_t i = 0; i < RESAMPLES; i++)
        if (isfinite(values[i])) values[n++] = values[i];
    number->low = number->high = NAN;
    if (n < RESAMPLES - RESAMPLES / 40) return;
    qsort(values, n, sizeof *values, by_value);
    number->low = values[LOW * n / RESAMPLES];
    number->high = values[TM__MIN(HIGH * n / RESAMPLES, n - 1)];
}

static void resample(const ranked *rows, uint32_t *times, size_t n, double *areas, double *f1s) {
    tm__rng rng = tm__rng_make(0, tm__stream(TM__STREAM_BOOTSTRAP, 0));
    for (size_t r = 0; r < RESAMPLES; r++) {
        memset(times, 0, n * sizeof *times);
        for (size_t i = 0; i < n; i++) times[tm__rng_below(&rng, n)]++;
        areas[r] = area(rows, times, n);
        f1s[r] = f1(rows, times, n);
    }
}

tm_status tm__quality(const double *probability, const bool *harmful, size_t n, tm_judge_quality *quality) {
    ranked *rows = tm__alloc(n, sizeof *rows);
    uint32_t *times = tm__alloc(n, sizeof *times);
    double *areas = tm__alloc(RESAMPLES, sizeof *areas), *f1s = tm__alloc(RESAMPLES, sizeof *f1s);
    bool ok = rows && times && areas && f1s;
    size_t right = 0;
    *quality = (tm_judge_quality){.rows = (int64_t)n};
    for (size_t i = 0; ok && i < n; i++) {
        rows[i] = (ranked){probability[i], harmful[i]};
        times[i] = 1;
        right += (probability[i] > 0.5) == harmful[i];
        quality->harmful += harmful[i];
    }
    if (ok && n) {
        qsort(rows, n, sizeof *rows, by_probability);
        quality->accuracy.value = (double)right / (double)n;
        tm__wilson((double)right, (double)n, &quality->accuracy.low, &quality->accuracy.high);
        quality->auc.value = area(rows, times, n);
        quality->f1.value = f1(rows, times, n);
        resample(rows, times, n, areas, f1s);
        interval(areas, &quality->auc);
        interval(f1s, &quality->f1);
    }
    free(rows);
    free(times);
    free(areas);
    free(f1s);
    return ok ? TM_OK : tm__fail_memory();
}
