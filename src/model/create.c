/* create.c: a new model from the text of a config.json: matrices from N(0, initializer_range), norms 1, biases 0.
 *
 * Parameter i of the fixed order draws from the Philox stream (seed, INIT, i): its values depend on nothing else.
 */
#include "model/weights.h"

#include <stdlib.h>

typedef struct initialisation {
    tm_model *model;
    uint64_t seed;
    uint32_t index;
    double *numbers; /* chunk in fp64 */
    void *chunk;     /* the same in act type */
} initialisation;

enum { CHUNK = 1 << 15 };

static tm_status fill_normal(initialisation *in, tm__param *param) {
    tm_device *dev = in->model->dev;
    size_t n = (size_t)tm__tensor_count(&param->value), size = tm__dtype_size(dev->act);
    tm__rng rng = tm__rng_make(in->seed, tm__stream(TM__STREAM_INIT, in->index));
    double deviation = in->model->config.initializer_range;
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t count = TM__MIN(n - first, (size_t)CHUNK);
        for (size_t i = 0; i < count; i++) in->numbers[i] = deviation * tm__rng_normal(&rng);
        tm__convert(in->chunk, dev->act, in->numbers, TM_F64, count);
        TM__TRY(dev->upload(dev, (char *)param->value.data + first * size, in->chunk, count * size));
    }
    return TM_OK;
}

static tm_status initialise(void *user, tm__param *param, bool is_adapter) {
    initialisation *in = user;
    tm_device *dev = in->model->dev;
    (void)is_adapter;
    if (!param->owned) TM__TRY(tm__param_alloc(in->model, param));
    in->index++;
    if (param->value.ndim == 2) return fill_normal(in, param);
    size_t len = strlen(param->name);
    bool bias = len > 5 && strcmp(param->name + len - 5, ".bias") == 0;
    return dev->k->fill(dev, param->value.data, bias ? 0 : 1, tm__tensor_count(&param->value));
}

tm_status tm__model_redraw(tm_model *model, uint64_t seed) {
    initialisation in = {.model = model, .seed = seed};
    if (model->adapter_count)
        return tm__fail(TM_INVALID, NULL, "adapter", "merge it first", "weights under an adapter are not drawn anew");
    in.numbers = tm__alloc(CHUNK, sizeof *in.numbers);
    in.chunk = tm__alloc(CHUNK, sizeof(double));
    tm_status status = in.numbers && in.chunk ? tm__model_params(model, initialise, &in) : tm__fail_memory();
    free(in.numbers);
    free(in.chunk);
    return status;
}

tm_status tm_model_create(tm_device *device, const char *config_json, uint64_t seed, tm_model **model) {
    tm__config config;
    tm_model *made;
    TM__TRY(tm__config_parse(config_json, strlen(config_json), NULL, &config));
    TM__TRY(tm__model_skeleton(device, &config, &made));
    tm_status status = tm__model_redraw(made, seed);
    if (status != TM_OK) {
        tm_model_free(made);
        return status;
    }
    *model = made;
    return TM_OK;
}
