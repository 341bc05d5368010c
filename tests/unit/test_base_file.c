/* Files: reading, mapping, the writer, replacing one file, directories, and output directories that appear whole. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Path below this program's scratch directory; four in turn. */
static const char *at(const char *name) {
    static char paths[4][512];
    static int next;
    static const char *root;
    if (!root) root = test_scratch();
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static void put(const char *path, const char *text) {
    assert_ok(tm__file_write(path, text, strlen(text)));
}

static void expect_file(const char *path, const char *text) {
    char *data;
    size_t len;
    assert_ok(tm__file_read(path, 0, &data, &len));
    assert_int_equal(len, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

/* How many names a directory holds, "." and ".." not counted. */
static int names_in(const char *path) {
    DIR *directory = opendir(path);
    assert_non_null(directory);
    int n = -2;
    while (readdir(directory)) n++;
    closedir(directory);
    return n;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

static void read_and_map(void **state) {
    (void)state;
    char *data = NULL;
    size_t len;
    tm__mapping mapping;
    put(at("a"), "hello");
    expect_file(at("a"), "hello");
    assert_ok(tm__file_read(at("a"), 5, &data, &len));
    free(data);
    data = NULL;
    assert_int_equal(tm__file_read(at("a"), 4, &data, &len), TM_FORMAT);
    assert_int_equal(tm__file_read(at("none"), 0, &data, &len), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->file, at("none"));
    assert_int_equal(tm__file_read(at("a/b"), 0, &data, &len), TM_NOT_FOUND);
    assert_int_equal(tm__file_read(at(""), 0, &data, &len), TM_IO);
    assert_null(data);
    assert_ok(tm__file_read("/proc/self/status", 0, &data, &len)); /* says size 0 and is not empty */
    assert_true(len > 100 && strlen(data) == len);
    free(data);
    assert_int_equal(tm__file_read("/dev/zero", 10000, &data, &len), TM_FORMAT);
    assert_ok(tm__file_map(at("a"), &mapping));
    assert_int_equal(mapping.len, 5);
    assert_memory_equal(mapping.data, "hello", 5);
    tm__file_unmap(&mapping);
    assert_null(mapping.data);
    put(at("empty"), "");
    expect_file(at("empty"), "");
    assert_ok(tm__file_map(at("empty"), &mapping));
    assert_true(!mapping.data && !mapping.len);
    tm__file_unmap(&mapping);
    assert_int_equal(tm__file_map("/dev/zero", &mapping), TM_IO);
    assert_int_equal(tm__file_map(at("none"), &mapping), TM_NOT_FOUND);
    assert_int_equal(tm__file_map(at(""), &mapping), TM_IO);
}

static void write_whole_or_not(void **state) {
    (void)state;
    assert_ok(tm__make_directories(at("whole")));
    put(at("whole/f"), "one");
    put(at("whole/f"), "three");
    expect_file(at("whole/f"), "three");
    assert_int_equal(names_in(at("whole")), 1);
    assert_int_equal(tm__file_write(at("nowhere/f"), "x", 1), TM_IO);
    assert_string_equal(tm_error_last()->file, at("nowhere/f"));
    assert_non_null(strstr(tm_error_last()->message, "No such file"));
    assert_ok(tm__make_directories(at("whole/d/e")));
    assert_int_equal(tm__file_write(at("whole/d"), "x", 1), TM_IO); /* a directory stands there */
    assert_int_equal(names_in(at("whole")), 2);
}

/* Processes that write one file at once, killed at any moment: it is always one writer's whole text, the next write
 * goes through, and nothing stays beside it. */
static void writers_share_a_name(void **state) {
    (void)state;
    enum { WRITERS = 3, TEXT = 300000 };
    assert_ok(tm__make_directories(at("shared")));
    char path[512], *text = tm__alloc(TEXT, 1), *data;
    size_t len;
    snprintf(path, sizeof path, "%s", at("shared/f"));
    put(path, "");
    tm__rng r = tm__rng_make(8, tm__stream(TM__STREAM_TEST, 6));
    for (int round = 0; round < 30; round++) {
        pid_t child[WRITERS];
        for (int i = 0; i < WRITERS; i++) {
            child[i] = fork();
            assert_true(child[i] >= 0);
            memset(text, 'a' + i, TEXT);
            while (child[i] == 0)
                if (tm__file_write(path, text, TEXT) != TM_OK) _exit(1);
        }
        usleep((useconds_t)(20000 * tm__rng_uniform(&r)));
        for (int i = 0; i < WRITERS; i++) {
            int status;
            kill(child[i], SIGKILL);
            assert_int_equal(waitpid(child[i], &status, 0), child[i]);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        }
        assert_ok(tm__file_read(path, 0, &data, &len));
        assert_true(len == TEXT || len == 0);
        for (size_t i = 1; i < len; i++) assert_int_equal(data[i], data[0]);
        free(data);
    }
    put(path, "end");
    expect_file(path, "end");
    assert_int_equal(names_in(at("shared")), 1);
    free(text);
}

static void writer_streams(void **state) {
    (void)state;
    enum { N = 700001 };
    tm__writer w;
    uint8_t *bytes = tm__alloc(N, 1);
    tm__rng r = tm__rng_make(6, 0);
    char *data;
    size_t len;
    for (int i = 0; i < N; i++) bytes[i] = (uint8_t)tm__rng_u32(&r);
    assert_ok(tm__writer_open(&w, at("stream")));
    for (size_t done = 0, step = 1; done < N; done += step, step = step * 3 % 300007)
        tm__writer_put(&w, bytes + done, step = TM__MIN(step, N - done));
    tm__writer_put(&w, NULL, 0);
    assert_ok(tm__writer_close(&w));
    assert_ok(tm__writer_close(&w)); /* twice is once */
    assert_ok(tm__file_read(at("stream"), 0, &data, &len));
    assert_int_equal(len, N);
    assert_memory_equal(data, bytes, N);
    free(data);
    free(bytes);
    assert_int_equal(tm__writer_open(&w, at("nowhere/x")), TM_IO);
    assert_ok(tm__writer_close(&w));
}

static void full_disk(void **state) {
    (void)state;
    static const char block[1 << 20];
    tm__writer w;
    assert_ok(tm__writer_open(&w, "/dev/full"));
    tm__writer_put(&w, "x", 1); /* still in the buffer: only close can know */
    assert_int_equal(tm__writer_close(&w), TM_IO);
    assert_string_equal(tm_error_last()->file, "/dev/full");
    assert_non_null(strstr(tm_error_last()->message, "No space left"));
    assert_ok(tm__writer_open(&w, "/dev/full"));
    for (int i = 0; i < 10; i++) tm__writer_put(&w, block, sizeof block);
    assert_int_equal(w.error, ENOSPC);
    assert_int_equal(tm__writer_close(&w), TM_IO);
    assert_ok(tm__writer_open(&w, "/dev/null"));
    tm__writer_put(&w, block, sizeof block);
    assert_ok(tm__writer_close(&w));
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

static void paths(void **state) {
    (void)state;
    static const char *const cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        char *joined = tm__path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
    assert_true(tm__path_exists("/") && tm__path_is_directory("/") && !tm__path_is_directory("/dev/null"));
    assert_false(tm__path_exists(at("nothing")));
}

static void make_and_remove(void **state) {
    (void)state;
    assert_ok(tm__make_directories(at("m/n//o/")));
    assert_ok(tm__make_directories(at("m/n/o")));
    put(at("m/n/o/f"), "x");
    put(at("outside"), "kept");
    assert_int_equal(symlink(at("outside"), at("m/link")), 0);
    assert_int_equal(symlink(at(""), at("m/n/up")), 0);
    assert_int_equal(tm__make_directories(at("outside/x")), TM_IO);
    if (tm__path_is_directory("/sys/kernel")) { /* nobody may make directories there; the reason must be told */
        assert_int_equal(tm__make_directories("/sys/kernel/temper-test"), TM_IO);
        assert_null(strstr(tm_error_last()->message, strerror(ENOENT)));
    }
    assert_ok(tm__remove_tree(at("m")));
    assert_false(tm__path_exists(at("m")));
    expect_file(at("outside"), "kept"); /* links are not followed */
    assert_ok(tm__remove_tree(at("m")));
    assert_ok(tm__remove_tree(at("outside")));
    assert_false(tm__path_exists(at("outside")));
}

/* ---- output directories ------------------------------------------------------------------------------------------ */

static tm_status make_output(const char *target, bool overwrite, const char *text) {
    tm__outdir out;
    TM__TRY(tm__outdir_begin(&out, target, overwrite));
    char *sub = tm__path_join(out.aside, "sub"), *file = tm__path_join(out.aside, "sub/f");
    assert_ok(tm__make_directories(sub));
    put(file, text);
    free(sub);
    free(file);
    return tm__outdir_commit(&out);
}

static void outdir_appears(void **state) {
    (void)state;
    assert_ok(make_output(at("out/deep/model"), false, "one"));
    expect_file(at("out/deep/model/sub/f"), "one");
    assert_int_equal(make_output(at("out/deep/model"), false, "two"), TM_EXISTS);
    assert_string_equal(tm_error_last()->file, at("out/deep/model"));
    expect_file(at("out/deep/model/sub/f"), "one");
    assert_ok(make_output(at("out/deep/model//"), true, "two"));
    expect_file(at("out/deep/model/sub/f"), "two");
    assert_ok(make_output(at("out/deep/other"), true, "three"));
    assert_int_equal(names_in(at("out/deep")), 2);
    struct stat info;
    assert_int_equal(stat(at("out/deep/model"), &info), 0);
    assert_true(info.st_mode & S_IRUSR);
}

/* An empty directory is as good as none; one that gets a file meanwhile is not. */
static void outdir_empty(void **state) {
    (void)state;
    assert_ok(tm__make_directories(at("vacant/x")));
    assert_true(tm__path_is_empty_directory(at("vacant/x")));
    assert_false(tm__path_is_empty_directory(at("vacant")));
    assert_false(tm__path_is_empty_directory(at("vacant/none")));
    assert_ok(make_output(at("vacant/x"), false, "one"));
    expect_file(at("vacant/x/sub/f"), "one");
    assert_int_equal(names_in(at("vacant")), 1);
    assert_ok(tm__make_directories(at("vacant/y")));
    tm__outdir out;
    assert_ok(tm__outdir_begin(&out, at("vacant/y"), false));
    put(at("vacant/y/theirs"), "kept");
    assert_int_equal(tm__outdir_commit(&out), TM_EXISTS);
    expect_file(at("vacant/y/theirs"), "kept");
    assert_int_equal(names_in(at("vacant")), 2);
}

static void outdir_refuses(void **state) {
    (void)state;
    tm__outdir out = {0};
    static const char *const names[] = {"/", ".", "..", "", "/tmp/."};
    for (size_t i = 0; i < TM__COUNT(names); i++) assert_int_equal(tm__outdir_begin(&out, names[i], true), TM_INVALID);
    put(at("file"), "x");
    assert_int_equal(tm__outdir_begin(&out, at("file"), true), TM_EXISTS);
    assert_int_equal(tm__outdir_begin(&out, at("file/below"), true), TM_IO);
    assert_int_equal(tm__outdir_begin(&out, "/proc", true), TM_UNSUPPORTED); /* a mount point */
    assert_null(out.aside);
    tm__outdir_abandon(&out);
    expect_file(at("file"), "x");
}

static void outdir_abandon(void **state) {
    (void)state;
    tm__outdir out;
    assert_ok(tm__make_directories(at("ab")));
    assert_ok(tm__outdir_begin(&out, at("ab/x"), false));
    char *file = tm__path_join(out.aside, "f");
    put(file, "x");
    free(file);
    assert_int_equal(names_in(at("ab")), 1);
    tm__fail(TM_NUMERIC, NULL, NULL, NULL, "the reason");
    tm__outdir_abandon(&out);
    assert_string_equal(tm_error_last()->line, "the reason");
    assert_int_equal(names_in(at("ab")), 0);
    tm__outdir_abandon(&out);
}

/* Somebody else makes the target between begin and commit: nothing of theirs is lost. */
static void outdir_race(void **state) {
    (void)state;
    tm__outdir slow;
    assert_ok(tm__outdir_begin(&slow, at("race/x"), false));
    assert_ok(make_output(at("race/x"), false, "first"));
    assert_int_equal(tm__outdir_commit(&slow), TM_EXISTS);
    expect_file(at("race/x/sub/f"), "first");
    assert_int_equal(names_in(at("race")), 1);
    assert_ok(tm__outdir_begin(&slow, at("race/x"), true)); /* it vanishes: the commit takes the free name */
    assert_ok(tm__remove_tree(at("race/x")));
    assert_ok(tm__outdir_commit(&slow));
    assert_int_equal(names_in(at("race")), 1);
}

static void outdir_link(void **state) {
    (void)state;
    assert_ok(make_output(at("real/x"), false, "one"));
    assert_int_equal(symlink(at("real/x"), at("link")), 0);
    assert_ok(make_output(at("link"), true, "two"));
    expect_file(at("real/x/sub/f"), "two");
    struct stat info;
    assert_true(lstat(at("link"), &info) == 0 && S_ISLNK(info.st_mode));
}

/* Leftovers of the dead go, those of the living and other people's files stay. */
static void outdir_leftovers(void **state) {
    (void)state;
    tm__outdir alive;
    assert_ok(tm__make_directories(at("left/.x.tmp-999999999-0/sub")));
    assert_ok(tm__make_directories(at("left/.x.tmp-1-7"))); /* process 1 lives, but not as this one's owner */
    assert_ok(tm__make_directories(at("left/.x.tmp-1-7b")));
    assert_ok(tm__make_directories(at("left/.xy.tmp-1-7")));
    assert_ok(tm__outdir_begin(&alive, at("left/x"), false));
    assert_ok(make_output(at("left/x"), false, "one"));
    assert_true(tm__path_exists(alive.aside));
    assert_int_equal(names_in(at("left")), 4); /* x, the living one, the two of other names */
    assert_true(tm__path_exists(at("left/.x.tmp-1-7b")) && tm__path_exists(at("left/.xy.tmp-1-7")));
    tm__outdir_abandon(&alive);
}

static void outdir_out_of_memory(void **state) {
    (void)state;
    assert_ok(make_output(at("oom/x"), false, "one"));
    bool made = false;
    for (long n = 1; !made; n++) {
        tm__outdir out = {0};
        tm__alloc_fail_at(n, false);
        tm_status status = tm__outdir_begin(&out, at("oom/x"), true);
        if (status == TM_OK) status = tm__outdir_commit(&out);
        tm__alloc_fail_at(0, false);
        made = status == TM_OK;
        assert_true(made || status == TM_NO_MEMORY);
        assert_int_equal(names_in(at("oom")), 1);
        if (!made) expect_file(at("oom/x/sub/f"), "one");
        assert_true(n < 100);
    }
}

/* ---- kill -9 ----------------------------------------------------------------------------------------------------- */

enum { FILES = 4, KILLS = 200 };

/* Replaces the directory with version after version until it is killed. All files of a version say its number. */
static void replace_for_ever(const char *target, int version) {
    for (;; version++) {
        tm__outdir out;
        char text[5000], name[64];
        memset(text, 'a' + version % 26, sizeof text);
        snprintf(text, sizeof text, "%d", version);
        if (tm__outdir_begin(&out, target, true) != TM_OK) _exit(1);
        for (int i = 0; i < FILES; i++) {
            tm__writer w;
            snprintf(name, sizeof name, "f%d", i);
            char *path = tm__path_join(out.aside, name);
            if (!path || tm__writer_open(&w, path) != TM_OK) _exit(1);
            tm__writer_put(&w, text, sizeof text);
            if (tm__writer_close(&w) != TM_OK) _exit(1);
            free(path);
        }
        if (tm__outdir_commit(&out) != TM_OK) _exit(1);
    }
}

/* The version that stands at the target; fails the test unless it is one, and whole. */
static int whole_version(const char *target) {
    int version = -1;
    assert_int_equal(names_in(target), FILES);
    for (int i = 0; i < FILES; i++) {
        char name[64], *data;
        size_t len;
        snprintf(name, sizeof name, "f%d", i);
        char *path = tm__path_join(target, name);
        assert_ok(tm__file_read(path, 0, &data, &len));
        assert_int_equal(len, 5000);
        int seen = (int)strtol(data, NULL, 10);
        assert_int_equal(data[4999], 'a' + seen % 26);
        assert_true(version == -1 || version == seen);
        version = seen;
        free(data);
        free(path);
    }
    return version;
}

/* Seconds that one replacement takes here and now. */
static double replacement_seconds(const char *target) {
    double start = tm__now();
    for (int i = 0; i < 10; i++) assert_ok(make_output(target, true, "x"));
    double seconds = (tm__now() - start) / 10;
    assert_ok(tm__remove_tree(target));
    return seconds;
}

static void outdir_survives_kill(void **state) {
    (void)state;
    char target[512], parent[512];
    snprintf(parent, sizeof parent, "%s", at("kill"));
    snprintf(target, sizeof target, "%s", at("kill/model"));
    tm__rng r = tm__rng_make(7, tm__stream(TM__STREAM_TEST, 5));
    double longest = 4 * replacement_seconds(target) + 0.002, deadline = tm__now() + 8;
    int version = 0, moved = 0, kills = 0;
    for (; kills < KILLS && tm__now() < deadline; kills++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) replace_for_ever(target, version + 1);
        usleep((useconds_t)(1e6 * longest * tm__rng_uniform(&r)));
        int status;
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* it never failed by itself */
        if (!tm__path_exists(target)) {
            assert_int_equal(version, 0); /* once there, it stays */
            continue;
        }
        int now = whole_version(target);
        assert_true(now >= version);
        moved += now > version;
        version = now;
    }
    assert_true(moved > kills / 10); /* the kills hit work, not sleep */
    tm__outdir out;
    assert_ok(tm__outdir_begin(&out, target, true));
    tm__outdir_abandon(&out);
    assert_int_equal(names_in(parent), 1); /* and nothing is left lying about */
    print_message("%d kills, %d of them after progress, last version %d\n", kills, moved, version);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_and_map),
        cmocka_unit_test(write_whole_or_not),
        cmocka_unit_test(writer_streams),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(paths),
        cmocka_unit_test(make_and_remove),
        cmocka_unit_test(outdir_appears),
        cmocka_unit_test(outdir_empty),
        cmocka_unit_test(outdir_refuses),
        cmocka_unit_test(outdir_abandon),
        cmocka_unit_test(outdir_race),
        cmocka_unit_test(outdir_link),
        cmocka_unit_test(writers_share_a_name),
        cmocka_unit_test(outdir_leftovers),
        cmocka_unit_test(outdir_out_of_memory),
        cmocka_unit_test(outdir_survives_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
