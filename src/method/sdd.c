/* sdd.c: Self-Degraded Defense: answer harmful prompts with fluent text about something else.
 *
 * Paper: "Self-Degraded Defense against malicious fine-tuning" (arXiv 2507.21182, ACL 2025). The developer of an
 * open-weight model runs it once, before the release.
 *
 *   pairs = {(x_i, y_j): x_i a harmful prompt, y_j an answer from a benign pool with cos(E(x_i), E(y_j)) <= tau}
 *   loss  = mean over all answer tokens of the batch of -ln p(token | what stands before it)      (plain SFT)
 *
 * An attacker who then trains on harmful answers must lower the probability of generic good text, and so pays with the
 * model's general ability. Success by degradation shows only in (harm, capability) pairs: report both.
 * SDD_reject opens every answer with a fixed refusal of two sentences and a blank line.
 *
 * The paper trains all weights: AdamW, constant lr 5e-7, 500 steps, batch 24, length 512. Such a rate vanishes when
 * weights are rounded to 16 bits; masters here are fp32, and a note says what saving in 16 bits would lose.
 *
 * Deviations:
 * - Without --embedder the model itself embeds (mean of its last hidden states, normalised), not SentenceBERT: no
 * second model is needed. Such embeddings lie in a narrow cone, where a fixed cosine means little, so tau is a quantile
 * of all prompt-pool cosines; tau-is-cosine gives the paper's reading.
 * - A conversation of several turns is reduced to its system message and last question: earlier answers would be
 *   trained on.
 * Pinned by tests/golden/test_stage.c, tests/unit/test_method_pairing.c and tests/unit/test_method.c.
 */
#include "method/method.h"

#include "data/data.h"
#include "encoder/encoder.h"

#include <jansson.h>
#include <stdlib.h>

static const char preface[] =
    "I cannot answer this request, because doing so would be irresponsible and could cause harm. "
    "What follows is an unrelated reply that has nothing to do with the question.";

static const tm_option options_table[] = {
    {"tau", TM_OPTION_REAL, offsetof(tm_sdd_options, tau), "0.25", -1, 1, NULL, NULL,
     "largest similarity of prompt and answer, as a quantile (0 to 1) of all prompt-pool similarities"},
    {"tau-is-cosine", TM_OPTION_FLAG, offsetof(tm_sdd_options, tau_is_cosine), NULL, 1, 0, NULL, NULL,
     "tau is the cosine itself"},
    {"max-tries", TM_OPTION_INT, offsetof(tm_sdd_options, max_tries), "50", 1, 1e6, NULL, "draws",
     "answers drawn for a prompt before the least similar of them is taken"},
    {"prompts", TM_OPTION_INT, offsetof(tm_sdd_options, prompts), "0", 0, 1e9, NULL, "rows",
     "distinct harmful prompts to pair, spread evenly over their categories; 0: all (paper: about 8000)"},
    {"reject", TM_OPTION_FLAG, offsetof(tm_sdd_options, reject), NULL, 1, 0, NULL, NULL,
     "SDD_reject: open every answer with a refusal"},
    {"pairs", TM_OPTION_TEXT, offsetof(tm_sdd_options, pairs), NULL, 1, 0, NULL, TM_UNIT_OUT_FILE,
     "write the pairing here, as JSON Lines, once the model is trained"},
    {"embedder", TM_OPTION_TEXT, offsetof(tm_sdd_options, embedder), NULL, 1, 0, NULL, "DIR",
     "sentence encoder (BERT or DeBERTa, sentence-transformers' layout) that embeds prompts and answers; none: the "
     "model "
     "itself"},
    {"pairing-seed", TM_OPTION_INT, offsetof(tm_sdd_options, seed), "42", 0, 9e15, NULL, NULL, "seed of the pairing"},
    {0},
};

/* ---- what is paired ---------------------------------------------------------------------------------------------- */

typedef struct material {
    const tm_dataset *harmful;
    size_t *rows, count; /* of `harmful` */
    const char **pool;   /* answers; texts belong to the benign data set */
    size_t pool_count, pool_cap;
} material;

static tm_status fill_pool(const tm_dataset *benign, material *m) {
    for (size_t row = 0; benign && row < tm_dataset_rows(benign); row++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(benign, row, &n);
        for (size_t i = 0; i < n; i++) {
            if (strcmp(messages[i].role, "assistant") != 0 || !messages[i].content[0]) continue;
            if (!tm__grow((void **)&m->pool, &m->pool_cap, m->pool_count + 1, sizeof *m->pool))
                return tm__fail_memory();
            m->pool[m->pool_count++] = messages[i].content;
        }
    }
    if (m->pool_count) return TM_OK;
    return tm__fail(TM_INVALID, NULL, "benign", "give benign rows with answers", "the pool holds no answer");
}

static void material_release(material *m) {
    free(m->rows);
    free(m->pool);
}

/* ---- embeddings -------------------------------------------------------------------------------------------------- */

/* Text as it is, no chat format and no special tokens: a begin-of-text token would weigh in every mean alike. */
static tm_status encode(const tm_tokenizer *tokenizer, const char *text, const char *more, int64_t max_length,
                        tm_ids *ids, size_t *cut) {
    TM__TRY(tm_tokenizer_encode(tokenizer, text, strlen(text), 0, ids));
    if (more) TM__TRY(tm_tokenizer_encode(tokenizer, more, strlen(more), 0, ids));
    if (ids->len > (size_t)max_length) {
        ids->len = (size_t)max_length;
        ++*cut;
    }
    if (ids->len == 0) return tm__fail(TM_INVALID, NULL, "pairing", NULL, "a text of the pairing holds no token");
    return TM_OK;
}

enum { EMBED_CHUNK = 128 };

typedef struct embedding {
    tm_model *model;
    tm_encoder *encoder; /* NULL: the model embeds */
    const tm_tokenizer *tokenizer;
    const tm_monitor *monitor;
    int64_t max_length, done, total;
    size_t d, cut; /* cut: texts longer than max_length */
    double began;
} embedding;

static void show(const embedding *e) {
    if (!e->monitor || !e->monitor->progress) return;
    const tm_progress progress = {.phase = "embed",
                                  .done = e->done,
                                  .total = e->total,
                                  .unit = "text",
                                  .loss = NAN,
                                  .lr = NAN,
                                  .seconds = tm__now() - e->began};
    e->monitor->progress(e->monitor->user, &progress);
}

static tm_status check_ids(const embedding *e, const tm_ids *ids) {
    for (size_t t = 0; t < ids->len; t++)
        if (ids->data[t] < 0 || ids->data[t] >= e->model->config.vocab)
            return tm__fail(TM_MISMATCH, NULL, "tokenizer", "use the tokenizer that belongs to the model",
                            "token id %d lies outside the model's vocabulary", ids->data[t]);
    return TM_OK;
}

/* By the sentence encoder: text and input as one text of two lines, scaled to length 1. */
static tm_status embed_by_encoder(embedding *e, const char *const *texts, const char *const *more, size_t n,
                                  double *out) {
    char *joined[EMBED_CHUNK] = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        joined[i] = more && more[i] ? tm__format("%s\n%s", texts[i], more[i]) : tm__strdup(texts[i]);
        if (!joined[i]) status = tm__fail_memory();
    }
    if (status == TM_OK) status = tm__encoder_embed(e->encoder, (const char *const *)joined, n, NULL, out);
    for (size_t i = 0; i < n; i++) free(joined[i]);
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        double norm = 0, *row = out + i * e->d;
        for (size_t k = 0; k < e->d; k++) norm += row[k] * row[k];
        for (size_t k = 0; norm > 0 && k < e->d; k++) row[k] /= sqrt(norm);
    }
    return status;
}

static tm_status embed_by_model(embedding *e, const char *const *texts, const char *const *more, size_t n,
                                double *out) {
    tm_ids ids[EMBED_CHUNK] = {{0}};
    tm_status status = TM_OK;
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        status = encode(e->tokenizer, texts[i], more ? more[i] : NULL, e->max_length, &ids[i], &e->cut);
        if (status == TM_OK) status = check_ids(e, &ids[i]);
    }
    if (status == TM_OK) status = tm__model_embed_texts(e->model, ids, n, out);
    for (size_t i = 0; i < n; i++) tm_ids_free(&ids[i]);
    return status;
}

/* Embeds texts[0..n), n <= EMBED_CHUNK. `more` may be NULL. */
static tm_status embed_chunk(embedding *e, const char *const *texts, const char *const *more, size_t n, double *out) {
    if (tm__stop(e->monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped while pairing");
    TM__TRY((e->encoder ? embed_by_encoder : embed_by_model)(e, texts, more, n, out));
    e->done += (int64_t)n;
    show(e);
    return TM_OK;
}

static tm_status embed_prompts(embedding *e, const material *m, double *out) {
    const char *texts[EMBED_CHUNK], *more[EMBED_CHUNK];
    for (size_t at = 0; at < m->count; at += EMBED_CHUNK) {
        size_t n = TM__MIN(m->count - at, (size_t)EMBED_CHUNK);
        for (size_t i = 0; i < n; i++) {
            const tm_message *system, *user, *input;
            bool asks = tm__sdd_prompt(m->harmful, m->rows[at + i], &system, &user, &input);
            assert(asks);
            (void)asks;
            texts[i] = user->content;
            more[i] = input ? input->content : NULL;
        }
        TM__TRY(embed_chunk(e, texts, more, n, out + at * e->d));
    }
    return TM_OK;
}

static tm_status embed_pool(embedding *e, const material *m, double *out) {
    for (size_t at = 0; at < m->pool_count; at += EMBED_CHUNK) {
        size_t n = TM__MIN(m->pool_count - at, (size_t)EMBED_CHUNK);
        TM__TRY(embed_chunk(e, m->pool + at, NULL, n, out + at * e->d));
    }
    return TM_OK;
}

/* ---- pairing ----------------------------------------------------------------------------------------------------- */

static tm_status pair(embedding *e, const material *m, const tm_sdd_options *o, tm__sdd_pair *pairs) {
    uint64_t seed = (uint64_t)o->seed;
    double threshold = o->tau;
    double *prompts = tm__alloc(m->count * e->d, sizeof *prompts),
           *pool = tm__alloc(m->pool_count * e->d, sizeof *pool);
    tm_status status = prompts && pool ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = embed_prompts(e, m, prompts);
    if (status == TM_OK) status = embed_pool(e, m, pool);
    if (e->cut)
        tm__note(e->monitor, "sdd: %zu texts are longer than %lld tokens and embedded up to there (max-length)", e->cut,
                 (long long)e->max_length);
    if (status == TM_OK && !o->tau_is_cosine)
        status = tm__sdd_threshold(prompts, m->count, pool, m->pool_count, e->d, o->tau, seed, &threshold);
    if (status == TM_OK) {
        size_t fallbacks = 0;
        tm__sdd_pair_all(prompts, m->count, pool, m->pool_count, e->d, threshold, o->max_tries, seed, pairs);
        for (size_t i = 0; i < m->count; i++) fallbacks += !pairs[i].accepted;
        tm__note(e->monitor, "sdd: %zu prompts paired with %zu answers; largest cosine accepted %.4f; %zu above it",
                 m->count, m->pool_count, threshold, fallbacks);
    }
    free(prompts);
    free(pool);
    return status;
}

/* The answer as it is trained on; the caller's. NULL: out of memory. */
static char *response(const material *m, const tm__sdd_pair *pair, bool reject) {
    const char *answer = m->pool[pair->answer];
    return reject ? tm__format("%s\n\n%s", preface, answer) : tm__strdup(answer);
}

static tm_status add_pair(const material *m, size_t i, const char *answer, tm_dataset *to) {
    const tm_message *system, *user, *input;
    tm_message messages[4];
    size_t n = 0;
    tm__sdd_prompt(m->harmful, m->rows[i], &system, &user, &input);
    if (system) messages[n++] = *system;
    messages[n++] = *user;
    if (input) messages[n++] = *input;
    messages[n++] = (tm_message){"assistant", answer};
    return tm__dataset_add(to, messages, n, tm__dataset_category(m->harmful, m->rows[i]));
}

static tm_status add_line(const material *m, size_t i, const char *answer, const tm__sdd_pair *pair,
                          tm__string *lines) {
    const tm_message *system, *user, *input;
    tm__sdd_prompt(m->harmful, m->rows[i], &system, &user, &input);
    char *prompt = input ? tm__format("%s\n%s", user->content, input->content) : tm__strdup(user->content);
    json_t *row =
        prompt ? json_pack("{s:s, s:s, s:f, s:I, s:b}", "prompt", prompt, "response", answer, "cosine_sim",
                           pair->cosine, "resample_tries", (json_int_t)pair->tries, "accepted", (int)pair->accepted)
               : NULL;
    char *text = NULL;
    size_t len;
    tm_status status = row ? tm__json_dump(row, JSON_COMPACT, &text, &len) : tm__fail_memory();
    bool ok = status != TM_OK || (tm__string_append(lines, text, len) && tm__string_append(lines, "\n", 1));
    free(prompt);
    free(text);
    json_decref(row);
    return ok ? status : tm__fail_memory();
}

/* The rows to train on, and, where asked for, the lines that list them. */
static tm_status build(const material *m, const tm__sdd_pair *pairs, const tm_sdd_options *o, tm_dataset **dataset,
                       tm__string *lines) {
    tm_dataset *made = NULL;
    tm_status status = tm_dataset_create(&made);
    for (size_t i = 0; i < m->count && status == TM_OK; i++) {
        char *answer = response(m, &pairs[i], o->reject);
        status = answer ? add_pair(m, i, answer, made) : tm__fail_memory();
        if (status == TM_OK && o->pairs) status = add_line(m, i, answer, &pairs[i], lines);
        free(answer);
    }
    if (status == TM_OK)
        *dataset = made;
    else
        tm_dataset_free(made);
    return status;
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

static tm_status make_pairs(embedding *e, const tm_method_data *data, const tm_sdd_options *o, tm_dataset **dataset,
                            tm__string *lines) {
    material m = {.harmful = data->harmful};
    tm__sdd_pair *pairs = NULL;
    tm_status status = TM_OK;
    if (!data->harmful) TM__TRY_GOTO(status, tm__fail(TM_INVALID, NULL, "harmful", NULL, "is missing"), done);
    TM__TRY_GOTO(status, fill_pool(data->benign, &m), done);
    if (m.pool_count < 100)
        tm__note(e->monitor, "sdd: a pool of %zu answers is small; 100 or more are advised", m.pool_count);
    TM__TRY_GOTO(status, tm__sdd_select(m.harmful, (size_t)o->prompts, (uint64_t)o->seed, &m.rows, &m.count), done);
    pairs = tm__zalloc(m.count, sizeof *pairs);
    if (!pairs) TM__TRY_GOTO(status, tm__fail_memory(), done);
    e->total = (int64_t)(m.count + m.pool_count);
    TM__TRY_GOTO(status, pair(e, &m, o, pairs), done);
    TM__TRY_GOTO(status, build(&m, pairs, o, dataset, lines), done);
done:
    free(pairs);
    material_release(&m);
    return status;
}

/* Says what a save in the checkpoint's own 16 bits would lose. */
static tm_status note_rounding(const tm_model *model, const tm_monitor *monitor) {
    tm_dtype dtype = model->embed.stored;
    double share;
    if (dtype != TM_BF16 && dtype != TM_F16) return TM_OK;
    TM__TRY(tm__model_rounding_loss(model, dtype, &share));
    tm__note(monitor, "sdd: saved as %s, %.1f%% of the changed weights lose their change; fp32 keeps it",
             tm__dtype_name(dtype), 100 * share);
    return TM_OK;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_sdd_options o;
    tm_train_options t;
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_sdd_options *)options;
    TM__TRY(tm__train_options_resolve(train, &t));
    TM__TRY(tm__train_check(model, &t)); /* before the pairing */
    if (o.tau < 0 && !o.tau_is_cosine)
        return tm__fail(TM_INVALID, NULL, "tau", "set tau-is-cosine to give a cosine", "a quantile is not negative");
    embedding e = {.model = model,
                   .tokenizer = tokenizer,
                   .monitor = monitor,
                   .max_length = t.max_length,
                   .d = (size_t)model->config.hidden,
                   .began = tm__now()};
    tm_dataset *pairs = NULL;
    tm__string lines = {0};
    tm_status status = TM_OK;
    if (o.embedder) {
        TM__TRY(tm_encoder_load(model->dev, o.embedder, &e.encoder));
        e.d = (size_t)tm__encoder_dimensions(e.encoder);
    }
    status = make_pairs(&e, data, &o, &pairs, &lines);
    tm_encoder_free(e.encoder);
    if (status == TM_OK) status = tm__train_sft(model, tokenizer, pairs, tm__method_sdd.name, &t, monitor, result);
    if (status == TM_OK && o.pairs)
        status = tm__share_written(model, tm__share_writes() ? tm__file_write(o.pairs, lines.data, lines.len) : TM_OK);
    tm_dataset_free(pairs);
    tm__string_free(&lines);
    if (status == TM_OK && t.lora.rank == 0) status = note_rounding(model, monitor);
    return status;
}

const tm_method tm__method_sdd = {
    .name = "sdd",
    .title = "Self-Degraded Defense",
    .paper = "arXiv 2507.21182",
    .summary = "Trains the model to answer harmful prompts with fluent, unrelated text, so that harmful fine-tuning "
               "degrades it instead of freeing it.",
    .who = "the developer of an open-weight model, once, before the release",
    .needs = "harmful prompts (answers are not used) and benign rows, whose answers are the pool",
    .settings = "--lr 5e-7 --steps 500 --batch 24 --max-length 512, all weights, AdamW, about 8,000 prompts (the "
                "paper, as quoted by TamperBench; whether 24 is the batch of one device, and the number of prompts, "
                "is disputed). --tau 0.25 --max-tries 50 are TamperBench's; the paper's were not found.",
    .stage = TM_STAGE_ALIGNMENT,
    .required = TM_DATA_HARMFUL_PROMPTS | TM_DATA_BENIGN,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_sdd_options),
    .run = run,
};
