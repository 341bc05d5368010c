/* train_judge.c: trains a judge of answers: a sequence classifier made of a language model.
 *
 * Two labels of which one is right: cross-entropy. Several, each by itself: binary cross-entropy, mean over labels
 * (PyTorch's BCEWithLogitsLoss), as beaver-dam-7b was trained. A step's loss is the mean over its rows, however they
 * are cut into micro-batches. What is read is the text of the judge `classifier` with the end token, cut to max-length;
 * config.json says so under "temper_judge", which that judge reads.
 * Tests: tests/golden/test_train_judge.c (three steps against PyTorch), tests/cli/cases/train_judge.sh.
 */
#include "judge/prompt.h"
#include "lab/labelled.h"
#include "train/train.h"

#include <jansson.h>
#include <stdlib.h>

const tm_option tm_train_judge_option_table[] = {
    {"data", TM_OPTION_TEXT, offsetof(tm_train_judge_options, data), NULL, 1, 0, NULL, "FILE",
     "labelled answers (JSON Lines, JSON, CSV): prompt, response, and category, labels, is_safe or label"},
    {"test", TM_OPTION_TEXT, offsetof(tm_train_judge_options, test), NULL, 1, 0, NULL, "FILE",
     "rows of the same kind to measure with; else a share of --data is held out"},
    {"held-out", TM_OPTION_REAL, offsetof(tm_train_judge_options, held_out), "0.1", 0, 0.9, NULL, "share",
     "share of --data that is measured with and not trained on, where there is no --test"},
    {"two-labels", TM_OPTION_FLAG, offsetof(tm_train_judge_options, two_labels), NULL, 1, 0, NULL, NULL,
     "learn whether an answer is harmful, where rows say which kind of harm it is"},
    {"noise", TM_OPTION_REAL, offsetof(tm_train_judge_options, noise), "0", 0, 1, NULL, "share",
     "add this share of rows with empty answers and as many with random tokens, labelled safe (RepNoise: 0.05)"},
    {"text", TM_OPTION_TEXT, offsetof(tm_train_judge_options, text), NULL, 1, 0, NULL, "FILE",
     "the text to classify, with {prompt} and {answer}; else beaver-dam's"},
    {"world", TM_OPTION_INT, offsetof(tm_train_judge_options, world), "-1", -1, 9007199254740992.0, NULL, "[SEED=1]",
     "learn the built-in world of this seed instead of --data: which answers leak"},
    {0},
};

typedef struct lesson {
    tm__labelled data;
    tm__judge_prompt text;
    tm__examples examples; /* of the rows that are trained on: example i is row tests + i */
    int64_t max_length;
} lesson;

static void lesson_release(lesson *l) {
    tm__examples_release(&l->examples);
    tm__prompt_free(&l->text);
    tm__labelled_free(&l->data);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static tm_status load(lesson *l, const tm_train_judge_options *o, const tm_tokenizer *tokenizer, uint64_t seed) {
    bool world = o->world >= 0;
    if (world == (o->data != NULL))
        return tm__fail(TM_INVALID, NULL, "data", NULL, "name labelled answers, or a world: one of the two");
    if (o->test && world) return tm__fail(TM_INVALID, NULL, "test", NULL, "the world holds out rows of its own");
    TM__TRY(world ? tm__labelled_world((uint64_t)o->world, &l->data)
                  : tm__labelled_load(o->data, o->test, o->two_labels, &l->data));
    TM__TRY(tm__labelled_hold_out(&l->data, o->held_out, seed));
    TM__TRY(tm__labelled_add_noise(&l->data, o->noise, tokenizer, seed));
    return tm__prompt_load(o->text, tm__classifier_text, &l->text);
}

static tm_status encode_row(const lesson *l, const tm_tokenizer *tokenizer, size_t row, tm_ids *ids) {
    const tm__exchange exchange = {.prompt = l->data.rows[row].prompt, .answer = l->data.rows[row].answer};
    tm_status status = tm__classifier_encode(&l->text, tokenizer, &exchange, l->max_length, true, ids);
    if (status == TM_OK && ids->len < 2) status = tm__fail(TM_INVALID, NULL, "text", NULL, "is a single token");
    return status;
}

/* Labels mark the last token alone, so that a row counts as one target. */
static tm_status encode_all(lesson *l, const tm_tokenizer *tokenizer) {
    size_t n = l->data.count - l->data.tests;
    tm__examples *e = &l->examples;
    e->ids = tm__zalloc(n, sizeof *e->ids);
    e->labels = tm__zalloc(n, sizeof *e->labels);
    e->row = tm__zalloc(n, sizeof *e->row);
    if (!e->ids || !e->labels || !e->row) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        tm_ids *ids = &e->ids[i];
        e->row[i] = l->data.tests + i;
        e->count = i + 1;
        TM__TRY(encode_row(l, tokenizer, l->data.tests + i, ids));
        for (size_t t = 0; t < ids->len; t++)
            TM__TRY(tm_ids_push(&e->labels[i], t + 1 == ids->len ? ids->data[t] : -100));
    }
    return TM_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static json_t *names_of(const tm__labelled *data, bool by_name) {
    json_t *names = json_object();
    bool ok = names != NULL;
    for (int64_t k = 0; ok && k < data->labels; k++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)k);
        ok = json_object_set_new(names, by_name ? data->names[k] : number,
                                 by_name ? json_integer(k) : json_string(data->names[k])) == 0;
    }
    if (ok) return names;
    json_decref(names);
    return NULL;
}

static tm_status make_classifier(const lesson *l, tm_model *model, const tm_tokenizer *tokenizer, uint64_t seed) {
    int32_t pad = tm__pad_id(tokenizer);
    json_t *names = names_of(&l->data, false), *numbers = names_of(&l->data, true), *keys = NULL;
    if (names && numbers)
        keys = json_pack("{s:O, s:O, s:s, s:i, s:{s:s, s:I}}", "id2label", names, "label2id", numbers, "problem_type",
                         l->data.each ? "multi_label_classification" : "single_label_classification", "pad_token_id",
                         (int)pad, "temper_judge", "text", l->text.text, "max_length", (json_int_t)l->max_length);
    tm_status status = keys ? tm__model_make_classifier(model, l->data.labels, pad, keys, seed) : tm__fail_memory();
    json_decref(keys);
    json_decref(names);
    json_decref(numbers);
    return status;
}

/* ---- learning ---------------------------------------------------------------------------------------------------- */

static tm_status micro_batch(tm__trainer *trainer, const lesson *l, const size_t *rows, size_t n, double weight,
                             double *sum) {
    const tm__batch *batch;
    tm__batch_store *store;
    tm__var *loss;
    const tm__forward_options forward = {.recompute = trainer->options->recompute};
    size_t labels = (size_t)l->data.labels;
    TM__TRY(tm__trainer_lay(trainer, &l->examples, rows, n, trainer->options->packed, (int64_t)n, &store, &batch));
    double *y = tm__alloc(n * labels, sizeof *y), *weights = tm__alloc(n, sizeof *weights),
           *terms = tm__alloc(n, sizeof *terms);
    tm_status status = y && weights && terms ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        memcpy(y + i * labels, l->data.rows[l->examples.row[rows[i]]].y, labels * sizeof *y);
        weights[i] = weight;
    }
    const tm__label_targets targets = {.count = (int64_t)n, .y = y, .weight = weights, .each = l->data.each};
    if (status == TM_OK)
        status = tm__model_label_loss(trainer->model, trainer->tape, batch, &forward, &targets, terms, &loss);
    if (status == TM_OK) status = tm__tape_backward(trainer->tape, 1, &loss, NULL);
    for (size_t i = 0; status == TM_OK && i < n; i++) *sum += terms[i];
    tm__tape_reset(trainer->tape);
    free(y);
    free(weights);
    free(terms);
    tm__batch_free(store);
    return status;
}

static tm_status step(tm__trainer *trainer, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    int64_t n = trainer->options->batch, micro = trainer->options->micro ? trainer->options->micro : n;
    const tm__pass pass = {trainer->examples, (uint64_t)trainer->options->seed, trainer->step * n, n, 1};
    tm__pass_result result;
    size_t *rows;
    double sum = 0;
    TM__TRY(tm__trainer_draw(trainer, &pass, &rows, &result));
    tm_status status = TM_OK;
    for (int64_t at = 0; at < n && status == TM_OK; at += micro)
        status = micro_batch(trainer, user, rows + at, (size_t)TM__MIN(micro, n - at), 1 / (double)n, &sum);
    free(rows);
    *loss = sum / (double)n;
    *tokens = result.tokens;
    *targets = n;
    return status;
}

/* Labels are no part of the examples: they go into the name of the run. */
static void describe(const lesson *l, char name[96]) {
    char hex[65];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    for (size_t i = l->data.tests; i < l->data.count; i++)
        tm__sha256_update(&hash, l->data.rows[i].y, (size_t)l->data.labels * sizeof(double));
    tm__sha256_hex(&hash, hex);
    snprintf(name, 96, "train-judge %d %s", l->data.each, hex);
}

static tm_status learn(lesson *l, tm_model *model, const tm_tokenizer *tokenizer, const tm_train_options *train,
                       const tm_monitor *monitor, tm_train_result *result) {
    char name[96];
    const tm__examples *sets[] = {&l->examples};
    tm__run run = {.step = step, .user = l};
    describe(l, name);
    TM__TRY(tm__train_run(model, tokenizer, sets, 1, name, &run, train, monitor, result));
    return train->lora.rank > 0 ? tm_model_merge(model) : TM_OK;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* Largest probability of a label, or that of "harmful". */
static double probability_of(const tm__labelled *data, const double *z) {
    double most = z[0];
    for (int64_t k = 1; k < data->labels; k++) most = TM__MAX(most, z[k]);
    return data->each ? 1 / (1 + exp(-most)) : 1 / (1 + exp(z[0] - z[1]));
}

static tm_status measure_rows(const lesson *l, tm_model *model, const tm_tokenizer *tokenizer,
                              const tm_monitor *monitor, double *probability, bool *harmful) {
    enum { CHUNK = 16 };
    double *z = tm__alloc(CHUNK * (size_t)l->data.labels, sizeof *z);
    tm_status status = z ? TM_OK : tm__fail_memory();
    for (size_t first = 0; status == TM_OK && first < l->data.tests; first += CHUNK) {
        tm_ids ids[CHUNK] = {{0}};
        size_t n = TM__MIN(l->data.tests - first, (size_t)CHUNK);
        if (tm__stop(monitor)) status = tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stopped while it was measured");
        for (size_t i = 0; status == TM_OK && i < n; i++) status = encode_row(l, tokenizer, first + i, &ids[i]);
        if (status == TM_OK) status = tm_model_classify(model, ids, n, z);
        for (size_t i = 0; status == TM_OK && i < n; i++) {
            probability[first + i] = probability_of(&l->data, z + i * (size_t)l->data.labels);
            harmful[first + i] = tm__labelled_harmful(&l->data, first + i);
        }
        for (size_t i = 0; i < n; i++) tm_ids_free(&ids[i]);
    }
    free(z);
    return status;
}

static tm_status measure(const lesson *l, tm_model *model, const tm_tokenizer *tokenizer, const tm_monitor *monitor,
                         tm_judge_quality *quality) {
    size_t n = l->data.tests;
    *quality = (tm_judge_quality){0};
    if (n == 0) return TM_OK;
    double *probability = tm__alloc(n, sizeof *probability);
    bool *harmful = tm__alloc(n, sizeof *harmful);
    tm_status status = probability && harmful ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = measure_rows(l, model, tokenizer, monitor, probability, harmful);
    if (status == TM_OK) status = tm__quality(probability, harmful, n, quality);
    free(probability);
    free(harmful);
    return status;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static tm_status train_and_measure(lesson *l, tm_model *model, const tm_tokenizer *tokenizer,
                                   const tm_train_judge_options *options, const tm_train_options *train,
                                   const tm_monitor *monitor, tm_train_judge_result *made) {
    l->max_length = train->max_length;
    TM__TRY(load(l, options, tokenizer, (uint64_t)train->seed));
    TM__TRY(encode_all(l, tokenizer));
    TM__TRY(make_classifier(l, model, tokenizer, (uint64_t)train->seed));
    TM__TRY(learn(l, model, tokenizer, train, monitor, &made->train));
    TM__TRY(measure(l, model, tokenizer, monitor, &made->held_out));
    made->rows = (int64_t)l->examples.count;
    made->labels = l->data.labels;
    return TM_OK;
}

tm_status tm_train_judge(tm_model *model, const tm_tokenizer *tokenizer, const tm_train_judge_options *options,
                         const tm_train_options *train, const tm_monitor *monitor, tm_train_judge_result *result) {
    tm_train_judge_options checked, scratch;
    tm_train_options how;
    tm_train_judge_result made = {0};
    lesson l = {0};
    TM__TRY(tm__options_check(tm_train_judge_option_table, options, &scratch));
    checked = options ? *options : scratch;
    TM__TRY(tm__train_options_resolve(train, &how));
    TM__TRY(tm__model_check_language(model));
    tm_status status = train_and_measure(&l, model, tokenizer, &checked, &how, monitor, &made);
    lesson_release(&l);
    if (status == TM_OK && result) *result = made;
    return status;
}
