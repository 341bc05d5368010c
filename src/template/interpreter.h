/* interpreter.h: the parts of the template interpreter, shared by its files. Other rooms see template.h alone.
 *
 * A template is text with tags of Jinja2. It goes from source to tokens (lex.c), to a tree (parse.c, expression.c), and
 * the tree is walked for each conversation (exec.c: statements, eval.c: expressions). Values are Python's, as far as a
 * template can see them. All that one rendering makes lives in one arena, which ends with it; the tree lives in the
 * template's.
 *
 * A template is foreign code: a rendering is bounded in steps, bytes and depth, and a construct that is not known is an
 * error that names it and its line. Errors are TM_FORMAT for what no Jinja accepts, TM_UNSUPPORTED for what this one
 * does not know, TM_INVALID for what fails while it runs (raise_exception among it).
 */
#ifndef TM_INTERPRETER_H
#define TM_INTERPRETER_H

#include "template/template.h"

/* ---- values (value.c) -------------------------------------------------------------------------------------------- */

typedef enum tm__kind {
    TM__UNDEFINED, /* Jinja's default Undefined: empty where printed, an error where used */
    TM__NONE,
    TM__BOOL,
    TM__INT, /* 64 bits; beyond them is an error */
    TM__REAL,
    TM__TEXT,
    TM__LIST,
    TM__TUPLE,
    TM__RANGE,    /* a list that is printed as range(a, b) */
    TM__DICT,     /* keeps the order of insertion */
    TM__VIEW,     /* keys(), values(), items(): has a length, has no elements */
    TM__ITERATOR, /* what filters like map give: gone through once */
    TM__NAMESPACE,
    TM__LOOP,
    TM__MACRO,
    TM__FUNCTION, /* a global function */
    TM__METHOD,   /* a method and the value that it belongs to */
    TM__ABSENT,   /* an argument that was not given; never seen by a template */
} tm__kind;

/* Valid UTF-8. */
typedef struct tm__str {
    const char *data;
    size_t len, chars;
} tm__str;

typedef struct tm__value tm__value;
typedef struct tm__items tm__items;
typedef struct tm__dict tm__dict;
typedef struct tm__loop tm__loop;
typedef struct tm__macro tm__macro;
typedef struct tm__method tm__method;
typedef struct tm__builtin tm__builtin;
typedef struct tm__node tm__node;
typedef struct tm__run tm__run;

struct tm__value {
    uint8_t kind; /* tm__kind */
    bool markup;  /* a text that went through `safe` or `escape`: what is added to it is escaped */
    union {
        bool truth;
        int64_t integer;
        double real;
        const tm__str *text;
        const char *hint; /* of TM__UNDEFINED: what an error says */
        tm__items *items;
        tm__dict *dict; /* of TM__NAMESPACE too */
        tm__loop *loop;
        const tm__macro *macro;
        const tm__builtin *function;
        const tm__method *method;
    };
};

struct tm__items {
    tm__value *data;
    size_t len, cap;
    size_t next;              /* of an iterator */
    const char *name;         /* of a view: "dict_items"; of an iterator: "generator" */
    int64_t start, end, step; /* of a range */
};

typedef struct tm__entry {
    uint64_t hash;
    tm__value key, value;
} tm__entry;

struct tm__dict {
    tm__entry *data;
    size_t len, cap;
};

struct tm__method {
    tm__value self;
    const tm__builtin *function;
};

typedef struct tm__named {
    const tm__str *name;
    tm__value value;
} tm__named;

typedef struct tm__args {
    const tm__value *data;
    size_t count;
    const tm__named *named;
    size_t named_count;
} tm__args;

/* One filter, test, method or function. With `params` ("width first=") its arguments are put into that order, a missing
 * one as TM__ABSENT, and `call` is used; without, `raw` gets them as they are. */
struct tm__builtin {
    const char *name, *params;
    size_t required;
    tm_status (*call)(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out);
    tm_status (*raw)(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out);
};

enum { TM__PARAMS_MAX = 8 };

/* Made in a rendering; TM_NO_MEMORY, or TM_INVALID where its bytes are used up. */
tm_status tm__value_text(tm__run *run, const char *data, size_t len, tm__value *out); /* copies */
tm_status tm__value_items(tm__run *run, tm__kind kind, size_t cap, tm__value *out);
tm_status tm__value_dict(tm__run *run, tm__kind kind, tm__value *out);
tm_status tm__items_push(tm__run *run, tm__items *items, tm__value value);
tm_status tm__items_pair(tm__run *run, tm__items *items, tm__value a, tm__value b); /* pushes the tuple (a, b) */
tm_status tm__dict_put(tm__run *run, tm__dict *dict, const tm__value *key, tm__value value);
/* *found NULL: not there. An unhashable key is an error. */
tm_status tm__dict_find(tm__run *run, const tm__dict *dict, const tm__value *key, const tm__value **found);
const tm__value *tm__dict_text(const tm__dict *dict, const char *key, size_t len); /* NULL: not there */
tm__value tm__undefined(tm__run *run, const char *format, ...) TM__PRINTF(2, 3);

static inline tm__value tm__none(void) {
    return (tm__value){.kind = TM__NONE};
}
static inline tm__value tm__truth(bool truth) {
    return (tm__value){.kind = TM__BOOL, .truth = truth};
}
static inline tm__value tm__integer(int64_t integer) {
    return (tm__value){.kind = TM__INT, .integer = integer};
}
static inline tm__value tm__real(double real) {
    return (tm__value){.kind = TM__REAL, .real = real};
}
static inline bool tm__given(const tm__value *argument) {
    return argument->kind != TM__ABSENT;
}

bool tm__is_true(const tm__value *value);
const char *tm__type_name(const tm__value *value); /* "dict", "NoneType" */
bool tm__is_number(const tm__value *value);        /* bool, int, float */
double tm__as_real(const tm__value *number);
bool tm__as_integer(const tm__value *value, int64_t *integer); /* int and bool */
bool tm__is_sequence(const tm__value *value);                  /* list, tuple, range */
tm_status tm__equal(tm__run *run, const tm__value *a, const tm__value *b, bool *equal);
/* Sign of a - b; an error where Python has no order. `sign` names the operation in it. */
tm_status tm__compare(tm__run *run, const tm__value *a, const tm__value *b, const char *sign, int *order);
tm_status tm__contains(tm__run *run, const tm__value *container, const tm__value *item, bool *contains);
/* The elements as a list of its own or a shared one, not to be changed. Goes through an iterator to its end. */
tm_status tm__iterate(tm__run *run, const tm__value *value, const tm__items **items);
tm_status tm__length(tm__run *run, const tm__value *value, int64_t *length);

/* ---- text of values (print.c, json.c) ---------------------------------------------------------------------------- */

/* A text that grows in the rendering's arena. */
typedef struct tm__buffer {
    char *data;
    size_t len, cap;
} tm__buffer;

tm_status tm__buffer_put(tm__run *run, tm__buffer *sink, const char *data, size_t len);
tm_status tm__buffer_repeat(tm__run *run, tm__buffer *sink, char c, size_t count);
tm_status tm__buffer_value(tm__run *run, const tm__buffer *sink, tm__value *out); /* a text that shares its bytes */
tm_status tm__print(tm__run *run, const tm__value *value, tm__buffer *sink);      /* str() */
tm_status tm__repr(tm__run *run, const tm__value *value, tm__buffer *sink);
tm_status tm__as_text(tm__run *run, const tm__value *value, tm__value *text); /* keeps a text as it is */
tm_status tm__escape(tm__run *run, const tm__value *value, tm__value *out);   /* a text for HTML, as markup */
int tm__real_text(double real, char out[40]);                                 /* Python's repr; bytes written */
double tm__real_of(const char *text, char **end);                             /* strtod with a point in every locale */
tm_status tm__json_text_of(tm__run *run, const tm__value *value, bool ascii, const tm__value *indent,
                           const tm__value *separators, bool sorted, tm__value *out);
tm_status tm__json_value(tm__run *run, const struct json_t *json, tm__value *out);

/* ---- characters (text.c) ----------------------------------------------------------------------------------------- */

bool tm__python_space(uint32_t code);
/* Decodes the character at `data` and gives its length; the text is valid. */
int tm__char_at(const char *data, size_t len, uint32_t *code);
size_t tm__char_count(const char *data, size_t len);
size_t tm__char_offset(const tm__str *text, size_t index); /* byte at which the index-th character begins */
typedef enum tm__case { TM__UPPER, TM__LOWER, TM__TITLE, TM__CAPITAL, TM__SWAP } tm__case;
tm_status tm__change_case(tm__run *run, const tm__str *text, tm__case to, tm__value *out);
/* `chars` NULL: white space. */
tm__str tm__strip(const tm__str *text, const tm__str *chars, bool left, bool right);
tm_status tm__replace(tm__run *run, const tm__str *text, const tm__str *old, const tm__str *with, int64_t count,
                      tm__value *out);
tm_status tm__split_lines(tm__run *run, const tm__str *text, bool keep, tm__value *out);
/* Python's slice of a sequence: first index, step, number of elements. What is no integer is taken for None. */
tm_status tm__slice_range(tm__run *run, const tm__value bounds[3], size_t length, int64_t *first, int64_t *step,
                          size_t *count);

/* ---- the tree (parse.c, expression.c) ---------------------------------------------------------------------------- */

typedef enum tm__token_kind {
    TM__TOKEN_DATA,
    TM__TOKEN_PRINT,     /* {{ */
    TM__TOKEN_PRINT_END, /* }} */
    TM__TOKEN_TAG,       /* {% */
    TM__TOKEN_TAG_END,   /* %} */
    TM__TOKEN_NAME,
    TM__TOKEN_STRING,
    TM__TOKEN_NUMBER,
    TM__TOKEN_SIGN, /* `sign`: its characters, the first in the lowest byte */
    TM__TOKEN_END,
} tm__token_kind;

#define TM__SIGN1(a) (a)
#define TM__SIGN2(a, b) ((a) | (b) << 8)

typedef struct tm__token {
    uint8_t kind;
    uint16_t sign;
    int line;
    tm__str text; /* DATA, NAME, STRING */
    tm__value number;
} tm__token;

typedef struct tm__tokens {
    tm__token *data;
    size_t len, cap;
} tm__tokens;

typedef enum tm__node_kind {
    /* expressions */
    TM__NODE_CONSTANT,               /* constant */
    TM__NODE_NAME,                   /* name */
    TM__NODE_ATTRIBUTE_OF_NAMESPACE, /* name, other; as a target of set */
    TM__NODE_LIST,                   /* list */
    TM__NODE_TUPLE,                  /* list */
    TM__NODE_DICT,                   /* list: key, value, key, value */
    TM__NODE_ATTRIBUTE,              /* a.name */
    TM__NODE_INDEX,                  /* a[b] */
    TM__NODE_SLICE,                  /* a[list[0]:list[1]:list[2]], each may be NULL */
    TM__NODE_CALL,                   /* a(arguments) */
    TM__NODE_FILTER,                 /* a | name(arguments) */
    TM__NODE_TEST,                   /* a is name(arguments) */
    TM__NODE_UNARY,                  /* op a */
    TM__NODE_BINARY,                 /* a op b */
    TM__NODE_CONCAT,                 /* list joined by ~ */
    TM__NODE_COMPARE,                /* a, then the list's operands: nodes that hold op and a */
    TM__NODE_AND,
    TM__NODE_OR,
    TM__NODE_NOT,
    TM__NODE_CHOICE, /* b if a else c; c may be NULL */
    /* statements */
    TM__NODE_DATA,         /* constant */
    TM__NODE_PRINT,        /* a */
    TM__NODE_IF,           /* a, body list, otherwise */
    TM__NODE_FOR,          /* target a, iterable b, test c (or NULL), body list, otherwise; flag: recursive */
    TM__NODE_SET,          /* target a, value b */
    TM__NODE_SET_BLOCK,    /* target a, filter b (or NULL), body list */
    TM__NODE_MACRO,        /* name, parameters list (NAMEs with their default as a), body otherwise, op: TM__USES_ */
    TM__NODE_CALL_BLOCK,   /* a: the call; a macro without a name as b */
    TM__NODE_FILTER_BLOCK, /* filter b, body list */
    TM__NODE_WITH,         /* targets named, body list */
    TM__NODE_GENERATION,   /* body list */
    TM__NODE_BREAK,
    TM__NODE_CONTINUE,
} tm__node_kind;

typedef struct tm__nodes {
    tm__node **data;
    size_t len, cap;
} tm__nodes;

struct tm__node {
    uint8_t kind; /* tm__node_kind */
    bool flag;
    uint16_t op; /* sign of an operator, TM__OP_IN or TM__OP_NOT_IN */
    int line;
    const tm__str *name, *other; /* interned: equal names are the same pointer */
    tm__value constant;
    tm__node *a, *b, *c;
    tm__nodes list, otherwise;
    tm__nodes named; /* keyword arguments (name, a); targets of with */
    tm__node *star, *star_star;
};

enum { TM__OP_IN = 1, TM__OP_NOT_IN = 2 };
/* Names in a macro's body that take what its parameters leave over: `op` of the macro. */
enum { TM__USES_VARARGS = 1, TM__USES_KWARGS = 2, TM__USES_CALLER = 4 };

struct tm_template {
    char *name; /* in errors */
    tm__arena arena;
    tm__nodes body;
    tm__nodes names; /* interned, as NAME nodes */
    bool generation; /* has a generation tag */
};

tm_status tm__template_lex(const char *name, const char *source, size_t len, tm__arena *arena, tm__tokens *tokens);

typedef struct tm__parser {
    tm_template *template;
    tm__tokens tokens;
    size_t at;
    int depth, loops; /* nesting; loops that break and continue may mean */
    unsigned uses;    /* TM__USES_ of the macro that is being read */
    tm__map interned; /* text to its index in template->names */
} tm__parser;

tm_status tm__parse_body(tm__parser *p);
tm_status tm__parse_expression(tm__parser *p, bool choice, tm__node **node); /* choice: `a if b` may follow */
/* One expression, or several with commas between them as a tuple, up to the end of the tag or the name `end`. */
tm_status tm__parse_tuple(tm__parser *p, bool choice, const char *end, tm__node **node);
tm_status tm__parse_target(tm__parser *p, const char *end, tm__node **node);
tm_status tm__parse_filters(tm__parser *p, tm__node *of, bool at_name, tm__node **node);
tm_status tm__parse_fail(const tm__parser *p, tm_status status, int line, const char *format, ...) TM__PRINTF(4, 5);
tm_status tm__parse_expected(const tm__parser *p, const char *what);
tm_status tm__parse_node(tm__parser *p, tm__node_kind kind, int line, tm__node **node);
tm_status tm__parse_push(tm__parser *p, tm__nodes *nodes, tm__node *node);
tm_status tm__parse_deeper(tm__parser *p); /* fails where the nesting is too deep; p->depth-- undoes it */
tm_status tm__parse_intern(tm__parser *p, const tm__str *name, const tm__str **interned);
const tm__token *tm__parse_peek(const tm__parser *p, size_t ahead);
bool tm__parse_is_sign(const tm__parser *p, unsigned sign);
bool tm__parse_is_name(const tm__parser *p, const char *name);
bool tm__parse_skip_sign(tm__parser *p, unsigned sign);
bool tm__parse_skip_name(tm__parser *p, const char *name);
tm_status tm__parse_expect_sign(tm__parser *p, unsigned sign);
tm_status tm__parse_expect_name(tm__parser *p, const tm__str **name); /* any name */

/* ---- a rendering ------------------------------------------------------------------------------------------------- */

typedef struct tm__binding {
    const tm__str *name;
    tm__value value;
    struct tm__binding *next;
} tm__binding;

typedef struct tm__scope {
    struct tm__scope *outer;
    tm__binding *bindings;
} tm__scope;

struct tm__macro {
    const tm__node *node;
    tm__scope *scope; /* where it was defined */
};

struct tm__loop {
    const tm__node *node;
    tm__scope *outer;
    const tm__items *source;
    size_t next;
    bool filtered; /* the test of the loop still stands between source and loop */
    bool has_after, has_current, has_changed;
    tm__value after, current, before, changed;
    int64_t index0, length; /* length -1: not known yet */
    int64_t depth0;
};

struct tm__run {
    const tm_template *template;
    tm__limits left;
    tm__arena arena;
    int line;
    enum { TM__FLOW_ON, TM__FLOW_BREAK, TM__FLOW_CONTINUE } flow;
    tm__scope *scope;
    tm__buffer *out, root;
    const tm__dict *globals;
    tm__stretches stretches;
    bool hidden; /* a generation tag ran where its place in the result is not known */
    int64_t now; /* seconds since 1970 of strftime_now; negative: the clock's */
};

/* Fails with the template's name and the line that is being run. */
tm_status tm__run_fail(tm__run *run, tm_status status, const char *format, ...) TM__PRINTF(3, 4);
tm_status tm__run_alloc(tm__run *run, size_t count, size_t size, void *pointer_out); /* zeroed */
tm_status tm__run_step(tm__run *run, size_t cost);
tm_status tm__run_deeper(tm__run *run); /* run->left.depth++ undoes it */

tm_status tm__exec(tm__run *run, const tm__nodes *body);
tm_status tm__eval(tm__run *run, const tm__node *node, tm__value *out);
tm_status tm__assign(tm__run *run, const tm__node *target, const tm__value *value);
tm_status tm__scope_push(tm__run *run, tm__scope *outer);
tm_status tm__scope_set(tm__run *run, tm__scope *scope, const tm__str *name, tm__value value);
tm_status tm__loop_peek(tm__run *run, tm__loop *loop, const tm__value **next); /* NULL: no more */
tm_status tm__loop_length(tm__run *run, tm__loop *loop, int64_t *length);
tm_status tm__loop_recurse(tm__run *run, const tm__loop *loop, const tm__value *iterable, tm__value *out);
tm_status tm__macro_call(tm__run *run, const tm__macro *macro, const tm__args *args, tm__value *out);

tm_status tm__operate(tm__run *run, unsigned sign, const tm__value *a, const tm__value *b, tm__value *out);
tm_status tm__call(tm__run *run, const tm__value *function, const tm__args *args, tm__value *out);
tm_status tm__call_builtin(tm__run *run, const char *what, const tm__builtin *builtin, const tm__value *self,
                           const tm__args *args, tm__value *out);
tm_status tm__filter(tm__run *run, const tm__str *name, const tm__value *value, const tm__args *args, tm__value *out);
tm_status tm__test(tm__run *run, const tm__str *name, const tm__value *value, const tm__args *args, bool *out);
tm_status tm__attribute(tm__run *run, const tm__value *of, const tm__str *name, tm__value *out); /* of.name */
tm_status tm__index(tm__run *run, const tm__value *of, const tm__value *index, tm__value *out);  /* of[index] */
tm_status tm__slice(tm__run *run, const tm__value *of, const tm__value bounds[3], tm__value *out);
/* "a % b" of texts, and str.format. */
tm_status tm__format_percent(tm__run *run, const tm__str *format, const tm__value *arguments, tm__value *out);
tm_status tm__format_braces(tm__run *run, const tm__str *format, const tm__args *args, tm__value *out);

/* NULL: none of this name. */
const tm__builtin *tm__find_builtin(const tm__builtin *table, const tm__str *name);
extern const tm__builtin tm__str_methods[], tm__sequence_methods[], tm__dict_methods[], tm__loop_methods[],
    tm__functions[], tm__value_filters[], tm__sequence_filters[], tm__tests[];

#endif
