/* encode.c: a row of a data set to token ids in a chat format.
 *
 * Alpaca's rows hold an instruction and an input. Only the Alpaca format keeps them apart; for the others the two
 * become one user message "instruction\ninput", so that the same file trains any model.
 */
#include "data/data.h"

#include <stdlib.h>

static bool is_input(const tm_message *message) {
    return strcmp(message->role, "input") == 0;
}

/* Joins each input to the message before it; texts live in `arena`. */
static tm_status join_inputs(const tm_message *messages, size_t n, tm__arena *arena, tm_message **joined,
                             size_t *count) {
    tm_message *made = tm__arena_alloc(arena, n, sizeof *made);
    size_t used = 0;
    if (!made) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        if (!is_input(&messages[i]) || used == 0) {
            made[used++] = messages[i];
            continue;
        }
        const char *before = made[used - 1].content, *input = messages[i].content;
        size_t a = strlen(before), b = strlen(input);
        char *text = tm__arena_alloc(arena, a + b + 2, 1);
        if (!text) return tm__fail_memory();
        memcpy(text, before, a);
        text[a] = '\n';
        memcpy(text + a + 1, input, b);
        made[used - 1].content = text;
    }
    *joined = made;
    *count = used;
    return TM_OK;
}

tm_status tm__row_encode(const tm_tokenizer *tokenizer, tm_chat_format format, const tm_message *messages, size_t n,
                         bool ask, tm_ids *ids, tm_ids *labels) {
    bool inputs = false;
    for (size_t i = 0; i < n; i++) inputs |= is_input(&messages[i]);
    if (!inputs || format == TM_CHAT_ALPACA) return tm_chat_encode(tokenizer, format, messages, n, ask, ids, labels);
    tm__arena arena = {0};
    tm_message *joined = NULL;
    size_t count = 0;
    tm_status status = join_inputs(messages, n, &arena, &joined, &count);
    if (status == TM_OK) status = tm_chat_encode(tokenizer, format, joined, count, ask, ids, labels);
    tm__arena_release(&arena);
    return status;
}
