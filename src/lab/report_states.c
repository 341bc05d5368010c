/* report_states.c: where a plan's models hold harmful and harmless prompts: hidden states on their principal
 * components, layer by layer, before a defence and after (RepNoise, arXiv 2405.14577, shows its models so).
 *
 * Of the models that the plan keeps: the one that the first arm starts from, whose axes all are shown on, and each
 * arm's after its steps before the attack, of the first replicate. Computed when the report is made, from models and
 * data in the plan's directory; without them the view is left out. Attacked models are not kept. eval/represent.h says
 * what is computed. Pinned by tests/cli/cases/report.sh.
 */
#include "lab/report.h"
#include "lab/represent_plot.h"

#include <stdlib.h>

enum { PROMPTS = 60, MODELS = 8 };

/* The model that an arm's attackers get in the first replicate; NULL: it is not there. */
static const tm__plan_job *model_of(const tm_plan *plan, int arm) {
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *cell = &plan->jobs[i];
        if (cell->kind != TM__JOB_CELL || cell->arm != arm || cell->replicate != 0 || cell->world != 0) continue;
        const tm__plan_job *job = cell->needs[0] >= 0 ? &plan->jobs[cell->needs[0]] : NULL;
        return job && tm__plan_model_done(plan, job) ? job : NULL;
    }
    return NULL;
}

static tm_status add_model(tm_representation *states, const tm_plan *plan, const tm__plan_job *job, tm_device *device,
                           const tm_tokenizer *tokenizer) {
    tm_model *model = NULL;
    tm_status status = tm__plan_model_open(plan, job, device, &model);
    if (status == TM_OK)
        status =
            tm_representation_add(states, job->stage >= 0 ? plan->stages[job->stage].name : plan->arms[job->arm].name,
                                  model, tokenizer, NULL);
    tm_model_free(model);
    return status;
}

/* The first arm's model, then the models of arms that have one of their own. */
static size_t choose_models(const tm_plan *plan, const tm__plan_job *jobs[MODELS]) {
    size_t n = 0;
    for (size_t a = 0; a < plan->arm_count && n < MODELS; a++) {
        const tm__plan_job *job = model_of(plan, (int)a);
        if (!job || (a && job->stage >= 0)) continue;
        jobs[n++] = job;
        if (jobs[0]->stage < 0) return 0; /* nothing to compare with */
    }
    return n;
}

static tm_status compute(const tm_plan *plan, const tm__plan_job *const *jobs, size_t count, tm_dataset *const rows[2],
                         tm_representation **states) {
    tm_represent_options options;
    tm_device *device = NULL;
    tm_tokenizer *tokenizer = NULL;
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_options_default(tm_represent_option_table, &options);
    options.limit = PROMPTS;
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = tm_tokenizer_load(plan->world_dirs[0], &tokenizer);
    if (status == TM_OK) status = tm_representation_create(rows[0], rows[1], &options, states);
    for (size_t i = 0; i < count && status == TM_OK; i++) status = add_model(*states, plan, jobs[i], device, tokenizer);
    if (status == TM_OK) status = tm_representation_finish(*states, device);
    tm_tokenizer_free(tokenizer);
    tm_device_close(device);
    return status;
}

static tm_status draw(const void *user, const char *path) {
    return tm__represent_plot_components(user, path);
}

tm_status tm__report_states(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    const tm__plan_job *jobs[MODELS];
    tm_dataset *rows[2] = {NULL, NULL};
    tm_representation *states = NULL;
    char harmful[64];
    if (!plan->world_count || !tm__path_exists(plan->world_dirs[0]) || !r->page.pictures) return TM_OK;
    size_t count = choose_models(plan, jobs);
    if (count < 2) return TM_OK;
    snprintf(harmful, sizeof harmful, "forbidden-%s", tm__world_split_name(plan->probes.split));
    tm_status status = tm_world_set(plan->made[0], harmful, &rows[0]);
    if (status == TM_OK) status = tm_world_set(plan->made[0], "benign-dishes-test", &rows[1]);
    if (status == TM_OK) status = compute(plan, jobs, count, rows, &states);
    if (status == TM_OK)
        status =
            tm__page_picture(&r->page, "Hidden states of harmful and harmless prompts",
                             "Before an attack, first replicate: the last token's state of forbidden questions and of "
                             "questions for allowed dishes, on the first two principal components of the first model. "
                             "A defence that only moves the answers leaves the two clouds as they were.",
                             draw, states, "states");
    tm_representation_free(states);
    tm_dataset_free(rows[0]);
    tm_dataset_free(rows[1]);
    return status;
}
