/* pretokenize.c: cuts text into the words that the model encodes one by one.
 *
 * A step sees each word of the step before as a text of its own. What a step does with the matches of its pattern
 * follows the reference's SplitDelimiterBehavior; words that come out empty are dropped. Words are spans of one buffer:
 * only steps that change characters (Metaspace, a prefix space) copy the text.
 */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

const char tm__pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char tm__pattern_qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
    "|\\s+(?!\\S)|\\s+";
const char tm__pattern_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                                  "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
                                  "|\\s+(?!\\S)|\\s+";

/* Turns matches and the text between them, in order, into words. */
typedef struct cutter {
    tm__spans *out;
    size_t first; /* words of this text begin here in out */
    tm__behavior behavior;
    bool invert, previous_match, waiting;
    tm__span pending; /* MERGED_NEXT: a match that waits for what follows */
} cutter;

static bool push(tm__spans *out, size_t start, size_t end) {
    if (out->len == out->cap && !tm__grow((void **)&out->data, &out->cap, out->len + 1, sizeof *out->data))
        return false;
    out->data[out->len++] = (tm__span){.start = start, .len = end - start};
    return true;
}

static void widen(tm__spans *out, size_t end) {
    tm__span *last = &out->data[out->len - 1];
    last->len = end - last->start;
}

static bool cut_next(cutter *cut, size_t start, size_t end, bool match) {
    if (match) {
        bool ok = !cut->waiting || push(cut->out, cut->pending.start, cut->pending.start + cut->pending.len);
        cut->pending = (tm__span){.start = start, .len = end - start};
        cut->waiting = true;
        return ok;
    }
    if (cut->waiting) start = cut->pending.start;
    cut->waiting = false;
    return push(cut->out, start, end);
}

static bool cut_at(cutter *cut, size_t start, size_t end, bool match) {
    bool any = cut->out->len > cut->first, previous = cut->previous_match;
    match = match != cut->invert;
    cut->previous_match = match;
    switch (cut->behavior) {
    case TM__BEHAVIOR_REMOVED:
        return match || push(cut->out, start, end);
    case TM__BEHAVIOR_CONTIGUOUS:
        if (!any || previous != match) return push(cut->out, start, end);
        widen(cut->out, end);
        return true;
    case TM__BEHAVIOR_MERGED_PREVIOUS:
        if (!any || !match || previous) return push(cut->out, start, end);
        widen(cut->out, end);
        return true;
    case TM__BEHAVIOR_MERGED_NEXT:
        return cut_next(cut, start, end, match);
    default:
        return push(cut->out, start, end);
    }
}

static bool cut_end(cutter *cut) {
    tm__spans *out = cut->out;
    if (cut->waiting && !push(out, cut->pending.start, cut->pending.start + cut->pending.len)) return false;
    size_t kept = cut->first;
    for (size_t i = cut->first; i < out->len; i++)
        if (out->data[i].len) out->data[kept++] = out->data[i];
    out->len = kept;
    return true;
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

static tm_status cut_by_regex(const tm__step *step, tm__scratch *scratch, const char *text, tm__span word,
                              cutter *cut) {
    const char *at = text + word.start;
    size_t previous = 0, from = 0, start, end;
    bool found, after_match = false;
    while (from <= word.len) {
        TM__TRY(tm__regex_find(&step->regex, scratch->match_data, at, word.len, from, &found, &start, &end));
        if (!found) break;
        if (start == end && after_match && end == previous) { /* an empty match right after the last one is none */
            uint32_t code;
            after_match = false;
            from = end + (end < word.len ? (size_t)tm__utf8_decode(at + end, word.len - end, &code) : 1);
            continue;
        }
        if (previous < start && !cut_at(cut, word.start + previous, word.start + start, false))
            return tm__fail_memory();
        if (!cut_at(cut, word.start + start, word.start + end, true)) return tm__fail_memory();
        previous = from = end;
        after_match = true;
    }
    if (previous < word.len && !cut_at(cut, word.start + previous, word.start + word.len, false))
        return tm__fail_memory();
    return TM_OK;
}

static bool is_numeric(uint32_t code) {
    if (code < 0x80) return code >= '0' && code <= '9';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

/* Every digit (Digits), or every `mark` (Metaspace), is a match of its own. */
static bool cut_by_character(const char *text, tm__span word, const char *mark, size_t mark_len, cutter *cut) {
    uint32_t code;
    size_t previous = word.start, end = word.start + word.len, width;
    for (size_t i = word.start; i < end; i += width) {
        width = (size_t)tm__utf8_decode(text + i, end - i, &code);
        bool match = mark ? width == mark_len && memcmp(text + i, mark, width) == 0 : is_numeric(code);
        if (!match) continue;
        if (previous < i && !cut_at(cut, previous, i, false)) return false;
        if (!cut_at(cut, i, i + width, true)) return false;
        previous = i + width;
    }
    return previous >= end || cut_at(cut, previous, end, false);
}

static tm_status cut_words(const tm__step *step, tm__scratch *scratch, const char *text, const tm__spans *in,
                           tm__spans *out) {
    for (size_t i = 0; i < in->len; i++) {
        cutter cut = {.out = out, .first = out->len, .behavior = step->behavior, .invert = step->invert};
        if (step->regex.code) {
            TM__TRY(cut_by_regex(step, scratch, text, in->data[i], &cut));
        } else {
            const char *mark = step->kind == TM__SPLIT_METASPACE ? step->content : NULL;
            if (!cut_by_character(text, in->data[i], mark, step->content_len, &cut)) return tm__fail_memory();
        }
        if (!cut_end(&cut)) return tm__fail_memory();
    }
    return TM_OK;
}

/* ---- steps that change the text ---------------------------------------------------------------------------------- */

static bool append_word(const tm__step *step, const char *word, size_t len, tm__string *to) {
    if (step->kind == TM__SPLIT_BYTE_LEVEL) return tm__string_append(to, word, len);
    for (const char *end = word + len; word < end;) {
        const char *space = memchr(word, ' ', (size_t)(end - word));
        const char *stop = space ? space : end;
        if (!tm__string_append(to, word, (size_t)(stop - word))) return false;
        if (space && !tm__string_append(to, step->content, step->content_len)) return false;
        word = space ? space + 1 : end;
    }
    return true;
}

static bool has_prefix(const tm__step *step, const char *word, size_t len) {
    if (len && *word == ' ') return true; /* Metaspace has replaced it by its mark when it looks */
    return step->kind == TM__SPLIT_METASPACE && len >= step->content_len &&
           memcmp(word, step->content, step->content_len) == 0;
}

/* Copies the words with their spaces replaced and a prefix where the step wants one; spans stay in place. */
static bool rewrite_words(const tm__step *step, const char *text, tm__spans *words, bool prefix, bool first,
                          tm__string *to) {
    const char *mark = step->kind == TM__SPLIT_METASPACE ? step->content : " ";
    to->len = 0;
    for (size_t i = 0; i < words->len; i++) {
        tm__span *word = &words->data[i];
        const char *at = text + word->start;
        bool at_start = i == 0 && word->start == 0;
        bool wanted = step->prepend == TM__PREPEND_ALWAYS || (step->prepend == TM__PREPEND_FIRST && at_start && first);
        size_t start = to->len;
        if (wanted && (prefix || !at_start) && !has_prefix(step, at, word->len) &&
            !tm__string_append(to, mark, strlen(mark)))
            return false;
        if (!append_word(step, at, word->len, to)) return false;
        *word = (tm__span){.start = start, .len = to->len - start};
    }
    return true;
}

tm_status tm__pretokenize(const tm_tokenizer *tok, tm__scratch *scratch, const char *text, size_t len, bool prefix,
                          bool first, const char **out) {
    size_t rewritten = 0;
    scratch->spans[0].len = 0;
    if (len && !push(&scratch->spans[0], 0, len)) return tm__fail_memory();
    for (size_t i = 0; i < tok->splitters.len; i++) {
        const tm__step *step = &tok->splitters.data[i];
        tm__spans *words = &scratch->spans[0];
        if (step->kind == TM__SPLIT_METASPACE || step->prepend != TM__PREPEND_NEVER) {
            tm__string *to = &scratch->split[rewritten++ % 2];
            if (!rewrite_words(step, text, words, prefix, first, to)) return tm__fail_memory();
            text = to->data;
        }
        bool cuts =
            step->regex.code || step->kind == TM__SPLIT_DIGITS || (step->kind == TM__SPLIT_METASPACE && step->split);
        if (!cuts) continue;
        scratch->spans[1].len = 0;
        TM__TRY(cut_words(step, scratch, text, words, &scratch->spans[1]));
        tm__spans swap = scratch->spans[0];
        scratch->spans[0] = scratch->spans[1];
        scratch->spans[1] = swap;
    }
    *out = text;
    return TM_OK;
}
