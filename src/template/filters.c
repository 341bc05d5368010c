/* filters.c: filters on single values: text, numbers, defaults, JSON. */
#include "template/interpreter.h"

#include <stdlib.h>

#define CALL(name) static tm_status name(tm__run *run, const tm__value *self, const tm__value *arg, tm__value *out)

/* A method of str on what soft_str makes of the value: safe text stays safe. */
static tm_status text_method(tm__run *run, const char *name, const tm__value *self, const tm__value *arg, size_t count,
                             tm__value *out) {
    const tm__str wanted = {name, strlen(name), strlen(name)};
    tm__value text;
    TM__TRY(tm__as_text(run, self, &text));
    while (count && !tm__given(&arg[count - 1])) count--;
    const tm__args args = {.data = arg, .count = count};
    TM__TRY(tm__call_builtin(run, "method", tm__find_builtin(tm__str_methods, &wanted), &text, &args, out));
    if (out->kind == TM__TEXT) out->markup = text.markup;
    return TM_OK;
}

CALL(filter_trim) {
    return text_method(run, "strip", self, arg, 1, out);
}
CALL(filter_upper) {
    return text_method(run, "upper", self, arg, 0, out);
}
CALL(filter_lower) {
    return text_method(run, "lower", self, arg, 0, out);
}
CALL(filter_capitalize) {
    return text_method(run, "capitalize", self, arg, 0, out);
}
CALL(filter_center) {
    const tm__value width = tm__given(arg) ? *arg : tm__integer(80);
    return text_method(run, "center", self, &width, 1, out);
}

/* Jinja's own idea of words: they begin behind blanks, - ( { [ and <. */
CALL(filter_title) {
    tm__value text, part;
    tm__buffer sink = {0};
    size_t from = 0;
    bool first = true;
    (void)arg;
    TM__TRY(tm__as_text(run, self, &text));
    const tm__str *t = text.text;
    for (size_t at = 0; at <= t->len;) {
        uint32_t code = 0;
        int n = at < t->len ? tm__char_at(t->data + at, t->len - at, &code) : 1;
        bool end = at == t->len || tm__python_space(code) || (code < 0x80 && strchr("-({[<", (int)code));
        if (end || first) {
            const tm__str rest = {t->data + from, at - from, 0};
            TM__TRY(tm__change_case(run, &rest, TM__LOWER, &part));
            TM__TRY(tm__print(run, &part, &sink));
            if (at == t->len) break;
            const tm__str one = {t->data + at, (size_t)n, 1};
            TM__TRY(tm__change_case(run, &one, TM__UPPER, &part));
            TM__TRY(tm__print(run, &part, &sink));
            from = at + (size_t)n;
            first = end;
        }
        at += (size_t)n;
    }
    return tm__buffer_value(run, &sink, out);
}

CALL(filter_string) {
    (void)arg;
    return tm__as_text(run, self, out);
}

CALL(filter_safe) {
    (void)arg;
    TM__TRY(tm__as_text(run, self, out));
    out->markup = true;
    return TM_OK;
}

CALL(filter_escape) {
    (void)arg;
    return tm__escape(run, self, out);
}

CALL(filter_forceescape) {
    tm__value text;
    (void)arg;
    TM__TRY(tm__as_text(run, self, &text));
    text.markup = false;
    return tm__escape(run, &text, out);
}

CALL(filter_replace) {
    tm__value text, old, with;
    int64_t count = -1;
    TM__TRY(tm__as_text(run, self, &text));
    TM__TRY(tm__as_text(run, &arg[0], &old));
    TM__TRY(tm__as_text(run, &arg[1], &with));
    if (tm__given(&arg[2]) && arg[2].kind != TM__NONE && !tm__as_integer(&arg[2], &count))
        return tm__run_fail(run, TM_INVALID, "filter 'replace' needs an integer as count");
    return tm__replace(run, text.text, old.text, with.text, count, out);
}

static tm_status filter_format(tm__run *run, const tm__value *self, const tm__args *args, tm__value *out) {
    tm__value text, given;
    TM__TRY(tm__as_text(run, self, &text));
    if (args->count && args->named_count)
        return tm__run_fail(run, TM_INVALID, "filter 'format' takes positional or named arguments, not both");
    TM__TRY(args->named_count ? tm__value_dict(run, TM__DICT, &given) : tm__value_items(run, TM__TUPLE, 0, &given));
    for (size_t i = 0; i < args->count; i++) TM__TRY(tm__items_push(run, given.items, args->data[i]));
    for (size_t i = 0; i < args->named_count; i++) {
        const tm__value key = {.kind = TM__TEXT, .text = args->named[i].name};
        TM__TRY(tm__dict_put(run, given.dict, &key, args->named[i].value));
    }
    return tm__format_percent(run, text.text, &given, out);
}

/* Without a width: four blanks. Lines behind the first are moved, empty ones only with `blank`. */
CALL(filter_indent) {
    tm__buffer sink = {0}, blanks = {0};
    tm__value text, lines;
    int64_t width = 4;
    bool first = tm__given(&arg[1]) && tm__is_true(&arg[1]), blank = tm__given(&arg[2]) && tm__is_true(&arg[2]);
    if (self->kind != TM__TEXT)
        return tm__run_fail(run, TM_INVALID, "filter 'indent' needs a text, not %s", tm__type_name(self));
    if (arg[0].kind == TM__TEXT) {
        TM__TRY(tm__print(run, &arg[0], &blanks));
    } else {
        if (tm__given(&arg[0]) && !tm__as_integer(&arg[0], &width))
            return tm__run_fail(run, TM_INVALID, "filter 'indent' needs an integer or a text as width");
        TM__TRY(tm__buffer_repeat(run, &blanks, ' ', width > 0 ? (size_t)TM__MIN(width, 1 << 30) : 0));
    }
    TM__TRY(tm__print(run, self, &sink)); /* with a newline more, which splitlines takes back */
    TM__TRY(tm__buffer_put(run, &sink, "\n", 1));
    TM__TRY(tm__buffer_value(run, &sink, &text));
    TM__TRY(tm__split_lines(run, text.text, false, &lines));
    sink = (tm__buffer){0};
    if (first) TM__TRY(tm__buffer_put(run, &sink, blanks.data, blanks.len));
    for (size_t i = 0; i < lines.items->len; i++) {
        const tm__value *line = &lines.items->data[i];
        if (i) TM__TRY(tm__buffer_put(run, &sink, "\n", 1));
        if (i && (blank || line->text->len)) TM__TRY(tm__buffer_put(run, &sink, blanks.data, blanks.len));
        TM__TRY(tm__print(run, line, &sink));
    }
    TM__TRY(tm__buffer_value(run, &sink, out));
    out->markup = self->markup;
    return TM_OK;
}

CALL(filter_truncate) {
    int64_t length = 255, leeway = 5;
    tm__value end = {.kind = TM__TEXT, .text = &(tm__str){"...", 3, 3}};
    tm__buffer sink = {0};
    int64_t have;
    if (tm__given(&arg[2])) TM__TRY(tm__as_text(run, &arg[2], &end));
    if ((tm__given(&arg[0]) && !tm__as_integer(&arg[0], &length)) ||
        (tm__given(&arg[3]) && arg[3].kind != TM__NONE && !tm__as_integer(&arg[3], &leeway)))
        return tm__run_fail(run, TM_INVALID, "filter 'truncate' needs integers");
    if (length < (int64_t)end.text->chars || leeway < 0)
        return tm__run_fail(run, TM_INVALID, "filter 'truncate' needs a length of %zu or more", end.text->chars);
    *out = *self;
    TM__TRY(tm__length(run, self, &have));
    if (have <= length || have - length <= leeway) return TM_OK;
    if (self->kind != TM__TEXT) return tm__run_fail(run, TM_INVALID, "filter 'truncate' needs a text");
    tm__str kept = {self->text->data, tm__char_offset(self->text, (size_t)length - end.text->chars), 0};
    if (!(tm__given(&arg[1]) && tm__is_true(&arg[1]))) {
        const char *blank = memrchr(kept.data, ' ', kept.len);
        if (blank) kept.len = (size_t)(blank - kept.data);
    }
    TM__TRY(tm__buffer_put(run, &sink, kept.data, kept.len));
    TM__TRY(tm__print(run, &end, &sink));
    return tm__buffer_value(run, &sink, out);
}

/* Words of \w characters. */
CALL(filter_wordcount) {
    tm__value text;
    int64_t count = 0;
    bool inside = false;
    (void)arg;
    TM__TRY(tm__as_text(run, self, &text));
    for (size_t at = 0; at < text.text->len;) {
        const tm__str one = {text.text->data + at, 0, 1};
        uint32_t code;
        int n = tm__char_at(one.data, text.text->len - at, &code);
        tm__value letter = {.kind = TM__TEXT, .text = &(tm__str){one.data, (size_t)n, 1}}, is;
        const tm__str isalnum = {"isalnum", 7, 7};
        TM__TRY(
            tm__call_builtin(run, "method", tm__find_builtin(tm__str_methods, &isalnum), &letter, &(tm__args){0}, &is));
        bool word = is.truth || code == '_';
        count += word && !inside;
        inside = word;
        at += (size_t)n;
    }
    *out = tm__integer(count);
    return TM_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* A text as Python's float() reads it. */
static bool real_of_text(const tm__str *text, double *real) {
    char copy[128];
    char *end;
    size_t n = 0;
    tm__str bare = tm__strip(text, NULL, true, true);
    if (bare.len == 0 || bare.len >= sizeof copy) return false;
    for (size_t i = 0; i < bare.len; i++) {
        char c = bare.data[i];
        bool between = i > 0 && i + 1 < bare.len && bare.data[i - 1] >= '0' && bare.data[i - 1] <= '9' &&
                       bare.data[i + 1] >= '0' && bare.data[i + 1] <= '9';
        if (c == '_' && between) continue;
        if (c == 'x' || c == 'X' || c == '(') return false; /* what C reads and Python does not */
        copy[n++] = c;
    }
    copy[n] = 0;
    if (strlen(copy) != n) return false;
    *real = tm__real_of(copy, &end);
    return *end == 0;
}

static bool real_of(const tm__value *value, double *real) {
    if (tm__is_number(value)) *real = tm__as_real(value);
    return tm__is_number(value) || (value->kind == TM__TEXT && real_of_text(value->text, real));
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* A text as Python's int(text, base) reads it. *big: it is an integer of more than 64 bits. */
static bool integer_of_text(const tm__str *text, int64_t base, int64_t *integer, bool *big) {
    tm__str t = tm__strip(text, NULL, true, true);
    size_t at = 0;
    bool negative = t.len && *t.data == '-', digits = false;
    at += t.len && (*t.data == '-' || *t.data == '+');
    char mark = t.len - at > 1 && t.data[at] == '0' ? t.data[at + 1] | 0x20 : 0;
    int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    bool zeros = base == 0 && !marked && t.len - at > 1 && t.data[at] == '0'; /* 00 is a number, 01 is none */
    if (marked && (base == marked || base == 0)) {
        at += 2;
        base = marked;
        at += at < t.len && t.data[at] == '_';
    }
    if (base == 0) base = zeros ? 1 : 10;
    uint64_t sum = 0;
    *big = false;
    for (; at < t.len; at++) {
        if (t.data[at] == '_' && digits && at + 1 < t.len && t.data[at + 1] != '_') continue;
        int digit = digit_of(t.data[at]);
        if (digit >= base) return false;
        digits = true;
        if (__builtin_mul_overflow(sum, (uint64_t)base, &sum) || __builtin_add_overflow(sum, (uint64_t)digit, &sum) ||
            sum > (uint64_t)INT64_MAX)
            *big = true;
    }
    *integer = negative ? -(int64_t)(sum & INT64_MAX) : (int64_t)(sum & INT64_MAX);
    return digits;
}

CALL(filter_int) {
    int64_t integer = 0, base = 10;
    bool big = false;
    double real = 0;
    if (tm__given(&arg[1]) && (!tm__as_integer(&arg[1], &base) || base < 0 || base == 1 || base > 36))
        return tm__run_fail(run, TM_INVALID, "filter 'int' needs a base of 0 or 2 to 36");
    *out = tm__given(&arg[0]) ? arg[0] : tm__integer(0);
    if (self->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", self->hint);
    bool good =
        tm__as_integer(self, &integer) || (self->kind == TM__TEXT && integer_of_text(self->text, base, &integer, &big));
    if (!good && real_of(self, &real) && isfinite(real)) {
        good = true;
        big = !(fabs(real) < 9.2e18);
        if (!big) integer = (int64_t)real;
    }
    if (big) return tm__run_fail(run, TM_UNSUPPORTED, "an integer leaves 64 bits");
    if (good) *out = tm__integer(integer);
    return TM_OK;
}

CALL(filter_float) {
    double real = 0;
    if (self->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", self->hint);
    *out = real_of(self, &real) ? tm__real(real) : tm__given(arg) ? *arg : tm__real(0);
    return TM_OK;
}

CALL(filter_abs) {
    int64_t integer;
    (void)arg;
    if (self->kind == TM__UNDEFINED) return tm__run_fail(run, TM_INVALID, "%s", self->hint);
    if (tm__as_integer(self, &integer) && integer != INT64_MIN)
        *out = tm__integer(integer < 0 ? -integer : integer);
    else if (self->kind == TM__REAL)
        *out = tm__real(fabs(self->real));
    else
        return tm__run_fail(run, TM_INVALID, "bad operand type for abs(): '%s'", tm__type_name(self));
    return TM_OK;
}

/* Python rounds halves of the decimal number that a double is: printf does the same. */
CALL(filter_round) {
    int64_t precision = 0, integer;
    const char *method = "common";
    char text[700];
    if (tm__given(&arg[0]) && !tm__as_integer(&arg[0], &precision))
        return tm__run_fail(run, TM_INVALID, "filter 'round' needs an integer as precision");
    if (precision < 0 || precision > 300)
        return tm__run_fail(run, TM_UNSUPPORTED, "filter 'round' supports precisions of 0 to 300");
    if (tm__given(&arg[1]) && arg[1].kind == TM__TEXT) {
        tm__value copy; /* NUL-terminated */
        TM__TRY(tm__value_text(run, arg[1].text->data, arg[1].text->len, &copy));
        method = copy.text->data;
    }
    if (!tm__is_number(self))
        return tm__run_fail(run, TM_INVALID, "filter 'round' needs a number, not %s", tm__type_name(self));
    double scale = pow(10, (double)precision), real = tm__as_real(self);
    if (strcmp(method, "ceil") == 0) {
        *out = tm__real(ceil(real * scale) / scale);
    } else if (strcmp(method, "floor") == 0) {
        *out = tm__real(floor(real * scale) / scale);
    } else if (strcmp(method, "common") != 0) {
        return tm__run_fail(run, TM_INVALID, "method must be common, ceil or floor");
    } else if (tm__as_integer(self, &integer)) {
        *out = tm__integer(integer);
    } else {
        snprintf(text, sizeof text, "%.*f", (int)precision, real);
        for (char *c = text; *c; c++)
            if (*c != '-' && !(*c >= '0' && *c <= '9') && isfinite(real)) *c = '.';
        *out = tm__real(tm__real_of(text, NULL));
    }
    return TM_OK;
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

CALL(filter_default) {
    static const tm__str empty = {"", 0, 0};
    bool falsy = tm__given(&arg[1]) && tm__is_true(&arg[1]) && !tm__is_true(self);
    (void)run;
    *out = *self;
    if (self->kind != TM__UNDEFINED && !falsy) return TM_OK;
    *out = tm__given(&arg[0]) ? arg[0] : (tm__value){.kind = TM__TEXT, .text = &empty};
    return TM_OK;
}

CALL(filter_tojson) {
    bool ascii = tm__given(&arg[0]) && tm__is_true(&arg[0]), sorted = tm__given(&arg[3]) && tm__is_true(&arg[3]);
    return tm__json_text_of(run, self, ascii, &arg[1], &arg[2], sorted, out);
}

CALL(filter_attr) {
    bool is_element = self->kind == TM__DICT; /* attributes alone, never keys */
    if (arg->kind != TM__TEXT) return tm__run_fail(run, TM_INVALID, "filter 'attr' needs a name");
    TM__TRY(tm__attribute(run, self, arg->text, out));
    if (is_element && out->kind != TM__METHOD && out->kind != TM__UNDEFINED)
        *out = tm__undefined(run, "'dict object' has no attribute '%.*s'", (int)TM__MIN(arg->text->len, 100u),
                             arg->text->data);
    return TM_OK;
}

CALL(filter_urlencode) {
    tm__value text;
    tm__buffer sink = {0};
    (void)arg;
    if (self->kind > TM__TEXT) return tm__run_fail(run, TM_UNSUPPORTED, "filter 'urlencode' supports texts only");
    TM__TRY(tm__as_text(run, self, &text));
    for (size_t i = 0; i < text.text->len; i++) {
        unsigned char c = (unsigned char)text.text->data[i];
        char quoted[4];
        bool plain =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("_.-~/", c));
        snprintf(quoted, sizeof quoted, "%%%02X", c);
        if (plain) snprintf(quoted, sizeof quoted, "%c", c);
        TM__TRY(tm__buffer_put(run, &sink, quoted, strlen(quoted)));
    }
    return tm__buffer_value(run, &sink, out);
}

const tm__builtin tm__value_filters[] = {
    {"abs", "", 0, filter_abs, NULL},
    {"attr", "name", 1, filter_attr, NULL},
    {"capitalize", "", 0, filter_capitalize, NULL},
    {"center", "width", 0, filter_center, NULL},
    {"d", "default_value boolean", 0, filter_default, NULL},
    {"default", "default_value boolean", 0, filter_default, NULL},
    {"e", "", 0, filter_escape, NULL},
    {"escape", "", 0, filter_escape, NULL},
    {"filesizeformat", "", 0, NULL, NULL},
    {"float", "default", 0, filter_float, NULL},
    {"forceescape", "", 0, filter_forceescape, NULL},
    {"format", NULL, 0, NULL, filter_format},
    {"indent", "width first blank", 0, filter_indent, NULL},
    {"int", "default base", 0, filter_int, NULL},
    {"lower", "", 0, filter_lower, NULL},
    {"pprint", "", 0, NULL, NULL},
    {"replace", "old new count", 2, filter_replace, NULL},
    {"round", "precision method", 0, filter_round, NULL},
    {"safe", "", 0, filter_safe, NULL},
    {"string", "", 0, filter_string, NULL},
    {"striptags", "", 0, NULL, NULL},
    {"title", "", 0, filter_title, NULL},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson, NULL},
    {"trim", "chars", 0, filter_trim, NULL},
    {"truncate", "length killwords end leeway", 0, filter_truncate, NULL},
    {"upper", "", 0, filter_upper, NULL},
    {"urlencode", "", 0, filter_urlencode, NULL},
    {"urlize", "", 0, NULL, NULL},
    {"wordcount", "", 0, filter_wordcount, NULL},
    {"wordwrap", "", 0, NULL, NULL},
    {"xmlattr", "", 0, NULL, NULL},
    {0},
};
