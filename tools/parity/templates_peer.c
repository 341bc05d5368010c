/* templates_peer.c: renders what tools/parity/templates.py sends, for comparison with Jinja2.
 *
 * Reads JSON Lines {"template", "messages", "ask", "variables", "now"}; answers each with {"text", "stretches"} or
 * {"error", "status"}. "now" fixes the clock.
 */
#include "template/template.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *failure(void) {
    const tm_error *error = tm_error_last();
    return json_pack("{s:s, s:s, s:s}", "error", error->line, "status", tm_status_name(error->status), "message",
                     error->message);
}

static json_t *stretches_json(const tm__stretches *stretches) {
    json_t *list = json_array();
    for (size_t i = 0; i < stretches->len; i++)
        json_array_append_new(
            list, json_pack("[I, I]", (json_int_t)stretches->data[i].start, (json_int_t)stretches->data[i].end));
    return list;
}

static json_t *render(const tm_template *template, const json_t *request) {
    const json_t *list = json_object_get(request, "messages"), *entry;
    size_t n = json_array_size(list), i;
    tm_message *messages = calloc(n + 1, sizeof *messages);
    json_array_foreach(list, i, entry) {
        messages[i].role = json_string_value(json_object_get(entry, "role"));
        messages[i].content = json_string_value(json_object_get(entry, "content"));
    }
    char *variables = json_dumps(json_object_get(request, "variables"), 0), *text = NULL;
    const json_t *now = json_object_get(request, "now");
    tm__render_options options = {.variables = variables,
                                  .variables_len = variables ? strlen(variables) : 0,
                                  .now = now ? json_integer_value(now) : -1};
    tm__stretches stretches = {0};
    size_t len;
    bool ask = json_is_true(json_object_get(request, "ask"));
    tm_status status = tm__template_render(template, messages, n, ask, &options, &text, &len, &stretches);
    json_t *answer = status == TM_OK ? json_pack("{s:o, s:o}", "text", json_stringn(text, len), "stretches",
                                                 stretches_json(&stretches))
                                     : failure();
    free(stretches.data);
    free(text);
    free(variables);
    free(messages);
    return answer;
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        json_t *request = json_loadb(line, (size_t)len, 0, NULL), *answer;
        const char *source = json_string_value(json_object_get(request, "template"));
        tm_template *template = NULL;
        if (!source) return 2;
        tm_status status =
            tm_template_parse("template", source, json_string_length(json_object_get(request, "template")), &template);
        answer = status == TM_OK ? render(template, request) : failure();
        char *text = json_dumps(answer, JSON_COMPACT);
        puts(text ? text : "{}");
        fflush(stdout);
        free(text);
        json_decref(answer);
        json_decref(request);
        tm_template_free(template);
    }
    free(line);
    return 0;
}
