/* words.c: WordPiece (the longest piece first, again and again: Wu et al. 2016 as BERT has it) and WordLevel. */
#include "tokenizer/tokenizer.h"

/* Special tokens are never made from text. */
static bool usable(const tm__piece *piece) {
    return piece->text && !(piece->flags & (TM__PIECE_SPECIAL | TM__PIECE_OUTSIDE));
}

bool tm__words_prepare(tm_tokenizer *tok) {
    tm__words *words = &tok->words;
    size_t skip = words->prefix_len;
    if (tok->model != TM__MODEL_WORDPIECE) return true;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!usable(piece)) continue;
        if (!tm__trie_add(&words->first, piece->text, piece->len, id)) return false;
        if (piece->len <= skip || memcmp(piece->text, words->prefix, skip) != 0) continue;
        if (!tm__trie_add(&words->rest, piece->text + skip, piece->len - skip, id)) return false;
    }
    return true;
}

static tm_status put_unknown(const tm_tokenizer *tok, tm__sink *sink) {
    if (tok->words.unknown >= 0) return tm__sink_put(sink, tok->words.unknown, 0, sink->word.len);
    return tm__fail(TM_INVALID, NULL, "text", NULL, "a word is not in the vocabulary, which has no unknown token");
}

static bool too_long(const tm__words *words, const char *text, size_t len) {
    size_t characters = 0;
    for (size_t i = 0; i < len; i++) characters += ((uint8_t)text[i] & 0xc0) != 0x80;
    return characters > words->longest;
}

static size_t next_piece(const tm__words *words, const char *text, size_t len, size_t at, int32_t *id) {
    return tm__trie_longest(at ? &words->rest : &words->first, text + at, len - at, id);
}

tm_status tm__words_encode(const tm_tokenizer *tok, tm__sink *sink) {
    const tm__words *words = &tok->words;
    const char *text = sink->word.text;
    size_t len = sink->word.len, width;
    int32_t id = -1;
    if (tok->model == TM__MODEL_WORDLEVEL) {
        id = tm__vocab_id(&tok->vocab, text, len);
        if (id < 0 || !usable(&tok->vocab.pieces[id])) return put_unknown(tok, sink);
        return tm__sink_put(sink, id, 0, len);
    }
    if (too_long(words, text, len)) return put_unknown(tok, sink);
    /* one part without a piece makes the whole word unknown */
    for (size_t at = 0; at < len; at += width)
        if (!(width = next_piece(words, text, len, at, &id))) return put_unknown(tok, sink);
    for (size_t at = 0; at < len; at += width) {
        width = next_piece(words, text, len, at, &id);
        TM__TRY(tm__sink_put(sink, id, at, at + width));
    }
    return TM_OK;
}
