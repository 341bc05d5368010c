/* classifier.c: a language model turned into a sequence classifier, and its loss.
 *
 * As transformers' ForSequenceClassification on a causal checkpoint: the output layer goes, `score` (labels, hidden)
 * without bias comes, drawn from N(0, initializer_range). Tests: tests/golden/test_train_judge.c.
 */
#include "model/weights.h"

#include <jansson.h>
#include <stdlib.h>

static tm_status draw_head(tm_model *model, uint64_t seed) {
    tm_device *dev = model->dev;
    size_t n = (size_t)tm__tensor_count(&model->score.value);
    double *numbers = tm__alloc(n, sizeof *numbers);
    void *narrow = tm__alloc(n, tm__dtype_size(dev->act));
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_INIT, 0)); /* 1 and on are those of whole models */
    tm_status status = numbers && narrow ? tm__param_alloc(model, &model->score) : tm__fail_memory();
    if (status == TM_OK) {
        for (size_t i = 0; i < n; i++) numbers[i] = model->config.initializer_range * tm__rng_normal(&rng);
        tm__convert(narrow, dev->act, numbers, TM_F64, n);
        status = dev->upload(dev, model->score.value.data, narrow, n * tm__dtype_size(dev->act));
    }
    free(numbers);
    free(narrow);
    return status;
}

static tm_status set_keys(tm_model *model, const json_t *keys) {
    json_t *raw = model->config.raw, *names = json_pack("[s]", model->config.family->classifier);
    bool ok = names && json_object_set_new(raw, "architectures", names) == 0;
    json_object_del(raw, "num_labels");
    if (ok) ok = json_object_update(raw, (json_t *)keys) == 0;
    return ok ? TM_OK : tm__fail_memory();
}

tm_status tm__model_make_classifier(tm_model *model, int64_t labels, int32_t pad, const struct json_t *keys,
                                    uint64_t seed) {
    tm__config *c = &model->config;
    if (c->labels)
        return tm__fail(TM_UNSUPPORTED, model->directory, "architectures", "begin with a language model",
                        "it is a classifier already");
    if (model->adapter_count)
        return tm__fail(TM_INVALID, model->directory, "adapter", "merge it first",
                        "a classifier is made of whole models");
    model->score.name = tm__strdup("score.weight");
    if (!model->score.name) return tm__fail_memory();
    model->score.value = (tm_tensor){.dtype = model->dev->act, .ndim = 2, .shape = {labels, c->hidden}};
    model->score.stored = model->embed.stored;
    tm_status status = draw_head(model, seed);
    if (status == TM_OK) status = set_keys(model, keys);
    if (status != TM_OK) {
        tm__param_release(model->dev, &model->score);
        return status;
    }
    tm__param_release(model->dev, &model->head);
    tm__param_release(model->dev, &model->head_bias);
    c->labels = labels;
    c->pad = pad;
    return TM_OK;
}

tm_status tm__model_label_loss(tm_model *model, tm__tape *tape, const tm__batch *batch,
                               const tm__forward_options *options, const tm__label_targets *targets, double *row_loss,
                               tm__var **loss) {
    tm__var *hidden;
    tm__label_targets placed = *targets;
    assert(model->config.labels && targets->count == batch->segments);
    int32_t *row = tm__arena_alloc(&tape->host, (size_t)batch->segments, sizeof *row);
    if (!row) return tm__fail_memory();
    tm__model_deciding_rows(model, batch, row);
    placed.row = row;
    TM__TRY(tm__model_forward(model, tape, batch, options, &hidden));
    return tm__op_label_loss(tape, hidden, &model->score, &placed, row_loss, loss);
}
