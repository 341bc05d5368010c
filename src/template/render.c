/* render.c: templates as objects: parsing one, rendering a conversation with it within limits.
 *
 * The result is what transformers' apply_chat_template(tokenize=False) gives: an ImmutableSandboxedEnvironment with
 * trim_blocks, lstrip_blocks, loop controls, `generation`, tojson without HTML escapes, raise_exception, strftime_now.
 * Pinned by tests/golden/test_templates.c (Jinja2's own results) and tests/unit/test_template.c.
 */
#include "template/interpreter.h"

#include <jansson.h>
#include <stdlib.h>

enum { SOURCE_MOST = 1 << 20 };

const tm__limits tm__template_limits = {.steps = 20000000, .bytes = (size_t)256 << 20, .depth = 400};

/* ---- limits and errors ------------------------------------------------------------------------------------------- */

tm_status tm__run_fail(tm__run *run, tm_status status, const char *format, ...) {
    char message[384], field[32];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(field, sizeof field, "line %d", run->line);
    return tm__fail(status, run->template->name, field, NULL, "%s", message);
}

tm_status tm__run_alloc(tm__run *run, size_t count, size_t size, void *pointer_out) {
    if (count > SIZE_MAX / 2 / size || count * size + 16 > run->left.bytes)
        return tm__run_fail(run, TM_INVALID, "the template takes too much memory");
    void *memory = tm__arena_alloc(&run->arena, count, size);
    if (!memory) return tm__fail_memory();
    run->left.bytes -= count * size + 16;
    memcpy(pointer_out, &memory, sizeof memory);
    return TM_OK;
}

tm_status tm__run_step(tm__run *run, size_t cost) {
    if ((uint64_t)cost > (uint64_t)run->left.steps)
        return tm__run_fail(run, TM_INVALID, "the template takes too many steps");
    run->left.steps -= (int64_t)cost;
    return TM_OK;
}

tm_status tm__run_deeper(tm__run *run) {
    if (run->left.depth <= 0) return tm__run_fail(run, TM_INVALID, "the template nests too deeply");
    run->left.depth--;
    return TM_OK;
}

/* ---- a template -------------------------------------------------------------------------------------------------- */

tm_status tm_template_parse(const char *name, const char *source, size_t len, tm_template **template) {
    tm_template *made = tm__zalloc(1, sizeof *made);
    tm_status status = made && (made->name = tm__strdup(name ? name : "template")) ? TM_OK : tm__fail_memory();
    tm__parser parser = {.template = made};
    if (status == TM_OK && len > SOURCE_MOST)
        status = tm__fail(TM_FORMAT, made->name, NULL, NULL, "is longer than %d bytes", SOURCE_MOST);
    if (status == TM_OK) status = tm__template_lex(made->name, source, len, &made->arena, &parser.tokens);
    if (status == TM_OK) status = tm__parse_body(&parser);
    free(parser.tokens.data);
    tm__map_free(&parser.interned);
    if (status == TM_OK)
        *template = made;
    else
        tm_template_free(made);
    return status;
}

void tm_template_free(tm_template *template) {
    if (!template) return;
    tm__arena_release(&template->arena);
    free(template->name);
    free(template);
}

const char *tm__template_name(const tm_template *template) {
    return template->name;
}

bool tm__template_marks(const tm_template *template) {
    return template->generation;
}

/* ---- a rendering ------------------------------------------------------------------------------------------------- */

static tm_status put_text(tm__run *run, tm__dict *dict, const char *name, const char *text) {
    tm__value key, value;
    if (!tm__utf8_valid(text, strlen(text)))
        return tm__fail(TM_INVALID, NULL, "messages", NULL, "the %s of a message is not UTF-8", name);
    TM__TRY(tm__value_text(run, name, strlen(name), &key));
    TM__TRY(tm__value_text(run, text, strlen(text), &value));
    return tm__dict_put(run, dict, &key, value);
}

static tm_status put_global(tm__run *run, tm__dict *globals, const char *name, tm__value value) {
    tm__value key;
    TM__TRY(tm__value_text(run, name, strlen(name), &key));
    return tm__dict_put(run, globals, &key, value);
}

static tm_status put_variables(tm__run *run, tm__dict *globals, const tm__render_options *options) {
    json_t *json = NULL;
    const char *key;
    json_t *item;
    if (!options->variables) return TM_OK;
    TM__TRY(tm__json_parse(options->variables, options->variables_len, "template variables", &json));
    tm_status status = TM_OK;
    if (!json_is_object(json))
        status = tm__fail(TM_FORMAT, "template variables", NULL, NULL, "must be a JSON object");
    else
        json_object_foreach(json, key, item) {
            tm__value value;
            status = tm__json_value(run, item, &value);
            if (status == TM_OK) status = put_global(run, globals, key, value);
            if (status != TM_OK) break;
        }
    json_decref(json);
    return status;
}

/* What a template sees: messages, tools, documents, add_generation_prompt, and the variables, which come first. */
static tm_status make_globals(tm__run *run, const tm_message *messages, size_t n, bool ask,
                              const tm__render_options *options) {
    tm__value globals, list;
    TM__TRY(tm__value_dict(run, TM__DICT, &globals));
    TM__TRY(tm__value_items(run, TM__LIST, n, &list));
    for (size_t i = 0; i < n; i++) {
        tm__value message;
        TM__TRY(tm__value_dict(run, TM__DICT, &message));
        TM__TRY(put_text(run, message.dict, "role", messages[i].role));
        TM__TRY(put_text(run, message.dict, "content", messages[i].content));
        TM__TRY(tm__items_push(run, list.items, message));
    }
    TM__TRY(put_global(run, globals.dict, "messages", list));
    TM__TRY(put_global(run, globals.dict, "tools", tm__none()));
    TM__TRY(put_global(run, globals.dict, "documents", tm__none()));
    TM__TRY(put_global(run, globals.dict, "add_generation_prompt", tm__truth(ask)));
    TM__TRY(put_variables(run, globals.dict, options));
    run->globals = globals.dict;
    return TM_OK;
}

tm_status tm__template_render(const tm_template *template, const tm_message *messages, size_t n, bool ask,
                              const tm__render_options *options, char **text, size_t *len, tm__stretches *stretches) {
    static const tm__render_options none = {.now = -1};
    if (!options) options = &none;
    tm__run run = {.template = template, .now = options->now};
    run.left = options->limits ? *options->limits : tm__template_limits;
    run.out = &run.root;
    tm_status status = make_globals(&run, messages, n, ask, options);
    if (status == TM_OK) status = tm__scope_push(&run, NULL);
    if (status == TM_OK) status = tm__exec(&run, &template->body);
    if (status == TM_OK && stretches && run.hidden)
        status = tm__fail(TM_UNSUPPORTED, template->name, "generation", NULL,
                          "a generation tag stands in a macro or a captured block");
    char *copy = status == TM_OK ? tm__strndup(run.root.data ? run.root.data : "", run.root.len) : NULL;
    if (status == TM_OK && !copy) status = tm__fail_memory();
    if (status == TM_OK) {
        *text = copy;
        if (len) *len = run.root.len;
    }
    if (status == TM_OK && stretches)
        *stretches = run.stretches;
    else
        free(run.stretches.data);
    tm__arena_release(&run.arena);
    return status;
}

tm_status tm_template_render(const tm_template *template, const tm_message *messages, size_t n, bool ask,
                             const char *variables, char **text, size_t *len) {
    tm__render_options options = {
        .variables = variables, .variables_len = variables ? strlen(variables) : 0, .now = -1};
    for (size_t i = 0; i < n; i++)
        if (!messages[i].role || !messages[i].content)
            return tm__fail(TM_INVALID, NULL, "messages", NULL, "message %zu has no %s", i,
                            messages[i].role ? "content" : "role");
    return tm__template_render(template, messages, n, ask, &options, text, len, NULL);
}
