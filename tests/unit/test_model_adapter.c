/* LoRA adapters: initialisation, saving and loading in PEFT's layout, merging, several at once, refusals by name. */
#include "model_fixture.h"

#include <jansson.h>

static const char config_text[] = FIXTURE_CONFIG("");

static char *path_in(const char *directory, const char *name) {
    char *path = tm__path_join(directory, name);
    assert_non_null(path);
    return path;
}

/* Gives B, which begins at zero, some values. */
static void stir(tm_model *model, size_t number, double size) {
    tm__rng rng = tm__rng_make(number, TM__STREAM_TEST);
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__adapter *adapter = tm__adapter_find(tm__block_linear(&model->blocks[i], k), number);
            if (!adapter) continue;
            int64_t n = tm__tensor_count(&adapter->b.value);
            for (int64_t j = 0; j < n; j++) {
                double value = size * tm__rng_normal(&rng);
                tm__convert((char *)adapter->b.value.data + (size_t)j * tm__dtype_size(model->dev->act),
                            model->dev->act, &value, TM_F64, 1);
            }
        }
}

static double score(tm_model *model) {
    static const int32_t ids[] = {3, 9, 27, 7, 21, 36, 0, 11};
    double sum;
    assert_ok(tm_model_score(model, ids, TM__COUNT(ids), &sum));
    return sum;
}

static void begins_as_nothing(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1);
    const tm_lora_options lora = {.rank = 4, .alpha = 8, .targets = "q_proj, down_proj"};
    double before = score(model);
    assert_ok(tm_model_add_lora(model, &lora, 9));
    assert_true(score(model) == before);
    const tm__block *block = &model->blocks[1];
    assert_int_equal(block->q.adapter_count, 1);
    assert_int_equal(block->down.adapter_count, 1);
    assert_int_equal(block->k.adapter_count, 0);
    const tm__adapter *a = &block->down.adapters[0];
    assert_true(a->scale == 2 && a->rank == 4);
    assert_int_equal(a->a.value.shape[0], 4);
    assert_int_equal(a->a.value.shape[1], 40);
    assert_int_equal(a->b.value.shape[0], 24);
    double bound = 1 / sqrt(40), largest = 0, sum = 0;
    for (int i = 0; i < 160; i++) {
        double x = ((float *)a->a.value.data)[i];
        largest = TM__MAX(largest, fabs(x));
        sum += x;
    }
    assert_true(largest <= bound && largest > 0.9 * bound);
    assert_true(fabs(sum / 160) < 4 * bound / sqrt(3 * 160));
    for (int i = 0; i < 96; i++) assert_true(((float *)a->b.value.data)[i] == 0);
    assert_true(memcmp(block->q.adapters[0].a.value.data, model->blocks[0].q.adapters[0].a.value.data, 64) != 0);
    tm_model_info info;
    tm_model_describe(model, &info);
    assert_int_equal(info.adapters, 1);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

static void merged_equals_attached(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    for (int stored = TM_SAVE_F32; stored <= TM_SAVE_F16; stored++) { /* mapped weights of every type */
        tm_model *made = fixture_model(dev, config_text, 1), *model;
        char *path = path_in(test_scratch(), "m");
        const tm_save_options options = {.dtype = stored};
        assert_ok(tm_model_save(made, path, &options));
        tm_model_free(made);
        assert_ok(tm_model_load(dev, path, NULL, &model));
        const tm_lora_options first = {.rank = 3, .alpha = 6, .targets = "all-linear"};
        const tm_lora_options second = {.rank = 5, .alpha = 4, .rslora = true, .targets = "v_proj,up_proj"};
        double plain = score(model);
        assert_ok(tm_model_add_lora(model, &first, 2));
        stir(model, 0, 0.3);
        double one = score(model);
        assert_ok(tm_model_add_lora(model, &second, 3));
        stir(model, 1, 0.1);
        double both = score(model);
        assert_true(fabs(one - plain) > 1e-3 && fabs(both - one) > 1e-3);
        assert_int_equal(model->blocks[0].v.adapter_count, 2);
        assert_true(fabs(model->blocks[0].v.adapters[1].scale - 4 / sqrt(5)) < 1e-15);
        assert_ok(tm_model_merge(model));
        assert_true(fabs(score(model) - both) < 1e-11 * fabs(both));
        assert_int_equal(model->adapter_count, 0);
        assert_int_equal(model->blocks[0].v.adapter_count, 0);
        assert_int_equal(tm_model_save_adapter(model, path, NULL), TM_INVALID);
        tm_model_free(model);
        free(path);
    }
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

static void inactive_adapters_do_nothing(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1);
    const tm_lora_options lora = {.rank = 3, .alpha = 6, .targets = "o_proj"};
    double plain = score(model);
    assert_ok(tm_model_add_lora(model, &lora, 2));
    stir(model, 0, 0.5);
    for (int i = 0; i < 2; i++) model->blocks[i].o.adapters[0].active = false;
    assert_true(score(model) == plain);
    tm_model_free(model);
    tm_device_close(dev);
}

/* The base is saved without the adapter, the adapter by itself; loaded together they are what they were. */
static void saves_and_loads(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1), *again;
    const char *root = test_scratch();
    char *base = path_in(root, "base"), *adapter = path_in(root, "adapter"), *half = path_in(root, "half");
    char plain[65], saved[65], with[65], loaded[65];
    const tm_lora_options lora = {.rank = 3, .alpha = 6, .dropout = 0.25, .targets = "q_proj,gate_proj"};
    assert_ok(tm_model_hash(model, plain));
    assert_ok(tm_model_add_lora(model, &(tm_lora_options){.rank = 2, .alpha = 1, .targets = "k_proj"}, 7));
    assert_ok(tm_model_add_lora(model, &lora, 2));
    stir(model, 1, 0.3);
    assert_ok(tm_model_save(model, base, NULL));
    assert_ok(tm_model_save_adapter(model, adapter, NULL)); /* the last one alone */
    double expected = score(model);                         /* the first adapter's B is zero */
    assert_ok(tm_model_load(dev, base, NULL, &again));
    assert_ok(tm_model_hash(again, saved));
    assert_string_equal(plain, saved);
    tm_model_free(again);
    assert_ok(tm_model_load(dev, base, adapter, &again));
    assert_true(score(again) == expected);
    const tm__adapter *part = &again->blocks[1].gate.adapters[0];
    assert_true(part->rank == 3 && part->alpha == 6 && part->scale == 2 && part->dropout == 0.25);
    assert_int_equal(again->blocks[0].k.adapter_count, 0);
    assert_ok(tm_model_hash(again, with));
    assert_string_not_equal(with, plain);
    const tm_save_options options = {.dtype = TM_SAVE_F16};
    assert_ok(tm_model_save_adapter(again, half, &options));
    tm_model_free(again);
    assert_ok(tm_model_load(dev, base, half, &again));
    assert_true(fabs(score(again) - expected) < 1e-2 && score(again) != expected);
    assert_ok(tm_model_hash(again, loaded));
    assert_string_not_equal(with, loaded);
    tm_model_free(again);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
    free(base);
    free(adapter);
    free(half);
}

static void config_in_pefts_layout(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1);
    char *path = path_in(test_scratch(), "adapter"), *file = path_in(path, "adapter_config.json");
    char *weights = path_in(path, "adapter_model.safetensors");
    const tm_lora_options lora = {.rank = 3, .alpha = 6.5, .dropout = 0.25, .rslora = true, .targets = "q_proj,v_proj"};
    struct json_t *found, *expected;
    assert_ok(tm_model_add_lora(model, &lora, 2));
    assert_ok(tm_model_save_adapter(model, path, NULL));
    static const char text[] =
        "{\"alpha_pattern\": {}, \"base_model_name_or_path\": null, \"bias\": \"none\", \"fan_in_fan_out\": false,"
        "\"inference_mode\": true, \"init_lora_weights\": true, \"lora_alpha\": 6.5, \"lora_dropout\": 0.25,"
        "\"modules_to_save\": null, \"peft_type\": \"LORA\", \"r\": 3, \"rank_pattern\": {},"
        "\"target_modules\": [\"q_proj\", \"v_proj\"], \"task_type\": \"CAUSAL_LM\", \"use_dora\": false,"
        "\"use_rslora\": true}";
    assert_ok(tm__json_load(file, &found));
    assert_ok(tm__json_parse(text, strlen(text), NULL, &expected));
    assert_true(json_equal(found, expected));
    tm__safetensors *st;
    tm_tensor tensor;
    assert_ok(tm__safetensors_open(weights, &st));
    assert_int_equal(tm__safetensors_count(st), 8);
    assert_ok(tm__safetensors_find(st, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", &tensor));
    assert_int_equal(tensor.shape[0], 12);
    assert_int_equal(tensor.shape[1], 3);
    tm__safetensors_close(st);
    json_decref(found);
    json_decref(expected);
    free(weights);
    free(file);
    free(path);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- other adapter_config.json texts over the same weights ------------------------------------------------------- */

static const struct {
    const char *config; /* of an adapter whose weights are q_proj and v_proj of both layers, rank 3 */
    tm_status status;
    const char *field;
} cases[] = {
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"]}", TM_OK, ""},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"self_attn.q_proj\", \"v_proj\"]}", TM_OK, ""},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": \".*\\\\.(q|v)_proj\"}", TM_OK, ""},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"], \"modules_to_save\": null,"
     "\"rank_pattern\": {}, \"layers_to_transform\": null, \"use_dora\": false, \"bias\": \"none\"}",
     TM_OK, ""},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": \"q_proj|v_proj\"}", TM_MISMATCH, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"_proj\"]}", TM_MISMATCH, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": \"(\"}", TM_FORMAT, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": \"([a-z._0-9]+)*[AB]\"}", TM_FORMAT, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [1]}", TM_FORMAT, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3}", TM_FORMAT, "target_modules"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": \"all-linear\"}", TM_NOT_FOUND,
     "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\"]}", TM_MISMATCH,
     "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"},
    {"{\"peft_type\": \"LORA\", \"r\": 4, \"target_modules\": [\"q_proj\", \"v_proj\"]}", TM_MISMATCH,
     "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"},
    {"{\"peft_type\": \"IA3\"}", TM_UNSUPPORTED, "peft_type"},
    {"{\"r\": 3}", TM_FORMAT, "peft_type"},
    {"{\"peft_type\": \"LORA\", \"task_type\": \"SEQ_CLS\"}", TM_UNSUPPORTED, "task_type"},
    {"{\"peft_type\": \"LORA\", \"bias\": \"all\"}", TM_UNSUPPORTED, "bias"},
    {"{\"peft_type\": \"LORA\", \"use_dora\": true}", TM_UNSUPPORTED, "use_dora"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"], \"modules_to_save\":"
     "[\"lm_head\"]}",
     TM_NOT_FOUND, "base_model.model.lm_head.weight"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"], \"rank_pattern\":"
     "{\"q_proj\": 4}}",
     TM_MISMATCH, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"], \"alpha_pattern\":"
     "{\"q_proj\": 4}}",
     TM_OK, ""},
    {"{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"q_proj\", \"v_proj\"], \"layers_to_transform\": [0]}",
     TM_MISMATCH, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"},
    {"{\"peft_type\": \"LORA\", \"fan_in_fan_out\": true}", TM_UNSUPPORTED, "fan_in_fan_out"},
    {"{\"peft_type\": \"LORA\", \"r\": 0}", TM_FORMAT, "r"},
    {"{\"peft_type\": \"LORA\", \"lora_dropout\": 1}", TM_FORMAT, "lora_dropout"},
    {"{\"peft_type\": \"LORA\", \"lora_alpha\": \"16\"}", TM_FORMAT, "lora_alpha"},
    {"[]", TM_FORMAT, ""},
};

static void reads_and_refuses_configs(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1);
    const char *root = test_scratch();
    char *base = path_in(root, "base"), *adapter = path_in(root, "adapter");
    char *file = path_in(adapter, "adapter_config.json");
    const tm_lora_options lora = {.rank = 3, .alpha = 6, .targets = "q_proj,v_proj"};
    assert_ok(tm_model_save(model, base, NULL));
    assert_ok(tm_model_add_lora(model, &lora, 2));
    assert_ok(tm_model_save_adapter(model, adapter, NULL));
    tm_model_free(model);
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        model = NULL;
        assert_ok(tm__file_write(file, cases[i].config, strlen(cases[i].config)));
        tm_error_clear();
        tm_status status = tm_model_load(dev, base, adapter, &model);
        if (status != cases[i].status || strcmp(tm_error_last()->field, cases[i].field) != 0)
            fail_msg("case %zu: %s (%s)", i, tm_status_name(status), tm_error_last()->line);
        if (status != TM_OK) assert_non_null(strstr(tm_error_last()->file, adapter));
        tm_model_free(model);
        assert_int_equal(dev->bytes_in_use, 0);
    }
    assert_ok(tm__remove_tree(adapter));
    assert_int_equal(tm_model_load(dev, base, adapter, &model), TM_NOT_FOUND);
    free(file);
    free(base);
    free(adapter);
    tm_device_close(dev);
}

static void refuses_options_by_name(void **state) {
    (void)state;
    static const struct {
        tm_lora_options options;
        const char *field;
    } bad[] = {
        {{.rank = 0, .alpha = 1}, "lora-rank"},
        {{.rank = 3, .alpha = 0}, "lora-alpha"},
        {{.rank = 3, .alpha = NAN}, "lora-alpha"},
        {{.rank = 3, .alpha = 1, .dropout = 1}, "lora-dropout"},
        {{.rank = 3, .alpha = 1, .targets = "q_proj,lm_head"}, "lora-targets"},
        {{.rank = 3, .alpha = 1, .targets = "q_proj,"}, "lora-targets"},
        {{.rank = 3, .alpha = 1, .targets = ""}, "lora-targets"},
    };
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1);
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_int_equal(tm_model_add_lora(model, &bad[i].options, 0), TM_INVALID);
        assert_string_equal(tm_error_last()->field, bad[i].field);
        assert_int_equal(model->adapter_count, 0);
    }
    tm_model_free(model);
    tm_device_close(dev);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 1), *loaded = NULL;
    const char *root = test_scratch();
    char *base = path_in(root, "base"), *adapter = path_in(root, "adapter");
    const tm_lora_options lora = {.rank = 3, .alpha = 6, .targets = "q_proj,v_proj"};
    const tm_save_options replace = {.overwrite = true};
    assert_ok(tm_model_save(model, base, NULL));
    tm_model_free(model);
    assert_ok(tm_model_load(dev, base, NULL, &model));
    for (int step = 0; step < 4; step++)
        for (long n = 1;; n++) {
            size_t before = dev->bytes_in_use;
            tm__pool_trim(dev);
            tm__alloc_fail_at(n, false);
            tm_status status = step == 0   ? tm_model_add_lora(model, &lora, 2)
                               : step == 1 ? tm_model_save_adapter(model, adapter, &replace)
                               : step == 2 ? tm_model_load(dev, base, adapter, &loaded)
                                           : tm_model_merge(model);
            tm__alloc_fail_at(0, false);
            if (status == TM_OK) break;
            assert_int_equal(status, TM_NO_MEMORY);
            if (step < 3) assert_int_equal(dev->bytes_in_use, before);
            assert_true(n < 100000);
        }
    tm_model_free(loaded);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
    free(base);
    free(adapter);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_as_nothing),
        cmocka_unit_test(merged_equals_attached),
        cmocka_unit_test(inactive_adapters_do_nothing),
        cmocka_unit_test(saves_and_loads),
        cmocka_unit_test(config_in_pefts_layout),
        cmocka_unit_test(reads_and_refuses_configs),
        cmocka_unit_test(refuses_options_by_name),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
