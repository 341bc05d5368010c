/* print.c: values as text: str() and repr() of Python, and escaping for HTML as markupsafe does it. */
#include "template/interpreter.h"

#include <locale.h>
#include <stdlib.h>
#include <utf8proc.h>

/* ---- sink -------------------------------------------------------------------------------------------------------- */

static tm_status reserve(tm__run *run, tm__buffer *sink, size_t more) {
    if (sink->cap - sink->len > more) return TM_OK;
    size_t cap = TM__MAX(sink->cap * 2, sink->len + more + 32);
    char *data;
    TM__TRY(tm__run_alloc(run, cap, 1, &data));
    if (sink->len) memcpy(data, sink->data, sink->len);
    sink->data = data;
    sink->cap = cap;
    return TM_OK;
}

tm_status tm__buffer_put(tm__run *run, tm__buffer *sink, const char *data, size_t len) {
    if (len == 0) return TM_OK;
    TM__TRY(reserve(run, sink, len));
    memcpy(sink->data + sink->len, data, len);
    sink->len += len;
    return TM_OK;
}

tm_status tm__buffer_repeat(tm__run *run, tm__buffer *sink, char c, size_t count) {
    TM__TRY(tm__run_step(run, count / 16));
    TM__TRY(reserve(run, sink, count));
    memset(sink->data + sink->len, c, count);
    sink->len += count;
    return TM_OK;
}

static tm_status put(tm__run *run, tm__buffer *sink, const char *text) {
    return tm__buffer_put(run, sink, text, strlen(text));
}

tm_status tm__buffer_value(tm__run *run, const tm__buffer *sink, tm__value *out) {
    tm__str *text;
    TM__TRY(tm__run_alloc(run, 1, sizeof *text, &text));
    *text = (tm__str){sink->data ? sink->data : "", sink->len, tm__char_count(sink->data, sink->len)};
    *out = (tm__value){.kind = TM__TEXT, .text = text};
    return TM_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

double tm__real_of(const char *text, char **end) {
    return strtod_l(text, end, newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* the C locale allocates nothing */
}

/* Digits and exponent of the shortest text that reads back the same: 0.d1d2d3... x 10^point. */
static int shortest(double real, char digits[24], int *point) {
    char text[40];
    for (int precision = 0; precision < 18; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, real);
        if (text[1] && text[1] != 'e') text[1] = '.'; /* whatever the locale puts there */
        if (tm__real_of(text, NULL) == real) break;
    }
    int n = 0;
    const char *c = text;
    for (; *c && *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    *point = (int)strtol(c + 1, NULL, 10) + 1;
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

int tm__real_text(double real, char out[40]) {
    char digits[24];
    int point, n, len = 0;
    if (isnan(real)) return snprintf(out, 40, "nan");
    if (isinf(real)) return snprintf(out, 40, real < 0 ? "-inf" : "inf");
    if (signbit(real)) out[len++] = '-';
    n = shortest(fabs(real), digits, &point);
    if (real == 0) point = 1;
    if (point > 16 || point < -3) {
        out[len++] = digits[0];
        if (n > 1) out[len++] = '.';
        for (int i = 1; i < n; i++) out[len++] = digits[i];
        return len + snprintf(out + len, (size_t)(40 - len), "e%c%02d", point > 0 ? '+' : '-', abs(point - 1));
    }
    if (point <= 0) out[len++] = '0';
    for (int i = 0; i < n || i < point; i++) {
        if (i == point && i > 0) out[len++] = '.';
        if (i == 0 && point <= 0) {
            out[len++] = '.';
            for (int zero = point; zero < 0; zero++) out[len++] = '0';
        }
        out[len++] = i < n ? digits[i] : '0';
    }
    if (point >= n) {
        out[len++] = '.';
        out[len++] = '0';
    }
    out[len] = 0;
    return len;
}

/* ---- repr -------------------------------------------------------------------------------------------------------- */

static bool printable(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static tm_status repr_text(tm__run *run, const tm__str *text, tm__buffer *sink) {
    bool single = memchr(text->data, '\'', text->len) && !memchr(text->data, '"', text->len);
    char quote = single ? '"' : '\'', escaped[16];
    TM__TRY(tm__buffer_put(run, sink, &quote, 1));
    for (size_t at = 0; at < text->len;) {
        uint32_t code;
        int n = tm__char_at(text->data + at, text->len - at, &code);
        escaped[0] = 0;
        if (code == (uint32_t)quote || code == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", (char)code);
        else if (code == '\n' || code == '\r' || code == '\t')
            snprintf(escaped, sizeof escaped, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
        else if (code < 0x20 || (code >= 0x7f && !printable(code)))
            snprintf(escaped, sizeof escaped,
                     code < 0x100     ? "\\x%02x"
                     : code < 0x10000 ? "\\u%04x"
                                      : "\\U%08x",
                     (unsigned)code);
        TM__TRY(*escaped ? put(run, sink, escaped) : tm__buffer_put(run, sink, text->data + at, (size_t)n));
        at += (size_t)n;
    }
    return tm__buffer_put(run, sink, &quote, 1);
}

static tm_status repr_items(tm__run *run, const tm__items *items, const char *open, const char *close,
                            tm__buffer *sink) {
    TM__TRY(put(run, sink, open));
    for (size_t i = 0; i < items->len; i++) {
        if (i) TM__TRY(put(run, sink, ", "));
        TM__TRY(tm__repr(run, &items->data[i], sink));
    }
    return put(run, sink, close);
}

static tm_status repr_dict(tm__run *run, const tm__dict *dict, tm__buffer *sink) {
    TM__TRY(put(run, sink, "{"));
    for (size_t i = 0; i < dict->len; i++) {
        if (i) TM__TRY(put(run, sink, ", "));
        TM__TRY(tm__repr(run, &dict->data[i].key, sink));
        TM__TRY(put(run, sink, ": "));
        TM__TRY(tm__repr(run, &dict->data[i].value, sink));
    }
    return put(run, sink, "}");
}

static tm_status repr_range(tm__run *run, const tm__items *range, tm__buffer *sink) {
    char text[80];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)range->start, (long long)range->end);
    if (range->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)range->step);
    snprintf(text + n, sizeof text - (size_t)n, ")");
    return put(run, sink, text);
}

static tm_status repr_deep(tm__run *run, const tm__value *value, tm__buffer *sink) {
    char text[64];
    switch (value->kind) {
    case TM__UNDEFINED:
        return put(run, sink, "Undefined");
    case TM__NONE:
        return put(run, sink, "None");
    case TM__BOOL:
        return put(run, sink, value->truth ? "True" : "False");
    case TM__INT:
        snprintf(text, sizeof text, "%lld", (long long)value->integer);
        return put(run, sink, text);
    case TM__REAL:
        tm__real_text(value->real, text);
        return put(run, sink, text);
    case TM__TEXT:
        if (value->markup) TM__TRY(put(run, sink, "Markup("));
        TM__TRY(repr_text(run, value->text, sink));
        return value->markup ? put(run, sink, ")") : TM_OK;
    case TM__LIST:
        return repr_items(run, value->items, "[", "]", sink);
    case TM__TUPLE:
        return repr_items(run, value->items, "(", value->items->len == 1 ? ",)" : ")", sink);
    case TM__VIEW:
        TM__TRY(put(run, sink, value->items->name));
        return repr_items(run, value->items, "([", "])", sink);
    case TM__RANGE:
        return repr_range(run, value->items, sink);
    case TM__DICT:
        return repr_dict(run, value->dict, sink);
    case TM__NAMESPACE:
        TM__TRY(put(run, sink, "<Namespace "));
        TM__TRY(repr_dict(run, value->dict, sink));
        return put(run, sink, ">");
    case TM__MACRO:
        TM__TRY(put(run, sink, "<Macro "));
        TM__TRY(value->macro->node->name ? repr_text(run, value->macro->node->name, sink)
                                         : put(run, sink, "anonymous"));
        return put(run, sink, ">");
    default: /* Python prints an address */
        return tm__run_fail(run, TM_UNSUPPORTED, "printing a value of type '%s' is not supported",
                            tm__type_name(value));
    }
}

tm_status tm__repr(tm__run *run, const tm__value *value, tm__buffer *sink) {
    TM__TRY(tm__run_deeper(run));
    TM__TRY(tm__run_step(run, 1));
    TM__TRY(repr_deep(run, value, sink));
    run->left.depth++;
    return TM_OK;
}

tm_status tm__print(tm__run *run, const tm__value *value, tm__buffer *sink) {
    if (value->kind == TM__UNDEFINED) return TM_OK;
    if (value->kind != TM__TEXT) return tm__repr(run, value, sink);
    TM__TRY(tm__run_step(run, value->text->len / 16));
    return tm__buffer_put(run, sink, value->text->data, value->text->len);
}

tm_status tm__as_text(tm__run *run, const tm__value *value, tm__value *text) {
    tm__buffer sink = {0};
    if (value->kind == TM__TEXT) {
        *text = *value;
        return TM_OK;
    }
    TM__TRY(tm__print(run, value, &sink));
    return tm__buffer_value(run, &sink, text);
}

/* ---- HTML -------------------------------------------------------------------------------------------------------- */

tm_status tm__escape(tm__run *run, const tm__value *value, tm__value *out) {
    tm__value text;
    TM__TRY(tm__as_text(run, value, &text));
    if (!text.markup) {
        tm__buffer sink = {0};
        for (size_t i = 0; i < text.text->len; i++) {
            char c = text.text->data[i];
            const char *entity = c == '&'    ? "&amp;"
                                 : c == '<'  ? "&lt;"
                                 : c == '>'  ? "&gt;"
                                 : c == '\'' ? "&#39;"
                                 : c == '"'  ? "&#34;"
                                             : NULL;
            TM__TRY(entity ? put(run, &sink, entity) : tm__buffer_put(run, &sink, &c, 1));
        }
        TM__TRY(tm__buffer_value(run, &sink, &text));
    }
    *out = text;
    out->markup = true;
    return TM_OK;
}
