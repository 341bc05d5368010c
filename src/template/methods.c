/* methods.c: methods of str, list, tuple, dict and loop, as in Python. */
#include "template/interpreter.h"

#include <utf8proc.h>

#define CALL(name) static tm_status name(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out)

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static tm_status need_text(tm__run *run, const tm__value *value, const char *of, const tm__str **text) {
    static const tm__str empty = {"", 0, 0};
    *text = &empty;
    if (value->kind != TM__TEXT)
        return tm__run_fail(run, TM_INVALID, "%s needs a text, not %s", of, tm__type_name(value));
    *text = value->text;
    return TM_OK;
}

static tm_status need_integer(tm__run *run, const tm__value *value, const char *of, int64_t fallback,
                              int64_t *integer) {
    *integer = fallback;
    if (!tm__given(value)) return TM_OK;
    if (!tm__as_integer(value, integer))
        return tm__run_fail(run, TM_INVALID, "%s needs an integer, not %s", of, tm__type_name(value));
    return TM_OK;
}

static tm_status give_text(tm__run *run, const char *data, size_t len, tm__value *out) {
    return tm__value_text(run, data, len, out);
}

/* ---- case and blanks --------------------------------------------------------------------------------------------- */

CALL(text_upper) {
    (void)arg;
    return tm__change_case(run, self->text, TM__UPPER, out);
}
CALL(text_lower) {
    (void)arg;
    return tm__change_case(run, self->text, TM__LOWER, out);
}
CALL(text_title) {
    (void)arg;
    return tm__change_case(run, self->text, TM__TITLE, out);
}
CALL(text_capitalize) {
    (void)arg;
    return tm__change_case(run, self->text, TM__CAPITAL, out);
}
CALL(text_swapcase) {
    (void)arg;
    return tm__change_case(run, self->text, TM__SWAP, out);
}

static tm_status strip(tm__run *run, const tm__value *self, const tm__value *chars, bool left, bool right,
                       tm__value *out) {
    const tm__str *set = NULL;
    if (tm__given(chars) && chars->kind != TM__NONE) TM__TRY(need_text(run, chars, "strip", &set));
    TM__TRY(tm__run_step(run, self->text->len / 16 * (1 + (set ? set->len / 16 : 0))));
    tm__str text = tm__strip(self->text, set, left, right);
    return give_text(run, text.data, text.len, out);
}

CALL(text_strip) {
    return strip(run, self, arg, true, true, out);
}
CALL(text_lstrip) {
    return strip(run, self, arg, true, false, out);
}
CALL(text_rstrip) {
    return strip(run, self, arg, false, true, out);
}

/* left, right: shares of the padding. */
static tm_status pad(tm__run *run, const tm__value *self, const tm__value *arg, int how, tm__value *out) {
    int64_t width;
    const tm__str *fill = &(tm__str){" ", 1, 1};
    tm__buffer sink = {0};
    TM__TRY(need_integer(run, &arg[0], "padding", 0, &width));
    if (tm__given(&arg[1])) TM__TRY(need_text(run, &arg[1], "padding", &fill));
    if (fill->chars != 1) return tm__run_fail(run, TM_INVALID, "the fill character must be exactly one character long");
    int64_t room = width - (int64_t)self->text->chars;
    if (room < 0) room = 0;
    int64_t left = how < 0 ? 0 : how > 0 ? room : room / 2 + (room & width & 1);
    for (int64_t i = 0; i < room; i++) {
        TM__TRY(tm__run_step(run, 1));
        if (i == left) TM__TRY(tm__print(run, self, &sink));
        TM__TRY(tm__buffer_put(run, &sink, fill->data, fill->len));
    }
    if (left >= room) TM__TRY(tm__print(run, self, &sink));
    return tm__buffer_value(run, &sink, out);
}

CALL(text_ljust) {
    return pad(run, self, arg, -1, out);
}
CALL(text_rjust) {
    return pad(run, self, arg, 1, out);
}
CALL(text_center) {
    return pad(run, self, arg, 0, out);
}

CALL(text_zfill) {
    int64_t width;
    tm__buffer sink = {0};
    const tm__str *text = self->text;
    TM__TRY(need_integer(run, arg, "zfill", 0, &width));
    size_t sign = text->len && (*text->data == '-' || *text->data == '+');
    TM__TRY(tm__buffer_put(run, &sink, text->data, sign));
    if (width > (int64_t)text->chars) TM__TRY(tm__buffer_repeat(run, &sink, '0', (size_t)width - text->chars));
    TM__TRY(tm__buffer_put(run, &sink, text->data + sign, text->len - sign));
    return tm__buffer_value(run, &sink, out);
}

/* ---- searching --------------------------------------------------------------------------------------------------- */

/* The part of a text between two indices that may be absent; false: it begins behind the end. */
static tm_status part_of(tm__run *run, const tm__value *self, const tm__value *start, const tm__value *end,
                         tm__str *part, size_t *before, bool *exists) {
    const tm__value bounds[3] = {*start, *end, {.kind = TM__ABSENT}};
    int64_t first, step, given = 0;
    size_t count;
    TM__TRY(tm__slice_range(run, bounds, self->text->chars, &first, &step, &count));
    TM__TRY(tm__run_step(run, self->text->len / 16));
    *exists = !tm__given(start) || !tm__as_integer(start, &given) || given <= (int64_t)self->text->chars;
    if (count == 0 && tm__given(end)) { /* an empty range from right to left holds nothing, not even "" */
        int64_t last = 0;
        if (tm__as_integer(end, &last) && last < 0) last += (int64_t)self->text->chars;
        if (end->kind != TM__NONE && first > TM__MAX(last, 0)) *exists = false;
    }
    size_t from = tm__char_offset(self->text, (size_t)first);
    tm__str rest = {self->text->data + from, self->text->len - from, self->text->chars - (size_t)first};
    *part = (tm__str){rest.data, tm__char_offset(&rest, count), count};
    *before = (size_t)first;
    return TM_OK;
}

/* The last place of `what`. Costs the product of the lengths at worst, so that is what it is charged. */
static tm_status charge_last(tm__run *run, const tm__str *text, const tm__str *what) {
    return tm__run_step(run, text->len / 16 * (1 + what->len / 64));
}

static const char *find_last(const tm__str *text, const tm__str *what) {
    if (what->len > text->len) return NULL;
    for (size_t at = text->len - what->len;; at--) {
        if (memcmp(text->data + at, what->data, what->len) == 0) return text->data + at;
        if (at == 0) return NULL;
    }
}

static tm_status find(tm__run *run, const tm__value *self, const tm__value *arg, bool last, bool fails,
                      tm__value *out) {
    const tm__str *what;
    tm__str part;
    size_t before;
    bool exists;
    TM__TRY(need_text(run, &arg[0], "find", &what));
    TM__TRY(part_of(run, self, &arg[1], &arg[2], &part, &before, &exists));
    if (last) TM__TRY(charge_last(run, &part, what));
    const char *at = !exists ? NULL
                     : last  ? find_last(&part, what)
                             : memmem(part.data, part.len, what->data, what->len);
    if (!at && fails) return tm__run_fail(run, TM_INVALID, "substring not found");
    *out = tm__integer(at ? (int64_t)(before + tm__char_count(part.data, (size_t)(at - part.data))) : -1);
    return TM_OK;
}

CALL(text_find) {
    return find(run, self, arg, false, false, out);
}
CALL(text_rfind) {
    return find(run, self, arg, true, false, out);
}
CALL(text_index) {
    return find(run, self, arg, false, true, out);
}
CALL(text_rindex) {
    return find(run, self, arg, true, true, out);
}

CALL(text_count) {
    const tm__str *what;
    tm__str part;
    size_t before;
    bool exists;
    int64_t count = 0;
    TM__TRY(need_text(run, &arg[0], "count", &what));
    TM__TRY(part_of(run, self, &arg[1], &arg[2], &part, &before, &exists));
    if (what->len == 0) count = exists ? (int64_t)part.chars + 1 : 0;
    for (const char *at = part.data, *end = part.data + part.len; what->len; count++) {
        at = memmem(at, (size_t)(end - at), what->data, what->len);
        if (!at) break;
        at += what->len;
        TM__TRY(tm__run_step(run, 1));
    }
    *out = tm__integer(count);
    return TM_OK;
}

static bool has_affix(const tm__str *text, const tm__str *affix, bool end) {
    return affix->len <= text->len &&
           memcmp(text->data + (end ? text->len - affix->len : 0), affix->data, affix->len) == 0;
}

static tm_status test_affix(tm__run *run, const tm__value *self, const tm__value *arg, bool end, tm__value *out) {
    tm__str part;
    size_t before;
    bool exists, holds = false;
    const tm__str *affix;
    TM__TRY(part_of(run, self, &arg[1], &arg[2], &part, &before, &exists));
    size_t count = arg[0].kind == TM__TUPLE ? arg[0].items->len : 1;
    for (size_t i = 0; i < count; i++) {
        TM__TRY(need_text(run, arg[0].kind == TM__TUPLE ? &arg[0].items->data[i] : &arg[0],
                          end ? "endswith" : "startswith", &affix));
        holds |= exists && has_affix(&part, affix, end);
    }
    *out = tm__truth(holds);
    return TM_OK;
}

CALL(text_startswith) {
    return test_affix(run, self, arg, false, out);
}
CALL(text_endswith) {
    return test_affix(run, self, arg, true, out);
}

CALL(text_removeprefix) {
    const tm__str *affix, *text = self->text;
    TM__TRY(need_text(run, arg, "removeprefix", &affix));
    size_t cut = has_affix(text, affix, false) ? affix->len : 0;
    return give_text(run, text->data + cut, text->len - cut, out);
}

CALL(text_removesuffix) {
    const tm__str *affix, *text = self->text;
    TM__TRY(need_text(run, arg, "removesuffix", &affix));
    return give_text(run, text->data, text->len - (has_affix(text, affix, true) ? affix->len : 0), out);
}

/* ---- taking apart and joining ------------------------------------------------------------------------------------ */

CALL(text_replace) {
    const tm__str *old, *with;
    int64_t count;
    TM__TRY(need_text(run, &arg[0], "replace", &old));
    TM__TRY(need_text(run, &arg[1], "replace", &with));
    TM__TRY(need_integer(run, &arg[2], "replace", -1, &count));
    return tm__replace(run, self->text, old, with, count, out);
}

static tm_status push_text(tm__run *run, tm__items *items, const char *data, size_t len) {
    tm__value text;
    TM__TRY(give_text(run, data, len, &text));
    return tm__items_push(run, items, text);
}

/* At runs of white space; `most` splits. */
static tm_status split_blanks(tm__run *run, const tm__str *text, int64_t most, tm__items *items) {
    size_t at = 0;
    for (;;) {
        tm__str rest = {text->data + at, text->len - at, 0};
        rest = tm__strip(&rest, NULL, true, false);
        at = (size_t)(rest.data - text->data);
        if (rest.len == 0) return TM_OK;
        if (most-- == 0) return push_text(run, items, rest.data, rest.len); /* what is left, blanks at its end too */
        size_t end = at;
        for (uint32_t code; end < text->len;) {
            int n = tm__char_at(text->data + end, text->len - end, &code);
            if (tm__python_space(code)) break;
            end += (size_t)n;
        }
        TM__TRY(push_text(run, items, text->data + at, end - at));
        at = end;
    }
}

static void reverse(tm__items *items) {
    for (size_t i = 0; i < items->len / 2; i++) {
        tm__value swap = items->data[i];
        items->data[i] = items->data[items->len - 1 - i];
        items->data[items->len - 1 - i] = swap;
    }
}

/* The same from the right. */
static tm_status rsplit_blanks(tm__run *run, const tm__str *text, int64_t most, tm__items *items) {
    tm__str rest = *text;
    for (;;) {
        rest = tm__strip(&rest, NULL, false, true);
        if (rest.len == 0) break;
        if (most-- == 0) {
            TM__TRY(push_text(run, items, rest.data, rest.len));
            break;
        }
        size_t from = rest.len;
        while (from > 0) {
            size_t before = from - 1;
            uint32_t code;
            while (((unsigned char)rest.data[before] & 0xc0) == 0x80) before--;
            tm__char_at(rest.data + before, from - before, &code);
            if (tm__python_space(code)) break;
            from = before;
        }
        TM__TRY(push_text(run, items, rest.data + from, rest.len - from));
        rest.len = from;
    }
    reverse(items);
    return TM_OK;
}

static tm_status split_at(tm__run *run, const tm__str *text, const tm__str *separator, int64_t most, bool right,
                          tm__items *items) {
    tm__str rest = *text;
    if (separator->len == 0) return tm__run_fail(run, TM_INVALID, "empty separator");
    if (right) TM__TRY(charge_last(run, text, separator));
    while (most-- != 0) {
        const char *at =
            right ? find_last(&rest, separator) : memmem(rest.data, rest.len, separator->data, separator->len);
        if (!at) break;
        const char *behind = at + separator->len;
        size_t before = (size_t)(at - rest.data), after = rest.len - before - separator->len;
        TM__TRY(right ? push_text(run, items, behind, after) : push_text(run, items, rest.data, before));
        rest = right ? (tm__str){rest.data, before, 0} : (tm__str){behind, after, 0};
    }
    TM__TRY(push_text(run, items, rest.data, rest.len));
    if (right) reverse(items);
    return TM_OK;
}

static tm_status split(tm__run *run, const tm__value *self, const tm__value *arg, bool right, tm__value *out) {
    const tm__str *separator;
    int64_t most;
    TM__TRY(need_integer(run, &arg[1], "split", -1, &most));
    TM__TRY(tm__value_items(run, TM__LIST, 0, out));
    TM__TRY(tm__run_step(run, self->text->len / 8));
    if (!tm__given(&arg[0]) || arg[0].kind == TM__NONE)
        return right ? rsplit_blanks(run, self->text, most, out->items)
                     : split_blanks(run, self->text, most, out->items);
    TM__TRY(need_text(run, &arg[0], "split", &separator));
    return split_at(run, self->text, separator, most, right, out->items);
}

CALL(text_split) {
    return split(run, self, arg, false, out);
}
CALL(text_rsplit) {
    return split(run, self, arg, true, out);
}

CALL(text_splitlines) {
    return tm__split_lines(run, self->text, tm__given(arg) && tm__is_true(arg), out);
}

static tm_status partition(tm__run *run, const tm__value *self, const tm__value *arg, bool right, tm__value *out) {
    const tm__str *separator, *text = self->text;
    TM__TRY(need_text(run, arg, "partition", &separator));
    if (separator->len == 0) return tm__run_fail(run, TM_INVALID, "empty separator");
    TM__TRY(charge_last(run, text, separator));
    const char *at =
        right ? find_last(text, separator) : memmem(text->data, text->len, separator->data, separator->len);
    size_t before = at ? (size_t)(at - text->data) : right ? 0 : text->len, width = at ? separator->len : 0;
    TM__TRY(tm__value_items(run, TM__TUPLE, 3, out));
    TM__TRY(push_text(run, out->items, text->data, before));
    TM__TRY(push_text(run, out->items, separator->data, width));
    return push_text(run, out->items, text->data + before + width, text->len - before - width);
}

CALL(text_partition) {
    return partition(run, self, arg, false, out);
}
CALL(text_rpartition) {
    return partition(run, self, arg, true, out);
}

CALL(text_join) {
    const tm__items *items;
    tm__buffer sink = {0};
    TM__TRY(tm__iterate(run, arg, &items));
    for (size_t i = 0; i < items->len; i++) {
        if (items->data[i].kind != TM__TEXT)
            return tm__run_fail(run, TM_INVALID, "sequence item %zu: expected str instance, %s found", i,
                                tm__type_name(&items->data[i]));
        if (i) TM__TRY(tm__print(run, self, &sink));
        TM__TRY(tm__print(run, &items->data[i], &sink));
    }
    return tm__buffer_value(run, &sink, out);
}

static tm_status text_format(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    return tm__format_braces(run, self->text, args, out);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static bool is_letter(utf8proc_category_t c) {
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

static bool alphabetic(uint32_t code) {
    return is_letter(utf8proc_category((utf8proc_int32_t)code));
}

static bool decimal(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_ND;
}

static bool numeric(uint32_t code) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

static bool digit(uint32_t code) { /* the superscripts count too */
    return decimal(code) || code == 0xb2 || code == 0xb3 || code == 0xb9 || code == 0x2070 ||
           (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089);
}

static bool alphanumeric(uint32_t code) {
    return alphabetic(code) || numeric(code);
}

/* All characters are such, and there is one. */
static tm_status all_are(tm__run *run, const tm__value *self, bool (*is)(uint32_t code), tm__value *out) {
    bool holds = self->text->len > 0;
    TM__TRY(tm__run_step(run, self->text->len / 16));
    for (size_t at = 0; at < self->text->len && holds;) {
        uint32_t code;
        at += (size_t)tm__char_at(self->text->data + at, self->text->len - at, &code);
        holds = is(code);
    }
    *out = tm__truth(holds);
    return TM_OK;
}

CALL(text_isspace) {
    (void)arg;
    return all_are(run, self, tm__python_space, out);
}
CALL(text_isalpha) {
    (void)arg;
    return all_are(run, self, alphabetic, out);
}
CALL(text_isdigit) {
    (void)arg;
    return all_are(run, self, digit, out);
}
CALL(text_isdecimal) {
    (void)arg;
    return all_are(run, self, decimal, out);
}
CALL(text_isnumeric) {
    (void)arg;
    return all_are(run, self, numeric, out);
}
CALL(text_isalnum) {
    (void)arg;
    return all_are(run, self, alphanumeric, out);
}
CALL(text_isascii) {
    (void)run, (void)arg;
    *out = tm__truth(true);
    for (size_t i = 0; i < self->text->len; i++) out->truth &= (unsigned char)self->text->data[i] < 0x80;
    return TM_OK;
}

/* Some letter has this case and none the other. */
static tm_status in_case(tm__run *run, const tm__value *self, utf8proc_category_t wanted, tm__value *out) {
    bool some = false, good = true;
    TM__TRY(tm__run_step(run, self->text->len / 16));
    for (size_t at = 0; at < self->text->len && good;) {
        uint32_t code;
        at += (size_t)tm__char_at(self->text->data + at, self->text->len - at, &code);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        some |= category == wanted;
        good = category == wanted || (category != UTF8PROC_CATEGORY_LU && category != UTF8PROC_CATEGORY_LL &&
                                      category != UTF8PROC_CATEGORY_LT);
    }
    *out = tm__truth(some && good);
    return TM_OK;
}

CALL(text_isupper) {
    (void)arg;
    return in_case(run, self, UTF8PROC_CATEGORY_LU, out);
}
CALL(text_islower) {
    (void)arg;
    return in_case(run, self, UTF8PROC_CATEGORY_LL, out);
}

const tm__builtin tm__str_methods[] = {
    {"capitalize", "", 0, text_capitalize, NULL},
    {"casefold", "", 0, NULL, NULL},
    {"center", "width fillchar", 1, text_center, NULL},
    {"count", "sub start end", 1, text_count, NULL},
    {"encode", "", 0, NULL, NULL},
    {"endswith", "suffix start end", 1, text_endswith, NULL},
    {"expandtabs", "", 0, NULL, NULL},
    {"find", "sub start end", 1, text_find, NULL},
    {"format", NULL, 0, NULL, text_format},
    {"format_map", "", 0, NULL, NULL},
    {"index", "sub start end", 1, text_index, NULL},
    {"isalnum", "", 0, text_isalnum, NULL},
    {"isalpha", "", 0, text_isalpha, NULL},
    {"isascii", "", 0, text_isascii, NULL},
    {"isdecimal", "", 0, text_isdecimal, NULL},
    {"isdigit", "", 0, text_isdigit, NULL},
    {"isidentifier", "", 0, NULL, NULL},
    {"islower", "", 0, text_islower, NULL},
    {"isnumeric", "", 0, text_isnumeric, NULL},
    {"isprintable", "", 0, NULL, NULL},
    {"isspace", "", 0, text_isspace, NULL},
    {"istitle", "", 0, NULL, NULL},
    {"isupper", "", 0, text_isupper, NULL},
    {"join", "iterable", 1, text_join, NULL},
    {"ljust", "width fillchar", 1, text_ljust, NULL},
    {"lower", "", 0, text_lower, NULL},
    {"lstrip", "chars", 0, text_lstrip, NULL},
    {"maketrans", "", 0, NULL, NULL},
    {"partition", "sep", 1, text_partition, NULL},
    {"removeprefix", "prefix", 1, text_removeprefix, NULL},
    {"removesuffix", "suffix", 1, text_removesuffix, NULL},
    {"replace", "old new count", 2, text_replace, NULL},
    {"rfind", "sub start end", 1, text_rfind, NULL},
    {"rindex", "sub start end", 1, text_rindex, NULL},
    {"rjust", "width fillchar", 1, text_rjust, NULL},
    {"rpartition", "sep", 1, text_rpartition, NULL},
    {"rsplit", "sep maxsplit", 0, text_rsplit, NULL},
    {"rstrip", "chars", 0, text_rstrip, NULL},
    {"split", "sep maxsplit", 0, text_split, NULL},
    {"splitlines", "keepends", 0, text_splitlines, NULL},
    {"startswith", "prefix start end", 1, text_startswith, NULL},
    {"strip", "chars", 0, text_strip, NULL},
    {"swapcase", "", 0, text_swapcase, NULL},
    {"title", "", 0, text_title, NULL},
    {"translate", "", 0, NULL, NULL},
    {"upper", "", 0, text_upper, NULL},
    {"zfill", "width", 1, text_zfill, NULL},
    {0},
};
