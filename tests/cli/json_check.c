/* json_check.c: reads JSON Lines from standard input; every line must be strict JSON. With an argument such as
 * "rows.0.name" prints that member of every line, one a line; with --schema FILE every line must be as that JSON Schema
 * says. Exit code 1 tells which line is wrong. */
#include "json_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const json_t *member(const json_t *value, const char *path) {
    char key[128];
    while (value && *path) {
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        value =
            json_is_array(value) ? json_array_get(value, (size_t)strtoul(key, NULL, 10)) : json_object_get(value, key);
        path += len + (path[len] == '.');
    }
    return value;
}

int main(int argc, char **argv) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int number = 0, failed = 0;
    json_t *schema = NULL;
    if (argc > 2 && strcmp(argv[1], "--schema") == 0) {
        json_error_t error;
        schema = json_load_file(argv[2], JSON_REJECT_DUPLICATES, &error);
        if (!schema) {
            fprintf(stderr, "%s: %s\n", argv[2], error.text);
            return 1;
        }
        argc = 1;
    }
    while ((len = getline(&line, &cap, stdin)) > 0) {
        json_error_t error;
        json_t *value = json_loadb(line, (size_t)len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
        number++;
        if (!value) {
            fprintf(stderr, "line %d: %s\n", number, error.text);
            failed = 1;
            break;
        }
        char why[1024];
        if (schema && !json_schema_matches(schema, value, why, sizeof why)) {
            fprintf(stderr, "line %d: %s\n", number, why);
            failed = 1;
        }
        const json_t *found = argc > 1 ? member(value, argv[1]) : value;
        if (!found) {
            fprintf(stderr, "line %d: no member %s\n", number, argv[1]);
            failed = 1;
        } else if (argc > 1 && json_is_string(found)) {
            puts(json_string_value(found));
        } else if (argc > 1) {
            json_dumpf(found, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
            putchar('\n');
        }
        json_decref(value);
    }
    free(line);
    json_decref(schema);
    if (number == 0) fprintf(stderr, "no JSON at all\n");
    return failed || number == 0;
}
