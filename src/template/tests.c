/* tests.c: what may stand behind `is`. */
#include "template/interpreter.h"

#define CALL(name) static tm_status name(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out)

static tm_status give(tm__value *out, bool holds) {
    *out = tm__truth(holds);
    return TM_OK;
}

CALL(test_defined) {
    (void)run, (void)arg;
    return give(out, self->kind != TM__UNDEFINED);
}
CALL(test_undefined) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__UNDEFINED);
}
CALL(test_none) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__NONE);
}
CALL(test_boolean) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__BOOL);
}
CALL(test_true) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__BOOL && self->truth);
}
CALL(test_false) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__BOOL && !self->truth);
}
CALL(test_integer) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__INT);
}
CALL(test_float) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__REAL);
}
CALL(test_number) {
    (void)run, (void)arg;
    return give(out, tm__is_number(self));
}
CALL(test_string) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__TEXT);
}
CALL(test_mapping) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__DICT);
}
CALL(test_sequence) { /* Undefined has a length, and its __getitem__ is an attribute like any other */
    (void)run, (void)arg;
    return give(out, tm__is_sequence(self) || self->kind == TM__TEXT || self->kind == TM__DICT ||
                         self->kind == TM__UNDEFINED);
}
CALL(test_iterable) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__UNDEFINED || (self->kind >= TM__TEXT && self->kind <= TM__ITERATOR) ||
                         self->kind == TM__LOOP);
}
CALL(test_callable) {
    (void)run, (void)arg;
    return give(out, self->kind >= TM__LOOP || self->kind == TM__UNDEFINED);
}
CALL(test_escaped) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__TEXT && self->markup);
}

static tm_status remainder_is(tm__run *run, const tm__value *self, int64_t divisor, int64_t wanted, tm__value *out) {
    const tm__value by = tm__integer(divisor), want = tm__integer(wanted);
    tm__value rest;
    bool equal;
    TM__TRY(tm__operate(run, '%', self, &by, &rest));
    TM__TRY(tm__equal(run, &rest, &want, &equal));
    return give(out, equal);
}

CALL(test_odd) {
    (void)arg;
    return remainder_is(run, self, 2, 1, out);
}
CALL(test_even) {
    (void)arg;
    return remainder_is(run, self, 2, 0, out);
}
CALL(test_divisibleby) {
    const tm__value zero = tm__integer(0);
    tm__value rest;
    bool equal;
    TM__TRY(tm__operate(run, '%', self, arg, &rest));
    TM__TRY(tm__equal(run, &rest, &zero, &equal));
    return give(out, equal);
}

static tm_status in_case(tm__run *run, const tm__value *self, const char *method, tm__value *out) {
    const tm__str name = {method, strlen(method), strlen(method)};
    tm__value text;
    TM__TRY(tm__as_text(run, self, &text));
    return tm__call_builtin(run, "method", tm__find_builtin(tm__str_methods, &name), &text, &(tm__args){0}, out);
}

CALL(test_lower) {
    (void)arg;
    return in_case(run, self, "islower", out);
}
CALL(test_upper) {
    (void)arg;
    return in_case(run, self, "isupper", out);
}

CALL(test_eq) {
    bool equal;
    TM__TRY(tm__equal(run, self, arg, &equal));
    return give(out, equal);
}
CALL(test_ne) {
    bool equal;
    TM__TRY(tm__equal(run, self, arg, &equal));
    return give(out, !equal);
}
CALL(test_gt) {
    int order;
    TM__TRY(tm__compare(run, self, arg, ">", &order));
    return give(out, order > 0);
}
CALL(test_ge) {
    int order;
    TM__TRY(tm__compare(run, self, arg, ">=", &order));
    return give(out, order >= 0);
}
CALL(test_lt) {
    int order;
    TM__TRY(tm__compare(run, self, arg, "<", &order));
    return give(out, order < 0);
}
CALL(test_le) {
    int order;
    TM__TRY(tm__compare(run, self, arg, "<=", &order));
    return give(out, order <= 0);
}

CALL(test_in) {
    bool contains;
    TM__TRY(tm__contains(run, arg, self, &contains));
    return give(out, contains);
}

/* The same object: for what Python makes once. */
CALL(test_sameas) {
    (void)run;
    bool same = self->kind == arg->kind;
    if (self->kind == TM__BOOL)
        same = same && self->truth == arg->truth;
    else if (self->kind == TM__INT)
        same = same && self->integer == arg->integer;
    else if (self->kind != TM__NONE)
        same = same && self->items == arg->items;
    return give(out, same);
}

static const tm__builtin *find_test(const tm__str *name) {
    return tm__find_builtin(tm__tests, name);
}

CALL(test_test) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__TEXT && find_test(self->text) != NULL);
}
CALL(test_filter) {
    (void)run, (void)arg;
    return give(out, self->kind == TM__TEXT && (tm__find_builtin(tm__value_filters, self->text) ||
                                                tm__find_builtin(tm__sequence_filters, self->text)));
}

const tm__builtin tm__tests[] = {
    {"!=", "other", 1, test_ne, NULL},
    {"<", "other", 1, test_lt, NULL},
    {"<=", "other", 1, test_le, NULL},
    {"==", "other", 1, test_eq, NULL},
    {">", "other", 1, test_gt, NULL},
    {">=", "other", 1, test_ge, NULL},
    {"boolean", "", 0, test_boolean, NULL},
    {"callable", "", 0, test_callable, NULL},
    {"defined", "", 0, test_defined, NULL},
    {"divisibleby", "num", 1, test_divisibleby, NULL},
    {"eq", "other", 1, test_eq, NULL},
    {"equalto", "other", 1, test_eq, NULL},
    {"escaped", "", 0, test_escaped, NULL},
    {"even", "", 0, test_even, NULL},
    {"false", "", 0, test_false, NULL},
    {"filter", "", 0, test_filter, NULL},
    {"float", "", 0, test_float, NULL},
    {"ge", "other", 1, test_ge, NULL},
    {"greaterthan", "other", 1, test_gt, NULL},
    {"gt", "other", 1, test_gt, NULL},
    {"in", "seq", 1, test_in, NULL},
    {"integer", "", 0, test_integer, NULL},
    {"iterable", "", 0, test_iterable, NULL},
    {"le", "other", 1, test_le, NULL},
    {"lessthan", "other", 1, test_lt, NULL},
    {"lower", "", 0, test_lower, NULL},
    {"lt", "other", 1, test_lt, NULL},
    {"mapping", "", 0, test_mapping, NULL},
    {"ne", "other", 1, test_ne, NULL},
    {"none", "", 0, test_none, NULL},
    {"number", "", 0, test_number, NULL},
    {"odd", "", 0, test_odd, NULL},
    {"sameas", "other", 1, test_sameas, NULL},
    {"sequence", "", 0, test_sequence, NULL},
    {"string", "", 0, test_string, NULL},
    {"test", "", 0, test_test, NULL},
    {"true", "", 0, test_true, NULL},
    {"undefined", "", 0, test_undefined, NULL},
    {"upper", "", 0, test_upper, NULL},
    {0},
};

tm_status tm__test(tm__run *run, const tm__str *name, const tm__value *value, const tm__args *args, bool *out) {
    const tm__builtin *builtin = find_test(name);
    tm__value holds;
    if (!builtin)
        return tm__run_fail(run, TM_FORMAT, "there is no test '%.*s'", (int)TM__MIN(name->len, 40u), name->data);
    TM__TRY(tm__call_builtin(run, "test", builtin, value, args, &holds));
    *out = holds.truth;
    return TM_OK;
}
