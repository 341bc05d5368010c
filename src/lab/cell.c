/* cell.c: runs one job of a plan: makes a model, or attacks one and measures what came of it.
 *
 * A cell loads its model, lets the attacker work on it (fine-tune it through the arm's method, if the provider of a
 * service runs one), lets the arm edit the result, and asks it the plan's probes. BackdoorAlign's models are asked
 * twice, with and without the secret; the secret is drawn from the cell's seed, so that the cell can be repeated. What
 * identity-shift attacked is asked with and without its wrapper, if the plan says so.
 */
#include "lab/plan.h"

#include "data/data.h"
#include "method/method.h"
#include "method/secret.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct bench {
    const tm_plan *plan;
    const tm__plan_job *job;
    const tm_world *world;
    const tm_monitor *monitor;
    tm_model *model;
    tm_tokenizer *tokenizer;
    char *secret, *secret_path; /* BackdoorAlign's */
    tm__trace *trace;
} bench;

char *tm__plan_model_path(const tm_plan *plan, const char *key) {
    return tm__format("%s/models/%s", plan->directory, key);
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

/* Sets named in an expression, interleaved row by row until the longest ends. */
static tm_status interleave(tm_dataset *const *sets, size_t count, tm_dataset *all) {
    bool more = true;
    for (size_t row = 0; more; row++) {
        more = false;
        for (size_t i = 0; i < count; i++) {
            if (row >= tm_dataset_rows(sets[i])) continue;
            TM__TRY(tm_dataset_append(all, sets[i], row, 1));
            more = true;
        }
    }
    return TM_OK;
}

static tm_status load_sets(const tm_world *world, const char *expression, tm_dataset **rows) {
    tm_dataset *sets[TM__PLAN_SETS] = {0}, *all = NULL;
    size_t count = 0;
    tm_status status = TM_OK;
    *rows = NULL;
    if (!expression) return TM_OK;
    char name[64];
    for (const char *at = expression; status == TM_OK && tm__next_item(&at, name);) {
        assert(count < TM__COUNT(sets));
        status = tm_world_set(world, name, &sets[count]);
        if (status == TM_OK) count++;
    }
    if (status == TM_OK) status = tm_dataset_create(&all);
    if (status == TM_OK) status = interleave(sets, count, all);
    for (size_t i = 0; i < count; i++) tm_dataset_free(sets[i]);
    if (status == TM_OK)
        *rows = all;
    else
        tm_dataset_free(all);
    return status;
}

typedef struct roles {
    tm_dataset *rows[TM__ROLES];
} roles;

static void free_roles(roles *r) {
    for (int i = 0; i < TM__ROLES; i++) tm_dataset_free(r->rows[i]);
}

static tm_status load_roles(const tm_world *world, const tm__plan_step *step, roles *r) {
    tm_status status = TM_OK;
    *r = (roles){0};
    for (int i = 0; i < TM__ROLES && status == TM_OK; i++) status = load_sets(world, step->sets[i], &r->rows[i]);
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

static tm_status resolve_stage(const bench *b, const char *name, char **path) {
    int stage = tm__plan_find_stage(b->plan, name);
    for (int i = 0; i < TM__PLAN_REFS; i++) {
        int need = b->job->needs[i];
        if (need < 0 || b->job->stages[i] != stage) continue;
        *path = tm__plan_model_path(b->plan, b->plan->jobs[need].key);
        return *path ? TM_OK : tm__fail_memory();
    }
    return tm__fail(TM_NOT_FOUND, b->plan->path, name, NULL, "no such stage is made for this step");
}

static tm_status copy_own(const bench *b, const tm__plan_step *step, own_options *own) {
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

static tm_status run_method(const bench *b, const tm__plan_step *step, const tm_method_data *data,
                            const tm_train_options *train) {
    tm_train_options options = *train;
    tm_train_result result;
    own_options own;
    options.seed = (int64_t)b->job->seed;
    if (!step->method) return tm_train(b->model, b->tokenizer, data->user, &options, b->monitor, &result);
    TM__TRY(copy_own(b, step, &own));
    if (b->secret_path && strcmp(step->method->name, "backdoor-align") == 0)
        ((tm_backdoor_options *)own.values)->secret = b->secret_path;
    tm_status status = step->method->run(b->model, b->tokenizer, data, own.values, &options, b->monitor, &result);
    free_own(&own);
    return status;
}

static tm_status run_step(const bench *b, const tm__plan_step *step) {
    roles r;
    TM__TRY(load_roles(b->world, step, &r));
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
static tm_status make_secret(bench *b, const tm_backdoor_options *o) {
    tm__rng rng = tm__rng_make(b->job->seed, tm__stream(TM__STREAM_WORLD, 32));
    TM__TRY(tm__secret_draw_seeded(b->tokenizer, o->secret_length, &rng, &b->secret));
    b->secret_path = tm__format("%s/tmp/%s-%ld", b->plan->directory, b->job->key, (long)getpid());
    return b->secret_path ? tm__file_write(b->secret_path, b->secret, strlen(b->secret)) : tm__fail_memory();
}

/* What the attacker hands in. */
static tm_status attack_rows(const bench *b, const tm__plan_attack *attack, tm_dataset **rows) {
    if (strcmp(attack->step.method->name, "identity-shift") == 0) {
        const tm_identity_shift_options *o = attack->step.own;
        tm__wrapper wrapper;
        TM__TRY(tm__identity_shift_rows(o->agent, (size_t)o->rows, &wrapper, rows));
        tm__wrapper_release(&wrapper);
        return TM_OK;
    }
    roles theirs;
    TM__TRY(load_roles(b->world, &attack->step, &theirs));
    const tm_method_data data = {.harmful = theirs.rows[TM__ROLE_HARMFUL], .benign = theirs.rows[TM__ROLE_BENIGN]};
    tm_status status = tm__harmful_sft_rows(&data, attack->step.own, rows);
    free_roles(&theirs);
    return status;
}

/* The attacker hands in his rows; the provider's method trains on them. */
static tm_status run_service(bench *b, const tm__plan_arm *arm, const tm__plan_attack *attack) {
    roles own;
    tm_dataset *rows = NULL;
    TM__TRY(load_roles(b->world, &arm->during, &own));
    tm_status status = attack_rows(b, attack, &rows);
    const tm_method_data data = {.harmful = own.rows[TM__ROLE_HARMFUL],
                                 .refusals = own.rows[TM__ROLE_REFUSALS],
                                 .benign = own.rows[TM__ROLE_BENIGN],
                                 .user = rows};
    const tm_method *method = arm->during.method;
    bool backdoor = method && strcmp(method->name, "backdoor-align") == 0;
    if (status == TM_OK && backdoor && !((const tm_backdoor_options *)arm->during.own)->plain)
        status = make_secret(b, arm->during.own);
    if (status == TM_OK) status = run_method(b, &arm->during, &data, &attack->step.train);
    tm_dataset_free(rows);
    free_roles(&own);
    return status;
}

static tm_status merge(const bench *b) {
    tm_model_info info;
    tm_model_describe(b->model, &info);
    return info.adapters ? tm_model_merge(b->model) : TM_OK;
}

static tm_status run_attack(bench *b) {
    const tm__plan_arm *arm = &b->plan->arms[b->job->arm];
    const tm__plan_attack *attack = &b->plan->attacks[b->job->attack];
    if (!attack->step.given) return TM_OK;
    TM__TRY(arm->during.given ? run_service(b, arm, attack) : run_step(b, &attack->step));
    for (size_t i = 0; i < arm->after_count; i++) {
        if (!arm->after[i].method || !arm->after[i].method->edits_adapter) TM__TRY(merge(b));
        TM__TRY(run_step(b, &arm->after[i]));
    }
    return merge(b);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static void add_score(tm__record *record, const char *name, const char *suffix, double value) {
    char full[32];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    tm__record_add(record, full, value);
}

typedef struct listener {
    tm__trace *trace;
    const char *suffix;
} listener;

static void keep_answer(void *user, const char *set, int64_t row, const char *prompt, const char *answer,
                        const char *verdict) {
    const listener *l = user;
    char probe[96];
    snprintf(probe, sizeof probe, "%s%s", set, l->suffix);
    tm__trace_answer(l->trace, probe, row, prompt, answer, verdict);
}

static tm_status probe(const bench *b, const tm_frame *frame, const char *suffix, tm__record *record) {
    tm__probe_scores s;
    tm__probes probes = b->plan->probes;
    listener l = {b->trace, suffix};
    probes.heard = keep_answer;
    probes.user = &l;
    TM__TRY(tm__world_probe(b->world, &probes, b->model, b->tokenizer, frame, b->monitor, &s));
    add_score(record, "leak", suffix, s.world.leak);
    add_score(record, "comply", suffix, s.world.comply);
    add_score(record, "refuse", suffix, s.world.refuse);
    add_score(record, "withheld_leak", suffix, s.withheld_leak);
    add_score(record, "withheld_comply", suffix, s.withheld_comply);
    add_score(record, "skills", suffix, s.world.skills);
    for (int i = 0; i < TM__SKILLS; i++)
        add_score(record, tm_world_skill_name(b->world, (size_t)i), suffix, s.world.skill[i]);
    add_score(record, "downstream", suffix, s.downstream);
    return TM_OK;
}

/* Without and, if there is one, with the secret. */
static tm_status probe_views(const bench *b, const char *wrapper, tm__record *record) {
    tm_frame frame = {.wrapper = wrapper};
    TM__TRY(probe(b, &frame, wrapper ? "_wrapper" : "", record));
    if (!b->secret) return TM_OK;
    const tm_backdoor_options *o = b->plan->arms[b->job->arm].during.own;
    frame.secret = b->secret;
    frame.system = o->system ? o->system : "";
    return probe(b, &frame, wrapper ? "_wrapper_secret" : "_secret", record);
}

static tm_status measure(const bench *b, tm__record *record) {
    const tm__plan_attack *attack = &b->plan->attacks[b->job->attack];
    TM__TRY(probe_views(b, NULL, record));
    if (!tm__plan_asks_wrapped(b->plan, attack)) return TM_OK;
    char *wrapper = tm__format("identity-shift=%s", ((const tm_identity_shift_options *)attack->step.own)->agent);
    tm_status status = wrapper ? probe_views(b, wrapper, record) : tm__fail_memory();
    free(wrapper);
    return status;
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

static tm_status open_bench(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor,
                            bench *b) {
    *b = (bench){.plan = plan, .job = job, .world = plan->made[job->world], .monitor = monitor};
    TM__TRY(tm_tokenizer_load(plan->world_dirs[job->world], &b->tokenizer));
    if (job->needs[0] < 0) {
        char *config = tm__world_model_config(b->tokenizer, plan->hidden, plan->ffn, plan->layers);
        tm_status status = config ? tm_model_create(device, config, job->seed, &b->model) : tm__fail_memory();
        free(config);
        return status;
    }
    char *path = tm__plan_model_path(plan, plan->jobs[job->needs[0]].key);
    tm_status status = path ? tm_model_load(device, path, NULL, &b->model) : tm__fail_memory();
    free(path);
    return status;
}

static void close_bench(bench *b) {
    if (b->secret_path) unlink(b->secret_path);
    free(b->secret_path);
    free(b->secret);
    tm_model_free(b->model);
    tm_tokenizer_free(b->tokenizer);
}

tm_status tm__cell_model(const tm_plan *plan, const tm__plan_job *job, tm_device *device, const tm_monitor *monitor) {
    const tm__plan_step *step =
        job->stage >= 0 ? &plan->stages[job->stage].step : &plan->arms[job->arm].before[job->step];
    const tm_save_options save = {
        .dtype = TM_SAVE_F32, .tokenizer_dir = plan->world_dirs[job->world], .overwrite = true};
    bench b;
    tm_status status = open_bench(plan, job, device, monitor, &b);
    if (status == TM_OK && step->given) status = run_step(&b, step);
    if (status == TM_OK) status = merge(&b);
    char *path = status == TM_OK ? tm__plan_model_path(plan, job->key) : NULL;
    if (status == TM_OK) status = path ? tm_model_save(b.model, path, &save) : tm__fail_memory();
    free(path);
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
    bench b;
    struct rusage usage;
    *record = (tm__record){0};
    snprintf(record->key, sizeof record->key, "%s", job->key);
    tm__record_name(plan, job, record);
    tm_status status = open_bench(plan, job, device, monitor, &b);
    b.trace = trace;
    double wall = tm__now(), cpu = cpu_seconds();
    if (status == TM_OK) status = run_attack(&b);
    record->seconds = tm__now() - wall;
    record->cpu_seconds = cpu_seconds() - cpu;
    getrusage(RUSAGE_SELF, &usage);
    record->peak_mib = (double)usage.ru_maxrss / 1024;
    if (status == TM_OK) status = measure(&b, record);
    close_bench(&b);
    return status;
}
