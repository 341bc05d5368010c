/* model.h: decoder-only language models: config, weights, forward pass, adapters, cache.
 *
 * One block with options serves every family (family.c); what a family lacks is the identity:
 *
 *   x = scale * embed[ids]
 *   per block:  a = post1( o( attention( rope(qn(q(n1(x)))), rope(kn(k(n1(x)))), v(n1(x)) ) ) )
 *               m = post2( down( act(gate(n2(y))) * up(n2(y)) ) ),  y = x + a
 *               x = y + m;   parallel blocks: x = x + a + m, with n1(x) for n2(y)
 *   logits = cap( head( norm(x) ) )
 */
#ifndef TM_MODEL_H
#define TM_MODEL_H

#include "op/op.h"

struct json_t;

/* Linears of a block and norms in it, in no family all of them. */
enum tm__linear_index { TM__Q, TM__K, TM__V, TM__O, TM__GATE, TM__UP, TM__DOWN, TM__LINEARS };
enum tm__norm_index {
    TM__NORM_INPUT,          /* before attention; of a parallel block also before the feed-forward layer */
    TM__NORM_ATTENTION_POST, /* behind attention, before the residual sum */
    TM__NORM_MLP,            /* before the feed-forward layer */
    TM__NORM_MLP_POST,       /* behind it */
    TM__NORM_Q,              /* of each head's query and key, before rotation */
    TM__NORM_K,
    TM__NORMS
};

typedef enum tm__bias { TM__BIAS_NONE, TM__BIAS_ALWAYS, TM__BIAS_KEY /* as config.json says */ } tm__bias;
typedef enum tm__windows {
    TM__WINDOW_NONE,      /* every token sees all before it */
    TM__WINDOW_ALL,       /* sliding_window in every block */
    TM__WINDOW_LAST,      /* where use_sliding_window: blocks from max_window_layers on, or as layer_types says */
    TM__WINDOW_ALTERNATE, /* every other block from the first, or as layer_types says */
} tm__windows;

/* What an architecture fixes, and transformers' defaults of what it leaves to config.json. */
typedef struct tm__family {
    const char *causal, *classifier; /* architecture names */
    const char *model_type;
    const char *linear[TM__LINEARS]; /* module below model.layers.N; NULL: there is none */
    const char *norm[TM__NORMS];
    const char *final_norm; /* "model.norm" */
    const char *act_key;    /* key of the activation */
    const char *act;        /* its default */
    const char *reads[12];  /* keys of `refused` in config.c that this family understands */
    tm__bias qkv_bias, o_bias, mlp_bias;
    tm__windows windows;
    bool layer_norm;   /* LayerNorm with bias; else RMSNorm */
    bool parallel;     /* attention and feed-forward layer both read the same normed input */
    bool qk_norm_key;  /* query and key norms only where qk_layernorm says so */
    bool gelu_is_tanh; /* "gelu" in the activation's key means its tanh formula (first releases of Gemma) */
    bool head_bias, tied, scales_embedding, caps;
    double norm_shift;                         /* RMSNorm multiplies by norm_shift + weight */
    double rotary_share;                       /* default of partial_rotary_factor; 0: whole heads are rotated */
    int64_t kv_heads, head_dim, max_positions; /* defaults; 0: num_attention_heads, hidden_size / heads */
} tm__family;

typedef enum tm__rope_type {
    TM__ROPE_DEFAULT,
    TM__ROPE_LINEAR,
    TM__ROPE_LLAMA3,
    TM__ROPE_DYNAMIC,
    TM__ROPE_YARN
} tm__rope_type;

typedef struct tm__config {
    const tm__family *family;
    int64_t labels; /* of a sequence classifier; 0: a language model */
    int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_positions;
    double norm_eps, initializer_range;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    tm__activation activation;
    double embed_scale, attention_scale;
    double attention_cap, final_cap;        /* 0: none */
    double residual_dropout, embed_dropout; /* while training */
    int64_t *window;                        /* (layers) tokens that a token sees, 0: all; NULL: all in every block */
    int64_t rotary;                         /* dimensions of a head that are rotated */
    tm__rope_type rope_type;
    double rope_theta, rope_factor, rope_low_freq, rope_high_freq;
    double rope_attention_factor, rope_beta_fast, rope_beta_slow; /* yarn; cosines and sines times the factor */
    bool rope_truncate;
    int64_t rope_original_positions;
    tm_dtype dtype;           /* torch_dtype */
    int32_t bos, eos[8], pad; /* -1: none */
    int eos_count;
    struct json_t *raw; /* the whole config.json; unknown keys are written back untouched */
} tm__config;

typedef struct tm__norm {
    tm__param weight, bias; /* name NULL: there is none */
} tm__norm;

typedef struct tm__block {
    tm__norm norm[TM__NORMS];
    tm__linear q, k, v, o, gate, up, down; /* weight.name NULL: there is none */
} tm__block;

/* A parameter for which an adapter brings values of its own (PEFT's modules_to_save). */
typedef struct tm__replaced {
    tm__param *param;
    tm__param base; /* what it was; shares the name */
    size_t number;  /* of the adapter */
} tm__replaced;

struct tm_model {
    tm_device *dev;
    tm__config config;
    struct tm__checkpoint *files; /* mapped weights; NULL for a new model */
    char *directory;              /* where it came from, or NULL */
    tm__param embed, head;        /* head.name NULL when tied: embed is used */
    tm__param head_bias, score;   /* name NULL: there is none; score (labels, hidden) is a classifier's head */
    tm__norm final_norm;
    tm__block *blocks;
    tm__rope_table rope; /* grown on demand past max_positions */
    /* Adapters are numbered in the order they were added; an adapter has a part {A, B} in each linear it targets. */
    size_t adapter_count;
    tm__replaced *replaced;
    size_t replaced_count, replaced_cap;
    bool continues; /* training goes on with the last adapter */
    /* Description of the adapter that was added last (for saving it). */
    struct json_t *adapter_config;
};

/* Family of an architecture or, where that is NULL, of a model_type; NULL: not known. */
const tm__family *tm__family_find(const char *architecture, const char *model_type);
const tm__family *tm__family_at(size_t index); /* NULL: past the last */
/* "LlamaForCausalLM, ..." of all that are supported: hint of a refusal. */
const char *tm__family_list(void);

/* Linear `index` of a block. One that the family lacks has no name and no value. */
tm__linear *tm__block_linear(tm__block *block, int index);
bool tm__linear_exists(const tm__linear *linear);
/* "q_proj"; NULL: the family has none. */
const char *tm__linear_name(const tm__family *family, int index);

/* `file` names the text in errors; may be NULL. On failure *config is untouched. */
tm_status tm__config_parse(const char *text, size_t len, const char *file, tm__config *config);
/* Adds the ids under "eos_token_id" (a number or a list) of config.json or generation_config.json. */
tm_status tm__config_eos(const struct json_t *object, const char *file, tm__config *config);
void tm__config_release(tm__config *config);

/* Inverse frequencies (rotary/2) after scaling, for a sequence of `length` tokens: only the dynamic type asks. */
void tm__rope_frequencies(const tm__config *config, int64_t length, double *frequency);
/* Makes the rotary tables reach at least `positions`. */
tm_status tm__rope_reserve(tm_model *model, int64_t positions);
/* A note where a sequence is longer than the model was trained for: it is computed all the same. */
void tm__rope_note(const tm_model *model, int64_t positions, const tm_monitor *monitor);
/* Whether frequencies depend on the length of the sequence, for one of so many positions. */
bool tm__rope_depends(const tm__config *config, int64_t positions);
/* A table with one row per token, for sequences of the given lengths; belongs to the tape. *rows (tokens) are its
 * positions: 0, 1, ... */
tm_status tm__rope_rows(tm_model *model, tm__tape *tape, int64_t tokens, const int32_t *position, const int32_t *length,
                        const tm__rope_table **table, const int32_t **rows);
void tm__rope_release(tm_device *dev, tm__rope_table *table);

/* Draws all weights anew, as tm_model_create does with this seed. A model with adapters is TM_INVALID. */
tm_status tm__model_redraw(tm_model *model, uint64_t seed);

/* Every parameter, adapters included, in a fixed order: embedding, blocks in order, final norm, head (if untied). */
typedef tm_status (*tm__param_visit)(void *user, tm__param *param, bool is_adapter);
tm_status tm__model_params(tm_model *model, tm__param_visit visit, void *user);
/* Makes a parameter trainable (owned master copy of act type; a gradient that is there stays) or
 * frozen (gradient released, master kept). */
tm_status tm__param_train(tm_model *model, tm__param *param, bool trainable);
/* Full fine-tuning: everything but adapters; LoRA: adapters `from` and later only, with what they bring whole. */
tm_status tm__model_train_full(tm_model *model);
tm_status tm__model_train_adapters(tm_model *model, size_t from);
tm_status tm__model_freeze(tm_model *model);
/* Of what is trainable, the embedding and the first `count` blocks (at most all of them) no longer are. */
tm_status tm__model_freeze_blocks(tm_model *model, int64_t count);
/* Of the entries of weights that differ from the checkpoint, the share whose change is lost when they are saved as
 * `dtype` (rounding gives what the unchanged entry would have given). 0 where nothing has changed. */
tm_status tm__model_rounding_loss(const tm_model *model, tm_dtype dtype, double *share);

/* A batch of documents, packed end to end or padded. Arrays belong to the caller. */
typedef struct tm__batch {
    int64_t tokens;
    const int32_t *ids, *position; /* (tokens) */
    int64_t segments;
    const int64_t *start, *length; /* (segments) */
    tm__head_targets targets;      /* may be empty for a forward pass alone */
    int64_t rows, row_length;      /* when padded: tokens = rows * row_length; 0 when packed */
} tm__batch;

typedef struct tm__forward_options {
    const tm__tap *taps;
    size_t tap_count;
    bool recompute; /* keep the inputs of blocks only (tm__tape.lean) */
    /* (layers + 1) or NULL; receives the residual stream after the embedding and after every block. Only while
     * recording: otherwise these values are dropped. */
    tm__var **states;
} tm__forward_options;

/* hidden (tokens, hidden): after the final norm. */
tm_status tm__model_forward(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                            tm__var **hidden);
/* Rows of the embedding as the first block reads them: scaled, and with dropout while training. */
tm_status tm__model_embed(tm_model *model, tm__tape *tape, const int32_t *ids, int64_t tokens, tm__var **x);
/* forward + tm__op_head_loss with batch->targets. row_loss as there. */
tm_status tm__model_loss(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                         double *row_loss, tm__var **loss);
/* Logits of chosen rows of `hidden`, act type, into a host buffer (count, vocab). */
tm_status tm__model_logits(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                           void *logits);
/* The id with the largest logit, of equals the lowest, for each of the rows; -1 where a logit is not finite. */
tm_status tm__model_largest(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                            int32_t *ids);
/* The same of a classifier's labels (count, labels). */
tm_status tm__model_label_scores(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows,
                                 int64_t count, void *scores);
/* Where each document's labels are read: its last token that is not pad_token_id; of padding alone its first. */
void tm__model_deciding_rows(const tm_model *model, const tm__batch *batch, int32_t *row);
/* ---- training classifiers (classifier.c) ---- */
/* Makes a language model without adapters a classifier with a new head from N(0, initializer_range). `keys`: what is
 * set in config.json (id2label and what goes with it). */
tm_status tm__model_make_classifier(tm_model *model, int64_t labels, int32_t pad, const struct json_t *keys,
                                    uint64_t seed);
/* forward + tm__op_label_loss; targets->row is filled in here: one for each document of the batch. */
tm_status tm__model_label_loss(tm_model *model, tm__tape *tape, const tm__batch *batch,
                               const tm__forward_options *options, const tm__label_targets *targets, double *row_loss,
                               tm__var **loss);
/* TM_UNSUPPORTED for a classifier: it has no language-model head. */
tm_status tm__model_check_language(const tm_model *model);
tm__head tm__model_head(tm_model *model);
/* y = norm(x), as the model's family norms. */
tm_status tm__model_norm(const tm_model *model, tm__tape *tape, tm__var *x, tm__norm *norm, tm__var **y);

/* Mean-pooled final hidden state of each sequence, fp64, L2-normalised: out (n, hidden). Used by SDD's pairing. */
tm_status tm__model_embed_texts(tm_model *model, const tm_ids *texts, size_t n, double *out);

/* A turn ends at the chat format's own marker or at any end id of tokenizer and config: how many of `stop` are set. */
enum { TM__STOP_IDS = 2 + TM__COUNT(((tm__config *)0)->eos) };
size_t tm__model_stop_ids(const tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                          int32_t stop[TM__STOP_IDS]);

/* ---- cache ---- */
typedef struct tm__cache {
    int64_t slots, capacity;
    void **k, **v; /* per layer: (slots, capacity, kv_heads, head_dim), act type */
    /* What every slot's sequence begins with: the first `shared` positions of another cache's slot 0, which is not this
     * one's own and must outlive it. A slot's rows hold positions `shared` and on. */
    const struct tm__cache *prefix;
    int64_t shared;
} tm__cache;
/* prefix NULL, shared 0: nothing is shared. */
tm_status tm__cache_create(tm_model *model, int64_t slots, int64_t capacity, const tm__cache *prefix, int64_t shared,
                           tm__cache **cache);
/* Raises the capacity to at least `capacity`, contents kept; on failure the cache is unchanged. */
tm_status tm__cache_grow(tm_model *model, tm__cache *cache, int64_t capacity);
/* Slots are empty from now on, and begin with another prefix. */
void tm__cache_share(tm__cache *cache, const tm__cache *prefix, int64_t shared);
/* Copies the first `count` positions behind the prefix from one slot to another. */
tm_status tm__cache_copy(tm_model *model, tm__cache *cache, int64_t from, int64_t to, int64_t count);
void tm__cache_free(tm_model *model, tm__cache *cache);
/* New tokens of several slots: token i goes to slot[i], position[i], which is no position of the shared prefix.
 * length[i]: of the sequence as far as it is known, which dynamic rotary frequencies depend on; NULL: it ends with this
 * call's last token of the slot. hidden (tokens, hidden) after the final norm. Tape: recording off, row_invariant on.
 */
tm_status tm__model_decode(tm_model *model, tm__tape *tape, tm__cache *cache, int64_t tokens, const int32_t *ids,
                           const int32_t *slot, const int32_t *position, const int32_t *length, tm__var **hidden);

/* ---- generation (generate.c, chat.c) ---- */
/* Told of every row when it ends, in whatever order; what it fails with ends the run. */
typedef struct tm__generate_watch {
    tm_status (*ended)(void *user, size_t row, const tm_ids *made);
    void *user;
} tm__generate_watch;
/* tm_generate with somebody watching; `watch` and `out` may be NULL. */
tm_status tm__generate(tm_model *model, const tm_ids *prompts, size_t n, const int32_t *stop, size_t n_stop,
                       const tm_generate_options *options, const tm__generate_watch *watch, const tm_monitor *monitor,
                       tm_ids *out);
/* tm_generate_dataset, whose answers are taken one by one as they end; `text` belongs to `take` from then on. */
typedef tm_status tm__take_answer(void *user, size_t row, char *text);
tm_status tm__generate_answers(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                               const tm_dataset *prompts, const tm_generate_options *options, const tm_monitor *monitor,
                               tm__take_answer *take, void *user);

/* ---- the next token (next.c) ---- */
enum { TM__NEXT_IDS = 64 };
typedef struct tm__next_question {
    const int32_t *ids; /* whose probabilities are asked for */
    size_t count;       /* at most TM__NEXT_IDS */
    const bool *skip; /* (vocab) tokens that are taken as said where they are the likeliest, four in turn at most; what
                         follows them counts. NULL: none */
} tm__next_question;
typedef struct tm__next {
    int32_t likeliest; /* of equals the lowest */
    int64_t skipped;   /* tokens taken as said */
    double probability[TM__NEXT_IDS];
} tm__next;
/* Of what follows each text: out (n). TM_INTERRUPTED between groups of texts. */
tm_status tm__model_next(tm_model *model, const tm_ids *texts, size_t n, const tm__next_question *question,
                         const tm_monitor *monitor, tm__next *out);

/* ---- sampling (sample.c) ---- */
typedef struct tm__sampler tm__sampler;
tm_status tm__sampler_create(int64_t vocab, const tm_generate_options *options, tm__sampler **sampler);
void tm__sampler_free(tm__sampler *sampler);
/* Next id from logits (vocab) of type `act`. Greedy (temperature 0) takes the lowest id among the largest and draws
 * nothing; else one number is drawn from `rng`. */
int32_t tm__sampler_pick(tm__sampler *sampler, const void *logits, tm_dtype act, tm__rng *rng);
/* What is drawn from: `*probs` (vocab), belongs to the sampler; temperature above 0. */
void tm__sampler_probs(tm__sampler *sampler, const void *logits, tm_dtype act, const double **probs);

#endif
