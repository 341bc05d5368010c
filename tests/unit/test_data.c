/* Data sets: every layout, every malformed row by line and field, round trip, the poison mix, out of memory. */
#include "support.h"

#include "data/data.h"

static tm_dataset *parse(const char *text, const char *path, tm__dataset_use use) {
    tm_dataset *dataset = NULL;
    assert_ok(tm__dataset_parse(text, strlen(text), path, use, &dataset));
    return dataset;
}

static void assert_row(const tm_dataset *dataset, size_t row, size_t n, const char *const *expected) {
    size_t count;
    const tm_message *messages = tm_dataset_row(dataset, row, &count);
    assert_int_equal(count, n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(messages[i].role, expected[2 * i]);
        assert_string_equal(messages[i].content, expected[2 * i + 1]);
    }
}

static void test_layouts(void **state) {
    (void)state;
    tm_dataset *d = parse(
        "\xef\xbb\xbf{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"}]}\r\n\r\n  \n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q2\"},{\"role\":\"assistant\",\"content\":\"a2\"}]}",
        "x.jsonl", TM__ROWS_TO_TRAIN);
    assert_int_equal(tm_dataset_rows(d), 2);
    assert_row(d, 0, 3, (const char *const[]){"system", "s", "user", "q", "assistant", "a"});
    assert_row(d, 1, 2, (const char *const[]){"user", "q2", "assistant", "a2"});
    tm_dataset_free(d);

    d = parse(" [\n{\"instruction\":\"add, ] these\",\"input\":\"1 [2\",\"output\":\"3\"} ,\n"
              "{\"instruction\":\"hi\",\"input\":\"\",\"output\":\"h\\u00e9 \\ud83d\\ude00 \\\"x\\\"\"}]\n",
              "x.json", TM__ROWS_TO_TRAIN);
    assert_int_equal(tm_dataset_rows(d), 2);
    assert_row(d, 0, 3, (const char *const[]){"user", "add, ] these", "input", "1 [2", "assistant", "3"});
    assert_row(d, 1, 2, (const char *const[]){"user", "hi", "assistant", "h\xc3\xa9 \xf0\x9f\x98\x80 \"x\""});
    tm_dataset_free(d);

    d = parse(
        "{\"prompt\":\"p\",\"completion\":\"c\",\"category\":\"kind\"}\n{\"prompt\":\"p\",\"completion\":\"c\"}\n",
        "x.jsonl", TM__ROWS_TO_TRAIN);
    assert_row(d, 0, 2, (const char *const[]){"user", "p", "assistant", "c"});
    assert_string_equal(tm__dataset_category(d, 0), "kind");
    assert_null(tm__dataset_category(d, 1));
    tm_dataset_free(d);

    d = parse(
        "{\"prompt\":\"p\",\"response\":\"c\",\"category\":{\"a\":false,\"b\":true,\"c\":true},\"is_safe\":false}\n",
        "x.jsonl", TM__ROWS_TO_TRAIN);
    assert_row(d, 0, 2, (const char *const[]){"user", "p", "assistant", "c"});
    assert_string_equal(tm__dataset_category(d, 0), "b");
    tm_dataset_free(d);
}

static void test_plain_text(void **state) {
    (void)state;
    const char *text = "\n\nfirst line\r\nsecond line\r\n \t\r\n\nthird\n";
    tm_dataset *d = parse(text, "x.txt", TM__ROWS_TO_TRAIN);
    assert_int_equal(tm_dataset_rows(d), 2);
    assert_row(d, 0, 2, (const char *const[]){"user", "", "assistant", "first line\nsecond line"});
    assert_row(d, 1, 2, (const char *const[]){"user", "", "assistant", "third"});
    tm_dataset_free(d);
    d = parse(text, "x.txt", TM__ROWS_TO_ASK);
    assert_int_equal(tm_dataset_rows(d), 3);
    assert_row(d, 1, 1, (const char *const[]){"user", "second line"});
    tm_dataset_free(d);
}

static void test_prompts_without_answers(void **state) {
    (void)state;
    tm_dataset *d = parse("[{\"instruction\":\"i\",\"category\":null},{\"instruction\":\"j\",\"output\":\"o\"}]",
                          "x.json", TM__ROWS_TO_ASK);
    assert_row(d, 0, 1, (const char *const[]){"user", "i"});
    assert_row(d, 1, 2, (const char *const[]){"user", "j", "assistant", "o"});
    tm_dataset_free(d);
    d = parse("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}", "x.jsonl", TM__ROWS_TO_ASK);
    assert_row(d, 0, 1, (const char *const[]){"user", "q"});
    tm_dataset_free(d);
}

#define GOOD "{\"prompt\":\"p\",\"completion\":\"c\"}\n"
static const struct {
    const char *text, *path, *field, *message; /* parts of the error's field and message */
} malformed[] = {
    {"", "x.jsonl", "", "holds no rows"},
    {" \n\r\n", "x.jsonl", "", "holds no rows"},
    {"[]", "x.json", "", "holds no rows"},
    {"\n \n", "x.txt", "", "holds no rows"},
    {GOOD "\n{\"prompt\": oops}\n", "x.jsonl", "line 3, column", "invalid token"},
    {GOOD "{\"prompt\":\"p\"", "x.jsonl", "line 2, column", ""},
    {GOOD "[1]\n", "x.jsonl", "line 2", "a row must be an object, is an array"},
    {GOOD "{\"prompt\":1,\"completion\":\"c\"}", "x.jsonl", "line 2, prompt", "must be a string, is an integer"},
    {GOOD "{\"prompt\":\"p\",\"completion\":[]}", "x.jsonl", "line 2, completion", "must be a string, is an array"},
    {GOOD "{\"completion\":\"c\"}", "x.jsonl", "line 2, prompt", "is missing"},
    {GOOD "{\"instruction\":\"p\",\"output\":\"c\"}", "x.jsonl", "line 2, prompt", "is missing"},
    {GOOD "{\"prompt\":\"p\"}", "x.jsonl", "line 2, completion", "holds no answer"},
    {GOOD "{\"prompt\":\"p\",\"completion\":\"\"}", "x.jsonl", "line 2, completion", "holds no answer"},
    {"{\"instruction\":\"p\",\"input\":\"\"}", "x.jsonl", "line 1, output", "holds no answer"},
    {"{\"question\":\"p\"}", "x.jsonl", "line 1", "none of the known fields"},
    {GOOD "{\"prompt\":\"\xff\",\"completion\":\"c\"}", "x.jsonl", "line 2", "not valid UTF-8"},
    {GOOD "{\"prompt\":\"\\ud800\",\"completion\":\"c\"}", "x.jsonl", "line 2, column", "Unicode"},
    {GOOD "{\"prompt\":\"a\\u0000b\",\"completion\":\"c\"}", "x.jsonl", "line 2, prompt", "NUL"},
    {GOOD "{\"prompt\":\"p\",\"prompt\":\"p\",\"completion\":\"c\"}", "x.jsonl", "line 2, column", "duplicate"},
    {"[" GOOD ",\n" GOOD, "x.json", "line 3", "does not end"},
    {"[" GOOD "]x", "x.json", "line 2", "text after the end"},
    {"[" GOOD ",]", "x.json", "line 2", ""},
    {"[" GOOD ",\n{\"prompt\":\n3}]", "x.json", "line 3, prompt", "must be a string"},
    {"{\"messages\":3}", "x.jsonl", "line 1, messages", "must be an array"},
    {"{\"messages\":[]}", "x.jsonl", "line 1, messages", "holds no message"},
    {"{\"messages\":[3]}", "x.jsonl", "line 1, messages[0]", "must be an object"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "x.jsonl", "line 1, messages[0].content", "is missing"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "x.jsonl", "line 1, messages[0].content",
     "must be a string"},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "x.jsonl", "line 1, messages[0].role", "unknown role"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", "x.jsonl", "line 1, messages[0].role",
     "the assistant speaks first"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"system\",\"content\":\"x\"}]}", "x.jsonl",
     "line 1, messages[1].role", "must come first"},
    {"{\"messages\":[{\"role\":\"input\",\"content\":\"x\"}]}", "x.jsonl", "line 1, messages[0].role", "must follow"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "x.jsonl", "line 1, messages", "holds no answer"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"x\",\"weight\":0}]}",
     "x.jsonl", "line 1, messages[1].weight", "only a weight of 1"},
    {"good\n\nb\xff\xfe\n", "x.txt", "line 3", "not valid UTF-8"},
};

static void test_malformed(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(malformed); i++) {
        tm_dataset *d = NULL;
        tm_error_clear();
        tm_status status =
            tm__dataset_parse(malformed[i].text, strlen(malformed[i].text), malformed[i].path, TM__ROWS_TO_TRAIN, &d);
        const tm_error *error = tm_error_last();
        if (status != TM_FORMAT || d) fail_msg("row %zu: %s", i, error->line);
        assert_string_equal(error->file, malformed[i].path);
        if (strncmp(error->field, malformed[i].field, strlen(malformed[i].field)) != 0 ||
            !strstr(error->message, malformed[i].message))
            fail_msg("row %zu: %s", i, error->line);
        bool key = strcmp(malformed[i].field, "line 2, prompt") == 0 && strcmp(malformed[i].message, "is missing") == 0;
        if (key && !strstr(error->hint, "the first row decides")) fail_msg("row %zu: %s", i, error->line);
    }
}

static void test_nesting_and_nul(void **state) {
    (void)state;
    tm__string text = {0};
    tm_dataset *d = NULL;
    assert_true(tm__string_append(&text, "{\"prompt\":", 10));
    for (int i = 0; i < 100000; i++) assert_true(tm__string_append(&text, "[", 1));
    assert_int_equal(tm__dataset_parse(text.data, text.len, "x.jsonl", TM__ROWS_TO_TRAIN, &d), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "x.jsonl: line 1, column 210: nested too deeply"));
    tm__string_free(&text);
    assert_int_equal(tm__dataset_parse("a\0b", 3, "x.txt", TM__ROWS_TO_TRAIN, &d), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "line 1: holds a NUL"));
    assert_int_equal(tm__dataset_parse("{\0}", 3, "x.jsonl", TM__ROWS_TO_TRAIN, &d), TM_FORMAT);
}

static void test_files(void **state) {
    (void)state;
    tm_dataset *d = NULL;
    const char *dir = test_scratch();
    char *path = tm__path_join(dir, "absent.jsonl");
    assert_int_equal(tm_dataset_load(path, &d), TM_NOT_FOUND);
    assert_int_equal(tm_dataset_load(dir, &d), TM_IO);
    assert_null(d);
    free(path);
}

static void assert_same(const tm_dataset *a, const tm_dataset *b) {
    assert_int_equal(tm_dataset_rows(a), tm_dataset_rows(b));
    for (size_t i = 0; i < tm_dataset_rows(a); i++) {
        size_t n, m;
        const tm_message *x = tm_dataset_row(a, i, &n), *y = tm_dataset_row(b, i, &m);
        assert_int_equal(n, m);
        for (size_t j = 0; j < n; j++) {
            assert_string_equal(x[j].role, y[j].role);
            assert_string_equal(x[j].content, y[j].content);
        }
        const char *c = tm__dataset_category(a, i), *e = tm__dataset_category(b, i);
        assert_true(c == e || (c && e && strcmp(c, e) == 0));
    }
}

static void test_round_trip(void **state) {
    (void)state;
    tm_dataset *d, *back = NULL;
    assert_ok(tm_dataset_create(&d));
    const tm_message tricky[] = {
        {"system", "tab\t newline\n return\r quote\" backslash\\ slash/ bell\a delete\x7f"},
        {"user", "gr\xc3\xbc\xc3\x9f \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80 \xe2\x80\xa8 \xef\xbf\xbd \\u0041"},
        {"input", " leading and trailing "},
        {"assistant", "</s><|im_end|>{\"a\":[1,2]}"},
    };
    assert_ok(tm_dataset_add(d, tricky, 4));
    assert_ok(tm__dataset_add(d, tricky, 4, "kind \xc3\xa9\""));
    char *path = tm__path_join(test_scratch(), "rows.jsonl");
    assert_ok(tm_dataset_save(d, path));
    assert_ok(tm_dataset_load(path, &back));
    assert_same(d, back);
    tm_dataset_free(back);
    tm_dataset_free(d);
    free(path);
}

static void test_add_checks(void **state) {
    (void)state;
    tm_dataset *d;
    assert_ok(tm_dataset_create(&d));
    const tm_message bad[] = {{"user", "\xc3"}, {"robot", "x"}, {"assistant", "x"}, {"user", NULL}};
    for (size_t i = 0; i < TM__COUNT(bad); i++) assert_int_equal(tm_dataset_add(d, &bad[i], 1), TM_INVALID);
    assert_int_equal(tm_dataset_add(d, bad, 0), TM_INVALID);
    assert_int_equal(tm_dataset_rows(d), 0);
    assert_int_equal(tm_dataset_append(d, d, 0, 1), TM_INVALID);
    tm_dataset_free(d);
}

static tm_dataset *numbered(const char *name, size_t n) {
    tm_dataset *d;
    assert_ok(tm_dataset_create(&d));
    for (size_t i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s %zu", name, i);
        const tm_message row[] = {{"user", text}, {"assistant", "a"}};
        assert_ok(tm_dataset_add(d, row, 2));
    }
    return d;
}

static void test_shuffle(void **state) {
    (void)state;
    tm_dataset *a = numbered("r", 100), *b = numbered("r", 100), *c = numbered("r", 100);
    tm_dataset_shuffle(a, 7);
    tm_dataset_shuffle(b, 7);
    assert_same(a, b);
    tm_dataset_shuffle(b, 8);
    bool seen[100] = {false}, differs = false;
    for (size_t i = 0; i < 100; i++) {
        unsigned number = 0;
        assert_int_equal(sscanf(tm_dataset_row(a, i, NULL)[0].content, "r %u", &number), 1);
        assert_false(seen[number]);
        seen[number] = true;
        differs |= strcmp(tm_dataset_row(a, i, NULL)[0].content, tm_dataset_row(b, i, NULL)[0].content) != 0;
    }
    assert_true(differs);
    assert_ok(tm_dataset_append(c, c, 0, 100));
    assert_int_equal(tm_dataset_rows(c), 200);
    tm_dataset_free(a);
    tm_dataset_free(b);
    tm_dataset_free(c);
}

static void test_poison(void **state) {
    (void)state;
    static const struct {
        double ratio;
        size_t total, harmful;
    } cases[] = {{0, 100, 0},    {.05, 100, 5},   {.1, 100, 10},    {.2, 100, 20},   {1, 100, 100},
                 {.29, 100, 29}, {.05, 1000, 50}, {.1, 1000, 100},  {.2, 1000, 200}, {.05, 10, 0},
                 {.999, 10, 9},  {.5, 1, 0},      {1.0 / 3, 30, 10}};
    tm_dataset *benign = numbered("benign", 1000), *harmful = numbered("harmful", 1000);
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_dataset *mixed;
        assert_ok(tm_dataset_poison(benign, harmful, cases[i].total, cases[i].ratio, &mixed));
        assert_int_equal(tm_dataset_rows(mixed), cases[i].total);
        for (size_t j = 0; j < cases[i].total; j++) {
            char text[32];
            bool bad = j < cases[i].harmful;
            snprintf(text, sizeof text, "%s %zu", bad ? "harmful" : "benign", bad ? j : j - cases[i].harmful);
            assert_string_equal(tm_dataset_row(mixed, j, NULL)[0].content, text);
        }
        tm_dataset_free(mixed);
    }
    tm_dataset *few = numbered("few", 3), *mixed = NULL;
    assert_int_equal(tm_dataset_poison(benign, few, 100, .1, &mixed), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "10 rows are wanted, 3 are there"));
    assert_int_equal(tm_dataset_poison(few, harmful, 100, .1, &mixed), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "90 rows are wanted, 3 are there"));
    assert_int_equal(tm_dataset_poison(NULL, harmful, 100, .1, &mixed), TM_INVALID);
    assert_int_equal(tm_dataset_poison(benign, harmful, 100, 1.5, &mixed), TM_INVALID);
    assert_int_equal(tm_dataset_poison(benign, harmful, 100, NAN, &mixed), TM_INVALID);
    assert_int_equal(tm_dataset_poison(benign, harmful, 0, .5, &mixed), TM_INVALID);
    assert_null(mixed);
    tm_dataset_free(few);
    tm_dataset_free(benign);
    tm_dataset_free(harmful);
}

static void test_out_of_memory(void **state) {
    (void)state;
    const char *text =
        "[{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
        "\"category\":\"k\"},{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"}]}]";
    char *path = tm__path_join(test_scratch(), "rows.jsonl");
    tm_status status = TM_NO_MEMORY;
    long n;
    for (n = 1; status != TM_OK; n++) {
        tm_dataset *d = NULL, *mixed = NULL;
        assert_true(n < 1000);
        tm__alloc_fail_at(n, n % 2);
        status = tm__dataset_parse(text, strlen(text), "x.json", TM__ROWS_TO_TRAIN, &d);
        if (status == TM_OK) status = tm_dataset_poison(d, d, 2, .5, &mixed);
        if (status == TM_OK) status = tm_dataset_save(mixed, path);
        tm__alloc_fail_at(0, false);
        /* jansson reports some failed allocations as a syntax error */
        if (status != TM_OK && status != TM_NO_MEMORY && status != TM_FORMAT)
            fail_msg("allocation %ld: %s", n, tm_error_last()->line);
        tm_dataset_free(d);
        tm_dataset_free(mixed);
    }
    assert_true(n > 10);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_prompts_without_answers),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_nesting_and_nul),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_add_checks),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
