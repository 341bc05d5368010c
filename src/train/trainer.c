/* trainer.c: the loop that every method shares.
 *
 *   for each step: gradient (the method's, or plain SFT), checks, clipping, optimiser, progress, checkpoint
 *
 * SFT's gradient is that of the mean cross-entropy over all targets of the step. It is accumulated over micro-batches
 * whose targets all weigh 1 / (targets of the step), so the split changes nothing but rounding (test C5).
 *
 * Several processes (ranks.h) divide the rows of every pass between them, with the weights that the whole batch gives,
 * and add their gradients up at its end. What stood in the gradient before is the same on all of them, and is kept by
 * the first. So all hold the same gradient after a pass, and do the same with it. (tests/cli/cases/ranks.sh)
 */
#include "train/train.h"

#include "model/weights.h"

#include <stdlib.h>

/* ---- gradient of plain SFT --------------------------------------------------------------------------------------- */

static tm_status stream_row(tm__trainer *trainer, uint64_t seed, size_t count, int64_t index, size_t *row) {
    for (size_t i = 0; i < TM__ORDERS; i++) {
        tm__order *order = &trainer->orders[i];
        if (order->rows && order->seed == seed && order->count == count)
            return tm__order_row(order, seed, count, index, row);
    }
    tm__order *order = &trainer->orders[trainer->next_order++ % TM__ORDERS];
    return tm__order_row(order, seed, count, index, row);
}

/* Backward from a scalar whose gradient is `factor`. Without a seed buffer where it is 1, so that SFT stays SFT. */
static tm_status backward(tm__trainer *trainer, tm__var *loss, double factor) {
    tm_device *dev = trainer->model->dev;
    size_t bytes = tm__dtype_size(dev->act);
    void *seed = NULL;
    if (factor == 1) return tm__tape_backward(trainer->tape, 1, &loss, NULL);
    TM__TRY(dev->alloc(dev, bytes, &seed));
    tm_status status = dev->k->fill(dev, seed, factor, 1);
    if (status == TM_OK) status = tm__tape_backward(trainer->tape, 1, &loss, (const void *const *)&seed);
    dev->release(dev, seed, bytes);
    return status;
}

tm_status tm__trainer_lay(tm__trainer *trainer, const tm__examples *examples, const size_t *rows, size_t n, bool packed,
                          int64_t total_targets, tm__batch_store **store, const tm__batch **batch) {
    TM__TRY(tm__batch_build(examples, rows, n, packed, trainer->pad, total_targets, store, batch));
    trainer->positions += (*batch)->tokens;
    for (int64_t i = 0; i < (*batch)->segments; i++) trainer->laid += (*batch)->length[i];
    return TM_OK;
}

/* One forward and backward pass; adds the summed cross-entropy of its targets to *sum. */
static tm_status micro_batch(tm__trainer *trainer, const tm__examples *examples, const size_t *rows, size_t n,
                             int64_t total_targets, double factor, double *sum) {
    const tm__batch *batch;
    tm__batch_store *store;
    tm__var *loss;
    const tm__forward_options forward = {.recompute = trainer->options->recompute};
    TM__TRY(tm__trainer_lay(trainer, examples, rows, n, trainer->options->packed, total_targets, &store, &batch));
    double *terms = tm__alloc((size_t)batch->targets.count, sizeof *terms);
    tm_status status = terms ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__model_loss(trainer->model, trainer->tape, batch, &forward, terms, &loss);
    if (status == TM_OK) status = backward(trainer, loss, factor);
    for (int64_t i = 0; status == TM_OK && i < batch->targets.count; i++) *sum += terms[i];
    tm__tape_reset(trainer->tape);
    free(terms);
    tm__batch_free(store);
    return status;
}

/* ---- the heaviest batch of a rehearsal --------------------------------------------------------------------------- */

enum { REHEARSED_ROWS = 1 << 18 }; /* of the stream, looked through for the heaviest batch */

static size_t longest_row(const tm__examples *examples) {
    size_t longest = 0;
    for (size_t i = 1; i < examples->count; i++)
        if (examples->ids[i].len > examples->ids[longest].len) longest = i;
    return longest;
}

/* Tokens, with padding, of the largest micro-batch of these rows. */
static int64_t weight_of(const tm__trainer *trainer, const tm__examples *examples, const size_t *rows, int64_t n) {
    int64_t micro = trainer->options->micro ? trainer->options->micro : n, most = 0;
    for (int64_t at = 0; at < n; at += micro) {
        int64_t end = TM__MIN(at + micro, n), sum = 0, longest = 0;
        for (int64_t i = at; i < end; i++) {
            int64_t len = (int64_t)examples->ids[rows[i]].len;
            sum += len;
            longest = TM__MAX(longest, len);
        }
        most = TM__MAX(most, trainer->options->packed ? sum : longest * (end - at));
    }
    return most;
}

/* A rehearsal's passes take the heaviest batch of the run instead of their own: that of the steps looked through; where
 * there are more, it holds the longest row too. */
static tm_status draw_heaviest(tm__trainer *trainer, const tm__pass *pass, size_t *drawn) {
    int64_t n = pass->count, steps = TM__MIN(trainer->total_steps, REHEARSED_ROWS / n + 1), most = -1;
    size_t *rows = tm__alloc((size_t)n, sizeof *rows);
    tm_status status = rows ? TM_OK : tm__fail_memory();
    for (int64_t at = 0; at < steps && status == TM_OK; at++) {
        for (int64_t i = 0; i < n && status == TM_OK; i++)
            status = stream_row(trainer, pass->seed, pass->examples->count, at * n + i, &rows[i]);
        int64_t weight = status == TM_OK ? weight_of(trainer, pass->examples, rows, n) : -1;
        if (weight <= most) continue;
        most = weight;
        memcpy(drawn, rows, (size_t)n * sizeof *drawn);
    }
    if (steps < trainer->total_steps) drawn[0] = longest_row(pass->examples);
    free(rows);
    return status;
}

/* Rows first .. first + n of the stream, their targets and their length in all. */
static tm_status draw(tm__trainer *trainer, const tm__pass *pass, size_t **rows, tm__pass_result *result) {
    const tm__examples *examples = pass->examples;
    size_t *drawn = tm__alloc((size_t)pass->count, sizeof *drawn);
    tm_status status = drawn ? TM_OK : tm__fail_memory();
    *result = (tm__pass_result){0};
    for (int64_t i = 0; i < pass->count && status == TM_OK; i++) {
        status = stream_row(trainer, pass->seed, examples->count, pass->first + i, &drawn[i]);
        if (status != TM_OK) break;
        result->targets += tm__example_targets(examples, drawn[i]);
        result->tokens += (int64_t)examples->ids[drawn[i]].len;
    }
    if (status == TM_OK && trainer->model->dev->rehearses && pass->count) status = draw_heaviest(trainer, pass, drawn);
    if (status == TM_OK)
        *rows = drawn;
    else
        free(drawn);
    return status;
}

tm_status tm__trainer_draw(tm__trainer *trainer, const tm__pass *pass, size_t **rows, tm__pass_result *result) {
    if (tm_ranks_count() > 1)
        return tm__fail(TM_UNSUPPORTED, NULL, NULL, "start it without mpirun",
                        "what this method computes of a batch cannot be divided among %d processes", tm_ranks_count());
    return draw(trainer, pass, rows, result);
}

/* Leaves of rows (*n) this rank's (in a rehearsal rank 0's, so that all come to the same result by themselves), and of
 * the gradient so far one copy among all ranks. */
static tm_status divide(tm__trainer *trainer, const tm__pass *pass, size_t *rows, int64_t *n) {
    bool rehearses = trainer->model->dev->rehearses;
    TM__TRY(tm__share_rows(pass->examples, rows, *n, rehearses ? 0 : tm_ranks_rank(), n));
    if (!rehearses && tm_ranks_rank() != 0) tm__grads_zero(&trainer->set);
    return TM_OK;
}

/* Called with whatever status this rank's part ended with. */
static tm_status unite(tm__trainer *trainer, tm_status status, double *sum, uint64_t stream) {
    if (status == TM_OK && trainer->tape->dropout_stream != stream)
        status = tm__fail(TM_UNSUPPORTED, NULL, "dropout", "train without it, or start one process",
                          "its masks would not be those of one process");
    if (trainer->model->dev->rehearses) return status;
    if (status == TM_OK) status = tm__grads_make(&trainer->set);
    tm__meeting meeting = {.status = status, .sum = *sum};
    TM__TRY(tm__ranks_meet(&meeting));
    *sum = meeting.sum;
    return tm__grads_share(&trainer->set, &trainer->adder);
}

tm_status tm__trainer_pass(tm__trainer *trainer, const tm__pass *pass, tm__pass_result *result) {
    size_t *rows;
    tm__pass_result made;
    bool shared = tm_ranks_count() > 1;
    uint64_t stream = trainer->tape->dropout_stream;
    double sum = 0;
    TM__TRY(draw(trainer, pass, &rows, &made));
    int64_t n = pass->count;
    tm_status status = shared ? divide(trainer, pass, rows, &n) : TM_OK;
    int64_t micro = trainer->options->micro ? TM__MIN(trainer->options->micro, n) : n;
    for (int64_t at = 0; at < n && status == TM_OK; at += micro)
        status = micro_batch(trainer, pass->examples, rows + at, (size_t)TM__MIN(micro, n - at), made.targets,
                             pass->factor, &sum);
    free(rows);
    if (shared) status = unite(trainer, status, &sum, stream);
    if (status != TM_OK) return status;
    made.loss = sum / (double)made.targets;
    *result = made;
    return TM_OK;
}

tm_status tm__trainer_batch(tm__trainer *trainer, const tm__pass *pass, tm__batch_store **store,
                            const tm__batch **batch, tm__pass_result *result) {
    size_t *rows;
    TM__TRY(tm__trainer_draw(trainer, pass, &rows, result));
    tm_status status = tm__trainer_lay(trainer, pass->examples, rows, (size_t)pass->count, trainer->options->packed,
                                       result->targets, store, batch);
    free(rows);
    return status;
}

static tm_status sft_step(tm__trainer *trainer, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    (void)user;
    int64_t batch = trainer->options->batch;
    const tm__pass pass = {trainer->examples, (uint64_t)trainer->options->seed, trainer->step * batch, batch, 1};
    tm__pass_result result;
    TM__TRY(tm__trainer_pass(trainer, &pass, &result));
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

int64_t tm__trainer_steps(const tm_train_options *options, const tm__examples *examples) {
    if (options->steps) return options->steps;
    double steps = ceil(options->epochs * (double)examples->count / (double)options->batch);
    return (int64_t)fmin(fmax(steps, 1), 1e12);
}

/* What kernels work with: panels of products; keys, values and their gradients as attention packs them. */
static int64_t working_memory(const tm__trainer *trainer) {
    enum { PANELS = 16 << 20, PANELS_OF_THREAD = 1 << 20, PACKED = 3 };
    const tm__config *c = &trainer->model->config;
    const tm_train_options *o = trainer->options;
    int64_t longest = 0, rows = o->micro ? TM__MIN(o->micro, o->batch) : o->batch;
    for (size_t i = 0; i < trainer->examples->count; i++)
        longest = TM__MAX(longest, (int64_t)trainer->examples->ids[i].len);
    return PANELS + (int64_t)trainer->model->dev->threads * PANELS_OF_THREAD +
           rows * longest * PACKED * c->kv_heads * c->head_dim * (int64_t)tm__dtype_size(trainer->model->dev->act);
}

/* The device may hold what the bound leaves beside all else. Where that is nothing, it holds as little as it can. */
static tm_status limit_memory(const tm__trainer *trainer) {
    int64_t bound = trainer->options->memory, beside;
    if (!bound) return TM_OK;
    tm__pool_trim(trainer->model->dev);
    TM__TRY(tm__model_memory_beside(trainer->model, &beside));
    trainer->model->dev->limit = (size_t)TM__MAX(bound - beside - working_memory(trainer), (int64_t)1);
    return TM_OK;
}

static void trainer_release(tm__trainer *trainer) {
    for (size_t i = 0; i < TM__ORDERS; i++) tm__order_release(&trainer->orders[i]);
    tm__tape_free(trainer->tape);
    tm__optimiser_release(&trainer->set, &trainer->optimiser);
    tm__paramset_release(&trainer->set);
    tm__adder_release(&trainer->adder);
    free(trainer->losses);
}

static tm_status trainer_init(tm__trainer *trainer) {
    TM__TRY(tm__paramset_collect(trainer->model, &trainer->set));
    TM__TRY(tm__optimiser_create(&trainer->set, trainer->options, &trainer->optimiser));
    TM__TRY(tm__tape_create(trainer->model->dev, &trainer->tape));
    if (tm_ranks_count() > 1) TM__TRY(tm__adder_create(trainer->model->dev->act, &trainer->adder));
    trainer->tape->recording = true;
    trainer->tape->training = true;
    trainer->tape->dropout_seed = (uint64_t)trainer->options->seed;
    trainer->tape->dropout_stream = tm__stream(TM__STREAM_DROPOUT, 0);
    trainer->losses = tm__zalloc((size_t)trainer->total_steps, sizeof *trainer->losses);
    return trainer->losses ? TM_OK : tm__fail_memory();
}

static void report(const tm__trainer *trainer, double lr, double began, int64_t tokens_before) {
    if (!trainer->monitor || !trainer->monitor->progress || tm_ranks_rank() != 0) return;
    const tm_progress progress = {
        .phase = "train",
        .done = trainer->step,
        .total = trainer->total_steps,
        .unit = "step",
        .loss = trainer->losses[trainer->step - 1],
        .lr = lr,
        .tokens = trainer->tokens - tokens_before,
        .seconds = tm__now() - began,
    };
    trainer->monitor->progress(trainer->monitor->user, &progress);
}

static tm_status one_step(tm__trainer *trainer, tm__step step, void *user, double lr) {
    double loss = NAN;
    int64_t tokens = 0, targets = 0;
    tm__grads_zero(&trainer->set);
    TM__TRY(step(trainer, user, &loss, &tokens, &targets));
    if (!isfinite(loss)) {
        char field[48];
        snprintf(field, sizeof field, "step %lld", (long long)trainer->step + 1);
        return tm__fail(TM_NUMERIC, NULL, field, "lower the learning rate; no weight was changed in this step",
                        "the loss is not finite");
    }
    TM__TRY(tm__optimiser_step(&trainer->set, &trainer->optimiser, trainer->options, lr, NULL));
    trainer->losses[trainer->step++] = loss;
    trainer->tokens += tokens;
    trainer->targets += targets;
    return TM_OK;
}

/* The clock of the checkpoint includes this run so far. */
static tm_status save(tm__trainer *trainer, double began) {
    double before = trainer->seconds;
    trainer->seconds += tm__now() - began;
    tm_status status = tm_ranks_rank() == 0 ? tm__trainer_save(trainer, trainer->options->resume_dir) : TM_OK;
    trainer->seconds = before;
    return tm_ranks_agree(status);
}

/* Whether any rank is to stop: all stop after the same step. */
static tm_status asked_to_stop(const tm__trainer *trainer, bool *stop) {
    tm__meeting meeting = {.stop = tm__stop(trainer->monitor)};
    tm_status status = trainer->model->dev->rehearses ? TM_OK : tm__ranks_meet(&meeting);
    *stop = meeting.stop;
    return status;
}

static tm_status interrupted(tm__trainer *trainer, double began) {
    const char *directory = trainer->options->resume_dir;
    if (directory) TM__TRY(save(trainer, began));
    return tm__fail(TM_INTERRUPTED, directory, NULL,
                    directory ? "the same command continues it" : "with resume and a directory, a run can be continued",
                    "stopped after step %lld of %lld", (long long)trainer->step, (long long)trainer->total_steps);
}

enum { REHEARSED_STEPS = 16 };

static tm_status loop(tm__trainer *trainer, tm__step step, void *user, double began) {
    const tm_train_options *options = trainer->options;
    int64_t tokens_before = trainer->tokens;
    /* A rehearsal has seen all that a step needs after a few. */
    int64_t last =
        trainer->model->dev->rehearses ? TM__MIN(trainer->total_steps, (int64_t)REHEARSED_STEPS) : trainer->total_steps;
    while (trainer->step < last) {
        bool stop;
        TM__TRY(asked_to_stop(trainer, &stop));
        if (stop) return interrupted(trainer, began);
        double lr =
            options->lr * tm__schedule_factor(options->schedule, options->warmup, trainer->step, trainer->total_steps);
        TM__TRY(one_step(trainer, step, user, lr));
        report(trainer, lr, began, tokens_before);
        bool due =
            options->save_every && (trainer->step % options->save_every == 0 || trainer->step == trainer->total_steps);
        if (due) TM__TRY(save(trainer, began));
    }
    return TM_OK;
}

static double mean(const double *values, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i];
    return sum / (double)n;
}

/* All ranks read the checkpoint, once the first has cleared away what a killed process left beside it. */
static tm_status resume(tm__trainer *trainer, const char *directory, bool *resumed) {
    char step[32];
    TM__TRY(tm_ranks_agree(tm_ranks_rank() == 0 ? tm__outdir_clear(directory) : TM_OK));
    TM__TRY(tm__trainer_resume(trainer, directory, resumed));
    snprintf(step, sizeof step, "%lld", (long long)trainer->step);
    return tm__ranks_same(step, "checkpoint", "all ranks must see the same files");
}

static tm_status run_all(tm__trainer *trainer, const tm__run *run, bool *resumed, double began) {
    const char *directory = trainer->options->resume_dir;
    TM__TRY(trainer_init(trainer));
    if (run->begin) TM__TRY(run->begin(trainer, run->user));
    TM__TRY(limit_memory(trainer));
    if (directory) TM__TRY(resume(trainer, directory, resumed));
    if (*resumed)
        tm__note(trainer->monitor, "%s: continuing after step %lld of %lld", directory, (long long)trainer->step,
                 (long long)trainer->total_steps);
    TM__TRY(loop(trainer, run->step ? run->step : sft_step, run->user, began));
    return run->finish ? run->finish(trainer, run->user) : TM_OK;
}

tm_status tm__trainer_run(tm_model *model, const tm__examples *examples, const tm_train_options *options,
                          const tm_monitor *monitor, const tm__run *run, tm_train_result *result) {
    tm__trainer trainer = {
        .model = model,
        .options = options,
        .monitor = monitor,
        .examples = examples,
        .total_steps = tm__trainer_steps(options, examples),
        .pad = run->pad,
        .tag = run->tag,
    };
    bool resumed = false;
    double began = tm__now();
    const size_t limit_before = model->dev->limit;
    tm_status status = run_all(&trainer, run, &resumed, began);
    model->dev->limit = limit_before;
    if (status == TM_OK && result) {
        int64_t total = trainer.total_steps, tenth = TM__MAX(total / 10, (int64_t)1);
        *result = (tm_train_result){
            .steps = total,
            .tokens = trainer.tokens,
            .target_tokens = trainer.targets,
            .rows_dropped = (int64_t)examples->dropped,
            .first_loss = mean(trainer.losses, tenth),
            .last_loss = mean(trainer.losses + total - tenth, tenth),
            .padding = trainer.positions ? 1 - (double)trainer.laid / (double)trainer.positions : 0,
            .seconds = trainer.seconds + tm__now() - began,
            .resumed = resumed,
        };
    }
    if (run->release) run->release(&trainer, run->user);
    trainer_release(&trainer);
    return status;
}
