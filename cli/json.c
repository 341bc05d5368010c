/* json.c: JSON as the commands print it (RFC 8259), and small helpers for text.
 *
 * A writer of a hundred lines, because the command line stands on the C library alone and only ever writes JSON.
 */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t cli_utf8_length(const char *s, size_t len) {
    const unsigned char *u = (const unsigned char *)s;
    if (len == 0) return 0;
    if (u[0] < 0x80) return 1;
    size_t n = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    /* overlong forms, surrogates, and what lies past U+10FFFF */
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f)) return 0;
    if ((u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f)) return 0;
    return n;
}

static void put_string(FILE *out, const char *text, size_t len) {
    fputc('"', out);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = cli_utf8_length(text + i, len - i);
        if (n == 0) {
            fputs("\\ufffd", out);
            n = 1;
        } else if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
        } else if (c == '\n') {
            fputs("\\n", out);
        } else if (c == '\t') {
            fputs("\\t", out);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(out, "\\u%04x", c);
        } else {
            fwrite(text + i, 1, n, out);
        }
        i += n;
    }
    fputc('"', out);
}

static void put_key(cli_json *json, const char *key) {
    if (json->filled[json->depth]) fputs(json->depth ? ", " : "\n", json->out);
    json->filled[json->depth] = true;
    if (!key) return;
    put_string(json->out, key, strlen(key));
    fputs(": ", json->out);
}

void cli_json_open(cli_json *json, const char *key, char bracket) {
    put_key(json, key);
    fputc(bracket, json->out);
    if (json->depth + 1 >= (int)CLI_COUNT(json->filled)) abort();
    json->filled[++json->depth] = false;
}

void cli_json_close(cli_json *json, char bracket) {
    fputc(bracket, json->out);
    json->depth--;
    if (json->depth == 0) {
        fputc('\n', json->out);
        json->filled[0] = false;
    }
}

void cli_json_bytes(cli_json *json, const char *key, const char *text, size_t len) {
    put_key(json, key);
    put_string(json->out, text, len);
}

void cli_json_text(cli_json *json, const char *key, const char *text) {
    put_key(json, key);
    if (text)
        put_string(json->out, text, strlen(text));
    else
        fputs("null", json->out);
}

void cli_json_int(cli_json *json, const char *key, int64_t value) {
    put_key(json, key);
    fprintf(json->out, "%" PRId64, value);
}

void cli_json_real(cli_json *json, const char *key, double value) {
    put_key(json, key);
    if (isfinite(value))
        fprintf(json->out, "%.9g", value);
    else
        fputs("null", json->out);
}

void cli_json_bool(cli_json *json, const char *key, bool value) {
    put_key(json, key);
    fputs(value ? "true" : "false", json->out);
}

tm_status cli_read_all(FILE *stream, char **text, size_t *len) {
    size_t cap = 1 << 16, n = 0;
    char *buffer = malloc(cap);
    while (buffer) {
        n += fread(buffer + n, 1, cap - n - 1, stream);
        if (n < cap - 1) break;
        char *larger = cap < SIZE_MAX / 2 ? realloc(buffer, cap * 2) : NULL;
        if (!larger) free(buffer);
        buffer = larger;
        cap *= 2;
    }
    if (!buffer) return TM_NO_MEMORY;
    if (ferror(stream)) {
        free(buffer);
        return TM_IO;
    }
    buffer[n] = 0;
    *text = buffer;
    *len = n;
    return TM_OK;
}

const char *cli_thousands(int64_t value) {
    static char buffers[4][32];
    static int next;
    char digits[24], *out = buffers[next++ % 4];
    int n = snprintf(digits, sizeof digits, "%" PRId64, value), at = 0;
    for (int i = 0; i < n; i++) {
        out[at++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - i - 1) % 3 == 0) out[at++] = ',';
    }
    out[at] = 0;
    return out;
}
