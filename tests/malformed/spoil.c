/* spoil.c: the model is written byte by byte here, so that every field of its files is known and can be spoilt. */
#include "spoil.h"

#include <sys/stat.h>
#include <unistd.h>

static char home[4096], place[64];

static const char config_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 8,"
    " \"intermediate_size\": 12, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"vocab_size\": 272, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,"
    " \"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"torch_dtype\": \"float32\"}";

static const struct {
    const char *name;
    int rows, columns; /* columns 0: a vector */
} tensors[] = {
    {"model.embed_tokens.weight", 272, 8},
    {"model.layers.0.input_layernorm.weight", 8, 0},
    {"model.layers.0.self_attn.q_proj.weight", 8, 8},
    {"model.layers.0.self_attn.k_proj.weight", 4, 8},
    {"model.layers.0.self_attn.v_proj.weight", 4, 8},
    {"model.layers.0.self_attn.o_proj.weight", 8, 8},
    {"model.layers.0.post_attention_layernorm.weight", 8, 0},
    {"model.layers.0.mlp.gate_proj.weight", 12, 8},
    {"model.layers.0.mlp.up_proj.weight", 12, 8},
    {"model.layers.0.mlp.down_proj.weight", 8, 12},
    {"model.norm.weight", 8, 0},
};

static const struct {
    const char *name;
    int rows, columns;
} adapter_tensors[] = {
    {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 2, 8},
    {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", 8, 2},
};

static const char adapter_text[] =
    "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": 2, \"lora_alpha\": 4, \"lora_dropout\": 0.0,"
    " \"target_modules\": [\"q_proj\"], \"bias\": \"none\", \"use_dora\": false, \"modules_to_save\": null,"
    " \"inference_mode\": true, \"base_model_name_or_path\": \"model\", \"fan_in_fan_out\": false}";

/* ---- whole files ------------------------------------------------------------------------------------------------- */

static void put(const char *path, const void *data, size_t len) {
    FILE *out = fopen(path, "wb");
    if (!out || (len && fwrite(data, 1, len, out) != len) || fclose(out) != 0) fail_msg("cannot write %s", path);
}

static char *get(const char *path, size_t *len) {
    FILE *in = fopen(path, "rb");
    if (!in) fail_msg("cannot read %s", path);
    fseek(in, 0, SEEK_END);
    *len = (size_t)ftell(in);
    rewind(in);
    char *data = calloc(*len + 1, 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *len, in), *len);
    fclose(in);
    return data;
}

/* Eight bytes of length, the header, the data. */
static void put_safetensors(const char *path, const char *header, size_t header_len, const void *data, size_t len) {
    char *file = malloc(8 + header_len + len);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (char)(header_len >> (8 * i));
    memcpy(file + 8, header, header_len);
    if (len) memcpy(file + 8 + header_len, data, len);
    put(path, file, 8 + header_len + len);
    free(file);
}

static size_t header_length(const char *file) {
    size_t len = 0;
    for (int i = 7; i >= 0; i--) len = len << 8 | (unsigned char)file[i];
    return len;
}

typedef struct sheet {
    char header[4096];
    size_t header_len, bytes;
    float data[4096];
} sheet;

static void add_tensor(sheet *to, const char *name, int rows, int columns) {
    size_t n = (size_t)rows * (size_t)(columns ? columns : 1), first = to->bytes / sizeof(float);
    char shape[32];
    assert_true(first + n <= TM__COUNT(to->data));
    snprintf(shape, sizeof shape, columns ? "%d,%d" : "%d", rows, columns);
    to->header_len +=
        (size_t)snprintf(to->header + to->header_len, sizeof to->header - to->header_len,
                         "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                         to->header_len ? "," : "{", name, shape, to->bytes, to->bytes + n * sizeof(float));
    for (size_t i = 0; i < n; i++) to->data[first + i] = columns ? (float)((int)((i * 7 + first) % 13) - 6) / 16 : 1;
    to->bytes += n * sizeof(float);
}

static void write_model(void) {
    static sheet weights;
    weights.header_len = weights.bytes = 0;
    for (size_t i = 0; i < TM__COUNT(tensors); i++)
        add_tensor(&weights, tensors[i].name, tensors[i].rows, tensors[i].columns);
    weights.header[weights.header_len++] = '}';
    put_safetensors("model/model.safetensors", weights.header, weights.header_len, weights.data, weights.bytes);
    put("model/config.json", config_text, sizeof config_text - 1);
}

static void copy_tokenizer(void) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
    const char *tiny = getenv("TINY");
    if (!tiny) fail_msg("TINY names no directory: run this through ctest");
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        char from[4096], to[64];
        size_t len;
        snprintf(from, sizeof from, "%s/tokenizer/%s", tiny, names[i]);
        snprintf(to, sizeof to, "model/%s", names[i]);
        char *data = get(from, &len);
        put(to, data, len);
        free(data);
    }
}

void spoil_begin(void) {
    static const char rows[] = "{\"prompt\": \"hello\", \"completion\": \"world\"}\n"
                               "{\"prompt\": \"the\", \"completion\": \"thing\"}\n";
    if (!home[0]) assert_non_null(getcwd(home, sizeof home));
    snprintf(place, sizeof place, "/tmp/temper-malformed-XXXXXX");
    assert_non_null(mkdtemp(place));
    assert_int_equal(chdir(place), 0);
    assert_int_equal(mkdir("model", 0777), 0);
    write_model();
    copy_tokenizer();
    put("rows.jsonl", rows, sizeof rows - 1);
}

void spoil_end(void) {
    assert_int_equal(chdir(home), 0);
    assert_ok(tm__remove_tree(place));
}

/* ---- spoiling files ---------------------------------------------------------------------------------------------- */

void spoil_nothing(const char *path, const char *a, const char *b) {
    (void)path, (void)a, (void)b;
}

void spoil_write(const char *path, const char *text, const char *unused) {
    (void)unused;
    put(path, text, strlen(text));
}

void spoil_append(const char *path, const char *text, const char *unused) {
    (void)unused;
    FILE *out = fopen(path, "ab");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

void spoil_remove(const char *path, const char *a, const char *b) {
    (void)a, (void)b;
    assert_int_equal(unlink(path), 0);
}

void spoil_directory(const char *path, const char *a, const char *b) {
    spoil_remove(path, a, b);
    assert_int_equal(mkdir(path, 0777), 0);
}

void spoil_truncate(const char *path, const char *size, const char *b) {
    (void)b;
    struct stat info;
    long n = strtol(size, NULL, 10);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, n < 0 ? info.st_size + n : n), 0);
}

static char *replaced(const char *text, size_t len, const char *from, const char *to, size_t *new_len) {
    const char *at = memmem(text, len, from, strlen(from));
    if (!at) fail_msg("'%s' does not stand in the file that is to be spoilt", from);
    size_t before = (size_t)(at - text), after = len - before - strlen(from);
    char *out = calloc(before + strlen(to) + after + 1, 1);
    assert_non_null(out);
    memcpy(out, text, before);
    memcpy(out + before, to, strlen(to));
    memcpy(out + before + strlen(to), at + strlen(from), after);
    *new_len = before + strlen(to) + after;
    return out;
}

void spoil_replace(const char *path, const char *from, const char *to) {
    size_t len, new_len;
    char *data = get(path, &len), *spoilt = replaced(data, len, from, to, &new_len);
    put(path, spoilt, new_len);
    free(data);
    free(spoilt);
}

enum { LEVELS = 100000 };

static char *deep_text(void) {
    char *text = calloc(2 * LEVELS + 1, 1);
    assert_non_null(text);
    memset(text, '[', LEVELS);
    memset(text + LEVELS, ']', LEVELS);
    return text;
}

void spoil_deep(const char *path, const char *a, const char *b) {
    (void)a, (void)b;
    char *text = deep_text();
    put(path, text, strlen(text));
    free(text);
}

/* ---- spoiling safetensors ---------------------------------------------------------------------------------------- */

static void put_header(const char *path, const char *header, size_t header_len) {
    size_t len;
    char *file = get(path, &len);
    size_t old = header_length(file);
    put_safetensors(path, header, header_len, file + 8 + old, len - 8 - old);
    free(file);
}

void spoil_header_whole(const char *path, const char *header, const char *b) {
    (void)b;
    put_header(path, header, strlen(header));
}

void spoil_header_deep(const char *path, const char *a, const char *b) {
    char *text = deep_text();
    (void)a, (void)b;
    put_header(path, text, strlen(text));
    free(text);
}

void spoil_header(const char *path, const char *from, const char *to) {
    size_t len, new_len;
    char *file = get(path, &len);
    char *header = replaced(file + 8, header_length(file), from, to, &new_len);
    put_header(path, header, new_len);
    free(file);
    free(header);
}

void spoil_header_length(const char *path, const char *length, const char *b) {
    (void)b;
    size_t len;
    char *file = get(path, &len);
    unsigned long long claimed = (unsigned long long)strtoll(length, NULL, 10);
    for (int i = 0; i < 8; i++) file[i] = (char)(claimed >> (8 * i));
    put(path, file, len);
    free(file);
}

void spoil_norm(const char *path, const char *entry, const char *b) {
    (void)b;
    size_t len, at = 0;
    char *file = get(path, &len), text[512];
    size_t bytes = len - 8 - header_length(file);
    for (const char *c = entry; *c && at + 24 < sizeof text; c++)
        if (c[0] == '@')
            at += (size_t)snprintf(text + at, sizeof text - at, "%zu", *++c == 'A' ? bytes - 32 : bytes);
        else
            text[at++] = *c;
    text[at] = 0;
    const char *name = memmem(file, len, "\"model.norm.weight\":", 20);
    assert_non_null(name);
    const char *begin = name + 20, *end = strchr(begin, '}');
    char old[512];
    snprintf(old, sizeof old, "%.*s", (int)(end + 1 - begin), begin);
    spoil_header(path, old, text);
    free(file);
}

void spoil_index(const char *index, const char *a, const char *b) {
    (void)a, (void)b;
    assert_int_equal(rename("model/model.safetensors", "model/part.safetensors"), 0);
    put("model/model.safetensors.index.json", index, strlen(index));
}

void spoil_last_float(const char *path, const char *bits, const char *b) {
    (void)b;
    size_t len;
    char *file = get(path, &len);
    unsigned long value = strtoul(bits, NULL, 16);
    for (int i = 0; i < 4; i++) file[len - 4 + (size_t)i] = (char)(value >> (8 * i));
    put(path, file, len);
    free(file);
}

/* ---- tokenizers and adapters ------------------------------------------------------------------------------------- */

void spoil_sentencepiece(const char *directory, const char *bytes, const char *b) {
    char path[256];
    (void)b;
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/tokenizer.model", directory);
    put(path, bytes, strlen(bytes));
}

void spoil_adapter(const char *path, const char *from, const char *to) {
    static sheet weights;
    (void)path;
    weights.header_len = weights.bytes = 0;
    for (size_t i = 0; i < TM__COUNT(adapter_tensors); i++)
        add_tensor(&weights, adapter_tensors[i].name, adapter_tensors[i].rows, adapter_tensors[i].columns);
    weights.header[weights.header_len++] = '}';
    assert_int_equal(mkdir("adapter", 0777), 0);
    put_safetensors("adapter/adapter_model.safetensors", weights.header, weights.header_len, weights.data,
                    weights.bytes);
    put("adapter/adapter_config.json", adapter_text, sizeof adapter_text - 1);
    spoil_replace("adapter/adapter_config.json", from, to);
}
