/* eval.c: expressions: names, operators, calls. Arithmetic is Python's on 64-bit integers and doubles; what leaves 64
 * bits is an error. */
#include "template/interpreter.h"

#include <stdlib.h>

/* ---- names ------------------------------------------------------------------------------------------------------- */

static tm_status eval_name(tm__run *run, const tm__str *name, tm__value *out) {
    size_t passed = 0;
    for (const tm__scope *scope = run->scope; scope; scope = scope->outer)
        for (const tm__binding *binding = scope->bindings; binding; binding = binding->next, passed++)
            if (binding->name == name) {
                *out = binding->value;
                return tm__run_step(run, passed / 16);
            }
    TM__TRY(tm__run_step(run, (passed + run->globals->len) / 16));
    const tm__value *global = tm__dict_text(run->globals, name->data, name->len);
    const tm__builtin *function = global ? NULL : tm__find_builtin(tm__functions, name);
    if (global)
        *out = *global;
    else if (function)
        *out = (tm__value){.kind = TM__FUNCTION, .function = function};
    else
        *out = tm__undefined(run, "'%.*s' is undefined", (int)TM__MIN(name->len, 100u), name->data);
    return TM_OK;
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static const char *sign_text(unsigned sign, char out[3]) {
    out[0] = (char)(sign & 0xff);
    out[1] = (char)(sign >> 8);
    out[2] = 0;
    return out;
}

static tm_status no_operation(tm__run *run, unsigned sign, const tm__value *a, const tm__value *b) {
    char text[3];
    if (a->kind == TM__UNDEFINED || b->kind == TM__UNDEFINED)
        return tm__run_fail(run, TM_INVALID, "%s", a->kind == TM__UNDEFINED ? a->hint : b->hint);
    return tm__run_fail(run, TM_INVALID, "unsupported operand type(s) for %s: '%s' and '%s'", sign_text(sign, text),
                        tm__type_name(a), tm__type_name(b));
}

static tm_status overflow(tm__run *run) {
    return tm__run_fail(run, TM_UNSUPPORTED, "an integer leaves 64 bits");
}

static tm_status power(tm__run *run, int64_t base, int64_t exponent, tm__value *out) {
    int64_t product = 1;
    if (exponent < 0) {
        if (base == 0) return tm__run_fail(run, TM_INVALID, "division by zero");
        *out = tm__real(pow((double)base, (double)exponent));
        return TM_OK;
    }
    for (int64_t i = 0; i < exponent && product != 0 && !(base == 1); i++) {
        if (base == -1) {
            product = exponent % 2 ? -1 : 1;
            break;
        }
        if (__builtin_mul_overflow(product, base, &product)) return overflow(run);
    }
    *out = tm__integer(product);
    return TM_OK;
}

static tm_status operate_integers(tm__run *run, unsigned sign, int64_t a, int64_t b, tm__value *out) {
    int64_t result = 0;
    bool over = false;
    bool divides = sign == '/' || sign == '%' || sign == TM__SIGN2('/', '/');
    if (divides && b == 0) return tm__run_fail(run, TM_INVALID, "division by zero");
    if (divides && a == INT64_MIN && b == -1) return overflow(run);
    switch (sign) {
    case '+':
        over = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case '/':
        *out = tm__real((double)a / (double)b);
        return TM_OK;
    case '%':
        result = a % b;
        if (result && (result < 0) != (b < 0)) result += b;
        break;
    case TM__SIGN2('/', '/'):
        result = a / b - (a % b && (a % b < 0) != (b < 0));
        break;
    default:
        return power(run, a, b, out);
    }
    *out = tm__integer(result);
    return over ? overflow(run) : TM_OK;
}

static tm_status operate_reals(tm__run *run, unsigned sign, double a, double b, tm__value *out) {
    double rest, quotient, result;
    bool divides = sign == '/' || sign == '%' || sign == TM__SIGN2('/', '/');
    if (divides && b == 0) return tm__run_fail(run, TM_INVALID, "division by zero");
    rest = divides ? fmod(a, b) : 0;
    quotient = divides ? (a - rest) / b : 0;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
        quotient -= 1;
    } else if (rest == 0) {
        rest = copysign(0, b);
    }
    switch (sign) {
    case '+':
        result = a + b;
        break;
    case '-':
        result = a - b;
        break;
    case '*':
        result = a * b;
        break;
    case '/':
        result = a / b;
        break;
    case '%':
        result = rest;
        break;
    case TM__SIGN2('/', '/'):
        result = quotient == 0 ? copysign(0, a / b) : floor(quotient) + (quotient - floor(quotient) > 0.5);
        break;
    default:
        if (a == 0 && b < 0) return tm__run_fail(run, TM_INVALID, "zero cannot be raised to a negative power");
        if (a < 0 && b != floor(b)) return tm__run_fail(run, TM_UNSUPPORTED, "complex numbers are not supported");
        result = pow(a, b);
        if (isinf(result) && isfinite(a) && isfinite(b))
            return tm__run_fail(run, TM_INVALID, "numerical result out of range");
    }
    *out = tm__real(result);
    return TM_OK;
}

static tm_status add_texts(tm__run *run, const tm__value *a, const tm__value *b, tm__value *out) {
    tm__buffer sink = {0};
    tm__value left = *a, right = *b;
    bool markup = a->markup || b->markup;
    if (markup) TM__TRY(tm__escape(run, a, &left));
    if (markup) TM__TRY(tm__escape(run, b, &right));
    TM__TRY(tm__print(run, &left, &sink));
    TM__TRY(tm__print(run, &right, &sink));
    TM__TRY(tm__buffer_value(run, &sink, out));
    out->markup = markup;
    return TM_OK;
}

static tm_status add_items(tm__run *run, const tm__value *a, const tm__value *b, tm__value *out) {
    TM__TRY(tm__value_items(run, a->kind, a->items->len + b->items->len, out));
    for (size_t i = 0; i < a->items->len; i++) TM__TRY(tm__items_push(run, out->items, a->items->data[i]));
    for (size_t i = 0; i < b->items->len; i++) TM__TRY(tm__items_push(run, out->items, b->items->data[i]));
    return TM_OK;
}

static tm_status repeat(tm__run *run, const tm__value *value, int64_t times, tm__value *out) {
    tm__buffer sink = {0};
    if (value->kind == TM__TEXT) {
        for (int64_t i = 0; i < times && value->text->len; i++) {
            TM__TRY(tm__run_step(run, 1));
            TM__TRY(tm__print(run, value, &sink));
        }
        TM__TRY(tm__buffer_value(run, &sink, out));
        out->markup = value->markup;
        return TM_OK;
    }
    TM__TRY(tm__value_items(run, value->kind, 0, out));
    for (int64_t n = 0; n < times && value->items->len; n++)
        for (size_t i = 0; i < value->items->len; i++) TM__TRY(tm__items_push(run, out->items, value->items->data[i]));
    return TM_OK;
}

static bool repeatable(const tm__value *value) {
    return value->kind == TM__TEXT || value->kind == TM__LIST || value->kind == TM__TUPLE;
}

tm_status tm__operate(tm__run *run, unsigned sign, const tm__value *a, const tm__value *b, tm__value *out) {
    int64_t x, y;
    if (sign == '%' && a->kind == TM__TEXT) return tm__format_percent(run, a->text, b, out);
    if (tm__as_integer(a, &x) && tm__as_integer(b, &y)) return operate_integers(run, sign, x, y, out);
    if (tm__is_number(a) && tm__is_number(b)) return operate_reals(run, sign, tm__as_real(a), tm__as_real(b), out);
    if (sign == '*' && repeatable(a) && tm__as_integer(b, &y)) return repeat(run, a, y, out);
    if (sign == '*' && repeatable(b) && tm__as_integer(a, &x)) return repeat(run, b, x, out);
    if (sign == '+' && a->kind == TM__TEXT && b->kind == TM__TEXT) return add_texts(run, a, b, out);
    if (sign == '+' && a->kind == b->kind && repeatable(a)) return add_items(run, a, b, out);
    return no_operation(run, sign, a, b);
}

static tm_status eval_unary(tm__run *run, const tm__node *node, tm__value *out) {
    int64_t integer;
    TM__TRY(tm__eval(run, node->a, out));
    if (tm__as_integer(out, &integer)) {
        if (node->op == '-' && integer == INT64_MIN) return overflow(run);
        *out = tm__integer(node->op == '-' ? -integer : integer);
    } else if (out->kind == TM__REAL) {
        *out = tm__real(node->op == '-' ? -out->real : out->real);
    } else if (out->kind == TM__UNDEFINED) {
        return tm__run_fail(run, TM_INVALID, "%s", out->hint);
    } else {
        return tm__run_fail(run, TM_INVALID, "bad operand type for unary %c: '%s'", node->op, tm__type_name(out));
    }
    return TM_OK;
}

static tm_status compare_pair(tm__run *run, unsigned op, const tm__value *a, const tm__value *b, bool *holds) {
    char text[3];
    int order;
    switch (op) {
    case TM__SIGN2('=', '='):
        return tm__equal(run, a, b, holds);
    case TM__SIGN2('!', '='):
        TM__TRY(tm__equal(run, a, b, holds));
        *holds = !*holds;
        return TM_OK;
    case TM__OP_IN:
        return tm__contains(run, b, a, holds);
    case TM__OP_NOT_IN:
        TM__TRY(tm__contains(run, b, a, holds));
        *holds = !*holds;
        return TM_OK;
    }
    TM__TRY(tm__compare(run, a, b, sign_text(op, text), &order));
    if ((a->kind == TM__REAL && isnan(a->real)) || (b->kind == TM__REAL && isnan(b->real)))
        *holds = false;
    else
        *holds = op == '<' ? order < 0 : op == '>' ? order > 0 : op == TM__SIGN2('<', '=') ? order <= 0 : order >= 0;
    return TM_OK;
}

static tm_status eval_compare(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value left, right;
    bool holds = true;
    TM__TRY(tm__eval(run, node->a, &left));
    for (size_t i = 0; i < node->list.len && holds; i++) {
        TM__TRY(tm__eval(run, node->list.data[i]->a, &right));
        TM__TRY(compare_pair(run, node->list.data[i]->op, &left, &right, &holds));
        left = right;
    }
    *out = tm__truth(holds);
    return TM_OK;
}

static tm_status eval_binary(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value a, b;
    TM__TRY(tm__eval(run, node->a, &a));
    TM__TRY(tm__eval(run, node->b, &b));
    if (node->op == '%' && a.kind == TM__TEXT && a.markup)
        return tm__run_fail(run, TM_UNSUPPORTED, "formatting a text that went through 'safe' is not supported");
    return tm__operate(run, node->op, &a, &b, out);
}

static tm_status eval_concat(tm__run *run, const tm__node *node, tm__value *out) {
    tm__buffer sink = {0};
    for (size_t i = 0; i < node->list.len; i++) {
        tm__value value;
        TM__TRY(tm__eval(run, node->list.data[i], &value));
        TM__TRY(tm__print(run, &value, &sink));
    }
    return tm__buffer_value(run, &sink, out);
}

static tm_status eval_logic(tm__run *run, const tm__node *node, tm__value *out) {
    TM__TRY(tm__eval(run, node->a, out));
    if (node->kind == TM__NODE_NOT) {
        *out = tm__truth(!tm__is_true(out));
        return TM_OK;
    }
    return tm__is_true(out) == (node->kind == TM__NODE_AND) ? tm__eval(run, node->b, out) : TM_OK;
}

static tm_status eval_choice(tm__run *run, const tm__node *node, tm__value *out) {
    TM__TRY(tm__eval(run, node->a, out));
    if (tm__is_true(out)) return tm__eval(run, node->b, out);
    if (node->c) return tm__eval(run, node->c, out);
    *out = tm__undefined(run, "the inline if-expression evaluated to false and no else section was defined");
    return TM_OK;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static tm_status star_arguments(tm__run *run, const tm__node *node, tm__items *values) {
    tm__value star;
    const tm__items *items;
    if (!node->star) return TM_OK;
    TM__TRY(tm__eval(run, node->star, &star));
    TM__TRY(tm__iterate(run, &star, &items));
    for (size_t i = 0; i < items->len; i++) TM__TRY(tm__items_push(run, values, items->data[i]));
    return TM_OK;
}

static tm_status named_arguments(tm__run *run, const tm__node *node, tm__args *args) {
    tm__value more = {0};
    size_t extra = 0;
    tm__named *named;
    if (node->star_star) {
        TM__TRY(tm__eval(run, node->star_star, &more));
        if (more.kind != TM__DICT) return tm__run_fail(run, TM_INVALID, "what stands behind ** must be a mapping");
        extra = more.dict->len;
    }
    TM__TRY(tm__run_alloc(run, node->named.len + extra + 1, sizeof *named, &named));
    for (size_t i = 0; i < node->named.len; i++) {
        named[i].name = node->named.data[i]->name;
        TM__TRY(tm__eval(run, node->named.data[i]->a, &named[i].value));
    }
    for (size_t i = 0; i < extra; i++) {
        if (more.dict->data[i].key.kind != TM__TEXT) return tm__run_fail(run, TM_INVALID, "keywords must be strings");
        named[node->named.len + i] = (tm__named){more.dict->data[i].key.text, more.dict->data[i].value};
    }
    args->named = named;
    args->named_count = node->named.len + extra;
    return TM_OK;
}

static tm_status eval_arguments(tm__run *run, const tm__node *node, tm__args *args) {
    tm__value values;
    *args = (tm__args){0};
    if (node->list.len || node->star) {
        TM__TRY(tm__value_items(run, TM__LIST, node->list.len, &values));
        for (size_t i = 0; i < node->list.len; i++) {
            tm__value value;
            TM__TRY(tm__eval(run, node->list.data[i], &value));
            TM__TRY(tm__items_push(run, values.items, value));
        }
        TM__TRY(star_arguments(run, node, values.items));
        args->data = values.items->data;
        args->count = values.items->len;
    }
    return node->named.len || node->star_star ? named_arguments(run, node, args) : TM_OK;
}

static tm_status eval_call(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value function;
    tm__args args;
    TM__TRY(tm__eval(run, node->a, &function));
    TM__TRY(eval_arguments(run, node, &args));
    run->line = node->line;
    return tm__call(run, &function, &args, out);
}

static tm_status eval_filter(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value value;
    tm__args args;
    TM__TRY(tm__eval(run, node->a, &value));
    TM__TRY(eval_arguments(run, node, &args));
    run->line = node->line;
    return tm__filter(run, node->name, &value, &args, out);
}

static tm_status eval_test(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value value;
    tm__args args;
    bool holds = false;
    TM__TRY(tm__eval(run, node->a, &value));
    TM__TRY(eval_arguments(run, node, &args));
    run->line = node->line;
    TM__TRY(tm__test(run, node->name, &value, &args, &holds));
    *out = tm__truth(holds);
    return TM_OK;
}

/* ---- compound values --------------------------------------------------------------------------------------------- */

static tm_status eval_items(tm__run *run, const tm__node *node, tm__value *out) {
    TM__TRY(tm__value_items(run, node->kind == TM__NODE_LIST ? TM__LIST : TM__TUPLE, node->list.len, out));
    for (size_t i = 0; i < node->list.len; i++) {
        tm__value value;
        TM__TRY(tm__eval(run, node->list.data[i], &value));
        TM__TRY(tm__items_push(run, out->items, value));
    }
    return TM_OK;
}

static tm_status eval_dict(tm__run *run, const tm__node *node, tm__value *out) {
    TM__TRY(tm__value_dict(run, TM__DICT, out));
    for (size_t i = 0; i + 1 < node->list.len; i += 2) {
        tm__value key, value;
        TM__TRY(tm__eval(run, node->list.data[i], &key));
        TM__TRY(tm__eval(run, node->list.data[i + 1], &value));
        TM__TRY(tm__dict_put(run, out->dict, &key, value));
    }
    return TM_OK;
}

static tm_status eval_access(tm__run *run, const tm__node *node, tm__value *out) {
    tm__value of, bounds[3] = {{.kind = TM__ABSENT}, {.kind = TM__ABSENT}, {.kind = TM__ABSENT}};
    TM__TRY(tm__eval(run, node->a, &of));
    if (node->kind == TM__NODE_ATTRIBUTE) {
        run->line = node->line;
        return tm__attribute(run, &of, node->name, out);
    }
    if (node->kind == TM__NODE_INDEX) TM__TRY(tm__eval(run, node->b, &bounds[0]));
    for (size_t i = 0; i < node->list.len; i++)
        if (node->list.data[i]) TM__TRY(tm__eval(run, node->list.data[i], &bounds[i]));
    run->line = node->line;
    return node->kind == TM__NODE_INDEX ? tm__index(run, &of, &bounds[0], out) : tm__slice(run, &of, bounds, out);
}

static tm_status eval_one(tm__run *run, const tm__node *node, tm__value *out) {
    switch (node->kind) {
    case TM__NODE_CONSTANT:
        *out = node->constant;
        return TM_OK;
    case TM__NODE_NAME:
        return eval_name(run, node->name, out);
    case TM__NODE_LIST:
    case TM__NODE_TUPLE:
        return eval_items(run, node, out);
    case TM__NODE_DICT:
        return eval_dict(run, node, out);
    case TM__NODE_ATTRIBUTE:
    case TM__NODE_INDEX:
    case TM__NODE_SLICE:
        return eval_access(run, node, out);
    case TM__NODE_CALL:
        return eval_call(run, node, out);
    case TM__NODE_FILTER:
        return eval_filter(run, node, out);
    case TM__NODE_TEST:
        return eval_test(run, node, out);
    case TM__NODE_UNARY:
        return eval_unary(run, node, out);
    case TM__NODE_BINARY:
        return eval_binary(run, node, out);
    case TM__NODE_CONCAT:
        return eval_concat(run, node, out);
    case TM__NODE_COMPARE:
        return eval_compare(run, node, out);
    case TM__NODE_CHOICE:
        return eval_choice(run, node, out);
    default:
        return eval_logic(run, node, out);
    }
}

tm_status tm__eval(tm__run *run, const tm__node *node, tm__value *out) {
    TM__TRY(tm__run_deeper(run));
    TM__TRY(tm__run_step(run, 1));
    run->line = node->line;
    TM__TRY(eval_one(run, node, out));
    run->left.depth++;
    return TM_OK;
}
