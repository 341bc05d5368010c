/* soft_prompt.h: prompts with vectors among their words: their loss, its gradient, the model's answers. */
#ifndef TM_SOFT_PROMPT_H
#define TM_SOFT_PROMPT_H

#include "method/method.h"

typedef struct tm__soft_row {
    tm_ids ids;  /* prompt with place-holders, then the target */
    int64_t at;  /* the first place-holder */
    int64_t ask; /* tokens before the answer */
} tm__soft_row;

typedef struct tm__soft {
    tm_model *model;
    tm__tape *tape;
    int64_t width; /* place-holders of a row */
    bool recompute;
} tm__soft;

/* One row per prompt, `width` place-holders behind the user's last word; they begin as the tokens of `init` in turn. */
tm_status tm__soft_rows_make(const tm_tokenizer *tokenizer, const tm_dataset *prompts, tm_chat_format format,
                             const char *target, const char *init, int64_t width, tm__soft_row **rows);
void tm__soft_rows_free(tm__soft_row *rows, size_t count);
/* loss (n): of each row's target, under its delta (width, hidden). Adds the gradients to grad[i], which may be the same
 * for several rows; grad NULL: forward only. */
tm_status tm__soft_pass(const tm__soft *soft, const tm__soft_row *rows, size_t n, const double *const *delta,
                        double *const *grad, double *loss);
/* Greedy answers (n), without what ends them; `answers` starts as {0} and may hold ids after a failure. */
tm_status tm__soft_answer(const tm__soft *soft, const tm__soft_row *rows, size_t n, const double *const *delta,
                          const int32_t *stop, size_t stops, int64_t max_new_tokens, tm_ids *answers);

#endif
