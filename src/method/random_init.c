/* random_init.c: the control "random initialisation": the attack on a model that has learnt nothing.
 *
 * Row "Random" of RepNoise's table (arXiv 2405.14577): all weights are drawn again from the config, then attacked as by
 * harmful-sft. What such a model gives away comes from the attack's data alone. It is neither noise on trained weights
 * (random-perturbation) nor a random mapping of hidden states.
 * Pinned by tests/golden/test_stage.c and tests/unit/test_random_init.c.
 */
#include "method/method.h"

static const tm_option options_table[] = {
    {"rows", TM_OPTION_INT, offsetof(tm_random_init_options, attack.rows), "0", 0, 1e9, NULL, "rows",
     "rows to train on, harmful and benign together; 0: so many that all harmful rows are in"},
    {"poison-ratio", TM_OPTION_REAL, offsetof(tm_random_init_options, attack.poison_ratio), "1", 0, 1, NULL, NULL,
     "share of harmful rows; the rest is benign"},
    {"init-seed", TM_OPTION_INT, offsetof(tm_random_init_options, seed), "0", 0, 9e15, NULL, NULL,
     "seed of the new weights"},
    {0},
};

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_random_init_options o = {0}; /* the attack's other options are not offered here */
    TM__TRY(tm__options_check(options_table, options, &o));
    TM__TRY(tm__model_redraw(model, (uint64_t)o.seed));
    return tm__method_harmful_sft.run(model, tokenizer, data, &o.attack, train, monitor, result);
}

const tm_method tm__method_random_init = {
    .name = "random-init",
    .title = "Random initialisation",
    .paper = "arXiv 2405.14577",
    .summary = "A control: draws all weights anew and attacks that, which shows what the attack's data alone teaches.",
    .who = "whoever audits a model, beside the attack on the model itself",
    .needs = "harmful prompts with harmful answers; benign rows if the poison ratio is below 1",
    .settings = "Those of harmful-sft: the same attack, on weights drawn from the config (released code of RepNoise).",
    .stage = TM_STAGE_ATTACK,
    .required = TM_DATA_HARMFUL,
    .optional = TM_DATA_BENIGN,
    .discards_weights = true,
    .options = options_table,
    .options_size = sizeof(tm_random_init_options),
    .run = run,
};
