/* tm_bench_generate: what it counts, that batches and threads change no token, what it refuses and leaves behind. */
#include "support.h"

#include "device/device.h"
#include "lab/bench.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

static tm_bench_generate_options tiny_bench(void) {
    tm_bench_generate_options o;
    tm_options_default(tm_bench_generate_option_table, &o);
    assert_ok(tm_options_set(tm_bench_generate_option_table, &o, "shape", "tiny"));
    o.prompts = 5;
    o.length = 12;
    o.new_tokens = 7;
    o.alone = 3;
    o.repeats = 2;
    return o;
}

static tm_status bench(const tm_bench_generate_options *o, int threads, const tm_monitor *monitor,
                       tm_bench_generate_report *report) {
    const tm_device_options where = {.name = "cpu", .threads = threads};
    tm_device *device = NULL;
    assert_ok(tm_device_open(&where, &device));
    tm_status status = tm_bench_generate(device, o, monitor, report);
    tm_device_close(device);
    return status;
}

static void counts(void **state) {
    (void)state;
    tm_bench_generate_options o = tiny_bench();
    tm_bench_generate_report r;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        o.weights = bf16;
        assert_ok(bench(&o, 1, NULL, &r));
        assert_string_equal(r.dtype, bf16 ? "bf16" : "fp32");
        assert_int_equal(r.weight_bytes,
                         r.frame.model.parameters * (bf16 ? 2 : 4)); /* tied: the table is the output layer */
        assert_int_equal(r.batched.count, 2);
        assert_int_equal(r.alone.count, 6);
        assert_int_equal(r.read.count, 6);
        assert_true(r.batched.least > 0 && r.batched.least <= r.batched.median && r.batched.median <= r.batched.most);
        assert_true(fabs(r.figures.tokens * r.batched.median - 35) < 1e-9);
        assert_true(fabs(r.bandwidth * r.read.median / (double)r.weight_bytes - 1) < 1e-9);
        assert_true(fabs(r.bound_share * r.alone.median / r.read.median - 1) < 1e-9);
        /* 5 prompts of 12 and 6 of 7 new ones pass the blocks, and see half of 19 on average; 7 the output layer */
        double blocks = 2 * (32.0 * (2 * 32 + 2 * 16 + 3 * 64) + 32 * 19);
        double operations = 2 * 5 * (18 * blocks + 7 * 32 * 512);
        assert_int_equal(r.frame.products.count, 2);
        assert_true(fabs(r.figures.flops * r.batched.median / operations - 1) < 1e-9);
        assert_true(fabs(r.figures.share * r.frame.product_flops / r.figures.flops - 1) < 1e-9);
        tm_bench_generate_report_release(&r);
    }
    o.alone = 0;
    assert_ok(bench(&o, 1, NULL, &r));
    assert_int_equal(r.alone.count, 0);
    assert_true(isnan(r.alone.median) && isnan(r.bandwidth) && isnan(r.bound_share));
    tm_bench_generate_report_release(&r);
}

static void batches_and_threads_change_no_token(void **state) {
    (void)state;
    tm_bench_generate_options o = tiny_bench();
    tm_bench_generate_report r;
    char digest[3][65];
    o.repeats = 1;
    o.alone = 0;
    for (int k = 0; k < 3; k++) {
        o.batch = k == 0 ? 32 : 2;
        o.shared = k == 2 ? 12 : 0; /* then all prompts are one */
        assert_ok(bench(&o, 1 + k, NULL, &r));
        assert_int_equal(strlen(r.digest), 64);
        snprintf(digest[k], sizeof digest[k], "%s", r.digest);
        tm_bench_generate_report_release(&r);
    }
    assert_string_equal(digest[0], digest[1]);
    assert_string_not_equal(digest[0], digest[2]);
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
    char directory[] = "/tmp/test-bench-generate-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
    setenv("TMPDIR", directory, 1);
    tm_bench_generate_options o = tiny_bench();
    tm_bench_generate_report r;
    const tm_monitor stop = {.stop = always};
    assert_int_equal(bench(&o, 1, &stop, &r), TM_INTERRUPTED);
    o.shared = 13;
    assert_int_equal(bench(&o, 1, NULL, &r), TM_INVALID);
    o = tiny_bench();
    o.config = o.model = "nowhere";
    assert_int_equal(bench(&o, 1, NULL, &r), TM_INVALID);
    o.config = NULL;
    assert_int_equal(bench(&o, 1, NULL, &r), TM_NOT_FOUND);
    o.model = NULL;
    o.config = "nowhere.json";
    assert_int_equal(bench(&o, 1, NULL, &r), TM_NOT_FOUND);
    assert_int_equal(entries(directory), 2); /* . and .. */
    setenv("TMPDIR", "/tmp/nowhere/at/all", 1);
    o = tiny_bench();
    assert_int_not_equal(bench(&o, 1, NULL, &r), TM_OK);
    if (before)
        setenv("TMPDIR", before, 1);
    else
        unsetenv("TMPDIR");
    free(before);
    assert_int_equal(rmdir(directory), 0);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    tm_bench_generate_options o = tiny_bench();
    tm_bench_generate_report r;
    const tm_device_options where = {.name = "cpu", .threads = 1};
    o.repeats = 1;
    for (long n = 1;; n += 7) {
        tm_device *device = NULL;
        assert_ok(tm_device_open(&where, &device));
        tm__alloc_fail_at(n, false);
        tm_status status = tm_bench_generate(device, &o, NULL, &r);
        tm__alloc_fail_at(0, false);
        assert_int_equal(device->bytes_in_use, 0);
        tm_device_close(device);
        if (status == TM_OK) {
            assert_true(n > 100);
            tm_bench_generate_report_release(&r);
            return;
        }
        assert_int_equal(status, TM_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(batches_and_threads_change_no_token),
        cmocka_unit_test(refusals_leave_nothing_behind),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
