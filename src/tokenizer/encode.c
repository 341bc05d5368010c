/* encode.c: text to ids: the order of the pipeline's stages, and the working memory that calls hand on. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

/* Positions and heap entries are 32-bit, and normalizing can make a text several times as long. */
static const size_t max_text = INT32_MAX / 16;

void tm__encode_scratch_free(tm__scratch *scratch) {
    if (!scratch) return;
    tm__text_free(&scratch->clean);
    tm__string_free(&scratch->affixed);
    for (int i = 0; i < 2; i++) {
        tm__text_free(&scratch->normal[i]);
        tm__text_free(&scratch->split[i]);
        free(scratch->spans[i].data);
    }
    tm__regex_match_data_free(scratch->match_data);
    free(scratch->symbols);
    free(scratch->next);
    free(scratch->previous);
    free(scratch->heap);
    free(scratch->lattice);
    free(scratch->units);
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

/* ---- where ids go ------------------------------------------------------------------------------------------------ */

/* GPT-2's letter for the blank is one too. */
static bool is_blank(const char *text, size_t len, uint32_t *code) {
    return tm__utf8_decode(text, len, code) > 0 && (*code == 0x120 || tm__is_space(*code));
}

static size_t leading_blanks(const char *text, size_t len) {
    uint32_t code;
    size_t n = 0;
    for (size_t i = 0; i < len && is_blank(text + i, len - i, &code); n++)
        i += (size_t)tm__utf8_decode(text + i, len - i, &code);
    return n;
}

static size_t trailing_blanks(const char *text, size_t len) {
    uint32_t code;
    size_t n = 0;
    for (; len > 0; n++) {
        size_t at = len - 1;
        while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80) at--;
        if (!is_blank(text + at, len - at, &code)) break;
        len = at;
    }
    return n;
}

/* Characters of the original, one by one. */
static size_t step_on(const tm__sink *sink, size_t at) {
    uint32_t code;
    if (at >= sink->len) return at;
    return at + (size_t)TM__MAX(1, tm__utf8_decode(sink->text + at, sink->len - at, &code));
}

static size_t step_back(size_t at, const char *text) {
    if (at > 0) at--;
    while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80) at--;
    return at;
}

/* `text`: the token as the reference spells it. Leaves out as many characters at either end as it has blanks there; a
 * single blank that the tokenizer may have put before the text itself counts as part of it. */
static void trim(const tm__sink *sink, const char *text, size_t len, tm_offset *offset) {
    const tm__trim *rule = &sink->tok->trim;
    size_t leading = leading_blanks(text, len), trailing = trailing_blanks(text, len);
    size_t index = sink->ids->len - 1 - sink->first - (rule->after_template ? 0 : sink->template_len);
    bool is_first = index == 0 || offset->start == 0;
    if (leading == 1 && is_first && rule->prefix_space) leading = 0;
    for (; leading && offset->start < offset->end; leading--) offset->start = step_on(sink, offset->start);
    offset->start = TM__MIN(offset->start, offset->end);
    size_t end = offset->end, steps = 0;
    for (; steps < trailing && end > 0; steps++) end = step_back(end, sink->text);
    if (trailing && steps == trailing) offset->end = TM__MAX(end, offset->start);
}

static tm_status put(tm__sink *sink, int32_t id, tm__range range, const char *text, size_t len) {
    tm_offsets *offsets = sink->offsets;
    TM__TRY(tm_ids_push(sink->ids, id));
    if (!offsets) return TM_OK;
    if (!tm__grow((void **)&offsets->data, &offsets->cap, offsets->len + 1, sizeof *offsets->data))
        return tm__fail_memory();
    tm_offset *offset = &offsets->data[offsets->len++];
    *offset = (tm_offset){.start = range.start, .end = range.end};
    if (sink->tok->trim.on) trim(sink, text, len, offset);
    return TM_OK;
}

tm_status tm__sink_put(tm__sink *sink, int32_t id, size_t start, size_t end) {
    const tm__piece *piece = &sink->tok->vocab.pieces[id];
    tm__range range = {0, 0};
    if (sink->offsets) range = tm__view_range(&sink->word, start, end);
    return put(sink, id, range, piece->text, piece->len);
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

/* One call's constants. */
typedef struct text_job {
    const tm_tokenizer *tok;
    tm__scratch *scratch;
    bool trusted; /* special tokens are sought */
    bool prefix;  /* a dummy prefix may stand at the very beginning */
    bool track;   /* where texts came from is needed */
    tm__sink sink;
} text_job;

static tm_status encode_word(text_job *job) {
    switch (job->tok->model) {
    case TM__MODEL_BPE:
        return tm__bpe_encode(job->tok, job->scratch, &job->sink);
    case TM__MODEL_UNIGRAM:
        return tm__unigram_encode(job->tok, job->scratch, &job->sink);
    default:
        return tm__words_encode(job->tok, &job->sink);
    }
}

/* Text between added tokens, normalized; `first` if it begins the input. */
static tm_status encode_words(text_job *job, tm__view view, bool first) {
    const tm_tokenizer *tok = job->tok;
    if (view.len == 0) return TM_OK;
    if (view.len > max_text * 4)
        return tm__fail(TM_INVALID, NULL, "text", "split it", "grows too long when normalized");
    TM__TRY(tm__pretokenize(tok, job->scratch, job->track, job->prefix || !first, &view));
    const tm__spans *words = &job->scratch->spans[0];
    for (size_t i = 0; i < words->len; i++) {
        job->sink.word = tm__view_slice(&view, words->data[i].start, words->data[i].len);
        TM__TRY(encode_word(job));
    }
    return TM_OK;
}

typedef tm_status (*encode_between)(text_job *job, tm__view view, bool first);

/* Cuts out the added tokens of `trie`; what stands between them goes on to `between`. */
static tm_status encode_added(text_job *job, const tm__trie *trie, tm__view view, bool first, encode_between between) {
    tm__added_search search = {.trie = trie, .trusted = job->trusted};
    size_t start, end, from = 0;
    int32_t id;
    while (tm__added_find(job->tok, &search, view.text, view.len, &start, &end, &id)) {
        if (from < start) TM__TRY(between(job, tm__view_slice(&view, from, start - from), first && from == 0));
        tm__range range = {0, 0};
        if (job->sink.offsets) range = tm__view_range(&view, start, end);
        TM__TRY(put(&job->sink, id, range, view.text + start, end - start));
        from = end;
    }
    return between(job, tm__view_slice(&view, from, view.len - from), first && from == 0);
}

static tm_status encode_part(text_job *job, tm__view view, bool first) {
    if (view.len == 0) return TM_OK;
    TM__TRY(tm__normalize(job->tok, job->scratch, job->track, job->prefix || !first, &view));
    return encode_added(job, &job->tok->added_set.normalized, view, first, encode_words);
}

static tm_status put_template(tm__sink *sink, const tm_ids *ids) {
    for (size_t i = 0; i < ids->len; i++) TM__TRY(put(sink, ids->data[i], (tm__range){0, 0}, "", 0));
    return TM_OK;
}

static tm_status encode(text_job *job, unsigned flags) {
    const tm_tokenizer *tok = job->tok;
    tm__sink *sink = &job->sink;
    tm__view view = {.text = sink->text, .len = sink->len};
    if (!tm__utf8_valid(view.text, view.len)) {
        tm__edit edit;
        if (!tm__edit_begin(&edit, &view, job->track, SIZE_MAX, &job->scratch->clean) ||
            !tm__utf8_clean_edit(&edit, tok->sentencepiece))
            return tm__fail_memory();
        view = tm__edit_view(&edit);
    }
    if (flags & TM_ENCODE_BOS_EOS) {
        sink->template_len = tok->prefix.len;
        TM__TRY(put_template(sink, &tok->prefix));
    }
    TM__TRY(encode_added(job, &tok->added_set.raw, view, true, encode_part));
    return flags & TM_ENCODE_BOS_EOS ? put_template(sink, &tok->suffix) : TM_OK;
}

static tm_status run(const tm_tokenizer *tok, const char *text, size_t len, unsigned flags, tm_ids *ids,
                     tm_offsets *offsets) {
    if (len > max_text) return tm__fail(TM_INVALID, NULL, "text", "split it", "is longer than 128 MiB");
    tm__scratch *scratch = take_scratch(tok);
    if (!scratch) return tm__fail_memory();
    size_t before = ids->len, offsets_before = offsets ? offsets->len : 0;
    text_job job = {.tok = tok,
                    .scratch = scratch,
                    .trusted = flags & TM_ENCODE_PARSE_SPECIAL,
                    .prefix = !(flags & TM__ENCODE_CONTINUE),
                    .track = offsets || tok->track,
                    .sink = {.tok = tok,
                             .ids = ids,
                             .offsets = offsets,
                             .first = before,
                             .text = text ? text : "",
                             .len = text ? len : 0}};
    tm_status status = encode(&job, flags);
    if (status != TM_OK) {
        ids->len = before;
        if (offsets) offsets->len = offsets_before;
    }
    give_scratch(tok, scratch);
    return status;
}

tm_status tm_tokenizer_encode(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                              tm_ids *ids) {
    return run(tokenizer, text, len, flags, ids, NULL);
}

tm_status tm_tokenizer_encode_offsets(const tm_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                                      tm_ids *ids, tm_offsets *offsets) {
    return run(tokenizer, text, len, flags, ids, offsets);
}
