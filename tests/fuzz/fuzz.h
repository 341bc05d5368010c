/* fuzz.h: what a fuzz target defines and may use. A target aborts where a property is violated; the sanitizers see the
 * rest. */
#ifndef TM_FUZZ_H
#define TM_FUZZ_H

#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                          \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, tm_error_last()->line); \
            abort();                                                                                   \
        }                                                                                              \
    } while (0)

#endif
