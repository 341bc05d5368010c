/* names.c: a plan's models and worlds by name: DIR/by-name/PLAN/NAME is a link to what lies under its key.
 *
 * A stage is called as in the plan, an arm's model after its steps before the attack ARM-seed-S, a world's data
 * world-W; where a plan has several worlds, -world-W follows a model's name. What would be no name of a file becomes
 * '-'. Pinned by tests/cli/cases/gc.sh.
 */
#include "lab/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void plain(const char *text, char *name, size_t size) {
    static const char kept[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=+";
    size_t n = 0;
    for (; *text && n + 1 < size; text++, n++) name[n] = strchr(kept, *text) && (n || *text != '.') ? *text : '-';
    name[n] = 0;
}

char *tm__plan_names_path(const tm_plan *plan) {
    char name[TM__PLAN_NAME];
    plain(plan->name, name, sizeof name);
    return tm__format("%s/by-name/%s", plan->directory, name);
}

/* Put in place of what has the name, in one step: several processes may be at it. File systems without links have no
 * names; everything else works there. */
static tm_status make_link(const tm_plan *plan, const char *name, const char *target) {
    char *folder = tm__plan_names_path(plan);
    char *path = folder ? tm__format("%s/%s", folder, name) : NULL;
    char *aside = path ? tm__format("%s.%ld", path, (long)getpid()) : NULL;
    tm_status status = aside ? tm__make_directories(folder) : tm__fail_memory();
    if (status == TM_OK) {
        unlink(aside);
        if (symlink(target, aside) != 0)
            status = errno == EPERM || errno == ENOTSUP ? TM_OK : tm__fail_errno(aside, "cannot be made");
        else if (rename(aside, path) != 0)
            status = tm__fail_errno(path, "cannot be made");
        if (status != TM_OK) unlink(aside);
    }
    free(aside);
    free(path);
    free(folder);
    return status;
}

bool tm__plan_job_name(const tm_plan *plan, const tm__plan_job *job, char *name, size_t size) {
    if (job->kind != TM__JOB_MODEL) return false;
    if (job->stage < 0 && (size_t)job->step + 1 < plan->arms[job->arm].before_count) return false;
    char base[TM__PLAN_NAME], of_base[TM__PLAN_NAME + 1] = "", seed[40] = "", world[40] = "";
    plain(job->stage >= 0 ? plan->stages[job->stage].name : plan->arms[job->arm].name, base, sizeof base);
    if (job->stage < 0) snprintf(seed, sizeof seed, "-seed-%llu", (unsigned long long)job->seed);
    if (job->base >= 0) {
        char name_of_base[TM__PLAN_NAME];
        plain(plan->bases[job->base].name, name_of_base, sizeof name_of_base);
        if (job->stage >= 0 && plan->base_count > 1) snprintf(of_base, sizeof of_base, "-%s", name_of_base);
    }
    if (plan->world_count > 1 && job->world >= 0)
        snprintf(world, sizeof world, "-world-%llu", (unsigned long long)plan->worlds[job->world]);
    snprintf(name, size, "%s%s%s%s", base, of_base, seed, world);
    return true;
}

tm_status tm__plan_link_model(const tm_plan *plan, const tm__plan_job *job) {
    char name[2 * TM__PLAN_NAME], target[96];
    if (!tm__plan_job_name(plan, job, name, sizeof name)) return TM_OK;
    snprintf(target, sizeof target, "../../models/%s", job->key);
    return make_link(plan, name, target);
}

tm_status tm__plan_link_worlds(const tm_plan *plan) {
    for (size_t i = 0; i < plan->world_count; i++) {
        char name[40], target[96];
        snprintf(name, sizeof name, "world-%llu", (unsigned long long)plan->worlds[i]);
        snprintf(target, sizeof target, "../../worlds/%s", strrchr(plan->world_dirs[i], '/') + 1);
        TM__TRY(make_link(plan, name, target));
    }
    return TM_OK;
}
