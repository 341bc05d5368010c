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

static void free_all(tm_ids *list, size_t n) {
    for (size_t i = 0; list && i < n; i++) tm_ids_free(&list[i]);
    free(list);
}

/* `prompts` (n) encoded; answers (n) are written only where all succeeded. */
static tm_status answer(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format, const tm_ids *prompts,
                        size_t n, const tm_generate_options *options, const tm_monitor *monitor, char **answers) {
    int32_t stop[TM__STOP_IDS];
    size_t stops = tm__model_stop_ids(model, tokenizer, format, stop);
    tm_ids *made = tm__zalloc(n, sizeof *made);
    char **texts = tm__zalloc(n, sizeof *texts);
    tm_status status = made && texts ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm_generate(model, prompts, n, stop, stops, options, monitor, made);
    for (size_t i = 0; status == TM_OK && i < n; i++)
        status = tm_tokenizer_decode(tokenizer, made[i].data, made[i].len, TM_DECODE_SKIP_SPECIAL, &texts[i], NULL);
    for (size_t i = 0; texts && i < n; i++) {
        if (status == TM_OK)
            answers[i] = texts[i];
        else
            free(texts[i]);
    }
    free(texts);
    free_all(made, n);
    return status;
}

tm_status tm_generate_chat(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                           const tm_message *messages, size_t n, const tm_generate_options *options, char **text) {
    tm_ids prompt = {0};
    tm_status status = tm_chat_encode(tokenizer, format, messages, n, true, &prompt, NULL);
    if (status == TM_OK) status = answer(model, tokenizer, format, &prompt, 1, options, NULL, text);
    tm_ids_free(&prompt);
    return status;
}

tm_status tm_generate_dataset(tm_model *model, const tm_tokenizer *tokenizer, tm_chat_format format,
                              const tm_dataset *prompts, const tm_generate_options *options, const tm_monitor *monitor,
                              char **answers) {
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
        status = answer(model, tokenizer, format, encoded, rows, options, monitor, answers);
    free_all(encoded, rows);
    return status;
}
