/* batch.c: rows to token ids with labels, their order, and batches of them.
 *
 * Position t of a row predicts the id at t + 1 of the same row, where the label there is not -100. The loss is the mean
 * over all such targets of a step (not a mean of means of rows), so every target weighs 1 / (targets of the step),
 * however the rows are spread over micro-batches, packed or padded.
 */
#include "data/data.h"
#include "tokenizer/chat.h"
#include "train/train.h"

#include <stdlib.h>

/* ---- examples ---------------------------------------------------------------------------------------------------- */

/* What becomes of rows, counted. */
typedef struct tally {
    size_t cut;   /* rows longer than max_length */
    size_t split; /* tokens across the border of an answer */
    size_t open;  /* rows whose last answer ends with no token that ends it */
} tally;

static int64_t count_targets(const tm_ids *labels) {
    int64_t targets = 0;
    for (size_t t = 1; t < labels->len; t++) targets += labels->data[t] != -100;
    return targets;
}

static tm_status encode_row(const tm_tokenizer *tokenizer, const tm_dataset *dataset, size_t row, tm_chat_format format,
                            int64_t max_length, bool full_sequence, tm_ids *ids, tm_ids *labels, tally *seen) {
    size_t n;
    const tm_message *messages = tm_dataset_row(dataset, row, &n);
    TM__TRY(tm__chat_encode(tokenizer, format, messages, n, false, ids, labels, &seen->split));
    assert(ids->len == labels->len);
    seen->open += count_targets(labels) > 0 && !tm__chat_ends(tokenizer, labels);
    if (ids->len > (size_t)max_length) {
        ids->len = labels->len = (size_t)max_length;
        seen->cut++;
    }
    if (full_sequence && ids->len) memcpy(labels->data, ids->data, ids->len * sizeof *ids->data);
    return TM_OK;
}

int64_t tm__example_targets(const tm__examples *examples, size_t row) {
    return count_targets(&examples->labels[row]);
}

static tm_status no_example(size_t rows, size_t cut, int64_t max_length) {
    if (cut == 0)
        return tm__fail(TM_INVALID, NULL, "data", "give rows with answers, and a template that shows them",
                        "none of %zu rows has an answer in the text that is made of it", rows);
    return tm__fail(TM_INVALID, NULL, "max-length", "give rows with answers, or a greater length",
                    "none of %zu rows has an answer within %lld tokens", rows, (long long)max_length);
}

/* What a reader of the rows would not expect. */
static void note_rows(const tm_monitor *monitor, const tally *seen, size_t rows, size_t dropped, int64_t max_length) {
    if (seen->cut)
        tm__note(monitor, "%zu of %zu rows are longer than %lld tokens and cut off there (max-length)", seen->cut, rows,
                 (long long)max_length);
    if (dropped)
        tm__note(monitor, "%zu of %zu rows dropped: no part of an answer within %lld tokens", dropped, rows,
                 (long long)max_length);
    if (seen->split)
        tm__note(monitor, "%zu tokens lie across the border of an answer and are not trained on", seen->split);
    if (seen->open)
        tm__note(monitor, "%zu of %zu rows end no answer with a special token: they teach no model to stop", seen->open,
                 rows);
}

tm_status tm__examples_encode(const tm_tokenizer *tokenizer, const tm_dataset *dataset, tm_chat_format format,
                              int64_t max_length, bool full_sequence, const tm_monitor *monitor,
                              tm__examples *examples) {
    size_t rows = tm_dataset_rows(dataset);
    tally seen = {0};
    tm__examples made = {.ids = tm__zalloc(rows, sizeof *made.ids),
                         .labels = tm__zalloc(rows, sizeof *made.labels),
                         .row = tm__zalloc(rows, sizeof *made.row)};
    tm_status status = TM_OK;
    if (!made.ids || !made.labels || !made.row) TM__TRY_GOTO(status, tm__fail_memory(), done);
    for (size_t row = 0; row < rows; row++) {
        tm_ids *ids = &made.ids[made.count], *labels = &made.labels[made.count];
        status = encode_row(tokenizer, dataset, row, format, max_length, full_sequence, ids, labels, &seen);
        bool keep = status == TM_OK && count_targets(labels) > 0;
        if (keep) {
            made.row[made.count++] = row;
            continue;
        }
        tm_ids_free(ids);
        tm_ids_free(labels);
        if (status != TM_OK) TM__TRY_GOTO(status, tm__row_failed(status, row), done);
        made.dropped++;
    }
    if (made.count == 0) TM__TRY_GOTO(status, no_example(rows, seen.cut, max_length), done);
    if (full_sequence) seen.split = seen.open = 0;
    note_rows(monitor, &seen, rows, made.dropped, max_length);
    *examples = made;
    made = (tm__examples){0};
done:
    tm__examples_release(&made);
    return status;
}

void tm__examples_release(tm__examples *examples) {
    for (size_t i = 0; i < examples->count; i++) {
        tm_ids_free(&examples->ids[i]);
        tm_ids_free(&examples->labels[i]);
    }
    free(examples->ids);
    free(examples->labels);
    free(examples->row);
    *examples = (tm__examples){0};
}

void tm__examples_note(const tm__examples *examples, const tm_model *model, const tm_monitor *monitor) {
    size_t longest = 0;
    for (size_t i = 0; i < examples->count; i++) longest = TM__MAX(longest, examples->ids[i].len);
    tm__rope_note(model, (int64_t)longest, monitor);
}

tm_status tm__examples_fit(const tm__examples *examples, const tm_model *model) {
    int64_t vocab = model->config.vocab;
    for (size_t i = 0; i < examples->count; i++)
        for (size_t t = 0; t < examples->ids[i].len; t++)
            if (examples->ids[i].data[t] < 0 || examples->ids[i].data[t] >= vocab)
                return tm__fail(TM_MISMATCH, NULL, "tokenizer", "use the tokenizer that belongs to the model",
                                "token id %d lies outside the model's vocabulary of %lld", examples->ids[i].data[t],
                                (long long)vocab);
    return TM_OK;
}

int32_t tm__pad_id(const tm_tokenizer *tokenizer) {
    int32_t pad = tm_tokenizer_pad(tokenizer), eos = tm_tokenizer_eos(tokenizer);
    return pad >= 0 ? pad : eos >= 0 ? eos : 0;
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

tm_status tm__order_row(tm__order *order, uint64_t seed, size_t count, int64_t index, size_t *row) {
    assert(count > 0 && index >= 0);
    int64_t epoch = index / (int64_t)count;
    if (!order->rows || order->count != count || order->seed != seed || order->epoch != epoch) {
        size_t *rows = tm__realloc(order->rows, count, sizeof *rows);
        if (!rows) return tm__fail_memory();
        for (size_t i = 0; i < count; i++) rows[i] = i;
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_SHUFFLE, (uint32_t)epoch));
        tm__rng_shuffle(&rng, rows, count);
        *order = (tm__order){rows, count, seed, epoch};
    }
    *row = order->rows[index % (int64_t)count];
    return TM_OK;
}

void tm__order_release(tm__order *order) {
    free(order->rows);
    *order = (tm__order){0};
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

struct tm__batch_store {
    tm__batch batch;
    tm__arena arena;
};

typedef struct arrays {
    int32_t *ids, *position, *row, *id;
    int64_t *start, *length;
    double *weight;
} arrays;

static bool allocate(tm__batch_store *store, size_t tokens, size_t segments, size_t targets, arrays *a) {
    tm__arena *arena = &store->arena;
    a->ids = tm__arena_alloc(arena, tokens, sizeof *a->ids);
    a->position = tm__arena_alloc(arena, tokens, sizeof *a->position);
    a->start = tm__arena_alloc(arena, segments, sizeof *a->start);
    a->length = tm__arena_alloc(arena, segments, sizeof *a->length);
    a->row = tm__arena_alloc(arena, targets, sizeof *a->row);
    a->id = tm__arena_alloc(arena, targets, sizeof *a->id);
    a->weight = tm__arena_alloc(arena, targets, sizeof *a->weight);
    return a->ids && a->position && a->start && a->length && a->row && a->id && a->weight;
}

/* Lays one row at `at`; padding keeps position 0. */
static void lay_row(const tm__examples *examples, size_t row, int64_t at, double weight, const arrays *a,
                    int64_t *targets) {
    const tm_ids *ids = &examples->ids[row], *labels = &examples->labels[row];
    for (size_t t = 0; t < ids->len; t++) {
        a->ids[at + (int64_t)t] = ids->data[t];
        a->position[at + (int64_t)t] = (int32_t)t;
        if (t == 0 || labels->data[t] == -100) continue;
        a->row[*targets] = (int32_t)(at + (int64_t)t - 1);
        a->id[*targets] = labels->data[t];
        a->weight[(*targets)++] = weight;
    }
}

tm_status tm__batch_build(const tm__examples *examples, const size_t *rows, size_t n, bool packed, int32_t pad,
                          int64_t total_targets, tm__batch_store **store, const tm__batch **batch) {
    size_t sum = 0, longest = 0, targets = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = examples->ids[rows[i]].len;
        sum += len;
        longest = TM__MAX(longest, len);
        targets += (size_t)tm__example_targets(examples, rows[i]);
    }
    size_t tokens = packed ? sum : n * longest;
    if (tokens > INT32_MAX)
        return tm__fail(TM_INVALID, NULL, "micro-batch", "take smaller micro-batches", "%zu tokens at once", tokens);
    tm__batch_store *made = tm__zalloc(1, sizeof *made);
    arrays a;
    if (!made || !allocate(made, tokens, n, targets, &a)) {
        tm__batch_free(made);
        return tm__fail_memory();
    }
    if (!packed)
        for (size_t t = 0; t < tokens; t++) a.ids[t] = pad;
    int64_t at = 0, laid = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t len = (int64_t)examples->ids[rows[i]].len;
        a.start[i] = at;
        a.length[i] = len;
        lay_row(examples, rows[i], at, 1.0 / (double)total_targets, &a, &laid);
        at += packed ? len : (int64_t)longest;
    }
    made->batch = (tm__batch){
        .tokens = (int64_t)tokens,
        .ids = a.ids,
        .position = a.position,
        .segments = (int64_t)n,
        .start = a.start,
        .length = a.length,
        .targets = {.count = laid, .row = a.row, .id = a.id, .weight = a.weight},
        .rows = packed ? 0 : (int64_t)n,
        .row_length = packed ? 0 : (int64_t)longest,
    };
    *store = made;
    *batch = &made->batch;
    return TM_OK;
}

void tm__batch_free(tm__batch_store *store) {
    if (!store) return;
    tm__arena_release(&store->arena);
    free(store);
}
