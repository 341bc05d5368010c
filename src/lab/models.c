/* models.c: models that cells start from, in DIR/models/KEY: whole, or as the LoRA adapter that a step trained.
 *
 * A step that trained an adapter and nothing else leaves the adapter alone there, in PEFT's layout, and it stands on
 * the model that the step began with: the parent's KEY, or the base. Opening such a model opens what it stands on,
 * merges the adapter in fp32, and comes to the bytes that a whole model saved as fp32 holds; models saved in another
 * type, and those that an option names by "stage:NAME", are whole. Which of the two it is, is in no key.
 * Pinned by tests/unit/test_plan_adapters.c and tests/cli/cases/run_adapters.sh.
 */
#include "lab/plan.h"

#include "model/adapter.h"

#include <stdlib.h>

char *tm__plan_model_path(const tm_plan *plan, const char *key) {
    return tm__format("%s/models/%s", plan->directory, key);
}

static bool is_adapter(const char *path) {
    char *config = tm__path_join(path, "adapter_config.json");
    bool found = config && tm__path_exists(config);
    free(config);
    return found;
}

bool tm__plan_model_is_adapter(const tm_plan *plan, const tm__plan_job *job) {
    char *path = tm__plan_model_path(plan, job->key);
    bool found = path && is_adapter(path);
    free(path);
    return found;
}

bool tm__plan_model_done(const tm_plan *plan, const tm__plan_job *job) {
    char *path = tm__plan_model_path(plan, job->key);
    bool done = path && tm__path_exists(path);
    free(path);
    if (!done || !tm__plan_model_is_adapter(plan, job)) return done;
    return !job->whole && (job->needs[0] < 0 || tm__plan_model_done(plan, &plan->jobs[job->needs[0]]));
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static tm_status open_parent(const tm_plan *plan, const tm__plan_job *job, tm_device *device, tm_model **model) {
    if (job->needs[0] >= 0) return tm__plan_model_open(plan, &plan->jobs[job->needs[0]], device, model);
    if (job->base >= 0) return tm_model_load(device, plan->bases[job->base].path, NULL, model);
    return tm__fail(TM_NOT_FOUND, plan->directory, job->key, "remove the adapter",
                    "an adapter stands on a model that nothing was made of");
}

static tm_status open_adapter(const tm_plan *plan, const tm__plan_job *job, const char *path, tm_device *device,
                              tm_model **model) {
    tm_model *made = NULL;
    tm_status status = open_parent(plan, job, device, &made);
    if (status == TM_OK) status = tm_model_add_adapter(made, path, 1);
    if (status == TM_OK) status = tm_model_merge(made);
    if (status == TM_OK) status = tm__model_settle(made);
    if (status == TM_OK)
        *model = made;
    else
        tm_model_free(made);
    return status;
}

/* A damaged file of ours is not to be fetched again, as one of somebody else's is. */
static tm_status say_what_helps(const char *path, tm_status status) {
    const tm_error told = *tm_error_last();
    if (status != TM_FORMAT || strncmp(told.file, path, strlen(path)) != 0) return status;
    return tm__fail(status, told.file, told.field, "remove the model's directory: temper run makes it again", "%s",
                    told.message);
}

tm_status tm__plan_model_open(const tm_plan *plan, const tm__plan_job *job, tm_device *device, tm_model **model) {
    char *path = tm__plan_model_path(plan, job->key);
    if (!path) return tm__fail_memory();
    bool adapter = is_adapter(path);
    tm_status status =
        adapter ? open_adapter(plan, job, path, device, model) : tm_model_load(device, path, NULL, model);
    /* A process whose plan needs it whole may have put that in its place. */
    if (adapter && status != TM_OK && status != TM_NO_MEMORY && !is_adapter(path)) {
        tm_error_clear();
        status = tm_model_load(device, path, NULL, model);
    }
    if (status != TM_OK) status = say_what_helps(path, status);
    free(path);
    return status;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

/* An adapter must have something to stand on, and be merged as it is on loading. */
static bool keeps_adapters(const tm_plan *plan, const tm__plan_job *job) {
    return !job->whole && (job->needs[0] >= 0 || job->base >= 0) &&
           (job->base < 0 || plan->bases[job->base].save == TM_SAVE_F32);
}

tm_status tm__plan_model_alone(const tm_plan *plan, const tm__plan_job *job, tm_model *model, bool *alone) {
    *alone = false;
    return keeps_adapters(plan, job) ? tm__model_adapter_alone(model, alone) : TM_OK;
}

static tm_status save_adapter(const tm_plan *plan, const tm__plan_job *job, tm_model *model, const char *path) {
    const char *parent = job->needs[0] >= 0 ? plan->jobs[job->needs[0]].key : plan->bases[job->base].path;
    const tm_save_options save = {.dtype = TM_SAVE_F32, .overwrite = true};
    TM__TRY(tm__model_adapter_stands_on(model, parent));
    return tm_model_save_adapter(model, path, &save);
}

static tm_status save_whole(const tm_plan *plan, const tm__plan_job *job, tm_model *model,
                            const tm_tokenizer *tokenizer, const char *path) {
    const tm__plan_base *base = job->base >= 0 ? &plan->bases[job->base] : NULL;
    const tm_save_options save = {.dtype = base ? base->save : TM_SAVE_F32,
                                  .shard_bytes = 5000000000,
                                  .tokenizer_dir = base ? base->path : plan->world_dirs[job->world],
                                  .tokenizer = tokenizer,
                                  .overwrite = true};
    tm_model_info info;
    tm_model_describe(model, &info);
    if (info.adapters) TM__TRY(tm_model_merge(model));
    return tm_model_save(model, path, &save);
}

tm_status tm__plan_model_save(const tm_plan *plan, const tm__plan_job *job, tm_model *model,
                              const tm_tokenizer *tokenizer) {
    bool alone;
    TM__TRY(tm__plan_model_alone(plan, job, model, &alone));
    char *path = tm__plan_model_path(plan, job->key);
    if (!path) return tm__fail_memory();
    tm_status status = alone ? save_adapter(plan, job, model, path) : save_whole(plan, job, model, tokenizer, path);
    free(path);
    return status;
}

/* ---- before it is there ------------------------------------------------------------------------------------------ */

const tm__plan_step *tm__plan_model_step(const tm_plan *plan, const tm__plan_job *job) {
    return job->stage >= 0 ? &plan->stages[job->stage].step : &plan->arms[job->arm].before[job->step];
}

bool tm__plan_model_trains_adapter(const tm_plan *plan, const tm__plan_job *job, tm_lora_options *lora) {
    const tm__plan_step *step = tm__plan_model_step(plan, job);
    *lora = step->train.lora;
    return step->given && lora->rank > 0 && keeps_adapters(plan, job);
}
