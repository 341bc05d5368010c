/* suites.c: the one table of suites. A new suite is one entry in its file and one line here; help, lists and
 * documents come from it. */
#include "eval/suite.h"

static const tm_suite *const suites[] = {
    &tm__suite_mmlu,           &tm__suite_arc_easy,      &tm__suite_arc_challenge,
    &tm__suite_hellaswag,      &tm__suite_openbookqa,    &tm__suite_piqa,
    &tm__suite_winogrande,     &tm__suite_boolq,         &tm__suite_truthfulqa_mc1,
    &tm__suite_truthfulqa_mc2, &tm__suite_perplexity,    &tm__suite_wikitext,
    &tm__suite_sst2,           &tm__suite_agnews,        &tm__suite_gsm8k,
    &tm__suite_samsum,         &tm__suite_sql,           &tm__suite_alpaca_eval,
    &tm__suite_beavertails,    &tm__suite_advbench,      &tm__suite_harmbench,
    &tm__suite_strongreject,   &tm__suite_hex_phi,       &tm__suite_maliciousinstruct,
    &tm__suite_harmful,        &tm__suite_harmless,      &tm__suite_xstest,
    &tm__suite_mt_bench,       &tm__suite_self_instruct, &tm__suite_prompts,
    &tm__suite_loss,           &tm__suite_world,
};

const tm_suite *tm_suite_at(size_t index) {
    return index < TM__COUNT(suites) ? suites[index] : NULL;
}

const tm_suite *tm_suite_find(const char *name) {
    for (size_t i = 0; i < TM__COUNT(suites); i++)
        if (strcmp(suites[i]->name, name) == 0) return suites[i];
    return NULL;
}
