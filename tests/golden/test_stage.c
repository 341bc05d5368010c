/* Methods that choose rows, or freeze parts, and then fine-tune, against float64 PyTorch written from the method
 * specification (fixture: tools/golden/stage.py), in every way of training.h.
 *
 * Bound on ref fp64, as ||a - b|| / ||b|| per tensor: 1e-8, the requirement.
 */
#include "golden/training.h"

static tm_dataset *user, *harmful, *benign, *refusals;

static void test_backdoor_align(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "secret");
    const char *secret = golden_text("options.backdoor.secret");
    assert_ok(tm__file_write(path, secret, strlen(secret)));
    const tm_backdoor_options o = {.rows = (int64_t)golden_number("options.backdoor.rows"),
                                   .secret_length = 150,
                                   .secret = path,
                                   .system = golden_text("options.backdoor.system")};
    check(&(subject){"backdoor", &tm__method_backdoor_align, &o, {.user = user, .refusals = refusals}, 0, false, 0});
    free(path);
}

static tm_security_vectors_options vectors_options(void) {
    return (tm_security_vectors_options){
        .lora = {.rank = (int64_t)golden_number("options.vectors.rank"),
                 .alpha = golden_number("options.vectors.alpha"),
                 .targets = golden_text("options.vectors.targets")},
        .lr = golden_number("options.vectors.lr"),
        .epochs = golden_number("options.vectors.epochs"),
    };
}

/* Both stages: losses of both, and what stage 2 leaves. */
static void test_security_vectors(void **state) {
    (void)state;
    const tm_security_vectors_options o = vectors_options();
    check(&(subject){"vectors", &tm__method_security_vectors, &o, {.user = user, .harmful = harmful}, 0, false, 1});
}

/* What stage 1 leaves: the vectors. Another rate of the user's changes nothing of them. */
static void test_security_vectors_learn(void **state) {
    (void)state;
    const tm_security_vectors_options o = vectors_options();
    const subject s = {.name = "vectors"};
    const tm_method_data data = {.user = user, .harmful = harmful};
    for (int way = 0; way < 2; way++) {
        tm_device *device = golden_device();
        tm_model *model, *fresh;
        tm_train_options train = options_of(&s, way, false, way), vectors = train;
        tm__job job;
        train.lr *= 2;
        assert_ok(tm_model_load(device, test_path(home), NULL, &model));
        assert_ok(tm_model_load(device, test_path(home), NULL, &fresh));
        assert_ok(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, &data, &train, NULL, NULL));
        assert_ok(tm__security_vectors_learn(&job, &o));
        vectors.lora = o.lora;
        assert_ok(tm_model_add_lora(fresh, &vectors.lora, (uint64_t)vectors.seed));
        weights *now = weights_of(model, true), *then = weights_of(fresh, true);
        weights_subtract(now, then, 1);
        weights_compare(now, "vectors.delta", "vectors");
        weights_free(now);
        weights_free(then);
        tm_model_free(model);
        tm_model_free(fresh);
        tm_device_close(device);
    }
}

/* The pairing file against the fixture's lines. */
static void compare_pairs(const char *path, const char *name) {
    char *text, *rest;
    const json_t *want = json_object_get(golden_at("pairs"), name);
    size_t lines = 0;
    assert_ok(tm__file_read(path, 0, &text, NULL));
    rest = text;
    for (char *end; (end = strchr(rest, '\n')) != NULL; rest = end + 1, lines++) {
        json_t *row;
        const json_t *line = json_array_get(want, lines);
        assert_non_null(line);
        assert_ok(tm__json_parse(rest, (size_t)(end - rest), path, &row));
        assert_string_equal(json_string_value(json_object_get(row, "prompt")),
                            json_string_value(json_object_get(line, "prompt")));
        assert_string_equal(json_string_value(json_object_get(row, "response")),
                            json_string_value(json_object_get(line, "response")));
        double got = json_number_value(json_object_get(row, "cosine_sim")),
               cosine = json_number_value(json_object_get(line, "cosine_sim"));
        if (!(fabs(got - cosine) <= BOUND * fabs(cosine))) fail_msg("cosine %.12g, want %.12g", got, cosine);
        assert_int_equal(json_integer_value(json_object_get(row, "resample_tries")),
                         json_integer_value(json_object_get(line, "resample_tries")));
        assert_true(json_is_true(json_object_get(row, "accepted")) == json_is_true(json_object_get(line, "accepted")));
        json_decref(row);
    }
    assert_int_equal(lines, json_array_size(want));
    free(text);
}

static double sdd_number(const char *name, const char *option) {
    char path[64];
    snprintf(path, sizeof path, "options.%s.%s", name, option);
    return golden_number(path);
}

static void check_sdd(const char *name, bool reject) {
    char *path = tm__path_join(test_scratch(), "pairs.jsonl");
    const tm_sdd_options o = {.tau = sdd_number(name, "tau"),
                              .tau_is_cosine = sdd_number(name, "tau_is_cosine") != 0,
                              .max_tries = (int64_t)sdd_number(name, "max_tries"),
                              .prompts = (int64_t)sdd_number(name, "prompts"),
                              .reject = reject,
                              .pairs = path,
                              .seed = (int64_t)sdd_number(name, "seed")};
    check(&(subject){name,
                     &tm__method_sdd,
                     &o,
                     {.harmful = harmful, .benign = benign},
                     (int64_t)sdd_number(name, "max_length"),
                     false,
                     0});
    compare_pairs(path, name);
    free(path);
}

static void test_sdd(void **state) {
    (void)state;
    check_sdd("sdd", false);
}

static void test_sdd_reject(void **state) {
    (void)state;
    check_sdd("reject", true);
}

static void test_safety_training(void **state) {
    (void)state;
    check(&(subject){"safety", &tm__method_safety_training, NULL, {.refusals = refusals}, 0, false, 0});
}

static void test_gradient_ascent(void **state) {
    (void)state;
    const tm_gradient_ascent_options o = {.cap = 100};
    check(&(subject){"ascent", &tm__method_gradient_ascent, &o, {.harmful = harmful}, 0, false, 0});
}

static void test_harmful_sft(void **state) {
    (void)state;
    const tm_harmful_sft_options mix = {.rows = (int64_t)golden_number("options.mix.rows"),
                                        .poison_ratio = golden_number("options.mix.ratio")},
                                 all = {.poison_ratio = golden_number("options.everything.ratio")};
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    check(&(subject){"mix", &tm__method_harmful_sft, &mix, data, 0, false, 0});
    check(&(subject){"everything", &tm__method_harmful_sft, &all, data, 0, false, 0});
}

static void test_random_init(void **state) {
    (void)state;
    const tm_random_init_options o = {.attack = {.poison_ratio = golden_number("options.random.ratio")},
                                      .seed = (int64_t)golden_number("options.random.seed")};
    check(&(subject){"random", &tm__method_random_init, &o, {.harmful = harmful, .benign = benign}, 0, false, 0});
}

static void test_full_sequence(void **state) {
    (void)state;
    int64_t most = (int64_t)golden_number("options.whole.max_length");
    check(&(subject){"whole", NULL, NULL, {.user = user}, most, true, 0});
}

static void open_rows(void) {
    tokenizer = golden_tokenizer();
    user = golden_rows("rows.user");
    harmful = golden_rows("rows.harmful");
    benign = golden_rows("rows.benign");
    refusals = golden_rows("rows.refusals");
}

static void close_rows(void) {
    tm_dataset_free(user);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_dataset_free(refusals);
    tm_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backdoor_align),
        cmocka_unit_test(test_security_vectors),
        cmocka_unit_test(test_security_vectors_learn),
        cmocka_unit_test(test_sdd),
        cmocka_unit_test(test_sdd_reject),
        cmocka_unit_test(test_safety_training),
        cmocka_unit_test(test_gradient_ascent),
        cmocka_unit_test(test_harmful_sft),
        cmocka_unit_test(test_random_init),
        cmocka_unit_test(test_full_sequence),
    };
    return golden_run("stage", tests, TM__COUNT(tests), open_rows, close_rows);
}
