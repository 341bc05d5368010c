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
            return tm__fail(TM_FORMAT, path, name, NULL, "a number is expected, and 64 of them at most");
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

/* One line per cell: what it is, its scores, an empty field where it lacks one, and what it cost. */
const char *const tm__csv_first[TM__CSV_FIRST] = {"key", "arm", "group", "attack", "world", "seed"};
const char *const tm__csv_last[TM__CSV_LAST] = {"cpu_seconds", "peak_mib"};

enum { COLUMNS = 256 };

typedef struct csv {
    const tm_plan *plan;
    const char *path;
    size_t line, count;     /* columns */
    char *columns[COLUMNS]; /* their names */
} csv;

static tm_status wrong_line(const csv *in, const char *hint, const char *what, const char *name) {
    char place[32];
    snprintf(place, sizeof place, "line %zu", in->line);
    return tm__fail(TM_FORMAT, in->path, place, hint, "%s%s%s", what, name ? " " : "", name ? name : "");
}

/* Cuts a line into its fields, in place; quotes are dropped. 0: it has more than there is room for, or an open quote.
 */
static size_t split_line(char *line, char *fields[COLUMNS]) {
    size_t n = 0;
    for (char *at = line; n < COLUMNS;) {
        bool quoted = *at == '"';
        char *end = quoted ? strchr(at + 1, '"') : at + strcspn(at, ",");
        if (!end) return 0;
        fields[n++] = at + quoted;
        char *next = quoted ? end + 1 : end;
        bool more = *next == ',';
        *end = 0;
        if (!more) return n;
        at = next + 1;
    }
    return 0;
}

/* The names of the columns, which stand in the first line. */
static tm_status import_header(csv *in, char *line) {
    static const char hint[] = "temper run PLAN --csv FILE writes one: key, arm, group, attack, world, seed, the "
                               "scores, cpu_seconds, peak_mib";
    in->count = split_line(line, in->columns);
    bool good = in->count > TM__CSV_FIRST + TM__CSV_LAST;
    for (size_t i = 0; good && i < TM__CSV_FIRST; i++) good = strcmp(in->columns[i], tm__csv_first[i]) == 0;
    for (size_t i = 0; good && i < TM__CSV_LAST; i++)
        good = strcmp(in->columns[in->count - TM__CSV_LAST + i], tm__csv_last[i]) == 0;
    if (!good) return wrong_line(in, hint, "does not name the columns of a table of scores", NULL);
    for (size_t i = TM__CSV_FIRST; i < in->count - TM__CSV_LAST; i++) {
        if (!in->columns[i][0] || strlen(in->columns[i]) >= TM__SCORE_NAME)
            return wrong_line(in, NULL, "no score has such a name:", in->columns[i]);
        for (size_t k = TM__CSV_FIRST; k < i; k++)
            if (strcmp(in->columns[i], in->columns[k]) == 0)
                return wrong_line(in, NULL, "a score stands twice:", in->columns[i]);
    }
    return TM_OK;
}

static tm_status import_number(const csv *in, size_t column, const char *field, double *value) {
    char *end;
    *value = strtod(field, &end);
    if (end != field && !*end && isfinite(*value)) return TM_OK;
    return wrong_line(in, "a number, or nothing where a cell lacks the score", "no number stands in the column",
                      in->columns[column]);
}

static const tm__plan_job *find_cell(const tm_plan *plan, const char *digits) {
    for (size_t i = 0; i < plan->job_count; i++)
        if (plan->jobs[i].kind == TM__JOB_CELL && strncmp(plan->jobs[i].key, digits, TM__CSV_KEY) == 0)
            return &plan->jobs[i];
    return NULL;
}

/* A cell that is there stays as it is: a table's figures are rounded. */
static tm_status import_record(const tm_plan *plan, const tm__record *record) {
    tm__record there;
    tm_status status = tm__record_load(plan, record->key, &there);
    if (status == TM_OK || status == TM_NO_MEMORY) return status;
    tm_error_clear();
    return tm__record_save(plan, record);
}

static tm_status import_line(const csv *in, char *line) {
    char *fields[COLUMNS];
    tm__record record = {0};
    double value, cost[TM__CSV_LAST];
    if (split_line(line, fields) != in->count || strlen(fields[0]) != TM__CSV_KEY)
        return wrong_line(in, NULL, "is no line of a table of scores", NULL);
    size_t scores = in->count - TM__CSV_LAST;
    for (size_t i = TM__CSV_FIRST; i < scores; i++) {
        if (!fields[i][0]) continue;
        TM__TRY(import_number(in, i, fields[i], &value));
        if (record.count == TM__COUNT(record.values)) return wrong_line(in, NULL, "holds too many scores", NULL);
        tm__record_add(&record, in->columns[i], value);
    }
    for (size_t i = 0; i < TM__CSV_LAST; i++) TM__TRY(import_number(in, scores + i, fields[scores + i], &cost[i]));
    const tm__plan_job *job = find_cell(in->plan, fields[0]);
    if (!job || !record.count) return TM_OK;
    snprintf(record.key, sizeof record.key, "%s", job->key);
    tm__record_name(in->plan, job, &record);
    record.cpu_seconds = record.seconds = cost[0];
    record.peak_mib = cost[1];
    return import_record(in->plan, &record);
}

tm_status tm_plan_import(const tm_plan *plan, const char *path) {
    char *text = NULL;
    size_t len;
    csv in = {.plan = plan, .path = path, .line = 1};
    TM__TRY(tm__file_read(path, (size_t)1 << 30, &text, &len));
    tm_status status = *text ? TM_OK : wrong_line(&in, NULL, "the table is empty", NULL);
    for (char *line = text; *line && status == TM_OK; in.line++) {
        char *end = strchr(line, '\n');
        if (!end) {
            status = wrong_line(&in, NULL, "the table ends within a line", NULL);
            break;
        }
        *end = 0;
        if (in.line == 1)
            status = import_header(&in, line);
        else if (*line)
            status = import_line(&in, line);
        line = end + 1;
    }
    free(text);
    return status;
}
