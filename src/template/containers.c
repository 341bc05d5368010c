/* containers.c: methods of lists, dicts and loops, and the global functions: range, dict, namespace, raise_exception,
 * strftime_now. */
#include "template/interpreter.h"

#include <time.h>

#define CALL(name) static tm_status name(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out)

/* ---- lists, tuples, ranges --------------------------------------------------------------------------------------- */

CALL(list_index) {
    bool equal = false;
    size_t i = 0;
    for (; i < self->items->len; i++) {
        TM__TRY(tm__equal(run, &self->items->data[i], arg, &equal));
        TM__TRY(tm__run_step(run, 1));
        if (equal) break;
    }
    if (!equal) return tm__run_fail(run, TM_INVALID, "the value is not in the %s", tm__type_name(self));
    *out = tm__integer((int64_t)i);
    return TM_OK;
}

CALL(list_count) {
    int64_t count = 0;
    for (size_t i = 0; i < self->items->len; i++) {
        bool equal;
        TM__TRY(tm__equal(run, &self->items->data[i], arg, &equal));
        TM__TRY(tm__run_step(run, 1));
        count += equal;
    }
    *out = tm__integer(count);
    return TM_OK;
}

CALL(list_copy) {
    (void)arg;
    TM__TRY(tm__value_items(run, TM__LIST, self->items->len, out));
    for (size_t i = 0; i < self->items->len; i++) TM__TRY(tm__items_push(run, out->items, self->items->data[i]));
    return TM_OK;
}

const tm__builtin tm__sequence_methods[] = {
    {"copy", "", 0, list_copy, NULL},
    {"count", "value", 1, list_count, NULL},
    {"index", "value", 1, list_index, NULL},
    {0},
};

/* ---- dicts ------------------------------------------------------------------------------------------------------- */

CALL(dict_get) {
    const tm__value *found;
    TM__TRY(tm__dict_find(run, self->dict, &arg[0], &found));
    *out = found ? *found : tm__given(&arg[1]) ? arg[1] : tm__none();
    return TM_OK;
}

static tm_status view(tm__run *run, const tm__value *self, const char *name, tm__value *out) {
    TM__TRY(tm__value_items(run, TM__VIEW, self->dict->len, out));
    out->items->name = name;
    for (size_t i = 0; i < self->dict->len; i++) {
        const tm__entry *entry = &self->dict->data[i];
        if (name[5] == 'i')
            TM__TRY(tm__items_pair(run, out->items, entry->key, entry->value));
        else
            TM__TRY(tm__items_push(run, out->items, name[5] == 'k' ? entry->key : entry->value));
    }
    return TM_OK;
}

CALL(dict_items) {
    (void)arg;
    return view(run, self, "dict_items", out);
}
CALL(dict_keys) {
    (void)arg;
    return view(run, self, "dict_keys", out);
}
CALL(dict_values) {
    (void)arg;
    return view(run, self, "dict_values", out);
}

CALL(dict_copy) {
    (void)arg;
    TM__TRY(tm__value_dict(run, TM__DICT, out));
    for (size_t i = 0; i < self->dict->len; i++)
        TM__TRY(tm__dict_put(run, out->dict, &self->dict->data[i].key, self->dict->data[i].value));
    return TM_OK;
}

const tm__builtin tm__dict_methods[] = {
    {"copy", "", 0, dict_copy, NULL},
    {"fromkeys", "", 0, NULL, NULL},
    {"get", "key default", 1, dict_get, NULL},
    {"items", "", 0, dict_items, NULL},
    {"keys", "", 0, dict_keys, NULL},
    {"values", "", 0, dict_values, NULL},
    {0},
};

/* ---- loops ------------------------------------------------------------------------------------------------------- */

static tm_status loop_cycle(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    if (args->count == 0 || args->named_count) return tm__run_fail(run, TM_INVALID, "no items for cycling given");
    *out = args->data[(size_t)self->loop->index0 % args->count];
    return TM_OK;
}

static tm_status loop_changed(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    tm__value given;
    bool same = false;
    if (args->named_count) return tm__run_fail(run, TM_INVALID, "loop.changed takes no named arguments");
    TM__TRY(tm__value_items(run, TM__TUPLE, args->count, &given));
    for (size_t i = 0; i < args->count; i++) TM__TRY(tm__items_push(run, given.items, args->data[i]));
    if (self->loop->has_changed) TM__TRY(tm__equal(run, &self->loop->changed, &given, &same));
    self->loop->has_changed = true;
    self->loop->changed = given;
    *out = tm__truth(!same);
    return TM_OK;
}

const tm__builtin tm__loop_methods[] = {
    {"changed", NULL, 0, NULL, loop_changed},
    {"cycle", NULL, 0, NULL, loop_cycle},
    {0},
};

/* ---- functions --------------------------------------------------------------------------------------------------- */

enum { RANGE_MOST = 100000 };

CALL(function_range) {
    int64_t part[3] = {0, 0, 1};
    (void)self;
    for (int i = 0; i < 3; i++) {
        if (!tm__given(&arg[i])) continue;
        if (!tm__as_integer(&arg[i], &part[i]))
            return tm__run_fail(run, TM_INVALID, "range needs integers, not %s", tm__type_name(&arg[i]));
    }
    int64_t start = tm__given(&arg[1]) ? part[0] : 0, end = tm__given(&arg[1]) ? part[1] : part[0], step = part[2];
    if (step == 0) return tm__run_fail(run, TM_INVALID, "range() arg 3 must not be zero");
    uint64_t distance = 0, stride = step < 0 ? 0 - (uint64_t)step : (uint64_t)step;
    if (step > 0 && end > start) distance = (uint64_t)end - (uint64_t)start;
    if (step < 0 && start > end) distance = (uint64_t)start - (uint64_t)end;
    uint64_t count = distance / stride + (distance % stride != 0);
    if (count > RANGE_MOST)
        return tm__run_fail(run, TM_INVALID, "the sandbox blocks ranges of more than %d elements", RANGE_MOST);
    TM__TRY(tm__value_items(run, TM__RANGE, count, out));
    out->items->start = start;
    out->items->end = end;
    out->items->step = step;
    for (uint64_t i = 0; i < count; i++)
        TM__TRY(tm__items_push(run, out->items, tm__integer((int64_t)((uint64_t)start + i * (uint64_t)step))));
    return TM_OK;
}

/* A mapping or pairs, and named arguments, into a dict. */
static tm_status fill(tm__run *run, const tm__args *args, tm__dict *dict) {
    const tm__items *pairs = NULL;
    if (args->count > 1) return tm__run_fail(run, TM_INVALID, "dict expected at most 1 argument, got %zu", args->count);
    if (args->count && (args->data[0].kind == TM__DICT || args->data[0].kind == TM__NAMESPACE)) {
        for (size_t i = 0; i < args->data[0].dict->len; i++)
            TM__TRY(tm__dict_put(run, dict, &args->data[0].dict->data[i].key, args->data[0].dict->data[i].value));
    } else if (args->count) {
        TM__TRY(tm__iterate(run, &args->data[0], &pairs));
    }
    for (size_t i = 0; pairs && i < pairs->len; i++) {
        const tm__items *pair;
        TM__TRY(tm__iterate(run, &pairs->data[i], &pair));
        if (pair->len != 2) return tm__run_fail(run, TM_INVALID, "a dict is made of pairs");
        TM__TRY(tm__dict_put(run, dict, &pair->data[0], pair->data[1]));
    }
    for (size_t i = 0; i < args->named_count; i++) {
        tm__value key = {.kind = TM__TEXT, .text = args->named[i].name};
        TM__TRY(tm__dict_put(run, dict, &key, args->named[i].value));
    }
    return TM_OK;
}

static tm_status function_dict(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    (void)self;
    TM__TRY(tm__value_dict(run, TM__DICT, out));
    return fill(run, args, out->dict);
}

static tm_status function_namespace(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    (void)self;
    TM__TRY(tm__value_dict(run, TM__NAMESPACE, out));
    TM__TRY(fill(run, args, out->dict));
    for (size_t i = 0; i < out->dict->len; i++) {
        const tm__value *key = &out->dict->data[i].key;
        if (key->kind == TM__TEXT && key->text->len && *key->text->data == '_')
            return tm__run_fail(run, TM_INVALID, "attributes of a namespace cannot begin with an underscore");
    }
    return TM_OK;
}

CALL(function_raise) {
    tm__value text;
    (void)self;
    TM__TRY(tm__as_text(run, arg, &text));
    (void)out;
    return tm__run_fail(run, TM_INVALID, "%.*s", (int)TM__MIN(text.text->len, 300u), text.text->data);
}

/* As C's strftime has it, in local time. A character before the format tells an empty text from one that is too long.
 */
CALL(function_strftime) {
    char text[4096];
    struct tm when;
    time_t now = run->now < 0 ? time(NULL) : (time_t)run->now;
    tm__buffer format = {0};
    (void)self;
    if (arg->kind != TM__TEXT) return tm__run_fail(run, TM_INVALID, "strftime_now needs a text");
    TM__TRY(tm__buffer_put(run, &format, "-", 1));
    TM__TRY(tm__buffer_put(run, &format, arg->text->data, arg->text->len));
    TM__TRY(tm__buffer_put(run, &format, "", 1));
    if (!localtime_r(&now, &when)) return tm__run_fail(run, TM_INVALID, "the clock shows no date");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t len = strftime(text, sizeof text, format.data, &when);
#pragma GCC diagnostic pop
    if (len == 0 || !tm__utf8_valid(text, len))
        return tm__run_fail(run, TM_INVALID, "the format of strftime_now gives too long a text, or none that is UTF-8");
    return tm__value_text(run, text + 1, len - 1, out);
}

const tm__builtin tm__functions[] = {
    {"cycler", "", 0, NULL, NULL},
    {"dict", NULL, 0, NULL, function_dict},
    {"joiner", "", 0, NULL, NULL},
    {"lipsum", "", 0, NULL, NULL},
    {"namespace", NULL, 0, NULL, function_namespace},
    {"raise_exception", "message", 1, function_raise, NULL},
    {"range", "start stop step", 1, function_range, NULL},
    {"strftime_now", "format", 1, function_strftime, NULL},
    {0},
};
