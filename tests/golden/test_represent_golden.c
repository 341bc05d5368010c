/* test_represent_golden.c: hidden states against transformers' output_hidden_states, their principal components and a
 * linear probe against scikit-learn. tools/golden/represent.py wrote the fixture.
 */
#include "golden.h"

#include "eval/represent.h"

enum { ROWS = 24, LAYERS = 3, WIDTH = 16, AXES = 3 };

static tm_tensor find(const char *format, ...) {
    char key[64];
    tm_tensor t;
    va_list args;
    va_start(args, format);
    vsnprintf(key, sizeof key, format, args);
    va_end(args);
    assert_ok(tm__safetensors_find(expected, key, &t));
    return t;
}

static double *reals(tm_tensor t) {
    size_t n = (size_t)tm__tensor_count(&t);
    double *out = malloc(n * sizeof *out);
    tm__convert(out, TM_F64, t.data, t.dtype, n);
    return out;
}

static void same(const char *what, const double *got, const double *want, size_t n, double bound) {
    double error = test_relative_error(got, want, n);
    if (!(error <= bound)) fail_msg("%s: error %.3g", what, error);
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static tm_dataset *harmful, *harmless;

static tm_representation *represent(int position, int fit, const char *device_name) {
    static const char *const homes[] = {"golden/mcq/model", "golden/represent/after"};
    tm_represent_options options;
    tm_representation *r = NULL;
    tm_device *device = NULL;
    tm_tokenizer *tokenizer = NULL;
    const tm_device_options where = {.name = device_name,
                                     .threads = 2,
                                     .precision = strcmp(device_name, "ref") ? TM_PRECISION_F32 : TM_PRECISION_F64};
    tm_options_default(tm_represent_option_table, &options);
    options.position = position;
    options.fit = fit;
    options.components = AXES;
    options.chat = TM_CHAT_PLAIN;
    assert_ok(tm_device_open(&where, &device));
    assert_ok(tm_tokenizer_load(test_path(homes[0]), &tokenizer));
    assert_ok(tm_representation_create(harmful, harmless, &options, &r));
    for (int m = 0; m < 2; m++) {
        tm_model *model = NULL;
        assert_ok(tm_model_load(device, test_path(homes[m]), NULL, &model));
        assert_ok(tm_representation_add(r, m ? "after" : "before", model, tokenizer, NULL));
        tm_model_free(model);
    }
    assert_ok(tm_representation_finish(r, device));
    assert_int_equal(r->count, ROWS);
    tm_tokenizer_free(tokenizer);
    tm_device_close(device);
    return r;
}

/* The fixture's place of the i-th row that was chosen. */
static size_t place(const tm_representation *r, size_t i) {
    return r->rows[i].row + (r->rows[i].harmful ? 0 : ROWS / 2);
}

static void test_states(void **state) {
    static const char *const positions[] = {"last", "prompt", "answer"}, *const devices[] = {"ref", "cpu"};
    static const double bounds[] = {1e-7, 5e-6}; /* fp64, kept in single precision; fp32 throughout */
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int p = 0; p < 3; p++) {
            tm_representation *r = represent(p, TM_REPRESENT_FIT_FIRST, devices[d]);
            for (size_t m = 0; m < 2; m++) {
                double *want = reals(find("states.%zu.%s", m, positions[p]));
                for (size_t l = 0; l < LAYERS; l++)
                    for (size_t i = 0; i < ROWS; i++) {
                        double got[WIDTH];
                        for (size_t j = 0; j < WIDTH; j++)
                            got[j] = (double)r->models[m].states[(l * ROWS + i) * WIDTH + j];
                        same(positions[p], got, want + (l * ROWS + place(r, i)) * WIDTH, WIDTH, bounds[d]);
                    }
                free(want);
            }
            tm_representation_free(r);
        }
}

/* From texts to coordinates. Bounds: states are kept in single precision, which components pass on. */
static void test_components(void **state) {
    static const char *const fits[] = {"first", "union", "each"};
    (void)state;
    for (int fit = 0; fit < 3; fit++) {
        tm_representation *r = represent(TM_REPRESENT_PROMPT, fit, "ref");
        for (size_t m = 0; m < 2; m++) {
            double *points = reals(find("%s.%zu.points", fits[fit], m));
            double *explained = reals(find("%s.%zu.explained", fits[fit], m));
            for (size_t l = 0; l < LAYERS; l++) {
                tm_represent_layer layer;
                double want[ROWS * AXES];
                assert_true(tm_representation_layer(r, m, l, &layer));
                assert_int_equal(layer.layer, l);
                for (size_t i = 0; i < ROWS; i++)
                    memcpy(want + i * AXES, points + (l * ROWS + place(r, i)) * AXES, AXES * sizeof *want);
                same(fits[fit], layer.points, want, ROWS * AXES, 1e-6);
                same("explained", layer.explained, explained + l * AXES, AXES, 1e-6);
            }
            free(points);
            free(explained);
        }
        tm_representation_free(r);
    }
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void points_of(const float *x, int64_t n, int64_t d, const float **rows, tm__points *points) {
    for (int64_t i = 0; i < n; i++) rows[i] = x + i * d;
    *points = (tm__points){.x = rows, .n = n, .d = d};
}

static void check_case(const json_t *c) {
    const char *name = json_string_value(json_object_get(c, "name"));
    const int64_t n = json_integer_value(json_object_get(c, "n")), d = json_integer_value(json_object_get(c, "d"));
    const float *x = find("%s.x", name).data, *rows[64];
    const uint8_t *marks = find("%s.labels", name).data;
    double *axes = reals(find("%s.axes", name)), *explained = reals(find("%s.explained", name));
    double *centre = reals(find("%s.centre", name)), *points = reals(find("%s.points", name));
    double *want_w = reals(find("%s.weights", name)), *f = reals(find("%s.f", name));
    double got_axes[4 * 50], got_explained[4], got_centre[50], got_points[64 * 4], own[4], w[50], got_f[64], bias;
    double want_bias = json_number_value(json_object_get(c, "bias")), right = 0;
    bool labels[128];
    tm__points train, test;
    tm__probe probe;
    points_of(x, n, d, rows, &train);
    assert_ok(tm__pca_fit(&train, 4, got_centre, got_axes, got_explained));
    same("axes", got_axes, axes, (size_t)(4 * d), 1e-10); /* signs too */
    same("explained", got_explained, explained, 4, 1e-10);
    same("centre", got_centre, centre, (size_t)d, 1e-12);
    for (int64_t i = 0; i < 2 * n; i++) labels[i] = marks[i] != 0;
    assert_ok(tm__probe_prepare(&train, &probe));
    assert_ok(tm__probe_fit(&probe, labels, json_number_value(json_object_get(c, "c")), w, &bias));
    same("weights", w, want_w, (size_t)d, 1e-8);
    same("bias", &bias, &want_bias, 1, 1e-8);
    points_of(x + n * d, n, d, rows, &test);
    tm__pca_project(&test, 4, got_centre, got_axes, got_points, own);
    same("points", got_points, points, (size_t)(4 * n), 1e-10);
    tm__probe_apply(&probe, w, bias, &test, got_f);
    same("decision", got_f, f, (size_t)n, 1e-8);
    for (int64_t i = 0; i < n; i++) right += (got_f[i] > 0) == labels[n + i];
    assert_true(right / (double)n == json_number_value(json_object_get(c, "accuracy")));
    assert_true(fabs(tm__probe_auc(got_f, labels + n, n) - json_number_value(json_object_get(c, "auc"))) < 1e-12);
    tm__probe_release(&probe);
    free(axes);
    free(explained);
    free(centre);
    free(points);
    free(want_w);
    free(f);
}

static void test_numbers(void **state) {
    size_t i;
    json_t *c;
    (void)state;
    json_array_foreach(golden_at("cases"), i, c) check_case(c);
    assert_int_equal(i, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_states), cmocka_unit_test(test_components),
                                       cmocka_unit_test(test_numbers)};
    if (!golden_open("golden/represent")) return 1;
    harmful = golden_rows("harmful");
    harmless = golden_rows("harmless");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tm_dataset_free(harmful);
    tm_dataset_free(harmless);
    golden_close();
    return failed;
}
