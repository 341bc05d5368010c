/* method.h: the methods behind the registry, and the parts of them that tests call directly. */
#ifndef TM_METHOD_H
#define TM_METHOD_H

#include "train/train.h"

extern const tm_method tm__method_sdd, tm__method_harmful_sft, tm__method_panacea;

extern const tm_method tm__method_backdoor_align;

/* ---- what methods that train share (job.c) ---- */

typedef struct tm__job {
    tm_model *model;
    const tm_tokenizer *tokenizer;
    const tm_method_data *data;
    const tm_monitor *monitor;
    tm_train_options train;
    tm_train_result *result;
} tm__job;
/* Checks the data of `method` and resolves the options of training. */
tm_status tm__job_begin(tm__job *job, const tm_method *method, tm_model *model, const tm_tokenizer *tokenizer,
                        const tm_method_data *data, const tm_train_options *train, const tm_monitor *monitor,
                        tm_train_result *result);
/* Rows of one role as examples; `name` of the role goes into errors. */
tm_status tm__job_encode(const tm__job *job, const tm_dataset *rows, const char *name, tm__examples *examples);
/* tm__train_run with a tag of the method's name and all of its options. */
tm_status tm__job_run(const tm__job *job, const tm_method *method, const void *options, const tm__examples *const *sets,
                      size_t set_count, tm__run *run);
/* Seed of the row order of a method's second (index 1) and further sets: streams must not move together. */
uint64_t tm__job_seed(const tm__trainer *trainer, unsigned index);

/* ---- pairing of SDD (sdd_pairing.c) ---- */

/* Rows of `harmful` to pair: the first of each distinct prompt; `wanted` of them (0: all), as many from every category
 * as all can give, the rest from the shuffled remainder. `*rows` is the caller's. */
tm_status tm__sdd_select(const tm_dataset *harmful, size_t wanted, uint64_t seed, size_t **rows, size_t *count);
/* The last user message of a row and its input ("" where it has none). false: the row asks nothing. */
bool tm__sdd_prompt(const tm_dataset *harmful, size_t row, const tm_message **system, const tm_message **user,
                    const tm_message **input);

typedef struct tm__sdd_pair {
    size_t answer; /* index into the pool */
    double cosine;
    int64_t tries; /* answers drawn, 1 to max_tries */
    bool accepted; /* cosine <= threshold; else the best of the answers drawn */
} tm__sdd_pair;

/* The q-quantile of all prompt-pool cosines: element floor(q (count - 1)) in rising order, of all pairs or, where there
 * are more than TM__SDD_SAMPLE, of so many drawn at random. q = 1 is cosine 1, which accepts everything. */
enum { TM__SDD_SAMPLE = 200000 };
tm_status tm__sdd_threshold(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double q,
                            uint64_t seed, double *threshold);
/* prompts (n,d) and pool (m,d) are L2-normalised, m > 0; pairs (n). */
void tm__sdd_pair_all(const double *prompts, size_t n, const double *pool, size_t m, size_t d, double threshold,
                      int64_t max_tries, uint64_t seed, tm__sdd_pair *pairs);

#endif
