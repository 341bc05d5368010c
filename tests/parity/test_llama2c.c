/* Real weights: llama2.c's models, converted with tools/llama2c_to_hf, and run. Greedy text equals llama2.c's own to
 * the letter: `run stories260K.bin -z tok512.bin -t 0 -n 200`.
 */
#include "model/model.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { STEPS = 200 };

static char stories[1024], tok_bin[1024], tok_model[1024], xs[1024], expected[1024];

static void remember(char out[1024], const char *relative) {
    snprintf(out, 1024, "%s", test_shared(relative));
}

/* The converter stands in tools/ beside this program. */
static void converter_path(char *out, size_t size) {
    ssize_t len = readlink("/proc/self/exe", out, size - 1);
    assert_true(len > 0);
    out[len] = 0;
    char *slash = strrchr(out, '/');
    assert_non_null(slash);
    snprintf(slash, size - (size_t)(slash - out), "/tools/llama2c_to_hf");
}

/* Exit status of the converter; what it says on standard error lands in `said`. */
static int convert(char *model, char *tokenizer, char *directory, char said[1024]) {
    char program[1024];
    int status, pipe_ends[2];
    pid_t child;
    converter_path(program, sizeof program);
    char *arguments[] = {program, model, tokenizer, directory, NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(pipe_ends), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], 2);
    posix_spawn_file_actions_addclose(&actions, pipe_ends[0]);
    assert_int_equal(posix_spawn(&child, program, &actions, NULL, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_ends[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(pipe_ends[0], said + len, 1023 - len)) > 0;) len += (size_t)n;
    said[len] = 0;
    close(pipe_ends[0]);
    while (waitpid(child, &status, 0) < 0) assert_int_equal(errno, EINTR);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Converts into a new directory; the path is the caller's. */
static char *converted(char *model, char *tokenizer) {
    char said[1024], *directory = tm__path_join(test_scratch(), "model");
    int code = convert(model, tokenizer, directory, said);
    if (code != 0) fail_msg("exit %d: %s", code, said);
    return directory;
}

/* Text of STEPS greedy tokens from BOS. */
static char *story(const char *directory, const char *device_name, int precision) {
    const tm_device_options where = {.name = device_name, .precision = precision};
    const tm_generate_options how = {.max_new_tokens = STEPS};
    tm_device *device;
    tm_model *model;
    tm_tokenizer *tokenizer;
    int32_t bos = 1;
    tm_ids prompt = {&bos, 1, 1}, made = {0};
    char *text;
    assert_ok(tm_device_open(&where, &device));
    assert_ok(tm_model_load(device, directory, NULL, &model));
    assert_ok(tm_tokenizer_load(directory, &tokenizer));
    assert_ok(tm_generate(model, &prompt, 1, &bos, 1, &how, NULL, &made));
    assert_int_equal(made.len, STEPS);
    assert_ok(tm_tokenizer_decode(tokenizer, made.data, made.len, 0, &text, NULL));
    tm_ids_free(&made);
    tm_tokenizer_free(tokenizer);
    tm_model_free(model);
    tm_device_close(device);
    return text;
}

static void greedy_story_to_the_letter(void **state) {
    (void)state;
    static const struct {
        const char *device;
        int precision;
    } runs[] = {{"ref", TM_PRECISION_F32}, {"ref", TM_PRECISION_F64}, {"cpu", TM_PRECISION_F32}};
    char *want, *tokenizers[] = {tok_bin, tok_model};
    size_t len;
    assert_ok(tm__file_read(expected, 0, &want, &len));
    assert_true(len > 0 && want[len - 1] == '\n'); /* run ends its output with a line feed of its own */
    want[len - 1] = 0;
    for (int t = 0; t < 2; t++) {
        char *directory = converted(stories, tokenizers[t]);
        for (size_t i = 0; i < TM__COUNT(runs); i++) {
            char *text = story(directory, runs[i].device, runs[i].precision);
            assert_string_equal(text, want);
            free(text);
        }
        free(directory);
    }
    free(want);
}

/* A second model of another length; both devices tell the same story. */
static void another_model_runs(void **state) {
    (void)state;
    char *directory = converted(xs, tok_model);
    char *one = story(directory, "ref", TM_PRECISION_F32), *two = story(directory, "cpu", TM_PRECISION_F32);
    assert_true(strlen(one) > STEPS);
    assert_string_equal(one, two);
    free(one);
    free(two);
    free(directory);
}

static void fails(char *model, char *tokenizer, char *directory, int code, const char *word) {
    char said[1024];
    int found = convert(model, tokenizer, directory, said);
    if (found != code || !strstr(said, word)) fail_msg("exit %d, expected %d: %s", found, code, said);
    assert_int_equal(strcspn(said, "\n"), strlen(said) - 1); /* one line */
}

static void refuses_malformed_input(void **state) {
    (void)state;
    char *data, model[512], other[512], out[512];
    const char *root = test_scratch();
    size_t len;
    snprintf(model, sizeof model, "%s/model.bin", root);
    snprintf(other, sizeof other, "%s/tokenizer.txt", root);
    snprintf(out, sizeof out, "%s/out", root);
    assert_ok(tm__file_read(stories, 0, &data, &len));
    fails(out, tok_bin, out, 5, out); /* no such file */
    assert_ok(tm__file_write(model, data, len - 4));
    fails(model, tok_bin, out, 6, "bytes");
    assert_ok(tm__file_write(model, data, 20));
    fails(model, tok_bin, out, 6, "header");
    static const struct {
        int field;
        int32_t value;
        const char *name;
    } bad[] = {{0, 0, "dim"},        {1, -5, "hidden_dim"}, {2, 1 << 30, "n_layers"}, {3, 7, "n_heads"},
               {4, 3, "n_kv_heads"}, {5, 0, "vocab_size"},  {6, -1, "seq_len"}};
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        int32_t kept;
        memcpy(&kept, data + 4 * bad[i].field, 4);
        memcpy(data + 4 * bad[i].field, &bad[i].value, 4);
        assert_ok(tm__file_write(model, data, len));
        fails(model, tok_bin, out, 6, bad[i].name);
        memcpy(data + 4 * bad[i].field, &kept, 4);
    }
    assert_ok(tm__file_write(other, "text", 4));
    fails(stories, other, out, 7, "tokenizer.txt");
    fails(stories, stories, out, 6, "stories260K.bin"); /* a model is no tokenizer */
    assert_false(tm__path_exists(out));
    assert_ok(tm__make_directories(out));
    snprintf(other, sizeof other, "%s/out/theirs", root);
    assert_ok(tm__file_write(other, "text", 4));
    fails(stories, tok_bin, out, 10, "out");
    free(data);
}

int main(void) {
    static const char *const needed[] = {"models/stories260K/stories260K.bin", "models/stories260K/tok512.bin",
                                         "models/stories260K/expected_greedy_200.txt", "models/llama2xs/model.bin",
                                         "tokenizers/tok512/tok512.model"};
    for (size_t i = 0; i < TM__COUNT(needed); i++) TEST_NEEDS_SHARED(needed[i]);
    remember(stories, needed[0]);
    remember(tok_bin, needed[1]);
    remember(expected, needed[2]);
    remember(xs, needed[3]);
    remember(tok_model, needed[4]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_story_to_the_letter),
        cmocka_unit_test(another_model_runs),
        cmocka_unit_test(refuses_malformed_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
