/* normalize.c: UTF-8 clean-up and the normalizers of a pipeline, as the reference's of the same names do it. */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

static const char replacement_character[] = "\xef\xbf\xbd";

/* Length of the longest beginning of a valid sequence at text, at least 1 (Unicode 3.9, "maximal subpart"). */
static size_t invalid_part(const char *text, size_t len) {
    const uint8_t *s = (const uint8_t *)text;
    size_t want = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc2 ? 2 : 1;
    if (s[0] >= 0xf5 || s[0] < 0xc2 || len < 2 || want < 2) return 1;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 1;
    size_t n = 2;
    while (n < want && n < len && (s[n] & 0xc0) == 0x80) n++;
    return n;
}

bool tm__utf8_clean_edit(tm__edit *edit, bool per_byte) {
    const char *text = edit->in.text;
    size_t len = edit->in.len;
    uint32_t code;
    for (size_t i = 0; i < len;) {
        int width = tm__utf8_decode(text + i, len - i, &code);
        if (width > 0) {
            i += (size_t)width;
            continue;
        }
        size_t bad = per_byte ? 1 : invalid_part(text + i, len - i);
        if (!tm__edit_keep(edit, i - edit->at) || !tm__edit_replace(edit, bad, replacement_character, 3)) return false;
        i += bad;
    }
    return tm__edit_keep(edit, len - edit->at);
}

bool tm__utf8_clean(const char *text, size_t len, bool per_byte, tm__string *out) {
    tm__view view = {.text = text, .len = len};
    tm__text into = {.bytes = *out};
    size_t before = out->len;
    if (!tm__string_append(&into.bytes, "", 0)) return false;
    tm__edit edit = {.in = view, .out = &into, .limit = SIZE_MAX};
    bool ok = tm__utf8_clean_edit(&edit, per_byte);
    *out = into.bytes;
    if (!ok) out->len = before;
    return ok;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Character by character, as the reference: no final sigma. */
static bool lowercase(tm__edit *edit) {
    const char *text = edit->in.text;
    size_t len = edit->in.len;
    for (size_t i = 0, width; i < len; i += width) {
        uint32_t code, lower;
        width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        lower = code == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
        if (lower == code) continue;
        if (!tm__edit_keep(edit, i - edit->at) || !tm__edit_character(edit, lower, 0)) return false;
        /* the one letter whose lower case is two */
        if (code == 0x130 && !tm__edit_character(edit, 0x307, 1)) return false;
    }
    return tm__edit_keep(edit, len - edit->at);
}

static bool map_characters(const tm__step *step, tm__edit *edit) {
    const char *text = edit->in.text;
    size_t len = edit->in.len;
    for (size_t i = 0, width; i < len; i += width) {
        uint32_t code;
        width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        uint32_t mapped = step->map_character(code);
        if (mapped == code) continue;
        if (!tm__edit_keep(edit, i - edit->at)) return false;
        if (mapped == TM__DROP)
            tm__edit_drop(edit, width);
        else if (!tm__edit_character(edit, mapped, 0))
            return false;
    }
    return tm__edit_keep(edit, len - edit->at);
}

/* A blank before and after every ideograph; both belong to it. */
static bool space_ideographs(tm__edit *edit) {
    const char *text = edit->in.text;
    size_t len = edit->in.len;
    for (size_t i = 0, width; i < len; i += width) {
        uint32_t code;
        width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        if (!tm__is_ideograph(code)) continue;
        if (!tm__edit_keep(edit, i - edit->at) || !tm__edit_prepend(edit, " ", 1) || !tm__edit_keep(edit, width) ||
            !tm__edit_insert(edit, " ", 1))
            return false;
    }
    return tm__edit_keep(edit, len - edit->at);
}

bool tm__edit_spell_bytes(tm__edit *edit, size_t len) {
    char letter[4];
    for (; len > 0; len--) {
        int width = tm__utf8_encode(tm__code_of_byte((uint8_t)edit->in.text[edit->at]), letter);
        if (!tm__edit_replace(edit, 1, letter, (size_t)width)) return false;
    }
    return true;
}

/* No published normalizer makes a text 20 times as long; a few replacements in a row could fill any memory. */
static size_t most_bytes(size_t len) {
    return len > (SIZE_MAX >> 7) ? SIZE_MAX : 64 * len + 65536;
}

static bool replace_literal(const tm__step *step, tm__edit *edit) {
    const char *end = edit->in.text + edit->in.len, *at, *hit;
    for (at = edit->in.text; (hit = memmem(at, (size_t)(end - at), step->literal, step->literal_len));) {
        if (!tm__edit_keep(edit, (size_t)(hit - at))) return false;
        tm__edit_drop(edit, step->literal_len);
        if (!tm__edit_insert(edit, step->content, step->content_len)) return false;
        at = hit + step->literal_len;
    }
    return tm__edit_keep(edit, (size_t)(end - at));
}

static tm_status replace(const tm__step *step, tm__scratch *scratch, tm__edit *edit) {
    size_t start, end;
    bool found;
    tm__matches matches = {
        .regex = &step->regex, .data = scratch->match_data, .text = edit->in.text, .len = edit->in.len};
    if (step->literal_len) return replace_literal(step, edit) ? TM_OK : tm__edit_failure(edit);
    while (edit->in.len) {
        TM__TRY(tm__regex_next(&matches, &found, &start, &end));
        if (!found) break;
        if (!tm__edit_keep(edit, start - edit->at)) return tm__edit_failure(edit);
        tm__edit_drop(edit, end - start);
        if (!tm__edit_insert(edit, step->content, step->content_len)) return tm__edit_failure(edit);
    }
    return tm__edit_keep(edit, edit->in.len - edit->at) ? TM_OK : tm__edit_failure(edit);
}

static bool strip(const tm__step *step, tm__edit *edit) {
    const char *text = edit->in.text;
    size_t len = edit->in.len, start = 0, end = 0;
    bool leading = step->start != 0;
    uint32_t code;
    if (!step->stop) end = len;
    for (size_t i = 0; i < len;) {
        size_t width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        bool space = tm__is_space(code);
        leading = leading && space;
        i += width;
        if (leading) start = i;
        if (!space) end = TM__MAX(end, i);
    }
    tm__edit_drop(edit, start);
    return end <= start || tm__edit_keep(edit, end - start);
}

static tm_status run_step(const tm_tokenizer *tok, const tm__step *step, tm__scratch *scratch, bool prefix,
                          tm__edit *edit) {
    bool ok;
    switch (step->kind) {
    case TM__NORM_UNICODE:
        return tm__unicode_form(scratch, step->options, edit);
    case TM__NORM_REPLACE:
        return replace(step, scratch, edit);
    case TM__NORM_LOWERCASE:
        ok = lowercase(edit);
        break;
    case TM__NORM_STRIP:
        ok = strip(step, edit);
        break;
    case TM__NORM_PREPEND:
        ok = (edit->in.len == 0 || !prefix || tm__edit_prepend(edit, step->content, step->content_len)) &&
             tm__edit_keep(edit, edit->in.len);
        break;
    case TM__NORM_MAP:
        ok = map_characters(step, edit);
        break;
    case TM__NORM_CHINESE:
        ok = space_ideographs(edit);
        break;
    case TM__NORM_CHARSMAP:
        ok = tm__charsmap_edit(step->map, edit);
        break;
    case TM__NORM_BYTE_LEVEL:
        ok = tm__edit_spell_bytes(edit, edit->in.len);
        break;
    default:
        assert(step->kind == TM__NORM_SENTENCEPIECE);
        ok = tm__spm_normalize(&tok->spm, prefix, edit);
    }
    return ok ? TM_OK : tm__edit_failure(edit);
}

tm_status tm__normalize(const tm_tokenizer *tok, tm__scratch *scratch, bool track, bool prefix, tm__view *view) {
    size_t limit = most_bytes(view->len);
    for (size_t i = 0; i < tok->normalizers.len; i++) {
        tm__edit edit;
        if (!tm__edit_begin(&edit, view, track, limit, &scratch->normal[i % 2])) return tm__fail_memory();
        TM__TRY(run_step(tok, &tok->normalizers.data[i], scratch, prefix, &edit));
        *view = tm__edit_view(&edit);
    }
    return TM_OK;
}
