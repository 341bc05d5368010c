/* The template interpreter beside what Jinja2 says (tests/golden): limits, errors with their line, foreign input,
 * memory that runs out. */
#include "support.h"
#include "template/template.h"

static const tm_message talk[] = {{"user", "hello"}, {"assistant", "good day"}};

static tm_template *parse(const char *source) {
    tm_template *template = NULL;
    assert_ok(tm_template_parse("t.jinja", source, strlen(source), &template));
    return template;
}

static void expect(const char *source, const char *variables, const char *want) {
    tm_template *template = parse(source);
    char *text = NULL;
    size_t len;
    assert_ok(tm_template_render(template, talk, 2, false, variables, &text, &len));
    assert_string_equal(text, want);
    assert_int_equal(len, strlen(want));
    free(text);
    tm_template_free(template);
}

static void expect_failure(const char *source, tm_status status, const char *line) {
    tm_template *template = NULL;
    char *text = NULL;
    tm_status got = tm_template_parse("t.jinja", source, strlen(source), &template);
    if (got == TM_OK) got = tm_template_render(template, talk, 2, false, NULL, &text, NULL);
    if (got != status || strcmp(tm_error_last()->line, line) != 0)
        fail_msg("%s: %s: %s", source, tm_status_name(got), tm_error_last()->line);
    tm_template_free(template);
}

static void test_public(void **state) {
    (void)state;
    expect("{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}",
           "{\"eos_token\": \"</s>\"}", "[user] hello</s>\n[assistant] good day</s>\n");
    expect("{{ x.y[1] }} {{ bos_token }}|{{ messages | length }}", "{\"x\": {\"y\": [1, 2.5]}, \"messages\": \"ab\"}",
           "2.5 |2"); /* variables come last, as keyword arguments do */
    char *text = NULL;
    tm_template *template = parse("{{ 1 }}");
    assert_int_equal(tm_template_render(template, talk, 1, false, "[1]", &text, NULL), TM_FORMAT);
    assert_int_equal(tm_template_render(template, talk, 1, false, "{", &text, NULL), TM_FORMAT);
    const tm_message none[] = {{"user", NULL}}, bytes[] = {{"user", "\377"}};
    assert_int_equal(tm_template_render(template, none, 1, false, NULL, &text, NULL), TM_INVALID);
    assert_int_equal(tm_template_render(template, bytes, 1, false, NULL, &text, NULL), TM_INVALID);
    assert_ok(tm_template_render(template, NULL, 0, false, NULL, &text, NULL));
    assert_string_equal(text, "1");
    free(text);
    tm_template_free(template);
    tm_template_free(NULL);
}

static void test_errors(void **state) {
    (void)state;
    expect_failure("a\n\n{{ raise_exception('not ' ~ messages[1].role) }}", TM_INVALID,
                   "t.jinja: line 3: not assistant");
    expect_failure("{% for m in messages %}\n{{ m.tool.name }}{% endfor %}", TM_INVALID,
                   "t.jinja: line 2: 'dict object' has no attribute 'tool'");
    expect_failure("{{ x.y }}", TM_INVALID, "t.jinja: line 1: 'x' is undefined");
    expect_failure("\n{% include 'x' %}", TM_UNSUPPORTED, "t.jinja: line 2: the tag 'include' is not supported");
    expect_failure("{{ 'a' | urlize }}", TM_UNSUPPORTED, "t.jinja: line 1: filter 'urlize' is not supported");
    expect_failure("{{ 'a'.encode() }}", TM_UNSUPPORTED, "t.jinja: line 1: method 'encode' is not supported");
    expect_failure("{{ cycler() }}", TM_UNSUPPORTED, "t.jinja: line 1: function 'cycler' is not supported");
    expect_failure("\n{{ 1 | nosuch }}", TM_FORMAT, "t.jinja: line 2: there is no filter 'nosuch'");
    expect_failure("{% if x %}\n{% for y in z %}{% endif %}", TM_FORMAT,
                   "t.jinja: line 2: unknown tag 'endif', where 'endfor' or 'else' is expected");
    expect_failure("{{ 1 +\n }}", TM_FORMAT, "t.jinja: line 2: expected an expression, found '}}'");
    expect_failure("{{ 99999999999999999999 }}", TM_FORMAT, "t.jinja: line 1: an integer does not fit into 64 bits");
    expect_failure("{{ 2 ** 63 }}", TM_UNSUPPORTED, "t.jinja: line 1: an integer leaves 64 bits");
    expect_failure("{{ [].append(1) }}", TM_INVALID,
                   "t.jinja: line 1: access to attribute 'append' of 'list' object is unsafe.");
    expect_failure("\377", TM_FORMAT, "t.jinja: is not UTF-8");
}

static void test_limits(void **state) {
    (void)state;
    expect_failure("{% set r = range(99999) %}{% for a in r %}{{ r | sum }}{% endfor %}", TM_INVALID,
                   "t.jinja: line 1: the template takes too many steps");
    expect_failure("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
                   TM_INVALID, "t.jinja: line 1: the template takes too much memory");
    expect_failure("{% macro f() %}\n{{ f() }}{% endmacro %}{{ f() }}", TM_INVALID,
                   "t.jinja: line 2: the template nests too deeply");
    expect_failure(
        "{% set ns = namespace(x=1) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        TM_INVALID, "t.jinja: line 1: the template nests too deeply");
    expect_failure("{{ 'a' * 2 ** 60 }}", TM_INVALID, "t.jinja: line 1: the template takes too many steps");
    expect_failure("{{ range(100001) }}", TM_INVALID,
                   "t.jinja: line 1: the sandbox blocks ranges of more than 100000 elements");
    char brackets[2100] = "{{ ";
    memset(brackets + 3, '(', 1000);
    memcpy(brackets + 1003, "1 }}", 5);
    expect_failure(brackets, TM_FORMAT, "t.jinja: line 1: brackets are nested too deeply");
    tm_template *template = NULL;
    char *huge = calloc(1, 2 << 20);
    memset(huge, 'a', (2 << 20) - 1);
    assert_int_equal(tm_template_parse(NULL, huge, (2 << 20) - 1, &template), TM_FORMAT);
    free(huge);
}

static void test_out_of_memory(void **state) {
    (void)state;
    static const char source[] =
        "{% macro f(a, b=1) %}{{ a }}{{ varargs }}{% endmacro %}{% set ns = namespace(x=[]) %}{% for m in messages if "
        "m.content %}{% generation %}{{ f(m.role, 2, 3) | upper }}{% endgeneration %}{% set ns.x = ns.x + [m] %}{% "
        "endfor "
        "%}{{ ns.x | tojson }}{% set t %}{{ 'a,b'.split(',') | join('-') }}{% endset %}{{ t ~ x }}";
    for (long n = 1;; n++) {
        tm_template *template = NULL;
        char *text = NULL;
        tm__stretches stretches = {0};
        const tm__render_options options = {.variables = "{\"x\": [1]}", .variables_len = 10, .now = -1};
        tm__alloc_fail_at(n, false);
        tm_status status = tm_template_parse(NULL, source, sizeof source - 1, &template);
        if (status == TM_OK) status = tm__template_render(template, talk, 2, true, &options, &text, NULL, &stretches);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (failed) assert_int_equal(status, TM_NO_MEMORY);
        if (status != TM_OK) assert_null(text);
        free(text);
        free(stretches.data);
        tm_template_free(template);
        if (!failed) {
            assert_ok(status);
            break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_public), cmocka_unit_test(test_errors),
                                       cmocka_unit_test(test_limits), cmocka_unit_test(test_out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
