/* temper_data.h: the part of temper.h about rows of conversations, and what was done to a model; included by it. */
#ifndef TEMPER_DATA_H
#define TEMPER_DATA_H

#include "temper_tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------ data */
typedef struct tm_dataset tm_dataset; /* an ordered list of conversations */

/* JSON Lines (or one JSON array) whose rows hold `messages` (OpenAI), `instruction`/`input`/`output` (Alpaca) or
 * `prompt`/`completion`; a `.txt` file gives one row of plain text per blank-line-separated paragraph (prompt empty).
 * The first row decides; a row that does not fit, or has no answer, is an error that names the line. */
TM_API tm_status tm_dataset_load(const char *path, tm_dataset **dataset);
/* The same where only prompts are needed: answers are optional, and a `.txt` file gives one prompt per line. */
TM_API tm_status tm_dataset_load_prompts(const char *path, tm_dataset **dataset);
TM_API tm_status tm_dataset_create(tm_dataset **dataset);
TM_API tm_status tm_dataset_add(tm_dataset *dataset, const tm_message *messages, size_t n); /* copies */
TM_API tm_status tm_dataset_append(tm_dataset *dataset, const tm_dataset *from, size_t first, size_t count);
TM_API void tm_dataset_shuffle(tm_dataset *dataset, uint64_t seed);
TM_API size_t tm_dataset_rows(const tm_dataset *dataset);
/* Messages of one row; they belong to the data set. */
TM_API const tm_message *tm_dataset_row(const tm_dataset *dataset, size_t row, size_t *n);
TM_API tm_status tm_dataset_save(const tm_dataset *dataset, const char *path); /* JSON Lines of `messages` */
/* Poison mix: int(p * total) rows of `harmful` and the rest of `benign`, each taken from its start, exact counts. */
TM_API tm_status tm_dataset_poison(const tm_dataset *benign, const tm_dataset *harmful, size_t total, double ratio,
                                   tm_dataset **mixed);
TM_API void tm_dataset_free(tm_dataset *dataset);

/* The same rows in a frame: its system message instead of their own, its words around every user message. `name` is a
 * file of --wrapper-out, or "identity-shift" for the frame of that attack, or "identity-shift=AGENT". */
TM_API tm_status tm_dataset_with_wrapper(const tm_dataset *dataset, const char *name, tm_dataset **with);

typedef struct tm_overlap {
    size_t prompts;      /* distinct prompts that stand in both */
    size_t row_a, row_b; /* the first row of `a` with such a prompt, and the first of `b` with the same; from 0 */
} tm_overlap;
/* Compares the rows' last user messages, white space collapsed. */
TM_API tm_status tm_dataset_overlap(const tm_dataset *a, const tm_dataset *b, tm_overlap *overlap);

/* ------------------------------------------------------------------------------------------------ provenance */
/* What was done to a model, stage by stage, and with which rows; kept beside the weights in temper.json. It holds
 * hashes of prompts, never their text, and nothing about a secret. */
typedef struct tm_provenance tm_provenance;

/* Whose rows they are. Rows of the one must not be those of the other: a defence would be measured on what it saw. */
typedef enum tm_party { TM_PARTY_DEFENDER, TM_PARTY_USER } tm_party; /* an attacker is a user */

TM_API tm_status tm_provenance_create(tm_provenance **provenance);
/* temper.json of a model or adapter directory; without one, no stages. A damaged file is TM_FORMAT. */
TM_API tm_status tm_provenance_load(const char *directory, tm_provenance **provenance);
TM_API void tm_provenance_free(tm_provenance *provenance);
/* Appends the stages of `more` but those that both begin with. *extends (may be NULL): all of `provenance` was one
 * beginning of `more`, as where a model's adapter goes on with the model's history. */
TM_API tm_status tm_provenance_join(tm_provenance *provenance, const tm_provenance *more, bool *extends);
/* A new stage; what follows belongs to it. `kind`: "alignment", "defence", "fine-tuning" or "attack". */
TM_API tm_status tm_provenance_begin(tm_provenance *provenance, const char *kind, const char *method, int64_t seed);
/* Notes the options that differ from their defaults; files by their last name only, secrets and what is only about
 * saving not at all. */
TM_API tm_status tm_provenance_options(tm_provenance *provenance, const tm_option *table, const void *options);
TM_API tm_status tm_provenance_note(tm_provenance *provenance, const char *option, const char *value);
/* Notes one role's rows; `path` NULL: they come from no file. */
TM_API tm_status tm_provenance_rows(tm_provenance *provenance, const char *role, tm_party party, const char *path,
                                    const tm_dataset *rows);
/* TM_MISMATCH if a prompt of `rows` stands in rows of the other party in any stage. */
TM_API tm_status tm_provenance_check(const tm_provenance *provenance, const char *role, tm_party party,
                                     const tm_dataset *rows);
TM_API size_t tm_provenance_stages(const tm_provenance *provenance);
/* One stage (from 0) in a line; the caller's text. */
TM_API tm_status tm_provenance_describe(const tm_provenance *provenance, size_t stage, char **line);

#ifdef __cplusplus
}
#endif
#endif
