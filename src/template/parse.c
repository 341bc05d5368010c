/* parse.c: tokens to the tree: statements. The grammar is that of Jinja2 3.1's parser with the tags break, continue and
 * generation. Tags that need other templates or change escaping are refused by name.
 * Pinned by tests/golden/test_templates.c and tests/unit/test_template.c.
 */
#include "template/interpreter.h"

enum { DEPTH = 200 };

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

const tm__token *tm__parse_peek(const tm__parser *p, size_t ahead) {
    size_t last = p->tokens.len - 1;
    return &p->tokens.data[TM__MIN(p->at + ahead, last)];
}

static bool is_word(const tm__token *token, const char *name) {
    return token->kind == TM__TOKEN_NAME && token->text.len == strlen(name) &&
           memcmp(token->text.data, name, token->text.len) == 0;
}

bool tm__parse_is_sign(const tm__parser *p, unsigned sign) {
    const tm__token *token = tm__parse_peek(p, 0);
    return token->kind == TM__TOKEN_SIGN && token->sign == sign;
}

bool tm__parse_is_name(const tm__parser *p, const char *name) {
    return is_word(tm__parse_peek(p, 0), name);
}

bool tm__parse_skip_sign(tm__parser *p, unsigned sign) {
    bool is = tm__parse_is_sign(p, sign);
    p->at += is;
    return is;
}

bool tm__parse_skip_name(tm__parser *p, const char *name) {
    bool is = tm__parse_is_name(p, name);
    p->at += is;
    return is;
}

tm_status tm__parse_fail(const tm__parser *p, tm_status status, int line, const char *format, ...) {
    char message[256], field[32];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(field, sizeof field, "line %d", line);
    return tm__fail(status, p->template->name, field, NULL, "%s", message);
}

tm_status tm__parse_expected(const tm__parser *p, const char *what) {
    static const char *const kinds[] = {"text", "'{{'",     "'}}'",     "'{%'", "'%}'",
                                        "",     "a string", "a number", "",     "the end"};
    const tm__token *token = tm__parse_peek(p, 0);
    int line = token->line;
    if (token->kind == TM__TOKEN_NAME)
        return tm__parse_fail(p, TM_FORMAT, line, "expected %s, found '%.*s'", what, (int)TM__MIN(token->text.len, 40u),
                              token->text.data);
    if (token->kind == TM__TOKEN_SIGN)
        return tm__parse_fail(p, TM_FORMAT, line, "expected %s, found '%c%s'", what, token->sign & 0xff,
                              token->sign >> 8 ? (char[]){(char)(token->sign >> 8), 0} : "");
    return tm__parse_fail(p, TM_FORMAT, line, "expected %s, found %s", what, kinds[token->kind]);
}

tm_status tm__parse_expect_sign(tm__parser *p, unsigned sign) {
    char what[8];
    if (tm__parse_skip_sign(p, sign)) return TM_OK;
    snprintf(what, sizeof what, "'%c'", (int)(sign & 0xff));
    return tm__parse_expected(p, what);
}

tm_status tm__parse_expect_name(tm__parser *p, const tm__str **name) {
    const tm__token *token = tm__parse_peek(p, 0);
    if (token->kind != TM__TOKEN_NAME) return tm__parse_expected(p, "a name");
    p->at++;
    return tm__parse_intern(p, &token->text, name);
}

static tm_status expect_kind(tm__parser *p, tm__token_kind kind, const char *what) {
    if (tm__parse_peek(p, 0)->kind != kind) return tm__parse_expected(p, what);
    p->at++;
    return TM_OK;
}

tm_status tm__parse_deeper(tm__parser *p) {
    if (p->depth >= DEPTH)
        return tm__parse_fail(p, TM_FORMAT, tm__parse_peek(p, 0)->line, "is nested more than %d deep", DEPTH);
    p->depth++;
    return TM_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

tm_status tm__parse_node(tm__parser *p, tm__node_kind kind, int line, tm__node **node) {
    *node = tm__arena_alloc(&p->template->arena, 1, sizeof **node);
    if (!*node) return tm__fail_memory();
    (*node)->kind = (uint8_t)kind;
    (*node)->line = line;
    return TM_OK;
}

/* Arrays of nodes live in the arena: what a longer one replaces stays there. */
tm_status tm__parse_push(tm__parser *p, tm__nodes *nodes, tm__node *node) {
    if (nodes->len == nodes->cap) {
        size_t cap = nodes->cap ? 2 * nodes->cap : 4;
        tm__node **data = tm__arena_alloc(&p->template->arena, cap, sizeof *data);
        if (!data) return tm__fail_memory();
        if (nodes->len) memcpy(data, nodes->data, nodes->len * sizeof *data);
        nodes->data = data;
        nodes->cap = cap;
    }
    nodes->data[nodes->len++] = node;
    return TM_OK;
}

tm_status tm__parse_intern(tm__parser *p, const tm__str *name, const tm__str **interned) {
    tm__nodes *names = &p->template->names;
    int32_t index;
    if (tm__map_get(&p->interned, name->data, name->len, &index)) {
        *interned = names->data[index]->name;
        return TM_OK;
    }
    tm__node *node;
    tm__str *copy = tm__arena_alloc(&p->template->arena, 1, sizeof *copy);
    if (!copy || !tm__map_put(&p->interned, name->data, name->len, (int32_t)names->len)) return tm__fail_memory();
    *copy = *name;
    TM__TRY(tm__parse_node(p, TM__NODE_NAME, 0, &node));
    node->name = *interned = copy;
    return tm__parse_push(p, names, node);
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static tm_status parse_until(tm__parser *p, const char *const *ends, tm__nodes *body);

/* The rest of a tag and what follows it up to `{% end`; leaves the parser at that name. */
static tm_status parse_block(tm__parser *p, const char *const *ends, tm__nodes *body) {
    tm__parse_skip_sign(p, ':');
    TM__TRY(expect_kind(p, TM__TOKEN_TAG_END, "the end of the tag"));
    TM__TRY(tm__parse_deeper(p));
    tm_status status = parse_until(p, ends, body);
    p->depth--;
    return status;
}

/* A block with one end, which is skipped. */
static tm_status parse_simple_block(tm__parser *p, const char *end, tm__nodes *body) {
    const char *const ends[] = {end, NULL};
    TM__TRY(parse_block(p, ends, body));
    p->at++;
    return TM_OK;
}

static tm_status parse_if(tm__parser *p, tm__node **node) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_IF, line, node));
    TM__TRY(tm__parse_tuple(p, false, NULL, &(*node)->a));
    TM__TRY(parse_block(p, ends, &(*node)->list));
    if (tm__parse_is_name(p, "elif")) {
        tm__node *next;
        TM__TRY(tm__parse_deeper(p));
        TM__TRY(parse_if(p, &next));
        p->depth--;
        return tm__parse_push(p, &(*node)->otherwise, next);
    }
    bool otherwise = tm__parse_is_name(p, "else");
    p->at++;
    return otherwise ? parse_simple_block(p, "endif", &(*node)->otherwise) : TM_OK;
}

static tm_status parse_for(tm__parser *p, tm__node **node) {
    static const char *const ends[] = {"endfor", "else", NULL};
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_FOR, line, node));
    TM__TRY(tm__parse_target(p, "in", &(*node)->a));
    if (!tm__parse_skip_name(p, "in")) return tm__parse_expected(p, "'in'");
    TM__TRY(tm__parse_tuple(p, false, "recursive", &(*node)->b));
    if (tm__parse_skip_name(p, "if")) TM__TRY(tm__parse_expression(p, true, &(*node)->c));
    (*node)->flag = tm__parse_skip_name(p, "recursive");
    p->loops++;
    tm_status status = parse_block(p, ends, &(*node)->list);
    p->loops--;
    TM__TRY(status);
    bool otherwise = tm__parse_is_name(p, "else");
    p->at++;
    return otherwise ? parse_simple_block(p, "endfor", &(*node)->otherwise) : TM_OK;
}

static tm_status parse_set(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_SET, line, node));
    TM__TRY(tm__parse_target(p, NULL, &(*node)->a));
    if (tm__parse_skip_sign(p, '=')) return tm__parse_tuple(p, true, NULL, &(*node)->b);
    (*node)->kind = TM__NODE_SET_BLOCK;
    TM__TRY(tm__parse_filters(p, NULL, false, &(*node)->b));
    int loops = p->loops;
    p->loops = 0;
    tm_status status = parse_simple_block(p, "endset", &(*node)->list);
    p->loops = loops;
    return status;
}

/* "(a, b=1)" into list (names) and otherwise (defaults of the last ones). */
static tm_status parse_signature(tm__parser *p, tm__node *node) {
    TM__TRY(tm__parse_expect_sign(p, '('));
    while (!tm__parse_is_sign(p, ')')) {
        tm__node *name;
        if (node->list.len) TM__TRY(tm__parse_expect_sign(p, ','));
        TM__TRY(tm__parse_node(p, TM__NODE_NAME, tm__parse_peek(p, 0)->line, &name));
        TM__TRY(tm__parse_expect_name(p, &name->name));
        TM__TRY(tm__parse_push(p, &node->list, name));
        if (tm__parse_skip_sign(p, '=')) {
            TM__TRY(tm__parse_expression(p, true, &name->a));
        } else if (node->list.len > 1 && node->list.data[node->list.len - 2]->a) {
            return tm__parse_fail(p, TM_FORMAT, name->line, "an argument without a default follows one with a default");
        }
    }
    p->at++;
    return TM_OK;
}

static tm_status parse_macro_body(tm__parser *p, const char *end, tm__node *macro) {
    int loops = p->loops;
    unsigned uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    tm_status status = parse_simple_block(p, end, &macro->otherwise);
    macro->op = (uint16_t)p->uses;
    p->loops = loops;
    p->uses |= uses;
    return status;
}

static tm_status parse_macro(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_MACRO, line, node));
    TM__TRY(tm__parse_expect_name(p, &(*node)->name));
    TM__TRY(parse_signature(p, *node));
    return parse_macro_body(p, "endmacro", *node);
}

static tm_status parse_call_block(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_CALL_BLOCK, line, node));
    TM__TRY(tm__parse_node(p, TM__NODE_MACRO, line, &(*node)->b));
    if (tm__parse_is_sign(p, '(')) TM__TRY(parse_signature(p, (*node)->b));
    TM__TRY(tm__parse_expression(p, true, &(*node)->a));
    if ((*node)->a->kind != TM__NODE_CALL) return tm__parse_fail(p, TM_FORMAT, line, "expected a call");
    return parse_macro_body(p, "endcall", (*node)->b);
}

static tm_status parse_filter_block(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_FILTER_BLOCK, line, node));
    TM__TRY(tm__parse_filters(p, NULL, true, &(*node)->b));
    return parse_simple_block(p, "endfilter", &(*node)->list);
}

static tm_status parse_with(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    TM__TRY(tm__parse_node(p, TM__NODE_WITH, line, node));
    while (tm__parse_peek(p, 0)->kind != TM__TOKEN_TAG_END) {
        tm__node *pair;
        if ((*node)->named.len) TM__TRY(tm__parse_expect_sign(p, ','));
        TM__TRY(tm__parse_node(p, TM__NODE_SET, tm__parse_peek(p, 0)->line, &pair));
        TM__TRY(tm__parse_target(p, NULL, &pair->a));
        TM__TRY(tm__parse_expect_sign(p, '='));
        TM__TRY(tm__parse_expression(p, true, &pair->b));
        TM__TRY(tm__parse_push(p, &(*node)->named, pair));
    }
    return parse_simple_block(p, "endwith", &(*node)->list);
}

static tm_status parse_generation(tm__parser *p, tm__node **node) {
    int line = tm__parse_peek(p, 0)->line, loops = p->loops;
    p->at++;
    p->template->generation = true;
    TM__TRY(tm__parse_node(p, TM__NODE_GENERATION, line, node));
    p->loops = 0;
    tm_status status = parse_simple_block(p, "endgeneration", &(*node)->list);
    p->loops = loops;
    return status;
}

/* {% print a, b %} */
static tm_status parse_print(tm__parser *p, tm__nodes *body) {
    int line = tm__parse_peek(p, 0)->line;
    p->at++;
    for (bool more = false; tm__parse_peek(p, 0)->kind != TM__TOKEN_TAG_END; more = true) {
        tm__node *node;
        if (more) TM__TRY(tm__parse_expect_sign(p, ','));
        TM__TRY(tm__parse_node(p, TM__NODE_PRINT, line, &node));
        TM__TRY(tm__parse_expression(p, true, &node->a));
        TM__TRY(tm__parse_push(p, body, node));
    }
    return TM_OK;
}

static tm_status parse_jump(tm__parser *p, tm__node_kind kind, tm__node **node) {
    const tm__token *token = tm__parse_peek(p, 0);
    if (p->loops == 0)
        return tm__parse_fail(p, TM_FORMAT, token->line, "'%.*s' outside of a loop", (int)token->text.len,
                              token->text.data);
    p->at++;
    return tm__parse_node(p, kind, token->line, node);
}

/* "'endif' or 'else'", as far as it fits. */
static void list_ends(const char *const *ends, char *out, size_t size) {
    size_t n = 0;
    for (; *ends && n < size; ends++) n += (size_t)snprintf(out + n, size - n, "'%s'%s", *ends, ends[1] ? " or " : "");
}

static tm_status unknown_tag(const tm__parser *p, const char *const *ends) {
    static const char *const known[] = {"extends", "block", "include", "import", "from", "autoescape"};
    const tm__token *token = tm__parse_peek(p, 0);
    char wanted[100] = "", name[48];
    for (size_t i = 0; i < TM__COUNT(known); i++)
        if (is_word(token, known[i]))
            return tm__parse_fail(p, TM_UNSUPPORTED, token->line, "the tag '%s' is not supported", known[i]);
    if (token->kind != TM__TOKEN_NAME) return tm__parse_expected(p, "the name of a tag");
    snprintf(name, sizeof name, "%.*s", (int)TM__MIN(token->text.len, 40u), token->text.data);
    if (!ends) return tm__parse_fail(p, TM_FORMAT, token->line, "unknown tag '%s'", name);
    list_ends(ends, wanted, sizeof wanted);
    return tm__parse_fail(p, TM_FORMAT, token->line, "unknown tag '%s', where %s is expected", name, wanted);
}

static tm_status parse_statement(tm__parser *p, const char *const *ends, tm__nodes *body) {
    static const struct {
        const char *name;
        tm_status (*parse)(tm__parser *p, tm__node **node);
    } tags[] = {{"for", parse_for},         {"if", parse_if},
                {"set", parse_set},         {"macro", parse_macro},
                {"call", parse_call_block}, {"filter", parse_filter_block},
                {"with", parse_with},       {"generation", parse_generation}};
    tm__node *node = NULL;
    if (tm__parse_is_name(p, "print")) return parse_print(p, body);
    if (tm__parse_is_name(p, "break")) {
        TM__TRY(parse_jump(p, TM__NODE_BREAK, &node));
    } else if (tm__parse_is_name(p, "continue")) {
        TM__TRY(parse_jump(p, TM__NODE_CONTINUE, &node));
    }
    for (size_t i = 0; i < TM__COUNT(tags) && !node; i++)
        if (tm__parse_is_name(p, tags[i].name)) TM__TRY(tags[i].parse(p, &node));
    return node ? tm__parse_push(p, body, node) : unknown_tag(p, ends);
}

static bool at_one_of(const tm__parser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (tm__parse_is_name(p, *ends)) return true;
    return false;
}

static tm_status parse_until(tm__parser *p, const char *const *ends, tm__nodes *body) {
    for (;;) {
        const tm__token *token = tm__parse_peek(p, 0);
        tm__node *node;
        if (token->kind == TM__TOKEN_END) {
            char wanted[100];
            if (!ends) return TM_OK;
            list_ends(ends, wanted, sizeof wanted);
            return tm__parse_fail(p, TM_FORMAT, token->line, "ends where %s is expected", wanted);
        }
        p->at++;
        if (token->kind == TM__TOKEN_DATA) {
            TM__TRY(tm__parse_node(p, TM__NODE_DATA, token->line, &node));
            tm__str *text = tm__arena_alloc(&p->template->arena, 1, sizeof *text); /* tokens end before the tree */
            if (!text) return tm__fail_memory();
            *text = token->text;
            node->constant = (tm__value){.kind = TM__TEXT, .text = text};
            TM__TRY(tm__parse_push(p, body, node));
        } else if (token->kind == TM__TOKEN_PRINT) {
            TM__TRY(tm__parse_node(p, TM__NODE_PRINT, token->line, &node));
            TM__TRY(tm__parse_tuple(p, true, NULL, &node->a));
            TM__TRY(tm__parse_push(p, body, node));
            TM__TRY(expect_kind(p, TM__TOKEN_PRINT_END, "the end of the print statement"));
        } else {
            if (at_one_of(p, ends)) return TM_OK;
            TM__TRY(parse_statement(p, ends, body));
            TM__TRY(expect_kind(p, TM__TOKEN_TAG_END, "the end of the tag"));
        }
    }
}

tm_status tm__parse_body(tm__parser *p) {
    return parse_until(p, NULL, &p->template->body);
}
