/* reply_cache.c: replies of an endpoint by the SHA-256 of what was asked, so that no question is paid for twice.
 *
 * DIR/KEY.json: {"key", "model", "text", "sha256" of the text}. Key and hash are checked on reading; what does not fit
 * counts as absent and is replaced. The address is not part of the key: the same model may answer at several.
 * Test: tests/fault/test_endpoint.c.
 */
#include "judge/endpoint.h"

#include <jansson.h>
#include <stdlib.h>

enum { MAX_ENTRY = 16 << 20 };

static char *entry_path(const char *directory, const char *key) {
    return tm__format("%s/%s.json", directory, key);
}

static void hash_text(const char *text, size_t len, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, text, len);
    tm__sha256_hex(&hash, hex);
}

/* NULL: the entry is not what was put there. */
static const char *checked_text(const json_t *entry, const char *key) {
    const json_t *text = json_object_get(entry, "text");
    const char *named = json_string_value(json_object_get(entry, "key"));
    const char *sum = json_string_value(json_object_get(entry, "sha256"));
    char hex[65];
    if (!named || !sum || !json_is_string(text) || strcmp(named, key) != 0) return NULL;
    hash_text(json_string_value(text), json_string_length(text), hex);
    return strcmp(sum, hex) == 0 && strlen(json_string_value(text)) == json_string_length(text)
               ? json_string_value(text)
               : NULL;
}

tm_status tm__reply_cache_get(const char *directory, const char *key, char **text) {
    char *path = entry_path(directory, key), *data = NULL;
    size_t len = 0;
    json_t *entry = NULL;
    *text = NULL;
    if (!path) return tm__fail_memory();
    if (!tm__path_exists(path)) {
        free(path);
        return TM_OK;
    }
    tm_status status = tm__file_read(path, MAX_ENTRY, &data, &len);
    if (status == TM_OK) status = tm__json_parse(data, len, path, &entry);
    const char *found = status == TM_OK ? checked_text(entry, key) : NULL;
    if (found && !(*text = tm__strdup(found))) status = tm__fail_memory();
    json_decref(entry);
    free(data);
    free(path);
    return status == TM_NO_MEMORY ? status : TM_OK;
}

tm_status tm__reply_cache_put(const char *directory, const char *key, const char *model, const char *text) {
    char sum[65], *data = NULL;
    size_t len = 0;
    hash_text(text, strlen(text), sum);
    tm__json_watch();
    json_t *entry = json_pack("{s:s, s:s, s:s, s:s}", "key", key, "model", model, "text", text, "sha256", sum);
    if (!entry) return tm__fail_memory();
    char *path = entry_path(directory, key);
    tm_status status = path ? tm__json_dump(entry, JSON_INDENT(1), &data, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, data, len);
    free(data);
    free(path);
    json_decref(entry);
    return status;
}
