/* pairs.c: a harmful answer beside a refusal of the same prompt, the mask that tells the two apart, cross-entropy under
 * it.
 *
 *   m[t] = 1 where the two id sequences differ at t;   CE_m: the mean over targets t + 1 with m[t + 1] = 1
 *
 * Both sides of a pair are padded to the longer one. The prompt is the same on both sides, so only answers count.
 *   correct  the model's chat format; m is multiplied by the side's attention mask, so padding is neither a target nor
 *            compared with noise. Nothing but targets is masked.
 *   compat   the published code: "Question: {q}\nAnswer: {a}"; padding that stands beside a token counts as different
 *            and is a target; targets whose id is 0 are lost; where m[t] = 0 the logits are zeroed, so that the first
 *            differing token costs ln V and teaches nothing. Here padding sees the padding before it, which the
 *            framework's attention mask would hide: only hidden states at padding itself differ.
 * A token that stands at the same place in both answers by chance is lost in both modes.
 */
#include "method/repnoise.h"

#include "data/data.h"

#include <stdlib.h>

/* ---- masks ------------------------------------------------------------------------------------------------------- */

tm_status tm__pairs_create(tm__pairs *pairs, size_t most, int mode, int32_t pad) {
    *pairs = (tm__pairs){.mode = mode, .pad = pad, .most = most, .mask = tm__zalloc(most, sizeof *pairs->mask)};
    bool ok = pairs->mask != NULL;
    for (int s = 0; s < TM__SIDES; s++) {
        pairs->side[s].ids = tm__zalloc(most, sizeof *pairs->side[s].ids);
        pairs->side[s].labels = tm__zalloc(most, sizeof *pairs->side[s].labels);
        pairs->blind[s] = tm__zalloc(most, sizeof *pairs->blind[s]);
        ok = ok && pairs->side[s].ids && pairs->side[s].labels && pairs->blind[s];
    }
    if (ok) return TM_OK;
    tm__pairs_release(pairs);
    return tm__fail_memory();
}

void tm__pairs_release(tm__pairs *pairs) {
    for (size_t i = 0; pairs->mask && i < pairs->most; i++) free(pairs->mask[i]);
    free(pairs->mask);
    for (int s = 0; s < TM__SIDES; s++) {
        pairs->side[s].count = pairs->side[s].ids && pairs->side[s].labels ? pairs->most : 0;
        tm__examples_release(&pairs->side[s]);
        free(pairs->blind[s]);
    }
    *pairs = (tm__pairs){0};
}

/* Whether the two rows differ at t; past its end a row holds padding. */
static bool differs(const tm__pairs *pairs, const tm_ids *a, const tm_ids *b, size_t t) {
    int32_t left = t < a->len ? a->data[t] : pairs->pad, right = t < b->len ? b->data[t] : pairs->pad;
    if (pairs->mode == TM__PAIRS_CORRECT && (t >= a->len || t >= b->len)) return true;
    return left != right;
}

/* Labels of one side against the other; *blind counts targets without a gradient. */
static tm_status label_side(const tm__pairs *pairs, const tm_ids *own, const tm_ids *other, tm_ids *labels,
                            int64_t *blind) {
    for (size_t t = 0; t < own->len; t++) {
        bool target = differs(pairs, own, other, t);
        if (target && pairs->mode == TM__PAIRS_COMPAT && t > 0) {
            bool seen = differs(pairs, own, other, t - 1);
            target = own->data[t] != 0;
            *blind += target && !seen;
            target = target && seen;
        }
        TM__TRY(tm_ids_push(labels, target ? own->data[t] : -100));
    }
    return TM_OK;
}

static tm_status mask_harmful(tm__pairs *pairs, size_t row) {
    const tm_ids *harmful = &pairs->side[TM__HARMFUL].ids[row], *refusal = &pairs->side[TM__REFUSAL].ids[row];
    pairs->mask[row] = tm__alloc(harmful->len, 1);
    if (!pairs->mask[row]) return tm__fail_memory();
    for (size_t t = 0; t < harmful->len; t++) pairs->mask[row][t] = differs(pairs, harmful, refusal, t);
    return TM_OK;
}

static void clear_row(tm__pairs *pairs, size_t row) {
    free(pairs->mask[row]);
    pairs->mask[row] = NULL;
    for (int s = 0; s < TM__SIDES; s++) {
        tm_ids_free(&pairs->side[s].ids[row]);
        tm_ids_free(&pairs->side[s].labels[row]);
        pairs->blind[s][row] = 0;
    }
}

tm_status tm__pairs_add(tm__pairs *pairs, tm_ids *harmful, tm_ids *refusal) {
    size_t row = pairs->side[0].count;
    tm__examples *side = pairs->side;
    assert(row < pairs->most);
    side[TM__HARMFUL].ids[row] = *harmful; /* released with the pairs, also when what follows fails */
    side[TM__REFUSAL].ids[row] = *refusal;
    *harmful = *refusal = (tm_ids){0};
    for (int s = 0; s < TM__SIDES && pairs->mode == TM__PAIRS_COMPAT; s++)
        while (side[s].ids[row].len < side[!s].ids[row].len) TM__TRY(tm_ids_push(&side[s].ids[row], pairs->pad));
    for (int s = 0; s < TM__SIDES; s++)
        TM__TRY(label_side(pairs, &side[s].ids[row], &side[!s].ids[row], &side[s].labels[row], &pairs->blind[s][row]));
    TM__TRY(mask_harmful(pairs, row));
    if (tm__pairs_targets(pairs, TM__HARMFUL, &row, 1) == 0 || tm__pairs_targets(pairs, TM__REFUSAL, &row, 1) == 0) {
        clear_row(pairs, row);
        pairs->dropped++;
        return TM_OK;
    }
    side[TM__HARMFUL].count = side[TM__REFUSAL].count = row + 1;
    return TM_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static tm_status find_prompt(const tm_dataset *rows, size_t row, const char *name, tm__string *key) {
    size_t n;
    const tm_message *m = tm_dataset_row(rows, row, &n);
    bool ok = true;
    key->len = 0;
    for (size_t i = 0; i + 1 < n; i++)
        ok = ok && tm__string_append(key, m[i].role, strlen(m[i].role) + 1) &&
             tm__string_append(key, m[i].content, strlen(m[i].content) + 1);
    if (!ok) return tm__fail_memory();
    if (key->len) return TM_OK;
    return tm__fail(TM_INVALID, NULL, name, "give rows of a prompt and an answer", "row %zu has no prompt", row + 1);
}

static tm_status no_partner(const tm_dataset *rows, size_t row, const char *name, const char *other) {
    size_t n;
    const tm_message *m = tm_dataset_row(rows, row, &n);
    return tm__fail(TM_INVALID, NULL, name, "both files must hold the same prompts",
                    "row %zu (\"%.60s\") finds no row with the same prompt among %s", row + 1,
                    m[n > 1 ? n - 2 : 0].content, other);
}

/* partner[i]: the refusal of harmful row i. Rows that share a prompt share its last refusal. */
static tm_status match_rows(const tm_dataset *harmful, const tm_dataset *refusals, tm__map *map, tm__string *key,
                            size_t *partner, uint8_t *used) {
    size_t n = tm_dataset_rows(harmful), m = tm_dataset_rows(refusals);
    int32_t found;
    for (size_t i = 0; i < m; i++) {
        TM__TRY(find_prompt(refusals, i, "refusals", key));
        if (!tm__map_put(map, key->data, key->len, (int32_t)i)) return tm__fail_memory();
    }
    for (size_t i = 0; i < n; i++) {
        TM__TRY(find_prompt(harmful, i, "harmful", key));
        if (!tm__map_get(map, key->data, key->len, &found)) return no_partner(harmful, i, "harmful", "refusals");
        partner[i] = (size_t)found;
        used[found] = 1;
    }
    for (size_t i = 0; i < m; i++) {
        TM__TRY(find_prompt(refusals, i, "refusals", key));
        if (tm__map_get(map, key->data, key->len, &found) && !used[found])
            return no_partner(refusals, i, "refusals", "harmful");
    }
    return TM_OK;
}

/* "Question: {q}\nAnswer: {a}" with what the tokenizer puts around a text. */
static tm_status encode_plain(const tm__job *job, const tm_dataset *rows, size_t row, tm_ids *ids) {
    const tm_message *system, *user, *input;
    size_t n;
    const tm_message *messages = tm_dataset_row(rows, row, &n);
    tm__string text = {0};
    bool asks = tm__sdd_prompt(rows, row, &system, &user, &input);
    bool ok =
        tm__string_printf(&text, "Question: %s%s%s\nAnswer: %s", asks ? user->content : "", asks && input ? "\n" : "",
                          asks && input ? input->content : "", messages[n - 1].content);
    tm_status status =
        ok ? tm_tokenizer_encode(job->tokenizer, text.data, text.len, TM_ENCODE_BOS_EOS, ids) : tm__fail_memory();
    tm__string_free(&text);
    return status;
}

static tm_status encode_row(const tm__job *job, int mode, const tm_dataset *rows, size_t row, tm_ids *ids,
                            size_t *cut) {
    size_t n;
    const tm_message *messages = tm_dataset_row(rows, row, &n);
    if (mode == TM__PAIRS_COMPAT)
        TM__TRY(encode_plain(job, rows, row, ids));
    else
        TM__TRY(tm_chat_encode(job->tokenizer, (tm_chat_format)job->train.chat, messages, n, false, ids, NULL));
    *cut += ids->len > (size_t)job->train.max_length;
    ids->len = TM__MIN(ids->len, (size_t)job->train.max_length);
    return TM_OK;
}

static tm_status encode_pairs(const tm__job *job, const size_t *partner, tm__pairs *pairs) {
    size_t cut = 0;
    for (size_t i = 0; i < pairs->most; i++) {
        tm_ids harmful = {0}, refusal = {0};
        tm_status status = encode_row(job, pairs->mode, job->data->harmful, i, &harmful, &cut);
        if (status == TM_OK) status = encode_row(job, pairs->mode, job->data->refusals, partner[i], &refusal, &cut);
        if (status == TM_OK) status = tm__pairs_add(pairs, &harmful, &refusal);
        tm_ids_free(&harmful);
        tm_ids_free(&refusal);
        TM__TRY(status);
    }
    if (pairs->side[0].count == 0)
        return tm__fail(TM_INVALID, NULL, "refusals",
                        "give refusals unlike the harmful answers, or a greater max-length",
                        "no position tells a harmful answer from its refusal: every mask is zero");
    if (cut)
        tm__note(job->monitor, "%zu rows of pairs are longer than %lld tokens and cut off there (max-length)", cut,
                 (long long)job->train.max_length);
    if (pairs->dropped)
        tm__note(job->monitor, "%zu of %zu pairs dropped: nothing tells the two answers apart within %lld tokens",
                 pairs->dropped, pairs->most, (long long)job->train.max_length);
    return TM_OK;
}

tm_status tm__pairs_encode(const tm__job *job, int mode, tm__pairs *pairs) {
    size_t n = tm_dataset_rows(job->data->harmful);
    size_t *partner = tm__alloc(n, sizeof *partner);
    uint8_t *used = tm__zalloc(tm_dataset_rows(job->data->refusals), 1);
    tm__map map = {0};
    tm__string key = {0};
    tm_status status = partner && used ? TM_OK : tm__fail_memory();
    *pairs = (tm__pairs){0};
    if (status == TM_OK) status = match_rows(job->data->harmful, job->data->refusals, &map, &key, partner, used);
    if (status == TM_OK) status = tm__pairs_create(pairs, n, mode, tm__pad_id(job->tokenizer));
    if (status == TM_OK) status = encode_pairs(job, partner, pairs);
    if (status != TM_OK) tm__pairs_release(pairs);
    tm__map_free(&map);
    tm__string_free(&key);
    free(partner);
    free(used);
    return status;
}

/* ---- cross-entropy under the mask -------------------------------------------------------------------------------- */

int64_t tm__pairs_targets(const tm__pairs *pairs, int side, const size_t *rows, size_t n) {
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += tm__example_targets(&pairs->side[side], rows[i]) + pairs->blind[side][rows[i]];
    return sum;
}

static tm_status backward(tm__trainer *trainer, tm__var *loss, double factor) {
    tm_device *dev = trainer->model->dev;
    size_t bytes = tm__dtype_size(dev->act);
    void *seed;
    TM__TRY(dev->alloc(dev, bytes, &seed));
    tm_status status = dev->k->fill(dev, seed, factor, 1);
    if (status == TM_OK) status = tm__tape_backward(trainer->tape, 1, &loss, (const void *const *)&seed);
    dev->release(dev, seed, bytes);
    return status;
}

/* Adds the summed cross-entropy of the rows' targets to *sum. */
static tm_status micro_batch(tm__trainer *trainer, const tm__examples *examples, const size_t *rows, size_t n,
                             int64_t total, double factor, double *sum) {
    const tm__forward_options forward = {.recompute = trainer->options->recompute};
    const tm__batch *batch;
    tm__batch_store *store;
    tm__var *loss;
    TM__TRY(tm__trainer_lay(trainer, examples, rows, n, trainer->options->packed, total, &store, &batch));
    double *terms = tm__alloc((size_t)batch->targets.count, sizeof *terms);
    tm_status status = terms ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__model_loss(trainer->model, trainer->tape, batch, &forward, terms, &loss);
    if (status == TM_OK) status = backward(trainer, loss, factor);
    for (int64_t i = 0; status == TM_OK && i < batch->targets.count; i++) *sum += terms[i];
    tm__tape_reset(trainer->tape);
    free(terms);
    tm__batch_free(store);
    return status;
}

tm_status tm__pairs_pass(tm__trainer *trainer, const tm__pairs *pairs, int side, const size_t *rows, size_t n,
                         double factor, tm__pass_result *result) {
    const tm__examples *examples = &pairs->side[side];
    size_t micro = trainer->options->micro ? TM__MIN((size_t)trainer->options->micro, n) : n;
    int64_t total = tm__pairs_targets(pairs, side, rows, n);
    double sum = 0;
    tm__pass_result made = {.targets = total};
    for (size_t at = 0; at < n; at += micro)
        TM__TRY(micro_batch(trainer, examples, rows + at, TM__MIN(micro, n - at), total, factor, &sum));
    for (size_t i = 0; i < n; i++) {
        made.tokens += (int64_t)examples->ids[rows[i]].len;
        sum += (double)pairs->blind[side][rows[i]] * log((double)trainer->model->config.vocab);
    }
    made.loss = sum / (double)total;
    *result = made;
    return TM_OK;
}
