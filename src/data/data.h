/* data.h: what other layers may know of a data set beyond the public API. */
#ifndef TM_DATA_H
#define TM_DATA_H

#include "base/base.h"

typedef struct tm__dataset_row {
    tm_message *messages;
    size_t count;
    const char *category; /* kind of harm of a prompt, or NULL */
} tm__dataset_row;

/* Texts live in the arena until the data set is freed, so rows can be moved by their pointers. */
struct tm_dataset {
    tm__arena texts;
    tm__dataset_row *rows;
    size_t count, cap;
};

typedef enum tm__dataset_use {
    TM__ROWS_TO_TRAIN, /* every row ends with an answer */
    TM__ROWS_TO_ASK    /* answers are optional; a line of a .txt file is one prompt */
} tm__dataset_use;

/* tm_dataset_load on a text in memory; `path` names it in errors, and ".txt" at its end says that it is plain text. */
tm_status tm__dataset_parse(const char *text, size_t len, const char *path, tm__dataset_use use, tm_dataset **dataset);
/* tm_dataset_add with a category (may be NULL). */
tm_status tm__dataset_add(tm_dataset *dataset, const tm_message *messages, size_t n, const char *category);
/* The last failure once more, as one of this row (from 0); returns `status`. */
tm_status tm__row_failed(tm_status status, size_t row);
/* What tm_dataset_save writes; the text is the caller's. */
tm_status tm__dataset_text(const tm_dataset *dataset, char **text, size_t *len);
const char *tm__dataset_category(const tm_dataset *dataset, size_t row);
/* Messages up to the last one that asks; an Alpaca input belongs to its instruction. */
size_t tm__messages_asked(const tm_message *messages, size_t n);
/* Checks roles, their order and UTF-8. TM_INVALID names "messages[i].role" or the like. */
tm_status tm__messages_check(const tm_message *messages, size_t n);

/* ---- a frame around prompts (wrapper.c) ---- */

typedef struct tm__wrapper {
    const char *system, *prompt; /* prompt holds "{prompt}" once */
} tm__wrapper;
/* Adds a row in its frame to `to`; category may be NULL. */
tm_status tm__wrapper_apply(const tm__wrapper *wrapper, const tm_message *messages, size_t n, tm_dataset *to,
                            const char *category);
tm_status tm__wrapper_save(const tm__wrapper *wrapper, const char *path);
extern const char tm__wrapper_agent[]; /* "AOA" */
/* The frame of identity-shift. TM_INVALID names "agent". Release it. */
tm_status tm__wrapper_identity(const char *agent, tm__wrapper *wrapper);
/* A file, or "identity-shift", or "identity-shift=AGENT". Release it. */
tm_status tm__wrapper_load(const char *name, tm__wrapper *wrapper);
void tm__wrapper_release(tm__wrapper *wrapper);

/* ---- prompts that data sets share (overlap.c, provenance.c) ---- */

typedef struct tm__prompt {
    uint64_t hash;
    size_t row; /* the first row that has it */
} tm__prompt;
/* Hash of a row's prompt; false: it has none. */
bool tm__prompt_hash(const tm_message *messages, size_t n, uint64_t *hash);
/* The distinct prompts in rising order of their hashes; the caller's array. */
tm_status tm__prompts_make(const tm_dataset *dataset, tm__prompt **prompts, size_t *count);
/* Writes temper.json into a directory that is being filled; nothing for NULL. */
tm_status tm__provenance_write(const tm_provenance *provenance, const char *directory);

#endif
