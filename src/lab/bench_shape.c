/* bench_shape.c: which model is measured: one of a known size, of a config.json, or a checkpoint.
 *
 * Sizes are those of the published models' config.json; SmolLM-135M and Qwen2-0.5B tie output layer and embedding.
 * Random weights of a model that is read from disk are written to a temporary directory and mapped from there, as a
 * checkpoint is. (tests/unit/test_bench_gemm.c)
 */
#include "lab/bench.h"

#include "model/weights.h"

#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name, *architecture, *type;
    int hidden, intermediate, layers, heads, kv_heads, vocab, positions;
    double eps, theta;
    bool tied;
} shapes[] = {
    {"smollm-135m", "Llama", "llama", 576, 1536, 30, 9, 3, 49152, 8192, 1e-5, 1e4, true},
    {"qwen2-0.5b", "Qwen2", "qwen2", 896, 4864, 24, 14, 2, 151936, 32768, 1e-6, 1e6, true},
    {"llama-7b", "Llama", "llama", 4096, 11008, 32, 32, 32, 32000, 4096, 1e-5, 1e4, false},
    {"world", "Llama", "llama", 128, 384, 4, 4, 2, 1364, 8192, 1e-5, 1e4, true},
    {"tiny", "Llama", "llama", 32, 64, 2, 4, 2, 512, 8192, 1e-5, 1e4, true},
};

const char *tm_bench_shape_name(int shape) {
    return shape >= 0 && (size_t)shape < TM__COUNT(shapes) ? shapes[shape].name : NULL;
}

tm_status tm__bench_config(const tm__bench_source *source, char **config) {
    size_t len;
    int i = source->shape;
    if (source->config) return tm__file_read(source->config, (size_t)16 << 20, config, &len);
    *config = tm__format("{\"architectures\": [\"%sForCausalLM\"], \"model_type\": \"%s\", \"hidden_act\": "
                         "\"silu\", \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
                         "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d, "
                         "\"max_position_embeddings\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %.1f, "
                         "\"tie_word_embeddings\": %s, \"initializer_range\": 0.02, \"torch_dtype\": \"float32\"}",
                         shapes[i].architecture, shapes[i].type, shapes[i].hidden, shapes[i].intermediate,
                         shapes[i].layers, shapes[i].heads, shapes[i].kv_heads, shapes[i].vocab, shapes[i].positions,
                         shapes[i].eps, shapes[i].theta, shapes[i].tied ? "true" : "false");
    return *config ? TM_OK : tm__fail_memory();
}

/* Errors about the text of a config.json name no file. */
static tm_status told(const tm__bench_source *source, tm_status status) {
    bool about = status != TM_OK && status != TM_NO_MEMORY && status != TM_INTERRUPTED;
    return about && source->config ? tm__error_within(source->config, NULL) : status;
}

void tm__bench_described(const tm_model *model, tm_model_info *info, char dtype[16]) {
    tm_model_describe(model, info);
    if (dtype) snprintf(dtype, 16, "%s", info->dtype);
    info->architecture = info->dtype = info->rope_type = NULL; /* they end with the model */
}

tm_status tm__bench_describe(const tm__bench_source *source, tm_device *device, tm_model_info *info) {
    tm__config config;
    tm_model *skeleton;
    char *text;
    TM__TRY(tm__bench_config(source, &text));
    tm_status status = tm__config_parse(text, strlen(text), NULL, &config);
    free(text);
    if (status == TM_OK) status = tm__model_skeleton(device, &config, &skeleton);
    if (status != TM_OK) return told(source, status);
    tm__bench_described(skeleton, info, NULL);
    tm_model_free(skeleton);
    return TM_OK;
}

tm_status tm__bench_fits(const tm_model_info *model, double copies, size_t bytes) {
    double need = copies * (double)bytes * (double)model->parameters;
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE), gib = 1 << 30;
    if (!(have > 0) || need <= have) return TM_OK;
    return tm__fail(TM_NO_MEMORY, NULL, "shape", "measure its products alone: temper bench gemm",
                    "weights and what training adds to them take %.0f GiB, this machine has %.0f", need / gib,
                    have / gib);
}

/* ---- random weights in files ------------------------------------------------------------------------------------- */

tm_status tm__bench_scratch(char **directory) {
    const char *where = getenv("TMPDIR");
    char *made = tm__format("%s/temper-bench-XXXXXX", where && *where ? where : "/tmp");
    if (!made) return tm__fail_memory();
    if (mkdtemp(made)) {
        *directory = made;
        return TM_OK;
    }
    tm_status status = tm__fail_errno(made, "cannot be made");
    free(made);
    return status;
}

tm_status tm__bench_write(const tm__bench_source *source, const char *directory) {
    const tm_save_options save = {.dtype = source->weights ? TM_SAVE_BF16 : TM_SAVE_F32, .shard_bytes = INT64_MAX};
    char *config;
    TM__TRY(tm__bench_config(source, &config));
    tm_status status = tm_model_write_new(config, 1, directory, &save, NULL);
    free(config);
    return told(source, status);
}

/* A mapped file that has been removed stays until it is unmapped. */
tm_status tm__bench_open(const tm__bench_source *source, tm_device *device, tm_model **model) {
    char *scratch = NULL, *path;
    if (source->model && source->config)
        return tm__fail(TM_INVALID, NULL, "config", NULL, "a checkpoint has its own config.json");
    if (source->model) return tm_model_load(device, source->model, NULL, model);
    TM__TRY(tm__bench_scratch(&scratch));
    path = tm__path_join(scratch, "model");
    tm_status status = path ? tm__bench_write(source, path) : tm__fail_memory();
    if (status == TM_OK) status = tm_model_load(device, path, NULL, model);
    tm__remove_tree(scratch);
    free(scratch);
    free(path);
    return status;
}
