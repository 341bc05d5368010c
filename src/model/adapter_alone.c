/* adapter_alone.c: whether a model is what it was loaded as and one adapter, so that the adapter alone tells of it.
 *
 * A weight counts as changed from the moment that somebody asked for a copy of its own to write to (tm__param_own). The
 * description that is saved with the adapter must be of this adapter: methods add and remove several in turn.
 * Pinned by tests/unit/test_plan_adapters.c.
 */
#include "model/adapter.h"

#include <jansson.h>

static tm_status see_change(void *user, tm__param *param, bool is_adapter) {
    const tm_model *model = ((void **)user)[0];
    bool *changed = ((void **)user)[1];
    if (!is_adapter) *changed |= tm__param_base(model, param)->changed;
    return TM_OK;
}

/* Whether the rules give a linear the part that it has. */
static tm_status check_part(tm_model *model, const tm__adapter_rules *rules, int64_t layer, int index, bool *same) {
    const tm__linear *linear = tm__block_linear(&model->blocks[layer], index);
    const tm__adapter *part = tm__adapter_find(linear, 0);
    tm__adapter_shape shape;
    bool wanted = false;
    if (!tm__linear_exists(linear)) return TM_OK;
    char *path = tm__linear_path(model, layer, index);
    tm_status status = path ? tm__adapter_rules_part(rules, path, &wanted, &shape) : tm__fail_memory();
    free(path);
    TM__TRY(status);
    *same &= wanted == (part != NULL) && (!part || (part->rank == shape.rank && part->scale == shape.scale));
    return TM_OK;
}

static tm_status check_replaced(void *user, tm__param *param, bool is_adapter) {
    const tm_model *model = ((void **)user)[0];
    const tm__adapter_rules *rules = ((void **)user)[2];
    bool *same = ((void **)user)[1];
    bool tied_head = param == &model->embed && !model->head.name && tm__adapter_rules_saves(rules, "lm_head.weight");
    if (!is_adapter)
        *same &= tm__param_is_replaced(model, param, 0) == (tied_head || tm__adapter_rules_saves(rules, param->name));
    return TM_OK;
}

tm_status tm__model_adapter_alone(tm_model *model, bool *alone) {
    tm__adapter_rules *rules = NULL;
    bool changed = false, same = true;
    *alone = false;
    if (model->adapter_count != 1 || !model->adapter_config || model->dev->act != TM_F32) return TM_OK;
    TM__TRY(tm__model_params(model, see_change, (void *[]){model, &changed}));
    if (changed) return TM_OK;
    tm_status status = tm__adapter_rules_make(model->adapter_config, "adapter_config.json", &rules);
    for (int64_t i = 0; status == TM_OK && i < model->config.layers; i++)
        for (int k = 0; status == TM_OK && k < TM__LINEARS; k++) status = check_part(model, rules, i, k, &same);
    if (status == TM_OK) status = tm__model_params(model, check_replaced, (void *[]){model, &same, rules});
    tm__adapter_rules_free(rules);
    *alone = same;
    return status;
}

static tm_status settle(void *user, tm__param *param, bool is_adapter) {
    (void)user;
    (void)is_adapter;
    param->changed = false;
    return TM_OK;
}

tm_status tm__model_settle(tm_model *model) {
    return tm__model_params(model, settle, NULL);
}

tm_status tm__model_adapter_stands_on(tm_model *model, const char *name) {
    bool ok = json_object_set_new(model->adapter_config, "base_model_name_or_path", json_string(name)) == 0;
    return ok ? TM_OK : tm__fail_memory();
}

static tm_status add_bytes(void *user, tm__param *param, bool is_adapter) {
    const tm_model *model = ((void **)user)[0];
    int64_t *bytes = ((void **)user)[1];
    if (is_adapter || tm__param_is_replaced(model, param, 0))
        *bytes += tm__tensor_count(&param->value) * (int64_t)tm__dtype_size(TM_F32);
    return TM_OK;
}

int64_t tm__model_adapter_bytes(tm_model *model) {
    int64_t bytes = 0;
    tm__model_params(model, add_bytes, (void *[]){model, &bytes}); /* never fails */
    return bytes;
}
