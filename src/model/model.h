/* model.h: a decoder in the Llama architecture: config, weights, forward pass, adapters, cache.
 *
 *   x = embed[ids]
 *   per block:  x += o_proj( attention( rope(q_proj(n1(x))), rope(k_proj(n1(x))), v_proj(n1(x)) ) )
 *               x += down_proj( silu(gate_proj(n2(x))) * up_proj(n2(x)) )
 *   logits = head( norm(x) )
 */
#ifndef TM_MODEL_H
#define TM_MODEL_H

#include "op/op.h"

struct json_t;

typedef struct tm__config {
    int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_positions;
    double rms_eps, rope_theta, initializer_range;
    bool tied, attention_bias, mlp_bias;
    int rope_type; /* 0 default, 1 linear, 2 llama3 */
    double rope_factor, rope_low_freq, rope_high_freq;
    int64_t rope_original_positions;
    tm_dtype dtype;           /* torch_dtype */
    int32_t bos, eos[8], pad; /* -1: none */
    int eos_count;
    struct json_t *raw; /* the whole config.json; unknown keys are written back untouched */
} tm__config;

typedef struct tm__block {
    tm__param input_norm, post_norm;
    tm__linear q, k, v, o, gate, up, down;
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
    struct tm__checkpoint *files;      /* mapped weights; NULL for a new model */
    char *directory;                   /* where it came from, or NULL */
    tm__param embed, final_norm, head; /* head.value.data NULL when tied: embed is used */
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

/* Linear `index` (0..6: q k v o gate up down) of a block and its module name ("q_proj"). */
enum { TM__LINEARS = 7 };
tm__linear *tm__block_linear(tm__block *block, int index);
const char *tm__linear_name(int index);

/* `file` names the text in errors; may be NULL. On failure *config is untouched. */
tm_status tm__config_parse(const char *text, size_t len, const char *file, tm__config *config);
/* Adds the ids under "eos_token_id" (a number or a list) of config.json or generation_config.json. */
tm_status tm__config_eos(const struct json_t *object, const char *file, tm__config *config);
void tm__config_release(tm__config *config);

/* Inverse frequencies (head_dim/2) after scaling. */
void tm__rope_frequencies(const tm__config *config, double *frequency);
/* Makes the rotary tables reach at least `positions`. */
tm_status tm__rope_reserve(tm_model *model, int64_t positions);
void tm__rope_release(tm_device *dev, tm__rope_table *table);

/* Draws all weights anew, as tm_model_create does with this seed. A model with adapters is TM_INVALID. */
tm_status tm__model_redraw(tm_model *model, uint64_t seed);

/* Every parameter, adapters included, in a fixed order: embedding, blocks in order, final norm, head (if untied). */
typedef tm_status (*tm__param_visit)(void *user, tm__param *param, bool is_adapter);
tm_status tm__model_params(tm_model *model, tm__param_visit visit, void *user);
/* Makes a parameter trainable (owned master copy of act type; a new gradient is zero, one that is there stays) or
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

/* A batch of documents, packed end to end or padded. Arrays belong to the caller; with recomputation they, the options
 * and the taps must live until the tape is reset. */
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
    bool recompute; /* activation checkpointing per block */
    /* (layers + 1) or NULL; receives the residual stream after the embedding and after every block. Only while
     * recording: otherwise these values are dropped. */
    tm__var **states;
} tm__forward_options;

/* hidden (tokens, hidden): after the final norm. */
tm_status tm__model_forward(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                            tm__var **hidden);
/* forward + tm__op_head_loss with batch->targets. row_loss as there. */
tm_status tm__model_loss(tm_model *model, tm__tape *tape, const tm__batch *batch, const tm__forward_options *options,
                         double *row_loss, tm__var **loss);
/* Logits of chosen rows of `hidden`, act type, into a host buffer (count, vocab). */
tm_status tm__model_logits(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                           void *logits);
tm__param *tm__model_head(tm_model *model);

/* Mean-pooled final hidden state of each sequence, fp64, L2-normalised: out (n, hidden). Used by SDD's pairing. */
tm_status tm__model_embed_texts(tm_model *model, const tm_ids *texts, size_t n, double *out);

/* ---- cache ---- */
typedef struct tm__cache {
    int64_t slots, capacity;
    void **k, **v; /* per layer: (slots, capacity, kv_heads, head_dim), act type */
} tm__cache;
tm_status tm__cache_create(tm_model *model, int64_t slots, int64_t capacity, tm__cache **cache);
/* Raises the capacity to at least `capacity`, contents kept; on failure the cache is unchanged. */
tm_status tm__cache_grow(tm_model *model, tm__cache *cache, int64_t capacity);
/* Copies the first `count` positions of slot 0 to all other slots. */
tm_status tm__cache_spread(tm_model *model, tm__cache *cache, int64_t count);
void tm__cache_free(tm_model *model, tm__cache *cache);
/* New tokens of several slots: token i goes to slot[i], position[i]. hidden (tokens, hidden) after the final norm.
 * Tape: recording off, row_invariant on. */
tm_status tm__model_decode(tm_model *model, tm__tape *tape, tm__cache *cache, int64_t tokens, const int32_t *ids,
                           const int32_t *slot, const int32_t *position, tm__var **hidden);

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
