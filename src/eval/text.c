/* text.c: the string functions of Python that published evaluations lean on, on UTF-8.
 *
 * Case is mapped one character to one: what maps to several (the German sharp s, the dotted capital I) or by its place
 * in a word (the final sigma) stays as the simple mapping has it. Test: tests/unit/test_eval_text.c.
 */
#include "eval/suite.h"

#include <stdlib.h>
#include <utf8proc.h>

bool tm__py_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Length of the character at `s`; a stray byte is one of its own. */
static size_t character(const char *s, size_t len, uint32_t *code) {
    int n = tm__utf8_decode(s, len, code);
    if (n > 0) return (size_t)n;
    *code = 0xfffd;
    return 1;
}

size_t tm__py_rstrip(const char *text, size_t len) {
    size_t end = 0;
    for (size_t at = 0; at < len;) {
        uint32_t code;
        at += character(text + at, len - at, &code);
        if (!tm__py_space(code)) end = at;
    }
    return end;
}

const char *tm__py_strip(const char *text, size_t *len) {
    size_t total = strlen(text), at = 0;
    while (at < total) {
        uint32_t code;
        size_t n = character(text + at, total - at, &code);
        if (!tm__py_space(code)) break;
        at += n;
    }
    *len = tm__py_rstrip(text + at, total - at);
    return text + at;
}

size_t tm__py_length(const char *text) {
    size_t len = strlen(text), count = 0;
    for (size_t at = 0; at < len; count++) {
        uint32_t code;
        at += character(text + at, len - at, &code);
    }
    return count;
}

size_t tm__py_words(const char *text) {
    size_t len = strlen(text), gaps = 0;
    bool inside = false;
    for (size_t at = 0; at < len;) {
        uint32_t code;
        at += character(text + at, len - at, &code);
        bool space = tm__py_space(code);
        gaps += space && !inside;
        inside = space;
    }
    return gaps + 1;
}

char *tm__py_capitalize(const char *text) {
    size_t len = strlen(text);
    tm__string out = {0};
    bool ok = tm__string_append(&out, "", 0);
    for (size_t at = 0; ok && at < len;) {
        uint32_t code;
        char bytes[4];
        bool first = at == 0;
        at += character(text + at, len - at, &code);
        utf8proc_int32_t mapped =
            first ? utf8proc_totitle((utf8proc_int32_t)code) : utf8proc_tolower((utf8proc_int32_t)code);
        ok = tm__string_append(&out, bytes, (size_t)tm__utf8_encode((uint32_t)mapped, bytes));
    }
    if (!ok) tm__string_free(&out);
    return out.data;
}

char *tm__py_replace(const char *text, const char *what, const char *by) {
    tm__string out = {0};
    bool ok = tm__string_append(&out, "", 0);
    for (const char *at; ok && (at = strstr(text, what)) != NULL; text = at + strlen(what))
        ok = tm__string_append(&out, text, (size_t)(at - text)) && tm__string_append(&out, by, strlen(by));
    ok = ok && tm__string_append(&out, text, strlen(text));
    if (!ok) tm__string_free(&out);
    return out.data;
}
