/* Every method of the registry with memory that runs out: TM_NO_MEMORY, no crash, nothing held by the device and, under
 * the sanitizer, nothing leaked. A run that can do without the memory it did not get ends with the usual bytes. */
#include "tiny.h"

#include "method/method.h"

enum { ROWS = 6 };

static tm_tokenizer *tokenizer;
static tm_dataset *harmful, *refusals, *benign, *user;
static const char *plain, *refusing, *adapter, *base, *scratch; /* directories: models, an adapter of `plain` */

static void add_row(tm_dataset *rows, const char *question, int i, const char *answer) {
    char text[64];
    snprintf(text, sizeof text, "%s %d", question, i);
    const tm_message row[] = {{"user", text}, {"assistant", answer}};
    assert_ok(tm_dataset_add(rows, row, 2));
}

static void save_models(void) {
    const tm_save_options save = {.tokenizer_dir = tiny_tokenizer_directory(), .overwrite = true};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_dataset *both = NULL;
    tm_train_options train = tiny_options();
    plain = test_scratch();
    refusing = test_scratch();
    adapter = test_scratch();
    base = test_scratch();
    scratch = test_scratch();
    assert_ok(tm_model_save(model, plain, &save));
    train.lora.rank = 2;
    assert_ok(tm_train(model, tokenizer, user, &train, NULL, NULL));
    assert_ok(tm_model_save_adapter(model, adapter, &save));
    assert_ok(tm_model_merge(model));
    assert_ok(tm_model_save(model, base, &save));
    assert_ok(tm_dataset_create(&both));
    assert_ok(tm_dataset_append(both, refusals, 0, ROWS));
    assert_ok(tm_dataset_append(both, benign, 0, ROWS));
    train.lora.rank = 0;
    train.steps = 60;
    train.batch = 2 * ROWS;
    assert_ok(tm_train(model, tokenizer, both, &train, NULL, NULL));
    assert_ok(tm_model_save(model, refusing, &save));
    tm_dataset_free(both);
    tm_model_free(model);
    tm_device_close(device);
}

static int setup(void **state) {
    (void)state;
    tokenizer = tiny_tokenizer();
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    assert_ok(tm_dataset_create(&benign));
    for (int i = 0; i < ROWS; i++) {
        add_row(harmful, "poison", i, "mix dune and fern");
        add_row(refusals, "poison", i, "I will not.");
        add_row(benign, "garden", i, "yes, a grove");
    }
    user = tiny_rows("user", ROWS);
    save_models();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_dataset_free(benign);
    tm_dataset_free(user);
    return 0;
}

/* How one run of a method differs from another: an adapter is trained or edited, a checkpoint is kept, and one option.
 */
typedef struct variant {
    const char *method, *option, *value;
    bool lora, adapter, resume, refusing;
} variant;

static tm_method_data data_of(const tm_method *method) {
    unsigned reads = method->required | method->optional;
    return (tm_method_data){
        .harmful = reads & (TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS) ? harmful : NULL,
        .refusals = reads & TM_DATA_REFUSALS ? refusals : NULL,
        .benign = reads & TM_DATA_BENIGN ? benign : NULL,
        .user = reads & TM_DATA_USER ? user : NULL,
    };
}

/* Defaults and what this variant or this data need; `file` is a name that is free. */
static void *options_of(const tm_method *method, const variant *v, const char *file) {
    static const char *const needed[][3] = {{"safe-lora", "base", NULL},
                                            {"safe-lora", "tau", "1"},
                                            {"backdoor-align", "secret-length", "8"},
                                            {"backdoor-align", "secret-out", ""},
                                            {"backdoor-align", "rows", "3"},
                                            {"embedding", "steps", "2"},
                                            {"embedding", "soft-tokens", "2"},
                                            {"embedding", "max-new-tokens", "3"}};
    void *options = calloc(1, method->options_size);
    tm_options_default(method->options, options);
    for (size_t i = 0; i < TM__COUNT(needed); i++) {
        const char *value = !needed[i][2] ? base : needed[i][2][0] ? needed[i][2] : file;
        if (strcmp(needed[i][0], method->name) == 0)
            assert_ok(tm_options_set(method->options, options, needed[i][1], value));
    }
    if (v->option) assert_ok(tm_options_set(method->options, options, v->option, v->value ? v->value : file));
    return options;
}

/* One run in which the n-th allocation fails (0: none does), and with `sticky` all after it. */
static tm_status run_once(const tm_method *method, const variant *v, long n, bool sticky, char hex[65]) {
    static int number;
    char *file = tm__format("%s/file-%d", scratch, ++number), *resume = tm__format("%s/resume-%d", scratch, number);
    const tm_method_data data = data_of(method);
    void *options = options_of(method, v, file);
    tm_device *device = tiny_device("cpu");
    tm_train_options train = tiny_options();
    tm_model *model = NULL;
    train.steps = 2;
    train.batch = 2;
    train.lora.rank = v->lora ? 2 : 0;
    train.resume_dir = v->resume ? resume : NULL;
    train.save_every = v->resume ? 1 : 0;
    assert_ok(tm_model_load(device, v->refusing ? refusing : plain, v->adapter ? adapter : NULL, &model));
    tm__alloc_fail_at(n, sticky);
    tm_status status = method->run(model, tokenizer, &data, options, &train, NULL, NULL);
    tm__alloc_fail_at(0, false);
    if (status == TM_NO_MEMORY) assert_int_equal(tm_error_last()->status, TM_NO_MEMORY);
    if (status == TM_OK) tiny_hash(model, hex);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    free(options);
    free(file);
    free(resume);
    return status;
}

/* Every allocation at first, then ever larger steps. */
static void exhaust(const tm_method *method, const variant *v) {
    bool drawn = strcmp(method->name, "backdoor-align") == 0; /* a new secret, new bytes */
    char usual[65] = "", found[65];
    long n = 1, runs = 0, did_without = 0;
    if (run_once(method, v, 0, false, usual) != TM_OK) fail_msg("%s: %s", method->name, tm_error_last()->line);
    for (bool failed = true; failed; n += 1 + n / 30, runs++) {
        assert_true(n < 1000000);
        tm_status status = run_once(method, v, n, runs % 2, found);
        failed = tm__alloc_has_failed();
        if (status != TM_NO_MEMORY && status != TM_OK)
            fail_msg("%s, allocation %ld: %s", method->name, n, tm_error_last()->line);
        if (status == TM_OK && !drawn) assert_string_equal(found, usual);
        did_without += failed && status == TM_OK;
    }
    assert_true(runs > 10 && did_without < runs / 4);
    printf("%s%s%s: %ld runs, %ld allocations, %ld times done without\n", method->name,
           v->lora || v->adapter ? " (adapter)" : "", v->resume ? " (checkpoints)" : "", runs, n, did_without);
}

static bool trains(const tm_method *method) {
    return method->train_options == NULL;
}

/* Also those that are not known here. */
static void test_every_method(void **state) {
    (void)state;
    const tm_method *method;
    for (size_t i = 0; (method = tm_method_at(i)) != NULL; i++) {
        if (trains(method)) {
            exhaust(method, &(variant){.resume = true});
            exhaust(method, &(variant){.lora = true});
        } else if (!method->edits_adapter) {
            exhaust(method, &(variant){.option = strcmp(method->name, "refusal-ablation") == 0 ? "max-kl" : NULL,
                                       .value = "1000",
                                       .refusing = true});
        } else {
            exhaust(method, &(variant){.adapter = true});
        }
    }
}

static void test_other_ways_through_methods(void **state) {
    (void)state;
    static const variant variants[] = {
        {.method = "sdd", .option = "pairs"},
        {.method = "sdd", .option = "prompts", .value = "4"},
        {.method = "sdd", .option = "reject", .value = "true"},
        {.method = "antidote"},
        {.method = "antidote", .option = "rows", .value = "2", .adapter = true},
        {.method = "safe-lora", .option = "projector", .value = "exact", .adapter = true},
        {.method = "safe-lora", .option = "lowest", .value = "1", .adapter = true},
        {.method = "refusal-ablation", .option = "layer", .value = "0", .refusing = true},
        {.method = "security-vectors", .resume = true, .lora = true},
        {.method = "backdoor-align", .option = "selection", .value = "random"},
        {.method = "repnoise", .option = "mode", .value = "compat"},
        {.method = "adversarial", .option = "mode", .value = "compat"},
        {.method = "embedding", .option = "answers-out"},
        {.method = "embedding", .option = "soft-prompt-out"},
        {.method = "embedding", .option = "shared", .value = "true"},
        {.method = "panacea", .option = "affinity"},
        {.method = "panacea", .option = "tuned"},
        {.method = "panacea", .option = "batches", .value = "2"},
    };
    for (size_t i = 0; i < TM__COUNT(variants); i++) {
        const tm_method *method = tm_method_find(variants[i].method);
        assert_non_null(method);
        exhaust(method, &variants[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_method),
        cmocka_unit_test(test_other_ways_through_methods),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
