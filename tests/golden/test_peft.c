/* Adapters that PEFT wrote, against what PEFT computes with them in float64 (fixtures: tools/golden/peft_adapters.py).
 *
 * Bound 1e-8 (||a - b|| / ||b||) for logits, merged weights and gradients on the fp64 reference device.
 */
#include "golden.h"

static tm_model *load(tm_device *device, const char *base, const char *adapter) {
    char path[128];
    const char *directory = NULL;
    tm_model *model = NULL;
    if (adapter) {
        snprintf(path, sizeof path, "golden/peft/%s", adapter);
        directory = test_path(path);
    }
    char root[128];
    snprintf(root, sizeof root, "golden/%s", base);
    assert_ok(tm_model_load(device, test_path(root), directory, &model));
    return model;
}

static int32_t ids[64];
static int32_t positions[64];
static int64_t tokens;

static void read_ids(void) {
    const json_t *list = golden_at("ids");
    tokens = (int64_t)json_array_size(list);
    assert_true(tokens > 4 && tokens < 64);
    for (int32_t i = 0; i < tokens; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
        positions[i] = i;
    }
}

static double logits_error(tm_model *model, const char *name) {
    char key[96];
    tm_tensor want;
    tm__tape *tape;
    tm__var *hidden;
    const int64_t start = 0;
    const tm__batch batch = {
        .tokens = tokens, .ids = ids, .position = positions, .segments = 1, .start = &start, .length = &tokens};
    double *logits = malloc((size_t)(tokens * model->config.vocab) * sizeof *logits);
    snprintf(key, sizeof key, "logits.%s", name);
    assert_ok(tm__safetensors_find(expected, key, &want));
    assert_int_equal(tm__tensor_count(&want), tokens * model->config.vocab);
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, &batch, NULL, &hidden));
    assert_ok(tm__model_logits(model, tape, hidden, positions, tokens, logits));
    double error = test_relative_error(logits, want.data, (size_t)tm__tensor_count(&want));
    tm__tape_free(tape);
    free(logits);
    return error;
}

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* ---- logits, merging, saving again ---- */

static const char *merged_case;

static tm_status check_merged(void *user, tm__param *param, bool is_adapter) {
    size_t *found = user;
    char key[128];
    tm_tensor want;
    assert_false(is_adapter);
    snprintf(key, sizeof key, "merged.%s.%s", merged_case, param->name);
    if (tm__safetensors_index(expected, key) < 0) return TM_OK;
    assert_ok(tm__safetensors_find(expected, key, &want));
    double error = test_relative_error(param->value.data, want.data, (size_t)tm__tensor_count(&want));
    if (!(error <= BOUND)) fail_msg("%s: %.3g", key, error);
    ++*found;
    return TM_OK;
}

static json_t *config_of(const char *directory) {
    struct json_t *value;
    char *path = tm__path_join(directory, "adapter_config.json");
    assert_ok(tm__json_load(path, &value));
    free(path);
    return value;
}

/* The same tensors bit by bit, the same config. */
static void check_saved_again(tm_model *model, const char *name) {
    char path[128], *out = tm__path_join(test_scratch(), "again");
    snprintf(path, sizeof path, "golden/peft/%s", name);
    const char *from = test_path(path);
    tm__checkpoint *theirs, *ours;
    assert_ok(tm_model_save_adapter(model, out, NULL));
    assert_ok(tm__checkpoint_open(from, "adapter_model", &theirs));
    assert_ok(tm__checkpoint_open(out, "adapter_model", &ours));
    assert_int_equal(tm__checkpoint_count(ours), tm__checkpoint_count(theirs));
    for (size_t i = 0; i < tm__checkpoint_count(theirs); i++) {
        tm_tensor a, b;
        assert_string_equal(tm__checkpoint_name(ours, i), tm__checkpoint_name(theirs, i));
        assert_ok(tm__checkpoint_at(ours, i, &a));
        assert_ok(tm__checkpoint_at(theirs, i, &b));
        assert_true(a.dtype == b.dtype && tm__tensor_same_shape(&a, &b));
        assert_memory_equal(a.data, b.data, tm__tensor_bytes(&a));
    }
    tm__checkpoint_close(ours);
    tm__checkpoint_close(theirs);
    json_t *a = config_of(out), *b = config_of(from);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    free(out);
}

static void equals_peft(void **state) {
    (void)state;
    tm_device *device = golden_device();
    const json_t *item;
    size_t i, merged = 0;
    json_array_foreach((json_t *)golden_at("cases"), i, item) {
        const char *name = text_of(item, "name");
        tm_model *model = load(device, text_of(item, "base"), name);
        char before[65], after[65];
        double error = logits_error(model, name);
        if (!(error <= BOUND)) fail_msg("%s: logits %.3g", name, error);
        check_saved_again(model, name);
        assert_ok(tm_model_hash(model, before));
        assert_ok(tm_model_merge(model));
        assert_ok(tm_model_hash(model, after));
        assert_string_not_equal(before, after);
        error = logits_error(model, name);
        if (!(error <= BOUND)) fail_msg("%s: logits after merging %.3g", name, error);
        merged_case = name;
        assert_ok(tm__model_params(model, check_merged, &merged));
        tm_model_free(model);
        assert_int_equal(device->bytes_in_use, 0);
    }
    assert_int_equal(merged,
                     3 + 2 + 7); /* three linears of "regex"; in "saved" two q_proj, five norms, both embeddings */
    tm_device_close(device);
}

static void adapters_add_up(void **state) {
    (void)state;
    tm_device *device = golden_device();
    tm_model *model = load(device, "llama-untied", NULL);
    const json_t *item;
    size_t i;
    json_array_foreach((json_t *)golden_at("stack"), i, item) {
        char path[128];
        snprintf(path, sizeof path, "golden/peft/%s", text_of(item, "name"));
        assert_ok(tm_model_add_adapter(model, test_path(path), json_number_value(json_object_get(item, "weight"))));
    }
    assert_int_equal(model->adapter_count, 2);
    assert_true(logits_error(model, "stack") <= BOUND);
    assert_ok(tm_model_merge(model));
    assert_true(logits_error(model, "stack") <= BOUND);
    tm_model_free(model);
    tm_device_close(device);
}

/* ---- training what an adapter brings whole ---- */

static double gradient_error(const tm__param *param) {
    char key[128], name[96];
    tm_tensor want;
    const char *number = strstr(param->name, ".lora_");
    snprintf(name, sizeof name, "%.*s%s", number ? (int)(number + 7 - param->name) : 90, param->name,
             number ? ".weight" : "");
    snprintf(key, sizeof key, "grad.saved.%s", name);
    assert_ok(tm__safetensors_find(expected, key, &want));
    return test_relative_error(param->grad, want.data, (size_t)tm__tensor_count(&want));
}

static void trains_saved_modules(void **state) {
    (void)state;
    tm_device *device = golden_device();
    tm_model *model = load(device, "llama-untied", "saved");
    const int64_t start = 0;
    int32_t rows[64];
    double weight[64];
    for (int32_t i = 0; i + 1 < tokens; i++) {
        rows[i] = i;
        weight[i] = 1.0 / (double)(tokens - 1);
    }
    const tm__batch batch = {.tokens = tokens,
                             .ids = ids,
                             .position = positions,
                             .segments = 1,
                             .start = &start,
                             .length = &tokens,
                             .targets = {tokens - 1, rows, ids + 1, weight}};
    tm__paramset set;
    tm__tape *tape;
    tm__var *loss;
    assert_ok(tm__model_train_adapters(model, 0));
    assert_ok(tm__paramset_collect(model, &set));
    assert_int_equal(set.count, 4 + 7);
    assert_ok(tm__tape_create(device, &tape));
    assert_ok(tm__model_loss(model, tape, &batch, NULL, NULL, &loss));
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    for (size_t i = 0; i < set.count; i++) {
        double error = gradient_error(set.items[i]);
        if (!(error <= BOUND)) fail_msg("%s: %.3g", set.items[i]->name, error);
    }
    tm__tape_free(tape);
    tm__paramset_release(&set);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
}

/* ---- what is not plain LoRA ---- */

static void refuses_other_kinds(void **state) {
    (void)state;
    tm_device *device = golden_device();
    const json_t *item;
    size_t i;
    json_array_foreach((json_t *)golden_at("refused"), i, item) {
        const char *name = json_string_value(item);
        char path[128], field[64];
        tm_model *model = load(device, "llama-tied", NULL);
        snprintf(path, sizeof path, "golden/peft/refused/%s", name);
        snprintf(field, sizeof field, "%.*s", (int)strcspn(name, "-"), name);
        tm_status status = tm_model_add_adapter(model, test_path(path), 1);
        if (status != TM_UNSUPPORTED || strcmp(tm_error_last()->field, field) != 0)
            fail_msg("%s: %s (%s)", name, tm_status_name(status), tm_error_last()->line);
        assert_int_equal(model->adapter_count, 0);
        tm_model_free(model);
    }
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_peft),
        cmocka_unit_test(adapters_add_up),
        cmocka_unit_test(trains_saved_modules),
        cmocka_unit_test(refuses_other_kinds),
    };
    if (!golden_open("golden/peft")) return 1;
    read_ids();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    golden_close();
    return failed;
}
