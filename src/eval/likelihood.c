/* likelihood.c: ln p(continuation | context) for many pairs, over the key-value cache.
 *
 * Neighbours with the same context are one unit: its tokens run once, its keys and values are copied to a slot for each
 * continuation of more than one token, and all continuations of a block of units run together. What all contexts of a
 * block begin with (a header, worked examples) is computed once and held once; the next block takes over what it shares
 * of it. Every product is row-invariant and no row is padded, so a logit does not depend on what else is in a
 * call. Dynamic rotary frequencies depend on a sequence's length: such units share nothing.
 *
 * A softmax is taken in fp64 over the logits of the device's type. Tests: tests/unit/test_likelihood.c (against
 * tm_model_score, every batch size), tests/golden/test_mcq.c (lm-evaluation-harness).
 */
#include "eval/suite.h"
#include "model/model.h"

#include <stdlib.h>

enum {
    CALL_TOKENS = 2048 /* most tokens in one pass */,
    LEAST_SHARED = 16 /* common tokens that are worth a call of their own */
};
static const size_t CACHE_BYTES = (size_t)1 << 30, LOGIT_BYTES = (size_t)32 << 20;

typedef struct unit {
    size_t first, count; /* queries */
    int64_t length;      /* of the longest sequence */
    int64_t slot, slots; /* in this block */
    size_t pending;      /* next query of several tokens, from first */
    bool alone;          /* shares nothing: its rotation depends on its length */
} unit;

/* A logit to be read: the fed token `row` predicts `id` for a query. */
typedef struct target {
    int32_t row, id;
    size_t query;
} target;

typedef struct scorer {
    tm_model *model;
    tm__query *queries;
    unit *units;
    size_t unit_count;
    tm__tape *tape;
    tm__cache *cache, *prefix;  /* prefix: one slot, beginning of a context */
    int64_t slots, longest;     /* context */
    const int32_t *prefix_ids;  /* what it holds */
    int64_t prefix_len, shared; /* shared: of it, by the block */
    int32_t *ids, *slot, *position, *length;
    int64_t fed;
    target *targets;
    size_t target_count, target_cap;
    void *logits;
    double *row;
    int64_t logit_rows;
    int64_t tokens; /* since the beginning */
} scorer;

static void scorer_release(scorer *s) {
    if (s->cache) tm__cache_free(s->model, s->cache);
    if (s->prefix) tm__cache_free(s->model, s->prefix);
    tm__tape_free(s->tape);
    free(s->units);
    free(s->ids);
    free(s->slot);
    free(s->position);
    free(s->length);
    free(s->targets);
    free(s->logits);
    free(s->row);
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

static bool same_context(const tm__query *a, const tm__query *b) {
    return a->context_len == b->context_len && memcmp(a->context, b->context, a->context_len * sizeof *a->context) == 0;
}

static int64_t sequence_length(const tm__query *q) {
    return (int64_t)(q->context_len + q->next_len) - 1;
}

static tm_status make_units(scorer *s, size_t n) {
    s->units = tm__zalloc(n, sizeof *s->units);
    if (!s->units) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        tm__query *q = &s->queries[i];
        unit *last = s->unit_count ? &s->units[s->unit_count - 1] : NULL;
        assert(q->context_len > 0 && q->next_len > 0);
        s->longest = TM__MAX(s->longest, (int64_t)q->context_len);
        q->ll = 0;
        bool alone = tm__rope_depends(&s->model->config, sequence_length(q));
        if (last && !alone && !last->alone && same_context(&s->queries[last->first], q)) {
            last->count++;
            last->length = TM__MAX(last->length, sequence_length(q));
        } else {
            s->units[s->unit_count++] = (unit){.first = i, .count = 1, .length = sequence_length(q), .alone = alone};
        }
    }
    return TM_OK;
}

static int64_t wanted_slots(const scorer *s, const unit *u) {
    int64_t several = 0;
    for (size_t i = 0; i < u->count; i++) several += s->queries[u->first + i].next_len > 1;
    return TM__MIN(TM__MAX(several, (int64_t)1), s->slots);
}

static tm_status scorer_open(scorer *s, size_t n, int64_t batch) {
    const tm__config *c = &s->model->config;
    size_t size = tm__dtype_size(s->model->dev->act);
    int64_t capacity = 1, wanted = 0;
    TM__TRY(make_units(s, n));
    s->slots = batch;
    for (size_t i = 0; i < s->unit_count; i++) {
        capacity = TM__MAX(capacity, s->units[i].length);
        wanted += wanted_slots(s, &s->units[i]);
    }
    size_t slot_bytes = (size_t)(2 * c->layers * c->kv_heads * c->head_dim * capacity) * size;
    s->slots = TM__MIN(TM__MIN(batch, wanted), (int64_t)(CACHE_BYTES / slot_bytes));
    s->slots = TM__MAX(s->slots, (int64_t)1);
    s->logit_rows = TM__MAX((int64_t)(LOGIT_BYTES / size) / c->vocab, (int64_t)1);
    s->logit_rows = TM__MIN(s->logit_rows, (int64_t)CALL_TOKENS);
    s->ids = tm__alloc(CALL_TOKENS, sizeof *s->ids);
    s->slot = tm__alloc(CALL_TOKENS, sizeof *s->slot);
    s->position = tm__alloc(CALL_TOKENS, sizeof *s->position);
    s->length = tm__alloc(CALL_TOKENS, sizeof *s->length);
    s->logits = tm__alloc((size_t)(s->logit_rows * c->vocab), size);
    s->row = tm__alloc((size_t)c->vocab, sizeof *s->row);
    if (!s->ids || !s->slot || !s->position || !s->length || !s->logits || !s->row) return tm__fail_memory();
    TM__TRY(tm__tape_create(s->model->dev, &s->tape));
    s->tape->recording = false;
    s->tape->row_invariant = true;
    return tm__cache_create(s->model, s->slots, capacity, NULL, 0, &s->cache);
}

/* ---- one pass ---------------------------------------------------------------------------------------------------- */

/* Adds ln softmax of the row's logits at each target of that row. */
static tm_status read_row(scorer *s, const char *logits, const target *targets, size_t count) {
    int64_t vocab = s->model->config.vocab;
    double most = -INFINITY, sum = 0;
    tm__convert(s->row, TM_F64, logits, s->model->dev->act, (size_t)vocab);
    for (int64_t i = 0; i < vocab; i++) most = TM__MAX(most, s->row[i]);
    for (int64_t i = 0; i < vocab; i++) sum += exp(s->row[i] - most);
    double norm = most + log(sum);
    if (!isfinite(norm))
        return tm__fail(TM_NUMERIC, s->model->directory, "logits", "the training that made this model diverged",
                        "are not finite");
    for (size_t i = 0; i < count; i++) s->queries[targets[i].query].ll += s->row[targets[i].id] - norm;
    return TM_OK;
}

/* Targets stand in the order of their rows; some share one. */
static tm_status read_targets(scorer *s, const tm__var *hidden) {
    size_t row_bytes = (size_t)s->model->config.vocab * tm__dtype_size(s->model->dev->act);
    int32_t rows[CALL_TOKENS];
    for (size_t at = 0; at < s->target_count;) {
        size_t begin = at;
        int64_t count = 0;
        for (; at < s->target_count; at++) {
            bool fresh = count == 0 || rows[count - 1] != s->targets[at].row;
            if (fresh && count == s->logit_rows) break;
            if (fresh) rows[count++] = s->targets[at].row;
        }
        TM__TRY(tm__model_logits(s->model, s->tape, hidden, rows, count, s->logits));
        for (int64_t r = 0; r < count; r++) {
            size_t n = 0;
            while (begin + n < at && s->targets[begin + n].row == rows[r]) n++;
            TM__TRY(read_row(s, (const char *)s->logits + (size_t)r * row_bytes, s->targets + begin, n));
            begin += n;
        }
    }
    return TM_OK;
}

static tm_status run_pass(scorer *s, tm__cache *cache) {
    tm__var *hidden;
    if (s->fed == 0) return TM_OK;
    tm_status status =
        tm__model_decode(s->model, s->tape, cache, s->fed, s->ids, s->slot, s->position, s->length, &hidden);
    if (status == TM_OK && s->target_count) status = read_targets(s, hidden);
    tm__tape_reset(s->tape);
    s->tokens += s->fed;
    s->fed = 0;
    s->target_count = 0;
    return status;
}

static tm_status flush(scorer *s) {
    return run_pass(s, s->cache);
}

/* One more token of a slot; a full pass is done first. */
static tm_status feed(scorer *s, int32_t id, int64_t slot, int64_t position, int64_t length) {
    if (s->fed == CALL_TOKENS) TM__TRY(flush(s));
    s->ids[s->fed] = id;
    s->slot[s->fed] = (int32_t)slot;
    s->position[s->fed] = (int32_t)position;
    s->length[s->fed++] = (int32_t)length;
    return TM_OK;
}

/* The token fed last predicts `id`. */
static tm_status expect(scorer *s, size_t query, int32_t id) {
    if (id < 0 || id >= s->model->config.vocab)
        return tm__fail(TM_MISMATCH, s->model->directory, "tokenizer", "they do not belong together",
                        "its id %d lies outside the model's vocabulary", id);
    if (!tm__grow((void **)&s->targets, &s->target_cap, s->target_count + 1, sizeof *s->targets))
        return tm__fail_memory();
    s->targets[s->target_count++] = (target){.row = (int32_t)s->fed - 1, .id = id, .query = query};
    return TM_OK;
}

/* ---- one block --------------------------------------------------------------------------------------------------- */

static int64_t common(const int32_t *a, int64_t a_len, const int32_t *b, int64_t b_len) {
    int64_t n = 0, limit = TM__MIN(a_len, b_len);
    while (n < limit && a[n] == b[n]) n++;
    return n;
}

/* Units from `first` that fit the slots and begin alike as far as they go on doing so; *shared tokens. Every unit keeps
 * a last context token of its own, whose hidden state predicts the first of each continuation. */
static size_t take_block(scorer *s, size_t first, int64_t *shared) {
    const tm__query *head = &s->queries[s->units[first].first];
    int64_t used = 0, begins = (int64_t)head->context_len - 1;
    size_t end = first;
    for (; end < s->unit_count; end++) {
        unit *u = &s->units[end];
        const tm__query *q = &s->queries[u->first];
        int64_t slots = wanted_slots(s, u);
        int64_t same = common(head->context, begins, q->context, (int64_t)q->context_len - 1);
        if (end > first) {
            bool parts = begins >= LEAST_SHARED && end > first + 1 && same < begins / 2;
            if (used + slots > s->slots || parts || u->alone != s->units[first].alone) break;
        }
        u->slot = used;
        u->slots = slots;
        u->pending = 0;
        used += slots;
        begins = same;
    }
    *shared = s->units[first].alone || begins < LEAST_SHARED ? 0 : begins;
    return end;
}

/* What the block's contexts share, computed unless the prefix of the block before will do. */
static tm_status share(scorer *s, const tm__query *head, int64_t shared) {
    int64_t kept = shared ? common(s->prefix_ids, s->prefix_len, head->context, shared) : 0;
    s->shared = shared;
    if (shared && kept >= LEAST_SHARED && kept >= shared / 2) {
        s->shared = kept;
    } else if (shared) {
        if (!s->prefix) TM__TRY(tm__cache_create(s->model, 1, s->longest, NULL, 0, &s->prefix));
        s->prefix_len = 0;
        for (int64_t i = 0; i < shared; i++) {
            s->ids[s->fed] = head->context[i];
            s->slot[s->fed] = 0;
            s->position[s->fed] = (int32_t)i;
            s->length[s->fed++] = (int32_t)i + 1; /* nothing depends on it */
            if (s->fed == CALL_TOKENS) TM__TRY(run_pass(s, s->prefix));
        }
        TM__TRY(run_pass(s, s->prefix));
        s->prefix_ids = head->context;
        s->prefix_len = shared;
    }
    tm__cache_share(s->cache, s->shared ? s->prefix : NULL, s->shared);
    return TM_OK;
}

static tm_status feed_context(scorer *s, const unit *u) {
    const tm__query *q = &s->queries[u->first];
    for (int64_t i = s->shared; i < (int64_t)q->context_len; i++)
        TM__TRY(feed(s, q->context[i], u->slot, i, u->alone ? u->length : i + 1));
    for (size_t i = 0; i < u->count; i++) TM__TRY(expect(s, u->first + i, s->queries[u->first + i].next[0]));
    return TM_OK;
}

/* The unit's next continuation of several tokens into a slot; false: there is none left. */
static tm_status feed_next(scorer *s, unit *u, int64_t slot, bool *more) {
    while (u->pending < u->count && s->queries[u->first + u->pending].next_len < 2) u->pending++;
    *more = u->pending < u->count;
    if (!*more) return TM_OK;
    size_t query = u->first + u->pending++;
    const tm__query *q = &s->queries[query];
    for (size_t t = 0; t + 1 < q->next_len; t++) {
        int64_t position = (int64_t)(q->context_len + t);
        TM__TRY(feed(s, q->next[t], slot, position, u->alone ? u->length : position + 1));
        TM__TRY(expect(s, query, q->next[t + 1]));
    }
    return TM_OK;
}

static tm_status run_block(scorer *s, size_t first, size_t end, int64_t shared) {
    TM__TRY(share(s, &s->queries[s->units[first].first], shared));
    for (size_t i = first; i < end; i++) TM__TRY(feed_context(s, &s->units[i]));
    TM__TRY(flush(s));
    for (size_t i = first; i < end; i++) {
        const unit *u = &s->units[i];
        int64_t length = (int64_t)s->queries[u->first].context_len;
        for (int64_t k = 1; k < u->slots; k++)
            TM__TRY(tm__cache_copy(s->model, s->cache, u->slot, u->slot + k, length - s->shared));
    }
    for (bool any = true; any;) { /* continuations write behind the context, so slots serve one after another */
        any = false;
        for (size_t i = first; i < end; i++) {
            unit *u = &s->units[i];
            bool more = true;
            for (int64_t k = 0; more && k < u->slots; k++) {
                TM__TRY(feed_next(s, u, u->slot + k, &more));
                any = any || more;
            }
        }
        TM__TRY(flush(s));
    }
    return TM_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static void report(const scorer *s, const tm__likelihood_watch *watch, size_t done, const tm_monitor *monitor,
                   double began) {
    if (!monitor || !monitor->progress || !watch) return;
    const tm_progress progress = {.phase = watch->phase,
                                  .done = (int64_t)(watch->first + done),
                                  .total = (int64_t)watch->total,
                                  .unit = "text",
                                  .loss = NAN,
                                  .lr = NAN,
                                  .tokens = s->tokens,
                                  .seconds = tm__now() - began};
    monitor->progress(monitor->user, &progress);
}

static tm_status run_all(scorer *s, const tm__likelihood_watch *watch, const tm_monitor *monitor) {
    double began = tm__now();
    for (size_t first = 0, end; first < s->unit_count; first = end) {
        int64_t shared;
        if (tm__stop(monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "scoring was interrupted");
        end = take_block(s, first, &shared);
        TM__TRY(run_block(s, first, end, shared));
        size_t done = s->units[end - 1].first + s->units[end - 1].count;
        if (watch && watch->done) TM__TRY(watch->done(watch->user, done));
        report(s, watch, done, monitor, began);
    }
    return TM_OK;
}

tm_status tm__likelihood(tm_model *model, tm__query *queries, size_t n, int64_t batch,
                         const tm__likelihood_watch *watch, const tm_monitor *monitor) {
    scorer s = {.model = model, .queries = queries};
    TM__TRY(tm__model_check_language(model));
    if (n == 0) return TM_OK;
    tm_status status = scorer_open(&s, n, batch);
    if (status == TM_OK) status = run_all(&s, watch, monitor);
    scorer_release(&s);
    return status;
}

/* ---- texts to tokens --------------------------------------------------------------------------------------------- */

int32_t tm__prefix_id(const tm_tokenizer *tokenizer) {
    int32_t bos = tm_tokenizer_bos(tokenizer);
    return bos >= 0 ? bos : tm_tokenizer_eos(tokenizer);
}

/* The harness adds no special tokens to a text that already begins with the one it would put first. */
tm_status tm__text_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, bool special, tm_ids *ids) {
    int32_t prefix = tm__prefix_id(tokenizer);
    const char *piece = prefix >= 0 ? tm_tokenizer_piece(tokenizer, prefix) : NULL;
    size_t n = piece ? strlen(piece) : 0;
    if (n && n <= len && memcmp(text, piece, n) == 0) special = false;
    return tm_tokenizer_encode(tokenizer, text, len, TM_ENCODE_PARSE_SPECIAL | (special ? TM_ENCODE_BOS_EOS : 0), ids);
}

static tm_status encode_alone(const tm_tokenizer *tokenizer, const char *next, tm_ids *context_ids, tm_ids *next_ids) {
    int32_t prefix = tm__prefix_id(tokenizer);
    size_t before = next_ids->len;
    if (prefix < 0)
        return tm__fail(TM_MISMATCH, NULL, "tokenizer", NULL, "has neither bos nor eos to begin a text with");
    TM__TRY(tm__text_encode(tokenizer, next, strlen(next), false, next_ids));
    TM__TRY(tm_ids_push(context_ids, prefix));
    if (next_ids->len > before && next_ids->data[before] == prefix) { /* it begins with that token already */
        memmove(next_ids->data + before, next_ids->data + before + 1,
                (next_ids->len - before - 1) * sizeof *next_ids->data);
        next_ids->len--;
    }
    return TM_OK;
}

tm_status tm__pair_encode(const tm_tokenizer *tokenizer, const char *context, const char *next, tm_ids *context_ids,
                          tm_ids *next_ids) {
    size_t total = strlen(context), kept = tm__py_rstrip(context, total);
    if (total == 0) return encode_alone(tokenizer, next, context_ids, next_ids);
    tm__string whole = {0};
    tm_ids ids = {0};
    size_t before = context_ids->len;
    tm_status status = TM_OK;
    if (!tm__string_append(&whole, context, total) || !tm__string_append(&whole, next, strlen(next)))
        status = tm__fail_memory();
    if (status == TM_OK) status = tm__text_encode(tokenizer, whole.data, whole.len, true, &ids);
    if (status == TM_OK) status = tm__text_encode(tokenizer, context, kept, true, context_ids);
    for (size_t i = context_ids->len - before; status == TM_OK && i < ids.len; i++)
        status = tm_ids_push(next_ids, ids.data[i]);
    tm_ids_free(&ids);
    tm__string_free(&whole);
    return status;
}
