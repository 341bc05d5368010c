/* cell.c: runs one job of a plan: makes a model, or attacks one and has it measured (cell_measure.c).
 *
 * A cell loads its model, lets the attacker work on it (fine-tune it through the arm's method, if the provider of a
 * service runs one), and lets the arm edit the result. BackdoorAlign's secret is drawn from the cell's seed, so that
 * the cell can be repeated.
 */
#include "lab/affinity.h"
#include "lab/plan.h"

#include "data/data.h"
#include "lab/bench.h"
#include "method/method.h"
#include "method/secret.h"
#include "model/adapter.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- data -------------------------------------------------------------------------------------------------------- */

typedef struct roles {
    tm_dataset *rows[TM__ROLES];
} roles;

static void free_roles(roles *r) {
    for (int i = 0; i < TM__ROLES; i++) tm_dataset_free(r->rows[i]);
}

static tm_status load_roles(const tm__bench *b, const tm__plan_step *step, roles *r) {
    tm_status status = TM_OK;
    *r = (roles){0};
    for (int i = 0; i < TM__ROLES && status == TM_OK; i++)
        status = tm__plan_rows(b->plan, b->job->world, step, i, &r->rows[i]);
    if (status != TM_OK) free_roles(r);
    return status;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* The job's own copy of a method's options: its seed, and paths in place of "stage:NAME". */
typedef struct own_options {
    void *values;
    char *paths[TM__PLAN_REFS];
    size_t path_count;
} own_options;

static void free_own(own_options *own) {
    for (size_t i = 0; i < own->path_count; i++) free(own->paths[i]);
    free(own->values);
}

static tm_status resolve_stage(const tm__bench *b, const char *name, char **path) {
    int stage = tm__plan_find_stage(b->plan, name);
    if (tm__plan_is_base(b->plan, stage)) {
        *path = tm__strdup(b->plan->bases[b->job->base].path);
        return *path ? TM_OK : tm__fail_memory();
    }
    for (int i = 0; i < TM__PLAN_REFS; i++) {
        int need = b->job->needs[i];
        if (need < 0 || b->job->stages[i] != stage) continue;
        if (b->needs || b->steps) break; /* it may not be there yet */
        *path = tm__plan_model_path(b->plan, b->plan->jobs[need].key);
        return *path ? TM_OK : tm__fail_memory();
    }
    if ((b->needs || b->steps) && b->job->base >= 0) { /* of the same shape */
        *path = tm__strdup(b->plan->bases[b->job->base].path);
        return *path ? TM_OK : tm__fail_memory();
    }
    return tm__fail(TM_NOT_FOUND, b->plan->path, name, NULL, "no such stage is made for this step");
}

static tm_status copy_own(const tm__bench *b, const tm__plan_step *step, own_options *own) {
    const tm_method *m = step->method;
    *own = (own_options){.values = tm__zalloc(1, m->options_size ? m->options_size : 1)};
    if (!own->values) return tm__fail_memory();
    if (m->options_size) memcpy(own->values, step->own, m->options_size);
    for (const tm_option *o = m->options; o && o->name; o++) {
        char *field = (char *)own->values + o->offset;
        const char *text = NULL;
        int64_t seed = (int64_t)b->job->seed;
        if (o->type == TM_OPTION_TEXT) memcpy(&text, field, sizeof text);
        if (o->type == TM_OPTION_INT && (strcmp(o->name, "seed") == 0 || strcmp(o->name, "init-seed") == 0))
            memcpy(field, &seed, sizeof seed);
        if (!text || strncmp(text, "stage:", 6) != 0 || own->path_count == TM__PLAN_REFS) continue;
        tm_status status = resolve_stage(b, text + 6, &own->paths[own->path_count]);
        if (status != TM_OK) {
            free_own(own);
            return status;
        }
        text = own->paths[own->path_count++];
        memcpy(field, &text, sizeof text);
    }
    return TM_OK;
}

/* Steps that a rehearsal would have taken. */
static void note_steps(const tm__bench *b, const tm_method *method, const tm_train_options *train,
                       const tm_train_result *result) {
    const tm__bench_needs *known = method ? tm__bench_needs_find(method->name) : NULL;
    double passes = method && known ? known->passes : 1;
    if (!b->needs) return;
    b->needs->steps += result->steps;
    b->needs->work += (double)result->steps * (double)train->batch * passes;
}

static tm_status run_method(const tm__bench *b, const tm__plan_step *step, const tm_method_data *data,
                            const tm_train_options *train) {
    tm_train_options options = tm__plan_train(b->plan, b->job->base, train);
    tm_train_result result = {0};
    own_options own;
    options.seed = (int64_t)b->job->seed;
    if (b->steps) options.steps = b->steps;
    tm_status status;
    if (step->method) {
        TM__TRY(copy_own(b, step, &own));
        if (b->secret_path && strcmp(step->method->name, "backdoor-align") == 0)
            ((tm_backdoor_options *)own.values)->secret = b->secret_path;
        if (b->affinity_path && strcmp(step->method->name, "panacea") == 0)
            ((tm_panacea_options *)own.values)->affinity = b->affinity_path;
        status = step->method->run(b->model, b->tokenizer, data, own.values, &options, b->monitor, &result);
        free_own(&own);
    } else {
        status = tm_train(b->model, b->tokenizer, data->user, &options, b->monitor, &result);
    }
    if (status == TM_OK) note_steps(b, step->method, &options, &result);
    return status;
}

static tm_status run_step(const tm__bench *b, const tm__plan_step *step) {
    roles r;
    TM__TRY(load_roles(b, step, &r));
    const tm_method_data data = {.harmful = r.rows[TM__ROLE_HARMFUL],
                                 .refusals = r.rows[TM__ROLE_REFUSALS],
                                 .benign = r.rows[TM__ROLE_BENIGN],
                                 .user = r.rows[TM__ROLE_USER]};
    tm_status status = run_method(b, step, &data, &step->train);
    free_roles(&r);
    return status;
}

/* ---- the attack -------------------------------------------------------------------------------------------------- */

/* BackdoorAlign takes its secret from a file, which is there only as long as the cell runs. */
static tm_status make_secret(tm__bench *b, const tm_backdoor_options *o) {
    tm__rng rng = tm__rng_make(b->job->seed, tm__stream(TM__STREAM_WORLD, 32));
    TM__TRY(tm__secret_draw_seeded(b->tokenizer, o->secret_length, &rng, &b->secret));
    bool real = !b->needs && !b->steps; /* else nothing is written into the plan's directory */
    b->secret_path = real ? tm__format("%s/tmp/%s-%ld", b->plan->directory, b->job->key, (long)getpid())
                          : tm__format("/tmp/temper-secret-%s-%ld", b->job->key, (long)getpid());
    return b->secret_path ? tm__file_write(b->secret_path, b->secret, strlen(b->secret)) : tm__fail_memory();
}

/* What the attacker hands in. */
static tm_status attack_rows(const tm__bench *b, const tm__plan_step *attack, tm_dataset **rows) {
    if (strcmp(attack->method->name, "identity-shift") == 0) {
        const tm_identity_shift_options *o = attack->own;
        tm__wrapper wrapper;
        TM__TRY(tm__identity_shift_rows(o->agent, (size_t)o->rows, &wrapper, rows));
        tm__wrapper_release(&wrapper);
        return TM_OK;
    }
    roles theirs;
    TM__TRY(load_roles(b, attack, &theirs));
    const tm_method_data data = {.harmful = theirs.rows[TM__ROLE_HARMFUL], .benign = theirs.rows[TM__ROLE_BENIGN]};
    tm_status status = tm__harmful_sft_rows(&data, attack->own, rows);
    free_roles(&theirs);
    return status;
}

/* The attacker hands in his rows; the provider's method trains on them. */
static tm_status run_service(tm__bench *b, const tm__plan_arm *arm, const tm__plan_step *attack) {
    roles own;
    tm_dataset *rows = NULL;
    TM__TRY(load_roles(b, &arm->during, &own));
    tm_status status = attack_rows(b, attack, &rows);
    const tm_method_data data = {.harmful = own.rows[TM__ROLE_HARMFUL],
                                 .refusals = own.rows[TM__ROLE_REFUSALS],
                                 .benign = own.rows[TM__ROLE_BENIGN],
                                 .user = rows};
    const tm_method *method = arm->during.method;
    bool backdoor = method && strcmp(method->name, "backdoor-align") == 0;
    if (status == TM_OK && backdoor && !((const tm_backdoor_options *)arm->during.own)->plain)
        status = make_secret(b, arm->during.own);
    if (status == TM_OK && !b->needs && !b->steps && method && strcmp(method->name, "panacea") == 0) {
        b->affinity_path = tm__format("%s/tmp/%s-%ld.affinity", b->plan->directory, b->job->key, (long)getpid());
        if (!b->affinity_path) status = tm__fail_memory();
    }
    if (status == TM_OK) status = run_method(b, &arm->during, &data, &attack->train);
    tm_dataset_free(rows);
    free_roles(&own);
    return status;
}

static tm_status merge(const tm__bench *b) {
    tm_model_info info;
    tm_model_describe(b->model, &info);
    return info.adapters ? tm_model_merge(b->model) : TM_OK;
}

static tm_status run_attack(tm__bench *b) {
    const tm__plan_arm *arm = &b->plan->arms[b->job->arm];
    const tm__plan_step *attack = arm->met[b->job->attack];
    if (!attack->given) return TM_OK;
    TM__TRY(arm->during.given ? run_service(b, arm, attack) : run_step(b, attack));
    for (size_t i = 0; i < arm->after_count; i++) {
        if (!arm->after[i].method || !arm->after[i].method->edits_adapter) TM__TRY(merge(b));
        TM__TRY(run_step(b, &arm->after[i]));
    }
    return merge(b);
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

/* The model that the plan begins with: a base, or random weights. */
static tm_status first_model(tm__bench *b, tm_device *device) {
    const tm_plan *plan = b->plan;
    if (b->job->base >= 0) return tm_model_load(device, plan->bases[b->job->base].path, NULL, &b->model);
    char *config = tm__world_model_config(b->tokenizer, plan->hidden, plan->ffn, plan->layers);
    tm_status status = config ? tm_model_create(device, config, b->job->seed, &b->model) : tm__fail_memory();
    free(config);
    return status;
}

/* The world's tokenizer; where its directory is not written, from one that is gone after. */
static tm_status world_tokenizer(tm__bench *b) {
    const char *directory = b->plan->world_dirs[b->job->world];
    if (tm__path_exists(directory)) return tm_tokenizer_load(directory, &b->tokenizer);
    char aside[] = "/tmp/temper-world-XXXXXX";
    if (!mkdtemp(aside)) return tm__fail_errno(aside, "cannot be made");
    char *inside = tm__path_join(aside, "world");
    tm_status status = inside ? tm_world_write(b->world, inside) : tm__fail_memory();
    if (status == TM_OK) status = tm_tokenizer_load(inside, &b->tokenizer);
    tm__remove_tree(aside);
    free(inside);
    return status;
}

/* A rehearsal's: of the shape that the job's own has, with copies of the weights that adapters below it change. */
static tm_status stand_in(tm__bench *b, tm_device *device) {
    const tm__plan_job *jobs = b->plan->jobs;
    TM__TRY(first_model(b, device));
    for (int i = b->job->needs[0]; b->needs && i >= 0; i = jobs[i].needs[0]) {
        tm_lora_options lora;
        if (!tm__plan_model_trains_adapter(b->plan, &jobs[i], &lora)) continue;
        TM__TRY(tm_model_add_lora(b->model, &lora, 0));
        TM__TRY(tm_model_merge(b->model));
    }
    return TM_OK;
}

static tm_status open_bench(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                            tm__bench *b) {
    *b = (tm__bench){.plan = plan, .job = job, .monitor = monitor, .needs = b->needs, .steps = b->steps};
    if (job->world >= 0) b->world = plan->made[job->world];
    TM__TRY(job->base >= 0 ? tm__plan_tokenizer(plan, job->base, &b->tokenizer) : world_tokenizer(b));
    if (job->needs[0] < 0 || b->needs || b->steps)
        TM__TRY(stand_in(b, device));
    else
        TM__TRY(tm__plan_model_open(plan, &plan->jobs[job->needs[0]], device, &b->model));
    return tm__model_settle(b->model);
}

static void close_bench(tm__bench *b) {
    if (b->secret_path) unlink(b->secret_path);
    if (b->affinity_path) unlink(b->affinity_path);
    free(b->affinity_path);
    free(b->secret_path);
    free(b->secret);
    tm_model_free(b->model);
    tm_tokenizer_free(b->tokenizer);
}

/* A model that is there as an adapter, and that an option of this plan reads as a checkpoint. */
static tm_status make_whole(tm__bench *b, tm_device *device) {
    tm_model_free(b->model);
    b->model = NULL;
    return tm__plan_model_open(b->plan, b->job, device, &b->model);
}

tm_status tm__cell_model(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor) {
    const tm__plan_step *step = tm__plan_model_step(plan, job);
    bool adapter = job->whole && tm__plan_model_is_adapter(plan, job);
    tm__bench b = {0};
    tm_status status = open_bench(plan, job, device, monitor, &b);
    if (status == TM_OK && adapter)
        status = make_whole(&b, device);
    else if (status == TM_OK && step->given)
        status = run_step(&b, step);
    if (status == TM_OK) status = tm__plan_model_save(plan, job, b.model, b.tokenizer);
    close_bench(&b);
    return status;
}

static tm_status train_job(tm__bench *b) {
    const tm__plan_job *job = b->job;
    if (job->kind == TM__JOB_CELL) return run_attack(b);
    const tm__plan_step *step = tm__plan_model_step(b->plan, job);
    return step->given ? run_step(b, step) : TM_OK;
}

/* Of the model that the job leaves. */
static tm_status count_disk(const tm__bench *b, int64_t *bytes) {
    const tm__plan_job *job = b->job;
    tm_model_info info;
    bool alone = false;
    if (job->kind == TM__JOB_MODEL) TM__TRY(tm__plan_model_alone(b->plan, job, b->model, &alone));
    tm_model_describe(b->model, &info);
    int save = job->base >= 0 ? b->plan->bases[job->base].save : TM_SAVE_F32;
    bool half =
        save == TM_SAVE_BF16 || save == TM_SAVE_F16 || (save == TM_SAVE_KEEP && strcmp(info.dtype, "fp32") != 0);
    *bytes = alone ? tm__model_adapter_bytes(b->model) : info.parameters * (half ? 2 : 4);
    return TM_OK;
}

tm_status tm__cell_rehearse(const tm_plan *plan, const tm__plan_job *job, tm_device *device, bool measured,
                            tm_plan_needs *needs) {
    tm__bench b = {.needs = needs};
    tm_memory memory;
    double share;
    tm_status status = open_bench(plan, job, device, NULL, &b);
    if (status == TM_OK) status = measured ? tm__cell_sample(&b, 8, &share) : train_job(&b);
    if (status == TM_OK) status = tm_model_memory(b.model, &memory);
    if (status == TM_OK) status = count_disk(&b, &needs->disk);
    if (status == TM_OK) needs->memory = memory.total;
    close_bench(&b);
    return status;
}

/* Trains so many steps. */
static tm_status time_steps(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                            int64_t steps, double *seconds) {
    tm__bench b = {.steps = steps};
    tm_status status = open_bench(plan, job, device, monitor, &b);
    double began = tm__now();
    if (status == TM_OK) status = train_job(&b);
    *seconds = tm__now() - began;
    close_bench(&b);
    return status;
}

tm_status tm__cell_probe(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                         double *work, double *measure) {
    enum { FEW = 1, MORE = 3, ITEMS = 4 };
    const tm__plan_arm *arm = &plan->arms[job->arm];
    const tm__plan_step *attack = arm->met[job->attack];
    const tm_method *method = arm->during.given ? arm->during.method : attack->method;
    const tm__bench_needs *known = method ? tm__bench_needs_find(method->name) : NULL;
    double first, second, share = 0, passes = known && known->passes > 0 ? known->passes : 1;
    TM__TRY(time_steps(plan, job, device, monitor, FEW, &first));
    TM__TRY(time_steps(plan, job, device, monitor, MORE, &second));
    *work = fmax(second - first, 1e-9) / (MORE - FEW) / ((double)attack->train.batch * passes);
    tm__bench b = {.steps = FEW};
    tm_status status = open_bench(plan, job, device, monitor, &b);
    double began = tm__now();
    if (status == TM_OK) status = tm__cell_sample(&b, ITEMS, &share);
    *measure = share > 0 ? (tm__now() - began) / share : 0;
    close_bench(&b);
    return status;
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

tm_status tm__cell_run(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                       tm__record *record, tm__trace *trace) {
    tm__bench b = {0};
    struct rusage usage;
    *record = (tm__record){0};
    snprintf(record->key, sizeof record->key, "%s", job->key);
    tm__record_name(plan, job, record);
    tm_status status = open_bench(plan, job, device, monitor, &b);
    b.trace = trace;
    double wall = tm__now(), cpu = cpu_seconds();
    if (status == TM_OK) status = run_attack(&b);
    record->cpu_seconds = cpu_seconds() - cpu;
    getrusage(RUSAGE_SELF, &usage);
    record->peak_mib = (double)usage.ru_maxrss / 1024;
    if (status == TM_OK) status = tm__cell_measure(&b, record);
    record->seconds = tm__now() - wall;
    close_bench(&b);
    return status;
}
