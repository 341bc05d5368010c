/* llama2c_to_hf MODEL TOKENIZER OUTPUT_DIR: a llama2.c checkpoint to a Hugging Face model directory.
 *
 * MODEL is llama2.c's v0 format: seven little-endian int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size,
 * seq_len; vocab_size is negative where the head is not tied to the embedding), then fp32 without padding:
 *
 *   embedding (V, D), attention norms (L, D), wq (L, D, D), wk, wv (L, K, D), wo (L, D, D), mlp norms (L, D), w1 gate
 * (L, F, D), w2 down (L, D, F), w3 up (L, F, D), final norm (D), RoPE cosines and sines (S, C/2 each; not needed),
 * [head (V, D)]
 *
 * with D dim, F hidden_dim, L layers, C = D / n_heads, K = n_kv_heads C, V vocab_size, S seq_len. RoPE turns
 * interleaved pairs (2i, 2i + 1) of a head there and halves (i, i + C/2) in a Hugging Face model, so the rows of wq and
 * wk change places within each head. TOKENIZER is SentencePiece's .model, which is copied, or llama2.c's .bin, which
 * becomes a tokenizer.json.
 */
#include "model/safetensors.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static const char usage[] = "Usage: llama2c_to_hf MODEL TOKENIZER OUTPUT_DIR\n"
                            "\n"
                            "Converts a llama2.c checkpoint (v0 format, fp32) to a Hugging Face model directory.\n"
                            "\n"
                            "  MODEL       llama2.c checkpoint, e.g. stories260K.bin\n"
                            "  TOKENIZER   SentencePiece tokenizer.model, or llama2.c's tokenizer.bin\n"
                            "  OUTPUT_DIR  made anew; an existing one is never replaced\n";

typedef struct sizes {
    int64_t dim, hidden, layers, heads, kv_heads, vocab, positions;
    int64_t head_dim, kv_dim;
    bool tied;
} sizes;

/* ---- the header -------------------------------------------------------------------------------------------------- */

enum { HEADER_BYTES = 28 };

static tm_status read_header(const tm__mapping *file, const char *path, sizes *s) {
    static const struct {
        const char *name;
        int64_t max;
    } fields[] = {{"dim", 1 << 17},        {"hidden_dim", 1 << 20}, {"n_layers", 1 << 10}, {"n_heads", 1 << 12},
                  {"n_kv_heads", 1 << 12}, {"vocab_size", 1 << 24}, {"seq_len", 1 << 24}};
    int32_t raw[7];
    if (file->len < HEADER_BYTES)
        return tm__fail(TM_FORMAT, path, "header", NULL, "the file is shorter than its header");
    memcpy(raw, file->data, HEADER_BYTES);
    s->tied = raw[5] > 0;
    int64_t values[7];
    for (size_t i = 0; i < 7; i++) {
        values[i] = i == 5 && !s->tied ? -(int64_t)raw[i] : raw[i];
        if (values[i] < 1 || values[i] > fields[i].max)
            return tm__fail(TM_FORMAT, path, fields[i].name, "is this a llama2.c checkpoint in v0 format?",
                            "%lld is outside 1 to %lld", (long long)values[i], (long long)fields[i].max);
    }
    *s = (sizes){values[0], values[1], values[2], values[3], values[4], values[5], values[6], 0, 0, s->tied};
    s->head_dim = s->dim / s->heads;
    s->kv_dim = s->kv_heads * s->head_dim;
    if (s->dim % s->heads != 0 || s->head_dim % 2 != 0)
        return tm__fail(TM_FORMAT, path, "n_heads", NULL, "dim %lld does not give %lld heads of even size",
                        (long long)s->dim, (long long)s->heads);
    if (s->heads % s->kv_heads != 0)
        return tm__fail(TM_FORMAT, path, "n_kv_heads", NULL, "%lld heads are not a multiple of %lld",
                        (long long)s->heads, (long long)s->kv_heads);
    if (s->vocab < 3)
        return tm__fail(TM_FORMAT, path, "vocab_size", NULL, "%lld leaves no room for unk, bos and eos",
                        (long long)s->vocab);
    return TM_OK;
}

/* fp32 numbers behind the header. */
static int64_t numbers(const sizes *s) {
    int64_t layer = 2 * s->dim + 2 * s->dim * s->dim + 2 * s->kv_dim * s->dim + 3 * s->hidden * s->dim;
    int64_t head = s->tied ? 0 : s->vocab * s->dim;
    return s->vocab * s->dim + s->layers * layer + s->dim + s->positions * s->head_dim + head;
}

static tm_status check_length(const tm__mapping *file, const char *path, const sizes *s) {
    int64_t wanted = HEADER_BYTES + 4 * numbers(s);
    if ((int64_t)file->len == wanted) return TM_OK;
    return tm__fail(TM_FORMAT, path, NULL, "is the download complete, and in v0 format?",
                    "the file has %zu bytes, its header asks for %lld", file->len, (long long)wanted);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* Rows of a wq or wk matrix in another order. */
typedef struct turned {
    const float *rows; /* (heads * head_dim, columns) */
    int64_t head_dim, columns;
} turned;

typedef struct converter {
    const sizes *s;
    const float *at; /* next number of the file */
    tm__safetensors_entry *entries;
    turned *matrices;
    size_t count, turned_count;
    tm__arena names;
} converter;

static tm_status produce_turned(void *user, size_t first, size_t n, void *out) {
    const turned *t = user;
    size_t columns = (size_t)t->columns, half = (size_t)t->head_dim / 2;
    for (size_t i = first, made = 0; made < n;) {
        size_t row = i / columns, column = i % columns;
        size_t head = row / (2 * half), within = row % (2 * half);
        size_t from = head * 2 * half + (within < half ? 2 * within : 2 * (within - half) + 1);
        size_t len = TM__MIN(columns - column, n - made);
        memcpy((float *)out + made, t->rows + from * columns + column, len * sizeof *t->rows);
        made += len;
        i += len;
    }
    return TM_OK;
}

/* `layer` -1: a tensor outside the blocks. columns 0: a vector. */
static tm_status add(converter *c, int64_t layer, const char *name, const float *data, int64_t rows, int64_t columns,
                     bool turn) {
    char full[128];
    if (layer >= 0)
        snprintf(full, sizeof full, "model.layers.%lld.%s.weight", (long long)layer, name);
    else
        snprintf(full, sizeof full, "%s.weight", name);
    const char *kept = tm__arena_strdup(&c->names, full, strlen(full));
    if (!kept) return tm__fail_memory();
    tm__safetensors_entry *entry = &c->entries[c->count++];
    *entry = (tm__safetensors_entry){.name = kept, .dtype = TM_F32};
    entry->source = (tm_tensor){TM_F32, columns ? 2 : 1, {rows, columns}, (void *)data};
    if (turn) {
        turned *matrix = &c->matrices[c->turned_count++];
        *matrix = (turned){data, c->s->head_dim, columns};
        entry->source.data = NULL;
        entry->produce = produce_turned;
        entry->user = matrix;
    }
    return TM_OK;
}

/* The file holds each kind of tensor for all layers at once. */
static tm_status add_layers(converter *c, const char *name, int64_t rows, int64_t columns, bool turn) {
    for (int64_t i = 0; i < c->s->layers; i++) {
        TM__TRY(add(c, i, name, c->at, rows, columns, turn));
        c->at += rows * TM__MAX(columns, (int64_t)1);
    }
    return TM_OK;
}

static tm_status list_tensors(converter *c) {
    const sizes *s = c->s;
    TM__TRY(add(c, -1, "model.embed_tokens", c->at, s->vocab, s->dim, false));
    c->at += s->vocab * s->dim;
    TM__TRY(add_layers(c, "input_layernorm", s->dim, 0, false));
    TM__TRY(add_layers(c, "self_attn.q_proj", s->dim, s->dim, true));
    TM__TRY(add_layers(c, "self_attn.k_proj", s->kv_dim, s->dim, true));
    TM__TRY(add_layers(c, "self_attn.v_proj", s->kv_dim, s->dim, false));
    TM__TRY(add_layers(c, "self_attn.o_proj", s->dim, s->dim, false));
    TM__TRY(add_layers(c, "post_attention_layernorm", s->dim, 0, false));
    TM__TRY(add_layers(c, "mlp.gate_proj", s->hidden, s->dim, false));
    TM__TRY(add_layers(c, "mlp.down_proj", s->dim, s->hidden, false));
    TM__TRY(add_layers(c, "mlp.up_proj", s->hidden, s->dim, false));
    TM__TRY(add(c, -1, "model.norm", c->at, s->dim, 0, false));
    c->at += s->dim + s->positions * s->head_dim; /* past the RoPE tables */
    return s->tied ? TM_OK : add(c, -1, "lm_head", c->at, s->vocab, s->dim, false);
}

static tm_status write_weights(const tm__mapping *file, const sizes *s, const char *directory) {
    converter c = {.s = s, .at = (const float *)(const void *)(file->data + HEADER_BYTES)};
    c.entries = tm__alloc((size_t)(9 * s->layers + 3), sizeof *c.entries);
    c.matrices = tm__alloc((size_t)(2 * s->layers), sizeof *c.matrices);
    tm_status status = c.entries && c.matrices ? list_tensors(&c) : tm__fail_memory();
    if (status == TM_OK) status = tm__checkpoint_write(directory, "model", c.entries, c.count, 5000000000);
    free(c.entries);
    free(c.matrices);
    tm__arena_release(&c.names);
    return status;
}

/* ---- the rest of the directory ----------------------------------------------------------------------------------- */

static tm_status write_text(const char *directory, const char *name, const tm__string *text, bool complete) {
    char *path = complete ? tm__path_join(directory, name) : NULL;
    tm_status status = path ? tm__file_write(path, text->data, text->len) : tm__fail_memory();
    free(path);
    return status;
}

static tm_status write_config(const sizes *s, const char *directory) {
    tm__string text = {0};
    bool ok = tm__string_printf(&text,
                                "{\n"
                                "  \"architectures\": [\"LlamaForCausalLM\"],\n"
                                "  \"model_type\": \"llama\",\n"
                                "  \"hidden_size\": %lld,\n"
                                "  \"intermediate_size\": %lld,\n"
                                "  \"num_hidden_layers\": %lld,\n"
                                "  \"num_attention_heads\": %lld,\n"
                                "  \"num_key_value_heads\": %lld,\n"
                                "  \"vocab_size\": %lld,\n"
                                "  \"max_position_embeddings\": %lld,\n",
                                (long long)s->dim, (long long)s->hidden, (long long)s->layers, (long long)s->heads,
                                (long long)s->kv_heads, (long long)s->vocab, (long long)s->positions) &&
              tm__string_printf(&text,
                                "  \"hidden_act\": \"silu\",\n"
                                "  \"rms_norm_eps\": 1e-05,\n"
                                "  \"rope_theta\": 10000.0,\n"
                                "  \"tie_word_embeddings\": %s,\n"
                                "  \"bos_token_id\": 1,\n"
                                "  \"eos_token_id\": 2,\n"
                                "  \"torch_dtype\": \"float32\"\n"
                                "}\n",
                                s->tied ? "true" : "false");
    tm_status status = write_text(directory, "config.json", &text, ok);
    tm__string_free(&text);
    return status;
}

static tm_status write_tokenizer_config(const sizes *s, const char *class, const char *directory) {
    tm__string text = {0};
    bool ok = tm__string_printf(&text,
                                "{\n"
                                "  \"tokenizer_class\": \"%s\",\n"
                                "  \"add_bos_token\": true,\n"
                                "  \"add_eos_token\": false,\n"
                                "  \"unk_token\": \"<unk>\",\n"
                                "  \"bos_token\": \"<s>\",\n"
                                "  \"eos_token\": \"</s>\",\n"
                                "  \"clean_up_tokenization_spaces\": false,\n"
                                "  \"model_max_length\": %lld\n"
                                "}\n",
                                class, (long long)s->positions);
    tm_status status = write_text(directory, "tokenizer_config.json", &text, ok);
    tm__string_free(&text);
    return status;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static tm_status copy_model(const char *from, const char *directory) {
    char *data, *to = tm__path_join(directory, "tokenizer.model");
    size_t len;
    tm_status status = to ? tm__file_read(from, 0, &data, &len) : tm__fail_memory();
    if (status == TM_OK) {
        status = tm__file_write(to, data, len);
        free(data);
    }
    free(to);
    return status;
}

static tm_status write_json(const tm_tokenizer *tokenizer, const char *directory) {
    char *path = tm__path_join(directory, "tokenizer.json");
    tm_status status = path ? tm__tokenizer_write_json(tokenizer, path) : tm__fail_memory();
    free(path);
    return status;
}

static tm_status write_tokenizer(const char *path, const sizes *s, const char *directory) {
    tm_tokenizer *tokenizer;
    bool copied = ends_with(path, ".model");
    if (!copied && !ends_with(path, ".bin"))
        return tm__fail(TM_UNSUPPORTED, path, NULL, "give a SentencePiece .model or a llama2.c .bin",
                        "the tokenizer's kind is not known by its name");
    TM__TRY(tm_tokenizer_load(path, &tokenizer));
    int64_t size = tm_tokenizer_vocab_size(tokenizer);
    tm_status status = TM_OK;
    if (size != s->vocab)
        status = tm__fail(TM_MISMATCH, path, NULL, "it belongs to another model",
                          "the tokenizer has %lld pieces, the model %lld", (long long)size, (long long)s->vocab);
    if (status == TM_OK) status = copied ? copy_model(path, directory) : write_json(tokenizer, directory);
    if (status == TM_OK)
        status = write_tokenizer_config(s, copied ? "LlamaTokenizer" : "PreTrainedTokenizerFast", directory);
    tm_tokenizer_free(tokenizer);
    return status;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static tm_status convert(const char *model, const char *tokenizer, const char *directory) {
    tm__mapping file = {0};
    tm__outdir out = {0};
    sizes s;
    TM__TRY(tm__file_map(model, &file));
    tm_status status = read_header(&file, model, &s);
    if (status == TM_OK) status = check_length(&file, model, &s);
    if (status == TM_OK) status = tm__outdir_begin(&out, directory, false);
    if (status == TM_OK) status = write_config(&s, out.aside);
    if (status == TM_OK) status = write_tokenizer(tokenizer, &s, out.aside);
    if (status == TM_OK) status = write_weights(&file, &s, out.aside);
    if (status == TM_OK) status = tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    tm__file_unmap(&file);
    return status;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return 0;
        }
    if (argc != 4) {
        fputs(usage, stderr);
        return tm_status_exit_code(TM_INVALID);
    }
    tm_status status = convert(argv[1], argv[2], argv[3]);
    if (status != TM_OK) fprintf(stderr, "llama2c_to_hf: %s\n", tm_error_last()->line);
    return tm_status_exit_code(status);
}
