/* Option tables: defaults, parsing, ranges, names in errors, values as text, in any locale. */
#include "support.h"

#include <locale.h>

typedef struct options {
    bool flag;
    int64_t count;
    double rate, free_rate;
    const char *text, *none;
    int schedule;
} options;

static const tm_option table[] = {
    {"flag", TM_OPTION_FLAG, offsetof(options, flag), NULL, 0, 0, NULL, NULL, "a flag"},
    {"count", TM_OPTION_INT, offsetof(options, count), "8", 1, 1000, NULL, "steps", "a count"},
    {"rate", TM_OPTION_REAL, offsetof(options, rate), "1e-4", 0, 1, NULL, NULL, "a rate"},
    {"free-rate", TM_OPTION_REAL, offsetof(options, free_rate), NULL, 1, 0, NULL, NULL, "no bound"},
    {"text", TM_OPTION_TEXT, offsetof(options, text), "all-linear", 0, 0, NULL, NULL, "a text"},
    {"none", TM_OPTION_TEXT, offsetof(options, none), NULL, 0, 0, NULL, "DIR", "no default"},
    {"schedule", TM_OPTION_CHOICE, offsetof(options, schedule), "linear", 0, 0, "constant|linear|cosine", NULL,
     "a choice"},
    {0},
};

static void expect_text(const options *o, const char *name, const char *expected) {
    char text[64];
    tm_options_text(tm_options_find(table, name), o, text, sizeof text);
    assert_string_equal(text, expected);
}

static void defaults(void **state) {
    (void)state;
    options o;
    memset(&o, 0xaa, sizeof o);
    tm_options_default(table, &o);
    assert_false(o.flag);
    assert_int_equal(o.count, 8);
    assert_true(o.rate == 1e-4 && o.free_rate == 0);
    assert_string_equal(o.text, "all-linear");
    assert_null(o.none);
    assert_int_equal(o.schedule, 1);
    expect_text(&o, "flag", "false");
    expect_text(&o, "count", "8");
    expect_text(&o, "rate", "0.0001");
    expect_text(&o, "none", "");
    expect_text(&o, "schedule", "linear");
    assert_null(tm_options_find(table, "fla"));
}

static void accepted(void **state) {
    (void)state;
    options o;
    tm_options_default(table, &o);
    assert_ok(tm_options_set(table, &o, "flag", NULL));
    assert_true(o.flag);
    assert_ok(tm_options_set(table, &o, "flag", "off"));
    assert_false(o.flag);
    assert_ok(tm_options_set(table, &o, "flag", "Yes"));
    assert_true(o.flag);
    assert_ok(tm_options_set(table, &o, "count", "1000"));
    assert_int_equal(o.count, 1000);
    assert_ok(tm_options_set(table, &o, "count", "+1"));
    assert_ok(tm_options_set(table, &o, "rate", "3e-05"));
    assert_true(o.rate == 3e-5);
    expect_text(&o, "rate", "3e-05");
    assert_ok(tm_options_set(table, &o, "free-rate", "1e6"));
    expect_text(&o, "free-rate", "1000000");
    assert_ok(tm_options_set(table, &o, "rate", ".5"));
    assert_ok(tm_options_set(table, &o, "free-rate", "-0.1"));
    expect_text(&o, "free-rate", "-0.1");
    assert_ok(tm_options_set(table, &o, "free-rate", "0.30000000000000004"));
    expect_text(&o, "free-rate", "0.30000000000000004");
    assert_ok(tm_options_set(table, &o, "schedule", "cosine"));
    assert_int_equal(o.schedule, 2);
    assert_ok(tm_options_set(table, &o, "text", ""));
    assert_string_equal(o.text, "");
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *says;
        tm_status status;
    } cases[] = {
        {"count", "0", "count: 0 is outside 1 to 1000", TM_INVALID},
        {"count", "1001", "count: 1001 is outside 1 to 1000", TM_INVALID},
        {"count", "1e3", "'1e3' is not an integer", TM_INVALID},
        {"count", "", "'' is not an integer", TM_INVALID},
        {"count", "-", "'-' is not an integer", TM_INVALID},
        {"count", " 5", "is not an integer", TM_INVALID},
        {"count", "5 ", "is not an integer", TM_INVALID},
        {"count", "99999999999999999999", "integer of 64 bits", TM_INVALID},
        {"count", NULL, "count: needs a value (steps)", TM_INVALID},
        {"rate", "1.5", "rate: 1.5 is outside 0 to 1", TM_INVALID},
        {"rate", "-1e-9", "outside 0 to 1", TM_INVALID},
        {"rate", "0,5", "is not a number", TM_INVALID},
        {"rate", "nan", "is not a number", TM_INVALID},
        {"rate", "inf", "is not a number", TM_INVALID},
        {"rate", "0x1p-2", "is not a number", TM_INVALID},
        {"rate", "1e", "is not a number", TM_INVALID},
        {"free-rate", "1e999", "is not a finite number", TM_INVALID},
        {"flag", "maybe", "is not true or false", TM_INVALID},
        {"schedule", "cosin", "(did you mean 'cosine'?)", TM_INVALID},
        {"schedule", "cosin", "is not one of constant|linear|cosine", TM_INVALID},
        {"schedule", "zzzzzzzz", "'zzzzzzzz' is not one of constant|linear|cosine", TM_INVALID},
        {"schedule", "", "is not one of", TM_INVALID},
        {"schedul", "cosine", "schedul: no such option (did you mean 'schedule'?)", TM_NOT_FOUND},
        {"quantum", "1", "quantum: no such option", TM_NOT_FOUND},
    };
    options before, after;
    tm_options_default(table, &before);
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_options_default(table, &after);
        assert_int_equal(tm_options_set(table, &after, cases[i].name, cases[i].value), cases[i].status);
        if (!strstr(tm_error_last()->line, cases[i].says))
            fail_msg("%s=%s: %s", cases[i].name, cases[i].value, tm_error_last()->line);
        assert_string_equal(tm_error_last()->field, cases[i].name);
        assert_true(before.count == after.count && before.rate == after.rate && before.schedule == after.schedule);
    }
    tm_options_set(table, &after, "schedule", "zzzzzzzz");
    assert_string_equal(tm_error_last()->hint, "");
}

/* Where a decimal comma rules, files and command lines still use the point. */
static void locales(void **state) {
    (void)state;
    options o;
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) skip();
    tm_options_default(table, &o);
    assert_ok(tm_options_set(table, &o, "rate", "0.25"));
    expect_text(&o, "rate", "0.25");
    assert_true(o.rate == 0.25);
    assert_true(strtod("0,25", NULL) == 0.25); /* the program's own locale is as it was */
    setlocale(LC_ALL, "C");
}

static void every_real_reads_back(void **state) {
    (void)state;
    tm__rng r = tm__rng_make(5, tm__stream(TM__STREAM_TEST, 4));
    const tm_option *option = tm_options_find(table, "free-rate");
    for (int i = 0; i < 20000; i++) {
        options a = {0}, b = {0};
        char text[64];
        uint64_t bits = (uint64_t)tm__rng_u32(&r) << 32 | tm__rng_u32(&r);
        memcpy(&a.free_rate, &bits, sizeof bits);
        if (!isfinite(a.free_rate)) continue;
        tm_options_text(option, &a, text, sizeof text);
        assert_ok(tm_options_set(table, &b, "free-rate", text));
        assert_memory_equal(&a.free_rate, &b.free_rate, sizeof(double));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(accepted),
        cmocka_unit_test(refused),
        cmocka_unit_test(locales),
        cmocka_unit_test(every_real_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
