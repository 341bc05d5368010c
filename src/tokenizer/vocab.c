/* vocab.c: the pieces of a vocabulary, their ids, and GPT-2's byte alphabet.
 *
 * The byte alphabet writes each byte as a printable character: the printable bytes of Latin-1 stand for themselves, the
 * other 68 are U+0100 onwards in order (Radford et al. 2019, bytes_to_unicode).
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static bool printable(int byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

uint32_t tm__code_of_byte(int byte) {
    if (printable(byte)) return (uint32_t)byte;
    return 256 + (uint32_t)(byte <= 0x20 ? byte : byte == 0xad ? 67 : byte - 0x7f + 0x21);
}

/* The 68 others are 0x00-0x20, 0x7f-0xa0 and 0xad. */
int tm__byte_of_code(uint32_t code) {
    if (code < 256) return printable((int)code) ? (int)code : -1;
    uint32_t index = code - 256;
    if (index <= 0x20) return (int)index;
    if (index <= 0x20 + 34) return (int)(0x7f + index - 0x21);
    return index == 67 ? 0xad : -1;
}

int tm__byte_of_piece(const char *text, size_t len) {
    int value = 0;
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        int c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

int32_t tm__vocab_id(const tm__vocab *vocab, const char *text, size_t len) {
    int32_t id;
    return tm__map_get(&vocab->ids, text, len, &id) ? id : -1;
}

static tm_status refuse(const char *file, const char *text, size_t len, const char *why, int32_t id) {
    char field[64];
    snprintf(field, sizeof field, "token \"%.*s\"", (int)TM__MIN(len, (size_t)40), text);
    return tm__fail(TM_FORMAT, file, field, NULL, "id %d %s", (int)id, why);
}

tm_status tm__vocab_add(tm__vocab *vocab, const char *file, const char *text, size_t len, int32_t id, unsigned flags) {
    if (id < 0 || id >= TM__VOCAB_MAX) return refuse(file, text, len, "is out of range", id);
    if (len > INT32_MAX / 4) return refuse(file, text, len, "is too long", id);
    if (!tm__utf8_valid(text, len)) return refuse(file, text, len, "is not valid UTF-8", id);
    if (id < vocab->size && vocab->pieces[id].text) return refuse(file, text, len, "belongs to another token too", id);
    if (tm__map_get(&vocab->ids, text, len, NULL)) return refuse(file, text, len, "repeats a token", id);
    if ((size_t)id >= vocab->cap) {
        size_t old = vocab->cap;
        if (!tm__grow((void **)&vocab->pieces, &vocab->cap, (size_t)id + 1, sizeof *vocab->pieces))
            return tm__fail_memory();
        memset(vocab->pieces + old, 0, (vocab->cap - old) * sizeof *vocab->pieces);
    }
    char *copy = tm__arena_strdup(&vocab->strings, text, len);
    if (!copy || !tm__map_put(&vocab->ids, text, len, id)) return tm__fail_memory();
    vocab->pieces[id] = (tm__piece){.text = copy,
                                    .raw = copy,
                                    .shown = copy,
                                    .len = (uint32_t)len,
                                    .raw_len = (uint32_t)len,
                                    .shown_len = (uint32_t)len,
                                    .flags = flags};
    vocab->size = TM__MAX(vocab->size, id + 1);
    vocab->count++;
    return TM_OK;
}

tm_status tm__vocab_check(const tm__vocab *vocab, const char *file) {
    if (vocab->count == 0) return tm__fail(TM_FORMAT, file, "vocab", NULL, "is empty");
    if (vocab->size - vocab->count > TM__VOCAB_HOLES)
        return tm__fail(TM_FORMAT, file, "vocab", NULL, "%d tokens, but the highest id is %d", (int)vocab->count,
                        (int)vocab->size - 1);
    return TM_OK;
}

tm_status tm__vocab_decode_bytes(tm__vocab *vocab) {
    for (int32_t id = 0; id < vocab->size; id++) {
        tm__piece *piece = &vocab->pieces[id];
        if (!piece->text) continue;
        char *raw = tm__arena_alloc(&vocab->strings, piece->len + 1, 1);
        if (!raw) return tm__fail_memory();
        uint32_t code, len = 0;
        for (uint32_t i = 0; i < piece->len; len++) {
            i += (uint32_t)tm__utf8_decode(piece->text + i, piece->len - i, &code);
            int byte = tm__byte_of_code(code);
            if (byte < 0) break;
            raw[len] = (char)byte;
            if (i == piece->len) {
                piece->raw = raw;
                piece->raw_len = len + 1;
            }
        }
    }
    return TM_OK;
}
