/* temper_represent.h: where models hold prompts: hidden states of harmful and harmless prompts layer by layer, on their
 * principal components, and how well a linear probe tells the two apart. Several models side by side: before and after
 * a defence.
 *
 *     tm_representation *r = NULL;
 *     tm_status status = tm_representation_create(harmful, harmless, NULL, &r);
 *     if (status == TM_OK) status = tm_representation_add(r, "aligned", before, tokenizer, NULL);
 *     if (status == TM_OK) status = tm_representation_add(r, "defended", after, tokenizer, NULL);
 *     if (status == TM_OK) status = tm_representation_finish(r, device);
 *     if (status == TM_OK) status = tm_representation_save(r, "states", false, NULL);
 *     tm_representation_free(r);
 *
 * docs/representation.md says what is computed.
 */
#ifndef TEMPER_REPRESENT_H
#define TEMPER_REPRESENT_H

#include "temper_data.h"
#include "temper_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tm_representation tm_representation;

typedef enum tm_represent_position {
    TM_REPRESENT_LAST,   /* the last token of the prompt, the opening of the answer's turn included */
    TM_REPRESENT_PROMPT, /* the mean over all tokens of that */
    TM_REPRESENT_ANSWER, /* the mean over the answer and the token that ends it */
} tm_represent_position;

typedef enum tm_represent_fit {
    TM_REPRESENT_FIT_FIRST, /* axes and centre from the first model; the others are projected on them */
    TM_REPRESENT_FIT_UNION, /* from all models together */
    TM_REPRESENT_FIT_EACH,  /* from each model by itself */
} tm_represent_fit;

typedef struct tm_represent_options {
    int position;       /* tm_represent_position */
    int fit;            /* tm_represent_fit */
    const char *layers; /* "0,4-8": 0 the embedding, l after block l, the last after the final norm; NULL: all */
    int64_t components;
    int64_t limit;      /* prompts of each kind; 0: all */
    int64_t max_length; /* longer rows are left out */
    int64_t seed;       /* of the choice of prompts, the probe's halves, the control's labels */
    double c;           /* of the probe: inverse strength of its L2 penalty */
    int chat;           /* tm_chat_format */
} tm_represent_options;

extern TM_API const tm_option tm_represent_option_table[];

/* A share with its 95 % interval after Wilson. */
typedef struct tm_represent_share {
    double value, low, high;
} tm_represent_share;

typedef struct tm_represent_layer {
    int64_t layer;
    const double *points;        /* (rows, components) */
    const double *explained;     /* (components) share of the variance of what the axes were fitted on */
    const double *own;           /* (components) share of this model's own variance that lies along them */
    tm_represent_share accuracy; /* of the probe, on the half that it was not fitted on */
    double auc, train_accuracy;  /* area under the ROC curve on that half; accuracy on the other */
    double control;              /* the same as accuracy where the labels fitted on were shuffled: near chance */
    double control_train;        /* and on its own half: how far a probe of this size learns by heart */
} tm_represent_layer;

typedef struct tm_represent_row {
    bool harmful, train; /* of which half of the probe's */
    size_t row;          /* in its data set, from 0 */
} tm_represent_row;

/* The data sets and texts of `options` must live as long as the result. Position `answer` needs rows with answers. */
TM_API tm_status tm_representation_create(const tm_dataset *harmful, const tm_dataset *harmless,
                                          const tm_represent_options *options, tm_representation **representation);
/* Reads a model's states; the model is not needed after. Models must have the same layers and width, and turn the rows
 * into the same ids: TM_MISMATCH. The first model's rows decide which are left out as too long or repeated. */
TM_API tm_status tm_representation_add(tm_representation *representation, const char *name, tm_model *model,
                                       const tm_tokenizer *tokenizer, const tm_monitor *monitor);
/* Components and probes of what was added, on the device's threads. */
TM_API tm_status tm_representation_finish(tm_representation *representation, const tm_device *device);
TM_API void tm_representation_free(tm_representation *representation);

TM_API size_t tm_representation_models(const tm_representation *representation);
TM_API const char *tm_representation_name(const tm_representation *representation, size_t model);
/* false: there is no such row, or layer of those chosen. The layer's arrays belong to the result. */
TM_API bool tm_representation_row(const tm_representation *representation, size_t index, tm_represent_row *row);
TM_API bool tm_representation_layer(const tm_representation *representation, size_t model, size_t index,
                                    tm_represent_layer *layer);
/* All of it in one line, with hashes of models and ids, without texts of prompts. The text is the caller's. */
TM_API tm_status tm_representation_json(const tm_representation *representation, char **text);
/* A directory that appears whole: representation.json, points.csv, layers.csv, and as SVG, PNG and gnuplot script the
 * pictures components and probe. Without gnuplot there are no pictures, and a note says so. */
TM_API tm_status tm_representation_save(const tm_representation *representation, const char *directory, bool overwrite,
                                        const tm_monitor *monitor);

#ifdef __cplusplus
}
#endif
#endif
