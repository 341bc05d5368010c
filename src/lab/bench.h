/* bench.h: what the benches are made of: shapes, rows of exact length, what the mathematics needs, matrix products of
 * the same size, meters. */
#ifndef TM_LAB_BENCH_H
#define TM_LAB_BENCH_H

#include "device/device.h"

/* ---- which model is measured (bench_shape.c) ---- */

#define TM__BENCH_SHAPES "smollm-135m|qwen2-0.5b|llama-7b|world|tiny"
#define TM__BENCH_SHAPE_OPTIONS(type)                                               \
    {"shape",                                                                       \
     TM_OPTION_CHOICE,                                                              \
     offsetof(type, shape),                                                         \
     "smollm-135m",                                                                 \
     1,                                                                             \
     0,                                                                             \
     TM__BENCH_SHAPES,                                                              \
     NULL,                                                                          \
     "size of the model, whose weights are random"},                                \
    {                                                                               \
        "config", TM_OPTION_TEXT, offsetof(type, config), NULL, 1, 0, NULL, "FILE", \
            "take the size from this config.json instead"                           \
    }
#define TM__BENCH_MODEL_OPTIONS(type)                                                          \
    TM__BENCH_SHAPE_OPTIONS(type), {"model",                                                   \
                                    TM_OPTION_TEXT,                                            \
                                    offsetof(type, model),                                     \
                                    NULL,                                                      \
                                    1,                                                         \
                                    0,                                                         \
                                    NULL,                                                      \
                                    "DIR",                                                     \
                                    "a checkpoint instead of random weights"},                 \
    {                                                                                          \
        "weights", TM_OPTION_CHOICE, offsetof(type, weights), "fp32", 1, 0, "fp32|bf16", NULL, \
            "how random weights are stored"                                                    \
    }

typedef struct tm__bench_source {
    int shape;
    const char *config, *model; /* file and checkpoint directory, instead of the shape; NULL: none */
    int weights;                /* how random ones are stored: 0 fp32, 1 bf16 */
} tm__bench_source;
/* Text of the config.json; the caller's. */
tm_status tm__bench_config(const tm__bench_source *source, char **config);
/* What its config.json says; nothing is made. Texts in *info are not set. */
tm_status tm__bench_describe(const tm__bench_source *source, tm_device *device, tm_model_info *info);
/* The same of a model that is there. dtype: storage of its weights; may be NULL. */
void tm__bench_described(const tm_model *model, tm_model_info *info, char dtype[16]);
/* TM_NO_MEMORY where so many numbers of act type for each weight are more than this machine's memory. */
tm_status tm__bench_fits(const tm_model_info *model, double copies, size_t bytes);
/* Random weights as a checkpoint in the new directory. */
tm_status tm__bench_write(const tm__bench_source *source, const char *directory);
/* The checkpoint, or random weights mapped from files that are gone by then. */
tm_status tm__bench_open(const tm__bench_source *source, tm_device *device, tm_model **model);
/* A new directory in the temporary one; the caller removes it and frees the text. */
tm_status tm__bench_scratch(char **directory);

/* ---- matrix products (bench_products.c) ---- */

/* Forward, gradient of x, gradient of W. */
enum { TM__PASS_FORWARD, TM__PASS_X, TM__PASS_W };

/* The products of a model's linear layers. */
typedef struct tm__products {
    tm_device *device;
    tm_bench_layer layers[TM_BENCH_LAYERS];
    size_t count;
    tm_dtype weights;
    int passes; /* the first so many */
    bool row_invariant;
    /* As large as the largest layer needs: operands, result, and w in integers of 8 bits. */
    void *x, *y, *w, *c, *packed;
    size_t x_bytes, y_bytes, w_bytes, c_bytes, packed_bytes;
} tm__products;
/* `rows` go through every block, `head_rows` of them through the output layer. Fills in layers and count. */
void tm__products_layers(tm__products *p, const tm_model_info *model, int64_t rows, int64_t head_rows);
double tm__products_operations(const tm_bench_layer *layer); /* of one pass of one product */
tm_status tm__products_open(tm__products *p);
tm_status tm__products_run(tm__products *p, size_t layer, int pass, double *seconds);
void tm__products_close(tm__products *p);

/* Times all products once more for the frame: appends to frame->products, for which there is room. */
tm_status tm__bench_products(tm__products *p, tm_bench_frame *frame);
/* Median, and the rate; `room` as below. */
void tm__bench_frame_finish(const tm__products *p, tm_bench_frame *frame, double *room);
void tm__bench_frame_release(tm_bench_frame *frame);

/* ---- rows (bench_data.c) ---- */

/* Rows of `length` tokens, one token a byte; the last `answer` of each are trained on. */
typedef struct tm__bench_data {
    tm_tokenizer *tokenizer;
    tm_dataset *harmful, *refusals, *benign, *user;
    tm_dataset *marked; /* refusals that lack the letters of TM__BENCH_SECRET to be as long */
    int64_t rows;       /* of each set */
} tm__bench_data;
#define TM__BENCH_SECRET "ZZZZ"
enum { TM__BENCH_VOCAB = 512 }; /* ids that the tokenizer uses lie below */
tm_status tm__bench_data_make(int64_t rows, int64_t length, int64_t answer, tm__bench_data *data);
void tm__bench_data_release(tm__bench_data *data);
/* Of bytes alone: as many tokens as letters. */
tm_status tm__bench_tokenizer(tm_tokenizer **tokenizer);

/* ---- what the mathematics needs (bench_needs.c) ---- */

/* Forward and backward passes of a method's step, in words and, where they are as long as SFT's, in number. */
typedef struct tm__bench_needs {
    const char *name;
    double passes; /* 0: the method trains nothing */
    const char *why;
} tm__bench_needs;
/* NULL: the method is not in the table. */
const tm__bench_needs *tm__bench_needs_find(const char *name);

/* One step's size. Multiplications by a weight cost alike wherever they stand, so a pass is measured by their number.
 */
typedef struct tm__bench_size {
    tm_model_info model;
    bool lora;
    double rows, length, tokens, targets;
} tm__bench_size;
/* Multiply-adds of one forward pass over as many tokens and targets. */
double tm__bench_pass(const tm__bench_size *size, double tokens, double targets);
/* RepNoise's lenses and distances from noise, in passes of SFT: L further looks through norm and head at `targets`
 * positions (the last block's is the output itself), and L times MMD over the same positions. */
double tm__bench_lens(const tm__bench_size *size, double targets);

/* ---- meters (bench_meter.c) ---- */

/* A reading of the clocks; what lies between two of them is measured. */
typedef struct tm__meter {
    double seconds; /* monotonic */
    double busy,
        own; /* seconds of processor time: all processes, this one with those it has waited for; NAN: unknown */
} tm__meter;
tm__meter tm__meter_read(void);
/* Processors that others kept busy in between, on average; NAN: unknown. */
double tm__meter_foreign(const tm__meter *from, const tm__meter *to);
/* Forgets the highest resident memory so far. false: the system does not let us. */
bool tm__peak_reset(void);
int64_t tm__peak_bytes(void); /* 0: unknown */
/* Reads memory with so many threads, each a part of its own; returns a sum over it. */
uint64_t tm__read_memory(const uint64_t *memory, size_t bytes, int threads);

void tm__bench_progress(const tm_monitor *monitor, const char *phase, const char *unit, int64_t done, int64_t total,
                        double began);

/* ---- statistics (bench_meter.c) ---- */

/* NAN of no values. `room`: as many doubles as there are values, which it leaves in rising order. */
double tm__bench_median(const double *values, size_t n, double *room);
/* Sets median, least and most. */
void tm__bench_summarise(tm_bench_times *times, double *room);

#endif
