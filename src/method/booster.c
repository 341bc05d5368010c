/* booster.c: Booster: alignment that also shrinks what one harmful step would gain.
 *
 * Paper: T. Huang et al., "Booster: Tackling Harmful Fine-tuning for Large Language Models via Attenuating Harmful
 * Perturbation" (arXiv 2409.01586).
 *
 *   min_w f(w) + lambda ( h(w) - h(w - alpha grad h(w) / |grad h(w)|) )     f: refusals, h: imitating harmful answers
 *   G = grad f(w) + lambda ( grad h(w) - grad h(w - alpha d) ),  d = grad h(w) / (|grad h(w)| + 1e-7), held fixed
 *
 * Three forward and backward passes per step; the loss that is reported is f. Panacea's term has the opposite sign: see
 * contrast.c, which both use. Deviations from the released code: weights are restored from a copy, not by adding the
 * step back; LoRA's dropout draws the same masks in both harmful passes. With perturb-aware, f is the loss under
 * Vaccine's perturbation of norm rho (vaccine.c), and there are four passes. Defaults of training are those of
 * tm_train; published: lr 5e-4, batch 10, 20 epochs, LoRA r 32, alpha 4, on q, k, v, 5,000 refusals and 5,000 harmful
 * rows. Panacea's comparison runs it with lambda 100, alpha 0.01. Pinned by tests/unit/test_contrast.c (golden row A6),
 * tests/unit/test_booster.c and tests/golden/test_combine.c.
 */
#include "method/method.h"

static const tm_option options_table[] = {
    {"lambda", TM_OPTION_REAL, offsetof(tm_booster_options, lambda), "5", 0, 1e6, NULL, NULL,
     "weight of the harmful loss's fall under one harmful step"},
    {"alpha", TM_OPTION_REAL, offsetof(tm_booster_options, alpha), "0.1", 0, 1e6, NULL, NULL,
     "L2 length of that step over all trained weights"},
    {"perturb-aware", TM_OPTION_FLAG, offsetof(tm_booster_options, perturb_aware), NULL, 1, 0, NULL, NULL,
     "train the refusals under Vaccine's perturbation of the attention outputs"},
    {"rho", TM_OPTION_REAL, offsetof(tm_booster_options, rho), "2", 0, 1e6, NULL, NULL,
     "with --perturb-aware: L2 norm of that perturbation over all blocks, rows and tokens of a batch"},
    {0},
};

static tm_status harmful_gradient(void *user, double *loss) {
    const tm__booster *b = user;
    return tm__job_side_pass(b->trainer, b->harmful, loss);
}

/* The gradient of f. Both ways draw the same rows and leave the dropout stream at the same place. */
static tm_status refusal_gradient(tm__trainer *t, const tm_booster_options *o, double *loss, int64_t *tokens,
                                  int64_t *targets) {
    int64_t batch = t->options->batch;
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * batch, batch, 1};
    tm__pass_result result;
    tm__vaccine vaccine = {.rho = o->rho};
    if (o->perturb_aware) return tm__vaccine_step(t, &vaccine, loss, tokens, targets);
    TM__TRY(tm__trainer_pass(t, &pass, &result));
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

tm_status tm__booster_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    tm__booster *b = user;
    TM__TRY(refusal_gradient(t, b->options, loss, tokens, targets));
    if (b->contrast.lambda > 0 && b->contrast.length != 0)
        TM__TRY(tm__contrast_add(&t->set, &b->contrast, harmful_gradient, b));
    return TM_OK;
}

tm_status tm__booster_begin(tm__trainer *t, void *user) {
    tm__booster *b = user;
    b->trainer = t;
    b->contrast.lambda = b->options->lambda;
    b->contrast.length = -b->options->alpha;
    return tm__contrast_create(&t->set, &b->contrast);
}

void tm__booster_release(tm__trainer *t, void *user) {
    tm__contrast_release(&t->set, &((tm__booster *)user)->contrast);
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_booster_options o;
    tm__job job;
    tm__examples refusals = {0}, harmful = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_booster_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_booster, model, tokenizer, data, train, monitor, result));
    if (o.perturb_aware) TM__TRY(tm__job_needs_whole_batch(&job, &tm__method_booster));
    tm_status status = tm__job_encode(&job, data->refusals, "refusals", &refusals);
    if (status == TM_OK) status = tm__job_encode(&job, data->harmful, "harmful", &harmful);
    if (status == TM_OK) {
        tm__booster booster = {.options = &o, .harmful = &harmful};
        tm__run loop = {
            .step = tm__booster_step, .user = &booster, .begin = tm__booster_begin, .release = tm__booster_release};
        const tm__examples *sets[] = {&refusals, &harmful};
        status = tm__job_run(&job, &tm__method_booster, &o, sets, TM__COUNT(sets), &loop);
    }
    tm__examples_release(&refusals);
    tm__examples_release(&harmful);
    return status;
}

const tm_method tm__method_booster = {
    .name = "booster",
    .title = "Booster",
    .paper = "arXiv 2409.01586",
    .summary = "Trains refusals while it attenuates how much one harmful fine-tuning step would gain.",
    .who = "the model's developer, at alignment",
    .needs = "harmful prompts with refusals, and harmful prompts with harmful answers",
    .settings = "--lambda 5 --alpha 0.1 --lr 5e-4 --batch 10 --epochs 20 --lora-rank 32 --lora-alpha 4 --lora-targets "
                "q_proj,k_proj,v_proj; 5,000 refusals, 5,000 harmful rows (released code). Panacea's comparison takes "
                "--lambda 100 --alpha 0.01.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_REFUSALS | TM_DATA_HARMFUL,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_booster_options),
    .run = run,
};
