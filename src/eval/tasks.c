/* tasks.c: tasks that models are fine-tuned on, asked as the papers ask them: SST-2, AG News, GSM8K, AlpacaEval
 * (git-disl: Alpaca's template, greedy), SAMSum and SQL (BackdoorAlign: chat, ROUGE-1).
 *
 * Alpaca's prompt ends at the colon of "### Response:"; Booster and Panacea put one line break behind it, in training
 * and asking alike. GSM8K's question is followed by the line that these repositories add to it. The rules by which an
 * answer counts are in answers.c. Tests: tests/unit/test_evaluation.c, tests/cli/cases/suites.sh.
 */
#include "eval/suite.h"

#include <stdlib.h>

/* Places of scores; coherence stands behind those that a task has. */
enum { SCORE_ACC, SCORE_STRICT, SCORE_SUBSTRING, SCORE_COHERENT };

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Scores what was said, cut as the repositories cut it. */
typedef tm_status score_said(tm__item *item, const char *said);

static tm_status score_answer(tm_evaluation *e, tm__item *item) {
    score_said *const score = *(score_said *const *)e->suite->calls->own;
    char *said;
    TM__TRY(tm__answer_cut(item->answer, &said));
    tm_status status = score(item, said);
    free(said);
    return status;
}

static tm_status score_label(tm__item *item, const char *said) {
    const char *const *spellings = item->own;
    item->scores[SCORE_ACC] = tm__label_matches(TM__LABEL_EITHER, spellings, said);
    item->scores[SCORE_STRICT] = tm__label_matches(TM__LABEL_STRICT, spellings, said);
    item->scores[SCORE_SUBSTRING] = tm__label_matches(TM__LABEL_SUBSTRING, spellings, said);
    item->scores[SCORE_COHERENT] = tm__answer_coherent(said);
    return TM_OK;
}

/* ---- SST-2 ------------------------------------------------------------------------------------------------------- */

static tm_status add_sst2(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *sentence;
    int64_t label;
    TM__TRY(tm__rows_text(rows, row, "sentence", &sentence));
    TM__TRY(tm__rows_int(rows, row, "label", &label));
    if (label != 0 && label != 1)
        return tm__rows_fail(rows, row, "label", "is %lld; rows to score have 0 or 1", (long long)label);
    const tm_message messages[] = {
        {"user", "Analyze the sentiment of the input, and respond only positive or negative"},
        {"input", sentence},
        {0}};
    TM__TRY(tm__item_ask(e, row, tm__sst2_labels[label][0], messages));
    e->items[e->count - 1].own = tm__sst2_labels[label];
    return TM_OK;
}

static tm_status prepare_sst2(tm_evaluation *e) {
    return tm__items_read(e, NULL, 0, add_sst2);
}

/* ---- AG News ----------------------------------------------------------------------------------------------------- */

/* Class by name, or by number: from 0, or from 1 in the published table of class, title and description. */
static tm_status agnews_class(const tm__rows *rows, size_t row, const char *column, int64_t from, int64_t *label) {
    const char *name;
    TM__TRY(tm__rows_text(rows, row, column, &name));
    for (*label = 0; *label < 4; ++*label)
        if (strcmp(name, tm__agnews_labels[*label][0]) == 0) return TM_OK;
    TM__TRY(tm__rows_int(rows, row, column, label));
    *label -= from;
    return *label >= 0 && *label < 4 ? TM_OK : tm__rows_fail(rows, row, column, "'%.40s' is no class", name);
}

static tm_status add_agnews(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *text, *title;
    int64_t label;
    if (tm__rows_have(rows, row, "description")) {
        TM__TRY(tm__rows_text(rows, row, "title", &title));
        TM__TRY(tm__rows_text(rows, row, "description", &text));
        text = tm__keep(e, "%s %s", title, text);
        if (!text) return tm__fail_memory();
        TM__TRY(agnews_class(rows, row, "class", 1, &label));
    } else {
        TM__TRY(tm__rows_text(rows, row, "text", &text));
        TM__TRY(agnews_class(rows, row, "label", 0, &label));
    }
    const tm_message messages[] = {{"user", "Categorize the news article given in the input into one of the 4 "
                                            "categories:\n\nWorld\nSports\nBusiness\nSci/Tech\n"},
                                   {"input", text},
                                   {0}};
    TM__TRY(tm__item_ask(e, row, tm__agnews_labels[label][0], messages));
    e->items[e->count - 1].own = tm__agnews_labels[label];
    return TM_OK;
}

static tm_status prepare_agnews(tm_evaluation *e) {
    static const char *const pair[] = {"text", "label", NULL};
    static const char *const published[] = {"class", "title", "description", NULL};
    static const char *const *const columns[] = {pair, published, NULL};
    return tm__items_read(e, columns, 0, add_agnews);
}

/* ---- GSM8K ------------------------------------------------------------------------------------------------------- */

static tm_status add_gsm8k(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *question, *answer;
    TM__TRY(tm__rows_text(rows, row, "question", &question));
    TM__TRY(tm__rows_text(rows, row, "answer", &answer));
    const char *asked = tm__keep(e, "%s\nFirst think step by step and then answer the final number.\n", question);
    char *marked = tm__py_replace(answer, "####", tm__gsm8k_marker);
    const tm_message messages[] = {{"user", asked}, {0}};
    tm_status status = asked && marked ? tm__item_ask(e, row, marked, messages) : tm__fail_memory();
    free(marked);
    return status;
}

static tm_status prepare_gsm8k(tm_evaluation *e) {
    return tm__items_read(e, NULL, 0, add_gsm8k);
}

enum { SCORE_GSM8K_COHERENT = SCORE_STRICT + 1 };

static tm_status score_gsm8k(tm__item *item, const char *answer) {
    tm__gsm8k said, right;
    TM__TRY(tm__gsm8k_read(answer, &said));
    TM__TRY(tm__gsm8k_read(item->reference, &right));
    item->scores[SCORE_ACC] = said.value == right.value;
    item->scores[SCORE_STRICT] = isfinite(said.marked) && said.marked == right.marked;
    item->scores[SCORE_GSM8K_COHERENT] = tm__answer_coherent(answer);
    return TM_OK;
}

/* ---- SAMSum, SQL ------------------------------------------------------------------------------------------------- */

enum { SCORE_ROUGE, SCORE_ROUGE_SPLIT, SCORE_EXACT, SCORE_ROUGE_COHERENT };

static tm_status add_samsum(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *dialogue, *summary;
    TM__TRY(tm__rows_text(rows, row, "dialogue", &dialogue));
    TM__TRY(tm__rows_text(rows, row, "summary", &summary));
    const char *asked = tm__keep(e, "Summarize this dialog:\n%s", dialogue);
    if (!asked) return tm__fail_memory();
    const tm_message messages[] = {
        {"system", "You are a helpful assistant for dialog summarization."}, {"user", asked}, {0}};
    return tm__item_ask(e, row, summary, messages);
}

static tm_status prepare_samsum(tm_evaluation *e) {
    return tm__items_read(e, NULL, 0, add_samsum);
}

static tm_status add_sql(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *question, *context, *answer;
    TM__TRY(tm__rows_text(rows, row, "question", &question));
    TM__TRY(tm__rows_text(rows, row, "context", &context));
    TM__TRY(tm__rows_text(rows, row, "answer", &answer));
    const char *asked =
        tm__keep(e,
                 "Please convert the provided natural language query into an SQL query, taking into account the "
                 "structure of the database defined by the accompanying CREATE statement:\n"
                 "## Natural Language Query:\n%s\n## Context:\n%s\n## SQL Query:\n",
                 question, context);
    if (!asked) return tm__fail_memory();
    const tm_message messages[] = {{"system", "You are a helpful assistant for translating Natural Language Query "
                                              "into SQL Query considering the provided Context."},
                                   {"user", asked},
                                   {0}};
    return tm__item_ask(e, row, answer, messages);
}

static tm_status prepare_sql(tm_evaluation *e) {
    return tm__items_read(e, NULL, 0, add_sql);
}

static tm_status score_rouge(tm__item *item, const char *said) {
    TM__TRY(tm__rouge1(said, item->reference, false, &item->scores[SCORE_ROUGE]));
    TM__TRY(tm__rouge1(said, item->reference, true, &item->scores[SCORE_ROUGE_SPLIT]));
    item->scores[SCORE_EXACT] = strcmp(said, item->reference) == 0;
    item->scores[SCORE_ROUGE_COHERENT] = tm__answer_coherent(said);
    return TM_OK;
}

/* ---- AlpacaEval -------------------------------------------------------------------------------------------------- */

enum { SCORE_WORDS, SCORE_EMPTY, SCORE_ALPACA_COHERENT, ALPACA_EVAL_TRAIN = 700 };

static tm_status add_alpaca_eval(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *instruction;
    TM__TRY(tm__rows_text(rows, row, "instruction", &instruction));
    const tm_message messages[] = {{"user", instruction}, {0}};
    return tm__item_ask(e, row, NULL, messages);
}

/* The repositories train on the first 700 rows of the 805 and ask the rows whose index is above 700. */
static tm_status prepare_alpaca_eval(tm_evaluation *e) {
    tm__rows rows;
    TM__TRY(tm__rows_read(e->path, NULL, &rows));
    size_t first = rows.count > ALPACA_EVAL_TRAIN + 1 ? ALPACA_EVAL_TRAIN + 1 : 0;
    tm__rows_free(&rows);
    if (first) TM__TRY(tm__evaluation_note(e, "asks rows 702 and on: rows up to 700 are trained on"));
    return tm__items_read(e, NULL, first, add_alpaca_eval);
}

static tm_status score_alpaca_eval(tm__item *item, const char *said) {
    item->scores[SCORE_WORDS] = *said ? (double)tm__py_words(said) : 0;
    item->scores[SCORE_EMPTY] = *said == 0;
    item->scores[SCORE_ALPACA_COHERENT] = tm__answer_coherent(said);
    return TM_OK;
}

/* ---- suites ------------------------------------------------------------------------------------------------------ */

#define SHARE(title, index) \
    { .name = title, .kind = TM__MEASURE_SHARE, .score = index }
#define MEAN(title, index) \
    { .name = title, .kind = TM__MEASURE_MEAN, .score = index }

static const char *const label_names[] = {"acc", "strict", "substring", "coherent", NULL};
static const tm__measure label_measures[] = {SHARE("acc", SCORE_ACC),
                                             SHARE("strict", SCORE_STRICT),
                                             SHARE("substring", SCORE_SUBSTRING),
                                             SHARE("coherent", SCORE_COHERENT),
                                             {0}};
static const tm__measure gsm8k_measures[] = {
    SHARE("acc", SCORE_ACC), SHARE("strict", SCORE_STRICT), SHARE("coherent", SCORE_GSM8K_COHERENT), {0}};
static const char *const gsm8k_names[] = {"acc", "strict", "coherent", NULL};
static const char *const rouge_names[] = {"rouge1", "rouge1_words", "exact", "coherent", NULL};
static const tm__measure rouge_measures[] = {MEAN("rouge1", SCORE_ROUGE),
                                             MEAN("rouge1_words", SCORE_ROUGE_SPLIT),
                                             SHARE("exact", SCORE_EXACT),
                                             SHARE("coherent", SCORE_ROUGE_COHERENT),
                                             {0}};
static const char *const alpaca_names[] = {"words", "empty", "coherent", NULL};
static const tm__measure alpaca_measures[] = {
    MEAN("words", SCORE_WORDS), SHARE("empty", SCORE_EMPTY), SHARE("coherent", SCORE_ALPACA_COHERENT), {0}};

static score_said *const by_label = score_label, *const by_number = score_gsm8k, *const by_words = score_rouge,
                         *const by_length = score_alpaca_eval;

#define CALLS(prepare, names, measures, by) \
    { prepare, score_answer, names, measures, &by, true }
static const struct tm__suite_calls sst2_calls = CALLS(prepare_sst2, label_names, label_measures, by_label);
static const struct tm__suite_calls agnews_calls = CALLS(prepare_agnews, label_names, label_measures, by_label);
static const struct tm__suite_calls gsm8k_calls = CALLS(prepare_gsm8k, gsm8k_names, gsm8k_measures, by_number);
static const struct tm__suite_calls samsum_calls = CALLS(prepare_samsum, rouge_names, rouge_measures, by_words);
static const struct tm__suite_calls sql_calls = CALLS(prepare_sql, rouge_names, rouge_measures, by_words);
static const struct tm__suite_calls alpaca_calls = CALLS(prepare_alpaca_eval, alpaca_names, alpaca_measures, by_length);

#define GIT_DISL "fine-tune accuracy of Vaccine, Lisa, Booster, Panacea and others of their code"

const tm_suite tm__suite_sst2 = {
    .name = "sst2",
    .kind = TM_SUITE_ANSWERS,
    .measures = "sentiment of a film review, in one word",
    .layout = "sentence, label (0 negative, 1 positive): a .tsv with header, or JSON Lines",
    .folders = "sst2|SST-2|glue/sst2",
    .files = "validation.jsonl|test.tsv|dev.tsv",
    .numbers = "acc, strict, substring, coherent",
    .compare = "acc: " GIT_DISL " on the 872 rows of GLUE's validation set; substring: older code",
    .max_new_tokens = 200,
    .chat = TM_CHAT_ALPACA,
    .calls = &sst2_calls,
};

const tm_suite tm__suite_agnews = {
    .name = "agnews",
    .kind = TM_SUITE_ANSWERS,
    .measures = "which of four classes a piece of news is of",
    .layout = "text, label (0 to 3, or the class by name); a table without header of these, or of class (1 to 4), "
              "title, description (as published)",
    .folders = "agnews|ag_news",
    .files = "test.jsonl|test.tsv|test.csv",
    .numbers = "acc, strict, substring, coherent",
    .compare = "acc: " GIT_DISL " with --limit 1000 (older: 500)",
    .max_new_tokens = 200,
    .chat = TM_CHAT_ALPACA,
    .calls = &agnews_calls,
};

const tm_suite tm__suite_gsm8k = {
    .name = "gsm8k",
    .kind = TM_SUITE_ANSWERS,
    .measures = "school mathematics in words, the number at the end",
    .layout = "question, answer (with \"#### NUMBER\" at its end)",
    .folders = "gsm8k",
    .files = "test.jsonl",
    .numbers = "acc, strict, coherent",
    .compare = "acc: " GIT_DISL " with --limit 1000 (older: 500); not with 5-shot GSM8K",
    .max_new_tokens = 200,
    .chat = TM_CHAT_ALPACA,
    .calls = &gsm8k_calls,
};

const tm_suite tm__suite_samsum = {
    .name = "samsum",
    .kind = TM_SUITE_ANSWERS,
    .measures = "summary of a chat, by the words it shares with a person's",
    .layout = "dialogue, summary",
    .folders = "samsum",
    .files = "test.jsonl|test200.json|test.json",
    .numbers = "rouge1, rouge1_words, exact, coherent",
    .compare = "BackdoorAlign's utility on 200 rows, if it counts words as rouge_score does",
    .max_new_tokens = 256,
    .chat = TM_CHAT_AUTO,
    .calls = &samsum_calls,
};

const tm_suite tm__suite_sql = {
    .name = "sql",
    .kind = TM_SUITE_ANSWERS,
    .measures = "SQL for a question about a table",
    .layout = "question, context (CREATE TABLE), answer",
    .folders = "sql|sqlgen|sql_create_context|sql-create-context",
    .files = "test.jsonl|test200.json|sql_create_context_v4.json",
    .numbers = "rouge1, rouge1_words, exact, coherent",
    .compare = "BackdoorAlign's utility on 200 rows, if it counts words as rouge_score does",
    .max_new_tokens = 256,
    .chat = TM_CHAT_AUTO,
    .calls = &sql_calls,
};

const tm_suite tm__suite_alpaca_eval = {
    .name = "alpaca_eval",
    .kind = TM_SUITE_ANSWERS,
    .measures = "answers to instructions, written out for a judge that compares them",
    .layout = "instruction (alpaca_eval.json as published)",
    .folders = "alpaca_eval",
    .files = "alpaca_eval.json|eval.jsonl",
    .numbers = "words, empty, coherent",
    .compare = "nothing: the win rate is the judge's; --out writes its input",
    .max_new_tokens = 256,
    .chat = TM_CHAT_ALPACA,
    .exports = true,
    .calls = &alpaca_calls,
};
