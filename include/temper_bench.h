/* temper_bench.h: the part of temper.h about measuring speed; included by it.
 *
 * Every report begins with what all of them tell (tm_bench_frame) and is released by a function of its own. A call that
 * fails or is interrupted has no report. Models have random weights unless a directory is named.
 */
#ifndef TEMPER_BENCH_H
#define TEMPER_BENCH_H

#include "temper_method.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes of models that are known by name. */
typedef enum tm_bench_shape {
    TM_SHAPE_SMOLLM_135M,
    TM_SHAPE_QWEN2_05B,
    TM_SHAPE_LLAMA_7B,
    TM_SHAPE_WORLD, /* the demo's model */
    TM_SHAPE_TINY,
} tm_bench_shape;
TM_API const char *tm_bench_shape_name(int shape); /* as in the option --shape */

/* Seconds, in the order in which they were measured. */
typedef struct tm_bench_times {
    double *seconds;
    size_t count;
    double median, least, most;
} tm_bench_times;

/* What is told of whatever was measured. */
typedef struct tm_bench_figures {
    double tokens;  /* a second; NAN: none are counted */
    double flops;   /* operations a second of those that the mathematics needs; NAN: none are counted */
    double share;   /* of the frame's rate of products */
    int64_t peak;   /* highest resident memory of the process meanwhile, bytes; 0: unknown */
    double foreign; /* processors kept busy by others meanwhile, on average; NAN: unknown */
} tm_bench_figures;

/* What every report begins with. The products are those of one block's linear layers and of the output layer, of the
 * size that the measured work has them in, timed between its runs. */
typedef struct tm_bench_frame {
    tm_model_info model;     /* texts in it are not set; layers 0: no model takes part */
    tm_bench_times products; /* count 0: not measured */
    double product_flops;    /* operations of them a second; NAN: not measured */
} tm_bench_frame;

/* ------------------------------------------------------------------------------------------------ matrix products */
enum { TM_BENCH_LAYERS = 8, TM_BENCH_TYPES = 3, TM_BENCH_PASSES = 3 };

typedef struct tm_bench_gemm_options {
    int shape;
    const char *config; /* config.json of another shape; NULL: none */
    int64_t rows, repeats;
} tm_bench_gemm_options;
extern TM_API const tm_option tm_bench_gemm_option_table[];

/* One linear layer (out, in): y = x W^T. The output layer is multiplied by a chunk of rows at a time, as in training.
 */
typedef struct tm_bench_layer {
    const char *name; /* "q_proj" */
    int64_t in, out, rows;
    double times; /* how often such products stand in one pass over all rows of the model */
} tm_bench_layer;

/* Passes: forward, gradient of x, gradient of W; 8-bit weights are never trained. */
typedef struct tm_bench_gemm_type {
    const char *name; /* "fp32", "bf16", "int8" */
    const char *instruction_set;
    char refused[256]; /* why the device does not multiply so; "": it does */
    tm_bench_times times[TM_BENCH_LAYERS][TM_BENCH_PASSES];
    double flops[TM_BENCH_LAYERS][TM_BENCH_PASSES]; /* of the medians; NAN: not done in this type */
    double pass_flops[TM_BENCH_PASSES];             /* over all layers, as often as they stand in the model */
    double seconds;                                 /* all passes of all layers of the model, of the medians */
    tm_bench_figures figures;                       /* share: of the fastest product of all */
} tm_bench_gemm_type;

typedef struct tm_bench_gemm_report {
    tm_bench_frame frame;
    tm_bench_layer layers[TM_BENCH_LAYERS];
    size_t layer_count, type_count;
    tm_bench_gemm_type types[TM_BENCH_TYPES];
} tm_bench_gemm_report;

/* Rates of the products of a shape's linear layers, alone. Precision of `where`: that type; auto: all three. */
TM_API tm_status tm_bench_gemm(const tm_device_options *where, const tm_bench_gemm_options *options,
                               const tm_monitor *monitor, tm_bench_gemm_report *report);
TM_API void tm_bench_gemm_report_release(tm_bench_gemm_report *report);

/* ------------------------------------------------------------------------------------------------ training steps */
typedef struct tm_bench_options {
    int shape;                     /* tm_bench_shape */
    const char *config;            /* config.json of another shape; NULL: none */
    const char *methods;           /* names separated by commas, "sft" among them; "all": every method */
    int64_t batch, length, answer; /* rows per step, tokens per row, and how many of these are trained on */
    int64_t repeats;               /* runs of SFT and of the method, in turns */
    int64_t steps;                 /* measured steps of a run, after one that is not */
    int64_t lora_rank;             /* 0: all weights are trained */
    bool recompute;
    int64_t memory; /* most bytes of a run; 0: no bound */
} tm_bench_options;

extern TM_API const tm_option tm_bench_option_table[];

typedef struct tm_bench_row {
    const tm_method *method;  /* of "sft" the name alone is set */
    bool trains;              /* else all that follows but `once`, memory and load is NAN or 0 */
    tm_bench_times step, sft; /* steps of the method, and of SFT in between; of "sft" itself the first alone */
    double ratio;             /* of their medians */
    double passes;            /* what the mathematics needs, in forward and backward passes of SFT; NAN: not known */
    const char *why;          /* which passes these are */
    double once;              /* seconds outside of steps, beyond SFT's; of a method that does not train: in all */
    int64_t sft_peak;         /* highest resident memory of the process in SFT's runs, bytes; 0: unknown */
    tm_bench_figures figures;
    char failure[512]; /* why it was not measured; "": it was */
} tm_bench_row;

typedef struct tm_bench_report {
    tm_bench_frame frame;
    int64_t rows; /* in each set of rows */
    double pass;  /* multiply-adds of one forward pass of SFT's step */
    double head;  /* share of them in the output layer, which every lens of RepNoise repeats */
    tm_bench_row *list;
    size_t count;
} tm_bench_report;

/* Cost of a training step of methods beside SFT's, on random weights and made-up rows. A method that fails has its
 * failure in its row. */
TM_API tm_status tm_bench_step(tm_device *device, const tm_bench_options *options, const tm_monitor *monitor,
                               tm_bench_report *report);
TM_API void tm_bench_report_release(tm_bench_report *report);

/* ------------------------------------------------------------------------------------------------ generation */
typedef struct tm_bench_generate_options {
    int shape;                       /* tm_bench_shape */
    const char *config, *model;      /* a config.json of another shape, or a checkpoint; NULL: neither */
    int weights;                     /* random ones are stored as 0 fp32, 1 bf16 */
    int64_t prompts, length, shared; /* tokens per prompt, and how many of these all prompts have in common */
    int64_t new_tokens, batch;       /* per prompt; rows at a time */
    int64_t alone;                   /* tokens of a lone row, timed one by one; 0: none */
    int64_t repeats;
} tm_bench_generate_options;

extern TM_API const tm_option tm_bench_generate_option_table[];

typedef struct tm_bench_generate_report {
    tm_bench_frame frame;
    char dtype[16];           /* storage of the weights */
    int64_t weight_bytes;     /* read for every token of a lone row */
    tm_bench_times batched;   /* all prompts */
    tm_bench_figures figures; /* of these; tokens: new ones */
    tm_bench_times alone;     /* one token of a lone row */
    tm_bench_times read;      /* reading weight_bytes of other memory, after each of them */
    double bandwidth;         /* bytes per second of that */
    double bound_share;       /* read / alone: 1 would be a token for the price of reading the weights */
    char digest[65];          /* SHA-256 of all new ids: the same for every batch size and number of threads */
} tm_bench_generate_report;

/* Speed of greedy generation from random prompts, without a stop token. */
TM_API tm_status tm_bench_generate(tm_device *device, const tm_bench_generate_options *options,
                                   const tm_monitor *monitor, tm_bench_generate_report *report);
TM_API void tm_bench_generate_report_release(tm_bench_generate_report *report);

/* ------------------------------------------------------------------------------------------------ evaluation */
typedef struct tm_bench_eval_options {
    int shape;
    const char *config, *model;
    int weights;
    int64_t items, question, choices, answer; /* questions, their tokens, answers to each, and tokens of these */
    int64_t batch, repeats;
} tm_bench_eval_options;

extern TM_API const tm_option tm_bench_eval_option_table[];

typedef struct tm_bench_eval_report {
    tm_bench_frame frame;
    char dtype[16];
    int64_t tokens, fed; /* of all questions with each of their answers; of them that had to be computed */
    tm_bench_times run;  /* one evaluation: all that follows */
    tm_bench_times read, encode, score; /* data to prompts; prompts to ids; ids to likelihoods and numbers */
    double items;                       /* a second */
    tm_bench_figures figures;           /* tokens: of `tokens` */
} tm_bench_eval_report;

/* Speed of an evaluation of multiple-choice questions by likelihood, through tm_evaluation_run. */
TM_API tm_status tm_bench_eval(tm_device *device, const tm_bench_eval_options *options, const tm_monitor *monitor,
                               tm_bench_eval_report *report);
TM_API void tm_bench_eval_report_release(tm_bench_eval_report *report);

/* ------------------------------------------------------------------------------------------------ tokenizing */
typedef struct tm_bench_tokenize_options {
    const char *model, *file; /* checkpoint directory or tokenizer file; text */
    int64_t repeats;
} tm_bench_tokenize_options;

extern TM_API const tm_option tm_bench_tokenize_option_table[];

typedef struct tm_bench_tokenize_report {
    tm_bench_frame frame;
    char kind[32]; /* of tokenizer */
    int64_t bytes, tokens;
    tm_bench_times load, encode;  /* reading the tokenizer, and with it, fresh, the whole text */
    tm_bench_times processor;     /* seconds of processor time of each encoding: one thread's */
    double byte_rate, load_share; /* bytes a second of processor time; load / (load + encode) */
    tm_bench_figures figures;
} tm_bench_tokenize_report;

/* Speed of text to ids on one thread. */
TM_API tm_status tm_bench_tokenize(const tm_bench_tokenize_options *options, const tm_monitor *monitor,
                                   tm_bench_tokenize_report *report);
TM_API void tm_bench_tokenize_report_release(tm_bench_tokenize_report *report);

/* ------------------------------------------------------------------------------------------------ loading */
enum { TM_BENCH_PHASES = 6 };
typedef enum tm_bench_first { TM_FIRST_BOTH, TM_FIRST_STEP, TM_FIRST_TOKEN } tm_bench_first;

typedef struct tm_bench_load_options {
    int shape;
    const char *config, *model;
    int weights;
    const char *data;            /* rows to train on; NULL: made-up ones */
    int64_t rows, batch, length; /* made-up rows, rows per step, tokens per row at most */
    int64_t lora_rank, repeats;
    int first;    /* tm_bench_first */
    double since; /* by the monotonic clock, when this process was started: it is one run; 0: start processes */
} tm_bench_load_options;

extern TM_API const tm_option tm_bench_load_option_table[];

typedef struct tm_bench_load_report {
    tm_bench_frame frame;
    char dtype[16];
    int64_t file_bytes;                     /* weights and tokenizer */
    tm_bench_times first_step;              /* from the start of a process until its first training step begins */
    tm_bench_times first_token;             /* of another, until the first token of an answer is there */
    tm_bench_times phases[TM_BENCH_PHASES]; /* of the first: what happened one after another */
    tm_bench_figures figures;               /* of both kinds of process; tokens and operations are not counted */
} tm_bench_load_report;

TM_API const char *tm_bench_phase_name(int phase); /* "process" */
/* Time from the start of a process to the first training step and to the first token. `program` (the temper command) is
 * started with `bench load` for each run. */
TM_API tm_status tm_bench_load(const char *program, const tm_device_options *where,
                               const tm_bench_load_options *options, const tm_monitor *monitor,
                               tm_bench_load_report *report);
TM_API void tm_bench_load_report_release(tm_bench_load_report *report);

#ifdef __cplusplus
}
#endif
#endif
