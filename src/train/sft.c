/* sft.c: tm_train: supervised fine-tuning of all weights or of a new LoRA adapter, and the tag of a run. */
#include "train/train.h"

#include "model/weights.h"

#include <stdlib.h>

/* ---- tag --------------------------------------------------------------------------------------------------------- */

static void hash_text(tm__sha256 *hash, const char *text) {
    tm__sha256_update(hash, text, strlen(text) + 1);
}

/* Options that do not touch the result. */
static bool changes_nothing(const char *name) {
    return strcmp(name, "save-every") == 0 || strcmp(name, "resume") == 0 || strcmp(name, "force") == 0 ||
           strcmp(name, "memory") == 0;
}

static void hash_options(tm__sha256 *hash, const tm_train_options *options) {
    for (const tm_option *option = tm_train_option_table; option->name; option++) {
        char text[1024];
        if (changes_nothing(option->name)) continue;
        tm_options_text(option, options, text, sizeof text);
        hash_text(hash, option->name);
        hash_text(hash, text);
    }
}

enum { SAMPLES = 8, SAMPLE_BYTES = 512 };

typedef struct sampling {
    tm_device *dev;
    tm__sha256 *hash;
} sampling;

/* Samples spread over a weight tell one model from another without reading all of either. */
static tm_status hash_param(void *user, tm__param *param, bool is_adapter) {
    (void)is_adapter;
    const sampling *s = user;
    if (s->dev->rehearses) return TM_OK; /* weights are not read: pages of them would count as the program's */
    uint8_t sample[SAMPLE_BYTES];
    size_t bytes = tm__tensor_bytes(&param->value), step = bytes / SAMPLES;
    hash_text(s->hash, param->name ? param->name : "");
    tm__sha256_update(s->hash, param->value.shape, (size_t)param->value.ndim * sizeof *param->value.shape);
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t n = TM__MIN(bytes - i * step, (size_t)SAMPLE_BYTES);
        const uint8_t *from = (const uint8_t *)param->value.data + i * step;
        if (param->owned)
            TM__TRY(s->dev->download(s->dev, sample, from, n));
        else
            memcpy(sample, from, n);
        tm__sha256_update(s->hash, sample, n);
    }
    return TM_OK;
}

static void hash_examples(tm__sha256 *hash, const tm__examples *examples) {
    uint64_t count = examples->count;
    tm__sha256_update(hash, &count, sizeof count);
    for (size_t i = 0; i < examples->count; i++) {
        const tm_ids *ids = &examples->ids[i], *labels = &examples->labels[i];
        uint64_t len = ids->len;
        tm__sha256_update(hash, &len, sizeof len);
        tm__sha256_update(hash, ids->data, ids->len * sizeof *ids->data);
        tm__sha256_update(hash, labels->data, labels->len * sizeof *labels->data);
    }
}

tm_status tm__train_tag(const char *method, tm_model *model, const tm__examples *const *sets, size_t set_count,
                        const tm_train_options *options, char tag[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    hash_text(&hash, method);
    hash_options(&hash, options);
    if (model->continues) hash_text(&hash, "continue-adapter");
    for (size_t i = 0; i < set_count; i++) hash_examples(&hash, sets[i]);
    sampling s = {model->dev, &hash};
    TM__TRY(tm__model_params(model, hash_param, &s));
    tm__sha256_hex(&hash, tag);
    return TM_OK;
}

/* Share of positions from which on it is worth a word. */
static const double NOTED_PADDING = 0.05;

/* ---- training ---------------------------------------------------------------------------------------------------- */

tm_status tm__train_check(const tm_model *model, const tm_train_options *options) {
    if (model->continues && options->lora.rank > 0)
        return tm__fail(TM_INVALID, NULL, "lora-rank", "leave it out: the adapter has its own",
                        "the model's adapter is to be trained on, not a new one");
    if (options->freeze_blocks >= model->config.layers)
        return tm__fail(TM_INVALID, NULL, "freeze-blocks", NULL, "the model has %lld blocks",
                        (long long)model->config.layers);
    return options->lora.rank > 0 ? tm__adapter_check_targets(options->lora.targets) : TM_OK;
}

tm_status tm__train_prepare(tm_model *model, const tm_train_options *options) {
    tm_model_info info;
    tm_model_describe(model, &info);
    TM__TRY(tm__train_check(model, options));
    if (model->continues) {
        TM__TRY(tm__model_train_adapters(model, (size_t)info.adapters - 1));
    } else if (options->lora.rank == 0) {
        TM__TRY(tm__model_train_full(model));
    } else {
        TM__TRY(tm_model_add_lora(model, &options->lora, (uint64_t)options->seed));
        TM__TRY(tm__model_train_adapters(model, (size_t)info.adapters));
        if (info.labels)
            TM__TRY(tm__param_train(model, &model->score, true)); /* a new head has no other way to learn */
    }
    return options->freeze_blocks ? tm__model_freeze_blocks(model, options->freeze_blocks) : TM_OK;
}

/* Ranks that begin with other bytes, or compute them in another way, would end with other weights. */
static tm_status same_everywhere(const tm_device *dev, const char *tag) {
    static const char hint[] = "all ranks must see the same files, on processors of the same kind";
    char text[256];
    if (dev->rehearses) return TM_OK;
    snprintf(text, sizeof text, "%s %s %s %s", tag, tm_device_name(dev), tm_device_instruction_set(dev),
             tm_device_precision(dev));
    return tm__ranks_same(text, "model, data, options, instruction set or precision", hint);
}

tm_status tm__train_run(tm_model *model, const tm_tokenizer *tokenizer, const tm__examples *const *sets,
                        size_t set_count, const char *method, tm__run *run, const tm_train_options *options,
                        const tm_monitor *monitor, tm_train_result *result) {
    char tag[65];
    for (size_t i = 0; i < set_count; i++) {
        TM__TRY(tm__examples_fit(sets[i], model));
        tm__examples_note(sets[i], model, monitor);
    }
    TM__TRY(tm__train_tag(method, model, sets, set_count, options, tag));
    TM__TRY(same_everywhere(model->dev, tag));
    tm__ranks_note_cores(monitor);
    run->tag = tag;
    run->pad = tm__pad_id(tokenizer);
    tm_status status = tm__train_prepare(model, options);
    if (status == TM_OK) status = tm__trainer_run(model, sets[0], options, monitor, run, result);
    run->tag = NULL;
    if (status == TM_OK) return tm__model_freeze(model);
    tm_error kept = *tm_error_last(); /* giving gradients back must not hide why */
    if (tm__model_freeze(model) != TM_OK) tm__fail(kept.status, kept.file, kept.field, kept.hint, "%s", kept.message);
    return status;
}

tm_status tm__train_sft(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset, const char *method,
                        const tm_train_options *options, const tm_monitor *monitor, tm_train_result *result) {
    tm_train_options checked;
    tm__examples examples;
    TM__TRY(tm__train_options_resolve(options, &checked));
    if (tm_dataset_rows(dataset) == 0) return tm__fail(TM_INVALID, NULL, "data", NULL, "holds no rows");
    TM__TRY(tm__examples_encode(tokenizer, dataset, (tm_chat_format)checked.chat, checked.max_length,
                                checked.full_sequence, monitor, &examples));
    const tm__examples *sets[] = {&examples};
    tm__run run = {0};
    tm_train_result made = {0};
    tm_status status = tm__train_run(model, tokenizer, sets, 1, method, &run, &checked, monitor, &made);
    if (status == TM_OK && made.padding > NOTED_PADDING && !model->dev->rehearses)
        tm__note(monitor, "%.0f%% of the positions computed were padding: packed rows have none, and the same loss",
                 100 * made.padding);
    if (status == TM_OK && result) *result = made;
    tm__examples_release(&examples);
    return status;
}

tm_status tm_train(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *dataset,
                   const tm_train_options *options, const tm_monitor *monitor, tm_train_result *result) {
    return tm__train_sft(model, tokenizer, dataset, "sft", options, monitor, result);
}
