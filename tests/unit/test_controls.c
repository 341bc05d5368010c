/* The controls: gradient ascent, additional safety training, random perturbation of the weights. */
#include "methods.h"

static tm_dataset *rows;

static int setup(void **state) {
    rows = tiny_rows("rows", 7);
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(rows);
    return tiny_teardown(state);
}

/* ---- gradient ascent ---- */

/* -G is SFT's gradient, bit by bit. */
static tm_status both_ways(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * t->options->batch, t->options->batch, 1};
    tm__pass_result result;
    tm__vector up;
    double norm;
    assert_ok(tm__vector_create(&t->set, &up));
    assert_ok(tm__ascent_step(t, NULL, loss, tokens, targets));
    assert_ok(tm__grads_save(&t->set, &up));
    tm__grads_zero(&t->set);
    assert_ok(tm__trainer_pass(t, &pass, &result));
    assert_ok(tm__grads_norm(&t->set, &norm));
    assert_true(norm > 1e-2);
    assert_ok(tm__grads_axpy(&t->set, 1, &up));
    assert_ok(tm__grads_norm(&t->set, &norm));
    assert_true(norm == 0 && *loss == -result.loss);
    ++*(int *)user;
    tm__vector_release(&t->set, &up);
    return TM_OK;
}

static void test_ascent_is_minus_sft(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options train = methods_options(false);
    tm__examples e;
    int steps = 0;
    assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 512, true, NULL, &e));
    assert_ok(tm__model_train_full(model));
    const tm__run run = {.tag = "", .step = both_ways, .user = &steps};
    assert_ok(tm__trainer_run(model, &e, &train, NULL, &run, NULL));
    assert_int_equal(steps, train.steps);
    tm__examples_release(&e);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_ascent_raises_the_loss_and_is_capped(void **state) {
    (void)state;
    const tm_method_data data = {.harmful = rows};
    tm_gradient_ascent_options o = {.cap = 5};
    tm_train_options train = methods_options(false);
    countdown c = {.steps_left = 99}, answers = c;
    char a[65], b[65];
    train.steps = 0;
    train.epochs = 50;
    train.schedule = 0;
    assert_ok(methods_run(&tm__method_gradient_ascent, &data, &o, &train, &c, a, NULL));
    assert_int_equal(c.count, 5);
    assert_true(c.losses[4] < c.losses[0] - .1); /* loss is minus the cross-entropy */
    o.answers = true;
    assert_ok(methods_run(&tm__method_gradient_ascent, &data, &o, &train, &answers, b, NULL));
    assert_string_not_equal(a, b);
    train.steps = 3; /* below the cap nothing is cut */
    train.epochs = 0;
    c = (countdown){.steps_left = 99};
    assert_ok(methods_run(&tm__method_gradient_ascent, &data, &o, &train, &c, a, NULL));
    assert_int_equal(c.count, 3);
}

static void test_ascent_resumes(void **state) {
    (void)state;
    const tm_method_data data = {.harmful = rows};
    methods_resume(&tm__method_gradient_ascent, &data, NULL, rows);
}

/* ---- additional safety training ---- */

static void test_safety_training_is_sft(void **state) {
    (void)state;
    const tm_method_data data = {.refusals = rows}, none = {.harmful = rows};
    const tm_train_options train = methods_options(false);
    char hex[65];
    methods_equal_sft(&tm__method_safety_training, &data, NULL, rows, true);
    assert_int_equal(methods_run(&tm__method_safety_training, &none, NULL, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "refusals");
}

/* ---- random perturbation ---- */

typedef struct weights {
    double values[40000];
    size_t count;
} weights;

static tm_status take(void *to, tm__param *param, bool is_adapter) {
    weights *w = to;
    size_t n = (size_t)tm__tensor_count(&param->value);
    assert_false(is_adapter);
    assert_true(w->count + n <= TM__COUNT(w->values));
    tm__convert(w->values + w->count, TM_F64, param->value.data, param->value.dtype, n);
    w->count += n;
    return TM_OK;
}

/* What was added, entry by entry. */
static weights *noise_of(const tm_random_perturbation_options *o, int64_t seed, char hex[65]) {
    const tm_method_data data = {0};
    tm_train_options train = methods_options(false);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *moved = NULL;
    weights *before = calloc(1, sizeof *before), *after = calloc(1, sizeof *after);
    train.seed = seed;
    assert_ok(methods_run(&tm__method_random_perturbation, &data, o, &train, NULL, hex, &moved));
    assert_ok(tm__model_params(model, take, before));
    assert_ok(tm__model_params(moved, take, after));
    assert_int_equal(before->count, after->count);
    for (size_t i = 0; i < after->count; i++) after->values[i] -= before->values[i];
    free(before);
    methods_free(moved);
    tm_model_free(model);
    tm_device_close(device);
    return after;
}

static void moments(const weights *w, double *mean, double *deviation, double *kurtosis) {
    double n = (double)w->count, m = 0, v = 0, k = 0;
    for (size_t i = 0; i < w->count; i++) m += w->values[i] / n;
    for (size_t i = 0; i < w->count; i++) v += (w->values[i] - m) * (w->values[i] - m) / n;
    for (size_t i = 0; i < w->count; i++) k += pow(w->values[i] - m, 4) / (n * v * v);
    *mean = m;
    *deviation = sqrt(v);
    *kurtosis = k;
}

/* About 23,000 entries: the bounds are five standard errors. */
static void test_noise_is_normal(void **state) {
    (void)state;
    const tm_random_perturbation_options o = {.sigma = .02};
    char a[65], b[65], c[65];
    weights *w = noise_of(&o, 42, a);
    double mean, deviation, kurtosis, n = (double)w->count;
    assert_true(w->count > 10000);
    moments(w, &mean, &deviation, &kurtosis);
    assert_true(fabs(mean) < 5 * .02 / sqrt(n));
    assert_true(fabs(deviation / .02 - 1) < 5 / sqrt(2 * n));
    assert_true(fabs(kurtosis - 3) < 5 * sqrt(24 / n));
    /* Every tensor has noise of its own: no two entries at the same place of the embedding and of what follows agree.
     */
    for (size_t i = 0; i < 32; i++) assert_true(fabs(w->values[i] - w->values[TINY_VOCAB * 32 + i]) > 1e-7);
    free(w);
    free(noise_of(&o, 42, b));
    free(noise_of(&o, 43, c));
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
}

static void test_noise_of_a_norm(void **state) {
    (void)state;
    const tm_random_perturbation_options o = {.sigma = .02, .norm = .7}, zero = {.sigma = 0};
    char hex[65], fresh[65];
    weights *w = noise_of(&o, 42, hex);
    double square = 0;
    for (size_t i = 0; i < w->count; i++) square += w->values[i] * w->values[i];
    assert_true(fabs(sqrt(square) - .7) <= 1e-5 * .7);
    free(w);
    free(noise_of(&zero, 42, hex));
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tiny_hash(model, fresh);
    assert_string_equal(hex, fresh);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_noise_wants_no_adapter(void **state) {
    (void)state;
    const tm_method_data data = {0};
    const tm_train_options train = methods_options(true);
    char hex[65];
    assert_int_equal(methods_run(&tm__method_random_perturbation, &data, NULL, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "lora-rank");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascent_is_minus_sft),    cmocka_unit_test(test_ascent_raises_the_loss_and_is_capped),
        cmocka_unit_test(test_ascent_resumes),         cmocka_unit_test(test_safety_training_is_sft),
        cmocka_unit_test(test_noise_is_normal),        cmocka_unit_test(test_noise_of_a_norm),
        cmocka_unit_test(test_noise_wants_no_adapter),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
