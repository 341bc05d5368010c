/* A checkpoint written tensor by tensor holds the bytes that a model made in memory would have saved. */
#include "model_fixture.h"
#include "tiny.h"

static const char *const configs[] = {
    FIXTURE_CONFIG("\"tie_word_embeddings\": true,"),
    FIXTURE_CONFIG("\"attention_bias\": true, \"mlp_bias\": true, \"torch_dtype\": \"bfloat16\","),
};

static void hash_of(tm_device *dev, const char *directory, char hex[65]) {
    tm_model *model;
    assert_ok(tm_model_load(dev, directory, NULL, &model));
    assert_ok(tm_model_hash(model, hex));
    tm_model_free(model);
}

static void equals_the_model_in_memory(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    static const int64_t shards[] = {0, 3000};
    for (size_t c = 0; c < TM__COUNT(configs); c++)
        for (int dtype = TM_SAVE_KEEP; dtype <= TM_SAVE_F16; dtype++)
            for (size_t s = 0; s < TM__COUNT(shards); s++) {
                const char *root = test_scratch();
                char *a = tm__path_join(root, "a"), *b = tm__path_join(root, "b"), one[65], two[65];
                const tm_save_options options = {.dtype = dtype, .shard_bytes = shards[s]};
                tm_model *model = fixture_model(dev, configs[c], 7);
                assert_ok(tm_model_save(model, a, &options));
                tm_model_free(model);
                assert_ok(tm_model_write_new(configs[c], 7, b, &options, NULL));
                hash_of(dev, a, one);
                hash_of(dev, b, two);
                assert_string_equal(one, two);
                char *index = tm__path_join(b, "model.safetensors.index.json");
                assert_int_equal(tm__path_exists(index), shards[s] > 0);
                free(index);
                free(a);
                free(b);
            }
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

typedef struct watch {
    int64_t last, total, calls, stop_after;
} watch;

static void see(void *user, const tm_progress *progress) {
    watch *w = user;
    assert_string_equal(progress->phase, "write");
    assert_true(progress->done >= w->last);
    w->last = progress->done;
    w->total = progress->total;
    w->calls++;
}

static bool stop(void *user) {
    const watch *w = user;
    return w->stop_after && w->calls >= w->stop_after;
}

static void tells_and_stops(void **state) {
    (void)state;
    watch w = {0};
    const tm_monitor monitor = {.progress = see, .stop = stop, .user = &w};
    char *out = tm__path_join(test_scratch(), "m");
    assert_ok(tm_model_write_new(configs[0], 1, out, NULL, &monitor));
    assert_true(w.calls > 10 && w.last == w.total);
    assert_int_equal(tm_model_write_new(configs[0], 1, out, NULL, &monitor), TM_EXISTS);
    assert_ok(tm__remove_tree(out));
    w = (watch){.stop_after = 3};
    assert_int_equal(tm_model_write_new(configs[0], 1, out, NULL, &monitor), TM_INTERRUPTED);
    assert_false(tm__path_exists(out));
    free(out);
}

static void takes_a_tokenizer_that_fits(void **state) {
    (void)state;
    char *out = tm__path_join(test_scratch(), "m");
    const tm_save_options options = {.tokenizer_dir = tiny_tokenizer_directory()};
    tm_tokenizer *tokenizer;
    assert_int_equal(tm_model_write_new(configs[0], 1, out, &options, NULL), TM_MISMATCH);
    assert_string_equal(tm_error_last()->field, "vocab_size");
    assert_false(tm__path_exists(out));
    assert_ok(tm_model_write_new(tiny_config, 1, out, &options, NULL));
    assert_ok(tm_tokenizer_load(out, &tokenizer));
    tm_tokenizer_free(tokenizer);
    free(out);
}

static void refuses_wrong_configs(void **state) {
    (void)state;
    char *out = tm__path_join(test_scratch(), "m");
    assert_int_equal(tm_model_write_new("{", 1, out, NULL, NULL), TM_FORMAT);
    assert_int_equal(tm_model_write_new("{\"model_type\": \"mystery\"}", 1, out, NULL, NULL), TM_UNSUPPORTED);
    assert_false(tm__path_exists(out));
    for (long n = 1;; n++) {
        tm__alloc_fail_at(n, false);
        tm_status status = tm_model_write_new(configs[1], 1, out, NULL, NULL);
        tm__alloc_fail_at(0, false);
        if (status == TM_OK) break;
        assert_int_equal(status, TM_NO_MEMORY);
        assert_false(tm__path_exists(out));
    }
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_model_in_memory),
        cmocka_unit_test(tells_and_stops),
        cmocka_unit_test(takes_a_tokenizer_that_fits),
        cmocka_unit_test(refuses_wrong_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
