/* The training loop: what must not change its result (C3 to C6 of the method specification), and that it learns. */
#include "tiny_fixture.h"

#include "data/data.h"

/* Trains a fresh model and returns its hash, adapters merged. */
static void train_hash(const char *device_name, const tm_dataset *rows, const tm_train_options *options,
                       tm_train_result *result, char hex[65]) {
    tm_device *device = tiny_device(device_name);
    tm_model *model = tiny_model(device);
    assert_ok(tm_train(model, tokenizer, rows, options, NULL, result));
    if (options->lora.rank) assert_ok(tm_model_merge(model));
    tiny_hash(model, hex);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
}

static void test_fixed_seed(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("seed", 11);
    for (int lora = 0; lora < 2; lora++) {
        tm_train_options o = tiny_options();
        tm_train_result result;
        char a[65], b[65], c[65], fresh[65];
        o.lora.rank = lora ? 4 : 0;
        o.lora.dropout = .2;
        train_hash("cpu", rows, &o, &result, a);
        assert_true(result.steps == 6 && result.rows_dropped == 0 && !result.resumed && result.tokens > 0);
        train_hash("cpu", rows, &o, NULL, b);
        o.seed = 43;
        train_hash("cpu", rows, &o, NULL, c);
        assert_string_equal(a, b);
        assert_string_not_equal(a, c);
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        tiny_hash(model, fresh);
        assert_string_not_equal(a, fresh);
        tm_model_free(model);
        tm_device_close(device);
    }
    tm_dataset_free(rows);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

typedef struct gradient {
    double *values;
    size_t count;
    double loss;
} gradient;

/* Loss and gradient of one step on all rows, as fp64 on the host. */
static gradient gradient_of(const char *device_name, const tm_dataset *rows, const tm_train_options *options,
                            int32_t pad) {
    tm_device *device = tiny_device(device_name);
    tm_model *model = tiny_model(device);
    tm__examples examples;
    assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 128, false, NULL, &examples));
    assert_ok(tm__model_train_full(model));
    tm__trainer trainer = {.model = model, .options = options, .examples = &examples, .pad = pad};
    assert_ok(tm__paramset_collect(model, &trainer.set));
    assert_ok(tm__tape_create(device, &trainer.tape));
    trainer.tape->recording = trainer.tape->training = true;
    gradient g = {.values = tm__alloc((size_t)trainer.set.scalars, sizeof(double))};
    int64_t expected = 0;
    const tm__pass pass = {&examples, 1, 0, (int64_t)examples.count, 1};
    tm__pass_result result;
    tm__grads_zero(&trainer.set);
    assert_ok(tm__trainer_pass(&trainer, &pass, &result));
    g.loss = result.loss;
    for (size_t i = 0; i < examples.count; i++) expected += tm__example_targets(&examples, i);
    assert_int_equal(result.targets, expected);
    for (size_t i = 0; i < trainer.set.count; i++) {
        size_t count = (size_t)tm__tensor_count(&trainer.set.items[i]->value);
        void *host = tm__alloc(count, tm__dtype_size(device->act));
        assert_ok(device->download(device, host, trainer.set.items[i]->grad, count * tm__dtype_size(device->act)));
        tm__convert(g.values + g.count, TM_F64, host, device->act, count);
        g.count += count;
        free(host);
    }
    for (size_t i = 0; i < TM__ORDERS; i++) tm__order_release(&trainer.orders[i]);
    tm__tape_free(trainer.tape);
    tm__paramset_release(&trainer.set);
    tm__examples_release(&examples);
    tm_model_free(model);
    tm_device_close(device);
    return g;
}

static void assert_equal_gradients(const gradient *a, const gradient *b, double tolerance) {
    assert_int_equal(a->count, b->count);
    double error = test_relative_error(a->values, b->values, a->count), loss = fabs(a->loss - b->loss) / b->loss;
    if (error > tolerance || loss > tolerance) fail_msg("gradients differ by %g, losses by %g", error, loss);
}

/* fp32 on cpu: sums of some hundred terms in another order differ by some units in 2^-24; 2e-6 leaves a factor of about
 * ten. fp64 on ref: the specification's 1e-12. */
static const struct {
    const char *device;
    double tolerance;
} precisions[] = {{"ref64", 1e-12}, {"cpu", 2e-6}};

static void test_accumulation(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("micro", 7);
    for (size_t p = 0; p < TM__COUNT(precisions); p++) {
        tm_train_options o = tiny_options();
        gradient whole = gradient_of(precisions[p].device, rows, &o, 0);
        for (int64_t micro = 1; micro <= 4; micro++) {
            o.micro = micro;
            gradient parts = gradient_of(precisions[p].device, rows, &o, 0);
            assert_equal_gradients(&parts, &whole, precisions[p].tolerance);
            free(parts.values);
        }
        free(whole.values);
    }
    tm_dataset_free(rows);
}

static void test_packed_equals_padded(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("layout", 7);
    for (size_t p = 0; p < TM__COUNT(precisions); p++) {
        tm_train_options o = tiny_options();
        gradient padded = gradient_of(precisions[p].device, rows, &o, 0);
        o.packed = true;
        gradient packed = gradient_of(precisions[p].device, rows, &o, 0);
        assert_equal_gradients(&packed, &padded, precisions[p].tolerance);
        free(padded.values);
        free(packed.values);
    }
    tm_dataset_free(rows);
}

static void test_padding_content_is_nothing(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("padding", 7);
    for (size_t p = 0; p < TM__COUNT(precisions); p++) {
        tm_train_options o = tiny_options();
        gradient a = gradient_of(precisions[p].device, rows, &o, 0);
        gradient b = gradient_of(precisions[p].device, rows, &o, 'e'); /* an id that rows hold too */
        assert_true(a.loss == b.loss);
        assert_memory_equal(a.values, b.values, a.count * sizeof *a.values);
        free(a.values);
        free(b.values);
    }
    tm_dataset_free(rows);
}

static void test_recomputation_is_bitwise(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("again", 7);
    tm_train_options o = tiny_options();
    char a[65], b[65];
    o.lora.rank = 4;
    o.lora.dropout = .3;
    train_hash("cpu", rows, &o, NULL, a);
    o.recompute = true;
    train_hash("cpu", rows, &o, NULL, b);
    assert_string_equal(a, b);
    tm_dataset_free(rows);
}

/* ---- a method's own step ----------------------------------------------------------------------------------------- */

/* SFT plus 0 times the gradient at perturbed weights, the weights restored: what Panacea does with a weight of 0. */
static tm_status zero_regulariser(tm__trainer *trainer, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    (void)user;
    tm__vector weights = {0}, plain = {0}, extra = {0};
    int64_t batch = trainer->options->batch, first = trainer->step * batch;
    const tm__pass pass = {trainer->examples, (uint64_t)trainer->options->seed, first, batch, 1},
                   other = {trainer->examples, 77, first, batch, 1};
    tm__pass_result result, ignored;
    TM__TRY(tm__vector_create(&trainer->set, &weights));
    TM__TRY(tm__vector_create(&trainer->set, &plain));
    TM__TRY(tm__vector_create(&trainer->set, &extra));
    TM__TRY(tm__trainer_pass(trainer, &pass, &result));
    TM__TRY(tm__grads_save(&trainer->set, &plain));
    TM__TRY(tm__paramset_save(&trainer->set, &weights));
    TM__TRY(tm__paramset_axpy(&trainer->set, 1e-3, &plain));
    tm__grads_zero(&trainer->set);
    TM__TRY(tm__trainer_pass(trainer, &other, &ignored));
    TM__TRY(tm__grads_save(&trainer->set, &extra));
    TM__TRY(tm__paramset_restore(&trainer->set, &weights));
    tm__grads_zero(&trainer->set);
    TM__TRY(tm__grads_axpy(&trainer->set, 1, &plain));
    TM__TRY(tm__grads_axpy(&trainer->set, 0, &extra));
    tm__vector_release(&trainer->set, &weights);
    tm__vector_release(&trainer->set, &plain);
    tm__vector_release(&trainer->set, &extra);
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

static void test_zero_regulariser_is_sft(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("zero", 10);
    tm_train_options o = tiny_options();
    char hash[2][65];
    for (int i = 0; i < 2; i++) {
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        tm__examples examples;
        assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 128, false, NULL, &examples));
        assert_ok(tm__model_train_full(model));
        const tm__run run = {.tag = "tag", .step = i ? zero_regulariser : NULL};
        assert_ok(tm__trainer_run(model, &examples, &o, NULL, &run, NULL));
        assert_ok(tm__model_freeze(model));
        tiny_hash(model, hash[i]);
        tm__examples_release(&examples);
        tm_model_free(model);
        tm_device_close(device);
    }
    assert_string_equal(hash[0], hash[1]);
    tm_dataset_free(rows);
}

/* ---- what is trained --------------------------------------------------------------------------------------------- */

static void test_lora_leaves_the_base_alone(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("frozen", 10);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device), *plain = tiny_model(device);
    tm_train_options o = tiny_options();
    char before[65], after[65];
    o.lora.rank = 4;
    assert_ok(tm_train(model, tokenizer, rows, &o, NULL, NULL));
    for (int64_t layer = 0; layer < 2; layer++)
        for (int i = 0; i < TM__LINEARS; i++) {
            tm__linear *trained = tm__block_linear(&model->blocks[layer], i);
            tm__linear *untouched = tm__block_linear(&plain->blocks[layer], i);
            assert_memory_equal(trained->weight.value.data, untouched->weight.value.data,
                                tm__tensor_bytes(&trained->weight.value));
            assert_int_equal(trained->adapter_count, i == 0 || i == 2);
        }
    assert_memory_equal(model->embed.value.data, plain->embed.value.data, tm__tensor_bytes(&plain->embed.value));
    tiny_hash(plain, before);
    assert_ok(tm_model_merge(model));
    tiny_hash(model, after);
    assert_string_not_equal(before, after);
    tm_model_free(model);
    tm_model_free(plain);
    tm_device_close(device);
    tm_dataset_free(rows);
}

static void test_gradients_are_released(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("released", 4);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options o = tiny_options();
    assert_ok(tm_train(model, tokenizer, rows, &o, NULL, NULL));
    assert_null(model->embed.grad);
    assert_true(model->embed.owned && !model->embed.trainable && device->bytes_in_use > 0);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    tm_dataset_free(rows);
}

static void test_it_learns(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("learn", 4);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options o = tiny_options();
    tm_loss_report before, after, parts;
    tm_train_result result;
    o.steps = 60;
    o.schedule = 2;
    o.warmup = .1;
    assert_ok(tm_eval_loss(model, tokenizer, rows, &o, NULL, &before));
    assert_ok(tm_train(model, tokenizer, rows, &o, NULL, &result));
    assert_ok(tm_eval_loss(model, tokenizer, rows, &o, NULL, &after));
    assert_true(before.loss > 4 && after.loss < .2 && result.last_loss < .2 && result.first_loss > 2);
    assert_true(fabs(after.perplexity - exp(after.loss)) < 1e-12 && after.rows == 4);
    o.batch = 3;
    o.packed = true;
    assert_ok(tm_eval_loss(model, tokenizer, rows, &o, NULL, &parts));
    assert_true(fabs(parts.loss - after.loss) < 1e-6 && parts.targets == after.targets);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(rows);
}

/* The mean is over targets: with untrained weights near 0 every id has probability 1/V (golden value A15's formula). */
static void test_uniform_loss(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("uniform", 5);
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_loss_report report;
    tm_train_options o = tiny_options();
    assert_ok(tm__model_train_full(model));
    assert_ok(device->k->fill(device, model->embed.value.data, 0, tm__tensor_count(&model->embed.value)));
    assert_ok(tm__model_freeze(model));
    assert_ok(tm_eval_loss(model, tokenizer, rows, &o, NULL, &report));
    assert_true(fabs(report.loss - log(TINY_VOCAB)) < 1e-12);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(rows);
}

static void test_epochs(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("epochs", 10);
    tm_train_options o = tiny_options();
    tm_train_result result;
    char hex[65];
    o.steps = 0;
    o.epochs = 1.5;
    train_hash("cpu", rows, &o, &result, hex);
    assert_int_equal(result.steps, 4); /* ceil(1.5 * 10 / 4) */
    tm_dataset_free(rows);
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static void test_divergence_is_reported(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("diverge", 4);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options o = tiny_options();
    o.optimiser = 1;
    o.clip = 0;
    o.lr = 100;
    o.steps = 200;
    /* Gradients so large that no order of sums keeps the weights finite for more than a few steps. */
    assert_ok(tm__model_train_full(model));
    assert_ok(device->k->fill(device, model->final_norm.weight.value.data, 1e15,
                              tm__tensor_count(&model->final_norm.weight.value)));
    assert_ok(tm__model_freeze(model));
    assert_int_equal(tm_train(model, tokenizer, rows, &o, NULL, NULL), TM_NUMERIC);
    assert_int_equal(strncmp(tm_error_last()->field, "step ", 5), 0);
    for (int64_t i = 0; i < tm__tensor_count(&model->embed.value); i++)
        assert_true(isfinite(((const float *)model->embed.value.data)[i]));
    assert_null(model->embed.grad);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(rows);
}

typedef struct watcher {
    int64_t seen, stop_after;
    double last_loss, last_lr;
} watcher;

static void watch(void *user, const tm_progress *progress) {
    watcher *w = user;
    assert_string_equal(progress->phase, "train");
    assert_int_equal(progress->done, ++w->seen);
    w->last_loss = progress->loss;
    w->last_lr = progress->lr;
}

static bool stop(void *user) {
    const watcher *w = user;
    return w->stop_after && w->seen >= w->stop_after;
}

static void test_interruption(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("stop", 8);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options o = tiny_options();
    watcher w = {.stop_after = 3};
    const tm_monitor monitor = {.progress = watch, .stop = stop, .user = &w};
    assert_int_equal(tm_train(model, tokenizer, rows, &o, &monitor, NULL), TM_INTERRUPTED);
    assert_non_null(strstr(tm_error_last()->message, "after step 3 of 6"));
    assert_true(w.seen == 3 && isfinite(w.last_loss) && w.last_lr == 1e-2);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(rows);
}

static void test_bad_input(void **state) {
    (void)state;
    tm_dataset *none, *prompts;
    const tm_message ask[] = {{"user", "q"}};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options o = tiny_options();
    char before[65], after[65];
    tiny_hash(model, before);
    assert_ok(tm_dataset_create(&none));
    assert_ok(tm_dataset_create(&prompts));
    assert_ok(tm_dataset_add(prompts, ask, 1));
    assert_int_equal(tm_train(model, tokenizer, none, &o, NULL, NULL), TM_INVALID);
    assert_int_equal(tm_train(model, tokenizer, prompts, &o, NULL, NULL), TM_INVALID);
    o.lr = 0;
    assert_int_equal(tm_train(model, tokenizer, prompts, &o, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "lr");
    tiny_hash(model, after);
    assert_string_equal(before, after);
    tm_dataset_free(none);
    tm_dataset_free(prompts);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_out_of_memory(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("memory", 2);
    tm_status status = TM_NO_MEMORY;
    long n;
    for (n = 1; status != TM_OK; n += 1 + n / 40) { /* every allocation at first, then ever larger steps */
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        tm_train_options o = tiny_options();
        o.steps = 1;
        o.batch = 2;
        o.lora.rank = n % 2 ? 2 : 0;
        assert_true(n < 100000);
        tm__alloc_fail_at(n, false);
        status = tm_train(model, tokenizer, rows, &o, NULL, NULL);
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
        tm_model_free(model);
        assert_int_equal(device->bytes_in_use, 0);
        tm_device_close(device);
    }
    assert_true(n > 50);
    tm_dataset_free(rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_seed),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_packed_equals_padded),
        cmocka_unit_test(test_padding_content_is_nothing),
        cmocka_unit_test(test_recomputation_is_bitwise),
        cmocka_unit_test(test_zero_regulariser_is_sft),
        cmocka_unit_test(test_lora_leaves_the_base_alone),
        cmocka_unit_test(test_gradients_are_released),
        cmocka_unit_test(test_it_learns),
        cmocka_unit_test(test_uniform_loss),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_divergence_is_reported),
        cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
