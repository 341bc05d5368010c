/* temper_encoder.h: the part of temper.h about encoders; included by it. */
#ifndef TEMPER_ENCODER_H
#define TEMPER_ENCODER_H

#include "temper_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A transformer encoder that reads texts, forward only: BERT, with the pooling that a sentence-transformers directory
 * states, or DeBERTa-v2/v3. It embeds texts, and classifies them where the checkpoint has a classifier. A text's result
 * does not depend on the texts beside it. */
typedef struct tm_encoder tm_encoder;

typedef enum tm_problem { TM_PROBLEM_SINGLE_LABEL, TM_PROBLEM_MULTI_LABEL, TM_PROBLEM_REGRESSION } tm_problem;

typedef struct tm_encoder_info {
    const char *architecture; /* "BertModel" */
    int64_t hidden_size, layers, heads, vocab_size;
    int64_t max_tokens; /* that are read of a text, special tokens included */
    int64_t parameters;
    int64_t dimensions; /* of an embedding */
    bool normalised;    /* embeddings have length 1 */
    int64_t labels;     /* 0: there is no classifier */
    int problem;        /* tm_problem: what logits mean */
    const char *dtype;  /* storage of the weights */
} tm_encoder_info;

/* Maps a Hugging Face directory (config.json, *.safetensors, tokenizer.json), or one of sentence-transformers
 * (modules.json). Architectures: BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification,
 * DebertaV2Model, DebertaV2ForMaskedLM, DebertaV2ForSequenceClassification. The device must outlive the encoder. */
TM_API tm_status tm_encoder_load(tm_device *device, const char *directory, tm_encoder **encoder);
TM_API void tm_encoder_free(tm_encoder *encoder);
TM_API void tm_encoder_describe(const tm_encoder *encoder, tm_encoder_info *info);
/* Name of a label; "" where the checkpoint gives none, NULL past the end. Belongs to the encoder. */
TM_API const char *tm_encoder_label(const tm_encoder *encoder, int64_t index);
/* out (n, dimensions), the caller's. Texts that are too long lose their end; a note says how many. */
TM_API tm_status tm_encoder_embed(tm_encoder *encoder, const char *const *texts, size_t n, const tm_monitor *monitor,
                                  float *out);
/* logits (n, labels), the caller's. `pairs`: NULL, or for every text a second one (NULL: none) read behind it. */
TM_API tm_status tm_encoder_classify(tm_encoder *encoder, const char *const *texts, const char *const *pairs, size_t n,
                                     const tm_monitor *monitor, float *logits);
/* What logits (n, labels) say: probabilities over the labels, of each label by itself, or the logits (regression). */
TM_API void tm_encoder_scores(const tm_encoder *encoder, const float *logits, size_t n, float *scores);

#ifdef __cplusplus
}
#endif
#endif
