/* write_json.c: a SentencePiece BPE tokenizer as an equivalent tokenizer.json of Hugging Face's `tokenizers`.
 *
 * The layout is the one transformers' LlamaConverter writes: Prepend and Replace as normalizer, no pre-tokenizer, byte
 * fallback, a template that puts bos before a text. Its merges must be listed in order: for every piece all cuts into
 * two pieces, by descending score of the piece, then by the lengths of the two sides and by their ids, as its
 * SentencePieceExtractor sorts them (transformers, convert_slow_tokenizer.py). One difference is built into that
 * layout: text after a user-defined symbol gets a dummy prefix of its own.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

typedef struct cut {
    int32_t piece, left, right;
    float score;
    uint32_t left_len, right_len;
    size_t order; /* position before sorting */
} cut;

static bool put(tm__string *out, const char *text) {
    return tm__string_append(out, text, strlen(text));
}

static bool put_quoted(tm__string *out, const char *text, size_t len) {
    if (!put(out, "\"")) return false;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];
        bool ok = c == '"' || c == '\\' ? tm__string_printf(out, "\\%c", c)
                  : c < 0x20            ? tm__string_printf(out, "\\u%04x", c)
                                        : tm__string_append(out, text + i, 1);
        if (!ok) return false;
    }
    return put(out, "\"");
}

/* Entries end in ", "; the last one of a list loses it. */
static bool close_list(tm__string *out, const char *end) {
    if (out->len >= 2 && memcmp(out->data + out->len - 2, ", ", 2) == 0) out->len -= 2;
    return put(out, end);
}

static bool put_added(const tm_tokenizer *tok, tm__string *out) {
    bool ok = put(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < tok->added_len && ok; i++) {
        const tm__added *added = &tok->added[i];
        const tm__piece *piece = &tok->vocab.pieces[added->id];
        ok = tm__string_printf(out, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", (int)added->id) &&
             put_quoted(out, piece->text, piece->len) &&
             tm__string_printf(out,
                               ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                               "\"special\": %s}",
                               added->special ? "true" : "false");
    }
    return ok && put(out, "\n  ],\n");
}

/* SentencePiece's own removal of blanks takes U+0020 only, and U+2581 at the end, so it is written as patterns. */
static bool put_normalizer(const tm_tokenizer *tok, tm__string *out) {
    bool ok = put(out, "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (tok->spm.remove_extra)
        ok = ok && put(out, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\A +\"}, \"content\": \"\"}, "
                            "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, ");
    if (tok->spm.dummy_prefix) ok = ok && put(out, "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, ");
    ok = ok && put(out, "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}, ");
    if (tok->spm.remove_extra)
        ok = ok &&
             put(out, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\xe2\x96\x81+\\\\z\"}, \"content\": \"\"}, ");
    return ok && close_list(out, "]},\n  \"pre_tokenizer\": null,\n");
}

static bool put_special(const tm_tokenizer *tok, const tm_ids *ids, tm__string *out) {
    bool ok = true;
    for (size_t i = 0; i < ids->len && ok; i++) {
        const tm__piece *piece = &tok->vocab.pieces[ids->data[i]];
        ok = put(out, "{\"SpecialToken\": {\"id\": ") && put_quoted(out, piece->text, piece->len) &&
             put(out, ", \"type_id\": 0}}, ");
    }
    return ok;
}

static bool put_special_ids(const tm_tokenizer *tok, const tm_ids *ids, bool *any, tm__string *out) {
    bool ok = true;
    for (size_t i = 0; i < ids->len && ok; i++, *any = true) {
        const tm__piece *piece = &tok->vocab.pieces[ids->data[i]];
        ok = put(out, *any ? ", " : "") && put_quoted(out, piece->text, piece->len) && put(out, ": {\"id\": ") &&
             put_quoted(out, piece->text, piece->len) &&
             tm__string_printf(out, ", \"ids\": [%d], \"tokens\": [", (int)ids->data[i]) &&
             put_quoted(out, piece->text, piece->len) && put(out, "]}");
    }
    return ok;
}

static bool put_template(const tm_tokenizer *tok, tm__string *out) {
    bool any = false, ok = put(out, "  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [");
    ok = ok && put_special(tok, &tok->prefix, out) && put(out, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, ") &&
         put_special(tok, &tok->suffix, out) && close_list(out, "], \"pair\": [");
    ok = ok && put_special(tok, &tok->prefix, out) && put(out, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, ") &&
         put_special(tok, &tok->suffix, out) && put_special(tok, &tok->prefix, out) &&
         put(out, "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}, ") && put_special(tok, &tok->suffix, out) &&
         close_list(out, "], \"special_tokens\": {");
    ok = ok && put_special_ids(tok, &tok->prefix, &any, out);
    bool same = tok->prefix.len && tok->suffix.len && tok->prefix.data[0] == tok->suffix.data[0];
    return ok && (same || put_special_ids(tok, &tok->suffix, &any, out)) && put(out, "}},\n");
}

static bool put_decoder(const tm_tokenizer *tok, tm__string *out) {
    bool ok = put(out, "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                       "{\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, "
                       "{\"type\": \"Fuse\"}, ");
    if (tok->spm.dummy_prefix)
        ok = ok && put(out, "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}, ");
    return ok && close_list(out, "]},\n");
}

/* ---- model ------------------------------------------------------------------------------------------------------- */

static bool put_vocab(const tm_tokenizer *tok, tm__string *out) {
    const tm__piece *unknown = &tok->vocab.pieces[tok->bpe.unknown];
    bool any = false, ok = put(out, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ") &&
                           put_quoted(out, unknown->text, unknown->len) &&
                           tm__string_printf(out,
                                             ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                                             "\"fuse_unk\": true, \"byte_fallback\": %s, \"ignore_merges\": false,\n"
                                             "    \"vocab\": {",
                                             tok->bpe.byte_fallback ? "true" : "false");
    for (int32_t id = 0; id < tok->vocab.size && ok; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!piece->text) continue;
        ok = put(out, any ? ",\n      " : "\n      ") && put_quoted(out, piece->text, piece->len) &&
             tm__string_printf(out, ": %d", (int)id);
        any = true;
    }
    return ok && put(out, "\n    },\n");
}

static int by_order(const void *a, const void *b) {
    const cut *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_len != y->left_len) return x->left_len > y->left_len ? -1 : 1;
    if (x->right_len != y->right_len) return x->right_len > y->right_len ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static uint32_t characters(const char *text, uint32_t len) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < len; i++) n += ((uint8_t)text[i] & 0xc0) != 0x80;
    return n;
}

static bool find_cuts(const tm_tokenizer *tok, cut **cuts, size_t *n) {
    size_t cap = 0;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!piece->text || piece->flags) continue;
        for (uint32_t at = 1; at < piece->len; at++) {
            int32_t left = tm__vocab_id(&tok->vocab, piece->text, at);
            int32_t right = left < 0 ? -1 : tm__vocab_id(&tok->vocab, piece->text + at, piece->len - at);
            if (right < 0 || tok->vocab.pieces[left].flags || tok->vocab.pieces[right].flags) continue;
            if (!tm__grow((void **)cuts, &cap, *n + 1, sizeof **cuts)) return false;
            (*cuts)[*n] = (cut){.piece = id,
                                .left = left,
                                .right = right,
                                .score = piece->score,
                                .left_len = characters(piece->text, at),
                                .right_len = characters(piece->text + at, piece->len - at),
                                .order = *n};
            (*n)++;
        }
    }
    return true;
}

static bool put_merges(const tm_tokenizer *tok, tm__string *out) {
    cut *cuts = NULL;
    size_t n = 0;
    bool ok = find_cuts(tok, &cuts, &n) && put(out, "    \"merges\": [");
    if (ok && n) qsort(cuts, n, sizeof *cuts, by_order);
    for (size_t i = 0; i < n && ok; i++) {
        const tm__piece *left = &tok->vocab.pieces[cuts[i].left], *right = &tok->vocab.pieces[cuts[i].right];
        ok = put(out, i ? ",\n      [" : "\n      [") && put_quoted(out, left->text, left->len) && put(out, ", ") &&
             put_quoted(out, right->text, right->len) && put(out, "]");
    }
    free(cuts);
    return ok && put(out, "\n    ]\n  }\n}\n");
}

tm_status tm__tokenizer_write_json(const tm_tokenizer *tok, const char *path) {
    if (!tok->sentencepiece || tok->model != TM__MODEL_BPE || tok->spm.map.trie || tok->spm.suffix || !tok->spm.escape)
        return tm__fail(TM_UNSUPPORTED, path, NULL, NULL, "only plain SentencePiece BPE can be written as JSON, not %s",
                        tok->kind);
    tm__string out = {0};
    bool ok = put(&out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n") &&
              put_added(tok, &out) && put_normalizer(tok, &out) && put_template(tok, &out) && put_decoder(tok, &out) &&
              put_vocab(tok, &out) && put_merges(tok, &out);
    tm_status status = ok ? tm__file_write(path, out.data, out.len) : tm__fail_memory();
    tm__string_free(&out);
    return status;
}
