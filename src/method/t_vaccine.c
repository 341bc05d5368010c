/* t_vaccine.c: T-Vaccine: Vaccine on a few blocks at a time, drawn by how much harmful data pulls at them.
 *
 * Paper: G. Liu et al., "Targeted Vaccine: Safety Alignment for Large Language Models against Harmful Fine-Tuning via
 * Layer-wise Perturbation" (arXiv 2410.09760).
 *
 *   every K steps:  s_l = |gradient of h with respect to the trainable weights of block l|,  h: harmful rows
 *   every J steps:  draw gamma blocks without replacement, p_l = s_l / sum s
 *   each step:      Vaccine (vaccine.c) with e on the drawn blocks only; the others are neither perturbed nor trained
 *
 * A block that rests keeps its weights and its moments. Two forward and backward passes per step, and the scoring.
 * Choices: blocks are scored again at the first draw at or after each multiple of K; s_l is taken from the mean
 * gradient over the first rows of the harmful stream, a batch at a time, with a mean of batch means; weights outside of
 * blocks (full training) always train. Deviation: AdamW's bias correction counts all steps, not those of each block.
 * Pinned by tests/unit/test_t_vaccine.c and tests/golden/test_combine.c.
 */
#include "method/method.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"rho", TM_OPTION_REAL, offsetof(tm_t_vaccine_options, rho), "3", 0, 1e6, NULL, NULL,
     "L2 norm of the perturbation over the drawn blocks, rows and tokens of a batch"},
    {"blocks", TM_OPTION_INT, offsetof(tm_t_vaccine_options, blocks), "8", 1, 1e6, NULL, "blocks",
     "blocks that are perturbed and trained at a time; as many as the model has, or more: Vaccine"},
    {"redraw", TM_OPTION_INT, offsetof(tm_t_vaccine_options, redraw), "20", 1, 1e9, NULL, "steps",
     "steps between draws of the blocks"},
    {"rescore", TM_OPTION_INT, offsetof(tm_t_vaccine_options, rescore), "200", 1, 1e9, NULL, "steps",
     "steps between measurements of the blocks' importance"},
    {"prompts", TM_OPTION_INT, offsetof(tm_t_vaccine_options, prompts), "200", 1, 1e9, NULL, "rows",
     "harmful rows that importance is measured on, at most all of them"},
    {0},
};

/* ---- which blocks ------------------------------------------------------------------------------------------------ */

double tm__t_vaccine_share(const double *importance, size_t layers, const bool *chosen, size_t block) {
    double total = 0;
    size_t left = 0;
    if (chosen[block]) return 0;
    for (size_t l = 0; l < layers; l++)
        if (!chosen[l]) {
            total += importance[l];
            left++;
        }
    return total > 0 ? importance[block] / total : 1.0 / (double)left;
}

static size_t draw_one(const double *importance, size_t layers, const bool *chosen, double point) {
    double sum = 0;
    size_t last = 0;
    for (size_t l = 0; l < layers; l++) {
        double share = tm__t_vaccine_share(importance, layers, chosen, l);
        sum += share;
        if (share > 0) last = l;
        if (point < sum && share > 0) return l;
    }
    return last; /* rounding left the sum of shares below the point */
}

void tm__t_vaccine_draw(const double *importance, size_t layers, size_t wanted, uint64_t seed, uint32_t index,
                        bool *chosen) {
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_BLOCKS, index));
    memset(chosen, 0, layers * sizeof *chosen);
    for (size_t i = 0; i < TM__MIN(wanted, layers); i++)
        chosen[draw_one(importance, layers, chosen, tm__rng_uniform(&rng))] = true;
}

/* Importance of every block at the weights as they are, into trainer->numbers. */
static tm_status score(tm__trainer *t, const tm__t_vaccine *v) {
    int64_t n = TM__MIN(v->options->prompts, (int64_t)v->harmful->count), batch = TM__MIN(t->options->batch, n);
    uint64_t stream = t->tape->dropout_stream;
    tm__grads_zero(&t->set);
    for (int64_t at = 0; at < n; at += batch) {
        int64_t rows = TM__MIN(batch, n - at);
        const tm__pass pass = {v->harmful, tm__job_seed(t, 1), at, rows, (double)rows / (double)n};
        tm__pass_result result;
        TM__TRY(tm__trainer_pass(t, &pass, &result));
    }
    t->tape->dropout_stream = stream;
    for (int64_t l = 0; l < t->number_count; l++) t->numbers[l] = 0;
    for (size_t i = 0; i < t->set.count; i++) {
        const tm__param *param = t->set.items[i];
        double square;
        if (v->block[i] < 0 || !param->grad) continue;
        TM__TRY(t->set.dev->k->dot(t->set.dev, &square, param->grad, param->grad, tm__tensor_count(&param->value)));
        t->numbers[v->block[i]] += square;
    }
    for (int64_t l = 0; l < t->number_count; l++) t->numbers[l] = sqrt(t->numbers[l]);
    tm__grads_zero(&t->set);
    return TM_OK;
}

/* The draw depends on the last scores and the step alone, so a resumed run repeats it. */
static tm_status choose(tm__trainer *t, tm__t_vaccine *v) {
    const tm_t_vaccine_options *o = v->options;
    int64_t drawn = t->step - t->step % o->redraw;
    bool due = drawn == 0 || drawn / o->rescore != (drawn - o->redraw) / o->rescore;
    if (t->step == drawn && due) TM__TRY(score(t, v));
    tm__t_vaccine_draw(t->numbers, (size_t)t->number_count, (size_t)o->blocks, (uint64_t)t->options->seed,
                       (uint32_t)(drawn / o->redraw), v->chosen);
    for (size_t i = 0; i < t->set.count; i++) v->still[i] = v->block[i] >= 0 && !v->chosen[v->block[i]];
    return TM_OK;
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

tm_status tm__t_vaccine_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    tm__t_vaccine *v = user;
    TM__TRY(choose(t, v));
    tm__vaccine vaccine = {.rho = v->options->rho, .blocks = v->chosen};
    TM__TRY(tm__vaccine_step(t, &vaccine, loss, tokens, targets));
    for (size_t i = 0; i < t->set.count; i++) { /* clipping measures what is trained */
        tm__param *param = t->set.items[i];
        if (v->still[i] && param->grad)
            TM__TRY(t->set.dev->k->fill(t->set.dev, param->grad, 0, tm__tensor_count(&param->value)));
    }
    return TM_OK;
}

/* "model.layers.N.": N; else -1. */
static int block_of(const char *name) {
    static const char prefix[] = "model.layers.";
    return strncmp(name, prefix, sizeof prefix - 1) == 0 ? (int)strtol(name + sizeof prefix - 1, NULL, 10) : -1;
}

tm_status tm__t_vaccine_begin(tm__trainer *t, void *user) {
    tm__t_vaccine *v = user;
    int64_t layers = t->model->config.layers;
    v->chosen = tm__zalloc((size_t)layers, sizeof *v->chosen);
    v->still = tm__zalloc(t->set.count, sizeof *v->still);
    v->block = tm__zalloc(t->set.count, sizeof *v->block);
    t->numbers = tm__zalloc((size_t)layers, sizeof *t->numbers);
    if (!v->chosen || !v->still || !v->block || !t->numbers) return tm__fail_memory();
    t->number_count = layers;
    t->set.still = v->still;
    for (size_t i = 0; i < t->set.count; i++) v->block[i] = block_of(t->set.items[i]->name);
    return TM_OK;
}

void tm__t_vaccine_release(tm__trainer *t, void *user) {
    tm__t_vaccine *v = user;
    t->set.still = NULL;
    free(t->numbers);
    t->numbers = NULL;
    t->number_count = 0;
    free(v->chosen);
    free(v->still);
    free(v->block);
    v->chosen = v->still = NULL;
    v->block = NULL;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_t_vaccine_options o;
    tm__job job;
    tm__examples refusals = {0}, harmful = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_t_vaccine_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_t_vaccine, model, tokenizer, data, train, monitor, result));
    TM__TRY(tm__job_needs_whole_batch(&job, &tm__method_t_vaccine));
    tm_status status = tm__job_encode(&job, data->refusals, "refusals", &refusals);
    if (status == TM_OK) status = tm__job_encode(&job, data->harmful, "harmful", &harmful);
    if (status == TM_OK) {
        tm__t_vaccine v = {.options = &o, .harmful = &harmful};
        tm__run loop = {
            .step = tm__t_vaccine_step, .user = &v, .begin = tm__t_vaccine_begin, .release = tm__t_vaccine_release};
        const tm__examples *sets[] = {&refusals, &harmful};
        status = tm__job_run(&job, &tm__method_t_vaccine, &o, sets, TM__COUNT(sets), &loop);
    }
    tm__examples_release(&refusals);
    tm__examples_release(&harmful);
    return status;
}

const tm_method tm__method_t_vaccine = {
    .name = "t-vaccine",
    .title = "T-Vaccine",
    .paper = "arXiv 2410.09760",
    .summary = "Vaccine on a few blocks at a time, drawn by how strongly harmful answers pull at them.",
    .who = "the model's developer, at alignment",
    .needs = "harmful prompts with refusals, and harmful prompts with harmful answers to find the blocks",
    .settings = "--rho 3 --blocks 8 --redraw 20 --rescore 200 --prompts 200 --lr 1e-3 --batch 10 --epochs 20 "
                "--max-length 200 (released code); the adapter's size was not found.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_REFUSALS | TM_DATA_HARMFUL,
    .options = options_table,
    .options_size = sizeof(tm_t_vaccine_options),
    .run = run,
};
