/* store.c: the result store over SQLite. store.h describes tables and promises.
 *
 * Pinned by tests/unit/test_store.c (round trip, damage, versions, full disk, two writers) and tests/cli/cases/run.sh.
 */
#include "lab/store.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUSY_MS = 120000 };

struct tm__store {
    sqlite3 *db;
    char *path;
};

/* What brings a file from each version to the next; a new version is a new line. */
static const char *const versions[] = {
    "CREATE TABLE job (key TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, error TEXT, digest TEXT NOT NULL,"
    " seconds REAL, cpu_seconds REAL, peak_mib REAL, setup TEXT NOT NULL, ended TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE score (key TEXT, place INTEGER, name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (key, place)) "
    "WITHOUT ROWID;"
    "CREATE TABLE metric (key TEXT, part INTEGER, step INTEGER, phase TEXT NOT NULL, loss REAL, lr REAL, tokens "
    "INTEGER, seconds REAL, PRIMARY KEY (key, part, step)) WITHOUT ROWID;"
    "CREATE TABLE answer (key TEXT, probe TEXT, item INTEGER, prompt TEXT NOT NULL, answer TEXT NOT NULL, verdict TEXT "
    "NOT NULL, PRIMARY KEY (key, probe, item)) WITHOUT ROWID;"
    "CREATE TABLE cell (plan TEXT, arm TEXT, attack TEXT, world INTEGER, seed INTEGER, grp TEXT NOT NULL, place "
    "INTEGER, key TEXT NOT NULL, PRIMARY KEY (plan, arm, attack, world, seed)) WITHOUT ROWID;",
};

/* ---- statements -------------------------------------------------------------------------------------------------- */

static tm_status fail(const tm__store *store) {
    int code = store->db ? sqlite3_extended_errcode(store->db) : SQLITE_NOMEM;
    const char *why = store->db ? sqlite3_errmsg(store->db) : "", *hint = NULL;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return tm__fail_memory();
    case SQLITE_FULL:
        hint = "make room and give the same command again";
        why = "the disk is full";
        break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        hint = "it has to be writable, and its directory too";
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        hint = "move the file away: the next run makes a new one, with --known FILE from a table of scores";
        return tm__fail(TM_FORMAT, store->path, NULL, hint, "is damaged: %s", why);
    default:
        break;
    }
    return tm__fail(TM_IO, store->path, NULL, hint, "%s", why);
}

static tm_status run(tm__store *store, const char *sql) {
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK ? TM_OK : fail(store);
}

static tm_status prepare(tm__store *store, const char *sql, sqlite3_stmt **s) {
    return sqlite3_prepare_v2(store->db, sql, -1, s, NULL) == SQLITE_OK ? TM_OK : fail(store);
}

/* Runs a statement that returns nothing, and makes it ready for the next values. */
static tm_status step(tm__store *store, sqlite3_stmt *s) {
    tm_status status = sqlite3_step(s) == SQLITE_DONE ? TM_OK : fail(store);
    sqlite3_reset(s);
    return status;
}

/* Texts stay valid until the statement is reset; NAN becomes NULL. */
static void bind_text(sqlite3_stmt *s, int at, const char *text) {
    sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static tm_status read_version(tm__store *store, int *version) {
    sqlite3_stmt *s = NULL;
    TM__TRY(prepare(store, "PRAGMA user_version", &s));
    tm_status status = sqlite3_step(s) == SQLITE_ROW ? TM_OK : fail(store);
    *version = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return status;
}

/* Another process may be at the same: the version is read again once the file is ours to write. */
static tm_status migrate(tm__store *store) {
    int version, newest = (int)TM__COUNT(versions);
    TM__TRY(read_version(store, &version));
    if (version == newest) return TM_OK;
    if (version > newest)
        return tm__fail(TM_UNSUPPORTED, store->path, "user_version", "use the newer program",
                        "was written by a newer version of Temper (%d, this one knows %d)", version, newest);
    TM__TRY(run(store, "BEGIN IMMEDIATE"));
    tm_status status = read_version(store, &version);
    for (; status == TM_OK && version < newest; version++) status = run(store, versions[version]);
    char text[64];
    snprintf(text, sizeof text, "PRAGMA user_version = %d", newest);
    if (status == TM_OK) status = run(store, text);
    if (status == TM_OK) status = run(store, "COMMIT");
    if (status != TM_OK) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* Whether the file can be read though neither it nor a log beside it can be written (an archive, a mounted image): no
 * log of a killed run, or of one that goes on, holds the last of it. */
static bool is_at_rest(const tm__store *store, const char *directory) {
    struct stat info;
    char *log = tm__format("%s-wal", store->path);
    bool writable = access(directory, W_OK) == 0 && access(store->path, W_OK) == 0;
    bool complete = log && (stat(log, &info) != 0 || info.st_size == 0);
    free(log);
    return !writable && complete;
}

/* "file:PATH?immutable=1": SQLite then makes no files of its own. */
static tm_status open_at_rest(tm__store *store) {
    tm__string uri = {0};
    bool ok = tm__string_printf(&uri, "file:%s", store->path[0] == '/' ? "//" : "");
    for (const char *at = store->path; *at && ok; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || strchr("0123456789/._-", *at);
        ok = plain ? tm__string_append(&uri, at, 1) : tm__string_printf(&uri, "%%%02X", (unsigned char)*at);
    }
    ok = ok && tm__string_printf(&uri, "?immutable=1");
    const int how = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_FULLMUTEX;
    tm_status status = !ok                                                             ? tm__fail_memory()
                       : sqlite3_open_v2(uri.data, &store->db, how, NULL) == SQLITE_OK ? TM_OK
                                                                                       : fail(store);
    tm__string_free(&uri);
    return status;
}

static tm_status open_live(tm__store *store, bool make) {
    const int how = SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | (make ? SQLITE_OPEN_CREATE : 0);
    if (sqlite3_open_v2(store->path, &store->db, how, NULL) != SQLITE_OK) return fail(store);
    sqlite3_busy_timeout(store->db, BUSY_MS);
    return run(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
}

tm_status tm__store_open(const char *directory, bool make, tm__store **store) {
    tm__store *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->path = tm__path_join(directory, "store.db");
    tm_status status = made->path ? TM_OK : tm__fail_memory();
    if (status == TM_OK && !make && !tm__path_exists(made->path))
        status = tm__fail(TM_NOT_FOUND, made->path, NULL, "temper run PLAN --directory DIR makes it",
                          "there is no result store");
    if (status == TM_OK) status = !make && is_at_rest(made, directory) ? open_at_rest(made) : open_live(made, make);
    if (status == TM_OK) status = migrate(made);
    if (status == TM_OK)
        *store = made;
    else
        tm__store_close(made);
    return status;
}

void tm__store_close(tm__store *store) {
    if (!store) return;
    sqlite3_close(store->db);
    free(store->path);
    free(store);
}

/* ---- what a job leaves ------------------------------------------------------------------------------------------- */

/* Of names and values as they are written: what a damaged line does not match. */
static void digest(const char *key, const tm__scores *scores, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, key, strlen(key));
    for (size_t i = 0; scores && i < scores->count; i++) {
        tm__sha256_update(&hash, scores->names[i], strlen(scores->names[i]) + 1);
        tm__sha256_update(&hash, &scores->values[i], sizeof scores->values[i]);
    }
    tm__sha256_hex(&hash, hex);
}

static void now_text(char text[32]) {
    time_t now = time(NULL);
    struct tm parts;
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
}

static tm_status put_job(tm__store *store, const tm__job_end *end, const tm__scores *scores) {
    sqlite3_stmt *s = NULL;
    char hex[65], ended[32];
    digest(end->key, scores, hex);
    now_text(ended);
    TM__TRY(prepare(store, "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", &s));
    bind_text(s, 1, end->key);
    bind_text(s, 2, end->kind);
    bind_text(s, 3, end->name);
    bind_text(s, 4, end->error);
    bind_text(s, 5, hex);
    sqlite3_bind_double(s, 6, end->seconds);
    sqlite3_bind_double(s, 7, end->cpu_seconds);
    sqlite3_bind_double(s, 8, end->peak_mib);
    bind_text(s, 9, end->setup);
    bind_text(s, 10, ended);
    tm_status status = step(store, s);
    sqlite3_finalize(s);
    return status;
}

static tm_status put_scores(tm__store *store, const char *key, const tm__scores *scores) {
    sqlite3_stmt *s = NULL;
    tm_status status = prepare(store, "INSERT INTO score VALUES (?1, ?2, ?3, ?4)", &s);
    for (size_t i = 0; status == TM_OK && i < scores->count; i++) {
        bind_text(s, 1, key);
        sqlite3_bind_int64(s, 2, (sqlite3_int64)i);
        bind_text(s, 3, scores->names[i]);
        sqlite3_bind_double(s, 4, scores->values[i]);
        status = step(store, s);
    }
    sqlite3_finalize(s);
    return status;
}

static tm_status put_metrics(tm__store *store, const char *key, const tm__trace *trace) {
    sqlite3_stmt *s = NULL;
    tm_status status = prepare(store, "INSERT OR REPLACE INTO metric VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", &s);
    for (size_t i = 0; status == TM_OK && i < trace->metric_count; i++) {
        const tm__metric *m = &trace->metrics[i];
        bind_text(s, 1, key);
        sqlite3_bind_int64(s, 2, m->part);
        sqlite3_bind_int64(s, 3, m->step);
        bind_text(s, 4, m->phase);
        sqlite3_bind_double(s, 5, m->loss);
        sqlite3_bind_double(s, 6, m->lr);
        sqlite3_bind_int64(s, 7, m->tokens);
        sqlite3_bind_double(s, 8, m->seconds);
        status = step(store, s);
    }
    sqlite3_finalize(s);
    return status;
}

static tm_status put_answers(tm__store *store, const char *key, const tm__trace *trace) {
    sqlite3_stmt *s = NULL;
    tm_status status = prepare(store, "INSERT OR REPLACE INTO answer VALUES (?1, ?2, ?3, ?4, ?5, ?6)", &s);
    for (size_t i = 0; status == TM_OK && i < trace->answer_count; i++) {
        const tm__answer *a = &trace->answers[i];
        bind_text(s, 1, key);
        bind_text(s, 2, a->probe);
        sqlite3_bind_int64(s, 3, a->item);
        bind_text(s, 4, a->prompt);
        bind_text(s, 5, a->answer);
        bind_text(s, 6, a->verdict);
        status = step(store, s);
    }
    sqlite3_finalize(s);
    return status;
}

/* Runs sql with the key in place of ?1. */
static tm_status run_with_key(tm__store *store, const char *sql, const char *key) {
    sqlite3_stmt *s = NULL;
    TM__TRY(prepare(store, sql, &s));
    bind_text(s, 1, key);
    tm_status status = step(store, s);
    sqlite3_finalize(s);
    return status;
}

static tm_status forget(tm__store *store, const char *key) {
    static const char *const all[] = {"DELETE FROM job WHERE key = ?1", "DELETE FROM score WHERE key = ?1",
                                      "DELETE FROM metric WHERE key = ?1", "DELETE FROM answer WHERE key = ?1"};
    for (size_t i = 0; i < TM__COUNT(all); i++) TM__TRY(run_with_key(store, all[i], key));
    return TM_OK;
}

tm_status tm__store_put(tm__store *store, const tm__job_end *end, const tm__scores *scores, const tm__trace *trace) {
    TM__TRY(run(store, "BEGIN IMMEDIATE"));
    tm_status status = forget(store, end->key);
    if (status == TM_OK) status = put_job(store, end, scores);
    if (status == TM_OK && scores) status = put_scores(store, end->key, scores);
    if (status == TM_OK && trace) status = put_metrics(store, end->key, trace);
    if (status == TM_OK && trace) status = put_answers(store, end->key, trace);
    if (status == TM_OK) status = run(store, "COMMIT");
    if (status != TM_OK) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static tm_status get_scores(tm__store *store, const char *key, tm__scores *scores) {
    sqlite3_stmt *s = NULL;
    TM__TRY(prepare(store, "SELECT name, value FROM score WHERE key = ?1 ORDER BY place", &s));
    bind_text(s, 1, key);
    int code;
    for (scores->count = 0; (code = sqlite3_step(s)) == SQLITE_ROW && scores->count < TM__RECORD_SCORES;) {
        const char *name = (const char *)sqlite3_column_text(s, 0);
        snprintf(scores->names[scores->count], TM__SCORE_NAME, "%s", name ? name : "");
        scores->values[scores->count++] = sqlite3_column_double(s, 1);
    }
    tm_status status = code == SQLITE_DONE || code == SQLITE_ROW ? TM_OK : fail(store);
    sqlite3_finalize(s);
    return status;
}

tm_status tm__store_get(tm__store *store, const char *key, tm__job_end *end, tm__scores *scores) {
    sqlite3_stmt *s = NULL;
    char stored[65] = "", found[65];
    TM__TRY(
        prepare(store, "SELECT digest, seconds, cpu_seconds, peak_mib FROM job WHERE key = ?1 AND error IS NULL", &s));
    bind_text(s, 1, key);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        snprintf(stored, sizeof stored, "%s", text ? text : "");
        *end = (tm__job_end){.seconds = sqlite3_column_double(s, 1),
                             .cpu_seconds = sqlite3_column_double(s, 2),
                             .peak_mib = sqlite3_column_double(s, 3)};
    }
    tm_status status = code == SQLITE_ROW || code == SQLITE_DONE ? TM_OK : fail(store);
    sqlite3_finalize(s);
    if (status == TM_OK) status = get_scores(store, key, scores);
    TM__TRY(status);
    digest(key, scores, found);
    if (strcmp(stored, found) == 0) return TM_OK;
    return tm__fail(TM_NOT_FOUND, store->path, key, NULL, code == SQLITE_ROW ? "is damaged" : "is not there");
}

/* ---- names and queries ------------------------------------------------------------------------------------------- */

static tm_status put_names(tm__store *store, const char *plan, const tm__cell_name *cells, size_t count) {
    sqlite3_stmt *s = NULL;
    tm_status status = prepare(store, "INSERT OR REPLACE INTO cell VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", &s);
    for (size_t i = 0; status == TM_OK && i < count; i++) {
        const tm__cell_name *c = &cells[i];
        bind_text(s, 1, plan);
        bind_text(s, 2, c->arm);
        bind_text(s, 3, c->attack);
        sqlite3_bind_int64(s, 4, (sqlite3_int64)c->world);
        sqlite3_bind_int64(s, 5, (sqlite3_int64)c->seed);
        bind_text(s, 6, c->group);
        sqlite3_bind_int64(s, 7, (sqlite3_int64)i);
        bind_text(s, 8, c->key);
        status = step(store, s);
    }
    sqlite3_finalize(s);
    return status;
}

tm_status tm__store_name_cells(tm__store *store, const char *plan, const tm__cell_name *cells, size_t count) {
    TM__TRY(run(store, "BEGIN IMMEDIATE"));
    tm_status status = run_with_key(store, "DELETE FROM cell WHERE plan = ?1", plan);
    if (status == TM_OK) status = put_names(store, plan, cells, count);
    if (status == TM_OK) status = run(store, "COMMIT");
    if (status != TM_OK) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* Fills a table of this connection's own. */
static tm_status put_all(tm__store *store, const char *sql, const char *const *texts, size_t count) {
    sqlite3_stmt *s = NULL;
    tm_status status = prepare(store, sql, &s);
    for (size_t i = 0; status == TM_OK && i < count; i++) {
        bind_text(s, 1, texts[i]);
        status = step(store, s);
    }
    sqlite3_finalize(s);
    return status;
}

static tm_status count_others(tm__store *store, size_t *removed) {
    sqlite3_stmt *s = NULL;
    TM__TRY(prepare(store, "SELECT count(*) FROM job WHERE key NOT IN kept", &s));
    tm_status status = sqlite3_step(s) == SQLITE_ROW ? TM_OK : fail(store);
    *removed = (size_t)sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return status;
}

tm_status tm__store_keep(tm__store *store, const char *const *keys, size_t key_count, const char *const *plans,
                         size_t plan_count, bool dry, size_t *removed) {
    static const char forget_others[] =
        "DELETE FROM job WHERE key NOT IN kept; DELETE FROM score WHERE key NOT IN kept;"
        "DELETE FROM metric WHERE key NOT IN kept; DELETE FROM answer WHERE key NOT IN kept;"
        "DELETE FROM cell WHERE plan NOT IN kept_plan OR key NOT IN kept;";
    TM__TRY(run(store, "CREATE TEMP TABLE kept (key TEXT PRIMARY KEY) WITHOUT ROWID;"
                       "CREATE TEMP TABLE kept_plan (name TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN IMMEDIATE"));
    tm_status status = put_all(store, "INSERT OR IGNORE INTO kept VALUES (?1)", keys, key_count);
    if (status == TM_OK) status = put_all(store, "INSERT OR IGNORE INTO kept_plan VALUES (?1)", plans, plan_count);
    if (status == TM_OK) status = count_others(store, removed);
    if (status == TM_OK && !dry) status = run(store, forget_others);
    if (status == TM_OK) status = run(store, "COMMIT");
    if (status != TM_OK) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    if (status == TM_OK && !dry && *removed) status = run(store, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    sqlite3_exec(store->db, "DROP TABLE temp.kept; DROP TABLE temp.kept_plan", NULL, NULL, NULL);
    return status;
}

enum { COLUMNS = 32 };

tm_status tm__store_query(tm__store *store, const char *sql, const char *const *values, size_t count,
                          tm__store_row *row, void *user) {
    sqlite3_stmt *s = NULL;
    TM__TRY(prepare(store, sql, &s));
    for (size_t i = 0; i < count; i++) bind_text(s, (int)i + 1, values[i]);
    const char *names[COLUMNS], *texts[COLUMNS];
    int columns = TM__MIN(sqlite3_column_count(s), (int)COLUMNS), code = SQLITE_DONE;
    tm_status status = TM_OK;
    for (int i = 0; i < columns; i++) names[i] = sqlite3_column_name(s, i);
    while (status == TM_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        for (int i = 0; i < columns; i++) texts[i] = (const char *)sqlite3_column_text(s, i);
        status = row(user, columns, names, texts);
    }
    if (status == TM_OK && code != SQLITE_DONE) status = fail(store);
    sqlite3_finalize(s);
    return status;
}

/* ---- traces ------------------------------------------------------------------------------------------------------ */

/* Steps alone: what has no loss is no training. A step that is not behind the last begins another part. */
void tm__trace_progress(tm__trace *t, const tm_progress *p) {
    const tm__metric *last = t->metric_count ? &t->metrics[t->metric_count - 1] : NULL;
    if (!isfinite(p->loss) || strcmp(p->unit, "step") != 0) return;
    if (last && (p->done <= last->step || strcmp(last->phase, p->phase) != 0)) t->part++;
    if (!tm__grow((void **)&t->metrics, &t->metric_cap, t->metric_count + 1, sizeof *t->metrics)) {
        t->full = true;
        return;
    }
    tm__metric *m = &t->metrics[t->metric_count++];
    *m = (tm__metric){
        .part = t->part, .step = p->done, .tokens = p->tokens, .loss = p->loss, .lr = p->lr, .seconds = p->seconds};
    snprintf(m->phase, sizeof m->phase, "%s", p->phase);
}

void tm__trace_answer(tm__trace *t, const char *probe, int64_t item, const char *prompt, const char *answer,
                      const char *verdict) {
    tm__answer made = {.probe = tm__arena_strdup(&t->arena, probe, strlen(probe)),
                       .prompt = tm__arena_strdup(&t->arena, prompt, strlen(prompt)),
                       .answer = tm__arena_strdup(&t->arena, answer, strlen(answer)),
                       .verdict = tm__arena_strdup(&t->arena, verdict, strlen(verdict)),
                       .item = item};
    bool good = made.probe && made.prompt && made.answer && made.verdict &&
                tm__grow((void **)&t->answers, &t->answer_cap, t->answer_count + 1, sizeof *t->answers);
    if (good)
        t->answers[t->answer_count++] = made;
    else
        t->full = true;
}

void tm__trace_release(tm__trace *t) {
    free(t->metrics);
    free(t->answers);
    tm__arena_release(&t->arena);
    *t = (tm__trace){0};
}
