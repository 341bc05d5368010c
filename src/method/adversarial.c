/* adversarial.c: adversarial loss: refusals are learnt and harmful answers unlearnt in one step. A baseline of
 * RepNoise.
 *
 * Paper: D. Rosati et al., "Representation noising" (arXiv 2405.14577), table 1.
 *
 *   L = CE_m(harmless) - c CE_m(harmful),  c = 0.1
 *
 * Pairs and masks are RepNoise's (pairs.c). The released run took lr 1e-5, batch 4, 10,000 pairs, 4 epochs. The second
 * term has no lower bound: too many steps wreck the model. A coefficient of 0 is SFT on the masked refusals, to the
 * byte. Pinned by tests/unit/test_repnoise_invariants.c and tests/golden/test_repnoise.c.
 */
#include "method/repnoise.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"coefficient", TM_OPTION_REAL, offsetof(tm_adversarial_options, coefficient), "0.1", 0, 1e6, NULL, NULL,
     "weight of the ascent on harmful answers; 0: none"},
    {"mode", TM_OPTION_CHOICE, offsetof(tm_adversarial_options, mode), NULL, 1, 0, "correct|compat", NULL,
     "correct: masks as meant, chat format; compat: masks and plain text of the published code"},
    {0},
};

tm_status tm__adversarial_step(tm__trainer *t, void *adversarial, double *loss, int64_t *tokens, int64_t *targets) {
    const tm__adversarial *own = adversarial;
    int64_t batch = t->options->batch;
    double c = own->options->coefficient;
    const tm__pass pass = {&own->pairs->side[TM__REFUSAL], tm__job_seed(t, 0), t->step * batch, batch, 1};
    tm__pass_result refusal, harmful = {0};
    size_t *rows;
    TM__TRY(tm__trainer_draw(t, &pass, &rows, &refusal));
    tm_status status = tm__pairs_pass(t, own->pairs, TM__REFUSAL, rows, (size_t)batch, 1, &refusal);
    if (status == TM_OK && c > 0)
        status = tm__pairs_pass(t, own->pairs, TM__HARMFUL, rows, (size_t)batch, -c, &harmful);
    free(rows);
    *loss = refusal.loss - c * harmful.loss;
    *tokens = refusal.tokens + harmful.tokens;
    *targets = refusal.targets + harmful.targets;
    return status;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_adversarial_options o;
    tm__job job;
    tm__pairs pairs;
    TM__TRY(tm__options_check(options_table, options, &o));
    TM__TRY(tm__job_begin(&job, &tm__method_adversarial, model, tokenizer, data, train, monitor, result));
    if (job.train.full_sequence)
        return tm__fail(TM_INVALID, NULL, "full-sequence", "leave it out",
                        "what is trained on is where harmful answer and refusal differ");
    TM__TRY(tm__pairs_encode(&job, o.mode, &pairs));
    tm__adversarial own = {&o, &pairs};
    tm__run loop = {.step = tm__adversarial_step, .user = &own};
    const tm__examples *sets[] = {&pairs.side[TM__REFUSAL], &pairs.side[TM__HARMFUL]};
    tm_status status = tm__job_run(&job, &tm__method_adversarial, &o, sets, TM__COUNT(sets), &loop);
    tm__pairs_release(&pairs);
    return status;
}

const tm_method tm__method_adversarial = {
    .name = "adversarial",
    .title = "Adversarial loss",
    .paper = "arXiv 2405.14577",
    .summary = "Learns refusals and unlearns harmful answers to the same prompts in one step.",
    .who = "the developer of open weights, before the release; a baseline",
    .needs = "harmful prompts with harmful answers, and the same prompts with refusals",
    .settings = "--coefficient 0.1 --lr 1e-5 --batch 4 --epochs 4; 10,000 pairs (released run).",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_HARMFUL | TM_DATA_REFUSALS,
    .options = options_table,
    .options_size = sizeof(tm_adversarial_options),
    .run = run,
};
