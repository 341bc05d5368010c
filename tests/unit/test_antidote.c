/* Antidote: golden row A11 of the method specification, exact counts per row, the model's own inputs. */
#include "tiny_fixture.h"

#include "method/matrix.h"
#include "method/method.h"

/* A11: W = [(1,-2,.5),(3,.1,-1)], two sequences of two tokens. */
static void test_golden_scores(void **state) {
    (void)state;
    static const double w[2][3] = {{1, -2, .5}, {3, .1, -1}};
    static const double one[] = {1, 0, 2, 0, 1, 1}, two[] = {2, 1, 0, 0, 0, 1};
    static const double expected[2][3] = {{1.5811388301, 2, 0.8660254038}, {4.7434164903, 0.1, 1.7320508076}};
    double sums[3] = {0};
    tm__squares_add(sums, one, 2, 3);
    tm__squares_add(sums, two, 2, 3);
    for (int j = 0; j < 3; j++) sums[j] /= 2;
    assert_true(sums[0] == 2.5 && sums[1] == 1 && sums[2] == 3);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++) assert_true(fabs(tm__wanda_score(w[i][j], sums[j]) - expected[i][j]) < 1e-9);
    double row[3] = {1, -2, .5};
    assert_ok(tm__wanda_prune(row, sums, 3, 1));
    assert_true(row[0] == 1 && row[1] == 0 && row[2] == .5);
    assert_ok(tm__wanda_prune(row, sums, 3, 0));
    assert_true(row[0] == 1 && row[2] == .5);
    double equal[] = {1, -1, 1, 1}, ones[] = {1, 1, 1, 1}; /* ties: those further right */
    assert_ok(tm__wanda_prune(equal, ones, 4, 2));
    assert_true(equal[0] == 1 && equal[1] == -1 && equal[2] == 0 && equal[3] == 0);
}

static void test_golden_counts(void **state) {
    (void)state;
    assert_int_equal(tm__wanda_count(4096, .1), 410);
    assert_int_equal(tm__wanda_count(256, .1), 26);
    assert_int_equal(tm__wanda_count(4096, 0), 0);
    assert_int_equal(tm__wanda_count(10, 1), 10);
}

static int64_t zeros(const double *row, int64_t n) {
    int64_t count = 0;
    for (int64_t j = 0; j < n; j++) count += row[j] == 0;
    return count;
}

/* The mask is the places of the highest scores, found here by counting; pruning is W * (1 - mask), so that the same
 * mask once more changes nothing. */
static void test_a_fixed_mask_is_idempotent(void **state) {
    (void)state;
    enum { COLUMNS = 37, CUT = 9 };
    tm__rng rng = tm__rng_make(5, tm__stream(TM__STREAM_TEST, 1));
    for (int trial = 0; trial < 50; trial++) {
        double was[COLUMNS], row[COLUMNS], again[COLUMNS], mean[COLUMNS];
        bool mask[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) {
            was[j] = row[j] = tm__rng_normal(&rng);
            mean[j] = exp(tm__rng_normal(&rng));
        }
        for (int j = 0; j < COLUMNS; j++) {
            int above = 0;
            for (int k = 0; k < COLUMNS; k++) above += fabs(was[k]) * sqrt(mean[k]) > fabs(was[j]) * sqrt(mean[j]);
            mask[j] = above < CUT;
        }
        assert_ok(tm__wanda_prune(row, mean, COLUMNS, CUT));
        for (int j = 0; j < COLUMNS; j++) {
            assert_true(row[j] == (mask[j] ? 0 : was[j]));
            again[j] = row[j] * (mask[j] ? 0 : 1);
        }
        for (int j = 0; j < COLUMNS; j++) assert_true(again[j] == row[j]);
    }
}

static tm_status run(tm_model *model, const tm_dataset *harmful, double ratio) {
    const tm_method_data data = {.harmful = harmful};
    const tm_antidote_options o = {.ratio = ratio};
    const tm_train_options train = tiny_options();
    return tm__method_antidote.run(model, tokenizer, &data, &o, &train, NULL, NULL);
}

/* Every row of every linear loses exactly the count, what stays is untouched, and ratio 0 changes nothing. */
static void test_whole_model(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 5);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *before = tiny_model(device);
    char a[65], b[65];
    assert_ok(run(model, harmful, 0));
    tiny_hash(model, a);
    tiny_hash(before, b);
    assert_string_equal(a, b);
    assert_ok(run(model, harmful, .1));
    for (int64_t l = 0; l < 2; l++)
        for (int k = 0; k < TM__LINEARS; k++) {
            const tm__param *w = &tm__block_linear(&model->blocks[l], k)->weight;
            const tm__param *was = &tm__block_linear(&before->blocks[l], k)->weight;
            int64_t out = w->value.shape[0], in = w->value.shape[1], count = in - (int64_t)((double)in * .9);
            double *values, *old;
            assert_ok(tm__param_read_all(device, w, &values));
            assert_ok(tm__param_read_all(device, was, &old));
            for (int64_t i = 0; i < out; i++) assert_int_equal(zeros(values + i * in, in), count);
            for (int64_t i = 0; i < out * in; i++) assert_true(values[i] == 0 || values[i] == old[i]);
            free(values);
            free(old);
            assert_null(tm__block_linear(&model->blocks[l], k)->watch);
        }
    tm_model_free(model);
    tm_model_free(before);
    tm_device_close(device);
    tm_dataset_free(harmful);
}

/* The first q_proj's input is known: norm(embed[id]) of every token. Its prune must be Wanda's on these. */
static void test_inputs_are_the_layers_own(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 3);
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    const tm_train_options train = tiny_options();
    tm__examples examples;
    double *embed, *norm, *q, *after, sums[32] = {0};
    assert_ok(tm__examples_encode(tokenizer, harmful, TM_CHAT_CHATML, train.max_length, false, NULL, &examples));
    assert_ok(tm__param_read_all(device, &model->embed, &embed));
    assert_ok(tm__param_read_all(device, &model->blocks[0].norm[TM__NORM_INPUT].weight, &norm));
    assert_ok(tm__param_read_all(device, &model->blocks[0].q.weight, &q));
    for (size_t r = 0; r < examples.count; r++)
        for (size_t t = 0; t < examples.ids[r].len; t++) {
            const double *x = embed + 32 * examples.ids[r].data[t];
            double y[32], square = 0;
            for (int j = 0; j < 32; j++) square += x[j] * x[j];
            for (int j = 0; j < 32; j++) y[j] = x[j] / sqrt(square / 32 + 1e-5) * norm[j];
            tm__squares_add(sums, y, 1, 32);
        }
    for (int j = 0; j < 32; j++) sums[j] /= (double)examples.count;
    assert_ok(run(model, harmful, .25));
    assert_ok(tm__param_read_all(device, &model->blocks[0].q.weight, &after));
    for (int i = 0; i < 32; i++) assert_ok(tm__wanda_prune(q + 32 * i, sums, 32, 8));
    assert_memory_equal(q, after, 32 * 32 * sizeof *q);
    free(embed);
    free(norm);
    free(q);
    free(after);
    tm__examples_release(&examples);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
}

/* With an adapter its A and B are pruned and the model stays; the scores of B see A as it was. */
static void test_adapter(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 4);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *plain = tiny_model(device);
    tm_train_options train = tiny_options();
    train.lora.rank = 10;
    train.lora.targets = "q_proj,v_proj";
    assert_ok(tm_train(model, tokenizer, harmful, &train, NULL, NULL));
    assert_ok(run(model, harmful, .2));
    for (int k = 0; k < TM__LINEARS; k++) {
        const tm__linear *linear = tm__block_linear(&model->blocks[1], k);
        const tm__linear *was = tm__block_linear(&plain->blocks[1], k);
        assert_memory_equal(linear->weight.value.data, was->weight.value.data, tm__tensor_bytes(&was->weight.value));
        for (size_t i = 0; i < linear->adapter_count; i++) {
            double *a, *b;
            assert_ok(tm__param_read_all(device, &linear->adapters[i].a, &a));
            assert_ok(tm__param_read_all(device, &linear->adapters[i].b, &b));
            for (int r = 0; r < 10; r++) assert_int_equal(zeros(a + 32 * r, 32), 7); /* 32 - int(25.6) */
            for (int64_t r = 0; r < linear->weight.value.shape[0]; r++) assert_int_equal(zeros(b + 10 * r, 10), 2);
            free(a);
            free(b);
        }
    }
    tm_model_free(model);
    tm_model_free(plain);
    tm_device_close(device);
    tm_dataset_free(harmful);
}

static void test_refuses(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_dataset *harmful = tiny_rows("harmful", 2);
    assert_int_equal(run(model, NULL, .1), TM_INVALID);
    assert_int_equal(run(model, harmful, 1.5), TM_INVALID);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_scores),
        cmocka_unit_test(test_golden_counts),
        cmocka_unit_test(test_a_fixed_mask_is_idempotent),
        cmocka_unit_test(test_whole_model),
        cmocka_unit_test(test_inputs_are_the_layers_own),
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
