/* text.c: characters: white space and case as Python's str has them, stripping, replacing, lines, slices.
 *
 * Case follows Unicode's simple mappings (utf8proc) and, of the mappings to several characters, those of U+00DF and the
 * Latin ligatures, and the final sigma; other characters that change their length keep it.
 */
#include "template/interpreter.h"

#include <utf8proc.h>

bool tm__python_space(uint32_t code) {
    return (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x20) || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
           code == 0x205f || code == 0x3000;
}

int tm__char_at(const char *data, size_t len, uint32_t *code) {
    if (len && (unsigned char)*data < 0x80) {
        *code = (unsigned char)*data;
        return 1;
    }
    int n = tm__utf8_decode(data, len, code);
    assert(n > 0);
    return n;
}

size_t tm__char_count(const char *data, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) n += ((unsigned char)data[i] & 0xc0) != 0x80;
    return n;
}

size_t tm__char_offset(const tm__str *text, size_t index) {
    if (text->len == text->chars) return TM__MIN(index, text->len);
    size_t at = 0;
    for (; at < text->len; at++)
        if (((unsigned char)text->data[at] & 0xc0) != 0x80 && index-- == 0) break;
    return at;
}

/* ---- case -------------------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t code;
    const char *upper, *title;
} longer[] = {{0xdf, "SS", "Ss"},     {0xfb00, "FF", "Ff"},   {0xfb01, "FI", "Fi"}, {0xfb02, "FL", "Fl"},
              {0xfb03, "FFI", "Ffi"}, {0xfb04, "FFL", "Ffl"}, {0xfb05, "ST", "St"}, {0xfb06, "ST", "St"}};

static bool is_cased(uint32_t code) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT ||
           (code >= 0x2160 && code < 0x2180) || (code >= 0x24b6 && code < 0x24ea);
}

/* Does a letter follow, over marks that do not count? */
static bool letter_follows(const char *data, size_t len) {
    uint32_t code;
    for (size_t at = 0; at < len;) {
        at += (size_t)tm__char_at(data + at, len - at, &code);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        bool ignorable = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME ||
                         category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_LM ||
                         category == UTF8PROC_CATEGORY_SK || code == '\'' || code == '.' || code == ':' ||
                         code == 0xb7 || code == 0x2019;
        if (!ignorable) return is_cased(code);
    }
    return false;
}

static tm_status put_cased(tm__run *run, tm__buffer *sink, uint32_t code, tm__case to) {
    char utf8[4];
    for (size_t i = 0; i < TM__COUNT(longer) && to != TM__LOWER; i++) {
        if (longer[i].code != code) continue;
        const char *text = to == TM__UPPER ? longer[i].upper : longer[i].title;
        return tm__buffer_put(run, sink, text, strlen(text));
    }
    utf8proc_int32_t c = (utf8proc_int32_t)code;
    if (code == 0x130 && to == TM__LOWER) return tm__buffer_put(run, sink, "i\314\207", 3);
    c = to == TM__UPPER ? utf8proc_toupper(c) : to == TM__LOWER ? utf8proc_tolower(c) : utf8proc_totitle(c);
    return tm__buffer_put(run, sink, utf8, (size_t)tm__utf8_encode((uint32_t)c, utf8));
}

static tm__case case_of(tm__case to, uint32_t code, bool first, bool after_cased) {
    switch (to) {
    case TM__TITLE:
        return after_cased ? TM__LOWER : TM__TITLE;
    case TM__CAPITAL:
        return first ? TM__TITLE : TM__LOWER;
    case TM__SWAP:
        return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_LU ? TM__LOWER : TM__UPPER;
    default:
        return to;
    }
}

tm_status tm__change_case(tm__run *run, const tm__str *text, tm__case to, tm__value *out) {
    tm__buffer sink = {0};
    bool after_cased = false;
    TM__TRY(tm__run_step(run, text->len / 8));
    for (size_t at = 0; at < text->len;) {
        uint32_t code;
        bool first = at == 0;
        at += (size_t)tm__char_at(text->data + at, text->len - at, &code);
        tm__case how = case_of(to, code, first, after_cased);
        bool final =
            code == 0x3a3 && how == TM__LOWER && after_cased && !letter_follows(text->data + at, text->len - at);
        after_cased = is_cased(code) || (after_cased && to != TM__TITLE && code == 0xad);
        TM__TRY(final ? tm__buffer_put(run, &sink, "\317\202", 2) : put_cased(run, &sink, code, how));
    }
    return tm__buffer_value(run, &sink, out);
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static bool strips(const tm__str *chars, uint32_t code, const char *at, int n) {
    if (!chars) return tm__python_space(code);
    for (size_t i = 0; i + (size_t)n <= chars->len; i++) /* UTF-8 matches only where a character begins */
        if (memcmp(chars->data + i, at, (size_t)n) == 0) return true;
    return false;
}

tm__str tm__strip(const tm__str *text, const tm__str *chars, bool left, bool right) {
    size_t from = 0, to = text->len;
    uint32_t code;
    while (left && from < to) {
        int n = tm__char_at(text->data + from, to - from, &code);
        if (!strips(chars, code, text->data + from, n)) break;
        from += (size_t)n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (((unsigned char)text->data[at] & 0xc0) == 0x80) at--;
        int n = tm__char_at(text->data + at, to - at, &code);
        if (!strips(chars, code, text->data + at, n)) break;
        to = at;
    }
    return (tm__str){text->data + from, to - from, tm__char_count(text->data + from, to - from)};
}

tm_status tm__replace(tm__run *run, const tm__str *text, const tm__str *old, const tm__str *with, int64_t count,
                      tm__value *out) {
    tm__buffer sink = {0};
    size_t at = 0;
    if (count < 0) count = INT64_MAX;
    TM__TRY(tm__run_step(run, text->len / 8));
    while (count > 0) {
        const char *found = at <= text->len ? memmem(text->data + at, text->len - at, old->data, old->len) : NULL;
        if (!found) break;
        size_t end = (size_t)(found - text->data), keep = end - at;
        TM__TRY(tm__run_step(run, 1));
        TM__TRY(tm__buffer_put(run, &sink, text->data + at, keep));
        TM__TRY(tm__buffer_put(run, &sink, with->data, with->len));
        at = end + old->len;
        count--;
        if (old->len > 0) continue;
        if (at == text->len) break;
        uint32_t code; /* an empty text stands between all characters */
        int n = tm__char_at(text->data + at, text->len - at, &code);
        TM__TRY(tm__buffer_put(run, &sink, text->data + at, (size_t)n));
        at += (size_t)n;
    }
    TM__TRY(tm__buffer_put(run, &sink, text->data + at, text->len - at));
    return tm__buffer_value(run, &sink, out);
}

static bool breaks_line(uint32_t code) {
    return (code >= 10 && code <= 13) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
           code == 0x2029;
}

tm_status tm__split_lines(tm__run *run, const tm__str *text, bool keep, tm__value *out) {
    TM__TRY(tm__value_items(run, TM__LIST, 0, out));
    size_t from = 0;
    for (size_t at = 0; at < text->len;) {
        uint32_t code;
        size_t end = at;
        at += (size_t)tm__char_at(text->data + at, text->len - at, &code);
        if (!breaks_line(code) && at < text->len) continue;
        if (!breaks_line(code)) end = at;
        if (code == '\r' && at < text->len && text->data[at] == '\n') at++;
        tm__value line;
        TM__TRY(tm__value_text(run, text->data + from, (keep ? at : end) - from, &line));
        TM__TRY(tm__items_push(run, out->items, line));
        from = at;
    }
    return TM_OK;
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

static int64_t bound(const tm__value *given, int64_t fallback, int64_t low, int64_t high, int64_t length) {
    int64_t value;
    if (!tm__as_integer(given, &value)) return fallback;
    if (value < 0) value += length;
    return value < low ? low : value > high ? high : value;
}

tm_status tm__slice_range(tm__run *run, const tm__value bounds[3], size_t length, int64_t *first, int64_t *step,
                          size_t *count) {
    int64_t n = (int64_t)length;
    *step = 1;
    tm__as_integer(&bounds[2], step);
    if (*step == 0) return tm__run_fail(run, TM_INVALID, "slice step cannot be zero");
    bool back = *step < 0;
    int64_t end = bound(&bounds[1], back ? -1 : n, back ? -1 : 0, back ? n - 1 : n, n);
    *first = bound(&bounds[0], back ? n - 1 : 0, back ? -1 : 0, back ? n - 1 : n, n);
    uint64_t distance =
        back ? (*first > end ? (uint64_t)(*first - end) : 0) : (end > *first ? (uint64_t)(end - *first) : 0);
    uint64_t stride = back ? 0 - (uint64_t)*step : (uint64_t)*step;
    *count = (size_t)(distance / stride + (distance % stride != 0));
    return TM_OK;
}
