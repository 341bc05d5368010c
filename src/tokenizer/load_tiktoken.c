/* load_tiktoken.c: Llama 3's tokenizer.model: one line per token, its bytes in base64 and its rank, which is its id.
 *
 * A tiktoken encoder merges the two neighbours whose union has the lowest rank, and takes a word that is a token as a
 * whole. So every way to cut a token into two tokens is a merge of that token's rank. The 256 special tokens after the
 * vocabulary and the split pattern are those of Meta's tokenizer.py for Llama 3 and 3.1.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { LLAMA3_SPECIAL = 256 };

static int digit_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes in place of `out` (3/4 of len); false: no base64. */
bool tm__base64_decode(const char *text, size_t len, char *out, size_t *out_len) {
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0, padding = 0;
    if (len == 0 || len % 4) return false;
    while (padding < 2 && text[len - 1 - padding] == '=') padding++;
    for (size_t i = 0; i < len - padding; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        out[n++] = (char)(bits >> have & 0xff);
    }
    *out_len = n;
    return true;
}

/* Written in the byte alphabet, as in a tokenizer.json; the raw bytes follow from it. */
static tm_status add_token(tm_tokenizer *tok, const char *file, const char *raw, size_t len, int32_t id) {
    tm__string text = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; i < len && status == TM_OK; i++) {
        char utf8[4];
        int width = tm__utf8_encode(tm__code_of_byte((uint8_t)raw[i]), utf8);
        if (!tm__string_append(&text, utf8, (size_t)width)) status = tm__fail_memory();
    }
    if (status == TM_OK) status = tm__vocab_add(&tok->vocab, file, text.data ? text.data : "", text.len, id, 0);
    tm__string_free(&text);
    return status;
}

static tm_status read_line(tm_tokenizer *tok, const char *file, const char *line, size_t len, size_t number) {
    char raw[512], name[32];
    size_t raw_len = 0, at = 0;
    snprintf(name, sizeof name, "line %zu", number);
    while (at < len && line[at] != ' ') at++;
    if (at / 4 * 3 > sizeof raw || !tm__base64_decode(line, at, raw, &raw_len) || raw_len == 0)
        return tm__fail(TM_FORMAT, file, name, NULL, "must begin with a token in base64");
    int64_t rank = at + 1 < len ? 0 : -1;
    for (size_t i = at + 1; i < len && rank >= 0 && rank < TM__VOCAB_MAX; i++)
        rank = line[i] >= '0' && line[i] <= '9' ? rank * 10 + (line[i] - '0') : -1;
    if (rank < 0 || rank >= TM__VOCAB_MAX)
        return tm__fail(TM_FORMAT, file, name, NULL, "must end with a rank below %d", TM__VOCAB_MAX);
    return add_token(tok, file, raw, raw_len, (int32_t)rank);
}

static tm_status read_lines(tm_tokenizer *tok, const char *file, const char *data, size_t len) {
    size_t number = 1;
    for (size_t start = 0, end; start < len; start = end + 1, number++) {
        const char *newline = memchr(data + start, '\n', len - start);
        end = newline ? (size_t)(newline - data) : len;
        size_t line = end - start;
        if (line && data[start + line - 1] == '\r') line--;
        if (line) TM__TRY(read_line(tok, file, data + start, line, number));
    }
    return tm__vocab_check(&tok->vocab, file);
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

static size_t add_pairs(tm_tokenizer *tok, int32_t id, bool add) {
    const tm__piece *piece = &tok->vocab.pieces[id];
    size_t pairs = 0;
    if (!piece->text) return 0;
    for (uint32_t cut = 1; cut < piece->len; cut++) {
        if (((uint8_t)piece->text[cut] & 0xc0) == 0x80) continue;
        int32_t left = tm__vocab_id(&tok->vocab, piece->text, cut);
        if (left < 0) continue;
        int32_t right = tm__vocab_id(&tok->vocab, piece->text + cut, piece->len - cut);
        if (right < 0) continue;
        pairs++;
        if (add) tm__bpe_add(&tok->bpe, left, right, (uint32_t)id, id);
    }
    return pairs;
}

static tm_status build_merges(tm_tokenizer *tok) {
    size_t pairs = 0;
    for (int32_t id = 0; id < tok->vocab.size; id++) pairs += add_pairs(tok, id, false);
    if (!tm__bpe_reserve(&tok->bpe, pairs)) return tm__fail_memory();
    for (int32_t id = 0; id < tok->vocab.size; id++) add_pairs(tok, id, true);
    return TM_OK;
}

/* ---- special tokens ---------------------------------------------------------------------------------------------- */

/* Index among the special tokens, and name. All others are <|reserved_special_token_N|>, counted in order. */
static const struct {
    int index;
    const char *name;
} named[] = {{0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
             {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
             {9, "<|eot_id|>"},          {10, "<|python_tag|>"}};

static tm_status add_special(tm_tokenizer *tok, const char *file) {
    int32_t base = tok->vocab.size;
    for (int i = 0, reserved = 0; i < LLAMA3_SPECIAL; i++) {
        char text[48] = "";
        for (size_t k = 0; k < TM__COUNT(named); k++)
            if (named[k].index == i) snprintf(text, sizeof text, "%s", named[k].name);
        if (!*text) snprintf(text, sizeof text, "<|reserved_special_token_%d|>", reserved++);
        TM__TRY(tm__added_put(tok, file, text, strlen(text), base + i, &(tm__added){.special = true}));
    }
    tok->bos = base;
    tok->eos = base + 1;
    tok->pad = base + 4;
    return TM_OK;
}

tm_status tm__load_tiktoken(tm_tokenizer *tok, const char *path, const char *data, size_t len) {
    TM__TRY(read_lines(tok, path, data, len));
    TM__TRY(build_merges(tok));
    TM__TRY(add_special(tok, path));
    TM__TRY(tm_ids_push(&tok->prefix, tok->bos));
    tok->kind = "byte-level BPE";
    tok->bpe.whole_words = true;
    return tm__load_byte_level(tok, path, tm__pattern_llama3);
}
