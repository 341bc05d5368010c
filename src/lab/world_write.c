/* world_write.c: the built-in world as files: its tokenizer and every data set, one JSON Lines file each. */
#include "lab/key.h"
#include "lab/world.h"

#include <stdlib.h>

static tm_status write_text(const char *directory, const char *name, const char *text, size_t len) {
    char *path = tm__path_join(directory, name);
    if (!path) return tm__fail_memory();
    tm_status status = tm__file_write(path, text, len);
    free(path);
    return status;
}

static tm_status write_set(const tm_world *world, const char *directory, const char *name) {
    tm_dataset *set = NULL;
    TM__TRY(tm_world_set(world, name, &set));
    tm__string file = {0};
    char *path = NULL;
    tm_status status = TM_OK;
    if (tm__string_printf(&file, "%s.jsonl", name)) path = tm__path_join(directory, file.data);
    status = path ? tm_dataset_save(set, path) : tm__fail_memory();
    free(path);
    tm__string_free(&file);
    tm_dataset_free(set);
    return status;
}

/* Both files of it into an existing directory. */
static tm_status write_tokenizer(const tm_world *world, const char *directory) {
    tm__string json = {0};
    tm_status status = tm__world_tokenizer_json(world, &json);
    if (status == TM_OK) status = write_text(directory, "tokenizer.json", json.data, json.len);
    tm__string_free(&json);
    TM__TRY(status);
    const char *config = tm__world_tokenizer_config();
    return write_text(directory, "tokenizer_config.json", config, strlen(config));
}

tm_status tm_world_write(const tm_world *world, const char *directory) {
    tm__outdir out = {0};
    TM__TRY(tm__outdir_begin(&out, directory, true));
    tm_status status = write_tokenizer(world, out.aside);
    const char *name;
    for (size_t i = 0; (name = tm_world_set_name(i)) && status == TM_OK; i++)
        status = write_set(world, out.aside, name);
    if (status == TM_OK) status = tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    return status;
}

tm_status tm__world_set_hash(const tm_world *world, const char *name, char hex[65]) {
    tm__sha256 hash;
    tm_dataset *set = NULL;
    TM__TRY(tm_world_set(world, name, &set));
    tm__sha256_init(&hash);
    tm__key_text(&hash, "set", name);
    tm__key_dataset(&hash, set);
    tm_dataset_free(set);
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}

tm_status tm__world_tokenizer_hash(const tm_world *world, char hex[65]) {
    tm__sha256 hash;
    tm__string json = {0};
    tm_status status = tm__world_tokenizer_json(world, &json);
    tm__sha256_init(&hash);
    if (status == TM_OK) tm__key_text(&hash, "tokenizer", json.data);
    tm__string_free(&json);
    tm__sha256_hex(&hash, hex);
    return status;
}

tm_status tm__world_hash(const tm_world *world, char hex[65]) {
    tm__sha256 hash;
    const char *name;
    tm__sha256_init(&hash);
    TM__TRY(tm__world_tokenizer_hash(world, hex));
    tm__key_text(&hash, "tokenizer", hex);
    for (size_t i = 0; (name = tm_world_set_name(i)); i++) {
        TM__TRY(tm__world_set_hash(world, name, hex));
        tm__key_text(&hash, name, hex);
    }
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}

char *tm__world_model_config(const tm_tokenizer *tokenizer, int64_t hidden, int64_t ffn, int64_t layers) {
    return tm__format("{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": "
                      "\"silu\", \"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_hidden_layers\": %lld, "
                      "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": %d, "
                      "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
                      "\"tie_word_embeddings\": true, \"initializer_range\": 0.02, \"attention_bias\": false, "
                      "\"mlp_bias\": false, \"torch_dtype\": \"float32\", \"eos_token_id\": %d, "
                      "\"pad_token_id\": %d}",
                      (long long)hidden, (long long)ffn, (long long)layers, tm_tokenizer_vocab_size(tokenizer),
                      tm_tokenizer_eos(tokenizer), tm_tokenizer_pad(tokenizer));
}
