/* adapter.c: LoRA adapters of a model (Hu et al. 2021): adding new ones, merging, removing.
 *
 *   y = W x + scale B A x,   A (rank, in) ~ U(-1/sqrt(in), 1/sqrt(in)) as PEFT's kaiming_uniform(a = sqrt 5),  B (out,
 * rank) = 0 scale = alpha / rank, or alpha / sqrt(rank) (rsLoRA)
 */
#include "model/adapter.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static tm_status make_param(tm_model *model, tm__param *param, char *name, int64_t rows, int64_t columns) {
    *param = (tm__param){.name = name, .stored = TM_F32};
    if (!name) return tm__fail_memory();
    param->value = (tm_tensor){.dtype = model->dev->act, .ndim = 2, .shape = {rows, columns}};
    return tm__param_alloc(model, param);
}

void tm__adapter_release(tm_device *dev, tm__adapter *adapter) {
    tm__param_release(dev, &adapter->a);
    tm__param_release(dev, &adapter->b);
}

tm_status tm__adapter_add(tm_model *model, int64_t layer, int index, int64_t rank, double alpha, double scale,
                          double dropout, tm__adapter **adapter) {
    tm__linear *linear = tm__block_linear(&model->blocks[layer], index);
    size_t number = model->adapter_count;
    int64_t out = linear->weight.value.shape[0], in = linear->weight.value.shape[1];
    if (!tm__grow((void **)&linear->adapters, &linear->adapter_cap, linear->adapter_count + 1,
                  sizeof *linear->adapters))
        return tm__fail_memory();
    char *path = tm__linear_path(model, layer, index);
    if (!path) return tm__fail_memory();
    tm__adapter made = {
        .rank = rank, .alpha = alpha, .scale = scale, .dropout = dropout, .active = true, .number = number};
    tm_status status = make_param(model, &made.a, tm__format("%s.lora_A.%zu.weight", path, number), rank, in);
    if (status == TM_OK)
        status = make_param(model, &made.b, tm__format("%s.lora_B.%zu.weight", path, number), out, rank);
    free(path);
    if (status != TM_OK) {
        tm__adapter_release(model->dev, &made);
        return status;
    }
    *adapter = &linear->adapters[linear->adapter_count++];
    **adapter = made;
    return TM_OK;
}

void tm__adapters_drop(tm_model *model, size_t from) {
    tm__replaced_restore(model, from);
    for (int64_t i = 0; model->blocks && i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__linear *linear = tm__block_linear(&model->blocks[i], k);
            while (linear->adapter_count > 0 && linear->adapters[linear->adapter_count - 1].number >= from)
                tm__adapter_release(model->dev, &linear->adapters[--linear->adapter_count]);
            if (linear->adapter_count > 0) continue;
            free(linear->adapters);
            linear->adapters = NULL;
            linear->adapter_cap = 0;
        }
}

tm__adapter *tm__adapter_find(const tm__linear *linear, size_t number) {
    for (size_t i = 0; i < linear->adapter_count; i++)
        if (linear->adapters[i].number == number) return &linear->adapters[i];
    return NULL;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

/* A linear of the family by its module name, of any family where that is NULL; -1: none. */
static int find_linear(const tm__family *family, const char *name, size_t len) {
    for (size_t f = 0; family || tm__family_at(f); f++) {
        for (int k = 0; k < TM__LINEARS; k++) {
            const char *has = tm__linear_name(family ? family : tm__family_at(f), k);
            if (has && strlen(has) == len && memcmp(has, name, len) == 0) return k;
        }
        if (family) break;
    }
    return -1;
}

static tm_status no_linear(const tm__family *family, const char *name, size_t len) {
    char hint[128] = "choose from ";
    for (int k = 0; k < TM__LINEARS; k++) {
        const char *has = tm__linear_name(family ? family : tm__family_at(0), k);
        size_t end = strlen(hint);
        if (has) snprintf(hint + end, sizeof hint - end, "%s%s", k ? "," : "", has);
    }
    size_t used = strlen(hint);
    snprintf(hint + used, sizeof hint - used, " or all-linear");
    return tm__fail(TM_INVALID, NULL, "lora-targets", hint, "'%.*s' is not a linear layer of the model",
                    (int)TM__MIN(len, (size_t)60), name);
}

/* Marks the linears of a family (NULL: any) that a comma-separated list names. */
static tm_status parse_targets(const tm__family *family, const char *targets, bool chosen[TM__LINEARS]) {
    if (strcmp(targets, "all-linear") == 0) {
        for (int k = 0; k < TM__LINEARS; k++) chosen[k] = !family || family->linear[k];
        return TM_OK;
    }
    for (const char *at = targets;; at++) {
        at += strspn(at, " ");
        size_t len = strcspn(at, ",");
        size_t word = len;
        while (word > 0 && at[word - 1] == ' ') word--;
        int found = find_linear(family, at, word);
        if (found < 0) return no_linear(family, at, word);
        chosen[found] = true;
        at += len;
        if (!*at) return TM_OK;
    }
}

tm_status tm__adapter_check_targets(const char *targets) {
    bool chosen[TM__LINEARS];
    return parse_targets(NULL, targets, chosen);
}

static tm_status initialise(tm_model *model, tm__adapter *adapter, uint64_t seed, uint32_t index) {
    tm_device *dev = model->dev;
    const tm_tensor *a = &adapter->a.value;
    size_t n = (size_t)tm__tensor_count(a), size = tm__dtype_size(dev->act);
    double bound = 1 / sqrt((double)a->shape[1]);
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_LORA, index));
    double *numbers = tm__alloc(n, sizeof *numbers);
    void *values = tm__alloc(n, size);
    tm_status status = numbers && values ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        for (size_t i = 0; i < n; i++) numbers[i] = bound * (2 * tm__rng_uniform(&rng) - 1);
        tm__convert(values, dev->act, numbers, TM_F64, n);
        status = dev->upload(dev, a->data, values, n * size);
    }
    if (status == TM_OK) status = dev->k->fill(dev, adapter->b.value.data, 0, tm__tensor_count(&adapter->b.value));
    free(numbers);
    free(values);
    return status;
}

static tm_status describe(const tm_model *model, const tm_lora_options *options, const bool chosen[TM__LINEARS],
                          json_t **config) {
    json_t *targets = json_array();
    bool ok = targets != NULL;
    for (int k = 0; ok && k < TM__LINEARS; k++)
        if (chosen[k]) ok = json_array_append_new(targets, json_string(tm__linear_name(model->config.family, k))) == 0;
    json_t *made = ok ? json_pack("{s:{}, s:s?, s:s, s:b, s:b, s:b, s:f, s:f, s:n, s:s, s:i, s:{}, s:O, s:s, s:b, s:b}",
                                  "alpha_pattern", "base_model_name_or_path", model->directory, "bias", "none",
                                  "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "lora_alpha",
                                  options->alpha, "lora_dropout", options->dropout, "modules_to_save", "peft_type",
                                  "LORA", "r", (int)options->rank, "rank_pattern", "target_modules", targets,
                                  "task_type", "CAUSAL_LM", "use_dora", 0, "use_rslora", options->rslora)
                      : NULL;
    json_decref(targets);
    if (!made) return tm__fail_memory();
    *config = made;
    return TM_OK;
}

static tm_status check_options(const tm_lora_options *options) {
    if (options->rank < 1 || options->rank > 65536)
        return tm__fail(TM_INVALID, NULL, "lora-rank", NULL, "%lld is outside 1 to 65536", (long long)options->rank);
    if (!(options->alpha > 0) || isinf(options->alpha))
        return tm__fail(TM_INVALID, NULL, "lora-alpha", NULL, "%g is not above 0", options->alpha);
    if (!(options->dropout >= 0 && options->dropout < 1))
        return tm__fail(TM_INVALID, NULL, "lora-dropout", NULL, "%g is outside 0 to 1", options->dropout);
    return TM_OK;
}

static tm_status add_parts(tm_model *model, const tm_lora_options *options, const bool chosen[TM__LINEARS],
                           uint64_t seed) {
    double rank = (double)options->rank, scale = options->alpha / (options->rslora ? sqrt(rank) : rank);
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__adapter *adapter;
            if (!chosen[k]) continue;
            uint32_t index =
                ((uint32_t)model->adapter_count * (uint32_t)model->config.layers + (uint32_t)i) * TM__LINEARS +
                (uint32_t)k;
            TM__TRY(tm__adapter_add(model, i, k, options->rank, options->alpha, scale, options->dropout, &adapter));
            TM__TRY(initialise(model, adapter, seed, index));
        }
    return TM_OK;
}

tm_status tm_model_add_lora(tm_model *model, const tm_lora_options *options, uint64_t seed) {
    static const tm_lora_options defaults = {.rank = 8, .alpha = 16};
    bool chosen[TM__LINEARS] = {false};
    json_t *config;
    if (!options) options = &defaults;
    TM__TRY(check_options(options));
    TM__TRY(parse_targets(model->config.family, options->targets ? options->targets : "q_proj,v_proj", chosen));
    TM__TRY(describe(model, options, chosen, &config));
    tm_status status = add_parts(model, options, chosen, seed);
    if (status != TM_OK) {
        tm__adapters_drop(model, model->adapter_count);
        json_decref(config);
        return status;
    }
    json_decref(model->adapter_config);
    model->adapter_config = config;
    model->adapter_count++;
    return TM_OK;
}

tm_status tm_model_continue_adapter(tm_model *model) {
    if (model->adapter_count == 0)
        return tm__fail(TM_INVALID, model->directory, "adapter", NULL, "the model has no adapter to train on");
    model->continues = true;
    return TM_OK;
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static tm_status merge_part(tm_device *dev, tm__linear *linear, const tm__adapter *adapter) {
    const tm__gemm product = {.m = linear->weight.value.shape[0],
                              .n = linear->weight.value.shape[1],
                              .k = adapter->rank,
                              .a = adapter->b.value.data,
                              .a_type = dev->act,
                              .lda = adapter->rank,
                              .b = adapter->a.value.data,
                              .b_type = dev->act,
                              .ldb = linear->weight.value.shape[1],
                              .c = linear->weight.value.data,
                              .ldc = linear->weight.value.shape[1],
                              .alpha = adapter->scale,
                              .accumulate = true,
                              .exact = true};
    return dev->k->gemm(dev, &product);
}

/* All weights are made one's own before the first is changed: running out of memory leaves the model as it was. */
tm_status tm_model_merge(tm_model *model) {
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__linear *linear = tm__block_linear(&model->blocks[i], k);
            if (linear->adapter_count > 0) TM__TRY(tm__param_own(model, &linear->weight));
        }
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__linear *linear = tm__block_linear(&model->blocks[i], k);
            for (size_t j = 0; j < linear->adapter_count; j++)
                TM__TRY(merge_part(model->dev, linear, &linear->adapters[j]));
        }
    tm__replaced_keep(model);
    tm__adapters_drop(model, 0);
    model->adapter_count = 0;
    model->continues = false;
    json_decref(model->adapter_config);
    model->adapter_config = NULL;
    return TM_OK;
}

void tm__adapter_remove(tm_model *model, size_t number) {
    tm__replaced_remove(model, number);
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__linear *linear = tm__block_linear(&model->blocks[i], k);
            size_t kept = 0;
            for (size_t j = 0; j < linear->adapter_count; j++) {
                tm__adapter part = linear->adapters[j];
                if (part.number == number) {
                    tm__adapter_release(model->dev, &part);
                    continue;
                }
                part.number -= part.number > number;
                linear->adapters[kept++] = part;
            }
            linear->adapter_count = kept;
        }
    if (--model->adapter_count > 0) return;
    model->continues = false;
    tm__adapters_drop(model, 0);
    json_decref(model->adapter_config);
    model->adapter_config = NULL;
}
