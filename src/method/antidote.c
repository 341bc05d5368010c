/* antidote.c: Antidote: after fine-tuning, the weights that carry most of the answers to harmful prompts are zeroed.
 *
 * Paper: T. Huang et al., "Antidote: post-fine-tuning safety alignment for large language models against harmful
 * fine-tuning" (arXiv 2408.09600), with Wanda's score (Sun et al., arXiv 2306.11695) on harmful rows:
 *
 *   S_ij = |W_ij| sqrt( mean over rows s of sum over tokens t of x_stj^2 )
 *   in every output row of W the cols - int(cols (1 - ratio)) entries of highest score become 0
 *
 * Of equal scores the one further right goes, as in the code's stable ascending sort. With an adapter its A and B are
 * pruned, as published (x of B is A x); without one every linear layer of the blocks. Scores of all layers belong to
 * the model as it came: nothing is pruned before the last row was seen. Prompts and answers both count as input.
 * Pinned by tests/golden/test_post.c and tests/unit/test_antidote.c (golden row A11).
 */
#include "method/matrix.h"
#include "method/method.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"ratio", TM_OPTION_REAL, offsetof(tm_antidote_options, ratio), "0.1", 0, 1, NULL, NULL,
     "share of the entries of every output row that is zeroed"},
    {"rows", TM_OPTION_INT, offsetof(tm_antidote_options, rows), "2000", 0, 1e9, NULL, "rows",
     "harmful rows to score with, from the first; 0: all"},
    {0},
};

/* ---- scores ------------------------------------------------------------------------------------------------------ */

void tm__squares_add(double *sums, const double *x, int64_t n, int64_t columns) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < columns; j++) sums[j] += x[t * columns + j] * x[t * columns + j];
}

double tm__wanda_score(double weight, double mean_square) {
    return fabs(weight) * sqrt(mean_square);
}

int64_t tm__wanda_count(int64_t columns, double ratio) {
    return columns - (int64_t)((double)columns * (1 - ratio));
}

typedef struct scored {
    double score;
    int64_t column;
} scored;

static int rising(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return (x->column > y->column) - (x->column < y->column);
}

tm_status tm__wanda_prune(double *row, const double *mean_square, int64_t columns, int64_t count) {
    scored *order = tm__alloc((size_t)columns, sizeof *order);
    if (!order) return tm__fail_memory();
    for (int64_t j = 0; j < columns; j++) order[j] = (scored){tm__wanda_score(row[j], mean_square[j]), j};
    qsort(order, (size_t)columns, sizeof *order, rising);
    for (int64_t j = columns - count; j < columns; j++) row[order[j].column] = 0;
    free(order);
    return TM_OK;
}

/* ---- inputs of every layer --------------------------------------------------------------------------------------- */

/* Sums of squares of a linear's input and of A x of its last adapter. */
typedef struct layer_input {
    tm_device *dev;
    tm__linear *linear;
    tm__adapter *adapter; /* NULL: the linear itself is pruned, or nothing of it */
    double *a, *sums, *inner_sums;
} layer_input;

static tm_status watch(void *user, const void *data, int64_t n) {
    layer_input *in = user;
    int64_t columns = in->linear->weight.value.shape[1];
    tm__param x = {.value = {.dtype = in->dev->act, .data = (void *)data}, .owned = true};
    double *values = tm__alloc((size_t)(n * columns), sizeof *values);
    if (!values) return tm__fail_memory();
    tm_status status = tm__param_read(in->dev, &x, 0, n * columns, values);
    if (status == TM_OK) tm__squares_add(in->sums, values, n, columns);
    for (int64_t t = 0; in->adapter && status == TM_OK && t < n; t++)
        for (int64_t k = 0; k < in->adapter->rank; k++) {
            double inner = 0;
            for (int64_t j = 0; j < columns; j++) inner += in->a[k * columns + j] * values[t * columns + j];
            in->inner_sums[k] += inner * inner;
        }
    free(values);
    return status;
}

static tm_status watch_begin(tm_model *model, tm__linear *linear, layer_input *in) {
    bool adapted = model->adapter_count > 0;
    *in = (layer_input){.dev = model->dev, .linear = linear};
    if (!tm__linear_exists(linear)) return TM_OK;
    if (adapted) in->adapter = tm__adapter_find(linear, model->adapter_count - 1);
    if (adapted && !in->adapter) return TM_OK;
    if (in->adapter) {
        TM__TRY(tm__param_read_all(model->dev, &in->adapter->a, &in->a));
        in->inner_sums = tm__zalloc((size_t)in->adapter->rank, sizeof *in->inner_sums);
        if (!in->inner_sums) return tm__fail_memory();
    }
    in->sums = tm__zalloc((size_t)linear->weight.value.shape[1], sizeof *in->sums);
    if (!in->sums) return tm__fail_memory();
    linear->watch = watch;
    linear->watch_user = in;
    return TM_OK;
}

static void watch_end(layer_input *in) {
    if (in->linear) in->linear->watch = NULL;
    free(in->a);
    free(in->sums);
    free(in->inner_sums);
}

/* Row by row, so that padding never counts. */
static tm_status feed(tm_model *model, const tm__examples *examples, size_t rows, const tm_monitor *monitor) {
    tm__tape *tape;
    TM__TRY(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    tm_status status = TM_OK;
    const tm__forward_options options = {0};
    for (size_t r = 0; r < rows && status == TM_OK; r++) {
        tm__batch_store *store = NULL;
        const tm__batch *batch;
        tm__var *hidden;
        if (tm__stop(monitor)) status = tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped while scoring");
        if (status == TM_OK) status = tm__batch_build(examples, &r, 1, true, 0, 1, &store, &batch);
        if (status == TM_OK) status = tm__model_forward(model, tape, batch, &options, &hidden);
        tm__tape_reset(tape);
        tm__batch_free(store);
    }
    tm__tape_free(tape);
    return status;
}

/* ---- pruning ----------------------------------------------------------------------------------------------------- */

static tm_status prune(tm_model *model, tm__param *weight, double *sums, size_t rows, double ratio, int64_t *zeroed) {
    int64_t out = weight->value.shape[0], in = weight->value.shape[1], count = tm__wanda_count(in, ratio);
    for (int64_t j = 0; j < in; j++) sums[j] /= (double)rows;
    if (count == 0) return TM_OK;
    double *row = tm__alloc((size_t)in, sizeof *row);
    tm_status status = row ? tm__param_own(model, weight) : tm__fail_memory();
    for (int64_t i = 0; i < out && status == TM_OK; i++) {
        status = tm__param_read(model->dev, weight, i * in, in, row);
        if (status == TM_OK) status = tm__wanda_prune(row, sums, in, count);
        if (status == TM_OK) status = tm__param_write(model->dev, weight, i * in, in, row);
    }
    *zeroed += out * count;
    free(row);
    return status;
}

static tm_status prune_layer(tm_model *model, layer_input *in, size_t rows, double ratio, int64_t *zeroed) {
    if (!in->sums) return TM_OK;
    if (!in->adapter) return prune(model, &in->linear->weight, in->sums, rows, ratio, zeroed);
    TM__TRY(prune(model, &in->adapter->a, in->sums, rows, ratio, zeroed));
    return prune(model, &in->adapter->b, in->inner_sums, rows, ratio, zeroed);
}

tm_status tm__antidote_apply(tm_model *model, const tm__examples *examples, const tm_antidote_options *o,
                             const tm_monitor *monitor) {
    size_t count = (size_t)model->config.layers * TM__LINEARS, rows = examples->count;
    if (o->rows && (size_t)o->rows < rows) rows = (size_t)o->rows;
    layer_input *inputs = tm__zalloc(count, sizeof *inputs);
    int64_t zeroed = 0;
    tm_status status = inputs ? tm__examples_fit(examples, model) : tm__fail_memory();
    for (size_t i = 0; i < count && status == TM_OK; i++)
        status =
            watch_begin(model, tm__block_linear(&model->blocks[i / TM__LINEARS], (int)(i % TM__LINEARS)), &inputs[i]);
    if (status == TM_OK) status = feed(model, examples, rows, monitor);
    for (size_t i = 0; i < count && status == TM_OK; i++)
        status = prune_layer(model, &inputs[i], rows, o->ratio, &zeroed);
    for (size_t i = 0; inputs && i < count; i++) watch_end(&inputs[i]);
    free(inputs);
    if (status == TM_OK)
        tm__note(monitor, "antidote: %lld weights zeroed, scored on %zu harmful rows", (long long)zeroed, rows);
    return status;
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_antidote_options o;
    tm__job job;
    tm__examples examples = {0};
    double began = tm__now();
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_antidote_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_antidote, model, tokenizer, data, train, monitor, result));
    tm_status status = tm__job_encode(&job, data->harmful, "harmful", &examples);
    if (status == TM_OK) status = tm__antidote_apply(model, &examples, &o, monitor);
    if (status == TM_OK && result)
        *result = (tm_train_result){.seconds = tm__now() - began, .rows_dropped = (int64_t)examples.dropped};
    tm__examples_release(&examples);
    return status;
}

const tm_method tm__method_antidote = {
    .name = "antidote",
    .title = "Antidote",
    .paper = "arXiv 2408.09600",
    .summary = "Zeroes the weights, or an adapter's entries, that matter most for answering harmful prompts.",
    .who = "a fine-tuning service, once after a user's fine-tuning",
    .needs = "harmful prompts with harmful answers",
    .settings = "--ratio 0.1 --rows 2000 on an adapter of rank 256, alpha 4, on q, k and v (released code).",
    .stage = TM_STAGE_POST,
    .required = TM_DATA_HARMFUL,
    .edits_adapter = true,
    .train_options = "max-length chat",
    .options = options_table,
    .options_size = sizeof(tm_antidote_options),
    .run = run,
};
