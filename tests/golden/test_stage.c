/* Methods that choose rows, or freeze parts, and then fine-tune, against float64 PyTorch written from the method
 * specification (fixture: tools/golden/stage.py): from rows of text to the loss of every step, the first gradient and
 * the weight change of three AdamW steps, all through the methods' public entry; on all weights and on a new adapter,
 * padded, and packed with recomputation in micro-batches.
 *
 * The gradient is read as the change of one step of SGD at rate 1 without clipping.
 * Bound on ref fp64, as ||a - b|| / ||b|| per tensor: 1e-8, the requirement.
 */
#include "golden/golden.h"

static tm_tokenizer *tokenizer;
static tm_dataset *user, *harmful, *benign, *refusals;

/* ---- one method, run in every way ---- */

typedef struct subject {
    const char *name;        /* in the fixture */
    const tm_method *method; /* NULL: plain SFT on the user's rows */
    const void *options;
    tm_method_data data;
    int64_t max_length; /* 0: the fixture's */
    bool full_sequence;
    size_t number; /* of the adapter that a LoRA run adds */
} subject;

static tm_train_options options_of(const subject *s, bool lora, bool gradient, bool packed) {
    tm_train_options o;
    tm_options_default(tm_train_option_table, &o);
    o.steps = gradient ? 1 : (int64_t)golden_number("steps");
    o.batch = (int64_t)golden_number("batch");
    o.seed = (int64_t)golden_number("seed");
    o.max_length = s->max_length ? s->max_length : (int64_t)golden_number("max_length");
    o.lr = gradient ? 1 : golden_number("lr");
    o.clip = gradient ? 0 : golden_number("clip");
    o.weight_decay = gradient ? 0 : golden_number("weight_decay");
    o.optimiser = gradient;
    o.full_sequence = s->full_sequence;
    o.packed = o.recompute = packed;
    o.micro = packed ? 2 : 0;
    o.chat = TM_CHAT_CHATML;
    if (lora) {
        o.lora.rank = (int64_t)golden_number("lora.rank");
        o.lora.alpha = golden_number("lora.alpha");
        o.lora.targets = golden_text("lora.targets");
    }
    return o;
}

typedef struct heard {
    double losses[32];
    size_t count;
} heard;

static void hear(void *to, const tm_progress *progress) {
    heard *h = to;
    if (strcmp(progress->phase, "train") != 0) return;
    assert_true(h->count < TM__COUNT(h->losses));
    h->losses[h->count++] = progress->loss;
}

static void compare_losses(const heard *h, const char *key) {
    const json_t *want = json_object_get(golden_at("losses"), key);
    assert_int_equal(h->count, json_array_size(want));
    for (size_t i = 0; i < h->count; i++) {
        double loss = json_number_value(json_array_get(want, i));
        if (!(fabs(h->losses[i] - loss) <= BOUND * fabs(loss)))
            fail_msg("%s step %zu: %.12g, want %.12g", key, i, h->losses[i], loss);
    }
}

/* Where training begins: the checkpoint, other weights for random-init, a new adapter as it is drawn. */
static weights *beginning(const subject *s, tm_device *device, const tm_train_options *o) {
    tm_model *model;
    assert_ok(tm_model_load(device, test_path(home), NULL, &model));
    if (s->method == &tm__method_random_init)
        assert_ok(tm__model_redraw(model, (uint64_t)golden_number("options.random.seed")));
    for (size_t i = 0; o->lora.rank && i <= s->number; i++) {
        assert_ok(tm_model_add_lora(model, &o->lora, (uint64_t)o->seed));
        if (i < s->number) continue;
        for (size_t k = 0; k < s->number; k++) tm__adapter_remove(model, 0);
    }
    weights *w = weights_of(model, o->lora.rank > 0);
    tm_model_free(model);
    return w;
}

static double run_once(const subject *s, bool lora, bool gradient, bool packed) {
    const char *kind = lora ? "lora" : "full";
    tm_device *device = golden_device();
    tm_model *model;
    char key[64];
    heard h = {.count = 0};
    const tm_monitor monitor = {.progress = hear, .user = &h};
    const tm_train_options o = options_of(s, lora, gradient, packed);
    assert_ok(tm_model_load(device, test_path(home), NULL, &model));
    assert_ok(s->method ? s->method->run(model, tokenizer, &s->data, s->options, &o, &monitor, NULL)
                        : tm_train(model, tokenizer, user, &o, &monitor, NULL));
    weights *now = weights_of(model, lora), *then = beginning(s, device, &o);
    weights_subtract(now, then, gradient ? -1 : 1);
    snprintf(key, sizeof key, "%s.%s", s->name, kind);
    if (!gradient) compare_losses(&h, key);
    snprintf(key, sizeof key, "%s.%s.%s", s->name, kind, gradient ? "grad" : "delta");
    double worst = weights_compare(now, key, kind);
    if (lora) { /* C6: what is frozen stays */
        weights *base = weights_of(model, false), *was;
        tm_train_options full = o;
        full.lora.rank = 0;
        was = beginning(s, device, &full);
        weights_subtract(base, was, 1);
        for (size_t i = 0; i < base->count; i++)
            for (size_t j = 0; j < base->items[i].count; j++) assert_true(base->items[i].values[j] == 0);
        weights_free(base);
        weights_free(was);
    }
    weights_free(now);
    weights_free(then);
    tm_model_free(model);
    tm_device_close(device);
    return worst;
}

static void check(const subject *s) {
    for (int way = 0; way < 8; way++) {
        bool lora = way & 1, gradient = way & 2, packed = way & 4;
        double worst = run_once(s, lora, gradient, packed);
        print_message("%s %s %s: worst error %.2g\n", s->name, lora ? "lora" : "full", gradient ? "grad" : "delta",
                      worst);
    }
}

/* ---- the methods ---- */

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
    if (!golden_open("golden/stage")) return 1;
    tokenizer = golden_tokenizer();
    user = golden_rows("rows.user");
    harmful = golden_rows("rows.harmful");
    benign = golden_rows("rows.benign");
    refusals = golden_rows("rows.refusals");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_dataset_free(refusals);
    tm_tokenizer_free(tokenizer);
    golden_close();
    return failed;
}
