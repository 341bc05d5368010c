/* temper_model.h: the part of temper.h about models: loading, training, generation, cross-entropy; included by it. */
#ifndef TEMPER_MODEL_H
#define TEMPER_MODEL_H

#include "temper_data.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------ model */
typedef struct tm_model tm_model;

typedef struct tm_model_info {
    const char *architecture, *dtype; /* "LlamaForCausalLM"; storage of the weights: "bf16", ... */
    int64_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, vocab_size, max_positions;
    bool tied_embeddings;
    int64_t parameters;       /* scalar count, adapters not included */
    int64_t adapters, labels; /* LoRA adapters loaded; labels of a sequence classifier, 0: a language model */
    /* Rotary embedding: scaling ("default": none, "linear", "llama3", "dynamic", "yarn"), its factor and the positions
     * that it scales from (0: not stated), base, and how many dimensions of a head are rotated. */
    const char *rope_type;
    double rope_theta, rope_factor;
    int64_t rope_original_positions, rotary;
    int64_t window, window_layers;   /* tokens that a token sees in so many of the layers; 0: all, everywhere */
    double attention_cap, final_cap; /* soft caps of attention scores and of logits; 0: none */
} tm_model_info;

typedef enum tm_save_dtype { TM_SAVE_KEEP, TM_SAVE_F32, TM_SAVE_BF16, TM_SAVE_F16 } tm_save_dtype;
typedef struct tm_save_options {
    int dtype;                     /* tm_save_dtype; KEEP: as the checkpoint was loaded */
    int64_t shard_bytes;           /* largest shard; default 5e9 */
    const char *tokenizer_dir;     /* copy the tokenizer's files from here; NULL: none */
    const tm_tokenizer *tokenizer; /* a template that tm_tokenizer_use_template gave it goes with them; NULL: none */
    bool overwrite;                /* replace an existing model or adapter directory (atomically); else TM_EXISTS */
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
    int64_t activations, logits, cache;  /* at most: of a batch; of a chunk; of generation */
    int64_t
        overlap; /* negative: what of all these is never there at once; positive: gaps between them, kept for reuse */
    int64_t kernels, program;       /* working memory, about; program, tokenizer and rows as measured now */
    int64_t total, trained, tokens; /* the sum; numbers that are trained; most tokens in one forward pass */
    double again;                   /* share of all multiply-adds that compute values again which were not kept */
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
    bool recompute;        /* keep only block inputs */
    int64_t memory;        /* most bytes that the process may take; 0: no bound */
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
    double padding;               /* share of the computed positions that were padding, since the process began */
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

#ifdef __cplusplus
}
#endif
#endif
