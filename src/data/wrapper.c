/* wrapper.c: a system message and a frame around every user message, kept in a file.
 *
 *   {"system": "You are ...", "prompt": "..., carry out this instruction: {prompt}"}
 *
 * Attacks that train with such a frame write it, and asking the attacked model needs the same one. `{prompt}` stands
 * once and is replaced by what the user said; `system` takes the place of a row's own and may be "" for none.
 */
#include "data/data.h"

#include <jansson.h>
#include <stdlib.h>

static const char mark[] = "{prompt}";

tm_status tm__wrapper_apply(const tm__wrapper *wrapper, const tm_message *messages, size_t n, tm_dataset *to,
                            const char *category) {
    const char *at = strstr(wrapper->prompt, mark);
    tm_message *made = tm__alloc(n + 1, sizeof *made);
    tm__arena texts = {0};
    tm_status status = made && at ? TM_OK : tm__fail_memory();
    size_t count = 0, before = at ? (size_t)(at - wrapper->prompt) : 0;
    if (status == TM_OK && *wrapper->system) made[count++] = (tm_message){"system", wrapper->system};
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        if (strcmp(messages[i].role, "system") == 0) continue;
        made[count] = messages[i];
        if (strcmp(messages[i].role, "user") == 0) {
            size_t len = strlen(messages[i].content), after = strlen(at) - strlen(mark);
            char *text = tm__arena_alloc(&texts, before + len + after + 1, 1);
            if (!text) {
                status = tm__fail_memory();
                break;
            }
            memcpy(text, wrapper->prompt, before);
            memcpy(text + before, messages[i].content, len);
            memcpy(text + before + len, at + strlen(mark), after);
            made[count].content = text;
        }
        count++;
    }
    if (status == TM_OK) status = tm__dataset_add(to, made, count, category);
    tm__arena_release(&texts);
    free(made);
    return status;
}

tm_status tm__wrapper_save(const tm__wrapper *wrapper, const char *path) {
    char *text = NULL;
    size_t len;
    tm__json_watch();
    json_t *root = json_pack("{s:s, s:s}", "system", wrapper->system, "prompt", wrapper->prompt);
    tm_status status = root ? tm__json_dump(root, 0, &text, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text, len);
    json_decref(root);
    free(text);
    return status;
}

static tm_status check(const tm__wrapper *wrapper, const char *path) {
    const char *at = strstr(wrapper->prompt, mark);
    if (at && !strstr(at + 1, mark)) return TM_OK;
    return tm__fail(TM_FORMAT, path, "prompt", "{prompt} stands where the user's words go", "must hold {prompt} once");
}

tm_status tm_dataset_with_wrapper(const tm_dataset *dataset, const char *path, tm_dataset **with) {
    json_t *root = NULL;
    tm__wrapper wrapper;
    tm_dataset *made = NULL;
    TM__TRY(tm__json_load(path, &root));
    tm_status status = json_is_object(root) ? TM_OK : tm__fail(TM_FORMAT, path, NULL, NULL, "must be a JSON object");
    if (status == TM_OK) status = tm__json_text(root, path, "system", "", &wrapper.system);
    if (status == TM_OK) status = tm__json_text(root, path, "prompt", NULL, &wrapper.prompt);
    if (status == TM_OK) status = check(&wrapper, path);
    if (status == TM_OK) status = tm_dataset_create(&made);
    for (size_t i = 0; status == TM_OK && i < dataset->count; i++) {
        const tm__dataset_row *row = &dataset->rows[i];
        status = tm__wrapper_apply(&wrapper, row->messages, row->count, made, row->category);
    }
    json_decref(root);
    if (status == TM_OK)
        *with = made;
    else
        tm_dataset_free(made);
    return status;
}
