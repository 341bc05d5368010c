/* prompt.h: what a local judge reads: a text with places for prompt, answer and context, and how it becomes tokens. */
#ifndef TM_JUDGE_PROMPT_H
#define TM_JUDGE_PROMPT_H

#include "judge/judge.h"
#include "model/model.h"

/* Places: {prompt} (or {behavior}, {question}, {instruction}, {forbidden_prompt}), {answer} (or {generation},
 * {response}), {context}. Other words in braces stand for themselves. */
typedef struct tm__judge_prompt {
    char *text;
    bool context; /* has a place for it */
} tm__judge_prompt;

/* A file of at most 1 MiB that holds UTF-8 and no NUL; the caller's. */
tm_status tm__prompt_text(const char *path, char **text);
void tm__prompt_end_line(char *text); /* takes one line break off its end */
/* Reads `path`, or where it is NULL copies `text`. One line break at the end of a file does not count. TM_FORMAT if
 * there is no place for the answer. */
tm_status tm__prompt_load(const char *path, const char *text, tm__judge_prompt *prompt);
void tm__prompt_free(tm__judge_prompt *prompt);
/* The text with its places filled. */
tm_status tm__prompt_fill(const tm__judge_prompt *prompt, const tm__exchange *exchange, tm__string *out);

/* What was asked: the prompt, behind the context and a line of dashes where `with_context` and there is one, as
 * HarmBench asks its contextual behaviours. The caller's; NULL: out of memory. */
char *tm__exchange_asked(const tm__exchange *exchange, bool with_context);

/* An exchange made ready for a judge's tokenizer: texts are copies, its own. */
typedef struct tm__ready {
    char *prompt, *context, *answer;
} tm__ready;
/* The answer cut to its first `answer_tokens` tokens (0: all), and all texts with what they spell like a special token
 * broken up by a blank, so that an answer cannot speak for its judge. A context for which `prompt` (NULL: a chat
 * template) has no place stands before what was asked. */
tm_status tm__ready_make(const tm__judge_prompt *prompt, const tm_tokenizer *tokenizer, const tm__exchange *exchange,
                         int64_t answer_tokens, tm__ready *ready);
void tm__ready_free(tm__ready *ready);
tm__exchange tm__ready_exchange(const tm__ready *ready);

/* Ids of the prompt's text, special tokens in it recognised, behind what the tokenizer puts before a text. */
tm_status tm__prompt_encode(const tm__judge_prompt *prompt, const tm_tokenizer *tokenizer, const tm__exchange *ready,
                            tm_ids *ids);

/* What a decoder classifier reads: the text filled, the end token where `eos`, cut to `max_length` at the right. */
tm_status tm__classifier_encode(const tm__judge_prompt *text, const tm_tokenizer *tokenizer,
                                const tm__exchange *exchange, int64_t max_length, bool eos, tm_ids *ids);
extern const char tm__classifier_text[]; /* beaver-dam's */

/* ---- what decides a verdict -------------------------------------------------------------------------------------- */

/* Config and tokenizer of a checkpoint: names and bytes of the files that are there. */
tm_status tm__identity_files(const char *directory, tm__sha256 *hash);
void tm__identity_text(tm__sha256 *hash, const char *text); /* NULL differs from "" */

#endif
