/* regex.c: the patterns of pre-tokenizers and normalizers, run by PCRE2.
 *
 * The files are written for Oniguruma (Ruby syntax, Unicode). PCRE2 with UTF and UCP means the same except for three
 * classes, which are rewritten on the way in: \s would take U+180E too, \S the converse, and \w would leave out marks,
 * connectors, circled letters and the numbers of Latin-1. ^ and $ match at every line, as in Ruby. Code is compiled
 * just in time where PCRE2 can.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/tokenizer.h"

#include <pcre2.h>
#include <stdlib.h>

#define SPACES "\\t-\\r\\x{85}\\p{Z}"
#define CIRCLED "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORDS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" CIRCLED

static void *allocate(size_t size, void *user) {
    (void)user;
    return tm__alloc(1, size);
}

static void release(void *memory, void *user) {
    (void)user;
    free(memory);
}

/* A rewritten escape, or NULL where it stays. Inside a class \S only gains what PCRE2 leaves out; \W keeps PCRE2's
 * meaning there, for a class cannot hold the complement of another. */
static const char *rewrite(char letter, bool in_class) {
    switch (letter) {
    case 's':
        return in_class ? SPACES : "[" SPACES "]";
    case 'w':
        return in_class ? WORDS : "[" WORDS "]";
    case 'S':
        return in_class ? "\\S\\x{180e}" : "[^" SPACES "]";
    case 'W':
        return in_class ? NULL : "[^" WORDS "]";
    default:
        return NULL;
    }
}

static bool translate(const char *pattern, size_t len, tm__string *out) {
    bool in_class = false;
    for (size_t i = 0; i < len; i++) {
        if (pattern[i] == '\\' && i + 1 < len) {
            const char *text = rewrite(pattern[i + 1], in_class);
            bool ok = text ? tm__string_append(out, text, strlen(text)) : tm__string_append(out, pattern + i, 2);
            if (!ok) return false;
            i++;
            continue;
        }
        if (!in_class && pattern[i] == '[') {
            in_class = true;
            /* "[]" and "[^]" hold a literal bracket */
            size_t first = i + 1 < len && pattern[i + 1] == '^' ? i + 2 : i + 1;
            if (first < len && pattern[first] == ']') {
                if (!tm__string_append(out, pattern + i, first - i + 1)) return false;
                i = first;
                continue;
            }
        } else if (in_class && pattern[i] == '[' && i + 1 < len && pattern[i + 1] == ':') {
            size_t end = i + 2;
            while (end + 1 < len && !(pattern[end] == ':' && pattern[end + 1] == ']')) end++;
            end = TM__MIN(end + 2, len);
            if (!tm__string_append(out, pattern + i, end - i)) return false;
            i = end - 1;
            continue;
        } else if (in_class && pattern[i] == ']') {
            in_class = false;
        }
        if (!tm__string_append(out, pattern + i, 1)) return false;
    }
    return true;
}

tm_status tm__regex_compile(tm__regex *regex, const char *pattern, size_t len, bool literal, const char *file,
                            const char *field) {
    tm__string text = {0};
    int error = 0;
    PCRE2_SIZE at = 0;
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_NEVER_BACKSLASH_C | PCRE2_UCP | PCRE2_MULTILINE);
    pcre2_general_context *general = pcre2_general_context_create(allocate, release, NULL);
    pcre2_compile_context *compile = general ? pcre2_compile_context_create(general) : NULL;
    bool ok = compile && (literal ? tm__string_append(&text, pattern, len) : translate(pattern, len, &text)) &&
              tm__string_append(&text, "", 0);
    if (ok) regex->code = pcre2_compile((PCRE2_SPTR)text.data, text.len, options, &error, &at, compile);
    pcre2_compile_context_free(compile);
    pcre2_general_context_free(general);
    tm__string_free(&text);
    if (!ok || (!regex->code && error == PCRE2_ERROR_HEAP_FAILED)) return tm__fail_memory();
    if (!regex->code) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(error, why, sizeof why);
        return tm__fail(TM_FORMAT, file, field, NULL, "pattern does not compile: %s", (char *)why);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* where it cannot, matching falls back to the interpreter */
    return TM_OK;
}

void tm__regex_free(tm__regex *regex) {
    pcre2_code_free(regex->code);
    regex->code = NULL;
}

struct pcre2_real_match_data_8 *tm__regex_match_data(void) {
    pcre2_general_context *general = pcre2_general_context_create(allocate, release, NULL);
    pcre2_match_data *data = general ? pcre2_match_data_create(1, general) : NULL;
    pcre2_general_context_free(general);
    return data;
}

void tm__regex_match_data_free(struct pcre2_real_match_data_8 *data) {
    pcre2_match_data_free(data);
}

static tm_status find(const tm__matches *in, bool *found, size_t *start, size_t *end) {
    pcre2_code *code = in->regex->code;
    PCRE2_SPTR text = (PCRE2_SPTR)in->text;
    int rc = pcre2_match(code, text, in->len, in->from, PCRE2_NO_UTF_CHECK, in->data, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, text, in->len, in->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, in->data, NULL);
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(in->data);
        *end = span[1];
        /* \K in a look-around can move the start out of the match */
        *start = TM__MAX(in->from, TM__MIN(span[0], span[1]));
        return TM_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH) return TM_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return tm__fail_memory();
    PCRE2_UCHAR why[160];
    pcre2_get_error_message(rc, why, sizeof why);
    return tm__fail(TM_INVALID, NULL, "pre-tokenizer pattern", "the text makes the tokenizer's pattern backtrack", "%s",
                    (char *)why);
}

tm_status tm__regex_next(tm__matches *matches, bool *found, size_t *start, size_t *end) {
    *found = false;
    while (matches->from <= matches->len) {
        TM__TRY(find(matches, found, start, end));
        if (!*found) return TM_OK;
        if (*start == *end && matches->any && matches->previous_end == *end) {
            uint32_t code;
            size_t left = matches->len - *end;
            matches->from = *end + (left ? (size_t)tm__utf8_decode(matches->text + *end, left, &code) : 1);
            *found = false;
            continue;
        }
        matches->any = true;
        matches->from = matches->previous_end = *end;
        return TM_OK;
    }
    return TM_OK;
}
