/* value.c: values of a rendering: making them, truth, equality, order, membership, iteration, all as in Python. */
#include "template/interpreter.h"

#include <stdlib.h>

/* ---- making ------------------------------------------------------------------------------------------------------ */

tm_status tm__value_text(tm__run *run, const char *data, size_t len, tm__value *out) {
    tm__str *text;
    char *copy;
    TM__TRY(tm__run_alloc(run, 1, sizeof *text, &text));
    TM__TRY(tm__run_alloc(run, len + 1, 1, &copy));
    if (len) memcpy(copy, data, len);
    *text = (tm__str){copy, len, tm__char_count(copy, len)};
    *out = (tm__value){.kind = TM__TEXT, .text = text};
    return TM_OK;
}

tm_status tm__value_items(tm__run *run, tm__kind kind, size_t cap, tm__value *out) {
    tm__items *items;
    TM__TRY(tm__run_alloc(run, 1, sizeof *items, &items));
    if (cap) TM__TRY(tm__run_alloc(run, cap, sizeof *items->data, &items->data));
    items->cap = cap;
    items->name = kind == TM__ITERATOR ? "generator" : NULL;
    *out = (tm__value){.kind = (uint8_t)kind, .items = items};
    return TM_OK;
}

tm_status tm__items_push(tm__run *run, tm__items *items, tm__value value) {
    TM__TRY(tm__run_step(run, 1));
    if (items->len == items->cap) {
        size_t cap = items->cap ? 2 * items->cap : 8;
        tm__value *data;
        TM__TRY(tm__run_alloc(run, cap, sizeof *data, &data));
        if (items->len) memcpy(data, items->data, items->len * sizeof *data);
        items->data = data;
        items->cap = cap;
    }
    items->data[items->len++] = value;
    return TM_OK;
}

tm_status tm__items_pair(tm__run *run, tm__items *items, tm__value a, tm__value b) {
    tm__value pair;
    TM__TRY(tm__value_items(run, TM__TUPLE, 2, &pair));
    TM__TRY(tm__items_push(run, pair.items, a));
    TM__TRY(tm__items_push(run, pair.items, b));
    return tm__items_push(run, items, pair);
}

tm_status tm__value_dict(tm__run *run, tm__kind kind, tm__value *out) {
    tm__dict *dict;
    TM__TRY(tm__run_alloc(run, 1, sizeof *dict, &dict));
    *out = (tm__value){.kind = (uint8_t)kind, .dict = dict};
    return TM_OK;
}

tm__value tm__undefined(tm__run *run, const char *format, ...) {
    char text[256], *copy = NULL;
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (tm__run_alloc(run, strlen(text) + 1, 1, &copy) == TM_OK) memcpy(copy, text, strlen(text));
    return (tm__value){.kind = TM__UNDEFINED, .hint = copy ? copy : "undefined"};
}

/* ---- kinds ------------------------------------------------------------------------------------------------------- */

bool tm__is_true(const tm__value *value) {
    switch (value->kind) {
    case TM__UNDEFINED:
    case TM__NONE:
    case TM__ABSENT:
        return false;
    case TM__BOOL:
        return value->truth;
    case TM__INT:
        return value->integer != 0;
    case TM__REAL:
        return value->real != 0;
    case TM__TEXT:
        return value->text->len > 0;
    case TM__LIST:
    case TM__TUPLE:
    case TM__RANGE:
    case TM__VIEW:
        return value->items->len > 0;
    case TM__DICT:
        return value->dict->len > 0;
    default:
        return true;
    }
}

const char *tm__type_name(const tm__value *value) {
    static const char *const names[] = {"Undefined", "NoneType",    "bool",  "int",      "float",  "str",
                                        "list",      "tuple",       "range", "dict",     "",       "",
                                        "Namespace", "LoopContext", "Macro", "function", "method", "nothing"};
    return value->kind == TM__VIEW || value->kind == TM__ITERATOR ? value->items->name : names[value->kind];
}

bool tm__is_number(const tm__value *value) {
    return value->kind == TM__BOOL || value->kind == TM__INT || value->kind == TM__REAL;
}

bool tm__as_integer(const tm__value *value, int64_t *integer) {
    if (value->kind == TM__BOOL)
        *integer = value->truth;
    else if (value->kind == TM__INT)
        *integer = value->integer;
    else
        return false;
    return true;
}

double tm__as_real(const tm__value *number) {
    int64_t integer;
    return tm__as_integer(number, &integer) ? (double)integer : number->real;
}

bool tm__is_sequence(const tm__value *value) {
    return value->kind == TM__LIST || value->kind == TM__TUPLE || value->kind == TM__RANGE;
}

/* ---- dictionaries ------------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t hash, const void *data, size_t len) {
    const uint8_t *byte = data;
    for (size_t i = 0; i < len; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

/* Equal values hash alike: 1, 1.0 and True do. False: not hashable. */
static bool hash_of(const tm__value *value, uint64_t *hash) {
    uint64_t h = 0xcbf29ce484222325u;
    double real;
    switch (value->kind) {
    case TM__TEXT:
        h = mix(h, value->text->data, value->text->len);
        break;
    case TM__BOOL:
    case TM__INT:
    case TM__REAL:
        real = tm__as_real(value) + 0.0; /* no negative zero */
        h = mix(h, &real, sizeof real);
        break;
    case TM__TUPLE:
    case TM__RANGE:
        for (size_t i = 0; i < value->items->len; i++) {
            uint64_t part;
            if (!hash_of(&value->items->data[i], &part)) return false;
            h = mix(h, &part, sizeof part);
        }
        break;
    case TM__NONE:
    case TM__UNDEFINED:
        break;
    case TM__LIST:
    case TM__DICT:
    case TM__VIEW:
        return false;
    default: /* itself and nothing else */
        h = mix(h, &value->items, sizeof value->items);
    }
    *hash = h;
    return true;
}

static tm_status find_entry(tm__run *run, const tm__dict *dict, const tm__value *key, uint64_t *hash, size_t *index) {
    if (!hash_of(key, hash)) return tm__run_fail(run, TM_INVALID, "unhashable type: '%s'", tm__type_name(key));
    TM__TRY(tm__run_step(run, 1 + dict->len / 16 + (key->kind == TM__TEXT ? key->text->len / 16 : 0)));
    for (*index = 0; *index < dict->len; ++*index) {
        bool equal = false;
        if (dict->data[*index].hash != *hash) continue;
        TM__TRY(tm__equal(run, &dict->data[*index].key, key, &equal));
        if (equal) break;
    }
    return TM_OK;
}

tm_status tm__dict_find(tm__run *run, const tm__dict *dict, const tm__value *key, const tm__value **found) {
    uint64_t hash;
    size_t index;
    TM__TRY(find_entry(run, dict, key, &hash, &index));
    *found = index < dict->len ? &dict->data[index].value : NULL;
    return TM_OK;
}

const tm__value *tm__dict_text(const tm__dict *dict, const char *key, size_t len) {
    for (size_t i = 0; i < dict->len; i++) {
        const tm__value *k = &dict->data[i].key;
        if (k->kind == TM__TEXT && k->text->len == len && memcmp(k->text->data, key, len) == 0)
            return &dict->data[i].value;
    }
    return NULL;
}

tm_status tm__dict_put(tm__run *run, tm__dict *dict, const tm__value *key, tm__value value) {
    uint64_t hash;
    size_t index;
    TM__TRY(find_entry(run, dict, key, &hash, &index));
    if (index < dict->len) {
        dict->data[index].value = value;
        return TM_OK;
    }
    if (dict->len == dict->cap) {
        size_t cap = dict->cap ? 2 * dict->cap : 4;
        tm__entry *data;
        TM__TRY(tm__run_alloc(run, cap, sizeof *data, &data));
        if (dict->len) memcpy(data, dict->data, dict->len * sizeof *data);
        dict->data = data;
        dict->cap = cap;
    }
    dict->data[dict->len++] = (tm__entry){hash, *key, value};
    return TM_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static bool same_text(const tm__str *a, const tm__str *b) {
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static tm_status equal_items(tm__run *run, const tm__items *a, const tm__items *b, bool *equal) {
    *equal = a->len == b->len;
    for (size_t i = 0; i < a->len && *equal; i++) TM__TRY(tm__equal(run, &a->data[i], &b->data[i], equal));
    return TM_OK;
}

static tm_status equal_dicts(tm__run *run, const tm__dict *a, const tm__dict *b, bool *equal) {
    *equal = a->len == b->len;
    for (size_t i = 0; i < a->len && *equal; i++) {
        const tm__value *other;
        TM__TRY(tm__dict_find(run, b, &a->data[i].key, &other));
        *equal = other != NULL;
        if (other) TM__TRY(tm__equal(run, &a->data[i].value, other, equal));
    }
    return TM_OK;
}

static tm_status equal_deep(tm__run *run, const tm__value *a, const tm__value *b, bool *equal) {
    int64_t x, y;
    *equal = false;
    if (tm__as_integer(a, &x) && tm__as_integer(b, &y)) {
        *equal = x == y;
    } else if (tm__is_number(a) && tm__is_number(b)) {
        *equal = tm__as_real(a) == tm__as_real(b);
    } else if (a->kind != b->kind) {
        return TM_OK;
    } else if (tm__is_sequence(a)) {
        return equal_items(run, a->items, b->items, equal);
    } else if (a->kind == TM__DICT) {
        return equal_dicts(run, a->dict, b->dict, equal);
    } else if (a->kind == TM__TEXT) {
        TM__TRY(tm__run_step(run, TM__MIN(a->text->len, b->text->len) / 64));
        *equal = same_text(a->text, b->text);
    } else {
        *equal = a->kind == TM__NONE || a->kind == TM__UNDEFINED || a->items == b->items;
    }
    return TM_OK;
}

tm_status tm__equal(tm__run *run, const tm__value *a, const tm__value *b, bool *equal) {
    TM__TRY(tm__run_deeper(run));
    TM__TRY(tm__run_step(run, 1));
    tm_status status = equal_deep(run, a, b, equal);
    run->left.depth++;
    return status;
}

static int order_of_texts(const tm__str *a, const tm__str *b) {
    int order = memcmp(a->data, b->data, TM__MIN(a->len, b->len)); /* bytes of UTF-8 are in the order of characters */
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static tm_status compare_items(tm__run *run, const tm__items *a, const tm__items *b, const char *sign, int *order) {
    *order = (a->len > b->len) - (a->len < b->len);
    for (size_t i = 0; i < TM__MIN(a->len, b->len); i++) {
        bool equal;
        TM__TRY(tm__equal(run, &a->data[i], &b->data[i], &equal));
        if (!equal) return tm__compare(run, &a->data[i], &b->data[i], sign, order);
    }
    return TM_OK;
}

tm_status tm__compare(tm__run *run, const tm__value *a, const tm__value *b, const char *sign, int *order) {
    int64_t x, y;
    TM__TRY(tm__run_deeper(run));
    run->left.depth++; /* what is nested was compared for equality before, as deep */
    if (a->kind == TM__UNDEFINED || b->kind == TM__UNDEFINED)
        return tm__run_fail(run, TM_INVALID, "%s", a->kind == TM__UNDEFINED ? a->hint : b->hint);
    if (tm__as_integer(a, &x) && tm__as_integer(b, &y)) {
        *order = (x > y) - (x < y);
    } else if (tm__is_number(a) && tm__is_number(b)) {
        double u = tm__as_real(a), v = tm__as_real(b);
        *order = (u > v) - (u < v);
    } else if (a->kind == TM__TEXT && b->kind == TM__TEXT) {
        *order = order_of_texts(a->text, b->text);
    } else if (a->kind == b->kind && (a->kind == TM__LIST || a->kind == TM__TUPLE)) {
        return compare_items(run, a->items, b->items, sign, order);
    } else {
        return tm__run_fail(run, TM_INVALID, "'%s' not supported between instances of '%s' and '%s'", sign,
                            tm__type_name(a), tm__type_name(b));
    }
    return TM_OK;
}

tm_status tm__contains(tm__run *run, const tm__value *container, const tm__value *item, bool *contains) {
    *contains = false;
    if (container->kind == TM__TEXT) {
        const tm__str *whole = container->text, *part = item->text;
        if (item->kind != TM__TEXT)
            return tm__run_fail(run, TM_INVALID, "'in <string>' requires string as left operand, not %s",
                                tm__type_name(item));
        TM__TRY(tm__run_step(run, whole->len / 16));
        *contains = part->len == 0 || memmem(whole->data, whole->len, part->data, part->len) != NULL;
        return TM_OK;
    }
    if (container->kind == TM__DICT) {
        const tm__value *found;
        TM__TRY(tm__dict_find(run, container->dict, item, &found));
        *contains = found != NULL;
        return TM_OK;
    }
    const tm__items *items;
    TM__TRY(tm__iterate(run, container, &items));
    for (size_t i = 0; i < items->len && !*contains; i++) {
        TM__TRY(tm__run_step(run, 1));
        TM__TRY(tm__equal(run, &items->data[i], item, contains));
    }
    return TM_OK;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

static tm_status characters(tm__run *run, const tm__str *text, tm__value *out) {
    TM__TRY(tm__value_items(run, TM__LIST, text->chars, out));
    for (size_t at = 0; at < text->len;) {
        uint32_t code;
        tm__value one;
        int n = tm__char_at(text->data + at, text->len - at, &code);
        TM__TRY(tm__value_text(run, text->data + at, (size_t)n, &one));
        TM__TRY(tm__items_push(run, out->items, one));
        at += (size_t)n;
    }
    return TM_OK;
}

/* What is left of a loop, as `loop` itself gives it. */
static tm_status rest_of_loop(tm__run *run, tm__loop *loop, tm__value *out) {
    const tm__value *next;
    TM__TRY(tm__value_items(run, TM__LIST, 0, out));
    for (;;) {
        TM__TRY(tm__loop_peek(run, loop, &next));
        if (!next) return TM_OK;
        TM__TRY(tm__items_push(run, out->items, *next));
        loop->has_after = false;
    }
}

tm_status tm__iterate(tm__run *run, const tm__value *value, const tm__items **items) {
    static const tm__items none;
    tm__value made;
    switch (value->kind) {
    case TM__UNDEFINED:
        *items = &none;
        return TM_OK;
    case TM__LIST:
    case TM__TUPLE:
    case TM__RANGE:
    case TM__VIEW:
        *items = value->items;
        return tm__run_step(run, value->items->len); /* whoever asks goes through them */
    case TM__ITERATOR:
        TM__TRY(tm__value_items(run, TM__LIST, value->items->len - value->items->next, &made));
        while (value->items->next < value->items->len)
            TM__TRY(tm__items_push(run, made.items, value->items->data[value->items->next++]));
        break;
    case TM__TEXT:
        TM__TRY(characters(run, value->text, &made));
        break;
    case TM__DICT:
        TM__TRY(tm__value_items(run, TM__LIST, value->dict->len, &made));
        for (size_t i = 0; i < value->dict->len; i++)
            TM__TRY(tm__items_push(run, made.items, value->dict->data[i].key));
        break;
    case TM__LOOP:
        TM__TRY(rest_of_loop(run, value->loop, &made));
        break;
    default:
        return tm__run_fail(run, TM_INVALID, "'%s' object is not iterable", tm__type_name(value));
    }
    *items = made.items;
    return TM_OK;
}

tm_status tm__length(tm__run *run, const tm__value *value, int64_t *length) {
    switch (value->kind) {
    case TM__UNDEFINED:
        *length = 0;
        return TM_OK;
    case TM__TEXT:
        *length = (int64_t)value->text->chars;
        return TM_OK;
    case TM__LIST:
    case TM__TUPLE:
    case TM__RANGE:
    case TM__VIEW:
        *length = (int64_t)value->items->len;
        return TM_OK;
    case TM__DICT:
        *length = (int64_t)value->dict->len;
        return TM_OK;
    case TM__LOOP:
        return tm__loop_length(run, value->loop, length);
    default:
        return tm__run_fail(run, TM_INVALID, "object of type '%s' has no len()", tm__type_name(value));
    }
}
