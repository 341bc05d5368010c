/* records.c: what cells found, in the plan's result store. */
#include "lab/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- the store --------------------------------------------------------------------------------------------------- */

/* A child of the process that opened the store opens its own; the parent's is left alone, not closed. */
struct tm__results {
    tm__store *store;
    pid_t owner;
    int in_use; /* DIR/lock, shared; -1: not begun */
};

tm_status tm__results_create(tm__results **results) {
    *results = tm__zalloc(1, sizeof **results);
    if (*results) (*results)->in_use = -1;
    return *results ? TM_OK : tm__fail_memory();
}

void tm__results_free(tm__results *results) {
    if (!results) return;
    if (results->owner == getpid()) tm__store_close(results->store);
    if (results->in_use >= 0) close(results->in_use);
    free(results);
}

tm_status tm__directory_lock(const char *directory, int how, int *lock) {
    char *path = tm__format("%s/lock", directory);
    if (!path) return tm__fail_memory();
    *lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    tm_status status = *lock < 0 ? tm__fail_errno(path, "cannot be made") : TM_OK;
    if (status == TM_OK && flock(*lock, how) != 0) {
        status = errno == EWOULDBLOCK ? tm__fail(TM_EXISTS, directory, NULL, "wait for its end, or stop it",
                                                 "temper run is at work there")
                                      : tm__fail_errno(path, "cannot be locked");
        close(*lock);
        *lock = -1;
    }
    free(path);
    return status;
}

tm_status tm__plan_use_directory(const tm_plan *plan) {
    tm__results *r = plan->results;
    return r->in_use >= 0 ? TM_OK : tm__directory_lock(plan->directory, LOCK_SH, &r->in_use);
}

tm_status tm__plan_store(const tm_plan *plan, bool make, tm__store **store) {
    tm__results *r = plan->results;
    if (r->owner != getpid()) {
        r->store = NULL;
        TM__TRY(tm__store_open(plan->directory, make, &r->store));
        r->owner = getpid();
    }
    *store = r->store;
    return TM_OK;
}

tm_status tm__plan_name_cells(const tm_plan *plan) {
    tm__store *store;
    tm__cell_name *names = tm__alloc(plan->job_count + 1, sizeof *names);
    size_t count = 0;
    if (!names) return tm__fail_memory();
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *job = &plan->jobs[i];
        if (job->kind != TM__JOB_CELL) continue;
        const tm__plan_attack *attack = &plan->attacks[job->attack];
        names[count++] = (tm__cell_name){.arm = plan->arms[job->arm].name,
                                         .group = attack->group,
                                         .attack = attack->name,
                                         .key = job->key,
                                         .world = tm__plan_world_seed(plan, job),
                                         .seed = job->seed};
    }
    tm_status status = tm__plan_store(plan, true, &store);
    if (status == TM_OK) status = tm__store_name_cells(store, plan->name, names, count);
    free(names);
    return status;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

bool tm__record_add(tm__record *record, const char *name, double value) {
    assert(isfinite(value));
    if (record->count == TM__COUNT(record->values)) return false;
    snprintf(record->names[record->count], sizeof record->names[0], "%s", name);
    record->values[record->count++] = value + 0.0; /* no negative zero: the store knows none */
    return true;
}

bool tm__record_get(const tm__record *record, const char *name, double *value) {
    for (size_t i = 0; i < record->count; i++)
        if (strcmp(record->names[i], name) == 0) {
            *value = record->values[i];
            return true;
        }
    return false;
}

json_t *tm__record_scores(const tm__record *r) {
    json_t *scores = json_object();
    for (size_t i = 0; i < r->count && scores; i++)
        if (json_object_set_new(scores, r->names[i], json_real(r->values[i])) != 0) {
            json_decref(scores);
            scores = NULL;
        }
    return scores;
}

tm_status tm__record_save(const tm_plan *plan, const tm__record *record, const tm__trace *trace) {
    char name[2 * TM__PLAN_NAME + 64];
    tm__store *store;
    snprintf(name, sizeof name, "%s, %s, world %llu, seed %llu", record->arm, record->attack,
             (unsigned long long)record->world, (unsigned long long)record->seed);
    const tm__job_end end = {.key = record->key,
                             .kind = "cell",
                             .name = name,
                             .seconds = record->seconds,
                             .cpu_seconds = record->cpu_seconds,
                             .peak_mib = record->peak_mib,
                             .setup = plan->setup};
    tm__record copy = *record;
    const tm__scores scores = {.count = copy.count, .names = copy.names, .values = copy.values};
    TM__TRY(tm__plan_store(plan, true, &store));
    return tm__store_put(store, &end, &scores, trace);
}

tm_status tm__record_load(const tm_plan *plan, const char *key, tm__record *record) {
    tm__store *store;
    tm__job_end end;
    *record = (tm__record){0};
    snprintf(record->key, sizeof record->key, "%s", key);
    tm__scores scores = {.names = record->names, .values = record->values};
    TM__TRY(tm__plan_store(plan, false, &store));
    TM__TRY(tm__store_get(store, key, &end, &scores));
    record->count = scores.count;
    record->seconds = end.seconds;
    record->cpu_seconds = end.cpu_seconds;
    record->peak_mib = end.peak_mib;
    return TM_OK;
}

void tm__record_name(const tm_plan *plan, const tm__plan_job *job, tm__record *record) {
    const tm__plan_attack *attack = &plan->attacks[job->attack];
    snprintf(record->arm, sizeof record->arm, "%s", plan->arms[job->arm].name);
    snprintf(record->attack, sizeof record->attack, "%s", attack->name);
    snprintf(record->group, sizeof record->group, "%s", attack->group);
    record->world = tm__plan_world_seed(plan, job);
    record->seed = job->seed;
    record->replicate = job->replicate;
}

static bool is_repeated(const tm__record *records, size_t count, const tm__record *r) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(records[i].key, r->key) == 0 && strcmp(records[i].arm, r->arm) == 0 &&
            strcmp(records[i].attack, r->attack) == 0)
            return true;
    return false;
}

/* A record that is not there, or damaged, is a cell that is still to be done. */
tm_status tm__records_load(const tm_plan *plan, tm__record **records, size_t *count) {
    tm__record *made = tm__zalloc(plan->job_count + 1, sizeof *made);
    size_t n = 0;
    if (!made) return tm__fail_memory();
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *job = &plan->jobs[i];
        if (job->kind != TM__JOB_CELL) continue;
        tm_status status = tm__record_load(plan, job->key, &made[n]);
        if (status == TM_NOT_FOUND) {
            tm_error_clear();
            continue;
        }
        if (status != TM_OK) {
            free(made);
            return status;
        }
        tm__record_name(plan, job, &made[n]);
        made[n].repeats = is_repeated(made, n, &made[n]);
        n++;
    }
    *records = made;
    *count = n;
    return TM_OK;
}
