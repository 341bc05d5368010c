/* mcq.h: questions with answers to choose from, as the files that read them hand them to mcq.c. */
#ifndef TM_EVAL_MCQ_H
#define TM_EVAL_MCQ_H

#include "eval/suite.h"

enum { TM__MOST_CHOICES = 64 };

/* Context `prompt` and a choice behind one space; or, with `rest`, each choice is a context of its own and the rest of
 * the sentence is scored behind it. Texts live in the evaluation or its rows. */
typedef struct tm__question {
    const char *prompt;
    const char *choices[TM__MOST_CHOICES];
    bool right[TM__MOST_CHOICES];
    size_t count;
    int64_t gold;
    const char *rest;
} tm__question;

/* `header` stands before it: description and worked examples. Copies everything. */
tm_status tm__mcq_add(tm_evaluation *evaluation, int64_t row, const char *group, const char *header,
                      const tm__question *question);
/* The question with its answer and a blank line, as an example before another. false: out of memory. */
bool tm__mcq_example(tm__string *out, const tm__question *question);
/* acc, acc_norm. */
tm_status tm__mcq_score(tm_evaluation *evaluation, tm__item *item);
extern const char *const tm__mcq_score_names[];
extern const tm__measure tm__mcq_acc[], tm__mcq_acc_norm[], tm__mcq_acc_by_group[];
/* Checks that `gold` is a choice. */
tm_status tm__mcq_check(const tm__rows *rows, size_t row, const char *column, const tm__question *question);

#endif
