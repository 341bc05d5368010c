/* text.c: UTF-8, strictly as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#include "base/base.h"

static bool continues(const char *s, int at) {
    return ((unsigned char)s[at] & 0xc0) == 0x80;
}

int tm__utf8_decode(const char *s, size_t len, uint32_t *code) {
    if (len == 0) return 0;
    const unsigned char first = (unsigned char)s[0];
    uint32_t value, least;
    int n;
    if (first < 0x80) {
        *code = first;
        return 1;
    } else if (first < 0xc2) {
        return 0; /* a continuation, or an overlong two-byte form */
    } else if (first < 0xe0) {
        n = 2, least = 0x80, value = first & 0x1f;
    } else if (first < 0xf0) {
        n = 3, least = 0x800, value = first & 0x0f;
    } else if (first < 0xf5) {
        n = 4, least = 0x10000, value = first & 0x07;
    } else {
        return 0;
    }
    if (len < (size_t)n) return 0;
    for (int i = 1; i < n; i++) {
        if (!continues(s, i)) return 0;
        value = value << 6 | ((unsigned char)s[i] & 0x3f);
    }
    if (value < least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return 0;
    *code = value;
    return n;
}

int tm__utf8_encode(uint32_t code, char out[4]) {
    assert(code <= 0x10ffff);
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (char)(lead[n] | code);
    return n;
}

bool tm__utf8_valid(const char *s, size_t len) {
    for (size_t i = 0; i < len;) {
        uint32_t code;
        int n = tm__utf8_decode(s + i, len - i, &code);
        if (n == 0) return false;
        i += (size_t)n;
    }
    return true;
}
