/* load_spm.c: SentencePiece models (tokenizer.model), BPE and Unigram, and llama2.c's export of them (tokenizer.bin).
 *
 * A .model file is one protobuf message, ModelProto of sentencepiece_model.proto:
 *     1 pieces: {1 piece, 2 score, 3 type}    2 trainer_spec    3 normalizer_spec    5 denormalizer_spec
 * Its merges are not listed: any two neighbours whose union is a piece may merge, the piece of the highest score first.
 * All such pairs are enumerated at load time, with the rank of the union's score among all scores, so that the merging
 * itself is that of bpe.c. A character that occurs in pieces but is none gets a symbol of its own for the merges; the
 * library compares strings and so merges it too.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };
/* In bytes. Enumerating a piece's cuts takes the square of it; real pieces end at a few dozen. */
enum { LONGEST_PIECE = 2048 };

/* ---- protobuf wire format ---------------------------------------------------------------------------------------- */

typedef struct wire {
    const uint8_t *at, *end;
    const char *file;
} wire;

/* One field. value: varint or fixed number; data, len: length-delimited bytes. */
typedef struct field {
    uint32_t number, type;
    uint64_t value;
    const char *data;
    size_t len;
} field;

static tm_status broken(const wire *in, const char *what) {
    return tm__fail(TM_FORMAT, in->file, "protobuf", "the file is cut off or no SentencePiece model", "%s", what);
}

static tm_status read_varint(wire *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (in->at == in->end) return broken(in, "number runs past the end");
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return TM_OK;
    }
    return broken(in, "number longer than 64 bits");
}

static tm_status read_fixed(wire *in, size_t bytes, uint64_t *value) {
    *value = 0;
    if ((size_t)(in->end - in->at) < bytes) return broken(in, "number runs past the end");
    for (size_t i = 0; i < bytes; i++) *value |= (uint64_t)in->at[i] << (8 * i);
    in->at += bytes;
    return TM_OK;
}

static tm_status read_field(wire *in, field *out) {
    uint64_t key;
    TM__TRY(read_varint(in, &key));
    *out = (field){.number = (uint32_t)(key >> 3), .type = (uint32_t)(key & 7)};
    if (out->number == 0 || key >> 32) return broken(in, "field number out of range");
    switch (out->type) {
    case 0:
        return read_varint(in, &out->value);
    case 1:
        return read_fixed(in, 8, &out->value);
    case 5:
        return read_fixed(in, 4, &out->value);
    case 2:
        TM__TRY(read_varint(in, &out->value));
        if (out->value > (uint64_t)(in->end - in->at)) return broken(in, "text runs past the end");
        out->data = (const char *)in->at;
        out->len = (size_t)out->value;
        in->at += out->len;
        return TM_OK;
    default:
        return broken(in, "unknown wire type");
    }
}

static wire inside(const wire *in, const field *message) {
    const uint8_t *data = (const uint8_t *)message->data;
    return (wire){.at = data, .end = data + message->len, .file = in->file};
}

static float as_float(uint64_t value) {
    uint32_t bits = (uint32_t)value;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static unsigned flags_of(uint64_t type) {
    switch (type) {
    case TYPE_UNKNOWN:
        return TM__PIECE_UNKNOWN | TM__PIECE_SPECIAL;
    case TYPE_CONTROL:
        return TM__PIECE_SPECIAL;
    case TYPE_USER:
        return TM__PIECE_USER;
    case TYPE_UNUSED:
        return TM__PIECE_UNUSED;
    case TYPE_BYTE:
        return TM__PIECE_BYTE;
    default:
        return 0;
    }
}

static tm_status read_piece(tm_tokenizer *tok, wire in) {
    const char *text = "";
    size_t len = 0;
    uint64_t type = TYPE_NORMAL;
    float score = 0;
    int32_t id = tok->vocab.size;
    char name[32];
    snprintf(name, sizeof name, "piece %d", (int)id);
    while (in.at < in.end) {
        field part;
        TM__TRY(read_field(&in, &part));
        if (part.number == 1 && part.type == 2) text = part.data, len = part.len;
        if (part.number == 2 && part.type == 5) score = as_float(part.value);
        if (part.number == 3 && part.type == 0) type = part.value;
    }
    if (len == 0) return tm__fail(TM_FORMAT, in.file, name, NULL, "is empty");
    if (len > LONGEST_PIECE) return tm__fail(TM_FORMAT, in.file, name, NULL, "is longer than %d bytes", LONGEST_PIECE);
    if (memchr(text, 0, len)) return tm__fail(TM_FORMAT, in.file, name, NULL, "holds a NUL");
    if (type < TYPE_NORMAL || type > TYPE_BYTE) return tm__fail(TM_FORMAT, in.file, name, NULL, "unknown type");
    if (!isfinite(score)) return tm__fail(TM_FORMAT, in.file, name, NULL, "score is not finite");
    if (type == TYPE_BYTE && tm__byte_of_piece(text, len) < 0)
        return tm__fail(TM_FORMAT, in.file, name, NULL, "is of type byte, but not of the form <0x0A>");
    TM__TRY(tm__vocab_add(&tok->vocab, in.file, text, len, id, flags_of(type)));
    tok->vocab.pieces[id].score = score;
    return TM_OK;
}

static tm_status read_trainer(tm_tokenizer *tok, wire in, uint64_t *model) {
    while (in.at < in.end) {
        field part;
        TM__TRY(read_field(&in, &part));
        if (part.type == 2 && part.number == 44 && !memchr(part.data, 0, part.len)) {
            tok->spm.unknown = tm__arena_strdup(&tok->vocab.strings, part.data, part.len);
            if (!tok->spm.unknown) return tm__fail_memory();
        }
        if (part.type != 0) continue;
        int32_t number = (int32_t)(uint32_t)part.value;
        switch (part.number) {
        case 3:
            *model = part.value;
            break;
        case 24:
            tok->spm.suffix = part.value;
            break;
        case 35:
            tok->bpe.byte_fallback = tok->unigram.byte_fallback = part.value;
            break;
        case 41:
            tok->bos = number;
            break;
        case 42:
            tok->eos = number;
            break;
        case 43:
            tok->pad = number;
        }
    }
    return TM_OK;
}

static tm_status read_normalizer(tm_tokenizer *tok, wire in) {
    while (in.at < in.end) {
        field part;
        TM__TRY(read_field(&in, &part));
        if (part.number == 2 && part.type == 2)
            TM__TRY(tm__charsmap_load(&tok->spm.map, tok, part.data, part.len, in.file,
                                      "normalizer_spec.precompiled_charsmap"));
        if (part.type != 0) continue;
        if (part.number == 3) tok->spm.dummy_prefix = part.value;
        if (part.number == 4) tok->spm.remove_extra = part.value;
        if (part.number == 5) tok->spm.escape = part.value;
    }
    return TM_OK;
}

static tm_status read_denormalizer(wire in) {
    while (in.at < in.end) {
        field part;
        TM__TRY(read_field(&in, &part));
        if (part.number == 2 && part.type == 2 && part.len)
            return tm__fail(TM_UNSUPPORTED, in.file, "denormalizer_spec.precompiled_charsmap", NULL, "is not empty");
    }
    return TM_OK;
}

static tm_status read_model(tm_tokenizer *tok, wire in, uint64_t *model) {
    while (in.at < in.end) {
        field part;
        TM__TRY(read_field(&in, &part));
        if (part.type != 2) continue;
        if (part.number == 1) TM__TRY(read_piece(tok, inside(&in, &part)));
        if (part.number == 2) TM__TRY(read_trainer(tok, inside(&in, &part), model));
        if (part.number == 3) TM__TRY(read_normalizer(tok, inside(&in, &part)));
        if (part.number == 5) TM__TRY(read_denormalizer(inside(&in, &part)));
    }
    return TM_OK;
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

/* Pieces that merges make: neither control nor byte nor unknown, nor user-defined ones, which are cut out before. */
static bool merges_to(const tm__piece *piece) {
    return piece->text && piece->flags == 0;
}

/* Symbol of a text: a piece, or a character that occurs in pieces. -1: none. */
static int32_t symbol_of(const tm_tokenizer *tok, const tm__map *pseudo, const char *text, size_t len) {
    int32_t id = tm__vocab_id(&tok->vocab, text, len), index;
    if (id >= 0 && merges_to(&tok->vocab.pieces[id])) return id;
    return tm__map_get(pseudo, text, len, &index) ? tok->vocab.size + index : -1;
}

static tm_status note_characters(tm_tokenizer *tok, const tm__piece *piece, tm__map *pseudo) {
    tm__bpe *bpe = &tok->bpe;
    uint32_t code;
    for (uint32_t i = 0, width; i < piece->len; i += width) {
        const char *text = piece->text + i;
        width = (uint32_t)tm__utf8_decode(text, piece->len - i, &code);
        if (symbol_of(tok, pseudo, text, width) >= 0) continue;
        if (!tm__grow((void **)&bpe->pseudo, &bpe->pseudo_cap, bpe->pseudo_len + 1, sizeof *bpe->pseudo) ||
            !(bpe->pseudo[bpe->pseudo_len] = tm__arena_strdup(&tok->vocab.strings, text, width)) ||
            !tm__map_put(pseudo, text, width, (int32_t)bpe->pseudo_len))
            return tm__fail_memory();
        bpe->pseudo_len++;
    }
    return TM_OK;
}

typedef struct ranked {
    float score;
    int32_t id;
} ranked;

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Every way to cut the piece into two symbols. With `add` false they are only counted. */
static size_t add_pairs(tm_tokenizer *tok, const tm__map *pseudo, int32_t id, uint32_t rank, bool add) {
    const tm__piece *piece = &tok->vocab.pieces[id];
    size_t pairs = 0;
    for (uint32_t cut = 1; cut < piece->len; cut++) {
        if (((uint8_t)piece->text[cut] & 0xc0) == 0x80) continue;
        int32_t left = symbol_of(tok, pseudo, piece->text, cut);
        if (left < 0) continue;
        int32_t right = symbol_of(tok, pseudo, piece->text + cut, piece->len - cut);
        if (right < 0) continue;
        pairs++;
        if (add) tm__bpe_add(&tok->bpe, left, right, rank, id);
    }
    return pairs;
}

static tm_status rank_pieces(tm_tokenizer *tok, const tm__map *pseudo, ranked *order) {
    size_t n = 0, pairs = 0;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!merges_to(piece)) continue;
        pairs += add_pairs(tok, pseudo, id, 0, false);
        order[n++] = (ranked){.score = piece->score, .id = id};
    }
    qsort(order, n, sizeof *order, by_score);
    if (!tm__bpe_reserve(&tok->bpe, pairs)) return tm__fail_memory();
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && order[i].score != order[i - 1].score) rank++;
        add_pairs(tok, pseudo, order[i].id, rank, true);
    }
    return TM_OK;
}

static tm_status build_merges(tm_tokenizer *tok, const char *path) {
    tm__map pseudo = {0};
    tm_status status = TM_OK;
    ranked *order = tm__alloc((size_t)tok->vocab.size, sizeof *order);
    if (!order) return tm__fail_memory();
    for (int32_t id = 0; id < tok->vocab.size && status == TM_OK; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (piece->flags & TM__PIECE_UNUSED)
            status =
                tm__fail(TM_UNSUPPORTED, path, "pieces", NULL, "piece %d is of type unused in a BPE model", (int)id);
        else if (merges_to(piece))
            status = note_characters(tok, piece, &pseudo);
    }
    if (status == TM_OK) status = rank_pieces(tok, &pseudo, order);
    free(order);
    tm__map_free(&pseudo);
    return status;
}

/* ---- finishing --------------------------------------------------------------------------------------------------- */

/* Control and user-defined pieces become added tokens; the latter are kept whole by the normalizer too. */
static tm_status add_tokens(tm_tokenizer *tok, const char *path, int32_t *unknown) {
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        tm__piece *piece = &tok->vocab.pieces[id];
        if (!piece->text) continue;
        if (piece->flags & TM__PIECE_UNKNOWN) {
            if (*unknown >= 0) return tm__fail(TM_FORMAT, path, "pieces", NULL, "two of type unknown");
            *unknown = id;
        }
        bool user = piece->flags & TM__PIECE_USER;
        if (user && !tm__trie_add(&tok->spm.user, piece->text, piece->len, id)) return tm__fail_memory();
        if (!(piece->flags & TM__PIECE_SPECIAL) && !(user && tok->model == TM__MODEL_BPE)) continue;
        tm__added added = {.special = !user, .normalized = user};
        TM__TRY(tm__added_put(tok, path, piece->text, piece->len, id, &added));
    }
    if (*unknown < 0) return tm__fail(TM_FORMAT, path, "pieces", NULL, "none of type unknown");
    return TM_OK;
}

static tm_status check_bytes(const tm_tokenizer *tok, const char *path) {
    bool seen[256] = {0};
    int count = 0;
    for (int32_t id = 0; id < tok->vocab.size; id++) {
        const tm__piece *piece = &tok->vocab.pieces[id];
        if (!piece->text || !(piece->flags & TM__PIECE_BYTE)) continue;
        bool *known = &seen[tm__byte_of_piece(piece->text, piece->len)];
        count += !*known;
        *known = true;
    }
    if (count == 256) return TM_OK;
    return tm__fail(TM_FORMAT, path, "pieces", NULL, "byte_fallback needs 256 byte pieces, %d are there", count);
}

static void forget_outside(const tm_tokenizer *tok, int32_t *id) {
    if (*id < 0 || *id >= tok->vocab.size) *id = -1;
}

static tm_status finish(tm_tokenizer *tok, const char *path) {
    int32_t unknown = -1;
    TM__TRY(tm__vocab_check(&tok->vocab, path));
    TM__TRY(add_tokens(tok, path, &unknown));
    if (tok->bpe.byte_fallback) TM__TRY(check_bytes(tok, path));
    tok->sentencepiece = true;
    tok->bpe.unknown = tok->unigram.unknown = unknown;
    tok->bpe.late_fallback = tok->bpe.fuse_unknown = true;
    forget_outside(tok, &tok->bos);
    forget_outside(tok, &tok->eos);
    forget_outside(tok, &tok->pad);
    if (!tm__steps_add(&tok->normalizers, TM__NORM_SENTENCEPIECE) ||
        !tm__steps_add(&tok->decoders, TM__DECODE_SENTENCEPIECE))
        return tm__fail_memory();
    if (tok->model == TM__MODEL_UNIGRAM) return TM_OK;
    return build_merges(tok, path);
}

static void set_defaults(tm_tokenizer *tok) {
    tok->spm = (tm__spm){.dummy_prefix = true, .remove_extra = true, .escape = true, .unknown = " \xe2\x81\x87 "};
    tok->bos = 1;
    tok->eos = 2;
    tok->pad = -1;
}

tm_status tm__load_spm(tm_tokenizer *tok, const char *path, const char *data, size_t len) {
    wire in = {.at = (const uint8_t *)data, .end = (const uint8_t *)data + len, .file = path};
    uint64_t model = MODEL_UNIGRAM;
    set_defaults(tok);
    TM__TRY(read_model(tok, in, &model));
    if (model != MODEL_UNIGRAM && model != MODEL_BPE)
        return tm__fail(TM_UNSUPPORTED, path, "trainer_spec.model_type", NULL, "%llu (1 unigram and 2 bpe are)",
                        (unsigned long long)model);
    tok->model = model == MODEL_BPE ? TM__MODEL_BPE : TM__MODEL_UNIGRAM;
    tok->kind = model == MODEL_BPE ? "SentencePiece BPE" : "SentencePiece Unigram";
    return finish(tok, path);
}

/* ---- llama2.c ---------------------------------------------------------------------------------------------------- */

/* A piece as the exporter wrote it: "▁" as a space, bos and eos inside newlines. */
static tm_status restore_piece(tm_tokenizer *tok, wire *in, const char *text, size_t len, float score) {
    int32_t id = tok->vocab.size;
    unsigned flags = id == 0 ? flags_of(TYPE_UNKNOWN) : id <= 2 ? flags_of(TYPE_CONTROL) : 0;
    if (id >= 3 && tm__byte_of_piece(text, len) == id - 3) flags = TM__PIECE_BYTE;
    if ((id == 1 || id == 2) && len > 2 && text[0] == '\n' && text[len - 1] == '\n') text++, len -= 2;
    tm__string piece = {0};
    bool ok = true;
    for (size_t i = 0; i < len && ok; i++)
        ok = text[i] == ' ' ? tm__string_append(&piece, "\xe2\x96\x81", 3) : tm__string_append(&piece, text + i, 1);
    tm_status status = ok ? tm__vocab_add(&tok->vocab, in->file, piece.data ? piece.data : "", piece.len, id, flags)
                          : tm__fail_memory();
    tm__string_free(&piece);
    if (status == TM_OK) tok->vocab.pieces[id].score = score;
    return status;
}

/* int32 longest piece; then per piece: float score, int32 length, bytes. Unknown, bos and eos are 0, 1 and 2. llama2.c
 * keeps every space of a text, so nothing is removed here either. */
tm_status tm__load_llama2c(tm_tokenizer *tok, const char *path, const char *data, size_t len) {
    wire in = {.at = (const uint8_t *)data, .end = (const uint8_t *)data + len, .file = path};
    uint64_t longest = 0, bits = 0, piece_len = 0;
    TM__TRY(read_fixed(&in, 4, &longest));
    while (in.at < in.end) {
        char name[32];
        snprintf(name, sizeof name, "piece %d", (int)tok->vocab.size);
        TM__TRY(read_fixed(&in, 4, &bits));
        TM__TRY(read_fixed(&in, 4, &piece_len));
        if (piece_len == 0 || piece_len > longest + 2 || piece_len > LONGEST_PIECE ||
            piece_len > (size_t)(in.end - in.at))
            return tm__fail(TM_FORMAT, path, name, NULL, "length does not fit");
        if (!isfinite(as_float(bits))) return tm__fail(TM_FORMAT, path, name, NULL, "score is not finite");
        if (memchr(in.at, 0, (size_t)piece_len)) return tm__fail(TM_FORMAT, path, name, NULL, "holds a NUL");
        TM__TRY(restore_piece(tok, &in, (const char *)in.at, (size_t)piece_len, as_float(bits)));
        in.at += piece_len;
    }
    if (tok->vocab.size < 259) return tm__fail(TM_FORMAT, path, NULL, NULL, "holds fewer than 259 pieces");
    set_defaults(tok);
    tok->spm.remove_extra = false;
    tok->bpe.byte_fallback = true;
    tok->model = TM__MODEL_BPE;
    tok->kind = "SentencePiece BPE";
    return finish(tok, path);
}
