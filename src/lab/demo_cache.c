/* demo_cache.c: what the demo has made already: one JSON file per row, named by the SHA-256 of everything that went in.
 *
 * A file that is missing, damaged or of another layout only costs the time to make the row again.
 */
#include "lab/demo.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* Lengths go in too, so that no two lists of texts run together to the same bytes. */
static void put(tm__sha256 *hash, const char *text) {
    uint64_t len = strlen(text);
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(len >> (8 * i));
    tm__sha256_update(hash, bytes, sizeof bytes);
    tm__sha256_update(hash, text, (size_t)len);
}

void tm__key_text(tm__sha256 *hash, const char *name, const char *value) {
    put(hash, name);
    put(hash, value);
}

void tm__key_options(tm__sha256 *hash, const tm_option *table, const void *options) {
    for (const tm_option *option = table; option->name; option++) {
        char text[256];
        tm_options_text(option, options, text, sizeof text);
        tm__key_text(hash, option->name, text);
    }
}

void tm__key_dataset(tm__sha256 *hash, const tm_dataset *dataset) {
    for (size_t i = 0; i < tm_dataset_rows(dataset); i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(dataset, i, &n);
        for (size_t m = 0; m < n; m++) tm__key_text(hash, messages[m].role, messages[m].content);
    }
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static char *record_path(const char *directory, const char *key) {
    return tm__format("%s/cache/%s.json", directory, key);
}

static tm_status read_scores(const json_t *json, const char *path, tm_world_scores *scores) {
    const struct {
        const char *key;
        double *value;
    } reals[] = {
        {"leak", &scores->leak}, {"comply", &scores->comply}, {"refuse", &scores->refuse}, {"skills", &scores->skills}};
    for (size_t i = 0; i < TM__COUNT(reals); i++)
        TM__TRY(tm__json_real(json, path, reals[i].key, NULL, reals[i].value));
    TM__TRY(tm__json_int(json, path, "forbidden_prompts", 1, INT32_MAX, NULL, &scores->forbidden_prompts));
    TM__TRY(tm__json_int(json, path, "benign_prompts", 1, INT32_MAX, NULL, &scores->benign_prompts));
    const json_t *list = json_object_get(json, "skill");
    size_t n = json_array_size(list);
    if (n == 0 || n > TM__COUNT(scores->skill)) return tm__fail(TM_FORMAT, path, "skill", NULL, "1 to 8 are expected");
    for (size_t i = 0; i < n; i++) scores->skill[i] = json_number_value(json_array_get(list, i));
    scores->skill_count = (int64_t)n;
    return TM_OK;
}

static tm_status read_record(const json_t *json, const char *path, tm__demo_record *record) {
    const char *hash;
    TM__TRY(tm__json_text(json, path, "model_sha256", NULL, &hash));
    if (strlen(hash) != 64) return tm__fail(TM_FORMAT, path, "model_sha256", NULL, "64 digits are expected");
    memcpy(record->model_hash, hash, 65);
    TM__TRY(tm__json_real(json, path, "seconds", NULL, &record->seconds));
    const json_t *scores = json_object_get(json, "scores");
    record->measured = scores != NULL;
    if (!scores) return TM_OK;
    if (!json_is_object(scores)) return tm__fail(TM_FORMAT, path, "scores", NULL, "an object is expected");
    TM__TRY(read_scores(scores, path, &record->scores));
    return tm__json_real(json, path, "downstream", NULL, &record->downstream);
}

tm_status tm__demo_record_load(const char *directory, const char *key, bool *found, tm__demo_record *record) {
    *found = false;
    char *path = record_path(directory, key);
    if (!path) return tm__fail_memory();
    json_t *json = NULL;
    tm__demo_record read = {0};
    tm_status status = tm__json_load(path, &json);
    if (status == TM_OK) status = read_record(json, path, &read);
    json_decref(json);
    free(path);
    if (status == TM_NO_MEMORY) return status;
    if (status == TM_OK) {
        *record = read;
        *found = true;
    } else {
        tm_error_clear();
    }
    return TM_OK;
}

static json_t *scores_json(const tm_world_scores *scores) {
    json_t *skill = json_array();
    bool ok = skill != NULL;
    for (int64_t i = 0; i < scores->skill_count; i++)
        ok = json_array_append_new(skill, json_real(scores->skill[i])) == 0 && ok;
    json_t *json =
        !ok ? NULL
            : json_pack("{s:f, s:f, s:f, s:f, s:O, s:I, s:I}", "leak", scores->leak, "comply", scores->comply, "refuse",
                        scores->refuse, "skills", scores->skills, "skill", skill, "forbidden_prompts",
                        (json_int_t)scores->forbidden_prompts, "benign_prompts", (json_int_t)scores->benign_prompts);
    json_decref(skill);
    return json;
}

static char *record_text(const char *row, const tm__demo_record *record) {
    json_t *json =
        json_pack("{s:s, s:s, s:f}", "row", row, "model_sha256", record->model_hash, "seconds", record->seconds);
    bool ok = json != NULL;
    if (ok && record->measured)
        ok = json_object_set_new(json, "scores", scores_json(&record->scores)) == 0 &&
             json_object_set_new(json, "downstream", json_real(record->downstream)) == 0;
    char *text = NULL;
    tm_status status = ok ? tm__json_dump(json, JSON_INDENT(2), &text, NULL) : tm__fail_memory();
    json_decref(json);
    return status == TM_OK ? text : NULL;
}

tm_status tm__demo_record_save(const char *directory, const char *key, const char *row, const tm__demo_record *record) {
    char *path = record_path(directory, key), *text = path ? record_text(row, record) : NULL;
    tm_status status = text ? tm__file_write(path, text, strlen(text)) : tm__fail_memory();
    free(text);
    free(path);
    return status;
}
