/* align.c: texts on their way through the pipeline, and which bytes of the original each of their bytes came from.
 *
 * The rules are those of NormalizedString in Hugging Face's `tokenizers`: a character that replaces another comes from
 * where that one came from; an inserted one from where the character before it came from, and at the very beginning
 * from nowhere (an empty range at the start of the part). Without tracking the same edits only write text. Pinned by
 * tests/golden/test_tokenizers.c against offsets that `tokenizers` gave.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static size_t character_start(const char *text, size_t at) {
    while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80) at--;
    return at;
}

static size_t character_end(const char *text, size_t len, size_t at) {
    do at++;
    while (at < len && ((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

tm__range tm__view_range(const tm__view *view, size_t start, size_t end) {
    if (start >= end || end > view->len) /* as the reference: not moved */
        return (tm__range){(uint32_t)start + (start == end ? view->origin : 0),
                           (uint32_t)end + (start == end ? view->origin : 0)};
    if (view->from) return (tm__range){view->from[start].start, view->from[end - 1].end};
    return (tm__range){view->origin + (uint32_t)character_start(view->text, start),
                       view->origin + (uint32_t)character_end(view->text, view->len, end - 1)};
}

tm__view tm__view_slice(const tm__view *view, size_t start, size_t len) {
    tm__view slice = {.text = view->text + start, .len = len, .origin = view->origin + (uint32_t)start};
    if (view->from) {
        slice.from = view->from + start;
        slice.origin = len ? view->from[start].start : view->origin;
    }
    return slice;
}

void tm__text_free(tm__text *text) {
    tm__string_free(&text->bytes);
    free(text->from);
    *text = (tm__text){0};
}

/* ---- edits ------------------------------------------------------------------------------------------------------- */

bool tm__edit_begin(tm__edit *edit, const tm__view *in, bool track, size_t limit, tm__text *out) {
    *edit = (tm__edit){.in = *in, .track = track, .limit = limit, .out = out};
    out->bytes.len = 0;
    return tm__string_append(&out->bytes, "", 0);
}

tm__view tm__edit_view(const tm__edit *edit) {
    const tm__text *out = edit->out;
    return (tm__view){.text = out->bytes.data,
                      .len = out->bytes.len,
                      .from = edit->track ? out->from : NULL,
                      .origin = edit->in.origin};
}

tm_status tm__edit_failure(const tm__edit *edit) {
    if (!edit->over) return tm__fail_memory();
    return tm__fail(TM_FORMAT, NULL, "normalizer", "the tokenizer's normalizer is damaged",
                    "makes a text more than 64 times as long");
}

/* Room for the sources of `len` more bytes; they follow the bytes that are there. */
static tm__range *room(tm__edit *edit, size_t len) {
    tm__text *out = edit->out;
    if (!tm__grow((void **)&out->from, &out->from_cap, out->bytes.len + len + 1, sizeof *out->from)) return NULL;
    return out->from + out->bytes.len;
}

bool tm__edit_put(tm__edit *edit, const char *bytes, size_t len, tm__range source) {
    if (edit->out->bytes.len > edit->limit || len > edit->limit - edit->out->bytes.len) {
        edit->over = true;
        return false;
    }
    if (edit->track) {
        tm__range *from = room(edit, len);
        if (!from) return false;
        for (size_t i = 0; i < len; i++) from[i] = source;
    }
    return tm__string_append(&edit->out->bytes, bytes, len);
}

bool tm__edit_keep(tm__edit *edit, size_t len) {
    const char *text = edit->in.text + edit->at;
    if (edit->track) {
        tm__range *from = room(edit, len);
        if (!from) return false;
        if (edit->in.from && len) {
            memcpy(from, edit->in.from + edit->at, len * sizeof *from);
        } else {
            for (size_t i = 0; i < len;) {
                tm__range source = tm__view_range(&edit->in, edit->at + i, edit->at + i + 1);
                size_t end = TM__MIN(len, (size_t)(source.end - edit->in.origin) - edit->at);
                while (i < end) from[i++] = source;
            }
        }
    }
    edit->at += len;
    return tm__string_append(&edit->out->bytes, text, len);
}

void tm__edit_drop(tm__edit *edit, size_t len) {
    edit->at += len;
}

bool tm__edit_insert(tm__edit *edit, const char *bytes, size_t len) {
    tm__range source = {edit->in.origin, edit->in.origin};
    if (edit->at > 0 && edit->track) source = tm__view_range(&edit->in, edit->at - 1, edit->at);
    return tm__edit_put(edit, bytes, len, source);
}

bool tm__edit_replace(tm__edit *edit, size_t width, const char *bytes, size_t len) {
    tm__range source = {0, 0};
    if (edit->track && width) source = tm__view_range(&edit->in, edit->at, edit->at + width);
    edit->at += width;
    return tm__edit_put(edit, bytes, len, source);
}

bool tm__edit_prepend(tm__edit *edit, const char *bytes, size_t len) {
    tm__range source = {edit->in.origin, edit->in.origin};
    if (edit->track && edit->at < edit->in.len) source = tm__view_range(&edit->in, edit->at, edit->at + 1);
    return tm__edit_put(edit, bytes, len, source);
}

bool tm__edit_character(tm__edit *edit, uint32_t code, int change) {
    char utf8[4];
    size_t len = (size_t)tm__utf8_encode(code, utf8);
    if (change > 0) return tm__edit_insert(edit, utf8, len);
    if (edit->at >= edit->in.len) return tm__edit_put(edit, utf8, len, (tm__range){edit->in.origin, edit->in.origin});
    size_t end = character_end(edit->in.text, edit->in.len, edit->at);
    bool ok = tm__edit_replace(edit, end - edit->at, utf8, len);
    for (; change < 0 && edit->at < edit->in.len; change++)
        edit->at = character_end(edit->in.text, edit->in.len, edit->at);
    return ok;
}
