/* json_schema.h: whether JSON is as a schema of docs/schema says. */
#ifndef TESTS_JSON_SCHEMA_H
#define TESTS_JSON_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>

/* why: where it is not. */
bool json_schema_matches(const json_t *schema, const json_t *value, char *why, size_t size);

#endif
