/* plan_yaml.c: nodes of a plan's YAML tree, and errors that name their line and column.
 *
 * libyaml's document tree keeps the place of every node; nothing is copied but texts.
 */
#include "lab/plan_read.h"

#include <errno.h>
#include <stdlib.h>

/* ---- errors ------------------------------------------------------------------------------------------------------ */

tm__plan_mark tm__node_mark(const yaml_node_t *node) {
    return (tm__plan_mark){node->start_mark.line, node->start_mark.column};
}

tm_status tm__plan_fail_at(const tm_plan *plan, tm__plan_mark at, tm_status status, const char *field, const char *hint,
                           const char *format, ...) {
    char place[200], message[600];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(place, sizeof place, "line %zu, column %zu%s%s", at.line + 1, at.column + 1, field ? ": " : "",
             field ? field : "");
    return tm__fail(status, plan->path, place, hint, "%s", message);
}

tm_status tm__plan_failed_at(const tm_plan *plan, tm__plan_mark at) {
    const tm_error last = *tm_error_last();
    char about[400];
    bool both = last.file[0] && last.field[0];
    snprintf(about, sizeof about, "%s%s%s", last.file, both ? ": " : "", last.field);
    return tm__plan_fail_at(plan, at, last.status, about[0] ? about : NULL, last.hint[0] ? last.hint : NULL, "%s",
                            last.message);
}

tm_status tm__plan_wrong(const tm__reader *r, const yaml_node_t *node, const char *hint, const char *what,
                         const char *name) {
    return tm__plan_fail_at(r->plan, tm__node_mark(node), TM_INVALID, NULL, hint, "%s%s%s%s", what, name ? " \"" : "",
                            name ? name : "", name ? "\"" : "");
}

tm_status tm__plan_placed(const tm__reader *r, const yaml_node_t *node) {
    return tm__plan_failed_at(r->plan, tm__node_mark(node));
}

tm_status tm__plan_unknown(const tm__reader *r, const yaml_node_t *node, const tm__nearest *best, const char *hint,
                           const char *what, const char *name) {
    char near[96];
    return tm__plan_wrong(r, node, tm__nearest_hint(best, name, near) ? near : hint, what, name);
}

size_t tm__name_in(const char *const *list, const char *name, tm__nearest *best) {
    size_t i = 0;
    *best = (tm__nearest){0};
    for (; list[i] && strcmp(list[i], name) != 0; i++) tm__nearest_consider(best, name, list[i], strlen(list[i]));
    return i;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

const char *tm__node_text(const yaml_node_t *node) {
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

size_t tm__node_pairs(const yaml_node_t *map) {
    return map ? (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start) : 0;
}

tm__pair tm__node_pair(tm__reader *r, const yaml_node_t *map, size_t i) {
    const yaml_node_pair_t *p = map->data.mapping.pairs.start + i;
    return (tm__pair){yaml_document_get_node(&r->document, p->key), yaml_document_get_node(&r->document, p->value)};
}

yaml_node_t *tm__node_find(tm__reader *r, const yaml_node_t *map, const char *name) {
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        if (tm__node_text(p.key) && strcmp(tm__node_text(p.key), name) == 0) return p.value;
    }
    return NULL;
}

size_t tm__node_items(const yaml_node_t *list) {
    if (!list || list->type != YAML_SEQUENCE_NODE) return 0;
    return (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
}

yaml_node_t *tm__node_item(tm__reader *r, const yaml_node_t *list, size_t i) {
    return yaml_document_get_node(&r->document, list->data.sequence.items.start[i]);
}

tm_status tm__node_map(tm__reader *r, const yaml_node_t *node, const char *what) {
    if (node->type != YAML_MAPPING_NODE)
        return tm__plan_wrong(r, node, "KEY: VALUE lines", "a mapping is expected for", what);
    for (size_t i = 0; i < tm__node_pairs(node); i++) {
        tm__pair p = tm__node_pair(r, node, i);
        if (!tm__node_text(p.key)) return tm__plan_wrong(r, p.key, NULL, "a name is expected", NULL);
        for (size_t k = 0; k < i; k++)
            if (strcmp(tm__node_text(p.key), tm__node_text(tm__node_pair(r, node, k).key)) == 0)
                return tm__plan_wrong(r, p.key, "remove one", "stands twice:", tm__node_text(p.key));
    }
    return TM_OK;
}

tm_status tm__node_string(const tm__reader *r, const yaml_node_t *node, const char *what, const char **value) {
    if (!tm__node_text(node)) return tm__plan_wrong(r, node, NULL, "a single value is expected for", what);
    *value = tm__arena_strdup(&r->plan->arena, tm__node_text(node), strlen(tm__node_text(node)));
    return *value ? TM_OK : tm__fail_memory();
}

tm_status tm__node_int(const tm__reader *r, const yaml_node_t *node, const char *what, int64_t min, int64_t max,
                       int64_t *value) {
    const char *text = tm__node_text(node);
    char *end = NULL, hint[96];
    errno = 0;
    long long number = text ? strtoll(text, &end, 10) : 0;
    if (!end || end == text || *end || errno == ERANGE || number < min || number > max) {
        snprintf(hint, sizeof hint, "%.31s: a whole number from %lld to %lld", what, (long long)min, (long long)max);
        return tm__plan_wrong(r, node, hint, "no number that is possible here:", text ? text : what);
    }
    *value = number;
    return TM_OK;
}

tm_status tm__node_keys(tm__reader *r, const yaml_node_t *map, const char *const *known, const char *hint,
                        const char *what) {
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        tm__nearest best;
        if (!known[tm__name_in(known, tm__node_text(p.key), &best)])
            return tm__plan_unknown(r, p.key, &best, hint, what, tm__node_text(p.key));
    }
    return TM_OK;
}

tm_status tm__node_real(const tm__reader *r, const yaml_node_t *node, const char *what, double min, double max,
                        double *value) {
    char *end = NULL;
    const char *text = tm__node_text(node);
    double number = text ? strtod(text, &end) : 0;
    if (!end || end == text || *end || !(number >= min && number <= max))
        return tm__plan_wrong(r, node, NULL, "no number that is possible here:", text ? text : what);
    *value = number;
    return TM_OK;
}

tm_status tm__node_flag(const tm__reader *r, const yaml_node_t *node, const char *what, bool *value) {
    const tm_option table[] = {{.name = what, .type = TM_OPTION_CHOICE, .choices = "false|true"}, {0}};
    int chosen;
    if (!tm__node_text(node)) return tm__plan_wrong(r, node, NULL, "a single value is expected for", what);
    if (tm_options_set(table, &chosen, what, tm__node_text(node)) != TM_OK) return tm__plan_placed(r, node);
    *value = chosen == 1;
    return TM_OK;
}

tm_status tm__node_path(const tm__reader *r, const yaml_node_t *node, const char *what, const char **path) {
    const char *given, *slash = strrchr(r->plan->path, '/');
    TM__TRY(tm__node_string(r, node, what, &given));
    if (!*given) return tm__plan_wrong(r, node, "a path from the plan's directory on", "is empty:", what);
    if (*given == '/' || !slash) {
        *path = given;
        return TM_OK;
    }
    size_t folder = (size_t)(slash - r->plan->path) + 1, len = strlen(given);
    char *joined = tm__arena_alloc(&r->plan->arena, folder + len + 1, 1);
    if (!joined) return tm__fail_memory();
    memcpy(joined, r->plan->path, folder);
    memcpy(joined + folder, given, len);
    *path = joined;
    return TM_OK;
}
