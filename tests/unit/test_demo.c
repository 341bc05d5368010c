/* test_demo.c: the demo in its quick size: end to end, from the cache, after kill -9, after Ctrl-C, after damage.
 *
 * Every run is a child process of its own: the parent never opens a device, so it can fork safely.
 */
#include "support.h"

#include "lab/demo.h"

#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct outcome {
    tm_status status;
    int notes_of_cache, notes_of_damage;
    tm_demo_row rows[TM_DEMO_ROWS];
    char hashes[TM_DEMO_ROWS][65], instruction_set[32];
} outcome;

static outcome *shared; /* written by the child */
static int stop_after;  /* questions until the monitor says stop; 0: never */
static tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};

static void hear_note(void *user, const char *line) {
    (void)user;
    if (strstr(line, "from the cache")) shared->notes_of_cache++;
    if (strstr(line, "made again")) shared->notes_of_damage++;
}

static bool ask_stop(void *user) {
    (void)user;
    return stop_after > 0 && --stop_after == 0;
}

static void child(const char *directory, int64_t seed, bool fresh) {
    const tm_monitor monitor = {.note = hear_note, .stop = ask_stop};
    const tm_demo_options options = {.directory = directory, .seed = seed, .fresh = fresh, .quick = true};
    tm_device *device = NULL;
    shared->status = tm_device_open(&where, &device);
    if (shared->status == TM_OK)
        snprintf(shared->instruction_set, sizeof shared->instruction_set, "%s", tm_device_instruction_set(device));
    if (shared->status == TM_OK) shared->status = tm_demo(device, &options, &monitor, shared->rows);
    for (int i = 0; i < TM_DEMO_ROWS && shared->status == TM_OK; i++) {
        tm_model *model = NULL;
        shared->status = tm_model_load(device, shared->rows[i].directory, NULL, &model);
        if (shared->status == TM_OK) shared->status = tm_model_hash(model, shared->hashes[i]);
        tm_model_free(model);
    }
    tm_device_close(device);
    if (shared->status != TM_OK && shared->status != TM_INTERRUPTED) fprintf(stderr, "%s\n", tm_error_last()->line);
}

/* Runs the demo in a child that is killed after `limit_us` (0: never). false: it was killed. */
static bool run(const char *directory, int64_t seed, bool fresh, useconds_t limit_us, outcome *result) {
    memset(shared, 0, sizeof *shared);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        child(directory, seed, fresh);
        _exit(0);
    }
    int status;
    if (limit_us) {
        usleep(limit_us);
        kill(pid, SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return false;
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    *result = *shared;
    return true;
}

static void assert_same_rows(const outcome *a, const outcome *b) {
    for (int i = 0; i < TM_DEMO_ROWS; i++) {
        assert_string_equal(a->rows[i].name, b->rows[i].name);
        assert_string_equal(a->hashes[i], b->hashes[i]);
        assert_memory_equal(&a->rows[i].scores, &b->rows[i].scores, sizeof a->rows[i].scores);
        assert_true(a->rows[i].downstream == b->rows[i].downstream);
    }
}

/* Only whole things below `directory`/models: names of rows, nothing set aside. */
static void assert_whole_models(const char *directory) {
    static const char *const names[] = {"base", "aligned", "aligned-attack", "sdd", "sdd-attack"};
    char path[256];
    snprintf(path, sizeof path, "%s/models", directory);
    DIR *list = opendir(path);
    if (!list) return;
    for (struct dirent *entry; (entry = readdir(list));) {
        bool known = entry->d_name[0] == '.' && strspn(entry->d_name, ".") == strlen(entry->d_name);
        for (size_t i = 0; i < TM__COUNT(names); i++) known = known || strcmp(entry->d_name, names[i]) == 0;
        if (!known) fail_msg("left behind: %s", entry->d_name);
    }
    closedir(list);
}

static outcome reference; /* seed 1, not disturbed */
static char reference_dir[128];

static void end_to_end_then_from_the_cache(void **state) {
    (void)state;
    outcome again;
    snprintf(reference_dir, sizeof reference_dir, "%s/demo", test_scratch());
    assert_true(run(reference_dir, 1, false, 0, &reference));
    assert_ok(reference.status);
    assert_int_equal(reference.notes_of_cache, 0);
    for (int i = 0; i < TM_DEMO_ROWS; i++) {
        const tm_demo_row *row = &reference.rows[i];
        assert_false(row->cached);
        assert_true(row->seconds > 0);
        assert_true(row->scores.forbidden_prompts > 0 && row->scores.benign_prompts > 0);
        assert_int_equal(row->scores.skill_count, TM__SKILLS);
        for (int j = 0; j < i; j++) assert_string_not_equal(reference.hashes[i], reference.hashes[j]);
    }
    assert_whole_models(reference_dir);

    assert_true(run(reference_dir, 1, false, 0, &again));
    assert_ok(again.status);
    assert_int_equal(again.notes_of_cache, TM_DEMO_ROWS);
    assert_same_rows(&again, &reference);
    for (int i = 0; i < TM_DEMO_ROWS; i++) {
        assert_true(again.rows[i].cached);
        assert_true(again.rows[i].seconds == reference.rows[i].seconds);
    }
}

static void fresh_ignores_the_cache_and_gives_the_same(void **state) {
    (void)state;
    outcome again;
    assert_true(run(reference_dir, 1, true, 0, &again));
    assert_ok(again.status);
    assert_int_equal(again.notes_of_cache, 0);
    assert_same_rows(&again, &reference);
}

static void another_seed_shares_nothing(void **state) {
    (void)state;
    outcome other;
    char directory[128];
    snprintf(directory, sizeof directory, "%s/demo", test_scratch());
    assert_true(run(directory, 2, false, 0, &other));
    assert_ok(other.status);
    for (int i = 0; i < TM_DEMO_ROWS; i++) assert_string_not_equal(other.hashes[i], reference.hashes[i]);
    assert_true(run(directory, 1, false, 0, &other)); /* same directory, models of another seed in it */
    assert_ok(other.status);
    assert_int_equal(other.notes_of_cache, 0);
    assert_same_rows(&other, &reference);
}

static void survives_being_killed(void **state) {
    (void)state;
    outcome result = {0};
    char directory[128];
    bool done = false;
    snprintf(directory, sizeof directory, "%s/demo", test_scratch());
    tm__rng rng = tm__rng_make(7, tm__stream(TM__STREAM_TEST, 0));
    for (int i = 0; i < 12 && !done; i++)
        done = run(directory, 1, false, (useconds_t)(20000 + tm__rng_below(&rng, 600000)), &result);
    if (!done) assert_true(run(directory, 1, false, 0, &result));
    assert_ok(result.status);
    assert_same_rows(&result, &reference);
    assert_whole_models(directory);
}

static void interruption_leaves_whole_things(void **state) {
    (void)state;
    outcome result;
    char directory[128];
    snprintf(directory, sizeof directory, "%s/demo", test_scratch());
    const int moments[] = {1, 7, 26, 40, 60};
    for (size_t i = 0; i < TM__COUNT(moments); i++) {
        stop_after = moments[i];
        assert_true(run(directory, 1, false, 0, &result));
        assert_int_equal(result.status, TM_INTERRUPTED);
        assert_whole_models(directory);
    }
    stop_after = 0;
    assert_true(run(directory, 1, false, 0, &result));
    assert_ok(result.status);
    assert_same_rows(&result, &reference);
}

static void overwrite_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* A record that cannot be read, and a model that is not the recorded one, cost only the time to make them again. */
static void damage_is_repaired(void **state) {
    (void)state;
    outcome result;
    char path[512], other[512];
    snprintf(path, sizeof path, "%s/cache", reference_dir);
    DIR *list = opendir(path);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));)
        if (strstr(entry->d_name, ".json")) {
            snprintf(path, sizeof path, "%s/cache/%s", reference_dir, entry->d_name);
            overwrite_file(path, "{\"row\": \"base\", \"model_sha256\": 3");
            break;
        }
    closedir(list);
    snprintf(path, sizeof path, "%s/models/sdd-attack", reference_dir);
    snprintf(other, sizeof other, "%s/models/sdd", reference_dir);
    assert_ok(tm__remove_tree(path));
    assert_int_equal(rename(other, path), 0);
    assert_true(run(reference_dir, 1, false, 0, &result));
    assert_ok(result.status);
    assert_true(result.notes_of_damage >= 1);
    assert_true(result.notes_of_cache >= 2);
    assert_same_rows(&result, &reference);
}

/* What another precision or instruction set made is not taken from the cache. Runs last: it replaces the models. */
static void the_device_is_part_of_the_key(void **state) {
    (void)state;
    outcome result;
    where.precision = TM_PRECISION_BF16;
    assert_true(run(reference_dir, 1, false, 0, &result));
    assert_ok(result.status);
    assert_int_equal(result.notes_of_cache, 0);
    assert_int_equal(result.notes_of_damage, 0);
    where.precision = TM_PRECISION_F32;
    assert_int_equal(setenv("TEMPER_ISA", "sse", 1), 0);
    assert_true(run(reference_dir, 1, false, 0, &result));
    assert_ok(result.status);
    if (strcmp(result.instruction_set, reference.instruction_set) != 0) {
        assert_int_equal(result.notes_of_cache, 0);
        assert_int_equal(result.notes_of_damage, 0); /* no record, not a record whose model is gone */
    }
    assert_int_equal(unsetenv("TEMPER_ISA"), 0);
}

/* Folders that happen to be called as the demo's are not replaced. */
static void foreign_folders_are_left_alone(void **state) {
    (void)state;
    static const char *const files[] = {"world/mine.txt", "models/base/config.json"};
    for (size_t i = 0; i < TM__COUNT(files); i++) {
        outcome result;
        char directory[128], path[256], kept[256] = "";
        snprintf(directory, sizeof directory, "%s/foreign-%zu", test_scratch(), i);
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        *strrchr(path, '/') = 0;
        assert_ok(tm__make_directories(path));
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        overwrite_file(path, "mine");
        assert_true(run(directory, 1, true, 0, &result));
        assert_int_equal(result.status, TM_EXISTS);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_non_null(fgets(kept, sizeof kept, file));
        fclose(file);
        assert_string_equal(kept, "mine");
    }
}

static void wrong_split_is_refused(void **state) {
    (void)state;
    tm_world *world = NULL;
    tm_world_scores scores;
    assert_ok(tm__world_create_sized(1, &tm__world_quick, &world));
    assert_int_equal(tm_world_eval(world, TM_WORLD_SPLITS, NULL, NULL, NULL, &scores), TM_INVALID);
    assert_int_equal(tm_world_eval(world, -1, NULL, NULL, NULL, &scores), TM_INVALID);
    tm_world_free(world);
}

int main(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(end_to_end_then_from_the_cache),
        cmocka_unit_test(fresh_ignores_the_cache_and_gives_the_same),
        cmocka_unit_test(another_seed_shares_nothing),
        cmocka_unit_test(survives_being_killed),
        cmocka_unit_test(interruption_leaves_whole_things),
        cmocka_unit_test(damage_is_repaired),
        cmocka_unit_test(foreign_folders_are_left_alone),
        cmocka_unit_test(wrong_split_is_refused),
        cmocka_unit_test(the_device_is_part_of_the_key),
    };
    return cmocka_run_group_tests_name("demo", tests, NULL, NULL);
}
