/* loss.c: mean cross-entropy of a data set under a model, and perplexity exp(loss).
 *
 * The mean is over all targets of the set: sum of ln 1/p(target) divided by their number, not a mean of means of rows.
 */
#include "eval/suite.h"
#include "train/train.h"

#include <stdlib.h>

/* Where sums and counts of single rows go; the batch's targets lie row by row. */
typedef struct row_sums {
    double *sums;
    int64_t *targets;
} row_sums;

static void add_rows(const tm__examples *examples, const size_t *rows, size_t n, const double *terms,
                     const row_sums *to) {
    for (size_t i = 0; i < n; i++) {
        int64_t count = tm__example_targets(examples, rows[i]);
        size_t row = examples->row[rows[i]];
        for (int64_t t = 0; t < count; t++) to->sums[row] += *terms++;
        to->targets[row] += count;
    }
}

static tm_status batch_loss(tm_model *model, tm__tape *tape, const tm__examples *examples, const size_t *rows, size_t n,
                            bool packed, int32_t pad, double *sum, int64_t *targets, const row_sums *to) {
    const tm__batch *batch;
    tm__batch_store *store;
    tm__var *loss;
    const tm__forward_options forward = {0};
    TM__TRY(tm__batch_build(examples, rows, n, packed, pad, 1, &store, &batch));
    double *terms = tm__alloc((size_t)batch->targets.count, sizeof *terms);
    tm_status status = terms ? tm__model_loss(model, tape, batch, &forward, terms, &loss) : tm__fail_memory();
    for (int64_t i = 0; status == TM_OK && i < batch->targets.count; i++) *sum += terms[i];
    if (status == TM_OK && to) add_rows(examples, rows, n, terms, to);
    *targets += batch->targets.count;
    tm__tape_reset(tape);
    free(terms);
    tm__batch_free(store);
    return status;
}

static void show(const tm_monitor *monitor, int64_t done, int64_t total, double loss, double began) {
    if (!monitor || !monitor->progress) return;
    const tm_progress progress = {.phase = "evaluate",
                                  .done = done,
                                  .total = total,
                                  .unit = "row",
                                  .loss = loss,
                                  .lr = NAN,
                                  .seconds = tm__now() - began};
    monitor->progress(monitor->user, &progress);
}

static tm_status evaluate(tm_model *model, tm__tape *tape, const tm__examples *examples, int32_t pad,
                          const tm_train_options *options, const tm_monitor *monitor, const row_sums *to,
                          tm_loss_report *report) {
    double sum = 0, began = tm__now();
    int64_t targets = 0, count = (int64_t)examples->count, batch = options->micro ? options->micro : options->batch;
    size_t *rows = tm__alloc((size_t)count, sizeof *rows);
    tm_status status = rows ? TM_OK : tm__fail_memory();
    for (int64_t i = 0; rows && i < count; i++) rows[i] = (size_t)i;
    for (int64_t at = 0; at < count && status == TM_OK; at += batch) {
        int64_t n = TM__MIN(batch, count - at);
        if (tm__stop(monitor)) {
            status = tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped after %lld of %lld rows", (long long)at,
                              (long long)count);
            break;
        }
        status = batch_loss(model, tape, examples, rows + at, (size_t)n, options->packed, pad, &sum, &targets, to);
        if (status == TM_OK) show(monitor, at + n, count, sum / (double)targets, began);
    }
    free(rows);
    if (status != TM_OK) return status;
    double loss = sum / (double)targets;
    if (!isfinite(loss)) return tm__fail(TM_NUMERIC, NULL, "loss", NULL, "is not finite");
    *report = (tm_loss_report){.loss = loss, .perplexity = exp(loss), .targets = targets, .rows = count};
    return TM_OK;
}

static tm_status eval_rows(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                           const tm_train_options *options, const tm_monitor *monitor, const row_sums *to,
                           tm_loss_report *report) {
    tm_train_options checked;
    tm__examples examples;
    tm__tape *tape = NULL;
    TM__TRY(tm__train_options_resolve(options, &checked));
    if (tm_dataset_rows(dataset) == 0) return tm__fail(TM_INVALID, NULL, "data", NULL, "holds no rows");
    TM__TRY(tm__examples_encode(tokenizer, dataset, (tm_chat_format)checked.chat, checked.max_length,
                                checked.full_sequence, monitor, &examples));
    tm_status status = tm__examples_fit(&examples, model);
    if (status == TM_OK) tm__examples_note(&examples, model, monitor);
    if (status == TM_OK) status = tm__tape_create(model->dev, &tape);
    if (status == TM_OK) {
        tape->recording = false;
        tape->training = false;
        status = evaluate(model, tape, &examples, tm__pad_id(tokenizer), &checked, monitor, to, report);
    }
    tm__tape_free(tape);
    tm__examples_release(&examples);
    return status;
}

tm_status tm_eval_loss(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                       const tm_train_options *options, const tm_monitor *monitor, tm_loss_report *report) {
    return eval_rows(model, tokenizer, dataset, options, monitor, NULL, report);
}

tm_status tm__loss_rows(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                        const tm_train_options *options, const tm_monitor *monitor, double *sums, int64_t *targets) {
    tm_loss_report report;
    const row_sums to = {sums, targets};
    return eval_rows(model, tokenizer, dataset, options, monitor, &to, &report);
}
