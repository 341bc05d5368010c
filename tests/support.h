/* support.h: what every test includes. */
#ifndef TM_TEST_SUPPORT_H
#define TM_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* Fails with the error's line if `call` did not return TM_OK. */
#define assert_ok(call)                                                        \
    do {                                                                       \
        if ((call) != TM_OK) fail_msg("%s: %s", #call, tm_error_last()->line); \
    } while (0)

/* Path below the shared inputs, or NULL where they are absent. Static buffer, overwritten by the next call. */
const char *test_shared(const char *relative);
/* Path below tests/ in the source tree. Static buffer (four in turn). */
const char *test_path(const char *relative);
/* A new empty directory below the system's temporary one; removed at exit. */
const char *test_scratch(void);
/* ||a - b|| / ||b||, fp64. */
double test_relative_error(const double *a, const double *b, size_t n);
/* main() of a program that needs shared inputs: returns 77 (a visible skip) if `relative` is absent. */
#define TEST_NEEDS_SHARED(relative)                                \
    do {                                                           \
        if (!test_shared(relative)) {                              \
            printf("SKIP: shared input %s is absent\n", relative); \
            return 77;                                             \
        }                                                          \
    } while (0)

#endif
