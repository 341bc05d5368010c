/* encoder.h: transformer encoders, forward only: BERT and DeBERTa-v2/v3, as sentence embedders and as classifiers.
 *
 *   x = norm( words[id] + positions[i] + types[type] )
 *   per block:  x = norm( x + o( attention( q(x), k(x), v(x) ) ) )        every token sees its whole text
 *               x = norm( x + down( act( up(x) ) ) )
 *   embedding = pooled x, normalised where the checkpoint says so;   logits = classifier( act( pooler( x[0] ) ) )
 *
 * DeBERTa's attention adds terms by relative position (relative.c). Texts lie end to end, without padding, and every
 * product is row-invariant, so that a text's result does not depend on its neighbours in a batch.
 *
 * Shapes: T tokens of all texts, D hidden, H heads, C head_dim, B buckets of relative positions.
 */
#ifndef TM_ENCODER_H
#define TM_ENCODER_H

#include "model/safetensors.h"
#include "op/op.h"

struct json_t;

typedef enum tm__encoder_family { TM__FAMILY_BERT, TM__FAMILY_DEBERTA } tm__encoder_family;

enum {
    TM__POOL_CLS,
    TM__POOL_MAX,
    TM__POOL_MEAN,
    TM__POOL_MEAN_SQRT,
    TM__POOL_WEIGHTED,
    TM__POOL_LAST,
    TM__POOL_KINDS
};

typedef struct tm__encoder_config {
    tm__encoder_family family;
    const char *architecture; /* static text */
    int64_t hidden, embedding, intermediate, layers, heads, head_dim, vocab, max_positions;
    int64_t types;   /* 0: no token types */
    bool positions;  /* absolute ones are added */
    bool classifier; /* has labels */
    double norm_eps;
    tm__activation act, pooler_act;
    /* DeBERTa */
    bool relative, content_to_position, position_to_content, share_key, norm_relative;
    int64_t buckets, max_relative, span; /* buckets 0: positions are not bucketed; 2 span rows of relative positions */
    /* labels */
    int64_t labels;
    int problem; /* tm_problem */
    /* sentence-transformers */
    int pooling[TM__POOL_KINDS], pooling_count; /* TM__POOL_*, side by side */
    bool normalise;
    int64_t max_tokens; /* of a text, special tokens included */
    struct json_t *raw; /* config.json */
} tm__encoder_config;

/* `file` names the text in errors. On failure *config is untouched. */
tm_status tm__encoder_config_parse(const char *text, size_t len, const char *file, tm__encoder_config *config);
void tm__encoder_config_release(tm__encoder_config *config);

/* ---- sentence-transformers (modules.c) --------------------------------------------------------------------------- */

typedef struct tm__modules {
    char *transformer; /* directory with config.json, weights and tokenizer */
    char *pooling;     /* directory; NULL: nothing is said about pooling */
    bool normalise;
} tm__modules;
tm_status tm__modules_load(const char *top, tm__modules *modules);
void tm__modules_release(tm__modules *modules);
/* Puts how hidden states are pooled, and how many tokens of a text are read, into the config. */
tm_status tm__modules_pooling(const tm__modules *modules, tm__encoder_config *config);
tm_status tm__modules_max_tokens(const tm__modules *modules, tm__encoder_config *config);

/* ---- the encoder ------------------------------------------------------------------------------------------------- */

typedef struct tm__encoder_norm {
    tm__param weight, bias;
} tm__encoder_norm;

typedef struct tm__encoder_block {
    tm__linear q, k, v, o, up, down;
    tm__linear position_key, position_query; /* DeBERTa without share_att_key; no weight: not there */
    tm__encoder_norm attention_norm, output_norm;
} tm__encoder_block;

struct tm_encoder {
    tm_device *dev;
    tm__encoder_config config;
    char *directory; /* of the transformer */
    struct tm__checkpoint *files;
    tm_tokenizer *tokenizer; /* NULL: the directory holds none */
    tm__param words, positions, types, relative;
    tm__linear project; /* embedding_size to hidden */
    tm__encoder_norm norm, relative_norm;
    tm__encoder_block *blocks;
    tm__linear pooler, classifier;
    tm__param **params; /* all of the above that are there, by name */
    size_t param_count, param_cap;
};

/* Describes all weights that the config asks for, and takes them from the checkpoint. */
tm_status tm__encoder_weights_load(tm_encoder *encoder);
void tm__encoder_weights_release(tm_encoder *encoder);

/* One text as ids, and where the second text of a pair begins (its ids are of type 1); `len`: there is none. */
typedef struct tm__encoder_text {
    const int32_t *ids;
    size_t len, second;
} tm__encoder_text;

/* Texts end to end. */
typedef struct tm__encoder_batch {
    int64_t tokens, segments, longest;
    int32_t *ids, *types, *position; /* (tokens) */
    int64_t *start, *length;         /* (segments) */
} tm__encoder_batch;

/* hidden (T, D) after the last block. Tape: recording off. */
tm_status tm__encoder_forward(tm_encoder *encoder, tm__tape *tape, const tm__encoder_batch *batch, tm__var **hidden);

/* Bucket of a distance i - j, before it is clamped to -span..span-1. */
int64_t tm__relative_bucket(int64_t distance, int64_t buckets, int64_t max_relative);
/* attention(q, k, v) of a block; q, k, v (T, H C) -> y (T, H C). `relative` (2 span, D): normed relative embeddings, or
 * NULL. */
tm_status tm__encoder_attention(tm_encoder *encoder, tm__tape *tape, tm__encoder_block *block,
                                const tm__encoder_batch *batch, tm__var *relative, tm__var *x, tm__var **y);

/* The public calls on ids, in fp64: out (n, dimensions), out (n, labels). */
tm_status tm__encoder_embed_ids(tm_encoder *encoder, const tm__encoder_text *texts, size_t n, double *out);
tm_status tm__encoder_classify_ids(tm_encoder *encoder, const tm__encoder_text *texts, size_t n, double *out);
int64_t tm__encoder_dimensions(const tm_encoder *encoder);
/* As tm_encoder_embed, in fp64. */
tm_status tm__encoder_embed(tm_encoder *encoder, const char *const *texts, size_t n, const tm_monitor *monitor,
                            double *out);

#endif
