/* Methods that combine or perturb gradients, against float64 PyTorch written from their formulas (fixtures:
 * tools/golden/combine.py): losses, gradients of the first and third step and weight change of three AdamW steps
 * through the product's own loop, on all weights and on an adapter, packed and padded, with and without recomputation.
 *
 * Bound on ref fp64, as ||a - b|| / ||b|| per tensor: 1e-8, the requirement.
 */
#include "golden/golden.h"

enum { STEPS = 3, MOST_TENSORS = 64 };

static tm__examples firsts[STEPS], seconds[STEPS], singles[STEPS];

static tm__examples examples_of(const char *key, size_t step, size_t most) {
    json_t *rows = json_array_get(json_object_get(json, key), step);
    tm__examples e = {.count = TM__MIN(json_array_size(rows), most)};
    e.ids = calloc(e.count, sizeof *e.ids);
    e.labels = calloc(e.count, sizeof *e.labels);
    for (size_t r = 0; r < e.count; r++) {
        json_t *row = json_array_get(rows, r), *ids = json_object_get(row, "ids");
        for (size_t t = 0; t < json_array_size(ids); t++) {
            json_t *label = json_array_get(json_object_get(row, "labels"), t);
            assert_ok(tm_ids_push(&e.ids[r], (int32_t)json_integer_value(json_array_get(ids, t))));
            assert_ok(tm_ids_push(&e.labels[r], (int32_t)json_integer_value(label)));
        }
    }
    return e;
}

static double option(const char *method, const char *name) {
    json_t *value = json_object_get(json_object_get(json_object_get(json, "options"), method), name);
    assert_non_null(value);
    return json_number_value(value);
}

/* ---- one method under watch ---- */

typedef struct watch {
    const char *method, *kind;
    tm__run run;                 /* the method's */
    const tm__examples **second; /* where it finds its second set; NULL: it has none */
    const tm__vector *shift;     /* compared with the fixture's; NULL: none */
    tm__examples *first;         /* (STEPS) */
    tm__vector start;
    double worst;
} watch;

/* Per tensor, the device's vector against the fixture's flat one. */
static void compare(watch *w, const tm__paramset *set, void *const *data, const char *what) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s.%s", w->method, w->kind, what);
    assert_int_equal(set->count, golden_names(w->kind));
    for (size_t i = 0; i < set->count; i++) {
        size_t n = (size_t)tm__tensor_count(&set->items[i]->value);
        double error = golden_compare(key, w->kind, set->items[i]->name, data[i], n);
        w->worst = TM__MAX(w->worst, error);
    }
}

static void compare_grads(watch *w, const tm__paramset *set, const char *what) {
    void *grads[MOST_TENSORS];
    assert_true(set->count <= MOST_TENSORS);
    for (size_t i = 0; i < set->count; i++) assert_ok(tm__param_grad(set->dev, set->items[i], &grads[i]));
    compare(w, set, grads, what);
}

static tm_status begin(tm__trainer *t, void *user) {
    watch *w = user;
    TM__TRY(tm__vector_create(&t->set, &w->start));
    TM__TRY(tm__paramset_save(&t->set, &w->start));
    return w->run.begin ? w->run.begin(t, w->run.user) : TM_OK;
}

/* Every step has rows of its own; a batch is all of them, so that their order changes nothing but rounding. */
static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    watch *w = user;
    char key[64];
    t->examples = &w->first[t->step];
    if (w->second) *w->second = &seconds[t->step];
    TM__TRY(w->run.step(t, w->run.user, loss, tokens, targets));
    snprintf(key, sizeof key, "%s.%s", w->method, w->kind);
    double want =
        json_number_value(json_array_get(json_object_get(json_object_get(json, "losses"), key), (size_t)t->step));
    if (!(fabs(*loss - want) <= BOUND * fabs(want)))
        fail_msg("%s step %d: %.12g, want %.12g", key, (int)t->step, *loss, want);
    if (t->step == 0) compare_grads(w, &t->set, "grad0");
    if (t->step == 2) compare_grads(w, &t->set, "grad2");
    return TM_OK;
}

static tm_status finish(tm__trainer *t, void *user) {
    watch *w = user;
    for (size_t i = 0; i < t->set.count; i++) { /* start <- w - start */
        int64_t n = tm__tensor_count(&t->set.items[i]->value);
        TM__TRY(t->set.dev->k->scale(t->set.dev, w->start.data[i], -1, w->start.data[i], n));
        TM__TRY(t->set.dev->k->axpy(t->set.dev, w->start.data[i], 1, t->set.items[i]->value.data, n));
    }
    compare(w, &t->set, w->start.data, "delta");
    if (w->shift) compare(w, &t->set, w->shift->data, "shift");
    const json_t *importance = json_object_get(json_object_get(json, "importance"), w->kind);
    for (int64_t l = 0; l < t->number_count; l++) {
        double want = json_number_value(json_array_get(importance, (size_t)l));
        assert_true(want > 0 && fabs(t->numbers[l] - want) <= BOUND * want);
    }
    return TM_OK;
}

static void release(tm__trainer *t, void *user) {
    watch *w = user;
    tm__vector_release(&t->set, &w->start);
    if (w->run.release) w->run.release(t, w->run.user);
}

static void train_once(watch *w, bool packed, bool recompute) {
    tm_device *dev = NULL;
    tm_model *model = NULL;
    tm_train_options options;
    char adapter[512], part[64];
    bool lora = strcmp(w->kind, "lora") == 0;
    const tm_device_options where = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    assert_ok(tm_device_open(&where, &dev));
    snprintf(part, sizeof part, "%s/adapter", home);
    snprintf(adapter, sizeof adapter, "%s", test_path(part));
    assert_ok(tm_model_load(dev, test_path(home), lora ? adapter : NULL, &model));
    assert_ok(lora ? tm__model_train_adapters(model, 0) : tm__model_train_full(model));
    tm_options_default(tm_train_option_table, &options);
    options.lr = json_number_value(json_object_get(json, "lr"));
    options.weight_decay = json_number_value(json_object_get(json, "weight_decay"));
    options.clip = json_number_value(json_object_get(json, "clip"));
    options.seed = json_integer_value(json_object_get(json, "seed"));
    options.steps = STEPS;
    options.batch = (int64_t)w->first[0].count;
    options.packed = packed;
    options.recompute = recompute;
    const tm__run run = {.tag = "", .step = step, .user = w, .begin = begin, .finish = finish, .release = release};
    assert_ok(tm__trainer_run(model, &w->first[0], &options, NULL, &run, NULL));
    tm_model_free(model);
    tm_device_close(dev);
}

static void train(watch w) {
    static const char *const kinds[] = {"full", "lora"};
    if (!w.first) w.first = firsts;
    for (int way = 0; way < 4; way++) {
        watch each = w;
        each.kind = kinds[way / 2];
        train_once(&each, way % 2 == 0, way % 2 == 1);
        print_message("%s %s: worst error %.2g\n", each.method, each.kind, each.worst);
    }
}

/* ---- the methods ---- */

static void test_panacea(void **state) {
    (void)state;
    const tm_panacea_options o = {.lambda = option("panacea", "lambda"), .rho = option("panacea", "rho")};
    tm__panacea p = {.options = &o};
    train((watch){
        .method = "panacea",
        .run = {.step = tm__panacea_step, .user = &p, .begin = tm__panacea_begin, .release = tm__panacea_release},
        .second = &p.harmful,
        .shift = &p.contrast.shift});
}

static void test_booster(void **state) {
    (void)state;
    const tm_booster_options o = {.lambda = option("booster", "lambda"), .alpha = option("booster", "alpha")};
    tm__booster b = {.options = &o};
    train((watch){
        .method = "booster",
        .run = {.step = tm__booster_step, .user = &b, .begin = tm__booster_begin, .release = tm__booster_release},
        .second = &b.harmful});
}

static void test_vaccine(void **state) {
    (void)state;
    tm__vaccine v = {.rho = option("vaccine", "rho")};
    train((watch){.method = "vaccine", .run = {.step = tm__vaccine_step, .user = &v}});
}

/* Batches of one row: the noise follows the rows' order in the batch. */
static void test_random_vaccine(void **state) {
    (void)state;
    tm_vaccine_options o = {.rho = option("random_vaccine", "rho")};
    train((watch){.method = "random_vaccine", .run = {.step = tm__random_vaccine_step, .user = &o}, .first = singles});
}

static void test_t_vaccine(void **state) {
    (void)state;
    const tm_t_vaccine_options o = {.rho = option("t_vaccine", "rho"),
                                    .blocks = (int64_t)option("t_vaccine", "blocks"),
                                    .redraw = (int64_t)option("t_vaccine", "redraw"),
                                    .rescore = (int64_t)option("t_vaccine", "rescore"),
                                    .prompts = (int64_t)option("t_vaccine", "prompts")};
    tm__t_vaccine v = {.options = &o};
    train((watch){
        .method = "t_vaccine",
        .run = {.step = tm__t_vaccine_step, .user = &v, .begin = tm__t_vaccine_begin, .release = tm__t_vaccine_release},
        .second = &v.harmful});
}

static void test_ascent(void **state) {
    (void)state;
    train((watch){.method = "ascent", .run = {.step = tm__ascent_step}});
}

static void test_lisa(void **state) {
    (void)state;
    const tm_lisa_options o = {
        .k1 = (int64_t)option("lisa", "k1"), .k2 = (int64_t)option("lisa", "k2"), .rho = option("lisa", "rho")};
    tm__lisa lisa = {.options = &o};
    train((watch){.method = "lisa",
                  .run = {.step = tm__lisa_step, .user = &lisa, .begin = tm__lisa_begin, .release = tm__lisa_release},
                  .second = &lisa.refusals});
}

static void open_rows(void) {
    for (size_t s = 0; s < STEPS; s++) {
        firsts[s] = examples_of("first", s, SIZE_MAX);
        seconds[s] = examples_of("second", s, SIZE_MAX);
        singles[s] = examples_of("first", s, 1);
    }
}

static void close_rows(void) {
    for (size_t s = 0; s < STEPS; s++) {
        tm__examples_release(&firsts[s]);
        tm__examples_release(&seconds[s]);
        tm__examples_release(&singles[s]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panacea),        cmocka_unit_test(test_booster), cmocka_unit_test(test_vaccine),
        cmocka_unit_test(test_random_vaccine), cmocka_unit_test(test_ascent),  cmocka_unit_test(test_lisa),
        cmocka_unit_test(test_t_vaccine),
    };
    return golden_run("combine", tests, TM__COUNT(tests), open_rows, close_rows);
}
