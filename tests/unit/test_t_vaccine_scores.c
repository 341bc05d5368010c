/* T-Vaccine: when the importance of blocks is measured, on which rows, and what it is; equal chances where nothing
 * pulls at any block. */
#include "methods.h"

enum { LAYERS = 2, STEPS = 9, PROMPTS = 5, BATCH = 2 };

typedef struct watch {
    tm__t_vaccine vaccine;
    double before[LAYERS];
    int measured;
} watch;

/* |mean gradient over the first PROMPTS rows of the harmful stream| of every block. */
static void importance(tm__trainer *t, const tm__examples *harmful, double expected[LAYERS]) {
    uint64_t seed = (uint64_t)t->options->seed + ((uint64_t)1 << 56);
    double squares[LAYERS] = {0};
    tm__grads_zero(&t->set);
    for (int64_t at = 0; at < PROMPTS; at += BATCH) {
        int64_t rows = at + BATCH <= PROMPTS ? BATCH : PROMPTS - at;
        const tm__pass pass = {harmful, seed, at, rows, (double)rows / PROMPTS};
        tm__pass_result result;
        assert_ok(tm__trainer_pass(t, &pass, &result));
    }
    for (size_t i = 0; i < t->set.count; i++) {
        const tm__param *param = t->set.items[i];
        const float *grad = param->grad;
        int block;
        if (sscanf(param->name, "model.layers.%d.", &block) != 1) continue;
        for (int64_t j = 0; j < tm__tensor_count(&param->value); j++) squares[block] += (double)grad[j] * grad[j];
    }
    for (int l = 0; l < LAYERS; l++) expected[l] = sqrt(squares[l]);
    tm__grads_zero(&t->set);
}

/* Blocks are drawn every 2 steps and scored at the first draw at or after 0, 3, 6, ... */
static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    watch *w = user;
    double expected[LAYERS];
    bool due = t->step == 0 || t->step == 4 || t->step == 6;
    importance(t, w->vaccine.harmful, expected);
    assert_ok(tm__t_vaccine_step(t, &w->vaccine, loss, tokens, targets));
    for (int l = 0; l < LAYERS; l++) {
        if (due)
            assert_true(fabs(t->numbers[l] / expected[l] - 1) < 1e-5);
        else
            assert_true(t->numbers[l] == w->before[l]);
        w->before[l] = t->numbers[l];
    }
    w->measured += due;
    return TM_OK;
}

static tm_status begin(tm__trainer *t, void *user) {
    return tm__t_vaccine_begin(t, &((watch *)user)->vaccine);
}

static void release(tm__trainer *t, void *user) {
    tm__t_vaccine_release(t, &((watch *)user)->vaccine);
}

static void test_scores(void **state) {
    (void)state;
    const tm_t_vaccine_options o = {.rho = 1, .blocks = 1, .redraw = 2, .rescore = 3, .prompts = PROMPTS};
    tm_dataset *refusals = tiny_rows("refuse", 7), *rows = tiny_rows("poison", 8);
    tm__examples f, h;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options train = tiny_options();
    train.steps = STEPS;
    train.batch = BATCH;
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &f));
    assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 512, false, NULL, &h));
    assert_ok(tm__train_prepare(model, &train));
    watch w = {.vaccine = {.options = &o, .harmful = &h}};
    const tm__run run = {.tag = "", .step = step, .user = &w, .begin = begin, .release = release};
    assert_ok(tm__trainer_run(model, &f, &train, NULL, &run, NULL));
    assert_int_equal(w.measured, 3);
    tm__examples_release(&f);
    tm__examples_release(&h);
    tm_dataset_free(refusals);
    tm_dataset_free(rows);
    tm_model_free(model);
    tm_device_close(device);
}

/* sum p = 1 over the blocks that are left, whatever was measured and drawn. */
static void test_shares_add_up(void **state) {
    (void)state;
    enum { BLOCKS = 7 };
    tm__rng rng = tm__rng_make(3, tm__stream(TM__STREAM_TEST, 1));
    for (int trial = 0; trial < 500; trial++) {
        double importance[BLOCKS], sum = 0;
        bool chosen[BLOCKS] = {false};
        for (int l = 0; l < BLOCKS; l++) {
            importance[l] = tm__rng_below(&rng, 4) ? exp(20 * tm__rng_uniform(&rng) - 10) : 0;
            chosen[l] = l != trial % BLOCKS && tm__rng_below(&rng, 3) == 0;
        }
        if (trial % 10 == 0) memset(importance, 0, sizeof importance);
        for (size_t l = 0; l < BLOCKS; l++) {
            double p = tm__t_vaccine_share(importance, BLOCKS, chosen, l);
            assert_true(p >= 0 && p <= 1);
            if (chosen[l]) assert_true(p == 0);
            sum += p;
        }
        assert_true(fabs(sum - 1) < 1e-14);
    }
}

/* Two of four: each in half of the draws. */
static void test_equal_chances(void **state) {
    (void)state;
    enum { BLOCKS = 4, DRAWS = 4000 };
    static const double nothing[BLOCKS] = {0};
    bool chosen[BLOCKS];
    int count[BLOCKS] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        tm__t_vaccine_draw(nothing, BLOCKS, 2, 7, i, chosen);
        for (int l = 0; l < BLOCKS; l++) count[l] += chosen[l];
    }
    for (int l = 0; l < BLOCKS; l++) assert_true(fabs(count[l] - DRAWS / 2.0) <= 5 * sqrt(DRAWS / 4.0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(test_shares_add_up),
                                       cmocka_unit_test(test_equal_chances)};
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
