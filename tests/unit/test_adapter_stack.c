/* Several adapters with weights, and adapters that bring weights whole: what is saved, removed, refused. The adapters
 * are those that PEFT wrote for tests/golden/test_peft.c. */
#include "support.h"

#include "model/adapter.h"

static tm_device *device_f64(void) {
    tm_device *device;
    const tm_device_options options = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    assert_ok(tm_device_open(&options, &device));
    return device;
}

static tm_model *base_model(tm_device *device) {
    tm_model *model;
    assert_ok(tm_model_load(device, test_path("golden/llama-untied"), NULL, &model));
    return model;
}

static double score(tm_model *model) {
    static const int32_t ids[] = {3, 9, 27, 7, 21, 36, 0, 11};
    double sum;
    assert_ok(tm_model_score(model, ids, TM__COUNT(ids), &sum));
    return sum;
}

static void own_weights_stay(void **state) {
    (void)state;
    tm_device *device = device_f64();
    tm_model *model = base_model(device), *again;
    char before[65], with[65], after[65], *out = tm__path_join(test_scratch(), "m");
    assert_ok(tm_model_hash(model, before));
    double plain = score(model);
    assert_ok(tm_model_add_adapter(model, test_path("golden/peft/list"), 1));
    double one = score(model);
    assert_ok(tm_model_add_adapter(model, test_path("golden/peft/saved"), 1));
    double both = score(model);
    assert_ok(tm_model_hash(model, with));
    assert_string_not_equal(before, with);
    assert_int_equal(model->replaced_count, 7);
    assert_ok(tm_model_save(model, out, NULL)); /* without adapters */
    assert_ok(tm_model_load(device, out, NULL, &again));
    assert_ok(tm_model_hash(again, after));
    assert_string_equal(before, after);
    tm_model_free(again);
    tm__adapter_remove(model, 0); /* the one that brings weights moves down */
    assert_true(fabs(score(model) - both) > 1e-3);
    assert_int_equal(model->replaced[0].number, 0);
    tm__adapter_remove(model, 0);
    assert_int_equal(model->replaced_count, 0);
    assert_true(score(model) == plain && one != plain);
    assert_ok(tm_model_hash(model, after));
    assert_string_equal(before, after);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    free(out);
}

/* Half an adapter's share is half of B; none of it is the model. */
static void weights_scale_the_share(void **state) {
    (void)state;
    tm_device *device = device_f64();
    tm_model *model = base_model(device), *other = base_model(device);
    double plain = score(model);
    assert_ok(tm_model_add_adapter(model, test_path("golden/peft/list"), 0));
    assert_true(score(model) == plain);
    tm_model_free(model);
    model = base_model(device);
    for (int i = 0; i < 2; i++) assert_ok(tm_model_add_adapter(model, test_path("golden/peft/list"), 0.5));
    assert_ok(tm_model_add_adapter(other, test_path("golden/peft/list"), 1));
    double whole = score(other);
    assert_true(fabs(whole - plain) > 1e-2);
    assert_true(fabs(score(model) - whole) < 1e-10 * fabs(whole));
    assert_ok(tm_model_add_adapter(other, test_path("golden/peft/list"), -1));
    assert_true(fabs(score(other) - plain) < 1e-10 * fabs(plain));
    tm_model_free(model);
    tm_model_free(other);
    tm_device_close(device);
}

static void refuses_what_does_not_add_up(void **state) {
    (void)state;
    tm_device *device = device_f64();
    tm_model *model = base_model(device);
    char before[65], after[65];
    assert_ok(tm_model_hash(model, before));
    assert_int_equal(tm_model_add_adapter(model, test_path("golden/peft/saved"), 0.5), TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->field, "modules_to_save");
    assert_int_equal(tm_model_add_adapter(model, test_path("golden/peft/list"), NAN), TM_INVALID);
    assert_int_equal(tm_model_add_adapter(model, test_path("golden/peft/saved-tied"), 1), TM_MISMATCH);
    assert_non_null(strstr(tm_error_last()->message, "this model needs"));
    assert_int_equal(tm_model_add_adapter(model, test_path("golden/peft/nothing"), 1), TM_NOT_FOUND);
    assert_ok(tm_model_hash(model, after));
    assert_string_equal(before, after);
    assert_ok(tm_model_add_adapter(model, test_path("golden/peft/saved"), 1));
    assert_int_equal(tm_model_add_adapter(model, test_path("golden/peft/saved"), 1), TM_UNSUPPORTED);
    assert_int_equal(model->adapter_count, 1);
    assert_int_equal(model->replaced_count, 7);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
}

static void merging_keeps_what_was_brought(void **state) {
    (void)state;
    tm_device *device = device_f64();
    tm_model *model = base_model(device), *again;
    char *out = tm__path_join(test_scratch(), "m");
    assert_ok(tm_model_add_adapter(model, test_path("golden/peft/saved"), 1));
    double with = score(model);
    assert_ok(tm_model_merge(model));
    assert_int_equal(model->replaced_count, 0);
    assert_true(fabs(score(model) - with) < 1e-10 * fabs(with));
    const tm_save_options options = {.dtype = TM_SAVE_KEEP};
    assert_ok(tm_model_save(model, out, &options));
    tm_model_free(model);
    assert_ok(tm_model_load(device, out, NULL, &again));
    assert_true(fabs(score(again) - with) < 1e-4 * fabs(with));
    assert_int_equal(again->embed.stored, TM_F32);
    tm_model_free(again);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    free(out);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    tm_device *device = device_f64();
    tm_model *model = base_model(device);
    for (long n = 1;; n++) {
        tm__pool_trim(device);
        size_t before = device->bytes_in_use;
        tm__alloc_fail_at(n, false);
        tm_status status = tm_model_add_adapter(model, test_path("golden/peft/saved"), 1);
        tm__alloc_fail_at(0, false);
        if (status == TM_OK) break;
        assert_int_equal(status, TM_NO_MEMORY);
        assert_int_equal(device->bytes_in_use, before);
        assert_int_equal(model->replaced_count, 0);
    }
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_weights_stay),
        cmocka_unit_test(weights_scale_the_share),
        cmocka_unit_test(refuses_what_does_not_add_up),
        cmocka_unit_test(merging_keeps_what_was_brought),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
