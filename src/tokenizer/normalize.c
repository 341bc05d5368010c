/* normalize.c: UTF-8 clean-up and the normalizers of a pipeline.
 *
 * Unicode normalization forms come from utf8proc (UAX #15). Characters below U+0300 are in form NFC already (its quick
 * check) and ASCII is in every form, which spares most text the work.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <utf8proc.h>

static const char replacement_character[] = "\xef\xbf\xbd";

bool tm__is_space(uint32_t code) {
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
           code == 0x3000;
}

/* Length of the longest beginning of a valid sequence at text, at least 1 (Unicode 3.9, "maximal subpart"). */
static size_t invalid_part(const char *text, size_t len) {
    const uint8_t *s = (const uint8_t *)text;
    size_t want = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc2 ? 2 : 1;
    if (s[0] >= 0xf5 || s[0] < 0xc2 || len < 2 || want < 2) return 1;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 1;
    size_t n = 2;
    while (n < want && n < len && (s[n] & 0xc0) == 0x80) n++;
    return n;
}

bool tm__utf8_clean(const char *text, size_t len, bool per_byte, tm__string *out) {
    uint32_t code;
    size_t kept = 0, i = 0;
    if (!tm__string_append(out, "", 0)) return false;
    while (i < len) {
        int width = tm__utf8_decode(text + i, len - i, &code);
        if (width > 0) {
            i += (size_t)width;
            continue;
        }
        if (!tm__string_append(out, text + kept, i - kept) || !tm__string_append(out, replacement_character, 3))
            return false;
        i += per_byte ? 1 : invalid_part(text + i, len - i);
        kept = i;
    }
    return tm__string_append(out, text + kept, len - kept);
}

/* ---- steps: each appends to out ---------------------------------------------------------------------------------- */

static tm_status map_part(const char *text, size_t len, int options, tm__string *out) {
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &mapped, (utf8proc_option_t)options);
    if (n == UTF8PROC_ERROR_NOMEM) return tm__fail_memory();
    if (n < 0) return tm__fail(TM_INVALID, NULL, "normalizer", NULL, "%s", utf8proc_errmsg(n));
    bool ok = tm__string_append(out, (const char *)mapped, (size_t)n);
    free(mapped);
    return ok ? TM_OK : tm__fail_memory();
}

/* A character below `limit` is in every text the form asks for, and nothing before it changes it: only runs of others,
 * with the one character before that they may join, are mapped. */
static tm_status normal_form(const char *text, size_t len, int options, tm__string *out) {
    bool nfc = options & UTF8PROC_COMPOSE && !(options & UTF8PROC_COMPAT);
    uint8_t limit = nfc ? 0xcc : 0x80; /* as a lead byte: 0xcc leads U+0300 */
    size_t kept = 0, last = 0;
    for (size_t i = 0; i < len;) {
        if ((uint8_t)text[i] < limit) {
            last = i++;
            while (i < len && ((uint8_t)text[i] & 0xc0) == 0x80) i++;
            continue;
        }
        size_t end = i;
        while (end < len && (uint8_t)text[end] >= 0x80 && ((uint8_t)text[end] >= limit || (text[end] & 0xc0) == 0x80))
            end++;
        if (!tm__string_append(out, text + kept, last - kept)) return tm__fail_memory();
        TM__TRY(map_part(text + last, end - last, options, out));
        kept = last = i = end;
    }
    return tm__string_append(out, text + kept, len - kept) ? TM_OK : tm__fail_memory();
}

/* Character by character, as the reference: no final sigma. */
static bool lowercase(const char *text, size_t len, tm__string *out) {
    uint32_t code;
    for (size_t i = 0; i < len;) {
        char lower[8];
        i += (size_t)tm__utf8_decode(text + i, len - i, &code);
        int n = tm__utf8_encode(code == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code), lower);
        if (code == 0x130) n += tm__utf8_encode(0x307, lower + n); /* the one letter whose lower case is two */
        if (!tm__string_append(out, lower, (size_t)n)) return false;
    }
    return true;
}

/* No published normalizer makes a text 20 times as long; a few replacements in a row could fill any memory. */
static size_t most_bytes(size_t len) {
    return len > (SIZE_MAX >> 7) ? SIZE_MAX : 64 * len + 65536;
}

static tm_status append_within(tm__string *out, const char *bytes, size_t len, size_t limit) {
    if (out->len > limit || len > limit - out->len)
        return tm__fail(TM_FORMAT, NULL, "normalizer", "the tokenizer's normalizer is damaged",
                        "makes a text more than 64 times as long");
    return tm__string_append(out, bytes, len) ? TM_OK : tm__fail_memory();
}

static tm_status replace_literal(const tm__step *step, const char *text, size_t len, size_t limit, tm__string *out) {
    const char *end = text + len, *hit;
    while ((hit = memmem(text, (size_t)(end - text), step->literal, step->literal_len))) {
        TM__TRY(append_within(out, text, (size_t)(hit - text), limit));
        TM__TRY(append_within(out, step->content, step->content_len, limit));
        text = hit + step->literal_len;
    }
    return append_within(out, text, (size_t)(end - text), limit);
}

static tm_status replace(const tm__step *step, tm__scratch *scratch, const char *text, size_t len, size_t limit,
                         tm__string *out) {
    uint32_t code;
    size_t kept = 0, from = 0, start, end;
    bool found;
    if (step->literal_len) return replace_literal(step, text, len, limit, out);
    while (from <= len) {
        TM__TRY(tm__regex_find(&step->regex, scratch->match_data, text, len, from, &found, &start, &end));
        if (!found) break;
        TM__TRY(append_within(out, text + kept, start - kept, limit));
        TM__TRY(append_within(out, step->content, step->content_len, limit));
        kept = end;
        from = end > start ? end : end + TM__MAX(1u, (size_t)tm__utf8_decode(text + end, len - end, &code));
    }
    return append_within(out, text + kept, len - kept, limit);
}

static bool strip(const tm__step *step, const char *text, size_t len, tm__string *out) {
    uint32_t code;
    size_t start = 0, end = 0;
    bool leading = step->start != 0;
    if (!step->stop) end = len;
    for (size_t i = 0; i < len;) {
        size_t width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        bool space = tm__is_space(code);
        leading = leading && space;
        i += width;
        if (leading) start = i;
        if (!space) end = TM__MAX(end, i);
    }
    return tm__string_append(out, text + start, end > start ? end - start : 0);
}

static tm_status run_step(const tm_tokenizer *tok, const tm__step *step, tm__scratch *scratch, const char *text,
                          size_t len, size_t limit, bool prefix, tm__string *out) {
    bool ok;
    switch (step->kind) {
    case TM__NORM_UNICODE:
        return normal_form(text, len, step->options, out);
    case TM__NORM_REPLACE:
        return replace(step, scratch, text, len, limit, out);
    case TM__NORM_LOWERCASE:
        ok = lowercase(text, len, out);
        break;
    case TM__NORM_STRIP:
        ok = strip(step, text, len, out);
        break;
    case TM__NORM_PREPEND:
        ok = (len == 0 || !prefix || tm__string_append(out, step->content, step->content_len)) &&
             tm__string_append(out, text, len);
        break;
    default:
        assert(step->kind == TM__NORM_SENTENCEPIECE);
        ok = tm__spm_normalize(&tok->spm, prefix, text, len, out);
    }
    return ok ? TM_OK : tm__fail_memory();
}

tm_status tm__normalize(const tm_tokenizer *tok, tm__scratch *scratch, const char *text, size_t len, bool prefix,
                        const char **out, size_t *out_len) {
    size_t limit = most_bytes(len);
    for (size_t i = 0; i < tok->normalizers.len; i++) {
        tm__string *to = &scratch->normal[i % 2];
        to->len = 0;
        TM__TRY(run_step(tok, &tok->normalizers.data[i], scratch, text, len, limit, prefix, to));
        text = to->data;
        len = to->len;
    }
    *out = text;
    *out_len = len;
    return TM_OK;
}
