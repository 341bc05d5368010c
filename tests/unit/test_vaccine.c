/* Vaccine and its random control: golden row A7, the norm of what is added, and what it does to the loss. */
#include "methods.h"

static tm_dataset *refusals;
static tm_method_data data;

static int setup(void **state) {
    refusals = tiny_rows("refusal", 7);
    data = (tm_method_data){.refusals = refusals};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(refusals);
    return tiny_teardown(state);
}

/* Two layers, g1 = (3, 0), g2 = (0, 4), rho 2: e1 = (1.2, 0), e2 = (0, 1.6). */
static void test_a7(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    double g1[] = {3, 0}, g2[] = {0, 4}, norm;
    void *buffers[] = {g1, g2};
    const tm__attention_taps taps = {.dev = device, .layers = 2, .scalars = 2, .buffers = buffers};
    assert_ok(tm__attention_taps_direction(&taps, 2, &norm));
    assert_true(norm == 5 && g1[1] == 0 && g2[0] == 0);
    assert_true(fabs(g1[0] - 1.2) < 5e-8 && fabs(g2[1] - 1.6) < 5e-8); /* the floor of 1e-7 in the norm */
    g1[0] = g2[1] = 0;
    assert_ok(tm__attention_taps_direction(&taps, 2, &norm));
    assert_true(norm == 0 && g1[0] == 0 && g2[1] == 0);
    tm_device_close(device);
}

static void test_rho_zero_is_sft(void **state) {
    (void)state;
    const tm_vaccine_options zero = {.rho = 0};
    methods_equal_sft(&tm__method_vaccine, &data, &zero, refusals, false);
    methods_equal_sft(&tm__method_random_vaccine, &data, &zero, refusals, false);
}

static void test_resume(void **state) {
    (void)state;
    methods_resume(&tm__method_vaccine, &data, NULL, refusals);
    methods_resume(&tm__method_random_vaccine, &data, NULL, refusals);
}

/* Loss of the first step under a method, before anything is learnt. */
static double first_loss(const tm_method *method, double rho) {
    const tm_vaccine_options o = {.rho = rho};
    tm_train_options train = methods_options(false);
    countdown c = {.steps_left = 9};
    char hex[65];
    train.steps = 1;
    train.batch = 7;
    assert_ok(methods_run(method, &data, &o, &train, &c, hex, NULL));
    assert_int_equal(c.count, 1);
    return c.losses[0];
}

/* The perturbation has norm rho, and to first order the loss rises by rho |g|: twice the rho, twice the rise; by far
 * more than noise of the same norm gives. */
static void test_the_loss_rises_to_first_order(void **state) {
    (void)state;
    double plain = first_loss(&tm__method_vaccine, 0), rise = first_loss(&tm__method_vaccine, .01) - plain,
           twice = first_loss(&tm__method_vaccine, .02) - plain;
    assert_true(rise > 1e-5);
    assert_true(fabs(twice / rise - 2) < .1);
    /* As many entries as the batch has tokens, 32 wide, in two blocks: the variance whose norm is .01. */
    int64_t tokens = 0;
    tm__examples e;
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &e));
    for (size_t i = 0; i < e.count; i++) tokens += (int64_t)e.ids[i].len;
    tm__examples_release(&e);
    double noise = first_loss(&tm__method_random_vaccine, .01 * .01 / (double)(tokens * 32 * 2)) - plain;
    assert_true(fabs(noise) < rise / 4);
}

/* The taps read the gradient behind every attention output, and a step along it raises the loss by rho |g|. */
static tm_status tapped_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    double *rise = user, norm, moved, square = 0;
    const tm__pass pass = {t->examples, 0, 0, t->options->batch, 1};
    tm__pass_result made;
    tm__batch_store *store;
    const tm__batch *batch;
    tm__attention_taps taps;
    assert_ok(tm__trainer_batch(t, &pass, &store, &batch, &made));
    assert_ok(tm__attention_taps_create(t->model, batch->tokens, &taps));
    for (size_t l = 0; l < taps.layers; l++) taps.taps[l].grad = taps.buffers[l];
    assert_ok(tm__attention_taps_pass(t, batch, &taps, loss));
    assert_ok(tm__attention_taps_direction(&taps, 1e-4, &norm));
    for (size_t l = 0; l < taps.layers; l++) {
        double part;
        assert_ok(taps.dev->k->dot(taps.dev, &part, taps.buffers[l], taps.buffers[l], taps.scalars));
        assert_true(part > 0);
        square += part;
        taps.taps[l].grad = NULL;
        taps.taps[l].perturb = taps.buffers[l];
    }
    assert_true(fabs(sqrt(square) - 1e-4) <= 1e-5 * 1e-4);
    assert_ok(tm__attention_taps_pass(t, batch, &taps, &moved));
    *rise = (moved - *loss) / (1e-4 * norm);
    tm__attention_taps_release(&taps);
    tm__batch_free(store);
    *tokens = *targets = 0;
    return TM_OK;
}

static void test_the_norm_is_the_slope(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_train_options train = methods_options(false);
    tm__examples e;
    double rise = 0;
    train.steps = 1;
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &e));
    assert_ok(tm__model_train_full(model));
    const tm__run run = {.tag = "", .step = tapped_step, .user = &rise};
    assert_ok(tm__trainer_run(model, &e, &train, NULL, &run, NULL));
    assert_true(fabs(rise - 1) < 1e-3);
    tm__examples_release(&e);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_method_data none = {0};
    tm_train_options train = methods_options(false);
    char hex[65];
    assert_int_equal(methods_run(&tm__method_vaccine, &none, NULL, &train, NULL, hex, NULL), TM_INVALID);
    train.micro = 2;
    assert_int_equal(methods_run(&tm__method_vaccine, &data, NULL, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "micro-batch");
    assert_int_equal(methods_run(&tm__method_random_vaccine, &data, NULL, &train, NULL, hex, NULL), TM_INVALID);
    train.micro = train.batch;
    assert_ok(methods_run(&tm__method_vaccine, &data, NULL, &train, NULL, hex, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a7),
        cmocka_unit_test(test_rho_zero_is_sft),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_the_loss_rises_to_first_order),
        cmocka_unit_test(test_the_norm_is_the_slope),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
