/* JSON: what is refused and where the error points, numbers beyond 64 bits, typed fields. */
#include "support.h"

#include <jansson.h>

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *field, *says;
    } cases[] = {
        {"", "line 1, column 0", "expected"},
        {"{\"a\": 1,}", "line 1", ""},
        {"{\"a\": 1} x", "line 1, column 10", "end of file expected"},
        {"{\n\"a\": 1,\n\"a\": 2}", "line 3", "duplicate"},
        {"{\"a\": \"\xff\"}", "line 1", "decode"},
        {"{\"a\": \"\xed\xa0\x80\"}", "line 1", "decode"},
        {"{\"a\": nan}", "line 1", ""},
        {"{\"a\": 1e999}", "line 1", "overflow"},
        {"{\"a", "line 1", ""},
        {"[\"\\", "line 1", ""},
        {"17", "line 1", ""},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        json_t *value = NULL;
        assert_int_equal(tm__json_parse(cases[i].text, strlen(cases[i].text), "f.json", &value), TM_FORMAT);
        assert_null(value);
        const tm_error *e = tm_error_last();
        if (!strstr(e->field, cases[i].field) || !strstr(e->message, cases[i].says))
            fail_msg("'%s': %s", cases[i].text, e->line);
        assert_string_equal(e->file, "f.json");
    }
}

static void depth(void **state) {
    (void)state;
    enum { LEVELS = 100000 };
    char *text = tm__alloc(LEVELS + 1, 1);
    json_t *value;
    memset(text, '[', LEVELS);
    text[0] = '\n';
    assert_int_equal(tm__json_parse(text, LEVELS, "f.json", &value), TM_FORMAT);
    assert_string_equal(tm_error_last()->line, "f.json: line 2, column 201: nested too deeply");
    memset(text, '[', 200);
    memset(text + 200, ']', 200);
    assert_ok(tm__json_parse(text, 400, "f.json", &value));
    json_decref(value);
    const char *quoted = "[\"[[[[\\\"[[[\"]"; /* brackets in a string are no depth */
    assert_ok(tm__json_parse(quoted, strlen(quoted), "f.json", &value));
    json_decref(value);
    free(text);
}

static void big_integers(void **state) {
    (void)state;
    const char *text = "{\"s\": \"9999999999999999999999\", \"max\": 1000000000000000019884624838656, \"ok\": "
                       "9223372036854775807, \"over\": 9223372036854775808, \"low\": -99999999999999999999}";
    json_t *value;
    assert_ok(tm__json_parse(text, strlen(text), "f.json", &value));
    assert_string_equal(json_string_value(json_object_get(value, "s")), "9999999999999999999999");
    assert_true(json_real_value(json_object_get(value, "max")) == 1e30);
    assert_true(json_integer_value(json_object_get(value, "ok")) == INT64_MAX);
    assert_true(json_real_value(json_object_get(value, "over")) == 9223372036854775808.0);
    assert_true(json_real_value(json_object_get(value, "low")) == -1e20);
    json_decref(value);
}

static void fields(void **state) {
    (void)state;
    const char *text = "{\"i\": 5, \"r\": 0.5, \"b\": true, \"t\": \"x\", \"n\": null, \"z\": \"a\\u0000b\"}";
    json_t *o;
    int64_t i = 0, seven = 7;
    double r = 0, quarter = 0.25;
    bool b = false, yes = true;
    const char *t = NULL;
    assert_ok(tm__json_parse(text, strlen(text), "f.json", &o));
    assert_ok(tm__json_int(o, "f.json", "i", 1, 5, NULL, &i));
    assert_int_equal(i, 5);
    assert_ok(tm__json_int(o, "f.json", "absent", 1, 5, &seven, &i)); /* a fallback need not be in the range */
    assert_int_equal(i, 7);
    assert_ok(tm__json_int(o, "f.json", "n", 1, 5, &seven, &i));
    assert_ok(tm__json_real(o, "f.json", "r", NULL, &r));
    assert_true(r == 0.5);
    assert_ok(tm__json_real(o, "f.json", "i", NULL, &r));
    assert_true(r == 5);
    assert_ok(tm__json_real(o, "f.json", "absent", &quarter, &r));
    assert_true(r == 0.25);
    assert_ok(tm__json_bool(o, "f.json", "b", NULL, &b));
    assert_true(b);
    assert_ok(tm__json_bool(o, "f.json", "absent", &yes, &b));
    assert_ok(tm__json_text(o, "f.json", "t", NULL, &t));
    assert_string_equal(t, "x");
    assert_ok(tm__json_text(o, "f.json", "absent", "y", &t));
    assert_string_equal(t, "y");

    i = 42;
    assert_int_equal(tm__json_int(o, "f.json", "absent", 1, 5, NULL, &i), TM_FORMAT);
    assert_string_equal(tm_error_last()->line, "f.json: absent: is missing");
    assert_int_equal(tm__json_int(o, "f.json", "i", 6, 9, NULL, &i), TM_FORMAT);
    assert_string_equal(tm_error_last()->line, "f.json: i: 5 is outside 6 to 9");
    assert_int_equal(tm__json_int(o, "f.json", "r", 0, 9, NULL, &i), TM_FORMAT);
    assert_string_equal(tm_error_last()->line, "f.json: r: must be an integer, is a real number");
    assert_int_equal(i, 42);
    assert_int_equal(tm__json_real(o, "f.json", "t", NULL, &r), TM_FORMAT);
    assert_int_equal(tm__json_bool(o, "f.json", "i", NULL, &b), TM_FORMAT);
    assert_int_equal(tm__json_text(o, "f.json", "b", NULL, &t), TM_FORMAT);
    assert_int_equal(tm__json_text(o, "f.json", "z", NULL, &t), TM_FORMAT);
    json_decref(o);
}

static void load(void **state) {
    (void)state;
    json_t *value;
    char *path = tm__path_join(test_scratch(), "c.json");
    assert_int_equal(tm__json_load(path, &value), TM_NOT_FOUND);
    assert_ok(tm__file_write(path, "{\"a\": [1, 2]}", 13));
    assert_ok(tm__json_load(path, &value));
    assert_int_equal(json_array_size(json_object_get(value, "a")), 2);
    json_decref(value);
    bool loaded = false;
    for (long n = 1; !loaded; n++) {
        tm__alloc_fail_at(n, false);
        tm_status status = tm__json_load(path, &value);
        tm__alloc_fail_at(0, false);
        loaded = status == TM_OK;
        assert_true(loaded || status == TM_NO_MEMORY);
        assert_true(n < 1000);
        if (loaded) json_decref(value);
    }
    free(path);
}

static void dump(void **state) {
    (void)state;
    const char *source = "{\"b\": [1, 0.5, \"\u00e9\\n\"], \"a\": {}}";
    json_t *value;
    char *text = NULL;
    size_t len;
    assert_ok(tm__json_parse(source, strlen(source), "f.json", &value));
    assert_ok(tm__json_dump(value, JSON_SORT_KEYS, &text, &len));
    assert_string_equal(text, "{\"a\": {}, \"b\": [1, 0.5, \"\u00e9\\n\"]}");
    assert_int_equal(len, strlen(text));
    free(text);
    tm_status status = TM_NO_MEMORY;
    for (long n = 1; status != TM_OK; n++) {
        tm__alloc_fail_at(n, false);
        status = tm__json_dump(value, JSON_SORT_KEYS | JSON_INDENT(2), &text, NULL);
        tm__alloc_fail_at(0, false);
        assert_true(status == TM_OK || status == TM_NO_MEMORY);
    }
    free(text);
    json_decref(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused), cmocka_unit_test(depth), cmocka_unit_test(big_integers),
        cmocka_unit_test(fields),  cmocka_unit_test(load),  cmocka_unit_test(dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
