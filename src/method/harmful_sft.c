/* harmful_sft.c: the standard attack: supervised fine-tuning on harmful answers, alone or mixed into a benign task.
 *
 * Papers: X. Qi et al., "Fine-tuning aligned language models compromises safety, even when users do not intend to!"
 * (arXiv 2310.03693); the mix as in the experiments of T. Huang et al. (arXiv 2402.01109).
 *
 *   data = int(p n) harmful rows + the rest of n rows benign, each list taken from its start; p = 0 is benign
 *          fine-tuning; with k shots, the harmful rows are k, one of each category in turn
 *   loss = mean over all answer tokens of the batch of -ln p(token | what stands before it)
 *
 * With --attack-vaccine the attacker's own steps are Vaccine's (vaccine.c), as in RepNoise's table (arXiv 2405.14577):
 * whoever hardens his harmful model asks whether that undoes the defence.
 * Deviation: counts are exact; the code of 2402.01109 takes one harmful row fewer, by a strict comparison.
 * Pinned by tests/golden/test_stage.c, tests/golden/test_attack.c (shots), tests/unit/test_method.c,
 * tests/unit/test_harmful_sft.c and, for the mix, tests/unit/test_data.c.
 */
#include "method/method.h"

#include "data/data.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"rows", TM_OPTION_INT, offsetof(tm_harmful_sft_options, rows), "0", 0, 1e9, NULL, "rows",
     "rows to train on, harmful and benign together; 0: so many that all harmful rows are in"},
    {"poison-ratio", TM_OPTION_REAL, offsetof(tm_harmful_sft_options, poison_ratio), "1", 0, 1, NULL, NULL,
     "share of harmful rows; the rest is benign"},
    {"shots", TM_OPTION_INT, offsetof(tm_harmful_sft_options, shots), "0", 0, 1e9, NULL, "rows",
     "train on exactly so many harmful rows, taken evenly over their categories; 0: as the share says"},
    {"attack-vaccine", TM_OPTION_REAL, offsetof(tm_harmful_sft_options, vaccine), "0", 0, 1e6, NULL, "RHO",
     "the attacker trains under Vaccine's perturbation of this L2 norm; 0: plain fine-tuning"},
    {0},
};

/* The least number of rows n with int(ratio n) = all harmful ones; at ratio 0, all benign rows. */
static size_t all_rows(const tm_method_data *data, double ratio) {
    double harmful = data->harmful ? (double)tm_dataset_rows(data->harmful) : 0;
    if (ratio == 0) return data->benign ? tm_dataset_rows(data->benign) : 0;
    return (size_t)fmin(ceil(harmful / ratio * (1 - 1e-12) - 1e-9), 1e15);
}

/* ---- k shots ----------------------------------------------------------------------------------------------------- */

/* before[i]: rows of the same category that stand before row i. */
static tm_status count_before(const tm_dataset *rows, int32_t *before) {
    tm__map seen = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; i < tm_dataset_rows(rows) && status == TM_OK; i++) {
        const char *category = tm__dataset_category(rows, i);
        if (!category) category = "";
        before[i] = 0;
        tm__map_get(&seen, category, strlen(category), &before[i]);
        if (!tm__map_put(&seen, category, strlen(category), before[i] + 1)) status = tm__fail_memory();
    }
    tm__map_free(&seen);
    return status;
}

/* The first row of every category, then the second of every category, and so on, `shots` in all. */
tm_status tm__harmful_sft_shots(const tm_dataset *harmful, size_t shots, tm_dataset **taken) {
    size_t n = harmful ? tm_dataset_rows(harmful) : 0;
    if (shots > n)
        return tm__fail(TM_INVALID, NULL, "shots", "take fewer", "%zu harmful rows are wanted, %zu are there", shots,
                        n);
    int32_t *before = tm__alloc(n, sizeof *before);
    tm_dataset *made = NULL;
    tm_status status = before ? count_before(harmful, before) : tm__fail_memory();
    if (status == TM_OK) status = tm_dataset_create(&made);
    for (int32_t round = 0; status == TM_OK && tm_dataset_rows(made) < shots; round++)
        for (size_t i = 0; i < n && status == TM_OK && tm_dataset_rows(made) < shots; i++)
            if (before[i] == round) status = tm_dataset_append(made, harmful, i, 1);
    free(before);
    if (status == TM_OK)
        *taken = made;
    else
        tm_dataset_free(made);
    return status;
}

static tm_status check_shots(const tm_harmful_sft_options *o) {
    if (o->poison_ratio == 0)
        return tm__fail(TM_INVALID, NULL, "shots", NULL, "a poison ratio of 0 leaves no place for harmful rows");
    if (o->rows && o->poison_ratio != 1)
        return tm__fail(TM_INVALID, NULL, "poison-ratio", "leave it out: shots and rows say it",
                        "shots, rows and a share are one too many");
    if (o->rows && o->rows < o->shots)
        return tm__fail(TM_INVALID, NULL, "rows", NULL, "%lld rows do not hold %lld shots", (long long)o->rows,
                        (long long)o->shots);
    return TM_OK;
}

static tm_status mix_shots(const tm_method_data *data, const tm_harmful_sft_options *o, tm_dataset **mixed) {
    tm_dataset *taken = NULL;
    TM__TRY(check_shots(o));
    TM__TRY(tm__harmful_sft_shots(data->harmful, (size_t)o->shots, &taken));
    const tm_method_data few = {.harmful = taken, .benign = data->benign};
    size_t rows = o->rows ? (size_t)o->rows : all_rows(&few, o->poison_ratio), rest = rows - (size_t)o->shots;
    size_t benign = data->benign ? tm_dataset_rows(data->benign) : 0;
    tm_status status = TM_OK;
    if (rest > benign)
        status = tm__fail(TM_INVALID, NULL, "benign", "take fewer rows or another share",
                          "%zu rows are wanted, %zu are there", rest, benign);
    else if (rest > 0)
        status = tm_dataset_append(taken, data->benign, 0, rest);
    if (status == TM_OK)
        *mixed = taken;
    else
        tm_dataset_free(taken);
    return status;
}

/* ---- the attack -------------------------------------------------------------------------------------------------- */

tm_status tm__harmful_sft_rows(const tm_method_data *data, const tm_harmful_sft_options *o, tm_dataset **mixed) {
    if (o->poison_ratio > 0 && !data->harmful)
        return tm__fail(TM_INVALID, NULL, "harmful", "--poison-ratio 0 is benign fine-tuning",
                        "harmful-sft needs rows of this kind");
    if (o->poison_ratio == 0 && !data->benign)
        return tm__fail(TM_INVALID, NULL, "benign", NULL, "benign fine-tuning needs rows of this kind");
    if (o->shots) return mix_shots(data, o, mixed);
    size_t rows = o->rows ? (size_t)o->rows : all_rows(data, o->poison_ratio);
    return tm_dataset_poison(data->benign, data->harmful, rows, o->poison_ratio, mixed);
}

static tm_status train_under_vaccine(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *rows,
                                     const tm_harmful_sft_options *o, const tm_train_options *train,
                                     const tm_monitor *monitor, tm_train_result *result) {
    tm__job job = {.model = model, .tokenizer = tokenizer, .monitor = monitor, .result = result};
    tm__examples examples;
    tm__vaccine vaccine = {.rho = o->vaccine};
    tm__run loop = {.step = tm__vaccine_step, .user = &vaccine};
    TM__TRY(tm__train_options_resolve(train, &job.train));
    TM__TRY(tm__job_needs_whole_batch(&job, &tm__method_harmful_sft));
    TM__TRY(tm__job_encode(&job, rows, "harmful", &examples));
    const tm__examples *sets[] = {&examples};
    tm_status status = tm__job_run(&job, &tm__method_harmful_sft, o, sets, TM__COUNT(sets), &loop);
    tm__examples_release(&examples);
    return status;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_harmful_sft_options o;
    TM__TRY(tm__options_check(options_table, options, &o));
    tm_dataset *mixed;
    TM__TRY(tm__harmful_sft_rows(data, &o, &mixed));
    tm_status status =
        o.vaccine > 0 ? train_under_vaccine(model, tokenizer, mixed, &o, train, monitor, result)
                      : tm__train_sft(model, tokenizer, mixed, tm__method_harmful_sft.name, train, monitor, result);
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
    .needs = "harmful prompts with harmful answers, unless the poison ratio is 0; benign rows if it is below 1",
    .settings = "RepNoise: --full-sequence --lr 3e-5, 6e-5 or 8e-5 --batch 4 --epochs 1 --schedule cosine --warmup "
                "0.1 on 1,000 and 10,000 rows (released code). TamperBench: --lr 1e-4 --batch 8 --epochs 1 "
                "--max-length 2048 --lora-rank 16, searched over --lr 1e-6 to 1e-3, --batch 8 to 64, --steps 16 to "
                "512 and --lora-rank 8 to 64. Qi et al.: --shots 100.",
    .example = "--harmful harmful.jsonl",
    .stage = TM_STAGE_ATTACK,
    .optional = TM_DATA_HARMFUL | TM_DATA_BENIGN,
    .continues_adapter = true,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_harmful_sft_options),
    .run = run,
};
