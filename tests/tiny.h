/* tiny.h: a byte-level tokenizer, a two-layer model and small data sets that tests of training make for themselves. */
#ifndef TM_TEST_TINY_H
#define TM_TEST_TINY_H

#include "support.h"

#include "model/model.h"
#include "train/train.h"

#include <jansson.h>

enum { TINY_END = 256, TINY_START, TINY_STOP, TINY_VOCAB };

static const char tiny_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":259,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"initializer_range\":0.08,"
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\",\"eos_token_id\":258}";

static inline void tiny_write(const char *directory, const char *name, json_t *value) {
    char *path = tm__path_join(directory, name), *text = json_dumps(value, 0);
    assert_ok(tm__file_write(path, text, strlen(text)));
    free(path);
    free(text);
    json_decref(value);
}

/* The printable stand-in of a byte in a byte-level vocabulary (GPT-2): itself, or 256 and up for the unprintable. */
static inline uint32_t tiny_stand_in(int byte) {
    uint32_t next = 256;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte) return printable ? (uint32_t)b : next;
        next += !printable;
    }
    return 0;
}

/* 256 bytes and three special tokens, in a new directory. */
static inline const char *tiny_tokenizer_directory(void) {
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    const char *directory = test_scratch();
    json_t *vocab = json_object(), *added = json_array();
    for (int b = 0; b < 256; b++) {
        char piece[8];
        piece[tm__utf8_encode(tiny_stand_in(b), piece)] = 0;
        json_object_set_new(vocab, piece, json_integer(b));
    }
    for (int i = 0; i < 3; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", TINY_END + i, "content",
                                               specials[i], "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                               "special", 1));
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                              "use_regex", 1);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "vocab", vocab, "merges");
    tiny_write(directory, "tokenizer.json",
               json_pack("{s:s, s:n, s:n, s:o, s:n, s:O, s:n, s:O, s:o}", "version", "1.0", "truncation", "padding",
                         "added_tokens", added, "normalizer", "pre_tokenizer", level, "post_processor", "decoder",
                         level, "model", model));
    json_decref(level);
    tiny_write(directory, "tokenizer_config.json",
               json_pack("{s:s, s:s}", "eos_token", specials[2], "pad_token", specials[0]));
    return directory;
}

static inline tm_tokenizer *tiny_tokenizer(void) {
    tm_tokenizer *tokenizer = NULL;
    assert_ok(tm_tokenizer_load(tiny_tokenizer_directory(), &tokenizer));
    assert_int_equal(tm_tokenizer_vocab_size(tokenizer), TINY_VOCAB);
    return tokenizer;
}

/* "ref64", "ref32" or "cpu". */
static inline tm_device *tiny_device(const char *name) {
    tm_device *device = NULL;
    bool cpu = strcmp(name, "cpu") == 0;
    const tm_device_options options = {
        .name = cpu ? "cpu" : "ref",
        .threads = 1, /* tests share the machine; bytes are the same for every number (test_determinism) */
        .precision = strcmp(name, "ref64") == 0 ? TM_PRECISION_F64 : TM_PRECISION_F32,
    };
    assert_ok(tm_device_open(&options, &device));
    return device;
}

static inline tm_model *tiny_model(tm_device *device) {
    tm_model *model = NULL;
    assert_ok(tm_model_create(device, tiny_config, 5, &model));
    return model;
}

/* n rows of different lengths; `kind` makes their texts differ from those of other kinds. */
static inline tm_dataset *tiny_rows(const char *kind, int n) {
    static const char *const words[] = {"amber", "brook", "cedar", "dune", "ember", "fern", "grove"};
    tm_dataset *dataset = NULL;
    assert_ok(tm_dataset_create(&dataset));
    for (int i = 0; i < n; i++) {
        char question[128], answer[64];
        snprintf(question, sizeof question, "%s %s %d?", kind, words[i % 7], i);
        snprintf(answer, sizeof answer, "%s%s%s", words[(i + 3) % 7], i % 3 ? " " : "",
                 i % 3 ? words[(i + 5) % 7] : "");
        const tm_message row[] = {{"user", question}, {"assistant", answer}};
        assert_ok(tm_dataset_add(dataset, row, 2));
    }
    return dataset;
}

static inline tm_train_options tiny_options(void) {
    tm_train_options options;
    tm_options_default(tm_train_option_table, &options);
    options.steps = 6;
    options.batch = 4;
    options.lr = 1e-2;
    options.chat = TM_CHAT_CHATML;
    return options;
}

static inline void tiny_hash(const tm_model *model, char hex[65]) {
    assert_ok(tm_model_hash(model, hex));
}

#endif
