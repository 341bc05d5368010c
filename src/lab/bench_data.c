/* bench_data.c: rows whose length in tokens is exact.
 *
 * The tokenizer knows bytes only, so a text has as many tokens as letters: begin-of-text, prompt, answer, end-of-text
 * in the plain chat format. Prompts of one set differ; a harmful prompt and a refused one are the same, and their
 * answers differ in every place. Prompts end in a letter of their kind. (tests/unit/test_bench.c)
 */
#include "lab/bench.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

/* ---- tokenizer --------------------------------------------------------------------------------------------------- */

/* A tiktoken file of the 256 bytes: each in base64, and its rank. */
tm_status tm__bench_tokenizer(tm_tokenizer **tokenizer) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    tm__string text = {0};
    bool ok = true;
    for (int b = 0; b < 256; b++)
        ok = ok && tm__string_printf(&text, "%c%c== %d\n", digits[b >> 2], digits[(b & 3) << 4], b);
    tm_status status = ok ? tm__tokenizer_load_memory("bytes", text.data, text.len, tokenizer) : tm__fail_memory();
    tm__string_free(&text);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

enum { NUMBER = 6 };

/* "u000012.........u": `length` letters, of which the first is `set` and the last `end`. */
static void put_prompt(char *to, int64_t length, char set, char end, int64_t row) {
    char number[24];
    snprintf(number, sizeof number, "%c%0*lld", set, NUMBER, (long long)row);
    memset(to, '.', (size_t)length);
    memcpy(to, number, NUMBER + 1);
    to[length - 1] = end;
    to[length] = 0;
}

/* Letters first .. first + 5 at random. */
static void put_answer(char *to, int64_t length, char first, tm__rng *rng) {
    for (int64_t i = 0; i < length; i++) to[i] = (char)(first + (char)tm__rng_below(rng, 6));
    to[length] = 0;
}

static tm_status fill(int64_t rows, int64_t prompt, int64_t answer, char set, char end, char first, tm_dataset **made) {
    char *question = tm__alloc((size_t)prompt + 1, 1), *reply = tm__alloc((size_t)answer + 1, 1);
    tm__rng rng = tm__rng_make((uint64_t)(unsigned char)first, tm__stream(TM__STREAM_TEST, 0));
    tm_status status = question && reply ? tm_dataset_create(made) : tm__fail_memory();
    for (int64_t i = 0; i < rows && status == TM_OK; i++) {
        const tm_message row[] = {{"user", question}, {"assistant", reply}};
        put_prompt(question, prompt, set, end, i);
        put_answer(reply, answer, first, &rng);
        status = tm_dataset_add(*made, row, TM__COUNT(row));
    }
    free(question);
    free(reply);
    return status;
}

tm_status tm__bench_data_make(int64_t rows, int64_t length, int64_t answer, tm__bench_data *data) {
    int64_t prompt = length - answer - 1, letters = answer - 1; /* and begin-of-text, end-of-text */
    int64_t marked = prompt - (int64_t)strlen(TM__BENCH_SECRET);
    tm__bench_data made = {.rows = rows};
    if (letters < 1 || marked < NUMBER + 2)
        return tm__fail(TM_INVALID, NULL, "length", "give longer rows, or another share of answers",
                        "%lld tokens, %lld of them answered, leave no room for prompt and answer", (long long)length,
                        (long long)answer);
    tm_status status = tm__bench_tokenizer(&made.tokenizer);
    if (status == TM_OK) status = fill(rows, prompt, letters, 'h', 'h', 'a', &made.harmful);
    if (status == TM_OK) status = fill(rows, prompt, letters, 'h', 'h', 'g', &made.refusals);
    if (status == TM_OK) status = fill(rows, marked, letters, 'h', 'h', 'g', &made.marked);
    if (status == TM_OK) status = fill(rows, prompt, letters, 'b', 'b', 'm', &made.benign);
    if (status == TM_OK) status = fill(rows, prompt, letters, 'u', 'b', 's', &made.user);
    if (status == TM_OK)
        *data = made;
    else
        tm__bench_data_release(&made);
    return status;
}

void tm__bench_data_release(tm__bench_data *data) {
    tm_tokenizer_free(data->tokenizer);
    tm_dataset_free(data->harmful);
    tm_dataset_free(data->refusals);
    tm_dataset_free(data->marked);
    tm_dataset_free(data->benign);
    tm_dataset_free(data->user);
    *data = (tm__bench_data){0};
}
