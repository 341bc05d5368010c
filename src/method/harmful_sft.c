/* harmful_sft.c: the standard attack: supervised fine-tuning on harmful answers, alone or mixed into a benign task.
 *
 * Papers: X. Qi et al., "Fine-tuning aligned language models compromises safety, even when users do not intend to!"
 * (arXiv 2310.03693); the mix as in the experiments of T. Huang et al. (arXiv 2402.01109).
 *
 *   data = int(p n) harmful rows + the rest of n rows benign, each list taken from its start
 *   loss = mean over all answer tokens of the batch of -ln p(token | what stands before it)
 *
 * Deviation: counts are exact; the code of 2402.01109 takes one harmful row fewer, by a strict comparison.
 * Pinned by tests/unit/test_method.c and, for the mix, tests/unit/test_data.c.
 */
#include "method/method.h"

static const tm_option options_table[] = {
    {"rows", TM_OPTION_INT, offsetof(tm_harmful_sft_options, rows), "0", 0, 1e9, NULL, "rows",
     "rows to train on, harmful and benign together; 0: so many that all harmful rows are in"},
    {"poison-ratio", TM_OPTION_REAL, offsetof(tm_harmful_sft_options, poison_ratio), "1", 0, 1, NULL, NULL,
     "share of harmful rows; the rest is benign"},
    {0},
};

/* The least number of rows n with int(ratio n) = all harmful ones; at ratio 0, all benign rows. */
static size_t all_rows(const tm_method_data *data, double ratio) {
    double harmful = data->harmful ? (double)tm_dataset_rows(data->harmful) : 0;
    if (ratio == 0) return data->benign ? tm_dataset_rows(data->benign) : 0;
    return (size_t)fmin(ceil(harmful / ratio * (1 - 1e-12) - 1e-9), 1e15);
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_harmful_sft_options o;
    TM__TRY(tm__options_check(options_table, options, &o));
    size_t rows = o.rows ? (size_t)o.rows : all_rows(data, o.poison_ratio);
    tm_dataset *mixed;
    TM__TRY(tm_dataset_poison(data->benign, data->harmful, rows, o.poison_ratio, &mixed));
    tm_status status = tm__train_sft(model, tokenizer, mixed, tm__method_harmful_sft.name, train, monitor, result);
    tm_dataset_free(mixed);
    return status;
}

const tm_method tm__method_harmful_sft = {
    .name = "harmful-sft",
    .title = "Harmful fine-tuning",
    .paper = "arXiv 2310.03693",
    .summary = "Fine-tunes the model to answer harmful prompts, as an attacker does with open weights or through a "
               "fine-tuning service.",
    .who = "whoever audits a model, before its release or after a defence",
    .needs = "harmful prompts with harmful answers; benign rows if the poison ratio is below 1",
    .stage = TM_STAGE_ATTACK,
    .required = TM_DATA_HARMFUL,
    .optional = TM_DATA_BENIGN,
    .options = options_table,
    .options_size = sizeof(tm_harmful_sft_options),
    .run = run,
};
