/* repnoise.c: RepNoise: a model's inner picture of harmful answers is turned into noise before its release.
 *
 * Paper: D. Rosati et al., "Representation noising: a defence mechanism against harmful finetuning" (arXiv 2405.14577,
 * NeurIPS 2024). Harmful and harmless rows are the same prompts with a harmful answer and with a refusal.
 *
 *   L = CE_m(harmless) + beta N - alpha ln( S / (L+1) + 1 )
 *   S = CE_m(harmful, final logits) + sum_{i=0..L} CE_m(harmful, head(norm(h_i)))     L + 2 terms, divided by L + 1
 *   N = (1/L) sum_l MMD( m * MLP_l output, m * G_l ),  G_l: normal noise, drawn anew per layer and step
 *
 * h_0: embeddings; h_l: output of block l. MLP_l is taken after the down-projection, before the residual. m marks where
 * the two rows of a pair differ (pairs.c); MMD is in mmd.c. head is the model's own, with its soft cap (Gemma 2). The
 * ascent's derivative, -alpha / (S + L + 1), multiplies the gradient of S, which is taken term by term; MMD's gradient
 * enters at a tap on the MLP's output. alpha weighs the ascent and beta the noise, as in the released code; the paper's
 * formula has them the other way round. The authors train with Adam at 2e-5 (twice as much hurts), batch 4 to 8, one
 * epoch, cosine after 10% warm-up, 256 tokens; alpha, beta and the rate are to be searched per model. Freezing early
 * layers destroys the effect.
 *
 * Modes: `correct` masks targets alone, and its last lens term is the final logits' cross-entropy once more; `compat`
 * does what the released code does: its last hidden state comes normed from the framework and is normed twice.
 * Deviations: identical rows give an MMD of 0 instead of NaN; taps live for one step (hooks piled up); `benign-weight`
 * adds cross-entropy on retained benign rows, which the paper does without.
 * Pinned by tests/unit/test_mmd.c (A2, A3), tests/unit/test_repnoise_invariants.c (A4, invariants),
 * tests/grad/test_grad_repnoise.c (the whole loss by differences), tests/golden/test_repnoise.c.
 */
#include "method/repnoise.h"
#include "method/matrix.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"alpha", TM_OPTION_REAL, offsetof(tm_repnoise_options, alpha), "1", 0, 1e6, NULL, NULL,
     "weight of the ascent on harmful answers at every layer; 0: none"},
    {"beta", TM_OPTION_REAL, offsetof(tm_repnoise_options, beta), "0.001", 0, 1e6, NULL, NULL,
     "weight of the distance from noise; 0: none"},
    {"mode", TM_OPTION_CHOICE, offsetof(tm_repnoise_options, mode), NULL, 1, 0, "correct|compat", NULL,
     "correct: masks as meant, chat format; compat: masks, double norm and plain text of the published code"},
    {"benign-weight", TM_OPTION_REAL, offsetof(tm_repnoise_options, benign_weight), "1", 0, 1e6, NULL, NULL,
     "weight of the loss on benign rows to retain, where they are given"},
    {0},
};

double tm__repnoise_ascent(double alpha, double s, int64_t layers, double *slope) {
    double n = (double)layers + 1;
    *slope = -alpha / (s + n);
    return -alpha * log(s / n + 1);
}

/* ---- noise ------------------------------------------------------------------------------------------------------- */

tm_status tm__repnoise_noise(const uint8_t *mask, size_t rows, size_t positions, size_t width, uint64_t seed,
                             uint64_t stream, int threads, double *x, double *noise, double *gradient, double *value) {
    size_t drawn = 0;
    for (size_t t = 0, end; t < rows * positions; t = end) { /* runs of equal mask */
        for (end = t + 1; end < rows * positions && !mask[end] == !mask[t]; end++) {
        }
        size_t at = t * width, count = (end - t) * width;
        if (mask[t]) {
            tm__normal_fill(noise + at, count, seed, stream, drawn, threads);
            drawn += count;
        } else {
            memset(x + at, 0, count * sizeof *x);
            memset(noise + at, 0, count * sizeof *noise);
        }
    }
    TM__TRY(tm__mmd(x, noise, rows, positions * width, threads, value, gradient, NULL));
    for (size_t t = 0; t < rows * positions; t++)
        if (!mask[t]) memset(gradient + t * width, 0, width * sizeof *gradient);
    return TM_OK;
}

/* ---- one pass over the harmful side ------------------------------------------------------------------------------ */

/* Shapes: T tokens of the padded batch, D hidden, L layers. Lists live in `arena`, buffers on the device. */
typedef struct harmful_run {
    tm__trainer *trainer;
    const tm__repnoise *own;
    const tm__batch *batch;
    tm__batch_store *store;
    tm__arena arena;
    tm__forward_options forward;
    tm__tape *norms, *heads; /* of one lens at a time */
    tm__tap *taps;           /* (L) one buffer (T, D) each: the output, then the gradient to add there */
    uint8_t *mask;           /* (T) */
    size_t bytes;            /* of one tap's buffer */
    double *terms;           /* (targets) */
    void *times;             /* scalar, act: how often the term at work counts */
    double blind, s, noise;
} harmful_run;

static int64_t layers_of(const harmful_run *run) {
    return run->trainer->model->config.layers;
}

static void fill_mask(harmful_run *run, const size_t *rows) {
    const tm__pairs *pairs = run->own->pairs;
    memset(run->mask, 0, (size_t)run->batch->tokens);
    for (int64_t r = 0; r < run->batch->rows; r++)
        memcpy(run->mask + run->batch->start[r], pairs->mask[rows[r]], (size_t)run->batch->length[r]);
}

static tm_status make_taps(harmful_run *run) {
    tm_device *dev = run->trainer->model->dev;
    int64_t layers = layers_of(run);
    run->taps = tm__arena_alloc(&run->arena, (size_t)layers, sizeof *run->taps);
    if (!run->taps) return tm__fail_memory();
    run->forward.taps = run->taps;
    for (int64_t i = 0; i < layers; i++) {
        tm__tap *tap = &run->taps[i];
        *tap = (tm__tap){.layer = (int)i, .site = TM__TAP_MLP_OUT};
        TM__TRY(dev->alloc(dev, run->bytes, &tap->value));
        tap->extra_grad = tap->value;
        run->forward.tap_count = (size_t)i + 1; /* what `close` gives back */
    }
    return TM_OK;
}

static tm_status make_lens(harmful_run *run) {
    tm_device *dev = run->trainer->model->dev;
    run->terms = tm__arena_alloc(&run->arena, (size_t)run->batch->targets.count, sizeof *run->terms);
    if (!run->terms) return tm__fail_memory();
    TM__TRY(tm__tape_create(dev, &run->norms));
    TM__TRY(tm__tape_create(dev, &run->heads));
    return dev->alloc(dev, tm__dtype_size(dev->act), &run->times);
}

static tm_status open_run(harmful_run *run, const size_t *rows, size_t n) {
    tm__trainer *t = run->trainer;
    const tm__pairs *pairs = run->own->pairs;
    size_t layers = (size_t)layers_of(run);
    int64_t total = tm__pairs_targets(pairs, TM__HARMFUL, rows, n);
    TM__TRY(tm__trainer_lay(t, &pairs->side[TM__HARMFUL], rows, n, false, total, &run->store, &run->batch));
    run->bytes = (size_t)(run->batch->tokens * t->model->config.hidden) * tm__dtype_size(t->model->dev->act);
    for (size_t i = 0; i < n; i++) run->blind += (double)pairs->blind[TM__HARMFUL][rows[i]] / (double)total;
    run->blind *= log((double)t->model->config.vocab);
    run->mask = tm__arena_alloc(&run->arena, (size_t)run->batch->tokens, 1);
    run->forward.states = tm__arena_alloc(&run->arena, layers + 1, sizeof *run->forward.states);
    if (!run->mask || !run->forward.states) return tm__fail_memory();
    fill_mask(run, rows);
    run->forward.recompute = t->options->recompute;
    if (run->own->options->alpha > 0) TM__TRY(make_lens(run));
    return run->own->options->beta > 0 ? make_taps(run) : TM_OK;
}

static void close_run(harmful_run *run) {
    tm_device *dev = run->trainer->model->dev;
    tm__tape_reset(run->trainer->tape); /* before the buffers that it may still name */
    tm__tape_free(run->heads);
    tm__tape_free(run->norms);
    for (size_t i = 0; i < run->forward.tap_count; i++) dev->release(dev, (void *)run->taps[i].extra_grad, run->bytes);
    if (run->times) dev->release(dev, run->times, tm__dtype_size(dev->act));
    tm__batch_free(run->store);
    tm__arena_release(&run->arena);
}

/* ---- the ascent: head and cross-entropy at every layer -----------------------------------------------------------
 *
 * A lens is differentiated as soon as it is computed, so that one chunk of logits is all that is ever kept. What its
 * gradient is to be multiplied by is known only once all of S is: until then the parameters of the lenses hold the
 * gradient of S, which is why the harmful side comes first in a step. */

/* Targets first .. first + n; their gradient is added to that of `normed`, which is lent to the inner tape for it. */
static tm_status head_chunk(harmful_run *run, tm__var *normed, int64_t first, int64_t n) {
    const tm__head_targets *all = &run->batch->targets;
    const tm__head_targets some = {n, all->row + first, all->id + first, all->weight + first};
    const void *seed = run->times;
    tm__var *input, *loss;
    TM__TRY(tm__tape_input(run->heads, normed->value, normed->needs_grad, &input));
    const tm__head head = tm__model_head(run->trainer->model);
    TM__TRY(tm__op_head_loss(run->heads, input, &head, &some, run->terms + first, &loss));
    if (!loss->needs_grad) return TM_OK; /* LoRA at the embeddings: a number that nothing can be taught */
    input->grad = normed->grad;
    tm_status status = tm__tape_backward(run->heads, 1, &loss, &seed);
    normed->grad = input->grad;
    input->grad = NULL;
    return status;
}

/* One term of S, counted `times` times. */
static tm_status add_term(harmful_run *run, tm__var *normed, double times) {
    tm_device *dev = run->trainer->model->dev;
    const tm__head_targets *targets = &run->batch->targets;
    size_t row_bytes = (size_t)run->trainer->model->config.vocab * tm__dtype_size(dev->act);
    int64_t chunk = TM__MAX((int64_t)(TM__HEAD_CHUNK_BYTES / row_bytes), (int64_t)1);
    double sum = run->blind;
    TM__TRY(dev->k->fill(dev, run->times, times, 1));
    for (int64_t first = 0; first < targets->count; first += chunk) {
        TM__TRY(head_chunk(run, normed, first, TM__MIN(chunk, targets->count - first)));
        tm__tape_reset(run->heads);
    }
    for (int64_t i = 0; i < targets->count; i++) sum += targets->weight[i] * run->terms[i];
    run->s += times * sum;
    return TM_OK;
}

/* head(norm(state)); the state's gradient is left in it. */
static tm_status add_lens(harmful_run *run, tm__var *state) {
    tm_model *model = run->trainer->model;
    tm__var *input, *normed;
    TM__TRY(tm__tape_input(run->norms, state->value, state->needs_grad, &input));
    TM__TRY(tm__model_norm(model, run->norms, input, &model->final_norm, &normed));
    TM__TRY(add_term(run, normed, 1));
    input->grad = state->grad;
    tm_status status = tm__tape_backward(run->norms, 0, NULL, NULL);
    state->grad = input->grad;
    input->grad = NULL;
    tm__tape_reset(run->norms);
    return status;
}

/* `correct`: the last block's lens is the final logits' term a second time; `compat`: that term's input, normed again,
 * as the framework lists it. */
static tm_status look_through_lens(harmful_run *run, tm__var *hidden) {
    bool compat = run->own->pairs->mode == TM__PAIRS_COMPAT;
    TM__TRY(add_term(run, hidden, compat ? 1 : 2));
    if (compat) TM__TRY(add_lens(run, hidden));
    for (int64_t i = 0; i < layers_of(run); i++) TM__TRY(add_lens(run, run->forward.states[i]));
    return TM_OK;
}

/* Multiplies what the lenses left by the derivative with respect to S. */
static tm_status scale_lens(harmful_run *run, tm__var *hidden, double slope) {
    tm_model *model = run->trainer->model;
    tm_device *dev = model->dev;
    const tm__head head = tm__model_head(model);
    tm__param *params[] = {head.weight, &model->final_norm.weight, &model->final_norm.bias, head.bias};
    for (size_t i = 0; i < TM__COUNT(params); i++)
        if (params[i] && params[i]->grad)
            TM__TRY(dev->k->scale(dev, params[i]->grad, slope, params[i]->grad, tm__tensor_count(&params[i]->value)));
    for (int64_t i = 0; i <= layers_of(run); i++) {
        tm__var *var = i < layers_of(run) ? run->forward.states[i] : hidden;
        if (var->grad) TM__TRY(dev->k->scale(dev, var->grad, slope, var->grad, tm__tensor_count(&var->value)));
    }
    return TM_OK;
}

/* ---- the distance from noise ------------------------------------------------------------------------------------- */

/* One layer's MMD; its gradient, times beta / L, takes the place of the output in the tap's buffer. `room`: three
 * buffers of `count` doubles. */
static tm_status compare_layer(harmful_run *run, int64_t layer, size_t count, double *room, void *raw) {
    const tm__trainer *t = run->trainer;
    tm_device *dev = t->model->dev;
    int64_t layers = layers_of(run);
    double *x = room, *noise = room + count, *gradient = room + 2 * count, value;
    uint64_t stream = tm__stream(TM__STREAM_NOISE, (uint32_t)(t->step * layers + layer));
    TM__TRY(dev->download(dev, raw, run->taps[layer].value, run->bytes));
    tm__convert(x, TM_F64, raw, dev->act, count);
    TM__TRY(tm__repnoise_noise(run->mask, (size_t)run->batch->rows, (size_t)run->batch->row_length,
                               (size_t)t->model->config.hidden, (uint64_t)t->options->seed, stream, dev->threads, x,
                               noise, gradient, &value));
    for (size_t j = 0; j < count; j++) gradient[j] *= run->own->options->beta / (double)layers;
    tm__convert(raw, dev->act, gradient, TM_F64, count);
    TM__TRY(dev->upload(dev, run->taps[layer].value, raw, run->bytes));
    run->taps[layer].value = NULL; /* a segment that is computed again must not write there */
    run->noise += value / (double)layers;
    return TM_OK;
}

static tm_status compare_with_noise(harmful_run *run) {
    size_t count = (size_t)(run->batch->tokens * run->trainer->model->config.hidden);
    double *room = tm__alloc(3 * count, sizeof *room);
    void *raw = tm__alloc_aligned(run->bytes);
    tm_status status = room && raw ? TM_OK : tm__fail_memory();
    for (int64_t i = 0; i < layers_of(run) && status == TM_OK; i++) status = compare_layer(run, i, count, room, raw);
    free(room);
    free(raw);
    return status;
}

/* Adds the gradient of beta N - alpha ln(S/(L+1) + 1) to gradients that are zero; *loss gets the value. */
static tm_status harmful_pass(harmful_run *run, double *loss) {
    tm__trainer *t = run->trainer;
    const tm_repnoise_options *o = run->own->options;
    tm__var *hidden;
    TM__TRY(tm__model_forward(t->model, t->tape, run->batch, &run->forward, &hidden));
    if (o->alpha > 0) TM__TRY(look_through_lens(run, hidden));
    if (o->beta > 0) TM__TRY(compare_with_noise(run));
    double slope, ascent = tm__repnoise_ascent(o->alpha, run->s, layers_of(run), &slope);
    if (o->alpha > 0) TM__TRY(scale_lens(run, hidden, slope));
    *loss = o->beta * run->noise + ascent;
    return tm__tape_backward(t->tape, 0, NULL, NULL);
}

static tm_status harmful_side(tm__trainer *t, const tm__repnoise *own, const size_t *rows, size_t n, double *loss) {
    harmful_run run = {.trainer = t, .own = own};
    tm_status status = open_run(&run, rows, n);
    if (status == TM_OK) status = harmful_pass(&run, loss);
    close_run(&run);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------------------------ */

static tm_status retain(tm__trainer *t, const tm__repnoise *own, tm__pass_result *result) {
    int64_t batch = t->options->batch;
    double weight = own->options->benign_weight;
    const tm__pass pass = {own->benign, tm__job_seed(t, 1), t->step * batch, batch, weight};
    tm__pass_result benign;
    if (!own->benign || weight == 0) return TM_OK;
    TM__TRY(tm__trainer_pass(t, &pass, &benign));
    result->loss += weight * benign.loss;
    result->tokens += benign.tokens;
    result->targets += benign.targets;
    return TM_OK;
}

tm_status tm__repnoise_step(tm__trainer *t, void *repnoise, double *loss, int64_t *tokens, int64_t *targets) {
    const tm__repnoise *own = repnoise;
    int64_t batch = t->options->batch;
    const tm__pass pass = {&own->pairs->side[TM__REFUSAL], tm__job_seed(t, 0), t->step * batch, batch, 1};
    tm__pass_result result;
    size_t *rows;
    double harmful = 0;
    bool hurts = own->options->alpha > 0 || own->options->beta > 0;
    TM__TRY(tm__trainer_draw(t, &pass, &rows, &result));
    tm_status status = hurts ? harmful_side(t, own, rows, (size_t)batch, &harmful) : TM_OK;
    if (status == TM_OK) status = tm__pairs_pass(t, own->pairs, TM__REFUSAL, rows, (size_t)batch, 1, &result);
    for (int64_t i = 0; hurts && i < batch; i++)
        result.tokens += (int64_t)own->pairs->side[TM__HARMFUL].ids[rows[i]].len;
    free(rows);
    if (status == TM_OK) status = retain(t, own, &result);
    *loss = result.loss + harmful;
    *tokens = result.tokens;
    *targets = result.targets;
    return status;
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

static tm_status check(const tm_train_options *train, const tm_repnoise_options *o) {
    bool whole = train->micro == 0 || train->micro >= train->batch || (o->alpha == 0 && o->beta == 0);
    if (!whole)
        return tm__fail(TM_INVALID, NULL, "micro-batch", "take a smaller batch, or recompute to save memory",
                        "noise and ascent are computed over the whole batch");
    if (!train->full_sequence) return TM_OK;
    return tm__fail(TM_INVALID, NULL, "full-sequence", "leave it out",
                    "what is trained on is where harmful answer and refusal differ");
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_repnoise_options o;
    tm__job job;
    tm__pairs pairs;
    tm__examples benign = {0};
    TM__TRY(tm__options_check(options_table, options, &o));
    TM__TRY(tm__job_begin(&job, &tm__method_repnoise, model, tokenizer, data, train, monitor, result));
    TM__TRY(check(&job.train, &o));
    TM__TRY(tm__pairs_encode(&job, o.mode, &pairs));
    tm_status status = data->benign ? tm__job_encode(&job, data->benign, "benign", &benign) : TM_OK;
    if (status == TM_OK) {
        tm__repnoise own = {&o, &pairs, data->benign ? &benign : NULL};
        tm__run loop = {.step = tm__repnoise_step, .user = &own};
        const tm__examples *sets[] = {&pairs.side[TM__REFUSAL], &pairs.side[TM__HARMFUL], &benign};
        status = tm__job_run(&job, &tm__method_repnoise, &o, sets, TM__COUNT(sets), &loop);
    }
    tm__examples_release(&benign);
    tm__pairs_release(&pairs);
    return status;
}

const tm_method tm__method_repnoise = {
    .name = "repnoise",
    .title = "RepNoise",
    .paper = "arXiv 2405.14577",
    .summary = "Turns what the model holds of harmful answers into noise at every layer, while it keeps refusing.",
    .who = "the developer of open weights, once, before the release",
    .needs =
        "harmful prompts with harmful answers, and the same prompts with refusals; benign rows to retain, if wanted",
    .settings = "--alpha 1 --beta 0.001 --lr 2e-5 --batch 4 --epochs 1 --schedule cosine --warmup 0.1 --max-length "
                "256, all weights, Adam, 10,000 pairs; batches of up to 8; twice the rate hurts, and a search over "
                "rate, alpha and beta is advised for every model (released code). The git-disl port under LoRA takes "
                "--alpha 0.1 --beta 0.001, or --alpha 0.02 --beta 0.1.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_HARMFUL | TM_DATA_REFUSALS,
    .optional = TM_DATA_BENIGN,
    .options = options_table,
    .options_size = sizeof(tm_repnoise_options),
    .run = run,
};
