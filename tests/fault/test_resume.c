/* Resumable checkpoints: stopped anywhere and continued, also after kill -9, a run ends with the same bytes as one that
 * was never stopped; and a checkpoint that does not belong to the run is refused. */
#include "tiny.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static tm_tokenizer *tokenizer;
static tm_dataset *rows;

static int setup(void **state) {
    (void)state;
    tokenizer = tiny_tokenizer();
    rows = tiny_rows("resume", 7);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(rows);
    return 0;
}

/* 9 steps of 4 rows pass over 7 rows five times, so most stops are in the middle of an epoch. */
static tm_train_options options_for(bool lora) {
    tm_train_options o = tiny_options();
    o.steps = 9;
    o.batch = 4;
    o.micro = 3;
    o.schedule = 2;
    o.warmup = .2;
    if (lora) {
        o.lora.rank = 4;
        o.lora.dropout = .25;
        o.lora.targets = "all-linear";
    }
    return o;
}

static char *new_checkpoint_name(void) {
    return tm__path_join(test_scratch(), "checkpoint");
}

typedef struct watcher {
    int64_t steps_left;
} watcher;

static void count(void *user, const tm_progress *progress) {
    (void)progress;
    ((watcher *)user)->steps_left--;
}

static bool stop(void *user) {
    return ((const watcher *)user)->steps_left <= 0;
}

/* One process' worth: a fresh model, trained for at most `steps` steps. */
static tm_status train_once(const tm_train_options *o, int64_t steps, tm_train_result *result, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    watcher w = {steps};
    const tm_monitor monitor = {.progress = count, .stop = stop, .user = &w};
    tm_status status = tm_train(model, tokenizer, rows, o, &monitor, result);
    if (status == TM_OK) {
        if (o->lora.rank) assert_ok(tm_model_merge(model));
        tiny_hash(model, hex);
    }
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

static void stop_and_go(bool lora, int optimiser, int64_t stride) {
    tm_train_options o = options_for(lora);
    tm_train_result whole, parts;
    char expected[65], found[65];
    o.optimiser = optimiser;
    o.momentum = .5;
    assert_ok(train_once(&o, 100, &whole, expected));
    char *directory = new_checkpoint_name();
    o.resume_dir = directory;
    int64_t done = 0;
    tm_status status;
    while ((status = train_once(&o, stride, &parts, found)) == TM_INTERRUPTED) {
        done += stride;
        char *path = tm__path_join(directory, "state.json");
        json_t *json;
        assert_ok(tm__json_load(path, &json));
        assert_int_equal(json_integer_value(json_object_get(json, "step")), done);
        json_decref(json);
        free(path);
    }
    assert_ok(status);
    assert_true(done >= 9 - stride && parts.resumed);
    assert_string_equal(found, expected);
    assert_true(parts.steps == whole.steps && parts.tokens == whole.tokens &&
                parts.target_tokens == whole.target_tokens);
    assert_true(parts.first_loss == whole.first_loss && parts.last_loss == whole.last_loss);
    free(directory);
}

static void test_resume_is_bit_equal(void **state) {
    (void)state;
    for (int64_t stride = 1; stride <= 5; stride += 2) {
        stop_and_go(false, 0, stride);
        stop_and_go(true, 0, stride);
    }
    stop_and_go(false, 1, 2);
}

/* A finished run with checkpoints is not trained again. */
static void test_finished_run(void **state) {
    (void)state;
    tm_train_options o = options_for(false);
    tm_train_result result;
    char a[65], b[65];
    char *directory = new_checkpoint_name();
    assert_ok(tm__make_directories(directory)); /* empty: as good as none */
    o.resume_dir = directory;
    o.save_every = 4;
    assert_ok(train_once(&o, 100, NULL, a));
    assert_ok(train_once(&o, 1, &result, b)); /* would stop at its first step */
    assert_string_equal(a, b);
    assert_true(result.resumed && result.steps == 9);
    free(directory);
}

/* ---- kill -9 ----------------------------------------------------------------------------------------------------- */

static tm_train_options kill_options(bool lora) {
    tm_train_options o = options_for(lora);
    o.steps = 40;
    return o;
}

/* What this program does as "test_resume KIND DIRECTORY ANSWER": trains to the end, saving at every step, and writes
 * the hash of the weights. It is a program of its own because a fork alone would inherit OpenMP without its threads. */
static int child_main(char **argv) {
    char hex[65];
    tm_train_options o = kill_options(strcmp(argv[1], "lora") == 0);
    o.resume_dir = argv[2];
    o.save_every = 1;
    tokenizer = tiny_tokenizer();
    rows = tiny_rows("resume", 7);
    tm_status status = train_once(&o, 1000, NULL, hex);
    if (status == TM_OK) status = tm__file_write(argv[3], hex, 64);
    if (status != TM_OK) fprintf(stderr, "child: %s\n", tm_error_last()->line);
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(rows);
    return status;
}

static pid_t start_child(bool lora, const char *directory, const char *answer) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_resume", lora ? "lora" : "full", directory, answer, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Seconds that a child needs when it is left alone. */
static double child_seconds(bool lora) {
    char *directory = new_checkpoint_name(), *answer = tm__path_join(test_scratch(), "answer");
    int status;
    double began = tm__now();
    pid_t pid = start_child(lora, directory, answer);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    free(directory);
    free(answer);
    return tm__now() - began;
}

static void kill_until_done(bool lora) {
    const tm_train_options o = kill_options(lora);
    char expected[65], *directory = new_checkpoint_name(), *answer = tm__path_join(test_scratch(), "answer"), *found;
    tm__rng rng = tm__rng_make((uint64_t)lora, tm__stream(TM__STREAM_TEST, 0));
    int killed = 0, status = -1;
    assert_ok(train_once(&o, 1000, NULL, expected));
    double alone = child_seconds(lora);
    while (status != 0) {
        assert_true(killed < 500);
        pid_t pid = start_child(lora, directory, answer);
        /* A thirteenth of a whole run on average at first, more as time goes by: a slowed machine gets to the end as
         * well. */
        usleep((useconds_t)(alone * 1e6 * tm__rng_uniform(&rng) * (.15 + .01 * killed)));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) assert_int_equal(status, 0); /* what a kill left behind was never refused */
        killed += WIFSIGNALED(status);
        char *path = tm__path_join(directory, "state.json");
        if (tm__path_exists(directory)) assert_true(tm__path_exists(path));
        free(path);
    }
    assert_true(killed > 3);
    assert_ok(tm__file_read(answer, 0, &found, NULL));
    assert_string_equal(found, expected);
    printf("killed %d times; a run takes %.2f s\n", killed, alone);
    free(found);
    free(answer);
    free(directory);
}

static void test_kill_9(void **state) {
    (void)state;
    kill_until_done(false);
    kill_until_done(true);
}

/* ---- checkpoints that do not fit --------------------------------------------------------------------------------- */

static char *stopped_checkpoint(tm_train_options *o) {
    char *directory = new_checkpoint_name(), hex[65];
    o->resume_dir = directory;
    assert_int_equal(train_once(o, 2, NULL, hex), TM_INTERRUPTED);
    return directory;
}

static void test_another_run_is_refused(void **state) {
    (void)state;
    tm_train_options o = options_for(false), other;
    char hex[65], *directory = stopped_checkpoint(&o);
    other = o;
    other.lr *= 2;
    assert_int_equal(train_once(&other, 100, NULL, hex), TM_MISMATCH);
    assert_string_equal(tm_error_last()->field, "tag");
    other = options_for(true);
    other.resume_dir = directory;
    other.force_resume = true; /* does not help against another run */
    assert_int_equal(train_once(&other, 100, NULL, hex), TM_MISMATCH);
    tm_dataset *kept = rows;
    rows = tiny_rows("others", 7);
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_MISMATCH);
    tm_dataset_free(rows);
    rows = kept;
    o.save_every = 3; /* how often it is saved is not part of a run */
    assert_ok(train_once(&o, 100, NULL, hex));
    free(directory);
}

/* Replaces the value of a text field in state.json. */
static void edit_state(const char *directory, const char *key, json_t *value) {
    char *path = tm__path_join(directory, "state.json"), *text;
    json_t *json;
    assert_ok(tm__json_load(path, &json));
    json_object_set_new(json, key, value);
    text = json_dumps(json, 0);
    assert_ok(tm__file_write(path, text, strlen(text)));
    json_decref(json);
    free(text);
    free(path);
}

static void test_another_machine_needs_force(void **state) {
    (void)state;
    static const char *const keys[] = {"instruction_set", "precision", "device"};
    for (size_t i = 0; i < TM__COUNT(keys); i++) {
        tm_train_options o = options_for(false);
        char hex[65], *directory = stopped_checkpoint(&o);
        edit_state(directory, keys[i], json_string("something else"));
        assert_int_equal(train_once(&o, 100, NULL, hex), TM_MISMATCH);
        assert_string_equal(tm_error_last()->field, keys[i]);
        assert_non_null(strstr(tm_error_last()->hint, "force"));
        o.force_resume = true;
        assert_ok(train_once(&o, 100, NULL, hex));
        free(directory);
    }
}

/* Where the data of the first tensor of a kind begins in a safetensors file. */
static size_t tensor_offset(const char *data, char kind) {
    uint64_t header = 0;
    const char *name;
    json_t *entry;
    size_t at = 0;
    memcpy(&header, data, 8); /* little-endian, as every machine this runs on */
    json_t *json = json_loadb(data + 8, header, 0, NULL);
    assert_non_null(json);
    json_object_foreach(json, name, entry) {
        if (name[0] == kind && at == 0)
            at = 8 + header + (size_t)json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
    }
    json_decref(json);
    assert_true(at > 0);
    return at;
}

static void test_broken_checkpoints(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int64_t value;
    } edits[] = {{"step", 99}, {"step", 1}, {"version", 2}, {"optimiser_step", -1}, {"optimiser_step", 99}};
    char hex[65];
    for (size_t i = 0; i < TM__COUNT(edits); i++) {
        tm_train_options o = options_for(false);
        char *directory = stopped_checkpoint(&o);
        edit_state(directory, edits[i].key, json_integer(edits[i].value));
        tm_status status = train_once(&o, 100, NULL, hex);
        assert_true(status == TM_FORMAT || status == TM_MISMATCH);
        assert_non_null(strstr(tm_error_last()->line, "checkpoint/state."));
        free(directory);
    }
    tm_train_options o = options_for(false);
    char *directory = stopped_checkpoint(&o), *path = tm__path_join(directory, "state.safetensors"), *data;
    size_t len;
    assert_ok(tm__file_read(path, 0, &data, &len));
    assert_ok(tm__file_write(path, data, len / 2));
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_FORMAT);
    memset(data + len - 4, 0xff, 4); /* a weight or moment that is not a number */
    assert_ok(tm__file_write(path, data, len));
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_NUMERIC);
    memset(data + len - 4, 0, 4);
    const float negative = -1;
    memcpy(data + tensor_offset(data, 'v'), &negative, sizeof negative); /* a mean of squares */
    assert_ok(tm__file_write(path, data, len));
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_FORMAT);
    assert_int_equal(tm_error_last()->field[0], 'v');
    assert_int_equal(unlink(path), 0);
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_NOT_FOUND);
    free(data);
    free(path);
    free(directory);
    o.resume_dir = test_scratch();
    path = tm__path_join(o.resume_dir, "notes");
    assert_ok(tm__file_write(path, "mine", 4));
    assert_int_equal(train_once(&o, 100, NULL, hex), TM_EXISTS);
    assert_non_null(strstr(tm_error_last()->line, "holds no resumable checkpoint"));
    free(path);
}

int main(int argc, char **argv) {
    if (argc == 4) return child_main(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_is_bit_equal),
        cmocka_unit_test(test_finished_run),
        cmocka_unit_test(test_kill_9),
        cmocka_unit_test(test_another_run_is_refused),
        cmocka_unit_test(test_another_machine_needs_force),
        cmocka_unit_test(test_broken_checkpoints),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
