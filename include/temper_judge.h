/* temper_judge.h: the part of temper.h about judges: is an answer harmful, is it a refusal; included by it.
 *
 *     tm_judge *judge;
 *     tm_status status = tm_judge_open("keywords=my-list.txt,as=mine", NULL, NULL, &judge);
 *     if (status == TM_OK) status = tm_evaluation_judge(evaluation, judge, NULL, NULL);
 *     tm_judge_close(judge);
 *
 * A judge is named by `NAME[=PATH][,OPTION=VALUE]...`; a comma in a path or value is written twice. The option `as`
 * gives it another name in results, so that two of one kind can stand side by side.
 */
#ifndef TEMPER_JUDGE_H
#define TEMPER_JUDGE_H

#include "temper_base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tm_judge tm_judge;

/* One kind of judge. */
typedef struct tm_judge_about {
    const char *name, *summary;
    const char *argument; /* what PATH is: "FILE", "DIR"; NULL: it takes none */
    bool needs_argument;
    const char *compare;      /* whose numbers these may be compared with */
    const tm_option *options; /* ends with a NULL name */
    const char *numbers[8];   /* names of the numbers it gives, then NULL */
} tm_judge_about;
TM_API bool tm_judge_kind_at(size_t index, tm_judge_about *about); /* false: past the last */

/* Opens what the spec names: reads lists, loads weights on `device` (NULL: the defaults). */
TM_API tm_status tm_judge_open(const char *spec, const tm_device_options *device, const tm_monitor *monitor,
                               tm_judge **judge);
TM_API void tm_judge_close(tm_judge *judge);
TM_API const char *tm_judge_name(const tm_judge *judge); /* of this judge in results: "keywords", or as=NAME */
TM_API const char *tm_judge_kind(const tm_judge *judge); /* "keywords" */
TM_API const char *tm_judge_hash(const tm_judge *judge); /* SHA-256 of all that decides its verdicts */

/* What judging would ask of others: tm_evaluation_judge_cost. */
typedef struct tm_judge_cost {
    int64_t answers;       /* to be judged */
    int64_t requests;      /* to an endpoint; 0 for judges on this machine */
    int64_t bytes;         /* of these requests */
    int64_t max_tokens;    /* that may be written in reply */
    int64_t cached;        /* answers whose judgement was paid for before */
    int64_t answer_tokens; /* that the answers may hold, which stand in no request yet; 0: they are there */
} tm_judge_cost;

/* Lists of refusals that are built in. */
typedef struct tm_keyword_list {
    const char *name, *about;
    const char *text; /* one keyword a line, as the file in data/keywords */
    size_t bytes, count;
    char sha256[65]; /* of the text */
} tm_keyword_list;
TM_API bool tm_keyword_list_at(size_t index, tm_keyword_list *list); /* false: past the last */

#ifdef __cplusplus
}
#endif
#endif
