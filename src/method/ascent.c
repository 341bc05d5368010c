/* ascent.c: gradient ascent on harmful answers, the plainest way to unlearn them.
 *
 * As in the RepNoise paper's table of baselines (D. Rosati et al., arXiv 2405.14577):
 *
 *   loss = -CE(harmful), over the full sequence, prompt included;   G = -grad CE
 *
 * The loss has no bound, so the number of steps has: `cap`. With `answers` the loss is taken over answers only.
 * Pinned by tests/unit/test_controls.c, tests/golden/test_combine.c and tests/golden/test_stage.c.
 */
#include "method/method.h"

static const tm_option options_table[] = {
    {"cap", TM_OPTION_INT, offsetof(tm_gradient_ascent_options, cap), "100", 1, 1e9, NULL, "steps",
     "most steps to take, whatever steps and epochs say: the loss has no bound"},
    {"answers", TM_OPTION_FLAG, offsetof(tm_gradient_ascent_options, answers), NULL, 0, 0, NULL, NULL,
     "ascend on the answers only, not on the prompts too"},
    {0},
};

tm_status tm__ascent_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    (void)user;
    int64_t batch = t->options->batch;
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * batch, batch, -1};
    tm__pass_result result;
    TM__TRY(tm__trainer_pass(t, &pass, &result));
    *loss = -result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

static void cap_steps(tm__job *job, int64_t cap, const tm__examples *examples) {
    int64_t planned = tm__trainer_steps(&job->train, examples);
    if (planned <= cap) return;
    tm__note(job->monitor, "%lld steps are cut to %lld: the loss of ascent has no bound", (long long)planned,
             (long long)cap);
    job->train.steps = cap;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_gradient_ascent_options o;
    tm__job job;
    tm__examples harmful = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_gradient_ascent_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_gradient_ascent, model, tokenizer, data, train, monitor, result));
    if (!o.answers) job.train.full_sequence = true;
    TM__TRY(tm__job_encode(&job, data->harmful, "harmful", &harmful));
    cap_steps(&job, o.cap, &harmful);
    tm__run loop = {.step = tm__ascent_step};
    const tm__examples *sets[] = {&harmful};
    tm_status status = tm__job_run(&job, &tm__method_gradient_ascent, &o, sets, TM__COUNT(sets), &loop);
    tm__examples_release(&harmful);
    return status;
}

const tm_method tm__method_gradient_ascent = {
    .name = "gradient-ascent",
    .title = "Gradient ascent",
    .paper = "arXiv 2405.14577",
    .summary = "Raises the loss of harmful answers directly, for a limited number of steps.",
    .who = "the model's developer, before release, as a baseline",
    .needs = "harmful prompts with harmful answers",
    .settings = "None were found beyond a row of RepNoise's table: the loss of whole harmful texts, with its sign "
                "turned round.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_HARMFUL,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_gradient_ascent_options),
    .run = run,
};
