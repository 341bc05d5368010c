/* rouge.c: ROUGE-1 F1 (Lin 2004): unigrams with clipped counts, F = 2PR / (P + R), 0 without overlap.
 *
 * Two ways to cut words, because published figures use both: as Google's rouge_score does (lower case, runs of ASCII
 * letters and digits, no stemming), or by white space as the text stands. Neither is the package `rouge`, which counts
 * every different word once and splits sentences. F1 does not depend on which text is called the hypothesis.
 * Test: tests/golden/test_answers.c.
 */
#include "eval/suite.h"

#include <stdlib.h>
#include <utf8proc.h>

typedef struct words {
    tm__string text; /* words, each ended by a NUL */
    size_t count;
} words;

static bool add_word(words *w, const char *bytes, size_t len) {
    w->count++;
    return tm__string_append(&w->text, bytes, len) && tm__string_append(&w->text, "", 1);
}

static bool cut(const char *text, bool split, words *w) {
    tm__string word = {0};
    size_t len = strlen(text);
    bool ok = true;
    for (size_t at = 0; ok && at <= len;) {
        uint32_t code = ' ';
        char bytes[4];
        int n = at < len ? tm__utf8_decode(text + at, len - at, &code) : 1;
        at += n > 0 ? (size_t)n : 1;
        bool dotted = !split && code == 0x130; /* Python's lower() makes two characters of it, the second a mark */
        if (!split) code = dotted ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
        bool inside = split ? !tm__py_space(code) : (code >= 'a' && code <= 'z') || (code >= '0' && code <= '9');
        if (inside) ok = tm__string_append(&word, bytes, (size_t)tm__utf8_encode(code, bytes));
        if ((!inside || dotted) && word.len) {
            ok = ok && add_word(w, word.data, word.len);
            word.len = 0;
        }
    }
    tm__string_free(&word);
    return ok;
}

tm_status tm__rouge1(const char *answer, const char *reference, bool split, double *f1) {
    words a = {0}, b = {0};
    tm__map counts = {0};
    size_t overlap = 0;
    bool ok = cut(answer, split, &a) && cut(reference, split, &b);
    const char *word = b.text.data;
    for (size_t i = 0; ok && i < b.count; i++, word += strlen(word) + 1) {
        int32_t n = 0;
        tm__map_get(&counts, word, strlen(word), &n);
        ok = tm__map_put(&counts, word, strlen(word), n + 1);
    }
    word = a.text.data;
    for (size_t i = 0; ok && i < a.count; i++, word += strlen(word) + 1) {
        int32_t n = 0;
        if (!tm__map_get(&counts, word, strlen(word), &n) || n == 0) continue;
        ok = tm__map_put(&counts, word, strlen(word), n - 1);
        overlap++;
    }
    *f1 = overlap ? 2.0 * (double)overlap / (double)(a.count + b.count) : 0;
    tm__map_free(&counts);
    tm__string_free(&a.text);
    tm__string_free(&b.text);
    return ok ? TM_OK : tm__fail_memory();
}
