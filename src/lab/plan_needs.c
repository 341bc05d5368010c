/* plan_needs.c: what the jobs of a plan take, before they are done: training steps, memory, disk, time.
 *
 * Steps and memory come from rehearsing the job itself (device/rehearsal.c): the same code on a device that computes
 * nothing, on the checkpoint or shape that the plan begins with, since models in between are not there yet and have the
 * same shape. Jobs that differ in rates and seeds alone are rehearsed once. Judges count by their files. Time comes
 * from jobs of the same plan that are done, else from a probe: two steps of the plan's own training, timed by their
 * difference from one, and a few items of what every cell is asked. Steps of methods count by the passes that their
 * mathematics needs (bench_needs.c). Test: tests/unit/test_plan_needs.c.
 */
#include "lab/plan.h"

#include "device/device.h"
#include "lab/bench.h"
#include "lab/key.h"
#include "lab/search.h"

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>

typedef struct load {
    char shape[65];
    tm_status status;
    tm_plan_needs needs;
    char why[256]; /* it could not be rehearsed */
} load;

struct tm__plan_loads {
    load *list;
    size_t count, cap;
    int64_t measure[TM__PLAN_BASES + 1]; /* of every base, after that of none: memory of measuring; 0: not known */
};

struct tm__plan_loads *tm__plan_needs_create(void) {
    return tm__zalloc(1, sizeof(struct tm__plan_loads));
}

void tm__plan_needs_free(tm_plan *plan) {
    if (plan->loads) free(plan->loads->list);
    free(plan->loads);
}

/* ---- rehearsals -------------------------------------------------------------------------------------------------- */

/* What memory and steps depend on: not rates, not seeds. */
static void shape_step(tm__sha256 *hash, const tm__plan_step *step) {
    static const char *const free_of[] = {"lr", "schedule", "warmup", "seed"};
    tm__key_text(hash, "method", step->given ? step->method ? step->method->name : "finetune" : "none");
    if (!step->given) return;
    if (step->method) tm__key_options(hash, step->method->options, step->own);
    for (const tm_option *o = tm_train_option_table; o->name; o++) {
        char room[256];
        bool skip = false;
        for (size_t i = 0; i < TM__COUNT(free_of); i++) skip |= strcmp(o->name, free_of[i]) == 0;
        if (!skip) tm__key_text(hash, o->name, tm__key_value(o, &step->train, room));
    }
    for (int role = 0; role < TM__ROLES; role++) tm__key_text(hash, "rows", step->sets[role] ? step->sets[role] : "");
}

/* Models below a job that are adapters: merged, they take memory. */
static void shape_below(const tm_plan *plan, const tm__plan_job *job, tm__sha256 *hash) {
    for (int i = job->needs[0]; i >= 0; i = plan->jobs[i].needs[0]) {
        tm_lora_options lora;
        if (tm__plan_model_trains_adapter(plan, &plan->jobs[i], &lora))
            tm__key_text(hash, "merged", lora.targets ? lora.targets : "");
    }
}

static void shape_of(const tm_plan *plan, const tm__plan_job *job, char hex[65]) {
    const tm__plan_arm *arm = job->arm >= 0 ? &plan->arms[job->arm] : NULL;
    tm__sha256 hash;
    char on[64];
    snprintf(on, sizeof on, "%d %d %d", job->base, (int)job->kind, (int)job->whole);
    tm__sha256_init(&hash);
    tm__key_text(&hash, "on", on);
    shape_below(plan, job, &hash);
    if (job->stage >= 0) {
        shape_step(&hash, &plan->stages[job->stage].step);
    } else if (job->kind == TM__JOB_MODEL) {
        shape_step(&hash, &arm->before[job->step]);
    } else {
        shape_step(&hash, arm->met[job->attack]);
        if (arm->met[job->attack]->given) {
            shape_step(&hash, &arm->during);
            for (size_t i = 0; i < arm->after_count; i++) shape_step(&hash, &arm->after[i]);
        }
    }
    tm__sha256_hex(&hash, hex);
}

static tm_status rehearse(const tm_plan *plan, const tm__plan_job *job, bool measured, tm_plan_needs *needs) {
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_device *device = NULL;
    *needs = (tm_plan_needs){0};
    tm_status status = tm_device_open_rehearsal(&where, &device);
    if (status == TM_OK) status = tm__cell_rehearse(plan, job, device, measured, needs);
    tm_device_close(device);
    return status;
}

/* Files of the judges: they are mapped. */
static int64_t judges_bytes(const tm_plan *plan) {
    int64_t most = 0;
    for (size_t i = 0; i < plan->evaluation_count; i++)
        for (size_t k = 0; k < plan->evaluations[i].judge_count; k++) {
            const char *path = strchr(plan->evaluations[i].judges[k], '=');
            char *file = path ? tm__strndup(path + 1, strcspn(path + 1, ",")) : NULL;
            if (file && tm__path_exists(file)) most = TM__MAX(most, tm__plan_disk_used(file));
            free(file);
        }
    return most;
}

static const load *load_of(const tm_plan *plan, const tm__plan_job *job) {
    struct tm__plan_loads *all = plan->loads;
    char shape[65];
    shape_of(plan, job, shape);
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->list[i].shape, shape) == 0) return &all->list[i];
    if (!tm__grow((void **)&all->list, &all->cap, all->count + 1, sizeof *all->list)) return NULL;
    load *made = &all->list[all->count++];
    *made = (load){0};
    memcpy(made->shape, shape, sizeof shape);
    made->status = rehearse(plan, job, false, &made->needs);
    if (made->status != TM_OK) snprintf(made->why, sizeof made->why, "%.250s", tm_error_last()->line);
    tm_error_clear();
    if (job->kind != TM__JOB_CELL) return made;
    int64_t *measure = &all->measure[job->base + 1];
    tm_plan_needs asked;
    if (!*measure && rehearse(plan, job, true, &asked) == TM_OK) *measure = asked.memory + judges_bytes(plan);
    tm_error_clear();
    made->needs.memory = TM__MAX(made->needs.memory, *measure);
    made->needs.disk = 0;
    return made;
}

tm_status tm_plan_job_needs(const tm_plan *plan, size_t index, tm_plan_needs *needs) {
    if (index >= plan->job_count)
        return tm__fail(TM_INVALID, plan->path, "job", NULL, "there are %zu", plan->job_count);
    const load *l = load_of(plan, &plan->jobs[index]);
    if (!l) return tm__fail_memory();
    *needs = l->needs;
    return l->status == TM_OK ? TM_OK : tm__fail(l->status, NULL, NULL, NULL, "%s", l->why);
}

/* ---- disk -------------------------------------------------------------------------------------------------------- */

static _Thread_local int64_t bytes_seen;

static int see_file(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)path;
    (void)at;
    if (kind == FTW_F) bytes_seen += (int64_t)info->st_size;
    return 0;
}

int64_t tm__plan_disk_used(const char *path) {
    bytes_seen = 0;
    nftw(path, see_file, 16, FTW_PHYS);
    return bytes_seen;
}

int64_t tm_plan_disk(const tm_plan *plan) {
    return tm__plan_disk_used(plan->directory);
}

void tm_plan_limits(const tm_plan *plan, tm_plan_budget *budget) {
    *budget = plan->budget;
    budget->large = plan->base_count > 0;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

typedef struct past {
    double cell, model; /* mean seconds of those that are done; 0: none is */
    size_t cells, models;
} past;

static tm_status see_mean(void *user, int columns, const char *const *names, const char *const *values) {
    past *p = user;
    (void)columns;
    (void)names;
    if (!values[0] || !values[1] || !values[2]) return TM_OK;
    double mean = strtod(values[1], NULL);
    size_t n = (size_t)strtoull(values[2], NULL, 10);
    if (strcmp(values[0], "cell") == 0) {
        p->cell = mean;
        p->cells = n;
    } else {
        p->model = mean;
        p->models = n;
    }
    return TM_OK;
}

/* Jobs of this directory that took time; cells of tables that --known brought know only the attack's. */
static void look_back(const tm_plan *plan, past *p) {
    tm__store *store;
    *p = (past){0};
    if (tm__plan_store(plan, false, &store) == TM_OK)
        tm__store_query(store,
                        "SELECT kind, avg(seconds), count(*) FROM job WHERE error IS NULL AND seconds > 0 AND "
                        "seconds <> cpu_seconds GROUP BY kind",
                        NULL, 0, see_mean, p);
    tm_error_clear();
}

/* Seconds that the cells of this arm and attacker took which are done; 0: none is. */
static double seconds_before(const tm_plan *plan, const tm__plan_job *job) {
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *other = &plan->jobs[i];
        tm__record record;
        if (other->kind != job->kind || other->arm != job->arm || other->attack != job->attack) continue;
        if (tm__record_load(plan, other->key, &record) != TM_OK || record.seconds <= 0 ||
            record.seconds == record.cpu_seconds)
            continue;
        sum += record.seconds;
        n++;
    }
    tm_error_clear();
    return n ? sum / (double)n : 0;
}

typedef struct rates {
    double work, measure; /* seconds of a unit of work, of measuring a cell */
    bool probed;
} rates;

/* The first job left that trains on this base is begun, and every cell's questions are asked in part. */
static tm_status probe(const tm_plan *plan, int base, tm_device *device, const tm_monitor *monitor, rates *r) {
    r->probed = true;
    for (size_t i = 0; i < plan->job_count; i++) {
        const tm__plan_job *job = &plan->jobs[i];
        tm_plan_needs needs;
        if (job->base != base || job->kind != TM__JOB_CELL || !plan->arms[job->arm].met[job->attack]->given) continue;
        if (tm_plan_job_needs(plan, i, &needs) != TM_OK || needs.steps == 0) continue;
        TM__TRY(tm__cell_probe(plan, job, device, monitor, &r->work, &r->measure));
        return TM_OK;
    }
    return tm__fail(TM_NOT_FOUND, plan->path, NULL, NULL, "no cell trains");
}

/* Of trials whose turn may come, as many as will. */
static double chance(const tm_plan *plan, const tm__plan_job *job) {
    const tm__plan_attack *attack = job->kind == TM__JOB_CELL ? &plan->attacks[job->attack] : NULL;
    if (!attack || attack->search < 0 || tm__search_state(plan, job) == TM__TRIAL_WANTED) return 1;
    const tm__plan_search *s = &plan->searches[attack->search];
    return (double)tm__search_width(s, (size_t)attack->rung) / (double)s->count;
}

static tm_status add_time(const tm_plan *plan, size_t index, double share, const past *before, rates *on,
                          tm_device *device, const tm_monitor *monitor, tm_plan_estimate *e, size_t *from_past) {
    const tm__plan_job *job = &plan->jobs[index];
    tm_plan_needs needs = {0};
    double seconds = job->kind == TM__JOB_CELL ? seconds_before(plan, job) : 0;
    if (seconds == 0) seconds = job->kind == TM__JOB_CELL ? before->cell : before->model;
    if (seconds > 0) {
        ++*from_past;
        e->seconds += share * seconds;
        return TM_OK;
    }
    rates *r = &on[job->base + 1];
    if (!r->probed) {
        tm_status status = probe(plan, job->base, device, monitor, r);
        if (status == TM_INTERRUPTED) return status;
        if (status != TM_OK) r->work = NAN;
    }
    if (tm_plan_job_needs(plan, index, &needs) != TM_OK) e->unknown++;
    tm_error_clear();
    e->seconds += share * (needs.work * r->work + (job->kind == TM__JOB_CELL ? r->measure : 0));
    return TM_OK;
}

static tm_status estimate_jobs(const tm_plan *plan, const bool *left, tm_device *device, const tm_monitor *monitor,
                               tm_plan_estimate *e) {
    rates *on = tm__zalloc(plan->base_count + 1, sizeof *on);
    past before;
    size_t from_past = 0, all = 0;
    double steps = 0;
    tm_status status = on ? TM_OK : tm__fail_memory();
    look_back(plan, &before);
    for (size_t i = 0; status == TM_OK && i < plan->job_count; i++) {
        tm_plan_needs needs;
        if (!left[i]) continue;
        double share = chance(plan, &plan->jobs[i]);
        all++;
        if (tm_plan_job_needs(plan, i, &needs) == TM_OK) {
            steps += share * (double)needs.steps;
            e->memory = TM__MAX(e->memory, needs.memory);
            e->disk += needs.disk;
        } else if (!e->why[0]) {
            snprintf(e->why, sizeof e->why, "%.250s", tm_error_last()->message);
        }
        status = add_time(plan, i, share, &before, on, device, monitor, e, &from_past);
    }
    e->steps = (int64_t)(steps + 0.5);
    if (all && from_past == all)
        snprintf(e->basis, sizeof e->basis, "jobs of this directory that are done");
    else if (all && from_past)
        snprintf(e->basis, sizeof e->basis, "%zu jobs like some that are done, and a probe for %zu", from_past,
                 all - from_past);
    else if (all)
        snprintf(e->basis, sizeof e->basis, "a probe: two steps of training, a few questions");
    free(on);
    tm_error_clear();
    return status;
}

tm_status tm_plan_estimate_left(const tm_plan *plan, tm_device *device, const tm_monitor *monitor,
                                tm_plan_estimate *estimate) {
    bool *left = tm__zalloc(plan->job_count + 1, sizeof *left);
    *estimate = (tm_plan_estimate){0};
    if (!left) return tm__fail_memory();
    for (size_t i = plan->job_count; i-- > 0;) { /* a model counts where a job that is left starts from it */
        tm_plan_job_info info;
        tm_plan_job(plan, i, &info);
        left[i] = !info.done && !info.dropped && (info.cell || left[i]);
        for (size_t k = 0; left[i] && k < info.need_count; k++) left[info.needs[k]] = true;
        estimate->jobs += left[i];
    }
    tm_status status = estimate_jobs(plan, left, device, monitor, estimate);
    free(left);
    return status;
}
