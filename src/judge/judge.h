/* judge.h: what a judge of answers is.
 *
 * A kind is one tm__judge_kind in one file and one line in judges.c. It is handed exchanges, a prompt and what was
 * answered, in batches, and gives each its scores or says why there are none. Who asks (src/eval/judging.c) keeps
 * journals, counts, and makes the numbers. Higher scores are more harmful.
 */
#ifndef TM_JUDGE_H
#define TM_JUDGE_H

#include "base/base.h"
#include "temper_judge.h"

typedef struct tm__exchange {
    const char *prompt;
    const char *context; /* text that the prompt is about (HarmBench's), or NULL */
    const char *answer;  /* stripped; may be empty */
} tm__exchange;

enum { TM__VERDICT_SCORES = 6, TM__JUDGE_BATCH = 64 /* exchanges that a judge is handed at a time, at most */ };

typedef struct tm__verdict {
    double scores[TM__VERDICT_SCORES]; /* in the order of the kind's `scores`; NAN: none */
    char *output;                      /* what the judge wrote, or which keyword or label decided; NULL: nothing */
    char *missing;                     /* why there is no verdict; NULL: there is one. Never counted as safe. */
} tm__verdict;
void tm__verdict_free(tm__verdict *verdict); /* its texts; scores are NAN after */

/* How scores of all answers become a number. */
typedef enum tm__judge_measure_kind {
    TM__JUDGE_SHARE,    /* mean of a score that is 0 or 1, with Wilson's interval */
    TM__JUDGE_MEAN,     /* mean, with a bootstrap's */
    TM__JUDGE_SHARE_OF, /* share of answers whose score equals `value` */
} tm__judge_measure_kind;
typedef struct tm__judge_measure {
    const char *name; /* "asr"; NULL ends a table */
    tm__judge_measure_kind kind;
    int score; /* index into the kind's scores */
    double value;
} tm__judge_measure;

/* Where a judge may run. */
struct tm__judge_place {
    const tm_device_options *device; /* never NULL */
    const tm_monitor *monitor;       /* of loading; may be NULL */
};

typedef struct tm__judge_kind {
    const char *name;     /* "keywords" */
    const char *summary;  /* one line */
    const char *argument; /* what PATH is: "FILE", "DIR"; NULL: it takes none */
    bool needs_argument;
    const char *compare;      /* whose numbers these may be compared with */
    const tm_option *options; /* of the struct that `open` gets; NULL: it has none */
    size_t options_size;
    const char *const *scores; /* NULL-terminated, at most TM__VERDICT_SCORES: "flagged", "probability" */
    const tm__judge_measure *measures;
    int flagged; /* index of the 0/1 score "this answer is harmful": beside the first measure of it the frame puts
                    NAME+, flagged or incoherent; -1: it has none */
    int refused; /* index of the 0/1 score "this answer refuses"; -1: it has none */
    /* `path` (NULL: none was given) and the texts in `options` live until `close`. On failure nothing is held. */
    tm_status (*open)(const char *path, const void *options, const struct tm__judge_place *place, void **own);
    /* Sets every verdict's scores, or `missing`. They come with scores NAN and texts NULL, and their texts are freed by
     * the caller also where this fails: with TM_INTERRUPTED, or where no further answer could be judged either. */
    tm_status (*judge)(void *own, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                       const tm_monitor *monitor);
    /* Everything that decides a verdict: list, weights, prompt, thresholds, name of the model. */
    void (*identity)(const void *own, tm__sha256 *hash);
    void (*close)(void *own);
    /* Of judges that ask others; NULL in all else. */
    /* Adds what these exchanges would cost, but for `answers`; asks nobody. */
    tm_status (*estimate)(void *own, const tm__exchange *exchanges, size_t n, tm_judge_cost *cost);
    /* Before `judge`: the directory of the results, for what is kept beside them. */
    tm_status (*beside)(void *own, const char *directory);
    /* What judging took so far, in one line; none where there is nothing to tell. */
    void (*account)(const void *own, char *line, size_t size);
} tm__judge_kind;

struct tm_judge {
    const tm__judge_kind *kind;
    char *spec;  /* as it was given */
    char *words; /* a copy cut into its parts, which `path` and `options` point into */
    const char *path, *name;
    void *options, *own;
    char hash[65];
};

/* The kind's judge with all of its promises checked: every verdict has its finite or NAN scores, or a reason. On
 * failure the verdicts hold nothing. */
tm_status tm__judge_answers(tm_judge *judge, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                            const tm_monitor *monitor);
/* Copies a text into a verdict's field; false: out of memory. */
bool tm__verdict_say(char **field, const char *format, ...) TM__PRINTF(2, 3);

extern const tm__judge_kind tm__judge_keywords, tm__judge_classifier, tm__judge_harmbench, tm__judge_llama_guard,
    tm__judge_strongreject_ft, tm__judge_rubric, tm__judge_strongreject;

#endif
