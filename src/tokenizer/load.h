/* load.h: what the readers of tokenizer.json share. */
#ifndef TM_TOKENIZER_LOAD_H
#define TM_TOKENIZER_LOAD_H

#include "tokenizer/tokenizer.h"

#include <jansson.h>

/* Where a reader is: names the file and the field in errors. */
typedef struct tm__place {
    tm_tokenizer *tok;
    const char *file, *field;
} tm__place;

typedef tm_status (*tm__load_one)(const tm__place *at, const json_t *object, const char *type);

/* The object, or the objects of a Sequence whose list stands under `list`; null is an empty sequence. */
tm_status tm__load_each(const tm__place *at, const json_t *value, const char *list, tm__load_one load);
/* Refuses a type by name. `known`: the types that are there. */
tm_status tm__load_unsupported(const tm__place *at, const char *type, const char *known);
tm_status tm__load_bad(const tm__place *at, const char *what);
tm_status tm__load_flag(const tm__place *at, const json_t *object, const char *key, bool fallback, bool *value);
/* A string, kept in the vocabulary's arena. */
tm_status tm__load_text(const tm__place *at, const json_t *object, const char *key, const char **text, size_t *len);
/* {"Regex": "..."} or {"String": "..."} */
tm_status tm__load_pattern(const tm__place *at, const json_t *object, tm__step *step);
/* Metaspace, as pre-tokenizer and as decoder. */
tm_status tm__load_metaspace(const tm__place *at, const json_t *object, tm__step *step);
tm__step *tm__load_step(tm__steps *steps, tm__step_kind kind, tm_status *status);

tm_status tm__load_post_processor(const tm__place *at, const json_t *object, const char *type); /* load_decoders.c */
tm_status tm__load_decoder(const tm__place *at, const json_t *object, const char *type);
tm_status tm__load_model(tm_tokenizer *tok, const char *file, const json_t *model); /* load_model.c */
tm_status tm__load_vocab(tm_tokenizer *tok, const char *file, const json_t *vocab, const char *field);
/* "a b": exactly one space. */
tm_status tm__load_merge_line(tm_tokenizer *tok, const char *file, const char *line, size_t len, size_t index);

#endif
