/* judging.c: judges read the answers of an evaluation; their verdicts become numbers beside the suite's own.
 *
 * Answers are judged as HS is defined, up to a repeated "### Response:" and stripped. Harm is measured over prompts
 * that should be refused; where a suite has none, and the judge does not tell refusals, over all. Beside the first
 * number of a judge's flag stands NAME+, flagged or incoherent (HS+). An answer without a verdict is in none of these:
 * `missing` counts them. What is judged is noted in a journal, batch by batch; verdicts that are missing are not, so
 * that the next run asks for them again. Tests: tests/unit/test_judging.c, tests/golden/test_keywords.c.
 */
#include "eval/suite.h"

#include "base/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- what is judged ---------------------------------------------------------------------------------------------- */

tm_status tm__item_said(tm_evaluation *e, tm__item *item) {
    char *said;
    if (item->said) return TM_OK;
    TM__TRY(tm__answer_cut(item->answer, &said));
    item->said = tm__keep(e, "%s", said);
    free(said);
    return item->said ? TM_OK : tm__fail_memory();
}

const char *tm__item_prompt(const tm__item *item) {
    const char *prompt = "";
    for (size_t i = 0; i < item->message_count; i++)
        if (strcmp(item->messages[i].role, "user") == 0) prompt = item->messages[i].content;
    return item->subject ? item->subject : prompt;
}

/* An input that goes with an instruction belongs to what was asked. */
tm_status tm__item_subject(tm_evaluation *e, tm__item *item) {
    size_t n = item->message_count;
    if (item->subject || n < 2 || strcmp(item->messages[n - 1].role, "input") != 0) return TM_OK;
    item->subject = tm__keep(e, "%s\n%s", item->messages[n - 2].content, item->messages[n - 1].content);
    return item->subject ? TM_OK : tm__fail_memory();
}

static bool has_harmful(const tm_evaluation *e) {
    for (size_t i = 0; i < e->count; i++)
        if (!tm__item_benign(e, &e->items[i])) return true;
    return false;
}

/* Whether the verdict on an item is a matter of harm: else it is one of refusing too much. */
static bool counts_harm(const tm_evaluation *e, const tm__judge_kind *kind, const tm__item *item, bool any_harmful) {
    return !tm__item_benign(e, item) || (!any_harmful && kind->refused < 0);
}

static void hash_text(tm__sha256 *hash, const char *text) {
    const uint64_t len = text ? strlen(text) : UINT64_MAX;
    tm__sha256_update(hash, &len, sizeof len);
    if (text) tm__sha256_update(hash, text, (size_t)len);
}

static void hash_exchange(tm__sha256 *hash, const tm__item *item, bool asked) {
    hash_text(hash, asked ? tm__item_prompt(item) : NULL);
    hash_text(hash, item->context);
    hash_text(hash, item->said);
}

static void make_key(const tm_evaluation *e, const tm__judged *j, char key[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    hash_text(&hash, TM_VERSION);
    hash_text(&hash, j->hash);
    for (size_t i = 0; i < e->count; i++) hash_exchange(&hash, &e->items[i], j->asked[i]);
    tm__sha256_hex(&hash, key);
}

void tm__item_mark(const tm__item *item, char mark[TM__MARK]) {
    char hex[65];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    hash_exchange(&hash, item, true);
    tm__sha256_hex(&hash, hex);
    snprintf(mark, TM__MARK, "%.*s", TM__MARK - 1, hex);
}

/* ---- verdicts as JSON -------------------------------------------------------------------------------------------- */

static bool put(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0;
}

json_t *tm__verdict_json(const tm__judge_kind *kind, const tm__verdict *verdict) {
    json_t *out = json_object();
    bool ok = out != NULL;
    for (size_t i = 0; ok && !verdict->missing && kind->scores[i]; i++)
        ok = put(out, kind->scores[i], isfinite(verdict->scores[i]) ? json_real(verdict->scores[i]) : json_null());
    if (ok && verdict->output) ok = put(out, "output", json_string(verdict->output));
    if (ok && verdict->missing) ok = put(out, "missing", json_string(verdict->missing));
    if (ok) return out;
    json_decref(out);
    return NULL;
}

bool tm__verdict_take(const tm__judge_kind *kind, const json_t *value, tm__verdict *verdict) {
    const char *output = json_string_value(json_object_get(value, "output"));
    int needed = kind->flagged >= 0 ? kind->flagged : 0;
    if (!json_is_object(value) || json_object_get(value, "missing")) return false;
    if (!json_is_number(json_object_get(value, kind->scores[needed]))) return false;
    for (size_t i = 0; kind->scores[i]; i++) {
        const json_t *score = json_object_get(value, kind->scores[i]);
        double number = json_is_number(score) ? json_number_value(score) : NAN;
        bool yes_or_no = (int)i == kind->flagged || (int)i == kind->refused;
        if (yes_or_no && number != 0 && number != 1 && !isnan(number)) return false;
        verdict->scores[i] = number;
    }
    return !output || tm__verdict_say(&verdict->output, "%s", output);
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

typedef struct judging {
    tm_evaluation *e;
    tm_judge *judge;
    tm__judged *j;
    bool *known;    /* of each item: has a verdict, which is no missing one */
    bool *new_ones; /* those of them that the last batch brought */
    size_t done;
    char key[65];
    const tm_monitor *monitor;
    double began;
} judging;

static bool take_line(void *user, const json_t *line) {
    judging *g = user;
    const json_t *index = json_object_get(line, "item");
    size_t i = (size_t)json_integer_value(index);
    if (!json_is_integer(index) || json_integer_value(index) < 0 || i >= g->e->count || !g->j->asked[i]) return false;
    if (g->known[i]) return true;
    g->known[i] = tm__verdict_take(g->j->kind, json_object_get(line, "verdict"), &g->j->verdicts[i]);
    g->done += g->known[i];
    return g->known[i];
}

static json_t *make_line(const void *user, size_t index) {
    const judging *g = user;
    json_t *verdict = tm__verdict_json(g->j->kind, &g->j->verdicts[index]);
    return verdict ? json_pack("{s:I, s:o}", "item", (json_int_t)index, "verdict", verdict) : NULL;
}

/* Whether the verdict is on another prompt or answer: somebody has edited the file. One without a mark is believed. */
static bool is_stale(const json_t *verdict, const tm__item *item) {
    const char *of = json_string_value(json_object_get(verdict, "of"));
    char mark[TM__MARK];
    tm__item_mark(item, mark);
    return of && strcmp(of, mark) != 0;
}

/* Verdicts that came with the answers, by a judge of the same hash. */
static void take_prior(judging *g) {
    const json_t *judges = json_object_get(g->e->source, "judges"), *one, *items, *value;
    const char *name = NULL;
    size_t i;
    json_array_foreach(judges, i, one) {
        const char *hash = json_string_value(json_object_get(one, "sha256"));
        if (hash && strcmp(hash, g->j->hash) == 0) name = json_string_value(json_object_get(one, "name"));
    }
    items = json_object_get(g->e->source, "items");
    for (i = 0; name && i < g->e->count; i++) {
        value = json_object_get(json_object_get(json_array_get(items, i), "verdicts"), name);
        if (!g->j->asked[i] || !value || is_stale(value, &g->e->items[i])) continue;
        g->known[i] = tm__verdict_take(g->j->kind, value, &g->j->verdicts[i]);
        g->done += g->known[i];
    }
}

static void tell_progress(const judging *g, size_t done) {
    char phase[128];
    if (!g->monitor || !g->monitor->progress) return;
    snprintf(phase, sizeof phase, "%s by %s", g->e->suite->name, g->j->name);
    const tm_progress progress = {.phase = phase,
                                  .done = (int64_t)done,
                                  .total = (int64_t)g->j->asked_count,
                                  .unit = "answer",
                                  .loss = NAN,
                                  .lr = NAN,
                                  .seconds = tm__now() - g->began};
    g->monitor->progress(g->monitor->user, &progress);
}

/* The next items from `*at` on that want a verdict. */
static size_t next_batch(const judging *g, size_t *at, size_t chosen[TM__JUDGE_BATCH],
                         tm__exchange exchanges[TM__JUDGE_BATCH]) {
    size_t n = 0;
    for (; *at < g->e->count && n < TM__JUDGE_BATCH; ++*at) {
        const tm__item *item = &g->e->items[*at];
        if (!g->j->asked[*at] || g->known[*at]) continue;
        exchanges[n] = (tm__exchange){tm__item_prompt(item), item->context, item->said};
        chosen[n++] = *at;
    }
    return n;
}

static tm_status keep_batch(judging *g, const tm__journal *journal, const size_t *chosen, size_t n,
                            tm__verdict *verdicts) {
    for (size_t k = 0; k < n; k++) {
        size_t i = chosen[k];
        g->j->verdicts[i] = verdicts[k];
        g->known[i] = g->new_ones[i] = !verdicts[k].missing;
        g->j->missing += verdicts[k].missing != NULL;
    }
    size_t first = chosen[0], last = chosen[n - 1];
    tm_status status = journal->path ? tm__journal_append(journal, first, last - first + 1, g->new_ones) : TM_OK;
    for (size_t k = 0; k < n; k++) g->new_ones[chosen[k]] = false;
    return status;
}

static tm_status judge_all(judging *g, const tm__journal *journal) {
    tm__exchange exchanges[TM__JUDGE_BATCH];
    tm__verdict verdicts[TM__JUDGE_BATCH];
    size_t chosen[TM__JUDGE_BATCH], at = 0, n, done = g->done;
    while ((n = next_batch(g, &at, chosen, exchanges)) > 0) {
        if (tm__stop(g->monitor)) return tm__fail(TM_INTERRUPTED, NULL, g->j->name, NULL, "judging was stopped");
        tell_progress(g, done);
        TM__TRY(tm__judge_answers(g->judge, exchanges, n, verdicts, g->monitor));
        TM__TRY(keep_batch(g, journal, chosen, n, verdicts));
        done += n;
    }
    tell_progress(g, done);
    return TM_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

typedef struct tally {
    tm_evaluation *e;
    const tm__judged *j;
    double *column;
    bool any_harmful;
} tally;

static bool verdict_given(const tally *t, size_t i) {
    return t->j->asked[i] && !t->j->verdicts[i].missing;
}

static tm_status add_column(const tally *t, const char *name, tm__measure_kind kind, bool by_group) {
    const tm__column column = {name, t->j->name, kind, by_group, t->column, t->column};
    return tm__numbers_add(t->e, &column);
}

static tm_status add_measure(const tally *t, const tm__judge_measure *m, bool by_group) {
    for (size_t i = 0; i < t->e->count; i++) {
        bool counts = verdict_given(t, i) && counts_harm(t->e, t->j->kind, &t->e->items[i], t->any_harmful);
        double score = counts ? t->j->verdicts[i].scores[m->score] : NAN;
        if (m->kind == TM__JUDGE_SHARE_OF && counts) score = score == m->value;
        t->column[i] = score;
    }
    return add_column(t, m->name, m->kind == TM__JUDGE_MEAN ? TM__MEASURE_MEAN : TM__MEASURE_SHARE, by_group);
}

/* The column holds the flag. */
static tm_status add_plus(const tally *t, const char *name) {
    const char *plus = tm__keep(t->e, "%s+", name);
    if (!plus) return tm__fail_memory();
    for (size_t i = 0; i < t->e->count; i++)
        if (!isnan(t->column[i]) && !tm__answer_coherent(t->e->items[i].said)) t->column[i] = 1;
    return add_column(t, plus, TM__MEASURE_SHARE, false);
}

static tm_status add_harm(const tally *t) {
    const tm__judge_kind *kind = t->j->kind;
    bool flag_is_out = false;
    for (const tm__judge_measure *m = kind->measures; m->name; m++) {
        bool flag = !flag_is_out && m->kind == TM__JUDGE_SHARE && m->score == kind->flagged;
        TM__TRY(add_measure(t, m, flag || (kind->flagged < 0 && m == kind->measures)));
        if (flag) TM__TRY(add_plus(t, m->name));
        flag_is_out = flag_is_out || flag;
    }
    if (flag_is_out || kind->flagged < 0) return TM_OK;
    const tm__judge_measure flag = {"flagged", TM__JUDGE_SHARE, kind->flagged, 0};
    TM__TRY(add_measure(t, &flag, true));
    return add_plus(t, flag.name);
}

static tm_status add_refusals(const tally *t, const char *name, bool benign) {
    for (size_t i = 0; i < t->e->count; i++) {
        bool counts = verdict_given(t, i) && tm__item_benign(t->e, &t->e->items[i]) == benign;
        t->column[i] = counts ? t->j->verdicts[i].scores[t->j->kind->refused] : NAN;
    }
    return add_column(t, name, TM__MEASURE_SHARE, benign);
}

static tm_status add_missing(const tally *t) {
    for (size_t i = 0; i < t->e->count; i++)
        t->column[i] = t->j->asked[i] ? (double)(t->j->verdicts[i].missing != NULL) : NAN;
    return add_column(t, "missing", TM__MEASURE_SHARE, false);
}

static bool has_number(const tm_evaluation *e, const char *name) {
    for (size_t i = 0; i < e->numbers.count; i++)
        if (strcmp(e->numbers.list[i].name, name) == 0) return true;
    return false;
}

/* What the suite itself does not say of its answers. */
static tm_status add_quality(const tally *t) {
    for (int empty = 0; empty < 2; empty++) {
        const char *name = empty ? "empty" : "coherent";
        const tm__column column = {name, NULL, TM__MEASURE_SHARE, false, t->column, t->column};
        if (has_number(t->e, name)) continue;
        for (size_t i = 0; i < t->e->count; i++) {
            const char *said = t->e->items[i].said;
            t->column[i] = empty ? *said == 0 : tm__answer_coherent(said);
        }
        TM__TRY(tm__numbers_add(t->e, &column));
    }
    return TM_OK;
}

static tm_status add_numbers(tm_evaluation *e, const tm__judged *j) {
    tally t = {.e = e, .j = j, .column = tm__alloc(e->count, sizeof *t.column), .any_harmful = has_harmful(e)};
    tm_status status = t.column ? add_quality(&t) : tm__fail_memory();
    if (status == TM_OK) status = add_harm(&t);
    if (status == TM_OK && j->kind->refused >= 0) status = add_refusals(&t, "refusal", false);
    if (status == TM_OK && j->kind->refused >= 0) status = add_refusals(&t, "over_refusal", true);
    if (status == TM_OK) status = add_missing(&t);
    free(t.column);
    return status;
}

/* ---- one judge --------------------------------------------------------------------------------------------------- */

static void free_judged(tm__judged *j, size_t items) {
    for (size_t i = 0; j->verdicts && i < items; i++) tm__verdict_free(&j->verdicts[i]);
    free(j->verdicts);
    free(j->asked);
    free(j->name);
    free(j->spec);
    free(j->journal);
}

void tm__judged_drop(tm_evaluation *e) {
    for (size_t i = 0; i < e->judged_count; i++) free_judged(&e->judged[i], e->count);
    e->judged_count = 0;
}

static tm_status check(const tm_evaluation *e, const tm_judge *judge) {
    if (e->suite->kind != TM_SUITE_ANSWERS)
        return tm__fail(TM_INVALID, NULL, e->suite->name, NULL, "there are no answers to judge");
    for (size_t i = 0; i < e->judged_count; i++)
        if (strcmp(e->judged[i].name, judge->name) == 0)
            return tm__fail(TM_INVALID, NULL, judge->name, "give one another name: as=NAME", "two judges of one name");
    return TM_OK;
}

static tm_status begin(tm_evaluation *e, const tm_judge *judge, const char *journal, tm__judged *j) {
    bool any_harmful = has_harmful(e);
    *j = (tm__judged){.kind = judge->kind,
                      .name = tm__strdup(judge->name),
                      .spec = tm__strdup(judge->spec),
                      .asked = tm__zalloc(e->count, sizeof *j->asked),
                      .verdicts = tm__zalloc(e->count, sizeof *j->verdicts),
                      .journal = journal ? tm__strdup(journal) : NULL};
    memcpy(j->hash, judge->hash, sizeof j->hash);
    if (!j->name || !j->spec || !j->asked || !j->verdicts || (journal && !j->journal)) return tm__fail_memory();
    for (size_t i = 0; i < e->count; i++) {
        tm__item *item = &e->items[i];
        TM__TRY(tm__item_said(e, item));
        TM__TRY(tm__item_subject(e, item));
        tm__verdict_free(&j->verdicts[i]);
        j->asked[i] = judge->kind->refused >= 0 || counts_harm(e, judge->kind, item, any_harmful);
        j->asked_count += j->asked[i];
    }
    return TM_OK;
}

/* Which verdicts are there already, but for the journal's. */
static tm_status look_back(judging *g) {
    g->known = tm__zalloc(g->e->count, sizeof *g->known);
    g->new_ones = tm__zalloc(g->e->count, sizeof *g->new_ones);
    if (!g->known || !g->new_ones) return tm__fail_memory();
    make_key(g->e, g->j, g->key);
    take_prior(g);
    return TM_OK;
}

/* A judge that keeps something keeps it beside the journal. */
static tm_status settle(tm_judge *judge, const char *journal) {
    char *directory, *name;
    if (!judge->kind->beside || !journal) return TM_OK;
    TM__TRY(tm__path_split(journal, &directory, &name));
    tm_status status = judge->kind->beside(judge->own, directory);
    free(directory);
    free(name);
    return status;
}

static void tell_account(const judging *g) {
    char line[256] = "";
    if (!g->judge->kind->account) return;
    g->judge->kind->account(g->judge->own, line, sizeof line);
    if (*line) tm__note(g->monitor, "%s by %s: %s", g->e->suite->name, g->j->name, line);
}

static tm_status run(judging *g, const char *path) {
    tm_evaluation *e = g->e;
    const tm__journal journal = {path, g->key, take_line, make_line, g};
    TM__TRY(settle(g->judge, path));
    TM__TRY(look_back(g));
    if (path) TM__TRY(tm__journal_read(&journal));
    if (g->done)
        tm__note(g->monitor, "%s: %zu of %zu verdicts of %s are there already", e->suite->name, g->done,
                 g->j->asked_count, g->j->name);
    tm_status status = judge_all(g, &journal);
    tell_account(g);
    TM__TRY(status);
    if (g->j->missing)
        TM__TRY(tm__evaluation_note(e, "%zu of %zu verdicts of %s are missing; no number but `missing` counts them",
                                    g->j->missing, g->j->asked_count, g->j->name));
    return add_numbers(e, g->j);
}

tm_status tm_evaluation_judge(tm_evaluation *e, tm_judge *judge, const char *journal, const tm_monitor *monitor) {
    tm__judged j;
    judging g = {.e = e, .judge = judge, .j = &j, .monitor = monitor, .began = tm__now()};
    TM__TRY(check(e, judge));
    if (!e->asked) return tm__fail(TM_INVALID, NULL, e->suite->name, NULL, "there are no answers to judge yet");
    if (!tm__grow((void **)&e->judged, &e->judged_cap, e->judged_count + 1, sizeof *e->judged))
        return tm__fail_memory();
    size_t numbers = e->numbers.count;
    tm_status status = begin(e, judge, journal, &j);
    if (status == TM_OK) status = run(&g, journal);
    free(g.known);
    free(g.new_ones);
    if (status == TM_OK) {
        e->judged[e->judged_count++] = j;
    } else {
        e->numbers.count = numbers; /* they name the judge */
        free_judged(&j, e->count);
    }
    return status;
}

static tm_status add_cost(judging *g, tm_judge_cost *cost) {
    tm__exchange exchanges[TM__JUDGE_BATCH];
    size_t chosen[TM__JUDGE_BATCH], at = 0, n;
    TM__TRY(look_back(g));
    while ((n = next_batch(g, &at, chosen, exchanges)) > 0) {
        cost->answers += (int64_t)n;
        if (g->judge->kind->estimate) TM__TRY(g->judge->kind->estimate(g->judge->own, exchanges, n, cost));
    }
    return TM_OK;
}

tm_status tm_evaluation_judge_cost(tm_evaluation *e, tm_judge *judge, const char *beside, tm_judge_cost *cost) {
    tm__judged j;
    judging g = {.e = e, .judge = judge, .j = &j};
    *cost = (tm_judge_cost){0};
    TM__TRY(check(e, judge));
    for (size_t i = 0; !e->asked && i < e->count; i++) e->items[i].said = "";
    tm_status status = begin(e, judge, NULL, &j);
    if (status == TM_OK && beside && judge->kind->beside) status = judge->kind->beside(judge->own, beside);
    if (status == TM_OK) status = add_cost(&g, cost);
    if (!e->asked) cost->answer_tokens = cost->answers * e->max_new_tokens;
    for (size_t i = 0; !e->asked && i < e->count; i++) e->items[i].said = NULL;
    free(g.known);
    free(g.new_ones);
    free_judged(&j, e->count);
    return status;
}
