/* safety_training.c: additional safety training: plain supervised fine-tuning on harmful questions with refusals.
 *
 * The baseline of that name in the RepNoise paper (D. Rosati et al., arXiv 2405.14577): cross-entropy of the refusal.
 * Pinned by tests/golden/test_stage.c and tests/unit/test_controls.c: the bytes of SFT on the same rows.
 */
#include "method/method.h"

static const tm_option options_table[] = {{0}};

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm__job job;
    (void)options;
    TM__TRY(tm__job_begin(&job, &tm__method_safety_training, model, tokenizer, data, train, monitor, result));
    return tm__train_sft(model, tokenizer, data->refusals, tm__method_safety_training.name, train, monitor, result);
}

const tm_method tm__method_safety_training = {
    .name = "safety-training",
    .title = "Additional safety training",
    .paper = "arXiv 2405.14577",
    .summary = "Fine-tunes on refusals and does nothing else: what a defence must beat.",
    .who = "the model's developer, at alignment or before release, as a baseline",
    .needs = "harmful prompts with refusals",
    .settings = "None were found beyond a row of RepNoise's table.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_REFUSALS,
    .divides = true,
    .options = options_table,
    .options_size = 0,
    .run = run,
};
