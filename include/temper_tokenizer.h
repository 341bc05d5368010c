/* temper_tokenizer.h: the part of temper.h about tokenizers and chats; included by it. */
#ifndef TEMPER_TOKENIZER_H
#define TEMPER_TOKENIZER_H

#include "temper_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------ tokenizer */
typedef struct tm_tokenizer tm_tokenizer;
typedef struct tm_ids {
    int32_t *data;
    size_t len, cap;
} tm_ids; /* starts as {0}; release with tm_ids_free */
typedef struct tm_offset {
    size_t start, end; /* bytes; end exclusive */
} tm_offset;
typedef struct tm_offsets {
    tm_offset *data;
    size_t len, cap;
} tm_offsets; /* starts as {0}; release with tm_offsets_free */

enum {
    TM_ENCODE_BOS_EOS = 1,       /* what the tokenizer's post-processor or config adds around a text */
    TM_ENCODE_PARSE_SPECIAL = 2, /* recognise special tokens written in the text; never for untrusted content */
    TM_DECODE_SKIP_SPECIAL = 1
};

/* `path`: a model directory (tokenizer.json first, then tokenizer.model), or one of these files. */
TM_API tm_status tm_tokenizer_load(const char *path, tm_tokenizer **tokenizer);
TM_API void tm_tokenizer_free(tm_tokenizer *tokenizer);
/* Appends to `ids`. Text may hold any bytes; invalid UTF-8 is encoded as U+FFFD (as the reference libraries do). */
TM_API tm_status tm_tokenizer_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                                     tm_ids *ids);
/* Also the bytes of each id: whole characters, trimmed as `tokenizers` does it; {0, 0} for what a template adds. */
TM_API tm_status tm_tokenizer_encode_offsets(const tm_tokenizer *tokenizer, const char *text, size_t len,
                                             unsigned flags, tm_ids *ids, tm_offsets *offsets);
/* `*text` is NUL-terminated, `*len` (may be NULL) its length; ids outside the vocabulary are an error. */
TM_API tm_status tm_tokenizer_decode(const tm_tokenizer *tokenizer, const int32_t *ids, size_t n, unsigned flags,
                                     char **text, size_t *len);
/* Decoding id by id (-1: the end): whole characters each time, or nothing; text lasts until the next call. */
typedef struct tm_stream tm_stream;
TM_API tm_status tm_stream_open(const tm_tokenizer *tokenizer, unsigned flags, tm_stream **stream); /* TM_DECODE_ */
TM_API tm_status tm_stream_put(tm_stream *stream, int32_t id, const char **text, size_t *len);
TM_API void tm_stream_close(tm_stream *stream);
TM_API int32_t tm_tokenizer_vocab_size(const tm_tokenizer *tokenizer); /* highest id + 1, added tokens included */
TM_API int32_t tm_tokenizer_id(const tm_tokenizer *tokenizer, const char *piece); /* -1: none */
TM_API const char *tm_tokenizer_piece(const tm_tokenizer *tokenizer, int32_t id); /* as in the vocabulary; NULL: none */
TM_API int32_t tm_tokenizer_bos(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API int32_t tm_tokenizer_eos(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API int32_t tm_tokenizer_pad(const tm_tokenizer *tokenizer);                   /* -1: none */
TM_API const char *tm_tokenizer_kind(const tm_tokenizer *tokenizer); /* "byte-level BPE", "SentencePiece BPE" */
/* Copies the tokenizer's files (tokenizer.json, tokenizer.model, configs, chat template) as they are into directory. */
TM_API tm_status tm_tokenizer_copy_files(const char *from_directory, const char *to_directory);
TM_API void tm_offsets_free(tm_offsets *offsets);
TM_API void tm_ids_free(tm_ids *ids);
TM_API tm_status tm_ids_push(tm_ids *ids, int32_t id);

/* ------------------------------------------------------------------------------------------------ chat formats */

typedef enum tm_chat_format {
    TM_CHAT_AUTO,     /* the tokenizer's chat template; without one ChatML if it has <|im_start|>, else plain */
    TM_CHAT_CHATML,   /* <|im_start|>role\ncontent<|im_end|>\n */
    TM_CHAT_LLAMA2,   /* <s>[INST] <<SYS>>\nsystem\n<</SYS>>\n\nuser [/INST] answer </s> */
    TM_CHAT_ALPACA,   /* ### Instruction: / ### Input: / ### Response: */
    TM_CHAT_PLAIN,    /* prompt and answer as they are, then eos */
    TM_CHAT_QUESTION, /* Question: prompt\nAnswer: answer, then eos */
    TM_CHAT_TEMPLATE, /* the tokenizer's chat template, or the one that tm_tokenizer_use_template named */
} tm_chat_format;

typedef struct tm_message {
    const char *role; /* "system", "user", "assistant"; "input" holds the Alpaca input field */
    const char *content;
} tm_message;

/* Appends the ids of a conversation. With `labels` (may be NULL) one label per id: the id itself where it is trained on
 * (assistant content and its end marker), -100 elsewhere. With `ask` the opening of the assistant's turn is appended.
 *
 * A template's text is encoded as one string, as in transformers: what a content spells like a special token becomes
 * that token, and can forge a turn. A token across the border of an answer is not trained on. The other formats encode
 * prompt and answer apart and never parse contents for special tokens. An "input" follows the message before it after a
 * line break where the format (any but Alpaca) has no place for it. */
TM_API tm_status tm_chat_encode(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages,
                                size_t n, bool ask, tm_ids *ids, tm_ids *labels);
/* The text that tm_chat_encode encodes; special tokens are spelled out. */
TM_API tm_status tm_chat_render(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages,
                                size_t n, bool ask, char **text, size_t *len);
/* What a format means for this tokenizer: never TM_CHAT_AUTO. */
TM_API tm_chat_format tm_chat_resolve(const tm_tokenizer *tokenizer, tm_chat_format format);
/* The id that ends an assistant's turn in this format (e.g. <|im_end|>); eos where it has none of its own. */
TM_API int32_t tm_chat_stop_id(const tm_tokenizer *tokenizer, tm_chat_format format);
TM_API const char *tm_chat_format_name(tm_chat_format format);

/* What TM_CHAT_AUTO means from now on. `name`: a format ("llama2"), a template by its name in tokenizer_config.json
 * ("tool_use"), or a file that holds one (Jinja2); NULL: as it was. `variables`, or NULL: a JSON object of what
 * templates see beside messages and special tokens ({"enable_thinking": false}). */
TM_API tm_status tm_tokenizer_use_template(tm_tokenizer *tokenizer, const char *name, const char *variables);
/* Where TM_CHAT_TEMPLATE comes from: "my-model/tokenizer_config.json, chat_template"; NULL: there is none. */
TM_API const char *tm_tokenizer_template(const tm_tokenizer *tokenizer);

#ifdef __cplusplus
}
#endif
#endif
