/* written.c: a language model as a judge: the prompt to tokens, the words it may say, the token it says.
 *
 * Only one token is read, so nothing is generated: tm__model_next runs a batch's prompts, computes once what they
 * share, and gives the likeliest token and the probabilities of the words'. Kinds: harmbench.c, llama_guard.c,
 * strongreject.c. Test: tests/golden/test_judge_written.c.
 */
#include "judge/written.h"

#include "model/weights.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <strings.h>

tm_status tm__written_load(tm__written *w, const char *directory, const char *adapter,
                           const struct tm__judge_place *place) {
    TM__TRY(tm_device_open(place->device, &w->device));
    TM__TRY(tm_model_load(w->device, directory, adapter, &w->model));
    TM__TRY(tm__model_check_language(w->model));
    return tm_tokenizer_load(directory, &w->tokenizer);
}

void tm__written_close(void *own) {
    tm__written *w = own;
    tm__prompt_free(&w->prompt);
    tm__prompt_free(&w->contextual);
    free(w->skip);
    tm_tokenizer_free(w->tokenizer);
    tm_model_free(w->model);
    tm_device_close(w->device);
    free(w);
}

tm_status tm__written_open(size_t size, tm__written_begin *begin, const char *path, const void *options,
                           const struct tm__judge_place *place, void **own) {
    tm__written *w = tm__zalloc(1, size);
    if (!w) return tm__fail_memory();
    tm_status status = begin(w, path, options, place);
    if (status == TM_OK)
        *own = w;
    else
        tm__written_close(w);
    return status;
}

void tm__written_identify(const void *own, tm__sha256 *hash) {
    tm__sha256_update(hash, ((const tm__written *)own)->hash, 64);
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* Ids that both model and tokenizer have. */
static int32_t id_count(const tm__written *w) {
    return (int32_t)TM__MIN((int64_t)tm_tokenizer_vocab_size(w->tokenizer), w->model->config.vocab);
}

/* What an id shows, without blanks at its ends: out (`size` bytes, cut). false: nothing, or it is special. */
static tm_status shown(const tm__written *w, int32_t id, char *out, size_t size, bool *blank) {
    char *text;
    size_t len;
    out[0] = 0;
    *blank = false;
    if (!tm_tokenizer_piece(w->tokenizer, id) || (w->tokenizer->vocab.pieces[id].flags & TM__PIECE_SPECIAL))
        return TM_OK;
    TM__TRY(tm_tokenizer_decode(w->tokenizer, &id, 1, 0, &text, &len));
    size_t from = strspn(text, " \t\r\n"), end = len;
    while (end > from && strchr(" \t\r\n", text[end - 1])) end--;
    *blank = from == len; /* SentencePiece's lone blank shows nothing at all */
    if (end - from < size) snprintf(out, size, "%.*s", (int)(end - from), text + from);
    free(text);
    return TM_OK;
}

/* A token that would say two words says none: it stays in the list as a word of its own, which nobody asks for. */
static tm_status add_id(tm__written *w, int word, int32_t id) {
    if (id < 0 || id >= id_count(w)) return TM_OK;
    for (size_t i = 0; i < w->id_count; i++) {
        if (w->ids[i] != id) continue;
        if (w->word[i] != word) w->word[i] = -1;
        return TM_OK;
    }
    if (w->id_count == TM__NEXT_IDS)
        return tm__fail(TM_UNSUPPORTED, w->model->directory, "tokenizer", NULL, "more than %d tokens say the words",
                        (int)TM__NEXT_IDS);
    w->ids[w->id_count] = id;
    w->word[w->id_count++] = word;
    return TM_OK;
}

static tm_status add_beginning(tm__written *w, int word, const char *text, unsigned flags) {
    tm_ids ids = {0};
    char seen[2];
    bool blank = true;
    tm_status status = tm_tokenizer_encode(w->tokenizer, text, strlen(text), flags, &ids);
    if (status == TM_OK && ids.len) status = shown(w, ids.data[0], seen, sizeof seen, &blank);
    if (status == TM_OK && ids.len && !blank) status = add_id(w, word, ids.data[0]);
    tm_ids_free(&ids);
    return status;
}

tm_status tm__written_word(tm__written *w, int word, const char *text, bool begin) {
    char out[32];
    bool blank, any = false;
    for (int32_t id = 0; id < id_count(w); id++) {
        TM__TRY(shown(w, id, out, sizeof out, &blank));
        if (strcasecmp(out, text) == 0) TM__TRY(add_id(w, word, id));
    }
    if (begin) {
        snprintf(out, sizeof out, " %s", text);
        TM__TRY(add_beginning(w, word, text, 0));
        TM__TRY(add_beginning(w, word, text, TM__ENCODE_CONTINUE));
        TM__TRY(add_beginning(w, word, out, TM__ENCODE_CONTINUE));
    }
    for (size_t i = 0; i < w->id_count; i++) any |= w->word[i] == word;
    if (any) return TM_OK;
    return tm__fail(TM_MISMATCH, w->model->directory, "tokenizer", NULL, "no token of its own says '%s'", text);
}

tm_status tm__written_skip_blanks(tm__written *w) {
    char out[2];
    w->skip = tm__zalloc((size_t)w->model->config.vocab, sizeof *w->skip);
    if (!w->skip) return tm__fail_memory();
    for (int32_t id = 0; id < id_count(w); id++) TM__TRY(shown(w, id, out, sizeof out, &w->skip[id]));
    return TM_OK;
}

static double mass(const tm__written *w, const tm__next *next, int word) {
    double sum = 0;
    for (size_t i = 0; i < w->id_count; i++)
        if (w->word[i] == word) sum += next->probability[i];
    return sum;
}

static bool says(const tm__written *w, const tm__next *next, int word) {
    for (size_t i = 0; i < w->id_count; i++)
        if (w->ids[i] == next->likeliest) return w->word[i] == word;
    return false;
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

tm_status tm__written_seal(tm__written *w, const char *directory, const char *adapter, const char *more) {
    char weights[65], numbers[64];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    TM__TRY(tm_model_hash(w->model, weights)); /* with the adapter */
    tm__identity_text(&hash, weights);
    TM__TRY(tm__identity_files(directory, &hash));
    if (adapter) {
        char *path = tm__path_join(adapter, "adapter_config.json"), *text = NULL;
        size_t len;
        tm_status status = path ? tm__file_read(path, 0, &text, &len) : tm__fail_memory();
        if (status == TM_OK) tm__identity_text(&hash, text);
        free(path);
        free(text);
        TM__TRY(status);
    }
    snprintf(numbers, sizeof numbers, "%lld %s", (long long)w->answer_tokens, tm_device_precision(w->device));
    tm__identity_text(&hash, numbers);
    tm__identity_text(&hash, w->prompt.text);
    tm__identity_text(&hash, w->contextual.text);
    tm__identity_text(&hash, more);
    tm__sha256_hex(&hash, w->hash);
    return TM_OK;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static tm_status encode_chat(const tm__written *w, const tm__exchange *exchange, tm_ids *ids) {
    const tm_message messages[] = {{"user", exchange->prompt}, {"assistant", exchange->answer}};
    return tm_chat_encode(w->tokenizer, TM_CHAT_TEMPLATE, messages, TM__COUNT(messages), true, ids, NULL);
}

static tm_status encode_exchange(tm__written *w, const tm__exchange *exchange, const tm_monitor *monitor, tm_ids *ids) {
    tm__ready ready;
    const tm__judge_prompt *prompt = exchange->context && w->contextual.text ? &w->contextual : &w->prompt;
    if (!prompt->text) prompt = NULL;
    TM__TRY(tm__ready_make(prompt, w->tokenizer, exchange, w->answer_tokens, &ready));
    const tm__exchange made = tm__ready_exchange(&ready);
    tm_status status = prompt ? tm__prompt_encode(prompt, w->tokenizer, &made, ids) : encode_chat(w, &made, ids);
    tm__ready_free(&ready);
    if (status == TM_OK && !w->noted && (int64_t)ids->len > w->model->config.max_positions) {
        tm__rope_note(w->model, (int64_t)ids->len, monitor);
        w->noted = true;
    }
    return status;
}

static tm_status ask(tm__written *w, const tm__exchange *exchanges, size_t n, const tm_monitor *monitor,
                     tm__next *next) {
    const tm__next_question question = {.ids = w->ids, .count = w->id_count, .skip = w->skip};
    tm_ids *texts = tm__zalloc(n, sizeof *texts);
    tm_status status = texts ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < n; i++) status = encode_exchange(w, &exchanges[i], monitor, &texts[i]);
    if (status == TM_OK) status = tm__model_next(w->model, texts, n, &question, monitor, next);
    for (size_t i = 0; texts && i < n; i++) tm_ids_free(&texts[i]);
    free(texts);
    return status;
}

tm_status tm__written_judge(tm__written *w, tm__written_say *say, const tm__exchange *exchanges, size_t n,
                            tm__verdict *verdicts, const tm_monitor *monitor) {
    tm__next *next = tm__alloc(n, sizeof *next);
    tm_status status = next ? ask(w, exchanges, n, monitor, next) : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < n; i++) status = say(w, &exchanges[i], &next[i], &verdicts[i]);
    free(next);
    return status;
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */

tm_status tm__written_text(const tm__written *w, const tm__next *next, char **text) {
    if (next->likeliest < tm_tokenizer_vocab_size(w->tokenizer) && tm_tokenizer_piece(w->tokenizer, next->likeliest))
        return tm_tokenizer_decode(w->tokenizer, &next->likeliest, 1, 0, text, NULL);
    *text = tm__format("<%d>", (int)next->likeliest); /* rows of the embedding that no token uses */
    return *text ? TM_OK : tm__fail_memory();
}

tm_status tm__written_verdict(const tm__written *w, const tm__next *next, int harmful, int harmless,
                              tm__verdict *verdict) {
    bool yes = says(w, next, harmful), no = says(w, next, harmless);
    TM__TRY(tm__written_text(w, next, &verdict->output));
    verdict->scores[0] = yes;
    verdict->scores[1] = mass(w, next, harmful);
    if (yes || no) return TM_OK;
    return tm__verdict_say(&verdict->missing, "said neither of the two words, but '%.60s'", verdict->output)
               ? TM_OK
               : tm__fail_memory();
}
