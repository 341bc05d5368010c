/* suite.h: what a suite is made of: items that are asked, scores of each, numbers over all.
 *
 * A suite is one tm_suite in one file, listed in suites.c. Its `prepare` turns data into items; the frame
 * (ask.c) asks the model, whole batches at a time, and notes what is done; `score` then gives every item its
 * scores, and the table of measures says how these become numbers.
 *
 * Judges (src/judge) come after: each is handed the items' prompts and answers, and its verdicts become further numbers
 * (judging.c).
 */
#ifndef TM_EVAL_SUITE_H
#define TM_EVAL_SUITE_H

#include "base/base.h"
#include "judge/judge.h"
#include "temper_eval.h"

struct json_t;

/* One answer that is offered. Texts belong to the evaluation's arena, here and below. */
typedef struct tm__choice {
    const char *text;    /* as in the data */
    const char *context; /* what it continues */
    const char *next;    /* what is scored behind it, with its delimiter */
    bool right;
    double ll;      /* ln p(next | context) */
    int64_t tokens; /* of next */
} tm__choice;

enum { TM__ITEM_SCORES = 8 };

typedef struct tm__item {
    int64_t row;       /* in its file, from 0 */
    const char *group; /* "anatomy", several as "a|b", or NULL */
    /* kind choices */
    tm__choice *choices;
    size_t choice_count;
    /* kind answers: what is asked, what would be right, what was said */
    const tm_message *messages;
    size_t message_count;
    const char *reference;
    const char *answer;
    const char *said;    /* the answer as it is judged (tm__item_said) */
    const char *subject; /* the prompt as judges see it; NULL: the last user message */
    const char *context; /* text that the prompt is about, or NULL */
    bool benign;         /* should be answered: a refusal is one too many */
    const void *own;     /* the suite's */
    /* kinds texts and rows: sum of ln p over tokens of `text` */
    const char *text;
    double ll;
    int64_t tokens;
    double scores[TM__ITEM_SCORES]; /* NAN: none */
} tm__item;

typedef enum tm__measure_kind {
    TM__MEASURE_SHARE,      /* mean of scores that are 0 or 1 */
    TM__MEASURE_MEAN,       /* mean of scores */
    TM__MEASURE_MACRO,      /* mean over groups of the groups' shares */
    TM__MEASURE_PERPLEXITY, /* exp(-sum of `score` / sum of `over`) */
    TM__MEASURE_BITS,       /* -sum of `score` / sum of `over` / ln 2 */
    TM__MEASURE_LOSS,       /* -sum of `score` / sum of `over` */
} tm__measure_kind;

typedef struct tm__measure {
    const char *name;
    tm__measure_kind kind;
    int score, over; /* index into the items' scores */
    bool by_group;   /* for every group as well */
} tm__measure;

struct tm_evaluation;
struct tm__suite_calls {
    /* Reads the data at evaluation->path and adds items. */
    tm_status (*prepare)(struct tm_evaluation *evaluation);
    tm_status (*score)(struct tm_evaluation *evaluation, tm__item *item);
    const char *const *score_names; /* NULL-terminated */
    const tm__measure *measures;    /* name NULL ends them */
    const void *own;                /* the suite's */
    bool benign;                    /* all of its prompts should be answered */
};

typedef struct tm__numbers {
    tm_number *list;
    size_t count, cap;
} tm__numbers;

/* What one judge said. */
typedef struct tm__judged {
    const tm__judge_kind *kind;
    char *name, *spec;
    char hash[65];
    bool *asked;           /* of each item: whether the judge is asked about it */
    tm__verdict *verdicts; /* of each item */
    size_t asked_count, missing;
    char *journal; /* removed when the result is saved */
} tm__judged;

struct tm_evaluation {
    const tm_suite *suite;
    tm_eval_options options;
    int64_t shots; /* resolved, as are chat and max_new_tokens */
    int chat;
    int64_t max_new_tokens;
    char *path, *shot_path; /* data, and worked examples; NULL: none */
    char data_hash[65], asked_hash[65], model_hash[65];
    char *model_directory;
    const char *device, *instruction_set, *precision;
    const char *template_name, *template_from; /* how prompts became text; NULL: not asked, or from no template */
    char template_hash[65];
    const char *layout; /* which of its layouts the data has */
    tm__arena arena;
    tm__item *items;
    size_t count, cap;
    const char **notes;
    size_t note_count, note_cap;
    tm__numbers numbers;
    tm__judged *judged;
    size_t judged_count, judged_cap;
    struct json_t *source; /* of answers that were read: the evaluation they come from, or NULL */
    char *journal;         /* removed when the result is saved */
    bool asked;
    void *own; /* the suite's, released by own_free */
    void (*own_free)(void *own);
};

/* ---- what prepare calls ------------------------------------------------------------------------------------------ */

/* A new item with scores NAN; NULL: out of memory. It moves when the next is added. */
tm__item *tm__item_add(tm_evaluation *evaluation, int64_t row);
/* A new item that asks `messages` (up to a NULL role); texts are copied. */
tm_status tm__item_ask(tm_evaluation *evaluation, size_t row, const char *reference, const tm_message *messages);
/* The last item stands in this group too; NULL and "": in none. */
tm_status tm__item_group(tm_evaluation *evaluation, const char *name);
bool tm__item_benign(const tm_evaluation *evaluation, const tm__item *item);
/* Whether options.limit lets no further item in that would be the `index`-th of its part. */
bool tm__item_enough(const tm_evaluation *evaluation, int64_t index);
tm_status tm__evaluation_note(tm_evaluation *evaluation, const char *format, ...) TM__PRINTF(2, 3);
/* Text in the evaluation's arena; NULL: out of memory. */
const char *tm__keep(tm_evaluation *evaluation, const char *format, ...) TM__PRINTF(2, 3);

/* ---- data (rows.c, places.c) ------------------------------------------------------------------------------------- */

/* Rows of a file as JSON objects: JSON Lines, a JSON array, or a table with a header (.csv: RFC 4180; .tsv: as it
 * stands). `columns` (NULL-terminated lists, NULL-terminated): names of the columns of tables that have no header, one
 * list for each number of columns; NULL: tables have one. */
typedef struct tm__rows {
    const char *path;
    struct json_t *array;
    size_t count;
} tm__rows;
tm_status tm__rows_read(const char *path, const char *const *const *columns, tm__rows *rows);
void tm__rows_free(tm__rows *rows);
const struct json_t *tm__rows_at(const tm__rows *rows, size_t row);
bool tm__rows_have(const tm__rows *rows, size_t row, const char *column);
/* Columns of one row; what is missing or of another type is TM_FORMAT that names file, row and column. Texts live as
 * long as the rows. A number is taken for a text and a text of digits for a number. */
tm_status tm__rows_text(const tm__rows *rows, size_t row, const char *column, const char **value);
tm_status tm__rows_int(const tm__rows *rows, size_t row, const char *column, int64_t *value);
tm_status tm__rows_value(const tm__rows *rows, size_t row, const char *column, const struct json_t **value);
/* Text of a column that may be absent; NULL: it is, or is no text. */
const char *tm__rows_optional(const tm__rows *rows, size_t row, const char *column);
/* First of the columns (NULL-terminated) that the row has; NULL: none. */
const char *tm__rows_which(const tm__rows *rows, size_t row, const char *const *columns);
/* Makes items of rows `first` and on of the evaluation's file, as many as options.limit lets in. `add` makes one of a
 * row, or none. */
typedef tm_status tm__add_row(struct tm_evaluation *evaluation, const tm__rows *rows, size_t row);
tm_status tm__items_read(struct tm_evaluation *evaluation, const char *const *const *columns, size_t first,
                         tm__add_row *add);
/* An error about the row's column. */
tm_status tm__rows_fail(const tm__rows *rows, size_t row, const char *column, const char *format, ...) TM__PRINTF(4, 5);

/* The suite's file, and with shots the file of worked examples, by the names the suite lists. */
tm_status tm__place_find(tm_evaluation *evaluation, const char *data);
/* First of the names (separated by '|') that is there; NULL: none. The caller's. */
tm_status tm__place_first(const char *directory, const char *names, char **path);
/* SHA-256 of a file, or of names and contents of all files below a directory. */
tm_status tm__place_hash(const char *path, char hex[65]);
typedef tm_status (*tm__place_visit)(void *user, const char *name, const char *path);
/* Names of a directory in order. */
tm_status tm__place_list(const char *directory, tm__place_visit visit, void *user);

/* ---- text (text.c): as Python sees it ---------------------------------------------------------------------------- */

bool tm__py_space(uint32_t code); /* str.isspace */
/* str.strip: where it begins, and its length. */
const char *tm__py_strip(const char *text, size_t *len);
size_t tm__py_rstrip(const char *text, size_t len); /* length without white space at the end */
size_t tm__py_length(const char *text);             /* code points */
size_t tm__py_words(const char *text);              /* len(re.split(r"\s+", text)) */
char *tm__py_capitalize(const char *text);          /* NULL: out of memory */
/* str.replace, from left to right; NULL: out of memory. */
char *tm__py_replace(const char *text, const char *what, const char *by);

/* ---- worked examples (shots.c) ----------------------------------------------------------------------------------- */

/* Python's random.Random(seed), as far as sample() needs it: Matsumoto and Nishimura's MT19937. */
typedef struct tm__py_random {
    uint32_t state[624];
    int at;
} tm__py_random;
void tm__py_random_seed(tm__py_random *random, uint64_t seed);
uint32_t tm__py_random_u32(tm__py_random *random);
/* random.sample(range(n), k): k different numbers below n in the order drawn. */
tm_status tm__py_random_sample(tm__py_random *random, size_t n, size_t k, size_t *chosen);

/* ---- likelihood (likelihood.c) ----------------------------------------------------------------------------------- */

/* ln p(next | context); both hold tokens. Where contexts of neighbours are equal, or begin alike, that part is computed
 * once. */
typedef struct tm__query {
    int32_t *context, *next;
    size_t context_len, next_len;
    double ll;
} tm__query;
/* `done` (may be NULL) is told after each batch that the first `count` queries are answered. */
typedef struct tm__likelihood_watch {
    const char *phase;
    size_t first, total; /* queries answered before, and of all */
    tm_status (*done)(void *user, size_t count);
    void *user;
} tm__likelihood_watch;
tm_status tm__likelihood(tm_model *model, tm__query *queries, size_t n, int64_t batch,
                         const tm__likelihood_watch *watch, const tm_monitor *monitor);
/* Context and continuation as lm-evaluation-harness encodes a pair of texts; appends to both. */
tm_status tm__pair_encode(const tm_tokenizer *tokenizer, const char *context, const char *next, tm_ids *context_ids,
                          tm_ids *next_ids);
/* A whole text with the tokens that the tokenizer adds around it. */
tm_status tm__text_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, bool special, tm_ids *ids);
/* What stands before a text that has nothing before it: bos, else eos; -1: neither. */
int32_t tm__prefix_id(const tm_tokenizer *tokenizer);

/* ---- numbers (numbers.c) ----------------------------------------------------------------------------------------- */

void tm__wilson(double successes, double n, double *low, double *high); /* 95 % */
/* What one number is made of. */
typedef struct tm__column {
    const char *name, *judge; /* judge NULL: the suite's own */
    tm__measure_kind kind;
    bool by_group;
    const double *a, *b; /* of each item: score (NAN: none), and for ratios what it is divided by */
} tm__column;
/* All numbers of the suite itself; those that were there are dropped. */
tm_status tm__numbers_make(tm_evaluation *evaluation);
tm_status tm__numbers_add(tm_evaluation *evaluation, const tm__column *column);
void tm__numbers_free(tm__numbers *numbers);

/* ---- journal (journal.c): what has been answered already --------------------------------------------------------- */

/* What the lines of a journal mean. */
typedef struct tm__journal {
    const char *path, *key;                                 /* key: SHA-256 of everything that decides the lines */
    bool (*take)(void *user, const struct json_t *line);    /* false: it does not fit */
    struct json_t *(*make)(const void *user, size_t index); /* NULL: out of memory */
    void *user;
} tm__journal;
/* Takes what an earlier run of the same key noted, as far as it fits; the rest of the file is dropped. */
tm_status tm__journal_read(const tm__journal *journal);
/* Begins the file if it is not there, and appends the lines of `count` indices from `first` on, those alone that
 * `chosen` (of each index; NULL: all) holds. */
tm_status tm__journal_append(const tm__journal *journal, size_t first, size_t count, const bool *chosen);

/* ---- judges (judging.c) ------------------------------------------------------------------------------------------ */

/* The answer as judges get it: up to a repeated "### Response:", stripped. */
tm_status tm__item_said(tm_evaluation *evaluation, tm__item *item);
/* Sets the subject of an instruction with an input: both. */
tm_status tm__item_subject(tm_evaluation *evaluation, tm__item *item);
const char *tm__item_prompt(const tm__item *item); /* as judges get it */
/* Tells what a verdict is on: the beginning of the SHA-256 of prompt, context and answer. */
enum { TM__MARK = 17 };
void tm__item_mark(const tm__item *item, char mark[TM__MARK]);
void tm__judged_drop(tm_evaluation *evaluation); /* everything that judges said */
/* A verdict as it stands in results, journals and files to judge again; NULL: out of memory. */
struct json_t *tm__verdict_json(const tm__judge_kind *kind, const tm__verdict *verdict);
/* false: it is none, is missing, or memory ran out. */
bool tm__verdict_take(const tm__judge_kind *kind, const struct json_t *value, tm__verdict *verdict);

/* ---- answers (answers.c) and summaries (rouge.c) ----------------------------------------------------------------- */

/* An answer up to a repeated "### Response:", stripped; the caller's. */
tm_status tm__answer_cut(const char *answer, char **said);
typedef enum tm__label_rule {
    TM__LABEL_EITHER,    /* as published: equals the label in one of the accepted spellings */
    TM__LABEL_STRICT,    /* equals the label that is trained on, to the letter */
    TM__LABEL_SUBSTRING, /* holds one of the spellings (older code) */
} tm__label_rule;
/* `spellings`: what is accepted, the trained one first; NULL-terminated. */
bool tm__label_matches(tm__label_rule rule, const char *const *spellings, const char *answer);
extern const char *const tm__sst2_labels[2][3];   /* negative, positive */
extern const char *const tm__agnews_labels[4][3]; /* World, Sports, Business, Sci/Tech */
/* Numbers an answer of GSM8K ends in; infinity: none. */
typedef struct tm__gsm8k {
    double value;  /* the first behind the marker, else the last of all */
    double marked; /* the first behind the marker alone */
} tm__gsm8k;
tm_status tm__gsm8k_read(const char *answer, tm__gsm8k *numbers);
extern const char tm__gsm8k_marker[];

/* Unigram F1 with clipped counts. Words are runs of ASCII letters and digits in lower case, as `rouge_score` cuts them
 * (without stemming), or `split`: what white space separates, as it stands. */
tm_status tm__rouge1(const char *answer, const char *reference, bool split, double *f1);
/* HS+'s test: false where a word stands more than three times in a row. */
bool tm__answer_coherent(const char *answer);
/* Share of probability on right answers: sum over right of e^ll over sum of e^ll. */
double tm__mc2(const double *ll, const bool *right, size_t n);

/* ---- suites ------------------------------------------------------------------------------------------------------ */

extern const tm_suite tm__suite_mmlu, tm__suite_arc_easy, tm__suite_arc_challenge, tm__suite_hellaswag,
    tm__suite_openbookqa, tm__suite_piqa, tm__suite_winogrande, tm__suite_boolq, tm__suite_truthfulqa_mc1,
    tm__suite_truthfulqa_mc2, tm__suite_perplexity, tm__suite_wikitext, tm__suite_sst2, tm__suite_agnews,
    tm__suite_gsm8k, tm__suite_samsum, tm__suite_sql, tm__suite_alpaca_eval, tm__suite_loss, tm__suite_beavertails,
    tm__suite_advbench, tm__suite_harmbench, tm__suite_strongreject, tm__suite_hex_phi, tm__suite_harmful,
    tm__suite_harmless, tm__suite_xstest, tm__suite_maliciousinstruct, tm__suite_prompts, tm__suite_mt_bench,
    tm__suite_self_instruct;
/* Of answers to be judged alone: coherent, empty. */
extern const struct tm__suite_calls tm__calls_prompts;
extern const tm_suite tm__suite_world; /* src/lab/world_suite.c */

/* Kind rows: sums of ln p and counts of targets for each row of the data (loss.c); set by the frame. */
tm_status tm__loss_rows(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                        const tm_train_options *options, const tm_monitor *monitor, double *sums, int64_t *targets);

#endif
