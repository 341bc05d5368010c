/* share.c: what one of several processes does of a step: which rows, and the sum of all gradients.
 *
 * Rows are dealt out from the longest to the shortest, each to the rank that has the fewest tokens so far (Graham's LPT
 * rule: the fullest rank has at most 4/3 of the best division's). It looks at lengths alone, so all ranks come to the
 * same division. (tests/unit/test_train_share.c)
 */
#include "train/train.h"

#include <stdlib.h>

typedef struct dealt {
    size_t length, at; /* at: place in the batch */
} dealt;

static int longest_first(const void *a, const void *b) {
    const dealt *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return x->at < y->at ? -1 : 1;
}

tm_status tm__share_divide(const size_t *lengths, size_t n, int ranks, int *owner) {
    dealt *order = tm__alloc(n, sizeof *order);
    size_t *tokens = tm__zalloc((size_t)ranks, sizeof *tokens);
    tm_status status = order && tokens ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < n; i++) order[i] = (dealt){lengths[i], i};
    if (status == TM_OK) qsort(order, n, sizeof *order, longest_first);
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (tokens[r] < tokens[least]) least = r;
        owner[order[i].at] = least;
        tokens[least] += order[i].length;
    }
    free(order);
    free(tokens);
    return status;
}

tm_status tm__share_rows(const tm__examples *examples, size_t *rows, int64_t n, int rank, int64_t *mine) {
    size_t *lengths = tm__alloc((size_t)n, sizeof *lengths);
    int *owner = tm__alloc((size_t)n, sizeof *owner);
    tm_status status = lengths && owner ? TM_OK : tm__fail_memory();
    for (int64_t i = 0; status == TM_OK && i < n; i++) lengths[i] = examples->ids[rows[i]].len;
    if (status == TM_OK) status = tm__share_divide(lengths, (size_t)n, tm_ranks_count(), owner);
    int64_t kept = 0;
    for (int64_t i = 0; status == TM_OK && i < n; i++)
        if (owner[i] == rank) rows[kept++] = rows[i];
    if (status == TM_OK) *mine = kept;
    free(lengths);
    free(owner);
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

bool tm__share_writes(void) {
    return tm_ranks_rank() == 0;
}

tm_status tm__share_written(const tm_model *model, tm_status status) {
    return model->dev->rehearses ? status : tm_ranks_agree(status);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* Where in the row of all gradients the next element lies. */
typedef struct cursor {
    size_t item;
    int64_t at;
} cursor;

/* Moves as many elements as fit between the gradients and the adder, tensor by tensor. */
static tm_status move(const tm__paramset *set, tm__adder *adder, cursor *c, bool out, size_t *moved) {
    tm_device *dev = set->dev;
    size_t size = tm__dtype_size(dev->act), n = 0;
    while (c->item < set->count && n < adder->elements) {
        tm__param *param = set->items[c->item];
        int64_t length = tm__tensor_count(&param->value);
        size_t some = TM__MIN((size_t)(length - c->at), adder->elements - n);
        char *here = (char *)adder->mine + n * size, *grad = (char *)param->grad + (size_t)c->at * size;
        TM__TRY(out ? dev->download(dev, here, grad, some * size) : dev->upload(dev, grad, here, some * size));
        n += some;
        c->at += (int64_t)some;
        if (c->at < length) continue;
        c->item++;
        c->at = 0;
    }
    *moved = n;
    return TM_OK;
}

tm_status tm__grads_share(const tm__paramset *set, tm__adder *adder) {
    cursor from = {0}, to = {0};
    size_t n;
    while (from.item < set->count) {
        TM__TRY(move(set, adder, &from, true, &n));
        TM__TRY(tm__adder_sum(adder, n));
        TM__TRY(move(set, adder, &to, false, &n));
    }
    return TM_OK;
}
