/* next.c: what a language model says right behind each of many texts: the likeliest token, and how likely chosen ones
 * are.
 *
 * What all texts begin with (a judge's instructions) is computed once and held once. Texts run in groups over a
 * key-value cache, every product is row-invariant and no row is padded, so that what is said of a text does not depend
 * on its company. Where the likeliest token is one to skip (the line breaks before Llama Guard's word), it is taken as
 * said, and the one behind it counts. A softmax is taken in fp64 over the logits of the device's type.
 * Tests: tests/golden/test_judge_written.c (transformers).
 */
#include "model/weights.h"

#include <stdlib.h>

enum {
    CALL_TOKENS = 2048 /* most tokens in one pass */,
    GROUP_ROWS = 64,
    GROUP_CACHE = 4096 /* most positions that a group's cache holds, unless it is one text */,
    LEAST_SHARED = 16 /* common tokens that are worth a call of their own */,
    LOGIT_ROWS = 4,
    MOST_SKIPS = 4
};

typedef struct asker {
    tm_model *model;
    const tm_ids *texts;
    const tm__next_question *question;
    tm__next *out;
    tm__tape *tape;
    tm__cache *prefix, *cache; /* prefix NULL: nothing is shared */
    int64_t shared;
    int32_t *ids, *slot, *position, *length; /* (CALL_TOKENS) of the pass */
    int64_t fed;
    int32_t ready[GROUP_ROWS]; /* fed tokens whose hidden state says what follows, */
    size_t ready_text[GROUP_ROWS], ready_count;
    void *logits; /* (LOGIT_ROWS, vocab) */
    double *row;  /* (vocab) */
} asker;

static void asker_release(asker *a) {
    if (a->cache) tm__cache_free(a->model, a->cache);
    if (a->prefix) tm__cache_free(a->model, a->prefix);
    tm__tape_free(a->tape);
    free(a->ids);
    free(a->slot);
    free(a->position);
    free(a->length);
    free(a->logits);
    free(a->row);
}

static tm_status asker_open(asker *a) {
    size_t vocab = (size_t)a->model->config.vocab;
    a->ids = tm__alloc(CALL_TOKENS, sizeof *a->ids);
    a->slot = tm__alloc(CALL_TOKENS, sizeof *a->slot);
    a->position = tm__alloc(CALL_TOKENS, sizeof *a->position);
    a->length = tm__alloc(CALL_TOKENS, sizeof *a->length);
    a->logits = tm__alloc(LOGIT_ROWS * vocab, tm__dtype_size(a->model->dev->act));
    a->row = tm__alloc(vocab, sizeof *a->row);
    if (!a->ids || !a->slot || !a->position || !a->length || !a->logits || !a->row) return tm__fail_memory();
    TM__TRY(tm__tape_create(a->model->dev, &a->tape));
    a->tape->recording = false;
    a->tape->row_invariant = true;
    return TM_OK;
}

/* ---- one pass ---------------------------------------------------------------------------------------------------- */

static tm_status read_row(asker *a, const char *logits, tm__next *next) {
    int64_t vocab = a->model->config.vocab, best = 0;
    double sum = 0;
    tm__convert(a->row, TM_F64, logits, a->model->dev->act, (size_t)vocab);
    for (int64_t i = 1; i < vocab; i++)
        if (a->row[i] > a->row[best]) best = i;
    for (int64_t i = 0; i < vocab; i++) sum += exp(a->row[i] - a->row[best]);
    double norm = a->row[best] + log(sum);
    if (!isfinite(norm))
        return tm__fail(TM_NUMERIC, a->model->directory, "logits", "the training that made this model diverged",
                        "are not finite");
    next->likeliest = (int32_t)best;
    for (size_t i = 0; i < a->question->count; i++) next->probability[i] = exp(a->row[a->question->ids[i]] - norm);
    return TM_OK;
}

/* Runs what was fed, and reads the rows that are ready. */
static tm_status run_pass(asker *a, tm__cache *cache) {
    size_t row_bytes = (size_t)a->model->config.vocab * tm__dtype_size(a->model->dev->act);
    tm__var *hidden;
    if (a->fed == 0) return TM_OK;
    tm_status status =
        tm__model_decode(a->model, a->tape, cache, a->fed, a->ids, a->slot, a->position, a->length, &hidden);
    for (size_t at = 0; status == TM_OK && at < a->ready_count; at += LOGIT_ROWS) {
        size_t n = TM__MIN(a->ready_count - at, (size_t)LOGIT_ROWS);
        status = tm__model_logits(a->model, a->tape, hidden, a->ready + at, (int64_t)n, a->logits);
        for (size_t i = 0; status == TM_OK && i < n; i++)
            status = read_row(a, (const char *)a->logits + i * row_bytes, &a->out[a->ready_text[at + i]]);
    }
    tm__tape_reset(a->tape);
    a->fed = 0;
    a->ready_count = 0;
    return status;
}

static tm_status feed(asker *a, tm__cache *cache, int32_t id, int64_t slot, int64_t position, int64_t length) {
    if (a->fed == CALL_TOKENS) TM__TRY(run_pass(a, cache));
    a->ids[a->fed] = id;
    a->slot[a->fed] = (int32_t)slot;
    a->position[a->fed] = (int32_t)position;
    a->length[a->fed++] = (int32_t)length;
    return TM_OK;
}

/* What follows the token fed last is what follows the text. */
static void read_here(asker *a, size_t text) {
    a->ready[a->ready_count] = (int32_t)a->fed - 1;
    a->ready_text[a->ready_count++] = text;
}

/* ---- what all texts begin with ----------------------------------------------------------------------------------- */

/* Every text keeps a last token of its own. Texts share nothing where a token's rotation depends on their length. */
static int64_t common_tokens(const asker *a, size_t n) {
    int64_t common = (int64_t)a->texts[0].len - 1;
    for (size_t i = 0; i < n; i++) {
        int64_t same = 0, limit = TM__MIN(common, (int64_t)a->texts[i].len - 1);
        if (tm__rope_depends(&a->model->config, (int64_t)a->texts[i].len)) return 0;
        while (same < limit && a->texts[i].data[same] == a->texts[0].data[same]) same++;
        common = same;
    }
    return n > 1 && common >= LEAST_SHARED ? common : 0;
}

static tm_status share(asker *a, size_t n) {
    int64_t common = common_tokens(a, n);
    if (common == 0) return TM_OK;
    TM__TRY(tm__cache_create(a->model, 1, common, NULL, 0, &a->prefix));
    for (int64_t i = 0; i < common; i++) TM__TRY(feed(a, a->prefix, a->texts[0].data[i], 0, i, i + 1));
    TM__TRY(run_pass(a, a->prefix));
    a->shared = common;
    return TM_OK;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

/* Texts from `first` that run together; *longest of their tokens behind the shared ones. */
static size_t take_group(const asker *a, size_t first, size_t n, int64_t *longest) {
    int64_t tokens = 0;
    size_t end = first;
    *longest = 0;
    for (; end < n && end - first < GROUP_ROWS; end++) {
        int64_t own = (int64_t)a->texts[end].len - a->shared, most = TM__MAX(*longest, own);
        bool fits = tokens + own <= CALL_TOKENS && most * (int64_t)(end - first + 1) <= GROUP_CACHE;
        if (end > first && !fits) break;
        tokens += own;
        *longest = most;
    }
    return end;
}

static tm_status feed_texts(asker *a, size_t first, size_t end) {
    for (size_t t = first; t < end; t++) {
        int64_t length = (int64_t)a->texts[t].len;
        for (int64_t i = a->shared; i < length; i++)
            TM__TRY(feed(a, a->cache, a->texts[t].data[i], (int64_t)(t - first), i, length));
        read_here(a, t);
    }
    return run_pass(a, a->cache);
}

/* Feeds the likeliest token of each text where it is one to skip. */
static tm_status feed_skipped(asker *a, size_t first, size_t end, int64_t round) {
    for (size_t t = first; t < end; t++) {
        tm__next *next = &a->out[t];
        int64_t at = (int64_t)a->texts[t].len + round;
        if (next->skipped < round || !a->question->skip[next->likeliest]) continue;
        TM__TRY(feed(a, a->cache, next->likeliest, (int64_t)(t - first), at, at + 1));
        next->skipped++;
        read_here(a, t);
    }
    return run_pass(a, a->cache);
}

static tm_status run_group(asker *a, size_t first, size_t end, int64_t longest) {
    TM__TRY(tm__cache_create(a->model, (int64_t)(end - first), longest + MOST_SKIPS, a->prefix, a->shared, &a->cache));
    tm_status status = feed_texts(a, first, end);
    for (int64_t round = 0; status == TM_OK && a->question->skip && round < MOST_SKIPS; round++)
        status = feed_skipped(a, first, end, round);
    tm__cache_free(a->model, a->cache);
    a->cache = NULL;
    return status;
}

static tm_status run_all(asker *a, size_t n, const tm_monitor *monitor) {
    TM__TRY(asker_open(a));
    TM__TRY(share(a, n));
    for (size_t first = 0, end; first < n; first = end) {
        int64_t longest;
        if (tm__stop(monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped between texts");
        end = take_group(a, first, n, &longest);
        TM__TRY(run_group(a, first, end, longest));
    }
    return TM_OK;
}

tm_status tm__model_next(tm_model *model, const tm_ids *texts, size_t n, const tm__next_question *question,
                         const tm_monitor *monitor, tm__next *out) {
    asker a = {.model = model, .texts = texts, .question = question, .out = out};
    TM__TRY(tm__model_check_language(model));
    assert(question->count <= TM__NEXT_IDS);
    for (size_t i = 0; i < n; i++) {
        if (texts[i].len == 0) return tm__fail(TM_INVALID, NULL, NULL, NULL, "text %zu has no tokens", i);
        out[i] = (tm__next){.likeliest = -1};
    }
    for (size_t i = 0; i < question->count; i++) TM__TRY(tm__model_check_id(model, question->ids[i]));
    if (n == 0) return TM_OK;
    tm_status status = run_all(&a, n, monitor);
    asker_release(&a);
    return status;
}
