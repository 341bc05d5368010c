/* A rehearsal asks for the buffers of the real run: the same peak to the byte; and what --dry-run says of a process is
 * within a tenth of what the process takes, though its rows be of many lengths. */
#include "tiny.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    int64_t lora_rank, micro, freeze;
    int optimiser;
    double momentum;
    bool packed, recompute;
} cases[] = {
    {"full", 0, 0, 0, 0, 0, true, true},
    {"full, padded, kept activations", 0, 0, 0, 0, 0, false, false},
    {"LoRA", 4, 0, 0, 0, 0, true, true},
    {"LoRA, micro-batches, kept activations", 4, 2, 0, 0, 0, true, false},
    {"SGD with momentum, the first block frozen", 0, 1, 1, 1, 0.9, true, true},
    {"SGD", 0, 0, 0, 1, 0, true, true},
};

/* Rows of one length, so that every batch is the largest. */
static tm_dataset *even_rows(int n) {
    tm_dataset *rows;
    assert_ok(tm_dataset_create(&rows));
    for (int i = 0; i < n; i++) {
        char question[32], answer[32];
        snprintf(question, sizeof question, "what is %02d?", i);
        snprintf(answer, sizeof answer, "it is %02d", i);
        const tm_message row[] = {{"user", question}, {"assistant", answer}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    return rows;
}

static tm_train_options options_of(size_t i) {
    tm_train_options options = tiny_options();
    options.lora.rank = cases[i].lora_rank;
    options.lora.targets = "all-linear";
    options.micro = cases[i].micro;
    options.freeze_blocks = cases[i].freeze;
    options.optimiser = cases[i].optimiser;
    options.momentum = cases[i].momentum;
    options.packed = cases[i].packed;
    options.recompute = cases[i].recompute;
    options.steps = 3;
    return options;
}

static size_t peak_of(tm_device *device, const char *directory, const tm_tokenizer *tokenizer, const tm_dataset *rows,
                      const tm_train_options *options, tm_memory *memory) {
    tm_model *model;
    tm_train_result result;
    assert_ok(tm_model_load(device, directory, NULL, &model));
    assert_ok(tm_train(model, tokenizer, rows, options, NULL, &result));
    assert_int_equal(result.steps, 3);
    tm_status status = tm_model_memory(model, memory);
    assert_int_equal(status, device->rehearses ? TM_OK : TM_INVALID);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    return device->bytes_peak;
}

static void asks_for_the_same_buffers(void **state) {
    (void)state;
    tm_tokenizer *tokenizer = tiny_tokenizer();
    tm_dataset *rows = even_rows(8);
    char *directory = tm__path_join(test_scratch(), "m");
    assert_ok(tm_model_write_new(tiny_config, 3, directory, NULL, NULL));
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_device *real = tiny_device("cpu"), *rehearsal;
        const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
        const tm_train_options options = options_of(i);
        tm_memory m = {0};
        size_t want = peak_of(real, directory, tokenizer, rows, &options, &m);
        assert_ok(tm_device_open_rehearsal(&where, &rehearsal));
        size_t got = peak_of(rehearsal, directory, tokenizer, rows, &options, &m);
        if (got != want) fail_msg("%s: %zu bytes, %zu in the real run", cases[i].name, got, want);
        int64_t moments = cases[i].optimiser == 0 ? 2 : cases[i].momentum > 0;
        if (m.moments != moments * m.gradients)
            fail_msg("%s: %lld bytes of moments, %lld of gradients", cases[i].name, (long long)m.moments,
                     (long long)m.gradients);
        assert_true(m.trained > 0 && m.gradients == 4 * m.trained);
        assert_true(m.weights >= m.gradients && m.vectors == 0 && m.logits > 0 && m.activations > 0);
        assert_true((m.mapped > 0) == (cases[i].lora_rank > 0)); /* else every weight has a copy, which is read */
        assert_true(m.program > 0 && m.again >= 0);
        assert_int_equal(m.total, m.mapped + m.weights + m.gradients + m.moments + m.vectors + m.activations +
                                      m.logits + m.cache + m.overlap + m.kernels + m.program);
        /* What the pool holds at the peak: all that was handed out, and little beside. */
        int64_t held = m.weights + m.gradients + m.moments + m.activations + m.logits + m.overlap;
        assert_true((size_t)held >= want && (size_t)held <= want + want / 32 + (5 << 20));
        tm_device_close(rehearsal);
        tm_device_close(real);
    }
    free(directory);
    tm_dataset_free(rows);
    tm_tokenizer_free(tokenizer);
}

/* Keys and values of generation are told as such: (slots, capacity, kv_heads, head_dim) twice per layer. */
static void tells_the_cache(void **state) {
    (void)state;
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_device *rehearsal;
    tm_model *model;
    tm__cache *cache;
    tm_memory m;
    assert_ok(tm_device_open_rehearsal(&where, &rehearsal));
    assert_ok(tm_model_create(rehearsal, tiny_config, 3, &model));
    assert_ok(tm__cache_create(model, 3, 50, NULL, 0, &cache));
    tm__cache_free(model, cache);
    assert_ok(tm_model_memory(model, &m));
    assert_int_equal(m.cache, model->config.layers * 2 * 3 * 50 * model->config.kv_heads * model->config.head_dim * 4);
    tm_model_free(model);
    tm_device_close(rehearsal);
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

static const char middle_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":192,\"intermediate_size\":512,"
    "\"num_hidden_layers\":6,\"num_attention_heads\":6,\"num_key_value_heads\":3,\"vocab_size\":4000,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"bfloat16\",\"eos_token_id\":258}";

/* Runs the program; standard output goes to a file. Most bytes it had in memory. */
static int64_t run(char *const *arguments, const char *output) {
    struct rusage usage;
    int state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen(output, "w", stdout)) _exit(126);
        execv(arguments[0], arguments);
        _exit(127);
    }
    assert_int_equal(wait4(child, &state, 0, &usage), child);
    assert_true(WIFEXITED(state));
    assert_int_equal(WEXITSTATUS(state), 0);
    return (int64_t)usage.ru_maxrss * 1024;
}

/* One to 20 words. */
static tm_dataset *uneven_rows(size_t n) {
    tm_dataset *rows;
    assert_ok(tm_dataset_create(&rows));
    for (size_t i = 0; i < n; i++) {
        char answer[512] = "";
        for (size_t k = 0; k <= 7 * i % 20; k++) strncat(answer, "words ", sizeof answer - strlen(answer) - 1);
        const tm_message row[] = {{"user", "how many?"}, {"assistant", answer}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    return rows;
}

static void says_what_a_process_takes(void **state) {
    (void)state;
    const char *program = getenv("TEMPER_BIN");
#ifdef __SANITIZE_ADDRESS__
    program = NULL; /* its shadow memory is most of what a process takes */
#endif
    if (!program) skip();
    static const char *const runs[][16] = {
        {"finetune", "--batch", "8"},
        {"finetune", "--batch", "8", "--recompute"},
        {"finetune", "--batch", "8", "--lora-rank", "8", "--lora-targets", "all-linear"},
        {"finetune", "--batch", "4", "--lora-rank", "8", "--merge"},
        {"finetune", "--batch", "4", "--lora-rank", "8", "--packed"},
        {"finetune", "--batch", "6", "--micro-batch", "3"},
    };
    const char *root = test_scratch();
    char *model = tm__path_join(root, "m"), *data = tm__path_join(root, "rows.jsonl");
    char *out = tm__path_join(root, "out"), *said = tm__path_join(root, "said");
    const tm_save_options how = {.tokenizer_dir = tiny_tokenizer_directory()};
    tm_dataset *rows = uneven_rows(60);
    assert_ok(tm_model_write_new(middle_config, 3, model, &how, NULL));
    assert_ok(tm_dataset_save(rows, data));
    tm_dataset_free(rows);
    for (size_t i = 0; i < TM__COUNT(runs); i++) {
        const char *arguments[40] = {program, runs[i][0], "--model", model,    "--data",    data, "--out",
                                     out,     "--steps",  "4",       "--json", "--threads", "2",  "--overwrite"};
        size_t n = 14;
        for (size_t k = 1; runs[i][k]; k++) arguments[n++] = runs[i][k];
        arguments[n] = "--dry-run";
        run((char *const *)arguments, said);
        assert_false(i == 0 && tm__path_exists(out));
        arguments[n] = NULL;
        double taken = (double)run((char *const *)arguments, "/dev/null");
        struct json_t *report;
        assert_ok(tm__json_load(said, &report));
        const json_t *memory = json_object_get(report, "memory");
        json_t *part;
        const char *name;
        double told = json_number_value(json_object_get(memory, "total")), sum = 0;
        json_object_foreach((json_t *)(uintptr_t)memory, name, part) {
            if (strcmp(name, "total") != 0 && strcmp(name, "anonymous") != 0) sum += json_number_value(part);
        }
        assert_true(sum == told && json_is_integer(json_object_get(memory, "overlap")));
        if (i == 0) assert_true(json_integer_value(json_object_get(memory, "overlap")) < 0);
        json_decref(report);
        print_message("%s %s %s: told %.1f MiB, took %.1f MiB\n", runs[i][0], runs[i][2], runs[i][3] ? runs[i][3] : "",
                      told / 1048576, taken / 1048576);
        if (!(fabs(told - taken) <= 0.1 * taken)) fail_msg("told %.1f MiB, took %.1f", told / 1048576, taken / 1048576);
    }
    free(said);
    free(out);
    free(data);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks_for_the_same_buffers),
        cmocka_unit_test(tells_the_cache),
        cmocka_unit_test(says_what_a_process_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
