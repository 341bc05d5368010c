/* Booster end to end on a tiny model; its sum and sign are pinned in test_contrast.c and tests/golden/test_combine.c.
 */
#include "methods.h"

static tm_dataset *refusals, *harmful;
static tm_method_data data;

static int setup(void **state) {
    refusals = tiny_rows("refusal", 7);
    harmful = tiny_rows("harmful", 5);
    data = (tm_method_data){.refusals = refusals, .harmful = harmful};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(refusals);
    tm_dataset_free(harmful);
    return tiny_teardown(state);
}

static void test_zero_is_sft(void **state) {
    (void)state;
    const tm_booster_options zeros[] = {{.lambda = 0, .alpha = .1}, {.lambda = 5, .alpha = 0}};
    for (size_t i = 0; i < TM__COUNT(zeros); i++)
        methods_equal_sft(&tm__method_booster, &data, &zeros[i], refusals, i == 0);
}

/* perturb-aware without a perturbation is Booster to the bit, adapters' dropout included; with one it is not. */
static void test_perturb_aware(void **state) {
    (void)state;
    const tm_booster_options plain = {.lambda = 5, .alpha = .1}, off = {.lambda = 5, .alpha = .1, .rho = 2},
                             zero = {.lambda = 5, .alpha = .1, .perturb_aware = true},
                             on = {.lambda = 5, .alpha = .1, .perturb_aware = true, .rho = 2};
    for (int lora = 0; lora < 2; lora++) {
        const tm_train_options train = methods_options(lora);
        char want[65], hex[65];
        assert_ok(methods_run(&tm__method_booster, &data, &plain, &train, NULL, want, NULL));
        assert_ok(methods_run(&tm__method_booster, &data, &off, &train, NULL, hex, NULL));
        assert_string_equal(hex, want);
        assert_ok(methods_run(&tm__method_booster, &data, &zero, &train, NULL, hex, NULL));
        assert_string_equal(hex, want);
        assert_ok(methods_run(&tm__method_booster, &data, &on, &train, NULL, hex, NULL));
        assert_string_not_equal(hex, want);
    }
}

/* Without the harmful term it is Vaccine to the bit. */
static void test_perturb_aware_is_vaccine(void **state) {
    (void)state;
    const tm_booster_options o = {.lambda = 0, .alpha = .1, .perturb_aware = true, .rho = .7};
    const tm_vaccine_options vaccine = {.rho = .7};
    const tm_train_options train = methods_options(true);
    char want[65], hex[65];
    assert_ok(methods_run(&tm__method_vaccine, &data, &vaccine, &train, NULL, want, NULL));
    assert_ok(methods_run(&tm__method_booster, &data, &o, &train, NULL, hex, NULL));
    assert_string_equal(hex, want);
}

static void test_resume(void **state) {
    (void)state;
    const tm_booster_options aware = {.lambda = 5, .alpha = .1, .perturb_aware = true, .rho = 1};
    methods_resume(&tm__method_booster, &data, NULL, refusals);
    methods_resume(&tm__method_booster, &data, &aware, refusals);
}

/* ---- one step, watched from inside the loop ---- */

typedef struct watch {
    tm__booster booster;
    tm__run run;
    double displacement;
    bool unmoved;
} watch;

static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    watch *w = user;
    tm__vector before;
    double square = 0;
    TM__TRY(tm__vector_create(&t->set, &before));
    TM__TRY(tm__paramset_save(&t->set, &before));
    TM__TRY(tm__booster_step(t, &w->booster, loss, tokens, targets));
    TM__TRY(tm__vector_dot(&t->set, &w->booster.contrast.shift, &w->booster.contrast.shift, &square));
    w->displacement = sqrt(square);
    w->unmoved = true;
    for (size_t i = 0; i < t->set.count; i++) {
        const tm_tensor *value = &t->set.items[i]->value;
        w->unmoved &= memcmp(before.data[i], value->data, tm__tensor_bytes(value)) == 0;
    }
    tm__vector_release(&t->set, &before);
    return TM_OK;
}

static tm_status begin(tm__trainer *t, void *user) {
    return tm__booster_begin(t, &((watch *)user)->booster);
}

static void release(tm__trainer *t, void *user) {
    tm__booster_release(t, &((watch *)user)->booster);
}

/* The displacement has norm alpha and lowers h; the weights come back bit by bit. */
static void test_displacement(void **state) {
    (void)state;
    const tm_booster_options o = {.lambda = 5, .alpha = .05};
    tm_train_options train = methods_options(false);
    tm__examples f, h;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    train.steps = 2;
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &f));
    assert_ok(tm__examples_encode(tokenizer, harmful, TM_CHAT_CHATML, 512, false, NULL, &h));
    assert_ok(tm__model_train_full(model));
    watch w = {.booster = {.options = &o, .harmful = &h}};
    const tm__run run = {.tag = "", .step = step, .user = &w, .begin = begin, .release = release};
    assert_ok(tm__trainer_run(model, &f, &train, NULL, &run, NULL));
    assert_true(fabs(w.displacement - .05) <= 1e-5 * .05);
    assert_true(w.booster.contrast.shifted_loss < w.booster.contrast.loss);
    assert_true(w.unmoved);
    tm__examples_release(&f);
    tm__examples_release(&h);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_method_data bad[] = {{.refusals = refusals}, {.harmful = harmful}};
    const tm_train_options train = methods_options(false);
    const tm_booster_options negative = {.lambda = 1, .alpha = -1};
    char hex[65];
    for (size_t i = 0; i < TM__COUNT(bad); i++)
        assert_int_equal(methods_run(&tm__method_booster, &bad[i], NULL, &train, NULL, hex, NULL), TM_INVALID);
    assert_int_equal(methods_run(&tm__method_booster, &data, &negative, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "alpha");
    const tm_booster_options aware = {.lambda = 1, .alpha = 1, .perturb_aware = true, .rho = 1};
    tm_train_options parts = methods_options(false);
    parts.micro = 2;
    assert_int_equal(methods_run(&tm__method_booster, &data, &aware, &parts, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "micro-batch");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_is_sft),
        cmocka_unit_test(test_perturb_aware),
        cmocka_unit_test(test_perturb_aware_is_vaccine),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_displacement),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
