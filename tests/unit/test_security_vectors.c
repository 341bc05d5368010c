/* Security Vectors: what is frozen in which stage, and what is left at the end. */
#include "tiny_fixture.h"

#include "method/method.h"
#include "model/weights.h"

static tm_security_vectors_options defaults(void) {
    tm_security_vectors_options o;
    tm_options_default(tm__method_security_vectors.options, &o);
    return o;
}

static bool same_tensor(const tm__param *a, const tm__param *b) {
    return memcmp(a->value.data, b->value.data, tm__tensor_bytes(&a->value)) == 0;
}

static bool same_base(tm_model *a, tm_model *b) {
    bool same = same_tensor(&a->embed, &b->embed) && same_tensor(&a->final_norm.weight, &b->final_norm.weight);
    for (int64_t l = 0; l < 2; l++)
        for (int k = 0; k < TM__LINEARS; k++)
            same &=
                same_tensor(&tm__block_linear(&a->blocks[l], k)->weight, &tm__block_linear(&b->blocks[l], k)->weight);
    return same;
}

/* Stage 1 leaves the model, stage 2 the vectors; without them the model gives the states of its weights alone. */
static void check_stages(int64_t rank) {
    tm_dataset *user = tiny_rows("user", 8), *harmful = tiny_rows("harmful", 8);
    const tm_method_data data = {.user = user, .harmful = harmful};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *before = tiny_model(device);
    tm_train_options train = tiny_options();
    train.lora.rank = rank;
    const tm_security_vectors_options o = defaults();
    tm__job job;
    assert_ok(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__security_vectors_learn(&job, &o));
    assert_true(same_base(model, before));
    assert_int_equal(model->adapter_count, 1);
    tm__linear *q = &model->blocks[1].q;
    size_t bytes = tm__tensor_bytes(&q->adapters[0].b.value);
    char *b = malloc(bytes);
    memcpy(b, q->adapters[0].b.value.data, bytes);
    bool learnt = false;
    for (size_t i = 0; i < bytes; i++) learnt |= b[i] != 0;
    assert_true(learnt);
    assert_ok(tm__security_vectors_tune(&job));
    assert_memory_equal(q->adapters[0].b.value.data, b, bytes);
    assert_true(same_base(model, before) == (rank > 0));
    tm__adapter_remove(model, 0);
    assert_int_equal(model->adapter_count, rank > 0);
    assert_int_equal(q->adapter_count, rank > 0);
    if (rank) {
        assert_int_equal(q->adapters[0].number, 0);
        assert_int_equal(q->adapters[0].rank, rank);
    }
    free(b);
    tm_model_free(model);
    tm_model_free(before);
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

static void test_stages(void **state) {
    (void)state;
    check_stages(0);
    check_stages(3);
}

static double score_of(tm_model *model) {
    const int32_t ids[] = {72, 101, 108, 108, 111};
    double sum;
    assert_ok(tm_model_score(model, ids, 5, &sum));
    return sum;
}

/* With the vectors taken out the model says what it said before, bit by bit; with them it does not. */
static void test_removed_vectors_leave_the_output(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 8), *harmful = tiny_rows("harmful", 8);
    const tm_method_data data = {.user = user, .harmful = harmful};
    const tm_security_vectors_options o = defaults();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_train_options train = tiny_options();
    tm__job job;
    double plain = score_of(model);
    assert_ok(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__security_vectors_learn(&job, &o));
    assert_true(score_of(model) != plain);
    tm__adapter_remove(model, 0);
    assert_true(score_of(model) == plain);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

/* Frozen blocks are the user's affair: the vectors are learnt on all blocks, bit by bit as without. */
static void test_vectors_stand_on_frozen_blocks(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 8), *harmful = tiny_rows("harmful", 8);
    const tm_method_data data = {.user = user, .harmful = harmful};
    const tm_security_vectors_options o = defaults();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *frozen = tiny_model(device), *before = tiny_model(device);
    tm_train_options train = tiny_options();
    tm__job job;
    assert_ok(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__security_vectors_learn(&job, &o));
    train.freeze_blocks = 1;
    assert_ok(tm__job_begin(&job, &tm__method_security_vectors, frozen, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__security_vectors_learn(&job, &o));
    for (int64_t l = 0; l < 2; l++)
        assert_true(same_tensor(&model->blocks[l].q.adapters[0].b, &frozen->blocks[l].q.adapters[0].b));
    assert_ok(tm__security_vectors_tune(&job));
    assert_true(same_tensor(&frozen->blocks[0].q.weight, &before->blocks[0].q.weight));
    assert_false(same_tensor(&frozen->blocks[1].q.weight, &before->blocks[1].q.weight));
    train.freeze_blocks = 2; /* refused before stage 1 */
    assert_int_equal(tm__method_security_vectors.run(before, tokenizer, &data, &o, &train, NULL, NULL), TM_INVALID);
    assert_int_equal(before->adapter_count, 0);
    tm_model_free(model);
    tm_model_free(frozen);
    tm_model_free(before);
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

/* The removed adapter leaves a plain model; what is saved loads again and scores alike. */
static void test_nothing_is_left(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 8), *harmful = tiny_rows("harmful", 8);
    const tm_method_data data = {.user = user, .harmful = harmful};
    const tm_security_vectors_options o = defaults();
    const tm_save_options save = {.overwrite = true};
    tm_device *device = tiny_device("cpu");
    for (int64_t rank = 0; rank <= 3; rank += 3) {
        tm_model *model = tiny_model(device), *again, *loaded;
        tm_train_options train = tiny_options();
        const char *directory = test_scratch(), *adapter = test_scratch();
        char a[65], b[65];
        train.lora.rank = rank;
        if (rank) assert_ok(tm_model_save(model, directory, &save));
        assert_ok(tm__method_security_vectors.run(model, tokenizer, &data, &o, &train, NULL, NULL));
        assert_ok(rank ? tm_model_save_adapter(model, adapter, &save) : tm_model_save(model, directory, &save));
        assert_ok(tm_model_load(device, directory, rank ? adapter : NULL, &loaded));
        assert_true(fabs(score_of(model) - score_of(loaded)) < 1e-5);
        again = tiny_model(device); /* C4: the same bytes again */
        assert_ok(tm__method_security_vectors.run(again, tokenizer, &data, &o, &train, NULL, NULL));
        tiny_hash(model, a);
        tiny_hash(again, b);
        assert_string_equal(a, b);
        tm_model_free(model);
        tm_model_free(again);
        tm_model_free(loaded);
    }
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

/* Vectors that were not learnt (rate 0, B stays 0) change nothing: plain SFT, bit by bit. */
static void test_zero_vectors_are_sft(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 8), *harmful = tiny_rows("harmful", 8);
    const tm_method_data data = {.user = user, .harmful = harmful};
    tm_security_vectors_options o = defaults();
    const tm_train_options train = tiny_options();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *plain = tiny_model(device);
    char a[65], b[65];
    o.lr = 0;
    assert_ok(tm__method_security_vectors.run(model, tokenizer, &data, &o, &train, NULL, NULL));
    assert_ok(tm_train(plain, tokenizer, user, &train, NULL, NULL));
    tiny_hash(model, a);
    tiny_hash(plain, b);
    assert_string_equal(a, b);
    const tm_method_data bad = {.user = user};
    assert_int_equal(tm__method_security_vectors.run(plain, tokenizer, &bad, &o, &train, NULL, NULL), TM_INVALID);
    tm_model_free(model);
    tm_model_free(plain);
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_removed_vectors_leave_the_output),
        cmocka_unit_test(test_vectors_stand_on_frozen_blocks),
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_zero_vectors_are_sft),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
