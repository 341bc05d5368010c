/* spoil.h: a small good model with data in a directory of its own, and ways to spoil one thing of it. */
#ifndef TM_TEST_SPOIL_H
#define TM_TEST_SPOIL_H

#include "support.h"

/* Makes a fresh directory with model/ (config.json, model.safetensors, tokenizer) and rows.jsonl, and enters it. */
void spoil_begin(void);
void spoil_end(void); /* leaves and removes it */

/* All take (path, a, b), so that a table can name them. */
void spoil_nothing(const char *path, const char *a, const char *b);
void spoil_write(const char *path, const char *text, const char *unused);
void spoil_append(const char *path, const char *text, const char *unused);
void spoil_remove(const char *path, const char *a, const char *b);
void spoil_directory(const char *path, const char *a, const char *b);   /* a directory of that name instead */
void spoil_truncate(const char *path, const char *size, const char *b); /* negative: that many from the end */
void spoil_replace(const char *path, const char *from, const char *to); /* the first occurrence, which must exist */
void spoil_deep(const char *path, const char *a, const char *b);        /* JSON of 100,000 levels */

void spoil_header(const char *path, const char *from, const char *to); /* in the safetensors header */
void spoil_header_whole(const char *path, const char *header, const char *b);
void spoil_header_deep(const char *path, const char *a, const char *b);
void spoil_header_length(const char *path, const char *length, const char *b);
void spoil_norm(const char *path, const char *entry, const char *b); /* the last tensor's entry; @A, @B: its offsets */
void spoil_index(const char *index, const char *a, const char *b);   /* weights in part.safetensors and this index */
void spoil_last_float(const char *path, const char *bits, const char *b);

void spoil_sentencepiece(const char *directory, const char *bytes, const char *b); /* tokenizer.model instead */
void spoil_adapter(const char *path, const char *from,
                   const char *to); /* a good adapter, then replaced in its config */

#endif
