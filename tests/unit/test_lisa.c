/* Lisa: turns, anchors and what is left of it when a part is switched off. Its pull is pinned in
 * tests/golden/test_combine.c. */
#include "methods.h"

static tm_dataset *user, *refusals;
static tm_method_data data;

static int setup(void **state) {
    user = tiny_rows("user", 7);
    refusals = tiny_rows("refusal", 5);
    data = (tm_method_data){.user = user, .refusals = refusals};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(user);
    tm_dataset_free(refusals);
    return tiny_teardown(state);
}

static void test_one_state_is_sft(void **state) {
    (void)state;
    const tm_lisa_options only_user = {.k1 = 0, .k2 = 3, .rho = 5};
    methods_equal_sft(&tm__method_lisa, &data, &only_user, user, true);
}

/* With one state alone the result counts what SFT's counts. */
static void test_what_is_counted(void **state) {
    (void)state;
    const tm_lisa_options only_user = {.k1 = 0, .k2 = 3, .rho = 5};
    const tm_train_options train = methods_options(false);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *plain = tiny_model(device);
    tm_train_result lisa, sft;
    assert_ok(tm__method_lisa.run(model, tokenizer, &data, &only_user, &train, NULL, &lisa));
    assert_ok(tm_train(plain, tokenizer, user, &train, NULL, &sft));
    assert_true(lisa.tokens == sft.tokens && lisa.target_tokens == sft.target_tokens && sft.target_tokens > 0);
    tm_model_free(model);
    tm_model_free(plain);
    tm_device_close(device);
}

static void test_resume(void **state) {
    (void)state;
    const tm_lisa_options o = {.k1 = 1, .k2 = 3, .rho = 5};
    methods_resume(&tm__method_lisa, &data, &o, user);
}

/* A checkpoint belongs to the method's options. */
static void test_resume_with_other_options(void **state) {
    (void)state;
    const tm_lisa_options o = {.k1 = 1, .k2 = 3, .rho = 5}, other = {.k1 = 1, .k2 = 3, .rho = 6};
    tm_train_options train = methods_options(false);
    char *directory = tm__path_join(test_scratch(), "checkpoint"), hex[65];
    countdown c = {.steps_left = 2};
    train.resume_dir = directory;
    train.save_every = 1;
    assert_int_equal(methods_run(&tm__method_lisa, &data, &o, &train, &c, hex, NULL), TM_INTERRUPTED);
    assert_int_equal(methods_run(&tm__method_lisa, &data, &other, &train, NULL, hex, NULL), TM_MISMATCH);
    assert_ok(methods_run(&tm__method_lisa, &data, &o, &train, NULL, hex, NULL));
    free(directory);
}

/* ---- from inside the loop ---- */

typedef struct watch {
    tm__lisa lisa;
    double pull[12];     /* |G - gradient of the rows| */
    double distance[12]; /* |w - anchor| */
} watch;

static tm_status norm_of_difference(const tm__trainer *t, tm__vector *x, const tm__vector *y, double *norm) {
    double square;
    for (size_t i = 0; i < t->set.count; i++)
        TM__TRY(t->set.dev->k->axpy(t->set.dev, x->data[i], -1, y->data[i], tm__tensor_count(&t->set.items[i]->value)));
    TM__TRY(tm__vector_dot(&t->set, x, x, &square));
    *norm = sqrt(square);
    return TM_OK;
}

/* The rows' gradient alone is the step's with rho 0 (same rows, same anchor). */
static tm_status step(tm__trainer *t, void *opaque, double *loss, int64_t *tokens, int64_t *targets) {
    watch *w = opaque;
    const tm_lisa_options *full = w->lisa.options;
    tm_lisa_options none = *full;
    tm__vector plain, pulled;
    none.rho = 0;
    assert_ok(tm__vector_create(&t->set, &plain));
    assert_ok(tm__vector_create(&t->set, &pulled));
    w->lisa.options = &none;
    assert_ok(tm__lisa_step(t, &w->lisa, loss, tokens, targets));
    assert_ok(tm__grads_save(&t->set, &plain));
    tm__grads_zero(&t->set);
    w->lisa.options = full;
    assert_ok(tm__lisa_step(t, &w->lisa, loss, tokens, targets));
    assert_ok(tm__grads_save(&t->set, &pulled));
    assert_ok(norm_of_difference(t, &plain, &pulled, &w->pull[t->step]));
    assert_ok(tm__paramset_save(&t->set, &plain));
    assert_ok(norm_of_difference(t, &plain, &w->lisa.anchor, &w->distance[t->step]));
    tm__vector_release(&t->set, &plain);
    tm__vector_release(&t->set, &pulled);
    return TM_OK;
}

static tm_status begin(tm__trainer *t, void *opaque) {
    return tm__lisa_begin(t, &((watch *)opaque)->lisa);
}

static void release(tm__trainer *t, void *opaque) {
    tm__lisa_release(t, &((watch *)opaque)->lisa);
}

/* At a switch the pull is zero; between switches it is rho |w - anchor|; before step `first` there is none. */
static void check_pull(int64_t steps, int64_t first) {
    const tm_lisa_options o = {.k1 = 2, .k2 = 3, .rho = .5};
    tm_train_options train = methods_options(false);
    tm__examples u, r;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    train.steps = steps;
    assert_ok(tm__examples_encode(tokenizer, user, TM_CHAT_CHATML, 512, false, NULL, &u));
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &r));
    assert_ok(tm__model_train_full(model));
    watch w = {.lisa = {.options = &o, .refusals = &r}};
    const tm__run run = {.tag = "", .step = step, .user = &w, .begin = begin, .release = release};
    assert_ok(tm__trainer_run(model, &u, &train, NULL, &run, NULL));
    for (int64_t i = 0; i < steps; i++) {
        int64_t at = i % 5;
        bool switched = at == 0 || at == 2;
        assert_true(switched ? w.distance[i] == 0 : w.distance[i] > 1e-3);
        double want = i < first ? 0 : .5 * w.distance[i];
        assert_true(fabs(w.pull[i] - want) <= 1e-9 * fmax(1, want));
    }
    tm__examples_release(&u);
    tm__examples_release(&r);
    tm_model_free(model);
    tm_device_close(device);
}

/* None in the first tenth of the steps: ceil(1.2), ceil(1.1), and 1 exactly. */
static void test_pull(void **state) {
    (void)state;
    check_pull(12, 2);
    check_pull(11, 2);
    check_pull(10, 1);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_method_data bad[] = {{.user = user}, {.refusals = refusals}};
    const tm_lisa_options nothing = {.rho = 1};
    const tm_train_options train = methods_options(false);
    char hex[65];
    for (size_t i = 0; i < TM__COUNT(bad); i++)
        assert_int_equal(methods_run(&tm__method_lisa, &bad[i], NULL, &train, NULL, hex, NULL), TM_INVALID);
    assert_int_equal(methods_run(&tm__method_lisa, &data, &nothing, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "k2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_state_is_sft),
        cmocka_unit_test(test_what_is_counted),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_with_other_options),
        cmocka_unit_test(test_pull),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
