/* perplexity.c: likelihood of whole texts, per token, per word and per byte, as lm-evaluation-harness counts them.
 *
 *   token perplexity exp(-sum ln p / tokens);  word: / len(re.split(r"\s+", text));  byte: / UTF-8 bytes;
 *   bits per byte -sum ln p / (bytes ln 2).    Sums run over all texts before they are divided.
 *
 * A text is read in windows of the model's length that do not overlap, each predicted from the token before it; the
 * first from bos. `wikitext` undoes WikiText's spaced-out punctuation first and counts words and bytes of the page as
 * it was, as the harness does. Test: tests/golden/test_mcq.c.
 */
#include "eval/suite.h"

#include <stdlib.h>

enum { SCORE_LL, SCORE_TOKENS, SCORE_WORDS, SCORE_BYTES };

/* ---- WikiText ---------------------------------------------------------------------------------------------------- */

static bool replace(char **text, const char *what, const char *by) {
    char *made = tm__py_replace(*text, what, by);
    free(*text);
    *text = made;
    return made != NULL;
}

/* White space inside a pair of marks goes: "( a )" to "(a)". */
static bool tighten(char **text, char open, char close) {
    tm__string out = {0};
    const char *from = *text;
    bool ok = tm__string_append(&out, "", 0);
    for (;;) {
        const char *begin = strchr(from, open), *end = begin ? strchr(begin + 1, close) : NULL;
        if (!ok || !end) break;
        char *inside = tm__strndup(begin + 1, (size_t)(end - begin) - 1);
        size_t len = 0;
        const char *kept = inside ? tm__py_strip(inside, &len) : "";
        ok = inside && tm__string_append(&out, from, (size_t)(begin - from) + 1) &&
             tm__string_append(&out, kept, len) && tm__string_append(&out, end, 1);
        free(inside);
        from = end + 1;
    }
    ok = ok && tm__string_append(&out, from, strlen(from));
    if (!ok) tm__string_free(&out);
    free(*text);
    *text = out.data;
    return ok;
}

/* The harness means to join an apostrophe and a digit here, and writes the pattern itself into the text. */
static bool apostrophe_digits(char **text) {
    for (char digit = '0'; digit <= '9'; digit++) {
        const char what[] = {'/', '\'', ' ', digit, '/', 0};
        if (!replace(text, what, "/'[0-9]/")) return false;
    }
    return true;
}

/* NULL: out of memory. */
static char *detokenize(const char *page) {
    static const char *const first[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}, {" : ", ": "}, {" ; ", "; "},
                                           {" . ", ". "},  {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
    static const char *const last[][2] = {
        {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xc2\xb0 ", "\xc2\xb0"},
        {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
    char *text = tm__py_replace(page, "s '", "s'");
    bool ok = text && apostrophe_digits(&text);
    for (size_t i = 0; ok && i < TM__COUNT(first); i++) ok = replace(&text, first[i][0], first[i][1]);
    ok = ok && tighten(&text, '(', ')') && tighten(&text, '[', ']') && tighten(&text, '{', '}') &&
         tighten(&text, '"', '"') && tighten(&text, '\'', '\'');
    for (size_t i = 0; ok && i < TM__COUNT(last); i++) ok = replace(&text, last[i][0], last[i][1]);
    return text;
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static tm_status add_text(tm_evaluation *e, size_t row, const char *group, const char *text) {
    bool wikitext = e->suite->calls->own != NULL;
    char *plain = wikitext ? detokenize(text) : NULL;
    if (wikitext && !plain) return tm__fail_memory();
    tm__item *item = tm__item_add(e, (int64_t)row);
    const char *kept = item ? tm__keep(e, "%s", plain ? plain : text) : NULL;
    free(plain);
    if (!kept) return tm__fail_memory();
    item->text = kept;
    item->group = group;
    item->scores[SCORE_WORDS] = (double)tm__py_words(text);
    item->scores[SCORE_BYTES] = (double)strlen(text);
    return TM_OK;
}

static bool plain_text(const char *path) {
    size_t len = strlen(path);
    return !(len >= 5 && strcmp(path + len - 5, ".json") == 0) && !(len >= 6 && strcmp(path + len - 6, ".jsonl") == 0);
}

static tm_status add_file(tm_evaluation *e, const char *path, const char *group) {
    char *text;
    size_t len;
    TM__TRY(tm__file_read(path, 0, &text, &len));
    tm_status status = TM_OK;
    if (!tm__utf8_valid(text, len) || strlen(text) != len)
        status = tm__fail(TM_FORMAT, path, NULL, "save it as UTF-8", "is not UTF-8 text");
    else if (len == 0)
        status = tm__fail(TM_FORMAT, path, NULL, NULL, "is empty");
    if (status == TM_OK) status = add_text(e, e->count, group, text);
    free(text);
    return status;
}

static tm_status add_rows(tm_evaluation *e) {
    tm__rows rows;
    TM__TRY(tm__rows_read(e->path, NULL, &rows));
    const char *text, *column = tm__rows_have(&rows, 0, "page") ? "page" : "text";
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < rows.count && !tm__item_enough(e, (int64_t)i); i++) {
        status = tm__rows_text(&rows, i, column, &text);
        if (status == TM_OK) status = add_text(e, i, NULL, text);
    }
    tm__rows_free(&rows);
    return status;
}

static tm_status add_named(void *user, const char *name, const char *path) {
    tm_evaluation *e = user;
    size_t len = strlen(name);
    if (len < 4 || strcmp(name + len - 4, ".txt") != 0 || tm__item_enough(e, (int64_t)e->count)) return TM_OK;
    const char *group = tm__keep(e, "%s", name);
    return group ? add_file(e, path, group) : tm__fail_memory();
}

static tm_status prepare(tm_evaluation *e) {
    bool plain = plain_text(e->path);
    e->layout = tm__path_is_directory(e->path) ? "a directory of text files" : plain ? "one text" : "rows";
    if (tm__path_is_directory(e->path)) return tm__place_list(e->path, add_named, e);
    return plain ? add_file(e, e->path, NULL) : add_rows(e);
}

static tm_status score(tm_evaluation *e, tm__item *item) {
    (void)e;
    item->scores[SCORE_LL] = item->ll;
    item->scores[SCORE_TOKENS] = (double)item->tokens;
    return TM_OK;
}

static const char *const names[] = {"log_likelihood", "tokens", "words", "bytes", NULL};
static const tm__measure measures[] = {
    {.name = "token_perplexity", .kind = TM__MEASURE_PERPLEXITY, .score = SCORE_LL, .over = SCORE_TOKENS},
    {.name = "word_perplexity", .kind = TM__MEASURE_PERPLEXITY, .score = SCORE_LL, .over = SCORE_WORDS},
    {.name = "byte_perplexity", .kind = TM__MEASURE_PERPLEXITY, .score = SCORE_LL, .over = SCORE_BYTES},
    {.name = "bits_per_byte", .kind = TM__MEASURE_BITS, .score = SCORE_LL, .over = SCORE_BYTES},
    {0},
};
static const struct tm__suite_calls calls = {prepare, score, names, measures, NULL, false};
static const struct tm__suite_calls wikitext_calls = {prepare, score, names, measures, "wikitext", false};

const tm_suite tm__suite_perplexity = {
    .name = "perplexity",
    .kind = TM_SUITE_TEXTS,
    .measures = "likelihood of texts, per token, word and byte",
    .layout = "a text file (one text), a directory of .txt files (one text each), or rows with text or page",
    .folders = "perplexity|texts",
    .numbers = "token_perplexity, word_perplexity, byte_perplexity, bits_per_byte",
    .compare = "token_perplexity: models of the same tokenizer alone; the others: any model, same texts and window",
    .calls = &calls,
};

const tm_suite tm__suite_wikitext = {
    .name = "wikitext",
    .kind = TM_SUITE_TEXTS,
    .measures = "likelihood of Wikipedia pages, punctuation put back as it was",
    .layout = "rows with page (EleutherAI/wikitext_document_level as JSON Lines), or a text file as one page",
    .folders = "wikitext|wikitext-2-raw-v1",
    .files = "test.jsonl|wiki.test.raw",
    .numbers = "token_perplexity, word_perplexity, byte_perplexity, bits_per_byte",
    .compare = "word_perplexity: lm-evaluation-harness 0.4 (wikitext), pages as rows",
    .calls = &wikitext_calls,
};
