/* adapter_replace.c: parameters of the model that an adapter brings whole (PEFT's modules_to_save).
 *
 * While the adapter is attached its values stand in the parameter, so that nothing else has to know of it, and the
 * model's own wait in model->replaced. Saving the model writes the model's own (tm__param_base). Pinned by
 * tests/unit/test_adapter_config.c and tests/golden/test_peft.c.
 */
#include "model/adapter.h"

#include <stdlib.h>

tm_status tm__param_replace(tm_model *model, tm__param *param, void *buffer, tm_dtype stored, size_t number) {
    tm_device *dev = model->dev;
    tm_status status = TM_OK;
    for (size_t i = 0; i < model->replaced_count && status == TM_OK; i++)
        if (model->replaced[i].param == param)
            status = tm__fail(TM_UNSUPPORTED, NULL, param->name, "merge one of them first",
                              "two adapters bring this weight whole");
    if (status == TM_OK &&
        !tm__grow((void **)&model->replaced, &model->replaced_cap, model->replaced_count + 1, sizeof *model->replaced))
        status = tm__fail_memory();
    if (status != TM_OK) {
        dev->release(dev, buffer, (size_t)tm__tensor_count(&param->value) * tm__dtype_size(dev->act));
        return status;
    }
    model->replaced[model->replaced_count++] = (tm__replaced){param, *param, number};
    param->value.data = buffer;
    param->value.dtype = dev->act;
    param->owned = true;
    param->stored = stored;
    param->trainable = false;
    param->grad = NULL;
    return TM_OK;
}

/* Releases what a parameter holds and nothing points to any more; its name stays in use. */
static void release(tm_device *dev, tm__param gone) {
    gone.name = NULL;
    tm__param_release(dev, &gone);
}

static void restore(tm_model *model, tm__replaced *replaced) {
    release(model->dev, *replaced->param);
    *replaced->param = replaced->base;
}

static void forget_empty(tm_model *model) {
    if (model->replaced_count > 0) return;
    free(model->replaced);
    model->replaced = NULL;
    model->replaced_cap = 0;
}

void tm__replaced_restore(tm_model *model, size_t from) {
    size_t kept = 0;
    for (size_t i = 0; i < model->replaced_count; i++) {
        if (model->replaced[i].number >= from)
            restore(model, &model->replaced[i]);
        else
            model->replaced[kept++] = model->replaced[i];
    }
    model->replaced_count = kept;
    forget_empty(model);
}

void tm__replaced_remove(tm_model *model, size_t number) {
    size_t kept = 0;
    for (size_t i = 0; i < model->replaced_count; i++) {
        tm__replaced r = model->replaced[i];
        if (r.number == number) {
            restore(model, &r);
            continue;
        }
        r.number -= r.number > number;
        model->replaced[kept++] = r;
    }
    model->replaced_count = kept;
    forget_empty(model);
}

void tm__replaced_keep(tm_model *model) {
    for (size_t i = 0; i < model->replaced_count; i++) {
        model->replaced[i].param->stored = model->replaced[i].base.stored; /* a merged model stays of one type */
        release(model->dev, model->replaced[i].base);
    }
    model->replaced_count = 0;
    forget_empty(model);
}

const tm__param *tm__param_base(const tm_model *model, const tm__param *param) {
    for (size_t i = 0; i < model->replaced_count; i++)
        if (model->replaced[i].param == param) return &model->replaced[i].base;
    return param;
}

bool tm__param_is_replaced(const tm_model *model, const tm__param *param, size_t number) {
    for (size_t i = 0; i < model->replaced_count; i++)
        if (model->replaced[i].param == param) return model->replaced[i].number == number;
    return false;
}
