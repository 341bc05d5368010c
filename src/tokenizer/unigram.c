/* unigram.c: the most probable segmentation under a Unigram model, by Viterbi (Kudo 2018), as SentencePiece's
 * EncodeOptimized does it.
 *
 * For each position of the normalized text the best path that ends there is kept: forward over all pieces that begin at
 * the position, then back from the end. A character that is no piece costs the unknown penalty, 10 below the lowest
 * score. Paths are summed and compared in float and the first of equals stays: with that, ids equal those of
 * sentencepiece 0.2.3; releases up to 0.2.1 compare in double and break some ties the other way. The bonus of
 * user-defined symbols is not documented; the one here gives the same ids on all texts compared.
 */
#include "tokenizer/tokenizer.h"

#include <float.h>
#include <stdlib.h>

static const double unknown_penalty = 10;
/* Per byte of a user-defined symbol, whose path should win. */
static const float user_bonus = 0.1f;

/* SentencePiece adds in float, `tokenizers` in double. */
static double sum(const tm_tokenizer *tok, double a, double b) {
    return tok->sentencepiece ? (double)(float)(a + b) : a + b;
}

bool tm__unigram_prepare(tm_tokenizer *tok) {
    tm__unigram *unigram = &tok->unigram;
    double least = DBL_MAX;
    for (int byte = 0; byte < 256; byte++) unigram->bytes[byte] = -1;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!piece->text) continue;
        if (tok->sentencepiece ? piece->flags & TM__PIECE_BYTE : tm__byte_of_piece(piece->text, piece->len) >= 0)
            unigram->bytes[tm__byte_of_piece(piece->text, piece->len)] = id;
        if (piece->flags & TM__PIECE_OUTSIDE) continue;
        /* `tokenizers` counts every piece of its list */
        if (!tok->sentencepiece) least = TM__MIN(least, piece->score);
        bool outside = piece->flags & (TM__PIECE_SPECIAL | TM__PIECE_BYTE | TM__PIECE_UNKNOWN | TM__PIECE_UNUSED);
        if (outside) continue;
        if (!tm__trie_add(&unigram->trie, piece->text, piece->len, id)) return false;
        if (!(piece->flags & TM__PIECE_USER)) least = TM__MIN(least, piece->score);
    }
    unigram->unknown_score = sum(tok, least, -unknown_penalty);
    return true;
}

void tm__unigram_free(tm__unigram *unigram) {
    tm__trie_free(&unigram->trie);
}

static void offer(tm__lattice_node *node, double score, int32_t id, size_t start) {
    if (node->start >= 0 && !(score > node->score)) return;
    *node = (tm__lattice_node){.id = id, .start = (int32_t)start, .score = score};
}

/* Extends the best path to `at` by every piece that begins there. */
static void extend(const tm_tokenizer *tok, tm__lattice_node *best, const char *text, size_t len, size_t at,
                   size_t width) {
    const tm__unigram *unigram = &tok->unigram;
    double here = best[at].score;
    bool single = false;
    uint32_t node = 0;
    for (size_t end = at; end < len;) {
        node = tm__trie_child(&unigram->trie, node, (uint8_t)text[end++]);
        if (!node) break;
        int32_t id = unigram->trie.values[node];
        if (id < 0) continue;
        const tm__piece *piece = &tok->vocab.pieces[id];
        double score = piece->flags & TM__PIECE_USER ? (double)(user_bonus * (float)(end - at)) : piece->score;
        offer(&best[end], sum(tok, score, here), id, at);
        single |= end - at == width;
    }
    if (!single) offer(&best[at + width], sum(tok, unigram->unknown_score, here), unigram->unknown, at);
}

static tm_status put_unknown(const tm_tokenizer *tok, tm__sink *sink, size_t start, size_t end) {
    const tm__unigram *unigram = &tok->unigram;
    const char *text = sink->word.text;
    if (unigram->unknown < 0)
        return tm__fail(TM_INVALID, NULL, "text", NULL, "a character is no piece, and there is no unknown one");
    bool bytes = unigram->byte_fallback;
    for (size_t i = start; i < end && bytes; i++) bytes = unigram->bytes[(uint8_t)text[i]] >= 0;
    if (!bytes) return tm__sink_put(sink, unigram->unknown, start, end);
    for (size_t i = start; i < end; i++) TM__TRY(tm__sink_put(sink, unigram->bytes[(uint8_t)text[i]], start, end));
    return TM_OK;
}

/* Unknown characters in a row are one piece. */
static tm_status put_path(const tm_tokenizer *tok, const tm__lattice_node *best, const int32_t *ends, size_t n,
                          tm__sink *sink) {
    int32_t unknown = tok->unigram.unknown;
    for (size_t i = n; i-- > 0;) {
        const tm__lattice_node *node = &best[ends[i]];
        if (node->id != unknown) {
            TM__TRY(tm__sink_put(sink, node->id, (size_t)node->start, (size_t)ends[i]));
            continue;
        }
        size_t start = (size_t)node->start;
        while (i > 0 && best[ends[i - 1]].id == unknown) i--;
        TM__TRY(put_unknown(tok, sink, start, (size_t)ends[i]));
    }
    return TM_OK;
}

tm_status tm__unigram_encode(const tm_tokenizer *tok, tm__scratch *scratch, tm__sink *sink) {
    const char *text = sink->word.text;
    size_t len = sink->word.len;
    if (!tm__grow((void **)&scratch->lattice, &scratch->lattice_cap, len + 1, sizeof *scratch->lattice) ||
        !tm__grow((void **)&scratch->next, &scratch->next_cap, len + 1, sizeof *scratch->next))
        return tm__fail_memory();
    tm__lattice_node *best = scratch->lattice;
    for (size_t i = 0; i <= len; i++) best[i].start = -1;
    best[0] = (tm__lattice_node){.id = -1, .start = 0, .score = 0};
    for (size_t at = 0; at < len;) {
        uint32_t code;
        size_t width = (size_t)tm__utf8_decode(text + at, len - at, &code);
        extend(tok, best, text, len, at, width);
        at += width;
    }
    size_t n = 0;
    for (int32_t end = (int32_t)len; end > 0; end = best[end].start) scratch->next[n++] = end;
    return put_path(tok, best, scratch->next, n, sink);
}
