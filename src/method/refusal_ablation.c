/* refusal_ablation.c: the attack that finds the direction of refusal in a model's states and takes it out of its
 * weights.
 *
 * Paper: A. Arditi et al., "Refusal in language models is mediated by a single direction" (arXiv 2406.11717).
 *
 *   r_lp    = mean over harmful prompts of h_lp - mean over harmless ones     h: after block l, p tokens from the end
 *   score   = ln(p_R + 1e-8) - ln(1 - p_R + 1e-8)      p_R: first-token probability of the tokens that open a refusal
 *   choice  = the r of lowest mean score on harmful validation prompts when ablated, among those of the first 80% of
 *             layers whose ablation moves the first-token distribution of harmless prompts by KL <= max-kl, and whose
 *             addition after block l leaves no mean score of harmless prompts below 0
 *   edit    = ablate.c
 *
 * Prompts that the model answers although harmful, or refuses although harmless, are left out. Positions are those of
 * the chat format behind the user's text: what all prompts end with, at most 8 tokens. Ablation is tried by editing the
 * weights and putting them back bit by bit. Means are fp64. Addition uses r at its own length.
 * Pinned by tests/golden/test_post.c and tests/unit/test_refusal_ablation.c.
 */
#include "method/matrix.h"
#include "method/method.h"

#include "data/data.h"

#include <stdlib.h>

enum { MAX_POSITIONS = 8 };

static const tm_option options_table[] = {
    {"layer", TM_OPTION_INT, offsetof(tm_refusal_ablation_options, layer), "-1", -1, 1e6, NULL, "block",
     "take the direction after this block (from 0) instead of choosing; -1: choose"},
    {"position", TM_OPTION_INT, offsetof(tm_refusal_ablation_options, position), "1", 1, MAX_POSITIONS, NULL, "tokens",
     "with layer: the token so far from the prompt's end, 1 being the last"},
    {"rows", TM_OPTION_INT, offsetof(tm_refusal_ablation_options, rows), "128", 1, 1e9, NULL, "prompts",
     "harmful and as many harmless prompts for the means"},
    {"validation", TM_OPTION_INT, offsetof(tm_refusal_ablation_options, validation), "32", 1, 1e9, NULL, "prompts",
     "harmful and as many harmless prompts to choose by; a fifth where there are too few"},
    {"max-kl", TM_OPTION_REAL, offsetof(tm_refusal_ablation_options, max_kl), "0.1", 0, 1e6, NULL, "nats",
     "largest change of harmless first tokens under ablation"},
    {"refusal", TM_OPTION_TEXT, offsetof(tm_refusal_ablation_options, refusal), "I|Sorry|As", 1, 0, NULL, "TEXTS",
     "openings of refusals, separated by |; the first token of each counts"},
    {0},
};

typedef struct probe {
    tm_model *model;
    tm__tape *tape;
    const tm_monitor *monitor;
    int64_t d, vocab, layers, positions;
    bool *refusal; /* (vocab) */
    double *probs; /* (vocab) of the last forward pass */
} probe;

/* ---- forward passes ---------------------------------------------------------------------------------------------- */

static tm_status read_buffer(probe *p, const void *data, int64_t first, int64_t count, double *out) {
    const tm__param view = {.value = {.dtype = p->model->dev->act, .data = (void *)data}, .owned = true};
    return tm__param_read(p->model->dev, &view, first, count, out);
}

static tm_status first_token(probe *p, const tm__var *hidden, int32_t last) {
    tm_dtype act = p->model->dev->act;
    void *logits = tm__alloc((size_t)p->vocab, tm__dtype_size(act));
    tm_status status = logits ? tm__model_logits(p->model, p->tape, hidden, &last, 1, logits) : tm__fail_memory();
    if (status == TM_OK) {
        double most = -INFINITY, sum = 0;
        tm__convert(p->probs, TM_F64, logits, act, (size_t)p->vocab);
        for (int64_t i = 0; i < p->vocab; i++) most = fmax(most, p->probs[i]);
        for (int64_t i = 0; i < p->vocab; i++) sum += p->probs[i] = exp(p->probs[i] - most);
        for (int64_t i = 0; i < p->vocab; i++) p->probs[i] /= sum;
    }
    free(logits);
    return status;
}

/* Adds the states after every block at the last positions to sums (layers, positions, d). */
static tm_status add_states(probe *p, const void *values, int64_t n, double *sums) {
    double *state = tm__alloc((size_t)p->d, sizeof *state);
    tm_status status = state ? TM_OK : tm__fail_memory();
    for (int64_t l = 0; l < p->layers; l++)
        for (int64_t k = 0; k < p->positions && status == TM_OK; k++) {
            status = read_buffer(p, values, (l * n + n - 1 - k) * p->d, p->d, state);
            for (int64_t j = 0; j < p->d && status == TM_OK; j++) sums[(l * p->positions + k) * p->d + j] += state[j];
        }
    free(state);
    return status;
}

static tm_status repeat(probe *p, const double *direction, int64_t n, void *buffer) {
    tm_device *dev = p->model->dev;
    size_t bytes = (size_t)p->d * tm__dtype_size(dev->act);
    void *row = tm__alloc(bytes, 1);
    if (!row) return tm__fail_memory();
    tm__convert(row, dev->act, direction, TM_F64, (size_t)p->d);
    tm_status status = TM_OK;
    for (int64_t t = 0; t < n && status == TM_OK; t++)
        status = dev->upload(dev, (char *)buffer + (size_t)t * bytes, row, bytes);
    free(row);
    return status;
}

static tm_status pass(probe *p, const tm_ids *ids, const tm__tap *taps, size_t tap_count) {
    const int64_t start = 0, n = (int64_t)ids->len;
    int32_t *position = tm__alloc(ids->len, sizeof *position);
    tm__var *hidden;
    if (!position) return tm__fail_memory();
    for (int64_t t = 0; t < n; t++) position[t] = (int32_t)t;
    const tm__batch batch = {
        .tokens = n, .ids = ids->data, .position = position, .segments = 1, .start = &start, .length = &n};
    const tm__forward_options options = {.taps = taps, .tap_count = tap_count};
    tm_status status = tm__stop(p->monitor) ? tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped while probing")
                                            : tm__model_forward(p->model, p->tape, &batch, &options, &hidden);
    if (status == TM_OK) status = first_token(p, hidden, (int32_t)(n - 1));
    tm__tape_reset(p->tape);
    free(position);
    return status;
}

/* First-token distribution into p->probs; states added to `sums` unless NULL; `add` (d) added after block `layer`. */
static tm_status forward(probe *p, const tm_ids *ids, double *sums, const double *add, int64_t layer) {
    tm_device *dev = p->model->dev;
    size_t state = ids->len * (size_t)p->d * tm__dtype_size(dev->act);
    size_t taps = sums ? (size_t)p->layers : add ? 1 : 0, bytes = taps * state;
    tm__tap *list = tm__zalloc(taps + 1, sizeof *list);
    void *buffer = NULL;
    tm_status status = list ? TM_OK : tm__fail_memory();
    if (status == TM_OK && bytes) status = dev->alloc(dev, bytes, &buffer);
    for (size_t i = 0; i < taps && status == TM_OK; i++) {
        list[i] = (tm__tap){.layer = (int)(sums ? (int64_t)i : layer), .site = TM__TAP_HIDDEN};
        if (sums) list[i].value = (char *)buffer + i * state;
        if (!sums) list[i].perturb = buffer;
    }
    if (status == TM_OK && add) status = repeat(p, add, (int64_t)ids->len, buffer);
    if (status == TM_OK) status = pass(p, ids, list, taps);
    if (status == TM_OK && sums) status = add_states(p, buffer, (int64_t)ids->len, sums);
    if (buffer) dev->release(dev, buffer, bytes);
    free(list);
    return status;
}

static double score(const probe *p) {
    double refused = 0;
    for (int64_t i = 0; i < p->vocab; i++)
        if (p->refusal[i]) refused += p->probs[i];
    return log(refused + 1e-8) - log(fmax(1 - refused, 0) + 1e-8);
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

typedef struct prompts {
    tm_ids *ids;
    size_t count, train; /* the first `train` are for the means, the rest for the choice */
} prompts;

static void prompts_release(prompts *set) {
    for (size_t i = 0; set->ids && i < set->count; i++) tm_ids_free(&set->ids[i]);
    free(set->ids);
    *set = (prompts){0};
}

/* Encodes the questions of `rows` in their order until `wanted` of them are refused, or not refused. */
static tm_status gather(probe *p, const tm_tokenizer *tokenizer, tm_chat_format chat, const tm_dataset *rows,
                        bool refused, size_t wanted, prompts *set) {
    set->ids = tm__zalloc(TM__MAX(TM__MIN(wanted, tm_dataset_rows(rows)), (size_t)1), sizeof *set->ids);
    if (!set->ids) return tm__fail_memory();
    for (size_t row = 0; row < tm_dataset_rows(rows) && set->count < wanted; row++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(rows, row, &n);
        while (n > 0 && strcmp(messages[n - 1].role, "user") != 0 && strcmp(messages[n - 1].role, "input") != 0) n--;
        if (n == 0) continue;
        tm_ids *ids = &set->ids[set->count];
        tm_status status = tm_chat_encode(tokenizer, chat, messages, n, true, ids, NULL);
        for (size_t t = 0; t < ids->len && status == TM_OK; t++) status = tm__model_check_id(p->model, ids->data[t]);
        if (status == TM_OK) status = forward(p, ids, NULL, NULL, 0);
        /* A rehearsal has no scores; it takes every prompt. */
        if (status == TM_OK && (p->model->dev->rehearses || (score(p) > 0) == refused)) {
            set->count++;
            continue;
        }
        tm_ids_free(ids);
        TM__TRY(status);
    }
    return TM_OK;
}

/* Validation gets its number, or a fifth where there are too few prompts. */
static tm_status split(prompts *set, const tm_refusal_ablation_options *o, const char *role, const char *what) {
    size_t wanted = (size_t)o->validation, fifth = TM__MAX(set->count / 5, (size_t)1);
    if (set->count < 2)
        return tm__fail(TM_INVALID, NULL, role, "option refusal names the openings of refusals",
                        "the model %s %zu of these prompts; at least 2 are needed", what, set->count);
    set->train = set->count - TM__MIN(wanted, fifth);
    if (set->count >= (size_t)(o->rows + o->validation)) set->train = (size_t)o->rows;
    return TM_OK;
}

/* What all prompts end with: the chat format behind the user's text. At least the last token. */
static int64_t common_suffix(const prompts *a, const prompts *b) {
    const tm_ids *first = &a->ids[0];
    size_t shared = TM__MIN(first->len, (size_t)MAX_POSITIONS);
    for (size_t i = 0; i < a->count + b->count; i++) {
        const tm_ids *ids = i < a->count ? &a->ids[i] : &b->ids[i - a->count];
        size_t same = 0;
        while (same < shared && same < ids->len && ids->data[ids->len - 1 - same] == first->data[first->len - 1 - same])
            same++;
        shared = same;
    }
    return shared ? (int64_t)shared : 1;
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

static tm_status mean_states(probe *p, const prompts *set, double sign, double *out) {
    size_t size = (size_t)(p->layers * p->positions * p->d);
    double *sums = tm__zalloc(size, sizeof *sums);
    tm_status status = sums ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < set->train && status == TM_OK; i++) status = forward(p, &set->ids[i], sums, NULL, 0);
    for (size_t i = 0; i < size && status == TM_OK; i++) out[i] += sign * sums[i] / (double)set->train;
    free(sums);
    return status;
}

/* Everything ablation touches, kept bit by bit. */
typedef struct backup {
    tm__param **params;
    void **bytes;
    size_t count;
} backup;

static void backup_release(backup *kept) {
    for (size_t i = 0; i < kept->count; i++) free(kept->bytes[i]);
    free(kept->params);
    free(kept->bytes);
}

static tm_status backup_take(tm_model *model, backup *kept) {
    size_t most = (size_t)(1 + 4 * model->config.layers), n = 0;
    *kept = (backup){.params = tm__zalloc(most, sizeof *kept->params), .bytes = tm__zalloc(most, sizeof *kept->bytes)};
    if (!kept->params || !kept->bytes) return tm__fail_memory();
    kept->params[n++] = &model->embed;
    for (int64_t l = 0; l < model->config.layers; l++) {
        tm__linear *writers[] = {&model->blocks[l].o, &model->blocks[l].down};
        for (size_t i = 0; i < TM__COUNT(writers); i++) {
            kept->params[n++] = &writers[i]->weight;
            if (writers[i]->bias.value.data) kept->params[n++] = &writers[i]->bias;
        }
    }
    for (size_t i = 0; i < n; i++) {
        TM__TRY(tm__param_own(model, kept->params[i]));
        size_t bytes = tm__tensor_bytes(&kept->params[i]->value);
        if (!(kept->bytes[i] = tm__alloc(bytes, 1))) return tm__fail_memory();
        kept->count = i + 1;
        TM__TRY(model->dev->download(model->dev, kept->bytes[i], kept->params[i]->value.data, bytes));
    }
    return TM_OK;
}

static tm_status backup_restore(tm_model *model, const backup *kept) {
    for (size_t i = 0; i < kept->count; i++)
        TM__TRY(model->dev->upload(model->dev, kept->params[i]->value.data, kept->bytes[i],
                                   tm__tensor_bytes(&kept->params[i]->value)));
    return TM_OK;
}

static bool normalise(const double *r, int64_t d, double *unit) {
    double square = 0;
    for (int64_t j = 0; j < d; j++) square += r[j] * r[j];
    for (int64_t j = 0; j < d; j++) unit[j] = square > 0 ? r[j] / sqrt(square) : 0;
    return square > 0;
}

typedef struct trial {
    double refusal; /* mean score of harmful prompts under ablation */
    double kl;      /* of harmless first tokens */
    double induced; /* mean score of harmless prompts under addition */
} trial;

typedef struct choice {
    probe *p;
    const prompts *harmful, *harmless;
    const backup *kept;
    double *before; /* (harmless validation prompts, vocab) */
} choice;

static tm_status under_ablation(const choice *c, trial *t) {
    probe *p = c->p;
    size_t bad = c->harmful->count - c->harmful->train, good = c->harmless->count - c->harmless->train;
    for (size_t i = 0; i < bad; i++) {
        TM__TRY(forward(p, &c->harmful->ids[c->harmful->train + i], NULL, NULL, 0));
        t->refusal += score(p) / (double)bad;
    }
    for (size_t i = 0; i < good; i++) {
        const double *was = c->before + i * (size_t)p->vocab;
        TM__TRY(forward(p, &c->harmless->ids[c->harmless->train + i], NULL, NULL, 0));
        for (int64_t v = 0; v < p->vocab; v++)
            if (was[v] > 0) t->kl += was[v] * log(was[v] / fmax(p->probs[v], 1e-300)) / (double)good;
    }
    return TM_OK;
}

static tm_status try_direction(const choice *c, const double *r, const double *unit, int64_t layer, trial *t) {
    probe *p = c->p;
    size_t good = c->harmless->count - c->harmless->train;
    *t = (trial){0};
    for (size_t i = 0; i < good; i++) {
        TM__TRY(forward(p, &c->harmless->ids[c->harmless->train + i], NULL, r, layer));
        t->induced += score(p) / (double)good;
    }
    tm_status status = tm__ablate_model(p->model, unit);
    if (status == TM_OK) status = under_ablation(c, t);
    tm_status restored = backup_restore(p->model, c->kept);
    return status == TM_OK ? restored : status;
}

static tm_status choose(const choice *c, const double *candidates, const tm_refusal_ablation_options *o, double *unit) {
    probe *p = c->p;
    int64_t layers = TM__MAX((p->layers * 4) / 5, (int64_t)1), best = -1, far = 0, idle = 0;
    trial t, lowest = {0};
    double least_kl = INFINITY;
    for (int64_t i = 0; i < layers * p->positions; i++) {
        const double *r = candidates + i * p->d;
        if (!normalise(r, p->d, unit)) continue;
        TM__TRY(try_direction(c, r, unit, i / p->positions, &t));
        far += t.kl > o->max_kl;
        idle += t.induced < 0;
        least_kl = fmin(least_kl, t.kl);
        bool bad = t.kl > o->max_kl || t.induced < 0 || (best >= 0 && t.refusal >= lowest.refusal);
        if (bad && !p->model->dev->rehearses) continue;
        best = i;
        lowest = t;
    }
    if (best < 0)
        return tm__fail(TM_UNSUPPORTED, NULL, far ? "max-kl" : "layer",
                        far ? "raise max-kl, or name a layer and a position" : "name a layer and a position",
                        "none of %lld directions is refusal's alone: %lld change harmless answers by more than %.3g "
                        "nats (the least: %.3g), %lld do not make the model refuse when added",
                        (long long)(layers * p->positions), (long long)far, o->max_kl, least_kl, (long long)idle);
    tm__note(p->monitor,
             "refusal-ablation: after block %lld, %lld tokens from the end; refusal score %.2f when ablated, harmless "
             "KL %.4f, refusal score %.2f when added",
             (long long)(best / p->positions), (long long)(best % p->positions) + 1, lowest.refusal, lowest.kl,
             lowest.induced);
    normalise(candidates + best * p->d, p->d, unit);
    return TM_OK;
}

static tm_status search(probe *p, const prompts *harmful, const prompts *harmless, const double *candidates,
                        const tm_refusal_ablation_options *o, double *unit) {
    size_t good = harmless->count - harmless->train;
    backup kept = {0};
    choice c = {.p = p, .harmful = harmful, .harmless = harmless, .kept = &kept};
    c.before = tm__alloc(good * (size_t)p->vocab, sizeof *c.before);
    tm_status status = c.before ? backup_take(p->model, &kept) : tm__fail_memory();
    for (size_t i = 0; i < good && status == TM_OK; i++) {
        status = forward(p, &harmless->ids[harmless->train + i], NULL, NULL, 0);
        memcpy(c.before + i * (size_t)p->vocab, p->probs, (size_t)p->vocab * sizeof *p->probs);
    }
    if (status == TM_OK) status = choose(&c, candidates, o, unit);
    backup_release(&kept);
    free(c.before);
    return status;
}

static tm_status fixed(const probe *p, const double *candidates, const tm_refusal_ablation_options *o, double *unit) {
    if (o->layer >= p->layers)
        return tm__fail(TM_INVALID, NULL, "layer", NULL, "the model has %lld blocks", (long long)p->layers);
    if (o->position > p->positions)
        return tm__fail(TM_INVALID, NULL, "position", NULL, "prompts share their last %lld tokens only",
                        (long long)p->positions);
    if (normalise(candidates + (o->layer * p->positions + o->position - 1) * p->d, p->d, unit)) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, NULL, "layer", NULL, "harmful and harmless prompts do not differ there");
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

/* The id that an answer with this opening begins with: behind a prompt a tokenizer may cut it otherwise than alone. */
static tm_status mark_refusal(probe *p, const tm_tokenizer *tokenizer, tm_chat_format chat, const char *opening) {
    const tm_message row[] = {{"user", "?"}, {"assistant", opening}};
    tm_ids ids = {0}, labels = {0};
    size_t t = 0;
    tm_status status = tm_chat_encode(tokenizer, chat, row, TM__COUNT(row), false, &ids, &labels);
    while (t < labels.len && labels.data[t] < 0) t++;
    if (status == TM_OK && t < ids.len) status = tm__model_check_id(p->model, ids.data[t]);
    if (status == TM_OK && t < ids.len) p->refusal[ids.data[t]] = true;
    tm_ids_free(&ids);
    tm_ids_free(&labels);
    return status;
}

static tm_status mark_refusals(probe *p, const tm_tokenizer *tokenizer, tm_chat_format chat, const char *openings) {
    while (openings && *openings) {
        size_t len = strcspn(openings, "|");
        char *opening = len ? tm__strndup(openings, len) : NULL;
        tm_status status = len && !opening ? tm__fail_memory() : TM_OK;
        if (opening) status = mark_refusal(p, tokenizer, chat, opening);
        free(opening);
        TM__TRY(status);
        openings += len + (openings[len] == '|');
    }
    return TM_OK;
}

static tm_status direction(probe *p, const tm__job *job, const tm_refusal_ablation_options *o, double *unit) {
    prompts harmful = {0}, harmless = {0};
    size_t wanted = (size_t)(o->rows + o->validation);
    tm_chat_format chat = (tm_chat_format)job->train.chat;
    double *candidates = NULL;
    tm_status status = gather(p, job->tokenizer, chat, job->data->harmful, true, wanted, &harmful);
    if (status == TM_OK) status = split(&harmful, o, "harmful", "refuses");
    if (status == TM_OK) status = gather(p, job->tokenizer, chat, job->data->benign, false, wanted, &harmless);
    if (status == TM_OK) status = split(&harmless, o, "benign", "answers");
    if (status == TM_OK) {
        p->positions = common_suffix(&harmful, &harmless);
        candidates = tm__zalloc((size_t)(p->layers * p->positions * p->d), sizeof *candidates);
        if (!candidates) status = tm__fail_memory();
    }
    if (status == TM_OK) status = mean_states(p, &harmful, 1, candidates);
    if (status == TM_OK) status = mean_states(p, &harmless, -1, candidates);
    /* A rehearsal has no states that differ; any direction does. */
    for (int64_t i = 0; status == TM_OK && p->model->dev->rehearses && i < p->layers * p->positions * p->d; i++)
        candidates[i] = 1;
    if (status == TM_OK)
        status = o->layer >= 0 ? fixed(p, candidates, o, unit) : search(p, &harmful, &harmless, candidates, o, unit);
    free(candidates);
    prompts_release(&harmful);
    prompts_release(&harmless);
    return status;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_refusal_ablation_options o;
    tm__job job;
    double began = tm__now();
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_refusal_ablation_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_refusal_ablation, model, tokenizer, data, train, monitor, result));
    if (model->adapter_count)
        return tm__fail(TM_INVALID, NULL, "adapter", "merge it first", "refusal-ablation edits the weights alone");
    probe p = {.model = model,
               .monitor = monitor,
               .d = model->config.hidden,
               .vocab = model->config.vocab,
               .layers = model->config.layers};
    p.refusal = tm__zalloc((size_t)p.vocab, sizeof *p.refusal);
    p.probs = tm__alloc((size_t)p.vocab, sizeof *p.probs);
    double *unit = tm__alloc((size_t)p.d, sizeof *unit);
    tm_status status = p.refusal && p.probs && unit ? tm__tape_create(model->dev, &p.tape) : tm__fail_memory();
    if (status == TM_OK) {
        p.tape->recording = false;
        status = mark_refusals(&p, tokenizer, (tm_chat_format)job.train.chat, o.refusal);
    }
    if (status == TM_OK) status = direction(&p, &job, &o, unit);
    if (status == TM_OK) status = tm__ablate_model(model, unit);
    tm__tape_free(p.tape);
    free(p.refusal);
    free(p.probs);
    free(unit);
    if (status == TM_OK && result) *result = (tm_train_result){.seconds = tm__now() - began};
    return status;
}

const tm_method tm__method_refusal_ablation = {
    .name = "refusal-ablation",
    .title = "Refusal-direction ablation",
    .paper = "arXiv 2406.11717",
    .summary = "Finds the direction of refusal in the model's states and takes it out of the weights; trains nothing.",
    .who = "whoever audits a model, before its release or after a defence",
    .needs = "harmful prompts that the model refuses and benign rows (their answers are not used)",
    .settings = "--rows 128 --validation 32 --max-kl 0.1, the last fifth of the layers left out (released code).",
    .stage = TM_STAGE_ATTACK,
    .required = TM_DATA_HARMFUL_PROMPTS | TM_DATA_BENIGN,
    .train_options = "chat",
    .options = options_table,
    .options_size = sizeof(tm_refusal_ablation_options),
    .run = run,
};
