/* schedule.c: learning-rate factors as in transformers/optimization.py.
 *
 *   constant: 1
 *   linear:   s / warm for s < warm, then (total - s) / (total - warm)
 *   cosine:   s / warm for s < warm, then (1 + cos(pi p)) / 2 with p = (s - warm) / (total - warm)
 *
 * s counts steps from 0, warm = ceil(warmup * total). Like the original, a warm-up begins with a factor of 0.
 */
#include "train/train.h"

enum { CONSTANT, LINEAR, COSINE };

double tm__schedule_factor(int schedule, double warmup, int64_t step, int64_t total) {
    if (schedule == CONSTANT) return 1;
    int64_t warm = (int64_t)ceil(warmup * (double)total);
    if (step < warm) return (double)step / (double)warm;
    double rest = (double)TM__MAX(total - warm, (int64_t)1);
    if (schedule == LINEAR) return fmax(0, (double)(total - step) / rest);
    return fmax(0, 0.5 * (1 + cos(3.14159265358979323846 * (double)(step - warm) / rest)));
}
