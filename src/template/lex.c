/* lex.c: template source to tokens.
 *
 * As Jinja2 3.1's lexer with trim_blocks and lstrip_blocks, which is how chat templates are read: the newline behind a
 * tag or comment goes, blanks between the begin of a line and a tag or comment go, "-" takes all white space on its
 * side, "+" keeps it; one newline at the end of the source goes; every kind of line break is read as "\n".
 * Pinned by tests/golden/test_templates.c.
 */
#include "template/interpreter.h"

enum { NESTING = 256 };

typedef struct lexer {
    const char *name, *source;
    size_t len, at;
    int line;
    bool fresh_line; /* what was read last ended a line */
    char close[NESTING];
    int depth;
    tm__arena *arena;
    tm__tokens *tokens;
} lexer;

static tm_status TM__PRINTF(2, 3) fail(const lexer *lex, const char *format, ...) {
    char message[256], field[32];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    snprintf(field, sizeof field, "line %d", lex->line);
    return tm__fail(TM_FORMAT, lex->name, field, NULL, "%s", message);
}

static tm_status push(lexer *lex, tm__token token) {
    tm__tokens *t = lex->tokens;
    if (!tm__grow((void **)&t->data, &t->cap, t->len + 1, sizeof *t->data)) return tm__fail_memory();
    token.line = lex->line;
    t->data[t->len++] = token;
    return TM_OK;
}

static bool begins(const lexer *lex, size_t at, const char *with) {
    size_t n = strlen(with);
    return at <= lex->len && n <= lex->len - at && memcmp(lex->source + at, with, n) == 0;
}

/* Moves over `to` and counts its lines. */
static void move(lexer *lex, size_t to) {
    for (size_t i = lex->at; i < to; i++) lex->line += lex->source[i] == '\n';
    if (to > lex->at) lex->fresh_line = lex->source[to - 1] == '\n';
    lex->at = to;
}

static size_t skip_space(const lexer *lex, size_t at) {
    uint32_t code;
    while (at < lex->len) {
        int n = tm__char_at(lex->source + at, lex->len - at, &code);
        if (!tm__python_space(code)) break;
        at += (size_t)n;
    }
    return at;
}

static char at_or(const lexer *lex, size_t at) {
    return at < lex->len ? lex->source[at] : 0;
}

/* ---- text between tags ------------------------------------------------------------------------------------------- */

static tm_status put_data(lexer *lex, size_t from, size_t to) {
    if (to == from) return TM_OK;
    tm__str text = {lex->source + from, to - from, 0};
    text.chars = tm__char_count(text.data, text.len);
    return push(lex, (tm__token){.kind = TM__TOKEN_DATA, .text = text});
}

/* Where the text before a tag ends: `sign` is the tag's "-", "+" or anything else. */
static size_t data_end(const lexer *lex, size_t from, size_t to, char sign, bool prints) {
    tm__str text = {lex->source + from, to - from, 0};
    if (sign == '-') return from + tm__strip(&text, NULL, false, true).len;
    if (sign == '+' || prints) return to;
    size_t line = to;
    while (line > from && lex->source[line - 1] != '\n') line--;
    if (line == from && !lex->fresh_line) return to;
    return line < to && skip_space(lex, line) >= to ? line : to;
}

/* The end of a tag at `at`, with the white space that goes with it; 0: there is none. `close` is "%}" or "#}". */
static size_t tag_end(const lexer *lex, size_t at, const char *close) {
    if (begins(lex, at, close)) return at + 2 + (at_or(lex, at + 2) == '\n');
    if (at_or(lex, at) == '-' && begins(lex, at + 1, close)) return skip_space(lex, at + 3);
    if (at_or(lex, at) == '+' && begins(lex, at + 1, close)) return at + 3;
    return 0;
}

static tm_status skip_comment(lexer *lex) {
    for (size_t at = lex->at; at < lex->len; at++) {
        size_t end = tag_end(lex, at, "#}");
        if (!end) continue;
        move(lex, end);
        return TM_OK;
    }
    return fail(lex, "the comment does not end");
}

/* Behind "{%" and its sign: is this `word` alone? Gives the end of the tag. */
static size_t tag_of(const lexer *lex, size_t at, const char *word, bool raw) {
    at = skip_space(lex, at);
    if (!begins(lex, at, word)) return 0;
    at = skip_space(lex, at + strlen(word));
    if (!raw) return tag_end(lex, at, "%}");
    if (begins(lex, at, "-%}")) return skip_space(lex, at + 3);
    return begins(lex, at, "%}") ? at + 2 : 0;
}

static size_t behind_sign(const lexer *lex, size_t at) {
    return at + (at_or(lex, at) == '-' || at_or(lex, at) == '+');
}

static tm_status lex_raw(lexer *lex) {
    for (size_t at = lex->at; at < lex->len; at++) {
        if (!begins(lex, at, "{%")) continue;
        size_t end = tag_of(lex, behind_sign(lex, at + 2), "endraw", false);
        if (!end) continue;
        TM__TRY(put_data(lex, lex->at, data_end(lex, lex->at, at, at_or(lex, at + 2), false)));
        move(lex, end);
        return TM_OK;
    }
    return fail(lex, "the raw block does not end");
}

/* ---- inside of tags ---------------------------------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name(char c, bool first) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80 ||
           (!first && is_digit(c));
}

/* (\d+_)*\d+ */
static size_t digits(const lexer *lex, size_t at) {
    while (is_digit(at_or(lex, at)) || (at_or(lex, at) == '_' && is_digit(at_or(lex, at + 1)))) at++;
    return at;
}

static size_t exponent(const lexer *lex, size_t at) {
    if (at_or(lex, at) != 'e' && at_or(lex, at) != 'E') return at;
    size_t from = at + 1;
    if (at_or(lex, from) == '+' || at_or(lex, from) == '-') from++;
    return is_digit(at_or(lex, from)) ? digits(lex, from) : at;
}

/* Without its underscores, NUL-terminated; false: too long to be meant. */
static bool clean_number(const lexer *lex, size_t to, char out[80]) {
    size_t n = 0;
    for (size_t i = lex->at; i < to; i++) {
        if (lex->source[i] == '_') continue;
        if (n + 1 >= 80) return false;
        out[n++] = lex->source[i];
    }
    out[n] = 0;
    return true;
}

static int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

static tm_status lex_integer(lexer *lex, size_t *end, tm__value *number) {
    size_t at = lex->at;
    int base = 10;
    char mark = at_or(lex, at + 1) | 0x20;
    if (lex->source[at] == '0' && (mark == 'b' || mark == 'o' || mark == 'x')) {
        int wanted = mark == 'b' ? 2 : mark == 'o' ? 8 : 16;
        size_t first = at + 2 + (at_or(lex, at + 2) == '_');
        if (digit_value(at_or(lex, first)) < wanted) {
            base = wanted;
            at = first;
        }
    }
    uint64_t sum = 0;
    bool zero = base == 10 && lex->source[at] == '0'; /* only zeros follow */
    for (;; at++) {
        char c = at_or(lex, at);
        if (c == '_' && digit_value(at_or(lex, at + 1)) < (zero ? 1 : base)) continue;
        int digit = digit_value(c);
        if (digit >= (zero ? 1 : base)) break;
        if (sum > (INT64_MAX - (uint64_t)digit) / (uint64_t)base)
            return fail(lex, "an integer does not fit into 64 bits");
        sum = sum * (uint64_t)base + (uint64_t)digit;
    }
    *number = tm__integer((int64_t)sum);
    *end = at;
    return TM_OK;
}

static tm_status lex_number(lexer *lex) {
    size_t end = digits(lex, lex->at), whole = end;
    bool behind_dot = lex->at > 0 && lex->source[lex->at - 1] == '.';
    if (at_or(lex, end) == '.' && is_digit(at_or(lex, end + 1))) end = digits(lex, end + 1);
    end = exponent(lex, end);
    tm__value number;
    if (end > whole && !behind_dot) {
        char text[80];
        if (!clean_number(lex, end, text)) return fail(lex, "a number is too long");
        number = tm__real(tm__real_of(text, NULL));
    } else {
        TM__TRY(lex_integer(lex, &end, &number));
    }
    TM__TRY(push(lex, (tm__token){.kind = TM__TOKEN_NUMBER, .number = number}));
    move(lex, end);
    return TM_OK;
}

/* Value of up to `most` digits of a base at *at. False: fewer than `least`. */
static bool escape_digits(const lexer *lex, size_t *at, size_t end, int base, int least, int most, uint32_t *code) {
    int n = 0;
    *code = 0;
    while (n < most && *at < end && digit_value(lex->source[*at]) < base) {
        *code = *code * (uint32_t)base + (uint32_t)digit_value(lex->source[(*at)++]);
        n++;
    }
    return n >= least;
}

/* What a backslash at *at stands for, appended to out. */
static tm_status put_escape(lexer *lex, size_t *at, size_t end, char *out, size_t *len) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = lex->source[*at + 1];
    const char *simple = c ? strchr(from, c) : NULL;
    uint32_t code = 0;
    *at += 2;
    if (simple) {
        out[(*len)++] = to[simple - from];
        return TM_OK;
    }
    if (c == '\n') return TM_OK;
    bool good = true;
    if (c >= '0' && c <= '7') {
        (*at)--;
        good = escape_digits(lex, at, end, 8, 1, 3, &code);
    } else if (c == 'x') {
        good = escape_digits(lex, at, end, 16, 2, 2, &code);
    } else if (c == 'u' || c == 'U') {
        int n = c == 'u' ? 4 : 8;
        good = escape_digits(lex, at, end, 16, n, n, &code);
    } else if (c == 'N') {
        return fail(lex, "characters by name (\\N) are not supported");
    } else {
        out[(*len)++] = '\\'; /* Python keeps what it does not know */
        (*at)--;
        return TM_OK;
    }
    if (!good || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return fail(lex, "a string has an escape that is no character");
    *len += (size_t)tm__utf8_encode(code, out + *len);
    return TM_OK;
}

static tm_status lex_string(lexer *lex) {
    char quote = lex->source[lex->at];
    size_t from = lex->at + 1, end = from;
    while (end < lex->len && lex->source[end] != quote) end += lex->source[end] == '\\' ? 2 : 1;
    if (end >= lex->len) return fail(lex, "a string does not end");
    char *out = tm__arena_alloc(lex->arena, end - from + 1, 1);
    size_t len = 0;
    if (!out) return tm__fail_memory();
    for (size_t at = from; at < end;) {
        if (lex->source[at] == '\\')
            TM__TRY(put_escape(lex, &at, end, out, &len));
        else
            out[len++] = lex->source[at++];
    }
    tm__token token = {.kind = TM__TOKEN_STRING, .text = {out, len, tm__char_count(out, len)}};
    TM__TRY(push(lex, token));
    move(lex, end + 1);
    return TM_OK;
}

static tm_status nest(lexer *lex, char c) {
    if (c == '(' || c == '[' || c == '{') {
        if (lex->depth == NESTING) return fail(lex, "brackets are nested too deeply");
        lex->close[lex->depth++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (lex->depth == 0) return fail(lex, "unexpected '%c'", c);
        char wanted = lex->close[--lex->depth];
        if (wanted != c) return fail(lex, "unexpected '%c', expected '%c'", c, wanted);
    }
    return TM_OK;
}

static tm_status lex_sign(lexer *lex) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = lex->source[lex->at];
    unsigned sign = strchr("+-/*%~[](){}><=.:|,;", c) && c ? (unsigned char)c : 0;
    size_t n = 1;
    for (size_t i = 0; i < TM__COUNT(two); i++) {
        if (!begins(lex, lex->at, two[i])) continue;
        sign = TM__SIGN2((unsigned)two[i][0], (unsigned)two[i][1]);
        n = 2;
    }
    if (!sign) return fail(lex, "unexpected character '%c'", (unsigned char)c < 0x20 ? '?' : c);
    TM__TRY(nest(lex, c));
    TM__TRY(push(lex, (tm__token){.kind = TM__TOKEN_SIGN, .sign = (uint16_t)sign}));
    move(lex, lex->at + n);
    return TM_OK;
}

/* Where the tag ends here, or 0. "}}" keeps the newline behind it, "%}" does not. */
static size_t ends_here(const lexer *lex, bool prints) {
    if (lex->depth) return 0;
    if (!prints) return tag_end(lex, lex->at, "%}");
    if (begins(lex, lex->at, "-}}")) return skip_space(lex, lex->at + 3);
    return begins(lex, lex->at, "}}") ? lex->at + 2 : 0;
}

static tm_status lex_tag(lexer *lex, bool prints) {
    lex->depth = 0;
    while (lex->at < lex->len) {
        size_t end = ends_here(lex, prints), behind = skip_space(lex, lex->at);
        char c = lex->source[lex->at];
        if (end) {
            TM__TRY(push(lex, (tm__token){.kind = prints ? TM__TOKEN_PRINT_END : TM__TOKEN_TAG_END}));
            move(lex, end);
            return TM_OK;
        }
        if (behind > lex->at) {
            move(lex, behind);
        } else if (is_digit(c)) {
            TM__TRY(lex_number(lex));
        } else if (is_name(c, true)) {
            size_t to = lex->at;
            while (to < lex->len && is_name(lex->source[to], false)) to++;
            tm__token token = {.kind = TM__TOKEN_NAME, .text = {lex->source + lex->at, to - lex->at, 0}};
            token.text.chars = tm__char_count(token.text.data, token.text.len);
            TM__TRY(push(lex, token));
            move(lex, to);
        } else {
            TM__TRY(c == '\'' || c == '"' ? lex_string(lex) : lex_sign(lex));
        }
    }
    return TM_OK; /* the parser says what is missing */
}

static tm_status lex_all(lexer *lex) {
    while (lex->at < lex->len) {
        size_t at = lex->at;
        while (at < lex->len && !begins(lex, at, "{{") && !begins(lex, at, "{%") && !begins(lex, at, "{#")) at++;
        if (at == lex->len) return put_data(lex, lex->at, at);
        char kind = lex->source[at + 1], sign = at_or(lex, at + 2);
        TM__TRY(put_data(lex, lex->at, data_end(lex, lex->at, at, sign, kind == '{')));
        move(lex, at);
        size_t raw = kind == '%' ? tag_of(lex, behind_sign(lex, at + 2), "raw", true) : 0;
        if (raw) {
            move(lex, raw);
            TM__TRY(lex_raw(lex));
            continue;
        }
        if (kind != '#') TM__TRY(push(lex, (tm__token){.kind = kind == '{' ? TM__TOKEN_PRINT : TM__TOKEN_TAG}));
        move(lex, behind_sign(lex, at + 2));
        TM__TRY(kind == '#' ? skip_comment(lex) : lex_tag(lex, kind == '{'));
    }
    return TM_OK;
}

tm_status tm__template_lex(const char *name, const char *source, size_t len, tm__arena *arena, tm__tokens *tokens) {
    lexer lex = {.name = name, .line = 1, .fresh_line = true, .arena = arena, .tokens = tokens};
    char *clean = tm__arena_alloc(arena, len + 1, 1);
    if (!clean) return tm__fail_memory();
    if (!tm__utf8_valid(source, len)) return tm__fail(TM_FORMAT, name, NULL, NULL, "is not UTF-8");
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        clean[n++] = source[i] == '\r' ? '\n' : source[i];
        i += source[i] == '\r' && i + 1 < len && source[i + 1] == '\n';
    }
    if (n && clean[n - 1] == '\n') n--;
    lex.source = clean;
    lex.len = n;
    TM__TRY(lex_all(&lex));
    return push(&lex, (tm__token){.kind = TM__TOKEN_END});
}
