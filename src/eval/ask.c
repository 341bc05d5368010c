/* ask.c: the frame that every suite runs in: items are asked in large batches, noted, scored, counted.
 *
 * Pairs of texts are encoded and cut as lm-evaluation-harness does: what is too long for the model loses its beginning,
 * and whole texts are read in windows that do not overlap, each with one token before it (the last with as many as
 * fit). Tests: tests/unit/test_evaluation.c, tests/golden/test_mcq.c, tests/cli/cases/suites.sh.
 */
#include "eval/suite.h"

#include "data/data.h"
#include "model/model.h"
#include "tokenizer/chat.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

/* Queries of kinds choices and texts, item by item; or prompts of kind answers. */
typedef struct asking {
    tm_evaluation *e;
    tm_model *model;
    const tm_tokenizer *tokenizer;
    const tm_monitor *monitor;
    tm__journal journal; /* path NULL: none */
    char key[65];
    tm__query *queries;
    size_t query_count, query_cap;
    size_t *last;  /* (items) end of its queries */
    size_t done;   /* items answered: but in kind answers, the first ones */
    size_t first;  /* those answered before this run */
    size_t cut;    /* pairs that lost their beginning */
    size_t *asked; /* items that the model is answering */
    tm__arena ids;
} asking;

static tm_status add_query(asking *a, const int32_t *context, size_t context_len, const int32_t *next,
                           size_t next_len) {
    if (!tm__grow((void **)&a->queries, &a->query_cap, a->query_count + 1, sizeof *a->queries))
        return tm__fail_memory();
    tm__query *q = &a->queries[a->query_count], *before = a->query_count ? q - 1 : NULL;
    bool same = before && before->context_len == context_len &&
                memcmp(before->context, context, context_len * sizeof *context) == 0;
    *q = (tm__query){.context_len = context_len, .next_len = next_len};
    q->context = same ? before->context : tm__arena_alloc(&a->ids, context_len, sizeof *context);
    q->next = tm__arena_alloc(&a->ids, next_len, sizeof *next);
    if (!q->context || !q->next) return tm__fail_memory();
    if (!same) memcpy(q->context, context, context_len * sizeof *context);
    memcpy(q->next, next, next_len * sizeof *next);
    a->query_count++;
    return TM_OK;
}

static tm_status add_choice(asking *a, const tm__item *item, tm__choice *choice) {
    tm_ids context = {0}, next = {0};
    int64_t window = a->model->config.max_positions;
    tm_status status = tm__pair_encode(a->tokenizer, choice->context, choice->next, &context, &next);
    choice->tokens = (int64_t)next.len;
    if (status == TM_OK && (next.len == 0 || (int64_t)next.len > window))
        status = tm__fail(TM_UNSUPPORTED, a->e->path, a->e->suite->name, NULL, "row %lld: the choice \"%.60s\" %s",
                          (long long)item->row + 1, choice->text,
                          next.len ? "is longer than the model's window" : "adds no token to its question");
    if (status == TM_OK) {
        size_t total = context.len + next.len, most = (size_t)window + 1;
        size_t off = total > most ? total - most : 0;
        a->cut += off > 0;
        status = add_query(a, context.data + off, context.len - off, next.data, next.len);
    }
    tm_ids_free(&context);
    tm_ids_free(&next);
    return status;
}

static tm_status add_windows(asking *a, tm__item *item) {
    tm_ids ids = {0};
    int64_t window = a->model->config.max_positions;
    int32_t prefix = tm__prefix_id(a->tokenizer);
    tm_status status = tm__text_encode(a->tokenizer, item->text, strlen(item->text), true, &ids);
    if (status == TM_OK && prefix < 0)
        status = tm__fail(TM_MISMATCH, NULL, "tokenizer", NULL, "has neither bos nor eos to begin a text with");
    item->tokens = (int64_t)ids.len;
    for (int64_t at = 0, n; status == TM_OK && at < (int64_t)ids.len; at += n) {
        n = TM__MIN(window, (int64_t)ids.len - at);
        int64_t behind = at + n, from = TM__MAX(behind - window - 1, (int64_t)0);
        if (at == 0)
            status = add_query(a, &prefix, 1, ids.data, (size_t)n);
        else
            status = add_query(a, ids.data + from, (size_t)(at - from), ids.data + at, (size_t)n);
    }
    tm_ids_free(&ids);
    return status;
}

static tm_status make_queries(asking *a) {
    tm_evaluation *e = a->e;
    a->last = tm__alloc(e->count, sizeof *a->last);
    if (!a->last) return tm__fail_memory();
    for (size_t i = 0; i < e->count; i++) {
        tm__item *item = &e->items[i];
        for (size_t k = 0; k < item->choice_count; k++) TM__TRY(add_choice(a, item, &item->choices[k]));
        if (e->suite->kind == TM_SUITE_TEXTS) TM__TRY(add_windows(a, item));
        a->last[i] = a->query_count;
    }
    if (a->cut)
        TM__TRY(tm__evaluation_note(e, "%zu of %zu texts were longer than the model's window and lost their beginning",
                                    a->cut, a->query_count));
    return TM_OK;
}

static void hash_ids(tm__sha256 *hash, const int32_t *ids, size_t n) {
    const uint64_t count = n;
    tm__sha256_update(hash, &count, sizeof count);
    tm__sha256_update(hash, ids, n * sizeof *ids);
}

/* Prompts of the first `count` items, or of those that `chosen` (count) names, in their frame. */
static tm_status make_prompts(const tm_evaluation *e, const size_t *chosen, size_t count, tm_dataset **prompts) {
    tm_dataset *rows = NULL, *framed = NULL;
    TM__TRY(tm_dataset_create(&rows));
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < count; i++) {
        const tm__item *item = &e->items[chosen ? chosen[i] : i];
        status = tm_dataset_add(rows, item->messages, item->message_count);
    }
    if (status == TM_OK) status = tm_dataset_framed(rows, e->options.frame, &framed);
    if (status == TM_OK && framed) {
        tm_dataset_free(rows);
        rows = framed;
    }
    if (status != TM_OK) {
        tm_dataset_free(rows);
        return status;
    }
    *prompts = rows;
    return TM_OK;
}

static tm_status hash_prompts(asking *a, tm__sha256 *hash) {
    tm_evaluation *e = a->e;
    tm_dataset *rows;
    tm_ids ids = {0};
    TM__TRY(make_prompts(e, NULL, e->count, &rows));
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < e->count; i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(rows, i, &n);
        ids.len = 0;
        status = tm_chat_encode(a->tokenizer, (tm_chat_format)e->chat, messages, n, true, &ids, NULL);
        hash_ids(hash, ids.data, ids.len);
    }
    tm_ids_free(&ids);
    tm_dataset_free(rows);
    return status;
}

static tm_status hash_asked(asking *a) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    for (size_t i = 0; i < a->query_count; i++) {
        hash_ids(&hash, a->queries[i].context, a->queries[i].context_len);
        hash_ids(&hash, a->queries[i].next, a->queries[i].next_len);
    }
    if (a->e->suite->kind == TM_SUITE_ANSWERS) TM__TRY(hash_prompts(a, &hash));
    if (a->e->suite->kind != TM_SUITE_ROWS) tm__sha256_hex(&hash, a->e->asked_hash);
    return TM_OK;
}

/* A template's hash is its text's; a fixed format's that of what it makes of one message. */
static tm_status describe_template(asking *a) {
    static const tm_message probe[] = {{"user", "Hello"}};
    tm_evaluation *e = a->e;
    tm_chat_format format = tm_chat_resolve(a->tokenizer, (tm_chat_format)e->chat);
    const char *source = format == TM_CHAT_TEMPLATE ? tm__chat_template_source(a->tokenizer) : NULL;
    char *text = NULL;
    size_t len = source ? strlen(source) : 0;
    tm__sha256 hash;
    if (e->suite->kind != TM_SUITE_ANSWERS) return TM_OK;
    if (!source) TM__TRY(tm_chat_render(a->tokenizer, format, probe, TM__COUNT(probe), true, &text, &len));
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, source ? source : text, len);
    tm__sha256_hex(&hash, e->template_hash);
    free(text);
    e->template_name = tm_chat_format_name(format);
    const char *from = source ? tm_tokenizer_template(a->tokenizer) : NULL;
    e->template_from = from ? tm__keep(e, "%s", from) : NULL;
    return from && !e->template_from ? tm__fail_memory() : TM_OK;
}

static tm_status describe(asking *a) {
    tm_evaluation *e = a->e;
    const tm_device *device = a->model->dev;
    const char *directory = a->model->directory;
    e->device = tm_device_name(device);
    e->instruction_set = tm_device_instruction_set(device);
    e->precision = tm_device_precision(device);
    free(e->model_directory);
    e->model_directory = directory ? tm__strdup(directory) : NULL;
    if (directory && !e->model_directory) return tm__fail_memory();
    TM__TRY(describe_template(a));
    return tm_model_hash(a->model, e->model_hash);
}

/* What decides an answer: the items are as many and the same where what was asked is. */
static void make_key(asking *a) {
    const tm_evaluation *e = a->e;
    tm__sha256 hash;
    char text[256];
    int n =
        snprintf(text, sizeof text, "%s %s %s %s %s %s %s %lld %zu", TM_VERSION, e->suite->name, e->model_hash,
                 e->asked_hash, e->device, e->instruction_set, e->precision, (long long)e->max_new_tokens, e->count);
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, text, n > 0 ? TM__MIN((size_t)n, sizeof text) : 0);
    tm__sha256_hex(&hash, a->key);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static bool take_real(const json_t *value, double *to) {
    if (!json_is_number(value)) return false;
    *to = json_number_value(value);
    return true;
}

/* Log-likelihoods of an item's choices or of its text, in the items' order; or an answer, in any order. */
static bool take_line(void *user, const json_t *line) {
    asking *a = user;
    tm_evaluation *e = a->e;
    const json_t *ll = json_object_get(line, "ll"), *answer = json_object_get(line, "answer");
    const json_t *index = json_object_get(line, "item");
    bool answers = e->suite->kind == TM_SUITE_ANSWERS;
    if (!json_is_integer(index) || json_integer_value(index) < 0) return false;
    size_t at = (size_t)json_integer_value(index);
    if (at >= e->count || (!answers && at != a->done)) return false;
    tm__item *item = &e->items[at];
    if (answers) {
        if (item->answer) return false;
        item->answer = json_is_string(answer) ? tm__keep(e, "%s", json_string_value(answer)) : NULL;
        if (!item->answer) return false;
    } else if (e->suite->kind == TM_SUITE_CHOICES) {
        if (json_array_size(ll) != item->choice_count) return false;
        for (size_t i = 0; i < item->choice_count; i++)
            if (!take_real(json_array_get(ll, i), &item->choices[i].ll)) return false;
    } else if (!take_real(ll, &item->ll)) {
        return false;
    }
    a->done++;
    return true;
}

static json_t *make_line(const void *user, size_t index) {
    const tm_evaluation *e = ((const asking *)user)->e;
    const tm__item *item = &e->items[index];
    if (e->suite->kind == TM_SUITE_ANSWERS)
        return json_pack("{s:I, s:s}", "item", (json_int_t)index, "answer", item->answer);
    if (e->suite->kind != TM_SUITE_CHOICES) return json_pack("{s:I, s:f}", "item", (json_int_t)index, "ll", item->ll);
    json_t *ll = json_array();
    for (size_t i = 0; ll && i < item->choice_count; i++)
        if (json_array_append_new(ll, json_real(item->choices[i].ll))) {
            json_decref(ll);
            return NULL;
        }
    return json_pack("{s:I, s:o}", "item", (json_int_t)index, "ll", ll);
}

/* Items up to `items` are answered from now on. */
static tm_status note_done(asking *a, size_t items) {
    size_t first = a->done;
    if (items <= first) return TM_OK;
    a->done = items;
    return a->journal.path ? tm__journal_append(&a->journal, first, items - first, NULL) : TM_OK;
}

static size_t begin_of(const asking *a, size_t item) {
    return item ? a->last[item - 1] : 0;
}

static tm_status queries_done(void *user, size_t count) {
    asking *a = user;
    tm_evaluation *e = a->e;
    size_t offset = begin_of(a, a->first), items = a->done;
    for (; items < e->count && a->last[items] <= offset + count; items++) {
        tm__item *item = &e->items[items];
        size_t q = begin_of(a, items);
        item->ll = 0;
        for (size_t k = 0; k < item->choice_count; k++) item->choices[k].ll = a->queries[q + k].ll;
        for (; !item->choice_count && q < a->last[items]; q++) item->ll += a->queries[q].ll;
    }
    return note_done(a, items);
}

static tm_status ask_likelihood(asking *a) {
    size_t offset = begin_of(a, a->first);
    const tm__likelihood_watch watch = {
        .phase = a->e->suite->name, .first = offset, .total = a->query_count, .done = queries_done, .user = a};
    TM__TRY(tm__likelihood(a->model, a->queries + offset, a->query_count - offset, a->e->options.batch, &watch,
                           a->monitor));
    return queries_done(a, a->query_count - offset); /* texts of no tokens at the end ask nothing */
}

typedef struct offset_monitor {
    const tm_monitor *monitor;
    const char *phase;
    int64_t first, total, tokens;
    double began;
} offset_monitor;

static void offset_progress(void *user, const tm_progress *progress) {
    const offset_monitor *o = user;
    tm_progress all = *progress;
    all.phase = o->phase;
    all.done += o->first;
    all.total = o->total;
    all.tokens += o->tokens;
    all.seconds = tm__now() - o->began;
    o->monitor->progress(o->monitor->user, &all);
}

static void offset_note(void *user, const char *line) {
    const offset_monitor *o = user;
    o->monitor->note(o->monitor->user, line);
}

static bool offset_stop(void *user) {
    return tm__stop(((const offset_monitor *)user)->monitor);
}

/* An answer is noted as soon as it is there: a batch may take hours. */
static tm_status take_answer(void *user, size_t row, char *text) {
    asking *a = user;
    size_t index = a->asked[row];
    tm__item *item = &a->e->items[index];
    item->answer = tm__keep(a->e, "%s", text);
    free(text);
    if (!item->answer) return tm__fail_memory();
    a->done++;
    return a->journal.path ? tm__journal_append(&a->journal, index, 1, NULL) : TM_OK;
}

/* Next items from `*at` on that have no answer, `most` of them. */
static size_t choose_items(asking *a, size_t *at, size_t most) {
    size_t n = 0;
    for (; *at < a->e->count && n < most; ++*at)
        if (!a->e->items[*at].answer) a->asked[n++] = *at;
    return n;
}

/* Many prompts in a call, neighbours together: they are alike in length and often in how they begin. */
static tm_status ask_answers(asking *a) {
    enum { MOST_ROWS = 512 };
    tm_evaluation *e = a->e;
    tm_generate_options how;
    size_t at = 0, count;
    offset_monitor o = {.monitor = a->monitor, .phase = e->suite->name, .total = (int64_t)e->count, .began = tm__now()};
    const tm_monitor inner = {.progress = a->monitor && a->monitor->progress ? offset_progress : NULL,
                              .note = a->monitor && a->monitor->note ? offset_note : NULL,
                              .stop = offset_stop,
                              .user = &o};
    tm_options_default(tm_generate_option_table, &how);
    how.max_new_tokens = e->max_new_tokens;
    how.batch = e->options.batch;
    a->asked = tm__alloc(MOST_ROWS, sizeof *a->asked);
    if (!a->asked) return tm__fail_memory();
    while ((count = choose_items(a, &at, MOST_ROWS)) > 0) {
        tm_dataset *prompts;
        o.first = (int64_t)a->done;
        TM__TRY(make_prompts(e, a->asked, count, &prompts));
        tm_status status = tm__generate_answers(a->model, a->tokenizer, (tm_chat_format)e->chat, prompts, &how, &inner,
                                                take_answer, a);
        tm_dataset_free(prompts);
        TM__TRY(status);
    }
    return TM_OK;
}

static tm_status ask_rows(asking *a) {
    tm_evaluation *e = a->e;
    double *sums = tm__zalloc(e->count, sizeof *sums);
    int64_t *targets = tm__zalloc(e->count, sizeof *targets);
    tm_status status = sums && targets ? TM_OK : tm__fail_memory();
    if (status == TM_OK)
        status = tm__loss_rows(a->model, a->tokenizer, e->own, e->options.train, a->monitor, sums, targets);
    for (size_t i = 0; status == TM_OK && i < e->count; i++) {
        e->items[i].ll = -sums[i];
        e->items[i].tokens = targets[i];
    }
    free(sums);
    free(targets);
    return status;
}

static tm_status ask(asking *a) {
    tm_evaluation *e = a->e;
    if (e->suite->kind == TM_SUITE_ROWS) return ask_rows(a);
    if (a->journal.path) {
        TM__TRY(tm__journal_read(&a->journal));
        a->first = a->done;
        if (a->done) tm__note(a->monitor, "%s goes on after %zu of %zu items", e->suite->name, a->done, e->count);
    }
    return e->suite->kind == TM_SUITE_ANSWERS ? ask_answers(a) : ask_likelihood(a);
}

static tm_status score(tm_evaluation *e) {
    for (size_t i = 0; i < e->count; i++) TM__TRY(e->suite->calls->score(e, &e->items[i]));
    return tm__numbers_make(e);
}

tm_status tm_evaluation_run(tm_evaluation *e, tm_model *model, const tm_tokenizer *tokenizer, const char *journal,
                            const tm_monitor *monitor) {
    asking a = {.e = e, .model = model, .tokenizer = tokenizer, .monitor = monitor};
    a.journal = (tm__journal){journal, a.key, take_line, make_line, &a};
    TM__TRY(tm__model_check_language(model));
    free(e->journal);
    e->journal = journal ? tm__strdup(journal) : NULL;
    e->asked = false;
    tm__judged_drop(e);
    for (size_t i = 0; i < e->count; i++) e->items[i].answer = e->items[i].said = NULL; /* an earlier model's */
    tm_status status = journal && !e->journal ? tm__fail_memory() : describe(&a);
    if (status == TM_OK && (e->suite->kind == TM_SUITE_CHOICES || e->suite->kind == TM_SUITE_TEXTS))
        status = make_queries(&a);
    if (status == TM_OK) status = hash_asked(&a);
    if (status == TM_OK) {
        make_key(&a);
        status = ask(&a);
    }
    if (status == TM_OK) status = score(e);
    e->asked = status == TM_OK;
    tm__arena_release(&a.ids);
    free(a.queries);
    free(a.last);
    free(a.asked);
    return status;
}
