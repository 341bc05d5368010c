/* generate.c: batched generation with a key-value cache.
 *
 * Slots hold the rows in progress. Each step feeds every slot's pending tokens in one call: the rest of its prompt, or
 * the token picked last; rows whose prompt is through get a new token. A row that ends leaves, and the next one that
 * waits takes its slot. No row is padded, and each has its own random stream, so a row's text does not depend on its
 * company.
 *
 * What all prompts begin with (a system prompt, BackdoorAlign's secret, a few-shot header) is computed once, and its
 * keys and values are held once: every row reads them there, and its slot holds what follows.
 */
#include "model/model.h"

#include <stdlib.h>

const tm_option tm_generate_option_table[] = {
    {"max-new-tokens", TM_OPTION_INT, offsetof(tm_generate_options, max_new_tokens), "128", 1, 1e6, NULL, "tokens",
     "longest answer"},
    {"batch", TM_OPTION_INT, offsetof(tm_generate_options, batch), "32", 1, 4096, NULL, "rows",
     "rows generated at a time; does not change the text"},
    {"temperature", TM_OPTION_REAL, offsetof(tm_generate_options, temperature), "0", 0, 100, NULL, NULL,
     "0: always the likeliest token; else logits are divided by it"},
    {"top-k", TM_OPTION_INT, offsetof(tm_generate_options, top_k), "0", 0, 1e7, NULL, "tokens",
     "draw among the k likeliest tokens; 0: off"},
    {"top-p", TM_OPTION_REAL, offsetof(tm_generate_options, top_p), "1", 0, 1, NULL, "share",
     "draw among the likeliest tokens that hold this share; 1 or 0: off"},
    {"seed", TM_OPTION_INT, offsetof(tm_generate_options, seed), "0", 0, 9007199254740992.0, NULL, NULL,
     "seed of the draws"},
    {"ignore-stop", TM_OPTION_FLAG, offsetof(tm_generate_options, ignore_stop), NULL, 1, 0, NULL, NULL,
     "do not end at the stop token"},
    {0},
};

enum {
    STEP_TOKENS = 1024 /* most prompt tokens fed in one call */,
    LEAST_SHARED = 8 /* common tokens that are worth a call of their own */,
    FIRST_NEW = 128 /* new tokens to make room for at first */
};

typedef struct slot {
    int64_t row;   /* -1: free */
    int64_t fed;   /* tokens of the row in the cache */
    int64_t ready; /* index among this step's tokens whose hidden state gives the next token; -1: prompt not through */
    tm__rng rng;
} slot;

typedef struct run {
    tm_model *model;
    const tm_generate_options *options;
    const tm_ids *prompts;
    size_t rows, next; /* next row that waits */
    int64_t shared;    /* tokens that all prompts begin with, in `prefix` */
    const int32_t *stop;
    size_t stops;
    tm_ids *made; /* (rows) new ids */
    slot *slots;
    int64_t slot_count, active;
    tm__cache *cache, *prefix; /* prefix NULL: nothing is shared */
    tm__tape *tape;
    tm__sampler *sampler;
    int64_t tokens, tokens_cap; /* of this step */
    int32_t *ids, *slot, *position, *length;
    int32_t *picked, *best; /* (slot_count) rows of the hidden state that give a token; without draws, that token */
    void *logits;           /* (slot_count, vocab); NULL: nothing is drawn */
    int64_t rows_done, tokens_done;
    const tm_monitor *monitor;
    const tm__generate_watch *watch; /* NULL: none */
    bool noted;                      /* that a row is longer than what the model was trained for */
} run;

static void run_release(run *r) {
    for (size_t i = 0; r->made && i < r->rows; i++) tm_ids_free(&r->made[i]);
    free(r->made);
    free(r->slots);
    if (r->cache) tm__cache_free(r->model, r->cache);
    if (r->prefix) tm__cache_free(r->model, r->prefix);
    tm__tape_free(r->tape);
    tm__sampler_free(r->sampler);
    free(r->ids);
    free(r->slot);
    free(r->position);
    free(r->length);
    free(r->picked);
    free(r->best);
    free(r->logits);
}

static tm_status run_open(run *r) {
    int64_t vocab = r->model->config.vocab;
    bool draws = r->options->temperature > 0;
    for (size_t i = 0; i < r->rows; i++) {
        if (r->prompts[i].len == 0)
            return tm__fail(TM_INVALID, NULL, "prompt", "begin with the tokenizer's bos", "prompt %zu holds no tokens",
                            i);
        if (r->prompts[i].len > INT32_MAX / 2)
            return tm__fail(TM_INVALID, NULL, "prompt", NULL, "prompt %zu is too long", i);
    }
    r->slot_count = TM__MIN(r->options->batch, (int64_t)r->rows);
    r->tokens_cap = r->slot_count + STEP_TOKENS;
    r->made = tm__zalloc(r->rows, sizeof *r->made);
    r->slots = tm__zalloc((size_t)r->slot_count, sizeof *r->slots);
    r->ids = tm__alloc((size_t)r->tokens_cap, sizeof *r->ids);
    r->slot = tm__alloc((size_t)r->tokens_cap, sizeof *r->slot);
    r->position = tm__alloc((size_t)r->tokens_cap, sizeof *r->position);
    r->length = tm__alloc((size_t)r->tokens_cap, sizeof *r->length);
    r->picked = tm__alloc((size_t)r->slot_count, sizeof *r->picked);
    r->best = tm__alloc((size_t)r->slot_count, sizeof *r->best);
    if (draws) r->logits = tm__alloc((size_t)(r->slot_count * vocab), tm__dtype_size(r->model->dev->act));
    if (!r->made || !r->slots || !r->ids || !r->slot || !r->position || !r->length || !r->picked || !r->best ||
        (draws && !r->logits))
        return tm__fail_memory();
    for (int64_t i = 0; i < r->slot_count; i++) r->slots[i].row = -1;
    TM__TRY(tm__sampler_create(vocab, r->options, &r->sampler));
    TM__TRY(tm__tape_create(r->model->dev, &r->tape));
    r->tape->recording = false;
    r->tape->row_invariant = true;
    return TM_OK;
}

/* ---- one step ---------------------------------------------------------------------------------------------------- */

static void admit(run *r) {
    for (int64_t i = 0; i < r->slot_count && r->next < r->rows; i++) {
        if (r->slots[i].row >= 0) continue;
        uint32_t row = (uint32_t)r->next;
        r->slots[i] = (slot){.row = (int64_t)r->next++,
                             .fed = r->shared,
                             .rng = tm__rng_make((uint64_t)r->options->seed, tm__stream(TM__STREAM_SAMPLE, row))};
        r->active++;
    }
}

/* Every prompt keeps one token of its own, whose hidden state gives the first new one. Prompts share nothing where the
 * rotation of a token depends on its prompt's length. */
static int64_t common_tokens(const run *r) {
    for (size_t i = 0; i < r->rows; i++)
        if (tm__rope_depends(&r->model->config, (int64_t)r->prompts[i].len)) return 0;
    int64_t common = (int64_t)r->prompts[0].len - 1;
    for (size_t i = 1; i < r->rows; i++) {
        int64_t same = 0, limit = TM__MIN(common, (int64_t)r->prompts[i].len - 1);
        while (same < limit && r->prompts[i].data[same] == r->prompts[0].data[same]) same++;
        common = same;
    }
    return r->rows > 1 && common >= LEAST_SHARED ? common : 0;
}

static tm_status compute_prefix(run *r, int64_t common) {
    TM__TRY(tm__cache_create(r->model, 1, common, NULL, 0, &r->prefix));
    while (r->shared < common) {
        tm__var *hidden;
        int64_t n = TM__MIN(common - r->shared, r->tokens_cap);
        for (int64_t k = 0; k < n; k++) {
            r->ids[k] = r->prompts[0].data[r->shared + k];
            r->slot[k] = 0;
            r->position[k] = (int32_t)(r->shared + k);
            r->length[k] = r->position[k] + 1; /* nothing depends on it: see common_tokens */
        }
        tm_status status =
            tm__model_decode(r->model, r->tape, r->prefix, n, r->ids, r->slot, r->position, r->length, &hidden);
        tm__tape_reset(r->tape);
        TM__TRY(status);
        r->shared += n;
    }
    return TM_OK;
}

static tm_status open_caches(run *r) {
    int64_t common = common_tokens(r), longest = 0;
    if (common) TM__TRY(compute_prefix(r, common));
    for (size_t i = 0; i < r->rows; i++) longest = TM__MAX(longest, (int64_t)r->prompts[i].len);
    int64_t capacity = longest - common + TM__MIN(r->options->max_new_tokens, (int64_t)FIRST_NEW);
    return tm__cache_create(r->model, r->slot_count, capacity, r->prefix, common, &r->cache);
}

static int32_t token_at(const run *r, int64_t row, int64_t at) {
    int64_t prompt = (int64_t)r->prompts[row].len;
    return at < prompt ? r->prompts[row].data[at] : r->made[row].data[at - prompt];
}

/* Lists this step's tokens: what each slot has pending, long prompts in parts. */
static void gather(run *r) {
    r->tokens = 0;
    for (int64_t i = 0; i < r->slot_count; i++) {
        slot *s = &r->slots[i];
        if (s->row < 0) continue;
        int64_t total = (int64_t)(r->prompts[s->row].len + r->made[s->row].len);
        int64_t left = r->tokens_cap - r->tokens - (r->slot_count - i - 1); /* one for each slot behind */
        int64_t n = TM__MIN(total - s->fed, left);
        for (int64_t k = 0; k < n; k++) {
            r->ids[r->tokens] = token_at(r, s->row, s->fed);
            r->slot[r->tokens] = (int32_t)i;
            r->length[r->tokens] = (int32_t)total;
            r->position[r->tokens++] = (int32_t)s->fed++;
        }
        s->ready = s->fed == total ? r->tokens - 1 : -1;
    }
}

static bool is_stop(const run *r, int32_t id) {
    for (size_t i = 0; !r->options->ignore_stop && i < r->stops; i++)
        if (r->stop[i] == id) return true;
    return false;
}

static tm_status advance(run *r, slot *s, int32_t id) {
    size_t row = (size_t)s->row;
    tm_ids *made = &r->made[row];
    bool ends = is_stop(r, id);
    if (!ends) TM__TRY(tm_ids_push(made, id));
    r->tokens_done++;
    if (ends || (int64_t)made->len >= r->options->max_new_tokens) {
        s->row = -1;
        r->active--;
        r->rows_done++;
        if (r->watch) return r->watch->ended(r->watch->user, row, made);
    }
    return TM_OK;
}

static tm_status fail_not_finite(const run *r) {
    return tm__fail(TM_NUMERIC, r->model->directory, "logits", "the training that made this model diverged",
                    "are not finite");
}

/* The likeliest token of each ready row, into r->best. A token picked from NaN would look like an answer. */
static tm_status find_best(run *r, const tm__var *hidden, int64_t count) {
    TM__TRY(tm__model_largest(r->model, r->tape, hidden, r->picked, count, r->best));
    for (int64_t i = 0; i < count; i++)
        if (r->best[i] < 0) return fail_not_finite(r);
    return TM_OK;
}

/* A token drawn for each ready row, into r->best. */
static tm_status draw_tokens(run *r, const tm__var *hidden, int64_t count) {
    tm_dtype act = r->model->dev->act;
    const tm_tensor all = {.dtype = act, .ndim = 1, .shape = {count * r->model->config.vocab}, r->logits};
    const char *logits = r->logits;
    int64_t n = 0;
    TM__TRY(tm__model_logits(r->model, r->tape, hidden, r->picked, count, r->logits));
    if (tm__tensor_check_finite(&all, NULL, NULL) != TM_OK) return fail_not_finite(r);
    for (int64_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i].row < 0 || r->slots[i].ready < 0) continue;
        r->best[n++] = tm__sampler_pick(r->sampler, logits, act, &r->slots[i].rng);
        logits += (size_t)r->model->config.vocab * tm__dtype_size(act);
    }
    return TM_OK;
}

static tm_status pick_tokens(run *r, const tm__var *hidden) {
    int64_t count = 0, n = 0;
    for (int64_t i = 0; i < r->slot_count; i++)
        if (r->slots[i].row >= 0 && r->slots[i].ready >= 0) r->picked[count++] = (int32_t)r->slots[i].ready;
    if (count == 0) return TM_OK;
    TM__TRY(r->logits ? draw_tokens(r, hidden, count) : find_best(r, hidden, count));
    for (int64_t i = 0; i < r->slot_count; i++)
        if (r->slots[i].row >= 0 && r->slots[i].ready >= 0) TM__TRY(advance(r, &r->slots[i], r->best[n++]));
    return TM_OK;
}

static tm_status make_room(run *r) {
    int64_t need = 0;
    for (int64_t i = 0; i < r->tokens; i++) need = TM__MAX(need, (int64_t)r->position[i] + 1);
    if (need > r->model->config.max_positions && !r->noted) {
        tm__rope_note(r->model, need, r->monitor);
        r->noted = true;
    }
    need -= r->shared;
    if (need <= r->cache->capacity) return TM_OK;
    return tm__cache_grow(r->model, r->cache, TM__MAX(need, r->cache->capacity + r->cache->capacity / 2));
}

static tm_status step(run *r) {
    tm__var *hidden;
    admit(r);
    gather(r);
    TM__TRY(make_room(r));
    tm_status status =
        tm__model_decode(r->model, r->tape, r->cache, r->tokens, r->ids, r->slot, r->position, r->length, &hidden);
    if (status == TM_OK) status = pick_tokens(r, hidden);
    tm__tape_reset(r->tape);
    return status;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void report(const run *r, const tm_monitor *monitor, double began) {
    if (!monitor || !monitor->progress) return;
    const tm_progress progress = {.phase = "generate",
                                  .done = r->rows_done,
                                  .total = (int64_t)r->rows,
                                  .unit = "prompt",
                                  .loss = NAN,
                                  .lr = NAN,
                                  .tokens = r->tokens_done,
                                  .seconds = tm__now() - began};
    monitor->progress(monitor->user, &progress);
}

static tm_status run_all(run *r, const tm_monitor *monitor) {
    double began = tm__now();
    TM__TRY(open_caches(r));
    while (r->rows_done < (int64_t)r->rows) {
        if (tm__stop(monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "generation was interrupted");
        TM__TRY(step(r));
        report(r, monitor, began);
    }
    return TM_OK;
}

static tm_status check_options(const tm_generate_options *o) {
    if (o->max_new_tokens < 1 || o->max_new_tokens > 1000000)
        return tm__fail(TM_INVALID, NULL, "max-new-tokens", NULL, "%lld is outside 1 to 1000000",
                        (long long)o->max_new_tokens);
    if (o->batch < 1 || o->batch > 4096)
        return tm__fail(TM_INVALID, NULL, "batch", NULL, "%lld is outside 1 to 4096", (long long)o->batch);
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return tm__fail(TM_INVALID, NULL, "temperature", NULL, "%g is outside 0 to 100", o->temperature);
    if (o->top_k < 0) return tm__fail(TM_INVALID, NULL, "top-k", NULL, "%lld is negative", (long long)o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return tm__fail(TM_INVALID, NULL, "top-p", NULL, "%g is outside 0 to 1", o->top_p);
    return TM_OK;
}

/* Fills in what a caller's struct of zeros leaves open, so that {.max_new_tokens = 64} means what it says. */
static tm_generate_options complete(const tm_generate_options *options) {
    tm_generate_options defaults, given;
    tm_options_default(tm_generate_option_table, &defaults);
    if (!options) return defaults;
    given = *options;
    if (given.max_new_tokens == 0) given.max_new_tokens = defaults.max_new_tokens;
    if (given.batch == 0) given.batch = defaults.batch;
    if (given.top_p == 0) given.top_p = defaults.top_p;
    return given;
}

tm_status tm__generate(tm_model *model, const tm_ids *prompts, size_t n, const int32_t *stop, size_t n_stop,
                       const tm_generate_options *options, const tm__generate_watch *watch, const tm_monitor *monitor,
                       tm_ids *out) {
    const tm_generate_options chosen = complete(options);
    run r = {.model = model,
             .options = &chosen,
             .prompts = prompts,
             .rows = n,
             .stop = stop,
             .stops = n_stop,
             .monitor = monitor,
             .watch = watch};
    TM__TRY(check_options(&chosen));
    TM__TRY(tm__model_check_language(model));
    if (n == 0) return TM_OK;
    tm_status status = run_open(&r);
    if (status == TM_OK) status = run_all(&r, monitor);
    for (size_t i = 0; out && status == TM_OK && i < n; i++) {
        out[i] = r.made[i];
        r.made[i] = (tm_ids){0};
    }
    run_release(&r);
    return status;
}

tm_status tm_generate(tm_model *model, const tm_ids *prompts, size_t n, const int32_t *stop, size_t n_stop,
                      const tm_generate_options *options, const tm_monitor *monitor, tm_ids *out) {
    return tm__generate(model, prompts, n, stop, n_stop, options, NULL, monitor, out);
}
