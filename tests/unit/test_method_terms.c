/* What single methods must not get wrong and other tests do not look at: published defaults, what a result counts,
 * options that a method refuses, modes and seeds that reach it, parts of weights. */
#include "methods.h"

#include "method/matrix.h"
#include "method/repnoise.h"

enum { ROWS = 6 };

static tm_dataset *harmful, *refusals;

static int setup(void **state) {
    tiny_setup(state);
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    for (int i = 0; i < ROWS; i++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "how %d?", i);
        const tm_message bad[] = {{"user", prompt}, {"assistant", i % 2 ? "boil ember" : "take the grove by night"}};
        const tm_message good[] = {{"user", prompt}, {"assistant", "I will not."}};
        assert_ok(tm_dataset_add(harmful, bad, 2));
        assert_ok(tm_dataset_add(refusals, good, 2));
    }
    return 0;
}

static int teardown(void **state) {
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    return tiny_teardown(state);
}

/* ---- defaults ---------------------------------------------------------------------------------------------------- */

static void test_defaults(void **state) {
    (void)state;
    static const struct {
        const char *method, *option, *value;
    } published[] = {
        {"repnoise", "alpha", "1"},
        {"repnoise", "beta", "0.001"},
        {"repnoise", "benign-weight", "1"},
        {"adversarial", "mode", NULL},
        {"repnoise", "mode", NULL},
        {"adversarial", "coefficient", "0.1"},
        {"lisa", "k1", "100"},
        {"lisa", "k2", "900"},
        {"lisa", "rho", "1"},
        {"t-vaccine", "rho", "3"},
        {"t-vaccine", "blocks", "8"},
        {"t-vaccine", "redraw", "20"},
        {"t-vaccine", "rescore", "200"},
        {"t-vaccine", "prompts", "200"},
        {"random-init", "poison-ratio", "1"},
        {"random-init", "rows", "0"},
        {"random-init", "init-seed", "0"},
    };
    for (size_t i = 0; i < TM__COUNT(published); i++) {
        const tm_method *method = tm_method_find(published[i].method);
        assert_non_null(method);
        const tm_option *option = tm_options_find(method->options, published[i].option);
        assert_non_null(option);
        if (published[i].value)
            assert_string_equal(option->initial, published[i].value);
        else
            assert_null(option->initial); /* the first choice: "correct" */
    }
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static tm_method_data both(void) {
    return (tm_method_data){.harmful = harmful, .refusals = refusals, .user = refusals};
}

/* Whole epochs, so that what is counted does not depend on the order. `value` NULL: the defaults. */
static tm_status run(const tm_method *method, const char *option, const char *value, tm_train_options *how,
                     tm_train_result *result, char hex[65]) {
    const tm_method_data data = both();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    void *options = calloc(1, method->options_size);
    tm_options_default(method->options, options);
    if (value) assert_ok(tm_options_set(method->options, options, option, value));
    tm_status status = method->run(model, tokenizer, &data, options, how, NULL, result);
    if (status == TM_OK) tiny_hash(model, hex);
    free(options);
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

static tm_train_options two_epochs(void) {
    tm_train_options o = tiny_options();
    o.steps = 4;
    o.batch = ROWS / 2;
    return o;
}

/* Tokens and targets of one epoch of one side. */
static void count_side(int side, int64_t *tokens, int64_t *targets) {
    const tm_method_data data = both();
    const tm_train_options how = two_epochs();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm__job job;
    tm__pairs pairs;
    *tokens = *targets = 0;
    assert_ok(tm__job_begin(&job, &tm__method_repnoise, model, tokenizer, &data, &how, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, TM__PAIRS_CORRECT, &pairs));
    assert_int_equal(pairs.side[side].count, ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        *tokens += (int64_t)pairs.side[side].ids[i].len;
        *targets += tm__pairs_targets(&pairs, side, &i, 1);
    }
    tm__pairs_release(&pairs);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_what_is_counted(void **state) {
    (void)state;
    int64_t bad, bad_targets, good, good_targets;
    tm_train_options how = two_epochs();
    tm_train_result r;
    char hex[65];
    count_side(TM__HARMFUL, &bad, &bad_targets);
    count_side(TM__REFUSAL, &good, &good_targets);
    assert_ok(run(&tm__method_adversarial, NULL, NULL, &how, &r, hex));
    assert_true(r.tokens == 2 * (good + bad) && r.target_tokens == 2 * (good_targets + bad_targets));
    assert_ok(run(&tm__method_adversarial, "coefficient", "0", &how, &r, hex));
    assert_true(r.tokens == 2 * good && r.target_tokens == 2 * good_targets);
    assert_ok(run(&tm__method_repnoise, NULL, NULL, &how, &r, hex));
    assert_true(r.tokens == 2 * (good + bad) && r.target_tokens == 2 * good_targets);
    tm_dataset *more = tiny_rows("benign", ROWS);
    const tm_method_data data = {.harmful = harmful, .refusals = refusals, .benign = more};
    const tm_method_data plain = {.user = more};
    tm_train_result retained, alone;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm__method_repnoise.run(model, tokenizer, &data, NULL, &how, NULL, &retained));
    assert_ok(tm_train(model, tokenizer, plain.user, &how, NULL, &alone));
    assert_true(retained.tokens == r.tokens + alone.tokens);
    assert_true(retained.target_tokens == r.target_tokens + alone.target_tokens);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(more);
}

static void test_modes_reach_the_method(void **state) {
    (void)state;
    const tm_method *const methods[] = {&tm__method_repnoise, &tm__method_adversarial};
    for (size_t i = 0; i < TM__COUNT(methods); i++) {
        tm_train_options how = two_epochs();
        char correct[65], named[65], compat[65];
        assert_ok(run(methods[i], NULL, NULL, &how, NULL, correct));
        assert_ok(run(methods[i], "mode", "correct", &how, NULL, named));
        assert_ok(run(methods[i], "mode", "compat", &how, NULL, compat));
        assert_string_equal(correct, named);
        assert_string_not_equal(correct, compat);
    }
}

static void test_refused(void **state) {
    (void)state;
    char hex[65];
    tm_train_options how = two_epochs();
    how.full_sequence = true;
    assert_int_equal(run(&tm__method_adversarial, NULL, NULL, &how, NULL, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "full-sequence");
    assert_int_equal(run(&tm__method_repnoise, NULL, NULL, &how, NULL, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "full-sequence");
    how = two_epochs();
    how.micro = 1;
    assert_int_equal(run(&tm__method_t_vaccine, NULL, NULL, &how, NULL, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "micro-batch");
    assert_int_equal(run(&tm__method_repnoise, NULL, NULL, &how, NULL, hex), TM_INVALID);
    assert_int_equal(run(&tm__method_repnoise, "alpha", "0", &how, NULL, hex), TM_INVALID);
    assert_int_equal(run(&tm__method_repnoise, "beta", "0", &how, NULL, hex), TM_INVALID);
    how.micro = how.batch; /* one piece after all */
    assert_ok(run(&tm__method_t_vaccine, NULL, NULL, &how, NULL, hex));
    const tm_lisa_options none = {.rho = 1};
    const tm_method_data data = both();
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_int_equal(tm__method_lisa.run(model, tokenizer, &data, &none, &how, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "k2");
    tm_dataset *empty;
    assert_ok(tm_dataset_create(&empty));
    const tm_method_data lacking[] = {{.user = refusals}, {.refusals = refusals, .user = empty}};
    for (size_t i = 0; i < TM__COUNT(lacking); i++) {
        assert_int_equal(tm__method_lisa.run(model, tokenizer, &lacking[i], NULL, &how, NULL, NULL), TM_INVALID);
        assert_string_equal(tm_error_last()->field, i ? "data" : "refusals");
        assert_non_null(strstr(tm_error_last()->message, "needs rows of this kind"));
    }
    tm_dataset_free(empty);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_random_init_seed(void **state) {
    (void)state;
    tm_train_options how = two_epochs();
    char first[65], named[65], other[65];
    assert_ok(run(&tm__method_random_init, NULL, NULL, &how, NULL, first));
    assert_ok(run(&tm__method_random_init, "init-seed", "0", &how, NULL, named));
    assert_ok(run(&tm__method_random_init, "init-seed", "1", &how, NULL, other));
    assert_string_equal(first, named);
    assert_string_not_equal(first, other);
}

/* Lisa's two states go through their rows without gaps: what each step trains on, written out. */
static tm_status written_out(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    static const struct {
        bool refusals;
        int64_t before;
    } turns[] = {{true, 0}, {false, 0}, {false, 1}, {true, 1}, {false, 2}, {false, 3}, {true, 2}, {false, 4}};
    uint64_t seed = (uint64_t)t->options->seed + ((uint64_t)turns[t->step].refusals << 56);
    const tm__examples *rows = turns[t->step].refusals ? user : t->examples;
    const tm__pass pass = {rows, seed, turns[t->step].before * t->options->batch, t->options->batch, 1};
    tm__pass_result result;
    TM__TRY(tm__trainer_pass(t, &pass, &result));
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

static void test_turns_of_lisa(void **state) {
    (void)state;
    const tm_lisa_options o = {.k1 = 1, .k2 = 2};
    tm_dataset *user = tiny_rows("user", 11), *safe = tiny_rows("safe", 9);
    const tm_method_data data = {.user = user, .refusals = safe};
    tm_train_options how = tiny_options();
    tm__examples mine, theirs;
    tm_device *device = tiny_device("cpu");
    tm_model *lisa = tiny_model(device), *other = tiny_model(device);
    char a[65], b[65];
    how.steps = 8;
    how.batch = 2;
    assert_ok(tm__method_lisa.run(lisa, tokenizer, &data, &o, &how, NULL, NULL));
    assert_ok(tm__examples_encode(tokenizer, user, TM_CHAT_CHATML, 512, false, NULL, &mine));
    assert_ok(tm__examples_encode(tokenizer, safe, TM_CHAT_CHATML, 512, false, NULL, &theirs));
    assert_ok(tm__train_prepare(other, &how));
    const tm__run run = {.tag = "", .pad = tm__pad_id(tokenizer), .step = written_out, .user = &theirs};
    assert_ok(tm__trainer_run(other, &mine, &how, NULL, &run, NULL));
    tiny_hash(lisa, a);
    tiny_hash(other, b);
    assert_string_equal(a, b);
    tm__examples_release(&mine);
    tm__examples_release(&theirs);
    tm_dataset_free(user);
    tm_dataset_free(safe);
    tm_model_free(lisa);
    tm_model_free(other);
    tm_device_close(device);
}

/* Rows to retain come in an order of their own: what each step of RepNoise without its terms trains on, written out. */
typedef struct kept_rows {
    tm__pairs pairs;
    tm__examples benign;
} kept_rows;

static tm_status refuse_and_retain(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    const kept_rows *kept = user;
    int64_t n = t->options->batch;
    uint64_t seed = (uint64_t)t->options->seed;
    const tm__pass first = {&kept->pairs.side[TM__REFUSAL], seed, t->step * n, n, 1},
                   second = {&kept->benign, seed + ((uint64_t)1 << 56), t->step * n, n, 1};
    tm__pass_result refused, retained;
    size_t *rows;
    TM__TRY(tm__trainer_draw(t, &first, &rows, &refused));
    tm_status status = tm__pairs_pass(t, &kept->pairs, TM__REFUSAL, rows, (size_t)n, 1, &refused);
    free(rows);
    TM__TRY(status);
    TM__TRY(tm__trainer_pass(t, &second, &retained));
    *loss = refused.loss + retained.loss;
    *tokens = refused.tokens + retained.tokens;
    *targets = refused.targets + retained.targets;
    return TM_OK;
}

static void test_order_of_retained_rows(void **state) {
    (void)state;
    const tm_repnoise_options o = {.benign_weight = 1};
    tm_dataset *benign = tiny_rows("benign", 11);
    const tm_method_data data = {.harmful = harmful, .refusals = refusals, .benign = benign};
    const tm_train_options how = two_epochs();
    tm_device *device = tiny_device("cpu");
    tm_model *method = tiny_model(device), *other = tiny_model(device);
    tm__job job;
    kept_rows kept;
    char a[65], b[65];
    assert_ok(tm__method_repnoise.run(method, tokenizer, &data, &o, &how, NULL, NULL));
    assert_ok(tm__job_begin(&job, &tm__method_repnoise, other, tokenizer, &data, &how, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, TM__PAIRS_CORRECT, &kept.pairs));
    assert_ok(tm__job_encode(&job, benign, "benign", &kept.benign));
    assert_ok(tm__train_prepare(other, &job.train));
    const tm__run run = {.tag = "", .pad = tm__pad_id(tokenizer), .step = refuse_and_retain, .user = &kept};
    assert_ok(tm__trainer_run(other, &kept.pairs.side[TM__REFUSAL], &job.train, NULL, &run, NULL));
    tiny_hash(method, a);
    tiny_hash(other, b);
    assert_string_equal(a, b);
    tm__examples_release(&kept.benign);
    tm__pairs_release(&kept.pairs);
    tm_dataset_free(benign);
    tm_model_free(method);
    tm_model_free(other);
    tm_device_close(device);
}

/* A method's second set goes through an order of its own. */
static tm_status look_aside(tm__trainer *t, void *side, double *loss, int64_t *tokens, int64_t *targets) {
    int64_t n = t->options->batch;
    const tm__pass pass = {side, (uint64_t)t->options->seed + ((uint64_t)1 << 56), t->step * n, n, 1};
    tm__pass_result want;
    TM__TRY(tm__job_side_pass(t, side, loss));
    tm__grads_zero(&t->set);
    TM__TRY(tm__trainer_pass(t, &pass, &want));
    assert_true(*loss == want.loss);
    *tokens = want.tokens;
    *targets = want.targets;
    return TM_OK;
}

static void test_order_of_a_second_set(void **state) {
    (void)state;
    tm_dataset *rows = tiny_rows("side", 11);
    const tm_train_options how = two_epochs();
    tm__examples first, second;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &first));
    assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 512, false, NULL, &second));
    assert_ok(tm__train_prepare(model, &how));
    const tm__run run = {.tag = "", .pad = tm__pad_id(tokenizer), .step = look_aside, .user = &second};
    assert_ok(tm__trainer_run(model, &first, &how, NULL, &run, NULL));
    tm__examples_release(&first);
    tm__examples_release(&second);
    tm_dataset_free(rows);
    tm_model_free(model);
    tm_device_close(device);
}

/* ---- parts of weights -------------------------------------------------------------------------------------------- */

static void test_parts_of_weights(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    float stored[6] = {1, 2, 3, 4, 5, 6};
    for (int owned = 0; owned < 2; owned++) {
        tm__param param = {.value = {.dtype = TM_F32, .ndim = 2, .shape = {2, 3}, .data = stored}, .owned = owned};
        double part[2] = {0}, *all;
        assert_ok(tm__param_read(device, &param, 3, 2, part));
        assert_true(part[0] == 4 && part[1] == 5);
        assert_ok(tm__param_read_all(device, &param, &all));
        for (int i = 0; i < 6; i++) assert_true(all[i] == i + 1);
        free(all);
    }
    tm__param param = {.value = {.dtype = TM_F32, .ndim = 2, .shape = {2, 3}, .data = stored}, .owned = true};
    const double values[2] = {-7, -8};
    assert_ok(tm__param_write(device, &param, 4, 2, values));
    assert_true(stored[3] == 4 && stored[4] == -7 && stored[5] == -8);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_what_is_counted),
        cmocka_unit_test(test_modes_reach_the_method),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random_init_seed),
        cmocka_unit_test(test_turns_of_lisa),
        cmocka_unit_test(test_order_of_retained_rows),
        cmocka_unit_test(test_order_of_a_second_set),
        cmocka_unit_test(test_parts_of_weights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
