/* chat.c: generation in terms of conversations: encode, continue to the end of the turn, decode. */
#include "data/data.h"
#include "model/model.h"

#include <stdlib.h>

size_t tm__model_stop_ids(const tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                          int32_t stop[TM__STOP_IDS]) {
    const int32_t own[] = {tm_chat_stop_id(tokenizer, format), tm_tokenizer_eos(tokenizer)};
    size_t n = 0;
    for (size_t i = 0; i < TM__COUNT(own); i++)
        if (own[i] >= 0) stop[n++] = own[i];
    for (int i = 0; i < model->config.eos_count; i++) stop[n++] = model->config.eos[i];
    return n;
}

typedef struct taking {
    const tm_tokenizer *tokenizer;
    tm__take_answer *take;
    void *user;
} taking;

static tm_status take_row(void *user, size_t row, const tm_ids *made) {
    const taking *t = user;
    char *text;
    TM__TRY(tm_tokenizer_decode(t->tokenizer, made->data, made->len, TM_DECODE_SKIP_SPECIAL, &text, NULL));
    return t->take(t->user, row, text);
}

/* `prompts` (n) encoded. */
static tm_status answer(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format, const tm_ids *prompts,
                        size_t n, const tm_generate_options *options, const tm_monitor *monitor, tm__take_answer *take,
                        void *user) {
    int32_t stop[TM__STOP_IDS];
    size_t stops = tm__model_stop_ids(model, tokenizer, format, stop);
    taking t = {tokenizer, take, user};
    const tm__generate_watch watch = {take_row, &t};
    return tm__generate(model, prompts, n, stop, stops, options, &watch, monitor, NULL);
}

static tm_status keep_text(void *user, size_t row, char *text) {
    ((char **)user)[row] = text;
    return TM_OK;
}

tm_status tm_generate_chat(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                           const tm_message *messages, size_t n, const tm_generate_options *options, char **text) {
    tm_ids prompt = {0};
    char *made = NULL;
    tm_status status = tm_chat_encode(tokenizer, format, messages, n, true, &prompt, NULL);
    if (status == TM_OK) status = answer(model, tokenizer, format, &prompt, 1, options, NULL, keep_text, &made);
    tm_ids_free(&prompt);
    if (status == TM_OK)
        *text = made;
    else
        free(made);
    return status;
}

tm_status tm__generate_answers(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                               const tm_dataset *prompts, const tm_generate_options *options, const tm_monitor *monitor,
                               tm__take_answer *take, void *user) {
    size_t rows = tm_dataset_rows(prompts);
    tm_ids *encoded = tm__zalloc(rows, sizeof *encoded);
    tm_status status = encoded || rows == 0 ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < rows; i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(prompts, i, &n);
        n = tm__messages_asked(messages, n);
        if (n == 0)
            status = tm__fail(TM_INVALID, NULL, NULL, NULL, "row %zu of the data set asks nothing", i);
        else
            status = tm_chat_encode(tokenizer, format, messages, n, true, &encoded[i], NULL);
        if (status != TM_OK && n > 0) status = tm__row_failed(status, i);
    }
    if (status == TM_OK && rows > 0)
        status = answer(model, tokenizer, format, encoded, rows, options, monitor, take, user);
    for (size_t i = 0; encoded && i < rows; i++) tm_ids_free(&encoded[i]);
    free(encoded);
    return status;
}

/* Answers are written only where all succeeded. */
tm_status tm_generate_dataset(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                              const tm_dataset *prompts, const tm_generate_options *options, const tm_monitor *monitor,
                              char **answers) {
    size_t rows = tm_dataset_rows(prompts);
    char **texts = tm__zalloc(rows, sizeof *texts);
    tm_status status = texts || rows == 0 ? TM_OK : tm__fail_memory();
    if (status == TM_OK)
        status = tm__generate_answers(model, tokenizer, format, prompts, options, monitor, keep_text, texts);
    for (size_t i = 0; texts && i < rows; i++) {
        if (status == TM_OK)
            answers[i] = texts[i];
        else
            free(texts[i]);
    }
    free(texts);
    return status;
}
