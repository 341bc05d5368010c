/* json.c: the filter tojson, which is Python's json.dumps with the options that transformers gives it, and JSON as
 * values. */
#include "template/interpreter.h"

#include <jansson.h>
#include <stdlib.h>

typedef struct dump {
    tm__run *run;
    tm__buffer sink;
    bool ascii, sorted;
    tm__str indent; /* data NULL: all in one line */
    tm__str item, key;
    size_t depth;
} dump;

static tm_status put(dump *d, const char *text) {
    return tm__buffer_put(d->run, &d->sink, text, strlen(text));
}

static tm_status put_text(dump *d, const tm__str *text) {
    return tm__buffer_put(d->run, &d->sink, text->data, text->len);
}

static tm_status put_string(dump *d, const tm__str *text) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    TM__TRY(put(d, "\""));
    for (size_t at = 0; at < text->len;) {
        uint32_t code;
        char escaped[16] = "";
        int n = tm__char_at(text->data + at, text->len - at, &code);
        const char *simple = code && code < 0x80 ? strchr(from, (int)code) : NULL;
        if (simple)
            snprintf(escaped, sizeof escaped, "\\%c", to[simple - from]);
        else if (code < 0x20 || (d->ascii && code >= 0x7f && code < 0x10000))
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)code);
        else if (d->ascii && code >= 0x10000)
            snprintf(escaped, sizeof escaped, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((code - 0x10000) >> 10)),
                     (unsigned)(0xdc00 + ((code - 0x10000) & 0x3ff)));
        TM__TRY(*escaped ? put(d, escaped) : tm__buffer_put(d->run, &d->sink, text->data + at, (size_t)n));
        at += (size_t)n;
    }
    return put(d, "\"");
}

static tm_status put_real(dump *d, double real) {
    char text[40];
    if (isnan(real)) return put(d, "NaN");
    if (isinf(real)) return put(d, real < 0 ? "-Infinity" : "Infinity");
    tm__real_text(real, text);
    return put(d, text);
}

static tm_status new_line(dump *d) {
    if (!d->indent.data) return TM_OK;
    TM__TRY(put(d, "\n"));
    for (size_t i = 0; i < d->depth; i++) TM__TRY(put_text(d, &d->indent));
    return TM_OK;
}

static tm_status put_value(dump *d, const tm__value *value);

static tm_status put_items(dump *d, const tm__items *items) {
    if (items->len == 0) return put(d, "[]");
    TM__TRY(put(d, "["));
    d->depth++;
    for (size_t i = 0; i < items->len; i++) {
        if (i) TM__TRY(put_text(d, &d->item));
        TM__TRY(new_line(d));
        TM__TRY(put_value(d, &items->data[i]));
    }
    d->depth--;
    TM__TRY(new_line(d));
    return put(d, "]");
}

static tm_status put_key(dump *d, const tm__value *key) {
    if (key->kind == TM__TEXT) return put_string(d, key->text);
    if (!tm__is_number(key) && key->kind != TM__NONE)
        return tm__run_fail(d->run, TM_INVALID, "keys must be str, int, float, bool or None, not %s",
                            tm__type_name(key));
    TM__TRY(put(d, "\""));
    TM__TRY(put_value(d, key));
    return put(d, "\"");
}

/* Order of the entries by their keys (insertion sort: keys of an object are few, and every step is counted). */
static tm_status sort_keys(dump *d, const tm__dict *dict, size_t *order) {
    for (size_t i = 0; i < dict->len; i++) {
        size_t at = i;
        order[i] = i;
        for (; at > 0; at--) {
            int sign;
            TM__TRY(tm__run_step(d->run, 1));
            TM__TRY(tm__compare(d->run, &dict->data[i].key, &dict->data[order[at - 1]].key, "<", &sign));
            if (sign >= 0) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return TM_OK;
}

static tm_status put_dict(dump *d, const tm__dict *dict) {
    size_t *order = NULL;
    if (dict->len == 0) return put(d, "{}");
    if (d->sorted) {
        TM__TRY(tm__run_alloc(d->run, dict->len, sizeof *order, &order));
        TM__TRY(sort_keys(d, dict, order));
    }
    TM__TRY(put(d, "{"));
    d->depth++;
    for (size_t i = 0; i < dict->len; i++) {
        const tm__entry *entry = &dict->data[order ? order[i] : i];
        if (i) TM__TRY(put_text(d, &d->item));
        TM__TRY(new_line(d));
        TM__TRY(put_key(d, &entry->key));
        TM__TRY(put_text(d, &d->key));
        TM__TRY(put_value(d, &entry->value));
    }
    d->depth--;
    TM__TRY(new_line(d));
    return put(d, "}");
}

static tm_status put_deep(dump *d, const tm__value *value) {
    char text[32];
    switch (value->kind) {
    case TM__NONE:
        return put(d, "null");
    case TM__BOOL:
        return put(d, value->truth ? "true" : "false");
    case TM__INT:
        snprintf(text, sizeof text, "%lld", (long long)value->integer);
        return put(d, text);
    case TM__REAL:
        return put_real(d, value->real);
    case TM__TEXT:
        return put_string(d, value->text);
    case TM__LIST:
    case TM__TUPLE:
        return put_items(d, value->items);
    case TM__DICT:
        return put_dict(d, value->dict);
    default:
        return tm__run_fail(d->run, TM_INVALID, "Object of type %s is not JSON serializable", tm__type_name(value));
    }
}

static tm_status put_value(dump *d, const tm__value *value) {
    TM__TRY(tm__run_deeper(d->run));
    TM__TRY(tm__run_step(d->run, 1));
    TM__TRY(put_deep(d, value));
    d->run->left.depth++;
    return TM_OK;
}

static tm_status take_indent(dump *d, const tm__value *indent) {
    int64_t width;
    if (!tm__given(indent) || indent->kind == TM__NONE) return TM_OK;
    if (indent->kind == TM__TEXT) {
        d->indent = *indent->text;
    } else if (tm__as_integer(indent, &width)) {
        tm__buffer blanks = {0};
        tm__value text;
        if (width > 64) return tm__run_fail(d->run, TM_INVALID, "an indent of %lld is too wide", (long long)width);
        TM__TRY(tm__buffer_repeat(d->run, &blanks, ' ', width > 0 ? (size_t)width : 0));
        TM__TRY(tm__buffer_value(d->run, &blanks, &text));
        d->indent = *text.text;
    } else {
        return tm__run_fail(d->run, TM_INVALID, "indent must be a number or a text, not %s", tm__type_name(indent));
    }
    d->item = (tm__str){",", 1, 1};
    return TM_OK;
}

static tm_status take_separators(dump *d, const tm__value *separators) {
    const tm__items *items;
    if (!tm__given(separators) || separators->kind == TM__NONE) return TM_OK;
    TM__TRY(tm__iterate(d->run, separators, &items));
    if (items->len != 2 || items->data[0].kind != TM__TEXT || items->data[1].kind != TM__TEXT)
        return tm__run_fail(d->run, TM_INVALID, "separators must be two texts");
    d->item = *items->data[0].text;
    d->key = *items->data[1].text;
    return TM_OK;
}

tm_status tm__json_text_of(tm__run *run, const tm__value *value, bool ascii, const tm__value *indent,
                           const tm__value *separators, bool sorted, tm__value *out) {
    dump d = {.run = run, .ascii = ascii, .sorted = sorted, .item = {", ", 2, 2}, .key = {": ", 2, 2}};
    TM__TRY(take_indent(&d, indent));
    TM__TRY(take_separators(&d, separators));
    TM__TRY(put_value(&d, value));
    return tm__buffer_value(run, &d.sink, out);
}

/* ---- JSON to values ---------------------------------------------------------------------------------------------- */

static tm_status value_of_array(tm__run *run, const json_t *json, tm__value *out) {
    size_t index;
    json_t *item;
    TM__TRY(tm__value_items(run, TM__LIST, json_array_size(json), out));
    json_array_foreach(json, index, item) {
        tm__value value;
        TM__TRY(tm__json_value(run, item, &value));
        TM__TRY(tm__items_push(run, out->items, value));
    }
    return TM_OK;
}

static tm_status value_of_object(tm__run *run, const json_t *json, tm__value *out) {
    const char *key;
    json_t *item;
    TM__TRY(tm__value_dict(run, TM__DICT, out));
    json_object_foreach((json_t *)json, key, item) {
        tm__value name, value;
        TM__TRY(tm__value_text(run, key, strlen(key), &name));
        TM__TRY(tm__json_value(run, item, &value));
        TM__TRY(tm__dict_put(run, out->dict, &name, value));
    }
    return TM_OK;
}

tm_status tm__json_value(tm__run *run, const json_t *json, tm__value *out) {
    switch (json_typeof(json)) { /* as deep as tm__json_parse lets it be */
    case JSON_OBJECT:
        return value_of_object(run, json, out);
    case JSON_ARRAY:
        return value_of_array(run, json, out);
    case JSON_STRING:
        return tm__value_text(run, json_string_value(json), json_string_length(json), out);
    case JSON_INTEGER:
        *out = tm__integer(json_integer_value(json));
        return TM_OK;
    case JSON_REAL:
        *out = tm__real(json_real_value(json));
        return TM_OK;
    case JSON_NULL:
        *out = tm__none();
        return TM_OK;
    default:
        *out = tm__truth(json_is_true(json));
        return TM_OK;
    }
}
