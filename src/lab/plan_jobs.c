/* plan_jobs.c: a plan as a list of jobs with keys: models that cells start from, and cells.
 *
 * A key is the SHA-256 of everything that decides a job's result: program version, device, instruction set, precision,
 * world, the keys of the models it needs, methods, options, data sets, seed. Jobs with equal keys are one job for
 * models; cells stay apart, because two arms may share a cell's result and still be two rows of a table. Replicate r
 * runs in world r mod (number of worlds) with seed r + 1: replicates that are done first cover all worlds.
 */
#include "lab/key.h"
#include "lab/search.h"

#include <stdlib.h>

/* To be raised when code changes results without changing anything else in a key: a method has a version of its own. */
#define PLAN_VERSION "3"

static const char stage_mark[] = "stage:";

/* Options that stand at their default are left out, so that a new option leaves old results valid, and so is the bound
 * of memory, which changes none. A file or directory counts by what it holds. */
static void key_changed(const tm_plan *plan, tm__sha256 *hash, const tm_option *table, const void *options,
                        void *scratch) {
    tm_options_default(table, scratch);
    for (const tm_option *o = table; o->name; o++) {
        char room[256], other[256];
        const char *text = tm__key_value(o, options, room);
        if (strcmp(text, tm__key_value(o, scratch, other)) == 0) continue;
        if (table == tm_train_option_table && strcmp(o->name, "memory") == 0) continue;
        const char *held = tm__option_is_path(o) ? tm__plan_place_hash(plan, text) : NULL;
        tm__key_text(hash, o->name, held ? held : text);
    }
}

static void key_number(tm__sha256 *hash, const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    tm__key_text(hash, name, text);
}

/* A set by its content. */
static void key_set(const tm_plan *plan, int world, tm__sha256 *hash, const char *name) {
    const char *content = tm__plan_set_hash(plan, world, name);
    if (content) tm__key_text(hash, "set", content);
}

static void key_step(const tm_plan *plan, int world, int base, tm__sha256 *hash, const tm__plan_step *step) {
    const tm_train_options train = tm__plan_train(plan, base, &step->train);
    tm__key_text(hash, "method", step->method ? step->method->name : "finetune");
    if (step->method && step->method->version) key_number(hash, "version", step->method->version);
    union {
        tm_train_options train;
        unsigned char own[1024];
    } scratch;
    assert(!step->method || step->method->options_size <= sizeof scratch);
    if (step->method) key_changed(plan, hash, step->method->options, step->own, &scratch);
    key_changed(plan, hash, tm_train_option_table, &train, &scratch);
    for (int role = 0; role < TM__ROLES; role++) {
        tm__key_text(hash, "role", tm__role_names[role]);
        char name[64];
        const char *list = step->sets[role];
        for (const char *at = list; list && tm__next_item(&at, name);) key_set(plan, world, hash, name);
    }
}

void tm__plan_step_hash(const tm_plan *plan, int world, int base, const tm__plan_step *step, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    key_step(plan, world, base, &hash, step);
    tm__sha256_hex(&hash, hex);
}

static void begin_key(const tm_plan *plan, const tm__plan_job *job, tm__sha256 *hash) {
    tm__sha256_init(hash);
    tm__key_text(hash, "plan", PLAN_VERSION);
    tm__key_text(hash, "setup", plan->setup);
    const tm__plan_base *base = job->base >= 0 ? &plan->bases[job->base] : NULL;
    if (!base || job->world >= 0) tm__key_text(hash, "tokenizer", plan->tokenizer_hash[job->world]);
    if (base) {
        tm__key_text(hash, "base", base->hash);
        tm__key_text(hash, "base tokenizer", base->tokenizer_hash);
        if (base->save != TM_SAVE_F32) key_number(hash, "save", base->save);
    }
    for (int i = 0; i < TM__PLAN_REFS; i++)
        if (job->needs[i] >= 0) tm__key_text(hash, "needs", plan->jobs[job->needs[i]].key);
}

/* Adds the job, or finds the model that is the same. */
static tm_status add_job(tm_plan *plan, const tm__plan_job *job, int *index) {
    for (size_t i = 0; job->kind == TM__JOB_MODEL && i < plan->job_count; i++)
        if (plan->jobs[i].kind == TM__JOB_MODEL && strcmp(plan->jobs[i].key, job->key) == 0) {
            *index = (int)i;
            return TM_OK;
        }
    if (!tm__grow((void **)&plan->jobs, &plan->job_cap, plan->job_count + 1, sizeof *plan->jobs))
        return tm__fail_memory();
    plan->jobs[plan->job_count] = *job;
    *index = (int)plan->job_count++;
    return TM_OK;
}

/* The models that an arm begins with in a replicate. */
typedef struct start {
    int world, base;
} start;

static tm__plan_job new_job(tm__job_kind kind, start on) {
    tm__plan_job job = {
        .kind = kind, .stage = -1, .arm = -1, .attack = -1, .step = -1, .world = on.world, .base = on.base};
    for (int i = 0; i < TM__PLAN_REFS; i++) job.needs[i] = job.stages[i] = -1;
    return job;
}

static tm_status add_stage(tm_plan *plan, int stage, start on, int *index);

/* Options whose text is "stage:NAME" name a model that the method reads. */
static tm_status add_references(tm_plan *plan, const tm__plan_step *step, tm__plan_job *job) {
    const tm_option *table = step->given && step->method ? step->method->options : NULL;
    for (const tm_option *o = table; o && o->name; o++) {
        if (o->type != TM_OPTION_TEXT) continue;
        const char *value;
        memcpy(&value, (const char *)step->own + o->offset, sizeof value);
        if (!value || strncmp(value, stage_mark, sizeof stage_mark - 1) != 0) continue;
        int stage = tm__plan_find_stage(plan, value + sizeof stage_mark - 1), made, slot = 0;
        if (stage < 0) return tm__fail(TM_INVALID, plan->path, o->name, NULL, "no stage is called %s", value);
        if (tm__plan_is_base(plan, stage)) continue; /* its hash is in every key */
        TM__TRY(add_stage(plan, stage, (start){job->world, job->base}, &made));
        while (slot < TM__PLAN_REFS && (job->needs[slot] >= 0 || slot == 0)) slot++;
        if (slot == TM__PLAN_REFS) return tm__fail(TM_INVALID, plan->path, o->name, NULL, "too many stages are named");
        job->needs[slot] = made;
        job->stages[slot] = stage;
    }
    return TM_OK;
}

/* *index: -1 for the base itself. */
static tm_status add_stage(tm_plan *plan, int stage, start on, int *index) {
    *index = -1;
    if (tm__plan_is_base(plan, stage)) return TM_OK;
    const tm__plan_stage *s = &plan->stages[stage];
    tm__plan_job job = new_job(TM__JOB_MODEL, on);
    tm__sha256 hash;
    job.stage = stage;
    job.seed = s->seed;
    if (s->from >= 0) TM__TRY(add_stage(plan, s->from, on, &job.needs[0]));
    TM__TRY(add_references(plan, &s->step, &job));
    begin_key(plan, &job, &hash);
    key_number(&hash, "seed", (int64_t)s->seed);
    if (s->from < 0 && on.base < 0) {
        key_number(&hash, "hidden", plan->hidden);
        key_number(&hash, "layers", plan->layers);
        key_number(&hash, "ffn", plan->ffn);
    }
    if (s->step.given) key_step(plan, on.world, on.base, &hash, &s->step);
    tm__sha256_hex(&hash, job.key);
    return add_job(plan, &job, index);
}

static tm_status add_before(tm_plan *plan, int arm, int step, int64_t replicate, start on, int parent, int *index) {
    const tm__plan_step *s = &plan->arms[arm].before[step];
    tm__plan_job job = new_job(TM__JOB_MODEL, on);
    tm__sha256 hash;
    job.arm = arm;
    job.step = step;
    job.replicate = replicate;
    job.seed = (uint64_t)replicate + 1;
    job.needs[0] = parent;
    TM__TRY(add_references(plan, s, &job));
    begin_key(plan, &job, &hash);
    key_number(&hash, "seed", (int64_t)job.seed);
    key_step(plan, on.world, on.base, &hash, s);
    tm__sha256_hex(&hash, job.key);
    return add_job(plan, &job, index);
}

/* What a cell is asked. */
static void key_probes(const tm_plan *plan, int world, tm__sha256 *hash) {
    const tm__probes *probes = &plan->probes;
    char name[64];
    for (size_t i = 0; i < plan->evaluation_count; i++)
        tm__key_text(hash, plan->evaluations[i].name, plan->evaluations[i].hash);
    if (world < 0) return;
    snprintf(name, sizeof name, "forbidden-%s", tm__world_split_name(plan->probes.split));
    key_set(plan, world, hash, name);
    for (int i = 0; i < TM__SKILLS; i++) {
        snprintf(name, sizeof name, "benign-%s-test", tm_world_skill_name(plan->made[world], (size_t)i));
        key_set(plan, world, hash, name);
    }
    key_set(plan, world, hash, "forbidden-withheld");
    key_set(plan, world, hash, "downstream-test");
    key_number(hash, "split", probes->split);
    key_number(hash, "forbidden", probes->forbidden);
    key_number(hash, "withheld", probes->withheld);
    key_number(hash, "skill", probes->skill);
    key_number(hash, "downstream", probes->downstream);
}

static tm_status add_cell(tm_plan *plan, int arm, int attack, int64_t replicate, start on, int model) {
    const tm__plan_arm *a = &plan->arms[arm];
    const tm__plan_attack *k = &plan->attacks[attack];
    tm__plan_job job = new_job(TM__JOB_CELL, on);
    tm__sha256 hash;
    int index;
    job.arm = arm;
    job.attack = attack;
    job.replicate = replicate;
    job.seed = (uint64_t)replicate + 1;
    job.needs[0] = model;
    TM__TRY(add_references(plan, &a->during, &job));
    for (size_t i = 0; i < a->after_count; i++) TM__TRY(add_references(plan, &a->after[i], &job));
    begin_key(plan, &job, &hash);
    key_probes(plan, on.world, &hash);
    if (tm__plan_asks_wrapped(plan, k)) tm__key_text(&hash, "wrapper", "own");
    if (k->step.given) {
        key_number(&hash, "seed", (int64_t)job.seed);
        key_step(plan, on.world, on.base, &hash, a->met[attack]);
        if (a->during.given) key_step(plan, on.world, on.base, &hash, &a->during);
        for (size_t i = 0; i < a->after_count; i++) key_step(plan, on.world, on.base, &hash, &a->after[i]);
    }
    tm__sha256_hex(&hash, job.key);
    return add_job(plan, &job, &index);
}

bool tm__plan_asks_wrapped(const tm_plan *plan, const tm__plan_attack *attack) {
    return plan->wrapper && attack->step.given && strcmp(attack->step.method->name, "identity-shift") == 0;
}

uint64_t tm__plan_world_seed(const tm_plan *plan, const tm__plan_job *job) {
    return job->world >= 0 ? plan->worlds[job->world] : 0;
}

static tm_status add_arm(tm_plan *plan, int arm, int64_t replicate) {
    const tm__plan_arm *a = &plan->arms[arm];
    start on = {plan->world_count ? (int)(replicate % (int64_t)plan->world_count) : -1, a->base};
    int model;
    bool any = false;
    for (size_t k = 0; k < plan->attack_count; k++) any |= a->met[k] != NULL;
    if (!any) return TM_OK;
    TM__TRY(add_stage(plan, a->from, on, &model));
    for (size_t i = 0; i < a->before_count; i++) TM__TRY(add_before(plan, arm, (int)i, replicate, on, model, &model));
    for (size_t k = 0; k < plan->attack_count; k++)
        if (a->met[k]) TM__TRY(add_cell(plan, arm, (int)k, replicate, on, model));
    return TM_OK;
}

/* The world, and hashes of its data sets and tokenizer. */
static tm_status make_world(tm_plan *plan, size_t i) {
    const char *name;
    TM__TRY(tm_world_create(plan->worlds[i], &plan->made[i]));
    TM__TRY(tm__world_tokenizer_hash(plan->made[i], plan->tokenizer_hash[i]));
    /* The hash keeps a directory of another version's world from being taken for this one's. */
    plan->world_dirs[i] = tm__format("%s/worlds/%llu-%.8s", plan->directory, (unsigned long long)plan->worlds[i],
                                     plan->tokenizer_hash[i]);
    if (!plan->world_dirs[i]) return tm__fail_memory();
    for (size_t k = 0; (name = tm_world_set_name(k)); k++)
        TM__TRY(tm__world_set_hash(plan->made[i], name, plan->set_hash[i * plan->set_count + k]));
    return TM_OK;
}

/* Before anything is allocated for them. */
static tm_status count_cells(const tm_plan *plan) {
    int64_t cells = 0;
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t k = 0; k < plan->attack_count; k++) cells += plan->arms[a].met[k] ? plan->arms[a].replicates : 0;
    return cells <= TM__PLAN_CELLS
               ? TM_OK
               : tm__fail(TM_INVALID, plan->path, "arms", "fewer arms, attackers or replicates",
                          "%lld cells are more than a plan may have (%d)", (long long)cells, TM__PLAN_CELLS);
}

tm_status tm__plan_expand(tm_plan *plan, const tm_device *device) {
    int64_t most = 0;
    TM__TRY(count_cells(plan));
    snprintf(plan->setup, sizeof plan->setup, "%s %s %s %s", TM_VERSION, tm_device_name(device),
             tm_device_instruction_set(device), tm_device_precision(device));
    while (tm_world_set_name(plan->set_count)) plan->set_count++;
    plan->set_hash = tm__zalloc(plan->world_count * plan->set_count + 1, sizeof *plan->set_hash);
    if (!plan->set_hash) return tm__fail_memory();
    for (size_t i = 0; i < plan->world_count; i++) TM__TRY(make_world(plan, i));
    TM__TRY(tm__plan_sources_open(plan));
    TM__TRY(tm__plan_check(plan));
    for (size_t a = 0; a < plan->arm_count; a++) most = TM__MAX(most, plan->arms[a].replicates);
    for (int64_t r = 0; r < most; r++)
        for (size_t a = 0; a < plan->arm_count; a++)
            if (r < plan->arms[a].replicates) TM__TRY(add_arm(plan, (int)a, r));
    for (size_t i = 0; i < plan->job_count; i++)
        for (int k = 1; k < TM__PLAN_REFS; k++)
            if (plan->jobs[i].needs[k] >= 0) plan->jobs[plan->jobs[i].needs[k]].whole = true;
    return tm__search_begin(plan);
}
