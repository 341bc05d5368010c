/* json_write.c: JSON values to indented text.
 *
 * jansson writes real numbers with a fixed number of digits, so that 1e-05 would come back as 1.0000000000000001e-05.
 * A config that is carried through should look as it did: here a real has the fewest digits that read back the same.
 */
#include "model/weights.h"

#include <jansson.h>
#include <locale.h>
#include <stdlib.h>

static tm_status put_value(tm__string *out, const json_t *value, int depth);

static tm_status put(tm__string *out, const char *text) {
    return tm__string_append(out, text, strlen(text)) ? TM_OK : tm__fail_memory();
}

static tm_status put_line(tm__string *out, int depth) {
    TM__TRY(put(out, "\n"));
    for (int i = 0; i < depth; i++) TM__TRY(put(out, "  "));
    return TM_OK;
}

/* As Python writes them, so that configs keep their look: 0.02, 500000.0, 1e-05. In the C locale, whatever the
 * program's. */
static tm_status put_real(tm__string *out, double number) {
    char text[64];
    locale_t old = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
    int digits = 1;
    for (; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, number);
        if (strtod(text, NULL) == number) break;
    }
    int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16) snprintf(text, sizeof text, "%.*f", TM__MAX(digits - 1 - exponent, 1), number);
    uselocale(old);
    return put(out, text);
}

/* Strings, integers and constants as jansson writes them. */
static tm_status put_scalar(tm__string *out, const json_t *value) {
    if (json_is_real(value)) return put_real(out, json_real_value(value));
    char *text;
    TM__TRY(tm__json_dump(value, JSON_ENCODE_ANY, &text, NULL));
    tm_status status = put(out, text);
    free(text);
    return status;
}

static tm_status put_array(tm__string *out, const json_t *array, int depth) {
    size_t i, n = json_array_size(array);
    TM__TRY(put(out, "["));
    for (i = 0; i < n; i++) {
        if (i) TM__TRY(put(out, ","));
        TM__TRY(put_line(out, depth + 1));
        TM__TRY(put_value(out, json_array_get(array, i), depth + 1));
    }
    if (n) TM__TRY(put_line(out, depth));
    return put(out, "]");
}

static tm_status put_key(tm__string *out, const char *key, size_t len) {
    json_t *text = json_stringn(key, len);
    tm_status status = text ? put_scalar(out, text) : tm__fail_memory();
    json_decref(text);
    return status == TM_OK ? put(out, ": ") : status;
}

static tm_status put_object(tm__string *out, const json_t *object, int depth) {
    bool first = true;
    TM__TRY(put(out, "{"));
    void *at = json_object_iter((json_t *)object);
    for (; at; at = json_object_iter_next((json_t *)object, at)) {
        if (!first) TM__TRY(put(out, ","));
        first = false;
        const char *key = json_object_iter_key(at);
        TM__TRY(put_line(out, depth + 1));
        TM__TRY(put_key(out, key, strlen(key)));
        TM__TRY(put_value(out, json_object_iter_value(at), depth + 1));
    }
    if (!first) TM__TRY(put_line(out, depth));
    return put(out, "}");
}

static tm_status put_value(tm__string *out, const json_t *value, int depth) {
    if (json_is_object(value)) return put_object(out, value, depth);
    if (json_is_array(value)) return put_array(out, value, depth);
    return put_scalar(out, value);
}

tm_status tm__json_write(const struct json_t *value, tm__string *out) {
    TM__TRY(put_value(out, value, 0));
    return put(out, "\n");
}

tm_status tm__json_save(const struct json_t *value, const char *directory, const char *name) {
    tm__string text = {0};
    char *path = tm__path_join(directory, name);
    tm_status status = path ? tm__json_write(value, &text) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text.data, text.len);
    tm__string_free(&text);
    free(path);
    return status;
}
