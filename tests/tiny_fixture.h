/* tiny_fixture.h: the tokenizer of tiny.h, made once for all tests of a program. */
#ifndef TM_TEST_TINY_FIXTURE_H
#define TM_TEST_TINY_FIXTURE_H

#include "tiny.h"

static tm_tokenizer *tokenizer;

static inline int tiny_setup(void **state) {
    (void)state;
    tokenizer = tiny_tokenizer();
    return 0;
}

static inline int tiny_teardown(void **state) {
    (void)state;
    tm_tokenizer_free(tokenizer);
    return 0;
}

#endif
