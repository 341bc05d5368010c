/* sha256.h: the two ways to compress, for sha256.c to choose from and for a test to compare. */
#ifndef TM_BASE_SHA256_H
#define TM_BASE_SHA256_H

#include "base/base.h"

/* Takes n blocks of 64 bytes into the state. */
typedef void tm__sha256_compress(uint32_t state[8], const uint8_t *blocks, size_t n);
tm__sha256_compress tm__sha256_compress_c;
tm__sha256_compress *tm__sha256_compress_native(void); /* NULL: this processor has no instructions for it */

extern const uint32_t tm__sha256_constants[64];

#endif
