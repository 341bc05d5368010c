/* labelled.h: labelled answers that a judge learns from, and how good its probabilities are. */
#ifndef TM_LAB_LABELLED_H
#define TM_LAB_LABELLED_H

#include "base/base.h"

typedef struct tm__labelled_row {
    const char *prompt, *answer;
    double *y; /* (labels) 1 where the label holds */
} tm__labelled_row;

/* Rows of one kind: two labels of which one is right ("safe", "harmful"), or several, each by itself. Texts live in the
 * arena. The first `tests` rows are held out. */
typedef struct tm__labelled {
    tm__arena arena;
    tm__labelled_row *rows;
    size_t count, cap, tests;
    const char **names;
    int64_t labels;
    bool each;
} tm__labelled;

/* The rows of `path`, and of `test` (NULL: none), which are held out. See labelled.c for what is read. `two`: of
 * several labels only whether one holds. */
tm_status tm__labelled_load(const char *path, const char *test, bool two, tm__labelled *data);
/* The world's: recipes told (harmful), refusals and others' recipes (safe), benign answers; items of the split "test"
 * are held out. */
tm_status tm__labelled_world(uint64_t seed, tm__labelled *data);
/* Holds out a random share where nothing is yet: all rows of some prompts, or where there is one prompt alone some of
 * its rows. At least one row stays on either side. */
tm_status tm__labelled_hold_out(tm__labelled *data, double share, uint64_t seed);
/* Adds rows to train on, labelled safe: a share of them with an empty answer, as many with an answer of random tokens.
 */
tm_status tm__labelled_add_noise(tm__labelled *data, double share, const tm_tokenizer *tokenizer, uint64_t seed);
bool tm__labelled_harmful(const tm__labelled *data, size_t row);
void tm__labelled_free(tm__labelled *data);

/* Accuracy and F1 of "probability above 0.5", and the area under the ROC curve: of n rows, with 95 % intervals
 * (Wilson's for accuracy, the percentile bootstrap's else). NAN where there is none. */
tm_status tm__quality(const double *probability, const bool *harmful, size_t n, tm_judge_quality *quality);

#endif
