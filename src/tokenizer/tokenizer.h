/* tokenizer.h: the parts of a tokenizer, shared by its loaders, the encoder and the decoder.
 *
 * Every format is loaded into the same pipeline, the one of Hugging Face's `tokenizers`:
 *
 *     text -> added tokens (raw) -> normalizers -> added tokens (normalized) -> pre-tokenizers -> model -> template
 *     ids  -> pieces -> decoders -> text
 *
 * SentencePiece and tiktoken files become a pipeline of this kind too. A loaded tokenizer is read-only; what encoding
 * writes to lies in a tm__scratch, which is handed from call to call, so that concurrent encodes are safe.
 */
#ifndef TM_TOKENIZER_H
#define TM_TOKENIZER_H

#include "base/base.h"
#include "tokenizer/chat.h"

#include <stdatomic.h>

/* Highest number of ids, and how many ids below the highest may be without a piece. */
enum { TM__VOCAB_MAX = 1 << 22, TM__VOCAB_HOLES = 1 << 16 };

/* Beside the public TM_ENCODE_ flags: the text continues another one, so no dummy prefix is put before it. */
enum { TM__ENCODE_CONTINUE = 1 << 8 };

/* ---- pieces (vocab.c) -------------------------------------------------------------------------------------------- */

enum {
    TM__PIECE_ADDED = 1,   /* recognised in text before the model sees it */
    TM__PIECE_SPECIAL = 2, /* never produced from untrusted text */
    TM__PIECE_BYTE = 4,    /* "<0x0A>" of a SentencePiece file */
    TM__PIECE_UNUSED = 8,
    TM__PIECE_USER = 16, /* user-defined symbol of a SentencePiece file */
    TM__PIECE_UNKNOWN = 32,
    TM__PIECE_OUTSIDE = 64 /* an added token that the model's own vocabulary does not hold */
};

/* text NULL: a hole. `raw` is what the piece stands for in bytes: text, unless the vocabulary is byte-level. */
typedef struct tm__piece {
    const char *text, *raw, *shown; /* shown: in decoded text; an added token that is normalized shows so */
    uint32_t len, raw_len, shown_len;
    double score; /* SentencePiece's are float */
    uint32_t flags;
} tm__piece;

typedef struct tm__vocab {
    tm__piece *pieces;
    size_t cap;
    int32_t size;  /* highest id + 1 */
    int32_t count; /* pieces */
    tm__map ids;   /* text to id */
    tm__arena strings;
} tm__vocab;

/* Refuses an id that is out of range or taken and a text that is there already. Strings are copied. */
tm_status tm__vocab_add(tm__vocab *vocab, const char *file, const char *text, size_t len, int32_t id, unsigned flags);
/* Refuses vocabularies that are empty or full of holes. */
tm_status tm__vocab_check(const tm__vocab *vocab, const char *file);
int32_t tm__vocab_id(const tm__vocab *vocab, const char *text, size_t len); /* -1: none */
/* Reads every piece in the byte alphabet of GPT-2 and sets its raw bytes. */
tm_status tm__vocab_decode_bytes(tm__vocab *vocab);
/* The character that stands for a byte in GPT-2's byte alphabet. */
uint32_t tm__code_of_byte(int byte);
int tm__byte_of_code(uint32_t code); /* -1: stands for none */
/* "<0x0A>" -> 10; -1 for other texts. */
int tm__byte_of_piece(const char *text, size_t len);

/* ---- trie (trie.c) ----------------------------------------------------------------------------------------------- */

typedef struct tm__trie_slot {
    uint32_t key; /* parent node << 8 | byte; parent > 0 */
    uint32_t child;
} tm__trie_slot;

/* A set of byte strings with values. Node 0 is "no such node", the root's children stand in `root`. */
typedef struct tm__trie {
    uint32_t root[256];
    tm__trie_slot *slots;
    size_t slot_cap;
    int32_t *values; /* per node; -1: no string ends here */
    size_t value_cap, nodes;
} tm__trie;

bool tm__trie_add(tm__trie *trie, const char *bytes, size_t len, int32_t value); /* false: out of memory */
uint32_t tm__trie_child(const tm__trie *trie, uint32_t node, uint8_t byte);      /* node 0: from the root */
/* Length of the longest string that text begins with (0: none); its value in *value. */
size_t tm__trie_longest(const tm__trie *trie, const char *text, size_t len, int32_t *value);
void tm__trie_free(tm__trie *trie);

/* ---- texts and where they came from (align.c) -------------------------------------------------------------------- */

/* Bytes of the original text, end exclusive. Texts are shorter than 2^31. */
typedef struct tm__range {
    uint32_t start, end;
} tm__range;

typedef struct tm__text {
    tm__string bytes;
    tm__range *from; /* per byte; written where sources are tracked */
    size_t from_cap;
} tm__text;

/* Part of a text. `from` NULL: it is a part of the original itself, from byte `origin` on. Otherwise `origin` is where
 * the part began when it was cut out. */
typedef struct tm__view {
    const char *text;
    size_t len;
    const tm__range *from;
    uint32_t origin;
} tm__view;

tm__range tm__view_range(const tm__view *view, size_t start, size_t end); /* whole characters of the original */
tm__view tm__view_slice(const tm__view *view, size_t start, size_t len);
void tm__text_free(tm__text *text);

/* Rewriting `in` into `out` from left to right. Calls give false where memory or `limit` (bytes) runs out. */
typedef struct tm__edit {
    tm__view in;
    size_t at; /* bytes of `in` done with */
    tm__text *out;
    size_t limit;
    bool track, over;
} tm__edit;

bool tm__edit_begin(tm__edit *edit, const tm__view *in, bool track, size_t limit, tm__text *out);
bool tm__edit_put(tm__edit *edit, const char *bytes, size_t len, tm__range source);
bool tm__edit_keep(tm__edit *edit, size_t len);
void tm__edit_drop(tm__edit *edit, size_t len);
bool tm__edit_insert(tm__edit *edit, const char *bytes, size_t len);  /* belongs to the character before */
bool tm__edit_prepend(tm__edit *edit, const char *bytes, size_t len); /* belongs to the character after */
bool tm__edit_replace(tm__edit *edit, size_t width, const char *bytes, size_t len); /* the next `width` bytes */
/* One character; change: 1 inserted, 0 instead of the next one, -n likewise and n more after that one go. */
bool tm__edit_character(tm__edit *edit, uint32_t code, int change);
/* normalize.c: the next `len` bytes as letters of GPT-2's byte alphabet. */
bool tm__edit_spell_bytes(tm__edit *edit, size_t len);
tm__view tm__edit_view(const tm__edit *edit); /* the result */
tm_status tm__edit_failure(const tm__edit *edit);

/* ---- regular expressions (regex.c) ---------------------------------------------------------------------------------
 */

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

typedef struct tm__regex {
    struct pcre2_real_code_8 *code;
} tm__regex;

/* `literal`: the pattern is a plain string. */
tm_status tm__regex_compile(tm__regex *regex, const char *pattern, size_t len, bool literal, const char *file,
                            const char *field);
void tm__regex_free(tm__regex *regex);
struct pcre2_real_match_data_8 *tm__regex_match_data(void); /* NULL: out of memory */
void tm__regex_match_data_free(struct pcre2_real_match_data_8 *data);
/* The matches of a pattern in valid UTF-8, one after the other; an empty one right after another match is none. */
typedef struct tm__matches {
    const tm__regex *regex;
    struct pcre2_real_match_data_8 *data;
    const char *text;
    size_t len, from, previous_end;
    bool any;
} tm__matches;
tm_status tm__regex_next(tm__matches *matches, bool *found, size_t *start, size_t *end);

/* ---- steps ------------------------------------------------------------------------------------------------------- */

typedef enum tm__step_kind {
    TM__NORM_UNICODE, /* NFC and its kin: `options` of utf8proc */
    TM__NORM_LOWERCASE,
    TM__NORM_REPLACE, /* regex -> content */
    TM__NORM_PREPEND, /* content */
    TM__NORM_STRIP,   /* start, stop as flags */
    TM__NORM_MAP,     /* map_character */
    TM__NORM_CHINESE, /* blanks around ideographs */
    TM__NORM_CHARSMAP,
    TM__NORM_BYTE_LEVEL,
    TM__NORM_SENTENCEPIECE,
    TM__SPLIT_REGEX,
    TM__SPLIT_CLASS, /* is_match */
    TM__SPLIT_METASPACE,
    TM__SPLIT_BYTE_LEVEL,
    TM__DECODE_BYTE_LEVEL,
    TM__DECODE_BYTE_FALLBACK,
    TM__DECODE_FUSE,
    TM__DECODE_STRIP,   /* content, start, stop as counts */
    TM__DECODE_REPLACE, /* regex -> content */
    TM__DECODE_METASPACE,
    TM__DECODE_WORDPIECE, /* content; split: clean up */
    TM__DECODE_SUFFIX,    /* content */
    TM__DECODE_SENTENCEPIECE,
} tm__step_kind;

typedef enum tm__behavior {
    TM__BEHAVIOR_REMOVED,
    TM__BEHAVIOR_ISOLATED,
    TM__BEHAVIOR_MERGED_PREVIOUS,
    TM__BEHAVIOR_MERGED_NEXT,
    TM__BEHAVIOR_CONTIGUOUS,
} tm__behavior;

typedef enum tm__prepend { TM__PREPEND_ALWAYS, TM__PREPEND_FIRST, TM__PREPEND_NEVER } tm__prepend;

typedef struct tm__step {
    tm__step_kind kind;
    tm__regex regex; /* .code NULL: none */
    const char *content;
    size_t content_len;
    const char *literal; /* what `regex` matches, where that is a plain string */
    size_t literal_len;
    int start, stop, options;
    tm__behavior behavior;
    bool invert;
    tm__prepend prepend; /* Metaspace; ByteLevel's add_prefix_space is ALWAYS or NEVER */
    bool split;          /* Metaspace splits before its character; ByteLevel spells bytes as letters */
    bool (*is_match)(uint32_t code);
    uint32_t (*map_character)(uint32_t code); /* TM__DROP: goes */
    struct tm__charsmap *map;
} tm__step;

typedef struct tm__steps {
    tm__step *data;
    size_t len, cap;
} tm__steps;

tm__step *tm__steps_add(tm__steps *steps, tm__step_kind kind); /* NULL: out of memory */
void tm__steps_free(tm__steps *steps);

/* ---- classes of characters (classes.c) --------------------------------------------------------------------------- */

#define TM__DROP UINT32_MAX

bool tm__is_space(uint32_t code); /* Unicode White_Space */
bool tm__is_numeric(uint32_t code);
bool tm__is_punctuation(uint32_t code);
bool tm__is_ideograph(uint32_t code); /* BERT's "Chinese characters" */
bool tm__is_word(uint32_t code);      /* \w */
uint32_t tm__bert_clean(uint32_t code);
uint32_t tm__nmt_clean(uint32_t code);
uint32_t tm__drop_marks(uint32_t code);
uint32_t tm__drop_nonspacing(uint32_t code);

/* ---- SentencePiece's precompiled character map (charsmap.c) ------------------------------------------------------ */

typedef struct tm__charsmap {
    const uint32_t *trie; /* double array; NULL: identity */
    size_t trie_len;      /* units */
    const char *replacements;
    size_t replacements_len;
} tm__charsmap;

/* Copies into the tokenizer's arena. */
tm_status tm__charsmap_load(tm__charsmap *map, tm_tokenizer *tok, const char *data, size_t len, const char *file,
                            const char *field);
/* Longest (or shortest) entry that text begins with, and its replacement. 0: none. */
size_t tm__charsmap_find(const tm__charsmap *map, bool shortest, const char *text, size_t len,
                         const char **replacement);
/* The normalizer of `tokenizers`, which looks up whole grapheme clusters. */
bool tm__charsmap_edit(const tm__charsmap *map, tm__edit *edit);

/* ---- SentencePiece's normalizer (spm_normalize.c) ---------------------------------------------------------------- */

typedef struct tm__spm {
    bool dummy_prefix, remove_extra, escape, suffix;
    tm__charsmap map;
    const char *unknown; /* how an unknown piece is written */
    tm__trie user;       /* user-defined symbols are kept as they are */
} tm__spm;

bool tm__spm_normalize(const tm__spm *spm, bool prefix, tm__edit *edit);

/* ---- models (bpe.c, unigram.c) ----------------------------------------------------------------------------------- */

typedef struct tm__merge {
    uint64_t pair; /* left << 32 | right; all ones: free slot */
    uint32_t rank;
    int32_t id;
} tm__merge;

typedef struct tm__bpe {
    tm__merge *merges; /* open addressing, power of two */
    size_t cap, len;
    int32_t ascii[256]; /* symbol of a byte (byte-level) or of an ASCII character; -1: none */
    tm__map characters; /* symbols of other characters */
    tm__map words;      /* raw bytes to id; filled where whole words are looked up first */
    int32_t bytes[256]; /* byte-fallback pieces; -1: none */
    int32_t unknown;    /* -1: unknown characters vanish */
    bool byte_level, byte_fallback, fuse_unknown, whole_words;
    bool late_fallback;          /* SentencePiece: characters become bytes after the merges, unknown pieces fuse */
    const char *prefix, *suffix; /* of a word's symbols: before all but the first, after the last */
    size_t prefix_len, suffix_len;
    bool break_at_space; /* no merge crosses from another character to U+2581, so that words may be merged apart */
    const char **pseudo; /* late_fallback: characters that occur in pieces but are none; symbols from vocab.size on */
    size_t pseudo_len, pseudo_cap;
} tm__bpe;

typedef struct tm__unigram {
    tm__trie trie;
    double unknown_score;
    int32_t unknown;
    int32_t bytes[256];
    bool byte_fallback;
} tm__unigram;

/* WordPiece and WordLevel (words.c). */
typedef struct tm__words {
    tm__trie first, rest; /* pieces that begin a word; those that go on, without their prefix */
    const char *prefix;
    size_t prefix_len, longest; /* characters; longer words are unknown */
    int32_t unknown;
} tm__words;

struct tm__scratch;
struct tm__sink;

bool tm__words_prepare(tm_tokenizer *tok); /* false: out of memory */
tm_status tm__words_encode(const tm_tokenizer *tok, struct tm__sink *sink);

void tm__bpe_init(tm__bpe *bpe);
void tm__bpe_free(tm__bpe *bpe);
bool tm__bpe_reserve(tm__bpe *bpe, size_t merges); /* before the first add; false: out of memory */
/* False if the pair is there already. */
bool tm__bpe_add(tm__bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
const tm__merge *tm__bpe_find(const tm__bpe *bpe, int32_t left, int32_t right); /* NULL: none */
/* Builds the tables of symbols from the vocabulary, once pieces and their flags are complete. */
tm_status tm__bpe_prepare(tm_tokenizer *tok);
tm_status tm__bpe_encode(const tm_tokenizer *tok, struct tm__scratch *scratch, struct tm__sink *sink);

bool tm__unigram_prepare(tm_tokenizer *tok); /* false: out of memory */
tm_status tm__unigram_encode(const tm_tokenizer *tok, struct tm__scratch *scratch, struct tm__sink *sink);
void tm__unigram_free(tm__unigram *unigram);

/* ---- added tokens (added.c) -------------------------------------------------------------------------------------- */

typedef struct tm__added {
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} tm__added;

/* Values of the tries index tm_tokenizer.added. */
typedef struct tm__added_set {
    tm__trie raw, normalized;
} tm__added_set;

/* A search for added tokens: `at` is where it goes on, `done` the end of the last one with its blanks. */
typedef struct tm__added_search {
    const tm__trie *trie;
    bool trusted; /* special ones count */
    size_t at, done;
} tm__added_search;

tm_status tm__added_build(tm_tokenizer *tok);
/* The next added token: its span in text with stripped blanks included. false: none. */
bool tm__added_find(const tm_tokenizer *tok, tm__added_search *search, const char *text, size_t len, size_t *start,
                    size_t *end, int32_t *id);

/* Blanks at the ends of a token's offsets (post-processors ByteLevel and RobertaProcessing). */
typedef struct tm__trim {
    bool on, prefix_space;
    bool after_template; /* the template's tokens are counted in */
} tm__trim;

/* ---- the tokenizer ----------------------------------------------------------------------------------------------- */

typedef enum tm__model_kind {
    TM__MODEL_BPE,
    TM__MODEL_UNIGRAM,
    TM__MODEL_WORDPIECE,
    TM__MODEL_WORDLEVEL
} tm__model_kind;

/* Which template counts, and what it sees. */
typedef struct tm__chat_choice {
    struct tm_template *template; /* NULL: none, or it does not parse */
    char *source;                 /* of one that was named since the tokenizer was loaded; NULL: none was */
    struct json_t *variables;
    tm_chat_format format; /* what TM_CHAT_AUTO means; TM_CHAT_AUTO: what the tokenizer suggests */
    int32_t turn_end;      /* the special token that ends an answer in the template; -1: none */
} tm__chat_choice;

struct tm_tokenizer {
    const char *kind;
    struct json_t *templates; /* chat templates that come with it: {"default": {"source": TEXT, "from": FILE}} */
    tm__chat_choice chat;
    tm__vocab vocab;
    tm__model_kind model;
    tm__bpe bpe;
    tm__unigram unigram;
    tm__words words;
    bool sentencepiece; /* from a SentencePiece file: invalid UTF-8 counts byte by byte */
    tm__spm spm;
    tm__steps normalizers, splitters, decoders;
    tm__added *added;
    size_t added_len, added_cap;
    tm__added_set added_set;
    bool shows_normalized; /* some piece's `shown` is not its text */
    tm_ids prefix, suffix; /* of the template */
    tm__trim trim;
    bool track; /* a step asks where a word began in the original text */
    int32_t bos, eos, pad;
    _Atomic(struct tm__scratch *) spare;
};

/* ---- scratch (encode.c) ------------------------------------------------------------------------------------------ */

typedef struct tm__span {
    size_t start, len;
} tm__span;

typedef struct tm__spans {
    tm__span *data;
    size_t len, cap;
} tm__spans;

/* A word seen before and its ids: direct-mapped, replaced on collision. Longer words are not kept. */
enum { TM__CACHE_BITS = 14, TM__CACHE_WORD = 22, TM__CACHE_IDS = 6 };
typedef struct tm__cached {
    uint32_t hash;
    uint8_t len, count;
    char word[TM__CACHE_WORD];
    int32_t ids[TM__CACHE_IDS];
} tm__cached;

/* Best path to a position of the text (Unigram). */
typedef struct tm__lattice_node {
    int32_t id, start; /* start -1: not reached */
    double score;
} tm__lattice_node;

/* A symbol of a word on its way to a token, and the merge with the one after it. */
typedef struct tm__symbol {
    int32_t id, merged;
    uint32_t rank;
    uint32_t start; /* in bytes of the word */
} tm__symbol;

/* A character of a Unicode normalization form. */
typedef struct tm__form_unit {
    uint32_t code;
    int32_t change; /* see tm__edit_character */
    uint8_t class;  /* canonical combining class */
} tm__form_unit;

typedef struct tm__scratch {
    tm__text clean, normal[2], split[2];
    tm__string affixed;
    tm__spans spans[2];
    struct pcre2_real_match_data_8 *match_data;
    tm__symbol *symbols;
    int32_t *next, *previous;
    uint64_t *heap;
    size_t symbols_cap, next_cap, previous_cap, heap_cap, heap_len;
    tm__lattice_node *lattice;
    size_t lattice_cap;
    tm__form_unit *units;
    size_t units_cap;
    tm__cached *cache;
} tm__scratch;

void tm__encode_scratch_free(tm__scratch *scratch);

/* Where the ids of a call go. */
typedef struct tm__sink {
    const tm_tokenizer *tok;
    tm_ids *ids;
    tm_offsets *offsets; /* NULL: not asked for */
    size_t first;        /* ids that were there before the call */
    size_t template_len; /* ids of the template before the text */
    const char *text;    /* the original */
    size_t len;
    tm__view word; /* what the model is at */
} tm__sink;

/* A token and the bytes of sink->word that it stands for. */
tm_status tm__sink_put(tm__sink *sink, int32_t id, size_t start, size_t end);

/* normalize.c: runs the normalizers over a view; the result lies in scratch or is the view itself. */
tm_status tm__normalize(const tm_tokenizer *tok, tm__scratch *scratch, bool track, bool prefix, tm__view *view);
/* unicode_form.c: the edit's whole input in the form of utf8proc's `options`. */
tm_status tm__unicode_form(tm__scratch *scratch, int options, tm__edit *edit);
/* pretokenize.c: splits into scratch->spans[0] over the view, which a step may rewrite. */
tm_status tm__pretokenize(const tm_tokenizer *tok, tm__scratch *scratch, bool track, bool prefix, tm__view *view);
/* Valid UTF-8 from any bytes: U+FFFD for each maximal invalid part (or for each invalid byte). */
bool tm__utf8_clean(const char *text, size_t len, bool per_byte, tm__string *out);
/* The same, with sources. */
bool tm__utf8_clean_edit(tm__edit *edit, bool per_byte);
/* ---- loaders ----------------------------------------------------------------------------------------------------- */

struct json_t;
tm_status tm__load_json(tm_tokenizer *tok, const char *path, const char *data, size_t len); /* load_json.c */
tm_status tm__load_vocab_merges(tm_tokenizer *tok, const char *vocab, const char *merges, bool qwen2);
tm_status tm__load_steps(tm_tokenizer *tok, const char *file, const struct json_t *root); /* load_steps.c */
/* The pipeline of a byte-level tokenizer with this split pattern. */
tm_status tm__load_byte_level(tm_tokenizer *tok, const char *file, const char *pattern);
tm_status tm__load_spm(tm_tokenizer *tok, const char *path, const char *data, size_t len); /* load_spm.c */
tm_status tm__load_llama2c(tm_tokenizer *tok, const char *path, const char *data, size_t len);
tm_status tm__load_tiktoken(tm_tokenizer *tok, const char *path, const char *data, size_t len); /* load_tiktoken.c */
bool tm__base64_decode(const char *text, size_t len, char *out, size_t *out_len);               /* out: 3/4 of len */
/* Registers an added token: a new piece, or new flags for a piece that is there. */
tm_status tm__added_put(tm_tokenizer *tok, const char *file, const char *text, size_t len, int32_t id,
                        const tm__added *flags);

/* What stands beside the tokenizer's own file (config.c). NULL: no such file. */
typedef struct tm__token_config {
    struct json_t *tokenizer, *special, *added, *generation, *model;
    char *tokenizer_path, *special_path, *added_path, *generation_path, *model_path, *template_path;
} tm__token_config;
tm_status tm__token_config_read(tm__token_config *config, const char *directory);
void tm__token_config_free(tm__token_config *config);
bool tm__token_config_is_qwen2(const tm__token_config *config);
/* Added tokens, bos, eos, pad, what is put around a text, the chat template. Before the model's tables are built. */
tm_status tm__token_config_apply(const tm__token_config *config, tm_tokenizer *tok);

extern const char tm__pattern_gpt2[], tm__pattern_qwen2[], tm__pattern_llama3[];

/* chat.c, chat_template.c, chat_choice.c; see chat.h too */
/* The template that chat.c writes as TM_CHAT_CHATML, piece by piece. */
extern const char tm__chatml_template[];
/* With the tokenizer's template. */
tm_status tm__chat_template_encode(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, tm_ids *ids,
                                   tm_ids *labels, size_t *split);
tm_status tm__chat_template_render(const tm_tokenizer *tok, const tm_message *messages, size_t n, bool ask, char **text,
                                   size_t *len);
/* A template that comes with the tokenizer; `from` tells errors. */
tm_status tm__chat_template_add(tm_tokenizer *tok, const char *name, const char *source, size_t len, const char *from);
/* Source of the one that counts unless another is named; NULL: there is none. */
const char *tm__chat_template_default(const tm_tokenizer *tok);
/* Parses it, once the tokenizer can encode. What does not parse is told when it is used: by tm__chat_template_need. */
tm_status tm__chat_template_prepare(tm_tokenizer *tok);
tm_status tm__chat_template_need(const tm_tokenizer *tok);
void tm__chat_choice_free(tm__chat_choice *choice);
/* tokenizer.c: one file's content, nothing beside it; `name` tells errors and the ending ".bin" (llama2.c). */
tm_status tm__tokenizer_load_memory(const char *name, const char *data, size_t len, tm_tokenizer **tokenizer);
/* write_json.c: an equivalent tokenizer.json of a SentencePiece BPE tokenizer. */
tm_status tm__tokenizer_write_json(const tm_tokenizer *tok, const char *path);

#endif
