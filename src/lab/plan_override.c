/* plan_override.c: "arms.sdd.before.lr=1e-3" put into a plan's YAML tree before it is read: the path of keys, a number
 * for a place in a list, and a scalar or a list [A, B] of scalars as its value. What is missing at the end of the path
 * is added; what is missing before it is an error, with the nearest name.
 */
#include "lab/plan.h"

#include <stdlib.h>
#include <yaml.h>

typedef struct override {
    const tm_plan *plan;
    const char *text;
    yaml_document_t *document;
} override;

static tm_status wrong(const override *o, const char *hint, const char *what, const char *name) {
    return tm__fail(TM_INVALID, o->plan->path, "set", hint, "%s: %s%s%s%s", o->text, what, name ? " \"" : "",
                    name ? name : "", name ? "\"" : "");
}

static bool is_key(const yaml_node_t *key, const char *name, size_t len) {
    return key->type == YAML_SCALAR_NODE && key->data.scalar.length == len &&
           memcmp(key->data.scalar.value, name, len) == 0;
}

/* The pair of a mapping with this key; NULL: there is none, and `best` holds the nearest. */
static yaml_node_pair_t *find_pair(const override *o, const yaml_node_t *map, const char *name, size_t len,
                                   tm__nearest *best) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)TM__MIN(len, sizeof wanted - 1), name);
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(o->document, p->key);
        if (is_key(key, name, len)) return p;
        if (key->type == YAML_SCALAR_NODE)
            tm__nearest_consider(best, wanted, (const char *)key->data.scalar.value, key->data.scalar.length);
    }
    return NULL;
}

static int add_scalar(const override *o, const char *text, size_t len) {
    return yaml_document_add_scalar(o->document, NULL, (const yaml_char_t *)text, (int)len, YAML_PLAIN_SCALAR_STYLE);
}

static bool is_list(const char *value) {
    size_t len = strlen(value);
    return len >= 2 && value[0] == '[' && value[len - 1] == ']';
}

/* 0: out of memory. */
static int add_value(const override *o, const char *value) {
    size_t len = strlen(value);
    if (!is_list(value)) return add_scalar(o, value, len);
    int list = yaml_document_add_sequence(o->document, NULL, YAML_FLOW_SEQUENCE_STYLE);
    const char *at = value + 1, *end = value + len - 1;
    while (list && at < end) {
        at += strspn(at, " ");
        size_t n = strcspn(at, ",]");
        const char *next = at + n + (at[n] == ',');
        while (n && at[n - 1] == ' ') n--;
        int item = add_scalar(o, at, n);
        if (!item || !yaml_document_append_sequence_item(o->document, list, item)) return 0;
        at = next;
    }
    return list;
}

/* Gives a value, and the items of a list, a place in the file. */
static void set_marks(yaml_document_t *document, int value, yaml_mark_t mark) {
    yaml_node_t *node = yaml_document_get_node(document, value);
    node->start_mark = mark;
    if (node->type != YAML_SEQUENCE_NODE) return;
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++)
        yaml_document_get_node(document, *item)->start_mark = mark;
}

/* The slot that holds the number of the node at the path's next part; *slot is NULL where the key is to be added. */
static tm_status descend(const override *o, int node, const char *name, size_t len, bool last, int **slot) {
    const yaml_node_t *at = yaml_document_get_node(o->document, node);
    tm__nearest best = {0};
    char part[64], near[96];
    snprintf(part, sizeof part, "%.*s", (int)TM__MIN(len, sizeof part - 1), name);
    *slot = NULL;
    if (at->type == YAML_SEQUENCE_NODE) {
        char *end;
        long place = strtol(part, &end, 10),
             count = (long)(at->data.sequence.items.top - at->data.sequence.items.start);
        if (*end || end == part || place < 0 || place >= count)
            return wrong(o, "a list has places 0, 1, ...", "there is no place", part);
        *slot = &at->data.sequence.items.start[place];
        return TM_OK;
    }
    if (at->type != YAML_MAPPING_NODE) return wrong(o, NULL, "nothing is below it to set:", part);
    yaml_node_pair_t *pair = find_pair(o, at, name, len, &best);
    if (pair) *slot = &pair->value;
    if (pair || last) return TM_OK;
    return wrong(o, tm__nearest_hint(&best, part, near) ? near : NULL, "the plan has no", part);
}

static tm_status add_pair(const override *o, int map, const char *name, size_t len, int value) {
    yaml_mark_t mark = yaml_document_get_node(o->document, map)->start_mark;
    int key = add_scalar(o, name, len);
    if (key) yaml_document_get_node(o->document, key)->start_mark = mark;
    return key && yaml_document_append_mapping_pair(o->document, map, key, value) ? TM_OK : tm__fail_memory();
}

/* Parts of the path are separated by points; one that holds a point itself stands in quotes: arms."lr 0.1".from. */
static size_t part_of(const char **at) {
    if (**at != '"') return strcspn(*at, ".=");
    ++*at;
    return strcspn(*at, "\"");
}

tm_status tm__plan_override(const tm_plan *plan, yaml_document_t *document, const char *text) {
    const override o = {plan, text, document};
    int node = 1; /* the root */
    if (!yaml_document_get_root_node(document)) return TM_OK;
    for (const char *at = text;;) {
        const char *name = at;
        size_t len = part_of(&name);
        const char *next = name + len;
        next += *next == '"';
        if (!len || (*next != '.' && *next != '='))
            return wrong(&o, "PATH=VALUE, as arms.sdd.replicates=5", "is no setting", NULL);
        if (*next == '=' && is_list(next + 1) && strcspn(next + 2, "[]") + 3 < strlen(next))
            return wrong(&o, "what holds more goes into the plan", "a list of single values is expected", NULL);
        int *slot, value;
        TM__TRY(descend(&o, node, name, len, *next == '=', &slot));
        if (*next == '.') {
            node = *slot;
            at = next + 1;
            continue;
        }
        /* Adding nodes moves them all: the slot is looked for again. Errors of the value get the place of the old. */
        yaml_mark_t mark = yaml_document_get_node(document, slot ? *slot : node)->start_mark;
        if (!(value = add_value(&o, next + 1))) return tm__fail_memory();
        set_marks(document, value, mark);
        if (!slot) return add_pair(&o, node, name, len, value);
        TM__TRY(descend(&o, node, name, len, true, &slot));
        *slot = value;
        return TM_OK;
    }
}
