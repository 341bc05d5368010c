/* Panacea end to end on a tiny model: what it adds to SFT, what it saves, and that it resumes to the same bytes. */
#include "methods.h"

static tm_dataset *user, *harmful;
static tm_method_data data;

static int setup(void **state) {
    user = tiny_rows("user", 7);
    harmful = tiny_rows("harmful", 5);
    data = (tm_method_data){.user = user, .harmful = harmful};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(user);
    tm_dataset_free(harmful);
    return tiny_teardown(state);
}

static tm_panacea_options defaults(void) {
    tm_panacea_options o;
    tm_options_default(tm__method_panacea.options, &o);
    return o;
}

/* rho 0: epsilon is 0 and both harmful gradients are the same, so SFT's bytes come out. */
static void test_rho_zero_is_sft(void **state) {
    (void)state;
    tm_panacea_options o = defaults();
    o.rho = 0;
    o.lambda = 3;
    methods_equal_sft(&tm__method_panacea, &data, &o, user, true);
}

typedef struct weights {
    double *values;
    size_t count;
} weights;

static tm_status take(void *to, tm__param *param, bool is_adapter) {
    weights *w = to;
    size_t n = (size_t)tm__tensor_count(&param->value);
    assert_false(is_adapter);
    w->values = realloc(w->values, (w->count + n) * sizeof *w->values);
    assert_non_null(w->values);
    tm__convert(w->values + w->count, TM_F64, param->value.data, param->value.dtype, n);
    w->count += n;
    return TM_OK;
}

static weights weights_of(tm_model *model) {
    weights w = {0};
    assert_ok(tm__model_params(model, take, &w));
    return w;
}

static double distance(tm_model *a, tm_model *b) {
    weights x = weights_of(a), y = weights_of(b);
    double sum = 0;
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) sum += (x.values[i] - y.values[i]) * (x.values[i] - y.values[i]);
    free(x.values);
    free(y.values);
    return sqrt(sum);
}

/* lambda 0: the tuned model that is saved beside the result is SFT's, and the result is rho away from it. */
static void test_lambda_zero_tunes_as_sft(void **state) {
    (void)state;
    tm_panacea_options o = defaults();
    const tm_train_options train = methods_options(false);
    char sft[65], tuned_hash[65], result[65], *directory = tm__path_join(test_scratch(), "tuned");
    tm_model *moved = NULL, *tuned = NULL;
    o.lambda = 0;
    o.rho = .7;
    o.tuned = directory;
    assert_ok(methods_run(&tm__method_panacea, &data, &o, &train, NULL, result, &moved));
    assert_ok(methods_run(NULL, &data, NULL, &train, NULL, sft, NULL));
    assert_ok(tm_model_load(tm_model_device(moved), directory, NULL, &tuned));
    tiny_hash(tuned, tuned_hash);
    assert_string_equal(tuned_hash, sft);
    assert_string_not_equal(result, sft);
    double norm = distance(moved, tuned);
    assert_true(fabs(norm - .7) <= 1e-5 * .7);
    tm_model_free(tuned);
    methods_free(moved);
    free(directory);
}

/* w after one step of plain gradient descent of length 1 on the harmful rows, from the model in `directory` (NULL: the
 * fresh one): w - grad h(w), over all of the harmful rows at once. */
static weights descended(const char *directory, weights *before) {
    tm_device *device = tiny_device("cpu");
    tm_model *model;
    tm_train_options train = tiny_options();
    train.steps = 1;
    train.batch = 5;
    train.optimiser = 1;
    train.clip = 0;
    train.lr = 1;
    if (directory)
        assert_ok(tm_model_load(device, directory, NULL, &model));
    else
        model = tiny_model(device);
    *before = weights_of(model);
    assert_ok(tm_train(model, tokenizer, harmful, &train, NULL, NULL));
    weights after = weights_of(model);
    tm_model_free(model);
    tm_device_close(device);
    return after;
}

/* saved - w_T = e_T = + rho grad h / |grad h|: its length, direction and sign, at w_T with --batches, else at the
 * weights before the last step. */
static void test_what_is_added(void **state) {
    (void)state;
    for (int batches = 0; batches < 2; batches++) {
        tm_panacea_options o = defaults();
        tm_train_options train = methods_options(false);
        char hex[65], *directory = tm__path_join(test_scratch(), "tuned");
        tm_model *moved = NULL, *tuned = NULL;
        weights start;
        train.batch = 5;
        train.steps = 1;
        o.rho = .5;
        o.batches = batches;
        o.tuned = directory;
        assert_ok(methods_run(&tm__method_panacea, &data, &o, &train, NULL, hex, &moved));
        assert_ok(tm_model_load(tm_model_device(moved), directory, NULL, &tuned));
        weights down = descended(batches ? directory : NULL, &start), w = weights_of(tuned), got = weights_of(moved);
        double square = 0, error = 0;
        assert_int_equal(down.count, got.count);
        for (size_t i = 0; i < got.count; i++) {
            down.values[i] = start.values[i] - down.values[i]; /* grad h */
            got.values[i] -= w.values[i];
            square += down.values[i] * down.values[i];
        }
        for (size_t i = 0; i < got.count; i++) down.values[i] *= .5 / sqrt(square);
        error = test_relative_error(got.values, down.values, got.count);
        if (!(error < 1e-4)) fail_msg("batches %d: %g", batches, error);
        free(down.values);
        free(start.values);
        free(w.values);
        free(got.values);
        tm_model_free(tuned);
        methods_free(moved);
        free(directory);
    }
}

static double harmful_loss(tm_model *model, const tm_train_options *train) {
    tm_loss_report report;
    assert_ok(tm_eval_loss(model, tokenizer, harmful, train, NULL, &report));
    return report.loss;
}

/* h(w + e) > h(w), and by about |e| |grad h| for a small step; the affinity file tells the same norms. */
static void test_the_perturbation_raises_the_harmful_loss(void **state) {
    (void)state;
    tm_panacea_options o = defaults();
    tm_train_options train = methods_options(false);
    char hex[65], *directory = tm__path_join(test_scratch(), "tuned"),
                  *file = tm__path_join(test_scratch(), "affinity");
    tm_model *moved = NULL, *tuned = NULL;
    train.batch = 5; /* every batch holds all harmful rows */
    o.rho = .02;
    o.batches = 2;
    o.tuned = directory;
    o.affinity = file;
    assert_ok(methods_run(&tm__method_panacea, &data, &o, &train, NULL, hex, &moved));
    assert_ok(tm_model_load(tm_model_device(moved), directory, NULL, &tuned));
    assert_true(harmful_loss(moved, &train) > harmful_loss(tuned, &train) + 1e-3);
    assert_true(fabs(distance(moved, tuned) - .02) <= 1e-5);
    json_t *json;
    assert_ok(tm__json_load(file, &json));
    double sum = 0;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(json, "parameters"), i, row) {
        double norm = json_number_value(json_object_get(row, "epsilon_norm"));
        assert_non_null(json_string_value(json_object_get(row, "name")));
        assert_true(json_number_value(json_object_get(row, "weight_norm")) > 0);
        sum += norm * norm;
    }
    assert_true(i > 10 && fabs(sqrt(sum) - .02) <= 1e-6);
    json_decref(json);
    tm_model_free(tuned);
    methods_free(moved);
    free(directory);
    free(file);
}

static void test_resume(void **state) {
    (void)state;
    tm_panacea_options o = defaults();
    o.lambda = .5;
    o.rho = .3;
    methods_resume(&tm__method_panacea, &data, &o, user);
    o.batches = 2;
    methods_resume(&tm__method_panacea, &data, &o, user);
}

static void test_options_count(void **state) {
    (void)state;
    tm_panacea_options a = defaults(), b = a;
    const tm_train_options train = methods_options(false);
    char x[65], y[65];
    b.lambda = 2 * a.lambda;
    assert_ok(methods_run(&tm__method_panacea, &data, &a, &train, NULL, x, NULL));
    assert_ok(methods_run(&tm__method_panacea, &data, &b, &train, NULL, y, NULL));
    assert_string_not_equal(x, y);
    b = a;
    b.batches = 1; /* the perturbation of the weights at the end, not of those before the last step */
    assert_ok(methods_run(&tm__method_panacea, &data, &b, &train, NULL, y, NULL));
    assert_string_not_equal(x, y);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_method_data bad[] = {{.user = user}, {.harmful = harmful}};
    const tm_train_options train = methods_options(false);
    tm_panacea_options o = defaults();
    char hex[65];
    for (size_t i = 0; i < TM__COUNT(bad); i++)
        assert_int_equal(methods_run(&tm__method_panacea, &bad[i], NULL, &train, NULL, hex, NULL), TM_INVALID);
    o.rho = -1;
    assert_int_equal(methods_run(&tm__method_panacea, &data, &o, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "rho");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rho_zero_is_sft), cmocka_unit_test(test_lambda_zero_tunes_as_sft),
        cmocka_unit_test(test_what_is_added),   cmocka_unit_test(test_the_perturbation_raises_the_harmful_loss),
        cmocka_unit_test(test_resume),          cmocka_unit_test(test_options_count),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
