/* sdd_pairing.c: which prompts SDD trains on, and which unrelated answer each of them gets.
 *
 *   for each prompt i: draw answers j uniformly; take the first with cos(E_i, E_j) <= threshold;
 *                      after max_tries draws take the least similar of those drawn
 *
 * Works on embeddings alone, so it can be tested without a model (tests/unit/test_method_pairing.c). The category quota
 * and the values of tau and max_tries follow TamperBench (arXiv 2602.06911); the paper's own were not published.
 */
#include "method/method.h"

#include "data/data.h"

#include <stdlib.h>

/* Streams of the pairing's generator, by what they draw. */
enum { DRAW_ANSWERS, DRAW_QUANTILE, DRAW_ROWS };

/* ---- choosing prompts -------------------------------------------------------------------------------------------- */

bool tm__sdd_prompt(const tm_dataset *harmful, size_t row, const tm_message **system, const tm_message **user,
                    const tm_message **input) {
    size_t n;
    const tm_message *messages = tm_dataset_row(harmful, row, &n);
    *system = strcmp(messages[0].role, "system") == 0 ? &messages[0] : NULL;
    *user = *input = NULL;
    for (size_t i = 0; i < n; i++)
        if (strcmp(messages[i].role, "user") == 0) {
            *user = &messages[i];
            *input = i + 1 < n && strcmp(messages[i + 1].role, "input") == 0 ? &messages[i + 1] : NULL;
        }
    return *user && (*user)->content[0];
}

/* Rows with a distinct prompt in each, and the bucket of each; buckets are numbered as categories appear. */
typedef struct candidates {
    size_t *rows, *bucket, count, buckets;
} candidates;

static tm_status add_candidate(const tm_dataset *harmful, size_t row, tm__map *prompts, tm__map *names,
                               tm__string *text, candidates *c) {
    const tm_message *system, *user, *input;
    const char *category = tm__dataset_category(harmful, row);
    int32_t bucket;
    if (!tm__sdd_prompt(harmful, row, &system, &user, &input)) return TM_OK;
    text->len = 0;
    bool ok = tm__string_append(text, user->content, strlen(user->content) + 1) &&
              (!input || tm__string_append(text, input->content, strlen(input->content)));
    if (!ok) return tm__fail_memory();
    if (tm__map_get(prompts, text->data, text->len, NULL)) return TM_OK;
    if (!tm__map_put(prompts, text->data, text->len, 0)) return tm__fail_memory();
    if (!category) category = "";
    if (!tm__map_get(names, category, strlen(category), &bucket)) {
        bucket = (int32_t)c->buckets++;
        if (!tm__map_put(names, category, strlen(category), bucket)) return tm__fail_memory();
    }
    c->rows[c->count] = row;
    c->bucket[c->count++] = (size_t)bucket;
    return TM_OK;
}

static void candidates_release(candidates *c) {
    free(c->rows);
    free(c->bucket);
    *c = (candidates){0};
}

static tm_status find_candidates(const tm_dataset *harmful, candidates *found) {
    size_t rows = tm_dataset_rows(harmful);
    candidates c = {.rows = tm__alloc(rows, sizeof *c.rows), .bucket = tm__alloc(rows, sizeof *c.bucket)};
    tm__map prompts = {0}, names = {0};
    tm__string text = {0};
    tm_status status = c.rows && c.bucket ? TM_OK : tm__fail_memory();
    for (size_t row = 0; row < rows && status == TM_OK; row++)
        status = add_candidate(harmful, row, &prompts, &names, &text, &c);
    tm__map_free(&prompts);
    tm__map_free(&names);
    tm__string_free(&text);
    if (status == TM_OK)
        *found = c;
    else
        candidates_release(&c);
    return status;
}

/* Takes `quota` of every bucket in order, then fills up from the shuffled remainder. */
static tm_status take_quota(const candidates *c, size_t wanted, uint64_t seed, size_t *chosen) {
    size_t quota = wanted / c->buckets, taken = 0, left = 0;
    size_t *from_bucket = tm__zalloc(c->buckets, sizeof *from_bucket), *rest = tm__alloc(c->count, sizeof *rest);
    tm_status status = from_bucket && rest ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < c->count; i++) {
        if (from_bucket[c->bucket[i]] < quota) {
            from_bucket[c->bucket[i]]++;
            chosen[taken++] = c->rows[i];
        } else {
            rest[left++] = c->rows[i];
        }
    }
    if (status == TM_OK) {
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_PAIRING, DRAW_ROWS));
        tm__rng_shuffle(&rng, rest, left);
        for (size_t i = 0; taken < wanted; i++) chosen[taken++] = rest[i];
    }
    free(from_bucket);
    free(rest);
    return status;
}

tm_status tm__sdd_select(const tm_dataset *harmful, size_t wanted, uint64_t seed, size_t **rows, size_t *count) {
    candidates c;
    TM__TRY(find_candidates(harmful, &c));
    tm_status status = TM_OK;
    size_t *chosen = NULL;
    if (c.count == 0) TM__TRY_GOTO(status, tm__fail(TM_INVALID, NULL, "harmful", NULL, "holds no prompt"), done);
    if (wanted > c.count)
        TM__TRY_GOTO(status,
                     tm__fail(TM_INVALID, NULL, "prompts", "take fewer, or 0 for all",
                              "%zu prompts are wanted, %zu distinct ones are there", wanted, c.count),
                     done);
    if (wanted == 0) wanted = c.count;
    chosen = tm__alloc(wanted, sizeof *chosen);
    if (!chosen) TM__TRY_GOTO(status, tm__fail_memory(), done);
    if (wanted == c.count)
        memcpy(chosen, c.rows, wanted * sizeof *chosen);
    else
        TM__TRY_GOTO(status, take_quota(&c, wanted, seed, chosen), done);
    *rows = chosen;
    *count = wanted;
    chosen = NULL;
done:
    free(chosen);
    candidates_release(&c);
    return status;
}

/* ---- similarity -------------------------------------------------------------------------------------------------- */

/* Rounding can carry a product of unit vectors past 1. */
static double cosine(const double *a, const double *b, size_t d) {
    double sum = 0;
    for (size_t i = 0; i < d; i++) sum += a[i] * b[i];
    return fmin(fmax(sum, -1), 1);
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

tm_status tm__sdd_threshold(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double q,
                            uint64_t seed, double *threshold) {
    if (q >= 1) {
        *threshold = 1;
        return TM_OK;
    }
    bool all = n <= TM__SDD_SAMPLE / m;
    size_t count = all ? n * m : TM__SDD_SAMPLE;
    double *values = tm__alloc(count, sizeof *values);
    if (!values) return tm__fail_memory();
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_PAIRING, DRAW_QUANTILE));
    for (size_t k = 0; k < count; k++) {
        size_t i = all ? k / m : (size_t)tm__rng_below(&rng, n), j = all ? k % m : (size_t)tm__rng_below(&rng, m);
        values[k] = cosine(prompts + i * d, pool + j * d, d);
    }
    qsort(values, count, sizeof *values, rising);
    *threshold = values[(size_t)(q * (double)(count - 1))];
    free(values);
    return TM_OK;
}

void tm__sdd_pair_all(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double threshold,
                      int64_t max_tries, uint64_t seed, tm__sdd_pair *pairs) {
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_PAIRING, DRAW_ANSWERS));
    for (size_t i = 0; i < n; i++) {
        tm__sdd_pair best = {.cosine = INFINITY};
        int64_t tries = 0;
        while (tries < max_tries && !best.accepted) {
            size_t j = (size_t)tm__rng_below(&rng, m);
            double similarity = cosine(prompts + i * d, pool + j * d, d);
            tries++;
            if (similarity < best.cosine)
                best = (tm__sdd_pair){.answer = j, .cosine = similarity, .accepted = similarity <= threshold};
        }
        best.tries = tries;
        pairs[i] = best;
    }
}
