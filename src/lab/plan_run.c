/* plan_run.c: the public side of plans: open one, list its jobs, run one of them, tell what was found.
 *
 * A job that another process is at holds a lock (flock, which ends with its holder); running it then is TM_EXISTS, and
 * the caller turns to another. A result is written whole after the work, so a killed process costs one job at most.
 * What a job was at, step by step, goes into the store with it; so does why it failed.
 */
#include "lab/search.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* A damaged record is a cell that is still to be done. */
static bool is_done(const tm_plan *plan, const tm__plan_job *job) {
    if (job->kind == TM__JOB_CELL) {
        tm__record record;
        bool done = tm__record_load(plan, job->key, &record) == TM_OK;
        tm_error_clear();
        return done;
    }
    return tm__plan_model_done(plan, job);
}

tm_status tm_plan_begin(const tm_plan *plan) {
    static const char *const names[] = {"models", "locks", "tmp", "worlds"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char *path = tm__path_join(plan->directory, names[i]);
        tm_status status = path ? tm__make_directories(path) : tm__fail_memory();
        free(path);
        TM__TRY(status);
    }
    TM__TRY(tm__plan_use_directory(plan));
    for (size_t i = 0; i < plan->world_count; i++)
        if (!tm__path_exists(plan->world_dirs[i])) TM__TRY(tm_world_write(plan->made[i], plan->world_dirs[i]));
    TM__TRY(tm__plan_sources_note(plan));
    TM__TRY(tm__plan_link_worlds(plan));
    for (size_t i = 0; i < plan->job_count; i++)
        if (plan->jobs[i].kind == TM__JOB_MODEL && is_done(plan, &plan->jobs[i]))
            TM__TRY(tm__plan_link_model(plan, &plan->jobs[i]));
    return tm__plan_name_cells(plan);
}

tm_status tm_plan_open(const char *path, const char *directory, const tm_device *device, tm_plan **plan) {
    return tm_plan_open_with(path, directory, NULL, 0, device, plan);
}

static tm_status keep_overrides(tm_plan *plan, const char *const *overrides, size_t count) {
    plan->overrides = tm__arena_alloc(&plan->arena, count + 1, sizeof *plan->overrides);
    if (!plan->overrides) return tm__fail_memory();
    for (size_t i = 0; i < count; i++) {
        plan->overrides[i] = tm__arena_strdup(&plan->arena, overrides[i], strlen(overrides[i]));
        if (!plan->overrides[i]) return tm__fail_memory();
    }
    plan->override_count = count;
    return TM_OK;
}

tm_status tm_plan_open_with(const char *path, const char *directory, const char *const *overrides, size_t count,
                            const tm_device *device, tm_plan **plan) {
    tm_plan *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->path = tm__format("%s", path);
    made->directory = tm__format("%s", directory);
    made->loads = tm__plan_needs_create();
    bool ok = made->path && made->directory && made->loads;
    tm_status status = ok ? tm__results_create(&made->results) : tm__fail_memory();
    if (status == TM_OK) status = keep_overrides(made, overrides, count);
    if (status == TM_OK) status = tm__plan_read(made);
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
    tm__plan_sources_free(plan);
    tm__plan_needs_free(plan);
    tm__search_free(plan);
    free(plan->set_hash);
    free(plan->stages);
    free(plan->attacks);
    free(plan->arms);
    free(plan->jobs);
    tm__arena_release(&plan->arena);
    tm__results_free(plan->results);
    free(plan->text);
    free(plan->path);
    free(plan->directory);
    free(plan);
}

/* "ARM, ATTACK, world W, seed S", as far as it has them. */
static void name_job(const tm_plan *plan, const tm__plan_job *job, char *out, size_t size) {
    char world[40] = "", seed[40] = "";
    const char *first = job->stage >= 0 ? plan->stages[job->stage].name : plan->arms[job->arm].name, *second = NULL;
    if (job->stage < 0) second = job->attack >= 0 ? plan->attacks[job->attack].name : "defence";
    if (job->stage >= 0 && job->base >= 0) second = plan->bases[job->base].name;
    if (job->world >= 0) snprintf(world, sizeof world, ", world %llu", (unsigned long long)plan->worlds[job->world]);
    if (job->stage < 0) snprintf(seed, sizeof seed, ", seed %llu", (unsigned long long)job->seed);
    int wanted = snprintf(out, size, "%s%s%s%s%s", first, second ? ", " : "", second ? second : "", world, seed);
    if (wanted < 0) out[0] = 0; /* one that is too long is cut */
}

bool tm_plan_job(const tm_plan *plan, size_t index, tm_plan_job_info *info) {
    if (index >= plan->job_count) return false;
    const tm__plan_job *job = &plan->jobs[index];
    *info = (tm_plan_job_info){.cell = job->kind == TM__JOB_CELL, .done = is_done(plan, job)};
    for (int i = 0; i < TM__PLAN_REFS; i++)
        if (job->needs[i] >= 0) info->needs[info->need_count++] = (size_t)job->needs[i];
    name_job(plan, job, info->name, sizeof info->name);
    if (!info->done) {
        tm__trial_state state = tm__search_state(plan, job);
        info->waits = state == TM__TRIAL_WAITS;
        info->dropped = state == TM__TRIAL_DROPPED;
    }
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

/* ---- what a job was at ------------------------------------------------------------------------------------------- */

typedef struct witness {
    tm__trace trace;
    const tm_monitor *monitor; /* the caller's; may be NULL */
} witness;

static void see_progress(void *user, const tm_progress *progress) {
    witness *w = user;
    tm__trace_progress(&w->trace, progress);
    if (w->monitor && w->monitor->progress) w->monitor->progress(w->monitor->user, progress);
}

static void see_note(void *user, const char *line) {
    const witness *w = user;
    if (w->monitor && w->monitor->note) w->monitor->note(w->monitor->user, line);
}

static bool see_stop(void *user) {
    return tm__stop(((const witness *)user)->monitor);
}

typedef struct cost {
    double seconds, cpu_seconds;
} cost;

static cost cost_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (cost){tm__now(), (double)t.tv_sec + (double)t.tv_nsec * 1e-9};
}

static double peak_mib(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss / 1024 : 0;
}

/* A model is a directory; the store tells of its making. Where nothing can be written, the model is there all the same.
 */
static tm_status tell(const tm_plan *plan, const tm__plan_job *job, const char *error, const cost *from,
                      const tm__trace *trace) {
    tm_plan_job_info info;
    tm__store *store;
    tm_plan_job(plan, (size_t)(job - plan->jobs), &info);
    const tm__job_end end = {.key = job->key,
                             .kind = job->kind == TM__JOB_CELL ? "cell" : "model",
                             .name = info.name,
                             .error = error,
                             .seconds = tm__now() - from->seconds,
                             .cpu_seconds = cost_now().cpu_seconds - from->cpu_seconds,
                             .peak_mib = peak_mib(),
                             .setup = plan->setup};
    TM__TRY(tm__plan_store(plan, true, &store));
    return tm__store_put(store, &end, NULL, trace);
}

/* Why a job failed, for whoever asks the store; what is reported stays the job's own failure. */
static tm_status tell_failure(const tm_plan *plan, const tm__plan_job *job, tm_status status, const cost *from) {
    const tm_error kept = *tm_error_last();
    tell(plan, job, kept.line, from, NULL);
    return tm__fail(status, kept.file, kept.field, kept.hint, "%s", kept.message);
}

static tm_status do_job(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor) {
    witness w = {.monitor = monitor};
    const tm_monitor watching = {.progress = see_progress, .note = see_note, .stop = see_stop, .user = &w};
    tm__record record;
    const cost began = cost_now();
    tm_status status = job->kind == TM__JOB_MODEL ? tm__cell_model(plan, job, device, &watching)
                                                  : tm__cell_run(plan, job, device, &watching, &record, &w.trace);
    if (status == TM_OK && w.trace.full) status = tm__fail_memory();
    if (status == TM_OK)
        status = job->kind == TM__JOB_MODEL ? tell(plan, job, NULL, &began, &w.trace)
                                            : tm__record_save(plan, &record, &w.trace);
    else if (status != TM_INTERRUPTED && status != TM_NO_MEMORY && status != TM_IO)
        status = tell_failure(plan, job, status, &began);
    tm__trace_release(&w.trace);
    return status;
}

tm_status tm_plan_run(const tm_plan *plan, size_t index, tm_device *device, const tm_monitor *monitor) {
    int lock = -1;
    if (index >= plan->job_count)
        return tm__fail(TM_INVALID, plan->path, "job", NULL, "there are %zu", plan->job_count);
    const tm__plan_job *job = &plan->jobs[index];
    TM__TRY(take_lock(plan, job, &lock));
    tm_status status = is_done(plan, job) ? TM_OK : do_job(plan, job, device, monitor);
    if (status == TM_OK && job->kind == TM__JOB_MODEL) status = tm__plan_link_model(plan, job);
    close(lock);
    return status;
}
