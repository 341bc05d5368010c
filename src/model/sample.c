/* sample.c: from logits to the next token, as transformers' generate does it: logits / temperature, then top-k (ties
 * with the k-th stay), then top-p (tokens are dropped from the least likely up while their joint probability is at most
 * 1 - p; one always stays), then one draw by the inverse of the cumulative distribution in id order. Sums are fp64.
 */
#include "model/model.h"

#include <stdlib.h>

struct tm__sampler {
    int64_t vocab, top_k;
    double temperature, top_p;
    double *probs;  /* (vocab) */
    double *sorted; /* (vocab) scratch of top-k */
    int32_t *order; /* (vocab) scratch of top-p */
};

void tm__sampler_free(tm__sampler *sampler) {
    if (!sampler) return;
    free(sampler->probs);
    free(sampler->sorted);
    free(sampler->order);
    free(sampler);
}

tm_status tm__sampler_create(int64_t vocab, const tm_generate_options *options, tm__sampler **sampler) {
    tm__sampler *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->vocab = vocab;
    made->top_k = options->top_k;
    made->top_p = options->top_p;
    made->temperature = options->temperature;
    made->probs = tm__alloc((size_t)vocab, sizeof *made->probs);
    made->sorted = tm__alloc((size_t)vocab, sizeof *made->sorted);
    made->order = tm__alloc((size_t)vocab, sizeof *made->order);
    if (!made->probs || !made->sorted || !made->order) {
        tm__sampler_free(made);
        return tm__fail_memory();
    }
    *sampler = made;
    return TM_OK;
}

/* k-th largest of n values (k from 1), by quickselect; reorders them. */
static double kth_largest(double *values, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1, wanted = k - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i > j) break;
            double held = values[i];
            values[i++] = values[j];
            values[j--] = held;
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return values[wanted];
}

/* exp(x - max) / sum in place; -inf gives 0. */
static void softmax(double *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = TM__MAX(max, x[i]);
    for (int64_t i = 0; i < n; i++) {
        x[i] = exp(x[i] - max);
        sum += x[i];
    }
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

static void keep_top_k(tm__sampler *s) {
    if (s->top_k <= 0 || s->top_k >= s->vocab) return;
    memcpy(s->sorted, s->probs, (size_t)s->vocab * sizeof *s->sorted);
    double least = kth_largest(s->sorted, s->vocab, s->top_k);
    for (int64_t i = 0; i < s->vocab; i++)
        if (s->probs[i] < least) s->probs[i] = -INFINITY;
}

/* Ascending; of equals the higher id first, so that the lower one is kept. */
static int by_probability(const void *a, const void *b, void *user) {
    const double *probs = user;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (probs[x] != probs[y]) return probs[x] < probs[y] ? -1 : 1;
    return x > y ? -1 : x < y;
}

/* `probs` sum to 1 before and after. */
static void keep_top_p(tm__sampler *s) {
    int64_t n = 0;
    double dropped = 0, kept = 0;
    if (s->top_p >= 1) return;
    for (int64_t i = 0; i < s->vocab; i++)
        if (s->probs[i] > 0) s->order[n++] = (int32_t)i;
    qsort_r(s->order, (size_t)n, sizeof *s->order, by_probability, s->probs);
    for (int64_t i = 0; i < n; i++) {
        dropped += s->probs[s->order[i]];
        if (dropped <= 1 - s->top_p && i < n - 1)
            s->probs[s->order[i]] = 0;
        else
            kept += s->probs[s->order[i]];
    }
    for (int64_t i = 0; i < s->vocab; i++) s->probs[i] /= kept;
}

void tm__sampler_probs(tm__sampler *s, const void *logits, tm_dtype act, const double **probs) {
    tm__convert(s->probs, TM_F64, logits, act, (size_t)s->vocab);
    for (int64_t i = 0; i < s->vocab; i++) s->probs[i] /= s->temperature;
    keep_top_k(s);
    softmax(s->probs, s->vocab);
    keep_top_p(s);
    *probs = s->probs;
}

static int32_t largest(const void *logits, tm_dtype act, int64_t n) {
    int64_t best = 0;
    if (act == TM_F64) {
        const double *x = logits;
        for (int64_t i = 1; i < n; i++)
            if (x[i] > x[best]) best = i;
    } else {
        const float *x = logits;
        for (int64_t i = 1; i < n; i++)
            if (x[i] > x[best]) best = i;
    }
    return (int32_t)best;
}

int32_t tm__sampler_pick(tm__sampler *s, const void *logits, tm_dtype act, tm__rng *rng) {
    if (s->temperature <= 0) return largest(logits, act, s->vocab);
    const double *probs;
    tm__sampler_probs(s, logits, act, &probs);
    double drawn = tm__rng_uniform(rng), sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < s->vocab; i++) {
        if (probs[i] <= 0) continue;
        sum += probs[i];
        last = i;
        if (drawn < sum) break; /* rounding may leave the sum below 1: then the last one it is */
    }
    return (int32_t)last;
}
