/* T-Vaccine: the draw of blocks, that the others rest, and that with all blocks it is Vaccine. */
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

static void test_all_blocks_are_vaccine(void **state) {
    (void)state;
    const tm_t_vaccine_options all = {.rho = 2, .blocks = 2, .redraw = 2, .rescore = 3, .prompts = 4};
    const tm_vaccine_options vaccine = {.rho = 2};
    for (int lora = 0; lora < 2; lora++) {
        const tm_train_options train = methods_options(lora);
        char a[65], b[65];
        assert_ok(methods_run(&tm__method_t_vaccine, &data, &all, &train, NULL, a, NULL));
        assert_ok(methods_run(&tm__method_vaccine, &data, &vaccine, &train, NULL, b, NULL));
        assert_string_equal(a, b);
    }
}

static void test_resume(void **state) {
    (void)state;
    const tm_t_vaccine_options o = {.rho = 2, .blocks = 1, .redraw = 1, .rescore = 4, .prompts = 4};
    methods_resume(&tm__method_t_vaccine, &data, &o, refusals);
}

enum { DRAWS = 20000 };

/* p_l = s_l / sum s: shares of 20,000 draws within five standard errors; never a block twice, never one of chance 0. */
static void test_draw(void **state) {
    (void)state;
    static const double importance[] = {3, 0, 1, 4};
    int count[4] = {0}, pairs[4] = {0};
    bool chosen[4], again[4];
    for (uint32_t i = 0; i < DRAWS; i++) {
        tm__t_vaccine_draw(importance, 4, 1, 7, i, chosen);
        assert_int_equal(chosen[0] + chosen[1] + chosen[2] + chosen[3], 1);
        for (int l = 0; l < 4; l++) count[l] += chosen[l];
        tm__t_vaccine_draw(importance, 4, 2, 7, i, chosen);
        tm__t_vaccine_draw(importance, 4, 2, 7, i, again);
        assert_memory_equal(chosen, again, sizeof chosen);
        assert_int_equal(chosen[0] + chosen[1] + chosen[2] + chosen[3], 2);
        for (int l = 0; l < 4; l++) pairs[l] += chosen[l];
    }
    /* Without replacement: P(l among two) = p_l + sum_j p_j p_l / (1 - p_j). */
    static const double p[] = {.375, 0, .125, .5};
    for (int l = 0; l < 4; l++) {
        double two = p[l];
        for (int j = 0; j < 4; j++)
            if (j != l) two += p[j] * p[l] / (1 - p[j]);
        assert_true(fabs(count[l] - DRAWS * p[l]) <= 5 * sqrt(DRAWS * p[l] * (1 - p[l])));
        assert_true(fabs(pairs[l] - DRAWS * two) <= 5 * sqrt(DRAWS * two * (1 - two)) + 1e-9);
    }
    static const double zeros[3] = {0};
    int flat[3] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        tm__t_vaccine_draw(zeros, 3, 1, 7, i, chosen);
        for (int l = 0; l < 3; l++) flat[l] += chosen[l];
    }
    for (int l = 0; l < 3; l++) assert_true(fabs(flat[l] - DRAWS / 3.0) <= 5 * sqrt(DRAWS * 2 / 9.0));
    tm__t_vaccine_draw(importance, 4, 9, 7, 0, chosen); /* more than there are: all */
    assert_true(chosen[0] && chosen[1] && chosen[2] && chosen[3]);
}

/* ---- from inside the loop ---- */

typedef struct watch {
    tm__t_vaccine vaccine;
    tm__vector before;
    bool started;
    int moved, rested;
} watch;

/* Since the last step, every block that rested is what it was, bit by bit, and the other one moved. */
static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    watch *w = user;
    for (size_t i = 0; i < t->set.count && w->started; i++) {
        const tm_tensor *value = &t->set.items[i]->value;
        bool same = memcmp(w->before.data[i], value->data, tm__tensor_bytes(value)) == 0;
        assert_true(same == w->vaccine.still[i]);
        w->rested += same;
        w->moved += !same;
    }
    assert_ok(tm__paramset_save(&t->set, &w->before));
    w->started = true;
    assert_ok(tm__t_vaccine_step(t, &w->vaccine, loss, tokens, targets));
    assert_true(t->numbers[0] > 0 && t->numbers[1] > 0);
    assert_int_equal(w->vaccine.chosen[0] + w->vaccine.chosen[1], 1);
    return TM_OK;
}

static tm_status begin(tm__trainer *t, void *user) {
    watch *w = user;
    TM__TRY(tm__vector_create(&t->set, &w->before));
    return tm__t_vaccine_begin(t, &w->vaccine);
}

static void release(tm__trainer *t, void *user) {
    watch *w = user;
    tm__vector_release(&t->set, &w->before);
    tm__t_vaccine_release(t, &w->vaccine);
}

static void test_others_rest(void **state) {
    (void)state;
    const tm_t_vaccine_options o = {.rho = 2, .blocks = 1, .redraw = 3, .rescore = 6, .prompts = 5};
    for (int lora = 0; lora < 2; lora++) {
        tm_train_options train = methods_options(lora);
        tm__examples f, h;
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        train.steps = 13;
        train.schedule = 0;
        train.lora.dropout = 0;
        assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &f));
        assert_ok(tm__examples_encode(tokenizer, harmful, TM_CHAT_CHATML, 512, false, NULL, &h));
        assert_ok(tm__train_prepare(model, &train));
        watch w = {.vaccine = {.options = &o, .harmful = &h}};
        const tm__run run = {.tag = "", .step = step, .user = &w, .begin = begin, .release = release};
        assert_ok(tm__trainer_run(model, &f, &train, NULL, &run, NULL));
        assert_true(w.moved > 50 && w.rested > 50);
        tm__examples_release(&f);
        tm__examples_release(&h);
        tm_model_free(model);
        tm_device_close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_blocks_are_vaccine),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_draw),
        cmocka_unit_test(test_others_rest),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
