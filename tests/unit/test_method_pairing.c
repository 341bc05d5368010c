/* SDD's pairing over embeddings, and its choice of prompts: the invariants of the method specification. */
#include "support.h"

#include "data/data.h"
#include "method/method.h"

enum { D = 6, PROMPTS = 200, POOL = 40 };

static void fill(double *out, size_t n, uint32_t index) {
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, index));
    for (size_t i = 0; i < n; i++) {
        double norm = 0;
        for (size_t k = 0; k < D; k++) out[i * D + k] = tm__rng_normal(&rng) + .5;
        for (size_t k = 0; k < D; k++) norm += out[i * D + k] * out[i * D + k];
        for (size_t k = 0; k < D; k++) out[i * D + k] /= sqrt(norm);
    }
}

static double prompts[PROMPTS * D], pool[POOL * D];

static double cosine(size_t i, size_t j) {
    double sum = 0;
    for (size_t k = 0; k < D; k++) sum += prompts[i * D + k] * pool[j * D + k];
    return sum;
}

static void test_accepted_stay_below_the_threshold(void **state) {
    (void)state;
    tm__sdd_pair pairs[PROMPTS];
    size_t accepted = 0, fallbacks = 0;
    tm__sdd_pair_all(prompts, PROMPTS, pool, POOL, D, -.2, 5, 42, pairs);
    for (size_t i = 0; i < PROMPTS; i++) {
        assert_true(pairs[i].answer < POOL);
        assert_true(fabs(pairs[i].cosine - cosine(i, pairs[i].answer)) < 1e-12);
        assert_true(pairs[i].tries >= 1 && pairs[i].tries <= 5);
        assert_true(pairs[i].accepted == (pairs[i].cosine <= -.2));
        if (!pairs[i].accepted) assert_int_equal(pairs[i].tries, 5);
        accepted += pairs[i].accepted;
        fallbacks += !pairs[i].accepted;
    }
    assert_true(accepted > 20 && fallbacks > 20); /* both ways were taken */
}

static void test_fallback_is_the_least_similar_drawn(void **state) {
    (void)state;
    tm__sdd_pair few[PROMPTS], many[PROMPTS];
    tm__sdd_pair_all(prompts, 1, pool, POOL, D, -1, 3, 42, few);
    tm__sdd_pair_all(prompts, 1, pool, POOL, D, -1, 5000, 42, many);
    size_t least = 0;
    for (size_t j = 0; j < POOL; j++)
        if (cosine(0, j) < cosine(0, least)) least = j;
    assert_int_equal(many[0].answer, least);
    assert_int_equal(many[0].tries, 5000);
    assert_true(few[0].cosine >= many[0].cosine);
}

/* "At most": a cosine of exactly the threshold is accepted, at the first draw. */
static void test_the_threshold_itself_is_accepted(void **state) {
    (void)state;
    const double along[2] = {1, 0}, half[2] = {.5, .75}; /* the product is exactly .5 */
    tm__sdd_pair pair;
    tm__sdd_pair_all(along, 1, half, 1, 2, .5, 50, 42, &pair);
    assert_true(pair.accepted && pair.tries == 1 && pair.cosine == .5);
    tm__sdd_pair_all(along, 1, half, 1, 2, nextafter(.5, 0), 50, 42, &pair);
    assert_true(!pair.accepted && pair.tries == 50);
}

static void test_everything_is_accepted_at_one(void **state) {
    (void)state;
    tm__sdd_pair pairs[PROMPTS];
    double threshold;
    assert_ok(tm__sdd_threshold(prompts, PROMPTS, pool, POOL, D, 1, 42, &threshold));
    assert_true(threshold == 1);
    tm__sdd_pair_all(prompts, PROMPTS, prompts, PROMPTS, D, threshold, 50, 42, pairs); /* equal texts among them */
    for (size_t i = 0; i < PROMPTS; i++) assert_true(pairs[i].accepted && pairs[i].tries == 1);
}

static void test_pool_of_one(void **state) {
    (void)state;
    tm__sdd_pair pairs[PROMPTS];
    tm__sdd_pair_all(prompts, PROMPTS, pool, 1, D, -1, 50, 42, pairs);
    for (size_t i = 0; i < PROMPTS; i++)
        assert_true(!pairs[i].accepted && pairs[i].answer == 0 && pairs[i].tries == 50);
}

static void test_seed(void **state) {
    (void)state;
    tm__sdd_pair a[PROMPTS], b[PROMPTS], c[PROMPTS];
    tm__sdd_pair_all(prompts, PROMPTS, pool, POOL, D, .1, 50, 42, a);
    tm__sdd_pair_all(prompts, PROMPTS, pool, POOL, D, .1, 50, 42, b);
    tm__sdd_pair_all(prompts, PROMPTS, pool, POOL, D, .1, 50, 43, c);
    size_t differing = 0;
    for (size_t i = 0; i < PROMPTS; i++) {
        assert_true(a[i].answer == b[i].answer && a[i].cosine == b[i].cosine && a[i].tries == b[i].tries);
        differing += a[i].answer != c[i].answer;
    }
    assert_true(differing > PROMPTS / 2);
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_threshold_is_a_quantile(void **state) {
    (void)state;
    static double all[PROMPTS * POOL];
    for (size_t i = 0; i < PROMPTS; i++)
        for (size_t j = 0; j < POOL; j++) all[i * POOL + j] = cosine(i, j);
    qsort(all, PROMPTS * POOL, sizeof all[0], rising);
    const double qs[] = {0, .1, .25, .5, .99};
    for (size_t i = 0; i < TM__COUNT(qs); i++) {
        double threshold;
        assert_ok(tm__sdd_threshold(prompts, PROMPTS, pool, POOL, D, qs[i], 42, &threshold));
        assert_true(threshold == all[(size_t)(qs[i] * (PROMPTS * POOL - 1))]);
    }
}

/* Above TM__SDD_SAMPLE pairs a sample stands for all: its quantile is near, and fixed by the seed. */
static void test_threshold_of_a_sample(void **state) {
    (void)state;
    enum { N = 1000, M = 500 };
    double *x = tm__alloc(N * D, sizeof *x), *y = tm__alloc(M * D, sizeof *y), *all = tm__alloc(N * M, sizeof *all);
    double threshold, again;
    fill(x, N, 8);
    fill(y, M, 9);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < M; j++) {
            double sum = 0;
            for (size_t k = 0; k < D; k++) sum += x[i * D + k] * y[j * D + k];
            all[i * M + j] = sum;
        }
    qsort(all, N * M, sizeof *all, rising);
    assert_ok(tm__sdd_threshold(x, N, y, M, D, .25, 42, &threshold));
    assert_ok(tm__sdd_threshold(x, N, y, M, D, .25, 42, &again));
    assert_true(threshold == again);
    /* standard error of the share below is sqrt(.25 * .75 / 200000) < .001; five of them */
    assert_true(threshold > all[(size_t)(.245 * N * M)] && threshold < all[(size_t)(.255 * N * M)]);
    free(x);
    free(y);
    free(all);
}

/* ---- choice of prompts ------------------------------------------------------------------------------------------- */

static void add(tm_dataset *d, const char *category, int number) {
    char text[64];
    snprintf(text, sizeof text, "%s %d", category ? category : "none", number);
    const tm_message row[] = {{"user", text}};
    assert_ok(tm__dataset_add(d, row, 1, category));
}

static size_t count_of(const tm_dataset *d, const size_t *rows, size_t n, const char *category) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += strcmp(tm__dataset_category(d, rows[i]), category) == 0;
    return count;
}

static void test_categories_are_balanced(void **state) {
    (void)state;
    tm_dataset *d;
    size_t *rows, count;
    assert_ok(tm_dataset_create(&d));
    for (int i = 0; i < 50; i++) add(d, "a", i);
    for (int i = 0; i < 20; i++) add(d, "b", i);
    for (int i = 0; i < 30; i++) add(d, "c", i);
    assert_ok(tm__sdd_select(d, 32, 42, &rows, &count));
    assert_int_equal(count, 32);
    size_t a = count_of(d, rows, 30, "a"), b = count_of(d, rows, 30, "b"), c = count_of(d, rows, 30, "c");
    assert_true(a == 10 && b == 10 && c == 10); /* the quota; two more come from the remainder */
    bool seen[100] = {false};
    for (size_t i = 0; i < count; i++) {
        assert_false(seen[rows[i]]);
        seen[rows[i]] = true;
    }
    free(rows);
    assert_ok(tm__sdd_select(d, 90, 42, &rows, &count)); /* b and c cannot give 30 each */
    assert_true(count == 90 && count_of(d, rows, 90, "b") <= 20);
    free(rows);
    for (size_t wanted = 0; wanted <= 100; wanted += 100) { /* all, in their order */
        assert_ok(tm__sdd_select(d, wanted, 42, &rows, &count));
        assert_int_equal(count, 100);
        for (size_t i = 0; i < 100; i++) assert_int_equal(rows[i], i);
        free(rows);
    }
    assert_int_equal(tm__sdd_select(d, 101, 42, &rows, &count), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "101 prompts are wanted, 100 distinct ones are there"));
    tm_dataset_free(d);
}

static void test_prompts_are_distinct(void **state) {
    (void)state;
    tm_dataset *d;
    size_t *rows, count;
    assert_ok(tm_dataset_create(&d));
    assert_int_equal(tm__sdd_select(d, 0, 42, &rows, &count), TM_INVALID);
    for (int i = 0; i < 5; i++) add(d, NULL, i % 3);
    const tm_message input[] = {{"user", "none 1"}, {"input", "x"}}, nothing[] = {{"user", ""}};
    assert_ok(tm_dataset_add(d, input, 2));
    assert_ok(tm_dataset_add(d, nothing, 1));
    assert_ok(tm__sdd_select(d, 0, 42, &rows, &count));
    assert_int_equal(count, 4); /* three prompts, and one of them with an input */
    assert_true(rows[0] == 0 && rows[1] == 1 && rows[2] == 2 && rows[3] == 5);
    free(rows);
    tm_dataset_free(d);
}

static void test_out_of_memory(void **state) {
    (void)state;
    tm_dataset *d;
    size_t *rows = NULL, count;
    assert_ok(tm_dataset_create(&d));
    for (int i = 0; i < 9; i++) add(d, i % 2 ? "a" : "b", i);
    tm_status status = TM_NO_MEMORY;
    long n;
    for (n = 1; status != TM_OK; n++) {
        assert_true(n < 100);
        tm__alloc_fail_at(n, false);
        status = tm__sdd_select(d, 5, 42, &rows, &count);
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
    }
    assert_true(n > 5);
    free(rows);
    tm_dataset_free(d);
}

static void test_registry(void **state) {
    (void)state;
    for (size_t i = 0; tm_method_at(i); i++) {
        const tm_method *method = tm_method_at(i);
        assert_ptr_equal(tm_method_find(method->name), method);
        assert_true(method->title && method->paper && method->summary && method->who && method->needs && method->run);
        void *options = tm__zalloc(1, method->options_size);
        tm_options_default(method->options, options); /* asserts that every default is in its range */
        free(options);
        for (const tm_option *o = method->options; o->name; o++) { /* one command line serves both tables */
            bool reads = !method->train_options || strstr(method->train_options, o->name);
            assert_false(reads && tm_options_find(tm_train_option_table, o->name));
        }
    }
    assert_non_null(tm_method_find("sdd"));
    assert_int_equal(tm_method_find("harmful-sft")->stage, TM_STAGE_ATTACK);
    assert_null(tm_method_find("none"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted_stay_below_the_threshold),
        cmocka_unit_test(test_fallback_is_the_least_similar_drawn),
        cmocka_unit_test(test_the_threshold_itself_is_accepted),
        cmocka_unit_test(test_everything_is_accepted_at_one),
        cmocka_unit_test(test_pool_of_one),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_threshold_is_a_quantile),
        cmocka_unit_test(test_threshold_of_a_sample),
        cmocka_unit_test(test_categories_are_balanced),
        cmocka_unit_test(test_prompts_are_distinct),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_registry),
    };
    fill(prompts, PROMPTS, 0);
    fill(pool, POOL, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
