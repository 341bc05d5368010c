/* bench_files.h: a tokenizer and rows that are as large as real ones (bench_files.c). */
#ifndef TM_LAB_BENCH_FILES_H
#define TM_LAB_BENCH_FILES_H

#include "base/base.h"

/* DIRECTORY/tokenizer.json: byte-level BPE of so many tokens (at least 257). */
tm_status tm__bench_write_tokenizer(int64_t vocab, const char *directory);
/* Conversations of made-up words as JSON Lines; each has a fourth of `length` letters in the prompt and `length` in the
 * answer, so that the prompt fits into as many tokens with room to spare. */
tm_status tm__bench_write_rows(int64_t rows, int64_t length, const char *path);

#endif
