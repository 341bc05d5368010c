/* json_schema.c: the part of JSON Schema 2020-12 that docs/schema uses; a keyword that is not known is a failure. */
#include "json_schema.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct check {
    const json_t *root;
    char *why;
    size_t size;
} check;

static bool fail(check *c, const char *path, const char *what) {
    snprintf(c->why, c->size, "%s: %s", path[0] ? path : "(top)", what);
    return false;
}

static bool is_type(const json_t *value, const char *name) {
    if (strcmp(name, "object") == 0) return json_is_object(value);
    if (strcmp(name, "array") == 0) return json_is_array(value);
    if (strcmp(name, "string") == 0) return json_is_string(value);
    if (strcmp(name, "number") == 0) return json_is_number(value);
    if (strcmp(name, "boolean") == 0) return json_is_boolean(value);
    if (strcmp(name, "null") == 0) return json_is_null(value);
    if (strcmp(name, "integer") == 0)
        return json_is_integer(value) ||
               (json_is_real(value) && trunc(json_real_value(value)) == json_real_value(value));
    return false;
}

static bool any_type(const json_t *value, const json_t *types) {
    if (json_is_string(types)) return is_type(value, json_string_value(types));
    for (size_t i = 0; i < json_array_size(types); i++)
        if (is_type(value, json_string_value(json_array_get(types, i)))) return true;
    return false;
}

static bool one_of(const json_t *value, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(value, json_array_get(list, i))) return true;
    return false;
}

/* "#/$defs/NAME" */
static const json_t *find(const check *c, const char *ref) {
    const char *name = strncmp(ref, "#/$defs/", 8) == 0 ? ref + 8 : "";
    return json_object_get(json_object_get(c->root, "$defs"), name);
}

static bool matches(check *c, const json_t *value, const json_t *schema, const char *path);

static bool members(check *c, const json_t *object, const json_t *schema, const char *path) {
    const json_t *named = json_object_get(schema, "properties"),
                 *others = json_object_get(schema, "additionalProperties");
    const json_t *required = json_object_get(schema, "required");
    const char *key;
    json_t *value;
    char below[512];
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        snprintf(below, sizeof below, "%s.%s", path, name);
        if (!json_object_get(object, name)) return fail(c, below, "is missing");
    }
    json_object_foreach((json_t *)object, key, value) {
        const json_t *own = json_object_get(named, key);
        snprintf(below, sizeof below, "%s.%s", path, key);
        if (!own) own = others;
        if (own && !matches(c, value, own, below)) return false;
    }
    return true;
}

static bool elements(check *c, const json_t *array, const json_t *schema, const char *path) {
    char below[512];
    for (size_t i = 0; i < json_array_size(array); i++) {
        snprintf(below, sizeof below, "%s[%zu]", path, i);
        if (!matches(c, json_array_get(array, i), schema, below)) return false;
    }
    return true;
}

static bool any_of(check *c, const json_t *value, const json_t *schemas, const char *path) {
    for (size_t i = 0; i < json_array_size(schemas); i++)
        if (matches(c, value, json_array_get(schemas, i), path)) return true;
    return false; /* the last one's failure is told */
}

static bool keyword(check *c, const json_t *value, const char *key, const json_t *rule, const char *path) {
    static const char *const told[] = {
        "$schema", "$defs", "title", "description", "properties", "required", "additionalProperties"};
    double number = json_number_value(value), limit = json_number_value(rule);
    size_t len = json_is_string(value) ? strlen(json_string_value(value)) : 0;
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (strcmp(key, told[i]) == 0) return true; /* elsewhere, or nothing to check */
    if (strcmp(key, "type") == 0) return any_type(value, rule) || fail(c, path, "has another type");
    if (strcmp(key, "$ref") == 0) {
        const json_t *other = find(c, json_string_value(rule));
        return other ? matches(c, value, other, path) : fail(c, json_string_value(rule), "is not defined");
    }
    if (strcmp(key, "enum") == 0) return one_of(value, rule) || fail(c, path, "is none of what it may be");
    if (strcmp(key, "anyOf") == 0) return any_of(c, value, rule, path);
    if (strcmp(key, "items") == 0) return !json_is_array(value) || elements(c, value, rule, path);
    if (strcmp(key, "minimum") == 0) return !json_is_number(value) || number >= limit || fail(c, path, "is too small");
    if (strcmp(key, "maximum") == 0) return !json_is_number(value) || number <= limit || fail(c, path, "is too large");
    if (strcmp(key, "minLength") == 0)
        return !json_is_string(value) || (double)len >= limit || fail(c, path, "is too short");
    if (strcmp(key, "maxLength") == 0)
        return !json_is_string(value) || (double)len <= limit || fail(c, path, "is too long");
    return fail(c, key, "is a keyword that this check does not know");
}

static bool matches(check *c, const json_t *value, const json_t *schema, const char *path) {
    const char *key;
    json_t *rule;
    if (json_is_boolean(schema)) return json_is_true(schema) || fail(c, path, "may not be there");
    json_object_foreach((json_t *)schema, key, rule) if (!keyword(c, value, key, rule, path)) return false;
    return !json_is_object(value) || members(c, value, schema, path);
}

bool json_schema_matches(const json_t *schema, const json_t *value, char *why, size_t size) {
    check c = {schema, why, size};
    return matches(&c, value, schema, "");
}
