/* chat.h: what other rooms may know of conversations beyond the public header. */
#ifndef TM_CHAT_H
#define TM_CHAT_H

#include "base/base.h"

/* tm_chat_encode; *split (may be NULL) grows by the tokens that an answer's border cuts in two. */
tm_status tm__chat_encode(const tm_tokenizer *tok, tm_chat_format format, const tm_message *messages, size_t n,
                          bool ask, tm_ids *ids, tm_ids *labels, size_t *split);
/* Whether what is trained on ends with a token that ends a turn or a text. */
bool tm__chat_ends(const tm_tokenizer *tok, const tm_ids *labels);
/* Text of the template that TM_CHAT_TEMPLATE executes; NULL: there is none. */
const char *tm__chat_template_source(const tm_tokenizer *tok);
/* chat_template.jinja of one that was named; nothing where none was. */
tm_status tm__chat_template_write(const tm_tokenizer *tok, const char *directory);

#endif
