/* vaccine.c: Vaccine: alignment under the worst small drift of the hidden embeddings, and its random control.
 *
 * Paper: T. Huang et al., "Vaccine: Perturbation-aware Alignment for Large Language Models against Harmful Fine-tuning
 * Attack" (arXiv 2402.01109).
 *
 *   min_w max_{|e| <= rho} f(w; e),  e is added to every block's attention output (after o_proj, before the residual)
 *   pass 1:  g_l = df / d(attention output of block l);  its gradients of weights are discarded
 *   e_l = rho g_l / (|g| + 1e-7)       norm over all blocks, rows and tokens together
 *   pass 2:  gradient of f(w; e), e held fixed
 *
 * Two forward and backward passes per step; the loss that is reported is the perturbed one. Random Vaccine has noise of
 * variance rho per entry in the place of e, and one pass.
 * Deviation from the released code: LoRA's dropout draws the same masks in both passes, so that e belongs to the
 * function it perturbs. The norm is taken over a whole batch, so a batch cannot be split into micro-batches.
 * Pinned by tests/unit/test_vaccine.c (golden row A7, invariants) and tests/golden/test_combine.c.
 */
#include "method/method.h"

#include <stdlib.h>

static const tm_option vaccine_table[] = {
    {"rho", TM_OPTION_REAL, offsetof(tm_vaccine_options, rho), "2", 0, 1e6, NULL, NULL,
     "L2 norm of the perturbation over all blocks, rows and tokens of a batch"},
    {0},
};
static const tm_option random_table[] = {
    {"rho", TM_OPTION_REAL, offsetof(tm_vaccine_options, rho), "0.01", 0, 1e6, NULL, NULL,
     "variance of the noise on every entry of the attention outputs"},
    {0},
};

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Pass 1: the gradients behind the attention outputs, in the taps' buffers. */
static tm_status output_gradients(tm__trainer *t, const tm__batch *batch, tm__attention_taps *taps) {
    double loss;
    for (size_t l = 0; l < taps->layers; l++) taps->taps[l].grad = taps->buffers[l];
    TM__TRY(tm__attention_taps_pass(t, batch, taps, &loss));
    for (size_t l = 0; l < taps->layers; l++) taps->taps[l].grad = NULL;
    tm__grads_zero(&t->set);
    return TM_OK;
}

static tm_status two_passes(tm__trainer *t, const tm__vaccine *v, const tm__batch *batch, double *loss) {
    tm__attention_taps taps;
    uint64_t stream = t->tape->dropout_stream;
    double norm;
    TM__TRY(tm__attention_taps_create(t->model, batch->tokens, &taps));
    tm_status status = output_gradients(t, batch, &taps);
    for (size_t l = 0; l < taps.layers && v->blocks && status == TM_OK; l++)
        if (!v->blocks[l]) status = taps.dev->k->fill(taps.dev, taps.buffers[l], 0, taps.scalars);
    if (status == TM_OK) status = tm__attention_taps_direction(&taps, v->rho, &norm);
    if (status == TM_OK) {
        for (size_t l = 0; l < taps.layers; l++) taps.taps[l].perturb = taps.buffers[l];
        t->tape->dropout_stream = stream;
        status = tm__attention_taps_pass(t, batch, &taps, loss);
    }
    tm__attention_taps_release(&taps);
    return status;
}

/* This step's whole batch, handed to `passes`. */
static tm_status whole_batch(tm__trainer *t,
                             tm_status (*passes)(tm__trainer *, const void *, const tm__batch *, double *),
                             const void *user, double *loss, int64_t *tokens, int64_t *targets) {
    int64_t n = t->options->batch;
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * n, n, 1};
    tm__pass_result made;
    tm__batch_store *store;
    const tm__batch *batch;
    TM__TRY(tm__trainer_batch(t, &pass, &store, &batch, &made));
    tm_status status = passes(t, user, batch, loss);
    tm__batch_free(store);
    *tokens = made.tokens;
    *targets = made.targets;
    return status;
}

static tm_status vaccine_passes(tm__trainer *t, const void *user, const tm__batch *batch, double *loss) {
    return two_passes(t, user, batch, loss);
}

tm_status tm__vaccine_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    return whole_batch(t, vaccine_passes, user, loss, tokens, targets);
}

/* Noise of step s: block after block, the entries of (tokens, hidden) in order, from the stream (noise, s). */
static tm_status fill_noise(const tm__trainer *t, const tm__attention_taps *taps, double sigma) {
    tm__rng rng = tm__rng_make((uint64_t)t->options->seed, tm__stream(TM__STREAM_NOISE, (uint32_t)t->step));
    size_t n = (size_t)taps->scalars, size = tm__dtype_size(taps->dev->act);
    double *noise = tm__alloc(n, sizeof *noise);
    void *host = tm__alloc(n, size);
    tm_status status = noise && host ? TM_OK : tm__fail_memory();
    for (size_t l = 0; l < taps->layers && status == TM_OK; l++) {
        for (size_t i = 0; i < n; i++) noise[i] = sigma * tm__rng_normal(&rng);
        tm__convert(host, taps->dev->act, noise, TM_F64, n);
        status = taps->dev->upload(taps->dev, taps->buffers[l], host, n * size);
    }
    free(noise);
    free(host);
    return status;
}

static tm_status noisy_pass(tm__trainer *t, const void *user, const tm__batch *batch, double *loss) {
    const tm_vaccine_options *o = user;
    tm__attention_taps taps;
    TM__TRY(tm__attention_taps_create(t->model, batch->tokens, &taps));
    for (size_t l = 0; l < taps.layers; l++) taps.taps[l].perturb = taps.buffers[l];
    tm_status status = fill_noise(t, &taps, sqrt(o->rho));
    if (status == TM_OK) status = tm__attention_taps_pass(t, batch, &taps, loss);
    tm__attention_taps_release(&taps);
    return status;
}

tm_status tm__random_vaccine_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    return whole_batch(t, noisy_pass, user, loss, tokens, targets);
}

/* ---- the methods ------------------------------------------------------------------------------------------------- */

typedef struct call {
    tm_model *model;
    const tm_tokenizer *tokenizer;
    const tm_method_data *data;
    const tm_train_options *train;
    const tm_monitor *monitor;
    tm_train_result *result;
} call;

static tm_status run_step(const tm_method *method, const call *c, const tm_vaccine_options *o, tm__step step,
                          void *user) {
    tm__job job;
    tm__examples refusals = {0};
    TM__TRY(tm__job_begin(&job, method, c->model, c->tokenizer, c->data, c->train, c->monitor, c->result));
    TM__TRY(tm__job_needs_whole_batch(&job, method));
    TM__TRY(tm__job_encode(&job, c->data->refusals, "refusals", &refusals));
    tm__run loop = {.step = step, .user = user};
    const tm__examples *sets[] = {&refusals};
    tm_status status = tm__job_run(&job, method, o, sets, TM__COUNT(sets), &loop);
    tm__examples_release(&refusals);
    return status;
}

static tm_status run_vaccine(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data,
                             const void *options, const tm_train_options *train, const tm_monitor *monitor,
                             tm_train_result *result) {
    tm_vaccine_options o;
    TM__TRY(tm__options_check(vaccine_table, options, &o));
    if (options) o = *(const tm_vaccine_options *)options;
    tm__vaccine vaccine = {.rho = o.rho};
    const call c = {model, tokenizer, data, train, monitor, result};
    return run_step(&tm__method_vaccine, &c, &o, tm__vaccine_step, &vaccine);
}

static tm_status run_random(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data,
                            const void *options, const tm_train_options *train, const tm_monitor *monitor,
                            tm_train_result *result) {
    tm_vaccine_options o;
    TM__TRY(tm__options_check(random_table, options, &o));
    if (options) o = *(const tm_vaccine_options *)options;
    const call c = {model, tokenizer, data, train, monitor, result};
    return run_step(&tm__method_random_vaccine, &c, &o, tm__random_vaccine_step, &o);
}

const tm_method tm__method_vaccine = {
    .name = "vaccine",
    .title = "Vaccine",
    .paper = "arXiv 2402.01109",
    .summary =
        "Trains refusals while the attention outputs are pushed, within a given norm, where the loss rises most.",
    .who = "the model's developer, at alignment",
    .needs = "harmful prompts with refusals",
    .settings = "--rho 2 --lr 1e-3 --batch 5 --epochs 50 --schedule cosine --warmup 0.1 --lora-rank 8 --lora-alpha 4 "
                "--lora-dropout 0.1 --lora-targets all-linear; 2,000 refusals; the user then tunes a second adapter "
                "at lr 1e-5 for 20 epochs (released code). Others compare with --rho 5 (Booster) and --rho 20 "
                "(Panacea).",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_REFUSALS,
    .options = vaccine_table,
    .options_size = sizeof(tm_vaccine_options),
    .run = run_vaccine,
};

const tm_method tm__method_random_vaccine = {
    .name = "random-vaccine",
    .title = "Random Vaccine",
    .paper = "arXiv 2402.01109",
    .summary = "Vaccine's control: trains refusals under Gaussian noise on the attention outputs.",
    .who = "the model's developer, at alignment, to see what the direction of Vaccine's perturbation is worth",
    .needs = "harmful prompts with refusals",
    .settings = "As for vaccine, with noise of variance rho in the place of the perturbation (released code); the rho "
                "of the published runs was not found.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_REFUSALS,
    .options = random_table,
    .options_size = sizeof(tm_vaccine_options),
    .run = run_random,
};
