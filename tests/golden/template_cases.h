/* template_cases.h: rendering what tools/golden/templates.py stored, and comparing. */
#ifndef TM_TEST_TEMPLATE_CASES_H
#define TM_TEST_TEMPLATE_CASES_H

#include "support.h"
#include "template/template.h"

#include <jansson.h>

enum { MESSAGES = 32 };

static inline json_t *template_cases(const char *file) {
    json_t *json = NULL;
    assert_ok(tm__json_load(test_path(file), (struct json_t **)&json));
    return json;
}

static inline size_t template_messages(const json_t *conversation, tm_message messages[MESSAGES]) {
    size_t n;
    const json_t *entry;
    assert_true(json_array_size(conversation) <= MESSAGES);
    json_array_foreach(conversation, n, entry) {
        messages[n].role = json_string_value(json_object_get(entry, "role"));
        messages[n].content = json_string_value(json_object_get(entry, "content"));
    }
    return json_array_size(conversation);
}

/* Parses and renders. `now` as in tm__render_options. */
static inline tm_status template_render(const char *source, size_t len, const json_t *conversation, bool ask,
                                        const json_t *variables, int64_t now, char **text, size_t *text_len,
                                        tm__stretches *stretches) {
    tm_template *template = NULL;
    tm_message messages[MESSAGES];
    size_t n = template_messages(conversation, messages);
    char *json = variables ? json_dumps(variables, 0) : NULL;
    tm__render_options options = {.variables = json, .variables_len = json ? strlen(json) : 0, .now = now};
    tm_status status = tm_template_parse("golden", source, len, &template);
    if (status == TM_OK) status = tm__template_render(template, messages, n, ask, &options, text, text_len, stretches);
    tm_template_free(template);
    free(json);
    return status;
}

/* The reference refuses too: with the same words where they are the template's own (raise_exception). */
static inline void expect_refusal(const char *name, const json_t *want, tm_status status) {
    const char *kind = json_string_value(json_object_get(want, "error"));
    if (status == TM_OK) fail_msg("%s: the reference refuses it (%s)", name, kind);
    bool raised = strcmp(kind, "raise") == 0;
    if (raised && (status != TM_INVALID ||
                   strcmp(tm_error_last()->message, json_string_value(json_object_get(want, "message"))) != 0))
        fail_msg("%s: %s", name, tm_error_last()->line);
    bool located = status == TM_UNSUPPORTED || strncmp(tm_error_last()->field, "line ", 5) == 0;
    if (!located) fail_msg("%s: no line in %s", name, tm_error_last()->line);
    if (strcmp(kind, "syntax") == 0 && status == TM_INVALID) fail_msg("%s: %s", name, tm_error_last()->line);
}

#endif
