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

json_t *tm__record_scores(const tm__record *r) {
    json_t *scores = json_object();
    for (size_t i = 0; i < r->count && scores; i++)
        if (json_object_set_new(scores, r->names[i], json_real(r->values[i])) != 0) {
            json_decref(scores);
            scores = NULL;
        }
    return scores;
}

static json_t *record_json(const tm__record *r) {
    json_t *scores = tm__record_scores(r);
    json_t *json =
        scores ? json_pack("{s:s, s:s, s:s, s:I, s:I, s:O, s:f, s:f, s:f}", "key", r->key, "arm", r->arm, "attack",
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

void tm__record_name(const tm_plan *plan, const tm__plan_job *job, tm__record *record) {
    const tm__plan_attack *attack = &plan->attacks[job->attack];
    snprintf(record->arm, sizeof record->arm, "%s", plan->arms[job->arm].name);
    snprintf(record->attack, sizeof record->attack, "%s", attack->name);
    snprintf(record->group, sizeof record->group, "%s", attack->group);
    record->world = plan->worlds[job->world];
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
        if (status == TM_NO_MEMORY) {
            free(made);
            return status;
        }
        if (status != TM_OK) {
            tm_error_clear();
            continue;
        }
        tm__record_name(plan, job, &made[n]);
        made[n].repeats = is_repeated(made, n, &made[n]);
        n++;
    }
    *records = made;
    *count = n;
    return TM_OK;
}

/* ---- results of an earlier run ----------------------------------------------------------------------------------- */

enum { FIELDS = 11, KEY_DIGITS = 16 };

/* Cuts a line of the table that tm_plan_summary writes into its fields, in place; quotes are dropped. */
static size_t split_line(char *line, char *fields[FIELDS]) {
    size_t n = 0;
    for (char *at = line; n < FIELDS; n++) {
        bool quoted = *at == '"';
        fields[n] = at + quoted;
        char *end = quoted ? strchr(at + 1, '"') : at + strcspn(at, ",");
        if (!end) return 0;
        char *next = quoted ? end + 1 : end;
        bool more = *next == ',';
        *end = 0;
        if (!more) return n + 1;
        at = next + 1;
    }
    return n;
}

static const tm__plan_job *find_cell(const tm_plan *plan, const char *digits) {
    for (size_t i = 0; i < plan->job_count; i++)
        if (plan->jobs[i].kind == TM__JOB_CELL && strncmp(plan->jobs[i].key, digits, KEY_DIGITS) == 0)
            return &plan->jobs[i];
    return NULL;
}

/* The cell that is being read: its record, and how many scores it has to have. */
typedef struct incoming {
    tm__record record;
    size_t whole;
} incoming;

/* A cell that was cut off is none, and one that is there stays as it is. */
static tm_status import_record(const tm_plan *plan, const incoming *in) {
    tm__record there;
    if (!in->record.key[0] || in->record.count != in->whole) return TM_OK;
    tm_status status = tm__record_load(plan, in->record.key, &there);
    if (status == TM_OK || status == TM_NO_MEMORY) return status;
    tm_error_clear();
    return tm__record_save(plan, &in->record);
}

static tm_status import_line(const tm_plan *plan, char *line, incoming *in) {
    tm__record *record = &in->record;
    char *fields[FIELDS], *end;
    if (split_line(line, fields) != FIELDS || strlen(fields[0]) != KEY_DIGITS || strlen(fields[9]) >= 32)
        return TM_FORMAT;
    double value = strtod(fields[10], &end);
    if (end == fields[10] || !isfinite(value)) return TM_FORMAT;
    if (strncmp(record->key, fields[0], KEY_DIGITS) != 0) {
        const tm__plan_job *job = find_cell(plan, fields[0]);
        TM__TRY(import_record(plan, in));
        *record = (tm__record){0};
        in->whole = (size_t)strtoul(fields[8], NULL, 10);
        if (!job) return TM_OK;
        snprintf(record->key, sizeof record->key, "%s", job->key);
        tm__record_name(plan, job, record);
        record->cpu_seconds = record->seconds = strtod(fields[6], NULL);
        record->peak_mib = strtod(fields[7], NULL);
    }
    if (record->key[0] && record->count < TM__COUNT(record->values)) tm__record_add(record, fields[9], value);
    return TM_OK;
}

tm_status tm_plan_import(const tm_plan *plan, const char *path) {
    char *text = NULL;
    size_t len, number = 1;
    incoming in = {0};
    TM__TRY(tm__file_read(path, (size_t)1 << 30, &text, &len));
    tm_status status = TM_OK;
    for (char *line = text, *next; line && *line && status == TM_OK; line = next, number++) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        if (number == 1 || !*line) continue;
        status = import_line(plan, line, &in);
        char place[32];
        snprintf(place, sizeof place, "line %zu", number);
        if (status == TM_FORMAT) tm__fail(TM_FORMAT, path, place, NULL, "is no line of a table of scores");
    }
    if (status == TM_OK) status = import_record(plan, &in);
    free(text);
    return status;
}
