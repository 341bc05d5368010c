/* stream.c: ids to text one by one, never with part of a character.
 *
 * The ids since a safe point are decoded again with each new one, and what is new is handed out. Replacement characters
 * at the end are held back: they may be the beginning of a character. Once a few dozen ids have gathered, all but the
 * last few are forgotten; those stay because decoders look at what comes before (a blank at the start goes).
 * All texts together are the decoded ids, but for a run of byte pieces that turns out invalid after its beginning was
 * handed out. tests/unit/test_tokenizer_stream.c compares the pieces with the decoded whole.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { MOST = 64, CONTEXT = 8 };

struct tm_stream {
    const tm_tokenizer *tok;
    unsigned flags;
    tm_ids ids;
    char *text;  /* of ids */
    size_t done; /* bytes of it that were handed out */
};

tm_status tm_stream_open(const tm_tokenizer *tokenizer, unsigned flags, tm_stream **stream) {
    *stream = tm__zalloc(1, sizeof **stream);
    if (!*stream) return tm__fail_memory();
    (*stream)->tok = tokenizer;
    (*stream)->flags = flags;
    return TM_OK;
}

void tm_stream_close(tm_stream *stream) {
    if (!stream) return;
    tm_ids_free(&stream->ids);
    free(stream->text);
    free(stream);
}

static size_t without_replacement(const char *text, size_t len) {
    while (len >= 3 && memcmp(text + len - 3, "\xef\xbf\xbd", 3) == 0) len -= 3;
    return len;
}

/* Forgets what is not needed any more: in place of all ids the last few, if they make text by themselves. */
static tm_status forget(tm_stream *stream) {
    char *text;
    size_t len, from = stream->ids.len - CONTEXT;
    TM__TRY(tm_tokenizer_decode(stream->tok, stream->ids.data + from, CONTEXT, stream->flags, &text, &len));
    if (len == 0 || without_replacement(text, len) != len) {
        free(text);
        return TM_OK;
    }
    memmove(stream->ids.data, stream->ids.data + from, CONTEXT * sizeof *stream->ids.data);
    stream->ids.len = CONTEXT;
    stream->done = len;
    free(text);
    return TM_OK;
}

static tm_status hand_out(tm_stream *stream, bool all, const char **text, size_t *text_len) {
    char *whole;
    size_t len;
    TM__TRY(tm_tokenizer_decode(stream->tok, stream->ids.data, stream->ids.len, stream->flags, &whole, &len));
    free(stream->text);
    stream->text = whole;
    size_t end = all ? len : without_replacement(whole, len), from = TM__MIN(stream->done, end);
    while (from < end && ((uint8_t)whole[from] & 0xc0) == 0x80) from++; /* bytes that turned out to be no text */
    *text = whole + from;
    *text_len = end - from;
    whole[end] = 0;
    stream->done = TM__MAX(stream->done, end);
    return end == len && stream->done == len && stream->ids.len >= MOST ? forget(stream) : TM_OK;
}

tm_status tm_stream_put(tm_stream *stream, int32_t id, const char **text, size_t *len) {
    bool end = id == -1; /* hands out what was held back; the stream is as new then */
    if (!end) TM__TRY(tm_ids_push(&stream->ids, id));
    tm_status status = hand_out(stream, end, text, len);
    if (status != TM_OK && !end) stream->ids.len--; /* a refused id counts as not given */
    if (status == TM_OK && end) stream->ids.len = stream->done = 0;
    return status;
}
