/* The result store: what is put is found again, whole or not at all; damage, versions, a full disk, other processes. */
#include "support.h"

#include "lab/sheet.h"
#include "lab/store.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char names[][TM__SCORE_NAME] = {"leak", "skills", "third"};
static double values[] = {0.1, 1.0 / 3, 0};
static const tm__scores scores = {3, names, values};

static tm__store *open_in(const char *directory) {
    tm__store *store = NULL;
    assert_ok(tm__store_open(directory, true, &store));
    return store;
}

static tm_status put(tm__store *store, const char *key, const char *error, const tm__trace *trace) {
    const tm__job_end end = {.key = key,
                             .kind = "cell",
                             .name = "a cell",
                             .error = error,
                             .seconds = 2,
                             .cpu_seconds = 1.5,
                             .peak_mib = 64,
                             .setup = "here"};
    return tm__store_put(store, &end, &scores, trace);
}

static tm_status get(tm__store *store, const char *key, tm__job_end *end, tm__scores *found) {
    static char found_names[TM__RECORD_SCORES][TM__SCORE_NAME];
    static double found_values[TM__RECORD_SCORES];
    *found = (tm__scores){.names = found_names, .values = found_values};
    return tm__store_get(store, key, end, found);
}

static void assert_there(tm__store *store, const char *key) {
    tm__job_end end;
    tm__scores found;
    assert_ok(get(store, key, &end, &found));
    assert_true(end.seconds == 2 && end.cpu_seconds == 1.5 && end.peak_mib == 64);
    assert_int_equal(found.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(found.names[i], names[i]);
        assert_true(found.values[i] == values[i]);
    }
}

static void assert_absent(tm__store *store, const char *key) {
    tm__job_end end;
    tm__scores found;
    assert_int_equal(get(store, key, &end, &found), TM_NOT_FOUND);
}

static tm_status count_row(void *user, int columns, const char *const *columns_names, const char *const *row) {
    (void)columns;
    (void)columns_names;
    *(int *)user = (int)strtol(row[0], NULL, 10);
    return TM_OK;
}

static int count(tm__store *store, const char *table) {
    char sql[256];
    int n = -1;
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    assert_ok(tm__store_query(store, sql, NULL, 0, count_row, &n));
    return n;
}

static void meddle(const char *directory, const char *sql) {
    char *path = tm__path_join(directory, "store.db");
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    free(path);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *directory = test_scratch();
    tm__store *store = open_in(directory);
    assert_absent(store, "one");
    assert_ok(put(store, "one", NULL, NULL));
    assert_ok(put(store, "two", "it failed", NULL));
    tm__store_close(store);
    store = open_in(directory);
    assert_there(store, "one");
    assert_absent(store, "two"); /* failed: still to be done */
    assert_ok(put(store, "two", NULL, NULL));
    assert_ok(put(store, "two", NULL, NULL)); /* in place of the old */
    assert_there(store, "two");
    assert_int_equal(count(store, "job"), 2);
    assert_int_equal(count(store, "score"), 6);
    tm__store_close(store);
}

static void progress(tm__trace *trace, const char *phase, const char *unit, int64_t done, double loss) {
    tm__trace_progress(trace, &(tm_progress){.phase = phase, .unit = unit, .done = done, .loss = loss, .lr = NAN});
}

/* A step that is not behind the last, or of another phase, begins another training; what has no loss is none. */
static void test_trace(void **state) {
    (void)state;
    tm__store *store = open_in(test_scratch());
    tm__trace trace = {0};
    progress(&trace, "train", "step", 1, 3);
    progress(&trace, "train", "step", 2, 2.5);
    progress(&trace, "generate", "prompt", 9, NAN);
    progress(&trace, "train", "step", 1, 2);
    progress(&trace, "defend", "step", 2, 1);
    assert_int_equal(trace.metric_count, 4);
    static const int64_t parts[] = {0, 0, 1, 2};
    for (size_t i = 0; i < 4; i++) assert_int_equal(trace.metrics[i].part, parts[i]);
    tm__trace_answer(&trace, "set", 7, "prompt \xc3\xa9", "answer 'x'", "right");
    assert_ok(put(store, "one", NULL, &trace));
    assert_int_equal(count(store, "metric"), 4);
    assert_int_equal(count(store, "answer WHERE item = 7 AND answer = 'answer ''x'''"), 1);
    assert_int_equal(count(store, "metric WHERE part = 2 AND lr IS NULL AND loss = 1"), 1);
    assert_ok(put(store, "one", NULL, NULL));
    assert_int_equal(count(store, "metric"), 0);
    tm__trace_release(&trace);
    tm__store_close(store);
}

/* A score that was changed, lost or added behind the store's back is found out. */
static void test_damaged_cell(void **state) {
    (void)state;
    static const char *const damage[] = {"UPDATE score SET value = value + 1e-12 WHERE key = 'one' AND place = 1",
                                         "UPDATE score SET name = 'comply' WHERE key = 'one' AND place = 0",
                                         "DELETE FROM score WHERE key = 'one' AND place = 2",
                                         "INSERT INTO score VALUES ('one', 3, 'more', 1)",
                                         "UPDATE job SET digest = '' WHERE key = 'one'"};
    for (size_t i = 0; i < TM__COUNT(damage); i++) {
        const char *directory = test_scratch();
        tm__store *store = open_in(directory);
        assert_ok(put(store, "one", NULL, NULL));
        assert_ok(put(store, "two", NULL, NULL));
        meddle(directory, damage[i]);
        assert_absent(store, "one");
        assert_there(store, "two");
        tm__store_close(store);
    }
}

static void test_versions(void **state) {
    (void)state;
    const char *directory = test_scratch();
    tm__store *store = open_in(directory);
    assert_ok(put(store, "one", NULL, NULL));
    tm__store_close(store);
    meddle(directory, "PRAGMA user_version = 99");
    assert_int_equal(tm__store_open(directory, true, &store), TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->field, "user_version");
    meddle(directory, "PRAGMA user_version = 1");
    store = open_in(directory);
    assert_there(store, "one");
    tm__store_close(store);
    /* an empty file is a store of version 0: it is brought up to date */
    const char *other = test_scratch();
    char *path = tm__path_join(other, "store.db");
    assert_ok(tm__file_write(path, "", 0));
    store = open_in(other);
    assert_ok(put(store, "one", NULL, NULL));
    assert_there(store, "one");
    tm__store_close(store);
    free(path);
}

static void test_bad_files(void **state) {
    (void)state;
    tm__store *store = NULL;
    const char *directory = test_scratch();
    char *path = tm__path_join(directory, "store.db"), text[8192];
    assert_int_equal(tm__store_open(directory, false, &store), TM_NOT_FOUND);
    assert_false(tm__path_exists(path));
    memset(text, 'x', sizeof text);
    assert_ok(tm__file_write(path, text, sizeof text));
    assert_int_equal(tm__store_open(directory, true, &store), TM_FORMAT);
    assert_string_equal(tm_error_last()->file, path);
    free(path);
    assert_int_equal(tm__store_open("/nowhere/at/all", true, &store), TM_IO);
}

/* What does not fit is not there, and what was there still is. Runs in a child: the limit is the process's. */
static void test_full_disk(void **state) {
    (void)state;
    const char *directory = test_scratch();
    tm__store *store = open_in(directory);
    assert_ok(put(store, "one", NULL, NULL));
    tm__store_close(store);
    pid_t child = fork();
    if (child == 0) {
        tm__trace trace = {0};
        char *text = calloc(1, 200001);
        memset(text, 'a', 200000);
        signal(SIGXFSZ, SIG_IGN);
        if (tm__store_open(directory, true, &store) != TM_OK) _exit(1);
        const struct rlimit limit = {100000, 100000};
        setrlimit(RLIMIT_FSIZE, &limit);
        tm__trace_answer(&trace, "set", 0, text, text, "right");
        if (put(store, "two", NULL, &trace) != TM_IO) _exit(2);
        tm__job_end end;
        tm__scores found;
        if (get(store, "one", &end, &found) != TM_OK) _exit(3);
        _exit(get(store, "two", &end, &found) == TM_NOT_FOUND ? 0 : 4);
    }
    int how;
    waitpid(child, &how, 0);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    store = open_in(directory);
    assert_there(store, "one");
    assert_absent(store, "two");
    tm__store_close(store);
}

/* Whoever may only read finds what is there: 0, else a number that tells what went wrong. Root may write everywhere, so
 * it becomes somebody else. */
static int read_as_guest(const char *directory) {
    tm__store *store = NULL;
    tm__job_end end;
    tm__scores found;
    if (geteuid() == 0 && setreuid(65534, 65534) != 0) return 1;
    if (access(directory, W_OK) == 0) return 2;
    if (tm__store_open(directory, false, &store) != TM_OK) return 3;
    if (get(store, "one", &end, &found) != TM_OK) return 4;
    if (put(store, "two", NULL, NULL) != TM_IO || !strstr(tm_error_last()->hint, "writable")) return 5;
    tm__store_close(store);
    return tm__store_open(directory, true, &store) == TM_IO ? 0 : 6;
}

static void test_unwritable(void **state) {
    (void)state;
    char *directory = tm__path_join(test_scratch(), "50% of \"what?\" #1");
    assert_non_null(directory);
    assert_ok(tm__make_directories(directory));
    tm__store *store = open_in(directory);
    assert_ok(put(store, "one", NULL, NULL));
    tm__store_close(store);
    char *path = tm__path_join(directory, "store.db"), *log = tm__path_join(directory, "store.db-wal"), *above;
    above = tm__strndup(directory, (size_t)(strrchr(directory, '/') - directory));
    assert_true(path && log && above);
    assert_int_equal(chmod(above, 0755), 0);
    for (int with_log = 0; with_log < 2; with_log++) { /* which may hold the last of it: refused */
        if (with_log) assert_ok(tm__file_write(log, "a page", 6));
        assert_int_equal(chmod(path, 0444), 0);
        assert_int_equal(chmod(directory, 0555), 0);
        pid_t child = fork();
        if (child == 0) _exit(read_as_guest(directory));
        int how;
        waitpid(child, &how, 0);
        assert_int_equal(chmod(directory, 0755), 0);
        assert_true(WIFEXITED(how));
        assert_int_equal(WEXITSTATUS(how), with_log ? 3 : 0);
    }
    free(above);
    free(log);
    free(path);
    free(directory);
}

enum { WRITERS = 4, EACH = 25 };

/* Several processes write at a time, some are killed: every job that is there is whole. */
static void test_writers(void **state) {
    (void)state;
    const char *directory = test_scratch();
    pid_t children[WRITERS];
    tm__store *store = open_in(directory);
    for (int w = 0; w < WRITERS; w++) {
        children[w] = fork();
        if (children[w]) continue;
        tm__store *own = NULL;
        if (tm__store_open(directory, true, &own) != TM_OK) _exit(1);
        for (int i = 0; i < EACH; i++) {
            char key[32];
            snprintf(key, sizeof key, "%d-%d", w, i);
            if (put(own, key, NULL, NULL) != TM_OK) _exit(2);
        }
        _exit(0);
    }
    kill(children[0], SIGKILL);
    for (int w = 0; w < WRITERS; w++) {
        int how;
        waitpid(children[w], &how, 0);
        if (w > 0) assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    int jobs = count(store, "job");
    assert_in_range(jobs, (WRITERS - 1) * EACH, WRITERS * EACH);
    assert_int_equal(count(store, "score"), 3 * jobs);
    for (int w = 1; w < WRITERS; w++)
        for (int i = 0; i < EACH; i++) {
            char key[32];
            snprintf(key, sizeof key, "%d-%d", w, i);
            assert_there(store, key);
        }
    tm__store_close(store);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void expect_sheet(const tm__sheet *sheet, int form, const char *want) {
    tm__string out = {0};
    assert_ok(tm__sheet_write(sheet, form, &out));
    assert_string_equal(out.data, want);
    tm__string_free(&out);
}

static void test_sheet(void **state) {
    (void)state;
    tm__sheet sheet = {0};
    tm__sheet_column(&sheet, "name", TM__CELL_TEXT, 0);
    tm__sheet_column(&sheet, "a_b", TM__CELL_NUMBER, 1);
    tm__sheet_column(&sheet, "mean", TM__CELL_MEAN, 2);
    tm__sheet_text(&sheet, "x, \"y\" | 5%");
    tm__sheet_number(&sheet, 0.25);
    tm__sheet_mean(&sheet, 0.5, 0.125, 3);
    tm__sheet_text(&sheet, NULL);
    tm__sheet_number(&sheet, NAN);
    tm__sheet_mean(&sheet, 1, NAN, 1);
    tm__sheet_text(&sheet, "\xc3\xa9");
    tm__sheet_number(&sheet, -3);
    tm__sheet_mean(&sheet, 0, 0, 0);
    assert_int_equal(tm__sheet_rows(&sheet), 3);
    expect_sheet(&sheet, TM_RESULTS_TEXT,
                 "name          a_b         mean\n"
                 "x, \"y\" | 5%   0.2  0.50 ± 0.12\n"
                 "                          1.00\n"
                 "é            -3.0\n");
    expect_sheet(&sheet, TM_RESULTS_MARKDOWN,
                 "| name | a_b | mean |\n|---|---:|---:|\n| x, \"y\" \\| 5% | 0.2 | 0.50 ± 0.12 |\n"
                 "| | | 1.00 |\n| é | -3.0 | |\n");
    expect_sheet(&sheet, TM_RESULTS_CSV,
                 "name,a_b,mean,mean_half,mean_n\n\"x, \"\"y\"\" | 5%\",0.25,0.5,0.125,3\n,,1,,1\né,-3,,0,0\n");
    expect_sheet(&sheet, TM_RESULTS_JSON,
                 "[{\"name\":\"x, \\\"y\\\" | 5%\",\"a_b\":0.25,\"mean\":0.5,\"mean_half\":0.125,\"mean_n\":3},"
                 "{\"name\":null,\"a_b\":null,\"mean\":1.0,\"mean_half\":null,\"mean_n\":1},"
                 "{\"name\":\"é\",\"a_b\":-3.0,\"mean\":null,\"mean_half\":0.0,\"mean_n\":0}]\n");
    expect_sheet(
        &sheet, TM_RESULTS_LATEX,
        "% needs \\usepackage{booktabs}\n\\begin{tabular}{lrr}\n\\toprule\nname & a\\_b & mean \\\\\n\\midrule\n"
        "x, \"y\" | 5\\% & $0.2$ & $0.50 \\pm 0.12$ \\\\\n &  & $1.00$ \\\\\né & $-3.0$ &  \\\\\n"
        "\\bottomrule\n\\end{tabular}\n");
    tm__string out = {0};
    assert_int_equal(tm__sheet_write(&sheet, 9, &out), TM_INVALID);
    tm__sheet_release(&sheet);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_trace),     cmocka_unit_test(test_damaged_cell),
        cmocka_unit_test(test_versions),   cmocka_unit_test(test_bad_files), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_unwritable), cmocka_unit_test(test_writers),   cmocka_unit_test(test_sheet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
