/* temper_method.h: the part of temper.h about defences and attacks; included by it. */
#ifndef TEMPER_METHOD_H
#define TEMPER_METHOD_H

#include "temper_model.h"

#ifdef __cplusplus
extern "C" {
#endif

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
    int64_t version;             /* raised when its code changes results: plans make its models again */
    bool continues_adapter;      /* trains the model's last adapter after tm_model_continue_adapter */
    bool divides;                /* several processes may share its work (temper_ranks.h) */
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

#ifdef __cplusplus
}
#endif
#endif
