/* weights.c: the weights of an encoder: names, shapes, loading.
 *
 * Weights stay in the mapped files. Every tensor that the config asks for must be there in its shape; nothing else may
 * be but heads that are not used, so that a checkpoint of another kind is never taken for a smaller encoder. Names are
 * those of transformers, with or without the prefix that a model with a head puts before its encoder's.
 */
#include "encoder/encoder.h"

#include "model/weights.h"

#include <stdlib.h>

/* ---- names and shapes -------------------------------------------------------------------------------------------- */

typedef struct naming {
    tm_encoder *encoder;
    const char *prefix; /* of the encoder's own weights: "bert.", "deberta." or "" */
} naming;

/* `columns` 0: a vector. */
static tm_status add(const naming *n, tm__param *param, int64_t rows, int64_t columns, char *name) {
    tm_encoder *e = n->encoder;
    param->value = (tm_tensor){.ndim = columns ? 2 : 1, .shape = {rows, columns ? columns : 1}};
    if (!name || !tm__grow((void **)&e->params, &e->param_cap, e->param_count + 1, sizeof(tm__param *))) {
        free(name);
        return tm__fail_memory();
    }
    param->name = name;
    e->params[e->param_count++] = param;
    return TM_OK;
}

static tm_status add_linear(const naming *n, tm__linear *linear, int64_t out, int64_t in, const char *path) {
    TM__TRY(add(n, &linear->weight, out, in, tm__format("%s.weight", path)));
    return add(n, &linear->bias, out, 0, tm__format("%s.bias", path));
}

static tm_status add_norm(const naming *n, tm__encoder_norm *norm, const char *path) {
    TM__TRY(add(n, &norm->weight, n->encoder->config.hidden, 0, tm__format("%s.weight", path)));
    return add(n, &norm->bias, n->encoder->config.hidden, 0, tm__format("%s.bias", path));
}

/* One part of a block: a linear of shape (out, in), or a norm where out is 0. */
static tm_status add_part(const naming *n, int64_t layer, const char *part, void *to, int64_t out, int64_t in) {
    char *path = tm__format("%sencoder.layer.%lld.%s", n->prefix, (long long)layer, part);
    tm_status status = !path ? tm__fail_memory() : out ? add_linear(n, to, out, in, path) : add_norm(n, to, path);
    free(path);
    return status;
}

static tm_status add_block(const naming *n, int64_t layer) {
    static const char *const names[2][3] = {
        {"attention.self.query", "attention.self.key", "attention.self.value"},
        {"attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"}};
    const tm__encoder_config *c = &n->encoder->config;
    tm__encoder_block *b = &n->encoder->blocks[layer];
    const char *const *qkv = names[c->family == TM__FAMILY_DEBERTA];
    int64_t d = c->hidden, f = c->intermediate;
    TM__TRY(add_part(n, layer, qkv[0], &b->q, d, d));
    TM__TRY(add_part(n, layer, qkv[1], &b->k, d, d));
    TM__TRY(add_part(n, layer, qkv[2], &b->v, d, d));
    if (c->relative && !c->share_key && c->content_to_position)
        TM__TRY(add_part(n, layer, "attention.self.pos_key_proj", &b->position_key, d, d));
    if (c->relative && !c->share_key && c->position_to_content)
        TM__TRY(add_part(n, layer, "attention.self.pos_query_proj", &b->position_query, d, d));
    TM__TRY(add_part(n, layer, "attention.output.dense", &b->o, d, d));
    TM__TRY(add_part(n, layer, "attention.output.LayerNorm", &b->attention_norm, 0, 0));
    TM__TRY(add_part(n, layer, "intermediate.dense", &b->up, f, d));
    TM__TRY(add_part(n, layer, "output.dense", &b->down, d, f));
    return add_part(n, layer, "output.LayerNorm", &b->output_norm, 0, 0);
}

static tm_status add_table(const naming *n, tm__param *table, int64_t rows, int64_t columns, const char *name) {
    return add(n, table, rows, columns, tm__format("%s%s", n->prefix, name));
}

static tm_status add_embeddings(const naming *n) {
    tm_encoder *e = n->encoder;
    const tm__encoder_config *c = &e->config;
    char *norm = tm__format("%sembeddings.LayerNorm", n->prefix);
    tm_status status = norm ? add_norm(n, &e->norm, norm) : tm__fail_memory();
    free(norm);
    TM__TRY(status);
    TM__TRY(add_table(n, &e->words, c->vocab, c->embedding, "embeddings.word_embeddings.weight"));
    if (c->positions)
        TM__TRY(add_table(n, &e->positions, c->max_positions, c->embedding, "embeddings.position_embeddings.weight"));
    if (c->types) TM__TRY(add_table(n, &e->types, c->types, c->embedding, "embeddings.token_type_embeddings.weight"));
    if (c->embedding != c->hidden)
        TM__TRY(add_table(n, &e->project.weight, c->hidden, c->embedding, "embeddings.embed_proj.weight"));
    if (!c->relative) return TM_OK;
    return add_table(n, &e->relative, 2 * c->span, c->hidden, "encoder.rel_embeddings.weight");
}

static tm_status describe(const naming *n) {
    tm_encoder *e = n->encoder;
    const tm__encoder_config *c = &e->config;
    TM__TRY(add_embeddings(n));
    if (c->norm_relative) {
        char *path = tm__format("%sencoder.LayerNorm", n->prefix);
        tm_status status = path ? add_norm(n, &e->relative_norm, path) : tm__fail_memory();
        free(path);
        TM__TRY(status);
    }
    for (int64_t layer = 0; layer < c->layers; layer++) TM__TRY(add_block(n, layer));
    if (!c->classifier) return TM_OK;
    bool bert = c->family == TM__FAMILY_BERT; /* its pooler is a part of the encoder */
    TM__TRY(add_linear(n, &e->pooler, c->hidden, c->hidden, bert ? "bert.pooler.dense" : "pooler.dense"));
    return add_linear(n, &e->classifier, c->labels, c->hidden, "classifier");
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Checkpoints converted from TensorFlow call a norm's weight gamma and its bias beta. */
static tm_status take(tm_encoder *e, tm__param *param) {
    const char *at = param->name;
    size_t len = strlen(at);
    char *old = NULL;
    bool weight = ends_with(at, ".LayerNorm.weight"), bias = ends_with(at, ".LayerNorm.bias");
    if (weight) old = tm__format("%.*sgamma", (int)(len - strlen("weight")), at);
    if (bias) old = tm__format("%.*sbeta", (int)(len - strlen("bias")), at);
    if ((weight || bias) && !old) return tm__fail_memory();
    if (old && tm__checkpoint_index(e->files, at) < 0 && tm__checkpoint_index(e->files, old) >= 0) {
        free(param->name);
        param->name = old;
        old = NULL;
    }
    free(old);
    return tm__param_take(e->files, e->directory, param->name, param);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(tm__param *const *)a)->name, (*(tm__param *const *)b)->name);
}

/* Heads of pre-training, BERT's pooler where nothing is classified, and a buffer that old versions saved. */
static bool is_unused(const tm__encoder_config *c, const char *name) {
    static const char *const heads[] = {"cls.", "lm_predictions.", "mask_predictions."};
    for (size_t i = 0; i < TM__COUNT(heads); i++)
        if (strncmp(name, heads[i], strlen(heads[i])) == 0) return true;
    if (ends_with(name, "embeddings.position_ids")) return true;
    return !c->classifier && (strncmp(name, "pooler.", 7) == 0 || strncmp(name, "bert.pooler.", 12) == 0);
}

static tm_status check_unexpected(const tm_encoder *e) {
    size_t at = 0;
    for (size_t i = 0; i < tm__checkpoint_count(e->files); i++) { /* both lists are in name order */
        const char *name = tm__checkpoint_name(e->files, i);
        while (at < e->param_count && strcmp(e->params[at]->name, name) < 0) at++;
        if (at < e->param_count && strcmp(e->params[at]->name, name) == 0) continue;
        if (!is_unused(&e->config, name))
            return tm__fail(TM_MISMATCH, tm__checkpoint_file(e->files, i), name, NULL,
                            "the tensor is not one of the encoder that config.json describes");
    }
    return TM_OK;
}

/* Kernels read the act type, fp32 and the 16-bit types in place; fp64 on an fp32 device is converted once. */
static tm_status take_in(tm_device *dev, tm__param *param) {
    const tm_tensor mapped = param->value;
    void *data;
    if (mapped.dtype != TM_F64 || dev->act == TM_F64) return TM_OK;
    size_t bytes = (size_t)tm__tensor_count(&mapped) * tm__dtype_size(dev->act);
    TM__TRY(dev->alloc(dev, bytes, &data));
    param->value.data = data;
    param->value.dtype = dev->act;
    param->owned = true;
    return dev->k->convert(dev, data, dev->act, mapped.data, mapped.dtype, tm__tensor_count(&mapped));
}

tm_status tm__encoder_weights_load(tm_encoder *e) {
    const char *own = e->config.family == TM__FAMILY_BERT ? "bert." : "deberta.";
    char *first = tm__format("%sembeddings.word_embeddings.weight", own);
    if (!first) return tm__fail_memory();
    tm_status status = tm__checkpoint_open(e->directory, "model", &e->files);
    bool prefixed = status == TM_OK && tm__checkpoint_index(e->files, first) >= 0;
    free(first);
    TM__TRY(status);
    e->blocks = tm__zalloc((size_t)e->config.layers, sizeof *e->blocks);
    if (!e->blocks) return tm__fail_memory();
    const naming n = {e, prefixed || e->config.classifier ? own : ""};
    TM__TRY(describe(&n));
    for (size_t i = 0; i < e->param_count; i++) TM__TRY(take(e, e->params[i]));
    qsort(e->params, e->param_count, sizeof *e->params, by_name);
    TM__TRY(check_unexpected(e));
    for (size_t i = 0; i < e->param_count; i++) {
        int64_t index = tm__checkpoint_index(e->files, e->params[i]->name);
        const char *file = tm__checkpoint_file(e->files, (size_t)index);
        TM__TRY(tm__tensor_check_finite(&e->params[i]->value, file, e->params[i]->name));
        TM__TRY(take_in(e->dev, e->params[i]));
    }
    return TM_OK;
}

void tm__encoder_weights_release(tm_encoder *e) {
    for (size_t i = 0; i < e->param_count; i++) tm__param_release(e->dev, e->params[i]);
    free(e->params);
    free(e->blocks);
    tm__checkpoint_close(e->files);
}
