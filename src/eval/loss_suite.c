/* loss_suite.c: cross-entropy of a data set's answers in a chat format, as `temper eval --data` gives it, with
 * intervals over rows. Test: tests/cli/cases/suites.sh (equal to tm_eval_loss). */
#include "eval/suite.h"

#include <stdlib.h>

enum { SCORE_LL, SCORE_TARGETS };

static void free_rows(void *own) {
    tm_dataset_free(own);
}

static tm_status prepare(tm_evaluation *e) {
    tm_dataset *all = NULL, *rows = NULL, *framed = NULL;
    TM__TRY(tm_dataset_load(e->path, &all));
    size_t n = tm_dataset_rows(all);
    if (tm__item_enough(e, (int64_t)n)) n = (size_t)e->options.limit;
    tm_status status = tm_dataset_create(&rows);
    if (status == TM_OK) status = tm_dataset_append(rows, all, 0, n);
    tm_dataset_free(all);
    if (status == TM_OK) status = tm_dataset_framed(rows, e->options.frame, &framed);
    if (status == TM_OK && framed) {
        tm_dataset_free(rows);
        rows = framed;
    }
    e->own = rows;
    e->own_free = free_rows;
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        size_t count;
        const tm_message *messages = tm_dataset_row(rows, i, &count);
        tm__item *item = tm__item_add(e, (int64_t)i);
        if (!item) return tm__fail_memory();
        item->text = messages[count - 1].content;
    }
    return status;
}

/* A row without targets (its answer lies behind max_length) counts for nothing. */
static tm_status score(tm_evaluation *e, tm__item *item) {
    (void)e;
    item->scores[SCORE_LL] = item->tokens ? item->ll : NAN;
    item->scores[SCORE_TARGETS] = (double)item->tokens;
    return TM_OK;
}

static const char *const names[] = {"log_likelihood", "targets", NULL};
static const tm__measure measures[] = {
    {.name = "loss", .kind = TM__MEASURE_LOSS, .score = SCORE_LL, .over = SCORE_TARGETS},
    {.name = "perplexity", .kind = TM__MEASURE_PERPLEXITY, .score = SCORE_LL, .over = SCORE_TARGETS},
    {0},
};
static const struct tm__suite_calls calls = {prepare, score, names, measures, NULL, false};

const tm_suite tm__suite_loss = {
    .name = "loss",
    .kind = TM_SUITE_ROWS,
    .measures = "cross-entropy of a data set's answers, in nats per token",
    .layout = "conversations with answers, as for training",
    .folders = "heldout.jsonl|loss",
    .numbers = "loss, perplexity",
    .compare = "the same model before and after, same rows and chat format",
    .calls = &calls,
};
