/* exec.c: statements: output, branches, loops with their `loop`, assignments, macros, captured blocks.
 *
 * Names are looked up through scopes: a loop's turn, a macro's call, a captured block, with and generation each open
 * one, `if` does not. An assignment goes to the innermost scope and ends with it, as in Jinja.
 */
#include "template/interpreter.h"

/* ---- scopes ------------------------------------------------------------------------------------------------------ */

tm_status tm__scope_push(tm__run *run, tm__scope *outer) {
    tm__scope *scope;
    TM__TRY(tm__run_alloc(run, 1, sizeof *scope, &scope));
    scope->outer = outer;
    run->scope = scope;
    return TM_OK;
}

tm_status tm__scope_set(tm__run *run, tm__scope *scope, const tm__str *name, tm__value value) {
    tm__binding *binding = scope->bindings;
    while (binding && binding->name != name) binding = binding->next;
    if (!binding) {
        TM__TRY(tm__run_alloc(run, 1, sizeof *binding, &binding));
        binding->name = name;
        binding->next = scope->bindings;
        scope->bindings = binding;
    }
    binding->value = value;
    return TM_OK;
}

/* A name that the interpreter sets itself. Names are interned: one that the template never says needs no binding. */
static tm_status set_special(tm__run *run, const char *name, tm__value value) {
    const tm__nodes *names = &run->template->names;
    size_t len = strlen(name);
    for (size_t i = 0; i < names->len; i++) {
        const tm__str *known = names->data[i]->name;
        if (known->len == len && memcmp(known->data, name, len) == 0)
            return tm__scope_set(run, run->scope, known, value);
    }
    return TM_OK;
}

static tm_status assign_tuple(tm__run *run, const tm__nodes *targets, const tm__value *value) {
    const tm__items *items;
    TM__TRY(tm__iterate(run, value, &items));
    if (items->len != targets->len)
        return tm__run_fail(run, TM_INVALID, "%s values to unpack (expected %zu, got %zu)",
                            items->len < targets->len ? "not enough" : "too many", targets->len, items->len);
    for (size_t i = 0; i < items->len; i++) TM__TRY(tm__assign(run, targets->data[i], &items->data[i]));
    return TM_OK;
}

static tm_status assign_attribute(tm__run *run, const tm__node *target, const tm__value *value) {
    tm__node name = {.kind = TM__NODE_NAME, .name = target->name, .line = target->line};
    tm__value space, key = {.kind = TM__TEXT, .text = target->other};
    TM__TRY(tm__eval(run, &name, &space));
    if (space.kind != TM__NAMESPACE)
        return tm__run_fail(run, TM_INVALID, "cannot assign attribute on non-namespace object");
    if (target->other->data[0] == '_')
        return tm__run_fail(run, TM_INVALID, "attributes of a namespace cannot begin with an underscore");
    return tm__dict_put(run, space.dict, &key, *value);
}

tm_status tm__assign(tm__run *run, const tm__node *target, const tm__value *value) {
    if (target->kind == TM__NODE_TUPLE) return assign_tuple(run, &target->list, value);
    if (target->kind == TM__NODE_ATTRIBUTE_OF_NAMESPACE) return assign_attribute(run, target, value);
    return tm__scope_set(run, run->scope, target->name, *value);
}

/* ---- captured output --------------------------------------------------------------------------------------------- */

/* Runs the body in the scope that is set and gives what it prints. */
static tm_status capture(tm__run *run, const tm__nodes *body, tm__value *out) {
    tm__buffer sink = {0}, *before = run->out;
    run->out = &sink;
    tm_status status = tm__exec(run, body);
    run->out = before;
    return status == TM_OK ? tm__buffer_value(run, &sink, out) : status;
}

/* The filters of a block, the innermost of which has no value of its own. */
static tm_status filtered(tm__run *run, const tm__node *filters, tm__value *value) {
    if (!filters) return TM_OK;
    TM__TRY(filtered(run, filters->a, value));
    tm__node input = {.kind = TM__NODE_CONSTANT, .line = filters->line, .constant = *value}, filter = *filters;
    filter.a = &input;
    return tm__eval(run, &filter, value);
}

static tm_status captured_block(tm__run *run, const tm__node *node, tm__value *value) {
    tm__scope *scope = run->scope;
    TM__TRY(tm__scope_push(run, scope));
    TM__TRY(capture(run, &node->list, value));
    run->scope = scope;
    return filtered(run, node->b, value);
}

/* ---- macros ------------------------------------------------------------------------------------------------------ */

static const tm__value *named_argument(const tm__args *args, const tm__str *name) {
    for (size_t i = 0; i < args->named_count; i++)
        if (args->named[i].name->len == name->len && memcmp(args->named[i].name->data, name->data, name->len) == 0)
            return &args->named[i].value;
    return NULL;
}

static bool is_parameter(const tm__node *macro, const tm__str *name) {
    for (size_t i = 0; i < macro->list.len; i++)
        if (macro->list.data[i]->name->len == name->len &&
            memcmp(macro->list.data[i]->name->data, name->data, name->len) == 0)
            return true;
    return false;
}

static tm_status bind_parameters(tm__run *run, const tm__node *macro, const tm__args *args) {
    for (size_t i = 0; i < macro->list.len; i++) {
        const tm__node *parameter = macro->list.data[i];
        const tm__value *given = named_argument(args, parameter->name);
        tm__value value;
        if (i < args->count && given)
            return tm__run_fail(run, TM_INVALID, "macro '%.40s' got two values for '%.40s'",
                                macro->name ? macro->name->data : "caller", parameter->name->data);
        if (i < args->count)
            value = args->data[i];
        else if (given)
            value = *given;
        else if (parameter->a)
            TM__TRY(tm__eval(run, parameter->a, &value));
        else
            value = tm__undefined(run, "parameter '%.*s' was not provided", (int)TM__MIN(parameter->name->len, 100u),
                                  parameter->name->data);
        TM__TRY(tm__scope_set(run, run->scope, parameter->name, value));
    }
    return TM_OK;
}

/* What the parameters leave over: varargs, kwargs and caller where the body names them, else an error. */
static tm_status bind_rest(tm__run *run, const tm__node *macro, const tm__args *args) {
    static const tm__str caller = {"caller", 6, 6};
    tm__value rest, more, called = tm__undefined(run, "No caller defined");
    TM__TRY(tm__value_items(run, TM__TUPLE, 0, &rest));
    TM__TRY(tm__value_dict(run, TM__DICT, &more));
    for (size_t i = macro->list.len; i < args->count; i++) TM__TRY(tm__items_push(run, rest.items, args->data[i]));
    for (size_t i = 0; i < args->named_count; i++) {
        const tm__str *name = args->named[i].name;
        tm__value key = {.kind = TM__TEXT, .text = name};
        if (is_parameter(macro, name)) continue;
        if (macro->op & TM__USES_CALLER && name->len == caller.len &&
            memcmp(name->data, caller.data, caller.len) == 0) {
            called = args->named[i].value;
            continue;
        }
        if (!(macro->op & TM__USES_KWARGS))
            return tm__run_fail(run, TM_INVALID, "a macro takes no keyword argument '%.*s'",
                                (int)TM__MIN(name->len, 40u), name->data);
        TM__TRY(tm__dict_put(run, more.dict, &key, args->named[i].value));
    }
    if (rest.items->len && !(macro->op & TM__USES_VARARGS))
        return tm__run_fail(run, TM_INVALID, "a macro takes not more than %zu argument(s)", macro->list.len);
    if (macro->op & TM__USES_VARARGS) TM__TRY(set_special(run, "varargs", rest));
    if (macro->op & TM__USES_KWARGS) TM__TRY(set_special(run, "kwargs", more));
    return macro->op & TM__USES_CALLER && !is_parameter(macro, &caller) ? set_special(run, "caller", called) : TM_OK;
}

tm_status tm__macro_call(tm__run *run, const tm__macro *macro, const tm__args *args, tm__value *out) {
    tm__scope *scope = run->scope;
    int line = run->line;
    TM__TRY(tm__run_deeper(run));
    TM__TRY(tm__scope_push(run, macro->scope));
    TM__TRY(bind_rest(run, macro->node, args));
    TM__TRY(bind_parameters(run, macro->node, args));
    TM__TRY(capture(run, &macro->node->otherwise, out));
    run->scope = scope;
    run->line = line;
    run->left.depth++;
    return TM_OK;
}

static tm_status make_macro(tm__run *run, const tm__node *node, tm__value *out) {
    tm__macro *macro;
    TM__TRY(tm__run_alloc(run, 1, sizeof *macro, &macro));
    *macro = (tm__macro){node, run->scope};
    *out = (tm__value){.kind = TM__MACRO, .macro = macro};
    return TM_OK;
}

/* {% call f(x) %}...{% endcall %}: f gets the block as `caller`. */
static tm_status exec_call_block(tm__run *run, const tm__node *node) {
    static const tm__str caller = {"caller", 6, 6};
    tm__node name = {.kind = TM__NODE_NAME, .name = &caller}, block = {.kind = TM__NODE_CONSTANT}, call = *node->a;
    tm__node **named;
    tm__value value;
    TM__TRY(make_macro(run, node->b, &block.constant));
    TM__TRY(tm__run_alloc(run, node->a->named.len + 1, sizeof *named, &named));
    if (node->a->named.len) memcpy(named, node->a->named.data, node->a->named.len * sizeof *named);
    name.a = &block;
    named[node->a->named.len] = &name;
    call.named = (tm__nodes){named, node->a->named.len + 1, 0};
    TM__TRY(tm__eval(run, &call, &value));
    return tm__print(run, &value, run->out);
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

/* The next element of the source that the loop's own `if` lets through. */
static tm_status pull(tm__run *run, tm__loop *loop, bool *found, tm__value *value) {
    tm__scope *scope = run->scope;
    *found = false;
    while (!*found && loop->next < loop->source->len) {
        *value = loop->source->data[loop->next++];
        *found = !loop->filtered;
        TM__TRY(tm__run_step(run, 1));
        if (*found) break;
        tm__value test;
        TM__TRY(tm__scope_push(run, loop->outer));
        TM__TRY(tm__assign(run, loop->node->a, value));
        TM__TRY(tm__eval(run, loop->node->c, &test));
        *found = tm__is_true(&test);
        run->scope = scope;
    }
    return TM_OK;
}

tm_status tm__loop_peek(tm__run *run, tm__loop *loop, const tm__value **next) {
    if (!loop->has_after) TM__TRY(pull(run, loop, &loop->has_after, &loop->after));
    *next = loop->has_after ? &loop->after : NULL;
    return TM_OK;
}

tm_status tm__loop_length(tm__run *run, tm__loop *loop, int64_t *length) {
    if (loop->length < 0 && !loop->filtered) loop->length = (int64_t)loop->source->len;
    if (loop->length < 0) {
        tm__value rest, value;
        bool found;
        TM__TRY(tm__value_items(run, TM__LIST, 0, &rest));
        for (;;) {
            TM__TRY(pull(run, loop, &found, &value));
            if (!found) break;
            TM__TRY(tm__items_push(run, rest.items, value));
        }
        loop->source = rest.items;
        loop->next = 0;
        loop->filtered = false;
        loop->length = (int64_t)rest.items->len + loop->index0 + 1 + loop->has_after;
    }
    *length = loop->length;
    return TM_OK;
}

static tm_status loop_turn(tm__run *run, tm__loop *loop, bool *completed) {
    TM__TRY(tm__scope_push(run, loop->outer));
    TM__TRY(tm__assign(run, loop->node->a, &loop->current));
    TM__TRY(set_special(run, "loop", (tm__value){.kind = TM__LOOP, .loop = loop}));
    TM__TRY(tm__exec(run, &loop->node->list));
    *completed |= run->flow == TM__FLOW_ON;
    return TM_OK;
}

static tm_status run_loop(tm__run *run, const tm__node *node, tm__scope *outer, const tm__value *iterable,
                          int64_t depth0) {
    tm__loop *loop;
    tm__scope *scope = run->scope;
    bool completed = false;
    TM__TRY(tm__run_alloc(run, 1, sizeof *loop, &loop));
    *loop = (tm__loop){
        .node = node, .outer = outer, .filtered = node->c != NULL, .index0 = -1, .length = -1, .depth0 = depth0};
    TM__TRY(tm__iterate(run, iterable, &loop->source));
    for (;;) {
        const tm__value *next;
        TM__TRY(tm__loop_peek(run, loop, &next));
        if (!next) break;
        loop->has_after = false;
        loop->before = loop->current;
        loop->current = *next;
        loop->index0++;
        TM__TRY(loop_turn(run, loop, &completed));
        bool leave = run->flow == TM__FLOW_BREAK;
        run->flow = TM__FLOW_ON;
        if (leave) break;
    }
    run->scope = scope;
    if (completed || node->otherwise.len == 0) return TM_OK; /* as in Jinja, a break in the first turn runs `else` */
    TM__TRY(tm__scope_push(run, outer));
    TM__TRY(tm__exec(run, &node->otherwise));
    run->scope = scope;
    return TM_OK;
}

tm_status tm__loop_recurse(tm__run *run, const tm__loop *loop, const tm__value *iterable, tm__value *out) {
    tm__buffer sink = {0}, *before = run->out;
    if (!loop->node->flag)
        return tm__run_fail(run, TM_INVALID, "the loop must have the 'recursive' marker to be called recursively");
    TM__TRY(tm__run_deeper(run));
    run->out = &sink;
    TM__TRY(run_loop(run, loop->node, loop->outer, iterable, loop->depth0 + 1));
    run->out = before;
    run->left.depth++;
    return tm__buffer_value(run, &sink, out);
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static tm_status exec_if(tm__run *run, const tm__node *node) {
    tm__value test;
    TM__TRY(tm__eval(run, node->a, &test));
    return tm__exec(run, tm__is_true(&test) ? &node->list : &node->otherwise);
}

static tm_status exec_with(tm__run *run, const tm__node *node) {
    tm__scope *scope = run->scope;
    tm__value *values;
    TM__TRY(tm__run_alloc(run, node->named.len + 1, sizeof *values, &values));
    for (size_t i = 0; i < node->named.len; i++) TM__TRY(tm__eval(run, node->named.data[i]->b, &values[i]));
    TM__TRY(tm__scope_push(run, scope));
    for (size_t i = 0; i < node->named.len; i++) TM__TRY(tm__assign(run, node->named.data[i]->a, &values[i]));
    TM__TRY(tm__exec(run, &node->list));
    run->scope = scope;
    return TM_OK;
}

static tm_status exec_generation(tm__run *run, const tm__node *node) {
    tm__scope *scope = run->scope;
    size_t start = run->root.len;
    tm__stretches *s = &run->stretches;
    TM__TRY(tm__scope_push(run, scope));
    TM__TRY(tm__exec(run, &node->list));
    run->scope = scope;
    run->hidden |= run->out != &run->root;
    if (!tm__grow((void **)&s->data, &s->cap, s->len + 1, sizeof *s->data)) return tm__fail_memory();
    s->data[s->len++] = (tm__stretch){start, run->root.len};
    return TM_OK;
}

static tm_status exec_set(tm__run *run, const tm__node *node) {
    tm__value value;
    if (node->kind == TM__NODE_SET)
        TM__TRY(tm__eval(run, node->b, &value));
    else
        TM__TRY(captured_block(run, node, &value));
    return tm__assign(run, node->a, &value);
}

static tm_status exec_one(tm__run *run, const tm__node *node) {
    tm__value value;
    switch (node->kind) {
    case TM__NODE_DATA:
        return tm__print(run, &node->constant, run->out);
    case TM__NODE_PRINT:
        TM__TRY(tm__eval(run, node->a, &value));
        return tm__print(run, &value, run->out);
    case TM__NODE_IF:
        return exec_if(run, node);
    case TM__NODE_FOR:
        TM__TRY(tm__eval(run, node->b, &value));
        return run_loop(run, node, run->scope, &value, 0);
    case TM__NODE_SET:
    case TM__NODE_SET_BLOCK:
        return exec_set(run, node);
    case TM__NODE_MACRO:
        TM__TRY(make_macro(run, node, &value));
        return tm__scope_set(run, run->scope, node->name, value);
    case TM__NODE_CALL_BLOCK:
        return exec_call_block(run, node);
    case TM__NODE_FILTER_BLOCK:
        TM__TRY(captured_block(run, node, &value));
        return tm__print(run, &value, run->out);
    case TM__NODE_WITH:
        return exec_with(run, node);
    case TM__NODE_GENERATION:
        return exec_generation(run, node);
    default:
        run->flow = node->kind == TM__NODE_BREAK ? TM__FLOW_BREAK : TM__FLOW_CONTINUE;
        return TM_OK;
    }
}

tm_status tm__exec(tm__run *run, const tm__nodes *body) {
    TM__TRY(tm__run_deeper(run));
    for (size_t i = 0; i < body->len && run->flow == TM__FLOW_ON; i++) {
        run->line = body->data[i]->line;
        TM__TRY(tm__run_step(run, 1));
        TM__TRY(exec_one(run, body->data[i]));
    }
    run->left.depth++;
    return TM_OK;
}
