/* added.c: added tokens: registering them and finding them in text.
 *
 * The leftmost match wins, of those the longest. Tokens with normalized = false are sought in the raw text, the others
 * in the normalized text, where their own normalized content stands. For untrusted text the special ones do not count.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

tm_status tm__added_put(tm_tokenizer *tok, const char *file, const char *text, size_t len, int32_t id,
                        const tm__added *flags) {
    if (len == 0) return tm__fail(TM_FORMAT, file, "added_tokens", NULL, "token %d is empty", (int)id);
    int32_t known = tm__vocab_id(&tok->vocab, text, len);
    if (known >= 0 && known != id)
        return tm__fail(TM_FORMAT, file, "added_tokens", NULL, "token \"%.*s\" has id %d here and %d in the vocabulary",
                        (int)TM__MIN(len, (size_t)40), text, (int)id, (int)known);
    if (known < 0) TM__TRY(tm__vocab_add(&tok->vocab, file, text, len, id, TM__PIECE_OUTSIDE));
    size_t at = 0;
    while (at < tok->added_len && tok->added[at].id != id) at++;
    if (at == tok->added_len) {
        if (!tm__grow((void **)&tok->added, &tok->added_cap, at + 1, sizeof *tok->added)) return tm__fail_memory();
        tok->added_len++;
    }
    tok->added[at] = *flags;
    tok->added[at].id = id;
    tok->vocab.pieces[id].flags |= TM__PIECE_ADDED | (flags->special ? TM__PIECE_SPECIAL : 0u);
    return TM_OK;
}

/* ---- tries ------------------------------------------------------------------------------------------------------- */

static tm_status add_to_tries(tm_tokenizer *tok, tm__scratch *scratch, size_t index) {
    const tm__added *added = &tok->added[index];
    tm__piece *piece = &tok->vocab.pieces[added->id];
    tm__trie *trie = added->normalized ? &tok->added_set.normalized : &tok->added_set.raw;
    tm__view view = {.text = piece->text, .len = piece->len};
    int32_t other;
    if (added->normalized && !(piece->flags & TM__PIECE_USER)) {
        TM__TRY(tm__normalize(tok, scratch, false, true, &view));
        piece->shown = tm__arena_strdup(&tok->vocab.strings, view.text, view.len);
        if (!piece->shown) return tm__fail_memory();
        piece->shown_len = (uint32_t)view.len;
        tok->shows_normalized |= view.len != piece->len || memcmp(view.text, piece->text, view.len) != 0;
    }
    /* of tokens that are normalized to the same text the first counts */
    if (view.len == 0 || tm__trie_longest(trie, view.text, view.len, &other) == view.len) return TM_OK;
    return tm__trie_add(trie, view.text, view.len, (int32_t)index) ? TM_OK : tm__fail_memory();
}

tm_status tm__added_build(tm_tokenizer *tok) {
    tm__scratch scratch = {.match_data = tm__regex_match_data()};
    tm_status status = scratch.match_data ? TM_OK : tm__fail_memory();
    for (int special = 1; special >= 0; special--) /* the reference lists special tokens first */
        for (size_t i = 0; i < tok->added_len && status == TM_OK; i++)
            if (tok->added[i].special == special) status = add_to_tries(tok, &scratch, i);
    for (int i = 0; i < 2; i++) tm__text_free(&scratch.normal[i]);
    free(scratch.units);
    tm__regex_match_data_free(scratch.match_data);
    return status;
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

/* The character that ends at `end` > 0; its start. */
static size_t character_before(const char *text, size_t end, uint32_t *code) {
    size_t start = end - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80) start--;
    tm__utf8_decode(text + start, end - start, code);
    return start;
}

static bool stands_alone(const char *text, size_t len, size_t start, size_t end) {
    uint32_t code;
    if (start > 0) {
        character_before(text, start, &code);
        if (tm__is_word(code)) return false;
    }
    return end == len || !tm__utf8_decode(text + end, len - end, &code) || !tm__is_word(code);
}

/* Blanks before `start`, but not before `floor`, and after `end` go with the token. */
static void take_blanks(const tm__added *added, const char *text, size_t len, size_t floor, size_t *start,
                        size_t *end) {
    uint32_t code;
    if (added->lstrip) {
        while (*start > 0) {
            size_t before = character_before(text, *start, &code);
            if (!tm__is_space(code)) break;
            *start = before;
        }
        *start = TM__MAX(*start, floor);
    }
    while (added->rstrip && *end < len) {
        size_t width = (size_t)tm__utf8_decode(text + *end, len - *end, &code);
        if (!tm__is_space(code)) break;
        *end += width;
    }
}

/* As the reference: the search goes on behind the token itself, not behind its blanks, so that a token of blanks may be
 * found in what the one before has taken. */
bool tm__added_find(const tm_tokenizer *tok, tm__added_search *search, const char *text, size_t len, size_t *start,
                    size_t *end, int32_t *id) {
    const tm__trie *trie = search->trie;
    if (!trie->nodes) return false;
    while (search->at < len) {
        size_t at = search->at;
        int32_t index;
        size_t match = trie->root[(uint8_t)text[at]] ? tm__trie_longest(trie, text + at, len - at, &index) : 0;
        search->at = at + (match ? match : 1);
        if (!match) continue;
        const tm__added *added = &tok->added[index];
        if (added->special && !search->trusted) continue;
        if (added->single_word && !stands_alone(text, len, at, at + match)) continue;
        *start = at;
        *end = at + match;
        *id = added->id;
        take_blanks(added, text, len, search->done, start, end);
        search->done = *end;
        return true;
    }
    return false;
}
