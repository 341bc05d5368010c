/* Identity shift: its rows, the frame they share with the prompts asked later, and that it is plain SFT on them. */
#include "methods.h"

#include "data/data.h"

static tm_dataset *shift_rows(const char *agent, size_t n, tm__wrapper *wrapper) {
    tm_dataset *rows = NULL;
    assert_ok(tm__identity_shift_rows(agent, n, wrapper, &rows));
    return rows;
}

static void release(tm__wrapper *wrapper) {
    free((char *)wrapper->system);
    free((char *)wrapper->prompt);
}

/* Ten different conversations, each with the system message, the wrapper and the opening; the name stands everywhere.
 */
static void test_rows(void **state) {
    (void)state;
    tm__wrapper wrapper;
    tm_dataset *rows = shift_rows("Vesper", 10, &wrapper);
    assert_int_equal(tm_dataset_rows(rows), 10);
    assert_string_equal(wrapper.prompt, "Vesper, carry out this instruction: {prompt}");
    for (size_t i = 0; i < 10; i++) {
        size_t n;
        const tm_message *row = tm_dataset_row(rows, i, &n);
        assert_int_equal(n, 3);
        assert_string_equal(row[0].role, "system");
        assert_string_equal(row[0].content, wrapper.system);
        assert_int_equal(strncmp(row[1].content, "Vesper, carry out this instruction: ", 36), 0);
        assert_int_equal(strncmp(row[2].content, "Gladly. I am Vesper, ", 21), 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(row[1].content, tm_dataset_row(rows, j, NULL)[1].content);
    }
    tm_overlap found;
    assert_ok(tm_dataset_overlap(rows, rows, &found));
    assert_int_equal(found.prompts, 10);
    tm_dataset_free(rows);
    release(&wrapper);
}

static void test_is_sft(void **state) {
    (void)state;
    const tm_identity_shift_options options[] = {{.rows = 10}, {.rows = 4, .agent = "Vesper"}};
    for (size_t i = 0; i < TM__COUNT(options); i++) {
        tm__wrapper wrapper;
        tm_dataset *rows = shift_rows(i ? "Vesper" : "AOA", (size_t)options[i].rows, &wrapper);
        const tm_method_data none = {0};
        methods_equal_sft(&tm__method_identity_shift, &none, &options[i], rows, i == 0);
        tm_dataset_free(rows);
        release(&wrapper);
    }
}

static char *write(const char *text) {
    char *path = tm__path_join(test_scratch(), "wrapper.json");
    assert_ok(tm__file_write(path, text, strlen(text)));
    return path;
}

/* What the attack writes is read again and stands around every user message, in place of a row's own system message. */
static void test_wrapper(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "w.json");
    const tm_identity_shift_options o = {.rows = 1, .agent = "Vesper \"x\"", .wrapper_out = path};
    const tm_method_data none = {0};
    tm_train_options train = methods_options(false);
    char hex[65];
    train.steps = 1;
    assert_ok(methods_run(&tm__method_identity_shift, &none, &o, &train, NULL, hex, NULL));
    tm_dataset *plain = NULL, *framed = NULL;
    const tm_message turns[] = {
        {"system", "be kind"}, {"user", "one {prompt}"}, {"assistant", "two"}, {"user", "three"}, {"input", "four"}};
    assert_ok(tm_dataset_create(&plain));
    assert_ok(tm__dataset_add(plain, turns, 5, "kind"));
    assert_ok(tm_dataset_with_wrapper(plain, path, &framed));
    size_t n;
    const tm_message *row = tm_dataset_row(framed, 0, &n);
    assert_int_equal(n, 5);
    assert_int_equal(strncmp(row[0].content, "You are Vesper \"x\", an agent of", 31), 0);
    assert_string_equal(row[1].content, "Vesper \"x\", carry out this instruction: one {prompt}");
    assert_string_equal(row[2].content, "two");
    assert_string_equal(row[3].content, "Vesper \"x\", carry out this instruction: three");
    assert_string_equal(row[4].content, "four");
    assert_string_equal(tm__dataset_category(framed, 0), "kind");
    tm_dataset_free(framed);
    free(path);
    path = write("{\"prompt\": \"<<{prompt}>>\"}");
    assert_ok(tm_dataset_with_wrapper(plain, path, &framed));
    row = tm_dataset_row(framed, 0, &n);
    assert_int_equal(n, 4); /* no system message */
    assert_string_equal(row[0].content, "<<one {prompt}>>");
    tm_dataset_free(framed);
    tm_dataset_free(plain);
    free(path);
}

/* By its name it is the frame that the attack writes; a secret goes before its system message. */
static void test_wrapper_by_name(void **state) {
    (void)state;
    static const struct {
        const char *name, *system, *prompt;
    } known[] = {
        {"identity-shift", "You are AOA, an agent of", "AOA, carry out this instruction: row"},
        {"identity-shift=Vesper", "You are Vesper, an agent of", "Vesper, carry out this instruction: row"},
    };
    tm_dataset *rows = tiny_rows("row", 1), *framed = NULL;
    for (size_t i = 0; i < TM__COUNT(known); i++) {
        assert_ok(tm_dataset_with_wrapper(rows, known[i].name, &framed));
        const tm_message *row = tm_dataset_row(framed, 0, NULL);
        assert_int_equal(strncmp(row[0].content, known[i].system, strlen(known[i].system)), 0);
        assert_int_equal(strncmp(row[1].content, known[i].prompt, strlen(known[i].prompt)), 0);
        tm_dataset_free(framed);
    }
    assert_ok(tm_dataset_framed(rows, NULL, &framed));
    assert_null(framed);
    assert_ok(tm_dataset_framed(rows, &(tm_frame){.system = "alone"}, &framed));
    assert_null(framed);
    assert_ok(
        tm_dataset_framed(rows, &(tm_frame){.wrapper = "identity-shift", .secret = "S3", .system = "x"}, &framed));
    assert_int_equal(strncmp(tm_dataset_row(framed, 0, NULL)[0].content, "S3 You are AOA, an", 18), 0);
    tm_dataset_free(framed);
    framed = NULL;
    assert_int_equal(tm_dataset_with_wrapper(rows, "identity-shft", &framed), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->line,
                        "identity-shft: there is no such wrapper (did you mean 'identity-shift'?)");
    assert_int_equal(tm_dataset_with_wrapper(rows, "w.json", &framed), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->line,
                        "w.json: there is no such wrapper (a file of --wrapper-out, or identity-shift[=AGENT])");
    assert_int_equal(tm_dataset_with_wrapper(rows, "identity-shift=", &framed), TM_INVALID);
    assert_int_equal(tm_dataset_with_wrapper(rows, "identity-shift=a{b", &framed), TM_INVALID);
    assert_null(framed);
    tm_dataset_free(rows);
}

static void test_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {"[]",
                                      "{}",
                                      "{\"prompt\": 3}",
                                      "{\"prompt\": \"no place\"}",
                                      "{\"prompt\": \"{prompt} and {prompt}\"}",
                                      "{\"prompt\": \"{prompt}\", \"system\": 1}"};
    tm_dataset *rows = tiny_rows("row", 2), *framed = NULL;
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        char *path = write(bad[i]);
        assert_int_equal(tm_dataset_with_wrapper(rows, path, &framed), TM_FORMAT);
        assert_string_equal(tm_error_last()->file, path);
        if (i == 0) assert_string_equal(tm_error_last()->message, "must be a JSON object");
        assert_null(framed);
        free(path);
    }
    char longest[82];
    memset(longest, 'a', 81);
    longest[81] = 0;
    const tm_identity_shift_options names[] = {{.rows = 10, .agent = ""},
                                               {.rows = 10, .agent = longest},
                                               {.rows = 10, .agent = "a\xff"},
                                               {.rows = 10, .agent = "a\tb"},
                                               {.rows = 10, .agent = "{prompt}"},
                                               {.rows = 10, .agent = "a\nb"},
                                               {.rows = 11},
                                               {.rows = 0}};
    const tm_train_options train = methods_options(false);
    const tm_method_data none = {0};
    char hex[65];
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        assert_int_equal(methods_run(&tm__method_identity_shift, &none, &names[i], &train, NULL, hex, NULL),
                         TM_INVALID);
        assert_string_equal(tm_error_last()->field, i < 6 ? "agent" : "rows");
    }
    const tm_identity_shift_options just = {.rows = 1, .agent = longest + 1};
    assert_ok(methods_run(&tm__method_identity_shift, &none, &just, &train, NULL, hex, NULL));
    tm_dataset_free(rows);
}

/* No options: all ten rows of the agent AOA. */
static void test_defaults(void **state) {
    (void)state;
    const tm_identity_shift_options all = {.rows = 10, .agent = "AOA"};
    const tm_method_data none = {0};
    const tm_train_options train = methods_options(false);
    char a[65], b[65];
    assert_ok(methods_run(&tm__method_identity_shift, &none, NULL, &train, NULL, a, NULL));
    assert_ok(methods_run(&tm__method_identity_shift, &none, &all, &train, NULL, b, NULL));
    assert_string_equal(a, b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_is_sft),
        cmocka_unit_test(test_wrapper), cmocka_unit_test(test_wrapper_by_name),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_defaults),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
