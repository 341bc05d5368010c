/* weights.c: the parameters of a model: names, shapes, order, ownership, training state.
 *
 * A frozen weight points into the mapped checkpoint in whatever type it is stored. Training gives it a master copy of
 * the device's act type, which stays when it is frozen again: then the copy is the truth, the mapping only what it was.
 */
#include "model/weights.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- linears of a block ------------------------------------------------------------------------------------------ */

static const struct {
    const char *parent, *name;
    size_t offset;
} linears[TM__LINEARS] = {
    {"self_attn", "q_proj", offsetof(tm__block, q)}, {"self_attn", "k_proj", offsetof(tm__block, k)},
    {"self_attn", "v_proj", offsetof(tm__block, v)}, {"self_attn", "o_proj", offsetof(tm__block, o)},
    {"mlp", "gate_proj", offsetof(tm__block, gate)}, {"mlp", "up_proj", offsetof(tm__block, up)},
    {"mlp", "down_proj", offsetof(tm__block, down)},
};

tm__linear *tm__block_linear(tm__block *block, int index) {
    assert(index >= 0 && index < TM__LINEARS);
    return (tm__linear *)((char *)block + linears[index].offset);
}

const char *tm__linear_name(int index) {
    assert(index >= 0 && index < TM__LINEARS);
    return linears[index].name;
}

char *tm__linear_path(int64_t layer, int index) {
    return tm__format("model.layers.%lld.%s.%s", (long long)layer, linears[index].parent, linears[index].name);
}

/* ---- names and shapes -------------------------------------------------------------------------------------------- */

static bool describe(tm__param *param, char *name, int ndim, int64_t rows, int64_t columns, tm_dtype stored) {
    param->name = name;
    param->value = (tm_tensor){.dtype = stored, .ndim = ndim, .shape = {rows, columns}};
    param->stored = stored;
    return name != NULL;
}

static bool describe_linear(const tm__config *c, tm__block *block, int64_t layer, int index) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shape[TM__LINEARS][2] = {/* (out, in) */
                                           {q, c->hidden},
                                           {kv, c->hidden},
                                           {kv, c->hidden},
                                           {c->hidden, q},
                                           {c->intermediate, c->hidden},
                                           {c->intermediate, c->hidden},
                                           {c->hidden, c->intermediate}};
    tm__linear *linear = tm__block_linear(block, index);
    char *path = tm__linear_path(layer, index);
    bool ok =
        path && describe(&linear->weight, tm__format("%s.weight", path), 2, shape[index][0], shape[index][1], c->dtype);
    if (ok && (index < 4 ? c->attention_bias : c->mlp_bias))
        ok = describe(&linear->bias, tm__format("%s.bias", path), 1, shape[index][0], 1, c->dtype);
    free(path);
    return ok;
}

static bool describe_all(tm_model *model) {
    const tm__config *c = &model->config;
    bool ok = describe(&model->embed, tm__strdup("model.embed_tokens.weight"), 2, c->vocab, c->hidden, c->dtype) &&
              describe(&model->final_norm, tm__strdup("model.norm.weight"), 1, c->hidden, 1, c->dtype);
    if (ok && !c->tied) ok = describe(&model->head, tm__strdup("lm_head.weight"), 2, c->vocab, c->hidden, c->dtype);
    for (int64_t i = 0; ok && i < c->layers; i++) {
        tm__block *b = &model->blocks[i];
        char *input = tm__format("model.layers.%lld.input_layernorm.weight", (long long)i);
        char *post = tm__format("model.layers.%lld.post_attention_layernorm.weight", (long long)i);
        bool first = describe(&b->input_norm, input, 1, c->hidden, 1, c->dtype);
        ok = describe(&b->post_norm, post, 1, c->hidden, 1, c->dtype) && first;
        for (int k = 0; ok && k < TM__LINEARS; k++) ok = describe_linear(c, b, i, k);
    }
    return ok;
}

tm_status tm__model_skeleton(tm_device *dev, tm__config *config, tm_model **model) {
    tm_model *made = tm__zalloc(1, sizeof *made);
    if (!made) {
        tm__config_release(config);
        return tm__fail_memory();
    }
    made->dev = dev;
    made->config = *config;
    *config = (tm__config){0};
    made->blocks = tm__zalloc((size_t)made->config.layers, sizeof *made->blocks);
    if (!made->blocks || !describe_all(made)) {
        tm_model_free(made);
        return tm__fail_memory();
    }
    *model = made;
    return TM_OK;
}

/* ---- release ----------------------------------------------------------------------------------------------------- */

static size_t act_bytes(const tm_device *dev, const tm__param *param) {
    return (size_t)tm__tensor_count(&param->value) * tm__dtype_size(dev->act);
}

void tm__param_release(tm_device *dev, tm__param *param) {
    if (param->grad) dev->release(dev, param->grad, act_bytes(dev, param));
    if (param->owned) dev->release(dev, param->value.data, act_bytes(dev, param));
    free(param->name);
    *param = (tm__param){0};
}

void tm_model_free(tm_model *model) {
    if (!model) return;
    tm_device *dev = model->dev;
    tm__adapters_drop(model, 0);
    tm__param_release(dev, &model->embed);
    tm__param_release(dev, &model->final_norm);
    tm__param_release(dev, &model->head);
    for (int64_t i = 0; model->blocks && i < model->config.layers; i++) {
        tm__block *block = &model->blocks[i];
        tm__param_release(dev, &block->input_norm);
        tm__param_release(dev, &block->post_norm);
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__param_release(dev, &tm__block_linear(block, k)->weight);
            tm__param_release(dev, &tm__block_linear(block, k)->bias);
        }
    }
    free(model->blocks);
    tm__rope_release(dev, &model->rope);
    tm__checkpoint_close(model->files);
    tm__config_release(&model->config);
    json_decref(model->adapter_config);
    free(model->directory);
    free(model);
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

static tm_status visit_linear(tm__linear *linear, tm__param_visit visit, void *user) {
    TM__TRY(visit(user, &linear->weight, false));
    if (linear->bias.name) TM__TRY(visit(user, &linear->bias, false));
    for (size_t i = 0; i < linear->adapter_count; i++) {
        TM__TRY(visit(user, &linear->adapters[i].a, true));
        TM__TRY(visit(user, &linear->adapters[i].b, true));
    }
    return TM_OK;
}

static tm_status visit_block(tm__block *block, tm__param_visit visit, void *user) {
    TM__TRY(visit(user, &block->input_norm, false));
    for (int k = 0; k < 4; k++) TM__TRY(visit_linear(tm__block_linear(block, k), visit, user));
    TM__TRY(visit(user, &block->post_norm, false));
    for (int k = 4; k < TM__LINEARS; k++) TM__TRY(visit_linear(tm__block_linear(block, k), visit, user));
    return TM_OK;
}

tm_status tm__model_params(tm_model *model, tm__param_visit visit, void *user) {
    TM__TRY(visit(user, &model->embed, false));
    for (int64_t i = 0; i < model->config.layers; i++) TM__TRY(visit_block(&model->blocks[i], visit, user));
    TM__TRY(visit(user, &model->final_norm, false));
    return model->head.name ? visit(user, &model->head, false) : TM_OK;
}

typedef struct collection {
    tm__param_item *items;
    size_t len, cap;
    bool adapters;
} collection;

static tm_status collect(void *user, tm__param *param, bool is_adapter) {
    collection *c = user;
    if (is_adapter && !c->adapters) return TM_OK;
    if (!tm__grow((void **)&c->items, &c->cap, c->len + 1, sizeof *c->items)) return tm__fail_memory();
    c->items[c->len++] = (tm__param_item){param, is_adapter};
    return TM_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const tm__param_item *)a)->param->name, ((const tm__param_item *)b)->param->name);
}

tm_status tm__model_sorted(const tm_model *model, bool adapters, tm__param_item **items, size_t *count) {
    collection c = {.adapters = adapters};
    tm_status status = tm__model_params((tm_model *)model, collect, &c);
    if (status != TM_OK) {
        free(c.items);
        return status;
    }
    qsort(c.items, c.len, sizeof *c.items, by_name);
    *items = c.items;
    *count = c.len;
    return TM_OK;
}

tm__param *tm__model_head(tm_model *model) {
    return model->head.value.data ? &model->head : &model->embed;
}

/* ---- ownership and training -------------------------------------------------------------------------------------- */

tm_status tm__param_alloc(tm_model *model, tm__param *param) {
    tm_device *dev = model->dev;
    void *data;
    TM__TRY(tm__alloc_for(dev, TM__FOR_WEIGHTS, act_bytes(dev, param), &data));
    param->value.data = data;
    param->value.dtype = dev->act;
    param->owned = true;
    return TM_OK;
}

tm_status tm__param_own(tm_model *model, tm__param *param) {
    if (param->owned) return TM_OK;
    tm_device *dev = model->dev;
    const tm_tensor mapped = param->value;
    TM__TRY(tm__param_alloc(model, param));
    tm_status status =
        dev->k->convert(dev, param->value.data, dev->act, mapped.data, mapped.dtype, tm__tensor_count(&mapped));
    if (status != TM_OK) {
        dev->release(dev, param->value.data, act_bytes(dev, param));
        param->value = mapped;
        param->owned = false;
    }
    return status;
}

tm_status tm__param_train(tm_model *model, tm__param *param, bool trainable) {
    tm_device *dev = model->dev;
    if (!trainable) {
        if (param->grad) dev->release(dev, param->grad, act_bytes(dev, param));
        param->grad = NULL;
        param->trainable = false;
        return TM_OK;
    }
    TM__TRY(tm__param_own(model, param));
    if (!param->grad) {
        void *grad;
        TM__TRY(tm__alloc_for(dev, TM__FOR_GRADIENTS, act_bytes(dev, param), &grad));
        tm_status status = dev->k->fill(dev, grad, 0, tm__tensor_count(&param->value));
        if (status != TM_OK) {
            dev->release(dev, grad, act_bytes(dev, param));
            return status;
        }
        param->grad = grad;
    }
    param->trainable = true;
    return TM_OK;
}

typedef struct selection {
    tm_model *model;
    bool base;
    size_t from; /* adapters of this number and later ones */
} selection;

static tm_status select_base(void *user, tm__param *param, bool is_adapter) {
    const selection *s = user;
    return is_adapter ? TM_OK : tm__param_train(s->model, param, s->base);
}

static tm_status select_adapters(const selection *s) {
    for (int64_t i = 0; i < s->model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__linear *linear = tm__block_linear(&s->model->blocks[i], k);
            for (size_t j = 0; j < linear->adapter_count; j++) {
                bool chosen = linear->adapters[j].number >= s->from;
                TM__TRY(tm__param_train(s->model, &linear->adapters[j].a, chosen));
                TM__TRY(tm__param_train(s->model, &linear->adapters[j].b, chosen));
            }
        }
    for (size_t i = 0; i < s->model->replaced_count; i++)
        if (s->model->replaced[i].number >= s->from)
            TM__TRY(tm__param_train(s->model, s->model->replaced[i].param, true));
    return TM_OK;
}

static tm_status apply(selection s) {
    tm_status status = tm__model_params(s.model, select_base, &s);
    if (status == TM_OK) status = select_adapters(&s);
    return status;
}

tm_status tm__model_freeze(tm_model *model) {
    return apply((selection){model, false, SIZE_MAX});
}

/* A model is left frozen where memory did not suffice to train it. */
static tm_status apply_or_freeze(selection s) {
    tm_status status = apply(s);
    if (status != TM_OK) tm__model_freeze(s.model);
    return status;
}

tm_status tm__model_train_full(tm_model *model) {
    return apply_or_freeze((selection){model, true, SIZE_MAX});
}

tm_status tm__model_train_adapters(tm_model *model, size_t from) {
    return apply_or_freeze((selection){model, false, from});
}

static tm_status freeze(void *user, tm__param *param, bool is_adapter) {
    (void)is_adapter;
    return tm__param_train(user, param, false);
}

tm_status tm__model_freeze_blocks(tm_model *model, int64_t count) {
    TM__TRY(tm__param_train(model, &model->embed, false));
    for (int64_t i = 0; i < count; i++) TM__TRY(visit_block(&model->blocks[i], freeze, model));
    return TM_OK;
}
