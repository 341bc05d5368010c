/* spm_normalize.c: SentencePiece's normalizer, step for step as its normalizer.cc does it; the map is charsmap.c's. */
#include "tokenizer/tokenizer.h"

static const char space_mark[] = "\xe2\x96\x81";

/* Bytes of text consumed; what they become in *out. Never leaves a character cut in two: keys are whole characters. */
static size_t next_part(const tm__spm *spm, const char *text, size_t len, const char **out, size_t *out_len) {
    uint32_t code;
    int32_t value;
    size_t user = spm->user.nodes ? tm__trie_longest(&spm->user, text, len, &value) : 0;
    *out = text;
    if (user) return *out_len = user;
    size_t mapped = tm__charsmap_find(&spm->map, false, text, len, out);
    if (mapped) {
        *out_len = strlen(*out);
        return mapped;
    }
    *out = text;
    return *out_len = (size_t)tm__utf8_decode(text, len, &code);
}

/* `used` bytes of the text become the part. */
static bool put_part(const tm__spm *spm, tm__edit *edit, size_t used, const char *part, size_t len) {
    bool escape = spm->escape && memchr(part, ' ', len);
    if (part == edit->in.text + edit->at && used == len && !escape) return tm__edit_keep(edit, used);
    if (!escape) return tm__edit_replace(edit, used, part, len);
    tm__range source = {0, 0};
    if (edit->track) source = tm__view_range(&edit->in, edit->at, edit->at + used);
    tm__edit_drop(edit, used);
    for (size_t i = 0; i < len; i++) {
        bool mark = part[i] == ' ';
        if (!tm__edit_put(edit, mark ? space_mark : part + i, mark ? 3 : 1, source)) return false;
    }
    return true;
}

static void trim_end(const tm__spm *spm, tm__string *out) {
    const char *space = spm->escape ? space_mark : " ";
    size_t width = strlen(space);
    while (out->len >= width && memcmp(out->data + out->len - width, space, width) == 0) out->len -= width;
    out->data[out->len] = 0;
}

bool tm__spm_normalize(const tm__spm *spm, bool prefix, tm__edit *edit) {
    const char *text = edit->in.text, *part, *mark = spm->escape ? space_mark : " ";
    size_t len = edit->in.len, part_len;
    while (spm->remove_extra && prefix && edit->at < len) {
        size_t used = next_part(spm, text + edit->at, len - edit->at, &part, &part_len);
        if (part_len != 1 || *part != ' ') break;
        tm__edit_drop(edit, used);
    }
    if (edit->at == len) return true;
    bool dummy = spm->dummy_prefix && prefix;
    if (dummy && !spm->suffix && !tm__edit_prepend(edit, mark, strlen(mark))) return false;
    bool after_space = spm->remove_extra && prefix;
    while (edit->at < len) {
        size_t used = next_part(spm, text + edit->at, len - edit->at, &part, &part_len);
        bool any = false;
        while (after_space && part_len && *part == ' ') part++, part_len--;
        if (part_len) {
            any = true;
            after_space = part[part_len - 1] == ' ';
            if (!put_part(spm, edit, used, part, part_len)) return false;
        }
        if (!any) tm__edit_drop(edit, used);
        if (!spm->remove_extra) after_space = false;
    }
    if (spm->remove_extra) trim_end(spm, &edit->out->bytes);
    return !(dummy && spm->suffix) || tm__edit_insert(edit, mark, strlen(mark));
}
