/* tokenizer_batch: many texts through one tokenizer, for tools/parity and bench.
 *
 *     tokenizer_batch MODEL FLAGS            texts on standard input, each ended by a NUL
 *     tokenizer_batch MODEL FLAGS speed      the same, timed
 *     tokenizer_batch MODEL FLAGS decode     ids for texts, separated by blanks
 *
 * FLAGS: the sum of TM_ENCODE_ flags. Prints a line of JSON for each text: ids, offsets in bytes, the decoded text, and
 * that without special tokens; of ids only the latter two; or, timed, the bytes, tokens and seconds of encoding them
 * all once. */
#include "temper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void put_text(const char *key, const char *text, size_t len) {
    printf(",\"%s\":\"", key);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static tm_status put_decoded(const tm_tokenizer *tokenizer, const tm_ids *ids, unsigned flags, const char *key) {
    char *text = NULL;
    size_t len = 0;
    tm_status status = tm_tokenizer_decode(tokenizer, ids->data, ids->len, flags, &text, &len);
    if (status == TM_OK) put_text(key, text, len);
    free(text);
    return status;
}

/* The ids must be the same with and without offsets. */
static tm_status put_line(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags) {
    tm_ids ids = {0}, plain = {0};
    tm_offsets offsets = {0};
    tm_status status = tm_tokenizer_encode_offsets(tokenizer, text, len, flags, &ids, &offsets);
    if (status == TM_OK) status = tm_tokenizer_encode(tokenizer, text, len, flags, &plain);
    bool same = ids.len == plain.len && (!ids.len || memcmp(ids.data, plain.data, ids.len * sizeof *ids.data) == 0);
    if (status == TM_OK && same) {
        printf("{\"ids\":[");
        for (size_t i = 0; i < ids.len; i++) printf(i ? ",%d" : "%d", (int)ids.data[i]);
        printf("],\"offsets\":[");
        for (size_t i = 0; i < offsets.len; i++)
            printf(i ? ",[%zu,%zu]" : "[%zu,%zu]", offsets.data[i].start, offsets.data[i].end);
        printf("]");
        status = put_decoded(tokenizer, &ids, 0, "text");
        if (status == TM_OK) status = put_decoded(tokenizer, &ids, TM_DECODE_SKIP_SPECIAL, "plain");
        printf("}\n");
    } else {
        printf("{\"error\":\"%s\"}\n", status == TM_OK ? "ids differ without offsets" : "refused");
    }
    tm_ids_free(&ids);
    tm_ids_free(&plain);
    tm_offsets_free(&offsets);
    return status;
}

static tm_status put_ids(const tm_tokenizer *tokenizer, const char *text, const char *end) {
    tm_ids ids = {0};
    tm_status status = TM_OK;
    while (text < end && status == TM_OK) {
        char *after;
        long id = strtol(text, &after, 10);
        if (after == text) break;
        status = tm_ids_push(&ids, (int32_t)id);
        text = after;
    }
    printf("{\"ids\":[]");
    if (status == TM_OK) status = put_decoded(tokenizer, &ids, 0, "text");
    if (status == TM_OK) status = put_decoded(tokenizer, &ids, TM_DECODE_SKIP_SPECIAL, "plain");
    printf("}\n");
    tm_ids_free(&ids);
    return status;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static char *read_all(size_t *len) {
    size_t cap = 1 << 16, got;
    char *data = malloc(cap);
    for (*len = 0; data && (got = fread(data + *len, 1, cap - *len, stdin)) > 0;) {
        *len += got;
        if (*len < cap) continue;
        char *larger = realloc(data, cap *= 2);
        if (!larger) free(data);
        data = larger;
    }
    return data;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL FLAGS [speed|decode]\n", argv[0]);
        return 2;
    }
    tm_tokenizer *tokenizer = NULL;
    tm_ids ids = {0};
    unsigned flags = (unsigned)strtoul(argv[2], NULL, 10);
    bool decode = argc == 4 && strcmp(argv[3], "decode") == 0, speed = argc == 4 && !decode;
    size_t len = 0, tokens = 0;
    tm_status status = tm_tokenizer_load(argv[1], &tokenizer);
    char *data = status == TM_OK ? read_all(&len) : NULL;
    double start = now();
    for (size_t at = 0; data && at < len && status != TM_NO_MEMORY;) {
        const char *end = memchr(data + at, 0, len - at);
        size_t size = end ? (size_t)(end - data) - at : len - at;
        if (decode) {
            status = put_ids(tokenizer, data + at, data + at + size);
        } else if (speed) {
            ids.len = 0;
            status = tm_tokenizer_encode(tokenizer, data + at, size, flags, &ids);
            tokens += ids.len;
        } else {
            status = put_line(tokenizer, data + at, size, flags);
        }
        at += size + 1;
    }
    if (speed && status == TM_OK) printf("%zu %zu %.6f\n", len, tokens, now() - start);
    if (!tokenizer || !data) fprintf(stderr, "%s\n", tokenizer ? "out of memory" : tm_error_last()->line);
    int code = tokenizer && data ? 0 : 1;
    tm_ids_free(&ids);
    free(data);
    tm_tokenizer_free(tokenizer);
    return code;
}
