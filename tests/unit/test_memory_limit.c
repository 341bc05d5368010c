/* Memory of training: gradients in the room of activations, and a bound of memory: whatever it is, the
 * results are the same bytes (families, adapters, methods that tap); the device never holds more than its limit while
 * there is something to give up; the tighter it is the more is computed again; and a rehearsal under the same limit
 * counts what the real run takes, to the byte. */
#include "methods.h"

/* Six layers, so that there is something to choose. `%s`: a family's own keys. */
#define SHAPE                                                                                                    \
    "\"hidden_size\":32,\"intermediate_size\":80,\"num_hidden_layers\":6,\"num_attention_heads\":4,"             \
    "\"vocab_size\":259,\"max_position_embeddings\":256,\"initializer_range\":0.08,\"torch_dtype\":\"float32\"," \
    "\"eos_token_id\":258}"
static const struct {
    const char *name, *config;
} families[] = {
    {"llama", "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"num_key_value_heads\":2,"
              "\"tie_word_embeddings\":true,\"hidden_act\":\"silu\"," SHAPE},
    {"qwen2", "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"num_key_value_heads\":2,"
              "\"use_sliding_window\":true,\"sliding_window\":24,\"max_window_layers\":1,"
              "\"tie_word_embeddings\":true," SHAPE},
    {"gemma2", "{\"architectures\":[\"Gemma2ForCausalLM\"],\"model_type\":\"gemma2\",\"num_key_value_heads\":2,"
               "\"head_dim\":16,\"query_pre_attn_scalar\":16,\"sliding_window\":24,"
               "\"attn_logit_softcapping\":5.0,\"final_logit_softcapping\":10.0," SHAPE},
    {"phi", "{\"architectures\":[\"PhiForCausalLM\"],\"model_type\":\"phi\",\"resid_pdrop\":0.1,"
            "\"embd_pdrop\":0.1," SHAPE},
};

typedef struct outcome {
    char hex[65];
    size_t peak, needed; /* most handed out; with the pool's descriptions */
    size_t held;         /* handed out or kept for reuse, most after a step */
    double again;
} outcome;

static void look(void *user, const tm_progress *progress) {
    (void)progress;
    tm_device *const *device = ((void **)user)[0];
    size_t *held = ((void **)user)[1];
    *held = TM__MAX(*held, (*device)->pool.held);
}

/* Three steps on `device`, which is closed, under `limit` or where that is 0 with `train` as it is. */
static outcome train_on(tm_device *device, const char *config, const tm_train_options *train, size_t limit) {
    outcome o = {.hex = ""};
    tm_model *model = NULL;
    tm_dataset *rows = tiny_rows("user", 9);
    const tm_monitor monitor = {.progress = look, .user = (void *[]){&device, &o.held}};
    assert_ok(tm_model_create(device, config, 5, &model));
    device->limit = limit;
    assert_ok(tm_train(model, tokenizer, rows, train, &monitor, NULL));
    assert_int_equal(device->limit, limit);
    o.peak = device->bytes_peak;
    o.needed = device->pool.needed_peak;
    o.again = device->worked_again;
    if (!device->rehearses) tiny_hash(model, o.hex);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    tm_dataset_free(rows);
    return o;
}

static outcome train_family(const char *config, const tm_train_options *train, size_t limit) {
    return train_on(tiny_device("cpu"), config, train, limit);
}

static tm_device *rehearsal(void) {
    tm_device *device;
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    assert_ok(tm_device_open_rehearsal(&where, &device));
    return device;
}

static tm_train_options three_steps(bool lora) {
    tm_train_options train = methods_options(lora);
    train.steps = 3;
    return train;
}

/* From what is needed at least to what is taken without a limit, in steps. */
static void any_limit_gives_the_same_bytes(void **state) {
    (void)state;
    enum { STEPS = 5 };
    for (size_t f = 0; f < TM__COUNT(families); f++)
        for (int lora = 0; lora < 2; lora++) {
            tm_train_options train = three_steps(lora);
            const char *config = families[f].config;
            outcome free_run = train_family(config, &train, 0), least = train_family(config, &train, 1), last = least;
            assert_true(free_run.again == 0 && least.again > 0);
            assert_true(least.peak < free_run.peak);
            assert_string_equal(least.hex, free_run.hex);
            for (size_t i = 1; i < STEPS; i++) {
                size_t limit = least.needed + (free_run.needed - least.needed) * i / STEPS;
                outcome o = train_family(config, &train, limit);
                assert_string_equal(o.hex, free_run.hex);
                if (o.needed > limit || o.held > limit)
                    fail_msg("%s%s: %zu bytes held, limit %zu", families[f].name, lora ? ", LoRA" : "",
                             TM__MAX(o.held, o.needed), limit);
                assert_true(o.again > 0 && o.again <= last.again);
                last = o;
            }
            assert_true(last.again < least.again);
            train.recompute = true;
            outcome lean = train_family(config, &train, 0);
            assert_string_equal(lean.hex, free_run.hex);
            assert_true(lean.peak < free_run.peak && lean.again > 0);
        }
}

static void a_rehearsal_counts_the_same(void **state) {
    (void)state;
    const char *config = families[0].config;
    for (int lora = 0; lora < 2; lora++) {
        tm_train_options train = three_steps(lora);
        train.packed = true;
        train.batch = 9; /* every step the same batch, which is the largest */
        outcome free_run = train_family(config, &train, 0), least = train_family(config, &train, 1);
        for (size_t i = 0; i < 4; i++) {
            size_t limit = least.needed + (free_run.needed - least.needed) * i / 3;
            outcome real = train_family(config, &train, limit), told = train_on(rehearsal(), config, &train, limit);
            assert_int_equal(real.peak, told.peak);
            assert_int_equal(real.needed, told.needed);
            assert_int_equal(real.held, told.held);
            assert_true(real.again == told.again);
        }
    }
}

static tm_dataset *other_answers(const tm_dataset *rows) {
    tm_dataset *made = NULL;
    assert_ok(tm_dataset_create(&made));
    for (size_t i = 0; i < tm_dataset_rows(rows); i++) {
        size_t n;
        const tm_message *from = tm_dataset_row(rows, i, &n);
        const tm_message row[] = {from[0], {"assistant", i % 2 ? "No." : "I will not."}};
        assert_ok(tm_dataset_add(made, row, 2));
    }
    return made;
}

/* Methods with taps, states, several passes, vectors of their own, and several loops. */
static void methods_under_the_tightest_bound(void **state) {
    (void)state;
    static const char *const names[] = {"repnoise", "vaccine", "t-vaccine",        "booster",         "panacea",
                                        "lisa",     "sdd",     "security-vectors", "gradient-ascent", "adversarial"};
    tm_dataset *harmful = tiny_rows("harmful", 7), *refusals = other_answers(harmful);
    tm_dataset *benign = tiny_rows("benign", 7), *user = tiny_rows("user", 7);
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        const tm_method *method = tm_method_find(names[i]);
        unsigned reads = method->required | method->optional;
        const tm_method_data data = {
            .harmful = reads & (TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS) ? harmful : NULL,
            .refusals = reads & TM_DATA_REFUSALS ? refusals : NULL,
            .benign = reads & TM_DATA_BENIGN ? benign : NULL,
            .user = reads & TM_DATA_USER ? user : NULL,
        };
        void *options = calloc(1, method->options_size + 1);
        if (method->options) tm_options_default(method->options, options);
        for (int lora = 0; lora < 2; lora++) {
            tm_train_options train = three_steps(lora);
            tm_model *kept[2];
            char hex[2][65];
            for (int bound = 0; bound < 2; bound++) {
                train.memory = bound; /* a byte */
                assert_ok(methods_run(method, &data, options, &train, NULL, hex[bound], &kept[bound]));
            }
            if (strcmp(hex[0], hex[1]) != 0) fail_msg("%s%s: other bytes", names[i], lora ? ", LoRA" : "");
            const tm_device *plain = tm_model_device(kept[0]), *bounded = tm_model_device(kept[1]);
            if (!(plain->worked_again == 0 && bounded->worked_again > 0)) fail_msg("%s: nothing was saved", names[i]);
            methods_free(kept[0]);
            methods_free(kept[1]);
        }
        free(options);
    }
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_dataset_free(benign);
    tm_dataset_free(user);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* Gradients come as activations go, into their memory: a backward pass adds to what forward holds far less than all
 * gradients, and the optimiser finds them all. */
static void gradients_take_the_room_of_activations(void **state) {
    (void)state;
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
        "\"intermediate_size\":512,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"vocab_size\":259,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\","
        "\"initializer_range\":0.08,\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\",\"eos_token_id\":258}";
    const size_t weights = 4 * (4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 512 + 2 * 128) + 259 * 128 + 128);
    tm_train_options train = three_steps(false);
    train.packed = true;
    train.batch = 9;
    train.micro = 0;
    outcome o = train_family(config, &train, 0), told = train_on(rehearsal(), config, &train, 0);
    assert_int_equal(told.peak, o.peak);
    assert_int_equal(told.needed, o.needed);
    assert_int_equal(told.held, o.held);
    assert_true(o.held <= o.needed + (4 << 20));
    tm_train_options frozen = train;
    frozen.lora.rank = 1;
    frozen.lora.targets = "all-linear";
    outcome activations = train_family(config, &frozen, 0); /* no gradients and no moments to speak of */
    size_t more = o.peak - activations.peak; /* two moments, and of the gradients those that came before room did */
    if (more < 2 * weights || more > 2 * weights + weights / 4)
        fail_msg("%zu bytes more than activations, %zu in weights", more, weights);
}

/* Where a gradient has not been written to it is zero: to be read, to be added to, to step with. */
static void a_gradient_that_is_not_there_is_zero(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = NULL;
    tm__paramset set;
    tm__vector vector;
    double norm = 1;
    assert_ok(tm_model_create(device, families[0].config, 5, &model));
    assert_ok(tm__model_train_full(model));
    assert_ok(tm__paramset_collect(model, &set));
    assert_ok(tm__vector_create(&set, &vector));
    for (size_t i = 0; i < set.count; i++) assert_null(set.items[i]->grad);
    assert_ok(device->k->fill(device, vector.data[0], 1, tm__tensor_count(&set.items[0]->value)));
    assert_ok(tm__grads_scale(&set, 2));
    assert_ok(tm__grads_norm(&set, &norm));
    assert_true(norm == 0);
    assert_ok(tm__grads_save(&set, &vector));
    for (size_t i = 0; i < set.count; i++) {
        const float *saved = vector.data[i];
        for (int64_t k = 0; k < tm__tensor_count(&set.items[i]->value); k++) assert_true(saved[k] == 0);
    }
    assert_ok(device->k->fill(device, vector.data[0], 1, tm__tensor_count(&set.items[0]->value)));
    size_t before = device->bytes_in_use;
    assert_ok(tm__grads_axpy(&set, 3, &vector));
    assert_ok(tm__grads_norm(&set, &norm));
    assert_true(fabs(norm - 3 * sqrt((double)tm__tensor_count(&set.items[0]->value))) < 1e-6 * norm);
    tm__grads_zero(&set);
    assert_int_equal(device->bytes_in_use, before);
    tm__vector_release(&set, &vector);
    tm__paramset_release(&set);
    tm_model_free(model);
    tm_device_close(device);
}

/* What an earlier, unbounded piece of work left for reuse is no reason to hold more than a bound. */
static void a_bound_that_comes_late(void **state) {
    (void)state;
    enum { BEFORE = 400 << 20, BOUND = 100 << 20 };
    tm_device *device = tiny_device("cpu");
    tm_model *model = NULL;
    tm_train_options train = three_steps(false);
    tm_dataset *rows = tiny_rows("user", 9);
    void *buffer;
    assert_ok(tm_model_create(device, families[0].config, 5, &model));
    assert_ok(device->alloc(device, BEFORE, &buffer));
    device->release(device, buffer, BEFORE);
    assert_true(device->pool.held > BEFORE);
    train.memory = BOUND;
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    assert_true(device->pool.held < BOUND);
    tm_dataset_free(rows);
    tm_model_free(model);
    tm_device_close(device);
}

/* The option: bytes with letters; no part of a checkpoint's tag, so a run may go on under another bound. */
static void the_option(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes; /* -1: refused */
    } cases[] = {{"8G", 8LL << 30},
                 {"6500M", 6500LL << 20},
                 {"1.5g", 3LL << 29},
                 {"4096", 4096},
                 {"2GiB", 2LL << 30},
                 {"700KB", 700 << 10},
                 {"0", 0},
                 {"8X", -1},
                 {"G", -1},
                 {"", -1},
                 {"-1G", -1},
                 {"8GiBs", -1},
                 {"1e9", -1},
                 {"1..5G", -1}};
    tm_train_options o = tiny_options();
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_status status = tm_options_set(tm_train_option_table, &o, "memory", cases[i].text);
        if (cases[i].bytes < 0) {
            assert_int_equal(status, TM_INVALID);
        } else {
            assert_ok(status);
            assert_int_equal(o.memory, cases[i].bytes);
        }
    }
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_dataset *rows = tiny_rows("user", 3);
    tm__examples examples;
    assert_ok(tm__examples_encode(tokenizer, rows, TM_CHAT_CHATML, 64, false, NULL, &examples));
    const tm__examples *sets[] = {&examples};
    char one[65], two[65];
    o.memory = 0;
    assert_ok(tm__train_tag("sft", model, sets, 1, &o, one));
    o.memory = 1 << 30;
    assert_ok(tm__train_tag("sft", model, sets, 1, &o, two));
    assert_string_equal(one, two);
    tm__examples_release(&examples);
    tm_dataset_free(rows);
    tm_model_free(model);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_limit_gives_the_same_bytes),
        cmocka_unit_test(a_rehearsal_counts_the_same),
        cmocka_unit_test(methods_under_the_tightest_bound),
        cmocka_unit_test(gradients_take_the_room_of_activations),
        cmocka_unit_test(a_gradient_that_is_not_there_is_zero),
        cmocka_unit_test(a_bound_that_comes_late),
        cmocka_unit_test(the_option),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
