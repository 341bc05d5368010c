/* expression.c: tokens to the tree: expressions, with the precedence of Jinja2's parser:
 *
 *     a if b else c < or < and < not < comparisons, in < + - < ~ < * / // % < ** (to the left) < - + < . [] () < | is
 *
 * Pinned by tests/golden/test_templates.c.
 */
#include "template/interpreter.h"

static tm_status parse_unary(tm__parser *p, bool with_filter, tm__node **node);
static tm_status parse_primary(tm__parser *p, bool target, tm__node **node);

static int line_here(const tm__parser *p) {
    return tm__parse_peek(p, 0)->line;
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static tm_status parse_pow(tm__parser *p, tm__node **node) {
    int line = line_here(p);
    TM__TRY(parse_unary(p, true, node));
    while (tm__parse_skip_sign(p, TM__SIGN2('*', '*'))) {
        tm__node *left = *node;
        TM__TRY(tm__parse_node(p, TM__NODE_BINARY, line, node));
        (*node)->op = TM__SIGN2('*', '*');
        (*node)->a = left;
        TM__TRY(parse_unary(p, true, &(*node)->b));
    }
    return TM_OK;
}

/* Operators of one rank, joined from the left. */
static tm_status parse_left(tm__parser *p, const unsigned *signs, size_t count,
                            tm_status (*operand)(tm__parser *p, tm__node **node), tm__node **node) {
    int line = line_here(p);
    TM__TRY(operand(p, node));
    for (size_t i = 0; i < count; i++) {
        if (!tm__parse_skip_sign(p, signs[i])) continue;
        tm__node *left = *node;
        TM__TRY(tm__parse_node(p, TM__NODE_BINARY, line, node));
        (*node)->op = (uint16_t)signs[i];
        (*node)->a = left;
        TM__TRY(operand(p, &(*node)->b));
        i = (size_t)-1; /* from the first sign again */
    }
    return TM_OK;
}

static tm_status parse_product(tm__parser *p, tm__node **node) {
    static const unsigned signs[] = {'*', '/', TM__SIGN2('/', '/'), '%'};
    return parse_left(p, signs, TM__COUNT(signs), parse_pow, node);
}

static tm_status parse_concat(tm__parser *p, tm__node **node) {
    tm__node *first;
    int line = line_here(p);
    TM__TRY(parse_product(p, node));
    if (!tm__parse_is_sign(p, '~')) return TM_OK;
    first = *node;
    TM__TRY(tm__parse_node(p, TM__NODE_CONCAT, line, node));
    TM__TRY(tm__parse_push(p, &(*node)->list, first));
    while (tm__parse_skip_sign(p, '~')) {
        tm__node *next;
        TM__TRY(parse_product(p, &next));
        TM__TRY(tm__parse_push(p, &(*node)->list, next));
    }
    return TM_OK;
}

static tm_status parse_sum(tm__parser *p, tm__node **node) {
    static const unsigned signs[] = {'+', '-'};
    return parse_left(p, signs, TM__COUNT(signs), parse_concat, node);
}

/* 0: no comparison here. Skips it. */
static unsigned comparison(tm__parser *p) {
    static const unsigned signs[] = {TM__SIGN2('=', '='), TM__SIGN2('!', '='), '<', TM__SIGN2('<', '='), '>',
                                     TM__SIGN2('>', '=')};
    for (size_t i = 0; i < TM__COUNT(signs); i++)
        if (tm__parse_skip_sign(p, signs[i])) return signs[i];
    if (tm__parse_skip_name(p, "in")) return TM__OP_IN;
    const tm__token *next = tm__parse_peek(p, 1);
    if (tm__parse_is_name(p, "not") && next->kind == TM__TOKEN_NAME && next->text.len == 2 &&
        memcmp(next->text.data, "in", 2) == 0) {
        p->at += 2;
        return TM__OP_NOT_IN;
    }
    return 0;
}

/* a < b <= c: the operands behind a in `list`, each in a node that holds the operator. */
static tm_status parse_compare(tm__parser *p, tm__node **node) {
    int line = line_here(p);
    TM__TRY(parse_sum(p, node));
    tm__node *chain = NULL;
    for (unsigned op; (op = comparison(p)) != 0;) {
        tm__node *operand;
        if (!chain) {
            TM__TRY(tm__parse_node(p, TM__NODE_COMPARE, line, &chain));
            chain->a = *node;
            *node = chain;
        }
        TM__TRY(tm__parse_node(p, TM__NODE_UNARY, line, &operand));
        operand->op = (uint16_t)op;
        TM__TRY(parse_sum(p, &operand->a));
        TM__TRY(tm__parse_push(p, &chain->list, operand));
    }
    return TM_OK;
}

static tm_status parse_not(tm__parser *p, tm__node **node) {
    int line = line_here(p);
    if (!tm__parse_skip_name(p, "not")) return parse_compare(p, node);
    TM__TRY(tm__parse_deeper(p));
    TM__TRY(tm__parse_node(p, TM__NODE_NOT, line, node));
    TM__TRY(parse_not(p, &(*node)->a));
    p->depth--;
    return TM_OK;
}

static tm_status parse_word(tm__parser *p, const char *word, tm__node_kind kind,
                            tm_status (*operand)(tm__parser *p, tm__node **node), tm__node **node) {
    int line = line_here(p);
    TM__TRY(operand(p, node));
    while (tm__parse_skip_name(p, word)) {
        tm__node *left = *node;
        TM__TRY(tm__parse_node(p, kind, line, node));
        (*node)->a = left;
        TM__TRY(operand(p, &(*node)->b));
    }
    return TM_OK;
}

static tm_status parse_and(tm__parser *p, tm__node **node) {
    return parse_word(p, "and", TM__NODE_AND, parse_not, node);
}

static tm_status parse_or(tm__parser *p, tm__node **node) {
    return parse_word(p, "or", TM__NODE_OR, parse_and, node);
}

static tm_status parse_choice(tm__parser *p, tm__node **node) {
    int line = line_here(p);
    TM__TRY(parse_or(p, node));
    while (tm__parse_skip_name(p, "if")) {
        tm__node *value = *node;
        TM__TRY(tm__parse_node(p, TM__NODE_CHOICE, line, node));
        (*node)->b = value;
        TM__TRY(parse_or(p, &(*node)->a));
        if (!tm__parse_skip_name(p, "else")) continue;
        TM__TRY(tm__parse_deeper(p));
        TM__TRY(parse_choice(p, &(*node)->c));
        p->depth--;
    }
    return TM_OK;
}

tm_status tm__parse_expression(tm__parser *p, bool choice, tm__node **node) {
    TM__TRY(tm__parse_deeper(p));
    TM__TRY(choice ? parse_choice(p, node) : parse_or(p, node));
    p->depth--;
    return TM_OK;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static tm_status parse_argument(tm__parser *p, tm__node *call) {
    const tm__token *name = tm__parse_peek(p, 0), *next = tm__parse_peek(p, 1);
    bool good = true;
    tm__node *node;
    if (tm__parse_skip_sign(p, '*')) {
        good = !call->star && !call->star_star;
        TM__TRY(tm__parse_expression(p, true, &call->star));
    } else if (tm__parse_skip_sign(p, TM__SIGN2('*', '*'))) {
        good = !call->star_star;
        TM__TRY(tm__parse_expression(p, true, &call->star_star));
    } else if (name->kind == TM__TOKEN_NAME && next->kind == TM__TOKEN_SIGN && next->sign == '=') {
        good = !call->star_star;
        TM__TRY(tm__parse_node(p, TM__NODE_NAME, name->line, &node));
        TM__TRY(tm__parse_intern(p, &name->text, &node->name));
        p->at += 2;
        TM__TRY(tm__parse_expression(p, true, &node->a));
        TM__TRY(tm__parse_push(p, &call->named, node));
    } else {
        good = !call->star && !call->star_star && call->named.len == 0;
        TM__TRY(tm__parse_expression(p, true, &node));
        TM__TRY(tm__parse_push(p, &call->list, node));
    }
    return good ? TM_OK : tm__parse_fail(p, TM_FORMAT, name->line, "the arguments of a call are in a wrong order");
}

/* "(...)" into list, named, star and star_star. */
static tm_status parse_arguments(tm__parser *p, tm__node *call) {
    TM__TRY(tm__parse_expect_sign(p, '('));
    for (bool more = false; !tm__parse_is_sign(p, ')'); more = true) {
        if (more) {
            TM__TRY(tm__parse_expect_sign(p, ','));
            if (tm__parse_is_sign(p, ')')) break;
        }
        TM__TRY(parse_argument(p, call));
    }
    p->at++;
    return TM_OK;
}

/* ---- behind a value: .name [index] (call) | filter is test ------------------------------------------------------- */

static tm_status parse_bound(tm__parser *p, tm__node **bound) {
    if (tm__parse_is_sign(p, ':') || tm__parse_is_sign(p, ']') || tm__parse_is_sign(p, ',')) {
        *bound = NULL;
        return TM_OK;
    }
    return tm__parse_expression(p, true, bound);
}

/* One subscript: an expression or a slice. */
static tm_status parse_subscribed(tm__parser *p, tm__node *of, tm__node **node) {
    int line = line_here(p);
    tm__node *bounds[3] = {0};
    TM__TRY(parse_bound(p, &bounds[0]));
    if (!tm__parse_skip_sign(p, ':')) {
        if (!bounds[0]) return tm__parse_expected(p, "an index");
        TM__TRY(tm__parse_node(p, TM__NODE_INDEX, line, node));
        (*node)->a = of;
        (*node)->b = bounds[0];
        return TM_OK;
    }
    TM__TRY(parse_bound(p, &bounds[1]));
    if (tm__parse_skip_sign(p, ':')) TM__TRY(parse_bound(p, &bounds[2]));
    TM__TRY(tm__parse_node(p, TM__NODE_SLICE, line, node));
    (*node)->a = of;
    for (int i = 0; i < 3; i++) TM__TRY(tm__parse_push(p, &(*node)->list, bounds[i]));
    return TM_OK;
}

static tm_status parse_subscript(tm__parser *p, tm__node **node) {
    tm__node *of = *node;
    int line = line_here(p);
    const tm__token *token;
    if (tm__parse_skip_sign(p, '[')) {
        TM__TRY(parse_subscribed(p, of, node));
        if (tm__parse_is_sign(p, ','))
            return tm__parse_fail(p, TM_UNSUPPORTED, line, "a subscript of several parts is not supported");
        return tm__parse_expect_sign(p, ']');
    }
    p->at++; /* the dot */
    token = tm__parse_peek(p, 0);
    if (token->kind == TM__TOKEN_NUMBER && token->number.kind == TM__INT) {
        TM__TRY(tm__parse_node(p, TM__NODE_INDEX, line, node));
        (*node)->a = of;
        p->at++;
        TM__TRY(tm__parse_node(p, TM__NODE_CONSTANT, line, &(*node)->b));
        (*node)->b->constant = token->number;
        return TM_OK;
    }
    TM__TRY(tm__parse_node(p, TM__NODE_ATTRIBUTE, line, node));
    (*node)->a = of;
    return tm__parse_expect_name(p, &(*node)->name);
}

static tm_status parse_call(tm__parser *p, tm__node **node) {
    tm__node *function = *node;
    TM__TRY(tm__parse_node(p, TM__NODE_CALL, line_here(p), node));
    (*node)->a = function;
    return parse_arguments(p, *node);
}

static tm_status parse_postfix(tm__parser *p, tm__node **node) {
    for (;;) {
        if (tm__parse_is_sign(p, '.') || tm__parse_is_sign(p, '[')) {
            TM__TRY(parse_subscript(p, node));
        } else if (tm__parse_is_sign(p, '(')) {
            TM__TRY(parse_call(p, node));
        } else {
            return TM_OK;
        }
    }
}

/* "a.b" as one name. */
static tm_status parse_dotted(tm__parser *p, const tm__str **name) {
    TM__TRY(tm__parse_expect_name(p, name));
    if (!tm__parse_is_sign(p, '.')) return TM_OK;
    return tm__parse_fail(p, TM_UNSUPPORTED, line_here(p), "a dotted name of a filter or test is not supported");
}

tm_status tm__parse_filters(tm__parser *p, tm__node *of, bool at_name, tm__node **node) {
    *node = of;
    while (at_name || tm__parse_skip_sign(p, '|')) {
        tm__node *value = *node;
        at_name = false;
        TM__TRY(tm__parse_node(p, TM__NODE_FILTER, line_here(p), node));
        (*node)->a = value;
        TM__TRY(parse_dotted(p, &(*node)->name));
        if (tm__parse_is_sign(p, '(')) TM__TRY(parse_arguments(p, *node));
    }
    return TM_OK;
}

/* `x is divisibleby 3`: one argument may stand there without brackets. */
static bool begins_argument(const tm__parser *p) {
    const tm__token *token = tm__parse_peek(p, 0);
    if (token->kind == TM__TOKEN_STRING || token->kind == TM__TOKEN_NUMBER) return true;
    if (tm__parse_is_sign(p, '[') || tm__parse_is_sign(p, '{')) return true;
    return token->kind == TM__TOKEN_NAME && !tm__parse_is_name(p, "else") && !tm__parse_is_name(p, "or") &&
           !tm__parse_is_name(p, "and");
}

static tm_status parse_test(tm__parser *p, tm__node **node) {
    tm__node *value = *node, *argument, *test;
    int line = line_here(p);
    p->at++; /* is */
    bool negated = tm__parse_skip_name(p, "not");
    TM__TRY(tm__parse_node(p, TM__NODE_TEST, line, &test));
    test->a = value;
    TM__TRY(parse_dotted(p, &test->name));
    if (tm__parse_is_sign(p, '(')) {
        TM__TRY(parse_arguments(p, test));
    } else if (begins_argument(p)) {
        if (tm__parse_is_name(p, "is")) return tm__parse_fail(p, TM_FORMAT, line, "tests cannot be chained with 'is'");
        TM__TRY(parse_primary(p, false, &argument));
        TM__TRY(parse_postfix(p, &argument));
        TM__TRY(tm__parse_push(p, &test->list, argument));
    }
    *node = test;
    if (!negated) return TM_OK;
    TM__TRY(tm__parse_node(p, TM__NODE_NOT, line, node));
    (*node)->a = test;
    return TM_OK;
}

static tm_status parse_behind(tm__parser *p, tm__node **node) {
    for (;;) {
        if (tm__parse_is_sign(p, '|')) {
            TM__TRY(tm__parse_filters(p, *node, false, node));
        } else if (tm__parse_is_name(p, "is")) {
            TM__TRY(parse_test(p, node));
        } else if (tm__parse_is_sign(p, '(')) {
            TM__TRY(parse_call(p, node));
        } else {
            return TM_OK;
        }
    }
}

static tm_status parse_unary(tm__parser *p, bool with_filter, tm__node **node) {
    int line = line_here(p);
    unsigned sign = tm__parse_is_sign(p, '-') ? '-' : tm__parse_is_sign(p, '+') ? '+' : 0;
    TM__TRY(tm__parse_deeper(p));
    if (sign) {
        p->at++;
        TM__TRY(tm__parse_node(p, TM__NODE_UNARY, line, node));
        (*node)->op = (uint16_t)sign;
        TM__TRY(parse_unary(p, false, &(*node)->a));
    } else {
        TM__TRY(parse_primary(p, false, node));
    }
    TM__TRY(parse_postfix(p, node));
    if (with_filter) TM__TRY(parse_behind(p, node));
    p->depth--;
    return TM_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static tm_status constant(tm__parser *p, tm__value value, int line, tm__node **node) {
    TM__TRY(tm__parse_node(p, TM__NODE_CONSTANT, line, node));
    (*node)->constant = value;
    return TM_OK;
}

static tm_status parse_name(tm__parser *p, bool target, tm__node **node) {
    static const struct {
        const char *name;
        tm__value value;
    } constants[] = {
        {"true", {.kind = TM__BOOL, .truth = true}},
        {"True", {.kind = TM__BOOL, .truth = true}},
        {"false", {.kind = TM__BOOL, .truth = false}},
        {"False", {.kind = TM__BOOL, .truth = false}},
        {"none", {.kind = TM__NONE}},
        {"None", {.kind = TM__NONE}},
    };
    int line = line_here(p);
    for (size_t i = 0; i < TM__COUNT(constants); i++)
        if (tm__parse_skip_name(p, constants[i].name)) return constant(p, constants[i].value, line, node);
    TM__TRY(tm__parse_node(p, TM__NODE_NAME, line, node));
    if (tm__parse_is_name(p, "varargs")) p->uses |= TM__USES_VARARGS;
    if (tm__parse_is_name(p, "kwargs")) p->uses |= TM__USES_KWARGS;
    if (tm__parse_is_name(p, "caller")) p->uses |= TM__USES_CALLER;
    TM__TRY(tm__parse_expect_name(p, &(*node)->name));
    if (!target || !tm__parse_skip_sign(p, '.')) return TM_OK;
    (*node)->kind = TM__NODE_ATTRIBUTE_OF_NAMESPACE;
    return tm__parse_expect_name(p, &(*node)->other);
}

/* Strings side by side are one. */
static tm_status parse_string(tm__parser *p, tm__node **node) {
    int line = line_here(p);
    size_t first = p->at, len = 0, chars = 0;
    for (; tm__parse_peek(p, 0)->kind == TM__TOKEN_STRING; p->at++) {
        len += tm__parse_peek(p, 0)->text.len;
        chars += tm__parse_peek(p, 0)->text.chars;
    }
    tm__str *text = tm__arena_alloc(&p->template->arena, 1, sizeof *text);
    char *data = tm__arena_alloc(&p->template->arena, len + 1, 1);
    if (!text || !data) return tm__fail_memory();
    *text = (tm__str){data, 0, chars};
    for (size_t i = first; i < p->at; i++) {
        const tm__str *part = &p->tokens.data[i].text;
        if (part->len) memcpy(data + text->len, part->data, part->len);
        text->len += part->len;
    }
    return constant(p, (tm__value){.kind = TM__TEXT, .text = text}, line, node);
}

static tm_status parse_list(tm__parser *p, tm__node **node) {
    TM__TRY(tm__parse_node(p, TM__NODE_LIST, line_here(p), node));
    p->at++;
    while (!tm__parse_is_sign(p, ']')) {
        tm__node *item;
        if ((*node)->list.len) TM__TRY(tm__parse_expect_sign(p, ','));
        if (tm__parse_is_sign(p, ']')) break;
        TM__TRY(tm__parse_expression(p, true, &item));
        TM__TRY(tm__parse_push(p, &(*node)->list, item));
    }
    p->at++;
    return TM_OK;
}

static tm_status parse_dict(tm__parser *p, tm__node **node) {
    TM__TRY(tm__parse_node(p, TM__NODE_DICT, line_here(p), node));
    p->at++;
    while (!tm__parse_is_sign(p, '}')) {
        tm__node *key, *value;
        if ((*node)->list.len) TM__TRY(tm__parse_expect_sign(p, ','));
        if (tm__parse_is_sign(p, '}')) break;
        TM__TRY(tm__parse_expression(p, true, &key));
        TM__TRY(tm__parse_expect_sign(p, ':'));
        TM__TRY(tm__parse_expression(p, true, &value));
        TM__TRY(tm__parse_push(p, &(*node)->list, key));
        TM__TRY(tm__parse_push(p, &(*node)->list, value));
    }
    p->at++;
    return TM_OK;
}

/* The inside of brackets or of a statement. `target`: names and their like alone; `brackets`: may be empty. */
static tm_status parse_several(tm__parser *p, bool choice, bool target, bool brackets, const char *end,
                               tm__node **node) {
    tm__nodes items = {0};
    bool tuple = false;
    int line = line_here(p);
    for (;;) {
        uint8_t kind = tm__parse_peek(p, 0)->kind;
        tm__node *item;
        if (kind == TM__TOKEN_PRINT_END || kind == TM__TOKEN_TAG_END || tm__parse_is_sign(p, ')') ||
            (end && tm__parse_is_name(p, end)))
            break;
        TM__TRY(target ? parse_primary(p, true, &item) : tm__parse_expression(p, choice, &item));
        TM__TRY(tm__parse_push(p, &items, item));
        if (!tm__parse_skip_sign(p, ',')) break;
        tuple = true;
    }
    if (!tuple && items.len) {
        *node = items.data[0];
        return TM_OK;
    }
    if (!tuple && !brackets) return tm__parse_expected(p, "an expression");
    TM__TRY(tm__parse_node(p, TM__NODE_TUPLE, line, node));
    (*node)->list = items;
    return TM_OK;
}

static tm_status parse_primary(tm__parser *p, bool target, tm__node **node) {
    const tm__token *token = tm__parse_peek(p, 0);
    switch (token->kind) {
    case TM__TOKEN_NAME:
        return parse_name(p, target, node);
    case TM__TOKEN_STRING:
        return parse_string(p, node);
    case TM__TOKEN_NUMBER:
        p->at++;
        return constant(p, token->number, token->line, node);
    default:
        break;
    }
    if (tm__parse_is_sign(p, '[')) return parse_list(p, node);
    if (tm__parse_is_sign(p, '{')) return parse_dict(p, node);
    if (!tm__parse_skip_sign(p, '(')) return tm__parse_expected(p, "an expression");
    TM__TRY(tm__parse_deeper(p));
    TM__TRY(parse_several(p, true, false, true, NULL, node));
    p->depth--;
    return tm__parse_expect_sign(p, ')');
}

tm_status tm__parse_tuple(tm__parser *p, bool choice, const char *end, tm__node **node) {
    return parse_several(p, choice, false, false, end, node);
}

static tm_status check_target(const tm__parser *p, const tm__node *node) {
    if (node->kind == TM__NODE_NAME || node->kind == TM__NODE_ATTRIBUTE_OF_NAMESPACE) return TM_OK;
    if (node->kind != TM__NODE_TUPLE) return tm__parse_fail(p, TM_FORMAT, node->line, "only names can be assigned to");
    for (size_t i = 0; i < node->list.len; i++) TM__TRY(check_target(p, node->list.data[i]));
    return TM_OK;
}

tm_status tm__parse_target(tm__parser *p, const char *end, tm__node **node) {
    TM__TRY(parse_several(p, false, true, false, end, node));
    return check_target(p, *node);
}
