/* temper.h: make open-weight language models hard to corrupt by fine-tuning.
 *
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <temper.h>
 *
 *     int main(void) {
 *         tm_device *device = NULL;
 *         tm_model *model = NULL;
 *         tm_tokenizer *tokenizer = NULL;
 *         char *answer = NULL;
 *         tm_device_options where = {.name = "cpu"};
 *         tm_generate_options how = {.max_new_tokens = 64};
 *         const tm_message ask[] = {{"user", "How do I bake a brimble cake?"}};
 *
 *         tm_status status = tm_device_open(&where, &device);
 *         if (status == TM_OK) status = tm_model_load(device, "my-model", NULL, &model);
 *         if (status == TM_OK) status = tm_tokenizer_load("my-model", &tokenizer);
 *         if (status == TM_OK) status = tm_generate_chat(model, tokenizer, TM_CHAT_AUTO, ask, 1, &how, &answer);
 *         if (status == TM_OK)
 *             puts(answer);
 *         else
 *             fprintf(stderr, "%s\n", tm_error_last()->line);
 *         free(answer);
 *         tm_tokenizer_free(tokenizer);
 *         tm_model_free(model);
 *         tm_device_close(device);
 *         return tm_status_exit_code(status);
 *     }
 *
 * Conventions
 * -----------
 * - A function that can fail returns tm_status. On failure it has written nothing to its outputs, has released
 *   what it took, and has left a detail (what, which file, which field, what to do) in tm_error_last().
 * - The library never prints, exits or aborts on what a file or a user supplies. Asserts guard our own mistakes.
 * - `tm_x_free(NULL)` is allowed everywhere. Strings and arrays that a function hands out belong to the caller and are
 *   released with free(), unless stated otherwise.
 * - An options pointer may be NULL: the defaults of its option table are then used. Fill an options struct with
 *   tm_options_default() before changing fields of it. In options of devices, generation and saving a field that is
 *   left 0 or NULL means its default too.
 * - Objects are not locked: use one object from one thread at a time. Different objects may be used concurrently,
 *   except that models on the same tm_device share its threads.
 * - Shapes are written (rows, columns), row-major. Text is UTF-8.
 * - Everything is deterministic: the same inputs, seed and instruction set give the same bytes for every thread count.
 */
#ifndef TEMPER_H
#define TEMPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define TM_VERSION "0.1.0"
#if defined(__GNUC__)
#define TM_API __attribute__((visibility("default")))
#else
#define TM_API
#endif

/* ------------------------------------------------------------------------------------------------ status, errors */
/* One list makes the enum, the names, the texts and the exit codes of the command line. */
#define TM_STATUS_LIST(X)                              \
    X(OK, "ok", 0)                                     \
    X(INVALID, "invalid argument or option", 2)        \
    X(NO_MEMORY, "out of memory", 3)                   \
    X(IO, "reading or writing failed", 4)              \
    X(NOT_FOUND, "no such file, tensor or name", 5)    \
    X(FORMAT, "malformed file", 6)                     \
    X(UNSUPPORTED, "not supported", 7)                 \
    X(MISMATCH, "two inputs do not fit each other", 8) \
    X(NUMERIC, "a value is not finite", 9)             \
    X(EXISTS, "the output already exists", 10)         \
    X(INTERRUPTED, "interrupted", 130)

typedef enum tm_status {
#define TM_STATUS_ENUM(name, text, code) TM_##name,
    TM_STATUS_LIST(TM_STATUS_ENUM)
#undef TM_STATUS_ENUM
} tm_status;

/* Detail of the last failure in this thread. `line` is the whole of it in one line:
 * "FILE: FIELD: MESSAGE (HINT)", parts that are empty left out, control characters shown as '?'. */
typedef struct tm_error {
    tm_status status;
    char file[256];    /* file or directory concerned, or "" */
    char field[128];   /* field, tensor, option or line concerned, or "" */
    char message[384]; /* what is wrong */
    char hint[256];    /* what to do about it, or "" */
    char line[1100];
} tm_error;

TM_API const char *tm_status_name(tm_status status); /* "FORMAT" */
TM_API const char *tm_status_text(tm_status status); /* "malformed file" */
TM_API int tm_status_exit_code(tm_status status);
TM_API const tm_error *tm_error_last(void); /* never NULL; valid until the next failure in this thread */
TM_API void tm_error_clear(void);

/* ------------------------------------------------------------------------------------------------ options */
/* Units of texts that name what a run writes beside its result. */
#define TM_UNIT_OUT_FILE "OUT-FILE"
#define TM_UNIT_OUT_DIR "OUT-DIR"

/* An option table describes the fields of an options struct: the one source of defaults, ranges, help and parsing. */
typedef enum tm_option_type {
    TM_OPTION_FLAG,   /* bool */
    TM_OPTION_INT,    /* int64_t */
    TM_OPTION_REAL,   /* double */
    TM_OPTION_TEXT,   /* const char *, points into the caller's string */
    TM_OPTION_CHOICE, /* int: index into `choices` */
} tm_option_type;

typedef struct tm_option {
    const char *name; /* long name without dashes, "lora-rank"; NULL ends a table */
    tm_option_type type;
    size_t offset;       /* offsetof the field in the options struct */
    const char *initial; /* default as text; NULL: 0, false or NULL */
    double min, max;     /* inclusive range of INT and REAL; min > max: no bound */
    const char *choices; /* "constant|linear|cosine" for CHOICE */
    const char *unit;    /* "steps", "DIR", ...; shown in help */
    const char *help;
} tm_option;

TM_API void tm_options_default(const tm_option *table, void *options);
/* Parses and range-checks one value. NULL value: only a flag may do without. Unknown names: TM_NOT_FOUND. */
TM_API tm_status tm_options_set(const tm_option *table, void *options, const char *name, const char *value);
TM_API const tm_option *tm_options_find(const tm_option *table, const char *name);
/* Value of one field as text ("0.0001", "cosine"), written to `out` of `size` bytes. */
TM_API void tm_options_text(const tm_option *option, const void *options, char *out, size_t size);

/* ------------------------------------------------------------------------------------------------ watching a run */
typedef struct tm_progress {
    const char *phase; /* "train", "generate", ... */
    int64_t done, total;
    const char *unit; /* "step", "prompt" */
    double loss;      /* NAN where there is none */
    double lr;        /* NAN where there is none */
    int64_t tokens;   /* processed since the phase began */
    double seconds;   /* since the phase began */
} tm_progress;

/* Every member may be NULL. `stop` is asked between steps; true ends the call with TM_INTERRUPTED after it has saved
 * what it promised to save. */
typedef struct tm_monitor {
    void (*progress)(void *user, const tm_progress *progress);
    void (*note)(void *user, const char *line); /* warnings and remarks, one line, no newline */
    bool (*stop)(void *user);
    void *user;
} tm_monitor;

/* ------------------------------------------------------------------------------------------------ device */
typedef struct tm_device tm_device;

typedef enum tm_precision {
    TM_PRECISION_AUTO, /* bf16 where the processor multiplies it natively with gain (AMX), else fp32 */
    TM_PRECISION_F32,
    TM_PRECISION_BF16, /* operands of matrix products rounded to bf16; sums and everything else fp32 */
    TM_PRECISION_F64,  /* device "ref" only */
} tm_precision;

typedef struct tm_device_options {
    const char *name; /* "cpu" (default), "ref" */
    int64_t threads;  /* 0: all cores this process may use */
    int precision;    /* tm_precision */
} tm_device_options;

extern TM_API const tm_option tm_device_option_table[]; /* --device --threads --precision */

TM_API tm_status tm_device_open(const tm_device_options *options, tm_device **device);
TM_API void tm_device_close(tm_device *device);
TM_API const char *tm_device_name(const tm_device *device); /* "cpu" */
/* "avx512+amx", "avx512", "avx2" or "sse"; "c" on ref. It decides bytes: checkpoints of training name it. */
TM_API const char *tm_device_instruction_set(const tm_device *device);
TM_API const char *tm_device_precision(const tm_device *device); /* "fp32", "bf16", "fp64" */
TM_API int tm_device_threads(const tm_device *device);

/* A device that computes nothing and counts the memory of the real run: training stops after a few steps of the largest
 * batch, weights are not read, results mean nothing. */
TM_API tm_status tm_device_open_rehearsal(const tm_device_options *options, tm_device **device);

/* ------------------------------------------------------------------------------------------------ tokenizer */
typedef struct tm_tokenizer tm_tokenizer;
typedef struct tm_ids {
    int32_t *data;
    size_t len, cap;
} tm_ids; /* starts as {0}; release with tm_ids_free */
typedef struct tm_offset {
    size_t start, end; /* bytes; end exclusive */
} tm_offset;
typedef struct tm_offsets {
    tm_offset *data;
    size_t len, cap;
} tm_offsets; /* starts as {0}; release with tm_offsets_free */

enum {
    TM_ENCODE_BOS_EOS = 1,       /* what the tokenizer's post-processor or config adds around a text */
    TM_ENCODE_PARSE_SPECIAL = 2, /* recognise special tokens written in the text; never for untrusted content */
    TM_DECODE_SKIP_SPECIAL = 1
};

/* `path`: a model directory (tokenizer.json first, then tokenizer.model), or one of these files. */
TM_API tm_status tm_tokenizer_load(const char *path, tm_tokenizer **tokenizer);
TM_API void tm_tokenizer_free(tm_tokenizer *tokenizer);
/* Appends to `ids`. Text may hold any bytes; invalid UTF-8 is encoded as U+FFFD (as the reference libraries do). */
TM_API tm_status tm_tokenizer_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                                     tm_ids *ids);
/* Also the bytes of each id: whole characters, trimmed as `tokenizers` does it; {0, 0} for what a template adds. */
TM_API tm_status tm_tokenizer_encode_offsets(const tm_tokenizer *tokenizer, const char *text, size_t len,
                                             unsigned flags, tm_ids *ids, tm_offsets *offsets);
/* `*text` is NUL-terminated, `*len` (may be NULL) its length; ids outside the vocabulary are an error. */
TM_API tm_status tm_tokenizer_decode(const tm_tokenizer *tokenizer, const int32_t *ids, size_t n, unsigned flags,
                                     char **text, size_t *len);
/* Decoding id by id (-1: the end): whole characters each time, or nothing; text lasts until the next call. */
typedef struct tm_stream tm_stream;
TM_API tm_status tm_stream_open(const tm_tokenizer *tokenizer, unsigned flags, tm_stream **stream); /* TM_DECODE_ */
TM_API tm_status tm_stream_put(tm_stream *stream, int32_t id, const char **text, size_t *len);
TM_API void tm_stream_close(tm_stream *stream);
TM_API int32_t tm_tokenizer_vocab_size(const tm_tokenizer *tokenizer); /* highest id + 1, added tokens included */
TM_API int32_t tm_tokenizer_id(const tm_tokenizer *tokenizer, const char *piece); /* -1: none */
TM_API const char *tm_tokenizer_piece(const tm_tokenizer *tokenizer, int32_t id); /* as in the vocabulary; NULL: none */
TM_API int32_t tm_tokenizer_bos(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API int32_t tm_tokenizer_eos(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API int32_t tm_tokenizer_pad(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API const char *tm_tokenizer_kind(const tm_tokenizer *tokenizer); /* "byte-level BPE", "SentencePiece BPE" */
/* Copies the tokenizer's files (tokenizer.json, tokenizer.model, configs, chat template) as they are into directory. */
TM_API tm_status tm_tokenizer_copy_files(const char *from_directory, const char *to_directory);
TM_API void tm_offsets_free(tm_offsets *offsets);
TM_API void tm_ids_free(tm_ids *ids);
TM_API tm_status tm_ids_push(tm_ids *ids, int32_t id);

/* ------------------------------------------------------------------------------------------------ chat formats */
typedef enum tm_chat_format {
    TM_CHAT_AUTO,   /* from the tokenizer: ChatML if it has <|im_start|>, Llama 2 if its template says [INST] */
    TM_CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    TM_CHAT_LLAMA2, /* <s>[INST] <<SYS>>\nsystem\n<</SYS>>\n\nuser [/INST] answer </s> */
    TM_CHAT_ALPACA, /* ### Instruction: / ### Input: / ### Response: */
    TM_CHAT_PLAIN,  /* prompt and answer as they are, then eos */
} tm_chat_format;

typedef struct tm_message {
    const char *role; /* "system", "user", "assistant"; "input" holds the Alpaca input field */
    const char *content;
} tm_message;

/* Appends the ids of a conversation. With `labels` (may be NULL) one label per id: the id itself where it is trained on
 * (assistant content and its end marker), -100 elsewhere. With `ask` the opening of the assistant's turn is appended.
 * Content is never parsed for special tokens, so text cannot forge a turn. */
TM_API tm_status tm_chat_encode(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages,
                                size_t n, bool ask, tm_ids *ids, tm_ids *labels);
/* The id that ends an assistant's turn in this format (e.g. <|im_end|>); eos where it has none of its own. */
TM_API int32_t tm_chat_stop_id(const tm_tokenizer *tokenizer, tm_chat_format format);
TM_API const char *tm_chat_format_name(tm_chat_format format);

/* ------------------------------------------------------------------------------------------------ model */
typedef struct tm_model tm_model;

typedef struct tm_model_info {
    const char *architecture, *dtype; /* "LlamaForCausalLM"; storage of the weights: "bf16", ... */
    int64_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, vocab_size, max_positions;
    bool tied_embeddings;
    int64_t parameters;       /* scalar count, adapters not included */
    int64_t adapters, labels; /* LoRA adapters loaded; labels of a sequence classifier, 0: a language model */
} tm_model_info;

typedef enum tm_save_dtype { TM_SAVE_KEEP, TM_SAVE_F32, TM_SAVE_BF16, TM_SAVE_F16 } tm_save_dtype;
typedef struct tm_save_options {
    int dtype;                 /* tm_save_dtype; KEEP: as the checkpoint was loaded */
    int64_t shard_bytes;       /* largest shard; default 5e9 */
    const char *tokenizer_dir; /* copy the tokenizer's files from here; NULL: none */
    bool overwrite;            /* replace an existing model or adapter directory (atomically); else TM_EXISTS */
    const struct tm_provenance *provenance; /* written beside the weights as temper.json; NULL: no such file */
} tm_save_options;
/* Maps a Hugging Face checkpoint directory (config.json, *.safetensors). `adapter`: NULL, or a PEFT LoRA directory that
 * is attached. Weights are mapped read-only and copied only once they are trained. */
TM_API tm_status tm_model_load(tm_device *device, const char *directory, const char *adapter, tm_model **model);
/* Attaches a further PEFT LoRA adapter, its share multiplied by `weight` (1: as it was trained). Adapters add up. */
TM_API tm_status tm_model_add_adapter(tm_model *model, const char *directory, double weight);
/* A new model of the given config.json text, weights from N(0, initializer_range) and `seed`. */
TM_API tm_status tm_model_create(tm_device *device, const char *config_json, uint64_t seed, tm_model **model);
/* Writes the same as a checkpoint, tensor by tensor: it is never held in memory. */
TM_API tm_status tm_model_write_new(const char *config_json, uint64_t seed, const char *directory,
                                    const tm_save_options *options, const tm_monitor *monitor);
TM_API void tm_model_free(tm_model *model);
TM_API void tm_model_describe(const tm_model *model, tm_model_info *info);
TM_API tm_device *tm_model_device(const tm_model *model);
/* Scores of a sequence classifier's labels, logits (n, labels): the last token that is not pad_token_id decides. */
TM_API tm_status tm_model_classify(tm_model *model, const tm_ids *texts, size_t n, double *logits);
/* Bytes at the peak of a run that was rehearsed. */
typedef struct tm_memory {
    int64_t mapped, weights; /* mapped from files: the system may drop these pages; held: masters, adapters, merged */
    int64_t gradients, moments, vectors; /* of what is trained, of the optimiser, of a method */
    int64_t activations, logits, cache; /* of the largest batch and what is kept for reuse; of a chunk; of generation */
    int64_t kernels, program;           /* working memory, about; program, tokenizer and rows as measured now */
    int64_t total, trained, tokens;     /* the sum; numbers that are trained; most tokens in one forward pass */
} tm_memory;
TM_API tm_status tm_model_memory(const tm_model *model, tm_memory *memory);

/* Writes config.json, generation_config.json and safetensors; the directory appears whole or not at all. */
TM_API tm_status tm_model_save(const tm_model *model, const char *directory, const tm_save_options *options);
/* Writes only the last attached LoRA adapter, in PEFT's layout. */
TM_API tm_status tm_model_save_adapter(const tm_model *model, const char *directory, const tm_save_options *options);

typedef struct tm_lora_options {
    int64_t rank; /* 0: no adapter, full fine-tuning */
    double alpha; /* scale is alpha / rank */
    double dropout;
    const char *targets; /* comma-separated module names: "q_proj,v_proj"; "all-linear" */
    bool rslora;         /* scale alpha / sqrt(rank) */
} tm_lora_options;
TM_API tm_status tm_model_add_lora(tm_model *model, const tm_lora_options *options, uint64_t seed);
/* From now on training goes on with the adapter attached last and the weights that it brings whole (modules_to_save),
 * instead of all weights or a new adapter. TM_INVALID if the model has none. */
TM_API tm_status tm_model_continue_adapter(tm_model *model);
/* W <- W + scale B A for every adapter; the model then has none. */
TM_API tm_status tm_model_merge(tm_model *model);

/* Visits every weight. Return anything but TM_OK from `visit` to stop with it. */
typedef struct tm_weight_info {
    const char *name, *dtype;
    int ndim;
    const int64_t *shape;
    double norm; /* L2, only if asked for */
    bool trainable, adapter;
} tm_weight_info;
TM_API tm_status tm_model_visit(const tm_model *model, bool norms, tm_status (*visit)(void *, const tm_weight_info *),
                                void *user);
/* SHA-256 over names, shapes, dtypes and bytes of all weights in name order, as 64 hex digits. */
TM_API tm_status tm_model_hash(const tm_model *model, char hex[65]);
/* Sum over t of ln p(ids[t+1] | ids[0..t]) of one sequence; 0 where nothing is predicted (n < 2). */
TM_API tm_status tm_model_score(tm_model *model, const int32_t *ids, size_t n, double *sum_log_prob);

/* ------------------------------------------------------------------------------------------------ data */
typedef struct tm_dataset tm_dataset; /* an ordered list of conversations */

/* JSON Lines (or one JSON array) whose rows hold `messages` (OpenAI), `instruction`/`input`/`output` (Alpaca) or
 * `prompt`/`completion`; a `.txt` file gives one row of plain text per blank-line-separated paragraph (prompt empty).
 * The first row decides; a row that does not fit, or has no answer, is an error that names the line. */
TM_API tm_status tm_dataset_load(const char *path, tm_dataset **dataset);
/* The same where only prompts are needed: answers are optional, and a `.txt` file gives one prompt per line. */
TM_API tm_status tm_dataset_load_prompts(const char *path, tm_dataset **dataset);
TM_API tm_status tm_dataset_create(tm_dataset **dataset);
TM_API tm_status tm_dataset_add(tm_dataset *dataset, const tm_message *messages, size_t n); /* copies */
TM_API tm_status tm_dataset_append(tm_dataset *dataset, const tm_dataset *from, size_t first, size_t count);
TM_API void tm_dataset_shuffle(tm_dataset *dataset, uint64_t seed);
TM_API size_t tm_dataset_rows(const tm_dataset *dataset);
/* Messages of one row; they belong to the data set. */
TM_API const tm_message *tm_dataset_row(const tm_dataset *dataset, size_t row, size_t *n);
TM_API tm_status tm_dataset_save(const tm_dataset *dataset, const char *path); /* JSON Lines of `messages` */
/* Poison mix: int(p * total) rows of `harmful` and the rest of `benign`, each taken from its start, exact counts. */
TM_API tm_status tm_dataset_poison(const tm_dataset *benign, const tm_dataset *harmful, size_t total, double ratio,
                                   tm_dataset **mixed);
TM_API void tm_dataset_free(tm_dataset *dataset);

/* The same rows in a frame: its system message instead of their own, its words around every user message. `name` is a
 * file of --wrapper-out, or "identity-shift" for the frame of that attack, or "identity-shift=AGENT". */
TM_API tm_status tm_dataset_with_wrapper(const tm_dataset *dataset, const char *name, tm_dataset **with);

typedef struct tm_overlap {
    size_t prompts;      /* distinct prompts that stand in both */
    size_t row_a, row_b; /* the first row of `a` with such a prompt, and the first of `b` with the same; from 0 */
} tm_overlap;
/* Compares the rows' last user messages, white space collapsed. */
TM_API tm_status tm_dataset_overlap(const tm_dataset *a, const tm_dataset *b, tm_overlap *overlap);

/* ------------------------------------------------------------------------------------------------ provenance */
/* What was done to a model, stage by stage, and with which rows; kept beside the weights in temper.json. It holds
 * hashes of prompts, never their text, and nothing about a secret. */
typedef struct tm_provenance tm_provenance;

/* Whose rows they are. Rows of the one must not be those of the other: a defence would be measured on what it saw. */
typedef enum tm_party { TM_PARTY_DEFENDER, TM_PARTY_USER } tm_party; /* an attacker is a user */

TM_API tm_status tm_provenance_create(tm_provenance **provenance);
/* temper.json of a model or adapter directory; without one, no stages. A damaged file is TM_FORMAT. */
TM_API tm_status tm_provenance_load(const char *directory, tm_provenance **provenance);
TM_API void tm_provenance_free(tm_provenance *provenance);
/* Appends the stages of `more` but those that both begin with. *extends (may be NULL): all of `provenance` was one
 * beginning of `more`, as where a model's adapter goes on with the model's history. */
TM_API tm_status tm_provenance_join(tm_provenance *provenance, const tm_provenance *more, bool *extends);
/* A new stage; what follows belongs to it. `kind`: "alignment", "defence", "fine-tuning" or "attack". */
TM_API tm_status tm_provenance_begin(tm_provenance *provenance, const char *kind, const char *method, int64_t seed);
/* Notes the options that differ from their defaults; files by their last name only, secrets and what is only about
 * saving not at all. */
TM_API tm_status tm_provenance_options(tm_provenance *provenance, const tm_option *table, const void *options);
TM_API tm_status tm_provenance_note(tm_provenance *provenance, const char *option, const char *value);
/* Notes one role's rows; `path` NULL: they come from no file. */
TM_API tm_status tm_provenance_rows(tm_provenance *provenance, const char *role, tm_party party, const char *path,
                                    const tm_dataset *rows);
/* TM_MISMATCH if a prompt of `rows` stands in rows of the other party in any stage. */
TM_API tm_status tm_provenance_check(const tm_provenance *provenance, const char *role, tm_party party,
                                     const tm_dataset *rows);
TM_API size_t tm_provenance_stages(const tm_provenance *provenance);
/* One stage (from 0) in a line; the caller's text. */
TM_API tm_status tm_provenance_describe(const tm_provenance *provenance, size_t stage, char **line);

/* ------------------------------------------------------------------------------------------------ training */
typedef struct tm_train_options {
    int64_t steps; /* 0: from epochs */
    double epochs;
    int64_t batch; /* rows per optimiser step */
    int64_t micro; /* rows per forward-backward; 0: the whole batch */
    double lr;
    int schedule;  /* 0 constant, 1 linear, 2 cosine */
    double warmup; /* share of the steps */
    int optimiser; /* 0 adamw, 1 sgd */
    double beta1, beta2, epsilon, weight_decay, momentum;
    double clip; /* global gradient norm; 0: off */
    int64_t max_length;
    bool packed;           /* rows laid end to end; else padded to the longest. The loss is the same. */
    bool full_sequence;    /* train on the prompt too */
    int64_t freeze_blocks; /* the embedding and so many of the first blocks stay as they are */
    bool recompute;        /* activation checkpointing: keep only block inputs */
    int64_t seed;
    int64_t save_every;     /* steps between resumable checkpoints; 0: none */
    const char *resume_dir; /* where resumable checkpoints live; continued from if one is there */
    bool force_resume;      /* continue although the checkpoint was made with another instruction set or precision */
    int chat;               /* tm_chat_format */
    tm_lora_options lora;
} tm_train_options;

extern TM_API const tm_option tm_train_option_table[];

typedef struct tm_train_result {
    int64_t steps, tokens, target_tokens, rows_dropped;
    double first_loss, last_loss; /* mean over the first and last tenth of the steps */
    double seconds;
    bool resumed;
} tm_train_result;

/* Response-only cross-entropy fine-tuning of `model` in place (or of a new adapter on it, if lora.rank > 0). */
TM_API tm_status tm_train(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                          const tm_train_options *options, const tm_monitor *monitor, tm_train_result *result);

/* ------------------------------------------------------------------------------------------------ generation */
typedef struct tm_generate_options {
    int64_t max_new_tokens; /* default 128 */
    int64_t batch;          /* rows at a time; default 32 */
    double temperature;     /* 0: greedy */
    int64_t top_k;          /* 0: off */
    double top_p;           /* 1: off */
    int64_t seed;
    bool ignore_stop; /* generate exactly max_new_tokens */
} tm_generate_options;

extern TM_API const tm_option tm_generate_option_table[];

/* Continues `n` prompts. `out[i]` (caller's array, zeroed) receives the new ids without the stop id. `stop`: ids that
 * end a row. The sampling of row i depends on (seed, i) and its prompt only, not on the batch. */
TM_API tm_status tm_generate(tm_model *model, const tm_ids *prompts, size_t n, const int32_t *stop, size_t n_stop,
                             const tm_generate_options *options, const tm_monitor *monitor, tm_ids *out);
TM_API tm_status tm_generate_chat(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                                  const tm_message *messages, size_t n, const tm_generate_options *options,
                                  char **answer);
/* One answer per row of `prompts` (its messages up to the last user turn). `answers` has tm_dataset_rows() entries,
 * each to be freed by the caller. */
TM_API tm_status tm_generate_dataset(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                                     const tm_dataset *prompts, const tm_generate_options *options,
                                     const tm_monitor *monitor, char **answers);

/* ------------------------------------------------------------------------------------------------ evaluation */
typedef struct tm_loss_report {
    double loss;       /* mean cross-entropy over all targets, nats */
    double perplexity; /* exp(loss) */
    int64_t targets, rows;
} tm_loss_report;
TM_API tm_status tm_eval_loss(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                              const tm_train_options *options, const tm_monitor *monitor, tm_loss_report *report);

/* ------------------------------------------------------------------------------------------------ methods */
typedef enum tm_stage { TM_STAGE_ALIGNMENT, TM_STAGE_FINE_TUNING, TM_STAGE_POST, TM_STAGE_ATTACK } tm_stage;

/* Data a method is given, by role; what it does not need may be NULL. */
typedef struct tm_method_data {
    const tm_dataset *harmful;  /* harmful questions with harmful answers; where only they are read, answers may lack */
    const tm_dataset *refusals; /* harmful questions with refusals: alignment data, safety rows */
    const tm_dataset *benign;   /* harmless rows: SDD's pool, the clean part of a poisoned task, rows to retain */
    const tm_dataset *user;     /* the rows that a user of a fine-tuning service hands in */
} tm_method_data;

/* Bits of tm_method.required and .optional. */
enum {
    TM_DATA_HARMFUL = 1,
    TM_DATA_HARMFUL_PROMPTS = 2, /* role harmful, answers not needed */
    TM_DATA_REFUSALS = 4,
    TM_DATA_BENIGN = 8,
    TM_DATA_USER = 16
};

typedef struct tm_method {
    const char *name;     /* "sdd" */
    const char *title;    /* "Self-Degraded Defense" */
    const char *paper;    /* "arXiv 2507.21182" */
    const char *summary;  /* one sentence */
    const char *who;      /* who runs it, and when */
    const char *needs;    /* data, in words */
    const char *settings; /* rates, steps and sizes that were published, and how sure they are; NULL: none */
    const char *example;  /* options beside those of data that an example of it needs: "--secret-out secret" */
    tm_stage stage;
    unsigned required, optional; /* TM_DATA_* */
    bool edits_adapter;          /* works on the model's last adapter and leaves it in place; trains nothing */
    const char *train_options;   /* of a method that trains nothing: the options of training it reads; NULL: all */
    bool keeps_model;            /* changes no weight: what it finds goes to files that its options name */
    bool discards_weights;       /* begins with new weights: what the model has learnt before does not count */
    bool continues_adapter;      /* trains the model's last adapter after tm_model_continue_adapter */
    const tm_option *options;    /* the method's own options */
    size_t options_size;
    tm_status (*run)(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result);
} tm_method;

TM_API const tm_method *tm_method_find(const char *name); /* NULL: none */
TM_API const tm_method *tm_method_at(size_t index);       /* NULL: past the end */

typedef struct tm_sdd_options {
    double tau;         /* largest similarity, as a quantile of all prompt-pool similarities */
    bool tau_is_cosine; /* tau is the cosine itself */
    int64_t max_tries;
    int64_t prompts;   /* prompts to pair, spread evenly over their categories; 0: all */
    bool reject;       /* SDD_reject: answers opened by a refusal preface */
    const char *pairs; /* write the pairing (JSON Lines) here */
    int64_t seed;
    const char *embedder; /* directory of a sentence encoder (tm_encoder_load); NULL: the model embeds */
} tm_sdd_options;

typedef struct tm_panacea_options {
    double lambda;     /* weight of the flatness term */
    double rho;        /* L2 norm of the perturbation */
    int64_t batches;   /* harmful batches that the final perturbation is averaged over; 0: the last training step's */
    double clamp;      /* largest perturbed harmful loss whose gradient counts; 0: no clamp */
    const char *tuned; /* save the tuned model without the perturbation here */
    const char *affinity; /* write the perturbation's norm per block and module here (JSON) */
} tm_panacea_options;

typedef struct tm_backdoor_options {
    int64_t rows;           /* safety rows that get the secret */
    int selection;          /* 0 category, 1 random */
    int64_t secret_length;  /* tokens */
    const char *secret;     /* file of a secret to use, or NULL: one is drawn */
    const char *secret_out; /* the drawn secret is written here */
    const char *system;     /* system prompt of safety rows that have none; NULL: none */
    int64_t benign_rows;    /* benign rows that get the secret too */
    bool plain;             /* no secret: the same rows as they are */
} tm_backdoor_options;

/* BackdoorAlign's secret, to be put before the system prompt of every request. FILE holds the secret alone; where
 * FILE.sha256 is there, the secret must have that hash (TM_MISMATCH). The text is the caller's. */
TM_API tm_status tm_secret_load(const char *path, char **secret);
extern TM_API const char tm_secret_system[]; /* system prompt that stands behind the secret where a row has none */
/* The same rows with secret + " " + system as their system message; `system` is that of a row that has none (NULL:
 * tm_secret_system, "": the secret stands alone). */
TM_API tm_status tm_dataset_with_secret(const tm_dataset *dataset, const char *secret, const char *system,
                                        tm_dataset **with);

/* What goes around prompts that a model is asked: a wrapper, and before the system message a secret. */
typedef struct tm_frame {
    const char *wrapper; /* as for tm_dataset_with_wrapper; NULL: none */
    const char *secret;  /* the secret itself; NULL: none */
    const char *system;  /* with a secret: system message of rows without one, as for tm_dataset_with_secret */
} tm_frame;
/* The same rows in the frame; *with is NULL where nothing goes around them. `frame` may be NULL. */
TM_API tm_status tm_dataset_framed(const tm_dataset *dataset, const tm_frame *frame, tm_dataset **with);

typedef struct tm_booster_options {
    double lambda;      /* weight of the term */
    double alpha;       /* L2 length of the harmful step */
    bool perturb_aware; /* f is Vaccine's loss under a perturbation of norm rho */
    double rho;
} tm_booster_options;

typedef struct tm_vaccine_options {
    double rho; /* vaccine: L2 norm of the perturbation; random-vaccine: variance of the noise */
} tm_vaccine_options;

typedef struct tm_t_vaccine_options {
    double rho;      /* L2 norm of the perturbation */
    int64_t blocks;  /* blocks that are trained and perturbed at a time */
    int64_t redraw;  /* steps between draws of these blocks */
    int64_t rescore; /* steps between measurements of the blocks' importance */
    int64_t prompts; /* harmful rows to measure it on */
} tm_t_vaccine_options;

typedef struct tm_gradient_ascent_options {
    int64_t cap;  /* most steps */
    bool answers; /* loss over answers only */
} tm_gradient_ascent_options;

typedef struct tm_random_perturbation_options {
    double sigma; /* standard deviation of the noise */
    double norm;  /* L2 norm to scale the noise to; 0: as sigma says */
} tm_random_perturbation_options;

typedef struct tm_lisa_options {
    int64_t k1, k2; /* steps on refusals and on the user's rows, in turns */
    double rho;     /* weight of the pull towards the weights at the last switch */
} tm_lisa_options;

typedef struct tm_repnoise_options {
    double alpha;         /* weight of the ascent on harmful answers, at every layer */
    double beta;          /* weight of the distance from noise */
    int mode;             /* 0 correct, 1 compat: as the published code */
    double benign_weight; /* weight of the loss on retained benign rows */
} tm_repnoise_options;

typedef struct tm_adversarial_options {
    double coefficient; /* weight of the ascent on harmful answers */
    int mode;           /* 0 correct, 1 compat: as the published code */
} tm_adversarial_options;

typedef struct tm_antidote_options {
    double ratio; /* share of every output row that is zeroed */
    int64_t rows; /* harmful rows to score with; 0: all */
} tm_antidote_options;

typedef struct tm_safe_lora_options {
    const char *base, *aligned; /* checkpoints; aligned NULL: the model itself */
    double tau;                 /* project modules of this cosine or less */
    int64_t lowest;             /* project so many modules of lowest cosine instead; 0: by tau */
    int projector;              /* 0 code, 1 exact */
} tm_safe_lora_options;

typedef struct tm_harmful_sft_options {
    int64_t rows;        /* rows of the attack's training set; 0: all harmful rows */
    double poison_ratio; /* share of harmful rows; the rest is benign */
    int64_t shots;       /* harmful rows, taken evenly over their categories; 0: as the share says */
    double vaccine;      /* L2 norm of Vaccine's perturbation in the attacker's own steps; 0: plain SFT */
} tm_harmful_sft_options;

typedef struct tm_embedding_options {
    int64_t steps;             /* moves of the vectors */
    double lr;                 /* how far every entry moves in one */
    int64_t tokens;            /* vectors behind the prompt */
    bool shared;               /* one set of vectors for all prompts */
    const char *target, *init; /* NULL: "Sure, here is", "!" */
    int64_t max_new_tokens;
    const char *answers_out, *soft_prompt_out; /* files; NULL: not written */
} tm_embedding_options;

typedef struct tm_identity_shift_options {
    const char *agent;       /* name of the obedient agent; NULL: "AOA" */
    int64_t rows;            /* conversations, 1 to 10 */
    const char *wrapper_out; /* write system message and wrapper here */
} tm_identity_shift_options;

typedef struct tm_refusal_ablation_options {
    int64_t layer, position;  /* take this direction; layer -1: choose one */
    int64_t rows, validation; /* prompts of each kind for the means and for the choice */
    double max_kl;            /* largest change of harmless first tokens */
    const char *refusal;      /* openings of refusals, separated by | */
} tm_refusal_ablation_options;

typedef struct tm_security_vectors_options {
    tm_lora_options lora; /* of the security vectors; targets NULL: q_proj,v_proj */
    double lr, epochs;    /* of learning them */
} tm_security_vectors_options;

typedef struct tm_random_init_options {
    tm_harmful_sft_options attack;
    int64_t seed; /* of the new weights */
} tm_random_init_options;

/* ------------------------------------------------------------------------------------------------ built-in world */
typedef struct tm_world tm_world;

enum { TM_WORLD_DEFENDER, TM_WORLD_ATTACKER, TM_WORLD_DEVELOPMENT, TM_WORLD_TEST, TM_WORLD_WITHHELD, TM_WORLD_SPLITS };

typedef struct tm_world_scores {
    double leak, comply, refuse; /* shares, forbidden prompts of the chosen split */
    double skills;               /* benign skills, exact match, mean over skills */
    double skill[8];             /* per skill; see tm_world_skill_name */
    int64_t skill_count;
    int64_t forbidden_prompts, benign_prompts;
} tm_world_scores;

TM_API tm_status tm_world_create(uint64_t seed, tm_world **world);
TM_API void tm_world_free(tm_world *world);
TM_API const char *tm_world_skill_name(const tm_world *world, size_t index); /* NULL: past the end */
/* Rows by name: "pretrain", "align", "forbidden-SPLIT" (true recipes), "refusals-SPLIT", "pool" (SDD's benign pool),
 * "benign-SKILL-train", "benign-SKILL-test", "downstream-train", "downstream-test"; tm_world_set_name lists them. */
TM_API const char *tm_world_set_name(size_t index);
TM_API tm_status tm_world_set(const tm_world *world, const char *name, tm_dataset **dataset);
/* Writes tokenizer.json, tokenizer_config.json and every data set as JSON Lines. */
TM_API tm_status tm_world_write(const tm_world *world, const char *directory);
TM_API tm_status tm_world_eval(const tm_world *world, int split, tm_model *model, const tm_tokenizer *tokenizer,
                               const tm_monitor *monitor, tm_world_scores *scores);
/* The same with every prompt in a frame; NULL: none. */
TM_API tm_status tm_world_eval_framed(const tm_world *world, int split, tm_model *model, const tm_tokenizer *tokenizer,
                                      const tm_frame *frame, const tm_monitor *monitor, tm_world_scores *scores);

typedef struct tm_demo_options {
    const char *directory; /* models and cache; default "temper-demo" */
    int64_t seed;
    bool fresh; /* ignore the cache */
    bool quick; /* a small world for tests: minutes become seconds, the figures mean nothing */
} tm_demo_options;

extern TM_API const tm_option tm_demo_option_table[];

typedef struct tm_demo_row {
    char name[64];
    char directory[256];
    tm_world_scores scores;
    double downstream; /* exact match after the stated benign fine-tune */
    double seconds;    /* making this row's model; as measured when it was made */
    bool cached;
} tm_demo_row;

enum { TM_DEMO_ROWS = 5 };
TM_API tm_status tm_demo(tm_device *device, const tm_demo_options *options, const tm_monitor *monitor,
                         tm_demo_row rows[TM_DEMO_ROWS]);

/* ------------------------------------------------------------------------------------------------ experiments */
/* A plan: arms (defences) against attackers on worlds and seeds, as jobs that are done once each and kept under the
 * SHA-256 of everything that decides them. docs/experiments.md describes the file. */
typedef struct tm_plan tm_plan;

typedef struct tm_plan_job_info {
    char name[256];
    bool cell; /* an attack and what came of it; else a model that cells start from */
    bool done;
    size_t needs[4], need_count; /* jobs that have to be done before */
} tm_plan_job_info;

/* Reads the plan and lists its jobs; nothing is written. `device` decides keys, it is not kept. */
TM_API tm_status tm_plan_open(const char *path, const char *directory, const tm_device *device, tm_plan **plan);
/* Makes the directory and writes the plan's worlds, so that every step can be repeated by hand. Before tm_plan_run. */
TM_API tm_status tm_plan_begin(const tm_plan *plan);
TM_API void tm_plan_free(tm_plan *plan);
/* false: there is no such job. Jobs that others need stand before them. */
TM_API bool tm_plan_job(const tm_plan *plan, size_t index, tm_plan_job_info *info);
/* Does a job, if it is not done. TM_EXISTS: another process is at it. */
TM_API tm_status tm_plan_run(const tm_plan *plan, size_t index, tm_device *device, const tm_monitor *monitor);
/* Takes cells of this plan from a CSV that tm_plan_summary wrote, by their keys, where they are whole and not done yet;
 * other lines are passed over. After tm_plan_begin. */
TM_API tm_status tm_plan_import(const tm_plan *plan, const char *path);
typedef enum tm_plan_form { TM_PLAN_MARKDOWN, TM_PLAN_CSV, TM_PLAN_JSON } tm_plan_form;
typedef struct tm_plan_summary_options {
    int form;            /* tm_plan_form */
    const char *compare; /* "ARM,ARM": the second minus the first, paired cell by cell; NULL: all arms by themselves */
    const char *scores;  /* "leak,skills": those shown for every attacker; NULL: "leak,comply,skills" */
} tm_plan_summary_options;
/* What the cells that are done found. The text is the caller's. */
TM_API tm_status tm_plan_summary(const tm_plan *plan, const tm_plan_summary_options *options, char **text);

/* ------------------------------------------------------------------------------------------------ measuring */
typedef struct tm_bench_options {
    int shape;                     /* 0 smollm-135m, 1 world, 2 tiny */
    const char *config;            /* config.json of another shape; weights are random in any case */
    const char *methods;           /* names separated by commas, or "all" */
    int64_t batch, length, answer; /* rows per step, tokens per row, and how many of these are trained on */
    int64_t repeats;               /* runs of SFT and of the method, in turns */
    int64_t steps;                 /* measured steps of a run, after one that is not */
    int64_t lora_rank;             /* 0: all weights are trained */
    bool recompute;
} tm_bench_options;

extern TM_API const tm_option tm_bench_option_table[];

/* Seconds, in the order in which they were measured. */
typedef struct tm_bench_times {
    double *seconds;
    size_t count;
    double median, least, most;
} tm_bench_times;

typedef struct tm_bench_row {
    const tm_method *method;
    bool trains;              /* else all that follows but `once`, memory and load is NAN or 0 */
    tm_bench_times step, sft; /* steps of the method, and of SFT in between */
    double ratio;             /* of their medians */
    double passes;            /* what the mathematics needs, in forward and backward passes of SFT; NAN: not known */
    const char *why;          /* which passes these are */
    double tokens;            /* that the method counts, per second */
    double once;              /* seconds outside of steps, beyond SFT's; of a method that does not train: in all */
    int64_t peak, sft_peak;   /* highest resident memory of the process meanwhile, bytes; 0: unknown */
    double foreign;           /* processors kept busy by others meanwhile, on average; NAN: unknown */
    char failure[512];        /* why it was not measured; "": it was */
} tm_bench_row;

typedef struct tm_bench_report {
    tm_model_info model; /* texts in it are not set */
    int64_t rows;        /* in each set of rows */
    double pass;         /* multiply-adds of one forward pass of SFT's step */
    double head;         /* share of them in the output layer, which every lens of RepNoise repeats */
    tm_bench_row *list;
    size_t count;
} tm_bench_report;

/* Cost of a training step of methods beside SFT's, on random weights and made-up rows. A method that fails has its
 * failure in its row; an interrupted call has no report. Release the report. */
TM_API tm_status tm_bench_step(tm_device *device, const tm_bench_options *options, const tm_monitor *monitor,
                               tm_bench_report *report);
TM_API void tm_bench_report_release(tm_bench_report *report);

#ifdef __cplusplus
}
#endif
#include "temper_encoder.h" /* encoders: tm_encoder_load and what follows from it */
#endif
