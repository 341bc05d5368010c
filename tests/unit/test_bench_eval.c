/* tm_bench_eval: lengths of its items, what it counts and how it splits the time, what it leaves behind. */
#include "support.h"

#include "lab/bench.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

static tm_bench_eval_options tiny_bench(void) {
    tm_bench_eval_options o;
    tm_options_default(tm_bench_eval_option_table, &o);
    assert_ok(tm_options_set(tm_bench_eval_option_table, &o, "shape", "tiny"));
    o.items = 3;
    o.question = 30;
    o.choices = 2;
    o.answer = 5;
    o.repeats = 2;
    return o;
}

/* fail_at: which allocation fails; 0: none. */
static tm_status bench_failing(const tm_bench_eval_options *o, const tm_monitor *monitor, long fail_at,
                               tm_bench_eval_report *report) {
    const tm_device_options where = {.name = "cpu", .threads = 1};
    tm_device *device = NULL;
    assert_ok(tm_device_open(&where, &device));
    tm__alloc_fail_at(fail_at, false);
    tm_status status = tm_bench_eval(device, o, monitor, report);
    tm__alloc_fail_at(0, false);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    return status;
}

static tm_status bench(const tm_bench_eval_options *o, const tm_monitor *monitor, tm_bench_eval_report *report) {
    return bench_failing(o, monitor, 0, report);
}

static void counts(void **state) {
    (void)state;
    tm_bench_eval_options o = tiny_bench();
    tm_bench_eval_report r;
    assert_ok(bench(&o, NULL, &r));
    assert_int_equal(r.tokens, 3 * 2 * 35);
    /* The last token of an answer is fed to nobody. Questions begin alike with "Question: " only, which is not worth a
     * call of its own. */
    assert_int_equal(r.fed, 3 * (30 + 2 * 4));
    assert_string_equal(r.dtype, "fp32");
    assert_true(r.run.count == 2 && r.read.count == 2 && r.encode.count == 2 && r.score.count == 2);
    for (int i = 0; i < 2; i++) {
        double parts = r.read.seconds[i] + r.encode.seconds[i] + r.score.seconds[i];
        assert_true(r.encode.seconds[i] > 0 && r.score.seconds[i] > 0);
        assert_true(fabs(parts - r.run.seconds[i]) < 1e-9);
    }
    double blocks = 2 * (32.0 * (2 * 32 + 2 * 16 + 3 * 64) + 32 * 35);
    double operations = 2 * (114 * blocks + 3 * (1 + 2 * 4) * 32 * 512.0);
    assert_true(fabs(r.figures.flops * r.run.median / operations - 1) < 1e-9);
    assert_true(fabs(r.items * r.run.median - 3) < 1e-9 && fabs(r.figures.tokens * r.run.median - 210) < 1e-6);
    assert_int_equal(r.frame.products.count, 2);
    assert_true(r.figures.share > 0);
    tm_bench_eval_report_release(&r);
}

static int entries(const char *path) {
    int n = 0;
    DIR *directory = opendir(path);
    assert_non_null(directory);
    while (readdir(directory)) n++;
    closedir(directory);
    return n;
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void refusals_leave_nothing_behind(void **state) {
    (void)state;
    char directory[] = "/tmp/test-bench-eval-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
    setenv("TMPDIR", directory, 1);
    tm_bench_eval_options o = tiny_bench();
    tm_bench_eval_report r;
    const tm_monitor stop = {.stop = always};
    assert_int_equal(bench(&o, &stop, &r), TM_INTERRUPTED);
    o.question = 23;
    assert_int_equal(bench(&o, NULL, &r), TM_INVALID);
    o = tiny_bench();
    o.config = o.model = "nowhere";
    assert_int_equal(bench(&o, NULL, &r), TM_INVALID);
    o.config = NULL;
    assert_int_equal(bench(&o, NULL, &r), TM_NOT_FOUND);
    o.model = NULL;
    o.config = test_path("golden/repnoise/config.json"); /* a vocabulary of 29 */
    assert_int_equal(bench(&o, NULL, &r), TM_UNSUPPORTED);
    for (long n = 1;; n += 23) {
        o = tiny_bench();
        o.repeats = 1;
        tm_status status = bench_failing(&o, NULL, n, &r);
        if (status == TM_OK) break;
        assert_int_equal(status, TM_NO_MEMORY);
    }
    tm_bench_eval_report_release(&r);
    assert_int_equal(entries(directory), 2); /* . and .. */
    if (before)
        setenv("TMPDIR", before, 1);
    else
        unsetenv("TMPDIR");
    free(before);
    assert_int_equal(rmdir(directory), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(refusals_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
