/* format.c: Python's "%" on texts and str.format. What they have and this has not (%a, the types n and, for numbers
 * with a fraction, a precision without a type) is refused by name. */
#include "template/interpreter.h"

#include <locale.h>
#include <stdlib.h>

typedef struct spec {
    tm__str fill;
    char align; /* < > = ^ or 0 */
    char sign;  /* + - blank or 0 */
    bool alternate;
    char group;               /* , _ or 0 */
    int64_t width, precision; /* precision -1: none */
    char type;                /* 0: none */
} spec;

enum { WIDTH_MOST = 100000, PRECISION_MOST = 300 };

static tm_status bad_spec(tm__run *run, const char *what) {
    return tm__run_fail(run, TM_INVALID, "a format has %s", what);
}

/* ---- one value --------------------------------------------------------------------------------------------------- */

/* `text` with a sign or a prefix of `head` bytes that zeros go behind. */
static tm_status put_padded(tm__run *run, const spec *s, const char *text, size_t len, size_t head, char align,
                            tm__buffer *sink) {
    size_t chars = tm__char_count(text, len), width = (size_t)s->width;
    size_t room = width > chars ? width - chars : 0;
    size_t left = align == '<' ? 0 : align == '^' ? room / 2 : room;
    TM__TRY(tm__run_step(run, room));
    if (align == '=') {
        TM__TRY(tm__buffer_put(run, sink, text, head));
        text += head;
        len -= head;
    }
    for (size_t i = 0; i < left; i++) TM__TRY(tm__buffer_put(run, sink, s->fill.data, s->fill.len));
    TM__TRY(tm__buffer_put(run, sink, text, len));
    for (size_t i = left; i < room; i++) TM__TRY(tm__buffer_put(run, sink, s->fill.data, s->fill.len));
    return TM_OK;
}

static tm_status put_text(tm__run *run, const spec *s, const tm__str *text, tm__buffer *sink) {
    size_t len = s->precision >= 0 ? tm__char_offset(text, (size_t)s->precision) : text->len;
    return put_padded(run, s, text->data, len, 0, s->align ? s->align : '<', sink);
}

/* Digits with a separator after every three (four of other bases). */
static size_t group_digits(const char *digits, size_t len, char group, size_t every, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (group && i && (len - i) % every == 0) out[n++] = group;
        out[n++] = digits[i];
    }
    return n;
}

static size_t put_sign(const spec *s, bool negative, char *out) {
    if (negative) out[0] = '-';
    if (!negative && (s->sign == '+' || s->sign == ' ')) out[0] = s->sign;
    return negative || s->sign == '+' || s->sign == ' ';
}

static tm_status put_integer(tm__run *run, const spec *s, int64_t value, tm__buffer *sink) {
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    unsigned base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char reversed[72], digits[72], text[512];
    size_t n = 0, len = put_sign(s, value < 0, text);
    do {
        reversed[n++] = (s->type == 'X' ? upper : lower)[rest % base];
        rest /= base;
    } while (rest);
    for (size_t i = 0; i < n; i++) digits[i] = reversed[n - 1 - i];
    if (s->alternate && base != 10) {
        text[len++] = '0';
        text[len++] = s->type;
    }
    size_t head = len;
    for (int64_t i = (int64_t)n; i < s->precision; i++) text[len++] = '0';
    len += group_digits(digits, n, s->group, base == 10 ? 3 : 4, text + len);
    return put_padded(run, s, text, len, head, s->align ? s->align : '>', sink);
}

static tm_status put_real(tm__run *run, const spec *s, double value, tm__buffer *sink) {
    char digits[700], text[1000], type = s->type == '%' ? 'f' : s->type;
    int64_t precision = s->precision < 0 ? 6 : s->precision;
    size_t len = put_sign(s, signbit(value), text), head = len;
    if (s->type == '%') value *= 100;
    if (!type) {
        tm__real_text(fabs(value), digits);
    } else {
        char format[8] = {
            '%', s->alternate ? '#' : '.', s->alternate ? '.' : '*', s->alternate ? '*' : type, s->alternate ? type : 0,
            0};
        locale_t before = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* allocates nothing */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(digits, sizeof digits, format, (int)precision, fabs(value));
#pragma GCC diagnostic pop
        uselocale(before);
    }
    size_t whole = strspn(digits, "0123456789");
    len += group_digits(digits, whole, s->group, 3, text + len);
    len += (size_t)snprintf(text + len, sizeof text - len - 2, "%s", digits + whole);
    if (s->type == '%') text[len++] = '%';
    return put_padded(run, s, text, len, head, s->align ? s->align : '>', sink);
}

/* ---- "%" --------------------------------------------------------------------------------------------------------- */

typedef struct percent {
    tm__run *run;
    const tm__str *format;
    size_t at;
    const tm__value *arguments;
    size_t next;
    bool named;
} percent;

static char here(const percent *p) {
    return p->at < p->format->len ? p->format->data[p->at] : 0;
}

static tm_status next_argument(percent *p, const tm__value **value) {
    bool tuple = p->arguments->kind == TM__TUPLE;
    size_t count = tuple ? p->arguments->items->len : 1;
    if (p->next >= count) return tm__run_fail(p->run, TM_INVALID, "not enough arguments for format string");
    *value = tuple ? &p->arguments->items->data[p->next] : p->arguments;
    p->next++;
    return TM_OK;
}

static tm_status named_value(percent *p, const tm__value **value) {
    const char *from = p->format->data + p->at + 1, *end = memchr(from, ')', p->format->len - p->at - 1);
    tm__value key;
    if (p->arguments->kind != TM__DICT) return tm__run_fail(p->run, TM_INVALID, "format requires a mapping");
    if (!end) return bad_spec(p->run, "a key that does not end");
    TM__TRY(tm__value_text(p->run, from, (size_t)(end - from), &key));
    TM__TRY(tm__dict_find(p->run, p->arguments->dict, &key, value));
    if (!*value) return tm__run_fail(p->run, TM_INVALID, "the mapping has no '%.40s'", key.text->data);
    p->at = (size_t)(end + 1 - p->format->data);
    p->named = true;
    return TM_OK;
}

static tm_status number_or_star(percent *p, int64_t most, int64_t *number) {
    const tm__value *value = NULL;
    if (here(p) == '*') {
        p->at++;
        TM__TRY(next_argument(p, &value));
        if (!tm__as_integer(value, number)) return bad_spec(p->run, "a * that no integer fits");
    }
    for (; here(p) >= '0' && here(p) <= '9'; p->at++) *number = TM__MIN(*number, most) * 10 + (here(p) - '0');
    return *number < -most || *number > most ? bad_spec(p->run, "too great a width or precision") : TM_OK;
}

static tm_status read_percent(percent *p, spec *s, const tm__value **value) {
    bool left = false, zero = false;
    *s = (spec){.fill = {" ", 1, 1}, .precision = -1};
    *value = NULL;
    if (here(p) == '(') TM__TRY(named_value(p, value));
    for (; here(p) && strchr("-+ #0", here(p)); p->at++) {
        left |= here(p) == '-';
        zero |= here(p) == '0';
        s->alternate |= here(p) == '#';
        if (here(p) == '+' || (here(p) == ' ' && s->sign != '+')) s->sign = here(p);
    }
    TM__TRY(number_or_star(p, WIDTH_MOST, &s->width));
    if (s->width < 0) {
        left = true;
        s->width = -s->width;
    }
    if (here(p) == '.') {
        p->at++;
        s->precision = 0;
        TM__TRY(number_or_star(p, PRECISION_MOST, &s->precision));
        s->precision = TM__MAX(s->precision, 0);
    }
    while (here(p) == 'l' || here(p) == 'h' || here(p) == 'L') p->at++;
    s->type = here(p);
    if (!s->type) return bad_spec(p->run, "no type at its end");
    p->at++;
    s->align = left ? '<' : '>';
    if (zero && !left && strchr("diuxXoeEfFgG", s->type)) {
        s->fill = (tm__str){"0", 1, 1};
        s->align = '=';
    }
    return *value || s->type == '%' ? TM_OK : next_argument(p, value);
}

static tm_status put_number(percent *p, spec *s, const tm__value *value, tm__buffer *sink) {
    int64_t integer;
    if (!tm__is_number(value))
        return tm__run_fail(p->run, TM_INVALID, "%%%c format: a number is required, not %s", s->type,
                            tm__type_name(value));
    if (strchr("eEfFgG", s->type)) return put_real(p->run, s, tm__as_real(value), sink);
    if (strchr("diu", s->type)) {
        s->type = 'd';
        if (value->kind == TM__REAL) {
            if (!(fabs(value->real) < 9e18)) return bad_spec(p->run, "a number that is no 64-bit integer");
            return put_integer(p->run, s, (int64_t)value->real, sink);
        }
    }
    if (!tm__as_integer(value, &integer)) return bad_spec(p->run, "a type that needs an integer");
    return put_integer(p->run, s, integer, sink);
}

static tm_status put_percent(percent *p, spec *s, const tm__value *value, tm__buffer *sink) {
    tm__buffer text = {0};
    int64_t code;
    char utf8[4];
    switch (s->type) {
    case '%':
        return tm__buffer_put(p->run, sink, "%", 1);
    case 's':
        TM__TRY(tm__print(p->run, value, &text));
        break;
    case 'r':
        TM__TRY(tm__repr(p->run, value, &text));
        break;
    case 'c':
        if (value->kind == TM__TEXT && value->text->chars == 1) {
            TM__TRY(tm__print(p->run, value, &text));
        } else if (tm__as_integer(value, &code) && code >= 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)) {
            TM__TRY(tm__buffer_put(p->run, &text, utf8, (size_t)tm__utf8_encode((uint32_t)code, utf8)));
        } else {
            return bad_spec(p->run, "a %c that no character fits");
        }
        break;
    default:
        if (!strchr("diuxXoeEfFgG", s->type)) return bad_spec(p->run, "a type that is not supported");
        return put_number(p, s, value, sink);
    }
    tm__str whole = {text.data ? text.data : "", text.len, tm__char_count(text.data, text.len)};
    return put_text(p->run, s, &whole, sink);
}

tm_status tm__format_percent(tm__run *run, const tm__str *format, const tm__value *arguments, tm__value *out) {
    percent p = {.run = run, .format = format, .arguments = arguments};
    tm__buffer sink = {0};
    while (p.at < format->len) {
        const char *from = format->data + p.at, *sign = memchr(from, '%', format->len - p.at);
        size_t plain = sign ? (size_t)(sign - from) : format->len - p.at;
        const tm__value *value;
        spec s;
        TM__TRY(tm__run_step(run, 1));
        TM__TRY(tm__buffer_put(run, &sink, from, plain));
        p.at += plain + (sign != NULL);
        if (!sign) break;
        TM__TRY(read_percent(&p, &s, &value));
        TM__TRY(put_percent(&p, &s, value, &sink));
    }
    size_t given = arguments->kind == TM__TUPLE ? arguments->items->len : 1;
    bool mapping = arguments->kind == TM__DICT || arguments->kind == TM__LIST || arguments->kind == TM__RANGE;
    if (p.next < given && !p.named && !mapping)
        return tm__run_fail(run, TM_INVALID, "not all arguments converted during string formatting");
    return tm__buffer_value(run, &sink, out);
}

/* ---- str.format -------------------------------------------------------------------------------------------------- */

typedef struct braces {
    tm__run *run;
    const tm__args *args;
    int64_t automatic; /* next of {}; -1: numbers are given */
    bool numbered;
} braces;

static tm_status argument_of(braces *b, const tm__str *name, tm__value *value) {
    int64_t index = 0;
    bool number = true;
    for (size_t i = 0; i < name->len; i++) {
        number &= name->data[i] >= '0' && name->data[i] <= '9';
        if (number) index = TM__MIN(index, 1000000) * 10 + (name->data[i] - '0');
    }
    if (number) {
        if (name->len == 0) index = b->automatic++;
        b->numbered |= name->len > 0;
        if (b->numbered && b->automatic > 0)
            return tm__run_fail(b->run, TM_INVALID, "cannot switch between numbered and automatic fields");
        if (index >= (int64_t)b->args->count)
            return tm__run_fail(b->run, TM_INVALID, "Replacement index %lld out of range", (long long)index);
        *value = b->args->data[index];
        return TM_OK;
    }
    for (size_t i = 0; i < b->args->named_count; i++) {
        const tm__str *given = b->args->named[i].name;
        if (given->len != name->len || memcmp(given->data, name->data, name->len) != 0) continue;
        *value = b->args->named[i].value;
        return TM_OK;
    }
    return tm__run_fail(b->run, TM_INVALID, "format has no argument '%.*s'", (int)TM__MIN(name->len, 40u), name->data);
}

/* "name.attribute[key]" */
static tm_status field_value(braces *b, const char *data, size_t len, tm__value *value) {
    size_t at = 0;
    while (at < len && data[at] != '.' && data[at] != '[') at++;
    tm__str name = {data, at, 0};
    TM__TRY(argument_of(b, &name, value));
    while (at < len) {
        bool attribute = data[at] == '.';
        size_t from = ++at;
        while (at < len && (attribute ? data[at] != '.' && data[at] != '[' : data[at] != ']')) at++;
        if (at == from || (!attribute && at == len)) return bad_spec(b->run, "an empty attribute");
        tm__value key, of = *value;
        TM__TRY(tm__value_text(b->run, data + from, at - from, &key));
        char *end;
        int64_t index = strtol(key.text->data, &end, 10);
        if (!attribute && *end == 0 && *key.text->data >= '0' && *key.text->data <= '9') key = tm__integer(index);
        TM__TRY(attribute ? tm__attribute(b->run, &of, key.text, value) : tm__index(b->run, &of, &key, value));
        at += !attribute;
        if (!attribute && at < len && data[at] != '.' && data[at] != '[') return bad_spec(b->run, "text behind ']'");
    }
    return TM_OK;
}

static tm_status read_spec(tm__run *run, const tm__str *text, spec *s) {
    uint32_t code;
    size_t at = 0, len = text->len;
    const char *data = text->data;
    *s = (spec){.fill = {" ", 1, 1}, .precision = -1};
    int n = len ? tm__char_at(data, len, &code) : 0;
    if (n && (size_t)n < len && strchr("<>=^", data[n]) && data[n]) {
        s->fill = (tm__str){data, (size_t)n, 1};
        at = (size_t)n;
    }
    if (at < len && data[at] && strchr("<>=^", data[at])) s->align = data[at++];
    if (at < len && data[at] && strchr("+- ", data[at])) s->sign = data[at++];
    if (at < len && data[at] == '#') s->alternate = data[at++] == '#';
    if (at < len && data[at] == '0') {
        if (!s->align) {
            s->align = '=';
            s->fill = (tm__str){"0", 1, 1};
        }
        at++;
    }
    for (; at < len && data[at] >= '0' && data[at] <= '9'; at++)
        s->width = TM__MIN(s->width, WIDTH_MOST) * 10 + (data[at] - '0');
    if (at < len && (data[at] == ',' || data[at] == '_')) s->group = data[at++];
    if (at + 1 < len && data[at] == '.' && data[at + 1] >= '0' && data[at + 1] <= '9') {
        s->precision = 0;
        for (at++; at < len && data[at] >= '0' && data[at] <= '9'; at++)
            s->precision = TM__MIN(s->precision, PRECISION_MOST) * 10 + (data[at] - '0');
    }
    if (at < len) s->type = data[at++];
    if (at < len) return bad_spec(run, "a specification that is not understood");
    return s->width > WIDTH_MOST || s->precision > PRECISION_MOST ? bad_spec(run, "too great a width") : TM_OK;
}

static tm_status put_formatted(tm__run *run, spec *s, const tm__value *value, tm__buffer *sink) {
    int64_t integer;
    bool whole = value->kind == TM__INT || value->kind == TM__BOOL;
    if (value->kind == TM__TEXT) {
        if ((s->type && s->type != 's') || s->align == '=' || s->sign || s->group || s->alternate)
            return bad_spec(run, "a specification that is not for texts");
        return put_text(run, s, value->text, sink);
    }
    if (whole && tm__as_integer(value, &integer) && (!s->type || strchr("dxXob", s->type))) {
        if (s->precision >= 0) return bad_spec(run, "a precision for an integer");
        if (s->group && s->align == '=' && *s->fill.data == '0')
            return tm__run_fail(run, TM_UNSUPPORTED, "zeros with separators are not supported");
        return put_integer(run, s, integer, sink);
    }
    if ((whole || value->kind == TM__REAL) && s->type && strchr("eEfFgG%", s->type))
        return put_real(run, s, tm__as_real(value), sink);
    if (value->kind == TM__REAL && !s->type && s->precision < 0) return put_real(run, s, value->real, sink);
    return tm__run_fail(run, TM_UNSUPPORTED, "this format of a value of type '%s' is not supported",
                        tm__type_name(value));
}

static tm_status format_text(braces *b, const char *data, size_t len, int depth, tm__buffer *sink);

/* "field!conversion:specification", without its braces. */
static tm_status format_field(braces *b, const char *data, size_t len, int depth, tm__buffer *sink) {
    size_t name = 0, at, nesting = 0;
    tm__value value;
    while (name < len && (nesting || (data[name] != '!' && data[name] != ':'))) {
        nesting += data[name] == '[';
        nesting -= nesting && data[name] == ']';
        name++;
    }
    TM__TRY(field_value(b, data, name, &value));
    at = name;
    if (at < len && data[at] == '!') {
        tm__buffer text = {0};
        char conversion = at + 1 < len ? data[at + 1] : 0;
        if (conversion != 'r' && conversion != 's') return bad_spec(b->run, "a conversion that is not supported");
        TM__TRY(conversion == 'r' ? tm__repr(b->run, &value, &text) : tm__print(b->run, &value, &text));
        TM__TRY(tm__buffer_value(b->run, &text, &value));
        at += 2;
        if (at < len && data[at] != ':') return bad_spec(b->run, "text behind a conversion");
    }
    tm__buffer made = {0};
    if (at < len) TM__TRY(format_text(b, data + at + 1, len - at - 1, depth + 1, &made));
    if (made.len == 0) return tm__print(b->run, &value, sink);
    spec s;
    tm__str text = {made.data, made.len, tm__char_count(made.data, made.len)};
    TM__TRY(read_spec(b->run, &text, &s));
    return put_formatted(b->run, &s, &value, sink);
}

static tm_status format_text(braces *b, const char *data, size_t len, int depth, tm__buffer *sink) {
    if (depth > 2) return bad_spec(b->run, "fields that are nested too deeply");
    for (size_t at = 0; at < len;) {
        char c = data[at];
        TM__TRY(tm__run_step(b->run, 1));
        if ((c != '{' && c != '}') || (depth == 0 && at + 1 < len && data[at + 1] == c)) {
            TM__TRY(tm__buffer_put(b->run, sink, &data[at], 1));
            at += c == '{' || c == '}' ? 2 : 1;
            continue;
        }
        if (c == '}') return bad_spec(b->run, "a single '}'");
        size_t from = ++at, nesting = 1;
        for (; at < len && nesting; at++) {
            nesting += data[at] == '{';
            nesting -= data[at] == '}';
        }
        if (nesting) return bad_spec(b->run, "a '{' without its '}'");
        TM__TRY(format_field(b, data + from, at - 1 - from, depth, sink));
    }
    return TM_OK;
}

tm_status tm__format_braces(tm__run *run, const tm__str *format, const tm__args *args, tm__value *out) {
    braces b = {.run = run, .args = args};
    tm__buffer sink = {0};
    TM__TRY(format_text(&b, format->data, format->len, 0, &sink));
    return tm__buffer_value(run, &sink, out);
}
