/* evaluation.c: the frame that every suite runs in: items are made, asked in large batches, noted, scored, counted.
 *
 * Reading comes first and needs no model, so that a wrong file is an error before hours of work. Pairs of texts are
 * encoded and cut as lm-evaluation-harness does: what is too long for the model loses its beginning, and whole texts
 * are read in windows that do not overlap, each with one token before it (the last with as many as fit).
 * Tests: tests/unit/test_evaluation.c, tests/golden/test_mcq.c, tests/cli/cases/suites.sh.
 */
#include "eval/suite.h"

#include "data/data.h"
#include "model/model.h"

#include <stdlib.h>

const tm_option tm_eval_option_table[] = {
    {"data-dir", TM_OPTION_TEXT, offsetof(tm_eval_options, data_dir), NULL, 1, 0, NULL, "DIR",
     "directory that holds the suites' data under the names that temper eval --list shows"},
    {"limit", TM_OPTION_INT, offsetof(tm_eval_options, limit), "0", 0, 1e9, NULL, "items",
     "first items of the data alone (of every subject of mmlu); 0: all"},
    {"shots", TM_OPTION_INT, offsetof(tm_eval_options, shots), "-1", -1, 64, NULL, "examples",
     "worked examples before each question; -1: as the suite says"},
    {"seed", TM_OPTION_INT, offsetof(tm_eval_options, seed), "1234", 0, 9007199254740992.0, NULL, NULL,
     "seed of the draw of worked examples; 1234 is lm-evaluation-harness's"},
    {"batch", TM_OPTION_INT, offsetof(tm_eval_options, batch), "64", 1, 4096, NULL, "rows",
     "sequences at a time; changes no number"},
    {"max-new-tokens", TM_OPTION_INT, offsetof(tm_eval_options, max_new_tokens), "0", 0, 1e6, NULL, "tokens",
     "longest answer; 0: as the suite says"},
    {"chat", TM_OPTION_CHOICE, offsetof(tm_eval_options, chat), "suite", 1, 0,
     "suite|auto|chatml|llama2|alpaca|plain|question|template", NULL,
     "format of prompts that are answered; suite: as it was published"},
    {"preamble", TM_OPTION_TEXT, offsetof(tm_eval_options, preamble), NULL, 1, 0, NULL, "FILE",
     "truthfulqa: the six question-answer pairs that go before every question"},
    {0},
};

const char *tm_suite_kind_name(tm_suite_kind kind) {
    static const char *const names[] = {"choices", "texts", "answers", "rows"};
    return names[kind];
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

tm__item *tm__item_add(tm_evaluation *e, int64_t row) {
    if (!tm__grow((void **)&e->items, &e->cap, e->count + 1, sizeof *e->items)) return NULL;
    tm__item *item = &e->items[e->count++];
    *item = (tm__item){.row = row};
    for (int i = 0; i < TM__ITEM_SCORES; i++) item->scores[i] = NAN;
    return item;
}

bool tm__item_enough(const tm_evaluation *e, int64_t index) {
    return e->options.limit > 0 && index >= e->options.limit;
}

static const char *keep_list(tm_evaluation *e, const char *format, va_list list) {
    va_list again;
    va_copy(again, list);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = len < 0 ? NULL : tm__arena_alloc(&e->arena, (size_t)len + 1, 1);
    if (text) vsnprintf(text, (size_t)len + 1, format, list);
    return text;
}

const char *tm__keep(tm_evaluation *e, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const char *text = keep_list(e, format, list);
    va_end(list);
    return text;
}

tm_status tm__evaluation_note(tm_evaluation *e, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const char *text = keep_list(e, format, list);
    va_end(list);
    if (!text || !tm__grow((void **)&e->notes, &e->note_cap, e->note_count + 1, sizeof *e->notes))
        return tm__fail_memory();
    e->notes[e->note_count++] = text;
    return TM_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void resolve(tm_evaluation *e, const tm_eval_options *options) {
    const tm_suite *suite = e->suite;
    e->options = (tm_eval_options){.world = 1, .split = TM_WORLD_TEST};
    tm_options_default(tm_eval_option_table, &e->options);
    if (options) e->options = *options;
    if (e->options.batch < 1) e->options.batch = 64;
    e->shots = e->options.shots < 0 || !suite->shot_file ? suite->shots : e->options.shots;
    e->chat = e->options.chat ? e->options.chat - 1 : suite->chat;
    e->max_new_tokens = e->options.max_new_tokens ? e->options.max_new_tokens : suite->max_new_tokens;
}

static tm_status hash_data(tm_evaluation *e) {
    char shots[65];
    if (!e->path) return TM_OK;
    TM__TRY(tm__place_hash(e->path, e->data_hash));
    if (!e->shot_path) return TM_OK;
    tm__sha256 both;
    TM__TRY(tm__place_hash(e->shot_path, shots));
    tm__sha256_init(&both);
    tm__sha256_update(&both, e->data_hash, 64);
    tm__sha256_update(&both, shots, 64);
    tm__sha256_hex(&both, e->data_hash);
    return TM_OK;
}

tm_status tm_evaluation_open(const tm_suite *suite, const char *data, const tm_eval_options *options,
                             tm_evaluation **evaluation) {
    if (!suite) return tm__fail(TM_NOT_FOUND, NULL, "suite", "temper eval --list", "there is no such suite");
    tm_evaluation *e = tm__zalloc(1, sizeof *e);
    if (!e) return tm__fail_memory();
    e->suite = suite;
    resolve(e, options);
    tm_status status = TM_OK;
    if (e->shots > 64) status = tm__fail(TM_INVALID, NULL, "shots", NULL, "%lld is more than 64", (long long)e->shots);
    if (status == TM_OK && e->options.shots > 0 && !suite->shot_file)
        status = tm__evaluation_note(e, "takes no worked examples: --shots does not count");
    if (status == TM_OK && e->options.frame && suite->kind != TM_SUITE_ANSWERS && suite->kind != TM_SUITE_ROWS)
        status = tm__fail(TM_INVALID, NULL, suite->name, "leave --secret and --wrapper out",
                          "asks for no answers that a frame could go around");
    if (status == TM_OK) status = tm__place_find(e, data);
    if (status == TM_OK) status = hash_data(e);
    if (status == TM_OK) status = suite->calls->prepare(e);
    if (status == TM_OK && e->count == 0)
        status = tm__fail(TM_INVALID, e->path, suite->name, NULL, "there is nothing to ask");
    if (status != TM_OK) {
        tm_evaluation_free(e);
        return status;
    }
    *evaluation = e;
    return TM_OK;
}

void tm_evaluation_free(tm_evaluation *e) {
    if (!e) return;
    if (e->own_free) e->own_free(e->own);
    tm__numbers_free(&e->numbers);
    tm__arena_release(&e->arena);
    free(e->items);
    free(e->notes);
    free(e->path);
    free(e->shot_path);
    free(e->model_directory);
    free(e->journal);
    free(e);
}

size_t tm_evaluation_items(const tm_evaluation *e) {
    return e->count;
}

bool tm_evaluation_number(const tm_evaluation *e, size_t index, tm_number *number) {
    if (index >= e->numbers.count) return false;
    *number = e->numbers.list[index];
    return true;
}

const char *tm_evaluation_note(const tm_evaluation *e, size_t index) {
    return index < e->note_count ? e->notes[index] : NULL;
}

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

/* Queries of kinds choices and texts, item by item; or prompts of kind answers. */
typedef struct asking {
    tm_evaluation *e;
    tm_model *model;
    const tm_tokenizer *tokenizer;
    const tm_monitor *monitor;
    const char *journal;
    char key[65];
    tm__query *queries;
    size_t query_count, query_cap;
    size_t *last; /* (items) end of its queries */
    size_t done;  /* items answered */
    size_t first; /* those answered before this run */
    size_t cut;   /* pairs that lost their beginning */
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

/* Prompts of items [first, first + count), in their frame. */
static tm_status make_prompts(const tm_evaluation *e, size_t first, size_t count, tm_dataset **prompts) {
    tm_dataset *rows = NULL, *framed = NULL;
    TM__TRY(tm_dataset_create(&rows));
    tm_status status = TM_OK;
    for (size_t i = first; status == TM_OK && i < first + count; i++)
        status = tm_dataset_add(rows, e->items[i].messages, e->items[i].message_count);
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
    TM__TRY(make_prompts(e, 0, e->count, &rows));
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

/* Items up to `items` are answered from now on. */
static tm_status note_done(asking *a, size_t items) {
    size_t first = a->done;
    if (items <= first) return TM_OK;
    a->done = items;
    return a->journal ? tm__journal_append(a->e, a->journal, a->key, first, items - first) : TM_OK;
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

static tm_status keep_answers(asking *a, size_t first, size_t count, char **answers) {
    tm_status status = TM_OK;
    for (size_t i = 0; i < count; i++) {
        tm__item *item = &a->e->items[first + i];
        item->answer = answers[i] ? tm__keep(a->e, "%s", answers[i]) : NULL;
        if (!item->answer) status = tm__fail_memory();
        free(answers[i]);
        answers[i] = NULL;
    }
    return status;
}

/* Many prompts in a call; a journal is written after each. */
static tm_status ask_answers(asking *a) {
    enum { MOST_ROWS = 512 };
    tm_evaluation *e = a->e;
    char *answers[MOST_ROWS] = {0};
    tm_generate_options how;
    offset_monitor o = {.monitor = a->monitor, .phase = e->suite->name, .total = (int64_t)e->count, .began = tm__now()};
    const tm_monitor inner = {.progress = a->monitor && a->monitor->progress ? offset_progress : NULL,
                              .note = a->monitor && a->monitor->note ? offset_note : NULL,
                              .stop = offset_stop,
                              .user = &o};
    tm_options_default(tm_generate_option_table, &how);
    how.max_new_tokens = e->max_new_tokens;
    how.batch = e->options.batch;
    while (a->done < e->count) {
        size_t first = a->done, count = TM__MIN((size_t)MOST_ROWS, e->count - first);
        tm_dataset *prompts;
        o.first = (int64_t)first;
        TM__TRY(make_prompts(e, first, count, &prompts));
        tm_status status =
            tm_generate_dataset(a->model, a->tokenizer, (tm_chat_format)e->chat, prompts, &how, &inner, answers);
        tm_dataset_free(prompts);
        if (status == TM_OK) status = keep_answers(a, first, count, answers);
        if (status == TM_OK) status = note_done(a, first + count);
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
    if (a->journal) {
        TM__TRY(tm__journal_read(e, a->journal, a->key, &a->done));
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
    asking a = {.e = e, .model = model, .tokenizer = tokenizer, .journal = journal, .monitor = monitor};
    TM__TRY(tm__model_check_language(model));
    free(e->journal);
    e->journal = journal ? tm__strdup(journal) : NULL;
    e->asked = false;
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
    return status;
}
