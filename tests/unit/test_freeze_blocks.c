/* --freeze-blocks: what is frozen keeps its bytes, all else changes, full and as an adapter, with tied embeddings and
 * without; as many blocks as there are is refused.
 */
#include "tiny.h"

#include "model/weights.h"

enum { LAYERS = 3, MOST = 64 };

static tm_tokenizer *tokenizer;
static tm_dataset *rows;

static int setup(void **state) {
    (void)state;
    tokenizer = tiny_tokenizer();
    rows = tiny_rows("user", 7);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(rows);
    return 0;
}

static tm_model *make(tm_device *device, bool tied) {
    char config[sizeof tiny_config + 16];
    const char *layers = strstr(tiny_config, "\"num_hidden_layers\":2"), *tie = strstr(tiny_config, "true");
    tm_model *model = NULL;
    snprintf(config, sizeof config, "%.*s\"num_hidden_layers\":%d%.*s%s%s", (int)(layers - tiny_config), tiny_config,
             LAYERS, (int)(tie - layers) - 21, layers + 21, tied ? "true" : "false", tie + 4);
    assert_ok(tm_model_create(device, config, 5, &model));
    assert_int_equal(model->config.layers, LAYERS);
    assert_int_equal(model->config.tied, tied);
    return model;
}

/* Every weight's bytes as they were, in the model's order. */
typedef struct kept {
    void *bytes[MOST];
    size_t count, changed_frozen, same_free, frozen;
    const tm_model *model;
    int64_t freeze;
    bool lora;
} kept;

static tm_status keep(void *user, tm__param *param, bool is_adapter) {
    kept *k = user;
    size_t size = tm__tensor_bytes(&param->value);
    if (is_adapter) return TM_OK;
    assert_true(k->count < MOST);
    k->bytes[k->count] = malloc(size);
    memcpy(k->bytes[k->count++], param->value.data, size);
    return TM_OK;
}

static bool in_blocks(const tm_model *model, const tm__param *param, int64_t count) {
    return (const char *)param >= (const char *)model->blocks &&
           (const char *)param < (const char *)(model->blocks + count);
}

static tm_status compare(void *user, tm__param *param, bool is_adapter) {
    kept *k = user;
    if (is_adapter) return TM_OK;
    bool frozen = k->lora || param == &k->model->embed || in_blocks(k->model, param, k->freeze);
    bool same = memcmp(k->bytes[k->count], param->value.data, tm__tensor_bytes(&param->value)) == 0;
    free(k->bytes[k->count++]);
    k->frozen += frozen;
    k->changed_frozen += frozen && !same;
    k->same_free += !frozen && same;
    return TM_OK;
}

static void test_full(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++)
        for (int64_t freeze = 1; freeze < LAYERS; freeze++) {
            tm_device *device = tiny_device("cpu");
            tm_model *model = make(device, tied);
            tm_train_options train = tiny_options();
            kept k = {.model = model, .freeze = freeze};
            train.freeze_blocks = freeze;
            assert_ok(tm__model_params(model, keep, &k));
            assert_int_equal(k.count, 9 * LAYERS + (tied ? 2 : 3)); /* blocks; embedding, norm, head */
            assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
            k.count = 0;
            assert_ok(tm__model_params(model, compare, &k));
            assert_int_equal(k.frozen, 1 + 9 * freeze);
            assert_int_equal(k.changed_frozen, 0);
            assert_int_equal(k.same_free, 0);
            tm_model_free(model);
            tm_device_close(device);
        }
}

/* B starts at zero: an adapter that has learnt nothing still holds zeros, and adds nothing. */
static bool learnt(const tm__adapter *adapter) {
    const float *b = adapter->b.value.data;
    for (int64_t i = 0; i < tm__tensor_count(&adapter->b.value); i++)
        if (b[i] != 0) return true;
    return false;
}

static void test_adapter(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = make(device, true);
    tm_train_options train = tiny_options();
    kept k = {.model = model, .freeze = 2, .lora = true};
    train.lora.rank = 2;
    train.lora.targets = "all-linear";
    train.freeze_blocks = k.freeze;
    assert_ok(tm__model_params(model, keep, &k));
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    k.count = 0;
    assert_ok(tm__model_params(model, compare, &k));
    assert_int_equal(k.changed_frozen, 0);
    for (int64_t i = 0; i < LAYERS; i++)
        for (int l = 0; l < TM__LINEARS; l++)
            assert_int_equal(learnt(&tm__block_linear(&model->blocks[i], l)->adapters[0]), i >= k.freeze);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_none_is_as_before(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = make(device, true);
    tm_train_options train = tiny_options();
    kept k = {.model = model};
    assert_ok(tm__model_params(model, keep, &k));
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    k.count = 0;
    assert_ok(tm__model_params(model, compare, &k));
    assert_int_equal(k.changed_frozen, 1); /* the embedding, which `compare` counts as frozen, is trained */
    assert_int_equal(k.same_free, 0);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_refuses_all_blocks(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = make(device, true);
    tm_train_options train = tiny_options();
    char before[65], after[65];
    tiny_hash(model, before);
    for (int64_t freeze = LAYERS; freeze < LAYERS + 2; freeze++)
        for (int64_t rank = 0; rank < 3; rank += 2) {
            train.freeze_blocks = freeze;
            train.lora.rank = rank;
            assert_int_equal(tm_train(model, tokenizer, rows, &train, NULL, NULL), TM_INVALID);
            assert_string_equal(tm_error_last()->field, "freeze-blocks");
            assert_int_equal(model->adapter_count, 0);
        }
    tiny_hash(model, after);
    assert_string_equal(before, after);
    tm_model_free(model);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_none_is_as_before),
        cmocka_unit_test(test_refuses_all_blocks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
