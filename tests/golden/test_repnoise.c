/* Three steps of RepNoise and of the adversarial loss against PyTorch in float64 (fixture: tools/golden/repnoise.py).
 *
 * Losses of every step, first gradients and the weight change after three AdamW steps, of all weights and of a new
 * adapter, on ref fp64: 1e-8, the requirement.
 */
#include "golden/golden.h"

#include "method/repnoise.h"

static tm_ids read_ids(json_t *list) {
    tm_ids ids = {0};
    for (size_t t = 0; t < json_array_size(list); t++)
        assert_ok(tm_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, t))));
    return ids;
}

static double number(const char *name) {
    return json_number_value(json_object_get(json, name));
}

static void make_pairs(int mode, tm__pairs *pairs) {
    json_t *list = json_object_get(json, "pairs");
    size_t n = json_array_size(list);
    assert_ok(tm__pairs_create(pairs, n, mode, (int32_t)number("pad")));
    for (size_t i = 0; i < n; i++) {
        json_t *pair = json_array_get(list, i);
        tm_ids harmful = read_ids(json_object_get(pair, "harmful")),
               refusal = read_ids(json_object_get(pair, "refusal"));
        assert_ok(tm__pairs_add(pairs, &harmful, &refusal));
    }
    assert_int_equal(pairs->side[0].count, n);
}

/* A trainer made by hand, so that every step sees all pairs in their order. */
typedef struct rig {
    tm_device *dev;
    tm_train_options options;
    tm__trainer trainer;
    tm__vector start;
    size_t order[3];
} rig;

/* On all weights, or on a new adapter as it is drawn. */
static void rig_open(rig *g, bool lora) {
    const tm_device_options ref64 = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    *g = (rig){.order = {0, 1, 2}};
    assert_ok(tm_device_open(&ref64, &g->dev));
    tm_options_default(tm_train_option_table, &g->options);
    g->options.lr = number("lr");
    g->options.seed = (int64_t)number("seed");
    g->options.batch = 3;
    tm__trainer *t = &g->trainer;
    t->options = &g->options;
    t->pad = (int32_t)number("pad");
    assert_ok(tm_model_load(g->dev, test_path(home), NULL, &t->model));
    g->options.lora = (tm_lora_options){.rank = lora ? (int64_t)golden_number("lora.rank") : 0,
                                        .alpha = golden_number("lora.alpha"),
                                        .targets = golden_text("lora.targets")};
    if (lora) assert_ok(tm_model_add_lora(t->model, &g->options.lora, (uint64_t)g->options.seed));
    assert_ok(lora ? tm__model_train_adapters(t->model, 0) : tm__model_train_full(t->model));
    assert_ok(tm__paramset_collect(t->model, &t->set));
    assert_ok(tm__optimiser_create(&t->set, &g->options, &t->optimiser));
    assert_ok(tm__tape_create(g->dev, &t->tape));
    assert_ok(tm__vector_create(&t->set, &g->start));
    assert_ok(tm__paramset_save(&t->set, &g->start));
}

static void rig_close(rig *g) {
    tm__trainer *t = &g->trainer;
    tm__vector_release(&t->set, &g->start);
    tm__tape_free(t->tape);
    tm__optimiser_release(&t->set, &t->optimiser);
    tm__paramset_release(&t->set);
    tm_model_free(t->model);
    tm_device_close(g->dev);
}

/* Worst error of gradients or of weight changes since `start`. */
static double worst_error(const rig *g, const char *name, bool delta) {
    const tm__paramset *set = &g->trainer.set;
    const char *kind = strrchr(name, '.') + 1;
    double worst = 0;
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, delta ? "delta" : "grad");
    assert_int_equal(set->count, golden_names(kind));
    for (size_t i = 0; i < set->count; i++) {
        size_t n = (size_t)tm__tensor_count(&set->items[i]->value);
        double *got = malloc(n * sizeof *got);
        const double *now = set->items[i]->value.data, *before = g->start.data[i], *grad = set->items[i]->grad;
        for (size_t j = 0; j < n; j++) got[j] = delta ? now[j] - before[j] : grad[j];
        double error = golden_compare(key, kind, set->items[i]->name, got, n);
        worst = TM__MAX(worst, error);
        free(got);
    }
    return worst;
}

static void run_steps(rig *g, const char *name, tm__step step, void *user) {
    tm__trainer *t = &g->trainer;
    json_t *losses = json_object_get(json_object_get(json, "losses"), name);
    assert_int_equal(json_array_size(losses), 3);
    for (t->step = 0; t->step < 3; t->step++) {
        double loss, want = json_number_value(json_array_get(losses, (size_t)t->step));
        int64_t tokens, targets;
        t->orders[0] = (tm__order){g->order, 3, (uint64_t)g->options.seed, t->step};
        tm__grads_zero(&t->set);
        assert_ok(step(t, user, &loss, &tokens, &targets));
        if (!(fabs(loss - want) <= BOUND * fabs(want)))
            fail_msg("%s step %d: loss %.12g, want %.12g", name, (int)t->step, loss, want);
        if (t->step == 0) print_message("%s: gradient error %.2g\n", name, worst_error(g, name, false));
        assert_ok(tm__optimiser_step(&t->set, &t->optimiser, &g->options, g->options.lr, NULL));
    }
    print_message("%s: weight change error %.2g\n", name, worst_error(g, name, true));
}

/* `name` ends in full or lora. */
static bool on_adapter(const char *name) {
    return strcmp(strrchr(name, '.'), ".lora") == 0;
}

static void repnoise(const char *name, int mode, bool recompute) {
    const tm_repnoise_options options = {.alpha = number("alpha"), .beta = number("beta"), .mode = mode};
    tm__pairs pairs;
    rig g;
    make_pairs(mode, &pairs);
    rig_open(&g, on_adapter(name));
    g.options.recompute = recompute;
    tm__repnoise own = {&options, &pairs, NULL};
    run_steps(&g, name, tm__repnoise_step, &own);
    rig_close(&g);
    tm__pairs_release(&pairs);
}

static void adversarial(const char *name, int mode, int64_t micro) {
    const tm_adversarial_options options = {.coefficient = number("coefficient"), .mode = mode};
    tm__pairs pairs;
    rig g;
    make_pairs(mode, &pairs);
    rig_open(&g, on_adapter(name));
    g.options.micro = micro;
    tm__adversarial own = {&options, &pairs};
    run_steps(&g, name, tm__adversarial_step, &own);
    rig_close(&g);
    tm__pairs_release(&pairs);
}

static void repnoise_equals_pytorch(void **state) {
    (void)state;
    repnoise("repnoise.correct.full", TM__PAIRS_CORRECT, false);
    repnoise("repnoise.correct.full", TM__PAIRS_CORRECT, true);
    repnoise("repnoise.correct.lora", TM__PAIRS_CORRECT, false);
}

static void repnoise_compat_equals_pytorch(void **state) {
    (void)state;
    repnoise("repnoise.compat.full", TM__PAIRS_COMPAT, false);
    repnoise("repnoise.compat.lora", TM__PAIRS_COMPAT, true);
}

/* S of one step, from its ascent: the loss with alpha = 1 less that without. */
static double sum_of_lenses(const tm__pairs *pairs, int64_t *layers, int64_t *vocab) {
    double loss[2];
    for (int i = 0; i < 2; i++) {
        const tm_repnoise_options options = {.alpha = i, .mode = TM__PAIRS_COMPAT};
        tm__repnoise own = {&options, pairs, NULL};
        int64_t tokens, targets;
        rig g;
        rig_open(&g, false);
        g.trainer.orders[0] = (tm__order){g.order, 3, (uint64_t)g.options.seed, 0};
        tm__grads_zero(&g.trainer.set);
        assert_ok(tm__repnoise_step(&g.trainer, &own, &loss[i], &tokens, &targets));
        *layers = g.trainer.model->config.layers;
        *vocab = g.trainer.model->config.vocab;
        rig_close(&g);
    }
    return ((double)*layers + 1) * (exp(loss[0] - loss[1]) - 1);
}

/* compat: every blind target of the harmful side, and of that side alone, costs ln V in each of the L + 2 terms. */
static void blind_targets_weigh_in_every_lens(void **state) {
    (void)state;
    const size_t rows[] = {0, 1, 2};
    int64_t layers, vocab;
    tm__pairs pairs;
    make_pairs(TM__PAIRS_COMPAT, &pairs);
    double total = (double)tm__pairs_targets(&pairs, TM__HARMFUL, rows, 3);
    double before = sum_of_lenses(&pairs, &layers, &vocab);
    pairs.blind[TM__HARMFUL][1] += 4;
    double after = sum_of_lenses(&pairs, &layers, &vocab);
    double want = (before * total + 4 * ((double)layers + 2) * log((double)vocab)) / (total + 4);
    assert_true(fabs(after - want) < 1e-10 * want && fabs(after - before) > 1e-3);
    tm__pairs_release(&pairs);
}

static void adversarial_equals_pytorch(void **state) {
    (void)state;
    adversarial("adversarial.correct.full", TM__PAIRS_CORRECT, 0);
    adversarial("adversarial.correct.full", TM__PAIRS_CORRECT, 2);
    adversarial("adversarial.correct.lora", TM__PAIRS_CORRECT, 2);
    adversarial("adversarial.compat.full", TM__PAIRS_COMPAT, 0);
    adversarial("adversarial.compat.lora", TM__PAIRS_COMPAT, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repnoise_equals_pytorch),
        cmocka_unit_test(repnoise_compat_equals_pytorch),
        cmocka_unit_test(blind_targets_weigh_in_every_lens),
        cmocka_unit_test(adversarial_equals_pytorch),
    };
    return golden_run("repnoise", tests, TM__COUNT(tests), NULL, NULL);
}
