/* bpe.c: byte-pair encoding: which pairs merge, and the merging of one word (Sennrich et al. 2016).
 *
 * A word starts as one symbol per byte (byte-level) or character. The pair of lowest rank merges first, the leftmost of
 * equals, until no neighbours merge. Short words are scanned for the minimum, which is faster than any queue and needs
 * no memory of its own; long ones use a binary heap over a linked list, so that a text without blanks costs n log n.
 * Stale heap entries are recognised by the rank stored for their position. Words seen before come from a cache in the
 * scratch: fixed size, no allocation.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

#define NO_RANK UINT32_MAX
#define FREE_SLOT UINT64_MAX
enum { SHORT_WORD = 64 };
static const char space_mark[] = "\xe2\x96\x81"; /* U+2581 */

/* ---- merges ------------------------------------------------------------------------------------------------------ */

void tm__bpe_init(tm__bpe *bpe) {
    memset(bpe, 0, sizeof *bpe);
    bpe->unknown = -1;
    for (int i = 0; i < 256; i++) bpe->ascii[i] = bpe->bytes[i] = -1;
}

void tm__bpe_free(tm__bpe *bpe) {
    free(bpe->merges);
    free(bpe->pseudo);
    tm__map_free(&bpe->characters);
    tm__map_free(&bpe->words);
    memset(bpe, 0, sizeof *bpe);
}

static inline uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline size_t slot_of(uint64_t pair, size_t mask) {
    uint64_t hash = pair * 0x9e3779b97f4a7c15u;
    return (size_t)(hash ^ hash >> 32) & mask;
}

bool tm__bpe_reserve(tm__bpe *bpe, size_t merges) {
    size_t cap = 64;
    while (cap / 2 < merges) cap *= 2;
    bpe->merges = tm__alloc(cap, sizeof *bpe->merges);
    if (!bpe->merges) return false;
    for (size_t i = 0; i < cap; i++) bpe->merges[i].pair = FREE_SLOT;
    bpe->cap = cap;
    return true;
}

static inline tm__merge *find_slot(const tm__bpe *bpe, uint64_t pair) {
    size_t mask = bpe->cap - 1, i = slot_of(pair, mask);
    while (bpe->merges[i].pair != pair && bpe->merges[i].pair != FREE_SLOT) i = (i + 1) & mask;
    return &bpe->merges[i];
}

bool tm__bpe_add(tm__bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    assert(bpe->len < bpe->cap / 2 && rank != NO_RANK);
    tm__merge *slot = find_slot(bpe, pair_of(left, right));
    if (slot->pair != FREE_SLOT) return false;
    *slot = (tm__merge){.pair = pair_of(left, right), .rank = rank, .id = id};
    bpe->len++;
    return true;
}

const tm__merge *tm__bpe_find(const tm__bpe *bpe, int32_t left, int32_t right) {
    if (!bpe->cap) return NULL;
    const tm__merge *slot = find_slot(bpe, pair_of(left, right));
    return slot->pair == FREE_SLOT || slot->rank == NO_RANK ? NULL : slot;
}

/* ---- symbols ----------------------------------------------------------------------------------------------------- */

/* No merge makes a special token, so that text alone cannot. */
static void drop_special_merges(tm_tokenizer *tok) {
    tm__bpe *bpe = &tok->bpe;
    for (size_t i = 0; i < bpe->cap; i++) {
        tm__merge *merge = &bpe->merges[i];
        if (merge->pair != FREE_SLOT && tok->vocab.pieces[merge->id].flags & TM__PIECE_SPECIAL) merge->rank = NO_RANK;
    }
}

/* Whether U+2581 follows another character somewhere in the piece. */
static bool crosses_space(const tm__piece *piece) {
    for (uint32_t i = 1; i + 3 <= piece->len; i++) {
        if (memcmp(piece->text + i, space_mark, 3) != 0) continue;
        if (i < 3 || memcmp(piece->text + i - 3, space_mark, 3) != 0) return true;
    }
    return false;
}

static bool breaks_at_space(const tm_tokenizer *tok) {
    const tm__bpe *bpe = &tok->bpe;
    if (bpe->unknown < 0) return false; /* what vanishes moves the offsets of the whole word */
    if (bpe->byte_level || bpe->whole_words || bpe->prefix_len || bpe->suffix_len ||
        !tm__map_get(&bpe->characters, space_mark, 3, NULL))
        return false;
    for (size_t i = 0; i < bpe->cap; i++) {
        const tm__merge *merge = &bpe->merges[i];
        if (merge->pair != FREE_SLOT && crosses_space(&tok->vocab.pieces[merge->id])) return false;
    }
    return true;
}

static bool put_character(tm__bpe *bpe, const char *text, size_t len, int32_t symbol) {
    if (len == 1) {
        bpe->ascii[(uint8_t)text[0]] = symbol;
        return true;
    }
    return tm__map_put(&bpe->characters, text, len, symbol);
}

/* Byte-level: by the raw byte. Otherwise: by the character. */
static bool put_symbol(tm__bpe *bpe, const tm__piece *piece, int32_t id) {
    uint32_t code;
    if (piece->flags & (TM__PIECE_BYTE | TM__PIECE_UNKNOWN | TM__PIECE_OUTSIDE)) return true;
    /* a special token of one character cannot be kept out of text */
    bool single = piece->len && (uint32_t)tm__utf8_decode(piece->text, piece->len, &code) == piece->len;
    if (piece->flags & TM__PIECE_SPECIAL && !single) return true;
    if (bpe->byte_level) {
        if (piece->raw == piece->text) return true;
        if (piece->raw_len == 1) bpe->ascii[(uint8_t)piece->raw[0]] = id;
        return !bpe->whole_words || tm__map_put(&bpe->words, piece->raw, piece->raw_len, id);
    }
    if (bpe->whole_words && !tm__map_put(&bpe->words, piece->text, piece->len, id)) return false;
    if (single) return put_character(bpe, piece->text, piece->len, id);
    return true;
}

tm_status tm__bpe_prepare(tm_tokenizer *tok) {
    tm__bpe *bpe = &tok->bpe;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (piece->text && !put_symbol(bpe, piece, id)) return tm__fail_memory();
    }
    for (size_t i = 0; i < bpe->pseudo_len; i++)
        if (!put_character(bpe, bpe->pseudo[i], strlen(bpe->pseudo[i]), tok->vocab.size + (int32_t)i))
            return tm__fail_memory();
    for (int byte = 0; byte < 256 && bpe->byte_fallback; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->bytes[byte] = tm__vocab_id(&tok->vocab, text, 6);
    }
    drop_special_merges(tok);
    bpe->break_at_space = breaks_at_space(tok);
    return TM_OK;
}

/* ---- one word ---------------------------------------------------------------------------------------------------- */

/* Symbols of a word; `end`: bytes that they stand for. */
typedef struct word_symbols {
    tm__symbol *data;
    size_t len, end;
} word_symbols;

static void push_symbol(word_symbols *out, int32_t id, size_t len) {
    out->data[out->len++] = (tm__symbol){.id = id, .start = (uint32_t)out->end};
    out->end += len;
}

/* Pieces of a character's bytes; false: some byte has none. */
static bool push_bytes(const tm__bpe *bpe, const char *text, size_t len, word_symbols *out) {
    for (size_t i = 0; i < len; i++)
        if (bpe->bytes[(uint8_t)text[i]] < 0) return false;
    for (size_t i = 0; i < len; i++) push_symbol(out, bpe->bytes[(uint8_t)text[i]], 1);
    return true;
}

/* The symbol of a character with the word's affixes; `text`: as it is looked up. */
static int32_t find_affixed(const tm_tokenizer *tok, const char *word, size_t len, size_t at, size_t width,
                            tm__string *text) {
    const tm__bpe *bpe = &tok->bpe;
    text->len = 0;
    bool ok = (at == 0 || tm__string_append(text, bpe->prefix, bpe->prefix_len)) &&
              tm__string_append(text, word + at, width) &&
              (at + width < len || tm__string_append(text, bpe->suffix, bpe->suffix_len));
    if (!ok) return -2;
    int32_t id = tm__vocab_id(&tok->vocab, text->data, text->len);
    bool kept_out = id >= 0 && tok->vocab.pieces[id].flags & (TM__PIECE_SPECIAL | TM__PIECE_OUTSIDE);
    return kept_out && text->len > width ? -1 : id;
}

/* One symbol per byte or character. Unknown ones: bytes, else the unknown token (a run of them is one if fused), else
 * nothing, as the reference does: an unknown token waits for the next known symbol even if bytes come before that, and
 * what became nothing moves the offsets behind it. */
static bool first_symbols(const tm_tokenizer *tok, tm__scratch *scratch, const char *word, size_t len,
                          word_symbols *out) {
    const tm__bpe *bpe = &tok->bpe;
    bool affixed = bpe->prefix_len || bpe->suffix_len;
    size_t width, pending = 0;
    for (size_t i = 0; i < len; i += width) {
        uint8_t lead = (uint8_t)word[i];
        int32_t symbol = -1;
        width = 1;
        if (!bpe->byte_level && lead >= 0x80) width = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        const char *text = word + i;
        size_t text_len = width;
        if (affixed) {
            symbol = find_affixed(tok, word, len, i, width, &scratch->affixed);
            if (symbol == -2) return false;
            text = scratch->affixed.data;
            text_len = scratch->affixed.len;
        } else if (width == 1) {
            symbol = bpe->ascii[lead];
        } else if (!tm__map_get(&bpe->characters, text, width, &symbol)) {
            symbol = -1;
        }
        if (symbol >= 0) {
            if (pending) push_symbol(out, bpe->unknown, pending);
            pending = 0;
            push_symbol(out, symbol, width);
            continue;
        }
        if (bpe->byte_fallback && push_bytes(bpe, text, text_len, out)) continue;
        if (bpe->unknown < 0) continue;
        if (pending && !bpe->fuse_unknown) {
            push_symbol(out, bpe->unknown, pending);
            pending = 0;
        }
        pending += width;
    }
    if (pending) push_symbol(out, bpe->unknown, pending);
    return true;
}

static inline void rank_pair(const tm__bpe *bpe, tm__symbol *left, const tm__symbol *right) {
    const tm__merge *merge = tm__bpe_find(bpe, left->id, right->id);
    left->rank = merge ? merge->rank : NO_RANK;
    left->merged = merge ? merge->id : -1;
}

static size_t merge_short(const tm__bpe *bpe, tm__symbol *at, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) rank_pair(bpe, &at[i], &at[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (at[i].rank < at[best].rank) best = i;
        if (at[best].rank == NO_RANK) break;
        at[best].id = at[best].merged;
        n--;
        memmove(&at[best + 1], &at[best + 2], (n - best - 1) * sizeof *at);
        if (best > 0) rank_pair(bpe, &at[best - 1], &at[best]);
        if (best + 1 < n) rank_pair(bpe, &at[best], &at[best + 1]);
    }
    return n;
}

static void heap_push(tm__scratch *scratch, uint64_t entry) {
    uint64_t *heap = scratch->heap;
    size_t i = scratch->heap_len++;
    while (i > 0 && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t heap_pop(tm__scratch *scratch) {
    uint64_t *heap = scratch->heap, top = heap[0], last = heap[--scratch->heap_len];
    size_t i = 0, n = scratch->heap_len;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void queue_pair(const tm__bpe *bpe, tm__scratch *scratch, int32_t left) {
    int32_t right = scratch->next[left];
    tm__symbol *symbol = &scratch->symbols[left];
    symbol->rank = NO_RANK;
    if (right < 0) return;
    rank_pair(bpe, symbol, &scratch->symbols[right]);
    if (symbol->rank != NO_RANK) heap_push(scratch, (uint64_t)symbol->rank << 32 | (uint32_t)left);
}

static bool merge_long(const tm__bpe *bpe, tm__scratch *scratch, size_t *count) {
    size_t n = *count;
    if (!tm__grow((void **)&scratch->next, &scratch->next_cap, n, sizeof(int32_t)) ||
        !tm__grow((void **)&scratch->previous, &scratch->previous_cap, n, sizeof(int32_t)) ||
        !tm__grow((void **)&scratch->heap, &scratch->heap_cap, 3 * n, sizeof(uint64_t)))
        return false;
    int32_t *next = scratch->next, *previous = scratch->previous;
    tm__symbol *symbols = scratch->symbols;
    scratch->heap_len = 0;
    for (size_t i = 0; i < n; i++) {
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        previous[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++) queue_pair(bpe, scratch, (int32_t)i);
    while (scratch->heap_len) {
        uint64_t entry = heap_pop(scratch);
        int32_t left = (int32_t)(uint32_t)entry;
        if (symbols[left].rank != (uint32_t)(entry >> 32)) continue;
        int32_t right = next[left];
        symbols[left].id = symbols[left].merged;
        symbols[right].rank = NO_RANK;
        next[left] = next[right];
        if (next[right] >= 0) previous[next[right]] = left;
        queue_pair(bpe, scratch, left);
        if (previous[left] >= 0) queue_pair(bpe, scratch, previous[left]);
    }
    size_t kept = 0;
    for (int32_t i = 0; i >= 0; i = next[i]) symbols[kept++] = symbols[i];
    *count = kept;
    return true;
}

static size_t end_of(const word_symbols *in, size_t i) {
    return i + 1 < in->len ? in->data[i + 1].start : in->end;
}

/* SentencePiece: symbols that are no pieces become bytes or unknown pieces now; unknown pieces in a row are one. */
static size_t late_fallback(const tm_tokenizer *tok, const word_symbols *in, word_symbols *out) {
    const tm__bpe *bpe = &tok->bpe;
    bool previous_unknown = false;
    for (size_t i = 0; i < in->len; i++) {
        int32_t symbol = in->data[i].id;
        size_t len = end_of(in, i) - in->data[i].start, before = out->len;
        if (symbol >= tok->vocab.size) {
            const char *text = bpe->pseudo[symbol - tok->vocab.size];
            if (!bpe->byte_fallback || !push_bytes(bpe, text, strlen(text), out)) symbol = bpe->unknown;
        }
        bool unknown = out->len == before && symbol == bpe->unknown;
        if (unknown && previous_unknown)
            out->end += len;
        else if (out->len == before)
            push_symbol(out, symbol, len);
        previous_unknown = unknown;
    }
    return out->len;
}

/* The word's symbols in scratch->symbols. */
static tm_status encode_word(const tm_tokenizer *tok, tm__scratch *scratch, const char *word, size_t len,
                             word_symbols *out) {
    const tm__bpe *bpe = &tok->bpe;
    int32_t whole;
    /* a symbol per byte, and as many again for late_fallback */
    size_t room = (2 + bpe->prefix_len) * len + bpe->suffix_len; /* affixes may become bytes */
    if (!tm__grow((void **)&scratch->symbols, &scratch->symbols_cap, room, sizeof *scratch->symbols))
        return tm__fail_memory();
    *out = (word_symbols){.data = scratch->symbols};
    if (bpe->whole_words && tm__map_get(&bpe->words, word, len, &whole)) {
        push_symbol(out, whole, len);
        return TM_OK;
    }
    if (!first_symbols(tok, scratch, word, len, out)) return tm__fail_memory();
    if (out->len <= SHORT_WORD)
        out->len = merge_short(bpe, out->data, out->len);
    else if (!merge_long(bpe, scratch, &out->len))
        return tm__fail_memory();
    if (bpe->late_fallback) {
        word_symbols late = {.data = out->data + out->len};
        late_fallback(tok, out, &late);
        *out = late;
    }
    return TM_OK;
}

static tm_status put_symbols(const word_symbols *in, size_t start, tm__sink *sink) {
    tm_ids *ids = sink->ids;
    if (sink->offsets) {
        for (size_t i = 0; i < in->len; i++)
            TM__TRY(tm__sink_put(sink, in->data[i].id, start + in->data[i].start, start + end_of(in, i)));
        return TM_OK;
    }
    if (!tm__grow((void **)&ids->data, &ids->cap, ids->len + in->len, sizeof *ids->data)) return tm__fail_memory();
    for (size_t i = 0; i < in->len; i++) ids->data[ids->len++] = in->data[i].id;
    return TM_OK;
}

/* ---- cache ------------------------------------------------------------------------------------------------------- */

static inline uint32_t hash_word(const char *word, size_t len) {
    uint64_t hash = len, block;
    for (; len >= 8; word += 8, len -= 8) {
        memcpy(&block, word, 8);
        hash = (hash ^ block) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    block = 0;
    memcpy(&block, word, len);
    hash = (hash ^ block) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
    return (uint32_t)(hash * 0xd6e8feb86659fd93u >> 32);
}

/* sink->word from `start` on. */
static tm_status encode_cached(const tm_tokenizer *tok, tm__scratch *scratch, size_t start, size_t len,
                               tm__sink *sink) {
    const char *word = sink->word.text + start;
    word_symbols out;
    tm_ids *ids = sink->ids;
    if (len > TM__CACHE_WORD || sink->offsets) {
        TM__TRY(encode_word(tok, scratch, word, len, &out));
        return put_symbols(&out, start, sink);
    }
    uint32_t hash = hash_word(word, len);
    tm__cached *entry = &scratch->cache[hash >> (32 - TM__CACHE_BITS)];
    if (entry->hash == hash && entry->len == len && memcmp(entry->word, word, len) == 0) {
        if (!tm__grow((void **)&ids->data, &ids->cap, ids->len + TM__CACHE_IDS, sizeof *ids->data))
            return tm__fail_memory();
        memcpy(ids->data + ids->len, entry->ids, sizeof entry->ids);
        ids->len += entry->count;
        return TM_OK;
    }
    TM__TRY(encode_word(tok, scratch, word, len, &out));
    TM__TRY(put_symbols(&out, start, sink));
    if (out.len > TM__CACHE_IDS) return TM_OK;
    *entry = (tm__cached){.hash = hash, .len = (uint8_t)len, .count = (uint8_t)out.len};
    memcpy(entry->word, word, len);
    for (size_t i = 0; i < out.len; i++) entry->ids[i] = out.data[i].id;
    return TM_OK;
}

/* Start of the next run of U+2581 that follows another character, or len. */
static size_t next_space(const char *text, size_t len, size_t from) {
    bool in_run = true;
    while (from < len) {
        bool mark = len - from >= 3 && memcmp(text + from, space_mark, 3) == 0;
        if (mark && !in_run) return from;
        in_run = mark;
        from += mark ? 3 : 1;
    }
    return len;
}

tm_status tm__bpe_encode(const tm_tokenizer *tok, tm__scratch *scratch, tm__sink *sink) {
    const char *word = sink->word.text;
    size_t len = sink->word.len;
    if (len == 0) return TM_OK;
    if (!tok->bpe.break_at_space) return encode_cached(tok, scratch, 0, len, sink);
    for (size_t start = 0; start < len;) {
        size_t end = next_space(word, len, start);
        TM__TRY(encode_cached(tok, scratch, start, end - start, sink));
        start = end;
    }
    return TM_OK;
}
