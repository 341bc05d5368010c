/* encode.c: text to ids: the order of the pipeline's stages, and the working memory that calls hand on. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

/* Positions and heap entries are 32-bit, and normalizing can make a text several times as long. */
static const size_t max_text = INT32_MAX / 16;

void tm__encode_scratch_free(tm__scratch *scratch) {
    if (!scratch) return;
    tm__string_free(&scratch->clean);
    for (int i = 0; i < 2; i++) {
        tm__string_free(&scratch->normal[i]);
        tm__string_free(&scratch->split[i]);
        free(scratch->spans[i].data);
    }
    tm__regex_match_data_free(scratch->match_data);
    free(scratch->symbols);
    free(scratch->merged);
    free(scratch->ranks);
    free(scratch->next);
    free(scratch->previous);
    free(scratch->heap);
    free(scratch->lattice);
    free(scratch->cache);
    free(scratch);
}

/* The spare scratch of the tokenizer, or a new one while another call has it. */
static tm__scratch *take_scratch(const tm_tokenizer *tok) {
    tm__scratch *scratch = atomic_exchange(&((tm_tokenizer *)tok)->spare, NULL);
    if (scratch) return scratch;
    scratch = tm__zalloc(1, sizeof *scratch);
    if (!scratch) return NULL;
    scratch->match_data = tm__regex_match_data();
    scratch->cache = tm__zalloc((size_t)1 << TM__CACHE_BITS, sizeof *scratch->cache);
    if (scratch->match_data && scratch->cache) return scratch;
    tm__encode_scratch_free(scratch);
    return NULL;
}

static void give_scratch(const tm_tokenizer *tok, tm__scratch *scratch) {
    tm__encode_scratch_free(atomic_exchange(&((tm_tokenizer *)tok)->spare, scratch));
}

/* One call's constants. */
typedef struct text_job {
    const tm_tokenizer *tok;
    tm__scratch *scratch;
    bool trusted; /* special tokens are sought */
    bool prefix;  /* a dummy prefix may stand at the very beginning */
    tm_ids *ids;
} text_job;

/* Text between added tokens, normalized; `first` if it begins the input. */
static tm_status encode_words(const text_job *job, const char *text, size_t len, bool first) {
    const tm_tokenizer *tok = job->tok;
    if (len == 0) return TM_OK;
    if (len > max_text * 4) return tm__fail(TM_INVALID, NULL, "text", "split it", "grows too long when normalized");
    if (tok->model == TM__MODEL_UNIGRAM) return tm__unigram_encode(tok, job->scratch, text, len, job->ids);
    TM__TRY(tm__pretokenize(tok, job->scratch, text, len, job->prefix || !first, first, &text));
    const tm__spans *words = &job->scratch->spans[0];
    for (size_t i = 0; i < words->len; i++)
        TM__TRY(tm__bpe_encode(tok, job->scratch, text + words->data[i].start, words->data[i].len, job->ids));
    return TM_OK;
}

static tm_status encode_part(const text_job *job, const char *text, size_t len, bool first) {
    const tm_tokenizer *tok = job->tok;
    size_t start, end, from = 0;
    int32_t id;
    if (len == 0) return TM_OK;
    TM__TRY(tm__normalize(tok, job->scratch, text, len, job->prefix || !first, &text, &len));
    const tm__trie *trie = &tok->added_set.normalized[job->trusted];
    while (tm__added_find(tok, trie, text, len, from, &start, &end, &id)) {
        TM__TRY(encode_words(job, text + from, start - from, first && from == 0));
        TM__TRY(tm_ids_push(job->ids, id));
        from = end;
    }
    return encode_words(job, text + from, len - from, first && from == 0);
}

static tm_status encode_text(const text_job *job, const char *text, size_t len) {
    size_t start, end, from = 0;
    int32_t id;
    const tm__trie *trie = &job->tok->added_set.raw[job->trusted];
    while (tm__added_find(job->tok, trie, text, len, from, &start, &end, &id)) {
        TM__TRY(encode_part(job, text + from, start - from, from == 0));
        TM__TRY(tm_ids_push(job->ids, id));
        from = end;
    }
    return encode_part(job, text + from, len - from, from == 0);
}

static tm_status push_all(tm_ids *ids, const tm_ids *from) {
    for (size_t i = 0; i < from->len; i++) TM__TRY(tm_ids_push(ids, from->data[i]));
    return TM_OK;
}

static tm_status encode(const text_job *job, const char *text, size_t len, unsigned flags) {
    const tm_tokenizer *tok = job->tok;
    if (!tm__utf8_valid(text, len)) {
        tm__string *clean = &job->scratch->clean;
        clean->len = 0;
        if (!tm__utf8_clean(text, len, tok->sentencepiece, clean)) return tm__fail_memory();
        text = clean->data;
        len = clean->len;
    }
    if (flags & TM_ENCODE_BOS_EOS) TM__TRY(push_all(job->ids, &tok->prefix));
    TM__TRY(encode_text(job, text, len));
    return flags & TM_ENCODE_BOS_EOS ? push_all(job->ids, &tok->suffix) : TM_OK;
}

tm_status tm_tokenizer_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                              tm_ids *ids) {
    if (len > max_text) return tm__fail(TM_INVALID, NULL, "text", "split it", "is longer than 128 MiB");
    tm__scratch *scratch = take_scratch(tokenizer);
    if (!scratch) return tm__fail_memory();
    size_t before = ids->len;
    text_job job = {.tok = tokenizer,
                    .scratch = scratch,
                    .trusted = flags & TM_ENCODE_PARSE_SPECIAL,
                    .prefix = !(flags & TM__ENCODE_CONTINUE),
                    .ids = ids};
    tm_status status = encode(&job, text ? text : "", text ? len : 0, flags);
    if (status != TM_OK) ids->len = before;
    give_scratch(tokenizer, scratch);
    return status;
}
