/* Every construct of the template interpreter against Jinja2 as transformers sets it up: tests/golden/templates/, which
 * tools/golden/templates.py writes. */
#include "template_cases.h"

static void check(const json_t *head, const json_t *want) {
    const char *name = json_string_value(json_object_get(want, "name")),
               *key = json_string_value(json_object_get(want, "conversation"));
    const json_t *source = json_object_get(want, "template"), *text = json_object_get(want, "text"),
                 *spans = json_object_get(want, "stretches");
    tm__stretches stretches = {0};
    char *got = NULL;
    size_t len = 0;
    tm_status status = template_render(json_string_value(source), json_string_length(source),
                                       json_object_get(json_object_get(head, "conversations"), key ? key : "long"),
                                       json_is_true(json_object_get(want, "ask")), json_object_get(want, "variables"),
                                       json_integer_value(json_object_get(head, "now")), &got, &len, &stretches);
    if (!text) {
        expect_refusal(name, want, status);
        return;
    }
    if (status != TM_OK) fail_msg("%s: %s", name, tm_error_last()->line);
    if (len != json_string_length(text) || memcmp(got, json_string_value(text), len) != 0)
        fail_msg("%s:\nwant %s\ngot  %s", name, json_string_value(text), got);
    assert_int_equal(stretches.len, json_array_size(spans));
    for (size_t i = 0; i < stretches.len; i++) {
        const json_t *span = json_array_get(spans, i);
        assert_int_equal(stretches.data[i].start, json_integer_value(json_array_get(span, 0)));
        assert_int_equal(stretches.data[i].end, json_integer_value(json_array_get(span, 1)));
    }
    free(stretches.data);
    free(got);
}

static void test_constructs(void **state) {
    (void)state;
    json_t *head = template_cases("golden/templates/constructs.json");
    const json_t *cases = json_object_get(head, "cases"), *want;
    size_t i;
    assert_true(json_array_size(cases) > 250);
    json_array_foreach(cases, i, want) check(head, want);
    json_decref(head);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_constructs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
