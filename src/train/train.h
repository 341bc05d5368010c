/* train.h: batches, parameter sets, the optimiser and the loop that every method shares.
 *
 * A method that is not plain SFT gives its own step function: it runs as many forward-backward passes as its
 * mathematics needs, moves parameters with the parameter-set calls, and leaves the composed gradient in param->grad. It
 * never steps the optimiser: the loop clips and steps. State beyond parameters (RNG streams are counters) must live in
 * the trainer for kill and resume to be exact.
 */
#ifndef TM_TRAIN_H
#define TM_TRAIN_H

#include "model/model.h"
#include "ranks/ranks.h"

/* ---- examples and batches (batch.c) ---- */

typedef struct tm__examples {
    size_t count;
    tm_ids *ids, *labels; /* per row, same length; -100: not trained on */
    size_t *row;          /* (count) which row of the data set it is */
    size_t dropped;       /* rows without any label after truncation */
} tm__examples;
/* Truncates right. Rows that are cut, and those of which nothing is left to predict and which are dropped, are counted
 * and noted; TM_INVALID if all are dropped. */
tm_status tm__examples_encode(const tm_tokenizer *tokenizer, const tm_dataset *dataset, tm_chat_format format,
                              int64_t max_length, bool full_sequence, const tm_monitor *monitor,
                              tm__examples *examples);
void tm__examples_release(tm__examples *examples);
/* TM_MISMATCH if an id lies outside the model's vocabulary. */
tm_status tm__examples_fit(const tm__examples *examples, const tm_model *model);
/* Notes rows that are longer than what the model was trained for. */
void tm__examples_note(const tm__examples *examples, const tm_model *model, const tm_monitor *monitor);
/* Number of positions of a row that are predicted: labels but the first, which nothing precedes. */
int64_t tm__example_targets(const tm__examples *examples, size_t row);

/* Order of rows: epoch e is a Philox shuffle by (seed, e); position i of the endless stream is row i mod count of epoch
 * i / count. Holds the epoch that was asked for last. Starts as {0}. */
typedef struct tm__order {
    size_t *rows, count;
    uint64_t seed;
    int64_t epoch;
} tm__order;
tm_status tm__order_row(tm__order *order, uint64_t seed, size_t count, int64_t index, size_t *row);
void tm__order_release(tm__order *order);

/* Builds a batch of the named rows; targets weigh 1/total_targets each. Owns its arrays. */
typedef struct tm__batch_store tm__batch_store;
tm_status tm__batch_build(const tm__examples *examples, const size_t *rows, size_t n, bool packed, int32_t pad,
                          int64_t total_targets, tm__batch_store **store, const tm__batch **batch);
void tm__batch_free(tm__batch_store *store);
/* The id that fills padding; its choice changes nothing. */
int32_t tm__pad_id(const tm_tokenizer *tokenizer);

/* ---- parameter sets (paramset.c) ---- */

typedef struct tm__paramset {
    tm_device *dev;
    tm__param **items;
    size_t count;
    int64_t scalars;
    const bool *still; /* (count) the optimiser passes these over, moments and all; NULL: none */
} tm__paramset;
/* One flat buffer per parameter, act type, on the device. */
typedef struct tm__vector {
    void **data;
} tm__vector;
tm_status tm__paramset_collect(tm_model *model, tm__paramset *set); /* all trainable parameters */
void tm__paramset_release(tm__paramset *set);
tm_status tm__vector_create(const tm__paramset *set, tm__vector *vector); /* zeros */
tm_status tm__vector_create_for(const tm__paramset *set, int purpose, tm__vector *vector);
void tm__vector_release(const tm__paramset *set, tm__vector *vector);
tm_status tm__paramset_save(const tm__paramset *set, tm__vector *to);                    /* to = w, bitwise */
tm_status tm__paramset_restore(const tm__paramset *set, const tm__vector *from);         /* w = from, bitwise */
tm_status tm__paramset_axpy(const tm__paramset *set, double alpha, const tm__vector *x); /* w += alpha x */
void tm__grads_zero(const tm__paramset *set);
tm_status tm__grads_make(const tm__paramset *set); /* those that are not there: zeros that take memory */
tm_status tm__grads_save(const tm__paramset *set, tm__vector *to);
tm_status tm__grads_axpy(const tm__paramset *set, double alpha, const tm__vector *x); /* grad += alpha x */
tm_status tm__grads_scale(const tm__paramset *set, double alpha);
tm_status tm__grads_norm(const tm__paramset *set, double *norm); /* global L2 */
/* x = length * grad / (|grad| + 1e-7): the normalised step that Panacea, Booster and others take. Zero where grad is.
 */
#define TM__NORM_FLOOR 1e-7
tm_status tm__grads_direction(const tm__paramset *set, double length, tm__vector *x);
tm_status tm__vector_dot(const tm__paramset *set, const tm__vector *x, const tm__vector *y, double *dot);

/* ---- a step by several processes (share.c) ---- */

/* Of rows (n) of a batch those that a rank computes, in their order, at the beginning of `rows`. Every rank divides
 * them in the same way, so that the longest work is as short as it easily gets. May be none. */
tm_status tm__share_rows(const tm__examples *examples, size_t *rows, int64_t n, int rank, int64_t *mine);
/* The rule: owner[i] (n) of rows of these lengths (n). */
tm_status tm__share_divide(const size_t *lengths, size_t n, int ranks, int *owner);
/* grad = the sum of all ranks' grads. Only after a meeting. */
tm_status tm__grads_share(const tm__paramset *set, tm__adder *adder);
/* Whether this rank is to write what a method leaves beside the model; tm__share_written with the status of that, or
 * TM_OK, on all. Rehearsals of several ranks need not be in step: there it compares nothing. */
bool tm__share_writes(void);
tm_status tm__share_written(const tm_model *model, tm_status status);

/* ---- optimiser (optimiser.c) and schedule (schedule.c) ---- */

typedef struct tm__optimiser {
    int kind;        /* 0 adamw, 1 sgd */
    tm__vector m, v; /* adamw; sgd uses m when momentum > 0 */
    int64_t step;    /* steps taken */
} tm__optimiser;
tm_status tm__optimiser_create(const tm__paramset *set, const tm_train_options *options, tm__optimiser *optimiser);
void tm__optimiser_release(const tm__paramset *set, tm__optimiser *optimiser);
/* One step with the gradients in param->grad; clips to options->clip by the global norm (as torch: scale = clip/(norm +
 * 1e-6) if < 1). Weight decay acts on matrices only. TM_NUMERIC, before any weight is touched, if the norm is not
 * finite. */
tm_status tm__optimiser_step(const tm__paramset *set, tm__optimiser *optimiser, const tm_train_options *options,
                             double lr, double *grad_norm);
/* Learning-rate factor of 0-based `step` of `total`, as Hugging Face: linear warm-up over ceil(warmup*total) steps
 * (constant ignores it), then 1, linear to 0, or 0.5 (1 + cos pi progress). */
double tm__schedule_factor(int schedule, double warmup, int64_t step, int64_t total);

/* ---- the loop (trainer.c) ---- */

enum { TM__ORDERS = 4, TM__EXTRAS = 2 };

typedef struct tm__trainer {
    tm_model *model;
    tm__paramset set;
    tm__optimiser optimiser;
    tm__tape *tape;
    const tm_train_options *options;
    const tm_monitor *monitor;
    const tm__examples *examples;
    int64_t step, total_steps;
    int64_t tokens, targets; /* processed in all steps so far */
    int64_t positions, laid; /* computed in this process: in all, and those that are no padding */
    double seconds;          /* spent in runs before this one */
    double *losses;          /* (total_steps), filled as far as `step` */
    int32_t pad;
    tm__order orders[TM__ORDERS];
    size_t next_order;
    const char *tag;
    tm__vector *extra[TM__EXTRAS]; /* a method's own vectors, saved and resumed with the weights */
    size_t extra_count;
    double *numbers; /* (number_count) likewise */
    int64_t number_count;
    tm__adder adder; /* with other ranks; empty where there are none */
} tm__trainer;

/* Leaves the composed gradient of step trainer->step in param->grad (zeroed before the call) and its loss in *loss.
 * NULL: SFT, one pass with factor 1 over this step's rows. */
typedef tm_status (*tm__step)(tm__trainer *trainer, void *user, double *loss, int64_t *tokens, int64_t *targets);

/* One forward and backward pass over rows [first, first+count) of the endless shuffled stream of `examples`. Where
 * several processes train together each computes a part of the rows; outside of passes all hold the same bytes. */
typedef struct tm__pass {
    const tm__examples *examples;
    uint64_t seed;
    int64_t first, count;
    double factor; /* of the mean response loss, in the gradient */
} tm__pass;
typedef struct tm__pass_result {
    double loss; /* mean response loss, without the factor */
    int64_t tokens, targets;
} tm__pass_result;
/* tm__batch_build for a pass of the trainer, counting positions. */
tm_status tm__trainer_lay(tm__trainer *trainer, const tm__examples *examples, const size_t *rows, size_t n, bool packed,
                          int64_t total_targets, tm__batch_store **store, const tm__batch **batch);
/* Adds factor * gradient to param->grad, micro-batch by micro-batch. */
tm_status tm__trainer_pass(tm__trainer *trainer, const tm__pass *pass, tm__pass_result *result);
/* The pass's rows (count) of the stream, for a method that lays them out itself; the caller's array. result->loss is 0.
 * TM_UNSUPPORTED where several processes train: what such a method computes of a batch is no sum over its rows. */
tm_status tm__trainer_draw(tm__trainer *trainer, const tm__pass *pass, size_t **rows, tm__pass_result *result);
/* The same rows as one batch, for a method that runs the model itself (taps, several losses). result->loss is 0. */
tm_status tm__trainer_batch(tm__trainer *trainer, const tm__pass *pass, tm__batch_store **store,
                            const tm__batch **batch, tm__pass_result *result);
/* What the loop is told besides model, rows and options. */
typedef struct tm__run {
    const char *tag; /* names method and data in the checkpoint; resuming with another is TM_MISMATCH */
    int32_t pad;
    tm__step step; /* NULL: SFT */
    void *user;
    /* Before the first step and before resuming: allocates the method's vectors and lists those to be saved in
     * trainer->extra. After the last step: the weights may still be moved. Called on every way out. NULL: nothing. */
    tm_status (*begin)(tm__trainer *trainer, void *user);
    tm_status (*finish)(tm__trainer *trainer, void *user);
    void (*release)(tm__trainer *trainer, void *user);
} tm__run;
/* Runs the loop: steps, schedule, clipping, resumable checkpoints (options->resume_dir), interruption. Parameters must
 * already be marked trainable. */
tm_status tm__trainer_run(tm_model *model, const tm__examples *examples, const tm_train_options *options,
                          const tm_monitor *monitor, const tm__run *run, tm_train_result *result);

/* Steps that the options mean for so many examples. */
int64_t tm__trainer_steps(const tm_train_options *options, const tm__examples *examples);

/* SHA-256 over everything that decides the result of a run: `method` (its name and options in words), the options of
 * training but not those of saving, the rows of every set, and samples of every weight. */
tm_status tm__train_tag(const char *method, tm_model *model, const tm__examples *const *sets, size_t set_count,
                        const tm_train_options *options, char tag[65]);
/* Whether `options`, resolved, fit the model: what tm__train_prepare would refuse, for those who work before it. */
tm_status tm__train_check(const tm_model *model, const tm_train_options *options);
/* Marks what `options` ask to train: everything, or a new adapter. */
tm_status tm__train_prepare(tm_model *model, const tm_train_options *options);
/* Trains on encoded sets, sets[0] being the one that epochs count: tag, what is trainable, the loop, freezing again.
 * `method` goes into the tag; run->tag and run->pad are filled in. */
tm_status tm__train_run(tm_model *model, const tm_tokenizer *tokenizer, const tm__examples *const *sets,
                        size_t set_count, const char *method, tm__run *run, const tm_train_options *options,
                        const tm_monitor *monitor, tm_train_result *result);
/* tm_train on behalf of a method; `method` goes into the tag. */
tm_status tm__train_sft(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset, const char *method,
                        const tm_train_options *options, const tm_monitor *monitor, tm_train_result *result);

/* ---- options (options.c) ---- */

/* Checks the numbers, choices and flags of an options struct filled in C. `scratch` is another struct of the same type
 * and receives the defaults where `given` is NULL. */
tm_status tm__options_check(const tm_option *table, const void *given, void *scratch);
/* A checked copy of the caller's options; NULL: the defaults. TM_INVALID names the option that is out of range. */
tm_status tm__train_options_resolve(const tm_train_options *given, tm_train_options *options);

/* ---- resumable checkpoints (checkpoint.c) ---- */

tm_status tm__trainer_save(const tm__trainer *trainer, const char *directory);
/* Continues where the checkpoint in `directory` stopped; nothing is changed if there is none, or on failure. */
tm_status tm__trainer_resume(tm__trainer *trainer, const char *directory, bool *resumed);

#endif
