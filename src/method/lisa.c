/* lisa.c: Lisa: fine-tuning that alternates between a user's rows and refusals and stays near the last switch.
 *
 * Paper: T. Huang et al., "Lisa: Lazy Safety Alignment for Large Language Models against Harmful Fine-tuning Attack"
 * (arXiv 2405.18641).
 *
 *   k1 steps on refusals, k2 steps on the user's rows, and so on; in each state
 *   min_w loss(w) + rho/2 |w - a|^2,   a: the weights at the last switch
 *   G = grad loss(w) + rho (w - a), the second term from step ceil(0.1 steps) on
 *
 * One forward and backward pass per step; the loss that is reported is that of the rows, without the proximal term.
 * Choices: the first state is the one on refusals; the paper and its code name the two anchors oppositely, here there
 * is one, taken at each switch; a run that has only one state (k1 or k2 is 0) never switches and has no term. Each
 * state goes through its rows without gaps. Steps and epochs count both states; an epoch is one of the user's rows.
 * Pinned by tests/unit/test_lisa.c and tests/golden/test_combine.c.
 */
#include "method/method.h"

static const tm_option options_table[] = {
    {"k1", TM_OPTION_INT, offsetof(tm_lisa_options, k1), "100", 0, 1e9, NULL, "steps", "steps on refusals at a time"},
    {"k2", TM_OPTION_INT, offsetof(tm_lisa_options, k2), "900", 0, 1e9, NULL, "steps",
     "steps on the user's rows at a time"},
    {"rho", TM_OPTION_REAL, offsetof(tm_lisa_options, rho), "1", 0, 1e6, NULL, NULL,
     "pull towards the weights at the last switch"},
    {0},
};

/* Which state a step is in, and how many steps of that state came before it. */
typedef struct place {
    bool refusals, switched;
    int64_t before;
} place;

static place place_of(const tm_lisa_options *o, int64_t step) {
    int64_t period = o->k1 + o->k2, round = step / period, at = step % period;
    bool refusals = at < o->k1;
    return (place){
        .refusals = refusals,
        .switched = at == 0 || at == o->k1,
        .before = refusals ? round * o->k1 + at : round * o->k2 + at - o->k1,
    };
}

/* grad += rho (w - a) */
static tm_status add_pull(tm__trainer *t, tm__lisa *lisa) {
    double rho = lisa->options->rho;
    TM__TRY(tm__paramset_save(&t->set, &lisa->shift));
    TM__TRY(tm__grads_axpy(&t->set, rho, &lisa->shift));
    return tm__grads_axpy(&t->set, -rho, &lisa->anchor);
}

tm_status tm__lisa_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    tm__lisa *lisa = user;
    const tm_lisa_options *o = lisa->options;
    place p = place_of(o, t->step);
    int64_t batch = t->options->batch;
    const tm__pass pass = {p.refusals ? lisa->refusals : t->examples, tm__job_seed(t, p.refusals), p.before * batch,
                           batch, 1};
    tm__pass_result result;
    if (p.switched) TM__TRY(tm__paramset_save(&t->set, &lisa->anchor));
    TM__TRY(tm__trainer_pass(t, &pass, &result));
    bool late = t->step * 10 >= t->total_steps;
    if (o->k1 > 0 && o->k2 > 0 && o->rho > 0 && late) TM__TRY(add_pull(t, lisa));
    *loss = result.loss;
    *tokens = result.tokens;
    *targets = result.targets;
    return TM_OK;
}

tm_status tm__lisa_begin(tm__trainer *t, void *user) {
    tm__lisa *lisa = user;
    TM__TRY(tm__vector_create(&t->set, &lisa->anchor));
    TM__TRY(tm__vector_create(&t->set, &lisa->shift));
    t->extra[t->extra_count++] = &lisa->anchor;
    return TM_OK;
}

void tm__lisa_release(tm__trainer *t, void *user) {
    tm__lisa *lisa = user;
    tm__vector_release(&t->set, &lisa->anchor);
    tm__vector_release(&t->set, &lisa->shift);
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_lisa_options o;
    tm__job job;
    tm__examples user = {0}, refusals = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_lisa_options *)options;
    if (o.k1 + o.k2 == 0) return tm__fail(TM_INVALID, NULL, "k2", NULL, "k1 and k2 cannot both be 0");
    TM__TRY(tm__job_begin(&job, &tm__method_lisa, model, tokenizer, data, train, monitor, result));
    tm_status status = tm__job_encode(&job, data->user, "data", &user);
    if (status == TM_OK) status = tm__job_encode(&job, data->refusals, "refusals", &refusals);
    if (status == TM_OK) {
        tm__lisa lisa = {.options = &o, .refusals = &refusals};
        tm__run loop = {.step = tm__lisa_step, .user = &lisa, .begin = tm__lisa_begin, .release = tm__lisa_release};
        const tm__examples *sets[] = {&user, &refusals};
        status = tm__job_run(&job, &tm__method_lisa, &o, sets, TM__COUNT(sets), &loop);
    }
    tm__examples_release(&user);
    tm__examples_release(&refusals);
    return status;
}

const tm_method tm__method_lisa = {
    .name = "lisa",
    .title = "Lisa",
    .paper = "arXiv 2405.18641",
    .summary = "Fine-tunes on a user's rows and on refusals in turns, pulled towards where the last turn ended.",
    .who = "the provider of a fine-tuning service, while it tunes on a user's rows",
    .needs = "the user's rows, and harmful prompts with refusals of the provider's own",
    .settings = "--k1 100 --k2 900 --rho 1 --lr 1e-5; 10,000 refusals (released code). Booster's comparison takes "
                "--rho 0.01 on GSM8K. Batch and epochs were not found.",
    .stage = TM_STAGE_FINE_TUNING,
    .required = TM_DATA_USER | TM_DATA_REFUSALS,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_lisa_options),
    .run = run,
};
