/* The published chat templates beside the shared tokenizers: every conversation of tests/golden/templates/ gives the
 * text (by its hash) or the refusal that Jinja2 gives. The templates themselves are read from ../shared. */
#include "../golden/template_cases.h"

#include "base/sha256.h"

static char *source_of(const char *name, size_t *len) {
    char path[128], *text = NULL;
    snprintf(path, sizeof path, "tokenizers/%s", name);
    const char *full = test_shared(path);
    if (!full) fail_msg("shared input %s is absent", path);
    if (strstr(name, ".jinja")) {
        assert_ok(tm__file_read(full, 0, &text, len));
        return text;
    }
    json_t *config = NULL;
    assert_ok(tm__json_load(full, (struct json_t **)&config));
    const char *template = json_string_value(json_object_get(config, "chat_template"));
    assert_non_null(template);
    text = tm__strdup(template);
    *len = strlen(template);
    json_decref(config);
    return text;
}

static void check(const json_t *head, const json_t *conversations, const json_t *want) {
    const char *file = json_string_value(json_object_get(want, "template")),
               *key = json_string_value(json_object_get(want, "conversation"));
    char name[160], hex[65], *got = NULL;
    bool ask = json_is_true(json_object_get(want, "ask"));
    size_t len = 0, source_len;
    char *source = source_of(file, &source_len);
    snprintf(name, sizeof name, "%s on %s%s", file, key, ask ? ", asked" : "");
    const json_t *variables = json_object_get(json_object_get(head, "variables"), file);
    tm_status status =
        template_render(source, source_len, json_object_get(conversations, key), ask, variables, -1, &got, &len, NULL);
    free(source);
    if (json_object_get(want, "error")) {
        expect_refusal(name, want, status);
        return;
    }
    if (status != TM_OK) fail_msg("%s: %s", name, tm_error_last()->line);
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, got, len);
    tm__sha256_hex(&hash, hex);
    if ((json_int_t)len != json_integer_value(json_object_get(want, "bytes")) ||
        strcmp(hex, json_string_value(json_object_get(want, "sha256"))) != 0)
        fail_msg("%s: another text than the reference's:\n%s", name, got);
    free(got);
}

static void test_published(void **state) {
    (void)state;
    json_t *head = template_cases("golden/templates/shared.json"),
           *constructs = template_cases("golden/templates/constructs.json");
    const json_t *cases = json_object_get(head, "cases"), *want;
    size_t i;
    assert_true(json_array_size(cases) > 300);
    json_array_foreach(cases, i, want) check(head, json_object_get(constructs, "conversations"), want);
    json_decref(head);
    json_decref(constructs);
}

int main(void) {
    TEST_NEEDS_SHARED("tokenizers/qwen3/tokenizer_config.json");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_published)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
