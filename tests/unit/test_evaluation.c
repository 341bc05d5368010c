/* test_evaluation.c: the frame of suites: an interrupted run goes on and ends with the same file, a journal of another
 * run does not count, results hold what they must, and a model that knows nothing scores what chance says. */
#include "tiny.h"

#include "eval/suite.h"

#include <math.h>

static tm_device *device;
static tm_model *model;
static tm_tokenizer *tokenizer;

static int setup(void **state) {
    (void)state;
    device = tiny_device("cpu");
    assert_ok(tm_model_load(device, test_path("golden/mcq/model"), NULL, &model));
    assert_ok(tm_tokenizer_load(test_path("golden/mcq/model"), &tokenizer));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_model_free(model);
    tm_device_close(device);
    return 0;
}

static tm_eval_options defaults(void) {
    tm_eval_options options = {0};
    tm_options_default(tm_eval_option_table, &options);
    options.data_dir = test_path("golden/mcq/data");
    options.batch = 3;
    options.shots = 0;
    return options;
}

static tm_evaluation *open_suite(const char *suite, const char *data, const tm_eval_options *options) {
    tm_evaluation *e = NULL;
    assert_ok(tm_evaluation_open(tm_suite_find(suite), data, options, &e));
    return e;
}

static char *write_file(const char *name, const char *text) {
    char *path = tm__path_join(test_scratch(), name);
    assert_ok(tm__file_write(path, text, strlen(text)));
    return path;
}

static json_t *result_of(const tm_evaluation *e) {
    char *path = tm__path_join(test_scratch(), "result.json");
    json_t *value;
    assert_ok(tm_evaluation_save(e, path));
    assert_ok(tm__json_load(path, &value));
    free(path);
    return value;
}

static bool stop_later(void *user) {
    int *left = user;
    return (*left)-- <= 0;
}

/* Stopped after every batch, with a line cut short in between; the file is that of a run in one piece. */
static void goes_on(const char *suite, const char *data, tm_model *asked, const tm_tokenizer *with) {
    const tm_eval_options options = defaults();
    char *journal = tm__path_join(test_scratch(), "journal");
    tm_evaluation *whole = open_suite(suite, data, &options);
    assert_ok(tm_evaluation_run(whole, asked, with, NULL, NULL));
    json_t *wanted = result_of(whole), *got;
    tm_evaluation_free(whole);
    tm_status status = TM_INTERRUPTED;
    int stops = 0;
    for (; status == TM_INTERRUPTED && stops < 200; stops++) {
        int left = 1;
        const tm_monitor monitor = {.stop = stop_later, .user = &left};
        tm_evaluation *e = open_suite(suite, data, &options);
        status = tm_evaluation_run(e, asked, with, journal, &monitor);
        if (status == TM_OK) {
            got = result_of(e);
            assert_true(json_equal(wanted, got));
            json_decref(got);
            assert_false(tm__path_exists(journal));
        } else {
            assert_int_equal(tm_evaluation_json(e, false, &(char *){NULL}), TM_INVALID);
            char *text;
            size_t len;
            assert_ok(tm__file_read(journal, 0, &text, &len));
            if (stops == 0) assert_ok(tm__file_write(journal, text, len - 4));
            free(text);
        }
        tm_evaluation_free(e);
    }
    assert_ok(status);
    assert_true(stops >= 2);
    json_decref(wanted);
    free(journal);
}

static void test_goes_on(void **state) {
    (void)state;
    goes_on("arc_easy", NULL, model, tokenizer);
    goes_on("winogrande", NULL, model, tokenizer);
    goes_on("wikitext", NULL, model, tokenizer);
}

/* Answers are noted one by one: a run that is stopped in its first batches keeps those that had ended. */
static void test_answers_go_on(void **state) {
    (void)state;
    enum { PROMPTS = 8, BATCH = 3, NEW = 6 };
    char *path = write_file("prompts.txt", "a\nb c\nd\ne f g\nh\ni\nj k\nl\n"), *journal, *text;
    tm_eval_options options = defaults();
    options.batch = BATCH;
    options.max_new_tokens = NEW;
    journal = tm__path_join(test_scratch(), "answers.journal");
    tm_evaluation *whole = open_suite("prompts", path, &options);
    assert_ok(tm_evaluation_run(whole, model, tokenizer, NULL, NULL));
    json_t *wanted = result_of(whole), *got = NULL;
    tm_status status = TM_INTERRUPTED;
    for (int stops = 0; status == TM_INTERRUPTED && stops < PROMPTS; stops++) {
        int left = NEW + 1; /* steps: the first of a batch reads its prompts and gives a token */
        const tm_monitor monitor = {.stop = stop_later, .user = &left};
        tm_evaluation *e = open_suite("prompts", path, &options);
        status = tm_evaluation_run(e, model, tokenizer, journal, &monitor);
        if (stops == 0) {
            size_t len, lines = 0;
            assert_int_equal(status, TM_INTERRUPTED);
            assert_ok(tm__file_read(journal, 0, &text, &len));
            for (size_t i = 0; i < len; i++) lines += text[i] == '\n';
            assert_in_range(lines, 1 + BATCH, PROMPTS); /* a line for the key */
            assert_ok(tm__file_write(journal, text, len - 4));
            free(text);
        }
        if (status == TM_OK) got = result_of(e);
        tm_evaluation_free(e);
    }
    assert_ok(status);
    assert_true(json_equal(wanted, got));
    /* An evaluation asks anew, whatever was answered before. */
    assert_ok(tm_evaluation_run(whole, model, tokenizer, NULL, NULL));
    json_decref(got);
    got = result_of(whole);
    assert_true(json_equal(wanted, got));
    json_decref(got);
    json_decref(wanted);
    tm_evaluation_free(whole);
    free(journal);
    free(path);
}

static void test_other_journal(void **state) {
    const tm_eval_options options = defaults();
    char *journal = write_file("journal", "{\"journal\": \"of another run\"}\n{\"item\": 0, \"ll\": [1, 2, 3, 4]}\n");
    (void)state;
    tm_evaluation *e = open_suite("arc_easy", NULL, &options);
    assert_ok(tm_evaluation_run(e, model, tokenizer, journal, NULL));
    assert_true(e->items[0].choices[0].ll < 0);
    tm_evaluation_free(e);
    free(journal);
}

static void test_result(void **state) {
    tm_eval_options options = defaults();
    char *data = write_file("sst2.tsv", "sentence\tlabel\nfine\t1\ndull\t0\nso \"so\"\t1\n");
    char hash[65];
    (void)state;
    options.max_new_tokens = 3;
    tm_evaluation *e = open_suite("sst2", data, &options);
    assert_int_equal(tm_evaluation_run(e, model, tokenizer, NULL, NULL), TM_OK);
    json_t *result = result_of(e), *items = json_object_get(result, "items");
    assert_int_equal(json_array_size(items), 3);
    const json_t *prompt = json_object_get(json_array_get(items, 2), "prompt");
    assert_string_equal(json_string_value(json_object_get(json_array_get(prompt, 1), "content")), "so \"so\"");
    assert_string_equal(json_string_value(json_object_get(json_array_get(items, 0), "expected")), "positive");
    assert_true(json_is_string(json_object_get(json_array_get(items, 0), "answer")));
    assert_string_equal(json_string_value(json_object_get(json_object_get(result, "options"), "chat")),
                        tm_chat_format_name(TM_CHAT_ALPACA));
    assert_ok(tm_model_hash(model, hash));
    assert_string_equal(json_string_value(json_object_get(json_object_get(result, "model"), "sha256")), hash);
    assert_int_equal(strlen(json_string_value(json_object_get(json_object_get(result, "data"), "sha256"))), 64);
    char asked[65];
    snprintf(asked, sizeof asked, "%s", json_string_value(json_object_get(result, "asked_sha256")));
    json_decref(result);
    tm_evaluation_free(e);
    options.chat = 1 + TM_CHAT_PLAIN; /* another template asks other tokens */
    e = open_suite("sst2", data, &options);
    assert_ok(tm_evaluation_run(e, model, tokenizer, NULL, NULL));
    assert_string_not_equal(asked, e->asked_hash);
    tm_evaluation_free(e);
    free(data);
}

/* All logits equal: perplexity is the size of the vocabulary, the first choice of equals is taken. */
static void test_uniform(void **state) {
    tm_eval_options options = defaults();
    tm_model *flat = tiny_model(device);
    tm_tokenizer *bytes = tiny_tokenizer();
    tm_number number;
    (void)state;
    memset(flat->embed.value.data, 0, (size_t)(TINY_VOCAB * 32) * sizeof(float));
    tm_evaluation *e =
        open_suite("perplexity", test_path("golden/mcq/data/truthfulqa/truthfulqa_preamble.txt"), &options);
    assert_ok(tm_evaluation_run(e, flat, bytes, NULL, NULL));
    assert_true(tm_evaluation_number(e, 0, &number));
    assert_true(fabs(number.value - TINY_VOCAB) < 1e-6);
    assert_null(number.interval);                     /* one text has no spread */
    assert_true(tm_evaluation_number(e, 3, &number)); /* bits per byte: tokens log2 V / bytes, and a token is a byte */
    assert_true(fabs(number.value - log2(TINY_VOCAB)) < 1e-6);
    tm_evaluation_free(e);
    e = open_suite("boolq", NULL, &options);
    assert_ok(tm_evaluation_run(e, flat, bytes, NULL, NULL));
    for (size_t i = 0; i < e->count; i++) { /* " no" has a byte less than " yes" and is likelier by it */
        assert_true(fabs(e->items[i].choices[0].ll + 3 * log(TINY_VOCAB)) < 1e-6);
        assert_true(e->items[i].scores[0] == e->items[i].choices[0].right);
    }
    tm_evaluation_free(e);
    e = open_suite("mmlu", NULL, &options);
    assert_ok(tm_evaluation_run(e, flat, bytes, NULL, NULL));
    for (size_t i = 0; i < e->count; i++) assert_true(e->items[i].scores[0] == e->items[i].choices[0].right);
    tm_evaluation_free(e);
    tm_tokenizer_free(bytes);
    tm_model_free(flat);
}

/* `loss` says what tm_eval_loss says; a row without an answer in reach counts for nothing. */
static void test_loss(void **state) {
    tm_train_options train = tiny_options();
    tm_eval_options options = defaults();
    tm_dataset *rows = tiny_rows("question", 9);
    tm_model *plain = tiny_model(device);
    tm_tokenizer *bytes = tiny_tokenizer();
    char *path = tm__path_join(test_scratch(), "rows.jsonl");
    tm_loss_report report;
    tm_number number;
    (void)state;
    train.max_length = 64;
    options.train = &train;
    assert_ok(tm_dataset_save(rows, path));
    assert_ok(tm_eval_loss(plain, bytes, rows, &train, NULL, &report));
    tm_evaluation *e = open_suite("loss", path, &options);
    assert_ok(tm_evaluation_run(e, plain, bytes, NULL, NULL));
    assert_true(tm_evaluation_number(e, 0, &number));
    assert_true(fabs(number.value - report.loss) < 1e-12);
    int64_t targets = 0;
    for (size_t i = 0; i < e->count; i++) targets += e->items[i].tokens;
    assert_int_equal(targets, report.targets);
    tm_evaluation_free(e);
    tm_tokenizer_free(bytes);
    tm_model_free(plain);
    tm_dataset_free(rows);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on), cmocka_unit_test(test_answers_go_on), cmocka_unit_test(test_other_journal),
        cmocka_unit_test(test_result),  cmocka_unit_test(test_uniform),       cmocka_unit_test(test_loss),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
