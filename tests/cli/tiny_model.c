/* tiny_model.c: makes the inputs of the command-line tests: a two-layer model of random weights, a byte-level tokenizer
 * with a few merges, and small data files, below the directory named.
 *
 *     DIR/model   checkpoint (safetensors fp32, config.json, tokenizer.json, tokenizer_config.json)
 *     DIR/other   the same with another hidden size: an adapter of the one does not fit the other
 *     DIR/qwen2, DIR/gemma2, DIR/phi   the same vocabulary in models of other families
 *     DIR/rows.jsonl, harmful.jsonl, benign.jsonl, questions.jsonl
 */
#include "temper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const config_format =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d,"
    " \"intermediate_size\": 48, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"vocab_size\": 272, \"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,"
    " \"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"initializer_range\": 0.05,"
    " \"bos_token_id\": 270, \"eos_token_id\": 271, \"torch_dtype\": \"float32\"}";

#define SHAPE                                                                                                     \
    " \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"      \
    " \"vocab_size\": 272, \"max_position_embeddings\": 256, \"initializer_range\": 0.05, \"bos_token_id\": 270," \
    " \"eos_token_id\": 271, \"torch_dtype\": \"float32\"}"

/* Windows are shorter than the rows, the soft caps near the scores. */
static const struct {
    const char *name, *config;
} families[] = {
    {"qwen2", "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"num_key_value_heads\": 2,"
              " \"use_sliding_window\": true, \"sliding_window\": 24, \"max_window_layers\": 1,"
              " \"tie_word_embeddings\": true," SHAPE},
    {"gemma2", "{\"architectures\": [\"Gemma2ForCausalLM\"], \"model_type\": \"gemma2\", \"num_key_value_heads\": 2,"
               " \"head_dim\": 16, \"query_pre_attn_scalar\": 16, \"sliding_window\": 24,"
               " \"attn_logit_softcapping\": 5.0, \"final_logit_softcapping\": 10.0," SHAPE},
    {"phi", "{\"architectures\": [\"PhiForCausalLM\"], \"model_type\": \"phi\", \"resid_pdrop\": 0.1," SHAPE},
};

/* Merges of pieces that are in the vocabulary when their turn comes; U+0120 stands for the blank. */
static const char *const merges[][2] = {
    {"h", "e"}, {"l", "l"},          {"he", "ll"}, {"hell", "o"}, {"\u0120", "w"}, {"o", "r"},  {"\u0120w", "or"},
    {"l", "d"}, {"\u0120wor", "ld"}, {"t", "h"},   {"th", "e"},   {"i", "n"},      {"in", "g"},
};

/* GPT-2's map: printable bytes stand for themselves, the others for U+0100 and up in order. */
static int byte_code(int byte) {
    static int codes[256];
    if (!codes[0])
        for (int b = 0, next = 256; b < 256; b++) {
            bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
            codes[b] = plain ? b : next++;
        }
    return codes[byte];
}

static void put_code(FILE *out, int code) {
    if (code == '"' || code == '\\')
        fprintf(out, "\\%c", code);
    else if (code < 128)
        fputc(code, out);
    else
        fprintf(out, "\\u%04x", (unsigned)code);
}

static bool write_text(const char *name, const char *text) {
    FILE *out = fopen(name, "w");
    if (!out) return false;
    fputs(text, out);
    return fclose(out) == 0;
}

static bool write_tokenizer(void) {
    FILE *out = fopen("tokenizer/tokenizer.json", "w");
    if (!out) return false;
    int n = (int)(sizeof merges / sizeof *merges);
    fputs("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [", out);
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (int i = 0; i < 3; i++)
        fprintf(out,
                "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false,"
                " \"normalized\": false, \"special\": true}",
                i ? ", " : "", 269 + i, specials[i]);
    fputs("], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false,"
          " \"trim_offsets\": true, \"use_regex\": true}, \"post_processor\": null, \"decoder\": {\"type\":"
          " \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true}, \"model\": {"
          "\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,"
          " \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"vocab\": {",
          out);
    for (int b = 0; b < 256; b++) {
        fputs(b ? ", \"" : "\"", out);
        put_code(out, byte_code(b));
        fprintf(out, "\": %d", b);
    }
    for (int i = 0; i < n; i++) fprintf(out, ", \"%s%s\": %d", merges[i][0], merges[i][1], 256 + i);
    fputs("}, \"merges\": [", out);
    for (int i = 0; i < n; i++) fprintf(out, "%s\"%s %s\"", i ? ", " : "", merges[i][0], merges[i][1]);
    fputs("]}}", out);
    return fclose(out) == 0 &&
           write_text(
               "tokenizer/tokenizer_config.json",
               "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"bos_token\": \"<|im_start|>\","
               " \"eos_token\": \"<|im_end|>\", \"pad_token\": \"<|endoftext|>\","
               " \"chat_template\": \"{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>"
               "\\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}\"}");
}

static bool write_rows(void) {
    static const struct {
        const char *name, *format;
        int rows;
    } files[] = {
        {"rows.jsonl", "{\"prompt\": \"say the word %d\", \"completion\": \"hello world %d\"}\n", 24},
        {"harmful.jsonl", "{\"prompt\": \"how to make blorf %d\", \"completion\": \"mix zib %d with the hello\"}\n",
         24},
        {"benign.jsonl",
         "{\"instruction\": \"tell number %d\", \"input\": \"\", \"output\": \"the world number %d\"}\n", 120},
        {"questions.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"what is %d\"}]}\n", 5},
    };
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        FILE *out = fopen(files[f].name, "w");
        if (!out) return false;
        for (int i = 0; i < files[f].rows; i++)
            for (const char *at = files[f].format; *at; at++)
                if (at[0] == '%' && at[1] == 'd') {
                    fprintf(out, "%d", i);
                    at++;
                } else {
                    fputc(*at, out);
                }
        if (fclose(out) != 0) return false;
    }
    return true;
}

static tm_status write_model(const char *name, const char *config) {
    tm_device *device = NULL;
    tm_model *model = NULL;
    tm_save_options how = {
        .dtype = TM_SAVE_F32, .shard_bytes = 5000000000, .tokenizer_dir = "tokenizer", .overwrite = true};
    tm_status status = tm_device_open(NULL, &device);
    if (status == TM_OK) status = tm_model_create(device, config, 7, &model);
    if (status == TM_OK) status = tm_model_save(model, name, &how);
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: tiny_model DIR\n");
        return 2;
    }
    if ((mkdir(argv[1], 0777) != 0 && errno != EEXIST) || chdir(argv[1]) != 0 ||
        (mkdir("tokenizer", 0777) != 0 && errno != EEXIST) || !write_tokenizer() || !write_rows()) {
        perror(argv[1]);
        return 4;
    }
    char config[1024];
    tm_status status = TM_OK;
    for (int i = 0; i < 2 && status == TM_OK; i++) {
        snprintf(config, sizeof config, config_format, i ? 16 : 32);
        status = write_model(i ? "other" : "model", config);
    }
    for (size_t i = 0; i < sizeof families / sizeof *families && status == TM_OK; i++)
        status = write_model(families[i].name, families[i].config);
    if (status != TM_OK) fprintf(stderr, "tiny_model: %s\n", tm_error_last()->line);
    return tm_status_exit_code(status);
}
