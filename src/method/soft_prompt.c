/* soft_prompt.c: vectors in the place of a prompt's last words: where they stand, the loss of an answer behind them and
 * its gradient, and what the model answers.
 *
 *   row:   head | k place-holders | end of the user's turn, begin of the answer | target
 *   x_t  = E[id_t] + delta_i   at the i-th place-holder;   E[id_t] elsewhere
 *   loss = mean over the target's tokens of -ln p(token | what stands before it)
 *
 * delta is added by a tap behind the embedding, which also reads d loss / d x; no weight needs a gradient. Answers are
 * greedy and made without a key-value cache: one forward pass per token is little beside the passes that found delta.
 * Pinned by tests/golden/test_embedding.c and tests/unit/test_soft_prompt.c (central differences in fp64, generation
 * with delta = 0).
 */
#include "method/soft_prompt.h"

#include "data/data.h"

#include <stdlib.h>

/* ---- rows -------------------------------------------------------------------------------------------------------- */

void tm__soft_rows_free(tm__soft_row *rows, size_t count) {
    for (size_t i = 0; rows && i < count; i++) tm_ids_free(&rows[i].ids);
    free(rows);
}

/* Equal ids at the ends of two lists. */
static size_t common_end(const tm_ids *a, const tm_ids *b) {
    size_t n = 0;
    while (n < a->len && n < b->len && a->data[a->len - 1 - n] == b->data[b->len - 1 - n]) n++;
    return n;
}

/* Ids behind the user's words: what stays at the end of the prompt when they change. Two other words, because these may
 * end like one of them. */
static tm_status measure_end(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                             const tm_ids *prompt, size_t *end) {
    static const char *const words[] = {"a", "b"};
    tm_message *changed = tm__alloc(n, sizeof *changed);
    if (!changed) return tm__fail_memory();
    memcpy(changed, messages, n * sizeof *changed);
    tm_status status = TM_OK;
    *end = prompt->len;
    for (size_t i = 0; i < TM__COUNT(words) && status == TM_OK; i++) {
        tm_ids ids = {0};
        changed[n - 1].content = words[i];
        status = tm_chat_encode(tokenizer, format, changed, n, true, &ids, NULL);
        if (status == TM_OK) *end = TM__MIN(*end, common_end(prompt, &ids));
        tm_ids_free(&ids);
    }
    free(changed);
    return status;
}

/* The target's ids behind this prompt, less the marker that would end the turn and blanks before it. */
static tm_status encode_target(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages,
                               size_t n, const char *target, const tm_ids *prompt, tm_ids *ids) {
    tm_ids labels = {0};
    tm_message *longer = tm__alloc(n + 1, sizeof *longer);
    if (!longer) return tm__fail_memory();
    memcpy(longer, messages, n * sizeof *longer);
    longer[n] = (tm_message){"assistant", target};
    tm_status status = tm_chat_encode(tokenizer, format, longer, n + 1, false, ids, &labels);
    free(longer);
    bool fits = status == TM_OK && ids->len > prompt->len &&
                memcmp(ids->data, prompt->data, prompt->len * sizeof *ids->data) == 0;
    if (status == TM_OK && !fits)
        status = tm__fail(TM_UNSUPPORTED, NULL, "chat", "choose another format",
                          "the answer does not begin where the prompt ends");
    while (status == TM_OK && ids->len > prompt->len) {
        size_t last = ids->len - 1;
        char *text = NULL;
        status = tm_tokenizer_decode(tokenizer, &ids->data[last], 1, TM_DECODE_SKIP_SPECIAL, &text, NULL);
        bool empty = labels.data[last] < 0 || (text && text[strspn(text, " \n")] == 0);
        free(text);
        if (!empty) break;
        ids->len--;
    }
    tm_ids_free(&labels);
    if (status == TM_OK && ids->len == prompt->len)
        status = tm__fail(TM_INVALID, NULL, "target", NULL, "holds nothing that the tokenizer knows");
    return status;
}

static tm_status place(const tm_ids *whole, size_t prompt, size_t end, const tm_ids *init, int64_t width,
                       tm__soft_row *row) {
    row->at = (int64_t)(prompt - end);
    row->ask = (int64_t)prompt + width;
    for (size_t i = 0; i < whole->len; i++) {
        for (int64_t k = 0; (int64_t)i == row->at && k < width; k++)
            TM__TRY(tm_ids_push(&row->ids, init->data[(size_t)k % init->len]));
        TM__TRY(tm_ids_push(&row->ids, whole->data[i]));
    }
    return TM_OK;
}

static tm_status make_row(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                          const char *target, const tm_ids *init, int64_t width, tm__soft_row *row) {
    tm_ids prompt = {0}, whole = {0};
    size_t end = 0;
    n = tm__messages_asked(messages, n);
    if (n == 0) return tm__fail(TM_INVALID, NULL, "harmful", NULL, "a row asks nothing");
    tm_status status = tm_chat_encode(tokenizer, format, messages, n, true, &prompt, NULL);
    if (status == TM_OK) status = measure_end(tokenizer, format, messages, n, &prompt, &end);
    if (status == TM_OK) status = encode_target(tokenizer, format, messages, n, target, &prompt, &whole);
    if (status == TM_OK) status = place(&whole, prompt.len, end, init, width, row);
    tm_ids_free(&prompt);
    tm_ids_free(&whole);
    return status;
}

tm_status tm__soft_rows_make(const tm_tokenizer *tokenizer, const tm_dataset *prompts, tm_chat_format format,
                             const char *target, const char *init, int64_t width, tm__soft_row **rows) {
    size_t count = tm_dataset_rows(prompts);
    tm_ids ids = {0};
    tm__soft_row *made = tm__zalloc(count, sizeof *made);
    tm_status status = made ? tm_tokenizer_encode(tokenizer, init, strlen(init), 0, &ids) : tm__fail_memory();
    if (status == TM_OK && ids.len == 0) status = tm__fail(TM_INVALID, NULL, "init", NULL, "holds no token");
    for (size_t i = 0; i < count && status == TM_OK; i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(prompts, i, &n);
        status = make_row(tokenizer, format, messages, n, target, &ids, width, &made[i]);
    }
    tm_ids_free(&ids);
    if (status == TM_OK)
        *rows = made;
    else
        tm__soft_rows_free(made, count);
    return status;
}

/* ---- several rows end to end ------------------------------------------------------------------------------------- */

typedef struct packed {
    tm__batch batch;
    int32_t *ids, *position, *row, *id;
    int64_t *start, *length;
    double *weight, *terms; /* per target */
} packed;

static void packed_release(packed *p) {
    free(p->ids);
    free(p->position);
    free(p->row);
    free(p->id);
    free(p->start);
    free(p->length);
    free(p->weight);
    free(p->terms);
}

/* ids (n): the rows as they are now; targets are what stands behind `ask`, each row's weighing 1 together. */
static tm_status pack(const tm__soft_row *rows, const tm_ids *ids, size_t n, packed *p) {
    size_t tokens = 0;
    for (size_t i = 0; i < n; i++) tokens += ids[i].len;
    p->ids = tm__alloc(tokens, sizeof *p->ids);
    p->position = tm__alloc(tokens, sizeof *p->position);
    p->row = tm__alloc(tokens, sizeof *p->row);
    p->id = tm__alloc(tokens, sizeof *p->id);
    p->start = tm__alloc(n, sizeof *p->start);
    p->length = tm__alloc(n, sizeof *p->length);
    p->weight = tm__alloc(tokens, sizeof *p->weight);
    p->terms = tm__alloc(tokens, sizeof *p->terms);
    if (!p->ids || !p->position || !p->row || !p->id || !p->start || !p->length || !p->weight || !p->terms)
        return tm__fail_memory();
    int64_t at = 0, targets = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t len = (int64_t)ids[i].len;
        p->start[i] = at;
        p->length[i] = len;
        for (int64_t t = 0; t < len; t++, at++) {
            p->ids[at] = ids[i].data[t];
            p->position[at] = (int32_t)t;
            if (t + 1 < rows[i].ask || t + 1 == len) continue;
            p->row[targets] = (int32_t)at;
            p->id[targets] = ids[i].data[t + 1];
            p->weight[targets++] = 1 / (double)(len - rows[i].ask);
        }
    }
    p->batch = (tm__batch){.tokens = at,
                           .ids = p->ids,
                           .position = p->position,
                           .segments = (int64_t)n,
                           .start = p->start,
                           .length = p->length,
                           .targets = {targets, p->row, p->id, p->weight}};
    return TM_OK;
}

/* A buffer (tokens, hidden) on the device: deltas at the place-holders, zero elsewhere. */
static tm_status upload(const tm__soft *soft, const tm__soft_row *rows, size_t n, const packed *p,
                        const double *const *delta, void *buffer) {
    tm_device *dev = soft->model->dev;
    size_t hidden = (size_t)soft->model->config.hidden, size = tm__dtype_size(dev->act);
    size_t bytes = (size_t)p->batch.tokens * hidden * size;
    char *host = tm__alloc_aligned(bytes);
    if (!host) return tm__fail_memory();
    memset(host, 0, bytes);
    for (size_t i = 0; i < n; i++)
        tm__convert(host + (size_t)(p->start[i] + rows[i].at) * hidden * size, dev->act, delta[i], TM_F64,
                    (size_t)soft->width * hidden);
    tm_status status = dev->upload(dev, buffer, host, bytes);
    free(host);
    return status;
}

static tm_status download(const tm__soft *soft, const tm__soft_row *rows, size_t n, const packed *p, const void *buffer,
                          double *const *grad) {
    tm_device *dev = soft->model->dev;
    size_t hidden = (size_t)soft->model->config.hidden, size = tm__dtype_size(dev->act);
    size_t bytes = (size_t)p->batch.tokens * hidden * size, count = (size_t)soft->width * hidden;
    char *host = tm__alloc_aligned(bytes);
    double *part = tm__alloc(count, sizeof *part);
    tm_status status = host && part ? dev->download(dev, host, buffer, bytes) : tm__fail_memory();
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        tm__convert(part, TM_F64, host + (size_t)(p->start[i] + rows[i].at) * hidden * size, dev->act, count);
        for (size_t k = 0; k < count; k++) grad[i][k] += part[k];
    }
    free(host);
    free(part);
    return status;
}

/* ---- loss and gradient ------------------------------------------------------------------------------------------- */

static tm_status run_pass(const tm__soft *soft, const packed *p, const void *perturb, void *grad) {
    const tm__tap tap = {.site = TM__TAP_EMBEDDING, .perturb = perturb, .grad = grad};
    const tm__forward_options forward = {.taps = &tap, .tap_count = 1, .recompute = soft->recompute};
    tm__var *loss;
    soft->tape->recording = grad != NULL;
    TM__TRY(tm__model_loss(soft->model, soft->tape, &p->batch, &forward, p->terms, &loss));
    return grad ? tm__tape_backward(soft->tape, 1, &loss, NULL) : TM_OK;
}

static void sum_losses(const packed *p, size_t n, double *loss) {
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        loss[i] = 0;
        for (; at < p->batch.targets.count && p->row[at] < p->start[i] + p->length[i]; at++)
            loss[i] += p->weight[at] * p->terms[at];
    }
}

static tm_status pass_with(const tm__soft *soft, const tm__soft_row *rows, size_t n, const packed *p,
                           const double *const *delta, double *const *grad, double *loss) {
    tm_device *dev = soft->model->dev;
    size_t bytes = (size_t)(p->batch.tokens * soft->model->config.hidden) * tm__dtype_size(dev->act);
    void *perturb = NULL, *gradient = NULL;
    tm_status status = dev->alloc(dev, bytes, &perturb);
    if (status == TM_OK && grad) status = dev->alloc(dev, bytes, &gradient);
    if (status == TM_OK) status = upload(soft, rows, n, p, delta, perturb);
    if (status == TM_OK) status = run_pass(soft, p, perturb, gradient);
    if (status == TM_OK) sum_losses(p, n, loss);
    tm__tape_reset(soft->tape);
    if (status == TM_OK && grad) status = download(soft, rows, n, p, gradient, grad);
    if (gradient) dev->release(dev, gradient, bytes);
    if (perturb) dev->release(dev, perturb, bytes);
    return status;
}

tm_status tm__soft_pass(const tm__soft *soft, const tm__soft_row *rows, size_t n, const double *const *delta,
                        double *const *grad, double *loss) {
    packed p = {0};
    tm_ids *ids = tm__alloc(n, sizeof *ids);
    if (!ids) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) ids[i] = rows[i].ids;
    tm_status status = pack(rows, ids, n, &p);
    if (status == TM_OK) status = pass_with(soft, rows, n, &p, delta, grad, loss);
    packed_release(&p);
    free(ids);
    return status;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

typedef struct answering {
    const tm__soft *soft;
    const tm__soft_row **rows; /* (n) those that go on, with their texts, answers and vectors */
    tm_ids **texts;
    const double **delta;
    size_t n;
    tm__sampler *sampler;
    const int32_t *stop;
    size_t stops;
} answering;

static tm_status next_logits(const answering *a, const packed *p, const tm__soft_row *rows, void *logits) {
    tm_model *model = a->soft->model;
    tm_device *dev = model->dev;
    size_t bytes = (size_t)(p->batch.tokens * model->config.hidden) * tm__dtype_size(dev->act);
    void *perturb = NULL;
    tm__var *hidden;
    TM__TRY(dev->alloc(dev, bytes, &perturb));
    const tm__tap tap = {.site = TM__TAP_EMBEDDING, .perturb = perturb};
    const tm__forward_options forward = {.taps = &tap, .tap_count = 1};
    for (size_t i = 0; i < a->n; i++) p->row[i] = (int32_t)(p->start[i] + p->length[i] - 1);
    a->soft->tape->recording = false;
    tm_status status = upload(a->soft, rows, a->n, p, a->delta, perturb);
    if (status == TM_OK) status = tm__model_forward(model, a->soft->tape, &p->batch, &forward, &hidden);
    if (status == TM_OK) status = tm__model_logits(model, a->soft->tape, hidden, p->row, (int64_t)a->n, logits);
    tm__tape_reset(a->soft->tape);
    dev->release(dev, perturb, bytes);
    return status;
}

/* Appends the likeliest token to every row; those that end leave. */
static tm_status advance(answering *a, const char *logits) {
    const tm_device *dev = a->soft->model->dev;
    size_t kept = 0, row_bytes = (size_t)a->soft->model->config.vocab * tm__dtype_size(dev->act);
    for (size_t i = 0; i < a->n; i++) {
        int32_t id = tm__sampler_pick(a->sampler, logits + i * row_bytes, dev->act, NULL);
        bool ends = false;
        for (size_t k = 0; k < a->stops; k++) ends |= a->stop[k] == id;
        if (ends) continue;
        TM__TRY(tm_ids_push(a->texts[i], id));
        a->rows[kept] = a->rows[i];
        a->texts[kept] = a->texts[i];
        a->delta[kept++] = a->delta[i];
    }
    a->n = kept;
    return TM_OK;
}

static tm_status answer_step(answering *a) {
    packed p = {0};
    tm_ids *ids = tm__alloc(a->n, sizeof *ids);
    tm__soft_row *rows = tm__alloc(a->n, sizeof *rows);
    size_t vocab = (size_t)a->soft->model->config.vocab;
    char *logits = tm__alloc(a->n * vocab, tm__dtype_size(a->soft->model->dev->act));
    for (size_t i = 0; ids && rows && i < a->n; i++) {
        ids[i] = *a->texts[i];
        rows[i] = *a->rows[i];
    }
    tm_status status = ids && rows && logits ? pack(rows, ids, a->n, &p) : tm__fail_memory();
    if (status == TM_OK) status = next_logits(a, &p, rows, logits);
    if (status == TM_OK) status = advance(a, logits);
    packed_release(&p);
    free(ids);
    free(rows);
    free(logits);
    return status;
}

tm_status tm__soft_answer(const tm__soft *soft, const tm__soft_row *rows, size_t n, const double *const *delta,
                          const int32_t *stop, size_t stops, int64_t max_new_tokens, tm_ids *answers) {
    tm_generate_options greedy;
    tm_options_default(tm_generate_option_table, &greedy);
    answering a = {.soft = soft, .n = n, .stop = stop, .stops = stops};
    tm_ids *texts = tm__zalloc(n, sizeof *texts);
    a.rows = tm__alloc(n, sizeof *a.rows);
    a.texts = tm__alloc(n, sizeof *a.texts);
    a.delta = tm__alloc(n, sizeof *a.delta);
    tm_status status = texts && a.rows && a.texts && a.delta ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__sampler_create(soft->model->config.vocab, &greedy, &a.sampler);
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        a.rows[i] = &rows[i];
        a.texts[i] = &texts[i];
        a.delta[i] = delta[i];
        for (int64_t t = 0; t < rows[i].ask && status == TM_OK; t++)
            status = tm_ids_push(&texts[i], rows[i].ids.data[t]);
    }
    for (int64_t t = 0; t < max_new_tokens && a.n > 0 && status == TM_OK; t++) status = answer_step(&a);
    for (size_t i = 0; i < n && status == TM_OK; i++)
        for (size_t t = (size_t)rows[i].ask; t < texts[i].len && status == TM_OK; t++)
            status = tm_ids_push(&answers[i], texts[i].data[t]);
    for (size_t i = 0; texts && i < n; i++) tm_ids_free(&texts[i]);
    tm__sampler_free(a.sampler);
    free(texts);
    free(a.rows);
    free(a.texts);
    free(a.delta);
    return status;
}
