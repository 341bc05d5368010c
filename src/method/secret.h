/* secret.h: BackdoorAlign's secret and its rows; see secret.c. The public calls are in temper.h. */
#ifndef TM_METHOD_SECRET_H
#define TM_METHOD_SECRET_H

#include "train/train.h"

/* A new secret of about `length` tokens from the system's random numbers. The text is the caller's. */
tm_status tm__secret_draw(const tm_tokenizer *tokenizer, int64_t length, char **secret);
/* The same from a seeded stream, for experiments that have to be repeatable: such a secret keeps nothing secret. */
tm_status tm__secret_draw_seeded(const tm_tokenizer *tokenizer, int64_t length, tm__rng *rng, char **secret);
/* TM_EXISTS if path is there. */
tm_status tm__secret_free_name(const char *path);
/* Writes path (mode 0600) and path.sha256; TM_EXISTS if path is there. */
tm_status tm__secret_save(const char *path, const char *secret);
void tm__secret_hash(const char *secret, char hex[65]);
/* secret + " " + system, without the blank where one of them is empty; the caller's. NULL: out of memory. */
char *tm__secret_prefix(const char *secret, const char *system);
/* Appends row `row` of `from` with the secret before its system message; `system` stands in where it has none. */
tm_status tm__secret_add_row(tm_dataset *to, const tm_dataset *from, size_t row, const char *secret,
                             const char *system);

/* User rows as they are, then `rows` safety rows with the secret; "": the same rows without it (the baseline of plain
 * safety rows). Selection by category: the first row of each category in order of first appearance, then the second of
 * each, and so on; else at random by `seed`. TM_INVALID if a user row holds the secret. */
tm_status tm__backdoor_rows(const tm_dataset *user, const tm_dataset *safety, const char *secret,
                            const tm_backdoor_options *options, uint64_t seed, tm_dataset **rows);

#endif
