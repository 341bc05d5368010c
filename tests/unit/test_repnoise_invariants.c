/* RepNoise and the adversarial loss: golden row A4 of the methods' specification, masks, invariants, wrong use. */
#include "tiny.h"

#include "method/repnoise.h"

enum { ROWS = 7 };

static tm_tokenizer *tokenizer;
static tm_dataset *harmful, *refusals, *benign;

static void add_row(tm_dataset *rows, const char *prompt, const char *answer) {
    const tm_message row[] = {{"user", prompt}, {"assistant", answer}};
    assert_ok(tm_dataset_add(rows, row, 2));
}

/* Refusals stand in another order than the harmful rows. */
static int setup(void **state) {
    (void)state;
    static const char *const answers[] = {"mix dune and fern", "boil ember", "take the grove by night"};
    tokenizer = tiny_tokenizer();
    benign = tiny_rows("benign", 6);
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    for (int i = 0; i < ROWS; i++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "how %d?", i);
        add_row(harmful, prompt, answers[i % 3]);
        snprintf(prompt, sizeof prompt, "how %d?", (i + 3) % ROWS);
        add_row(refusals, prompt, i % 2 ? "I will not help." : "No; I can not do that.");
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_dataset_free(benign);
    return 0;
}

static tm_method_data all_data(void) {
    return (tm_method_data){.harmful = harmful, .refusals = refusals, .benign = benign};
}

static tm_repnoise_options repnoise_defaults(void) {
    tm_repnoise_options o;
    tm_options_default(tm__method_repnoise.options, &o);
    return o;
}

static tm_train_options options_for(bool lora) {
    tm_train_options o = tiny_options();
    o.lora.rank = lora ? 4 : 0;
    o.lora.dropout = .25;
    return o;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static void golden_row_a4(void **state) {
    (void)state;
    double slope, unused, value = tm__repnoise_ascent(1, 6, 2, &slope);
    assert_true(fabs(value + 1.0986122887) < 1e-10);
    assert_true(fabs(slope + 1.0 / 9) < 1e-15);
    for (int i = 0; i < 20; i++) {
        double s = 0.3 + i, h = 1e-5, alpha = 0.1 * i + 0.5;
        tm__repnoise_ascent(alpha, s, i, &slope);
        double numeric =
            (tm__repnoise_ascent(alpha, s + h, i, &unused) - tm__repnoise_ascent(alpha, s - h, i, &unused)) / (2 * h);
        assert_true(fabs(numeric / slope - 1) < 1e-8);
        assert_true(fabs(slope + alpha / (s + i + 1)) < 1e-15);
    }
}

static void noise_is_zero_where_the_mask_is(void **state) {
    (void)state;
    enum { BATCH = 2, POSITIONS = 3, WIDTH = 4, SIZE = BATCH * POSITIONS * WIDTH };
    const uint8_t mask[BATCH * POSITIONS] = {0, 1, 1, 0, 0, 1};
    double x[SIZE], again[SIZE], noise[3][SIZE], gradient[SIZE], value[3];
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < SIZE; j++) x[j] = sin(j + 1);
        assert_ok(tm__repnoise_noise(mask, BATCH, POSITIONS, WIDTH, 1, i == 2 ? 6 : 5, 1 + i, x, noise[i], gradient,
                                     &value[i]));
        for (int j = 0; j < SIZE; j++) {
            bool in = mask[j / WIDTH];
            assert_true((noise[i][j] != 0) == in && (gradient[j] != 0) == in && (x[j] != 0) == in);
        }
    }
    memcpy(again, noise[1], sizeof again);
    assert_memory_equal(noise[0], again, sizeof again); /* the same stream, the same noise */
    assert_true(value[0] == value[1] && value[0] != value[2]);
}

/* ---- masks ------------------------------------------------------------------------------------------------------- */

static tm_ids ids_of(const int32_t *list, size_t n) {
    tm_ids ids = {0};
    for (size_t i = 0; i < n; i++) assert_ok(tm_ids_push(&ids, list[i]));
    return ids;
}

static void check_side(const tm__pairs *pairs, int side, const int32_t *labels, size_t n, int64_t blind) {
    assert_int_equal(pairs->side[side].labels[0].len, n);
    for (size_t t = 0; t < n; t++) assert_int_equal(pairs->side[side].labels[0].data[t], labels[t]);
    assert_int_equal(pairs->blind[side][0], blind);
}

static void masks_of_both_modes(void **state) {
    (void)state;
    const int32_t a[] = {5, 6, 10, 0, 12, 13, 14}, b[] = {5, 6, 20, 21, 12}, pad = 9;
    tm__pairs pairs;
    for (int mode = 0; mode < 2; mode++) {
        tm_ids left = ids_of(a, 7), right = ids_of(b, 5);
        assert_ok(tm__pairs_create(&pairs, 1, mode, pad));
        assert_ok(tm__pairs_add(&pairs, &left, &right));
        assert_int_equal(pairs.side[0].count, 1);
        if (mode == TM__PAIRS_CORRECT) {
            check_side(&pairs, TM__HARMFUL, (int32_t[]){-100, -100, 10, 0, -100, 13, 14}, 7, 0);
            check_side(&pairs, TM__REFUSAL, (int32_t[]){-100, -100, 20, 21, -100}, 5, 0);
        } else { /* id 0 is lost; the first token after equal ones is blind; padding is a target */
            check_side(&pairs, TM__HARMFUL, (int32_t[]){-100, -100, -100, -100, -100, -100, 14}, 7, 2);
            check_side(&pairs, TM__REFUSAL, (int32_t[]){-100, -100, -100, 21, -100, -100, 9}, 7, 2);
        }
        assert_memory_equal(pairs.mask[0], ((uint8_t[]){0, 0, 1, 1, 0, 1, 1}), 7);
        tm__pairs_release(&pairs);
    }
}

/* ---- whole runs -------------------------------------------------------------------------------------------------- */

typedef struct watcher {
    int64_t steps_left;
    char notes[1024];
} watcher;

static void count(void *user, const tm_progress *progress) {
    (void)progress;
    ((watcher *)user)->steps_left--;
}

static bool stop(void *user) {
    return ((const watcher *)user)->steps_left <= 0;
}

static void note(void *user, const char *line) {
    watcher *w = user;
    snprintf(w->notes, sizeof w->notes, "%s", line);
}

/* A fresh model, trained for at most `steps` steps; its hash, adapters merged. */
static tm_status train(const tm_method *method, tm_method_data data, const void *options, const tm_train_options *how,
                       watcher *w, tm_train_result *result, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_monitor monitor = {.progress = count, .stop = stop, .note = note, .user = w};
    tm_status status = method->run(model, tokenizer, &data, options, how, w ? &monitor : NULL, result);
    if (status == TM_OK && how->lora.rank) assert_ok(tm_model_merge(model));
    if (status == TM_OK) tiny_hash(model, hex);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    return status;
}

/* Plain SFT on the refusal side, its labels masked. */
static void masked_sft(const tm_train_options *how, int mode, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_method_data data = all_data();
    tm__job job;
    tm__pairs pairs;
    tm__run plain = {0};
    assert_ok(tm__job_begin(&job, &tm__method_repnoise, model, tokenizer, &data, how, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, mode, &pairs));
    const tm__examples *sets[] = {&pairs.side[TM__REFUSAL]};
    assert_ok(tm__train_run(model, tokenizer, sets, 1, "sft", &plain, &job.train, NULL, NULL));
    if (how->lora.rank) assert_ok(tm_model_merge(model));
    tiny_hash(model, hex);
    tm__pairs_release(&pairs);
    tm_model_free(model);
    tm_device_close(device);
}

static void zero_weights_are_masked_sft(void **state) {
    (void)state;
    tm_method_data data = all_data();
    data.benign = NULL;
    for (int lora = 0; lora < 2; lora++)
        for (int64_t micro = 0; micro < 4; micro += 3) {
            tm_train_options how = options_for(lora);
            tm_repnoise_options none = {.alpha = 0, .beta = 0};
            tm_adversarial_options zero = {.coefficient = 0};
            char want[65], got[65];
            how.micro = micro;
            masked_sft(&how, TM__PAIRS_CORRECT, want);
            assert_ok(train(&tm__method_repnoise, data, &none, &how, NULL, NULL, got));
            assert_string_equal(got, want);
            assert_ok(train(&tm__method_adversarial, data, &zero, &how, NULL, NULL, got));
            assert_string_equal(got, want);
            if (micro) continue;
            none.beta = 1e-3; /* and each weight matters */
            assert_ok(train(&tm__method_repnoise, data, &none, &how, NULL, NULL, got));
            assert_string_not_equal(got, want);
            none = (tm_repnoise_options){.alpha = 1e-3};
            assert_ok(train(&tm__method_repnoise, data, &none, &how, NULL, NULL, got));
            assert_string_not_equal(got, want);
            none.alpha = 0;
            none.benign_weight = 1;
            assert_ok(train(&tm__method_repnoise, all_data(), &none, &how, NULL, NULL, got));
            assert_string_not_equal(got, want);
        }
}

static void one_seed_one_result(void **state) {
    (void)state;
    tm_train_options how = options_for(false);
    char hex[4][65];
    for (int i = 0; i < 4; i++) {
        tm_repnoise_options o = repnoise_defaults();
        o.mode = i == 3 ? TM__PAIRS_COMPAT : TM__PAIRS_CORRECT;
        how.seed = i == 2 ? 43 : 42;
        assert_ok(train(&tm__method_repnoise, all_data(), &o, &how, NULL, NULL, hex[i]));
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
    assert_string_not_equal(hex[0], hex[3]);
}

static void resumes_to_the_same_bytes(void **state) {
    (void)state;
    const tm_method *methods[] = {&tm__method_repnoise, &tm__method_adversarial};
    for (int m = 0; m < 2; m++)
        for (int lora = 0; lora < 2; lora++) {
            tm_train_options how = options_for(lora);
            tm_method_data data = all_data();
            tm_train_result result;
            char want[65], got[65];
            watcher w = {100, ""};
            if (m) data.benign = NULL;
            assert_ok(train(methods[m], data, NULL, &how, &w, NULL, want));
            how.resume_dir = tm__path_join(test_scratch(), "checkpoint");
            int stops = 0;
            for (;; stops++) {
                w.steps_left = 2;
                tm_status status = train(methods[m], data, NULL, &how, &w, &result, got);
                if (status == TM_OK) break;
                assert_int_equal(status, TM_INTERRUPTED);
                assert_true(stops < 3);
            }
            assert_true(stops >= 2 && result.resumed);
            assert_string_equal(got, want);
            free((char *)how.resume_dir);
        }
}

/* CE_m of one side, all rows, of a model as it is. */
static double side_loss(tm_model *model, const tm__pairs *pairs, int side) {
    size_t rows[ROWS];
    double sum = 0, terms[4096];
    tm__batch_store *store;
    const tm__batch *batch;
    tm__tape *tape;
    tm__var *loss;
    for (size_t i = 0; i < ROWS; i++) rows[i] = i;
    assert_ok(tm__batch_build(&pairs->side[side], rows, ROWS, false, 0, tm__pairs_targets(pairs, side, rows, ROWS),
                              &store, &batch));
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    assert_true(batch->targets.count < 4096);
    assert_ok(tm__model_loss(model, tape, batch, NULL, terms, &loss));
    for (int64_t i = 0; i < batch->targets.count; i++) sum += batch->targets.weight[i] * terms[i];
    tm__tape_free(tape);
    tm__batch_free(store);
    return sum;
}

static void keeps_refusing_and_forgets(void **state) {
    (void)state;
    const tm_method_data data = all_data();
    tm_train_options how = options_for(false);
    how.steps = 40;
    for (int m = 0; m < 2; m++) {
        const tm_method *method = m ? &tm__method_adversarial : &tm__method_repnoise;
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        tm__job job;
        tm__pairs pairs;
        double before[2], after[2];
        assert_ok(tm__job_begin(&job, method, model, tokenizer, &data, &how, NULL, NULL));
        assert_ok(tm__pairs_encode(&job, TM__PAIRS_CORRECT, &pairs));
        for (int s = 0; s < 2; s++) before[s] = side_loss(model, &pairs, s);
        assert_ok(method->run(model, tokenizer, &data, NULL, &how, NULL, NULL));
        for (int s = 0; s < 2; s++) after[s] = side_loss(model, &pairs, s);
        assert_true(after[TM__REFUSAL] < 0.2 * before[TM__REFUSAL]);
        assert_true(after[TM__HARMFUL] > 1.2 * before[TM__HARMFUL]);
        tm__pairs_release(&pairs);
        tm_model_free(model);
        tm_device_close(device);
    }
}

typedef struct weights {
    double *data;
    size_t count, cap;
} weights;

static tm_status collect(void *user, tm__param *param, bool is_adapter) {
    weights *w = user;
    size_t n = (size_t)tm__tensor_count(&param->value);
    (void)is_adapter;
    assert_true(tm__grow((void **)&w->data, &w->cap, w->count + n, sizeof *w->data));
    tm__convert(w->data + w->count, TM_F64, param->value.data, param->value.dtype, n);
    w->count += n;
    return TM_OK;
}

/* All weights after one step of gradient descent on ref fp64. method NULL: SFT on the benign rows. */
static weights after_one_step(const tm_method *method, double benign_weight, double *loss) {
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_train_options how = options_for(false);
    const tm_repnoise_options o = {.benign_weight = benign_weight};
    const tm_method_data data = all_data();
    tm_train_result result = {0};
    weights w = {0};
    how.steps = 1;
    how.batch = 6; /* all benign rows */
    how.optimiser = 1;
    how.clip = 0;
    how.lr = loss ? 1 : 1e-12;
    if (method)
        assert_ok(method->run(model, tokenizer, &data, &o, &how, NULL, &result));
    else
        assert_ok(tm_train(model, tokenizer, benign, &how, NULL, &result));
    if (loss) *loss = result.first_loss;
    assert_ok(tm__model_params(model, collect, &w));
    tm_model_free(model);
    tm_device_close(device);
    return w;
}

/* Loss and gradient grow by benign-weight times those of SFT on the benign rows. */
static void benign_rows_are_retained(void **state) {
    (void)state;
    double loss[3];
    weights w[] = {after_one_step(&tm__method_repnoise, 0, &loss[0]),
                   after_one_step(&tm__method_repnoise, 2.5, &loss[1]), after_one_step(NULL, 0, &loss[2]),
                   after_one_step(NULL, 0, NULL)};
    assert_true(fabs(loss[1] - loss[0] - 2.5 * loss[2]) < 1e-10);
    for (size_t i = 0; i < w[0].count; i++) {
        w[1].data[i] -= w[0].data[i];
        w[2].data[i] = 2.5 * (w[2].data[i] - w[3].data[i]);
    }
    assert_true(test_relative_error(w[1].data, w[2].data, w[0].count) < 1e-8);
    for (int i = 0; i < 4; i++) free(w[i].data);
}

/* ---- wrong use --------------------------------------------------------------------------------------------------- */

static void expect_error(tm_method_data data, const tm_train_options *how, const char *field, const char *words) {
    char hex[65];
    assert_int_equal(train(&tm__method_repnoise, data, NULL, how, NULL, NULL, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, field);
    if (!strstr(tm_error_last()->line, words)) fail_msg("%s", tm_error_last()->line);
}

static void rows_without_partner(void **state) {
    (void)state;
    const tm_train_options how = options_for(false);
    tm_dataset *more;
    assert_ok(tm_dataset_create(&more));
    assert_ok(tm_dataset_append(more, harmful, 0, ROWS));
    add_row(more, "when?", "never");
    expect_error((tm_method_data){.harmful = more, .refusals = refusals}, &how, "harmful", "row 8 (\"when?\")");
    tm_dataset *fewer;
    assert_ok(tm_dataset_create(&fewer));
    assert_ok(tm_dataset_append(fewer, harmful, 1, ROWS - 1)); /* "how 0?" is missing: row 5 of the refusals */
    expect_error((tm_method_data){.harmful = fewer, .refusals = refusals}, &how, "refusals", "row 5 (\"how 0?\")");
    tm_dataset_free(more);
    tm_dataset_free(fewer);
}

static void equal_answers_are_an_error(void **state) {
    (void)state;
    const tm_train_options how = options_for(false);
    expect_error((tm_method_data){.harmful = harmful, .refusals = harmful}, &how, "refusals", "every mask is zero");
    tm_dataset *same; /* one pair of two is dropped, and said so */
    char hex[65];
    watcher w = {100, ""};
    assert_ok(tm_dataset_create(&same));
    assert_ok(tm_dataset_append(same, refusals, 0, ROWS));
    add_row(same, "when?", "never");
    tm_dataset *more;
    assert_ok(tm_dataset_create(&more));
    assert_ok(tm_dataset_append(more, harmful, 0, ROWS));
    add_row(more, "when?", "never");
    const tm_method_data data = {.harmful = more, .refusals = same};
    assert_ok(train(&tm__method_repnoise, data, NULL, &how, &w, NULL, hex));
    assert_non_null(strstr(w.notes, "1 of 8 pairs dropped"));
    tm_dataset_free(same);
    tm_dataset_free(more);
}

static void refused_options(void **state) {
    (void)state;
    tm_train_options how = options_for(false);
    how.micro = 2;
    expect_error(all_data(), &how, "micro-batch", "the whole batch");
    how.micro = 0;
    how.full_sequence = true;
    expect_error(all_data(), &how, "full-sequence", "differ");
    how.full_sequence = false;
    expect_error((tm_method_data){.harmful = harmful}, &how, "refusals", "needs rows of this kind");
}

/* Every allocation fails once: an error, nothing leaked (under the sanitizer), no crash. */
static void allocation_failures(void **state) {
    (void)state;
    const int32_t a[] = {5, 6, 10, 11}, b[] = {5, 6, 20};
    for (long nth = 1;; nth++) {
        tm_ids left = ids_of(a, 4), right = ids_of(b, 3);
        tm__pairs pairs = {0};
        double x[6] = {1, 2, 3, 4, 5, 6}, value;
        tm__alloc_fail_at(nth, false);
        tm_status status = tm__pairs_create(&pairs, 1, TM__PAIRS_COMPAT, 9);
        if (status == TM_OK) status = tm__pairs_add(&pairs, &left, &right);
        if (status == TM_OK) status = tm__mmd(x, x + 3, 1, 3, 1, &value, NULL, NULL);
        tm__alloc_fail_at(0, false);
        tm__pairs_release(&pairs);
        tm_ids_free(&left);
        tm_ids_free(&right);
        if (status == TM_OK) break;
        assert_int_equal(status, TM_NO_MEMORY);
        assert_true(nth < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_row_a4),
        cmocka_unit_test(noise_is_zero_where_the_mask_is),
        cmocka_unit_test(masks_of_both_modes),
        cmocka_unit_test(zero_weights_are_masked_sft),
        cmocka_unit_test(one_seed_one_result),
        cmocka_unit_test(resumes_to_the_same_bytes),
        cmocka_unit_test(keeps_refusing_and_forgets),
        cmocka_unit_test(benign_rows_are_retained),
        cmocka_unit_test(rows_without_partner),
        cmocka_unit_test(equal_answers_are_an_error),
        cmocka_unit_test(refused_options),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
