/* represent_rows.c: which rows are looked at, and which of them the probe is fitted on.
 *
 * Rows of each kind are taken in an order drawn from the seed until there are enough. Those that are too long, or that
 * become the same ids as one before, are left out; the same ids under both kinds are an error. Halves: rows that share
 * a prompt stand in the same one, so that no question is in both; a row with a new prompt goes where fewer of its kind
 * are. Pinned by tests/unit/test_represent.c.
 */
#include "data/data.h"
#include "eval/represent.h"

#include <stdlib.h>

enum { LEAST = 8, LEAST_IN_HALF = 2 }; /* rows of each kind */

static const char *const kinds[] = {"harmless", "harmful"};

/* ---- ids of a row ------------------------------------------------------------------------------------------------ */

/* TM_INVALID where answers are wanted and the row has none. */
static tm_status encode(const tm_representation *r, const tm_tokenizer *tokenizer, bool harmful, size_t row,
                        tm_ids *ids, tm_ids *labels) {
    size_t n;
    const tm_message *messages = tm_dataset_row(r->data[harmful], row, &n);
    size_t asked = tm__messages_asked(messages, n);
    tm_chat_format format = (tm_chat_format)r->options.chat;
    tm_status status;
    if (r->options.position != TM_REPRESENT_ANSWER) {
        status = tm_chat_encode(tokenizer, format, messages, asked, true, ids, NULL);
    } else if (asked < n && strcmp(messages[asked].role, "assistant") == 0) {
        size_t marked = 0;
        status = tm_chat_encode(tokenizer, format, messages, asked + 1, false, ids, labels);
        for (size_t t = 0; t < labels->len; t++) marked += labels->data[t] != -100;
        if (status == TM_OK && marked == 0)
            status = tm__fail(TM_INVALID, NULL, NULL, NULL, "the answer is empty in the text that the model gets");
    } else {
        status = tm__fail(TM_INVALID, NULL, NULL, "position last needs no answers", "has no answer to read states of");
    }
    if (status == TM_OK && ids->len == 0) status = tm__fail(TM_INVALID, NULL, NULL, NULL, "holds no token");
    if (status == TM_OK) return TM_OK;
    char place[64];
    snprintf(place, sizeof place, "%s row %zu", kinds[harmful], row + 1);
    return tm__error_within(NULL, place);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

typedef struct chooser {
    tm_representation *r;
    const tm_tokenizer *tokenizer;
    tm__map seen; /* ids to the number of the row */
    size_t cap, too_long, repeated;
} chooser;

static tm_status keep(chooser *c, tm__represent_row *row, bool *kept) {
    tm_representation *r = c->r;
    int32_t at;
    const char *key = (const char *)row->ids.data;
    size_t len = row->ids.len * sizeof *row->ids.data;
    *kept = false;
    if (r->options.max_length && row->ids.len > (size_t)r->options.max_length) {
        c->too_long++;
        return TM_OK;
    }
    if (tm__map_get(&c->seen, key, len, &at)) {
        c->repeated++;
        if (r->rows[at].harmful == row->harmful) return TM_OK;
        return tm__fail(TM_MISMATCH, NULL, NULL, "a row cannot be both",
                        "harmful row %zu and harmless row %zu are the same to the model",
                        (row->harmful ? row->row : r->rows[at].row) + 1,
                        (row->harmful ? r->rows[at].row : row->row) + 1);
    }
    if (!tm__map_put(&c->seen, key, len, (int32_t)r->count)) return tm__fail_memory();
    if (!tm__grow((void **)&r->rows, &c->cap, r->count + 1, sizeof *r->rows)) return tm__fail_memory();
    r->rows[r->count++] = *row;
    r->of[row->harmful]++;
    *kept = true;
    return TM_OK;
}

static tm_status choose_kind(chooser *c, bool harmful) {
    tm_representation *r = c->r;
    size_t total = tm_dataset_rows(r->data[harmful]), wanted = r->options.limit ? (size_t)r->options.limit : total;
    size_t *order = tm__alloc(total + 1, sizeof *order);
    tm_status status = order ? TM_OK : tm__fail_memory();
    tm__rng rng = tm__rng_make((uint64_t)r->options.seed, tm__stream(TM__STREAM_PROBE, harmful));
    for (size_t i = 0; i < total && status == TM_OK; i++) order[i] = i;
    if (status == TM_OK) tm__rng_shuffle(&rng, order, total);
    for (size_t i = 0; i < total && r->of[harmful] < wanted && status == TM_OK; i++) {
        tm__represent_row row = {.harmful = harmful, .row = order[i]};
        bool kept = false;
        status = encode(r, c->tokenizer, harmful, order[i], &row.ids, &row.labels);
        if (status == TM_OK) status = keep(c, &row, &kept);
        if (kept) continue;
        tm_ids_free(&row.ids);
        tm_ids_free(&row.labels);
    }
    free(order);
    if (status == TM_OK && r->of[harmful] < LEAST)
        return tm__fail(TM_INVALID, NULL, kinds[harmful], "give more rows, or a greater limit or max-length",
                        "%zu different %s rows can be used; the probe needs %d of each kind", r->of[harmful],
                        kinds[harmful], LEAST);
    return status;
}

/* ---- halves ------------------------------------------------------------------------------------------------------ */

static tm_status halve(tm_representation *r) {
    tm__map half = {0}; /* prompts to 1: fitted on, 0: held out */
    size_t in[2][2] = {{0}};
    tm_status status = TM_OK;
    for (size_t i = 0; i < r->count && status == TM_OK; i++) {
        tm__represent_row *row = &r->rows[i];
        uint64_t hash = 0;
        size_t n;
        int32_t train = in[row->harmful][1] < in[row->harmful][0];
        const tm_message *messages = tm_dataset_row(r->data[row->harmful], row->row, &n);
        bool asks = tm__prompt_hash(messages, tm__messages_asked(messages, n), &hash);
        if (asks && !tm__map_get(&half, (const char *)&hash, sizeof hash, &train) &&
            !tm__map_put(&half, (const char *)&hash, sizeof hash, train))
            status = tm__fail_memory();
        row->train = train != 0;
        in[row->harmful][train]++;
        r->train += row->train;
    }
    tm__map_free(&half);
    for (int kind = 0; kind < 2 && status == TM_OK; kind++)
        if (TM__MIN(in[kind][0], in[kind][1]) < LEAST_IN_HALF)
            status = tm__fail(TM_INVALID, NULL, kinds[kind], "rows of one prompt stay in one half of the probe's rows",
                              "too few different prompts: each half needs %d rows of each kind", LEAST_IN_HALF);
    return status;
}

tm_status tm__represent_choose(tm_representation *r, const tm_tokenizer *tokenizer, const tm_monitor *monitor) {
    chooser c = {.r = r, .tokenizer = tokenizer};
    tm_status status = choose_kind(&c, true);
    if (status == TM_OK) status = choose_kind(&c, false);
    if (status == TM_OK) status = halve(r);
    tm__map_free(&c.seen);
    if (status == TM_OK && c.too_long)
        tm__note(monitor, "%zu rows are longer than %lld tokens and left out (max-length)", c.too_long,
                 (long long)r->options.max_length);
    if (status == TM_OK && c.repeated) tm__note(monitor, "%zu rows that repeat others are left out", c.repeated);
    return status;
}

tm_status tm__represent_compare(const tm_representation *r, const tm_tokenizer *tokenizer, const char *name) {
    for (size_t i = 0; i < r->count; i++) {
        const tm__represent_row *row = &r->rows[i];
        tm_ids ids = {0}, labels = {0};
        tm_status status = encode(r, tokenizer, row->harmful, row->row, &ids, &labels);
        bool same = status == TM_OK && ids.len == row->ids.len && labels.len == row->labels.len &&
                    memcmp(ids.data, row->ids.data, ids.len * sizeof *ids.data) == 0;
        tm_ids_free(&ids);
        tm_ids_free(&labels);
        if (status != TM_OK) return status;
        if (!same)
            return tm__fail(TM_MISMATCH, name, NULL, "models to compare need one tokenizer and one chat template",
                            "%s row %zu becomes other tokens than for %s", kinds[row->harmful], row->row + 1,
                            r->models[0].name);
    }
    return TM_OK;
}
