/* access.c: attributes, elements, slices, calls, as the sandboxed environment allows them.
 *
 * `a.b` looks for Python's attribute first and the key then, `a["b"]` the other way round. Methods that change a list
 * or a dict and names with two underscores are there, and unsafe to use: they give an undefined value that says so.
 */
#include "template/interpreter.h"

/* ---- builtins ---------------------------------------------------------------------------------------------------- */

const tm__builtin *tm__find_builtin(const tm__builtin *table, const tm__str *name) {
    for (; table->name; table++)
        if (strlen(table->name) == name->len && memcmp(table->name, name->data, name->len) == 0) return table;
    return NULL;
}

/* Index of a name in "a b c", or -1; *count gets how many there are. */
static int parameter_index(const char *params, const tm__str *name, size_t *count) {
    int found = -1;
    *count = 0;
    for (const char *at = params; *at; ++*count) {
        size_t len = strcspn(at, " ");
        if (name && len == name->len && memcmp(at, name->data, len) == 0) found = (int)*count;
        at += len + (at[len] == ' ');
    }
    return found;
}

tm_status tm__call_builtin(tm__run *run, const char *what, const tm__builtin *builtin, const tm__value *self,
                           const tm__args *args, tm__value *out) {
    tm__value arg[TM__PARAMS_MAX];
    size_t count;
    TM__TRY(tm__run_step(run, 1));
    if (builtin->raw) return builtin->raw(run, self, args, out);
    if (!builtin->call) return tm__run_fail(run, TM_UNSUPPORTED, "%s '%s' is not supported", what, builtin->name);
    parameter_index(builtin->params, NULL, &count);
    assert(count <= TM__PARAMS_MAX);
    if (args->count > count)
        return tm__run_fail(run, TM_INVALID, "%s '%s' takes at most %zu argument(s), got %zu", what, builtin->name,
                            count, args->count);
    for (size_t i = 0; i < TM__PARAMS_MAX; i++)
        arg[i] = i < args->count ? args->data[i] : (tm__value){.kind = TM__ABSENT};
    for (size_t i = 0; i < args->named_count; i++) {
        int index = parameter_index(builtin->params, args->named[i].name, &count);
        if (index < 0 || tm__given(&arg[index]))
            return tm__run_fail(run, TM_INVALID, "%s '%s' takes no argument '%.*s'%s", what, builtin->name,
                                (int)TM__MIN(args->named[i].name->len, 40u), args->named[i].name->data,
                                index < 0 ? "" : " a second time");
        arg[index] = args->named[i].value;
    }
    for (size_t i = 0; i < builtin->required; i++)
        if (!tm__given(&arg[i]))
            return tm__run_fail(run, TM_INVALID, "%s '%s' needs %zu argument(s)", what, builtin->name,
                                builtin->required);
    return builtin->call(run, self, arg, out);
}

/* Methods of a text that went through `safe` give such texts, and escape what is put in. */
static tm_status call_on_markup(tm__run *run, const tm__method *method, const tm__args *args, tm__value *out) {
    tm__value list;
    tm__args escaped = *args;
    const char *name = method->function->name;
    if (strcmp(name, "format") == 0)
        return tm__run_fail(run, TM_UNSUPPORTED, "formatting a text that went through 'safe' is not supported");
    if (strcmp(name, "join") == 0 || strcmp(name, "replace") == 0) {
        const tm__items *items;
        tm__value whole = {.kind = TM__ABSENT};
        bool join = *name == 'j';
        if (args->count) whole = args->data[join ? 0 : args->count - 1];
        TM__TRY(tm__value_items(run, TM__LIST, 2, &list));
        if (join && args->count == 1) {
            tm__value parts;
            TM__TRY(tm__iterate(run, &whole, &items));
            TM__TRY(tm__value_items(run, TM__LIST, items->len, &parts));
            for (size_t i = 0; i < items->len; i++) {
                TM__TRY(tm__escape(run, &items->data[i], &whole));
                TM__TRY(tm__items_push(run, parts.items, whole));
            }
            TM__TRY(tm__items_push(run, list.items, parts));
        }
        for (size_t i = 0; !join && i < args->count; i++) {
            tm__value value = args->data[i];
            if (i == 1) TM__TRY(tm__escape(run, &args->data[i], &value));
            TM__TRY(tm__items_push(run, list.items, value));
        }
        escaped.data = list.items->data;
        escaped.count = list.items->len;
    }
    TM__TRY(tm__call_builtin(run, "method", method->function, &method->self, &escaped, out));
    if (out->kind == TM__TEXT) out->markup = true;
    for (size_t i = 0; tm__is_sequence(out) && i < out->items->len; i++)
        out->items->data[i].markup = out->items->data[i].kind == TM__TEXT;
    return TM_OK;
}

tm_status tm__call(tm__run *run, const tm__value *function, const tm__args *args, tm__value *out) {
    switch (function->kind) {
    case TM__FUNCTION:
        return tm__call_builtin(run, "function", function->function, NULL, args, out);
    case TM__METHOD:
        if (function->method->self.kind == TM__TEXT && function->method->self.markup)
            return call_on_markup(run, function->method, args, out);
        return tm__call_builtin(run, "method", function->method->function, &function->method->self, args, out);
    case TM__MACRO:
        return tm__macro_call(run, function->macro, args, out);
    case TM__LOOP:
        if (args->count != 1 || args->named_count) return tm__run_fail(run, TM_INVALID, "loop() takes one argument");
        return tm__loop_recurse(run, function->loop, &args->data[0], out);
    case TM__UNDEFINED:
        return tm__run_fail(run, TM_INVALID, "%s", function->hint);
    default:
        return tm__run_fail(run, TM_INVALID, "'%s' object is not callable", tm__type_name(function));
    }
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static bool is_one_of(const tm__str *name, const char *const *list) {
    for (; *list; list++)
        if (strlen(*list) == name->len && memcmp(*list, name->data, name->len) == 0) return true;
    return false;
}

/* Attributes that Python has and the sandbox forbids. */
static bool is_unsafe(const tm__value *of, const tm__str *name) {
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    if (name->len > 4 && memcmp(name->data, "__", 2) == 0 && memcmp(name->data + name->len - 2, "__", 2) == 0)
        return true;
    return (of->kind == TM__LIST && is_one_of(name, of_list)) || (of->kind == TM__DICT && is_one_of(name, of_dict));
}

static tm_status loop_attribute(tm__run *run, tm__loop *loop, const tm__str *name, bool *found, tm__value *out) {
    static const char *const names[] = {"index",     "index0", "first",  "last",     "length",  "revindex",
                                        "revindex0", "depth",  "depth0", "previtem", "nextitem"};
    const tm__value *next;
    int64_t length;
    size_t which = 0;
    while (which < TM__COUNT(names) &&
           !(strlen(names[which]) == name->len && memcmp(names[which], name->data, name->len) == 0))
        which++;
    *found = which < TM__COUNT(names);
    switch (which) {
    case 0:
    case 1:
        *out = tm__integer(loop->index0 + (which == 0));
        return TM_OK;
    case 2:
        *out = tm__truth(loop->index0 == 0);
        return TM_OK;
    case 3:
    case 10:
        TM__TRY(tm__loop_peek(run, loop, &next));
        *out = which == 3 ? tm__truth(!next) : next ? *next : tm__undefined(run, "there is no next item");
        return TM_OK;
    case 4:
    case 5:
    case 6:
        TM__TRY(tm__loop_length(run, loop, &length));
        *out = tm__integer(which == 4 ? length : which == 5 ? length - loop->index0 : length - loop->index0 - 1);
        return TM_OK;
    case 7:
    case 8:
        *out = tm__integer(loop->depth0 + (which == 7));
        return TM_OK;
    case 9:
        *out = loop->index0 == 0 ? tm__undefined(run, "there is no previous item") : loop->before;
        return TM_OK;
    default:
        return TM_OK;
    }
}

static const tm__builtin *method_of(const tm__value *of, const tm__str *name) {
    switch (of->kind) {
    case TM__TEXT:
        return tm__find_builtin(tm__str_methods, name);
    case TM__LIST:
    case TM__TUPLE:
    case TM__RANGE:
        return tm__find_builtin(tm__sequence_methods, name);
    case TM__DICT:
        return tm__find_builtin(tm__dict_methods, name);
    case TM__LOOP:
        return tm__find_builtin(tm__loop_methods, name);
    default:
        return NULL;
    }
}

/* What Python's getattr finds. */
static tm_status python_attribute(tm__run *run, const tm__value *of, const tm__str *name, bool *found, tm__value *out) {
    *found = true;
    if (is_unsafe(of, name)) {
        *out = tm__undefined(run, "access to attribute '%.*s' of '%s' object is unsafe.", (int)TM__MIN(name->len, 40u),
                             name->data, tm__type_name(of));
        return TM_OK;
    }
    const tm__builtin *builtin = method_of(of, name);
    if (builtin) {
        tm__method *method;
        TM__TRY(tm__run_alloc(run, 1, sizeof *method, &method));
        *method = (tm__method){*of, builtin};
        *out = (tm__value){.kind = TM__METHOD, .method = method};
        return TM_OK;
    }
    if (of->kind == TM__LOOP) return loop_attribute(run, of->loop, name, found, out);
    const tm__value *value = of->kind == TM__NAMESPACE ? tm__dict_text(of->dict, name->data, name->len) : NULL;
    if (value) *out = *value;
    if (of->kind == TM__MACRO && name->len == 4 && memcmp(name->data, "name", 4) == 0 && of->macro->node->name) {
        *out = (tm__value){.kind = TM__TEXT, .text = of->macro->node->name};
        return TM_OK;
    }
    *found = value != NULL;
    return TM_OK;
}

static tm__value no_attribute(tm__run *run, const tm__value *of, const tm__str *name) {
    const char *type = of->kind == TM__NONE ? "None" : tm__type_name(of);
    return tm__undefined(run, "'%s%s' has no attribute '%.*s'", type, of->kind == TM__NONE ? "" : " object",
                         (int)TM__MIN(name->len, 100u), name->data);
}

/* obj[key] where it can fail only by there being none. */
static tm_status element(tm__run *run, const tm__value *of, const tm__value *key, bool *found, tm__value *out) {
    int64_t index;
    *found = false;
    if (of->kind == TM__DICT) {
        const tm__value *value;
        bool hashable = key->kind < TM__LIST || key->kind == TM__TUPLE;
        if (!hashable) return TM_OK;
        TM__TRY(tm__dict_find(run, of->dict, key, &value));
        *found = value != NULL;
        if (value) *out = *value;
    } else if ((tm__is_sequence(of) || of->kind == TM__TEXT) && tm__as_integer(key, &index)) {
        int64_t length;
        TM__TRY(tm__length(run, of, &length));
        if (index < 0) index += length;
        *found = index >= 0 && index < length;
        if (!*found) return TM_OK;
        if (of->kind != TM__TEXT) {
            *out = of->items->data[index];
            return TM_OK;
        }
        TM__TRY(tm__run_step(run, of->text->len == of->text->chars ? 0 : of->text->len / 16));
        size_t at = tm__char_offset(of->text, (size_t)index);
        uint32_t code;
        int n = tm__char_at(of->text->data + at, of->text->len - at, &code);
        TM__TRY(tm__value_text(run, of->text->data + at, (size_t)n, out));
        out->markup = of->markup;
    }
    return TM_OK;
}

tm_status tm__attribute(tm__run *run, const tm__value *of, const tm__str *name, tm__value *out) {
    tm__value key = {.kind = TM__TEXT, .text = name};
    bool found;
    if (of->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", of->hint);
    TM__TRY(python_attribute(run, of, name, &found, out));
    if (!found) TM__TRY(element(run, of, &key, &found, out));
    if (!found) *out = no_attribute(run, of, name);
    return TM_OK;
}

tm_status tm__index(tm__run *run, const tm__value *of, const tm__value *index, tm__value *out) {
    bool found;
    if (of->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", of->hint);
    TM__TRY(element(run, of, index, &found, out));
    if (!found && index->kind == TM__TEXT) TM__TRY(python_attribute(run, of, index->text, &found, out));
    if (found) return TM_OK;
    if (index->kind == TM__TEXT) {
        *out = no_attribute(run, of, index->text);
        return TM_OK;
    }
    tm__buffer sink = {0};
    TM__TRY(index->kind <= TM__TUPLE ? tm__repr(run, index, &sink) : TM_OK);
    *out = tm__undefined(run, "%s object has no element %.*s", tm__type_name(of), (int)TM__MIN(sink.len, 100u),
                         sink.data ? sink.data : "");
    return TM_OK;
}

tm_status tm__slice(tm__run *run, const tm__value *of, const tm__value bounds[3], tm__value *out) {
    int64_t first, step;
    size_t count;
    if (of->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", of->hint);
    if (of->kind != TM__TEXT && !tm__is_sequence(of))
        return tm__run_fail(run, TM_INVALID, "'%s' object cannot be sliced", tm__type_name(of));
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind == TM__UNDEFINED || (bounds[i].kind > TM__INT && tm__given(&bounds[i])))
            return tm__run_fail(run, TM_INVALID, "slice indices must be integers or None, not %s",
                                tm__type_name(&bounds[i]));
    size_t length = of->kind == TM__TEXT ? of->text->chars : of->items->len;
    TM__TRY(tm__slice_range(run, bounds, length, &first, &step, &count));
    TM__TRY(tm__run_step(run, count));
    if (of->kind != TM__TEXT) {
        TM__TRY(tm__value_items(run, of->kind == TM__TUPLE ? TM__TUPLE : TM__LIST, count, out));
        for (size_t i = 0; i < count; i++)
            TM__TRY(tm__items_push(run, out->items, of->items->data[first + (int64_t)i * step]));
        return TM_OK;
    }
    const tm__str *text = of->text;
    TM__TRY(tm__run_step(run, text->len / 16));
    if (step == 1 || count == 0) {
        size_t from = count ? tm__char_offset(text, (size_t)first) : 0;
        tm__str rest = {text->data + from, text->len - from, text->chars - (size_t)(count ? first : 0)};
        TM__TRY(tm__value_text(run, rest.data, count ? tm__char_offset(&rest, count) : 0, out));
    } else {
        tm__buffer sink = {0};
        size_t *starts; /* byte of each character */
        TM__TRY(tm__run_alloc(run, text->chars + 1, sizeof *starts, &starts));
        for (size_t at = 0, i = 0; at <= text->len; at++)
            if (at == text->len || ((unsigned char)text->data[at] & 0xc0) != 0x80) starts[i++] = at;
        for (size_t i = 0; i < count; i++) {
            size_t index = (size_t)(first + (int64_t)i * step);
            TM__TRY(tm__buffer_put(run, &sink, text->data + starts[index], starts[index + 1] - starts[index]));
        }
        TM__TRY(tm__buffer_value(run, &sink, out));
    }
    out->markup = of->markup;
    return TM_OK;
}
