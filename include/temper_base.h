/* temper_base.h: the part of temper.h about errors, options, watching a run, devices; included by it. */
#ifndef TEMPER_BASE_H
#define TEMPER_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TM_VERSION "0.1.0"
#if defined(__GNUC__)
#define TM_API __attribute__((visibility("default")))
#else
#define TM_API
#endif

/* ------------------------------------------------------------------------------------------------ status, errors */
/* One list makes the enum, the names, the texts and the exit codes of the command line. */
#define TM_STATUS_LIST(X)                              \
    X(OK, "ok", 0)                                     \
    X(INVALID, "invalid argument or option", 2)        \
    X(NO_MEMORY, "out of memory", 3)                   \
    X(IO, "reading or writing failed", 4)              \
    X(NOT_FOUND, "no such file, tensor or name", 5)    \
    X(FORMAT, "malformed file", 6)                     \
    X(UNSUPPORTED, "not supported", 7)                 \
    X(MISMATCH, "two inputs do not fit each other", 8) \
    X(NUMERIC, "a value is not finite", 9)             \
    X(EXISTS, "the output already exists", 10)         \
    X(INTERRUPTED, "interrupted", 130)

typedef enum tm_status {
#define TM_STATUS_ENUM(name, text, code) TM_##name,
    TM_STATUS_LIST(TM_STATUS_ENUM)
#undef TM_STATUS_ENUM
} tm_status;

/* Detail of the last failure in this thread. `line` is the whole of it in one line:
 * "FILE: FIELD: MESSAGE (HINT)", parts that are empty left out, control characters shown as '?'. */
typedef struct tm_error {
    tm_status status;
    char file[256];    /* file or directory concerned, or "" */
    char field[128];   /* field, tensor, option or line concerned, or "" */
    char message[384]; /* what is wrong */
    char hint[256];    /* what to do about it, or "" */
    char line[1100];
} tm_error;

TM_API const char *tm_status_name(tm_status status); /* "FORMAT" */
TM_API const char *tm_status_text(tm_status status); /* "malformed file" */
TM_API int tm_status_exit_code(tm_status status);
TM_API const tm_error *tm_error_last(void); /* never NULL; valid until the next failure in this thread */
TM_API void tm_error_clear(void);

/* ------------------------------------------------------------------------------------------------ options */
/* Units of texts that name what a run writes beside its result. */
#define TM_UNIT_BYTES "BYTES" /* INT: a number of bytes, as in 8G, 6500M, 4096 */
#define TM_UNIT_OUT_FILE "OUT-FILE"
#define TM_UNIT_OUT_DIR "OUT-DIR"

/* An option table describes the fields of an options struct: the one source of defaults, ranges, help and parsing. */
typedef enum tm_option_type {
    TM_OPTION_FLAG,   /* bool */
    TM_OPTION_INT,    /* int64_t */
    TM_OPTION_REAL,   /* double */
    TM_OPTION_TEXT,   /* const char *, points into the caller's string */
    TM_OPTION_CHOICE, /* int: index into `choices` */
} tm_option_type;

typedef struct tm_option {
    const char *name; /* long name without dashes, "lora-rank"; NULL ends a table */
    tm_option_type type;
    size_t offset;       /* offsetof the field in the options struct */
    const char *initial; /* default as text; NULL: 0, false or NULL */
    double min, max;     /* inclusive range of INT and REAL; min > max: no bound */
    const char *choices; /* "constant|linear|cosine" for CHOICE */
    const char *unit;    /* "steps", "DIR", ...; shown in help */
    const char *help;
} tm_option;

TM_API void tm_options_default(const tm_option *table, void *options);
/* Parses and range-checks one value. NULL value: only a flag may do without. Unknown names: TM_NOT_FOUND. */
TM_API tm_status tm_options_set(const tm_option *table, void *options, const char *name, const char *value);
TM_API const tm_option *tm_options_find(const tm_option *table, const char *name);
/* Value of one field as text ("0.0001", "cosine"), written to `out` of `size` bytes. */
TM_API void tm_options_text(const tm_option *option, const void *options, char *out, size_t size);

/* ------------------------------------------------------------------------------------------------ watching a run */
typedef struct tm_progress {
    const char *phase; /* "train", "generate", ... */
    int64_t done, total;
    const char *unit; /* "step", "prompt" */
    double loss;      /* NAN where there is none */
    double lr;        /* NAN where there is none */
    int64_t tokens;   /* processed since the phase began */
    double seconds;   /* since the phase began */
} tm_progress;

/* Every member may be NULL. `stop` is asked between steps; true ends the call with TM_INTERRUPTED after it has saved
 * what it promised to save. */
typedef struct tm_monitor {
    void (*progress)(void *user, const tm_progress *progress);
    void (*note)(void *user, const char *line); /* warnings and remarks, one line, no newline */
    bool (*stop)(void *user);
    void *user;
} tm_monitor;

/* ------------------------------------------------------------------------------------------------ device */
typedef struct tm_device tm_device;

typedef enum tm_precision {
    TM_PRECISION_AUTO, /* bf16 where the processor multiplies it natively with gain (AMX), else fp32 */
    TM_PRECISION_F32,
    TM_PRECISION_BF16, /* operands of matrix products rounded to bf16; sums and everything else fp32 */
    TM_PRECISION_F64,  /* device "ref" only */
    TM_PRECISION_INT8, /* generation and evaluation only: weights and what they are multiplied by as integers of 8 bits,
                          in groups of 64 along k with a scale each; cached keys and values bf16, all else fp32 */
} tm_precision;

typedef struct tm_device_options {
    const char *name; /* "cpu" (default), "ref" */
    int64_t threads;  /* 0: all cores this process may use */
    int precision;    /* tm_precision */
} tm_device_options;

extern TM_API const tm_option tm_device_option_table[]; /* --device --threads --precision */

TM_API tm_status tm_device_open(const tm_device_options *options, tm_device **device);
TM_API void tm_device_close(tm_device *device);
TM_API const char *tm_device_name(const tm_device *device); /* "cpu" */
/* "avx512+amx", "avx512", "avx2" or "sse"; "c" on ref. It decides bytes: checkpoints of training name it. */
TM_API const char *tm_device_instruction_set(const tm_device *device);
TM_API const char *tm_device_precision(const tm_device *device); /* "fp32", "bf16", "fp64" */
TM_API int tm_device_threads(const tm_device *device);

/* A device that computes nothing and counts the memory of the real run: training stops after a few steps of the largest
 * batch, weights are not read, results mean nothing. */
TM_API tm_status tm_device_open_rehearsal(const tm_device_options *options, tm_device **device);

#ifdef __cplusplus
}
#endif
#endif
