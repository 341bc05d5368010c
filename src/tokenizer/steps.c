/* steps.c: the lists of normalizers, pre-tokenizers and decoders that make up a pipeline. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

tm__step *tm__steps_add(tm__steps *steps, tm__step_kind kind) {
    if (!tm__grow((void **)&steps->data, &steps->cap, steps->len + 1, sizeof *steps->data)) return NULL;
    tm__step *step = &steps->data[steps->len++];
    *step = (tm__step){.kind = kind, .behavior = TM__BEHAVIOR_ISOLATED, .prepend = TM__PREPEND_NEVER};
    return step;
}

void tm__steps_free(tm__steps *steps) {
    for (size_t i = 0; i < steps->len; i++) tm__regex_free(&steps->data[i].regex);
    free(steps->data);
    *steps = (tm__steps){0};
}
