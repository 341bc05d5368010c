/* method.h: the methods behind the registry, and the parts of them that tests call directly. */
#ifndef TM_METHOD_H
#define TM_METHOD_H

#include "train/train.h"

extern const tm_method tm__method_sdd, tm__method_harmful_sft, tm__method_panacea;
extern const tm_method tm__method_backdoor_align, tm__method_antidote, tm__method_safe_lora, tm__method_random_init;
extern const tm_method tm__method_refusal_ablation, tm__method_security_vectors;
/* The edit of antidote on encoded rows. */
tm_status tm__antidote_apply(tm_model *model, const tm__examples *examples, const tm_antidote_options *options,
                             const tm_monitor *monitor);
extern const tm_method tm__method_booster, tm__method_vaccine, tm__method_random_vaccine, tm__method_t_vaccine,
    tm__method_lisa;
extern const tm_method tm__method_gradient_ascent, tm__method_safety_training, tm__method_random_perturbation;
extern const tm_method tm__method_identity_shift, tm__method_embedding;
extern const tm_method tm__method_repnoise, tm__method_adversarial;

/* ---- what methods that train share (job.c) ---- */

typedef struct tm__job {
    tm_model *model;
    const tm_tokenizer *tokenizer;
    const tm_method_data *data;
    const tm_monitor *monitor;
    tm_train_options train;
    tm_train_result *result;
} tm__job;
/* Checks the data of `method` and resolves the options of training. */
tm_status tm__job_begin(tm__job *job, const tm_method *method, tm_model *model, const tm_tokenizer *tokenizer,
                        const tm_method_data *data, const tm_train_options *train, const tm_monitor *monitor,
                        tm_train_result *result);
/* Rows of one role as examples; `name` of the role goes into errors. */
tm_status tm__job_encode(const tm__job *job, const tm_dataset *rows, const char *name, tm__examples *examples);
/* tm__train_run with a tag of the method's name and all of its options. */
tm_status tm__job_run(const tm__job *job, const tm_method *method, const void *options, const tm__examples *const *sets,
                      size_t set_count, tm__run *run);
/* Stage 1 of security vectors: adds an adapter to the frozen model and trains it on the harmful rows. */
tm_status tm__security_vectors_learn(const tm__job *job, const tm_security_vectors_options *options);
/* Stage 2: trains on the user's rows with that adapter active and frozen. */
tm_status tm__security_vectors_tune(const tm__job *job);
/* Seed of the row order of a method's second (index 1) and further sets: streams must not move together. */
uint64_t tm__job_seed(const tm__trainer *trainer, unsigned index);
/* This step's pass over a method's second set. It leaves the dropout stream where it was: passes over the same rows
 * have the same masks, and the first set's masks are those of plain SFT. */
tm_status tm__job_side_pass(tm__trainer *trainer, const tm__examples *examples, double *loss);
/* RESUME and a suffix: what a method keeps beside its resumable checkpoint; the caller's. NULL: out of memory. */
char *tm__job_beside(const char *resume, const char *suffix);
/* TM_INVALID if the options split batches, for a method that cannot do it. */
tm_status tm__job_needs_whole_batch(const tm__job *job, const tm_method *method);

/* ---- h's change along its own gradient (contrast.c): Panacea and Booster ---- */

/* Adds a gradient to param->grad and says the loss it belongs to. */
typedef tm_status (*tm__gradient)(void *user, double *loss);
typedef struct tm__contrast {
    double lambda, length;
    double clamp; /* gradient at w + s counts as zero where the loss there exceeds it; 0: off */
    tm__vector weights, base, harm, shift; /* shift: s of the last call */
    double loss, shifted_loss;             /* h(w) and, if lambda and length are not 0, h(w + s) */
} tm__contrast;
tm_status tm__contrast_create(const tm__paramset *set, tm__contrast *contrast);
void tm__contrast_release(const tm__paramset *set, tm__contrast *contrast);
/* Adds lambda (grad h(w) - grad h(w + s)) to the gradients; w is left as it was, bitwise. */
tm_status tm__contrast_add(const tm__paramset *set, tm__contrast *contrast, tm__gradient harm, void *user);

/* ---- steps of single methods, for tests ---- */

/* What harmful-sft trains on. */
tm_status tm__harmful_sft_rows(const tm_method_data *data, const tm_harmful_sft_options *options, tm_dataset **rows);
/* The first row of every category, then the second, and so on, `shots` in all. */
tm_status tm__harmful_sft_shots(const tm_dataset *harmful, size_t shots, tm_dataset **taken);
/* x -= lr sign(gradient) */
void tm__sign_step(double *x, const double *gradient, size_t n, double lr);
struct tm__wrapper;
/* The first `count` (at most 10) conversations of identity-shift; the wrapper's texts are the caller's. */
tm_status tm__identity_shift_rows(const char *agent, size_t count, struct tm__wrapper *wrapper, tm_dataset **rows);

typedef struct tm__panacea {
    const tm_panacea_options *options;
    const tm_tokenizer *tokenizer; /* whose template goes with the tuned model; NULL: none */
    const tm__examples *harmful;
    tm__trainer *trainer;
    tm__contrast contrast;
} tm__panacea;
tm_status tm__panacea_begin(tm__trainer *trainer, void *panacea);
tm_status tm__panacea_step(tm__trainer *trainer, void *panacea, double *loss, int64_t *tokens, int64_t *targets);
void tm__panacea_release(tm__trainer *trainer, void *panacea);

typedef struct tm__booster {
    const tm_booster_options *options;
    const tm__examples *harmful;
    tm__trainer *trainer;
    tm__contrast contrast;
} tm__booster; /* with options->perturb_aware its f is Vaccine's */
tm_status tm__booster_begin(tm__trainer *trainer, void *booster);
tm_status tm__booster_step(tm__trainer *trainer, void *booster, double *loss, int64_t *tokens, int64_t *targets);
void tm__booster_release(tm__trainer *trainer, void *booster);

tm_status tm__ascent_step(tm__trainer *trainer, void *unused, double *loss, int64_t *tokens, int64_t *targets);

/* Taps behind the attention of every block, for one batch at a time (attention_taps.c). */
typedef struct tm__attention_taps {
    tm_device *dev;
    size_t layers;
    int64_t scalars; /* of one buffer: tokens * hidden */
    tm__tap *taps;   /* (layers) */
    void **buffers;  /* (layers) */
} tm__attention_taps;
tm_status tm__attention_taps_create(const tm_model *model, int64_t tokens, tm__attention_taps *taps);
void tm__attention_taps_release(tm__attention_taps *taps);
/* Each buffer, a gradient g_l, becomes rho g_l / (|g| + 1e-7), the norm taken over all of them together. */
tm_status tm__attention_taps_direction(const tm__attention_taps *taps, double rho, double *norm);
/* Forward and backward with the taps; adds to the gradients. */
tm_status tm__attention_taps_pass(tm__trainer *trainer, const tm__batch *batch, const tm__attention_taps *taps,
                                  double *loss);

typedef struct tm__vaccine {
    double rho;
    const bool *blocks; /* (layers) those to perturb; NULL: all */
} tm__vaccine;
tm_status tm__vaccine_step(tm__trainer *trainer, void *vaccine, double *loss, int64_t *tokens, int64_t *targets);
/* `options`: tm_vaccine_options. */
tm_status tm__random_vaccine_step(tm__trainer *trainer, void *options, double *loss, int64_t *tokens, int64_t *targets);

/* Draws `wanted` of `layers` blocks without replacement, each time with chances in proportion to `importance` (all
 * zero: equal); the draw of the given index. */
void tm__t_vaccine_draw(const double *importance, size_t layers, size_t wanted, uint64_t seed, uint32_t index,
                        bool *chosen);
/* Chance of a block to be drawn next; 0 of one that is chosen. Those of all blocks add up to 1. */
double tm__t_vaccine_share(const double *importance, size_t layers, const bool *chosen, size_t block);
typedef struct tm__t_vaccine {
    const tm_t_vaccine_options *options;
    const tm__examples *harmful;
    bool *chosen; /* (layers) */
    bool *still;  /* (parameters) */
    int *block;   /* (parameters) the block of each; -1: none */
} tm__t_vaccine;
tm_status tm__t_vaccine_begin(tm__trainer *trainer, void *vaccine);
tm_status tm__t_vaccine_step(tm__trainer *trainer, void *vaccine, double *loss, int64_t *tokens, int64_t *targets);
void tm__t_vaccine_release(tm__trainer *trainer, void *vaccine);

typedef struct tm__lisa {
    const tm_lisa_options *options;
    const tm__examples *refusals;
    tm__vector anchor, shift;
} tm__lisa;
tm_status tm__lisa_begin(tm__trainer *trainer, void *lisa);
tm_status tm__lisa_step(tm__trainer *trainer, void *lisa, double *loss, int64_t *tokens, int64_t *targets);
void tm__lisa_release(tm__trainer *trainer, void *lisa);

/* ---- pairing of SDD (sdd_pairing.c) ---- */

/* Rows of `harmful` to pair: the first of each distinct prompt; `wanted` of them (0: all), as many from every category
 * as all can give, the rest from the shuffled remainder. `*rows` is the caller's. */
tm_status tm__sdd_select(const tm_dataset *harmful, size_t wanted, uint64_t seed, size_t **rows, size_t *count);
/* The last user message of a row and its input ("" where it has none). false: the row asks nothing. */
bool tm__sdd_prompt(const tm_dataset *harmful, size_t row, const tm_message **system, const tm_message **user,
                    const tm_message **input);

typedef struct tm__sdd_pair {
    size_t answer; /* index into the pool */
    double cosine;
    int64_t tries; /* answers drawn, 1 to max_tries */
    bool accepted; /* cosine <= threshold; else the best of the answers drawn */
} tm__sdd_pair;

/* The q-quantile of all prompt-pool cosines: element floor(q (count - 1)) in rising order, of all pairs or, where there
 * are more than TM__SDD_SAMPLE, of so many drawn at random. q = 1 is cosine 1, which accepts everything. */
enum { TM__SDD_SAMPLE = 200000 };
tm_status tm__sdd_threshold(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double q,
                            uint64_t seed, double *threshold);
/* prompts (n,d) and pool (m,d) are L2-normalised, m > 0; pairs (n). */
void tm__sdd_pair_all(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double threshold,
                      int64_t max_tries, uint64_t seed, tm__sdd_pair *pairs);

#endif
