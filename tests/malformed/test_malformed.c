/* test_malformed.c: the real program against malformed inputs.
 *
 * Every probe starts from a good model and good data, spoils one thing and runs a command. The command must end with
 * its own exit code (never a signal), with one line on standard error that names the file and the field, with nothing
 * on standard output, and without leaving anything behind. Built with sanitizers, none of them may speak.
 */
#include "spoil.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct probe {
    const char *name;
    void (*spoil)(const char *path, const char *a, const char *b);
    const char *path, *a, *b;
    const char *command;     /* arguments, separated by blanks; relative to the probe's directory */
    int code;                /* exit code: temper_base.h, TM_STATUS_LIST */
    const char *file, *says; /* what the line must hold; NULL: anything */
} probe;

#define CONFIG "model/config.json"
#define WEIGHTS "model/model.safetensors"
#define TOKENIZER "model/tokenizer.json"
#define INSPECT "inspect model"
#define TOKENIZE "tokenize --model model hello"
#define EVAL "eval --model model --data rows.jsonl"
#define ADAPTED "inspect --model model --adapter adapter"
#define GROW "{\"type\": \"Replace\", \"pattern\": {\"String\": \"l\"}, \"content\": \"llllllllllllllllllll\"}"
#define GROW4 GROW ", " GROW ", " GROW ", " GROW
#define GROWING "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" GROW4 ", " GROW4 "]}"
#define TRAIN "finetune --model model --data rows.jsonl --out out --steps 1"

static const probe probes[] = {
    /* safetensors */
    {"empty weights", spoil_write, WEIGHTS, "", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"four bytes", spoil_truncate, WEIGHTS, "4", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"truncated header", spoil_truncate, WEIGHTS, "100", NULL, INSPECT, 6, "model.safetensors", "header"},
    {"truncated data", spoil_truncate, WEIGHTS, "-1", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"trailing bytes", spoil_append, WEIGHTS, "x", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"header length of all ones", spoil_header_length, WEIGHTS, "-1", NULL, INSPECT, 6, "model.safetensors", "header"},
    {"header length past the end", spoil_header_length, WEIGHTS, "1000000", NULL, INSPECT, 6, "model.safetensors",
     "header"},
    {"header length zero", spoil_header_length, WEIGHTS, "0", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"header is no JSON", spoil_header, WEIGHTS, "\"dtype\"", "dtype", INSPECT, 6, "model.safetensors", NULL},
    {"header is a list", spoil_header_whole, WEIGHTS, "[]", NULL, INSPECT, 6, "model.safetensors", NULL},
    {"header of stray bytes", spoil_header_whole, WEIGHTS, "{\"\xff\xfe\": 1}", NULL, INSPECT, 6, "model.safetensors",
     NULL},
    {"header nested too deep", spoil_header_deep, WEIGHTS, NULL, NULL, INSPECT, 6, "model.safetensors", NULL},
    {"a tensor twice", spoil_header, WEIGHTS, "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
     INSPECT, 6, "model.safetensors", NULL},
    {"offsets past the end", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[@A,999999999]}",
     NULL, INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"offsets of 2^64", spoil_norm, WEIGHTS,
     "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[@A,18446744073709551615]}", NULL, INSPECT, 6,
     "model.safetensors", NULL},
    {"offsets negative", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[-32,0]}", NULL,
     INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"offsets reversed", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[@B,@A]}", NULL,
     INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"tensors overlap", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]}", NULL, INSPECT,
     6, "model.safetensors", NULL},
    {"offsets are text", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":\"@A\"}", NULL,
     INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"one offset", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[@A]}", NULL, INSPECT, 6,
     "model.safetensors", "model.norm.weight"},
    {"no dtype", spoil_norm, WEIGHTS, "{\"shape\":[8],\"data_offsets\":[@A,@B]}", NULL, INSPECT, 6, "model.safetensors",
     "model.norm.weight"},
    {"dtype unknown", spoil_norm, WEIGHTS, "{\"dtype\":\"Q8\",\"shape\":[8],\"data_offsets\":[@A,@B]}", NULL, INSPECT,
     -1, "model.safetensors", "model.norm.weight"},
    {"dtype of integers", spoil_norm, WEIGHTS, "{\"dtype\":\"I32\",\"shape\":[8],\"data_offsets\":[@A,@B]}", NULL,
     INSPECT, -1, "model", "model.norm.weight"},
    {"dtype of another width", spoil_norm, WEIGHTS, "{\"dtype\":\"BF16\",\"shape\":[8],\"data_offsets\":[@A,@B]}", NULL,
     INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"shape too large for its bytes", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[@A,@B]}",
     NULL, INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"shape overflows", spoil_norm, WEIGHTS,
     "{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[@A,@B]}", NULL, INSPECT, 6,
     "model.safetensors", "model.norm.weight"},
    {"shape negative", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[-8],\"data_offsets\":[@A,@B]}", NULL,
     INSPECT, 6, "model.safetensors", "model.norm.weight"},
    {"shape of another rank", spoil_norm, WEIGHTS, "{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[@A,@B]}", NULL,
     INSPECT, -1, "model", "model.norm.weight"},
    {"shape transposed", spoil_header, WEIGHTS, "[12,8]", "[8,12]", INSPECT, -1, "model", "gate_proj"},
    {"tensor missing", spoil_header, WEIGHTS, "model.norm.weight", "model.nor.weight", INSPECT, -1, "model",
     "model.nor"},
    {"weight not a number", spoil_last_float, WEIGHTS, "7fc00000", NULL, INSPECT, 9, "model", "model.norm.weight"},
    {"weight infinite", spoil_last_float, WEIGHTS, "ff800000", NULL, INSPECT, 9, "model", "model.norm.weight"},
    {"weights are a directory", spoil_directory, WEIGHTS, NULL, NULL, INSPECT, -1, "model.safetensors", NULL},
    {"weights missing", spoil_remove, WEIGHTS, NULL, NULL, INSPECT, 5, "model", "safetensors"},
    {"index names no file", spoil_index,
     "{\"metadata\":{},\"weight_map\":{\"model.norm.weight\":\"gone.safetensors\"}}", NULL, NULL, INSPECT, -1, "model",
     "gone.safetensors"},
    {"index leaves the directory", spoil_index,
     "{\"metadata\":{},\"weight_map\":{\"model.norm.weight\":\"../model/part.safetensors\"}}", NULL, NULL, INSPECT, 6,
     "index.json", NULL},
    {"index is a list", spoil_index, "[1]", NULL, NULL, INSPECT, 6, "index.json", NULL},
    {"index without a map", spoil_index, "{}", NULL, NULL, INSPECT, 6, "index.json", "weight_map"},
    {"index names a number", spoil_index, "{\"weight_map\":{\"model.norm.weight\":7}}", NULL, NULL, INSPECT, 6,
     "index.json", "model.norm.weight"},
    {"index names too few tensors", spoil_index, "{\"weight_map\":{\"model.norm.weight\":\"part.safetensors\"}}", NULL,
     NULL, INSPECT, -1, "model", NULL},
    {"index is no JSON", spoil_index, "{\"weight_map\":", NULL, NULL, INSPECT, 6, "index.json", NULL},

    /* config.json */
    {"no config", spoil_remove, CONFIG, NULL, NULL, INSPECT, 5, "config.json", NULL},
    {"config empty", spoil_write, CONFIG, "", NULL, INSPECT, 6, "config.json", NULL},
    {"config is no JSON", spoil_write, CONFIG, "{\"hidden_size\": 8", NULL, INSPECT, 6, "config.json", NULL},
    {"config is a number", spoil_write, CONFIG, "17", NULL, INSPECT, 6, "config.json", NULL},
    {"config nested too deep", spoil_deep, CONFIG, NULL, NULL, INSPECT, 6, "config.json", NULL},
    {"config of stray bytes", spoil_write, CONFIG, "{\"model_type\": \"\xc3\x28\"}", NULL, INSPECT, 6, "config.json",
     NULL},
    {"config is a directory", spoil_directory, CONFIG, NULL, NULL, INSPECT, -1, "config.json", NULL},
    {"architecture unknown", spoil_replace, CONFIG, "LlamaForCausalLM", "GPT2LMHeadModel", INSPECT, 7, "config.json",
     "architectures"},
    {"no hidden_size", spoil_replace, CONFIG, "\"hidden_size\": 8,", "", INSPECT, 6, "config.json", "hidden_size"},
    {"hidden_size negative", spoil_replace, CONFIG, "\"hidden_size\": 8", "\"hidden_size\": -8", INSPECT, 6,
     "config.json", "hidden_size"},
    {"hidden_size huge", spoil_replace, CONFIG, "\"hidden_size\": 8", "\"hidden_size\": 9223372036854775807", INSPECT,
     6, "config.json", "hidden_size"},
    {"hidden_size past 64 bits", spoil_replace, CONFIG, "\"hidden_size\": 8",
     "\"hidden_size\": 99999999999999999999999999", INSPECT, 6, "config.json", NULL},
    {"hidden_size is text", spoil_replace, CONFIG, "\"hidden_size\": 8", "\"hidden_size\": \"8\"", INSPECT, 6,
     "config.json", "hidden_size"},
    {"hidden_size of another model", spoil_replace, CONFIG, "\"hidden_size\": 8", "\"hidden_size\": 16", INSPECT, -1,
     "model", "weight"},
    {"a key twice", spoil_replace, CONFIG, "\"hidden_size\": 8,", "\"hidden_size\": 8, \"hidden_size\": 8,", INSPECT, 6,
     "config.json", NULL},
    {"layers beyond the weights", spoil_replace, CONFIG, "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1000",
     INSPECT, -1, "model", NULL},
    {"heads do not divide", spoil_replace, CONFIG, "\"num_attention_heads\": 2", "\"num_attention_heads\": 3", INSPECT,
     6, "config.json", "head"},
    {"no heads", spoil_replace, CONFIG, "\"num_attention_heads\": 2", "\"num_attention_heads\": 0", INSPECT, 6,
     "config.json", "num_attention_heads"},
    {"activation unknown", spoil_replace, CONFIG, "\"silu\"", "\"gelu\"", INSPECT, 7, "config.json", "hidden_act"},
    {"quantised", spoil_replace, CONFIG, "\"hidden_size\": 8,",
     "\"hidden_size\": 8, \"quantization_config\": {\"bits\": 4},", INSPECT, 7, "config.json", "quantization_config"},
    {"RoPE scaling unknown", spoil_replace, CONFIG, "\"hidden_size\": 8,",
     "\"hidden_size\": 8, \"rope_scaling\": {\"type\": \"spiral\", \"factor\": 4.0},", INSPECT, 7, "config.json",
     "rope"},
    {"norm epsilon is text", spoil_replace, CONFIG, "1e-05", "\"small\"", INSPECT, 6, "config.json", "rms_norm_eps"},
    {"no such model", spoil_nothing, NULL, NULL, NULL, "inspect nowhere", 5, "nowhere", NULL},
    {"model is a file", spoil_nothing, NULL, NULL, NULL, "inspect rows.jsonl", -1, "rows.jsonl", NULL},

    /* tokenizers */
    {"no tokenizer", spoil_remove, TOKENIZER, NULL, NULL, TOKENIZE, 5, "model", "tokenizer"},
    {"tokenizer is no JSON", spoil_write, TOKENIZER, "{", NULL, TOKENIZE, 6, "tokenizer.json", NULL},
    {"tokenizer nested too deep", spoil_deep, TOKENIZER, NULL, NULL, TOKENIZE, 6, "tokenizer.json", NULL},
    {"tokenizer without a model", spoil_write, TOKENIZER, "{\"added_tokens\": []}", NULL, TOKENIZE, 6, "tokenizer.json",
     "model"},
    {"tokenizer of another type", spoil_replace, TOKENIZER, "\"BPE\"", "\"Letters\"", TOKENIZE, 7, "tokenizer.json",
     "Letters"},
    {"vocabulary is a list", spoil_write, TOKENIZER, "{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}",
     NULL, TOKENIZE, 6, "tokenizer.json", "vocab"},
    {"id negative", spoil_replace, TOKENIZER, "\"he\": 256", "\"he\": -1", TOKENIZE, 6, "tokenizer.json", "vocab"},
    {"id huge", spoil_replace, TOKENIZER, "\"he\": 256", "\"he\": 4294967296", TOKENIZE, 6, "tokenizer.json", "vocab"},
    {"id used twice", spoil_replace, TOKENIZER, "\"he\": 256", "\"he\": 257", TOKENIZE, 6, "tokenizer.json", NULL},
    {"merge without its result", spoil_replace, TOKENIZER, "\"he\": 256, ", "", TOKENIZE, 6, "tokenizer.json",
     "merges"},
    {"merge of one piece", spoil_replace, TOKENIZER, "\"h e\"", "\"he\"", TOKENIZE, 6, "tokenizer.json", "merges"},
    {"merge of a number", spoil_replace, TOKENIZER, "\"h e\"", "7", TOKENIZE, 6, "tokenizer.json", "merges"},
    {"merges out of themselves", spoil_replace, TOKENIZER, "\"h e\"", "\"he l\", \"hel o\", \"h e\"", TOKENIZE, 6,
     "tokenizer.json", "merges"},
    {"pattern that does not compile", spoil_replace, TOKENIZER,
     "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}",
     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(((\"}, \"behavior\": \"Isolated\", \"invert\": false}",
     TOKENIZE, 6, "tokenizer.json", NULL},
    {"tokenizer is a list", spoil_write, TOKENIZER, "[1]", NULL, TOKENIZE, 6, "tokenizer.json", "model"},
    {"eos is a number", spoil_write, "model/tokenizer_config.json", "{\"eos_token\": 3}", NULL, TOKENIZE, 6,
     "tokenizer_config.json", "eos_token"},
    {"eos without its text", spoil_write, "model/tokenizer_config.json", "{\"eos_token\": {\"content\": 3}}", NULL,
     TOKENIZE, 6, "tokenizer_config.json", "eos_token"},
    {"chat template is a number", spoil_write, "model/tokenizer_config.json", "{\"chat_template\": 3}", NULL, TOKENIZE,
     6, "tokenizer_config.json", "chat_template"},
    {"normalizer that grows and grows", spoil_replace, TOKENIZER, "\"normalizer\": null", GROWING, TOKENIZE, 6, NULL,
     "normalizer"},
    {"tokenizer.model cut off", spoil_sentencepiece, "model", "\x0a\x7f\x0a", NULL, TOKENIZE, 6, "tokenizer.model",
     NULL},
    {"tokenizer.model of huge lengths", spoil_sentencepiece, "model", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
     NULL, TOKENIZE, 6, "tokenizer.model", NULL},
    {"tokenizer.model of text", spoil_sentencepiece, "model", "this is no protobuf", NULL, TOKENIZE, 6,
     "tokenizer.model", NULL},
    {"tokenizer.model empty", spoil_sentencepiece, "model", "", NULL, TOKENIZE, 6, "tokenizer.model", NULL},

    /* data */
    {"no data", spoil_remove, "rows.jsonl", NULL, NULL, EVAL, 5, "rows.jsonl", NULL},
    {"data empty", spoil_write, "rows.jsonl", "", NULL, EVAL, 6, "rows.jsonl", "no rows"},
    {"data of blank lines", spoil_write, "rows.jsonl", "\n\n \n", NULL, EVAL, 6, "rows.jsonl", "no rows"},
    {"data is a directory", spoil_directory, "rows.jsonl", NULL, NULL, EVAL, -1, "rows.jsonl", NULL},
    {"row is no JSON", spoil_append, "rows.jsonl", "{\"prompt\": \"a\", \n", NULL, EVAL, 6, "rows.jsonl", "line 3"},
    {"row of stray bytes", spoil_append, "rows.jsonl", "{\"prompt\": \"\xff\", \"completion\": \"b\"}\n", NULL, EVAL, 6,
     "rows.jsonl", "line 3"},
    {"row without an answer", spoil_append, "rows.jsonl", "{\"prompt\": \"a\"}\n", NULL, EVAL, 6, "rows.jsonl",
     "line 3"},
    {"row of another type", spoil_append, "rows.jsonl", "{\"prompt\": \"a\", \"completion\": 7}\n", NULL, EVAL, 6,
     "rows.jsonl", "line 3"},
    {"row is a number", spoil_append, "rows.jsonl", "17\n", NULL, EVAL, 6, "rows.jsonl", "line 3"},
    {"row of another layout", spoil_append, "rows.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n", NULL, EVAL,
     6, "rows.jsonl", "line 3"},
    {"role unknown", spoil_write, "rows.jsonl",
     "{\"messages\": [{\"role\": \"wizard\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
     NULL, EVAL, 6, "rows.jsonl", "role"},
    {"messages empty", spoil_write, "rows.jsonl", "{\"messages\": []}\n", NULL, EVAL, 6, "rows.jsonl", "messages"},
    {"row nested too deep", spoil_deep, "rows.jsonl", NULL, NULL, EVAL, 6, "rows.jsonl", NULL},
    {"training on bad data", spoil_append, "rows.jsonl", "{\"prompt\": \"a\"}\n", NULL, TRAIN, 6, "rows.jsonl",
     "line 3"},
    {"training bad weights", spoil_last_float, WEIGHTS, "7fc00000", NULL, TRAIN, 9, "model", "model.norm.weight"},
    {"defending with no harmful rows", spoil_write, "harm.jsonl", "", NULL,
     "defend sdd --model model --harmful harm.jsonl --benign rows.jsonl --out out", 6, "harm.jsonl", "no rows"},
    {"answering no questions", spoil_write, "rows.jsonl", "", NULL,
     "generate --model model --data rows.jsonl --out out", 6, "rows.jsonl", "no rows"},

    /* adapters */
    {"no adapter", spoil_nothing, NULL, NULL, NULL, ADAPTED, 5, "adapter", NULL},
    {"adapter of another kind", spoil_adapter, NULL, "\"LORA\"", "\"IA3\"", ADAPTED, 7, "adapter_config.json",
     "peft_type"},
    {"adapter with DoRA", spoil_adapter, NULL, "\"use_dora\": false", "\"use_dora\": true", ADAPTED, 7,
     "adapter_config.json", "use_dora"},
    {"adapter of rank 0", spoil_adapter, NULL, "\"r\": 2", "\"r\": 0", ADAPTED, 6, "adapter_config.json", "r"},
    {"adapter of another rank", spoil_adapter, NULL, "\"r\": 2", "\"r\": 3", ADAPTED, -1, "adapter", NULL},
    {"adapter for other modules", spoil_adapter, NULL, "[\"q_proj\"]", "[\"w_proj\"]", ADAPTED, -1, "adapter", NULL},
};

/* ---- running ----------------------------------------------------------------------------------------------------- */

static const char *binary(void) {
    const char *path = getenv("TEMPER_BIN");
    return path ? path : "build/temper";
}

static size_t slurp(int fd, char *out, size_t size) {
    size_t at = 0;
    char rest[4096];
    for (;;) {
        bool room = at + 1 < size;
        ssize_t n = read(fd, room ? out + at : rest, room ? size - 1 - at : sizeof rest);
        if (n <= 0) break;
        if (room) at += (size_t)n;
    }
    out[at] = 0;
    return at;
}

/* Runs the program with `arguments`; returns its wait status. Standard output goes to a file, which is then read. */
static int run_as(uid_t user, const char *arguments, char *out, char *err, size_t size) {
    char words[512], *argv[32] = {(char *)binary()};
    int pipe_fd[2], status = -1, n = 1;
    snprintf(words, sizeof words, "%s", arguments);
    for (char *at = words, *rest = NULL; (at = strtok_r(at, " ", &rest)) != NULL && n < 31; at = NULL) argv[n++] = at;
    argv[n] = NULL;
    assert_int_equal(pipe(pipe_fd), 0);
    int out_fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    assert_true(out_fd >= 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(out_fd, 1);
        dup2(pipe_fd[1], 2);
        close(pipe_fd[0]);
        close(pipe_fd[1]);
        if (user == geteuid() || setuid(user) == 0) execv(argv[0], argv);
        _exit(126);
    }
    close(pipe_fd[1]);
    slurp(pipe_fd[0], err, size);
    close(pipe_fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    lseek(out_fd, 0, SEEK_SET);
    slurp(out_fd, out, size);
    close(out_fd);
    return status;
}

static int run(const char *arguments, char *out, char *err, size_t size) {
    return run_as(geteuid(), arguments, out, err, size);
}

static int entries(const char *path) {
    DIR *directory = opendir(path);
    int n = 0;
    assert_non_null(directory);
    while (readdir(directory)) n++;
    closedir(directory);
    return n;
}

/* NULL, or what is wrong. */
static const char *judge(const probe *test, int status, const char *out, const char *err, int before, int after) {
    size_t len = strlen(err);
    if (WIFSIGNALED(status)) return "ended by a signal";
    if (strstr(err, "Sanitizer") || strstr(err, "runtime error:")) return "a sanitizer reported";
    if (WEXITSTATUS(status) == 126) return "the program cannot be run";
    if (WEXITSTATUS(status) == 0) return "was accepted";
    if (test->code > 0 && WEXITSTATUS(status) != test->code) return "another exit code";
    if (test->code < 0 && (WEXITSTATUS(status) < 4 || WEXITSTATUS(status) > 9)) return "an exit code of no input error";
    if (strncmp(err, "temper: ", 8) != 0 || len == 0 || err[len - 1] != '\n') return "no error line";
    if (strchr(err, '\n') != err + len - 1) return "more than one line";
    if (test->file && !strstr(err, test->file)) return "the file is not named";
    if (test->says && !strstr(err, test->says)) return "the field is not named";
    if (out[0]) return "something on standard output";
    if (before != after) return "something is left behind";
    return NULL;
}

static void test_probes(void **state) {
    (void)state;
    static char out[65536], err[65536];
    int failed = 0;
    for (size_t i = 0; i < TM__COUNT(probes); i++) {
        const probe *test = &probes[i];
        spoil_begin();
        test->spoil(test->path, test->a, test->b);
        int before = entries(".");
        int status = run(test->command, out, err, sizeof err);
        const char *wrong = judge(test, status, out, err, before, entries("."));
        if (!wrong && strstr(test->command, "--out out") && access("out", F_OK) == 0) wrong = "output is left";
        if (wrong) {
            failed++;
            print_message("%s: %s (exit code %d)\n    %s", test->name, wrong,
                          WIFEXITED(status) ? WEXITSTATUS(status) : -1, err[0] ? err : "nothing said\n");
        }
        spoil_end();
    }
    assert_int_equal(failed, 0);
}

/* What looks odd and is allowed: the probes would prove nothing if everything were refused. */
static void test_good(void **state) {
    (void)state;
    static char out[65536], err[65536];
    static const char *const commands[] = {INSPECT, TOKENIZE, EVAL, "inspect model --norms --hash",
                                           "generate --model model --prompt hello --max-new-tokens 1"};
    for (size_t i = 0; i < TM__COUNT(commands); i++)
        for (int odd = 0; odd < 2; odd++) {
            spoil_begin();
            if (odd) spoil_header(WEIGHTS, "{", "{   "); /* data now begins at an odd address */
            if (odd) spoil_append("rows.jsonl", "\r\n{\"prompt\": \"a\", \"completion\": \"b\"}\r\n", NULL);
            int status = run(commands[i], out, err, sizeof err);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("%s: %s", commands[i], err);
            assert_true(out[0] != 0);
            spoil_end();
        }
    spoil_begin();
    spoil_adapter(NULL, "\"r\": 2", "\"r\": 2");
    if (run(ADAPTED, out, err, sizeof err) != 0) fail_msg("%s", err);
    spoil_end();
}

/* Permissions mean nothing to root: there the program is run as another user. */
static void test_unreadable(void **state) {
    (void)state;
    static char out[65536], err[65536];
    static const char *const files[][2] = {{CONFIG, INSPECT}, {WEIGHTS, INSPECT}, {"rows.jsonl", EVAL}};
    for (size_t i = 0; i < TM__COUNT(files); i++) {
        spoil_begin();
        assert_int_equal(chmod(".", 0755), 0);
        assert_int_equal(chmod(files[i][0], 0), 0);
        int status = run_as(geteuid() == 0 ? 65534 : geteuid(), files[i][1], out, err, sizeof err);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 126) {
            print_message("the program cannot be run by another user: nothing to test\n");
        } else {
            assert_int_equal(WEXITSTATUS(status), 4);
            if (!strstr(err, files[i][0]) || !strstr(err, "ermission")) fail_msg("%s", err);
        }
        assert_int_equal(chmod(files[i][0], 0644), 0);
        spoil_end();
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
