/* records.c: what cells found: DIR/cells/KEY.json, one file per key, whole or not there at all. */
#include "lab/plan.h"

#include <jansson.h>
#include <stdlib.h>

char *tm__record_path(const tm_plan *plan, const char *key) {
    return tm__format("%s/cells/%s.json", plan->directory, key);
}

void tm__record_add(tm__record *record, const char *name, double value) {
    assert(record->count < TM__COUNT(record->values) && isfinite(value));
    snprintf(record->names[record->count], sizeof record->names[0], "%s", name);
    record->values[record->count++] = value;
}

bool tm__record_get(const tm__record *record, const char *name, double *value) {
    for (size_t i = 0; i < record->count; i++)
        if (strcmp(record->names[i], name) == 0) {
            *value = record->values[i];
            return true;
        }
    return false;
}

static json_t *record_json(const tm__record *r) {
    json_t *scores = json_object();
    bool ok = scores != NULL;
    for (size_t i = 0; i < r->count && ok; i++)
        ok = json_object_set_new(scores, r->names[i], json_real(r->values[i])) == 0;
    json_t *json =
        ok ? json_pack("{s:s, s:s, s:s, s:I, s:I, s:O, s:f, s:f, s:f}", "key", r->key, "arm", r->arm, "attack",
                       r->attack, "world", (json_int_t)r->world, "seed", (json_int_t)r->seed, "scores", scores,
                       "seconds", r->seconds, "cpu_seconds", r->cpu_seconds, "peak_mib", r->peak_mib)
           : NULL;
    json_decref(scores);
    return json;
}

tm_status tm__record_save(const tm_plan *plan, const tm__record *record) {
    char *path = tm__record_path(plan, record->key), *text = NULL;
    json_t *json = path ? record_json(record) : NULL;
    tm_status status = json ? tm__json_dump(json, JSON_INDENT(1), &text, NULL) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text, strlen(text));
    json_decref(json);
    free(text);
    free(path);
    return status;
}

static tm_status read_scores(const json_t *scores, const char *path, tm__record *record) {
    const char *name;
    json_t *value;
    if (!json_is_object(scores)) return tm__fail(TM_FORMAT, path, "scores", NULL, "an object is expected");
    json_object_foreach((json_t *)scores, name, value) {
        if (!json_is_number(value) || record->count == TM__COUNT(record->values))
            return tm__fail(TM_FORMAT, path, name, NULL, "a number is expected, and 32 of them at most");
        tm__record_add(record, name, json_number_value(value));
    }
    return TM_OK;
}

tm_status tm__record_load(const tm_plan *plan, const char *key, tm__record *record) {
    char *path = tm__record_path(plan, key);
    json_t *json = NULL;
    *record = (tm__record){0};
    snprintf(record->key, sizeof record->key, "%s", key);
    tm_status status = path ? tm__json_load(path, &json) : tm__fail_memory();
    if (status == TM_OK) status = read_scores(json_object_get(json, "scores"), path, record);
    if (status == TM_OK) status = tm__json_real(json, path, "seconds", NULL, &record->seconds);
    if (status == TM_OK) status = tm__json_real(json, path, "cpu_seconds", NULL, &record->cpu_seconds);
    if (status == TM_OK) status = tm__json_real(json, path, "peak_mib", NULL, &record->peak_mib);
    json_decref(json);
    free(path);
    return status;
}

static void name_record(const tm_plan *plan, const tm__plan_job *job, tm__record *record) {
    const tm__plan_attack *attack = &plan->attacks[job->attack];
    snprintf(record->arm, sizeof record->arm, "%s", plan->arms[job->arm].name);
    snprintf(record->attack, sizeof record->attack, "%s", attack->name);
    snprintf(record->group, sizeof record->group, "%s", attack->group);
    record->world = plan->worlds[job->world];
    record->seed = job->seed;
    record->replicate = job->replicate;
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
        if (status == TM_NO_MEMORY) {
            free(made);
            return status;
        }
        if (status != TM_OK) {
            tm_error_clear();
            continue;
        }
        name_record(plan, job, &made[n++]);
    }
    *records = made;
    *count = n;
    return TM_OK;
}
