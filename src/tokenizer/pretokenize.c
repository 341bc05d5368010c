/* pretokenize.c: cuts text into the words that the model encodes one by one.
 *
 * A step sees each word of the step before as a text of its own. What a step does with the matches of its pattern
 * follows the reference's SplitDelimiterBehavior; words that come out empty are dropped. Words are spans of one buffer:
 * only steps that change characters (Metaspace, a prefix space) copy the text.
 */
#include "tokenizer/tokenizer.h"

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
    size_t previous = 0, start, end;
    bool found;
    tm__matches matches = {
        .regex = &step->regex, .data = scratch->match_data, .text = text + word.start, .len = word.len};
    for (;;) {
        TM__TRY(tm__regex_next(&matches, &found, &start, &end));
        if (!found) break;
        if (previous < start && !cut_at(cut, word.start + previous, word.start + start, false))
            return tm__fail_memory();
        if (!cut_at(cut, word.start + start, word.start + end, true)) return tm__fail_memory();
        previous = end;
    }
    if (previous < word.len && !cut_at(cut, word.start + previous, word.start + word.len, false))
        return tm__fail_memory();
    return TM_OK;
}

/* Every character of a class, or every mark of Metaspace, is a match of its own. */
static bool cut_by_character(const tm__step *step, const char *text, tm__span word, cutter *cut) {
    bool metaspace = step->kind == TM__SPLIT_METASPACE;
    uint32_t code;
    size_t previous = word.start, end = word.start + word.len, width;
    for (size_t i = word.start; i < end; i += width) {
        width = (size_t)tm__utf8_decode(text + i, end - i, &code);
        bool match = metaspace ? width == step->content_len && memcmp(text + i, step->content, width) == 0
                               : step->is_match(code);
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
        } else if (!cut_by_character(step, text, in->data[i], &cut)) {
            return tm__fail_memory();
        }
        if (!cut_end(&cut)) return tm__fail_memory();
    }
    return TM_OK;
}

/* ---- steps that change the text ---------------------------------------------------------------------------------- */

/* Metaspace: blanks become marks. */
static bool rewrite_word(const tm__step *step, size_t len, tm__edit *edit) {
    const char *word = edit->in.text + edit->at, *end = word + len;
    if (step->kind == TM__SPLIT_BYTE_LEVEL) return tm__edit_keep(edit, len);
    while (word < end) {
        const char *space = memchr(word, ' ', (size_t)(end - word));
        const char *stop = space ? space : end;
        if (!tm__edit_keep(edit, (size_t)(stop - word))) return false;
        if (space && !tm__edit_replace(edit, 1, step->content, step->content_len)) return false;
        word = space ? space + 1 : end;
    }
    return true;
}

static bool has_prefix(const tm__step *step, const char *word, size_t len) {
    if (len && *word == ' ') return true; /* Metaspace has replaced it by its mark when it looks */
    return step->kind == TM__SPLIT_METASPACE && len >= step->content_len &&
           memcmp(word, step->content, step->content_len) == 0;
}

static bool wants_prefix(const tm__step *step, const tm__view *view, const tm__span *word) {
    if (step->prepend == TM__PREPEND_NEVER || word->len == 0) return false;
    if (step->prepend == TM__PREPEND_FIRST && tm__view_slice(view, word->start, word->len).origin != 0) return false;
    return !has_prefix(step, view->text + word->start, word->len);
}

/* Copies the words with their spaces replaced and a prefix where the step wants one; spans follow. */
static tm_status rewrite_words(const tm__step *step, tm__spans *words, bool track, bool prefix, tm__text *to,
                               tm__view *view) {
    const char *mark = step->kind == TM__SPLIT_METASPACE ? step->content : " ";
    tm__edit edit;
    if (!tm__edit_begin(&edit, view, track, SIZE_MAX, to)) return tm__fail_memory();
    for (size_t i = 0; i < words->len; i++) {
        tm__span *word = &words->data[i];
        bool wanted = (prefix || i > 0 || word->start > 0) && wants_prefix(step, view, word);
        size_t start = to->bytes.len;
        tm__edit_drop(&edit, word->start - edit.at);
        if ((wanted && !tm__edit_prepend(&edit, mark, strlen(mark))) || !rewrite_word(step, word->len, &edit))
            return tm__edit_failure(&edit);
        *word = (tm__span){.start = start, .len = to->bytes.len - start};
    }
    *view = tm__edit_view(&edit);
    return TM_OK;
}

/* Bytes as letters of GPT-2's alphabet. */
static tm_status spell_bytes(tm__spans *words, bool track, tm__text *to, tm__view *view) {
    tm__edit edit;
    if (!tm__edit_begin(&edit, view, track, SIZE_MAX, to)) return tm__fail_memory();
    for (size_t i = 0; i < words->len; i++) {
        tm__span *word = &words->data[i];
        size_t start = to->bytes.len;
        tm__edit_drop(&edit, word->start - edit.at);
        if (!tm__edit_spell_bytes(&edit, word->len)) return tm__edit_failure(&edit);
        *word = (tm__span){.start = start, .len = to->bytes.len - start};
    }
    *view = tm__edit_view(&edit);
    return TM_OK;
}

static bool cuts(const tm__step *step) {
    if (step->kind == TM__SPLIT_METASPACE) return step->split;
    return step->regex.code || step->kind != TM__SPLIT_BYTE_LEVEL;
}

tm_status tm__pretokenize(const tm_tokenizer *tok, tm__scratch *scratch, bool track, bool prefix, tm__view *view) {
    size_t rewritten = 0;
    scratch->spans[0].len = 0;
    if (view->len && !push(&scratch->spans[0], 0, view->len)) return tm__fail_memory();
    for (size_t i = 0; i < tok->splitters.len; i++) {
        const tm__step *step = &tok->splitters.data[i];
        tm__spans *words = &scratch->spans[0];
        if (step->kind == TM__SPLIT_METASPACE || step->prepend != TM__PREPEND_NEVER)
            TM__TRY(rewrite_words(step, words, track, prefix, &scratch->split[rewritten++ % 2], view));
        if (cuts(step)) {
            scratch->spans[1].len = 0;
            TM__TRY(cut_words(step, scratch, view->text, words, &scratch->spans[1]));
            tm__spans swap = scratch->spans[0];
            scratch->spans[0] = scratch->spans[1];
            scratch->spans[1] = swap;
        }
        if (step->kind == TM__SPLIT_BYTE_LEVEL && step->split)
            TM__TRY(spell_bytes(words, track, &scratch->split[rewritten++ % 2], view));
    }
    return TM_OK;
}
