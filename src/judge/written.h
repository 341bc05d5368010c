/* written.h: judges that are language models on this machine and are read by the one token they would write. */
#ifndef TM_JUDGE_WRITTEN_H
#define TM_JUDGE_WRITTEN_H

#include "judge/prompt.h"

typedef struct tm__written {
    tm_device *device;
    tm_model *model;
    tm_tokenizer *tokenizer;
    tm__judge_prompt prompt,
        contextual;            /* contextual.text NULL: there is none; prompt.text NULL: the chat template asks */
    int64_t answer_tokens;     /* of an answer that are read; 0: all */
    int32_t ids[TM__NEXT_IDS]; /* tokens that say one of the words */
    int word[TM__NEXT_IDS];    /* which */
    size_t id_count;
    bool *skip; /* (vocab) blanks before the word; NULL: none are left out */
    bool noted; /* that a text is longer than the model was made for */
    char hash[65];
} tm__written;

/* What a kind's calls have in common. Its own state, `size` bytes, begins with a tm__written and is zeroed; `begin`
 * loads the judge, chooses its words and seals it. */
typedef tm_status tm__written_begin(tm__written *w, const char *path, const void *options,
                                    const struct tm__judge_place *place);
tm_status tm__written_open(size_t size, tm__written_begin *begin, const char *path, const void *options,
                           const struct tm__judge_place *place, void **own);
void tm__written_close(void *own);
void tm__written_identify(const void *own, tm__sha256 *hash);
/* Asks about all exchanges, and has `say` make a verdict of each. */
typedef tm_status tm__written_say(const tm__written *w, const tm__exchange *exchange, const tm__next *next,
                                  tm__verdict *verdict);
tm_status tm__written_judge(tm__written *w, tm__written_say *say, const tm__exchange *exchanges, size_t n,
                            tm__verdict *verdicts, const tm_monitor *monitor);

/* Loads model, adapter (NULL: none) and tokenizer into `w`. */
tm_status tm__written_load(tm__written *w, const char *directory, const char *adapter,
                           const struct tm__judge_place *place);
/* Tokens that say `text` from now on say word `word`: those that show it alone, in any case and with blanks around it;
 * with `begin` also those that it begins with where it is several. What would say two words says none. */
tm_status tm__written_word(tm__written *w, int word, const char *text, bool begin);
/* Blanks that the model writes before its word are passed over. */
tm_status tm__written_skip_blanks(tm__written *w);
/* Makes the hash, once all is chosen; `more` is what else decides. */
tm_status tm__written_seal(tm__written *w, const char *directory, const char *adapter, const char *more);

/* The likeliest token as text; the caller's. */
tm_status tm__written_text(const tm__written *w, const tm__next *next, char **text);
/* Scores of a verdict by the likeliest token: 1 where it says `harmful`, 0 where it says `harmless`, else missing; and
 * the probability that it says `harmful`. */
tm_status tm__written_verdict(const tm__written *w, const tm__next *next, int harmful, int harmless,
                              tm__verdict *verdict);

#endif
