/* answers.c: what is read off a written answer: labels, numbers, coherence; the published rules and strict ones.
 *
 * The published rules are those of the git-disl repositories (Vaccine, Lisa, Booster, Panacea), faults included: the
 * fourth class of AG News accepts exactly "Sci/Tech" and "sci", and an answer without a number counts as right where
 * the reference has none either. Digits are ASCII's; Python's \d takes those of other scripts too.
 * Test: tests/golden/test_answers.c.
 */
#include "eval/suite.h"

#include <stdlib.h>
#include <utf8proc.h>

const char *const tm__sst2_labels[2][3] = {{"negative", "Negative"}, {"positive", "Positive"}};
const char *const tm__agnews_labels[4][3] = {
    {"World", "world"}, {"Sports", "sports"}, {"Business", "business"}, {"Sci/Tech", "sci"}};
const char tm__gsm8k_marker[] = "The final answer is: ";

tm_status tm__answer_cut(const char *answer, char **said) {
    const char *repeat = strstr(answer, "### Response:");
    char *piece = tm__strndup(answer, repeat ? (size_t)(repeat - answer) : strlen(answer));
    size_t len;
    if (!piece) return tm__fail_memory();
    const char *kept = tm__py_strip(piece, &len);
    *said = tm__strndup(kept, len);
    free(piece);
    return *said ? TM_OK : tm__fail_memory();
}

bool tm__label_matches(tm__label_rule rule, const char *const *spellings, const char *answer) {
    if (rule == TM__LABEL_STRICT) return strcmp(answer, spellings[0]) == 0;
    for (; *spellings; spellings++) {
        if (rule == TM__LABEL_EITHER && strcmp(answer, *spellings) == 0) return true;
        if (rule == TM__LABEL_SUBSTRING && strstr(answer, *spellings)) return true;
    }
    return false;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* float() of the number at `text`; its length. */
static double read_number(const char *text, size_t len) {
    char plain[512];
    size_t whole = strspn(text + (*text == '-'), "0123456789");
    if (whole > 400) return *text == '-' ? -INFINITY : INFINITY;
    snprintf(plain, sizeof plain, "%.*s", (int)TM__MIN(len, sizeof plain - 1), text);
    return strtod(plain, NULL);
}

/* First or last match of -?\d+\.?\d* between `text` and `end`; infinity: none. */
static double find_number(const char *text, const char *end, bool first) {
    double found = INFINITY;
    while (text < end) {
        size_t sign = *text == '-' && text + 1 < end;
        const char *at = text + sign;
        while (at < end && digit(*at)) at++;
        if (at == text + sign) { /* no digit here */
            text++;
            continue;
        }
        at += at < end && *at == '.';
        while (at < end && digit(*at)) at++;
        found = read_number(text, (size_t)(at - text));
        if (first) return found;
        text = at;
    }
    return found;
}

tm_status tm__gsm8k_read(const char *answer, tm__gsm8k *numbers) {
    char *text = tm__py_replace(answer, ",", "");
    if (!text) return tm__fail_memory();
    const char *end = text + strlen(text), *marker = strstr(text, tm__gsm8k_marker);
    numbers->value = find_number(text, end, false);
    numbers->marked = INFINITY;
    if (marker) {
        marker += strlen(tm__gsm8k_marker);
        const char *again = strstr(marker, tm__gsm8k_marker);
        numbers->marked = find_number(marker, again ? again : end, true);
        if (numbers->marked != INFINITY) numbers->value = numbers->marked;
    }
    free(text);
    return TM_OK;
}

/* ---- coherence --------------------------------------------------------------------------------------------------- */

typedef struct word {
    const char *text;
    size_t len;
} word;

/* Length of the character at `text`, which is a letter in any script or not; 0 at the end. A stray byte is none. */
static size_t character(const char *text, uint32_t *lower, bool *letter) {
    uint32_t code;
    int n = tm__utf8_decode(text, strnlen(text, 4), &code);
    *letter = false;
    *lower = 0;
    if (n == 0) return *text != 0;
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)code);
    *letter = kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
    *lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
    return (size_t)n;
}

/* The next run of letters. */
static bool next_word(const char **text, word *found) {
    uint32_t lower;
    bool letter;
    size_t n;
    while ((n = character(*text, &lower, &letter)) > 0 && !letter) *text += n;
    found->text = *text;
    while ((n = character(*text, &lower, &letter)) > 0 && letter) *text += n;
    found->len = (size_t)(*text - found->text);
    return found->len > 0;
}

/* Without regard to case. */
static bool same_word(word a, word b) {
    const char *x = a.text, *y = b.text, *x_end = x + a.len, *y_end = y + b.len;
    while (x < x_end && y < y_end) {
        uint32_t p, q;
        bool letter;
        x += character(x, &p, &letter);
        y += character(y, &q, &letter);
        if (p != q) return false;
    }
    return x == x_end && y == y_end;
}

bool tm__answer_coherent(const char *answer) {
    word now, before = {"", 0};
    int run = 0;
    while (next_word(&answer, &now)) {
        run = same_word(now, before) ? run + 1 : 1;
        if (run > 3) return false;
        before = now;
    }
    return true;
}
