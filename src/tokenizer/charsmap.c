/* charsmap.c: SentencePiece's precompiled character map.
 *
 * It is a Darts double array whose values are offsets into a list of NUL-terminated replacements. A unit of the array
 * holds a label (bits 0-7), whether a leaf hangs off it (bit 8) and the offset to its children (bits 10-30, times 256
 * if bit 9 is set); a leaf's value is its lower 31 bits. Every index is checked: the array comes from a file.
 * SentencePiece replaces the longest match at each position. The normalizer "Precompiled" of `tokenizers` asks for
 * whole grapheme clusters of less than 6 bytes first, then for single characters, and takes the shortest entry that
 * one begins with for the whole of it; so it is done here for a tokenizer.json. Its alignment is that of 0.23
 * (tests/golden/test_tokenizers.c).
 */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

enum { LONGEST_CLUSTER = 5 };

/* The map in bytes: size of the double array, the array, the replacements. Copied: the file's bytes are unaligned. */
tm_status tm__charsmap_load(tm__charsmap *map, tm_tokenizer *tok, const char *data, size_t len, const char *file,
                            const char *field) {
    uint32_t bytes = 0;
    if (len == 0) return TM_OK;
    if (len < 4) return tm__fail(TM_FORMAT, file, field, NULL, "is cut off");
    for (int i = 0; i < 4; i++) bytes |= (uint32_t)(uint8_t)data[i] << (8 * i);
    size_t left = len - 4;
    if (bytes % 4 || bytes > left) return tm__fail(TM_FORMAT, file, field, NULL, "size does not fit");
    const char *text = data + 4 + bytes;
    size_t text_len = left - bytes;
    if (!tm__utf8_valid(text, text_len) || (text_len && text[text_len - 1] != 0))
        return tm__fail(TM_FORMAT, file, field, NULL, "replacements are not UTF-8 texts");
    char *copy = tm__arena_alloc(&tok->vocab.strings, left + 1, 1);
    if (!copy) return tm__fail_memory();
    memcpy(copy, data + 4, left);
    *map = (tm__charsmap){.trie = (const uint32_t *)(const void *)copy,
                          .trie_len = bytes / 4,
                          .replacements = copy + bytes,
                          .replacements_len = text_len};
    return TM_OK;
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

size_t tm__charsmap_find(const tm__charsmap *map, bool shortest, const char *text, size_t len,
                         const char **replacement) {
    size_t found = 0, at;
    if (!map->trie || map->trie_len == 0) return 0;
    at = offset_of(map->trie[0]);
    for (size_t i = 0; i < len && !(shortest && found); i++) {
        uint8_t byte = (uint8_t)text[i];
        at ^= byte;
        if (at >= map->trie_len) break;
        uint32_t unit = map->trie[at];
        if ((unit & (1u << 31 | 0xff)) != byte) break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= map->trie_len) break;
        uint32_t value = map->trie[at] & 0x7fffffffu;
        if (value >= map->replacements_len) break;
        found = i + 1;
        *replacement = map->replacements + value;
    }
    return found;
}

static size_t characters(const char *text, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) n += ((uint8_t)text[i] & 0xc0) != 0x80;
    return n;
}

/* Characters on their way into an edit, the last one held back: what is taken away behind it changes its alignment. */
typedef struct writer {
    tm__edit *edit;
    uint32_t code;
    int change; /* as tm__edit_character has it */
    bool holds;
} writer;

static bool flush(writer *w) {
    bool ok = !w->holds || tm__edit_character(w->edit, w->code, w->change);
    w->holds = false;
    return ok;
}

static bool put(writer *w, uint32_t code, int change) {
    if (!flush(w)) return false;
    *w = (writer){.edit = w->edit, .code = code, .change = change, .holds = true};
    return true;
}

/* `text` for old_count characters: added ones are the last, and go with what stands before them; removed ones go with
 * the last character written, which may stand before `text`. Before the first one nothing is accounted for. */
static bool put_mapped(writer *w, int old_count, const char *text) {
    size_t len = strlen(text);
    int more = (int)characters(text, len) - old_count, left = more + old_count;
    for (size_t i = 0; i < len; left--) {
        uint32_t code;
        i += (size_t)tm__utf8_decode(text + i, len - i, &code);
        if (!put(w, code, left <= more)) return false;
    }
    if (more < 0) w->change += more;
    return true;
}

static size_t cluster_end(const char *text, size_t len, size_t from) {
    utf8proc_int32_t state = 0;
    uint32_t left, right;
    size_t at = from + (size_t)tm__utf8_decode(text + from, len - from, &left);
    while (at < len) {
        size_t width = (size_t)tm__utf8_decode(text + at, len - at, &right);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)left, (utf8proc_int32_t)right, &state)) break;
        left = right;
        at += width;
    }
    return at;
}

bool tm__charsmap_edit(const tm__charsmap *map, tm__edit *edit) {
    const char *text = edit->in.text, *mapped;
    size_t len = edit->in.len;
    writer w = {.edit = edit};
    for (size_t i = 0, end; i < len; i = end) {
        end = cluster_end(text, len, i);
        if (end - i <= LONGEST_CLUSTER && tm__charsmap_find(map, true, text + i, end - i, &mapped)) {
            if (!put_mapped(&w, (int)characters(text + i, end - i), mapped)) return false;
            continue;
        }
        for (size_t k = i, width; k < end; k += width) {
            uint32_t code;
            width = (size_t)tm__utf8_decode(text + k, end - k, &code);
            bool found = tm__charsmap_find(map, true, text + k, width, &mapped) > 0;
            if (!(found ? put_mapped(&w, 1, mapped) : put(&w, code, 0))) return false;
        }
    }
    return flush(&w);
}
