/* scores_csv.c: reads a table of scores that an earlier run wrote (--csv), so that its cells count as done (--known).
 */
#include "lab/plan.h"

#include <stdlib.h>

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
    if (status != TM_NOT_FOUND) return status;
    tm_error_clear();
    return tm__record_save(plan, record, NULL);
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
