/* bench_files.c: a tokenizer.json and rows that take as long to read as real ones do.
 *
 * The tokenizer is byte-level BPE in GPT-2's layout. Beyond the 256 bytes its tokens are pairs of earlier ones, drawn
 * at random, of letters with or without a blank in front, at most twelve bytes long: a vocabulary of GPT-2's length in
 * bytes. One more, <|end|>, ends answers. Words are drawn at random too, so that hardly any is met twice.
 * (tests/unit/test_bench_tokenize.c)
 */
#include "lab/bench_files.h"

#include <stdlib.h>

enum { BYTES = 256, LONGEST = 12 };

/* ---- tokenizer --------------------------------------------------------------------------------------------------- */

/* GPT-2's letter for a byte: itself, or one from U+0100 on for what is not printable. */
static bool put_byte(tm__string *out, int byte) {
    uint32_t next = 256, code = (uint32_t)byte;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte && !printable) code = next;
        next += !printable;
    }
    if (code == '"' || code == '\\') return tm__string_printf(out, "\\%c", (int)code);
    if (code < 0x80) return tm__string_printf(out, "%c", (int)code);
    return tm__string_printf(out, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
}

typedef struct pieces {
    tm__arena arena;
    tm__map seen;
    const char **text; /* as in the file; bytes have none */
    size_t *length;    /* in bytes of the text they stand for */
    tm__rng rng;
} pieces;

static const char blank[] = "\xc4\xa0"; /* U+0120, the letter for a blank */

/* A token to build on: a letter, a blank, or one that was made before. */
static const char *draw(pieces *p, int64_t made, bool front, size_t *length) {
    static const char letters[26][2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m",
                                        "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z"};
    uint32_t which = tm__rng_u32(&p->rng);
    *length = 1;
    if (front && which % 8 == 0) return blank;
    if (made == BYTES || which % 8 < 3) return letters[which / 8 % 26];
    int64_t i = BYTES + which / 8 % (made - BYTES);
    if (!front && strncmp(p->text[i], blank, 2) == 0) return letters[which / 8 % 26];
    *length = p->length[i];
    return p->text[i];
}

/* The token `made`: a pair that is not there yet. */
static tm_status make_piece(pieces *p, int64_t made, tm__string *merges) {
    for (;;) {
        size_t left_length, right_length;
        const char *left = draw(p, made, true, &left_length), *right = draw(p, made, false, &right_length);
        if (left_length + right_length > LONGEST) continue;
        size_t a = strlen(left), b = strlen(right);
        char *text = tm__arena_alloc(&p->arena, a + b + 1, 1);
        if (!text) return tm__fail_memory();
        memcpy(text, left, a);
        memcpy(text + a, right, b + 1);
        if (tm__map_get(&p->seen, text, a + b, NULL)) continue;
        p->text[made] = text;
        p->length[made] = left_length + right_length;
        bool ok = tm__map_put(&p->seen, text, a + b, 1) &&
                  tm__string_printf(merges, "%s\"%s %s\"", made > BYTES ? ", " : "", left, right);
        return ok ? TM_OK : tm__fail_memory();
    }
}

static tm_status make_text(pieces *p, int64_t vocab, tm__string *out, tm__string *merges) {
    bool ok = tm__string_printf(out,
                                "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": %lld, \"content\": "
                                "\"<|end|>\", \"special\": true}], \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                                "\"add_prefix_space\": false, \"use_regex\": true}, \"decoder\": {\"type\": "
                                "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {",
                                (long long)vocab - 1);
    for (int b = 0; b < BYTES && ok; b++)
        ok = tm__string_printf(out, b ? ", \"" : "\"") && put_byte(out, b) && tm__string_printf(out, "\": %d", b);
    for (int64_t i = BYTES; i < vocab - 1 && ok; i++) {
        TM__TRY(make_piece(p, i, merges));
        ok = tm__string_printf(out, ", \"%s\": %lld", p->text[i], (long long)i);
    }
    ok = ok && tm__string_printf(out, ", \"<|end|>\": %lld}, \"merges\": [%s]}}\n", (long long)vocab - 1,
                                 merges->data ? merges->data : "");
    return ok ? TM_OK : tm__fail_memory();
}

tm_status tm__bench_write_tokenizer(int64_t vocab, const char *directory) {
    pieces p = {.rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 0))};
    tm__string text = {0}, merges = {0};
    if (vocab <= BYTES)
        return tm__fail(TM_UNSUPPORTED, NULL, "vocab_size", NULL, "%lld is less than the %d of a tokenizer of bytes",
                        (long long)vocab, BYTES + 1);
    char *path = tm__path_join(directory, "tokenizer.json");
    p.text = tm__zalloc((size_t)vocab, sizeof *p.text);
    p.length = tm__zalloc((size_t)vocab, sizeof *p.length);
    tm_status status = path && p.text && p.length ? make_text(&p, vocab, &text, &merges) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text.data, text.len);
    tm__string_free(&text);
    tm__string_free(&merges);
    tm__map_free(&p.seen);
    tm__arena_release(&p.arena);
    free(p.text);
    free(p.length);
    free(path);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static bool put_words(tm__string *out, int64_t letters, tm__rng *rng) {
    bool ok = true;
    for (int64_t at = 0; at < letters && ok;) {
        int64_t length = 2 + (int64_t)tm__rng_below(rng, 8);
        char word[12];
        for (int64_t i = 0; i < length; i++) word[i] = (char)('a' + tm__rng_below(rng, 26));
        word[length] = ' ';
        ok = tm__string_append(out, word, (size_t)length + 1);
        at += length + 1;
    }
    return ok;
}

tm_status tm__bench_write_rows(int64_t rows, int64_t length, const char *path) {
    tm__rng rng = tm__rng_make(2, tm__stream(TM__STREAM_TEST, 0));
    tm__writer writer;
    tm__string row = {0};
    TM__TRY(tm__writer_open(&writer, path));
    bool ok = true;
    for (int64_t i = 0; i < rows && ok; i++) {
        row.len = 0;
        ok = tm__string_printf(&row, "{\"prompt\": \"%lld ", (long long)i) && put_words(&row, length / 4, &rng) &&
             tm__string_printf(&row, "\", \"completion\": \"") && put_words(&row, length, &rng) &&
             tm__string_printf(&row, "\"}\n");
        if (ok) tm__writer_put(&writer, row.data, row.len);
    }
    tm__string_free(&row);
    if (ok) return tm__writer_close(&writer);
    tm__writer_abandon(&writer);
    return tm__fail_memory();
}
