/* bench.h: what tm_bench_step and tm_bench_generate are made of: rows of exact length, what each method's mathematics
 * needs, meters. */
#ifndef TM_LAB_BENCH_H
#define TM_LAB_BENCH_H

#include "base/base.h"

/* ---- shape and rows (bench_data.c) ---- */

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
/* config.json of a shape by its index in the option's choices, or the text of `file` if it is given; the caller's. */
tm_status tm__bench_config(int shape, const char *file, char **config);

/* ---- what a step needs (bench_needs.c) ---- */

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
    double seconds;   /* monotonic */
    double busy, own; /* seconds of processor time: all processes, this one; NAN: unknown */
} tm__meter;
tm__meter tm__meter_read(void);
/* Processors that others kept busy in between, on average; NAN: unknown. */
double tm__meter_foreign(const tm__meter *from, const tm__meter *to);
/* Forgets the highest resident memory so far. false: the system does not let us. */
bool tm__peak_reset(void);
int64_t tm__peak_bytes(void); /* 0: unknown */
/* Reads memory with so many threads, each a part of its own; returns a sum over it. */
uint64_t tm__read_memory(const uint64_t *memory, size_t bytes, int threads);

/* ---- statistics (bench_meter.c) ---- */

/* NAN of no values. `room`: as many doubles as there are values, which it leaves in rising order. */
double tm__bench_median(const double *values, size_t n, double *room);
/* Sets median, least and most. */
void tm__bench_summarise(tm_bench_times *times, double *room);

#endif
