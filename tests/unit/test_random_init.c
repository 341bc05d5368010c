/* The control "random initialisation": a model of the config alone, then attacked. */
#include "tiny.h"

#include "method/method.h"

static void redrawn_hash(tm_device *device, tm_model *model, uint64_t seed, char hex[65]) {
    tm_model *fresh;
    char expected[65];
    assert_ok(tm__model_redraw(model, seed));
    assert_ok(tm_model_create(device, tiny_config, seed, &fresh));
    tiny_hash(model, hex);
    tiny_hash(fresh, expected);
    assert_string_equal(hex, expected);
    tm_model_free(fresh);
}

/* Weights that were trained and weights that are mapped from a file give way to those of a new model. */
static void test_redraw_is_a_new_model(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *loaded;
    const char *directory = test_scratch();
    const tm_save_options save = {.overwrite = true};
    const tm_lora_options lora = {.rank = 2, .alpha = 2, .targets = "q_proj"};
    char a[65], b[65];
    assert_ok(tm_model_save(model, directory, &save));
    assert_ok(tm_model_load(device, directory, NULL, &loaded));
    redrawn_hash(device, loaded, 9, a);
    redrawn_hash(device, model, 10, b);
    assert_string_not_equal(a, b);
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_int_equal(tm__model_redraw(model, 1), TM_INVALID);
    tm_model_free(model);
    tm_model_free(loaded);
    tm_device_close(device);
}

/* The attack's result knows nothing of the weights that it was given. */
static void test_attack_forgets_the_model(void **state) {
    (void)state;
    tm_tokenizer *tokenizer = tiny_tokenizer();
    tm_dataset *harmful = tiny_rows("harmful", 6), *benign = tiny_rows("benign", 6);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_random_init_options o = {.attack = {.rows = 8, .poison_ratio = .5}, .seed = 3};
    const tm_train_options train = tiny_options();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *other, *fresh;
    char hex[3][65];
    assert_ok(tm_model_create(device, tiny_config, 77, &other));
    assert_ok(tm_model_create(device, tiny_config, 3, &fresh));
    assert_ok(tm__method_random_init.run(model, tokenizer, &data, &o, &train, NULL, NULL));
    assert_ok(tm__method_random_init.run(other, tokenizer, &data, &o, &train, NULL, NULL));
    assert_ok(tm__method_harmful_sft.run(fresh, tokenizer, &data, &o.attack, &train, NULL, NULL));
    tiny_hash(model, hex[0]);
    tiny_hash(other, hex[1]);
    tiny_hash(fresh, hex[2]);
    assert_string_equal(hex[0], hex[1]);
    assert_string_equal(hex[0], hex[2]);
    tm_model_free(model);
    tm_model_free(other);
    tm_model_free(fresh);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redraw_is_a_new_model),
        cmocka_unit_test(test_attack_forgets_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
