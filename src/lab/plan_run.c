/* plan_run.c: the public side of plans: open one, list its jobs, run one of them, tell what was found.
 *
 * A job that another process is at holds a lock (flock, which ends with its holder); running it then is TM_EXISTS, and
 * the caller turns to another. A result is written whole after the work, so a killed process costs one job at most.
 */
#include "lab/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

tm_status tm_plan_begin(const tm_plan *plan) {
    static const char *const names[] = {"models", "cells", "locks", "tmp", "worlds"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *path = tm__path_join(plan->directory, names[i]);
        tm_status status = path ? tm__make_directories(path) : tm__fail_memory();
        free(path);
        TM__TRY(status);
    }
    for (size_t i = 0; i < plan->world_count; i++)
        if (!tm__path_exists(plan->world_dirs[i])) TM__TRY(tm_world_write(plan->made[i], plan->world_dirs[i]));
    return TM_OK;
}

tm_status tm_plan_open(const char *path, const char *directory, const tm_device *device, tm_plan **plan) {
    tm_plan *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->path = tm__format("%s", path);
    made->directory = tm__format("%s", directory);
    tm_status status = made->path && made->directory ? tm__plan_read(made) : tm__fail_memory();
    if (status == TM_OK) status = tm__plan_expand(made, device);
    if (status == TM_OK)
        *plan = made;
    else
        tm_plan_free(made);
    return status;
}

void tm_plan_free(tm_plan *plan) {
    if (!plan) return;
    for (size_t i = 0; i < plan->world_count; i++) {
        tm_world_free(plan->made[i]);
        free(plan->world_dirs[i]);
    }
    free(plan->set_hash);
    free(plan->stages);
    free(plan->attacks);
    free(plan->arms);
    free(plan->jobs);
    tm__arena_release(&plan->arena);
    free(plan->text);
    free(plan->path);
    free(plan->directory);
    free(plan);
}

/* A damaged record is a cell that is still to be done. */
static bool is_done(const tm_plan *plan, const tm__plan_job *job) {
    if (job->kind == TM__JOB_CELL) {
        tm__record record;
        bool done = tm__record_load(plan, job->key, &record) == TM_OK;
        tm_error_clear();
        return done;
    }
    char *path = tm__plan_model_path(plan, job->key);
    bool done = path && tm__path_exists(path);
    free(path);
    return done;
}

bool tm_plan_job(const tm_plan *plan, size_t index, tm_plan_job_info *info) {
    if (index >= plan->job_count) return false;
    const tm__plan_job *job = &plan->jobs[index];
    *info = (tm_plan_job_info){.cell = job->kind == TM__JOB_CELL, .done = is_done(plan, job)};
    for (int i = 0; i < TM__PLAN_REFS; i++)
        if (job->needs[i] >= 0) info->needs[info->need_count++] = (size_t)job->needs[i];
    unsigned long long world = (unsigned long long)plan->worlds[job->world];
    if (job->stage >= 0)
        snprintf(info->name, sizeof info->name, "%s, world %llu", plan->stages[job->stage].name, world);
    else
        snprintf(info->name, sizeof info->name, "%s, %s, world %llu, seed %llu", plan->arms[job->arm].name,
                 job->attack >= 0 ? plan->attacks[job->attack].name : "defence", world, (unsigned long long)job->seed);
    return true;
}

static tm_status take_lock(const tm_plan *plan, const tm__plan_job *job, int *lock) {
    char *path = tm__format("%s/locks/%s", plan->directory, job->key);
    if (!path) return tm__fail_memory();
    *lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    tm_status status = *lock < 0 ? tm__fail_errno(path, "cannot be made") : TM_OK;
    if (status == TM_OK && flock(*lock, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK ? tm__fail(TM_EXISTS, path, NULL, NULL, "another process is at this job")
                                      : tm__fail_errno(path, "cannot be locked");
        close(*lock);
    }
    free(path);
    return status;
}

tm_status tm_plan_run(const tm_plan *plan, size_t index, tm_device *device, const tm_monitor *monitor) {
    int lock = -1;
    if (index >= plan->job_count)
        return tm__fail(TM_INVALID, plan->path, "job", NULL, "there are %zu", plan->job_count);
    const tm__plan_job *job = &plan->jobs[index];
    TM__TRY(take_lock(plan, job, &lock));
    tm_status status = TM_OK;
    if (!is_done(plan, job)) {
        if (job->kind == TM__JOB_MODEL) {
            status = tm__cell_model(plan, job, device, monitor);
        } else {
            tm__record record;
            status = tm__cell_run(plan, job, device, monitor, &record);
            if (status == TM_OK) status = tm__record_save(plan, &record);
        }
    }
    close(lock);
    return status;
}
