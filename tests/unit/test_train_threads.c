/* test_train_threads.c: whole training runs give the same bytes with 1, 2 and 3 threads, and when they are stopped and
 * resumed with another number of threads than they began with.
 *
 * Full and LoRA (with dropout), fp32 and bf16, padded and packed with recomputation, on sizes at which the kernels do
 * share their work between threads and no dimension is a multiple of a tile. The bf16 runs are repeated through oneDNN,
 * the path of processors with a matrix unit.
 */
#include "tiny.h"

#include "device/cpu/cpu.h"

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":90,\"intermediate_size\":202,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":6,\"num_key_value_heads\":2,\"head_dim\":14,\"vocab_size\":259,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"initializer_range\":0.08,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"eos_token_id\":258}";

enum { MOST = 3, STEPS = 4 };

typedef struct variant {
    const char *name;
    int precision;
    bool lora, packed, recompute, onednn;
    int64_t micro;
} variant;

static const variant variants[] = {
    {"full fp32 padded", TM_PRECISION_F32, false, false, false, false, 0},
    {"full fp32 packed, recomputed, micro-batches", TM_PRECISION_F32, false, true, true, false, 5},
    {"full bf16 packed", TM_PRECISION_BF16, false, true, false, false, 0},
    {"LoRA fp32 packed", TM_PRECISION_F32, true, true, false, false, 0},
    {"LoRA bf16 padded, recomputed", TM_PRECISION_BF16, true, false, true, false, 0},
    {"full bf16 through oneDNN", TM_PRECISION_BF16, false, true, false, true, 0},
    {"LoRA bf16 through oneDNN", TM_PRECISION_BF16, true, false, false, true, 0},
};

static tm_tokenizer *tokenizer;
static tm_dataset *rows;
static char *checkpoint; /* a saved model: runs begin from mapped bf16 weights */

static int setup(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = NULL;
    tokenizer = tiny_tokenizer();
    rows = tiny_rows("threads", 17);
    checkpoint = tm__path_join(test_scratch(), "model");
    assert_ok(tm_model_create(device, config, 5, &model));
    assert_ok(tm_model_save(model, checkpoint, &(tm_save_options){.dtype = TM_SAVE_BF16, .overwrite = true}));
    tm_model_free(model);
    tm_device_close(device);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    tm_dataset_free(rows);
    free(checkpoint);
    return 0;
}

static bool after_two(void *user) {
    return *(int *)user >= 2;
}

static void count(void *user, const tm_progress *progress) {
    *(int *)user = (int)progress->done;
}

typedef struct outcome {
    char hex[65];
    tm_train_result result;
} outcome;

/* resume: where an interrupted run leaves its checkpoint, or NULL. stop: interrupt after two steps. */
static outcome train(const variant *v, int threads, const char *resume, bool stop) {
    const tm_device_options where = {.name = "cpu", .threads = threads, .precision = v->precision};
    tm_device *device = NULL;
    tm_model *model = NULL;
    tm_train_options o = tiny_options();
    outcome made = {0};
    int steps_done = 0;
    const tm_monitor monitor = {.progress = count, .stop = stop ? after_two : NULL, .user = &steps_done};
    assert_ok(tm_device_open(&where, &device));
    tm__cpu *cpu = device->state;
    if (v->onednn && !cpu->amx) assert_ok(tm__amx_open(cpu));
    assert_ok(tm_model_load(device, checkpoint, NULL, &model));
    o.steps = STEPS;
    o.batch = 12;
    o.micro = v->micro;
    o.packed = v->packed;
    o.recompute = v->recompute;
    o.lora.rank = v->lora ? 5 : 0;
    o.lora.dropout = 0.2;
    o.lora.targets = "all-linear";
    o.resume_dir = resume;
    assert_int_equal(tm_train(model, tokenizer, rows, &o, &monitor, &made.result), stop ? TM_INTERRUPTED : TM_OK);
    /* LoRA leaves every weight where it is mapped: nothing is held twice. */
    assert_true(model->embed.owned != v->lora && model->blocks[1].down.weight.owned != v->lora);
    tiny_hash(model, made.hex);
    tm_model_free(model);
    assert_int_equal(device->bytes_in_use, 0);
    tm_device_close(device);
    return made;
}

static bool skipped(const variant *v) {
    tm_device *device = tiny_device("cpu");
    bool wide = strncmp(tm_device_instruction_set(device), "avx512", 6) == 0;
    tm_device_close(device);
    if (v->onednn && !wide) printf("SKIP: %s needs AVX-512\n", v->name);
    return v->onednn && !wide;
}

static void test_every_thread_count(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(variants); i++) {
        const variant *v = &variants[i];
        if (skipped(v)) continue;
        const outcome one = train(v, 1, NULL, false);
        for (int threads = 2; threads <= MOST; threads++) {
            const outcome other = train(v, threads, NULL, false);
            if (strcmp(one.hex, other.hex) != 0) fail_msg("%s: %d threads differ from 1", v->name, threads);
            assert_true(one.result.first_loss == other.result.first_loss);
            assert_true(one.result.last_loss == other.result.last_loss);
        }
    }
}

static void test_resumed_on_another_thread_count(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(variants); i++) {
        const variant *v = &variants[i];
        if (skipped(v)) continue;
        char *directory = tm__path_join(test_scratch(), "resume");
        const outcome whole = train(v, 2, NULL, false), part = train(v, 1, directory, true);
        const outcome resumed = train(v, 3, directory, false);
        assert_true(resumed.result.resumed && !whole.result.resumed);
        assert_string_not_equal(part.hex, whole.hex);
        if (strcmp(resumed.hex, whole.hex) != 0) fail_msg("%s: resumed with 3 threads differs", v->name);
        assert_true(resumed.result.first_loss == whole.result.first_loss);
        free(directory);
    }
}

/* The same bytes must not mean that nothing was computed: precision, kind and layout all show. */
static void test_variants_differ(void **state) {
    (void)state;
    enum { PLAIN = 5 };
    outcome made[PLAIN];
    for (size_t i = 0; i < PLAIN; i++) {
        made[i] = train(&variants[i], 2, NULL, false);
        assert_true(made[i].result.last_loss < made[i].result.first_loss);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(made[i].hex, made[j].hex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_count),
        cmocka_unit_test(test_resumed_on_another_thread_count),
        cmocka_unit_test(test_variants_differ),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
