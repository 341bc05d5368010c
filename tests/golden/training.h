/* training.h: methods that fine-tune, from rows of text to the loss of every step, the first gradient and the weight
 * change of the fixture's AdamW steps, all through the methods' public entry; on all weights and on a new adapter,
 * padded, and packed with recomputation in micro-batches.
 *
 * The gradient is read as the change of one step of SGD at rate 1 without clipping.
 */
#ifndef TM_TEST_TRAINING_H
#define TM_TEST_TRAINING_H

#include "golden/golden.h"

static tm_tokenizer *tokenizer;

typedef struct subject {
    const char *name;        /* in the fixture */
    const tm_method *method; /* NULL: plain SFT on data.user */
    const void *options;
    tm_method_data data;
    int64_t max_length; /* 0: the fixture's */
    bool full_sequence;
    size_t number; /* of the adapter that a LoRA run adds */
} subject;

static tm_train_options options_of(const subject *s, bool lora, bool gradient, bool packed) {
    tm_train_options o;
    tm_options_default(tm_train_option_table, &o);
    o.steps = gradient ? 1 : (int64_t)golden_number("steps");
    o.batch = (int64_t)golden_number("batch");
    o.seed = (int64_t)golden_number("seed");
    o.max_length = s->max_length ? s->max_length : (int64_t)golden_number("max_length");
    o.lr = gradient ? 1 : golden_number("lr");
    o.clip = gradient ? 0 : golden_number("clip");
    o.weight_decay = gradient ? 0 : golden_number("weight_decay");
    o.optimiser = gradient;
    o.full_sequence = s->full_sequence;
    o.packed = o.recompute = packed;
    o.micro = packed ? 2 : 0;
    o.chat = TM_CHAT_CHATML;
    if (lora) {
        o.lora.rank = (int64_t)golden_number("lora.rank");
        o.lora.alpha = golden_number("lora.alpha");
        o.lora.targets = golden_text("lora.targets");
    }
    return o;
}

typedef struct heard {
    double losses[32];
    size_t count;
} heard;

static void hear(void *to, const tm_progress *progress) {
    heard *h = to;
    if (strcmp(progress->phase, "train") != 0) return;
    assert_true(h->count < TM__COUNT(h->losses));
    h->losses[h->count++] = progress->loss;
}

static void compare_losses(const heard *h, const char *key) {
    const json_t *want = json_object_get(golden_at("losses"), key);
    assert_int_equal(h->count, json_array_size(want));
    for (size_t i = 0; i < h->count; i++) {
        double loss = json_number_value(json_array_get(want, i));
        if (!(fabs(h->losses[i] - loss) <= BOUND * fabs(loss)))
            fail_msg("%s step %zu: %.12g, want %.12g", key, i, h->losses[i], loss);
    }
}

/* Where training begins: the checkpoint, other weights for random-init, a new adapter as it is drawn. */
static weights *beginning(const subject *s, tm_device *device, const tm_train_options *o) {
    tm_model *model;
    assert_ok(tm_model_load(device, test_path(home), NULL, &model));
    if (s->method == &tm__method_random_init)
        assert_ok(tm__model_redraw(model, (uint64_t)golden_number("options.random.seed")));
    for (size_t i = 0; o->lora.rank && i <= s->number; i++) {
        assert_ok(tm_model_add_lora(model, &o->lora, (uint64_t)o->seed));
        if (i < s->number) continue;
        for (size_t k = 0; k < s->number; k++) tm__adapter_remove(model, 0);
    }
    weights *w = weights_of(model, o->lora.rank > 0);
    tm_model_free(model);
    return w;
}

static double run_once(const subject *s, bool lora, bool gradient, bool packed) {
    const char *kind = lora ? "lora" : "full";
    tm_device *device = golden_device();
    tm_model *model;
    char key[64];
    heard h = {.count = 0};
    const tm_monitor monitor = {.progress = hear, .user = &h};
    const tm_train_options o = options_of(s, lora, gradient, packed);
    assert_ok(tm_model_load(device, test_path(home), NULL, &model));
    assert_ok(s->method ? s->method->run(model, tokenizer, &s->data, s->options, &o, &monitor, NULL)
                        : tm_train(model, tokenizer, s->data.user, &o, &monitor, NULL));
    weights *now = weights_of(model, lora), *then = beginning(s, device, &o);
    weights_subtract(now, then, gradient ? -1 : 1);
    snprintf(key, sizeof key, "%s.%s", s->name, kind);
    if (!gradient) compare_losses(&h, key);
    snprintf(key, sizeof key, "%s.%s.%s", s->name, kind, gradient ? "grad" : "delta");
    double worst = weights_compare(now, key, kind);
    if (lora) { /* C6: what is frozen stays */
        weights *base = weights_of(model, false), *was;
        tm_train_options full = o;
        full.lora.rank = 0;
        was = beginning(s, device, &full);
        weights_subtract(base, was, 1);
        for (size_t i = 0; i < base->count; i++)
            for (size_t j = 0; j < base->items[i].count; j++) assert_true(base->items[i].values[j] == 0);
        weights_free(base);
        weights_free(was);
    }
    weights_free(now);
    weights_free(then);
    tm_model_free(model);
    tm_device_close(device);
    return worst;
}

static void check(const subject *s) {
    for (int way = 0; way < 8; way++) {
        bool lora = way & 1, gradient = way & 2, packed = way & 4;
        double worst = run_once(s, lora, gradient, packed);
        print_message("%s %s %s: worst error %.2g\n", s->name, lora ? "lora" : "full", gradient ? "grad" : "delta",
                      worst);
    }
}

#endif
