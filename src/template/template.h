/* template.h: what other rooms may know of templates. */
#ifndef TM_TEMPLATE_H
#define TM_TEMPLATE_H

#include "base/base.h"

/* A chat template: Jinja2 as chat templates use it, executed with no way out. */
typedef struct tm_template tm_template;

/* `name` tells errors (a file, say; NULL: "template"). TM_FORMAT and TM_UNSUPPORTED name the line. */
tm_status tm_template_parse(const char *name, const char *source, size_t len, tm_template **parsed);
void tm_template_free(tm_template *chat_template);
const char *tm__template_name(const tm_template *chat_template);
/* The text of a conversation, as transformers' apply_chat_template(tokenize=False) gives it. `ask` is
 * add_generation_prompt; `variables` (may be NULL) a JSON object of further names: bos_token, eos_token, tools,
 * enable_thinking. What the template refuses (raise_exception) is TM_INVALID with its line and message. */
tm_status tm_template_render(const tm_template *chat_template, const tm_message *messages, size_t n, bool ask,
                             const char *variables, char **text, size_t *len);

/* A template is foreign code, so a rendering is bounded. */
typedef struct tm__limits {
    int64_t steps; /* nodes visited, elements and bytes touched */
    size_t bytes;  /* of the arena */
    int depth;     /* of nested macros, loops and expressions */
} tm__limits;
extern const tm__limits tm__template_limits;

/* What lies between generation and endgeneration, in bytes of the result. */
typedef struct tm__stretch {
    size_t start, end;
} tm__stretch;

typedef struct tm__stretches {
    tm__stretch *data;
    size_t len, cap;
} tm__stretches;

typedef struct tm__render_options {
    const char *variables; /* JSON object, or NULL */
    size_t variables_len;
    const tm__limits *limits; /* NULL: tm__template_limits */
    int64_t now;              /* as in tm__run */
} tm__render_options;

/* tm_template_render with what the tokenizer's side needs: the stretches of generation tags (malloc'd; NULL: not asked
 * for; TM_UNSUPPORTED where one is inside of a macro or block that is captured). */
tm_status tm__template_render(const tm_template *template, const tm_message *messages, size_t n, bool ask,
                              const tm__render_options *options, char **text, size_t *len, tm__stretches *stretches);
/* Whether it has a generation tag. */
bool tm__template_marks(const tm_template *template);

#endif
