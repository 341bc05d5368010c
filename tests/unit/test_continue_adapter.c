/* Training a given adapter on: the bytes of one run that made it itself, frozen weights beside it, and what is refused.
 */
#include "methods.h"

static tm_dataset *rows;

static int setup(void **state) {
    rows = tiny_rows("row", 7);
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(rows);
    return tiny_teardown(state);
}

static tm_train_options without_lora(void) {
    tm_train_options o = methods_options(true);
    o.lora.rank = 0;
    return o;
}

/* A fresh adapter with the seed of training, trained on, is what training with a rank makes. */
static void test_same_as_new(void **state) {
    (void)state;
    const tm_train_options whole = methods_options(true), on = without_lora();
    char want[65], got[65];
    const tm_method_data plain = {.user = rows};
    assert_ok(methods_run(NULL, &plain, NULL, &whole, NULL, want, NULL));
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm_model_add_lora(model, &whole.lora, (uint64_t)whole.seed));
    assert_ok(tm_model_continue_adapter(model));
    assert_ok(tm_train(model, tokenizer, rows, &on, NULL, NULL));
    assert_ok(tm_model_merge(model));
    tiny_hash(model, got);
    assert_string_equal(got, want);
    methods_free(model);
}

typedef struct sums {
    double base, first, last;
} sums;

static tm_status add_norm(void *user, const tm_weight_info *weight) {
    sums *s = user;
    double *to = !weight->adapter ? &s->base : strstr(weight->name, ".0.weight") ? &s->first : &s->last;
    *to += weight->norm;
    return TM_OK;
}

/* Of two adapters the last moves; the other and the weights do not. After a merge everything is trained again. */
static void test_only_the_last(void **state) {
    (void)state;
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .targets = "q_proj"};
    const tm_train_options on = without_lora();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    sums before = {0}, after = {0}, merged = {0}, tuned = {0};
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_ok(tm_model_add_lora(model, &lora, 2));
    assert_ok(tm_model_continue_adapter(model));
    assert_ok(tm_model_visit(model, true, add_norm, &before));
    assert_ok(tm_train(model, tokenizer, rows, &on, NULL, NULL));
    assert_ok(tm_model_visit(model, true, add_norm, &after));
    assert_true(before.first > 0 && before.last > 0);
    assert_true(after.base == before.base && after.first == before.first && after.last != before.last);
    assert_ok(tm_model_merge(model));
    assert_ok(tm_model_visit(model, true, add_norm, &merged));
    assert_ok(tm_train(model, tokenizer, rows, &on, NULL, NULL));
    assert_ok(tm_model_visit(model, true, add_norm, &tuned));
    assert_true(tuned.base != merged.base && tuned.last == 0);
    methods_free(model);
}

/* Methods that say they train a given adapter on move it and nothing else. */
static void test_methods(void **state) {
    (void)state;
    static const char *const want[] = {"harmful-sft", "identity-shift"};
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .targets = "all-linear"};
    const tm_method_data data = {.harmful = rows};
    const tm_train_options on = without_lora();
    size_t n = 0;
    const tm_method *method;
    for (int i = 0; (method = tm_method_at(i)); i++) {
        if (!method->continues_adapter) continue;
        assert_true(n < TM__COUNT(want));
        assert_string_equal(method->name, want[n++]);
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        sums before = {0}, after = {0};
        assert_ok(tm_model_add_lora(model, &lora, 1));
        assert_ok(tm_model_continue_adapter(model));
        assert_ok(tm_model_visit(model, true, add_norm, &before));
        assert_ok(method->run(model, tokenizer, &data, NULL, &on, NULL, NULL));
        assert_ok(tm_model_visit(model, true, add_norm, &after));
        assert_true(after.base == before.base && after.first + after.last != before.first + before.last);
        methods_free(model);
    }
    assert_int_equal(n, TM__COUNT(want));
}

static tm_status run_parts(tm_method_data data, const tm_train_options *train, countdown *c, char hex[65]) {
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .dropout = .25, .targets = "all-linear"};
    const tm_harmful_sft_options o = {.poison_ratio = 1};
    const tm_monitor monitor = {.progress = countdown_progress, .stop = countdown_stop, .user = c};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm_model_add_lora(model, &lora, 3));
    assert_ok(tm_model_continue_adapter(model));
    tm_status status = tm__method_harmful_sft.run(model, tokenizer, &data, &o, train, c ? &monitor : NULL, NULL);
    if (status == TM_OK) tiny_hash(model, hex);
    methods_free(model);
    return status;
}

/* Stopped and continued, it ends with the same bytes; the checkpoint of a full run is refused. */
static void test_resume(void **state) {
    (void)state;
    tm_train_options o = without_lora();
    const tm_method_data data = {.harmful = rows};
    char whole[65], parts[65], hex[65];
    assert_ok(run_parts(data, &o, NULL, whole));
    char *directory = tm__path_join(test_scratch(), "checkpoint");
    o.resume_dir = directory;
    o.save_every = 2;
    countdown c = {.steps_left = 3};
    assert_int_equal(run_parts(data, &o, &c, parts), TM_INTERRUPTED);
    const tm_harmful_sft_options all = {.poison_ratio = 1};
    assert_int_equal(methods_run(&tm__method_harmful_sft, &data, &all, &o, NULL, hex, NULL), TM_MISMATCH);
    assert_ok(run_parts(data, &o, NULL, parts));
    assert_string_equal(parts, whole);
    free(directory);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .targets = "q_proj"};
    const tm_train_options both = methods_options(true);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_int_equal(tm_model_continue_adapter(model), TM_INVALID);
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_ok(tm_model_continue_adapter(model));
    assert_int_equal(tm_train(model, tokenizer, rows, &both, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "lora-rank");
    methods_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_new), cmocka_unit_test(test_only_the_last), cmocka_unit_test(test_methods),
        cmocka_unit_test(test_resume),      cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
