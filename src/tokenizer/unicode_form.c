/* unicode_form.c: Unicode normalization forms (UAX #15) that know where each character came from.
 *
 * Decomposition, ordering of marks and composition follow the standard; the data are utf8proc's. Each character carries
 * its change as in the reference (crate unicode_normalization_alignments): 0 for the first of a decomposition, 1 for
 * the others, and for a composed one the sum of its two parts less 1. Characters below U+0300 are in form NFC (its
 * quick check) and ASCII is in every form, which spares most text the work.
 */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

/* Decompositions fit into 18 characters (Unicode stability policy). */
enum { LONGEST_DECOMPOSITION = 32 };

typedef struct units {
    tm__scratch *scratch;
    size_t len, starter; /* marks after the last starter are not in order yet */
} units;

static uint8_t class_of(uint32_t code) {
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)code)->combining_class;
}

/* Marks are sorted by class; equal ones keep their order. */
static bool push(units *all, uint32_t code, int32_t change) {
    tm__scratch *scratch = all->scratch;
    if (!tm__grow((void **)&scratch->units, &scratch->units_cap, all->len + 1, sizeof *scratch->units)) return false;
    uint8_t class = class_of(code);
    size_t at = all->len++;
    if (class == 0) all->starter = all->len;
    for (; class && at > all->starter && scratch->units[at - 1].class > class; at--)
        scratch->units[at] = scratch->units[at - 1];
    scratch->units[at] = (tm__form_unit){.code = code, .change = change, .class = class};
    return true;
}

static bool decompose(units *all, uint32_t code, int options) {
    utf8proc_int32_t parts[LONGEST_DECOMPOSITION];
    int boundary = 0;
    int flags = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (options & UTF8PROC_COMPAT);
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code, parts, LONGEST_DECOMPOSITION,
                                                 (utf8proc_option_t)flags, &boundary);
    if (n < 1 || n > LONGEST_DECOMPOSITION) return push(all, code, 0);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        if (!push(all, (uint32_t)parts[i], i > 0)) return false;
    return true;
}

/* The character that two make, or 0. */
static uint32_t composed(uint32_t a, uint32_t b) {
    utf8proc_int32_t pair[3] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b, 0};
    bool hangul = (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176) ||
                  (a >= 0xac00 && a < 0xd7a4 && b > 0x11a7 && b < 0x11c3);
    if (!hangul && (utf8proc_get_property(pair[0])->comb_index == UINT16_MAX ||
                    utf8proc_get_property(pair[1])->comb_index == UINT16_MAX))
        return 0;
    return utf8proc_normalize_utf32(pair, 2, (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE)) == 1
               ? (uint32_t)pair[0]
               : 0;
}

/* Joins marks with the starter before them unless something of the same or a higher class stands between. */
static size_t compose(tm__form_unit *data, size_t n) {
    size_t kept = 0, starter = SIZE_MAX;
    int last = -1; /* class of the last character that stayed behind the starter; -1: none */
    for (size_t i = 0; i < n; i++) {
        tm__form_unit unit = data[i];
        uint32_t joined = 0;
        if (starter != SIZE_MAX && last < unit.class) joined = composed(data[starter].code, unit.code);
        if (joined) {
            data[starter].code = joined;
            data[starter].change += unit.change - 1;
            continue;
        }
        if (unit.class == 0) {
            starter = kept;
            last = -1;
        } else {
            last = unit.class;
        }
        data[kept++] = unit;
    }
    return kept;
}

static tm_status form_run(tm__scratch *scratch, int options, size_t end, tm__edit *edit) {
    units all = {.scratch = scratch};
    uint32_t code;
    for (size_t i = edit->at; i < end;) {
        i += (size_t)tm__utf8_decode(edit->in.text + i, end - i, &code);
        if (!decompose(&all, code, options)) return tm__fail_memory();
    }
    size_t n = options & UTF8PROC_COMPOSE ? compose(scratch->units, all.len) : all.len;
    for (size_t i = 0; i < n; i++)
        if (!tm__edit_character(edit, scratch->units[i].code, scratch->units[i].change)) return tm__edit_failure(edit);
    tm__edit_drop(edit, end - edit->at);
    return TM_OK;
}

tm_status tm__unicode_form(tm__scratch *scratch, int options, tm__edit *edit) {
    const char *text = edit->in.text;
    size_t len = edit->in.len, last = 0;
    bool nfc = options & UTF8PROC_COMPOSE && !(options & UTF8PROC_COMPAT);
    uint8_t limit = nfc ? 0xcc : 0x80; /* as a lead byte: 0xcc leads U+0300 */
    for (size_t i = 0; i < len;) {
        if ((uint8_t)text[i] < limit) {
            last = i++;
            while (i < len && ((uint8_t)text[i] & 0xc0) == 0x80) i++;
            continue;
        }
        size_t end = i;
        while (end < len && (uint8_t)text[end] >= 0x80 && ((uint8_t)text[end] >= limit || (text[end] & 0xc0) == 0x80))
            end++;
        /* the character before the run may join with its first mark */
        if (last < edit->at) last = edit->at;
        if (!tm__edit_keep(edit, last - edit->at)) return tm__edit_failure(edit);
        TM__TRY(form_run(scratch, options, end, edit));
        last = i = end;
    }
    return tm__edit_keep(edit, len - edit->at) ? TM_OK : tm__edit_failure(edit);
}
