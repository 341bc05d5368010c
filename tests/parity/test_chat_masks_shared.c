/* Which tokens of a conversation are trained on, and which ids it has, in the formats of published chat templates, with
 * published tokenizers: against transformers' text and the offsets of Hugging Face's tokenizers, as
 * tools/golden/chat_masks.py found them. Templates and tokenizers are read from ../shared. */
#include "../golden/template_cases.h"

#include "base/sha256.h"
#include "tokenizer/chat.h"

static const char *in_folder(const char *name) {
    char path[160];
    snprintf(path, sizeof path, "tokenizers/%s", name);
    const char *full = test_shared(path);
    if (!full) fail_msg("shared input %s is absent", path);
    return full;
}

/* --template takes a file, so a template of a configuration or of the fixture becomes one. */
static void choose(tm_tokenizer *tok, const char *template, const json_t *variables) {
    char *path = tm__path_join(test_scratch(), "chosen.jinja"), *json = json_dumps(variables, 0);
    json_t *config = NULL;
    assert_non_null(path);
    if (strchr(template, '{')) {
        assert_ok(tm__file_write(path, template, strlen(template)));
    } else if (strstr(template, ".jinja")) {
        free(path);
        path = tm__strdup(in_folder(template));
    } else {
        assert_ok(tm__json_load(in_folder(template), (struct json_t **)&config));
        const char *source = json_string_value(json_object_get(config, "chat_template"));
        assert_ok(tm__file_write(path, source, strlen(source)));
    }
    assert_ok(tm_tokenizer_use_template(tok, path, json));
    json_decref(config);
    free(json);
    free(path);
}

static void check_ids(const char *name, const tm_ids *ids, const json_t *want) {
    char hex[65];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, ids->data, ids->len * sizeof *ids->data);
    tm__sha256_hex(&hash, hex);
    if ((json_int_t)ids->len != json_integer_value(json_object_get(want, "count")) ||
        strcmp(hex, json_string_value(json_object_get(want, "sha256"))) != 0)
        fail_msg("%s: other ids than the reference's (%zu)", name, ids->len);
}

static void check_labels(const char *name, const tm_ids *ids, const tm_ids *labels, const json_t *runs) {
    size_t run = 0;
    assert_int_equal(ids->len, labels->len);
    for (size_t t = 0; t < ids->len; t++) {
        const json_t *now = json_array_get(runs, run);
        json_int_t first = json_integer_value(json_array_get(now, 0)), end = json_integer_value(json_array_get(now, 1));
        bool trained = now && (json_int_t)t >= first && (json_int_t)t < end;
        if (labels->data[t] != (trained ? ids->data[t] : -100))
            fail_msg("%s: token %zu %s", name, t, trained ? "is not trained on" : "is trained on");
        run += now && (json_int_t)t + 1 == end;
    }
    assert_int_equal(run, json_array_size(runs));
}

static void check(const tm_tokenizer *tok, const char *template, const json_t *conversations, const json_t *want) {
    const char *key = json_string_value(json_object_get(want, "conversation"));
    tm_message messages[MESSAGES];
    tm_ids ids = {0}, labels = {0};
    size_t split = 0, n = template_messages(json_object_get(conversations, key), messages);
    char name[160];
    snprintf(name, sizeof name, "%.80s on %s", template, key);
    tm_status status = tm__chat_encode(tok, TM_CHAT_TEMPLATE, messages, n, false, &ids, &labels, &split);
    if (status != TM_OK) fail_msg("%s: %s", name, tm_error_last()->line);
    check_ids(name, &ids, want);
    check_labels(name, &ids, &labels, json_object_get(want, "trained"));
    if ((json_int_t)split != json_integer_value(json_object_get(want, "split")))
        fail_msg("%s: %zu tokens across a border", name, split);
    tm_ids_free(&ids);
    tm_ids_free(&labels);
}

static void test_masks(void **state) {
    (void)state;
    json_t *head = template_cases("golden/templates/masks.json"),
           *constructs = template_cases("golden/templates/constructs.json");
    const json_t *sets = json_object_get(head, "sets"), *set, *want;
    size_t i, j, rows = 0;
    json_array_foreach(sets, i, set) {
        tm_tokenizer *tok = NULL;
        const char *template = json_string_value(json_object_get(set, "template"));
        assert_ok(tm_tokenizer_load(in_folder(json_string_value(json_object_get(set, "tokenizer"))), &tok));
        choose(tok, template, json_object_get(set, "variables"));
        json_array_foreach(json_object_get(set, "rows"), j, want) {
            check(tok, template, json_object_get(constructs, "conversations"), want);
            rows++;
        }
        tm_tokenizer_free(tok);
    }
    assert_true(rows > 120);
    json_decref(head);
    json_decref(constructs);
}

int main(void) {
    TEST_NEEDS_SHARED("tokenizers/qwen3/tokenizer_config.json");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
