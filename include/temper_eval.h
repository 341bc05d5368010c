/* temper_eval.h: suites: named evaluations of a model, each with the numbers that papers report and their intervals.
 *
 *     tm_evaluation *evaluation = NULL;
 *     tm_status status = tm_evaluation_open(tm_suite_find("arc_easy"), "data/arc/test.jsonl", NULL, &evaluation);
 *     if (status == TM_OK) status = tm_evaluation_run(evaluation, model, tokenizer, NULL, NULL);
 *     tm_number number;
 *     for (size_t i = 0; status == TM_OK && tm_evaluation_number(evaluation, i, &number); i++)
 *         printf("%s %.3f [%.3f, %.3f]\n", number.name, number.value, number.low, number.high);
 *     if (status == TM_OK) status = tm_evaluation_save(evaluation, "results/arc_easy.json");
 *     tm_evaluation_free(evaluation);
 *
 * docs/evaluation.md says which data each suite reads and which numbers may be compared with which paper's.
 */
#ifndef TEMPER_EVAL_H
#define TEMPER_EVAL_H

#include "temper_data.h"
#include "temper_judge.h"
#include "temper_method.h"
#include "temper_model.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tm_evaluation tm_evaluation;

/* What a suite asks, and of which kind its items are. */
typedef enum tm_suite_kind {
    TM_SUITE_CHOICES, /* answers that are given are scored by their likelihood */
    TM_SUITE_TEXTS,   /* likelihood of whole texts */
    TM_SUITE_ANSWERS, /* the model answers, and what it says is scored */
    TM_SUITE_ROWS,    /* likelihood of a data set's answers, in a chat format */
} tm_suite_kind;

typedef struct tm_suite {
    const char *name; /* "arc_easy" */
    tm_suite_kind kind;
    const char *measures;   /* one line */
    const char *layout;     /* columns of its data in each layout that is read; NULL: it needs none */
    const char *folders;    /* where its data may lie below a data directory, separated by '|' */
    const char *files;      /* what its file may be called, separated by '|' */
    const char *shot_file;  /* what the file that worked examples are taken from may be called; NULL: it takes none */
    const char *numbers;    /* "acc, acc_norm" */
    const char *compare;    /* whose numbers these may be compared with */
    int64_t shots;          /* worked examples before each question where none are asked for */
    int64_t max_new_tokens; /* of an answer; 0: it asks for none */
    int chat;               /* tm_chat_format of its prompts */
    bool judged;            /* its numbers are judges': without any, by lists of refusals */
    bool exports;           /* tm_evaluation_export writes its answers for another judge */
    const struct tm__suite_calls *calls; /* how it is done */
} tm_suite;

TM_API const tm_suite *tm_suite_at(size_t index);          /* NULL: past the last */
TM_API const tm_suite *tm_suite_find(const char *name);    /* NULL: there is none */
TM_API const char *tm_suite_kind_name(tm_suite_kind kind); /* "choices" */

typedef struct tm_eval_options {
    const char *data_dir;          /* holds the suites' data under the names that their `folders` and `files` list */
    int64_t limit;                 /* first items of the data (of every subject of mmlu, file of hex_phi); 0: all */
    int64_t shots;                 /* worked examples; -1: as the suite says */
    int64_t seed;                  /* of the draw of worked examples */
    int64_t batch;                 /* sequences at a time; changes no number */
    int64_t max_new_tokens;        /* longest answer; 0: as the suite says */
    int chat;                      /* 0: as the suite says, else 1 + tm_chat_format */
    const char *preamble;          /* file of the question-answer pairs that go before every question of TruthfulQA */
    int64_t world;                 /* seed of the built-in world */
    int split;                     /* of its forbidden items: TM_WORLD_DEFENDER ... */
    const tm_frame *frame;         /* around every prompt that is answered; NULL: none */
    const tm_train_options *train; /* of suites of kind rows: batch, max_length, ...; NULL: their defaults */
} tm_eval_options;

extern TM_API const tm_option tm_eval_option_table[];

/* One figure with its 95 % interval: Wilson's for shares, else a bootstrap over the items with a fixed seed. */
typedef struct tm_number {
    const char *name;  /* "acc" */
    const char *group; /* the part of the items it is about: "anatomy"; NULL: all */
    const char *judge; /* whose verdicts it is made of; NULL: nobody's */
    double value, low, high;
    int64_t n;            /* items it is over; those without a score are left out */
    const char *interval; /* "wilson", "bootstrap"; NULL: none (fewer than two items) */
} tm_number;

/* Reads the data and makes the prompts; no model is needed yet. `data`: file or directory; NULL: looked for below
 * options->data_dir. Texts of `options` must live as long as the evaluation. */
TM_API tm_status tm_evaluation_open(const tm_suite *suite, const char *data, const tm_eval_options *options,
                                    tm_evaluation **evaluation);
TM_API void tm_evaluation_free(tm_evaluation *evaluation);
TM_API size_t tm_evaluation_items(const tm_evaluation *evaluation);
/* Asks the model. `journal`: a file that what is done is noted in, so that after an interruption the same call goes on
 * from there; it is removed by tm_evaluation_save. NULL: none. */
TM_API tm_status tm_evaluation_run(tm_evaluation *evaluation, tm_model *model, const tm_tokenizer *tokenizer,
                                   const char *journal, const tm_monitor *monitor);
/* Lets a judge (it may be closed after) read all answers, and makes numbers of its verdicts: the judge's own over
 * prompts that should not be answered, beside the first NAME+ (flagged or incoherent); `refusal`, of prompts that
 * should be answered `over_refusal`; `missing`, the share without a verdict, which no other number counts; and
 * `coherent` and `empty` where the suite has none. `journal` as above. */
TM_API tm_status tm_evaluation_judge(tm_evaluation *evaluation, tm_judge *judge, const char *journal,
                                     const tm_monitor *monitor);
/* What that would ask of others, before anything is asked, the model included: then requests are counted as for empty
 * answers. `beside`: the directory that results will go to, where replies paid for earlier lie; NULL: none. Journals
 * are not looked at. */
TM_API tm_status tm_evaluation_judge_cost(tm_evaluation *evaluation, tm_judge *judge, const char *beside,
                                          tm_judge_cost *cost);

/* Answers that are there already, instead of tm_evaluation_open and _run: the JSON of an evaluation (verdicts of the
 * same judge in it are taken over), or rows of prompt and answer. */
typedef struct tm_answers_options {
    const char *prompt, *answer, *context, *category; /* columns of rows; NULL: those that the first row has */
    int64_t limit;                                    /* first answers; 0: all */
} tm_answers_options;
extern TM_API const tm_option tm_answers_option_table[];
TM_API tm_status tm_evaluation_open_answers(const char *path, const tm_answers_options *options,
                                            tm_evaluation **evaluation);
TM_API const tm_suite *tm_evaluation_suite(const tm_evaluation *evaluation);
/* false: there is no such number. */
TM_API bool tm_evaluation_number(const tm_evaluation *evaluation, size_t index, tm_number *number);
/* What a reader of the numbers must know ("the layout is not the published one"); NULL: past the last. */
TM_API const char *tm_evaluation_note(const tm_evaluation *evaluation, size_t index);
/* Numbers, hashes of model, data, prompts, the program's version; with `items` every prompt, answer and score too.
 * The text is the caller's. */
TM_API tm_status tm_evaluation_json(const tm_evaluation *evaluation, bool items, char **text);
/* The same with items as a file that appears whole or not at all. */
TM_API tm_status tm_evaluation_save(const tm_evaluation *evaluation, const char *path);
/* Answers as AlpacaEval and others read a model's outputs: a JSON array of instruction, output, generator (a name for
 * the model). */
TM_API tm_status tm_evaluation_export(const tm_evaluation *evaluation, const char *generator, const char *path);

#ifdef __cplusplus
}
#endif
#endif
