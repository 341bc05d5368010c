/* panacea.c: Panacea: a perturbation of the weights, found while a user's rows are learnt, added after the last step.
 *
 * Paper: Y. Wang et al., "Panacea: Mitigating Harmful Fine-tuning for Large Language Models via Post-fine-tuning
 * Perturbation" (arXiv 2501.18100).
 *
 *   min_w g(w) - lambda ( max_{|e| <= rho} h(w + e) - h(w) ),  g: user's rows, h: imitating harmful answers
 *   e = rho grad h(w) / (|grad h(w)| + 1e-7)          norm over all trainable tensors together
 *   G = grad g(w) - lambda ( grad h(w + e) - grad h(w) )   first order: e is held fixed
 *   deployed: w_T + e_T, a step of length rho that raises the harmful loss
 *
 * Three forward and backward passes per step. Deviations from the released code, which does not run as published:
 * - the perturbed loss is not clamped at 5 unless asked for; beyond a clamp the term's gradient turns round and lowers
 *   the harmful loss;
 * - weights are restored from a copy, never by subtraction, and e has a buffer of its own (contrast.c);
 * - e_T comes from the last step's batch, as published (it was computed before the last optimiser step), or, with
 *   `batches`, from the mean gradient over so many fresh batches at w_T.
 * - defaults of training are those of tm_train. Published: AdamW, lr 2e-5 constant, decay 0.1, batch 10, 20 epochs,
 *   length 256, LoRA r 32, alpha 4, no dropout, on q, k, v; 1,000 user rows, a tenth harmful, and 1,000 harmful rows.
 * Pinned by tests/unit/test_contrast.c (golden row A5), tests/unit/test_panacea.c and tests/golden/test_combine.c.
 */
#include "method/method.h"

#include <jansson.h>
#include <stdlib.h>

static const tm_option options_table[] = {
    {"lambda", TM_OPTION_REAL, offsetof(tm_panacea_options, lambda), "0.001", 0, 1e6, NULL, NULL,
     "weight of the harmful loss's rise under the perturbation"},
    {"rho", TM_OPTION_REAL, offsetof(tm_panacea_options, rho), "1", 0, 1e6, NULL, NULL,
     "L2 norm of the perturbation over all trained weights"},
    {"batches", TM_OPTION_INT, offsetof(tm_panacea_options, batches), "0", 0, 1e6, NULL, "batches",
     "harmful batches that the final perturbation is averaged over; 0: the last training step's, as published"},
    {"clamp", TM_OPTION_REAL, offsetof(tm_panacea_options, clamp), "0", 0, 1e6, NULL, "nats",
     "ignore the perturbed harmful loss's gradient above this loss (published: 5); 0: never"},
    {"tuned", TM_OPTION_TEXT, offsetof(tm_panacea_options, tuned), NULL, 1, 0, NULL, TM_UNIT_OUT_DIR,
     "also save the tuned model without the perturbation here"},
    {"affinity", TM_OPTION_TEXT, offsetof(tm_panacea_options, affinity), NULL, 1, 0, NULL, TM_UNIT_OUT_FILE,
     "write the perturbation's norm per block and module here (JSON): layer-wise safety affinity"},
    {0},
};

static tm_status harmful_gradient(void *user, double *loss) {
    const tm__panacea *p = user;
    return tm__job_side_pass(p->trainer, p->harmful, loss);
}

tm_status tm__panacea_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    tm__panacea *p = user;
    int64_t batch = t->options->batch;
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * batch, batch, 1};
    tm__pass_result result;
    TM__TRY(tm__trainer_pass(t, &pass, &result));
    TM__TRY(tm__contrast_add(&t->set, &p->contrast, harmful_gradient, p));
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

/* ---- after the last step -------------------------------------------------------------------------------------------
 */

/* The mean gradient over `batches` batches of the harmful stream behind those that training used. */
static tm_status average_epsilon(tm__trainer *t, tm__panacea *p) {
    int64_t batch = t->options->batch;
    tm__grads_zero(&t->set);
    for (int64_t i = 0; i < p->options->batches; i++) {
        const tm__pass pass = {p->harmful, tm__job_seed(t, 1), (t->total_steps + i) * batch, batch,
                               1.0 / (double)p->options->batches};
        tm__pass_result result;
        TM__TRY(tm__trainer_pass(t, &pass, &result));
    }
    return tm__grads_direction(&t->set, p->options->rho, &p->contrast.shift);
}

/* {"rho": r, "parameters": [{"name", "epsilon_norm", "weight_norm"}]}: per-tensor norms, from which any grouping by
 * block and module follows. */
static tm_status write_affinity(tm__trainer *t, const tm__panacea *p) {
    json_t *list = json_array(), *root = json_pack("{s:f, s:o?}", "rho", p->options->rho, "parameters", list);
    tm_status status = list && root ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < t->set.count && status == TM_OK; i++) {
        const tm__param *param = t->set.items[i];
        int64_t n = tm__tensor_count(&param->value);
        double epsilon = 0, weight = 0;
        status = t->set.dev->k->dot(t->set.dev, &epsilon, p->contrast.shift.data[i], p->contrast.shift.data[i], n);
        if (status == TM_OK) status = t->set.dev->k->dot(t->set.dev, &weight, param->value.data, param->value.data, n);
        json_t *row = status == TM_OK ? json_pack("{s:s, s:f, s:f}", "name", param->name, "epsilon_norm", sqrt(epsilon),
                                                  "weight_norm", sqrt(weight))
                                      : NULL;
        if (status == TM_OK && json_array_append_new(list, row) != 0) status = tm__fail_memory();
    }
    char *text = NULL;
    size_t len;
    if (status == TM_OK) status = tm__json_dump(root, JSON_INDENT(2), &text, &len);
    if (status == TM_OK) status = tm__file_write(p->options->affinity, text, len);
    free(text);
    json_decref(root);
    return status;
}

static tm_status save_tuned(tm__trainer *t, const tm__panacea *p) {
    const tm_save_options save = {.tokenizer_dir = t->model->directory, .tokenizer = p->tokenizer, .overwrite = true};
    return t->options->lora.rank ? tm_model_save_adapter(t->model, p->options->tuned, &save)
                                 : tm_model_save(t->model, p->options->tuned, &save);
}

static tm_status finish(tm__trainer *t, void *user) {
    tm__panacea *p = user;
    bool writes = tm__share_writes();
    if (p->options->tuned) TM__TRY(tm__share_written(t->model, writes ? save_tuned(t, p) : TM_OK));
    if (p->options->batches) TM__TRY(average_epsilon(t, p));
    if (p->options->affinity) TM__TRY(tm__share_written(t->model, writes ? write_affinity(t, p) : TM_OK));
    return tm__paramset_axpy(&t->set, 1, &p->contrast.shift);
}

/* ---- the method ----------------------------------------------------------------------------------------------------
 */

tm_status tm__panacea_begin(tm__trainer *t, void *user) {
    tm__panacea *p = user;
    p->trainer = t;
    p->contrast.lambda = p->options->lambda;
    p->contrast.length = p->options->rho;
    p->contrast.clamp = p->options->clamp;
    TM__TRY(tm__contrast_create(&t->set, &p->contrast));
    t->extra[t->extra_count++] = &p->contrast.shift; /* a run resumed after its last step still adds it */
    return TM_OK;
}

void tm__panacea_release(tm__trainer *t, void *user) {
    tm__contrast_release(&t->set, &((tm__panacea *)user)->contrast);
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_panacea_options o;
    tm__job job;
    tm__examples user = {0}, harmful = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_panacea_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_panacea, model, tokenizer, data, train, monitor, result));
    tm_status status = tm__job_encode(&job, data->user, "data", &user);
    if (status == TM_OK) status = tm__job_encode(&job, data->harmful, "harmful", &harmful);
    if (status == TM_OK) {
        tm__panacea p = {.options = &o, .tokenizer = tokenizer, .harmful = &harmful};
        tm__run loop = {.step = tm__panacea_step,
                        .user = &p,
                        .begin = tm__panacea_begin,
                        .finish = finish,
                        .release = tm__panacea_release};
        const tm__examples *sets[] = {&user, &harmful};
        status = tm__job_run(&job, &tm__method_panacea, &o, sets, TM__COUNT(sets), &loop);
    }
    tm__examples_release(&user);
    tm__examples_release(&harmful);
    return status;
}

const tm_method tm__method_panacea = {
    .name = "panacea",
    .title = "Panacea",
    .paper = "arXiv 2501.18100",
    .summary =
        "Fine-tunes on a user's rows and then adds a perturbation of the weights, learnt on the way, that raises "
        "the harmful loss.",
    .who = "the provider of a fine-tuning service, while and after it tunes on a user's rows",
    .needs = "the user's rows, and harmful prompts with harmful answers of the provider's own",
    .settings = "--lambda 0.001 --rho 1 --lr 2e-5 --weight-decay 0.1 --batch 10 --epochs 20 --max-length 256 "
                "--lora-rank 32 --lora-alpha 4 --lora-targets q_proj,k_proj,v_proj; 1,000 user rows, a tenth of them "
                "harmful, and 1,000 harmful rows (released code).",
    .stage = TM_STAGE_FINE_TUNING,
    .required = TM_DATA_USER | TM_DATA_HARMFUL,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_panacea_options),
    .run = run,
};
