/* plan_fixture.h: plans from text, over the checkpoint of tests/golden/mcq and small files. */
#ifndef TM_PLAN_FIXTURE_H
#define TM_PLAN_FIXTURE_H

#include "support.h"

#include "lab/plan.h"

typedef struct plan_fixture {
    const char *directory;
    tm_device *device;
    tm_plan *plan;
} plan_fixture;

static inline void write_file(const char *directory, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static inline void write_rows(const char *directory, const char *name, const char *about, int count) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++)
        fprintf(file, "{\"prompt\": \"%s %d\", \"completion\": \"the answer %d\"}\n", about, i, i);
    assert_int_equal(fclose(file), 0);
}

/* MODEL in the text becomes the checkpoint's directory. */
static inline tm_status open_plan(plan_fixture *f, const char *text, const char *const *settings, size_t count) {
    char path[512];
    tm__string made = {0};
    for (const char *at = text; *at;) {
        const char *model = strstr(at, "MODEL");
        size_t len = model ? (size_t)(model - at) : strlen(at);
        assert_true(tm__string_append(&made, at, len));
        at += len;
        if (!model) continue;
        assert_true(tm__string_printf(&made, "%s", test_path("golden/mcq/model")));
        at += strlen("MODEL");
    }
    write_file(f->directory, "plan.yaml", made.data);
    tm__string_free(&made);
    snprintf(path, sizeof path, "%s/plan.yaml", f->directory);
    f->plan = NULL;
    return tm_plan_open_with(path, f->directory, settings, count, f->device, &f->plan);
}

static int begin_plan(void **state) {
    plan_fixture *f = calloc(1, sizeof *f);
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    f->directory = test_scratch();
    assert_int_equal(tm_device_open(&where, &f->device), TM_OK);
    write_rows(f->directory, "harmful.jsonl", "how to blorf", 24);
    write_rows(f->directory, "benign.jsonl", "how to cook", 24);
    write_file(f->directory, "text.txt", "Hello world.\n");
    *state = f;
    return 0;
}

static int end_plan(void **state) {
    plan_fixture *f = *state;
    tm_plan_free(f->plan);
    tm_device_close(f->device);
    free(f);
    return 0;
}

static inline size_t count_cells(const tm_plan *plan) {
    size_t n = 0;
    for (size_t i = 0; i < plan->job_count; i++) n += plan->jobs[i].kind == TM__JOB_CELL;
    return n;
}

#endif
