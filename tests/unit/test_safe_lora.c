/* SafeLoRA: golden row A9 of the method specification, the projectors' properties, the choice of modules. */
#include "tiny.h"

#include "method/matrix.h"
#include "method/method.h"

static const double golden_v[6] = {1, 2, 0, 1, 1, 0}, golden_b[3] = {1, 2, 0}, golden_a[2] = {1, -1};

static void project(int projector, const double *b, double *pb, double *cosine) {
    double v[6];
    memcpy(v, golden_v, sizeof v);
    assert_ok(tm__safe_lora_project(v, 3, 2, b, golden_a, 1, projector, pb, cosine));
}

static void test_golden_projectors(void **state) {
    (void)state;
    static const double code[] = {3.4016802571, 1.5118578920, 0.3779644730}, exact[] = {1.5, 1, -.5};
    double pb[3], twice[3], cosine;
    project(TM__PROJECT_CODE, golden_b, pb, &cosine);
    assert_true(fabs(cosine - 0.7679817175) < 1e-9);
    for (int i = 0; i < 3; i++) assert_true(fabs(pb[i] - code[i]) < 1e-9);
    project(TM__PROJECT_EXACT, golden_b, pb, &cosine);
    assert_true(fabs(cosine - 0.8366600265) < 1e-9);
    for (int i = 0; i < 3; i++) assert_true(fabs(pb[i] - exact[i]) < 1e-12);
    project(TM__PROJECT_EXACT, pb, twice, &cosine); /* P P = P, and what lies in V's span keeps its direction */
    assert_true(fabs(cosine - 1) < 1e-12);
    for (int i = 0; i < 3; i++) assert_true(fabs(twice[i] - pb[i]) < 1e-12);
}

/* Dependent columns count once; a difference of full rank projects onto everything; nothing to compare is NAN. */
static void test_ranks(void **state) {
    (void)state;
    double same[] = {1, 2, 2, 4}, full[] = {1, 2, 3, 4}, none[4] = {0}, pb[2], cosine;
    const double b[] = {3, 1}, zero[2] = {0};
    assert_ok(tm__safe_lora_project(same, 2, 2, b, golden_a, 1, TM__PROJECT_EXACT, pb, &cosine));
    assert_true(fabs(pb[0] - 1) < 1e-12 && fabs(pb[1] - 2) < 1e-12); /* onto (1,2)/sqrt 5 */
    assert_ok(tm__safe_lora_project(full, 2, 2, b, golden_a, 1, TM__PROJECT_EXACT, pb, &cosine));
    assert_true(fabs(pb[0] - 3) < 1e-12 && fabs(pb[1] - 1) < 1e-12);
    assert_ok(tm__safe_lora_project(none, 2, 2, b, golden_a, 1, TM__PROJECT_CODE, pb, &cosine));
    assert_true(isnan(cosine));
    double again[] = {1, 2, 3, 4};
    assert_ok(tm__safe_lora_project(again, 2, 2, zero, golden_a, 1, TM__PROJECT_CODE, pb, &cosine));
    assert_true(isnan(cosine));
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

typedef struct models {
    tm_tokenizer *tokenizer;
    tm_device *device;
    const char *base, *aligned;
    tm_model *tuned; /* aligned, with an adapter */
} models;

static void models_begin(models *m) {
    const tm_save_options save = {.overwrite = true};
    tm_dataset *refusals = tiny_rows("refusals", 8), *user = tiny_rows("user", 8);
    tm_train_options train = tiny_options();
    m->tokenizer = tiny_tokenizer();
    m->device = tiny_device("cpu");
    m->base = test_scratch();
    m->aligned = test_scratch();
    tm_model *model = tiny_model(m->device);
    assert_ok(tm_model_save(model, m->base, &save));
    assert_ok(tm_train(model, m->tokenizer, refusals, &train, NULL, NULL));
    assert_ok(tm_model_save(model, m->aligned, &save));
    train.lora.rank = 2;
    train.lora.targets = "q_proj,down_proj";
    assert_ok(tm_train(model, m->tokenizer, user, &train, NULL, NULL));
    m->tuned = model;
    tm_dataset_free(refusals);
    tm_dataset_free(user);
}

static void models_end(models *m) {
    tm_model_free(m->tuned);
    tm_device_close(m->device);
    tm_tokenizer_free(m->tokenizer);
}

static void take_note(void *user, const char *line) {
    snprintf(user, 256, "%s", line);
}

static tm_status run(const models *m, double tau, int64_t lowest, int projector, char *note) {
    const tm_safe_lora_options o = {
        .base = m->base, .aligned = m->aligned, .tau = tau, .lowest = lowest, .projector = projector};
    const tm_method_data data = {0};
    const tm_monitor monitor = {.note = take_note, .user = note};
    return tm__method_safe_lora.run(m->tuned, m->tokenizer, &data, &o, NULL, &monitor, NULL);
}

static double *all_of_b(const models *m, int64_t layer, int index) {
    double *b;
    tm__linear *linear = tm__block_linear(&m->tuned->blocks[layer], index);
    assert_ok(tm__param_read_all(m->device, &linear->adapters[0].b, &b));
    return b;
}

static bool same_b(const models *m, int64_t layer, int index, const double *before) {
    double *now = all_of_b(m, layer, index);
    bool same = memcmp(now, before, (size_t)32 * 2 * sizeof *now) == 0;
    free(now);
    return same;
}

static void test_choice_of_modules(void **state) {
    (void)state;
    models m;
    char note[256];
    models_begin(&m);
    double *before[4];
    for (int i = 0; i < 4; i++) before[i] = all_of_b(&m, i / 2, i % 2 ? 6 : 0);
    assert_ok(run(&m, -1, 0, TM__PROJECT_CODE, note)); /* tau -1: identity */
    assert_non_null(strstr(note, "0 of 4 modules projected"));
    for (int i = 0; i < 4; i++) assert_true(same_b(&m, i / 2, i % 2 ? 6 : 0, before[i]));
    assert_ok(run(&m, -1, 1, TM__PROJECT_CODE, note));
    assert_non_null(strstr(note, "1 of 4 modules projected"));
    int changed = 0;
    for (int i = 0; i < 4; i++) changed += !same_b(&m, i / 2, i % 2 ? 6 : 0, before[i]);
    assert_int_equal(changed, 1);
    assert_ok(run(&m, 1, 0, TM__PROJECT_CODE, note));
    assert_non_null(strstr(note, "4 of 4 modules projected"));
    for (int i = 0; i < 4; i++) assert_false(same_b(&m, i / 2, i % 2 ? 6 : 0, before[i]));
    for (int i = 0; i < 4; i++) free(before[i]);
    models_end(&m);
}

/* B <- P B with P from the checkpoints, entry by entry. */
static void test_projection_of_a_module(void **state) {
    (void)state;
    models m;
    char note[256];
    models_begin(&m);
    tm_model *base, *aligned;
    assert_ok(tm_model_load(m.device, m.base, NULL, &base));
    assert_ok(tm_model_load(m.device, m.aligned, NULL, &aligned));
    double *w, *low, *b = all_of_b(&m, 1, 6), norm = 0, p[32 * 32] = {0};
    assert_ok(tm__param_read_all(m.device, &aligned->blocks[1].down.weight, &w)); /* (32, 48) */
    assert_ok(tm__param_read_all(m.device, &base->blocks[1].down.weight, &low));
    for (int i = 0; i < 32 * 48; i++) w[i] -= low[i];
    for (int i = 0; i < 32 * 48; i++) norm += w[i] * w[i];
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++)
            for (int k = 0; k < 48; k++) p[32 * i + j] += w[48 * i + k] * w[48 * j + k] / sqrt(norm);
    assert_ok(run(&m, 1, 0, TM__PROJECT_CODE, note));
    double *now = all_of_b(&m, 1, 6), worst = 0, largest = 0;
    for (int i = 0; i < 32; i++)
        for (int k = 0; k < 2; k++) {
            double expected = 0;
            for (int j = 0; j < 32; j++) expected += p[32 * i + j] * b[2 * j + k];
            worst = fmax(worst, fabs(now[2 * i + k] - expected));
            largest = fmax(largest, fabs(expected));
        }
    assert_true(worst <= 1e-6 * largest);
    free(w);
    free(low);
    free(b);
    free(now);
    tm_model_free(base);
    tm_model_free(aligned);
    models_end(&m);
}

/* A model of the tiny kind with another width of the feed-forward part, saved. */
static const char *other_width(tm_device *device) {
    tm_model *other;
    char *config = strdup(tiny_config);
    const char *directory = test_scratch();
    const tm_save_options save = {.overwrite = true};
    memcpy(strstr(config, "\"intermediate_size\":48") + 20, "40", 2);
    assert_ok(tm_model_create(device, config, 1, &other));
    assert_ok(tm_model_save(other, directory, &save));
    tm_model_free(other);
    free(config);
    return directory;
}

/* Modules are compared by name: the first that does not fit is told, in whichever model, and nothing is projected. */
static void test_modules_must_match(void **state) {
    (void)state;
    models m;
    char note[256];
    models_begin(&m);
    const char *fits[] = {m.base, m.aligned}, *other = other_width(m.device);
    double *before = all_of_b(&m, 0, 0);
    for (int i = 0; i < 2; i++) {
        m.base = i == 0 ? other : fits[0];
        m.aligned = i == 1 ? other : fits[1];
        assert_int_equal(run(&m, 1, 0, TM__PROJECT_CODE, note), TM_MISMATCH);
        assert_string_equal(tm_error_last()->field, "model.layers.0.mlp.down_proj.weight");
        assert_non_null(strstr(tm_error_last()->message, i ? "aligned" : "base"));
        assert_true(same_b(&m, 0, 0, before));
    }
    m.base = fits[0];
    m.aligned = fits[1];
    assert_ok(run(&m, 1, 0, TM__PROJECT_CODE, note));
    assert_false(same_b(&m, 0, 0, before));
    free(before);
    models_end(&m);
}

static void test_refuses(void **state) {
    (void)state;
    models m;
    char note[256];
    models_begin(&m);
    const char *base = m.base;
    assert_int_equal(run(&m, 2, 0, TM__PROJECT_CODE, note), TM_INVALID);
    m.base = NULL;
    assert_int_equal(run(&m, .5, 0, TM__PROJECT_CODE, note), TM_INVALID);
    m.base = "/nonexistent";
    assert_int_equal(run(&m, .5, 0, TM__PROJECT_CODE, note), TM_NOT_FOUND);
    tm_model *other;
    char *config = strdup(tiny_config);
    memcpy(strstr(config, "\"num_hidden_layers\":2") + 20, "1", 1);
    const tm_save_options save = {.overwrite = true};
    assert_ok(tm_model_create(m.device, config, 1, &other));
    m.base = test_scratch();
    assert_ok(tm_model_save(other, m.base, &save));
    assert_int_equal(run(&m, .5, 0, TM__PROJECT_CODE, note), TM_MISMATCH);
    tm_model_free(other);
    free(config);
    m.base = base;
    assert_ok(tm_model_merge(m.tuned));
    assert_int_equal(run(&m, .5, 0, TM__PROJECT_CODE, note), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "adapter");
    models_end(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_projectors),  cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_choice_of_modules),  cmocka_unit_test(test_projection_of_a_module),
        cmocka_unit_test(test_modules_must_match), cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
