/* sequences.c: filters on sequences and mappings. What Jinja gives as a generator is an iterator here, made at once:
 * it is gone through once and has no length, as there. */
#include "template/interpreter.h"

#include <stdlib.h>

#define CALL(name) static tm_status name(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out)

static bool flag(const tm__value *argument) {
    return tm__given(argument) && tm__is_true(argument);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* "a.b.0" of an item. NULL or none: the item itself. `fallback` takes the place of what is undefined. */
static tm_status attribute_of(tm__run *run, const tm__value *item, const tm__value *path, const tm__value *fallback,
                              tm__value *out) {
    *out = *item;
    if (!path || !tm__given(path) || path->kind == TM__NONE) return TM_OK;
    if (path->kind != TM__TEXT) {
        tm__value of = *out;
        TM__TRY(tm__index(run, &of, path, out));
        if (fallback && tm__given(fallback) && fallback->kind != TM__NONE && out->kind == TM__UNDEFINED)
            *out = *fallback;
        return TM_OK;
    }
    for (size_t at = 0; at <= path->text->len;) {
        const char *from = path->text->data + at, *dot = memchr(from, '.', path->text->len - at);
        size_t len = dot ? (size_t)(dot - from) : path->text->len - at;
        tm__value key, of = *out;
        TM__TRY(tm__value_text(run, from, len, &key));
        if (len && len < 10 && strspn(key.text->data, "0123456789") == len)
            key = tm__integer(strtol(key.text->data, NULL, 10));
        TM__TRY(tm__index(run, &of, &key, out));
        if (fallback && tm__given(fallback) && fallback->kind != TM__NONE && out->kind == TM__UNDEFINED)
            *out = *fallback;
        at += len + 1;
    }
    return TM_OK;
}

/* What sorting and uniqueness compare: attributes, texts in lower case unless `exact`. */
static tm_status key_of(tm__run *run, const tm__value *item, const tm__value *path, const tm__value *fallback,
                        bool exact, tm__value *out) {
    TM__TRY(attribute_of(run, item, path, fallback, out));
    return !exact && out->kind == TM__TEXT ? tm__change_case(run, out->text, TM__LOWER, out) : TM_OK;
}

/* sort's attribute "a,b" compares tuples. */
static tm_status sort_key(tm__run *run, const tm__value *item, const tm__value *path, bool exact, tm__value *out) {
    if (!tm__given(path) || path->kind != TM__TEXT || !memchr(path->text->data, ',', path->text->len))
        return key_of(run, item, path, NULL, exact, out);
    TM__TRY(tm__value_items(run, TM__TUPLE, 2, out));
    for (size_t at = 0; at <= path->text->len;) {
        const char *from = path->text->data + at, *comma = memchr(from, ',', path->text->len - at);
        size_t len = comma ? (size_t)(comma - from) : path->text->len - at;
        tm__value one, key;
        TM__TRY(tm__value_text(run, from, len, &one));
        TM__TRY(key_of(run, item, &one, NULL, exact, &key));
        TM__TRY(tm__items_push(run, out->items, key));
        at += len + 1;
    }
    return TM_OK;
}

typedef struct keyed {
    tm__value key, value;
} keyed;

/* Merges from[low, middle) and from[middle, high); equal elements keep their order, also backwards. */
static tm_status merge(tm__run *run, const keyed *from, size_t low, size_t middle, size_t high, bool reverse,
                       keyed *to) {
    size_t a = low, b = middle;
    for (size_t i = low; i < high; i++) {
        bool left = b >= high;
        if (a < middle && b < high) {
            int order;
            TM__TRY(tm__run_step(run, 1));
            TM__TRY(tm__compare(run, &from[b].key, &from[a].key, "<", &order));
            left = reverse ? order <= 0 : order >= 0;
        }
        to[i] = left ? from[a++] : from[b++];
    }
    return TM_OK;
}

static tm_status sort(tm__run *run, keyed *data, size_t count, bool reverse) {
    keyed *other, *from = data, *to;
    TM__TRY(tm__run_alloc(run, count + 1, sizeof *other, &other));
    to = other;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t low = 0; low < count; low += 2 * width)
            TM__TRY(merge(run, from, low, TM__MIN(low + width, count), TM__MIN(low + 2 * width, count), reverse, to));
        keyed *swap = from;
        from = to;
        to = swap;
    }
    if (from != data) memcpy(data, from, count * sizeof *data);
    return TM_OK;
}

static tm_status sorted(tm__run *run, const tm__value *self, const tm__value *path, bool exact, bool reverse,
                        keyed **data, size_t *count) {
    const tm__items *items;
    TM__TRY(tm__iterate(run, self, &items));
    TM__TRY(tm__run_alloc(run, items->len + 1, sizeof **data, data));
    *count = items->len;
    for (size_t i = 0; i < items->len; i++) {
        (*data)[i].value = items->data[i];
        TM__TRY(sort_key(run, &items->data[i], path, exact, &(*data)[i].key));
    }
    return sort(run, *data, *count, reverse);
}

CALL(filter_sort) {
    keyed *data;
    size_t count;
    TM__TRY(sorted(run, self, &arg[2], flag(&arg[1]), flag(&arg[0]), &data, &count));
    TM__TRY(tm__value_items(run, TM__LIST, count, out));
    for (size_t i = 0; i < count; i++) TM__TRY(tm__items_push(run, out->items, data[i].value));
    return TM_OK;
}

CALL(filter_dictsort) {
    bool by_value = tm__given(&arg[1]) && arg[1].kind == TM__TEXT && arg[1].text->len == 5;
    keyed *data;
    if (self->kind != TM__DICT) return tm__run_fail(run, TM_INVALID, "filter 'dictsort' needs a mapping");
    if (tm__given(&arg[1]) && !by_value && !(arg[1].kind == TM__TEXT && arg[1].text->len == 3))
        return tm__run_fail(run, TM_INVALID, "filter 'dictsort' sorts by 'key' or 'value'");
    size_t count = self->dict->len;
    TM__TRY(tm__run_alloc(run, count + 1, sizeof *data, &data));
    for (size_t i = 0; i < count; i++) {
        const tm__entry *entry = &self->dict->data[i];
        data[i].value = tm__integer((int64_t)i);
        TM__TRY(key_of(run, by_value ? &entry->value : &entry->key, NULL, NULL, flag(&arg[0]), &data[i].key));
    }
    TM__TRY(sort(run, data, count, flag(&arg[2])));
    TM__TRY(tm__value_items(run, TM__LIST, count, out));
    for (size_t i = 0; i < count; i++) {
        const tm__entry *entry = &self->dict->data[data[i].value.integer];
        TM__TRY(tm__items_pair(run, out->items, entry->key, entry->value));
    }
    return TM_OK;
}

CALL(filter_groupby) {
    keyed *data;
    size_t count;
    bool exact = flag(&arg[2]);
    const tm__items *items;
    TM__TRY(tm__iterate(run, self, &items));
    count = items->len;
    TM__TRY(tm__run_alloc(run, count + 1, sizeof *data, &data));
    for (size_t i = 0; i < count; i++) {
        data[i].value = items->data[i];
        TM__TRY(key_of(run, &items->data[i], &arg[0], &arg[1], exact, &data[i].key));
    }
    TM__TRY(sort(run, data, count, false));
    TM__TRY(tm__value_items(run, TM__LIST, 0, out));
    for (size_t i = 0; i < count;) {
        tm__value group, key;
        bool same = true;
        size_t first = i;
        TM__TRY(tm__value_items(run, TM__LIST, 0, &group));
        for (; i < count && same;) {
            TM__TRY(tm__items_push(run, group.items, data[i++].value));
            if (i < count) TM__TRY(tm__equal(run, &data[first].key, &data[i].key, &same));
        }
        TM__TRY(attribute_of(run, &data[first].value, &arg[0], &arg[1], &key));
        TM__TRY(tm__items_pair(run, out->items, key, group));
    }
    return TM_OK;
}

CALL(filter_unique) {
    const tm__items *items;
    tm__value seen;
    TM__TRY(tm__iterate(run, self, &items));
    TM__TRY(tm__value_dict(run, TM__DICT, &seen));
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    for (size_t i = 0; i < items->len; i++) {
        tm__value key;
        const tm__value *before;
        TM__TRY(key_of(run, &items->data[i], &arg[1], NULL, flag(&arg[0]), &key));
        TM__TRY(tm__dict_find(run, seen.dict, &key, &before));
        if (before) continue;
        TM__TRY(tm__dict_put(run, seen.dict, &key, tm__none()));
        TM__TRY(tm__items_push(run, out->items, items->data[i]));
    }
    return TM_OK;
}

static tm_status extreme(tm__run *run, const tm__value *self, const tm__value *arg, bool most, tm__value *out) {
    const tm__items *items;
    tm__value best = {0}, key;
    TM__TRY(tm__iterate(run, self, &items));
    *out = tm__undefined(run, "No aggregated item, sequence was empty.");
    for (size_t i = 0; i < items->len; i++) {
        int order = 0;
        TM__TRY(key_of(run, &items->data[i], &arg[1], NULL, flag(&arg[0]), &key));
        if (i) TM__TRY(tm__compare(run, &key, &best, most ? ">" : "<", &order));
        if (i && !(most ? order > 0 : order < 0)) continue;
        best = key;
        *out = items->data[i];
    }
    return TM_OK;
}

CALL(filter_min) {
    return extreme(run, self, arg, false, out);
}
CALL(filter_max) {
    return extreme(run, self, arg, true, out);
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

CALL(filter_length) {
    int64_t length;
    (void)arg;
    TM__TRY(tm__length(run, self, &length));
    *out = tm__integer(length);
    return TM_OK;
}

CALL(filter_first) {
    const tm__items *items;
    (void)arg;
    if (self->kind == TM__ITERATOR) { /* takes one and leaves the others */
        *out = self->items->next < self->items->len ? self->items->data[self->items->next++]
                                                    : tm__undefined(run, "No first item, sequence was empty.");
        return TM_OK;
    }
    TM__TRY(tm__iterate(run, self, &items));
    *out = items->len ? items->data[0] : tm__undefined(run, "No first item, sequence was empty.");
    return TM_OK;
}

CALL(filter_last) {
    const tm__items *items;
    (void)arg;
    if (self->kind == TM__ITERATOR || self->kind == TM__LOOP || self->kind == TM__UNDEFINED)
        return tm__run_fail(run, TM_INVALID, "'%s' object is not reversible", tm__type_name(self));
    TM__TRY(tm__iterate(run, self, &items));
    *out = items->len ? items->data[items->len - 1] : tm__undefined(run, "No last item, sequence was empty.");
    return TM_OK;
}

CALL(filter_list) {
    const tm__items *items;
    (void)arg;
    TM__TRY(tm__iterate(run, self, &items));
    TM__TRY(tm__value_items(run, TM__LIST, items->len, out));
    for (size_t i = 0; i < items->len; i++) TM__TRY(tm__items_push(run, out->items, items->data[i]));
    return TM_OK;
}

CALL(filter_reverse) {
    const tm__items *items;
    const tm__value back[3] = {{.kind = TM__ABSENT}, {.kind = TM__ABSENT}, {.kind = TM__INT, .integer = -1}};
    (void)arg;
    if (self->kind == TM__TEXT) return tm__slice(run, self, back, out);
    TM__TRY(tm__iterate(run, self, &items));
    bool list = self->kind == TM__ITERATOR || self->kind == TM__UNDEFINED || self->kind == TM__LOOP;
    TM__TRY(tm__value_items(run, list ? TM__LIST : TM__ITERATOR, items->len, out));
    out->items->name = "reversed";
    for (size_t i = items->len; i > 0; i--) TM__TRY(tm__items_push(run, out->items, items->data[i - 1]));
    return TM_OK;
}

CALL(filter_items) {
    (void)arg;
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    if (self->kind == TM__UNDEFINED) return TM_OK;
    if (self->kind != TM__DICT) return tm__run_fail(run, TM_INVALID, "Can only get item pairs from a mapping.");
    for (size_t i = 0; i < self->dict->len; i++)
        TM__TRY(tm__items_pair(run, out->items, self->dict->data[i].key, self->dict->data[i].value));
    return TM_OK;
}

CALL(filter_join) {
    const tm__items *items;
    tm__buffer sink = {0};
    TM__TRY(tm__iterate(run, self, &items));
    for (size_t i = 0; i < items->len; i++) {
        tm__value item;
        if (i && tm__given(&arg[0])) TM__TRY(tm__print(run, &arg[0], &sink));
        TM__TRY(attribute_of(run, &items->data[i], &arg[1], NULL, &item));
        TM__TRY(tm__print(run, &item, &sink));
    }
    return tm__buffer_value(run, &sink, out);
}

CALL(filter_sum) {
    const tm__items *items;
    TM__TRY(tm__iterate(run, self, &items));
    *out = tm__given(&arg[1]) ? arg[1] : tm__integer(0);
    if (out->kind == TM__TEXT) return tm__run_fail(run, TM_INVALID, "sum() can't sum strings");
    for (size_t i = 0; i < items->len; i++) {
        tm__value item, sum = *out;
        TM__TRY(attribute_of(run, &items->data[i], &arg[0], NULL, &item));
        TM__TRY(tm__operate(run, '+', &sum, &item, out));
    }
    return TM_OK;
}

CALL(filter_batch) {
    const tm__items *items;
    int64_t count;
    tm__value row;
    TM__TRY(tm__iterate(run, self, &items));
    if (!tm__as_integer(&arg[0], &count)) return tm__run_fail(run, TM_INVALID, "filter 'batch' needs an integer");
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    TM__TRY(tm__value_items(run, TM__LIST, 0, &row));
    for (size_t i = 0; i < items->len; i++) {
        if ((int64_t)row.items->len == count) {
            TM__TRY(tm__items_push(run, out->items, row));
            TM__TRY(tm__value_items(run, TM__LIST, 0, &row));
        }
        TM__TRY(tm__items_push(run, row.items, items->data[i]));
    }
    bool fills = tm__given(&arg[1]) && arg[1].kind != TM__NONE;
    while (fills && row.items->len && (int64_t)row.items->len < count) TM__TRY(tm__items_push(run, row.items, arg[1]));
    return row.items->len ? tm__items_push(run, out->items, row) : TM_OK;
}

CALL(filter_slice) {
    const tm__items *items;
    int64_t slices;
    TM__TRY(tm__iterate(run, self, &items));
    if (!tm__as_integer(&arg[0], &slices) || slices == 0)
        return tm__run_fail(run, TM_INVALID, "filter 'slice' needs an integer that is not 0");
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    bool fills = tm__given(&arg[1]) && arg[1].kind != TM__NONE;
    size_t at = 0;
    for (int64_t i = 0; i < slices; i++) {
        int64_t extra = (int64_t)items->len % slices;
        size_t end = at + (size_t)((int64_t)items->len / slices + (i < extra));
        tm__value row;
        TM__TRY(tm__value_items(run, TM__LIST, 0, &row));
        while (at < end) TM__TRY(tm__items_push(run, row.items, items->data[at++]));
        if (fills && i >= extra) TM__TRY(tm__items_push(run, row.items, arg[1]));
        TM__TRY(tm__items_push(run, out->items, row));
    }
    return TM_OK;
}

/* ---- map, select ------------------------------------------------------------------------------------------------- */

static const tm__value *named(const tm__args *args, const char *name) {
    for (size_t i = 0; i < args->named_count; i++)
        if (args->named[i].name->len == strlen(name) && memcmp(args->named[i].name->data, name, strlen(name)) == 0)
            return &args->named[i].value;
    return NULL;
}

static tm_status filter_map(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    const tm__items *items;
    const tm__value *attribute = args->count ? NULL : named(args, "attribute"), *fallback = named(args, "default");
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    if (!tm__is_true(self)) return TM_OK;
    TM__TRY(tm__iterate(run, self, &items));
    if (attribute && args->named_count > (fallback ? 2u : 1u))
        return tm__run_fail(run, TM_INVALID, "filter 'map' got a named argument that it does not know");
    if (!attribute && (args->count == 0 || args->data[0].kind != TM__TEXT))
        return tm__run_fail(run, TM_INVALID, "filter 'map' needs the name of a filter");
    for (size_t i = 0; i < items->len; i++) {
        tm__value value;
        if (attribute) {
            TM__TRY(attribute_of(run, &items->data[i], attribute, fallback, &value));
        } else {
            tm__args rest = *args;
            rest.data++;
            rest.count--;
            TM__TRY(tm__filter(run, args->data[0].text, &items->data[i], &rest, &value));
        }
        TM__TRY(tm__items_push(run, out->items, value));
    }
    return TM_OK;
}

/* `by`: the first argument is an attribute. Then comes the name of a test and its arguments; without, truth counts. */
static tm_status choose(tm__run *run, const tm__value *self, const tm__args *args, bool by, bool wanted,
                        tm__value *out) {
    const tm__items *items;
    TM__TRY(tm__value_items(run, TM__ITERATOR, 0, out));
    if (!tm__is_true(self)) return TM_OK;
    TM__TRY(tm__iterate(run, self, &items));
    if (by && args->count == 0) return tm__run_fail(run, TM_INVALID, "Missing parameter for attribute name");
    size_t off = by;
    if (args->count > off && args->data[off].kind != TM__TEXT)
        return tm__run_fail(run, TM_INVALID, "the name of a test must be a text");
    for (size_t i = 0; i < items->len; i++) {
        tm__value value;
        TM__TRY(attribute_of(run, &items->data[i], by ? &args->data[0] : NULL, NULL, &value));
        bool holds = tm__is_true(&value);
        if (args->count > off) {
            tm__args rest = *args;
            rest.data += off + 1;
            rest.count -= off + 1;
            TM__TRY(tm__test(run, args->data[off].text, &value, &rest, &holds));
        }
        if (holds == wanted) TM__TRY(tm__items_push(run, out->items, items->data[i]));
    }
    return TM_OK;
}

static tm_status filter_select(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    return choose(run, self, args, false, true, out);
}
static tm_status filter_reject(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    return choose(run, self, args, false, false, out);
}
static tm_status filter_selectattr(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    return choose(run, self, args, true, true, out);
}
static tm_status filter_rejectattr(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    return choose(run, self, args, true, false, out);
}

const tm__builtin tm__sequence_filters[] = {
    {"batch", "linecount fill_with", 1, filter_batch, NULL},
    {"count", "", 0, filter_length, NULL},
    {"dictsort", "case_sensitive by reverse", 0, filter_dictsort, NULL},
    {"first", "", 0, filter_first, NULL},
    {"groupby", "attribute default case_sensitive", 1, filter_groupby, NULL},
    {"items", "", 0, filter_items, NULL},
    {"join", "d attribute", 0, filter_join, NULL},
    {"last", "", 0, filter_last, NULL},
    {"length", "", 0, filter_length, NULL},
    {"list", "", 0, filter_list, NULL},
    {"map", NULL, 0, NULL, filter_map},
    {"max", "case_sensitive attribute", 0, filter_max, NULL},
    {"min", "case_sensitive attribute", 0, filter_min, NULL},
    {"random", "", 0, NULL, NULL},
    {"reject", NULL, 0, NULL, filter_reject},
    {"rejectattr", NULL, 0, NULL, filter_rejectattr},
    {"reverse", "", 0, filter_reverse, NULL},
    {"select", NULL, 0, NULL, filter_select},
    {"selectattr", NULL, 0, NULL, filter_selectattr},
    {"slice", "slices fill_with", 1, filter_slice, NULL},
    {"sort", "reverse case_sensitive attribute", 0, filter_sort, NULL},
    {"sum", "attribute start", 0, filter_sum, NULL},
    {"unique", "case_sensitive attribute", 0, filter_unique, NULL},
    {0},
};

tm_status tm__filter(tm__run *run, const tm__str *name, const tm__value *value, const tm__args *args, tm__value *out) {
    const tm__builtin *builtin = tm__find_builtin(tm__value_filters, name);
    if (!builtin) builtin = tm__find_builtin(tm__sequence_filters, name);
    if (!builtin)
        return tm__run_fail(run, TM_FORMAT, "there is no filter '%.*s'", (int)TM__MIN(name->len, 40u), name->data);
    TM__TRY(tm__run_deeper(run));
    TM__TRY(tm__call_builtin(run, "filter", builtin, value, args, out));
    run->left.depth++;
    return TM_OK;
}
