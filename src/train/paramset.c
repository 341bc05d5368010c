/* paramset.c: the trainable parameters as one vector: save, restore, move, measure.
 *
 * Restoring copies back; it never subtracts, which in floating point leaves a residue. Norms and products add the
 * parameters' sums in their fixed order, in fp64. (tests/unit/test_train_paramset.c)
 */
#include "train/train.h"

#include <stdlib.h>

static int64_t length(const tm__param *param) {
    return tm__tensor_count(&param->value);
}

static size_t bytes(const tm__paramset *set, size_t i) {
    return (size_t)length(set->items[i]) * tm__dtype_size(set->dev->act);
}

/* ---- the set ----------------------------------------------------------------------------------------------------- */

typedef struct collection {
    tm__paramset set;
    size_t cap;
} collection;

static tm_status collect(void *user, tm__param *param, bool is_adapter) {
    (void)is_adapter;
    collection *c = user;
    if (!param->trainable) return TM_OK;
    if (!tm__grow((void **)&c->set.items, &c->cap, c->set.count + 1, sizeof(tm__param *))) return tm__fail_memory();
    c->set.items[c->set.count++] = param;
    c->set.scalars += length(param);
    return TM_OK;
}

tm_status tm__paramset_collect(tm_model *model, tm__paramset *set) {
    collection c = {.set.dev = model->dev};
    tm_status status = tm__model_params(model, collect, &c);
    if (status == TM_OK && c.set.count == 0)
        status = tm__fail(TM_INVALID, NULL, NULL, NULL, "no parameter is to be trained");
    if (status == TM_OK)
        *set = c.set;
    else
        free(c.set.items);
    return status;
}

void tm__paramset_release(tm__paramset *set) {
    free(set->items);
    *set = (tm__paramset){0};
}

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

tm_status tm__vector_create_for(const tm__paramset *set, int purpose, tm__vector *vector) {
    tm__vector made = {.data = tm__zalloc(set->count, sizeof *made.data)};
    if (!made.data) return tm__fail_memory();
    tm_status status = TM_OK;
    for (size_t i = 0; i < set->count && status == TM_OK; i++) {
        status = tm__alloc_zeroed(set->dev, purpose, bytes(set, i), &made.data[i]);
        if (status != TM_OK) made.data[i] = NULL;
    }
    if (status == TM_OK)
        *vector = made;
    else
        tm__vector_release(set, &made);
    return status;
}

tm_status tm__vector_create(const tm__paramset *set, tm__vector *vector) {
    return tm__vector_create_for(set, TM__FOR_VECTORS, vector);
}

void tm__vector_release(const tm__paramset *set, tm__vector *vector) {
    for (size_t i = 0; vector->data && i < set->count; i++)
        if (vector->data[i]) set->dev->release(set->dev, vector->data[i], bytes(set, i));
    free(vector->data);
    *vector = (tm__vector){0};
}

/* A conversion to the same type copies bits. */
static tm_status copy(const tm__paramset *set, size_t i, void *to, const void *from) {
    return set->dev->k->convert(set->dev, to, set->dev->act, from, set->dev->act, length(set->items[i]));
}

tm_status tm__paramset_save(const tm__paramset *set, tm__vector *to) {
    for (size_t i = 0; i < set->count; i++) TM__TRY(copy(set, i, to->data[i], set->items[i]->value.data));
    return TM_OK;
}

tm_status tm__paramset_restore(const tm__paramset *set, const tm__vector *from) {
    for (size_t i = 0; i < set->count; i++) TM__TRY(copy(set, i, set->items[i]->value.data, from->data[i]));
    return TM_OK;
}

tm_status tm__paramset_axpy(const tm__paramset *set, double alpha, const tm__vector *x) {
    for (size_t i = 0; i < set->count; i++) {
        tm__param *param = set->items[i];
        TM__TRY(set->dev->k->axpy(set->dev, param->value.data, alpha, x->data[i], length(param)));
    }
    return TM_OK;
}

static tm_status vector_scale(const tm__paramset *set, double alpha, tm__vector *x) {
    for (size_t i = 0; i < set->count; i++)
        TM__TRY(set->dev->k->scale(set->dev, x->data[i], alpha, x->data[i], length(set->items[i])));
    return TM_OK;
}

tm_status tm__vector_dot(const tm__paramset *set, const tm__vector *x, const tm__vector *y, double *dot) {
    double sum = 0;
    for (size_t i = 0; i < set->count; i++) {
        double part;
        TM__TRY(set->dev->k->dot(set->dev, &part, x->data[i], y->data[i], length(set->items[i])));
        sum += part;
    }
    *dot = sum;
    return TM_OK;
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

void tm__grads_zero(const tm__paramset *set) {
    for (size_t i = 0; i < set->count; i++) tm__param_grad_zero(set->dev, set->items[i]);
}

tm_status tm__grads_make(const tm__paramset *set) {
    void *grad;
    for (size_t i = 0; i < set->count; i++) TM__TRY(tm__param_grad(set->dev, set->items[i], &grad));
    return TM_OK;
}

tm_status tm__grads_save(const tm__paramset *set, tm__vector *to) {
    for (size_t i = 0; i < set->count; i++) {
        const tm__param *param = set->items[i];
        TM__TRY(param->grad ? copy(set, i, to->data[i], param->grad)
                            : set->dev->k->fill(set->dev, to->data[i], 0, length(param)));
    }
    return TM_OK;
}

tm_status tm__grads_axpy(const tm__paramset *set, double alpha, const tm__vector *x) {
    for (size_t i = 0; i < set->count; i++) {
        void *grad;
        TM__TRY(tm__param_grad(set->dev, set->items[i], &grad));
        TM__TRY(set->dev->k->axpy(set->dev, grad, alpha, x->data[i], length(set->items[i])));
    }
    return TM_OK;
}

tm_status tm__grads_scale(const tm__paramset *set, double alpha) {
    for (size_t i = 0; i < set->count; i++) {
        void *grad = set->items[i]->grad;
        if (grad) TM__TRY(set->dev->k->scale(set->dev, grad, alpha, grad, length(set->items[i])));
    }
    return TM_OK;
}

tm_status tm__grads_norm(const tm__paramset *set, double *norm) {
    double sum = 0;
    for (size_t i = 0; i < set->count; i++) {
        const void *grad = set->items[i]->grad;
        double part = 0;
        if (grad) TM__TRY(set->dev->k->dot(set->dev, &part, grad, grad, length(set->items[i])));
        sum += part;
    }
    *norm = sqrt(sum);
    return TM_OK;
}

tm_status tm__grads_direction(const tm__paramset *set, double length, tm__vector *x) {
    double norm;
    TM__TRY(tm__grads_norm(set, &norm));
    TM__TRY(tm__grads_save(set, x));
    return vector_scale(set, length / (norm + TM__NORM_FLOOR), x);
}
