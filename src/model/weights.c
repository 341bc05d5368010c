/* weights.c: the parameters of a model: names, shapes, order, ownership, training state.
 *
 * A frozen weight points into the mapped checkpoint in whatever type it is stored. Training gives it a master copy of
 * the device's act type, which stays when it is frozen again: then the copy is the truth, the mapping only what it was.
 */
#include "model/weights.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- names and shapes -------------------------------------------------------------------------------------------- */

char *tm__linear_path(const tm_model *model, int64_t layer, int index) {
    return tm__format("model.layers.%lld.%s", (long long)layer, model->config.family->linear[index]);
}

static bool describe(const tm__config *c, tm__param *param, char *name, int ndim, int64_t rows, int64_t columns) {
    param->name = name;
    param->value = (tm_tensor){.dtype = c->dtype, .ndim = ndim, .shape = {rows, columns}};
    param->stored = c->dtype;
    return name != NULL;
}

static bool describe_linear(tm_model *model, int64_t layer, int index) {
    const tm__config *c = &model->config;
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
        int64_t out, in;
        bool bias;
    } shapes[TM__LINEARS] = {
        [TM__Q] = {q, c->hidden, c->qkv_bias},
        [TM__K] = {kv, c->hidden, c->qkv_bias},
        [TM__V] = {kv, c->hidden, c->qkv_bias},
        [TM__O] = {c->hidden, q, c->o_bias},
        [TM__GATE] = {c->intermediate, c->hidden, c->mlp_bias},
        [TM__UP] = {c->intermediate, c->hidden, c->mlp_bias},
        [TM__DOWN] = {c->hidden, c->intermediate, c->mlp_bias},
    };
    if (!c->family->linear[index]) return true;
    tm__linear *linear = tm__block_linear(&model->blocks[layer], index);
    char *path = tm__linear_path(model, layer, index);
    bool ok =
        path && describe(c, &linear->weight, tm__format("%s.weight", path), 2, shapes[index].out, shapes[index].in);
    if (ok && shapes[index].bias) ok = describe(c, &linear->bias, tm__format("%s.bias", path), 1, shapes[index].out, 1);
    free(path);
    return ok;
}

static bool describe_norm(const tm__config *c, tm__norm *norm, const char *path, int64_t size) {
    bool ok = describe(c, &norm->weight, tm__format("%s.weight", path), 1, size, 1);
    if (ok && c->family->layer_norm) ok = describe(c, &norm->bias, tm__format("%s.bias", path), 1, size, 1);
    return ok;
}

static bool describe_block(tm_model *model, int64_t layer) {
    const tm__config *c = &model->config;
    bool ok = true;
    for (int k = 0; ok && k < TM__NORMS; k++) {
        bool heads = k == TM__NORM_Q || k == TM__NORM_K;
        if (!c->family->norm[k] || (heads && !c->qk_norm)) continue;
        char *path = tm__format("model.layers.%lld.%s", (long long)layer, c->family->norm[k]);
        ok = path && describe_norm(c, &model->blocks[layer].norm[k], path, heads ? c->head_dim : c->hidden);
        free(path);
    }
    for (int k = 0; ok && k < TM__LINEARS; k++) ok = describe_linear(model, layer, k);
    return ok;
}

static bool describe_all(tm_model *model) {
    const tm__config *c = &model->config;
    bool ok = describe(c, &model->embed, tm__strdup("model.embed_tokens.weight"), 2, c->vocab, c->hidden) &&
              describe_norm(c, &model->final_norm, c->family->final_norm, c->hidden);
    if (ok && c->labels) ok = describe(c, &model->score, tm__strdup("score.weight"), 2, c->labels, c->hidden);
    if (ok && !c->labels && !c->tied)
        ok = describe(c, &model->head, tm__strdup("lm_head.weight"), 2, c->vocab, c->hidden);
    if (ok && !c->labels && c->family->head_bias)
        ok = describe(c, &model->head_bias, tm__strdup("lm_head.bias"), 1, c->vocab, 1);
    for (int64_t i = 0; ok && i < c->layers; i++) ok = describe_block(model, i);
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
    tm__param_grad_zero(dev, param);
    if (param->owned) dev->release(dev, param->value.data, act_bytes(dev, param));
    if (param->int8) dev->release(dev, param->int8, param->int8_bytes);
    free(param->name);
    *param = (tm__param){0};
}

static void norm_release(tm_device *dev, tm__norm *norm) {
    tm__param_release(dev, &norm->weight);
    tm__param_release(dev, &norm->bias);
}

void tm_model_free(tm_model *model) {
    if (!model) return;
    tm_device *dev = model->dev;
    tm__adapters_drop(model, 0);
    tm__param_release(dev, &model->embed);
    norm_release(dev, &model->final_norm);
    tm__param_release(dev, &model->head);
    tm__param_release(dev, &model->head_bias);
    tm__param_release(dev, &model->score);
    for (int64_t i = 0; model->blocks && i < model->config.layers; i++) {
        tm__block *block = &model->blocks[i];
        for (int k = 0; k < TM__NORMS; k++) norm_release(dev, &block->norm[k]);
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

static tm_status visit_present(tm__param *param, tm__param_visit visit, void *user) {
    return param->name ? visit(user, param, false) : TM_OK;
}

static tm_status visit_linear(tm__linear *linear, tm__param_visit visit, void *user) {
    TM__TRY(visit_present(&linear->weight, visit, user));
    TM__TRY(visit_present(&linear->bias, visit, user));
    for (size_t i = 0; i < linear->adapter_count; i++) {
        TM__TRY(visit(user, &linear->adapters[i].a, true));
        TM__TRY(visit(user, &linear->adapters[i].b, true));
    }
    return TM_OK;
}

static tm_status visit_norm(tm__norm *norm, tm__param_visit visit, void *user) {
    TM__TRY(visit_present(&norm->weight, visit, user));
    return visit_present(&norm->bias, visit, user);
}

static tm_status visit_block(tm__block *block, tm__param_visit visit, void *user) {
    TM__TRY(visit_norm(&block->norm[TM__NORM_INPUT], visit, user));
    for (int k = TM__Q; k <= TM__O; k++) TM__TRY(visit_linear(tm__block_linear(block, k), visit, user));
    TM__TRY(visit_norm(&block->norm[TM__NORM_Q], visit, user));
    TM__TRY(visit_norm(&block->norm[TM__NORM_K], visit, user));
    TM__TRY(visit_norm(&block->norm[TM__NORM_ATTENTION_POST], visit, user));
    TM__TRY(visit_norm(&block->norm[TM__NORM_MLP], visit, user));
    for (int k = TM__GATE; k <= TM__DOWN; k++) TM__TRY(visit_linear(tm__block_linear(block, k), visit, user));
    return visit_norm(&block->norm[TM__NORM_MLP_POST], visit, user);
}

tm_status tm__model_params(tm_model *model, tm__param_visit visit, void *user) {
    TM__TRY(visit(user, &model->embed, false));
    for (int64_t i = 0; i < model->config.layers; i++) TM__TRY(visit_block(&model->blocks[i], visit, user));
    TM__TRY(visit_norm(&model->final_norm, visit, user));
    TM__TRY(visit_present(&model->head, visit, user));
    TM__TRY(visit_present(&model->head_bias, visit, user));
    return visit_present(&model->score, visit, user);
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

tm__head tm__model_head(tm_model *model) {
    return (tm__head){.weight = model->head.name ? &model->head : &model->embed,
                      .bias = model->head_bias.name ? &model->head_bias : NULL,
                      .soft_cap = model->config.final_cap};
}

tm_status tm__model_check_language(const tm_model *model) {
    if (!model->config.labels) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, model->directory, "architectures", "use a ForCausalLM checkpoint",
                    "%s has no language-model head", model->config.family->classifier);
}

/* ---- ownership and training -------------------------------------------------------------------------------------- */

tm_status tm__param_alloc(tm_model *model, tm__param *param) {
    tm_device *dev = model->dev;
    void *data;
    TM__TRY(tm__alloc_for(dev, TM__FOR_WEIGHTS, act_bytes(dev, param), &data));
    param->value.data = data;
    param->value.dtype = dev->act;
    param->owned = param->changed = true;
    return TM_OK;
}

tm_status tm__param_own(tm_model *model, tm__param *param) {
    tm_device *dev = model->dev;
    if (dev->int8_weights)
        return tm__fail(TM_UNSUPPORTED, NULL, "precision", "choose fp32, or bf16 where the processor has it",
                        "weights of 8 bits cannot be trained or edited");
    if (param->owned) {
        param->changed = true;
        return TM_OK;
    }
    const tm_tensor mapped = param->value;
    TM__TRY(tm__param_alloc(model, param));
    tm_status status =
        dev->k->convert(dev, param->value.data, dev->act, mapped.data, mapped.dtype, tm__tensor_count(&mapped));
    if (status != TM_OK) {
        dev->release(dev, param->value.data, act_bytes(dev, param));
        param->value = mapped;
        param->owned = param->changed = false;
        return status;
    }
    if (model->files) tm__checkpoint_unneeded(model->files, &mapped); /* from now on the copy is read */
    return TM_OK;
}

tm_status tm__param_train(tm_model *model, tm__param *param, bool trainable) {
    tm_device *dev = model->dev;
    if (!trainable) {
        tm__param_grad_zero(dev, param);
        param->trainable = false;
        return TM_OK;
    }
    TM__TRY(tm__param_own(model, param));
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
