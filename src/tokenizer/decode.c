/* decode.c: ids to text.
 *
 * Byte-level and SentencePiece tokenizers have a way of their own. Any other pipeline runs its decoders over the list
 * of pieces, each as the reference's decoder of that name does; the pieces that remain are joined. Bytes that are no
 * UTF-8 come out as U+FFFD.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static const char space_mark[] = "\xe2\x96\x81";
static const char replacement_character[] = "\xef\xbf\xbd";

/* Pieces laid end to end in `bytes`. */
typedef struct piece_list {
    tm__string bytes;
    tm__spans spans;
} piece_list;

static void list_free(piece_list *list) {
    tm__string_free(&list->bytes);
    free(list->spans.data);
}

static bool list_end(piece_list *list, size_t start) {
    tm__spans *spans = &list->spans;
    if (!tm__grow((void **)&spans->data, &spans->cap, spans->len + 1, sizeof *spans->data)) return false;
    spans->data[spans->len++] = (tm__span){.start = start, .len = list->bytes.len - start};
    return true;
}

static bool list_add(piece_list *list, const char *text, size_t len) {
    size_t start = list->bytes.len;
    return tm__string_append(&list->bytes, text, len) && list_end(list, start);
}

/* ---- decoders ---------------------------------------------------------------------------------------------------- */

/* A run of byte pieces is its text if that is UTF-8, else one U+FFFD per byte. */
static bool end_bytes(piece_list *out, tm__string *run) {
    bool ok = true, valid = tm__utf8_valid(run->data ? run->data : "", run->len);
    if (run->len && valid) ok = list_add(out, run->data, run->len);
    for (size_t i = 0; i < run->len && !valid && ok; i++) ok = list_add(out, replacement_character, 3);
    run->len = 0;
    return ok;
}

static bool decode_bytes(const piece_list *in, piece_list *out) {
    tm__string run = {0};
    bool ok = true;
    for (size_t i = 0; i < in->spans.len && ok; i++) {
        const char *text = in->bytes.data + in->spans.data[i].start;
        size_t len = in->spans.data[i].len;
        int byte = tm__byte_of_piece(text, len);
        if (byte >= 0)
            ok = tm__string_append(&run, &(char){(char)byte}, 1);
        else
            ok = end_bytes(out, &run) && list_add(out, text, len);
    }
    ok = ok && end_bytes(out, &run);
    tm__string_free(&run);
    return ok;
}

static bool decode_strip(const tm__step *step, const char *text, size_t len, piece_list *out) {
    size_t width = step->content_len;
    for (int i = 0; i < step->start && len >= width && memcmp(text, step->content, width) == 0; i++)
        text += width, len -= width;
    for (int i = 0; i < step->stop && len >= width && memcmp(text + len - width, step->content, width) == 0; i++)
        len -= width;
    return list_add(out, text, len);
}

/* The mark becomes a space; in the first piece it vanishes if the encoder puts one there. */
static bool decode_metaspace(const tm__step *step, const char *text, size_t len, bool first, piece_list *out) {
    size_t start = out->bytes.len, width;
    uint32_t code;
    for (size_t i = 0; i < len; i += width) {
        width = (size_t)tm__utf8_decode(text + i, len - i, &code);
        bool mark = width == step->content_len && memcmp(text + i, step->content, width) == 0;
        bool ok = !mark ? tm__string_append(&out->bytes, text + i, width)
                        : (first && step->prepend != TM__PREPEND_NEVER) || tm__string_append(&out->bytes, " ", 1);
        if (!ok) return false;
    }
    return list_end(out, start);
}

static tm_status decode_replace(const tm__step *step, struct pcre2_real_match_data_8 *data, const char *text,
                                size_t len, piece_list *out) {
    size_t begin = out->bytes.len, kept = 0, start, end;
    tm__matches matches = {.regex = &step->regex, .data = data, .text = text, .len = len};
    for (bool found = len > 0; found; kept = end) {
        TM__TRY(tm__regex_next(&matches, &found, &start, &end));
        if (!found) break;
        if (!tm__string_append(&out->bytes, text + kept, start - kept) ||
            !tm__string_append(&out->bytes, step->content, step->content_len))
            return tm__fail_memory();
    }
    bool ok = tm__string_append(&out->bytes, text + kept, len - kept) && list_end(out, begin);
    return ok ? TM_OK : tm__fail_memory();
}

/* All pieces as bytes of GPT-2's alphabet; a piece with another character as it is. One text comes out. */
static bool decode_byte_level(const piece_list *in, piece_list *out) {
    tm__string raw = {0};
    bool ok = tm__string_append(&raw, "", 0);
    for (size_t i = 0; i < in->spans.len && ok; i++) {
        const char *text = in->bytes.data + in->spans.data[i].start;
        size_t len = in->spans.data[i].len, before = raw.len;
        uint32_t code;
        int byte = 0;
        for (size_t k = 0; k < len && byte >= 0 && ok;) {
            k += (size_t)tm__utf8_decode(text + k, len - k, &code);
            byte = tm__byte_of_code(code);
            ok = byte < 0 || tm__string_append(&raw, &(char){(char)byte}, 1);
        }
        if (byte >= 0) continue;
        raw.len = before;
        ok = ok && tm__string_append(&raw, text, len);
    }
    size_t start = out->bytes.len;
    ok = ok && tm__utf8_clean(raw.data, raw.len, false, &out->bytes) && list_end(out, start);
    tm__string_free(&raw);
    return ok;
}

/* `from` to `to` wherever it stands. */
static bool append_replaced(const char *text, size_t len, const char *from, size_t from_len, const char *to,
                            tm__string *out) {
    const char *end = text + len, *hit;
    while ((hit = memmem(text, (size_t)(end - text), from, from_len))) {
        if (!tm__string_append(out, text, (size_t)(hit - text)) || !tm__string_append(out, to, strlen(to)))
            return false;
        text = hit + from_len;
    }
    return tm__string_append(out, text, (size_t)(end - text));
}

/* Blanks that English writes without, in the reference's order. */
static bool clean_up(tm__string *text, tm__string *spare) {
    static const char *const pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                           {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < TM__COUNT(pairs); i++) {
        spare->len = 0;
        if (!append_replaced(text->data, text->len, pairs[i][0], strlen(pairs[i][0]), pairs[i][1], spare)) return false;
        tm__string swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return true;
}

/* A piece that goes on loses its prefix, another one but the first gets a blank. */
static bool decode_wordpiece(const tm__step *step, const char *text, size_t len, bool first, piece_list *out) {
    size_t width = step->content_len;
    tm__string word = {0}, spare = {0};
    bool goes_on = !first && len >= width && memcmp(text, step->content, width) == 0;
    if (goes_on) text += width, len -= width;
    bool ok = tm__string_append(&word, " ", !first && !goes_on) && tm__string_append(&word, text, len);
    ok = ok && (!step->split || clean_up(&word, &spare)) && list_add(out, word.data, word.len);
    tm__string_free(&word);
    tm__string_free(&spare);
    return ok;
}

static bool decode_suffix(const tm__step *step, const char *text, size_t len, bool last, piece_list *out) {
    size_t start = out->bytes.len;
    return append_replaced(text, len, step->content, step->content_len, last ? "" : " ", &out->bytes) &&
           list_end(out, start);
}

static tm_status run_decoder(const tm__step *step, struct pcre2_real_match_data_8 *data, const piece_list *in,
                             piece_list *out) {
    bool ok = true;
    if (step->kind == TM__DECODE_BYTE_LEVEL) return decode_byte_level(in, out) ? TM_OK : tm__fail_memory();
    if (step->kind == TM__DECODE_BYTE_FALLBACK) return decode_bytes(in, out) ? TM_OK : tm__fail_memory();
    if (step->kind == TM__DECODE_FUSE)
        return list_add(out, in->bytes.data ? in->bytes.data : "", in->bytes.len) ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < in->spans.len && ok; i++) {
        const char *text = in->bytes.data + in->spans.data[i].start;
        size_t len = in->spans.data[i].len;
        if (step->kind == TM__DECODE_REPLACE)
            TM__TRY(decode_replace(step, data, text, len, out));
        else if (step->kind == TM__DECODE_STRIP)
            ok = decode_strip(step, text, len, out);
        else if (step->kind == TM__DECODE_WORDPIECE)
            ok = decode_wordpiece(step, text, len, i == 0, out);
        else if (step->kind == TM__DECODE_SUFFIX)
            ok = decode_suffix(step, text, len, i + 1 == in->spans.len, out);
        else
            ok = decode_metaspace(step, text, len, i == 0, out);
    }
    return ok ? TM_OK : tm__fail_memory();
}

/* ---- whole texts ---------------------------------------------------------------------------------------------------
 */

static const tm__piece *visible(const tm_tokenizer *tok, int32_t id, unsigned flags) {
    const tm__piece *piece = &tok->vocab.pieces[id];
    bool hidden = flags & TM_DECODE_SKIP_SPECIAL && piece->flags & TM__PIECE_SPECIAL;
    return !piece->text || hidden ? NULL : piece;
}

static bool byte_level(const tm_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, tm__string *out) {
    tm__string raw = {0};
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        const tm__piece *piece = visible(tok, ids[i], flags);
        if (piece) ok = tm__string_append(&raw, piece->raw, piece->raw_len);
    }
    ok = ok && tm__utf8_clean(raw.data ? raw.data : "", raw.len, false, out);
    tm__string_free(&raw);
    return ok;
}

static bool append_piece(const tm__piece *piece, bool at_start, tm__string *out) {
    const char *text = piece->text;
    for (uint32_t i = 0; i < piece->len;) {
        bool mark = piece->len - i >= 3 && memcmp(text + i, space_mark, 3) == 0;
        uint32_t width = mark ? 3 : 1;
        bool dropped = mark && at_start && i == 0;
        if (!dropped && !tm__string_append(out, mark ? " " : text + i, 1)) return false;
        i += width;
    }
    return true;
}

/* As SentencePieceProcessor::Decode, except that control pieces show unless they are skipped. */
static bool sentencepiece(const tm_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, tm__string *out) {
    bool at_start = true, ok = true, strips = tok->spm.dummy_prefix || tok->spm.remove_extra;
    tm__string run = {0};
    for (size_t i = 0; i <= n && ok; i++) {
        const tm__piece *piece = i < n ? &tok->vocab.pieces[ids[i]] : NULL;
        if (piece && piece->flags & TM__PIECE_BYTE) {
            ok = tm__string_append(&run, &(char){(char)tm__byte_of_piece(piece->text, piece->len)}, 1);
            continue;
        }
        if (run.len) {
            ok = tm__utf8_clean(run.data, run.len, true, out);
            run.len = 0;
            at_start = false;
        }
        if (!piece || !piece->text || !ok) continue;
        if (piece->flags & TM__PIECE_UNKNOWN) {
            ok = tm__string_append(out, tok->spm.unknown, strlen(tok->spm.unknown));
            at_start = false;
        } else if (piece->flags & TM__PIECE_SPECIAL) {
            ok = flags & TM_DECODE_SKIP_SPECIAL || tm__string_append(out, piece->text, piece->len);
        } else {
            bool lone_mark = piece->len == 3 && memcmp(piece->text, space_mark, 3) == 0;
            ok = append_piece(piece, at_start && strips, out);
            at_start = at_start && strips && lone_mark && tok->spm.remove_extra;
        }
    }
    tm__string_free(&run);
    return ok;
}

static tm_status pipeline(const tm_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, tm__string *out) {
    piece_list lists[2] = {0};
    struct pcre2_real_match_data_8 *data = tm__regex_match_data();
    tm_status status = data ? TM_OK : tm__fail_memory();
    for (size_t i = 0; i < n && status == TM_OK; i++) {
        const tm__piece *piece = visible(tok, ids[i], flags);
        if (piece && !list_add(&lists[0], piece->shown, piece->shown_len)) status = tm__fail_memory();
    }
    size_t at = 0;
    for (size_t i = 0; i < tok->decoders.len && status == TM_OK; i++, at = !at) {
        piece_list *to = &lists[!at];
        to->bytes.len = to->spans.len = 0;
        status = run_decoder(&tok->decoders.data[i], data, &lists[at], to);
    }
    const piece_list *last = &lists[at];
    const char *glue = tok->decoders.len ? "" : " "; /* the reference joins pieces by spaces where it has no decoder */
    for (size_t i = 0; i < last->spans.len && status == TM_OK; i++) {
        const tm__span *span = &last->spans.data[i];
        if ((i && !tm__string_append(out, glue, strlen(glue))) ||
            !tm__string_append(out, last->bytes.data + span->start, span->len))
            status = tm__fail_memory();
    }
    tm__regex_match_data_free(data);
    list_free(&lists[0]);
    list_free(&lists[1]);
    return status;
}

tm_status tm_tokenizer_decode(const tm_tokenizer *tokenizer, const int32_t *ids, size_t n, unsigned flags, char **text,
                              size_t *len) {
    tm__string out = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= tokenizer->vocab.size)
            return tm__fail(TM_INVALID, NULL, "ids", NULL, "id %d is outside the vocabulary of %d", (int)ids[i],
                            (int)tokenizer->vocab.size);
    tm__step_kind first = tokenizer->decoders.len ? tokenizer->decoders.data[0].kind : TM__DECODE_FUSE;
    if (!tm__string_append(&out, "", 0))
        status = tm__fail_memory();
    else if (first == TM__DECODE_BYTE_LEVEL && tokenizer->decoders.len == 1 && !tokenizer->shows_normalized)
        status = byte_level(tokenizer, ids, n, flags, &out) ? TM_OK : tm__fail_memory();
    else if (first == TM__DECODE_SENTENCEPIECE)
        status = sentencepiece(tokenizer, ids, n, flags, &out) ? TM_OK : tm__fail_memory();
    else
        status = pipeline(tokenizer, ids, n, flags, &out);
    if (status != TM_OK) {
        tm__string_free(&out);
        return status;
    }
    *text = out.data;
    if (len) *len = out.len;
    return TM_OK;
}
